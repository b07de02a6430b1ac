//! Driving the simulated servers: what the runtime does with sockets and threads, done with events.

use super::check::Delivered;
use super::mutation::Mutation;
use super::network::End;
use super::server::{Job, Progress, Stored};
use super::world::{Event, World};
use crate::election;
use crate::election::Notification;
use crate::ids::{ServerId, Zxid};
use crate::jute::{Record, Writer};
use crate::peer::{Batch, Control, Envelope, Input, LinkItem, Ready, SNAPSHOT_SIGNATURE};
use crate::pipeline::Delivery;
use crate::record::quorum::{QuorumPacket, packet};
use crate::record::txn::TxnRecord;
use crate::storage::StorageError;
use crate::time::Instant;
use crate::tree::SnapshotCursor;
use crate::zab::{Outgoing, Write};

impl World {
    pub(super) fn start(&mut self, id: ServerId) {
        if self.is_up(id) {
            return;
        }
        let (members, mutation) = (self.members.clone(), self.plan.mutation);
        let seed = self.prng.next_u64();
        // Session ids of one server must differ between its lives, as wall-clock time makes them.
        let started = Instant(self.now().wall_ms.cast_unsigned());
        match self.server(id).start(&members, started, seed, mutation) {
            Ok(recovery) => {
                let coverage = &mut self.checks.coverage;
                coverage.snapshots_recovered += u64::from(recovery.from_snapshot);
                coverage.torn_tails += u64::from(recovery.torn_tail);
            }
            // A disk that fails stops a server at its start as it does later: nothing was promised yet.
            Err(error @ StorageError::Io { .. }) => {
                self.note(format_args!("n{id} stops at its start: {error}"));
                self.checks.coverage.disk_stops += 1;
                let mut prng = self.prng.fork();
                self.server(id).disk.crash(&mut prng);
                self.come_back(id);
                return;
            }
            Err(error) => {
                self.checks.on_client_violation(super::Violation {
                    rule: "Recovery",
                    evidence: format!("server {id} cannot read its disk after a crash: {error}"),
                });
                return;
            }
        }
        self.note(format_args!("n{id} starts"));
        let now = self.now();
        if let Some(process) = &mut self.server(id).process {
            process.peer.start(now);
        }
        self.carry_out(id);
    }

    /// The process is gone and its links break at once; its files are as they were written.
    pub(super) fn kill(&mut self, id: ServerId) {
        let server = self.server(id);
        if server.process.take().is_none() {
            return;
        }
        server.disk.process_died();
        self.lose_process(id, 2_000);
    }

    /// The host is gone: what was not synced is lost, and nobody is told for a while.
    pub(super) fn power_cut(&mut self, id: ServerId) {
        let mut prng = self.prng.fork();
        let server = self.server(id);
        if server.process.take().is_none() {
            return;
        }
        server.disk.crash(&mut prng);
        let silence_us = self.prng.between(1_000, 3_000_000);
        self.lose_process(id, silence_us);
    }

    fn lose_process(&mut self, id: ServerId, told_within_us: u64) {
        self.server(id).paused = false;
        self.note(format_args!("n{id} is down"));
        self.network.forget_held(id);
        for end in self.network.ends_of(id) {
            if let Some(other) = self.network.disconnect(end) {
                let incarnation = self.server(other.server).incarnation;
                let delay = self.prng.between(30, told_within_us);
                self.after(
                    delay,
                    Event::LinkEnded {
                        at: other,
                        incarnation,
                    },
                );
            }
        }
        let others: Vec<_> = self
            .servers
            .iter()
            .map(|s| s.id)
            .filter(|other| *other != id)
            .collect();
        for at in others {
            let delay = self.prng.between(30, told_within_us);
            self.after(delay, Event::Unreachable { at, peer: id });
        }
        self.cut_clients_of(id);
        self.come_back(id);
    }

    /// A server that is down starts again some time.
    fn come_back(&mut self, id: ServerId) {
        if self.plan.scripted {
            return;
        }
        let down_us = match self.healing {
            true => 100_000,
            // Some are away for so long that a DIFF cannot bring them back.
            false if self.prng.one_in(5) => self.prng.between(8_000_000, 30_000_000),
            false => self.prng.between(1_000, 8_000_000),
        };
        self.after(down_us, Event::Start(id));
    }

