//! Recorded links: how rate and delay of a link changed over time.
//!
//! A line is `MS RATE` or `MS RATE DELAY`: from that millisecond on the link carries so much, and every packet
//! comes so much later. `-` is no limit. Times rise, from 0 on. A last line `MS again` plays it from the start
//! again; without one the last line stays in force. What follows a `#` is for people.
//!
//! ```text
//! 0     10mbit   20ms
//! 250   2mbit    60ms    # into the tunnel
//! 400   -
//! 1000  again
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::change::{self, LinkChange};
use crate::clock::duration;
use crate::failure::{Context, Failure};

/// A recorded link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// From which millisecond on the link is how.
    pub steps: Vec<(u64, LinkChange)>,
    /// The millisecond in which it begins again.
    pub again_ms: Option<u64>,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or makes no sense; names file and line.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .doing(|| format!("cannot read {}", path.display()))
            .map_err(|failure| Failure::usage(failure.cause))?;
        Self::parse(&text).map_err(|(line, cause)| {
            Failure::usage(format!("{}:{line}: {cause}", path.display()))
                .hint("a line is MS RATE [DELAY], for example: 250 2mbit 60ms")
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut trace = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            if !words.is_empty() {
                trace.line(&words).map_err(|cause| (number, cause))?;
            }
        }
        if trace.steps.is_empty() {
            return Err((1, "the trace is empty".to_owned()));
        }
        Ok(trace)
    }

    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        if self.again_ms.is_some() {
            return Err("nothing may follow `again`".to_owned());
        }
        let ms: u64 = words[0]
            .parse()
            .map_err(|_| format!("{:?} is not a time in milliseconds", words[0]))?;
        match self.steps.last() {
            None if ms != 0 => return Err(format!("the first line is for 0 ms, not {ms}")),
            Some((last, _)) if ms <= *last => {
                return Err(format!("{ms} ms does not come after {last} ms"));
            }
            _ => {}
        }
        match &words[1..] {
            ["again"] if ms > 0 => self.again_ms = Some(ms),
            [rate] => self.steps.push((ms, link(rate, None)?)),
            [rate, delay] => self.steps.push((ms, link(rate, Some(delay))?)),
            _ => return Err(format!("{:?} is not MS RATE [DELAY]", words.join(" "))),
        }
        Ok(())
    }
}

fn link(rate: &str, delay: Option<&&str>) -> Result<LinkChange, String> {
    let rate_bps = match rate {
        "-" => 0,
        rate => change::rate(rate)?,
    };
    let delay = delay.map(|text| duration(text)).transpose()?;
    Ok(LinkChange {
        rate_bps: Some(rate_bps),
        delay_us: delay.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        ..LinkChange::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_line_by_line() {
        let text = "# a train\n0 10mbit 20ms\n\n250 2mbit 60ms # tunnel\n400 -\n1000 again\n";
        let trace = Trace::parse(text).unwrap();
        let times: Vec<u64> = trace.steps.iter().map(|(ms, _)| *ms).collect();
        assert_eq!(times, [0, 250, 400]);
        assert_eq!(trace.steps[1].1.rate_bps, Some(2_000_000));
        assert_eq!(trace.steps[1].1.delay_us, Some(60_000));
        assert_eq!(trace.steps[2].1.rate_bps, Some(0));
        assert_eq!(trace.again_ms, Some(1000));
    }

    #[test]
    fn slips_are_told_with_their_line() {
        for (text, line, cause) in [
            ("", 1, "the trace is empty"),
            ("5 1mbit", 1, "the first line is for 0 ms, not 5"),
            ("0 1mbit\n0 2mbit", 2, "0 ms does not come after 0 ms"),
            ("0 1mbit\n9 again\n10 -", 3, "nothing may follow `again`"),
            ("x 1mbit", 1, "\"x\" is not a time in milliseconds"),
            (
                "0 again",
                1,
                "\"again\" is not a rate such as 10mbit, 500kbit or 1gbit",
            ),
            ("0 - 5ms 7", 1, "\"0 - 5ms 7\" is not MS RATE [DELAY]"),
        ] {
            assert_eq!(
                Trace::parse(text),
                Err((line, cause.to_owned())),
                "{text:?}"
            );
        }
    }
}
