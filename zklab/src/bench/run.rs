//! One measurement: connect, make the keys, warm up, measure, put everything away.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Got};
use super::recorder::{Latency, Percentile, Recorder, Slice};
use super::sessions::end_all;
use super::work::{Maker, Work};
use crate::failure::{Exit, Failure};

/// How long all sessions may take to be opened, and how much longer for each.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);
const OPEN_EACH: Duration = Duration::from_millis(6);
/// Connections whose session is asked for at one time.
pub(super) const GREETINGS: usize = 256;
/// Clients that connect from one address: each has only some 28,000 ports for one server.
const CLIENTS_PER_ADDRESS: usize = 20_000;
/// How long the keys may take to be made or deleted.
const KEYS_PATIENCE: Duration = Duration::from_secs(120);
/// How long the last answers may take: a server that has thousands of writes before it needs its time.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);
/// What comes back with the answers to requests that belong to no measurement. All others are answers to something
/// older.
const CHORE: u64 = u64::MAX;
/// Requests of one connection on their way while keys are made.
const KEYS_WINDOW: usize = 64;
/// And bytes: a server has to hold large values that are on their way in memory.
const KEYS_BYTES: usize = 256 << 10;
/// Requests that may wait in an open loop; a server that is so far behind is overloaded.
const OPEN_LOOP_MAX: usize = 1 << 20;
/// Znodes below one parent, in a tree that is made to be big.
const FAN_OUT: u64 = 1000;
/// Between two tries to reach a server that is being started.
const KNOCK_AGAIN: Duration = Duration::from_millis(1);
/// The error of a znode that is there already.
const NODE_EXISTS: i32 = -110;

/// What is to be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where the servers answer clients; the clients are dealt out to them in turn.
    pub servers: Vec<SocketAddr>,
    /// Sessions.
    pub clients: usize,
    /// Requests of each that are on their way at any time.
    pub depth: usize,
    /// What they ask for.
    pub work: Work,
    /// Bytes of data.
    pub size: usize,
    /// Keys.
    pub keys: u64,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// What is counted.
    pub length: Duration,
    /// Operations a second of all together, however fast the answers come; `None`: each answer is followed by the
    /// next request.
    pub rate: Option<f64>,
    /// The session timeout to ask for.
    pub session_timeout: Duration,
    /// All choices come from it.
    pub seed: u64,
}

impl Plan {
    /// The znode above everything that is made.
    pub(super) fn root(&self) -> String {
        format!("/zklab-bench-{:08x}", self.seed & 0xffff_ffff)
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Operations answered.
    pub ops: u64,
    /// Of them, refused by the server.
    pub failed: u64,
    /// The first error number.
    pub first_error: Option<i32>,
    /// Connections that ended.
    pub lost: u64,
    /// How long was measured.
    pub seconds: f64,
    /// Operations a second.
    pub rate: f64,
    /// From the request (in an open loop: from when it was due) to its answer.
    pub latency: Latency,
    /// The same, share by share.
    #[serde(default)]
    pub percentiles: Vec<Percentile>,
    /// How it went over time.
    pub slices: Vec<Slice>,
}

/// The edges of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Everything is there: sessions, keys.
    Ready,
    /// It begins.
    Begin,
    /// It is over.
    End,
}

