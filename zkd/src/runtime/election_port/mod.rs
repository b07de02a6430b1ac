//! The election port: one TCP connection to every peer, and the newest notification on it.
//!
//! Laws kept here: of two servers the one with the larger id dials the connection that stays (the other
//! may dial to ask for that); a peer is dialled when there is something to send and no connection, at
//! most once at a time, its name resolved anew each time; a notification that was not sent yet is
//! replaced by the next; what was sent last is sent again on a new connection. A peer that falls silent has not got
//! what was sent last: it is dialled for that at once, and again and again while this server looks for a leader, because
//! the election repeats itself ever more seldom. Every notification handed
//! over without a connection is answered by [`ElectionEvent::Reachable`] or
//! [`ElectionEvent::Unreachable`], and a connection that closes is told at once. Garbage costs its sender
//! the connection and is logged once.
//!
//! Other than Apache, a connection that is replaced by a newer one is only closed once the newer one
//! stands, so that a peer never seems to be gone while it is being dialled back.
//!
//! Left to others: what notifications mean (`election`). Counterpart: `QuorumCnxManager`.

mod link;
mod opening;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{debug, error, info, warn};

use self::opening::Opening;
use super::net;
use crate::config::Config;
use crate::election::Notification;
use crate::event::ServerState;
use crate::ids::ServerId;

/// Events that wait for the election; beyond them connections are not read.
const EVENTS_MAX: usize = 256;
/// Connections that have not said who they are; beyond them a new one is closed.
const HANDSHAKES_MAX: usize = 64;
/// Servers outside the configuration that are connected or answered; beyond them a new one is closed.
const STRANGERS_MAX: usize = 256;
/// Pause between attempts to bind.
const BIND_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A peer that was asked to dial back and does not is asked once more after this time.
const DIAL_BACK_WAIT: Duration = Duration::from_millis(50);
/// Pause after a dial that nobody answered.
const SILENCE_PAUSE: Duration = Duration::from_millis(200);
/// A replaced connection is read until its peer closes it, for this long at most.
const RETIREMENT: Duration = Duration::from_secs(2);

/// How the port behaves.
#[derive(Clone, Debug)]
pub struct ElectionPortOptions {
    /// Time for a connect (`cnxTimeout`).
    pub connect_timeout: Duration,
    /// Time for a new connection to say who it is (`syncLimit` ticks).
    pub handshake_timeout: Duration,
    /// Bytes sent and not acknowledged for this long mean that the other host is gone.
    pub user_timeout: Duration,
    /// Attempts to bind, a second apart (`electionPortBindRetry`); 0 is for ever.
    pub bind_attempts: u32,
}

impl Default for ElectionPortOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(10),
            bind_attempts: 3,
        }
    }
}

/// What the port tells the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionEvent {
    /// A notification arrived.
    Notification {
        /// Its sender.
        from: ServerId,
        /// What it says.
        notification: Notification,
    },
    /// There is a connection to this server, or it accepted one that asks it to dial back.
    Reachable(ServerId),
    /// It cannot be connected to, or its connection closed.
    Unreachable(ServerId),
}

