//! Discovery: how a leader finds its epoch, and makes sure nobody in its quorum knows more than it does.
//!
//! Law kept here: the leader and observers-of-nothing never make a quorum; a summary of -1 is neither
//! counted nor compared; nobody whose (currentEpoch, lastZxid) is greater than the leader's is counted.
//! Pure: the leader does the sending and writing. Counterpart: `Leader.getEpochToPropose`,
//! `Leader.waitForEpochAck`, `StateSummary`.

use std::collections::BTreeSet;

use crate::ids::{Epoch, ServerId, Zxid};
use crate::quorum::{AckSet, QuorumVerifier};

/// What decides whose history is newer: first the epoch whose history was taken over, then how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StateSummary {
    pub(super) current_epoch: Epoch,
    pub(super) last_zxid: Zxid,
}

/// What an ACKEPOCH means for the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EpochAck {
    /// It counts, or it need not be counted.
    Accepted,
    /// The learner knows more: it must not be led by this leader.
    AheadOfLeader,
}

/// The state of the negotiation.
#[derive(Debug)]
pub(super) struct Discovery {
    /// The leader's own summary when it was elected.
    own: StateSummary,
    /// The epoch to propose: more than every accepted epoch heard of.
    proposed: Epoch,
    acks: AckSet,
}

impl Discovery {
    pub(super) fn new(own: StateSummary, accepted: Epoch) -> Self {
        Self {
            own,
            proposed: accepted.next(),
            acks: AckSet::new(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.proposed
    }

    /// A learner (observers too) has promised this epoch (TLA+ `LeaderProcessFOLLOWERINFO`).
    pub(super) fn heard_of(&mut self, accepted: Epoch) {
        self.proposed = self.proposed.max(accepted.next());
    }

    /// A learner answered LEADERINFO, before a quorum had (TLA+ `LeaderProcessACKEPOCH`).
    pub(super) fn on_ack(
        &mut self,
        verifier: &QuorumVerifier,
        sid: ServerId,
        summary: StateSummary,
    ) -> EpochAck {
        if summary.current_epoch == Epoch::NONE {
            return EpochAck::Accepted;
        }
        if summary > self.own {
            return EpochAck::AheadOfLeader;
        }
        if summary.last_zxid != Zxid::NONE {
            self.acks.add(verifier, sid);
        }
        EpochAck::Accepted
    }

    /// Whether those who accepted the epoch, with the leader, are a quorum.
    pub(super) fn has_quorum(&self, verifier: &QuorumVerifier, me: ServerId) -> bool {
        verifier.is_quorum(|sid| sid == me || self.acks.servers().contains(&sid))
    }
}

/// Whether a quorum can still form: of `me`, the voters connected, and those not known to be elsewhere
/// (ZOOKEEPER-3109).
pub(super) fn quorum_possible(
    verifier: &QuorumVerifier,
    me: ServerId,
    connected: impl Fn(ServerId) -> bool,
    elsewhere: &BTreeSet<ServerId>,
) -> bool {
    verifier.is_quorum(|sid| sid == me || connected(sid) || !elsewhere.contains(&sid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(epoch: i64, zxid: i64) -> StateSummary {
        StateSummary {
            current_epoch: Epoch(epoch),
            last_zxid: Zxid(zxid),
        }
    }

    #[test]
    fn leader_process_followerinfo_takes_more_than_every_accepted_epoch() {
        let mut discovery = Discovery::new(summary(1, 5), Epoch(3));
        assert_eq!(discovery.epoch(), Epoch(4));
        discovery.heard_of(Epoch(2));
        assert_eq!(discovery.epoch(), Epoch(4));
        discovery.heard_of(Epoch(9));
        assert_eq!(discovery.epoch(), Epoch(10));
    }

    #[test]
    fn leader_process_ackepoch_counts_voters_with_a_summary_only() {
        let verifier = QuorumVerifier::majority([1, 2, 3].map(ServerId));
        let me = ServerId(1);
        let mut discovery = Discovery::new(summary(1, 5), Epoch(1));
        for (sid, sent) in [
            (2, summary(-1, 99)),
            (2, summary(1, -1)),
            (4, summary(1, 5)),
        ] {
            assert_eq!(
                discovery.on_ack(&verifier, ServerId(sid), sent),
                EpochAck::Accepted
            );
            assert!(!discovery.has_quorum(&verifier, me), "{sid} {sent:?}");
        }
        for better in [summary(1, 6), summary(2, 0)] {
            assert_eq!(
                discovery.on_ack(&verifier, ServerId(2), better),
                EpochAck::AheadOfLeader
            );
            assert!(!discovery.has_quorum(&verifier, me));
        }
        assert_eq!(
            discovery.on_ack(&verifier, ServerId(3), summary(0, 77)),
            EpochAck::Accepted,
            "an older epoch is not newer, however far it goes"
        );
        assert!(discovery.has_quorum(&verifier, me));
    }

    #[test]
    fn a_quorum_is_impossible_when_too_many_are_elsewhere() {
        let verifier = QuorumVerifier::majority([1, 2, 3].map(ServerId));
        let elsewhere = BTreeSet::from([2, 3].map(ServerId));
        assert!(!quorum_possible(
            &verifier,
            ServerId(1),
            |_| false,
            &elsewhere
        ));
        assert!(quorum_possible(
            &verifier,
            ServerId(1),
            |sid| sid == ServerId(3),
            &elsewhere
        ));
        assert!(quorum_possible(
            &verifier,
            ServerId(1),
            |_| false,
            &BTreeSet::from([ServerId(2)])
        ));
    }
}
