//! A standalone server without I/O, driven with the bytes of clients.
//!
//! What the connections submit is prepared at once; it is committed at once too, or when the test says so
//! ([`TestServer::hold`]). Time stands still unless the test moves it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use zkd::event::ServerState;
use zkd::ids::{ConnId, SessionId, Xid, Zxid};
use zkd::jute::{Reader, Record, Writer};
use zkd::pipeline::{
    Delivery, Flow, Prep, PrepOptions, Request, ServerCnxn, ServerOptions, Submit, Waker, ZkServer,
};
use zkd::record::data::{Acl, Stat};
use zkd::record::opcode::OpCode;
use zkd::record::txn::TxnRecord;
use zkd::session::{Owner, SessionTracker};
use zkd::time::{Instant, Now};

/// The driver looks at every connection anyway.
struct Deaf;

impl Waker for Deaf {
    fn wake(&self) {}
}

pub(crate) struct TestServer {
    pub(crate) server: ZkServer,
    pub(crate) prep: Prep,
    pub(crate) tracker: SessionTracker,
    pub(crate) zxid: Zxid,
    pub(crate) now: Now,
    /// Prepared, not committed.
    pub(crate) uncommitted: VecDeque<Delivery>,
    pub(crate) hold: bool,
    /// Every txn prepared.
    pub(crate) log: Vec<TxnRecord>,
    clients: BTreeMap<u64, Socket>,
    next_client: u64,
}

struct Socket {
    cnxn: Arc<ServerCnxn>,
    input: BytesMut,
    received: Vec<u8>,
    closed: bool,
}

/// A connection of the test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Client(pub(crate) u64);

/// One frame from the server after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) xid: i32,
    pub(crate) zxid: i64,
    pub(crate) err: i32,
    pub(crate) body: Vec<u8>,
}

/// The answer to a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) timeout_ms: i32,
    pub(crate) session: SessionId,
    pub(crate) password: Vec<u8>,
    pub(crate) read_only: Option<bool>,
}

impl TestServer {
    pub(crate) fn new() -> Self {
        Self::with(ServerOptions::default(), PrepOptions::default())
    }

    pub(crate) fn with(server: ServerOptions, prep: PrepOptions) -> Self {
        let server = ZkServer::new(server, Instant(0x11_9138));
        server.start_serving(ServerState::Standalone);
        Self {
            server,
            prep: Prep::new(prep),
            tracker: SessionTracker::new(2000),
            zxid: Zxid::ZERO,
            now: Now {
                instant: Instant(1_000_000),
                wall_ms: 1_700_000_000_000,
            },
            uncommitted: VecDeque::new(),
            hold: false,
            log: Vec::new(),
            clients: BTreeMap::new(),
            next_client: 0,
        }
    }

    /// A TCP connection from `address`.
    pub(crate) fn accept_from(&mut self, address: &str) -> Option<Client> {
        self.next_client += 1;
        let id = self.next_client;
        let peer: IpAddr = address.parse().unwrap();
        let cnxn = self
            .server
            .open(ConnId(id), peer, Arc::new(Deaf), self.now.instant)
            .ok()?;
        self.clients.insert(
            id,
            Socket {
                cnxn,
                input: BytesMut::new(),
                received: Vec::new(),
                closed: false,
            },
        );
        Some(Client(id))
    }

    pub(crate) fn accept(&mut self) -> Client {
        self.accept_from("127.0.0.1").unwrap()
    }

    /// A client with a session.
    pub(crate) fn connect(&mut self) -> Client {
        let client = self.accept();
        self.send(client, &connect_frame(&Connect::default()));
        assert_ne!(self.connected(client).session, SessionId::NONE);
        client
    }

    /// Bytes from the client.
    pub(crate) fn send(&mut self, client: Client, bytes: &[u8]) {
        let socket = self.clients.get_mut(&client.0).unwrap();
        if socket.closed {
            return;
        }
        socket.input.extend_from_slice(bytes);
        self.turn(client);
        self.settle();
    }

