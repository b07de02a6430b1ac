//! What one session sees: answers in the order of its requests, never an older state than before.

use zkd::ids::Zxid;

use super::bounds::is_hidden;
use super::timeline::Timeline;
use super::{Findings, Rule, Sessions, op_index};
use crate::observe::history::{OpIndex, Outcome, PathId, SessionIndex};

pub(super) fn check(sessions: &Sessions, timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = findings.history;
    let mut looks: Vec<(PathId, u32, Zxid, OpIndex)> = Vec::new();
    for (_, ops) in sessions.iter() {
        let mut newest = (Zxid::ZERO, OpIndex(0));
        let mut last_write = (Zxid::ZERO, OpIndex(0));
        let mut previous: Option<OpIndex> = None;
        looks.clear();
        for (order, index) in ops.iter().copied().enumerate() {
            let op = &history.ops[index.at()];
            findings.looked(Rule::SessionFifo);
            if let Some(before) = previous
                && history.ops[before.at()].xid >= op.xid
            {
                let what = || {
                    let before = history.ops[before.at()].xid;
                    format!("request {} was answered after request {before}", op.xid)
                };
                findings.broken(Rule::SessionFifo, what, &[before, index]);
            }
            previous = Some(index);
            let to = timeline.newest_of(index);
            if to > Zxid::ZERO && to < newest.0 {
                let what = || {
                    format!(
                        "the session had seen {} and was then answered from {to}{}",
                        newest.0,
                        if is_hidden(op) { " or before" } else { "" }
                    )
                };
                findings.broken(Rule::SessionFifo, what, &[newest.1, index]);
            }
            let from = if is_hidden(op) {
                op.mzxid.max(op.pzxid)
            } else {
                op.zxid
            };
            newest = newest.max((from, index));
            if is_hidden(op) {
                continue;
            }
            if op.kind.is_write() && (op.outcome == Outcome::Ok || op.is_ordered_failure()) {
                if op.zxid <= last_write.0 {
                    let what = || {
                        format!(
                            "its earlier write has {}, its later one {}",
                            last_write.0, op.zxid
                        )
                    };
                    findings.broken(Rule::SessionFifo, what, &[last_write.1, index]);
                }
                last_write = (op.zxid, index);
            }
            if let (Some(path), true) =
                (op.path, op.outcome == Outcome::Ok && op.mzxid > Zxid::ZERO)
            {
                let order = u32::try_from(order).expect("operations are counted in 32 bits");
                looks.push((path, order, op.mzxid, index));
            }
        }
        looks.sort_unstable_by_key(|(path, order, ..)| (*path, *order));
        for pair in looks.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let ((path, _, m0, first), (_, _, m1, second)) = (pair[0], pair[1]);
            if m1 < m0 {
                let path = history.path_text(path);
                let what =
                    || format!("the session saw {path} as changed at {m0} and then as at {m1}");
                findings.broken(Rule::SessionFifo, what, &[first, second]);
            }
        }
    }
}

/// The writes of a session take place in the order in which they were sent, also those that were never answered: what
/// a server still has of a session that went on elsewhere must be refused.
pub(super) fn moved(timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let mut writes: Vec<(SessionIndex, i32, Zxid, OpIndex)> = Vec::new();
    for (index, op) in history.ops.iter().enumerate() {
        let index = op_index(index);
        if op.kind.is_write()
            && let Some(zxid) = timeline.zxid_of(index)
        {
            writes.push((op.session, op.xid, zxid, index));
        }
    }
    writes.sort_unstable();
    let unanswered = |index: OpIndex| !history.ops[index.at()].is_answered();
    for of_one in writes.chunk_by(|a, b| a.0 == b.0) {
        let mut newest: Option<(Zxid, OpIndex)> = None;
        for (_, _, zxid, index) in of_one.iter().copied() {
            if unanswered(index) {
                findings.looked(Rule::SessionFifo);
            }
            // Where both were answered, their order was judged with all other answers.
            if let Some((earlier, by)) = newest
                && zxid <= earlier
                && (unanswered(index) || unanswered(by))
            {
                let what = || {
                    format!(
                        "a write that was sent later got {zxid}, one that was sent earlier over another connection {earlier}"
                    )
                };
                findings.broken(Rule::SessionFifo, what, &[by, index]);
            }
            newest = newest.max(Some((zxid, index)));
        }
    }
}
