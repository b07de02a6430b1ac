//! What a scenario expects of the lab's life, and which promises are checked.
//!
//! An expectation is about time and number and may be missed without any promise being broken; a check is about
//! safety. The two never mix: only a check can call something a bug.

use serde::{Deserialize, Serialize};

use super::amount::{Choice, Unit};
use super::text::{Section, Value};
use crate::failure::Failure;
use crate::observe::check::Rule;

/// What is expected. Times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The longest time without an acknowledged write.
    pub no_writes_max: Option<u64>,
    /// The 99th percentile of the time to an answer.
    pub p99_max: Option<u64>,
    /// Sessions that may end although their client was there.
    pub sessions_lost: Option<u64>,
    /// How many epochs are established: a quorum follows a new leader.
    pub epoch_bumps: Option<Choice>,
    /// All nodes serve and have caught up after the heal at the end.
    pub converge_within: Option<u64>,
    /// A quorum serves again after the last thing that stood in its way was gone.
    pub quorum_regained_within: Option<u64>,
    /// Operations with a good answer.
    pub ops_min: Option<u64>,
    /// What is expected instead where Apache ZooKeeper takes part.
    pub apache: Option<Box<Self>>,
}

const KEYS: [&str; 7] = [
    "no_writes_max",
    "p99_max",
    "sessions_lost",
    "epoch_bumps",
    "converge_within",
    "quorum_regained_within",
    "ops_min",
];

/// Reads `expect`.
///
/// # Errors
/// If anything in it is wrong.
pub(super) fn read(value: Option<Value<'_>>) -> Result<Expect, Failure> {
    let Some(value) = value else {
        return Ok(Expect::default());
    };
    let keys: Vec<&str> = KEYS.iter().copied().chain(["apache"]).collect();
    let section = value.section("expect", &keys)?;
    let mut expect = numbers(&section)?;
    if let Some(apache) = section.get("apache") {
        let section = apache.section("expect.apache", &KEYS)?;
        expect.apache = Some(Box::new(numbers(&section)?));
    }
    Ok(expect)
}

fn numbers(section: &Section<'_>) -> Result<Expect, Failure> {
    let amount = |key, unit| section.get(key).map(|v| v.amount(unit)).transpose();
    Ok(Expect {
        no_writes_max: amount("no_writes_max", Unit::Time)?,
        p99_max: amount("p99_max", Unit::Time)?,
        sessions_lost: amount("sessions_lost", Unit::Count)?,
        epoch_bumps: section
            .get("epoch_bumps")
            .map(|v| v.choice(Unit::Count))
            .transpose()?,
        converge_within: amount("converge_within", Unit::Time)?,
        quorum_regained_within: amount("quorum_regained_within", Unit::Time)?,
        ops_min: amount("ops_min", Unit::Count)?,
        apache: None,
    })
}

impl Expect {
    /// What is expected of this kind of server: what Apache's part says, else what is said for all.
    #[must_use]
    pub fn of(&self, is_apache: bool) -> Self {
        let (Some(apache), true) = (&self.apache, is_apache) else {
            return Self {
                apache: None,
                ..self.clone()
            };
        };
        Self {
            no_writes_max: apache.no_writes_max.or(self.no_writes_max),
            p99_max: apache.p99_max.or(self.p99_max),
            sessions_lost: apache.sessions_lost.or(self.sessions_lost),
            epoch_bumps: apache.epoch_bumps.clone().or(self.epoch_bumps.clone()),
            converge_within: apache.converge_within.or(self.converge_within),
            quorum_regained_within: apache
                .quorum_regained_within
                .or(self.quorum_regained_within),
            ops_min: apache.ops_min.or(self.ops_min),
            apache: None,
        }
    }
}

/// Which promises are checked; all of them unless a scenario says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Of the history.
    pub rules: Vec<Rule>,
    /// All trees are equal at equal zxid.
    pub digest: bool,
    /// The txn logs have one history.
    pub logs: bool,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            rules: Rule::ALL.to_vec(),
            digest: true,
            logs: true,
        }
    }
}

