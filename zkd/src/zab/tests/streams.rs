//! What Apache's servers said to each other on the quorum port, in both directions: every stream is taken
//! apart and put together again byte for byte, and then replayed, with a learner or a leader of ours in the
//! place of one side.
//!
//! The streams of each connection of several captured ensembles (3.9.3, 3.8.0, both mixed, hierarchical
//! quorums, observer master, local sessions, truncation) lie in `testdata/streams/quorum`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::*;
use crate::ids::LinkId;
use crate::jute::{Reader, Record, Writer};
use crate::record::quorum::{QuorumPacket, packet};
use crate::time::Instant;
use crate::tree::SnapshotLoader;
use crate::zab::leader::{Leader, LeaderInput, SyncFrom};
use crate::zab::learner::{Learner, LearnerInput};
use crate::zab::{Asked, Mark, Outgoing, Write, wire};

const NOW: Instant = Instant(0);

/// One connection: what the learner sent, and the leader.
struct Stream {
    name: String,
    to_leader: Vec<QuorumPacket>,
    to_learner: Vec<QuorumPacket>,
}

fn packets(path: &Path) -> Vec<QuorumPacket> {
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let mut out = Vec::new();
    let mut again = Vec::new();
    let mut rest = bytes.clone();
    while let Some(length) = wire::packet_len(&rest).unwrap() {
        let frame = rest.split_to(length);
        let packet = QuorumPacket::decode(&mut Reader::shared(&frame)).unwrap();
        packet.encode(&mut Writer::new(&mut again));
        if packet.kind == packet::SNAP {
            let mut loader = SnapshotLoader::new();
            let progress = loader.feed(&rest).unwrap();
            assert!(progress.done, "{}: a snapshot has no end", path.display());
            let body = rest.split_to(progress.consumed + 14);
            assert!(body.ends_with(b"\0\0\0\x0aBenWasHere"));
            again.extend_from_slice(&body);
        }
        out.push(packet);
    }
    again.extend_from_slice(&rest);
    assert!(again == bytes, "{}: other bytes come out", path.display());
    // A process may have been killed in the middle of a packet, hardly of more.
    assert!(
        rest.len() < 200,
        "{}: {} bytes left",
        path.display(),
        rest.len()
    );
    out
}

fn streams() -> Vec<Stream> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/streams/quorum");
    let mut out = Vec::new();
    let mut runs: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    runs.sort();
    for run in runs {
        let mut files: Vec<_> = std::fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let text = file.to_str().unwrap();
            if let Some(stem) = text.strip_suffix(".c2s.bin") {
                out.push(Stream {
                    name: stem[root.to_str().unwrap().len() + 1..].to_owned(),
                    to_leader: packets(&file),
                    to_learner: packets(Path::new(&format!("{stem}.s2c.bin"))),
                });
            }
        }
    }
    out
}

fn of_kinds<'a>(
    packets: &'a [QuorumPacket],
    kinds: &'a [i32],
) -> impl Iterator<Item = &'a QuorumPacket> {
    packets.iter().filter(|packet| kinds.contains(&packet.kind))
}

/// Txns that the stream brings as committed before NEWLEADER.
fn synced(stream: &Stream) -> Vec<Zxid> {
    stream
        .to_learner
        .iter()
        .take_while(|packet| packet.kind != packet::NEWLEADER)
        .filter(|packet| packet.kind == packet::COMMIT)
        .map(|packet| packet.zxid)
        .collect()
}

#[test]
fn every_stream_is_read_and_written_again() {
    let streams = streams();
    assert_eq!(streams.len(), 35);
    let packets: usize = streams
        .iter()
        .map(|stream| stream.to_leader.len() + stream.to_learner.len())
        .sum();
    assert!(packets > 5000, "{packets}");
    for stream in &streams {
        for packet in &stream.to_leader {
            read_payload(packet, true).unwrap_or_else(|e| panic!("{}: {e}", stream.name));
        }
        for packet in &stream.to_learner {
            read_payload(packet, false).unwrap_or_else(|e| panic!("{}: {e}", stream.name));
        }
    }
}

