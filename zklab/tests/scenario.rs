//! Scenarios on real processes: a verdict, a folder that says everything, the same schedule for the same seed, and
//! bad input that touches nothing.
//!
//! The labs are on the loopback network, which every machine has.

mod place;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use place::Place;

/// A directory with scenarios, and the labs that come of them.
struct Desk {
    place: Place,
}

impl Desk {
    fn new() -> Self {
        Self {
            place: Place::new(),
        }
    }

    fn dir(&self) -> &Path {
        self.place.dir.path()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn zklab(&self, words: &[&str]) -> Output {
        self.place
            .command("")
            .args(words)
            .current_dir(self.dir())
            .output()
            .unwrap()
    }

    /// Exit code and everything that was printed.
    fn run(&self, words: &[&str]) -> (i32, String) {
        let output = self.zklab(words);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code().unwrap(), text)
    }

    /// What is left of labs.
    fn labs(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir().join("run")) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }
}

const KILLS: &str = r#"
name = "a leader dies"
lab = { nodes = 3 }
load = { clients = 3, rate = 300 }
step = [
  { id = "kill", at = "100ms", do = "kill leader", repeat = 2, every = "300ms..500ms", restart_after = "100ms" },
]
expect = { epoch_bumps = "1..9" }
"#;

/// 0 and 4 are both good: what a loaded machine takes its time for is not the servers' fault.
#[track_caller]
fn is_good((code, text): &(i32, String)) {
    assert!([0, 4].contains(code), "exit {code}\n{text}");
}

#[test]
fn a_run_ends_with_a_verdict_a_folder_and_nothing_left() {
    let desk = Desk::new();
    let file = desk.file("kills.toml", KILLS);
    let file = file.to_str().unwrap();
    let done = desk.run(&[
        "run", file, "--seed", "7", "--net", "loopback", "--junit", "j.xml",
    ]);
    is_good(&done);
    let last = done.1.lines().last().unwrap();
    assert!(
        last == "1 passed, 0 failed, 0 skipped" || last == "0 passed, 0 failed, 1 skipped",
        "{}",
        done.1
    );
    let folder = desk.dir().join("runs/last");
    for name in [
        "run.json",
        "scenario.toml",
        "events.ndjson",
        "history.ndjson",
        "schedule.ndjson",
        "samples.ndjson",
        "report.html",
        "n1/log",
    ] {
        assert!(folder.join(name).is_file(), "{name} is missing");
    }
    let record = std::fs::read_to_string(folder.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["seed"], "000007");
    let checks = record["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 11, "{record}");
    assert!(checks.iter().all(|check| check["verdict"] != "fail"));
    let schedule = std::fs::read_to_string(folder.join("schedule.ndjson")).unwrap();
    assert_eq!(
        schedule
            .matches("\"do\":\"kill leader restart-after 100ms\"")
            .count(),
        2
    );
    let junit = std::fs::read_to_string(desk.dir().join("j.xml")).unwrap();
    assert!(junit.contains("<testsuite "), "{junit}");

    // The same again, and what was written down is the plan of the same seed.
    let plan = std::fs::read(folder.join("scenario.toml")).unwrap();
    let again = desk.run(&["replay", "runs/last", "--net", "loopback"]);
    is_good(&again);
    assert_eq!(std::fs::read(folder.join("scenario.toml")).unwrap(), plan);
    assert!(desk.labs().is_empty(), "{:?}", desk.labs());
}

/// A line of a scenario, and what is said of it.
const WRONG: &[(&str, &str)] = &[
    (
        "lab = { nodse = 3 }",
        "3: unknown key in lab \"nodse\"; did you mean nodes?",
    ),
    (
        "lab = { nodes = 3, tick = \"5\" }",
        "3: tick: \"5\" needs a unit: 250ms, 2s, 1m",
    ),
    (
        "step = [{ do = \"kil leader\" }]",
        "3: unknown deed \"kil\"; did you mean kill?",
    ),
    (
        "step = [{ do = \"kill n9\" }]",
        "3: unknown node \"n9\"; did you mean n1?",
    ),
    (
        "step = [{ do = \"drop PROPOSLA\" }]",
        "3: there is no message \"PROPOSLA\"; did you mean PROPOSAL?",
    ),
    (
        "step = [{ after = \"kil\", do = \"heal\" }]",
        "3: unknown step or event in after \"kil\"",
    ),
    (
        "step = [{ id = \"a\", after = \"a\", do = \"heal\" }]",
        "3: unknown step or event in after \"a\"",
    ),
    (
        "expect = { sesions_lost = 0 }",
        "3: unknown key in expect \"sesions_lost\"; did you mean sessions_lost?",
    ),
    (
        "check = { zxid_ordr = true }",
        "3: unknown key in check \"zxid_ordr\"; did you mean zxid_order?",
    ),
    (
        "load = { mix = { sett = 1 } }",
        "3: unknown key in mix \"sett\"; did you mean set?",
    ),
    (
        "fault = [{ kind = \"proces\", do = \"kill\" }]",
        "3: unknown kind \"proces\"; did you mean process?",
    ),
    (
        "final = { then = [\"core servs within 2s\"] }",
        "3: unknown demand",
    ),
    ("x = [", "3: "),
];

#[test]
fn bad_input_is_told_with_its_place_and_touches_nothing() {
    let desk = Desk::new();
    for (line, wanted) in WRONG {
        let second = if line.starts_with("lab") {
            ""
        } else {
            "lab = { nodes = 5 }"
        };
        desk.file("bad.toml", &format!("name = \"x\"\n{second}\n{line}\n"));
        let (code, text) = desk.run(&["run", "bad.toml"]);
        assert_eq!(code, 2, "{line}\n{text}");
        assert!(
            text.contains(&format!("bad.toml:{wanted}")),
            "{line}\n{text}"
        );
    }
    desk.file("links.toml", "name = \"x\"\nstep = [{ do = \"ring\" }]\n");
    let (code, text) = desk.run(&["run", "links.toml", "--net", "loopback"]);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("needs a network of its own for every node"),
        "{text}"
    );
    assert!(desk.labs().is_empty());
    assert!(!desk.dir().join("runs").exists());
}

