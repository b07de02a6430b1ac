//! A run's folder as it is read: every file may be missing or cut off, every field may be absent, and what was not
//! understood is told instead of guessed.
//!
//! The files are the agreement, so that folders of other versions can be read too: they are taken apart field by
//! field, and only what has the same meaning for everybody is of the writer's types.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;
use zkd::ids::Zxid;

use super::load::Load;
use crate::event::HexZxid;
use crate::failure::{Exit, Failure};
use crate::observe::flow::{FlowMark, FlowNote, FlowScope};
use crate::scenario::{Check, Expected, LoadRecord, rank};

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was as it has to be.
    Pass,
    /// The server broke a promise.
    Bug,
    /// An expectation or time budget was missed.
    Missed,
    /// Nothing can be said, because of the machine.
    Inconclusive,
    /// There was no ensemble to judge.
    Environment,
    /// A server died on its own.
    Died,
    /// The folder does not say.
    #[default]
    Unknown,
}

impl Outcome {
    /// Of the word in `run.json`.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "pass" => Self::Pass,
            "bug" => Self::Bug,
            "missed" => Self::Missed,
            "inconclusive" => Self::Inconclusive,
            "environment" => Self::Environment,
            "died" => Self::Died,
            _ => Self::Unknown,
        }
    }

    /// As a title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Pass => "Passed",
            Self::Bug => "Product bug",
            Self::Missed => "Expectation missed",
            Self::Inconclusive => "Inconclusive",
            Self::Environment => "Environment problem",
            Self::Died => "A server died",
            Self::Unknown => "No verdict",
        }
    }

    /// The word in `run.json`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Bug => "bug",
            Self::Missed => "missed",
            Self::Inconclusive => "inconclusive",
            Self::Environment => "environment",
            Self::Died => "died",
            Self::Unknown => "unknown",
        }
    }
}

/// `run.json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunJson {
    /// The scenario's name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The seed, as people copy it.
    pub seed: String,
    /// When it began, in UTC.
    pub started: String,
    /// How long it took.
    pub ms: f64,
    /// The time of the system's monotonic clock at which the events count 0.
    pub lab_start_us: u64,
    /// What was tested: `zkd 0.1.0`.
    pub server: String,
    /// The same for every node.
    pub servers: BTreeMap<String, String>,
    /// The network.
    pub net: String,
    /// Voters.
    pub nodes: u64,
    /// Observers.
    pub observers: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The rule that was broken.
    pub rule: String,
    /// The verdict in one line.
    pub message: String,
    /// The checks.
    pub checks: Vec<Check>,
    /// The expectations.
    pub expects: Vec<Expected>,
    /// The longest time the machine stood still.
    pub host_stall_max_ms: f64,
    /// How long it may stand still for times to be judged.
    pub host_stall_limit_ms: f64,
    /// What the clients did.
    pub load: Option<LoadRecord>,
    /// How many faults there were.
    pub faults: u64,
    /// The command that runs it again.
    pub repro: String,
    /// The command that makes it smaller.
    pub shrink: String,
    /// Versions of the tools.
    pub versions: BTreeMap<String, String>,
    /// The machine.
    pub machine: String,
    /// The links and what they carried, as `link show --json` tells them.
    pub links: Vec<Value>,
}