/// Measures; `at_edge` is called where the measurement begins and where it ends.
///
/// # Errors
/// If the servers cannot be reached, take no sessions or do not answer any more.
pub fn run(plan: &Plan, at_edge: &mut dyn FnMut(Edge)) -> Result<Outcome, Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let mut maker = Maker::new(plan.work, &plan.root(), plan.keys, plan.size, plan.seed);
    one_by_one(&mut engine, "make the root", |out| maker.put_root(out))?;
    if maker.needs_keys() {
        many(&mut engine, "make the keys", plan.keys, |number, out| {
            maker.put_key(number, out);
        })?;
    }
    sync_all(&mut engine, &maker)?;
    at_edge(Edge::Ready);
    let from_ns = engine.now_ns() + nanos(plan.warm_up);
    let mut recorder = Recorder::new(from_ns, from_ns + nanos(plan.length));
    let mut drive = Drive {
        engine: &mut engine,
        maker: &mut maker,
        recorder: &mut recorder,
        at_edge,
        from_ns,
        to_ns: from_ns + nanos(plan.length),
        lost: 0,
    };
    match plan.rate {
        None => drive.closed(plan)?,
        Some(rate) => drive.open(plan, rate)?,
    }
    let lost = drive.lost;
    drain(&mut engine)?;
    let (kind, count) = match maker.needs_keys() {
        true => ('k', plan.keys),
        false => ('c', maker.made()),
    };
    many(&mut engine, "delete the keys", count, |number, out| {
        maker.put_delete(Some((number, kind)), out);
    })?;
    one_by_one(&mut engine, "delete the root", |out| {
        maker.put_delete(None, out);
    })?;
    Ok(outcome(plan, &mut recorder, lost))
}

/// What was recorded.
pub(super) fn outcome(plan: &Plan, recorder: &mut Recorder, lost: u64) -> Outcome {
    recorder.end();
    Outcome {
        ops: recorder.done,
        failed: recorder.failed,
        first_error: recorder.first_error,
        lost,
        seconds: plan.length.as_secs_f64(),
        rate: recorder.done as f64 / plan.length.as_secs_f64(),
        latency: recorder.latency(),
        percentiles: recorder.percentiles(),
        slices: std::mem::take(&mut recorder.slices),
    }
}

/// The part that is measured.
struct Drive<'a> {
    engine: &'a mut Engine,
    maker: &'a mut Maker,
    recorder: &'a mut Recorder,
    at_edge: &'a mut dyn FnMut(Edge),
    from_ns: u64,
    to_ns: u64,
    lost: u64,
}

impl Drive<'_> {
    /// Each answer is followed by the next request.
    fn closed(&mut self, plan: &Plan) -> Result<(), Failure> {
        let now_ns = self.engine.now_ns();
        for client in 0..self.engine.len() {
            for _ in 0..plan.depth {
                self.engine.send(client, now_ns, |out| self.maker.put(out));
            }
            self.engine.flush(client);
        }
        self.until_over(|drive| {
            let mut arrivals = std::mem::take(&mut drive.engine.arrivals);
            for (place, arrival) in arrivals.iter().enumerate() {
                let client = arrival.client;
                match arrival.got {
                    Got::Answer(err) => {
                        drive.recorder.answer(arrival.sent_ns, arrival.at_ns, err);
                        let stamp_ns = arrival.at_ns;
                        drive
                            .engine
                            .send(client, stamp_ns, |out| drive.maker.put(out));
                    }
                    Got::Lost => drive.lost += 1,
                    Got::Session | Got::Pong | Got::Event => {}
                }
                if arrivals
                    .get(place + 1)
                    .is_none_or(|next| next.client != client)
                {
                    drive.engine.flush(client);
                }
            }
            arrivals.clear();
            drive.engine.arrivals.append(&mut arrivals);
            Ok(u64::MAX)
        })
    }

    /// Requests leave when they are due, whatever the servers do; their latency counts from then.
    fn open(&mut self, plan: &Plan, rate: f64) -> Result<(), Failure> {
        let begin_ns = self.engine.now_ns();
        let gap_ns = 1e9 / rate;
        let mut number = 0_u64;
        self.until_over(|drive| {
            let mut waiting = 0;
            for arrival in std::mem::take(&mut drive.engine.arrivals) {
                match arrival.got {
                    Got::Answer(err) => {
                        drive.recorder.answer(arrival.sent_ns, arrival.at_ns, err);
                    }
                    Got::Lost => drive.lost += 1,
                    Got::Session | Got::Pong | Got::Event => {}
                }
            }
            let now_ns = drive.engine.now_ns();
            loop {
                let due_ns = begin_ns + (number as f64 * gap_ns) as u64;
                if due_ns > now_ns {
                    return Ok(due_ns);
                }
                let client = (number % drive.engine.len() as u64) as usize;
                number += 1;
                waiting += drive.engine.waiting(client);
                if waiting > OPEN_LOOP_MAX {
                    return Err(Failure::new(
                        Exit::Missed,
                        format!("the servers do not keep up with {rate:.0} operations a second"),
                    )
                    .hint(format!(
                        "--rate must be lower with {} clients",
                        plan.clients
                    )));
                }
                drive
                    .engine
                    .send(client, due_ns, |out| drive.maker.put(out));
                drive.engine.flush(client);
            }
        })
    }

    /// Calls `turn` until the measurement is over; it says when it wants to be called at the latest.
    fn until_over(
        &mut self,
        mut turn: impl FnMut(&mut Self) -> Result<u64, Failure>,
    ) -> Result<(), Failure> {
        let mut has_begun = false;
        loop {
            let next_ns = turn(self)?;
            let now_ns = self.engine.now_ns();
            if !has_begun && now_ns >= self.from_ns {
                has_begun = true;
                (self.at_edge)(Edge::Begin);
            }
            if now_ns >= self.to_ns {
                (self.at_edge)(Edge::End);
                return Ok(());
            }
            let edge_ns = if has_begun { self.to_ns } else { self.from_ns };
            self.engine.poll(next_ns.min(edge_ns))?;
            self.somebody_lives()?;
        }
    }

    fn somebody_lives(&self) -> Result<(), Failure> {
        if self.lost < self.engine.len() as u64 {
            return Ok(());
        }
        Err(all_lost(self.engine))
    }
}

