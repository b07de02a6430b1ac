//! One file for each group of subcommands; this one parses, dispatches and ends with the right exit code.

mod again;
mod bench;
mod check;
mod cli;
mod demo;
mod digest;
mod doctor;
mod events;
mod exec;
mod kill_leader;
mod labs;
mod load;
mod logs;
mod members;
mod network;
mod nodes;
mod pcap;
mod report;
mod run;
mod scenario;
mod up;
mod watch;
mod wire;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::generate;
use serde::de::DeserializeOwned;

use crate::cli::{Cli, Color, Command};
use crate::clock::now_us;
use crate::failure::{Exit, Failure};
use crate::report::Out;
use crate::supervisor::client::{Connection, SUPERVISE, TRY_NETWORK, try_network};
use crate::supervisor::guard::{self, GUARD};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::Request;

/// What a command gets.
#[derive(Debug)]
struct Context {
    /// When the program was started.
    asked_us: u64,
    /// The lab meant.
    lab: String,
    /// Where results go.
    out: Out,
}

impl Context {
    /// Asks the supervisor of the lab one thing that has one answer.
    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        ask(&self.lab, request)
    }
}

/// Asks the supervisor of a lab one thing that has one answer.
fn ask<T: DeserializeOwned>(lab: &str, request: &Request) -> Result<T, Failure> {
    Connection::open(&Root::open()?, lab)?
        .call(request, |_| true)?
        .ok_or_else(|| Failure::new(Exit::Interrupted, "interrupted"))
}

/// What this program does as a process of its own, where it is started for that.
fn hidden() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let (what, word) = (words.next()?, words.next().unwrap_or_default());
    let word = word.to_string_lossy();
    let done = match what.to_str()? {
        SUPERVISE => crate::supervisor::run(),
        GUARD => {
            guard::run(&word);
            Ok(())
        }
        TRY_NETWORK => try_network(&word),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.exit.code()),
    })
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let asked_us = now_us();
    if let Some(exit) = hidden() {
        return exit;
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == bench::PART)
    {
        return match bench::part() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(failure.exit.code()),
        };
    }
    let cli = Cli::parse();
    let color = match cli.global.color {
        Color::Auto => None,
        Color::Always => Some(true),
        Color::Never => Some(false),
    };
    let out = Out::new(
        cli.global.json,
        cli.global.quiet,
        cli.global.verbose,
        !cli.global.no_progress,
        color,
    );
    let mut context = Context {
        asked_us,
        lab: cli.global.lab,
        out,
    };
    let done = dispatch(&mut context, cli.command);
    let exit = done.unwrap_or_else(|failure| {
        context.out.failure(&failure);
        failure.exit
    });
    ExitCode::from(exit.code())
}

fn dispatch(context: &mut Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => up::run(context, args),
        Command::Down(args) => labs::down(context, args),
        Command::Ls => labs::ls(context),
        Command::Status(args) => labs::status(context, &args),
        Command::Link { command } => network::link(context, command),
        Command::Partition(args) => network::partition(context, args),
        Command::Drop(args) => wire::withhold(context, args, false),
        Command::Hold(args) => wire::withhold(context, args, true),
        Command::Pcap(args) => pcap::run(context, args),
        Command::Heal(args) => network::heal(context, args),
        Command::Exec(args) => exec::run(context, &args),
        Command::Shell(args) => exec::shell(context, args.node),
        Command::Demo => demo::run(context),
        Command::Env => labs::env(context),
        Command::Add(args) => members::add(context, &args),
        Command::Rm(args) => members::rm(context, args),
        Command::KillLeader(args) => kill_leader::run(context, &args),
        Command::Kill(args) => nodes::kill(context, args),
        Command::Digest(args) => digest::run(context, &args),
        Command::Disk(args) => nodes::disk(context, args),
        Command::Clock(args) => nodes::clock(context, args),
        Command::Start(args) => nodes::act(context, &Request::Start { nodes: args.nodes }),
        Command::Stop(args) => nodes::stop(context, args),
        Command::Resume(args) => nodes::act(context, &Request::Resume { nodes: args.nodes }),
        Command::Pause(args) => nodes::pause(context, args),
        Command::Restart(args) => nodes::restart(context, args),
        Command::Logs(args) => logs::run(context, &args),
        Command::Events(args) => events::run(context, &args),
        Command::Load(args) => load::run(context, args),
        Command::Run(args) => run::run(context, &args),
        Command::Bench(args) => bench::run(context, &args),
        Command::Chaos(args) => again::chaos(context, &args),
        Command::Replay(args) => again::replay(context, &args),
        Command::Shrink(args) => again::shrink(context, &args),
        Command::Scenario { command } => scenario::run(context, command),
        Command::Check(args) => check::run(context, &args),
        Command::Report(args) => report::run(context, &args),
        Command::Watch(args) => watch::run(context, args),
        Command::Cli(args) => cli::run(context, args),
        Command::Doctor => Ok(doctor::run(context)),
        Command::Completions { shell } => {
            generate(shell, &mut Cli::command(), "zklab", &mut io::stdout());
            Ok(Exit::Ok)
        }
    }
}
