//! What a bench found out: the medians of its rounds, and how two servers compare.

use serde::{Deserialize, Serialize};
use tabled::builder::Builder;
use tabled::settings::{Alignment, Style, object::Columns};

use super::Out;
use super::history::count;
use crate::bench::{Outcome, Usage};
use crate::failure::Exit;

/// What one operation cost the servers, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Processor time, in µs.
    pub cpu_us: f64,
    /// Bytes written.
    pub written: f64,
    /// System calls that write.
    pub write_calls: f64,
    /// Resident memory at the end, in bytes; of all servers, not of an operation.
    pub resident: u64,
}

impl Used {
    /// For each of `ops` operations.
    #[must_use]
    pub fn of(usage: &Usage, ops: u64) -> Self {
        let each = |total: u64| total as f64 / ops.max(1) as f64;
        Self {
            cpu_us: each(usage.cpu_us),
            written: each(usage.written),
            write_calls: each(usage.write_calls),
            resident: usage.resident,
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// What the clients saw.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What the servers used, if they are this machine's.
    pub used: Option<Used>,
    /// Processor time of the load generator for each operation, in µs.
    pub generator_cpu_us: f64,
}

/// One of those compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What it is: `zkd 0.1.0`.
    pub name: String,
    /// Its measurements.
    pub rounds: Vec<Round>,
}

impl Side {
    /// Without measurements.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rounds: Vec::new(),
        }
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        spread(self.rounds.iter().map(of).collect()).median
    }

    fn median_used(&self, of: impl Fn(&Used) -> f64) -> Option<f64> {
        let values: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|r| Some(of(r.used.as_ref()?)))
            .collect();
        (!values.is_empty()).then(|| spread(values).median)
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

/// Of values of which there is at least one.
fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) && middle > 0 {
        f64::midpoint(at(middle - 1), at(middle))
    } else {
        at(middle)
    };
    Spread {
        min: at(0),
        median,
        max: at(values.len().saturating_sub(1)),
    }
}

/// How the first side does, measured by the second, round by round; above 1 the first has more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Operations a second.
    pub rate: Spread,
    /// Median latency.
    pub p50: Spread,
    /// 99th percentile.
    pub p99: Spread,
    /// Processor time of the servers.
    pub cpu: Option<Spread>,
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
    /// The machine.
    pub machine: String,
    /// Those compared.
    pub sides: Vec<Side>,
    /// If there are two.
    pub ratios: Option<Ratios>,
}

impl Report {
    /// Puts the measurements together.
    #[must_use]
    pub fn new(what: String, sides: Vec<Side>) -> Self {
        let ratios = match sides.as_slice() {
            [a, b] => Some(ratios(a, b)),
            _ => None,
        };
        Self {
            v: 1,
            cmd: "bench".to_owned(),
            what,
            machine: machine(),
            sides,
            ratios,
        }
    }

    /// Operations that were refused, or clients that were lost, are no good measurement.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let rounds = self.sides.iter().flat_map(|side| &side.rounds);
        let is_bad = |round: &Round| round.outcome.failed > 0 || round.outcome.lost > 0;
        match rounds.into_iter().any(is_bad) {
            true => Exit::Missed,
            false => Exit::Ok,
        }
    }

    /// Shows it.
    pub fn show(&self, out: &Out) {
        out.json(self);
        out.line(&format!("{} · {}", self.what, self.machine));
        out.line(&self.table());
        if let Some(ratios) = &self.ratios {
            out.line(&sentence(&self.sides[0].name, &self.sides[1].name, ratios));
        }
        for side in &self.sides {
            for round in &side.rounds {
                let Outcome {
                    failed,
                    lost,
                    first_error,
                    ..
                } = round.outcome;
                if failed > 0 || lost > 0 {
                    let error =
                        first_error.map_or(String::new(), |code| format!(" (error {code})"));
                    out.line(&format!(
                        "{}: {failed} operations refused{error}, {lost} connections lost: no good measurement",
                        side.name
                    ));
                }
            }
        }
    }

    fn table(&self) -> String {
        let mut table = Builder::new();
        table.push_record([
            "",
            "OPS/S",
            "P50",
            "P99",
            "P99.9",
            "MAX",
            "CPU/OP",
            "WRITES/OP",
            "MEMORY",
            "ROUNDS",
        ]);
        for side in &self.sides {
            let micros = |value: f64| match value {
                ..1000.0 => format!("{value:.0} µs"),
                _ => format!("{:.2} ms", value / 1e3),
            };
            let used = |of: fn(&Used) -> f64, digits: usize, unit: &str| match side.median_used(of)
            {
                Some(value) => format!("{value:.digits$}{unit}"),
                None => "–".to_owned(),
            };
            table.push_record([
                side.name.clone(),
                count(side.median(|round| round.outcome.rate) as u64),
                micros(side.median(|round| round.outcome.latency.p50_us)),
                micros(side.median(|round| round.outcome.latency.p99_us)),
                micros(side.median(|round| round.outcome.latency.p999_us)),
                micros(side.median(|round| round.outcome.latency.max_us)),
                used(|used| used.cpu_us, 1, " µs"),
                used(|used| used.write_calls, 2, ""),
                used(|used| used.resident as f64 / f64::from(1 << 20), 0, " MiB"),
                side.rounds.len().to_string(),
            ]);
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

fn ratios(a: &Side, b: &Side) -> Ratios {
    let pairs = || a.rounds.iter().zip(&b.rounds);
    let of = |value: fn(&Round) -> f64| spread(pairs().map(|(a, b)| value(a) / value(b)).collect());
    let cpu: Vec<f64> = pairs()
        .filter_map(|(a, b)| Some(a.used.as_ref()?.cpu_us / b.used.as_ref()?.cpu_us))
        .collect();
    Ratios {
        rate: of(|round| round.outcome.rate),
        p50: of(|round| round.outcome.latency.p50_us),
        p99: of(|round| round.outcome.latency.p99_us),
        cpu: (!cpu.is_empty()).then(|| spread(cpu)),
    }
}

fn sentence(a: &str, b: &str, ratios: &Ratios) -> String {
    let times =
        |spread: &Spread| format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max);
    let cpu = ratios.cpu.as_ref().map_or(String::new(), |cpu| {
        format!(", CPU an operation {}", times(cpu))
    });
    format!(
        "{a} to {b}, medians of the rounds' ratios: rate {}, p50 {}, p99 {}{cpu}",
        times(&ratios.rate),
        times(&ratios.p50),
        times(&ratios.p99),
    )
}

/// Kernel, processors, day.
fn machine() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {processors} processors", release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_middle() {
        assert!((spread(vec![3.0, 1.0, 2.0]).median - 2.0).abs() < 1e-9);
        assert!((spread(vec![4.0, 1.0]).median - 2.5).abs() < 1e-9);
        assert!(spread(Vec::new()).median.is_nan());
    }
}