/// Reads the payload and builds the same packet from it.
fn read_payload(packet: &QuorumPacket, to_leader: bool) -> Result<(), crate::jute::DecodeError> {
    let again = match packet.kind {
        packet::FOLLOWERINFO | packet::OBSERVERINFO => {
            let info = wire::read_learner_info(packet)?;
            let sid = info.sid.unwrap();
            wire::learner_info(packet.kind, info.accepted_epoch, sid, info.config_version)
        }
        packet::LEADERINFO => {
            wire::read_leader_info(packet)?;
            wire::leader_info(packet.zxid.epoch())
        }
        packet::ACKEPOCH => wire::ack_epoch(packet.zxid, wire::read_ack_epoch(packet)?),
        packet::REQUEST => wire::request(
            &wire::read_request(packet)?,
            packet.authinfo.as_deref().unwrap_or_default(),
        ),
        packet::PING if to_leader => wire::ping_reply(packet.zxid, &wire::read_ping_reply(packet)?),
        packet::REVALIDATE if to_leader => {
            let (session, timeout_ms) = wire::read_revalidate(packet)?;
            wire::revalidate(session, timeout_ms)
        }
        packet::REVALIDATE => {
            let (session, valid) = wire::read_revalidated(packet)?;
            wire::revalidated(session, valid)
        }
        _ => return Ok(()),
    };
    assert_eq!(*packet, again);
    Ok(())
}

/// Everything a learner of ours sends when Apache's leader speaks to it.
fn replay_learner(stream: &Stream) -> Vec<QuorumPacket> {
    let info = wire::read_learner_info(&stream.to_leader[0]).unwrap();
    let kind = if stream.to_leader[0].kind == packet::OBSERVERINFO {
        LearnerKind::Observer
    } else {
        LearnerKind::Participant
    };
    let ack_epoch = &stream.to_leader[1];
    let mut at_start = history(info.accepted_epoch.0, 0, &[]);
    at_start.current_epoch = wire::read_ack_epoch(ack_epoch).unwrap();
    at_start.last_zxid = ack_epoch.zxid;
    let config = learner_config(info.sid.unwrap().0, kind);
    let mut learner = Learner::new(config, at_start, Mark(1), NOW);
    let mut pings: VecDeque<_> = of_kinds(&stream.to_leader, &[packet::PING])
        .map(|ping| wire::read_ping_reply(ping).unwrap())
        .collect();
    let mut inputs: VecDeque<_> = stream
        .to_learner
        .iter()
        .map(|packet| {
            if packet.kind == packet::SNAP {
                LearnerInput::SnapshotLoaded(packet.zxid)
            } else {
                LearnerInput::Packet(packet.clone())
            }
        })
        .collect();
    inputs.push_front(LearnerInput::Connected);
    let mut sent = Vec::new();
    while let Some(input) = inputs.pop_front() {
        learner.step(NOW, input);
        let ready = learner.ready();
        assert_eq!(ready.failed, None, "{}", stream.name);
        assert_eq!(ready.fatal, None, "{}", stream.name);
        sent.extend(ready.send);
        if ready.ping
            && let Some(touched) = pings.pop_front()
        {
            learner.answer_ping(&touched);
            sent.extend(learner.ready().send);
        }
        sent.extend(ready.send_after_write);
        if let Some(mark) = ready.mark {
            inputs.push_front(match ready.write[..] {
                [Write::Truncate(last_zxid)] => LearnerInput::Truncated { mark, last_zxid },
                _ => LearnerInput::Wrote(mark),
            });
        }
    }
    sent
}

#[test]
fn a_learner_answers_apaches_leaders_as_apaches_learners_did() {
    let handshake = [packet::FOLLOWERINFO, packet::OBSERVERINFO, packet::ACKEPOCH];
    for stream in &streams() {
        let name = &stream.name;
        let sent = replay_learner(stream);
        let pick = |packets: &[QuorumPacket], kinds: &[i32]| -> Vec<QuorumPacket> {
            of_kinds(packets, kinds).cloned().collect()
        };
        assert_eq!(
            pick(&sent, &handshake),
            pick(&stream.to_leader, &handshake),
            "{name}"
        );
        let pings = pick(&stream.to_leader, &[packet::PING]);
        assert_eq!(pick(&sent, &[packet::PING]), pings, "{name}");
        // Learners before 3.9.3 acknowledge the txns of a DIFF as well, and at any moment.
        let ours = pick(&sent, &[packet::ACK]);
        let mut theirs = pick(&stream.to_leader, &[packet::ACK]);
        let of_diff = synced(stream);
        if theirs.len() > ours.len() {
            theirs.retain(|ack| !of_diff.contains(&ack.zxid));
        }
        // What was still on its way to a learner that was killed, it never acknowledged.
        assert!(ours.len() - theirs.len() < 3, "{name}");
        assert_eq!(ours[..theirs.len()], theirs, "{name}");
    }
}

