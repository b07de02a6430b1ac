//! What the servers say to each other, read off the packets that the emulator forwards: votes on the
//! election port, and the handshake, synchronization and broadcast of Zab on the quorum port.
//!
//! Nothing here needs the servers' help, so it is the same for zkd and for Apache ZooKeeper. All parts but
//! [`tap`] are machines without I/O: bytes in, [`Sighting`]s out. They hold bounded memory, and where
//! bytes are missing they find their way back or say that they gave up; they never hold up a packet. The
//! one exception is asked for: a [`Rule`] withholds a message and all that follows it on its connection in
//! its direction (see `gate`). Counterpart of what is read: `QuorumCnxManager`, `Learner`, `LearnerHandler`.

mod ballot;
mod decoder;
mod flow;
mod gate;
mod quorum;
mod rule;
mod scan;
mod segment;
mod snapshot;
mod stream;
mod tap;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use zkd::record::quorum::packet;

pub use self::rule::Rule;
pub use self::tap::TOLD_WITHIN;
pub(super) use self::tap::{Listening, Pass, Released, Tap};
use crate::failure::nearest;

/// The name of a message: a packet of the quorum port by its type, or a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A notification of the election port.
    Vote,
    /// A packet of the quorum port, one of [`packet`].
    Packet(i32),
}

impl Name {
    /// Every name there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let packets = packet::REQUEST..=packet::INFORMANDACTIVATE;
        std::iter::once(Self::Vote).chain(packets.map(Self::Packet))
    }

    /// As ZooKeeper's sources write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vote => "VOTE",
            Self::Packet(kind) => packet::name(kind),
        }
    }

    /// Does it belong to the flood of writes that an ensemble at work makes?
    #[must_use]
    pub fn is_of_broadcast(self) -> bool {
        use packet::{
            ACK, COMMIT, COMMITANDACTIVATE, INFORM, INFORMANDACTIVATE, PING, PROPOSAL, REQUEST,
            REVALIDATE, SYNC,
        };
        matches!(
            self,
            Self::Packet(
                REQUEST
                    | PROPOSAL
                    | ACK
                    | COMMIT
                    | PING
                    | REVALIDATE
                    | SYNC
                    | INFORM
                    | COMMITANDACTIVATE
                    | INFORMANDACTIVATE
            )
        )
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_uppercase();
        if let Some(name) = Self::all().find(|name| name.as_str() == upper) {
            return Ok(name);
        }
        let guess = nearest(&upper, Self::all().map(Self::as_str))
            .map(|word| format!("; did you mean {word}?"))
            .unwrap_or_default();
        let all: Vec<&str> = Self::all().map(Self::as_str).collect();
        Err(format!(
            "there is no message {text:?}{guess} (there are {})",
            all.join(" ")
        ))
    }
}

/// The state a server claims in a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// It looks for a leader.
    Looking,
    /// It follows the one it names.
    Following,
    /// It leads.
    Leading,
    /// It observes.
    Observing,
}

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// The sender's state.
    pub claim: Claim,
    /// The server id voted for; an observer's vote names none (`i64::MIN`).
    pub leader: i64,
    /// The last zxid of that server.
    pub zxid: i64,
    /// The round of the sender (`electionEpoch`).
    pub round: i64,
    /// The epoch of that server.
    pub epoch: i64,
}

/// How one direction of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its sender closed it.
    Fin,
    /// Its sender broke it off.
    Rst,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A vote.
    Vote(Ballot),
    /// A packet of the quorum port.
    Packet {
        /// Its type, one of [`packet`].
        kind: i32,
        /// What it is about.
        zxid: i64,
        /// What its payload begins with: the epoch of ACKEPOCH (4 bytes), the server id of FOLLOWERINFO and
        /// OBSERVERINFO (8 bytes); none elsewhere.
        number: Option<i64>,
    },
    /// The snapshot that followed a SNAP packet came to its end.
    SnapshotEnd,
    /// The sender opens a connection.
    Opened,
    /// The sender ended its direction of a connection.
    Closed(Ending),
    /// Some bytes were not seen; messages may be missing from here.
    Missed,
    /// The bytes make no sense (another protocol, encryption); nothing more is told of this direction.
    Unreadable(&'static str),
}

/// One thing seen on the way from a node to another, when its last byte was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When, by the system's monotonic clock.
    pub at_us: u64,
    /// The sender, by its place among the lab's nodes.
    pub from: usize,
    /// The receiver, likewise.
    pub to: usize,
    /// The sender is the one that connects to the other's election or quorum port.
    pub dials: bool,
    /// It is about the election port, not the quorum port.
    pub election: bool,
    /// What.
    pub what: What,
    /// Its bytes; 0 where there are none.
    pub bytes: u64,
    /// The rule that withholds it, if one does: its receiver does not get it.
    pub caught_by: Option<u32>,
}

impl Sighting {
    /// The name of the message, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        match self.what {
            What::Vote(_) => Some(Name::Vote),
            What::Packet { kind, .. } => Some(Name::Packet(kind)),
            _ => None,
        }
    }

    /// The zxid that the message is about, if it is about one.
    #[must_use]
    pub fn zxid(&self) -> Option<i64> {
        match self.what {
            What::Vote(ballot) => Some(ballot.zxid),
            What::Packet { zxid, .. } => Some(zxid),
            _ => None,
        }
    }
}
