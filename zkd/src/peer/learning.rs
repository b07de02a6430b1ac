//! FOLLOWING and OBSERVING: Zab's learner, and the way of local clients' requests to the leader.
//!
//! Writes and syncs are forwarded; reads never come here. A write's reply is found by its session and cxid
//! when its txn is applied, a sync's by order. Counterparts: `Learner`, `Follower`, `Observer`,
//! `LearnerZooKeeperServer`, `LearnerSessionTracker`.

use std::collections::VecDeque;

use crate::event::{PeerEvent, ServerState};
use crate::ids::{LinkId, ServerId, SessionId, Xid, Zxid};
use crate::pipeline::{Delivery, Request};
use crate::record::opcode::OpCode;
use crate::record::txn::TxnRecord;
use crate::storage::Recovered;
use crate::time::Instant;
use crate::zab::learner::{Learner, LearnerConfig, LearnerInput, LearnerKind};
use crate::zab::{History, LearnerReady, Mark, Proposal, Write};

use super::looking::Reloading;
use super::{Batch, Control, Core, Envelope, Input, RecoveredState, Role, Serving};

/// A follower or observer.
pub(super) struct Learning {
    state: ServerState,
    zab: Learner,
    link: LinkId,
    connected: bool,
    serving: bool,
    first_commit_seen: bool,
    /// Syncs on their way to the leader, oldest first: answers carry no name.
    syncs: VecDeque<(SessionId, Xid)>,
    /// Memory and disk differ until this batch is done: a TRUNC is being cut, or a SNAP is being written.
    unsettled: Option<Unsettled>,
}

/// Why the tree in memory is not what a restart would load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsettled {
    /// The log is being cut; the reload that ends it carries this mark.
    Truncating(Mark),
    /// The leader's snapshot is in memory; the batch that writes it down carries this mark, once known.
    SnapshotUnwritten(Option<Mark>),
}

impl Learning {
    pub(super) fn new(
        core: &mut Core,
        history: History,
        state: ServerState,
        leader: ServerId,
    ) -> Self {
        let config = &core.config;
        let kind = if state == ServerState::Observing {
            LearnerKind::Observer
        } else {
            LearnerKind::Participant
        };
        let learner = LearnerConfig {
            my_id: config.my_id.expect("a learner is a member of an ensemble"),
            kind,
            tick_time_ms: config.tick_time_ms,
            init_limit: config.init_limit,
            sync_limit: config.sync_limit,
            config_version: config.members.version,
        };
        let mut zab = Learner::new(learner, history, core.next_mark, core.now.instant);
        if let Some(epoch) = core.cannot_cut_for {
            zab.ask_for_snapshot(epoch);
        }
        let link = LinkId(core.next_link);
        core.next_link += 1;
        core.out.control.push(Control::ConnectLeader(link, leader));
        Self {
            state,
            zab,
            link,
            connected: false,
            serving: false,
            first_commit_seen: false,
            syncs: VecDeque::new(),
            unsettled: None,
        }
    }

    pub(super) fn state(&self) -> ServerState {
        self.state
    }

    pub(super) fn zab(&self) -> &Learner {
        &self.zab
    }

    pub(super) fn zab_state(&self) -> &'static str {
        match (self.serving, self.connected) {
            (true, _) => "broadcast",
            (false, true) => "synchronization",
            (false, false) => "discovery",
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.zab.poll_timeout()
    }

