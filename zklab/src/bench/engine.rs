//! Many sessions on one thread: frames out, frames in, the time of each. It decides nothing; a driver says what
//! is sent and looks at what came.
//!
//! It must never be the bottleneck, so it speaks to the kernel itself: non-blocking sockets in one epoll set,
//! everything that gathered for a connection in one write, everything that came in one read, no allocation
//! for a request.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Socket, Type};
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::{Reader, Record, Writer};
use zkd::record::opcode::OpCode;
use zkd::record::proto::{ConnectRequest, ConnectResponse, ReplyHeader, xid};

use crate::failure::{Context, Failure};

/// Events taken from the kernel at once.
const EVENTS: usize = 512;
/// Bytes read at once.
const READ: usize = 256 << 10;
/// An answer that is longer is not ZooKeeper's.
const FRAME_MAX: usize = 64 << 20;
/// What the timer is known by in the epoll set.
const TIMER: u64 = u64::MAX;
/// xid, zxid, err.
const REPLY_HEADER: usize = 16;

/// What came of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// Its session stands.
    Session,
    /// An answer, with its error number.
    Answer(i32),
    /// The answer to a ping.
    Pong,
    /// A watch event.
    Event,
    /// It ended; what it waited for is lost.
    Lost,
}

/// Something that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The connection.
    pub(super) client: usize,
    pub(super) got: Got,
    /// The time that was given with the request, in ns since the engine began.
    pub(super) sent_ns: u64,
    /// When it was read.
    pub(super) at_ns: u64,
}

