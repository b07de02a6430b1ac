//! Verdicts as Markdown, for the summary of a CI job or a comment; and several runs side by side as a table.

use super::fate::Fate;
use super::folder::{Folder, Outcome};
use super::html::{rows, title};
use super::story::Story;
use super::witness;
use super::words;

/// A cell of a table must not end it.
fn cell(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('|', "\\|");
    let text = text.replace('<', "&lt;");
    text.replace(['\n', '\r'], " ")
}

/// A text between backticks.
fn code(text: &str) -> String {
    if text.contains('`') {
        format!("`` {text} ``")
    } else {
        format!("`{text}`")
    }
}

/// These runs: a table, then what is to be known of each that did not pass.
#[must_use]
pub fn markdown(folders: &[Folder]) -> String {
    let mut text = String::from(
        "| verdict | scenario | seed | server | longest time without a write | what |\n|---|---|---|---|---|---|\n",
    );
    for folder in folders {
        let run = &folder.run;
        let load = run.load.as_ref();
        let gap = load.map_or("–".to_owned(), |load| {
            format!("{:.0} ms", load.longest_gap_ms)
        });
        let mark = match run.outcome {
            Outcome::Pass => "✅",
            Outcome::Inconclusive => "⚪",
            _ => "❌",
        };
        text.push_str(&format!(
            "| {mark} {} | {} | {} | {} | {gap} | {} |\n",
            run.outcome.title(),
            cell(&run.name),
            cell(&run.seed),
            cell(&run.server),
            cell(&run.message),
        ));
    }
    for folder in folders {
        if folder.run.outcome != Outcome::Pass {
            text.push_str(&one(folder));
        }
    }
    text
}

/// What is to be known of one that did not pass.
fn one(folder: &Folder) -> String {
    let run = &folder.run;
    let mut text = format!(
        "\n### {}: {} ({})\n\n",
        run.outcome.title(),
        cell(&run.name),
        run.seed
    );
    if !run.rule.is_empty() {
        text.push_str(&format!("**{}** ", cell(&run.rule)));
    }
    text.push_str(&format!("{}\n\n", cell(&run.message)));
    if let Some(meaning) = words::meaning(&run.rule) {
        text.push_str(&format!("The promise: {}\n\n", meaning.promise));
    }
    if let Some(cause) = Fate::of(folder, &Story::of(folder)).cause() {
        text.push_str(&format!("The cause: {}.\n\n", cell(cause)));
    }
    let proofs = witness::of_run(run, &folder.load);
    for proof in &proofs {
        text.push_str(&format!("- {}\n", code(&proof.line())));
    }
    for missed in run.expects.iter().filter(|expect| !expect.ok) {
        text.push_str(&format!(
            "- {}: wanted {}, got {}\n",
            cell(&words::expectation(&missed.what)),
            cell(&words::amount(&missed.wanted)),
            cell(&words::amount(&missed.got))
        ));
    }
    for (word, command) in [("Again", &run.repro), ("Smaller", &run.shrink)] {
        if !command.is_empty() {
            text.push_str(&format!("\n{word}: {}\n", code(command)));
        }
    }
    text
}

/// Several runs side by side: their names, and rows of what each has to say to something.
#[must_use]
pub fn comparison(folders: &[Folder]) -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let stories: Vec<Story> = folders.iter().map(Story::of).collect();
    let titles = folders.iter().map(title).collect();
    (titles, rows(folders, &stories))
}

/// Several runs side by side, as a table.
#[must_use]
pub fn compared(folders: &[Folder]) -> String {
    let (titles, rows) = comparison(folders);
    let titles: Vec<String> = titles.iter().map(|title| cell(title)).collect();
    let mut text = format!("| | {} |\n|---|", titles.join(" | "));
    text.push_str(&"---|".repeat(folders.len()));
    text.push('\n');
    for (what, cells) in rows {
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        text.push_str(&format!("| {what} | {} |\n", cells.join(" | ")));
    }
    text
}
