//! The stall meter: how long the machine kept a thread that only wanted to sleep from waking up.
//!
//! On a shared machine everything may stand still for hundreds of milliseconds. No time may be judged
//! without knowing that, so the meter runs as long as the lab does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::clock::now_us;

/// How long the meter sleeps at a time.
const NAP: Duration = Duration::from_millis(2);
/// Shorter stalls are the normal price of a wake-up.
const STALL_MIN_US: u64 = 300;
/// Older stalls are forgotten.
const STALLS_MAX: usize = 10_000;

/// Measures until the process ends.
#[derive(Clone, Debug, Default)]
pub struct StallMeter {
    stalls: Arc<Mutex<VecDeque<Stall>>>,
}

/// A stall.
#[derive(Clone, Copy, Debug)]
struct Stall {
    end_us: u64,
    length_us: u64,
}

impl StallMeter {
    /// Starts the meter's thread; `report` is told every stall of at least `report_min`.
    ///
    /// # Panics
    /// If the machine has no thread left.
    pub fn start(report_min: Duration, report: impl Fn(u64, u64) + Send + 'static) -> Self {
        let meter = Self::default();
        let stalls = Arc::clone(&meter.stalls);
        let report_min_us = u64::try_from(report_min.as_micros()).unwrap_or(u64::MAX);
        thread::Builder::new()
            .name("stall-meter".to_owned())
            .spawn(move || {
                let nap_us = u64::try_from(NAP.as_micros()).unwrap_or(u64::MAX);
                loop {
                    let before = now_us();
                    thread::sleep(NAP);
                    let end_us = now_us();
                    let length_us = end_us.saturating_sub(before + nap_us);
                    if length_us < STALL_MIN_US {
                        continue;
                    }
                    let mut stalls = stalls
                        .lock()
                        .expect("nobody panics while holding the stalls");
                    if stalls.len() == STALLS_MAX {
                        stalls.pop_front();
                    }
                    stalls.push_back(Stall { end_us, length_us });
                    drop(stalls);
                    if length_us >= report_min_us {
                        report(end_us, length_us);
                    }
                }
            })
            .expect("a thread for the stall meter");
        meter
    }

    /// The longest stall that overlaps the time from `from_us` to `to_us`, in microseconds.
    ///
    /// # Panics
    /// Never: nobody panics while holding the stalls.
    #[must_use]
    pub fn max_us(&self, from_us: u64, to_us: u64) -> u64 {
        self.stalls
            .lock()
            .expect("nobody panics while holding the stalls")
            .iter()
            .filter(|stall| stall.end_us >= from_us)
            .filter(|stall| stall.end_us.saturating_sub(stall.length_us) <= to_us)
            .map(|stall| stall.length_us)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stalls_of_the_time_in_question_count() {
        let meter = StallMeter::default();
        meter.stalls.lock().unwrap().extend([
            Stall {
                end_us: 1_000,
                length_us: 900,
            },
            Stall {
                end_us: 5_000,
                length_us: 400,
            },
        ]);
        assert_eq!(meter.max_us(2_000, 4_700), 400);
        assert_eq!(meter.max_us(2_000, 4_000), 0);
        assert_eq!(meter.max_us(500, 9_000), 900);
    }
}
