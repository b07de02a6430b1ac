//! How committed txns reach the tree and the clients: one call of [`ZkServer::apply`].

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Registry, Tally, ZkServer};
use crate::ids::{ConnId, SessionId, Xid, Zxid};
use crate::pipeline::connection::ServerCnxn;
use crate::pipeline::lane::{Lane, Phase};
use crate::pipeline::read::Reads;
use crate::pipeline::reply;
use crate::planted::{self, Planted};
use crate::record::data::{Acl, perms};
use crate::record::opcode::OpCode;
use crate::record::txn::TxnRecord;
use crate::time::Instant;
use crate::tree::{DataTree, EventKind, TriggerSink, digest};

/// One call of [`ZkServer::apply`].
pub(super) struct Batch<'a> {
    server: &'a ZkServer,
    registry: MutexGuard<'a, Registry>,
    /// Connections to wake at the end.
    woken: Vec<Arc<ServerCnxn>>,
    /// Filled and emptied for every event.
    watchers: Vec<ConnId>,
    tally: Tally,
    now: Instant,
}

impl TriggerSink for Batch<'_> {
    /// A one-shot watch is used up even if its owner may not hear of the event.
    fn trigger(&mut self, kind: EventKind, path: &str, acl: &[Acl], zxid: Zxid) {
        self.watchers.clear();
        let mut watches = self.server.watches.lock();
        watches.trigger(kind, path, &mut self.watchers);
        drop(watches);
        if planted::is(Planted::LostWatch) && zxid.counter().is_multiple_of(4) {
            return;
        }
        for conn in &self.watchers {
            let Some(cnxn) = self.registry.by_id.get(conn) else {
                continue;
            };
            let mut lane = cnxn.lane().lock();
            let auth = &self.server.options.auth;
            if lane.is_done() || !auth.permits(acl, perms::READ, &lane.ids) {
                continue;
            }
            let before = lane.load();
            lane.event(|out| reply::event(out, kind, path, zxid));
            self.server.load.change(before, lane.load());
            self.tally.sent += 1;
            note_wake(&mut lane, cnxn, &mut self.woken);
        }
    }
}

fn note_wake(lane: &mut Lane, cnxn: &Arc<ServerCnxn>, woken: &mut Vec<Arc<ServerCnxn>>) {
    if lane.needs_wake() {
        woken.push(Arc::clone(cnxn));
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(server: &'a ZkServer, now: Instant) -> Self {
        Self {
            server,
            registry: server.registry.lock(),
            woken: Vec::new(),
            watchers: Vec::new(),
            tally: Tally::default(),
            now,
        }
    }

    /// Lets the connections go: who is to be woken, and what is to be counted.
    pub(super) fn finish(self) -> (Vec<Arc<ServerCnxn>>, Tally) {
        (self.woken, self.tally)
    }

    /// Compares the tree with the leader's, as far as the txn says what that was. Servers that differ are
    /// told of, loudly; they are not stopped, as in Apache: the difference is older than this txn. While
    /// nobody is served the tree may be a fuzzy one that is still catching up.
    fn compare_digest(&self, tree: &DataTree, record: &TxnRecord) {
        let Some(expected) = record.digest.filter(|d| d.version == digest::VERSION) else {
            return;
        };
        let found = tree.digest();
        if found == expected.tree_digest
            || !self.server.is_serving()
            || planted::is(Planted::DigestSkipped)
        {
            return;
        }
        let metrics = self.server.metrics();
        if metrics.digest_mismatches_count.count() == 0 {
            tracing::error!(
                zxid = %record.header.zxid,
                found = format_args!("{found:x}"),
                expected = format_args!("{:x}", expected.tree_digest),
                "this server's znodes differ from the leader's; remove its data directory and let it \
                 synchronize anew (told once, counted in zk_digest_mismatches_count)"
            );
        }
        metrics.digest_mismatches_count.increment();
    }

    /// What [`Planted::DigestSkipped`] does.
    fn misapplies(&self, record: &TxnRecord) -> bool {
        planted::is(Planted::DigestSkipped)
            && self.server.options.server_id.0 % 3 == 2
            && record.header.zxid.counter().is_multiple_of(16)
    }

    pub(super) fn txn(&mut self, tree: &mut DataTree, record: &TxnRecord) {
        let applied = if self.misapplies(record) {
            let mut stamped = record.clone();
            stamped.header.time += 1;
            tree.apply(&stamped, self)
        } else {
            tree.apply(record, self)
        };
        self.compare_digest(tree, record);
        let header = &record.header;
        let session = header.client_id;
        let Some(cnxn) = self.registry.by_session.get(&session).cloned() else {
            return;
        };
        let mut lane = cnxn.lane().lock();
        let closes = header.kind == OpCode::CloseSession.code();
        if header.kind == OpCode::CreateSession.code() {
            let Phase::Waiting {
                reattach: false,
                says_read_only,
            } = lane.phase
            else {
                return;
            };
            lane.connected(session, says_read_only);
            self.tally.sent += 1;
        } else {
            let reads = Reads {
                tree,
                watches: &self.server.watches,
                auth: &self.server.options.auth,
                conn: cnxn.id(),
            };
            let before = lane.load();
            let answered = lane.txn_applied(&reads, record, &applied, self.now, &mut self.tally);
            if closes {
                lane.shut();
            }
            self.server.load.change(before, lane.load());
            if !answered && !closes {
                return;
            }
        }
        note_wake(&mut lane, &cnxn, &mut self.woken);
        let over = lane.phase == Phase::Over;
        drop(lane);
        if over && closes {
            self.registry.by_session.remove(&session);
        }
    }

    pub(super) fn sync_done(&mut self, tree: &DataTree, session: SessionId, cxid: Xid) {
        let Some(cnxn) = self.registry.by_session.get(&session) else {
            return;
        };
        let mut lane = cnxn.lane().lock();
        let reads = Reads {
            tree,
            watches: &self.server.watches,
            auth: &self.server.options.auth,
            conn: cnxn.id(),
        };
        let before = lane.load();
        let answered = lane.sync_done(&reads, cxid, self.now, &mut self.tally);
        self.server.load.change(before, lane.load());
        if answered {
            note_wake(&mut lane, cnxn, &mut self.woken);
        }
    }

    pub(super) fn revalidated(&mut self, session: SessionId, valid: bool) {
        let Some(cnxn) = self.registry.by_session.get(&session).cloned() else {
            return;
        };
        let mut lane = cnxn.lane().lock();
        let Phase::Waiting {
            reattach: true,
            says_read_only,
        } = lane.phase
        else {
            return;
        };
        if valid {
            self.server.metrics.connection_revalidate_count.increment();
        }
        lane.connected(
            if valid { session } else { SessionId::NONE },
            says_read_only,
        );
        self.tally.sent += 1;
        note_wake(&mut lane, &cnxn, &mut self.woken);
        drop(lane);
        if !valid {
            self.registry.by_session.remove(&session);
        }
    }
}
