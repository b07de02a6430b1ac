//! What the servers used meanwhile, as the kernel counts it, and how often they synced their logs, as they say.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Clock ticks a second in /proc; Linux has not changed it in its life.
const TICKS: u64 = 100;
/// How long a server may take to tell its numbers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counters of some processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time, in µs.
    pub cpu_us: u64,
    /// Bytes handed to the kernel by calls that write: to files, and by some servers to connections too.
    pub written: u64,
    /// Bytes that had to go to a disk, in whole pages.
    #[serde(default)]
    pub disk: u64,
    /// System calls that write.
    pub write_calls: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The most it ever was, since [`forget_peaks`].
    #[serde(default)]
    pub peak: u64,
}

impl Usage {
    /// Reads the counters of these processes; one that is gone counts nothing.
    #[must_use]
    pub fn of(pids: &[u32]) -> Self {
        pids.iter().fold(Self::default(), |sum, pid| {
            let one = Self::of_one(*pid).unwrap_or_default();
            Self {
                cpu_us: sum.cpu_us + one.cpu_us,
                written: sum.written + one.written,
                disk: sum.disk + one.disk,
                write_calls: sum.write_calls + one.write_calls,
                resident: sum.resident + one.resident,
                peak: sum.peak + one.peak,
            }
        })
    }

    /// What was used since; memory is as it is now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            written: self.written.saturating_sub(before.written),
            disk: self.disk.saturating_sub(before.disk),
            write_calls: self.write_calls.saturating_sub(before.write_calls),
            resident: self.resident,
            peak: self.peak,
        }
    }

    fn of_one(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| number_after(&io, name).unwrap_or(0);
        Some(Self {
            cpu_us: ticks(&stat)? * (1_000_000 / TICKS),
            written: field("wchar:"),
            disk: field("write_bytes:"),
            write_calls: field("syscw:"),
            resident: number_after(&status, "VmRSS:")? * 1024,
            peak: number_after(&status, "VmHWM:").unwrap_or(0) * 1024,
        })
    }
}

/// Lets [`Usage::peak`] of these processes begin at what they have now. Where the kernel does not, it began at their
/// start.
pub fn forget_peaks(pids: &[u32]) {
    for pid in pids {
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// How often servers synced their txn logs since they were started, all together.
#[derive(Debug)]
pub struct Syncs {
    asking: Vec<JoinHandle<Option<u64>>>,
}

impl Syncs {
    /// Asks all of them, without waiting for the answers: a server under load takes its time, and the load must not.
    #[must_use]
    pub fn ask(servers: &[SocketAddr]) -> Self {
        let asking = servers.iter().map(|server| {
            let server = *server;
            thread::spawn(move || {
                let text = monitor(server).ok()?;
                number_after(&text, "zk_cnt_fsynctime\t")
            })
        });
        Self {
            asking: asking.collect(),
        }
    }

    /// The answer, unless a server gave none: one that is down, or whose operator forbids `mntr`.
    #[must_use]
    pub fn wait(self) -> Option<u64> {
        let answers = self.asking.into_iter();
        answers
            .map(|asking| asking.join().ok().flatten())
            .sum::<Option<u64>>()
    }
}

/// The answer to `mntr`.
fn monitor(server: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"mntr")?;
    let _ = stream.shutdown(Shutdown::Write);
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// User and system time in a line of /proc/PID/stat. The name of the program may hold anything but ends with the last
/// parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_confuse() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 0 0 0 0 0 12 34 0 0 20 0 1 0 0 0 0";
        assert_eq!(ticks(stat), Some(46));
    }

    #[test]
    fn this_process_uses_something() {
        let own = Usage::of(&[std::process::id()]);
        assert!(own.resident > 1 << 20, "{own:?}");
        assert_eq!(Usage::of(&[u32::MAX]), Usage::default());
    }
}
