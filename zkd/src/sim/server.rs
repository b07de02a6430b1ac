//! One simulated server process: the peer, what it serves, its storage and its links.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;

use super::disk::FaultyDisk;
use super::mutation::Mutation;
use crate::config::Membership;
use crate::ids::{ConnId, LinkId, ServerId, Zxid};
use crate::peer::{Envelope, LinkDecoder, PeerConfig, QuorumPeer, RecoveredState};
use crate::pipeline::{PrepOptions, ServerCnxn, ServerOptions, Waker, ZkServer};
use crate::quorum::QuorumVerifier;
use crate::storage::{
    Compression, RecoveryNote, SnapshotWriter, Storage, StorageError, StorageOptions,
};
use crate::time::Instant;
use crate::tree::SnapshotCursor;
use crate::zab::{Mark, Write};

/// Ticks are short, so that a run sees many of them.
pub(super) const TICK_MS: u64 = 1_000;

/// A server of the ensemble: its disk outlives its processes.
pub(super) struct SimServer {
    pub(super) id: ServerId,
    pub(super) disk: FaultyDisk,
    pub(super) process: Option<Process>,
    /// Rises with every start: events of an earlier process are stale.
    pub(super) incarnation: u64,
    /// Stands still (a stopped process): nothing is handled until it goes on.
    pub(super) paused: bool,
    /// Its disk takes longer than usual until then.
    pub(super) slow_until_us: u64,
}

/// What a start found on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovery {
    pub(super) from_snapshot: bool,
    pub(super) torn_tail: bool,
}

/// Work that waits for the disk.
pub(super) enum Job {
    Batch(Vec<Write>, Mark),
    Reload(Mark),
}

/// A running server.
pub(super) struct Process {
    pub(super) peer: QuorumPeer,
    pub(super) zk: Arc<ZkServer>,
    pub(super) storage: Storage<FaultyDisk>,
    pub(super) jobs: VecDeque<Job>,
    /// A run of the storage is scheduled.
    pub(super) storage_busy: bool,
    pub(super) in_flight: VecDeque<(Mark, Vec<Envelope>)>,
    pub(super) decoders: BTreeMap<LinkId, LinkDecoder>,
    pub(super) snapshot: Option<Snapshotting>,
    pub(super) connections: BTreeMap<ConnId, Served>,
    pub(super) wakes: Arc<Wakes>,
    pub(super) next_link: u64,
    /// The earliest timer event that is scheduled.
    pub(super) timer_us: Option<u64>,
}

/// One client connection: who is at the other end, and the bytes not taken yet.
pub(super) struct Served {
    pub(super) cnxn: Arc<ServerCnxn>,
    pub(super) client: usize,
    /// Names the client's connection, which may have gone on to another server.
    pub(super) serial: u64,
    pub(super) input: BytesMut,
}

/// A snapshot that is being written while txns are applied.
pub(super) struct Snapshotting {
    pub(super) writer: SnapshotWriter<FaultyDisk>,
    pub(super) cursor: SnapshotCursor,
}

/// Connections that have something to say, in the order in which they said so.
#[derive(Default)]
pub(super) struct Wakes(Mutex<Vec<ConnId>>);

impl Wakes {
    pub(super) fn push(&self, conn: ConnId) {
        self.0.lock().push(conn);
    }

    pub(super) fn drain(&self) -> Vec<ConnId> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Wakes one connection.
pub(super) struct ConnWaker {
    pub(super) conn: ConnId,
    pub(super) wakes: Arc<Wakes>,
}

impl Waker for ConnWaker {
    fn wake(&self) {
        self.wakes.0.lock().push(self.conn);
    }
}

/// The ensemble as its servers know it.
pub(super) fn membership(voters: u64, observers: u64) -> Membership {
    let lines: Vec<String> = (1..=voters + observers)
        .map(|id| {
            let role = if id <= voters {
                "participant"
            } else {
                "observer"
            };
            format!("server.{id}=10.0.0.{id}:2888:3888:{role};0.0.0.0:2181\n")
        })
        .collect();
    Membership::parse_text(&lines.concat()).expect("the simulated ensemble is well-formed")
}

fn verifier(members: &Membership, my_id: ServerId, mutation: Mutation) -> QuorumVerifier {
    let voters = members.voters();
    if mutation == Mutation::QuorumTooSmall {
        // Half of an odd ensemble, rounded down, is taken for a quorum: this server and those behind it.
        let mine = voters.iter().position(|voter| *voter == my_id).unwrap_or(0);
        let half = voters.len() / 2;
        return QuorumVerifier::majority(voters.iter().copied().cycle().skip(mine).take(half));
    }
    QuorumVerifier::majority(voters)
}

impl SimServer {
    /// A server with an empty disk that was never started.
    pub(super) fn new(id: ServerId) -> Self {
        Self {
            id,
            disk: FaultyDisk::default(),
            process: None,
            incarnation: 0,
            paused: false,
            slow_until_us: 0,
        }
    }

