//! Goals: what the figures of several reports ought to be, in one table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tabled::builder::Builder;
use tabled::settings::{Alignment, Style, object::Columns};

use super::figure::Spread;
use super::{Kind, Report, plots};
use crate::failure::{Exit, Failure};

/// What ought to be, as a TOML file says it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goals {
    /// One for each line of the table.
    pub goal: Vec<Goal>,
}

/// One figure of one report.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// What is done: `one write at a time, 3 servers`.
    pub work: String,
    /// The name of the report.
    pub report: String,
    /// The key of the figure in it.
    pub figure: String,
    /// The first side's figure is at most so much, in its own unit: µs, bytes.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// The first side is at least so many times better than the second.
    #[serde(default)]
    pub times_better: Option<f64>,
}

/// A goal and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// What is done.
    pub work: String,
    /// The figure, in words.
    pub figure: String,
    /// The goal, in words.
    pub goal: String,
    /// What each side measured, in words.
    pub measured: Vec<String>,
    /// How many times better the first side is.
    pub better: Option<Spread>,
    /// How many times better it ought to be.
    pub times_better: Option<f64>,
    /// Whether the goal is met; none if it was not measured.
    pub met: Option<bool>,
}

impl Goals {
    /// Reads them.
    ///
    /// # Errors
    /// If the text is not what goals look like.
    pub fn read(text: &str) -> Result<Self, Failure> {
        toml::from_str(text)
            .map_err(|error| Failure::usage(format!("these are no goals of a bench: {error}")))
    }

    /// Lays them beside what was measured; the reports by their names.
    ///
    /// # Errors
    /// If a report has no such figure.
    pub fn compare(&self, reports: &BTreeMap<String, Report>) -> Result<Vec<Line>, Failure> {
        let lines = self.goal.iter().map(|goal| {
            let Some(report) = reports.get(&goal.report) else {
                return Ok(goal.unmeasured());
            };
            let kind = report.kinds.iter().find(|kind| kind.key == goal.figure);
            let kind = kind.ok_or_else(|| {
                let keys: Vec<&str> = report.kinds.iter().map(|kind| kind.key.as_str()).collect();
                Failure::new(
                    Exit::Missed,
                    format!("report {:?} has no figure {:?}", goal.report, goal.figure),
                )
                .hint(format!("it has {}", keys.join(", ")))
            })?;
            Ok(goal.line(kind, report))
        });
        lines.collect()
    }
}

impl Goal {
    fn unmeasured(&self) -> Line {
        Line {
            work: self.work.clone(),
            figure: self.figure.clone(),
            goal: String::new(),
            measured: Vec::new(),
            better: None,
            times_better: self.times_better,
            met: None,
        }
    }

    fn line(&self, kind: &Kind, report: &Report) -> Line {
        let spreads: Vec<Option<Spread>> = report
            .sides
            .iter()
            .map(|side| side.spread(&kind.key))
            .collect();
        let better = report.advantage(kind);
        let own = spreads.first().copied().flatten();
        let mut words = Vec::new();
        let mut met = Some(true);
        let mut judge = |is_met: Option<bool>| {
            met = match (met, is_met) {
                (Some(before), Some(now)) => Some(before && now),
                _ => None,
            };
        };
        if let Some(most) = self.at_most {
            words.push(format!("≤ {}", kind.unit.text(most)));
            judge(own.map(|own| own.median <= most));
        }
        if let Some(times) = self.times_better {
            words.push(format!("≥ {times}×"));
            judge(better.map(|better| better.median >= times));
        }
        Line {
            work: self.work.clone(),
            figure: kind.name.clone(),
            goal: words.join(", "),
            measured: spreads
                .iter()
                .map(|spread| {
                    spread.map_or("–".to_owned(), |spread| kind.unit.text(spread.median))
                })
                .collect(),
            better,
            times_better: self.times_better,
            met,
        }
    }
}

/// The table for people.
#[must_use]
pub fn table(lines: &[Line], sides: [&str; 2]) -> String {
    let mut table = Builder::new();
    table.push_record([
        "WORK", "FIGURE", "GOAL", sides[0], sides[1], "BETTER", "MET",
    ]);
    let mut last = "";
    for line in lines {
        let measured = |side: usize| line.measured.get(side).map_or("–", String::as_str);
        let better = line.better.map_or(String::new(), |better| better.times());
        let met = match line.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "not measured",
        };
        let work = if line.work == last { "" } else { &line.work };
        last = &line.work;
        table.push_record([
            work,
            &line.figure,
            &line.goal,
            measured(0),
            measured(1),
            &better,
            met,
        ]);
    }
    let mut table = table.build();
    table.with(Style::blank());
    table.modify(Columns::new(3..6), Alignment::right());
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// The ratios of all of them as bars, with the goals as marks.
#[must_use]
pub fn picture(lines: &[Line], title: &str) -> Option<String> {
    let told: Vec<(&Line, Spread)> = lines
        .iter()
        .filter_map(|line| Some((line, line.better?)))
        .collect();
    let bars: Vec<(String, Spread)> = told
        .iter()
        .map(|(line, better)| (format!("{}: {}", line.work, line.figure), *better))
        .collect();
    let goals: Vec<Option<f64>> = told.iter().map(|(line, _)| line.times_better).collect();
    plots::bars_of(title, &bars, &goals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::bench::{Round, Side, Unit};

    fn report(ours: f64, theirs: f64) -> Report {
        let side = |name: &str, value: f64| {
            let mut round = Round::default();
            round.put("p50", value);
            let mut side = Side::new(name);
            side.rounds.push(round);
            side
        };
        let kinds = vec![Kind::new("p50", "P50", "median latency", Unit::Micros)];
        let sides = vec![side("zkd", ours), side("other", theirs)];
        Report::new("writes".to_owned(), Vec::new(), kinds, sides)
    }

    fn met(ours: f64, theirs: f64) -> Option<bool> {
        let text = "[[goal]]\nwork = \"one write\"\nreport = \"one\"\nfigure = \"p50\"\n\
            at_most = 300.0\ntimes_better = 2.2\n";
        let goals = Goals::read(text).unwrap();
        let reports = BTreeMap::from([("one".to_owned(), report(ours, theirs))]);
        let lines = goals.compare(&reports).unwrap();
        assert_eq!(lines[0].goal, "≤ 300 µs, ≥ 2.2×");
        assert!(table(&lines, ["zkd", "other"]).contains("one write"));
        lines[0].met
    }

    #[test]
    fn both_halves_of_a_goal_count() {
        assert_eq!(met(200.0, 640.0), Some(true));
        assert_eq!(met(400.0, 1640.0), Some(false));
        assert_eq!(met(200.0, 340.0), Some(false));
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let text = "[[goal]]\nwork = \"a\"\nreport = \"b\"\nfigure = \"c\"\n";
        let lines = Goals::read(text)
            .unwrap()
            .compare(&BTreeMap::new())
            .unwrap();
        assert_eq!(lines[0].met, None);
    }

    #[test]
    fn an_unknown_figure_is_named_with_those_there_are() {
        let text = "[[goal]]\nwork = \"a\"\nreport = \"b\"\nfigure = \"c\"\n";
        let reports = BTreeMap::from([("b".to_owned(), report(1.0, 1.0))]);
        let failure = Goals::read(text).unwrap().compare(&reports).unwrap_err();
        assert!(failure.cause.contains("\"c\"") && failure.hint.unwrap().contains("p50"));
    }
}
