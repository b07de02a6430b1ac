//! A client of the lab's own: a session with a few requests on their way at any time, as an application's would have it.
//!
//! It tells the checkers what the client crate hides (see `foreign`): the zxid in the header of every answer, and the
//! order of watch events and answers on the wire. And it can do what that crate cannot: leave a server on purpose.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use zkd::error::ErrorCode;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::{DecodeError, Reader, Record, Writer};
use zkd::record::opcode::OpCode;
use zkd::record::proto::{ReplyHeader, WatcherEvent, xid};

use super::ask::{Ask, Told};
use super::chooser::Chooser;
use super::link::{Link, Ticket};
use super::mix::{Mix, Work};
use super::recorder::Recorder;
use super::reins::Reins;
use super::watches::Watches;
use crate::clock::now_us;
use crate::observe::history::{EventLine, Happened, Kind, Line, MarkLine, OpLine, Outcome};
use crate::probe::session::SessionError;

/// Requests of one client that wait for their answers.
pub(super) const WINDOW: usize = 4;
/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a client looks at its clock.
pub(super) const BEAT: Duration = Duration::from_millis(50);

/// xid, zxid, err.
const REPLY_HEADER_LENGTH: usize = 16;

/// A request that waits for its answer.
#[derive(Debug)]
struct Pending {
    id: u32,
    /// Its number in the session.
    xid: Xid,
    /// The number that the answer bears.
    wire: Xid,
    t0: u64,
    ask: Ask,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    number: u32,
    addresses: Vec<SocketAddr>,
    timeout: Duration,
    recorder: Arc<Recorder>,
    chooser: Chooser,
    watches: Watches,
    link: Option<Link>,
    ticket: Ticket,
    conn: u32,
    /// Frames that this connection has received.
    pos: u32,
    next_xid: i32,
    pending: VecDeque<Pending>,
    heard: Instant,
    pinged: bool,
    is_closed: bool,
    /// It has just left this server on purpose.
    left: Option<SocketAddr>,
    /// Where its connection goes.
    at: Option<SocketAddr>,
}

impl Client {
    pub(super) fn new(
        number: u32,
        addresses: Vec<SocketAddr>,
        timeout: Duration,
        recorder: Arc<Recorder>,
        chooser: Chooser,
    ) -> Self {
        Self {
            number,
            addresses,
            timeout,
            recorder,
            chooser,
            watches: Watches::default(),
            link: None,
            ticket: Ticket::default(),
            conn: 0,
            pos: 0,
            next_xid: 1,
            pending: VecDeque::new(),
            heard: Instant::now(),
            pinged: false,
            is_closed: false,
            left: None,
            at: None,
        }
    }

    /// Works until the time is over, then ends its session; gives up when no server takes it for `grace` after that.
    pub(super) async fn work(mut self, mix: Mix, every: Duration, reins: Reins, grace: Duration) {
        let mut due = Instant::now() + every.mul_f64(f64::from(self.number % 16) / 16.0);
        while !self.is_closed && Instant::now() < reins.until() + grace {
            let is_over = Instant::now() >= reins.until();
            if self.link.is_none() {
                self.connect().await;
                if self.link.is_some() && self.left.take().is_some() && !is_over {
                    // What it sent before it left must be ordered before this, or never.
                    let path = self.chooser.register();
                    self.ask(Ask::new(Kind::Set, path)).await;
                }
                continue;
            }
            if is_over && self.pending.is_empty() {
                self.ask(Ask::new(Kind::Close, "")).await;
            }
            let has_room = !is_over && self.pending.len() < WINDOW;
            let link = self.link.as_mut();
            let Some(link) = link else { continue };
            tokio::select! {
                frame = link.frames.recv() => match frame {
                    Some((at, bytes)) => self.frame(at, &bytes),
                    None => self.lost(),
                },
                () = sleep_until(due), if has_room => {
                    // What the servers could not take in time is not asked later.
                    due = (due + every).max(Instant::now().checked_sub(BEAT).unwrap_or(due));
                    self.next(&mix).await;
                }
                () = sleep(BEAT) => {}
            }
            self.beat().await;
        }
        self.lost();
    }

