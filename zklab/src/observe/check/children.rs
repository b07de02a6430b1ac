//! A list of children shows exactly the state of its zxid.
//!
//! Its Stat says which txn made or deleted a child last. Between that one and the state that was read the list is the
//! same, so where nobody told the latter the former is judged.

use zkd::ids::Zxid;

use super::bounds::{Span, is_hidden};
use super::state::{at, missing};
use super::timeline::{Change, Timeline};
use super::{Findings, Rule};
use crate::observe::history::{Op, OpIndex, PathId};

pub(super) fn listed(
    timeline: &Timeline<'_>,
    dir: PathId,
    index: OpIndex,
    op: &Op,
    findings: &mut Findings<'_>,
) {
    let history = timeline.history;
    findings.looked(Rule::Reads);
    let state = if is_hidden(op) { op.pzxid } else { op.zxid };
    let name = history.path_text(dir);
    if op.pzxid > state {
        let what = || {
            format!(
                "{name} was listed at {state} and shows a change at {}",
                op.pzxid
            )
        };
        findings.broken(Rule::Reads, what, &[index]);
        return;
    }
    if let Some((zxid, by)) = timeline.family.after(dir, op.pzxid)
        && zxid <= state
    {
        let what = || {
            format!(
                "the children of {name} changed at {zxid} and are shown at {state} as they were at {}",
                op.pzxid
            )
        };
        findings.broken(Rule::Reads, what, &[by, index]);
        return;
    }
    let kids: Vec<PathId> = history.parts_of(op).iter().map(|part| part.path).collect();
    for kid in timeline.family.kids(dir) {
        if kids.contains(kid) {
            present(timeline, *kid, state, index, findings);
        } else {
            let span = Span {
                from: state,
                to: state,
            };
            missing(timeline, *kid, span, index, findings);
        }
    }
}

/// A child is in the list.
fn present(
    timeline: &Timeline<'_>,
    kid: PathId,
    state: Zxid,
    index: OpIndex,
    findings: &mut Findings<'_>,
) {
    if let Some(last) = timeline.at(kid, state)
        && last.change == Change::Gone
        && !timeline.has_doubts(kid)
    {
        let what = || {
            let span = Span {
                from: state,
                to: state,
            };
            let name = timeline.history.path_text(kid);
            format!(
                "{name} was deleted at {} and is listed{}",
                last.zxid,
                at(span)
            )
        };
        findings.broken(Rule::Reads, what, &[last.op, index]);
    }
}
