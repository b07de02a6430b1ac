//! Simulated clients: real bytes in, real bytes out, and a sharp eye on the answers.
//!
//! A client works through a random mix of operations, several at a time, re-attaches its session to another
//! server when its connection ends, and opens a new session when the old one is over. It checks by itself
//! what only the order of its own answers can show: FIFO order, reads that never go back, its own writes
//! visible to it, and a watch event in front of every answer that shows the change.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::check::{Acked, Checks, Violation};
use crate::error::ErrorCode;
use crate::ids::{ConnId, ServerId, SessionId, Xid, Zxid};
use crate::jute::{Reader, Record, Writer};
use crate::prng::Prng;
use crate::record::data::{Acl, Stat};
use crate::record::opcode::OpCode;
use crate::record::proto::{
    ConnectRequest, ConnectResponse, CreateRequest, MultiHeader, PathVersionRequest,
    PathWatchRequest, ReplyHeader, RequestHeader, SetDataRequest, WatcherEvent, xid,
};

/// Requests under way at once.
const DEPTH_MAX: usize = 4;
/// Shared nodes that everybody reads and writes.
const SHARED: [&str; 4] = ["/k0", "/k1", "/k2", "/k3"];
/// Parent of sequential nodes.
pub(super) const SEQUENTIAL: &str = "/s";
/// Two nodes that are only ever written together.
const PAIR: [&str; 2] = ["/pa", "/pb"];

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
    watch: bool,
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
    timeout_ms: i32,
    session: SessionId,
    passwd: Bytes,
    last_zxid: Zxid,
    attached: bool,
    inbox: Vec<u8>,
    next_xid: i32,
    names: u64,
    pending: VecDeque<Pending>,
    /// Data watches armed on this connection, with the mzxid that the arming read showed.
    watches: BTreeMap<String, Zxid>,
    /// The newest mzxid seen of each path, also from own writes: no read may show an older one.
    seen: BTreeMap<String, Zxid>,
    pub(super) answers: u64,
    pub(super) expiries: u64,
}

