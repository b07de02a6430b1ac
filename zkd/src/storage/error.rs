//! Why storage cannot go on. Every one of these stops the server: it must not vote or serve on a
//! history it cannot read or write.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::ids::Zxid;

/// What is wrong with the data directory or the disk.
#[derive(Debug)]
pub enum StorageError {
    /// The operating system refused.
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file holds what nobody writes.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it; for a compressed snapshot, in its uncompressed bytes.
        offset: u64,
        /// What stands there and what was expected.
        what: String,
    },
    /// A txn is missing from the history.
    Gap {
        /// The file that goes on behind the gap.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The zxid there.
        found: Zxid,
        /// The zxid it should follow.
        last: Zxid,
    },
    /// There are txns but no snapshot they could be applied to.
    NoSnapshot {
        /// The directory of the snapshots.
        path: PathBuf,
        /// Why none can be used.
        what: String,
    },
    /// The epoch files contradict the history or each other.
    Epoch {
        /// The file.
        path: PathBuf,
        /// What it says and why that cannot be.
        what: String,
    },
    /// Files are where they must not be.
    Layout {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// An earlier write or sync failed; nothing that was not synced before it can be trusted.
    Failed,
}

impl StorageError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, what: String) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            what,
        }
    }
}

/// What an operator can do about damage that the server must not repair by itself.
const RESYNC: &str = "in an ensemble, move this server's version-2 directories away and let it copy \
                      its leader's data; alone, restore a backup";

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                action,
                path,
                source,
            } => write!(f, "cannot {action} {}: {source}", path.display()),
            Self::Corrupt { path, offset, what } => {
                write!(f, "{} at offset {offset}: {what}; {RESYNC}", path.display())
            }
            Self::Gap {
                path,
                offset,
                found,
                last,
            } => write!(
                f,
                "{} at offset {offset}: txn {found} does not follow {last}, so txns between them \
                 are lost; {RESYNC}",
                path.display()
            ),
            Self::NoSnapshot { path, what } => write!(
                f,
                "{}: {what}; {RESYNC}. If the logs are known to begin with the first txn ever, \
                 start once with snapshot.trust.empty=true",
                path.display()
            ),
            Self::Epoch { path, what } | Self::Layout { path, what } => {
                write!(f, "{}: {what}", path.display())
            }
            Self::Failed => f.write_str("an earlier write to the txn log failed"),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
