//! A room full of elections for tests: machines, a virtual network between them, and just enough of
//! a peer around each to see whether its decision holds.
//!
//! The network speaks encoded notifications, and reports refused dials and closed connections the way
//! the election port does. What comes after an election is modelled in a few lines: a learner joins
//! when its leader leads and can be reached; a leader reigns once a quorum joined; either looks again
//! when that does not come about.

use std::collections::{BTreeMap, BTreeSet};

use super::{Election, ElectionConfig, Input, Notification};
use crate::event::{PeerEvent, ServerState};
use crate::ids::{Epoch, ServerId, Zxid};
use crate::prng::Prng;
use crate::quorum::QuorumVerifier;
use crate::time::Instant;

/// How long a role may stay without its quorum or its leader, in virtual milliseconds.
const JOIN_BUDGET_MS: u64 = 2_000;

/// One server of the room.
pub(super) struct Server {
    pub(super) election: Election,
    pub(super) alive: bool,
    paused: bool,
    waiting: Vec<Input>,
    pub(super) zxid: Zxid,
    pub(super) epoch: Epoch,
    pub(super) role: Option<(ServerState, ServerId)>,
    pub(super) joined: bool,
    decided_at: Instant,
    /// When the end of its leader will have come to its notice.
    notices_at: Option<Instant>,
    pub(super) elections: u64,
}

struct Flight {
    at: Instant,
    sequence: u64,
    to: ServerId,
    what: Arrival,
}

enum Arrival {
    Message(ServerId, Vec<u8>),
    Reachable(ServerId),
    Unreachable(ServerId),
}

/// How the network treats messages.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    /// Longest delay of a message in milliseconds; 1 keeps everything in order.
    pub(super) delay_max_ms: u64,
    /// One message in this many is lost; 0 loses none.
    pub(super) loss_one_in: u64,
    /// One message in this many is delivered twice; 0 doubles none.
    pub(super) double_one_in: u64,
    /// Whether a message may overtake another between the same two servers (as over two connections,
    /// one of which replaces the other).
    pub(super) overtakes: bool,
}

pub(super) const FAIR: Weather = Weather {
    delay_max_ms: 1,
    loss_one_in: 0,
    double_one_in: 0,
    overtakes: false,
};

pub(super) struct Room {
    pub(super) servers: BTreeMap<ServerId, Server>,
    verifier: QuorumVerifier,
    pub(super) now: Instant,
    pub(super) weather: Weather,
    prng: Prng,
    flights: Vec<Flight>,
    sequence: u64,
    /// When the last message from one server to another arrives.
    last_arrival: BTreeMap<(ServerId, ServerId), Instant>,
    cuts: BTreeSet<(ServerId, ServerId)>,
    pub(super) log: Vec<String>,
    pub(super) log_messages: bool,
    pub(super) messages: u64,
}

impl Room {
    pub(super) fn new(verifier: QuorumVerifier, seed: u64) -> Self {
        Self {
            servers: BTreeMap::new(),
            verifier,
            now: Instant(0),
            weather: FAIR,
            prng: Prng::new(seed),
            flights: Vec::new(),
            sequence: 0,
            last_arrival: BTreeMap::new(),
            cuts: BTreeSet::new(),
            log: Vec::new(),
            log_messages: false,
            messages: 0,
        }
    }

    fn say(&mut self, text: impl AsRef<str>) {
        self.log
            .push(format!("{:>5} ms  {}", self.now.0, text.as_ref()));
    }

    // ---- what a test does ----

    pub(super) fn start(&mut self, sid: ServerId, zxid: Zxid, epoch: Epoch) {
        let config = ElectionConfig::new(sid, self.verifier.clone(), "version=0".into());
        self.servers.insert(
            sid,
            Server {
                election: Election::new(config),
                alive: true,
                paused: false,
                waiting: Vec::new(),
                zxid,
                epoch,
                role: None,
                joined: false,
                decided_at: self.now,
                notices_at: None,
                elections: 0,
            },
        );
        self.look(sid, "starts");
        self.settle_roles();
    }

