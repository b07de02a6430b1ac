//! Signs of life, collected without a lock per request.
//!
//! Every connection has a [`TouchCell`]; a request stores the time in it, and only the first one after a
//! drain also enters the cell into the [`TouchTable`]'s list. The core drains the table before it judges
//! deadlines (leader) or answers a ping of the leader (learner).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::ids::SessionId;
use crate::time::Instant;

/// The last sign of life of one session's connection.
#[derive(Debug, Default)]
pub struct TouchCell {
    session: AtomicI64,
    timeout_ms: AtomicI32,
    at: AtomicU64,
    listed: AtomicBool,
}

impl TouchCell {
    /// Says whose life the cell tells of, before the first touch.
    pub fn assign(&self, session: SessionId, timeout_ms: i32) {
        self.session.store(session.0, Ordering::Relaxed);
        self.timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }

    /// When it was last touched.
    #[must_use]
    pub fn last(&self) -> Instant {
        Instant(self.at.load(Ordering::Acquire))
    }
}

/// The cells touched since the last drain.
#[derive(Debug, Default)]
pub struct TouchTable {
    listed: Mutex<Vec<Arc<TouchCell>>>,
}

impl TouchTable {
    /// Notes a sign of life at `now`.
    pub fn touch(&self, cell: &Arc<TouchCell>, now: Instant) {
        cell.at.store(now.0, Ordering::Release);
        if !cell.listed.swap(true, Ordering::AcqRel) {
            self.listed.lock().push(Arc::clone(cell));
        }
    }

    /// Hands every session touched since the last drain to `each`: session, its timeout in ms, and when.
    /// The order is that of the first touches.
    pub fn drain(&self, mut each: impl FnMut(SessionId, i32, Instant)) {
        let cells = std::mem::take(&mut *self.listed.lock());
        for cell in cells {
            // Unlisted before the time is read: a touch from now on enters the list again.
            cell.listed.store(false, Ordering::SeqCst);
            each(
                SessionId(cell.session.load(Ordering::Relaxed)),
                cell.timeout_ms.load(Ordering::Relaxed),
                Instant(cell.at.load(Ordering::Acquire)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_gives_each_touched_session_once_with_its_last_touch() {
        let table = TouchTable::default();
        let cells: Vec<_> = (1..=2)
            .map(|id| {
                let cell = Arc::new(TouchCell::default());
                cell.assign(SessionId(id), 1000);
                cell
            })
            .collect();
        table.touch(&cells[1], Instant(5));
        table.touch(&cells[0], Instant(6));
        table.touch(&cells[1], Instant(7));
        let drain = || {
            let mut seen = Vec::new();
            table.drain(|session, timeout, at| seen.push((session.0, timeout, at.0)));
            seen
        };
        assert_eq!(drain(), [(2, 1000, 7), (1, 1000, 6)]);
        assert_eq!(drain(), []);
        table.touch(&cells[0], Instant(9));
        assert_eq!(drain(), [(1, 1000, 9)]);
    }
}
