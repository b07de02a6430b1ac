//! Links of the quorum port: accepted from learners, or dialled to a leader.
//!
//! Each link has one task. What is to be sent is encoded by the core straight into the link's outgoing
//! buffer, so that whatever gathered while the task was writing leaves in one system call. A link that
//! cannot keep up is cut when its buffer passes [`LINK_BUFFER_MAX`]: a follower so far behind has to
//! synchronize again, and must not take the leader's memory with it. What comes in waits in the core's
//! queue up to [`LINK_INPUT_MAX`]; then the link is not read, and TCP slows the other side down.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::ids::{LinkId, ServerId, Zxid};
use crate::jute::{Record, Writer};
use crate::peer::{Input, LinkDecoder, LinkItem, SNAPSHOT_SIGNATURE};
use crate::pipeline::ZkServer;
use crate::record::quorum::{QuorumPacket, packet};
use crate::tree::SnapshotCursor;
use crate::zab::Outgoing;

use super::core::CoreSender;
use super::net;

/// Bytes that may wait on one link.
const LINK_BUFFER_MAX: usize = 256 << 20;
/// Bytes read at a time, and the room below which a new piece of memory is taken for the next read. Packets are
/// slices of what was read, so the rest of a piece that they hold on to is not read into again.
const READ_CHUNK: usize = 64 << 10;
const READ_MIN: usize = 4 << 10;
/// Bytes of one link that may wait for the core. A larger packet waits alone.
const LINK_INPUT_MAX: usize = 16 << 20;
/// How often the core is told that bytes of a snapshot are coming in. Far below any tick.
const RECEIVING_EVERY: Duration = Duration::from_millis(20);
/// Links that may be open on the quorum port at once: far above any ensemble, far below the descriptors.
const LINKS_MAX: usize = 256;
/// How long a link that is closed here may take to write out what still waits on it.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// Znodes written per turn of a SNAP: the tree's read side is held for one turn.
const SNAPSHOT_CHUNK_NODES: usize = 512;
/// Pauses between dials to a leader that is not there yet, ms.
const DIAL_PAUSES_MS: [u64; 6] = [2, 5, 10, 25, 50, 100];

/// Part of what waits on a link.
enum Segment {
    Bytes(Vec<u8>),
    Snapshot(Zxid),
}

/// The outgoing side of a link.
struct Outbox {
    state: Mutex<OutboxState>,
    /// There is something to write, or the link is to be closed.
    wake: Notify,
    /// The link is to be closed.
    closing: Notify,
}

#[derive(Default)]
struct OutboxState {
    segments: VecDeque<Segment>,
    queued: usize,
    closed: bool,
}

impl Outbox {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            wake: Notify::new(),
            closing: Notify::new(),
        })
    }

    fn push(&self, outgoing: &Outgoing) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        match outgoing {
            Outgoing::Packet(packet) => {
                if !matches!(state.segments.back(), Some(Segment::Bytes(_))) {
                    state.segments.push_back(Segment::Bytes(Vec::new()));
                }
                let Some(Segment::Bytes(bytes)) = state.segments.back_mut() else {
                    unreachable!("a byte segment was just put at the end")
                };
                let before = bytes.len();
                packet.encode(&mut Writer::new(bytes));
                let grown = bytes.len() - before;
                state.queued += grown;
            }
            Outgoing::Snapshot(zxid) => state.segments.push_back(Segment::Snapshot(*zxid)),
        }
        if state.queued > LINK_BUFFER_MAX {
            tracing::warn!(
                bytes = state.queued,
                "a quorum link does not take what is sent; it is cut"
            );
            drop(state);
            self.close();
            return;
        }
        drop(state);
        self.wake.notify_one();
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
        self.closing.notify_one();
    }
}

/// The links that are open, by id.
pub(super) struct Links {
    core: CoreSender,
    server: Arc<ZkServer>,
    outboxes: Arc<Mutex<BTreeMap<LinkId, Arc<Outbox>>>>,
    packet_max: usize,
}

impl Links {
    pub(super) fn new(core: CoreSender, server: Arc<ZkServer>, packet_max: usize) -> Self {
        Self {
            core,
            server,
            outboxes: Arc::default(),
            packet_max,
        }
    }

