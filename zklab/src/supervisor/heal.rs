//! `heal`: taking faults out, whatever their kind, and watching what comes of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::network::tell_healed;
use super::protocol::HealReport;
use super::{Lab, clocks, lifecycle, network, power, wire};
use crate::clock::{ms, now_us};
use crate::ensemble::Ensemble;
use crate::ensemble::faults::Fault;
use crate::event::FaultKind;
use crate::failure::{Exit, Failure, nearest};
use crate::fault::partition::Pair;
use crate::fault::words::Names;
use crate::id::NodeId;

/// How long a heal waits for the first packet on a link that was opened.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// How long `--wait` waits until every voter serves again.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);

/// The words that name many faults.
const SCOPES: [&str; 5] = ["all", "net", "proc", "disk", "clock"];

/// Which faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    All,
    /// Those of the network.
    Net,
    /// Those of processes: killed, stopped and paused nodes.
    Proc,
    /// Those of disks.
    Disk,
    /// Those of clocks.
    Clock,
    /// One.
    One(String),
    /// Those on these nodes, by number, and between them.
    Core(Vec<usize>),
}

impl Scope {
    fn includes(&self, fault: &Fault) -> bool {
        match self {
            Self::All => true,
            Self::Net => fault.what.is_of_network(),
            Self::Proc => fault.what.is_of_process(),
            Self::Disk => fault.what == FaultKind::Disk,
            Self::Clock => fault.what == FaultKind::Clock,
            Self::One(id) => fault.id == *id,
            Self::Core(nodes) => {
                let is_inside = |id: &NodeId| nodes.contains(&id.place());
                if matches!(fault.what, FaultKind::Drop | FaultKind::Hold) {
                    return fault.links.iter().any(|link| {
                        let mut ends = link.split('>').filter_map(|id| id.parse().ok());
                        ends.all(|id| is_inside(&id))
                    });
                }
                !fault.what.is_of_network() && fault.nodes.iter().all(is_inside)
            }
        }
    }
}

/// Takes faults out: all of them, those of a kind, one, or what is on the nodes of a core.
///
/// # Errors
/// If there is no such fault or node.
pub async fn heal(
    lab: &Arc<Lab>,
    what: Option<&str>,
    core: &[String],
    wait: bool,
) -> Result<HealReport, Failure> {
    let ensemble = &lab.ensemble;
    if !core.is_empty() {
        let names = Names::of(ensemble, core).await;
        let mut nodes = Vec::new();
        for word in core {
            nodes.extend(names.nodes(word)?);
        }
        return scope(lab, &Scope::Core(nodes), wait).await;
    }
    let chosen = match what {
        None | Some("all") => Scope::All,
        Some("net") => {
            network::emulator(ensemble)?;
            Scope::Net
        }
        Some("proc") => Scope::Proc,
        Some("disk") => Scope::Disk,
        Some("clock") => Scope::Clock,
        Some(id) if ensemble.standing().iter().any(|fault| fault.id == id) => {
            Scope::One(id.to_owned())
        }
        Some(id) => return Err(no_such_fault(ensemble, id)),
    };
    scope(lab, &chosen, wait).await
}

fn no_such_fault(lab: &Ensemble, id: &str) -> Failure {
    let standing: Vec<String> = lab.standing().into_iter().map(|fault| fault.id).collect();
    let known = standing.iter().map(String::as_str).chain(SCOPES);
    let guess = nearest(id, known)
        .filter(|_| id.len() > 2)
        .map(|word| format!("; did you mean {word}?"))
        .unwrap_or_default();
    Failure::usage(format!("there is no fault {id:?}{guess}")).hint(if standing.is_empty() {
        "no fault stands in this lab".to_owned()
    } else {
        format!("faults that stand: {}", standing.join(" "))
    })
}

