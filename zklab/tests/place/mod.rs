//! A runtime directory of its own for the labs of one test, so that tests never meet.
//!
//! zkd has to lie beside zklab, as `cargo test --workspace` builds it.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Files of a test, with its labs in `run`; they end with it.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let zkd = Path::new(env!("CARGO_BIN_EXE_zklab")).with_file_name("zkd");
        assert!(zkd.is_file(), "build zkd first: cargo test --workspace");
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// zklab with these words, ready to be started.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zklab"));
        command
            .args(words.split_whitespace())
            .env("ZKLAB_RUNTIME_DIR", self.dir.path().join("run"))
            .env_remove("ZKLAB_LAB");
        command
    }

    /// The command must end with this exit code; what it printed, errors last.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, words: &str) -> String {
        finished(code, words, &self.command(words).output().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After a failed assertion a lab may be up.
        let _ = self.command("down --all").output();
    }
}

/// A command that was started has to have ended with this exit code; what it printed, errors last.
#[track_caller]
pub(crate) fn finished(code: i32, words: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "zklab {words}\n{text}");
    text.into_owned()
}
