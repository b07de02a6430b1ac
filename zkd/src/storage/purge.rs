//! Purging: old snapshots, and the logs nobody needs without them.
//!
//! The rule of Apache's `PurgeTxnLog`: the newest snapshots that look whole stay, as many as asked
//! for and at least three; every older snapshot goes, and so does every log that ends before the
//! oldest kept snapshot begins. Snapshots that are damaged do not count (ZOOKEEPER-3231). A purge
//! must not run beside a truncation, which goes back to old files; beside writes it may.

use super::StorageError;
use super::disk::{Dir, Disk};
use super::{snapshot, txn_log};

/// However few snapshots are asked for, this many are kept.
pub const RETAIN_MIN: usize = 3;

/// Removes what is not needed to start from any of the `retain_count` newest snapshots; gives the
/// names of what it removed.
///
/// # Errors
/// If a directory cannot be listed or a file not be removed.
pub fn purge<D: Disk>(disk: &D, retain_count: usize) -> Result<Vec<String>, StorageError> {
    let snapshots = snapshot::list(disk)?;
    let mut kept = 0;
    let mut oldest = None;
    for file in &snapshots {
        let whole = snapshot::implausible(disk, &file.name)
            .map_err(|e| StorageError::io("read", &disk.path(Dir::Snap, &file.name), e))?
            .is_none();
        if whole {
            oldest = Some(file.zxid);
            kept += 1;
            if kept == retain_count.max(RETAIN_MIN) {
                break;
            }
        }
    }
    let Some(oldest) = oldest else {
        return Ok(Vec::new());
    };
    let logs = txn_log::list(disk)?;
    let first_needed = logs
        .iter()
        .rposition(|(first, _)| *first <= oldest)
        .unwrap_or(0);
    let mut removed = Vec::new();
    let old_logs = logs[..first_needed]
        .iter()
        .map(|(_, name)| (Dir::Log, name));
    let old_snapshots = snapshots
        .iter()
        .rev()
        .filter(|file| file.zxid < oldest)
        .map(|file| (Dir::Snap, &file.name));
    for (dir, name) in old_logs.chain(old_snapshots) {
        disk.remove(dir, name)
            .map_err(|e| StorageError::io("remove", &disk.path(dir, name), e))?;
        removed.push(name.clone());
    }
    Ok(removed)
}
