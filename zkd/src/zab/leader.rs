//! The leader: discovery, synchronization and broadcast over all its learners' links.
//!
//! Laws kept here: acceptedEpoch is on disk before LEADERINFO leaves; a learner is synchronized only after
//! a quorum accepted the epoch; serving starts only after a quorum, this server's own disk included,
//! acknowledged NEWLEADER; the counter of an epoch never runs into the epoch's bits; choosing how a learner
//! is synchronized and adding it to those that receive proposals is one step (ZOOKEEPER-962). What one
//! link sends is handled in `learner_handler`. It never looks into a txn, and sessions are the caller's.
//! Counterpart: `Leader`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::discovery::{self, Discovery, StateSummary};
use super::journal::Journal;
use super::learner::LearnerKind;
use super::learner_handler::{Link, Phase};
use super::proposals::Proposals;
use super::{Asked, History, LeaderReady, Mark, Outgoing, Proposal, Revalidation, Write, wire};
use crate::event::PeerEvent;
use crate::ids::{Epoch, LinkId, ServerId, SessionId, Xid, Zxid};
use crate::quorum::{AckSet, QuorumVerifier};
use crate::record::quorum::{QuorumPacket, packet};
use crate::time::{Instant, TimerTable};

/// What a leader has to know.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// This server.
    pub my_id: ServerId,
    /// The unit of the limits, ms.
    pub tick_time_ms: u64,
    /// Ticks each stage before serving may take.
    pub init_limit: u32,
    /// Ticks of silence, or of an unacknowledged proposal, that a learner is allowed.
    pub sync_limit: u32,
    /// What a quorum is.
    pub verifier: QuorumVerifier,
    /// The configuration's canonical text, NEWLEADER's payload.
    pub config_text: Bytes,
    /// The configuration's version; a learner with a newer one is refused.
    pub config_version: i64,
}

/// What happens to a leader.
#[derive(Clone, Debug)]
pub enum LeaderInput {
    /// A learner connected.
    Connected(LinkId),
    /// A packet came.
    Packet(LinkId, QuorumPacket),
    /// A link is closed; also as the answer to an entry of [`LeaderReady::close`], where it is ignored.
    Closed(LinkId),
    /// The last byte of a [`Outgoing::Snapshot`] was written: the learner's silence counts from now on.
    SnapshotSent(LinkId),
    /// A batch is on disk, and every one before it.
    Wrote(Mark),
    /// The voters now known by election notifications to follow or elect someone else.
    Elsewhere(BTreeSet<ServerId>),
    /// A deadline has passed.
    Timeout,
}

/// Who asked for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFrom {
    /// A client of this server.
    Local(SessionId, Xid),
    /// A client of a learner; answers are matched by order.
    Learner(LinkId),
}

/// A learner as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnerStatus {
    /// Its link.
    pub link: LinkId,
    /// Its id.
    pub sid: ServerId,
    /// Participant or observer.
    pub kind: LearnerKind,
    /// It has acknowledged NEWLEADER.
    pub synced: bool,
    /// The last zxid it told of: its ACKEPOCH, later its ACKs.
    pub last_zxid: Zxid,
}

/// How far the reign has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Waiting for a quorum of FOLLOWERINFO.
    Epoch,
    /// The epoch is fixed; waiting for a quorum of ACKEPOCH.
    AckEpoch,
    /// Learners are being synchronized; waiting for a quorum of NEWLEADER ACKs.
    NewLeader,
    /// Serving.
    Broadcast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The stage must be over.
    Stage,
    /// Half a tick: pings; every second one the quorum is checked.
    HalfTick,
}

/// What becomes durable with a mark.
#[derive(Debug)]
struct InFlight {
    mark: Mark,
    accepted_epoch: bool,
    current_epoch: bool,
    last_txn: Option<Zxid>,
}

