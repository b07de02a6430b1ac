//! Figures: what they are called, how they are written, and how those of several rounds are put together.

use serde::{Deserialize, Serialize};

use crate::report::history::count;

/// In what a figure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Operations or znodes a second.
    PerSecond,
    /// Microseconds.
    Micros,
    /// Bytes.
    Bytes,
    /// How many.
    Count,
}

impl Unit {
    /// A value as people read it.
    #[must_use]
    pub fn text(self, value: f64) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        match self {
            Self::PerSecond => count(value.round() as u64),
            Self::Micros => match value {
                ..9.95 => format!("{value:.1} µs"),
                ..999.5 => format!("{value:.0} µs"),
                ..9_995.0 => format!("{:.2} ms", value / 1e3),
                ..99_950.0 => format!("{:.1} ms", value / 1e3),
                ..9_999_500.0 => format!("{:.0} ms", value / 1e3),
                _ => format!("{:.1} s", value / 1e6),
            },
            Self::Bytes => match value {
                ..1023.5 => format!("{value:.0} B"),
                ..1_048_064.0 => format!("{:.1} KiB", value / 1024.0),
                ..10_480_000.0 => format!("{:.1} MiB", value / 1_048_576.0),
                ..1_073_741_824.0 => format!("{:.0} MiB", value / 1_048_576.0),
                _ => format!("{:.2} GiB", value / 1_073_741_824.0),
            },
            Self::Count if value >= 100.0 || value.fract() == 0.0 => count(value.round() as u64),
            Self::Count => format!("{value:.2}"),
        }
    }
}

/// A figure that every round measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// Its name in JSON.
    pub key: String,
    /// Its name above a column: `P99`.
    pub head: String,
    /// Its name in a sentence: `99th percentile of the latency`.
    pub name: String,
    /// In what it is told.
    pub unit: Unit,
    /// More is better; otherwise less is.
    pub more_is_better: bool,
    /// How two sides compare in it is worth a word; otherwise it only explains the others.
    pub compared: bool,
}

impl Kind {
    /// One of which less is better, and in which sides are compared.
    #[must_use]
    pub fn new(key: &str, head: &str, name: &str, unit: Unit) -> Self {
        Self {
            key: key.to_owned(),
            head: head.to_owned(),
            name: name.to_owned(),
            unit,
            more_is_better: false,
            compared: true,
        }
    }

    /// More of it is better.
    #[must_use]
    pub fn more(mut self) -> Self {
        self.more_is_better = true;
        self
    }

    /// It only explains the others.
    #[must_use]
    pub fn aside(mut self) -> Self {
        self.compared = false;
        self
    }
}

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of values; none if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], upper)
        } else {
            upper
        };
        Some(Self {
            min: values[0],
            median,
            max: values[values.len() - 1],
        })
    }

    /// `2.99 (2.82–3.25)`.
    #[must_use]
    pub fn ratio(&self) -> String {
        self.written("")
    }

    /// `2.99× (2.82–3.25)`.
    #[must_use]
    pub fn times(&self) -> String {
        self.written("×")
    }

    fn written(&self, sign: &str) -> String {
        let short = |value: f64| match value {
            ..10.0 => format!("{value:.2}"),
            ..100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        };
        let median = short(self.median);
        if self.min == self.max {
            return format!("{median}{sign}");
        }
        format!("{median}{sign} ({}–{})", short(self.min), short(self.max))
    }

    /// The other way round: of ratios, those of the second to the first.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self {
            min: 1.0 / self.max,
            median: 1.0 / self.median,
            max: 1.0 / self.min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_middle() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).unwrap().median;
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(Unit::Micros.text(5.67), "5.7 µs");
        assert_eq!(Unit::Micros.text(1_754.0), "1.75 ms");
        assert_eq!(Unit::Micros.text(7_600_000.0), "7600 ms");
        assert_eq!(Unit::Bytes.text(1e9), "954 MiB");
        assert_eq!(Unit::PerSecond.text(121_763.4), "121 763");
        assert_eq!(Unit::Count.text(1.136), "1.14");
        assert_eq!(Unit::Count.text(3.0), "3");
    }
}
