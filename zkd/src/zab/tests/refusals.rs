//! What must be refused: the wrong state, the wrong sender, the stale epoch, the duplicate; and what must
//! not leave before the disk has it.

use super::*;
use crate::ids::{LinkId, SessionId, Xid};
use crate::record::quorum::{QuorumPacket, packet};
use crate::time::Instant;
use crate::zab::leader::{Leader, LeaderInput};
use crate::zab::learner::{Learner, LearnerInput};
use crate::zab::{LeaderReady, LearnerReady, Mark, Outgoing, Write, wire};

const NOW: Instant = Instant(0);

fn leader(voters: i64) -> Leader {
    let history = history(1, 1, &[z(1, 1)]);
    Leader::new(leader_config(1, voters), history, Mark(1), NOW)
}

fn hear(leader: &mut Leader, link: u64, packet: QuorumPacket) -> LeaderReady {
    leader.step(NOW, LeaderInput::Packet(LinkId(link), packet));
    let mut ready = leader.ready();
    while let Some(mark) = ready.mark.take() {
        leader.step(NOW, LeaderInput::Wrote(mark));
        let more = leader.ready();
        ready.mark = more.mark;
        ready.send.extend(more.send);
        ready.close.extend(more.close);
        ready.notes.extend(more.notes);
        ready.committed.extend(more.committed);
        ready.established |= more.established;
        ready.failed = ready.failed.or(more.failed);
    }
    ready
}

fn info(sid: i64, accepted: i64) -> QuorumPacket {
    wire::learner_info(packet::FOLLOWERINFO, Epoch(accepted), ServerId(sid), 0)
}

fn ack_epoch() -> QuorumPacket {
    wire::ack_epoch(z(1, 1), Epoch(1))
}

fn ack(zxid: Zxid) -> QuorumPacket {
    QuorumPacket::bare(packet::ACK, zxid)
}

fn connect(leader: &mut Leader, link: u64, packet: QuorumPacket) -> LeaderReady {
    leader.step(NOW, LeaderInput::Connected(LinkId(link)));
    hear(leader, link, packet)
}

/// Brings a follower up to NEWLEADER.
fn join(leader: &mut Leader, link: u64, sid: i64) {
    let ready = connect(leader, link, info(sid, 1));
    assert!(ready.close.is_empty(), "{:?}", ready.notes);
    let ready = hear(leader, link, ack_epoch());
    assert!(ready.close.is_empty(), "{:?}", ready.notes);
}

#[test]
fn a_leader_cuts_off_who_does_not_introduce_itself() {
    let short = QuorumPacket::with(packet::FOLLOWERINFO, Zxid::ZERO, vec![0; 10]);
    let old = QuorumPacket::with(packet::FOLLOWERINFO, Zxid::ZERO, vec![0; 8]);
    let newer = wire::learner_info(packet::FOLLOWERINFO, Epoch(1), ServerId(2), 1);
    for (bad, why) in [
        (ack(z(2, 0)), "ACK came in phase Info"),
        (ack_epoch(), "ACKEPOCH came in phase Info"),
        (short, "protocol version needs 4 bytes"),
        (old, "protocol version 0x0"),
        (info(1, 1), "server 1, which is this one"),
        (newer, "configuration version 0x1"),
        (info(2, i64::from(i32::MAX)), "impossible epoch"),
    ] {
        let mut leader = leader(3);
        let ready = connect(&mut leader, 7, bad);
        assert_eq!(ready.close, [LinkId(7)]);
        assert!(ready.notes[0].contains(why), "{:?}", ready.notes);
        assert!(ready.failed.is_none() && leader.learners().is_empty());
        let ready = hear(&mut leader, 7, info(2, 1));
        assert!(ready.send.is_empty(), "a closed link is not heard");
    }
}

#[test]
fn leader_process_followerinfo_twice_or_on_a_second_link() {
    let mut leader = leader(5);
    let _ = connect(&mut leader, 7, info(2, 1));
    assert_eq!(hear(&mut leader, 7, info(2, 1)).close, [LinkId(7)]);
    let _ = connect(&mut leader, 8, info(2, 1));
    let ready = connect(&mut leader, 9, info(2, 1));
    assert_eq!(ready.close, [LinkId(8)], "the newer link is the server's");
    assert!(!ready.established);
    assert_eq!(leader.epoch(), Epoch(2));
    // Two links of one server are one voter.
    assert_eq!(leader.learners().len(), 1);
    assert!(leader.next_zxid().is_none());
}