/// A leader.
#[derive(Debug)]
pub struct Leader {
    pub(super) config: LeaderConfig,
    pub(super) journal: Journal,
    pub(super) stage: Stage,
    pub(super) discovery: Discovery,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) proposals: Proposals,
    /// Who acknowledged NEWLEADER, this server included.
    pub(super) new_leader_acks: AckSet,
    /// acceptedEpoch is on disk: LEADERINFO may leave at once.
    pub(super) epoch_promised: bool,
    pub(super) out: LeaderReady,
    pub(super) asked: Vec<Asked>,
    pub(super) now: Instant,
    timers: TimerTable<Timer>,
    in_flight: VecDeque<InFlight>,
    elsewhere: BTreeSet<ServerId>,
    /// The next half tick checks the quorum.
    check_quorum: bool,
    over: bool,
    /// Ids given to learners that do not tell theirs: -1, -2, …
    pub(super) next_anonymous: i64,
    /// Servers whose id another one has used too, in this reign.
    pub(super) twins: BTreeSet<ServerId>,
}

impl Leader {
    /// Becomes leader with this history. `first_mark` is greater than every mark of an earlier role.
    #[must_use]
    pub fn new(config: LeaderConfig, history: History, first_mark: Mark, now: Instant) -> Self {
        let own = StateSummary {
            current_epoch: history.current_epoch,
            last_zxid: history.last_zxid,
        };
        let mut leader = Self {
            discovery: Discovery::new(own, history.accepted_epoch),
            proposals: Proposals::new(history.last_zxid),
            journal: Journal::new(history, first_mark),
            stage: Stage::Epoch,
            links: BTreeMap::new(),
            new_leader_acks: AckSet::new(),
            epoch_promised: false,
            out: LeaderReady::default(),
            asked: Vec::new(),
            now,
            timers: TimerTable::default(),
            in_flight: VecDeque::new(),
            elsewhere: BTreeSet::new(),
            check_quorum: false,
            over: false,
            next_anonymous: -1,
            twins: BTreeSet::new(),
            config,
        };
        leader.enter(Stage::Epoch);
        leader.try_propose_epoch();
        leader
    }

    /// Takes one input.
    pub fn step(&mut self, now: Instant, input: LeaderInput) {
        self.now = now;
        if self.over {
            return;
        }
        match input {
            LeaderInput::Connected(link) => self.on_connected(link),
            LeaderInput::Packet(link, packet) => self.on_packet(link, packet),
            LeaderInput::Closed(link) => self.on_closed(link),
            LeaderInput::SnapshotSent(link) => self.on_snapshot_sent(link),
            LeaderInput::Wrote(mark) => self.on_wrote(mark),
            LeaderInput::Elsewhere(voters) => {
                self.elsewhere = voters;
                self.check_possible();
            }
            LeaderInput::Timeout => self.on_timeout(),
        }
    }

