//! An ensemble: nodes on a network, their processes, and what they tell.
//!
//! Everything is driven by events: the end of a process, a line of a feed, an answer to a probe. What
//! they tell is folded into one [`View`] a node, and [`Ensemble::until`] waits for a condition over the
//! views without ever sleeping through it. The views serve the lab's own timing; what a user is shown
//! as status is probed afresh (`ensemble::status`).

pub mod faults;
pub mod journal;
pub mod select;
pub mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::faults::Book;
use self::journal::Journal;
use crate::clock::now_us;
use crate::disk::NodeDisk;
use crate::event::{FaultKind, HexZxid, LabEventKind, Role, Source};
use crate::failure::{Context, Exit, Failure};
use crate::id::NodeId;
use crate::net::Network;
use crate::node::process::{self, Ended, Handle};
use crate::node::{NodeSpec, ServerKind, config};
use crate::probe;
use crate::probe::feed::Feed;

/// How often a server without an event feed is asked for its state.
const POLL: Duration = Duration::from_millis(20);
/// How long one such question may take.
const POLL_PATIENCE: Duration = Duration::from_millis(500);
/// A process that got SIGKILL is gone well before this.
const REAP_PATIENCE: Duration = Duration::from_secs(10);

/// A lab as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    /// Its name.
    pub name: String,
    /// Its nodes, by number.
    pub nodes: Vec<NodeSpec>,
    /// `tickTime`.
    pub tick_ms: u64,
    /// Where the nodes' directories are.
    pub data_dir: PathBuf,
    /// Whether `down` leaves the data there.
    pub keep_data: bool,
    /// Whether syncs are watched, so that the power can be cut.
    #[serde(default)]
    pub disk_faults: bool,
}

/// What a node has told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its process, while there is one.
    pub process: Option<Handle>,
    /// Its state, once it told one.
    pub state: Option<Role>,
    /// It answers clients.
    pub serving: bool,
    /// Since when it does, by the system's clock.
    pub serving_us: u64,
    /// The epoch it serves in.
    pub epoch: i64,
    /// Its last zxid when it began to serve.
    pub zxid: HexZxid,
    /// Whom it votes for.
    pub vote: Option<String>,
    /// Its version, as its process said at the start.
    pub version: Option<String>,
    /// How its last process ended.
    pub end: Option<End>,
    /// The lab is ending the process; its end is no surprise.
    pub ending: bool,
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub how: Ended,
    /// Whether the lab did it.
    pub expected: bool,
    /// When, by the system's clock.
    pub at_us: u64,
}

/// A running lab.
#[derive(Debug)]
pub struct Ensemble {
    /// What was asked for.
    pub spec: LabSpec,
    /// Its network.
    pub net: Box<dyn Network>,
    /// What happened.
    pub journal: Journal,
    /// When the lab was started, by the system's clock.
    pub start_us: u64,
    folded: Mutex<Folded>,
    faults: Mutex<Book>,
    /// The disks that are watched, by node.
    disks: Mutex<BTreeMap<NodeId, Arc<NodeDisk>>>,
}

/// The views and what is derived from them.
#[derive(Debug)]
struct Folded {
    /// One for each node, in the order of the spec.
    views: Vec<View>,
    /// The highest epoch a leader served in.
    epoch: i64,
    /// Is there a serving leader with a quorum? `None` until there was one.
    quorum: Option<bool>,
    /// Nodes that run another server than the spec says, since a restart put it there.
    servers: BTreeMap<NodeId, ServerKind>,
}

impl Ensemble {
    /// A lab without processes.
    #[must_use]
    pub fn new(spec: LabSpec, net: Box<dyn Network>, start_us: u64) -> Arc<Self> {
        let views = vec![View::default(); spec.nodes.len()];
        Arc::new(Self {
            journal: Journal::new(&spec.name, start_us),
            spec,
            net,
            start_us,
            folded: Mutex::new(Folded {
                views,
                epoch: 0,
                quorum: None,
                servers: BTreeMap::new(),
            }),
            faults: Mutex::default(),
            disks: Mutex::default(),
        })
    }

