//! Where the emulator's thread hands over copies of the packets that pass, for whoever writes them down.
//!
//! The emulator never waits: it copies a packet into a queue of bounded size, and when that is full it counts
//! what it leaves out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::checksum::VIRTIO_HEADER;
use crate::clock::now_us;

/// Bytes of packets that wait to be written down.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Packets that wait to be written down.
pub const QUEUE_PACKETS_MAX: usize = 1 << 16;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// Its receiver got it, at this time.
    Delivered,
    /// Its receiver got it, and no node has sent it: a reset that breaks a connection off, or a packet of which a
    /// part is withheld.
    Made,
    /// It was lost.
    Lost,
    /// A jam holds it; when that ends it passes once more.
    Held,
    /// It is part of a message that is withheld.
    Withheld,
}

/// A packet that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, by the system's clock.
    pub at_us: u64,
    /// The place of its sender.
    pub from: usize,
    /// The place of its receiver.
    pub to: usize,
    /// What became of it.
    pub passed: Passed,
    /// Bytes of its frame, which begins with a virtio header.
    pub(super) length: usize,
}

/// Packets in the order in which they passed, and how many are lacking.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) packets: Vec<Packet>,
    /// Packets that found the queue full, by their link.
    pub left_out: BTreeMap<(usize, usize), u64>,
}

impl Batch {
    /// Nothing passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.left_out.is_empty()
    }

    /// How many packets it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Adds a copy; false if there was no room.
    fn push(&mut self, packet: Packet, frame: &[u8]) -> bool {
        let is_full = self.bytes.len() + frame.len() > QUEUE_BYTES_MAX
            || self.packets.len() >= QUEUE_PACKETS_MAX;
        if is_full {
            *self.left_out.entry((packet.from, packet.to)).or_default() += 1;
            return false;
        }
        self.bytes.extend_from_slice(frame);
        self.packets.push(packet);
        true
    }

    /// The packets with their frames; each frame begins with a virtio header.
    pub(super) fn frames(&mut self) -> impl Iterator<Item = (Packet, &mut [u8])> {
        let mut rest = self.bytes.as_mut_slice();
        self.packets.iter().map(move |packet| {
            let (frame, behind) = std::mem::take(&mut rest).split_at_mut(packet.length);
            rest = behind;
            (*packet, frame)
        })
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
        self.left_out.clear();
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Batch>,
    filled: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Batch> {
        self.queue
            .lock()
            .expect("nobody panics while holding the queue")
    }
}

/// The emulator's end.
#[derive(Debug)]
pub(super) struct Capture {
    shared: Arc<Shared>,
    /// The places whose links are meant; none is all.
    places: Vec<usize>,
}

/// The end of whoever writes down. When it is dropped the emulator forgets its own.
#[derive(Debug)]
pub struct Captured {
    shared: Arc<Shared>,
}

/// Both ends; meant are the links from and to these places, or all if there are none.
pub(super) fn start(places: Vec<usize>) -> (Capture, Captured) {
    let shared = Arc::new(Shared::default());
    let captured = Captured {
        shared: Arc::clone(&shared),
    };
    (Capture { shared, places }, captured)
}

impl Capture {
    /// Whoever asked has gone.
    pub(super) fn is_over(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// A packet passes.
    pub(super) fn see(&self, from: usize, to: usize, passed: Passed, frame: &[u8]) {
        let is_meant =
            self.places.is_empty() || self.places.contains(&from) || self.places.contains(&to);
        if !is_meant || frame.len() <= VIRTIO_HEADER {
            return;
        }
        let packet = Packet {
            at_us: now_us(),
            from,
            to,
            passed,
            length: frame.len(),
        };
        let mut queue = self.shared.queue();
        let was_empty = queue.is_empty();
        queue.push(packet, frame);
        drop(queue);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }
}

impl Captured {
    /// Waits until something has passed since the last [`Self::take`].
    pub async fn filled(&self) {
        loop {
            let filled = self.shared.filled.notified();
            if !self.shared.queue().is_empty() {
                return;
            }
            filled.await;
        }
    }

    /// Takes what has passed, in exchange for a batch that was read already.
    pub fn take(&self, batch: &mut Batch) {
        batch.clear();
        std::mem::swap(&mut *self.shared.queue(), batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_counts_by_link_what_it_leaves_out() {
        let (capture, captured) = start(Vec::new());
        let frame = vec![7; 4 << 20];
        for _ in 0..6 {
            capture.see(0, 1, Passed::Delivered, &frame);
        }
        capture.see(1, 0, Passed::Lost, &frame);
        capture.see(1, 0, Passed::Lost, &[1; 11]);
        let mut batch = Batch::default();
        captured.take(&mut batch);
        assert_eq!(batch.len(), 4, "16 MiB have room, and then nothing has");
        assert_eq!(batch.left_out[&(0, 1)], 2);
        assert_eq!(batch.left_out[&(1, 0)], 2);
        capture.see(1, 0, Passed::Lost, &[1; 11]);
        captured.take(&mut batch);
        let read: Vec<_> = batch.frames().map(|(packet, _)| packet.passed).collect();
        assert_eq!(read, [Passed::Lost]);
        assert!(batch.left_out.is_empty());
    }

    #[tokio::test]
    async fn only_links_of_the_places_meant_are_seen_and_the_reader_is_woken() {
        let (capture, captured) = start(vec![2]);
        capture.see(0, 1, Passed::Delivered, &[1; 20]);
        let mut batch = Batch::default();
        captured.take(&mut batch);
        assert!(batch.is_empty());
        let seen = tokio::spawn(async move {
            captured.filled().await;
            captured.take(&mut batch);
            batch
        });
        tokio::task::yield_now().await;
        capture.see(0, 2, Passed::Delivered, &[2; 20]);
        let mut batch = seen.await.unwrap();
        let frames: Vec<_> = batch
            .frames()
            .map(|(p, f)| (p.from, p.to, f.len()))
            .collect();
        assert_eq!(frames, [(0, 2, 20)]);
        assert!(capture.is_over(), "its reader is gone");
    }
}