    fn turn(&mut self, client: Client) -> Flow {
        let mut submits = Vec::new();
        let socket = self.clients.get_mut(&client.0).unwrap();
        let flow = socket
            .cnxn
            .on_bytes(&self.server, &mut socket.input, self.now, &mut submits);
        for submit in submits {
            self.submit(submit);
        }
        flow
    }

    fn submit(&mut self, submit: Submit) {
        match submit {
            Submit::Request(request) if request.op == OpCode::Sync => {
                self.uncommitted.push_back(Delivery::SyncDone {
                    session: request.session,
                    cxid: request.cxid,
                });
            }
            Submit::Request(request) => self.prepare(&request),
            Submit::Revalidate {
                session,
                timeout_ms,
            } => {
                let valid =
                    self.tracker
                        .reattach(session, timeout_ms, Owner::Local, self.now.instant);
                self.uncommitted
                    .push_back(Delivery::Revalidated { session, valid });
            }
        }
    }

    /// A request that comes from elsewhere: a learner, the server itself.
    pub(crate) fn order(&mut self, request: &Request) {
        self.prepare(request);
        self.settle();
    }

    fn prepare(&mut self, request: &Request) {
        self.zxid = self.zxid.next().unwrap();
        let tree = self.server.tree().read();
        let record = self
            .prep
            .prepare(&tree, &mut self.tracker, request, self.zxid, self.now);
        self.log.push(record.clone());
        self.uncommitted.push_back(Delivery::Txn(record));
    }

    /// Commits the oldest `count` of what is on its way.
    pub(crate) fn commit(&mut self, count: usize) {
        let batch: Vec<_> = self.uncommitted.drain(..count).collect();
        self.server.apply(&batch, self.now);
        for delivery in &batch {
            if let Delivery::Txn(record) = delivery {
                self.prep.applied(&record.header, &mut self.tracker);
                if let Some(digest) = &record.digest {
                    let tree = self.server.tree().read();
                    if tree.last_processed_zxid() == record.header.zxid {
                        assert_eq!(digest.tree_digest, tree.digest(), "digest of {record:?}");
                    }
                }
            }
        }
    }

    /// Ends holding back.
    pub(crate) fn release(&mut self) {
        self.hold = false;
        self.settle();
    }

    /// Runs until nothing moves any more.
    fn settle(&mut self) {
        loop {
            while !self.hold && !self.uncommitted.is_empty() {
                // One by one, so that every predicted digest is checked.
                self.commit(1);
            }
            for id in self.clients.keys().copied().collect::<Vec<_>>() {
                self.take(Client(id));
                if !self.clients[&id].closed {
                    self.turn(Client(id));
                    self.take(Client(id));
                }
            }
            if self.hold || self.uncommitted.is_empty() {
                return;
            }
        }
    }

    fn take(&mut self, client: Client) {
        let socket = self.clients.get_mut(&client.0).unwrap();
        if socket.closed {
            return;
        }
        let state = socket.cnxn.take_output(&mut socket.received);
        if state.close {
            socket.closed = true;
            self.server.close(ConnId(client.0));
        }
    }

    /// The client's socket breaks.
    pub(crate) fn disconnect(&mut self, client: Client) {
        self.server.close(ConnId(client.0));
        self.clients.get_mut(&client.0).unwrap().closed = true;
    }

    /// What the server has closed by now.
    pub(crate) fn is_closed(&mut self, client: Client) -> bool {
        self.settle();
        self.clients[&client.0].closed
    }

    /// The bytes the client received and nobody looked at yet.
    pub(crate) fn received(&mut self, client: Client) -> Vec<u8> {
        self.settle();
        std::mem::take(&mut self.clients.get_mut(&client.0).unwrap().received)
    }

    pub(crate) fn connected(&mut self, client: Client) -> Connected {
        self.try_connected(client)
            .expect("an answer to the handshake")
    }

