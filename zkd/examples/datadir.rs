//! Writes and reads data directories without a server, for trying Apache ZooKeeper on ours and for
//! measuring recovery.
//!
//! ```text
//! cargo run --release -p zkd --example datadir -- fill DIR TXNS [SNAPSHOT-EVERY]
//! cargo run --release -p zkd --example datadir -- read DIR
//! ```

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::Record;
use zkd::record::data::{Acl, Id};
use zkd::record::opcode::OpCode;
use zkd::record::txn::{
    CreateContainerTxn, CreateSessionTxn, CreateTxn, DeleteTxn, MultiOp, MultiTxn, SetDataTxn, Txn,
    TxnDigest, TxnHeader, TxnRecord,
};
use zkd::storage::{RealDisk, Storage, StorageOptions};
use zkd::tree::DataTree;

const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);
/// Znodes below one parent.
const FAN_OUT: i32 = 1000;
/// Txns synced together.
const BATCH: i64 = 200;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["fill", dir, txns] => fill(dir, txns, "100000"),
        ["fill", dir, txns, every] => fill(dir, txns, every),
        ["read", dir] => read(dir),
        _ => Err("usage: datadir fill DIR TXNS [SNAPSHOT-EVERY] | read DIR".into()),
    };
    match done {
        Ok(text) => {
            let written = writeln!(std::io::stdout(), "{text}");
            ExitCode::from(u8::from(written.is_err()))
        }
        Err(e) => {
            eprintln!("datadir: {e}");
            ExitCode::FAILURE
        }
    }
}

fn open(dir: &str) -> Result<(Storage<RealDisk>, zkd::storage::Recovered)> {
    let disk = RealDisk::open(Path::new(dir), Path::new(dir), true)?;
    Ok(Storage::open(disk, StorageOptions::default())?)
}

fn read(dir: &str) -> Result<String> {
    let start = Instant::now();
    let (_storage, recovered) = open(dir)?;
    let took = start.elapsed();
    for note in &recovered.notes {
        eprintln!("note: {note}");
    }
    Ok(format!(
        "last zxid {}, {} znodes, digest {:#x}; snapshot {} and {} txns read in {took:?}",
        recovered.last_zxid,
        recovered.tree.node_count(),
        recovered.tree.digest(),
        recovered.snapshot_zxid,
        recovered.replayed,
    ))
}

fn fill(dir: &str, txns: &str, every: &str) -> Result<String> {
    let (txns, every): (i64, i64) = (txns.parse()?, every.parse()?);
    let (mut storage, recovered) = open(dir)?;
    let mut tree = recovered.tree;
    let first = recovered.last_zxid.0 + 1;
    for zxid in first..first + txns {
        let record = record(&mut tree, Zxid(zxid), zxid - first);
        storage.append(Zxid(zxid), &record.to_vec())?;
        if zxid % BATCH == 0 {
            storage.sync()?;
        }
        if zxid % every == 0 {
            storage.sync()?;
            storage.write_snapshot(&tree)?;
        }
    }
    storage.sync()?;
    Ok(format!(
        "last zxid {}, {} znodes, digest {:#x}",
        tree.last_processed_zxid(),
        tree.node_count(),
        tree.digest()
    ))
}

/// The txn `number` of the filling, applied, with the tree's digest after it.
fn record(tree: &mut DataTree, zxid: Zxid, number: i64) -> TxnRecord {
    let number = i32::try_from(number).expect("fewer txns than an i32 counts");
    let (kind, txn) = txn(number);
    let mut record = TxnRecord {
        header: TxnHeader {
            client_id: SESSION,
            cxid: Xid(number),
            zxid,
            time: 1_700_000_000_000 + i64::from(number),
            kind: kind as i32,
        },
        txn,
        digest: None,
    };
    let _ = tree.apply(&record, &mut ());
    record.digest = Some(TxnDigest {
        version: 2,
        tree_digest: tree.digest(),
    });
    record
}

fn txn(number: i32) -> (OpCode, Txn) {
    let set_data = |path: String| SetDataTxn {
        path,
        data: Some("changed".into()),
        version: 1,
    };
    let (group, member) = (number / FAN_OUT, number % FAN_OUT);
    let path = format!("/g{group}/n{member}");
    match number {
        0 => {
            let open = CreateSessionTxn { timeout_ms: 30_000 };
            return (OpCode::CreateSession, Txn::CreateSession(open));
        }
        5 => {
            let delete = DeleteTxn {
                path: "/g0/n2".to_owned(),
            };
            return (OpCode::Delete, Txn::Delete(delete));
        }
        6 => {
            let set = set_data("/g0/n3".to_owned());
            return (OpCode::SetData, Txn::SetData(set));
        }
        7 => {
            let ops = vec![
                MultiOp {
                    kind: OpCode::Create as i32,
                    data: Some(create("/g0/multi".to_owned(), 7, true).to_vec().into()),
                },
                MultiOp {
                    kind: OpCode::SetData as i32,
                    data: Some(set_data("/g0/n4".to_owned()).to_vec().into()),
                },
            ];
            return (OpCode::Multi, Txn::Multi(MultiTxn { ops }));
        }
        8 => {
            let container = CreateContainerTxn {
                path: "/container".to_owned(),
                data: None,
                acl: Some(everyone()),
                parent_cversion: 2,
            };
            return (OpCode::CreateContainer, Txn::CreateContainer(container));
        }
        _ => {}
    }
    // The first of each group makes the parent.
    if number == 1 || member == 0 {
        let parent = create(format!("/g{group}"), group + 3, false);
        (OpCode::Create, Txn::Create(parent))
    } else {
        (OpCode::Create2, Txn::Create(create(path, member, false)))
    }
}

fn create(path: String, parent_cversion: i32, ephemeral: bool) -> CreateTxn {
    CreateTxn {
        path,
        data: Some(vec![b'd'; 100].into()),
        acl: Some(everyone()),
        ephemeral,
        parent_cversion,
    }
}

fn everyone() -> Vec<Acl> {
    vec![Acl {
        perms: 31,
        id: Id {
            scheme: Some("world".to_owned()),
            id: Some("anyone".to_owned()),
        },
    }]
}
