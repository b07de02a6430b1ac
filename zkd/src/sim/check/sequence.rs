//! Sequence numbers are unique and rise with the zxid under each parent.

use std::collections::BTreeMap;

use super::{Acked, Violation};
use crate::path;

pub(super) fn check(acked: &[Acked]) -> Option<Violation> {
    let mut creates: Vec<_> = acked
        .iter()
        .filter_map(|a| Some((a.zxid, a.created.as_deref()?)))
        .collect();
    creates.sort_unstable();
    let mut last: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for (_, created) in creates {
        let Some(number) = number_of(created) else {
            continue;
        };
        let parent = path::parent(created)?;
        if let Some((before, name)) = last.insert(parent, (number, created))
            && before >= number
        {
            return Some(Violation {
                rule: "SequenceNumbers",
                evidence: format!("{created} was created after {name}"),
            });
        }
    }
    None
}

/// The ten digits at the end of a sequential name of the workload (`…-0000000007`).
fn number_of(created: &str) -> Option<u64> {
    let (_, digits) = created.rsplit_once('-')?;
    if digits.len() == 10 {
        digits.parse().ok()
    } else {
        None
    }
}
