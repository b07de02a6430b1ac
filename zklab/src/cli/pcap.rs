//! Arguments of `pcap`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value::duration;

/// `pcap`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file has an interface for each directed link (n1>n2) and its IP packets, as their receiver got them and when. A \
packet that was lost, is held by a jam or is withheld has a comment that says so. On clean links a packet may have \
64 KiB: it crosses in one piece. If more passes than can be written, packets are left out, and their number is told \
at the end and in the file; the lab never waits. Ctrl-C ends it, and the file is whole.\n\n\
Examples:\n  \
zklab pcap -o lab.pcapng --for 10s\n  \
zklab pcap leader -o leader.pcapng --count 1000\n  \
zklab pcap n1 -o - | tcpdump -n -r -")]
pub struct PcapArgs {
    /// Only packets from and to these nodes: n1 n2 …, or roles such as leader
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Write here; `-` is stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// End after this time
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub for_: Option<Duration>,
    /// End after so many packets
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}
