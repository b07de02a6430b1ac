//! Storage: the txn log, snapshots and epochs, in Apache ZooKeeper's own files.
//!
//! The law: what [`Storage::sync`] or an epoch's setter has returned for survives any crash, and
//! nothing that was lost is passed over in silence. Everything blocks; the driver gives it a thread.
//! It applies txns to a [`crate::tree::DataTree`] only while it recovers, and knows nothing of
//! quorums: when to write what is the business of the peer. Counterpart: `FileTxnSnapLog`.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

use crate::ids::{Epoch, Zxid};
use crate::prng::Prng;
use crate::tree::DataTree;

mod damage;
pub mod disk;
mod epoch;
mod error;
mod purge;
mod recover;
mod snapshot;
mod txn_log;

#[cfg(test)]
mod test_disk;
#[cfg(test)]
mod tests;

pub use disk::{Dir, Disk, DiskFile, RealDisk};
pub use error::StorageError;
pub use purge::{RETAIN_MIN, purge};
pub use snapshot::{Compression, SnapshotWriter};
pub use txn_log::{LogReader, LogRecord};

use txn_log::LogWriter;

/// How storage works; every default is Apache's.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// `preAllocSize`: how much a log grows at a time; 0 lets it grow txn by txn.
    pub prealloc_bytes: u64,
    /// `forceSync`: whether anything is synced at all.
    pub force_sync: bool,
    /// `snapshot.compression.method`.
    pub compression: Compression,
    /// `digest.enabled`: whether digests are written and compared.
    pub digest_enabled: bool,
    /// `commitLogCount`: how many of the last txns recovery gives back for synchronizing learners.
    pub commit_log_count: usize,
    /// `snapCount`: a snapshot is due after half to all of that many txns.
    pub snap_count: u32,
    /// `snapSizeLimitInKb`, in bytes: or after half to all of that many bytes of log; 0 is no limit.
    pub snap_size_limit_bytes: u64,
    /// Whether this server is one of an ensemble and has epochs.
    pub distributed: bool,
    /// `db.autocreate`: whether a server without a database begins with an empty one. Otherwise it
    /// has none, and must copy a leader's before it may vote.
    pub db_autocreate: bool,
    /// Whether the operator said that an empty database is meant
    /// ([`RealDisk::has_initialize_marker`]).
    pub initialize: bool,
    /// `snapshot.trust.empty`: whether logs may be replayed without a snapshot.
    pub trust_empty_snapshot: bool,
    /// Seed of the choice when snapshots are due, so that the servers of an ensemble do not take
    /// them together.
    pub seed: u64,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            prealloc_bytes: 64 << 20,
            force_sync: true,
            compression: Compression::None,
            digest_enabled: true,
            commit_log_count: 500,
            snap_count: 100_000,
            snap_size_limit_bytes: 4 << 30,
            distributed: false,
            db_autocreate: true,
            initialize: false,
            trust_empty_snapshot: false,
            seed: 0,
        }
    }
}

/// What was on disk.
#[derive(Debug)]
pub struct Recovered {
    /// The tree with every logged txn applied, committed or not.
    pub tree: DataTree,
    /// The last of those txns; [`Zxid::NONE`] if there is no database and none was to be made.
    pub last_zxid: Zxid,
    /// The last replayed txns in order, at most `commit_log_count`.
    pub committed: Vec<(Zxid, Bytes)>,
    /// The highest epoch promised; that of `last_zxid` outside ensembles.
    pub accepted_epoch: Epoch,
    /// The epoch of the last leader synced with; that of `last_zxid` outside ensembles.
    pub current_epoch: Epoch,
    /// The zxid of the snapshot this was built on.
    pub snapshot_zxid: Zxid,
    /// How many txns were replayed on top of it.
    pub replayed: u64,
    /// What is worth a line in the log.
    pub notes: Vec<RecoveryNote>,
}

/// The txn log's writing end and the epochs of one server.
///
/// After any error it refuses to go on ([`StorageError::Failed`]): what a failed sync left behind
/// cannot be known, and trying again may succeed without the data being there.
#[derive(Debug)]
pub struct Storage<D: Disk> {
    disk: D,
    options: StorageOptions,
    log: LogWriter<D>,
    accepted: Epoch,
    current: Epoch,
    failed: bool,
    due: SnapshotDue,
}

