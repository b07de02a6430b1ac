//! Arguments of the commands that look: `logs`, `events`, `load`, `check`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value::duration;
use crate::observe::load::Via;

/// `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which (default: all)
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Go on as the logs grow
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines that contain this
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Sort the lines of all nodes by time
    #[arg(long)]
    pub merge: bool,
    /// Only the last lines of each
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as things happen
    #[arg(short, long)]
    pub follow: bool,
    /// Only these kinds, or groups of them: election,epoch,node.serving
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    pub kind: Vec<String>,
    /// Only of these nodes
    #[arg(long, value_delimiter = ',', value_name = "NODE")]
    pub node: Vec<String>,
    /// Only of the last while
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub since: Option<Duration>,
}

/// `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The lab's name (default: that of --lab)
    pub name: Option<String>,
    /// Clients, each with a session of its own
    #[arg(long, default_value_t = 8, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: u32,
    /// Operations a second, of all clients together
    #[arg(long, default_value_t = 2000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Through which implementation of the client protocol they speak
    #[arg(long, default_value = "both", value_name = "VIA")]
    pub via: Via,
    /// What they do, with weights
    #[arg(long, value_name = "MIX")]
    #[arg(default_value = "cas=3,set=3,get=3,watch=1,create,delete,seq,ephemeral,multi,sync")]
    pub mix: String,
    /// For how long
    #[arg(long = "for", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub for_: Duration,
    /// The session timeout to ask for
    #[arg(long, default_value = "4s", value_parser = duration, value_name = "DURATION")]
    pub session_timeout: Duration,
    /// Where the history goes
    #[arg(long, default_value = "history.ndjson", value_name = "FILE")]
    pub history: PathBuf,
    /// All choices come from it (default: a new one)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A history, or a folder with a history.ndjson
    #[arg(required_unless_present = "data")]
    pub history: Option<PathBuf>,
    /// Only these rules: zxid-order,acked-writes,reads,session-fifo,sync,watches,ephemerals,sequences,multi
    #[arg(long, value_delimiter = ',', value_name = "RULE")]
    pub only: Vec<String>,
    /// Compare the txn logs in these data directories of servers that do not run
    #[arg(long, num_args = 2.., value_name = "DIR")]
    pub data: Vec<PathBuf>,
}
