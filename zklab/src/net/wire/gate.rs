//! Withholding a message while it is being forwarded.
//!
//! A message in the middle of a TCP stream cannot vanish alone. What can be done, and is: from the first byte of
//! the message on, nothing of that connection gets through in that direction; the packet is split at that byte.
//! Its receiver sees an open connection on which nothing more comes. Acknowledgements for the other direction
//! still pass, so that one goes on undisturbed. A `hold` lets everything go, in order, when it is
//! taken out; a `drop` breaks the connection off then, because its receiver is never to see the message.
//!
//! To hit exactly, a packet is judged before it is forwarded: one that comes before its turn, or ends within
//! the first bytes of a message, waits for the others. Only while a rule is in force.

use std::collections::HashMap;

use super::decoder::{Arrival, Decoder, Key};
use super::flow::Taken;
use super::rule::{Armed, Rule};
use super::scan::Head;
use super::segment::{FIN, RST, SYN, Segment};
use super::stream::ahead;
use super::{Ballot, Claim, Name, What};

/// What is held of one direction at most; more is lost, and its sender sends it again.
pub(super) const HELD_BYTES_MAX: usize = 16 << 20;

/// A direction of which something is withheld.
#[derive(Debug)]
struct Shut {
    /// From this byte on.
    seq: u32,
    /// By which rule; none while it is not known yet what the message is.
    by: Option<u32>,
    hold: bool,
    /// Frames with something from that byte on, in the order of their bytes.
    frames: Vec<(Segment, Vec<u8>)>,
    bytes: usize,
    /// A frame of this direction, to model others on.
    sample: Vec<u8>,
}

impl Shut {
    /// Keeps a frame, unless the one before it has the same bytes already.
    fn keep(&mut self, segment: Segment, frame: &[u8]) {
        let behind = |(other, _): &(Segment, Vec<u8>)| ahead(other.seq, segment.seq) <= 0;
        let place = self.frames.partition_point(behind);
        let closes = |segment: &Segment| segment.has(FIN) || segment.has(RST);
        let covered = place.checked_sub(1).is_some_and(|before| {
            let other = &self.frames[before].0;
            ahead(other.after(), segment.after()) >= 0 && (closes(other) || !closes(&segment))
        });
        if covered || self.bytes + frame.len() > HELD_BYTES_MAX {
            return;
        }
        self.bytes += frame.len();
        self.frames.insert(place, (segment, frame.to_vec()));
    }
}

/// All rules in force, and what they withhold.
#[derive(Debug, Default)]
pub(super) struct Gate {
    rules: Vec<Armed>,
    shut: HashMap<Key, Shut>,
}

/// Frames that a gate lets go.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) struct Released {
    /// The one it comes from, by its place.
    pub(in crate::net) from: usize,
    /// The one it is for.
    pub(in crate::net) to: usize,
    /// The frame.
    pub(in crate::net) frame: Vec<u8>,
    /// It is not one of the sender's: it is delivered as it is.
    pub(in crate::net) made: bool,
}

impl Gate {
    /// Nothing is withheld, nor may be.
    pub(super) fn is_open(&self) -> bool {
        self.rules.is_empty() && self.shut.is_empty()
    }

    pub(super) fn arm(&mut self, rule: Rule) {
        self.rules.push(Armed::new(rule));
    }

    /// Takes a rule out; what goes out because of that.
    pub(super) fn disarm(&mut self, id: u32) -> Vec<Released> {
        self.rules.retain(|armed| armed.rule.id != id);
        let quiet = self.rules.is_empty();
        let mut keys: Vec<Key> = self
            .shut
            .iter()
            .filter(|(_, shut)| shut.by == Some(id) || (shut.by.is_none() && quiet))
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        let mut released = Vec::new();
        for key in keys {
            let Some(shut) = self.shut.remove(&key) else {
                continue;
            };
            let (from, to) = (usize::from(key.from), usize::from(key.to));
            if shut.hold || shut.by.is_none() {
                released.extend(shut.frames.into_iter().map(|(_, frame)| Released {
                    from,
                    to,
                    frame,
                    made: false,
                }));
            } else if let Some(segment) = Segment::read(&shut.sample) {
                let made = |from, to, frame| Released {
                    from,
                    to,
                    frame,
                    made: true,
                };
                released.push(made(from, to, segment.reset(&shut.sample, shut.seq)));
                released.push(made(to, from, segment.reset_back(&shut.sample)));
            }
        }
        released
    }

