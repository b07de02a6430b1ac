//! What happens in a lab, as one stream: the same events feed the terminal, `zklab events`, and every
//! judgement, so that each claim can be traced to what it rests on.
//!
//! One JSON object a line: `{"v":1,"seq":412,"t_us":4118233,"lab":"default","node":"n3","src":"zkd",
//! "kind":"election.started",…}`; `t_us` counts from the start of the lab. Names are stable, fields
//! are only ever added. Zxids are hexadecimal strings, because JSON numbers end at 53 bits.

use serde::{Deserialize, Serialize};
use zkd::event::{PeerEvent, ServerState, SyncMode};
use zkd::ids::Zxid;

use crate::id::{Membership, NodeId};

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The server's own event feed.
    Zkd,
    /// The process: spawned, signalled, reaped.
    Proc,
    /// A question asked at the client port.
    Probe,
    /// What the servers were seen to say to each other, on the wire.
    Wire,
    /// A client of the lab.
    Client,
    /// A fault put in or taken out.
    Fault,
    /// The machine the lab runs on.
    Host,
    /// Derived by the lab from other events.
    Lab,
}

/// What a server is in its ensemble, in the words operators use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// In an election.
    Looking,
    /// Follows a leader.
    Follower,
    /// Leads.
    Leader,
    /// Follows without a vote.
    Observer,
    /// Serves alone.
    Standalone,
}

impl Role {
    /// Is it the one that orders writes?
    #[must_use]
    pub fn leads(self) -> bool {
        matches!(self, Self::Leader | Self::Standalone)
    }
}

impl From<ServerState> for Role {
    fn from(state: ServerState) -> Self {
        match state {
            ServerState::Looking => Self::Looking,
            ServerState::Following => Self::Follower,
            ServerState::Leading => Self::Leader,
            ServerState::Observing => Self::Observer,
            ServerState::Standalone => Self::Standalone,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Looking => "looking",
            Self::Follower => "follower",
            Self::Leader => "leader",
            Self::Observer => "observer",
            Self::Standalone => "standalone",
        })
    }
}

/// A zxid as it stands in JSON: `"0x100000002"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HexZxid(pub i64);

impl std::fmt::Display for HexZxid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Zxid(self.0).fmt(f)
    }
}

impl Serialize for HexZxid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexZxid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no hexadecimal zxid")))
    }
}

impl HexZxid {
    /// Reads `0x…`, as ZooKeeper writes it (a negative one as its two's complement).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix("0x")?;
        u64::from_str_radix(digits, 16)
            .ok()
            .map(|bits| Self(bits.cast_signed()))
    }

    /// Those that a sentence names, in its order.
    pub fn all_in(text: &str) -> impl Iterator<Item = Self> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter_map(Self::parse)
    }
}

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// Nodes do not see each other.
    Partition,
    /// A link is slow or loses packets.
    Link,
    /// A process was killed, or a whole host.
    Kill,
    /// A process is stopped in its tracks.
    Pause,
    /// A process was ended gently.
    Stop,
    /// A process is started again.
    Restart,
    /// Messages of the protocol are lost.
    Drop,
    /// Messages of the protocol are held.
    Hold,
    /// A disk fails or is slow.
    Disk,
    /// A clock is wrong.
    Clock,
}

impl FaultKind {
    /// What the ids of such faults begin with.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Partition => 'f',
            Self::Link => 'l',
            Self::Kill => 'k',
            Self::Pause => 'p',
            Self::Stop => 's',
            Self::Restart => 'r',
            Self::Drop | Self::Hold => 'h',
            Self::Disk => 'd',
            Self::Clock => 'c',
        }
    }

    /// It is over as soon as the node has a process again.
    #[must_use]
    pub fn ends_processes(self) -> bool {
        matches!(self, Self::Kill | Self::Stop | Self::Restart)
    }

    /// It is about links.
    #[must_use]
    pub fn is_of_network(self) -> bool {
        matches!(self, Self::Partition | Self::Link | Self::Drop | Self::Hold)
    }

    /// It is about processes.
    #[must_use]
    pub fn is_of_process(self) -> bool {
        self.ends_processes() || self == Self::Pause
    }
}

