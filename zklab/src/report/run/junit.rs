//! Verdicts as JUnit XML: a suite for each scenario file, a case for each seed and server.
//!
//! There is no standard, only readers. What is written here is what the readers of GitLab, Jenkins and GitHub's
//! actions have in common: counts as attributes, times in seconds, `properties` first, then at most one of `failure`,
//! `error` and `skipped`, then `system-out`.

use super::folder::{Outcome, RunJson};
use super::load::Load;
use super::witness;
use crate::report::markup::Markup;

/// A run, as the XML tells it.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// What `run.json` says.
    pub run: RunJson,
    /// Where its report is, if it was kept.
    pub report: Option<String>,
    /// Why it failed, in a sentence, where that is known.
    pub cause: Option<String>,
}

impl Case {
    /// The suite it belongs to: the scenario's file, or its name.
    fn suite(&self) -> &str {
        if self.run.file.is_empty() {
            &self.run.name
        } else {
            &self.run.file
        }
    }

    /// What went wrong: the element, its type and its message.
    fn failure(&self) -> Option<(&'static str, &str, String)> {
        let run = &self.run;
        let or = |text: &str, other: &str| {
            if text.is_empty() {
                other.to_owned()
            } else {
                text.to_owned()
            }
        };
        match run.outcome {
            Outcome::Pass => None,
            Outcome::Bug => {
                let rule = if run.rule.is_empty() {
                    "bug"
                } else {
                    &run.rule
                };
                Some(("failure", rule, or(&run.message, "a promise was broken")))
            }
            Outcome::Missed => Some((
                "failure",
                "expectation",
                or(&run.message, "an expectation was missed"),
            )),
            Outcome::Died => Some((
                "failure",
                "node-died",
                or(&run.message, "a server died on its own"),
            )),
            Outcome::Environment => Some((
                "error",
                "env",
                or(&run.message, "there was no ensemble to judge"),
            )),
            Outcome::Inconclusive => Some(("skipped", "", or(&run.message, &stalled(run)))),
            Outcome::Unknown => Some((
                "error",
                "no-verdict",
                or(&run.message, "there is no verdict"),
            )),
        }
    }

    fn is(&self, element: &str) -> bool {
        self.failure().is_some_and(|(found, ..)| found == element)
    }

    fn properties(&self) -> Vec<(&'static str, String)> {
        let run = &self.run;
        let mut properties = vec![
            ("seed", run.seed.clone()),
            ("server", run.server.clone()),
            ("net", run.net.clone()),
            ("verdict", run.outcome.word().to_owned()),
            ("repro", run.repro.clone()),
            ("report", self.report.clone().unwrap_or_default()),
            ("host_stall_max_ms", format!("{:.1}", run.host_stall_max_ms)),
        ];
        if let Some(load) = &run.load {
            properties.push(("no_writes_max_ms", format!("{:.1}", load.longest_gap_ms)));
        }
        properties.retain(|(_, value)| !value.is_empty());
        properties
    }

    /// The proof, the missed expectations, and how to see it again.
    fn story(&self) -> Vec<String> {
        let run = &self.run;
        let mut lines = Vec::new();
        lines.extend(self.cause.iter().map(|cause| format!("cause: {cause}")));
        for check in run.checks.iter().filter(|check| check.verdict == "fail") {
            lines.push(format!("{}: {}", check.rule, check.message));
            let load = Load::default();
            let proofs = check.witness.iter();
            let proofs = proofs.map(|value| witness::Proof::of(value, run.lab_start_us, &load));
            lines.extend(proofs.map(|proof| format!("  {}", proof.line())));
        }
        for missed in run.expects.iter().filter(|expect| !expect.ok) {
            lines.push(format!(
                "{}: wanted {}, got {}",
                missed.what, missed.wanted, missed.got
            ));
        }
        if run.outcome != Outcome::Pass {
            for (word, text) in [("again", &run.repro), ("smaller", &run.shrink)] {
                if !text.is_empty() {
                    lines.push(format!("{word}: {text}"));
                }
            }
        }
        lines
    }
}

fn stalled(run: &RunJson) -> String {
    format!(
        "host stall {:.0} ms > margin {:.0} ms",
        run.host_stall_max_ms, run.host_stall_limit_ms
    )
}

/// The XML of these runs. Suites and cases stand in the order in which they come.
#[must_use]
pub fn junit(cases: &[Case]) -> String {
    let mut suites: Vec<(&str, Vec<&Case>)> = Vec::new();
    for case in cases {
        match suites.iter_mut().find(|(name, _)| *name == case.suite()) {
            Some((_, cases)) => cases.push(case),
            None => suites.push((case.suite(), vec![case])),
        }
    }
    let mut xml = Markup::default();
    xml.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all: Vec<&Case> = cases.iter().collect();
    begin(&mut xml, "testsuites", "zklab", &all, "");
    for (name, cases) in &suites {
        let started = cases[0].run.started.trim_end_matches('Z');
        begin(&mut xml, "testsuite", name, cases, started);
        for case in cases {
            one(&mut xml, case);
        }
        xml.close("testsuite");
    }
    xml.close("testsuites");
    xml.finish()
}

/// Opens an element with the counts of what is inside.
fn begin(xml: &mut Markup, tag: &str, name: &str, cases: &[&Case], started: &str) {
    let count = |element: &str| cases.iter().filter(|case| case.is(element)).count();
    let time: f64 = cases.iter().map(|case| case.run.ms / 1000.0).sum();
    let time = format!("{time:.3}");
    let (tests, failures) = (cases.len(), count("failure"));
    let (errors, skipped) = (count("error"), count("skipped"));
    let mut attributes: Vec<(&str, &dyn std::fmt::Display)> = vec![
        ("name", &name),
        ("tests", &tests),
        ("failures", &failures),
        ("errors", &errors),
        ("skipped", &skipped),
        ("time", &time),
    ];
    if !started.is_empty() {
        attributes.push(("timestamp", &started));
    }
    xml.open(tag, &attributes).raw("\n");
}

