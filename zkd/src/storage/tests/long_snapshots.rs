//! Snapshots that are read in several pieces.

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
fn written(disk: &TestDisk, compression: Compression) -> snapshot::SnapshotFile {
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
