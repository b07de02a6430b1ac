//! Ephemerals live exactly as long as their session, and all go at once.
//!
//! A session ends at one zxid. Every acknowledged write of the session and every sight of one of its ephemerals is before
//! it; every sight of one being gone that nobody deleted is after it, and so is the answer to a close. The latest sign of
//! life and the earliest sign of death therefore tell everything.

use zkd::ids::Zxid;

use super::bounds::{NEVER, Span, is_hidden};
use super::timeline::{Change, Timeline};
use super::{Findings, Rule, op_index};
use crate::observe::history::{Kind, Op, OpIndex, Outcome, PathId};

/// A sign, and who saw it; `None` is the end state.
type Sign = (Zxid, Option<OpIndex>);

/// What is known of one session's end.
#[derive(Clone, Copy, Default)]
struct Life {
    last_alive: Option<Sign>,
    first_gone: Option<Sign>,
    /// The ephemeral that was missing.
    missing: Option<OpIndex>,
}

impl Life {
    fn alive(&mut self, zxid: Zxid, by: Option<OpIndex>) {
        if self.last_alive.is_none_or(|(known, _)| known < zxid) {
            self.last_alive = Some((zxid, by));
        }
    }

    fn gone(&mut self, zxid: Zxid, by: OpIndex, missing: Option<OpIndex>) {
        if self.first_gone.is_none_or(|(known, _)| zxid < known) {
            self.first_gone = Some((zxid, Some(by)));
            self.missing = missing;
        }
    }
}

pub(super) fn check(timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let mut lives = vec![Life::default(); history.sessions.len()];
    for (index, op) in history.ops.iter().enumerate() {
        let index = op_index(index);
        if op.ephemeral && timeline.zxid_of(index).is_some() && op.outcome != Outcome::Failed(-110)
        {
            findings.looked(Rule::Ephemerals);
        }
        signs(timeline, index, op, &mut lives);
        owner(timeline, index, op, findings);
    }
    for last in &history.finals {
        if let Some(owner) = last.owner {
            lives[owner.0 as usize].alive(last.zxid, None);
        }
    }
    for (index, life) in lives.iter().enumerate() {
        if let (Some((alive, seen)), Some((gone, by))) = (life.last_alive, life.first_gone)
            && alive >= gone
        {
            let what = || {
                let session = history.sessions[index];
                format!("session {session} was over by {gone} and alive at {alive}")
            };
            let witness: Vec<OpIndex> = life.missing.into_iter().chain(by).chain(seen).collect();
            findings.broken(Rule::Ephemerals, what, &witness);
        }
    }
    if history.end.is_some() {
        outlived(timeline, findings);
    }
}

/// What one operation says of the life of sessions.
fn signs(timeline: &Timeline<'_>, index: OpIndex, op: &Op, lives: &mut [Life]) {
    let own = op.session.0 as usize;
    let span = timeline.bounds.span(timeline.history, index);
    match (op.kind, op.outcome) {
        (Kind::Close, Outcome::Ok) if span.to < NEVER => lives[own].gone(span.to, index, None),
        (Kind::Set | Kind::Create | Kind::Delete | Kind::Multi, Outcome::Ok | Outcome::Unknown) => {
            if let Some(zxid) = timeline.zxid_of(index) {
                lives[own].alive(zxid, Some(index));
            }
            if let (Kind::Create, Outcome::Ok, Some(path)) = (op.kind, op.outcome, op.target()) {
                let before = Zxid(op.zxid.0 - 1);
                let before = Span {
                    from: before,
                    to: before,
                };
                missing(timeline, path, before, index, lives);
            }
        }
        (Kind::Get | Kind::Exists, Outcome::Ok) => {
            if let Some(owner) = op.owner {
                lives[owner.0 as usize].alive(span.from, Some(index));
            }
        }
        (Kind::Get | Kind::Exists, Outcome::Failed(-101)) => {
            if let Some(path) = op.path {
                missing(timeline, path, span, index, lives);
            }
        }
        (Kind::Children, Outcome::Ok) => {
            let state = if is_hidden(op) { op.pzxid } else { op.zxid };
            let kids = timeline.history.parts_of(op);
            let all = op.path.map(|dir| timeline.family.kids(dir));
            for kid in all.into_iter().flatten() {
                if !kids.iter().any(|listed| listed.path == *kid) {
                    let span = Span {
                        from: state,
                        to: state,
                    };
                    missing(timeline, *kid, span, index, lives);
                }
            }
        }
        _ => {}
    }
}

/// If this was an ephemeral that nobody deleted, its session was over.
fn missing(timeline: &Timeline<'_>, path: PathId, span: Span, by: OpIndex, lives: &mut [Life]) {
    let history = timeline.history;
    let is_there = timeline
        .at(path, span.from)
        .is_some_and(|last| last.change != Change::Gone)
        && timeline
            .within(path, span)
            .all(|m| matches!(m.change, Change::Set(_)));
    let Some(birth) = timeline
        .birth(path, span.from)
        .filter(|_| is_there && span.to < NEVER)
    else {
        return;
    };
    let born = &history.ops[birth.op.at()];
    let t1 = history.ops[by.at()].t1;
    if born.ephemeral && !timeline.may_be_deleted(path, birth.zxid, span.to, t1) {
        lives[born.session.0 as usize].gone(span.to, by, Some(birth.op));
    }
}

/// A znode shows the owner it was made with.
fn owner(timeline: &Timeline<'_>, index: OpIndex, op: &Op, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let Some(path) = op
        .path
        .filter(|_| op.kind.is_read() && op.outcome == Outcome::Ok)
    else {
        return;
    };
    let Some(birth) = timeline
        .birth(path, op.zxid.max(op.mzxid))
        .filter(|birth| birth.zxid == op.czxid)
    else {
        return;
    };
    let born = &history.ops[birth.op.at()];
    let wanted = born.ephemeral.then_some(born.session);
    if born.kind == Kind::Create && op.owner != wanted {
        let what = || {
            format!(
                "{} shows another owner than it was made with",
                history.path_text(path)
            )
        };
        findings.broken(Rule::Ephemerals, what, &[birth.op, index]);
    }
}

/// The load waits for the ephemerals of sessions that were said to be over before it reads the end state.
fn outlived(timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    for last in &history.finals {
        let over = |owner| history.expired.iter().any(|(session, _)| *session == owner);
        if last.owner.is_some_and(over) {
            let born: Vec<OpIndex> = timeline
                .birth(last.path, last.zxid)
                .map(|birth| birth.op)
                .into_iter()
                .collect();
            let what = || {
                let path = history.path_text(last.path);
                format!("{path} is there at the end, and its session was said to be over")
            };
            findings.broken(Rule::Ephemerals, what, &born);
        }
    }
}
