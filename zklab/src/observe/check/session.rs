//! What one session sees: answers in the order of its requests, never an older state than before.

use zkd::ids::Zxid;

use super::bounds::is_hidden;
use super::timeline::Timeline;
use super::{Findings, Rule, Sessions, op_index};
use crate::observe::history::{History, OpIndex, Outcome, PathId, SessionIndex};

pub(super) fn check(sessions: &Sessions, timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = findings.history;
    let mut looks = Looks::of(history);
    for (session, ops) in sessions.iter() {
        let mut newest = (Zxid::ZERO, OpIndex(0));
        let mut last_write = (Zxid::ZERO, OpIndex(0));
        let mut previous: Option<OpIndex> = None;
        for index in ops.iter().copied() {
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
                looks.add(session, path, op.mzxid, index);
            }
        }
        for Back { path, from, to } in looks.went_back() {
            let path = history.path_text(path);
            let what = || {
                format!(
                    "the session saw {path} as changed at {} and then as at {}",
                    from.0, to.0
                )
            };
            findings.broken(Rule::SessionFifo, what, &[from.1, to.1]);
        }
    }
}

/// What a session saw of each znode last.
struct Looks {
    /// By path: the session that saw it last, which change it saw, and in which answer.
    last: Vec<(SessionIndex, Zxid, OpIndex)>,
    /// Where the session saw an older change than before.
    back: Vec<Back>,
}

/// A session saw one change of a znode, and then an older one.
struct Back {
    path: PathId,
    from: (Zxid, OpIndex),
    to: (Zxid, OpIndex),
}

impl Looks {
    fn of(history: &History) -> Self {
        let nobody = (SessionIndex(u32::MAX), Zxid::ZERO, OpIndex(0));
        Self {
            last: vec![nobody; history.paths.len()],
            back: Vec::new(),
        }
    }

    fn add(&mut self, session: SessionIndex, path: PathId, mzxid: Zxid, by: OpIndex) {
        let last = &mut self.last[path.0 as usize];
        let (of, before, index) = std::mem::replace(last, (session, mzxid, by));
        if of == session && mzxid < before {
            self.back.push(Back {
                path,
                from: (before, index),
                to: (mzxid, by),
            });
        }
    }

    /// What was found since the last time, by path.
    fn went_back(&mut self) -> impl Iterator<Item = Back> {
        self.back.sort_by_key(|back| back.path);
        self.back.drain(..)
    }
}

/// The writes of a session take place in the order in which they were sent, also those that were never answered: what
/// a server still has of a session that went on elsewhere must be refused.
pub(super) fn moved(timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    // Where both writes were answered, their order is judged with all other answers.
    let mut is_meant = vec![false; history.sessions.len()];
    let mut any = false;
    for index in timeline.settled() {
        is_meant[history.ops[index.at()].session.0 as usize] = true;
        any = true;
    }
    if !any {
        return;
    }
    let mut writes: Vec<(SessionIndex, i32, Zxid, OpIndex)> = Vec::new();
    for (index, op) in history.ops.iter().enumerate() {
        let index = op_index(index);
        if op.kind.is_write()
            && is_meant[op.session.0 as usize]
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
