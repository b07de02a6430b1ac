//! The client port: one task for each connection.
//!
//! The task reads what came, lets [`ServerCnxn`] answer in place what can be answered in place, hands the
//! rest to the core, and writes whatever has gathered in one system call. It stops reading while the
//! connection's own requests wait ([`Flow::Hold`]) and while the client does not take its answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::config::FourLetterWord;
use crate::ids::ConnId;
use crate::pipeline::{Flow, ServerCnxn, Waker, ZkServer};

use super::clock;
use super::core::CoreSender;
use super::status::StatusSource;

/// How often connections without a session are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const READ_CHUNK: usize = 16 << 10;
/// A client that does not take its answers for this long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The open client port.
pub(super) struct ClientPort {
    pub(super) server: Arc<ZkServer>,
    pub(super) core: CoreSender,
    pub(super) status: Arc<StatusSource>,
    pub(super) next_conn: AtomicU64,
}

/// Wakes the task of one connection.
struct TaskWaker(Notify);

impl Waker for TaskWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

impl ClientPort {
    /// Serves the clients of `listener` for as long as the process lives.
    pub(super) fn serve(self: Arc<Self>, listener: TcpListener) {
        let sweeping = Arc::clone(&self.server);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_EVERY);
            loop {
                ticks.tick().await;
                sweeping.sweep(clock::now().instant);
            }
        });
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => self.adopt(stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "accepting on the client port failed; trying again");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
    }

    fn adopt(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let conn = ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed));
        let waker = Arc::new(TaskWaker(Notify::new()));
        let opened = self.server.open(
            conn,
            peer.ip(),
            Arc::clone(&waker) as Arc<dyn Waker>,
            clock::now().instant,
        );
        let cnxn = match opened {
            Ok(cnxn) => cnxn,
            Err(refusal) => {
                tracing::warn!(%peer, %refusal, "client refused; maxClientCnxns and maxCnxns set the limits");
                return;
            }
        };
        self.status.note_peer(conn, peer);
        let port = Arc::clone(self);
        tokio::spawn(async move {
            let task = Task {
                port: &port,
                cnxn: &cnxn,
                waker: &waker,
                stream,
                input: BytesMut::new(),
            };
            task.run().await;
            if let Some(fault) = cnxn.take_fault() {
                if fault.is_ordinary() {
                    tracing::debug!(%peer, "client connection closed: {fault}");
                } else {
                    tracing::warn!(%peer, "client connection closed: {fault}");
                }
            }
            port.server.close(conn);
            port.status.forget_peer(conn);
        });
    }
}

struct Task<'a> {
    port: &'a ClientPort,
    cnxn: &'a ServerCnxn,
    waker: &'a TaskWaker,
    stream: TcpStream,
    input: BytesMut,
}

impl Task<'_> {
    async fn run(mut self) {
        // A failed socket option costs latency, not correctness.
        let _ = self.stream.set_nodelay(true);
        let mut out = Vec::new();
        let mut submits = Vec::new();
        let mut flow = Flow::Read;
        loop {
            let reads = flow == Flow::Read;
            if reads {
                self.input.reserve(READ_CHUNK);
            }
            tokio::select! {
                read = self.stream.read_buf(&mut self.input), if reads => {
                    match read {
                        Ok(count) if count > 0 => {
                            let metrics = self.port.server.metrics();
                            metrics.bytes_received_count.add(count as u64);
                        }
                        _ => return,
                    }
                }
                () = self.waker.0.notified() => {}
            }
            // Output makes room for held requests, and requests make output: go round until both rest.
            loop {
                flow = self.cnxn.on_bytes(
                    &self.port.server,
                    &mut self.input,
                    clock::now(),
                    &mut submits,
                );
                if !submits.is_empty() {
                    self.port.core.submit(std::mem::take(&mut submits));
                }
                if let Flow::FourLetter(word) = flow {
                    self.four_letter(word).await;
                    return;
                }
                let state = self.cnxn.take_output(&mut out);
                let wrote = !out.is_empty();
                if wrote && self.write(&mut out).await.is_err() {
                    return;
                }
                if state.close {
                    self.finish().await;
                    return;
                }
                if !wrote || flow != Flow::Hold {
                    break;
                }
            }
        }
    }

    async fn write(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.port
            .server
            .metrics()
            .response_bytes
            .add(out.len() as u64);
        let written = tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_all(out)).await;
        out.clear();
        match written {
            Ok(result) => result,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    async fn four_letter(&mut self, word: FourLetterWord) {
        let answer = self.port.status.answer(word).await;
        if self.stream.write_all(answer.as_bytes()).await.is_ok() {
            self.finish().await;
        }
    }

    /// Ends the stream in order: what was written must not be cut off by unread input (a reset).
    async fn finish(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 512];
        let drain =
            async { while matches!(self.stream.read(&mut rest).await, Ok(count) if count > 0) {} };
        let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
    }
}
