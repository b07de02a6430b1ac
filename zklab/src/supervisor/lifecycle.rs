//! Starting, ending, pausing and restarting nodes of a lab that is up.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::network::Span;
use super::power::PowerCut;
use super::protocol::{Act, ActReport, Death, News};
use super::{Lab, NewsSink, network};
use crate::clock::{ms, now_us};
use crate::ensemble::status::{self, NodeStatus, Status};
use crate::ensemble::{Ensemble, select};
use crate::event::FaultKind;
use crate::failure::{Exit, Failure};
use crate::id::NodeId;
use crate::net::Door;
use crate::node::ServerKind;
use crate::observe::clients::Clients;

/// How long a server may take to end by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a killed process may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may take to serve.
const SERVE_PATIENCE: Duration = Duration::from_secs(30);

/// How nodes die.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way<'a> {
    /// As processes or as hosts.
    pub death: Death,
    /// Their power is cut too.
    pub power: Option<&'a PowerCut>,
}

/// How to restart.
#[derive(Clone, Debug)]
pub struct Restart {
    /// One after another, the leader last.
    pub rolling: bool,
    /// With SIGKILL.
    pub hard: bool,
    /// With this server from now on.
    pub server: Option<ServerKind>,
}

/// The nodes meant, with the state everybody is in now.
pub(super) async fn choose(
    lab: &Ensemble,
    words: &[String],
) -> Result<(Vec<NodeId>, Status), Failure> {
    let now = status::probe(lab).await;
    let nodes = select::nodes(lab, &now, words)?;
    Ok((nodes, now))
}

/// Was the node the leader when that status was taken?
fn led(now: &Status, id: NodeId) -> bool {
    now.leader == Some(id)
}

/// Voters that run.
fn running(lab: &Ensemble) -> usize {
    let views = lab.views().into_iter();
    views
        .filter(|(id, view)| view.process.is_some() && lab.node(*id).votes())
        .count()
}

pub(super) fn report(lab: &Ensemble, cmd: &str, nodes: Vec<Act>) -> ActReport {
    let have = running(lab);
    ActReport {
        v: 1,
        cmd: cmd.to_owned(),
        lab: lab.spec.name.clone(),
        nodes,
        quorum: have >= lab.quorum_size(),
        have,
        need: lab.quorum_size(),
        writes_paused_ms: None,
        exit: Exit::Ok,
    }
}

/// The way into the namespaces of the one node that `word` names.
///
/// # Errors
/// If it names none or several; if the lab has no namespaces.
pub async fn door(lab: &Ensemble, word: &str) -> Result<Door, Failure> {
    let (nodes, _) = choose(lab, &[word.to_owned()]).await?;
    let [node] = nodes[..] else {
        return Err(Failure::usage(format!("{word:?} is more than one node")));
    };
    lab.net.door(node).ok_or_else(|| {
        Failure::usage(format!(
            "the nodes of lab {} have no network of their own ({} network)",
            lab.spec.name,
            lab.net.kind()
        ))
        .hint("`zklab up --net auto` makes a lab in which they have")
    })
}

/// Starts nodes that are down and waits until they serve, if a quorum can.
///
/// # Errors
/// If a node cannot be started.
pub async fn start(whole: &Lab, words: &[String]) -> Result<ActReport, Failure> {
    let lab = &*whole.ensemble;
    let (nodes, _) = choose(lab, words).await?;
    let begin = now_us();
    let already: Vec<NodeId> = nodes
        .iter()
        .copied()
        .filter(|id| lab.view(*id).process.is_some())
        .collect();
    for id in &nodes {
        whole.start(*id)?;
    }
    let fresh: Vec<NodeId> = nodes
        .iter()
        .copied()
        .filter(|id| !already.contains(id))
        .collect();
    settle(lab, &fresh).await;
    let mut exit = Exit::Ok;
    let acts = nodes
        .iter()
        .map(|id| {
            if already.contains(id) {
                return act(lab, *id, "runs already".to_owned(), None, false);
            }
            let (act, good) = started(lab, *id, begin);
            if !good {
                exit = Exit::Missed;
            }
            act
        })
        .collect();
    let mut report = report(lab, "start", acts);
    report.exit = if report.quorum { exit } else { Exit::Ok };
    Ok(report)
}