    /// Starts a process on what the disk holds. A disk that cannot be read leaves the server down; the
    /// fault model never damages synced bytes, so that is a bug of the storage.
    ///
    /// # Errors
    /// What recovery says.
    pub(super) fn start(
        &mut self,
        members: &Membership,
        started: Instant,
        seed: u64,
        mutation: Mutation,
    ) -> Result<Recovery, StorageError> {
        let options = StorageOptions {
            prealloc_bytes: 16 << 10,
            commit_log_count: 20,
            snap_count: 60,
            distributed: true,
            seed,
            ..StorageOptions::default()
        };
        let (storage, recovered) = Storage::open(self.disk.clone(), options)?;
        let torn = |note: &RecoveryNote| matches!(note, RecoveryNote::TornTail { .. });
        let recovery = Recovery {
            from_snapshot: recovered.snapshot_zxid > Zxid::ZERO,
            torn_tail: recovered.notes.iter().any(torn),
        };
        let (tree, state) = RecoveredState::split(recovered);
        let zk = Arc::new(ZkServer::new(server_options(self.id), started));
        zk.replace_tree(tree);
        let config = PeerConfig {
            my_id: Some(self.id),
            members: members.clone(),
            verifier: verifier(members, self.id, mutation),
            tick_time_ms: TICK_MS,
            init_limit: 10,
            sync_limit: 5,
            notification_interval_min_ms: 200,
            notification_interval_max_ms: 60_000,
            commit_log_count: 20,
            container_check_interval_ms: 60_000,
            container_max_per_minute: 10_000,
            container_never_used_ms: 0,
            prep: PrepOptions::default(),
        };
        let peer = QuorumPeer::new(config, Arc::clone(&zk), state);
        self.incarnation += 1;
        self.paused = false;
        self.process = Some(Process {
            peer,
            zk,
            storage,
            jobs: VecDeque::new(),
            storage_busy: false,
            in_flight: VecDeque::new(),
            decoders: BTreeMap::new(),
            snapshot: None,
            connections: BTreeMap::new(),
            wakes: Arc::default(),
            next_link: 0,
            timer_us: None,
        });
        Ok(recovery)
    }
}

fn server_options(id: ServerId) -> ServerOptions {
    ServerOptions {
        server_id: id,
        min_session_timeout_ms: 2_000,
        max_session_timeout_ms: 40_000,
        max_client_cnxns: 0,
        ..ServerOptions::default()
    }
}

/// What came of a run of the storage.
pub(super) enum Stored {
    Wrote(Mark),
    Reloaded(Mark, Box<crate::storage::Recovered>),
}

/// How far a snapshot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Underway,
    Done,
    Abandoned,
}

/// Whether the bug is planted that lets the epoch overtake the history of its batch.
fn split_epoch(writes: &[Write], mutation: Mutation) -> bool {
    let epoch = |write: &Write| matches!(write, Write::CurrentEpoch(_));
    mutation == Mutation::EpochBeforeHistory && writes.len() > 1 && writes.iter().any(epoch)
}

impl Process {
    /// Does all the work that waits for the disk, with one sync at its end.
    ///
    /// # Errors
    /// The disk's; the server then stops.
    pub(super) fn run_storage(&mut self, mutation: Mutation) -> Result<Vec<Stored>, StorageError> {
        let mut out = Vec::new();
        let mut marks = Vec::new();
        while let Some(job) = self.jobs.pop_front() {
            match job {
                Job::Batch(writes, mark) if split_epoch(&writes, mutation) => {
                    self.sync_for(&mut marks, &mut out, mutation)?;
                    let late = self.write_epoch_first(writes)?;
                    self.jobs.push_front(Job::Batch(late, mark));
                    break;
                }
                Job::Batch(writes, mark) => {
                    if let [Write::Truncate(to)] = writes[..] {
                        self.sync_for(&mut marks, &mut out, mutation)?;
                        out.push(Stored::Reloaded(mark, Box::new(self.storage.truncate(to)?)));
                        continue;
                    }
                    for write in writes {
                        self.write(write, mutation)?;
                    }
                    marks.push(mark);
                }
                Job::Reload(mark) => {
                    self.sync_for(&mut marks, &mut out, mutation)?;
                    out.push(Stored::Reloaded(mark, Box::new(self.storage.reload()?)));
                }
            }
        }
        self.sync_for(&mut marks, &mut out, mutation)?;
        if self.storage.snapshot_due() && self.zk.is_settled() {
            self.begin_snapshot(mutation)?;
        }
        Ok(out)
    }

