//! How it came to that: from the first operation of the proof (or what made its ground) to the last, what was done to
//! the servers, who was elected with what, how they were brought up to date, and what the clients were told.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::Finding;
use super::{Evidence, zxid};
use crate::report::run::folder::Event;
use crate::report::run::witness::Proof;
use crate::report::run::words::length;

/// So much is told.
const STEPS_MAX: usize = 42;
/// What happened so long before may have made the ground.
const BEFORE_US: u64 = 400_000;
/// What several do within this time is one step.
const TOGETHER_US: u64 = 50_000;

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::report::run) struct Step {
    /// When.
    pub(in crate::report::run) at_us: u64,
    /// Who.
    pub(in crate::report::run) who: Vec<String>,
    /// What.
    pub(in crate::report::run) text: String,
    /// It is about the write itself.
    pub(in crate::report::run) is_key: bool,
    /// The higher, the sooner it is left out where there is too much.
    pub(in crate::report::run) weight: u8,
}

impl Step {
    fn new(at_us: u64, who: &str, text: String, weight: u8) -> Self {
        Self {
            at_us,
            who: vec![who.to_owned()],
            text,
            is_key: weight == 0,
            weight,
        }
    }
}

pub(super) fn all(evidence: &Evidence<'_>, findings: &[Finding]) -> Vec<Step> {
    let mut steps = proof(evidence);
    let times = || steps.iter().map(|step| step.at_us);
    let of_findings = || findings.iter().map(|finding| finding.at_us);
    let first = times().chain(of_findings()).min();
    let last = times().chain(of_findings()).max();
    let (Some(first), Some(last)) = (first, last) else {
        return steps;
    };
    let begin = first.saturating_sub(BEFORE_US);
    let flow = flow(evidence);
    let inside = |at_us: u64| begin <= at_us && at_us <= last;
    steps.extend(flow.into_iter().filter(|step| inside(step.at_us)));
    for event in evidence
        .folder
        .events
        .iter()
        .filter(|event| inside(event.t_us))
    {
        steps.extend(of_event(evidence, event));
    }
    let syncs = evidence.syncs.iter().filter(|sync| inside(sync.at_us));
    steps.extend(syncs.map(|sync| {
        let is_key = findings
            .iter()
            .any(|finding| finding.at_us == sync.at_us && finding.node == sync.learner);
        let text = format!("tells {} {}", sync.learner, sync.text());
        Step::new(sync.at_us, &sync.leader, text, u8::from(!is_key))
    }));
    let marks = evidence.trace.marks.iter();
    steps.extend(
        marks
            .filter_map(|mark| connection(evidence, mark))
            .filter(|step| inside(step.at_us)),
    );
    steps.sort_by_key(|step| step.at_us);
    shortened(together(steps))
}

/// The operations of the proof: when they were sent, and when they were answered.
fn proof(evidence: &Evidence<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for line in &evidence.check.witness {
        let proof = Proof::of(
            line,
            evidence.folder.run.lab_start_us,
            &evidence.folder.load,
        );
        let Some(from_us) = proof.from_us.filter(|_| line["k"] == "op") else {
            continue;
        };
        let server = if proof.server.starts_with('n') {
            proof.server.clone()
        } else {
            "its server".to_owned()
        };
        let server = format!("{server} (session {})", proof.session);
        let asks = format!("asks {server}: {} ({})", proof.asked, proof.name);
        let who = &proof.who;
        match proof.to_us {
            Some(to_us) => {
                steps.push(Step::new(from_us, who, asks, 0));
                let zxid = if proof.zxid.is_empty() {
                    String::new()
                } else {
                    format!(" at {}", proof.zxid)
                };
                let answer = proof
                    .answer
                    .split(", changed at")
                    .next()
                    .unwrap_or_default();
                let told = format!("is told: {answer}{zxid} ({})", proof.name);
                steps.push(Step::new(to_us, who, told, 0));
            }
            None => steps.push(Step::new(
                from_us,
                who,
                format!("{asks}, never answered"),
                0,
            )),
        }
    }
    steps
}

/// What the servers said of the write.
fn flow(evidence: &Evidence<'_>) -> Vec<Step> {
    evidence
        .flow()
        .map(|note| {
            let (from, to, zxid) = (note.from.to_string(), note.to, note.zxid);
            let text = match note.msg.as_str() {
                "PROPOSAL" => format!("proposes {zxid} to {to}"),
                "ACK" => format!("acknowledges {zxid} to {to}: it has it on its disk"),
                _ => format!("tells {to} that {zxid} is committed"),
            };
            Step::new(note.t_us, &from, text, 0)
        })
        .collect()
}

/// A client of the proof comes, goes or loses its session.
fn connection(evidence: &Evidence<'_>, mark: &Value) -> Option<Step> {
    let at_us = evidence.since_start(&mark["at"])?;
    let who = format!("client {}", mark["c"]);
    let session = mark["s"].as_str().unwrap_or("?");
    let server = evidence.server_of(mark);
    let server = server.filter(|server| !server.is_empty());
    let server = server.as_deref().unwrap_or("a server of its choice");
    let text = match mark["k"].as_str()? {
        "open" => format!(
            "is connected with {server} (session {session}, connection {})",
            mark["conn"]
        ),
        "lost" => format!("loses its connection with {server} (session {session})"),
        _ => format!("is told that its session {session} is over"),
    };
    Some(Step::new(at_us, &who, text, 1))
}