/// Waits until these nodes serve, or have ended, or cannot serve for want of a quorum.
async fn settle(lab: &Ensemble, nodes: &[NodeId]) {
    let patience = if running(lab) >= lab.quorum_size() {
        SERVE_PATIENCE
    } else {
        // Nobody can serve: it is enough that they have started.
        Duration::from_millis(200)
    };
    lab.until(Instant::now() + patience, |lab| {
        nodes.iter().all(|id| {
            let view = lab.view(*id);
            view.serving || view.process.is_none()
        })
    })
    .await;
}

/// What became of a node that was started at `begin`; whether it serves.
fn started(lab: &Ensemble, id: NodeId, begin: u64) -> (Act, bool) {
    let view = lab.view(id);
    let took = ms(view.serving_us.saturating_sub(begin));
    if view.serving {
        let role = view.state.map(|role| role.to_string()).unwrap_or_default();
        (
            act(lab, id, format!("serving, {role}"), Some(took), false),
            true,
        )
    } else if let (None, Some(end)) = (view.process, view.end) {
        let text = format!("died ({}); see `zklab logs {id}`", end.how);
        (act(lab, id, text, None, false), false)
    } else {
        (
            act(lab, id, "started, looking".to_owned(), None, false),
            false,
        )
    }
}

fn act(lab: &Ensemble, id: NodeId, text: String, ms: Option<f64>, leader: bool) -> Act {
    Act {
        id,
        text,
        ms,
        leader,
        pid: lab.view(id).process.map(|process| process.pid()),
    }
}

/// Ends nodes gently, and starts them again later if that is asked.
///
/// # Errors
/// If one does not end.
pub async fn stop(lab: &Arc<Lab>, words: &[String], span: Span) -> Result<ActReport, Failure> {
    let (nodes, now) = choose(&lab.ensemble, words).await?;
    let report = end(lab, "stop", &nodes, &now, Signal::SIGTERM, Death::Process).await?;
    start_later(lab, nodes, span, report).await
}

/// Ends nodes with a signal, and starts them again later if that is asked.
///
/// # Errors
/// If there is no such signal, a node does not end of it, or hosts cannot be lost here.
pub async fn kill(
    lab: &Arc<Lab>,
    words: &[String],
    signal: i32,
    way: Way<'_>,
    span: Span,
) -> Result<ActReport, Failure> {
    let signal = Signal::try_from(signal)
        .map_err(|_| Failure::usage(format!("there is no signal {signal}")))?;
    check_death(&lab.ensemble, signal, way.death)?;
    let (nodes, now) = choose(&lab.ensemble, words).await?;
    if let Some(power) = way.power {
        power.check(&lab.ensemble, signal)?;
    }
    let mut report = end(lab, "kill", &nodes, &now, signal, way.death).await?;
    if let Some(power) = way.power {
        power.cut(&lab.ensemble, &mut report).await?;
    }
    start_later(lab, nodes, span, report).await
}

/// Can nodes die like this here?
///
/// # Errors
/// If not.
pub(super) fn check_death(lab: &Ensemble, signal: Signal, death: Death) -> Result<(), Failure> {
    if death == Death::Process {
        return Ok(());
    }
    if signal != Signal::SIGKILL {
        return Err(Failure::usage(format!(
            "a host that is gone sends no {signal} to its processes: --as host goes with KILL only"
        )));
    }
    if lab.net.links().is_none() {
        return Err(Failure::usage(format!(
            "lab {} cannot lose a host: its network is {}, and has no links to cut",
            lab.spec.name,
            lab.net.kind()
        ))
        .hint("`zklab up --net auto` makes a lab that can; `--as process` works in every lab"));
    }
    Ok(())
}

