//! Watches that are left again over another connection: what they missed is told at once, and they are watches again.
//!
//! The client says which state it has seen, and which watches it had. A watch for the data of a znode fires if the znode
//! is gone or its data are younger; one on a znode that was not there fires if it is; one for the children if the znode
//! is gone or its children changed later. One that fires is used up. A watch that stays begins anew and tells nothing of
//! what it missed (ZOOKEEPER-4698). All of it comes before the answer, and nothing else does, for it is asked for first.

use zkd::ids::Zxid;

use super::timeline::{Change, Timeline};
use super::watches::{Armed, Table, first_after};
use super::{Findings, Rule};
use crate::observe::history::{Event, Happened, Kind, OpIndex, Part, PathId};

/// Could this event be for this watch?
fn is_for(part: &Part, event: &Event) -> bool {
    part.path == event.path
        && match part.kind {
            Kind::Get => matches!(event.what, Happened::Changed | Happened::Deleted),
            Kind::Exists => event.what == Happened::Created,
            Kind::Children => matches!(event.what, Happened::Children | Happened::Deleted),
            _ => false,
        }
}

/// The connection ended before the answer: all that can be said is that no other watch fires.
pub(super) fn unanswered(
    timeline: &Timeline<'_>,
    index: OpIndex,
    early: &[&Event],
    findings: &mut Findings<'_>,
) {
    let mut parts = parts(timeline, index);
    for event in early {
        match parts.iter().position(|part| is_for(part, event)) {
            Some(at) => drop(parts.swap_remove(at)),
            None => unwanted(timeline, index, event, findings),
        }
    }
}

fn parts(timeline: &Timeline<'_>, index: OpIndex) -> Vec<Part> {
    let history = timeline.history;
    history.parts_of(&history.ops[index.at()]).to_vec()
}

fn unwanted(timeline: &Timeline<'_>, index: OpIndex, event: &Event, findings: &mut Findings<'_>) {
    let what = || {
        format!(
            "client {} left its watches again and was told that {} was {}, for which it had none",
            event.client,
            timeline.history.path_text(event.path),
            event.what.word()
        )
    };
    findings.broken(Rule::Watches, what, &[index]);
}

/// The server has the watches again.
pub(super) fn answered(
    timeline: &Timeline<'_>,
    index: OpIndex,
    early: &[&Event],
    armed: &mut Armed<'_>,
    findings: &mut Findings<'_>,
) {
    let op = &timeline.history.ops[index.at()];
    let mut events: Vec<&Event> = early.to_vec();
    for part in parts(timeline, index) {
        findings.looked(Rule::Watches);
        if matches!(part.kind, Kind::Persistent | Kind::Recursive) {
            armed.stay(timeline, part.path, part.kind, index, op.zxid);
            continue;
        }
        let due = due(timeline, &part, op.rel, op.zxid);
        if let Some(at) = events.iter().position(|event| is_for(&part, event)) {
            let event = events.remove(at);
            needless(timeline, &part, event, index, findings);
        } else if let Some(cause) = due {
            let what = || {
                format!(
                    "{} changed after {}, and a client that had seen that and left its watch again was not told",
                    timeline.history.path_text(part.path),
                    op.rel
                )
            };
            findings.broken(Rule::Watches, what, &[cause, index]);
        } else {
            let table = match part.kind {
                Kind::Children => Table::Child,
                _ => Table::Data,
            };
            armed.arm(timeline, table, part.path, index, op.zxid);
        }
    }
    for event in events {
        unwanted(timeline, index, event, findings);
    }
}

/// What a watch has missed, if it surely has.
fn due(timeline: &Timeline<'_>, part: &Part, seen: Zxid, state: Zxid) -> Option<OpIndex> {
    let missed = |table| {
        let (zxid, cause) = first_after(timeline, table, part.path, seen)?;
        (zxid <= state).then_some(cause)
    };
    match part.kind {
        // Whatever came later, its data are younger or it is gone.
        Kind::Get => missed(Table::Data),
        Kind::Children => missed(Table::Child).or_else(|| {
            let gone = timeline.at(part.path, state)?;
            (gone.change == Change::Gone && gone.zxid > seen).then_some(gone.op)
        }),
        _ => {
            let last = timeline.at(part.path, state)?;
            let is_there = last.change != Change::Gone && !may_be_gone(timeline, part.path, state);
            is_there.then_some(last.op)
        }
    }
}

/// May it have gone by this state without anybody knowing when?
fn may_be_gone(timeline: &Timeline<'_>, path: PathId, state: Zxid) -> bool {
    let born = timeline.birth(path, state);
    let Some(born) = born else {
        return true;
    };
    timeline.history.ops[born.op.at()].ephemeral
        || timeline.may_be_deleted(path, born.zxid, state, u64::MAX)
}

/// An event needs a reason.
fn needless(
    timeline: &Timeline<'_>,
    part: &Part,
    event: &Event,
    index: OpIndex,
    findings: &mut Findings<'_>,
) {
    let op = &timeline.history.ops[index.at()];
    let parent = timeline.family.parent(part.path);
    let is_sure = match part.kind {
        Kind::Children => timeline.family.is_sure(part.path),
        _ => {
            !timeline.has_doubts(part.path)
                && parent.is_some_and(|parent| timeline.family.is_sure(parent))
        }
    };
    let has_reason = match part.kind {
        Kind::Exists => timeline
            .at(part.path, op.zxid)
            .is_some_and(|last| last.change != Change::Gone),
        _ => due(timeline, part, op.rel, op.zxid).is_some(),
    };
    // With a zxid it is the event of a watch that is there already.
    if is_sure && !has_reason && event.zxid <= Zxid::ZERO {
        let what = || {
            format!(
                "a client that had seen {} left its watch on {} again and was told that it was {}, which it was not",
                op.rel,
                timeline.history.path_text(part.path),
                event.what.word()
            )
        };
        findings.broken(Rule::Watches, what, &[index]);
    }
}
