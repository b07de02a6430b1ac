//! `kill-leader`: the leader dies, clients keep writing, and every phase of what follows is measured.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;
use zkd::ids::Zxid;

use super::protocol::{KillLeaderRequest, KillReport, News};
use super::{Lab, NewsSink, lifecycle};
use crate::clock::{ms, now_us};
use crate::ensemble::{Ensemble, status};
use crate::event::{LabEvent, LabEventKind, Source};
use crate::failure::{Exit, Failure};
use crate::id::NodeId;
use crate::observe::clients::Clients;
use crate::observe::waterfall::{self, Kill, Phases, PhasesTold, Reelection};

/// How long the clients may take to have their first write acknowledged before anything is killed.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long every client may take to be back after the first one was.
const ALL_BACK: Duration = Duration::from_secs(5);
/// How long a server that is started again may take to serve.
const RESTART_PATIENCE: Duration = Duration::from_secs(30);
/// How long the last events of an election may be on their way.
const FEED_PATIENCE: Duration = Duration::from_millis(300);

/// Kills the leader as often as asked.
///
/// # Errors
/// If there is no leader, a kill would leave no quorum, or no write is acknowledged in time.
pub async fn run(
    lab: &Lab,
    request: &KillLeaderRequest,
    news: &NewsSink,
) -> Result<KillReport, Failure> {
    let ensemble = &lab.ensemble;
    lifecycle::check_death(ensemble, Signal::SIGKILL, request.death)?;
    leader_to_kill(ensemble).await?;
    let seq = ensemble.journal.tip();
    let clients = Clients::start(ensemble);
    if !clients.warm(Instant::now() + WARM_UP).await {
        return Err(Failure::new(
            Exit::Missed,
            "the ensemble takes no writes, so nothing can be measured; nothing was killed",
        )
        .hint("`zklab status` shows the nodes, `zklab logs` their logs"));
    }
    let mut kills = Vec::new();
    for number in 0..request.times {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(request.every_ms)).await;
        }
        let one = kill_once(lab, request, &clients).await?;
        news.tell(News::Reelection(Box::new(one.clone())));
        kills.push(one);
    }
    let read_on = ensemble
        .views()
        .into_iter()
        .filter(|(_, view)| view.serving)
        .map(|(id, _)| id)
        .collect();
    let (tally, findings) = clients.finish().await;
    let died = died_on_their_own(ensemble, seq);
    let exit = judge(&kills, &findings, &died);
    let verdict = match exit {
        Exit::Ok => "pass",
        Exit::Bug => "bug",
        Exit::NodeDied => "a node died on its own",
        Exit::Inconclusive => "inconclusive",
        _ => "over budget",
    };
    Ok(KillReport {
        v: 1,
        cmd: "kill-leader".to_owned(),
        lab: ensemble.spec.name.clone(),
        kills,
        clients: tally,
        read_on,
        findings,
        died,
        verdict: verdict.to_owned(),
        exit,
    })
}

/// The worst of everything, in the documented order.
fn judge(kills: &[Reelection], findings: &[String], died: &[NodeId]) -> Exit {
    let verdict_is = |word: &str| kills.iter().any(|kill| kill.verdict == word);
    if !findings.is_empty() {
        Exit::Bug
    } else if !died.is_empty() {
        Exit::NodeDied
    } else if verdict_is("over budget") {
        Exit::Missed
    } else if verdict_is("inconclusive") {
        Exit::Inconclusive
    } else {
        Exit::Ok
    }
}

/// The nodes whose process ended after `seq` although nobody wanted that.
fn died_on_their_own(ensemble: &Ensemble, seq: u64) -> Vec<NodeId> {
    let events = ensemble.journal.after(seq).into_iter();
    events
        .filter(|event| {
            matches!(
                event.kind,
                LabEventKind::NodeExited {
                    expected: false,
                    ..
                }
            )
        })
        .filter_map(|event| event.node)
        .collect()
}

/// The leader, by asking, if the rest can elect another one.
async fn leader_to_kill(ensemble: &Ensemble) -> Result<(NodeId, i64), Failure> {
    let now = status::probe(ensemble).await;
    let Some(leader) = now.leader else {
        return Err(Failure::new(
            Exit::Missed,
            format!(
                "there is no leader to kill: {} of {} voters serve, {} are needed",
                now.have, now.voters, now.need
            ),
        )
        .hint(
            now.advice()
                .unwrap_or_else(|| "`zklab events` shows what happened".to_owned()),
        ));
    };
    if now.have - 1 < now.need {
        return Err(Failure::new(
            Exit::Missed,
            format!(
                "without {leader} only {} of {} voters serve and {} are needed: nobody could be elected; nothing was killed",
                now.have - 1,
                now.voters,
                now.need
            ),
        )
        .hint(now.advice().map_or_else(String::new, |advice| advice + "; ")
            + &format!("`zklab kill {leader}` kills it all the same")));
    }
    let view = ensemble.view(leader);
    Ok((leader, now.epoch.unwrap_or(0).max(view.epoch)))
}