    /// Judges a frame that is to be delivered; the frames to be delivered instead of it.
    pub(super) fn pass(
        &mut self,
        decoder: &mut Decoder,
        arrival: Arrival,
        segment: &Segment,
        frame: &[u8],
    ) -> Vec<Vec<u8>> {
        let key = arrival.key;
        if segment.has(SYN) {
            // A new connection between the same ports.
            self.shut.remove(&key);
        }
        if let Some(shut) = self.shut.get_mut(&key)
            && shut.by.is_some()
        {
            shut.sample = frame.to_vec();
            if shut.hold && segment.reaches_beyond(shut.seq) {
                shut.keep(*segment, frame);
            }
            return vec![segment.up_to(frame, shut.seq)];
        }
        let (from, to) = (usize::from(key.from), usize::from(key.to));
        let waits = self.shut.contains_key(&key);
        if !waits && !self.rules.iter().any(|armed| armed.concerns(from, to)) {
            decoder.take(arrival, segment.payload(frame));
            return vec![frame.to_vec()];
        }
        let mut waiting = self.shut.remove(&key).unwrap_or_else(|| Shut {
            seq: segment.seq,
            by: None,
            hold: true,
            frames: Vec::new(),
            bytes: 0,
            sample: Vec::new(),
        });
        let before = waits.then_some(waiting.seq);
        waiting.sample = frame.to_vec();
        waiting.keep(*segment, frame);
        self.judge(decoder, arrival, waiting, before)
    }

    /// Reads the frames that wait, as far as they follow one another and nothing is refused. What was
    /// delivered before `before` is not delivered again.
    fn judge(
        &mut self,
        decoder: &mut Decoder,
        arrival: Arrival,
        mut waiting: Shut,
        before: Option<u32>,
    ) -> Vec<Vec<u8>> {
        let key = arrival.key;
        let (from, to) = (usize::from(key.from), usize::from(key.to));
        let frames = std::mem::take(&mut waiting.frames);
        waiting.bytes = 0;
        let mut stop = None;
        for (segment, frame) in &frames {
            let next = decoder.flow(key).and_then(|flow| flow.next());
            stop = match next {
                Some(next) if segment.len() > 0 && ahead(segment.seq, next) > 0 => {
                    Some((next, None))
                }
                _ => self.read(decoder, arrival, segment, frame, (from, to)),
            };
            if stop.is_some() {
                break;
            }
        }
        if stop.is_none_or(|(_, by)| by.is_none())
            && let Some(flow) = decoder.flow(key)
            && let Some(seq) = flow.undecided()
        {
            flow.rewind(seq);
            stop = Some((seq, None));
        }
        let mut out = Vec::new();
        for (segment, frame) in frames {
            let Some((seq, _)) = stop.filter(|(seq, _)| segment.reaches_beyond(*seq)) else {
                out.push(frame);
                continue;
            };
            let part = segment.up_to(&frame, seq);
            let is_new = before.is_none_or(|before| ahead(seq, before) > 0);
            if is_new && Segment::read(&part).is_some_and(|part| part.len() > 0) {
                out.push(part);
            }
            waiting.keep(segment, &frame);
        }
        if let Some((seq, by)) = stop {
            waiting.seq = seq;
            waiting.by = by;
            if let Some(id) = by {
                waiting.hold = self.rules.iter().any(|a| a.rule.id == id && a.rule.hold);
                if !waiting.hold {
                    waiting.frames.clear();
                }
            }
            self.shut.insert(key, waiting);
        }
        out
    }

    /// Reads one frame whose turn it is; from which byte on it is withheld, and by which rule.
    fn read(
        &mut self,
        decoder: &mut Decoder,
        arrival: Arrival,
        segment: &Segment,
        frame: &[u8],
        (from, to): (usize, usize),
    ) -> Option<(u32, Option<u32>)> {
        let mut caught = None;
        let rules = &mut self.rules;
        let mut judge = |head: &Head| {
            // Every rule counts every message, whichever catches it.
            for armed in rules.iter_mut() {
                if armed.catches(from, to, head) && caught.is_none() {
                    caught = Some((armed.rule.id, *head));
                }
            }
            caught.is_some()
        };
        let here = Arrival {
            seq: segment.seq,
            flags: segment.flags,
            ..arrival
        };
        let taken = decoder.take_judged(here, segment.payload(frame), &mut judge);
        if let (Taken::Refused(seq), Some((id, head))) = (taken, caught) {
            decoder.tell_caught(arrival.at_us, arrival.key, what_of(head), id);
            return Some((seq, Some(id)));
        }
        None
    }
}

/// A message of which only the head was read.
fn what_of(head: Head) -> What {
    match head.name {
        Name::Packet(kind) => What::Packet {
            kind,
            zxid: head.zxid,
            number: None,
        },
        Name::Vote => What::Vote(Ballot {
            claim: Claim::Looking,
            leader: i64::MIN,
            zxid: head.zxid,
            round: 0,
            epoch: head.zxid >> 32,
        }),
    }
}
