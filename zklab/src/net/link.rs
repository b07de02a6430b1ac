//! One directed link: what is wrong with it, and what becomes of each packet on it.
//!
//! [`Link`] does no I/O and reads no clock: it is asked about a packet at a time and answers with a
//! [`Fate`]. All chances come from a stream of its own, so a seed fixes the choices of every link, whatever
//! the others carry.

use serde::{Deserialize, Serialize};
use zkd::prng::Prng;

/// A queue before a slow link, unless another size is asked for.
pub const QUEUE_BYTES: u64 = 64 << 10;

/// A packet that is reordered comes this much later at least, so that it is overtaken even on a link
/// without delay.
const REORDER_NS: u64 = 1_000_000;

/// What is wrong with a link. The default is nothing. Chances are between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkFaults {
    /// Every packet is lost.
    pub cut: bool,
    /// Every packet is held; they are let go when this ends.
    pub jam: bool,
    /// What the servers say to each other (their quorum and election ports) is lost; the rest passes.
    pub cut_servers: bool,
    /// What the servers say to each other is held; the rest passes.
    pub jam_servers: bool,
    /// When the link was cut, the TCP connections that are cut were broken off at both ends.
    pub reset: bool,
    /// Every packet comes this much later, in microseconds.
    pub delay_us: u64,
    /// The delay varies by up to this much in both directions, in microseconds; packets stay in order.
    pub jitter_us: u64,
    /// The chance that a packet is lost.
    pub loss: f64,
    /// Losses come in bursts of this many packets on average; up to 1, each is for itself.
    pub burst: f64,
    /// The chance that a packet comes twice.
    pub duplicate: f64,
    /// The chance that a packet is overtaken by those behind it.
    pub reorder: f64,
    /// The chance that one bit of a packet is flipped.
    pub corrupt: f64,
    /// Bits a second; 0 is without limit.
    pub rate_bps: u64,
    /// Bytes that may wait before a link with a rate; what comes on top is lost.
    pub queue_bytes: u64,
}

impl Default for LinkFaults {
    fn default() -> Self {
        Self {
            cut: false,
            jam: false,
            cut_servers: false,
            jam_servers: false,
            reset: false,
            delay_us: 0,
            jitter_us: 0,
            loss: 0.0,
            burst: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            rate_bps: 0,
            queue_bytes: QUEUE_BYTES,
        }
    }
}

impl LinkFaults {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Nothing passes now, or nothing of what the servers say to each other.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.cut || self.jam || self.cut_servers || self.jam_servers
    }

    /// What is wrong with it for a packet that belongs to the servers' own traffic, or does not.
    #[must_use]
    pub(super) fn seen_by(mut self, is_between_servers: bool) -> Self {
        self.cut |= self.cut_servers && is_between_servers;
        self.jam |= self.jam_servers && is_between_servers;
        self
    }

    /// It acts on single packets, so the sender may not send several as one.
    #[must_use]
    pub fn needs_real_packets(&self) -> bool {
        let chances = self.loss + self.duplicate + self.reorder + self.corrupt;
        chances > 0.0 || self.rate_bps > 0 || self.jitter_us > 0
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is lost.
    Lost,
    /// It waits until the jam ends.
    Held,
    /// It arrives.
    Arrives(Arrival),
}

/// How a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When, in nanoseconds; never before the question.
    pub(super) at_ns: u64,
    /// A second copy comes with it.
    pub(super) twice: bool,
    /// This bit is flipped on the way.
    pub(super) flip: Option<u64>,
}

/// The state of one link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    chances: Prng,
    /// In the middle of a burst of losses.
    losing: bool,
    /// The last byte of the queue leaves at this time.
    free_ns: u64,
    /// The latest arrival so far of a packet that keeps its place: no other such one comes before it.
    last_ns: u64,
}

