//! The pages of a real run that failed (five servers, a kill, two partitions, a pause; one answer in the history was
//! changed by hand so that it goes back in time), and of runs of which little or too much is known.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

fn failing() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/report/failing")
}

/// Every element is closed, in the right order.
#[track_caller]
fn is_well_formed(page: &str) {
    // Style and script hold no markup.
    let mut text = page.to_owned();
    for tag in ["style", "script"] {
        while let Some(begin) = text.find(&format!("<{tag}")) {
            let end = begin + text[begin..].find(&format!("</{tag}>")).unwrap() + tag.len() + 3;
            text.replace_range(begin..end, "");
        }
    }
    let mut open: Vec<&str> = Vec::new();
    for part in text.split('<').skip(1) {
        let (inside, _) = part.split_once('>').unwrap_or_else(|| panic!("<{part}"));
        let name = inside.split_whitespace().next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
        } else if !inside.ends_with('/') && !name.starts_with('!') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_stranger_finds_the_cause_on_the_page() {
    let text = page(&Folder::read(&failing()).unwrap());
    is_well_formed(&text);
    let order = [
        "Product bug",
        "What went wrong",
        "The session had seen 0x300000017 and was then answered from 0x200000583",
        "The promise:",
        "What proves it",
        "op 4634",
        "op 4635",
        "faults that stood: isolate leader (n4) (since 3.117 s)",
        "How it came to that",
        "no longer follower: the leader was silent for 1000 ms",
        "n5</b>\n leads epoch 3",
        "zklab run configs/scenarios/isolate-and-pause.toml --seed 8f21d1",
        "What happened, over time",
        "Elections, and what was said in them",
        "n5 leads epoch 3 after 209 ms",
        "What was done",
        "Expectations",
        "Where it ran",
    ];
    let mut rest = text.as_str();
    for wanted in order {
        let at = rest.find(wanted);
        let at = at.unwrap_or_else(|| panic!("{wanted:?} is not there, or not in this place"));
        rest = &rest[at..];
    }
}

#[test]
fn every_broken_promise_is_on_the_page_and_the_write_is_followed() {
    let mut folder = Folder::read(&failing()).unwrap();
    let first = folder.run.failed_check().unwrap().clone();
    let mut second = first.clone();
    let write = json!({"k": "op", "id": 3, "c": 1, "s": "0x100", "conn": 1, "op": "set", "path": "/a", "t0": 1, "t1": 2,
        "out": "ok", "z": "0x300000017"});
    second.rule = "acked-writes".to_owned();
    second.message = "/a is lost".to_owned();
    second.witness = vec![write.clone()];
    let mut third = second.clone();
    third.rule = "watches".to_owned();
    third.message = "no event for /a".to_owned();
    third.witness = vec![write];
    folder.run.checks = vec![first, third, second];
    folder.run.rule = "acked-writes".to_owned();
    let text = page(&folder);
    is_well_formed(&text);
    for wanted in [
        "<code>watches</code>",
        "no event for /a",
        "it is about the same write",
        "2 more promises were broken",
        "was told by its server at 0.000 s that it is done",
        "<div class=\"promise\">0x100</div>",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    let table = text.split("What became of <code>0x300000017</code>").nth(1);
    let rows = table.unwrap().split("</table>").next().unwrap();
    assert_eq!(rows.matches("<tr").count(), 1 + 5, "a row for every server");
    assert!(
        rows.contains("n4 tells it") || rows.contains("n5 tells it"),
        "{rows}"
    );
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let text = page(&Folder::read(&failing()).unwrap());
    for wrong in ["http:", "https:", "//cdn", "src=", "<link", "@import"] {
        assert!(!text.contains(wrong), "{wrong}");
    }
}

#[test]
fn lanes_faults_and_elections_are_told_apart() {
    let story = Story::of(&Folder::read(&failing()).unwrap());
    let lane = |node: &str| {
        let lane = story.lanes.iter().find(|lane| lane.node == node);
        let states = lane.unwrap().spans.iter().filter(|span| {
            // Roles that lasted, not the moments between.
            span.to_us - span.from_us > 100_000
        });
        let states: Vec<&str> = states.map(|span| span.state.word()).collect();
        states.join(" ")
    };
    assert_eq!(lane("n5"), "leader follower looking leader");
    assert_eq!(
        lane("n4"),
        "follower leader looking follower joining follower"
    );
    assert_eq!(
        lane("n2"),
        "follower follower looking follower paused follower"
    );
    let faults: Vec<&str> = story.faults.iter().map(|fault| &fault.what[..]).collect();
    assert_eq!(faults, ["kill", "partition", "pause", "link", "partition"]);
    let cut = &story.faults[1];
    assert!(cut.hits("n4") && !cut.hits("n1"));
    let leaders: Vec<String> = story
        .epochs
        .iter()
        .map(|epoch| format!("{} {}", epoch.epoch, epoch.leader))
        .collect();
    assert_eq!(leaders, ["1 n5", "2 n4", "3 n5"]);
    let ends: Vec<bool> = story
        .elections
        .iter()
        .map(|election| matches!(election.end, End::Won { .. }))
        .collect();
    assert_eq!(ends, [true, true, true, false], "the last joins a leader");
}

#[test]
fn messages_become_rows_and_lost_ones_are_marked() {
    let said = |t_us: u64, from: &str, to: &str, msg: &str, fate: &str| {
        Event::of(
            json!({"t_us": t_us, "src": "wire", "kind": "wire.message", "from": from, "to": to,
            "msg": msg, "for": "n5", "round": 2, "fate": fate}),
        )
    };
    let events = [
        said(10, "n1", "n2", "VOTE", "delivered"),
        said(12, "n1", "n3", "VOTE", "delivered"),
        said(20, "n2", "n1", "VOTE", "dropped"),
        Event::of(
            json!({"t_us": 30, "node": "n5", "src": "wire", "kind": "leader.elected", "epoch": 2}),
        ),
    ];
    let elections = elections::read(&events);
    let [election] = elections.as_slice() else {
        panic!("{elections:?}");
    };
    let rows: Vec<String> = election
        .rows
        .iter()
        .map(|row| {
            format!(
                "{} > {}: {} ({})",
                row.from,
                row.to.join(" "),
                row.text,
                row.tone.word()
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            "n1 > n2 n3: vote for n5 (round 2) (vote)",
            "n2 > n1: vote for n5 (round 2) – dropped (bad)",
            "n5 > : leads epoch 2: a quorum is in sync (good)",
        ]
    );
}

#[test]
fn a_folder_with_next_to_nothing_still_has_a_page() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("run.json"), "{}").unwrap();
    let text = page(&Folder::read(dir.path()).unwrap());
    is_well_formed(&text);
    assert!(text.contains("No verdict"));
    assert!(text.contains("events.ndjson is not in the folder"));
}

#[test]
fn what_is_no_run_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let failure = Folder::read(dir.path()).unwrap_err();
    assert!(failure.cause.contains("is not the folder of a run"));
    assert!(failure.hint.unwrap().contains("zklab run"));
    fs::write(dir.path().join("run.json"), "{\"v\":1,\n oh").unwrap();
    let failure = Folder::read(dir.path()).unwrap_err();
    assert!(failure.cause.contains("run.json:2: "), "{}", failure.cause);
    assert!(find(&dir.path().join("none")).is_err());
    assert_eq!(find(dir.path()).unwrap(), [dir.path()]);
}

