//! Damage on disk: a torn tail is repaired and told, a hole in the middle is refused with file and offset.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use crate::harness::{Ensemble, Node};

/// A killed server with ten acknowledged writes, `/n0` to `/n9`.
fn crashed() -> Node {
    let mut node = Node::standalone("preAllocSize=64");
    node.start();
    let mut client = node.connect();
    for n in 0..10 {
        assert_eq!(client.create(&format!("/n{n}"), b"0123456789").err, 0);
    }
    node.kill();
    node
}

/// Where the record that creates `path` stands in a log.
fn position(log: &[u8], path: &str) -> usize {
    log.windows(path.len())
        .position(|part| part == path.as_bytes())
        .expect("the txn is in the log")
}

#[test]
fn a_corrupt_record_in_the_middle() {
    let mut node = crashed();
    let log = node.files("log.").pop().unwrap();
    let bytes = fs::read(&log).unwrap();
    let at = position(&bytes, "/n4");
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(b"X", at as u64 + 1).unwrap();
    let (code, text) = node.run_to_end();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&log.display().to_string()), "{text}");
    let offset = text
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse::<usize>().ok())
        .find(|&offset| offset < at && at - offset < 120);
    assert!(
        offset.is_some(),
        "the offset of the record before {at} is told: {text}"
    );
    assert!(!text.contains("panicked"), "{text}");
    let mut changed = bytes;
    changed[at + 1] = b'X';
    assert_eq!(fs::read(&log).unwrap(), changed, "nothing is touched");
}

#[test]
fn a_torn_tail() {
    let mut node = crashed();
    let log = node.files("log.").pop().unwrap();
    let at = position(&fs::read(&log).unwrap(), "/n9");
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(at as u64 + 2).unwrap();
    node.start();
    let name = log.file_name().unwrap().to_str().unwrap().to_owned();
    let line = node.await_log(&name);
    assert!(line.contains("WARN"), "{line}");
    let mut client = node.connect();
    for n in 0..9 {
        assert!(client.get(&format!("/n{n}")).is_some(), "/n{n}");
    }
    assert!(client.get("/n9").is_none());
    assert_eq!(client.create("/n9", b"again").err, 0);
    node.kill();
    node.start();
    assert_eq!(node.connect().get("/n9").unwrap().0, b"again");
}

#[test]
fn an_empty_log_and_a_half_written_snapshot() {
    let mut node = crashed();
    fs::write(node.version_dir().join("log.ffff"), b"").unwrap();
    fs::write(node.version_dir().join("snapshot.ff"), b"ZKSN").unwrap();
    node.start();
    let mut client = node.connect();
    for n in 0..10 {
        assert!(client.get(&format!("/n{n}")).is_some(), "/n{n}");
    }
    node.await_log("snapshot.ff");
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_missing_log_under_a_snapshot_it_continues() {
    // Snapshots at every few txns, then the oldest log is taken away: what the newest snapshot and the
    // logs after it do not need is not missed.
    let mut node = Node::standalone("snapCount=4\npreAllocSize=64");
    node.start();
    let mut client = node.connect();
    for n in 0..40 {
        assert_eq!(client.create(&format!("/n{n}"), b"").err, 0);
    }
    node.await_log("snapshot taken");
    assert_eq!(node.stop(), Some(0));
    let logs = node.files("log.");
    assert!(logs.len() > 2, "{logs:?}");
    let begin = |path: &std::path::Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        i64::from_str_radix(name.rsplit('.').next().unwrap(), 16).ok()
    };
    let snapshots = node.files("snapshot.");
    let snapshot = snapshots.iter().filter_map(|path| begin(path)).max();
    if begin(&logs[1]) <= snapshot.map(|zxid| zxid + 1) {
        fs::remove_file(&logs[0]).unwrap();
    }
    node.start();
    let mut client = node.connect();
    for n in 0..40 {
        assert!(client.get(&format!("/n{n}")).is_some(), "/n{n}");
    }
}

/// Epoch files count in an ensemble: one that is damaged is not guessed at.
#[test]
fn an_epoch_file_that_is_none() {
    let mut ensemble = Ensemble::new(3, "");
    let node = &mut ensemble.nodes[0];
    fs::create_dir(node.version_dir()).unwrap();
    for name in ["currentEpoch", "acceptedEpoch"] {
        fs::write(node.version_dir().join(name), b"many").unwrap();
        let (code, text) = node.run_to_end();
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains(name) && !text.contains("panicked"), "{text}");
        fs::remove_file(node.version_dir().join(name)).unwrap();
    }
}