/// Starts nodes again after a time, and waits for that if it is asked.
async fn start_later(
    lab: &Arc<Lab>,
    nodes: Vec<NodeId>,
    span: Span,
    mut report: ActReport,
) -> Result<ActReport, Failure> {
    let Some(after_ms) = span.for_ms else {
        return Ok(report);
    };
    let starter = {
        let (lab, nodes) = (Arc::clone(lab), nodes.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            for id in nodes {
                if let Err(failure) = lab.start(id) {
                    tracing::error!(%id, %failure, "could not be started again");
                }
            }
        })
    };
    if span.wait {
        // The task cannot panic; if it was cancelled the process is ending.
        let _ = starter.await;
        let deadline = Instant::now() + SERVE_PATIENCE;
        if !lab
            .ensemble
            .until(deadline, |lab| are_back(lab, &nodes))
            .await
        {
            report.exit = Exit::Missed;
        }
        for act in &mut report.nodes {
            act.text = format!("{}, started again", act.text);
            act.pid = lab
                .ensemble
                .view(act.id)
                .process
                .map(|process| process.pid());
        }
        let (have, need) = (running(&lab.ensemble), lab.ensemble.quorum_size());
        report.have = have;
        report.quorum = have >= need;
    }
    Ok(report)
}

async fn end(
    whole: &Lab,
    cmd: &str,
    nodes: &[NodeId],
    now: &Status,
    signal: Signal,
    death: Death,
) -> Result<ActReport, Failure> {
    let lab = &*whole.ensemble;
    let begin = now_us();
    let mut down = Vec::new();
    for id in nodes {
        if lab.view(*id).process.is_none() {
            down.push(*id);
            continue;
        }
        end_with(whole, *id, signal, death).await?;
        if is_paused(now, *id) && signal != Signal::SIGKILL {
            // A stopped process notices nothing before it goes on.
            lab.signal(*id, Signal::SIGCONT)?;
        }
    }
    let patience = if signal == Signal::SIGKILL {
        KILL_PATIENCE
    } else {
        STOP_PATIENCE
    };
    let mut acts = Vec::new();
    for id in nodes {
        if down.contains(id) {
            acts.push(act(lab, *id, "is down already".to_owned(), None, false));
            continue;
        }
        lab.gone(*id, patience).await?;
        let how = lab.view(*id).end.map(|end| end.how.to_string());
        let cut = match death {
            Death::Process => "",
            Death::Host => "links cut, ",
        };
        let text = format!("{cut}ended ({})", how.unwrap_or_default());
        let took = ms(now_us() - begin);
        acts.push(act(lab, *id, text, Some(took), led(now, *id)));
    }
    Ok(report(lab, cmd, acts))
}

/// Sends a signal that ends a node, after cutting its links if its host is to be gone; tells the fault, and
/// when the signal was sent.
pub(super) async fn end_with(
    lab: &Lab,
    id: NodeId,
    signal: Signal,
    death: Death,
) -> Result<u64, Failure> {
    let ensemble = &lab.ensemble;
    let (what, text, brief) = match (signal, death) {
        (_, Death::Host) => (
            FaultKind::Kill,
            format!("the host of {id} is gone"),
            "host gone",
        ),
        (Signal::SIGTERM, _) => (FaultKind::Stop, format!("{signal} to {id}"), "stopped"),
        _ => (FaultKind::Kill, format!("{signal} to {id}"), "killed"),
    };
    let mut fault = ensemble.new_fault(what, text).on_nodes([id]).brief(brief);
    if death == Death::Host {
        network::cut_host(lab, id, &mut fault).await?;
    }
    let at_us = match ensemble.signal(id, signal) {
        Ok(at_us) => at_us,
        Err(failure) => {
            // It went down by itself this moment: then nothing stands that could be healed later.
            drop(lab.board.heal(&*ensemble.net, |known| known == fault.id));
            return Err(failure);
        }
    };
    ensemble.fault_on(at_us, fault);
    Ok(at_us)
}

