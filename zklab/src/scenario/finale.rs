//! The end of a run: everything is healed, and the ensemble has to come back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::amount::Unit;
use super::differences;
use super::expect::Expected;
use super::file::{Demand, Healing};
use super::record::ScheduleLine;
use super::stage::Stage;
use crate::ensemble::status::{NodeStatus, State, Status};
use crate::event::HexZxid;
use crate::id::NodeId;
use crate::supervisor::protocol::{NetworkRequest, Request};

/// How long an ensemble may take to come back where the scenario does not say it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions.
const BREATH: Duration = Duration::from_millis(10);

/// What came of the end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// From the last heal until all nodes served and had caught up, in microseconds.
    pub(super) converged_us: Option<u64>,
    /// What was demanded.
    pub(super) demands: Vec<Expected>,
    /// The trees.
    pub(super) trees: Trees,
    /// Everything was healed, not only a core.
    pub(super) is_whole: bool,
}

/// The comparison of the trees.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Trees {
    /// Nobody told a digest, or they never stood at one zxid.
    #[default]
    Unknown,
    /// Equal on so many nodes at this zxid.
    Equal(HexZxid, usize),
    /// Different at one zxid: who has what, and the znodes in which they differ first.
    Different(HexZxid, Vec<String>, Vec<Value>),
}

impl Stage {
    /// Heals, and sees what has to be so then. The load goes on until the trees are compared.
    pub(super) async fn end(self: &Arc<Self>) -> Ending {
        let mut ending = Ending::default();
        match &self.plan.heal {
            Healing::All | Healing::RandomCore => {
                self.whole(&mut ending).await;
                ending.converged_us = self.serve(None, PATIENCE).await;
            }
            Healing::Core(nodes) => self.core(nodes).await,
        }
        for demand in self.plan.then.clone() {
            self.demand(&demand, &mut ending).await;
        }
        if !ending.is_whole && self.plan.heal == Healing::All {
            self.whole(&mut ending).await;
        }
        ending
    }

    async fn demand(self: &Arc<Self>, demand: &Demand, ending: &mut Ending) {
        let mut say = |what: &str, limit: u64, took: Option<u64>| {
            ending.demands.push(Expected {
                what: what.to_owned(),
                wanted: format!("within {}", Unit::Time.render(limit)),
                got: took.map_or_else(|| "not in time".to_owned(), |us| Unit::Time.render(us)),
                ok: took.is_some_and(|us| us <= limit),
            });
        };
        let patience = |us: u64| Duration::from_micros(us);
        match demand {
            Demand::CoreServes(us) => {
                let core = match &self.plan.heal {
                    Healing::Core(nodes) => nodes.iter().filter_map(|n| n.parse().ok()).collect(),
                    _ => Vec::new(),
                };
                let took = self.serve(Some(core), patience(*us)).await;
                say("core serves", *us, took);
            }
            Demand::AllServe(us) => {
                let took = self.serve(None, patience(*us)).await;
                say("all serve", *us, took);
            }
            Demand::HealAll => {
                self.whole(ending).await;
                ending.converged_us = self.serve(None, PATIENCE).await;
            }
            Demand::DigestEqual(us) => {
                let begin = self.lab.now();
                let trees = self.compare(patience(*us)).await;
                let took = self.lab.now() - begin;
                let is_equal = matches!(trees, Trees::Equal(..));
                say("digest equal", *us, is_equal.then_some(took));
                ending.trees = trees;
            }
        }
    }

    /// Everything is healed, goes on and is started.
    async fn whole(self: &Arc<Self>, ending: &mut Ending) {
        self.heal(Vec::new()).await;
        self.wake(None).await;
        ending.is_whole = true;
    }

    /// Only these nodes are healed, go on and are started.
    async fn core(self: &Arc<Self>, nodes: &[String]) {
        self.heal(nodes.to_vec()).await;
        let ids: Vec<NodeId> = nodes.iter().filter_map(|node| node.parse().ok()).collect();
        self.wake(Some(&ids)).await;
    }

    async fn heal(&self, core: Vec<String>) {
        if !self.plan.leaves_faults() {
            return;
        }
        let text = if core.is_empty() {
            "heal".to_owned()
        } else {
            format!("heal core {}", core.join(","))
        };
        self.act(
            &text,
            Request::Network(NetworkRequest::Heal {
                what: None,
                core,
                wait: false,
            }),
        )
        .await;
    }

