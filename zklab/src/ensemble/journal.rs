//! The events of a lab, in order, for whoever wants to follow them from any point.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::watch;

use crate::clock::now_us;
use crate::event::{LabEvent, LabEventKind, Source};
use crate::id::NodeId;

/// Older events are forgotten; a follower that falls this far behind misses them.
const EVENTS_MAX: usize = 200_000;

/// The stream of events.
#[derive(Debug)]
pub struct Journal {
    lab: String,
    /// Time 0 of the stream.
    start_us: u64,
    events: Mutex<VecDeque<LabEvent>>,
    /// The last sequence number, for those who wait.
    tip: watch::Sender<u64>,
}

impl Journal {
    /// An empty stream that starts at `start_us`.
    #[must_use]
    pub fn new(lab: &str, start_us: u64) -> Self {
        Self {
            lab: lab.to_owned(),
            start_us,
            events: Mutex::default(),
            tip: watch::Sender::new(0),
        }
    }

    /// Appends an event that happened at `at_us` of the system's clock.
    pub fn push(&self, at_us: u64, node: Option<NodeId>, src: Source, kind: LabEventKind) {
        let mut events = self.lock();
        let seq = *self.tip.borrow() + 1;
        events.push_back(LabEvent {
            v: 1,
            seq,
            t_us: self.since_start(at_us),
            lab: self.lab.clone(),
            node,
            src,
            kind,
        });
        if events.len() > EVENTS_MAX {
            events.pop_front();
        }
        drop(events);
        self.tip.send_replace(seq);
    }

    /// A time of the system's clock as the stream counts.
    #[must_use]
    pub fn since_start(&self, at_us: u64) -> u64 {
        at_us.saturating_sub(self.start_us)
    }

    /// Now, as the stream counts.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.since_start(now_us())
    }

    /// The sequence number of the last event.
    #[must_use]
    pub fn tip(&self) -> u64 {
        *self.tip.borrow()
    }

    /// Wakes up at every new event.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.tip.subscribe()
    }

    /// The events after `seq`.
    #[must_use]
    pub fn after(&self, seq: u64) -> Vec<LabEvent> {
        let events = self.lock();
        let first = events.partition_point(|event| event.seq <= seq);
        events.range(first..).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<LabEvent>> {
        self.events
            .lock()
            .expect("nobody panics while holding the journal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_from_one_and_read_from_any_point() {
        let journal = Journal::new("x", 1_000);
        for ms in 1..=3 {
            journal.push(
                1_000 + ms,
                None,
                Source::Host,
                LabEventKind::HostStall { ms },
            );
        }
        let seqs: Vec<(u64, u64)> = journal.after(1).iter().map(|e| (e.seq, e.t_us)).collect();
        assert_eq!(seqs, [(2, 2), (3, 3)]);
        assert_eq!(journal.tip(), 3);
        assert!(journal.after(3).is_empty());
    }
}
