//! What sessions cost: many idle ones, many watchers of one znode, sessions that come and go.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use zkd::record::opcode::OpCode;

use super::engine::{Engine, Got};
use super::recorder::{Bucket, Recorder, Slice};
use super::run::{
    Edge, GREETINGS, Outcome, Plan, all_lost, nanos, one_by_one, open_one, open_patience,
    open_sessions, outcome, sync_all, too_few,
};
use super::work::{Maker, Work};
use crate::failure::{Exit, Failure};

/// How long the watchers may take to hear of one change.
const NEWS_PATIENCE_NS: u64 = 30_000_000_000;
/// How often sessions that are all open ask whether the measurement may begin.
const GATE_NS: u64 = 1_000_000;

/// Holds idle sessions that send a heartbeat every third of their timeout. An operation is a heartbeat; a session
/// that is lost, or an answer that takes longer than a third of the timeout, is one refused. The measurement begins
/// once all sessions are open and `may_begin` says so.
///
/// # Errors
/// If the sessions cannot be opened.
pub fn idle(
    plan: &Plan,
    may_begin: &dyn Fn() -> bool,
    at_edge: &mut dyn FnMut(Edge),
) -> Result<Outcome, Failure> {
    let mut hearts = Hearts::new(plan)?;
    hearts.beat(may_begin, at_edge)?;
    end_all(&mut hearts.engine)?;
    let lost = hearts.lost;
    Ok(outcome(plan, &mut hearts.recorder, lost))
}

/// As [`idle`], in one of several processes: with the histogram, so that those of all can be added.
///
/// # Errors
/// If the sessions cannot be opened.
pub fn idle_part(
    plan: &Plan,
    may_begin: &dyn Fn() -> bool,
    at_edge: &mut dyn FnMut(Edge),
) -> Result<Part, Failure> {
    let mut hearts = Hearts::new(plan)?;
    hearts.beat(may_begin, at_edge)?;
    end_all(&mut hearts.engine)?;
    let lost = hearts.lost;
    Ok(Part {
        buckets: hearts.recorder.buckets(),
        outcome: outcome(plan, &mut hearts.recorder, lost),
    })
}

/// What one of several processes measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    outcome: Outcome,
    buckets: Vec<Bucket>,
}

impl Part {
    /// What all of them measured together. Slices of time are added by their number: the processes begin together.
    #[must_use]
    pub fn sum(plan: &Plan, parts: &[Self]) -> Outcome {
        let mut recorder = Recorder::new(0, u64::MAX);
        let mut slices: Vec<Slice> = Vec::new();
        for part in parts {
            recorder.add(&part.buckets);
            recorder.done += part.outcome.ops;
            recorder.failed += part.outcome.failed;
            recorder.first_error = recorder.first_error.or(part.outcome.first_error);
            for (number, slice) in part.outcome.slices.iter().enumerate() {
                match slices.get_mut(number) {
                    None => slices.push(*slice),
                    Some(sum) => {
                        sum.rate += slice.rate;
                        sum.p50_us = sum.p50_us.max(slice.p50_us);
                        sum.p99_us = sum.p99_us.max(slice.p99_us);
                    }
                }
            }
        }
        recorder.slices = slices;
        let lost = parts.iter().map(|part| part.outcome.lost).sum();
        outcome(plan, &mut recorder, lost)
    }
}

/// Sessions that are opened one after the other and send heartbeats from then on.
struct Hearts<'p> {
    plan: &'p Plan,
    engine: Engine,
    recorder: Recorder,
    /// When which session is due, in order.
    due: VecDeque<(u64, usize)>,
    asked: usize,
    open: usize,
    lost: u64,
    third_ns: u64,
}

impl<'p> Hearts<'p> {
    fn new(plan: &'p Plan) -> Result<Self, Failure> {
        Ok(Self {
            plan,
            engine: Engine::new()?,
            // Nothing counts before the measurement begins.
            recorder: Recorder::new(u64::MAX, u64::MAX),
            due: VecDeque::new(),
            asked: 0,
            open: 0,
            lost: 0,
            third_ns: u64::MAX,
        })
    }

