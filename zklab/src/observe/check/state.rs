//! Reads show exactly the state of their zxid, and acknowledged writes are in it, once, until the end.
//!
//! No read of a server overlaps a write being applied, and the header of its answer names the state it was given from:
//! so every answer can be compared with the timeline at that zxid. An error is an answer too: a write that was refused
//! tells of the state just before its own zxid.

use zkd::ids::Zxid;

use super::bounds::{NEVER, Span, is_hidden};
use super::children::listed;
use super::timeline::{Change, Mutation, Timeline, writes_to};
use super::{Findings, Rule, op_index};
use crate::observe::history::{Kind, Op, OpIndex, Outcome, PathId};

/// A znode as somebody saw it.
struct Sight {
    path: PathId,
    /// The state that showed it so.
    zxid: Zxid,
    /// The oldest state that it can have been seen in; the same if the answer told it.
    from: Zxid,
    czxid: Zxid,
    mzxid: Zxid,
    version: i32,
    /// `None` if only the Stat was seen.
    value: Option<u32>,
    /// Who saw it; `None` for the end state.
    by: Option<OpIndex>,
    /// When, or later.
    until: u64,
}

pub(super) fn check(timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    for mutations in timeline.paths() {
        chain(timeline, mutations, findings);
    }
    for (op, again) in &timeline.doubled {
        let zxid = timeline.zxid_of(*op).unwrap_or_default();
        let what = || format!("one write took place twice, at {zxid} and at {again}");
        findings.broken(Rule::AckedWrites, what, &[*op]);
    }
    for (index, op) in history.ops.iter().enumerate() {
        if op.kind == Kind::Multi && op.is_answered() {
            findings.looked(Rule::Multi);
        }
        answer(timeline, op_index(index), op, findings);
    }
    for last in &history.finals {
        findings.looked(Rule::AckedWrites);
        let sight = Sight {
            path: last.path,
            zxid: last.zxid,
            from: last.zxid,
            czxid: last.czxid,
            mzxid: last.mzxid,
            version: last.version,
            value: Some(last.value),
            by: None,
            until: u64::MAX,
        };
        seen(timeline, &sight, findings);
    }
    if let Some(end) = history.end {
        all_told(timeline, end, findings);
    }
}

/// What one answer says of the state.
fn answer(timeline: &Timeline<'_>, index: OpIndex, op: &Op, findings: &mut Findings<'_>) {
    let Some(path) = op
        .path
        .filter(|_| op.zxid >= Zxid::ZERO && op.is_answered())
    else {
        return;
    };
    let span = timeline.bounds.span(timeline.history, index);
    // A write that was refused tells of the state before its own.
    let before = if is_hidden(op) {
        span
    } else {
        let zxid = Zxid(op.zxid.0 - 1);
        Span {
            from: zxid,
            to: zxid,
        }
    };
    match (op.kind, op.outcome) {
        (Kind::Get | Kind::Exists, Outcome::Ok) => {
            findings.looked(Rule::Reads);
            let sight = Sight {
                path,
                zxid: if is_hidden(op) { op.mzxid } else { op.zxid },
                from: span.from,
                czxid: op.czxid,
                mzxid: op.mzxid,
                version: op.version,
                value: (op.kind == Kind::Get).then_some(op.value),
                by: Some(index),
                until: op.t1,
            };
            seen(timeline, &sight, findings);
        }
        (Kind::Children, Outcome::Ok) => listed(timeline, path, index, op, findings),
        (Kind::Get | Kind::Exists | Kind::Children, Outcome::Failed(-101)) => {
            findings.looked(Rule::Reads);
            missing(timeline, path, span, index, findings);
        }
        (Kind::Set | Kind::Delete, Outcome::Failed(-101)) => {
            findings.looked(Rule::Reads);
            missing(timeline, path, before, index, findings);
        }
        (Kind::Create, Outcome::Failed(-110)) if !op.sequential => {
            refused_as_existing(timeline, path, before, index, findings);
        }
        (Kind::Set | Kind::Delete, Outcome::Failed(-103)) => {
            refused_as_changed(timeline, path, before, index, op.expected, findings);
        }
        (Kind::Set, Outcome::Ok) if op.expected >= 0 && op.version != op.expected + 1 => {
            let what = || {
                format!(
                    "a set of version {} was acknowledged as version {}",
                    op.expected, op.version
                )
            };
            findings.broken(Rule::AckedWrites, what, &[index]);
        }
        _ => {}
    }
}

