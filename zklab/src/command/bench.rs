//! `bench`: makes ensembles, measures them in turn, compares.

use std::net::SocketAddr;
use std::process;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::up::data_place;
use super::{Context, ask};
use crate::bench::{self, Edge, Plan, Usage, Work};
use crate::cli::bench::{BenchArgs, Mode};
use crate::ensemble::status::Status;
use crate::failure::{Context as _, Exit, Failure};
use crate::net::NetKind;
use crate::node::ServerKind;
use crate::report::bench::{Report, Round, Side, Used};
use crate::report::progress::Progress;
use crate::supervisor::client::Connection;
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{DownReport, Info, Request, UpReport, UpRequest};

/// How long an ensemble may take to come up.
const UP_PATIENCE_MS: u64 = 120_000;

/// Open files that are no connections of clients: logs, ports, the lab's own.
const FILES_BESIDE: u64 = 512;

/// The servers that are measured.
struct Subject {
    name: String,
    servers: Vec<SocketAddr>,
    /// Their processes, if they are this machine's.
    pids: Vec<u32>,
    /// The lab that was made for this; it ends when this does, however that comes about.
    lab: Option<(String, Connection)>,
}

pub(super) fn run(context: &mut Context, args: &BenchArgs) -> Result<Exit, Failure> {
    let kinds = kinds(args)?;
    make_room(u64::from(args.clients))?;
    let mut subjects = Vec::new();
    let measured = subjects_of(context, args, &kinds, &mut subjects)
        .and_then(|()| measure(context, args, &subjects));
    for (lab, _lease) in subjects.into_iter().filter_map(|subject| subject.lab) {
        // What was measured counts, even if a lab does not end well; `ls` shows it.
        let _ = end(&lab);
    }
    let report = measured?;
    report.show(&context.out);
    Ok(report.exit())
}

/// Sees to it that this process, and the servers it starts, may have so many connections.
fn make_room(clients: u64) -> Result<(), Failure> {
    let cannot = || "cannot read the limit of open files".to_owned();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).doing(cannot)?;
    let needed = clients + FILES_BESIDE;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|error| {
        Failure::environment(format!(
            "{clients} clients need {needed} open files, and the limit is {hard}: {error}"
        ))
        .hint(format!(
            "as root it is raised by itself; otherwise: ulimit -n {needed}"
        ))
    })
}

/// The servers that are asked for; none if they run already.
fn kinds(args: &BenchArgs) -> Result<Vec<ServerKind>, Failure> {
    if !args.servers.is_empty() {
        return Ok(Vec::new());
    }
    let mut kinds = vec![ServerKind::find(args.server.as_deref())?];
    if let Some(other) = &args.against {
        kinds.push(ServerKind::find(Some(other))?);
    }
    Ok(kinds)
}

/// Brings up what is to be measured. Whatever is up already is in `into` even if something fails.
fn subjects_of(
    context: &Context,
    args: &BenchArgs,
    kinds: &[ServerKind],
    into: &mut Vec<Subject>,
) -> Result<(), Failure> {
    if kinds.is_empty() {
        let names: Vec<String> = args.servers.iter().map(SocketAddr::to_string).collect();
        into.push(Subject {
            name: names.join(","),
            servers: args.servers.clone(),
            pids: Vec::new(),
            lab: None,
        });
        return Ok(());
    }
    for (number, kind) in kinds.iter().enumerate() {
        let progress = Progress::start(&context.out, &format!("starting {}", kind.name()));
        let lab = format!("bench-{}-{number}", process::id());
        into.push(bring_up(args, kind, lab)?);
        drop(progress);
    }
    Ok(())
}

fn bring_up(args: &BenchArgs, kind: &ServerKind, lab: String) -> Result<Subject, Failure> {
    let request = Request::Up(UpRequest {
        data: data_place(Some(&args.data)),
        timeout_ms: UP_PATIENCE_MS,
        lease: true,
        ..UpRequest::new(lab.clone(), args.nodes, kind.clone())
    });
    let mut lease = Connection::launch_to_measure(NetKind::Loopback)?;
    let report: UpReport = lease
        .call(&request, |_| true)?
        .ok_or_else(|| Failure::new(Exit::Interrupted, "interrupted"))?;
    let info: Info = ask(&lab, &Request::Info)?;
    let status: Status = ask(&lab, &Request::Status)?;
    Ok(Subject {
        name: report.server,
        servers: info.addresses()?,
        pids: status.nodes.iter().filter_map(|node| node.pid).collect(),
        lab: Some((lab, lease)),
    })
}

fn end(lab: &str) -> Result<(), Failure> {
    let mut connection = Connection::open(&Root::open()?, lab)?;
    let _: Option<DownReport> = connection.call(&Request::Down { keep_data: false }, |_| true)?;
    connection.wait_closed();
    Ok(())
}

fn measure(context: &Context, args: &BenchArgs, subjects: &[Subject]) -> Result<Report, Failure> {
    let mut sides: Vec<Side> = subjects
        .iter()
        .map(|subject| Side::new(&subject.name))
        .collect();
    for round in 0..args.rounds {
        for (subject, side) in subjects.iter().zip(&mut sides) {
            let doing = format!("{}, round {} of {}", subject.name, round + 1, args.rounds);
            let _progress = Progress::start(&context.out, &doing);
            let plan = plan(args, subject, u64::from(round));
            side.rounds.push(one_round(&plan, args.mode, subject)?);
        }
    }
    Ok(Report::new(args.describe(), sides))
}

fn plan(args: &BenchArgs, subject: &Subject, round: u64) -> Plan {
    Plan {
        servers: subject.servers.clone(),
        clients: args.clients as usize,
        depth: args.depth as usize,
        work: match args.mode {
            Mode::Read => Work::Read,
            Mode::Write => Work::Write,
            Mode::Create => Work::Create,
            Mode::Mix => Work::Mix {
                reads: args.ratio.0,
                writes: args.ratio.1,
            },
            Mode::Multi => Work::Multi { parts: args.parts },
            // These have drivers of their own.
            Mode::Idle | Mode::Watch | Mode::Churn => Work::Write,
        },
        size: args.size as usize,
        keys: u64::from(args.keys),
        warm_up: args.warm_up,
        length: args.for_,
        rate: args.rate.map(f64::from),
        session_timeout: args.session_timeout,
        seed: 1 + round,
    }
}

fn one_round(plan: &Plan, mode: Mode, subject: &Subject) -> Result<Round, Failure> {
    let own = [process::id()];
    let mut before = (Usage::default(), Usage::default());
    let mut after = before;
    let at_edge = &mut |edge| {
        let now = (Usage::of(&subject.pids), Usage::of(&own));
        match edge {
            Edge::Begin => before = now,
            Edge::End => after = now,
        }
    };
    let outcome = match mode {
        Mode::Idle => bench::idle(plan, at_edge),
        Mode::Watch => bench::watchers(plan, at_edge),
        Mode::Churn => bench::churn(plan, at_edge),
        _ => bench::run(plan, at_edge),
    }?;
    let used = (!subject.pids.is_empty()).then(|| Used::of(&after.0.since(&before.0), outcome.ops));
    Ok(Round {
        used,
        generator_cpu_us: after.1.since(&before.1).cpu_us as f64 / outcome.ops.max(1) as f64,
        outcome,
    })
}
