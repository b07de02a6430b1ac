//! Loopback addresses: node `i` of lab `N` is 127.0.N.i. It works everywhere and needs no rights, but
//! links cannot be cut or slowed.
//!
//! A lab number is claimed by binding an abstract Unix socket named after it: the kernel makes the
//! claim atomic, scopes it to the network namespace exactly like the addresses themselves, and gives it
//! up when the process dies, however it dies.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use tokio::process::{Child, Command};

use super::{CLIENT_PORT, ELECTION_PORT, NetKind, Network, QUORUM_PORT};
use crate::failure::Failure;
use crate::id::NodeId;

/// The addresses 127.0.N.1 and up.
#[derive(Debug)]
pub struct Loopback {
    /// `N`.
    number: u8,
    /// Holds the number while it lives.
    _claim: UnixListener,
}

impl Loopback {
    /// Claims the first lab number whose addresses are free for `nodes`.
    ///
    /// # Errors
    /// If there is none; names the first address that is taken.
    pub fn claim(nodes: &[NodeId]) -> Result<Self, Failure> {
        let mut obstacle = None;
        for number in 1..=254 {
            let Some(claim) = claim_number(number)? else {
                continue;
            };
            match taken(number, nodes) {
                None => {
                    return Ok(Self {
                        number,
                        _claim: claim,
                    });
                }
                Some(found) => obstacle = obstacle.or(Some(found)),
            }
        }
        Err(match obstacle {
            Some((address, error)) => Failure::environment(format!(
                "no loopback network is free: {address}: {error}"
            ))
            .hint(format!(
                "a server that listens on 0.0.0.0 takes port {} of every address; stop it, or run the lab in a network namespace of its own",
                address.port()
            )),
            None => Failure::environment("all 254 loopback networks are in use by labs")
                .hint("end some with `zklab down`, see `zklab ls`"),
        })
    }

    /// `N` of its addresses 127.0.N.i.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }
}

/// The claim on a number, or `None` if another lab has it.
fn claim_number(number: u8) -> Result<Option<UnixListener>, Failure> {
    let name = format!("zklab-net-127.0.{number}");
    let bound = UnixAddr::from_abstract_name(name).and_then(|a| UnixListener::bind_addr(&a));
    match bound {
        Ok(claim) => Ok(Some(claim)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(Failure::environment(format!(
            "cannot claim a loopback network: {error}"
        ))),
    }
}

/// The first address of these nodes that cannot be listened on.
fn taken(number: u8, nodes: &[NodeId]) -> Option<(SocketAddr, io::Error)> {
    nodes
        .iter()
        .flat_map(|node| {
            [CLIENT_PORT, QUORUM_PORT, ELECTION_PORT]
                .map(|port| SocketAddr::new(address(number, *node), port))
        })
        .find_map(|address| TcpListener::bind(address).err().map(|e| (address, e)))
}

fn address(number: u8, node: NodeId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, number, node.0))
}

impl Network for Loopback {
    fn kind(&self) -> NetKind {
        NetKind::Loopback
    }

    fn address(&self, node: NodeId) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, self.number, node.0)
    }

    fn client(&self, node: NodeId) -> SocketAddr {
        SocketAddr::new(address(self.number, node), CLIENT_PORT)
    }

    fn spawn(&self, _node: NodeId, mut command: Command) -> io::Result<Child> {
        command.spawn()
    }

    fn join(&self, node: NodeId) -> Result<(), Failure> {
        match taken(self.number, &[node]) {
            None => Ok(()),
            Some((address, error)) => Err(Failure::environment(format!(
                "{node} would be at {address}: {error}"
            ))
            .hint("end what listens there; nothing was touched")),
        }
    }

    fn leave(&self, _node: NodeId) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_joins_only_where_its_ports_are_free() {
        let net = Loopback::claim(&[NodeId(1)]).unwrap();
        net.join(NodeId(2)).unwrap();
        let _other = TcpListener::bind((net.address(NodeId(2)), ELECTION_PORT)).unwrap();
        let failure = net.join(NodeId(2)).unwrap_err();
        assert!(failure.cause.contains(":3888"), "{failure}");
    }

    #[test]
    fn two_labs_never_share_a_network() {
        let nodes = [NodeId(1), NodeId(2)];
        let one = Loopback::claim(&nodes).unwrap();
        let two = Loopback::claim(&nodes).unwrap();
        assert_ne!(one.address(NodeId(1)), two.address(NodeId(1)));
    }
}
