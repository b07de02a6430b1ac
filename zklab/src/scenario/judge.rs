//! The verdict: what the checkers prove, what was missed, and what the machine had to do with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Value, json};

use super::amount::Unit;
use super::expect::{Checks, Expected};
use super::finale::Trees;
use super::host::HostReading;
use super::record::{Check, Verdict};
use crate::clock::{ms, now_us};
use crate::event::{FaultKind, LabEvent, LabEventKind};
use crate::id::NodeId;
use crate::observe::check;
use crate::observe::history::History;
use crate::observe::logs::{LoggedTxn, LogsVerdict};

/// The share of time with somebody waiting for a processor above which times mean nothing, in percent.
const BUSY_MAX: u64 = 75;

/// Judges the history of the load.
pub(super) fn history(file: &Path, checks: &Checks) -> Vec<Check> {
    let begun = now_us();
    let skipped = |why: &str| {
        let rules = checks.rules.iter();
        rules.map(|rule| skipped(rule.name(), why)).collect()
    };
    let history = match History::open(file) {
        Ok(history) if history.ops.is_empty() => return skipped("there were no operations"),
        Ok(history) => history,
        Err(failure) => return skipped(&failure.cause),
    };
    let verdict = check::judge(&history, &checks.rules);
    let took = ms(now_us() - begun);
    let lines = witnesses(file, &verdict);
    verdict
        .rules
        .iter()
        .map(|judged| {
            let mut found = verdict.violations.iter().filter(|v| v.rule == judged.rule);
            let first = found.next();
            Check {
                rule: judged.rule.name().to_owned(),
                verdict: if judged.broken == 0 { "pass" } else { "fail" }.to_owned(),
                count: judged.cases,
                ms: took,
                message: first.map(|v| v.what.clone()).unwrap_or_default(),
                witness: first
                    .iter()
                    .flat_map(|violation| &violation.witness)
                    .filter_map(|id| lines.get(id).cloned())
                    .collect(),
            }
        })
        .collect()
}

/// The lines of the history that prove something, by their ids.
fn witnesses(file: &Path, verdict: &check::Verdict) -> BTreeMap<u32, Value> {
    let wanted: Vec<u32> = verdict
        .violations
        .iter()
        .flat_map(|violation| violation.witness.clone())
        .collect();
    let mut lines = BTreeMap::new();
    let Ok(open) = std::fs::File::open(file) else {
        return lines;
    };
    if wanted.is_empty() {
        return lines;
    }
    for line in BufReader::new(open).lines().map_while(Result::ok) {
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let id = value["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        if let Some(id) = id.filter(|id| value["k"] == "op" && wanted.contains(id)) {
            lines.insert(id, value);
        }
    }
    lines
}

fn skipped(rule: &str, why: &str) -> Check {
    Check {
        rule: rule.to_owned(),
        verdict: "skipped".to_owned(),
        count: 0,
        ms: 0.0,
        message: why.to_owned(),
        witness: Vec::new(),
    }
}

/// What the trees say.
pub(super) fn digest(trees: &Trees) -> Check {
    let check = |verdict: &str, count: usize, message: String| Check {
        verdict: verdict.to_owned(),
        count: count as u64,
        message,
        ..skipped("digest", "")
    };
    match trees {
        Trees::Unknown => skipped("digest", "no two nodes told a digest at one zxid"),
        Trees::Equal(zxid, count) => check("pass", *count, format!("equal at {zxid}")),
        Trees::Different(zxid, who, znodes) => {
            let text = format!("the trees differ at {zxid}: {}", who.join(", "));
            Check {
                witness: znodes.clone(),
                ..check("fail", who.len(), text)
            }
        }
    }
}

/// What the txn logs say. What proves it are the two txns, behind the operations of the history that wrote them.
pub(super) fn logs(found: Result<LogsVerdict, String>, history: &Path) -> Check {
    let verdict = match found {
        Err(why) => return skipped("logs", &why),
        Ok(verdict) => verdict,
    };
    let violation = verdict.violation.as_ref();
    let message = violation.map(|found| format!("at {}: {}", found.zxid, found.what));
    let proof = violation.map_or(&[][..], |found| &found.proof);
    let mut witness = written_by(history, proof);
    witness.extend(proof.iter().map(logged));
    Check {
        verdict: if message.is_some() { "fail" } else { "pass" }.to_owned(),
        count: verdict.compared,
        message: message.unwrap_or_default(),
        witness,
        ..skipped("logs", "")
    }
}