    /// The node's spec.
    ///
    /// # Panics
    /// If the lab has no such node: names are checked where they enter (`select`).
    #[must_use]
    pub fn node(&self, id: NodeId) -> &NodeSpec {
        self.spec
            .nodes
            .iter()
            .find(|node| node.id == id)
            .expect("node names are checked where they enter")
    }

    /// The nodes with a vote.
    pub fn voters(&self) -> impl Iterator<Item = &NodeSpec> {
        self.spec.nodes.iter().filter(|node| node.votes())
    }

    /// How many voters make a quorum.
    #[must_use]
    pub fn quorum_size(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// The views of all nodes, in order.
    #[must_use]
    pub fn views(&self) -> Vec<(NodeId, View)> {
        let folded = self.folded();
        let ids = self.spec.nodes.iter().map(|node| node.id);
        ids.zip(folded.views.iter().cloned()).collect()
    }

    /// What the node has told last.
    #[must_use]
    pub fn view(&self, id: NodeId) -> View {
        self.with_view(id, |view| view.clone())
    }

    /// The node that leads (or stands alone) and serves. A leader that was cut off or paused believes
    /// in itself for a while longer; the one of the highest epoch is meant.
    #[must_use]
    pub fn serving_leader(&self) -> Option<(NodeId, View)> {
        self.views()
            .into_iter()
            .filter(|(_, view)| view.serving && view.state.is_some_and(Role::leads))
            .max_by_key(|(_, view)| view.epoch)
    }

    /// Waits until `condition` holds or the time is over; tells which.
    pub async fn until(&self, deadline: Instant, condition: impl Fn(&Self) -> bool) -> bool {
        let mut news = self.journal.subscribe();
        loop {
            if condition(self) {
                return true;
            }
            if tokio::time::timeout_at(deadline, news.changed())
                .await
                .is_err()
            {
                return condition(self);
            }
        }
    }

    /// Writes the configuration of every node.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write_configuration(&self) -> Result<(), Failure> {
        for node in &self.spec.nodes {
            let shape = config::Shape {
                nodes: &self.spec.nodes,
                tick_ms: self.spec.tick_ms,
                net: &*self.net,
            };
            config::write(node, shape)?;
        }
        Ok(())
    }