#[test]
fn nothing_that_a_file_says_becomes_markup() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "</script><script>alert('1')</script>\"&";
    let op = json!({"k": "op", "id": 1, "c": 1, "op": "get", "path": evil, "t0": 5, "t1": 9, "out": "ok"});
    let run = json!({"name": evil, "seed": evil, "server": evil, "servers": {evil: evil}, "verdict": "bug",
        "rule": evil, "message": evil, "repro": evil, "machine": evil,
        "checks": [{"rule": evil, "verdict": "fail", "message": evil, "witness": [op]}],
        "expects": [{"what": evil, "wanted": evil, "got": evil, "ok": false}]});
    fs::write(dir.path().join("run.json"), run.to_string()).unwrap();
    let event = |t_us: u64, rest: serde_json::Value| {
        let mut event = json!({"t_us": t_us, "node": evil, "src": "zkd"});
        event
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        event.to_string() + "\n"
    };
    let events = event(1, json!({"kind": "election.started", "reason": evil}))
        + &event(
            2,
            json!({"kind": "fault.on", "fault": evil, "nodes": [evil], "links": [evil]}),
        )
        + &event(3, json!({"kind": "leader.elected", "epoch": 1}));
    fs::write(dir.path().join("events.ndjson"), events).unwrap();
    fs::write(dir.path().join("scenario.toml"), evil).unwrap();
    let folder = Folder::read(dir.path()).unwrap();
    for text in [page(&folder), compare(&[folder.clone(), folder.clone()])] {
        is_well_formed(&text);
        assert!(!text.contains("<script>alert"));
        assert!(text.contains("&lt;script&gt;alert(&#39;1&#39;)"));
    }
}

