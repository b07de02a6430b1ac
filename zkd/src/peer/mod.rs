//! `QuorumPeer`: one server of an ensemble, or a standalone one, as a machine.
//!
//! It glues election, Zab, the request chain and the sessions together. A [`Role`] is a struct with only
//! its own fields; a change of role consumes the old one, so no leader's field survives into a follower.
//! Inputs go in by [`QuorumPeer::step`], deadlines are asked for with [`QuorumPeer::poll_timeout`], and
//! [`QuorumPeer::ready`] says what the driver must do, in field order. The machine touches no socket, file
//! or clock; the runtime and the simulator drive this very same code.
//!
//! Counterparts: `QuorumPeer.run`, `LeaderZooKeeperServer`, `LearnerZooKeeperServer`.

mod leading;
mod learning;
mod link;
mod looking;
mod standalone;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use link::{LinkDecoder, LinkItem, SNAPSHOT_SIGNATURE};

use crate::config::{LearnerType, Membership};
use crate::election::{self, Election, ElectionConfig, Notification};
use crate::event::{PeerEvent, ServerState};
use crate::ids::{Epoch, LinkId, ServerId, SessionId, Zxid};
use crate::pipeline::{Delivery, PrepOptions, Request, ZkServer};
use crate::quorum::QuorumVerifier;
use crate::record::quorum::QuorumPacket;
use crate::storage::Recovered;
use crate::time::{Instant, Now};
use crate::tree::DataTree;
use crate::zab::committed_log::CommittedLog;
use crate::zab::{History, Mark, Outgoing, Write};

use leading::Leading;
use learning::Learning;
use looking::{Looking, Reloading};
use standalone::Standalone;

/// What a peer needs to know of its configuration.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// This server; `None` standalone.
    pub my_id: Option<ServerId>,
    /// The ensemble; empty standalone.
    pub members: Membership,
    /// What a quorum is.
    pub verifier: QuorumVerifier,
    /// Unit of the limits below, ms.
    pub tick_time_ms: u64,
    /// Ticks for connecting and synchronizing.
    pub init_limit: u32,
    /// Ticks of silence that are tolerated.
    pub sync_limit: u32,
    /// First pause before an election's notifications are sent again, ms.
    pub notification_interval_min_ms: u64,
    /// Longest such pause, ms.
    pub notification_interval_max_ms: u64,
    /// Committed txns kept for DIFF synchronization.
    pub commit_log_count: usize,
    /// How often the leader looks for containers and TTL nodes to reap, ms.
    pub container_check_interval_ms: u64,
    /// How many it reaps a minute at the most.
    pub container_max_per_minute: usize,
    /// Age from which a container that never had a child is reaped, ms; 0 for never.
    pub container_never_used_ms: i64,
    /// What preparing a txn depends on.
    pub prep: PrepOptions,
}

/// What happens to a peer.
#[derive(Debug)]
pub enum Input {
    /// Something on the election port.
    Election(election::Input),
    /// A learner connected to the quorum port.
    LearnerConnected(LinkId),
    /// A learner's packet.
    LearnerPacket(LinkId, QuorumPacket),
    /// A learner's connection ended.
    LearnerClosed(LinkId),
    /// The snapshot that a learner is synchronized by has left.
    SnapshotSent(LinkId),
    /// The connection asked for with [`Control::ConnectLeader`] stands.
    LeaderConnected(LinkId),
    /// The leader's packet (never SNAP).
    LeaderPacket(LinkId, QuorumPacket),
    /// Bytes of a SNAP are coming in: the leader is not silent.
    LeaderSending(LinkId),
    /// A SNAP packet and the tree that followed it.
    LeaderSnapshot(LinkId, Zxid, Box<DataTree>),
    /// The connection to the leader could not be made, or ended.
    LeaderClosed(LinkId, String),
    /// A batch is on disk.
    Wrote(Mark),
    /// A batch with [`Write::Truncate`] is done, or [`Control::Reload`]: the database as it is now on
    /// disk.
    Reloaded(Mark, Box<Recovered>),
    /// A client's write or sync (or one of the server's own).
    Request(Request),
    /// A client wants to re-attach its session here.
    Revalidate {
        /// The session.
        session: SessionId,
        /// The newly negotiated timeout, ms.
        timeout_ms: i32,
    },
    /// The deadline of [`QuorumPeer::poll_timeout`] has passed.
    Timeout,
}

