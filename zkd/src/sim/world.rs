//! The world of one run: the queue of events, and everything they happen to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use super::check::Checks;
use super::client::Client;
use super::faults::{self, Fault};
use super::network::{End, Network};
use super::server::{self, SimServer};
use crate::config::Membership;
use crate::event::PeerEvent;
use crate::ids::{ConnId, Epoch, LinkId, ServerId};
use crate::peer::{Input, QuorumPeer};
use crate::prng::Prng;
use crate::time::{Instant, Now};

/// A bug planted on purpose, to see that the checkers find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// None: the servers as they are.
    None,
    /// What must wait for the sync leaves before it.
    AckBeforeSync,
    /// The log is written and never synced.
    NoSync,
    /// Two servers of more than three count as a quorum.
    QuorumTooSmall,
    /// The promise not to follow an older leader is not stored.
    ForgetAcceptedEpoch,
}

/// What a run is to look like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Fixes everything else.
    pub seed: u64,
    /// The planted bug.
    pub mutation: Mutation,
    /// How long things go wrong, virtual ms.
    pub trouble_ms: u64,
}

impl Plan {
    /// A run of the usual length without a planted bug.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            mutation: Mutation::None,
            trouble_ms: 60_000,
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What the checkers saw.
    pub checks: Checks,
    /// Servers, of which so many observe.
    pub servers: (u64, u64),
    /// Faults that were injected.
    pub faults: usize,
    /// The record of the run's events, one a line.
    pub record: String,
}

pub(super) enum Event {
    Timer(ServerId, u64),
    Storage(ServerId, u64),
    Snapshot(ServerId, u64),
    Election {
        to: ServerId,
        from: ServerId,
        bytes: Vec<u8>,
    },
    Unreachable {
        at: ServerId,
        peer: ServerId,
    },
    Dial {
        from: End,
        incarnation: u64,
        leader: ServerId,
        give_up_us: u64,
    },
    LinkBytes(End),
    LinkEnded {
        at: End,
        incarnation: u64,
    },
    ToServer {
        client: usize,
        serial: u64,
        bytes: Vec<u8>,
    },
    ToClient {
        client: usize,
        serial: u64,
        bytes: Vec<u8>,
    },
    ClientCut {
        client: usize,
        serial: u64,
    },
    ClientTurn(usize),
    Fault,
    Start(ServerId),
    Resume(ServerId, u64),
}

/// The world of one run.
pub struct World {
    pub(super) plan: Plan,
    pub(super) prng: Prng,
    pub(super) now_us: u64,
    pub(super) servers: Vec<SimServer>,
    pub(super) clients: Vec<Client>,
    pub(super) network: Network,
    pub(super) members: Membership,
    pub(super) checks: Checks,
    pub(super) record: String,
    /// Trouble is over: nothing goes wrong any more.
    pub(super) healing: bool,
    /// Clients end their sessions and come no more.
    pub(super) parting: bool,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: std::collections::BTreeMap<u64, Event>,
    next_event: u64,
    next_conn: u64,
    voters: u64,
    observers: u64,
    faults: usize,
}

/// After the trouble, the ensemble must come together within this time.
const HEAL_LIMIT_MS: u64 = 120_000;
/// Clients go on this long after everything is healed.
const CALM_MS: u64 = 15_000;