/// The election port cannot be opened; the server exits with code 14.
#[derive(Debug)]
pub struct BindError {
    /// What was to be bound.
    pub address: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address, attempts, ..
        } = self;
        write!(
            f,
            "cannot bind the election port {address} ({attempts} attempts): {}",
            self.source
        )
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The open port. Dropping it closes everything.
#[derive(Debug)]
pub struct ElectionPort {
    shared: Arc<Shared>,
    listeners: Vec<JoinHandle<()>>,
    local_addresses: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Shared {
    my_id: ServerId,
    /// The opening message of every connection dialled from here.
    opening: Vec<u8>,
    options: ElectionPortOptions,
    runtime: Handle,
    events: mpsc::Sender<ElectionEvent>,
    peers: Mutex<Peers>,
    /// Becomes true when the port is dropped.
    closing: watch::Sender<bool>,
    /// The next number for an observer without an id: -1, -2, …
    anonymous: AtomicI64,
}

#[derive(Debug, Default)]
struct Peers {
    by_id: BTreeMap<ServerId, Peer>,
    /// Number of the last connection.
    generation: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// Where the configuration says it is; empty for a stranger.
    addresses: Vec<(String, u16)>,
    /// The frame to send next; a newer one replaces it.
    next: Option<Bytes>,
    /// The frame sent last.
    last: Option<Bytes>,
    /// The newest frame says that this server looks for a leader.
    is_looking: bool,
    link: Option<Link>,
    /// A dial is under way; it wants to know when there is a link.
    dialling: Option<Arc<Notify>>,
}

/// A connection in use.
#[derive(Debug)]
struct Link {
    generation: u64,
    /// Something to send.
    wake: Arc<Notify>,
    /// Another connection has taken its place.
    retire: Arc<Notify>,
    task: AbortHandle,
}

impl ElectionPort {
    /// Opens the port that the configuration names.
    ///
    /// # Errors
    /// If it cannot be bound.
    pub async fn open(
        config: &Config,
        my_id: ServerId,
    ) -> Result<(Self, mpsc::Receiver<ElectionEvent>), BindError> {
        let addresses = |sid: &ServerId| -> Vec<(String, u16)> {
            let spec = config.servers.servers.get(sid);
            let all = spec.into_iter().flat_map(|spec| &spec.addresses);
            all.map(|address| (address.host.clone(), address.election_port))
                .collect()
        };
        let mine = addresses(&my_id);
        let listen: Vec<(String, u16)> = if config.quorum_listen_on_all_ips {
            let mut ports: Vec<u16> = mine.iter().map(|(_, port)| *port).collect();
            ports.sort_unstable();
            ports.dedup();
            ports
                .into_iter()
                .map(|port| ("0.0.0.0".to_owned(), port))
                .collect()
        } else {
            mine.clone()
        };
        let peers = config.servers.servers.keys();
        let peers = peers
            .filter(|&&sid| sid != my_id)
            .map(|&sid| (sid, addresses(&sid)))
            .collect();
        let patience = Duration::from_millis(config.sync_limit_ms());
        let options = ElectionPortOptions {
            connect_timeout: Duration::from_millis(config.cnx_timeout_ms),
            handshake_timeout: patience,
            user_timeout: patience,
            bind_attempts: config.election_port_bind_retry,
        };
        Self::start(my_id, &listen, peers, &mine, options).await
    }

    /// Binds `listen` and is ready to send to `peers`. `my_addresses` are what peers are told to dial
    /// back to: one is told in the form every version understands, several in the form of
    /// multi-address ensembles.
    ///
    /// # Errors
    /// If an address cannot be bound within the attempts of `options`.
    pub async fn start(
        my_id: ServerId,
        listen: &[(String, u16)],
        peers: Vec<(ServerId, Vec<(String, u16)>)>,
        my_addresses: &[(String, u16)],
        options: ElectionPortOptions,
    ) -> Result<(Self, mpsc::Receiver<ElectionEvent>), BindError> {
        let mut bound = Vec::new();
        for (host, port) in listen {
            bound.push(bind(host, *port, options.bind_attempts).await?);
        }
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let by_id = peers.into_iter().map(|(sid, addresses)| {
            let peer = Peer {
                addresses,
                ..Peer::default()
            };
            (sid, peer)
        });
        let shared = Arc::new(Shared {
            my_id,
            opening: Opening::encode(my_id, my_addresses),
            options,
            runtime: Handle::current(),
            events,
            peers: Mutex::new(Peers {
                by_id: by_id.collect(),
                ..Peers::default()
            }),
            closing: watch::Sender::new(false),
            anonymous: AtomicI64::new(-1),
        });
        let local_addresses = bound
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let listeners = bound
            .into_iter()
            .map(|listener| tokio::spawn(accept(Arc::clone(&shared), listener)))
            .collect();
        let port = Self {
            shared,
            listeners,
            local_addresses,
        };
        Ok((port, receiver))
    }

