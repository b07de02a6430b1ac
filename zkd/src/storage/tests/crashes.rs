//! A disk that dies at every call, tears what was not synced, fails a sync, or is full.

use super::*;

/// What the server of the crash test has been told is safe.
#[derive(Debug, Default)]
struct Promised {
    synced: i64,
    accepted: i64,
    current: i64,
    /// A truncation to here was begun: later txns may be gone, or not.
    truncating: Option<i64>,
    /// The size of the data that each appended txn gave its node.
    sizes: BTreeMap<i64, usize>,
}

/// Logs, takes snapshots, truncates, purges and changes epochs until the disk dies or the script is
/// over; keeps `promised` up to date. Returns whether it came to the end.
fn live(disk: &TestDisk, seed: u64, promised: &mut Promised) -> Result<(), StorageError> {
    let (mut storage, recovered) = Storage::open(disk.clone(), small())?;
    let mut tree = recovered.tree;
    let mut last = recovered.last_zxid;
    promised.synced = last.0;
    let mut prng = Prng::new(seed);
    for _ in 0..14 {
        for _ in 0..prng.between(1, 4) {
            last = last.next().unwrap();
            let size = usize::try_from(prng.below(1500)).unwrap();
            let bytes = create(last.0, &format!("/n{:x}", last.0), size);
            promised.sizes.insert(last.0, size);
            storage.append(last, &bytes)?;
            let _ = tree.apply(&TxnRecord::from_slice(&bytes).unwrap(), &mut ());
        }
        storage.sync()?;
        promised.synced = last.0;
        if storage.snapshot_due() {
            storage.write_snapshot(&tree)?;
        }
        match prng.below(8) {
            0 => {
                let epoch = storage.accepted_epoch().next();
                storage.set_accepted_epoch(epoch)?;
                promised.accepted = epoch.0;
                storage.set_current_epoch(epoch)?;
                promised.current = epoch.0;
                last = Zxid::new(epoch, 0);
            }
            1 if last.counter() > 3 => {
                let to = last.0 - 2;
                promised.truncating = Some(to);
                promised.sizes.split_off(&(to + 1));
                let recovered = storage.truncate(Zxid(to))?;
                assert_eq!(recovered.last_zxid, Zxid(to));
                (tree, last) = (recovered.tree, Zxid(to));
                promised.synced = to;
                promised.truncating = None;
            }
            2 => {
                purge(disk, 3)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The disk dies at every call of a server's life, loses what it may, and every promise is kept.
#[test]
fn crash_at_every_write() {
    let mut lives = 0;
    for seed in 0..12 {
        let mut at = 1;
        loop {
            let disk = TestDisk::new();
            disk.die_at(at, seed);
            let mut promised = Promised::default();
            let result = live(&disk, seed, &mut promised);
            for crash in 0..3 {
                let after = disk.after_crash(seed * 1000 + crash);
                let context = format!("seed {seed}, dies at {at}, crash {crash}, {promised:?}");
                let (_, recovered) = Storage::open(after.clone(), small())
                    .unwrap_or_else(|e| panic!("{context}: {e}"));
                let least = promised.truncating.unwrap_or(promised.synced);
                assert!(recovered.last_zxid.0 >= least, "{context}");
                assert!(recovered.accepted_epoch.0 >= promised.accepted, "{context}");
                assert!(recovered.current_epoch.0 >= promised.current, "{context}");
                for (zxid, size) in promised.sizes.range(..=least) {
                    let node = recovered.tree.node(&format!("/n{zxid:x}"));
                    let found = node.and_then(|node| node.data()).map(<[u8]>::len);
                    assert_eq!(found, Some(*size), "{context}: txn {zxid:#x}");
                }
                for note in &recovered.notes {
                    assert!(
                        matches!(
                            note,
                            RecoveryNote::TornTail { .. }
                                | RecoveryNote::UnfinishedLog { .. }
                                | RecoveryNote::TmpRemoved { .. }
                                | RecoveryNote::EpochFromTmp { .. }
                                | RecoveryNote::SyncCutOff { .. }
                        ),
                        "{context}: {note}"
                    );
                }
                // What was repaired stays repaired, and a second life goes on from there.
                let again = Storage::open(after.clone(), small()).unwrap().1;
                assert_eq!(again.notes, [], "{context}");
                assert_eq!(again.last_zxid, recovered.last_zxid, "{context}");
                assert_eq!(again.tree.digest(), recovered.tree.digest(), "{context}");
                live(&after, seed + 77, &mut Promised::default())
                    .unwrap_or_else(|e| panic!("{context}: second life: {e}"));
                lives += 1;
            }
            if result.is_ok() {
                break;
            }
            at += 1;
        }
    }
    assert!(lives > 1000, "only {lives} lives were lived");
}

/// Lost sectors inside a batch that was never synced: whatever is left, the synced part is there.
#[test]
fn torn_batches_lose_only_what_was_not_synced() {
    let mut torn = 0;
    for seed in 0..300 {
        let disk = TestDisk::new();
        let (mut storage, _) = Storage::open(disk.clone(), small()).unwrap();
        let mut prng = Prng::new(seed);
        let mut zxid = 0;
        let mut batch = |storage: &mut Storage<TestDisk>| {
            for _ in 0..prng.between(1, 20) {
                zxid += 1;
                let size = usize::try_from(prng.below(2000)).unwrap();
                let bytes = create(zxid, &format!("/n{zxid:x}"), size);
                storage.append(Zxid(zxid), &bytes).unwrap();
            }
            zxid
        };
        batch(&mut storage);
        storage.sync().unwrap();
        let synced = batch(&mut storage);
        storage.sync().unwrap();
        batch(&mut storage);
        // The write is done, its sync fails.
        disk.die_at(2, seed);
        assert!(storage.sync().is_err());
        let after = disk.after_crash(seed);
        let recovered = Storage::open(after, small())
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"))
            .1;
        assert!(recovered.last_zxid >= Zxid(synced), "seed {seed}");
        torn += recovered.notes.len();
    }
    assert!(torn > 100, "only {torn} torn tails in 300 crashes");
}

/// A log whose next sync fails behind its write.
fn one_synced_and_one_that_will_not_be() -> (TestDisk, Storage<TestDisk>) {
    let disk = TestDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    storage.append(Zxid(1), &txn(1)).unwrap();
    storage.sync().unwrap();
    storage.append(Zxid(2), &txn(2)).unwrap();
    disk.die_at(2, 0);
    (disk, storage)
}

#[test]
fn a_failed_sync_is_the_end() {
    let (_disk, mut storage) = one_synced_and_one_that_will_not_be();
    let error = storage.sync().unwrap_err();
    assert!(
        error.to_string().starts_with("cannot sync log/log.1"),
        "{error}"
    );
    for error in [
        storage.sync().unwrap_err(),
        storage.append(Zxid(3), &txn(3)).unwrap_err(),
        storage.set_accepted_epoch(Epoch(1)).unwrap_err(),
        storage.truncate(Zxid(1)).unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::Failed), "{error}");
    }
}

/// A process that is killed between write and sync leaves its txns in the page cache; the next one reads them, votes
/// with them, and must not lose them when the power fails.
#[test]
fn what_a_start_reads_survives_a_power_cut() {
    let (disk, mut storage) = one_synced_and_one_that_will_not_be();
    storage.sync().unwrap_err();
    drop(storage);
    disk.die_at(1_000_000, 0);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.last_zxid, Zxid(2), "written, not synced");
    for seed in 0..50 {
        let (_, recovered) = open(&disk.after_crash(seed)).unwrap();
        assert_eq!(recovered.last_zxid, Zxid(2), "seed {seed}");
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_synced() {
    for room in (0..6000).step_by(37) {
        let disk = TestDisk::new();
        let (mut storage, _) = Storage::open(disk.clone(), small()).unwrap();
        disk.fill_up(room);
        let mut synced = 0;
        for zxid in 1..30 {
            let result = storage
                .append(Zxid(zxid), &txn(zxid))
                .and_then(|()| storage.sync());
            match result {
                Ok(()) => synced = zxid,
                Err(StorageError::Io { source, .. }) => {
                    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                    break;
                }
                Err(e) => panic!("{e}"),
            }
        }
        let recovered = Storage::open(disk.after_crash(1), small()).unwrap().1;
        assert!(recovered.last_zxid >= Zxid(synced), "room {room}");
    }
}
