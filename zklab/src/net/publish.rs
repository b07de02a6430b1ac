//! The nodes on the machine's own loopback: what connects to 127.0.0.1:2181 is connected to n1's client
//! port inside its namespace, 2182 to n2's, and so on. An application under test needs no namespace.
//!
//! The connection inside begins and ends in the node's own namespace, so faults of links do not touch it. Every
//! node has a [`Gate`] instead: while it is shut nothing passes in either direction, not even an end.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::CLIENT_PORT;
use super::namespace::Keeper;
use crate::failure::{Context, Failure};

/// The distance between two tries.
const STEP: u16 = 100;
/// So many nodes at most, and all their ports fit.
const TRIES: u16 = 500;

/// What is read from one end before it is written to the other.
const BUFFER: usize = 32 << 10;

/// What becomes of the clients of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// They reach it.
    #[default]
    Open,
    /// Nothing passes, until it is open again.
    Shut,
    /// Their connections are reset; new ones wait until it is open again.
    Broken,
}

/// Listens for the nodes of a lab.
#[derive(Debug)]
pub(super) struct Publisher {
    base: u16,
    keeper: Arc<Keeper>,
    /// By place; one without a node has none.
    doors: Mutex<Vec<Option<Open>>>,
}

/// What listens for one node.
#[derive(Debug)]
struct Open {
    gate: watch::Sender<Gate>,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher {
    /// Listens on 127.0.0.1 at ports from `wanted` on, one for each address; without a wish at the first
    /// ports that are free.
    ///
    /// # Errors
    /// If a port that is wanted is taken; if there are none.
    pub(super) fn start(
        wanted: Option<u16>,
        addresses: &[Ipv4Addr],
        keeper: &Arc<Keeper>,
    ) -> Result<Self, Failure> {
        let (base, listeners) = claim(wanted, addresses.len())?;
        let mut doors = Vec::new();
        for (index, (listener, address)) in listeners.into_iter().zip(addresses).enumerate() {
            doors.push(Some(open(listener, index, *address, keeper)?));
        }
        Ok(Self {
            base,
            keeper: Arc::clone(keeper),
            doors: Mutex::new(doors),
        })
    }

    /// The port of one more node, at this place.
    ///
    /// # Errors
    /// If it is taken.
    pub(super) fn claim(&self, place: usize) -> Result<StdListener, Failure> {
        let address = self.address(place);
        StdListener::bind(address)
            .doing(|| format!("cannot publish one more node at {address}"))
            .map_err(|failure| {
                failure.hint("end what listens there; ports follow those of the other nodes")
            })
    }

    /// Listens for one more node, at this place.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn join(
        &self,
        place: usize,
        listener: StdListener,
        address: Ipv4Addr,
    ) -> Result<(), Failure> {
        let door = open(listener, place, address, &self.keeper)?;
        let mut doors = self.doors();
        if doors.len() <= place {
            doors.resize_with(place + 1, || None);
        }
        doors[place] = Some(door);
        Ok(())
    }

    /// Does not listen for this place any more.
    pub(super) fn leave(&self, place: usize) {
        if let Some(door) = self.doors().get_mut(place) {
            *door = None;
        }
    }

    /// Opens or shuts the gate of node number `index`.
    pub(super) fn set_gate(&self, index: usize, gate: Gate) {
        if let Some(Some(door)) = self.doors().get(index) {
            let change = |now: &mut Gate| std::mem::replace(now, gate) != gate;
            door.gate.send_if_modified(change);
        }
    }

    /// Where node number `index` is reached.
    pub(super) fn address(&self, index: usize) -> SocketAddr {
        let port = self.base + u16::try_from(index).expect("there are at most 250 nodes");
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
    }

    fn doors(&self) -> MutexGuard<'_, Vec<Option<Open>>> {
        self.doors
            .lock()
            .expect("nobody panics while holding the doors")
    }
}

