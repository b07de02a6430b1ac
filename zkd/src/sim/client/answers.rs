//! How a client judges what it is answered.

use super::requests::PAIR;
use super::{Client, Pending};
use crate::error::ErrorCode;
use crate::ids::Zxid;
use crate::jute::{Reader, Record};
use crate::record::data::Stat;
use crate::record::opcode::OpCode;
use crate::record::proto::{MultiHeader, ReplyHeader, WatcherEvent, xid};
use crate::sim::check::{Acked, Checks, Violation};

impl Client {
    /// A whole frame of a connection that is attached. False if the session is over.
    pub(super) fn on_frame(&mut self, frame: &[u8], checks: &mut Checks) -> bool {
        let mut from = Reader::new(frame);
        let header =
            ReplyHeader::decode(&mut from).expect("every frame begins with a reply header");
        match header.xid {
            xid::NOTIFICATION => {
                let event = WatcherEvent::decode(&mut from).expect("a notification holds an event");
                checks.coverage.events += 1;
                if let Some(evidence) = self.watches.on_event(event.kind, &event.path, header.zxid)
                {
                    self.violated(checks, "WatchOnce", evidence);
                }
                true
            }
            xid::PING => true,
            _ => self.on_reply(header, &mut from, checks),
        }
    }

    fn on_reply(
        &mut self,
        header: ReplyHeader,
        from: &mut Reader<'_>,
        checks: &mut Checks,
    ) -> bool {
        let Some(pending) = self.pending.pop_front() else {
            let evidence = format!("an answer nobody waits for: {header:?}");
            self.violated(checks, "SessionFifo", evidence);
            return false;
        };
        if pending.xid != header.xid {
            let evidence = format!("expected the answer to {:?}, got {header:?}", pending.xid);
            self.violated(checks, "SessionFifo", evidence);
            return false;
        }
        if header.zxid < self.last_zxid {
            let evidence = format!("{header:?} after the client had seen {}", self.last_zxid);
            self.violated(checks, "MonotonicReads", evidence);
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        let err = ErrorCode::from_code(header.err).expect("an error number of ZooKeeper");
        if pending.op.is_write() {
            if err == ErrorCode::Ok {
                self.on_acked(&pending, header, from, checks);
            }
        } else {
            self.on_read(&pending, header, err, from, checks);
        }
        pending.op != OpCode::CloseSession
    }

    fn on_acked(
        &mut self,
        pending: &Pending,
        header: ReplyHeader,
        from: &mut Reader<'_>,
        checks: &mut Checks,
    ) {
        let mut created = None;
        let mut changed = None;
        match pending.op {
            OpCode::Create => {
                let path = from.string("path").expect("create answers the path");
                self.seen.insert(path.clone(), header.zxid);
                if pending.watch {
                    self.ephemerals.insert(path.clone());
                }
                changed = Some(path.clone());
                created = Some(path);
            }
            OpCode::SetData => {
                self.seen.insert(pending.path.clone(), header.zxid);
                changed = Some(pending.path.clone());
            }
            OpCode::Multi if MultiHeader::decode(from).is_ok_and(|first| first.err == 0) => {
                for path in PAIR {
                    self.seen.insert(path.to_owned(), header.zxid);
                }
            }
            // A failed multi has error code 0 in its header; it stands in the history too, as an error.
            _ => {}
        }
        checks.on_acked(Acked {
            zxid: header.zxid,
            session: self.session,
            xid: header.xid,
            created,
            changed,
        });
    }

    fn on_read(
        &mut self,
        pending: &Pending,
        header: ReplyHeader,
        err: ErrorCode,
        from: &mut Reader<'_>,
        checks: &mut Checks,
    ) {
        let path = &pending.path;
        self.check_fresh(header.zxid, checks);
        match (pending.op, err) {
            (OpCode::GetData | OpCode::Exists, ErrorCode::Ok) => {
                if pending.op == OpCode::GetData {
                    from.buffer("data").expect("getData answers data");
                }
                let stat = Stat::decode(from).expect("a read answers Stat");
                self.on_found(path, stat.mzxid, checks);
                if pending.watch {
                    self.watches.arm_data(path, stat.mzxid);
                }
            }
            (OpCode::GetChildren2, ErrorCode::Ok) => {
                let names: Option<Vec<String>> =
                    from.vector("children").expect("a list answers names");
                drop(names);
                let stat = Stat::decode(from).expect("a list answers Stat");
                let missed = self.watches.on_listed(path, stat.pzxid);
                self.watch_missed(missed, checks);
                if pending.watch {
                    self.watches.arm_child(path, stat.pzxid);
                }
            }
            (OpCode::GetData | OpCode::Exists | OpCode::GetChildren2, ErrorCode::NoNode) => {
                self.on_missing(pending, checks);
            }
            (OpCode::MultiRead, ErrorCode::Ok) => self.on_pair(from, checks),
            (OpCode::Sync, ErrorCode::Ok) => self.on_synced(pending, header.zxid, checks),
            (OpCode::AddWatch, ErrorCode::Ok) => {
                self.watches.arm_lasting(path, pending.watch, header.zxid);
            }
            (OpCode::SetWatches2, ErrorCode::Ok) => self.watches.registered(header.zxid),
            _ => {}
        }
    }

    fn on_missing(&mut self, pending: &Pending, checks: &mut Checks) {
        let missed = self.watches.on_missing(&pending.path);
        self.watch_missed(missed, checks);
        if self.ephemerals.contains(&pending.path) {
            let evidence = format!("{} is gone and its session lives", pending.path);
            self.violated(checks, "EphemeralVanished", evidence);
        }
        if pending.watch && pending.op == OpCode::Exists {
            self.watches.arm_exist(&pending.path);
        }
    }

    /// After a sync, the reads of this client show what anybody had been told before it was sent, unless
    /// a later leader told it: a leader that does not know yet that it is none any more answers a sync
    /// like the leader it was (as Apache's do).
    fn on_synced(&mut self, pending: &Pending, zxid: Zxid, checks: &mut Checks) {
        let Some(floor) = &pending.floor else { return };
        if floor.zxid.epoch() > zxid.epoch() {
            return;
        }
        checks.coverage.fresh_reads += 1;
        self.fresh = self.fresh.max(floor.zxid);
        for (path, zxid) in &floor.paths {
            let newest = self.fresh_paths.entry(path.clone()).or_insert(*zxid);
            *newest = (*newest).max(*zxid);
        }
        self.check_fresh(zxid, checks);
    }

    fn check_fresh(&self, zxid: Zxid, checks: &mut Checks) {
        if zxid < self.fresh {
            let evidence = format!("a read at {zxid} after a sync to {}", self.fresh);
            self.violated(checks, "SyncFreshness", evidence);
        }
    }

    fn on_pair(&mut self, from: &mut Reader<'_>, checks: &mut Checks) {
        let values: Vec<_> = PAIR
            .iter()
            .map(|_| {
                let header = MultiHeader::decode(from).expect("one result for each read");
                if header.err != 0 {
                    from.int("err").expect("an error result holds its code");
                    return None;
                }
                let data = from.buffer("data").expect("getData answers data");
                Stat::decode(from).expect("getData answers Stat");
                data
            })
            .collect();
        if values[0] != values[1] {
            let evidence = format!("one read shows {values:?}");
            self.violated(checks, "MultiAtomicity", evidence);
        }
    }

    fn on_found(&mut self, path: &str, mzxid: Zxid, checks: &mut Checks) {
        let missed = self.watches.on_found(path, mzxid);
        self.watch_missed(missed, checks);
        let newest = self.seen.entry(path.to_owned()).or_insert(mzxid);
        let before = *newest;
        *newest = before.max(mzxid);
        if mzxid < before {
            let evidence = format!("{path} at {mzxid}, seen before at {before}");
            self.violated(checks, "MonotonicReads", evidence);
        }
        if let Some(floor) = self.fresh_paths.get(path).filter(|floor| mzxid < **floor) {
            let evidence = format!("{path} at {mzxid} after a sync, written at {floor}");
            self.violated(checks, "SyncFreshness", evidence);
        }
    }

    fn watch_missed(&self, missed: Option<String>, checks: &mut Checks) {
        if let Some(evidence) = missed {
            self.violated(checks, "WatchBeforeRead", evidence);
        }
    }

    fn violated(&self, checks: &mut Checks, rule: &'static str, evidence: String) {
        let evidence = format!(
            "client {} (session {}): {evidence}",
            self.number, self.session
        );
        checks.on_client_violation(Violation { rule, evidence });
    }
}
