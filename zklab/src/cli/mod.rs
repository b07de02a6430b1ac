//! The command line: types only, no behaviour. One file for each group of commands.

pub mod bench;
pub mod chaos;
pub mod client;
pub mod digest;
pub mod lab;
pub mod network;
pub mod nodes;
pub mod observe;
pub mod pcap;
pub mod report;
pub mod run;
pub mod value;
pub mod wire;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::chaos::{ChaosArgs, ReplayArgs, ScenarioCommand, ShrinkArgs};
pub use self::client::{CliArgs, ClientCli, ClientCommand};
pub use self::digest::DigestArgs;
pub use self::lab::{DownArgs, StatusArgs, UpArgs};
pub use self::network::{ExecArgs, HealArgs, LinkCommand, LinkSetArgs, PartitionArgs, ShellArgs};
pub use self::nodes::{
    AddArgs, ClockArgs, DiskArgs, KillArgs, KillLeaderArgs, NodesArgs, PauseArgs, RestartArgs,
    RmArgs, StopArgs,
};
pub use self::observe::{CheckArgs, EventsArgs, LoadArgs, LogsArgs};
pub use self::pcap::PcapArgs;
pub use self::report::{ReportArgs, WatchArgs};
pub use self::run::RunArgs;
pub use self::value::{data_dir, duration, version_of};
pub use self::wire::MessageArgs;

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
    /// See it all once, in a lab of its own: an election, a leader that dies, equal trees
    Demo,
    /// Make an ensemble and wait until it serves
    Up(UpArgs),
    /// End a lab; nothing is left behind
    Down(DownArgs),
    /// List the labs of this machine
    Ls,
    /// Ask every node for its state
    #[command(visible_alias = "ps")]
    Status(StatusArgs),
    /// Make one more node in a lab that is up
    Add(AddArgs),
    /// Take a node out of a lab for good
    Rm(RmArgs),
    /// Kill the leader and show the re-election, phase by phase
    KillLeader(KillLeaderArgs),
    /// Kill nodes
    Kill(KillArgs),
    /// Compare the trees of all nodes at one zxid
    Digest(DigestArgs),
    /// Make disks slow, full or faulty
    Disk(DiskArgs),
    /// Set the wall clocks of nodes wrong
    Clock(ClockArgs),
    /// Start nodes that are down
    Start(NodesArgs),
    /// End nodes gently (SIGTERM)
    Stop(StopArgs),
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
    /// Keep a message between servers, and what follows it, from its receiver for good
    Drop(MessageArgs),
    /// Keep a message between servers, and what follows it, from its receiver until it is healed
    Hold(MessageArgs),
    /// Write the packets of the nodes into a pcapng file, for Wireshark and tcpdump
    Pcap(PcapArgs),
    /// Take faults out
    Heal(HealArgs),
    /// Run a program inside a node's network: zklab exec n1 -- ping 10.77.0.2
    Exec(ExecArgs),
    /// Open a shell inside a node's network
    Shell(ShellArgs),
    /// Let clients work on the ensemble and record what they are told
    Load(LoadArgs),
    /// Carry out scenarios: faults, load, checks and a verdict
    Run(RunArgs),
    /// Measure how fast servers are, alone or against others
    Bench(bench::BenchArgs),
    /// Random faults for a while, round after round
    Chaos(ChaosArgs),
    /// Do again what a run did
    Replay(ReplayArgs),
    /// Make a failing run small: fewest faults, then nodes, then load
    Shrink(ShrinkArgs),
    /// Write, check and list scenarios
    Scenario {
        /// What to do.
        #[command(subcommand)]
        command: ScenarioCommand,
    },
    /// Judge a recorded history: does it keep ZooKeeper's promises?
    Check(CheckArgs),
    /// Make the report of a run that is over: a page, JUnit XML, Markdown, a comparison
    Report(ReportArgs),
    /// Watch a lab live, and make its life hard with a few keys
    Watch(WatchArgs),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        ClientCli::command().debug_assert();
    }
}
