//! Lays the reports of several benches beside goals: `cargo run --release -p zklab --example bench_table -- GOALS DIR`.
//!
//! GOALS is a TOML file as `configs/bench.toml`; DIR holds what `zklab --json bench …` printed, as `NAME.json`. Prints
//! the table, and writes `table.json` and, as a picture, `goals.svg` into DIR.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use zklab::report::bench::Report;
use zklab::report::bench::goals::{Goals, picture, table};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.as_slice() {
        [goals, dir] => lay(Path::new(goals), Path::new(dir)),
        _ => Err("usage: bench_table GOALS DIR".into()),
    };
    match done {
        Ok(text) => {
            let written = writeln!(std::io::stdout(), "{text}");
            ExitCode::from(u8::from(written.is_err()))
        }
        Err(error) => {
            eprintln!("bench_table: {error}");
            ExitCode::FAILURE
        }
    }
}

fn lay(goals: &Path, dir: &Path) -> Result<String> {
    let text = fs::read_to_string(goals).map_err(|e| format!("{}: {e}", goals.display()))?;
    let goals = Goals::read(&text)?;
    let reports = reports(dir)?;
    let sides = reports.values().map(|report| report.sides.as_slice());
    let mut names = sides.filter_map(|sides| match sides {
        [a, b] => Some([a.name.as_str(), b.name.as_str()]),
        _ => None,
    });
    let names = names.next().unwrap_or(["zkd", "other"]);
    let lines = goals.compare(&reports)?;
    fs::write(dir.join("table.json"), serde_json::to_string(&lines)?)?;
    let title = format!("How many times better {} is than {}", names[0], names[1]);
    if let Some(svg) = picture(&lines, &title) {
        fs::write(dir.join("goals.svg"), svg)?;
    }
    Ok(table(&lines, names))
}

/// Every report in the directory, by the name of its file.
fn reports(dir: &Path) -> Result<BTreeMap<String, Report>> {
    let mut reports = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_report = path.extension().is_some_and(|end| end == "json") && name != "table";
        if is_report {
            let text = fs::read_to_string(&path)?;
            let report: Report = serde_json::from_str(&text)
                .map_err(|error| format!("{} is no report of a bench: {error}", path.display()))?;
            for complaint in report.complaints() {
                eprintln!("{name}: {complaint}");
            }
            reports.insert(name.into_owned(), report);
        }
    }
    if reports.is_empty() {
        return Err(format!("{} holds no report of a bench", dir.display()).into());
    }
    Ok(reports)
}
