//! What happened, taken together from events and samples: what every node was at every time, which faults stood
//! when, how the epoch rose, and how long the machine stood still.

use super::elections::{self, Election};
use super::folder::{Event, Folder, Sample};

/// What a node is, as the lanes show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneState {
    /// Leads and serves.
    Leader,
    /// Follows and serves.
    Follower,
    /// Follows without a vote, and serves.
    Observer,
    /// In an election.
    Looking,
    /// Has a role, and does not serve yet: recovers, takes over or is brought up to date.
    Joining,
    /// Stopped by a signal.
    Paused,
    /// Has no process.
    Down,
}

impl LaneState {
    /// All of them, as the legend lists them.
    pub const ALL: [Self; 7] = [
        Self::Leader,
        Self::Follower,
        Self::Observer,
        Self::Looking,
        Self::Joining,
        Self::Paused,
        Self::Down,
    ];

    /// Its word, which is also the name of its colour.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
            Self::Looking => "looking",
            Self::Joining => "joining",
            Self::Paused => "paused",
            Self::Down => "down",
        }
    }

    /// What it means, for those who do not know ZooKeeper.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Leader => "orders all writes",
            Self::Follower => "has a vote and serves clients",
            Self::Observer => "serves clients without a vote",
            Self::Looking => "has no leader and is voting for one",
            Self::Joining => "starts, takes over or is brought up to date; serves nobody yet",
            Self::Paused => "its process is stopped (SIGSTOP)",
            Self::Down => "has no process",
        }
    }

    /// What an event makes of its node, if it says so.
    #[must_use]
    pub fn of_event(event: &Event) -> Option<Self> {
        match event.kind.as_str() {
            "node.spawned" | "node.not_serving" | "node.stepped_down" => Some(Self::Joining),
            "election.started" => Some(Self::Looking),
            "node.role" if event.text("role") == "looking" => Some(Self::Looking),
            "node.role" => Some(Self::Joining),
            "node.serving" => Some(Self::of_role(&event.text("role"))),
            "leader.elected" if event.src == "wire" => Some(Self::Leader),
            "node.exited" => Some(Self::Down),
            _ => None,
        }
    }

    fn of_role(role: &str) -> Self {
        match role {
            "leader" | "standalone" => Self::Leader,
            "observer" => Self::Observer,
            "looking" => Self::Looking,
            _ => Self::Follower,
        }
    }
}

/// What a node was for a while. Times are in microseconds since the start of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From.
    pub from_us: u64,
    /// Until.
    pub to_us: u64,
    /// What.
    pub state: LaneState,
}

/// A node over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The node.
    pub node: String,
    /// What it was, in order and without holes from the first to the last.
    pub spans: Vec<Span>,
}

impl Lane {
    /// What it was then.
    #[must_use]
    pub fn at(&self, t_us: u64) -> Option<LaneState> {
        let span = self
            .spans
            .iter()
            .find(|span| span.from_us <= t_us && t_us < span.to_us);
        span.map(|span| span.state)
    }
}

/// A fault while it stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Its name, `f7`, or nothing.
    pub id: String,
    /// Its kind: partition, link, kill, pause …
    pub what: String,
    /// As it was asked for.
    pub text: String,
    /// The nodes it hit.
    pub nodes: Vec<String>,
    /// The links it hit: `n1>n2`.
    pub links: Vec<String>,
    /// From.
    pub from_us: u64,
    /// Until.
    pub to_us: u64,
    /// It was never taken out.
    pub stands: bool,
}

impl Fault {
    /// Of the event that tells of it, standing until `end_us`.
    #[must_use]
    pub fn of(event: &Event, end_us: u64) -> Self {
        let text = event.text("fault");
        let mut what = event.text("what");
        if what.is_empty() {
            what = kind_of(&text);
        }
        let mut nodes = event.names("nodes");
        if nodes.is_empty() && !event.node.is_empty() {
            nodes.push(event.node.clone());
        }
        let at_us = event.rest["effective_us"].as_u64();
        Self {
            id: event.text("id"),
            what,
            text,
            nodes,
            links: event.names("links"),
            // Faults are told when they stand; some know that better than their event.
            from_us: at_us
                .filter(|at| at.abs_diff(event.t_us) < 1_000_000)
                .unwrap_or(event.t_us),
            to_us: end_us.max(event.t_us),
            stands: true,
        }
    }

    /// Its id, where it has one, and what it is.
    #[must_use]
    pub fn name(&self) -> String {
        if self.id.is_empty() {
            self.text.clone()
        } else {
            format!("{} {}", self.id, self.text)
        }
    }

