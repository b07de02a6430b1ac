//! Quotas at the moment of a write: does it fit, and would it stop an Apache server?
//!
//! A quota on `P` is the znode `/zookeeper/quota` + `P` + `/zookeeper_limits`; the tree keeps the usage
//! beside it in `zookeeper_stats`. Only a hard limit refuses, and only where quotas are enforced. Usage
//! is that of the committed tree (operations of one multi do not add up), as in Apache.

use crate::path;
use crate::tree::DataTree;

const LIMITS: &str = "/zookeeper_limits";

/// Whether `count` more znodes and `bytes` more bytes at `path` would exceed a hard limit: that of the
/// deepest ancestor-or-self with a quota. Negative limits are none.
pub(super) fn is_exceeded(tree: &DataTree, path: &str, bytes: i64, count: i64) -> bool {
    let Some(quota) = tree.quota(path) else {
        return false;
    };
    let exceeds =
        |limit: i64, used: i64, more: i64| limit > -1 && used.max(0).saturating_add(more) > limit;
    (count > 0 && exceeds(quota.limits.count_hard, quota.used.count, count))
        || (bytes != 0 && exceeds(quota.limits.bytes_hard, quota.used.bytes, bytes))
}

/// Whether creating or deleting `path` stops an Apache server: it takes the name of the quotaed znode
/// out of the path of a limit by its length, and fails on what is too short or blank.
pub(super) fn stops_apache(path: &str) -> bool {
    let Some(parent) = path.strip_suffix(LIMITS) else {
        return false;
    };
    parent.starts_with(path::ZOOKEEPER)
        && parent
            .get(path::QUOTA.len()..)
            .is_none_or(|quotaed| quotaed.split('/').all(|part| part.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poison() {
        for bad in [
            "/zookeeper/quota/zookeeper_limits",
            "/zookeeper/zookeeper_limits",
            "/zookeeperx/zookeeper_limits",
            "/zookeeper/quota/ /zookeeper_limits",
        ] {
            assert!(stops_apache(bad), "{bad}");
        }
        for fine in [
            "/zookeeper/quota/a/zookeeper_limits",
            "/zookeeper/quota/zookeeper_stats",
            "/a/zookeeper_limits",
            "/zookeeper_limits",
        ] {
            assert!(!stops_apache(fine), "{fine}");
        }
    }
}
