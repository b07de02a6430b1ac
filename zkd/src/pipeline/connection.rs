//! One client connection without its socket: frames in, frames out, and the order between them.
//!
//! Law kept here: answers leave in the order of the requests. A read is answered in place; behind a write
//! of its own session that is still on its way it waits in the lane, and runs right after that write was
//! applied and before any later one. Writes go on at once, whatever waits before them. Anything that is
//! not the protocol closes the connection and nothing else. Counterpart: `NIOServerCnxn`, the per-session
//! queues of `CommitProcessor`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;

use super::lane::{Answer, Lane, Pending, Phase};
use super::read::{Question, Reads, is_read};
use super::server::{Tally, ZkServer};
use super::stats::ConnectionStats;
use super::{Origin, Request, Submit, Waker};
use crate::auth;
use crate::config::FourLetterWord;
use crate::error::ErrorCode;
use crate::ids::{ConnId, SessionId, Xid, Zxid};
use crate::jute::{DecodeError, Reader, Record};
use crate::metrics::Metrics;
use crate::record::opcode::OpCode;
use crate::record::proto::{AuthPacket, ConnectRequest, xid};
use crate::session::TouchCell;
use crate::time::{Instant, Now};

/// Length word, xid, opcode.
const REQUEST_HEAD: usize = 4 + 8;

/// What the driver should do with the socket's reading side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    Read,
    /// Do not read; call [`ServerCnxn::on_bytes`] again, without new bytes if there are none, when woken
    /// and after output was taken.
    Hold,
    /// The client said a four-letter word instead of connecting: write its answer, then close.
    FourLetter(FourLetterWord),
    /// Read no more; close once the output is sent ([`OutState::close`] says when that is all).
    Close,
}

/// Why a connection was broken off from this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A length word that is negative or over `jute.maxbuffer`, the second number.
    Length(i32, usize),
    /// The first frame is no connect request.
    FirstFrame(DecodeError),
    /// A request of so many bytes has no room for xid and opcode.
    Short(usize),
    /// An operation that nobody knows, or that a client may not ask for.
    Opcode(i32),
    /// Credentials were refused.
    Credentials,
    /// The configuration asks for credentials, and there were none.
    NoCredentials,
    /// The client has seen this zxid, and the last one here is the second. Another server may have it.
    Ahead(Zxid, Zxid),
}

impl Fault {
    /// Whether a client that keeps the protocol may meet with it.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        matches!(self, Self::Ahead(..))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length, max) => {
                write!(
                    f,
                    "a frame of length {length}, where jute.maxbuffer allows 0 to {max}"
                )
            }
            Self::FirstFrame(error) => write!(f, "the first frame is no connect request: {error}"),
            Self::Short(length) => {
                write!(
                    f,
                    "a request of {length} bytes, too short for xid and opcode"
                )
            }
            Self::Opcode(code) => write!(f, "opcode {code} is none that a client may ask for"),
            Self::Credentials => write!(f, "its credentials were refused"),
            Self::NoCredentials => write!(f, "it asked before it gave the credentials required"),
            Self::Ahead(seen, last) => {
                write!(f, "it has seen zxid {seen}, the last here is {last}")
            }
        }
    }
}

/// What [`ServerCnxn::take_output`] leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutState {
    /// Nothing will follow: close the socket when these bytes are sent.
    pub close: bool,
}

/// One client connection, shared by the task that drives its socket and the core.
pub struct ServerCnxn {
    id: ConnId,
    peer: IpAddr,
    established: Instant,
    waker: Arc<dyn Waker>,
    touch: Arc<TouchCell>,
    lane: Mutex<Lane>,
}

/// What a batch of frames is served with.
struct Service<'a> {
    reads: Reads<'a>,
    now: Now,
    submit: &'a mut Vec<Submit>,
    tally: Tally,
    metrics: &'a Metrics,
}

