//! Simulated clients: real bytes in, real bytes out, and a sharp eye on the answers.
//!
//! A client works through a random mix of operations, several at a time, re-attaches its session to another
//! server when its connection ends, registers its watches again there, and opens a new session when the old
//! one is over. It checks by itself what only the order of its own answers can show: FIFO order, reads that
//! never go back, its own writes and ephemerals visible to it, reads after a sync that are fresh, and a
//! watch event, just once, in front of every answer that shows the change.

mod answers;
mod requests;
mod watches;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use self::requests::frame;
use self::watches::WatchBook;
use super::check::{Checks, Floor};
use crate::ids::{ConnId, ServerId, SessionId, Xid, Zxid};
use crate::jute::Record;
use crate::prng::Prng;
use crate::record::opcode::OpCode;
use crate::record::proto::{ConnectRequest, ConnectResponse};

/// A standing connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) server: ServerId,
    pub(super) conn: ConnId,
}

/// What a client waits for.
#[derive(Debug)]
struct Pending {
    xid: Xid,
    op: OpCode,
    path: String,
    /// For reads: arms a watch. For creates: ephemeral. For addWatch: recursive.
    watch: bool,
    /// For syncs: what was acknowledged to anybody when it was sent.
    floor: Option<Floor>,
}

/// One client.
pub(super) struct Client {
    pub(super) connection: Option<Connection>,
    /// Names the connection for messages that may arrive after its end.
    pub(super) serial: u64,
    /// When the last bytes on their way to this client arrive.
    pub(super) tail_us: u64,
    /// When the last bytes on their way from this client arrive.
    pub(super) upstream_us: u64,
    number: usize,
    prng: Prng,
    /// Requests under way at once.
    depth: usize,
    /// One request in so many is the last of a turn.
    pause: u64,
    timeout_ms: i32,
    session: SessionId,
    passwd: Bytes,
    last_zxid: Zxid,
    attached: bool,
    /// The server this session was last attached to.
    home: Option<ServerId>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    next_xid: i32,
    names: u64,
    pending: VecDeque<Pending>,
    watches: WatchBook,
    /// The newest mzxid seen of each path, also from own writes: no read may show an older one.
    seen: BTreeMap<String, Zxid>,
    /// What a sync has promised at least.
    fresh: Zxid,
    fresh_paths: BTreeMap<String, Zxid>,
    /// Acknowledged ephemerals of this session that nobody asked to delete.
    ephemerals: BTreeSet<String>,
}

impl Client {
    pub(super) fn new(number: usize, mut prng: Prng) -> Self {
        let timeout_ms = *prng.pick(&[2_000, 4_000, 6_000, 20_000]);
        let (depth, pause) = *prng.pick(&[(1, 2), (4, 3), (4, 3), (4, 3), (30, 12)]);
        Self {
            connection: None,
            serial: 0,
            tail_us: 0,
            upstream_us: 0,
            number,
            prng,
            depth,
            pause,
            timeout_ms,
            session: SessionId::NONE,
            passwd: Bytes::from_static(&[0; 16]),
            last_zxid: Zxid::ZERO,
            attached: false,
            home: None,
            inbox: Vec::new(),
            outbox: Vec::new(),
            next_xid: 1,
            names: 0,
            pending: VecDeque::new(),
            watches: WatchBook::default(),
            seen: BTreeMap::new(),
            fresh: Zxid::ZERO,
            fresh_paths: BTreeMap::new(),
            ephemerals: BTreeSet::new(),
        }
    }

    /// A connection stands: the first bytes to send.
    pub(super) fn connected(&mut self, connection: Connection) -> Vec<u8> {
        self.connection = Some(connection);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.timeout_ms,
            session_id: self.session,
            passwd: Some(self.passwd.clone()),
            read_only: Some(false),
        };
        frame(|out| request.encode(out))
    }

    /// The connection ended: what was under way has an unknown outcome, the watches must be registered
    /// again.
    pub(super) fn closed(&mut self) {
        self.connection = None;
        self.serial += 1;
        self.attached = false;
        self.inbox.clear();
        self.outbox.clear();
        self.pending.clear();
        self.watches.disconnected();
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// What leaves this client now: the syncs among it remember what had been acknowledged by then.
    pub(super) fn leaving(&mut self, checks: &Checks) {
        let syncs = self.pending.iter_mut().rev();
        for sync in syncs.take_while(|p| p.op != OpCode::Sync || p.floor.is_none()) {
            if sync.op == OpCode::Sync {
                sync.floor = Some(checks.floor());
            }
        }
    }

    /// What the client has to say by itself.
    pub(super) fn take_outbox(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outbox)
    }

    /// Takes bytes from the server. False if the server said that the session is over or ended it.
    pub(super) fn on_bytes(&mut self, bytes: &[u8], checks: &mut Checks) -> bool {
        self.inbox.extend_from_slice(bytes);
        loop {
            let Some(length) = self.inbox.first_chunk::<4>() else {
                return true;
            };
            let length = u32::from_be_bytes(*length) as usize;
            if self.inbox.len() < 4 + length {
                return true;
            }
            let frame: Vec<u8> = self.inbox.drain(..4 + length).skip(4).collect();
            let goes_on = if self.attached {
                self.on_frame(&frame, checks)
            } else {
                self.on_connected(&frame, checks)
            };
            if !goes_on {
                return false;
            }
        }
    }

    fn on_connected(&mut self, frame: &[u8], checks: &mut Checks) -> bool {
        let response =
            ConnectResponse::from_slice(frame).expect("the server answers with a ConnectResponse");
        if response.session_id == SessionId::NONE {
            // Expired: the next connection asks for a new session, and remembers nothing.
            self.session = SessionId::NONE;
            self.passwd = Bytes::from_static(&[0; 16]);
            self.last_zxid = Zxid::ZERO;
            self.seen.clear();
            self.ephemerals.clear();
            self.watches = WatchBook::default();
            self.fresh = Zxid::ZERO;
            self.fresh_paths.clear();
            checks.coverage.expired_sessions += 1;
            return false;
        }
        let here = self.connection.map(|connection| connection.server);
        if self.session == response.session_id {
            checks.coverage.reattached_sessions += 1;
            checks.coverage.moved_sessions += u64::from(self.home != here);
        }
        self.home = here;
        self.session = response.session_id;
        self.passwd = response.passwd.expect("a session has a password");
        self.attached = true;
        if let Some(request) = self.watches.registration(self.last_zxid) {
            checks.coverage.set_watches += 1;
            self.outbox = self.set_watches(&request);
        }
        true
    }
}