#[test]
fn one_seed_is_one_plan_and_the_shipped_scenarios_are_good() {
    let desk = Desk::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/scenarios");
    let shipped = shipped.to_str().unwrap();
    let (code, text) = desk.run(&["scenario", "check", shipped]);
    assert_eq!(code, 0, "{text}");
    assert!(text.lines().count() >= 10, "{text}");
    let plan = |seed| desk.run(&["run", shipped, "--dry-run", "--count", "3", "--seed", seed]);
    assert_eq!(plan("8f21c0"), plan("8f21c0"));
    assert_ne!(plan("8f21c0"), plan("8f21c1"));
    let (code, text) = desk.run(&["scenario", "new", "mine.toml"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        desk.run(&["scenario", "new", "mine.toml"]).0,
        2,
        "what is there stays"
    );
    assert_eq!(desk.run(&["scenario", "check", "mine.toml"]).0, 0);
    let schema = desk.place.expect(0, "scenario schema");
    serde_json::from_str::<Value>(&schema).unwrap();
}

#[test]
fn a_server_that_cannot_serve_is_the_environment_and_never_a_bug() {
    let desk = Desk::new();
    let file = desk.file("kills.toml", KILLS);
    let none = ["run", file.to_str().unwrap(), "--server", "/no/such/zkd"];
    assert_eq!(desk.run(&none).0, 5);
    // It starts, and is gone at once.
    let (code, text) = desk.run(&[
        "run",
        file.to_str().unwrap(),
        "--server",
        "/bin/true",
        "--net",
        "loopback",
    ]);
    assert!(code == 5 || code == 6, "exit {code}\n{text}");
    assert!(desk.labs().is_empty());
}
