//! Clients that work in the background while a test does something else.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;

/// A `load` of these words, which write this history, whose clients are at work.
pub(crate) fn begin(lab: &Place, words: &str, history: &Path) -> Child {
    let load = lab
        .command(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // They are when there is more than the beginning.
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::metadata(history).map_or(0, |file| file.len()) < 60_000 {
        assert!(Instant::now() < deadline, "the load never began");
        std::thread::sleep(Duration::from_millis(10));
    }
    load
}