    /// Asks one thing and waits for the answer, over as many connections as it takes; `None` if none came in time.
    pub(super) async fn one(&mut self, ask: Ask, until: Instant) -> Option<i32> {
        let mut asked = None;
        while Instant::now() < until {
            if self.link.is_none() {
                if asked.is_some() {
                    return None;
                }
                self.connect().await;
                continue;
            }
            if asked.is_none() {
                asked = self.ask(ask.clone()).await;
            }
            let Some(link) = &mut self.link else { continue };
            tokio::select! {
                frame = link.frames.recv() => match frame {
                    Some((at, bytes)) => self.frame(at, &bytes),
                    None => self.lost(),
                },
                () = sleep(BEAT) => {}
            }
            if self.link.is_some() && self.pending.is_empty() {
                return asked;
            }
            self.beat().await;
        }
        None
    }

    /// Asks one thing that is not part of the history.
    pub(super) async fn quietly<T>(
        &mut self,
        op: OpCode,
        body: impl Fn(&mut Writer<'_>),
        read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
        until: Instant,
    ) -> Option<Result<(Zxid, T), i32>> {
        while Instant::now() < until {
            if self.link.is_none() {
                self.connect().await;
                continue;
            }
            let number = Xid(self.next_xid);
            self.next_xid += 1;
            let Some(link) = &mut self.link else { continue };
            if link.send(number, op, &body).await.is_err() {
                self.lost();
                continue;
            }
            let Some((header, bytes)) = self.answer_to(number).await else {
                self.lost();
                continue;
            };
            let mut reader = Reader::new(&bytes[REPLY_HEADER_LENGTH..]);
            self.ticket.last_zxid = header.zxid.max(self.ticket.last_zxid);
            if header.err != 0 {
                return Some(Err(header.err));
            }
            if let Ok(answer) = read(&mut reader) {
                return Some(Ok((header.zxid, answer)));
            }
            self.lost();
        }
        None
    }

    /// Passes over everything up to this answer; `None` if it does not come.
    async fn answer_to(&mut self, wanted: Xid) -> Option<(ReplyHeader, Vec<u8>)> {
        let until = Instant::now() + CONNECT;
        loop {
            let frames = &mut self.link.as_mut()?.frames;
            let (_, bytes) = tokio::time::timeout_at(until, frames.recv()).await.ok()??;
            self.pos += 1;
            let header = ReplyHeader::decode(&mut Reader::new(&bytes)).ok()?;
            if header.xid == wanted {
                return Some((header, bytes));
            }
        }
    }

    /// The timeout that was granted.
    pub(super) fn granted(&self) -> Duration {
        Duration::from_millis(self.ticket.timeout_ms)
    }

    async fn connect(&mut self) {
        let mut address = *self.chooser.prng.pick(&self.addresses);
        if self.left == Some(address) {
            address = *self.chooser.prng.pick(&self.addresses);
        }
        match Link::open(address, &self.ticket, self.timeout, CONNECT).await {
            Ok((link, ticket)) => {
                self.link = Some(link);
                self.at = Some(address);
                self.ticket = ticket;
                self.conn += 1;
                self.pos = 0;
                self.heard = Instant::now();
                self.pinged = false;
                let node = address.to_string();
                let mark = self.mark(&node);
                self.recorder.write(&Line::Open(mark));
                // Before anything else, so that nothing new is seen before what was missed is told.
                if let Some(again) = self.watches.again(self.ticket.last_zxid) {
                    self.ask(again).await;
                }
            }
            Err(SessionError::Expired) if self.ticket.id != SessionId::NONE => {
                let mut mark = self.mark("");
                mark.conn = 0;
                self.recorder.write(&Line::Expired(mark));
                self.ticket = Ticket::default();
                self.watches.clear();
            }
            Err(_) => sleep(Duration::from_millis(self.chooser.prng.between(5, 40))).await,
        }
    }

    fn mark<'a>(&self, node: &'a str) -> MarkLine<'a> {
        MarkLine {
            client: self.number,
            session: self.ticket.id,
            conn: self.conn,
            at: now_us(),
            node,
        }
    }

    /// Sends; the id of the operation.
    async fn ask(&mut self, ask: Ask) -> Option<i32> {
        let link = self.link.as_mut()?;
        let id = self.recorder.next_id();
        let number = Xid(self.next_xid);
        self.next_xid += 1;
        let wire = match ask.kind {
            Kind::Rewatch => xid::SET_WATCHES,
            _ => number,
        };
        let t0 = now_us();
        let sent = link.send(wire, ask.op(), |out| ask.encode(id, out)).await;
        self.pending.push_back(Pending {
            id,
            xid: number,
            wire,
            t0,
            ask,
        });
        if sent.is_err() {
            self.lost();
        }
        Some(id.cast_signed())
    }

    /// The connection is no more; what was not answered stays unknown.
    fn lost(&mut self) {
        if self.link.take().is_none() {
            return;
        }
        while let Some(pending) = self.pending.pop_front() {
            let mut line = pending.ask.line(pending.id);
            self.known(&pending, &mut line);
            self.recorder.op(&line);
            // The answer to a close may be lost with the connection; the session is given up in either case.
            self.is_closed |= pending.ask.kind == Kind::Close;
        }
        let mark = self.mark("");
        self.recorder.write(&Line::Lost(mark));
    }

    fn known(&self, pending: &Pending, line: &mut OpLine<'_>) {
        line.client = self.number;
        line.session = self.ticket.id;
        line.conn = self.conn;
        line.xid = pending.xid.0;
        line.t0 = pending.t0;
    }

    fn frame(&mut self, at: u64, bytes: &[u8]) {
        self.pos += 1;
        self.heard = Instant::now();
        self.pinged = false;
        if self.understand(at, bytes).is_err() {
            self.lost();
        }
    }

    fn understand(&mut self, at: u64, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        let header = ReplyHeader::decode(&mut reader)?;
        if header.xid == xid::NOTIFICATION {
            let event = WatcherEvent::decode(&mut reader)?;
            if let Some(what) = Happened::of_code(event.kind) {
                self.watches.fired(what, &event.path);
                let line = EventLine {
                    client: self.number,
                    session: self.ticket.id,
                    conn: self.conn,
                    pos: self.pos,
                    at,
                    what,
                    path: &event.path,
                    zxid: header.zxid,
                };
                self.recorder.write(&Line::Event(line));
            }
            return Ok(());
        }
        let Some(index) = self
            .pending
            .iter()
            .position(|pending| pending.wire == header.xid)
        else {
            return Ok(());
        };
        let told = {
            let ask = &self.pending[index].ask;
            if header.err == 0 {
                ask.told(&mut reader)?
            } else {
                Told::default()
            }
        };
        let Some(pending) = self.pending.remove(index) else {
            return Ok(());
        };
        if header.zxid > Zxid::ZERO {
            self.ticket.last_zxid = header.zxid;
        }
        let mut line = pending.ask.line(pending.id);
        self.known(&pending, &mut line);
        (line.t1, line.pos, line.zxid) = (at, self.pos, header.zxid);
        told.fill(&mut line, header.err);
        self.is_closed |= line.kind == Kind::Close && line.outcome == Outcome::Ok;
        match line.outcome {
            Outcome::Ok => self.watches.answered(&pending.ask, true),
            Outcome::Failed(code) if code == ErrorCode::NoNode.code() => {
                self.watches.answered(&pending.ask, false);
            }
            _ => {}
        }
        self.recorder.op(&line);
        if let Some(version) = told.version() {
            self.chooser.saw(pending.ask.path, version);
        }
        if header.err == ErrorCode::SessionExpired.code() {
            self.lost();
        }
        Ok(())
    }

    /// Pings when it has been quiet, and gives the connection up when it stays so.
    async fn beat(&mut self) {
        let quiet = self.heard.elapsed();
        let granted = self.granted();
        if quiet > granted * 2 / 3 {
            self.lost();
        } else if quiet > granted / 3 && !self.pinged {
            self.pinged = true;
            if let Some(link) = &mut self.link
                && link.send(xid::PING, OpCode::Ping, |_| ()).await.is_err()
            {
                self.lost();
            }
        }
    }

    async fn next(&mut self, mix: &Mix) {
        let work = mix.pick(&mut self.chooser.prng);
        let ask = self.chooser.choose(work);
        let again = (work == Work::Sync).then(|| Ask::new(Kind::Get, self.chooser.register()));
        self.ask(ask).await;
        if let Some(read) = again {
            self.ask(read).await;
        }
        // A connection costs more than a request, so only some of these really go.
        if work == Work::Move && self.chooser.prng.one_in(4) {
            self.left = self.at;
            self.lost();
        }
    }
}
