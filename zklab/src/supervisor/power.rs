//! Power cuts, syncs that are slow or fail, and full disks: faults of labs that watch their disks (`up --disk-faults`,
//! `--disk-writes`); and bits that turn over while a node is down.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use zkd::prng::Prng;

use super::lifecycle::{choose, report};
use super::orders::{DiskRequest, undo_later};
use super::protocol::{Act, ActReport};
use crate::clock::now_us;
use crate::disk::{Flip, NodeDisk, Orders, Watch};
use crate::ensemble::Ensemble;
use crate::event::FaultKind;
use crate::failure::{Context, Failure};
use crate::id::NodeId;

/// How the power of a killed node is cut.
#[derive(Clone, Copy, Debug)]
pub struct PowerCut {
    /// The txn logs keep a part of what was not synced.
    pub torn: bool,
    /// Fixes which part.
    pub seed: u64,
}

impl PowerCut {
    /// Whether it can be done, before anything is touched.
    ///
    /// # Errors
    /// If the lab does not watch its disks, or the nodes would not die at once.
    pub fn check(&self, lab: &Ensemble, signal: Signal) -> Result<(), Failure> {
        if signal != Signal::SIGKILL {
            return Err(
                Failure::usage(format!("a power cut leaves no time for {signal}"))
                    .hint("leave --signal out"),
            );
        }
        watches(lab, Watch::Syncs)
    }

    /// Takes from the nodes that were just killed what they had not synced, and tells it.
    ///
    /// # Errors
    /// If their files cannot be changed.
    pub async fn cut(&self, lab: &Ensemble, report: &mut ActReport) -> Result<(), Failure> {
        let mut cuts = Vec::new();
        for act in report.nodes.iter().filter(|act| act.pid.is_none()) {
            let seed = self.seed ^ (u64::from(act.id.0) << 32) ^ lab.start_us ^ now_us();
            let (disk, torn) = (disk_of(lab, act.id)?, self.torn);
            let cut = tokio::task::spawn_blocking(move || disk.cut(torn, seed));
            cuts.push((act.id, cut));
        }
        for (id, cut) in cuts {
            let taken = cut.await.doing(|| "the power cut broke off".to_owned())??;
            let fault = lab.new_fault(FaultKind::Disk, format!("power cut of {id}: {taken}"));
            lab.fault_happened(now_us(), &fault.on_nodes([id]));
            if let Some(act) = report.nodes.iter_mut().find(|act| act.id == id) {
                act.text = format!("{}, {taken}", act.text);
            }
        }
        Ok(())
    }
}

fn watches(lab: &Ensemble, what: Watch) -> Result<(), Failure> {
    if lab.spec.disks >= what {
        return Ok(());
    }
    let (verb, option) = match what {
        Watch::Writes => ("write", "--disk-writes"),
        _ => ("sync", "--disk-faults"),
    };
    let name = &lab.spec.name;
    Err(
        Failure::usage(format!("lab {name} does not watch what its servers {verb}"))
            .hint(format!("`zklab up {option}` makes a lab that does")),
    )
}

/// Turns over a bit in a file of nodes that are down.
async fn turn_over(
    lab: &Arc<Ensemble>,
    words: &[String],
    flip: Flip,
) -> Result<ActReport, Failure> {
    let (nodes, _) = choose(lab, words).await?;
    if let Some(id) = nodes.iter().find(|id| lab.view(**id).process.is_some()) {
        return Err(Failure::usage(format!(
            "{id} runs, and would not read what is turned over on its disk"
        ))
        .hint(format!(
            "`zklab kill {id}` first, and `zklab start {id}` afterwards"
        )));
    }
    let mut acts = Vec::new();
    for id in nodes {
        let cannot = || format!("cannot change the files of {id}");
        let seed = u64::from(id.0) << 32 ^ lab.start_us ^ now_us();
        let root = lab.node(id).data_dir();
        let flipped = flip.one(&root, &mut Prng::new(seed)).doing(cannot)?;
        let flipped = flipped
            .ok_or_else(|| Failure::usage(format!("{id} has no such file with something in it")))?;
        if let Some(disk) = lab.disk(id)? {
            disk.take_stock().doing(cannot)?;
        }
        let fault = lab.new_fault(FaultKind::Disk, format!("bit flip on {id}: {flipped}"));
        lab.fault_happened(now_us(), &fault.on_nodes([id]));
        acts.push(Act {
            id,
            text: flipped.to_string(),
            ms: None,
            leader: false,
            pid: None,
        });
    }
    Ok(report(lab, "disk", acts))
}

fn disk_of(lab: &Ensemble, id: NodeId) -> Result<Arc<NodeDisk>, Failure> {
    lab.disk(id)?
        .ok_or_else(|| Failure::usage(format!("the disk of {id} is not watched")))
}

/// Makes the disks of nodes bad.
///
/// # Errors
/// If the lab does not watch its disks enough, there is no such node, or nothing is asked for.
pub async fn disk(lab: &Arc<Ensemble>, request: &DiskRequest) -> Result<ActReport, Failure> {
    if let Some(flip) = request.bitflip {
        return turn_over(lab, &request.nodes, flip).await;
    }
    let orders = Orders {
        slow: Duration::from_millis(request.slow_fsync_ms),
        fail_every: request.fail_every,
        full: request.full,
    };
    if orders == Orders::default() {
        return Err(Failure::usage("what is to be wrong with the disk?").hint(
            "--slow-fsync 50ms, --fail-fsync eio --every 25, --full, or --bitflip log; `zklab heal disk` ends it",
        ));
    }
    watches(
        lab,
        if request.full {
            Watch::Writes
        } else {
            Watch::Syncs
        },
    )?;
    let text = describe(orders);
    let (nodes, _) = choose(lab, &request.nodes).await?;
    let mut acts = Vec::new();
    let mut ids = Vec::new();
    for id in nodes {
        let disk = disk_of(lab, id)?;
        clear(lab, id)?;
        disk.order(orders);
        let fault = lab.new_fault(FaultKind::Disk, format!("{text} on {id}"));
        let name = fault.id.clone();
        lab.fault_on(now_us(), fault.on_nodes([id]).brief(&text));
        acts.push(Act {
            id,
            text: format!("{name} {text}"),
            ms: None,
            leader: false,
            pid: lab.view(id).process.map(|process| process.pid()),
        });
        ids.push((id, name));
    }
    undo_later(lab, request.for_ms, ids, clear);
    Ok(report(lab, "disk", acts))
}

fn describe(orders: Orders) -> String {
    let slow =
        (!orders.slow.is_zero()).then(|| format!("slow-fsync {} ms", orders.slow.as_millis()));
    let fails = match orders.fail_every {
        0 => None,
        1 => Some("every sync fails".to_owned()),
        every => Some(format!("one sync of {every} fails")),
    };
    let full = orders.full.then(|| "full".to_owned());
    let parts: Vec<String> = slow.into_iter().chain(fails).chain(full).collect();
    parts.join(", ")
}

/// Makes the disk of a node good again.
///
/// # Errors
/// If its directory cannot be read.
pub fn clear(lab: &Ensemble, id: NodeId) -> Result<(), Failure> {
    if let Some(disk) = lab.disk(id)? {
        disk.order(Orders::default());
    }
    for fault in lab.standing_on(id, |what| what == FaultKind::Disk) {
        lab.fault_off(now_us(), &fault.id);
    }
    Ok(())
}
