//! Carrying out a plan: the steps at their times, the load beside them, and somebody who looks on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::condition::{Condition, Seen};
use super::lab::Lab;
use super::message;
use super::plan::{Anchor, Plan, Step};
use super::record::{Sample, ScheduleLine};
use super::words::Deed;
use crate::ensemble::status::Status;
use crate::failure::{Exit, Failure};
use crate::observe::load::Reins;
use crate::supervisor::protocol::Request;

/// A step that nobody can do yet (there is no leader to kill) is tried again for so long.
const TRY: Duration = Duration::from_secs(5);
/// Between two tries.
const BREATH: Duration = Duration::from_millis(10);
/// A step that waits for something longer than this after everything else is over is given up.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Words behind the nodes of a step that say how.
const HOW: [&str; 13] = [
    "as",
    "rolling",
    "hard",
    "lose-unsynced",
    "torn",
    "slow-fsync",
    "fail-fsync",
    "full",
    "bitflip",
    "jump",
    "rate",
    "freeze",
    "reset",
];
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(200);

/// A plan being carried out.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) plan: Plan,
    pub(super) reins: Reins,
    /// When the steps began, as events count.
    pub(super) begin_us: u64,
    /// Steps that are over, and when.
    done: watch::Sender<BTreeMap<String, u64>>,
    notes: Mutex<Notes>,
}

/// What is written down on the way.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// What was done.
    pub(super) schedule: Vec<ScheduleLine>,
    /// What the nodes did.
    pub(super) samples: Vec<Sample>,
    /// Steps that could not be done and should have been: step, why.
    pub(super) undone: Vec<(String, String)>,
    /// When the last fault that undoes itself is undone, as events count.
    quiet_us: u64,
}

