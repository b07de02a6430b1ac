//! Snapshots that are read in several pieces, all but the first with the help of a second thread.

use super::*;
use crate::record::data::Acl;
use crate::record::opcode::OpCode;

const ZNODES: i64 = 15_000;

fn long_tree() -> DataTree {
    let mut tree = DataTree::new();
    for number in 1..=ZNODES {
        let txn = Txn::Create(CreateTxn {
            path: format!("/n{number}"),
            data: Some(vec![7; 100].into()),
            acl: Some(Acl::open()),
            ephemeral: false,
            parent_cversion: -1,
        });
        let header = TxnHeader {
            client_id: SessionId(1),
            cxid: Xid(1),
            zxid: Zxid(number),
            time: number,
            kind: OpCode::Create.code(),
        };
        let record = TxnRecord {
            header,
            txn,
            digest: None,
        };
        tree.apply(&record, &mut ());
    }
    tree
}

/// Puts the tree on the disk; the file's name.
pub(in crate::storage) fn written(
    disk: &TestDisk,
    compression: Compression,
) -> snapshot::SnapshotFile {
    let options = StorageOptions {
        compression,
        ..options()
    };
    snapshot::write_tree(disk, &long_tree(), Zxid(ZNODES), &options).unwrap();
    snapshot::list(disk).unwrap().remove(0)
}

#[test]
fn come_back_as_they_were() {
    let digest = long_tree().digest();
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy] {
        let disk = TestDisk::new();
        let loaded = snapshot::load(&disk, &written(&disk, compression)).unwrap();
        assert_eq!(loaded.tree.digest(), digest, "{compression:?}");
        assert_eq!(loaded.digest, Some((Zxid(ZNODES), digest)));
    }
}

#[test]
fn are_refused_if_damaged() {
    let disk = TestDisk::new();
    let file = written(&disk, Compression::None);
    let whole = disk.get(Dir::Snap, &file.name);
    assert!(whole.len() > 4 * 512 * 1024, "several pieces");
    let mut prng = Prng::new(5);
    for round in 0..60 {
        // What stands behind the seal of the tree is another matter.
        let at = usize::try_from(prng.below(whole.len() as u64 - 100)).unwrap();
        let mut bytes = whole.clone();
        if round % 2 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << prng.below(8);
        }
        disk.put(Dir::Snap, &file.name, &bytes);
        assert!(snapshot::load(&disk, &file).is_err(), "damaged at {at}");
    }
}

/// A znode that Apache would not write where it stands: all others come back, and this one is what the last of its
/// records says.
#[test]
fn may_have_a_path_twice() {
    let disk = TestDisk::new();
    let file = written(&disk, Compression::None);
    let whole = disk.get(Dir::Snap, &file.name);
    let path = format!("/n{ZNODES}");
    let last = (whole.windows(path.len()))
        .rposition(|at| at == path.as_bytes())
        .unwrap();
    for other in ["/n10001", "/x10001"] {
        let mut bytes = whole.clone();
        bytes[last..last + path.len()].copy_from_slice(other.as_bytes());
        let tree_end = bytes.len() - 2 * 13 - 20 - 8 - 13;
        let sum = simd_adler32::adler32(&&bytes[..tree_end]);
        bytes.truncate(tree_end);
        bytes.extend_from_slice(&i64::from(sum).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 1, b'/']);
        disk.put(Dir::Snap, &file.name, &bytes);
        let tree = snapshot::load(&disk, &file).unwrap().tree;
        let lost = usize::from(other == "/n10001");
        assert_eq!(tree.node_count(), long_tree().node_count() - lost);
        let czxid = tree.node(other).unwrap().stat().czxid;
        assert_eq!(czxid, Zxid(ZNODES), "the later one");
        assert!(tree.node(&path).is_none());
    }
}

/// What a decompressor says in the middle of a file, it says for the whole of it.
#[test]
fn are_refused_if_they_cannot_be_read_on() {
    for compression in [Compression::Gzip, Compression::Snappy] {
        let disk = TestDisk::new();
        let file = written(&disk, compression);
        let whole = disk.get(Dir::Snap, &file.name);
        for part in [2, 3, 4] {
            let mut bytes = whole.clone();
            bytes.truncate(whole.len() - whole.len() / part);
            disk.put(Dir::Snap, &file.name, &bytes);
            let error = snapshot::load(&disk, &file).unwrap_err().to_string();
            assert!(error.contains(&file.name), "{error}");
        }
    }
}
