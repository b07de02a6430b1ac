//! What follows about the servers from their disks, their feeds and the wire. Each finding is a sentence that is only
//! there where the folder proves it.

use zkd::ids::Zxid;

use super::Evidence;
use super::disk::Held;
use super::servers::Sync;
use crate::event::MessageFate;
use crate::observe::flow::FlowNote;
use crate::report::run::folder::Event;
use crate::report::run::words::moment;

/// So many zxids are named one by one.
const NAMED_MAX: usize = 4;

/// Something that follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::report::run) struct Finding {
    /// When it happened.
    pub(in crate::report::run) at_us: u64,
    /// Where.
    pub(in crate::report::run) node: String,
    /// The sentence.
    pub(in crate::report::run) text: String,
    /// It is against the rules of the protocol by itself, and so likely the cause; others only say how it came.
    pub(in crate::report::run) is_wrong: bool,
}

pub(super) fn all(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for sync in &evidence.syncs {
        findings.extend(unknown_start(evidence, sync));
        findings.extend(hole(evidence, sync));
        findings.extend(not_cut(evidence, sync));
    }
    findings.extend(too_few(evidence));
    findings.extend(forgotten(evidence));
    findings.extend(elected_without(evidence));
    findings
}

/// A few zxids by name, or how many there are.
fn named(zxids: &[Zxid]) -> String {
    let names: Vec<String> = zxids.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        names if names.len() <= NAMED_MAX => names.join(", "),
        [first, .., last] => format!("{} txns from {first} to {last}", names.len()),
        _ => String::new(),
    }
}

/// Was this server's log cut or replaced by a snapshot after this time?
fn was_cut_later(evidence: &Evidence<'_>, node: &str, at_us: u64) -> bool {
    let later = evidence.syncs.iter().filter(|sync| sync.at_us > at_us);
    later
        .filter(|sync| sync.learner == node)
        .any(|sync| sync.mode != "DIFF")
}

/// A DIFF begins at a zxid that the leader has never had.
fn unknown_start(evidence: &Evidence<'_>, sync: &Sync) -> Option<Finding> {
    let (disks, from) = (&evidence.disks, sync.from);
    if sync.mode != "DIFF" || from.counter() == 0 || from > sync.to {
        return None;
    }
    let (before, after) = disks.around(&sync.leader, from);
    let (before, _) = before.zip(after)?;
    let learner = &sync.learner;
    if disks.holds(&sync.leader, from) == Held::Yes
        || disks.holds(learner, from) != Held::Yes
        || was_cut_later(evidence, &sync.leader, sync.at_us)
    {
        return None;
    }
    let extra = disks.between(learner, Zxid(before.0 + 1), from);
    let others = evidence.nodes.iter().filter(|node| *node != learner);
    let has = |node: &&String| {
        extra
            .iter()
            .any(|zxid| disks.holds(node, *zxid) == Held::Yes)
    };
    let also: Vec<String> = others.filter(has).cloned().collect();
    let whose = if also.is_empty() {
        "which no other server has".to_owned()
    } else {
        format!("which only {} have too", also.join(" "))
    };
    let (leader, at) = (&sync.leader, moment(sync.at_us));
    Some(Finding {
        at_us: sync.at_us,
        node: learner.clone(),
        text: format!(
            "At {at} the leader {leader} brought {learner} up to date by DIFF from {from}, the last zxid that {learner} said it \
             had, but {leader} itself never had {from}: its history goes from {before} on with the next epoch. {learner} \
             should have been told to cut its log back to {before} (TRUNC). It kept {}, {whose}, and went on as if it \
             had the leader's history",
            named(&extra)
        ),
        is_wrong: true,
    })
}

