//! The leader's side of one learner's link: what each packet means in each phase.
//!
//! Law kept here: a link moves through its phases in one direction only, and a packet that has no place in
//! the phase closes that link and nothing else. The `Leader` of `leader` owns the links and the quorums.
//! Counterpart: `LearnerHandler`.

use crate::event::{PeerEvent, SyncMode};
use crate::ids::{Epoch, LinkId, ServerId, Zxid};
use crate::planted::{self, Planted};
use crate::record::quorum::{PROTOCOL_VERSION, QuorumPacket, packet};
use crate::time::Instant;

use super::discovery::{EpochAck, StateSummary};
use super::leader::{Leader, Stage};
use super::learner::LearnerKind;
use super::sync_plan::SyncPlan;
use super::{Asked, LearnerRequest, Outgoing, Proposal, Revalidation, wire};

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// FOLLOWERINFO or OBSERVERINFO is awaited.
    Info,
    /// The epoch is not fixed yet, or not yet on disk.
    AwaitingEpoch,
    /// LEADERINFO was sent; ACKEPOCH is awaited.
    AckEpoch,
    /// A quorum of ACKEPOCH is awaited.
    AwaitingSync,
    /// It was sent everything up to NEWLEADER, and receives proposals; its ACK is awaited.
    Syncing,
    /// It acknowledged NEWLEADER; a quorum that did is awaited.
    Synced,
    /// UPTODATE was sent.
    Serving,
}

/// One learner's link.
#[derive(Debug)]
pub(super) struct Link {
    /// [`ServerId::NONE`] until it has introduced itself.
    pub(super) sid: ServerId,
    pub(super) kind: LearnerKind,
    pub(super) phase: Phase,
    /// The link is closed if nothing came by then; `None` while the learner waits for the leader.
    pub(super) silent_until: Option<Instant>,
    /// The learner counts as alive until then.
    pub(super) alive_until: Instant,
    /// The last zxid it told of.
    pub(super) last_zxid: Zxid,
    /// The oldest proposal it owes an ACK for, and since when, as `SyncLimitCheck` counts it. Only
    /// from its ACK of NEWLEADER on.
    pub(super) unacked_since: Option<(Zxid, Instant)>,
    /// The newest proposal sent, and when.
    newest_sent: Option<(Zxid, Instant)>,
    /// ACKs of txns that came before the ACK of NEWLEADER: 3.8.0 logs while it is being synchronized.
    /// They count only with that ACK, since before it the learner's currentEpoch may be an old one.
    early_ack: Option<Zxid>,
    /// When its last packet came.
    heard_at: Instant,
    /// It says it is a server that has a link already, which is given a tick to show that it lives.
    claim: Option<Claim>,
}

/// An introduction that is held back.
#[derive(Clone, Copy, Debug)]
struct Claim {
    sid: ServerId,
    kind: LearnerKind,
    accepted: Epoch,
    since: Instant,
}

impl Link {
    pub(super) fn on_proposal_sent(&mut self, zxid: Zxid, now: Instant) {
        if self.phase > Phase::Syncing {
            self.newest_sent = Some((zxid, now));
            self.unacked_since.get_or_insert((zxid, now));
        }
    }

    fn on_acked(&mut self, zxid: Zxid) {
        self.last_zxid = self.last_zxid.max(zxid);
        if self.unacked_since.is_some_and(|(oldest, _)| zxid >= oldest) {
            self.unacked_since = self.newest_sent.filter(|&(newest, _)| newest > zxid);
        }
    }
}

impl Leader {
    pub(super) fn on_connected(&mut self, id: LinkId) {
        let link = Link {
            sid: ServerId::NONE,
            kind: LearnerKind::Participant,
            phase: Phase::Info,
            silent_until: Some(self.now + self.ticks(self.config.init_limit)),
            alive_until: self.now + self.ticks(self.config.init_limit + self.config.sync_limit),
            last_zxid: Zxid::NONE,
            unacked_since: None,
            newest_sent: None,
            early_ack: None,
            heard_at: self.now,
            claim: None,
        };
        self.links.insert(id, link);
    }

    pub(super) fn on_closed(&mut self, id: LinkId) {
        if let Some(gone) = self.links.remove(&id) {
            let claims = |link: &Link| link.claim.is_some_and(|claim| claim.sid == gone.sid);
            let heir = self.links.iter().find(|(_, link)| claims(link));
            if let Some((&heir, _)) = heir {
                self.settle_claim(heir);
            }
            self.check_possible();
            self.check_alive();
        }
    }

    pub(super) fn on_snapshot_sent(&mut self, id: LinkId) {
        let limit = self.ticks(self.config.init_limit);
        if let Some(link) = self.links.get_mut(&id)
            && link.phase == Phase::Syncing
        {
            link.silent_until = Some(self.now + limit);
        }
    }

