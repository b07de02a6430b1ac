//! `add` and `rm`: nodes that come into a lab that is up, and go for good.
//!
//! The servers' configuration is static. An observer needs nobody's consent: a leader takes a learner that it does
//! not have in its list, and counts only the acknowledgements of voters that it does (Apache: `LearnerHandler.run`,
//! `SyncedLearnerTracker.addAck`). A voter counts only for servers that know it. So when one comes or goes, the others
//! are started again one after another, the leader last, as an operator has to do it. A quorum of the old list and
//! one of the new always have a server in common, since the lists differ in one server.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::protocol::{Act, AddRequest, MemberReport, News, Synced};
use super::{Lab, NewsSink, lifecycle, network};
use crate::clock::{ms, now_us};
use crate::ensemble::Ensemble;
use crate::ensemble::status::{self, State, Status};
use crate::event::{LabEventKind, Source};
use crate::failure::{Context, Exit, Failure};
use crate::fault::board::Healed;
use crate::id::NodeId;
use crate::net::emulator::Emulator;
use crate::node::{NodeSpec, tail};
use crate::observe::clients::Clients;

/// How long a server may take to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long those may take to serve who do without a node that is gone.
const SERVE_PATIENCE: Duration = Duration::from_secs(30);
/// The reader of the wire tells of a synchronization well before this after it.
const WIRE_PATIENCE: Duration = Duration::from_millis(500);
/// How long the lab's own clients may take to their first write.
const WARM_PATIENCE: Duration = Duration::from_secs(5);

/// Voters, and those of them that serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Voters {
    all: usize,
    serving: usize,
}

impl Voters {
    fn of(lab: &Ensemble, now: &Status, without: Option<NodeId>) -> Self {
        let mut voters = lab.voters();
        voters.retain(|id| Some(*id) != without);
        let serves = |id: &&NodeId| {
            let node = now.nodes.iter().find(|node| node.id == **id);
            node.is_some_and(|node| node.state == State::Serving)
        };
        Self {
            all: voters.len(),
            serving: voters.iter().filter(serves).count(),
        }
    }

    fn need(self) -> usize {
        self.all / 2 + 1
    }
}

/// Makes one more node, and waits until it serves.
///
/// # Errors
/// If there is no room for it, no quorum serves, or it does not serve in time; then it is taken out again, unless
/// others were started again already.
pub(super) async fn add(
    lab: &Lab,
    request: &AddRequest,
    news: &NewsSink,
) -> Result<MemberReport, Failure> {
    let _alone = lab.members.lock().await;
    let ensemble = &lab.ensemble;
    let now = status::probe(ensemble).await;
    if !now.quorum {
        return Err(Failure::new(
            Exit::Missed,
            "a node can join only while a quorum serves, and none does; nothing was touched",
        )
        .hint("`zklab start all` starts what is down, `zklab heal` takes faults out"));
    }
    let spec = design(lab, request)?;
    // One server alone runs without a quorum, and must learn to lead one.
    let is_first = ensemble.nodes().len() == 1;
    let others_must_know = spec.votes() || is_first;
    let begin_us = now_us();
    let old = Voters::of(ensemble, &now, None);
    take_in(lab, &spec)?;
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
    let mut first_us = None;
    // Voters that do not know it can tell it of their leader, if they are a quorum of its own list too.
    let can_follow = old.serving >= ensemble.quorum_size();
    if can_follow && !is_first {
        news.tell(News::Doing(format!("{} is joining", spec.id)));
        match serves(ensemble, &spec, deadline).await {
            Ok(at_us) => first_us = Some(at_us),
            Err(failure) => {
                take_out(lab, &spec, true).await?;
                return Err(failure);
            }
        }
    }
    let mut restarted = (Vec::new(), None);
    if others_must_know {
        let clients = Clients::start(ensemble);
        clients.warm(Instant::now() + WARM_PATIENCE).await;
        restarted = renew(lab, &now, spec.id, clients, news).await?;
        // It may be what is elected last, after all others were started again.
        let deadline = deadline.max(Instant::now() + WARM_PATIENCE);
        let at_us = serves(ensemble, &spec, deadline).await?;
        first_us = first_us.or(Some(at_us));
    }
    let synced = synced(ensemble, spec.id, begin_us).await;
    let view = ensemble.view(spec.id);
    let addr = ensemble.net.address(spec.id);
    Ok(MemberReport {
        addr: Some(addr.to_string()),
        client: Some(ensemble.net.client(spec.id).to_string()),
        pid: view.process.map(|process| process.pid()),
        role: view.state,
        synced,
        ms: ms(first_us.map_or(0, |at_us| at_us.saturating_sub(begin_us))),
        ..report(ensemble, "add", &spec, restarted)
    })
}