pub(super) fn all_lost(engine: &Engine) -> Failure {
    let reason = engine.last_loss.as_deref().unwrap_or("nobody knows why");
    Failure::new(
        Exit::Missed,
        format!("every connection ended; the last one: {reason}"),
    )
    .hint("do the servers run, and do they accept so many clients (maxClientCnxns)?")
}

/// Makes a tree of `plan.keys` znodes below one root, a thousand below each parent, and leaves it there. Says how
/// long that took.
///
/// # Errors
/// As [`run`].
pub fn fill(plan: &Plan) -> Result<Duration, Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let mut maker = Maker::new(plan.work, &plan.root(), plan.keys, plan.size, plan.seed);
    one_by_one(&mut engine, "make the root", |out| maker.put_root(out))?;
    let begin_ns = engine.now_ns();
    let parents = plan.keys.div_ceil(FAN_OUT);
    many(&mut engine, "make the parents", parents, |number, out| {
        maker.put_parent(number, out);
    })?;
    many(&mut engine, "make the znodes", plan.keys, |number, out| {
        maker.put_leaf(number / FAN_OUT, number, out);
    })?;
    sync_all(&mut engine, &maker)?;
    let took_ns = engine.now_ns() - begin_ns;
    end_all(&mut engine)?;
    Ok(Duration::from_nanos(took_ns))
}

/// Writes to the znodes that [`fill`] made, so many times.
///
/// # Errors
/// As [`run`].
pub fn overwrite(plan: &Plan, count: u64) -> Result<(), Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let mut maker = Maker::new(plan.work, &plan.root(), plan.keys, plan.size, plan.seed);
    many(&mut engine, "write to the znodes", count, |number, out| {
        let number = number % plan.keys;
        maker.put_write_to(number / FAN_OUT, number, out);
    })?;
    end_all(&mut engine)
}

