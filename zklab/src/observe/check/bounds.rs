//! Between which states an answer was given.
//!
//! Most answers name their state, and both bounds are that. The zookeeper-client crate hides it, and then there is this
//! to go by: a session never goes back, so its state is not older than what it has seen; nothing shows a write that was
//! sent later; and the session's next write is ordered behind it.

use zkd::ids::Zxid;

use super::Sessions;
use crate::observe::history::{History, Op, OpIndex, Outcome};

/// No bound at all.
pub(super) const NEVER: Zxid = Zxid(i64::MAX);

/// The oldest and the newest state of every answer.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// By operation; empty if every answer names its state.
    spans: Vec<Span>,
}

/// From one state to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Zxid,
    pub(super) to: Zxid,
}

/// An answer whose state nobody told.
pub(super) fn is_hidden(op: &Op) -> bool {
    op.is_answered() && op.zxid == Zxid::ZERO
}

/// What the answer itself shows of its state.
fn shown(op: &Op) -> Zxid {
    match op.outcome {
        Outcome::Ok => op.mzxid.max(op.czxid).max(op.pzxid),
        _ => Zxid::ZERO,
    }
}

fn is_ordered(op: &Op) -> bool {
    op.zxid > Zxid::ZERO
        && op.kind.is_write()
        && (op.outcome == Outcome::Ok || op.is_ordered_failure())
}

impl Bounds {
    pub(super) fn of(history: &History, sessions: &Sessions) -> Self {
        if !history.ops.iter().any(is_hidden) {
            return Self::default();
        }
        let later = Later::of(history);
        let mut spans: Vec<Span> = history
            .ops
            .iter()
            .map(|op| Span {
                from: op.zxid,
                to: if is_hidden(op) { NEVER } else { op.zxid },
            })
            .collect();
        for (_, ops) in sessions.iter() {
            let mut newest = Zxid::ZERO;
            for index in ops {
                let (op, span) = (&history.ops[index.at()], &mut spans[index.at()]);
                if is_hidden(op) {
                    span.from = newest.max(shown(op));
                }
                newest = newest.max(span.from);
            }
            let mut next = NEVER;
            for index in ops.iter().rev() {
                let (op, span) = (&history.ops[index.at()], &mut spans[index.at()]);
                if is_hidden(op) {
                    span.to = next.min(later.first_after(op.t1));
                }
                let before = if is_ordered(op) {
                    Zxid(op.zxid.0 - 1)
                } else {
                    span.to
                };
                next = next.min(before);
            }
        }
        Self { spans }
    }

    /// The states from which this operation can have been answered.
    pub(super) fn span(&self, history: &History, index: OpIndex) -> Span {
        let told = history.ops[index.at()].zxid;
        let exact = Span {
            from: told,
            to: told,
        };
        self.spans.get(index.at()).copied().unwrap_or(exact)
    }
}

/// Writes in the order in which they were sent.
struct Later {
    /// When, and the state before the first in the order of zxids of this and all later ones.
    sent: Vec<(u64, Zxid)>,
}

impl Later {
    fn of(history: &History) -> Self {
        let writes = history.ops.iter().filter(|op| is_ordered(op));
        let mut sent: Vec<(u64, Zxid)> = writes.map(|op| (op.t0, Zxid(op.zxid.0 - 1))).collect();
        sent.sort_unstable();
        let mut first = NEVER;
        for (_, before) in sent.iter_mut().rev() {
            first = first.min(*before);
            *before = first;
        }
        Self { sent }
    }

    /// The newest state that can have been seen by this moment.
    fn first_after(&self, moment: u64) -> Zxid {
        let next = self.sent.partition_point(|(t0, _)| *t0 <= moment);
        self.sent.get(next).map_or(NEVER, |(_, before)| *before)
    }
}