/// A DIFF left out what the leader has.
fn hole(evidence: &Evidence<'_>, sync: &Sync) -> Option<Finding> {
    let (disks, learner, leader) = (&evidence.disks, &sync.learner, &sync.leader);
    let zxid = evidence.subject.as_ref()?.zxid;
    let is_inside = sync.from < zxid && zxid <= sync.to;
    if sync.mode != "DIFF"
        || !is_inside
        || disks.holds(leader, zxid) != Held::Yes
        || disks.holds(learner, zxid) != Held::No
        || was_cut_later(evidence, learner, sync.at_us)
    {
        return None;
    }
    let sent = evidence
        .flow()
        .any(|note| note.msg == "PROPOSAL" && note.to.to_string() == *learner);
    let on_wire = match (evidence.hears_at(sync.at_us), sent) {
        (false, _) => String::new(),
        (true, true) => format!("; {zxid} was seen on its way to {learner}"),
        (true, false) => format!("; no message with {zxid} was seen on its way to {learner}"),
    };
    let all = disks.between(leader, Zxid(sync.from.0 + 1), sync.to);
    let got = disks.between(learner, Zxid(sync.from.0 + 1), sync.to);
    let (at, count, got) = (moment(sync.at_us), all.len(), got.len());
    let sent = sync
        .txns
        .map_or(String::new(), |txns| format!("; {txns} were sent"));
    Some(Finding {
        at_us: sync.at_us,
        node: learner.clone(),
        text: format!(
            "At {at} the leader {leader} brought {learner} up to date by DIFF from {} to {}: {count} txns in {leader}'s log{sent}, \
             of which {got} are in {learner}'s log. {zxid} is not among them{on_wire}; {learner} took what came behind it all \
             the same",
            sync.from, sync.to
        ),
        is_wrong: true,
    })
}

/// A log was to be cut, and was not.
fn not_cut(evidence: &Evidence<'_>, sync: &Sync) -> Option<Finding> {
    let learner = &sync.learner;
    if sync.mode != "TRUNC" || sync.from <= sync.to {
        return None;
    }
    let kept = evidence
        .disks
        .between(learner, Zxid(sync.to.0 + 1), sync.from);
    // What the leader has too came back with the txns after the cut.
    let mut kept = kept;
    kept.retain(|zxid| evidence.disks.holds(&sync.leader, *zxid) == Held::No);
    if kept.is_empty() {
        return None;
    }
    Some(Finding {
        at_us: sync.at_us,
        node: learner.clone(),
        text: format!(
            "At {} the leader {} told {learner} to cut its log back to {} (TRUNC), because it had up to {}. {learner}'s log \
             still has {}",
            moment(sync.at_us),
            sync.leader,
            sync.to,
            sync.from,
            named(&kept)
        ),
        is_wrong: true,
    })
}

/// The write was said to be done when fewer than a quorum had it.
fn too_few(evidence: &Evidence<'_>) -> Option<Finding> {
    let subject = evidence.lost_subject()?;
    let (acked_us, server, who) = subject.acked.clone()?;
    let leader = evidence.leader_at(acked_us, subject.zxid)?;
    let quorum = evidence.quorum();
    let (have, how) = if !evidence.hears() {
        // Nobody saw the messages; whom the leader could not reach by any means did not have it.
        let first_us = acked_us.saturating_sub(1);
        let (deaf, mute) = evidence.cut_from(&leader, first_us);
        let others = evidence.nodes.iter().filter(|node| **node != leader);
        let reached = others.filter(|node| !deaf.contains(node) && !mute.contains(node));
        let up = |node: &&String| {
            let was = evidence.was(node, acked_us);
            !was.starts_with("down") && !was.starts_with("paused")
        };
        let reached: Vec<&str> = reached.filter(up).map(String::as_str).collect();
        let how = match reached.as_slice() {
            [] => "it could reach no other server then".to_owned(),
            some => format!("besides itself it could reach only {} then", some.join(" ")),
        };
        (reached.len() + 1, how)
    } else {
        let from = evidence.acks(&leader, subject.zxid, acked_us);
        let late: Vec<String> = evidence
            .flow()
            .filter(|note| note.msg == "ACK" && note.t_us > acked_us)
            .map(|note| format!("{} at {}", note.from, moment(note.t_us)))
            .collect();
        let mut how = match from.as_slice() {
            [] => "no ACK of another server had reached it".to_owned(),
            some => format!("only the ACK of {} had reached it", some.join(" ")),
        };
        if !late.is_empty() {
            how.push_str(&format!(" (later came that of {})", late.join(", ")));
        }
        (from.len() + 1, how)
    };
    if have >= quorum {
        return None;
    }
    Some(Finding {
        at_us: acked_us,
        node: leader.clone(),
        text: format!(
            "At {} {who} was told by {server} that {} is done, when at most {have} of {} voters had it and {quorum} are \
             needed: {leader} led, and {how}. It was committed without a quorum",
            moment(acked_us),
            subject.zxid,
            evidence.folder.run.nodes
        ),
        is_wrong: true,
    })
}

