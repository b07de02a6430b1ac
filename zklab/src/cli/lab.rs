//! Arguments of the commands that make, end and show labs: `up`, `down`, `status`.

use std::time::Duration;

use clap::Args;

use super::value::{duration, version_of};
use crate::id::NodeId;
use crate::net::NetKind;
use crate::supervisor::protocol::HexSeed;

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
    /// The network: `loopback` (127.0.LAB.NODE), or one of its own for every node (10.77.0.NODE), with links
    /// that can be cut and slowed: `tun`, `packet` (without /dev/net/tun), or `auto`, the best that works
    #[arg(long, default_value = "loopback", value_name = "NET")]
    pub net: NetKind,
    /// With a network for every node: reach the nodes at 127.0.0.1 from this port on (default: 2181, or where
    /// there is room)
    #[arg(long, value_name = "PORT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub publish: Option<u16>,
    /// With a network for every node: how its links are, as lan, wan3, lossy, or a TOML file say
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// With a network for every node: makes the links choose as they did under this seed (default: a new one)
    #[arg(long, value_name = "SEED")]
    pub seed: Option<HexSeed>,
    /// With --net tun: do not read what the servers say to each other; then elections are known only from the
    /// servers, and messages cannot be withheld
    #[arg(long)]
    pub no_wire: bool,
    /// Where the data go: `tmpfs`, `disk`, or a directory (which `down` leaves alone)
    #[arg(long, value_name = "PLACE")]
    pub data: Option<String>,
    /// Watch what the servers sync, for `kill --lose-unsynced` and `disk`
    #[arg(long)]
    pub disk_faults: bool,
    /// Watch what the servers write, too, for `disk --full`; costs some microseconds for every write
    #[arg(long)]
    pub disk_writes: bool,
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
