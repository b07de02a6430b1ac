//! Elections, read off what the servers were seen to say to each other.
//!
//! A pure fold: one [`Sighting`] in, events out. Each event is stamped with the delivery of the message that
//! proves it. Only what a quorum can know is told: an election is over when a quorum was seen to vote
//! alike, an epoch stands when a quorum was seen to accept it. A leader itself counts as soon as it is seen to
//! act as one. Counterpart of what is inferred: `FastLeaderElection`, `Leader`, `LearnerHandler`.

use std::collections::{BTreeMap, BTreeSet};

use zkd::event::SyncMode;
use zkd::ids::Zxid;
use zkd::record::quorum::packet;

use crate::event::{HexZxid, LabEventKind, MessageFate, Role, WireNote, node_name};
use crate::id::NodeId;
use crate::net::wire::{Ballot, Claim, Ending, Name, Sighting, What};

/// Ballots of a node that are remembered; older ones are not taken for repetitions any more.
const BALLOTS_MAX: usize = 512;

/// An event: when, about whom, what.
pub type Told = (u64, NodeId, LabEventKind);

/// What is known of one server.
#[derive(Debug, Default)]
struct Server {
    /// Its process, to know a new one.
    pid: Option<u32>,
    /// Its vote, while it looks for a leader.
    vote: Option<Ballot>,
    /// The votes it has cast. A server sends its last one again on every new connection, even when the election
    /// is long over.
    cast: BTreeSet<Ballot>,
    /// Votes that reached it since it began to look.
    received: u64,
    /// The end of its election was told.
    ended: bool,
    /// Why it may look for a leader soon.
    reason: Option<&'static str>,
}

/// What is known of a learner and its leader.
#[derive(Debug, Default)]
struct Joining {
    epoch: i64,
    last_zxid: i64,
    /// The mode of its synchronization, to which zxid, since when.
    mode: Option<(SyncMode, i64, u64)>,
    txns: u64,
    bytes: Option<u64>,
    /// It has acknowledged NEWLEADER.
    in_sync: bool,
}

/// What is known of a leader and its epoch.
#[derive(Debug, Default)]
struct Reign {
    epoch: i64,
    accepted: BTreeSet<usize>,
    epoch_stands: bool,
    in_sync: BTreeSet<usize>,
    is_elected: bool,
    has_committed: bool,
}

/// Everything that is known.
#[derive(Debug)]
pub struct WireObserver {
    /// Who has a vote, by place.
    voters: Vec<bool>,
    servers: Vec<Server>,
    joining: BTreeMap<(usize, usize), Joining>,
    reigns: BTreeMap<usize, Reign>,
    /// The vote on which a quorum agreed last.
    agreed: Option<Ballot>,
}

impl WireObserver {
    /// Nothing seen yet; `voters` says by place who has a vote.
    #[must_use]
    pub fn new(voters: &[bool]) -> Self {
        Self {
            voters: voters.to_vec(),
            servers: voters.iter().map(|_| Server::default()).collect(),
            joining: BTreeMap::new(),
            reigns: BTreeMap::new(),
            agreed: None,
        }
    }

    /// Nodes came or went: these have a vote now, by place.
    pub fn set_nodes(&mut self, voters: &[bool]) {
        // What was seen of one that is gone may be seen to its end.
        let count = self.servers.len().max(voters.len());
        self.servers.resize_with(count, Server::default);
        self.voters = voters.to_vec();
        self.voters.resize(count, false);
    }

    /// What follows from something seen; `pid` is the present process of its sender. A message that was
    /// withheld proves nothing.
    pub fn on_sighting(&mut self, seen: &Sighting, pid: Option<u32>) -> Vec<Told> {
        let mut told = Vec::new();
        if seen.caught_by.is_some() {
            return told;
        }
        match seen.what {
            What::Vote(ballot) => self.on_vote(seen, ballot, pid, &mut told),
            What::Packet { kind, zxid, number } if seen.dials => {
                self.on_learner(seen, (kind, zxid, number), &mut told);
            }
            What::Packet { kind, zxid, .. } => self.on_leader(seen, kind, zxid, &mut told),
            What::SnapshotEnd => {
                let joining = self.joining.entry((seen.from, seen.to)).or_default();
                joining.bytes = Some(seen.bytes);
            }
            What::Closed(ending) if !seen.election => self.on_closed(seen, ending),
            What::Closed(_) | What::Opened | What::Missed | What::Unreadable(_) => {}
        }
        told
    }

