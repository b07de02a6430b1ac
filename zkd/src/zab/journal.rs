//! What a role has handed to the disk, and what it will hand out next.
//!
//! Law kept here: the [`History`] says what was handed out, in order, and nothing else. A write that was
//! still waiting when its role ended never happened; one that was handed out will happen before anything
//! the next role writes.

use std::collections::VecDeque;

use super::{History, Mark, Proposal, Write};
use crate::ids::Zxid;

/// A role's side of the disk.
#[derive(Debug)]
pub(super) struct Journal {
    history: History,
    /// For the next batch.
    waiting: Vec<Write>,
    /// Handed to the log and not yet handed out as committed, oldest first.
    logged: VecDeque<Proposal>,
    /// Newest txn handed out to be applied; what the tree holds before the next step.
    applied: Zxid,
    next_mark: Mark,
}

impl Journal {
    pub(super) fn new(history: History, first_mark: Mark) -> Self {
        Self {
            applied: history.last_zxid,
            history,
            waiting: Vec::new(),
            logged: VecDeque::new(),
            next_mark: first_mark,
        }
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// Newest txn handed out to be applied.
    pub(super) fn applied(&self) -> Zxid {
        self.applied
    }

    /// The mark the batch that is being put together will carry.
    pub(super) fn next_mark(&self) -> Mark {
        self.next_mark
    }

    pub(super) fn write(&mut self, write: Write) {
        self.waiting.push(write);
    }

    /// A committed txn is about to be handed out: it enters the committed log.
    pub(super) fn commit(&mut self, proposal: Proposal) {
        self.history.committed.push(proposal);
    }

    /// The database was replaced by a snapshot of this zxid.
    pub(super) fn replace(&mut self, zxid: Zxid) {
        self.history.last_zxid = zxid;
        self.history.committed.clear();
        self.applied = zxid;
    }

    /// The log was cut behind this zxid and the database loaded again.
    pub(super) fn truncated(&mut self, zxid: Zxid) {
        self.history.last_zxid = zxid;
        self.history.committed.truncate_after(zxid);
        self.applied = zxid;
    }

    /// Hands out what waits as one batch. A truncation always stands alone, so a batch may end early.
    pub(super) fn hand_out(&mut self) -> (Vec<Write>, Option<Mark>) {
        if self.waiting.is_empty() {
            return (Vec::new(), None);
        }
        let first_truncation = self
            .waiting
            .iter()
            .position(|write| matches!(write, Write::Truncate(_)));
        let batch = match first_truncation {
            None => std::mem::take(&mut self.waiting),
            Some(0) => self.waiting.drain(..1).collect(),
            Some(index) => self.waiting.drain(..index).collect(),
        };
        for write in &batch {
            match write {
                Write::Txn(proposal) => {
                    self.history.last_zxid = proposal.zxid;
                    self.logged.push_back(proposal.clone());
                }
                Write::Truncate(zxid) => {
                    self.history.last_zxid = *zxid;
                    self.history.committed.truncate_after(*zxid);
                }
                Write::Snapshot(zxid) => self.history.last_zxid = *zxid,
                Write::AcceptedEpoch(epoch) => self.history.accepted_epoch = *epoch,
                Write::CurrentEpoch(epoch) => self.history.current_epoch = *epoch,
            }
        }
        let mark = self.next_mark;
        self.next_mark = Mark(mark.0 + 1);
        (batch, Some(mark))
    }

    /// These were handed out to be applied, after [`Self::hand_out`].
    pub(super) fn handed_to_tree(&mut self, committed: &[Proposal]) {
        let Some(last) = committed.last() else { return };
        self.applied = self.applied.max(last.zxid);
        while self.logged.front().is_some_and(|txn| txn.zxid <= last.zxid) {
            self.logged.pop_front();
        }
    }

    /// The role is over: what was not handed out never happened.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
        self.history.committed.truncate_after(self.applied);
    }

    /// The history as the log will have it, the txns of it that the tree lacks, and the next free mark.
    pub(super) fn into_parts(mut self) -> (History, Vec<Proposal>, Mark) {
        self.abandon();
        for proposal in &self.logged {
            self.history.committed.push(proposal.clone());
        }
        (self.history, self.logged.into(), self.next_mark)
    }
}
