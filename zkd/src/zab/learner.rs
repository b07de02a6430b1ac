//! The learner: follower and observer, from the first packet to the leader until the role ends.
//!
//! Laws kept here: an epoch is promised on disk before ACKEPOCH leaves; history, then currentEpoch, then
//! the ACK of NEWLEADER (`learner_sync`); a txn is acknowledged only after its sync; txns are handed out in
//! zxid order and without holes. While a truncation or the writes of NEWLEADER are on their way, packets
//! wait. Counterpart: `Learner`, `Follower`, `Observer`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::journal::Journal;
use super::{History, LearnerReady, Mark, Proposal, Write, wire};
use crate::event::{PeerEvent, SyncMode};
use crate::ids::{Epoch, ServerId, SessionId, Xid, Zxid};
use crate::record::data::Id;
use crate::record::quorum::{PROTOCOL_VERSION, QuorumPacket, packet};
use crate::time::Instant;

/// What a learner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LearnerKind {
    /// Logs and acknowledges proposals; counted if it is a voter.
    Participant,
    /// Hears of committed txns only.
    Observer,
}

/// What a learner has to know.
#[derive(Clone, Debug)]
pub struct LearnerConfig {
    /// This server.
    pub my_id: ServerId,
    /// Participant or observer.
    pub kind: LearnerKind,
    /// The unit of the limits, ms.
    pub tick_time_ms: u64,
    /// Ticks of silence the leader is allowed until NEWLEADER; also for connecting.
    pub init_limit: u32,
    /// Ticks of silence the leader is allowed from NEWLEADER on.
    pub sync_limit: u32,
    /// Version of this server's configuration.
    pub config_version: i64,
}

/// What happens to a learner.
#[derive(Clone, Debug)]
pub enum LearnerInput {
    /// The connection to the leader stands.
    Connected,
    /// A packet came; never a SNAP.
    Packet(QuorumPacket),
    /// Bytes of a snapshot arrived: the leader is not silent.
    Receiving,
    /// A SNAP came with this zxid, and its tree is installed. Step this only if
    /// [`Learner::expects_snapshot`]; it ends the role otherwise.
    SnapshotLoaded(Zxid),
    /// The batch that was a [`Write::Truncate`] is done, the database is loaded again and installed.
    Truncated {
        /// The batch.
        mark: Mark,
        /// The last txn of the loaded database.
        last_zxid: Zxid,
    },
    /// A batch is on disk, and every one before it.
    Wrote(Mark),
    /// The connection is closed, or could not be made; why.
    Closed(String),
    /// A deadline has passed.
    Timeout,
}

/// How far the role has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection is being made.
    Connecting,
    /// FOLLOWERINFO was sent.
    AwaitingLeaderInfo,
    /// ACKEPOCH was sent; DIFF, TRUNC or SNAP is awaited.
    AwaitingSync,
    /// The log is being cut.
    Truncating,
    /// Between DIFF, TRUNC or SNAP and NEWLEADER.
    Syncing,
    /// NEWLEADER came; history and currentEpoch are on their way to the disk.
    StoringEpoch(Mark),
    /// NEWLEADER was acknowledged; UPTODATE is awaited.
    AwaitingUpToDate,
    /// Serving.
    Broadcast,
    /// Over.
    Over,
}

/// A follower or observer.
#[derive(Debug)]
pub struct Learner {
    pub(super) config: LearnerConfig,
    pub(super) journal: Journal,
    pub(super) state: State,
    pub(super) mode: SyncMode,
    /// The leader's epoch, once LEADERINFO told it.
    pub(super) epoch: Epoch,
    pub(super) leader_config: Option<Bytes>,
    /// Proposals that came during synchronization and are neither logged nor applied, oldest first.
    pub(super) queued: VecDeque<Proposal>,
    /// How many of the oldest of `queued` the leader has said are committed.
    pub(super) queued_committed: usize,
    /// Logged and not committed, oldest first; empty for an observer.
    pub(super) pending: VecDeque<Proposal>,
    /// The newest txn received: the next one must follow it.
    pub(super) last_received: Zxid,
    /// The newest txn handed out as committed.
    pub(super) last_committed: Zxid,
    /// The leader of this epoch gets to hear that this server has no history at all.
    pub(super) claims_nothing_in: Option<Epoch>,
    /// The database was replaced or cut, and no snapshot of it is on disk yet.
    pub(super) unsettled: bool,
    pub(super) out: LearnerReady,
    pub(super) now: Instant,
    silent_until: Instant,
    /// Packets that wait for the disk.
    held: VecDeque<QuorumPacket>,
    /// The zxid of the leader's last PING, to be answered with it.
    ping_zxid: Zxid,
}

