//! Looking at a node from outside: four-letter words, a real session, and zkd's event feed.
//!
//! Nothing here remembers anything. What is told is what the node says now.

pub mod feed;
pub mod session;
pub mod words;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{HexZxid, Role};

/// What a server says of itself when asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its role; looking while it does not serve.
    pub role: Role,
    /// Its last processed zxid, unless it does not serve.
    pub zxid: Option<HexZxid>,
    /// Its epoch: what it says, or else that of its zxid.
    pub epoch: Option<i64>,
    /// Client connections, without the one that asked.
    pub connections: Option<u64>,
    /// The followers in sync with it, if it leads.
    pub synced_followers: Option<u64>,
    /// Digest of its tree, at the zxid of the digest.
    pub digest: Option<Digest>,
    /// Znodes in its tree.
    pub znodes: Option<u64>,
    /// Its version.
    pub version: Option<String>,
    /// 99th percentile of its log syncs, in milliseconds.
    pub fsync_p99_ms: Option<f64>,
}

/// A digest over a whole tree; to be compared only at equal zxids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The state it is of.
    pub zxid: HexZxid,
    /// The digest, in hexadecimal.
    pub value: String,
}

/// Asks the server at `address` for everything at once; `None` if it does not answer in time.
pub async fn ask(address: SocketAddr, patience: Duration) -> Option<Answer> {
    let monitor = words::ask(address, "mntr", patience).await.ok()?;
    // zkd's `mntr` says everything; Apache's leaves out the zxid.
    let server = if monitor.contains("zk_last_zxid") {
        String::new()
    } else {
        words::ask(address, "srvr", patience)
            .await
            .unwrap_or_default()
    };
    Some(words::answer(&monitor, &server))
}