/// The next node, if there is room for it.
fn design(lab: &Lab, request: &AddRequest) -> Result<NodeSpec, Failure> {
    let ensemble = &lab.ensemble;
    let nodes = ensemble.nodes();
    let id = ensemble.next_id().ok_or_else(|| {
        Failure::usage(format!(
            "lab {} has {} nodes, and more cannot be",
            ensemble.spec.name,
            nodes.len()
        ))
    })?;
    let first = nodes.first().map(|node| node.server.clone());
    let server = request.server.clone().or(first);
    let server = server.ok_or_else(|| Failure::usage("the lab has no nodes"))?;
    let dir = ensemble.spec.data_dir.join(id.to_string());
    if dir.exists() {
        return Err(Failure::usage(format!(
            "{} is there already, and {id} shall begin with nothing",
            dir.display()
        ))
        .hint("move it away; nothing was touched"));
    }
    Ok(NodeSpec {
        id,
        membership: request.membership,
        server,
        dir,
    })
}

/// Makes everything a node needs, tells all others of it on disk, and starts it.
fn take_in(lab: &Lab, spec: &NodeSpec) -> Result<(), Failure> {
    let ensemble = &lab.ensemble;
    let net = &*ensemble.net;
    net.join(spec.id)?;
    ensemble.join(spec.clone());
    // Nothing is awaited in between: nobody sees links that only one of the two knows.
    lab.board.join(net, spec.id, lab.profile.as_ref());
    let kind = LabEventKind::NodeAdded {
        membership: spec.membership,
    };
    let journal = &ensemble.journal;
    journal.push(now_us(), Some(spec.id), Source::Lab, kind);
    let started = lab
        .note(ensemble.ids(), ensemble.spec.keep_data)
        .and_then(|()| ensemble.write_configuration())
        .and_then(|()| ensemble.start(spec.id));
    if let Err(failure) = started {
        forget(lab, spec)?;
        return Err(failure);
    }
    Ok(())
}

/// Waits until a node serves, but not longer than it lives; since when it does, by the system's clock.
async fn serves(lab: &Ensemble, spec: &NodeSpec, deadline: Instant) -> Result<u64, Failure> {
    let id = spec.id;
    let is_over = |lab: &Ensemble| {
        let view = lab.view(id);
        view.serving || view.process.is_none()
    };
    lab.until(deadline, is_over).await;
    let view = lab.view(id);
    let log = || tail(&spec.log_file(), 5).join("\n  ");
    match (view.serving, view.process, view.end) {
        (true, ..) => Ok(view.serving_us),
        (false, None, Some(end)) => Err(Failure::new(
            Exit::NodeDied,
            format!("{id} died ({}); its last words:\n  {}", end.how, log()),
        )),
        _ => Err(Failure::new(
            Exit::Missed,
            format!("{id} does not serve in time; its last words:\n  {}", log()),
        )
        .hint("--timeout gives it more time")),
    }
}

