//! Arguments of the commands that break the network, and of `exec`, which runs inside it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::value::duration;
use crate::fault::change;
use crate::fault::{Clients, Style};
use crate::supervisor::network;

/// `link`.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Change links; what is not named stays as it is
    Set(Box<LinkSetArgs>),
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
    /// As lan, wan3, lossy, or a TOML file say; the other options go before it
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Change rate and delay over time: lines of MS RATE and perhaps DELAY, and at the end MS again
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    pub trace: Option<PathBuf>,
    /// Undo it after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
    /// Return when it is undone and every voter serves
    #[arg(long, requires = "for_")]
    pub wait: bool,
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
    one-way A>B     nothing passes from A to B\n  \
    flap NODE|A:B   cut off again and again, at times drawn by chance")]
pub struct PartitionArgs {
    /// The kind and its nodes (roles too)
    #[arg(required = true, value_name = "KIND")]
    pub kind: Vec<String>,
    /// What happens on the links: drop, jam (hold until healed), slow (half a second later), reset (TCP
    /// connections are broken off, then drop)
    #[arg(long, default_value = "drop", value_parser = network::style, value_name = "STYLE")]
    pub style: Style,
    /// include: clients of the nodes that are cut off lose them too; exclude: only what the servers say to
    /// each other is hit (default: everything between the nodes)
    #[arg(long, value_parser = clients, value_name = "include|exclude")]
    pub clients: Option<Clients>,
    /// flap: from one cut to the next, on average (default: 1s)
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub period: Option<Duration>,
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
    /// One fault by its id (f1), or all, net, proc, disk, clock (default: all)
    #[arg(value_name = "FAULT", conflicts_with = "core")]
    pub what: Option<String>,
    /// Only these nodes and the links between them
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    pub core: Vec<String>,
    /// Return when every voter serves
    #[arg(long)]
    pub wait: bool,
}

/// Reads `include` or `exclude`.
fn clients(word: &str) -> Result<Clients, String> {
    match word {
        "include" => Ok(Clients::Include),
        "exclude" => Ok(Clients::Exclude),
        _ => Err(format!("{word:?} is neither include nor exclude")),
    }
}

/// `shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// n1, or a role that is one node
    pub node: String,
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