/// A value as people read it.
fn said(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A node's directory in a text, which was gone with the lab, becomes the node.
fn without_places(text: &str) -> String {
    let node = |word: &str| {
        let (before, rest) = word.strip_prefix('/')?.rsplit_once("/data")?;
        let name = before.rsplit('/').next()?;
        let number = name.strip_prefix('n')?;
        let is_node = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (is_node && !rest.contains('/')).then(|| format!("{name}{rest}"))
    };
    let words = text.split(' ');
    let words: Vec<String> = words
        .map(|word| node(word).unwrap_or_else(|| word.to_owned()))
        .collect();
    words.join(" ")
}

fn text(value: &Value, key: &str) -> String {
    said(&value[key])
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_default()
}

fn count(value: &Value, key: &str) -> u64 {
    match &value[key] {
        Value::Array(list) => list.len() as u64,
        Value::Object(map) => map.len() as u64,
        other => other.as_u64().unwrap_or_default(),
    }
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn words(value: &Value, key: &str) -> BTreeMap<String, String> {
    let entries = value[key].as_object().into_iter().flatten();
    entries
        .map(|(name, value)| (name.clone(), said(value)))
        .collect()
}

impl RunJson {
    /// Of the object in `run.json`; what is absent is empty.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        let load = Some(&value["load"]).filter(|load| load.is_object());
        Self {
            name: text(value, "name"),
            file: text(value, "file"),
            seed: text(value, "seed"),
            started: text(value, "started"),
            ms: number(value, "ms"),
            lab_start_us: count(value, "lab_start_us"),
            server: text(value, "server"),
            servers: words(value, "servers"),
            net: text(value, "net"),
            nodes: count(value, "nodes"),
            observers: count(value, "observers"),
            outcome: Outcome::of(value["verdict"].as_str().unwrap_or_default()),
            rule: text(value, "rule"),
            message: without_places(&text(value, "message")),
            checks: list(value, "checks").iter().map(check).collect(),
            expects: list(value, "expects").iter().map(expected).collect(),
            host_stall_max_ms: number(value, "host_stall_max_ms"),
            host_stall_limit_ms: number(value, "host_stall_limit_ms"),
            load: load.map(load_record),
            faults: count(value, "faults"),
            repro: text(value, "repro"),
            shrink: text(value, "shrink"),
            versions: words(value, "versions"),
            machine: text(value, "machine"),
            links: list(value, "links").to_vec(),
        }
    }

    /// The check that explains the verdict: of those that failed, that which says most.
    #[must_use]
    pub fn failed_check(&self) -> Option<&Check> {
        self.broken().into_iter().next()
    }

    /// The order in which broken checks are told: what is nearest to the cause first, and of equals the one that gave the
    /// verdict its name.
    fn order(&self, check: &Check) -> (u8, bool) {
        (rank(&check.rule), check.rule != self.rule)
    }

    /// The broken checks in that order.
    #[must_use]
    pub fn broken(&self) -> Vec<&Check> {
        let failed = self.checks.iter().filter(|check| check.verdict == "fail");
        let mut failed: Vec<&Check> = failed.collect();
        failed.sort_by_key(|check| self.order(check));
        failed
    }
}

fn check(value: &Value) -> Check {
    Check {
        rule: text(value, "rule"),
        verdict: text(value, "verdict"),
        count: count(value, "count"),
        ms: number(value, "ms"),
        message: without_places(&text(value, "message")),
        witness: list(value, "witness").to_vec(),
    }
}

fn expected(value: &Value) -> Expected {
    Expected {
        what: text(value, "what"),
        wanted: text(value, "wanted"),
        got: text(value, "got"),
        ok: value["ok"].as_bool().unwrap_or_default(),
    }
}

fn load_record(value: &Value) -> LoadRecord {
    let small = |key: &str| u32::try_from(count(value, key)).unwrap_or(u32::MAX);
    LoadRecord {
        clients: small("clients"),
        foreign: small("foreign"),
        ops: count(value, "ops"),
        ok: count(value, "ok"),
        failed: count(value, "failed"),
        unknown: count(value, "unknown"),
        p50_ms: number(value, "p50_ms"),
        p99_ms: number(value, "p99_ms"),
        longest_gap_ms: number(value, "longest_gap_ms"),
    }
}

/// An event of a lab, as far as every kind has the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, in microseconds since the lab was started.
    pub t_us: u64,
    /// The node, or nothing if it is about all of them.
    pub node: String,
    /// Who says it.
    pub src: String,
    /// What.
    pub kind: String,
    /// The whole object.
    pub rest: Value,
}

