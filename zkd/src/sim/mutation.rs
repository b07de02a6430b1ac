//! Bugs planted on purpose, to see that the checkers find them.
//!
//! They sit in the driver, where a runtime could get it wrong in the same way; the product has no switch.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// None: the servers as they are.
    None,
    /// What must wait for the sync leaves before it.
    AckBeforeSync,
    /// The log is written and never synced.
    NoSync,
    /// Half of the voters, rounded down, count as a quorum.
    QuorumTooSmall,
    /// The promise not to follow an older leader is not stored.
    ForgetAcceptedEpoch,
    /// currentEpoch reaches the disk before the history that belongs to it.
    EpochBeforeHistory,
    /// A leader's txn is applied and answered when it is proposed.
    ReplyBeforeCommit,
    /// Now and then a watch event is not sent.
    LostWatchEvent,
    /// A snapshot claims the txn behind its own.
    SnapshotOffByOne,
    /// A TRUNC leaves one txn too many.
    TruncOffByOne,
    /// Directories are never synced, so new files may be gone.
    NoDirectorySync,
    /// A sync is answered at once, without asking the leader.
    LocalSync,
}

impl Mutation {
    /// All of them but [`Self::None`].
    pub const ALL: [Self; 11] = [
        Self::AckBeforeSync,
        Self::NoSync,
        Self::QuorumTooSmall,
        Self::ForgetAcceptedEpoch,
        Self::EpochBeforeHistory,
        Self::ReplyBeforeCommit,
        Self::LostWatchEvent,
        Self::SnapshotOffByOne,
        Self::TruncOffByOne,
        Self::NoDirectorySync,
        Self::LocalSync,
    ];
}
