//! Leaders that are killed: how long until the next write is acknowledged, with few clients and under load.

use std::time::Duration;

use super::in_turn;
use super::subject::Subject;
use crate::bench::{Plan, Pressure, Work};
use crate::cli::bench::BenchArgs;
use crate::command::{Context, ask};
use crate::failure::{Exit, Failure};
use crate::report::bench::{Kind, Report, Round, Spread, Unit};
use crate::supervisor::protocol::{Death, KillLeaderRequest, KillReport, Request};

/// Between two kills: the server that was killed last is back and in sync again.
const BREATH_MS: u64 = 500;
/// How long there may be no write at all.
const PATIENCE_MS: u64 = 60_000;

pub(super) fn measure(
    context: &Context,
    args: &BenchArgs,
    subjects: &mut [Subject],
) -> Result<Report, Failure> {
    let sides = in_turn(context, args, subjects, |subject, round, measured| {
        take_down(measured, "quiet", &kill(subject, args.kills)?);
        let pressure = Pressure::start(&plan(args, subject, u64::from(round)))?;
        let killed = kill(subject, args.kills);
        let acked = pressure.finish()?;
        take_down(measured, "loaded", &killed?);
        measured.put("acked", acked as f64);
        Ok(())
    })?;
    let notes = vec![format!(
        "The leader's process gets SIGKILL; its kernel tells the others that the connections are gone. Time counts from \
         the signal to the first write of the new epoch that any of a few clients, one at each server, has acknowledged. \
         Then the server is started again. Quiet: only these clients, which write all the time; loaded: {} more \
         clients write as fast as they are answered.",
        args.clients
    )];
    Ok(Report::new(args.describe(), notes, kinds(), sides))
}

fn kinds() -> Vec<Kind> {
    let micros = |key: &str, head: &str, name: &str| Kind::new(key, head, name, Unit::Micros);
    vec![
        micros(
            "quiet_median",
            "QUIET",
            "to the next write, quiet, median of a round",
        ),
        micros(
            "quiet_max",
            "QUIET MAX",
            "to the next write, quiet, slowest of a round",
        ),
        micros(
            "loaded_median",
            "LOADED",
            "to the next write, loaded, median of a round",
        ),
        micros(
            "loaded_max",
            "LOADED MAX",
            "to the next write, loaded, slowest of a round",
        ),
        Kind::new(
            "acked",
            "WRITES",
            "writes of the load that were acknowledged",
            Unit::Count,
        )
        .aside(),
    ]
}

fn plan(args: &BenchArgs, subject: &Subject, round: u64) -> Plan {
    Plan {
        servers: subject.servers.clone(),
        clients: args.clients as usize,
        depth: args.depth as usize,
        work: Work::Write,
        size: args.size as usize,
        keys: u64::from(args.keys()),
        warm_up: Duration::ZERO,
        length: Duration::ZERO,
        rate: None,
        session_timeout: args.session_timeout,
        seed: 1 + round,
    }
}

fn kill(subject: &Subject, times: u32) -> Result<KillReport, Failure> {
    let report: KillReport = ask(
        subject.lab()?,
        &Request::KillLeader(KillLeaderRequest {
            times,
            every_ms: BREATH_MS,
            restart_after_ms: Some(0),
            death: Death::Process,
            budget_ms: None,
            timeout_ms: PATIENCE_MS,
        }),
    )?;
    match report.exit {
        Exit::Bug | Exit::NodeDied => Err(Failure::new(
            report.exit,
            format!("{}: {}", report.verdict, report.findings.join("; ")),
        )),
        _ => Ok(report),
    }
}

fn take_down(round: &mut Round, name: &str, report: &KillReport) {
    let pauses = report.kills.iter().map(|kill| kill.ms.no_writes * 1e3);
    let pauses: Vec<f64> = pauses.collect();
    let spread = Spread::of(pauses.iter().copied());
    round.put(&format!("{name}_median"), spread.map(|s| s.median));
    round.put(&format!("{name}_max"), spread.map(|s| s.max));
    round.samples.insert(name.to_owned(), pauses);
}
