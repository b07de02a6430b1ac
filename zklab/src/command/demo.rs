//! `demo`: a tour in one command. Every step is a command that anybody could type, and is shown as such.

use std::process::{Command, ExitStatus};

use super::Context;
use crate::failure::{Context as _, Exit, Failure};

/// What is done, and what there is to see.
const STEPS: [(&str, &str); 7] = [
    (
        "up --nodes 5",
        "Five real servers elect a leader; it opens epoch 1, and a first write is acknowledged by a majority.",
    ),
    (
        "cli create /greeting hello",
        "A client writes. The zxid says in which epoch, and as which txn of that.",
    ),
    (
        "kill-leader",
        "The leader dies while clients write: the others notice, elect a new one, and begin the next epoch.",
    ),
    (
        "cli get /greeting",
        "What was acknowledged before is still there.",
    ),
    (
        "start all",
        "The dead server comes back and gets what it missed.",
    ),
    ("digest", "All five hold the same tree."),
    ("down", "Nothing is left behind."),
];

pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    let lab = format!("demo-{}", std::process::id());
    context.out.line(&format!(
        "A lab of its own, {lab}; every line that begins with $ can be typed as it stands."
    ));
    for (words, about) in STEPS {
        context
            .out
            .line(&format!("\n{about}\n$ zklab -L {lab} {words}"));
        let ended = zklab(&lab, words)?;
        if !ended.success() {
            // The lab may not be there, or ended already; what went wrong has been said.
            let _ = Command::new(this_program()?)
                .args(["-q", "-L", &lab, "down"])
                .output();
            let code = ended.code().unwrap_or(130);
            return Ok(Exit::of(code).unwrap_or(Exit::Interrupted));
        }
    }
    context.out.line(
        "\nNext: `zklab up`, then `zklab watch` in another terminal; `zklab --help` lists what there is.",
    );
    Ok(Exit::Ok)
}

/// Does one step as a user would.
fn zklab(lab: &str, words: &str) -> Result<ExitStatus, Failure> {
    Command::new(this_program()?)
        .args(["-L", lab])
        .args(words.split_whitespace())
        .status()
        .doing(|| format!("cannot run zklab {words}"))
}

fn this_program() -> Result<std::path::PathBuf, Failure> {
    std::env::current_exe().doing(|| "cannot find this program".to_owned())
}
