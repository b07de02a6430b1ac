//! Where the nodes of a lab live: their addresses, and how a process is put there.
//!
//! Every node has an address of its own and listens on ZooKeeper's standard ports of it, so that labs
//! and nodes never collide over ports. [`Network`] is the border: what is above it knows addresses,
//! never how they came about.

mod loopback;

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

pub use self::loopback::Loopback;
use crate::id::NodeId;

/// Where clients connect.
pub const CLIENT_PORT: u16 = 2181;
/// Where learners connect to their leader.
pub const QUORUM_PORT: u16 = 2888;
/// Where votes go.
pub const ELECTION_PORT: u16 = 3888;

/// A way to give nodes a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetKind {
    /// Addresses 127.0.N.i of the machine's own loopback interface.
    Loopback,
}

impl std::fmt::Display for NetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
        }
    }
}

/// The network of one lab. It lasts as long as the value and leaves nothing behind.
pub trait Network: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> NetKind;

    /// The address under which the other nodes reach `node`.
    fn address(&self, node: NodeId) -> Ipv4Addr;

    /// The address under which a client on this machine reaches `node`.
    fn client(&self, node: NodeId) -> SocketAddr;

    /// Arranges that `command` runs in the network of `node`.
    fn place(&self, node: NodeId, command: &mut Command);
}
