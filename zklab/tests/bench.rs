//! `bench` on real servers: every kind of it measures something, says so in JSON and on a page, and leaves nothing.

mod place;

use std::path::Path;

use serde_json::Value;

use place::Place;

/// A bench that has to succeed; what it says in JSON.
#[track_caller]
fn bench(place: &Place, words: &str) -> Value {
    let text = place.expect(0, &format!("--json bench {words}"));
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(report["v"], 1, "{text}");
    let left = place.expect(0, "ls");
    assert!(left.contains("no lab is up"), "{words} left {left}");
    report
}

/// A figure of a side's round.
#[track_caller]
fn figure(report: &Value, side: usize, round: usize, key: &str) -> f64 {
    let value = &report["sides"][side]["rounds"][round]["figures"][key];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no {key}: {report}"))
}

fn zkd() -> String {
    let zkd = Path::new(env!("CARGO_BIN_EXE_zklab")).with_file_name("zkd");
    zkd.display().to_string()
}

#[test]
fn two_servers_are_compared_in_turn_with_page_and_pictures() {
    let place = Place::new();
    let dir = place.dir.path().display().to_string();
    let report = bench(
        &place,
        &format!(
            "write --clients 2 --for 600ms --warm-up 10ms --rounds 2 --data tmpfs --bystanders \
             --against {} --html {dir}/page.html --svg {dir}/svg",
            zkd()
        ),
    );
    for side in 0..2 {
        for round in 0..2 {
            assert!(figure(&report, side, round, "rate") > 1.0);
            // Three servers, and every write is synced by at least two of them, if not alone.
            assert!(figure(&report, side, round, "syncs") > 0.0);
            assert!(figure(&report, side, round, "others_max") > 0.0);
        }
    }
    assert!(report["ratios"]["rate"]["median"].as_f64().unwrap() > 0.0);
    let page = std::fs::read_to_string(format!("{dir}/page.html")).unwrap();
    assert!(page.contains("How they compare") && page.contains("OPS/S"));
    for name in ["rate", "latency", "ratios"] {
        let svg = std::fs::read_to_string(format!("{dir}/svg/{name}.svg")).unwrap();
        assert!(svg.ends_with("</svg>"), "{svg}");
    }
}

#[test]
fn servers_that_run_already_are_compared_too() {
    let place = Place::new();
    place.expect(0, "up --nodes 1");
    let status: Value = serde_json::from_str(&place.expect(0, "--json status")).unwrap();
    let address = status["nodes"][0]["addr"].as_str().unwrap();
    let words = format!(
        "--json bench read --clients 2 --for 300ms --warm-up 10ms --servers {address} --against {address}"
    );
    let report: Value = serde_json::from_str(&place.expect(0, &words)).unwrap();
    assert!(figure(&report, 1, 0, "rate") > 1.0);
    assert!(report["sides"][0]["rounds"][0]["figures"]["cpu"].is_null());
    place.expect(0, "down");
}

#[test]
fn a_bench_that_kills_servers_takes_none_that_run_already() {
    let place = Place::new();
    let text = place.expect(2, "bench election --servers 127.0.0.1:1");
    assert!(text.contains("starts and kills servers"), "{text}");
}

#[test]
fn ensembles_are_started() {
    let report = bench(&Place::new(), "start --nodes 1 --data tmpfs");
    assert!(figure(&report, 0, 0, "first_write_1") > 0.0);
    assert!(figure(&report, 0, 0, "memory_1") > 0.0);
}

#[test]
fn leaders_are_killed_quiet_and_under_load() {
    let report = bench(
        &Place::new(),
        "election --nodes 3 --kills 2 --clients 4 --data tmpfs",
    );
    let samples = &report["sides"][0]["rounds"][0]["samples"];
    for name in ["quiet", "loaded"] {
        assert_eq!(samples[name].as_array().unwrap().len(), 2, "{report}");
        let slowest = figure(&report, 0, 0, &format!("{name}_max"));
        assert!(slowest >= figure(&report, 0, 0, &format!("{name}_median")));
    }
    assert!(figure(&report, 0, 0, "acked") > 0.0);
}

#[test]
fn a_tree_is_made_read_after_a_kill_and_snapshotted() {
    let report = bench(
        &Place::new(),
        "tree --keys 3000 --clients 4 --rate 800 --for 2s --warm-up 100ms --data tmpfs",
    );
    for key in ["fill", "memory", "first_read", "memory_after", "pause"] {
        assert!(figure(&report, 0, 0, key) > 0.0, "{key}");
    }
    assert!(figure(&report, 0, 0, "snapshots") >= 1.0);
}

#[test]
fn a_follower_comes_back_from_far_behind_and_from_nothing() {
    let report = bench(
        &Place::new(),
        "catch-up --keys 2000 --behind 1500 --clients 4 --data tmpfs",
    );
    for key in ["behind", "empty", "behind_others_max", "empty_others_max"] {
        assert!(figure(&report, 0, 0, key) > 0.0, "{key}");
    }
}
