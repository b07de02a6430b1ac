//! From files to a tree: the newest snapshot that can be read, and every txn behind it.
//!
//! The law: a history has no holes. Each replayed txn must follow the one before it, or the snapshot
//! if it is the first; the first of a later epoch must be its first txn. So whatever damage takes a
//! piece out of the middle, a lost file, a corrupt snapshot, a log that ended early, is an error and
//! not a smaller tree. (Apache 3.9.4 and later check the txns among each other, earlier ones not at
//! all.) A txn at or below the last one is skipped: servers exist that log one zxid twice.
//! Counterpart: `FileTxnSnapLog.restore`, `ZKDatabase.loadDataBase`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::disk::{Dir, Disk, DiskFile};
use super::snapshot::{self, Loaded};
use super::txn_log::{self, LogReader, LogRecord, TornTail};
use super::{RecoveryNote, StorageError, StorageOptions};
use crate::ids::Zxid;
use crate::jute::DecodeError;
use crate::record::persistence::FileHeader;
use crate::record::txn::{TxnDigest, TxnRecord};
use crate::tree::DataTree;

/// How many snapshots are tried, newest first, as in Apache.
const SNAPSHOTS_TRIED: usize = 100;
/// The only formula of digests that is compared.
const DIGEST_VERSION: i32 = 2;

/// What the files hold.
#[derive(Debug)]
pub(super) struct History {
    pub tree: DataTree,
    /// The last txn in the tree.
    pub last: Zxid,
    /// The snapshot it was built on; `None` if there is no database yet.
    pub base: Option<Zxid>,
    /// The last replayed txns, at most as many as asked for.
    pub recent: Vec<(Zxid, Bytes)>,
    pub replayed: u64,
    pub replayed_bytes: u64,
    pub torn: Vec<TornTail>,
    /// The first txn beyond the limit, if there was a limit and a txn beyond it.
    pub cut: Option<Cut>,
}

/// Where a log has to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub name: String,
    pub offset: u64,
}

/// Reads the history up to and including `until`.
pub(super) fn load<D: Disk>(
    disk: &D,
    options: &StorageOptions,
    until: Option<Zxid>,
    notes: &mut Vec<RecoveryNote>,
) -> Result<History, StorageError> {
    let loaded = match load_snapshot(disk, until, notes)? {
        Some(loaded) => Some(loaded),
        None => {
            refuse_without_snapshot(disk, options)?;
            None
        }
    };
    let base = loaded.as_ref().map(|l| l.tree.last_processed_zxid());
    let Loaded { tree, digest } = loaded.unwrap_or_else(|| Loaded {
        tree: DataTree::new(),
        digest: None,
    });
    let replay = Replay {
        last: base.unwrap_or(Zxid::ZERO),
        fuzzy_until: digest.map_or(Zxid::ZERO, |(zxid, _)| zxid),
        mismatch: None,
        repeated: None,
        recent: VecDeque::new(),
        recent_max: options.commit_log_count,
        replayed: 0,
        replayed_bytes: 0,
        tree,
    };
    replay.run(disk, options, until, base, notes)
}

/// The newest snapshot not beyond `until` that can be read, or `None` if there is none at all.
fn load_snapshot<D: Disk>(
    disk: &D,
    until: Option<Zxid>,
    notes: &mut Vec<RecoveryNote>,
) -> Result<Option<Loaded>, StorageError> {
    let mut last_error = None;
    let mut only_empty = true;
    let files = snapshot::list(disk)?;
    let files = files
        .iter()
        .filter(|file| until.is_none_or(|until| file.zxid <= until));
    for file in files.take(SNAPSHOTS_TRIED) {
        let path = disk.path(Dir::Snap, &file.name);
        let why = match snapshot::implausible(disk, &file.name) {
            Err(e) => e.to_string(),
            Ok(Some(why)) => why,
            Ok(None) => match snapshot::load(disk, file) {
                Ok(loaded) => match goes_beyond(&loaded, until) {
                    None => return Ok(Some(loaded)),
                    Some(why) => why,
                },
                Err(e) => e.to_string(),
            },
        };
        only_empty &= file.zxid == Zxid::ZERO;
        last_error.get_or_insert_with(|| format!("{}: {why}", path.display()));
        notes.push(RecoveryNote::SnapshotSkipped { path, why });
    }
    match last_error {
        // A crash during the very first start; there is nothing in the snapshot of zxid 0.
        Some(why) if !only_empty => Err(StorageError::NoSnapshot {
            path: disk.path(Dir::Snap, ""),
            what: format!("none of the snapshots can be read, the newest because of {why}"),
        }),
        _ => Ok(None),
    }
}

