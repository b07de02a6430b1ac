//! The request-processor chain as functions: from a client's bytes to a txn, and from a committed txn to
//! the client's answer.
//!
//! - [`ServerCnxn`]: one client connection without its socket. It parses frames, answers reads in place,
//!   and gives everything that needs the leader to its driver as a [`Submit`].
//! - [`Prep`]: on the leader, a [`Request`] becomes a txn, judged against the tree and all txns that are
//!   on their way (outstanding changes).
//! - [`ZkServer`]: what all connections share; [`ZkServer::apply`] takes committed txns into the tree,
//!   sends watch events, then answers.
//!
//! Lock order: tree, registry of connections, lane of one connection, then the leaves (watches, touches,
//! statistics). A connection's task holds the tree's read side and its own lane; the core, applying,
//! holds the tree's write side. So no read overlaps a write, an event is in a connection's buffer before
//! any reply that shows the new state, and a watch is never missed between a read and its registration.
//!
//! Behaviour is that of Apache 3.9.5 where versions differ. Counterpart: `PrepRequestProcessor`,
//! `FinalRequestProcessor`, `CommitProcessor`, `ZooKeeperServer`, `NIOServerCnxn`.

mod connection;
mod lane;
mod load;
mod prep;
mod read;
mod reply;
mod server;
mod stats;

use bytes::Bytes;

use crate::auth::{AuthConfig, Ids};
use crate::ids::{LinkId, ServerId, SessionId, Xid};
use crate::record::opcode::OpCode;
use crate::record::txn::TxnRecord;
use crate::session::Owner;

pub use connection::{Fault, Flow, OutState, ServerCnxn};
pub use prep::{Prep, PrepOptions};
pub use server::{Refusal, ZkServer};
pub use stats::{ConnectionStats, Latency, ServerStats};

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of this server.
    Local,
    /// A client of a learner, through its connection.
    Learner(LinkId),
    /// This server itself: an expired session, a reaped container.
    Server,
}

/// A request that the leader has to order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The session that asks.
    pub session: SessionId,
    /// The client's number; 0 when a server asks.
    pub cxid: Xid,
    /// What is asked: a write, or [`OpCode::Sync`].
    pub op: OpCode,
    /// The request record as the client sent it. createSession: the timeout as 4 bytes; closeSession:
    /// empty.
    pub payload: Bytes,
    /// The client's identities when it asked.
    pub ids: Ids,
    /// Where it comes from.
    pub origin: Origin,
}

impl Request {
    /// Through whom the session talks.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self.origin {
            Origin::Learner(link) => Owner::Link(link),
            Origin::Local | Origin::Server => Owner::Local,
        }
    }

    /// The server's own request to end a session whose time is over.
    #[must_use]
    pub fn expire(session: SessionId) -> Self {
        Self {
            session,
            cxid: Xid(0),
            op: OpCode::CloseSession,
            payload: Bytes::new(),
            ids: Ids::from([]),
            origin: Origin::Server,
        }
    }

    /// The server's own request to delete an empty container or a TTL node whose time is over.
    #[must_use]
    pub fn reap(path: &str) -> Self {
        let mut payload = Vec::with_capacity(4 + path.len());
        crate::jute::Writer::new(&mut payload).string(path);
        Self {
            session: SessionId::NONE,
            cxid: Xid(0),
            op: OpCode::DeleteContainer,
            payload: payload.into(),
            ids: Ids::from([]),
            origin: Origin::Server,
        }
    }
}

/// What a connection needs from the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submit {
    /// Order this; it comes back as [`Delivery::Txn`], or [`Delivery::SyncDone`] for a sync.
    Request(Request),
    /// A client came back with a session: ask the leader whether it lives (a leader or standalone server
    /// asks its own tracker: [`crate::session::SessionTracker::reattach`]). Comes back as
    /// [`Delivery::Revalidated`].
    Revalidate {
        /// The session.
        session: SessionId,
        /// The timeout that was negotiated now, ms.
        timeout_ms: i32,
    },
}

/// What the core gives to [`ZkServer::apply`], in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A committed txn.
    Txn(TxnRecord),
    /// Everything proposed before this sync has been delivered.
    SyncDone {
        /// Who asked.
        session: SessionId,
        /// The client's number.
        cxid: Xid,
    },
    /// The answer to [`Submit::Revalidate`].
    Revalidated {
        /// The session.
        session: SessionId,
        /// Does it live?
        valid: bool,
    },
}

/// Called when a connection has output, or may be read from again: its driver should look at it. Must
/// not call back into the pipeline.
pub trait Waker: Send + Sync {
    /// Look at the connection soon.
    fn wake(&self);
}

/// What the operator configured about serving clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Names this server in the session ids it hands out; 1 standalone.
    pub server_id: ServerId,
    /// Shortest session timeout granted, ms.
    pub min_session_timeout_ms: i32,
    /// Longest session timeout granted, ms.
    pub max_session_timeout_ms: i32,
    /// Largest frame accepted (`jute.maxbuffer`), bytes; one more closes the connection.
    pub jute_max_buffer: usize,
    /// Connections per address, 0 = no limit; one more is closed at once.
    pub max_client_cnxns: u32,
    /// Connections altogether, 0 = no limit.
    pub max_cnxns: u32,
    /// When this many requests are waiting, a connection that has more than its share of them is not read from.
    pub global_outstanding_limit: usize,
    /// A connection without a session is closed after this many ms.
    pub sessionless_timeout_ms: u64,
    /// Identities and permissions.
    pub auth: AuthConfig,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            server_id: ServerId(1),
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 60_000,
            jute_max_buffer: 0xf_ffff,
            max_client_cnxns: 60,
            max_cnxns: 0,
            global_outstanding_limit: 1000,
            sessionless_timeout_ms: 10_000,
            auth: AuthConfig::default(),
        }
    }
}