    pub(super) fn step(&mut self, core: &mut Core, input: Input) {
        let now = core.now.instant;
        match input {
            Input::LeaderConnected(link) if link == self.link => {
                self.connected = true;
                self.zab.step(now, LearnerInput::Connected);
            }
            Input::LeaderPacket(link, packet) if link == self.link => {
                self.zab.step(now, LearnerInput::Packet(packet));
            }
            Input::LeaderSending(link) if link == self.link => {
                self.zab.step(now, LearnerInput::Receiving);
            }
            Input::LeaderSnapshot(link, ..)
                if link == self.link && !self.zab.expects_snapshot() =>
            {
                let reason = "the leader sent a SNAP out of its place".to_owned();
                self.zab.step(now, LearnerInput::Closed(reason));
            }
            Input::LeaderSnapshot(link, zxid, tree) if link == self.link => {
                // From here on a restart would load something else than what is in memory.
                self.unsettled = Some(Unsettled::SnapshotUnwritten(None));
                core.server.replace_tree(*tree);
                core.server.tree().write().set_last_processed_zxid(zxid);
                self.zab.step(now, LearnerInput::SnapshotLoaded(zxid));
            }
            Input::LeaderClosed(link, reason) if link == self.link => {
                self.zab.step(now, LearnerInput::Closed(reason));
            }
            Input::Wrote(mark) => {
                if self.unsettled == Some(Unsettled::SnapshotUnwritten(Some(mark))) {
                    self.unsettled = None;
                }
                self.zab.step(now, LearnerInput::Wrote(mark));
            }
            Input::Request(request) if self.serving => self.on_request(request),
            Input::Revalidate {
                session,
                timeout_ms,
            } if self.serving => {
                self.zab.revalidate(session, timeout_ms);
            }
            // Only a leader takes learners.
            Input::LearnerConnected(link) => core.out.control.push(Control::CloseLearner(link)),
            _ => {}
        }
    }

    fn on_request(&mut self, request: Request) {
        let Request {
            session,
            cxid,
            op,
            payload,
            ids,
            ..
        } = request;
        if op == OpCode::Sync {
            self.syncs.push_back((session, cxid));
        }
        self.zab.request(session, cxid, op.code(), payload, &ids);
    }

    /// The election says that the elected leader does not lead: it died, or changed its mind. Before the
    /// connection stands, nothing else would tell before the connect budget is used up.
    pub(super) fn on_leader_gone(&mut self, now: Instant) {
        if !self.connected {
            self.zab.step(
                now,
                LearnerInput::Closed("the elected leader is gone".to_owned()),
            );
        }
    }

    pub(super) fn on_timeout(&mut self, core: &mut Core) {
        let now = core.now.instant;
        if self.zab.poll_timeout().is_some_and(|at| at <= now) {
            self.zab.step(now, LearnerInput::Timeout);
        }
    }

    /// The log was cut for a TRUNC, and this is what is left.
    pub(super) fn on_reloaded(&mut self, core: &mut Core, mark: Mark, recovered: Recovered) {
        if self.unsettled != Some(Unsettled::Truncating(mark)) {
            return;
        }
        self.unsettled = None;
        let last_zxid = recovered.last_zxid;
        let (tree, _) = RecoveredState::split(recovered);
        core.server.replace_tree(tree);
        self.zab.step(
            core.now.instant,
            LearnerInput::Truncated { mark, last_zxid },
        );
    }

    /// Takes what Zab has to say.
    pub(super) fn collect(mut self: Box<Self>, core: &mut Core) -> (Role, bool) {
        let ready = self.zab.ready();
        for note in &ready.notes {
            tracing::info!("{note}");
        }
        core.out.events.extend(ready.events.iter().cloned());
        if let Some((code, reason)) = ready.fatal {
            core.out.exit = Some((code, reason));
            return (Role::Learning(self), false);
        }
        if let Some(reason) = ready.failed {
            return (self.fail(core, &reason), true);
        }
        match self.carry_out(core, ready) {
            Ok(()) => (Role::Learning(self), false),
            Err(reason) => {
                core.out.exit = Some((13, reason));
                (Role::Learning(self), false)
            }
        }
    }

