//! The newest committed txns, kept in memory so that a learner that was away for a short while gets the
//! txns it lacks and not a whole snapshot.
//!
//! Law kept here: no holes. A DIFF out of a log with a hole would silently lose txns on the learner
//! (ZOOKEEPER-4925), so a txn that does not follow the newest one starts the log anew. Counterpart:
//! `ZKDatabase.committedLog`.

use std::collections::VecDeque;

use super::Proposal;
use crate::ids::Zxid;

/// The last `capacity` committed txns.
#[derive(Clone, Debug)]
pub struct CommittedLog {
    /// Invariant: each follows the one before it ([`Zxid::follows`]); never longer than `capacity`.
    txns: VecDeque<Proposal>,
    capacity: usize,
}

impl CommittedLog {
    /// An empty log that keeps the last `capacity` txns (`commitLogCount`, 500 by default).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            txns: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// Adds the next committed txn and forgets the oldest one over the capacity.
    pub fn push(&mut self, proposal: Proposal) {
        if self.max().is_some_and(|max| !proposal.zxid.follows(max)) {
            self.txns.clear();
        }
        if self.txns.len() == self.capacity {
            self.txns.pop_front();
        }
        self.txns.push_back(proposal);
    }

    /// Forgets every txn behind `zxid`.
    pub fn truncate_after(&mut self, zxid: Zxid) {
        while self.max().is_some_and(|max| max > zxid) {
            self.txns.pop_back();
        }
    }

    /// Forgets everything: the database was replaced.
    pub fn clear(&mut self) {
        self.txns.clear();
    }

    /// The oldest zxid.
    #[must_use]
    pub fn min(&self) -> Option<Zxid> {
        self.txns.front().map(|txn| txn.zxid)
    }

    /// The newest zxid.
    #[must_use]
    pub fn max(&self) -> Option<Zxid> {
        self.txns.back().map(|txn| txn.zxid)
    }

    /// How many txns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.txns.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.txns.is_empty()
    }

    /// The txns behind `zxid`, oldest first.
    pub fn after(&self, zxid: Zxid) -> impl Iterator<Item = &Proposal> {
        let start = self.txns.partition_point(|txn| txn.zxid <= zxid);
        self.txns.range(start..)
    }

    /// The newest txn that is not behind `zxid`.
    #[must_use]
    pub fn at_or_before(&self, zxid: Zxid) -> Option<Zxid> {
        let end = self.txns.partition_point(|txn| txn.zxid <= zxid);
        end.checked_sub(1).map(|index| self.txns[index].zxid)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn txn(zxid: i64) -> Proposal {
        Proposal {
            zxid: Zxid(zxid),
            txn: Bytes::new(),
        }
    }

    #[test]
    fn keeps_the_newest_and_no_holes() {
        let mut log = CommittedLog::new(3);
        assert!(log.is_empty() && log.min().is_none() && log.max().is_none());
        for counter in 1..=5 {
            log.push(txn(0x1_0000_0000 + counter));
        }
        assert_eq!(
            (log.min(), log.max(), log.len()),
            (Some(Zxid(0x1_0000_0003)), Some(Zxid(0x1_0000_0005)), 3)
        );
        log.push(txn(0x2_0000_0001));
        assert_eq!(log.len(), 3, "the first txn of a later epoch follows");
        log.push(txn(0x2_0000_0003));
        assert_eq!(
            (log.min(), log.len()),
            (Some(Zxid(0x2_0000_0003)), 1),
            "a hole starts the log anew"
        );
    }

    #[test]
    fn looks_up_by_zxid() {
        let mut log = CommittedLog::new(10);
        for zxid in [0x1_0000_0001, 0x1_0000_0002, 0x2_0000_0001] {
            log.push(txn(zxid));
        }
        let after = |zxid| {
            log.after(Zxid(zxid))
                .map(|txn| txn.zxid.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(after(0x1_0000_0001), [0x1_0000_0002, 0x2_0000_0001]);
        assert_eq!(after(0x2_0000_0001), Vec::<i64>::new());
        assert_eq!(
            log.at_or_before(Zxid(0x1_0000_0009)),
            Some(Zxid(0x1_0000_0002))
        );
        assert_eq!(log.at_or_before(Zxid(1)), None);
        log.truncate_after(Zxid(0x1_0000_0001));
        assert_eq!(log.max(), Some(Zxid(0x1_0000_0001)));
    }
}
