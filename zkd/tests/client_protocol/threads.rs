//! Connections on threads of their own beside the core, as the runtime runs them: no lock waits for ever,
//! every client's answers keep their order, and an event comes before any answer that shows its cause.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use zkd::event::ServerState;
use zkd::ids::{ConnId, Zxid};
use zkd::jute::{Reader, Record};
use zkd::pipeline::{
    Delivery, Prep, PrepOptions, ServerCnxn, ServerOptions, Submit, Waker, ZkServer,
};
use zkd::record::data::Stat;
use zkd::record::opcode::OpCode;
use zkd::session::SessionTracker;
use zkd::time::{Instant, Now};

use crate::harness::*;

const CLIENTS: u64 = 4;
/// Requests of each client.
const COUNT: i32 = 1500;
/// Requests of a client that may wait for their answers.
const WINDOW: i32 = 40;
const NOW: Now = Now {
    instant: Instant(1),
    wall_ms: 1,
};

struct Bell(Sender<()>);

impl Waker for Bell {
    fn wake(&self) {
        // The client may be done already.
        let _ = self.0.send(());
    }
}

/// Prepares and commits whatever has gathered, in batches.
fn core(server: &ZkServer, submits: &Receiver<Submit>) {
    let mut prep = Prep::new(PrepOptions::default());
    let mut tracker = SessionTracker::new(1000);
    let mut zxid = Zxid::ZERO;
    while let Ok(first) = submits.recv() {
        let mut batch = Vec::new();
        for submit in std::iter::once(first).chain(submits.try_iter()) {
            let Submit::Request(request) = submit else {
                panic!("nobody comes back here");
            };
            zxid = zxid.next().unwrap();
            let tree = server.tree().read();
            let record = prep.prepare(&tree, &mut tracker, &request, zxid, NOW);
            batch.push(Delivery::Txn(record));
        }
        server.apply(&batch, NOW);
        for delivery in &batch {
            if let Delivery::Txn(record) = delivery {
                prep.applied(&record.header, &mut tracker);
            }
        }
    }
}

struct TestClient<'a> {
    server: &'a ZkServer,
    cnxn: Arc<ServerCnxn>,
    rung: Receiver<()>,
    submits: Sender<Submit>,
    input: BytesMut,
}

impl TestClient<'_> {
    /// Waits for frames.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        loop {
            let mut submits = Vec::new();
            self.cnxn
                .on_bytes(self.server, &mut self.input, NOW, &mut submits);
            for submit in submits {
                self.submits.send(submit).unwrap();
            }
            let mut out = Vec::new();
            self.cnxn.take_output(&mut out);
            if !out.is_empty() {
                return split_frames(&out);
            }
            self.rung.recv().unwrap();
        }
    }

    /// Changes and reads the root, which everybody else changes too.
    fn run(mut self) {
        self.input
            .extend_from_slice(&connect_frame(&Connect::default()));
        assert_eq!(self.frames().len(), 1);
        let watch = path_version("/", 0);
        self.input
            .extend_from_slice(&frame(0, OpCode::AddWatch.code(), &watch));
        let (mut sent, mut answered) = (0, -1);
        // The newest change that an event told of.
        let mut told = 0;
        while answered < COUNT {
            while sent < COUNT && sent - answered < WINDOW {
                sent += 1;
                let (op, body) = match sent % 3 {
                    0 => (OpCode::SetData, set_data("/", b"x", -1)),
                    _ => (OpCode::GetData, path_watch("/", false)),
                };
                self.input.extend_from_slice(&frame(sent, op.code(), &body));
            }
            for bytes in self.frames() {
                let reply = parse_reply(&bytes);
                if reply.xid == -1 {
                    assert!(reply.zxid > told, "events in the order of their causes");
                    told = reply.zxid;
                    continue;
                }
                answered += 1;
                assert_eq!((reply.xid, reply.err), (answered, 0));
                if answered > 0 && answered % 3 != 0 {
                    let mut from = Reader::new(&reply.body);
                    from.buffer("data").unwrap();
                    let shown = Stat::decode(&mut from).unwrap().mzxid.0;
                    assert!(shown == told || told == 0, "shown {shown}, told {told}");
                }
            }
        }
    }
}

#[test]
fn clients_on_threads() {
    let server = ZkServer::new(ServerOptions::default(), Instant(1));
    server.start_serving(ServerState::Standalone);
    let (submits, submitted) = channel();
    thread::scope(|scope| {
        let server = &server;
        scope.spawn(move || core(server, &submitted));
        for id in 0..CLIENTS {
            let (bell, rung) = channel();
            let cnxn = server
                .open(
                    ConnId(id),
                    "127.0.0.1".parse().unwrap(),
                    Arc::new(Bell(bell)),
                    NOW.instant,
                )
                .unwrap();
            let client = TestClient {
                server,
                cnxn,
                rung,
                submits: submits.clone(),
                input: BytesMut::new(),
            };
            scope.spawn(move || {
                client.run();
                server.close(ConnId(id));
            });
        }
        drop(submits);
    });
    assert_eq!(server.stats().outstanding, 0);
    assert_eq!(server.stats().connections, 0);
    assert_eq!(server.watches().lock().counts().connections, 0);
}

/// Lets something happen while it takes what a connection asks for.
struct Interrupted<F>(Vec<Submit>, F);

impl<F: FnMut()> Extend<Submit> for Interrupted<F> {
    fn extend<T: IntoIterator<Item = Submit>>(&mut self, submits: T) {
        self.0.extend(submits);
        (self.1)();
    }
}

#[test]
fn nobody_takes_a_session_over_before_what_it_asked_for_is_handed_on() {
    let server = ZkServer::new(ServerOptions::default(), Instant(1));
    server.start_serving(ServerState::Standalone);
    let [old, new] = [1, 2].map(|id| {
        let (bell, _) = channel();
        let address = "127.0.0.1".parse().unwrap();
        let cnxn = server.open(ConnId(id), address, Arc::new(Bell(bell)), NOW.instant);
        cnxn.unwrap()
    });
    let mut input = BytesMut::from(&connect_frame(&Connect::default())[..]);
    let mut submits = Vec::new();
    old.on_bytes(&server, &mut input, NOW, &mut submits);
    let (sender, receiver) = channel();
    sender.send(submits.remove(0)).unwrap();
    drop(sender);
    core(&server, &receiver);
    let session = old.session();
    let back = connect_frame(&Connect {
        session,
        password: Some(zkd::auth::session_password(session).to_vec()),
        ..Connect::default()
    });
    thread::scope(|scope| {
        let (server, new, back) = (&server, &new, &back[..]);
        let (done, taken_over) = channel();
        let mut done = Some(done);
        let mut sink = Interrupted(Vec::new(), || {
            let done = done.take().expect("one write is handed on once");
            scope.spawn(move || {
                let mut submits = Vec::new();
                let mut input = BytesMut::from(back);
                new.on_bytes(server, &mut input, NOW, &mut submits);
                assert!(matches!(submits[..], [Submit::Revalidate { .. }]));
                done.send(()).unwrap();
            });
            let early = taken_over.recv_timeout(Duration::from_millis(100));
            assert!(early.is_err(), "taken over with a write on its way");
        });
        let write = frame(1, OpCode::SetData.code(), &set_data("/", b"x", -1));
        old.on_bytes(server, &mut BytesMut::from(&write[..]), NOW, &mut sink);
        assert_eq!(sink.0.len(), 1);
        drop(sink);
        taken_over.recv().unwrap();
    });
}