/// Something to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Envelope {
    /// On the election port.
    Election(ServerId, Notification),
    /// To a learner.
    Learner(LinkId, Outgoing),
    /// To the leader.
    Leader(LinkId, QuorumPacket),
}

/// Connections to make or end, and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Connect to this server's quorum port, trying again within the connect budget.
    ConnectLeader(LinkId, ServerId),
    /// End the connection to the leader.
    CloseLeader(LinkId),
    /// End a learner's connection.
    CloseLearner(LinkId),
    /// Load the database from disk again; comes back as [`Input::Reloaded`] with this mark.
    Reload(Mark),
}

/// Writes that end with one sync, and what may leave only after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// In this order.
    pub write: Vec<Write>,
    /// Comes back as [`Input::Wrote`] after the sync.
    pub mark: Mark,
    /// ACK, ACKEPOCH, LEADERINFO, the ACK of NEWLEADER: never before the sync.
    pub send_after_write: Vec<Envelope>,
}

/// Clients are served from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// As what.
    pub state: ServerState,
    /// The point of history from which on it is served: the start of the epoch, or the last txn
    /// standalone.
    pub zxid: Zxid,
}

impl Serving {
    /// Opens the server to clients. Everything before the start of the epoch is applied by now, so that a
    /// client that has seen this epoch on another server is not turned away here.
    pub fn carry_out(self, server: &ZkServer, leader_serves: bool) {
        {
            let mut tree = server.tree().write();
            let reached = tree.last_processed_zxid().max(self.zxid);
            tree.set_last_processed_zxid(reached);
        }
        // `leaderServes=no`: this leader leaves the clients to the others.
        if leader_serves || self.state != ServerState::Leading {
            server.start_serving(self.state);
        }
    }
}

/// What the driver must now do, in field order. `deliver` is applied before the next step.
#[must_use]
#[derive(Debug, Default)]
pub struct Ready {
    /// Connections first: what is sent may need them.
    pub control: Vec<Control>,
    /// May leave at once.
    pub send: Vec<Envelope>,
    /// To disk, batch after batch.
    pub batches: Vec<Batch>,
    /// To [`ZkServer::apply`]: committed, and what else answers clients.
    pub deliver: Vec<Delivery>,
    /// To [`ZkServer::apply`] as well: txns of the own log that were not committed when the role ended.
    /// They enter the tree as they would at a restart; by now no client is connected that could be
    /// answered.
    pub replay: Vec<Delivery>,
    /// After `deliver`. (The end of serving is never left to the driver: the peer closes the server at
    /// once, so that no uncommitted txn it replays afterwards can answer a client.)
    pub serve: Option<Serving>,
    /// The one source for logs, metrics, transcripts and the event feed.
    pub events: Vec<PeerEvent>,
    /// The server must stop: exit code and reason.
    pub exit: Option<(i32, String)>,
}

/// What a server is at the moment.
enum Role {
    /// In an election.
    Looking(Looking),
    /// Waits for the database to be loaded again before it may vote.
    Reloading(Reloading),
    /// Follows or observes.
    Learning(Box<Learning>),
    /// Leads.
    Leading(Box<Leading>),
    /// Serves alone.
    Standalone(Box<Standalone>),
    /// Between two roles inside one call; never seen from outside.
    Changing,
}

/// What every role may use: everything of the peer but the role itself.
struct Core {
    config: PeerConfig,
    server: Arc<ZkServer>,
    election: Option<Election>,
    next_mark: Mark,
    next_link: u64,
    /// The last leader followed asked for a cut of the log that is not possible; its epoch.
    cannot_cut_for: Option<Epoch>,
    now: Now,
    out: Ready,
}

/// One server of an ensemble, or a standalone one.
pub struct QuorumPeer {
    core: Core,
    role: Role,
}

