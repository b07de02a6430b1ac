//! What a bench found out: figures of every round, their medians, and how two servers compare; as a table, as JSON,
//! as a page and as pictures.

mod figure;
pub mod goals;
mod page;
mod plots;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tabled::builder::Builder;
use tabled::settings::{Alignment, Style, object::Columns};

pub use self::figure::{Kind, Spread, Unit};
pub use self::page::page;
pub use self::plots::{Picture, pictures};
use super::Out;
use crate::bench::{Outcome, Seen, Usage};
use crate::failure::Exit;
use crate::scenario::stamp;

/// Columns of the table on the terminal, at most; the rest is in JSON and on the page.
const COLUMNS: usize = 12;

/// What one operation cost the servers, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Processor time, in µs.
    pub cpu_us: f64,
    /// Bytes handed to calls that write, to files and by some servers to connections.
    pub written: f64,
    /// Bytes that had to go to a disk, in whole pages; of files in memory there are none.
    pub disk: f64,
    /// System calls that write.
    pub write_calls: f64,
    /// Syncs of the txn logs, as the servers count them.
    pub syncs: Option<f64>,
    /// Resident memory at the end, in bytes; of all servers, not of an operation.
    pub resident: u64,
}

impl Used {
    /// For each of `ops` operations.
    #[must_use]
    pub fn of(usage: &Usage, syncs: Option<u64>, ops: u64) -> Self {
        let each = |total: u64| total as f64 / ops.max(1) as f64;
        Self {
            cpu_us: each(usage.cpu_us),
            written: each(usage.written),
            disk: each(usage.disk),
            write_calls: each(usage.write_calls),
            syncs: syncs.map(each),
            resident: usage.resident,
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The figures, by the keys of their kinds.
    pub figures: BTreeMap<String, f64>,
    /// What the clients of a load saw.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What the servers used, if they are this machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
    /// What other clients saw meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bystanders: Option<Seen>,
    /// Processor time of the load generator for each operation, in µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator_cpu_us: Option<f64>,
    /// Single measurements behind a figure, in µs, by what they are of: `quiet`, `loaded`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub samples: BTreeMap<String, Vec<f64>>,
}

impl Round {
    /// Adds a figure, if it is known.
    pub fn put(&mut self, key: &str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.figures.insert(key.to_owned(), value);
        }
    }
}

/// One of those compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What it is: `zkd 0.1.0`.
    pub name: String,
    /// Its measurements.
    pub rounds: Vec<Round>,
    /// Why it could not be measured further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Side {
    /// Without measurements.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rounds: Vec::new(),
            failed: None,
        }
    }

    /// A figure over all rounds.
    #[must_use]
    pub fn spread(&self, key: &str) -> Option<Spread> {
        let values = self.rounds.iter().map(|round| round.figures.get(key));
        Spread::of(values.flatten().copied())
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this format, 1.
    pub v: u32,
    /// `bench`.
    pub cmd: String,
    /// What was measured, in words.
    pub what: String,
    /// What an operation is, and whatever else has to be known to read the figures.
    pub notes: Vec<String>,
    /// The machine.
    pub machine: String,
    /// The day, UTC.
    pub date: String,
    /// The figures there are.
    pub kinds: Vec<Kind>,
    /// Those compared.
    pub sides: Vec<Side>,
    /// If there are two: the first side's figures to the second's, round by round.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ratios: BTreeMap<String, Spread>,
}

impl Report {
    /// Puts the measurements together.
    #[must_use]
    pub fn new(what: String, notes: Vec<String>, kinds: Vec<Kind>, sides: Vec<Side>) -> Self {
        let ratios = match sides.as_slice() {
            [a, b] => kinds
                .iter()
                .filter_map(|kind| Some((kind.key.clone(), ratio(a, b, &kind.key)?)))
                .collect(),
            _ => BTreeMap::new(),
        };
        let is_there = |kind: &Kind| sides.iter().any(|side| side.spread(&kind.key).is_some());
        Self {
            v: 1,
            cmd: "bench".to_owned(),
            what,
            notes,
            machine: machine(),
            date: stamp().chars().take(10).collect(),
            kinds: kinds.into_iter().filter(is_there).collect(),
            sides,
            ratios,
        }
    }