/// Servers had acknowledged the write, or applied it, and came back from their end without it.
fn forgotten(evidence: &Evidence<'_>) -> Vec<Finding> {
    let Some(subject) = evidence.lost_subject() else {
        return Vec::new();
    };
    let nodes = evidence.nodes.iter();
    let losses: Vec<Loss> = nodes
        .filter_map(|node| loss(evidence, node, subject.zxid))
        .collect();
    // One that applied a write need not have it on its own disk, as long as a quorum has.
    let voters = usize::try_from(evidence.folder.run.nodes).unwrap_or(usize::MAX);
    let is_too_many = losses.len() + evidence.quorum() > voters;
    let told = losses.into_iter().map(|loss| {
        let power = if loss.power_cut {
            "its power was cut (what was never synced is gone)"
        } else {
            "it was killed"
        };
        let Loss { node, had_us, zxid, .. } = &loss;
        let how = if loss.is_promised {
            format!(
                "{node} {} {zxid} at {}: that says it is safe on its disk",
                loss.how,
                moment(*had_us)
            )
        } else {
            format!("{node} {} {zxid} at {}", loss.how, moment(*had_us))
        };
        let why = if is_too_many && !loss.is_promised {
            format!(", although {zxid} had been committed, for which a quorum must have it on disk")
        } else {
            String::new()
        };
        Finding {
            at_us: loss.found_us,
            node: node.clone(),
            text: format!(
                "{how}. At {} {power}, and at {} it came back with {} as the last zxid on its disk, without {}{why}",
                moment(loss.ended_us),
                moment(loss.found_us),
                loss.last,
                subject.zxid
            ),
            is_wrong: loss.is_promised || is_too_many,
        }
    });
    told.collect()
}

/// A server lost a write that it had.
struct Loss {
    node: String,
    /// When it was known to have it, how that is known, and the zxid that says so.
    had_us: u64,
    how: String,
    zxid: Zxid,
    /// It had said that it is on its disk.
    is_promised: bool,
    ended_us: u64,
    power_cut: bool,
    found_us: u64,
    /// The last zxid that it had afterwards.
    last: Zxid,
}

fn loss(evidence: &Evidence<'_>, node: &str, zxid: Zxid) -> Option<Loss> {
    let stays = evidence.stays(node);
    for pair in stays.windows(2) {
        let (ended, next) = (&pair[0], &pair[1]);
        let (Some(ended_us), Some((found_us, last))) = (ended.ended_us, next.found) else {
            continue;
        };
        let since_us = ended.found.map_or(0, |(found_us, _)| found_us);
        let promised = evidence
            .had(node, zxid)
            .filter(|(at_us, ..)| (since_us..=ended_us).contains(at_us));
        let said = ended.said.filter(|(_, said)| *said >= zxid);
        // A zxid of a later epoch says nothing about this one.
        let said = said.filter(|(_, said)| said.epoch() == zxid.epoch());
        let (had_us, how, named, is_promised) = match (promised, said) {
            (Some((at_us, how, is_promised)), _) => (at_us, how, zxid, is_promised),
            (None, Some((at_us, said))) => {
                (at_us, "said that it had applied".to_owned(), said, false)
            }
            (None, None) => continue,
        };
        let was_cut = evidence.syncs.iter().any(|sync| {
            sync.learner == node && sync.mode != "DIFF" && (had_us..=found_us).contains(&sync.at_us)
        });
        if last >= zxid || was_cut {
            continue;
        }
        return Some(Loss {
            node: node.to_owned(),
            had_us,
            how,
            zxid: named,
            is_promised,
            ended_us,
            power_cut: ended.power_cut,
            found_us,
            last,
        });
    }
    None
}

/// The election that lost the write: who won it without having it, and what he had.
fn loser<'e>(evidence: &'e Evidence<'_>) -> Option<(&'e Event, Zxid)> {
    let subject = evidence.lost_subject()?;
    let (acked_us, ..) = subject.acked.clone()?;
    let elected = evidence
        .folder
        .events
        .iter()
        .filter(|event| event.kind == "leader.elected" && event.t_us > acked_us);
    let mut elected = elected.filter_map(|event| {
        let last = evidence.last_zxid(&event.node, event.t_us)?;
        (last < subject.zxid).then_some((event, last))
    });
    elected.next()
}