/// Only the link is lost when a server connects again, not the quorum.
#[test]
fn a_follower_that_connects_again_does_not_end_the_reign() {
    let mut leader = leader(3);
    join(&mut leader, 7, 2);
    assert!(hear(&mut leader, 7, ack(z(2, 0))).established);
    // The end of its old link is seen later than the new one.
    let ready = connect(&mut leader, 8, info(2, 2));
    assert!(ready.close.is_empty() && ready.send.is_empty());
    leader.step(NOW, LeaderInput::Closed(LinkId(7)));
    let ready = leader.ready();
    assert_eq!(ready.failed, None);
    let sent = Outgoing::Packet(wire::leader_info(Epoch(2)));
    assert_eq!(ready.send, [(LinkId(8), sent.clone())]);
    // Once more, while it is not serving yet.
    let ready = connect(&mut leader, 9, info(2, 2));
    assert_eq!(ready.close, [LinkId(8)]);
    assert_eq!(ready.failed, None);
    assert_eq!(ready.send, [(LinkId(9), sent)]);
}

#[test]
fn leader_process_ackepoch_out_of_turn_or_twice() {
    let mut leader = leader(5);
    let _ = connect(&mut leader, 7, info(2, 1));
    let ready = hear(&mut leader, 7, ack_epoch());
    assert_eq!(ready.close, [LinkId(7)], "LEADERINFO was not sent yet");
    for (link, sid) in [(8, 2), (9, 3)] {
        let _ = connect(&mut leader, link, info(sid, 1));
    }
    let _ = hear(&mut leader, 8, ack_epoch());
    let ready = hear(&mut leader, 8, ack_epoch());
    assert_eq!(ready.close, [LinkId(8)], "said twice");
    let bad = QuorumPacket::bare(packet::ACKEPOCH, z(1, 1));
    assert_eq!(hear(&mut leader, 9, bad).close, [LinkId(9)]);
}

#[test]
fn leader_info_waits_for_the_disk() {
    let mut leader = leader(3);
    leader.step(NOW, LeaderInput::Connected(LinkId(7)));
    leader.step(NOW, LeaderInput::Packet(LinkId(7), info(2, 1)));
    let ready = leader.ready();
    assert_eq!(ready.write, [Write::AcceptedEpoch(Epoch(2))]);
    assert!(ready.send.is_empty());
    let sent = Outgoing::Packet(wire::leader_info(Epoch(2)));
    assert_eq!(ready.send_after_write, [(LinkId(7), sent.clone())]);
    // One that comes in the meantime waits too.
    leader.step(NOW, LeaderInput::Connected(LinkId(8)));
    leader.step(NOW, LeaderInput::Packet(LinkId(8), info(3, 1)));
    let late = leader.ready();
    assert!(late.send.is_empty() && late.send_after_write.is_empty());
    leader.step(NOW, LeaderInput::Wrote(Mark(0)));
    assert!(leader.ready().send.is_empty(), "a mark of an earlier role");
    leader.step(NOW, LeaderInput::Wrote(ready.mark.unwrap()));
    assert_eq!(leader.ready().send, [(LinkId(8), sent)]);
}

#[test]
fn leader_process_ackld_of_another_epoch_does_not_count() {
    let mut leader = leader(3);
    join(&mut leader, 7, 2);
    for stale in [z(1, 0), z(3, 0), z(2, 1)] {
        let ready = hear(&mut leader, 7, ack(stale));
        assert!(!ready.established && ready.close.is_empty(), "{stale}");
    }
    let other = QuorumPacket::bare(packet::PING, z(2, 0));
    let mut second = self::leader(3);
    join(&mut second, 7, 2);
    assert_eq!(hear(&mut second, 7, other).close, [LinkId(7)]);
    assert!(hear(&mut leader, 7, ack(z(2, 0))).established);
    assert!(!hear(&mut leader, 7, ack(z(2, 0))).established, "said once");
}

/// 3.8.0 acknowledges txns before NEWLEADER; they count with it, not before.
#[test]
fn leader_process_ack_before_newleader_counts_with_it() {
    let mut leader = leader(3);
    join(&mut leader, 7, 2);
    assert!(hear(&mut leader, 7, ack(z(2, 0))).established);
    leader.propose(txn(z(2, 1)));
    let _ = connect(&mut leader, 8, info(3, 1));
    let _ = hear(&mut leader, 8, ack_epoch());
    let ready = hear(&mut leader, 8, ack(z(2, 1)));
    assert!(
        ready.committed.is_empty(),
        "its currentEpoch may be an old one"
    );
    let ready = hear(&mut leader, 8, ack(z(2, 0)));
    assert_eq!(ready.committed, [txn(z(2, 1))]);
}

