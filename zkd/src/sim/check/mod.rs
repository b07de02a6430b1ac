//! The checkers: one small file per property, named as in the Zab specification where it names one.
//!
//! They see what the servers deliver (every committed txn, with the tree's digest after it), who leads in
//! which epoch, and what the clients were told. A violation names its rule and the evidence.

mod acked;
mod agreement;
mod digest;
mod ephemerals;
mod integrity;
mod leadership;
mod prefix_consistency;
mod primary_order;
mod sequence;
mod total_order;

use std::collections::BTreeMap;
use std::fmt;

use super::Coverage;
use crate::error::ErrorCode;
use crate::ids::{Epoch, ServerId, SessionId, Xid, Zxid};
use crate::record::txn::{Txn, TxnRecord};
use crate::tree::DataTree;

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property's name.
    pub rule: &'static str,
    /// What proves it.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.evidence)
    }
}

/// A client was told that its write succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The write's txn, by the zxid of the reply.
    pub zxid: Zxid,
    /// Who wrote.
    pub session: SessionId,
    /// The client's number of the request.
    pub xid: Xid,
    /// The path the reply named, for creates.
    pub created: Option<String>,
    /// The path that was created or set, if it was a single one.
    pub changed: Option<String>,
}

/// What had been acknowledged to anybody at some point.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    /// The newest txn.
    pub(super) zxid: Zxid,
    /// The newest change of each path.
    pub(super) paths: BTreeMap<String, Zxid>,
}

/// One delivery of one server.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The server.
    pub server: ServerId,
    /// What this server delivered before, since its database was loaded; or where that database ended.
    pub previous: Zxid,
    /// The txn.
    pub record: &'a TxnRecord,
    /// The tree's digest after it.
    pub digest: i64,
    /// The server does not serve: it is being synchronized, and takes over what its leader will have
    /// committed only once a quorum has done the same.
    pub tentative: bool,
}

/// Everything that is known of a run so far.
#[derive(Debug, Default)]
pub struct Checks {
    /// Every txn that any server delivered as committed, with the tree's digest after it.
    committed: BTreeMap<Zxid, (TxnRecord, i64)>,
    leaders: BTreeMap<Epoch, ServerId>,
    proposed: BTreeMap<Zxid, (ServerId, TxnRecord)>,
    /// Where the history of the newest established leader ended, and its digest there.
    inherited: Option<(Zxid, i64)>,
    floor: Floor,
    pub(super) coverage: Coverage,
    acked: Vec<Acked>,
    violations: Vec<Violation>,
}

impl Checks {
    /// A server delivered a txn.
    pub fn on_delivered(&mut self, delivered: &Delivered<'_>) {
        let found = [
            total_order::check(delivered),
            integrity::check(delivered, &self.proposed),
            agreement::check(delivered, &self.committed),
            prefix_consistency::check(delivered, &self.committed),
            primary_order::check(delivered, &self.leaders),
            // A snapshot may show committed txns that its server's log did not reach before a crash; until
            // the synchronization has brought them again, its tree is ahead of what is delivered.
            digest::check(delivered, &self.committed).filter(|_| !delivered.tentative),
        ];
        self.violations.extend(found.into_iter().flatten());
        let record = delivered.record;
        if delivered.tentative || self.committed.contains_key(&record.header.zxid) {
            return;
        }
        let moved = ErrorCode::SessionMoved.code();
        if matches!(&record.txn, Txn::Error(error) if error.code == moved) {
            self.coverage.moved_refusals += 1;
        }
        self.committed
            .insert(record.header.zxid, (record.clone(), delivered.digest));
    }

    /// A leader proposed a txn (its own log got it).
    pub fn on_proposed(&mut self, leader: ServerId, record: &TxnRecord) {
        self.proposed
            .entry(record.header.zxid)
            .or_insert_with(|| (leader, record.clone()));
    }

    /// A quorum follows `server` in `epoch`; its history, now committed, ends at `zxid` with `digest`.
    pub fn on_established(&mut self, server: ServerId, epoch: Epoch, zxid: Zxid, digest: i64) {
        self.inherited = Some((zxid, digest));
        self.violations
            .extend(leadership::check(server, epoch, &self.leaders));
        self.leaders.entry(epoch).or_insert(server);
    }

    /// A client got a positive answer to a write.
    pub fn on_acked(&mut self, acked: Acked) {
        self.violations
            .extend(acked::check_known(&acked, &self.committed));
        self.floor.zxid = self.floor.zxid.max(acked.zxid);
        if let Some(path) = &acked.changed {
            let newest = self.floor.paths.entry(path.clone()).or_default();
            *newest = acked.zxid.max(*newest);
        }
        self.acked.push(acked);
    }

    /// What has been acknowledged to anybody so far.
    pub(super) fn floor(&self) -> Floor {
        self.floor.clone()
    }

    /// A client saw something it must never see.
    pub fn on_client_violation(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    /// The run is over, everything is healed: judges what is left. `trees` are those of all servers.
    pub fn finish(&mut self, trees: &[(ServerId, &DataTree)]) {
        let newest = self.committed.iter().next_back();
        let end = newest.map(|(zxid, (_, digest))| (*zxid, *digest));
        let end = end.max(self.inherited);
        for (server, tree) in trees {
            self.violations
                .extend(end.and_then(|end| digest::check_final(*server, tree, end)));
            self.violations
                .extend(ephemerals::check_final(*server, tree));
        }
        self.violations
            .extend(prefix_consistency::check_same_end(trees));
        self.violations.extend(
            self.acked
                .iter()
                .filter_map(|acked| acked::check_kept(acked, &self.committed)),
        );
        self.violations
            .extend(ephemerals::check_history(&self.committed, &self.proposed));
        self.violations.extend(sequence::check(&self.acked));
    }

    /// What was found, in the order in which it was found.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The writes that were acknowledged, in the order in which their clients heard of it.
    #[must_use]
    pub fn acked(&self) -> &[Acked] {
        &self.acked
    }

    /// What the run went through.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        Coverage {
            committed: self.committed.len() as u64,
            acknowledged: self.acked.len() as u64,
            epochs: self.leaders.len() as u64,
            ..self.coverage
        }
    }
}