/// The zxids between which everything was lost by that election.
pub(super) fn lost(evidence: &Evidence<'_>) -> Option<(Zxid, Zxid)> {
    let (event, last) = loser(evidence)?;
    let epoch = event.rest["epoch"].as_i64()?;
    Some((last, Zxid(epoch << 32)))
}

/// After the client was told, somebody was elected who did not have the write.
fn elected_without(evidence: &Evidence<'_>) -> Option<Finding> {
    let subject = evidence.subject.as_ref()?;
    let (event, last) = loser(evidence)?;
    let others = evidence.nodes.iter().filter(|node| **node != event.node);
    let ahead: Vec<String> = others
        .filter_map(|node| {
            let zxid = evidence.last_zxid(node, event.t_us)?;
            (zxid >= subject.zxid).then(|| format!("{node} had {zxid}"))
        })
        .collect();
    let ahead = if ahead.is_empty() {
        "no server that said how far it was had more".to_owned()
    } else {
        format!("of the others {}", ahead.join(", "))
    };
    Some(Finding {
        at_us: event.t_us,
        node: event.node.clone(),
        text: format!(
            "At {} {} became leader of epoch {} with {last} as its last zxid, so without {}; {ahead}. From then on the write \
             is gone",
            moment(event.t_us),
            event.node,
            event.text("epoch"),
            subject.zxid
        ),
        is_wrong: false,
    })
}

impl Evidence<'_> {
    /// Who led then, or led the epoch of this write.
    pub(super) fn leader_at(&self, at_us: u64, zxid: Zxid) -> Option<String> {
        let mut elected = self.folder.events.iter().rev().filter(|event| {
            event.kind == "leader.elected"
                && event.t_us <= at_us
                && event.rest["epoch"].as_i64() == Some(zxid.epoch().0)
        });
        elected.next().map(|event| event.node.clone())
    }

    /// When a server was first seen to have a write, how, and whether it so said that it is on its own disk: a follower
    /// acknowledges it; a leader commits what is on the disks of a quorum, its own among them where the others alone are
    /// too few.
    pub(super) fn had(&self, node: &str, zxid: Zxid) -> Option<(u64, String, bool)> {
        let notes = || self.folder.flow.iter().filter(|note| note.zxid.0 == zxid.0);
        let own = |note: &&FlowNote| note.from.to_string() == node;
        let first = notes()
            .filter(own)
            .find(|note| matches!(note.msg.as_str(), "ACK" | "COMMIT"))?;
        if first.msg == "ACK" {
            return Some((first.t_us, "acknowledged".to_owned(), true));
        }
        let acks = self.acks(node, zxid, first.t_us);
        let is_needed = self.hears() && acks.len() < self.quorum();
        let how = match acks.as_slice() {
            some if is_needed && !some.is_empty() => format!(
                "(the leader) counted itself among those who have it on disk when it had the ACK of {} only, and committed",
                some.join(" ")
            ),
            _ => "(the leader) committed".to_owned(),
        };
        Some((first.t_us, how, is_needed))
    }

    /// Whose ACKs of a write had reached its leader by then.
    fn acks(&self, leader: &str, zxid: Zxid, until_us: u64) -> Vec<String> {
        let acks = self.folder.flow.iter().filter(|note| {
            note.zxid.0 == zxid.0
                && note.msg == "ACK"
                && note.t_us <= until_us
                && note.to.to_string() == leader
                && note.fate == MessageFate::Delivered
        });
        let mut from: Vec<String> = acks.map(|note| note.from.to_string()).collect();
        from.sort();
        from.dedup();
        from
    }

    /// The last zxid that a server had at some time, as its disk or its own vote told in the life that it then had.
    pub(super) fn last_zxid(&self, node: &str, at_us: u64) -> Option<Zxid> {
        let own = self.folder.events.iter().rev();
        let mut own = own.filter(|event| event.node == node && event.t_us <= at_us);
        let told = own.find_map(|event| match event.kind.as_str() {
            // What it had before it died says nothing of what it has.
            "node.exited" => Some(None),
            "node.recovered" => Some(super::zxid(&event.rest["zxid"])),
            "election.vote" if event.text("for") == node => Some(super::zxid(&event.rest["zxid"])),
            _ => None,
        });
        told.flatten()
    }
}
