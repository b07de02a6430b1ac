//! LEADING: Zab's leader, the request chain up to the proposal, and the sessions of the whole ensemble.
//!
//! Requests of local clients and of learners take the same way: `prep` turns each into a txn (a refused
//! one into an error txn), Zab orders and replicates it, and what is committed goes to the tree.
//! Counterparts: `Leader`, `LeaderZooKeeperServer`, `LeaderSessionTracker`, `ContainerManager`.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::{Batch, Control, Core, Envelope, Input, Role, Serving};
use crate::event::{PeerEvent, ServerState};
use crate::ids::{LinkId, ServerId};
use crate::jute::Record;
use crate::pipeline::{Delivery, Origin, Prep, Request};
use crate::record::opcode::OpCode;
use crate::record::quorum::QuorumPacket;
use crate::record::txn::{TxnHeader, TxnRecord};
use crate::session::{Owner, SessionTracker};
use crate::time::Instant;
use crate::zab::leader::{Leader, LeaderConfig, LeaderInput, SyncFrom};
use crate::zab::{Asked, History, LearnerRequest, Proposal};

use super::standalone::Reaper;

/// The leader.
pub(super) struct Leading {
    zab: Leader,
    prep: Prep,
    /// Every session of the ensemble; the leader alone expires them.
    sessions: SessionTracker,
    /// Proposed and not committed, in zxid order: spares decoding our own proposals.
    prepared: VecDeque<TxnRecord>,
    /// Handed out as committed in the last `ready`: in the tree by now, so that `prep` may forget them.
    applied: Vec<TxnHeader>,
    reaper: Reaper,
    /// The epoch is established, clients are served.
    serving: bool,
    first_commit_seen: bool,
}

impl Leading {
    pub(super) fn new(
        core: &mut Core,
        history: History,
        waiting: Vec<(LinkId, Vec<QuorumPacket>)>,
    ) -> Self {
        let config = &core.config;
        let leader = LeaderConfig {
            my_id: config.my_id.expect("a leader is a member of an ensemble"),
            tick_time_ms: config.tick_time_ms,
            init_limit: config.init_limit,
            sync_limit: config.sync_limit,
            verifier: config.verifier.clone(),
            config_text: Bytes::from(config.members.canonical_text()),
            config_version: config.members.version,
        };
        let now = core.now.instant;
        let mut zab = Leader::new(leader, history, core.next_mark, now);
        for (link, packets) in waiting {
            zab.step(now, LeaderInput::Connected(link));
            for packet in packets {
                zab.step(now, LeaderInput::Packet(link, packet));
            }
        }
        Self {
            zab,
            prep: Prep::new(config.prep.clone()),
            sessions: SessionTracker::new(config.tick_time_ms),
            prepared: VecDeque::new(),
            applied: Vec::new(),
            reaper: Reaper::new(config, now),
            serving: false,
            first_commit_seen: false,
        }
    }

    pub(super) fn zab(&self) -> &Leader {
        &self.zab
    }

    pub(super) fn zab_state(&self) -> &'static str {
        if self.serving {
            "broadcast"
        } else {
            "discovery"
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let zab = self.zab.poll_timeout();
        if !self.serving {
            return zab;
        }
        zab.into_iter()
            .chain(self.sessions.poll_timeout())
            .chain([self.reaper.next()])
            .min()
    }

    pub(super) fn step(&mut self, core: &mut Core, input: Input) {
        let now = core.now.instant;
        match input {
            Input::LearnerConnected(link) => self.zab.step(now, LeaderInput::Connected(link)),
            Input::LearnerPacket(link, packet) => {
                self.zab.step(now, LeaderInput::Packet(link, packet));
                self.answer_learner(core);
            }
            Input::LearnerClosed(link) => self.zab.step(now, LeaderInput::Closed(link)),
            Input::SnapshotSent(link) => self.zab.step(now, LeaderInput::SnapshotSent(link)),
            Input::Wrote(mark) => self.zab.step(now, LeaderInput::Wrote(mark)),
            Input::Request(request) if self.serving => self.on_request(core, request),
            Input::Revalidate {
                session,
                timeout_ms,
            } if self.serving => {
                let valid = self
                    .sessions
                    .reattach(session, timeout_ms, Owner::Local, now);
                core.out
                    .deliver
                    .push(Delivery::Revalidated { session, valid });
            }
            _ => {}
        }
    }