    fn sync_for(
        &mut self,
        marks: &mut Vec<Mark>,
        out: &mut Vec<Stored>,
        mutation: Mutation,
    ) -> Result<(), StorageError> {
        if !marks.is_empty() {
            if mutation != Mutation::NoSync {
                self.storage.sync()?;
            }
            out.extend(marks.drain(..).map(Stored::Wrote));
        }
        Ok(())
    }

    fn write(&mut self, write: Write, mutation: Mutation) -> Result<(), StorageError> {
        match write {
            Write::Txn(proposal) => self.storage.append(proposal.zxid, &proposal.txn),
            Write::AcceptedEpoch(_) if mutation == Mutation::ForgetAcceptedEpoch => Ok(()),
            Write::AcceptedEpoch(epoch) => {
                self.storage.sync()?;
                self.storage.set_accepted_epoch(epoch)
            }
            Write::CurrentEpoch(epoch) => {
                self.storage.sync()?;
                self.storage.set_current_epoch(epoch)
            }
            Write::Snapshot(_) => self
                .storage
                .write_snapshot(&self.zk.tree().read())
                .map(drop),
            Write::Truncate(_) => {
                unreachable!("a TRUNC stands alone in its batch and was handled before")
            }
        }
    }

    /// What [`Mutation::EpochBeforeHistory`] does; the rest of the batch is for the next run.
    fn write_epoch_first(&mut self, writes: Vec<Write>) -> Result<Vec<Write>, StorageError> {
        let (epochs, rest): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .partition(|write| matches!(write, Write::CurrentEpoch(_)));
        for write in epochs {
            self.write(write, Mutation::None)?;
        }
        Ok(rest)
    }

    fn begin_snapshot(&mut self, mutation: Mutation) -> Result<(), StorageError> {
        self.storage.snapshot_started();
        if self.snapshot.is_some() {
            return Ok(());
        }
        let mut zxid = self.zk.tree().read().last_processed_zxid();
        if mutation == Mutation::SnapshotOffByOne {
            zxid = Zxid(zxid.0 + 1);
        }
        let writer = SnapshotWriter::begin(self.storage.disk().clone(), zxid, Compression::None)?;
        self.snapshot = Some(Snapshotting {
            writer,
            cursor: SnapshotCursor::new(),
        });
        Ok(())
    }

    fn snapshot_turn(&self, snapshot: &mut Snapshotting) -> Result<bool, StorageError> {
        let mut bytes = Vec::new();
        let done = snapshot
            .cursor
            .next_chunk(&self.zk.tree().read(), &mut bytes, 2);
        snapshot.writer.write_chunk(&bytes)?;
        Ok(done)
    }

    fn end_snapshot(&self, snapshot: Snapshotting) -> Result<(), StorageError> {
        let tree = self.zk.tree().read();
        let last = tree.last_processed_zxid();
        snapshot
            .writer
            .finish(Some((last, tree.digest())), Some(last), true)
            .map(drop)
    }

    /// Writes the next few znodes of the snapshot under way. Says how far it has come.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn continue_snapshot(&mut self) -> Result<Progress, StorageError> {
        let Some(mut snapshot) = self.snapshot.take() else {
            return Ok(Progress::Abandoned);
        };
        if !snapshot.cursor.is_of(&self.zk.tree().read()) || !self.zk.is_settled() {
            // Another tree is in its place, or this one has what may yet be cut off: of no use.
            snapshot.writer.abandon()?;
            return Ok(Progress::Abandoned);
        }
        if self.snapshot_turn(&mut snapshot)? {
            self.end_snapshot(snapshot)?;
            return Ok(Progress::Done);
        }
        self.snapshot = Some(snapshot);
        Ok(Progress::Underway)
    }
}