    /// Hands over a notification. It replaces one that is still waiting for its connection, and
    /// dials if there is none.
    pub fn send(&self, to: ServerId, notification: &Notification) {
        if to == self.shared.my_id {
            return;
        }
        let payload = notification.encode();
        let length = i32::try_from(payload.len()).expect("a notification is far below 2 GiB");
        let mut frame = Vec::with_capacity(4 + payload.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&payload);

        let mut peers = self.shared.peers.lock();
        let peer = peers.by_id.entry(to).or_default();
        peer.next = Some(frame.into());
        peer.is_looking = notification.state == ServerState::Looking;
        match &peer.link {
            Some(link) => link.wake.notify_one(),
            None => Shared::dial_once(&self.shared, to, peer, Vec::new()),
        }
    }

    /// Where the port listens.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local_addresses
    }

    /// Tells where a server is from now on.
    pub fn set_addresses(&self, sid: ServerId, addresses: Vec<(String, u16)>) {
        let mut peers = self.shared.peers.lock();
        peers.by_id.entry(sid).or_default().addresses = addresses;
    }
}

impl Drop for ElectionPort {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
        self.shared.closing.send_replace(true);
    }
}

impl Shared {
    async fn tell(&self, event: ElectionEvent) {
        // Nobody listens any more only while the server goes down.
        let _ = self.events.send(event).await;
    }

