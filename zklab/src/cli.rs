//! The command line: types only, no behaviour.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::fault::Style;
use crate::fault::change;
use crate::id::NodeId;
use crate::supervisor::network;
use crate::supervisor::protocol::HexSeed;

/// A local cluster lab for ZooKeeper ensembles: real processes, real elections, faults on purpose.
#[derive(Debug, Parser)]
#[command(
    name = "zklab",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 ok · 1 product bug · 2 usage · 3 expectation missed · \
    4 inconclusive · 5 environment · 6 a node died on its own · 130 interrupted"
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The lab
    #[arg(
        short = 'L',
        long,
        global = true,
        help_heading = "Global options",
        value_name = "NAME",
        env = "ZKLAB_LAB"
    )]
    #[arg(default_value = "default")]
    pub lab: String,
    /// Print one JSON object (streams: one a line)
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print nothing but errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Say on stderr what is being done
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Colours
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub color: Color,
    /// No progress display on stderr
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_progress: bool,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Even into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an ensemble and wait until it serves
    Up(UpArgs),
    /// End a lab; nothing is left behind
    Down(DownArgs),
    /// List the labs of this machine
    Ls,
    /// Ask every node for its state
    #[command(visible_alias = "ps")]
    Status(StatusArgs),
    /// Kill the leader and show the re-election, phase by phase
    KillLeader(KillLeaderArgs),
    /// Kill nodes
    Kill(KillArgs),
    /// Start nodes that are down
    Start(NodesArgs),
    /// End nodes gently (SIGTERM)
    Stop(NodesArgs),
    /// End nodes and start them again
    Restart(RestartArgs),
    /// Stop nodes in their tracks (SIGSTOP)
    Pause(PauseArgs),
    /// Let paused nodes go on (SIGCONT)
    Resume(NodesArgs),
    /// Show the servers' logs
    Logs(LogsArgs),
    /// Show what happened, event by event
    Events(EventsArgs),
    /// Speak with the ensemble as a client: ls, get, set, create, delete, stat
    #[command(override_usage = "zklab cli [OPTIONS] [NODE] <COMMAND> …")]
    Cli(CliArgs),
    /// Make single links slow or lossy, show and reset them
    Link {
        /// What to do.
        #[command(subcommand)]
        command: LinkCommand,
    },
    /// Make nodes lose sight of each other
    Partition(PartitionArgs),
    /// Take faults of the network out
    Heal(HealArgs),
    /// Run a program inside a node's network: zklab exec n1 -- ping 10.77.0.2
    Exec(ExecArgs),
    /// Let clients work on the ensemble and record what they are told
    Load(LoadArgs),
    /// Judge a recorded history: does it keep ZooKeeper's promises?
    Check(CheckArgs),
    /// Print ZK_HOSTS for other programs: eval "$(zklab env)"
    Env,
    /// Say what works on this machine, and how to fix what does not
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The lab's name (default: that of --lab)
    pub name: Option<String>,
    /// Voting servers
    #[arg(short, long, default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=250))]
    pub nodes: u8,
    /// Observers beside them
    #[arg(short, long, default_value_t = 0, value_name = "M")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=249))]
    pub observers: u8,
    /// A zkd binary, `apache`, or `apache:DIR` (default: the zkd beside zklab, or on the PATH)
    #[arg(long, value_name = "PATH")]
    pub server: Option<String>,
    /// What one node runs instead, to mix servers and versions: n3=apache (may be repeated)
    #[arg(long, value_name = "NODE=PATH", value_parser = version_of)]
    pub version_of: Vec<(NodeId, String)>,
    /// tickTime
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
    pub tick: Duration,
    /// The network: `loopback` (127.0.LAB.NODE), which `auto` takes too, or `tun`: for every node
    /// one of its own (10.77.0.NODE), with links that can be cut and slowed
    #[arg(long, default_value = "auto", hide_possible_values = true)]
    pub net: NetArg,
    /// With --net tun: reach the nodes at 127.0.0.1 from this port on (default: 2181, or where there is
    /// room)
    #[arg(long, value_name = "PORT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub publish: Option<u16>,
    /// With --net tun: makes the links choose as they did under this seed (default: a new one)
    #[arg(long, value_name = "SEED")]
    pub seed: Option<HexSeed>,
    /// Where the data go: `tmpfs`, `disk`, or a directory (which `down` leaves alone)
    #[arg(long, value_name = "PLACE")]
    pub data: Option<String>,
    /// Start the servers one after another and tell what each does
    #[arg(long)]
    pub one_by_one: bool,
    /// Stay until Ctrl-C, then end the lab
    #[arg(long)]
    pub attach: bool,
    /// How long it may take (default: 10s, Apache ZooKeeper 60s)
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetArg {
    /// The best one this machine offers.
    Auto,
    /// Loopback addresses.
    Loopback,
    /// A namespace and a TUN device for each node.
    Tun,
}

