//! The one clock: microseconds of the system's monotonic clock.
//!
//! zkd stamps its event feed with the same clock, so that what the servers say, what a client saw and
//! when a signal was sent can be laid over one another without any adjustment.

use nix::time::{ClockId, clock_gettime};

/// Microseconds since an arbitrary point, the same for every process of this machine.
#[must_use]
pub fn now_us() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    let seconds = u64::try_from(time.tv_sec()).expect("the monotonic clock is never negative");
    let micros = u64::try_from(time.tv_nsec() / 1000).expect("nanoseconds are never negative");
    seconds * 1_000_000 + micros
}

/// Microseconds as milliseconds with one decimal, for reports.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "a duration in a lab is far below 2^52 µs"
)]
pub fn ms(us: u64) -> f64 {
    (us as f64 / 100.0).round() / 10.0
}
