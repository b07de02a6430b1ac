//! Wall clocks that are wrong.

use std::sync::Arc;

use super::lifecycle::{choose, report};
use super::orders::{ClockRequest, undo_later};
use super::protocol::{Act, ActReport};
use crate::clock::{ms, now_us};
use crate::ensemble::Ensemble;
use crate::event::FaultKind;
use crate::failure::{Context, Failure};
use crate::id::NodeId;
use crate::wall::{self, Skew};

/// Sets the wall clocks of nodes wrong, or right again. A node that is down has the wrong clock from its next start on.
///
/// # Errors
/// If this machine cannot, there is no such node, a process may not be touched, or nothing is asked for.
pub(super) async fn clock(
    lab: &Arc<Ensemble>,
    request: &ClockRequest,
) -> Result<ActReport, Failure> {
    wall::check()?;
    let is_true = request.jump_us == 0 && (request.rate - 1.0).abs() < f64::EPSILON;
    if is_true != request.reset {
        return Err(Failure::usage("what is the clock to show?").hint(
            "--jump +1h, --jump -30s, --rate 1.05 or --freeze; --reset alone makes it true again",
        ));
    }
    let skew = Skew::from_now(request.jump_us, request.rate)?;
    let (nodes, _) = choose(lab, &request.nodes).await?;
    let mut acts = Vec::new();
    let mut faults = Vec::new();
    for id in nodes {
        let began_us = now_us();
        clear_aside(lab, id).await?;
        let mut text = "wall clock as it should be".to_owned();
        if !request.reset {
            set_aside(lab, id, Some(skew)).await?;
            text = format!("wall clock {skew}");
            let fault = lab.new_fault(FaultKind::Clock, format!("{text} on {id}"));
            let name = fault.id.clone();
            lab.fault_on(
                now_us(),
                fault.on_nodes([id]).brief(format!("clock {skew}")),
            );
            text = format!("{name} {text}, monotonic clock untouched");
            faults.push((id, name));
        }
        let process = lab.view(id).process;
        acts.push(Act {
            id,
            text,
            ms: process.map(|_| ms(now_us() - began_us)),
            leader: false,
            pid: process.map(|process| process.pid()),
        });
    }
    undo_later(lab, request.for_ms, faults, clear);
    Ok(report(lab, "clock", acts))
}

/// Sets a clock beside the supervisor's other work: the process has to stand still first.
async fn set_aside(lab: &Arc<Ensemble>, id: NodeId, skew: Option<Skew>) -> Result<(), Failure> {
    let lab = Arc::clone(lab);
    let work = tokio::task::spawn_blocking(move || lab.set_wall_clock(id, skew));
    work.await
        .doing(|| "setting a clock broke off".to_owned())?
}

async fn clear_aside(lab: &Arc<Ensemble>, id: NodeId) -> Result<(), Failure> {
    let lab = Arc::clone(lab);
    let work = tokio::task::spawn_blocking(move || clear(&lab, id));
    work.await
        .doing(|| "setting a clock broke off".to_owned())?
}

/// Makes the wall clock of a node true again.
///
/// # Errors
/// If its process may not be touched.
pub(super) fn clear(lab: &Ensemble, id: NodeId) -> Result<(), Failure> {
    let faults = lab.standing_on(id, |what| what == FaultKind::Clock);
    if faults.is_empty() {
        return Ok(());
    }
    lab.set_wall_clock(id, None)?;
    for fault in faults {
        lab.fault_off(now_us(), &fault.id);
    }
    Ok(())
}
