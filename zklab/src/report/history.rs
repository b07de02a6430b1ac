//! How judgements of histories and logs look.

use serde_json::json;

use super::{Out, time};
use crate::observe::check::Verdict;
use crate::observe::load::Summary;
use crate::observe::logs::LogsVerdict;

/// A count with thin gaps: `19 884`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A load is over.
pub fn load(out: &Out, seed: u64, name: &str, summary: &Summary) {
    let ops = summary.ok + summary.failed + summary.unknown;
    out.json(&json!({
        "v": 1,
        "cmd": "load",
        "seed": format!("{seed:#x}"),
        "history": name,
        "root": summary.root,
        "clients": summary.clients,
        "clients_via_crate": summary.foreign,
        "ops": ops,
        "ok": summary.ok,
        "failed": summary.failed,
        "unknown": summary.unknown,
        "ms": {
            "p50": summary.p50_ms,
            "p99": summary.p99_ms,
            "longest_gap": summary.longest_gap_ms,
        },
        "end_zxid": summary.end.map(|zxid| zxid.to_string()),
    }));
    out.line(&format!(
        "{} ops  ok {}  failed {}  unknown {}  p50 {}  p99 {}  longest gap {} → {name}",
        count(ops),
        count(summary.ok),
        count(summary.failed),
        count(summary.unknown),
        time(summary.p50_ms),
        time(summary.p99_ms),
        time(summary.longest_gap_ms),
    ));
    if summary.foreign > 0 {
        out.line(&format!(
            "{} of {} clients through the zookeeper-client crate",
            summary.foreign, summary.clients
        ));
    }
    if summary.end.is_none() {
        out.line("note: no server served any more, so the end state was not read");
    }
}

/// A history was judged.
pub fn judged(out: &Out, name: &str, op_count: usize, ms: f64, verdict: &Verdict) {
    let rules: Vec<_> = verdict
        .rules
        .iter()
        .map(|judged| {
            json!({"rule": judged.rule.name(), "cases": judged.cases, "broken": judged.broken})
        })
        .collect();
    let violations: Vec<_> = verdict
        .violations
        .iter()
        .map(|found| {
            json!({
                "rule": found.rule.name(),
                "what": found.what,
                "witness": found.witness,
                "ops": found.lines,
            })
        })
        .collect();
    out.json(&json!({
        "v": 1,
        "cmd": "check",
        "history": name,
        "ops": op_count,
        "ms": ms,
        "verdict": if verdict.is_clean() { "pass" } else { "bug" },
        "rules": rules,
        "violations": violations,
        "notes": verdict.notes,
    }));
    let paint = out.paint;
    out.line(&format!(
        "{name}: {} ops judged in {ms:.0} ms",
        count(op_count as u64)
    ));
    for judged in &verdict.rules {
        let state = match judged.broken {
            0 => paint.green("ok"),
            broken => paint.red(&format!("FAIL: {} broken", count(broken))),
        };
        out.line(&format!(
            "  {:<13} {state} ({} cases)",
            judged.rule,
            count(judged.cases)
        ));
    }
    for found in &verdict.violations {
        out.line(&format!(
            "{} {}: {}",
            paint.red("FAIL"),
            paint.bold(found.rule.name()),
            found.what
        ));
        for line in &found.lines {
            out.line(&format!("    {line}"));
        }
    }
    for note in &verdict.notes {
        out.line(&format!("note: {note}"));
    }
}

/// The logs of several servers were compared.
pub fn logs(out: &Out, verdict: &LogsVerdict) {
    let dirs: Vec<_> = verdict
        .dirs
        .iter()
        .map(|dir| {
            json!({
                "dir": dir.name,
                "txns": dir.count,
                "first": dir.first.map(|zxid| zxid.to_string()),
                "last": dir.last.map(|zxid| zxid.to_string()),
            })
        })
        .collect();
    let violation = verdict.violation.as_ref().map(|found| {
        let proof = found.proof.each_ref().map(
            |txn| json!({"dir": txn.log, "zxid": txn.zxid.to_string(), "txn": txn.to_string()}),
        );
        json!({"rule": "logs", "zxid": found.zxid.to_string(), "what": found.what, "proof": proof})
    });
    out.json(&json!({
        "v": 1,
        "cmd": "check",
        "verdict": if violation.is_none() { "pass" } else { "bug" },
        "compared": verdict.compared,
        "dirs": dirs,
        "violation": violation,
    }));
    let paint = out.paint;
    for dir in &verdict.dirs {
        let span = match (dir.first, dir.last) {
            (Some(first), Some(last)) => format!("{first} … {last}"),
            _ => "empty".to_owned(),
        };
        out.line(&format!(
            "  {:>9} txns  {span}  {}",
            count(dir.count),
            dir.name
        ));
    }
    match &verdict.violation {
        None => out.line(&format!(
            "logs {}: the same txn wherever two have one, {} compared",
            paint.green("ok"),
            count(verdict.compared)
        )),
        Some(found) => {
            out.line(&format!(
                "{} {}: at {} the logs part",
                paint.red("FAIL"),
                paint.bold("logs"),
                found.zxid
            ));
            for txn in &found.proof {
                out.line(&format!("    {}  {}  {txn}", txn.log, txn.zxid));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_gaps() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234), "1 234");
        assert_eq!(count(1_234_567), "1 234 567");
    }
}
