//! Votes as they are counted: the order among them, when two are the same, and the set of them.
//!
//! Pure parts of the election, each with the quirk Apache has. Counterpart: `Vote.equals`,
//! `FastLeaderElection.totalOrderPredicate`, `getVoteTracker`, `checkLeader`.

use std::collections::BTreeMap;

use super::Vote;
use crate::event::ServerState;
use crate::ids::ServerId;
use crate::quorum::QuorumVerifier;

/// Whether `new` beats `current`: its leader has weight, and (peer epoch, zxid, id) is greater
/// (ZOOKEEPER-1419: strictly lexicographic).
pub(super) fn beats(verifier: &QuorumVerifier, new: &Vote, current: &Vote) -> bool {
    verifier.weight(new.leader) != 0
        && (new.peer_epoch, new.zxid, new.leader)
            > (current.peer_epoch, current.zxid, current.leader)
}

/// A vote with the circumstances that decide which others equal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ballot {
    pub(super) vote: Vote,
    /// The state of the server that sent it.
    pub(super) state: ServerState,
    /// Whether it counts as said in a format newer than 3.4's.
    pub(super) versioned: bool,
}

impl Ballot {
    /// A vote of a server that still looks.
    pub(super) fn looking(vote: Vote) -> Self {
        Self {
            vote,
            state: ServerState::Looking,
            versioned: false,
        }
    }

    /// Whether two ballots are for the same thing. While one side looks, everything must be equal;
    /// afterwards zxid and round may differ (ZOOKEEPER-1732, 1805), and against a ballot of the old
    /// format only the leader counts.
    pub(super) fn same(&self, other: &Self) -> bool {
        if self.state == ServerState::Looking || other.state == ServerState::Looking {
            self.vote == other.vote
        } else if self.versioned == other.versioned {
            self.vote.leader == other.vote.leader && self.vote.peer_epoch == other.vote.peer_epoch
        } else {
            self.vote.leader == other.vote.leader
        }
    }
}

/// The newest ballot of each voter.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballots {
    by_voter: BTreeMap<ServerId, Ballot>,
}

impl Ballots {
    pub(super) fn insert(&mut self, voter: ServerId, ballot: Ballot) {
        self.by_voter.insert(voter, ballot);
    }

    pub(super) fn remove(&mut self, voter: ServerId) {
        self.by_voter.remove(&voter);
    }

    pub(super) fn clear(&mut self) {
        self.by_voter.clear();
    }

    pub(super) fn of(&self, voter: ServerId) -> Option<&Ballot> {
        self.by_voter.get(&voter)
    }

    /// Whether the ballots that equal `probe` make a quorum.
    pub(super) fn elect(&self, verifier: &QuorumVerifier, probe: &Ballot) -> bool {
        verifier.is_quorum(|voter| self.of(voter).is_some_and(|ballot| ballot.same(probe)))
    }

    /// Whether `leader` itself says here that it leads.
    pub(super) fn says_it_leads(&self, leader: ServerId) -> bool {
        self.of(leader)
            .is_some_and(|ballot| ballot.state == ServerState::Leading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Zxid};
    use crate::prng::Prng;

    fn vote(leader: i64, zxid: i64, round: i64, epoch: i64) -> Vote {
        Vote {
            leader: ServerId(leader),
            zxid: Zxid(zxid),
            election_epoch: round,
            peer_epoch: Epoch(epoch),
        }
    }

    #[test]
    fn the_order_is_epoch_then_zxid_then_id_step_by_step() {
        let verifier = QuorumVerifier::majority((1..=3).map(ServerId));
        let mut prng = Prng::new(1);
        for _ in 0..5_000 {
            let mut draw = || {
                vote(
                    prng.between(1, 3) as i64,
                    prng.between(0, 3) as i64,
                    prng.between(0, 3) as i64,
                    prng.between(0, 3) as i64,
                )
            };
            let (new, cur) = (draw(), draw());
            let naive = if new.peer_epoch != cur.peer_epoch {
                new.peer_epoch > cur.peer_epoch
            } else if new.zxid != cur.zxid {
                new.zxid > cur.zxid
            } else {
                new.leader > cur.leader
            };
            assert_eq!(
                beats(&verifier, &new, &cur),
                naive,
                "{new:?} against {cur:?}"
            );
        }
    }

    #[test]
    fn ids_are_ordered_as_signed_numbers_and_no_id_is_the_least() {
        let verifier = QuorumVerifier::majority([ServerId(-5), ServerId(1)]);
        assert!(beats(&verifier, &vote(1, 0, 1, 0), &vote(-5, 0, 1, 0)));
        let observer = vote(i64::MIN, i64::MIN, 1, i64::MIN);
        assert!(beats(&verifier, &vote(-5, 0, 1, 0), &observer));
    }

    #[test]
    fn a_server_without_weight_never_beats_anybody() {
        let groups = BTreeMap::from([(1, [ServerId(1), ServerId(2)].into())]);
        let weights = BTreeMap::from([(ServerId(2), 0)]);
        let verifier =
            QuorumVerifier::hierarchical([ServerId(1), ServerId(2)], [], &groups, &weights)
                .unwrap();
        assert!(!beats(&verifier, &vote(2, 9, 1, 9), &vote(1, 0, 1, 0)));
        // It keeps proposing itself all the same: its own vote is better than a lower id's.
        assert!(!beats(&verifier, &vote(1, 0, 1, 0), &vote(2, 0, 1, 0)));
    }

    #[test]
    fn equality_has_the_three_forms() {
        let looking = Ballot::looking(vote(3, 7, 2, 1));
        assert!(looking.same(&Ballot::looking(vote(3, 7, 2, 1))));
        for other in [
            vote(2, 7, 2, 1),
            vote(3, 8, 2, 1),
            vote(3, 7, 3, 1),
            vote(3, 7, 2, 2),
        ] {
            assert!(!looking.same(&Ballot::looking(other)));
        }
        let settled = |vote, versioned| Ballot {
            vote,
            state: ServerState::Following,
            versioned,
        };
        let new = settled(vote(3, 7, 2, 5), true);
        assert!(
            new.same(&settled(vote(3, 0, 9, 5), true)),
            "round and zxid do not count"
        );
        assert!(
            !new.same(&settled(vote(3, 7, 2, 6), true)),
            "the epoch does"
        );
        assert!(
            new.same(&settled(vote(3, 7, 2, 6), false)),
            "not against the old format"
        );
        assert!(!new.same(&settled(vote(2, 7, 2, 5), false)));
        assert!(!new.same(&looking), "one side looks: the epoch differs");
    }
}