/// A txn of a log, as it stands beside the lines of a history.
fn logged(txn: &LoggedTxn) -> Value {
    let mut line = json!({
        "k": "txn",
        "node": txn.log,
        "z": txn.zxid.to_string(),
        "txn": txn.what,
        "s": txn.session.to_string(),
        "xid": txn.request.0,
        "time": txn.time_ms,
    });
    if let Some(digest) = txn.digest {
        line["digest"] = format!("{digest:#x}").into();
    }
    line
}

/// The operations of the history that asked for these txns, where there are any: by session and request, which a client
/// counts anew on every connection, and so by the zxid of the answer too if there was one.
fn written_by(history: &Path, txns: &[LoggedTxn]) -> Vec<Value> {
    let mut found: BTreeMap<u64, Value> = BTreeMap::new();
    let Ok(open) = std::fs::File::open(history) else {
        return Vec::new();
    };
    if txns.is_empty() {
        return Vec::new();
    }
    let sessions: Vec<String> = txns
        .iter()
        .map(|txn| format!("\"s\":\"{}\"", txn.session))
        .collect();
    for line in BufReader::new(open).lines().map_while(Result::ok) {
        if !sessions.iter().any(|session| line.contains(session)) {
            continue;
        }
        let Ok(op) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let is_of = |txn: &LoggedTxn| {
            let zxid = op["z"].as_str();
            op["s"] == txn.session.to_string()
                && op["xid"] == txn.request.0
                && zxid.is_none_or(|zxid| zxid == txn.zxid.to_string())
        };
        let id = op["id"].as_u64().filter(|_| op["k"] == "op");
        if let Some(id) = id.filter(|_| txns.iter().any(is_of)) {
            found.insert(id, op);
        }
    }
    found.into_values().collect()
}

/// Everything that a verdict rests on.
pub(super) struct Grounds<'a> {
    pub(super) checks: &'a [Check],
    pub(super) expects: &'a [Expected],
    pub(super) events: &'a [LabEvent],
    pub(super) host: HostReading,
    /// A longer stall excuses what was missed, in microseconds.
    pub(super) stall_limit_us: u64,
    /// Operations with a good answer.
    pub(super) ops_ok: u64,
    /// The end of a node's log.
    pub(super) last_words: &'a dyn Fn(NodeId) -> Option<String>,
}

/// The verdict, the rule that was broken, and why in one line.
pub(super) fn verdict(grounds: &Grounds<'_>) -> (Verdict, Option<String>, String) {
    if let Some(failed) = first_failed(grounds.checks) {
        let text = format!("{}: {}", failed.rule, failed.message);
        return (Verdict::Bug, Some(failed.rule.clone()), text);
    }
    if let Some(text) = died(grounds.events, grounds.last_words) {
        return (Verdict::Died, None, text);
    }
    let missed: Vec<String> = grounds
        .expects
        .iter()
        .filter(|expected| !expected.ok)
        .map(|expected| {
            format!(
                "{} {}, wanted {}",
                expected.what, expected.got, expected.wanted
            )
        })
        .collect();
    let machine = machine(grounds);
    if !missed.is_empty() {
        return match machine {
            Some(why) => {
                let text = format!("{why} ({})", missed.join("; "));
                (Verdict::Inconclusive, None, text)
            }
            None => (Verdict::Missed, None, missed.join("; ")),
        };
    }
    if grounds.ops_ok == 0 {
        let text = "no operation had a good answer, so nothing was tested".to_owned();
        return (Verdict::Inconclusive, None, text);
    }
    (Verdict::Pass, None, String::new())
}

/// The first check that failed, in the order of how much it says.
fn first_failed(checks: &[Check]) -> Option<&Check> {
    let failed = checks.iter().filter(|check| check.verdict == "fail");
    failed.min_by_key(|check| rank(&check.rule))
}

