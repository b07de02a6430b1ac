//! The instruments: counter, gauge, summary, and a histogram with percentiles.
//!
//! Law kept here: recording is a handful of relaxed atomic operations and never waits.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::Value;

/// Microseconds in a millisecond.
const US_PER_MS: u64 = 1000;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    pub(super) fn value(&self) -> Value {
        Value::Counter(self.count())
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Moves it.
    pub fn add(&self, delta: i64) {
        self.0.fetch_add(delta, Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn level(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// What many recorded numbers come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SummaryValue {
    /// The mean, 0 when nothing was recorded.
    pub avg: f64,
    /// The smallest, 0 when nothing was recorded.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// How many.
    pub cnt: u64,
    /// All together.
    pub sum: u64,
}

impl SummaryValue {
    /// The same in a unit `scale` times larger: whole numbers are cut off, the mean keeps its fraction.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a scale is small, and a mean is for people"
    )]
    fn in_units_of(self, scale: u64) -> Self {
        Self {
            avg: self.avg / scale as f64,
            min: self.min / scale,
            max: self.max / scale,
            cnt: self.cnt,
            sum: self.sum / scale,
        }
    }
}

/// Minimum, mean, maximum, count and sum of recorded numbers.
#[derive(Debug)]
pub struct Summary {
    min: AtomicU64,
    max: AtomicU64,
    cnt: AtomicU64,
    sum: AtomicU64,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            cnt: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl Summary {
    /// Records one number.
    pub fn record(&self, value: u64) {
        self.record_times(value, 1);
    }

    /// Records one number `count` times.
    pub fn record_times(&self, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.min.fetch_min(value, Relaxed);
        self.max.fetch_max(value, Relaxed);
        self.sum.fetch_add(value * count, Relaxed);
        self.cnt.fetch_add(count, Relaxed);
    }

    /// What they come to so far.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean is for people")]
    pub fn summary(&self) -> SummaryValue {
        let (cnt, sum) = (self.cnt.load(Relaxed), self.sum.load(Relaxed));
        if cnt == 0 {
            return SummaryValue::default();
        }
        SummaryValue {
            avg: sum as f64 / cnt as f64,
            min: self.min.load(Relaxed),
            max: self.max.load(Relaxed),
            cnt,
            sum,
        }
    }

    pub(super) fn reset(&self) {
        self.cnt.store(0, Relaxed);
        self.sum.store(0, Relaxed);
        self.max.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
    }

    pub(super) fn value(&self) -> Value {
        Value::Summary(self.summary())
    }
}

/// A [`Summary`] of times: recorded in microseconds, told in milliseconds.
#[derive(Debug, Default)]
pub struct Timing(Summary);

impl Timing {
    /// Records a time in microseconds.
    pub fn record_us(&self, us: u64) {
        self.0.record(us);
    }

    /// What they come to, in milliseconds.
    #[must_use]
    pub fn summary_ms(&self) -> SummaryValue {
        self.0.summary().in_units_of(US_PER_MS)
    }

    pub(super) fn reset(&self) {
        self.0.reset();
    }

    pub(super) fn value(&self) -> Value {
        Value::Summary(self.summary_ms())
    }
}

/// Which value 50, 95, 99 and 99.9 of a hundred recorded ones do not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// The median.
    pub p50: u64,
    /// 95 %.
    pub p95: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
}

/// Buckets per doubling: a percentile is at most an eighth too large.
const SUB_BUCKETS: u64 = 8;
/// Times beyond about 78 hours fall into the last bucket.
const DOUBLINGS: u64 = 36;
const BUCKETS: usize = (SUB_BUCKETS * DOUBLINGS) as usize;

/// A distribution of times: recorded in microseconds, told in milliseconds.
#[derive(Debug)]
pub struct Histogram {
    summary: Summary,
    buckets: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            summary: Summary::default(),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Histogram {
    /// Records a time in microseconds.
    pub fn record_us(&self, us: u64) {
        self.summary.record(us);
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
    }

    /// Records `count` times of as many microseconds each.
    pub fn record_us_times(&self, us: u64, count: u64) {
        self.summary.record_times(us, count);
        self.buckets[bucket(us)].fetch_add(count, Relaxed);
    }

    /// What they come to, in milliseconds.
    #[must_use]
    pub fn summary_ms(&self) -> SummaryValue {
        self.summary.summary().in_units_of(US_PER_MS)
    }

    /// Their distribution, in milliseconds.
    #[must_use]
    pub fn percentiles_ms(&self) -> Percentiles {
        let counts: Vec<u64> = self.buckets.iter().map(|n| n.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let max_us = self.summary.summary().max;
        let at = |per_mille: u64| {
            let rank = (total * per_mille).div_ceil(1000).max(1);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            found.map_or(0, |index| ceiling(index).min(max_us)) / US_PER_MS
        };
        Percentiles {
            p50: at(500),
            p95: at(950),
            p99: at(990),
            p999: at(999),
        }
    }

    pub(super) fn reset(&self) {
        self.summary.reset();
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    pub(super) fn value(&self) -> Value {
        Value::Histogram(self.summary_ms(), self.percentiles_ms())
    }
}

/// The bucket of a value: exact below 8, then eight for each doubling.
fn bucket(value: u64) -> usize {
    let index = if value < SUB_BUCKETS {
        value
    } else {
        let doubling = u64::from(value.ilog2()) - 3;
        (doubling + 1) * SUB_BUCKETS + ((value >> doubling) - SUB_BUCKETS)
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn ceiling(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB_BUCKETS {
        return index;
    }
    let doubling = index / SUB_BUCKETS - 1;
    ((index % SUB_BUCKETS + SUB_BUCKETS + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    #[test]
    fn a_summary_of_nothing_and_of_some() {
        let summary = Summary::default();
        assert_eq!(summary.summary(), SummaryValue::default());
        for value in [4, 1, 7] {
            summary.record(value);
        }
        let value = summary.summary();
        assert_eq!((value.min, value.max, value.cnt, value.sum), (1, 7, 3, 12));
        assert!((value.avg - 4.0).abs() < 1e-9);
        summary.reset();
        assert_eq!(summary.summary(), SummaryValue::default());
    }

    #[test]
    fn times_keep_the_fraction_of_their_mean() {
        let timing = Timing::default();
        timing.record_us(150);
        timing.record_us(250);
        let value = timing.summary_ms();
        assert_eq!((value.min, value.max, value.cnt, value.sum), (0, 0, 2, 0));
        assert!((value.avg - 0.2).abs() < 1e-9);
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut prng = Prng::new(1);
        let drawn = (0..10_000).map(|_| prng.next_u64() >> prng.between(26, 63));
        for value in (0..3000).chain(drawn) {
            let index = bucket(value);
            assert!(value <= ceiling(index), "{value}");
            assert!(index == 0 || value > ceiling(index - 1), "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_close_to_the_sorted_truth() {
        let mut prng = Prng::new(2);
        let histogram = Histogram::default();
        let mut all: Vec<u64> = (0..5000).map(|_| 1000 * prng.between(1, 5000)).collect();
        for us in &all {
            histogram.record_us(*us);
        }
        all.sort_unstable();
        let told = histogram.percentiles_ms();
        for (told, per_mille) in [
            (told.p50, 500),
            (told.p95, 950),
            (told.p99, 990),
            (told.p999, 999),
        ] {
            let truth = all[all.len() * per_mille / 1000 - 1] / 1000;
            assert!(
                told >= truth && told <= truth + truth / 8 + 1,
                "{told} {truth}"
            );
        }
        assert_eq!(
            Histogram::default().percentiles_ms(),
            Percentiles::default()
        );
    }
}