    /// Sends on a link; one that is gone drops it, and has told so.
    pub(super) fn send(&self, link: LinkId, outgoing: &Outgoing) {
        if let Some(outbox) = self.outboxes.lock().get(&link) {
            outbox.push(outgoing);
        }
    }

    /// Ends a link once what waits on it is written.
    pub(super) fn close(&self, link: LinkId) {
        if let Some(outbox) = self.outboxes.lock().remove(&link) {
            outbox.close();
        }
    }

    /// Takes learners from `listener` for as long as the process lives.
    pub(super) fn accept_from(self: &Arc<Self>, listener: TcpListener) {
        let links = Arc::clone(self);
        tokio::spawn(async move {
            let mut next = 0;
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let link = LinkId(next);
                        next += 1;
                        links.adopt(link, stream, peer, Side::Leader);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting on the quorum port failed; trying again");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
    }

    /// Dials the leader until it answers, the budget is used up, or the link is closed.
    pub(super) fn dial(
        self: &Arc<Self>,
        link: LinkId,
        leader: ServerId,
        at: Vec<(String, u16)>,
        budget: Duration,
    ) {
        let links = Arc::clone(self);
        let outbox = Outbox::new();
        links.outboxes.lock().insert(link, Arc::clone(&outbox));
        tokio::spawn(async move {
            let connecting = dial_until(&at, budget);
            let connected = tokio::select! {
                connected = connecting => connected,
                () = outbox.closing.notified() => return,
            };
            match connected {
                Ok((stream, peer)) => {
                    links.core.peer(Input::LeaderConnected(link));
                    links.run(link, stream, peer, Side::Learner, outbox);
                }
                Err(error) => {
                    links.outboxes.lock().remove(&link);
                    links.core.peer(Input::LeaderClosed(
                        link,
                        format!("server {leader} cannot be reached: {error}"),
                    ));
                }
            }
        });
    }

    fn adopt(self: &Arc<Self>, link: LinkId, stream: TcpStream, peer: SocketAddr, side: Side) {
        let outbox = Outbox::new();
        {
            let mut outboxes = self.outboxes.lock();
            if outboxes.len() >= LINKS_MAX {
                tracing::warn!(%peer, max = LINKS_MAX, "too many connections on the quorum port; this one is closed");
                return;
            }
            outboxes.insert(link, Arc::clone(&outbox));
        }
        self.core.peer(Input::LearnerConnected(link));
        self.run(link, stream, peer, side, outbox);
    }

    fn run(
        self: &Arc<Self>,
        link: LinkId,
        stream: TcpStream,
        peer: SocketAddr,
        side: Side,
        outbox: Arc<Outbox>,
    ) {
        if let Err(error) = net::tune(&stream, net::USER_TIMEOUT) {
            tracing::debug!(%peer, %error, "socket options could not be set");
        }
        let links = Arc::clone(self);
        tokio::spawn(async move {
            let (read, write) = stream.into_split();
            let reading = links.read(link, side, read);
            let writing = links.write_out(link, &outbox, write);
            let end = tokio::select! {
                end = reading => end,
                end = writing => end,
                end = closed_for_good(&outbox) => end,
            };
            links.outboxes.lock().remove(&link);
            links.core.peer(match side {
                Side::Leader => Input::LearnerClosed(link),
                Side::Learner => Input::LeaderClosed(link, end.to_string()),
            });
            match end {
                End::Fault(reason) => tracing::warn!(%peer, "quorum connection closed: {reason}"),
                End::Lost(reason) => tracing::info!(%peer, "quorum connection ended: {reason}"),
                // Whoever closed it has said why.
                End::ClosedHere => tracing::debug!(%peer, "quorum connection closed"),
            }
        });
    }

    async fn read(
        &self,
        link: LinkId,
        side: Side,
        mut read: tokio::net::tcp::OwnedReadHalf,
    ) -> End {
        let mut decoder = LinkDecoder::new(self.packet_max);
        let room = Arc::new(Semaphore::new(LINK_INPUT_MAX));
        // Bytes read since the core was last given something.
        let mut unasked = 0;
        let mut told = Instant::now();
        loop {
            let buffer = decoder.buffer();
            if buffer.capacity() - buffer.len() < READ_MIN {
                buffer.reserve(READ_CHUNK);
            }
            match read.read_buf(buffer).await {
                Ok(0) => return End::Lost("the other side closed it".to_owned()),
                Ok(count) => unasked += count,
                Err(error) => return End::Lost(format!("reading failed: {error}")),
            }
            let mut last = None;
            loop {
                let input = match decoder.next_item() {
                    Ok(Some(item)) => side.input(link, item),
                    Ok(None) => break,
                    Err(error) => Err(format!("what came is no quorum packet: {error}")),
                };
                match input {
                    Ok(input) => {
                        if let Some(before) = last.replace(input) {
                            self.core.peer(before);
                        }
                    }
                    Err(reason) => {
                        last.into_iter().for_each(|input| self.core.peer(input));
                        return End::Fault(reason);
                    }
                }
            }
            if last.is_none() && decoder.in_snapshot() && told.elapsed() >= RECEIVING_EVERY {
                last = Some(Input::LeaderSending(link));
            }
            if let Some(input) = last {
                told = Instant::now();
                let room = room_for(&room, std::mem::take(&mut unasked)).await;
                self.core.limited(input, room);
            }
        }
    }

    /// Writes what gathers in the outbox until the link is closed or breaks.
    async fn write_out(
        &self,
        link: LinkId,
        outbox: &Outbox,
        mut write: tokio::net::tcp::OwnedWriteHalf,
    ) -> End {
        loop {
            let (segment, closed) = {
                let mut state = outbox.state.lock();
                let segment = state.segments.pop_front();
                if let Some(Segment::Bytes(bytes)) = &segment {
                    state.queued -= bytes.len();
                }
                (segment, state.closed)
            };
            let written = match segment {
                Some(Segment::Bytes(bytes)) => write.write_all(&bytes).await,
                Some(Segment::Snapshot(zxid)) => {
                    let written = write_snapshot(&self.server, outbox, zxid, &mut write).await;
                    if written.is_ok() {
                        self.core.peer(Input::SnapshotSent(link));
                    }
                    written
                }
                None if closed => return End::ClosedHere,
                None => {
                    outbox.wake.notified().await;
                    Ok(())
                }
            };
            if let Err(error) = written {
                return End::Lost(format!("writing failed: {error}"));
            }
        }
    }
}

/// Waits until there is room for so many bytes more; all the room there is, if they are more than that.
async fn room_for(room: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    let permits = u32::try_from(bytes.clamp(1, LINK_INPUT_MAX)).expect("the limit fits");
    let room = Arc::clone(room).acquire_many_owned(permits).await;
    room.expect("nobody closes this semaphore")
}

/// Why a link ended.
enum End {
    /// The other side broke the protocol.
    Fault(String),
    /// The other side closed it, or it broke.
    Lost(String),
    /// This server closed it.
    ClosedHere,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(reason) | Self::Lost(reason) => write!(f, "the connection ended: {reason}"),
            Self::ClosedHere => write!(f, "the connection was closed here"),
        }
    }
}

