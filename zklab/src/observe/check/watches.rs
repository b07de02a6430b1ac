//! Watches: one event for each, for the first change, before any answer that shows the change.
//!
//! A watch is left by the answer to a read, and lives on that connection. Several on one znode are one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use zkd::ids::Zxid;

use super::bounds::{NEVER, is_hidden};
use super::timeline::{Change, Mutation, Timeline};
use super::{Findings, Rule, Sessions};
use crate::observe::history::{Event, Happened, Kind, Op, OpIndex, Outcome, PathId};

/// The watches of one connection.
#[derive(Default)]
struct Armed {
    /// The read that left it, for every znode with a watch.
    by_path: HashMap<PathId, OpIndex>,
    /// The zxid of the first change after the read, the znode, and the read.
    due: BinaryHeap<Reverse<(Zxid, PathId, OpIndex)>>,
}

pub(super) fn check(sessions: &Sessions, timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let mut events: Vec<&Event> = history.events.iter().collect();
    events.sort_by_key(|event| (event.session, event.conn, event.pos));
    let mut events = events.into_iter().peekable();
    for (session, ops) in sessions.iter() {
        let mut ops = ops.iter().copied().peekable();
        loop {
            let next_op = ops.peek().map(|op| history.ops[op.at()].conn);
            let next_event = events
                .peek()
                .filter(|event| event.session == session)
                .map(|event| event.conn);
            let Some(conn) = next_op.into_iter().chain(next_event).min() else {
                break;
            };
            let mut armed = Armed::default();
            loop {
                let op = ops
                    .peek()
                    .copied()
                    .filter(|op| history.ops[op.at()].conn == conn);
                let event = events
                    .peek()
                    .copied()
                    .filter(|event| event.session == session && event.conn == conn);
                match (op, event) {
                    (None, None) => break,
                    (Some(op), Some(event)) if event.pos < history.ops[op.at()].pos => {
                        events.next();
                        armed.fired(timeline, event, findings);
                    }
                    (None, Some(event)) => {
                        events.next();
                        armed.fired(timeline, event, findings);
                    }
                    (Some(op), _) => {
                        ops.next();
                        armed.answered(timeline, op, findings);
                    }
                }
            }
        }
    }
}

/// Does this change give this event on a data watch?
fn matches(mutation: &Mutation, what: Happened) -> bool {
    matches!(
        (mutation.change, what),
        (Change::Born, Happened::Created)
            | (Change::Set(_), Happened::Changed)
            | (Change::Gone, Happened::Deleted)
    )
}

/// A read that was asked to leave a watch leaves one if it found the znode, `exists` also if it did not.
fn leaves_watch(op: &Op) -> bool {
    op.watch
        && match op.outcome {
            Outcome::Ok => op.kind.is_read(),
            Outcome::Failed(code) => op.kind == Kind::Exists && code == -101,
            Outcome::Unknown => false,
        }
}

/// The state from which a watch tells of the first change.
///
/// Between the state of a znode that was read and the one it was read in there is no change, so where nobody told the
/// latter the former does. A znode that was not there says nothing of the kind: it may have come and gone while the
/// client had no connection, and the crate's new watch would rightly not tell.
fn left_at(timeline: &Timeline<'_>, read: OpIndex) -> Zxid {
    let op = &timeline.history.ops[read.at()];
    match op.outcome {
        _ if !is_hidden(op) => op.zxid,
        Outcome::Ok => op.mzxid,
        _ => NEVER,
    }
}

impl Armed {
    fn answered(&mut self, timeline: &Timeline<'_>, index: OpIndex, findings: &mut Findings<'_>) {
        let op = &timeline.history.ops[index.at()];
        let seen = timeline.bounds.span(timeline.history, index).from;
        while let Some(Reverse((zxid, path, read))) = self.due.peek().copied() {
            if zxid > seen {
                break;
            }
            self.due.pop();
            if self.by_path.get(&path) != Some(&read) {
                continue;
            }
            self.by_path.remove(&path);
            let cause = timeline.at(path, zxid).map(|mutation| mutation.op);
            let witness: Vec<OpIndex> = [read].into_iter().chain(cause).chain([index]).collect();
            let what = || {
                let path = timeline.history.path_text(path);
                format!(
                    "an answer of {seen} came before the event for the change of {path} at {zxid}"
                )
            };
            findings.broken(Rule::Watches, what, &witness);
        }
        if let Some(path) = op
            .path
            .filter(|_| op.kind.is_read() && op.outcome == Outcome::Ok)
            && let Some(read) = self.by_path.get(&path).copied()
            && left_at(timeline, read) == NEVER
        {
            self.by_path.remove(&path);
            let what = || {
                let path = timeline.history.path_text(path);
                format!("{path} was there before the event of its creation")
            };
            findings.broken(Rule::Watches, what, &[read, index]);
        }
        if let Some(path) = op.path.filter(|_| leaves_watch(op)) {
            findings.looked(Rule::Watches);
            if self.by_path.contains_key(&path) {
                return;
            }
            self.by_path.insert(path, index);
            if let Some(next) = timeline.after(path, left_at(timeline, index)) {
                self.due.push(Reverse((next.zxid, path, index)));
            }
        }
    }

    fn fired(&mut self, timeline: &Timeline<'_>, event: &Event, findings: &mut Findings<'_>) {
        let history = timeline.history;
        let path = history.path_text(event.path);
        let Some(read) = self.by_path.remove(&event.path) else {
            let what = || {
                format!(
                    "client {} got an event for {path} without a watch on it, or twice for one",
                    event.client
                )
            };
            findings.broken(Rule::Watches, what, &[]);
            return;
        };
        if event.zxid <= Zxid::ZERO {
            // Apache ZooKeeper before 3.9 does not tell the zxid.
            return;
        }
        let from = left_at(timeline, read);
        if from == NEVER {
            return;
        }
        if event.zxid <= from {
            let what = || {
                format!(
                    "an event for {path} at {}, but the watch was left at {from}",
                    event.zxid
                )
            };
            findings.broken(Rule::Watches, what, &[read]);
        }
        if let Some(first) = timeline.after(event.path, from)
            && first.zxid < event.zxid
        {
            let what = || {
                format!(
                    "the event for {path} tells of {}, the change at {} was passed over",
                    event.zxid, first.zxid
                )
            };
            findings.broken(Rule::Watches, what, &[read, first.op]);
        }
        let told = timeline
            .of_path(event.path)
            .iter()
            .find(|mutation| mutation.zxid == event.zxid);
        if let Some(told) = told.filter(|told| !matches(told, event.what)) {
            let what = || {
                format!(
                    "the event for {path} at {} says {}",
                    event.zxid,
                    event.what.word()
                )
            };
            findings.broken(Rule::Watches, what, &[read, told.op]);
        }
    }
}
