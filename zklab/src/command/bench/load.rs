//! Loads: what clients see, and what it costs the servers.

use std::process;

use super::processes;
use super::subject::Subject;
use super::{in_turn, put_seen, seen_kinds};
use crate::bench::{self, Bystanders, Edge, Outcome, Plan, Syncs, Usage, Work};
use crate::cli::bench::{BenchArgs, Mode};
use crate::command::Context;
use crate::failure::Failure;
use crate::report::bench::{Kind, Report, Round, Unit, Used};

pub(super) fn measure(
    context: &Context,
    args: &BenchArgs,
    subjects: &mut [Subject],
) -> Result<Report, Failure> {
    let sides = in_turn(context, args, subjects, |subject, round, measured| {
        *measured = one_round(args, &plan(args, subject, u64::from(round)), subject)?;
        Ok(())
    })?;
    Ok(Report::new(
        args.describe(),
        notes(args),
        kinds(args.mode),
        sides,
    ))
}

fn kinds(mode: Mode) -> Vec<Kind> {
    let micros = |key: &str, head: &str, name: &str| Kind::new(key, head, name, Unit::Micros);
    let mut kinds = vec![
        Kind::new("rate", "OPS/S", "operations a second", Unit::PerSecond).more(),
        micros("p50", "P50", "median latency"),
        micros("p99", "P99", "99th percentile of the latency"),
        micros("p999", "P99.9", "99.9th percentile of the latency").aside(),
        micros("max", "MAX", "slowest operation").aside(),
        micros(
            "cpu",
            "CPU/OP",
            "processor time of all servers, for each operation",
        ),
        Kind::new(
            "syncs",
            "SYNCS/OP",
            "syncs of all servers' logs, for each operation",
            Unit::Count,
        )
        .aside(),
        Kind::new(
            "disk",
            "DISK/OP",
            "bytes to the disk, in whole pages, for each operation",
            Unit::Bytes,
        )
        .aside(),
        Kind::new(
            "memory",
            "MEMORY",
            "resident memory of all servers",
            Unit::Bytes,
        ),
    ];
    if mode == Mode::Idle {
        let name = "heartbeats answered late, and sessions lost";
        kinds.push(Kind::new("late", "LATE", name, Unit::Count).aside());
    }
    kinds.extend(seen_kinds());
    kinds
}

fn notes(args: &BenchArgs) -> Vec<String> {
    let operation = match args.mode {
        Mode::Read => "one getData, from the request to its answer",
        Mode::Write => "one setData, from the request to its answer",
        Mode::Create => "one create, from the request to its answer",
        Mode::Mix => "one getData or setData, from the request to its answer",
        Mode::Multi => "one multi of several setData, from the request to its answer",
        Mode::Children => "one getChildren, from the request to the end of its answer",
        Mode::Idle => {
            "one heartbeat of a session that does nothing else, from when it was due to its answer; one that takes \
             longer than a third of the session timeout counts as refused"
        }
        Mode::Watch => {
            "one watch event, from the change of the znode to its arrival at one of the watchers"
        }
        _ => {
            "one life of a session: connect, create an ephemeral znode, close, until the last answer"
        }
    };
    let mut notes = vec![format!("An operation is {operation}.")];
    match args.rate {
        Some(rate) => notes.push(format!(
            "Open loop: {rate} operations are due each second, whether the servers keep up or not, and the latency of \
             each counts from when it was due."
        )),
        None if matches!(args.mode, Mode::Idle | Mode::Watch | Mode::Churn) => {}
        None => notes.push(format!(
            "Closed loop: each of the {} clients always has {} on its way; the answer to one is followed by the next. \
             So a slow server is also asked less, and latency and rate say the same twice.",
            args.clients,
            match args.depth {
                1 => "one request".to_owned(),
                depth => format!("{depth} requests"),
            }
        )),
    }
    notes
}

