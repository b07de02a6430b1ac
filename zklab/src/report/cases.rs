//! How runs of scenarios look: a line for each case, and what it came to.

use std::path::Path;

use serde_json::json;

use super::run::{self, Load, Proof};
use super::{Out, time};
use crate::scenario::record::Summary;
use crate::scenario::{Plan, RunRecord, Verdict};

/// Steps of a story that are shown; the rest is in the folder.
const STORY_MAX: usize = 6;

/// A case is over.
pub fn case(out: &Out, record: &RunRecord) {
    let broken = || record.checks.iter().filter(|check| check.verdict == "fail");
    let ids = broken().flat_map(|check| check.witness.iter().filter_map(|line| line.get("id")));
    let witness: Vec<_> = ids.collect();
    let proof: Vec<String> = broken()
        .take(1)
        .flat_map(|check| &check.witness)
        .map(|line| Proof::of(line, record.lab_start_us, &Load::default()).line())
        .collect();
    let cause = (record.verdict == Verdict::Bug)
        .then(|| run::cause(Path::new(&record.folder)))
        .flatten();
    out.json(&json!({
        "v": 1,
        "kind": "case",
        "name": record.name,
        "file": record.file,
        "seed": record.seed,
        "server": record.server,
        "verdict": record.verdict,
        "exit": record.exit,
        "rule": record.rule,
        "message": record.message,
        "cause": cause,
        "witness": witness,
        "proof": proof,
        "faults": record.faults,
        "ops": record.load.ops,
        "worst_gap_ms": record.load.longest_gap_ms,
        "host_stall_max_ms": record.host_stall_max_ms,
        "ms": record.ms,
        "folder": record.folder,
        "repro": record.repro,
    }));
    let paint = out.paint;
    let mut label = record.label();
    if record.server_word != "zkd" {
        label = format!("{label} on {}", record.server);
    }
    match record.verdict {
        Verdict::Pass => out.line(&format!(
            "  {} {label}  {}  {} faults, {} ops, worst gap {}",
            paint.green("PASS"),
            time(record.ms),
            record.faults,
            record.load.ops,
            time(record.load.longest_gap_ms),
        )),
        Verdict::Inconclusive => out.line(&format!(
            "  {} {label}  {}",
            paint.yellow("SKIP"),
            record.message
        )),
        _ => failed(out, record, &label, cause.as_deref(), &proof),
    }
}

/// A case that did not pass: why, what proves it, what was done, and where to look.
fn failed(out: &Out, record: &RunRecord, label: &str, cause: Option<&str>, proof: &[String]) {
    let why = match record.verdict {
        Verdict::Environment => format!("environment: {}", record.message),
        _ => record.message.clone(),
    };
    out.line(&format!("  {} {label}  {why}", out.paint.red("FAIL")));
    if let Some(cause) = cause {
        out.line(&format!("       cause: {cause}"));
    }
    for line in proof {
        out.line(&format!("       {line}"));
    }
    let mut story = record.story.clone();
    let more = story.len().saturating_sub(STORY_MAX);
    story.truncate(STORY_MAX);
    if more > 0 {
        story.push(format!("{more} more"));
    }
    if !story.is_empty() {
        out.line(&format!("       faults: {}", story.join(" · ")));
    }
    out.line(&format!(
        "       folder: {}     again: zklab replay {}",
        record.folder, record.folder
    ));
}

/// All cases are over.
pub fn summary(out: &Out, summary: &Summary, jobs: u8) {
    let stall = summary
        .cases
        .iter()
        .map(|case| case.host_stall_max_ms)
        .fold(0.0, f64::max);
    out.json(&json!({
        "v": 1,
        "kind": "summary",
        "cases": summary.cases.len(),
        "passed": summary.passed,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "host_stall_max_ms": stall,
        "ms": summary.ms,
    }));
    let count = summary.cases.len();
    out.line(&format!(
        "{count} {} in {}, {jobs} {}, host stall max {}",
        if count == 1 { "case" } else { "cases" },
        time(summary.ms),
        if jobs == 1 { "job" } else { "jobs" },
        time(stall),
    ));
    out.line(&format!(
        "{} passed, {} failed, {} skipped",
        summary.passed, summary.failed, summary.skipped
    ));
}

/// What a seed makes of a scenario.
pub fn plan(out: &Out, plan: &Plan) {
    out.json(&json!({
        "v": 1,
        "kind": "plan",
        "name": plan.name,
        "file": plan.file,
        "seed": plan.seed,
        "scenario": plan.to_toml(),
    }));
    out.line(plan.to_toml().trim_end());
    out.line("");
}
