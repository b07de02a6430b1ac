//! Watches: one event for each, for the first change, before any answer that shows the change.
//!
//! A watch is left by the answer to a read, and lives on that connection. Several on one znode are one. Over another
//! connection a client leaves its watches again, and the server tells at once which of them have missed something. The
//! zookeeper-client crate does that by itself, so all its connections are one here. Watches that stay are in `lasting`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use zkd::ids::Zxid;

use super::bounds::{NEVER, is_hidden};
use super::lasting::{Lasting, event_of};
use super::rewatch;
use super::timeline::Timeline;
use super::{Findings, Rule, Sessions, op_index};
use crate::observe::history::{Event, Happened, Kind, Op, OpIndex, Outcome, PathId, SessionIndex};

/// What a watch that fires once is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// The znode and its data.
    Data,
    /// Its children.
    Child,
}

/// A watch that fires once.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// The read that left it, or what left it again.
    by: OpIndex,
    /// The first change after this state is told.
    from: Zxid,
}

/// The watches of one connection.
#[derive(Default)]
pub(super) struct Armed<'h> {
    left: HashMap<(Table, PathId), Left>,
    /// The zxid of the first change after the read, the znode, and the read.
    due: BinaryHeap<Reverse<(Zxid, Table, PathId, OpIndex)>>,
    lasting: Lasting,
    /// What leaves watches again and was not answered so far, and the events until then.
    again: Option<(OpIndex, Vec<&'h Event>)>,
    /// The newest state in an answer.
    answered: Zxid,
    /// The newest change in an event.
    told: Zxid,
}

pub(super) fn check(sessions: &Sessions, timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let again = history.ops.iter().enumerate();
    let again: HashMap<(SessionIndex, u32), OpIndex> = again
        .filter(|(_, op)| op.kind == Kind::Rewatch)
        .map(|(index, op)| ((op.session, op.conn), op_index(index)))
        .collect();
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
            let mut armed = Armed {
                again: again.get(&(session, conn)).map(|op| (*op, Vec::new())),
                ..Armed::default()
            };
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
                        armed.event(timeline, event, findings);
                    }
                    (None, Some(event)) => {
                        events.next();
                        armed.event(timeline, event, findings);
                    }
                    (Some(op), _) => {
                        ops.next();
                        armed.answered(timeline, op, findings);
                    }
                }
            }
            if let Some((op, early)) = armed.again {
                rewatch::unanswered(timeline, op, &early, findings);
            }
        }
    }
}

/// The watch that an answer leaves, if it does: `exists` also leaves one if it found nothing.
fn table(op: &Op) -> Option<Table> {
    let table = match op.kind {
        Kind::Get | Kind::Exists => Table::Data,
        Kind::Children => Table::Child,
        _ => return None,
    };
    let leaves = match op.outcome {
        Outcome::Ok => op.watch,
        Outcome::Failed(code) => op.watch && op.kind == Kind::Exists && code == -101,
        Outcome::Unknown => false,
    };
    leaves.then_some(table)
}

/// The state from which a watch tells of the first change.
///
/// Between the state of a znode that was read and the one it was read in there is no change, so where nobody told the
/// latter the former does. A znode that was not there says nothing of the kind: it may have come and gone while the
/// client had no connection, and the crate's new watch would rightly not tell.
fn left_at(op: &Op) -> Zxid {
    match op.outcome {
        _ if !is_hidden(op) => op.zxid,
        Outcome::Ok if op.kind == Kind::Children => op.pzxid,
        Outcome::Ok => op.mzxid,
        _ => NEVER,
    }
}

/// The first known change that a watch of this kind tells of.
pub(super) fn first_after(
    timeline: &Timeline<'_>,
    table: Table,
    path: PathId,
    state: Zxid,
) -> Option<(Zxid, OpIndex)> {
    match table {
        Table::Data => timeline.after(path, state).map(|next| (next.zxid, next.op)),
        Table::Child => timeline.family.after(path, state),
    }
}

impl<'h> Armed<'h> {
    fn answered(&mut self, timeline: &Timeline<'_>, index: OpIndex, findings: &mut Findings<'_>) {
        let op = &timeline.history.ops[index.at()];
        let seen = timeline.bounds.span(timeline.history, index).from;
        if self
            .again
            .as_ref()
            .is_some_and(|(again, _)| *again == index)
            && let Some((_, early)) = self.again.take()
        {
            rewatch::answered(timeline, index, &early, self, findings);
        }
        self.overdue(timeline, seen, index, findings);
        self.lasting.answered(timeline, seen, index, findings);
        self.answered = self.answered.max(seen);
        let Some(path) = op.path else {
            return;
        };
        if op.kind.is_read()
            && op.outcome == Outcome::Ok
            && let Some(left) = self.left.get(&(Table::Data, path)).copied()
            && left.from == NEVER
        {
            self.left.remove(&(Table::Data, path));
            let what = || {
                let path = timeline.history.path_text(path);
                format!("{path} was there before the event of its creation")
            };
            findings.broken(Rule::Watches, what, &[left.by, index]);
        }
        match (op.kind, op.outcome) {
            (Kind::Persistent | Kind::Recursive, Outcome::Ok) => {
                findings.looked(Rule::Watches);
                self.stay(timeline, path, op.kind, index, op.zxid);
            }
            _ => {
                if let Some(table) = table(op) {
                    findings.looked(Rule::Watches);
                    self.arm(timeline, table, path, index, left_at(op));
                }
            }
        }
    }

