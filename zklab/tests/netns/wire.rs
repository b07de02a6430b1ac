//! What is read off the wire of a real ensemble, and messages that are withheld from it.

use std::fs::File;
use std::path::Path;

use super::lab::{Lab, lines};
use super::*;

/// The beginning of a log, in which a few txns have room; the rest is preallocated zeros.
const LOG_BYTES: u64 = 64 << 10;

/// The log files of a node.
fn logs(data: &Path, node: &str) -> Vec<Vec<u8>> {
    let mut dirs = vec![data.join(node)];
    let mut logs = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                dirs.push(path);
            } else if name.starts_with("log.") {
                let mut log = Vec::new();
                let file = File::open(path).unwrap();
                file.take(LOG_BYTES).read_to_end(&mut log).unwrap();
                logs.push(log);
            }
        }
    }
    logs
}

/// Is the txn of this zxid in the node's log? Behind a header of 16 bytes, each record is a checksum, a
/// length, session id, cxid, zxid …, and ends with a letter.
fn has_txn(data: &Path, node: &str, zxid: u64) -> bool {
    logs(data, node).into_iter().any(|log| {
        let mut at = 16;
        while let Some(record) = log.get(at..at + 32) {
            let length = u32::from_be_bytes(record[8..12].try_into().unwrap());
            if length == 0 {
                break;
            }
            if record[24..32] == zxid.to_be_bytes() {
                return true;
            }
            at += 12 + length as usize + 1;
        }
        false
    })
}

/// Waits until a fault stands.
fn armed(lab: &Lab) {
    let deadline = Instant::now() + PATIENCE;
    while lab.json("status")["faults"].as_array().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "never armed");
    }
}