/// When the next snapshot is due.
#[derive(Debug)]
struct SnapshotDue {
    prng: Prng,
    txns: u64,
    bytes: u64,
    /// Due beyond this many txns or bytes.
    txns_max: u64,
    bytes_max: u64,
}

impl SnapshotDue {
    fn new(options: &StorageOptions) -> Self {
        let mut due = Self {
            prng: Prng::new(options.seed),
            txns: 0,
            bytes: 0,
            txns_max: 0,
            bytes_max: 0,
        };
        due.restart(options);
        due
    }

    fn restart(&mut self, options: &StorageOptions) {
        let mut half_and_some = |limit: u64| limit / 2 + self.prng.below((limit / 2).max(1));
        self.txns_max = half_and_some(u64::from(options.snap_count.max(2)));
        self.bytes_max = match options.snap_size_limit_bytes {
            0 => u64::MAX,
            limit => half_and_some(limit),
        };
        self.txns = 0;
        self.bytes = 0;
    }
}

impl<D: Disk> Storage<D> {
    /// Opens the data directory: reads the history, repairs what a crash left, and begins an empty
    /// database where there is none and one is wanted.
    ///
    /// # Errors
    /// If the history has a hole, a file is damaged beyond what a crash does, the epochs contradict
    /// it, or the disk fails.
    pub fn open(disk: D, options: StorageOptions) -> Result<(Self, Recovered), StorageError> {
        let mut notes = Vec::new();
        let history = recover::load(&disk, &options, None, &mut notes)?;
        recover::repair(&disk, &history.torn, options.force_sync, &mut notes)?;
        if options.force_sync {
            recover::make_durable(&disk)?;
        }
        let mut last = history.last;
        if history.base.is_none() && history.replayed == 0 {
            let lost = options.distributed && epoch::any(&disk)?;
            if options.initialize || (options.db_autocreate && !lost) {
                snapshot::write_tree(&disk, &history.tree, Zxid::ZERO, &options)?;
            } else {
                last = Zxid::NONE;
                notes.push(RecoveryNote::NoDatabase {
                    path: disk.path(Dir::Snap, ""),
                    lost,
                });
            }
        }
        let (accepted, current) = if options.distributed {
            epoch::settle(&disk, last, options.force_sync, &mut notes)?
        } else {
            let epoch = Epoch(last.epoch().0.max(0));
            (epoch, epoch)
        };
        remove_tmp(&disk, &mut notes)?;
        let mut storage = Self {
            log: LogWriter::new(disk.clone(), options.prealloc_bytes, options.force_sync),
            due: SnapshotDue::new(&options),
            disk,
            options,
            accepted,
            current,
            failed: false,
        };
        let recovered = storage.adopt(history, last, notes);
        Ok((storage, recovered))
    }

    /// Counts the replayed txns towards the next snapshot and hands the rest out.
    fn adopt(
        &mut self,
        history: recover::History,
        last_zxid: Zxid,
        notes: Vec<RecoveryNote>,
    ) -> Recovered {
        self.due.restart(&self.options);
        self.due.txns = history.replayed;
        self.due.bytes = history.replayed_bytes;
        Recovered {
            tree: history.tree,
            last_zxid,
            committed: history.recent,
            accepted_epoch: self.accepted,
            current_epoch: self.current,
            snapshot_zxid: history.base.unwrap_or(Zxid::ZERO),
            replayed: history.replayed,
            notes,
        }
    }

    /// Adds a txn to the log. Durable only after [`Self::sync`]; no copy of `txn` is kept but that
    /// in the batch.
    ///
    /// # Errors
    /// If a new log had to be started and could not, or storage failed before.
    pub fn append(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), StorageError> {
        self.guarded(|storage| {
            storage.log.append(zxid, txn)?;
            storage.due.txns += 1;
            storage.due.bytes += (txn.len() + txn_log::FRAME_LEN) as u64;
            Ok(())
        })
    }

