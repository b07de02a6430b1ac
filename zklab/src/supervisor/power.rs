//! Power cuts, and syncs that are slow or fail: faults of labs that watch their disks (`up --disk-faults`).

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::lifecycle::{choose, report};
use super::protocol::{Act, ActReport, DiskRequest};
use crate::clock::now_us;
use crate::disk::{NodeDisk, Orders};
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
        watches(lab)
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

fn watches(lab: &Ensemble) -> Result<(), Failure> {
    if lab.spec.disk_faults {
        return Ok(());
    }
    let name = &lab.spec.name;
    Err(
        Failure::usage(format!("lab {name} does not watch what its servers sync"))
            .hint("`zklab up --disk-faults` makes a lab that does"),
    )
}

fn disk_of(lab: &Ensemble, id: NodeId) -> Result<Arc<NodeDisk>, Failure> {
    lab.disk(id)?
        .ok_or_else(|| Failure::usage(format!("the disk of {id} is not watched")))
}

/// Lets the syncs of nodes be slow or fail.
///
/// # Errors
/// If the lab does not watch its disks, there is no such node, or nothing is asked for.
pub async fn disk(lab: &Arc<Ensemble>, request: &DiskRequest) -> Result<ActReport, Failure> {
    watches(lab)?;
    if request.slow_fsync_ms == 0 && request.fail_every == 0 {
        return Err(Failure::usage("what is to be wrong with the disk?")
            .hint("--slow-fsync 50ms, or --fail-fsync eio --every 25; `zklab heal disk` ends it"));
    }
    let orders = Orders {
        slow: Duration::from_millis(request.slow_fsync_ms),
        fail_every: request.fail_every,
    };
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
    if let Some(for_ms) = request.for_ms {
        let lab = Arc::clone(lab);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(for_ms)).await;
            for (id, name) in ids {
                // Somebody may have healed it, or put another in its place.
                if lab.standing().iter().any(|fault| fault.id == name)
                    && let Err(failure) = clear(&lab, id)
                {
                    tracing::error!(%id, %failure, "the disk stays bad");
                }
            }
        });
    }
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
    let parts: Vec<String> = slow.into_iter().chain(fails).collect();
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
