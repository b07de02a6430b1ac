//! One row for every server: what it had of the write, when, and how it lived.

use zkd::ids::Zxid;

use super::disk::Held;
use super::{Evidence, zxid};
use crate::observe::flow::FlowNote;
use crate::report::run::folder::Event;

/// What became of the write on one server.
#[derive(Clone, Debug, Default)]
pub(in crate::report::run) struct ServerFate {
    /// The server.
    pub(in crate::report::run) node: String,
    /// What it was when the client was told, or when the write was asked for; and whom it could not reach.
    pub(in crate::report::run) then: String,
    /// When it proposed the write, to whom; or when it got the proposal, from whom.
    pub(in crate::report::run) proposed: Vec<(u64, String)>,
    /// When its ACK reached the leader.
    pub(in crate::report::run) acked: Vec<(u64, String)>,
    /// When it told others, or was told, that the write is committed.
    pub(in crate::report::run) committed: Vec<(u64, String)>,
    /// Its lives.
    pub(in crate::report::run) stays: Vec<Stay>,
    /// How it was brought up to date.
    pub(in crate::report::run) syncs: Vec<Sync>,
    /// Is the write in its log at the end?
    pub(in crate::report::run) held: Option<Held>,
}

/// One life of a server's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::report::run) struct Stay {
    /// When it had read its disk, and the last zxid there.
    pub(in crate::report::run) found: Option<(u64, Zxid)>,
    /// When it ended.
    pub(in crate::report::run) ended_us: Option<u64>,
    /// The power was cut: what was not synced is gone.
    pub(in crate::report::run) power_cut: bool,
    /// The last zxid that it said it had applied before that, and when it said so.
    pub(in crate::report::run) said: Option<(u64, Zxid)>,
    /// The last zxid that it was seen to acknowledge to its leader before that, or to propose.
    pub(in crate::report::run) seen: Option<Zxid>,
}

/// A learner was brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::report::run) struct Sync {
    pub(in crate::report::run) at_us: u64,
    pub(in crate::report::run) leader: String,
    pub(in crate::report::run) learner: String,
    /// `DIFF`, `TRUNC`, `SNAP`.
    pub(in crate::report::run) mode: String,
    pub(in crate::report::run) from: Zxid,
    pub(in crate::report::run) to: Zxid,
    /// Txns that were sent for it.
    pub(in crate::report::run) txns: Option<u64>,
    /// The last epoch that the learner had accepted, as it told the leader when it came.
    pub(in crate::report::run) accepted: Option<i64>,
}

impl Sync {
    /// `told DIFF from 0x5 to 0x9 (4 txns)`.
    pub(in crate::report::run) fn text(&self) -> String {
        let txns = match self.txns {
            Some(0) => ", nothing sent".to_owned(),
            Some(1) => ", 1 txn sent".to_owned(),
            Some(count) => format!(", {count} txns sent"),
            None => String::new(),
        };
        let accepted = self.accepted.map_or(String::new(), |epoch| {
            format!("; it had accepted epoch {epoch}")
        });
        match self.mode.as_str() {
            "TRUNC" => format!(
                "TRUNC to {}: it says it has up to {}{txns}{accepted}",
                self.to, self.from
            ),
            "SNAP" => format!(
                "SNAP, the whole tree at {}, instead of its own at {}{accepted}",
                self.to, self.from
            ),
            mode => format!("{mode} from {} to {}{txns}{accepted}", self.from, self.to),
        }
    }
}

/// How learners were brought up to date, by time. The wire tells most; where it was not read, the leaders' feeds do.
pub(super) fn syncs(events: &[Event]) -> Vec<Sync> {
    let all = || events.iter().filter(|event| event.kind == "sync");
    let is_seen = all().any(|event| event.src == "wire");
    let told = all().filter(|event| {
        (event.src == "wire") == is_seen && !event.node.is_empty() && event.text("to") != event.node
    });
    told.map(|event| Sync {
        at_us: event.t_us,
        leader: event.node.clone(),
        learner: event.text("to"),
        mode: event.text("mode"),
        from: zxid(&event.rest["from_zxid"]).unwrap_or_default(),
        to: zxid(&event.rest["to_zxid"]).unwrap_or_default(),
        txns: event.rest["txns"].as_u64(),
        accepted: accepted(events, event),
    })
    .collect()
}