/// Starts the other servers again that run, one after another, so that they know the nodes there are now; the leader
/// last. What was done to each, and the longest pause of writes.
async fn renew(
    lab: &Lab,
    now: &Status,
    new: NodeId,
    clients: Clients,
    news: &NewsSink,
) -> Result<(Vec<Act>, Option<f64>), Failure> {
    let ensemble = &lab.ensemble;
    let leader = ensemble.serving_leader().map(|(id, _)| id);
    let mut others: Vec<NodeId> = now
        .nodes
        .iter()
        .filter(|node| node.state == State::Serving || node.state == State::Looking)
        .map(|node| node.id)
        .filter(|id| *id != new && ensemble.has(*id))
        .collect();
    if ensemble.voters().len() > 2 {
        others.sort_by_key(|id| Some(*id) == leader);
    } else {
        // The one voter there was, or is to be, serves only when it knows the new list; nobody can follow before.
        others.sort_by_key(|id| !ensemble.node(*id).votes());
    }
    let acts = lifecycle::roll_each(lab, &others, leader, false, news).await;
    let paused = clients.longest_pause_us();
    let (_, findings) = clients.finish().await;
    let acts = acts?;
    if !findings.is_empty() {
        return Err(Failure::new(Exit::Bug, findings.join("; ")));
    }
    Ok((acts, Some(ms(paused))))
}

/// How a node was synchronized since then, where that was read off the wire.
async fn synced(lab: &Ensemble, id: NodeId, begin_us: u64) -> Option<Synced> {
    if !lab.net.links().is_some_and(Emulator::listens) {
        return None;
    }
    let begin_us = lab.journal.since_start(begin_us);
    let name = id.to_string();
    let find = |lab: &Ensemble| {
        let events = lab.journal.after(0);
        events.into_iter().rev().find_map(|event| match event.kind {
            LabEventKind::Sync {
                to,
                mode,
                txns,
                bytes,
                took_us,
                ..
            } if to == name && event.src == Source::Wire && event.t_us >= begin_us => {
                Some(Synced {
                    mode,
                    txns: txns.unwrap_or(0),
                    bytes,
                    ms: ms(took_us.unwrap_or(0)),
                })
            }
            _ => None,
        })
    };
    let deadline = Instant::now() + WIRE_PATIENCE;
    lab.until(deadline, |lab| find(lab).is_some()).await;
    find(lab)
}

fn report(
    lab: &Ensemble,
    cmd: &str,
    spec: &NodeSpec,
    (restarted, writes_paused_ms): (Vec<Act>, Option<f64>),
) -> MemberReport {
    MemberReport {
        v: 1,
        cmd: cmd.to_owned(),
        lab: lab.spec.name.clone(),
        id: spec.id,
        membership: spec.membership,
        addr: None,
        client: None,
        pid: None,
        role: None,
        synced: None,
        ms: 0.0,
        restarted,
        writes_paused_ms,
        voters: lab.voters().len(),
        need: lab.quorum_size(),
        exit: Exit::Ok,
    }
}

