//! What a server tells of its own life: the one source for logs, metrics, transcripts and the event
//! feed that a lab reads.
//!
//! An event is said by the machine that knows it (election, zab, peer) and stamped by the driver. The
//! feed is one JSON object a line: `{"v":1,"t_us":…,"sid":…,"event":"state",…}` with `t_us` in
//! microseconds of the system's monotonic clock, so that the feeds of all servers of one machine can be
//! laid over one another. Names are stable; fields are only ever added.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The state of a server in ZooKeeper's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// In an election.
    Looking,
    /// Follows a leader.
    Following,
    /// Leads.
    Leading,
    /// Observes a leader.
    Observing,
    /// Serves alone, without an ensemble.
    Standalone,
}

/// How a learner is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SyncMode {
    /// The txns it lacks.
    Diff,
    /// Cut off what the leader does not have.
    Trunc,
    /// A whole snapshot.
    Snap,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PeerEvent {
    /// The process has read its configuration.
    Starting {
        /// zkd's version.
        version: String,
        /// The process.
        pid: u32,
    },
    /// A port is open.
    Listening {
        /// `client`, `quorum` or `election`.
        port: String,
        /// The address it is bound to.
        address: String,
    },
    /// The database is loaded.
    Recovered {
        /// The last txn found on disk.
        zxid: i64,
        /// Znodes in the tree.
        znodes: u64,
        /// How long it took, in microseconds.
        took_us: u64,
    },
    /// The server changed its state.
    State {
        /// The new state.
        state: ServerState,
        /// Why.
        reason: String,
    },
    /// The server votes, or changes its vote, in an election.
    Vote {
        /// The election round (logical clock).
        round: i64,
        /// Whom it votes for.
        leader: i64,
        /// The zxid in the vote.
        zxid: i64,
        /// The epoch in the vote.
        epoch: i64,
    },
    /// The election is over for this server.
    Elected {
        /// The round.
        round: i64,
        /// The leader.
        leader: i64,
        /// Notifications received in this election.
        votes: u64,
        /// Did every reachable voter agree, so that nothing was waited for?
        early: bool,
    },
    /// A leader proposes a new epoch, or a learner accepted it.
    EpochProposed {
        /// The epoch.
        epoch: i64,
    },
    /// A quorum accepted the epoch (leader), or the learner stored it as its current one.
    EpochEstablished {
        /// The epoch.
        epoch: i64,
    },
    /// A synchronization was decided (leader: `learner` is the other side; learner: its own id).
    Sync {
        /// The learner.
        learner: i64,
        /// How.
        mode: SyncMode,
        /// From this zxid (the learner's last).
        from: i64,
        /// To this zxid.
        to: i64,
    },
    /// A quorum acknowledged NEWLEADER.
    Established {
        /// The epoch.
        epoch: i64,
    },
    /// The server answers clients from now on: this is readiness.
    Serving {
        /// As what.
        state: ServerState,
        /// The epoch (0 standalone).
        epoch: i64,
        /// Last processed zxid.
        zxid: i64,
    },
    /// The first txn of this epoch was committed here.
    FirstCommit {
        /// Its zxid.
        zxid: i64,
    },
    /// The server left its role.
    SteppedDown {
        /// The state it leaves.
        state: ServerState,
        /// Why.
        reason: String,
    },
    /// The server no longer answers clients.
    NotServing {
        /// Why.
        reason: String,
    },
    /// The process ends.
    Stopping {
        /// Why.
        reason: String,
        /// The exit code it will have.
        code: i32,
    },
}

/// An event as it stands in the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedLine {
    /// Version of this format, 1.
    pub v: u32,
    /// Microseconds of the system's monotonic clock.
    pub t_us: u64,
    /// The server that says it (0 standalone).
    pub sid: i64,
    /// The event.
    #[serde(flatten)]
    pub event: PeerEvent,
}

/// Where the feed is to be written, as `--events` says it: a path, or `fd:N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedTarget {
    /// A file, appended to, or a FIFO.
    Path(PathBuf),
    /// A file descriptor that the parent process left open for it.
    Fd(i32),
}

impl fmt::Display for FeedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Fd(fd) => write!(f, "fd:{fd}"),
        }
    }
}

impl FromStr for FeedTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("fd:") {
            None if text.is_empty() => Err("expected a path, or fd:N".into()),
            None => Ok(Self::Path(text.into())),
            Some(number) => match number.parse() {
                Ok(fd) if fd > 2 => Ok(Self::Fd(fd)),
                _ => Err(format!(
                    "{number:?} is not a descriptor: expected a number above 2, the standard streams"
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feed_targets() {
        assert_eq!("fd:7".parse(), Ok(FeedTarget::Fd(7)));
        assert_eq!("a/b".parse(), Ok(FeedTarget::Path("a/b".into())));
        for text in ["", "fd:", "fd:2", "fd:-1", "fd:x"] {
            assert!(text.parse::<FeedTarget>().is_err(), "{text:?}");
        }
    }
}
