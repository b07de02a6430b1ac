//! The metrics that follow from what a server tells of its life.
//!
//! Law kept here: an event is counted where it is told, once, so that feed, log and metrics cannot disagree.

use crate::event::{PeerEvent, ServerState, SyncMode};

use super::Metrics;

/// Counts events as they pass, and measures the time between those that belong together.
#[derive(Debug)]
pub struct EventMeter {
    sid: i64,
    looking_since_us: Option<u64>,
    elected_at_us: Option<u64>,
}

impl EventMeter {
    /// A meter for the events of server `sid`.
    #[must_use]
    pub fn new(sid: i64) -> Self {
        Self {
            sid,
            looking_since_us: None,
            elected_at_us: None,
        }
    }

    /// Counts `event`, told at `t_us` microseconds of any clock that only goes forward.
    pub fn see(&mut self, event: &PeerEvent, t_us: u64, metrics: &Metrics) {
        match event {
            PeerEvent::Recovered { took_us, .. } => metrics.dbinittime.record_us(*took_us),
            PeerEvent::State {
                state: ServerState::Looking,
                ..
            } => {
                metrics.looking_count.increment();
                self.looking_since_us = Some(t_us);
                self.elected_at_us = None;
            }
            PeerEvent::Elected { .. } => {
                if let Some(since) = self.looking_since_us.take() {
                    metrics.election_time.record_us(t_us.saturating_sub(since));
                }
                self.elected_at_us = Some(t_us);
            }
            // Apache counts on the leader's side.
            PeerEvent::Sync { learner, mode, .. } if *learner != self.sid => match mode {
                SyncMode::Diff => metrics.diff_count.increment(),
                SyncMode::Snap => metrics.snap_count.increment(),
                SyncMode::Trunc => {}
            },
            PeerEvent::Serving {
                state: ServerState::Following | ServerState::Observing,
                ..
            } => {
                if let Some(at) = self.elected_at_us.take() {
                    metrics
                        .follower_sync_time
                        .record_us(t_us.saturating_sub(at));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_measured() {
        let metrics = Metrics::default();
        let mut meter = EventMeter::new(2);
        let mut see = |t_us, event| meter.see(&event, t_us, &metrics);
        let state = |state| PeerEvent::State {
            state,
            reason: "test".into(),
        };
        let sync = |learner, mode| PeerEvent::Sync {
            learner,
            mode,
            from: 0,
            to: 1,
        };
        see(1_000, state(ServerState::Looking));
        see(
            31_000,
            PeerEvent::Elected {
                round: 1,
                leader: 3,
                votes: 2,
                early: true,
            },
        );
        see(31_500, state(ServerState::Following));
        see(32_000, sync(2, SyncMode::Snap));
        see(
            36_000,
            PeerEvent::Serving {
                state: ServerState::Following,
                epoch: 1,
                zxid: 0,
            },
        );
        see(90_000, state(ServerState::Looking));
        see(91_000, sync(1, SyncMode::Diff));
        assert_eq!(metrics.looking_count.count(), 2);
        assert_eq!(metrics.election_time.summary_ms().sum, 30);
        assert_eq!(metrics.follower_sync_time.summary_ms().sum, 5);
        assert_eq!(
            (metrics.snap_count.count(), metrics.diff_count.count()),
            (0, 1)
        );
    }
}
