//! Module `quorum` of `zookeeper.jute`: what travels between learner and leader.

use bytes::Bytes;

use super::{data::Id, record};
use crate::ids::Zxid;

record! {
    /// A packet of the quorum port. It has no outer framing: the next one begins where it ends.
    pub struct QuorumPacket {
        /// One of [`packet`].
        pub kind: i32,
        /// What it is about, or -1.
        pub zxid: Zxid,
        /// The payload; null and empty differ.
        pub data: Option<Bytes>,
        /// The client's identities in a REQUEST, null elsewhere.
        pub authinfo: Option<Vec<Id>>,
    }

    /// The payload of FOLLOWERINFO and OBSERVERINFO.
    #[derive(Copy)]
    pub struct LearnerInfo {
        /// The learner's `myid`.
        pub sid: i64,
        /// 0x10000.
        pub protocol_version: i32,
        /// Version of the learner's configuration.
        pub config_version: i64,
    }
}

impl QuorumPacket {
    /// A packet without payload and identities.
    #[must_use]
    pub fn bare(kind: i32, zxid: Zxid) -> Self {
        Self {
            kind,
            zxid,
            data: None,
            authinfo: None,
        }
    }

    /// A packet with a payload.
    #[must_use]
    pub fn with(kind: i32, zxid: Zxid, data: impl Into<Bytes>) -> Self {
        Self {
            kind,
            zxid,
            data: Some(data.into()),
            authinfo: None,
        }
    }
}

/// The only protocol version spoken (`0x10000`), in FOLLOWERINFO and LEADERINFO.
pub const PROTOCOL_VERSION: i32 = 0x1_0000;

/// Packet types (constants of `Leader.java`).
pub mod packet {
    /// Learner to leader: a client's write or sync.
    pub const REQUEST: i32 = 1;
    /// Leader to follower: a txn to log.
    pub const PROPOSAL: i32 = 2;
    /// Follower to leader: logged and synced.
    pub const ACK: i32 = 3;
    /// Leader to follower: apply.
    pub const COMMIT: i32 = 4;
    /// Heartbeat, both ways.
    pub const PING: i32 = 5;
    /// Is this session alive?
    pub const REVALIDATE: i32 = 6;
    /// Answer to a client's sync.
    pub const SYNC: i32 = 7;
    /// Leader to observer: a committed txn.
    pub const INFORM: i32 = 8;
    /// COMMIT of a reconfiguration.
    pub const COMMITANDACTIVATE: i32 = 9;
    /// End of the synchronization data.
    pub const NEWLEADER: i32 = 10;
    /// First packet of a participant.
    pub const FOLLOWERINFO: i32 = 11;
    /// The learner may serve.
    pub const UPTODATE: i32 = 12;
    /// Synchronization by missing txns.
    pub const DIFF: i32 = 13;
    /// Synchronization by cutting off txns.
    pub const TRUNC: i32 = 14;
    /// Synchronization by a whole snapshot.
    pub const SNAP: i32 = 15;
    /// First packet of an observer.
    pub const OBSERVERINFO: i32 = 16;
    /// The new epoch.
    pub const LEADERINFO: i32 = 17;
    /// The learner accepts the new epoch.
    pub const ACKEPOCH: i32 = 18;
    /// INFORM of a reconfiguration.
    pub const INFORMANDACTIVATE: i32 = 19;

    /// The packet's name, for logs and reports.
    #[must_use]
    pub fn name(kind: i32) -> &'static str {
        match kind {
            REQUEST => "REQUEST",
            PROPOSAL => "PROPOSAL",
            ACK => "ACK",
            COMMIT => "COMMIT",
            PING => "PING",
            REVALIDATE => "REVALIDATE",
            SYNC => "SYNC",
            INFORM => "INFORM",
            COMMITANDACTIVATE => "COMMITANDACTIVATE",
            NEWLEADER => "NEWLEADER",
            FOLLOWERINFO => "FOLLOWERINFO",
            UPTODATE => "UPTODATE",
            DIFF => "DIFF",
            TRUNC => "TRUNC",
            SNAP => "SNAP",
            OBSERVERINFO => "OBSERVERINFO",
            LEADERINFO => "LEADERINFO",
            ACKEPOCH => "ACKEPOCH",
            INFORMANDACTIVATE => "INFORMANDACTIVATE",
            _ => "unknown",
        }
    }
}