    pub(super) fn on_timeout(&mut self, core: &mut Core) {
        let now = core.now.instant;
        if self.zab.poll_timeout().is_some_and(|at| at <= now) {
            self.zab.step(now, LeaderInput::Timeout);
        }
        if !self.serving {
            return;
        }
        if self.sessions.poll_timeout().is_some_and(|at| at <= now) {
            self.expire_sessions(core);
        }
        for request in self.reaper.on_timeout(core) {
            self.on_request(core, request);
        }
    }

    /// Closes the sessions that were silent for too long. What the connections heard is taken in first:
    /// a deadline is never judged before the sockets were read.
    fn expire_sessions(&mut self, core: &mut Core) {
        let now = core.now.instant;
        let sessions = &mut self.sessions;
        core.server.touches().drain(|session, timeout_ms, at| {
            sessions.touch(session, timeout_ms, at);
        });
        for session in self.sessions.expired(now) {
            core.server.metrics().stale_sessions_expired.increment();
            self.on_request(core, Request::expire(session));
        }
    }

    fn on_request(&mut self, core: &mut Core, request: Request) {
        if request.op == OpCode::Sync {
            self.zab
                .sync(SyncFrom::Local(request.session, request.cxid));
            return;
        }
        // Without a next zxid the counter is used up and the machine is about to step down; the client's
        // connection then closes and its request has an unknown outcome, as with any lost leader.
        let Some(zxid) = self.zab.next_zxid() else {
            return;
        };
        let record = {
            let tree = core.server.tree().read();
            self.prep
                .prepare(&tree, &mut self.sessions, &request, zxid, core.now)
        };
        let txn = Bytes::from(record.to_vec());
        self.prepared.push_back(record);
        self.zab.propose(Proposal { zxid, txn });
    }

    /// Takes up what a learner asks, right after it came: before anything that comes later, of whatever server, moves
    /// its session.
    fn answer_learner(&mut self, core: &mut Core) {
        for asked in self.zab.take_asked() {
            match asked {
                // A learner asks for nothing before its UPTODATE, and that leaves an established epoch.
                _ if !self.serving => {}
                Asked::Request(request) => self.on_learner_request(core, request),
                Asked::Revalidation(question) => {
                    let valid = self.sessions.reattach(
                        question.session,
                        question.timeout_ms,
                        Owner::Link(question.link),
                        core.now.instant,
                    );
                    self.zab.answer_revalidation(&question, valid);
                }
            }
        }
    }

    fn on_learner_request(&mut self, core: &mut Core, request: LearnerRequest) {
        let LearnerRequest {
            link,
            session,
            cxid,
            op,
            payload,
            ids,
        } = request;
        match OpCode::from_code(op) {
            Some(OpCode::Sync) => self.zab.sync(SyncFrom::Learner(link)),
            Some(op) if op.is_write() => {
                let request = Request {
                    session,
                    cxid,
                    op,
                    payload,
                    ids: ids.into(),
                    origin: Origin::Learner(link),
                };
                self.on_request(core, request);
            }
            _ => tracing::warn!(
                link = link.0,
                op,
                "a learner forwarded an operation that is no write; ignored"
            ),
        }
    }

