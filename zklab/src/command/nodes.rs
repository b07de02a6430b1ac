//! `kill`, `start`, `stop`, `restart`, `pause`, `resume`: nodes of a lab.

use nix::sys::signal::Signal;

use super::Context;
use super::up::millis;
use crate::cli::{ClockArgs, DiskArgs, KillArgs, PauseArgs, RestartArgs, StopArgs};
use crate::failure::{Exit, Failure, nearest};
use crate::node::ServerKind;
use crate::report::ensemble;
use crate::report::progress::Progress;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{ActReport, ClockRequest, DiskRequest, News, Request};

/// Sends the request and shows what was done.
pub(super) fn act(context: &Context, request: &Request) -> Result<Exit, Failure> {
    let out = &context.out;
    let mut connection = Connection::open(&Root::open()?, &context.lab)?;
    let mut told = false;
    let report: Option<ActReport> = {
        let progress = Progress::start(out, "working");
        connection.call(request, |early| {
            if let Early::News(News::Act(act)) = early {
                told = true;
                progress.line(out, &ensemble::act(out, &act));
            }
            true
        })?
    };
    let Some(report) = report else {
        return Ok(Exit::Interrupted);
    };
    ensemble::acted(out, &report, told);
    Ok(report.exit)
}

pub(super) fn kill(context: &Context, args: KillArgs) -> Result<Exit, Failure> {
    let request = Request::Kill {
        nodes: args.nodes.nodes,
        signal: ending_signal(&args.signal)? as i32,
        restart_after_ms: args.restart_after.map(millis),
        lose_unsynced: args.lose_unsynced,
        torn: args.torn,
        death: args.as_,
        wait: args.wait,
    };
    act(context, &request)
}

pub(super) fn stop(context: &Context, args: StopArgs) -> Result<Exit, Failure> {
    let request = Request::Stop {
        nodes: args.nodes.nodes,
        for_ms: args.for_.map(millis),
        wait: args.wait,
    };
    act(context, &request)
}

pub(super) fn disk(context: &Context, args: DiskArgs) -> Result<Exit, Failure> {
    let request = Request::Disk(DiskRequest {
        nodes: args.nodes.nodes,
        slow_fsync_ms: args.slow_fsync.map_or(0, millis),
        fail_every: args.fail_fsync.map_or(0, |_| args.every),
        full: args.full,
        bitflip: args.bitflip.and_then(|file| file.parse().ok()),
        for_ms: args.for_.map(millis),
    });
    act(context, &request)
}

pub(super) fn clock(context: &Context, args: ClockArgs) -> Result<Exit, Failure> {
    let rate = if args.freeze {
        0.0
    } else {
        args.rate.unwrap_or(1.0)
    };
    let request = Request::Clock(ClockRequest {
        nodes: args.nodes.nodes,
        jump_us: args.jump.unwrap_or(0),
        rate,
        reset: args.reset,
        for_ms: args.for_.map(millis),
    });
    act(context, &request)
}

/// A signal that ends a process, by its name with or without `SIG`.
fn ending_signal(name: &str) -> Result<Signal, Failure> {
    const ENDING: [&str; 7] = ["KILL", "TERM", "INT", "QUIT", "ABRT", "SEGV", "BUS"];
    let upper = name.to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let signal = ENDING
        .contains(&bare)
        .then(|| format!("SIG{bare}").parse().ok())
        .flatten();
    signal.ok_or_else(|| {
        let guess = nearest(bare, ENDING)
            .map(|word| format!("; did you mean {word}?"))
            .unwrap_or_default();
        Failure::usage(format!(
            "{name:?} is not a signal that ends a server{guess}"
        ))
        .hint(format!(
            "one of {}; to stop a node in its tracks use `zklab pause`",
            ENDING.join(" ")
        ))
    })
}

pub(super) fn pause(context: &Context, args: PauseArgs) -> Result<Exit, Failure> {
    let request = Request::Pause {
        nodes: args.nodes.nodes,
        for_ms: args.for_.map(millis),
        wait: args.wait,
    };
    act(context, &request)
}

pub(super) fn restart(context: &Context, args: RestartArgs) -> Result<Exit, Failure> {
    let server = match args.server {
        None => None,
        Some(wanted) => Some(ServerKind::find(Some(&wanted))?),
    };
    let request = Request::Restart {
        nodes: args.nodes.nodes,
        rolling: args.rolling,
        hard: args.hard,
        server,
    };
    act(context, &request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_that_end_a_server_kill() {
        assert_eq!(ending_signal("term"), Ok(Signal::SIGTERM));
        assert_eq!(ending_signal("SIGKILL"), Ok(Signal::SIGKILL));
        let failure = ending_signal("STOP").unwrap_err();
        assert!(failure.hint.unwrap().contains("pause"));
    }
}
