//! Agreement: two servers that deliver a zxid deliver the same txn under it.

use std::collections::BTreeMap;

use super::{Delivered, Violation};
use crate::ids::Zxid;
use crate::record::txn::TxnRecord;

pub(super) fn check(
    delivered: &Delivered<'_>,
    committed: &BTreeMap<Zxid, (TxnRecord, i64)>,
) -> Option<Violation> {
    let record = delivered.record;
    let (known, _) = committed.get(&record.header.zxid)?;
    (known.header != record.header || known.txn != record.txn).then(|| Violation {
        rule: "Agreement",
        evidence: format!(
            "server {} delivered {record:?} where another delivered {known:?}",
            delivered.server
        ),
    })
}
