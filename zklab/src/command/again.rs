//! `chaos`, `replay` and `shrink`: more of what `run` does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use zkd::prng::Prng;

use super::Context;
use super::run::{How, carry_out, exit, network, place};
use crate::cli::run::{FirstSeed, Keep};
use crate::cli::{ChaosArgs, ReplayArgs, ShrinkArgs};
use crate::clock::{ms, now_us};
use crate::failure::{Context as _, Exit, Failure};
use crate::net::NetKind;
use crate::report::cases as report;
use crate::report::progress::Progress;
use crate::scenario::chaos::Chaos;
use crate::scenario::plan::Step;
use crate::scenario::record::{ScheduleLine, Summary};
use crate::scenario::words::Options;
use crate::scenario::{
    Case, Folder, Plan, RunRecord, Scenario, Servers, Verdict, shrink as smaller,
};
use crate::supervisor::protocol::HexSeed;

/// A longer stall excuses a missed expectation.
const STALL_LIMIT_US: u64 = 100_000;

fn how(keep: Keep) -> How {
    How {
        jobs: 1,
        keep,
        fail_fast: false,
        inconclusive_as: None,
        html: None,
    }
}

fn case(plan: Plan, servers: Servers, net: NetKind) -> Result<Case, Failure> {
    Ok(Case {
        net: network(net, &plan)?,
        plan,
        servers,
        folder: PathBuf::new(),
        stall_limit_us: STALL_LIMIT_US,
    })
}

pub(super) fn chaos(context: &Context, args: &ChaosArgs) -> Result<Exit, Failure> {
    let scenario = Chaos {
        nodes: args.nodes,
        faults: args.faults.clone(),
        intensity: args.intensity,
        round_us: u64::try_from(args.round.as_micros()).unwrap_or(u64::MAX),
    }
    .scenario()?;
    let servers = Servers::find(args.server.as_deref())?;
    let first = match args.seed {
        FirstSeed::Given(seed) => seed.0,
        FirstSeed::Random => Prng::new(now_us()).below(1 << 24),
    };
    let begun = Instant::now();
    let how = how(Keep::OnFail);
    let mut all = Summary {
        v: 1,
        ..Summary::default()
    };
    for number in 0.. {
        if number > 0 && begun.elapsed() >= args.for_ {
            break;
        }
        let plan = Plan::of(&scenario, HexSeed(first.wrapping_add(number)))?;
        let mut cases = [case(plan, servers.clone(), args.net)?];
        place(&mut cases, &args.runs, false)?;
        let round = carry_out(context, &cases, &how)?;
        all.cases.extend(round.cases);
        all.passed += round.passed;
        all.failed += round.failed;
        all.skipped += round.skipped;
    }
    all.ms = ms(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    report::summary(&context.out, &all, how.jobs);
    Ok(exit(&all, &how))
}

/// A run that is over: its record and its plan.
fn read(dir: &Path) -> Result<(RunRecord, Plan), Failure> {
    let folder = Folder::open(dir)?;
    let record = folder.record()?;
    let file = folder.file("scenario.toml");
    let text =
        std::fs::read_to_string(&file).doing(|| format!("cannot read {}", file.display()))?;
    let scenario = Scenario::parse(&file.display().to_string(), &text)?;
    let mut plan = Plan::of(&scenario, record.seed)?;
    let original = Path::new(&record.file);
    plan.file.clone_from(&record.file);
    if let Some(stem) = original.file_stem() {
        plan.stem = stem.to_string_lossy().into_owned();
    }
    Ok((record, plan))
}

fn servers(record: &RunRecord, wanted: Option<&str>) -> Result<Servers, Failure> {
    Servers::find(Some(wanted.unwrap_or(&record.server_word)))
}

pub(super) fn replay(context: &Context, args: &ReplayArgs) -> Result<Exit, Failure> {
    let (record, mut plan) = read(&args.run)?;
    if args.as_it_happened {
        plan.steps = happened(&args.run)?;
    }
    let servers = servers(&record, args.server.as_deref())?;
    let one = case(plan, servers, args.net)?;
    let mut cases = Vec::new();
    for _ in 0..args.tries {
        cases.push(one.clone());
    }
    for (number, case) in cases.iter_mut().enumerate() {
        let mut single = [case.clone()];
        place(&mut single, &args.runs, false)?;
        let [placed] = single;
        *case = placed;
        if number > 0 {
            case.folder = case.folder.with_extension(format!("{}", number + 1));
        }
    }
    let how = how(Keep::All);
    let summary = carry_out(context, &cases, &how)?;
    let same = summary
        .cases
        .iter()
        .filter(|case| case.verdict == record.verdict && case.rule == record.rule)
        .count();
    report::summary(&context.out, &summary, how.jobs);
    context.out.line(&format!(
        "the same verdict as then ({}{}) {same} of {} times",
        record.verdict,
        record
            .rule
            .as_ref()
            .map_or_else(String::new, |rule| format!(", {rule}")),
        summary.cases.len(),
    ));
    Ok(exit(&summary, &how))
}

/// The steps that were really done, at the times at which they were.
fn happened(dir: &Path) -> Result<Vec<Step>, Failure> {
    let file = dir.join("schedule.ndjson");
    let cannot = || format!("cannot read {}", file.display());
    let text = std::fs::read_to_string(&file).doing(cannot)?;
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<ScheduleLine>(line).doing(cannot))
        .collect::<Result<Vec<_>, _>>()?;
    let done = lines.iter().filter(|line| line.ok && line.step != "final");
    let first = done.clone().map(|line| line.t_us).min().unwrap_or(0);
    Ok(done
        .enumerate()
        .map(|(index, line)| Step {
            id: format!("{}@{}", line.step, index + 1),
            do_: line.resolved.clone(),
            options: Options::default(),
            // The clients need a moment before the first.
            at_us: Some(line.t_us - first + 200_000),
            after: None,
            when: None,
            optional: true,
        })
        .collect())
}

