//! One connection of a client: frames out, and frames in with the time at which each was read.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::{Record, Writer};
use zkd::record::opcode::OpCode;
use zkd::record::proto::{ConnectRequest, RequestHeader};

use crate::clock::now_us;
use crate::probe::session::{SessionError, frame, greet, read_frame};

/// Frames that were read and not yet looked at; the reader waits when there are more.
const FRAMES_MAX: usize = 1024;

/// What a client keeps of its session.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticket {
    pub(super) id: SessionId,
    pub(super) password: Option<Bytes>,
    /// The newest state that it was answered from.
    pub(super) last_zxid: Zxid,
    /// The timeout the server granted.
    pub(super) timeout_ms: u64,
}

/// A connection with a session.
#[derive(Debug)]
pub(super) struct Link {
    writer: OwnedWriteHalf,
    /// Frames as they came, with the time of their last byte; ends when the connection does.
    pub(super) frames: mpsc::Receiver<(u64, Vec<u8>)>,
    reader: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    /// Connects and opens a session, or attaches to the one of the ticket.
    pub(super) async fn open(
        address: SocketAddr,
        ticket: &Ticket,
        wanted: Duration,
        patience: Duration,
    ) -> Result<(Self, Ticket), SessionError> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: ticket.last_zxid,
            timeout_ms: i32::try_from(wanted.as_millis()).unwrap_or(i32::MAX),
            session_id: ticket.id,
            passwd: ticket
                .password
                .clone()
                .or(Some(Bytes::from_static(&[0; 16]))),
            read_only: Some(false),
        };
        let (stream, answer) = greet(address, &request, patience).await?;
        let (mut half, writer) = stream.into_split();
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        let reader = tokio::spawn(async move {
            while let Ok(bytes) = read_frame(&mut half).await {
                if sender.send((now_us(), bytes)).await.is_err() {
                    break;
                }
            }
        });
        let ticket = Ticket {
            id: answer.session_id,
            password: answer.passwd,
            last_zxid: ticket.last_zxid,
            timeout_ms: u64::try_from(answer.timeout_ms).unwrap_or(1),
        };
        Ok((
            Self {
                writer,
                frames,
                reader,
            },
            ticket,
        ))
    }

    /// Sends a request.
    pub(super) async fn send(
        &mut self,
        xid: Xid,
        op: OpCode,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), SessionError> {
        let header = RequestHeader {
            xid,
            kind: op.code(),
        };
        let bytes = frame(|out| {
            header.encode(out);
            body(out);
        });
        Ok(self.writer.write_all(&bytes).await?)
    }
}
