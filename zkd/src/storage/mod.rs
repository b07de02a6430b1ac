//! Storage: the txn log, snapshots and epochs, in Apache ZooKeeper's own files.
//!
//! The law: what [`Storage::sync`] or an epoch's setter has returned for survives any crash, and
//! nothing that was lost is passed over in silence. Everything blocks; the driver gives it a thread.
//! It applies txns to a [`crate::tree::DataTree`] only while it recovers, and knows nothing of
//! quorums: when to write what is the business of the peer. Counterpart: `FileTxnSnapLog`.

use std::fmt;
use std::path::PathBuf;

use crate::ids::{Epoch, Zxid};

mod damage;
pub mod disk;
mod epoch;
mod error;
mod txn_log;

#[cfg(test)]
mod test_disk;

pub use disk::{Dir, Disk, DiskFile, RealDisk};
pub use error::StorageError;
pub use txn_log::{LogReader, LogRecord};

/// What was found and done while a data directory was opened; each is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryNote {
    /// A newer snapshot could not be read; an older one and the logs since then stand in for it.
    SnapshotSkipped {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A log ended in the unfinished write of a crash, which was cut off.
    TornTail {
        /// The log.
        path: PathBuf,
        /// Where it ends now.
        offset: u64,
    },
    /// A log was being started when the server died, and was removed.
    UnfinishedLog {
        /// The log.
        path: PathBuf,
    },
    /// A file that was being written when the server died was removed.
    TmpRemoved {
        /// The file.
        path: PathBuf,
    },
    /// Txns with a zxid that had been passed already were skipped.
    Repeated {
        /// The first such zxid.
        zxid: Zxid,
        /// How many there are.
        count: u64,
    },
    /// The tree is not what the leader's tree was at that txn: history was lost or changed
    /// somewhere, some time.
    DigestMismatch {
        /// The first txn after which they differ.
        zxid: Zxid,
        /// Digest of the tree here.
        found: i64,
        /// Digest the leader noted.
        expected: i64,
    },
    /// `currentEpoch` was brought up to date from `currentEpoch.tmp`.
    EpochFromTmp {
        /// What the file said.
        old: Epoch,
        /// What it says now.
        epoch: Epoch,
    },
    /// There are epochs but neither snapshot nor log: this server has lost a history. It starts
    /// empty and must not vote.
    HistoryMissing {
        /// The directory of the snapshots.
        path: PathBuf,
    },
}

impl fmt::Display for RecoveryNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SnapshotSkipped { path, why } => {
                write!(f, "skipped the snapshot {}: {why}", path.display())
            }
            Self::TornTail { path, offset } => write!(
                f,
                "cut off an unfinished write at the end of {}, which ends at offset {offset} now",
                path.display()
            ),
            Self::UnfinishedLog { path } => {
                write!(
                    f,
                    "removed {}: it had not got its header yet",
                    path.display()
                )
            }
            Self::TmpRemoved { path } => {
                write!(f, "removed {}: it was never finished", path.display())
            }
            Self::Repeated { zxid, count } => write!(
                f,
                "skipped {count} txns from {zxid} on that stand in the log a second time"
            ),
            Self::DigestMismatch {
                zxid,
                found,
                expected,
            } => write!(
                f,
                "after txn {zxid} the tree's digest is {found:#x}, the leader had {expected:#x}"
            ),
            Self::EpochFromTmp { old, epoch } => write!(
                f,
                "took currentEpoch {epoch} from the unfinished currentEpoch.tmp, instead of {old}"
            ),
            Self::HistoryMissing { path } => write!(
                f,
                "{} holds epochs but neither snapshots nor logs: this server has lost its history \
                 and will not vote until it has copied its leader's; if the ensemble is meant to \
                 be empty, create a file `initialize` in dataDir",
                path.display()
            ),
        }
    }
}
