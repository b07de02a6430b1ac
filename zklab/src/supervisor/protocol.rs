//! What the command line and the supervisor say to each other: one JSON object a line.
//!
//! The command line sends one [`Request`]; the supervisor answers any number of [`Frame::News`] and
//! [`Frame::Event`], then [`Frame::Done`] or [`Frame::Failed`]. Both ends are the same program, but not
//! always the same build (a lab may be older), so requests name what they want and unknown fields are
//! passed over.

mod members;
mod pcap;
mod seed;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::now_us;
use crate::disk::Watch;
use crate::event::{LabEvent, Role};
use crate::failure::{Context, Exit, Failure};
use crate::fault::{Clients, LinkChange, Profile, Style, Trace};
use crate::id::NodeId;
use crate::net::NetKind;
use crate::net::emulator::Traffic;
use crate::net::link::LinkFaults;
use crate::node::{Membership, ServerKind};
use crate::observe::clients::Tally;
use crate::observe::flow::{FlowMark, FlowNote, FlowScope};
use crate::observe::waterfall::Reelection;
use crate::supervisor::home::DataPlace;

pub use crate::supervisor::orders::{ClockRequest, DiskRequest};

use crate::event::HexZxid;

pub use self::members::{AddRequest, MemberReport, Synced};
pub use self::pcap::{PcapReport, PcapRequest};
pub use self::seed::HexSeed;

/// What the command line wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case")]
pub enum Request {
    /// Make the ensemble; the first request of every supervisor.
    Up(UpRequest),
    /// Ask every node.
    Status,
    /// Addresses and files.
    Info,
    /// Make the network bad, or good again.
    Network(NetworkRequest),
    /// Withhold messages that the servers send each other.
    Withhold(WithholdRequest),
    /// Tell of messages that the servers send each other, each as an event, until there were enough.
    Watch(MessageRequest),
    /// What the servers said of some writes.
    Flow(FlowRequest),
    /// The way into a node's namespaces.
    Door {
        /// Which, as typed.
        node: String,
    },
    /// Start nodes that are down.
    Start {
        /// Which, as typed.
        nodes: Vec<String>,
    },
    /// End nodes gently.
    Stop {
        /// Which, as typed.
        nodes: Vec<String>,
        /// Start them again after this time.
        #[serde(default)]
        for_ms: Option<u64>,
        /// Answer when they are started again and serve.
        #[serde(default)]
        wait: bool,
    },
    /// End nodes and start them again.
    Restart {
        /// Which, as typed.
        nodes: Vec<String>,
        /// One after another, the leader last, waiting for each.
        rolling: bool,
        /// With SIGKILL.
        hard: bool,
        /// With this server from now on.
        server: Option<ServerKind>,
    },
    /// Send a signal that ends nodes.
    Kill {
        /// Which, as typed.
        nodes: Vec<String>,
        /// The signal's number.
        signal: i32,
        /// Start them again after this time.
        restart_after_ms: Option<u64>,
        /// The power is cut: what was never synced is gone.
        #[serde(default)]
        lose_unsynced: bool,
        /// Of that, the txn logs keep a part that ends anywhere.
        #[serde(default)]
        torn: bool,
        /// As a process or as a host.
        #[serde(default)]
        death: Death,
        /// Answer when they are started again and serve.
        #[serde(default)]
        wait: bool,
    },
    /// Stop nodes in their tracks.
    Pause {
        /// Which, as typed.
        nodes: Vec<String>,
        /// Let them go on after this time.
        for_ms: Option<u64>,
        /// Answer when they have gone on and serve.
        wait: bool,
    },
    /// Let paused nodes go on.
    Resume {
        /// Which, as typed.
        nodes: Vec<String>,
    },
    /// Let disks be bad.
    Disk(DiskRequest),
    /// Set clocks wrong.
    Clock(ClockRequest),
    /// Kill the leader and watch.
    KillLeader(KillLeaderRequest),
    /// Make one more node.
    Add(AddRequest),
    /// Take a node out for good.
    Rm {
        /// Which, as typed.
        node: String,
    },
    /// Write down what passes the emulator.
    Pcap(PcapRequest),
    /// Events from the beginning, and then as they happen.
    Events {
        /// Do not end.
        follow: bool,
    },
    /// End the lab.
    Down {
        /// Leave the data.
        keep_data: bool,
    },
}

/// How a node dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Death {
    /// Its process is killed; the kernel tells its peers.
    #[default]
    Process,
    /// Its links are cut first, so its peers hear nothing.
    Host,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Host => "host",
        })
    }
}