    fn beat(
        &mut self,
        may_begin: &dyn Fn() -> bool,
        at_edge: &mut dyn FnMut(Edge),
    ) -> Result<(), Failure> {
        let give_up_ns = self.engine.now_ns() + nanos(open_patience(self.plan.clients));
        let (mut is_ready, mut has_begun) = (false, false);
        let mut edges: Option<(u64, u64)> = None;
        loop {
            self.look();
            if self.lost > 0 && (!has_begun || self.lost == self.plan.clients as u64) {
                return Err(all_lost(&self.engine));
            }
            self.open_some()?;
            let now_ns = self.engine.now_ns();
            if !is_ready && self.open == self.plan.clients {
                is_ready = true;
                at_edge(Edge::Ready);
            }
            if !is_ready && now_ns > give_up_ns {
                return Err(too_few(self.open, self.plan.clients));
            }
            if is_ready && edges.is_none() && may_begin() {
                let from_ns = now_ns + nanos(self.plan.warm_up);
                let to_ns = from_ns + nanos(self.plan.length);
                edges = Some((from_ns, to_ns));
                self.recorder = Recorder::new(from_ns, to_ns);
            }
            if let Some((from_ns, to_ns)) = edges {
                if !has_begun && now_ns >= from_ns {
                    has_begun = true;
                    at_edge(Edge::Begin);
                }
                if now_ns >= to_ns {
                    at_edge(Edge::End);
                    return Ok(());
                }
            }
            self.ping_those_due(now_ns);
            let next = edges.map_or(now_ns + GATE_NS, |(from_ns, to_ns)| match has_begun {
                true => to_ns,
                false => from_ns,
            });
            let due = self.due.front().map_or(next, |(due_ns, _)| *due_ns);
            self.engine.poll(due.min(next))?;
        }
    }

    fn look(&mut self) {
        for arrival in std::mem::take(&mut self.engine.arrivals) {
            match arrival.got {
                Got::Session => {
                    self.open += 1;
                    self.third_ns = self.engine.timeout_ns(arrival.client).max(3) / 3;
                    let due_ns = arrival.at_ns + self.third_ns;
                    self.due.push_back((due_ns, arrival.client));
                }
                Got::Pong => {
                    let is_late = arrival.at_ns - arrival.sent_ns > self.third_ns;
                    self.recorder
                        .answer(arrival.sent_ns, arrival.at_ns, i32::from(is_late));
                }
                Got::Lost => self.lost += 1,
                Got::Answer(_) | Got::Event => {}
            }
        }
    }

    fn open_some(&mut self) -> Result<(), Failure> {
        while self.asked < self.plan.clients && self.asked - self.open < GREETINGS {
            open_one(&mut self.engine, self.plan, self.asked)?;
            self.asked += 1;
        }
        Ok(())
    }

    /// The latency counts from when a heartbeat was due.
    fn ping_those_due(&mut self, now_ns: u64) {
        while let Some((due_ns, client)) = self.due.front().copied() {
            if due_ns > now_ns {
                return;
            }
            self.due.pop_front();
            if self.engine.is_open(client) {
                self.engine.ping(client, due_ns);
                self.engine.flush(client);
                self.due.push_back((due_ns + self.third_ns, client));
            }
        }
    }
}

/// One znode, watched by every client; a change is made as soon as all have heard of the last one. An operation
/// is a watch event, from the change to its arrival.
///
/// # Errors
/// If a client does not hear of a change.
pub fn watchers(plan: &Plan, at_edge: &mut dyn FnMut(Edge)) -> Result<Outcome, Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let writer = engine.connect(plan.servers[0], None, plan.session_timeout)?;
    let root = plan.root();
    let maker = Maker::new(Work::Write, &root, 1, plan.size, plan.seed);
    one_by_one(&mut engine, "make the znode", |out| maker.put_root(out))?;
    sync_all(&mut engine, &maker)?;
    at_edge(Edge::Ready);
    let from_ns = engine.now_ns() + nanos(plan.warm_up);
    let to_ns = from_ns + nanos(plan.length);
    let mut recorder = Recorder::new(from_ns, to_ns);
    let mut has_begun = false;
    while engine.now_ns() < to_ns {
        for client in 0..plan.clients {
            engine.send(client, 0, |out| maker.put_watch(out));
            engine.flush(client);
        }
        await_all(&mut engine, plan.clients, Got::Answer(0), &mut |_| {})?;
        if !has_begun && engine.now_ns() >= from_ns {
            has_begun = true;
            at_edge(Edge::Begin);
        }
        let changed_ns = engine.now_ns();
        engine.send(writer, changed_ns, |out| maker.put_news(out));
        engine.flush(writer);
        await_all(&mut engine, plan.clients, Got::Event, &mut |at_ns| {
            recorder.answer(changed_ns, at_ns, 0);
        })?;
        // Its answer comes before or behind the events of its own server.
        while engine.waiting(writer) > 0 {
            engine.poll(changed_ns + NEWS_PATIENCE_NS)?;
        }
        engine.arrivals.clear();
    }
    at_edge(Edge::End);
    one_by_one(&mut engine, "delete the znode", |out| {
        Maker::new(Work::Write, &root, 1, 0, 0).put_delete(None, out);
    })?;
    end_all(&mut engine)?;
    Ok(outcome(plan, &mut recorder, 0))
}

