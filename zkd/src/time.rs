//! Time as the machines see it: numbers handed in, never read.
//!
//! Law kept here: nothing below floor 6 reads a clock. A driver passes [`Now`] into every step and
//! asks for the next deadline; a machine keeps its deadlines in a [`TimerTable`].

use std::fmt;
use std::ops::{Add, Sub};

/// A point of monotonic time in milliseconds since the driver's own start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is later.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Instant {
    type Output = Self;

    /// The instant `ms` milliseconds later.
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Sub for Instant {
    type Output = u64;

    fn sub(self, earlier: Self) -> u64 {
        self.ms_since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Both clocks at the moment of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic time: every deadline is counted on it.
    pub instant: Instant,
    /// Wall clock in milliseconds since 1970: only ever written into txn headers and Stat fields,
    /// never compared with a deadline.
    pub wall_ms: i64,
}

/// Deadlines by name. `T` is a small closed enum of the owner's timers, so a table holds a handful
/// of entries and a scan is the fastest queue.
#[derive(Clone, Debug)]
pub struct TimerTable<T> {
    deadlines: Vec<(T, Instant)>,
}

impl<T> Default for TimerTable<T> {
    fn default() -> Self {
        Self {
            deadlines: Vec::new(),
        }
    }
}

impl<T: Copy + PartialEq> TimerTable<T> {
    /// Sets `timer` to fire at `deadline`, replacing an earlier setting.
    pub fn set(&mut self, timer: T, deadline: Instant) {
        match self.deadlines.iter_mut().find(|(t, _)| *t == timer) {
            Some(slot) => slot.1 = deadline,
            None => self.deadlines.push((timer, deadline)),
        }
    }

    /// Stops `timer`; nothing happens if it was not set.
    pub fn stop(&mut self, timer: T) {
        self.deadlines.retain(|(t, _)| *t != timer);
    }

    /// Stops every timer.
    pub fn clear(&mut self) {
        self.deadlines.clear();
    }

    /// Whether `timer` is set, and for when.
    #[must_use]
    pub fn deadline(&self, timer: T) -> Option<Instant> {
        self.deadlines
            .iter()
            .find(|(t, _)| *t == timer)
            .map(|(_, at)| *at)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.iter().map(|(_, at)| *at).min()
    }

    /// Takes the earliest timer whose deadline is not after `now`. Call it until it says `None`.
    pub fn expired(&mut self, now: Instant) -> Option<T> {
        let (index, _) = self
            .deadlines
            .iter()
            .enumerate()
            .filter(|(_, (_, at))| *at <= now)
            .min_by_key(|(_, (_, at))| *at)?;
        Some(self.deadlines.remove(index).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_once() {
        let mut table = TimerTable::default();
        table.set('b', Instant(20));
        table.set('a', Instant(10));
        table.set('b', Instant(15));
        assert_eq!(table.next(), Some(Instant(10)));
        assert_eq!(table.expired(Instant(9)), None);
        assert_eq!(table.expired(Instant(15)), Some('a'));
        assert_eq!(table.expired(Instant(15)), Some('b'));
        assert_eq!(table.expired(Instant(99)), None);
        assert_eq!(table.next(), None);
    }
}