/// A create was refused because the znode is there.
fn refused_as_existing(
    timeline: &Timeline<'_>,
    path: PathId,
    before: Span,
    index: OpIndex,
    findings: &mut Findings<'_>,
) {
    findings.looked(Rule::Reads);
    if let Some(last) = timeline.at(path, before.from)
        && last.change == Change::Gone
        && !timeline
            .within(path, before)
            .any(|m| m.change == Change::Born)
        && !timeline.has_doubts(path)
    {
        let what = || {
            format!(
                "a znode that was deleted at {} is said to exist{}",
                last.zxid,
                at(before)
            )
        };
        let rule = rule_of(timeline, last, before.from, Rule::Reads);
        findings.broken(rule, what, &[last.op, index]);
    }
}

/// A change was refused because the version is another than `expected`.
fn refused_as_changed(
    timeline: &Timeline<'_>,
    path: PathId,
    before: Span,
    index: OpIndex,
    expected: i32,
    findings: &mut Findings<'_>,
) {
    findings.looked(Rule::Reads);
    if let Some(last) = timeline.at(path, before.from)
        && version_after(last.change) == Some(expected)
        && timeline.within(path, before).next().is_none()
        && !timeline.has_doubts(path)
    {
        let what = || {
            format!(
                "version {expected} was refused{}, and it was the version",
                at(before)
            )
        };
        findings.broken(Rule::Reads, what, &[last.op, index]);
    }
}

/// ` at 0x…`, if it is one state.
pub(super) fn at(span: Span) -> String {
    if span.from == span.to {
        format!(" at {}", span.from)
    } else if span.to == NEVER {
        format!(", at {} or later", span.from)
    } else {
        format!(", between {} and {}", span.from, span.to)
    }
}

/// The version that a change leaves, if it is known.
fn version_after(change: Change) -> Option<i32> {
    match change {
        Change::Born => Some(0),
        Change::Set(version) if version >= 0 => Some(version),
        _ => None,
    }
}

/// The rule that a miss of this change in this state breaks. A multi of which nothing is there is a lost write, not half
/// of one.
fn rule_of(timeline: &Timeline<'_>, missed: &Mutation, state: Zxid, otherwise: Rule) -> Rule {
    match timeline.history.ops[missed.op.at()].kind {
        Kind::Multi if timeline.is_half(missed, state) => Rule::Multi,
        Kind::Close => Rule::Ephemerals,
        _ => otherwise,
    }
}

/// A znode was seen.
fn seen(timeline: &Timeline<'_>, sight: &Sight, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let otherwise = if sight.by.is_some() {
        Rule::Reads
    } else {
        Rule::AckedWrites
    };
    let path = history.path_text(sight.path);
    let mut broken = |rule: Rule, what: String, first: Option<OpIndex>| {
        let witness: Vec<OpIndex> = first.into_iter().chain(sight.by).collect();
        findings.broken(rule, || what, &witness);
    };
    if sight.mzxid > sight.zxid {
        let what = format!(
            "{path} was read at {} and shows a change at {}",
            sight.zxid, sight.mzxid
        );
        return broken(otherwise, what, None);
    }
    if let Some(delete) = timeline.surely_deleted(sight.path, sight.czxid, sight.from) {
        let what = format!(
            "{path} was made at {}, deleted later, and is still there at {}",
            sight.czxid, sight.from
        );
        return broken(otherwise, what, Some(delete));
    }
    if let Some(last) = timeline.at(sight.path, sight.zxid) {
        let rule = rule_of(timeline, last, sight.from, otherwise);
        if last.change == Change::Gone {
            if sight.czxid < last.zxid {
                let what = format!(
                    "{path} should have been deleted at {} and is still there at {}",
                    last.zxid, sight.zxid
                );
                return broken(rule, what, Some(last.op));
            }
        } else if last.zxid > sight.mzxid {
            let what = format!(
                "{path} was changed at {} and is shown at {} as it was at {}",
                last.zxid, sight.zxid, sight.mzxid
            );
            return broken(rule, what, Some(last.op));
        } else if last.zxid == sight.mzxid {
            if version_after(last.change).is_some_and(|version| version != sight.version) {
                let what = format!(
                    "{path} at {} has version {} and another was acknowledged",
                    last.zxid, sight.version
                );
                broken(rule, what, Some(last.op));
            }
            let written = history.ops[last.op.at()].value;
            if let Some(value) = sight.value.filter(|value| *value != written) {
                let what = format!(
                    "{path} was written at {} by op {written} and shows the value of op {value}",
                    last.zxid
                );
                broken(rule, what, Some(last.op));
            }
            return;
        }
    }
    unacknowledged(timeline, sight, otherwise, findings);
}

