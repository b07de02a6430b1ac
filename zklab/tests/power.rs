//! Power cuts on real processes: what was acknowledged is there afterwards, and syncs that fail end a server.

mod place;

use std::process::Stdio;
use std::time::{Duration, Instant};

use place::{Place, finished};

#[test]
fn what_was_acknowledged_survives_power_cuts_of_all_servers() {
    let lab = Place::new();
    let history = lab.dir.path().join("history.ndjson");
    lab.expect(0, "up --nodes 3 --net loopback --tick 200ms --disk-faults");
    lab.expect(0, "disk all --slow-fsync 3ms");
    let words = format!(
        "load --for 3s --clients 4 --rate 600 --seed 5 --session-timeout 4s --history {}",
        history.display()
    );
    let load = lab
        .command(&words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        // The clients are at work when the history grows again.
        let size = || std::fs::metadata(&history).map_or(0, |file| file.len());
        let (before, deadline) = (size(), Instant::now() + Duration::from_secs(60));
        while size() < before + 20_000 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let told = lab.expect(0, "kill all --lose-unsynced --torn");
        assert_eq!(told.matches("un-synced").count(), 3, "{told}");
        lab.expect(0, "start all");
    }
    finished(0, &words, &load.wait_with_output().unwrap());
    lab.expect(0, &format!("check {}", history.display()));
    let healed = lab.expect(0, "heal disk");
    assert!(healed.contains("3/3 voters serve"), "{healed}");
}

#[test]
fn a_sync_that_fails_ends_the_server() {
    let lab = Place::new();
    lab.expect(0, "up --nodes 3 --net loopback --tick 200ms --disk-faults");
    let told = lab.expect(0, "disk n2 --fail-fsync eio");
    assert!(told.contains("n2 d1 every sync fails"), "{told}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !lab.expect(0, "status").contains("n2    down") {
        assert!(Instant::now() < deadline, "{}", lab.expect(0, "logs n2"));
        let _ = lab.command("load --for 100ms --history /dev/null").output();
    }
    // Its last words say why.
    let log = lab.expect(0, "logs n2");
    assert!(log.contains("sync"), "{log}");
}

#[test]
fn what_cannot_be_done_is_refused_and_nothing_is_touched() {
    let lab = Place::new();
    lab.expect(0, "up --nodes 1 --net loopback");
    let told = lab.expect(2, "kill n1 --lose-unsynced");
    assert!(
        told.contains("does not watch what its servers sync")
            && told.contains("`zklab up --disk-faults` makes a lab that does"),
        "{told}"
    );
    lab.expect(2, "disk n1 --slow-fsync 10ms");
    lab.expect(2, "kill n1 --torn");
    let status = lab.expect(0, "status");
    assert!(status.contains("n1    serving"), "{status}");
    lab.expect(0, "down");
    lab.expect(0, "up --nodes 1 --net loopback --disk-faults");
    let told = lab.expect(2, "kill n1 --lose-unsynced --signal TERM");
    assert!(
        told.contains("a power cut leaves no time for SIGTERM"),
        "{told}"
    );
    lab.expect(2, "disk n1");
    lab.expect(2, "disk n1 --fail-fsync enospc");
}
