//! Arguments of `bench`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::{duration, ratio};

/// `bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --servers the bench makes labs of its own, on disk, and ends them.\n\
    Examples: zklab bench write --clients 32 · zklab bench mix --ratio 9:1 --against apache --rounds 3"
)]
pub struct BenchArgs {
    /// What the clients do
    #[arg(default_value = "write")]
    pub mode: Mode,
    /// Clients, each with a session of its own
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
    /// Znodes that are read and written
    #[arg(short, long, default_value_t = 1000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: u32,
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
    /// Rounds; with --against each round measures one after the other
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Servers in each ensemble
    #[arg(short, long, default_value_t = 3, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=25))]
    pub nodes: u8,
    /// A zkd binary, `apache`, or `apache:DIR` (default: the zkd beside zklab, or on the PATH)
    #[arg(long, value_name = "PATH")]
    pub server: Option<String>,
    /// Measure this one too, in turn, and compare
    #[arg(long, value_name = "PATH")]
    pub against: Option<String>,
    /// Where the data go: `disk`, `tmpfs`, or a directory
    #[arg(long, default_value = "disk", value_name = "PLACE")]
    pub data: String,
    /// Servers that run already, wherever they are; of these no processor time or memory is known
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    #[arg(conflicts_with_all = ["server", "against", "nodes", "data"])]
    pub servers: Vec<SocketAddr>,
}

impl BenchArgs {
    /// What is measured, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let what = match self.mode {
            Mode::Read => "reads".to_owned(),
            Mode::Write => "writes".to_owned(),
            Mode::Create => "creates".to_owned(),
            Mode::Mix => format!("reads and writes {}:{}", self.ratio.0, self.ratio.1),
            Mode::Multi => format!("multis of {} writes", self.parts),
            Mode::Idle => "heartbeats".to_owned(),
            Mode::Watch => "watch events".to_owned(),
            Mode::Churn => "lives of sessions".to_owned(),
        };
        let rate = match self.rate {
            Some(rate) => format!("{rate} due each second"),
            None => format!("depth {}", self.depth),
        };
        let servers = match self.servers.len() {
            0 => usize::from(self.nodes),
            given => given,
        };
        format!(
            "{what} of {} B, {} clients, {rate}, {servers} servers",
            self.size, self.clients
        )
    }
}

/// What the clients do.
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
    /// Idle sessions that send heartbeats
    Idle,
    /// One znode watched by every client, and changed again and again
    Watch,
    /// Sessions that are opened, make an ephemeral znode and are ended
    Churn,
}
