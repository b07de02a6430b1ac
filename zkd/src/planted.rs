//! Bugs planted on purpose, to see that a lab finds them from outside.
//!
//! Without the cargo feature `planted` there is no bug and no switch: [`is`] is the constant `false`, and what asks
//! it is compiled away. With it, which nothing but `scripts/planted` turns on, one bug of `Planted::ALL` can be
//! chosen when the server starts. Those of the simulator are elsewhere (`sim::Mutation`): they sit in its driver.

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Planted {
    /// What must wait for the sync of the log leaves before it.
    AckBeforeSync = 1,
    /// A learner may keep txns of an older epoch that the leader never had.
    StaleEpoch,
    /// What a single disk has is committed.
    CommitWithoutQuorum,
    /// Now and then a watch is used up and nobody is told.
    LostWatch,
    /// Of the ephemerals of a session that ends, the last one stays.
    EphemeralOutlives,
    /// A TRUNC leaves one txn too many.
    TruncOffByOne,
    /// A DIFF leaves out one txn, and the learner does not mind.
    DiffHole,
    /// A write is taken from a server that the session has left.
    SessionMovedUnnoticed,
    /// The operations before the one that stops a multi take place.
    MultiHalf,
    /// One server stamps some znodes with a time of its own, and digests are not compared.
    DigestSkipped,
}

/// Whether this bug was planted.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_bug: Planted) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use self::chosen::{is, plant};

#[cfg(feature = "planted")]
mod chosen {
    use std::sync::atomic::{AtomicU8, Ordering};

    use crate::planted::Planted;

    /// The number of the chosen bug; 0 is none.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    impl Planted {
        /// All of them with their names.
        pub const ALL: [(&'static str, Self); 10] = [
            ("ack-before-sync", Self::AckBeforeSync),
            ("stale-epoch", Self::StaleEpoch),
            ("commit-without-quorum", Self::CommitWithoutQuorum),
            ("lost-watch", Self::LostWatch),
            ("ephemeral-outlives", Self::EphemeralOutlives),
            ("trunc-off-by-one", Self::TruncOffByOne),
            ("diff-hole", Self::DiffHole),
            ("session-moved-unnoticed", Self::SessionMovedUnnoticed),
            ("multi-half", Self::MultiHalf),
            ("digest-skipped", Self::DigestSkipped),
        ];
    }

    /// Whether this bug was planted.
    #[must_use]
    pub fn is(bug: Planted) -> bool {
        CHOSEN.load(Ordering::Relaxed) == bug as u8
    }

    /// Plants the bug of this name from now on.
    ///
    /// # Errors
    /// If there is none; tells the names.
    pub fn plant(name: &str) -> Result<(), String> {
        let found = Planted::ALL.into_iter().find(|(known, _)| *known == name);
        let Some((_, bug)) = found else {
            let names = Planted::ALL.map(|(known, _)| known).join(" ");
            return Err(format!("{name:?} is none of {names}"));
        };
        CHOSEN.store(bug as u8, Ordering::Relaxed);
        Ok(())
    }
}
