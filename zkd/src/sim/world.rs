//! The world of one run: the queue of events, and everything they happen to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use super::check::Checks;
use super::client::{Client, Connection};
use super::coverage::Coverage;
use super::faults::{self, Fault};
use super::mutation::Mutation;
use super::network::{End, Network};
use super::server::{self, SimServer};
use super::stage;
use crate::config::Membership;
use crate::event::PeerEvent;
use crate::ids::{ConnId, Epoch, LinkId, ServerId};
use crate::peer::Input;
use crate::prng::Prng;
use crate::time::{Instant, Now};

/// What a run is to look like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Fixes everything else.
    pub seed: u64,
    /// The planted bug.
    pub mutation: Mutation,
    /// How long things go wrong, virtual ms.
    pub trouble_ms: u64,
    /// Nothing happens but what a [`Stage`](super::Stage) is told.
    pub(super) scripted: bool,
}

impl Plan {
    /// A run of the usual length without a planted bug.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            mutation: Mutation::None,
            trouble_ms: 60_000,
            scripted: false,
        }
    }

    /// The same run with a bug planted.
    #[must_use]
    pub fn with_bug(self, mutation: Mutation) -> Self {
        Self { mutation, ..self }
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
    /// What the run went through.
    pub coverage: Coverage,
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
    SnapshotSent {
        at: End,
        incarnation: u64,
    },
    ToServer {
        at: Connection,
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
    /// Its power fails, if it is up by then.
    Strike(ServerId),
    /// All power fails, and so many times again.
    Blackout(u64),
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
}

/// When a run begins, on its own clock, µs.
pub(super) const START_US: u64 = 1_000_000;
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
        let count = usize::try_from(prng.between(2, 6)).expect("a handful");
        let network = Network::new(prng.fork());
        Self::with(plan, prng, (voters, observers), count, network)
    }

    /// A world of so many voters and observers, and so many clients.
    pub(super) fn with(
        plan: Plan,
        mut prng: Prng,
        (voters, observers): (u64, u64),
        clients: usize,
        network: Network,
    ) -> Self {
        let members = server::membership(voters, observers);
        let servers: Vec<_> = (1..=voters + observers)
            .map(|id| SimServer::new(ServerId(id.cast_signed())))
            .collect();
        if plan.mutation == Mutation::NoDirectorySync {
            for server in &servers {
                server.disk.forget_directory_syncs();
            }
        }
        let clients = (0..clients)
            .map(|number| Client::new(number, prng.fork()))
            .collect();
        Self {
            plan,
            prng,
            now_us: START_US,
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
            coverage: self.checks.coverage(),
            checks: self.checks,
            servers: (self.voters + self.observers, self.observers),
            record: self.record,
        }
    }

    /// Handles events until `end_us` or until `enough`; says whether it was enough.
    pub(super) fn run_until(&mut self, end_us: u64, enough: impl Fn(&Self) -> bool) -> bool {
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
        let _ = writeln!(
            self.record,
            "{:>12.3} {what}",
            stage::since_start_ms(self.now_us)
        );
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
            Event::Strike(id) => {
                if !self.healing {
                    self.power_cut(id);
                }
            }
            Event::Blackout(again) => self.blackout(again),
            Event::ToServer { at, bytes } => self.bytes_for_server(at, &bytes),
            Event::ToClient {
                client,
                serial,
                bytes,
            } => self.bytes_for_client(client, serial, &bytes),
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
        let leader = self.leader();
        let voters = usize::try_from(self.voters).expect("a handful");
        let observers = &ids[voters..];
        let fault = faults::draw(&mut self.prng, &ids, observers, leader);
        self.note(format_args!("fault {fault:?}"));
        self.checks.coverage.faults += 1;
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
            Fault::Partition {
                group,
                outwards,
                inwards,
            } => self.partition(&group, outwards, inwards),
            Fault::Split(parts) => {
                for part in parts {
                    self.partition(&part, true, true);
                }
            }
            Fault::Blackouts(times) => self.blackout(times),
            Fault::FailSync(id) => {
                let n = self.prng.below(20);
                self.server(id).disk.fail_sync_in(n);
            }
            Fault::FillDisk(id) => {
                let bytes = usize::try_from(self.prng.below(40_000)).expect("a small number");
                self.server(id).disk.fill_up_after(bytes);
            }
            Fault::SlowDisk(id) => {
                let end = self.now_us + self.prng.between(1_000_000, 12_000_000);
                self.server(id).slow_until_us = end;
            }
            Fault::CutClients(group) => {
                for id in group {
                    self.cut_clients_of(id);
                }
            }
            Fault::Heal => self.heal_network(),
        }
    }

    /// The power of everybody fails; soon it is back, and fails again while they come together.
    fn blackout(&mut self, times: u64) {
        if self.healing {
            return;
        }
        let ids: Vec<_> = self.servers.iter().map(|s| s.id).collect();
        for id in ids {
            self.power_cut(id);
            let dark_us = self.prng.between(1_000, 300_000);
            self.after(dark_us, Event::Start(id));
        }
        if times > 1 {
            let light_us = self.prng.between(100_000, 2_000_000);
            self.after(light_us, Event::Blackout(times - 1));
        }
    }

    pub(super) fn partition(&mut self, group: &[ServerId], outwards: bool, inwards: bool) {
        let others: Vec<_> = self
            .servers
            .iter()
            .map(|s| s.id)
            .filter(|id| !group.contains(id))
            .collect();
        for &inside in group {
            for &outside in &others {
                if outwards {
                    self.network.cut(inside, outside);
                }
                if inwards {
                    self.network.cut(outside, inside);
                }
            }
        }
    }

    pub(super) fn heal_network(&mut self) {
        for end in self.network.heal() {
            self.end_link(end);
        }
        for ((from, to), bytes) in self.network.release() {
            self.post_election(from, to, bytes);
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
        self.network.settle();
        self.note(format_args!("everything heals"));
        self.heal_network();
        for index in 0..self.servers.len() {
            self.servers[index].slow_until_us = 0;
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
        self.note(format_args!("n{id} {}", stage::describe(event)));
        self.checks.coverage.on_event(id.0, event);
        if let PeerEvent::Established { epoch } = event
            && let Some(process) = &self.server(id).process
            && process.peer.leading().is_some()
        {
            let zk = std::sync::Arc::clone(&process.zk);
            let tree = zk.tree().read();
            let (zxid, digest) = (tree.last_processed_zxid(), tree.digest());
            self.checks.on_established(id, Epoch(*epoch), zxid, digest);
        }
        self.strike(id, event);
    }

    /// Trouble likes the moments when a reign begins.
    fn strike(&mut self, id: ServerId, event: &PeerEvent) {
        let delicate = matches!(
            event,
            PeerEvent::Sync { .. }
                | PeerEvent::EpochProposed { .. }
                | PeerEvent::EpochEstablished { .. }
                | PeerEvent::Established { .. }
        );
        if delicate && !self.healing && !self.plan.scripted && self.prng.one_in(25) {
            let mut victims = vec![id];
            victims.extend(self.leader().filter(|_| self.prng.one_in(2)));
            for victim in victims {
                let delay = self.prng.between(0, 40_000);
                self.after(delay, Event::Strike(victim));
            }
        }
    }

    /// Somebody who thinks to lead.
    pub(super) fn leader(&self) -> Option<ServerId> {
        let leads = |s: &&SimServer| {
            let process = s.process.as_ref();
            process.is_some_and(|p| p.peer.leading().is_some())
        };
        self.servers.iter().find(leads).map(|s| s.id)
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
