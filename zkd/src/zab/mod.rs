//! Zab: discovery, synchronization and broadcast, as machines.
//!
//! A [`leader::Leader`] and a [`learner::Learner`] take packets, finished writes and passing time in,
//! and hand out a `…Ready`: what the driver must now do, in field order. They touch no socket, file or
//! clock, and they know nothing of znodes: a txn is opaque bytes with a [`Zxid`].
//!
//! The law kept by the types: what promises something about the disk (an ACK, an ACKEPOCH, LEADERINFO,
//! the ACK of NEWLEADER) stands in `send_after_write` and leaves only after the sync of the `write`
//! beside it. Most of the data-loss bugs of ZooKeeper's history (ZOOKEEPER-3023, 3911, 4643, 4646, 4685,
//! 4785) are that one order going wrong: history, then currentEpoch, then the ACK of NEWLEADER.
//!
//! Counterparts: `Leader`, `LearnerHandler`, `Learner`, `Follower`, `Observer` and the TLA+
//! specification of ZooKeeper 3.7, whose actions the handlers cite.

pub mod committed_log;
mod discovery;
mod journal;
pub mod leader;
pub mod learner;
mod learner_handler;
mod learner_sync;
mod proposals;
pub mod sync_plan;
#[cfg(test)]
mod tests;
pub mod wire;

use bytes::Bytes;

use crate::event::PeerEvent;
use crate::ids::{Epoch, LinkId, SessionId, Xid, Zxid};
use crate::record::data::Id;
use crate::record::quorum::QuorumPacket;

/// A txn on its way: its zxid and its bytes (header, body, digest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its place in the order.
    pub zxid: Zxid,
    /// Its bytes; never looked into here.
    pub txn: Bytes,
}

/// One durable change. A batch of them is done in order and ends with one sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Append to the txn log.
    Txn(Proposal),
    /// Cut everything behind this zxid off the log, and load the database again from what is left. If the
    /// log does not hold the txn and no snapshot ends with it, nothing is cut: what it holds may be needed.
    /// The completion brings the loaded database ([`learner::LearnerInput::Truncated`]).
    Truncate(Zxid),
    /// Write the tree as it stands, named after this zxid, and sync it: the end of a SNAP or TRUNC
    /// synchronization. Everything up to the zxid was handed out to be applied by an earlier ready. Once it
    /// is durable, whatever else the disk holds behind this zxid, txns and snapshots, is removed: it is of
    /// another history, and would come back at the next start.
    Snapshot(Zxid),
    /// Store the promise not to follow an older leader.
    AcceptedEpoch(Epoch),
    /// Store the epoch whose leader's history this server has taken over. What stands before it in the
    /// batch must be durable before the file is replaced (ZOOKEEPER-3911, 4643).
    CurrentEpoch(Epoch),
}

/// Names a batch of writes; comes back once the batch is on disk. Marks rise, and batches finish in
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u64);

/// What leaves on a learner's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A packet.
    Packet(QuorumPacket),
    /// A SNAP packet with this zxid, then the tree as it stands when its turn comes (it may be newer
    /// than the zxid: what follows is applied again), then the signature `BenWasHere`.
    Snapshot(Zxid),
}

/// A client's request that a learner forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnerRequest {
    /// From which learner connection.
    pub link: LinkId,
    /// The session.
    pub session: SessionId,
    /// The client's number of the request.
    pub cxid: Xid,
    /// An opcode number, not judged here.
    pub op: i32,
    /// The request record as the client sent it.
    pub payload: Bytes,
    /// The client's identities.
    pub ids: Vec<Id>,
}

/// A learner asks whether a session is alive, because its client reconnected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revalidation {
    /// From which learner connection.
    pub link: LinkId,
    /// The session.
    pub session: SessionId,
    /// The timeout the learner negotiated, ms.
    pub timeout_ms: i32,
}