    /// Starts a dial unless one is under way. `told` are addresses from the peer itself, tried first.
    fn dial_once(shared: &Arc<Self>, sid: ServerId, peer: &mut Peer, told: Vec<(String, u16)>) {
        if peer.dialling.is_some() {
            return;
        }
        let linked = Arc::new(Notify::new());
        peer.dialling = Some(Arc::clone(&linked));
        let mut addresses = told;
        for address in &peer.addresses {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        shared
            .runtime
            .spawn(dial(Arc::clone(shared), sid, addresses, linked));
    }

    /// Takes a connection into use, in place of an older one. The side that dialled it leaves the
    /// older one open until its peer, which closes it, has the new one.
    fn adopt(shared: &Arc<Self>, sid: ServerId, stream: TcpStream, dialled: bool) -> bool {
        let mut peers = shared.peers.lock();
        if !peers.by_id.contains_key(&sid) && peers.strangers() >= STRANGERS_MAX {
            return false;
        }
        peers.generation += 1;
        let generation = peers.generation;
        let peer = peers.by_id.entry(sid).or_default();
        if peer.next.is_none() {
            peer.next = peer.last.clone();
        }
        if let Some(linked) = &peer.dialling {
            linked.notify_one();
        }
        let wake = Arc::new(Notify::new());
        let retire = Arc::new(Notify::new());
        let ends = link::Ends {
            sid,
            generation,
            wake: Arc::clone(&wake),
            retire: Arc::clone(&retire),
        };
        let task = shared
            .runtime
            .spawn(link::run(Arc::clone(shared), ends, stream))
            .abort_handle();
        let link = Link {
            generation,
            wake,
            retire,
            task,
        };
        if let Some(old) = peer.link.replace(link) {
            if dialled {
                old.retire.notify_one();
            } else {
                old.task.abort();
            }
        }
        true
    }

    /// The next frame for the connection of this generation, if it is still the one in use.
    fn take_frame(&self, sid: ServerId, generation: u64) -> Option<Bytes> {
        let mut peers = self.peers.lock();
        let peer = peers.by_id.get_mut(&sid)?;
        peer.link
            .as_ref()
            .filter(|link| link.generation == generation)?;
        let frame = peer.next.take()?;
        peer.last = Some(frame.clone());
        Some(frame)
    }

    /// A connection has ended: whether it was the one in use.
    fn forget(&self, sid: ServerId, generation: u64) -> bool {
        let mut peers = self.peers.lock();
        let Some(peer) = peers.by_id.get_mut(&sid) else {
            return false;
        };
        let in_use = peer
            .link
            .as_ref()
            .is_some_and(|link| link.generation == generation);
        if in_use {
            peer.link = None;
            if peer.addresses.is_empty() && peer.dialling.is_none() {
                peers.by_id.remove(&sid);
            }
        }
        in_use
    }

    /// A dial has come to its end: whether the peer has a connection all the same.
    fn dialled(&self, sid: ServerId) -> bool {
        let mut peers = self.peers.lock();
        let Some(peer) = peers.by_id.get_mut(&sid) else {
            return false;
        };
        peer.dialling = None;
        let linked = peer.link.is_some();
        if !linked && peer.addresses.is_empty() {
            peers.by_id.remove(&sid);
        }
        linked
    }

    /// A peer has fallen silent: what it was sent last is still to be sent.
    fn on_silence(shared: &Arc<Self>, sid: ServerId) {
        let mut peers = shared.peers.lock();
        let Some(peer) = peers.by_id.get_mut(&sid) else {
            return;
        };
        if peer.next.is_none() {
            peer.next = peer.last.clone();
        }
        if peer.link.is_none() && peer.next.is_some() && !*shared.closing.borrow() {
            Self::dial_once(shared, sid, peer, Vec::new());
        }
    }

    /// Nobody has answered: while this server looks for a leader, it goes on dialling.
    async fn dial_on(shared: &Arc<Self>, sid: ServerId) {
        let is_looking = || {
            let peers = shared.peers.lock();
            let peer = peers.by_id.get(&sid);
            peer.is_some_and(|peer| peer.is_looking && peer.next.is_some())
        };
        if is_looking() {
            tokio::time::sleep(SILENCE_PAUSE).await;
            if is_looking() {
                Self::on_silence(shared, sid);
            }
        }
    }

    fn has_link(&self, sid: ServerId) -> bool {
        let peers = self.peers.lock();
        peers
            .by_id
            .get(&sid)
            .is_some_and(|peer| peer.link.is_some())
    }

    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        net::tune(stream, self.options.user_timeout)
    }
}

impl Peers {
    fn strangers(&self) -> usize {
        let peers = self.by_id.values();
        peers.filter(|peer| peer.addresses.is_empty()).count()
    }
}

async fn bind(host: &str, port: u16, attempts_max: u32) -> Result<TcpListener, BindError> {
    let mut attempts = 0;
    loop {
        match TcpListener::bind((host, port)).await {
            Ok(listener) => return Ok(listener),
            Err(source) => {
                attempts += 1;
                let address = format!("{host}:{port}");
                if attempts == attempts_max {
                    return Err(BindError {
                        address,
                        attempts,
                        source,
                    });
                }
                warn!(%address, attempts, error = %source, "cannot bind the election port yet");
            }
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "the election port cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            warn!(%from, "closed: too many election connections have not said who they are");
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            receive(&shared, stream, from).await;
            drop(permit);
        });
    }
}