    /// The message as an event, whatever it proves.
    #[must_use]
    pub fn note(&self, seen: &Sighting, fate: MessageFate) -> Option<WireNote> {
        let name = seen.name()?;
        let mut note = WireNote {
            from: NodeId::at(seen.from),
            to: NodeId::at(seen.to),
            msg: name.to_string(),
            zxid: seen.zxid().filter(|zxid| *zxid != -1).map(HexZxid),
            epoch: None,
            round: None,
            vote: None,
            state: None,
            bytes: (seen.bytes > 0).then_some(seen.bytes),
            fate,
        };
        match seen.what {
            What::Vote(ballot) if seen.bytes > 0 => {
                note.round = Some(ballot.round);
                note.epoch = Some(ballot.epoch);
                note.vote = Some(node_name(ballot.leader));
                note.state = Some(match ballot.claim {
                    Claim::Looking => Role::Looking,
                    Claim::Following => Role::Follower,
                    Claim::Leading => Role::Leader,
                    Claim::Observing => Role::Observer,
                });
                note.zxid = note.zxid.filter(|_| ballot.leader >= 0);
            }
            // What it accepts, not the one it has.
            What::Packet {
                kind: packet::ACKEPOCH,
                ..
            } => note.epoch = Some(self.epoch_between(seen)),
            What::Packet { zxid, .. } if zxid > 0 => note.epoch = Some(Zxid(zxid).epoch().0),
            _ => {}
        }
        Some(note)
    }

    /// Is it of an election, a discovery or a synchronization? The writes of an ensemble at work are not.
    #[must_use]
    pub fn is_of_election(seen: &Sighting) -> bool {
        match seen.what {
            What::Packet {
                kind: packet::ACK,
                zxid,
                ..
            } => Zxid(zxid).counter() == 0,
            _ => seen.name().is_some_and(|name| !name.is_of_broadcast()),
        }
    }

    fn epoch_between(&self, seen: &Sighting) -> i64 {
        let joining = self.joining.get(&(seen.to, seen.from));
        joining.map_or(0, |joining| joining.epoch)
    }

    fn quorum(&self) -> usize {
        self.voters.iter().filter(|votes| **votes).count() / 2 + 1
    }

    fn on_vote(&mut self, seen: &Sighting, ballot: Ballot, pid: Option<u32>, told: &mut Vec<Told>) {
        let node = NodeId::at(seen.from);
        self.servers[seen.to].received += 1;
        let others = self.servers.iter().filter(|s| s.vote.is_some()).count() as u64;
        let server = &mut self.servers[seen.from];
        if server.pid != pid {
            *server = Server {
                pid,
                reason: Some("it was started"),
                ..Server::default()
            };
        }
        if ballot.claim != Claim::Looking {
            self.settle(seen.at_us, seen.from, ballot.leader, ballot.round, told);
            return;
        }
        if server.vote == Some(ballot) || !server.cast.insert(ballot) {
            return;
        }
        if server.cast.len() > BALLOTS_MAX {
            server.cast.pop_first();
        }
        if server.vote.is_none() {
            let reason = server.reason.take().unwrap_or("it has no leader any more");
            // Those who were faster have told it their votes.
            server.received = others;
            server.ended = false;
            let reason = reason.to_owned();
            told.push((seen.at_us, node, LabEventKind::ElectionStarted { reason }));
        }
        server.vote = Some(ballot);
        let vote = LabEventKind::ElectionVote {
            round: ballot.round,
            vote: node_name(ballot.leader),
            zxid: HexZxid(ballot.zxid),
            epoch: ballot.epoch,
        };
        told.push((seen.at_us, node, vote));
        self.count_votes(seen.at_us, ballot, told);
    }

