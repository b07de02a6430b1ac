//! An ensemble: nodes on a network, their processes, and what they tell.
//!
//! Everything is driven by events: the end of a process, a line of a feed, an answer to a probe. What
//! they tell is folded into one [`View`] a node, and [`Ensemble::until`] waits for a condition over the
//! views without ever sleeping through it. The views serve the lab's own timing; what a user is shown
//! as status is probed afresh (`ensemble::status`).

mod epochs;
pub mod faults;
pub mod journal;
mod members;
pub mod select;
pub mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Child;
use tokio::time::Instant;
use zkd::event::FeedLine;

use self::epochs::Epochs;
use self::faults::Book;
use self::journal::Journal;
use self::members::Members;
use crate::clock::now_us;
use crate::disk::{NodeDisk, Watch};
use crate::event::{FaultKind, HexZxid, LabEventKind, Role, Source};
use crate::failure::{Context, Exit, Failure};
use crate::id::NodeId;
use crate::net::Network;
use crate::node::process::{self, Ended, Handle};
use crate::node::{NodeSpec, ServerKind, config};
use crate::probe;
use crate::probe::feed::Feed;
use crate::wall::{self, Skew};

/// How often a server without an event feed is asked for its state.
const POLL: Duration = Duration::from_millis(20);
/// How long one such question may take.
const POLL_PATIENCE: Duration = Duration::from_millis(500);
/// A process that got SIGKILL is gone well before this.
const REAP_PATIENCE: Duration = Duration::from_secs(10);

/// A lab as it was asked for, beside its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    /// Its name.
    pub name: String,
    /// `tickTime`.
    pub tick_ms: u64,
    /// Where the nodes' directories are.
    pub data_dir: PathBuf,
    /// Whether `down` leaves the data there.
    pub keep_data: bool,
    /// Whether syncs are watched, so that the power can be cut.
    #[serde(default)]
    pub disks: Watch,
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
    members: Members,
    folded: Mutex<Folded>,
    faults: Mutex<Book>,
    /// The disks that are watched, by node.
    disks: Mutex<BTreeMap<NodeId, Arc<NodeDisk>>>,
    /// The wall clocks that are wrong, by node.
    clocks: Mutex<BTreeMap<NodeId, Skew>>,
}

/// The views and what is derived from them.
#[derive(Debug)]
struct Folded {
    /// What each node has told, once it told something.
    views: BTreeMap<NodeId, View>,
    /// The epochs that were established.
    epochs: Epochs,
    /// Is there a serving leader with a quorum? `None` until there was one.
    quorum: Option<bool>,
    /// Nodes that run another server than the spec says, since a restart put it there.
    servers: BTreeMap<NodeId, ServerKind>,
}

