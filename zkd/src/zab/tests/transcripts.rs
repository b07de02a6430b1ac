//! Transcripts: what leader and learners send, write and hand out, step by step.
//!
//! A file of `testdata/zab` holds commands (`> …`) and under each what follows from it until everybody is
//! quiet. `ZKD_REWRITE=1` writes the files anew; then read the diff. The commands:
//!
//! - `lead SID of N accepted A current C log ZXIDS`: a leader of N voters; zxids are `epoch:counter`
//! - `follow SID …`, `observe SID …`, with the same history: a learner connects
//! - `hold WHO` and `free WHO`: batches wait, and are finished; WHO is `leader` or a learner's id
//! - `write`: a txn is proposed; `sync SID`, `revalidate SID yes|no`: a client of the learner asks
//! - `say SID KIND ZXID` and `tell SID KIND ZXID`: a packet nobody of ours would send, to the leader, to the
//!   learner
//! - `elsewhere SIDS`: the election port says these voters are with somebody else
//! - `break SID`, `pass MS`, `end WHO`: the link breaks, time passes, the role ends and says what it leaves

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use super::*;
use crate::ids::{LinkId, SessionId, Xid};
use crate::record::quorum::{QuorumPacket, packet};
use crate::time::Instant;
use crate::zab::leader::{Leader, LeaderInput, SyncFrom};
use crate::zab::learner::{Learner, LearnerInput};
use crate::zab::{Asked, Mark, Outgoing, Write};

#[derive(Default)]
struct Stage {
    leader: Option<Leader>,
    learners: BTreeMap<i64, Learner>,
    /// The links that stand, by learner.
    links: BTreeMap<i64, LinkId>,
    to_leader: VecDeque<(i64, QuorumPacket)>,
    to_learner: VecDeque<(i64, Outgoing)>,
    held: BTreeSet<String>,
    /// Batches under way: mark, whether it truncates, what leaves afterwards.
    batches: BTreeMap<String, VecDeque<Batch>>,
    verdict: bool,
    next_link: u64,
    now: Instant,
    out: String,
}

struct Batch {
    mark: Mark,
    truncate: Option<Zxid>,
    to_learner: Vec<(i64, Outgoing)>,
    to_leader: Vec<QuorumPacket>,
}

fn zxid(text: &str) -> Zxid {
    let (epoch, counter) = text.split_once(':').unwrap();
    z(epoch.parse().unwrap(), counter.parse().unwrap())
}

fn show(zxid: Zxid) -> String {
    if zxid == Zxid::NONE {
        return "-".to_owned();
    }
    format!("{}:{}", zxid.epoch(), zxid.counter())
}

fn show_packet(packet: &QuorumPacket) -> String {
    let mut out = format!("{} {}", packet::name(packet.kind), show(packet.zxid));
    match (&packet.data, packet.kind) {
        (None, _) => {}
        (Some(_), packet::PROPOSAL | packet::INFORM) => {}
        (Some(text), packet::NEWLEADER) => {
            let text = String::from_utf8_lossy(text).replace('\n', " ");
            write!(out, " {text:?}").unwrap();
        }
        (Some(data), _) => {
            out.push(' ');
            data.iter()
                .for_each(|byte| write!(out, "{byte:02x}").unwrap());
        }
    }
    out
}

fn show_write(write: &Write) -> String {
    match write {
        Write::Txn(txn) => show(txn.zxid),
        Write::Truncate(zxid) => format!("truncate to {}", show(*zxid)),
        Write::Snapshot(zxid) => format!("snapshot {}", show(*zxid)),
        Write::AcceptedEpoch(epoch) => format!("acceptedEpoch {epoch}"),
        Write::CurrentEpoch(epoch) => format!("currentEpoch {epoch}"),
    }
}

fn list(zxids: impl IntoIterator<Item = Zxid>) -> String {
    let texts: Vec<_> = zxids.into_iter().map(show).collect();
    texts.join(" ")
}

