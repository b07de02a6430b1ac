//! Clients that write as fast as they are answered, through elections: whoever loses its connection comes back at once,
//! to the next server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::engine::{Engine, Got};
use super::run::{Plan, many, one_by_one, open_sessions};
use super::work::Maker;
use crate::failure::Failure;

/// How often the thread looks whether it shall end.
const LOOK_NS: u64 = 20_000_000;
/// How long a client waits that no server accepts.
const RETRY_NS: u64 = 5_000_000;

/// A thread with writing clients.
#[derive(Debug)]
pub struct Pressure {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, Failure>>,
}

impl Pressure {
    /// Opens the sessions of `plan`, makes its keys and begins to write to them.
    ///
    /// # Errors
    /// If the servers take no sessions or no writes.
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let mut engine = Engine::new()?;
        open_sessions(&mut engine, plan)?;
        let mut maker = Maker::new(plan.work, &plan.root(), plan.keys, plan.size, plan.seed);
        one_by_one(&mut engine, "make the root", |out| maker.put_root(out))?;
        many(&mut engine, "make the keys", plan.keys, |number, out| {
            maker.put_key(number, out);
        })?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let plan = plan.clone();
        let thread = thread::spawn(move || press(engine, maker, &plan, &told));
        Ok(Self { over, thread })
    }

    /// Ends it; how many writes were acknowledged.
    ///
    /// # Errors
    /// If the kernel refused something.
    pub fn finish(self) -> Result<u64, Failure> {
        self.over.store(true, Ordering::Release);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Failure::environment("the writing clients' thread died")))
    }
}

fn press(
    mut engine: Engine,
    mut maker: Maker,
    plan: &Plan,
    over: &AtomicBool,
) -> Result<u64, Failure> {
    let mut acked = 0;
    let mut servers: Vec<usize> = (0..plan.clients).collect();
    let mut away: Vec<usize> = Vec::new();
    let mut retry_ns = 0;
    for client in 0..plan.clients {
        write(&mut engine, client, plan.depth, &mut maker);
    }
    while !over.load(Ordering::Acquire) {
        for arrival in std::mem::take(&mut engine.arrivals) {
            match arrival.got {
                Got::Answer(err) => {
                    acked += u64::from(err == 0);
                    write(&mut engine, arrival.client, 1, &mut maker);
                }
                Got::Session => write(&mut engine, arrival.client, plan.depth, &mut maker),
                Got::Lost => away.push(arrival.client),
                Got::Pong | Got::Event => {}
            }
        }
        let now_ns = engine.now_ns();
        if !away.is_empty() && now_ns >= retry_ns {
            away.retain(|client| {
                servers[*client] += 1;
                let server: SocketAddr = plan.servers[servers[*client] % plan.servers.len()];
                let timeout: Duration = plan.session_timeout;
                engine.connect_again(*client, server, timeout).is_err()
            });
            retry_ns = now_ns + RETRY_NS;
        }
        let next_ns = match away.is_empty() {
            true => now_ns + LOOK_NS,
            false => retry_ns,
        };
        engine.poll(next_ns)?;
    }
    Ok(acked)
}

fn write(engine: &mut Engine, client: usize, count: usize, maker: &mut Maker) {
    for _ in 0..count {
        engine.send(client, 0, |out| maker.put(out));
    }
    engine.flush(client);
}
