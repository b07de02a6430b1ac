//! The faults that stand in a lab: their ids, what they are, and the events that tell of them.
//!
//! Whoever puts a fault in draws it with [`Ensemble::new_fault`], does it, and says so with
//! [`Ensemble::fault_on`]; whoever takes it out says [`Ensemble::fault_off`]. One counter numbers all
//! faults of a lab, whatever their kind. How a fault is done and undone is not known here.

use super::Ensemble;
use crate::clock::now_us;
use crate::event::{FaultKind, FaultNote, LabEventKind, Source};
use crate::id::NodeId;

/// A fault, before, while and after it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name, unique in its lab: `f1`.
    pub id: String,
    /// Its kind.
    pub what: FaultKind,
    /// What it is, as people say it: `isolate leader (n5)`.
    pub fault: String,
    /// The same in a word or two, for a column of a table: `isolated`.
    pub brief: String,
    /// The nodes it is about.
    pub nodes: Vec<NodeId>,
    /// The directed links it is on: `n1>n2`.
    pub links: Vec<String>,
    /// Since when it stands, by the system's clock; 0 before.
    pub at_us: u64,
}

impl Fault {
    /// About these nodes.
    #[must_use]
    pub fn on_nodes(mut self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        self.nodes = nodes.into_iter().collect();
        self
    }

    /// On these links.
    #[must_use]
    pub fn on_links(mut self, links: Vec<String>) -> Self {
        self.links = links;
        self
    }

    /// In a word or two.
    #[must_use]
    pub fn brief(mut self, brief: impl Into<String>) -> Self {
        self.brief = brief.into();
        self
    }

    /// For the column of a table: `isolated f1`, `killed 41 s ago k3`.
    #[must_use]
    pub fn shown(&self) -> String {
        let brief = &self.brief;
        if self.what.ends_processes() {
            let seconds = now_us().saturating_sub(self.at_us) / 1_000_000;
            format!("{brief} {seconds} s ago {}", self.id)
        } else {
            format!("{brief} {}", self.id)
        }
    }
}

/// All faults of a lab.
#[derive(Debug, Default)]
pub(super) struct Book {
    count: u32,
    standing: Vec<Fault>,
}

impl Ensemble {
    /// A fault with an id of its own, that does not stand yet.
    #[must_use]
    pub fn new_fault(&self, what: FaultKind, fault: impl Into<String>) -> Fault {
        let mut book = self.book();
        book.count += 1;
        let fault = fault.into();
        Fault {
            id: format!("{}{}", what.letter(), book.count),
            what,
            brief: fault.clone(),
            fault,
            nodes: Vec::new(),
            links: Vec::new(),
            at_us: 0,
        }
    }

    /// The fault stands since `at_us` of the system's clock, on all its nodes and links.
    pub fn fault_on(&self, at_us: u64, mut fault: Fault) {
        fault.at_us = at_us;
        self.tell_of(at_us, &fault, true);
        self.book().standing.push(fault);
    }

    /// A fault that was over the moment it was done stands for no time.
    pub fn fault_happened(&self, at_us: u64, fault: &Fault) {
        self.tell_of(at_us, fault, true);
        self.tell_of(at_us, fault, false);
    }

    /// The fault is gone since `at_us`; `None` if it did not stand.
    pub fn fault_off(&self, at_us: u64, id: &str) -> Option<Fault> {
        let fault = {
            let standing = &mut self.book().standing;
            let place = standing.iter().position(|fault| fault.id == id)?;
            standing.remove(place)
        };
        self.tell_of(at_us, &fault, false);
        Some(fault)
    }

    /// The fault stands on these links only, since `at_us`. Tells the event of a fault put in again, with
    /// what is left of it.
    pub fn fault_shrunk(&self, at_us: u64, id: &str, links: Vec<String>) {
        let fault = {
            let mut book = self.book();
            let Some(fault) = book.standing.iter_mut().find(|fault| fault.id == id) else {
                return;
            };
            fault.links = links;
            fault.clone()
        };
        self.tell_of(at_us, &fault, true);
    }

    /// There is something new to say about a fault that stands, since `at_us`. Tells the event of a fault put in
    /// again, with the new words.
    pub fn fault_reworded(&self, at_us: u64, id: &str, words: &str) {
        let fault = {
            let mut book = self.book();
            let Some(fault) = book.standing.iter_mut().find(|fault| fault.id == id) else {
                return;
            };
            words.clone_into(&mut fault.fault);
            fault.clone()
        };
        self.tell_of(at_us, &fault, true);
    }

    /// The faults that stand, the oldest first.
    #[must_use]
    pub fn standing(&self) -> Vec<Fault> {
        self.book().standing.clone()
    }

    /// The faults of these kinds that stand on a node alone.
    #[must_use]
    pub fn standing_on(&self, node: NodeId, is_meant: impl Fn(FaultKind) -> bool) -> Vec<Fault> {
        let mut faults = self.standing();
        faults.retain(|fault| fault.nodes == [node] && is_meant(fault.what));
        faults
    }

    /// What a fault did to the process of a node is over, since that has another one, or none.
    pub(super) fn end_faults_of(
        &self,
        node: NodeId,
        at_us: u64,
        is_meant: impl Fn(FaultKind) -> bool,
    ) {
        for fault in self.standing_on(node, is_meant) {
            self.fault_off(at_us, &fault.id);
        }
    }

    fn tell_of(&self, at_us: u64, fault: &Fault, is_on: bool) {
        let note = FaultNote {
            id: fault.id.clone(),
            fault: fault.fault.clone(),
            what: fault.what,
            nodes: fault.nodes.clone(),
            links: fault.links.clone(),
            effective_us: self.journal.since_start(at_us),
        };
        let node = match fault.nodes[..] {
            [node] => Some(node),
            _ => None,
        };
        let kind = if is_on {
            LabEventKind::FaultOn(note)
        } else {
            LabEventKind::FaultOff(note)
        };
        self.journal.push(at_us, node, Source::Fault, kind);
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.faults
            .lock()
            .expect("nobody panics while holding the faults")
    }
}