/// A new lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpRequest {
    /// Its name.
    pub name: String,
    /// Voters.
    pub nodes: u8,
    /// Observers.
    pub observers: u8,
    /// What they run.
    pub server: ServerKind,
    /// What single nodes run instead.
    #[serde(default)]
    pub version_of: Vec<(NodeId, ServerKind)>,
    /// `tickTime`.
    pub tick_ms: u64,
    /// The network.
    pub net: NetKind,
    /// Where the data go.
    pub data: DataPlace,
    /// The first port of 127.0.0.1 at which the nodes are reached; none is wherever there is room.
    #[serde(default)]
    pub publish: Option<u16>,
    /// Fixes what is left to chance: the choices of the links.
    #[serde(default)]
    pub seed: u64,
    /// How long it may take.
    pub timeout_ms: u64,
    /// What is watched of the disks, so that the power can be cut, syncs can fail and disks can be full.
    #[serde(default)]
    pub disks: Watch,
    /// Start the servers one after another and tell what each does.
    pub one_by_one: bool,
    /// When the user asked, by the system's monotonic clock.
    pub asked_us: u64,
    /// End the lab when the one who asked for it hangs up or dies.
    #[serde(default)]
    pub lease: bool,
    /// Do not read what the servers say to each other.
    #[serde(default)]
    pub no_wire: bool,
    /// How the links are without any fault.
    #[serde(default)]
    pub profile: Option<Box<Profile>>,
}

impl UpRequest {
    /// A lab on loopback addresses with its data in memory, asked for now; everything else as the command line has
    /// it by default.
    #[must_use]
    pub fn new(name: String, nodes: u8, server: ServerKind) -> Self {
        Self {
            name,
            nodes,
            observers: 0,
            server,
            version_of: Vec::new(),
            tick_ms: 2000,
            net: NetKind::Loopback,
            data: DataPlace::Tmpfs,
            publish: None,
            seed: 0,
            timeout_ms: 10_000,
            one_by_one: false,
            asked_us: now_us(),
            lease: false,
            no_wire: false,
            disks: Watch::No,
            profile: None,
        }
    }
}

/// Writes whose way through the servers is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRequest {
    /// The writes.
    pub zxids: Vec<HexZxid>,
    /// Servers, and times of the lab at which is asked how far they were.
    pub marks: Vec<(NodeId, u64)>,
}

/// The way of some writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReport {
    /// From when on everything was seen; nothing where nothing is read off the wire.
    pub scope: Option<FlowScope>,
    /// How far servers were.
    pub marks: Vec<FlowMark>,
    /// What was said, by time.
    pub messages: Vec<FlowNote>,
}

/// Messages between servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRequest {
    /// The name: a packet of the quorum port (`ACKEPOCH`), or `VOTE`.
    pub message: String,
    /// From these nodes, as typed; none is all.
    #[serde(default)]
    pub from: Vec<String>,
    /// To these nodes, as typed; none is all.
    #[serde(default)]
    pub to: Vec<String>,
    /// Only with this zxid.
    #[serde(default)]
    pub zxid: Option<HexZxid>,
    /// From the n-th on its link on, counted from now; 1 is the first.
    #[serde(default = "first")]
    pub nth: u32,
    /// So many in all.
    #[serde(default = "first")]
    pub count: u32,
}

fn first() -> u32 {
    1
}

/// Messages that shall not arrive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WithholdRequest {
    /// Which.
    #[serde(flatten)]
    pub message: MessageRequest,
    /// They arrive when the fault is healed; else never.
    pub hold: bool,
    /// Heal it after this time.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Answer when all are caught, or with `for_ms` when it is healed and every voter that runs serves.
    #[serde(default)]
    pub wait: bool,
    /// How long to wait for them.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// What is to become of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum NetworkRequest {
    /// Change the faults of single links.
    LinkSet {
        /// Which, as typed.
        links: Vec<String>,
        /// What changes.
        change: LinkChange,
        /// What changes besides, where `change` says nothing of it.
        #[serde(default)]
        profile: Option<Box<Profile>>,
        /// How it changes over time, where `change` says nothing of it.
        #[serde(default)]
        trace: Option<Trace>,
        /// Undo it after this time.
        for_ms: Option<u64>,
        /// Answer when it is undone and every voter that runs serves.
        #[serde(default)]
        wait: bool,
    },
    /// Make single links clean.
    LinkReset {
        /// Which, as typed.
        links: Vec<String>,
    },
    /// The links and what they carried.
    LinkShow {
        /// Which, as typed; none is all.
        links: Vec<String>,
    },
    /// Put a partition in.
    Partition(PartitionRequest),
    /// Take faults out, those of processes too.
    Heal {
        /// `all`, `net`, `proc`, or one fault by its id; none is everything.
        what: Option<String>,
        /// Only what is on these nodes and between them, as typed.
        core: Vec<String>,
        /// Answer when every voter that runs serves.
        wait: bool,
    },
}

