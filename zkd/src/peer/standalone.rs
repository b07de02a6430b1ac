//! Standalone: a server without an ensemble. Its own disk is the only acker.
//!
//! Counterparts: `ZooKeeperServer` with `SessionTrackerImpl`; the reaper is `ContainerManager`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Batch, Core, Input, PeerConfig, Serving};
use crate::event::{PeerEvent, ServerState};
use crate::ids::{SessionId, Xid, Zxid};
use crate::jute::Record;
use crate::pipeline::{Delivery, Prep, Request};
use crate::record::opcode::OpCode;
use crate::record::txn::{TxnHeader, TxnRecord};
use crate::session::{Owner, SessionTracker};
use crate::time::Instant;
use crate::zab::{History, Mark, Proposal, Write};

/// A server on its own.
pub(super) struct Standalone {
    prep: Prep,
    sessions: SessionTracker,
    reaper: Reaper,
    last_zxid: Zxid,
    /// Prepared and not yet on disk, oldest first, with the batch each is in (`None`: not handed out yet).
    prepared: VecDeque<(Option<Mark>, Pending)>,
    /// Handed out as committed in the last `ready`: in the tree by now, so that `prep` may forget them.
    applied: Vec<TxnHeader>,
}

enum Pending {
    Txn(TxnRecord),
    Sync(SessionId, Xid),
}

impl Standalone {
    pub(super) fn new(core: &mut Core, history: History) -> Self {
        let now = core.now.instant;
        let prep = Prep::new(core.config.prep.clone());
        let mut sessions = SessionTracker::new(core.config.tick_time_ms);
        {
            let tree = core.server.tree().read();
            for (&session, &timeout_ms) in tree.sessions() {
                sessions.track(session, timeout_ms, now);
            }
        }
        let reaper = Reaper::new(&core.config, now);
        let zxid = history.last_zxid;
        let state = ServerState::Standalone;
        core.out.serve = Some(Serving { state, zxid });
        core.out.events.push(PeerEvent::State {
            state,
            reason: "start".to_owned(),
        });
        core.out.events.push(PeerEvent::Serving {
            state,
            epoch: 0,
            zxid: zxid.0,
        });
        Self {
            prep,
            sessions,
            reaper,
            last_zxid: zxid,
            prepared: VecDeque::new(),
            applied: Vec::new(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sessions
            .poll_timeout()
            .into_iter()
            .chain([self.reaper.next()])
            .min()
    }

    pub(super) fn step(&mut self, core: &mut Core, input: Input) {
        match input {
            Input::Request(request) => self.on_request(core, request),
            Input::Revalidate {
                session,
                timeout_ms,
            } => {
                let valid =
                    self.sessions
                        .reattach(session, timeout_ms, Owner::Local, core.now.instant);
                core.out
                    .deliver
                    .push(Delivery::Revalidated { session, valid });
            }
            Input::Wrote(mark) => self.on_wrote(core, mark),
            _ => {}
        }
    }

    pub(super) fn on_timeout(&mut self, core: &mut Core) {
        let now = core.now.instant;
        if self.sessions.poll_timeout().is_some_and(|at| at <= now) {
            let sessions = &mut self.sessions;
            core.server.touches().drain(|session, timeout_ms, at| {
                sessions.touch(session, timeout_ms, at);
            });
            for session in self.sessions.expired(now) {
                core.server.metrics().stale_sessions_expired.increment();
                self.on_request(core, Request::expire(session));
            }
        }
        for request in self.reaper.on_timeout(core) {
            self.on_request(core, request);
        }
    }

    fn on_request(&mut self, core: &mut Core, request: Request) {
        if request.op == OpCode::Sync {
            if self.prepared.is_empty() {
                core.out.deliver.push(Delivery::SyncDone {
                    session: request.session,
                    cxid: request.cxid,
                });
            } else {
                self.prepared
                    .push_back((None, Pending::Sync(request.session, request.cxid)));
            }
            return;
        }
        let zxid = self
            .last_zxid
            .next()
            .unwrap_or_else(|| Zxid::new(self.last_zxid.epoch().next(), 1));
        let record = {
            let tree = core.server.tree().read();
            self.prep
                .prepare(&tree, &mut self.sessions, &request, zxid, core.now)
        };
        self.last_zxid = zxid;
        self.prepared.push_back((None, Pending::Txn(record)));
    }

    fn on_wrote(&mut self, core: &mut Core, mark: Mark) {
        while let Some((Some(batch), _)) = self.prepared.front()
            && *batch <= mark
        {
            match self
                .prepared
                .pop_front()
                .expect("the front was just looked at")
                .1
            {
                Pending::Txn(record) => {
                    self.applied.push(record.header);
                    core.out.deliver.push(Delivery::Txn(record));
                }
                Pending::Sync(session, cxid) => {
                    core.out.deliver.push(Delivery::SyncDone { session, cxid });
                }
            }
        }
    }

    /// Hands everything prepared since the last time to the disk, as one batch.
    pub(super) fn collect(&mut self, core: &mut Core) {
        for header in self.applied.drain(..) {
            self.prep.applied(&header, &mut self.sessions);
        }
        let fresh = self
            .prepared
            .iter()
            .rev()
            .take_while(|(mark, _)| mark.is_none())
            .count();
        if fresh == 0 {
            return;
        }
        let mark = core.take_mark();
        let mut write = Vec::with_capacity(fresh);
        let start = self.prepared.len() - fresh;
        for (slot, pending) in self.prepared.range_mut(start..) {
            *slot = Some(mark);
            if let Pending::Txn(record) = pending {
                let txn = Bytes::from(record.to_vec());
                write.push(Write::Txn(Proposal {
                    zxid: record.header.zxid,
                    txn,
                }));
            }
        }
        core.out.batches.push(Batch {
            write,
            mark,
            send_after_write: Vec::new(),
        });
    }
}

/// Looks for empty containers and expired TTL nodes, on the leader and standalone.
pub(super) struct Reaper {
    interval_ms: u64,
    never_used_ms: i64,
    max: usize,
    next: Instant,
}

impl Reaper {
    pub(super) fn new(config: &PeerConfig, now: Instant) -> Self {
        let interval_ms = config.container_check_interval_ms.max(1);
        Self {
            interval_ms,
            never_used_ms: config.container_never_used_ms,
            max: config.container_max_per_minute,
            next: now + interval_ms,
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn restart(&mut self, now: Instant) {
        self.next = now + self.interval_ms;
    }

    /// The deletions to ask for, if it is time; each checks once more that the node is still to go.
    pub(super) fn on_timeout(&mut self, core: &Core) -> Vec<Request> {
        if core.now.instant < self.next {
            return Vec::new();
        }
        self.restart(core.now.instant);
        let tree = core.server.tree().read();
        let paths = tree.reap_candidates(core.now.wall_ms, self.never_used_ms, self.max);
        paths.iter().map(|path| Request::reap(path)).collect()
    }
}
