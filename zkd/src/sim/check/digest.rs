//! Digests: at the same zxid every tree has the same digest, also after recovery and synchronization.

use std::collections::BTreeMap;

use super::{Delivered, Violation};
use crate::ids::{ServerId, Zxid};
use crate::record::txn::TxnRecord;
use crate::tree::DataTree;

pub(super) fn check(
    delivered: &Delivered<'_>,
    committed: &BTreeMap<Zxid, (TxnRecord, i64)>,
) -> Option<Violation> {
    let zxid = delivered.record.header.zxid;
    let predicted = delivered
        .record
        .digest
        .as_ref()
        .map(|digest| digest.tree_digest);
    if predicted.is_some_and(|predicted| predicted != delivered.digest) {
        return Some(Violation {
            rule: "Digest",
            evidence: format!(
                "server {} has {:x} after {zxid}, its leader foretold {:x} ({:?})",
                delivered.server,
                delivered.digest,
                predicted.unwrap_or_default(),
                delivered.record
            ),
        });
    }
    let (_, known) = committed.get(&zxid)?;
    (*known != delivered.digest).then(|| Violation {
        rule: "Digest",
        evidence: format!(
            "server {} has {:x} after {zxid}, another had {known:x}",
            delivered.server, delivered.digest
        ),
    })
}

/// Healed, every server has the digest with which the history ends.
pub(super) fn check_final(
    server: ServerId,
    tree: &DataTree,
    (zxid, digest): (Zxid, i64),
) -> Option<Violation> {
    (tree.digest() != digest).then(|| Violation {
        rule: "Digest",
        evidence: format!(
            "healed, server {server} has {:x} at {}, the history ends with {digest:x} at {zxid}",
            tree.digest(),
            tree.last_processed_zxid()
        ),
    })
}
