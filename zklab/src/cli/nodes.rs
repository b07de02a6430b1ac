//! Arguments of the commands that start, end and stop nodes.

use std::time::Duration;

use clap::Args;

use super::value::duration;
use crate::supervisor::protocol::Death;
use crate::wall::jump;

/// `kill-leader`.
#[derive(Debug, Args)]
pub struct KillLeaderArgs {
    /// How often; from 2 on the dead node is started again each time
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub times: u32,
    /// Time between a recovery and the next kill
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
    pub every: Duration,
    /// Start the dead node again as soon as there is a new leader
    #[arg(long)]
    pub restart: bool,
    /// Start the dead node again after this time
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub restart_after: Option<Duration>,
    /// As a process, or as a host: its links are cut first, so that nobody is told
    #[arg(long = "as", default_value = "process", value_parser = death, value_name = "WHAT")]
    pub as_: Death,
    /// Exit with 3 if writes pause for longer
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub budget: Option<Duration>,
    /// Give up if no write is acknowledged for this long
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub timeout: Duration,
}

/// `add`.
#[derive(Debug, Args)]
#[command(after_help = "\
An observer joins and nobody is disturbed. For a voter the other servers, whose configuration is static, are started \
again one after another, the leader last, as an operator has to do it. All configurations are written anew.")]
pub struct AddArgs {
    /// It gets no vote
    #[arg(long)]
    pub observer: bool,
    /// A zkd binary, `apache`, or `apache:DIR` (default: what the first node runs)
    #[arg(long, value_name = "PATH")]
    pub server: Option<String>,
    /// Give up, and take it out again, if it does not serve by then
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub timeout: Duration,
}

/// `rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Its process, network, published port and data are gone afterwards. When a voter goes the others are started again one \
after another, the leader last. Refused (exit code 2) if no quorum would serve without it.")]
pub struct RmArgs {
    /// The node: n3, or a role that one node has, such as leader
    #[arg(value_name = "NODE")]
    pub node: String,
}

/// Nodes and nothing else.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// n1 n2 …, or leader, followers, observers, minority, majority, any, any-follower, not-leader, all
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
}

/// `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Which
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// The signal
    #[arg(long, default_value = "KILL", value_name = "NAME")]
    pub signal: String,
    /// As a process, or as a host: its links are cut first, so that nobody is told
    #[arg(long = "as", default_value = "process", value_parser = death, value_name = "WHAT")]
    pub as_: Death,
    /// Start them again after this time
    #[arg(long, visible_alias = "for", value_parser = duration, value_name = "DURATION")]
    pub restart_after: Option<Duration>,
    /// Cut the power: what was never synced is gone (labs made with `up --disk-faults`)
    #[arg(long)]
    pub lose_unsynced: bool,
    /// Of that, let the txn logs keep a part that ends anywhere
    #[arg(long, requires = "lose_unsynced")]
    pub torn: bool,
    /// Return when they are started again and serve
    #[arg(long, requires = "restart_after")]
    pub wait: bool,
}

/// `disk`.
#[derive(Debug, Args)]
pub struct DiskArgs {
    /// Which
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// Every sync takes this much longer
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub slow_fsync: Option<Duration>,
    /// Syncs fail with this error
    #[arg(long, value_parser = ["eio"], value_name = "ERROR")]
    pub fail_fsync: Option<String>,
    /// No more can be written (labs made with `up --disk-writes`)
    #[arg(long)]
    pub full: bool,
    /// Turn one bit over in a file of a node that is down: its newest log, or its newest snapshot
    #[arg(long, value_name = "FILE", value_parser = ["log", "snapshot"])]
    #[arg(conflicts_with_all = ["slow_fsync", "fail_fsync", "full", "for_"])]
    pub bitflip: Option<String>,
    /// Only every so many
    #[arg(long, default_value_t = 1, value_name = "N", requires = "fail_fsync")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub every: u64,
    /// Undo it after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
}

/// `clock`.
#[derive(Debug, Args)]
#[command(
    after_help = "Only the wall clock is changed, as the server sees it from then on, whatever it is (zkd, a JVM). \
The monotonic clock, by which sessions and time-outs go, stays true. A node that is started again keeps its wrong \
clock until `zklab heal clock`.\nExample: zklab clock leader --jump +1h --for 10s"
)]
pub struct ClockArgs {
    /// Which
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// It shows so much later than it is, or earlier: +1h, -30s
    #[arg(long, value_parser = jump, value_name = "DURATION", allow_hyphen_values = true)]
    pub jump: Option<i64>,
    /// It goes so many times as fast as time from now on
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// It stands still
    #[arg(long, conflicts_with = "rate")]
    pub freeze: bool,
    /// It is true again
    #[arg(long, conflicts_with_all = ["jump", "rate", "freeze", "for_"])]
    pub reset: bool,
    /// Undo it after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
}

/// `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Which
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// Start them again after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
    /// Return when they are started again and serve
    #[arg(long, requires = "for_")]
    pub wait: bool,
}

/// `restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Which
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// One after another, the leader last, while clients write
    #[arg(long)]
    pub rolling: bool,
    /// With SIGKILL instead of SIGTERM
    #[arg(long)]
    pub hard: bool,
    /// Run this server from now on: an upgrade
    #[arg(long, value_name = "PATH")]
    pub server: Option<String>,
}

/// `pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Which
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// Let them go on after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
    /// Return when they have gone on and serve
    #[arg(long, requires = "for_")]
    pub wait: bool,
}

/// Reads `process` or `host`.
fn death(word: &str) -> Result<Death, String> {
    match word {
        "process" => Ok(Death::Process),
        "host" => Ok(Death::Host),
        _ => Err(format!("{word:?} is neither process nor host")),
    }
}
