//! A network of its own for every node: 10.77.0.N in a namespace, and links that can be made bad.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::emulator::Emulator;
use super::namespace::Keeper;
use super::publish::Publisher;
use super::{Gate, NetKind, Network};
use crate::failure::Failure;
use crate::id::NodeId;

/// The way into a node's namespaces: paths that a process of the same user can open while the lab is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The user namespace that owns the others; none if the lab was made by root.
    pub user: Option<PathBuf>,
    /// The node's network.
    pub net: PathBuf,
    /// The processes of the lab; whoever enters dies with it.
    pub pid: PathBuf,
}

/// Nodes in namespaces, joined by an emulator.
#[derive(Debug)]
pub struct Emulated {
    kind: NetKind,
    nodes: Vec<NodeId>,
    publisher: Option<Publisher>,
    emulator: Emulator,
    keeper: Arc<Keeper>,
    runtime: Option<Handle>,
}

impl Emulated {
    /// Makes the namespaces and clean links between them; nothing is published yet.
    ///
    /// # Errors
    /// If this machine does not let us; says what would.
    ///
    /// # Panics
    /// If `kind` has no namespaces, or the nodes are not n1, n2 and so on.
    pub fn create(kind: NetKind, nodes: &[NodeId], seed: u64) -> Result<Self, Failure> {
        assert!(kind.has_namespaces(), "{kind} is made elsewhere");
        let is_in_place = |(place, node): (usize, &NodeId)| node.place() == place;
        assert!(
            nodes.iter().enumerate().all(is_in_place),
            "a lab begins with n1, n2, …"
        );
        let addresses: Vec<Ipv4Addr> = nodes.iter().map(|node| address(*node)).collect();
        let (keeper, devices) = Keeper::start(kind, addresses.clone())?;
        Ok(Self {
            kind,
            nodes: nodes.to_vec(),
            publisher: None,
            emulator: Emulator::start(devices, &addresses, seed)?,
            keeper: Arc::new(keeper),
            runtime: Handle::try_current().ok(),
        })
    }

    /// Makes the nodes reachable on 127.0.0.1, from this port on or wherever ports are free. Inside a
    /// runtime only.
    ///
    /// # Errors
    /// If a port is taken.
    pub fn publish(&mut self, wanted: Option<u16>) -> Result<(), Failure> {
        let addresses: Vec<Ipv4Addr> = self.nodes.iter().map(|node| address(*node)).collect();
        self.publisher = Some(Publisher::start(wanted, &addresses, &self.keeper)?);
        Ok(())
    }

    /// A socket in the network of `node`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn socket(&self, node: NodeId, kind: SockType) -> io::Result<OwnedFd> {
        self.keeper.within(node.place(), move || {
            let flags = SockFlag::SOCK_CLOEXEC;
            Ok(socket(AddressFamily::Inet, kind, flags, None)?)
        })
    }
}

fn address(node: NodeId) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, node.0)
}

impl Network for Emulated {
    fn kind(&self) -> NetKind {
        self.kind
    }

    fn address(&self, node: NodeId) -> Ipv4Addr {
        address(node)
    }

    fn client(&self, node: NodeId) -> SocketAddr {
        match &self.publisher {
            Some(publisher) => publisher.address(node.place()),
            None => SocketAddr::from((address(node), super::CLIENT_PORT)),
        }
    }

    fn spawn(&self, node: NodeId, mut command: Command) -> io::Result<Child> {
        let runtime = self
            .runtime
            .clone()
            .ok_or_else(|| io::Error::other("processes are started inside a runtime only"))?;
        self.keeper.within(node.place(), move || {
            let _inside = runtime.enter();
            command.spawn()
        })
    }

    fn ends_processes(&self) -> bool {
        true
    }

    fn links(&self) -> Option<&Emulator> {
        Some(&self.emulator)
    }

    fn join(&self, node: NodeId) -> Result<(), Failure> {
        let (place, address) = (node.place(), address(node));
        // What may be refused comes first.
        let publisher = self.publisher.as_ref();
        let listener = publisher.map(|known| known.claim(place)).transpose()?;
        let device = self.keeper.join(place, address)?;
        if let (Some(publisher), Some(listener)) = (publisher, listener)
            && let Err(failure) = publisher.join(place, listener, address)
        {
            self.keeper.leave(place);
            return Err(failure);
        }
        // The node's server starts later than that is in force.
        drop(self.emulator.join(place, device, address));
        Ok(())
    }

    fn leave(&self, node: NodeId) {
        if let Some(publisher) = &self.publisher {
            publisher.leave(node.place());
        }
        drop(self.emulator.leave(node.place()));
        self.keeper.leave(node.place());
    }

    fn set_gate(&self, node: NodeId, gate: Gate) {
        if let Some(publisher) = &self.publisher {
            publisher.set_gate(node.place(), gate);
        }
    }

    fn door(&self, node: NodeId) -> Option<Door> {
        let me = std::process::id();
        let space = self.keeper.space(node.place())?;
        let first = self.keeper.first_process();
        // Whoever made the namespaces with rights of its own is in no user namespace of the lab's.
        let is_rootless = super::is_in_own_user_namespace();
        Some(Door {
            user: is_rootless.then(|| format!("/proc/{me}/ns/user").into()),
            net: format!("/proc/{me}/fd/{space}").into(),
            pid: format!("/proc/{first}/ns/pid").into(),
        })
    }
}
