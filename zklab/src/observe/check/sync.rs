//! A read after a sync shows everything that was acknowledged to anybody before the sync was sent.
//!
//! ZooKeeper's sync asks the leader and no quorum: a leader that has been replaced and does not know it yet answers
//! from its own epoch. That is how Apache ZooKeeper is specified, so a miss of writes of a later epoch than the answer
//! is told as a note. A leader always has everything of its own and all earlier epochs: missing that is a violation.

use zkd::ids::Zxid;

use super::real_time::Answers;
use super::timeline::Timeline;
use super::{Findings, Rule, Sessions};
use crate::observe::history::{Kind, OpIndex, Outcome};

pub(super) fn check(
    sessions: &Sessions,
    timeline: &Timeline<'_>,
    answers: &Answers,
    findings: &mut Findings<'_>,
) {
    let history = findings.history;
    let mut stale = 0_u64;
    for (_, ops) in sessions.iter() {
        // What has to be seen, since which write and which sync.
        let mut owed: Option<(Zxid, OpIndex, OpIndex)> = None;
        for index in ops.iter().copied() {
            let op = &history.ops[index.at()];
            if op.kind == Kind::Sync && op.outcome == Outcome::Ok {
                if let Some((zxid, write)) = answers.write_before(op.t0)
                    && owed.is_none_or(|(known, ..)| known < zxid)
                {
                    owed = Some((zxid, write, index));
                }
                continue;
            }
            let Some((zxid, write, sync)) =
                owed.filter(|_| op.kind.is_read() && op.zxid >= Zxid::ZERO)
            else {
                continue;
            };
            findings.looked(Rule::Sync);
            let newest = timeline.newest_of(index);
            if newest >= zxid {
                // It may be as fresh as it has to be; if nobody told its state, the next may still not be.
                if timeline.bounds.span(history, index).from >= zxid {
                    owed = None;
                }
            } else if newest.epoch() < zxid.epoch() {
                stale += 1;
                owed = None;
            } else {
                let what = || {
                    format!(
                        "a read after a sync was answered from {newest} or before, older than the write at {zxid} that was acknowledged before the sync"
                    )
                };
                findings.broken(Rule::Sync, what, &[write, sync, index]);
                owed = None;
            }
        }
    }
    if stale > 0 {
        findings.notes.push(format!(
            "{stale} reads after a sync came from a leader that had been replaced; ZooKeeper's sync asks no quorum"
        ));
    }
}