impl World {
    /// The world of a seed, before anything has happened.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut prng = Prng::new(plan.seed);
        let voters = *prng.pick(&[3, 3, 5]);
        let observers = *prng.pick(&[0, 0, 1]);
        let members = server::membership(voters, observers);
        let servers = (1..=voters + observers)
            .map(|id| SimServer {
                id: ServerId(id.cast_signed()),
                disk: super::FaultyDisk::default(),
                process: None,
                incarnation: 0,
                paused: false,
            })
            .collect();
        let count = usize::try_from(prng.between(2, 5)).expect("a handful");
        let clients = (0..count)
            .map(|number| Client::new(number, prng.fork()))
            .collect();
        let network = Network::new(prng.fork());
        Self {
            plan,
            prng,
            now_us: 1_000_000,
            servers,
            clients,
            network,
            members,
            checks: Checks::default(),
            record: String::new(),
            healing: false,
            parting: false,
            queue: BinaryHeap::new(),
            events: std::collections::BTreeMap::new(),
            next_event: 0,
            next_conn: 0,
            voters,
            observers,
            faults: 0,
        }
    }

    /// Runs to the end: trouble, healing, calm, judgement. Stops early at the first violation.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        for index in 0..self.servers.len() {
            let at = self.prng.below(300_000);
            self.after(at, Event::Start(self.servers[index].id));
        }
        for client in 0..self.clients.len() {
            let at = self.prng.below(1_000_000);
            self.after(at, Event::ClientTurn(client));
        }
        self.after(2_000_000, Event::Fault);
        let end_of_trouble = self.now_us + self.plan.trouble_ms * 1000;
        self.run_until(end_of_trouble, |_| false);
        self.heal_everything();
        let end_of_calm = self.now_us + CALM_MS * 1000;
        self.run_until(end_of_calm, |_| false);
        self.parting = true;
        let limit = self.now_us + HEAL_LIMIT_MS * 1000;
        let together = self.run_until(limit, Self::is_together);
        self.judge(together);
        Outcome {
            seed: self.plan.seed,
            checks: self.checks,
            servers: (self.voters + self.observers, self.observers),
            faults: self.faults,
            record: self.record,
        }
    }

    /// Handles events until `end_us` or until `enough`; says whether it was enough.
    fn run_until(&mut self, end_us: u64, enough: impl Fn(&Self) -> bool) -> bool {
        while self.checks.violations().is_empty() {
            if enough(self) {
                return true;
            }
            let Some(Reverse((at, id))) = self.queue.pop() else {
                return false;
            };
            if at > end_us {
                self.queue.push(Reverse((at, id)));
                self.now_us = self.now_us.max(end_us);
                return false;
            }
            self.now_us = self.now_us.max(at);
            let event = self
                .events
                .remove(&id)
                .expect("a queued event is stored until its time");
            self.handle(event);
        }
        false
    }

    /// Everybody serves and has applied the same.
    fn is_together(&self) -> bool {
        let mut zxids = self.servers.iter().map(|server| {
            let process = server.process.as_ref()?;
            let serving = process.zk.is_serving() && process.in_flight.is_empty();
            serving.then(|| process.zk.tree().read().last_processed_zxid())
        });
        let Some(Some(first)) = zxids.next() else {
            return false;
        };
        zxids.all(|zxid| zxid == Some(first))
            && self
                .clients
                .iter()
                .all(|client| client.connection.is_none())
    }

    fn judge(&mut self, together: bool) {
        if !self.checks.violations().is_empty() {
            return;
        }
        if !together {
            let states: Vec<_> = self
                .servers
                .iter()
                .map(|s| {
                    let state = s.process.as_ref().map(|p| {
                        (
                            p.peer.state(),
                            p.peer.zab_state(),
                            p.zk.tree().read().last_processed_zxid(),
                        )
                    });
                    (s.id, state)
                })
                .collect();
            self.checks.on_client_violation(super::Violation {
                rule: "Liveness",
                evidence: format!("healed for {HEAL_LIMIT_MS} ms and not together: {states:?}"),
            });
            return;
        }
        let trees: Vec<_> = self
            .servers
            .iter()
            .filter_map(|server| Some((server.id, server.process.as_ref()?.zk.tree().read())))
            .collect();
        let trees: Vec<_> = trees.iter().map(|(id, tree)| (*id, &**tree)).collect();
        self.checks.finish(&trees);
    }

    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }

    pub(super) fn at(&mut self, at_us: u64, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.insert(id, event);
        self.queue.push(Reverse((at_us.max(self.now_us), id)));
    }

    pub(super) fn now(&self) -> Now {
        Now {
            instant: Instant(self.now_us / 1000),
            wall_ms: 1_700_000_000_000 + (self.now_us / 1000).cast_signed(),
        }
    }

    /// Notes an event of the run, for whoever reads the record of a failed seed.
    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.record, "{:>12.3} {what}", self.now_us as f64 / 1000.0);
    }

    pub(super) fn server(&mut self, id: ServerId) -> &mut SimServer {
        self.servers
            .iter_mut()
            .find(|server| server.id == id)
            .expect("events name servers that exist")
    }

    pub(super) fn is_up(&self, id: ServerId) -> bool {
        self.servers
            .iter()
            .any(|server| server.id == id && server.process.is_some())
    }

    pub(super) fn fresh_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(id) => self.start(id),
            Event::Resume(id, incarnation) => self.resume(id, incarnation),
            Event::Fault => self.on_fault(),
            Event::ClientTurn(client) => self.client_turn(client),
            Event::ToServer {
                client,
                serial,
                bytes,
            } => self.to_server(client, serial, &bytes),
            Event::ToClient {
                client,
                serial,
                bytes,
            } => self.to_client(client, serial, &bytes),
            Event::ClientCut { client, serial } => self.client_cut(client, serial),
            event => self.handle_server(event),
        }
    }

    fn on_fault(&mut self) {
        if self.healing {
            return;
        }
        let pause_us = self.prng.between(200_000, 6_000_000);
        self.after(pause_us, Event::Fault);
        let ids: Vec<_> = self.servers.iter().map(|server| server.id).collect();
        let leader = self
            .servers
            .iter()
            .find(|s| {
                s.process
                    .as_ref()
                    .is_some_and(|p| p.peer.leading().is_some())
            })
            .map(|s| s.id);
        let fault = faults::draw(&mut self.prng, &ids, leader);
        self.note(format_args!("fault {fault:?}"));
        self.faults += 1;
        self.inject(fault);
    }

    fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::PowerCut(group) => {
                for id in group {
                    self.power_cut(id);
                }
            }
            Fault::Kill(id) => self.kill(id),
            Fault::Pause(id) => {
                let server = self.server(id);
                server.paused = true;
                let incarnation = server.incarnation;
                let pause_us = self.prng.between(10_000, 9_000_000);
                self.after(pause_us, Event::Resume(id, incarnation));
            }
            Fault::Partition { group, one_way } => self.partition(&group, one_way),
            Fault::FailSync(id) => {
                let n = self.prng.below(20);
                self.server(id).disk.fail_sync_in(n);
            }
            Fault::FillDisk(id) => {
                let bytes = usize::try_from(self.prng.below(40_000)).expect("a small number");
                self.server(id).disk.fill_up_after(bytes);
            }
            Fault::CutClients(id) => self.cut_clients_of(id),
            Fault::Heal => self.heal_network(),
        }
    }

    fn partition(&mut self, group: &[ServerId], one_way: bool) {
        let others: Vec<_> = self
            .servers
            .iter()
            .map(|s| s.id)
            .filter(|id| !group.contains(id))
            .collect();
        for &inside in group {
            for &outside in &others {
                self.network.cut(inside, outside);
                if !one_way {
                    self.network.cut(outside, inside);
                }
            }
        }
    }

    pub(super) fn heal_network(&mut self) {
        for end in self.network.heal() {
            self.end_link(end);
        }
        // Bytes that waited for the heal are on their way again.
        let ends: Vec<_> = self
            .servers
            .iter()
            .flat_map(|s| self.network.ends_of(s.id))
            .collect();
        for end in ends {
            self.after(1_000, Event::LinkBytes(end));
        }
    }

    fn heal_everything(&mut self) {
        self.healing = true;
        self.note(format_args!("everything heals"));
        self.heal_network();
        for index in 0..self.servers.len() {
            let (id, incarnation) = (self.servers[index].id, self.servers[index].incarnation);
            self.servers[index].disk.process_died();
            if self.servers[index].process.is_none() {
                self.after(10_000, Event::Start(id));
            } else {
                self.after(1_000, Event::Resume(id, incarnation));
            }
        }
    }

    /// Tells the checkers of what a server says of itself.
    pub(super) fn on_event(&mut self, id: ServerId, event: &PeerEvent) {
        self.note(format_args!("n{id} {event:?}"));
        if let PeerEvent::Established { epoch } = event
            && self.servers.iter().any(|s| {
                s.id == id
                    && s.process
                        .as_ref()
                        .map(|p| &p.peer)
                        .is_some_and(|p: &QuorumPeer| p.leading().is_some())
            })
        {
            self.checks.on_established(id, Epoch(*epoch));
        }
    }

    /// Steps a server's peer; what follows from it is carried out.
    pub(super) fn step(&mut self, id: ServerId, input: Input) {
        let now = self.now();
        if let Some(process) = &mut self.server(id).process {
            process.peer.step(now, input);
            self.carry_out(id);
        }
    }

    /// The id an accepting server gives a link.
    pub(super) fn fresh_link(&mut self, id: ServerId) -> Option<LinkId> {
        let process = self.server(id).process.as_mut()?;
        process.next_link += 1;
        Some(LinkId(process.next_link))
    }
}
