//! The phases of a re-election, from the death of the leader to the next acknowledged write.
//!
//! Pure arithmetic over events. The phases follow one another without a gap, so they add up to the
//! total: each ends with an event about the server that won, and where an event is missing there are no
//! phases at all, only the total. The events may be those read off the wire, or those of the servers' own
//! feeds, where they have one; never a mixture.

use serde::{Deserialize, Serialize};
use zkd::event::SyncMode;
use zkd::ids::Zxid;

use super::clients::{Ack, Tally};
use crate::clock::ms;
use crate::event::{HexZxid, LabEvent, LabEventKind, Role, Source};
use crate::id::NodeId;

/// The phases in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Death to the first survivor in an election.
    pub detect: Option<f64>,
    /// To the end of the election at the winner.
    pub elect: Option<f64>,
    /// To a quorum having accepted the new epoch.
    pub epoch: Option<f64>,
    /// To a quorum being in sync with the new leader.
    pub sync: Option<f64>,
    /// To the first acknowledged write.
    pub serve: Option<f64>,
    /// Death to a leader with a quorum: the first four.
    pub no_leader: Option<f64>,
    /// Death to the next acknowledged write: all five.
    pub no_writes: f64,
}

/// What there is to say about each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Who noticed and how.
    pub detect: String,
    /// Rounds, votes, winner.
    pub elect: String,
    /// From which epoch to which, and who accepted.
    pub epoch: String,
    /// How the followers were brought up to date.
    pub sync: String,
    /// The first write.
    pub serve: String,
}

/// One death of a leader and what followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reelection {
    /// Version of this format, 1.
    pub v: u32,
    /// `kill-leader`.
    pub cmd: String,
    /// The old leader.
    pub victim: NodeId,
    /// The signal it got, without `SIG`.
    pub signal: String,
    /// `process`: its host and links stayed.
    #[serde(rename = "as")]
    pub death: String,
    /// When, as the wall clock of the machine says: `12:00:04.118`.
    pub at: String,
    /// Its epoch.
    pub old_epoch: i64,
    /// The epoch after.
    pub new_epoch: i64,
    /// The leader after.
    pub new_leader: NodeId,
    /// How long it took.
    pub ms: Phases,
    /// Whose events say so: `wire`, or `zkd` (the servers' own feed); none if nobody's do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms_from: Option<Source>,
    /// The same by the servers' own feeds, where they have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed_ms: Option<Phases>,
    /// Election rounds.
    pub rounds: u64,
    /// Notifications the winner received.
    pub votes: u64,
    /// The first write of the new epoch that was acknowledged.
    pub first_write_zxid: HexZxid,
    /// What the clients lived through.
    pub clients: Tally,
    /// The longest time the machine held everything up meanwhile.
    pub host_stall_max_ms: f64,
    /// Details for people.
    pub notes: Notes,
    /// Why the epoch rose by more than one, attempt by attempt; empty if it did not.
    pub failed_attempts: Vec<String>,
    /// `pass`, or what was missed.
    pub verdict: String,
}

/// What is known before the events are read.
#[derive(Clone, Debug)]
pub struct Kill {
    /// The old leader.
    pub victim: NodeId,
    /// Its epoch.
    pub old_epoch: i64,
    /// When it was killed, as the events count.
    pub t_us: u64,
    /// The first write acknowledged in a new epoch.
    pub ack: Ack,
    /// When that was, as the events count.
    pub ack_t_us: u64,
    /// The node that leads now.
    pub new_leader: NodeId,
}

/// Reads phases and notes out of the events after the kill.
#[must_use]
pub fn read(kill: &Kill, events: &[LabEvent]) -> PhasesTold {
    let story = Story::new(kill, events);
    let mut ends = [
        story.looking.first().map(|(t, ..)| *t),
        story.elected.as_ref().map(|(t, _)| *t),
        story.epoch_acked,
        story.established,
    ];
    // The events of several processes are read in the order in which they arrive; times never run back.
    let mut last = kill.t_us;
    for end in ends.iter_mut().flatten() {
        *end = (*end).clamp(last, kill.ack_t_us);
        last = *end;
    }
    let no_writes = kill.ack_t_us.saturating_sub(kill.t_us);
    let mut phases = Phases {
        no_writes: ms(no_writes),
        ..Phases::default()
    };
    if let [Some(detect), Some(elect), Some(epoch), Some(sync)] = ends {
        phases = sum_up(kill, [detect, elect, epoch, sync]);
    }
    let rounds = story.rounds.len().max(1) as u64;
    let votes = story.elected.as_ref().map_or(0, |(_, votes)| *votes);
    (phases, story.notes(kill, rounds, votes), rounds, votes)
}

