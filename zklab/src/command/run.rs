//! `run`: scenarios on labs of their own, and what came of them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use zkd::prng::Prng;

use super::Context;
use crate::cli::run::{FirstSeed, InconclusiveAs, Keep, RunArgs};
use crate::clock::{ms, now_us};
use crate::failure::{Context as _, Exit, Failure};
use crate::net::NetKind;
use crate::report::cases as report;
use crate::report::progress::Progress;
use crate::report::run as page;
use crate::scenario::record::Summary;
use crate::scenario::{
    Case, Folder, HostMeter, Plan, RunRecord, Scenario, Servers, Verdict, stamp,
};
use crate::supervisor::client::best_network;
use crate::supervisor::protocol::HexSeed;

/// How cases are run and what stays of them.
#[derive(Debug)]
pub(super) struct How {
    pub(super) jobs: u8,
    pub(super) keep: Keep,
    pub(super) fail_fast: bool,
    pub(super) inconclusive_as: Option<InconclusiveAs>,
    /// A page of every case goes here.
    pub(super) html: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &RunArgs) -> Result<Exit, Failure> {
    let scenarios = scenarios(&args.files, args.filter.as_deref())?;
    let words: Vec<Option<&str>> = if args.server.is_empty() {
        vec![None]
    } else {
        args.server.iter().map(|word| Some(word.as_str())).collect()
    };
    let servers = words
        .into_iter()
        .map(Servers::find)
        .collect::<Result<Vec<_>, _>>()?;
    let plans = plans(&scenarios, args)?;
    if args.dry_run {
        for plan in &plans {
            report::plan(&context.out, plan);
        }
        return Ok(Exit::Ok);
    }
    let mut cases = Vec::new();
    for plan in plans {
        let net = network(args.net, &plan)?;
        for servers in &servers {
            cases.push(Case {
                plan: plan.clone(),
                servers: servers.clone(),
                net,
                folder: PathBuf::new(),
                stall_limit_us: u64::try_from(args.stall_limit.as_micros()).unwrap_or(u64::MAX),
            });
        }
    }
    let is_single = cases.len() == 1;
    let home = place(&mut cases, &args.runs, servers.len() > 1)?;
    let how = How {
        jobs: args.jobs,
        keep: args.keep.unwrap_or(if is_single || servers.len() > 1 {
            Keep::All
        } else {
            Keep::OnFail
        }),
        fail_fast: args.fail_fast,
        inconclusive_as: args.inconclusive_as,
        html: args.html.clone(),
    };
    if let Some(dir) = &how.html {
        std::fs::create_dir_all(dir).doing(|| format!("cannot make {}", dir.display()))?;
    }
    let mut juniting = Vec::new();
    let summary = carry_out_and(context, &cases, &how, |case| {
        if args.junit.is_some()
            && let Ok(run) = page::read_run(&case.folder)
        {
            let report = case.folder.join("report.html");
            let report = report.is_file().then(|| report.display().to_string());
            let cause = page::cause(&case.folder);
            juniting.push(page::Case { run, report, cause });
        }
    })?;
    if let Some(name) = &args.junit {
        page::write(name, &page::junit(&juniting))?;
    }
    if servers.len() > 1 {
        side_by_side(context, &cases, &home)?;
    }
    if !is_single {
        Folder::create(&home)?.json("summary.json", &summary)?;
    }
    link_last(&args.runs, &home);
    report::summary(&context.out, &summary, how.jobs);
    Ok(exit(&summary, &how))
}

/// What every seed makes of every scenario.
fn plans(scenarios: &[Scenario], args: &RunArgs) -> Result<Vec<Plan>, Failure> {
    let first = match args.seed {
        FirstSeed::Given(seed) => seed.0,
        FirstSeed::Random => Prng::new(now_us()).below(1 << 24),
    };
    let mut plans = Vec::new();
    for scenario in scenarios {
        let count = args.count.or(scenario.seeds).unwrap_or(1);
        for number in 0..count {
            let plan = Plan::of(scenario, HexSeed(first.wrapping_add(number)))?;
            plans.push(plan);
        }
    }
    Ok(plans)
}

