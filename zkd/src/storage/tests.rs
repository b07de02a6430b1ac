//! Storage against real directories of Apache ZooKeeper (`testdata/storage`), against damage, and
//! against a disk that dies at every call.

mod crashes;
mod damage;
pub(super) mod long_snapshots;
mod truncation;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::test_disk::TestDisk;
use super::txn_log::{FileReader, Step};
use super::*;
use crate::ids::{SessionId, Xid};
use crate::jute::Record;
use crate::record::txn::{CreateTxn, Txn, TxnHeader, TxnRecord};

/// `preAllocSize` of the captured servers.
const PREALLOC: u64 = 16 * 1024;

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/storage")
        .join(name)
}

/// Puts the files of a captured directory on the disk: logs here, everything else there.
fn put_dir(disk: &TestDisk, name: &str) {
    for entry in std::fs::read_dir(testdata(name)).unwrap() {
        let entry = entry.unwrap();
        let file = entry.file_name().into_string().unwrap();
        let dir = if file.starts_with("log.") {
            Dir::Log
        } else {
            Dir::Snap
        };
        disk.put(dir, &file, &std::fs::read(entry.path()).unwrap());
    }
}

fn captured(name: &str) -> TestDisk {
    let disk = TestDisk::new();
    put_dir(&disk, name);
    disk
}

fn options() -> StorageOptions {
    StorageOptions {
        prealloc_bytes: PREALLOC,
        distributed: true,
        ..StorageOptions::default()
    }
}

fn open(disk: &TestDisk) -> Result<(Storage<TestDisk>, Recovered), StorageError> {
    Storage::open(disk.clone(), options())
}

/// Reads a directory that must hold a whole history.
fn clean(disk: &TestDisk) -> Recovered {
    let (_, recovered) = open(disk).unwrap();
    assert_eq!(recovered.notes, []);
    recovered
}

fn raw_records(disk: &TestDisk, name: &str) -> Vec<LogRecord> {
    let file = disk.open(Dir::Log, name).unwrap();
    let mut reader = FileReader::new(file, name.into()).unwrap();
    reader.header().unwrap();
    let mut records = Vec::new();
    while let Step::Record(record) = reader.next().unwrap() {
        records.push(record);
    }
    records
}

/// What a captured directory holds: its name, last zxid, current epoch, the snapshot it starts
/// from and the digest of the whole tree.
const APACHE_DIRS: [(&str, i64, i64, i64, i64); 9] = [
    ("A-393/s1", 0x3_0000_0053, 3, 0x3_0000_0034, 0x46_7a48_0b68),
    ("A-393/s2", 0x3_0000_0053, 3, 0x3_0000_0043, 0x46_7a48_0b68),
    ("A-393/s3", 0x3_0000_0053, 3, 0x3_0000_0028, 0x46_7a48_0b68),
    ("A-393/s4", 0x3_0000_0053, 3, 0x3_0000_004a, 0x46_7a48_0b68),
    ("A-380/s2", 0x3_0000_0054, 3, 0x3_0000_0038, 0x43_bcf0_fff4),
    ("A-380/s3", 0x3_0000_0054, 3, 0x3_0000_004f, 0x43_bcf0_fff4),
    ("B-393/s1", 0x2_0000_0036, 2, 0x1_0000_000f, 0x0a_fa38_f39b),
    (
        "L-393/after-trunc-s3",
        0x2_0000_0001,
        2,
        0x1_0000_0029,
        0x08_bee4_1ff3,
    ),
    // A history with uncommitted txns that only a newer snapshot hides.
    (
        "L-393/after-snap-s2",
        0x3_0000_0008,
        3,
        0x3_0000_0008,
        0x09_eb3e_e39a,
    ),
];

/// Recovery compares every digest the leader noted, so a clean one says that every txn since the
/// snapshot had its exact effect.
#[test]
fn apache_directories_are_read() {
    for (name, last, epoch, snapshot, digest) in APACHE_DIRS {
        let recovered = clean(&captured(name));
        assert_eq!(recovered.last_zxid, Zxid(last), "{name}");
        assert_eq!(recovered.tree.last_processed_zxid(), Zxid(last), "{name}");
        assert_eq!(recovered.accepted_epoch, Epoch(epoch), "{name}");
        assert_eq!(recovered.current_epoch, Epoch(epoch), "{name}");
        assert_eq!(recovered.snapshot_zxid, Zxid(snapshot), "{name}");
        assert_eq!(recovered.tree.digest(), digest, "{name}");
        let txns = &recovered.committed;
        assert_eq!(txns.len() as u64, recovered.replayed, "{name}");
        assert_eq!(txns.last().map_or(Zxid(snapshot), |t| t.0), Zxid(last));
    }
}

