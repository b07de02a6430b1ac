//! Module `persistence` of `zookeeper.jute`: what files begin with.

use super::record;

record! {
    /// The 16 bytes at the start of a txn log and of a snapshot.
    #[derive(Copy)]
    pub struct FileHeader {
        /// `ZKLG` or `ZKSN`.
        pub magic: i32,
        /// Format version, 2.
        pub version: i32,
        /// 0 in logs, -1 in snapshots; nobody checks it.
        pub dbid: i64,
    }
}

impl FileHeader {
    /// Length of the header in bytes.
    pub const LEN: usize = 16;
    /// `ZKLG`.
    pub const LOG_MAGIC: i32 = 0x5a4b_4c47;
    /// `ZKSN`.
    pub const SNAPSHOT_MAGIC: i32 = 0x5a4b_534e;
    /// The only format version there is.
    pub const VERSION: i32 = 2;

    /// The header of a txn log.
    #[must_use]
    pub fn log() -> Self {
        Self {
            magic: Self::LOG_MAGIC,
            version: Self::VERSION,
            dbid: 0,
        }
    }

    /// The header of a snapshot.
    #[must_use]
    pub fn snapshot() -> Self {
        Self {
            magic: Self::SNAPSHOT_MAGIC,
            version: Self::VERSION,
            dbid: -1,
        }
    }
}
