//! What follows about the clients of a proof: what else they were told, by whom, and what nobody told them.

use serde_json::Value;
use zkd::ids::Zxid;

use super::findings::Finding;
use super::{Evidence, path_of, request, zxid};
use crate::report::capital;
use crate::report::run::witness::Proof;
use crate::report::run::words::moment;

/// So many others are named.
const NAMED_MAX: usize = 4;

pub(super) fn all(evidence: &Evidence<'_>) -> Vec<Finding> {
    let found = match evidence.check.rule.as_str() {
        "watches" => watch(evidence),
        "ephemerals" => ephemeral(evidence),
        "multi" => multi(evidence),
        "session-fifo" => moved(evidence),
        "digest" => return trees(evidence),
        _ => None,
    };
    found.into_iter().collect()
}

impl Evidence<'_> {
    fn proof(&self, line: &Value) -> Proof {
        Proof::of(line, self.folder.run.lab_start_us, &self.folder.load)
    }

    /// `client 3, at n2 then`.
    fn whose(&self, line: &Value) -> String {
        let server = self.server_of(line);
        let server = server.map_or(String::new(), |server| format!(", connected with {server}"));
        format!(
            "client {}{server} (session {})",
            line["c"],
            line["s"].as_str().unwrap_or("?")
        )
    }
}

/// Trees that differ: in what, who is alone with it, and whether the servers were given the same writes.
fn trees(evidence: &Evidence<'_>) -> Vec<Finding> {
    let checks = evidence.folder.run.checks.iter();
    let mut logs = checks.filter(|check| check.rule == "logs" && check.verdict == "pass");
    let logs = logs.next().map(|check| {
        format!(
            "the logs of all servers agree ({} txns compared), so they were given the same writes and made different things of \
             them",
            check.count
        )
    });
    let at_us = evidence.moment().unwrap_or(evidence.story.end_us);
    let znodes = evidence
        .check
        .witness
        .iter()
        .filter(|line| line["k"] == "znode");
    znodes
        .filter_map(|line| {
            let (node, path) = (line["node"].as_str()?, line["path"].as_str()?);
            let by = zxid(&line["z"])?;
            let txn = evidence.disks.txn(node, by);
            let txn = txn.map_or(String::new(), |txn| format!(" ({})", txn.what));
            let logs = logs.as_ref().map_or(String::new(), |logs| format!("; {logs}"));
            Some(Finding {
                at_us,
                node: node.to_owned(),
                text: format!(
                    "{node} has another tree than {}: {path}: {}. The write behind that is {by}{txn}{logs}",
                    line["than"].as_str()?,
                    line["differs"].as_str()?
                ),
                is_wrong: true,
            })
        })
        .collect()
}

/// An event that did not come: whether it came later, to whom, or never; and who else was told.
fn watch(evidence: &Evidence<'_>) -> Option<Finding> {
    let lines = &evidence.check.witness;
    let (left, shown) = (lines.first()?, lines.last()?);
    if lines.len() < 2 || left["c"] != shown["c"] {
        return None;
    }
    let change = evidence.subject.as_ref()?.zxid;
    let since = evidence
        .since_start(&left["t1"])
        .or(evidence.since_start(&left["t0"]))?;
    let of_change = |event: &&Value| zxid(&event["z"]) == Some(change);
    let events = || evidence.trace.events.iter().filter(of_change);
    let own = events().find(|event| event["c"] == left["c"]);
    let client = left["c"].as_u64();
    let is_foreign = client.is_some_and(|client| evidence.folder.load.foreign.contains(&client));
    let others: Vec<String> = events()
        .filter(|event| event["c"] != left["c"])
        .take(NAMED_MAX)
        .map(|event| {
            let at = evidence
                .since_start(&event["at"])
                .map(moment)
                .unwrap_or_default();
            format!("{} at {at}", evidence.whose(event))
        })
        .collect();
    let path = path_of(evidence.check);
    let rest = if own.is_some() {
        String::new()
    } else {
        format!(". {}", told(evidence, change))
    };
    let own = match own {
        Some(event) => {
            let at = evidence.since_start(&event["at"]);
            format!(
                "The event came only at {}, after that answer",
                at.map(moment)?
            )
        }
        None if is_foreign => later_event(evidence, &path, left),
        None => "The event never came until the end of the run".to_owned(),
    };
    let others = if others.is_empty() {
        "no event with that zxid reached any other client either".to_owned()
    } else {
        format!("others were told: {}", others.join("; "))
    };
    let shown_at = evidence.since_start(&shown["t1"])?;
    Some(Finding {
        at_us: shown_at,
        node: evidence.server_of(left).unwrap_or_default(),
        text: format!(
            "{} had set its watch at {} ({}). The server made the change {change} to {path} visible to it at {} with {} (zxid {}). \
             {own}; {others}{rest}",
            capital(&evidence.whose(left)),
            moment(since),
            evidence.proof(left).asked,
            moment(shown_at),
            evidence.proof(shown).name,
            shown["z"].as_str().unwrap_or("?")
        ),
        is_wrong: true,
    })
}