/// The scenarios in files and directories, by name.
pub(super) fn scenarios(files: &[PathBuf], filter: Option<&str>) -> Result<Vec<Scenario>, Failure> {
    let mut found = Vec::new();
    for path in files {
        if path.is_dir() {
            let entries =
                std::fs::read_dir(path).doing(|| format!("cannot read {}", path.display()))?;
            let mut inside: Vec<PathBuf> = entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
                .collect();
            inside.sort();
            found.extend(inside);
        } else {
            found.push(path.clone());
        }
    }
    found.retain(|path| filter.is_none_or(|text| path.to_string_lossy().contains(text)));
    if found.is_empty() {
        let names: Vec<String> = files
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let failure = Failure::usage(format!("no scenario in {}", names.join(" ")));
        return Err(failure.hint("files end in .toml; `zklab scenario new FILE` writes one"));
    }
    found.iter().map(|path| Scenario::open(path)).collect()
}

/// The best network of this machine, found out once.
static BEST: OnceLock<NetKind> = OnceLock::new();

/// The network of a case; refuses by name what it cannot do.
pub(super) fn network(wanted: NetKind, plan: &Plan) -> Result<NetKind, Failure> {
    if let Some(step) = plan.needs_clocks() {
        crate::wall::check().map_err(|failure| Failure {
            cause: format!(
                "{}: step {:?} ({}): {}; nothing was started",
                plan.file,
                step.id,
                step.text(),
                failure.cause
            ),
            ..failure
        })?;
    }
    let wish = match wanted {
        NetKind::Auto => plan.net.parse().unwrap_or(NetKind::Auto),
        given => given,
    };
    let kind = match wish {
        NetKind::Auto => *BEST.get_or_init(best_network),
        given => given,
    };
    if kind != NetKind::Loopback {
        return Ok(kind);
    }
    let what = match (plan.needs_links(), &plan.profile) {
        (Some(step), _) => format!("step {:?} ({})", step.id, step.text()),
        (None, Some(profile)) => format!("profile {profile:?}"),
        (None, None) => return Ok(kind),
    };
    let cause = format!(
        "{}: {what} needs a network of its own for every node, and this one is loopback; nothing was started",
        plan.file
    );
    Err(if wish == NetKind::Loopback {
        Failure::usage(cause)
            .hint("without --net loopback the best network of this machine is taken")
    } else {
        Failure::environment(cause).hint("`zklab doctor` says what this machine lacks")
    })
}

/// Gives every case a folder; the folder of all of them.
pub(super) fn place(
    cases: &mut [Case],
    runs: &Path,
    with_server: bool,
) -> Result<PathBuf, Failure> {
    let time = stamp().replace(':', "-").trim_end_matches('Z').to_owned();
    let is_single = cases.len() == 1;
    let name = match cases {
        [one] => format!("{time}_{}", one.plan.seed),
        _ => time,
    };
    let home = fresh(runs, &name);
    for case in cases {
        let server = if with_server {
            format!("-{}", case.servers.word.replace('/', "_"))
        } else {
            String::new()
        };
        let inside = home.join(format!("{}-{}{server}", case.plan.stem, case.plan.seed));
        case.folder = if is_single { home.clone() } else { inside };
    }
    std::fs::create_dir_all(&home).doing(|| format!("cannot make {}", home.display()))?;
    Ok(home)
}

/// A directory that is not there yet.
fn fresh(runs: &Path, name: &str) -> PathBuf {
    let mut path = runs.join(name);
    let mut number = 2;
    while path.exists() {
        path = runs.join(format!("{name}.{number}"));
        number += 1;
    }
    path
}

/// `runs/last` leads to the newest.
fn link_last(runs: &Path, home: &Path) {
    let last = runs.join("last");
    // A convenience: where it cannot be made, nothing is lost.
    let _ = std::fs::remove_file(&last);
    if let Some(name) = home.file_name() {
        let _ = std::os::unix::fs::symlink(name, &last);
    }
}

/// What the same plan came to on several servers.
fn side_by_side(context: &Context, cases: &[Case], home: &Path) -> Result<(), Failure> {
    let mut told: Vec<&Plan> = Vec::new();
    for case in cases {
        if told.contains(&&case.plan) {
            continue;
        }
        told.push(&case.plan);
        let alike = cases.iter().filter(|other| other.plan == case.plan);
        let folders: Vec<page::Folder> = alike
            .filter_map(|case| page::Folder::read(&case.folder).ok())
            .collect();
        if folders.len() < 2 {
            continue;
        }
        let name = format!("{}-{}.html", case.plan.stem, case.plan.seed);
        page::write(&home.join(&name), &page::compare(&folders))?;
        context.out.line(page::compared(&folders).trim_end());
        context
            .out
            .line(&format!("  side by side: {}", home.join(name).display()));
    }
    Ok(())
}