    pub(super) fn kill(&mut self, sid: ServerId) {
        self.servers.get_mut(&sid).expect("a known server").alive = false;
        self.say(format!("{sid} dies"));
        let others: Vec<ServerId> = self.alive().filter(|&other| other != sid).collect();
        for other in others {
            if !self.is_cut(sid, other) {
                self.fly(1, other, Arrival::Unreachable(sid));
            }
        }
        self.settle_roles();
    }

    pub(super) fn pause(&mut self, sid: ServerId) {
        self.servers.get_mut(&sid).expect("a known server").paused = true;
        self.say(format!("{sid} is paused"));
    }

    pub(super) fn resume(&mut self, sid: ServerId) {
        self.say(format!("{sid} resumes"));
        let server = self.servers.get_mut(&sid).expect("a known server");
        server.paused = false;
        let waiting = std::mem::take(&mut server.waiting);
        for input in waiting {
            self.step(sid, input);
        }
        self.settle_roles();
    }

    /// Packets between the two vanish from now on, without anybody being told.
    pub(super) fn cut(&mut self, a: ServerId, b: ServerId) {
        self.cuts.insert((a.min(b), a.max(b)));
        self.say(format!("the link {a} - {b} is cut"));
        self.settle_roles();
    }

    pub(super) fn heal(&mut self, a: ServerId, b: ServerId) {
        self.cuts.remove(&(a.min(b), a.max(b)));
        self.say(format!("the link {a} - {b} is whole again"));
        // The connection was never closed: TCP delivers what was sent last.
        for (from, to) in [(a, b), (b, a)] {
            let Some(server) = self.servers.get(&from).filter(|server| server.alive) else {
                continue;
            };
            if server.election.state() == ServerState::Looking {
                let vote = server.election.vote();
                let again = Notification::new(ServerState::Looking, vote, "version=0".into());
                self.send(from, to, &again);
            }
        }
    }

    /// A message made by hand.
    pub(super) fn forge(&mut self, from: ServerId, to: ServerId, payload: Vec<u8>) {
        self.deliver(to, Arrival::Message(from, payload));
        self.settle_roles();
    }

