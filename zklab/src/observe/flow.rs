//! The writes that went over the wire: who proposed, acknowledged and committed what to whom, and when.
//!
//! An ensemble at work says so much that it is kept out of the journal. It is remembered here for a while instead, a few
//! bytes a message, so that a verdict can ask afterwards what became of one write, and how far a server was when it died.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use zkd::ids::Zxid;
use zkd::record::quorum::packet;

use crate::event::{HexZxid, MessageFate};
use crate::id::NodeId;
use crate::net::wire::{Name, Sighting, What};

/// So many messages are remembered, 24 bytes each; older ones are forgotten.
const MESSAGES_MAX: usize = 1 << 20;

/// One message.
#[derive(Clone, Copy, Debug)]
struct Passed {
    at_us: u64,
    zxid: i64,
    from: u8,
    to: u8,
    kind: u8,
    fate: MessageFate,
}

/// So many times at which something was missed are remembered.
const GAPS_MAX: usize = 1 << 12;

/// The messages.
#[derive(Debug, Default)]
pub struct Flow {
    passed: VecDeque<Passed>,
    /// What came before is forgotten.
    since_us: u64,
    /// When messages may have been missed.
    gaps_us: VecDeque<u64>,
}

/// What a silence is worth: another line of `wire.ndjson`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowScope {
    /// Messages from here on are remembered, in microseconds since the start of the lab.
    pub since_us: u64,
    /// When some may have been missed.
    pub gaps_us: Vec<u64>,
}

/// A message about a write, as it is written down: a line of `wire.ndjson`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowNote {
    /// When it was delivered or withheld, in microseconds since the start of the lab.
    pub t_us: u64,
    /// Its sender.
    pub from: NodeId,
    /// Its receiver.
    pub to: NodeId,
    /// `PROPOSAL`, `ACK`, `COMMIT`, `INFORM`.
    pub msg: String,
    /// The write.
    pub zxid: HexZxid,
    /// What became of it.
    pub fate: MessageFate,
}

/// How far a server was at some time: another line of `wire.ndjson`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowMark {
    /// The server.
    pub node: NodeId,
    /// When, in microseconds since the start of the lab.
    pub until_us: u64,
    /// The last write that it was seen to propose, if it led.
    pub proposed: Option<HexZxid>,
    /// The last write whose ACK was seen to leave it, if it followed.
    pub acked: Option<HexZxid>,
}

impl Flow {
    /// Remembers a message, if it is about a write.
    pub fn see(&mut self, seen: &Sighting, fate: MessageFate) {
        if matches!(seen.what, What::Missed | What::Unreadable(_)) {
            if self.gaps_us.len() == GAPS_MAX {
                // Of what is older than the oldest gap that is known nothing is sure.
                let oldest = self.gaps_us.pop_front();
                self.since_us = self.since_us.max(oldest.unwrap_or_default());
            }
            self.gaps_us.push_back(seen.at_us);
        }
        let What::Packet { kind, zxid, .. } = seen.what else {
            return;
        };
        let is_meant = matches!(
            kind,
            packet::PROPOSAL
                | packet::ACK
                | packet::COMMIT
                | packet::COMMITANDACTIVATE
                | packet::INFORM
                | packet::INFORMANDACTIVATE
        );
        // The ACK of NEWLEADER and UPTODATE is about an epoch.
        if !is_meant || zxid <= 0 || Zxid(zxid).counter() == 0 {
            return;
        }
        let small = |number: usize| u8::try_from(number).ok();
        let (Some(from), Some(to), Ok(kind)) =
            (small(seen.from), small(seen.to), u8::try_from(kind))
        else {
            return;
        };
        if self.passed.len() == MESSAGES_MAX {
            let oldest = self.passed.pop_front();
            let forgotten = oldest.map_or(0, |passed| passed.at_us + 1);
            self.since_us = self.since_us.max(forgotten);
        }
        self.passed.push_back(Passed {
            at_us: seen.at_us,
            zxid,
            from,
            to,
            kind,
            fate,
        });
    }

    /// From when on everything is remembered, and when something may have been missed.
    #[must_use]
    pub fn scope(&self, start_us: u64) -> FlowScope {
        let since_start = |at_us: &u64| at_us.saturating_sub(start_us);
        FlowScope {
            since_us: since_start(&self.since_us),
            gaps_us: self.gaps_us.iter().map(since_start).collect(),
        }
    }