/// `down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The lab's name (default: that of --lab)
    pub name: Option<String>,
    /// End the servers gently and leave their data
    #[arg(long)]
    pub keep_data: bool,
    /// End every lab
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Again every second
    #[arg(long)]
    pub watch: bool,
    /// More columns
    #[arg(long)]
    pub wide: bool,
}

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
    /// Exit with 3 if writes pause for longer
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub budget: Option<Duration>,
    /// Give up if no write is acknowledged for this long
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub timeout: Duration,
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
    /// Start them again after this time
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub restart_after: Option<Duration>,
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

/// `link`.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Change links; what is not named stays as it is
    Set(LinkSetArgs),
    /// Show links and what they carried
    Show {
        /// n1:n2 (both ways), n1>n2, n1 (all of a node), roles too (default: all)
        #[arg(value_name = "LINK")]
        links: Vec<String>,
    },
    /// Make links clean again
    Reset {
        /// n1:n2 (both ways), n1>n2, n1 (all of a node), roles too
        #[arg(value_name = "LINK", default_value = "all")]
        links: Vec<String>,
    },
}

/// `link set`.
#[derive(Debug, Args)]
#[command(after_help = "Example: zklab link set n1:n2 --delay 20ms --jitter 5ms --loss 1%")]
pub struct LinkSetArgs {
    /// n1:n2 (both ways), n1>n2, n1 (all of a node), roles too
    #[arg(required = true, value_name = "LINK")]
    pub links: Vec<String>,
    /// Every packet comes this much later
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub delay: Option<Duration>,
    /// The delay varies by so much, in both directions
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub jitter: Option<Duration>,
    /// So many packets are lost
    #[arg(long, value_parser = change::chance, value_name = "CHANCE")]
    pub loss: Option<f64>,
    /// Losses come in bursts of so many packets on average
    #[arg(long, value_parser = change::burst, value_name = "PACKETS")]
    pub burst: Option<f64>,
    /// So many packets come twice
    #[arg(long, value_parser = change::chance, value_name = "CHANCE")]
    pub dup: Option<f64>,
    /// So many packets are overtaken
    #[arg(long, value_parser = change::chance, value_name = "CHANCE")]
    pub reorder: Option<f64>,
    /// In so many packets a bit is flipped
    #[arg(long, value_parser = change::chance, value_name = "CHANCE")]
    pub corrupt: Option<f64>,
    /// Bits a second: 10mbit
    #[arg(long, value_parser = change::rate, value_name = "RATE")]
    pub rate: Option<u64>,
    /// What may wait before a link with a rate: 64k
    #[arg(long, value_parser = change::size, value_name = "BYTES")]
    pub queue: Option<u64>,
    /// Undo it after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
}