pub(super) fn shrink(context: &Context, args: &ShrinkArgs) -> Result<Exit, Failure> {
    let (record, plan) = read(&args.run)?;
    if matches!(record.verdict, Verdict::Pass | Verdict::Inconclusive) {
        return Err(Failure::usage(format!(
            "{} did not fail ({}): there is nothing to make small",
            args.run.display(),
            record.verdict
        )));
    }
    let servers = servers(&record, args.server.as_deref())?;
    let begun = Instant::now();
    let progress = Progress::start(&context.out, "failing again");
    let mut number = 0_u32;
    let mut last_ops = record.load.ops;
    let mut fails_in = |plan: &Plan, tries: u32| -> Option<u32> {
        let mut failed = 0;
        for _ in 0..tries {
            if begun.elapsed() > args.budget {
                return None;
            }
            number += 1;
            let folder = args.run.join(format!("shrink-{number}"));
            let again = again(plan, &servers, &folder);
            if let Some(now) =
                again.filter(|now| now.verdict == record.verdict && now.rule == record.rule)
            {
                last_ops = now.load.ops;
                failed += 1;
                if tries == args.tries {
                    return Some(failed);
                }
            }
        }
        Some(failed)
    };
    if fails_in(&plan, args.tries).unwrap_or(0) == 0 {
        drop(progress);
        let cause = format!("it did not fail again in {} tries", args.tries);
        return Err(Failure::new(Exit::Inconclusive, cause)
            .hint("--tries gives it more; `zklab replay` shows how often it fails"));
    }
    let found = smaller::shrink(&plan, |plan| {
        progress.say(&format!("{} steps, {} nodes", plan.steps.len(), plan.nodes));
        fails_in(plan, args.tries).map(|failed| failed > 0)
    });
    let sure = fails_in(&found.plan, 5);
    drop(progress);
    let small = &found.plan;
    let refails = sure.map_or_else(
        || "no time to try again".to_owned(),
        |n| format!("re-fails {n} of 5"),
    );
    let line = format!(
        "{} steps → {}, {} ops → {last_ops}, {} nodes → {}; {refails}",
        plan.steps.len(),
        small.steps.len(),
        record.load.ops,
        plan.nodes,
        small.nodes,
    );
    let folder = Folder::open(&args.run)?;
    folder.write("shrunk.toml", &format!("# {line}\n{}", small.to_toml()))?;
    let file = folder.file("shrunk.toml").display().to_string();
    context.out.json(&json!({
        "v": 1, "cmd": "shrink", "steps": [plan.steps.len(), small.steps.len()],
        "nodes": [plan.nodes, small.nodes], "ops": [record.load.ops, last_ops],
        "refails": sure, "tried": found.tried, "file": file,
    }));
    let took = Duration::from_secs(begun.elapsed().as_secs());
    context.out.line(&format!("{line} → {file}   ({took:?})"));
    Ok(Exit::Ok)
}

/// Runs a plan once more and leaves nothing; `None` if it could not be run.
fn again(plan: &Plan, servers: &Servers, folder: &Path) -> Option<RunRecord> {
    let mut case = case(plan.clone(), servers.clone(), NetKind::Auto).ok()?;
    case.folder = folder.to_owned();
    let record = crate::scenario::run(&case).ok();
    if let Ok(folder) = Folder::open(folder) {
        folder.remove();
    }
    record
}
