//! The binary from outside: what `check` prints and with which code it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn zkd(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zkd"))
        .args(args)
        .current_dir(dir)
        .env_remove("ZKD_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_prints_what_is_in_effect() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("zoo.cfg"),
        "dataDir=d\nclientPort=2181\ntickTIme=2000\n",
    )
    .unwrap();
    let out = zkd(&["check", "zoo.cfg"], dir.path());
    assert_eq!(out.status.code(), Some(0));
    let effective = text(&out.stdout);
    assert!(
        effective.starts_with("dataDir=d\ndataLogDir=d\nclientPort=2181\n"),
        "{effective}"
    );
    assert!(effective.contains("\ntickTime=3000\n"), "{effective}");
    let warnings = text(&out.stderr);
    assert!(
        warnings.contains(
            "warning: zoo.cfg:3: unknown key tickTIme is ignored; did you mean tickTime?"
        ),
        "{warnings}"
    );
    assert!(!dir.path().join("d").exists(), "a check changes nothing");
}

#[test]
fn every_problem_is_told_and_the_code_is_2() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("zoo.cfg"), "clientPort=x\ntickTime=0\n").unwrap();
    for command in ["check", "serve"] {
        let out = zkd(&[command, "zoo.cfg"], dir.path());
        assert_eq!(out.status.code(), Some(2), "{command}");
        assert_eq!(
            text(&out.stderr),
            "error: zoo.cfg:1: clientPort=x: expected a port, 1 to 65535, or 0 for none\n\
             error: zoo.cfg:2: tickTime=0: expected a whole number of milliseconds, 1 or more\n\
             error: zoo.cfg: dataDir: missing: expected the directory where snapshots and txn logs are kept\n"
        );
    }
}

#[test]
fn files_that_cannot_be_read_and_arguments_that_make_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    for (args, reason) in [
        (&["check", "nowhere.cfg"][..], "nowhere.cfg: cannot be read"),
        (&["serve", "nowhere.cfg"], "nowhere.cfg: cannot be read"),
        (&["check"], "<FILE>"),
        (&["serve", "--events", "fd:1"], "not a descriptor"),
        (&["serve", "--log", "zkd=loud"], "--log zkd=loud"),
        (&["serve", "--log-format", "xml"], "json"),
        (&[], "Exit codes"),
    ] {
        let out = zkd(args, dir.path());
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(
            text(&out.stderr).contains(reason),
            "{args:?}: {}",
            text(&out.stderr)
        );
        assert_eq!(text(&out.stdout), "", "{args:?}");
    }
    for (args, part) in [
        (["--version"], "Apache ZooKeeper 3.9.5"),
        (["--help"], "zkd serve zoo.cfg"),
    ] {
        let out = zkd(&args, dir.path());
        assert_eq!(out.status.code(), Some(0));
        assert!(text(&out.stdout).contains(part), "{}", text(&out.stdout));
    }
}

#[test]
fn an_ensemble_needs_its_myid_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = "dataDir=d\nclientPort=2181\ninitLimit=5\nsyncLimit=5\n\
                  server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";
    fs::write(dir.path().join("zoo.cfg"), config).unwrap();
    let out = zkd(&["serve", "zoo.cfg"], dir.path());
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("error: d/myid: missing"),
        "{}",
        text(&out.stderr)
    );
    let out = zkd(&["check", "zoo.cfg"], dir.path());
    assert_eq!(out.status.code(), Some(0));
    assert!(
        text(&out.stderr).contains("warning: d/myid: missing"),
        "{}",
        text(&out.stderr)
    );
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/myid"), "9\n").unwrap();
    for command in ["check", "serve"] {
        let out = zkd(&[command, "zoo.cfg"], dir.path());
        assert_eq!(out.status.code(), Some(2));
        assert!(
            text(&out.stderr).contains("id 9 is not in the list"),
            "{}",
            text(&out.stderr)
        );
    }
}

#[test]
fn a_file_in_latin_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("zoo.cfg"),
        b"# f\xfcr uns\ndataDir=d\nclientPort=2181\n",
    )
    .unwrap();
    assert_eq!(
        zkd(&["check", "zoo.cfg"], dir.path()).status.code(),
        Some(0)
    );
}

/// What is shipped has neither the bugs nor the switch for them.
#[cfg(not(feature = "planted"))]
#[test]
fn nothing_is_planted_in_what_is_shipped() {
    let program = fs::read(env!("CARGO_BIN_EXE_zkd")).unwrap();
    let has = |text: &str| program.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(has("dataDir"), "texts can be found at all");
    for text in ["ZKD_PLANTED", "ack-before-sync", "trunc-off-by-one"] {
        assert!(!has(text), "{text}");
    }
}

#[cfg(feature = "planted")]
#[test]
fn a_bug_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_zkd"))
        .args(["serve", "zoo.cfg"])
        .current_dir(dir.path())
        .env("ZKD_PLANTED", "ack-after-lunch")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let told = text(&out.stderr);
    assert!(
        told.starts_with("error: ZKD_PLANTED: \"ack-after-lunch\" is none of ack-before-sync"),
        "{told}"
    );
}