/// The time from now until a new session has read the last znode of a tree that [`fill`] made, on a server that may
/// not even listen yet.
///
/// # Errors
/// If that takes longer than `patience`.
pub fn first_read(plan: &Plan, patience: Duration) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let mut maker = Maker::new(plan.work, &plan.root(), plan.keys, plan.size, plan.seed);
    let last = plan.keys.saturating_sub(1);
    loop {
        let mut engine = Engine::new()?;
        let server = plan.servers[0];
        if engine.connect(server, None, plan.session_timeout).is_ok()
            && read_once(&mut engine, patience, &mut |out| {
                maker.put_read_of(last / FAN_OUT, last, out);
            })?
        {
            let took = begin.elapsed();
            end_all(&mut engine)?;
            return Ok(took);
        }
        if begin.elapsed() > patience {
            return Err(Failure::new(
                Exit::Missed,
                format!("{server} answered no read within {} s", patience.as_secs()),
            ));
        }
        // Nothing tells when a server that was just started listens.
        std::thread::sleep(KNOCK_AGAIN);
    }
}

/// Whether a server that took the connection gives a session and then answers a read.
fn read_once(
    engine: &mut Engine,
    patience: Duration,
    put: &mut dyn FnMut(&mut Vec<u8>),
) -> Result<bool, Failure> {
    let give_up_ns = engine.now_ns() + nanos(patience);
    while engine.now_ns() < give_up_ns {
        engine.poll(give_up_ns)?;
        for arrival in std::mem::take(&mut engine.arrivals) {
            match arrival.got {
                Got::Session => {
                    engine.send(0, CHORE, &mut *put);
                    engine.flush(0);
                }
                Got::Answer(0) => return Ok(true),
                Got::Answer(err) => {
                    return Err(Failure::new(
                        Exit::Bug,
                        format!("a znode that was there before cannot be read: error {err}"),
                    ));
                }
                Got::Lost => return Ok(false),
                Got::Pong | Got::Event => {}
            }
        }
    }
    Ok(false)
}

/// Opens every session of the plan, some at a time, from as many addresses as are needed.
pub(super) fn open_sessions(engine: &mut Engine, plan: &Plan) -> Result<(), Failure> {
    let give_up_ns = engine.now_ns() + nanos(open_patience(plan.clients));
    let (mut asked, mut open) = (0, 0);
    while open < plan.clients {
        while asked < plan.clients && asked - open < GREETINGS {
            open_one(engine, plan, asked)?;
            asked += 1;
        }
        engine.poll(give_up_ns)?;
        for arrival in std::mem::take(&mut engine.arrivals) {
            match arrival.got {
                Got::Session => open += 1,
                Got::Lost => return Err(all_lost(engine)),
                _ => {}
            }
        }
        if engine.now_ns() >= give_up_ns {
            return Err(too_few(open, plan.clients));
        }
    }
    Ok(())
}

/// Asks for the session of a client; all of them are dealt out to the servers in turn.
pub(super) fn open_one(engine: &mut Engine, plan: &Plan, number: usize) -> Result<(), Failure> {
    let server = plan.servers[number % plan.servers.len()];
    let from = from_address(server.ip().is_loopback(), number / CLIENTS_PER_ADDRESS);
    engine.connect(server, from, plan.session_timeout)?;
    Ok(())
}

/// How long so many sessions may take to be opened.
pub(super) fn open_patience(clients: usize) -> Duration {
    OPEN_PATIENCE + OPEN_EACH * u32::try_from(clients).unwrap_or(u32::MAX)
}

pub(super) fn too_few(open: usize, wanted: usize) -> Failure {
    Failure::new(
        Exit::Missed,
        format!("only {open} of {wanted} sessions were opened in time"),
    )
}

/// The address that a block of clients connects from, if the usual one does not do; on loopback there are enough.
fn from_address(is_loopback: bool, block: usize) -> Option<Ipv4Addr> {
    let last = u8::try_from(block).ok().filter(|block| *block > 0)?;
    is_loopback.then(|| Ipv4Addr::new(127, 77, 0, last))
}