impl Learner {
    /// Becomes learner with this history. `first_mark` is greater than every mark of an earlier role.
    #[must_use]
    pub fn new(config: LearnerConfig, history: History, first_mark: Mark, now: Instant) -> Self {
        let patience = config.tick_time_ms * u64::from(config.init_limit);
        Self {
            config,
            state: State::Connecting,
            mode: SyncMode::Diff,
            epoch: history.accepted_epoch,
            leader_config: None,
            queued: VecDeque::new(),
            queued_committed: 0,
            pending: VecDeque::new(),
            last_received: history.last_zxid,
            last_committed: history.last_zxid,
            claims_nothing_in: None,
            unsettled: false,
            out: LearnerReady::default(),
            now,
            silent_until: now + patience,
            held: VecDeque::new(),
            ping_zxid: Zxid::ZERO,
            journal: Journal::new(history, first_mark),
        }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Instant, input: LearnerInput) {
        self.now = now;
        if self.state == State::Over {
            return;
        }
        match input {
            LearnerInput::Connected => self.on_connected(),
            LearnerInput::Packet(packet) => {
                self.heard();
                self.held.push_back(packet);
                self.take_held();
            }
            LearnerInput::Receiving => self.heard(),
            LearnerInput::SnapshotLoaded(zxid) => {
                self.heard();
                self.on_snapshot(zxid);
            }
            LearnerInput::Truncated { last_zxid, .. } => {
                self.on_truncated(last_zxid);
                self.heard();
                self.take_held();
            }
            LearnerInput::Wrote(mark) => self.on_wrote(mark),
            LearnerInput::Closed(reason) => self.fail(reason),
            LearnerInput::Timeout => {
                if self.poll_timeout().is_some_and(|at| at <= now) {
                    self.fail(format!("the leader was silent for {} ms", self.patience()));
                }
            }
        }
    }