fn plan(args: &BenchArgs, subject: &Subject, round: u64) -> Plan {
    Plan {
        servers: subject.servers.clone(),
        clients: args.clients as usize,
        depth: args.depth as usize,
        work: match args.mode {
            Mode::Read => Work::Read,
            Mode::Create => Work::Create,
            Mode::Mix => Work::Mix {
                reads: args.ratio.0,
                writes: args.ratio.1,
            },
            Mode::Multi => Work::Multi { parts: args.parts },
            Mode::Children => Work::Children,
            // The others have drivers of their own.
            _ => Work::Write,
        },
        size: args.size as usize,
        keys: u64::from(args.keys()),
        warm_up: args.warm_up,
        length: args.for_,
        rate: args.rate.map(f64::from),
        session_timeout: args.session_timeout,
        seed: 1 + round,
    }
}

/// What is counted at both ends of the measurement.
#[derive(Default)]
struct Counted {
    servers: Usage,
    own: Usage,
    syncs: Option<Syncs>,
}

fn one_round(args: &BenchArgs, plan: &Plan, subject: &Subject) -> Result<Round, Failure> {
    let bystanders = match args.bystanders {
        true => Some(Bystanders::start(&subject.servers)?),
        false => None,
    };
    let mut before = Counted::default();
    let mut after = Counted::default();
    let count = |own: &[u32]| Counted {
        servers: Usage::of(&subject.pids),
        own: Usage::of(own),
        syncs: Some(Syncs::ask(&subject.servers)),
    };
    let at_edge = &mut |edge, own: &[u32]| match edge {
        Edge::Ready => {}
        Edge::Begin => {
            if let Some(bystanders) = &bystanders {
                bystanders.record();
            }
            before = count(own);
        }
        Edge::End => {
            after = count(own);
            if let Some(bystanders) = &bystanders {
                bystanders.enough();
            }
        }
    };
    let outcome = drive(args, plan, at_edge);
    let seen = bystanders.map(Bystanders::finish);
    let outcome = outcome?;
    let late = outcome.failed + outcome.lost;
    let mut round = told(outcome, before, after, !subject.pids.is_empty());
    round.put("late", (args.mode == Mode::Idle).then_some(late as f64));
    if let Some(seen) = seen {
        put_seen(&mut round, seen?);
    }
    Ok(round)
}

/// Runs the load. `at_edge` is told which processes make it.
fn drive(
    args: &BenchArgs,
    plan: &Plan,
    at_edge: &mut dyn FnMut(Edge, &[u32]),
) -> Result<Outcome, Failure> {
    if args.mode == Mode::Idle {
        return processes::idle(plan, at_edge);
    }
    let own = [process::id()];
    let at_edge = &mut |edge| at_edge(edge, &own);
    match args.mode {
        Mode::Watch => bench::watchers(plan, at_edge),
        Mode::Churn => bench::churn(plan, at_edge),
        _ => bench::run(plan, at_edge),
    }
}

fn told(outcome: Outcome, before: Counted, after: Counted, is_ours: bool) -> Round {
    let answered = |counted: Option<Syncs>| counted.and_then(Syncs::wait);
    let syncs = match (answered(before.syncs), answered(after.syncs)) {
        (Some(before), Some(after)) => Some(after.saturating_sub(before)),
        _ => None,
    };
    let ops = outcome.ops;
    let servers = after.servers.since(&before.servers);
    let used = is_ours.then(|| Used::of(&servers, syncs, ops));
    let own = after.own.since(&before.own);
    let mut round = Round {
        used,
        generator_cpu_us: Some(own.cpu_us as f64 / ops.max(1) as f64),
        ..Round::default()
    };
    round.put("rate", outcome.rate);
    round.put("p50", outcome.latency.p50_us);
    round.put("p99", outcome.latency.p99_us);
    round.put("p999", outcome.latency.p999_us);
    round.put("max", outcome.latency.max_us);
    round.put("syncs", syncs.map(|syncs| syncs as f64 / ops.max(1) as f64));
    round.put("cpu", used.map(|used| used.cpu_us));
    round.put("disk", used.map(|used| used.disk));
    round.put("memory", used.map(|used| used.resident as f64));
    round.outcome = Some(outcome);
    round
}