/// Takes these faults out, and tells what came of it.
///
/// # Errors
/// If a node cannot be started again.
pub async fn scope(lab: &Arc<Lab>, scope: &Scope, wait: bool) -> Result<HealReport, Failure> {
    let ensemble = &lab.ensemble;
    let begin = now_us();
    let chosen: Vec<Fault> = ensemble
        .standing()
        .into_iter()
        .filter(|fault| scope.includes(fault))
        .collect();
    // The links of a host that is gone heal when its node is started.
    let is_of_network = |fault: &Fault, id: &str| fault.id == id && fault.what.is_of_network();
    let healed = match scope {
        Scope::Core(nodes) => {
            let standing = ensemble.standing();
            lab.board.heal_core(&*ensemble.net, nodes, |id| {
                standing.iter().any(|fault| is_of_network(fault, id))
            })
        }
        _ => lab.board.heal(&*ensemble.net, |id| {
            chosen.iter().any(|fault| is_of_network(fault, id))
        }),
    };
    let (mut at_us, mut ids, opened) = tell_healed(ensemble, healed).await?;
    for fault in &chosen {
        if !ids.contains(&fault.id) {
            at_us = at_us.max(undo(lab, fault).await?);
            ids.push(fault.id.clone());
        }
    }
    let first_us = first_delivery(ensemble, &opened).await;
    let mut report = HealReport {
        v: 1,
        cmd: "heal".to_owned(),
        lab: ensemble.spec.name.clone(),
        healed: ids,
        effective_us: at_us.saturating_sub(begin),
        first_delivery_ms: first_us.map(|first| ms(first.saturating_sub(at_us))),
        serving_ms: None,
        serving: 0,
        voters: ensemble.voters().len(),
        exit: Exit::Ok,
    };
    if wait {
        if serves_again(ensemble, scope).await {
            report.serving_ms = Some(ms(now_us().saturating_sub(at_us)));
        } else {
            report.exit = Exit::Missed;
        }
    }
    let voters = ensemble.voters().into_iter();
    report.serving = voters.filter(|id| ensemble.view(*id).serving).count();
    Ok(report)
}

/// Undoes what a fault did beside links; when, by the system's clock.
async fn undo(lab: &Lab, fault: &Fault) -> Result<u64, Failure> {
    for id in &fault.nodes {
        match fault.what {
            FaultKind::Pause => lifecycle::set_paused(&lab.ensemble, *id, false)?,
            FaultKind::Kill | FaultKind::Stop | FaultKind::Restart => lab.start(*id)?,
            // Their links are clean already, and there is nothing else to them.
            FaultKind::Partition | FaultKind::Link | FaultKind::Drop | FaultKind::Hold => {}
            FaultKind::Disk => power::clear(&lab.ensemble, *id)?,
            FaultKind::Clock => clocks::clear(&lab.ensemble, *id)?,
        }
    }
    if matches!(fault.what, FaultKind::Drop | FaultKind::Hold) {
        return wire::let_go(lab, fault).await;
    }
    Ok(now_us())
}

/// Waits until there is a leader and everybody who runs (or belongs to the core) serves.
async fn serves_again(lab: &Ensemble, scope: &Scope) -> bool {
    let waited_for: Vec<NodeId> = match scope {
        Scope::Core(nodes) => nodes.iter().map(|n| NodeId::at(*n)).collect(),
        _ => lab.voters(),
    };
    let serves = |lab: &Ensemble| {
        let leader = lab.serving_leader();
        leader.is_some_and(|(_, leader)| {
            waited_for.iter().all(|id| {
                let view = lab.view(*id);
                // One that was cut off believes in the past first.
                view.serving && view.epoch >= leader.epoch || view.process.is_none()
            })
        })
    };
    lab.until(Instant::now() + SERVE_PATIENCE, serves).await
}

/// When the first packet came over one of these links, if one does soon.
async fn first_delivery(lab: &Ensemble, opened: &[Pair]) -> Option<u64> {
    let emulator = lab.net.links()?;
    let deadline = Instant::now() + FIRST_PATIENCE;
    while !opened.is_empty() && Instant::now() < deadline {
        let firsts = opened
            .iter()
            .map(|(a, b)| emulator.traffic(*a, *b).first_us);
        if let Some(first) = firsts.filter(|first| *first > 0).min() {
            return Some(first);
        }
        sleep(Duration::from_millis(1)).await;
    }
    None
}
