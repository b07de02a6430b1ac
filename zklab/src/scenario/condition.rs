//! What a step waits for: another step, an event, or a state of the lab.

use super::amount::{Choice, Unit};
use super::message;
use super::text::Value;
use super::words::{self, Options};
use crate::event::{LabEvent, LabEventKind, Role, Source};
use crate::failure::Failure;
use crate::id::NodeId;

/// Kinds of events that a step can wait for.
pub const EVENTS: [&str; 22] = [
    "node.spawned",
    "node.starting",
    "node.listening",
    "node.recovered",
    "node.role",
    "node.serving",
    "node.not_serving",
    "node.stopping",
    "node.exited",
    "node.stepped_down",
    "election.started",
    "election.vote",
    "election.ended",
    "epoch.proposed",
    "epoch.acked",
    "epoch.first_commit",
    "epoch.bumped",
    "leader.elected",
    "quorum.lost",
    "quorum.regained",
    "fault.on",
    "fault.off",
];

/// States a node can be waited for in.
const STATES: [&str; 6] = [
    "serving", "down", "looking", "leader", "follower", "observer",
];

/// Not before another step is done, or an event has happened since the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// That step, and this much later.
    Step {
        /// Its name.
        id: String,
        /// Microseconds.
        later: Choice,
    },
    /// The first event of this kind, and this much later.
    Event {
        /// Its kind.
        kind: String,
        /// Microseconds.
        later: Choice,
    },
}

/// Not before this holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// So many such events have happened since the step began to wait.
    Event {
        /// Their kind.
        kind: String,
        /// Only of this node.
        node: Option<NodeId>,
        /// How many.
        nth: u64,
    },
    /// A node is in a state.
    State {
        /// The node.
        node: NodeId,
        /// The state.
        state: String,
    },
    /// There is a quorum, or there is none.
    Quorum(bool),
    /// An epoch is reached.
    Epoch(i64),
    /// So many writes of the load were acknowledged.
    Writes(u64),
    /// A message between servers was seen.
    Wire(MessageWish),
}

/// A message between servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageWish {
    /// Its name.
    pub message: String,
    /// Its sender, as typed.
    pub from: Option<String>,
    /// Its receiver, as typed.
    pub to: Option<String>,
    /// Which, counted from when the step began to wait.
    pub nth: u64,
}

/// Reads `kill`, `kill+500ms`, `leader.elected+1s`.
///
/// # Errors
/// If the time is none.
pub(super) fn after(value: &Value<'_>) -> Result<After, Failure> {
    let text = value.text()?;
    let (word, later) = match text.split_once('+') {
        Some((word, later)) => (
            word.trim(),
            Choice::parse(later.trim(), Unit::Time).map_err(|why| value.wrong(why))?,
        ),
        None => (text.trim(), Choice::fixed(0)),
    };
    let word = word.to_owned();
    Ok(if EVENTS.contains(&word.as_str()) {
        After::Event { kind: word, later }
    } else {
        // Whether there is such a step is seen when all of them are read.
        After::Step { id: word, later }
    })
}

const KEYS: [&str; 11] = [
    "event",
    "node",
    "nth",
    "state",
    "quorum",
    "epoch",
    "writes",
    "wire",
    "from",
    "to",
    "zxid_count",
];

/// The number in `{ zxid_count = 3 }`, if it is that.
///
/// # Errors
/// If it is no table, or has an unknown key.
pub(super) fn zxid_count(value: &Value<'_>) -> Result<Option<u64>, Failure> {
    let section = value.section("when", &KEYS)?;
    let count = section.get("zxid_count");
    count.map(|v| v.amount(Unit::Count)).transpose()
}

