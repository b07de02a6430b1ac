//! Load, a leader that dies in the middle of it, and the judgement: the whole way on real processes.

mod place;
mod work;

use std::path::Path;

use serde_json::Value;

use place::{Place, finished};

#[test]
fn a_leader_dies_under_load_and_no_promise_is_broken() {
    let lab = Place::new();
    let data = lab.dir.path().join("data");
    let history = lab.dir.path().join("history.ndjson");
    lab.expect(
        0,
        &format!(
            "up --nodes 3 --net loopback --tick 500ms --data {}",
            data.display()
        ),
    );
    let words = format!(
        "--json load --for 2s --clients 4 --rate 400 --seed 5 --session-timeout 2s --history {}",
        history.display()
    );
    let load = work::begin(&lab, &words, &history);
    lab.expect(0, "kill-leader --restart");
    let load: Value =
        serde_json::from_str(&finished(0, &words, &load.wait_with_output().unwrap())).unwrap();
    assert!(load["ok"].as_u64().unwrap() > 0, "{load}");
    assert!(
        load["end_zxid"].is_string(),
        "the end state was read: {load}"
    );

    let check = format!("--json check {}", history.display());
    let verdict: Value = serde_json::from_str(&lab.expect(0, &check)).unwrap();
    assert_eq!(verdict["verdict"], "pass", "{verdict}");
    let cases = |rule: &str| {
        let rules = verdict["rules"].as_array().unwrap();
        let found = rules.iter().find(|judged| judged["rule"] == rule).unwrap();
        found["cases"].as_u64().unwrap()
    };
    assert!(cases("zxid-order") > 0 && cases("reads") > 0, "{verdict}");

    // The same history with one lie in it.
    let text = std::fs::read_to_string(&history).unwrap();
    let lie = text
        .lines()
        .find(|line| line.contains("\"k\":\"final\"") && line.contains("/r/3"))
        .unwrap();
    let lied = lab.dir.path().join("lied.ndjson");
    std::fs::write(&lied, text.replace(&format!("{lie}\n"), "")).unwrap();
    let told = lab.expect(1, &format!("check {}", lied.display()));
    assert!(told.contains("acked-writes"), "{told}");
    lab.expect(2, &format!("check {} --only wathces", history.display()));

    lab.expect(0, "down --keep-data");
    let dirs: Vec<String> = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| data_of(&path))
        .collect();
    assert_eq!(dirs.len(), 3, "{dirs:?}");
    let logs = lab.expect(0, &format!("--json check --data {}", dirs.join(" ")));
    let logs: Value = serde_json::from_str(&logs).unwrap();
    assert!(logs["compared"].as_u64().unwrap() > 0, "{logs}");
}

/// The directory of a node, or the one in it, that holds `version-2`.
fn data_of(node: &Path) -> String {
    let inside = node.join("data");
    let dir = if inside.join("version-2").is_dir() {
        inside
    } else {
        node.to_owned()
    };
    assert!(dir.join("version-2").is_dir(), "{}", node.display());
    dir.display().to_string()
}
