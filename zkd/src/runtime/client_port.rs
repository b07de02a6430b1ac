//! The client port: one task for each connection.
//!
//! The tasks run on the thread of the core, or where there are processors to spare on client threads beside it: on
//! two processors a request that changes threads twice costs more than the second thread brings.
//!
//! The task reads what came, lets [`ServerCnxn`] answer in place what can be answered in place, hands the
//! rest to the core, and writes whatever has gathered in one system call. It stops reading while the
//! connection's own requests wait ([`Flow::Hold`]) and while the client does not take its answers.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::ready;
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
/// The room below which the next read gets a new piece of memory.
const READ_MIN: usize = 2 << 10;
/// An output buffer that grew beyond this is given back once it is empty.
const OUTPUT_KEPT: usize = 64 << 10;
/// A client that does not take its answers for this long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The open client port.
pub(super) struct ClientPort {
    pub(super) server: Arc<ZkServer>,
    pub(super) core: CoreSender,
    pub(super) status: Arc<StatusSource>,
    pub(super) next_conn: AtomicU64,
    pub(super) threads: ClientThreads,
}

/// The threads that serve clients beside the core's own; there may be none.
#[derive(Default)]
pub(super) struct ClientThreads {
    threads: Vec<ClientThread>,
}

struct ClientThread {
    handle: tokio::runtime::Handle,
    /// Connections that it serves.
    serving: Arc<AtomicUsize>,
}

impl ClientThreads {
    /// Starts so many threads; they end with the process.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn start(count: usize) -> std::io::Result<Self> {
        let start = |_| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("clients".to_owned())
                .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
            Ok(ClientThread {
                handle,
                serving: Arc::default(),
            })
        };
        let threads = (0..count).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { threads })
    }

    /// Runs what `serve` makes of the stream on the thread with the fewest connections.
    fn spawn<F>(&self, stream: TcpStream, serve: impl FnOnce(TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let load = |thread: &&ClientThread| thread.serving.load(Ordering::Relaxed);
        let Some(thread) = self.threads.iter().min_by_key(load) else {
            tokio::spawn(serve(stream));
            return;
        };
        let serving = Arc::clone(&thread.serving);
        serving.fetch_add(1, Ordering::Relaxed);
        thread.handle.spawn(async move {
            // A stream belongs to the thread that waits for it.
            match stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "a connection could not change threads"),
            }
            serving.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Reads what is there. Memory for it is taken only once there is something.
async fn read_some(stream: &mut TcpStream, input: &mut BytesMut) -> std::io::Result<usize> {
    poll_fn(|cx| {
        ready!(stream.poll_read_ready(cx))?;
        if input.capacity() - input.len() < READ_MIN {
            input.reserve(READ_CHUNK);
        }
        pin!(stream.read_buf(input)).poll(cx)
    })
    .await
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
        self.threads.spawn(stream, move |stream| async move {
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
        let mut core = &self.port.core;
        let mut flow = Flow::Read;
        loop {
            let reads = flow == Flow::Read;
            tokio::select! {
                read = read_some(&mut self.stream, &mut self.input), if reads => {
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
                flow =
                    self.cnxn
                        .on_bytes(&self.port.server, &mut self.input, clock::now(), &mut core);
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
            if self.input.is_empty() {
                // Thousands of idle clients must not hold a buffer each.
                self.input = BytesMut::new();
            }
        }
    }

    async fn write(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.port
            .server
            .metrics()
            .response_bytes
            .add(out.len() as u64);
        // Most of the time the socket takes everything at once, and no timer is needed.
        let sent = match self.stream.try_write(out) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent < out.len() {
            let rest = self.stream.write_all(&out[sent..]);
            let written = tokio::time::timeout(WRITE_TIMEOUT, rest).await;
            written.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
        }
        out.clear();
        out.shrink_to(OUTPUT_KEPT);
        Ok(())
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
