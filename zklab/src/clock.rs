//! The one clock: microseconds of the system's monotonic clock.
//!
//! zkd stamps its event feed with the same clock, so that what the servers say, what a client saw and
//! when a signal was sent can be laid over one another without any adjustment.

use std::time::Duration;

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

/// Reads `250ms`, `1.5s`, `2m`; a bare number is refused, for nobody knows its unit.
///
/// # Errors
/// If it is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .ok_or_else(|| format!("{text:?} needs a unit: 250ms, 2s, 1m"))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 250ms, 2s, 1m"))?;
    let seconds = match unit.trim() {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        other => return Err(format!("unknown unit {other:?}; use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["5", "ms", "-1s", "1 parsec", "", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