    /// Does this event end it? A kill ends when the node is started again.
    #[must_use]
    pub fn is_ended_by(&self, event: &Event) -> bool {
        match event.kind.as_str() {
            "fault.off" => {
                let (id, text) = (event.text("id"), event.text("fault"));
                if id.is_empty() {
                    self.text == text || text.starts_with(&self.text)
                } else {
                    self.id == id
                }
            }
            "node.spawned" => self.what == "kill" && self.nodes.contains(&event.node),
            _ => false,
        }
    }

    /// Is this node hit? Where only links are told: those that lost about as many as any other.
    #[must_use]
    pub fn hits(&self, node: &str) -> bool {
        if !self.nodes.is_empty() {
            return self.nodes.iter().any(|hit| hit == node);
        }
        let lost = |node: &str| {
            let ends = self.links.iter().flat_map(|link| link.split('>'));
            ends.filter(|end| *end == node).count()
        };
        let most = self.links.iter().flat_map(|link| link.split('>')).map(lost);
        let own = lost(node);
        own > 0 && own * 2 >= most.max().unwrap_or_default()
    }
}

/// An epoch began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// When.
    pub at_us: u64,
    /// Which.
    pub epoch: i64,
    /// Under whom, where that is known.
    pub leader: String,
}

/// The machine stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// From.
    pub from_us: u64,
    /// Until.
    pub to_us: u64,
}

/// How far a node was behind the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The node.
    pub node: String,
    /// When, and by how many txns.
    pub points: Vec<(u64, u64)>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The end, in microseconds since the start of the lab.
    pub end_us: u64,
    /// One for each node.
    pub lanes: Vec<Lane>,
    /// By the time at which they began.
    pub faults: Vec<Fault>,
    /// By time.
    pub epochs: Vec<Epoch>,
    /// By time.
    pub stalls: Vec<Stall>,
    /// One for each node that was ever behind.
    pub lags: Vec<Lag>,
    /// By time.
    pub elections: Vec<Election>,
}

impl Story {
    /// Reads it out of a folder.
    #[must_use]
    pub fn of(folder: &Folder) -> Self {
        let end_us = end_of(folder);
        let nodes = nodes_of(folder);
        let lanes = nodes
            .iter()
            .map(|node| lane(folder, node, end_us))
            .collect();
        Self {
            end_us,
            lanes,
            faults: faults(&folder.events, end_us),
            epochs: epochs(&folder.events, &folder.samples),
            stalls: stalls(&folder.events),
            lags: lags(&folder.samples),
            elections: elections::read(&folder.events),
        }
    }

    /// The faults that stood then.
    pub fn standing(&self, t_us: u64) -> impl Iterator<Item = &Fault> {
        self.faults
            .iter()
            .filter(move |fault| fault.from_us <= t_us && t_us <= fault.to_us)
    }
}

/// The end of what is worth showing: the ensemble is taken down after the last operation and sample.
fn end_of(folder: &Folder) -> u64 {
    let seen = folder.samples.last().map_or(0, |sample| sample.t_us);
    let done = folder.deeds.last().map_or(0, |deed| deed.t_us);
    let work = seen.max(done).max(folder.load.end_us());
    let last = folder.events.last().map_or(0, |event| event.t_us);
    let end = if work == 0 {
        last
    } else {
        work.max(last.min(work + 500_000))
    };
    (end + end / 200).max(1_000)
}

fn number_of(node: &str) -> u64 {
    node.trim_start_matches('n').parse().unwrap_or(u64::MAX)
}

/// All nodes that anybody speaks of.
fn nodes_of(folder: &Folder) -> Vec<String> {
    let of_events = folder.events.iter().map(|event| &event.node);
    let of_samples = folder.samples.iter().map(|sample| &sample.node);
    let named = of_events.chain(of_samples).chain(folder.run.servers.keys());
    let mut nodes: Vec<String> = named.filter(|node| !node.is_empty()).cloned().collect();
    nodes.sort_by(|a, b| number_of(a).cmp(&number_of(b)).then_with(|| a.cmp(b)));
    nodes.dedup();
    nodes
}

fn state_of_sample(sample: &Sample) -> Option<LaneState> {
    match sample.state.as_str() {
        "serving" => Some(LaneState::of_role(&sample.role)),
        "looking" => Some(LaneState::Looking),
        "paused" => Some(LaneState::Paused),
        "down" => Some(LaneState::Down),
        _ => None,
    }
}