/// How much a broken rule says: the lower, the nearer it is to the cause. Answers are wrong, multis are half there and
/// trees differ because logs do; half a multi is a whole story where they do not; a missing event often only follows from
/// a state that should not be, so watches give a bug its name only where nothing else does.
#[must_use]
pub fn rank(rule: &str) -> u8 {
    match rule {
        "logs" => 0,
        rule if rule == check::Rule::Multi.name() => 1,
        rule if rule == check::Rule::Watches.name() => 4,
        "digest" => 3,
        _ => 2,
    }
}

/// Why times of this machine mean nothing, if so.
fn machine(grounds: &Grounds<'_>) -> Option<String> {
    let HostReading {
        stall_us,
        busy_percent,
    } = grounds.host;
    if stall_us > grounds.stall_limit_us {
        let limit = Unit::Time.render(grounds.stall_limit_us);
        return Some(format!("host stall {} ms > {limit}", stall_us / 1000));
    }
    busy_percent
        .filter(|percent| *percent > BUSY_MAX)
        .map(|percent| format!("tasks waited for a processor {percent} % of the time"))
}

/// A server that ended on its own, and its last words, unless it has spoken since. One whose disk was made to fail has to
/// end.
fn died(events: &[LabEvent], last_words: &dyn Fn(NodeId) -> Option<String>) -> Option<String> {
    let may_end = |node: Option<NodeId>| {
        events.iter().any(|event| match &event.kind {
            LabEventKind::FaultOn(note) => {
                note.what == FaultKind::Disk
                    && (note.fault.contains("fail") || note.fault.contains("full"))
                    && node.is_some_and(|node| note.nodes.contains(&node))
            }
            _ => false,
        })
    };
    let is_back = |node: Option<NodeId>, at: usize| {
        let later = events[at..].iter().filter(|event| event.node == node);
        let mut kinds = later.map(|event| &event.kind);
        kinds.any(|kind| matches!(kind, LabEventKind::NodeSpawned { .. }))
    };
    let mut ends = events.iter().enumerate();
    ends.find_map(|(at, event)| match &event.kind {
        LabEventKind::NodeExited {
            code,
            signal,
            expected: false,
        } if signal.is_some() || !may_end(event.node) => {
            let node = event.node.map(|node| node.to_string()).unwrap_or_default();
            let how = match (code, signal) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "nobody knows how".to_owned(),
            };
            let words = event.node.filter(|_| !is_back(event.node, at));
            let words = words.and_then(last_words);
            let words = words.map_or_else(String::new, |words| format!(": {words}"));
            Some(format!("{node} died on its own ({how}){words}"))
        }
        _ => None,
    })
}

/// How many epochs were established since `begin_us`.
pub(super) fn epoch_bumps(events: &[LabEvent], begin_us: u64) -> u64 {
    let later = events.iter().filter(|event| event.t_us >= begin_us);
    let bumps = later.filter(|event| matches!(event.kind, LabEventKind::EpochBumped { .. }));
    bumps.count() as u64
}

/// The longest time from the last thing that stood in the way of a quorum to the quorum; `None` if one stayed lost.
pub(super) fn quorum_regained(events: &[LabEvent], begin_us: u64) -> Option<u64> {
    let mut since: Option<u64> = None;
    let mut longest = 0;
    for event in events.iter().filter(|event| event.t_us >= begin_us) {
        match &event.kind {
            LabEventKind::QuorumLost { .. } => since = Some(event.t_us),
            LabEventKind::FaultOff { .. } | LabEventKind::NodeSpawned { .. } => {
                since = since.map(|_| event.t_us);
            }
            LabEventKind::QuorumRegained { .. } => {
                if let Some(from) = since.take() {
                    longest = longest.max(event.t_us.saturating_sub(from));
                }
            }
            _ => {}
        }
    }
    match since {
        Some(_) => None,
        None => Some(longest),
    }
}

#[cfg(test)]
mod tests {
    use zkd::ids::{SessionId, Xid, Zxid};

    use super::*;
    use crate::event::Source;
    use crate::observe::logs::LogsViolation;