    /// Leaves a watch, unless there is one.
    pub(super) fn arm(
        &mut self,
        timeline: &Timeline<'_>,
        table: Table,
        path: PathId,
        by: OpIndex,
        from: Zxid,
    ) {
        if self.left.contains_key(&(table, path)) {
            return;
        }
        self.left.insert((table, path), Left { by, from });
        if let Some((zxid, _)) = first_after(timeline, table, path, from) {
            self.due.push(Reverse((zxid, table, path, by)));
        }
    }

    /// Leaves a watch that stays.
    pub(super) fn stay(
        &mut self,
        timeline: &Timeline<'_>,
        path: PathId,
        kind: Kind,
        by: OpIndex,
        from: Zxid,
    ) {
        let recursive = kind == Kind::Recursive;
        self.lasting.leave(timeline, path, recursive, by, from);
    }

    /// An answer shows this state: the first change of every watch up to it has to have been told.
    fn overdue(
        &mut self,
        timeline: &Timeline<'_>,
        seen: Zxid,
        index: OpIndex,
        findings: &mut Findings<'_>,
    ) {
        while let Some(Reverse((zxid, table, path, by))) = self.due.peek().copied() {
            if zxid > seen {
                break;
            }
            self.due.pop();
            if self
                .left
                .get(&(table, path))
                .is_none_or(|left| left.by != by)
            {
                continue;
            }
            self.left.remove(&(table, path));
            let cause = first_after(timeline, table, path, Zxid(zxid.0 - 1)).map(|(_, op)| op);
            let witness: Vec<OpIndex> = [by].into_iter().chain(cause).chain([index]).collect();
            let what = || {
                let path = timeline.history.path_text(path);
                let whose = if table == Table::Child {
                    "children of "
                } else {
                    ""
                };
                format!(
                    "an answer of {seen} came before the event for the change of {whose}{path} at {zxid}"
                )
            };
            findings.broken(Rule::Watches, what, &witness);
        }
    }

    fn event(&mut self, timeline: &Timeline<'_>, event: &'h Event, findings: &mut Findings<'_>) {
        match &mut self.again {
            Some((_, early)) => early.push(event),
            None => self.fired(timeline, event, findings),
        }
    }

    /// An event of a watch that was left on this connection.
    pub(super) fn fired(
        &mut self,
        timeline: &Timeline<'_>,
        event: &Event,
        findings: &mut Findings<'_>,
    ) {
        let history = timeline.history;
        let tables: &[Table] = match event.what {
            Happened::Created | Happened::Changed => &[Table::Data],
            Happened::Children => &[Table::Child],
            Happened::Deleted => &[Table::Data, Table::Child],
        };
        let mut is_known = self.lasting.fired(timeline, event, findings);
        for table in tables {
            if let Some(left) = self.left.remove(&(*table, event.path)) {
                is_known = true;
                once(timeline, *table, left, event, findings);
            }
        }
        if !is_known {
            let what = || {
                let path = history.path_text(event.path);
                format!(
                    "client {} got an event for {path} without a watch on it, or twice for one",
                    event.client
                )
            };
            findings.broken(Rule::Watches, what, &[]);
        }
        self.in_order(timeline, event, findings);
    }

    /// Events come in the order of the changes, and before the answers that show them.
    fn in_order(&mut self, timeline: &Timeline<'_>, event: &Event, findings: &mut Findings<'_>) {
        let history = timeline.history;
        if event.zxid <= Zxid::ZERO {
            return;
        }
        // Of the crate's watches nobody knows which fired first.
        let is_foreign = history.own_clients.is_some_and(|own| event.client > own);
        let (newest, of) = if is_foreign || self.answered >= self.told {
            (self.answered, "an answer of")
        } else {
            (Zxid(self.told.0 - 1), "the event of a later change than")
        };
        if event.zxid <= newest {
            let what = || {
                let path = history.path_text(event.path);
                format!(
                    "client {} was told that {path} was {} at {} after {of} {newest}",
                    event.client,
                    event.what.word(),
                    event.zxid
                )
            };
            let cause = timeline.exactly_at(event.path, event.zxid).map(|m| m.op);
            let witness: Vec<OpIndex> = cause.into_iter().collect();
            findings.broken(Rule::Watches, what, &witness);
        }
        self.told = self.told.max(event.zxid);
    }
}

/// The only event of a watch.
fn once(
    timeline: &Timeline<'_>,
    table: Table,
    left: Left,
    event: &Event,
    findings: &mut Findings<'_>,
) {
    // Apache ZooKeeper before 3.9 does not tell the zxid, and what was missed between two connections has none.
    if event.zxid <= Zxid::ZERO || left.from == NEVER {
        return;
    }
    let path = timeline.history.path_text(event.path);
    if event.zxid <= left.from {
        let what = || {
            format!(
                "an event for {path} at {}, but the watch was left at {}",
                event.zxid, left.from
            )
        };
        findings.broken(Rule::Watches, what, &[left.by]);
    }
    if let Some((first, cause)) = first_after(timeline, table, event.path, left.from)
        && first < event.zxid
    {
        let what = || {
            format!(
                "the event for {path} tells of {}, the change at {first} was passed over",
                event.zxid
            )
        };
        findings.broken(Rule::Watches, what, &[left.by, cause]);
    }
    let told = timeline.exactly_at(event.path, event.zxid);
    if let Some(told) =
        told.filter(|told| table == Table::Data && event_of(told.change) != event.what)
    {
        let what = || {
            format!(
                "the event for {path} at {} says {}",
                event.zxid,
                event.what.word()
            )
        };
        findings.broken(Rule::Watches, what, &[left.by, told.op]);
    }
}