    pub(super) fn resume(&mut self, id: ServerId, incarnation: u64) {
        let server = self.server(id);
        if server.incarnation != incarnation || !server.paused {
            return;
        }
        server.paused = false;
        self.note(format_args!("n{id} goes on"));
        // What lay in the sockets is read before the deadline is judged, as the runtime does.
        self.after(10_000, Event::Timer(id, incarnation));
    }

    pub(super) fn handle_server(&mut self, event: Event) {
        match event {
            Event::Timer(id, incarnation) => self.on_timer(id, incarnation),
            Event::Storage(id, incarnation) => self.on_storage(id, incarnation),
            Event::Snapshot(id, incarnation) => self.on_snapshot(id, incarnation),
            Event::Election { to, from, bytes } => self.on_election(to, from, bytes),
            Event::Unreachable { at, peer } => {
                if !self.is_up(peer) {
                    self.step(at, Input::Election(election::Input::Unreachable(peer)));
                }
            }
            Event::Dial {
                from,
                incarnation,
                leader,
                give_up_us,
            } => self.on_dial(from, incarnation, leader, give_up_us),
            Event::LinkBytes(from) => self.on_link_bytes(from),
            Event::LinkEnded { at, incarnation } => self.on_link_ended(at, incarnation),
            Event::SnapshotSent { at, incarnation } => {
                if self.is_current(at.server, incarnation) {
                    self.step(at.server, Input::SnapshotSent(at.link));
                }
            }
            _ => unreachable!("the other events are the world's own"),
        }
    }

    /// A paused server handles nothing; its events come again a little later.
    fn is_current(&mut self, id: ServerId, incarnation: u64) -> bool {
        let server = self.server(id);
        server.process.is_some() && server.incarnation == incarnation
    }

    pub(super) fn is_paused(&mut self, id: ServerId) -> bool {
        self.server(id).paused
    }

    fn on_timer(&mut self, id: ServerId, incarnation: u64) {
        if !self.is_current(id, incarnation) || self.is_paused(id) {
            return;
        }
        let now = self.now();
        let process = self
            .server(id)
            .process
            .as_mut()
            .expect("the process is current");
        process.timer_us = None;
        if process
            .peer
            .poll_timeout()
            .is_some_and(|at| at <= now.instant)
        {
            process.peer.step(now, Input::Timeout);
        }
        self.carry_out(id);
    }

    fn on_storage(&mut self, id: ServerId, incarnation: u64) {
        if !self.is_current(id, incarnation) {
            return;
        }
        if self.is_paused(id) {
            self.after(20_000, Event::Storage(id, incarnation));
            return;
        }
        let mutation = self.plan.mutation;
        let process = self
            .server(id)
            .process
            .as_mut()
            .expect("the process is current");
        process.storage_busy = false;
        match process.run_storage(mutation) {
            Ok(stored) => {
                let snapshotting = process.snapshot.is_some();
                if !process.jobs.is_empty() && !process.storage_busy {
                    process.storage_busy = true;
                    self.after(300_000, Event::Storage(id, incarnation));
                }
                for one in stored {
                    self.on_stored(id, one);
                }
                if snapshotting {
                    self.after(500, Event::Snapshot(id, incarnation));
                }
            }
            Err(error) => self.stop_for(id, &error.to_string()),
        }
    }

    /// The disk failed: the server stops, and what it had not synced is as good as lost.
    fn stop_for(&mut self, id: ServerId, reason: &str) {
        self.note(format_args!("n{id} stops: {reason}"));
        self.checks.coverage.disk_stops += 1;
        self.power_cut(id);
    }

    fn on_stored(&mut self, id: ServerId, stored: Stored) {
        let (mark, input) = match stored {
            Stored::Wrote(mark) => (mark, Input::Wrote(mark)),
            Stored::Reloaded(mark, recovered) => (mark, Input::Reloaded(mark, recovered)),
        };
        let mut released = Vec::new();
        if let Some(process) = &mut self.server(id).process {
            while let Some((batch, _)) = process.in_flight.front()
                && *batch <= mark
            {
                released.extend(
                    process
                        .in_flight
                        .pop_front()
                        .expect("the front was just looked at")
                        .1,
                );
            }
        }
        for envelope in released {
            self.send(id, envelope);
        }
        self.step(id, input);
    }

