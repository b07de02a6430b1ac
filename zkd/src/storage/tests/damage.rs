//! Damaged directories.
//!
//! What Apache 3.9.3 and 3.8.0 did with each of the damaged directories is written beside it; where we
//! differ, it is said why.

use super::*;

/// A damaged variant of the clean directory.
fn damaged(number: &str) -> TestDisk {
    let disk = captured("K/base");
    put_dir(&disk, &format!("K/{number}"));
    disk
}

/// It starts, at that txn of epoch 2, with so many notes.
fn starts(disk: &TestDisk, counter: i64, notes: usize) -> Recovered {
    let (_, recovered) = open(disk).unwrap();
    assert_eq!(recovered.last_zxid, Zxid(0x2_0000_0000 + counter));
    assert_eq!(recovered.notes.len(), notes, "{:?}", recovered.notes);
    recovered
}

/// It does not start, and says why.
fn refused(disk: &TestDisk, expected: &str) {
    let text = open(disk).unwrap_err().to_string();
    assert!(text.contains(expected), "{text}");
}

#[test]
fn damaged_logs() {
    let newest = "log.200000001";
    starts(&captured("K/base"), 8, 0);
    // 1 to 3, the last record cut, half zeroed, without its end mark: starts without it. We cut the
    // rest off, too.
    for number in ["01", "02", "03"] {
        let disk = damaged(number);
        let recovered = starts(&disk, 7, 1);
        let [RecoveryNote::TornTail { path, offset }] = &recovered.notes[..] else {
            panic!("{:?}", recovered.notes);
        };
        assert_eq!(path, &disk.path(Dir::Log, newest));
        assert_eq!(disk.get(Dir::Log, newest).len() as u64, *offset);
        starts(&disk, 7, 0);
    }
    // 4, a flipped bit in the middle, and 5, 6, a negative length: refused.
    refused(&damaged("04"), "log/log.200000001 at offset ");
    refused(&damaged("05"), "a record length of -5");
    refused(&damaged("06"), "a record length of -1");
    // 7, an empty newest log: 3.9 removes it and starts, 3.8 does not start.
    let disk = captured("K/base");
    disk.put(Dir::Log, "log.7000000aa", b"");
    starts(&disk, 8, 1);
    assert!(!disk.names(Dir::Log).contains(&"log.7000000aa".to_owned()));
    // 8, a log with nothing but a header: starts.
    starts(&damaged("08"), 8, 0);
    // 9, one with half a header: Apache refuses. It is what a crash may leave and held no txn.
    starts(&damaged("09"), 8, 1);
    // 10, bad magic: refused.
    refused(
        &damaged("10"),
        "log/log.200000001 at offset 0: the magic ZKLG",
    );
    // 16, a zxid missing inside an epoch: 3.9.4 and later refuse, earlier ones start.
    refused(&damaged("16"), "does not follow");
    // 17, an old record a second time: starts. Apache applies it again, we skip it.
    let whole = starts(&captured("K/base"), 8, 0).tree.digest();
    let recovered = starts(&damaged("17"), 8, 1);
    assert!(matches!(
        recovered.notes[..],
        [RecoveryNote::Repeated { count: 1, .. }]
    ));
    assert_eq!(recovered.tree.digest(), whole);
}

#[test]
fn damaged_or_missing_snapshots() {
    let whole = starts(&captured("K/base"), 8, 0).tree.digest();
    // 11, 12, the newest snapshot cut, or with a flipped bit: an older one and the logs.
    for number in ["11", "12"] {
        let recovered = starts(&damaged(number), 8, 1);
        assert_eq!(recovered.snapshot_zxid, Zxid(0x1_0000_0025));
        assert_eq!(recovered.tree.digest(), whole);
    }
    // 13, a snapshot without a log just behind it: starts.
    let disk = captured("K/base");
    disk.remove(Dir::Snap, "snapshot.100000028").unwrap();
    put_dir(&disk, "K/13");
    starts(&disk, 8, 0);
    // 14, logs but no snapshots: refused.
    let disk = captured("K/base");
    for file in snapshot::list(&disk).unwrap() {
        disk.remove(Dir::Snap, &file.name).unwrap();
    }
    refused(&disk, "there are txn logs but no snapshot");
    // 15, neither: Apache starts with an empty tree, which loses the ensemble's data if a majority
    // does it. We start, too, but do not vote, until somebody says that it is meant.
    for (_, name) in txn_log::list(&disk).unwrap() {
        disk.remove(Dir::Log, &name).unwrap();
    }
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.last_zxid, Zxid::NONE);
    assert!(matches!(
        recovered.notes[..],
        [RecoveryNote::NoDatabase { lost: true, .. }]
    ));
    let meant = StorageOptions {
        initialize: true,
        ..options()
    };
    let (_, recovered) = Storage::open(disk, meant).unwrap();
    assert_eq!((recovered.last_zxid, recovered.notes), (Zxid::ZERO, vec![]));
}

#[test]
fn damaged_or_missing_epochs() {
    // 18, currentEpoch behind the history but not acceptedEpoch: a synchronization that was cut off, starts
    // (Apache refuses); behind both: refused. 19, with the right one in a .tmp: starts.
    let recovered = starts(&damaged("18"), 8, 1);
    assert_eq!(recovered.current_epoch, Epoch(1));
    let foreign = damaged("18");
    foreign.put(Dir::Snap, "acceptedEpoch", b"1");
    refused(
        &foreign,
        "currentEpoch: says 1 but the history ends at 0x200000008",
    );
    // 20, acceptedEpoch behind currentEpoch; 23, an empty epoch: refused.
    refused(
        &damaged("20"),
        "acceptedEpoch: says 1, less than currentEpoch 2",
    );
    refused(&damaged("23"), "currentEpoch: holds \"\"");
    // 21, 22, one of them missing: starts, and writes it.
    for name in ["currentEpoch", "acceptedEpoch"] {
        let disk = captured("K/base");
        disk.remove(Dir::Snap, name).unwrap();
        starts(&disk, 8, 0);
        assert_eq!(disk.get(Dir::Snap, name), b"2");
    }
    // 24, an epoch with a newline: starts.
    starts(&damaged("24"), 8, 0);
}

/// Every bit of every record: flipped, it is either found or it was none of ours.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let disk = captured("K/base");
    let name = "log.200000001";
    let bytes = disk.get(Dir::Log, name);
    let end = raw_records(&disk, name)
        .last()
        .map(|record| usize::try_from(record.offset).unwrap() + record.txn.len() + 13)
        .unwrap();
    for bit in 0..end * 8 {
        // Bytes 4 to 15 of the header are not looked at.
        if (32..128).contains(&bit) {
            continue;
        }
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.put(Dir::Log, name, &bytes);
        match open(&disk) {
            Err(StorageError::Corrupt { path, .. }) => {
                assert_eq!(path, disk.path(Dir::Log, name));
            }
            Err(e) => panic!("bit {bit}: {e}"),
            // The end of the last record, which cannot be told from a torn write.
            Ok((_, recovered)) => {
                assert!(
                    matches!(recovered.notes[..], [RecoveryNote::TornTail { .. }]),
                    "bit {bit}: {:?}",
                    recovered.notes
                );
                assert_eq!(recovered.last_zxid, Zxid(0x2_0000_0007), "bit {bit}");
            }
        }
    }
}