    #[test]
    fn who_died_is_named_with_its_last_words_unless_it_has_spoken_since() {
        let event = |kind| LabEvent {
            v: 1,
            seq: 0,
            t_us: 0,
            lab: String::new(),
            node: "n1".parse().ok(),
            src: Source::Proc,
            kind,
        };
        let exited = LabEventKind::NodeExited {
            code: Some(3),
            signal: None,
            expected: false,
        };
        let mut events = vec![event(LabEventKind::NodeSpawned { pid: 1 }), event(exited)];
        let words = |node: NodeId| Some(format!("the log of {node} is damaged"));
        let text = died(&events, &words).unwrap();
        assert_eq!(
            text,
            "n1 died on its own (exit code 3): the log of n1 is damaged"
        );
        events.push(event(LabEventKind::NodeSpawned { pid: 2 }));
        let text = died(&events, &words).unwrap();
        assert_eq!(text, "n1 died on its own (exit code 3)");
        assert_eq!(died(&events[..1], &words), None);
    }

    #[test]
    fn an_event_that_is_missing_names_a_bug_only_if_no_state_is_wrong() {
        let check = |rule: &str, verdict: &str| Check {
            verdict: verdict.to_owned(),
            ..skipped(rule, "")
        };
        let name = |checks: &[Check]| first_failed(checks).map(|check| check.rule.clone());
        let watches = check("watches", "fail");
        let mut checks = vec![check("reads", "pass"), watches, check("digest", "pass")];
        assert_eq!(name(&checks).as_deref(), Some("watches"));
        checks.push(check("ephemerals", "fail"));
        assert_eq!(name(&checks).as_deref(), Some("ephemerals"));
        checks.insert(0, check("zxid-order", "fail"));
        assert_eq!(name(&checks).as_deref(), Some("zxid-order"));
        checks.insert(0, check("digest", "fail"));
        assert_eq!(name(&checks).as_deref(), Some("zxid-order"));
        checks.push(check("multi", "fail"));
        assert_eq!(name(&checks).as_deref(), Some("multi"));
        checks.push(check("logs", "fail"));
        assert_eq!(name(&checks).as_deref(), Some("logs"));
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn logs_that_differ_are_shown_with_who_wrote_what() {
        let dir = tempfile::tempdir().unwrap();
        let history = dir.path().join("history.ndjson");
        let lines = [
            r#"{"k":"op","id":4,"c":1,"s":"0x100","conn":1,"xid":9,"op":"set","path":"/b","t0":1,"out":"ok","t1":2,"z":"0x6"}"#,
            r#"{"k":"op","id":5,"c":1,"s":"0x100","conn":2,"xid":9,"op":"set","path":"/a","t0":3,"out":"ok","t1":4,"z":"0x7"}"#,
            r#"{"k":"op","id":6,"c":2,"s":"0x200","conn":1,"xid":3,"op":"delete","path":"/a","t0":3,"out":"unknown"}"#,
            r#"{"k":"op","id":7,"c":2,"s":"0x200","conn":1,"xid":4,"op":"delete","path":"/a","t0":3,"out":"unknown"}"#,
            r#"{"k":"event","c":2,"s":"0x200","conn":1,"at":5,"ev":"changed","path":"/a"}"#,
        ];
        std::fs::write(&history, lines.join("\n")).unwrap();
        let txn = |log: &str, what: &str, session, request| LoggedTxn {
            log: log.to_owned(),
            zxid: Zxid(7),
            what: what.to_owned(),
            session: SessionId(session),
            request: Xid(request),
            time_ms: 5,
            digest: None,
        };
        let found = LogsViolation {
            zxid: Zxid(7),
            what: "they differ".to_owned(),
            proof: [
                txn("n1", "setData /a version 1, 1 bytes \"x\"", 0x100, 9),
                txn("n3", "delete /a", 0x200, 3),
            ],
        };
        let verdict = |violation| {
            Ok(LogsVerdict {
                dirs: Vec::new(),
                compared: 12,
                violation,
            })
        };
        let check = logs(verdict(Some(found)), &history);
        assert_eq!(
            (check.verdict.as_str(), check.message.as_str()),
            ("fail", "at 0x7: they differ")
        );
        let shown: Vec<&Value> = check
            .witness
            .iter()
            .map(|line| match &line["id"] {
                Value::Null => &line["node"],
                id => id,
            })
            .collect();
        assert_eq!(shown, [&json!(5), &json!(6), &json!("n1"), &json!("n3")]);
        assert_eq!(check.witness[3]["txn"], "delete /a");
        let check = logs(verdict(None), &history);
        assert_eq!((check.verdict.as_str(), check.count), ("pass", 12));
        assert!(check.witness.is_empty());
    }
}
