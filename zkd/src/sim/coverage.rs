//! What the runs have gone through: a simulation that never meets a TRUNC proves nothing about TRUNC.

use std::fmt;

use crate::event::{PeerEvent, SyncMode};

macro_rules! coverage {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts of what happened in one run, or in many.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Coverage {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Coverage {
            /// Adds the counts of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            /// Every count with its name.
            #[must_use]
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

coverage! {
    /// Faults that were injected.
    faults,
    /// Txns committed.
    committed,
    /// Writes acknowledged to clients.
    acknowledged,
    /// Epochs established.
    epochs,
    /// Learners synchronized by DIFF.
    diffs,
    /// Learners synchronized by TRUNC.
    truncs,
    /// Learners synchronized by SNAP.
    snaps,
    /// Snapshots written while serving.
    snapshots_taken,
    /// Starts that read a snapshot of an earlier life.
    snapshots_recovered,
    /// Torn log tails repaired at a start.
    torn_tails,
    /// Clients that were told that their session is over.
    expired_sessions,
    /// Sessions attached again.
    reattached_sessions,
    /// Of those, to another server.
    moved_sessions,
    /// Writes refused with SESSIONMOVED.
    moved_refusals,
    /// Watch events that clients received.
    events,
    /// Registrations of watches after a reconnect.
    set_watches,
    /// Syncs after which reads were checked to be fresh.
    fresh_reads,
    /// Servers that stopped because their disk failed.
    disk_stops,
}

impl Coverage {
    /// What a leader or learner says of itself. A synchronization is counted where it is received.
    pub(super) fn on_event(&mut self, server: i64, event: &PeerEvent) {
        if let PeerEvent::Sync { learner, mode, .. } = event
            && *learner == server
        {
            match mode {
                SyncMode::Diff => self.diffs += 1,
                SyncMode::Trunc => self.truncs += 1,
                SyncMode::Snap => self.snaps += 1,
            }
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.counts().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