/// The phases between these ends, in tenths of a millisecond that add up.
fn sum_up(kill: &Kill, ends: [u64; 4]) -> Phases {
    // Each end is rounded, not each length: then the rounded lengths add up to the rounded total.
    let tenth = |t: u64| t.saturating_sub(kill.t_us).div_ceil(50) / 2;
    let points = [
        0,
        tenth(ends[0]),
        tenth(ends[1]),
        tenth(ends[2]),
        tenth(ends[3]),
        tenth(kill.ack_t_us),
    ];
    let length = |from: usize, to: usize| ms((points[to] - points[from]) * 100);
    Phases {
        detect: Some(length(0, 1)),
        elect: Some(length(1, 2)),
        epoch: Some(length(2, 3)),
        sync: Some(length(3, 4)),
        serve: Some(length(4, 5)),
        no_leader: Some(length(0, 4)),
        no_writes: length(0, 5),
    }
}

/// The events that matter, picked out.
#[derive(Debug, Default)]
struct Story {
    /// Who entered an election, when, why.
    looking: Vec<(u64, NodeId, String)>,
    /// Rounds voted in.
    rounds: std::collections::BTreeSet<i64>,
    /// Zxid in the votes for the winner.
    winning_zxid: Option<HexZxid>,
    /// The end of the winner's last election before its epoch stood, and the votes it got.
    elected: Option<(u64, u64)>,
    epoch_acked: Option<u64>,
    established: Option<u64>,
    /// Who accepted the new epoch.
    accepted_by: Vec<NodeId>,
    /// How each learner was synced, and which it was.
    synced: Vec<(String, String)>,
}

impl Story {
    fn new(kill: &Kill, events: &[LabEvent]) -> Self {
        let mut story = Self::default();
        let new_epoch = Zxid(kill.ack.zxid.0).epoch().0;
        for event in events.iter().filter(|event| event.t_us >= kill.t_us) {
            let Some(node) = event.node.filter(|node| *node != kill.victim) else {
                continue;
            };
            story.on_event(
                event.t_us,
                node,
                node == kill.new_leader,
                new_epoch,
                &event.kind,
            );
        }
        story.looking.sort_by_key(|(t, ..)| *t);
        story
    }

    fn on_event(&mut self, t: u64, node: NodeId, wins: bool, new_epoch: i64, kind: &LabEventKind) {
        match kind {
            LabEventKind::ElectionStarted { reason }
                if !self.looking.iter().any(|(_, other, _)| *other == node) =>
            {
                self.looking.push((t, node, reason.clone()));
            }
            LabEventKind::ElectionVote {
                round, zxid, vote, ..
            } => {
                self.rounds.insert(*round);
                if wins && *vote == node.to_string() {
                    self.winning_zxid = Some(*zxid);
                }
            }
            LabEventKind::ElectionEnded { votes, .. } if wins && self.epoch_acked.is_none() => {
                self.elected = Some((t, *votes));
            }
            LabEventKind::EpochProposed { epoch } if *epoch == new_epoch && !wins => {
                self.accepted_by.push(node);
            }
            LabEventKind::EpochAcked { epoch } if *epoch == new_epoch && wins => {
                self.epoch_acked.get_or_insert(t);
            }
            LabEventKind::LeaderElected { epoch } if *epoch == new_epoch && wins => {
                self.established.get_or_insert(t);
            }
            LabEventKind::Sync {
                to,
                mode,
                from_zxid,
                to_zxid,
                txns,
                bytes,
                ..
            } if wins => {
                let size = txns.map(|txns| (txns, *bytes));
                let how = how_synced(*mode, from_zxid == to_zxid, size);
                self.synced.push((how, to.clone()));
            }
            _ => {}
        }
    }

    fn notes(&self, kill: &Kill, rounds: u64, votes: u64) -> Notes {
        let new_epoch = Zxid(kill.ack.zxid.0).epoch().0;
        let zxid = self
            .winning_zxid
            .map(|zxid| format!(" (zxid {zxid})"))
            .unwrap_or_default();
        let plural = |count: u64, word: &str| {
            let s = if count == 1 { "" } else { "s" };
            format!("{count} {word}{s}")
        };
        Notes {
            detect: self.note_detect(),
            elect: format!(
                "{}, {}, {} wins{zxid}",
                plural(rounds, "round"),
                plural(votes, "vote"),
                kill.new_leader
            ),
            epoch: format!(
                "{} → {new_epoch}, ACKEPOCH from {}",
                kill.old_epoch,
                join(&self.accepted_by)
            ),
            sync: self.note_sync(),
            serve: format!(
                "first write acked by {}, zxid {}",
                kill.ack.node, kill.ack.zxid
            ),
        }
    }