impl Event {
    /// Of an object as it stands in the stream.
    #[must_use]
    pub fn of(value: Value) -> Self {
        Self {
            t_us: count(&value, "t_us"),
            node: text(&value, "node"),
            src: text(&value, "src"),
            kind: text(&value, "kind"),
            rest: value,
        }
    }

    /// A field as people read it.
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        text(&self.rest, key)
    }

    /// A field that is a list of names.
    #[must_use]
    pub fn names(&self, key: &str) -> Vec<String> {
        list(&self.rest, key).iter().map(said).collect()
    }
}

/// What a node said when it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, in microseconds since the lab was started.
    pub t_us: u64,
    /// The node.
    pub node: String,
    /// `serving`, `looking`, `silent`, `paused` or `down`.
    pub state: String,
    /// Its role.
    pub role: String,
    /// Its epoch.
    pub epoch: Option<i64>,
    /// How many txns it is behind the leader.
    pub lag: Option<i64>,
    /// The last zxid that it had applied.
    pub zxid: Option<Zxid>,
}

impl Sample {
    fn of(value: &Value) -> Self {
        Self {
            t_us: count(value, "t_us"),
            node: text(value, "node"),
            state: text(value, "state"),
            role: text(value, "role"),
            epoch: value["epoch"].as_i64(),
            lag: value["lag"].as_i64(),
            zxid: value["zxid"]
                .as_str()
                .and_then(HexZxid::parse)
                .map(|zxid| Zxid(zxid.0)),
        }
    }
}

/// Something that was done to the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// When, in microseconds since the lab was started.
    pub t_us: u64,
    /// The step of the scenario.
    pub step: String,
    /// What was asked for.
    pub what: String,
    /// The same with the nodes that were chosen.
    pub resolved: String,
    /// Did it work?
    pub ok: bool,
    /// What came of it.
    pub text: String,
}

impl Deed {
    fn of(value: &Value) -> Self {
        Self {
            t_us: count(value, "t_us"),
            step: text(value, "step"),
            what: text(value, "do"),
            resolved: text(value, "resolved"),
            ok: value["ok"].as_bool().unwrap_or(true),
            text: text(value, "text"),
        }
    }
}

/// A run's folder.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// Where it is.
    pub dir: PathBuf,
    /// `run.json`.
    pub run: RunJson,
    /// `events.ndjson`, by time.
    pub events: Vec<Event>,
    /// `schedule.ndjson`, by time.
    pub deeds: Vec<Deed>,
    /// `samples.ndjson`, by time.
    pub samples: Vec<Sample>,
    /// What the servers said of the writes that the verdict speaks of (`wire.ndjson`), by time.
    pub flow: Vec<FlowNote>,
    /// What the silence of `wire.ndjson` is worth; nothing if nobody listened.
    pub scope: Option<FlowScope>,
    /// How far the servers were whenever one ended (`wire.ndjson`).
    pub marks: Vec<FlowMark>,
    /// `history.ndjson`.
    pub load: Load,
    /// `scenario.toml`.
    pub scenario: String,
    /// What could not be read.
    pub notes: Vec<String>,
}

impl Folder {
    /// Reads one.
    ///
    /// # Errors
    /// If it has no `run.json`, or one that is no JSON. Everything else may be missing.
    pub fn read(dir: &Path) -> Result<Self, Failure> {
        let run = read_run(dir)?;
        let mut notes = Vec::new();
        let mut events: Vec<Event> = lines(dir, "events.ndjson", &mut notes)
            .into_iter()
            .map(Event::of)
            .collect();
        events.sort_by_key(|event| event.t_us);
        let mut deeds: Vec<Deed> = lines(dir, "schedule.ndjson", &mut notes)
            .iter()
            .map(Deed::of)
            .collect();
        deeds.sort_by_key(|deed| deed.t_us);
        let mut samples: Vec<Sample> = lines(dir, "samples.ndjson", &mut notes)
            .iter()
            .map(Sample::of)
            .collect();
        samples.sort_by_key(|sample| sample.t_us);
        let (scope, flow, marks) = wire(dir);
        let history = dir.join("history.ndjson");
        let load = Load::read(&history, run.lab_start_us, &zxids(&run.message), &mut notes);
        let scenario = std::fs::read_to_string(dir.join("scenario.toml")).unwrap_or_default();
        Ok(Self {
            dir: dir.to_owned(),
            run,
            events,
            deeds,
            samples,
            scope,
            flow,
            marks,
            load,
            scenario,
            notes,
        })
    }
}

