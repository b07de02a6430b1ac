//! What `link set` changes on a link; everything else of the link stays.

use serde::{Deserialize, Serialize};

use crate::net::link::LinkFaults;

/// A change of some of the faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkChange {
    /// Microseconds.
    pub delay_us: Option<u64>,
    /// Microseconds.
    pub jitter_us: Option<u64>,
    /// A chance.
    pub loss: Option<f64>,
    /// Packets.
    pub burst: Option<f64>,
    /// A chance.
    pub duplicate: Option<f64>,
    /// A chance.
    pub reorder: Option<f64>,
    /// A chance.
    pub corrupt: Option<f64>,
    /// Bits a second.
    pub rate_bps: Option<u64>,
    /// Bytes.
    pub queue_bytes: Option<u64>,
}

impl LinkChange {
    /// It changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Does it say something of everything that `other` says something of?
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        fn is_said<T>(new: Option<T>, old: Option<T>) -> bool {
            new.is_some() || old.is_none()
        }
        is_said(self.delay_us, other.delay_us)
            && is_said(self.jitter_us, other.jitter_us)
            && is_said(self.loss, other.loss)
            && is_said(self.burst, other.burst)
            && is_said(self.duplicate, other.duplicate)
            && is_said(self.reorder, other.reorder)
            && is_said(self.corrupt, other.corrupt)
            && is_said(self.rate_bps, other.rate_bps)
            && is_said(self.queue_bytes, other.queue_bytes)
    }

    /// This, and where it says nothing, what `other` says.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self {
            delay_us: self.delay_us.or(other.delay_us),
            jitter_us: self.jitter_us.or(other.jitter_us),
            loss: self.loss.or(other.loss),
            burst: self.burst.or(other.burst),
            duplicate: self.duplicate.or(other.duplicate),
            reorder: self.reorder.or(other.reorder),
            corrupt: self.corrupt.or(other.corrupt),
            rate_bps: self.rate_bps.or(other.rate_bps),
            queue_bytes: self.queue_bytes.or(other.queue_bytes),
        }
    }

    /// In a few words, as it was typed: `20ms 1%`.
    #[must_use]
    pub fn brief(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.delay_us.map(span));
        words.extend(self.jitter_us.map(|us| format!("±{}", span(us))));
        words.extend(self.loss.map(percent));
        words.extend(self.burst.map(|length| format!("burst {length}")));
        words.extend(self.duplicate.map(|one| format!("dup {}", percent(one))));
        words.extend(self.reorder.map(|one| format!("reorder {}", percent(one))));
        words.extend(self.corrupt.map(|one| format!("corrupt {}", percent(one))));
        words.extend(self.rate_bps.map(bits));
        words.extend(self.queue_bytes.map(|bytes| format!("queue {bytes}")));
        words.join(" ")
    }

    /// Makes the change.
    pub fn apply(&self, to: &mut LinkFaults) {
        fn put<T: Copy>(place: &mut T, value: Option<T>) {
            *place = value.unwrap_or(*place);
        }
        put(&mut to.delay_us, self.delay_us);
        put(&mut to.jitter_us, self.jitter_us);
        put(&mut to.loss, self.loss);
        put(&mut to.burst, self.burst);
        put(&mut to.duplicate, self.duplicate);
        put(&mut to.reorder, self.reorder);
        put(&mut to.corrupt, self.corrupt);
        put(&mut to.rate_bps, self.rate_bps);
        put(&mut to.queue_bytes, self.queue_bytes);
    }
}

/// A chance as it is typed: `1%`.
#[must_use]
pub fn percent(chance: f64) -> String {
    // Two digits behind the point are enough to tell what was typed.
    format!("{}%", (chance * 10_000.0).round() / 100.0)
}

/// A time as it is typed: `20ms`, `1500µs`.
#[must_use]
pub fn span(us: u64) -> String {
    if us.is_multiple_of(1000) {
        format!("{}ms", us / 1000)
    } else {
        format!("{us}µs")
    }
}

/// A rate as it is typed: `10mbit`.
#[must_use]
pub fn bits(bps: u64) -> String {
    match bps {
        _ if bps.is_multiple_of(1_000_000_000) => format!("{}gbit", bps / 1_000_000_000),
        _ if bps.is_multiple_of(1_000_000) => format!("{}mbit", bps / 1_000_000),
        _ if bps.is_multiple_of(1000) => format!("{}kbit", bps / 1000),
        _ => format!("{bps}bit"),
    }
}

/// A chance: `1%`, `0.5 %` or `0.01`.
///
/// # Errors
/// If it is none, or not between 0 and 1.
pub fn chance(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), 100.0),
        None => (text, 1.0),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a chance such as 1% or 0.01"))?;
    let chance = number / scale;
    if (0.0..=1.0).contains(&chance) {
        Ok(chance)
    } else {
        Err(format!("{text:?} is not between 0 and 100%"))
    }
}

/// A rate in bits a second: `10mbit`, `500kbit`, `1gbit`.
///
/// # Errors
/// If it is none.
pub fn rate(text: &str) -> Result<u64, String> {
    let units = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)];
    scaled(text, &units)
        .filter(|bits| *bits > 0)
        .ok_or_else(|| format!("{text:?} is not a rate such as 10mbit, 500kbit or 1gbit"))
}

/// A size in bytes: `64k`, `1m`, `1500`.
///
/// # Errors
/// If it is none.
pub fn size(text: &str) -> Result<u64, String> {
    scaled(text, &[("m", 1_048_576.0), ("k", 1024.0), ("", 1.0)])
        .ok_or_else(|| format!("{text:?} is not a size such as 64k, 1m or 1500"))
}

/// A mean length of bursts, in packets.
///
/// # Errors
/// If it is none.
pub fn burst(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|length| (1.0..=1e6).contains(length))
        .ok_or_else(|| format!("{text:?} is not a mean number of packets such as 5"))
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let lower = text.to_lowercase();
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((lower.strip_suffix(unit)?, *scale)))?;
    let value = number.trim().parse::<f64>().ok()? * scale;
    // Up to here a float holds every whole number.
    (0.0..9e15).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_rest_as_it_is() {
        let mut link = LinkFaults {
            loss: 0.5,
            delay_us: 7,
            ..LinkFaults::default()
        };
        let change = LinkChange {
            delay_us: Some(20_000),
            ..LinkChange::default()
        };
        assert!(!change.is_empty() && LinkChange::default().is_empty());
        change.apply(&mut link);
        assert!(link.delay_us == 20_000 && (link.loss - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn amounts_are_read_with_their_units_and_nonsense_is_refused() {
        assert_eq!(chance("1%"), Ok(0.01));
        assert_eq!(chance("0.25"), Ok(0.25));
        assert_eq!(rate("10mbit"), Ok(10_000_000));
        assert_eq!(rate("1.5Gbit"), Ok(1_500_000_000));
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("1500"), Ok(1500));
        assert_eq!(burst("5"), Ok(5.0));
        for wrong in ["", "x", "101%", "-1%", "1.1", "NaN", "inf"] {
            assert!(chance(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "10", "mbit", "-1mbit", "0bit", "1e30gbit", "10mb"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert!(size("64q").is_err() && size("-1").is_err());
        assert!(burst("0").is_err() && burst("NaN").is_err());
    }
}
