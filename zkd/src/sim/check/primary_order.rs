//! LocalPrimaryOrder, GlobalPrimaryOrder and PrimaryIntegrity, as far as deliveries show them.
//!
//! A primary's txns are delivered in the order of their counters and before those of later primaries: with
//! TotalOrder and PrefixConsistency that follows from zxids, so what is left to see is that nothing is
//! delivered of an epoch that no quorum ever established.

use std::collections::BTreeMap;

use super::{Delivered, Violation};
use crate::ids::{Epoch, ServerId};

pub(super) fn check(
    delivered: &Delivered<'_>,
    leaders: &BTreeMap<Epoch, ServerId>,
) -> Option<Violation> {
    let zxid = delivered.record.header.zxid;
    let later = leaders.keys().next_back().copied().unwrap_or(Epoch(0));
    // A txn that was half proposed may be committed by a later leader; then that one's epoch is known.
    (zxid.epoch() > later).then(|| Violation {
        rule: "PrimaryIntegrity",
        evidence: format!(
            "server {} delivered {zxid} although no leader of epoch {} or later was established",
            delivered.server,
            zxid.epoch()
        ),
    })
}
