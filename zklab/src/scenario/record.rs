//! `run.json` and the lines of `schedule.ndjson` and `samples.ndjson`: what stays of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expect::Expected;
use crate::event::{HexZxid, Role};
use crate::failure::Exit;
use crate::id::NodeId;
use crate::supervisor::protocol::HexSeed;

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was as promised and as expected.
    Pass,
    /// A promise was broken, and there is proof.
    Bug,
    /// No promise was broken, but an expectation was missed.
    Missed,
    /// Nothing can be said, because of the machine.
    Inconclusive,
    /// The lab could not be made, or never formed a quorum.
    Environment,
    /// A server ended that nobody had touched.
    Died,
}

impl Verdict {
    /// The exit code that it asks for.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Pass => Exit::Ok,
            Self::Bug => Exit::Bug,
            Self::Missed => Exit::Missed,
            Self::Inconclusive => Exit::Inconclusive,
            Self::Environment => Exit::Environment,
            Self::Died => Exit::NodeDied,
        }
    }

    /// Of several, the one that the whole ends with: 1 > 6 > 3 > 5 > 4 > 0.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Inconclusive => 1,
            Self::Environment => 2,
            Self::Missed => 3,
            Self::Died => 4,
            Self::Bug => 5,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Bug => "bug",
            Self::Missed => "missed",
            Self::Inconclusive => "inconclusive",
            Self::Environment => "environment",
            Self::Died => "died",
        })
    }
}

/// What became of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The rule.
    pub rule: String,
    /// `pass`, `fail` or `skipped`.
    pub verdict: String,
    /// How many cases were looked at.
    pub count: u64,
    /// How long the checker took, in milliseconds.
    pub ms: f64,
    /// What was found, or why nothing was looked at.
    pub message: String,
    /// The operations that prove it, as they stand in the history.
    pub witness: Vec<Value>,
}

/// What the load lived through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// The clients.
    #[serde(default)]
    pub clients: u32,
    /// So many of them spoke through the zookeeper-client crate.
    #[serde(default)]
    pub foreign: u32,
    /// All operations.
    pub ops: u64,
    /// With a good answer.
    pub ok: u64,
    /// Refused, as many of a mix have to be.
    pub failed: u64,
    /// Never answered.
    pub unknown: u64,
    /// Median of the time to an answer, in milliseconds.
    pub p50_ms: f64,
    /// Its 99th percentile.
    pub p99_ms: f64,
    /// The longest time without an acknowledged write.
    pub longest_gap_ms: f64,
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this format, 1.
    pub v: u32,
    /// The scenario's name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// What all choices came from.
    pub seed: HexSeed,
    /// When, UTC.
    pub started: String,
    /// How long it took in all, in milliseconds.
    pub ms: f64,
    /// The system's monotonic clock when events' `t_us` is 0.
    pub lab_start_us: u64,
    /// What the nodes ran.
    pub server: String,
    /// What each of them ran.
    pub servers: BTreeMap<NodeId, String>,
    /// What was asked for with `--server`, to run it again.
    pub server_word: String,
    /// The network.
    pub net: String,
    /// Voters.
    pub nodes: u8,
    /// Observers.
    pub observers: u8,
    /// What came of it.
    pub verdict: Verdict,
    /// The exit code that it asks for.
    pub exit: u8,
    /// The rule that was broken.
    pub rule: Option<String>,
    /// Why, in one line.
    pub message: String,
    /// The checks.
    pub checks: Vec<Check>,
    /// The expectations.
    pub expects: Vec<Expected>,
    /// The longest stall of the machine, in milliseconds.
    pub host_stall_max_ms: f64,
    /// A longer one than this makes a missed expectation inconclusive.
    pub host_stall_limit_ms: f64,
    /// For which share of the time a task waited for a processor, in percent.
    #[serde(default)]
    pub host_busy_percent: Option<u64>,
    /// The load.
    pub load: LoadRecord,
    /// Faults that were put in.
    pub faults: usize,
    /// What was done, step by step, in a few words.
    pub story: Vec<String>,
    /// The command that does the same again.
    pub repro: String,
    /// The command that makes it smaller.
    pub shrink: String,
    /// The folder.
    #[serde(default)]
    pub folder: String,
    /// What judged it.
    pub versions: BTreeMap<String, String>,
    /// The machine.
    pub machine: String,
}

impl RunRecord {
    /// `leader-kill-loop/8f21c0`, with the server where several are compared.
    #[must_use]
    pub fn label(&self) -> String {
        let stem = std::path::Path::new(&self.file).file_stem().map_or_else(
            || self.name.clone(),
            |stem| stem.to_string_lossy().into_owned(),
        );
        format!("{stem}/{}", self.seed)
    }
}

/// A line of `schedule.ndjson`: what was really done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleLine {
    /// When it began, in microseconds since the lab was started.
    pub t_us: u64,
    /// The step.
    pub step: String,
    /// Its words.
    #[serde(rename = "do")]
    pub do_: String,
    /// The same with the nodes that were meant.
    pub resolved: String,
    /// Was it done?
    pub ok: bool,
    /// What came of it.
    pub text: String,
}

/// A line of `samples.ndjson`: a node at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in microseconds since the lab was started.
    pub t_us: u64,
    /// The node.
    pub node: NodeId,
    /// What it did.
    pub state: String,
    /// Its role.
    pub role: Option<Role>,
    /// Its epoch.
    pub epoch: Option<i64>,
    /// Its last zxid.
    pub zxid: Option<HexZxid>,
    /// How many txns it was behind the leader.
    pub lag: Option<i64>,
    /// Its client connections.
    pub sessions: Option<u64>,
}

/// `summary.json` of several cases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this format, 1.
    pub v: u32,
    /// Each case, without its checks.
    pub cases: Vec<RunRecord>,
    /// Cases that passed.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// Cases of which nothing can be said.
    pub skipped: usize,
    /// How long all of it took, in milliseconds.
    pub ms: f64,
}