    fn on_snapshot(&mut self, id: ServerId, incarnation: u64) {
        if !self.is_current(id, incarnation) {
            return;
        }
        let process = self
            .server(id)
            .process
            .as_mut()
            .expect("the process is current");
        match process.continue_snapshot() {
            Ok(Progress::Underway) => self.after(700, Event::Snapshot(id, incarnation)),
            Ok(Progress::Done) => self.checks.coverage.snapshots_taken += 1,
            Ok(Progress::Abandoned) => {}
            Err(error) => self.stop_for(id, &error.to_string()),
        }
    }

    fn on_election(&mut self, to: ServerId, from: ServerId, bytes: Vec<u8>) {
        if !self.is_up(to) {
            return;
        }
        if self.is_paused(to) {
            self.after(20_000, Event::Election { to, from, bytes });
            return;
        }
        let notification = Notification::decode(&bytes).expect("our own notification decodes");
        self.step(to, Input::Election(election::Input::Reachable(from)));
        self.step(
            to,
            Input::Election(election::Input::Notification { from, notification }),
        );
    }

    fn on_dial(&mut self, from: End, incarnation: u64, leader: ServerId, give_up_us: u64) {
        if !self.is_current(from.server, incarnation) {
            return;
        }
        let open = self.is_up(leader)
            && !self.is_paused(leader)
            && self.network.reaches(from.server, leader)
            && self.network.reaches(leader, from.server);
        if !open {
            if self.now_us >= give_up_us {
                let reason = "the connect budget is used up".to_owned();
                self.step(from.server, Input::LeaderClosed(from.link, reason));
            } else {
                self.after(
                    50_000,
                    Event::Dial {
                        from,
                        incarnation,
                        leader,
                        give_up_us,
                    },
                );
            }
            return;
        }
        let link = self.fresh_link(leader).expect("the leader's process is up");
        let accepted = End {
            server: leader,
            link,
        };
        self.network.connect(from, accepted);
        for end in [from, accepted] {
            if let Some(process) = &mut self.server(end.server).process {
                process
                    .decoders
                    .insert(end.link, crate::peer::LinkDecoder::new(1 << 20));
            }
        }
        self.step(leader, Input::LearnerConnected(link));
        self.step(from.server, Input::LeaderConnected(from.link));
    }

    fn on_link_bytes(&mut self, from: End) {
        let Some(to) = self.network.peer_of(from) else {
            return;
        };
        if !self.network.reaches(from.server, to.server) {
            return;
        }
        if self.is_paused(to.server) {
            self.after(20_000, Event::LinkBytes(from));
            return;
        }
        let Some((bytes, more)) = self.network.take(from) else {
            return;
        };
        if more {
            self.after(200, Event::LinkBytes(from));
        }
        if let Some(process) = &mut self.server(to.server).process
            && let Some(decoder) = process.decoders.get_mut(&to.link)
        {
            decoder.buffer().extend_from_slice(&bytes);
        }
        self.decode(to);
    }

    /// What came together may be taken in one burst, as a busy server does.
    fn decode(&mut self, at: End) {
        let in_one = self.prng.one_in(2);
        while let Some(input) = self.next_input(at) {
            let now = self.now();
            let Some(process) = &mut self.server(at.server).process else {
                return;
            };
            process.peer.step(now, input);
            if !in_one {
                self.carry_out(at.server);
            }
        }
        self.carry_out(at.server);
    }

    fn next_input(&mut self, at: End) -> Option<Input> {
        let process = self.server(at.server).process.as_mut()?;
        let decoder = process.decoders.get_mut(&at.link)?;
        let item = decoder.next_item().expect("our own bytes decode")?;
        // Links that the peer dials itself have ids of their own kind.
        let learner_side = at.link.0 >= 1 << 63;
        Some(match (learner_side, item) {
            (true, LinkItem::Packet(packet)) => Input::LeaderPacket(at.link, packet),
            (true, LinkItem::Snapshot(zxid, tree)) => Input::LeaderSnapshot(at.link, zxid, tree),
            (false, LinkItem::Packet(packet)) => Input::LearnerPacket(at.link, packet),
            (false, LinkItem::Snapshot(..)) => unreachable!("learners send no snapshots"),
        })
    }
    fn on_link_ended(&mut self, at: End, incarnation: u64) {
        if !self.is_current(at.server, incarnation) {
            return;
        }
        if let Some(process) = &mut self.server(at.server).process {
            process.decoders.remove(&at.link);
        }
        let input = if at.link.0 >= 1 << 63 {
            Input::LeaderClosed(at.link, "the link ended".to_owned())
        } else {
            Input::LearnerClosed(at.link)
        };
        self.step(at.server, input);
    }

