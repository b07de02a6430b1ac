//! PrefixConsistency: histories are prefixes of one another. No server skips a txn that another delivered,
//! and after everything is healed all end with the same one.

use std::collections::BTreeMap;
use std::ops::Bound::Excluded;

use super::{Delivered, Violation};
use crate::ids::{ServerId, Zxid};
use crate::record::txn::TxnRecord;
use crate::tree::DataTree;

pub(super) fn check(
    delivered: &Delivered<'_>,
    committed: &BTreeMap<Zxid, (TxnRecord, i64)>,
) -> Option<Violation> {
    let zxid = delivered.record.header.zxid;
    if delivered.previous >= zxid {
        return None;
    }
    let (skipped, _) = committed
        .range((Excluded(delivered.previous), Excluded(zxid)))
        .next()?;
    Some(Violation {
        rule: "PrefixConsistency",
        evidence: format!(
            "server {} delivered {zxid} right after {}, but {skipped} was committed between them",
            delivered.server, delivered.previous
        ),
    })
}

pub(super) fn check_same_end(trees: &[(ServerId, &DataTree)]) -> Option<Violation> {
    let ends: Vec<_> = trees
        .iter()
        .map(|(server, tree)| (*server, tree.last_processed_zxid()))
        .collect();
    (ends.windows(2).any(|pair| pair[0].1 != pair[1].1)).then(|| Violation {
        rule: "PrefixConsistency",
        evidence: format!("healed, the servers still end at different txns: {ends:?}"),
    })
}