impl ServerCnxn {
    pub(super) fn new(id: ConnId, peer: IpAddr, waker: Arc<dyn Waker>, now: Instant) -> Self {
        Self {
            id,
            peer,
            established: now,
            waker,
            touch: Arc::default(),
            lane: Mutex::new(Lane::new(auth::initial_ids(peer))),
        }
    }

    /// Takes every complete frame off the front of `input` and serves it; what needs the core is handed on to
    /// `submit` in this order, before another connection can take the session over: what was sent here is ahead of
    /// what will be sent there. The driver takes the output afterwards.
    pub fn on_bytes(
        &self,
        server: &ZkServer,
        input: &mut BytesMut,
        now: Now,
        submit: &mut impl Extend<Submit>,
    ) -> Flow {
        let phase = self.lane.lock().phase;
        match phase {
            Phase::Fresh => self.first_frame(server, input, now, submit),
            Phase::Waiting { .. } => Flow::Hold,
            Phase::Serving => self.serve(server, input, now, submit),
            Phase::Over => {
                input.clear();
                Flow::Close
            }
        }
    }

    /// Moves what is to be sent to the end of `out`.
    pub fn take_output(&self, out: &mut Vec<u8>) -> OutState {
        OutState {
            close: self.lane.lock().take_output(out),
        }
    }

    /// Why the connection was broken off from this side, to be told once; `None` if it was not.
    pub fn take_fault(&self) -> Option<Fault> {
        self.lane.lock().fault.take()
    }

    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The session, 0 before there is one.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.lane.lock().session
    }

    /// When it was accepted.
    #[must_use]
    pub fn established(&self) -> Instant {
        self.established
    }

    /// What `cons` tells.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let lane = self.lane.lock();
        lane.stats(self.id, self.peer, self.established, self.touch.last())
    }

    pub(super) fn reset_stats(&self) {
        self.lane.lock().reset_stats();
    }

    pub(super) fn lane(&self) -> &Mutex<Lane> {
        &self.lane
    }

    pub(super) fn touch(&self) -> &Arc<TouchCell> {
        &self.touch
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    fn first_frame(
        &self,
        server: &ZkServer,
        input: &mut BytesMut,
        now: Now,
        submit: &mut impl Extend<Submit>,
    ) -> Flow {
        let Some(word) = input.first_chunk::<4>().copied() else {
            return Flow::Read;
        };
        if let Some(word) = FourLetterWord::from_bytes(word) {
            self.lane.lock().phase = Phase::Over;
            input.clear();
            return Flow::FourLetter(word);
        }
        let max = server.options().jute_max_buffer;
        let length = match frame_length(input, max) {
            Length::Incomplete => return Flow::Read,
            Length::Bad(length) => return self.break_off(server, Fault::Length(length, max)),
            Length::Complete(length) => length,
        };
        let request = ConnectRequest::decode(&mut Reader::new(&input[4..4 + length]));
        input.advance(4 + length);
        self.lane.lock().received += 1;
        match request {
            Ok(request) => server.handshake(self, &request, now, submit),
            Err(error) => self.break_off(server, Fault::FirstFrame(error)),
        }
    }

    /// As [`Self::shut`], for a reason that is told.
    pub(super) fn break_off(&self, server: &ZkServer, fault: Fault) -> Flow {
        self.lane.lock().fault = Some(fault);
        self.shut(server)
    }

    /// Breaks off: nothing more is answered, what is encoded is still sent.
    pub(super) fn shut(&self, server: &ZkServer) -> Flow {
        let mut lane = self.lane.lock();
        let before = lane.load();
        lane.shut();
        server.load().change(before, lane.load());
        Flow::Close
    }

    fn serve(
        &self,
        server: &ZkServer,
        input: &mut BytesMut,
        now: Now,
        submit: &mut impl Extend<Submit>,
    ) -> Flow {
        let mut submits = Vec::new();
        let tree = server.tree().read();
        let mut lane = self.lane.lock();
        let mut service = Service {
            reads: Reads {
                tree: &tree,
                watches: server.watches(),
                auth: &server.options().auth,
                conn: self.id,
            },
            now,
            submit: &mut submits,
            tally: Tally::default(),
            metrics: server.metrics(),
        };
        let max = server.options().jute_max_buffer;
        let before = lane.load();
        lane.held = false;
        let flow = loop {
            if lane.phase != Phase::Serving {
                input.clear();
                break Flow::Close;
            }
            match frame_length(input, max) {
                Length::Incomplete => break Flow::Read,
                Length::Complete(length) if length >= 8 => {
                    let limit = server.options().global_outstanding_limit;
                    lane.held =
                        server
                            .load()
                            .is_full_for(lane.pending.len(), length, before, limit);
                    if lane.held || lane.is_full() {
                        break Flow::Hold;
                    }
                    lane.received += 1;
                    service.tally.received += 1;
                    service.frame(&mut lane, input, length);
                }
                Length::Complete(length) => {
                    lane.fault = Some(Fault::Short(length));
                    lane.shut();
                }
                Length::Bad(length) => {
                    lane.fault = Some(Fault::Length(length, max));
                    lane.shut();
                }
            }
        };
        server.load().change(before, lane.load());
        let tally = service.tally;
        drop(tree);
        if !submits.is_empty() {
            submit.extend(submits);
        }
        drop(lane);
        if tally.received > 0 {
            server.touches().touch(&self.touch, now.instant);
        }
        server.count(&tally);
        flow
    }
}

