//! What the servers used meanwhile, as the kernel counts it.

use std::fs;

use serde::{Deserialize, Serialize};

/// Clock ticks a second in /proc; Linux has not changed it in its life.
const TICKS: u64 = 100;

/// Counters of some processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time, in µs.
    pub cpu_us: u64,
    /// Bytes written to files, in all (also to files in memory).
    pub written: u64,
    /// System calls that write.
    pub write_calls: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
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
                write_calls: sum.write_calls + one.write_calls,
                resident: sum.resident + one.resident,
            }
        })
    }

    /// What was used since; memory is as it is now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            written: self.written.saturating_sub(before.written),
            write_calls: self.write_calls.saturating_sub(before.write_calls),
            resident: self.resident,
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
            write_calls: field("syscw:"),
            resident: number_after(&status, "VmRSS:")? * 1024,
        })
    }
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