/// Where the server tells of itself, that is exact; where it does not, it was asked now and then.
fn lane(folder: &Folder, node: &str, end_us: u64) -> Lane {
    let of_node = || folder.events.iter().filter(|event| event.node == node);
    let tells = of_node().any(|event| event.src == "zkd" && event.kind == "node.serving");
    let told = |event: &&Event| !tells || event.src != "wire";
    let mut changes: Vec<(u64, LaneState)> = of_node()
        .filter(told)
        .filter_map(|event| Some((event.t_us, LaneState::of_event(event)?)))
        .collect();
    if !tells {
        let samples = folder.samples.iter().filter(|sample| sample.node == node);
        changes.extend(samples.filter_map(|sample| Some((sample.t_us, state_of_sample(sample)?))));
        changes.sort_by_key(|(t_us, _)| *t_us);
    }
    let mut pauses = pauses(&folder.events, node, end_us);
    let mut spans: Vec<Span> = Vec::new();
    let mut add = |from_us: u64, to_us: u64, state: LaneState| {
        if from_us >= to_us {
            return;
        }
        match spans.last_mut() {
            Some(last) if last.state == state && last.to_us == from_us => last.to_us = to_us,
            _ => spans.push(Span {
                from_us,
                to_us,
                state,
            }),
        }
    };
    changes.push((end_us, LaneState::Down));
    for pair in changes.windows(2) {
        let (mut from, state) = pair[0];
        let to = pair[1].0.min(end_us);
        while let Some((begin, end)) = pauses.first().copied().filter(|pause| pause.0 < to) {
            add(from, begin.max(from), state);
            add(begin.max(from), end.min(to), LaneState::Paused);
            from = end.min(to).max(from);
            if end > to {
                break;
            }
            pauses.remove(0);
        }
        add(from, to, state);
    }
    Lane {
        node: node.to_owned(),
        spans,
    }
}

/// When this node was paused.
fn pauses(events: &[Event], node: &str, end_us: u64) -> Vec<(u64, u64)> {
    let all = faults(events, end_us).into_iter();
    all.filter(|fault| fault.what == "pause" && fault.hits(node))
        .map(|fault| (fault.from_us, fault.to_us))
        .collect()
}

/// The kind of a fault that does not tell it.
fn kind_of(text: &str) -> String {
    let first = text.split_whitespace().next().unwrap_or_default();
    let kind = match first {
        "pause" | "partition" | "link" | "drop" | "hold" | "disk" | "clock" | "restart" => first,
        "isolate" | "halves" | "bridge" | "ring" | "majority" | "minority" | "one-way" | "flap" => {
            "partition"
        }
        word if word.eq_ignore_ascii_case("kill") || word.starts_with("SIG") => "kill",
        _ => "",
    };
    kind.to_owned()
}

/// Faults from their beginning to their end.
fn faults(events: &[Event], end_us: u64) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for event in events {
        if event.kind == "fault.on" {
            faults.push(Fault::of(event, end_us));
            continue;
        }
        let mut standing = faults.iter_mut().rev().filter(|fault| fault.stands);
        if let Some(fault) = standing.find(|fault| fault.is_ended_by(event)) {
            (fault.to_us, fault.stands) = (event.t_us, false);
        }
    }
    faults
}

fn epochs(events: &[Event], samples: &[Sample]) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    let mut add = |at_us: u64, epoch: i64, leader: &str| {
        if epochs.last().is_none_or(|last| last.epoch < epoch) {
            epochs.push(Epoch {
                at_us,
                epoch,
                leader: leader.to_owned(),
            });
        }
    };
    let mut told: Vec<(u64, i64, &str)> = events
        .iter()
        .filter(|event| event.kind == "leader.elected")
        .filter_map(|event| Some((event.t_us, event.rest["epoch"].as_i64()?, &event.node[..])))
        .collect();
    let leads = |sample: &&Sample| sample.role == "leader" && sample.state == "serving";
    told.extend(
        samples
            .iter()
            .filter(leads)
            .filter_map(|sample| Some((sample.t_us, sample.epoch?, &sample.node[..]))),
    );
    told.sort();
    for (at_us, epoch, leader) in told {
        add(at_us, epoch, leader);
    }
    epochs
}

fn stalls(events: &[Event]) -> Vec<Stall> {
    let stalls = events.iter().filter(|event| event.kind == "host.stall");
    stalls
        .map(|event| {
            let length_us = event.rest["ms"].as_f64().unwrap_or_default() * 1000.0;
            Stall {
                from_us: event.t_us.saturating_sub(length_us as u64),
                to_us: event.t_us,
            }
        })
        .collect()
}

fn lags(samples: &[Sample]) -> Vec<Lag> {
    let mut lags: Vec<Lag> = Vec::new();
    for sample in samples {
        let Some(lag) = sample.lag.and_then(|lag| u64::try_from(lag).ok()) else {
            continue;
        };
        let point = (sample.t_us, lag);
        match lags.iter_mut().find(|lag| lag.node == sample.node) {
            Some(lag) => lag.points.push(point),
            None => lags.push(Lag {
                node: sample.node.clone(),
                points: vec![point],
            }),
        }
    }
    lags.retain(|lag| lag.points.iter().any(|(_, lag)| *lag > 0));
    lags.sort_by_key(|lag| number_of(&lag.node));
    lags
}
