//! The paths that a busy server spends its time on, each as often as asked and nothing else, so that instructions
//! can be counted: the difference between two counts is what the additional rounds cost, whatever set-up costs.
//!
//! ```text
//! cargo run --release -p zkd --example hot_paths -- PATH ROUNDS
//! ```
//!
//! `scripts/instructions` counts all of them and compares with what was counted last.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use zkd::event::ServerState;
use zkd::ids::{ConnId, SessionId, Xid, Zxid};
use zkd::jute::{Record, Writer};
use zkd::peer::LinkDecoder;
use zkd::pipeline::{
    Delivery, Prep, PrepOptions, ServerCnxn, ServerOptions, Submit, Waker, ZkServer,
};
use zkd::record::data::Acl;
use zkd::record::opcode::OpCode;
use zkd::record::proto::ConnectRequest;
use zkd::record::quorum::{QuorumPacket, packet};
use zkd::record::txn::{CreateTxn, DeleteTxn, SetDataTxn, Txn, TxnHeader, TxnRecord};
use zkd::session::SessionTracker;
use zkd::storage::{RealDisk, Storage, StorageOptions};
use zkd::time::{Instant, Now};
use zkd::tree::{DataTree, SnapshotCursor, SnapshotLoader};
use zkd::watch::{EventKind, WatchManager, WatchMode};

/// Znodes in the trees.
const ZNODES: usize = 1000;
/// Txns written with one call, as when many clients write at once.
const BATCH: usize = 32;
/// Watchers of one znode.
const WATCHERS: usize = 100;

/// A path by name.
type HotPath = (&'static str, fn(usize));

const PATHS: [HotPath; 8] = [
    ("read", read),
    ("write", write),
    ("apply-set", apply_set),
    ("apply-create-delete", apply_create_delete),
    ("watch-trigger", watch_trigger),
    ("packet-decode", packet_decode),
    ("log-append", log_append),
    ("snapshot", snapshot),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = args
        .first()
        .and_then(|name| PATHS.iter().find(|(path, _)| path == name));
    let rounds = args.get(1).and_then(|count| count.parse().ok());
    if let (Some((_, run)), Some(rounds)) = (path, rounds) {
        run(rounds);
        return ExitCode::SUCCESS;
    }
    let names: Vec<&str> = PATHS.iter().map(|(name, _)| *name).collect();
    eprintln!(
        "usage: hot_paths PATH ROUNDS, where PATH is one of {}",
        names.join(" ")
    );
    ExitCode::from(2)
}

/// A standalone server with one client, driven as the runtime drives it.
struct Driven {
    server: ZkServer,
    prep: Prep,
    tracker: SessionTracker,
    cnxn: Arc<ServerCnxn>,
    zxid: Zxid,
    input: BytesMut,
    output: Vec<u8>,
    submits: Vec<Submit>,
    txn: Vec<u8>,
}

/// It is looked at after every request anyway.
struct Deaf;

impl Waker for Deaf {
    fn wake(&self) {}
}

const NOW: Now = Now {
    instant: Instant(1_000_000),
    wall_ms: 1_700_000_000_000,
};

impl Driven {
    fn new() -> Self {
        let server = ZkServer::new(ServerOptions::default(), Instant(1));
        server.replace_tree(tree());
        server.start_serving(ServerState::Standalone);
        let cnxn = server.open(
            ConnId(1),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            Arc::new(Deaf),
            NOW.instant,
        );
        let mut driven = Self {
            cnxn: cnxn.expect("there is no other connection"),
            server,
            prep: Prep::new(PrepOptions::default()),
            tracker: SessionTracker::new(2000),
            zxid: Zxid(1 << 32),
            input: BytesMut::new(),
            output: Vec::new(),
            submits: Vec::new(),
            txn: Vec::new(),
        };
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(0),
            timeout_ms: 30_000,
            session_id: SessionId(0),
            passwd: Some(Bytes::from_static(&[0; 16])),
            read_only: Some(false),
        };
        driven.ask(&frame(|out| hello.encode(out)));
        driven
    }

    /// From the bytes of a request to those of its answer.
    fn ask(&mut self, request: &[u8]) {
        self.input.extend_from_slice(request);
        self.cnxn
            .on_bytes(&self.server, &mut self.input, NOW, &mut self.submits);
        for submit in std::mem::take(&mut self.submits) {
            let Submit::Request(request) = submit else {
                continue;
            };
            self.zxid = Zxid(self.zxid.0 + 1);
            let record = {
                let tree = self.server.tree().read();
                self.prep
                    .prepare(&tree, &mut self.tracker, &request, self.zxid, NOW)
            };
            self.txn.clear();
            record.encode(&mut Writer::new(&mut self.txn));
            let header = record.header;
            self.server.apply(&[Delivery::Txn(record)], NOW);
            self.prep.applied(&header, &mut self.tracker);
        }
        self.cnxn.take_output(&mut self.output);
        black_box(&self.output);
        self.output.clear();
    }
}

fn read(rounds: usize) {
    let mut driven = Driven::new();
    let requests: Vec<_> = (0..ZNODES)
        .map(|at| {
            request(OpCode::GetData, |out| {
                out.string(&path(at));
                out.bool(false);
            })
        })
        .collect();
    for request in requests.iter().cycle().take(rounds) {
        driven.ask(request);
    }
}