    /// Makes all appended txns durable, with one write and one `fdatasync`.
    ///
    /// # Errors
    /// If the disk fails. The server must stop then.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.guarded(|storage| storage.log.sync())
    }

    /// Starts a new log with the next txn.
    pub fn roll(&mut self) {
        self.log.roll();
    }

    /// Forgets every txn after `to` and reads the history again. If `to` is not in this server's
    /// history, or only inside a snapshot that goes further, nothing is forgotten, and the
    /// `last_zxid` of what is given is not `to`: what the disk holds may be needed, and the caller
    /// has to take over a whole database. (Apache would keep one txn too many.)
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn truncate(&mut self, to: Zxid) -> Result<Recovered, StorageError> {
        self.guarded(|storage| {
            storage.log.sync()?;
            let mut notes = Vec::new();
            let history = match recover::load(&storage.disk, &storage.options, Some(to), &mut notes)
            {
                Ok(history) if history.last == to => history,
                Ok(_) | Err(StorageError::NoSnapshot { .. }) => {
                    notes.clear();
                    let all = recover::load(&storage.disk, &storage.options, None, &mut notes)?;
                    let last = all.last;
                    return Ok(storage.adopt(all, last, notes));
                }
                Err(error) => return Err(error),
            };
            let base = history.base.unwrap_or(Zxid::ZERO);
            storage.forget_after(base, history.cut.as_ref())?;
            Ok(storage.adopt(history, to, notes))
        })
    }

    /// Reads the history again as it is on disk: a synchronization was given up half way, and the tree in
    /// memory is no longer what the log says.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn reload(&mut self) -> Result<Recovered, StorageError> {
        self.guarded(|storage| {
            storage.log.sync()?;
            let mut notes = Vec::new();
            let history = recover::load(&storage.disk, &storage.options, None, &mut notes)?;
            storage.log.roll();
            let last = history.last;
            Ok(storage.adopt(history, last, notes))
        })
    }

    /// Removes the log from `cut` on and the snapshots behind `base`; the next txn goes into a new file.
    fn forget_after(&mut self, base: Zxid, cut: Option<&recover::Cut>) -> Result<(), StorageError> {
        recover::forget_after(&self.disk, base, cut, self.force_sync())?;
        self.log = LogWriter::new(
            self.disk.clone(),
            self.options.prealloc_bytes,
            self.options.force_sync,
        );
        Ok(())
    }

    /// Makes the promise not to follow a leader of an epoch before `epoch`.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn set_accepted_epoch(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        self.guarded(|storage| {
            epoch::store(&storage.disk, epoch::ACCEPTED, epoch, storage.force_sync())?;
            storage.accepted = epoch;
            Ok(())
        })
    }

    /// Records that this server's history is that of the leader of `epoch`. All of that history
    /// must be durable before (ZOOKEEPER-3911, 4643).
    ///
    /// # Errors
    /// If the disk fails.
    ///
    /// # Panics
    /// If txns still wait for a sync: the promise would be ahead of the history.
    pub fn set_current_epoch(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        assert!(
            self.log.is_synced(),
            "currentEpoch {epoch} must not be stored before the history is"
        );
        self.guarded(|storage| {
            epoch::store(&storage.disk, epoch::CURRENT, epoch, storage.force_sync())?;
            storage.current = epoch;
            Ok(())
        })
    }

    /// Writes a snapshot of a tree that stands still, at its last processed zxid: what a learner
    /// does after SNAP and TRUNC. Durable when this returns. Then whatever else the disk holds
    /// behind that zxid is removed: it is of another history, and a start would bring it back.
    /// (Apache leaves such txns in the log.) The log goes on in a new file.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn write_snapshot(&mut self, tree: &DataTree) -> Result<String, StorageError> {
        self.guarded(|storage| {
            let zxid = tree.last_processed_zxid();
            storage.log.sync()?;
            let name = snapshot::write_tree(&storage.disk, tree, zxid, &storage.options)?;
            storage.snapshot_started();
            let cut = recover::first_after(&storage.disk, zxid)?;
            storage.forget_after(zxid, cut.as_ref())?;
            Ok(name)
        })
    }

    /// Whether enough has been logged for a new snapshot.
    #[must_use]
    pub fn snapshot_due(&self) -> bool {
        self.due.txns > self.due.txns_max || self.due.bytes > self.due.bytes_max
    }

    /// A snapshot has been begun (with [`SnapshotWriter::begin`]): starts a new log with the next
    /// txn and counts anew.
    pub fn snapshot_started(&mut self) {
        self.log.roll();
        self.due.restart(&self.options);
    }

    /// Txns logged, or replayed at the start, since the last snapshot.
    #[must_use]
    pub fn txns_since_snapshot(&self) -> u64 {
        self.due.txns
    }

    /// Bytes of log since the last snapshot.
    #[must_use]
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.due.bytes
    }

    /// The highest epoch promised.
    #[must_use]
    pub fn accepted_epoch(&self) -> Epoch {
        self.accepted
    }

    /// The epoch of the last leader synced with.
    #[must_use]
    pub fn current_epoch(&self) -> Epoch {
        self.current
    }

    /// The disk, for snapshots, purging and reading logs.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The options it was opened with.
    #[must_use]
    pub fn options(&self) -> &StorageOptions {
        &self.options
    }

    fn force_sync(&self) -> bool {
        self.options.force_sync
    }

    /// Runs `act` unless something failed before; notes whether it fails.
    fn guarded<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if self.failed {
            return Err(StorageError::Failed);
        }
        let result = act(self);
        self.failed = result.is_err();
        result
    }
}