/// From each snapshot, fuzzy ones too, the logs lead to the same tree.
#[test]
fn any_snapshot_leads_to_the_same_tree() {
    let names = ["A-393/s1", "A-393/s2", "A-393/s3", "A-380/s2", "A-380/s3"];
    for name in names {
        let disk = captured(name);
        let whole = clean(&disk).tree.digest();
        for file in snapshot::list(&disk).unwrap() {
            assert_eq!(clean(&disk).tree.digest(), whole, "{name} {}", file.name);
            disk.remove(Dir::Snap, &file.name).unwrap();
        }
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, StorageError::NoSnapshot { .. }), "{error}");
    }
}

/// Files of standalone servers, with their snapshots packed by Java's gzip and snappy, and without
/// digests.
#[test]
fn packed_snapshots_are_read() {
    let alone = StorageOptions {
        distributed: false,
        ..options()
    };
    for (name, snapshot, digest) in [
        ("G-393/gz", 0x20, 0x0b_f913_29db),
        ("G-393/snappy", 0x27, 0x08_aaaa_2d13),
        ("G-393/nodigest", 0x20, 0x07_b08e_acd5),
    ] {
        let disk = captured(name);
        let (_, recovered) = Storage::open(disk.clone(), alone.clone()).unwrap();
        assert_eq!(recovered.notes, [], "{name}");
        assert_eq!(recovered.last_zxid, Zxid(0x28), "{name}");
        assert_eq!(recovered.snapshot_zxid, Zxid(snapshot), "{name}");
        assert_eq!(recovered.tree.digest(), digest, "{name}");
        assert!(
            !disk.names(Dir::Snap).contains(&"currentEpoch".to_owned()),
            "a server that stands alone has no epochs"
        );
    }
}

/// The bytes Apache wrote, written again.
#[test]
fn logs_are_written_as_apache_does() {
    for (dir, name) in [
        ("A-393/s1", "log.100000001"),
        ("A-393/s2", "log.300000045"),
        ("A-380/s3", "log.30000002b"),
        ("G-393/gz", "log.1"),
    ] {
        let apache = captured(dir);
        let records = raw_records(&apache, name);
        let disk = TestDisk::new();
        let mut writer = LogWriter::new(disk.clone(), PREALLOC, true);
        for (count, record) in records.iter().enumerate() {
            writer.append(record.zxid, &record.txn).unwrap();
            if count % 7 == 0 {
                writer.sync().unwrap();
            }
        }
        writer.sync().unwrap();
        assert_eq!(disk.names(Dir::Log), [name]);
        assert!(
            disk.get(Dir::Log, name) == apache.get(Dir::Log, name),
            "{dir}/{name}"
        );
    }
}

/// Zeros that are written at once become one large folio of the page cache, and each sync counts all of it.
#[test]
fn zeros_are_written_page_by_page() {
    let disk = TestDisk::new();
    let mut writer = LogWriter::new(disk.clone(), PREALLOC, true);
    writer.append(Zxid(1), b"a txn").unwrap();
    writer.sync().unwrap();
    assert!(disk.get(Dir::Log, "log.1").len() as u64 > PREALLOC);
    assert_eq!(disk.longest_write(), 4096);
}

#[test]
fn snapshots_are_written_as_apache_does() {
    // Those whose sessions and ACLs Java's hash maps happened to put in ascending order, and whose
    // tree stood still.
    for (dir, zxid) in [
        ("A-393/s1", 0),
        ("A-393/s1", 0x1_0000_002f),
        ("A-393/s2", 0x2_0000_002c),
        ("A-393/s3", 0x1_0000_005a),
        ("A-393/s4", 0x2_0000_0025),
        ("L-393/after-trunc-s3", 0x1_0000_0029),
    ] {
        let apache = captured(dir);
        let file = snapshot::list(&apache)
            .unwrap()
            .into_iter()
            .find(|file| file.zxid == Zxid(zxid))
            .unwrap();
        let loaded = snapshot::load(&apache, &file).unwrap();
        let disk = TestDisk::new();
        let name = snapshot::write_tree(&disk, &loaded.tree, file.zxid, &options()).unwrap();
        assert_eq!(name, file.name);
        assert!(
            disk.get(Dir::Snap, &name) == apache.get(Dir::Snap, &name),
            "{dir}/{name}"
        );
    }
}

