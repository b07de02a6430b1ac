//! How the machine behaved while something was measured.
//!
//! Two meters: how late a thread woke that only wanted to sleep, and for which share of the time some task of the
//! machine had to wait for a processor (the kernel's own account, where it keeps one). A time that was missed counts
//! only if both were low.

use std::sync::OnceLock;
use std::time::Duration;

use crate::clock::now_us;
use crate::observe::stall::StallMeter;

/// The meter of this process; it runs from the first use on.
#[derive(Clone, Debug)]
pub struct HostMeter {
    stalls: StallMeter,
}

/// A moment from which on is measured.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at_us: u64,
    waited_us: Option<u64>,
}

/// What the meters say of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostReading {
    /// The longest stall, in microseconds.
    pub stall_us: u64,
    /// For which share of the time a task waited for a processor, in percent.
    pub busy_percent: Option<u64>,
}

impl HostMeter {
    /// The meter.
    #[must_use]
    pub fn start() -> Self {
        static METER: OnceLock<StallMeter> = OnceLock::new();
        let stalls = METER
            .get_or_init(|| StallMeter::start(Duration::MAX, |_, _| {}))
            .clone();
        Self { stalls }
    }

    /// From now on.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            at_us: now_us(),
            waited_us: waited_us(),
        }
    }

    /// What happened since.
    #[must_use]
    pub fn since(&self, mark: Mark) -> HostReading {
        let now = now_us();
        let length = now.saturating_sub(mark.at_us).max(1);
        let busy_percent = match (mark.waited_us, waited_us()) {
            (Some(before), Some(after)) => {
                Some((after.saturating_sub(before) * 100 / length).min(100))
            }
            _ => None,
        };
        HostReading {
            stall_us: self.stalls.max_us(mark.at_us, now),
            busy_percent,
        }
    }
}

/// Microseconds in which some task waited for a processor, since the machine was started.
fn waited_us() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let line = text.lines().find(|line| line.starts_with("some"))?;
    line.rsplit_once("total=")?.1.trim().parse().ok()
}

/// The machine in a few words: `Linux 6.18.44, 2 processors`.
#[must_use]
pub fn machine() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {count} processors", release.trim())
}