    /// What was said about these writes; `nodes` are named in the order of their places.
    #[must_use]
    pub fn about(&self, zxids: &[HexZxid], nodes: &[NodeId], start_us: u64) -> Vec<FlowNote> {
        let meant = self
            .passed
            .iter()
            .filter(|passed| zxids.contains(&HexZxid(passed.zxid)));
        meant
            .filter_map(|passed| {
                Some(FlowNote {
                    t_us: passed.at_us.saturating_sub(start_us),
                    from: *nodes.get(usize::from(passed.from))?,
                    to: *nodes.get(usize::from(passed.to))?,
                    msg: Name::Packet(i32::from(passed.kind)).to_string(),
                    zxid: HexZxid(passed.zxid),
                    fate: passed.fate,
                })
            })
            .collect()
    }

    /// How far the server at this place was at this time of the lab.
    #[must_use]
    pub fn until(&self, place: usize, node: NodeId, until_us: u64, start_us: u64) -> FlowMark {
        let mut mark = FlowMark {
            node,
            until_us,
            proposed: None,
            acked: None,
        };
        let earlier = self.passed.iter().rev().filter(|passed| {
            passed.at_us.saturating_sub(start_us) <= until_us
                && passed.fate == MessageFate::Delivered
        });
        for passed in earlier {
            if usize::from(passed.from) != place {
                continue;
            }
            let zxid = Some(HexZxid(passed.zxid));
            match i32::from(passed.kind) {
                packet::PROPOSAL => mark.proposed = mark.proposed.or(zxid),
                packet::ACK => mark.acked = mark.acked.or(zxid),
                _ => {}
            }
            if mark.proposed.is_some() && mark.acked.is_some() {
                break;
            }
        }
        mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(at_us: u64, from: usize, to: usize, kind: i32, zxid: i64) -> Sighting {
        Sighting {
            at_us,
            from,
            to,
            dials: false,
            election: false,
            what: What::Packet {
                kind,
                zxid,
                number: None,
            },
            bytes: 20,
            caught_by: None,
        }
    }

    #[test]
    fn a_write_can_be_asked_for_afterwards() {
        let mut flow = Flow::default();
        let (one, two) = ((1 << 32) | 7, (1 << 32) | 8);
        for (at_us, from, to, kind, zxid) in [
            (110, 0, 1, packet::PROPOSAL, one),
            (120, 1, 0, packet::ACK, one),
            (130, 0, 1, packet::COMMIT, one),
            (140, 0, 1, packet::PROPOSAL, two),
            // The ACK of NEWLEADER, and what is no write.
            (150, 1, 0, packet::ACK, 1 << 32),
            (151, 0, 1, packet::PING, two),
        ] {
            flow.see(&seen(at_us, from, to, kind, zxid), MessageFate::Delivered);
        }
        let mut gap = seen(155, 1, 0, packet::ACK, two);
        gap.what = What::Missed;
        flow.see(&gap, MessageFate::Delivered);
        assert_eq!(
            flow.scope(100),
            FlowScope {
                since_us: 0,
                gaps_us: vec![55]
            }
        );
        let late = seen(160, 1, 0, packet::ACK, two);
        flow.see(&late, MessageFate::Dropped);
        let nodes: Vec<NodeId> = ["n1", "n2"].iter().map(|n| n.parse().unwrap()).collect();
        let told: Vec<String> = flow
            .about(&[HexZxid(one)], &nodes, 100)
            .iter()
            .map(|note| format!("{} {}>{} {}", note.t_us, note.from, note.to, note.msg))
            .collect();
        assert_eq!(
            told,
            ["10 n1>n2 PROPOSAL", "20 n2>n1 ACK", "30 n1>n2 COMMIT"]
        );
        // An ACK that never arrived was not given; of what came later nothing was known yet.
        let mark = |place: usize, until_us| {
            let mark = flow.until(place, nodes[place], until_us, 100);
            (mark.proposed, mark.acked)
        };
        assert_eq!(mark(1, 100), (None, Some(HexZxid(one))));
        assert_eq!(mark(1, 15), (None, None));
        assert_eq!(mark(0, 100), (Some(HexZxid(two)), None));
        assert_eq!(mark(0, 15), (Some(HexZxid(one)), None));
    }
}