impl Link {
    /// The link with number `number` of a lab with this seed.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut seeds = Prng::new(seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self {
            chances: seeds.fork(),
            losing: false,
            free_ns: 0,
            last_ns: 0,
        }
    }

    /// Its faults have changed: what was on its way must not hold up what comes now.
    pub(super) fn forget(&mut self) {
        self.losing = false;
        self.free_ns = 0;
        self.last_ns = 0;
    }

    /// What becomes of a packet of `bytes` that enters now.
    pub(super) fn admit(&mut self, faults: &LinkFaults, now_ns: u64, bytes: usize) -> Fate {
        if faults.cut {
            return Fate::Lost;
        }
        if faults.jam {
            return Fate::Held;
        }
        if self.loses(faults) {
            return Fate::Lost;
        }
        let flip = self
            .happens(faults.corrupt)
            .then(|| self.chances.next_u64());
        let twice = self.happens(faults.duplicate);
        let is_late = self.happens(faults.reorder);
        let Some(sent_ns) = self.transmit(faults, now_ns, bytes) else {
            return Fate::Lost;
        };
        let mut at_ns = sent_ns + self.delay_ns(faults);
        if is_late {
            at_ns += REORDER_NS.max(faults.delay_us * 500);
        } else {
            at_ns = at_ns.max(self.last_ns);
            self.last_ns = at_ns;
        }
        Fate::Arrives(Arrival { at_ns, twice, flip })
    }

    /// Gilbert's model: a good state without losses and a bad one in which all are lost. The chances of
    /// changing state follow from the mean loss and the mean length of a burst.
    fn loses(&mut self, faults: &LinkFaults) -> bool {
        if faults.loss <= 0.0 {
            return false;
        }
        if faults.burst <= 1.0 || faults.loss >= 1.0 {
            return self.happens(faults.loss);
        }
        let leave = 1.0 / faults.burst;
        let enter = (leave * faults.loss / (1.0 - faults.loss)).min(1.0);
        let changes = self.happens(if self.losing { leave } else { enter });
        self.losing ^= changes;
        self.losing
    }

    /// When the last bit has been put on the wire; `None` if the queue is full.
    fn transmit(&mut self, faults: &LinkFaults, now_ns: u64, bytes: usize) -> Option<u64> {
        if faults.rate_bps == 0 {
            return Some(now_ns);
        }
        let bits_to_ns = |bits: u128| {
            u64::try_from(bits * 1_000_000_000 / u128::from(faults.rate_bps)).unwrap_or(u64::MAX)
        };
        let begin = self.free_ns.max(now_ns);
        let waiting_ns = begin - now_ns;
        if waiting_ns > bits_to_ns(u128::from(faults.queue_bytes) * 8) {
            return None;
        }
        self.free_ns = begin.saturating_add(bits_to_ns(bytes as u128 * 8));
        Some(self.free_ns)
    }

    fn delay_ns(&mut self, faults: &LinkFaults) -> u64 {
        let delay_ns = faults.delay_us * 1000;
        if faults.jitter_us == 0 {
            return delay_ns;
        }
        let jitter_ns = faults.jitter_us * 1000;
        (delay_ns + self.chances.below(2 * jitter_ns + 1)).saturating_sub(jitter_ns)
    }

    /// Costs nothing, and no number of the stream, when it cannot happen.
    fn happens(&mut self, chance: f64) -> bool {
        if chance <= 0.0 {
            return false;
        }
        // 53 bits are what a float holds exactly.
        let drawn = self.chances.below(1 << 53);
        (drawn as f64) < chance * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKETS: u64 = 20_000;

    fn arrival(fate: Fate) -> Option<Arrival> {
        match fate {
            Fate::Arrives(arrival) => Some(arrival),
            Fate::Lost | Fate::Held => None,
        }
    }

    /// Four standard deviations of a binomial: one wrong alarm in 16 000 seeds, and the seed is fixed.
    fn assert_near(count: u64, of: u64, chance: f64) {
        let mean = of as f64 * chance;
        let bound = 4.0 * (mean * (1.0 - chance)).sqrt() + 1.0;
        let count = count as f64;
        assert!((count - mean).abs() < bound, "{count} of {of} at {chance}");
    }

    #[test]
    fn a_clean_link_passes_everything_at_once() {
        let mut link = Link::new(1, 2);
        let clean = LinkFaults::default();
        assert!(clean.is_clean() && !clean.needs_real_packets());
        for now_ns in 0..100 {
            let expected = Arrival {
                at_ns: now_ns,
                twice: false,
                flip: None,
            };
            assert_eq!(link.admit(&clean, now_ns, 1500), Fate::Arrives(expected));
        }
    }

    #[test]
    fn cut_goes_before_jam_and_jam_before_everything_else() {
        let mut link = Link::new(1, 2);
        let mut faults = LinkFaults {
            jam: true,
            loss: 1.0,
            ..LinkFaults::default()
        };
        assert_eq!(link.admit(&faults, 0, 1), Fate::Held);
        faults.cut = true;
        assert_eq!(link.admit(&faults, 0, 1), Fate::Lost);
    }

    #[test]
    fn chances_are_as_asked_and_bursts_as_long() {
        for burst in [0.0, 1.0, 5.0] {
            let mut link = Link::new(7, 3);
            let faults = LinkFaults {
                loss: 0.1,
                burst,
                ..LinkFaults::default()
            };
            let lost: Vec<bool> = (0..PACKETS)
                .map(|_| link.admit(&faults, 0, 100) == Fate::Lost)
                .collect();
            let count = lost.iter().filter(|lost| **lost).count() as u64;
            let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
            let mean = count as f64 / bursts as f64;
            if burst <= 1.0 {
                assert_near(count, PACKETS, 0.1);
                assert!((1.0..1.2).contains(&mean), "{mean}");
            } else {
                assert!((1_500..2_500).contains(&count), "{count}");
                assert!((4.0..6.0).contains(&mean), "{mean}");
            }
        }
        let mut link = Link::new(9, 3);
        let faults = LinkFaults {
            duplicate: 0.02,
            corrupt: 0.05,
            ..LinkFaults::default()
        };
        let all: Vec<Arrival> = (0..PACKETS)
            .filter_map(|_| arrival(link.admit(&faults, 0, 100)))
            .collect();
        assert_eq!(all.len() as u64, PACKETS);
        assert_near(all.iter().filter(|a| a.twice).count() as u64, PACKETS, 0.02);
        let flipped = all.iter().filter(|a| a.flip.is_some()).count();
        assert_near(flipped as u64, PACKETS, 0.05);
    }

    #[test]
    fn jitter_keeps_the_order_and_its_bounds() {
        let mut link = Link::new(5, 1);
        let faults = LinkFaults {
            delay_us: 20_000,
            jitter_us: 5_000,
            ..LinkFaults::default()
        };
        let mut last = 0;
        for packet in 0..1000 {
            let now_ns = packet * 20_000_000;
            let at_ns = arrival(link.admit(&faults, now_ns, 100)).unwrap().at_ns;
            assert!((15_000_000..=25_000_000).contains(&(at_ns - now_ns)));
            assert!(at_ns >= last);
            last = at_ns;
        }
    }

    #[test]
    fn a_reordered_packet_is_overtaken() {
        let mut link = Link::new(5, 1);
        let faults = LinkFaults {
            reorder: 0.1,
            ..LinkFaults::default()
        };
        let times: Vec<u64> = (0..PACKETS)
            .map(|now| arrival(link.admit(&faults, now, 100)).unwrap().at_ns)
            .collect();
        let late = (0..).zip(&times).filter(|(now, at)| *now < **at).count();
        assert_near(late as u64, PACKETS, 0.1);
    }

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_loses_them() {
        let mut link = Link::new(5, 1);
        let faults = LinkFaults {
            rate_bps: 8_000_000,
            queue_bytes: 10_000,
            ..LinkFaults::default()
        };
        // A byte takes a microsecond; eleven packets fit: ten wait and one is on the wire.
        let times: Vec<Option<u64>> = (0..15)
            .map(|_| arrival(link.admit(&faults, 0, 1000)).map(|a| a.at_ns))
            .collect();
        for (number, at_ns) in (1..=11).zip(&times) {
            assert_eq!(*at_ns, Some(number * 1_000_000));
        }
        assert!(times[11..].iter().all(Option::is_none));
        let later = arrival(link.admit(&faults, 20_000_000, 1000)).unwrap();
        assert_eq!(later.at_ns, 21_000_000);
    }

    #[test]
    fn a_seed_fixes_the_choices_of_each_link() {
        let faults = LinkFaults {
            loss: 0.3,
            corrupt: 0.2,
            jitter_us: 100,
            delay_us: 200,
            ..LinkFaults::default()
        };
        let run = |seed, number| {
            let mut link = Link::new(seed, number);
            (0..100)
                .map(|_| link.admit(&faults, 0, 9))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1, 1), run(1, 1));
        assert_ne!(run(1, 1), run(1, 2));
        assert_ne!(run(1, 1), run(2, 1));
    }
}