    /// Does a quorum vote alike now?
    fn count_votes(&mut self, at_us: u64, ballot: Ballot, told: &mut Vec<Told>) {
        let alike = |(server, votes): &(&Server, &bool)| **votes && server.vote == Some(ballot);
        let count = self.servers.iter().zip(&self.voters).filter(alike).count();
        if count < self.quorum() || self.agreed == Some(ballot) {
            return;
        }
        self.agreed = Some(ballot);
        let Some(winner) = self.place(ballot.leader) else {
            return;
        };
        let server = &mut self.servers[winner];
        server.ended = true;
        let ended = LabEventKind::ElectionEnded {
            winner: node_name(ballot.leader),
            round: ballot.round,
            votes: server.received,
            early: false,
        };
        told.push((at_us, NodeId::at(winner), ended));
    }

    fn place(&self, sid: i64) -> Option<usize> {
        let place = NodeId::of_sid(sid)?.place();
        (place < self.servers.len()).then_some(place)
    }

    /// A server does not look for a leader any more.
    fn settle(&mut self, at_us: u64, who: usize, leader: i64, round: i64, told: &mut Vec<Told>) {
        let server = &mut self.servers[who];
        server.reason = None;
        let Some(vote) = server.vote.take() else {
            return;
        };
        if std::mem::replace(&mut server.ended, true) {
            return;
        }
        let ended = LabEventKind::ElectionEnded {
            winner: node_name(leader),
            round: if round > 0 { round } else { vote.round },
            votes: server.received,
            early: false,
        };
        told.push((at_us, NodeId::at(who), ended));
    }

    /// A packet from a learner to its leader.
    fn on_learner(
        &mut self,
        seen: &Sighting,
        (kind, zxid, number): (i32, i64, Option<i64>),
        told: &mut Vec<Told>,
    ) {
        let (leader, learner) = (seen.to, seen.from);
        let quorum = self.quorum();
        let is_voter = self.voters[learner];
        match kind {
            packet::FOLLOWERINFO | packet::OBSERVERINFO => {
                let sid = NodeId::at(leader).sid().0;
                self.settle(seen.at_us, learner, sid, 0, told);
                self.joining.insert((leader, learner), Joining::default());
            }
            packet::ACKEPOCH => {
                let joining = self.joining.entry((leader, learner)).or_default();
                joining.last_zxid = zxid;
                let epoch = joining.epoch;
                let proposed = LabEventKind::EpochProposed { epoch };
                told.push((seen.at_us, NodeId::at(learner), proposed));
                let reign = self.reigns.entry(leader).or_default();
                // Who has promised this epoch before does not count again (`Leader.waitForEpochAck`).
                if is_voter && number != Some(-1) && reign.epoch == epoch {
                    reign.accepted.insert(learner);
                }
                if reign.accepted.len() + 1 >= quorum && !reign.epoch_stands {
                    reign.epoch_stands = true;
                    let acked = LabEventKind::EpochAcked { epoch };
                    told.push((seen.at_us, NodeId::at(leader), acked));
                }
            }
            packet::ACK if Zxid(zxid).counter() == 0 => {
                let joining = self.joining.entry((leader, learner)).or_default();
                let epoch = Zxid(zxid).epoch().0;
                if std::mem::replace(&mut joining.in_sync, true) {
                    return;
                }
                let reign = self.reigns.entry(leader).or_default();
                if is_voter && reign.epoch == epoch {
                    reign.in_sync.insert(learner);
                }
                if reign.in_sync.len() + 1 >= quorum && !reign.is_elected {
                    reign.is_elected = true;
                    let elected = LabEventKind::LeaderElected { epoch };
                    told.push((seen.at_us, NodeId::at(leader), elected));
                }
            }
            _ => {}
        }
    }

