//! The storage thread: the one place that waits for the disk.
//!
//! It takes whatever batches wait, appends them all, and ends with one sync (group commit); only then are
//! their marks told. History reaches the disk before an epoch file is touched. Any error here stops the
//! server: after a failed sync the pages may be gone, and a retry would lie (ZOOKEEPER-2247).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ids::Zxid;
use crate::metrics::Metrics;
use crate::peer::Input;
use crate::pipeline::ZkServer;
use crate::planted::{self, Planted};
use crate::storage::{Compression, RealDisk, SnapshotWriter, Storage, StorageError, purge};
use crate::tree::SnapshotCursor;
use crate::zab::{Mark, Write};

use super::core::CoreSender;

/// Znodes per turn of a snapshot; the tree's read side is held for one turn.
const SNAPSHOT_CHUNK_NODES: usize = 256;

/// More txns than this in one sync show that many clients write side by side.
const CROWD: u64 = 4;
/// The longest rest between two syncs of a crowd's writes.
const REST_MAX: Duration = Duration::from_micros(750);

/// Work for the thread.
pub(super) enum Job {
    /// Writes that end with one sync.
    Batch(Vec<Write>, Mark),
    /// Load the database again.
    Reload(Mark),
    /// Remove all but this many snapshots, and the logs that they do not need.
    Purge(usize),
    /// Sync what is there and end.
    Stop,
}

/// Asks the thread to purge.
pub(super) struct PurgeHandle(Sender<Job>);

impl PurgeHandle {
    /// Keeps `retain` snapshots.
    pub(super) fn purge(&self, retain: usize) {
        // A thread that has ended purges no more.
        let _ = self.0.send(Job::Purge(retain));
    }
}

/// Handle on the thread.
pub(super) struct StorageThread {
    jobs: Sender<Job>,
    thread: std::thread::JoinHandle<()>,
}

impl StorageThread {
    pub(super) fn start(
        storage: Storage<RealDisk>,
        server: Arc<ZkServer>,
        metrics: Arc<Metrics>,
        core: CoreSender,
        slow_sync: Duration,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = channel();
        let worker = Worker {
            storage,
            server,
            metrics,
            core,
            snapshotting: Arc::new(AtomicBool::new(false)),
            old_files: Arc::default(),
            slow_sync,
            unsynced: 0,
            rest_until: None,
        };
        let thread = std::thread::Builder::new()
            .name("storage".to_owned())
            .spawn(move || worker.run(&waiting))?;
        Ok(Self { jobs, thread })
    }

    /// Hands over a job. A thread that has ended had a reason, which it told.
    pub(super) fn push(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// A handle for the purge task.
    pub(super) fn purge_handle(&self) -> PurgeHandle {
        PurgeHandle(self.jobs.clone())
    }

    /// Finishes what waits and ends the thread.
    pub(super) fn stop(self) {
        self.push(Job::Stop);
        let _ = self.thread.join();
    }
}

struct Worker {
    storage: Storage<RealDisk>,
    server: Arc<ZkServer>,
    metrics: Arc<Metrics>,
    core: CoreSender,
    snapshotting: Arc<AtomicBool>,
    /// Held by whoever removes old files, or goes back to them.
    old_files: Arc<Mutex<()>>,
    /// A sync that takes longer is told (`fsync.warningthresholdms`).
    slow_sync: Duration,
    /// Txns appended since the last sync.
    unsynced: u64,
    /// No sync begins before.
    rest_until: Option<Instant>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut done = Vec::new();
        while let Ok(first) = jobs.recv() {
            let mut next = Some(first);
            let mut stop = false;
            while let Some(job) = next {
                stop |= matches!(job, Job::Stop);
                if let Err(error) = self.carry_out(job, &mut done) {
                    self.core.storage_failed(error);
                    return;
                }
                next = match jobs.try_recv() {
                    _ if stop => None,
                    Err(_) if self.rest() => jobs.try_recv().ok(),
                    more => more.ok(),
                };
            }
            if let Err(error) = self.finish(&mut done) {
                self.core.storage_failed(error);
                return;
            }
            if stop {
                return;
            }
        }
    }

    /// Waits until the disk has had its rest; whether there was one. While many clients write side by side, a sync that
    /// begins a little later takes more of their writes along. With 32 of them on three servers that share a disk: 0.17
    /// syncs for a write instead of 0.30, a tenth more writes with a tenth less of the processor for each, and half the
    /// 99th percentile, because a disk that is synced without a pause stands still for 17 ms now and then.
    fn rest(&mut self) -> bool {
        let left = self
            .rest_until
            .take()
            .map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.filter(|left| !left.is_zero());
        if let Some(left) = left {
            std::thread::sleep(left);
        }
        left.is_some()
    }

