//! What the servers had on their disks when the run was over, as it was kept in the folder.

use std::path::Path;

use zkd::ids::{SessionId, Xid, Zxid};

use crate::observe::logs::{self, Kept, LoggedTxn};

/// The disks of all servers, as far as they were kept.
#[derive(Clone, Debug, Default)]
pub(in crate::report::run) struct Disks {
    kept: Vec<Kept>,
}

/// Is a txn on a server's disk?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report::run) enum Held {
    /// In its log.
    Yes,
    /// Not in its log, although that has txns before and after, or ends before.
    No,
    /// Not in its log, but a snapshot stands above it: nobody can say.
    Covered,
    /// The disk was not kept.
    Unknown,
}

impl Disks {
    /// Reads them; the txns of these zxids and of these requests are kept whole.
    pub(in crate::report::run) fn read(
        dir: &Path,
        nodes: &[String],
        zxids: &[Zxid],
        requests: &[(SessionId, Xid)],
    ) -> Self {
        let read = |node: &String| {
            let data = dir.join(node).join("data");
            // A disk that cannot be read says nothing, and so nothing is said of it.
            logs::read(node, &data, |record| {
                let header = &record.header;
                zxids.contains(&header.zxid) || requests.contains(&(header.client_id, header.cxid))
            })
            .ok()
        };
        Self {
            kept: nodes.iter().filter_map(read).collect(),
        }
    }

    #[cfg(test)]
    pub(in crate::report::run) fn of(kept: Vec<Kept>) -> Self {
        Self { kept }
    }

    fn kept(&self, node: &str) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.name == node)
    }

    pub(in crate::report::run) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Is this txn on this server's disk?
    pub(in crate::report::run) fn holds(&self, node: &str, zxid: Zxid) -> Held {
        let Some(kept) = self.kept(node) else {
            return Held::Unknown;
        };
        if kept.zxids.contains(&zxid) {
            return Held::Yes;
        }
        let begins_later = kept.zxids.first().is_none_or(|first| *first > zxid);
        let is_covered = kept.snapshots.iter().any(|snapshot| *snapshot >= zxid);
        if is_covered || (begins_later && kept.snapshots.iter().any(|one| *one > Zxid::ZERO)) {
            Held::Covered
        } else {
            Held::No
        }
    }

    /// The last txn in this server's log that is older than this one, and the first that is newer.
    pub(in crate::report::run) fn around(
        &self,
        node: &str,
        zxid: Zxid,
    ) -> (Option<Zxid>, Option<Zxid>) {
        let zxids = || self.kept(node).into_iter().flat_map(|kept| &kept.zxids);
        (
            zxids().filter(|other| **other < zxid).max().copied(),
            zxids().filter(|other| **other > zxid).min().copied(),
        )
    }

    /// The txns in a server's log from one to another, both included.
    pub(in crate::report::run) fn between(&self, node: &str, from: Zxid, to: Zxid) -> Vec<Zxid> {
        let zxids = self.kept(node).into_iter().flat_map(|kept| &kept.zxids);
        let inside = zxids.filter(|zxid| from <= **zxid && **zxid <= to);
        inside.copied().collect()
    }

    /// The txn of this zxid in the log of anybody who has it, this server first.
    pub(in crate::report::run) fn txn(&self, node: &str, zxid: Zxid) -> Option<&LoggedTxn> {
        let others = self.kept.iter().filter(|kept| kept.name != node);
        let all = self.kept(node).into_iter().chain(others);
        all.flat_map(|kept| &kept.txns).find(|txn| txn.zxid == zxid)
    }

    /// The txn that this request became, and who has it.
    pub(in crate::report::run) fn of_request(
        &self,
        session: SessionId,
        request: Xid,
    ) -> Vec<&LoggedTxn> {
        let txns = self.kept.iter().flat_map(|kept| &kept.txns);
        txns.filter(|txn| (txn.session, txn.request) == (session, request))
            .collect()
    }
}
