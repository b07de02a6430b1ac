//! TotalOrder: a server delivers txns in rising zxid order, each once.

use super::{Delivered, Violation};

pub(super) fn check(delivered: &Delivered<'_>) -> Option<Violation> {
    let zxid = delivered.record.header.zxid;
    (zxid <= delivered.previous).then(|| Violation {
        rule: "TotalOrder",
        evidence: format!(
            "server {} delivered {zxid} after {}",
            delivered.server, delivered.previous
        ),
    })
}
