//! One connection in use: notifications in and out until it ends.
//!
//! Counterpart: `QuorumCnxManager.SendWorker` and `RecvWorker`.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{ElectionEvent, RETIREMENT, Shared, is_silence};
use crate::election::Notification;
use crate::ids::ServerId;

/// Longest notification.
const FRAME_LENGTH_MAX: i32 = 524_288;
/// Notifications are a few hundred bytes.
const READ_BUFFER_LENGTH: usize = 1024;

/// What a connection is told by the port.
pub(super) struct Ends {
    pub(super) sid: ServerId,
    pub(super) generation: u64,
    pub(super) wake: Arc<Notify>,
    pub(super) retire: Arc<Notify>,
}

/// Why a connection ended.
enum End {
    /// The peer closed it between two notifications.
    Closed,
    /// It broke, or the peer closed it inside a notification.
    Io(io::Error),
    /// A notification cannot be that long.
    Length(i32),
    /// A newer connection is in use.
    Replaced,
    /// This server goes down.
    PortClosed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the peer closed it"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Length(length) => write!(f, "a notification of {length} bytes"),
            Self::Replaced => write!(f, "a newer one is in use"),
            Self::PortClosed => write!(f, "this server goes down"),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Runs a connection to its end, and tells if it was the one in use.
pub(super) async fn run(shared: Arc<Shared>, ends: Ends, stream: TcpStream) {
    let (input, output) = stream.into_split();
    let sid = ends.sid;
    let end = tokio::select! {
        end = read(&shared, sid, input) => end,
        end = write(&shared, &ends, output) => end,
        end = retired(&ends) => end,
        end = closed(&shared) => end,
    };
    let in_use = shared.forget(sid, ends.generation);
    if let End::Length(_) = end {
        warn!(%sid, reason = %end, "election connection closed");
    } else {
        info!(%sid, reason = %end, "election connection ended");
    }
    if in_use {
        shared.tell(ElectionEvent::Unreachable(sid)).await;
        if matches!(&end, End::Io(error) if is_silence(error)) {
            Shared::on_silence(&shared, sid);
        }
    }
}

/// What is still under way on a replaced connection is read, then it is closed.
async fn retired(ends: &Ends) -> End {
    ends.retire.notified().await;
    tokio::time::sleep(RETIREMENT).await;
    End::Replaced
}

/// The port is dropped, before or while the connection is in use.
async fn closed(shared: &Shared) -> End {
    // The sender lives as long as `shared`: the wait cannot fail.
    let _ = shared
        .closing
        .subscribe()
        .wait_for(|closing| *closing)
        .await;
    End::PortClosed
}

async fn write(shared: &Shared, ends: &Ends, mut output: OwnedWriteHalf) -> End {
    loop {
        while let Some(frame) = shared.take_frame(ends.sid, ends.generation) {
            if let Err(error) = output.write_all(&frame).await {
                return error.into();
            }
        }
        ends.wake.notified().await;
    }
}

async fn read(shared: &Shared, from: ServerId, input: OwnedReadHalf) -> End {
    let mut input = BufReader::with_capacity(READ_BUFFER_LENGTH, input);
    let mut payload = Vec::new();
    let mut complained = false;
    loop {
        if let Err(end) = read_frame(&mut input, &mut payload).await {
            return end;
        }
        match Notification::decode(&payload) {
            Ok(notification) => {
                let event = ElectionEvent::Notification { from, notification };
                shared.tell(event).await;
            }
            // Skipped, as in Apache; said once for each connection.
            Err(reason) if !complained => {
                complained = true;
                warn!(sid = %from, %reason, length = payload.len(), "notification skipped");
            }
            Err(_) => {}
        }
    }
}

async fn read_frame(
    input: &mut BufReader<OwnedReadHalf>,
    payload: &mut Vec<u8>,
) -> Result<(), End> {
    let mut length = [0; 4];
    if input.read(&mut length[..1]).await? == 0 {
        return Err(End::Closed);
    }
    input.read_exact(&mut length[1..]).await?;
    let length = i32::from_be_bytes(length);
    if !(1..=FRAME_LENGTH_MAX).contains(&length) {
        return Err(End::Length(length));
    }
    // The buffer grows with what arrives, not with what the length claims.
    payload.clear();
    let length = u64::try_from(length).expect("checked above");
    let got = input.take(length).read_to_end(payload).await?;
    if (got as u64) < length {
        return Err(End::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}
