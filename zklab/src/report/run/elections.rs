//! Elections: which events belong together, who won, and what was said from whom to whom.

use std::collections::BTreeSet;

use super::folder::Event;

/// After so long without a word, what comes next is another election.
const SILENCE_US: u64 = 1_000_000;
/// Followers of a new leader may take so long to be part of its election.
const SETTLE_US: u64 = 250_000;

/// How an election ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a leader that a quorum follows.
    Won {
        /// The leader.
        leader: String,
        /// Its epoch.
        epoch: i64,
        /// When a quorum was in sync with it.
        at_us: u64,
    },
    /// The nodes that looked for a leader found one that reigned already.
    Joined,
    /// Without a leader.
    Lost,
}

/// What is drawn in one row of the message diagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When.
    pub at_us: u64,
    /// Who says or does it.
    pub from: String,
    /// To whom; nobody is something that a node does by itself.
    pub to: Vec<String>,
    /// What, in words.
    pub text: String,
    /// What kind, which is also the name of a colour.
    pub tone: Tone,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Votes.
    Vote,
    /// Epochs.
    Epoch,
    /// Bringing learners up to date.
    Sync,
    /// The election got on: a winner, a quorum, a server that serves.
    Good,
    /// A message that never arrived, a server that died.
    Bad,
    /// Anything else.
    Plain,
}

impl Tone {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Epoch => "epoch",
            Self::Sync => "sync",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Plain => "plain",
        }
    }
}

/// An election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// The first sign of it.
    pub from_us: u64,
    /// The last.
    pub to_us: u64,
    /// Why it was called.
    pub reason: String,
    /// The nodes that looked for a leader.
    pub looking: BTreeSet<String>,
    /// How it ended.
    pub end: End,
    /// The first write after it that a client had acknowledged.
    pub write_us: Option<u64>,
    /// What was said and done, by time.
    pub rows: Vec<Row>,
}

/// An election that may still go on.
#[derive(Debug, Default)]
struct Open<'e> {
    events: Vec<&'e Event>,
    unsettled: BTreeSet<&'e str>,
    elected_us: Option<u64>,
}

/// Sorts events into elections.
#[must_use]
pub(super) fn read(events: &[Event]) -> Vec<Election> {
    let mut elections = Vec::new();
    let mut open: Option<Open<'_>> = None;
    // What a server tells of itself is not told again by those who only heard it.
    let tellers: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.src == "zkd")
        .map(|event| event.node.as_str())
        .collect();
    let told = |event: &&Event| {
        let heard = event.src == "wire" && event.kind != "wire.message";
        belongs(event) && !(heard && tellers.contains(event.node.as_str()))
    };
    for event in events.iter().filter(told) {
        if let Some(now) = &open
            && now.is_over(event.t_us)
        {
            elections.extend(open.take().and_then(|open| close(&open.events)));
        }
        let begins = matches!(event.kind.as_str(), "election.started" | "election.vote")
            || (event.kind == "wire.message" && is_vote(&event.text("msg")));
        if open.is_none() && !begins {
            continue;
        }
        let now = open.get_or_insert_default();
        now.events.push(event);
        match event.kind.as_str() {
            "election.started" => {
                now.unsettled.insert(&event.node);
            }
            "node.serving" | "node.exited" => {
                now.unsettled.remove(event.node.as_str());
            }
            "leader.elected" => now.elected_us = Some(event.t_us),
            _ => {}
        }
    }
    elections.extend(open.and_then(|open| close(&open.events)));
    for election in &mut elections {
        election.write_us = first_write(events, election);
    }
    elections
}

impl Open<'_> {
    fn is_over(&self, now_us: u64) -> bool {
        let last_us = self.events.last().map_or(now_us, |event| event.t_us);
        let settled = self.unsettled.is_empty()
            && self.events.iter().any(|event| event.kind == "node.serving")
            && now_us > last_us + SETTLE_US / 5;
        let late = self
            .elected_us
            .is_some_and(|elected| now_us > elected + SETTLE_US);
        settled || late || now_us > last_us + SILENCE_US
    }
}

fn belongs(event: &Event) -> bool {
    matches!(
        event.kind.as_str(),
        "election.started"
            | "election.vote"
            | "election.ended"
            | "epoch.proposed"
            | "epoch.acked"
            | "epoch.first_commit"
            | "sync"
            | "leader.elected"
            | "node.serving"
            | "node.stepped_down"
            | "node.exited"
            | "wire.message"
    )
}

fn is_vote(msg: &str) -> bool {
    let msg = msg.to_ascii_lowercase();
    msg.contains("vote") || msg.contains("notification")
}

fn close(events: &[&Event]) -> Option<Election> {
    let first = events.first()?;
    let started = || {
        events
            .iter()
            .filter(|event| event.kind == "election.started")
    };
    let reason = started()
        .map(|event| format!("{}: {}", event.node, event.text("reason")))
        .next()
        .unwrap_or_default();
    let looking: BTreeSet<String> = started().map(|event| event.node.clone()).collect();
    let won = events.iter().find(|event| event.kind == "leader.elected");
    let end = match won {
        Some(event) => End::Won {
            leader: event.node.clone(),
            epoch: event.rest["epoch"].as_i64().unwrap_or_default(),
            at_us: event.t_us,
        },
        None if events.iter().any(|event| {
            matches!(event.kind.as_str(), "node.serving" | "election.ended")
                && event.text("role") != "leader"
        }) =>
        {
            End::Joined
        }
        None => End::Lost,
    };
    Some(Election {
        from_us: first.t_us,
        to_us: events.last().map_or(first.t_us, |event| event.t_us),
        reason: reason.trim_end_matches(": ").to_owned(),
        looking,
        end,
        write_us: None,
        rows: rows(events),
    })
}