/// A leader of ours in the place of Apache's.
struct Replay<'a> {
    stream: &'a Stream,
    leader: Leader,
    /// The learner's packets that have not been given yet.
    to_leader: VecDeque<QuorumPacket>,
    /// Batches that are not told to be on disk yet.
    marks: VecDeque<Mark>,
    sent: Vec<QuorumPacket>,
    /// The answers Apache's leader gave about sessions.
    verdicts: VecDeque<bool>,
}

const LINK: LinkId = LinkId(7);

impl<'a> Replay<'a> {
    /// A leader that stands where Apache's stood when the learner connected.
    fn new(stream: &'a Stream) -> Self {
        let first = |kind: i32| stream.to_learner.iter().find(|packet| packet.kind == kind);
        let epoch = first(packet::LEADERINFO).unwrap().zxid.epoch();
        let start = Zxid::new(epoch, 0);
        let begin = &stream.to_learner[1];
        let info = wire::read_learner_info(&stream.to_leader[0]).unwrap();
        let peer_last = stream.to_leader[1].zxid;
        // What is sent to bring the learner up to date is history, if it is of an older epoch.
        let committed = synced(stream);
        let proposals: Vec<_> = of_kinds(&stream.to_learner, &[packet::PROPOSAL])
            .take_while(|proposal| committed.contains(&proposal.zxid))
            .map(|proposal| Proposal {
                zxid: proposal.zxid,
                txn: proposal.data.clone().unwrap(),
            })
            .collect();
        let mut log = CommittedLog::new(500);
        let shared = match begin.kind {
            packet::DIFF => peer_last,
            packet::TRUNC => begin.zxid,
            _ => Zxid::ZERO,
        };
        if shared.counter() != 0 {
            log.push(txn(shared));
        } else if begin.kind == packet::SNAP && peer_last.counter() != 0 {
            // The learner's last txns are unknown to the leader.
            log.push(txn(Zxid(peer_last.0 - 2)));
        }
        for old in proposals.iter().filter(|txn| txn.zxid < start) {
            log.push(old.clone());
        }
        let history = History {
            accepted_epoch: Epoch(epoch.0 - 1),
            current_epoch: Epoch(epoch.0 - 1),
            last_zxid: log.max().unwrap_or(Zxid::ZERO),
            committed: log,
        };
        // Is the reign established before the learner comes, or with its help?
        let with_help = begin.zxid == Zxid::ZERO;
        let mut config = leader_config(100, 0);
        let voters = [Some(ServerId(100)), info.sid.filter(|_| with_help)];
        config.verifier = QuorumVerifier::majority(voters.into_iter().flatten());
        config.config_text = first(packet::NEWLEADER).unwrap().data.clone().unwrap();
        let mut replay = Self {
            stream,
            leader: Leader::new(config, history, Mark(1), NOW),
            to_leader: stream.to_leader.iter().cloned().collect(),
            marks: VecDeque::new(),
            sent: Vec::new(),
            verdicts: of_kinds(&stream.to_learner, &[packet::REVALIDATE])
                .map(|answer| wire::read_revalidated(answer).unwrap().1)
                .collect(),
        };
        replay.finish_writes();
        for new in proposals.into_iter().filter(|txn| txn.zxid > start) {
            replay.leader.propose(new);
            replay.finish_writes();
        }
        if begin.kind == packet::SNAP {
            for counter in 1..=begin.zxid.counter() {
                replay.leader.propose(txn(Zxid::new(epoch, counter)));
                replay.finish_writes();
            }
        }
        replay.leader.step(NOW, LeaderInput::Connected(LINK));
        replay
    }

