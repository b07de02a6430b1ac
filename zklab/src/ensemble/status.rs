//! The state of an ensemble as it is now: every node is asked, nothing is remembered.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use zkd::ids::Zxid;

use super::faults::Fault;
use super::{Ensemble, View};
use crate::clock::now_us;
use crate::event::{FaultKind, HexZxid, Role};
use crate::id::NodeId;
use crate::node::Membership;
use crate::probe::{self, Answer, Digest};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_millis(1000);

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers clients.
    Serving,
    /// It runs, but has no leader.
    Looking,
    /// It runs, but does not answer.
    Silent,
    /// It is stopped by a signal.
    Paused,
    /// It has no process.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Serving => "serving",
            Self::Looking => "looking",
            Self::Silent => "silent",
            Self::Paused => "paused",
            Self::Down => "down",
        })
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub id: NodeId,
    /// What it does.
    pub state: State,
    /// Its role, if it serves.
    pub role: Option<Role>,
    /// Has it a vote?
    pub membership: Membership,
    /// Its epoch.
    pub epoch: Option<i64>,
    /// Its last processed zxid.
    pub zxid: Option<HexZxid>,
    /// How many txns it is behind the leader.
    pub lag: Option<i64>,
    /// Its client connections.
    pub sessions: Option<u64>,
    /// The followers in sync with it, if it leads.
    pub synced_followers: Option<u64>,
    /// How long its process runs, in milliseconds.
    pub up_ms: Option<u64>,
    /// Its process.
    pub pid: Option<u32>,
    /// Its resident memory in bytes.
    pub rss: Option<u64>,
    /// Where clients reach it.
    pub addr: String,
    /// Digest of its tree.
    pub digest: Option<Digest>,
    /// Its version.
    pub version: Option<String>,
    /// 99th percentile of its log syncs, in milliseconds.
    pub fsync_p99_ms: Option<f64>,
    /// The faults that stand on it, each in a few words and with its id.
    #[serde(default)]
    pub faults: Vec<String>,
    /// What else there is to say.
    pub note: Option<String>,
}

impl NodeStatus {
    /// It leads, or stands alone.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role.is_some_and(Role::leads)
    }
}

impl Status {
    /// What to do about nodes that do not serve, if there is something.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let in_state = |state| {
            let nodes = self.nodes.iter().filter(move |node| node.state == state);
            nodes
                .map(|node| node.id.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let down = in_state(State::Down);
        let paused = in_state(State::Paused);
        let start = format!("`zklab start {down}` starts what is down");
        let resume = format!("`zklab resume {paused}` lets what is paused go on");
        match (down.is_empty(), paused.is_empty()) {
            (true, true) => None,
            (false, true) => Some(start),
            (true, false) => Some(resume),
            (false, false) => Some(format!("{start}, {resume}")),
        }
    }
}

/// Are the trees equal?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestStatus {
    /// The zxid at which they were compared.
    pub zxid: HexZxid,
    /// Whether all of `nodes` have the same.
    pub equal: bool,
    /// The digest, if they are equal.
    pub value: Option<String>,
    /// The nodes that were at this zxid.
    pub nodes: Vec<NodeId>,
}

/// The whole ensemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this format, 1.
    pub v: u32,
    /// `status`.
    pub cmd: String,
    /// The lab.
    pub lab: String,
    /// Its network.
    pub net: String,
    /// What it runs.
    pub server: String,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Is there a leader that serves with a quorum?
    pub quorum: bool,
    /// Voters that serve.
    pub have: usize,
    /// Voters needed for a quorum.
    pub need: usize,
    /// All voters.
    pub voters: usize,
    /// The leader, or the one node.
    pub leader: Option<NodeId>,
    /// The leader's epoch.
    pub epoch: Option<i64>,
    /// The comparison of the trees, where the servers tell digests.
    pub digest: Option<DigestStatus>,
    /// How long the lab is up, in milliseconds.
    pub up_ms: u64,
    /// The faults that stand.
    #[serde(default)]
    pub faults: Vec<FaultStatus>,
}