#[test]
fn a_minute_with_a_hundred_thousand_operations_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("run.json"), "{\"verdict\":\"pass\"}").unwrap();
    let mut history = "{\"k\":\"history\",\"v\":1}\n".to_owned();
    for id in 1..=100_000_u64 {
        let t0 = id * 600;
        let t1 = t0 + 700 + id * 7919 % 3000;
        history.push_str(&format!(
            "{{\"k\":\"op\",\"id\":{id},\"c\":1,\"op\":\"set\",\"path\":\"/a\",\"t0\":{t0},\"out\":\"ok\",\"t1\":{t1}}}\n"
        ));
    }
    fs::write(dir.path().join("history.ndjson"), history).unwrap();
    let mut events = String::new();
    for turn in 0..100_u64 {
        for node in 1..=5 {
            let t_us = turn * 600_000 + node * 50;
            events.push_str(&format!(
                "{{\"t_us\":{t_us},\"node\":\"n{node}\",\"src\":\"zkd\",\"kind\":\"election.started\",\"reason\":\"leader lost\"}}\n"
            ));
            let t_us = t_us + 20_000;
            events.push_str(&format!(
                "{{\"t_us\":{t_us},\"node\":\"n{node}\",\"src\":\"zkd\",\"kind\":\"node.serving\",\"role\":\"follower\"}}\n"
            ));
        }
    }
    fs::write(dir.path().join("events.ndjson"), events).unwrap();
    let folder = Folder::read(dir.path()).unwrap();
    assert_eq!(folder.load.op_count(), 100_000);
    let text = page(&folder);
    assert!(text.len() < 3_000_000, "{}", text.len());
}

#[test]
fn runs_are_laid_side_by_side() {
    let one = Folder::read(&failing()).unwrap();
    let mut other = one.clone();
    other.run.server = "apache 3.8.0".to_owned();
    other.run.outcome = Outcome::Pass;
    let folders = [one, other];
    let text = compare(&folders);
    is_well_formed(&text);
    assert_eq!(text.matches("class=\"runname\"").count(), 2);
    assert_eq!(text.matches("isolate leader (n4)").count() % 2, 0);
    let table = compared(&folders);
    assert!(table.starts_with("| | zkd 0.1.0 · 8f21d1 | apache 3.8.0 · 8f21d1 |\n|---|---|---|\n"));
    assert!(table.contains("| verdict | Product bug: session-fifo | Passed |"));
    assert!(table.contains(
        "| expected: longest time without an acknowledged write | 1213 ms of 1 s (MISSED) |"
    ));
}

#[test]
fn markdown_names_the_rule_and_its_proof() {
    let text = markdown(&[Folder::read(&failing()).unwrap()]);
    assert!(text.contains("| ❌ Product bug | isolate and pause | 8f21d1 | zkd 0.1.0 | 1213 ms |"));
    assert!(text.contains("**session-fifo** the session had seen"));
    assert!(text.contains("- `op 4635  client 4  at n1  get /load-0000000001/e/5"));
}
