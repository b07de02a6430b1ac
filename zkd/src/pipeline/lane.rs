//! What a connection's task and the core share: the queue of what waits and the bytes to send.
//!
//! Law kept here: the front of the queue is always a request that is on its way through the leader. When
//! its txn has been applied it is answered, and with it everything up to the next such request.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;

use super::connection::Fault;
use super::load::LaneLoad;
use super::read::{Question, Reads, is_read};
use super::reply::{self, Frame};
use super::server::Tally;
use super::stats::{ConnectionStats, Latency};
use crate::auth::{self, Ids};
use crate::error::ErrorCode;
use crate::ids::{ConnId, SessionId, Xid, Zxid};
use crate::jute::{Reader, Writer};
use crate::record::opcode::OpCode;
use crate::record::txn::{TxnHeader, TxnRecord};
use crate::time::Instant;
use crate::tree::{Applied, AppliedBody, DataTree};

/// Requests of one connection that may wait before it is no longer read from.
const LANE_MAX: usize = 4096;
/// Bytes that may wait to be sent before the connection is no longer read from.
const OUTPUT_MAX: usize = 4 << 20;
/// Bytes at which a connection is given up that does not take its events, or asked for all this at once
/// behind a write.
const OUTPUT_ABANDONED: usize = 256 << 20;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing but parts of the first frame yet.
    Fresh,
    /// The session is being opened or validated; the client hears nothing until that is done.
    Waiting {
        /// Whether the client came back with a session.
        reattach: bool,
        /// Whether it sent the `readOnly` byte and so expects one.
        says_read_only: bool,
    },
    /// Requests are served.
    Serving,
    /// No more input counts; the connection closes when the lane is empty.
    Over,
}

/// The part of a connection that its task and the core share.
pub(super) struct Lane {
    pub(super) phase: Phase,
    pub(super) session: SessionId,
    pub(super) timeout_ms: i32,
    /// Served by a server without a quorum: the session is local, writes are refused.
    pub(super) read_only: bool,
    pub(super) ids: Ids,
    pub(super) out: Vec<u8>,
    /// In the order of the requests. The front is always a [`Pending::Submitted`].
    pub(super) pending: VecDeque<Pending>,
    /// Requests have come that are not read for the sake of `globalOutstandingLimit`.
    pub(super) held: bool,
    /// The waker was called and the output has not been taken since.
    woken: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    last: Option<Last>,
    latency: Latency,
    /// Why this side broke the connection off, until it is told.
    pub(super) fault: Option<Fault>,
}

/// The last request answered.
#[derive(Clone, Copy)]
struct Last {
    op: i32,
    xid: Xid,
    zxid: Zxid,
    at: Instant,
    latency_ms: u64,
}

/// A request whose answer has not been written.
pub(super) enum Pending {
    /// On its way through the leader.
    Submitted {
        xid: Xid,
        op: OpCode,
        /// Of a sync: the path to echo, as it came.
        echo: Bytes,
        received: Instant,
    },
    /// A read behind such a request.
    Read {
        xid: Xid,
        op: OpCode,
        body: Bytes,
        ids: Ids,
        received: Instant,
    },
    /// An answer that is known already, behind such a request.
    Known { xid: Xid, op: i32, answer: Answer },
}

/// An answer that asks nothing of the tree but perhaps its zxid.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    /// `None`: the last processed zxid at that time.
    pub(super) zxid: Option<Zxid>,
    pub(super) err: ErrorCode,
    /// Of sasl: the null token. Empty otherwise.
    pub(super) body: &'static [u8],
}

impl Answer {
    pub(super) fn new(zxid: Option<Zxid>, err: ErrorCode) -> Self {
        Self {
            zxid,
            err,
            body: &[],
        }
    }
}

/// Whether a committed txn answers the request at the front of the lane.
fn is_answered_by(front: Option<&Pending>, header: &TxnHeader) -> bool {
    let closes = header.kind == OpCode::CloseSession.code();
    matches!(front, Some(Pending::Submitted { xid, op, .. })
        if *xid == header.cxid
            && *op != OpCode::Sync
            && (*op == OpCode::CloseSession) == closes)
}

