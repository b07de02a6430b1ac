//! Sequence numbers: unique below a parent, ten digits, rising with the zxid.
//!
//! The parents of sequential znodes are never deleted by the load, so a number never begins again.

use std::collections::HashMap;

use zkd::ids::Zxid;

use super::timeline::Timeline;
use super::{Findings, Rule, op_index};
use crate::observe::history::{Kind, OpIndex};

pub(super) fn check(timeline: &Timeline<'_>, findings: &mut Findings<'_>) {
    let history = timeline.history;
    let mut parents: HashMap<&str, u32> = HashMap::new();
    let mut made: Vec<(u32, Zxid, i64, OpIndex)> = Vec::new();
    let creates = history.ops.iter().enumerate();
    for (index, op) in creates.filter(|(_, op)| op.kind == Kind::Create && op.sequential) {
        let index = op_index(index);
        let (Some(zxid), Some(path), Some(asked)) =
            (timeline.zxid_of(index), timeline.made_by(index), op.path)
        else {
            continue;
        };
        if matches!(op.outcome, crate::observe::history::Outcome::Failed(_)) {
            continue;
        }
        findings.looked(Rule::Sequences);
        let (path, asked) = (history.path_text(path), history.path_text(asked));
        let number = path
            .strip_prefix(asked)
            .filter(|digits| digits.len() == 10)
            .and_then(|digits| digits.parse::<i64>().ok());
        let Some(number) = number else {
            let what = || format!("{path} is not {asked} with a number of ten digits");
            findings.broken(Rule::Sequences, what, &[index]);
            continue;
        };
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let next = u32::try_from(parents.len()).expect("fewer parents than operations");
        let parent = *parents.entry(parent).or_insert(next);
        made.push((parent, zxid, number, index));
    }
    made.sort_unstable();
    for pair in made.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let ((_, z0, n0, first), (_, z1, n1, second)) = (pair[0], pair[1]);
        if n1 <= n0 {
            let what = || format!("number {n1} at {z1} comes after number {n0} at {z0}");
            findings.broken(Rule::Sequences, what, &[first, second]);
        }
    }
}