    pub(super) fn on_packet(&mut self, id: LinkId, packet: QuorumPacket) {
        let Some(link) = self.links.get_mut(&id) else {
            return; // its closing crossed with this packet
        };
        link.heard_at = self.now;
        let result = match (link.phase, packet.kind) {
            (Phase::Info, kind) if link.claim.is_some() => {
                Err(format!("{} came before LEADERINFO", packet::name(kind)))
            }
            (Phase::Info, packet::FOLLOWERINFO) => {
                self.on_info(id, &packet, LearnerKind::Participant)
            }
            (Phase::Info, packet::OBSERVERINFO) => self.on_info(id, &packet, LearnerKind::Observer),
            (Phase::AckEpoch, packet::ACKEPOCH) => self.on_ackepoch(id, &packet),
            (Phase::Syncing, packet::ACK) => self.on_sync_ack(id, packet.zxid),
            (Phase::Synced | Phase::Serving, _) => self.on_learner_packet(id, packet),
            (phase, kind) => Err(format!("{} came in phase {phase:?}", packet::name(kind))),
        };
        if let Err(reason) = result {
            self.close(id, &reason);
        }
    }

    /// FOLLOWERINFO or OBSERVERINFO (TLA+ `LeaderProcessFOLLOWERINFO`).
    fn on_info(
        &mut self,
        id: LinkId,
        packet: &QuorumPacket,
        kind: LearnerKind,
    ) -> Result<(), String> {
        let info = wire::read_learner_info(packet).map_err(|error| error.to_string())?;
        let sid = info.sid.unwrap_or_else(|| {
            self.next_anonymous -= 1;
            ServerId(self.next_anonymous + 1)
        });
        if info.protocol_version < PROTOCOL_VERSION {
            return Err(format!(
                "learner {sid} speaks protocol version {:#x}, older than any supported one",
                info.protocol_version
            ));
        }
        if sid == self.config.my_id {
            return Err(format!("it says it is server {sid}, which is this one"));
        }
        if info.config_version > self.config.config_version {
            return Err(format!(
                "learner {sid} has configuration version {:#x}, newer than the leader's {:#x}",
                info.config_version, self.config.config_version
            ));
        }
        let accepted = info.accepted_epoch;
        if accepted.0 < -1 || accepted.0 >= i64::from(i32::MAX) {
            return Err(format!("learner {sid} has the impossible epoch {accepted}"));
        }
        let claim = Claim {
            sid,
            kind,
            accepted,
            since: self.now,
        };
        let serves = |link: &Link| link.sid == sid && link.phase == Phase::Serving;
        if self.links.values().any(serves) {
            // It has come back, and the end of its old link is not seen here yet; or there are two.
            let until = self.now + self.config.tick_time_ms;
            if let Some(link) = self.links.get_mut(&id) {
                link.claim = Some(claim);
                link.silent_until = Some(until);
            }
            return Ok(());
        }
        self.introduce(id, claim);
        Ok(())
    }

    /// Decides about a learner whose id another link has: the old link is gone, or a tick has passed, in
    /// which a learner that lives has answered a ping.
    pub(super) fn settle_claim(&mut self, id: LinkId) {
        let Some(claim) = self.links.get_mut(&id).and_then(|link| link.claim.take()) else {
            return;
        };
        let sid = claim.sid;
        let lives = |link: &Link| {
            link.sid == sid && link.phase == Phase::Serving && link.heard_at > claim.since
        };
        if !self.links.values().any(lives) {
            self.introduce(id, claim);
            return;
        }
        if self.twins.insert(sid) {
            self.out.notes.push(format!(
                "another server says it is server {sid}, but that one is here and answers; the other is \
                 sent away: give it a myid of its own"
            ));
        }
        self.out.close.push(id);
        self.on_closed(id);
    }

    /// Takes a learner in: it is told the epoch next.
    fn introduce(&mut self, id: LinkId, claim: Claim) {
        let Claim {
            sid,
            kind,
            accepted,
            ..
        } = claim;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.sid = sid;
        link.kind = kind;
        link.phase = Phase::AwaitingEpoch;
        link.silent_until = None;
        self.close_older_links(id, sid);
        if self.over() {
            return;
        }
        let votes =
            kind == LearnerKind::Participant && self.config.verifier.voters().contains(&sid);
        if self.stage != Stage::Epoch && votes && accepted > self.epoch() {
            // It will never follow an older epoch, and only a new reign can find a later one. Apache's
            // leaders leave it out until they fall for another reason.
            self.fail(format!(
                "server {sid} has promised epoch {accepted}, which is later than {}",
                self.epoch()
            ));
            return;
        }
        if self.stage == Stage::Epoch {
            self.discovery.heard_of(accepted);
            self.try_propose_epoch();
        } else if self.epoch_promised {
            self.send_leader_info(id);
        }
    }