/// The txns after `after` up to `until` from the log files, for a learner that is further behind
/// than memory reaches. `None` if `after` itself is not in the log, if a txn is missing behind it,
/// or if they are more than `bytes_max`: a snapshot must be sent then.
///
/// `until` must have been synced: behind it the log may be being written.
///
/// # Errors
/// If a log cannot be read.
pub fn txns_between<D: Disk>(
    disk: &D,
    after: Zxid,
    until: Zxid,
    bytes_max: u64,
) -> Result<Option<Vec<(Zxid, Bytes)>>, StorageError> {
    let mut logs = LogReader::new(disk, after)?;
    let mut txns: Vec<(Zxid, Bytes)> = Vec::new();
    let mut last = None;
    let mut bytes = 0;
    while last != Some(until) {
        let Some(record) = logs.next_record()? else {
            return Ok(None);
        };
        match last {
            None if record.zxid == after => {}
            None => return Ok(None),
            Some(last) if record.zxid <= last => continue,
            Some(last) if !recover::follows(record.zxid, last) || record.zxid > until => {
                return Ok(None);
            }
            Some(_) => {
                bytes += record.txn.len() as u64;
                if bytes > bytes_max {
                    return Ok(None);
                }
                txns.push((record.zxid, Bytes::copy_from_slice(&record.txn)));
            }
        }
        last = Some(record.zxid);
    }
    Ok(Some(txns))
}

/// Bytes of all files in the directories of snapshots and logs, for `conf` and the admin server.
///
/// # Errors
/// If a directory or file cannot be looked at.
pub fn disk_usage<D: Disk>(disk: &D) -> Result<(u64, u64), StorageError> {
    let of = |dir: Dir, ours: fn(&str) -> bool| -> Result<u64, StorageError> {
        let mut total = 0;
        let names = disk
            .list(dir)
            .map_err(|e| StorageError::io("list", &disk.path(dir, ""), e))?;
        for name in names.iter().filter(|name| ours(name)) {
            total += match disk.open(dir, name).and_then(|file| file.size()) {
                Ok(size) => size,
                // A purge may have been quicker.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
                Err(e) => return Err(StorageError::io("measure", &disk.path(dir, name), e)),
            };
        }
        Ok(total)
    };
    Ok((
        of(Dir::Snap, |name| name.starts_with("snapshot."))?,
        of(Dir::Log, |name| name.starts_with("log."))?,
    ))
}

/// The size of the newest snapshot that looks whole; what `snapshotSizeFactor` is a factor of.
///
/// # Errors
/// If the directory or a file cannot be looked at.
pub fn newest_snapshot_size<D: Disk>(disk: &D) -> Result<Option<u64>, StorageError> {
    for file in snapshot::list(disk)? {
        let failed = |e| StorageError::io("read", &disk.path(Dir::Snap, &file.name), e);
        if snapshot::implausible(disk, &file.name)
            .map_err(failed)?
            .is_none()
        {
            let size = disk
                .open(Dir::Snap, &file.name)
                .and_then(|file| file.size())
                .map_err(failed)?;
            return Ok(Some(size));
        }
    }
    Ok(None)
}