#[test]
fn an_observer_or_stranger_never_counts() {
    let mut leader = leader(3);
    let observer = wire::learner_info(packet::OBSERVERINFO, Epoch(1), ServerId(2), 0);
    let _ = connect(&mut leader, 7, observer);
    let _ = connect(&mut leader, 8, info(9, 1));
    assert_eq!(leader.epoch(), Epoch(2));
    assert!(leader.ready().write.is_empty());
    join(&mut leader, 9, 3);
    for link in [7, 8] {
        let _ = hear(&mut leader, link, ack_epoch());
        assert!(!hear(&mut leader, link, ack(z(2, 0))).established);
    }
    assert!(hear(&mut leader, 9, ack(z(2, 0))).established);
    leader.propose(txn(z(2, 1)));
    for link in [7, 8] {
        assert!(hear(&mut leader, link, ack(z(2, 1))).committed.is_empty());
    }
    assert_eq!(hear(&mut leader, 9, ack(z(2, 1))).committed.len(), 1);
}

/// ZOOKEEPER-1277: the counter never runs into the epoch.
#[test]
fn the_reign_ends_before_the_counter_does() {
    let mut leader = leader(1);
    while let Some(mark) = leader.ready().mark {
        leader.step(NOW, LeaderInput::Wrote(mark));
    }
    assert_eq!(leader.next_zxid(), Some(z(2, 1)));
    leader.proposals.start_epoch(z(2, u32::MAX - 2));
    let last = leader.next_zxid().unwrap();
    assert_eq!(last, z(2, u32::MAX - 1));
    leader.propose(txn(last));
    assert_eq!(leader.next_zxid(), None);
    let mark = leader.ready().mark.unwrap();
    leader.step(Instant(500), LeaderInput::Timeout);
    leader.step(Instant(1000), LeaderInput::Timeout);
    assert_eq!(leader.ready().failed, None, "a txn is outstanding");
    leader.step(Instant(1000), LeaderInput::Wrote(mark));
    assert_eq!(leader.ready().committed.len(), 1);
    leader.step(Instant(1500), LeaderInput::Timeout);
    leader.step(Instant(2000), LeaderInput::Timeout);
    assert!(leader.ready().failed.unwrap().contains("used up"));
    assert_eq!(leader.poll_timeout(), None);
}

#[test]
#[should_panic(expected = "a proposal takes the next zxid")]
fn a_proposal_with_a_zxid_of_its_own_is_our_bug() {
    leader(3).propose(txn(z(2, 1)));
}

/// A txn that was still waiting to be written when the role ended never happened.
#[test]
fn what_was_not_handed_out_is_not_history() {
    let mut leader = leader(3);
    join(&mut leader, 7, 2);
    assert!(hear(&mut leader, 7, ack(z(2, 0))).established);
    leader.propose(txn(z(2, 1)));
    let _ = leader.ready();
    leader.propose(txn(z(2, 2)));
    let (history, uncommitted, mark) = leader.into_history();
    assert_eq!(history.last_zxid, z(2, 1));
    assert_eq!(uncommitted, [txn(z(2, 1))]);
    assert_eq!(history.committed.max(), Some(z(2, 1)));
    assert_eq!(mark, Mark(4));
}

fn learner(kind: LearnerKind) -> Learner {
    let mut learner = Learner::new(
        learner_config(2, kind),
        history(1, 1, &[z(1, 1)]),
        Mark(1),
        NOW,
    );
    learner.step(NOW, LearnerInput::Connected);
    assert_eq!(learner.ready().send.len(), 1);
    learner
}

fn tell(learner: &mut Learner, packet: QuorumPacket) -> LearnerReady {
    learner.step(NOW, LearnerInput::Packet(packet));
    learner.ready()
}

fn bare(kind: i32, zxid: Zxid) -> QuorumPacket {
    QuorumPacket::bare(kind, zxid)
}

fn proposal(zxid: Zxid) -> QuorumPacket {
    QuorumPacket::with(packet::PROPOSAL, zxid, txn(zxid).txn)
}

