//! Clients that have nothing to do with what is measured, and live through it: a few reads, writes and heartbeats on
//! every server, each due at its time. They show what a heavy request does to everybody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Got};
use super::recorder::{Latency, Recorder};
use super::run::{Plan, all_lost, many, nanos, one_by_one, open_sessions, sync_all};
use super::sessions::end_all;
use super::work::{Maker, Work};
use crate::failure::Failure;

/// Sessions on every server, dealt out to them in turn: one reads, one writes, one only lives.
const ROLES: usize = 3;
/// Between two requests of one session.
const EVERY_NS: u64 = 20_000_000;
/// The session timeout they ask for: the shortest that Apache grants with its usual tick.
const SESSION: Duration = Duration::from_secs(4);
/// How long the last answers may take.
const LAST_PATIENCE: Duration = Duration::from_secs(30);
/// The znodes they use.
const KEYS: u64 = 100;

const WAITING: u8 = 0;
const RECORDING: u8 = 1;
const ENOUGH: u8 = 2;
const OVER: u8 = 3;

/// What the bystanders lived through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Their reads.
    pub reads: Latency,
    /// Their writes.
    pub writes: Latency,
    /// Heartbeats they sent.
    pub heartbeats: u64,
    /// Of them, those whose answer took longer than the time between two of them.
    pub late: u64,
    /// Sessions or connections that were lost, and operations that were refused.
    pub lost: u64,
}

/// A thread with clients of its own.
#[derive(Debug)]
pub struct Bystanders {
    state: Arc<AtomicU8>,
    thread: JoinHandle<Result<Seen, Failure>>,
}

impl Bystanders {
    /// Opens their sessions, on every one of these servers.
    ///
    /// # Errors
    /// If the servers take no sessions or no writes.
    pub fn start(servers: &[SocketAddr]) -> Result<Self, Failure> {
        let state = Arc::new(AtomicU8::new(WAITING));
        let (ready, when_ready) = sync_channel(1);
        let theirs = Arc::clone(&state);
        let plan = plan(servers);
        let thread = thread::spawn(move || live(&plan, &theirs, &ready));
        if when_ready.recv().is_err() {
            // It ended before it was ready: it knows why.
            return Err(joined(thread)
                .err()
                .unwrap_or_else(|| Failure::environment("the bystanders did not begin")));
        }
        Ok(Self { state, thread })
    }

    /// What happens from now on counts.
    pub fn record(&self) {
        self.state.store(RECORDING, Ordering::Release);
    }

    /// What they ask from now on does not count any more: the load is put away.
    pub fn enough(&self) {
        self.state.store(ENOUGH, Ordering::Release);
    }

    /// Ends them, and tells what they saw from [`Self::record`] to [`Self::enough`].
    ///
    /// # Errors
    /// If all their connections were lost.
    pub fn finish(self) -> Result<Seen, Failure> {
        self.state.store(OVER, Ordering::Release);
        joined(self.thread)
    }
}

fn joined(thread: JoinHandle<Result<Seen, Failure>>) -> Result<Seen, Failure> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Failure::environment("the bystanders' thread died")))
}

fn plan(servers: &[SocketAddr]) -> Plan {
    Plan {
        servers: servers.to_vec(),
        clients: servers.len() * ROLES,
        depth: 1,
        work: Work::Write,
        size: 100,
        keys: KEYS,
        warm_up: Duration::ZERO,
        length: Duration::ZERO,
        rate: None,
        session_timeout: SESSION,
        // No bench has it: they count from 1.
        seed: 0xb157_a4de,
    }
}

/// The life of the thread.
fn live(plan: &Plan, state: &AtomicU8, ready: &SyncSender<()>) -> Result<Seen, Failure> {
    let mut life = Life::begin(plan)?;
    // Nobody waits any more if whoever wanted them is gone.
    let _ = ready.send(());
    loop {
        let now = state.load(Ordering::Acquire);
        if now >= ENOUGH {
            life.until_ns.get_or_insert(life.engine.now_ns());
        }
        life.look(now != WAITING)?;
        if now == OVER {
            break;
        }
        let next_ns = life.ask_those_due();
        life.engine.poll(next_ns)?;
    }
    life.end()
}

struct Life<'p> {
    plan: &'p Plan,
    engine: Engine,
    /// Who reads and who writes.
    makers: [Maker; 2],
    recorders: [Recorder; 2],
    seen: Seen,
    lost: u64,
    third_ns: u64,
    begin_ns: u64,
    /// What was due later does not count.
    until_ns: Option<u64>,
    /// Requests and heartbeats that were due until now, of each session.
    turns: u64,
    beats: u64,
}

