//! What a server tells about itself to whoever asks with four letters.
//!
//! Law kept here: plain values in, text out. The driver fills a [`Status`], as far as [`Needs::of`] the word
//! goes, and [`answer`] writes it in the exact shapes that Apache's scrapers, scripts and clients take apart;
//! the tests hold them against transcripts. Nothing here knows a socket, a clock or a file. Counterpart:
//! `server.command` and `ServerStats`.

mod java;
mod monitor;
mod words;

use std::net::SocketAddr;

use crate::config::{Config, FourLetterWord};
use crate::event::SyncMode;
use crate::ids::{ServerId, SessionId, Xid, Zxid};
use crate::metrics::Metrics;
use crate::record::opcode::OpCode;

/// The version of Apache ZooKeeper whose behaviour zkd has, then zkd's own. Clients read the first three
/// numbers and expect a dash behind them.
pub const VERSION: &str = concat!("3.9.5-zkd-", env!("CARGO_PKG_VERSION"));

/// The date of this version, in the form that the Go client's expression takes. It is fixed by hand with the
/// version, so that one source makes one binary.
pub const BUILT_ON: &str = "11/22/2026 00:00 UTC";

/// What the server is, as `Mode:` and `zk_server_state` say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Leads an ensemble.
    Leader,
    /// Follows with a vote.
    Follower,
    /// Follows without a vote.
    Observer,
    /// Serves alone.
    Standalone,
    /// Serves reads, cut off from its ensemble.
    ReadOnly,
}

impl Mode {
    /// Apache's word.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
            Self::Standalone => "standalone",
            Self::ReadOnly => "read-only",
        }
    }
}

/// The phase of Zab, the second part of `zk_peer_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZabPhase {
    /// Looking for a leader.
    Election,
    /// Agreeing on an epoch.
    Discovery,
    /// Bringing learners up to date.
    Synchronization,
    /// Serving.
    Broadcast,
}

impl ZabPhase {
    /// Apache's word.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Election => "election",
            Self::Discovery => "discovery",
            Self::Synchronization => "synchronization",
            Self::Broadcast => "broadcast",
        }
    }
}

/// The server as a member of an ensemble.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// Where it is in Zab.
    pub phase: ZabPhase,
    /// How it is brought up to date, while it is.
    pub sync: Option<SyncMode>,
    /// Servers with a vote.
    pub quorum_size: usize,
    /// An observer that is fed by a follower: which.
    pub observer_master: Option<ServerId>,
}

/// What only a leader knows.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LeaderStatus {
    /// Learners connected.
    pub learners: usize,
    /// Voters among them that are up to date.
    pub synced_followers: usize,
    /// Observers that are up to date.
    pub synced_observers: usize,
    /// Followers outside the membership that are up to date.
    pub synced_non_voting_followers: usize,
    /// `sync` requests that wait for their answer.
    pub pending_syncs: usize,
    /// How long it leads, in ms.
    pub uptime_ms: u64,
    /// Size of the last, the smallest and the largest proposal in bytes; `None` before the first.
    pub proposal_sizes: Option<[u64; 3]>,
}

/// How long requests took, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct LatencyStatus {
    /// The fastest.
    pub min_ms: u64,
    /// The mean.
    pub avg_ms: f64,
    /// The slowest.
    pub max_ms: u64,
}

/// One client connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionStatus {
    /// The client's end.
    pub peer: SocketAddr,
    /// Is it waited for to send more? (Apache's interest in reading, 1 of `interestOps`.)
    pub reading: bool,
    /// Is there output that its socket has not taken? (4 of `interestOps`.)
    pub writing: bool,
    /// Requests without an answer.
    pub queued: u64,
    /// Packets from the client.
    pub received: u64,
    /// Packets to the client.
    pub sent: u64,
    /// When the server will give the connection up, in ms since 1970.
    pub expires_wall_ms: i64,
    /// More, once there is a session.
    pub session: Option<SessionConnection>,
}

/// The session side of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConnection {
    /// The session.
    pub id: SessionId,
    /// The last operation answered.
    pub last_op: Option<OpCode>,
    /// When the connection was accepted, in ms since 1970.
    pub established_wall_ms: i64,
    /// The negotiated timeout, in ms.
    pub timeout_ms: i32,
    /// The client's number of the last request; below 0 before the first.
    pub last_cxid: Xid,
    /// The zxid of the last answer.
    pub last_zxid: Zxid,
    /// When that was, in ms of the server's monotonic clock.
    pub last_response_ms: u64,
    /// How long that request took, in ms.
    pub last_latency_ms: u64,
    /// How long all took.
    pub latency: LatencyStatus,
}

