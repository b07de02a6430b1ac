//! Watches that stay: an event for every change, in order, each before any answer that shows it.
//!
//! A persistent watch tells of its znode and of its children's coming and going, a recursive one of its znode and all
//! below it, but not of children. Nothing that happened between two connections is told (ZOOKEEPER-4698): over a new one
//! they begin anew. Several watches of a connection on one change give one event.

use std::collections::HashMap;

use zkd::ids::Zxid;

use super::timeline::{Change, Mutation, Timeline};
use super::{Findings, Rule};
use crate::observe::history::{Event, Happened, OpIndex, PathId};

/// A watch that stays.
#[derive(Clone, Copy, Debug)]
struct Watch {
    path: PathId,
    recursive: bool,
    /// What left it.
    by: OpIndex,
    /// Later changes are told.
    from: Zxid,
}

/// Those of one connection.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    watches: Vec<Watch>,
    /// Changes before this one, in the order of zxids, have been looked at.
    next: usize,
    /// Events of changes that have not been looked at. One txn may take several children away, each with an event.
    told: HashMap<(PathId, Happened, Zxid), u32>,
    /// The same, where the server does not say which change it was (Apache before 3.9).
    untold: HashMap<(PathId, Happened), u32>,
}

/// The event that a change of a znode gives for it.
pub(super) fn event_of(change: Change) -> Happened {
    match change {
        Change::Born => Happened::Created,
        Change::Set(_) => Happened::Changed,
        Change::Gone => Happened::Deleted,
    }
}

impl Lasting {
    pub(super) fn leave(
        &mut self,
        timeline: &Timeline<'_>,
        path: PathId,
        recursive: bool,
        by: OpIndex,
        from: Zxid,
    ) {
        if self.watches.is_empty() {
            let order = timeline.in_order();
            self.next = order.partition_point(|m| m.zxid <= from);
        }
        let is_known = |watch: &Watch| watch.path == path && watch.recursive == recursive;
        if !self.watches.iter().any(is_known) {
            self.watches.push(Watch {
                path,
                recursive,
                by,
                from,
            });
        }
    }

    /// A watch that tells of this, and is older than the change.
    fn covering(
        &self,
        timeline: &Timeline<'_>,
        path: PathId,
        what: Happened,
        zxid: Zxid,
    ) -> Option<Watch> {
        let covers = |watch: &&Watch| {
            let is_meant = if watch.recursive {
                what != Happened::Children && timeline.family.is_within(path, watch.path)
            } else {
                path == watch.path
            };
            is_meant && watch.from < zxid
        };
        self.watches.iter().find(covers).copied()
    }

    /// An answer shows this state: every change up to it has to have been told.
    pub(super) fn answered(
        &mut self,
        timeline: &Timeline<'_>,
        seen: Zxid,
        index: OpIndex,
        findings: &mut Findings<'_>,
    ) {
        if self.watches.is_empty() {
            return;
        }
        let order = timeline.in_order();
        while let Some(mutation) = order.get(self.next).filter(|m| m.zxid <= seen) {
            self.next += 1;
            self.owes(
                timeline,
                mutation,
                mutation.path,
                event_of(mutation.change),
                index,
                findings,
            );
            if !matches!(mutation.change, Change::Set(_))
                && let Some(parent) = timeline.family.parent(mutation.path)
            {
                self.owes(
                    timeline,
                    mutation,
                    parent,
                    Happened::Children,
                    index,
                    findings,
                );
            }
        }
    }

    fn owes(
        &mut self,
        timeline: &Timeline<'_>,
        mutation: &Mutation,
        path: PathId,
        what: Happened,
        index: OpIndex,
        findings: &mut Findings<'_>,
    ) {
        let Some(watch) = self.covering(timeline, path, what, mutation.zxid) else {
            return;
        };
        findings.looked(Rule::Watches);
        let told = self.told.get_mut(&(path, what, mutation.zxid));
        let told = told.filter(|count| **count > 0);
        let told = told.or_else(|| {
            let untold = self.untold.get_mut(&(path, what));
            untold.filter(|count| **count > 0)
        });
        if let Some(count) = told {
            *count -= 1;
            return;
        }
        let text = || {
            format!(
                "a watch that stays did not tell that {} was {} at {} before an answer showed it",
                timeline.history.path_text(path),
                match what {
                    Happened::Children => "given or deprived of a child",
                    other => other.word(),
                },
                mutation.zxid
            )
        };
        findings.broken(Rule::Watches, text, &[watch.by, mutation.op, index]);
    }

    /// An event; true if one of these watches tells of such a thing.
    pub(super) fn fired(
        &mut self,
        timeline: &Timeline<'_>,
        event: &Event,
        findings: &mut Findings<'_>,
    ) -> bool {
        let (path, what) = (event.path, event.what);
        let is_told = event.zxid > Zxid::ZERO;
        let zxid = if is_told {
            event.zxid
        } else {
            super::bounds::NEVER
        };
        let Some(watch) = self.covering(timeline, path, what, zxid) else {
            return false;
        };
        if !is_told {
            *self.untold.entry((path, what)).or_default() += 1;
            return true;
        }
        let count = self.told.entry((path, what, zxid)).or_default();
        *count += 1;
        if *count > 1 && what != Happened::Children {
            let text = || {
                let name = timeline.history.path_text(path);
                format!("that {name} was {} at {zxid} was told twice", what.word())
            };
            findings.broken(Rule::Watches, text, &[watch.by]);
        }
        let known = timeline.exactly_at(path, zxid);
        let wrong = match known {
            Some(mutation) => what != Happened::Children && event_of(mutation.change) != what,
            None => is_sure(timeline, path, what),
        };
        if wrong {
            let text = || {
                let name = timeline.history.path_text(path);
                format!(
                    "an event tells that {name} was {} at {zxid}, which it was not",
                    what.word()
                )
            };
            let witness: Vec<OpIndex> = [watch.by].into_iter().chain(known.map(|m| m.op)).collect();
            findings.broken(Rule::Watches, text, &witness);
        }
        true
    }
}

/// Would a change of this znode be known?
fn is_sure(timeline: &Timeline<'_>, path: PathId, what: Happened) -> bool {
    let parent = timeline.family.parent(path);
    what == Happened::Changed
        && !timeline.has_doubts(path)
        && parent.is_some_and(|parent| timeline.family.is_sure(parent))
}