/// The key of a rule: its name with underscores.
#[must_use]
pub fn rule_key(rule: Rule) -> String {
    rule.name().replace('-', "_")
}

/// Reads `check`.
///
/// # Errors
/// If anything in it is wrong.
pub(super) fn read_checks(value: Option<Value<'_>>) -> Result<Checks, Failure> {
    let mut checks = Checks::default();
    let Some(value) = value else {
        return Ok(checks);
    };
    let names: Vec<String> = Rule::ALL.into_iter().map(rule_key).collect();
    let others = ["sessions", "digest", "logs"];
    let keys: Vec<&str> = names.iter().map(String::as_str).chain(others).collect();
    let section = value.section("check", &keys)?;
    for entry in section.entries() {
        let is_on = match entry.key() {
            "digest" if !entry.is_truth() => {
                entry.word(&["every-zxid"])?;
                true
            }
            _ => entry.truth()?,
        };
        match entry.key() {
            "digest" => checks.digest = is_on,
            "logs" => checks.logs = is_on,
            key => {
                let key = if key == "sessions" {
                    "session_fifo"
                } else {
                    key
                };
                checks.rules.retain(|rule| is_on || rule_key(*rule) != key);
            }
        }
    }
    Ok(checks)
}

/// An expectation and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Which.
    pub what: String,
    /// What was wanted.
    pub wanted: String,
    /// What it was.
    pub got: String,
    /// Is that good?
    pub ok: bool,
}

/// What a run measured, for the expectations. Times in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) longest_gap: u64,
    pub(super) p99: u64,
    pub(super) sessions_lost: u64,
    pub(super) epoch_bumps: u64,
    /// `None` if they never converged.
    pub(super) converged: Option<u64>,
    /// `None` if a quorum was lost for good.
    pub(super) quorum_regained: Option<u64>,
    pub(super) ops_ok: u64,
}

/// Compares.
pub(super) fn judge(expect: &Expect, measured: &Measured) -> Vec<Expected> {
    let mut found = Vec::new();
    let mut say = |what: &str, wanted: String, got: String, ok: bool| {
        found.push(Expected {
            what: what.to_owned(),
            wanted,
            got,
            ok,
        });
    };
    let time = |us: u64| match us {
        ..10_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => Unit::Time.render(us / 1000 * 1000),
    };
    let mut at_most = |what: &str, limit: Option<u64>, got: Option<u64>| {
        if let Some(limit) = limit {
            let shown = got.map_or_else(|| "never".to_owned(), &time);
            let wanted = format!("at most {}", Unit::Time.render(limit));
            say(what, wanted, shown, got.is_some_and(|got| got <= limit));
        }
    };
    at_most(
        "no_writes_max",
        expect.no_writes_max,
        Some(measured.longest_gap),
    );
    at_most("p99_max", expect.p99_max, Some(measured.p99));
    at_most(
        "converge_within",
        expect.converge_within,
        measured.converged,
    );
    at_most(
        "quorum_regained_within",
        expect.quorum_regained_within,
        measured.quorum_regained,
    );
    if let Some(limit) = expect.sessions_lost {
        let got = measured.sessions_lost;
        say(
            "sessions_lost",
            format!("at most {limit}"),
            got.to_string(),
            got <= limit,
        );
    }
    if let Some(wanted) = &expect.epoch_bumps {
        let got = measured.epoch_bumps;
        let (low, high) = (wanted.smallest(), wanted.largest());
        let text = if low == high {
            low.to_string()
        } else {
            format!("{low} to {high}")
        };
        say(
            "epoch_bumps",
            text,
            got.to_string(),
            (low..=high).contains(&got),
        );
    }
    if let Some(least) = expect.ops_min {
        let got = measured.ops_ok;
        say(
            "ops_min",
            format!("at least {least}"),
            got.to_string(),
            got >= least,
        );
    }
    found
}
