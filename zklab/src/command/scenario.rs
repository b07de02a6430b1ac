//! `scenario`: writing, checking and listing scenarios; nothing is started.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::Context;
use super::run::scenarios;
use crate::cli::ScenarioCommand;
use crate::failure::{Context as _, Exit, Failure};
use crate::scenario::schema::{TEMPLATE, schema};
use crate::scenario::{Plan, Scenario};
use crate::supervisor::protocol::HexSeed;

/// Seeds that a check tries.
const SEEDS: u64 = 100;

pub(super) fn run(context: &Context, command: ScenarioCommand) -> Result<Exit, Failure> {
    match command {
        ScenarioCommand::New { file } => new(context, &file),
        ScenarioCommand::Check { files } => {
            for scenario in scenarios(&files, None)? {
                check(context, &scenario)?;
            }
            Ok(Exit::Ok)
        }
        ScenarioCommand::Ls { files } => {
            for scenario in scenarios(&files, None)? {
                show(context, &scenario);
            }
            Ok(Exit::Ok)
        }
        ScenarioCommand::Schema => {
            let text = serde_json::to_string_pretty(&schema())
                .doing(|| "cannot write the schema".to_owned())?;
            context.out.raw(text.as_bytes());
            context.out.raw(b"\n");
            Ok(Exit::Ok)
        }
    }
}

fn new(context: &Context, file: &Path) -> Result<Exit, Failure> {
    let name = file.display().to_string();
    let made = std::fs::File::create_new(file);
    let mut made = made.map_err(|error| {
        Failure::usage(format!("cannot make {name}: {error}")).hint("what is there stays as it is")
    })?;
    made.write_all(TEMPLATE.as_bytes())
        .doing(|| format!("cannot write {name}"))?;
    context
        .out
        .json(&json!({"v": 1, "cmd": "scenario new", "file": name}));
    context.out.line(&format!(
        "{name} written; `zklab run {name}` carries it out"
    ));
    Ok(Exit::Ok)
}

fn check(context: &Context, scenario: &Scenario) -> Result<(), Failure> {
    for seed in 0..SEEDS {
        Plan::of(scenario, HexSeed(seed))?;
    }
    let plan = Plan::of(scenario, HexSeed(1))?;
    context.out.json(&json!({
        "v": 1, "cmd": "scenario check", "file": scenario.file, "name": scenario.name, "ok": true,
        "needs_links": scenario.needs_links(), "steps": plan.steps.len(),
    }));
    let paint = context.out.paint;
    context.out.line(&format!(
        "{}  {}  {:?}",
        paint.green("ok"),
        scenario.file,
        scenario.name
    ));
    Ok(())
}

fn show(context: &Context, scenario: &Scenario) {
    let (low, high) = (scenario.lab.nodes.smallest(), scenario.lab.nodes.largest());
    let nodes = if low == high {
        low.to_string()
    } else {
        format!("{low}-{high}")
    };
    let needs = if scenario.needs_links() {
        "processes and links"
    } else {
        "processes"
    };
    context.out.json(&json!({
        "v": 1, "cmd": "scenario ls", "file": scenario.file, "name": scenario.name,
        "nodes": [low, high], "steps": scenario.steps.len(), "faults": scenario.faults.len(),
        "needs_links": scenario.needs_links(),
    }));
    context.out.line(&format!(
        "{:<24} {:<36} {nodes:>4} nodes  {:>2} steps  {} random  {needs}",
        scenario.stem,
        scenario.name,
        scenario.steps.len(),
        scenario.faults.len(),
    ));
}
