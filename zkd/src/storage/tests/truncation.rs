//! Logs that are cut back, and what a taken-over snapshot leaves behind.

use super::*;

/// What Apache's TRUNC left of the same directory.
#[test]
fn truncation_cuts_where_apache_does() {
    let disk = captured("L-393/before-trunc-s3");
    let apache = captured("L-393/after-trunc-s3");
    let (mut storage, before) = open(&disk).unwrap();
    assert_eq!(before.last_zxid, Zxid(0x1_0000_002b));
    let recovered = storage.truncate(Zxid(0x1_0000_0029)).unwrap();
    assert_eq!(recovered.last_zxid, Zxid(0x1_0000_0029));
    assert_eq!(recovered.tree.last_processed_zxid(), Zxid(0x1_0000_0029));
    let name = "log.100000001";
    assert!(disk.get(Dir::Log, name) == apache.get(Dir::Log, name));
    // The next txn goes into a file of its own, and the whole is a history again.
    let next = txn(0x2_0000_0001);
    storage.append(Zxid(0x2_0000_0001), &next).unwrap();
    storage.set_accepted_epoch(Epoch(2)).unwrap();
    storage.sync().unwrap();
    storage.set_current_epoch(Epoch(2)).unwrap();
    assert_eq!(disk.names(Dir::Log), [name, "log.200000001"]);
    assert_eq!(clean(&disk).last_zxid, Zxid(0x2_0000_0001));
}

/// Off by one, on either side of every txn, in every file of a history.
#[test]
fn truncation_keeps_exactly_what_it_is_told() {
    let zxids: Vec<_> = {
        let disk = captured("A-393/s2");
        txn_log::list(&disk)
            .unwrap()
            .iter()
            .flat_map(|(_, name)| raw_records(&disk, name))
            .map(|record| record.zxid)
            .collect()
    };
    for (at, to) in zxids.iter().enumerate() {
        let disk = captured("A-393/s2");
        let (mut storage, _) = open(&disk).unwrap();
        let recovered = storage.truncate(*to).unwrap();
        assert_eq!(recovered.last_zxid, *to);
        let left: Vec<_> = txn_log::list(&disk)
            .unwrap()
            .iter()
            .flat_map(|(_, name)| raw_records(&disk, name))
            .map(|record| record.zxid)
            .collect();
        assert_eq!(left, zxids[..=at]);
        assert!(snapshot::list(&disk).unwrap().iter().all(|f| f.zxid <= *to));
        drop(storage);
        let again = clean(&disk);
        assert_eq!(again.last_zxid, *to);
        assert_eq!(again.tree.digest(), recovered.tree.digest());
    }
}

/// A zxid that is not in the history: nothing is cut, and the caller is told.
#[test]
fn truncation_to_an_unknown_zxid_cuts_nothing() {
    let disk = captured("A-393/s2");
    let (mut storage, before) = open(&disk).unwrap();
    let names = (disk.names(Dir::Log), disk.names(Dir::Snap));
    for unknown in [0x2_0000_00ff, -5] {
        let recovered = storage.truncate(Zxid(unknown)).unwrap();
        assert_eq!(recovered.last_zxid, before.last_zxid);
        assert_eq!(recovered.tree.digest(), before.tree.digest());
        assert_eq!((disk.names(Dir::Log), disk.names(Dir::Snap)), names);
    }
    assert_eq!(clean(&disk).last_zxid, before.last_zxid);
}

/// A log of nine txns, and a tree with those up to `applied`.
fn nine_logged(applied: i64) -> (TestDisk, Storage<TestDisk>, DataTree) {
    let disk = TestDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let mut tree = DataTree::new();
    for zxid in 1..=9 {
        let bytes = txn(zxid);
        storage.append(Zxid(zxid), &bytes).unwrap();
        if zxid <= applied {
            let _ = tree.apply(&TxnRecord::from_slice(&bytes).unwrap(), &mut ());
        }
    }
    storage.sync().unwrap();
    (disk, storage, tree)
}

/// A snapshot that was being written while a role ended may show txns that were never committed, under
/// the name of one that was.
#[test]
fn truncation_does_not_build_on_a_snapshot_that_shows_too_much() {
    let (disk, mut storage, tree) = nine_logged(9);
    let mut writer = SnapshotWriter::begin(disk.clone(), Zxid(4), Compression::None).unwrap();
    let mut body = Vec::new();
    assert!(crate::tree::SnapshotCursor::new().next_chunk(&tree, &mut body, 1000));
    writer.write_chunk(&body).unwrap();
    let digest = Some((Zxid(9), tree.digest()));
    writer.finish(digest, Some(Zxid(9)), true).unwrap();
    let recovered = storage.truncate(Zxid(6)).unwrap();
    assert_eq!(recovered.last_zxid, Zxid(6));
    for tree in [recovered.tree, clean(&disk).tree] {
        assert!(tree.node("/n6").is_some() && tree.node("/n7").is_none());
    }
}

/// A tree taken over from a leader hides what this server logged behind it, for good.
#[test]
fn a_snapshot_taken_over_leaves_nothing_behind_it() {
    let (disk, mut storage, tree) = nine_logged(4);
    storage.write_snapshot(&tree).unwrap();
    assert_eq!(clean(&disk).last_zxid, Zxid(4));
    storage.set_accepted_epoch(Epoch(1)).unwrap();
    storage.set_current_epoch(Epoch(1)).unwrap();
    storage
        .append(Zxid(0x1_0000_0001), &txn(0x1_0000_0001))
        .unwrap();
    storage.sync().unwrap();
    let recovered = Storage::open(disk.clone(), small()).unwrap().1;
    assert_eq!(recovered.last_zxid, Zxid(0x1_0000_0001));
    assert!(recovered.tree.node("/n4").is_some() && recovered.tree.node("/n5").is_none());
}
