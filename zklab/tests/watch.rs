//! `zklab watch` on a real terminal: a pseudo terminal that `script` makes, a real lab, real keys.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long the picture may take to show something.
const PATIENCE: Duration = Duration::from_secs(30);

fn zklab(runtime: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zklab"));
    command
        .env("ZKLAB_RUNTIME_DIR", runtime)
        .env_remove("ZKLAB_LAB");
    command
}

/// How many voters serve.
fn serving(runtime: &Path) -> u64 {
    let output = zklab(runtime).args(["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["have"].as_u64().unwrap()
}

/// Reads until this stood on the terminal.
#[track_caller]
fn until(output: &Receiver<Vec<u8>>, seen: &mut String, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !seen.contains(wanted) {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Err(_) => panic!("never saw {wanted:?} in {seen:?}"),
        }
    }
}

#[test]
fn it_shows_the_lab_obeys_keys_and_gives_the_terminal_back() {
    let dir = tempfile::tempdir().unwrap();
    let up = zklab(dir.path())
        .args(["up", "-n", "3", "--net", "loopback"])
        .output()
        .unwrap();
    assert!(up.status.success(), "{up:?}");
    let mut terminal = Command::new("script")
        .args([
            "-qec",
            "stty rows 24 cols 100; exec \"$ZKLAB\" watch",
            "/dev/null",
        ])
        .env("ZKLAB", env!("CARGO_BIN_EXE_zklab"))
        .env("ZKLAB_RUNTIME_DIR", dir.path())
        .env("TERM", "xterm-256color")
        .env_remove("ZKLAB_LAB")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let (sender, output) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut seen = String::new();
    until(&output, &mut seen, "3/3");
    keys.write_all(b"k").unwrap();
    // Only what changes is written to a terminal, so the lab itself is asked what became of the key.
    let deadline = Instant::now() + PATIENCE;
    while serving(dir.path()) != 2 {
        assert!(Instant::now() < deadline, "the leader was never killed");
    }
    // Ctrl-C, which the terminal hands over as a key.
    keys.write_all(&[3]).unwrap();
    // The screen from before is back.
    until(&output, &mut seen, "\u{1b}[?1049l");
    assert!(terminal.wait().unwrap().success());
    let down = zklab(dir.path()).arg("down").output().unwrap();
    assert!(down.status.success(), "{down:?}");
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let dir = tempfile::tempdir().unwrap();
    let output = zklab(dir.path())
        .arg("watch")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: watch needs a terminal, and standard input or output is none\n\
         hint:  for scripts there are `zklab events --follow` and `zklab status --json`\n"
    );
    assert!(output.stdout.is_empty());
}