/// Takes a node out for good.
///
/// # Errors
/// If the word names none or several, or the others could not serve without it; then nothing is touched.
pub(super) async fn rm(lab: &Lab, word: &str, news: &NewsSink) -> Result<MemberReport, Failure> {
    let _alone = lab.members.lock().await;
    let ensemble = &lab.ensemble;
    let (chosen, now) = lifecycle::choose(ensemble, &[word.to_owned()]).await?;
    let [id] = chosen[..] else {
        return Err(Failure::usage(format!(
            "{word:?} is more than one node; `zklab rm` takes one at a time"
        )));
    };
    let spec = ensemble.node(id);
    let rest = Voters::of(ensemble, &now, Some(id));
    check(ensemble, &now, &spec, rest)?;
    let role = now.nodes.iter().find(|node| node.id == id);
    let role = role.and_then(|node| node.role);
    let begin_us = now_us();
    let clients = if spec.votes() {
        let clients = Clients::start(ensemble);
        clients.warm(Instant::now() + WARM_PATIENCE).await;
        Some(clients)
    } else {
        None
    };
    news.tell(News::Doing(format!("{id} is going")));
    take_out(lab, &spec, false).await?;
    let gone_ms = ms(now_us().saturating_sub(begin_us));
    let restarted = match clients {
        None => (Vec::new(), None),
        Some(clients) => {
            // Of two voters the one that stays serves only when it knows that it is alone.
            if rest.all > 1 {
                let serves = |lab: &Ensemble| lab.serving_leader().is_some();
                let deadline = Instant::now() + SERVE_PATIENCE;
                ensemble.until(deadline, serves).await;
            }
            renew(lab, &now, id, clients, news).await?
        }
    };
    Ok(MemberReport {
        role,
        ms: gone_ms,
        ..report(ensemble, "rm", &spec, restarted)
    })
}

/// May this node go?
fn check(lab: &Ensemble, now: &Status, spec: &NodeSpec, rest: Voters) -> Result<(), Failure> {
    let id = spec.id;
    if !spec.votes() {
        return Ok(());
    }
    if rest.all == 0 {
        return Err(Failure::usage(format!(
            "{id} is the only voter of lab {}: nothing would be left that can serve",
            lab.spec.name
        ))
        .hint("`zklab down` ends a lab; `zklab add` makes another voter first"));
    }
    if rest.serving < rest.need() {
        return Err(Failure::usage(format!(
            "without {id} no quorum would serve: of the other {} voters {} serve, and {} must",
            rest.all,
            rest.serving,
            rest.need()
        ))
        .hint("`zklab start all` starts what is down, `zklab heal` takes faults out"));
    }
    if !now.quorum {
        return Err(Failure::usage(format!(
            "{id} can go only while a quorum serves, and none does"
        ))
        .hint("`zklab status` shows the nodes"));
    }
    Ok(())
}

/// Ends a node and takes away everything that is its own.
async fn take_out(lab: &Lab, spec: &NodeSpec, at_once: bool) -> Result<(), Failure> {
    let (ensemble, id) = (&lab.ensemble, spec.id);
    if ensemble.view(id).process.is_some() {
        let signal = if at_once {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        };
        ensemble.signal(id, signal)?;
        // A stopped process takes no notice of SIGTERM before it goes on.
        ensemble.signal(id, Signal::SIGCONT)?;
        if ensemble.gone(id, STOP_PATIENCE).await.is_err() {
            ensemble.signal(id, Signal::SIGKILL)?;
            ensemble.gone(id, STOP_PATIENCE).await?;
        }
    }
    let healed = forget(lab, spec)?;
    network::tell_healed(ensemble, healed).await?;
    Ok(())
}

/// Nobody knows the node any more: neither the lab nor, on disk, the others.
fn forget(lab: &Lab, spec: &NodeSpec) -> Result<Healed, Failure> {
    let (ensemble, id) = (&lab.ensemble, spec.id);
    let now = now_us();
    for fault in ensemble.standing_on(id, |what| !what.is_of_network()) {
        ensemble.fault_off(now, &fault.id);
    }
    // Nothing is awaited in between: nobody sees links that only one of the two knows.
    let healed = lab.board.leave(&*ensemble.net, id);
    ensemble.net.leave(id);
    ensemble.leave(id);
    let kind = LabEventKind::NodeRemoved {
        membership: spec.membership,
    };
    ensemble.journal.push(now, Some(id), Source::Lab, kind);
    ensemble.write_configuration()?;
    if !ensemble.spec.keep_data && spec.dir.exists() {
        fs::remove_dir_all(&spec.dir).doing(|| format!("cannot remove {}", spec.dir.display()))?;
    }
    lab.note(ensemble.ids(), ensemble.spec.keep_data)?;
    Ok(healed)
}
