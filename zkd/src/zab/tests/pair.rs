//! A leader and its learners over perfect links and prompt disks: the whole way once, in the small.

use std::collections::BTreeMap;

use super::*;
use crate::ids::LinkId;
use crate::record::quorum::{QuorumPacket, packet};
use crate::time::Instant;
use crate::zab::leader::{Leader, LeaderInput, SyncFrom};
use crate::zab::learner::{Learner, LearnerInput};
use crate::zab::{Mark, Outgoing, Write, wire};

/// Whom a packet is for.
enum Mail {
    ToLeader(LinkId, QuorumPacket),
    ToLearner(LinkId, Outgoing),
}

pub(super) struct Ensemble {
    pub(super) leader: Leader,
    pub(super) learners: BTreeMap<LinkId, Learner>,
    pub(super) committed: BTreeMap<LinkId, Vec<Zxid>>,
    pub(super) leader_committed: Vec<Zxid>,
    pub(super) established: bool,
    pub(super) up_to_date: Vec<LinkId>,
    /// Every packet the leader sent, by its name and zxid.
    mail: Vec<Mail>,
}

const NOW: Instant = Instant(0);

impl Ensemble {
    pub(super) fn new(history: History) -> Self {
        Self {
            leader: Leader::new(leader_config(1, 3), history, Mark(1), NOW),
            learners: BTreeMap::new(),
            committed: BTreeMap::new(),
            leader_committed: Vec::new(),
            established: false,
            up_to_date: Vec::new(),
            mail: Vec::new(),
        }
    }

    pub(super) fn join(&mut self, sid: i64, kind: LearnerKind, history: History) {
        let link = LinkId(sid.unsigned_abs());
        let learner = Learner::new(learner_config(sid, kind), history, Mark(1), NOW);
        self.learners.insert(link, learner);
        self.leader.step(NOW, LeaderInput::Connected(link));
        self.learner(link, LearnerInput::Connected);
        self.run();
    }

    fn learner(&mut self, link: LinkId, input: LearnerInput) {
        let learner = self.learners.get_mut(&link).unwrap();
        learner.step(NOW, input);
        loop {
            let ready = learner.ready();
            assert_eq!(ready.failed, None);
            let mut send = ready.send;
            send.extend(ready.send_after_write);
            self.mail
                .extend(send.into_iter().map(|packet| Mail::ToLeader(link, packet)));
            self.committed
                .entry(link)
                .or_default()
                .extend(ready.committed.iter().map(|txn| txn.zxid));
            if ready.up_to_date {
                self.up_to_date.push(link);
            }
            if ready.ping {
                learner.answer_ping(&[]);
            }
            let Some(mark) = ready.mark else { break };
            learner.step(
                NOW,
                match ready.write[..] {
                    [Write::Truncate(last_zxid)] => LearnerInput::Truncated { mark, last_zxid },
                    _ => LearnerInput::Wrote(mark),
                },
            );
        }
    }

    pub(super) fn run(&mut self) {
        loop {
            let ready = self.leader.ready();
            assert_eq!(ready.failed, None);
            let mut send = ready.send;
            send.extend(ready.send_after_write);
            self.mail.extend(
                send.into_iter()
                    .map(|(link, out)| Mail::ToLearner(link, out)),
            );
            self.established |= ready.established;
            self.leader_committed
                .extend(ready.committed.iter().map(|txn| txn.zxid));
            if let Some(mark) = ready.mark {
                self.leader.step(NOW, LeaderInput::Wrote(mark));
                continue;
            }
            if self.mail.is_empty() {
                return;
            }
            for mail in std::mem::take(&mut self.mail) {
                match mail {
                    Mail::ToLeader(link, packet) => {
                        self.leader.step(NOW, LeaderInput::Packet(link, packet));
                    }
                    Mail::ToLearner(link, Outgoing::Packet(packet)) => {
                        self.learner(link, LearnerInput::Packet(packet));
                    }
                    Mail::ToLearner(link, Outgoing::Snapshot(zxid)) => {
                        self.leader.step(NOW, LeaderInput::SnapshotSent(link));
                        self.learner(link, LearnerInput::SnapshotLoaded(zxid));
                    }
                }
            }
        }
    }

