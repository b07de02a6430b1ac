//! The simulated network: which server reaches which, how long things take, and what gets lost.
//!
//! Quorum links behave like TCP: bytes arrive in order, in any cut, or the link ends. While a direction is
//! cut its bytes wait; when it heals they arrive or the link turns out to be dead, by the toss of a coin.
//! Election messages are single: they may be lost, doubled or overtaken, as reconnecting and re-sending
//! does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{LinkId, ServerId};
use crate::prng::Prng;

/// One end of a quorum link: the server and the id it knows the link by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) server: ServerId,
    pub(super) link: LinkId,
}

/// The bytes on their way in one direction of a link.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    /// When the last bytes put in will arrive: later ones must not overtake them.
    pub(super) tail_us: u64,
}

/// Who reaches whom.
#[derive(Debug)]
pub(super) struct Network {
    prng: Prng,
    cut: BTreeSet<(ServerId, ServerId)>,
    /// The other end of each end of a standing link.
    peers: BTreeMap<End, End>,
    pipes: BTreeMap<End, Pipe>,
    /// Delay bounds of the whole network, µs; drawn once a run.
    delay_us: (u64, u64),
    /// One election message in so many is lost; 0 for none.
    loss: u64,
    /// One election message in so many arrives twice; 0 for none.
    doubling: u64,
    /// The newest election message that waits for a cut direction to heal: what a sender does with a
    /// connection that it makes anew.
    held: BTreeMap<(ServerId, ServerId), Vec<u8>>,
}

impl Network {
    pub(super) fn new(mut prng: Prng) -> Self {
        let slow = prng.one_in(4);
        let delay_us = if slow { (200, 40_000) } else { (30, 2_000) };
        let loss = *prng.pick(&[0, 0, 50, 10]);
        Self {
            prng,
            cut: BTreeSet::new(),
            peers: BTreeMap::new(),
            pipes: BTreeMap::new(),
            delay_us,
            loss,
            doubling: 30,
            held: BTreeMap::new(),
        }
    }

    /// A network without surprises, for scenes that are watched.
    pub(super) fn calm(prng: Prng) -> Self {
        Self {
            delay_us: (500, 500),
            loss: 0,
            doubling: 0,
            ..Self::new(prng)
        }
    }

    /// Nothing is lost from now on.
    pub(super) fn settle(&mut self) {
        self.loss = 0;
    }

    /// Keeps an election message for the time when `to` can be reached again.
    pub(super) fn hold(&mut self, from: ServerId, to: ServerId, message: Vec<u8>) {
        self.held.insert((from, to), message);
    }

    /// Gives the messages that were held, to be sent again. A dead sender sends nothing.
    pub(super) fn release(&mut self) -> BTreeMap<(ServerId, ServerId), Vec<u8>> {
        std::mem::take(&mut self.held)
    }

    /// The messages of a process die with it.
    pub(super) fn forget_held(&mut self, from: ServerId) {
        self.held.retain(|(sender, _), _| *sender != from);
    }

    pub(super) fn delay_us(&mut self) -> u64 {
        // Now and then something takes much longer than usual.
        let (low, high) = self.delay_us;
        let factor = if low != high && self.prng.one_in(100) {
            20
        } else {
            1
        };
        self.prng.between(low, high) * factor
    }

    pub(super) fn loses_message(&mut self) -> bool {
        self.loss != 0 && self.prng.one_in(self.loss)
    }

    pub(super) fn doubles_message(&mut self) -> bool {
        self.doubling != 0 && self.prng.one_in(self.doubling)
    }

    pub(super) fn reaches(&self, from: ServerId, to: ServerId) -> bool {
        !self.cut.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, from: ServerId, to: ServerId) {
        self.cut.insert((from, to));
    }

    /// Heals everything; gives the links that turn out to be dead.
    pub(super) fn heal(&mut self) -> Vec<End> {
        let cut = std::mem::take(&mut self.cut);
        let mut dead = Vec::new();
        for (from, to) in cut {
            let ends: Vec<_> = self
                .peers
                .iter()
                .filter(|(a, b)| a.server == from && b.server == to)
                .map(|(a, _)| *a)
                .collect();
            for end in ends {
                if self.prng.one_in(2) {
                    dead.push(end);
                }
            }
        }
        dead
    }

    pub(super) fn connect(&mut self, a: End, b: End) {
        self.peers.insert(a, b);
        self.peers.insert(b, a);
        self.pipes.insert(a, Pipe::default());
        self.pipes.insert(b, Pipe::default());
    }

    /// Ends a link; gives the other end if it still stood.
    pub(super) fn disconnect(&mut self, end: End) -> Option<End> {
        let other = self.peers.remove(&end)?;
        self.peers.remove(&other);
        self.pipes.remove(&end);
        self.pipes.remove(&other);
        Some(other)
    }

    pub(super) fn ends_of(&self, server: ServerId) -> Vec<End> {
        self.peers
            .keys()
            .filter(|end| end.server == server)
            .copied()
            .collect()
    }

    pub(super) fn peer_of(&self, end: End) -> Option<End> {
        self.peers.get(&end).copied()
    }

    /// Puts bytes in at `from`; gives when they arrive.
    pub(super) fn put(&mut self, from: End, bytes: &[u8], now_us: u64) -> Option<u64> {
        let delay = self.delay_us();
        let pipe = self.pipes.get_mut(&from)?;
        pipe.bytes.extend(bytes);
        pipe.tail_us = pipe.tail_us.max(now_us + delay);
        Some(pipe.tail_us)
    }

    /// Takes some of the bytes that were put in at `from`; and whether any are left.
    pub(super) fn take(&mut self, from: End) -> Option<(Vec<u8>, bool)> {
        let whole = self.prng.one_in(2);
        let pipe = self.pipes.get_mut(&from)?;
        let length = pipe.bytes.len() as u64;
        if length == 0 {
            return Some((Vec::new(), false));
        }
        let count = if whole {
            length
        } else {
            self.prng.between(1, length)
        };
        let count = usize::try_from(count).expect("what waits in memory fits usize");
        Some((pipe.bytes.drain(..count).collect(), !pipe.bytes.is_empty()))
    }
}