pub(super) fn phases_come_from_the_wire_and_add_up() {
    let lab = Lab::new();
    lab.json("up --nodes 5 --net tun");
    let kill = lab.json("kill-leader --restart");
    assert_eq!(kill["verdict"], "pass", "{kill}");
    assert_eq!(kill["ms_from"], "wire", "{kill}");
    let phase = |name: &str| kill["ms"][name].as_f64().unwrap();
    let leaderless: f64 = ["detect", "elect", "epoch", "sync"].map(phase).iter().sum();
    assert!((leaderless - phase("no_leader")).abs() < 0.05, "{kill}");
    let silent = leaderless + phase("serve");
    assert!((silent - phase("no_writes")).abs() < 0.05, "{kill}");
    assert_eq!(kill["feed_ms"]["no_writes"], kill["ms"]["no_writes"]);
    let events = lines(&lab.run("--json events --kind wire"));
    assert!(events.iter().all(|event| event["src"] == "wire"));
    let winner = kill["new_leader"].as_str().unwrap();
    let new_epoch = &kill["new_epoch"];
    let at = |kind: &str, node: Option<&str>| {
        let found = events.iter().rfind(|event| {
            event["kind"] == kind
                && node.is_none_or(|node| event["node"] == node)
                && (event["epoch"].is_null()
                    || kind == "election.vote"
                    || event["epoch"] == *new_epoch)
        });
        let found = found.unwrap_or_else(|| panic!("no {kind} of {node:?}"));
        found["t_us"].as_u64().unwrap()
    };
    let story = [
        at("election.ended", Some(winner)),
        at("epoch.acked", Some(winner)),
        at("leader.elected", Some(winner)),
        at("epoch.first_commit", Some(winner)),
    ];
    assert!(story.is_sorted(), "{story:?}");
    let synced = |event: &&Value| event["kind"] == "sync" && event["node"] == winner;
    assert!(
        events.iter().filter(synced).count() >= 3,
        "and the old leader, back again"
    );
    assert!(
        events
            .iter()
            .filter(synced)
            .all(|event| event["txns"].is_u64())
    );
    let messages = events
        .iter()
        .filter(|event| event["kind"] == "wire.message");
    let mut names: Vec<&str> = messages
        .map(|event| event["msg"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    names.dedup();
    let wanted = [
        "ACK",
        "ACKEPOCH",
        "DIFF",
        "FOLLOWERINFO",
        "LEADERINFO",
        "NEWLEADER",
        "UPTODATE",
        "VOTE",
    ];
    assert!(wanted.iter().all(|name| names.contains(name)), "{names:?}");
    assert!(
        !names.contains(&"PROPOSAL"),
        "writes are no messages of an election"
    );
}

pub(super) fn one_follower_has_the_proposal_and_none_the_commit() {
    const RUNS: usize = 8;
    let lab = Lab::new();
    let up = lab.json("up --nodes 5 --net tun");
    let leader = up["leader"].as_str().unwrap();
    let followers: Vec<&str> = up["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .filter(|id| *id != leader)
        .collect();
    let data = Path::new(up["data_dir"].as_str().unwrap()).to_owned();
    let (first, others) = followers.split_first().unwrap();
    for run in 0..RUNS {
        let hold = format!(
            "--json hold PROPOSAL --from leader --to {} --count 3 --wait",
            others.join(",")
        );
        let mut hold = lab.command(&hold);
        let hold = hold.stdout(Stdio::piped()).spawn().unwrap();
        armed(&lab);
        let create = format!("cli {leader} create /run{run} x");
        let mut create = lab.command(&create).stdout(Stdio::piped()).spawn().unwrap();
        let held: Value = serde_json::from_slice(&hold.wait_with_output().unwrap().stdout).unwrap();
        let caught = held["caught"].as_array().unwrap();
        assert_eq!(caught.len(), 3, "{held}");
        let zxid = caught[0]["zxid"].as_str().unwrap();
        assert!(caught.iter().all(|one| one["zxid"] == zxid), "{held}");
        let number = u64::from_str_radix(zxid.trim_start_matches("0x"), 16).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !has_txn(&data, first, number) {
            assert!(Instant::now() < deadline, "{first} never got the proposal");
        }
        for other in others {
            assert!(!has_txn(&data, other, number), "{other} has it, run {run}");
        }
        // Two of five have it: nothing is committed, so nobody is told anything.
        assert!(create.try_wait().unwrap().is_none(), "answered, run {run}");
        lab.json("heal --wait");
        assert!(create.wait().unwrap().success());
    }
    let read = lab.json("status");
    let digests = read["digest"]["equal"].as_bool();
    assert_ne!(digests, Some(false), "{read}");
}

pub(super) fn a_message_is_held_until_it_is_healed_and_a_dropped_one_never_comes() {
    let lab = Lab::new();
    let up = lab.json("up --nodes 3 --net tun --tick 200ms");
    let leader = up["leader"].as_str().unwrap();
    let follower = if leader == "n1" { "n2" } else { "n1" };
    let mut hold = lab.command(&format!("--json hold ACKEPOCH --from {follower} --wait"));
    let hold = hold.stdout(Stdio::piped()).spawn().unwrap();
    armed(&lab);
    lab.json(&format!("kill {follower} --restart-after 10ms"));
    let hold: Value = serde_json::from_slice(&hold.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(hold["id"], "h1");
    let caught = &hold["caught"][0];
    assert_eq!(
        (&caught["from"], &caught["to"]),
        (&follower.into(), &leader.into())
    );
    assert_eq!(caught["epoch"], up["epoch"]);
    let status = lab.json("status");
    let node = status["nodes"].as_array().unwrap().iter();
    let node = node.clone().find(|node| node["id"] == follower).unwrap();
    assert_eq!(node["faults"], serde_json::json!(["holds ACKEPOCH h1"]));
    assert_ne!(
        node["role"], "follower",
        "nobody has heard that it accepts the epoch"
    );
    let heal = lab.json("heal h1 --wait");
    assert_eq!(heal["serving"], 3, "{heal}");
    let drop = lab.json(&format!(
        "drop PING --from leader --to {follower} --for 500ms --wait"
    ));
    assert_eq!(drop["caught"].as_array().unwrap().len(), 1, "{drop}");
    assert_eq!(drop["healed"]["serving"], 3, "{drop}");
    assert_eq!(lab.json("status")["faults"], serde_json::json!([]));
    for (words, expected) in [
        ("hold ACKEPOHC", "did you mean ACKEPOCH?"),
        ("drop VOTE --from n7", "no node \"n7\""),
        ("drop VOTE --nth 0", "--nth"),
        ("drop VOTE --from n1 --to n1", "n1 sends nothing to itself"),
        ("drop VOTE --zxid 7", "is not a zxid such as 0x100000003"),
    ] {
        let refused = lab.run(words);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{words}: {text}");
        assert!(text.contains(expected), "{words}: {text}");
    }
}