#[test]
fn every_compression_comes_back() {
    let tree = clean(&captured("A-393/s2")).tree;
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy] {
        for digest_enabled in [true, false] {
            let disk = TestDisk::new();
            let options = StorageOptions {
                compression,
                digest_enabled,
                distributed: false,
                ..options()
            };
            let mut storage = Storage::open(disk.clone(), options.clone()).unwrap().0;
            let name = storage.write_snapshot(&tree).unwrap();
            assert!(!disk.names(Dir::Snap).iter().any(|n| n.ends_with(".tmp")));
            assert_eq!(snapshot::implausible(&disk, &name).unwrap(), None);
            let (_, recovered) = Storage::open(disk, options).unwrap();
            assert_eq!(recovered.notes, []);
            assert_eq!(recovered.snapshot_zxid, tree.last_processed_zxid());
            assert_eq!(recovered.tree.digest(), tree.digest());
            assert_eq!(recovered.tree.sessions(), tree.sessions());
        }
    }
}

/// Every way to cut a snapshot and every flipped bit leads to the older one, never to a wrong tree.
#[test]
fn damaged_snapshots_are_skipped() {
    for (dir, name) in [
        ("K/base", "snapshot.100000028"),
        ("G-393/gz", "snapshot.20.gz"),
        ("G-393/snappy", "snapshot.27.snappy"),
    ] {
        let disk = captured(dir);
        let expected = open_alone(&disk).tree.digest();
        let whole = disk.get(Dir::Snap, name);
        // What stands behind the last seal is not looked at, and gzip has bytes that say nothing.
        let mut prng = Prng::new(3);
        for _ in 0..200 {
            let at = usize::try_from(prng.below(whole.len() as u64)).unwrap();
            let mut bytes = whole.clone();
            if prng.one_in(2) {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << prng.below(8);
            }
            disk.put(Dir::Snap, name, &bytes);
            let recovered = open_alone(&disk);
            assert_eq!(recovered.tree.digest(), expected, "{dir}/{name} at {at}");
        }
    }
}

fn open_alone(disk: &TestDisk) -> Recovered {
    let options = StorageOptions {
        distributed: false,
        ..options()
    };
    Storage::open(disk.clone(), options).unwrap().1
}

fn txn(zxid: i64) -> Vec<u8> {
    create(zxid, &format!("/n{zxid:x}"), 40)
}

/// A create below the root, of a session that has none.
fn create(zxid: i64, path: &str, size: usize) -> Vec<u8> {
    let zxid = Zxid(zxid);
    TxnRecord {
        header: TxnHeader {
            client_id: SessionId(0x1234),
            cxid: Xid(7),
            zxid,
            time: 1_700_000_000_000,
            kind: 1,
        },
        txn: Txn::Create(CreateTxn {
            path: path.to_owned(),
            data: Some(vec![b'x'; size].into()),
            acl: None,
            ephemeral: false,
            parent_cversion: i32::try_from(zxid.counter()).unwrap(),
        }),
        digest: None,
    }
    .to_vec()
}

/// Small logs, and a snapshot due every few txns.
fn small() -> StorageOptions {
    StorageOptions {
        prealloc_bytes: 4096,
        snap_count: 12,
        distributed: true,
        ..StorageOptions::default()
    }
}

#[test]
fn a_fresh_server_begins_as_apache_does() {
    let disk = TestDisk::new();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.last_zxid, recovered.notes), (Zxid::ZERO, vec![]));
    assert_eq!(
        disk.names(Dir::Snap),
        ["acceptedEpoch", "currentEpoch", "snapshot.0"]
    );
    assert_eq!(disk.get(Dir::Snap, "currentEpoch"), b"0");
    assert_eq!(
        disk.names(Dir::Log),
        [""; 0],
        "the first log comes with the first txn"
    );

    let disk = TestDisk::new();
    let no_autocreate = StorageOptions {
        db_autocreate: false,
        ..options()
    };
    let (_, recovered) = Storage::open(disk.clone(), no_autocreate).unwrap();
    assert_eq!(recovered.last_zxid, Zxid::NONE);
    assert!(snapshot::list(&disk).unwrap().is_empty());
}

