//! Where the nodes of a lab live: their addresses, and how a process is put there.
//!
//! Every node has an address of its own and listens on ZooKeeper's standard ports of it, so that labs
//! and nodes never collide over ports. [`Network`] is the border: what is above it knows addresses,
//! never how they came about.

pub mod capture;
mod checksum;
mod device;
mod emulated;
pub mod emulator;
mod flows;
mod forwarder;
pub mod link;
mod loopback;
pub mod matrix;
mod namespace;
pub mod pcapng;
mod publish;
mod rtnetlink;
mod system;
pub mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

pub use self::emulated::{Door, Emulated};
use self::emulator::Emulator;
pub use self::loopback::Loopback;
pub use self::namespace::{enter_user_namespace, is_in_own_user_namespace, needs_user_namespace};
pub use self::publish::Gate;
use crate::failure::{Failure, nearest};
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
    /// A namespace for each node, with a TUN device and emulated links.
    Tun,
    /// The same with veth pairs and packet sockets, which need no device file.
    Packet,
    /// A wish, and no network: the best that works here of tun, packet and loopback.
    Auto,
}

impl NetKind {
    /// It is made of namespaces.
    #[must_use]
    pub fn has_namespaces(self) -> bool {
        matches!(self, Self::Tun | Self::Packet)
    }

    /// The networks that fulfil this wish, the best first.
    #[must_use]
    pub fn choices(self) -> &'static [Self] {
        match self {
            Self::Auto => &[Self::Tun, Self::Packet, Self::Loopback],
            Self::Tun => &[Self::Tun],
            Self::Packet => &[Self::Packet],
            Self::Loopback => &[Self::Loopback],
        }
    }
}

impl FromStr for NetKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let all = [Self::Auto, Self::Tun, Self::Packet, Self::Loopback];
        let found = all.into_iter().find(|kind| kind.to_string() == word);
        found.ok_or_else(|| {
            let guess = nearest(word, ["auto", "tun", "packet", "loopback"])
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            format!("{word:?} is none of auto, tun, packet, loopback{guess}")
        })
    }
}

impl std::fmt::Display for NetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::Tun => f.write_str("tun"),
            Self::Packet => f.write_str("packet"),
            Self::Auto => f.write_str("auto"),
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

    /// Starts `command` in the network of `node`.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn spawn(&self, node: NodeId, command: Command) -> io::Result<Child>;

    /// The kernel ends every process of this network when the supervisor ends.
    fn ends_processes(&self) -> bool {
        false
    }

    /// The links between the nodes, if they can be made bad.
    fn links(&self) -> Option<&Emulator> {
        None
    }

    /// Makes room for one more node; its links are clean. Inside a runtime only.
    ///
    /// # Errors
    /// If there is none; then nothing has changed.
    fn join(&self, node: NodeId) -> Result<(), Failure>;

    /// Takes away what belongs to a node. Its processes must have ended.
    fn leave(&self, node: NodeId);

    /// What becomes of the clients that reach `node` from this machine, where the network carries them.
    fn set_gate(&self, _node: NodeId, _gate: Gate) {}

    /// The way into the namespaces of `node`, if it has some.
    fn door(&self, _node: NodeId) -> Option<Door> {
        None
    }
}
