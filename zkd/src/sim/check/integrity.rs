//! Integrity: what is delivered was proposed by some leader.

use std::collections::BTreeMap;

use super::{Delivered, Violation};
use crate::ids::{ServerId, Zxid};
use crate::record::txn::TxnRecord;

pub(super) fn check(
    delivered: &Delivered<'_>,
    proposed: &BTreeMap<Zxid, (ServerId, TxnRecord)>,
) -> Option<Violation> {
    let zxid = delivered.record.header.zxid;
    (!proposed.contains_key(&zxid)).then(|| Violation {
        rule: "Integrity",
        evidence: format!(
            "server {} delivered {zxid}, which nobody proposed",
            delivered.server
        ),
    })
}