    /// A packet from a leader to its learner.
    fn on_leader(&mut self, seen: &Sighting, kind: i32, zxid: i64, told: &mut Vec<Told>) {
        let (leader, learner) = (seen.from, seen.to);
        let epoch = Zxid(zxid).epoch().0;
        match kind {
            packet::LEADERINFO => {
                let sid = NodeId::at(leader).sid().0;
                self.settle(seen.at_us, leader, sid, 0, told);
                let joining = self.joining.entry((leader, learner)).or_default();
                joining.epoch = epoch;
                let reign = self.reigns.entry(leader).or_default();
                if reign.epoch != epoch {
                    *reign = Reign {
                        epoch,
                        ..Reign::default()
                    };
                    let proposed = LabEventKind::EpochProposed { epoch };
                    told.push((seen.at_us, NodeId::at(leader), proposed));
                }
            }
            packet::DIFF | packet::TRUNC | packet::SNAP => {
                let mode = match kind {
                    packet::DIFF => SyncMode::Diff,
                    packet::TRUNC => SyncMode::Trunc,
                    _ => SyncMode::Snap,
                };
                let joining = self.joining.entry((leader, learner)).or_default();
                joining.mode = Some((mode, zxid, seen.at_us));
            }
            packet::NEWLEADER => self.on_newleader(seen, told),
            packet::UPTODATE => {
                let epoch = self
                    .joining
                    .get(&(leader, learner))
                    .map_or(0, |joining| joining.epoch);
                let leader = NodeId::at(leader);
                let kind = LabEventKind::UpToDate { leader, epoch };
                told.push((seen.at_us, NodeId::at(learner), kind));
            }
            packet::PROPOSAL => {
                if let Some(joining) = self.joining.get_mut(&(leader, learner))
                    && joining.mode.is_some()
                {
                    joining.txns += 1;
                }
            }
            packet::COMMIT
            | packet::COMMITANDACTIVATE
            | packet::INFORM
            | packet::INFORMANDACTIVATE => {
                if let Some(reign) = self.reigns.get_mut(&leader)
                    && reign.is_elected
                    && !reign.has_committed
                    && reign.epoch == epoch
                {
                    reign.has_committed = true;
                    let zxid = HexZxid(zxid);
                    let first = LabEventKind::FirstCommit { zxid };
                    told.push((seen.at_us, NodeId::at(leader), first));
                }
            }
            _ => {}
        }
    }

    /// All that a learner needed was sent.
    fn on_newleader(&mut self, seen: &Sighting, told: &mut Vec<Told>) {
        let joining = self.joining.entry((seen.from, seen.to)).or_default();
        let Some((mode, to_zxid, since_us)) = joining.mode.take() else {
            return;
        };
        let sync = LabEventKind::Sync {
            to: NodeId::at(seen.to).to_string(),
            mode,
            from_zxid: HexZxid(joining.last_zxid),
            to_zxid: HexZxid(to_zxid),
            txns: Some(joining.txns),
            bytes: joining.bytes,
            took_us: Some(seen.at_us.saturating_sub(since_us)),
        };
        told.push((seen.at_us, NodeId::at(seen.from), sync));
    }

    /// The connection between a learner and its leader ends: the likely reason for an election.
    fn on_closed(&mut self, seen: &Sighting, ending: Ending) {
        let (who, reason) = match (seen.dials, ending) {
            (false, Ending::Fin) => (seen.to, "its leader closed the connection"),
            (false, Ending::Rst) => (seen.to, "its leader's connection was reset"),
            (true, Ending::Fin) => (seen.from, "it closed the connection to its leader"),
            (true, Ending::Rst) => (seen.from, "it reset the connection to its leader"),
        };
        self.servers[who].reason.get_or_insert(reason);
    }
}

