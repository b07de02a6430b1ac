//! The identifiers every floor speaks of, each a type of its own.
//!
//! Law kept here: no bare integer crosses a module border where one of these is meant, and
//! rollover rules live beside the type they belong to. Counterpart: `ZxidUtils`, `Vote`, and the
//! `long`s scattered through Apache ZooKeeper.

use std::fmt;

/// The epoch of a leader's reign; the high 32 bits of every zxid it proposes.
///
/// Kept as `i64` because Apache stores it as a decimal `long` in `acceptedEpoch` and
/// `currentEpoch`; on the wire it is 32 bits. `-1` means "none yet".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub i64);

impl Epoch {
    /// "No epoch": what a server reports that has never accepted one.
    pub const NONE: Self = Self(-1);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A ZooKeeper transaction id: `epoch << 32 | counter`, ordered as a signed 64-bit number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub i64);

impl Zxid {
    /// The zxid of an empty database.
    pub const ZERO: Self = Self(0);
    /// What a server without a usable database votes with (it abstains), and the zxid of packets
    /// that carry none.
    pub const NONE: Self = Self(-1);
    /// The last counter of an epoch. Proposing beyond it would run into the epoch bits
    /// (ZOOKEEPER-1277), so the leader steps down before.
    pub const COUNTER_MAX: u32 = u32::MAX;

    /// The zxid of `counter` in `epoch`.
    #[must_use]
    pub fn new(epoch: Epoch, counter: u32) -> Self {
        Self((epoch.0 << 32) | i64::from(counter))
    }

    /// The epoch part (arithmetic shift, as in Apache).
    #[must_use]
    pub fn epoch(self) -> Epoch {
        Epoch(self.0 >> 32)
    }

    /// The counter part.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the low 32 bits are what is meant"
    )]
    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The next zxid of the same epoch, or `None` when the counter is used up.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (self.counter() != Self::COUNTER_MAX).then_some(Self(self.0 + 1))
    }

    /// Whether `self` may directly follow `previous` in a history: the next counter of the same
    /// epoch, or the first of a later one (ZOOKEEPER-4925; Apache 3.9.4 aborts otherwise).
    #[must_use]
    pub fn follows(self, previous: Self) -> bool {
        if self.epoch() == previous.epoch() {
            previous.next() == Some(self)
        } else {
            self.epoch() > previous.epoch()
        }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// `myid`: the number of a server of the ensemble. Ordered as a signed 64-bit number in elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub i64);

impl ServerId {
    /// What an observer or a non-member puts in place of its id when it votes (`Long.MIN_VALUE`).
    pub const NONE: Self = Self(i64::MIN);
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A client session. The high byte names the server that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

impl SessionId {
    /// "No session": what a new client sends, and what an expired one is answered with.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// The client's own number of a request (`xid` on the client port, `cxid` in a txn header).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Xid(pub i32);

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A client connection of this process; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A connection on the quorum port of this process; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxid_parts_and_rollover() {
        let z = Zxid::new(Epoch(3), 7);
        assert_eq!(z.0, 0x3_0000_0007);
        assert_eq!((z.epoch(), z.counter()), (Epoch(3), 7));
        assert_eq!(
            Zxid::new(Epoch(3), u32::MAX).next(),
            None,
            "the counter must not run into the epoch"
        );
        assert_eq!(Zxid::NONE.epoch(), Epoch(-1));
    }

    #[test]
    fn contiguity_is_next_counter_or_later_epoch() {
        let z = Zxid::new(Epoch(1), 5);
        assert!(Zxid::new(Epoch(1), 6).follows(z));
        assert!(Zxid::new(Epoch(2), 1).follows(z));
        assert!(!Zxid::new(Epoch(1), 7).follows(z));
        assert!(!z.follows(z));
        assert!(!Zxid::new(Epoch(0), 9).follows(z));
    }
}