    /// A server has one link; whoever connects again has lost the old one. What its disk holds may now be
    /// cut back, so its ACKs count anew.
    fn close_older_links(&mut self, newest: LinkId, sid: ServerId) {
        let old: Vec<LinkId> = self
            .links
            .iter()
            .filter(|&(&other, link)| other != newest && link.sid == sid)
            .map(|(&other, _)| other)
            .collect();
        for other in old {
            self.close(other, "it connected again");
        }
        self.proposals.forget(sid);
        self.new_leader_acks.remove(sid);
    }

    /// Whether this link waits for another one with the same id to show that it lives.
    pub(super) fn has_claim(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.claim.is_some())
    }

    pub(super) fn send_leader_info(&mut self, id: LinkId) {
        let limit = self.ticks(self.config.init_limit);
        if let Some(link) = self.links.get_mut(&id) {
            link.phase = Phase::AckEpoch;
            link.silent_until = Some(self.now + limit);
        }
        self.send(id, wire::leader_info(self.epoch()));
    }

    /// ACKEPOCH (TLA+ `LeaderProcessACKEPOCH`).
    fn on_ackepoch(&mut self, id: LinkId, packet: &QuorumPacket) -> Result<(), String> {
        let current_epoch = wire::read_ack_epoch(packet).map_err(|error| error.to_string())?;
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        link.last_zxid = packet.zxid;
        link.silent_until = None;
        link.phase = Phase::AwaitingSync;
        let (sid, kind) = (link.sid, link.kind);
        if self.stage > Stage::AckEpoch {
            self.start_sync(id);
            return Ok(());
        }
        let summary = StateSummary {
            current_epoch,
            last_zxid: packet.zxid,
        };
        // Observers wait for the same events but never count (ZOOKEEPER-2959). The verifier sees to it
        // for those that are no voters; a voter cannot observe.
        let counted = if kind == LearnerKind::Participant {
            sid
        } else {
            ServerId::NONE
        };
        if self
            .discovery
            .on_ack(&self.config.verifier, counted, summary)
            == EpochAck::AheadOfLeader
        {
            return Err(format!(
                "its history (epoch {current_epoch}, zxid {}) is ahead of the leader's",
                packet.zxid
            ));
        }
        self.try_finish_discovery();
        Ok(())
    }

    /// Sends a learner everything it lacks and NEWLEADER, and adds it to those that receive proposals, in
    /// one step (TLA+ `LeaderSyncFollower`; ZOOKEEPER-962, 3104).
    pub(super) fn start_sync(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let (sid, kind, peer_last) = (link.sid, link.kind, link.last_zxid);
        let history = self.journal.history();
        let applied = self.journal.applied();
        // Before a quorum has acknowledged NEWLEADER the new epoch must not show (ZOOKEEPER-790).
        let last_processed = if self.stage == Stage::Broadcast {
            applied.max(Zxid::new(self.epoch(), 0))
        } else {
            applied
        };
        let last_txn = history.committed.max().unwrap_or(applied);
        let plan = SyncPlan::new(peer_last, last_processed, last_txn, &history.committed);
        let mut packets = Vec::new();
        let (mode, to, cursor) = match plan {
            SyncPlan::Diff { to, cursor } => {
                packets.push(Outgoing::Packet(QuorumPacket::bare(packet::DIFF, to)));
                (SyncMode::Diff, to, cursor)
            }
            SyncPlan::Trunc { to, cursor } => {
                packets.push(Outgoing::Packet(QuorumPacket::bare(packet::TRUNC, to)));
                (SyncMode::Trunc, to, cursor)
            }
            SyncPlan::Snap => {
                packets.push(Outgoing::Snapshot(last_processed));
                (SyncMode::Snap, last_processed, last_processed)
            }
        };
        if mode == SyncMode::Snap {
            // The tree is written as it stands; what is committed but not yet in it must follow.
            let pending = self.out.committed.iter();
            push_committed(&mut packets, pending.filter(|txn| txn.zxid > cursor));
        } else {
            let is_many = history.committed.after(cursor).nth(1).is_some();
            let hole = usize::from(is_many && planted::is(Planted::DiffHole));
            push_committed(&mut packets, history.committed.after(cursor).skip(hole));
        }
        if kind == LearnerKind::Participant {
            for proposal in self.proposals.after(cursor) {
                packets.push(Outgoing::Packet(QuorumPacket::with(
                    packet::PROPOSAL,
                    proposal.zxid,
                    proposal.txn.clone(),
                )));
            }
        }
        packets.push(Outgoing::Packet(QuorumPacket::with(
            packet::NEWLEADER,
            Zxid::new(self.epoch(), 0),
            self.config.config_text.clone(),
        )));
        self.out
            .send
            .extend(packets.into_iter().map(|packet| (id, packet)));
        self.out.events.push(PeerEvent::Sync {
            learner: sid.0,
            mode,
            from: peer_last.0,
            to: to.0,
        });
        let limit = self.ticks(self.config.init_limit);
        let deadline = (mode != SyncMode::Snap).then_some(self.now + limit);
        if let Some(link) = self.links.get_mut(&id) {
            link.phase = Phase::Syncing;
            link.silent_until = deadline;
        }
    }

    /// An ACK of a learner that has not acknowledged NEWLEADER yet (TLA+ `LeaderProcessACKLD`). Those of
    /// 3.8.0 may acknowledge the txns of a DIFF first; Apache's leader then never counts the ACK of
    /// NEWLEADER, this one waits for it.
    fn on_sync_ack(&mut self, id: LinkId, zxid: Zxid) -> Result<(), String> {
        let new_leader = Zxid::new(self.epoch(), 0);
        let patience = self.ticks(self.config.sync_limit);
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        link.silent_until = Some(self.now + patience);
        link.alive_until = link.alive_until.max(self.now + patience);
        if zxid != new_leader {
            if zxid.counter() != 0 {
                link.early_ack = link.early_ack.max(Some(zxid));
            }
            return Ok(());
        }
        link.phase = Phase::Synced;
        let (sid, kind, early_ack) = (link.sid, link.kind, link.early_ack.take());
        if self.stage == Stage::Broadcast {
            self.send_up_to_date(id);
        } else {
            link.silent_until = None;
        }
        if kind == LearnerKind::Participant {
            self.new_leader_acks.add(&self.config.verifier, sid);
            self.try_establish();
        }
        if let Some(zxid) = early_ack {
            self.on_ack(id, zxid);
        }
        Ok(())
    }

    pub(super) fn send_up_to_date(&mut self, id: LinkId) {
        let patience = self.ticks(self.config.sync_limit);
        if let Some(link) = self.links.get_mut(&id) {
            link.phase = Phase::Serving;
            link.silent_until = Some(self.now + patience);
            link.alive_until = link.alive_until.max(self.now + patience);
        }
        self.send(id, QuorumPacket::bare(packet::UPTODATE, Zxid::NONE));
    }

    /// A packet of a learner that is synchronized.
    fn on_learner_packet(&mut self, id: LinkId, packet: QuorumPacket) -> Result<(), String> {
        let patience = self.ticks(self.config.sync_limit);
        if let Some(link) = self.links.get_mut(&id) {
            link.alive_until = self.now + patience;
            if link.phase == Phase::Serving {
                link.silent_until = Some(self.now + patience);
            }
        }
        let bad = |error: crate::jute::DecodeError| error.to_string();
        match packet.kind {
            packet::ACK => self.on_ack(id, packet.zxid),
            packet::PING => {
                let touched = wire::read_ping_reply(&packet).map_err(bad)?;
                self.out.touched.extend(touched);
            }
            packet::REVALIDATE => {
                let (session, timeout_ms) = wire::read_revalidate(&packet).map_err(bad)?;
                self.asked.push(Asked::Revalidation(Revalidation {
                    link: id,
                    session,
                    timeout_ms,
                }));
            }
            packet::REQUEST => {
                let forwarded = wire::read_request(&packet).map_err(bad)?;
                self.asked.push(Asked::Request(LearnerRequest {
                    link: id,
                    session: forwarded.session,
                    cxid: forwarded.cxid,
                    op: forwarded.op,
                    payload: forwarded.payload,
                    ids: packet.authinfo.unwrap_or_default(),
                }));
            }
            kind => self
                .out
                .notes
                .push(format!("ignoring a learner's {}", packet::name(kind))),
        }
        Ok(())
    }

    /// An ACK of a txn (TLA+ `LeaderProcessACK`). The second ACK of NEWLEADER, sent at UPTODATE, has the
    /// counter 0 and is ignored here.
    fn on_ack(&mut self, id: LinkId, zxid: Zxid) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if zxid.counter() == 0 || zxid > self.proposals.last_proposed() {
            return;
        }
        link.on_acked(zxid);
        let (sid, kind) = (link.sid, link.kind);
        if kind == LearnerKind::Participant {
            self.ack(sid, zxid);
        }
    }
}

/// Committed txns go as PROPOSAL and COMMIT, to observers too.
fn push_committed<'a>(packets: &mut Vec<Outgoing>, committed: impl Iterator<Item = &'a Proposal>) {
    for proposal in committed {
        packets.push(Outgoing::Packet(QuorumPacket::with(
            packet::PROPOSAL,
            proposal.zxid,
            proposal.txn.clone(),
        )));
        packets.push(Outgoing::Packet(QuorumPacket::bare(
            packet::COMMIT,
            proposal.zxid,
        )));
    }
}
