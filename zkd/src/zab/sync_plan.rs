//! How a learner is brought to the leader's history: DIFF, TRUNC or SNAP. Pure arithmetic.
//!
//! The table is `LearnerHandler.syncFollower`'s, with two differences. There is no DIFF out of the txn
//! log files: whoever is behind the committed log in memory gets a SNAP. And where the committed log is
//! empty, its bounds are the last txn of the leader's history and not the zxid that stands for the new
//! epoch, so that a learner with the same history needs nothing.
//!
//! A TRUNC names the last txn both sides may share (ZOOKEEPER-1154). Where the leader has that history
//! only as a snapshot, the learner may not find the txn; a learner of this kind then asks for a SNAP
//! (`Learner::ask_for_snapshot`).

use super::committed_log::CommittedLog;
use crate::ids::Zxid;
use crate::planted::{self, Planted};

/// What a learner is sent first. Behind it go, as PROPOSAL and COMMIT, the committed txns behind
/// `cursor`, then the outstanding proposals behind `cursor`, then NEWLEADER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPlan {
    /// The learner's history is a prefix of the leader's.
    Diff {
        /// The zxid in the DIFF packet: the last committed txn that will follow.
        to: Zxid,
        /// What the learner has.
        cursor: Zxid,
    },
    /// The learner has txns the leader does not have.
    Trunc {
        /// The last txn it keeps.
        to: Zxid,
        /// What it has then, and what it had is skipped over.
        cursor: Zxid,
    },
    /// A whole snapshot.
    Snap,
}

impl SyncPlan {
    /// The plan for a learner whose last zxid is `peer_last` (TLA+ `LeaderSyncFollower`).
    ///
    /// `last_processed` is the zxid of the leader's tree: the last applied txn, or epoch<<32 once the
    /// epoch is established and nothing was applied in it. `last_txn` is the last committed txn of its
    /// history.
    #[must_use]
    pub fn new(
        peer_last: Zxid,
        last_processed: Zxid,
        last_txn: Zxid,
        committed: &CommittedLog,
    ) -> Self {
        if peer_last == last_processed {
            return Self::Diff {
                to: peer_last,
                cursor: peer_last,
            };
        }
        let (min, max) = match (committed.min(), committed.max()) {
            (Some(min), Some(max)) => (min, max),
            // A server without any txn is given the leader's tree, as Apache gives it.
            _ if last_txn == Zxid::ZERO => (last_processed, last_processed),
            _ => (last_txn, last_txn),
        };
        // The zxid of a new epoch is no txn: it can neither be found nor be behind the leader's last.
        let is_epoch_zxid = peer_last.counter() == 0;
        if peer_last > max && !is_epoch_zxid {
            return Self::Trunc {
                to: max,
                cursor: max,
            };
        }
        if peer_last < min || peer_last > max {
            return Self::Snap;
        }
        Self::within(peer_last, is_epoch_zxid, max, committed)
    }

    /// `peer_last` lies within the committed log.
    fn within(peer_last: Zxid, is_epoch_zxid: bool, max: Zxid, committed: &CommittedLog) -> Self {
        let shared = committed.at_or_before(peer_last).unwrap_or(max);
        if shared == peer_last || is_epoch_zxid || planted::is(Planted::StaleEpoch) {
            return Self::Diff {
                to: max,
                cursor: peer_last,
            };
        }
        // The learner has a txn the leader has never seen. Cutting is only possible where the history
        // goes on in the same epoch: across epochs the learner's log may not hold the txn to keep.
        match committed.after(peer_last).next() {
            Some(next) if next.zxid.epoch() == peer_last.epoch() => Self::Trunc {
                to: shared,
                cursor: peer_last,
            },
            _ => Self::Snap,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::zab::Proposal;

    fn log(zxids: &[i64]) -> CommittedLog {
        let mut log = CommittedLog::new(500);
        for &zxid in zxids {
            log.push(Proposal {
                zxid: Zxid(zxid),
                txn: Bytes::new(),
            });
        }
        assert_eq!(log.len(), zxids.len(), "the test's log has a hole");
        log
    }

    fn plan(peer_last: i64, last_processed: i64, last_txn: i64, zxids: &[i64]) -> SyncPlan {
        SyncPlan::new(
            Zxid(peer_last),
            Zxid(last_processed),
            Zxid(last_txn),
            &log(zxids),
        )
    }

    fn diff(to: i64, cursor: i64) -> SyncPlan {
        SyncPlan::Diff {
            to: Zxid(to),
            cursor: Zxid(cursor),
        }
    }

    fn trunc(to: i64, cursor: i64) -> SyncPlan {
        SyncPlan::Trunc {
            to: Zxid(to),
            cursor: Zxid(cursor),
        }
    }

    const LOG: [i64; 5] = [
        0x1_0000_0003,
        0x1_0000_0004,
        0x1_0000_0005,
        0x3_0000_0001,
        0x3_0000_0002,
    ];

    #[test]
    fn the_decision_table() {
        let (last, ten) = (0x3_0000_0002, 0x3_0000_0002);
        for (peer, want, why) in [
            (last, diff(last, last), "in sync"),
            (
                0x3_0000_0009,
                trunc(last, last),
                "behind the last committed",
            ),
            (0x1_0000_0003, diff(ten, 0x1_0000_0003), "the oldest entry"),
            (0x1_0000_0005, diff(ten, 0x1_0000_0005), "an entry"),
            (0x3_0000_0000, diff(ten, 0x3_0000_0000), "zxid of an epoch"),
            (
                0x1_0000_0009,
                SyncPlan::Snap,
                "unknown, history goes on in another epoch",
            ),
            (0x1_0000_0002, SyncPlan::Snap, "behind the log"),
            (0, SyncPlan::Snap, "empty"),
            (
                0x4_0000_0000,
                SyncPlan::Snap,
                "an epoch zxid cannot be cut off",
            ),
        ] {
            assert_eq!(plan(peer, last, last, &LOG), want, "{why}: {peer:#x}");
        }
    }

    #[test]
    fn an_unknown_txn_inside_an_epoch_is_cut_off() {
        // Only possible if the log itself has a hole, so build the neighbours by hand.
        let log = log(&[0x1_0000_0003, 0x2_0000_0001]);
        let plan = SyncPlan::new(
            Zxid(0x1_0000_0004),
            Zxid(0x2_0000_0001),
            Zxid(0x2_0000_0001),
            &log,
        );
        assert_eq!(plan, SyncPlan::Snap, "the epoch ended differently");
    }

    #[test]
    fn an_empty_log() {
        let established = 0x5_0000_0000;
        assert_eq!(plan(0, established, 0, &[]), SyncPlan::Snap, "as A-393 005");
        assert_eq!(plan(0, 0, 0, &[]), diff(0, 0), "a fresh ensemble");
        let last = 0x4_0000_0007;
        assert_eq!(plan(last, established, last, &[]), diff(last, last));
        assert_eq!(
            plan(0x4_0000_0009, established, last, &[]),
            trunc(last, last)
        );
        assert_eq!(plan(0x4_0000_0006, established, last, &[]), SyncPlan::Snap);
        assert_eq!(plan(0x1_0000_0003, 0, 0, &[]), trunc(0, 0));
        assert_eq!(
            plan(0x5_0000_0002, established, 0, &[]),
            trunc(established, established)
        );
    }
}