/// Nothing that holds txns is ever written over.
#[test]
fn an_existing_log_is_not_overwritten() {
    let disk = captured("K/base");
    let (mut storage, _) = open(&disk).unwrap();
    let before = disk.get(Dir::Log, "log.200000001");
    let error = storage
        .append(Zxid(0x2_0000_0001), &txn(0x2_0000_0001))
        .unwrap_err();
    assert!(
        error.to_string().contains("exists and holds txns"),
        "{error}"
    );
    assert_eq!(disk.get(Dir::Log, "log.200000001"), before);
}

/// The names, oldest first, that a purge leaves of logs and snapshots.
fn left(disk: &TestDisk) -> (Vec<String>, Vec<String>) {
    let logs = txn_log::list(disk).unwrap();
    let snapshots = snapshot::list(disk).unwrap();
    (
        logs.into_iter().map(|(_, name)| name).collect(),
        snapshots.into_iter().rev().map(|f| f.name).collect(),
    )
}

#[test]
fn purging_keeps_three_whole_snapshots_and_their_logs() {
    let disk = captured("A-393/s3");
    let whole = clean(&disk).tree.digest();
    // A short one does not count.
    disk.put(Dir::Snap, "snapshot.300000030", b"ZKSN too short");
    disk.put(Dir::Snap, "snapshot.300000031.tmp", b"being written");
    let removed = purge(&disk, 0).unwrap();
    assert_eq!(
        removed,
        [
            "log.100000001",
            "log.10000002c",
            "snapshot.0",
            "snapshot.100000000",
            "snapshot.10000002a",
            "snapshot.100000057",
        ]
    );
    let (logs, snapshots) = left(&disk);
    assert_eq!(logs, ["log.100000059", "log.300000001", "log.30000002a"]);
    assert_eq!(
        snapshots,
        [
            "snapshot.10000005a",
            "snapshot.20000002c",
            "snapshot.300000028",
            "snapshot.300000030",
        ]
    );
    assert_eq!(purge(&disk, 3).unwrap(), [""; 0]);
    // Each of the three leads to the same tree.
    for name in [
        "snapshot.300000030",
        "snapshot.300000028",
        "snapshot.20000002c",
    ] {
        disk.remove(Dir::Snap, name).unwrap();
        assert_eq!(open(&disk).unwrap().1.tree.digest(), whole);
    }
    assert_eq!(purge(&TestDisk::new(), 3).unwrap(), [""; 0]);
}

#[test]
fn txns_are_read_back_for_a_learner() {
    let disk = captured("A-393/s1");
    let z = |counter: i64| Zxid(0x1_0000_0000 + counter);
    let between = |after, until, bytes_max| txns_between(&disk, after, until, bytes_max).unwrap();
    let txns = between(z(0x20), z(0x40), u64::MAX).unwrap();
    assert_eq!(txns.first().unwrap().0, z(0x21));
    assert_eq!(txns.last().unwrap().0, z(0x40));
    assert_eq!(txns.len(), 0x20, "across two files");
    assert_eq!(between(z(0x20), z(0x20), 0), Some(vec![]));
    assert_eq!(between(z(0x20), z(0x40), 1000), None, "too many bytes");
    assert_eq!(between(z(0), z(0x40), u64::MAX), None, "not in the log");
    assert_eq!(between(z(0xff), z(0x100), u64::MAX), None, "not in the log");
    assert_eq!(
        between(z(0x50), Zxid(0x3_0000_00ff), u64::MAX),
        None,
        "the log ends before"
    );
    // From one epoch into the next.
    let last = Zxid(0x3_0000_0053);
    let txns = between(z(0x50), last, u64::MAX).unwrap();
    assert_eq!(txns.last().unwrap().0, last);
}

#[test]
fn epochs_are_replaced_whole() {
    let disk = TestDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    storage.set_accepted_epoch(Epoch(12)).unwrap();
    storage.set_current_epoch(Epoch(12)).unwrap();
    assert_eq!(disk.get(Dir::Snap, "acceptedEpoch"), b"12");
    // Both files were being written: the old values hold, the leftovers go.
    for tmp in ["acceptedEpoch.tmp", "currentEpoch.tmp"] {
        disk.put(Dir::Snap, tmp, b"1");
    }
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.accepted_epoch, Epoch(12));
    assert_eq!(recovered.current_epoch, Epoch(12));
    assert_eq!(recovered.notes.len(), 2);
    // A promise ahead of the history is normal, a history ahead of the promise is not.
    storage.set_accepted_epoch(Epoch(20)).unwrap();
    assert_eq!(clean(&disk).accepted_epoch, Epoch(20));
    let mut storage = open(&disk).unwrap().0;
    storage
        .append(Zxid::new(Epoch(13), 1), &txn(13 << 32 | 1))
        .unwrap();
    storage.sync().unwrap();
    // A history ahead of currentEpoch, whatever lies in an unfinished currentEpoch.tmp: a synchronization that
    // was cut off. (The simulator's seed 74 crashed there.)
    for text in ["", "x", "12"] {
        disk.put(Dir::Snap, "currentEpoch.tmp", text.as_bytes());
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.current_epoch, Epoch(12), "{text:?}");
    }
    // Ahead of the promise as well, it is somebody else's history.
    disk.put(Dir::Snap, "acceptedEpoch", b"12");
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, StorageError::Epoch { .. }), "{error}");
    disk.put(Dir::Snap, "acceptedEpoch", b"13");
    disk.put(Dir::Snap, "currentEpoch.tmp", b"13");
    assert_eq!(open(&disk).unwrap().1.current_epoch, Epoch(13));
    assert_eq!(disk.get(Dir::Snap, "currentEpoch"), b"13");
}