    fn note_detect(&self) -> String {
        let Some((first_t, first, reason)) = self.looking.first() else {
            return String::new();
        };
        let mut note = format!("{first} first: {reason}");
        if let Some((last_t, ..)) = self.looking.last().filter(|_| self.looking.len() > 1) {
            let more = self.looking.len() - 1;
            note.push_str(&format!(", {more} more within {} ms", ms(last_t - first_t)));
        }
        note
    }

    fn note_sync(&self) -> String {
        let mut hows: Vec<&str> = Vec::new();
        for (how, _) in &self.synced {
            if !hows.contains(&how.as_str()) {
                hows.push(how);
            }
        }
        let parts = hows.into_iter().map(|how| {
            let of_this = self.synced.iter().filter(|(other, _)| other == how);
            let learners: Vec<&str> = of_this.map(|(_, to)| to.as_str()).collect();
            format!("{how} to {}", join(&learners))
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// How a learner was synced, in words; `size` is txns and bytes, if they were counted.
fn how_synced(mode: SyncMode, lacks_nothing: bool, size: Option<(u64, Option<u64>)>) -> String {
    let word = format!("{mode:?}").to_uppercase();
    match size {
        None if lacks_nothing => format!("{word} (nothing lacking)"),
        None => word,
        Some((_, Some(bytes))) => format!("{word} {} kB", bytes.div_ceil(1000)),
        Some((1, None)) => format!("{word} 1 txn"),
        Some((txns, None)) => format!("{word} {txns} txns"),
    }
}

/// Phases, what there is to say about them, rounds and votes.
pub type PhasesTold = (Phases, Notes, u64, u64);
/// The phases by both sides that may tell, where their events suffice: the wire, and the servers' feeds.
pub type BySide = [(Source, PhasesTold); 2];

/// Reads the events of the wire and those of the servers' feeds, each for themselves.
#[must_use]
pub fn read_both(kill: &Kill, events: &[LabEvent]) -> BySide {
    [Source::Wire, Source::Zkd].map(|side| {
        let is_wire = side == Source::Wire;
        let of_side = |event: &&LabEvent| (event.src == Source::Wire) == is_wire;
        let events: Vec<LabEvent> = events.iter().filter(of_side).cloned().collect();
        (side, read(kill, &events))
    })
}

/// The node that a quorum was seen to acknowledge as leader of this epoch.
#[must_use]
pub fn elected(epoch: i64, events: &[LabEvent]) -> Option<NodeId> {
    events.iter().find_map(|event| match event.kind {
        LabEventKind::LeaderElected { epoch: of } if of == epoch => event.node,
        _ => None,
    })
}

/// Names side by side, of very many only the first; nobody is a leader by itself.
#[must_use]
pub fn join<T: std::fmt::Display>(nodes: &[T]) -> String {
    const SHOWN: usize = 7;
    let names: Vec<String> = nodes.iter().take(SHOWN).map(ToString::to_string).collect();
    match nodes.len() {
        0 => "itself".to_owned(),
        1..=SHOWN => names.join(" "),
        count => format!("{} and {} more", names.join(" "), count - SHOWN),
    }
}

/// Why the epoch rose by more than one: every epoch that was proposed and never served in.
#[must_use]
pub fn failed_attempts(old_epoch: i64, new_epoch: i64, events: &[LabEvent]) -> Vec<String> {
    (old_epoch + 1..new_epoch)
        .map(|lost| {
            let proposed = events.iter().find_map(|event| match event.kind {
                LabEventKind::EpochProposed { epoch } if epoch == lost => event.node,
                _ => None,
            });
            let Some(node) = proposed else {
                return format!("epoch {lost}: nobody tells who proposed it");
            };
            let why = events.iter().find_map(|event| match &event.kind {
                LabEventKind::SteppedDown { why, .. } if event.node == Some(node) => {
                    Some(why.clone())
                }
                LabEventKind::NodeExited { .. } if event.node == Some(node) => {
                    Some("it died".to_owned())
                }
                _ => None,
            });
            let why = why.unwrap_or_else(|| "it found no quorum".to_owned());
            format!("epoch {lost}: first told by {node}; the attempt failed: {why}")
        })
        .collect()
}

/// Does this node lead in these events, and in which epoch? The last that began to.
#[must_use]
pub fn last_leader(events: &[LabEvent]) -> Option<(NodeId, i64)> {
    events.iter().rev().find_map(|event| match event.kind {
        LabEventKind::NodeServing {
            role: Role::Leader,
            epoch,
            ..
        } => event.node.map(|node| (node, epoch)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Source;

    fn event(t_us: u64, node: u8, kind: LabEventKind) -> LabEvent {
        LabEvent {
            v: 1,
            seq: t_us,
            t_us,
            lab: "x".to_owned(),
            node: Some(NodeId(node)),
            src: Source::Zkd,
            kind,
        }
    }

    fn kill() -> Kill {
        Kill {
            victim: NodeId(3),
            old_epoch: 1,
            t_us: 10_000,
            ack: Ack {
                at_us: 0,
                zxid: HexZxid(0x2_0000_0001),
                node: NodeId(1),
            },
            ack_t_us: 32_340,
            new_leader: NodeId(2),
        }
    }

    fn story() -> Vec<LabEvent> {
        let started = |reason: &str| LabEventKind::ElectionStarted {
            reason: reason.to_owned(),
        };
        vec![
            event(9_000, 2, started("an old story")),
            event(12_130, 1, started("leader closed the connection")),
            event(12_480, 2, started("leader closed the connection")),
            event(
                13_000,
                2,
                LabEventKind::ElectionVote {
                    round: 2,
                    vote: "n2".to_owned(),
                    zxid: HexZxid(0x1_0000_0009),
                    epoch: 1,
                },
            ),
            event(
                19_560,
                2,
                LabEventKind::ElectionEnded {
                    winner: "n2".to_owned(),
                    round: 2,
                    votes: 3,
                    early: true,
                },
            ),
            event(21_000, 1, LabEventKind::EpochProposed { epoch: 2 }),
            event(22_510, 2, LabEventKind::EpochAcked { epoch: 2 }),
            event(26_740, 2, LabEventKind::LeaderElected { epoch: 2 }),
        ]
    }

    #[test]
    fn phases_add_up_to_the_total() {
        let (phases, notes, rounds, votes) = read(&kill(), &story());
        let parts = [phases.detect, phases.elect, phases.epoch, phases.sync];
        let sum: f64 = parts.into_iter().flatten().sum();
        assert!((sum - phases.no_leader.unwrap()).abs() < 1e-9);
        assert!((sum + phases.serve.unwrap() - phases.no_writes).abs() < 1e-9);
        assert!((phases.no_writes - 22.3).abs() < 1e-9, "{phases:?}");
        assert_eq!((rounds, votes), (1, 3));
        assert_eq!(
            notes.detect,
            "n1 first: leader closed the connection, 1 more within 0.4 ms"
        );
        assert_eq!(notes.elect, "1 round, 3 votes, n2 wins (zxid 0x100000009)");
        assert_eq!(notes.epoch, "1 → 2, ACKEPOCH from n1");
    }

    #[test]
    fn the_wire_and_the_feed_are_read_each_for_itself() {
        let mut events = story();
        for event in &mut events {
            event.src = Source::Wire;
            event.t_us += 300;
        }
        events.extend(story());
        events.push(event(
            23_000,
            2,
            LabEventKind::Sync {
                to: "n1".to_owned(),
                mode: SyncMode::Diff,
                from_zxid: HexZxid(1),
                to_zxid: HexZxid(4),
                txns: Some(3),
                bytes: None,
                took_us: Some(9),
            },
        ));
        events.last_mut().unwrap().src = Source::Wire;
        let [(wire, by_wire), (feed, by_feed)] = read_both(&kill(), &events);
        assert_eq!((wire, feed), (Source::Wire, Source::Zkd));
        assert_eq!(by_wire.0.detect, Some(2.4));
        assert_eq!(by_feed.0.detect, Some(2.1));
        assert_eq!(by_wire.1.sync, "DIFF 3 txns to n1");
        assert_eq!(by_feed.1.sync, "");
        assert_eq!(elected(2, &events), Some(NodeId(2)));
        assert_eq!(elected(3, &events), None);
        assert_eq!(
            how_synced(SyncMode::Diff, true, None),
            "DIFF (nothing lacking)"
        );
        assert_eq!(
            how_synced(SyncMode::Snap, false, Some((0, Some(1_201)))),
            "SNAP 2 kB"
        );
        assert_eq!(
            how_synced(SyncMode::Trunc, false, Some((1, None))),
            "TRUNC 1 txn"
        );
    }

    #[test]
    fn without_a_feed_there_is_only_the_total() {
        let (phases, ..) = read(&kill(), &[]);
        assert_eq!(phases.detect, None);
        assert!((phases.no_writes - 22.3).abs() < 1e-9);
    }

    #[test]
    fn every_epoch_that_was_jumped_over_is_explained() {
        let mut events = story();
        events.push(event(20_000, 2, LabEventKind::EpochProposed { epoch: 2 }));
        events.push(event(
            21_000,
            1,
            LabEventKind::SteppedDown {
                role: Role::Leader,
                why: "no quorum of followers".to_owned(),
            },
        ));
        let attempts = failed_attempts(1, 3, &events);
        assert_eq!(
            attempts,
            ["epoch 2: first told by n1; the attempt failed: no quorum of followers"]
        );
        assert!(failed_attempts(1, 2, &events).is_empty());
    }
}