/// A connection.
#[derive(Debug)]
struct Client {
    server: SocketAddr,
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    /// The kernel is asked to say when there is room to write.
    waits_for_room: bool,
    /// The beginning of a frame whose end has not come yet.
    rest: Vec<u8>,
    has_session: bool,
    is_lost: bool,
    sent: VecDeque<(i32, u64)>,
    next_xid: i32,
    timeout_ms: i32,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Engine {
    epoll: Epoll,
    timer: TimerFd,
    timer_at: Option<u64>,
    clients: Vec<Client>,
    /// What came and was not looked at.
    pub(super) arrivals: Vec<Arrival>,
    read_buffer: Vec<u8>,
    begin: Instant,
    /// Why the last connection ended.
    pub(super) last_loss: Option<String>,
}

impl Engine {
    /// Without connections.
    ///
    /// # Errors
    /// If the kernel gives no epoll set or timer.
    pub(super) fn new() -> Result<Self, Failure> {
        let cannot = || "cannot make a load generator".to_owned();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(cannot)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).doing(cannot)?;
        epoll
            .add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))
            .doing(cannot)?;
        Ok(Self {
            epoll,
            timer,
            timer_at: None,
            clients: Vec::new(),
            arrivals: Vec::new(),
            read_buffer: vec![0; READ],
            begin: Instant::now(),
            last_loss: None,
        })
    }

    /// The time, in ns since the engine began.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How many connections were ever made.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Requests of a connection that wait for their answers.
    pub(super) fn waiting(&self, client: usize) -> usize {
        self.clients[client].sent.len()
    }

    /// Where a connection goes.
    pub(super) fn server(&self, client: usize) -> SocketAddr {
        self.clients[client].server
    }

    /// Whether a connection has a session.
    pub(super) fn is_open(&self, client: usize) -> bool {
        let client = &self.clients[client];
        client.has_session && !client.is_lost
    }

    /// The session timeout a server granted, in ns.
    pub(super) fn timeout_ns(&self, client: usize) -> u64 {
        u64::try_from(self.clients[client].timeout_ms).unwrap_or(0) * 1_000_000
    }

    /// Connects and asks for a session; [`Got::Session`] comes when it stands. `from` is the address to connect
    /// from: one address has only some 28,000 ports.
    ///
    /// # Errors
    /// If the server does not accept the connection.
    pub(super) fn connect(
        &mut self,
        server: SocketAddr,
        from: Option<Ipv4Addr>,
        timeout: Duration,
    ) -> Result<usize, Failure> {
        let number = self.clients.len();
        let client = self.greet(number, server, from, timeout)?;
        self.clients.push(client);
        self.flush(number);
        Ok(number)
    }

    /// Ends a connection, makes it again and asks for a new session.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(super) fn connect_again(
        &mut self,
        number: usize,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<(), Failure> {
        self.drop_client(number);
        self.clients[number] = self.greet(number, server, None, timeout)?;
        self.flush(number);
        Ok(())
    }

    /// A connection with the first frame in its buffer.
    fn greet(
        &self,
        number: usize,
        server: SocketAddr,
        from: Option<Ipv4Addr>,
        timeout: Duration,
    ) -> Result<Client, Failure> {
        let cannot = || format!("cannot connect to {server}");
        let stream = connected(server, from).doing(cannot)?;
        stream.set_nodelay(true).doing(cannot)?;
        stream.set_nonblocking(true).doing(cannot)?;
        let interest = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(&stream, interest).doing(cannot)?;
        let mut client = Client {
            server,
            stream,
            out: Vec::new(),
            written: 0,
            waits_for_room: false,
            rest: Vec::new(),
            has_session: false,
            is_lost: false,
            sent: VecDeque::new(),
            next_xid: 1,
            timeout_ms: 0,
        };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(0),
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            session_id: SessionId::NONE,
            passwd: Some(Bytes::from_static(&[0; 16])),
            read_only: Some(false),
        };
        framed(&mut client.out, |out| {
            request.encode(&mut Writer::new(out));
        });
        Ok(client)
    }

    /// Puts a request behind what waits to be sent; `put` writes everything after the xid, opcode first.
    /// `stamp_ns` comes back with the answer.
    pub(super) fn send(&mut self, client: usize, stamp_ns: u64, put: impl FnOnce(&mut Vec<u8>)) {
        let client = &mut self.clients[client];
        let number = client.next_xid;
        client.next_xid = number.checked_add(1).unwrap_or(1);
        client.sent.push_back((number, stamp_ns));
        framed(&mut client.out, |out| {
            out.extend_from_slice(&number.to_be_bytes());
            put(out);
        });
    }

    /// Puts a heartbeat behind what waits to be sent.
    pub(super) fn ping(&mut self, client: usize, stamp_ns: u64) {
        let client = &mut self.clients[client];
        client.sent.push_back((xid::PING.0, stamp_ns));
        framed(&mut client.out, |out| {
            out.extend_from_slice(&xid::PING.0.to_be_bytes());
            out.extend_from_slice(&OpCode::Ping.code().to_be_bytes());
        });
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(super) fn flush(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.is_lost {
            return;
        }
        while client.written < client.out.len() {
            match client.stream.write(&client.out[client.written..]) {
                Ok(count) => client.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.lose(number, &error.to_string()),
            }
        }
        let is_done = client.written == client.out.len();
        if is_done {
            client.out.clear();
            client.written = 0;
        }
        if client.waits_for_room == is_done {
            client.waits_for_room = !is_done;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, !is_done);
            let mut interest = EpollEvent::new(flags, number as u64);
            if let Err(error) = self.epoll.modify(&client.stream, &mut interest) {
                self.lose(number, &error.to_string());
            }
        }
    }

    /// Waits until something comes or the time is `until_ns`, and reads it into [`Self::arrivals`].
    ///
    /// # Errors
    /// If the kernel refuses to wait.
    pub(super) fn poll(&mut self, until_ns: u64) -> Result<(), Failure> {
        let cannot = || "cannot wait for answers".to_owned();
        let now_ns = self.now_ns();
        let timeout = if until_ns <= now_ns {
            EpollTimeout::ZERO
        } else {
            if self.timer_at != Some(until_ns) {
                let wait = TimeSpec::from_duration(Duration::from_nanos(until_ns - now_ns));
                self.timer
                    .set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())
                    .doing(cannot)?;
                self.timer_at = Some(until_ns);
            }
            EpollTimeout::NONE
        };
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error).doing(cannot),
        };
        for event in &events[..count] {
            if event.data() == TIMER {
                // Reading it makes it quiet until it is set again.
                let _ = self.timer.wait();
                self.timer_at = None;
                continue;
            }
            let Ok(client) = usize::try_from(event.data()) else {
                continue;
            };
            if event.events().contains(EpollFlags::EPOLLOUT) {
                self.flush(client);
            }
            if event.events() != EpollFlags::EPOLLOUT {
                self.read(client);
            }
        }
        Ok(())
    }

    /// Ends a connection without a word.
    pub(super) fn drop_client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if !client.is_lost {
            client.is_lost = true;
            // The descriptor lives on in the list; the other side is told at once.
            let _ = client.stream.shutdown(std::net::Shutdown::Both);
            let _ = self.epoll.delete(&client.stream);
        }
    }

    fn read(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.is_lost {
            return;
        }
        let held = client.rest.len();
        let mut buffer = std::mem::take(&mut self.read_buffer);
        if buffer.len() < held + READ / 2 {
            buffer.resize(held + READ, 0);
        }
        buffer[..held].copy_from_slice(&client.rest);
        client.rest.clear();
        let read = client.stream.read(&mut buffer[held..]);
        match read {
            Ok(0) => self.lose(number, "the server closed the connection"),
            Ok(count) => {
                let at_ns = self.now_ns();
                if let Err(reason) = self.take_apart(number, &buffer[..held + count], at_ns) {
                    self.lose(number, &reason);
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                self.clients[number].rest.extend_from_slice(&buffer[..held]);
            }
            Err(error) => self.lose(number, &error.to_string()),
        }
        self.read_buffer = buffer;
    }

    /// Takes whole frames off the front and keeps the rest.
    fn take_apart(&mut self, number: usize, mut bytes: &[u8], at_ns: u64) -> Result<(), String> {
        while let Some(length) = bytes.first_chunk() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > FRAME_MAX {
                return Err(format!("an answer of {length} bytes"));
            }
            let Some(frame) = bytes.get(4..4 + length) else {
                break;
            };
            bytes = &bytes[4 + length..];
            let (got, sent_ns) = self.clients[number].understand(frame)?;
            self.arrivals.push(Arrival {
                client: number,
                got,
                sent_ns,
                at_ns,
            });
        }
        self.clients[number].rest.extend_from_slice(bytes);
        Ok(())
    }

    fn lose(&mut self, number: usize, reason: &str) {
        self.drop_client(number);
        self.last_loss = Some(reason.to_owned());
        let at_ns = self.now_ns();
        self.arrivals.push(Arrival {
            client: number,
            got: Got::Lost,
            sent_ns: at_ns,
            at_ns,
        });
    }
}