    /// Lets `ms` of virtual time pass.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let timers = self
                .servers
                .values()
                .filter(|server| server.alive && !server.paused)
                .filter_map(|server| {
                    let give_up = server.decided_at + JOIN_BUDGET_MS;
                    let join = (server.role.is_some() && !server.joined).then_some(give_up);
                    let timer = server.election.poll_timeout();
                    timer.into_iter().chain(join).chain(server.notices_at).min()
                });
            let flights = self.flights.iter().map(|flight| flight.at);
            let Some(next) = timers.chain(flights).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.land();
            let due: Vec<ServerId> = self
                .servers
                .iter()
                .filter(|(_, server)| {
                    server.alive
                        && !server.paused
                        && server
                            .election
                            .poll_timeout()
                            .is_some_and(|at| at <= self.now)
                })
                .map(|(&sid, _)| sid)
                .collect();
            for sid in due {
                self.step(sid, Input::Timeout);
            }
            self.settle_roles();
        }
        self.now = end;
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = ServerId> {
        self.servers
            .iter()
            .filter(|(_, server)| server.alive)
            .map(|(&sid, _)| sid)
    }

    /// The leader that a quorum joined, if every living server is its learner.
    pub(super) fn agreed(&self) -> Option<ServerId> {
        let mut leaders = self.servers.values().filter(|s| s.alive).map(|server| {
            server
                .role
                .filter(|_| server.joined)
                .map(|(_, leader)| leader)
        });
        let first = leaders.next()??;
        leaders.all(|leader| leader == Some(first)).then_some(first)
    }

    // ---- the network ----

    fn is_cut(&self, a: ServerId, b: ServerId) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    fn fly(&mut self, delay_ms: u64, to: ServerId, what: Arrival) {
        self.sequence += 1;
        self.flights.push(Flight {
            at: self.now + delay_ms,
            sequence: self.sequence,
            to,
            what,
        });
    }

    fn send(&mut self, from: ServerId, to: ServerId, notification: &Notification) {
        self.messages += 1;
        if self.log_messages {
            let vote = notification.vote;
            let state = notification.state;
            self.say(format!(
                "{from} -> {to}: {state:?} ({}, {}, round {}, epoch {})",
                vote.leader, vote.zxid, vote.election_epoch, vote.peer_epoch
            ));
        }
        if self.is_cut(from, to) {
            return;
        }
        if !self.servers.get(&to).is_some_and(|server| server.alive) {
            self.fly(1, from, Arrival::Unreachable(to));
            return;
        }
        self.fly(1, from, Arrival::Reachable(to));
        let weather = self.weather;
        let chance = |prng: &mut Prng, one_in: u64| one_in > 0 && prng.one_in(one_in);
        if chance(&mut self.prng, weather.loss_one_in) {
            return;
        }
        let copies = 1 + u64::from(chance(&mut self.prng, weather.double_one_in));
        for _ in 0..copies {
            let mut at = self.now + self.prng.between(1, weather.delay_max_ms);
            let last = self.last_arrival.entry((from, to)).or_insert(at);
            if !weather.overtakes {
                at = at.max(*last);
            }
            *last = at;
            self.fly(
                at - self.now,
                to,
                Arrival::Message(from, notification.encode()),
            );
        }
    }

    fn land(&mut self) {
        let (mut due, rest): (Vec<Flight>, Vec<Flight>) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|flight| flight.at <= self.now);
        self.flights = rest;
        due.sort_by_key(|flight| (flight.at, flight.sequence));
        for flight in due {
            self.deliver(flight.to, flight.what);
        }
    }

    fn deliver(&mut self, to: ServerId, what: Arrival) {
        let input = match what {
            Arrival::Message(from, payload) => match Notification::decode(&payload) {
                Ok(notification) => Input::Notification { from, notification },
                Err(e) => {
                    self.say(format!("{to} skips a notification of {from}: {e}"));
                    return;
                }
            },
            Arrival::Reachable(sid) => Input::Reachable(sid),
            Arrival::Unreachable(sid) => Input::Unreachable(sid),
        };
        match self.servers.get_mut(&to) {
            Some(server) if server.alive && server.paused => server.waiting.push(input),
            Some(server) if server.alive => self.step(to, input),
            _ => {}
        }
    }

    fn step(&mut self, sid: ServerId, input: Input) {
        let now = self.now;
        let server = self.servers.get_mut(&sid).expect("a known server");
        server.election.step(now, input);
        self.drain(sid);
    }

    fn drain(&mut self, sid: ServerId) {
        let server = self.servers.get_mut(&sid).expect("a known server");
        let ready = server.election.ready();
        if let Some((state, vote)) = ready.decided {
            server.role = Some((state, vote.leader));
            server.joined = false;
            server.decided_at = self.now;
        }
        for event in ready.events {
            match event {
                PeerEvent::Vote {
                    round,
                    leader,
                    zxid,
                    ..
                } => {
                    let whom = if leader == i64::MIN {
                        "nobody".into()
                    } else {
                        format!("{leader} ({})", Zxid(zxid))
                    };
                    self.say(format!("{sid} votes for {whom} in round {round}"));
                }
                PeerEvent::Elected { leader, early, .. } => {
                    let state = self.servers[&sid].election.state();
                    let how = if early { "" } else { " after the full wait" };
                    self.say(format!("{sid} {state:?} {leader}{how}"));
                }
                _ => {}
            }
        }
        for (to, notification) in ready.send {
            self.send(sid, to, &notification);
        }
    }

    // ---- what becomes of a decision ----

    fn look(&mut self, sid: ServerId, why: &str) {
        self.say(format!("{sid} {why}, LOOKING"));
        let now = self.now;
        let server = self.servers.get_mut(&sid).expect("a known server");
        server.role = None;
        server.joined = false;
        server.notices_at = None;
        server.elections += 1;
        server.election.look(now, server.zxid, server.epoch);
        self.drain(sid);
    }

    fn settle_roles(&mut self) {
        while self.settle_one() {}
    }

    fn learners(&self, leader: ServerId) -> BTreeSet<ServerId> {
        self.servers
            .iter()
            .filter(|(_, s)| s.alive && s.joined && s.role.is_some_and(|(_, whom)| whom == leader))
            .map(|(&sid, _)| sid)
            .filter(|&sid| sid != leader)
            .collect()
    }

    /// Lets one server enter, or lose, what its decision promised.
    fn settle_one(&mut self) -> bool {
        let sids: Vec<ServerId> = self.alive().collect();
        for sid in sids {
            let server = &self.servers[&sid];
            let Some((state, leader)) = server.role.filter(|_| !server.paused) else {
                continue;
            };
            let late = self.now >= server.decided_at + JOIN_BUDGET_MS;
            if state == ServerState::Leading {
                let learners = self.learners(sid);
                let mut with_me = learners.clone();
                with_me.insert(sid);
                let quorum = self.verifier.contains_quorum(&with_me);
                if quorum && !server.joined {
                    self.reign(sid);
                    return true;
                }
                let hopeless = server.election.quorum_is_gone(&learners) || late;
                if !quorum && (server.joined || hopeless) {
                    self.look(sid, "has no quorum to lead");
                    return true;
                }
                continue;
            }
            let leads = self.servers.get(&leader).is_some_and(|other| {
                other.alive
                    && other
                        .role
                        .is_some_and(|(state, _)| state == ServerState::Leading)
            }) && !self.is_cut(sid, leader);
            if leads && !server.joined {
                let (zxid, epoch) = (self.servers[&leader].zxid, self.servers[&leader].epoch);
                let server = self.servers.get_mut(&sid).expect("a living server");
                server.joined = true;
                server.zxid = zxid;
                if self.servers[&leader].joined {
                    self.enter_epoch(sid, epoch);
                }
                return true;
            }
            if leads && server.notices_at.is_some() {
                self.servers
                    .get_mut(&sid)
                    .expect("a living server")
                    .notices_at = None;
                return true;
            }
            if !leads && server.joined {
                let Some(at) = server.notices_at else {
                    let at = self.now + self.prng.below(self.weather.delay_max_ms);
                    self.servers
                        .get_mut(&sid)
                        .expect("a living server")
                        .notices_at = Some(at);
                    return true;
                };
                if self.now >= at {
                    self.look(sid, "has lost its leader");
                    return true;
                }
            } else if !leads && (late || server.election.leader_is_gone()) {
                self.look(sid, "has no leader to follow");
                return true;
            }
        }
        false
    }

    fn reign(&mut self, leader: ServerId) {
        let learners = self.learners(leader);
        let epoch = learners
            .iter()
            .chain([&leader])
            .map(|sid| self.servers[sid].epoch)
            .max()
            .expect("the leader is there")
            .next();
        self.servers
            .get_mut(&leader)
            .expect("a living server")
            .joined = true;
        self.say(format!("{leader} reigns, epoch {epoch}"));
        for sid in learners.into_iter().chain([leader]) {
            self.enter_epoch(sid, epoch);
        }
    }

    fn enter_epoch(&mut self, sid: ServerId, epoch: Epoch) {
        let server = self.servers.get_mut(&sid).expect("a living server");
        server.epoch = epoch;
        server.election.set_peer_epoch(epoch);
    }
}
