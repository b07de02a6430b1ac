//! Counts what passes between the peer and the world: proposals, commits, their sizes and times.
//!
//! Law kept here: it only looks. Counterparts: the counters in `Leader`, `Follower` and `CommitProcessor`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::ServerState;
use crate::ids::Zxid;
use crate::metrics::Metrics;
use crate::peer::{Input, Ready};
use crate::pipeline::Delivery;
use crate::record::quorum::packet;
use crate::time::Now;
use crate::zab::Write;

use super::clock;

/// Looks at inputs and outcomes of the peer.
#[derive(Debug)]
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    /// Proposed here and not committed: the zxid, and when in microseconds.
    proposed: VecDeque<(Zxid, u64)>,
    /// Bytes of the last, the smallest and the largest proposal of this reign.
    proposal_sizes: Option<[u64; 3]>,
}

impl Meter {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            proposed: VecDeque::new(),
            proposal_sizes: None,
        }
    }

    /// Bytes of the last, the smallest and the largest proposal; `None` before the first.
    pub(super) fn proposal_sizes(&self) -> Option<[u64; 3]> {
        self.proposal_sizes
    }

    /// Looks at what goes in.
    pub(super) fn see_input(&self, input: &Input) {
        match input {
            Input::LeaderPacket(_, packet) => match packet.kind {
                packet::PROPOSAL => self.metrics.learner_proposal_received_count.increment(),
                packet::COMMIT => self.metrics.learner_commit_received_count.increment(),
                _ => {}
            },
            Input::LearnerPacket(_, packet) if packet.kind == packet::REVALIDATE => {
                self.metrics.revalidate_count.increment();
            }
            _ => {}
        }
    }

    /// Looks at what is to be done, in the state after it was decided.
    pub(super) fn see_ready(&mut self, ready: &Ready, state: ServerState, now: Now) {
        if state == ServerState::Leading {
            let now_us = clock::monotonic_us();
            for write in ready.batches.iter().flat_map(|batch| &batch.write) {
                if let Write::Txn(proposal) = write {
                    self.metrics.proposal_count.increment();
                    self.proposed.push_back((proposal.zxid, now_us));
                    self.see_size(proposal.txn.len() as u64);
                }
            }
        } else {
            self.proposed.clear();
            self.proposal_sizes = None;
        }
        for delivery in &ready.deliver {
            if let Delivery::Txn(record) = delivery {
                self.see_commit(record.header.zxid, record.header.time, state, now);
            }
        }
    }

    fn see_size(&mut self, size: u64) {
        let [_, min, max] = self.proposal_sizes.unwrap_or([size; 3]);
        self.proposal_sizes = Some([size, min.min(size), max.max(size)]);
    }

    fn see_commit(&mut self, zxid: Zxid, time_ms: i64, state: ServerState, now: Now) {
        match state {
            ServerState::Leading => {
                self.metrics.commit_count.increment();
                while let Some(&(proposed, at_us)) = self.proposed.front()
                    && proposed <= zxid
                {
                    self.proposed.pop_front();
                    if proposed == zxid {
                        let took_us = clock::monotonic_us().saturating_sub(at_us);
                        self.metrics.quorum_ack_latency.record_us(took_us);
                    }
                }
            }
            ServerState::Following | ServerState::Observing => {
                // Two machines' clocks: what seems to come from the future took no time.
                let took_ms = u64::try_from(now.wall_ms - time_ms).unwrap_or(0);
                self.metrics.propagation_latency.record_us(took_ms * 1000);
            }
            ServerState::Looking | ServerState::Standalone => {}
        }
    }
}