    /// When [`LearnerInput::Timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // While this server's own disk is at work, it is the leader that waits.
        (!matches!(
            self.state,
            State::Truncating | State::StoringEpoch(_) | State::Over
        ))
        .then_some(self.silent_until)
    }

    /// What has to be done; empty when nothing has.
    pub fn ready(&mut self) -> LearnerReady {
        let mut ready = std::mem::take(&mut self.out);
        if self.state == State::Over {
            return ready;
        }
        (ready.write, ready.mark) = self.journal.hand_out();
        self.journal.handed_to_tree(&ready.committed);
        ready
    }

    /// Forwards a client's write or sync to the leader; dropped unless this server serves.
    pub fn request(&mut self, session: SessionId, cxid: Xid, op: i32, payload: Bytes, ids: &[Id]) {
        if self.state == State::Broadcast {
            let forwarded = wire::Forwarded {
                session,
                cxid,
                op,
                payload,
            };
            self.out.send.push(wire::request(&forwarded, ids));
        }
    }

    /// Asks the leader whether a session is alive; dropped unless this server serves.
    pub fn revalidate(&mut self, session: SessionId, timeout_ms: i32) {
        if self.state == State::Broadcast {
            self.out.send.push(wire::revalidate(session, timeout_ms));
        }
    }

    /// Answers the leader's ping with the sessions heard of since the last one, and their timeouts in ms.
    pub fn answer_ping(&mut self, touched: &[(SessionId, i32)]) {
        if self.state == State::Broadcast {
            self.out
                .send
                .push(wire::ping_reply(self.ping_zxid, touched));
        }
    }

    /// The leader's epoch; before LEADERINFO the newest one promised.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The configuration text NEWLEADER brought.
    #[must_use]
    pub fn leader_config(&self) -> Option<Bytes> {
        self.leader_config.clone()
    }

    /// Whether a SNAP has its place now: the driver must not load one otherwise.
    #[must_use]
    pub fn expects_snapshot(&self) -> bool {
        self.state == State::AwaitingSync
    }

    /// Whether tree and disk differ, because the leader's snapshot or cut is not settled by a snapshot of
    /// this server's own yet. If the role ends then, the database must be loaded again from disk
    /// (ZOOKEEPER-3642), and the history with it.
    #[must_use]
    pub fn must_reload(&self) -> bool {
        self.unsettled
    }

    /// The epoch whose leader asked for a cut that this server's log does not allow: it has the txn to
    /// keep only inside a snapshot that goes further. Give it to the next learner's
    /// [`Self::ask_for_snapshot`]; without that the same would happen for ever.
    #[must_use]
    pub fn cannot_cut_for(&self) -> Option<Epoch> {
        (self.state == State::Over)
            .then_some(self.claims_nothing_in)
            .flatten()
    }

    /// Tells the leader of `epoch`, if it is met again, that this server has no history, so that it sends
    /// a SNAP. Safe because this server has promised that epoch before: its ACKEPOCH is neither counted
    /// nor compared any more. Call it before the first step.
    pub fn ask_for_snapshot(&mut self, epoch: Epoch) {
        self.claims_nothing_in = Some(epoch);
    }

    /// The newest committed txn handed out.
    #[must_use]
    pub fn last_committed(&self) -> Zxid {
        self.last_committed
    }

    /// Ends the role: the history as the log will have it once every batch handed out is written; the txns
    /// of it that were not handed out as committed, for the caller to apply to its tree; the next free mark.
    #[must_use]
    pub fn into_history(self) -> (History, Vec<Proposal>, Mark) {
        self.journal.into_parts()
    }

    pub(super) fn fail(&mut self, reason: String) {
        self.state = State::Over;
        self.journal.abandon();
        self.out = LearnerReady {
            events: std::mem::take(&mut self.out.events),
            notes: std::mem::take(&mut self.out.notes),
            failed: Some(reason),
            ..LearnerReady::default()
        };
    }

    /// What the leader sent cannot be reconciled with what this server has.
    pub(super) fn fail_fatally(&mut self, code: i32, reason: String) {
        self.fail(reason.clone());
        self.out.fatal = Some((code, reason));
    }

    /// The silence the leader is allowed in this state, ms.
    fn patience(&self) -> u64 {
        let ticks = match self.state {
            State::StoringEpoch(_) | State::AwaitingUpToDate | State::Broadcast => {
                self.config.sync_limit
            }
            _ => self.config.init_limit,
        };
        self.config.tick_time_ms * u64::from(ticks)
    }

    pub(super) fn heard(&mut self) {
        self.silent_until = self.now + self.patience();
    }

    fn on_connected(&mut self) {
        if self.state != State::Connecting {
            return;
        }
        let kind = match self.config.kind {
            LearnerKind::Participant => packet::FOLLOWERINFO,
            LearnerKind::Observer => packet::OBSERVERINFO,
        };
        let accepted = self.journal.history().accepted_epoch;
        self.out.send.push(wire::learner_info(
            kind,
            accepted,
            self.config.my_id,
            self.config.config_version,
        ));
        self.state = State::AwaitingLeaderInfo;
        self.heard();
    }

    /// Takes waiting packets until the disk has to be waited for.
    fn take_held(&mut self) {
        while !matches!(
            self.state,
            State::Truncating | State::StoringEpoch(_) | State::Over
        ) {
            let Some(packet) = self.held.pop_front() else {
                return;
            };
            self.on_packet(packet);
        }
    }

    fn on_packet(&mut self, packet: QuorumPacket) {
        match self.state {
            State::AwaitingLeaderInfo => self.on_leaderinfo(&packet),
            State::AwaitingSync => self.on_sync_start(&packet),
            State::Syncing | State::AwaitingUpToDate => self.on_sync_packet(packet),
            State::Broadcast => self.on_broadcast_packet(packet),
            State::Connecting => self.fail(format!(
                "{} came before anything was sent",
                packet::name(packet.kind)
            )),
            State::Truncating | State::StoringEpoch(_) | State::Over => {}
        }
    }

    fn on_wrote(&mut self, mark: Mark) {
        if let State::StoringEpoch(wanted) = self.state
            && mark >= wanted
        {
            self.state = State::AwaitingUpToDate;
            self.unsettled = false;
            self.heard();
            self.take_held();
        }
    }

    /// LEADERINFO (TLA+ `FollowerProcessLEADERINFO`): the promise is on disk before ACKEPOCH leaves.
    fn on_leaderinfo(&mut self, packet: &QuorumPacket) {
        if packet.kind != packet::LEADERINFO {
            self.fail(format!(
                "the leader answered with {} and not with LEADERINFO",
                packet::name(packet.kind)
            ));
            return;
        }
        match wire::read_leader_info(packet) {
            Ok(version) if version >= PROTOCOL_VERSION => {}
            Ok(version) => {
                self.fail(format!(
                    "the leader speaks the unsupported protocol version {version:#x}"
                ));
                return;
            }
            Err(error) => {
                self.fail(format!("the leader's LEADERINFO cannot be read: {error}"));
                return;
            }
        }
        let epoch = packet.zxid.epoch();
        let history = self.journal.history();
        let accepted = history.accepted_epoch;
        // An observer's promise counts for nothing, so it need not keep it, or it might observe nobody.
        if epoch < accepted && self.config.kind == LearnerKind::Participant {
            self.fail(format!(
                "the leader's epoch {epoch} is older than the accepted epoch {accepted}"
            ));
            return;
        }
        self.epoch = epoch;
        if epoch > accepted {
            let ack = wire::ack_epoch(history.last_zxid, history.current_epoch);
            self.journal.write(Write::AcceptedEpoch(epoch));
            self.out.send_after_write.push(ack);
            self.out
                .events
                .push(PeerEvent::EpochProposed { epoch: epoch.0 });
        } else {
            // Promised before: this server must not be counted a second time.
            let last_zxid = if self.claims_nothing_in == Some(epoch) {
                Zxid::ZERO
            } else {
                history.last_zxid
            };
            self.out.send.push(wire::ack_epoch(last_zxid, Epoch::NONE));
        }
        if self.claims_nothing_in != Some(epoch) {
            self.claims_nothing_in = None;
        }
        self.state = State::AwaitingSync;
    }

    /// A packet after UPTODATE.
    fn on_broadcast_packet(&mut self, packet: QuorumPacket) {
        match (self.config.kind, packet.kind) {
            (_, packet::PING) => {
                self.ping_zxid = packet.zxid;
                self.out.ping = true;
            }
            (_, packet::SYNC) => {
                self.out.synced += 1;
                self.out.synced_after.push(self.out.committed.len());
            }
            (_, packet::REVALIDATE) => match wire::read_revalidated(&packet) {
                Ok(answer) => self.out.revalidated.push(answer),
                Err(error) => self.fail(format!("the leader's REVALIDATE is broken: {error}")),
            },
            (LearnerKind::Participant, packet::PROPOSAL) => self.on_proposal(packet),
            (LearnerKind::Participant, packet::COMMIT | packet::COMMITANDACTIVATE) => {
                self.on_commit(packet.zxid);
            }
            (LearnerKind::Observer, packet::INFORM | packet::INFORMANDACTIVATE) => {
                self.on_inform(packet);
            }
            (_, kind) => self
                .out
                .notes
                .push(format!("ignoring the leader's {}", packet::name(kind))),
        }
    }

    /// PROPOSAL (TLA+ `FollowerProcessPROPOSAL`).
    fn on_proposal(&mut self, packet: QuorumPacket) {
        let zxid = packet.zxid;
        let Some(txn) = packet.data else {
            self.fail(format!("the proposal {zxid} has no txn"));
            return;
        };
        let proposal = Proposal { zxid, txn };
        if zxid == self.last_received {
            self.on_repeated_proposal(proposal);
            return;
        }
        if !zxid.follows(self.last_received) {
            self.fail(format!(
                "the proposal {zxid} does not follow {}",
                self.last_received
            ));
            return;
        }
        self.last_received = zxid;
        self.log(proposal);
    }

    /// Logs a proposal and acknowledges it once it is on disk.
    pub(super) fn log(&mut self, proposal: Proposal) {
        self.out
            .send_after_write
            .push(QuorumPacket::bare(packet::ACK, proposal.zxid));
        self.journal.write(Write::Txn(proposal.clone()));
        self.pending.push_back(proposal);
    }

    /// Apache leaders give a request they cannot decode the zxid of the one before. The later of the two
    /// is what such a leader holds, so it takes the place of the first while that is not committed.
    fn on_repeated_proposal(&mut self, proposal: Proposal) {
        self.out
            .notes
            .push(format!("the leader proposed {} twice", proposal.zxid));
        let zxid = proposal.zxid;
        if self.pending.back().is_some_and(|last| last.zxid == zxid) {
            self.pending.pop_back();
            self.log(proposal);
        } else {
            // Committed: it is on disk, or its batch is; an empty batch keeps the order of the ACKs.
            self.out.send.push(QuorumPacket::bare(packet::ACK, zxid));
        }
    }

    /// COMMIT (TLA+ `FollowerProcessCOMMIT`).
    fn on_commit(&mut self, zxid: Zxid) {
        if zxid <= self.last_committed {
            self.out.notes.push(format!("{zxid} was committed before"));
            return;
        }
        match self.pending.front() {
            Some(oldest) if oldest.zxid == zxid => {
                let proposal = self.pending.pop_front().expect("the front was there");
                self.commit(proposal);
            }
            Some(oldest) => {
                let reason = format!(
                    "the leader committed {zxid} while the oldest proposal is {}",
                    oldest.zxid
                );
                self.fail_fatally(12, reason);
            }
            None => self.out.notes.push(format!(
                "the leader committed {zxid}, which is not known here"
            )),
        }
    }

    /// INFORM: a committed txn, on an observer.
    fn on_inform(&mut self, packet: QuorumPacket) {
        let Some(proposal) = self.informed(packet) else {
            return;
        };
        if proposal.zxid <= self.last_committed {
            self.out
                .notes
                .push(format!("{} was committed before", proposal.zxid));
            return;
        }
        if !proposal.zxid.follows(self.last_received) {
            self.fail(format!(
                "the txn {} does not follow {}",
                proposal.zxid, self.last_received
            ));
            return;
        }
        self.last_received = proposal.zxid;
        self.journal.write(Write::Txn(proposal.clone()));
        self.commit(proposal);
    }

    /// The txn of an INFORM or INFORMANDACTIVATE; without one the role is over.
    pub(super) fn informed(&mut self, packet: QuorumPacket) -> Option<Proposal> {
        let zxid = packet.zxid;
        let txn = if packet.kind == packet::INFORMANDACTIVATE {
            wire::read_inform_and_activate(&packet).map_err(|error| error.to_string())
        } else {
            packet.data.ok_or_else(|| "it has no txn".to_owned())
        };
        match txn {
            Ok(txn) => Some(Proposal { zxid, txn }),
            Err(error) => {
                self.fail(format!("the leader's INFORM of {zxid} is broken: {error}"));
                None
            }
        }
    }

    /// Hands a committed txn out.
    pub(super) fn commit(&mut self, proposal: Proposal) {
        self.last_committed = self.last_committed.max(proposal.zxid);
        self.journal.commit(proposal.clone());
        self.out.committed.push(proposal);
    }
}