/// A snapshot is written while txns are applied, so it may show some that are behind its name; one that
/// may show what is to be forgotten is of no use.
fn goes_beyond(loaded: &Loaded, until: Option<Zxid>) -> Option<String> {
    let (zxid, _) = loaded.digest?;
    let until = until.filter(|until| zxid > *until)?;
    Some(format!(
        "it may show txns up to {zxid}, which are behind {until}"
    ))
}

/// Without a snapshot there must be no txns either.
fn refuse_without_snapshot<D: Disk>(
    disk: &D,
    options: &StorageOptions,
) -> Result<(), StorageError> {
    if options.trust_empty_snapshot {
        return Ok(());
    }
    let mut logs = LogReader::new(disk, Zxid::ZERO)?;
    if logs.next_record()?.is_some() {
        return Err(StorageError::NoSnapshot {
            path: disk.path(Dir::Snap, ""),
            what: "there are txn logs but no snapshot".to_owned(),
        });
    }
    Ok(())
}

/// A replay under way.
struct Replay {
    tree: DataTree,
    last: Zxid,
    /// Up to the zxid of the snapshot's digest the tree is that of no moment, and no digest is
    /// compared. Nor is the snapshot's own: Apache writes it while the next txn is being applied.
    fuzzy_until: Zxid,
    /// The first mismatch.
    mismatch: Option<RecoveryNote>,
    /// The first skipped zxid and how many there were.
    repeated: Option<(Zxid, u64)>,
    recent: VecDeque<(Zxid, Bytes)>,
    recent_max: usize,
    replayed: u64,
    replayed_bytes: u64,
}

impl Replay {
    fn run<D: Disk>(
        mut self,
        disk: &D,
        options: &StorageOptions,
        until: Option<Zxid>,
        base: Option<Zxid>,
        notes: &mut Vec<RecoveryNote>,
    ) -> Result<History, StorageError> {
        let mut cut = None;
        let mut logs = LogReader::new(disk, Zxid(self.last.0 + 1))?;
        while let Some(record) = logs.next_record()? {
            if until.is_some_and(|until| record.zxid > until) {
                cut = Some(Cut {
                    name: logs.file().to_owned(),
                    offset: record.offset,
                });
                break;
            }
            if record.zxid <= self.last {
                self.repeated.get_or_insert((record.zxid, 0)).1 += 1;
                continue;
            }
            if !follows(record.zxid, self.last) {
                return Err(StorageError::Gap {
                    path: disk.path(Dir::Log, logs.file()),
                    offset: record.offset,
                    found: record.zxid,
                    last: self.last,
                });
            }
            self.apply(&record, options.digest_enabled).map_err(|e| {
                StorageError::corrupt(
                    &disk.path(Dir::Log, logs.file()),
                    record.offset,
                    format!("txn {} cannot be read: {e}", record.zxid),
                )
            })?;
        }
        notes.extend(self.mismatch);
        notes.extend(
            self.repeated
                .map(|(zxid, count)| RecoveryNote::Repeated { zxid, count }),
        );
        Ok(History {
            tree: self.tree,
            last: self.last,
            base,
            // Copies of their own, so that a txn does not keep the chunk it was read with.
            recent: self
                .recent
                .into_iter()
                .map(|(zxid, txn)| (zxid, Bytes::copy_from_slice(&txn)))
                .collect(),
            replayed: self.replayed,
            replayed_bytes: self.replayed_bytes,
            torn: logs.torn().to_vec(),
            cut,
        })
    }

    fn apply(&mut self, record: &LogRecord, digests: bool) -> Result<(), DecodeError> {
        let txn = TxnRecord::from_bytes(&record.txn)?;
        // Whether it succeeds is not looked at: over a fuzzy tree a node may be there or gone.
        let _applied = self.tree.apply(&txn, &mut ());
        self.last = record.zxid;
        self.replayed += 1;
        self.replayed_bytes += record.txn.len() as u64;
        if digests {
            self.compare(record.zxid, txn.digest);
        }
        if self.recent_max > 0 {
            if self.recent.len() == self.recent_max {
                self.recent.pop_front();
            }
            self.recent.push_back((record.zxid, record.txn.clone()));
        }
        Ok(())
    }

    /// Compares the tree's digest with the leader's after a txn.
    fn compare(&mut self, zxid: Zxid, of_txn: Option<TxnDigest>) {
        if zxid <= self.fuzzy_until || self.mismatch.is_some() {
            return;
        }
        let found = self.tree.digest();
        self.mismatch = of_txn
            .filter(|digest| digest.version == DIGEST_VERSION && digest.tree_digest != found)
            .map(|digest| RecoveryNote::DigestMismatch {
                zxid,
                found,
                expected: digest.tree_digest,
            });
    }
}

