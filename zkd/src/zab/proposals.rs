//! Outstanding proposals: what was proposed, who has it on disk, and what that commits.
//!
//! Laws kept here: txns commit strictly in zxid order, and only voters count. A server logs in zxid order
//! on a link that is in order, so its ACK of a zxid is an ACK of everything before it; one number per
//! voter says all. Counterpart: `Leader.outstandingProposals`, `Leader.tryToCommit`, `pendingSyncs`.

use std::collections::VecDeque;

use super::Proposal;
use super::leader::SyncFrom;
use crate::ids::{ServerId, Zxid};
use crate::planted::{self, Planted};
use crate::quorum::QuorumVerifier;

/// The proposals of one reign.
#[derive(Debug)]
pub(super) struct Proposals {
    /// Not committed, oldest first. Invariant: they follow `last_committed` and one another.
    outstanding: VecDeque<Proposal>,
    /// Invariant: `last_committed <= last_proposed`.
    last_proposed: Zxid,
    last_committed: Zxid,
    /// How far each voter's disk is, in the order of the first ACK.
    acked: Vec<(ServerId, Zxid)>,
    /// Syncs waiting for the commit of a zxid, in order of arrival and so of zxid.
    syncs: VecDeque<(Zxid, SyncFrom)>,
}

impl Proposals {
    /// No proposals yet; `last` is the end of the history before.
    pub(super) fn new(last: Zxid) -> Self {
        Self {
            outstanding: VecDeque::new(),
            last_proposed: last,
            last_committed: last,
            acked: Vec::new(),
            syncs: VecDeque::new(),
        }
    }

    pub(super) fn last_proposed(&self) -> Zxid {
        self.last_proposed
    }

