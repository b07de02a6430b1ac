//! What the server counts about its clients; the source of `srvr`, `stat`, `mntr` and `cons`.

use std::net::IpAddr;

use crate::ids::{ConnId, SessionId, Xid, Zxid};
use crate::time::Instant;

/// How long requests took from their arrival to their answer, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The fastest; 0 if there was none.
    pub min_ms: u64,
    /// The slowest.
    pub max_ms: u64,
    /// All together.
    pub total_ms: u64,
    /// How many.
    pub count: u64,
}

impl Latency {
    /// Adds `count` requests that each took `ms`.
    pub fn add(&mut self, ms: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.min_ms = if self.count == 0 {
            ms
        } else {
            self.min_ms.min(ms)
        };
        self.max_ms = self.max_ms.max(ms);
        self.total_ms += ms * count;
        self.count += count;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min_ms = if self.count == 0 {
            other.min_ms
        } else {
            self.min_ms.min(other.min_ms)
        };
        self.max_ms = self.max_ms.max(other.max_ms);
        self.total_ms += other.total_ms;
        self.count += other.count;
    }

    /// The mean in ms.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a mean for people, shown with four digits"
    )]
    pub fn avg_ms(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.total_ms as f64 / self.count as f64
        }
    }
}

/// Counts of the whole server, since its start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Frames from clients.
    pub packets_received: u64,
    /// Frames to clients.
    pub packets_sent: u64,
    /// Requests that wait for their answer now.
    pub outstanding: u64,
    /// Connections open now.
    pub connections: u64,
    /// How long requests took.
    pub latency: Latency,
}

/// What `cons` tells of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionStats {
    /// The connection.
    pub id: ConnId,
    /// The client's address.
    pub peer: IpAddr,
    /// Its session, 0 before there is one.
    pub session: SessionId,
    /// The negotiated timeout in ms.
    pub timeout_ms: i32,
    /// When it was accepted.
    pub established: Instant,
    /// When it last gave a sign of life.
    pub last_touch: Instant,
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Requests that wait for their answer now.
    pub queued: usize,
    /// Opcode number of the last request answered, if there was one.
    pub last_op: Option<i32>,
    /// Its xid.
    pub last_cxid: Xid,
    /// The zxid it was answered with.
    pub last_zxid: Zxid,
    /// When it was answered.
    pub last_response: Instant,
    /// How long it took in ms.
    pub last_latency_ms: u64,
    /// How long all took.
    pub latency: Latency,
}