/// The first write that a client had acknowledged once there was a leader again.
fn first_write(events: &[Event], election: &Election) -> Option<u64> {
    let End::Won { at_us, .. } = election.end else {
        return None;
    };
    events
        .iter()
        .filter(|event| event.kind == "client.write_acked" && event.t_us >= at_us)
        .map(|event| event.t_us)
        .next()
        .filter(|t_us| t_us - at_us < 5_000_000)
}

/// The rows of the diagram. What a node says to several at once is one row.
fn rows(events: &[&Event]) -> Vec<Row> {
    let heard = events.iter().any(|event| event.kind == "wire.message");
    let mut rows: Vec<Row> = Vec::new();
    for event in events {
        let Some(row) = row(event, heard) else {
            continue;
        };
        let joined = rows
            .iter_mut()
            .rev()
            .take_while(|last| row.at_us - last.at_us < 1_000)
            .find(|last| {
                !row.to.is_empty()
                    && !last.to.is_empty()
                    && (&last.from, &last.text, last.tone) == (&row.from, &row.text, row.tone)
                    && !last.to.contains(&row.to[0])
            });
        match joined {
            Some(last) => last.to.extend(row.to),
            None => rows.push(row),
        }
    }
    rows
}

/// One event as a row; where messages were heard, what the servers tell of them is not told twice.
fn row(event: &Event, heard: bool) -> Option<Row> {
    let epoch = event.text("epoch");
    let (text, tone) = match event.kind.as_str() {
        "wire.message" => return Some(message(event)),
        "election.started" => {
            let reason = event.text("reason");
            let why = if reason.is_empty() {
                String::new()
            } else {
                format!(" ({reason})")
            };
            (format!("looks for a leader{why}"), Tone::Plain)
        }
        "election.vote" if heard => return None,
        "election.vote" => (
            format!(
                "votes for {} (epoch {epoch}, zxid {}, round {})",
                event.text("for"),
                event.text("zxid"),
                event.text("round")
            ),
            Tone::Vote,
        ),
        "election.ended" => (format!("sees {} win", event.text("winner")), Tone::Good),
        "epoch.proposed" if heard => return None,
        "epoch.proposed" => (format!("epoch {epoch} proposed"), Tone::Epoch),
        "epoch.acked" => (format!("epoch {epoch} accepted"), Tone::Epoch),
        "sync" => {
            let to = event.text("to");
            let learns = to == event.node;
            let by = if learns {
                "is brought up to date by "
            } else {
                ""
            };
            return (!heard && !to.is_empty()).then(|| Row {
                at_us: event.t_us,
                from: event.node.clone(),
                to: if learns { Vec::new() } else { vec![to] },
                text: format!(
                    "{by}{} to zxid {}",
                    event.text("mode"),
                    event.text("to_zxid")
                ),
                tone: Tone::Sync,
            });
        }
        "leader.elected" => (
            format!("leads epoch {epoch}: a quorum is in sync"),
            Tone::Good,
        ),
        "node.serving" => (format!("serves as {}", event.text("role")), Tone::Good),
        "epoch.first_commit" => return None,
        "node.stepped_down" => (
            format!("is no longer {}: {}", event.text("role"), event.text("why")),
            Tone::Bad,
        ),
        "node.exited" => ("its process ended".to_owned(), Tone::Bad),
        _ => return None,
    };
    Some(Row {
        at_us: event.t_us,
        from: event.node.clone(),
        to: Vec::new(),
        text,
        tone,
    })
}

fn message(event: &Event) -> Row {
    let msg = event.text("msg");
    let upper = msg.to_ascii_uppercase();
    let tone = match upper.as_str() {
        _ if is_vote(&msg) => Tone::Vote,
        "FOLLOWERINFO" | "OBSERVERINFO" | "LEADERINFO" | "ACKEPOCH" => Tone::Epoch,
        "UPTODATE" => Tone::Good,
        _ => Tone::Sync,
    };
    let mut text = if is_vote(&msg) {
        "vote".to_owned()
    } else {
        msg
    };
    let vote = event.text("for");
    if !vote.is_empty() {
        text.push_str(&format!(" for {vote}"));
    }
    let details: Vec<String> = [("epoch", "epoch "), ("zxid", "zxid "), ("round", "round ")]
        .into_iter()
        .filter(|(key, _)| !event.text(key).is_empty())
        .map(|(key, word)| format!("{word}{}", event.text(key)))
        .collect();
    if !details.is_empty() {
        text.push_str(&format!(" ({})", details.join(", ")));
    }
    let fate = event.text("fate");
    let arrived = matches!(
        fate.as_str(),
        "" | "ok" | "passed" | "delivered" | "sent" | "forwarded" | "delayed"
    );
    if !arrived {
        text.push_str(&format!(" – {fate}"));
    }
    let from = event.text("from");
    Row {
        at_us: event.t_us,
        from: if from.is_empty() {
            event.node.clone()
        } else {
            from
        },
        to: vec![event.text("to")],
        text,
        tone: if arrived { tone } else { Tone::Bad },
    }
}