    fn carry_out(&mut self, job: Job, done: &mut Vec<Mark>) -> Result<(), StorageError> {
        match job {
            Job::Batch(writes, mark) => {
                for write in writes {
                    if let Write::Truncate(to) = write {
                        self.finish(done)?;
                        let _old_files = self.old_files.lock();
                        let recovered = self.storage.truncate(to)?;
                        self.core.peer(Input::Reloaded(mark, Box::new(recovered)));
                        return Ok(());
                    }
                    self.write(write)?;
                }
                done.push(mark);
            }
            Job::Reload(mark) => {
                self.finish(done)?;
                let _old_files = self.old_files.lock();
                let recovered = self.storage.reload()?;
                self.core.peer(Input::Reloaded(mark, Box::new(recovered)));
            }
            Job::Purge(retain) => self.purge(retain),
            Job::Stop => {}
        }
        Ok(())
    }

    fn write(&mut self, write: Write) -> Result<(), StorageError> {
        match write {
            Write::Txn(proposal) => {
                self.unsynced += 1;
                self.storage.append(proposal.zxid, &proposal.txn)
            }
            Write::AcceptedEpoch(epoch) => {
                self.sync()?;
                self.storage.set_accepted_epoch(epoch)
            }
            Write::CurrentEpoch(epoch) => {
                self.sync()?;
                self.storage.set_current_epoch(epoch)
            }
            Write::Snapshot(_) => self
                .storage
                .write_snapshot(&self.server.tree().read())
                .map(drop),
            Write::Truncate(_) => {
                unreachable!("a TRUNC stands alone in its batch and was handled before")
            }
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let begin = Instant::now();
        let synced = self.storage.sync();
        let took = begin.elapsed();
        let batch = std::mem::take(&mut self.unsynced);
        if batch > 0 {
            self.metrics.sync_processor_batch_size.record(batch);
        }
        // Twice as long as the sync took: a disk that answers at once is hardly waited for.
        self.rest_until = (batch > CROWD).then(|| begin + took + (took * 2).min(REST_MAX));
        if !self.storage.options().force_sync {
            return synced;
        }
        self.metrics
            .fsynctime
            .record_us(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if took >= self.slow_sync {
            self.metrics.fsync_threshold_exceed_count.increment();
            tracing::warn!(
                took_ms = took.as_millis(),
                "a sync of the txn log was slow; clients wait for it"
            );
        }
        synced
    }

    /// One sync for everything that was appended, then the marks.
    fn finish(&mut self, done: &mut Vec<Mark>) -> Result<(), StorageError> {
        if done.is_empty() {
            return Ok(());
        }
        if !planted::is(Planted::AckBeforeSync) {
            self.sync()?;
        }
        for mark in done.drain(..) {
            self.core.peer(Input::Wrote(mark));
        }
        if planted::is(Planted::AckBeforeSync) && self.unsynced > 16 {
            self.sync()?;
        }
        if self.storage.snapshot_due() && self.server.is_settled() {
            self.take_snapshot();
        }
        Ok(())
    }

    /// Removes old files on a thread of its own: a file system took 0.6 s for the seventeen of a tree of a million
    /// znodes, and no write should wait for that.
    fn purge(&self, retain: usize) {
        let (disk, old_files) = (self.storage.disk().clone(), Arc::clone(&self.old_files));
        let spawned = std::thread::Builder::new()
            .name("purge".to_owned())
            .spawn(move || {
                let _old_files = old_files.lock();
                match purge(&disk, retain) {
                    Ok(removed) if removed.is_empty() => {}
                    Ok(removed) => {
                        let names = removed.join(", ");
                        tracing::info!("purged {} old files: {names}", removed.len());
                    }
                    // Old files that stay are no harm to the data.
                    Err(error) => tracing::warn!(
                        %error,
                        "purging failed; it is tried again at the next interval"
                    ),
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a purge; it is tried again at the next interval");
        }
    }

    /// Begins a new log file and writes a snapshot on a thread of its own, while serving goes on.
    fn take_snapshot(&mut self) {
        self.storage.snapshot_started();
        if self.snapshotting.swap(true, Ordering::AcqRel) {
            tracing::warn!("the last snapshot is still being written; this one is skipped");
            return;
        }
        let (server, disk) = (Arc::clone(&self.server), self.storage.disk().clone());
        let compression = self.storage.options().compression;
        let (metrics, core, busy) = (
            Arc::clone(&self.metrics),
            self.core.clone(),
            Arc::clone(&self.snapshotting),
        );
        let spawned = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                let begin = Instant::now();
                let zxid = server.tree().read().last_processed_zxid();
                match write_snapshot(&server, &disk, compression, zxid) {
                    Ok(()) => {
                        let took_ms =
                            u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                        metrics.snapshottime.record_us(took_ms * 1000);
                        tracing::info!(%zxid, took_ms, "snapshot taken");
                    }
                    Err(error) => {
                        metrics.snapshot_error_count.increment();
                        core.storage_failed(error);
                    }
                }
                busy.store(false, Ordering::Release);
            });
        if let Err(error) = spawned {
            self.snapshotting.store(false, Ordering::Release);
            tracing::warn!(%error, "no thread for a snapshot; the log goes on without it");
        }
    }
}

/// Writes the tree as it stands, turn by turn, named after `zxid`.
pub(super) fn write_snapshot(
    server: &ZkServer,
    disk: &RealDisk,
    compression: Compression,
    zxid: Zxid,
) -> Result<(), StorageError> {
    let mut writer = SnapshotWriter::begin(disk.clone(), zxid, compression)?;
    let mut cursor = SnapshotCursor::new();
    let mut bytes = Vec::with_capacity(64 << 10);
    let (last_zxid, digest) = loop {
        let end = {
            let tree = server.tree().read();
            if !cursor.is_of(&tree) || !server.is_settled() {
                // A synchronization puts another tree in its place, or the reign ended and the tail of the
                // log, which nobody may ever commit, entered the tree: this snapshot is of no use.
                return writer.abandon();
            }
            cursor
                .next_chunk(&tree, &mut bytes, SNAPSHOT_CHUNK_NODES)
                .then(|| (tree.last_processed_zxid(), tree.digest()))
        };
        writer.write_chunk(&bytes)?;
        let begin = Instant::now();
        if writer.sync_in_steps()? {
            // The disk is left to the log for as long as it was held up.
            std::thread::sleep(begin.elapsed());
        }
        bytes.clear();
        if let Some(end) = end {
            break end;
        }
    };
    writer.finish(Some((last_zxid, digest)), Some(last_zxid), true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ServerState;
    use crate::pipeline::ServerOptions;
    use crate::storage::StorageOptions;
    use crate::zab::Proposal;

    fn batch(first: i64) -> Job {
        let writes = (first..first + 20).map(|zxid| {
            Write::Txn(Proposal {
                zxid: Zxid(zxid),
                txn: bytes::Bytes::from_static(b"a txn"),
            })
        });
        Job::Batch(writes.collect(), Mark(first.cast_unsigned()))
    }

    fn worker(dir: &tempfile::TempDir) -> Worker {
        let start = crate::time::Instant(0);
        let disk = RealDisk::open(dir.path(), dir.path(), true).unwrap();
        let options = StorageOptions {
            snap_count: 4,
            prealloc_bytes: 0,
            ..StorageOptions::default()
        };
        let (storage, _) = Storage::open(disk, options).unwrap();
        let (core, _told) = CoreSender::new();
        Worker {
            storage,
            server: Arc::new(ZkServer::new(ServerOptions::default(), start)),
            metrics: Arc::new(Metrics::default()),
            core,
            snapshotting: Arc::default(),
            old_files: Arc::default(),
            slow_sync: Duration::from_secs(9),
            unsynced: 0,
            rest_until: None,
        }
    }

    /// A single client never waits for anybody else.
    #[test]
    fn only_the_syncs_of_a_crowd_are_followed_by_a_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (mut worker, mut done) = (worker(&dir), Vec::new());
        worker.carry_out(batch(1), &mut done).unwrap();
        let before = Instant::now();
        worker.finish(&mut done).unwrap();
        let until = worker.rest_until.expect("twenty txns are a crowd");
        assert!(until >= before && until <= Instant::now() + REST_MAX);
        worker.rest();
        assert!(!worker.rest() && Instant::now() >= until, "once");
        let alone = Write::Txn(Proposal {
            zxid: Zxid(21),
            txn: bytes::Bytes::from_static(b"a txn"),
        });
        let alone = Job::Batch(vec![alone], Mark(21));
        worker.carry_out(alone, &mut done).unwrap();
        worker.finish(&mut done).unwrap();
        assert!(worker.rest_until.is_none());
    }

    /// Seen: a server that came back with a million znodes purged for 0.6 s, and its first session waited.
    #[test]
    fn no_write_waits_for_a_purge() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker(&dir);
        let (old_files, mut done) = (Arc::clone(&worker.old_files), Vec::new());
        let under_way = old_files.lock();
        worker.carry_out(Job::Purge(3), &mut done).unwrap();
        worker.carry_out(batch(1), &mut done).unwrap();
        worker.finish(&mut done).unwrap();
        assert!(done.is_empty(), "written and synced");
        drop(under_way);
    }

    /// What is in the tree after a start may have to be cut off: a snapshot of it, written beside the
    /// synchronization, brought txns back that a TRUNC had removed.
    #[test]
    fn no_snapshot_is_taken_of_a_tree_that_is_not_settled() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker(&dir);
        let mut done = Vec::new();
        worker.carry_out(batch(1), &mut done).unwrap();
        worker.finish(&mut done).unwrap();
        assert!(worker.storage.snapshot_due(), "due, and not begun");

        worker.server.start_serving(ServerState::Following);
        worker.carry_out(batch(21), &mut done).unwrap();
        worker.finish(&mut done).unwrap();
        assert!(!worker.storage.snapshot_due(), "begun");
    }
}
