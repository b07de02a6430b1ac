//! The digest of a tree: the wrapping sum of one CRC-32 per znode.
//!
//! Version 2 of the formula (`DigestCalculator`, `AdHash`): CRC-32 over path, data and the stored
//! Stat. Path and data come first, so their part is cached with each znode and a changed Stat costs
//! 60 bytes of CRC however large the data are. Children and ACLs are not covered.

use crate::record::data::StatPersisted;

/// The version of the formula, as it stands in every `TxnDigest` and snapshot.
pub const VERSION: i32 = 2;

/// Whether the znode at `path` counts at all: everything below `/zookeeper/` differs between
/// servers (configuration, quota statistics) and is left out; `/zookeeper` itself counts.
#[must_use]
pub fn is_counted(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}

/// The CRC of path and data; the root is hashed with the empty path.
#[must_use]
pub fn path_data_crc(path: &str, data: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if path != "/" {
        crc.update(path.as_bytes());
    }
    crc.update(data.unwrap_or_default());
    crc.finalize()
}

/// The digest of a znode that counts, from its cached path and data CRC and its stored Stat.
#[must_use]
pub fn stat_digest(path_data_crc: u32, stat: &StatPersisted) -> i64 {
    let mut bytes = [0; 60];
    for (at, long) in [
        stat.czxid.0,
        stat.mzxid.0,
        stat.pzxid.0,
        stat.ctime,
        stat.mtime,
    ]
    .into_iter()
    .enumerate()
    {
        bytes[at * 8..at * 8 + 8].copy_from_slice(&long.to_be_bytes());
    }
    for (at, int) in [stat.version, stat.cversion, stat.aversion]
        .into_iter()
        .enumerate()
    {
        bytes[40 + at * 4..44 + at * 4].copy_from_slice(&int.to_be_bytes());
    }
    bytes[52..].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(path_data_crc);
    crc.update(&bytes);
    i64::from(crc.finalize())
}

/// The digest a znode adds to its tree.
#[must_use]
pub fn node_digest(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> i64 {
    if is_counted(path) {
        stat_digest(path_data_crc(path, data), stat)
    } else {
        0
    }
}