/// Who is to lose sight of whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartitionRequest {
    /// The kind and what belongs to it, as typed.
    pub words: Vec<String>,
    /// What happens on the links.
    pub style: Style,
    /// Whom it hits beside the servers.
    #[serde(default)]
    pub clients: Clients,
    /// `flap`: how long it takes on average from one cut to the next.
    #[serde(default)]
    pub period_ms: Option<u64>,
    /// Heal it after this time.
    pub for_ms: Option<u64>,
    /// Answer when it is healed and every voter that runs serves.
    pub wait: bool,
}

/// How leaders shall die.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KillLeaderRequest {
    /// How often.
    pub times: u32,
    /// Time between the recovery from one kill and the next kill.
    pub every_ms: u64,
    /// Start the dead node again after this time.
    pub restart_after_ms: Option<u64>,
    /// As a process or as a host.
    #[serde(default)]
    pub death: Death,
    /// Miss the budget if writes pause for longer.
    pub budget_ms: Option<u64>,
    /// Give up if there is no write for this long.
    pub timeout_ms: u64,
}

/// What the supervisor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// A part of the result, early.
    News(News),
    /// An event.
    Event(LabEvent),
    /// So many bytes follow behind the end of this line.
    Bytes(usize),
    /// It is done; this is the result.
    Done(Value),
    /// It is not.
    Failed(Failure),
}

/// A part of a result that people may want to see at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// What is being done now.
    Doing(String),
    /// `up --one-by-one`: a server was started, and this is where everybody stands.
    Step(Step),
    /// `kill-leader`: one re-election.
    Reelection(Box<Reelection>),
    /// `restart --rolling`: one node is back.
    Act(Act),
}

/// A server was started, and this is where everybody stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The server that was started.
    pub node: NodeId,
    /// The servers that run, with state and vote.
    pub running: Vec<StepNode>,
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// Its epoch.
    pub epoch: Option<i64>,
    /// Votes needed for a quorum.
    pub need: usize,
    /// How long it took until everybody stood so, in microseconds.
    pub took_us: u64,
}

/// One server in a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepNode {
    /// Its name.
    pub id: NodeId,
    /// Its state.
    pub state: Role,
    /// Whom it votes for.
    pub vote: Option<String>,
}

/// A lab is up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `up`.
    pub cmd: String,
    /// Its name.
    pub lab: String,
    /// What it runs: `zkd 0.1.0`.
    pub server: String,
    /// Its network.
    pub net: NetKind,
    /// Made by an ordinary user, in a user namespace.
    #[serde(default)]
    pub rootless: bool,
    /// What the choices of the links come from.
    #[serde(default)]
    pub seed: HexSeed,
    /// `tmpfs`, `disk` or a directory.
    pub data: String,
    /// Where the nodes' directories are.
    pub data_dir: PathBuf,
    /// From the command to everything serving, and a write acknowledged.
    pub serving_ms: f64,
    /// From the command to the first acknowledged write.
    pub first_write_ms: f64,
    /// What the time was used for; adds up to `serving_ms`.
    pub phases: Vec<(String, f64)>,
    /// The nodes.
    pub nodes: Vec<UpNode>,
    /// The leader, or the one node.
    pub leader: NodeId,
    /// Its epoch.
    pub epoch: i64,
    /// The zxid of the first write.
    pub first_write_zxid: HexZxid,
    /// The steps of `--one-by-one`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The longest time the machine held everything up meanwhile.
    pub host_stall_max_ms: f64,
}

/// A node of a lab that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpNode {
    /// Its name.
    pub id: NodeId,
    /// Its client address.
    pub addr: String,
    /// Its role.
    pub role: Option<Role>,
    /// Its process.
    pub pid: Option<u32>,
}

/// What was done to one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// The node.
    pub id: NodeId,
    /// What happened, in words: `serving after 44 ms`.
    pub text: String,
    /// How long it took, where that is meant.
    pub ms: Option<f64>,
    /// Was it the leader when it began?
    pub leader: bool,
    /// Its process, if it has one now.
    pub pid: Option<u32>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActReport {
    /// Version of this format, 1.
    pub v: u32,
    /// The command.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// What was done to each node.
    pub nodes: Vec<Act>,
    /// Does a quorum serve now?
    pub quorum: bool,
    /// Voters that run, and voters needed.
    pub have: usize,
    /// Voters needed for a quorum.
    pub need: usize,
    /// `restart --rolling`: the longest time without an acknowledged write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_paused_ms: Option<f64>,
    /// How the command ends.
    pub exit: Exit,
}

