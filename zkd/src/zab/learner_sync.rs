//! The learner between ACKEPOCH and UPTODATE: taking over the leader's history.
//!
//! Law kept here, and the reason for the file: history, then currentEpoch, then the ACK of NEWLEADER. What
//! the leader has not committed by then stays out of the log until UPTODATE (ZOOKEEPER-3911, 4394, 4643,
//! 4646, 4785). As in 3.9.5: after DIFF, committed txns are logged and applied at NEWLEADER; after SNAP and
//! TRUNC they are applied as they come, and a snapshot of the tree is written at NEWLEADER. Observers do
//! the same; Apache's log the txns of a DIFF only at UPTODATE, after the epoch. Counterpart:
//! `Learner.syncWithLeader`.

use super::learner::{Learner, LearnerKind, State};
use super::{Proposal, Write};
use crate::event::{PeerEvent, SyncMode};
use crate::ids::Zxid;
use crate::planted::{self, Planted};
use crate::record::quorum::{QuorumPacket, packet};

impl Learner {
    /// DIFF or TRUNC (TLA+ `FollowerProcessSyncMessage`).
    pub(super) fn on_sync_start(&mut self, packet: &QuorumPacket) {
        match packet.kind {
            packet::DIFF | packet::TRUNC if self.claims_nothing_in.is_some() => self.fail_fatally(
                13,
                format!(
                    "the leader answered {} to a server without history",
                    packet::name(packet.kind)
                ),
            ),
            packet::DIFF => {
                // ZOOKEEPER-2355: the zxid of a DIFF says where the leader is, not where this server is.
                self.start_sync(SyncMode::Diff, packet.zxid);
                self.state = State::Syncing;
            }
            packet::TRUNC => {
                let too_many = i64::from(planted::is(Planted::TruncOffByOne));
                let to = Zxid(packet.zxid.0 + too_many);
                self.start_sync(SyncMode::Trunc, to);
                self.journal.write(Write::Truncate(to));
                self.unsettled = true;
                self.last_received = to;
                self.state = State::Truncating;
            }
            kind => self.fail_fatally(
                13,
                format!(
                    "the leader began the synchronization with {}",
                    packet::name(kind)
                ),
            ),
        }
    }

    fn start_sync(&mut self, mode: SyncMode, to: Zxid) {
        self.mode = mode;
        self.out.events.push(PeerEvent::Sync {
            learner: self.config.my_id.0,
            mode,
            from: self.journal.history().last_zxid.0,
            to: to.0,
        });
    }

    /// SNAP: the driver has put the leader's tree in the place of this server's.
    pub(super) fn on_snapshot(&mut self, zxid: Zxid) {
        if self.state != State::AwaitingSync {
            // The tree is another one now, whatever this server thought it had.
            self.unsettled = true;
            self.fail(format!("a SNAP of {zxid} came out of its place"));
            return;
        }
        self.start_sync(SyncMode::Snap, zxid);
        self.journal.replace(zxid);
        self.unsettled = true;
        self.last_received = zxid;
        self.last_committed = zxid;
        self.state = State::Syncing;
    }

    /// The log is cut and the database loaded again.
    pub(super) fn on_truncated(&mut self, last_zxid: Zxid) {
        if self.state != State::Truncating {
            return;
        }
        if last_zxid != self.last_received {
            // ZOOKEEPER-3701: going on with another history would split the ensemble. Apache exits with
            // 13 here, for ever; nothing was cut, so this server can ask for a SNAP instead.
            self.claims_nothing_in = Some(self.epoch);
            self.fail(format!(
                "the log cannot be cut behind {}, its last txn is {last_zxid}",
                self.last_received
            ));
            return;
        }
        self.journal.truncated(last_zxid);
        self.last_committed = last_zxid;
        self.state = State::Syncing;
    }

    /// A packet between DIFF, TRUNC or SNAP and UPTODATE; anything else is ignored, as Apache does.
    pub(super) fn on_sync_packet(&mut self, packet: QuorumPacket) {
        match packet.kind {
            packet::PROPOSAL => self.on_proposal_in_sync(packet),
            packet::COMMIT | packet::COMMITANDACTIVATE => self.on_commit_in_sync(packet.zxid),
            packet::INFORM | packet::INFORMANDACTIVATE => self.on_inform_in_sync(packet),
            packet::NEWLEADER => self.on_newleader(packet),
            packet::UPTODATE => self.on_uptodate(),
            _ => {}
        }
    }

    /// PROPOSAL (TLA+ `FollowerProcessPROPOSALInSync`). It must follow what came before: a hole would be
    /// lost for good (ZOOKEEPER-4925).
    fn on_proposal_in_sync(&mut self, packet: QuorumPacket) {
        let zxid = packet.zxid;
        let Some(txn) = packet.data else {
            self.fail(format!("the proposal {zxid} has no txn"));
            return;
        };
        // A SNAP may be newer than its place in the stream: what follows may begin before its zxid.
        let may_repeat = self.mode == SyncMode::Snap
            && self.last_received == self.journal.history().last_zxid
            && self.state == State::Syncing;
        let fits = zxid.follows(self.last_received)
            || (may_repeat && zxid <= self.last_received)
            || planted::is(Planted::DiffHole);
        if !fits {
            self.fail(format!(
                "the synchronization has a hole: {zxid} does not follow {}",
                self.last_received
            ));
            return;
        }
        self.last_received = zxid;
        self.queued.push_back(Proposal { zxid, txn });
    }