enum Length {
    /// More bytes have to come first.
    Incomplete,
    /// A whole frame of this length stands behind the length word.
    Complete(usize),
    /// Negative or over the limit.
    Bad(i32),
}

fn frame_length(input: &[u8], max: usize) -> Length {
    let Some(word) = input.first_chunk::<4>() else {
        return Length::Incomplete;
    };
    let word = i32::from_be_bytes(*word);
    match usize::try_from(word) {
        Ok(length) if length <= max => {
            if input.len() - 4 < length {
                Length::Incomplete
            } else {
                Length::Complete(length)
            }
        }
        _ => Length::Bad(word),
    }
}

/// The body of the frame in front of `input`, as a slice that outlives it.
fn split_body(input: &mut BytesMut, length: usize) -> Bytes {
    let mut frame = input.split_to(4 + length);
    frame.advance(REQUEST_HEAD);
    frame.freeze()
}

/// Whether clients may ask for it and the leader has to order it. `check` alone is refused (3.9.3), and
/// so is what only a server may ask for.
fn is_client_write(op: OpCode) -> bool {
    op.is_write()
        && !matches!(
            op,
            OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession
        )
}

impl Service<'_> {
    /// Serves the frame in front of `input` and takes it off.
    fn frame(&mut self, lane: &mut Lane, input: &mut BytesMut, length: usize) {
        let word = |at: usize| {
            let bytes = input[at..].first_chunk::<4>();
            i32::from_be_bytes(*bytes.expect("a frame of 8 bytes has xid and opcode"))
        };
        let xid = Xid(word(4));
        let code = word(8);
        let body = &input[REQUEST_HEAD..4 + length];
        let op = OpCode::from_code(code);
        match op {
            Some(OpCode::Auth) => self.auth(lane, xid, body),
            Some(OpCode::Sasl) => self.known(
                lane,
                xid,
                code,
                Answer {
                    body: &[0xff; 4],
                    ..Answer::new(Some(Zxid::ZERO), ErrorCode::Ok)
                },
            ),
            _ if !self.reads.auth.admits(&lane.ids) => {
                let err = ErrorCode::SessionClosedRequireAuth;
                self.known(lane, xid, code, Answer::new(Some(Zxid::ZERO), err));
                lane.fault = Some(Fault::NoCredentials);
                lane.phase = Phase::Over;
            }
            Some(op) if is_read(op) => {
                let xid = if op == OpCode::Ping { xid::PING } else { xid };
                if lane.pending.is_empty() {
                    self.read(lane, xid, op, body);
                } else {
                    let ids = Arc::clone(&lane.ids);
                    let body = split_body(input, length);
                    lane.pending.push_back(Pending::Read {
                        xid,
                        op,
                        body,
                        ids,
                        received: self.now.instant,
                    });
                    return;
                }
            }
            Some(OpCode::CloseSession) if lane.read_only => {
                self.known(lane, xid, code, Answer::new(None, ErrorCode::Ok));
                lane.phase = Phase::Over;
            }
            Some(op) if (op == OpCode::Sync || is_client_write(op)) && lane.read_only => {
                self.known(lane, xid, code, Answer::new(None, ErrorCode::NotReadOnly));
            }
            Some(OpCode::Sync) if Reader::new(body).opt_string("path").is_err() => {
                self.known(
                    lane,
                    xid,
                    code,
                    Answer::new(None, ErrorCode::MarshallingError),
                );
            }
            Some(op) if op == OpCode::Sync || is_client_write(op) => {
                let payload = split_body(input, length);
                self.submit(lane, xid, op, payload);
                return;
            }
            _ => {
                let answer = Answer::new(Some(Zxid::NONE), ErrorCode::Unimplemented);
                self.known(lane, xid, code, answer);
                lane.fault = Some(Fault::Opcode(code));
                lane.phase = Phase::Over;
            }
        }
        input.advance(4 + length);
    }

    /// Answers now; nothing waits before it.
    fn read(&mut self, lane: &mut Lane, xid: Xid, op: OpCode, body: &[u8]) {
        let question = Question {
            session: lane.session,
            ids: &lane.ids,
            xid,
            op,
            body,
        };
        let frames = self.reads.answer(&question, &mut lane.out);
        let zxid = self.reads.tree.last_processed_zxid();
        lane.answered(op.code(), xid, zxid, 0, self.now.instant);
        lane.sent += frames - 1;
        self.tally.sent += frames;
        self.tally.latency.add(0, 1);
        self.tally.reads += 1;
    }

    fn submit(&mut self, lane: &mut Lane, xid: Xid, op: OpCode, payload: Bytes) {
        lane.pending.push_back(Pending::Submitted {
            xid,
            op,
            echo: if op == OpCode::Sync {
                payload.clone()
            } else {
                Bytes::new()
            },
            received: self.now.instant,
        });
        if op == OpCode::CloseSession {
            lane.phase = Phase::Over;
        }
        self.submit.push(Submit::Request(Request {
            session: lane.session,
            cxid: xid,
            op,
            payload,
            ids: Arc::clone(&lane.ids),
            origin: Origin::Local,
        }));
    }

    /// Credentials count from the next frame on; the answer keeps its place (kazoo takes the oldest
    /// request for answered by it), and echoes the xid whatever it is.
    fn auth(&mut self, lane: &mut Lane, xid: Xid, body: &[u8]) {
        let ids = AuthPacket::decode(&mut Reader::new(body))
            .map_err(|_| auth::AuthFailed)
            .and_then(|packet| {
                auth::authenticate(
                    packet.scheme.as_deref(),
                    packet.auth.as_deref(),
                    self.reads.auth,
                )
            });
        let err = match ids {
            Ok(more) => {
                lane.ids = auth::with_ids(&lane.ids, more);
                ErrorCode::Ok
            }
            Err(auth::AuthFailed) => ErrorCode::AuthFailed,
        };
        let answer = Answer::new(Some(Zxid::ZERO), err);
        self.known(lane, xid, OpCode::Auth.code(), answer);
        if err != ErrorCode::Ok {
            self.metrics.auth_failed_count.increment();
            lane.fault = Some(Fault::Credentials);
            lane.phase = Phase::Over;
        }
    }

    fn known(&mut self, lane: &mut Lane, xid: Xid, op: i32, answer: Answer) {
        if lane.pending.is_empty() {
            lane.answer(self.reads.tree, xid, op, answer, self.now.instant);
            self.tally.sent += 1;
        } else {
            lane.pending.push_back(Pending::Known { xid, op, answer });
        }
    }
}