    pub(super) fn write(&mut self) -> Zxid {
        let zxid = self.leader.next_zxid().unwrap();
        self.leader.propose(txn(zxid));
        self.run();
        zxid
    }
}

#[test]
fn an_ensemble_forms_commits_and_takes_late_joiners() {
    let mut ensemble = Ensemble::new(history(1, 1, &[z(1, 1), z(1, 2)]));
    ensemble.run();
    assert!(!ensemble.established);
    assert_eq!(ensemble.leader.next_zxid(), None);
    ensemble.join(2, LearnerKind::Participant, history(1, 1, &[z(1, 1)]));
    assert!(ensemble.established);
    assert_eq!(ensemble.up_to_date, [LinkId(2)]);
    assert_eq!(
        ensemble.committed[&LinkId(2)],
        [z(1, 2)],
        "the txn it lacked"
    );
    let ahead = history(1, 1, &[z(1, 1), z(1, 2), z(1, 3)]);
    ensemble.join(3, LearnerKind::Participant, ahead);
    let first = ensemble.write();
    assert_eq!(first, z(2, 1));
    ensemble.join(4, LearnerKind::Observer, history(0, 0, &[]));
    let second = ensemble.write();
    assert_eq!(ensemble.leader_committed, [first, second]);
    assert_eq!(ensemble.committed[&LinkId(2)], [z(1, 2), first, second]);
    assert_eq!(ensemble.committed[&LinkId(3)], [first, second], "by TRUNC");
    assert_eq!(ensemble.committed[&LinkId(4)], [second], "by SNAP");
    assert_eq!(ensemble.leader.learners().len(), 3);
    let (history, uncommitted, _) = ensemble.leader.into_history();
    assert_eq!(
        (
            history.last_zxid,
            history.accepted_epoch,
            history.current_epoch
        ),
        (second, Epoch(2), Epoch(2))
    );
    assert!(uncommitted.is_empty());
}

/// Nobody should wait for the next tick to learn that a write can no longer be acknowledged.
#[test]
fn a_leader_that_loses_its_quorum_steps_down_at_once() {
    let mut ensemble = Ensemble::new(history(0, 0, &[]));
    ensemble.join(2, LearnerKind::Participant, history(0, 0, &[]));
    ensemble.join(3, LearnerKind::Participant, history(0, 0, &[]));
    assert!(ensemble.established);
    ensemble.leader.step(NOW, LeaderInput::Closed(LinkId(3)));
    assert_eq!(
        ensemble.leader.ready().failed,
        None,
        "two of three are a quorum"
    );
    ensemble.leader.step(NOW, LeaderInput::Closed(LinkId(2)));
    let failed = ensemble.leader.ready().failed;
    assert!(failed.is_some_and(|why| why.contains("quorum of followers")));
}

/// A server that accepted a later epoch from a leader that came to nothing must not be left out for good.
#[test]
fn a_voter_that_promised_a_later_epoch_ends_the_reign() {
    let mut ensemble = Ensemble::new(history(1, 1, &[z(1, 1)]));
    ensemble.join(2, LearnerKind::Participant, history(1, 1, &[z(1, 1)]));
    assert!(ensemble.established);
    let promised = history(3, 1, &[z(1, 1)]);
    let mut late = Learner::new(
        learner_config(3, LearnerKind::Participant),
        promised,
        Mark(1),
        NOW,
    );
    let link = LinkId(3);
    ensemble.leader.step(NOW, LeaderInput::Connected(link));
    late.step(NOW, LearnerInput::Connected);
    for info in late.ready().send {
        ensemble.leader.step(NOW, LeaderInput::Packet(link, info));
    }
    let failed = ensemble.leader.ready().failed.unwrap();
    assert!(failed.contains("has promised epoch 3"), "{failed}");
    let (history, ..) = ensemble.leader.into_history();
    assert_eq!(
        history.accepted_epoch,
        Epoch(2),
        "the promise was another's"
    );
}

/// An observer's promise is nobody's: it observes whoever leads.
#[test]
fn an_observer_follows_a_leader_of_an_epoch_before_its_own() {
    let mut ensemble = Ensemble::new(history(1, 1, &[z(1, 1)]));
    ensemble.join(2, LearnerKind::Participant, history(1, 1, &[z(1, 1)]));
    ensemble.join(4, LearnerKind::Observer, history(7, 1, &[z(1, 1)]));
    assert_eq!(ensemble.up_to_date, [LinkId(2), LinkId(4)]);
    let written = ensemble.write();
    assert_eq!(ensemble.committed[&LinkId(4)], [written]);
}

