//! All connections of the election and quorum ports, each direction for itself.

use hashbrown::HashMap;

use super::flow::{Flow, Judge, Taken};
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::{Ending, Sighting, What};
use crate::net::ELECTION_PORT;

/// Directions that are followed at once; beyond that the one that was silent for longest is forgotten. A lab
/// of 25 nodes has about 1300.
pub(super) const FLOWS_MAX: usize = 8192;

/// Names one direction of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) from: u8,
    pub(super) to: u8,
    pub(super) from_port: u16,
    pub(super) to_port: u16,
}

impl Key {
    /// The direction of a segment between two nodes, by their places.
    pub(super) fn of(from: usize, to: usize, segment: &Segment) -> Self {
        let place = |node: usize| u8::try_from(node).expect("a lab has at most 250 nodes");
        Self {
            from: place(from),
            to: place(to),
            from_port: segment.from_port,
            to_port: segment.to_port,
        }
    }

    fn election(self) -> bool {
        self.from_port == ELECTION_PORT || self.to_port == ELECTION_PORT
    }

    /// The sender is the one that connects: the other has the well-known port.
    pub(super) fn dials(self) -> bool {
        let well_known = |port| port == ELECTION_PORT || port == crate::net::QUORUM_PORT;
        well_known(self.to_port)
    }
}

/// A delivered segment without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) at_us: u64,
    pub(super) key: Key,
    pub(super) seq: u32,
    pub(super) flags: u8,
}

impl Arrival {
    /// It may begin an election or be a part of one: it is of the election port, or begins or ends a connection.
    pub(super) fn may_be_of_election(&self) -> bool {
        self.flags & (SYN | FIN | RST) != 0 || self.key.election()
    }
}

/// Everything that is followed, and what was seen.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    flows: HashMap<Key, Flow>,
    seen: Vec<Sighting>,
}

impl Decoder {
    /// What was seen since the last time.
    pub(super) fn take_seen(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.seen)
    }

    /// Reads a segment that was delivered.
    pub(super) fn take(&mut self, arrival: Arrival, payload: &[u8]) {
        self.take_judged(arrival, payload, &mut |_| false);
    }

    /// Reads a segment up to the first message that `judge` refuses.
    pub(super) fn take_judged(
        &mut self,
        arrival: Arrival,
        payload: &[u8],
        judge: Judge<'_>,
    ) -> Taken {
        let Arrival {
            at_us,
            key,
            seq,
            flags,
        } = arrival;
        let Self { flows, seen } = self;
        let mut tell = |what, bytes| seen.push(sighting(at_us, key, what, bytes, None));
        if flags & SYN != 0 {
            let first = seq.wrapping_add(1);
            let is_again = flows
                .get(&key)
                .is_some_and(|flow| flow.next() == Some(first));
            if !is_again {
                make_room(flows);
                flows.insert(key, Flow::opened(key.election(), key.dials(), first));
                if flags & ACK == 0 {
                    tell(What::Opened, 0);
                }
            }
        }
        if payload.is_empty() {
            if flags & (FIN | RST) == 0 || !flows.contains_key(&key) {
                return Taken::Read;
            }
        } else if flows.len() >= FLOWS_MAX && !flows.contains_key(&key) {
            make_room(flows);
        }
        let flow = flows
            .entry(key)
            .or_insert_with(|| Flow::joined(key.election()));
        flow.used_us = at_us;
        if !payload.is_empty() {
            let seq = seq.wrapping_add(u32::from(flags & SYN != 0));
            if let refused @ Taken::Refused(_) = flow.take(seq, payload, judge, &mut tell) {
                return refused;
            }
        }
        let end = seq.wrapping_add(payload.len() as u32);
        if flags & RST != 0 {
            flow.end(Ending::Rst, end, &mut tell);
        } else if flags & FIN != 0 {
            flow.end(Ending::Fin, end, &mut tell);
        } else if flow.is_closing() {
            flow.end_if_read(Ending::Fin, &mut tell);
        }
        Taken::Read
    }

    /// Copies of segments of this direction were lost.
    pub(super) fn miss(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.miss();
        }
    }

    /// A direction that is followed.
    pub(super) fn flow(&mut self, key: Key) -> Option<&mut Flow> {
        self.flows.get_mut(&key)
    }

    /// Tells that a message was withheld.
    pub(super) fn tell_caught(&mut self, at_us: u64, key: Key, what: What, rule: u32) {
        self.seen.push(sighting(at_us, key, what, 0, Some(rule)));
    }
}

fn sighting(at_us: u64, key: Key, what: What, bytes: u64, caught_by: Option<u32>) -> Sighting {
    Sighting {
        at_us,
        from: key.from.into(),
        to: key.to.into(),
        dials: key.dials(),
        election: key.election(),
        what,
        bytes,
        caught_by,
    }
}

fn make_room(flows: &mut HashMap<Key, Flow>) {
    if flows.len() >= FLOWS_MAX {
        let oldest = flows.iter().min_by_key(|(key, flow)| (flow.used_us, **key));
        if let Some(key) = oldest.map(|(key, _)| *key) {
            flows.remove(&key);
        }
    }
}
