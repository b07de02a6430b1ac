//! A stage for textbook scenes: nothing goes wrong by itself, everything takes the same time, and what the
//! servers say of themselves becomes a transcript that can be read.

use super::mutation::Mutation;
use super::network::Network;
use super::world::{Plan, START_US, World};
use crate::event::{PeerEvent, ServerState};
use crate::ids::{ServerId, Zxid};
use crate::prng::Prng;

/// An ensemble that does what it is told.
pub struct Stage {
    world: World,
}

impl Stage {
    /// An ensemble of so many voters, none of them started, and one client.
    #[must_use]
    pub fn new(voters: u64) -> Self {
        let plan = Plan {
            seed: 0,
            mutation: Mutation::None,
            trouble_ms: 0,
            scripted: true,
        };
        let mut prng = Prng::new(0);
        let network = Network::calm(prng.fork());
        Self {
            world: World::with(plan, prng, (voters, 0), 1, network),
        }
    }

    /// Writes a line of the script into the transcript.
    pub fn say(&mut self, line: &str) {
        self.world.record.push_str("\n# ");
        self.world.record.push_str(line);
        self.world.record.push('\n');
    }

    /// Starts a server on what its disk holds.
    pub fn start(&mut self, id: i64) {
        self.world.start(ServerId(id));
    }

    /// The process of a server dies; its files are as they were written.
    pub fn kill(&mut self, id: i64) {
        self.world.kill(ServerId(id));
    }

    /// Nothing that a server sends arrives any more.
    pub fn mute(&mut self, id: i64) {
        self.world
            .note(format_args!("n{id} can no longer be heard"));
        self.world.partition(&[ServerId(id)], true, false);
    }

    /// Everybody reaches everybody again.
    pub fn heal(&mut self) {
        self.world.note(format_args!("the network is whole again"));
        self.world.heal_network();
    }

    /// Lets so many virtual ms pass.
    pub fn run_ms(&mut self, ms: u64) {
        let end_us = self.world.now_us + ms * 1_000;
        self.world.run_until(end_us, |_| false);
    }

    /// The client asks a server to create a node, and does not wait for the answer. It connects first if
    /// it has to.
    ///
    /// # Panics
    /// If the server lets it have no session within ten virtual seconds.
    pub fn create(&mut self, id: i64, path: &str) {
        let end_us = self.world.now_us + 10_000_000;
        while self.world.clients[0]
            .connection
            .is_none_or(|at| at.server.0 != id)
            || !self.world.clients[0].is_attached()
        {
            assert!(self.world.now_us < end_us, "server {id} gives no session");
            if self.world.clients[0].connection.is_none() {
                self.world.connect_to(0, ServerId(id));
            } else if self.world.clients[0].is_attached() {
                self.world.drop_connection(0);
            }
            self.run_ms(10);
        }
        self.world
            .note(format_args!("c0 asks n{id} to create {path}"));
        let bytes = self.world.clients[0].create(path, 0);
        self.world.send_from(0, bytes);
    }

    /// The state of a server; `None` if it is down.
    #[must_use]
    pub fn state(&self, id: i64) -> Option<ServerState> {
        let server = self.world.servers.iter().find(|s| s.id.0 == id)?;
        Some(server.process.as_ref()?.peer.state())
    }

    /// Whether the tree of a server has a node.
    #[must_use]
    pub fn has(&self, id: i64, path: &str) -> bool {
        let server = self.world.servers.iter().find(|s| s.id.0 == id);
        server
            .and_then(|server| server.process.as_ref())
            .is_some_and(|process| process.zk.tree().read().node(path).is_some())
    }

    /// What happened, in order, with virtual times in ms.
    ///
    /// # Panics
    /// If a checker found something wrong.
    #[must_use]
    pub fn transcript(self) -> String {
        let violations = self.world.checks.violations();
        assert!(violations.is_empty(), "{violations:?}");
        self.world.record
    }
}

/// Virtual ms since the beginning of the run.
pub(super) fn since_start_ms(now_us: u64) -> f64 {
    (now_us - START_US) as f64 / 1_000.0
}

/// An event in words.
pub(super) fn describe(event: &PeerEvent) -> String {
    let zxid = |number: i64| Zxid(number);
    match event {
        PeerEvent::State { state, reason } => {
            format!("is {} ({reason})", format!("{state:?}").to_uppercase())
        }
        PeerEvent::Vote {
            round,
            leader,
            zxid: last,
            epoch,
        } if *leader > 0 => format!(
            "votes for {leader}: epoch {epoch}, zxid {}, round {round}",
            zxid(*last)
        ),
        PeerEvent::Vote { round, .. } => format!("has no vote, round {round}"),
        PeerEvent::Elected {
            leader,
            votes,
            early,
            ..
        } => {
            let why = if *early {
                "everybody within reach agrees"
            } else {
                "a quorum agrees"
            };
            format!("sees {leader} elected after {votes} notifications: {why}")
        }
        PeerEvent::EpochProposed { epoch } => format!("accepts epoch {epoch}"),
        PeerEvent::EpochEstablished { epoch } => format!("takes over epoch {epoch}"),
        PeerEvent::Sync {
            learner,
            mode,
            from,
            to,
        } => {
            let mode = format!("{mode:?}").to_uppercase();
            format!(
                "synchronizes {learner} by {mode} from {} to {}",
                zxid(*from),
                zxid(*to)
            )
        }
        PeerEvent::Established { epoch } => format!("sees epoch {epoch} established"),
        PeerEvent::Serving {
            state, zxid: last, ..
        } => {
            let state = format!("{state:?}").to_uppercase();
            format!("serves {state} from {}", zxid(*last))
        }
        PeerEvent::FirstCommit { zxid: first } => format!("commits {}, its first", zxid(*first)),
        PeerEvent::SteppedDown { state, reason } => {
            let state = format!("{state:?}").to_uppercase();
            format!("is no longer {state} ({reason})")
        }
        PeerEvent::NotServing { reason } => format!("serves no longer ({reason})"),
        event => format!("{event:?}"),
    }
}