/// Reads `{ event = "leader.elected", nth = 2 }` and its like.
///
/// # Errors
/// If anything in it is wrong.
pub(super) fn read(value: &Value<'_>, count: u8) -> Result<Condition, Failure> {
    let section = value.section("when", &KEYS)?;
    let node = match section.get("node") {
        None => None,
        Some(node) => {
            let word = node.text()?;
            let known = word.parse::<NodeId>().ok();
            words::parse(&format!("pause {word}"), &Options::default(), count)
                .ok()
                .and(known)
                .map(Some)
                .ok_or_else(|| {
                    node.wrong(format!("unknown node {word:?}"))
                        .hint(format!("the nodes are n1 to n{count}"))
                })?
        }
    };
    let number = |key| section.get(key).map(|v| v.amount(Unit::Count)).transpose();
    let kinds: Vec<&str> = ["event", "state", "quorum", "epoch", "writes", "wire"]
        .into_iter()
        .filter(|key| section.get(key).is_some())
        .collect();
    let [kind] = kinds[..] else {
        return Err(section
            .wrong("\"when\" needs exactly one of event, state, quorum, epoch, writes, wire"));
    };
    match kind {
        "event" => Ok(Condition::Event {
            kind: section.need("event")?.word(&EVENTS)?,
            node,
            nth: number("nth")?.unwrap_or(1).max(1),
        }),
        "state" => Ok(Condition::State {
            state: section.need("state")?.word(&STATES)?,
            node: node.ok_or_else(|| section.wrong("\"state\" needs a \"node\""))?,
        }),
        "wire" => {
            let value = section.need("wire")?;
            let node = |key| -> Result<Option<String>, Failure> {
                let Some(value) = section.get(key) else {
                    return Ok(None);
                };
                let word = value.text()?;
                words::parse(&format!("pause {word}"), &Options::default(), count)
                    .map_err(|wrong| value.wrong(wrong.cause))?;
                Ok(Some(word))
            };
            Ok(Condition::Wire(MessageWish {
                message: message::name(&value.text()?).map_err(|wrong| value.wrong(wrong.cause))?,
                from: node("from")?,
                to: node("to")?,
                nth: number("nth")?.unwrap_or(1).max(1),
            }))
        }
        "quorum" => Ok(Condition::Quorum(section.need("quorum")?.truth()?)),
        "epoch" => {
            let epoch = number("epoch")?.unwrap_or(0);
            Ok(Condition::Epoch(i64::try_from(epoch).unwrap_or(i64::MAX)))
        }
        _ => Ok(Condition::Writes(number("writes")?.unwrap_or(1))),
    }
}

/// What the events so far say of the lab.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    nodes: Vec<(NodeId, String)>,
    quorum: bool,
    epoch: i64,
}

impl Seen {
    /// Takes an event in.
    pub(super) fn take(&mut self, event: &LabEvent) {
        match &event.kind {
            LabEventKind::QuorumLost { .. } => self.quorum = false,
            LabEventKind::QuorumRegained { .. } => self.quorum = true,
            LabEventKind::EpochBumped { to, .. } => self.epoch = self.epoch.max(*to),
            _ => {}
        }
        let Some(node) = event.node else { return };
        let state = match &event.kind {
            LabEventKind::NodeSpawned { .. } => "starting".to_owned(),
            LabEventKind::ElectionStarted { .. } => "looking".to_owned(),
            LabEventKind::NodeServing { role, .. } => match role {
                Role::Standalone => Role::Leader.to_string(),
                role => role.to_string(),
            },
            LabEventKind::NodeExited { .. } => "down".to_owned(),
            LabEventKind::NodeNotServing { .. } | LabEventKind::SteppedDown { .. } => {
                "looking".to_owned()
            }
            _ => return,
        };
        match self.nodes.iter_mut().find(|(id, _)| *id == node) {
            Some((_, known)) => *known = state,
            None => self.nodes.push((node, state)),
        }
    }

    fn is_in(&self, node: NodeId, wanted: &str) -> bool {
        let known = self.nodes.iter().find(|(id, _)| *id == node);
        known.is_some_and(|(_, state)| {
            state == wanted
                || (wanted == "serving"
                    && matches!(state.as_str(), "leader" | "follower" | "observer"))
        })
    }

    /// Does the condition hold, with these events since the step waits and so many writes acknowledged?
    pub(super) fn holds(&self, condition: &Condition, since: &[LabEvent], writes: u64) -> bool {
        match condition {
            Condition::Event { kind, node, nth } => {
                let like = since.iter().filter(|event| {
                    (node.is_none() || event.node == *node) && event.kind_name() == *kind
                });
                // What a server tells and what is seen on the wire are one and the same.
                let all = like.clone().count();
                let wire = like.filter(|event| event.src == Source::Wire).count();
                wire.max(all - wire) as u64 >= *nth
            }
            Condition::State { node, state } => self.is_in(*node, state),
            Condition::Quorum(wanted) => self.quorum == *wanted,
            Condition::Epoch(epoch) => self.epoch >= *epoch,
            Condition::Writes(wanted) => writes >= *wanted,
            // The supervisor is asked for it; events do not tell of most messages.
            Condition::Wire(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EVENTS;
    use crate::event::KINDS;

    #[test]
    fn steps_wait_for_kinds_that_exist() {
        for kind in EVENTS {
            assert!(KINDS.contains(&kind), "{kind}");
        }
    }
}