fn of_event(evidence: &Evidence<'_>, event: &Event) -> Option<Step> {
    let text = |key: &str| event.text(key);
    let (said, weight) = match event.kind.as_str() {
        "fault.on" | "fault.off" => return fault(event),
        "node.exited" if event.rest["expected"] == false => ("ends ON ITS OWN".to_owned(), 1),
        "node.exited" => (exit(evidence, event), 1),
        "node.recovered" => {
            let zxid = zxid(&event.rest["zxid"])?;
            let subject = evidence.subject.as_ref();
            let lacks = subject.filter(|subject| zxid < subject.zxid);
            let lacks = lacks.map_or(String::new(), |subject| {
                format!(", so without {}", subject.zxid)
            });
            let text = format!("is started; the last zxid on its disk is {zxid}{lacks}");
            (text, 1)
        }
        // The servers' own word is exact; the wire only concludes.
        "leader.elected" if event.src == "zkd" || !tells(evidence, event) => {
            (elected(evidence, event), 1)
        }
        "node.stepped_down" => (format!("is no longer {}: {}", text("role"), text("why")), 2),
        "quorum.lost" => (
            format!(
                "no quorum: {} voters serve, {} are needed",
                text("have"),
                text("need")
            ),
            2,
        ),
        "host.stall" => {
            let ms = event.rest["ms"].as_f64().unwrap_or_default();
            (
                format!("the machine stood still for {}", length((ms * 1e3) as u64)),
                3,
            )
        }
        _ => return None,
    };
    Some(Step::new(event.t_us, &event.node, said, weight))
}

/// Does this node tell of itself?
fn tells(evidence: &Evidence<'_>, event: &Event) -> bool {
    let events = evidence.folder.events.iter();
    events
        .filter(|other| other.node == event.node && other.src == "zkd")
        .any(|other| other.kind == event.kind)
}

fn fault(event: &Event) -> Option<Step> {
    let what = event.text("what");
    // A kill shows by itself.
    let weight = match what.as_str() {
        "kill" | "stop" | "restart" => return None,
        "partition" | "drop" | "hold" | "pause" => 1,
        "disk" | "clock" => 2,
        _ => 4,
    };
    let text = event.text("fault");
    if text.starts_with("power cut") {
        return None;
    }
    let said = if event.kind == "fault.on" {
        format!("fault: {text}")
    } else {
        format!("fault over: {text}")
    };
    Some(Step::new(
        event.t_us,
        "",
        said,
        weight + u8::from(event.kind == "fault.off"),
    ))
}

/// How a process ended.
fn exit(evidence: &Evidence<'_>, event: &Event) -> String {
    let stays = evidence.stays(&event.node);
    let stay = stays.iter().find(|stay| stay.ended_us == Some(event.t_us));
    let mut text = match stay {
        Some(stay) if stay.power_cut => {
            "is killed, and its power is cut: un-synced bytes, if there were any, are gone"
                .to_owned()
        }
        _ => "is killed; its disk stays as it was".to_owned(),
    };
    if event.rest["signal"].as_i64() != Some(9) {
        "is stopped".clone_into(&mut text);
    }
    text
}

/// Who was elected with what, and what the others had.
fn elected(evidence: &Evidence<'_>, event: &Event) -> String {
    let mut text = format!("leads epoch {}", event.text("epoch"));
    if let Some(zxid) = evidence.last_zxid(&event.node, event.t_us) {
        text.push_str(&format!("; its last zxid was {zxid}"));
    }
    let others = evidence.nodes.iter().filter(|node| **node != event.node);
    let known: Vec<String> = others
        .filter_map(|node| {
            let zxid = evidence.last_zxid(node, event.t_us)?;
            Some(format!("{node} {zxid}"))
        })
        .collect();
    if !known.is_empty() {
        text.push_str(&format!(" (of the others is known: {})", known.join(", ")));
    }
    text
}

/// What several do at about the same time is told once.
fn together(steps: Vec<Step>) -> Vec<Step> {
    let mut told: Vec<Step> = Vec::new();
    for step in steps {
        let same = told
            .iter_mut()
            .rev()
            .take_while(|last| step.at_us - last.at_us < TOGETHER_US)
            .find(|last| last.text == step.text);
        match same {
            Some(last) => {
                let known: BTreeSet<&String> = last.who.iter().collect();
                let new: Vec<String> = step
                    .who
                    .iter()
                    .filter(|who| !known.contains(who))
                    .cloned()
                    .collect();
                last.who.extend(new);
                last.is_key |= step.is_key;
            }
            None => told.push(step),
        }
    }
    told
}

/// Where there is too much, what says least goes first; what is about the write stays.
fn shortened(mut steps: Vec<Step>) -> Vec<Step> {
    let mut limit = 6;
    while steps.len() > STEPS_MAX && limit > 1 {
        steps.retain(|step| step.weight < limit);
        limit -= 1;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_least_goes_first() {
        let steps: Vec<Step> = (0..60_u64)
            .map(|at| {
                let weight = u8::try_from(at % 3).unwrap();
                Step::new(at * TOGETHER_US, "n1", format!("{at}"), weight)
            })
            .collect();
        let short = shortened(steps.clone());
        assert_eq!(short.len(), 40);
        assert!(short.iter().all(|step| step.weight < 2));
        assert_eq!(shortened(short.clone()), short);
        let same = ["n1", "n2", "n1"].map(|who| Step::new(5, who, "is killed".to_owned(), 1));
        let told = together(same.into());
        assert_eq!((told.len(), told[0].who.join(" ").as_str()), (1, "n1 n2"));
    }
}