    /// What the last packet asks of the request chain, once. Take it after every [`LeaderInput::Packet`], before any
    /// other input: a session's writes are in order only if they and its moves between servers are judged in the order
    /// in which they came.
    #[must_use]
    pub fn take_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }

    /// When [`LeaderInput::Timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let links = self.links.values().filter_map(|link| link.silent_until);
        self.timers.next().into_iter().chain(links).min()
    }

    /// What has to be done; empty when nothing has.
    pub fn ready(&mut self) -> LeaderReady {
        let mut ready = std::mem::take(&mut self.out);
        if self.over {
            return ready;
        }
        (ready.write, ready.mark) = self.journal.hand_out();
        if let Some(mark) = ready.mark {
            let has = |kind: fn(&Write) -> bool| ready.write.iter().any(kind);
            self.in_flight.push_back(InFlight {
                mark,
                accepted_epoch: has(|write| matches!(write, Write::AcceptedEpoch(_))),
                current_epoch: has(|write| matches!(write, Write::CurrentEpoch(_))),
                last_txn: ready.write.iter().rev().find_map(|write| match write {
                    Write::Txn(proposal) => Some(proposal.zxid),
                    _ => None,
                }),
            });
        }
        self.journal.handed_to_tree(&ready.committed);
        ready
    }

    /// The zxid of the next proposal. `None` before the epoch is established and when the counter is used
    /// up; in the latter case the reign ends by itself as soon as everything proposed is committed
    /// (ZOOKEEPER-1277).
    #[must_use]
    pub fn next_zxid(&self) -> Option<Zxid> {
        if self.stage != Stage::Broadcast || self.over {
            return None;
        }
        let next = self.proposals.last_proposed().next()?;
        (next.counter() != Zxid::COUNTER_MAX).then_some(next)
    }

    /// Proposes a txn (TLA+ `LeaderProcessRequest`): to this server's disk and to every follower at once.
    ///
    /// # Panics
    /// If the zxid is not [`Self::next_zxid`]: two txns must never share one.
    pub fn propose(&mut self, proposal: Proposal) {
        if self.over {
            return;
        }
        assert_eq!(
            Some(proposal.zxid),
            self.next_zxid(),
            "a proposal takes the next zxid of an established epoch"
        );
        let zxid = proposal.zxid;
        let packet = QuorumPacket::with(packet::PROPOSAL, zxid, proposal.txn.clone());
        for (&id, link) in &mut self.links {
            if link.kind == LearnerKind::Participant && link.phase >= Phase::Syncing {
                link.on_proposal_sent(zxid, self.now);
                self.out.send.push((id, Outgoing::Packet(packet.clone())));
            }
        }
        self.journal.write(Write::Txn(proposal.clone()));
        self.proposals.propose(proposal);
    }

    /// A client's sync: done when everything proposed before it is committed.
    pub fn sync(&mut self, from: SyncFrom) {
        if self.over {
            return;
        }
        self.proposals.sync(from);
        self.finish_syncs();
    }

    /// Answers a learner's question.
    pub fn answer_revalidation(&mut self, to: &Revalidation, valid: bool) {
        if !self.over && self.links.contains_key(&to.link) {
            self.send(to.link, wire::revalidated(to.session, valid));
        }
    }

    /// The epoch of this reign; before a quorum of FOLLOWERINFO only a lower bound of it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.discovery.epoch()
    }

    /// Whether a quorum has acknowledged NEWLEADER.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.stage == Stage::Broadcast
    }

    /// The learners that have introduced themselves.
    #[must_use]
    pub fn learners(&self) -> Vec<LearnerStatus> {
        self.links
            .iter()
            .filter(|(_, link)| link.phase > Phase::Info)
            .map(|(&id, link)| LearnerStatus {
                link: id,
                sid: link.sid,
                kind: link.kind,
                synced: link.phase > Phase::Syncing,
                last_zxid: link.last_zxid,
            })
            .collect()
    }

    /// Syncs that wait for what was proposed before them.
    #[must_use]
    pub fn pending_syncs(&self) -> usize {
        self.proposals.pending_syncs()
    }

    /// The last committed zxid; epoch<<32 if nothing was committed in this epoch yet.
    #[must_use]
    pub fn last_committed(&self) -> Zxid {
        self.proposals.last_committed()
    }

    /// The last proposed zxid; epoch<<32 if nothing was proposed in this epoch yet (ZOOKEEPER-1319).
    #[must_use]
    pub fn last_proposed(&self) -> Zxid {
        self.proposals.last_proposed()
    }

    /// Ends the role: the history as the log will have it once every batch handed out is written; the txns
    /// of it that were not handed out as committed, for the caller to apply to its tree; the next free mark.
    #[must_use]
    pub fn into_history(self) -> (History, Vec<Proposal>, Mark) {
        self.journal.into_parts()
    }

    pub(super) fn ticks(&self, count: u32) -> u64 {
        self.config.tick_time_ms * u64::from(count)
    }

    pub(super) fn send(&mut self, link: LinkId, packet: QuorumPacket) {
        self.out.send.push((link, Outgoing::Packet(packet)));
    }

    /// Whether the reign has ended.
    pub(super) fn over(&self) -> bool {
        self.over
    }

    /// Closes a link, and says why.
    pub(super) fn close(&mut self, link: LinkId, reason: &str) {
        let sid = self
            .links
            .get(&link)
            .map_or(ServerId::NONE, |link| link.sid);
        self.out.notes.push(if sid == ServerId::NONE {
            format!("closing a learner's connection: {reason}")
        } else {
            format!("closing the connection of learner {sid}: {reason}")
        });
        self.out.close.push(link);
        self.on_closed(link);
    }

    pub(super) fn fail(&mut self, reason: String) {
        self.over = true;
        self.journal.abandon();
        self.out = LeaderReady {
            events: std::mem::take(&mut self.out.events),
            notes: std::mem::take(&mut self.out.notes),
            close: std::mem::take(&mut self.out.close),
            failed: Some(reason),
            ..LeaderReady::default()
        };
        self.out.close.extend(self.links.keys());
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        let limit = self.ticks(self.config.init_limit);
        self.timers.set(Timer::Stage, self.now + limit);
    }

    /// Fixes the epoch once a quorum of participants, with this server, has introduced itself.
    pub(super) fn try_propose_epoch(&mut self) {
        let me = self.config.my_id;
        let here = |sid| sid == me || self.is_linked(sid);
        if self.stage != Stage::Epoch || !self.config.verifier.is_quorum(here) {
            return;
        }
        let epoch = self.discovery.epoch();
        self.enter(Stage::AckEpoch);
        self.out
            .events
            .push(PeerEvent::EpochProposed { epoch: epoch.0 });
        // ZOOKEEPER-335: the promise is on disk before anybody is told the epoch.
        self.journal.write(Write::AcceptedEpoch(epoch));
        for (&id, link) in &mut self.links {
            if link.phase == Phase::AwaitingEpoch {
                link.phase = Phase::AckEpoch;
                let packet = Outgoing::Packet(wire::leader_info(epoch));
                self.out.send_after_write.push((id, packet));
            }
        }
    }

    /// Whether a voting learner with this id has introduced itself.
    fn is_linked(&self, sid: ServerId) -> bool {
        self.links.values().any(|link| {
            link.sid == sid && link.kind == LearnerKind::Participant && link.phase > Phase::Info
        })
    }

    fn on_wrote(&mut self, mark: Mark) {
        while self.in_flight.front().is_some_and(|done| done.mark <= mark) {
            let done = self.in_flight.pop_front().expect("the front was there");
            if done.accepted_epoch {
                self.on_accepted_epoch_written();
            }
            if done.current_epoch {
                let me = self.config.my_id;
                self.new_leader_acks.add(&self.config.verifier, me);
                self.try_establish();
            }
            if let Some(zxid) = done.last_txn {
                self.ack(self.config.my_id, zxid);
            }
        }
    }

    fn on_accepted_epoch_written(&mut self) {
        self.epoch_promised = true;
        let late: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.phase == Phase::AwaitingEpoch)
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            self.send_leader_info(id);
        }
        self.try_finish_discovery();
    }

    /// Takes over the reign once a quorum, with this server, has accepted the epoch.
    pub(super) fn try_finish_discovery(&mut self) {
        let me = self.config.my_id;
        if self.stage != Stage::AckEpoch
            || !self.epoch_promised
            || !self.discovery.has_quorum(&self.config.verifier, me)
        {
            return;
        }
        let epoch = self.epoch();
        self.enter(Stage::NewLeader);
        self.out
            .events
            .push(PeerEvent::EpochEstablished { epoch: epoch.0 });
        // This server's own ACK of NEWLEADER is the completion of this write.
        self.journal.write(Write::CurrentEpoch(epoch));
        self.proposals.start_epoch(Zxid::new(epoch, 0));
        let held: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.phase == Phase::AwaitingSync)
            .map(|(&id, _)| id)
            .collect();
        for id in held {
            self.start_sync(id);
        }
    }

    /// Starts serving once a quorum has acknowledged NEWLEADER (TLA+ `LeaderProcessACKLD`).
    pub(super) fn try_establish(&mut self) {
        let me = self.config.my_id;
        // The leader itself must have stored the epoch before it counts on others (ZOOKEEPER-1282).
        if self.stage != Stage::NewLeader
            || !self.new_leader_acks.servers().contains(&me) && self.config.verifier.is_voter(me)
            || !self.new_leader_acks.has_quorum(&self.config.verifier)
        {
            return;
        }
        self.stage = Stage::Broadcast;
        self.timers.stop(Timer::Stage);
        self.timers
            .set(Timer::HalfTick, self.now + self.config.tick_time_ms / 2);
        let epoch = self.epoch();
        self.out
            .events
            .push(PeerEvent::Established { epoch: epoch.0 });
        self.out.established = true;
        let waiting: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.phase == Phase::Synced)
            .map(|(&id, _)| id)
            .collect();
        for id in waiting {
            self.send_up_to_date(id);
        }
    }

    /// A disk has everything up to `zxid`.
    pub(super) fn ack(&mut self, sid: ServerId, zxid: Zxid) {
        let verifier = &self.config.verifier;
        self.proposals.ack(verifier, sid, zxid);
        let reach = self.proposals.reach(verifier);
        while let Some(proposal) = self.proposals.commit_next(reach) {
            for (&id, link) in &self.links {
                if link.phase >= Phase::Syncing {
                    let packet = match link.kind {
                        LearnerKind::Participant => {
                            QuorumPacket::bare(packet::COMMIT, proposal.zxid)
                        }
                        LearnerKind::Observer => {
                            QuorumPacket::with(packet::INFORM, proposal.zxid, proposal.txn.clone())
                        }
                    };
                    self.out.send.push((id, Outgoing::Packet(packet)));
                }
            }
            self.journal.commit(proposal.clone());
            self.out.committed.push(proposal);
            // A session that sends a write behind a sync hears of the sync first.
            self.finish_syncs();
        }
    }

    fn finish_syncs(&mut self) {
        while let Some(from) = self.proposals.next_synced() {
            match from {
                SyncFrom::Local(session, cxid) => {
                    self.out.synced.push((session, cxid));
                    self.out.synced_after.push(self.out.committed.len());
                }
                SyncFrom::Learner(link) => {
                    if self.links.contains_key(&link) {
                        self.send(link, QuorumPacket::bare(packet::SYNC, Zxid::ZERO));
                    }
                }
            }
        }
    }

    /// Steps down if the followers that are alive are no quorum any more: at every tick, and at once when a
    /// connection ends, so that clients do not wait for a write that can no longer be acknowledged.
    pub(super) fn check_alive(&mut self) {
        if self.stage != Stage::Broadcast || self.over {
            return;
        }
        let (me, now) = (self.config.my_id, self.now);
        let alive = |sid| {
            sid == me
                || self.links.values().any(|link| {
                    link.sid == sid
                        && link.kind == LearnerKind::Participant
                        && now <= link.alive_until
                })
        };
        if !self.config.verifier.is_quorum(alive) {
            self.fail("a quorum of followers is no longer there".to_owned());
        }
    }

    /// Gives up early when so many voters went elsewhere that no quorum can form (ZOOKEEPER-3109).
    pub(super) fn check_possible(&mut self) {
        if self.stage == Stage::Broadcast || self.over {
            return;
        }
        let possible = discovery::quorum_possible(
            &self.config.verifier,
            self.config.my_id,
            |sid| self.is_linked(sid),
            &self.elsewhere,
        );
        if !possible {
            self.fail("too many voters follow or elect someone else".to_owned());
        }
    }

    fn on_timeout(&mut self) {
        let silent: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.silent_until.is_some_and(|at| at <= self.now))
            .map(|(&id, _)| id)
            .collect();
        for id in silent {
            if self.has_claim(id) {
                self.settle_claim(id);
            } else {
                self.close(id, "nothing was heard of it in time");
            }
        }
        while let Some(timer) = self.timers.expired(self.now) {
            if self.over {
                return;
            }
            match timer {
                Timer::Stage => self.on_stage_timeout(),
                Timer::HalfTick => self.on_half_tick(),
            }
        }
    }

    fn on_stage_timeout(&mut self) {
        let waited_for = match self.stage {
            Stage::Epoch => "a quorum to connect",
            Stage::AckEpoch => "a quorum to accept the epoch",
            _ => "a quorum to take over the history",
        };
        let limit = self.ticks(self.config.init_limit);
        self.fail(format!("waited {limit} ms for {waited_for} in vain"));
    }

    /// Pings, and every second time checks that a quorum is alive.
    fn on_half_tick(&mut self) {
        self.timers
            .set(Timer::HalfTick, self.now + self.config.tick_time_ms / 2);
        if self.check_quorum {
            self.check_alive();
            if self.over {
                return;
            }
            let used_up = self.proposals.last_proposed().counter() == Zxid::COUNTER_MAX - 1;
            if used_up && self.proposals.is_empty() {
                self.fail(format!("the counter of epoch {} is used up", self.epoch()));
                return;
            }
        }
        self.check_quorum = !self.check_quorum;
        self.ping_all();
    }

    fn ping_all(&mut self) {
        let patience = self.ticks(self.config.sync_limit);
        let ids: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.phase >= Phase::Syncing)
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            let overdue = self.links[&id]
                .unacked_since
                .is_some_and(|(_, since)| self.now - since >= patience);
            if overdue {
                self.close(id, "it did not acknowledge a proposal in time");
            } else {
                self.send(
                    id,
                    QuorumPacket::bare(packet::PING, self.proposals.last_proposed()),
                );
            }
        }
    }
}