async fn kill_once(
    lab: &Lab,
    request: &KillLeaderRequest,
    clients: &Clients,
) -> Result<Reelection, Failure> {
    let ensemble = &lab.ensemble;
    let (victim, old_epoch) = leader_to_kill(ensemble).await?;
    let tally = clients.tally();
    let seq = ensemble.journal.tip();
    let at = wall_clock();
    let killed_us = lifecycle::end_with(lab, victim, Signal::SIGKILL, request.death).await?;
    let patience = Duration::from_millis(request.timeout_ms);
    let ack = clients
        .first_ack_above(old_epoch, Instant::now() + patience)
        .await
        .ok_or_else(|| nothing_happened(victim, patience))?;
    let new_epoch = Zxid(ack.zxid.0).epoch().0;
    // The client may be faster than the last lines of the feeds.
    ensemble
        .until(Instant::now() + FEED_PATIENCE, |lab| {
            lab.serving_leader()
                .is_some_and(|(_, view)| view.epoch == new_epoch)
        })
        .await;
    clients
        .all_above(old_epoch, Instant::now() + ALL_BACK)
        .await;
    let events = ensemble.journal.after(seq);
    let new_leader = waterfall::elected(new_epoch, &events)
        .or_else(|| waterfall::last_leader(&events).map(|(node, _)| node))
        .unwrap_or(ack.node);
    let kill = Kill {
        victim,
        old_epoch,
        t_us: ensemble.journal.since_start(killed_us),
        ack,
        ack_t_us: ensemble.journal.since_start(ack.at_us),
        new_leader,
    };
    let (ms_from, feed_ms, told) = tell_phases(&kill, &events);
    let (phases, notes, rounds, votes) = told;
    let stall_us = lab.stall.max_us(killed_us, ack.at_us);
    let reelection = Reelection {
        v: 1,
        cmd: "kill-leader".to_owned(),
        victim,
        signal: "KILL".to_owned(),
        death: request.death.to_string(),
        at,
        old_epoch,
        new_epoch,
        new_leader,
        ms: phases,
        ms_from,
        feed_ms,
        rounds,
        votes,
        first_write_zxid: ack.zxid,
        clients: clients.tally().since(&tally),
        host_stall_max_ms: ms(stall_us),
        notes,
        failed_attempts: waterfall::failed_attempts(old_epoch, new_epoch, &events),
        verdict: verdict(request.budget_ms, ack.at_us - killed_us, stall_us).to_owned(),
    };
    if let Some(after_ms) = request.restart_after_ms {
        let since = Duration::from_micros(now_us() - killed_us);
        tokio::time::sleep(Duration::from_millis(after_ms).saturating_sub(since)).await;
        restart(lab, victim).await?;
    }
    Ok(reelection)
}

/// The phases, and whose events say so; those of the wire go before those of the servers' feeds. The latter also
/// for themselves.
fn tell_phases(kill: &Kill, events: &[LabEvent]) -> (Option<Source>, Option<Phases>, PhasesTold) {
    let [wire, feed] = waterfall::read_both(kill, events);
    let is_whole = |(_, told): &(Source, PhasesTold)| told.0.detect.is_some();
    let feed_ms = is_whole(&feed).then_some(feed.1.0);
    match (is_whole(&wire), is_whole(&feed)) {
        (true, _) => (Some(wire.0), feed_ms, wire.1),
        (false, true) => (Some(feed.0), feed_ms, feed.1),
        (false, false) => (None, None, feed.1),
    }
}

/// A pause over the budget is the server's fault only if the machine did not stand still for that long.
fn verdict(budget_ms: Option<u64>, pause_us: u64, stall_us: u64) -> &'static str {
    let budget_us = budget_ms.map_or(u64::MAX, |budget| budget * 1000);
    if pause_us <= budget_us {
        "pass"
    } else if pause_us.saturating_sub(stall_us) <= budget_us {
        "inconclusive"
    } else {
        "over budget"
    }
}

fn nothing_happened(victim: NodeId, patience: Duration) -> Failure {
    Failure::new(
        Exit::Missed,
        format!(
            "no write was acknowledged within {} s after {victim} was killed",
            patience.as_secs_f64()
        ),
    )
    .hint("`zklab status` shows the survivors, `zklab events` what they told")
}

async fn restart(lab: &Lab, node: NodeId) -> Result<(), Failure> {
    let ensemble = &lab.ensemble;
    ensemble.gone(node, RESTART_PATIENCE).await?;
    lab.start(node)?;
    let deadline = Instant::now() + RESTART_PATIENCE;
    let back = ensemble
        .until(deadline, |lab| {
            let view = lab.view(node);
            view.serving || view.process.is_none()
        })
        .await;
    if back && ensemble.view(node).serving {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Missed,
        format!("{node} was started again but does not serve"),
    )
    .hint(format!("`zklab logs {node}` may say why")))
}

/// The time of day, UTC, for people who compare it with other logs: `12:00:04.118`.
fn wall_clock() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = since.as_secs() % 86_400;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_of_the_machine_is_no_fault_of_the_server() {
        assert_eq!(verdict(None, 9_000_000, 0), "pass");
        assert_eq!(verdict(Some(100), 90_000, 80_000), "pass");
        assert_eq!(verdict(Some(100), 190_000, 95_000), "inconclusive");
        assert_eq!(verdict(Some(100), 190_000, 5_000), "over budget");
    }
}
