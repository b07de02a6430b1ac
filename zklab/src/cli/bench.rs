//! Arguments of `bench`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::{duration, ratio};
use crate::report::history::count;

/// `bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --servers the bench makes labs of its own, on disk, and ends them.\n\n\
    Loads: read write create mix multi children idle watch churn. Each round warms up, then measures for --for.\n\
    Whole servers: start (to the first write, memory at rest), election (kill -9 of the leader to the next write, quiet\n\
    and under load), tree (a big tree: memory, restart after kill -9, the pause of a snapshot), catch-up (a follower\n\
    that is far behind, and one that has lost everything).\n\n\
    Examples: zklab bench write --clients 32 · zklab bench mix --ratio 9:1 --against apache --rounds 3 --html mix.html\n\
    zklab bench election --against apache --rounds 3 · zklab bench read --servers A:2181,B:2181 --against C:2181"
)]
pub struct BenchArgs {
    /// What is measured
    #[arg(default_value = "write")]
    pub mode: Mode,
    /// Clients, each with a session of its own; in `election` and `tree` those that make the load
    #[arg(short, long, default_value_t = 32, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub clients: u32,
    /// Requests of each client on their way at any time
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub depth: u32,
    /// Bytes of data in a znode
    #[arg(short, long, default_value_t = 100, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub size: u32,
    /// Znodes that are there (default: 1000; children 100000; tree and catch-up a million)
    #[arg(short, long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: Option<u32>,
    /// With `mix`: reads to writes
    #[arg(long, default_value = "9:1", value_parser = ratio, value_name = "R:W")]
    pub ratio: (u32, u32),
    /// With `multi`: writes in each
    #[arg(long, default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parts: u32,
    /// Operations a second, due whether the servers keep up or not; latency counts from when each was due
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// How long to measure, in each round
    #[arg(long = "for", default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub for_: Duration,
    /// How long to warm up before
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION")]
    pub warm_up: Duration,
    /// The session timeout to ask for; a third of it is the time between heartbeats of idle sessions
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub session_timeout: Duration,
    /// With `election`: leaders killed in each round, quiet and again under load
    #[arg(long, default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub kills: u32,
    /// With `catch-up`: writes that the follower missed
    #[arg(long, default_value_t = 50_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub behind: u32,
    /// Let other clients read, write and live on every server meanwhile, and tell what they saw
    #[arg(long)]
    pub bystanders: bool,
    /// Rounds; with --against each round measures one after the other
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Servers in each ensemble (default: 3; election 5; tree 1; start measures 1, 3 and 5)
    #[arg(short, long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=25))]
    pub nodes: Option<u8>,
    /// A zkd binary, `apache`, or `apache:DIR` (default: the zkd beside zklab, or on the PATH)
    #[arg(long, value_name = "PATH")]
    pub server: Option<String>,
    /// Measure this one too, in turn, and compare: as --server or as --servers
    #[arg(long, value_name = "PATH|HOST:PORT,…")]
    pub against: Option<String>,
    /// Where the data go: `disk`, `tmpfs`, or a directory
    #[arg(long, default_value = "disk", value_name = "PLACE")]
    pub data: String,
    /// Servers that run already, wherever they are; of these no processor time or memory is known
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    #[arg(conflicts_with_all = ["server", "nodes", "data"])]
    pub servers: Vec<SocketAddr>,
    /// Write the results as a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the plots as SVG files into this directory
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
}

impl BenchArgs {
    /// Znodes that are there.
    #[must_use]
    pub fn keys(&self) -> u32 {
        self.keys.unwrap_or(match self.mode {
            Mode::Tree | Mode::CatchUp => 1_000_000,
            Mode::Children => 100_000,
            _ => 1000,
        })
    }

    /// Servers in each ensemble.
    #[must_use]
    pub fn nodes(&self) -> u8 {
        self.nodes.unwrap_or(match self.mode {
            Mode::Election => 5,
            Mode::Tree => 1,
            _ => 3,
        })
    }

    /// What is measured, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let servers = match self.servers.len() {
            0 => usize::from(self.nodes()),
            given => given,
        };
        let servers = match servers {
            1 => "1 server".to_owned(),
            more => format!("{more} servers"),
        };
        let (size, kills) = (self.size, self.kills);
        let (keys, clients) = (count(self.keys().into()), count(self.clients.into()));
        let what = match self.mode {
            Mode::Read => "reads".to_owned(),
            Mode::Write => "writes".to_owned(),
            Mode::Create => "creates".to_owned(),
            Mode::Mix => format!("reads and writes {}:{}", self.ratio.0, self.ratio.1),
            Mode::Multi => format!("multis of {} writes", self.parts),
            Mode::Children => format!("lists of {keys} children"),
            Mode::Idle => {
                return format!("heartbeats of {clients} idle sessions, {servers}");
            }
            Mode::Watch => return format!("one znode watched by {clients}, {servers}"),
            Mode::Churn => "lives of sessions".to_owned(),
            Mode::Start => return "start of ensembles".to_owned(),
            Mode::Election => {
                return format!(
                    "kill -9 of the leader of {servers}, {kills} times quiet and {kills} times while \
                     {clients} clients write"
                );
            }
            Mode::Tree => return format!("a tree of {keys} znodes of {size} B, {servers}"),
            Mode::CatchUp => {
                return format!(
                    "a follower comes back to a tree of {keys} znodes of {size} B, {servers}"
                );
            }
        };
        let rate = match self.rate {
            Some(rate) => format!("{rate} due each second"),
            None => format!("depth {}", self.depth),
        };
        format!("{what} of {size} B, {clients} clients, {rate}, {servers}")
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Data and Stat of a znode
    Read,
    /// New data for a znode
    Write,
    /// A new znode each time
    Create,
    /// Reads and writes
    Mix,
    /// Several writes, all or none
    Multi,
    /// The names of all children of one znode
    Children,
    /// Idle sessions that send heartbeats
    Idle,
    /// One znode watched by every client, and changed again and again
    Watch,
    /// Sessions that are opened, make an ephemeral znode and are ended
    Churn,
    /// Ensembles that are started: to the first write, and memory at rest
    Start,
    /// Leaders that are killed: to the next acknowledged write
    Election,
    /// A big tree: memory, restart after kill -9, the pause of a snapshot
    Tree,
    /// A follower that is far behind, or has lost everything, comes back
    CatchUp,
}

impl Mode {
    /// Whether it starts and kills servers itself.
    #[must_use]
    pub fn needs_labs(self) -> bool {
        matches!(
            self,
            Self::Start | Self::Election | Self::Tree | Self::CatchUp
        )
    }
}