    /// Operations that were refused, or clients that were lost, are no good measurement.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.complaints().is_empty() {
            true => Exit::Ok,
            false => Exit::Missed,
        }
    }

    /// What spoils the measurement.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        for side in &self.sides {
            if let Some(failed) = &side.failed {
                all.push(format!("{}: {failed}; it took no part any more", side.name));
            }
            for round in &side.rounds {
                if let Some(outcome) = &round.outcome
                    && (outcome.failed > 0 || outcome.lost > 0)
                {
                    let error = outcome
                        .first_error
                        .map_or(String::new(), |code| format!(" (error {code})"));
                    all.push(format!(
                        "{}: {} operations refused{error}, {} connections lost: no good measurement",
                        side.name, outcome.failed, outcome.lost
                    ));
                }
                if let Some(seen) = &round.bystanders
                    && (seen.late > 0 || seen.lost > 0)
                {
                    all.push(format!(
                        "{}: other clients had {} of {} heartbeats answered late, and lost {} \
                         connections or operations meanwhile",
                        side.name, seen.late, seen.heartbeats, seen.lost
                    ));
                }
            }
        }
        all
    }

    /// How much better the first side is in a figure: above 1 it is better, whichever way the figure goes.
    #[must_use]
    pub fn advantage(&self, kind: &Kind) -> Option<Spread> {
        let ratio = self.ratios.get(&kind.key)?;
        let advantage = if kind.more_is_better {
            *ratio
        } else {
            ratio.inverse()
        };
        let is_told = advantage.median.is_finite() && advantage.median > 0.0;
        is_told.then_some(advantage)
    }

    /// Shows it.
    pub fn show(&self, out: &Out) {
        out.json(self);
        out.line(&format!("{} · {} · {}", self.what, self.machine, self.date));
        out.line(&self.table());
        if let [a, b] = self.sides.as_slice() {
            let told = self.kinds.iter().filter(|kind| kind.compared);
            let told: Vec<String> = told
                .filter_map(|kind| {
                    let ratio = self.ratios.get(&kind.key)?;
                    Some(format!("{} {}", kind.head.to_lowercase(), ratio.ratio()))
                })
                .collect();
            out.line(&format!(
                "{} to {}, medians of the rounds' ratios: {}",
                a.name,
                b.name,
                told.join(", ")
            ));
        }
        for complaint in self.complaints() {
            out.line(&complaint);
        }
    }

    fn table(&self) -> String {
        let kinds: Vec<&Kind> = self.kinds.iter().take(COLUMNS).collect();
        let mut table = Builder::new();
        let heads = kinds.iter().map(|kind| kind.head.clone());
        let ends = ["".to_owned(), "ROUNDS".to_owned()];
        table.push_record(
            ends[..1]
                .iter()
                .cloned()
                .chain(heads)
                .chain(ends[1..].iter().cloned()),
        );
        for side in &self.sides {
            let cells = kinds.iter().map(|kind| match side.spread(&kind.key) {
                Some(spread) => kind.unit.text(spread.median),
                None => "–".to_owned(),
            });
            let name = std::iter::once(side.name.clone());
            let rounds = std::iter::once(side.rounds.len().to_string());
            table.push_record(name.chain(cells).chain(rounds));
        }
        let mut table = table.build();
        table.with(Style::blank());
        table.modify(Columns::new(1..), Alignment::right());
        let lines: Vec<String> = table
            .to_string()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines.join("\n")
    }
}

/// The first side's figure to the second's, round by round.
fn ratio(a: &Side, b: &Side, key: &str) -> Option<Spread> {
    let pairs = a.rounds.iter().zip(&b.rounds);
    Spread::of(pairs.filter_map(|(a, b)| Some(a.figures.get(key)? / b.figures.get(key)?)))
}

/// Kernel and processors.
fn machine() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {processors} processors", release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let kinds = vec![
            Kind::new("rate", "OPS/S", "operations a second", Unit::PerSecond).more(),
            Kind::new("p99", "P99", "99th percentile", Unit::Micros),
            Kind::new("memory", "MEMORY", "resident memory", Unit::Bytes),
        ];
        let side = |name: &str, rounds: &[(f64, f64)]| Side {
            name: name.to_owned(),
            rounds: rounds
                .iter()
                .map(|(rate, p99)| {
                    let mut round = Round::default();
                    round.put("rate", *rate);
                    round.put("p99", *p99);
                    round.put("memory", None);
                    round
                })
                .collect(),
            failed: None,
        };
        let sides = vec![
            side("a<b", &[(40.0, 1.0), (60.0, 2.0), (50.0, 3.0)]),
            side("c", &[(10.0, 10.0), (10.0, 10.0), (25.0, 10.0)]),
        ];
        Report::new("writes".to_owned(), Vec::new(), kinds, sides)
    }

    #[test]
    fn ratios_are_those_of_the_rounds_and_an_advantage_is_above_one() {
        let report = report();
        let keys: Vec<&str> = report.kinds.iter().map(|kind| kind.key.as_str()).collect();
        assert_eq!(keys, ["rate", "p99"]);
        let rate = report.advantage(&report.kinds[0]).unwrap();
        assert_eq!(rate.times(), "4.00× (2.00–6.00)");
        let p99 = report.advantage(&report.kinds[1]).unwrap();
        assert_eq!(p99.times(), "5.00× (3.33–10.0)");
    }

    #[test]
    fn a_report_can_be_read_again() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn the_page_is_whole_and_names_stay_text() {
        let page = page(&report());
        assert!(page.contains("a&lt;b") && !page.contains("a<b"));
        assert!(page.contains("4.00") && page.ends_with("</html>\n"));
        for picture in pictures(&report()) {
            assert!(picture.svg.starts_with("<svg xmlns="), "{}", picture.svg);
            assert!(!picture.svg.contains("NaN"), "{}", picture.svg);
        }
    }
}