/// A fault that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Its name, which `heal` takes.
    pub id: String,
    /// Its kind.
    pub what: FaultKind,
    /// What it is.
    pub fault: String,
    /// The nodes it is about.
    pub nodes: Vec<NodeId>,
    /// The directed links it is on.
    pub links: Vec<String>,
    /// How long it stands, in milliseconds.
    pub since_ms: u64,
}

impl From<&Fault> for FaultStatus {
    fn from(fault: &Fault) -> Self {
        Self {
            id: fault.id.clone(),
            what: fault.what,
            fault: fault.fault.clone(),
            nodes: fault.nodes.clone(),
            links: fault.links.clone(),
            since_ms: now_us().saturating_sub(fault.at_us) / 1000,
        }
    }
}

/// Asks every node.
pub async fn probe(lab: &Ensemble) -> Status {
    let mut asked = JoinSet::new();
    for (index, (id, view)) in lab.views().into_iter().enumerate() {
        let address = lab.net.client(id);
        asked.spawn(async move {
            let stopped = view.process.is_some_and(|process| process.is_stopped());
            let answer = if view.process.is_some() && !stopped {
                probe::ask(address, PATIENCE).await
            } else {
                None
            };
            (index, id, view, stopped, answer)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(index, ..)| *index);
    let mut nodes: Vec<NodeStatus> = answers
        .into_iter()
        .map(|(_, id, view, stopped, answer)| node_status(lab, id, &view, stopped, answer))
        .collect();
    let leader = mark_leader(&mut nodes);
    fill_lag(&mut nodes, leader);
    let leader = nodes.iter().find(|node| Some(node.id) == leader);
    let have = nodes
        .iter()
        .filter(|n| n.state == State::Serving && n.membership == Membership::Voter)
        .filter(|n| !n.leads() || Some(n.id) == leader.map(|leader| leader.id))
        .count();
    let need = lab.quorum_size();
    Status {
        v: 1,
        cmd: "status".to_owned(),
        lab: lab.spec.name.clone(),
        net: lab.net.kind().to_string(),
        server: server_name(lab, &nodes),
        quorum: leader.is_some() && have >= need,
        have,
        need,
        voters: lab.voters().len(),
        leader: leader.map(|node| node.id),
        epoch: leader.and_then(|node| node.epoch),
        digest: compare_digests(&nodes),
        up_ms: now_us().saturating_sub(lab.start_us) / 1000,
        faults: lab.standing().iter().map(FaultStatus::from).collect(),
        nodes,
    }
}

/// What the lab runs, with its version: `zkd 0.1.0`; of a mixed one, each once.
#[must_use]
pub fn server_name(lab: &Ensemble, nodes: &[NodeStatus]) -> String {
    let mut names: Vec<String> = Vec::new();
    for node in nodes {
        let server = lab.node(node.id).server;
        let name = match &node.version {
            Some(version) => format!("{} {version}", server.name()),
            None => server.name().to_owned(),
        };
        let known = names.iter().any(|other| other.starts_with(&name));
        if !known {
            // A node that is down cannot tell its version; a sister that can does it for both.
            names.retain(|other| !name.starts_with(other.as_str()));
            names.push(name);
        }
    }
    names.join(" + ")
}

fn node_status(
    lab: &Ensemble,
    id: NodeId,
    view: &View,
    stopped: bool,
    answer: Option<Answer>,
) -> NodeStatus {
    let state = match (&view.process, stopped, &answer) {
        (None, ..) => State::Down,
        (Some(_), true, _) => State::Paused,
        (Some(_), false, None) => State::Silent,
        (Some(_), false, Some(a)) if a.role == Role::Looking => State::Looking,
        (Some(_), false, Some(_)) => State::Serving,
    };
    let answer = answer.unwrap_or(Answer {
        role: Role::Looking,
        zxid: None,
        epoch: None,
        connections: None,
        synced_followers: None,
        digest: None,
        znodes: None,
        version: None,
        fsync_p99_ms: None,
    });
    let mut faults = lab.standing();
    faults.retain(|fault| fault.nodes.contains(&id));
    NodeStatus {
        id,
        state,
        role: (state == State::Serving).then_some(answer.role),
        membership: lab.node(id).membership,
        epoch: answer.epoch,
        zxid: answer.zxid,
        lag: None,
        sessions: answer.connections,
        synced_followers: answer.synced_followers,
        up_ms: view
            .process
            .map(|process| now_us().saturating_sub(process.started_us) / 1000),
        pid: view.process.map(|process| process.pid()),
        rss: view.process.map(|process| process.resident_bytes()),
        addr: lab.net.client(id).to_string(),
        digest: answer.digest,
        // zkd answers with the version of Apache ZooKeeper whose behaviour it has; its own comes first.
        version: view.version.clone().or(answer.version),
        fsync_p99_ms: answer.fsync_p99_ms,
        note: note(view, &faults),
        faults: faults.iter().map(Fault::shown).collect(),
    }
}

/// For a node without a process: how it ended and when, unless a fault says that already.
fn note(view: &View, faults: &[Fault]) -> Option<String> {
    if view.process.is_some() || faults.iter().any(|fault| fault.what.ends_processes()) {
        return None;
    }
    let Some(end) = view.end else {
        return Some("not started".to_owned());
    };
    let seconds = now_us().saturating_sub(end.at_us) / 1_000_000;
    let how = match (end.expected, end.how.code) {
        (true, Some(0)) => "stopped".to_owned(),
        (true, Some(code)) => format!("stopped (exit code {code})"),
        (true, None) => format!("killed ({})", end.how),
        (false, _) => format!("died on its own ({})", end.how),
    };
    Some(format!("{how} {seconds} s ago"))
}

/// The leader: of several that believe they lead, that of the highest epoch. The others get a note.
fn mark_leader(nodes: &mut [NodeStatus]) -> Option<NodeId> {
    let leader = nodes
        .iter()
        .filter(|node| node.leads())
        .max_by_key(|node| node.epoch)
        .map(|node| node.id);
    for node in nodes.iter_mut() {
        if node.leads() && Some(node.id) != leader {
            node.note = Some("believes it leads, in an old epoch".to_owned());
        }
    }
    leader
}

/// The lag of every node behind the leader, where it is a number of txns: within one epoch.
fn fill_lag(nodes: &mut [NodeStatus], leader: Option<NodeId>) {
    let newest = nodes
        .iter()
        .find(|node| Some(node.id) == leader)
        .and_then(|node| node.zxid);
    let Some(newest) = newest.map(|zxid| Zxid(zxid.0)) else {
        return;
    };
    for node in nodes.iter_mut().filter(|node| !node.leads()) {
        node.lag = node
            .zxid
            .map(|zxid| Zxid(zxid.0))
            .filter(|zxid| zxid.epoch() == newest.epoch())
            // The nodes are asked one after another: a follower asked later may have moved on.
            .map(|zxid| (i64::from(newest.counter()) - i64::from(zxid.counter())).max(0));
    }
}

/// Compares at the zxid that most nodes are at.
fn compare_digests(nodes: &[NodeStatus]) -> Option<DigestStatus> {
    let known: Vec<(NodeId, &Digest)> = nodes
        .iter()
        .filter_map(|node| Some((node.id, node.digest.as_ref()?)))
        .collect();
    let at = |zxid: HexZxid| known.iter().filter(move |(_, digest)| digest.zxid == zxid);
    let (zxid, first) = known
        .iter()
        .map(|(_, digest)| (digest.zxid, *digest))
        .max_by_key(|(zxid, _)| (at(*zxid).count(), *zxid))?;
    let equal = at(zxid).all(|(_, digest)| digest.value == first.value);
    Some(DigestStatus {
        zxid,
        equal,
        value: equal.then(|| first.value.clone()),
        nodes: at(zxid).map(|(id, _)| *id).collect(),
    })
}
