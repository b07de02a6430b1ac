//! `report`: the pages and tables of runs that are over.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Context;
use crate::cli::ReportArgs;
use crate::failure::{Exit, Failure};
use crate::report::run::{
    self, Case, Folder, Outcome, compare, compared, comparison, find, junit, markdown, page,
    read_run,
};

pub(super) fn run(context: &Context, args: &ReportArgs) -> Result<Exit, Failure> {
    if !args.compare.is_empty() {
        return side_by_side(context, args);
    }
    let mut dirs = Vec::new();
    for path in &args.runs {
        dirs.extend(find(path)?);
    }
    if args.html.is_some() && dirs.len() > 1 {
        return Err(Failure::usage(format!(
            "--html FILE is the page of one run, and these are {}",
            dirs.len()
        ))
        .hint("leave it out, and each gets a report.html in its folder; --compare lays runs side by side"));
    }
    if args.md {
        let folders: Result<Vec<Folder>, Failure> =
            dirs.iter().map(|dir| Folder::read(dir)).collect();
        let text = markdown(&folders?);
        context
            .out
            .json(&json!({"v": 1, "cmd": "report", "markdown": text}));
        context.out.line(text.trim_end());
    }
    if let Some(name) = &args.junit {
        write_junit(context, name, &dirs)?;
    }
    if args.html.is_some() || (!args.md && args.junit.is_none()) {
        for dir in &dirs {
            write_page(context, dir, args.html.as_deref())?;
        }
    }
    Ok(Exit::Ok)
}

fn write_junit(context: &Context, name: &Path, dirs: &[PathBuf]) -> Result<(), Failure> {
    let cases: Result<Vec<Case>, Failure> = dirs
        .iter()
        .map(|dir| {
            let report = dir.join("report.html");
            Ok(Case {
                run: read_run(dir)?,
                report: report.is_file().then(|| report.display().to_string()),
                cause: run::cause(dir),
            })
        })
        .collect();
    run::write(name, &junit(&cases?))?;
    let name = name.display().to_string();
    context
        .out
        .json(&json!({"v": 1, "cmd": "report", "junit": name, "cases": dirs.len()}));
    context.out.line(&format!("{} cases → {name}", dirs.len()));
    Ok(())
}

fn write_page(context: &Context, dir: &Path, name: Option<&Path>) -> Result<(), Failure> {
    let folder = Folder::read(dir)?;
    let name = name.map_or_else(|| dir.join("report.html"), Path::to_owned);
    run::write(&name, &page(&folder))?;
    let (run, name) = (&folder.run, name.display().to_string());
    context.out.json(&json!({
        "v": 1, "cmd": "report", "run": dir.display().to_string(), "verdict": run.outcome.word(),
        "rule": run.rule, "message": run.message, "html": name,
    }));
    let paint = context.out.paint;
    let title = match run.outcome {
        Outcome::Pass => paint.green(run.outcome.title()),
        Outcome::Inconclusive | Outcome::Environment | Outcome::Unknown => {
            paint.yellow(run.outcome.title())
        }
        Outcome::Bug | Outcome::Missed | Outcome::Died => paint.red(run.outcome.title()),
    };
    let why = match run.outcome {
        Outcome::Pass => String::new(),
        _ => format!(": {}", run.message),
    };
    context.out.line(&format!(
        "{title}  {}/{}{why}  → {name}",
        run.name, run.seed
    ));
    for note in &folder.notes {
        context.out.doing(&format!("{}: {note}", dir.display()));
    }
    Ok(())
}

fn side_by_side(context: &Context, args: &ReportArgs) -> Result<Exit, Failure> {
    let mut folders = Vec::new();
    for path in &args.compare {
        let dirs = find(path)?;
        let [dir] = dirs.as_slice() else {
            return Err(Failure::usage(format!(
                "{} holds {} runs; --compare wants one each time",
                path.display(),
                dirs.len()
            )));
        };
        folders.push(Folder::read(dir)?);
    }
    if let Some(name) = &args.html {
        run::write(name, &compare(&folders))?;
    }
    let (titles, rows) = comparison(&folders);
    let cells: serde_json::Map<String, serde_json::Value> = rows
        .iter()
        .map(|(what, cells)| (what.clone(), json!(cells)))
        .collect();
    context.out.json(
        &json!({"v": 1, "cmd": "report", "runs": titles, "compared": cells, "html": args.html}),
    );
    if args.md {
        context.out.line(compared(&folders).trim_end());
        return Ok(Exit::Ok);
    }
    let mut lines = vec![(String::new(), titles)];
    lines.extend(rows);
    for line in aligned(&lines) {
        context.out.line(&line);
    }
    if let Some(name) = &args.html {
        context.out.line(&format!("→ {}", name.display()));
    }
    Ok(Exit::Ok)
}

/// Columns that stand under one another.
fn aligned(lines: &[(String, Vec<String>)]) -> Vec<String> {
    let columns = lines.iter().map(|(_, cells)| cells.len()).max();
    let width = |column: usize| {
        let cells = lines.iter().map(|(what, cells)| match column {
            0 => what,
            column => &cells[column - 1],
        });
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=columns.unwrap_or(0)).map(width).collect();
    lines
        .iter()
        .map(|(what, cells)| {
            let cells = std::iter::once(what).chain(cells).zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            line.join("  ").trim_end().to_owned()
        })
        .collect()
}