/// Link ids that the peer hands out itself (connections to a leader) start here, so that they never
/// meet those of accepted connections, which the driver counts from 0.
const FIRST_OWN_LINK: u64 = 1 << 63;

impl QuorumPeer {
    /// A peer with what recovery found on disk; `server` already holds the recovered tree. Call
    /// [`Self::start`] next.
    #[must_use]
    pub fn new(config: PeerConfig, server: Arc<ZkServer>, recovered: RecoveredState) -> Self {
        let history = recovered.into_history(config.commit_log_count);
        let election = config
            .my_id
            .map(|my_id| Election::new(election_config(my_id, &config)));
        let core = Core {
            config,
            server,
            election,
            next_mark: Mark(1),
            next_link: FIRST_OWN_LINK,
            cannot_cut_for: None,
            now: Now::default(),
            out: Ready::default(),
        };
        Self {
            core,
            role: Role::Looking(Looking::new(history)),
        }
    }

    /// Enters the first role: LOOKING in an ensemble, serving at once when standalone.
    pub fn start(&mut self, now: Now) {
        self.core.now = now;
        let Role::Looking(looking) = std::mem::replace(&mut self.role, Role::Changing) else {
            unreachable!("start is called once, before any step")
        };
        self.role = if self.core.election.is_some() {
            self.core.look(looking.into_history(), "start".to_owned())
        } else {
            Role::Standalone(Box::new(Standalone::new(
                &mut self.core,
                looking.into_history(),
            )))
        };
    }

    /// The state in ZooKeeper's words.
    #[must_use]
    pub fn state(&self) -> ServerState {
        match &self.role {
            Role::Looking(_) | Role::Reloading(_) | Role::Changing => ServerState::Looking,
            Role::Learning(role) => role.state(),
            Role::Leading(_) => ServerState::Leading,
            Role::Standalone(_) => ServerState::Standalone,
        }
    }

    /// The leader's view of its learners, while leading.
    #[must_use]
    pub fn leading(&self) -> Option<&crate::zab::leader::Leader> {
        match &self.role {
            Role::Leading(role) => Some(role.zab()),
            _ => None,
        }
    }

