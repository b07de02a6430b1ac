//! What is asked of disks and clocks: faults that stay on their nodes until they are taken out, or for a time.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::Flip;
use crate::ensemble::Ensemble;
use crate::failure::Failure;
use crate::id::NodeId;

/// What is wrong with the disks of nodes from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskRequest {
    /// Which, as typed.
    pub nodes: Vec<String>,
    /// Each takes this much longer.
    #[serde(default)]
    pub slow_fsync_ms: u64,
    /// Every so many fails with EIO; 0 is none.
    #[serde(default)]
    pub fail_every: u64,
    /// Nothing more can be written.
    #[serde(default)]
    pub full: bool,
    /// A bit of this file is turned over. The node has to be down, and it is over at once.
    #[serde(default)]
    pub bitflip: Option<Flip>,
    /// Undo it after this time.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

/// What the wall clocks of nodes show from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockRequest {
    /// Which, as typed.
    pub nodes: Vec<String>,
    /// So much later than it is, in microseconds; earlier if negative.
    #[serde(default)]
    pub jump_us: i64,
    /// So many times as fast as time from now on; 0 is standing still.
    #[serde(default = "as_fast_as_time")]
    pub rate: f64,
    /// What it is, and nothing else.
    #[serde(default)]
    pub reset: bool,
    /// Undo it after this time.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

fn as_fast_as_time() -> f64 {
    1.0
}

/// Takes these faults out after a time, with what makes their nodes good again; those that were taken out or replaced
/// before stay as they are.
pub(super) fn undo_later(
    lab: &Arc<Ensemble>,
    after_ms: Option<u64>,
    faults: Vec<(NodeId, String)>,
    clear: fn(&Ensemble, NodeId) -> Result<(), Failure>,
) {
    let Some(after_ms) = after_ms else { return };
    let lab = Arc::clone(lab);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        for (id, name) in faults {
            if lab.standing().iter().any(|fault| fault.id == name)
                && let Err(failure) = clear(&lab, id)
            {
                tracing::error!(%id, %failure, fault = name, "is not taken out");
            }
        }
    });
}