fn is_paused(now: &Status, id: NodeId) -> bool {
    let paused = |node: &&NodeStatus| node.id == id && node.state == status::State::Paused;
    now.nodes.iter().any(|node| paused(&node))
}

/// Stops nodes in their tracks, for a time if that is given.
///
/// # Errors
/// If one is down.
pub async fn pause(
    lab: &Arc<Ensemble>,
    words: &[String],
    for_ms: Option<u64>,
    wait: bool,
) -> Result<ActReport, Failure> {
    let (nodes, now) = choose(lab, words).await?;
    for id in &nodes {
        set_paused(lab, *id, true)?;
    }
    let mut acts: Vec<Act> = Vec::new();
    for id in &nodes {
        let text = match for_ms {
            Some(for_ms) if for_ms % 1000 == 0 => format!("paused for {} s", for_ms / 1000),
            Some(for_ms) => format!("paused for {for_ms} ms"),
            None => "paused".to_owned(),
        };
        acts.push(act(lab, *id, text, None, led(&now, *id)));
    }
    let mut report = report(lab, "pause", acts);
    if let Some(for_ms) = for_ms {
        let resumer = tokio::spawn(resume_later(Arc::clone(lab), nodes.clone(), for_ms));
        if wait {
            // The task cannot panic; if it was cancelled the process is ending.
            let _ = resumer.await;
            let deadline = Instant::now() + SERVE_PATIENCE;
            if !lab.until(deadline, |lab| are_back(lab, &nodes)).await {
                report.exit = Exit::Missed;
            }
            for act in &mut report.nodes {
                act.text = format!("{}, resumed", act.text);
            }
        }
    }
    Ok(report)
}

/// Do they all serve in the epoch of the present leader? One that was paused believes in the past first.
fn are_back(lab: &Ensemble, nodes: &[NodeId]) -> bool {
    let epoch = lab.serving_leader().map_or(0, |(_, view)| view.epoch);
    nodes.iter().all(|id| {
        let view = lab.view(*id);
        view.serving && view.epoch >= epoch
    })
}

async fn resume_later(lab: Arc<Ensemble>, nodes: Vec<NodeId>, after_ms: u64) {
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    for id in nodes {
        // It may have been killed meanwhile.
        let _ = set_paused(&lab, id, false);
    }
}

pub(super) fn set_paused(lab: &Ensemble, id: NodeId, paused: bool) -> Result<(), Failure> {
    let signal = if paused {
        Signal::SIGSTOP
    } else {
        Signal::SIGCONT
    };
    let at_us = lab.signal(id, signal)?;
    let standing = lab.standing_on(id, |what| what == FaultKind::Pause);
    if !paused {
        for fault in standing {
            lab.fault_off(at_us, &fault.id);
        }
    } else if standing.is_empty() {
        let fault = lab.new_fault(FaultKind::Pause, format!("pause {id}"));
        lab.fault_on(at_us, fault.on_nodes([id]).brief("paused"));
    }
    Ok(())
}

/// Lets paused nodes go on.
///
/// # Errors
/// If one is down.
pub async fn resume(lab: &Arc<Ensemble>, words: &[String]) -> Result<ActReport, Failure> {
    let (nodes, now) = choose(lab, words).await?;
    let mut acts = Vec::new();
    for id in &nodes {
        set_paused(lab, *id, false)?;
        let text = if is_paused(&now, *id) {
            "goes on"
        } else {
            "was not paused"
        };
        acts.push(act(lab, *id, text.to_owned(), None, false));
    }
    Ok(report(lab, "resume", acts))
}