    /// What phase of Zab the server is in: `discovery`, `synchronization`, `broadcast`, or `election`.
    #[must_use]
    pub fn zab_state(&self) -> &'static str {
        match &self.role {
            Role::Leading(role) => role.zab_state(),
            Role::Learning(role) => role.zab_state(),
            _ => "election",
        }
    }

    /// The epoch of the current reign; 0 outside one.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match &self.role {
            Role::Leading(role) => role.zab().epoch(),
            Role::Learning(role) => role.zab().epoch(),
            _ => Epoch(0),
        }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Now, input: Input) {
        self.core.now = now;
        match input {
            Input::Election(input) => self.on_election(input),
            Input::Timeout => self.on_timeout(),
            Input::Reloaded(mark, recovered) => self.on_reloaded(mark, *recovered),
            input => match &mut self.role {
                Role::Looking(role) => role.step(&mut self.core, input),
                Role::Reloading(role) => role.step(&mut self.core, &input),
                Role::Learning(role) => role.step(&mut self.core, input),
                Role::Leading(role) => role.step(&mut self.core, input),
                Role::Standalone(role) => role.step(&mut self.core, input),
                Role::Changing => unreachable!("no role is held only inside a change"),
            },
        }
    }

    /// The next deadline; when it passes, step [`Input::Timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let role = match &self.role {
            Role::Learning(role) => role.poll_timeout(),
            Role::Leading(role) => role.poll_timeout(),
            Role::Standalone(role) => role.poll_timeout(),
            Role::Looking(_) | Role::Reloading(_) | Role::Changing => None,
        };
        let election = self.core.election.as_ref().and_then(Election::poll_timeout);
        role.into_iter().chain(election).min()
    }

    /// What must now be done. Call it after every step or burst of steps.
    pub fn ready(&mut self) -> Ready {
        // A role that ends makes the next one speak at once. Every turn that changes a role consumes an
        // outcome some machine had stored, so this ends.
        while self.collect() {}
        std::mem::take(&mut self.core.out)
    }

    /// Takes what the machines have to say; says whether the role changed.
    fn collect(&mut self) -> bool {
        let decided = self.core.collect_election();
        let (role, changed) = match std::mem::replace(&mut self.role, Role::Changing) {
            Role::Looking(role) => match decided {
                Some((state, vote)) => (role.decided(&mut self.core, state, &vote), true),
                None => (Role::Looking(role), false),
            },
            Role::Learning(role) => role.collect(&mut self.core),
            Role::Leading(role) => role.collect(&mut self.core),
            Role::Standalone(mut role) => {
                role.collect(&mut self.core);
                (Role::Standalone(role), false)
            }
            role => (role, false),
        };
        self.role = role;
        changed
    }

    fn on_election(&mut self, input: election::Input) {
        let now = self.core.now.instant;
        let Some(election) = &mut self.core.election else {
            return;
        };
        election.step(now, input);
        if let Role::Learning(role) = &mut self.role
            && election.leader_is_gone()
        {
            role.on_leader_gone(now);
        }
    }

    fn on_timeout(&mut self) {
        let now = self.core.now.instant;
        if let Some(election) = &mut self.core.election
            && election.poll_timeout().is_some_and(|at| at <= now)
        {
            election.step(now, election::Input::Timeout);
        }
        match &mut self.role {
            Role::Learning(role) => role.on_timeout(&mut self.core),
            Role::Leading(role) => role.on_timeout(&mut self.core),
            Role::Standalone(role) => role.on_timeout(&mut self.core),
            Role::Looking(_) | Role::Reloading(_) | Role::Changing => {}
        }
    }

    /// The database was loaded anew: after a TRUNC, or because a SNAP did not reach the disk.
    fn on_reloaded(&mut self, mark: Mark, recovered: Recovered) {
        match &mut self.role {
            Role::Learning(role) => role.on_reloaded(&mut self.core, mark, recovered),
            Role::Reloading(role) if role.mark() == mark => {
                let reason = role.reason();
                let (tree, state) = RecoveredState::split(recovered);
                self.core.server.replace_tree(tree);
                let history = state.into_history(self.core.config.commit_log_count);
                self.role = Role::Changing;
                self.role = self.core.look(history, reason);
            }
            _ => {}
        }
    }
}

/// The part of [`Recovered`] that is not the tree.
#[derive(Clone, Debug)]
pub struct RecoveredState {
    /// The last txn on disk.
    pub last_zxid: Zxid,
    /// The newest txns.
    pub committed: Vec<(Zxid, bytes::Bytes)>,
    /// From `acceptedEpoch`.
    pub accepted_epoch: Epoch,
    /// From `currentEpoch`.
    pub current_epoch: Epoch,
}

impl RecoveredState {
    /// Splits what recovery found into the tree and the rest.
    #[must_use]
    pub fn split(recovered: Recovered) -> (DataTree, Self) {
        let Recovered {
            tree,
            last_zxid,
            committed,
            accepted_epoch,
            current_epoch,
            ..
        } = recovered;
        (
            tree,
            Self {
                last_zxid,
                committed,
                accepted_epoch,
                current_epoch,
            },
        )
    }

    fn into_history(self, commit_log_count: usize) -> History {
        let mut committed = CommittedLog::new(commit_log_count);
        for (zxid, txn) in self.committed {
            committed.push(crate::zab::Proposal { zxid, txn });
        }
        History {
            accepted_epoch: self.accepted_epoch,
            current_epoch: self.current_epoch,
            last_zxid: self.last_zxid,
            committed,
        }
    }
}

fn election_config(my_id: ServerId, config: &PeerConfig) -> ElectionConfig {
    ElectionConfig {
        is_participant: is_participant(my_id, config),
        notification_interval_min_ms: config.notification_interval_min_ms,
        notification_interval_max_ms: config.notification_interval_max_ms,
        ..ElectionConfig::new(
            my_id,
            config.verifier.clone(),
            config.members.canonical_text(),
        )
    }
}

fn is_participant(my_id: ServerId, config: &PeerConfig) -> bool {
    config
        .members
        .servers
        .get(&my_id)
        .is_some_and(|spec| spec.role == LearnerType::Participant)
}
