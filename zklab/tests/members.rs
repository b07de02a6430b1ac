//! Nodes that come into a lab that is up, and go: on real processes, with clients at work.

mod place;
mod work;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use place::{Place, finished};

#[track_caller]
fn json(lab: &Place, words: &str) -> Value {
    let text = lab.expect(0, &format!("--json {words}"));
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

/// Asks for the status until so many nodes serve, all with one tree.
#[track_caller]
fn all_alike(lab: &Place, count: usize) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = json(lab, "status");
        let digest = &status["digest"];
        let alike = digest["nodes"].as_array().map_or(0, Vec::len);
        let nodes = status["nodes"].as_array().unwrap().len();
        if nodes == count && alike == count && digest["equal"] == true {
            return status;
        }
        assert!(
            Instant::now() < deadline,
            "never alike on {count}: {status}"
        );
    }
}

fn ids(report: &Value, list: &str) -> Vec<String> {
    let nodes = report[list].as_array().unwrap().iter();
    let ids = nodes.map(|node| node["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Do all nodes have exactly these servers in their configuration?
#[track_caller]
fn assert_configured(data: &Path, nodes: &[u8]) {
    for node in nodes {
        let text = std::fs::read_to_string(data.join(format!("n{node}/zoo.cfg"))).unwrap();
        let servers: Vec<u8> = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("server.")?
                    .split('=')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        assert_eq!(servers, nodes, "n{node}: {text}");
    }
}

#[track_caller]
fn assert_ended(lab: &Place, data: &Path) {
    lab.expect(0, "down");
    assert!(!data.exists(), "{}", data.display());
}

fn up(lab: &Place, words: &str) -> (Value, PathBuf) {
    let up = json(lab, &format!("up {words}"));
    let data = PathBuf::from(up["data_dir"].as_str().unwrap());
    (up, data)
}

#[test]
fn an_observer_comes_and_goes_and_disturbs_nobody() {
    let lab = Place::new();
    let (before, data) = up(&lab, "--nodes 3");
    lab.expect(0, "cli create /before one");
    let added = json(&lab, "add --observer");
    assert_eq!(
        (&added["id"], &added["role"]),
        (&"n4".into(), &"observer".into())
    );
    assert!(ids(&added, "restarted").is_empty(), "{added}");
    assert_configured(&data, &[1, 2, 3, 4]);
    assert_eq!(lab.expect(0, "cli n4 get /before").trim(), "one");
    lab.expect(0, "cli n4 create /through-it two");
    let status = all_alike(&lab, 4);
    assert_eq!((&status["voters"], &status["need"]), (&3.into(), &2.into()));
    for old in before["nodes"].as_array().unwrap() {
        let now = status["nodes"].as_array().unwrap().iter();
        let now = now.clone().find(|node| node["id"] == old["id"]).unwrap();
        assert_eq!(now["pid"], old["pid"], "nobody was started again");
    }
    let second = json(&lab, "add --observer");
    assert_eq!(second["id"], "n5");
    let refused = lab.expect(2, "rm observers");
    assert!(refused.contains("more than one"), "{refused}");
    let gone = json(&lab, "rm n4");
    assert_eq!(gone["role"], "observer");
    assert!(!data.join("n4").exists());
    assert_configured(&data, &[1, 2, 3, 5]);
    let refused = lab.expect(2, "kill n4");
    assert!(refused.contains("no node"), "{refused}");
    assert_eq!(json(&lab, "rm observers")["id"], "n5");
    all_alike(&lab, 3);
    let events = lab.expect(0, "--json events --kind node.added,node.removed");
    assert_eq!(events.lines().count(), 4, "{events}");
    assert_ended(&lab, &data);
}

#[test]
fn voters_join_under_load_and_no_acknowledged_write_is_lost() {
    let lab = Place::new();
    let history = lab.dir.path().join("history.ndjson");
    let (_, data) = up(&lab, "--nodes 3 --tick 500ms");
    let words = format!(
        "--json load --for 6s --clients 4 --rate 200 --seed 5 --session-timeout 4s --history {}",
        history.display()
    );
    let load = work::begin(&lab, &words, &history);
    for (id, voters) in [("n4", 4), ("n5", 5)] {
        let added = json(&lab, "add");
        assert_eq!(
            (&added["id"], &added["voters"]),
            (&id.into(), &voters.into())
        );
        let restarted = added["restarted"].as_array().unwrap();
        assert_eq!(restarted.len(), voters - 1, "{added}");
        let led = restarted.iter().map(|act| act["leader"] == true);
        let last = restarted.len() - 1;
        assert!(
            led.enumerate().all(|(n, led)| led == (n == last)),
            "{added}"
        );
    }
    let load: Value =
        serde_json::from_str(&finished(0, &words, &load.wait_with_output().unwrap())).unwrap();
    assert!(load["ok"].as_u64().unwrap() > 0, "{load}");
    let verdict = json(&lab, &format!("check {}", history.display()));
    assert_eq!(verdict["verdict"], "pass", "{verdict}");
    let status = all_alike(&lab, 5);
    assert_eq!((&status["voters"], &status["need"]), (&5.into(), &3.into()));
    assert_configured(&data, &[1, 2, 3, 4, 5]);
    // Without any two of the first three: the new ones count.
    lab.expect(0, "kill n1 n2");
    lab.expect(0, "cli create /by-the-new-ones x");
    assert_ended(&lab, &data);
}

#[test]
fn the_leader_and_a_follower_go_until_one_server_stands_alone() {
    let lab = Place::new();
    let (before, data) = up(&lab, "--nodes 4");
    lab.expect(0, "cli create /a 0");
    let gone = json(&lab, "rm leader");
    assert_eq!(
        (&gone["id"], &gone["role"]),
        (&before["leader"], &"leader".into())
    );
    assert_eq!(ids(&gone, "restarted").len(), 3, "{gone}");
    assert!(gone["writes_paused_ms"].as_f64().unwrap() > 0.0);
    lab.expect(0, "cli set /a 1");
    all_alike(&lab, 3);
    json(&lab, "rm followers[0]");
    let status = all_alike(&lab, 2);
    assert_eq!(status["need"], 2);
    lab.expect(0, "cli set /a 2");
    let last = json(&lab, "rm any-follower");
    let ids = ids(&last, "restarted");
    assert_eq!(ids.len(), 1, "{last}");
    let status = json(&lab, "status");
    assert_eq!(status["nodes"][0]["role"], "standalone", "{status}");
    assert_eq!(lab.expect(0, "cli get /a").trim(), "2");
    // It can have company again.
    json(&lab, "add");
    let status = all_alike(&lab, 2);
    assert_eq!(status["voters"], 2);
    assert_eq!(lab.expect(0, "cli get /a").trim(), "2");
    assert_ended(&lab, &data);
}

#[test]
fn what_would_end_the_service_is_refused_and_touches_nothing() {
    let lab = Place::new();
    let (_, data) = up(&lab, "--nodes 1");
    let refused = lab.expect(2, "rm n1");
    assert!(refused.contains("only voter"), "{refused}");
    lab.expect(2, "rm n7");
    let added = json(&lab, "add --observer");
    assert_eq!(added["role"], "observer", "{added}");
    let refused = lab.expect(2, "rm n1");
    assert!(refused.contains("only voter"), "{refused}");
    json(&lab, "add");
    json(&lab, "add");
    all_alike(&lab, 4);
    lab.expect(0, "kill n3");
    let refused = lab.expect(2, "rm n4");
    assert!(refused.contains("no quorum would serve"), "{refused}");
    lab.expect(0, "cli create /still-serving x");
    let left = json(&lab, "rm n3");
    assert_eq!((&left["voters"], &left["need"]), (&2.into(), &2.into()));
    assert_configured(&data, &[1, 2, 4]);
    lab.expect(0, "kill n1");
    let refused = lab.expect(3, "add --observer");
    assert!(refused.contains("nothing was touched"), "{refused}");
    assert!(!data.join("n5").exists());
    let refused = lab.expect(5, "add --server /no/such/zkd");
    assert!(refused.contains("/no/such/zkd"), "{refused}");
    assert_ended(&lab, &data);
}

#[test]
fn a_server_that_cannot_start_is_taken_out_again() {
    let lab = Place::new();
    let (_, data) = up(&lab, "--nodes 3");
    let failed = lab.expect(6, "add --observer --server /bin/false");
    assert!(failed.contains("n4 died"), "{failed}");
    assert!(!data.join("n4").exists());
    assert_configured(&data, &[1, 2, 3]);
    all_alike(&lab, 3);
    // The name of the one that failed stays its own.
    assert_eq!(json(&lab, "add --observer")["id"], "n5");
    assert_ended(&lab, &data);
}