/// A leader with two learners that serve, and another link that says it is server 2. Steps `then`, lets a
/// tick pass, and gives the links closed and the notes.
fn two_with_one_id(then: impl FnOnce(&mut Leader)) -> (Vec<LinkId>, Vec<String>, Vec<ServerId>) {
    let mut ensemble = Ensemble::new(history(1, 1, &[]));
    ensemble.join(2, LearnerKind::Participant, history(1, 1, &[]));
    ensemble.join(3, LearnerKind::Participant, history(1, 1, &[]));
    let mut leader = ensemble.leader;
    let mut twin = Learner::new(
        learner_config(2, LearnerKind::Participant),
        history(1, 1, &[]),
        Mark(1),
        NOW,
    );
    twin.step(NOW, LearnerInput::Connected);
    let info = twin.ready().send.remove(0);
    leader.step(NOW, LeaderInput::Connected(LinkId(9)));
    leader.step(NOW, LeaderInput::Packet(LinkId(9), info));
    let ready = leader.ready();
    assert_eq!(
        (ready.close, ready.send.len()),
        (Vec::new(), 0),
        "nothing is decided yet"
    );
    then(&mut leader);
    leader.step(NOW + TICK_MS, LeaderInput::Timeout);
    let ready = leader.ready();
    assert_eq!(ready.failed, None);
    let known = leader
        .learners()
        .iter()
        .map(|learner| learner.sid)
        .collect();
    (ready.close, ready.notes, known)
}

fn ping() -> QuorumPacket {
    wire::ping_reply(Zxid::ZERO, &[])
}

#[test]
fn of_two_servers_with_one_id_the_one_that_serves_stays() {
    let later = NOW + TICK_MS / 2;
    let (closed, notes, known) = two_with_one_id(|leader| {
        leader.step(later, LeaderInput::Packet(LinkId(2), ping()));
        leader.step(later, LeaderInput::Packet(LinkId(3), ping()));
    });
    assert_eq!(closed, [LinkId(9)]);
    assert!(
        notes[0].starts_with("another server says it is server 2"),
        "{notes:?}"
    );
    assert_eq!(known, [ServerId(2), ServerId(3)]);
}

#[test]
fn a_server_that_comes_back_takes_the_place_of_its_silent_link() {
    let (closed, _, known) = two_with_one_id(|_| {});
    assert_eq!(closed, [LinkId(2)]);
    assert_eq!(known, [ServerId(3), ServerId(2)]);
    // And at once when the end of the old link is seen.
    two_with_one_id(|leader| {
        leader.step(NOW, LeaderInput::Closed(LinkId(2)));
        let sent = leader.ready().send;
        assert!(
            matches!(&sent[..], [(LinkId(9), Outgoing::Packet(packet))] if packet.kind == packet::LEADERINFO),
            "{sent:?}"
        );
    });
}

/// A session that pipelines a sync and a write waits for the sync's answer first: if the write's commit came
/// before it, neither would ever be answered.
#[test]
fn a_sync_is_answered_between_the_commits_it_stands_between() {
    let mut ensemble = Ensemble::new(history(0, 0, &[]));
    ensemble.join(2, LearnerKind::Participant, history(0, 0, &[]));
    let leader = &mut ensemble.leader;
    leader.propose(txn(z(1, 1)));
    leader.sync(SyncFrom::Learner(LinkId(2)));
    leader.propose(txn(z(1, 2)));
    let mark = leader.ready().mark.expect("two txns go to the log");
    leader.step(NOW, LeaderInput::Wrote(mark));
    for counter in [1, 2] {
        let ack = QuorumPacket::bare(packet::ACK, z(1, counter));
        leader.step(NOW, LeaderInput::Packet(LinkId(2), ack));
    }
    let sent: Vec<i32> = leader
        .ready()
        .send
        .iter()
        .map(|(_, outgoing)| match outgoing {
            Outgoing::Packet(packet) => packet.kind,
            Outgoing::Snapshot(_) => packet::SNAP,
        })
        .collect();
    assert_eq!(sent, [packet::COMMIT, packet::SYNC, packet::COMMIT]);
}
