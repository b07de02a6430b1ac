//! The one place that reads clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::time::{Instant, Now};

/// Microseconds of the system's monotonic clock: the same clock in every process of a machine.
#[must_use]
pub(super) fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has a monotonic clock");
    now.tv_sec().cast_unsigned() * 1_000_000 + now.tv_nsec().cast_unsigned() / 1000
}

/// Both clocks.
#[must_use]
pub(super) fn now() -> Now {
    Now {
        instant: Instant(monotonic_us() / 1000),
        wall_ms: wall_ms(),
    }
}

/// Milliseconds since 1970.
#[must_use]
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The runtime's sleep until a machine's deadline.
#[must_use]
pub(super) fn tokio_deadline(at: Instant) -> tokio::time::Instant {
    let left = at.0.saturating_sub(monotonic_us() / 1000);
    tokio::time::Instant::now() + std::time::Duration::from_millis(left)
}
