//! How many requests wait, and who may have how many of them: `globalOutstandingLimit`.
//!
//! Law kept here: a lane with nothing on its way is always read, for nothing would wake it.
//!
//! The room is shared. Were there no shares, whoever is woken first after a batch of commits would take all of it,
//! every time, and the others would get one request through in each round: with 256 clients of 64 writes the 99th
//! percentile of the latency was nine times the mean. Apache has no shares. Where so many ask that a share would be
//! a few requests, each may have [`GROUP`] all the same, as long as they are small: one at a time each of them costs
//! a wake-up and two system calls, which halved the rate of such clients.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Small requests that any connection may have on its way, unless the whole limit is less.
const GROUP: usize = 16;
/// What small is, in bytes: a group of them is 64 KiB at the most, where one large request may be a MiB.
const SMALL: usize = 4 << 10;

/// What one lane adds to the load of its server.
#[derive(Clone, Copy)]
pub(super) struct LaneLoad {
    /// Requests that wait.
    pub(super) pending: usize,
    /// More have come, and are not read for the sake of the limit.
    pub(super) held: bool,
}

impl LaneLoad {
    fn busy(self) -> usize {
        usize::from(self.pending > 0 || self.held)
    }
}

/// What waits in all lanes of a server.
#[derive(Default)]
pub(super) struct Load {
    outstanding: AtomicUsize,
    /// Lanes that have requests, or would have.
    busy: AtomicUsize,
    /// Lanes that would have more.
    held: AtomicUsize,
}

impl Load {
    /// Requests that wait.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// A lane has changed.
    pub(super) fn change(&self, before: LaneLoad, after: LaneLoad) {
        let change = |counter: &AtomicUsize, before: usize, after: usize| {
            if after > before {
                counter.fetch_add(after - before, Ordering::Relaxed);
            } else if after < before {
                counter.fetch_sub(before - after, Ordering::Relaxed);
            }
        };
        change(&self.outstanding, before.pending, after.pending);
        change(&self.busy, before.busy(), after.busy());
        change(&self.held, before.held.into(), after.held.into());
    }

    /// Whether a lane with `waiting` requests must not have another one, of so many bytes: there are as many as
    /// `limit` allows, or somebody else waits for room, and it has its share. `counted` is what is counted of it
    /// here.
    pub(super) fn is_full_for(
        &self,
        waiting: usize,
        bytes: usize,
        counted: LaneLoad,
        limit: usize,
    ) -> bool {
        if waiting == 0 {
            return false;
        }
        let over = self.outstanding() + (waiting - counted.pending) > limit;
        let others_wait = self.held.load(Ordering::Relaxed) > usize::from(counted.held);
        let busy = self.busy.load(Ordering::Relaxed) + 1 - counted.busy();
        let group = if bytes <= SMALL { GROUP.min(limit) } else { 0 };
        (over || others_wait) && waiting >= group.max(limit / busy)
    }
}
