//! Storage against real directories of Apache ZooKeeper (`testdata/storage`), against damage, and
//! against a disk that dies at every call.

use std::path::PathBuf;

use super::test_disk::TestDisk;
use super::txn_log::{FileReader, Step};
use super::*;

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