    /// Ends a link from one side; the other side hears of it a little later, what was under way is lost.
    pub(super) fn end_link(&mut self, end: End) {
        if let Some(process) = &mut self.server(end.server).process {
            process.decoders.remove(&end.link);
        }
        if let Some(other) = self.network.disconnect(end) {
            for at in [end, other] {
                let incarnation = self.server(at.server).incarnation;
                let delay = self.network.delay_us();
                self.after(delay, Event::LinkEnded { at, incarnation });
            }
        }
    }

    /// Walks down what a peer wants done, in field order.
    pub(super) fn carry_out(&mut self, id: ServerId) {
        let Some(process) = &mut self.server(id).process else {
            return;
        };
        let Ready {
            control,
            send,
            batches,
            deliver,
            replay,
            serve,
            events,
            exit,
        } = process.peer.ready();
        for event in &events {
            self.on_event(id, event);
        }
        for control in control {
            self.control(id, control);
        }
        for envelope in send {
            self.send(id, envelope);
        }
        for batch in batches {
            self.store(id, batch);
        }
        for delivery in &deliver {
            self.deliver(id, delivery);
        }
        let now = self.now();
        if let Some(process) = &mut self.server(id).process {
            process.zk.apply(&replay, now);
            if let Some(serving) = serve {
                serving.carry_out(&process.zk, true);
            }
        }
        if let Some((code, reason)) = exit {
            self.checks.on_client_violation(super::Violation {
                rule: "Exit",
                evidence: format!("server {id} wants to exit with code {code}: {reason}"),
            });
        }
        self.flush_clients(id);
        self.arm_timer(id);
    }

    fn arm_timer(&mut self, id: ServerId) {
        let now_us = self.now_us;
        let server = self.server(id);
        let incarnation = server.incarnation;
        let Some(process) = &mut server.process else {
            return;
        };
        let Some(at) = process.peer.poll_timeout() else {
            return;
        };
        let at_us = (at.0 * 1000).max(now_us);
        if process.timer_us.is_none_or(|armed| armed > at_us) {
            process.timer_us = Some(at_us);
            self.at(at_us, Event::Timer(id, incarnation));
        }
    }

    fn control(&mut self, id: ServerId, control: Control) {
        match control {
            Control::ConnectLeader(link, leader) => {
                let from = End { server: id, link };
                let incarnation = self.server(id).incarnation;
                let delay = self.network.delay_us();
                let give_up_us = self.now_us + 10 * super::server::TICK_MS * 1000;
                self.after(
                    delay,
                    Event::Dial {
                        from,
                        incarnation,
                        leader,
                        give_up_us,
                    },
                );
            }
            Control::CloseLeader(link) | Control::CloseLearner(link) => {
                self.close_link(End { server: id, link })
            }
            Control::Reload(mark) => self.job(id, Job::Reload(mark)),
        }
    }

    fn close_link(&mut self, end: End) {
        if let Some(process) = &mut self.server(end.server).process {
            process.decoders.remove(&end.link);
        }
        if let Some(other) = self.network.disconnect(end) {
            let incarnation = self.server(other.server).incarnation;
            let delay = self.network.delay_us();
            self.after(
                delay,
                Event::LinkEnded {
                    at: other,
                    incarnation,
                },
            );
        }
    }

    fn store(&mut self, id: ServerId, batch: Batch) {
        for write in &batch.write {
            if let Write::Txn(proposal) = write {
                let record = TxnRecord::from_bytes(&proposal.txn).expect("our own txns decode");
                self.checks.on_proposed(id, &record);
                let leads = self.server(id).process.as_ref();
                let leads = leads.is_some_and(|process| process.peer.leading().is_some());
                if self.plan.mutation == Mutation::ReplyBeforeCommit && leads {
                    self.deliver(id, &Delivery::Txn(record));
                }
            }
        }
        let Batch {
            write,
            mark,
            send_after_write,
        } = batch;
        let early = self.plan.mutation == Mutation::AckBeforeSync;
        let (now, later) = if early {
            (send_after_write, Vec::new())
        } else {
            (Vec::new(), send_after_write)
        };
        if let Some(process) = &mut self.server(id).process {
            process.in_flight.push_back((mark, later));
        }
        for envelope in now {
            self.send(id, envelope);
        }
        self.job(id, Job::Batch(write, mark));
    }