    fn carry_out(&mut self, core: &mut Core, ready: LearnerReady) -> Result<(), String> {
        let link = self.link;
        core.out.send.extend(
            ready
                .send
                .into_iter()
                .map(|packet| Envelope::Leader(link, packet)),
        );
        if let Some(mark) = ready.mark {
            self.note_unsettling(&ready.write, mark);
            let after = ready
                .send_after_write
                .into_iter()
                .map(|packet| Envelope::Leader(link, packet));
            core.out.batches.push(Batch {
                write: ready.write,
                mark,
                send_after_write: after.collect(),
            });
        }
        // In the order of the stream: a session's write behind its sync is answered after the sync.
        let mut synced_after = ready.synced_after.into_iter().peekable();
        for place in 0..=ready.committed.len() {
            while synced_after.next_if(|before| *before <= place).is_some() {
                if let Some((session, cxid)) = self.syncs.pop_front() {
                    core.out.deliver.push(Delivery::SyncDone { session, cxid });
                }
            }
            if let Some(proposal) = ready.committed.get(place) {
                self.commit(core, proposal)?;
            }
        }
        for (session, valid) in ready.revalidated {
            core.out
                .deliver
                .push(Delivery::Revalidated { session, valid });
        }
        if ready.ping {
            let mut touched = Vec::new();
            core.server
                .touches()
                .drain(|session, timeout_ms, _| touched.push((session, timeout_ms)));
            self.zab.answer_ping(&touched);
            let answer = self.zab.ready();
            core.out.send.extend(
                answer
                    .send
                    .into_iter()
                    .map(|packet| Envelope::Leader(link, packet)),
            );
        }
        if ready.up_to_date {
            self.serve(core);
        }
        Ok(())
    }

    fn note_unsettling(&mut self, write: &[Write], mark: Mark) {
        for one in write {
            match one {
                Write::Truncate(_) => self.unsettled = Some(Unsettled::Truncating(mark)),
                Write::Snapshot(_) if self.unsettled.is_some() => {
                    self.unsettled = Some(Unsettled::SnapshotUnwritten(Some(mark)));
                }
                _ => {}
            }
        }
    }

    fn commit(&mut self, core: &mut Core, proposal: &Proposal) -> Result<(), String> {
        let record = TxnRecord::from_bytes(&proposal.txn).map_err(|error| {
            format!(
                "the leader sent txn {} that is none: {error}",
                proposal.zxid
            )
        })?;
        if self.serving && !self.first_commit_seen {
            self.first_commit_seen = true;
            core.out.events.push(PeerEvent::FirstCommit {
                zxid: proposal.zxid.0,
            });
        }
        core.out.deliver.push(Delivery::Txn(record));
        Ok(())
    }

    fn serve(&mut self, core: &mut Core) {
        let epoch = self.zab.epoch();
        core.election_epoch(epoch);
        self.serving = true;
        let zxid = Zxid::new(epoch, 0);
        core.out.serve = Some(Serving {
            state: self.state,
            zxid,
        });
        core.out.events.push(PeerEvent::Serving {
            state: self.state,
            epoch: epoch.0,
            zxid: zxid.0,
        });
    }

    /// Leaves the leader. What was logged but not committed enters the tree; where memory and disk differ,
    /// the disk is the truth and is loaded again before this server votes.
    fn fail(self: Box<Self>, core: &mut Core, reason: &str) -> Role {
        let Self {
            state,
            zab,
            link,
            serving,
            unsettled,
            ..
        } = *self;
        core.out.control.push(Control::CloseLeader(link));
        core.step_down(state, serving, reason);
        let must_reload = zab.must_reload();
        core.cannot_cut_for = zab.cannot_cut_for();
        let (history, uncommitted, next_mark) = zab.into_history();
        core.next_mark = next_mark;
        match unsettled {
            // What was applied behind a TRUNC or SNAP is in no log until NEWLEADER is acknowledged.
            None if !must_reload => {
                for proposal in uncommitted {
                    if let Ok(record) = TxnRecord::from_bytes(&proposal.txn) {
                        core.out.replay.push(Delivery::Txn(record));
                    }
                }
                core.look(history, reason.to_owned())
            }
            Some(Unsettled::Truncating(mark)) => {
                Role::Reloading(Reloading::new(mark, reason.to_owned()))
            }
            None | Some(Unsettled::SnapshotUnwritten(_)) => {
                let mark = core.take_mark();
                core.out.control.push(Control::Reload(mark));
                Role::Reloading(Reloading::new(mark, reason.to_owned()))
            }
        }
    }
}