/// Removes what a crash left half-written.
fn remove_tmp<D: Disk>(disk: &D, notes: &mut Vec<RecoveryNote>) -> Result<(), StorageError> {
    let names = disk
        .list(Dir::Snap)
        .map_err(|e| StorageError::io("list", &disk.path(Dir::Snap, ""), e))?;
    for name in names {
        if snapshot::is_tmp(&name) || epoch::is_tmp(&name) {
            let path = disk.path(Dir::Snap, &name);
            disk.remove(Dir::Snap, &name)
                .map_err(|e| StorageError::io("remove", &path, e))?;
            notes.push(RecoveryNote::TmpRemoved { path });
        }
    }
    Ok(())
}

/// What was found and done while a data directory was opened; each is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryNote {
    /// A newer snapshot could not be read; an older one and the logs since then stand in for it.
    SnapshotSkipped {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A log ended in the unfinished write of a crash, which was cut off.
    TornTail {
        /// The log.
        path: PathBuf,
        /// Where it ends now.
        offset: u64,
    },
    /// A log was being started when the server died, and was removed.
    UnfinishedLog {
        /// The log.
        path: PathBuf,
    },
    /// A file that was being written when the server died was removed.
    TmpRemoved {
        /// The file.
        path: PathBuf,
    },
    /// Txns with a zxid that had been passed already were skipped.
    Repeated {
        /// The first such zxid.
        zxid: Zxid,
        /// How many there are.
        count: u64,
    },
    /// The tree is not what the leader's tree was at that txn: history was lost or changed
    /// somewhere, some time.
    DigestMismatch {
        /// The first txn after which they differ.
        zxid: Zxid,
        /// Digest of the tree here.
        found: i64,
        /// Digest the leader noted.
        expected: i64,
    },
    /// `currentEpoch` was brought up to date from `currentEpoch.tmp`.
    EpochFromTmp {
        /// What the file said.
        old: Epoch,
        /// What it says now.
        epoch: Epoch,
    },
    /// The history reaches beyond `currentEpoch`: the last synchronization was cut off before its end.
    SyncCutOff {
        /// What the file says.
        current: Epoch,
        /// The end of the history.
        last: Zxid,
    },
    /// There is no database and none was made: this server must not vote until it has copied its
    /// leader's.
    NoDatabase {
        /// The directory of the snapshots.
        path: PathBuf,
        /// Whether there was one once: the epochs are still there.
        lost: bool,
    },
}

impl fmt::Display for RecoveryNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SnapshotSkipped { path, why } => {
                write!(f, "skipped the snapshot {}: {why}", path.display())
            }
            Self::TornTail { path, offset } => write!(
                f,
                "cut off an unfinished write at the end of {}, which ends at offset {offset} now",
                path.display()
            ),
            Self::UnfinishedLog { path } => {
                write!(
                    f,
                    "removed {}: it had not got its header yet",
                    path.display()
                )
            }
            Self::TmpRemoved { path } => {
                write!(f, "removed {}: it was never finished", path.display())
            }
            Self::Repeated { zxid, count } => write!(
                f,
                "skipped {count} txns from {zxid} on that stand in the log a second time"
            ),
            Self::DigestMismatch {
                zxid,
                found,
                expected,
            } => write!(
                f,
                "after txn {zxid} the tree's digest is {found:#x}, the leader had {expected:#x}"
            ),
            Self::EpochFromTmp { old, epoch } => write!(
                f,
                "took currentEpoch {epoch} from the unfinished currentEpoch.tmp, instead of {old}"
            ),
            Self::SyncCutOff { current, last } => write!(
                f,
                "the history ends at {last}, beyond currentEpoch {current}: the last synchronization was cut \
                 off and will be done again"
            ),
            Self::NoDatabase { path, lost } => {
                let why = if *lost {
                    "there are epochs but neither snapshots nor logs: the history was lost"
                } else {
                    "there is no database and db.autocreate is off"
                };
                write!(
                    f,
                    "{}: {why}; this server will not vote until it has copied its leader's data \
                     (if the ensemble is meant to be empty, create a file `initialize` in dataDir)",
                    path.display()
                )
            }
        }
    }
}