    fn job(&mut self, id: ServerId, job: Job) {
        let mut delay = match self.plan.scripted {
            true => 1_000,
            false if self.prng.one_in(50) => 400_000,
            false => self.prng.between(50, 8_000),
        };
        let now_us = self.now_us;
        let server = self.server(id);
        if server.slow_until_us > now_us {
            delay = (delay * 30).min(900_000);
        }
        let incarnation = server.incarnation;
        let Some(process) = &mut server.process else {
            return;
        };
        process.jobs.push_back(job);
        if !process.storage_busy {
            process.storage_busy = true;
            self.after(delay, Event::Storage(id, incarnation));
        }
    }

    fn send(&mut self, id: ServerId, envelope: Envelope) {
        match envelope {
            Envelope::Election(to, notification) => self.send_election(id, to, &notification),
            Envelope::Leader(link, packet) => {
                self.send_bytes(End { server: id, link }, &packet.to_vec())
            }
            Envelope::Learner(link, Outgoing::Packet(mut packet)) => {
                if self.plan.mutation == Mutation::TruncOffByOne && packet.kind == packet::TRUNC {
                    packet.zxid = Zxid(packet.zxid.0 + 1);
                }
                self.send_bytes(End { server: id, link }, &packet.to_vec());
            }
            Envelope::Learner(link, Outgoing::Snapshot(zxid)) => {
                let bytes = self.snapshot_bytes(id, zxid);
                let at = End { server: id, link };
                self.send_bytes(at, &bytes);
                let incarnation = self.server(id).incarnation;
                let delay = self.network.delay_us();
                self.after(delay, Event::SnapshotSent { at, incarnation });
            }
        }
    }

    fn send_election(&mut self, id: ServerId, to: ServerId, notification: &Notification) {
        if !self.is_up(to) {
            self.after(300, Event::Unreachable { at: id, peer: to });
            return;
        }
        let bytes = notification.encode();
        if !self.network.reaches(id, to) {
            self.network.hold(id, to, bytes);
            return;
        }
        if self.network.loses_message() {
            return;
        }
        self.post_election(id, to, bytes);
    }

    /// An election message is on its way, perhaps twice.
    pub(super) fn post_election(&mut self, id: ServerId, to: ServerId, bytes: Vec<u8>) {
        if self.network.doubles_message() {
            let delay = self.network.delay_us();
            self.after(
                delay,
                Event::Election {
                    to,
                    from: id,
                    bytes: bytes.clone(),
                },
            );
        }
        let delay = self.network.delay_us();
        self.after(
            delay,
            Event::Election {
                to,
                from: id,
                bytes,
            },
        );
    }

    fn send_bytes(&mut self, from: End, bytes: &[u8]) {
        if let Some(at_us) = self.network.put(from, bytes, self.now_us) {
            self.at(at_us, Event::LinkBytes(from));
        }
    }

    fn snapshot_bytes(&mut self, id: ServerId, zxid: Zxid) -> Vec<u8> {
        let mut bytes = QuorumPacket::bare(packet::SNAP, zxid).to_vec();
        if let Some(process) = &self.server(id).process {
            let mut cursor = SnapshotCursor::new();
            while !cursor.next_chunk(&process.zk.tree().read(), &mut bytes, 100) {}
        }
        Writer::new(&mut bytes).string(SNAPSHOT_SIGNATURE);
        bytes
    }

    fn deliver(&mut self, id: ServerId, delivery: &Delivery) {
        let now = self.now();
        let Some(process) = &mut self.server(id).process else {
            return;
        };
        let zk = std::sync::Arc::clone(&process.zk);
        let previous = zk.tree().read().last_processed_zxid();
        if let Delivery::Txn(record) = delivery
            && self.plan.mutation == Mutation::ReplyBeforeCommit
            && record.header.zxid <= previous
        {
            return;
        }
        zk.apply(std::slice::from_ref(delivery), now);
        if let Delivery::Txn(record) = delivery {
            let digest = zk.tree().read().digest();
            self.checks.on_delivered(&Delivered {
                server: id,
                previous,
                record,
                digest,
                tentative: !zk.is_serving(),
            });
        }
    }
}
