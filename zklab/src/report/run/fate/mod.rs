//! What became of the write that a verdict is about: who had it when, who lost it, and by what.
//!
//! Everything comes from the folder: the servers' feeds and the wire (`events.ndjson`, `wire.ndjson`), their disks as they
//! were kept, the clients' history. What none of them shows is not said.

mod clients;
mod disk;
mod findings;
mod servers;
mod tale;
#[cfg(test)]
mod tests;
mod trace;

use serde_json::Value;
use zkd::ids::{SessionId, Xid, Zxid};

use self::disk::Disks;
pub(super) use self::disk::Held;
pub(super) use self::findings::Finding;
use self::servers::Sync;
pub(super) use self::servers::{ServerFate, Stay};
pub(super) use self::tale::Step;
use self::trace::Trace;
use super::folder::{Folder, Outcome};
use super::story::Story;
use super::witness;
use crate::event::HexZxid;
use crate::scenario::Check;

/// Why a write is the one that a verdict is about.
const MISSING: &str = "the acknowledged write that is missing later";
/// The same.
const UNEQUAL: &str = "the txn that not all logs have";

/// What is said of a write is said within this time of its acknowledgement.
const HEARING_US: u64 = 1_000_000;

/// The write that a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Its zxid.
    pub(super) zxid: Zxid,
    /// Why it is the one: `the write that is missing later`.
    pub(super) why: &'static str,
    /// What it does, as a log or the history has it.
    pub(super) what: String,
    /// When its client was told that it is done, by whom, and which client.
    pub(super) acked: Option<(u64, String, String)>,
    /// What its client was told otherwise, where the proof has it: that it is refused, or nothing.
    pub(super) otherwise: &'static str,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// The write, where the proof is about one.
    pub(super) subject: Option<Subject>,
    /// What became of it on every server.
    pub(super) servers: Vec<ServerFate>,
    /// Messages between servers were recorded.
    pub(super) is_recorded: bool,
    /// What follows.
    pub(super) findings: Vec<Finding>,
    /// How it came to that.
    pub(super) steps: Vec<Step>,
    /// The writes that were lost with the first: all between these zxids.
    pub(super) lost: Option<(Zxid, Zxid)>,
}

/// What everything is concluded from.
pub(super) struct Evidence<'a> {
    folder: &'a Folder,
    story: &'a Story,
    /// The broken check that says most.
    check: &'a Check,
    subject: Option<Subject>,
    disks: Disks,
    trace: Trace,
    syncs: Vec<Sync>,
    nodes: Vec<String>,
}

impl Fate {
    /// Reads it out of a folder.
    #[must_use]
    pub(super) fn of(folder: &Folder, story: &Story) -> Self {
        let broken = folder.run.broken();
        let Some(check) = broken
            .first()
            .filter(|_| folder.run.outcome == Outcome::Bug)
        else {
            return Self::default();
        };
        Self::conclude(&Evidence::of(folder, story, check))
    }

    /// The cause in a sentence, where the folder shows it: what was wrong first.
    #[must_use]
    pub(super) fn cause(&self) -> Option<&str> {
        let mut wrong = self.findings.iter().filter(|finding| finding.is_wrong);
        wrong.next().map(|finding| finding.text.as_str())
    }

    fn conclude(evidence: &Evidence<'_>) -> Self {
        let mut findings = findings::all(evidence);
        findings.extend(clients::all(evidence));
        findings.sort_by_key(|finding| finding.at_us);
        Self {
            servers: servers::all(evidence),
            is_recorded: evidence.hears(),
            steps: tale::all(evidence, &findings),
            lost: findings::lost(evidence),
            subject: evidence.subject.clone(),
            findings,
        }
    }
}

impl<'a> Evidence<'a> {
    fn of(folder: &'a Folder, story: &'a Story, check: &'a Check) -> Self {
        let nodes: Vec<String> = story.lanes.iter().map(|lane| lane.node.clone()).collect();
        let candidate = candidate(check);
        let requests: Vec<(SessionId, Xid)> = check.witness.iter().filter_map(request).collect();
        let mut zxids: Vec<Zxid> = zxids(&check.message);
        zxids.extend(check.witness.iter().filter_map(|line| zxid(&line["z"])));
        let disks = Disks::read(&folder.dir, &nodes, &zxids, &requests);
        let sessions: Vec<String> = check
            .witness
            .iter()
            .filter_map(|line| Some(line["s"].as_str()?.to_owned()))
            .collect();
        let left = check.witness.first().filter(|_| check.rule == "watches");
        let change = candidate.map(|(zxid, ..)| zxid.to_string());
        let left = left.zip(change.as_deref());
        let mut evidence = Self {
            trace: Trace::read(&folder.dir, &path_of(check), &sessions, left),
            syncs: servers::syncs(&folder.events),
            subject: None,
            folder,
            story,
            check,
            disks,
            nodes,
        };
        evidence.subject = candidate.map(|found| evidence.subject_of(found));
        evidence
    }