/// Listens for the node at this place.
fn open(
    listener: StdListener,
    index: usize,
    address: Ipv4Addr,
    keeper: &Arc<Keeper>,
) -> Result<Open, Failure> {
    let cannot = || "cannot listen on a published port".to_owned();
    listener.set_nonblocking(true).doing(cannot)?;
    let listener = TcpListener::from_std(listener).doing(cannot)?;
    let gate = watch::Sender::new(Gate::Open);
    let way = Way {
        keeper: Arc::clone(keeper),
        index,
        inside: SocketAddr::V4(SocketAddrV4::new(address, CLIENT_PORT)),
        gate: gate.subscribe(),
    };
    let task = tokio::spawn(accept(listener, way));
    Ok(Open { gate, task })
}

/// The first port and a listener for each node.
fn claim(wanted: Option<u16>, count: usize) -> Result<(u16, Vec<StdListener>), Failure> {
    if let Some(base) = wanted {
        return listen(base, count)
            .map(|listeners| (base, listeners))
            .doing(|| format!("cannot publish {count} nodes at 127.0.0.1:{base} and up"))
            .map_err(|failure| {
                failure.hint("--publish takes another port, `zklab ls` shows labs")
            });
    }
    (0..TRIES)
        .filter_map(|round| CLIENT_PORT.checked_add(round * STEP))
        .find_map(|base| Some((base, listen(base, count).ok()?)))
        .ok_or_else(|| Failure::environment("no ports of 127.0.0.1 are free to publish the nodes"))
}

fn listen(base: u16, count: usize) -> io::Result<Vec<StdListener>> {
    (0..count)
        .map(|index| {
            let port = u16::try_from(index)
                .ok()
                .and_then(|index| base.checked_add(index))
                .ok_or(io::ErrorKind::AddrNotAvailable)?;
            StdListener::bind((Ipv4Addr::LOCALHOST, port))
        })
        .collect()
}

/// The way to a node.
#[derive(Clone)]
struct Way {
    keeper: Arc<Keeper>,
    index: usize,
    inside: SocketAddr,
    gate: watch::Receiver<Gate>,
}

async fn accept(listener: TcpListener, way: Way) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, most likely: some connection has to end first.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        tokio::spawn(carry(client, way.clone()));
    }
}

/// Carries one connection until both directions have ended.
async fn carry(mut client: TcpStream, way: Way) {
    let mut gate = way.gate;
    until_open(&mut gate).await;
    let connected = match socket_inside(&way.keeper, way.index) {
        Ok(socket) => socket.connect(way.inside).await,
        Err(error) => Err(error),
    };
    let Ok(mut server) = connected else {
        until_open(&mut gate).await;
        return reset(&client);
    };
    // Neither has an option set that could fail on a connected socket.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let is_good = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, gate.clone()),
                pump(from_server, to_client, gate.clone())
            )
        };
        let mut gate = gate.clone();
        tokio::select! {
            done = both => done.is_ok(),
            // If the network is gone, so are the connections.
            _ = gate.wait_for(|gate| *gate == Gate::Broken) => false,
        }
    };
    if !is_good {
        reset(&client);
        reset(&server);
    }
}

async fn until_open(gate: &mut watch::Receiver<Gate>) {
    // It fails when the network is gone, and then nothing passes any more.
    let _ = gate.wait_for(|gate| *gate == Gate::Open).await;
}

/// Carries one direction to its end, through the gate.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<Gate>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await;
        until_open(&mut gate).await;
        match read? {
            0 => return to.shutdown().await,
            count => to.write_all(&buffer[..count]).await?,
        }
    }
}

/// Its end shall look like a refusal, not like an orderly end.
fn reset(stream: &TcpStream) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // If it fails the peer sees an orderly end.
    let _ = setsockopt(stream, sockopt::Linger, &at_once);
}

fn socket_inside(keeper: &Keeper, index: usize) -> io::Result<TcpSocket> {
    let fd: OwnedFd = keeper.within(index, || {
        Ok(socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?)
    })?;
    Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(fd)))
}
