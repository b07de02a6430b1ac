//! `pcap`: what passes the emulator, written down.

use serde::{Deserialize, Serialize};

use crate::failure::Exit;

/// Which packets are wanted. The answer is a pcapng file, in pieces that are whole blocks each, and then a
/// [`PcapReport`]. It ends early when the one who asks shuts its writing half.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PcapRequest {
    /// Only those from and to these nodes, as typed; none is all.
    pub nodes: Vec<String>,
    /// End after this time.
    pub for_ms: Option<u64>,
    /// End after so many packets.
    pub count: Option<u64>,
}

/// What was written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcapReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `pcap`.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// Packets written.
    pub packets: u64,
    /// Of those, packets with a comment: lost, held, withheld or made.
    pub marked: u64,
    /// Bytes written, those of the format included.
    pub bytes: u64,
    /// Packets that passed and were left out, because more came than could be written.
    pub left_out: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// How the command ends.
    pub exit: Exit,
}