/// One session, for `dump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// The session.
    pub id: SessionId,
    /// Its timeout in ms.
    pub timeout_ms: i32,
    /// When it ends without a sign of life, in ms since 1970. Only who judges sessions knows it: the leader
    /// and a standalone server.
    pub expires_wall_ms: Option<i64>,
}

/// How many watches there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WatchStatus {
    /// Connections that watch.
    pub connections: usize,
    /// Paths that are watched.
    pub paths: usize,
    /// Pairs of both.
    pub watches: usize,
}

/// A server that answers clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// As what.
    pub mode: Mode,
    /// The last txn applied.
    pub zxid: Zxid,
    /// The digest of the tree after it.
    pub tree_digest: i64,
    /// Znodes.
    pub node_count: usize,
    /// Bytes of paths and data.
    pub approximate_data_size: u64,
    /// Ephemeral znodes.
    pub ephemerals_count: usize,
    /// Sessions of the ensemble.
    pub global_sessions: usize,
    /// Sessions of this server alone.
    pub local_sessions: usize,
    /// Watches.
    pub watches: WatchStatus,
    /// How long requests took since the last reset.
    pub latency: LatencyStatus,
    /// Packets from clients since the last reset.
    pub packets_received: u64,
    /// Packets to clients since the last reset.
    pub packets_sent: u64,
    /// Requests without an answer.
    pub outstanding_requests: u64,
    /// Client connections, the asking one included.
    pub connection_count: usize,
    /// How long the server serves in this role, in ms.
    pub uptime_ms: u64,
    /// In an ensemble.
    pub peer: Option<PeerStatus>,
    /// While leading.
    pub leader: Option<LeaderStatus>,
}

/// A server at one moment. What a word does not need (see [`Needs`]) may be left empty.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Status {
    /// What there is to tell while the server answers clients; `None` while it looks for a leader.
    pub serving: Option<Serving>,
    /// Every client connection.
    pub connections: Vec<ConnectionStatus>,
    /// Every session known here.
    pub sessions: Vec<SessionStatus>,
    /// The ephemeral znodes of each session.
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
    /// Who watches each path.
    pub watched: Vec<(String, Vec<SessionId>)>,
    /// The digests kept, with the zxid each belongs to.
    pub digests: Vec<(Zxid, i64)>,
    /// Bytes in the directory of snapshots.
    pub data_dir_bytes: u64,
    /// Bytes in the directory of txn logs.
    pub data_log_dir_bytes: u64,
    /// Files the process has open, if it can be known.
    pub open_files: Option<u64>,
    /// Files the process may open, if it can be known.
    pub open_files_max: Option<u64>,
    /// What `envi` tells after the version: `host.name`, `os.name`, `user.dir` and so on.
    pub environment: Vec<(String, String)>,
}

/// What has to be filled in for a word beyond [`Status::serving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Needs {
    /// [`Status::connections`].
    pub connections: bool,
    /// [`Status::sessions`] and [`Status::ephemerals`].
    pub sessions: bool,
    /// [`Status::watched`].
    pub watched: bool,
    /// [`Status::digests`].
    pub digests: bool,
    /// [`Status::data_dir_bytes`] and [`Status::data_log_dir_bytes`].
    pub dir_sizes: bool,
    /// [`Status::open_files`] and [`Status::open_files_max`].
    pub open_files: bool,
    /// [`Status::environment`].
    pub environment: bool,
}

impl Needs {
    /// What `word` tells.
    #[must_use]
    pub fn of(word: FourLetterWord) -> Self {
        use FourLetterWord as W;
        Self {
            connections: matches!(word, W::Stat | W::Cons | W::Dump),
            sessions: word == W::Dump,
            watched: matches!(word, W::Wchc | W::Wchp),
            digests: word == W::Hash,
            dir_sizes: matches!(word, W::Conf | W::Dirs),
            open_files: word == W::Mntr,
            environment: word == W::Envi,
        }
    }
}

/// What the driver has to do besides sending the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Forget the statistics of the connections (`crst`).
    ResetConnections,
    /// Forget the statistics of the server (`srst`).
    ResetServer,
}

/// The answer to `word`, and what else it asks for. After the answer the connection is closed.
#[must_use]
pub fn answer(
    word: FourLetterWord,
    status: &Status,
    config: &Config,
    metrics: &Metrics,
) -> (String, Effect) {
    if !config.four_letter_whitelist.allows(word) {
        let text = format!("{word} is not executed because it is not in the whitelist.\n");
        return (text, Effect::None);
    }
    words::write(word, status, config, metrics)
}
