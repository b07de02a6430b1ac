//! `acceptedEpoch` and `currentEpoch`: the two promises a quorum peer keeps across restarts.
//!
//! Each is a file with the epoch as decimal text and no newline. It is replaced by writing
//! `<name>.tmp`, syncing it, renaming it and syncing the directory, and only then is the new value
//! anybody's: a promise is on disk before it is spoken (ZOOKEEPER-335, 1081, 2307). A crash leaves
//! the old value or the new one, and perhaps a `.tmp` beside it. Counterpart:
//! `QuorumPeer.readEpochFromFile`, `AtomicFileWritingIdiom`.

use std::io;

use super::disk::{Dir, Disk, DiskFile, read_full};
use super::{RecoveryNote, StorageError};
use crate::ids::{Epoch, Zxid};

/// The highest epoch a leader of which this server has promised to follow.
pub(super) const ACCEPTED: &str = "acceptedEpoch";
/// The epoch of the last leader this server has synced with.
pub(super) const CURRENT: &str = "currentEpoch";
/// What a file is called while it is being written.
pub(super) const TMP: &str = ".tmp";

/// Makes `epoch` the durable value of the file `name`.
pub(super) fn store<D: Disk>(
    disk: &D,
    name: &str,
    epoch: Epoch,
    force_sync: bool,
) -> Result<(), StorageError> {
    let tmp = format!("{name}{TMP}");
    let failed = |what, file: &str, e| StorageError::io(what, &disk.path(Dir::Snap, file), e);
    let file = disk
        .create(Dir::Snap, &tmp)
        .map_err(|e| failed("create", &tmp, e))?;
    file.write_at(0, epoch.0.to_string().as_bytes())
        .map_err(|e| failed("write", &tmp, e))?;
    if force_sync {
        file.sync().map_err(|e| failed("sync", &tmp, e))?;
    }
    disk.rename(Dir::Snap, &tmp, name)
        .map_err(|e| failed("rename", &tmp, e))?;
    if force_sync {
        disk.sync_dir(Dir::Snap)
            .map_err(|e| failed("sync the directory of", name, e))?;
    }
    Ok(())
}

/// The value of the file `name`; `None` if there is no such file.
pub(super) fn load<D: Disk>(disk: &D, name: &str) -> Result<Option<Epoch>, StorageError> {
    let path = disk.path(Dir::Snap, name);
    let file = match disk.open(Dir::Snap, name) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StorageError::io("open", &path, e)),
    };
    // Longer than any number that could stand there.
    let mut text = [0; 64];
    let count = read_full(&file, 0, &mut text).map_err(|e| StorageError::io("read", &path, e))?;
    let bad = |what: String| StorageError::Epoch {
        path: path.clone(),
        what,
    };
    let line = text[..count].split(|b| *b == b'\n').next().unwrap_or(&[]);
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    match line.parse::<i64>() {
        Ok(epoch) if epoch >= 0 => Ok(Some(Epoch(epoch))),
        _ => Err(bad(format!(
            "holds {line:?} where an epoch in decimal is expected; restore it from the other \
             servers' view of this one, or wipe this server's data and let it copy its leader's"
        ))),
    }
}

/// Whether this server has ever promised or followed anything.
pub(super) fn any<D: Disk>(disk: &D) -> Result<bool, StorageError> {
    let begun = |epoch: Option<Epoch>| epoch.is_some_and(|epoch| epoch > Epoch(0));
    Ok(begun(load(disk, CURRENT)?) || begun(load(disk, ACCEPTED)?))
}

/// Whether a file is an epoch that was being written.
pub(super) fn is_tmp(name: &str) -> bool {
    matches!(name.strip_suffix(TMP), Some(ACCEPTED | CURRENT))
}

/// The epochs, accepted and current, of a server whose history ends at `last`; what is missing is
/// written. `accepted >= current >=` the epoch of `last`.
///
/// A missing file stands for the epoch of the last zxid. A history from a later epoch than
/// `currentEpoch` is what a crash between writing `currentEpoch.tmp` and renaming it leaves, if
/// that file is there; otherwise the history is not this server's and it must not vote with it.
pub(super) fn settle<D: Disk>(
    disk: &D,
    last: Zxid,
    force_sync: bool,
    notes: &mut Vec<RecoveryNote>,
) -> Result<(Epoch, Epoch), StorageError> {
    let of_history = Epoch(last.epoch().0.max(0));
    let put = |name: &str, epoch| store(disk, name, epoch, force_sync).map(|()| epoch);
    let mut current = match load(disk, CURRENT)? {
        Some(epoch) => epoch,
        None => put(CURRENT, of_history)?,
    };
    let promised = load(disk, ACCEPTED)?;
    if of_history > current {
        match load(disk, &format!("{CURRENT}{TMP}")) {
            Ok(Some(epoch)) if epoch >= of_history => {
                notes.push(RecoveryNote::EpochFromTmp {
                    old: current,
                    epoch,
                });
                current = put(CURRENT, epoch)?;
            }
            // The last synchronization was cut off between history and epoch. What it logged was committed,
            // so the older epoch is no lie: the servers that finished it still win every election against
            // this one. (Apache refuses to start. A promise that is older than the history, though, can
            // only come from another server or an old copy.)
            _ if promised.is_some_and(|epoch| epoch >= of_history) => {
                notes.push(RecoveryNote::SyncCutOff { current, last });
            }
            _ => {
                return Err(StorageError::Epoch {
                    path: disk.path(Dir::Snap, CURRENT),
                    what: format!(
                        "says {current} but the history ends at {last}, in epoch {of_history}: the \
                         log is from another server or the epoch file is an old copy"
                    ),
                });
            }
        }
    }
    let accepted = match promised {
        Some(epoch) => epoch,
        None => put(ACCEPTED, of_history.max(current))?,
    };
    if accepted < current {
        return Err(StorageError::Epoch {
            path: disk.path(Dir::Snap, ACCEPTED),
            what: format!(
                "says {accepted}, less than currentEpoch {current}: one of the two is an old copy"
            ),
        });
    }
    Ok((accepted, current))
}
