//! What those hold who let a load run: how far it is, and the means to end it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The reins of one load; all clones hold the same.
#[derive(Clone, Debug)]
pub struct Reins {
    until: Arc<Mutex<Until>>,
    writes: Arc<AtomicU64>,
}

/// When it ends.
#[derive(Clone, Copy, Debug)]
struct Until {
    at: Instant,
    /// Somebody said so, perhaps before it began.
    is_stopped: bool,
    /// What came before is preparation.
    is_begun: bool,
}

impl Default for Reins {
    fn default() -> Self {
        let until = Until {
            at: Instant::now(),
            is_stopped: false,
            is_begun: false,
        };
        Self {
            until: Arc::new(Mutex::new(until)),
            writes: Arc::default(),
        }
    }
}

impl Reins {
    /// How many writes were acknowledged; those of the preparation do not count.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Ends the load: the clients ask nothing new, and the end state is read.
    pub fn stop(&self) {
        let mut until = self.lock();
        until.at = Instant::now();
        until.is_stopped = true;
    }

    pub(super) fn begin(&self, length: Duration) {
        self.writes.store(0, Ordering::Relaxed);
        let mut until = self.lock();
        until.is_begun = true;
        if !until.is_stopped {
            until.at = Instant::now() + length;
        }
    }

    pub(super) fn until(&self) -> Instant {
        self.lock().at
    }

    pub(super) fn written(&self) {
        if self.lock().is_begun {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Until> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