/// A learner that has accepted epoch 2.
fn accepted() -> Learner {
    let mut learner = learner(LearnerKind::Participant);
    let ready = tell(&mut learner, wire::leader_info(Epoch(2)));
    assert_eq!(ready.write, [Write::AcceptedEpoch(Epoch(2))]);
    assert!(ready.send.is_empty());
    assert_eq!(ready.send_after_write, [ack_epoch()]);
    learner.step(NOW, LearnerInput::Wrote(ready.mark.unwrap()));
    learner
}

fn syncing() -> Learner {
    let mut learner = accepted();
    let ready = tell(&mut learner, bare(packet::DIFF, z(1, 1)));
    assert!(ready.failed.is_none());
    learner
}

#[test]
fn follower_process_leaderinfo_refuses_the_stale_and_the_strange() {
    let old = QuorumPacket::with(packet::LEADERINFO, z(2, 0), vec![0, 0, 0, 1]);
    for (bad, why) in [
        (bare(packet::NEWLEADER, z(2, 0)), "not with LEADERINFO"),
        (bare(packet::LEADERINFO, z(2, 0)), "cannot be read"),
        (old, "unsupported protocol version 0x1"),
        (
            wire::leader_info(Epoch(0)),
            "older than the accepted epoch 1",
        ),
    ] {
        let ready = tell(&mut learner(LearnerKind::Participant), bad);
        let reason = ready.failed.unwrap();
        assert!(reason.contains(why), "{reason}");
        assert!(ready.write.is_empty() && ready.send_after_write.is_empty());
        assert_eq!(ready.fatal, None);
    }
}

#[test]
fn follower_process_sync_message_must_come_first() {
    for kind in [packet::PROPOSAL, packet::NEWLEADER, packet::UPTODATE] {
        let ready = tell(&mut accepted(), bare(kind, z(2, 0)));
        assert_eq!(ready.fatal.unwrap().0, 13);
    }
    let mut learner = learner(LearnerKind::Participant);
    assert!(!learner.expects_snapshot());
    learner.step(NOW, LearnerInput::SnapshotLoaded(z(2, 0)));
    assert!(learner.ready().failed.is_some() && learner.must_reload());
}

#[test]
fn follower_in_sync_refuses_what_breaks_the_history() {
    let cases: [(&[QuorumPacket], &str); 9] = [
        (&[proposal(z(1, 3))], "has a hole"),
        (&[proposal(z(1, 1))], "has a hole"),
        (&[bare(packet::PROPOSAL, z(1, 2))], "has no txn"),
        (&[bare(packet::COMMIT, z(1, 2))], "oldest proposal is None"),
        (
            &[proposal(z(1, 2)), bare(packet::COMMIT, z(1, 3))],
            "oldest proposal is Some",
        ),
        (&[bare(packet::UPTODATE, Zxid::NONE)], "before NEWLEADER"),
        (&[bare(packet::NEWLEADER, z(1, 0))], "out of its place"),
        (&[bare(packet::NEWLEADER, z(3, 0))], "out of its place"),
        (&[bare(packet::INFORM, z(1, 2))], "no txn"),
    ];
    for (packets, why) in cases {
        let mut learner = syncing();
        let mut failed = None;
        for packet in packets {
            failed = tell(&mut learner, packet.clone()).failed;
        }
        let reason = failed.unwrap_or_else(|| panic!("{why}: accepted"));
        assert!(reason.contains(why), "{reason}");
        let (history, uncommitted, _) = learner.into_history();
        assert_eq!((history.last_zxid, uncommitted.len()), (z(1, 1), 0));
        assert_eq!(history.current_epoch, Epoch(1));
    }
}

/// History, then currentEpoch, then the ACK; and nothing that the leader says meanwhile gets past it.
#[test]
fn follower_process_newleader_promises_nothing_before_the_disk_has_it() {
    let mut learner = syncing();
    let _ = tell(&mut learner, proposal(z(1, 2)));
    let _ = tell(&mut learner, bare(packet::COMMIT, z(1, 2)));
    let _ = tell(&mut learner, proposal(z(1, 3)));
    let ready = tell(&mut learner, bare(packet::NEWLEADER, z(2, 0)));
    assert_eq!(
        ready.write,
        [Write::Txn(txn(z(1, 2))), Write::CurrentEpoch(Epoch(2))],
        "1:3 is not committed"
    );
    assert!(ready.send.is_empty());
    assert_eq!(ready.send_after_write, [ack(z(2, 0))]);
    assert_eq!(ready.committed, [txn(z(1, 2))]);
    assert_eq!(
        learner.poll_timeout(),
        None,
        "the leader waits for this disk"
    );
    let early = tell(&mut learner, bare(packet::UPTODATE, Zxid::NONE));
    assert!(early.send.is_empty() && !early.up_to_date, "it waits");
    learner.step(NOW, LearnerInput::Wrote(ready.mark.unwrap()));
    let ready = learner.ready();
    assert!(ready.up_to_date);
    assert_eq!(ready.send, [ack(z(2, 0))]);
    assert_eq!(ready.write, [Write::Txn(txn(z(1, 3)))]);
    assert_eq!(ready.send_after_write, [ack(z(1, 3))]);
    assert!(ready.committed.is_empty());
    let again = tell(&mut learner, bare(packet::UPTODATE, Zxid::NONE));
    assert!(!again.up_to_date && again.failed.is_none(), "ignored");
}

