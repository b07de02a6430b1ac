//! The order of zxids is the order of real time.
//!
//! When an answer with zxid Z has been read, Z has been committed; a write that is sent later is ordered later and gets
//! a greater zxid. That holds for answers of every kind, so reads take part on the earlier side.

use zkd::ids::Zxid;

use super::bounds::Bounds;
use super::timeline::Timeline;
use super::{Findings, Rule, op_index};
use crate::observe::history::{History, OpIndex};

/// Answers in the order in which they were read, each with the greatest zxid so far.
#[derive(Debug)]
pub(super) struct Answers {
    /// When, the greatest zxid in any answer until then, and who got it.
    all: Vec<(u64, Zxid, OpIndex)>,
    /// The same of writes only: acknowledged, or refused in order.
    writes: Vec<(u64, Zxid, OpIndex)>,
}

impl Answers {
    pub(super) fn of(history: &History, bounds: &Bounds) -> Self {
        let collect = |wanted: &dyn Fn(&crate::observe::history::Op) -> bool| {
            let mut answers: Vec<(u64, Zxid, OpIndex)> = history
                .ops
                .iter()
                .enumerate()
                .filter(|(_, op)| op.is_answered() && wanted(op))
                .map(|(index, op)| {
                    let index = op_index(index);
                    (op.t1, bounds.span(history, index).from, index)
                })
                .filter(|(_, zxid, _)| *zxid > Zxid::ZERO)
                .collect();
            answers.sort_by_key(|(t1, ..)| *t1);
            let mut greatest = (Zxid::ZERO, OpIndex(0));
            for (_, zxid, op) in &mut answers {
                greatest = greatest.max((*zxid, *op));
                (*zxid, *op) = greatest;
            }
            answers
        };
        let is_ordered = |op: &crate::observe::history::Op| {
            op.kind.is_write()
                && op.zxid > Zxid::ZERO
                && (op.outcome == crate::observe::history::Outcome::Ok || op.is_ordered_failure())
        };
        Self {
            all: collect(&|_| true),
            writes: collect(&is_ordered),
        }
    }

    /// The greatest zxid that any client had read before this moment.
    pub(super) fn before(&self, moment: u64) -> Option<(Zxid, OpIndex)> {
        last_before(&self.all, moment)
    }

    /// The greatest zxid of a write that had been answered before this moment.
    pub(super) fn write_before(&self, moment: u64) -> Option<(Zxid, OpIndex)> {
        last_before(&self.writes, moment)
    }
}

fn last_before(answers: &[(u64, Zxid, OpIndex)], moment: u64) -> Option<(Zxid, OpIndex)> {
    let count = answers.partition_point(|(t1, ..)| *t1 < moment);
    answers[..count].last().map(|(_, zxid, op)| (*zxid, *op))
}

pub(super) fn check(timeline: &Timeline<'_>, answers: &Answers, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let mut writes: Vec<(Zxid, OpIndex)> = Vec::new();
    for (index, op) in history
        .ops
        .iter()
        .enumerate()
        .filter(|(_, op)| op.kind.is_write())
    {
        let index = op_index(index);
        let Some(zxid) = timeline.zxid_of(index) else {
            continue;
        };
        findings.looked(Rule::ZxidOrder);
        writes.push((zxid, index));
        if let Some((earlier, by)) = answers.before(op.t0)
            && earlier >= zxid
        {
            let what = || {
                format!(
                    "{zxid} was given to a write that was sent after a client had read {earlier}"
                )
            };
            findings.broken(Rule::ZxidOrder, what, &[by, index]);
        }
    }
    writes.sort_unstable();
    for pair in writes.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let what = || format!("two writes have the zxid {}", pair[0].0);
        findings.broken(Rule::ZxidOrder, what, &[pair[0].1, pair[1].1]);
    }
}
