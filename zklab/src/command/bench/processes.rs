//! More sessions than one process may have open files: several processes of this program hold them together.
//!
//! Each gets its part of the plan as a line of JSON, says `ready` when its sessions are open, begins to measure when it
//! is told `go`, says `begin` and `end`, ends its sessions when it is told `close`, and then says what it measured.

use std::io::{BufRead as _, BufReader, Write as _, stdin, stdout};
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use nix::sys::resource::{Resource, getrlimit};

use super::{FILES_BESIDE, make_room};
use crate::bench::{self, Edge, Outcome, Part, Plan};
use crate::failure::{Context as _, Exit, Failure};

/// The hidden subcommand that is one of these processes.
pub(in crate::command) const PART: &str = "__bench-part";

/// Idle sessions, in as many processes as they need.
pub(super) fn idle(plan: &Plan, at_edge: &mut dyn FnMut(Edge, &[u32])) -> Result<Outcome, Failure> {
    let Err(too_many) = make_room(plan.clients as u64) else {
        let own = [process::id()];
        return bench::idle(plan, &|| true, &mut |edge| at_edge(edge, &own));
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .doing(|| "cannot read the limit of open files".to_owned())?;
    let room = usize::try_from(hard.saturating_sub(FILES_BESIDE)).unwrap_or(usize::MAX);
    if room == 0 {
        return Err(too_many);
    }
    let count = plan.clients.div_ceil(room);
    let mut parts = Vec::new();
    for number in 0..count {
        parts.push(Process::start(&share(plan, number, count))?);
    }
    let pids: Vec<u32> = parts.iter().map(|part| part.child.id()).collect();
    all(&mut parts, "ready")?;
    at_edge(Edge::Ready, &pids);
    order(&mut parts, "go");
    all(&mut parts, "begin")?;
    at_edge(Edge::Begin, &pids);
    all(&mut parts, "end")?;
    at_edge(Edge::End, &pids);
    order(&mut parts, "close");
    let told: Result<Vec<Part>, Failure> = parts.into_iter().map(Process::finish).collect();
    Ok(Part::sum(plan, &told?))
}

/// The part of one of `count` processes: its clients, beginning at another server and another port range.
fn share(plan: &Plan, number: usize, count: usize) -> Plan {
    let mut servers = plan.servers.clone();
    servers.rotate_left(number % plan.servers.len());
    Plan {
        servers,
        clients: plan.clients / count + usize::from(number < plan.clients % count),
        ..plan.clone()
    }
}

fn all(parts: &mut [Process], word: &str) -> Result<(), Failure> {
    parts.iter_mut().try_for_each(|part| part.expect(word))
}

fn order(parts: &mut [Process], word: &str) {
    for part in parts {
        // If it is gone, the next line says so.
        let _ = writeln!(part.orders, "{word}");
    }
}

/// One of the processes; it ends with this.
struct Process {
    child: Child,
    orders: ChildStdin,
    news: BufReader<ChildStdout>,
}

impl Process {
    fn start(plan: &Plan) -> Result<Self, Failure> {
        let cannot = || "cannot start another load generator".to_owned();
        let program = std::env::current_exe().doing(cannot)?;
        let mut child = Command::new(program)
            .arg(PART)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing(cannot)?;
        let ends = child.stdin.take().zip(child.stdout.take());
        let (mut orders, news) = ends.ok_or_else(|| Failure::environment(cannot()))?;
        let line = serde_json::to_string(plan).doing(cannot)?;
        writeln!(orders, "{line}").doing(cannot)?;
        Ok(Self {
            child,
            orders,
            news: BufReader::new(news),
        })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        let count = self.news.read_line(&mut line).unwrap_or(0);
        if count == 0 {
            return Err(Failure::environment("a load generator died"));
        }
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, word: &str) -> Result<(), Failure> {
        let line = self.line()?;
        if line == word {
            return Ok(());
        }
        let failure = serde_json::from_str(&line);
        Err(failure.unwrap_or_else(|_| {
            Failure::new(Exit::Missed, format!("a load generator says {line:?}"))
        }))
    }

    fn finish(mut self) -> Result<Part, Failure> {
        let line = self.line()?;
        serde_json::from_str(&line).map_err(|error| {
            let failure = serde_json::from_str(&line);
            failure.unwrap_or_else(|_| {
                Failure::environment(format!("a load generator is not understood: {error}"))
            })
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This process is one of them.
pub(in crate::command) fn part() -> Result<(), Failure> {
    let cannot = || "cannot understand the plan of the bench".to_owned();
    let (told, orders) = channel();
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            // Nobody listens once everything is said.
            let _ = told.send(line);
        }
        // Whoever started us is gone: there is nobody to measure for.
        process::exit(1);
    });
    let plan: Plan = serde_json::from_str(&orders.recv().unwrap_or_default()).doing(cannot)?;
    let say = |text: &str| {
        let mut stdout = stdout().lock();
        let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    };
    let measured = make_room(plan.clients as u64).and_then(|()| {
        bench::idle_part(&plan, &|| orders.try_recv().is_ok(), &mut |edge| {
            say(match edge {
                Edge::Ready => "ready",
                Edge::Begin => "begin",
                Edge::End => "end",
            });
            if matches!(edge, Edge::End) {
                // As many sessions as these are not ended while others still measure.
                let _ = orders.recv();
            }
        })
    });
    let line = match &measured {
        Ok(part) => serde_json::to_string(part),
        Err(failure) => serde_json::to_string(failure),
    };
    say(&line.unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::Work;

    #[test]
    fn the_parts_are_the_whole() {
        let plan = Plan {
            servers: vec![
                "127.0.0.1:1".parse().unwrap(),
                "127.0.0.1:2".parse().unwrap(),
            ],
            clients: 50,
            depth: 1,
            work: Work::Write,
            size: 0,
            keys: 1,
            warm_up: Duration::ZERO,
            length: Duration::ZERO,
            rate: None,
            session_timeout: Duration::ZERO,
            seed: 1,
        };
        let parts: Vec<Plan> = (0..3).map(|number| share(&plan, number, 3)).collect();
        let clients: Vec<usize> = parts.iter().map(|part| part.clients).collect();
        assert_eq!(clients, [17, 17, 16]);
        assert_eq!(parts[1].servers[0], plan.servers[1]);
    }
}