impl<'p> Life<'p> {
    fn begin(plan: &'p Plan) -> Result<Self, Failure> {
        let mut engine = Engine::new()?;
        open_sessions(&mut engine, plan)?;
        let root = plan.root();
        let maker = |work| Maker::new(work, &root, plan.keys, plan.size, plan.seed);
        let mut makers = [maker(Work::Read), maker(Work::Write)];
        one_by_one(&mut engine, "make the bystanders' root", |out| {
            makers[1].put_root(out);
        })?;
        many(
            &mut engine,
            "make the bystanders' keys",
            plan.keys,
            |n, out| makers[1].put_key(n, out),
        )?;
        sync_all(&mut engine, &makers[1])?;
        Ok(Self {
            plan,
            third_ns: engine.timeout_ns(0).max(3) / 3,
            begin_ns: engine.now_ns(),
            engine,
            makers,
            recorders: [Recorder::new(0, u64::MAX), Recorder::new(0, u64::MAX)],
            seen: Seen::default(),
            lost: 0,
            until_ns: None,
            turns: 0,
            beats: 0,
        })
    }

    /// Looks at what came.
    fn look(&mut self, counts: bool) -> Result<(), Failure> {
        let servers = self.plan.servers.len();
        for arrival in std::mem::take(&mut self.engine.arrivals) {
            let (sent_ns, at_ns) = (arrival.sent_ns, arrival.at_ns);
            let counts = counts && self.until_ns.is_none_or(|until_ns| sent_ns < until_ns);
            match arrival.got {
                Got::Answer(err) if counts => {
                    if let Some(recorder) = self.recorders.get_mut(arrival.client / servers) {
                        recorder.answer(sent_ns, at_ns, err);
                    }
                }
                Got::Pong if counts => {
                    self.seen.heartbeats += 1;
                    self.seen.late += u64::from(at_ns - sent_ns > self.third_ns);
                }
                Got::Lost => {
                    self.lost += 1;
                    self.seen.lost += u64::from(self.until_ns.is_none());
                }
                _ => {}
            }
        }
        if self.lost == self.engine.len() as u64 {
            return Err(all_lost(&self.engine));
        }
        Ok(())
    }

    /// Sends whatever is due, and says when the next is.
    fn ask_those_due(&mut self) -> u64 {
        let servers = self.plan.servers.len();
        let now_ns = self.engine.now_ns();
        let mut due_ns = self.begin_ns + self.turns * EVERY_NS;
        while due_ns <= now_ns {
            for client in 0..servers * self.makers.len() {
                let maker = &mut self.makers[client / servers];
                if self.engine.is_open(client) {
                    self.engine.send(client, due_ns, |out| maker.put(out));
                    self.engine.flush(client);
                }
            }
            self.turns += 1;
            due_ns += EVERY_NS;
        }
        let mut beat_ns = self.begin_ns + self.beats * self.third_ns;
        while beat_ns <= now_ns {
            for client in servers * self.makers.len()..self.engine.len() {
                if self.engine.is_open(client) {
                    self.engine.ping(client, beat_ns);
                    self.engine.flush(client);
                }
            }
            self.beats += 1;
            beat_ns += self.third_ns;
        }
        due_ns.min(beat_ns)
    }

    /// What is still on its way counts, or the longest answers would be missing; then everything is put away.
    fn end(mut self) -> Result<Seen, Failure> {
        let give_up_ns = self.engine.now_ns() + nanos(LAST_PATIENCE);
        let owes = |engine: &Engine| {
            (0..engine.len()).any(|client| engine.is_open(client) && engine.waiting(client) > 0)
        };
        while owes(&self.engine) && self.engine.now_ns() < give_up_ns {
            self.engine.poll(give_up_ns)?;
            self.look(true)?;
        }
        let [reads, writes] = &self.recorders;
        self.seen.reads = reads.latency();
        self.seen.writes = writes.latency();
        self.seen.lost += reads.failed + writes.failed;
        let maker = &mut self.makers[1];
        many(
            &mut self.engine,
            "delete the bystanders' keys",
            self.plan.keys,
            |n, out| maker.put_delete(Some((n, 'k')), out),
        )?;
        one_by_one(&mut self.engine, "delete the bystanders' root", |out| {
            maker.put_delete(None, out);
        })?;
        end_all(&mut self.engine)?;
        Ok(self.seen)
    }
}