#[test]
#[should_panic(expected = "must not be stored before the history is")]
fn current_epoch_never_overtakes_the_history() {
    let (mut storage, _) = open(&TestDisk::new()).unwrap();
    storage.append(Zxid(1), &txn(1)).unwrap();
    let _ = storage.set_current_epoch(Epoch(1));
}

/// A snapshot missing in the middle of a history: a later epoch's txns do not follow just because
/// their epoch is later.
#[test]
fn a_hole_between_snapshot_and_log_is_an_error() {
    let disk = captured("L-393/after-snap-s2");
    disk.put(Dir::Log, "log.300000009", b"");
    let mut writer = LogWriter::new(disk.clone(), 0, true);
    writer
        .append(Zxid(0x3_0000_0009), &txn(0x3_0000_0009))
        .unwrap();
    writer.sync().unwrap();
    assert_eq!(clean(&disk).last_zxid, Zxid(0x3_0000_0009));
    disk.edit(Dir::Snap, "snapshot.300000008", |bytes| bytes[500] ^= 1);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, StorageError::Gap { .. }), "{error}");
}

#[test]
fn snapshots_are_due_after_half_to_all_of_the_limit() {
    let mut due = Vec::new();
    for seed in 0..20 {
        let options = StorageOptions {
            snap_count: 100,
            seed,
            ..options()
        };
        let (mut storage, _) = Storage::open(TestDisk::new(), options).unwrap();
        let mut zxid = 0;
        while !storage.snapshot_due() {
            zxid += 1;
            storage.append(Zxid(zxid), &txn(zxid)).unwrap();
        }
        assert!((51..=100).contains(&zxid), "{zxid}");
        due.push(zxid);
        storage.snapshot_started();
        assert!(!storage.snapshot_due());
        assert_eq!(storage.txns_since_snapshot(), 0);
    }
    due.dedup();
    assert!(
        due.len() > 5,
        "servers must not all choose the same: {due:?}"
    );
    let by_size = StorageOptions {
        snap_size_limit_bytes: 1000,
        ..options()
    };
    let (mut storage, _) = Storage::open(TestDisk::new(), by_size).unwrap();
    for zxid in 1..12 {
        storage.append(Zxid(zxid), &txn(zxid)).unwrap();
    }
    assert!(storage.snapshot_due(), "{}", storage.bytes_since_snapshot());
}

/// With the default `preAllocSize` nothing near it is written.
#[test]
fn an_idle_server_keeps_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path(), dir.path(), true).unwrap();
    let (mut storage, _) = Storage::open(disk.clone(), StorageOptions::default()).unwrap();
    storage.append(Zxid(1), &txn(1)).unwrap();
    storage.sync().unwrap();
    let log = std::fs::metadata(disk.path(Dir::Log, "log.1")).unwrap();
    assert_eq!(log.len(), 16 + (64 << 20));
    let used = std::os::unix::fs::MetadataExt::blocks(&log) * 512;
    assert!(used <= 1 << 20, "{used} bytes");
    drop((storage, disk));
    let disk = RealDisk::open(dir.path(), dir.path(), false).unwrap();
    let (_, recovered) = Storage::open(disk.clone(), StorageOptions::default()).unwrap();
    assert_eq!(recovered.last_zxid, Zxid(1));
    let (snapshots, logs) = disk_usage(&disk).unwrap();
    assert_eq!(logs, 16 + (64 << 20));
    assert_eq!(newest_snapshot_size(&disk).unwrap(), Some(snapshots));
}
