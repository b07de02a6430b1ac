//! What all connections of a server share, and how committed txns reach them.
//!
//! Law kept here: [`ZkServer::apply`] is the only way into the tree while clients are served. It holds the
//! tree's write side for the whole batch: txn by txn first the tree, then the events, then the answer and
//! the reads that waited for it. Counterpart: `ZooKeeperServer`, `FinalRequestProcessor`,
//! `ServerCnxnFactory`.

mod batch;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use batch::Batch;

use super::connection::{Fault, Flow, ServerCnxn};
use super::lane::Phase;
use super::load::Load;
use super::stats::{ConnectionStats, Latency, ServerStats};
use super::{Delivery, Origin, Request, ServerOptions, Submit, Waker};
use crate::auth;
use crate::event::ServerState;
use crate::ids::{ConnId, SessionId, Xid};
use crate::metrics::Metrics;
use crate::record::opcode::OpCode;
use crate::record::proto::ConnectRequest;
use crate::session::{TouchTable, session_id_start};
use crate::time::{Instant, Now};
use crate::tree::DataTree;
use crate::watch::WatchManager;

/// Why a connection is not accepted: it is closed without a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its address has `maxClientCnxns` connections.
    PerAddress(u32),
    /// The server has `maxCnxns` connections.
    Total(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerAddress(max) => write!(f, "the address has {max} connections already"),
            Self::Total(max) => write!(f, "the server has {max} connections already"),
        }
    }
}

/// Whether and how clients are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Stopped,
    Serving,
    ReadOnly,
}

/// What one call counted, added to the server's statistics at its end.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) latency: Latency,
    /// Reads answered in place.
    pub(super) reads: u64,
    /// How long each read took that had to wait.
    pub(super) waited_reads_ms: Vec<u64>,
    /// How long each write and sync took.
    pub(super) writes_ms: Vec<u64>,
}

/// All connections.
#[derive(Default)]
struct Registry {
    by_id: BTreeMap<ConnId, Arc<ServerCnxn>>,
    by_session: HashMap<SessionId, Arc<ServerCnxn>>,
    by_address: HashMap<IpAddr, u32>,
}

/// The part of a server that serves clients, shared by all connections and the core.
pub struct ZkServer {
    options: ServerOptions,
    tree: RwLock<DataTree>,
    watches: Mutex<WatchManager>,
    registry: Mutex<Registry>,
    touches: TouchTable,
    stats: Mutex<ServerStats>,
    metrics: Arc<Metrics>,
    /// What waits in all lanes.
    load: Load,
    next_session: AtomicI64,
    mode: AtomicU8,
    state: Mutex<ServerState>,
    /// `None` standalone.
    members: Mutex<Option<Members>>,
}

/// What `/zookeeper/config` shows of an ensemble.
struct Members {
    text: String,
    version: i64,
    wall_ms: i64,
}

impl Members {
    fn show(&self, tree: &mut DataTree) {
        tree.set_config_node(self.text.as_bytes(), self.version, self.wall_ms);
    }
}

impl fmt::Debug for ZkServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkServer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl ZkServer {
    /// A server with an empty tree that serves nobody yet. `start` makes its session ids differ from
    /// those of its earlier lives: wall-clock ms will do.
    #[must_use]
    pub fn new(options: ServerOptions, start: Instant) -> Self {
        let first = session_id_start(options.server_id, start);
        Self {
            options,
            tree: RwLock::new(DataTree::new()),
            watches: Mutex::default(),
            registry: Mutex::default(),
            touches: TouchTable::default(),
            stats: Mutex::default(),
            metrics: Arc::default(),
            load: Load::default(),
            next_session: AtomicI64::new(first.0),
            mode: AtomicU8::new(Mode::Stopped as u8),
            state: Mutex::new(ServerState::Looking),
            members: Mutex::default(),
        }
    }

    /// Counts into `metrics` from now on, which others count into as well.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What the operator configured.
    #[must_use]
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The tree. Only [`Self::apply`] may change it while clients are served.
    #[must_use]
    pub fn tree(&self) -> &RwLock<DataTree> {
        &self.tree
    }

    /// The watches of all connections; a leaf of the lock order.
    #[must_use]
    pub fn watches(&self) -> &Mutex<WatchManager> {
        &self.watches
    }

    /// Who gave a sign of life.
    #[must_use]
    pub fn touches(&self) -> &TouchTable {
        &self.touches
    }

    /// Another tree, at start or after a SNAP or TRUNC. Nobody is served meanwhile.
    pub fn replace_tree(&self, mut tree: DataTree) {
        if let Some(members) = &*self.members.lock() {
            members.show(&mut tree);
        }
        *self.tree.write() = tree;
    }