/// `partition`.
#[derive(Debug, Args)]
#[command(after_help = "Kinds:\n  \
    majority        the leader stays with the majority, a minority is cut off\n  \
    minority        the leader is cut off with a minority\n  \
    halves          two halves, drawn by chance\n  \
    isolate NODE…   these nodes are cut off from the others\n  \
    leader          the leader is cut off from the others\n  \
    bridge          two halves and one node that sees both\n  \
    ring            every node sees a majority, and no two the same\n  \
    one-way A>B     nothing passes from A to B")]
pub struct PartitionArgs {
    /// The kind and its nodes (roles too)
    #[arg(required = true, value_name = "KIND")]
    pub kind: Vec<String>,
    /// What happens on the links: drop, jam (hold until healed), slow (half a second later)
    #[arg(long, default_value = "drop", value_parser = network::style, value_name = "STYLE")]
    pub style: Style,
    /// Heal it after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
    /// Return when it is healed and every voter serves
    #[arg(long, requires = "for_")]
    pub wait: bool,
}

/// `heal`.
#[derive(Debug, Args)]
pub struct HealArgs {
    /// One partition, f1 (default: everything)
    #[arg(value_name = "FAULT", conflicts_with = "core")]
    pub what: Option<String>,
    /// Only the links between these nodes
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    pub core: Vec<String>,
    /// Return when every voter serves
    #[arg(long)]
    pub wait: bool,
}

/// `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// n1, or a role that is one node
    pub node: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<OsString>,
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

/// `cli`.
#[derive(Debug, Args)]
#[command(
    after_help = "Commands: ls PATH · get PATH · set PATH DATA [--version N] · create PATH \
    [DATA] [--sequential] [--container] [--ttl DURATION] · delete PATH [--version N] · stat PATH\n\
    Examples: zklab cli ls / · zklab cli n2 get /a · zklab cli leader set /a hello"
)]
pub struct CliArgs {
    /// NODE, if given, then COMMAND …: through this node, or through any
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,
}

/// What follows `cli [NODE]`.
#[derive(Debug, Parser)]
#[command(name = "zklab cli", no_binary_name = true)]
pub struct ClientCli {
    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// What a client can do.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Names of the children
    Ls {
        /// Of this znode
        #[arg(default_value = "/")]
        path: String,
    },
    /// The data
    Get {
        /// Of this znode
        path: String,
    },
    /// Replace the data
    Set {
        /// Of this znode
        path: String,
        /// With this
        data: String,
        /// Only if the version is this
        #[arg(long)]
        version: Option<i32>,
    },
    /// Make a znode
    Create {
        /// Here
        path: String,
        /// With this in it
        #[arg(default_value = "")]
        data: String,
        /// Append a rising number to the name
        #[arg(short, long)]
        sequential: bool,
        /// Gone when its last child is gone
        #[arg(short, long, conflicts_with_all = ["sequential", "ttl"])]
        container: bool,
        /// Gone when not changed for this long
        #[arg(short, long, value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Delete a znode
    #[command(visible_alias = "rm")]
    Delete {
        /// This
        path: String,
        /// Only if the version is this
        #[arg(long)]
        version: Option<i32>,
    },
    /// Everything known of a znode but its data
    Stat {
        /// This
        path: String,
    },
}

/// Reads `n3=PATH`.
///
/// # Errors
/// If it is not of this form.
pub fn version_of(text: &str) -> Result<(NodeId, String), String> {
    let (node, server) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not of the form n3=PATH"))?;
    Ok((node.parse()?, server.to_owned()))
}

/// Reads `250ms`, `1.5s`, `2m`; a bare number is refused, for nobody knows its unit.
///
/// # Errors
/// If it is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .ok_or_else(|| format!("{text:?} needs a unit: 250ms, 2s, 1m"))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 250ms, 2s, 1m"))?;
    let seconds = match unit.trim() {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        other => return Err(format!("unknown unit {other:?}; use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is too long"))
}

/// Where the data go, as typed.
#[must_use]
pub fn data_dir(text: &str) -> PathBuf {
    std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        ClientCli::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["5", "ms", "-1s", "1 parsec", "", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