/// The change that is shown is not one that was acknowledged.
fn unacknowledged(
    timeline: &Timeline<'_>,
    sight: &Sight,
    otherwise: Rule,
    findings: &mut Findings<'_>,
) {
    let history = timeline.history;
    let path = history.path_text(sight.path);
    let mut broken = |rule: Rule, what: String, first: Option<OpIndex>| {
        let witness: Vec<OpIndex> = first.into_iter().chain(sight.by).collect();
        findings.broken(rule, || what, &witness);
    };
    let Some(value) = sight.value.filter(|value| *value != 0) else {
        return;
    };
    let Some(writer) = timeline.writer(value) else {
        // A load that was killed leaves operations without a line; one that ended does not.
        if history.end.is_some() {
            broken(
                otherwise,
                format!("{path} shows a value that nobody wrote, {value}"),
                None,
            );
        }
        return;
    };
    let op = &history.ops[writer.at()];
    if op.t0 > sight.until {
        broken(
            otherwise,
            format!("{path} shows a value that was written later"),
            Some(writer),
        );
    } else if !writes_to(history, op, sight.path) {
        broken(
            otherwise,
            format!("{path} shows the value of another znode"),
            Some(writer),
        );
    } else if matches!(op.outcome, Outcome::Failed(_)) {
        let rule = if op.kind == Kind::Multi {
            Rule::Multi
        } else {
            otherwise
        };
        broken(
            rule,
            format!("{path} shows the value of a write that was refused"),
            Some(writer),
        );
    } else if op.outcome == Outcome::Ok {
        let what = format!(
            "{path} shows at {} a value that was acknowledged at {}",
            sight.mzxid, op.zxid
        );
        broken(otherwise, what, Some(writer));
    }
}

/// A znode was not there.
pub(super) fn missing(
    timeline: &Timeline<'_>,
    path: PathId,
    span: Span,
    by: OpIndex,
    findings: &mut Findings<'_>,
) {
    let history = timeline.history;
    let Some(last) = timeline
        .at(path, span.from)
        .filter(|last| last.change != Change::Gone)
    else {
        return;
    };
    if timeline
        .within(path, span)
        .any(|m| m.change == Change::Gone)
    {
        return;
    }
    let is_ephemeral = timeline
        .birth(path, span.from)
        .is_some_and(|birth| history.ops[birth.op.at()].ephemeral);
    // When an ephemeral went is judged with its session.
    let t1 = history.ops[by.at()].t1;
    if is_ephemeral || timeline.may_be_deleted(path, last.zxid, span.to, t1) {
        return;
    }
    let what = || {
        let path = history.path_text(path);
        format!(
            "{path} was written at {}, never deleted, and is not there{}",
            last.zxid,
            at(span)
        )
    };
    let rule = rule_of(timeline, last, span.from, Rule::Reads);
    findings.broken(rule, what, &[last.op, by]);
}

/// Which rule a mutation breaks that does not follow from the one before, and who shows it. A multi that was refused in
/// between is the nearest cause, but half of it only adds to what was done.
fn nearest_cause(
    timeline: &Timeline<'_>,
    previous: Option<&Mutation>,
    mutation: &Mutation,
    may_be_half: bool,
) -> (Rule, Vec<OpIndex>) {
    let since = previous.map_or(Zxid::ZERO, |previous| previous.zxid);
    let half = timeline
        .refused_multi(mutation.path, since, mutation.zxid)
        .filter(|_| may_be_half);
    let rule = if half.is_some() {
        Rule::Multi
    } else {
        Rule::AckedWrites
    };
    let first = previous.iter().map(|previous| previous.op).chain(half);
    (rule, first.chain([mutation.op]).collect())
}