impl Stage {
    fn say(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn sid_of(&self, link: LinkId) -> i64 {
        let found = self.links.iter().find(|(_, known)| **known == link);
        found.map_or(0, |(sid, _)| *sid)
    }

    fn show_writes(&mut self, who: &str, writes: &[Write]) {
        if !writes.is_empty() {
            let texts: Vec<_> = writes.iter().map(show_write).collect();
            self.say(&format!("{who} writes {}", texts.join(", ")));
        }
    }

    fn leader(&mut self, input: LeaderInput) {
        if let Some(leader) = &mut self.leader {
            leader.step(self.now, input);
            for asked in leader.take_asked() {
                self.leader_asked(asked);
            }
        }
        self.leader_ready();
    }

    fn leader_asked(&mut self, asked: Asked) {
        if let Asked::Request(request) = &asked {
            let sid = self.sid_of(request.link);
            self.say(&format!("leader hears request {} of {sid}", request.op));
        }
        let leader = self.leader.as_mut().unwrap();
        match asked {
            Asked::Request(request) => leader.sync(SyncFrom::Learner(request.link)),
            Asked::Revalidation(question) => leader.answer_revalidation(&question, self.verdict),
        }
    }

    fn leader_ready(&mut self) {
        while let Some(leader) = &mut self.leader {
            let ready = leader.ready();
            for note in &ready.notes {
                self.say(&format!("leader notes: {note}"));
            }
            for link in &ready.close {
                let sid = self.sid_of(*link);
                self.say(&format!("leader closes the link of {sid}"));
                self.cut(sid, *link);
            }
            if let Some(reason) = ready.failed {
                self.say(&format!("leader gives up: {reason}"));
                self.end("leader");
                return;
            }
            let named = |stage: &Self, out: Vec<(LinkId, Outgoing)>| -> Vec<(i64, Outgoing)> {
                out.into_iter()
                    .map(|(link, out)| (stage.sid_of(link), out))
                    .collect()
            };
            let send = named(self, ready.send);
            self.to_learner.extend(send);
            self.show_writes("leader", &ready.write);
            if !ready.committed.is_empty() {
                let zxids = list(ready.committed.iter().map(|txn| txn.zxid));
                self.say(&format!("leader commits {zxids}"));
            }
            if ready.established {
                self.say("leader is established");
            }
            for (session, cxid) in &ready.synced {
                self.say(&format!("leader: sync {cxid} of {session} is done"));
            }
            let Some(mark) = ready.mark else {
                if self.to_leader.is_empty() {
                    let leader = self.leader.as_mut().unwrap();
                    let more = leader.ready();
                    let send = named(self, more.send);
                    self.to_learner.extend(send);
                }
                return;
            };
            let batch = Batch {
                mark,
                truncate: None,
                to_learner: named(self, ready.send_after_write),
                to_leader: Vec::new(),
            };
            self.batches
                .entry("leader".into())
                .or_default()
                .push_back(batch);
        }
    }

    fn learner(&mut self, sid: i64, input: LearnerInput) {
        let now = self.now;
        if let Some(learner) = self.learners.get_mut(&sid) {
            learner.step(now, input);
        }
        while let Some(learner) = self.learners.get_mut(&sid) {
            let ready = learner.ready();
            if ready.ping {
                learner.answer_ping(&[(SessionId(0x77), 4000)]);
            }
            for note in &ready.notes {
                self.say(&format!("{sid} notes: {note}"));
            }
            if let Some((code, reason)) = ready.fatal {
                self.say(&format!("{sid} exits with {code}: {reason}"));
                self.learners.remove(&sid);
                return;
            }
            if let Some(reason) = ready.failed {
                self.say(&format!("{sid} leaves: {reason}"));
                self.end(&sid.to_string());
                return;
            }
            self.to_leader
                .extend(ready.send.into_iter().map(|packet| (sid, packet)));
            self.show_writes(&sid.to_string(), &ready.write);
            if !ready.committed.is_empty() {
                let zxids = list(ready.committed.iter().map(|txn| txn.zxid));
                self.say(&format!("{sid} applies {zxids}"));
            }
            for _ in 0..ready.synced {
                self.say(&format!("{sid}: a sync is done"));
            }
            for (session, valid) in &ready.revalidated {
                self.say(&format!("{sid}: session {session} is valid: {valid}"));
            }
            if ready.up_to_date {
                self.say(&format!("{sid} is up to date"));
            }
            if let Some(mark) = ready.mark {
                let truncate = match ready.write[..] {
                    [Write::Truncate(to)] => Some(to),
                    _ => None,
                };
                let batch = Batch {
                    mark,
                    truncate,
                    to_learner: Vec::new(),
                    to_leader: ready.send_after_write,
                };
                self.batches
                    .entry(sid.to_string())
                    .or_default()
                    .push_back(batch);
            }
            if !ready.ping {
                return;
            }
        }
    }

    /// Lets everything happen that can.
    fn settle(&mut self) {
        loop {
            if let Some((sid, packet)) = self.to_leader.pop_front() {
                if let Some(&link) = self.links.get(&sid) {
                    self.say(&format!("{sid} -> leader: {}", show_packet(&packet)));
                    self.leader(LeaderInput::Packet(link, packet));
                }
            } else if let Some((sid, outgoing)) = self.to_learner.pop_front() {
                self.arrive(sid, outgoing);
            } else if !self.finish_batch() {
                return;
            }
        }
    }

    fn arrive(&mut self, sid: i64, outgoing: Outgoing) {
        let Some(&link) = self.links.get(&sid) else {
            return;
        };
        match outgoing {
            Outgoing::Packet(packet) => {
                self.say(&format!("leader -> {sid}: {}", show_packet(&packet)));
                self.learner(sid, LearnerInput::Packet(packet));
            }
            Outgoing::Snapshot(zxid) => {
                self.say(&format!(
                    "leader -> {sid}: SNAP {} and the tree",
                    show(zxid)
                ));
                self.leader(LeaderInput::SnapshotSent(link));
                self.learner(sid, LearnerInput::SnapshotLoaded(zxid));
            }
        }
    }

    fn finish_batch(&mut self) -> bool {
        let ready = self
            .batches
            .iter_mut()
            .find(|(who, batches)| !batches.is_empty() && !self.held.contains(*who));
        let Some((who, batches)) = ready else {
            return false;
        };
        let who = who.clone();
        let batch = batches.pop_front().unwrap();
        self.to_learner.extend(batch.to_learner);
        if who == "leader" {
            self.leader(LeaderInput::Wrote(batch.mark));
            return true;
        }
        let sid: i64 = who.parse().unwrap();
        self.to_leader
            .extend(batch.to_leader.into_iter().map(|packet| (sid, packet)));
        let mark = batch.mark;
        self.learner(
            sid,
            match batch.truncate {
                Some(last_zxid) => LearnerInput::Truncated { mark, last_zxid },
                None => LearnerInput::Wrote(mark),
            },
        );
        true
    }

    /// The leader closed a link.
    fn cut(&mut self, sid: i64, link: LinkId) {
        if self.links.get(&sid) == Some(&link) {
            self.links.remove(&sid);
            self.learner(
                sid,
                LearnerInput::Closed("the leader closed the link".into()),
            );
        }
    }

    fn end(&mut self, who: &str) {
        let (history, uncommitted, _) = if who == "leader" {
            self.leader.take().unwrap().into_history()
        } else {
            let sid: i64 = who.parse().unwrap();
            let link = self.links.remove(&sid);
            let learner = self.learners.remove(&sid).unwrap();
            if learner.must_reload() {
                self.say(&format!("{who} must load its database again"));
            }
            let parts = learner.into_history();
            if let Some(link) = link {
                self.leader(LeaderInput::Closed(link));
            }
            parts
        };
        self.batches.remove(who);
        self.say(&format!(
            "{who} had accepted {} current {} last {}, not applied: {}",
            history.accepted_epoch,
            history.current_epoch,
            show(history.last_zxid),
            list(uncommitted.iter().map(|txn| txn.zxid)),
        ));
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| -> i64 { words[at].parse().unwrap() };
        let history_from = |at: usize| {
            assert_eq!(
                (words[at], words[at + 2], words[at + 4]),
                ("accepted", "current", "log")
            );
            let zxids: Vec<_> = words[at + 5..].iter().map(|word| zxid(word)).collect();
            history(number(at + 1), number(at + 3), &zxids)
        };
        match words[0] {
            "lead" => {
                let config = leader_config(number(1), number(3));
                self.leader = Some(Leader::new(config, history_from(4), Mark(1), self.now));
                self.leader_ready();
            }
            "follow" | "observe" => {
                let kind = if words[0] == "follow" {
                    LearnerKind::Participant
                } else {
                    LearnerKind::Observer
                };
                let sid = number(1);
                self.next_link += 1;
                let link = LinkId(self.next_link);
                let config = learner_config(sid, kind);
                let learner = Learner::new(config, history_from(2), Mark(1), self.now);
                self.learners.insert(sid, learner);
                self.links.insert(sid, link);
                self.leader(LeaderInput::Connected(link));
                self.learner(sid, LearnerInput::Connected);
            }
            "hold" => drop(self.held.insert(words[1].to_owned())),
            "free" => drop(self.held.remove(words[1])),
            "write" => {
                let leader = self.leader.as_mut().unwrap();
                let zxid = leader.next_zxid().unwrap();
                leader.propose(txn(zxid));
                self.leader_ready();
            }
            "sync" | "revalidate" => self.ask(&words),
            "say" | "tell" => self.forge(words[0] == "say", number(1), words[2], zxid(words[3])),
            "elsewhere" => {
                let sids = words[1..].iter().map(|sid| ServerId(sid.parse().unwrap()));
                self.leader(LeaderInput::Elsewhere(sids.collect()));
            }
            "break" => {
                if let Some(link) = self.links.remove(&number(1)) {
                    self.leader(LeaderInput::Closed(link));
                    self.learner(number(1), LearnerInput::Closed("the link broke".into()));
                }
            }
            "pass" => {
                self.now = self.now + number(1).unsigned_abs();
                self.leader(LeaderInput::Timeout);
                for sid in self.learners.keys().copied().collect::<Vec<_>>() {
                    self.learner(sid, LearnerInput::Timeout);
                }
            }
            "end" => self.end(words[1]),
            other => panic!("unknown command {other}"),
        }
    }

    /// A client of a learner wants something of the leader.
    fn ask(&mut self, words: &[&str]) {
        let sid = words[1].parse().unwrap();
        let learner = self.learners.get_mut(&sid).unwrap();
        if words[0] == "sync" {
            learner.request(SessionId(0x77), Xid(1), 9, Bytes::new(), &[]);
        } else {
            self.verdict = words[2] == "yes";
            learner.revalidate(SessionId(0x77), 4000);
        }
        self.learner(sid, LearnerInput::Receiving);
    }

    fn forge(&mut self, to_leader: bool, sid: i64, kind: &str, zxid: Zxid) {
        let kind = (1..20)
            .find(|&number| packet::name(number) == kind)
            .unwrap();
        let packet = match kind {
            packet::PROPOSAL | packet::INFORM => QuorumPacket::with(kind, zxid, txn(zxid).txn),
            _ => QuorumPacket::bare(kind, zxid),
        };
        if to_leader {
            self.to_leader.push_back((sid, packet));
        } else {
            self.to_learner.push_back((sid, Outgoing::Packet(packet)));
        }
    }
}

#[test]
fn transcripts() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/zab");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 9);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut stage = Stage::default();
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("> ") {
                stage.say(line);
                stage.command(command);
                stage.settle();
            } else if line.starts_with('#') || line.is_empty() {
                stage.say(line);
            }
        }
        if std::env::var("ZKD_REWRITE").is_ok() {
            std::fs::write(&file, &stage.out).unwrap();
        } else {
            assert!(
                stage.out == text,
                "{}: now it is\n{}",
                file.display(),
                stage.out
            );
        }
    }
}