impl Ensemble {
    /// A lab without processes.
    #[must_use]
    pub fn new(
        spec: LabSpec,
        nodes: Vec<NodeSpec>,
        net: Box<dyn Network>,
        start_us: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            members: Members::new(nodes),
            journal: Journal::new(&spec.name, start_us),
            spec,
            net,
            start_us,
            folded: Mutex::new(Folded {
                views: BTreeMap::new(),
                epochs: Epochs::default(),
                quorum: None,
                servers: BTreeMap::new(),
            }),
            faults: Mutex::default(),
            disks: Mutex::default(),
            clocks: Mutex::default(),
        })
    }

    /// The views of all nodes, in order.
    #[must_use]
    pub fn views(&self) -> Vec<(NodeId, View)> {
        let folded = self.folded();
        let view = |id| folded.views.get(&id).cloned().unwrap_or_default();
        self.ids().into_iter().map(|id| (id, view(id))).collect()
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
        let nodes = self.nodes();
        for node in nodes.iter() {
            let shape = config::Shape {
                nodes: &nodes,
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
    /// If the program cannot be started, or the node is gone for good.
    pub fn start(self: &Arc<Self>, id: NodeId) -> Result<(), Failure> {
        if self.view(id).process.is_some() {
            return Ok(());
        }
        if !self.has(id) {
            return Err(Failure::usage(format!("{id} is not in the lab any more")));
        }
        let mut node = self.node(id);
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
        self.bend_clock_of(id, handle);
        let feed = spawned.feed.map(Feed::new);
        if feed.is_none() {
            tokio::spawn(Arc::clone(self).poll(id, handle));
        }
        tokio::spawn(Arc::clone(self).attend(id, spawned.child, feed));
        Ok(())
    }

    /// The watched disk of a node, in a lab that watches disks.
    ///
    /// # Errors
    /// If its directory cannot be made or read.
    pub fn disk(&self, id: NodeId) -> Result<Option<Arc<NodeDisk>>, Failure> {
        if self.spec.disks == Watch::No {
            return Ok(None);
        }
        let mut disks = self.disks.lock().expect("nobody panics with the disks");
        if let Some(disk) = disks.get(&id) {
            return Ok(Some(Arc::clone(disk)));
        }
        let dir = self.node(id).data_dir();
        let disk = NodeDisk::new(&dir, self.spec.disks)
            .doing(|| format!("cannot watch {}", dir.display()))?;
        disks.insert(id, Arc::clone(&disk));
        Ok(Some(disk))
    }

    /// What the wall clock of a node shows, in this and every later life of its process; `None` is the true time.
    /// Takes about a millisecond.
    ///
    /// # Errors
    /// If its process may not be touched. Then nothing has changed.
    pub fn set_wall_clock(&self, id: NodeId, skew: Option<Skew>) -> Result<(), Failure> {
        let mut clocks = self.clocks();
        if let Some(process) = self.view(id).process {
            match wall::set(process.pid(), skew) {
                // It died this moment.
                Err(_) if self.view(id).process != Some(process) => {}
                other => other?,
            }
            // It went on afterwards unless it stood still before, and a pause of this moment may not have been seen.
            if !self
                .standing_on(id, |what| what == FaultKind::Pause)
                .is_empty()
            {
                process.signal(Signal::SIGSTOP)?;
            }
        }
        match skew {
            Some(skew) => clocks.insert(id, skew),
            None => clocks.remove(&id),
        };
        Ok(())
    }

    /// A process that was just started gets the clock of its node.
    fn bend_clock_of(&self, id: NodeId, process: Handle) {
        let mut clocks = self.clocks();
        let Some(skew) = clocks.get(&id) else { return };
        if let Err(failure) = wall::set(process.pid(), Some(*skew)) {
            tracing::error!(%id, %failure, "its clock is true again");
            clocks.remove(&id);
            drop(clocks);
            self.end_faults_of(id, now_us(), |what| what == FaultKind::Clock);
        }
    }

    fn clocks(&self) -> MutexGuard<'_, BTreeMap<NodeId, Skew>> {
        self.clocks.lock().expect("nobody panics with the clocks")
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
        for id in self.ids() {
            // A node that is down, or goes down this moment, needs no signal.
            let _ = self.signal(id, signal);
        }
    }

    fn is_empty(&self) -> bool {
        self.folded()
            .views
            .values()
            .all(|view| view.process.is_none())
    }

    /// Listens to a server until its process is gone. Whatever it said comes before its end, and nothing after.
    async fn attend(self: Arc<Self>, id: NodeId, mut child: Child, mut feed: Option<Feed>) {
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                line = next_line(&mut feed) => match line {
                    Some(line) => self.hear(id, line),
                    None => feed = None,
                },
            }
        };
        let at_us = now_us();
        for line in feed.into_iter().flat_map(Feed::rest) {
            self.hear(id, line);
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

    fn hear(&self, id: NodeId, line: FeedLine) {
        let kind = LabEventKind::of_server(line.event);
        self.record(line.t_us, id, Source::Zkd, kind);
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

    /// Appends an event to the journal, with what follows from it. What a node or its process says changes its
    /// view; what was seen on the wire may be old by then, and does not.
    pub fn record(&self, at_us: u64, id: NodeId, src: Source, kind: LabEventKind) {
        // Until all is written down, or what follows from a later event would come first.
        let mut folded = self.folded();
        let bumped = folded.epochs.learn(src, &kind);
        let quorum = if src == Source::Wire {
            None
        } else {
            fold(folded.views.entry(id).or_default(), at_us, &kind);
            self.change_of_quorum(&mut folded)
        };
        self.journal.push(at_us, Some(id), src, kind);
        for kind in bumped.into_iter().chain(quorum) {
            self.journal.push(at_us, None, Source::Lab, kind);
        }
    }

    /// Tells if a quorum serves now and did not before, or the other way round.
    fn change_of_quorum(&self, folded: &mut Folded) -> Option<LabEventKind> {
        let voters = self.voters();
        let serves = |id: &&NodeId| folded.views.get(id).is_some_and(|view| view.serving);
        let have = voters.iter().filter(serves).count();
        let need = voters.len() / 2 + 1;
        let is_there = have >= need;
        if folded.quorum.unwrap_or(false) == is_there {
            return None;
        }
        folded.quorum = Some(is_there);
        Some(if is_there {
            LabEventKind::QuorumRegained { have, need }
        } else {
            LabEventKind::QuorumLost { have, need }
        })
    }

    fn with_view<T>(&self, id: NodeId, change: impl FnOnce(&mut View) -> T) -> T {
        change(self.folded().views.entry(id).or_default())
    }

    /// What is remembered of a node that is gone.
    fn forget(&self, id: NodeId) {
        let mut folded = self.folded();
        folded.views.remove(&id);
        folded.servers.remove(&id);
        let quorum = self.change_of_quorum(&mut folded);
        drop(folded);
        self.disks
            .lock()
            .expect("nobody panics with the disks")
            .remove(&id);
        if let Some(kind) = quorum {
            self.journal.push(now_us(), None, Source::Lab, kind);
        }
    }

    fn folded(&self) -> MutexGuard<'_, Folded> {
        self.folded
            .lock()
            .expect("nobody panics while holding the views")
    }
}

/// The next line of a feed; for ever none where there is no feed.
async fn next_line(feed: &mut Option<Feed>) -> Option<FeedLine> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::net::Loopback;
    use crate::node::Membership;

    /// Says that it serves the moment before it dies, and has a child that would go on talking in its name.
    const SERVER: &str = r#"#!/usr/bin/env bash
fd=${4#fd:}
line='{"v":1,"t_us":1,"sid":1,"event":"serving","state":"following","epoch":4,"zxid":0}'
trap '' PIPE
(
    until test -e "$0.go"; do sleep 0.01; done
    if eval "echo '$line' >&$fd"; then echo heard; else echo closed; fi >"$0.tmp" 2>/dev/null
    mv "$0.tmp" "$0.done"
) &
eval "echo '$line' >&$fd"
kill -9 $$
"#;

    #[tokio::test]
    async fn what_a_server_says_comes_before_its_end_and_nothing_after() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("server");
        std::fs::write(&program, SERVER).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let n1 = NodeId(1);
        let spec = LabSpec {
            name: "x".to_owned(),
            tick_ms: 200,
            data_dir: dir.path().to_owned(),
            keep_data: false,
            disks: Watch::No,
        };
        let nodes = vec![NodeSpec {
            id: n1,
            membership: Membership::Voter,
            server: ServerKind::Zkd(program.clone()),
            dir: dir.path().join("n1"),
        }];
        let net = Box::new(Loopback::claim(&[n1]).unwrap());
        let lab = Ensemble::new(spec, nodes, net, now_us());
        lab.write_configuration().unwrap();
        lab.start(n1).unwrap();
        lab.gone(n1, REAP_PATIENCE).await.unwrap();
        std::fs::write(program.with_extension("go"), "").unwrap();
        let done = program.with_extension("done");
        let deadline = Instant::now() + REAP_PATIENCE;
        while !done.exists() {
            assert!(Instant::now() < deadline, "the child says nothing");
            tokio::task::yield_now().await;
        }
        assert_eq!(std::fs::read_to_string(done).unwrap(), "closed\n");
        let kinds: Vec<String> = lab
            .journal
            .after(0)
            .iter()
            .map(|event| event.kind_name())
            .collect();
        assert_eq!(
            kinds,
            [
                "node.spawned",
                "node.serving",
                "epoch.bumped",
                "quorum.regained",
                "node.exited",
                "quorum.lost"
            ]
        );
        assert!(!lab.view(n1).serving);
    }
}