/// Is it a message of this name, and about this zxid if one is asked for?
#[must_use]
pub fn fits(seen: &Sighting, name: Name, zxid: Option<i64>) -> bool {
    seen.name() == Some(name) && zxid.is_none_or(|zxid| seen.zxid() == Some(zxid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkd::record::quorum::packet::{
        ACK, ACKEPOCH, COMMIT, DIFF, FOLLOWERINFO, LEADERINFO, NEWLEADER, OBSERVERINFO, PROPOSAL,
        SNAP, UPTODATE,
    };

    const E2: i64 = 2 << 32;

    struct Play {
        observer: WireObserver,
        t: u64,
        pid: u32,
        told: Vec<String>,
    }

    /// n1, n2 and n3 vote, n4 observes.
    fn play() -> Play {
        Play {
            observer: WireObserver::new(&[true, true, true, false]),
            t: 0,
            pid: 7,
            told: Vec::new(),
        }
    }

    impl Play {
        fn see(&mut self, from: u8, to: u8, dials: bool, what: What, bytes: u64) {
            self.t += 1;
            let seen = Sighting {
                at_us: self.t,
                from: usize::from(from) - 1,
                to: usize::from(to) - 1,
                dials,
                election: matches!(what, What::Vote(_)),
                what,
                bytes,
                caught_by: None,
            };
            for (at_us, node, kind) in self.observer.on_sighting(&seen, Some(self.pid)) {
                assert_eq!(at_us, self.t);
                let mut value = serde_json::to_value(&kind).unwrap();
                let name = value["kind"].take().as_str().unwrap().to_owned();
                let values: Vec<String> = value
                    .as_object()
                    .unwrap()
                    .values()
                    .filter(|value| !value.is_null())
                    .map(|value| value.to_string().replace('"', ""))
                    .collect();
                self.told
                    .push(format!("{node} {name} {}", values.join(" ")));
            }
        }

        fn vote(&mut self, from: u8, to: u8, claim: Claim, leader: i64, round: i64) {
            let ballot = Ballot {
                claim,
                leader,
                zxid: 9,
                round,
                epoch: 1,
            };
            self.see(from, to, true, What::Vote(ballot), 48);
        }

        fn learner(&mut self, from: u8, to: u8, kind: i32, zxid: i64, number: Option<i64>) {
            self.see(from, to, true, What::Packet { kind, zxid, number }, 20);
        }

        fn leader(&mut self, from: u8, to: u8, kind: i32, zxid: i64) {
            let number = None;
            self.see(from, to, false, What::Packet { kind, zxid, number }, 20);
        }

        #[track_caller]
        fn expect(&mut self, told: &[&str]) {
            assert_eq!(self.told, told);
            self.told.clear();
        }
    }

    #[test]
    fn an_election_is_over_when_a_quorum_votes_alike() {
        let mut play = play();
        play.vote(1, 2, Claim::Looking, 1, 1);
        play.expect(&[
            "n1 election.started it was started",
            "n1 election.vote 1 n1 0x9 1",
        ]);
        play.vote(1, 3, Claim::Looking, 1, 1);
        play.expect(&[]);
        play.vote(3, 1, Claim::Looking, 3, 1);
        play.vote(1, 3, Claim::Looking, 3, 1);
        play.expect(&[
            "n3 election.started it was started",
            "n3 election.vote 1 n3 0x9 1",
            "n1 election.vote 1 n3 0x9 1",
            "n3 election.ended n3 1 2 false",
        ]);
        // An observer's vote counts for nobody.
        play.vote(4, 3, Claim::Looking, 3, 1);
        play.told.clear();
        play.vote(3, 4, Claim::Leading, 3, 1);
        play.expect(&[]);
        play.learner(1, 3, FOLLOWERINFO, 0, Some(1));
        play.expect(&["n1 election.ended n3 1 1 false"]);
        // The last vote is sent again on a new connection, long after.
        play.vote(1, 2, Claim::Looking, 3, 1);
        play.vote(1, 2, Claim::Looking, 1, 1);
        play.expect(&[]);
        // A new round is a new election, and a new process begins from the first.
        let fin = What::Closed(Ending::Fin);
        play.see(3, 1, false, fin, 0);
        play.vote(1, 2, Claim::Looking, 1, 2);
        play.expect(&[
            "n1 election.started its leader closed the connection",
            "n1 election.vote 2 n1 0x9 1",
        ]);
        play.pid = 8;
        play.vote(1, 2, Claim::Looking, 1, 1);
        play.expect(&[
            "n1 election.started it was started",
            "n1 election.vote 1 n1 0x9 1",
        ]);
    }

    #[test]
    fn a_new_leader_is_seen_step_by_step() {
        let mut play = play();
        play.learner(1, 3, FOLLOWERINFO, 1 << 32, Some(1));
        play.learner(4, 3, OBSERVERINFO, 1 << 32, Some(4));
        play.leader(3, 1, LEADERINFO, E2);
        play.leader(3, 4, LEADERINFO, E2);
        play.expect(&["n3 epoch.proposed 2"]);
        play.learner(4, 3, ACKEPOCH, 5, Some(1));
        play.expect(&["n4 epoch.proposed 2"]);
        play.learner(1, 3, ACKEPOCH, 7, Some(1));
        play.expect(&["n1 epoch.proposed 2", "n3 epoch.acked 2"]);
        play.leader(3, 1, DIFF, 9);
        play.leader(3, 1, PROPOSAL, 8);
        play.leader(3, 1, COMMIT, 8);
        play.leader(3, 1, PROPOSAL, 9);
        play.leader(3, 1, COMMIT, 9);
        play.leader(3, 1, NEWLEADER, E2);
        play.expect(&["n3 sync n1 DIFF 0x7 0x9 2 5"]);
        play.leader(3, 4, SNAP, 9);
        play.see(3, 4, false, What::SnapshotEnd, 1234);
        play.leader(3, 4, NEWLEADER, E2);
        play.expect(&["n3 sync n4 SNAP 0x5 0x9 0 1234 2"]);
        play.learner(4, 3, ACK, E2, None);
        play.expect(&[]);
        play.learner(1, 3, ACK, E2, None);
        play.expect(&["n3 leader.elected 2"]);
        play.leader(3, 1, UPTODATE, -1);
        play.expect(&["n1 learner.uptodate n3 2"]);
        play.learner(1, 3, ACK, E2, None);
        play.leader(3, 1, PROPOSAL, E2 + 1);
        play.learner(1, 3, ACK, E2 + 1, None);
        play.expect(&[]);
        play.leader(3, 1, COMMIT, E2 + 1);
        play.leader(3, 1, COMMIT, E2 + 2);
        play.expect(&["n3 epoch.first_commit 0x200000001"]);
    }

    #[test]
    fn who_has_promised_the_epoch_before_does_not_count_again() {
        let mut play = play();
        play.learner(1, 3, FOLLOWERINFO, E2, Some(1));
        play.leader(3, 1, LEADERINFO, E2);
        play.learner(1, 3, ACKEPOCH, 7, Some(-1));
        play.expect(&["n3 epoch.proposed 2", "n1 epoch.proposed 2"]);
        play.learner(2, 3, FOLLOWERINFO, E2, Some(2));
        play.leader(3, 2, LEADERINFO, E2);
        play.learner(2, 3, ACKEPOCH, 7, Some(1));
        play.expect(&["n2 epoch.proposed 2", "n3 epoch.acked 2"]);
    }

    #[test]
    fn what_was_withheld_proves_nothing_but_is_noted() {
        let mut play = play();
        let mut seen = Sighting {
            at_us: 1,
            from: 1,
            to: 2,
            dials: true,
            election: false,
            what: What::Packet {
                kind: ACKEPOCH,
                zxid: 7,
                number: None,
            },
            bytes: 0,
            caught_by: Some(1),
        };
        play.leader(3, 2, LEADERINFO, E2);
        assert!(play.observer.on_sighting(&seen, None).is_empty());
        let note = play.observer.note(&seen, MessageFate::Held).unwrap();
        assert_eq!((note.from, note.to), (NodeId(2), NodeId(3)));
        assert_eq!((note.msg.as_str(), note.epoch), ("ACKEPOCH", Some(2)));
        assert_eq!(note.zxid, Some(HexZxid(7)));
        assert!(WireObserver::is_of_election(&seen));
        assert!(fits(&seen, Name::Packet(ACKEPOCH), Some(7)));
        assert!(!fits(&seen, Name::Packet(ACKEPOCH), Some(8)));
        seen.what = What::Packet {
            kind: ACK,
            zxid: E2 + 5,
            number: None,
        };
        assert!(!WireObserver::is_of_election(&seen), "a write's");
    }
}