    pub(crate) fn try_connected(&mut self, client: Client) -> Option<Connected> {
        let bytes = self.received(client);
        let mut frames = split_frames(&bytes);
        let rest: Vec<u8> = frames.split_off(1.min(frames.len())).concat();
        let first = frames.pop()?;
        let socket = self.clients.get_mut(&client.0).unwrap();
        socket.received = rest;
        let mut from = Reader::new(&first[4..]);
        assert_eq!(from.int("protocol").unwrap(), 0);
        let connected = Connected {
            timeout_ms: from.int("timeout").unwrap(),
            session: SessionId(from.long("session").unwrap()),
            password: from.buffer("password").unwrap().unwrap().to_vec(),
            read_only: (!from.is_empty()).then(|| from.bool("read only").unwrap()),
        };
        assert_eq!(
            first.len(),
            if connected.read_only.is_some() {
                41
            } else {
                40
            }
        );
        Some(connected)
    }

    /// Everything received, as frames.
    pub(crate) fn replies(&mut self, client: Client) -> Vec<Reply> {
        let bytes = self.received(client);
        split_frames(&bytes)
            .iter()
            .map(|f| parse_reply(f))
            .collect()
    }

    /// Sends one request and gives the one answer.
    pub(crate) fn ask(&mut self, client: Client, op: OpCode, body: &[u8]) -> Reply {
        self.send(client, &frame(77, op.code(), body));
        let mut replies = self.replies(client);
        assert_eq!(replies.len(), 1, "{op:?}: {replies:?}");
        let reply = replies.remove(0);
        assert_eq!(reply.xid, 77);
        reply
    }

    /// As [`Self::ask`], only the error.
    pub(crate) fn err(&mut self, client: Client, op: OpCode, body: &[u8]) -> i32 {
        self.ask(client, op, body).err
    }

    /// Creates a persistent open node; gives the path.
    pub(crate) fn create(&mut self, client: Client, path: &str) -> String {
        let reply = self.ask(client, OpCode::Create, &create(path, b"", 0));
        assert_eq!(reply.err, 0, "create {path}");
        Reader::new(&reply.body).string("path").unwrap()
    }

    pub(crate) fn stat(&mut self, client: Client, path: &str) -> Stat {
        let reply = self.ask(client, OpCode::Exists, &path_watch(path, false));
        assert_eq!(reply.err, 0, "exists {path}");
        Stat::from_slice(&reply.body).unwrap()
    }

    pub(crate) fn session(&self, client: Client) -> SessionId {
        self.clients[&client.0].cnxn.session()
    }

    /// Lets `ms` pass; sessions whose time is over expire.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.instant = self.now.instant + ms;
        self.now.wall_ms += ms.cast_signed();
        let tracker = &mut self.tracker;
        self.server.touches().drain(|session, timeout_ms, at| {
            tracker.touch(session, timeout_ms, at);
        });
        for session in self.tracker.expired(self.now.instant) {
            self.prepare(&Request::expire(session));
        }
        self.server.sweep(self.now.instant);
        self.settle();
    }
}

/// A connect request with everything as a usual client says it.
pub(crate) struct Connect {
    pub(crate) last_zxid: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) session: SessionId,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) read_only: Option<bool>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            last_zxid: 0,
            timeout_ms: 10_000,
            session: SessionId::NONE,
            password: Some(vec![0; 16]),
            read_only: Some(false),
        }
    }
}

pub(crate) fn connect_frame(connect: &Connect) -> Vec<u8> {
    let mut body = Vec::new();
    let mut out = Writer::new(&mut body);
    out.int(0);
    out.long(connect.last_zxid);
    out.int(connect.timeout_ms);
    out.long(connect.session.0);
    out.buffer(connect.password.as_deref());
    if let Some(read_only) = connect.read_only {
        out.bool(read_only);
    }
    prefix(&body)
}

fn prefix(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

pub(crate) fn frame(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut whole = xid.to_be_bytes().to_vec();
    whole.extend_from_slice(&op.to_be_bytes());
    whole.extend_from_slice(body);
    prefix(&whole)
}

/// Cuts a stream into frames, length words included.
pub(crate) fn split_frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        frames.push(bytes[..4 + length].to_vec());
        bytes = &bytes[4 + length..];
    }
    frames
}

pub(crate) fn parse_reply(frame: &[u8]) -> Reply {
    let mut from = Reader::new(&frame[4..]);
    Reply {
        xid: from.int("xid").unwrap(),
        zxid: from.long("zxid").unwrap(),
        err: from.int("err").unwrap(),
        body: from.rest().to_vec(),
    }
}