/// Sends one request and waits for its answer; that something is there already is no error. `doing` is for the
/// message.
pub(super) fn one_by_one(
    engine: &mut Engine,
    doing: &str,
    put: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Failure> {
    let mut put = Some(put);
    many(engine, doing, 1, |_, out| {
        if let Some(put) = put.take() {
            put(out);
        }
    })
}

/// Lets every session see what was made until now: a follower may be behind, and then a read finds nothing.
pub(super) fn sync_all(engine: &mut Engine, maker: &Maker) -> Result<(), Failure> {
    let mut open = 0;
    for client in 0..engine.len() {
        if engine.is_open(client) {
            engine.send(client, CHORE, |out| maker.put_sync(out));
            engine.flush(client);
            open += 1;
        }
    }
    answered(engine, "sync", open, &mut |_| {})
}

/// Sends many requests over all connections and waits for all answers.
pub(super) fn many(
    engine: &mut Engine,
    doing: &str,
    count: u64,
    mut put: impl FnMut(u64, &mut Vec<u8>),
) -> Result<(), Failure> {
    let (mut asked, mut bytes) = (0, 0);
    answered(engine, doing, count, &mut |engine| {
        for client in 0..engine.len() {
            let before = asked;
            while asked < count
                && engine.is_open(client)
                && engine.waiting(client) < KEYS_WINDOW
                && engine.waiting(client) * bytes <= KEYS_BYTES
            {
                engine.send(client, CHORE, |out| {
                    let before = out.len();
                    put(asked, out);
                    bytes = out.len() - before;
                });
                asked += 1;
            }
            if asked > before {
                engine.flush(client);
            }
        }
    })
}

/// Waits for so many answers to chores; `ask` may send more of them before each look.
fn answered(
    engine: &mut Engine,
    doing: &str,
    count: u64,
    ask: &mut dyn FnMut(&mut Engine),
) -> Result<(), Failure> {
    let mut give_up_ns = engine.now_ns() + nanos(KEYS_PATIENCE);
    let mut answered = 0;
    let mut refused = None;
    while answered < count {
        ask(engine);
        engine.poll(give_up_ns)?;
        for arrival in std::mem::take(&mut engine.arrivals) {
            match arrival.got {
                Got::Answer(err) if arrival.sent_ns == CHORE => {
                    answered += 1;
                    give_up_ns = arrival.at_ns + nanos(KEYS_PATIENCE);
                    if err != 0 && err != NODE_EXISTS {
                        refused.get_or_insert((err, arrival.client));
                    }
                }
                Got::Lost => return Err(all_lost(engine)),
                _ => {}
            }
        }
        if engine.now_ns() >= give_up_ns {
            return Err(Failure::new(
                Exit::Missed,
                format!(
                    "cannot {doing}: the servers answered {answered} of {count} requests and then \
                     nothing for {} s",
                    KEYS_PATIENCE.as_secs()
                ),
            ));
        }
    }
    match refused {
        None => Ok(()),
        Some((err, client)) => Err(Failure::new(
            Exit::Missed,
            format!(
                "cannot {doing}: {} answers with error {err}",
                engine.server(client)
            ),
        )
        .hint("is something else at work in the same ensemble?")),
    }
}

/// Waits until nothing is on its way any more: a write that comes after the keys are deleted would be refused.
fn drain(engine: &mut Engine) -> Result<(), Failure> {
    let give_up_ns = engine.now_ns() + nanos(DRAIN_PATIENCE);
    let late = |engine: &Engine, client| engine.is_open(client) && engine.waiting(client) > 0;
    while (0..engine.len()).any(|client| late(engine, client)) {
        if engine.now_ns() >= give_up_ns {
            let client = (0..engine.len())
                .find(|client| late(engine, *client))
                .unwrap_or(0);
            return Err(Failure::new(
                Exit::Missed,
                format!(
                    "{} owes answers {} s after the last request",
                    engine.server(client),
                    DRAIN_PATIENCE.as_secs()
                ),
            ));
        }
        engine.poll(give_up_ns)?;
        engine.arrivals.clear();
    }
    engine.arrivals.clear();
    Ok(())
}

/// As nanoseconds.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