    /// Shows the members of the ensemble in `/zookeeper/config`, in this tree and in every one that
    /// replaces it: what stands there is the server's own configuration, not what another server or an
    /// older start left in the database. `text` is the canonical one of `version`; `wall_ms` becomes
    /// the znode's mtime.
    pub fn show_members(&self, text: String, version: i64, wall_ms: i64) {
        let members = Members {
            text,
            version,
            wall_ms,
        };
        members.show(&mut self.tree.write());
        *self.members.lock() = Some(members);
    }

    /// Serves clients from now on, as `state`.
    pub fn start_serving(&self, state: ServerState) {
        *self.state.lock() = state;
        self.set_mode(Mode::Serving);
    }

    /// Serves reads only, to clients that are content with that: there is no quorum. Sessions are local
    /// to this server and end with their connection.
    pub fn start_serving_read_only(&self) {
        self.set_mode(Mode::ReadOnly);
    }

    /// Closes every connection. Requests that are on their way are never answered.
    pub fn stop_serving(&self, state: ServerState) {
        *self.state.lock() = state;
        self.set_mode(Mode::Stopped);
        let mut registry = self.registry.lock();
        registry.by_session.clear();
        for cnxn in registry.by_id.values() {
            cnxn.shut(self);
            cnxn.wake();
        }
    }

