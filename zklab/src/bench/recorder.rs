//! How long the answers took: one histogram for the whole, and one for each slice of time.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart, in ns.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Length of a slice, in ns.
pub(super) const SLICE_NS: u64 = 250_000_000;

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// When it began, in ms since the measurement did.
    pub at_ms: u64,
    /// Operations a second.
    pub rate: f64,
    /// Median, in µs.
    pub p50_us: f64,
    /// 99th percentile, in µs.
    pub p99_us: f64,
}

/// Latencies, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// The mean.
    pub mean_us: f64,
}

/// The share of answers for which a latency is told, finer towards the end.
const SHARES: [f64; 22] = [
    0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995, 0.9975,
    0.999, 0.9995, 0.9999, 0.99995, 0.99999, 1.0,
];

/// So many answers, as a share of all, took at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// The share, from 0 to 1.
    pub share: f64,
    /// In µs.
    pub us: f64,
}

/// A part of a histogram: so many answers took so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bucket {
    ns: u64,
    count: u64,
}

/// Takes latencies down.
#[derive(Debug)]
pub(super) struct Recorder {
    from_ns: u64,
    to_ns: u64,
    all: Histogram<u64>,
    slice: Histogram<u64>,
    slice_from_ns: u64,
    pub(super) slices: Vec<Slice>,
    /// Answers in the time measured.
    pub(super) done: u64,
    /// Of them, refused.
    pub(super) failed: u64,
    /// The first error number.
    pub(super) first_error: Option<i32>,
}

impl Recorder {
    /// Counts what is answered from one time to another, in ns.
    pub(super) fn new(from_ns: u64, to_ns: u64) -> Self {
        Self {
            from_ns,
            to_ns,
            all: histogram(),
            slice: histogram(),
            slice_from_ns: from_ns,
            slices: Vec::new(),
            done: 0,
            failed: 0,
            first_error: None,
        }
    }

    /// An answer, with its error number.
    pub(super) fn answer(&mut self, sent_ns: u64, at_ns: u64, err: i32) {
        if at_ns < self.from_ns || at_ns >= self.to_ns {
            return;
        }
        while at_ns >= self.slice_from_ns + SLICE_NS {
            self.end_slice();
        }
        let took_ns = at_ns.saturating_sub(sent_ns);
        self.all.saturating_record(took_ns);
        self.slice.saturating_record(took_ns);
        self.done += 1;
        if err != 0 {
            self.failed += 1;
            self.first_error.get_or_insert(err);
        }
    }

    /// The time is over: slices in which nothing came at the end are slices too.
    pub(super) fn end(&mut self) {
        while self.to_ns < u64::MAX && self.slice_from_ns + SLICE_NS <= self.to_ns {
            self.end_slice();
        }
    }

    /// The whole.
    pub(super) fn latency(&self) -> Latency {
        let at = |quantile| micros(self.all.value_at_quantile(quantile));
        Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(self.all.max()),
            mean_us: self.all.mean() / 1e3,
        }
    }

    /// The same, share by share. A share that needs more answers than there were says nothing.
    pub(super) fn percentiles(&self) -> Vec<Percentile> {
        let told = |share: &&f64| **share >= 1.0 || (1.0 - **share) * self.all.len() as f64 >= 1.0;
        let shares = SHARES.iter().filter(told);
        shares
            .filter(|_| !self.all.is_empty())
            .map(|share| Percentile {
                share: *share,
                us: micros(self.all.value_at_quantile(*share)),
            })
            .collect()
    }

    /// The histogram, for another process.
    pub(super) fn buckets(&self) -> Vec<Bucket> {
        let recorded = self.all.iter_recorded();
        recorded
            .map(|value| Bucket {
                ns: value.value_iterated_to(),
                count: value.count_since_last_iteration(),
            })
            .collect()
    }

    /// Adds the histogram of another process.
    pub(super) fn add(&mut self, buckets: &[Bucket]) {
        for bucket in buckets {
            self.all.saturating_record_n(bucket.ns, bucket.count);
        }
    }

    fn end_slice(&mut self) {
        let seconds = SLICE_NS as f64 / 1e9;
        self.slices.push(Slice {
            at_ms: (self.slice_from_ns - self.from_ns) / 1_000_000,
            rate: self.slice.len() as f64 / seconds,
            p50_us: micros(self.slice.value_at_quantile(0.5)),
            p99_us: micros(self.slice.value_at_quantile(0.99)),
        });
        self.slice.reset();
        self.slice_from_ns += SLICE_NS;
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("these bounds are allowed")
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_measured_counts_and_slices_are_whole() {
        let mut recorder = Recorder::new(1000, 1000 + 2 * SLICE_NS);
        recorder.answer(0, 999, 0);
        recorder.answer(900, 1000, 0);
        recorder.answer(1000, 1000 + SLICE_NS, -101);
        recorder.answer(1000, 1000 + 2 * SLICE_NS, 0);
        assert_eq!((recorder.done, recorder.failed), (2, 1));
        assert_eq!(recorder.first_error, Some(-101));
        assert_eq!(recorder.slices.len(), 1);
        recorder.end();
        assert_eq!(recorder.slices.len(), 2);
        assert!((recorder.latency().p50_us - 0.1).abs() < 0.001);
    }
    #[test]
    fn a_share_is_told_only_if_there_were_enough_answers() {
        let mut recorder = Recorder::new(0, u64::MAX);
        assert!(recorder.percentiles().is_empty());
        for us in 1..=100 {
            recorder.answer(0, us * 1000, 0);
        }
        let told = recorder.percentiles();
        let at = |share: f64| told.iter().find(|p| (p.share - share).abs() < 1e-9);
        assert!((at(0.9).unwrap().us - 90.0).abs() < 0.1);
        assert!(at(0.99).is_some() && at(0.995).is_none() && at(1.0).is_some());
    }

    #[test]
    fn two_processes_make_one_histogram() {
        let mut one = Recorder::new(0, u64::MAX);
        let mut other = Recorder::new(0, u64::MAX);
        one.answer(0, 1_000, 0);
        other.answer(0, 9_000, 0);
        one.add(&other.buckets());
        assert!((one.latency().max_us - 9.0).abs() < 0.1);
        assert_eq!(one.percentiles().len(), 5);
    }
}