/// Whether `zxid` continues a history that ends at `last`: the next counter, or the first txn of a
/// later epoch. (A counter of 0 is what Apache gives a request it cannot decode before the first txn
/// of its epoch.)
pub(super) fn follows(zxid: Zxid, last: Zxid) -> bool {
    zxid.follows(last) && (zxid.epoch() == last.epoch() || zxid.counter() <= 1)
}

/// Cuts torn tails off and removes logs that never got their header, so that no later start and no
/// other server has to judge them.
pub(super) fn repair<D: Disk>(
    disk: &D,
    torn: &[TornTail],
    force_sync: bool,
    notes: &mut Vec<RecoveryNote>,
) -> Result<(), StorageError> {
    let mut removed = false;
    for TornTail { name, offset } in torn {
        let path = disk.path(Dir::Log, name);
        if *offset == 0 {
            disk.remove(Dir::Log, name)
                .map_err(|e| StorageError::io("remove", &path, e))?;
            removed = true;
            notes.push(RecoveryNote::UnfinishedLog { path });
        } else {
            cut_file(disk, name, *offset, force_sync)?;
            notes.push(RecoveryNote::TornTail {
                path,
                offset: *offset,
            });
        }
    }
    if removed && force_sync {
        disk.sync_dir(Dir::Log)
            .map_err(|e| StorageError::io("sync", &disk.path(Dir::Log, ""), e))?;
    }
    Ok(())
}

/// Makes durable what an earlier life of the server wrote: one that was killed leaves txns behind that were never
/// synced. They are read at the next start, and would be promised on although a power cut could still take them.
pub(super) fn make_durable<D: Disk>(disk: &D) -> Result<(), StorageError> {
    // Whoever begins a new log has synced the one before.
    if let Some((_, name)) = txn_log::list(disk)?.last() {
        let path = disk.path(Dir::Log, name);
        disk.open(Dir::Log, name)
            .and_then(|file| file.sync())
            .map_err(|e| StorageError::io("sync", &path, e))?;
    }
    for dir in [Dir::Log, Dir::Snap] {
        disk.sync_dir(dir)
            .map_err(|e| StorageError::io("sync the directory of", &disk.path(dir, ""), e))?;
    }
    Ok(())
}

/// Ends a log at `offset`.
pub(super) fn cut_file<D: Disk>(
    disk: &D,
    name: &str,
    offset: u64,
    force_sync: bool,
) -> Result<(), StorageError> {
    let path = disk.path(Dir::Log, name);
    let file = disk
        .open(Dir::Log, name)
        .map_err(|e| StorageError::io("open", &path, e))?;
    file.set_len(offset)
        .map_err(|e| StorageError::io("cut", &path, e))?;
    if force_sync {
        file.sync()
            .map_err(|e| StorageError::io("sync", &path, e))?;
    }
    Ok(())
}

/// Where the log has its first txn behind `zxid`, if there is one.
pub(super) fn first_after<D: Disk>(disk: &D, zxid: Zxid) -> Result<Option<Cut>, StorageError> {
    let mut logs = LogReader::new(disk, Zxid(zxid.0 + 1))?;
    let Some(record) = logs.next_record()? else {
        return Ok(None);
    };
    Ok(Some(Cut {
        name: logs.file().to_owned(),
        offset: record.offset,
    }))
}

/// Removes everything after a txn: the logs behind the cut, the rest of the one it lies in, and the
/// snapshots behind `base`, which show more or cannot be read. In this order, and each log's name durably gone before the next, a
/// crash leaves a shorter history without a hole.
pub(super) fn forget_after<D: Disk>(
    disk: &D,
    base: Zxid,
    cut: Option<&Cut>,
    force_sync: bool,
) -> Result<(), StorageError> {
    let remove = |dir: Dir, name: &str| {
        disk.remove(dir, name)
            .map_err(|e| StorageError::io("remove", &disk.path(dir, name), e))?;
        if force_sync {
            disk.sync_dir(dir)
                .map_err(|e| StorageError::io("sync the directory of", &disk.path(dir, name), e))?;
        }
        Ok(())
    };
    if let Some(cut) = cut {
        for (_, name) in txn_log::list(disk)?.iter().rev() {
            if *name == cut.name {
                break;
            }
            remove(Dir::Log, name)?;
        }
        if cut.offset <= FileHeader::LEN as u64 {
            remove(Dir::Log, &cut.name)?;
        } else {
            cut_file(disk, &cut.name, cut.offset, force_sync)?;
        }
    }
    for file in snapshot::list(disk)? {
        if file.zxid > base {
            remove(Dir::Snap, &file.name)?;
        }
    }
    Ok(())
}