    /// Whether clients are served, if only with reads.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.mode() != Mode::Stopped
    }

    /// Whether every txn in the tree is committed, as it is while clients are served. After a start the
    /// tree also has what the log has, and the leader that is found may cut some of that off; so long no
    /// snapshot may be taken but the one that a synchronization ends with, or the txns would come back.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.mode() == Mode::Serving
    }

    /// Whether only reads are served.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.mode() == Mode::ReadOnly
    }

    /// What the server is at the moment.
    #[must_use]
    pub fn state(&self) -> ServerState {
        *self.state.lock()
    }

    /// A session id nobody had before.
    pub fn allocate_session(&self) -> SessionId {
        loop {
            let id = self.next_session.fetch_add(1, Ordering::Relaxed);
            if id != i64::MIN && id != 0 {
                return SessionId(id);
            }
        }
    }

    /// A client has connected.
    ///
    /// # Errors
    /// If there are too many connections; the driver closes the socket.
    pub fn open(
        &self,
        conn: ConnId,
        peer: IpAddr,
        waker: Arc<dyn Waker>,
        now: Instant,
    ) -> Result<Arc<ServerCnxn>, Refusal> {
        let peer = peer.to_canonical();
        let mut registry = self.registry.lock();
        let (max, max_per_address) = (self.options.max_cnxns, self.options.max_client_cnxns);
        if max != 0 && registry.by_id.len() >= max as usize {
            self.metrics.connection_rejected.increment();
            return Err(Refusal::Total(max));
        }
        let from_there = registry.by_address.entry(peer).or_default();
        if max_per_address != 0 && *from_there >= max_per_address {
            self.metrics.connection_rejected.increment();
            return Err(Refusal::PerAddress(max_per_address));
        }
        *from_there += 1;
        let cnxn = Arc::new(ServerCnxn::new(conn, peer, waker, now));
        registry.by_id.insert(conn, Arc::clone(&cnxn));
        Ok(cnxn)
    }

    /// The connection is gone. Its watches go with it, its session does not.
    pub fn close(&self, conn: ConnId) {
        let mut registry = self.registry.lock();
        let Some(cnxn) = registry.by_id.remove(&conn) else {
            return;
        };
        registry.forget_session(&cnxn);
        let from_there = registry.by_address.get_mut(&cnxn.peer());
        match from_there {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                registry.by_address.remove(&cnxn.peer());
            }
        }
        drop(registry);
        cnxn.shut(self);
        self.watches.lock().remove_watcher(conn);
    }

    /// Closes connections that should have a session by now, and those of a read-only server that fell
    /// silent. Call it about once a second.
    pub fn sweep(&self, now: Instant) {
        let registry = self.registry.lock();
        for cnxn in registry.by_id.values() {
            let mut lane = cnxn.lane().lock();
            let stale = match lane.phase {
                Phase::Fresh => {
                    now.ms_since(cnxn.established()) >= self.options.sessionless_timeout_ms
                }
                Phase::Serving => {
                    lane.read_only
                        && now.ms_since(cnxn.touch().last()) >= timeout_ms(lane.timeout_ms)
                }
                Phase::Waiting { .. } | Phase::Over => false,
            };
            if stale {
                if lane.phase == Phase::Fresh {
                    self.metrics.sessionless_connections_expired.increment();
                }
                let before = lane.load();
                lane.shut();
                self.load.change(before, lane.load());
                drop(lane);
                cnxn.wake();
            }
        }
    }

    /// Closes the connection of a session, if it is here (the `kill` of an operator).
    pub fn close_session_connection(&self, session: SessionId) {
        let cnxn = self.registry.lock().by_session.remove(&session);
        self.replaced(cnxn);
    }

    /// A connection that has its session no more ends.
    fn replaced(&self, cnxn: Option<Arc<ServerCnxn>>) {
        if let Some(cnxn) = cnxn {
            cnxn.shut(self);
            cnxn.wake();
        }
    }

    /// Takes deliveries into the tree, in order, and tells the clients.
    pub fn apply(&self, deliveries: &[Delivery], now: Now) {
        let mut tree = self.tree.write();
        let mut batch = Batch::new(self, now.instant);
        for delivery in deliveries {
            match delivery {
                Delivery::Txn(record) => batch.txn(&mut tree, record),
                Delivery::SyncDone { session, cxid } => batch.sync_done(&tree, *session, *cxid),
                Delivery::Revalidated { session, valid } => batch.revalidated(*session, *valid),
            }
        }
        let (woken, tally) = batch.finish();
        drop(tree);
        self.count(&tally);
        for cnxn in woken {
            cnxn.wake();
        }
    }

    /// Counts of the whole server.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let connections = self.registry.lock().by_id.len() as u64;
        ServerStats {
            outstanding: self.load.outstanding() as u64,
            connections,
            ..*self.stats.lock()
        }
    }

    /// Starts counting anew (`srst`).
    pub fn reset_stats(&self) {
        *self.stats.lock() = ServerStats::default();
    }

    /// Starts counting anew for every connection (`crst`).
    pub fn reset_connection_stats(&self) {
        for cnxn in self.registry.lock().by_id.values() {
            cnxn.reset_stats();
        }
    }

    /// Every connection, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionStats> {
        let registry = self.registry.lock();
        registry.by_id.values().map(|cnxn| cnxn.stats()).collect()
    }

    /// What waits in all lanes.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    pub(super) fn count(&self, tally: &Tally) {
        if tally.received == 0 && tally.sent == 0 {
            return;
        }
        let mut stats = self.stats.lock();
        stats.packets_received += tally.received;
        stats.packets_sent += tally.sent;
        stats.latency.merge(&tally.latency);
        drop(stats);
        let metrics = &self.metrics;
        metrics.readlatency.record_us_times(0, tally.reads);
        for ms in &tally.waited_reads_ms {
            metrics.readlatency.record_us(ms * 1000);
        }
        for ms in &tally.writes_ms {
            metrics.updatelatency.record_us(ms * 1000);
        }
    }

    /// Judges the first frame of a connection (client-protocol facts, section 2). Whatever is refused
    /// before the password is looked at is refused by closing without a byte.
    pub(super) fn handshake(
        &self,
        cnxn: &ServerCnxn,
        request: &ConnectRequest,
        now: Now,
        submit: &mut impl Extend<Submit>,
    ) -> Flow {
        let mode = self.mode();
        let read_only = mode == Mode::ReadOnly;
        if mode == Mode::Stopped || (read_only && request.read_only != Some(true)) {
            return cnxn.shut(self);
        }
        self.metrics.connection_request_count.increment();
        let last_zxid = self.tree.read().last_processed_zxid();
        if request.last_zxid_seen > last_zxid {
            return cnxn.break_off(self, Fault::Ahead(request.last_zxid_seen, last_zxid));
        }
        let timeout_ms = request.timeout_ms.clamp(
            self.options.min_session_timeout_ms,
            self.options.max_session_timeout_ms,
        );
        let reattach = request.session_id != SessionId::NONE;
        if reattach && let Some(flow) = self.refuse_session(cnxn, request, read_only) {
            return flow;
        }
        let session = if reattach {
            request.session_id
        } else {
            self.allocate_session()
        };
        cnxn.touch().assign(session, timeout_ms);
        let phase = Phase::Waiting {
            reattach,
            says_read_only: request.read_only.is_some(),
        };
        if !self.register(cnxn, session, timeout_ms, phase) {
            return cnxn.shut(self);
        }
        if read_only {
            self.touches.touch(cnxn.touch(), now.instant);
            let mut lane = cnxn.lane().lock();
            lane.read_only = true;
            lane.connected(session, request.read_only.is_some());
            return Flow::Read;
        }
        submit.extend([if reattach {
            Submit::Revalidate {
                session,
                timeout_ms,
            }
        } else {
            Submit::Request(Request {
                session,
                cxid: Xid(0),
                op: OpCode::CreateSession,
                payload: timeout_ms.to_be_bytes().to_vec().into(),
                ids: Arc::clone(&cnxn.lane().lock().ids),
                origin: Origin::Local,
            })
        }]);
        Flow::Hold
    }

    /// Judges a session that a client came back with, as far as this server can: a wrong password gets the
    /// answer of an expired session. A read-only server knows no session: one that the ensemble knows has
    /// to wait for a quorum, and the client hears nothing.
    fn refuse_session(
        &self,
        cnxn: &ServerCnxn,
        request: &ConnectRequest,
        read_only: bool,
    ) -> Option<Flow> {
        let session = request.session_id;
        // Whoever has the session here loses it, even to somebody with a wrong password.
        self.close_session_connection(session);
        let known = request.passwd.as_deref() == Some(&auth::session_password(session)[..]);
        if known && !read_only {
            return None;
        }
        if known && self.tree.read().sessions().contains_key(&session) {
            return Some(cnxn.shut(self));
        }
        let mut lane = cnxn.lane().lock();
        lane.read_only = read_only;
        lane.connected(SessionId::NONE, request.read_only.is_some());
        Some(Flow::Close)
    }

    /// Notes that `session` talks through `cnxn`; false if the server stopped meanwhile or the
    /// connection is gone.
    fn register(
        &self,
        cnxn: &ServerCnxn,
        session: SessionId,
        timeout_ms: i32,
        phase: Phase,
    ) -> bool {
        let mut registry = self.registry.lock();
        let Some(shared) = registry.by_id.get(&cnxn.id()).cloned() else {
            return false;
        };
        let mut lane = cnxn.lane().lock();
        if lane.phase != Phase::Fresh || self.mode() == Mode::Stopped {
            return false;
        }
        lane.phase = phase;
        lane.session = session;
        lane.timeout_ms = timeout_ms;
        drop(lane);
        // Of two that come with one session at the same time, each may have looked before the other was here.
        let before = registry.by_session.insert(session, shared);
        drop(registry);
        self.replaced(before);
        true
    }

    fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            1 => Mode::Serving,
            2 => Mode::ReadOnly,
            _ => Mode::Stopped,
        }
    }

    fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
    }
}

