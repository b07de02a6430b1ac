//! Amounts with a unit, and what the seed may choose from.
//!
//! Every amount is a whole number: times in microseconds, chances in millionths. So a seed's choices are the same on
//! every machine, and what was chosen can be written down without loss.

use zkd::prng::Prng;

use crate::clock;
use crate::fault::change;

/// What an amount counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Microseconds.
    Time,
    /// Millionths.
    Chance,
}

/// A chance of one, in millionths.
const WHOLE: f64 = 1e6;

impl Unit {
    /// Reads `5`, `250ms` or `1%`.
    ///
    /// # Errors
    /// If it is no such amount.
    pub fn parse(self, text: &str) -> Result<u64, String> {
        let text = text.trim();
        match self {
            Self::Count => text
                .parse()
                .map_err(|_| format!("{text:?} is not a number of things")),
            Self::Time if text == "0" => Ok(0),
            Self::Time => clock::duration(text)
                .map(|length| u64::try_from(length.as_micros()).unwrap_or(u64::MAX)),
            Self::Chance => change::chance(text).map(|chance| (chance * WHOLE).round() as u64),
        }
    }

    /// As people write it; reads back as the same amount.
    #[must_use]
    pub fn render(self, amount: u64) -> String {
        match self {
            Self::Count => amount.to_string(),
            Self::Time if amount.is_multiple_of(1_000_000) => format!("{}s", amount / 1_000_000),
            Self::Time if amount.is_multiple_of(1_000) => format!("{}ms", amount / 1_000),
            Self::Time => format!("{amount}us"),
            Self::Chance => {
                let (whole, rest) = (amount / 10_000, amount % 10_000);
                let digits = format!("{whole}.{rest:04}");
                format!("{}%", digits.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }

    /// What such an amount looks like.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::Count => "a number such as 5, a list or a range such as \"2..5\"",
            Self::Time => "a duration such as \"250ms\", a list or a range such as \"1s..2s\"",
            Self::Chance => "a chance such as \"1%\", a list or a range such as \"0..5%\"",
        }
    }
}

/// What the seed chooses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One of these.
    One(Vec<u64>),
    /// Anything from the first to the second.
    Between(u64, u64),
}

impl Choice {
    /// No choice.
    #[must_use]
    pub fn fixed(amount: u64) -> Self {
        Self::One(vec![amount])
    }

    /// Reads one amount or a range.
    ///
    /// # Errors
    /// If it is neither, or the range is upside down.
    pub fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        let Some((low, high)) = text.split_once("..") else {
            return unit.parse(text).map(Self::fixed);
        };
        let (low, high) = (low.trim(), high.trim());
        // "20..40ms" says its unit once.
        let low = if low.ends_with(|last: char| last.is_ascii_digit()) && low != "0" {
            let number_ends = high.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            format!("{low}{number_ends}")
        } else {
            low.to_owned()
        };
        let (low, high) = (unit.parse(&low)?, unit.parse(high)?);
        if low > high {
            return Err(format!("{text:?} goes down, and has to go up"));
        }
        Ok(Self::Between(low, high))
    }

    /// What this generator chooses. Times are rounded to milliseconds where there is room for that.
    pub fn draw(&self, prng: &mut Prng) -> u64 {
        match self {
            Self::One(amounts) => *prng.pick(amounts),
            Self::Between(low, high) => prng.between(*low, *high),
        }
    }

    /// The largest that can be chosen.
    #[must_use]
    pub fn largest(&self) -> u64 {
        match self {
            Self::One(amounts) => amounts.iter().copied().max().unwrap_or(0),
            Self::Between(_, high) => *high,
        }
    }

    /// The smallest that can be chosen.
    #[must_use]
    pub fn smallest(&self) -> u64 {
        match self {
            Self::One(amounts) => amounts.iter().copied().min().unwrap_or(0),
            Self::Between(low, _) => *low,
        }
    }

    /// A duration that this generator chooses, in whole milliseconds where the range allows it.
    pub fn draw_time(&self, prng: &mut Prng) -> u64 {
        let drawn = self.draw(prng);
        let rounded = drawn / 1_000 * 1_000;
        if rounded >= self.smallest() && matches!(self, Self::Between(..)) {
            rounded
        } else {
            drawn
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_come_back_as_they_were_written() {
        for (unit, text, amount) in [
            (Unit::Time, "250ms", 250_000),
            (Unit::Time, "3s", 3_000_000),
            (Unit::Time, "17us", 17),
            (Unit::Chance, "1%", 10_000),
            (Unit::Chance, "0.5%", 5_000),
            (Unit::Chance, "0%", 0),
            (Unit::Count, "7", 7),
        ] {
            assert_eq!(unit.parse(text), Ok(amount), "{text}");
            assert_eq!(unit.render(amount), text);
        }
        assert_eq!(Unit::Time.parse("0"), Ok(0));
        assert!(Unit::Time.parse("5").unwrap_err().contains("needs a unit"));
        assert!(Unit::Count.parse("-1").is_err() && Unit::Chance.parse("7").is_err());
    }

    #[test]
    fn a_range_says_its_unit_once_or_twice_and_goes_up() {
        let between = |low, high| Ok(Choice::Between(low, high));
        assert_eq!(
            Choice::parse("500ms..1500ms", Unit::Time),
            between(500_000, 1_500_000)
        );
        assert_eq!(
            Choice::parse("20..40ms", Unit::Time),
            between(20_000, 40_000)
        );
        assert_eq!(Choice::parse("0..5%", Unit::Chance), between(0, 50_000));
        assert_eq!(Choice::parse("2..5", Unit::Count), between(2, 5));
        assert!(
            Choice::parse("2s..1s", Unit::Time)
                .unwrap_err()
                .contains("goes down")
        );
        assert!(Choice::parse("1..2", Unit::Time).is_err());
    }

    #[test]
    fn draws_stay_inside_and_times_are_round() {
        let mut prng = Prng::new(3);
        let times = Choice::Between(500, 1_500_000);
        for _ in 0..1000 {
            let drawn = times.draw_time(&mut prng);
            assert!((500..=1_500_000).contains(&drawn));
            assert!(drawn.is_multiple_of(1000) || drawn < 1000);
        }
        assert_eq!((times.smallest(), times.largest()), (500, 1_500_000));
    }
}