/// Leaders died.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KillReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `kill-leader`.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// One for each.
    pub kills: Vec<Reelection>,
    /// What the clients lived through in all.
    pub clients: Tally,
    /// Nodes on which the clients' znodes were read at the end.
    pub read_on: Vec<NodeId>,
    /// What no server may do, and one did; empty is good.
    pub findings: Vec<String>,
    /// Nodes that died on their own.
    pub died: Vec<NodeId>,
    /// `pass`, or what was missed.
    pub verdict: String,
    /// How the command ends.
    pub exit: Exit,
}

/// Links were made bad, or clean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultReport {
    /// Version of this format, 1.
    pub v: u32,
    /// The command.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// The name under which it can be healed, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What was asked for, with the nodes that were chosen.
    pub what: String,
    /// What was done to the links: `cut`, `jammed`, `slowed`, `set`.
    pub done: String,
    /// The links: `n1>n2`.
    pub links: Vec<String>,
    /// Of so many.
    pub of: usize,
    /// How long it took until it was in force on all of them, in microseconds.
    pub effective_us: u64,
    /// What came of the heal, if that was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healed: Option<HealReport>,
    /// How the command ends.
    pub exit: Exit,
}

/// A message that was withheld.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catch {
    /// When, in microseconds since the lab was started.
    pub t_us: u64,
    /// Its sender.
    pub from: NodeId,
    /// Its receiver, who does not get it.
    pub to: NodeId,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zxid: Option<HexZxid>,
    /// The epoch it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// Messages are withheld.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithholdReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `drop` or `hold`.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// The name under which it can be healed.
    pub id: String,
    /// What was asked for, with the nodes that were chosen.
    pub what: String,
    /// The links: `n1>n2`.
    pub links: Vec<String>,
    /// When it was in force, in microseconds since the lab was started.
    pub t_us: u64,
    /// How long that took, in microseconds.
    pub effective_us: u64,
    /// What was caught until now.
    pub caught: Vec<Catch>,
    /// What came of the heal, if that was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healed: Option<HealReport>,
    /// How the command ends.
    pub exit: Exit,
}

/// Faults were taken out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `heal`.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// Their ids; also of faults that stand on fewer links now.
    pub healed: Vec<String>,
    /// How long it took until it was in force on all links, in microseconds.
    pub effective_us: u64,
    /// When the first packet came over a link that had been blocked, after the heal.
    pub first_delivery_ms: Option<f64>,
    /// When every voter that runs (with `--core`: every node of it) served, after the heal; if that was
    /// waited for.
    pub serving_ms: Option<f64>,
    /// Voters that serve.
    pub serving: usize,
    /// All voters.
    pub voters: usize,
    /// How the command ends.
    pub exit: Exit,
}

/// Links as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinksReport {
    /// One for each.
    pub links: Vec<LinkReport>,
}

/// One directed link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `n1>n2`.
    pub link: String,
    /// What is wrong with it.
    #[serde(flatten)]
    pub faults: LinkFaults,
    /// What it has carried.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Version of this format, 1.
    pub v: u32,
    /// The lab.
    pub lab: String,
    /// The supervisor's process.
    pub supervisor_pid: u32,
    /// Its nodes.
    pub nodes: Vec<InfoNode>,
}

impl Info {
    /// Where the nodes answer clients.
    ///
    /// # Errors
    /// If the supervisor says something that is no address.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let addresses = self.nodes.iter().map(|node| node.addr.parse());
        addresses
            .collect::<Result<_, _>>()
            .doing(|| "the lab has an address that is none".to_owned())
    }
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InfoNode {
    /// Its name.
    pub id: NodeId,
    /// Its client address.
    pub addr: String,
    /// Has it a vote?
    pub membership: Membership,
    /// Does it run?
    pub running: bool,
    /// Did it say that it leads?
    pub leads: bool,
    /// Its log.
    pub log: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
}

/// A lab was ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownReport {
    /// Version of this format, 1.
    pub v: u32,
    /// `down`.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// How many nodes it had.
    pub nodes: usize,
    /// How long it took.
    pub ms: f64,
    /// Where the data were left.
    pub kept: Option<PathBuf>,
}