    /// COMMIT (TLA+ `FollowerProcessCOMMITInSync`): of the oldest proposal that is not committed.
    fn on_commit_in_sync(&mut self, zxid: Zxid) {
        let next = self.queued.get(self.queued_committed).map(|txn| txn.zxid);
        if next != Some(zxid) {
            if zxid <= self.last_committed {
                return;
            }
            self.fail(format!(
                "the leader committed {zxid} during synchronization, the oldest proposal is {next:?}"
            ));
            return;
        }
        self.queued_committed += 1;
        if self.mode != SyncMode::Diff && self.state == State::Syncing {
            self.apply_queued();
        }
    }

    /// INFORM: an observer's PROPOSAL and COMMIT in one. What an old leader proposed before without
    /// committing it comes again this way.
    fn on_inform_in_sync(&mut self, packet: QuorumPacket) {
        let Some(proposal) = self.informed(packet) else {
            return;
        };
        if self.queued.len() > self.queued_committed {
            self.queued.truncate(self.queued_committed);
            self.last_received = self
                .queued
                .back()
                .map_or(self.last_committed, |txn| txn.zxid);
        }
        let Proposal { zxid, txn } = proposal;
        self.on_proposal_in_sync(QuorumPacket::with(packet::PROPOSAL, zxid, txn));
        if self.state != State::Over {
            self.on_commit_in_sync(zxid);
        }
    }

    /// Hands out the queued txns that are committed.
    fn apply_queued(&mut self) {
        for _ in 0..std::mem::take(&mut self.queued_committed) {
            let proposal = self
                .queued
                .pop_front()
                .expect("no more are committed than queued");
            self.commit(proposal);
        }
    }

    /// NEWLEADER (TLA+ `FollowerProcessNEWLEADER`): everything the leader has committed goes to disk, then
    /// currentEpoch, then the ACK leaves (ZOOKEEPER-1282).
    fn on_newleader(&mut self, packet: QuorumPacket) {
        let first = Zxid::new(self.epoch, 0);
        if self.state != State::Syncing || packet.zxid != first {
            self.fail(format!(
                "NEWLEADER {} came out of its place in epoch {}",
                packet.zxid, self.epoch
            ));
            return;
        }
        // A single byte is what leaders without a configuration send.
        self.leader_config = packet.data.filter(|text| text.len() > 1);
        if self.mode == SyncMode::Diff {
            for proposal in self.queued.iter().take(self.queued_committed) {
                self.journal.write(Write::Txn(proposal.clone()));
            }
            self.apply_queued();
        } else {
            // The snapshot is of the tree as it stands: it has what was handed out so far. What is handed
            // out together with it goes to the log behind it.
            let applied = self.journal.applied();
            self.journal.write(Write::Snapshot(applied));
            for proposal in self.out.committed.iter().filter(|txn| txn.zxid > applied) {
                self.journal.write(Write::Txn(proposal.clone()));
            }
        }
        self.journal.write(Write::CurrentEpoch(self.epoch));
        self.out
            .send_after_write
            .push(QuorumPacket::bare(packet::ACK, first));
        self.out.events.push(PeerEvent::EpochEstablished {
            epoch: self.epoch.0,
        });
        self.state = State::StoringEpoch(self.journal.next_mark());
        self.heard();
    }

    /// UPTODATE (TLA+ `FollowerProcessUPTODATE`): the second ACK of NEWLEADER, then what is queued is
    /// logged and acknowledged, then what of it is committed is handed out. An observer drops what is not.
    fn on_uptodate(&mut self) {
        if self.state != State::AwaitingUpToDate {
            self.fail("UPTODATE came before NEWLEADER".to_owned());
            return;
        }
        let first = Zxid::new(self.epoch, 0);
        self.out.send.push(QuorumPacket::bare(packet::ACK, first));
        let committed = std::mem::take(&mut self.queued_committed);
        let queued = std::mem::take(&mut self.queued);
        if self.config.kind == LearnerKind::Participant {
            for proposal in queued {
                self.log(proposal);
            }
            for _ in 0..committed {
                let proposal = self
                    .pending
                    .pop_front()
                    .expect("no more are committed than queued");
                self.commit(proposal);
            }
        } else {
            for proposal in queued.into_iter().take(committed) {
                self.journal.write(Write::Txn(proposal.clone()));
                self.commit(proposal);
            }
            self.last_received = self.last_committed;
        }
        self.state = State::Broadcast;
        self.out.up_to_date = true;
        self.heard();
    }
}