    /// All that is known of the write itself.
    fn subject_of(&self, (zxid, why, line): (Zxid, &'static str, Option<&Value>)) -> Subject {
        let op = line.filter(|line| line["k"] == "op");
        let start = self.folder.run.lab_start_us;
        let logged = self.disks.txn("", zxid).map(|txn| txn.what.clone());
        let asked = op.map(|op| witness::Proof::of(op, start, &self.folder.load));
        let acked = op.filter(|op| op["out"] == "ok").and_then(|op| {
            let proof = asked.as_ref()?;
            let at_us = op["t1"].as_u64()?.saturating_sub(start);
            Some((at_us, proof.server.clone(), proof.who.clone()))
        });
        let told = || self.check.witness.iter().find(|line| line["k"] == "txn");
        let in_witness = told().and_then(|line| line["txn"].as_str());
        Subject {
            zxid,
            why,
            otherwise: match op.and_then(|op| op["out"].as_str()) {
                Some("failed") => "; its client was told that it is refused",
                Some("unknown") => "; its client was told nothing",
                _ => "",
            },
            what: logged
                .or_else(|| in_witness.map(ToOwned::to_owned))
                .or_else(|| asked.map(|proof| proof.asked))
                .unwrap_or_default(),
            acked,
        }
    }

    /// A time in the history as the events count.
    fn since_start(&self, value: &Value) -> Option<u64> {
        let start = self.folder.run.lab_start_us;
        value.as_u64().map(|at| at.saturating_sub(start))
    }

    /// The server that a connection of a line of the history was with.
    fn server_of(&self, line: &Value) -> Option<String> {
        let session = witness::session_of(line["s"].as_str()?)?;
        let conn = u32::try_from(line["conn"].as_u64()?).ok()?;
        self.folder.load.node(session, conn).map(ToOwned::to_owned)
    }

    /// The write, if the verdict says that servers lost it; other writes may well have gone and come back.
    fn lost_subject(&self) -> Option<&Subject> {
        let subject = self.subject.as_ref();
        subject.filter(|subject| matches!(subject.why, MISSING | UNEQUAL))
    }

    /// Was everything heard that the servers said of the write? Then a silence means that nothing was said.
    fn hears(&self) -> bool {
        self.hears_at(self.moment().unwrap_or(u64::MAX))
    }

    /// Was everything heard that the servers said about that time?
    fn hears_at(&self, at_us: u64) -> bool {
        let around = at_us.saturating_sub(HEARING_US)..=at_us.saturating_add(HEARING_US);
        self.folder.scope.as_ref().is_some_and(|scope| {
            let is_forgotten = scope.since_us > *around.start();
            !is_forgotten && !scope.gaps_us.iter().any(|gap| around.contains(gap))
        })
    }

    /// How many servers are a quorum.
    fn quorum(&self) -> usize {
        usize::try_from(self.folder.run.nodes).unwrap_or(usize::MAX) / 2 + 1
    }
}

/// The znode that a check speaks of: that of its sentence, or of its last operation.
fn path_of(check: &Check) -> String {
    let words = check.message.split_whitespace();
    let mut named = words.filter(|word| word.starts_with('/'));
    let last = || {
        let mut lines = check.witness.iter().rev();
        lines.find_map(|line| line["path"].as_str())
    };
    let path = named.next().or_else(last).unwrap_or_default();
    path.trim_end_matches([',', ':']).to_owned()
}

/// The write that a broken check is about.
#[must_use]
pub(super) fn subject_of(check: &Check) -> Option<Zxid> {
    candidate(check).map(|(zxid, ..)| zxid)
}

/// Which write a broken check is about, why, and the line of the history that asked for it.
fn candidate(check: &Check) -> Option<(Zxid, &'static str, Option<&Value>)> {
    let lines = &check.witness;
    let is_write = |line: &&Value| {
        let word = line["op"].as_str().unwrap_or_default();
        line["k"] == "op"
            && matches!(
                word,
                "set" | "create" | "delete" | "multi" | "close" | "setacl"
            )
    };
    let with_zxid = |line: &&Value| zxid(&line["z"]).is_some_and(|zxid| zxid > Zxid::ZERO);
    let writes: Vec<&Value> = lines.iter().filter(is_write).filter(with_zxid).collect();
    let (line, why) = match check.rule.as_str() {
        "logs" => {
            let txn = lines.iter().find(|line| line["k"] == "txn")?;
            let at = zxid(&txn["z"])?;
            let asks = |line: &&Value| line["s"] == txn["s"] && line["xid"] == txn["xid"];
            let op = lines.iter().filter(is_write).find(asks);
            return Some((at, UNEQUAL, op));
        }
        "digest" => {
            let znode = lines.iter().find(|line| line["k"] == "znode")?;
            return Some((zxid(&znode["z"])?, "the write behind what differs", None));
        }
        "session-fifo" if lines.iter().any(|line| line["out"] == "unknown") => {
            let at = *zxids(&check.message).last()?;
            let op = lines.iter().find(|line| line["out"] == "unknown");
            return Some((at, "the write that should have been refused", op));
        }
        "multi" if writes.len() > 2 => (writes.get(1), "the multi that was refused"),
        "watches" => (writes.first(), "the change that was not told"),
        "ephemerals" => {
            let close = writes.iter().find(|line| line["op"] == "close");
            (close.or(writes.first()), "the end of the session")
        }
        _ => (writes.first(), MISSING),
    };
    let line = *line?;
    // What comes first may never have been answered; then only the last operation has a zxid, and that is not lost.
    let is_last = lines.len() > 1 && lines.last().is_some_and(|last| std::ptr::eq(last, line));
    let why = if why == MISSING && is_last {
        "the write that contradicts what was there before"
    } else {
        why
    };
    Some((zxid(&line["z"])?, why, Some(line)))
}

/// The session and number of the request of an operation or txn.
fn request(line: &Value) -> Option<(SessionId, Xid)> {
    let session = witness::session_of(line["s"].as_str()?)?;
    let number = i32::try_from(line["xid"].as_i64()?).ok()?;
    Some((session, Xid(number)))
}

fn zxid(value: &Value) -> Option<Zxid> {
    HexZxid::parse(value.as_str()?).map(|zxid| Zxid(zxid.0))
}

/// The zxids in a sentence, in its order.
fn zxids(text: &str) -> Vec<Zxid> {
    HexZxid::all_in(text).map(|zxid| Zxid(zxid.0)).collect()
}
