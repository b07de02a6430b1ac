//! The wall clock of a single server, set wrong on purpose: jumped, too fast or too slow, standing still.
//!
//! A program asks for the time without a system call: the kernel maps a few functions into every process (the vDSO)
//! that read a page of its own. So nothing on the way can be bent, and what is preloaded misses programs that are
//! linked statically. But the mapped functions are this process's own copy as soon as somebody writes to it. While the
//! server stands still for about a millisecond, its `clock_gettime`, `gettimeofday` and `time` get a jump to a few
//! instructions in the unused end of the same mapping, which ask the kernel and bend the answer (`code`). It works on
//! every server, static or not, zkd or a JVM, needs no rights beyond those of the parent, and ends with the process.
//!
//! Only the wall clock is bent. The monotonic clock stays true: sessions, ticks and time-outs go by it, and the kernel
//! would wake sleepers by its own, whatever the process sees.

mod code;
mod image;
mod process;

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use self::image::Image;
use crate::clock::duration;
use crate::failure::Failure;

/// One in [`Skew::rate`].
const ONE: i64 = 1 << 32;
/// The fastest clock that can be asked for: so many times as fast as time.
pub const RATE_MAX: f64 = 1000.0;
/// No clock shows a time after this, in nanoseconds since 1970 (the year 2200).
const LATEST_NS: i64 = 7_258_118_400_000_000_000;

/// What a clock shows, as a line over the true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// At this true time, in nanoseconds since 1970 …
    since_ns: i64,
    /// … it shows this one …
    shows_ns: i64,
    /// … and from there on it goes so fast, in units of 2^-32.
    rate: i64,
}

impl Skew {
    /// A clock that jumps now by so many microseconds and goes `rate` times as fast from then on; 0 stands still.
    ///
    /// # Errors
    /// If it would show a time before 1970 or after 2200, or go backwards or faster than [`RATE_MAX`].
    pub fn from_now(jump_us: i64, rate: f64) -> Result<Self, Failure> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::from(
            i64::try_from(now.as_nanos()).unwrap_or(LATEST_NS),
            jump_us,
            rate,
        )
    }

    fn from(now_ns: i64, jump_us: i64, rate: f64) -> Result<Self, Failure> {
        let shows_ns = jump_us
            .checked_mul(1000)
            .and_then(|jump| jump.checked_add(now_ns));
        let shows_ns = shows_ns
            .filter(|shown| (0..LATEST_NS).contains(shown))
            .ok_or_else(|| {
                Failure::usage("a clock cannot show a time before 1970 or after 2200")
                    .hint("--jump +1h, --jump -30s")
            })?;
        if !(0.0..=RATE_MAX).contains(&rate) {
            return Err(Failure::usage(format!(
                "a clock goes between 0 (it stands still) and {RATE_MAX} times as fast as time, not {rate}"
            )));
        }
        Ok(Self {
            since_ns: now_ns,
            shows_ns,
            rate: (rate * ONE as f64) as i64,
        })
    }

    /// What it shows at a true time, both in nanoseconds since 1970. The same sum as in `code`.
    #[must_use]
    pub fn shown_at(&self, true_ns: i64) -> i64 {
        let passed = i128::from(true_ns - self.since_ns) * i128::from(self.rate);
        self.shows_ns + (passed >> 32) as i64
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jump = (self.shows_ns - self.since_ns) / 1000;
        let jumped = jump != 0;
        if jumped {
            f.write_str(&signed(jump))?;
        }
        let space = if jumped { ", " } else { "" };
        match self.rate {
            0 => write!(f, "{space}stands still"),
            ONE if jumped => Ok(()),
            rate => write!(
                f,
                "{space}{} times as fast",
                (rate as f64 / ONE as f64 * 1e6).round() / 1e6
            ),
        }
    }
}

/// Reads a jump: `+1h`, `-30s`, in microseconds.
///
/// # Errors
/// If it has no sign or is no length of time.
pub fn jump(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a jump such as +1h or -30s");
    let (sign, length) = match text.split_at_checked(1) {
        Some(("+", length)) => (1, length),
        Some(("-", length)) => (-1, length),
        _ => return Err(wrong()),
    };
    let us = duration(length).map_err(|why| format!("{}: {why}", wrong()))?;
    i64::try_from(us.as_micros())
        .map(|us| sign * us)
        .map_err(|_| wrong())
}

/// A length with its sign, in the largest unit that fits: `+1h`, `-90s`.
fn signed(us: i64) -> String {
    const UNITS: [(i64, &str); 4] = [
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1000, "ms"),
    ];
    let fits = UNITS.iter().find(|(length, _)| us % length == 0);
    let (length, unit) = fits.copied().unwrap_or((1, "us"));
    format!("{:+}{unit}", us / length)
}

/// Whether clocks can be bent on this machine.
///
/// # Errors
/// If not, and why.
pub fn check() -> Result<(), Failure> {
    Image::own().map(drop)
}

/// Bends the wall clock of a running process, or with `None` makes it true again. Takes about a millisecond, during
/// which the process stands still; one that is stopped stays so.
///
/// # Errors
/// If this machine cannot, the process is gone, or it may not be touched.
pub fn set(pid: u32, skew: Option<Skew>) -> Result<(), Failure> {
    let image = Image::own()?;
    process::patch(pid, &image, skew)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000_000_000;

    #[test]
    fn a_clock_is_a_line() {
        let hour = Skew::from(NOW, 3_600_000_000, 1.0).unwrap();
        assert_eq!(hour.shown_at(NOW + 5), NOW + 3_600_000_000_000 + 5);
        let still = Skew::from(NOW, 0, 0.0).unwrap();
        assert_eq!(still.shown_at(NOW + 1_000_000), NOW);
        let fast = Skew::from(NOW, -1_000_000, 1.5).unwrap();
        assert_eq!(
            fast.shown_at(NOW + 2_000_000_000),
            NOW - 1_000_000_000 + 3_000_000_000
        );
    }

    #[test]
    fn a_clock_says_what_is_wrong_with_it() {
        let said = |jump, rate| Skew::from(NOW, jump, rate).unwrap().to_string();
        assert_eq!(said(3_600_000_000, 1.0), "+1h");
        assert_eq!(said(-90_000_000, 1.0), "-90s");
        assert_eq!(said(0, 1.05), "1.05 times as fast");
        assert_eq!(said(1500, 0.0), "+1500us, stands still");
    }

    #[test]
    fn a_jump_has_a_sign_and_a_unit() {
        assert_eq!(jump("+1h"), Ok(3_600_000_000));
        assert_eq!(jump("-1.5s"), Ok(-1_500_000));
        for wrong in ["1h", "", "+", "+1", "--1s", "+1 fortnight", "é1h"] {
            assert!(
                jump(wrong).unwrap_err().contains("+1h or -30s"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn times_that_no_server_was_made_for_are_refused() {
        for (jump, rate) in [
            (-NOW / 1000 - 1, 1.0),
            (i64::MAX, 1.0),
            (LATEST_NS / 1000, 1.0),
            (0, -1.0),
            (0, f64::NAN),
            (0, 1001.0),
        ] {
            let refused = Skew::from(NOW, jump, rate);
            assert!(refused.is_err(), "{jump} {rate} {refused:?}");
        }
    }
}
