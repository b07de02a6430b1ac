//! One node: what it runs, how it is configured, and its process.

pub mod config;
pub mod kind;
pub mod process;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::kind::{SERVER_JVMFLAGS, ServerKind};
pub use crate::id::Membership;
use crate::id::NodeId;

/// A node as the lab was asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name.
    pub id: NodeId,
    /// Has it a vote?
    pub membership: Membership,
    /// What it runs.
    pub server: ServerKind,
    /// Everything it has on disk: `zoo.cfg`, `server.log`, `data/`.
    pub dir: PathBuf,
}

impl NodeSpec {
    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("zoo.cfg")
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What it writes to stdout and stderr.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Whether it has a vote.
    #[must_use]
    pub fn votes(&self) -> bool {
        self.membership == Membership::Voter
    }
}

/// The last `count` lines of a file, for a message; empty if it cannot be read.
#[must_use]
pub fn tail(file: &Path, count: usize) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