/// Two acknowledged writes with versions that do not follow one another.
fn wrong_version(
    name: &str,
    told: i32,
    mutation: &Mutation,
    before: i32,
    previous: Option<&Mutation>,
) -> String {
    let at = mutation.zxid;
    let since = previous.map_or_else(String::new, |previous| format!(" at {}", previous.zxid));
    if told == before {
        format!(
            "{name} got version {told} at {at}, although a write that gave it this version{since} had been acknowledged: that \
             one is lost"
        )
    } else if told < before {
        format!(
            "{name} got version {told} at {at}, although a write that gave it version {before}{since} had been acknowledged: \
             that one is lost"
        )
    } else {
        format!(
            "{name} got version {told} at {at}, but the write before it gave it version {before}{since}: something changed it \
             that no client was told of as done"
        )
    }
}

/// The acknowledged writes of one znode make one history: versions without repetition or gap, births and deaths in turn.
fn chain(timeline: &Timeline<'_>, mutations: &[Mutation], findings: &mut Findings<'_>) {
    let history = timeline.history;
    let name = history.path_text(mutations[0].path);
    let doubts = i32::try_from(timeline.doubts_of(mutations[0].path).count()).unwrap_or(i32::MAX);
    let is_sure = doubts == 0;
    // Deleted and made again without anybody knowing, it begins again at version 0.
    let may_begin_again =
        !is_sure && timeline.may_be_deleted(mutations[0].path, Zxid::ZERO, NEVER, u64::MAX);
    let mut previous: Option<&Mutation> = None;
    let mut version = None;
    for mutation in mutations {
        findings.looked(Rule::AckedWrites);
        let at = mutation.zxid;
        let mut broken = |what: String, may_be_half: bool| {
            let (rule, witness) = nearest_cause(timeline, previous, mutation, may_be_half);
            findings.broken(rule, || what, &witness);
        };
        let gone = previous.is_some_and(|previous| previous.change == Change::Gone);
        match mutation.change {
            Change::Born => {
                let was_ephemeral = timeline
                    .birth(mutation.path, Zxid(mutation.zxid.0 - 1))
                    .is_some_and(|birth| history.ops[birth.op.at()].ephemeral);
                let since = previous.map_or(mutation.zxid, |previous| previous.zxid);
                let was_deleted = timeline.was_deleted_between(mutation.path, since, mutation.zxid);
                if is_sure && previous.is_some() && !gone && !was_ephemeral && !was_deleted {
                    broken(
                        format!("{name} was created at {at} although it was there already"),
                        true,
                    );
                }
                version = Some(0);
            }
            Change::Set(told) => {
                if is_sure && gone {
                    let what = format!("{name} was set at {at} after it had been deleted");
                    broken(what, true);
                }
                let next = version.map(|version: i32| version.wrapping_add(1));
                if let Some(next) = next.filter(|_| told >= 0 && !gone && !may_begin_again)
                    && (told < next || told > next.saturating_add(doubts))
                {
                    let what = wrong_version(name, told, mutation, next - 1, previous);
                    broken(what, told >= next);
                }
                version = if told >= 0 { Some(told) } else { next };
            }
            Change::Gone => {
                if is_sure && gone {
                    broken(format!("{name} was deleted at {at}, but it was gone"), true);
                }
                version = None;
            }
        }
        previous = Some(mutation);
    }
}

/// Every znode that has to be there at the end was found there.
fn all_told(timeline: &Timeline<'_>, end: Zxid, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let mut found = vec![false; history.paths.len()];
    for last in &history.finals {
        found[last.path.0 as usize] = true;
    }
    for mutations in timeline.paths() {
        let path = mutations[0].path;
        let Some(last) = timeline
            .at(path, end)
            .filter(|last| last.change != Change::Gone)
        else {
            continue;
        };
        let is_ephemeral = timeline
            .birth(path, end)
            .is_some_and(|birth| history.ops[birth.op.at()].ephemeral);
        let is_inside = history.path_text(path).starts_with(&history.root);
        if found[path.0 as usize]
            || is_ephemeral
            || !is_inside
            || timeline.may_be_deleted(path, last.zxid, end, u64::MAX)
        {
            continue;
        }
        let what = || {
            let path = history.path_text(path);
            format!(
                "{path} was written at {}, never deleted, and is not there at the end ({end})",
                last.zxid
            )
        };
        let rule = rule_of(timeline, last, end, Rule::AckedWrites);
        findings.broken(rule, what, &[last.op]);
    }
}