/// Every client opens a session, makes an ephemeral znode and ends the session, over and over. An operation is
/// one such life, from the first packet to the last answer.
///
/// # Errors
/// If the servers take no sessions.
pub fn churn(plan: &Plan, at_edge: &mut dyn FnMut(Edge)) -> Result<Outcome, Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let root = plan.root();
    let mut maker = Maker::new(Work::Write, &root, 1, plan.size, plan.seed);
    one_by_one(&mut engine, "make the root", |out| maker.put_root(out))?;
    let from_ns = engine.now_ns() + nanos(plan.warm_up);
    let to_ns = from_ns + nanos(plan.length);
    let mut recorder = Recorder::new(from_ns, to_ns);
    let mut began_ns = vec![engine.now_ns(); plan.clients];
    let server = |client: usize| plan.servers[client % plan.servers.len()];
    let mut lost = 0;
    let mut has_begun = false;
    at_edge(Edge::Ready);
    for client in 0..plan.clients {
        engine.connect_again(client, server(client), plan.session_timeout)?;
    }
    while engine.now_ns() < to_ns {
        if !has_begun && engine.now_ns() >= from_ns {
            has_begun = true;
            at_edge(Edge::Begin);
        }
        engine.poll(if has_begun { to_ns } else { from_ns })?;
        for arrival in std::mem::take(&mut engine.arrivals) {
            let client = arrival.client;
            match arrival.got {
                Got::Session => {
                    engine.send(client, 1, |out| maker.put_ephemeral(client as u64, out));
                    engine.send(client, 2, close);
                    engine.flush(client);
                }
                // The answer to the close; the connection ends by itself after it.
                Got::Answer(err) if arrival.sent_ns == 2 => {
                    recorder.answer(began_ns[client], arrival.at_ns, err);
                    began_ns[client] = engine.now_ns();
                    engine.connect_again(client, server(client), plan.session_timeout)?;
                }
                Got::Lost => {
                    lost += 1;
                    began_ns[client] = engine.now_ns();
                    engine.connect_again(client, server(client), plan.session_timeout)?;
                }
                _ => {}
            }
        }
    }
    at_edge(Edge::End);
    Ok(outcome(plan, &mut recorder, lost))
}

/// Waits until so many of these have come; `each` gets the time of each.
fn await_all(
    engine: &mut Engine,
    count: usize,
    wanted: Got,
    each: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let give_up_ns = engine.now_ns() + NEWS_PATIENCE_NS;
    let mut have = 0;
    while have < count {
        engine.poll(give_up_ns)?;
        for arrival in std::mem::take(&mut engine.arrivals) {
            match arrival.got {
                Got::Lost => return Err(all_lost(engine)),
                got if got == wanted && arrival.client < count => {
                    each(arrival.at_ns);
                    have += 1;
                }
                _ => {}
            }
        }
        if engine.now_ns() >= give_up_ns {
            return Err(Failure::new(
                Exit::Missed,
                format!("only {have} of {count} clients were told ({wanted:?})"),
            ));
        }
    }
    Ok(())
}

/// Ends every session, so that none is left to expire.
pub(super) fn end_all(engine: &mut Engine) -> Result<(), Failure> {
    for client in 0..engine.len() {
        if engine.is_open(client) {
            engine.send(client, 0, close);
            engine.flush(client);
        }
    }
    let give_up_ns = engine.now_ns() + NEWS_PATIENCE_NS;
    while (0..engine.len()).any(|client| engine.is_open(client)) && engine.now_ns() < give_up_ns {
        engine.poll(give_up_ns)?;
        engine.arrivals.clear();
    }
    Ok(())
}

fn close(out: &mut Vec<u8>) {
    out.extend_from_slice(&OpCode::CloseSession.code().to_be_bytes());
}