/// What an event tells of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultNote {
    /// Its name, unique in its lab: `f1`.
    pub id: String,
    /// What it is, as people say it.
    pub fault: String,
    /// Its kind.
    pub what: FaultKind,
    /// The nodes it is about.
    #[serde(default)]
    pub nodes: Vec<NodeId>,
    /// The directed links it is on: `n1>n2`.
    #[serde(default)]
    pub links: Vec<String>,
    /// When it was in force (or out of it) on all of them, in microseconds since the lab was started.
    pub effective_us: u64,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageFate {
    /// Its receiver has it.
    Delivered,
    /// A fault holds it.
    Held,
    /// A fault keeps it from its receiver for good.
    Dropped,
}

/// What an event tells of a message on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireNote {
    /// Its sender.
    pub from: NodeId,
    /// Its receiver.
    pub to: NodeId,
    /// Its name: `ACKEPOCH`, `VOTE`.
    pub msg: String,
    /// What it is about; absent where a message has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zxid: Option<HexZxid>,
    /// The epoch it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// VOTE: the round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<i64>,
    /// VOTE: for whom.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub vote: Option<String>,
    /// VOTE: the state of its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Role>,
    /// Its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What became of it.
    pub fate: MessageFate,
}

/// The words for the kinds of [`LabEventKind`].
pub const KINDS: [&str; 31] = [
    "node.added",
    "node.removed",
    "node.spawned",
    "node.starting",
    "node.listening",
    "node.recovered",
    "node.role",
    "node.serving",
    "node.not_serving",
    "node.stopping",
    "node.stepped_down",
    "node.exited",
    "election.started",
    "election.vote",
    "election.ended",
    "epoch.proposed",
    "epoch.acked",
    "epoch.bumped",
    "epoch.first_commit",
    "sync",
    "leader.elected",
    "learner.uptodate",
    "wire.message",
    "quorum.lost",
    "quorum.regained",
    "client.write_acked",
    "net.ready",
    "fault.on",
    "fault.off",
    "fault.flip",
    "host.stall",
];

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum LabEventKind {
    /// The node came into the lab.
    #[serde(rename = "node.added")]
    NodeAdded {
        /// Has it a vote?
        membership: Membership,
    },
    /// The node went for good.
    #[serde(rename = "node.removed")]
    NodeRemoved {
        /// Had it a vote?
        membership: Membership,
    },
    /// The process was started.
    #[serde(rename = "node.spawned")]
    NodeSpawned {
        /// Its process id.
        pid: u32,
    },
    /// The server read its configuration.
    #[serde(rename = "node.starting")]
    NodeStarting {
        /// Its version.
        version: String,
    },
    /// A port of the server is open.
    #[serde(rename = "node.listening")]
    NodeListening {
        /// `client`, `quorum` or `election`.
        port: String,
        /// Where.
        address: String,
    },
    /// The server loaded its database.
    #[serde(rename = "node.recovered")]
    NodeRecovered {
        /// The last txn on its disk.
        zxid: HexZxid,
        /// Znodes in its tree.
        znodes: u64,
        /// How long it took.
        took_us: u64,
    },
    /// The server entered a role (an election is its own kind).
    #[serde(rename = "node.role")]
    NodeRole {
        /// Which.
        role: Role,
        /// Why.
        reason: String,
    },
    /// The server answers clients.
    #[serde(rename = "node.serving")]
    NodeServing {
        /// As what.
        role: Role,
        /// In which epoch.
        epoch: i64,
        /// Its last processed zxid.
        zxid: HexZxid,
    },
    /// The server no longer answers clients.
    #[serde(rename = "node.not_serving")]
    NodeNotServing {
        /// Why.
        why: String,
    },
    /// The server is about to end.
    #[serde(rename = "node.stopping")]
    NodeStopping {
        /// Why.
        why: String,
        /// With this exit code.
        code: i32,
    },
    /// The process is gone.
    #[serde(rename = "node.exited")]
    NodeExited {
        /// Its exit code, if it ended by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Did the lab want that?
        expected: bool,
    },
    /// The server entered an election.
    #[serde(rename = "election.started")]
    ElectionStarted {
        /// Why.
        reason: String,
    },
    /// The server votes, or changes its vote.
    #[serde(rename = "election.vote")]
    ElectionVote {
        /// The round (logical clock).
        round: i64,
        /// Whom it votes for.
        #[serde(rename = "for")]
        vote: String,
        /// The zxid in the vote.
        zxid: HexZxid,
        /// The epoch in the vote.
        epoch: i64,
    },
    /// The election is over for this server.
    #[serde(rename = "election.ended")]
    ElectionEnded {
        /// Whom it takes as leader.
        winner: String,
        /// The round.
        round: i64,
        /// Notifications it received.
        votes: u64,
        /// Every voter that can be reached agreed, so nothing was waited for.
        early: bool,
    },
    /// A leader proposes an epoch, or a learner accepted the proposal.
    #[serde(rename = "epoch.proposed")]
    EpochProposed {
        /// The epoch.
        epoch: i64,
    },
    /// A quorum accepted the epoch (leader), or it is the current one now (learner).
    #[serde(rename = "epoch.acked")]
    EpochAcked {
        /// The epoch.
        epoch: i64,
    },
    /// A learner is brought up to date.
    #[serde(rename = "sync")]
    Sync {
        /// The learner.
        to: String,
        /// How.
        mode: SyncMode,
        /// From its last zxid.
        from_zxid: HexZxid,
        /// To this one.
        to_zxid: HexZxid,
        /// Txns sent for that; known from the wire.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        txns: Option<u64>,
        /// Bytes of the snapshot; known from the wire, of a SNAP.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// From the packet that names the mode to NEWLEADER, in microseconds; known from the wire.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took_us: Option<u64>,
    },
    /// A learner was told that it is up to date and may serve.
    #[serde(rename = "learner.uptodate")]
    UpToDate {
        /// By this leader.
        leader: NodeId,
        /// In this epoch.
        epoch: i64,
    },
    /// A message on the wire.
    #[serde(rename = "wire.message")]
    WireMessage(WireNote),
    /// A quorum acknowledged the new leader.
    #[serde(rename = "leader.elected")]
    LeaderElected {
        /// Its epoch.
        epoch: i64,
    },
    /// The first txn of an epoch was committed here.
    #[serde(rename = "epoch.first_commit")]
    FirstCommit {
        /// Its zxid.
        zxid: HexZxid,
    },
    /// The server left its role.
    #[serde(rename = "node.stepped_down")]
    SteppedDown {
        /// The role it left.
        role: Role,
        /// Why.
        why: String,
    },
    /// The epoch of the ensemble rose.
    #[serde(rename = "epoch.bumped")]
    EpochBumped {
        /// From.
        from: i64,
        /// To.
        to: i64,
    },
    /// Too few voters serve to make a quorum.
    #[serde(rename = "quorum.lost")]
    QuorumLost {
        /// Serving voters.
        have: usize,
        /// Voters needed.
        need: usize,
    },
    /// A quorum of voters serves.
    #[serde(rename = "quorum.regained")]
    QuorumRegained {
        /// Serving voters.
        have: usize,
        /// Voters needed.
        need: usize,
    },
    /// A write of the lab's own client was acknowledged after a time without any.
    #[serde(rename = "client.write_acked")]
    WriteAcked {
        /// Its zxid.
        zxid: HexZxid,
    },
    /// The nodes' namespaces and links were made.
    #[serde(rename = "net.ready")]
    NetReady {
        /// The kind of network.
        net: String,
        /// How long it took.
        took_us: u64,
    },
    /// A fault was put in.
    #[serde(rename = "fault.on")]
    FaultOn(FaultNote),
    /// A fault was taken out.
    #[serde(rename = "fault.off")]
    FaultOff(FaultNote),
    /// A fault that comes and goes did so.
    #[serde(rename = "fault.flip")]
    FaultFlipped {
        /// Which.
        id: String,
        /// Is it in force from now on?
        on: bool,
    },
    /// The machine held everything up for a while.
    #[serde(rename = "host.stall")]
    HostStall {
        /// How long.
        ms: u64,
    },
}