impl Client {
    pub(super) fn new(number: usize, mut prng: Prng) -> Self {
        let timeout_ms = *prng.pick(&[4_000, 6_000, 20_000]);
        Self {
            connection: None,
            serial: 0,
            tail_us: 0,
            upstream_us: 0,
            number,
            prng,
            timeout_ms,
            session: SessionId::NONE,
            passwd: Bytes::from_static(&[0; 16]),
            last_zxid: Zxid::ZERO,
            attached: false,
            inbox: Vec::new(),
            next_xid: 1,
            names: 0,
            pending: VecDeque::new(),
            watches: BTreeMap::new(),
            seen: BTreeMap::new(),
            answers: 0,
            expiries: 0,
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

    /// The connection ended: what was under way has an unknown outcome, and the watches are gone.
    pub(super) fn closed(&mut self) {
        self.connection = None;
        self.serial += 1;
        self.attached = false;
        self.inbox.clear();
        self.pending.clear();
        self.watches.clear();
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// A heartbeat.
    pub(super) fn ping(&self) -> Vec<u8> {
        frame(|out| {
            RequestHeader {
                xid: xid::PING,
                kind: OpCode::Ping.code(),
            }
            .encode(out)
        })
    }

    /// Ends the session.
    pub(super) fn close_session(&mut self) -> Vec<u8> {
        self.request(OpCode::CloseSession, "", false, |_| ())
    }

    /// The next requests, if the client feels like some.
    pub(super) fn work(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.attached && self.pending.len() < DEPTH_MAX && !self.prng.one_in(3) {
            bytes.extend(self.next_request());
        }
        bytes
    }

    fn next_request(&mut self) -> Vec<u8> {
        let shared = (*self.prng.pick(&SHARED)).to_owned();
        match self.prng.below(20) {
            0..=3 => self.set(&shared),
            4..=6 => self.read(OpCode::GetData, &shared, false),
            7..=9 => self.read(OpCode::GetData, &shared, true),
            10 => self.create(&shared, 0),
            11 => self.request(OpCode::Delete, &shared, false, |out| {
                PathVersionRequest {
                    path: shared.clone(),
                    version: -1,
                }
                .encode(out);
            }),
            12 | 13 => self.create(&format!("{SEQUENTIAL}/n-"), 2),
            14 => {
                self.names += 1;
                self.create(&format!("/e{}-{}", self.number, self.names), 1)
            }
            15 => self.create(SEQUENTIAL, 0),
            16 => self.request(OpCode::Sync, &shared, false, |out| out.string(&shared)),
            17 => self.write_pair(),
            18 => self.read_pair(),
            _ => self.read(OpCode::Exists, &shared, false),
        }
    }

    fn request(
        &mut self,
        op: OpCode,
        path: &str,
        watch: bool,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Vec<u8> {
        let xid = Xid(self.next_xid);
        self.next_xid += 1;
        self.pending.push_back(Pending {
            xid,
            op,
            path: path.to_owned(),
            watch,
        });
        frame(|out| {
            RequestHeader {
                xid,
                kind: op.code(),
            }
            .encode(out);
            body(out);
        })
    }

    fn read(&mut self, op: OpCode, path: &str, watch: bool) -> Vec<u8> {
        let record = PathWatchRequest {
            path: path.to_owned(),
            watch,
        };
        self.request(op, path, watch, |out| record.encode(out))
    }

    fn set(&mut self, path: &str) -> Vec<u8> {
        let record = SetDataRequest {
            path: path.to_owned(),
            data: Some(self.value()),
            version: -1,
        };
        self.request(OpCode::SetData, path, false, |out| record.encode(out))
    }

    fn create(&mut self, path: &str, flags: i32) -> Vec<u8> {
        let record = CreateRequest {
            path: path.to_owned(),
            data: Some(self.value()),
            acl: Some(Acl::open()),
            flags,
        };
        self.request(OpCode::Create, path, false, |out| record.encode(out))
    }

    /// Sets both nodes of the pair to one value, or creates both.
    fn write_pair(&mut self) -> Vec<u8> {
        let create = self.prng.one_in(4);
        let value = self.value();
        self.request(OpCode::Multi, PAIR[0], false, |out| {
            for path in PAIR {
                let op = if create {
                    OpCode::Create
                } else {
                    OpCode::SetData
                };
                MultiHeader {
                    kind: op.code(),
                    done: false,
                    err: -1,
                }
                .encode(out);
                let (path, data) = (path.to_owned(), Some(value.clone()));
                if create {
                    CreateRequest {
                        path,
                        data,
                        acl: Some(Acl::open()),
                        flags: 0,
                    }
                    .encode(out);
                } else {
                    SetDataRequest {
                        path,
                        data,
                        version: -1,
                    }
                    .encode(out);
                }
            }
            MultiHeader::END.encode(out);
        })
    }

    fn read_pair(&mut self) -> Vec<u8> {
        self.request(OpCode::MultiRead, PAIR[0], false, |out| {
            for path in PAIR {
                MultiHeader {
                    kind: OpCode::GetData.code(),
                    done: false,
                    err: -1,
                }
                .encode(out);
                PathWatchRequest {
                    path: path.to_owned(),
                    watch: false,
                }
                .encode(out);
            }
            MultiHeader::END.encode(out);
        })
    }

    fn value(&mut self) -> Bytes {
        self.names += 1;
        format!("{}-{}", self.number, self.names).into()
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
                self.on_connected(&frame)
            };
            if !goes_on {
                return false;
            }
        }
    }

    fn on_connected(&mut self, frame: &[u8]) -> bool {
        let response =
            ConnectResponse::from_slice(frame).expect("the server answers with a ConnectResponse");
        if response.session_id == SessionId::NONE {
            // Expired: the next connection asks for a new session, and remembers nothing.
            self.session = SessionId::NONE;
            self.passwd = Bytes::from_static(&[0; 16]);
            self.last_zxid = Zxid::ZERO;
            self.seen.clear();
            self.expiries += 1;
            return false;
        }
        self.session = response.session_id;
        self.passwd = response.passwd.expect("a session has a password");
        self.attached = true;
        true
    }

    fn on_frame(&mut self, frame: &[u8], checks: &mut Checks) -> bool {
        let mut from = Reader::new(frame);
        let header =
            ReplyHeader::decode(&mut from).expect("every frame begins with a reply header");
        match header.xid {
            xid::NOTIFICATION => {
                let event = WatcherEvent::decode(&mut from).expect("a notification holds an event");
                if event.kind <= 3 {
                    self.watches.remove(&event.path);
                }
                true
            }
            xid::PING => true,
            _ => self.on_reply(header, &mut from, checks),
        }
    }

    fn on_reply(
        &mut self,
        header: ReplyHeader,
        from: &mut Reader<'_>,
        checks: &mut Checks,
    ) -> bool {
        self.answers += 1;
        let Some(pending) = self.pending.pop_front() else {
            self.violated(
                checks,
                "SessionFifo",
                format!("an answer nobody waits for: {header:?}"),
            );
            return false;
        };
        if pending.xid != header.xid {
            let evidence = format!("expected the answer to {:?}, got {header:?}", pending.xid);
            self.violated(checks, "SessionFifo", evidence);
            return false;
        }
        if header.zxid < self.last_zxid {
            let evidence = format!("{header:?} after the client had seen {}", self.last_zxid);
            self.violated(checks, "MonotonicReads", evidence);
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        let err = ErrorCode::from_code(header.err).expect("an error number of ZooKeeper");
        if pending.op.is_write() && err == ErrorCode::Ok {
            self.on_acked(&pending, header, from, checks);
        } else {
            self.on_read(&pending, err, from, checks);
        }
        pending.op != OpCode::CloseSession
    }

    fn on_acked(
        &mut self,
        pending: &Pending,
        header: ReplyHeader,
        from: &mut Reader<'_>,
        checks: &mut Checks,
    ) {
        let mut created = None;
        match pending.op {
            OpCode::Create => {
                let path = from.string("path").expect("create answers the path");
                self.seen.insert(path.clone(), header.zxid);
                created = Some(path);
            }
            OpCode::SetData => {
                self.seen.insert(pending.path.clone(), header.zxid);
            }
            OpCode::Multi if MultiHeader::decode(from).is_ok_and(|first| first.err == 0) => {
                for path in PAIR {
                    self.seen.insert(path.to_owned(), header.zxid);
                }
            }
            // A failed multi has error code 0 in its header; it stands in the history too, as an error.
            _ => {}
        }
        checks.on_acked(Acked {
            zxid: header.zxid,
            session: self.session,
            xid: header.xid,
            created,
        });
    }

    fn on_read(
        &mut self,
        pending: &Pending,
        err: ErrorCode,
        from: &mut Reader<'_>,
        checks: &mut Checks,
    ) {
        match (pending.op, err) {
            (OpCode::GetData, ErrorCode::Ok) => {
                from.buffer("data").expect("getData answers data");
                let stat = Stat::decode(from).expect("getData answers Stat");
                self.on_seen(&pending.path, stat.mzxid, checks);
                if pending.watch {
                    self.watches
                        .entry(pending.path.clone())
                        .or_insert(stat.mzxid);
                }
            }
            (OpCode::Exists, ErrorCode::Ok) => {
                let stat = Stat::decode(from).expect("exists answers Stat");
                self.on_seen(&pending.path, stat.mzxid, checks);
            }
            (OpCode::GetData | OpCode::Exists, ErrorCode::NoNode)
                if self.watches.contains_key(&pending.path) =>
            {
                let evidence = format!("{} is gone and its watch did not fire", pending.path);
                self.violated(checks, "WatchBeforeRead", evidence);
            }
            (OpCode::MultiRead, ErrorCode::Ok) => self.on_pair(from, checks),
            _ => {}
        }
    }

    fn on_pair(&mut self, from: &mut Reader<'_>, checks: &mut Checks) {
        let values: Vec<_> = PAIR
            .iter()
            .map(|_| {
                let header = MultiHeader::decode(from).expect("one result for each read");
                if header.err != 0 {
                    from.int("err").expect("an error result holds its code");
                    return None;
                }
                let data = from.buffer("data").expect("getData answers data");
                Stat::decode(from).expect("getData answers Stat");
                data
            })
            .collect();
        if values[0] != values[1] {
            self.violated(
                checks,
                "MultiAtomicity",
                format!("one read shows {values:?}"),
            );
        }
    }

    fn on_seen(&mut self, path: &str, mzxid: Zxid, checks: &mut Checks) {
        if let Some(armed) = self.watches.get(path)
            && mzxid > *armed
        {
            let evidence = format!("{path} at {mzxid}, its watch from {armed} did not fire");
            self.violated(checks, "WatchBeforeRead", evidence);
        }
        let newest = self.seen.entry(path.to_owned()).or_insert(mzxid);
        let before = *newest;
        *newest = before.max(mzxid);
        if mzxid < before {
            self.violated(
                checks,
                "MonotonicReads",
                format!("{path} at {mzxid}, seen before at {before}"),
            );
        }
    }

    fn violated(&self, checks: &mut Checks, rule: &'static str, evidence: String) {
        let evidence = format!(
            "client {} (session {}): {evidence}",
            self.number, self.session
        );
        checks.on_client_violation(Violation { rule, evidence });
    }
}

fn frame(body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    body(&mut Writer::new(&mut bytes));
    let length = u32::try_from(bytes.len() - 4).expect("requests of the simulation are small");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}