    /// Lets paused nodes go on and starts those that are down.
    async fn wake(&self, only: Option<&[NodeId]>) {
        let Ok(status) = self.lab.status().await else {
            return;
        };
        let like = |state: State| -> Vec<String> {
            let nodes = status.nodes.iter().filter(|node| node.state == state);
            let meant = nodes.filter(|node| only.is_none_or(|only| only.contains(&node.id)));
            meant.map(|node| node.id.to_string()).collect()
        };
        let (paused, down) = (like(State::Paused), like(State::Down));
        if !paused.is_empty() {
            let text = format!("resume {}", paused.join(" "));
            self.act(&text, Request::Resume { nodes: paused }).await;
        }
        if !down.is_empty() {
            let text = format!("start {}", down.join(" "));
            self.act(&text, Request::Start { nodes: down }).await;
        }
    }

    /// Asks, and writes it down as a step of the end.
    async fn act(&self, text: &str, request: Request) {
        let t_us = self.lab.now();
        let done = self.lab.ask::<Value>(request).await;
        let line = ScheduleLine {
            t_us,
            step: "final".to_owned(),
            do_: text.to_owned(),
            resolved: text.to_owned(),
            ok: done.is_ok(),
            text: done.map_or_else(|failure| failure.cause, |_| "done".to_owned()),
        };
        self.notes().schedule.push(line);
    }

    /// Waits until these nodes (or all) serve with one leader, and have caught up with where it stood at first; how
    /// long that took. A leader outside the core will do as long as the core can follow it.
    async fn serve(&self, only: Option<Vec<NodeId>>, patience: Duration) -> Option<u64> {
        let begin = self.lab.now();
        let deadline = Instant::now() + patience;
        let mut goal: Option<(i64, HexZxid)> = None;
        loop {
            if let Ok(status) = self.lab.status().await
                && is_together(&status, only.as_deref(), &mut goal)
            {
                self.sample(&status);
                return Some(self.lab.now() - begin);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(BREATH).await;
        }
    }

    /// Compares the trees when no more is written.
    pub(super) async fn compare(&self, patience: Duration) -> Trees {
        self.reins.stop();
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(status) = self.lab.status().await
                && let Some(mut trees) = trees(&status)
            {
                self.sample(&status);
                if let Trees::Different(_, _, znodes) = &mut trees {
                    *znodes = differences::read(&status).await;
                }
                return trees;
            }
            if Instant::now() >= deadline {
                return Trees::Unknown;
            }
            sleep(BREATH).await;
        }
    }
}

/// Do they serve together, and have they caught up with `goal`? Sets the goal when there is a leader.
fn is_together(
    status: &Status,
    only: Option<&[NodeId]>,
    goal: &mut Option<(i64, HexZxid)>,
) -> bool {
    let meant = |node: &&NodeStatus| only.is_none_or(|only| only.contains(&node.id));
    let leader = status.leader;
    let Some(leader) = status.nodes.iter().find(|node| Some(node.id) == leader) else {
        return false;
    };
    let Some(epoch) = leader.epoch else {
        return false;
    };
    // A new leader is a new goal.
    if goal.is_none_or(|(of, _)| of != epoch) {
        *goal = Some((epoch, leader.zxid.unwrap_or_default()));
    }
    let wanted = goal.map(|(_, zxid)| zxid).unwrap_or_default();
    status.quorum
        && status.nodes.iter().filter(meant).all(|node| {
            node.state == State::Serving
                && (node.leads() == (node.id == leader.id))
                && node.zxid.is_some_and(|zxid| zxid >= wanted)
        })
}

/// What the digests say, once all that serve stand at one zxid.
fn trees(status: &Status) -> Option<Trees> {
    let told: Vec<_> = status
        .nodes
        .iter()
        .filter(|node| node.state == State::Serving)
        .filter_map(|node| Some((node.id, node.digest.as_ref()?)))
        .collect();
    let zxid = told.first()?.1.zxid;
    if told.len() < 2 || told.iter().any(|(_, digest)| digest.zxid != zxid) {
        return None;
    }
    let first = &told[0].1.value;
    Some(if told.iter().all(|(_, digest)| digest.value == *first) {
        Trees::Equal(zxid, told.len())
    } else {
        let who = told
            .iter()
            .map(|(id, digest)| format!("{id} {}", digest.value));
        Trees::Different(zxid, who.collect(), Vec::new())
    })
}
