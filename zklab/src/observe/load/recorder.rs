//! Where all clients of a load write what they did, and what is counted on the way.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use std::sync::Mutex;

use super::reins::Reins;
use crate::observe::history::{Line, OpLine, Outcome};

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
    /// Microseconds of every operation that was answered.
    pub(super) latencies_us: Vec<u32>,
    /// When the last write was acknowledged, and the longest time between two.
    last_write_us: u64,
    pub(super) longest_gap_us: u64,
    /// The history can no longer be written.
    pub(super) error: Option<String>,
}

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    text: String,
    counts: Counts,
}

/// The history being written.
#[derive(Debug)]
pub(super) struct Recorder {
    next_id: AtomicU32,
    reins: Reins,
    state: Mutex<State>,
}

impl Recorder {
    /// Writes to this file, whose header is written; whoever holds the reins sees how it goes.
    pub(super) fn new(file: File, reins: Reins) -> Self {
        Self {
            next_id: AtomicU32::new(1),
            reins,
            state: Mutex::new(State {
                file: BufWriter::with_capacity(1 << 16, file),
                text: String::new(),
                counts: Counts::default(),
            }),
        }
    }

    pub(super) fn next_id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn write(&self, line: &Line<'_>) {
        self.with(|state| state.append(line));
    }

    pub(super) fn op(&self, op: &OpLine<'_>) {
        if op.outcome == Outcome::Ok && op.kind.is_write() {
            self.reins.written();
        }
        self.with(|state| {
            state.counts.add(op);
            state.append(&Line::Op(op.clone()));
        });
    }

    /// Counting begins here: what came before was preparation.
    pub(super) fn begin(&self, now_us: u64) {
        self.with(|state| {
            state.counts = Counts {
                last_write_us: now_us,
                ..Counts::default()
            };
        });
    }

    /// What was counted so far; counting goes on from nothing.
    pub(super) fn take_counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.with(|state| counts = std::mem::take(&mut state.counts));
        counts
    }

    /// Everything is in the file, or this is why not.
    pub(super) fn flush(&self) -> Option<String> {
        let mut error = None;
        self.with(|state| {
            if let Err(why) = state.file.flush() {
                state.counts.error = Some(why.to_string());
            }
            error = state.counts.error.take();
        });
        error
    }

    fn with(&self, act: impl FnOnce(&mut State)) {
        // A client that panicked was in the middle of nothing that others need.
        act(&mut self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl State {
    fn append(&mut self, line: &Line<'_>) {
        self.text.clear();
        line.encode(&mut self.text);
        if let Err(error) = self.file.write_all(self.text.as_bytes()) {
            self.counts.error = Some(error.to_string());
        }
    }
}

impl Counts {
    fn add(&mut self, op: &OpLine<'_>) {
        match op.outcome {
            Outcome::Ok => self.ok += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        if op.outcome != Outcome::Unknown {
            let took = op.t1.saturating_sub(op.t0);
            self.latencies_us
                .push(u32::try_from(took).unwrap_or(u32::MAX));
        }
        if op.outcome == Outcome::Ok && op.kind.is_write() {
            let gap = op.t1.saturating_sub(self.last_write_us);
            self.longest_gap_us = self.longest_gap_us.max(gap);
            self.last_write_us = self.last_write_us.max(op.t1);
        }
    }
}