/// Reads who dials, and decides which of the two sides' connections is to stay.
async fn receive(shared: &Arc<Shared>, mut stream: TcpStream, from: SocketAddr) {
    let reading = Opening::read(&mut stream);
    let opening = match tokio::time::timeout(shared.options.handshake_timeout, reading).await {
        Ok(Ok(Some(opening))) => opening,
        Ok(Ok(None)) => return,
        Ok(Err(reason)) => {
            warn!(%from, %reason, "election connection closed");
            return;
        }
        Err(_) => {
            warn!(%from, "election connection closed: it did not say who it is in time");
            return;
        }
    };
    let sid = match opening.sid {
        opening::ANONYMOUS => ServerId(shared.anonymous.fetch_sub(1, Ordering::Relaxed)),
        sid => sid,
    };
    if sid == shared.my_id {
        error!(
            %from,
            "election connection closed: another server says it is server {sid}, as this one; check myid"
        );
    } else if sid < shared.my_id {
        drop(stream);
        debug!(%sid, %from, "a smaller id asks to be dialled");
        let mut peers = shared.peers.lock();
        let known = peers.by_id.contains_key(&sid);
        if !known && peers.strangers() >= STRANGERS_MAX {
            return;
        }
        let peer = peers.by_id.entry(sid).or_default();
        Shared::dial_once(shared, sid, peer, opening.addresses);
    } else if let Err(error) = shared.tune(&stream) {
        debug!(%sid, %error, "the connection is gone already");
    } else {
        info!(%sid, %from, "election connection");
        if Shared::adopt(shared, sid, stream, false) {
            shared.tell(ElectionEvent::Reachable(sid)).await;
        }
    }
}

/// Dials a peer, and tells what came of it.
async fn dial(
    shared: Arc<Shared>,
    sid: ServerId,
    addresses: Vec<(String, u16)>,
    linked: Arc<Notify>,
) {
    let mut outcome = ask(&shared, sid, &addresses).await;
    if outcome.is_ok()
        && tokio::time::timeout(DIAL_BACK_WAIT, linked.notified())
            .await
            .is_err()
    {
        // It has read that it is to dial back, and did not: it may have died in between.
        outcome = ask(&shared, sid, &addresses).await;
    }
    let linked = shared.dialled(sid);
    if let Err(error) = outcome
        && !linked
    {
        debug!(%sid, ?addresses, %error, "cannot connect to the election port");
        shared.tell(ElectionEvent::Unreachable(sid)).await;
        if is_silence(&error) {
            Shared::dial_on(&shared, sid).await;
        }
    }
}

/// Does the error mean that nobody answers? Then nobody has said that there is nobody either.
fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// Connects to the first of the addresses that answers, and makes that a link or asks for one.
async fn ask(shared: &Arc<Shared>, sid: ServerId, addresses: &[(String, u16)]) -> io::Result<()> {
    let mut failure = io::Error::other("no address of it is known");
    for address in addresses {
        let limit = shared.options.connect_timeout;
        // A name is resolved here, anew each time: peers move.
        let connecting = net::connect_any(std::slice::from_ref(address));
        match tokio::time::timeout(limit, connecting).await {
            Ok(Ok((stream, _))) => {
                let asked = open(shared, sid, stream).await?;
                shared.tell(ElectionEvent::Reachable(sid)).await;
                return match asked {
                    Some(asked) => answered(shared, asked).await,
                    None => Ok(()),
                };
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

/// Says who dials; keeps the connection if it is this side's to keep, or returns it if the peer was
/// asked to dial back.
async fn open(
    shared: &Arc<Shared>,
    sid: ServerId,
    mut stream: TcpStream,
) -> io::Result<Option<TcpStream>> {
    shared.tune(&stream)?;
    if sid > shared.my_id {
        // If the peer has dialled in the meantime there is nothing to ask it for.
        if shared.has_link(sid) {
            return Ok(None);
        }
        opening::write(&mut stream, &shared.opening).await?;
        return Ok(Some(stream));
    }
    opening::write(&mut stream, &shared.opening).await?;
    if Shared::adopt(shared, sid, stream, true) {
        Ok(None)
    } else {
        Err(io::Error::other("too many strangers"))
    }
}

/// Waits for the peer to close the connection on which it was asked to dial back, as it does when it
/// has read that. If the connection breaks instead, the peer died before: its system had accepted
/// in its place.
async fn answered(shared: &Shared, mut asked: TcpStream) -> io::Result<()> {
    let mut nothing = [0];
    let closing = asked.read(&mut nothing);
    match tokio::time::timeout(shared.options.handshake_timeout, closing).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