impl Lane {
    /// Of a connection that has said nothing yet.
    pub(super) fn new(ids: Ids) -> Self {
        Self {
            phase: Phase::Fresh,
            session: SessionId::NONE,
            timeout_ms: 0,
            read_only: false,
            ids,
            out: Vec::new(),
            pending: VecDeque::new(),
            held: false,
            woken: false,
            received: 0,
            sent: 0,
            last: None,
            latency: Latency::default(),
            fault: None,
        }
    }

    /// Moves what is to be sent to the end of `out`; says whether nothing will follow.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) -> bool {
        self.woken = false;
        if out.is_empty() {
            std::mem::swap(out, &mut self.out);
        } else {
            out.append(&mut self.out);
        }
        self.is_done()
    }

    /// What `cons` tells of the connection.
    pub(super) fn stats(
        &self,
        id: ConnId,
        peer: IpAddr,
        established: Instant,
        last_touch: Instant,
    ) -> ConnectionStats {
        ConnectionStats {
            id,
            peer,
            session: self.session,
            timeout_ms: self.timeout_ms,
            established,
            last_touch: last_touch.max(established),
            received: self.received,
            sent: self.sent,
            queued: self.pending.len(),
            last_op: self.last.map(|last| last.op),
            last_cxid: self.last.map_or(Xid(0), |last| last.xid),
            last_zxid: self.last.map_or(Zxid::NONE, |last| last.zxid),
            last_response: self.last.map_or(established, |last| last.at),
            last_latency_ms: self.last.map_or(0, |last| last.latency_ms),
            latency: self.latency,
        }
    }

    /// Starts counting anew.
    pub(super) fn reset_stats(&mut self) {
        self.received = 0;
        self.sent = 0;
        self.last = None;
        self.latency = Latency::default();
    }

    /// Appends the answer to the first frame. `session` is [`SessionId::NONE`] if there is none.
    pub(super) fn connected(&mut self, session: SessionId, says_read_only: bool) {
        let (timeout_ms, password) = if session == SessionId::NONE {
            (0, [0; 16])
        } else {
            (self.timeout_ms, auth::session_password(session))
        };
        let read_only = says_read_only.then_some(self.read_only);
        reply::connect_response(&mut self.out, session, timeout_ms, &password, read_only);
        self.sent += 1;
        self.phase = if session == SessionId::NONE {
            Phase::Over
        } else {
            Phase::Serving
        };
    }

    /// Nothing more will be said. A connection whose closeSession is under way still hears of everything that
    /// happens before it: no reply may show a change whose event was kept back.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Over && self.pending.is_empty()
    }

    /// Appends a watch event. A client that takes nothing is given up.
    pub(super) fn event(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.out);
        self.sent += 1;
        if self.out.len() > OUTPUT_ABANDONED {
            self.shut();
        }
    }

    /// A txn of this session was applied: answers the request it came from, if that was asked here, and
    /// whatever waited behind it. Says whether any request left the lane.
    pub(super) fn txn_applied(
        &mut self,
        reads: &Reads<'_>,
        record: &TxnRecord,
        applied: &Applied,
        now: Instant,
        tally: &mut Tally,
    ) -> bool {
        let header = &record.header;
        if !is_answered_by(self.pending.front(), header) {
            return false;
        }
        if has_moved(applied) {
            self.shut();
            return true;
        }
        let Some(Pending::Submitted {
            xid, op, received, ..
        }) = self.pending.pop_front()
        else {
            return false;
        };
        if op == OpCode::Reconfig {
            reply::reconfig_reply(&mut self.out, xid, record, applied);
        } else {
            reply::write_reply(&mut self.out, xid, header.zxid, op, applied);
        }
        self.note(op.code(), xid, header.zxid, received, now, tally);
        self.run(reads, now, tally);
        true
    }

    /// A sync has come through. Says whether it was asked here.
    pub(super) fn sync_done(
        &mut self,
        reads: &Reads<'_>,
        cxid: Xid,
        now: Instant,
        tally: &mut Tally,
    ) -> bool {
        let ours = matches!(self.pending.front(),
            Some(Pending::Submitted { xid, op: OpCode::Sync, .. }) if *xid == cxid);
        if !ours {
            return false;
        }
        let Some(Pending::Submitted {
            xid,
            echo,
            received,
            ..
        }) = self.pending.pop_front()
        else {
            return false;
        };
        let zxid = reads.tree.last_processed_zxid();
        let path = Reader::new(&echo).opt_string("path");
        let frame = Frame::open(&mut self.out, xid, zxid);
        Writer::new(&mut self.out).opt_string(path.unwrap_or_default().as_deref());
        frame.close(&mut self.out);
        self.note(OpCode::Sync.code(), xid, zxid, received, now, tally);
        self.run(reads, now, tally);
        true
    }

    /// Answers what stands before the next request that is still on its way.
    fn run(&mut self, reads: &Reads<'_>, now: Instant, tally: &mut Tally) {
        while !matches!(self.pending.front(), None | Some(Pending::Submitted { .. })) {
            match self.pending.pop_front() {
                Some(Pending::Read {
                    xid,
                    op,
                    body,
                    ids,
                    received,
                }) => {
                    let question = Question {
                        session: self.session,
                        ids: &ids,
                        xid,
                        op,
                        body: &body,
                    };
                    let frames = reads.answer(&question, &mut self.out);
                    self.sent += frames - 1;
                    tally.sent += frames - 1;
                    let zxid = reads.tree.last_processed_zxid();
                    self.note(op.code(), xid, zxid, received, now, tally);
                    if self.out.len() > OUTPUT_ABANDONED {
                        self.shut();
                        return;
                    }
                }
                Some(Pending::Known { xid, op, answer }) => {
                    self.answer(reads.tree, xid, op, answer, now);
                    tally.sent += 1;
                }
                Some(Pending::Submitted { .. }) | None => {}
            }
        }
    }

    pub(super) fn answer(
        &mut self,
        tree: &DataTree,
        xid: Xid,
        op: i32,
        answer: Answer,
        now: Instant,
    ) {
        let zxid = answer.zxid.unwrap_or(tree.last_processed_zxid());
        if answer.body.is_empty() {
            reply::header_only(&mut self.out, xid, zxid, answer.err);
        } else {
            let frame = Frame::open(&mut self.out, xid, zxid);
            self.out.extend_from_slice(answer.body);
            frame.close(&mut self.out);
        }
        self.answered(op, xid, zxid, 0, now);
    }

    fn note(
        &mut self,
        op: i32,
        xid: Xid,
        zxid: Zxid,
        received: Instant,
        now: Instant,
        tally: &mut Tally,
    ) {
        let took = now.ms_since(received);
        self.answered(op, xid, zxid, took, now);
        tally.sent += 1;
        tally.latency.add(took, 1);
        if OpCode::from_code(op).is_some_and(is_read) {
            tally.waited_reads_ms.push(took);
        } else {
            tally.writes_ms.push(took);
        }
    }

    pub(super) fn answered(&mut self, op: i32, xid: Xid, zxid: Zxid, latency_ms: u64, at: Instant) {
        self.sent += 1;
        self.latency.add(latency_ms, 1);
        self.last = Some(Last {
            op,
            xid,
            zxid,
            at,
            latency_ms,
        });
    }

    /// No more input counts and nothing more is answered.
    pub(super) fn shut(&mut self) {
        self.phase = Phase::Over;
        self.pending.clear();
        self.held = false;
    }

    /// Notes that the driver has to look; false if it was told already.
    pub(super) fn needs_wake(&mut self) -> bool {
        !std::mem::replace(&mut self.woken, true)
    }

    pub(super) fn load(&self) -> LaneLoad {
        LaneLoad {
            pending: self.pending.len(),
            held: self.held,
        }
    }

    /// Whether the connection must not be read from: it asks for more than this side keeps for one, or does not
    /// take its answers.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= LANE_MAX || self.out.len() >= OUTPUT_MAX
    }
}

/// The session talks through another server now: it is never told so, only the connection closes.
fn has_moved(applied: &Applied) -> bool {
    match &applied.body {
        AppliedBody::Multi(results) => results
            .iter()
            .any(|(_, err, _)| *err == ErrorCode::SessionMoved),
        _ => applied.err == ErrorCode::SessionMoved,
    }
}