/// What a learner wants of the leader's request chain. The order in which it is asked is the order in which the learner's
/// clients asked, across all their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To be prepared and proposed.
    Request(LearnerRequest),
    /// To be answered with [`leader::Leader::answer_revalidation`].
    Revalidation(Revalidation),
}

/// What a server brings into a role and takes out of it again: its epochs and its history.
#[derive(Clone, Debug)]
pub struct History {
    /// The newest epoch promised (`acceptedEpoch`).
    pub accepted_epoch: Epoch,
    /// The epoch of the newest leader whose history was taken over (`currentEpoch`).
    /// Invariant: `current_epoch <= accepted_epoch`.
    pub current_epoch: Epoch,
    /// The last txn in the log, committed or not; everything up to it is in the tree while no role is
    /// held. During a role, the last txn handed to the log.
    pub last_zxid: Zxid,
    /// The newest committed txns, for DIFF synchronization.
    pub committed: committed_log::CommittedLog,
}

/// What the driver of a leader must do, in this order.
#[must_use]
#[derive(Debug, Default)]
pub struct LeaderReady {
    /// May leave at once.
    pub send: Vec<(LinkId, Outgoing)>,
    /// To disk, in order, then one sync.
    pub write: Vec<Write>,
    /// Comes back as [`leader::LeaderInput::Wrote`] when that sync is done. Set iff `write` is not empty.
    pub mark: Option<Mark>,
    /// Must not leave before that sync.
    pub send_after_write: Vec<(LinkId, Outgoing)>,
    /// Committed txns to apply, in zxid order, before the next step.
    pub committed: Vec<Proposal>,
    /// Local syncs that are done once `committed` is applied.
    pub synced: Vec<(SessionId, Xid)>,
    /// For each of them how many of `committed` come before it.
    pub synced_after: Vec<usize>,
    /// Sessions that learners heard of since their last ping, with their timeouts in ms.
    pub touched: Vec<(SessionId, i32)>,
    /// Connections to close.
    pub close: Vec<LinkId>,
    /// What an operator should find in the log: why a connection was closed, what was ignored.
    pub notes: Vec<String>,
    /// What happened.
    pub events: Vec<PeerEvent>,
    /// A quorum acknowledged NEWLEADER: start serving. Said once.
    pub established: bool,
    /// The role is over; nothing but `events` and `close` counts any more.
    pub failed: Option<String>,
}

/// What the driver of a learner must do, in this order.
#[must_use]
#[derive(Debug, Default)]
pub struct LearnerReady {
    /// May leave at once.
    pub send: Vec<QuorumPacket>,
    /// To disk, in order, then one sync.
    pub write: Vec<Write>,
    /// Comes back as [`learner::LearnerInput::Wrote`] (or `Truncated` for a batch that holds a
    /// [`Write::Truncate`], which always stands alone). Set iff `write` is not empty.
    pub mark: Option<Mark>,
    /// Must not leave before that sync.
    pub send_after_write: Vec<QuorumPacket>,
    /// Committed txns to apply, in zxid order, before the next step.
    pub committed: Vec<Proposal>,
    /// How many of the oldest waiting syncs are done once `committed` is applied.
    pub synced: usize,
    /// For each of them how many of `committed` come before it.
    pub synced_after: Vec<usize>,
    /// The leader's answers about sessions.
    pub revalidated: Vec<(SessionId, bool)>,
    /// The leader pinged; answer with [`learner::Learner::answer_ping`] and the sessions heard of.
    pub ping: bool,
    /// What an operator should find in the log: what was ignored.
    pub notes: Vec<String>,
    /// What happened.
    pub events: Vec<PeerEvent>,
    /// UPTODATE came and everything before it is applied: start serving. Said once.
    pub up_to_date: bool,
    /// The role is over; nothing but `events` counts any more.
    pub failed: Option<String>,
    /// The server must stop with this exit code: what the leader sent cannot be reconciled (12: a COMMIT
    /// that is not the oldest proposal; 13: a synchronization that cannot be understood).
    pub fatal: Option<(i32, String)>,
}