impl LabEventKind {
    /// The lab's word for what a server tells.
    #[must_use]
    pub fn of_server(event: PeerEvent) -> Self {
        match event {
            PeerEvent::Starting { version, .. } => Self::NodeStarting { version },
            PeerEvent::Listening { port, address } => Self::NodeListening { port, address },
            PeerEvent::Recovered {
                zxid,
                znodes,
                took_us,
            } => Self::NodeRecovered {
                zxid: HexZxid(zxid),
                znodes,
                took_us,
            },
            PeerEvent::State { state, reason } => Self::of_state(state, reason),
            PeerEvent::Vote {
                round,
                leader,
                zxid,
                epoch,
            } => Self::ElectionVote {
                round,
                vote: node_name(leader),
                zxid: HexZxid(zxid),
                epoch,
            },
            PeerEvent::Elected {
                round,
                leader,
                votes,
                early,
            } => Self::ElectionEnded {
                winner: node_name(leader),
                round,
                votes,
                early,
            },
            PeerEvent::EpochProposed { epoch } => Self::EpochProposed { epoch },
            PeerEvent::EpochEstablished { epoch } => Self::EpochAcked { epoch },
            PeerEvent::Sync {
                learner,
                mode,
                from,
                to,
            } => Self::Sync {
                to: node_name(learner),
                mode,
                from_zxid: HexZxid(from),
                to_zxid: HexZxid(to),
                txns: None,
                bytes: None,
                took_us: None,
            },
            PeerEvent::Established { epoch } => Self::LeaderElected { epoch },
            PeerEvent::Serving { state, epoch, zxid } => Self::NodeServing {
                role: state.into(),
                epoch,
                zxid: HexZxid(zxid),
            },
            PeerEvent::FirstCommit { zxid } => Self::FirstCommit {
                zxid: HexZxid(zxid),
            },
            PeerEvent::SteppedDown { state, reason } => Self::SteppedDown {
                role: state.into(),
                why: reason,
            },
            PeerEvent::NotServing { reason } => Self::NodeNotServing { why: reason },
            PeerEvent::Stopping { reason, code } => Self::NodeStopping { why: reason, code },
        }
    }