/// Ends nodes and starts them again.
///
/// # Errors
/// If one does not end or cannot be started; rolling: if one does not serve again, the rest is left alone.
pub async fn restart(
    whole: &Lab,
    words: &[String],
    how: &Restart,
    news: &NewsSink,
) -> Result<ActReport, Failure> {
    let lab = &whole.ensemble;
    let (mut nodes, now) = choose(lab, words).await?;
    if let Some(server) = &how.server {
        for id in &nodes {
            lab.set_server(*id, server.clone());
        }
    }
    if !how.rolling {
        let begin = now_us();
        for id in &nodes {
            end_one(lab, *id, how.hard).await?;
        }
        for id in &nodes {
            whole.start(*id)?;
        }
        settle(lab, &nodes).await;
        let (acts, good): (Vec<Act>, Vec<bool>) =
            nodes.iter().map(|id| started(lab, *id, begin)).unzip();
        let mut report = report(lab, "restart", acts);
        if report.quorum && good.contains(&false) {
            report.exit = Exit::Missed;
        }
        return Ok(report);
    }
    nodes.sort_by_key(|id| led(&now, *id));
    roll(whole, &nodes, &now, how, news).await
}

async fn roll(
    whole: &Lab,
    nodes: &[NodeId],
    now: &Status,
    how: &Restart,
    news: &NewsSink,
) -> Result<ActReport, Failure> {
    let lab = &whole.ensemble;
    if !now.quorum {
        return Err(Failure::new(
            Exit::Missed,
            "a rolling restart needs a quorum that serves, and there is none; nothing was touched",
        )
        .hint("`zklab restart all` restarts everything at once"));
    }
    let clients = Clients::start(lab);
    clients.warm(Instant::now() + Duration::from_secs(5)).await;
    let acts = roll_each(whole, nodes, now.leader, how.hard, news).await?;
    let paused = clients.longest_pause_us();
    let (_, findings) = clients.finish().await;
    let mut report = report(lab, "restart", acts);
    report.writes_paused_ms = Some(ms(paused));
    if !findings.is_empty() {
        return Err(Failure::new(Exit::Bug, findings.join("; ")));
    }
    Ok(report)
}

/// Ends and starts these nodes, one after another, each when the one before serves under a leader.
///
/// # Errors
/// If one does not serve again; the rest is left alone.
pub(super) async fn roll_each(
    whole: &Lab,
    nodes: &[NodeId],
    leader: Option<NodeId>,
    hard: bool,
    news: &NewsSink,
) -> Result<Vec<Act>, Failure> {
    let lab = &whole.ensemble;
    let mut acts = Vec::new();
    for id in nodes {
        let begin = now_us();
        end_one(lab, *id, hard).await?;
        whole.start(*id)?;
        settle(lab, &[*id]).await;
        let (mut one, good) = started(lab, *id, begin);
        if !good {
            return Err(Failure::new(
                Exit::Missed,
                format!("{id} does not serve again, so the others were left alone"),
            )
            .hint(format!("`zklab logs {id}` may say why")));
        }
        one.leader = leader == Some(*id);
        // The next one may go only when a leader serves again and this one follows it.
        lab.until(Instant::now() + SERVE_PATIENCE, |lab| {
            lab.serving_leader().is_some() && lab.view(*id).serving
        })
        .await;
        news.tell(News::Act(one.clone()));
        acts.push(one);
    }
    Ok(acts)
}

async fn end_one(lab: &Ensemble, id: NodeId, hard: bool) -> Result<(), Failure> {
    if lab.view(id).process.is_none() {
        return Ok(());
    }
    let signal = if hard {
        Signal::SIGKILL
    } else {
        Signal::SIGTERM
    };
    let at_us = lab.signal(id, signal)?;
    let fault = lab.new_fault(FaultKind::Restart, format!("restart {id} ({signal})"));
    lab.fault_on(at_us, fault.on_nodes([id]).brief("restarting"));
    lab.gone(id, STOP_PATIENCE).await
}
