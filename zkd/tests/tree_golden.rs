//! The tree against the files of a real ensemble: every snapshot body decodes and encodes to its own
//! bytes, and replaying the logs over each snapshot gives the digest its leader computed at every txn.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use zkd::ids::Zxid;
use zkd::jute::{Reader, Record};
use zkd::record::txn::TxnRecord;
use zkd::tree::{DataTree, SnapshotCursor, SnapshotLoader};

const SERVERS: [&str; 4] = ["s1", "s2", "s3", "s4"];
const HEADER_LEN: usize = 16;

fn files(server: &str, prefix: &str) -> Vec<(Zxid, PathBuf)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/apache-3.9.3");
    let mut found: Vec<(Zxid, PathBuf)> = std::fs::read_dir(dir.join(server))
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.strip_prefix(prefix)?;
            Some((Zxid(i64::from_str_radix(name, 16).ok()?), path))
        })
        .collect();
    found.sort();
    found
}

fn log_records(server: &str) -> Vec<TxnRecord> {
    let mut records = Vec::new();
    for (_, path) in files(server, "log.") {
        let bytes = std::fs::read(&path).unwrap();
        let mut from = Reader::new(&bytes[HEADER_LEN..]);
        while let Ok(_checksum) = from.long("checksum") {
            let Ok(Some(txn)) = from.buffer("txn") else {
                break;
            };
            if txn.is_empty() {
                break;
            }
            assert_eq!(from.take(1, "end of record").unwrap(), b"B");
            records.push(TxnRecord::from_bytes(&txn).unwrap());
        }
    }
    records
}

/// The tree of a snapshot file, the length of its body, and the zxid from which digests compare.
fn load(name_zxid: Zxid, bytes: &[u8], cut: usize) -> (DataTree, usize, Zxid) {
    let mut loader = SnapshotLoader::new();
    let body = &bytes[HEADER_LEN..];
    let mut at = 0;
    loop {
        let piece = &body[at..(at + cut).min(body.len())];
        let progress = loader.feed(piece).unwrap();
        at += progress.consumed;
        if progress.done {
            break;
        }
        assert_eq!(
            progress.consumed,
            piece.len(),
            "a piece inside the body is used up"
        );
    }
    let mut tree = loader.finish().unwrap();
    tree.set_last_processed_zxid(name_zxid);
    let mut trailer = Reader::new(&body[at..]);
    let _seal = trailer.take(13, "seal").unwrap();
    let digest_zxid = Zxid(trailer.long("digest zxid").unwrap());
    let _version = trailer.int("digest version").unwrap();
    let digest = trailer.long("digest").unwrap();
    if digest_zxid == name_zxid && digest != 0 {
        assert_eq!(tree.digest(), digest, "a snapshot that is not fuzzy");
    }
    (tree, at, digest_zxid.max(name_zxid))
}

fn body_of(tree: &DataTree, max_nodes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut cursor = SnapshotCursor::new();
    while !cursor.next_chunk(tree, &mut out, max_nodes) {}
    out
}

/// Sessions and ACLs as sets (their order in Apache's files is that of a hash table), and the rest.
fn split_body(body: &[u8]) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>, &[u8]) {
    let mut from = Reader::new(body);
    let sessions = (0..from.int("sessions").unwrap())
        .map(|_| from.take(12, "session").unwrap().to_vec())
        .collect();
    let acls = (0..from.int("acls").unwrap())
        .map(|_| {
            let before = from.rest();
            from.long("key").unwrap();
            from.vector::<zkd::record::data::Acl>("acl").unwrap();
            before[..before.len() - from.rest().len()].to_vec()
        })
        .collect();
    (sessions, acls, from.rest())
}

#[test]
fn snapshot_bodies_come_back_byte_for_byte() {
    let mut count = 0;
    for server in SERVERS {
        for (zxid, path) in files(server, "snapshot.") {
            let bytes = std::fs::read(&path).unwrap();
            let (mut tree, body_len, digest_zxid) = load(zxid, &bytes, usize::MAX / 2);
            // A fuzzy file shows znodes later than its name; a walk from there would leave them out.
            tree.set_last_processed_zxid(digest_zxid);
            let original = &bytes[HEADER_LEN..HEADER_LEN + body_len];
            let again = body_of(&tree, 7);
            let (old, new) = (split_body(original), split_body(&again));
            assert_eq!(old.0, new.0, "sessions of {}", path.display());
            assert!(new.1.is_subset(&old.1), "ACLs of {}", path.display());
            assert!(old.2 == new.2, "znodes of {}", path.display());
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} snapshots");
}

#[test]
fn input_in_any_pieces_gives_the_same_tree() {
    for (zxid, path) in files("s1", "snapshot.") {
        let bytes = std::fs::read(&path).unwrap();
        let (whole, body_len, _) = load(zxid, &bytes, usize::MAX / 2);
        for cut in [1, 2, 3, 5, 64, 1000] {
            let (tree, len, _) = load(zxid, &bytes, cut);
            assert_eq!(len, body_len);
            assert_eq!(tree.digest(), whole.digest());
            assert_eq!(body_of(&tree, 1), body_of(&whole, 1000));
        }
    }
}

#[test]
fn replaying_the_logs_reproduces_every_digest() {
    let mut compared = 0;
    for server in SERVERS {
        let records = log_records(server);
        for (zxid, path) in files(server, "snapshot.") {
            let bytes = std::fs::read(&path).unwrap();
            let (mut tree, _, comparable_from) = load(zxid, &bytes, 4096);
            for record in &records {
                let next = record.header.zxid;
                if next <= zxid {
                    continue;
                }
                let last = tree.last_processed_zxid();
                if !next.follows(last) || (next.epoch() != last.epoch() && next.counter() != 1) {
                    break; // what is missing here came with a SNAP
                }
                tree.apply(record, &mut ());
                assert_eq!(tree.last_processed_zxid(), next);
                if let Some(digest) = record.digest
                    && next >= comparable_from
                {
                    assert_eq!(
                        tree.digest(),
                        digest.tree_digest,
                        "at {next} after {}",
                        path.display()
                    );
                    compared += 1;
                }
            }
            if tree.last_processed_zxid() >= comparable_from {
                assert_eq!(tree.digest(), reloaded(&tree).digest());
            }
        }
    }
    assert!(compared > 1000, "only {compared} digests compared");
}

fn reloaded(tree: &DataTree) -> DataTree {
    let body = body_of(tree, 10);
    let mut loader = SnapshotLoader::new();
    assert!(loader.feed(&body).unwrap().done);
    loader.finish().unwrap()
}

#[test]
fn every_log_record_comes_back_byte_for_byte() {
    for server in SERVERS {
        for record in log_records(server) {
            let again = TxnRecord::from_slice(&record.to_vec()).unwrap();
            assert_eq!(again, record);
        }
    }
}
