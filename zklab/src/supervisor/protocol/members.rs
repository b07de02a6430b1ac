//! `add` and `rm`: nodes that come and go.

use serde::{Deserialize, Serialize};

use zkd::event::SyncMode;

use super::Act;
use crate::event::Role;
use crate::failure::Exit;
use crate::id::NodeId;
use crate::node::{Membership, ServerKind};

/// A node that shall come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddRequest {
    /// Has it a vote?
    pub membership: Membership,
    /// What it runs; nothing is what the first node runs.
    #[serde(default)]
    pub server: Option<ServerKind>,
    /// How long it may take until it serves.
    pub timeout_ms: u64,
}

/// How a learner was synchronized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Synced {
    /// `DIFF`, `TRUNC` or `SNAP`.
    pub mode: SyncMode,
    /// Txns it was sent.
    pub txns: u64,
    /// Bytes of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How long it took.
    pub ms: f64,
}

/// A node came or went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `add` or `rm`.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// The node.
    pub id: NodeId,
    /// Has (or had) it a vote?
    pub membership: Membership,
    /// `add`: where the other nodes reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// `add`: where clients of this machine reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `add`: its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its role: `add`, the one it serves in; `rm`, the one it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// `add`: how it was synchronized, where that was read off the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<Synced>,
    /// `add`: from its start until it served; `rm`: until it was gone.
    pub ms: f64,
    /// The others, in the order in which they were started again; none where that was not needed.
    pub restarted: Vec<Act>,
    /// The longest time without an acknowledged write, where others were started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_paused_ms: Option<f64>,
    /// The voters there are now.
    pub voters: usize,
    /// Voters needed for a quorum now.
    pub need: usize,
    /// How the command ends.
    pub exit: Exit,
}