fn timeout_ms(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

impl Registry {
    /// The session of `cnxn` has no connection here any more, unless it has another one by now.
    fn forget_session(&mut self, cnxn: &ServerCnxn) {
        let session = cnxn.session();
        let ours = self
            .by_session
            .get(&session)
            .is_some_and(|current| current.id() == cnxn.id());
        if ours {
            self.by_session.remove(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl Waker for Silent {
        fn wake(&self) {}
    }

    #[test]
    fn of_two_that_come_with_one_session_at_the_same_time_one_is_closed() {
        let server = ZkServer::new(ServerOptions::default(), Instant(0));
        server.start_serving(ServerState::Following);
        let session = SessionId(7);
        let phase = Phase::Waiting {
            reattach: true,
            says_read_only: true,
        };
        // Both have looked for a connection of the session by now, and found none.
        let came = [1, 2].map(|id| {
            let peer = IpAddr::from([127, 0, 0, 1]);
            let cnxn = server.open(ConnId(id), peer, Arc::new(Silent), Instant(0));
            cnxn.unwrap()
        });
        for cnxn in &came {
            assert!(server.register(cnxn, session, 4000, phase));
        }
        let phases = came.map(|cnxn| cnxn.lane().lock().phase);
        assert_eq!(phases, [Phase::Over, phase]);
    }

    fn config(server: &ZkServer) -> (Vec<u8>, i32, i64) {
        let tree = server.tree().read();
        let node = tree.node("/zookeeper/config").expect("every tree has it");
        let text = node.data().unwrap_or_default().to_vec();
        (text, node.stat().version, node.stat().mzxid.0)
    }

    #[test]
    fn members_are_shown_in_every_tree() {
        let server = ZkServer::new(ServerOptions::default(), Instant(0));
        assert_eq!(config(&server), (Vec::new(), 0, 0));
        server.show_members("server.1=h:1:2:participant\nversion=7".to_owned(), 7, 99);
        let shown = (b"server.1=h:1:2:participant\nversion=7".to_vec(), -1, 7);
        assert_eq!(config(&server), shown);
        let digest = DataTree::new().digest();
        server.replace_tree(DataTree::new());
        assert_eq!(config(&server), shown);
        assert_eq!(server.tree().read().digest(), digest, "outside the digest");
    }
}