/// The way of the writes of a verdict. A run that passed has none, nor has one whose network is not read.
fn wire(dir: &Path) -> (Option<FlowScope>, Vec<FlowNote>, Vec<FlowMark>) {
    let (mut scope, mut flow, mut marks) = (None, Vec::new(), Vec::new());
    for line in lines(dir, "wire.ndjson", &mut Vec::new()) {
        if let Ok(note) = serde_json::from_value(line.clone()) {
            flow.push(note);
        } else if let Ok(mark) = serde_json::from_value(line.clone()) {
            marks.push(mark);
        } else {
            scope = serde_json::from_value(line).ok().or(scope);
        }
    }
    flow.sort_by_key(|note: &FlowNote| note.t_us);
    (scope, flow, marks)
}

/// The zxids in a text.
fn zxids(text: &str) -> HashSet<Zxid> {
    HexZxid::all_in(text).map(|zxid| Zxid(zxid.0)).collect()
}

/// `run.json` of a folder.
///
/// # Errors
/// If it cannot be read or is no JSON.
pub fn read_run(dir: &Path) -> Result<RunJson, Failure> {
    let name = dir.join("run.json");
    let text = std::fs::read_to_string(&name).map_err(|error| {
        Failure::usage(format!(
            "{} is not the folder of a run: cannot read {}: {error}",
            dir.display(),
            name.display()
        ))
        .hint("`zklab run FILE` makes one; give the folder that holds run.json")
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("{}:{}: {error}", name.display(), error.line()),
        )
    })?;
    Ok(RunJson::of(&value))
}

/// The folders of all runs in a path: itself, or what is inside.
///
/// # Errors
/// If there is none.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.join("run.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut inside: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|entry| entry.join("run.json").is_file())
        .collect();
    inside.sort();
    if inside.is_empty() {
        return Err(Failure::usage(format!(
            "{} is not the folder of a run, and holds none: there is no run.json",
            path.display()
        ))
        .hint("`zklab run FILE` makes one"));
    }
    Ok(inside)
}

/// The objects of a file with one a line; a last line that was cut off is passed over.
fn lines(dir: &Path, name: &str, notes: &mut Vec<String>) -> Vec<Value> {
    let Ok(file) = File::open(dir.join(name)) else {
        notes.push(format!("{name} is not in the folder"));
        return Vec::new();
    };
    let mut values = Vec::new();
    let mut wrong = 0_u64;
    let mut cut = false;
    for line in BufReader::new(file).split(b'\n') {
        let Ok(line) = line else {
            notes.push(format!("{name} could only be read in part"));
            break;
        };
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(value) => {
                wrong += u64::from(cut);
                cut = false;
                values.push(value);
            }
            Err(_) => {
                wrong += u64::from(cut);
                cut = true;
            }
        }
    }
    if wrong > 0 {
        notes.push(format!("{name} has {wrong} lines that are no JSON"));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_become_nodes_and_zxids_are_found() {
        let text =
            "logs: at 0x1000000a0: /dev/shm/lab-1/n1/data has it and /x/n12/data, not /etc/data";
        assert_eq!(
            without_places(text),
            "logs: at 0x1000000a0: n1 has it and n12, not /etc/data"
        );
        assert_eq!(zxids(text), HashSet::from([Zxid(0x1_0000_00a0)]));
    }
}