    /// Starts a node's server, unless it runs. On the supervisor's main thread only.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(self: &Arc<Self>, id: NodeId) -> Result<(), Failure> {
        if self.view(id).process.is_some() {
            return Ok(());
        }
        let mut node = self.node(id).clone();
        if let Some(server) = self.folded().servers.get(&id) {
            node.server = server.clone();
        }
        let disk = self.disk(id)?;
        let spawned = process::spawn(&node, &*self.net, disk.as_ref())?;
        let handle = spawned.handle;
        self.with_view(id, |view| {
            *view = View {
                process: Some(handle),
                end: view.end,
                ..View::default()
            };
        });
        let pid = handle.pid();
        self.record(
            handle.started_us,
            id,
            Source::Proc,
            LabEventKind::NodeSpawned { pid },
        );
        self.end_faults_of(id, handle.started_us, FaultKind::ends_processes);
        let feed = spawned
            .feed
            .map(|pipe| self.follow_feed(id, Feed::new(pipe)));
        if feed.is_none() {
            tokio::spawn(Arc::clone(self).poll(id, handle));
        }
        tokio::spawn(Arc::clone(self).reap(id, spawned.child, feed));
        Ok(())
    }

    /// The watched disk of a node, in a lab that watches disks.
    ///
    /// # Errors
    /// If its directory cannot be made or read.
    pub fn disk(&self, id: NodeId) -> Result<Option<Arc<NodeDisk>>, Failure> {
        if !self.spec.disk_faults {
            return Ok(None);
        }
        let mut disks = self.disks.lock().expect("nobody panics with the disks");
        if let Some(disk) = disks.get(&id) {
            return Ok(Some(Arc::clone(disk)));
        }
        let dir = self.node(id).data_dir();
        let disk = NodeDisk::new(&dir).doing(|| format!("cannot watch {}", dir.display()))?;
        disks.insert(id, Arc::clone(&disk));
        Ok(Some(disk))
    }

    /// From its next start on the node runs this server.
    pub fn set_server(&self, id: NodeId, server: ServerKind) {
        self.folded().servers.insert(id, server);
    }

    /// Sends a signal to a node's process; when it was sent, by the system's clock.
    ///
    /// # Errors
    /// If the node is down.
    pub fn signal(&self, id: NodeId, signal: Signal) -> Result<u64, Failure> {
        let ends = matches!(signal, Signal::SIGKILL | Signal::SIGTERM);
        let handle = self.with_view(id, |view| {
            view.ending |= ends;
            view.process
        });
        let handle = handle.ok_or_else(|| {
            Failure::usage(format!("{id} is down")).hint(format!("`zklab start {id}` starts it"))
        })?;
        let at_us = now_us();
        handle.signal(signal)?;
        Ok(at_us)
    }

    /// Waits until the node's process is gone.
    ///
    /// # Errors
    /// If it is still there when the time is over.
    pub async fn gone(&self, id: NodeId, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        if self
            .until(deadline, |lab| lab.view(id).process.is_none())
            .await
        {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Missed,
            format!("{id} did not end within {} s", patience.as_secs()),
        )
        .hint(format!("`zklab kill {id}` ends it at once")))
    }

    /// Ends every process: asks first if `gently`, and kills what is left.
    ///
    /// # Errors
    /// If a process survives SIGKILL.
    pub async fn end_all(&self, gently: bool) -> Result<(), Failure> {
        if gently {
            self.signal_all(Signal::SIGTERM);
            // A stopped process takes no notice of SIGTERM before it goes on.
            self.signal_all(Signal::SIGCONT);
            let deadline = Instant::now() + Duration::from_secs(5);
            self.until(deadline, Self::is_empty).await;
        }
        self.signal_all(Signal::SIGKILL);
        if self
            .until(Instant::now() + REAP_PATIENCE, Self::is_empty)
            .await
        {
            return Ok(());
        }
        Err(Failure::environment("a server process survives SIGKILL")
            .hint("it hangs inside the kernel, probably on its disk"))
    }

    fn signal_all(&self, signal: Signal) {
        for node in &self.spec.nodes {
            // A node that is down, or goes down this moment, needs no signal.
            let _ = self.signal(node.id, signal);
        }
    }

    fn is_empty(&self) -> bool {
        self.folded()
            .views
            .iter()
            .all(|view| view.process.is_none())
    }

    fn follow_feed(self: &Arc<Self>, id: NodeId, mut feed: Feed) -> JoinHandle<()> {
        let lab = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(line) = feed.next().await {
                let kind = LabEventKind::of_server(line.event);
                lab.record(line.t_us, id, Source::Zkd, kind);
            }
        })
    }

    async fn reap(self: Arc<Self>, id: NodeId, mut child: Child, feed: Option<JoinHandle<()>>) {
        let status = child.wait().await;
        let at_us = now_us();
        if let Some(feed) = feed {
            // What it said last comes before its end.
            let _ = tokio::time::timeout(Duration::from_millis(100), feed).await;
        }
        let how = status.map_or(
            Ended {
                code: None,
                signal: None,
            },
            Ended::from,
        );
        let fails = self.disk(id).ok().flatten();
        let must_end = fails.is_some_and(|disk| disk.has_failed());
        let expected = must_end || self.with_view(id, |view| view.ending);
        self.with_view(id, |view| {
            view.end = Some(End {
                how,
                expected,
                at_us,
            });
        });
        let kind = LabEventKind::NodeExited {
            code: how.code,
            signal: how.signal,
            expected,
        };
        self.record(at_us, id, Source::Proc, kind);
        self.end_faults_of(id, at_us, |what| what == FaultKind::Pause);
    }

    /// Asks a server without a feed again and again, and tells the changes as events.
    async fn poll(self: Arc<Self>, id: NodeId, handle: Handle) {
        let mut last = None;
        while self.view(id).process == Some(handle) {
            let answer = probe::ask(self.net.client(id), POLL_PATIENCE).await;
            let role = answer.as_ref().map_or(Role::Looking, |answer| answer.role);
            if self.view(id).process == Some(handle) && last.replace(role) != Some(role) {
                let kind = match &answer {
                    Some(answer) if role != Role::Looking => LabEventKind::NodeServing {
                        role,
                        epoch: answer.epoch.unwrap_or(0),
                        zxid: answer.zxid.unwrap_or_default(),
                    },
                    _ => LabEventKind::ElectionStarted {
                        reason: "does not serve".to_owned(),
                    },
                };
                self.record(now_us(), id, Source::Probe, kind);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Folds an event into the views and appends it to the journal, with what follows from it.
    pub fn record(&self, at_us: u64, id: NodeId, src: Source, kind: LabEventKind) {
        let mut derived = Vec::new();
        {
            let mut folded = self.folded();
            fold(&mut folded.views[self.index(id)], at_us, &kind);
            if let LabEventKind::NodeServing {
                role: Role::Leader,
                epoch,
                ..
            } = kind
                && epoch > folded.epoch
            {
                let from = std::mem::replace(&mut folded.epoch, epoch);
                derived.push(LabEventKind::EpochBumped { from, to: epoch });
            }
            let have = self
                .spec
                .nodes
                .iter()
                .zip(&folded.views)
                .filter(|(node, view)| node.votes() && view.serving)
                .count();
            let need = self.quorum_size();
            if folded.quorum.unwrap_or(false) != (have >= need) {
                folded.quorum = Some(have >= need);
                derived.push(if have >= need {
                    LabEventKind::QuorumRegained { have, need }
                } else {
                    LabEventKind::QuorumLost { have, need }
                });
            }
        }
        self.journal.push(at_us, Some(id), src, kind);
        for kind in derived {
            self.journal.push(at_us, None, Source::Lab, kind);
        }
    }

    fn index(&self, id: NodeId) -> usize {
        self.spec
            .nodes
            .iter()
            .position(|node| node.id == id)
            .expect("node names are checked where they enter")
    }

    fn with_view<T>(&self, id: NodeId, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.folded().views[self.index(id)])
    }

    fn folded(&self) -> MutexGuard<'_, Folded> {
        self.folded
            .lock()
            .expect("nobody panics while holding the views")
    }
}

/// What an event says about the state of its node.
fn fold(view: &mut View, at_us: u64, kind: &LabEventKind) {
    match kind {
        LabEventKind::ElectionStarted { .. } => {
            view.state = Some(Role::Looking);
            view.serving = false;
        }
        LabEventKind::NodeStarting { version } => view.version = Some(version.clone()),
        LabEventKind::ElectionVote { vote, .. } => view.vote = Some(vote.clone()),
        LabEventKind::NodeRole { role, .. } => {
            view.state = Some(*role);
            view.serving = false;
        }
        LabEventKind::NodeServing { role, epoch, zxid } => {
            view.state = Some(*role);
            view.serving = true;
            view.serving_us = at_us;
            view.epoch = *epoch;
            view.zxid = *zxid;
        }
        LabEventKind::NodeNotServing { .. } | LabEventKind::SteppedDown { .. } => {
            view.serving = false;
        }
        LabEventKind::NodeExited { .. } => {
            *view = View {
                end: view.end,
                ..View::default()
            };
        }
        _ => {}
    }
}