fn one(xml: &mut Markup, case: &Case) {
    let run = &case.run;
    let name = if run.server.is_empty() {
        format!("{}/{}", run.name, run.seed)
    } else {
        format!("{}/{} on {}", run.name, run.seed, run.server)
    };
    let time = format!("{:.3}", run.ms / 1000.0);
    xml.open(
        "testcase",
        &[
            ("name", &name),
            ("classname", &run.name),
            ("file", &run.file),
            ("time", &time),
        ],
    );
    xml.raw("\n").open("properties", &[]).raw("\n");
    for (name, value) in case.properties() {
        xml.empty("property", &[("name", &name), ("value", &value)]);
    }
    xml.close("properties");
    let story = case.story().join("\n");
    match case.failure() {
        None => {}
        Some(("skipped", _, message)) => {
            xml.empty("skipped", &[("message", &message)]);
        }
        Some((element, kind, message)) => {
            xml.element(element, &[("type", &kind), ("message", &message)], &story);
        }
    }
    if !story.is_empty() {
        xml.element("system-out", &[], &story);
    }
    xml.close("testcase");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(value: &serde_json::Value) -> Case {
        Case {
            run: RunJson::of(value),
            report: Some("runs/x/report.html".to_owned()),
            cause: None,
        }
    }

    fn cases() -> Vec<Case> {
        vec![
            case(
                &json!({"name": "leader kill loop", "file": "a/leader-kill-loop.toml", "seed": "8f21c0",
                "server": "zkd 0.1.0", "net": "tun", "ms": 1900.4, "started": "2026-11-22T12:00:04Z",
                "verdict": "pass", "load": {"longest_gap_ms": 31.2}, "repro": "zklab run a --seed 8f21c0"}),
            ),
            case(
                &json!({"name": "swarm", "file": "a/swarm.toml", "seed": "8f21d1", "server": "zkd 0.1.0",
                "ms": 2140, "verdict": "bug", "rule": "zxid-order",
                "message": "n3 served 0x200000733 after <the client> had seen 0x200000735",
                "checks": [{"rule": "zxid-order", "verdict": "fail", "count": 7, "ms": 2,
                    "message": "an answer went back", "witness": [{"k": "op", "id": 8801, "c": 3, "op": "get",
                    "path": "/r/\"1\"", "t0": 10, "t1": 20, "out": "ok", "z": "0x200000735"}]}],
                "repro": "zklab run a/swarm.toml --seed 8f21d1", "shrink": "zklab shrink runs/x"}),
            ),
            case(
                &json!({"name": "swarm", "file": "a/swarm.toml", "seed": "8f21d7", "server": "zkd 0.1.0",
                "ms": 2000, "verdict": "inconclusive", "host_stall_max_ms": 349.2,
                "host_stall_limit_ms": 100}),
            ),
            case(
                &json!({"name": "swarm", "file": "a/swarm.toml", "seed": "8f21d8", "server": "zkd 0.1.0",
                "ms": 10, "verdict": "environment", "message": "no binary zkd"}),
            ),
            case(
                &json!({"name": "swarm", "file": "a/swarm.toml", "seed": "8f21d9", "server": "zkd 0.1.0",
                "ms": 3000, "verdict": "missed", "message": "no_writes_max: wanted 300 ms, got 512 ms",
                "expects": [{"what": "no_writes_max", "wanted": "300 ms", "got": "512 ms", "ok": false}]}),
            ),
        ]
    }

    #[test]
    fn the_readers_find_what_they_look_for() {
        let xml = junit(&cases());
        let name = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/report/junit.xml");
        if std::env::var_os("ZKD_REWRITE").is_some() {
            std::fs::write(name, &xml).unwrap();
        }
        assert_eq!(xml, std::fs::read_to_string(name).unwrap());
        // What GitLab, Jenkins and the actions of GitHub demand beyond being XML.
        assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites "));
        let count = |text: &str| xml.matches(text).count();
        assert_eq!((count("<testsuite "), count("<testcase ")), (2, 5));
        assert_eq!((count("<failure "), count("</failure>")), (2, 2));
        assert_eq!((count("<error "), count("<skipped ")), (1, 1));
        assert!(
            xml.contains("tests=\"5\" failures=\"2\" errors=\"1\" skipped=\"1\" time=\"9.050\"")
        );
        assert!(xml.contains("<skipped message=\"host stall 349 ms &gt; margin 100 ms\"/>"));
        assert!(xml.contains("<failure type=\"zxid-order\" "));
        assert!(xml.contains("<error type=\"env\" message=\"no binary zkd\">"));
    }

    #[test]
    fn nothing_is_still_a_file_that_readers_take() {
        let xml = junit(&[]);
        assert!(xml.contains("<testsuites name=\"zklab\" tests=\"0\""));
        assert!(xml.ends_with("</testsuites>\n"));
    }

    #[test]
    fn the_cause_is_told_before_the_proof() {
        let mut failed = case(&json!({"verdict": "bug", "rule": "reads", "checks":
            [{"rule": "reads", "verdict": "fail", "message": "/a is old", "witness": []}]}));
        failed.cause = Some("n1 forgot it".to_owned());
        assert_eq!(
            failed.story()[..2],
            ["cause: n1 forgot it", "reads: /a is old"]
        );
    }
}
