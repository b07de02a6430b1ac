//! `bench`: makes ensembles, measures them in turn, compares.

use std::net::SocketAddr;
use std::process;

use super::Context;
use super::up::{data_place, millis};
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
use crate::supervisor::protocol::{DownReport, Request, UpReport, UpRequest};

/// How long an ensemble may take to come up.
const UP_PATIENCE_MS: u64 = 120_000;

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
    let status: Status = ask(&lab, &Request::Status)?;
    let servers = report.nodes.iter().map(|node| node.addr.parse());
    Ok(Subject {
        name: report.server,
        servers: servers
            .collect::<Result<_, _>>()
            .doing(|| "the lab has an address that is none".to_owned())?,
        pids: status.nodes.iter().filter_map(|node| node.pid).collect(),
        lab: Some((lab, lease)),
    })
}

fn ask<T: serde::de::DeserializeOwned>(lab: &str, request: &Request) -> Result<T, Failure> {
    Connection::open(&Root::open()?, lab)?
        .call(request, |_| true)?
        .ok_or_else(|| Failure::new(Exit::Interrupted, "interrupted"))
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
            side.rounds.push(one_round(&plan, subject)?);
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
        },
        size: args.size as usize,
        keys: u64::from(args.keys),
        warm_up: args.warm_up,
        length: args.for_,
        rate: args.rate.map(f64::from),
        session_timeout: std::time::Duration::from_millis(millis(args.for_) + 30_000),
        seed: 1 + round,
    }
}

fn one_round(plan: &Plan, subject: &Subject) -> Result<Round, Failure> {
    let own = [process::id()];
    let mut before = (Usage::default(), Usage::default());
    let mut after = before;
    let outcome = bench::run(plan, &mut |edge| {
        let now = (Usage::of(&subject.pids), Usage::of(&own));
        match edge {
            Edge::Begin => before = now,
            Edge::End => after = now,
        }
    })?;
    let used = (!subject.pids.is_empty()).then(|| Used::of(&after.0.since(&before.0), outcome.ops));
    Ok(Round {
        used,
        generator_cpu_us: after.1.since(&before.1).cpu_us as f64 / outcome.ops.max(1) as f64,
        outcome,
    })
}