    pub(super) fn last_committed(&self) -> Zxid {
        self.last_committed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// The proposals behind `zxid`, oldest first.
    pub(super) fn after(&self, zxid: Zxid) -> impl Iterator<Item = &Proposal> {
        self.outstanding
            .iter()
            .filter(move |proposal| proposal.zxid > zxid)
    }

    /// The epoch is established: everything before it is committed.
    pub(super) fn start_epoch(&mut self, first: Zxid) {
        self.last_proposed = first;
        self.last_committed = first;
    }

    /// One more proposal.
    pub(super) fn propose(&mut self, proposal: Proposal) {
        self.last_proposed = proposal.zxid;
        self.outstanding.push_back(proposal);
    }

    /// A voter has everything up to `zxid` on disk (TLA+ `LeaderProcessACK`). An ACK of something never
    /// proposed, or of something known, changes nothing.
    pub(super) fn ack(&mut self, verifier: &QuorumVerifier, sid: ServerId, zxid: Zxid) {
        if zxid > self.last_proposed || !verifier.is_voter(sid) {
            return;
        }
        match self.acked.iter_mut().find(|(known, _)| *known == sid) {
            Some((_, acked)) => *acked = zxid.max(*acked),
            None => self.acked.push((sid, zxid)),
        }
    }

    /// A voter's disk may no longer hold what it acknowledged: it is being synchronized anew.
    pub(super) fn forget(&mut self, sid: ServerId) {
        self.acked.retain(|(known, _)| *known != sid);
    }

    /// Up to where a quorum has everything (TLA+ `LeaderTryToCommit`).
    pub(super) fn reach(&self, verifier: &QuorumVerifier) -> Zxid {
        let mut reach = self.last_committed;
        for &(_, candidate) in &self.acked {
            let has_quorum = planted::is(Planted::CommitWithoutQuorum)
                || verifier.is_quorum(|sid| self.has(sid, candidate));
            if candidate > reach && has_quorum {
                reach = candidate;
            }
        }
        reach
    }

    /// Takes the oldest off the front if it is not beyond `reach`: one at a time and strictly in order, so that a
    /// sync can be answered between two of them.
    pub(super) fn commit_next(&mut self, reach: Zxid) -> Option<Proposal> {
        let proposal = self
            .outstanding
            .pop_front_if(|oldest| oldest.zxid <= reach)?;
        self.last_committed = proposal.zxid;
        Some(proposal)
    }

    fn has(&self, sid: ServerId, zxid: Zxid) -> bool {
        self.acked
            .iter()
            .any(|&(known, acked)| known == sid && acked >= zxid)
    }

    /// A sync that is done when everything proposed before it is committed.
    pub(super) fn sync(&mut self, from: SyncFrom) {
        self.syncs.push_back((self.last_proposed, from));
    }

    /// Syncs that wait for a commit.
    pub(super) fn pending_syncs(&self) -> usize {
        self.syncs.len()
    }

    /// The next sync that is done.
    pub(super) fn next_synced(&mut self) -> Option<SyncFrom> {
        let &(zxid, from) = self.syncs.front()?;
        if zxid > self.last_committed {
            return None;
        }
        self.syncs.pop_front();
        Some(from)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{SessionId, Xid};

    fn z(counter: i64) -> Zxid {
        Zxid(0x1_0000_0000 + counter)
    }

    fn proposals(count: i64) -> Proposals {
        let mut proposals = Proposals::new(Zxid::ZERO);
        proposals.start_epoch(z(0));
        for counter in 1..=count {
            proposals.propose(Proposal {
                zxid: z(counter),
                txn: Bytes::new(),
            });
        }
        proposals
    }

    fn committed(proposals: &mut Proposals, verifier: &QuorumVerifier) -> Vec<Zxid> {
        let reach = proposals.reach(verifier);
        std::iter::from_fn(|| proposals.commit_next(reach))
            .map(|proposal| proposal.zxid)
            .collect()
    }

    #[test]
    fn leader_process_ack_commits_what_a_quorum_has_in_order() {
        let verifier = QuorumVerifier::majority([1, 2, 3].map(ServerId));
        let mut proposals = proposals(3);
        proposals.ack(&verifier, ServerId(1), z(3));
        assert!(committed(&mut proposals, &verifier).is_empty());
        proposals.ack(&verifier, ServerId(9), z(3));
        assert!(
            committed(&mut proposals, &verifier).is_empty(),
            "a stranger does not count"
        );
        proposals.ack(&verifier, ServerId(2), z(4));
        assert!(
            committed(&mut proposals, &verifier).is_empty(),
            "never proposed"
        );
        proposals.ack(&verifier, ServerId(2), z(2));
        assert_eq!(committed(&mut proposals, &verifier), [z(1), z(2)]);
        proposals.ack(&verifier, ServerId(2), z(1));
        assert!(committed(&mut proposals, &verifier).is_empty());
        proposals.ack(&verifier, ServerId(3), z(3));
        assert_eq!(committed(&mut proposals, &verifier), [z(3)]);
        assert_eq!(proposals.last_committed(), z(3));
        assert!(proposals.is_empty());
    }

    #[test]
    fn a_voter_that_is_synchronized_anew_counts_again_only_after_its_next_ack() {
        let verifier = QuorumVerifier::majority([1, 2, 3].map(ServerId));
        let mut proposals = proposals(1);
        proposals.ack(&verifier, ServerId(2), z(1));
        proposals.forget(ServerId(2));
        proposals.ack(&verifier, ServerId(1), z(1));
        assert!(committed(&mut proposals, &verifier).is_empty());
        proposals.ack(&verifier, ServerId(2), z(1));
        assert_eq!(committed(&mut proposals, &verifier), [z(1)]);
    }

    #[test]
    fn syncs_wait_for_what_was_proposed_before_them() {
        let verifier = QuorumVerifier::majority([ServerId(1)]);
        let mut proposals = proposals(0);
        let sync = |cxid| SyncFrom::Local(SessionId(1), Xid(cxid));
        proposals.sync(sync(1));
        assert_eq!(proposals.next_synced(), Some(sync(1)));
        proposals.propose(Proposal {
            zxid: z(1),
            txn: Bytes::new(),
        });
        proposals.sync(sync(2));
        assert_eq!(proposals.next_synced(), None);
        proposals.ack(&verifier, ServerId(1), z(1));
        assert_eq!(committed(&mut proposals, &verifier), [z(1)]);
        assert_eq!(proposals.next_synced(), Some(sync(2)));
        assert_eq!(proposals.next_synced(), None);
    }
}