#[test]
fn a_cut_that_is_not_possible_leads_to_a_snapshot() {
    let mut learner = accepted();
    let ready = tell(&mut learner, bare(packet::TRUNC, z(1, 0)));
    assert_eq!(ready.write, [Write::Truncate(z(1, 0))]);
    assert_eq!(learner.poll_timeout(), None);
    learner.step(
        NOW,
        LearnerInput::Truncated {
            mark: ready.mark.unwrap(),
            last_zxid: z(1, 1),
        },
    );
    let ready = learner.ready();
    assert!(ready.failed.unwrap().contains("cannot be cut"));
    assert_eq!(ready.fatal, None);
    assert!(learner.must_reload());
    assert_eq!(learner.cannot_cut_for(), Some(Epoch(2)));
    for (epoch, claimed) in [(2, z(0, 0)), (3, z(1, 1))] {
        let history = history(2, 1, &[z(1, 1)]);
        let config = learner_config(2, LearnerKind::Participant);
        let mut next = Learner::new(config, history, Mark(9), NOW);
        next.ask_for_snapshot(Epoch(2));
        next.step(NOW, LearnerInput::Connected);
        let _ = next.ready();
        let ready = tell(&mut next, wire::leader_info(Epoch(epoch)));
        let sent: Vec<_> = ready.send.iter().chain(&ready.send_after_write).collect();
        assert_eq!(sent[0].zxid, claimed, "to the leader of epoch {epoch}");
        let diff = tell(&mut next, bare(packet::DIFF, z(1, 1)));
        assert_eq!(diff.fatal.is_some(), epoch == 2);
    }
}

#[test]
fn a_learner_that_does_not_serve_forwards_nothing() {
    let mut learner = syncing();
    learner.request(SessionId(1), Xid(1), 1, Bytes::new(), &[]);
    learner.revalidate(SessionId(1), 1000);
    learner.answer_ping(&[]);
    let ready = tell(&mut learner, bare(packet::PING, z(2, 0)));
    assert!(ready.send.is_empty() && !ready.ping, "as Apache's learners");
}

#[test]
fn an_observer_ignores_proposals_once_it_is_up_to_date() {
    let mut learner = learner(LearnerKind::Observer);
    let mut marks = Vec::new();
    for packet in [
        wire::leader_info(Epoch(2)),
        bare(packet::DIFF, z(1, 1)),
        proposal(z(2, 1)),
        bare(packet::NEWLEADER, z(2, 0)),
        bare(packet::UPTODATE, Zxid::NONE),
    ] {
        marks.extend(tell(&mut learner, packet).mark);
        let mark = *marks.last().unwrap();
        learner.step(NOW, LearnerInput::Wrote(mark));
    }
    // What an old leader proposed without committing it comes again.
    for ignored in [proposal(z(2, 2)), bare(packet::COMMIT, z(2, 1))] {
        let ready = tell(&mut learner, ignored);
        assert!(ready.committed.is_empty() && ready.write.is_empty() && ready.failed.is_none());
    }
    let inform = QuorumPacket::with(packet::INFORM, z(2, 1), txn(z(2, 1)).txn);
    let ready = tell(&mut learner, inform.clone());
    assert_eq!(ready.write, [Write::Txn(txn(z(2, 1)))]);
    assert_eq!(ready.committed, [txn(z(2, 1))]);
    assert!(ready.send_after_write.is_empty());
    assert!(tell(&mut learner, inform).committed.is_empty(), "twice");
    let hole = QuorumPacket::with(packet::INFORM, z(2, 3), txn(z(2, 3)).txn);
    assert!(tell(&mut learner, hole).failed.is_some());
}