/// The epoch in the FOLLOWERINFO or OBSERVERINFO with which a learner came to the leader that brought it up to date.
fn accepted(events: &[Event], sync: &Event) -> Option<i64> {
    let learner = sync.text("to");
    let mut earlier = events.iter().rev().filter(|event| {
        event.t_us <= sync.t_us
            && event.kind == "wire.message"
            && event.text("from") == learner
            && event.text("to") == sync.node
            && event.text("fate") == "delivered"
    });
    let info = earlier.find(|event| event.text("msg").ends_with("ERINFO"))?;
    // Epoch 0 has no zxid to speak of.
    Some(info.rest["epoch"].as_i64().unwrap_or_default())
}

pub(super) fn all(evidence: &Evidence<'_>) -> Vec<ServerFate> {
    let nodes = evidence.nodes.iter();
    nodes.map(|node| one(evidence, node)).collect()
}

fn one(evidence: &Evidence<'_>, node: &str) -> ServerFate {
    let subject = evidence.subject.as_ref();
    let flow = evidence.flow();
    let mut fate = ServerFate {
        node: node.to_owned(),
        stays: evidence.stays(node),
        syncs: evidence
            .syncs
            .iter()
            .filter(|sync| sync.learner == node)
            .cloned()
            .collect(),
        held: subject
            .filter(|_| !evidence.disks.is_empty())
            .map(|subject| evidence.disks.holds(node, subject.zxid)),
        then: evidence
            .moment()
            .map(|at_us| evidence.was(node, at_us))
            .unwrap_or_default(),
        ..ServerFate::default()
    };
    for note in flow {
        let (from, to) = (note.from.to_string(), note.to.to_string());
        let fate_of = match note.fate {
            crate::event::MessageFate::Delivered => "",
            _ => " (withheld by a fault)",
        };
        match note.msg.as_str() {
            "ACK" if from == node => fate.acked.push((note.t_us, format!("to {to}{fate_of}"))),
            "PROPOSAL" if to == node => {
                fate.proposed
                    .push((note.t_us, format!("from {from}{fate_of}")));
            }
            "PROPOSAL" if from == node => {
                fate.proposed
                    .push((note.t_us, format!("proposed to {to}{fate_of}")));
            }
            "COMMIT" | "INFORM" | "COMMITANDACTIVATE" | "INFORMANDACTIVATE" if to == node => {
                fate.committed
                    .push((note.t_us, format!("from {from}{fate_of}")));
            }
            "COMMIT" if from == node => {
                fate.committed
                    .push((note.t_us, format!("told {to}{fate_of}")));
            }
            _ => {}
        }
    }
    for list in [&mut fate.proposed, &mut fate.committed] {
        *list = joined(list);
    }
    fate
}

/// What was said to several within a moment is one line.
fn joined(list: &[(u64, String)]) -> Vec<(u64, String)> {
    let mut lines: Vec<(u64, String)> = Vec::new();
    for (at_us, text) in list {
        let name = text.rsplit(' ').next().unwrap_or_default();
        let says = text.starts_with("proposed to ") || text.starts_with("told ");
        let last = lines.last_mut().filter(|(last_us, last)| {
            let word = |text: &str| text.split(' ').next().map(ToOwned::to_owned);
            says && at_us - last_us < 20_000 && word(last) == word(text)
        });
        match last {
            Some((_, last)) => last.push_str(&format!(" {name}")),
            None => lines.push((*at_us, text.clone())),
        }
    }
    lines
}