    /// An election is its own kind; every other state is a role.
    fn of_state(state: ServerState, reason: String) -> Self {
        match Role::from(state) {
            Role::Looking => Self::ElectionStarted { reason },
            role => Self::NodeRole { role, reason },
        }
    }
}

/// The lab's name of a server id: `n3`.
#[must_use]
pub fn node_name(sid: i64) -> String {
    if sid < 0 {
        "nobody".to_owned()
    } else {
        format!("n{sid}")
    }
}

/// An event of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabEvent {
    /// Version of this format, 1.
    pub v: u32,
    /// Its place in the stream, from 1.
    pub seq: u64,
    /// When, in microseconds since the lab was started.
    pub t_us: u64,
    /// The lab.
    pub lab: String,
    /// The node, unless it is about the whole lab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Who says it.
    pub src: Source,
    /// What.
    #[serde(flatten)]
    pub kind: LabEventKind,
}

impl LabEvent {
    /// Its kind as it stands in the stream, `election.vote` for example.
    #[must_use]
    pub fn kind_name(&self) -> String {
        match serde_json::to_value(&self.kind) {
            Ok(value) => value["kind"].as_str().unwrap_or_default().to_owned(),
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_and_comes_back_equal() {
        let event = LabEvent {
            v: 1,
            seq: 7,
            t_us: 4_118_233,
            lab: "default".to_owned(),
            node: Some(NodeId(3)),
            src: Source::Zkd,
            kind: LabEventKind::of_server(PeerEvent::Vote {
                round: 2,
                leader: 5,
                zxid: 0x1_0000_0002,
                epoch: 1,
            }),
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"seq":7,"t_us":4118233,"lab":"default","node":"n3","src":"zkd","kind":"election.vote","round":2,"for":"n5","zxid":"0x100000002","epoch":1}"#
        );
        assert_eq!(serde_json::from_str::<LabEvent>(&text).unwrap(), event);
        assert_eq!(event.kind_name(), "election.vote");
    }
}