fn write(rounds: usize) {
    let mut driven = Driven::new();
    let requests: Vec<_> = (0..ZNODES)
        .map(|at| {
            request(OpCode::SetData, |out| {
                out.string(&path(at));
                out.buffer(Some(&[b'y'; 100]));
                out.int(-1);
            })
        })
        .collect();
    for request in requests.iter().cycle().take(rounds) {
        driven.ask(request);
    }
}

fn apply_set(rounds: usize) {
    let mut tree = tree();
    let sets: Vec<_> = (0..ZNODES)
        .map(|at| {
            Txn::SetData(SetDataTxn {
                path: path(at),
                data: data(),
                version: 1,
            })
        })
        .collect();
    for (round, txn) in sets.iter().cycle().take(rounds).enumerate() {
        tree.apply(&record(round, OpCode::SetData, txn.clone()), &mut ());
    }
}

fn apply_create_delete(rounds: usize) {
    let mut tree = tree();
    for round in 0..rounds {
        let path = format!("/p/new-{}", round % ZNODES);
        tree.apply(&record(2 * round, OpCode::Create, create(&path)), &mut ());
        let delete = Txn::Delete(DeleteTxn { path });
        tree.apply(&record(2 * round + 1, OpCode::Delete, delete), &mut ());
    }
}

/// A round is one watcher who sets its watch and is told.
fn watch_trigger(rounds: usize) {
    let mut watches = WatchManager::new();
    let mut told = Vec::new();
    for round in 0..rounds / WATCHERS {
        let path = path(round % ZNODES);
        for watcher in 0..WATCHERS {
            watches.add(&path, ConnId(watcher as u64), WatchMode::Data);
        }
        watches.trigger(EventKind::DataChanged, &path, &mut told);
        assert_eq!(black_box(&told).len(), WATCHERS, "everybody is told");
        told.clear();
    }
}

fn packet_decode(rounds: usize) {
    let proposal = QuorumPacket {
        kind: packet::PROPOSAL,
        zxid: Zxid(1 << 32),
        data: Some(Bytes::from(txn_bytes())),
        authinfo: None,
    };
    let mut bytes = Vec::new();
    for _ in 0..BATCH {
        proposal.encode(&mut Writer::new(&mut bytes));
    }
    let mut decoder = LinkDecoder::new(1 << 20);
    for _ in 0..rounds / BATCH {
        decoder.buffer().extend_from_slice(&bytes);
        while let Some(item) = decoder.next_item().expect("these are packets") {
            black_box(item);
        }
    }
}

fn log_append(rounds: usize) {
    let dir = tempfile::tempdir().expect("a place for the log");
    let disk = RealDisk::open(dir.path(), dir.path(), true).expect("the place is empty");
    let options = StorageOptions {
        force_sync: false,
        ..StorageOptions::default()
    };
    let (mut storage, _) = Storage::open(disk, options).expect("nothing to recover");
    let txn = txn_bytes();
    for round in 0..rounds {
        let zxid = Zxid((1 << 32) + i64::try_from(round).expect("it is small") + 1);
        storage.append(zxid, &txn).expect("there is room");
        if round % BATCH == BATCH - 1 {
            storage.sync().expect("there is room");
        }
    }
}

/// A round is one znode, written into a snapshot and loaded from it.
fn snapshot(rounds: usize) {
    let tree = tree();
    let mut body = Vec::new();
    for _ in 0..rounds / ZNODES {
        body.clear();
        let mut cursor = SnapshotCursor::new();
        while !cursor.next_chunk(&tree, &mut body, 256) {}
        let mut loader = SnapshotLoader::new();
        loader.feed(&body).expect("our own body");
        black_box(loader.finish().expect("it is whole"));
    }
}

fn tree() -> DataTree {
    let mut tree = DataTree::new();
    tree.apply(&record(0, OpCode::Create, create("/p")), &mut ());
    for at in 0..ZNODES {
        tree.apply(&record(at + 1, OpCode::Create, create(&path(at))), &mut ());
    }
    tree
}

fn path(at: usize) -> String {
    format!("/p/n{at:08}")
}

fn data() -> Option<Bytes> {
    Some(Bytes::from_static(&[b'x'; 100]))
}

fn create(path: &str) -> Txn {
    Txn::Create(CreateTxn {
        path: path.to_owned(),
        data: data(),
        acl: Some(Acl::open()),
        ephemeral: false,
        parent_cversion: 1,
    })
}

fn record(number: usize, kind: OpCode, txn: Txn) -> TxnRecord {
    let number = i64::try_from(number).expect("it is small");
    TxnRecord {
        header: TxnHeader {
            client_id: SessionId(1),
            cxid: Xid(1),
            zxid: Zxid(number + 1),
            time: number,
            kind: kind.code(),
        },
        txn,
        digest: None,
    }
}

fn txn_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    record(0, OpCode::Create, create("/p/n00000000")).encode(&mut Writer::new(&mut bytes));
    bytes
}

fn frame(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    write(&mut Writer::new(&mut bytes));
    let length = i32::try_from(bytes.len() - 4).expect("it is small");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn request(op: OpCode, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    frame(|out| {
        out.int(1);
        out.int(op.code());
        body(out);
    })
}