/// Which side of the link this server is.
#[derive(Clone, Copy)]
enum Side {
    Leader,
    Learner,
}

impl Side {
    fn input(self, link: LinkId, item: LinkItem) -> Result<Input, String> {
        match (self, item) {
            (Self::Leader, LinkItem::Packet(packet)) => Ok(Input::LearnerPacket(link, packet)),
            (Self::Leader, LinkItem::Snapshot(..)) => Err("a learner sent a snapshot".to_owned()),
            (Self::Learner, LinkItem::Packet(packet)) => Ok(Input::LeaderPacket(link, packet)),
            (Self::Learner, LinkItem::Snapshot(zxid, tree)) => {
                Ok(Input::LeaderSnapshot(link, zxid, tree))
            }
        }
    }
}

/// Ends a link that was closed here although the other side takes nothing more.
async fn closed_for_good(outbox: &Outbox) -> End {
    outbox.closing.notified().await;
    tokio::time::sleep(CLOSE_GRACE).await;
    End::ClosedHere
}

async fn dial_until(
    at: &[(String, u16)],
    budget: Duration,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    let give_up = tokio::time::Instant::now() + budget;
    let mut pauses = DIAL_PAUSES_MS.iter();
    let mut pause = DIAL_PAUSES_MS[0];
    loop {
        let error = match tokio::time::timeout_at(give_up, net::connect_any(at)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => error,
            Err(_) => std::io::Error::from(std::io::ErrorKind::TimedOut),
        };
        pause = *pauses.next().unwrap_or(&pause);
        if tokio::time::Instant::now() + Duration::from_millis(pause) >= give_up {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Writes the tree as it stands. A role ends its links before the txns that were never committed enter the
/// tree, so a link that is closed must not carry it any further.
async fn write_snapshot(
    server: &ZkServer,
    outbox: &Outbox,
    zxid: Zxid,
    write: &mut tokio::net::tcp::OwnedWriteHalf,
) -> std::io::Result<()> {
    let mut bytes = QuorumPacket::bare(packet::SNAP, zxid).to_vec();
    let mut cursor = SnapshotCursor::new();
    loop {
        let done = {
            let tree = server.tree().read();
            if outbox.state.lock().closed || !cursor.is_of(&tree) {
                return Err(std::io::Error::other("this server no longer leads"));
            }
            cursor.next_chunk(&tree, &mut bytes, SNAPSHOT_CHUNK_NODES)
        };
        write.write_all(&bytes).await?;
        bytes.clear();
        if done {
            break;
        }
    }
    Writer::new(&mut bytes).string(SNAPSHOT_SIGNATURE);
    write.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::super::core::CoreInput;
    use super::*;
    use crate::pipeline::ServerOptions;
    use crate::time::Instant as Time;

    /// A leader's port, and a stream that a learner opened to it.
    async fn link() -> (TcpStream, tokio::sync::mpsc::UnboundedReceiver<CoreInput>) {
        let (core, inputs) = CoreSender::new();
        let server = Arc::new(ZkServer::new(ServerOptions::default(), Time(0)));
        let links = Arc::new(Links::new(core, server, 4 << 20));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let outbox = Outbox::new();
        links.run(LinkId(1), accepted, peer, Side::Learner, outbox);
        (stream, inputs)
    }

    #[tokio::test]
    async fn a_link_that_the_core_does_not_take_from_is_not_read() {
        let (stream, mut inputs) = link().await;
        let packet = QuorumPacket::with(packet::PROPOSAL, Zxid(1), vec![7; 1 << 20]).to_vec();
        let total = 4 * LINK_INPUT_MAX / packet.len();
        let (_, mut write) = stream.into_split();
        let size = packet.len();
        tokio::spawn(async move {
            for _ in 0..total {
                write.write_all(&packet).await.unwrap();
            }
        });
        let mut waiting = VecDeque::new();
        let mut most = 0;
        let mut taken = 0;
        while taken < total {
            let input = inputs.recv().await.unwrap();
            waiting.push_back(input);
            // Everything that can come without anything being taken, comes first.
            while let Ok(Some(more)) =
                tokio::time::timeout(Duration::from_millis(30), inputs.recv()).await
            {
                waiting.push_back(more);
            }
            most = most.max(waiting.len());
            taken += waiting.drain(..).count();
        }
        assert!(
            most * size <= LINK_INPUT_MAX + 2 * size,
            "{most} packets of {size} bytes waited"
        );
    }

    #[tokio::test]
    async fn the_core_hears_of_a_snapshot_that_is_under_way() {
        let (mut stream, mut inputs) = link().await;
        let mut tree = Vec::new();
        let mut cursor = SnapshotCursor::new();
        assert!(cursor.next_chunk(&crate::tree::DataTree::new(), &mut tree, usize::MAX));
        let head = QuorumPacket::bare(packet::SNAP, Zxid(1)).to_vec();
        stream.write_all(&head).await.unwrap();
        for byte in &tree {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(RECEIVING_EVERY / 8).await;
            if let Ok(input) = inputs.try_recv() {
                assert!(matches!(
                    input,
                    CoreInput::Limited(Input::LeaderSending(LinkId(1)), _)
                ));
                return;
            }
        }
        panic!("nothing was told of {} bytes", tree.len());
    }
}