/// A client's library that does not tell the zxids of events: the next event for the znode may be the one.
fn later_event(evidence: &Evidence<'_>, path: &str, left: &Value) -> String {
    let mut events = evidence.trace.events.iter().filter(|event| {
        event["c"] == left["c"]
            && event["path"] == path
            && event["at"].as_u64() > left["t1"].as_u64()
    });
    let next = events.find_map(|event| evidence.since_start(&event["at"]));
    let next = next.map_or("none came until the end of the run".to_owned(), |at_us| {
        format!("the next one for {path} came at {}", moment(at_us))
    });
    format!("Its library does not tell which change an event is for; {next}")
}

/// What else the watch told over its connection: it was there, and one event was lost; or it told nothing more.
fn told(evidence: &Evidence<'_>, change: Zxid) -> String {
    let named = |event: &Value| {
        let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let at = evidence
            .since_start(&event["at"])
            .map(moment)
            .unwrap_or_default();
        format!("{} {} {} at {at}", word("z"), word("path"), word("ev"))
    };
    let all = || {
        let told = evidence.trace.told.iter();
        told.filter_map(|event| Some((zxid(&event["z"])?, event)))
    };
    let before = all().rfind(|(zxid, _)| *zxid < change);
    let after = all().find(|(zxid, _)| *zxid > change);
    match (before, after) {
        (None, None) => "Over that connection the watch told of nothing else".to_owned(),
        (Some((_, before)), None) => format!(
            "Over the same connection it had told of an earlier change ({}), and told of none any more",
            named(before)
        ),
        (None, Some((_, after))) => format!(
            "Over the same connection it did tell of a later change ({}): only this one was lost",
            named(after)
        ),
        (Some((_, before)), Some((_, after))) => format!(
            "Over the same connection it told of the changes around it ({}; {}): it was there, and only this event was lost",
            named(before),
            named(after)
        ),
    }
}

/// An ephemeral that is there after its session: what the end of the session said that it deletes.
fn ephemeral(evidence: &Evidence<'_>) -> Option<Finding> {
    let path = path_of(evidence.check);
    let lines = evidence.check.witness.iter();
    let close = lines.clone().find(|line| line["op"] == "close")?;
    let at = zxid(&close["z"])?;
    let mut text = format!(
        "{} closed its session and was told at {} that it is over (zxid {at})",
        capital(&evidence.whose(close)),
        evidence.since_start(&close["t1"]).map(moment)?
    );
    if let Some(txn) = evidence.disks.txn("", at) {
        let names = txn
            .what
            .split(' ')
            .any(|word| word.trim_end_matches(',') == path);
        let in_logs = if names {
            format!(
                ". In the logs {at} is a {}, so {path} was to be deleted",
                txn.what
            )
        } else {
            format!(
                ". In the logs {at} is a {}. {path} is not among that, so no server was ever told to delete it",
                txn.what
            )
        };
        text.push_str(&in_logs);
    }
    let last = evidence.trace.finals.first();
    if let Some(last) = last {
        let owner = last["owner"].as_str().unwrap_or_default();
        let same = if last["owner"] == close["s"] {
            ", the session that was closed"
        } else {
            ""
        };
        text.push_str(&format!(
            ". At the end of the run {path} is still there, made at {}, owned by {owner}{same}",
            last["cz"].as_str().unwrap_or("?")
        ));
    }
    Some(Finding {
        at_us: evidence.since_start(&close["t1"])?,
        // Its server only passed it on.
        node: String::new(),
        text,
        is_wrong: true,
    })
}