impl Evidence<'_> {
    /// The messages about the write.
    pub(super) fn flow(&self) -> impl Iterator<Item = &FlowNote> {
        let zxid = self.subject.as_ref().map(|subject| subject.zxid.0);
        let notes = self.folder.flow.iter();
        notes.filter(move |note| Some(note.zxid.0) == zxid)
    }

    /// The moment of the write: when its client was told, or when it was asked for.
    pub(super) fn moment(&self) -> Option<u64> {
        let subject = self.subject.as_ref()?;
        let asked = || {
            let lines = self.check.witness.iter().filter(|line| line["k"] == "op");
            lines.filter_map(|line| self.since_start(&line["t0"])).min()
        };
        let acked = subject.acked.as_ref().map(|(at_us, ..)| *at_us);
        let first = || self.flow().map(|note| note.t_us).min();
        acked.or_else(first).or_else(asked)
    }

    /// What a server was then, and whom it could not reach.
    pub(super) fn was(&self, node: &str, at_us: u64) -> String {
        let lane = self.story.lanes.iter().find(|lane| lane.node == node);
        let state = lane.and_then(|lane| lane.at(at_us));
        let mut text = state.map_or("not seen", |state| state.word()).to_owned();
        let (deaf, mute) = self.cut_from(node, at_us);
        if deaf == mute && !deaf.is_empty() {
            text.push_str(&format!(", cut off from {}", deaf.join(" ")));
        } else {
            if !deaf.is_empty() {
                text.push_str(&format!(", hears nothing from {}", deaf.join(" ")));
            }
            if !mute.is_empty() {
                text.push_str(&format!(", is not heard by {}", mute.join(" ")));
            }
        }
        text
    }

    /// From whom a server could not hear then, and who could not hear it, because a fault had cut the link.
    pub(super) fn cut_from(&self, node: &str, at_us: u64) -> (Vec<String>, Vec<String>) {
        let standing = self.story.standing(at_us);
        let cuts = standing.filter(|fault| fault.what == "partition");
        let (mut deaf, mut mute) = (Vec::new(), Vec::new());
        for (from, to) in cuts
            .flat_map(|cut| &cut.links)
            .filter_map(|l| l.split_once('>'))
        {
            if to == node {
                deaf.push(from.to_owned());
            } else if from == node {
                mute.push(to.to_owned());
            }
        }
        for list in [&mut deaf, &mut mute] {
            list.sort();
            list.dedup();
        }
        (deaf, mute)
    }

    /// The lives of a server's process.
    pub(super) fn stays(&self, node: &str) -> Vec<Stay> {
        let mut stays: Vec<Stay> = Vec::new();
        for event in self.folder.events.iter().filter(|event| event.node == node) {
            match event.kind.as_str() {
                "node.spawned" => stays.push(Stay::default()),
                "node.recovered" => {
                    if stays.is_empty() {
                        stays.push(Stay::default());
                    }
                    if let Some(stay) = stays.last_mut() {
                        stay.found = zxid(&event.rest["zxid"]).map(|zxid| (event.t_us, zxid));
                    }
                }
                "node.exited" => {
                    if let Some(stay) = stays.last_mut().filter(|stay| stay.ended_us.is_none()) {
                        self.ended(node, event.t_us, stay);
                    }
                }
                _ => {}
            }
        }
        stays
    }

    fn ended(&self, node: &str, at_us: u64, stay: &mut Stay) {
        stay.ended_us = Some(at_us);
        stay.power_cut = self.folder.deeds.iter().any(|deed| {
            let words: Vec<&str> = deed.resolved.split(' ').collect();
            words.contains(&"lose-unsynced")
                && words.contains(&node)
                && deed.t_us <= at_us
                && at_us < deed.t_us + 500_000
        });
        let since = stay.found.map_or(0, |(found_us, _)| found_us);
        let samples = self.folder.samples.iter().rev();
        stay.said = samples
            .filter(|sample| sample.node == node && since <= sample.t_us && sample.t_us < at_us)
            .find_map(|sample| Some((sample.t_us, sample.zxid?)));
        let marks = self.folder.marks.iter();
        stay.seen = marks
            .filter(|mark| mark.node.to_string() == node && mark.until_us == at_us)
            .find_map(|mark| mark.acked.max(mark.proposed))
            .map(|zxid| Zxid(zxid.0));
    }
}
