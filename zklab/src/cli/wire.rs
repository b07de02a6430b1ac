//! Arguments of the commands that withhold messages between servers.

use std::time::Duration;

use clap::Args;

use super::value::{duration, zxid};
use crate::event::HexZxid;

/// `drop` and `hold`.
#[derive(Debug, Args)]
#[command(after_help = "\
A message in the middle of a TCP stream cannot vanish alone. So from its first byte on nothing of that connection \
gets through in that direction; the packet is split there. The receiver sees an open connection on which nothing \
more comes, not even its end; the other direction and all other connections go on. `heal ID` ends it: what was \
held arrives in order; a connection with a dropped message is reset, since its receiver is never to see it.\n\n\
Roles are those at the time of the command. Messages are counted from then on, on each link for itself.\n\n\
Examples:\n  \
zklab hold ACKEPOCH --from n2\n  \
zklab drop PROPOSAL --from leader --to n3 --nth 3\n  \
zklab drop VOTE --to n1 --count 4 --for 2s")]
pub struct MessageArgs {
    /// FOLLOWERINFO OBSERVERINFO LEADERINFO ACKEPOCH DIFF TRUNC SNAP NEWLEADER UPTODATE PROPOSAL ACK COMMIT
    /// COMMITANDACTIVATE INFORM INFORMANDACTIVATE REQUEST SYNC PING REVALIDATE, or VOTE
    #[arg(value_name = "MSG")]
    pub message: String,
    /// Only from these nodes (roles too)
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    pub from: Vec<String>,
    /// Only to these nodes (roles too)
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    pub to: Vec<String>,
    /// The first to be caught on a link is its N-th
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub nth: u32,
    /// Catch so many in all; each takes the rest of its connection with it
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Only with this zxid: 0x100000003
    #[arg(long, value_parser = zxid, value_name = "ZXID")]
    pub zxid: Option<HexZxid>,
    /// Heal it this long after it was armed
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
    /// Return when all are caught; with --for, when it is healed and every voter serves
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up after this time (exit code 3); the fault stays
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    pub timeout: Duration,
}