/// A multi that was refused and changed something.
fn multi(evidence: &Evidence<'_>) -> Option<Finding> {
    let [before, refused, after] = evidence.check.witness.as_slice() else {
        return None;
    };
    if refused["out"] != "failed" {
        return None;
    }
    let path = path_of(evidence.check);
    let version = |line: &Value| {
        let parts = line["parts"].as_array().into_iter().flatten();
        let mut versions = parts.filter(|part| part["path"] == *path);
        let of_part = versions.find_map(|part| part["ver"].as_i64());
        of_part.or(line["ver"].as_i64())
    };
    let refused_at = zxid(&refused["z"])?;
    let between = |line: &&Value| {
        let at = zxid(&line["z"]);
        at > zxid(&before["z"])
            && at < zxid(&after["z"])
            && line["op"] != "get"
            && line["op"] != "exists"
    };
    let between = || evidence.trace.ops.iter().filter(between);
    let good = between().filter(|line| line["out"] == "ok").count();
    let refusals = between()
        .filter(|line| line["op"] == "multi" && line["out"] == "failed")
        .count();
    let alone = match (good, refusals) {
        (0, 0 | 1) => {
            "no other write to it that a client knows of was between them, so a part of the refused multi took place".to_owned()
        }
        (0, count) => format!(
            "between the two stand {count} multis that set it and were all refused, and no other write to it, so parts of \
             refused multis took place"
        ),
        _ => "so a part of the refused multi took place".to_owned(),
    };
    let (refusal, now) = (evidence.proof(refused), version(after)?);
    let was = version(before)?;
    if now <= was + 1 {
        return None;
    }
    Some(Finding {
        at_us: evidence.since_start(&refused["t1"])?,
        node: String::new(),
        text: format!(
            "{} asked for a multi ({}) and was told at {} that it is refused ({}) at {refused_at}: nothing of it may have \
             happened. Yet {path} had version {was} before it and got version {now} with the next acknowledged write instead \
             of {}: {alone}",
            capital(&evidence.whose(refused)),
            refusal.asked.trim_start_matches("multi "),
            evidence.since_start(&refused["t1"]).map(moment)?,
            refusal.answer.split(',').next().unwrap_or_default(),
            was + 1
        ),
        is_wrong: true,
    })
}

/// A write that was sent over an old connection took place after one over the new.
fn moved(evidence: &Evidence<'_>) -> Option<Finding> {
    let [old, new] = evidence.check.witness.as_slice() else {
        return None;
    };
    if old["s"] != new["s"] || old["conn"] == new["conn"] {
        return None;
    }
    let opened =
        evidence.trace.marks.iter().find(|mark| {
            mark["k"] == "open" && mark["s"] == new["s"] && mark["conn"] == new["conn"]
        });
    let moved_at = opened.and_then(|mark| evidence.since_start(&mark["at"]));
    let (session, xid) = request(old)?;
    let logged = evidence.disks.of_request(session, xid);
    let after = zxid(&new["z"])?;
    let late = logged.iter().find(|txn| txn.zxid > after)?;
    let who: Vec<&str> = logged
        .iter()
        .filter(|txn| txn.zxid == late.zxid)
        .map(|txn| txn.log.as_str())
        .collect();
    let (old_server, new_server) = (evidence.server_of(old)?, evidence.server_of(new)?);
    let moved_at = moved_at.map_or(String::new(), |at_us| format!(" at {}", moment(at_us)));
    let sent_at = evidence.since_start(&old["t0"])?;
    Some(Finding {
        at_us: sent_at,
        // Both servers passed on what they were asked; the leader has to refuse.
        node: String::new(),
        text: format!(
            "Client {} sent request {} ({}) to {old_server} at {} and never got an answer. Its session {} then moved to \
             {new_server}{moved_at}, where {} was answered at {after}. What {old_server} still had of the session had to be \
             refused from then on (SessionMoved); but the request became the txn {} ({}), behind {after}, and is in the \
             logs of {}",
            old["c"],
            xid.0,
            evidence.proof(old).asked,
            moment(sent_at),
            session,
            evidence.proof(new).asked,
            late.zxid,
            late.what,
            who.join(" ")
        ),
        is_wrong: true,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn zxids_are_ordered() {
        assert!(super::zxid(&"0x2".into()) > super::zxid(&"0x1".into()));
        assert_eq!(super::zxid(&"x".into()), None);
    }
}