impl Stage {
    /// Everything is ready; the steps begin now.
    pub(super) fn new(lab: Lab, plan: Plan, reins: Reins) -> Self {
        Self {
            begin_us: lab.now(),
            lab,
            plan,
            reins,
            done: watch::Sender::default(),
            notes: Mutex::default(),
        }
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does all steps, and waits until the time is over and everything that undoes itself is undone.
    pub(super) async fn play(self: &Arc<Self>) {
        let mut steps = JoinSet::new();
        for step in self.plan.steps.clone() {
            let stage = Arc::clone(self);
            steps.spawn(async move { stage.one(step).await });
        }
        let _ = steps.join_all().await;
        let end_us = self.begin_us + self.plan.duration_us;
        let end_us = end_us.max(self.notes().quiet_us);
        self.until(end_us).await;
    }

    /// Writes down again and again what the nodes do.
    pub(super) async fn look_on(self: Arc<Self>) {
        loop {
            if let Ok(status) = self.lab.status().await {
                self.sample(&status);
            }
            sleep(LOOK).await;
        }
    }

    /// Writes down what the nodes do.
    pub(super) fn sample(&self, status: &Status) {
        let t_us = self.lab.now();
        let samples = status.nodes.iter().map(|node| Sample {
            t_us,
            node: node.id,
            state: node.state.to_string(),
            role: node.role,
            epoch: node.epoch,
            zxid: node.zxid,
            lag: node.lag,
            sessions: node.sessions,
        });
        self.notes().samples.extend(samples);
    }

    /// Sleeps until a time of the events' clock.
    async fn until(&self, t_us: u64) {
        let left = t_us.saturating_sub(self.lab.now());
        sleep(Duration::from_micros(left)).await;
    }

    async fn one(self: &Arc<Self>, step: Step) {
        let waited = self.wait(&step).await;
        let line = match waited {
            Ok(()) => self.perform(&step).await,
            Err(why) => self.undone(&step, why),
        };
        let t_us = self.lab.now();
        self.notes().schedule.push(line);
        self.done.send_modify(|done| {
            done.insert(step.id, t_us);
        });
    }

    /// Waits until the step may begin.
    async fn wait(&self, step: &Step) -> Result<(), String> {
        match &step.after {
            Some(Anchor::Step(id, later)) => {
                let mut done = self.done.subscribe();
                let at = loop {
                    let known = done.borrow_and_update().get(id).copied();
                    if let Some(at) = known {
                        break at;
                    }
                    if done.changed().await.is_err() {
                        return Err(format!("{id} is never over"));
                    }
                };
                self.until(at + later).await;
            }
            Some(Anchor::Event(kind, later)) => {
                let at = self.first_event(kind).await?;
                self.until(at + later).await;
            }
            None => {}
        }
        if let Some(at_us) = step.at_us {
            self.until(self.begin_us + at_us).await;
        }
        match &step.when {
            Some(Condition::Wire(wish)) => {
                let seen = self.lab.ask::<Value>(message::watch(wish));
                match tokio::time::timeout_at(self.deadline(), seen).await {
                    Ok(seen) => seen.map(drop).map_err(|failure| failure.cause),
                    Err(_) => Err(format!("no {} was seen", wish.message)),
                }
            }
            Some(condition) => self.until_holds(condition).await,
            None => Ok(()),
        }
    }

    /// When the first event of a kind happened; waits for it.
    async fn first_event(&self, kind: &str) -> Result<u64, String> {
        let deadline = self.deadline();
        let mut news = self.lab.events.subscribe();
        loop {
            news.mark_unchanged();
            let found = self.lab.events.with(|events| {
                let mut later = events.iter().filter(|event| event.t_us >= self.begin_us);
                later
                    .find(|event| event.kind_name() == kind)
                    .map(|e| e.t_us)
            });
            if let Some(t_us) = found {
                return Ok(t_us);
            }
            if tokio::time::timeout_at(deadline, news.changed())
                .await
                .is_err()
            {
                return Err(format!("no {kind} happened"));
            }
        }
    }

    /// Waits until a condition holds.
    async fn until_holds(&self, condition: &Condition) -> Result<(), String> {
        let deadline = self.deadline();
        let mut news = self.lab.events.subscribe();
        let begun = self.lab.now();
        let (mut seen, mut taken) = (Seen::default(), 0);
        loop {
            news.mark_unchanged();
            let writes = self.reins.writes();
            let holds = self.lab.events.with(|events| {
                for event in &events[taken..] {
                    seen.take(event);
                }
                taken = events.len();
                let since = events.partition_point(|event| event.t_us < begun);
                seen.holds(condition, &events[since.min(events.len())..], writes)
            });
            if holds {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err("what it waits for never came".to_owned());
            }
            // Acknowledged writes make no events.
            let _ = tokio::time::timeout(BREATH, news.changed()).await;
        }
    }

    /// When a step that waits is given up.
    fn deadline(&self) -> Instant {
        let planned = self.plan.steps.iter().filter_map(|step| step.at_us).max();
        let length = planned.unwrap_or(0).max(self.plan.duration_us);
        let over = self.begin_us + length;
        let left = Duration::from_micros(over.saturating_sub(self.lab.now()));
        Instant::now() + left + WAIT_MAX
    }

    fn undone(&self, step: &Step, why: String) -> ScheduleLine {
        let mut notes = self.notes();
        if !step.optional {
            notes.undone.push((step.id.clone(), why.clone()));
        }
        ScheduleLine {
            t_us: self.lab.now(),
            step: step.id.clone(),
            do_: step.text(),
            resolved: step.text(),
            ok: false,
            text: why,
        }
    }

    /// Does the step; what nobody can do at the moment is tried again for a while.
    async fn perform(&self, step: &Step) -> ScheduleLine {
        let deed = match step.deed(self.plan.total()) {
            Ok(deed) => deed,
            Err(failure) => return self.undone(step, failure.cause),
        };
        let give_up = Instant::now() + TRY;
        loop {
            let t_us = self.lab.now();
            match self.lab.ask::<Value>(deed.request.clone()).await {
                Ok(answer) => {
                    let quiet = self.lab.now() + deed.lasts_us;
                    let mut notes = self.notes();
                    notes.quiet_us = notes.quiet_us.max(quiet);
                    drop(notes);
                    let told = Told::of(&deed, &answer);
                    return ScheduleLine {
                        t_us,
                        step: step.id.clone(),
                        do_: step.text(),
                        resolved: told.resolved(step),
                        ok: true,
                        text: told.text,
                    };
                }
                Err(failure) if is_passing(&failure) && Instant::now() < give_up => {
                    sleep(BREATH).await;
                }
                Err(failure) => return self.undone(step, failure.cause),
            }
        }
    }
}

/// May it be otherwise in a moment?
fn is_passing(failure: &Failure) -> bool {
    failure.exit == Exit::Missed
}

/// What the supervisor answered, in the words of the schedule.
struct Told {
    /// The nodes that were meant.
    nodes: Vec<String>,
    text: String,
}

impl Told {
    fn of(deed: &Deed, answer: &Value) -> Self {
        let is_about_nodes = !matches!(deed.request, Request::Network(_));
        if is_about_nodes && let Some(acts) = answer["nodes"].as_array() {
            let word = |act: &Value, key: &str| act[key].as_str().unwrap_or_default().to_owned();
            let texts = acts.iter().map(|act| {
                let role = if act["leader"] == true {
                    " (leader)"
                } else {
                    ""
                };
                format!("{}{role} {}", word(act, "id"), word(act, "text"))
            });
            return Self {
                nodes: acts.iter().map(|act| word(act, "id")).collect(),
                text: texts.collect::<Vec<_>>().join(", "),
            };
        }
        if let Some(what) = answer["what"].as_str() {
            let id = answer["id"].as_str().unwrap_or_default();
            let count = answer["links"].as_array().map_or(0, Vec::len);
            let done = answer["done"].as_str().unwrap_or("set");
            let us = answer["effective_us"].as_u64().unwrap_or(0);
            let text = format!("{id} {what}: {count} links {done} in {us} µs");
            return Self {
                nodes: Vec::new(),
                text: text.trim_start().to_owned(),
            };
        }
        let healed = answer["healed"].as_array().map(|names| {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            format!("healed {}", names.join(" "))
        });
        Self {
            nodes: Vec::new(),
            text: healed.unwrap_or_else(|| "done".to_owned()),
        }
    }

    /// The step's words with the nodes that were meant in place of roles.
    fn resolved(&self, step: &Step) -> String {
        let mut words = step.do_.split_whitespace();
        let verb = words.next().unwrap_or_default();
        if self.nodes.is_empty() {
            return in_brackets(&self.text, verb).unwrap_or_else(|| step.text());
        }
        let how: Vec<&str> = words.skip_while(|word| !HOW.contains(word)).collect();
        let mut plain = step.clone();
        plain.do_ = format!("{verb} {}", self.nodes.join(" "));
        for word in how {
            plain.do_.push(' ');
            plain.do_.push_str(word);
        }
        plain.text()
    }
}

/// `f1 isolate leader (n5): …` names the nodes that were isolated.
fn in_brackets(text: &str, verb: &str) -> Option<String> {
    let (_, rest) = text.split_once('(')?;
    let (nodes, _) = rest.split_once(')')?;
    matches!(
        verb,
        "isolate" | "leader" | "majority" | "minority" | "partition"
    )
    .then(|| format!("isolate {nodes}"))
}