/// Writes the page of a case that failed, or of every case where that is wanted.
fn write_page(record: &RunRecord, folder: &Path, how: &How) {
    if record.verdict == Verdict::Pass && how.html.is_none() && how.keep != Keep::All {
        return;
    }
    // A page that cannot be written must not take the verdict with it.
    let Ok(name) = page::write_html(folder) else {
        return;
    };
    if let (Some(dir), Some(case)) = (&how.html, folder.file_name()) {
        let _ = std::fs::copy(name, dir.join(format!("{}.html", case.to_string_lossy())));
    }
}

/// Runs cases, so many at a time, and tells each as it ends.
pub(super) fn carry_out(context: &Context, cases: &[Case], how: &How) -> Result<Summary, Failure> {
    carry_out_and(context, cases, how, |_| ())
}

/// The same, and lets `look` see every folder before it goes.
fn carry_out_and(
    context: &Context,
    cases: &[Case],
    how: &How,
    mut look: impl FnMut(&Case),
) -> Result<Summary, Failure> {
    let out = &context.out;
    let begun = now_us();
    // It measures from here on.
    let _ = HostMeter::start();
    let progress = Progress::bar(out, cases.len() as u64);
    let queue: Mutex<VecDeque<&Case>> = Mutex::new(cases.iter().collect());
    let enough = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    let mut summary = Summary {
        v: 1,
        ..Summary::default()
    };
    thread::scope(|scope| {
        for _ in 0..how.jobs {
            let tell = tell.clone();
            let (queue, enough) = (&queue, &enough);
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(case) = next else { break };
                    let done = crate::scenario::run(case);
                    let is_enough = done.as_ref().is_ok_and(|record| {
                        !matches!(record.verdict, Verdict::Pass | Verdict::Inconclusive)
                    });
                    if how.fail_fast && is_enough {
                        enough.store(true, Ordering::Relaxed);
                    }
                    if tell.send((case, done)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(tell);
        for (case, done) in told {
            let record = done?;
            let failed = count(&mut summary, record.verdict, how);
            progress.step(&format!(
                "{} passed, {} failed, {} skipped",
                summary.passed, summary.failed, summary.skipped
            ));
            write_page(&record, &case.folder, how);
            progress.line_with(|| report::case(out, &record));
            look(case);
            keep(case, &record, how);
            if failed && how.fail_fast {
                enough.store(true, Ordering::Relaxed);
            }
            summary.cases.push(RunRecord {
                checks: Vec::new(),
                ..record
            });
        }
        Ok::<(), Failure>(())
    })?;
    summary.ms = ms(now_us() - begun);
    Ok(summary)
}

/// Counts a case; whether it failed.
fn count(summary: &mut Summary, verdict: Verdict, how: &How) -> bool {
    match (verdict, how.inconclusive_as) {
        (Verdict::Pass, _) | (Verdict::Inconclusive, Some(InconclusiveAs::Pass)) => {
            summary.passed += 1;
            false
        }
        (Verdict::Inconclusive, None) => {
            summary.skipped += 1;
            false
        }
        _ => {
            summary.failed += 1;
            true
        }
    }
}

/// Removes a folder that nobody wants.
fn keep(case: &Case, record: &RunRecord, how: &How) {
    let stays = match how.keep {
        Keep::All => true,
        Keep::OnFail => record.verdict != Verdict::Pass,
        Keep::Never => false,
    };
    if !stays && let Ok(folder) = Folder::open(&case.folder) {
        folder.remove();
    }
}

/// How the command ends: the worst of all cases.
pub(super) fn exit(summary: &Summary, how: &How) -> Exit {
    let worst = summary
        .cases
        .iter()
        .map(|case| case.verdict)
        .max_by_key(|v| v.rank());
    match (worst, how.inconclusive_as) {
        (None, _) => Exit::Ok,
        (Some(Verdict::Inconclusive), Some(InconclusiveAs::Pass)) => Exit::Ok,
        (Some(Verdict::Inconclusive), Some(InconclusiveAs::Fail)) => Exit::Missed,
        (Some(verdict), _) => verdict.exit(),
    }
}
