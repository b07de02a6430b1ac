//! The command line: what can be asked of the binary, and nothing of how it is done.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use zkd::event::FeedTarget;

/// The version of zkd, and that of the ZooKeeper whose behaviour it has.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (as Apache ZooKeeper 3.9.5)");

/// Printed below the help of the program.
const AFTER_HELP: &str = "\
Exit codes:
   0  ended as it was told to (SIGTERM, SIGINT), or the check found nothing wrong
   1  an unexpected failure
   2  wrong arguments or configuration
   3  a data directory cannot be used, or its contents are damaged
  12  a commit for a txn that was never proposed here: the ensemble's history differs
  13  a packet from the leader that breaks the protocol
  14  a port could not be opened

Examples:
  zkd serve                    standalone on 127.0.0.1:2181, data in ./zkd-data
  zkd serve zoo.cfg            as the file says; an Apache ZooKeeper configuration will do
  zkd check zoo.cfg            what the file means, with every default, and what is doubtful about it
  zkd serve zoo.cfg --log-format json --log zkd=debug";

/// A ZooKeeper server: Apache ZooKeeper's own bytes on every port and on disk.
#[derive(Debug, Parser)]
#[command(name = "zkd", version = VERSION, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server until it is told to stop.
    Serve(ServeArgs),
    /// Read a configuration, print what it means, and change nothing.
    Check(CheckArgs),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration (zoo.cfg). Without it: standalone on 127.0.0.1:2181, data in ./zkd-data.
    pub(crate) file: Option<PathBuf>,

    /// Write an event feed, one JSON object a line, to a file, a FIFO or an open descriptor (fd:N). The
    /// `serving` event tells that the server is ready.
    #[arg(long, value_name = "PATH|fd:N")]
    pub(crate) events: Option<FeedTarget>,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// How the log on stderr looks.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// The form of the log on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log_format: LogFormat,

    /// The least important level that is logged: error, warn, info, debug, trace or off; or a list for single
    /// parts, such as info,zkd::election=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "ZKD_LOG")]
    pub(crate) log: String,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration (zoo.cfg).
    pub(crate) file: PathBuf,
}

/// A form of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}