impl Client {
    fn understand(&mut self, frame: &[u8]) -> Result<(Got, u64), String> {
        if !self.has_session {
            let answer = ConnectResponse::decode(&mut Reader::new(frame))
                .map_err(|error| format!("the answer to connect is not ZooKeeper's: {error}"))?;
            if answer.session_id == SessionId::NONE {
                return Err("the server gave no session".to_owned());
            }
            self.has_session = true;
            self.timeout_ms = answer.timeout_ms;
            return Ok((Got::Session, 0));
        }
        let header = frame
            .get(..REPLY_HEADER)
            .and_then(|header| ReplyHeader::decode(&mut Reader::new(header)).ok())
            .ok_or("an answer without a header")?;
        if header.xid == xid::NOTIFICATION {
            return Ok((Got::Event, 0));
        }
        let expected = self.sent.pop_front();
        let Some((number, sent_ns)) = expected.filter(|(number, _)| Xid(*number) == header.xid)
        else {
            return Err(format!(
                "an answer to request {} came when {} was due",
                header.xid.0,
                expected.map_or("none".to_owned(), |(number, _)| number.to_string())
            ));
        };
        let got = if Xid(number) == xid::PING {
            Got::Pong
        } else {
            Got::Answer(header.err)
        };
        Ok((got, sent_ns))
    }
}

/// Writes a frame: its length, then what `put` writes.
fn framed(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn connected(server: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect_timeout(&server, Duration::from_secs(5));
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&server.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}