/// A request body, field by field.
pub(crate) fn body(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

pub(crate) fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    create_acl(path, data, Some(&Acl::open()), flags)
}

pub(crate) fn create_acl(path: &str, data: &[u8], acl: Option<&[Acl]>, flags: i32) -> Vec<u8> {
    body(|out| {
        out.string(path);
        out.buffer(Some(data));
        out.vector(acl);
        out.int(flags);
    })
}

pub(crate) fn create_ttl(path: &str, flags: i32, ttl: i64) -> Vec<u8> {
    let mut bytes = create(path, b"", flags);
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes
}

pub(crate) fn path_version(path: &str, version: i32) -> Vec<u8> {
    body(|out| {
        out.string(path);
        out.int(version);
    })
}

pub(crate) fn set_data(path: &str, data: &[u8], version: i32) -> Vec<u8> {
    body(|out| {
        out.string(path);
        out.buffer(Some(data));
        out.int(version);
    })
}

pub(crate) fn set_acl(path: &str, acl: Option<&[Acl]>, version: i32) -> Vec<u8> {
    body(|out| {
        out.string(path);
        out.vector(acl);
        out.int(version);
    })
}

pub(crate) fn path_watch(path: &str, watch: bool) -> Vec<u8> {
    body(|out| {
        out.string(path);
        out.bool(watch);
    })
}

pub(crate) fn only_path(path: &str) -> Vec<u8> {
    body(|out| out.string(path))
}

pub(crate) fn auth(scheme: &str, data: Option<&[u8]>) -> Vec<u8> {
    body(|out| {
        out.int(0);
        out.string(scheme);
        out.buffer(data);
    })
}

/// A multi or multiRead of `(opcode, record)`.
pub(crate) fn multi(ops: &[(OpCode, Vec<u8>)]) -> Vec<u8> {
    body(|out| {
        for (op, record) in ops {
            out.int(op.code());
            out.bool(false);
            out.int(-1);
            out.raw(record);
        }
        out.int(-1);
        out.bool(true);
        out.int(-1);
    })
}

/// Results of a multi: opcode, error, body.
pub(crate) fn multi_results(bytes: &[u8]) -> Vec<(i32, i32, Vec<u8>)> {
    let mut from = Reader::new(bytes);
    let mut results = Vec::new();
    loop {
        let kind = from.int("type").unwrap();
        let done = from.bool("done").unwrap();
        let err = from.int("err").unwrap();
        if done {
            assert_eq!((kind, err), (-1, -1));
            from.finish().unwrap();
            return results;
        }
        let before = from.rest();
        match kind {
            -1 => assert_eq!(from.int("err").unwrap(), err),
            1 => drop(from.string("path").unwrap()),
            15 => {
                from.string("path").unwrap();
                Stat::decode(&mut from).unwrap();
            }
            5 => drop(Stat::decode(&mut from).unwrap()),
            4 => {
                from.buffer("data").unwrap();
                Stat::decode(&mut from).unwrap();
            }
            8 => drop(from.vector::<String>("children").unwrap()),
            2 | 13 => {}
            other => panic!("result of type {other}"),
        }
        let used = before.len() - from.rest().len();
        results.push((kind, err, before[..used].to_vec()));
    }
}

/// A watch event: type and path.
pub(crate) fn event(reply: &Reply) -> (i32, String) {
    assert_eq!((reply.xid, reply.err), (-1, 0), "{reply:?}");
    let mut from = Reader::new(&reply.body);
    let kind = from.int("type").unwrap();
    assert_eq!(from.int("state").unwrap(), 3);
    let path = from.string("path").unwrap();
    from.finish().unwrap();
    (kind, path)
}

/// A request as a learner forwards it.
pub(crate) fn request(session: SessionId, cxid: i32, op: OpCode, payload: &[u8]) -> Request {
    Request {
        session,
        cxid: Xid(cxid),
        op,
        payload: Bytes::copy_from_slice(payload),
        ids: zkd::auth::initial_ids("127.0.0.1".parse().unwrap()),
        origin: zkd::pipeline::Origin::Local,
    }
}
