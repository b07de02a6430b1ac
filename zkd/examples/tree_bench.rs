//! How much memory a znode takes and how long the tree's operations last, with a million znodes of
//! 100 bytes. Run it with `cargo run --release --example tree_bench`.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::record::data::Acl;
use zkd::record::opcode::OpCode;
use zkd::record::txn::{CreateTxn, DeleteTxn, SetDataTxn, Txn, TxnHeader, TxnRecord};
use zkd::tree::{DataTree, SnapshotCursor, SnapshotLoader};

const PARENTS: usize = 1000;
const CHILDREN: usize = 1000;

fn main() {
    let mut zxid = 0;
    let mut tree = DataTree::new();
    for at in 0..PARENTS {
        let txn = create(format!("/p{at:03}"), at + 2);
        tree.apply(&record(&mut zxid, OpCode::Create, txn), &mut ());
    }
    let total = PARENTS * CHILDREN;
    let mut records = |kind: OpCode, txn: &dyn Fn(usize) -> Txn| -> Vec<TxnRecord> {
        (0..total)
            .map(|at| record(&mut zxid, kind, txn(at)))
            .collect()
    };
    let creates = records(OpCode::Create, &|at| create(path(at), at / PARENTS + 1));
    let sets = records(OpCode::SetData, &|at| {
        Txn::SetData(SetDataTxn {
            path: path(at),
            data: data(),
            version: 1,
        })
    });
    let deletes = records(OpCode::Delete, &|at| {
        Txn::Delete(DeleteTxn { path: path(at) })
    });
    let paths: Vec<String> = (0..total).map(|at| path(at * 7919 % total)).collect();

    let before = resident_bytes();
    let mut slowest = 0;
    timed("create", total, || {
        for record in &creates {
            let start = Instant::now();
            tree.apply(record, &mut ());
            slowest = slowest.max(start.elapsed().as_micros());
        }
    });
    report(&format!("slowest create          {slowest:8} us"));
    let each = (resident_bytes() - before) / total;
    report(&format!("memory per znode        {each:8} bytes"));
    timed("setData", total, || apply_all(&mut tree, &sets));
    timed("setData of one", total, || {
        for _ in &sets {
            tree.apply(&sets[7], &mut ());
        }
    });
    timed("lookup and Stat", total, || {
        for path in &paths {
            black_box(tree.node(path).map(|node| (node.stat(), node.data())));
        }
    });
    timed("lookup of one", total, || {
        for _ in &paths {
            black_box(tree.node(&paths[7]).map(|node| (node.stat(), node.data())));
        }
    });
    timed("create and delete one", total, || {
        for _ in &sets {
            tree.apply(&creates[7], &mut ());
            tree.apply(&deletes[7], &mut ());
        }
    });
    tree.apply(&creates[7], &mut ());
    let mut body = Vec::new();
    timed("write snapshot", total, || {
        let mut cursor = SnapshotCursor::new();
        while !cursor.next_chunk(&tree, &mut body, 1000) {}
    });
    timed("load snapshot", total, || {
        let mut loader = SnapshotLoader::new();
        loader.feed(&body).expect("our own body");
        black_box(loader.finish().expect("it is whole"));
    });
    timed("delete", total, || apply_all(&mut tree, &deletes));
}

fn record(zxid: &mut i64, kind: OpCode, txn: Txn) -> TxnRecord {
    *zxid += 1;
    TxnRecord {
        header: TxnHeader {
            client_id: SessionId(1),
            cxid: Xid(1),
            zxid: Zxid(*zxid),
            time: *zxid,
            kind: kind.code(),
        },
        txn,
        digest: None,
    }
}

fn path(at: usize) -> String {
    format!("/p{:03}/n{:08}", at % PARENTS, at)
}

fn data() -> Option<Bytes> {
    Some(Bytes::from_static(&[b'x'; 100]))
}

fn create(path: String, parent_cversion: usize) -> Txn {
    Txn::Create(CreateTxn {
        path,
        data: data(),
        acl: Some(Acl::open()),
        ephemeral: false,
        parent_cversion: i32::try_from(parent_cversion).expect("it is small"),
    })
}

fn apply_all(tree: &mut DataTree, records: &[TxnRecord]) {
    for record in records {
        tree.apply(record, &mut ());
    }
}

/// Processor time, so that what else runs on the machine matters less.
fn timed(what: &str, count: usize, work: impl FnOnce()) {
    let start = processor_ns();
    work();
    let each = (processor_ns() - start) / count as u64;
    report(&format!("{what:23} {each:8} ns"));
}

fn processor_ns() -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = schedstat.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.unwrap_or(0)
}

#[expect(
    clippy::print_stdout,
    reason = "telling the numbers is what this is for"
)]
fn report(line: &str) {
    println!("{line}");
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * 4096
}