    /// Takes what Zab has to say, and what follows from it, until it is silent.
    pub(super) fn collect(mut self: Box<Self>, core: &mut Core) -> (Role, bool) {
        for header in self.applied.drain(..) {
            self.prep.applied(&header, &mut self.sessions);
        }
        self.check_voters(core);
        loop {
            let ready = self.zab.ready();
            for note in &ready.notes {
                tracing::info!("{note}");
            }
            core.out.events.extend(ready.events);
            core.out
                .control
                .extend(ready.close.iter().copied().map(Control::CloseLearner));
            if let Some(reason) = ready.failed {
                return (self.fail(core, &reason), true);
            }
            core.out.send.extend(
                ready
                    .send
                    .into_iter()
                    .map(|(link, out)| Envelope::Learner(link, out)),
            );
            if let Some(mark) = ready.mark {
                let after = ready
                    .send_after_write
                    .into_iter()
                    .map(|(link, out)| Envelope::Learner(link, out));
                core.out.batches.push(Batch {
                    write: ready.write,
                    mark,
                    send_after_write: after.collect(),
                });
            }
            // In the order of the commits: a session's write behind its sync is answered after the sync.
            let mut synced = ready.synced_after.into_iter().zip(ready.synced).peekable();
            for place in 0..=ready.committed.len() {
                while let Some((_, (session, cxid))) =
                    synced.next_if(|(before, _)| *before <= place)
                {
                    core.out.deliver.push(Delivery::SyncDone { session, cxid });
                }
                if let Some(proposal) = ready.committed.get(place) {
                    self.commit(core, proposal);
                }
            }
            if ready.established {
                self.establish(core);
            }
            for (session, timeout_ms) in ready.touched {
                self.sessions.touch(session, timeout_ms, core.now.instant);
            }
            if !ready.established {
                return (Role::Leading(self), false);
            }
        }
    }

    fn commit(&mut self, core: &mut Core, proposal: &Proposal) {
        let record = self
            .prepared
            .pop_front()
            .expect("what is committed was proposed by this leader");
        assert!(
            record.header.zxid == proposal.zxid,
            "txns commit in the order they were proposed"
        );
        if !self.first_commit_seen {
            self.first_commit_seen = true;
            core.out.events.push(PeerEvent::FirstCommit {
                zxid: proposal.zxid.0,
            });
        }
        self.applied.push(record.header);
        core.out.deliver.push(Delivery::Txn(record));
    }

    /// A quorum follows: the sessions of the tree start with a full timeout, and clients are served.
    fn establish(&mut self, core: &mut Core) {
        let epoch = self.zab.epoch();
        let zxid = self.zab.last_committed();
        {
            let tree = core.server.tree().read();
            self.prep.reset();
            for (&session, &timeout_ms) in tree.sessions() {
                self.sessions.track(session, timeout_ms, core.now.instant);
            }
        }
        core.election_epoch(epoch);
        self.serving = true;
        self.reaper.restart(core.now.instant);
        core.out.serve = Some(Serving {
            state: ServerState::Leading,
            zxid,
        });
        core.out.events.push(PeerEvent::Serving {
            state: ServerState::Leading,
            epoch: epoch.0,
            zxid: zxid.0,
        });
    }

    /// Before the epoch is established, a leader whose voters went elsewhere must not wait out initLimit
    /// (ZOOKEEPER-3109). The election knows who may still come.
    fn check_voters(&mut self, core: &Core) {
        let Some(election) = core.election.as_ref().filter(|_| !self.serving) else {
            return;
        };
        let joined: BTreeSet<ServerId> = self.zab.learners().iter().map(|l| l.sid).collect();
        if election.quorum_is_gone(&joined) {
            let voters = core.config.verifier.voters();
            let elsewhere = voters.difference(&joined).copied().collect();
            self.zab
                .step(core.now.instant, LeaderInput::Elsewhere(elsewhere));
        }
    }

    /// Gives the reign up. What was logged but not committed enters the tree, as it would at a restart:
    /// the next leader decides over it.
    fn fail(self: Box<Self>, core: &mut Core, reason: &str) -> Role {
        let Self {
            zab,
            serving,
            mut prepared,
            ..
        } = *self;
        core.step_down(ServerState::Leading, serving, reason);
        let (history, uncommitted, next_mark) = zab.into_history();
        core.next_mark = next_mark;
        for proposal in uncommitted {
            if let Some(record) = prepared.pop_front() {
                assert!(
                    record.header.zxid == proposal.zxid,
                    "every outstanding proposal was prepared here"
                );
                core.out.replay.push(Delivery::Txn(record));
            }
        }
        core.look(history, reason.to_owned())
    }
}
