//! No acknowledged write is lost: what a client was told is in the history, as the txn it was told.

use std::collections::BTreeMap;

use super::{Acked, Violation};
use crate::ids::Zxid;
use crate::record::txn::TxnRecord;

/// When the answer comes, the server that gave it has delivered the txn.
pub(super) fn check_known(
    acked: &Acked,
    committed: &BTreeMap<Zxid, (TxnRecord, i64)>,
) -> Option<Violation> {
    check_kept(acked, committed)
}

pub(super) fn check_kept(
    acked: &Acked,
    committed: &BTreeMap<Zxid, (TxnRecord, i64)>,
) -> Option<Violation> {
    let Some((record, _)) = committed.get(&acked.zxid) else {
        return Some(Violation {
            rule: "AckedWriteLost",
            evidence: format!("{acked:?} is in no history"),
        });
    };
    (record.header.client_id != acked.session || record.header.cxid != acked.xid).then(|| {
        Violation {
            rule: "AckedWriteLost",
            evidence: format!("{acked:?} stands in the history as {record:?}"),
        }
    })
}