    fn drain(&mut self) {
        let ready = self.leader.ready();
        assert_eq!(ready.failed, None, "{}", self.stream.name);
        assert!(
            ready.close.is_empty(),
            "{}: {:?}",
            self.stream.name,
            ready.notes
        );
        for (_, outgoing) in ready.send.into_iter().chain(ready.send_after_write) {
            self.sent.push(match outgoing {
                Outgoing::Packet(packet) => packet,
                Outgoing::Snapshot(zxid) => QuorumPacket::bare(packet::SNAP, zxid),
            });
        }
        self.marks.extend(ready.mark);
        for asked in self.leader.take_asked() {
            match asked {
                Asked::Revalidation(question) => {
                    let valid = self.verdicts.pop_front().unwrap_or(true);
                    self.leader.answer_revalidation(&question, valid);
                }
                Asked::Request(request) if request.op == 9 => {
                    self.leader.sync(SyncFrom::Learner(request.link));
                }
                Asked::Request(_) => continue,
            }
            self.drain();
        }
    }

    fn finish_writes(&mut self) {
        self.drain();
        while let Some(mark) = self.marks.pop_front() {
            self.leader.step(NOW, LeaderInput::Wrote(mark));
            self.drain();
        }
    }

    /// Gives the learner's packets up to and including the first that `last` holds for.
    fn hear_until(&mut self, last: impl Fn(&QuorumPacket) -> bool) {
        while let Some(packet) = self.to_leader.pop_front() {
            let done = last(&packet);
            self.leader.step(NOW, LeaderInput::Packet(LINK, packet));
            self.drain();
            if done {
                return;
            }
        }
    }

    /// Goes through what Apache's leader sent and lets ours do the same.
    fn run(&mut self) -> Vec<QuorumPacket> {
        self.hear_until(|packet| packet.kind != packet::ACKEPOCH);
        self.finish_writes();
        self.hear_until(|packet| packet.kind == packet::ACKEPOCH);
        self.finish_writes();
        self.hear_until(|packet| packet.kind == packet::ACK && packet.zxid.counter() == 0);
        self.finish_writes();
        let mut newest = self.leader.last_proposed();
        for packet in &self.stream.to_learner {
            match packet.kind {
                packet::PROPOSAL | packet::INFORM if packet.zxid > newest => {
                    newest = packet.zxid;
                    let txn = packet.data.clone().unwrap();
                    let zxid = packet.zxid;
                    self.leader.propose(Proposal { zxid, txn });
                    self.drain();
                    if packet.kind == packet::INFORM {
                        self.finish_writes();
                    }
                }
                packet::COMMIT if packet.zxid > self.leader.last_committed() => {
                    self.finish_writes();
                    if packet.zxid > self.leader.last_committed() {
                        self.hear_until(|ack| ack.kind == packet::ACK && ack.zxid == packet.zxid);
                    }
                }
                _ => {}
            }
        }
        self.hear_until(|_| false);
        self.finish_writes();
        std::mem::take(&mut self.sent)
    }
}

#[test]
fn a_leader_answers_apaches_learners_as_apaches_leaders_did() {
    let mut replayed = 0;
    for stream in &streams() {
        let name = &stream.name;
        if name.contains("obsmaster") {
            continue; // a follower serves it, with a stream of its own
        }
        let sent = Replay::new(stream).run();
        let in_order = |packets: &[QuorumPacket]| -> Vec<QuorumPacket> {
            packets
                .iter()
                .filter(|packet| {
                    ![packet::PING, packet::SYNC, packet::REVALIDATE].contains(&packet.kind)
                })
                .cloned()
                .collect()
        };
        let (ours, theirs) = (in_order(&sent), in_order(&stream.to_learner));
        for (at, (our, their)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(our, their, "{name}: packet {at}");
        }
        // A leader that was killed with txns on its disk never heard of their ACKs.
        let more = &ours[theirs.len()..];
        assert!(more.len() <= 2, "{name}: {more:?}");
        assert!(more.iter().all(|packet| packet.kind == packet::COMMIT));
        let answers = |packets: &[QuorumPacket]| -> Vec<QuorumPacket> {
            of_kinds(packets, &[packet::REVALIDATE]).cloned().collect()
        };
        assert_eq!(answers(&sent), answers(&stream.to_learner), "{name}");
        let syncs = |packets: &[QuorumPacket]| -> Vec<QuorumPacket> {
            of_kinds(packets, &[packet::SYNC]).cloned().collect()
        };
        assert_eq!(syncs(&sent), syncs(&stream.to_learner), "{name}");
        replayed += 1;
    }
    assert_eq!(replayed, 34);
}
