//! The textbook elections as transcripts of the simulator: `testdata/sim/*.txt`, renewed by `ZKD_REWRITE=1`.

use std::path::PathBuf;

use zkd::event::ServerState::{Following, Leading, Looking};
use zkd::sim::Stage;

/// Compares a transcript with the one that is kept, or keeps it.
fn compare(name: &str, stage: Stage) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/sim/{name}.txt"));
    let transcript = stage.transcript();
    if std::env::var_os("ZKD_REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file stands in a directory"))
            .expect("the test data can be written");
        std::fs::write(&path, &transcript).expect("the test data can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == transcript,
        "{} differs; read the difference after ZKD_REWRITE=1. It is now:\n{transcript}",
        path.display()
    );
}

/// Server 1 looks, 2 still looks, 3 makes a majority and has the highest id; 4 and 5 come too late.
#[test]
fn five_servers_one_by_one() {
    let mut stage = Stage::new(5);
    stage.say("server 1 starts: nobody is there to vote with");
    stage.start(1);
    stage.run_ms(1_000);
    assert_eq!(stage.state(1), Some(Looking));
    stage.say("server 2 starts: two of five are no quorum");
    stage.start(2);
    stage.run_ms(1_000);
    assert_eq!(
        (stage.state(1), stage.state(2)),
        (Some(Looking), Some(Looking))
    );
    stage.say("server 3 starts: a majority, and 3 has the highest id");
    stage.start(3);
    stage.run_ms(1_000);
    assert_eq!(stage.state(3), Some(Leading));
    for late in [4, 5] {
        stage.say(&format!(
            "server {late} starts: there is a leader, whatever its id"
        ));
        stage.start(late);
        stage.run_ms(1_000);
    }
    for follower in [1, 2, 4, 5] {
        assert_eq!(stage.state(follower), Some(Following), "server {follower}");
    }
    stage.say("a client writes");
    stage.create(5, "/a");
    stage.run_ms(100);
    assert!((1..=5).all(|id| stage.has(id, "/a")));
    compare("five_servers_one_by_one", stage);
}

/// Of two survivors the one that has seen more leads, although its id is lower.
#[test]
fn newer_zxid_beats_higher_id() {
    let mut stage = Stage::new(3);
    stage.say("servers 1 and 2 start; 2 leads");
    stage.start(1);
    stage.start(2);
    stage.run_ms(1_000);
    assert_eq!(stage.state(2), Some(Leading));
    stage.say("a client writes: 1 and 2 have it, 3 was never there");
    stage.create(1, "/a");
    stage.run_ms(100);
    stage.say("the leader dies");
    stage.kill(2);
    stage.run_ms(500);
    stage.say("server 3 starts: its id is higher, what 1 has seen is newer");
    stage.start(3);
    stage.run_ms(1_000);
    assert_eq!(stage.state(1), Some(Leading));
    assert_eq!(stage.state(3), Some(Following));
    assert!(stage.has(3, "/a"), "the survivor's history is everybody's");
    compare("newer_zxid_beats_higher_id", stage);
}

/// A write that only the dead leader had logged never happened; the leader forgets it when it is back.
#[test]
fn leader_dies_with_a_half_proposed_write() {
    let mut stage = Stage::new(3);
    stage.say("three servers start; 3 leads");
    for id in [1, 2, 3] {
        stage.start(id);
    }
    stage.run_ms(1_000);
    assert_eq!(stage.state(3), Some(Leading));
    stage.say("a write that is acknowledged");
    stage.create(3, "/kept");
    stage.run_ms(100);
    stage.say("the leader's proposals no longer arrive, and it dies with one in its log");
    stage.mute(3);
    stage.create(3, "/half-proposed");
    stage.run_ms(100);
    stage.kill(3);
    stage.heal();
    stage.run_ms(1_000);
    assert_eq!(stage.state(2), Some(Leading));
    assert!(!stage.has(1, "/half-proposed") && !stage.has(2, "/half-proposed"));
    stage.say("server 3 is back: what it alone had is cut off");
    stage.start(3);
    stage.run_ms(1_000);
    assert_eq!(stage.state(3), Some(Following));
    assert!(stage.has(3, "/kept") && !stage.has(3, "/half-proposed"));
    stage.say("the next write is everybody's");
    stage.create(2, "/next");
    stage.run_ms(100);
    assert!((1..=3).all(|id| stage.has(id, "/next")));
    compare("leader_dies_with_a_half_proposed_write", stage);
}
