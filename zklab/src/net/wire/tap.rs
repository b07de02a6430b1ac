//! Where the emulator's thread hands over what it forwards, and the thread that reads it.
//!
//! The emulator only looks at two ports and copies payloads into a queue of bounded size; decoding is done by
//! a second thread, in batches, so that a stream of small packets does not wake it for each. A full queue
//! loses copies, never packets, and the connections concerned are read again from the next message that is
//! recognized. While a rule is in force the emulator's thread decodes by itself, before it forwards.
//!
//! Every batch wakes the reader twice and takes a processor from a server for that, so an ensemble that only writes is
//! read in long ones. What may begin or be of an election does not wait for their end: votes, and the begin and end of
//! connections. Times are those of the delivery, however late it is read.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use super::decoder::{Arrival, Decoder, Key};
use super::gate::Gate;
pub(in crate::net) use super::gate::Released;
use super::rule::Rule;
use super::segment::Segment;
use super::{Name, Sighting};
use crate::clock::now_us;

/// Payloads that wait to be read.
pub(super) const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Segments that wait to be read.
pub(super) const QUEUE_SEGMENTS_MAX: usize = 1 << 16;
/// How long the reader lets a batch grow.
const BATCH: Duration = Duration::from_millis(1);
/// The same while nothing is said but what an ensemble at work says all the time.
const BATCH_MAX: Duration = Duration::from_millis(16);

/// What was delivered has been told after so long, unless the machine is overloaded.
pub const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// So large a part of the queue is not filled further while the reader lets a batch grow.
const HURRY_PART: usize = 4;

/// Copies of segments.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    segments: Vec<(Arrival, usize)>,
    /// Directions of which copies were lost, at the end of the queue.
    missed: BTreeSet<Key>,
    /// Something was decoded already and waits to be told.
    decoded: bool,
    /// Something came that is to be told soon, or the queue fills.
    hurry: bool,
    /// The reader sleeps until something comes.
    idle: bool,
    /// The reader lets a long batch grow, and wakes earlier only if there is a hurry.
    naps: bool,
    stop: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.missed.is_empty() && !self.decoded
    }

    fn push(&mut self, arrival: Arrival, payload: &[u8]) {
        let full = self.bytes.len() + payload.len() > QUEUE_BYTES_MAX
            || self.segments.len() >= QUEUE_SEGMENTS_MAX;
        if full {
            self.missed.insert(arrival.key);
            return;
        }
        self.bytes.extend_from_slice(payload);
        self.segments.push((arrival, payload.len()));
        self.hurry |= arrival.may_be_of_election()
            || self.bytes.len() >= QUEUE_BYTES_MAX / HURRY_PART
            || self.segments.len() >= QUEUE_SEGMENTS_MAX / HURRY_PART;
    }

    /// Decodes everything.
    fn drain(&mut self, decoder: &mut Decoder) {
        let mut bytes = self.bytes.as_slice();
        for (arrival, length) in self.segments.drain(..) {
            let (payload, rest) = bytes.split_at(length);
            bytes = rest;
            decoder.take(arrival, payload);
        }
        self.bytes.clear();
        for key in std::mem::take(&mut self.missed) {
            decoder.miss(key);
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Locked before the queue where both are.
    decoder: Mutex<Decoder>,
    filled: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("nobody panics while holding the queue")
    }

    fn decoder(&self) -> MutexGuard<'_, Decoder> {
        self.decoder
            .lock()
            .expect("nobody panics while holding the decoder")
    }

    /// Wakes the reader if it sleeps and there is a reason to.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let idle = std::mem::take(&mut queue.idle);
        let hurry = (queue.hurry || queue.stop) && std::mem::take(&mut queue.naps);
        drop(queue);
        if idle || hurry {
            self.filled.notify_one();
        }
    }

    /// Lets a batch grow.
    fn nap(&self, pace: Duration) {
        if pace <= BATCH {
            // Nobody needs to look whether there is a hurry.
            std::thread::sleep(BATCH);
            return;
        }
        let mut queue = self.queue();
        queue.naps = true;
        let (mut queue, _) = self
            .filled
            .wait_timeout_while(queue, pace, |queue| !queue.hurry && !queue.stop)
            .expect("nobody panics while holding the queue");
        queue.naps = false;
    }
}

/// The emulator's end.
pub(in crate::net) struct Tap {
    shared: Arc<Shared>,
    gate: Gate,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tap")
    }
}

/// What becomes of a frame that is to be delivered.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) enum Pass {
    /// It is delivered as it is.
    Whole,
    /// These are delivered in its stead.
    Instead(Vec<Vec<u8>>),
}

/// The reader's thread; it ends with this value.
#[derive(Debug)]
pub(in crate::net) struct Listening {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.stop = true;
        self.shared.wake(queue);
        // The last one to let the lab go may be the reader itself.
        let other = |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(other) {
            // If it panicked there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Tap {
    /// Starts a thread that tells `sink` what is seen, in batches.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(in crate::net) fn start(
        sink: impl FnMut(&[Sighting]) + Send + 'static,
    ) -> io::Result<(Self, Listening)> {
        let shared = Arc::new(Shared::default());
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || read(&reader, sink))?;
        let tap = Self {
            shared: Arc::clone(&shared),
            gate: Gate::default(),
        };
        let thread = Some(thread);
        Ok((tap, Listening { shared, thread }))
    }

    /// A frame is about to be delivered.
    pub(in crate::net) fn see(&mut self, from: usize, to: usize, frame: &[u8]) -> Pass {
        let Some(segment) = Segment::read(frame) else {
            return Pass::Whole;
        };
        // What its receiver will not take has not been said.
        if !segment.is_intact(frame) {
            return Pass::Whole;
        }
        let is_open = self.gate.is_open();
        // An acknowledgement on a connection that is shut needs its place corrected.
        if is_open && !segment.matters() {
            return Pass::Whole;
        }
        let arrival = Arrival {
            at_us: now_us(),
            key: Key::of(from, to, &segment),
            seq: segment.seq,
            flags: segment.flags,
        };
        if is_open {
            let mut queue = self.shared.queue();
            queue.push(arrival, segment.payload(frame));
            self.shared.wake(queue);
            return Pass::Whole;
        }
        let mut decoder = self.shared.decoder();
        let frames = self.gate.pass(&mut decoder, arrival, &segment, frame);
        drop(decoder);
        let mut queue = self.shared.queue();
        (queue.decoded, queue.hurry) = (true, true);
        self.shared.wake(queue);
        Pass::Instead(frames)
    }

    /// From now on a message is withheld.
    pub(in crate::net) fn arm(&mut self, rule: Rule) {
        if self.gate.is_open() {
            // What was forwarded before is read first, so that the place in each stream is known.
            let mut decoder = self.shared.decoder();
            let mut queue = self.shared.queue();
            queue.drain(&mut decoder);
            (queue.decoded, queue.hurry) = (true, true);
            self.shared.wake(queue);
        }
        self.gate.arm(rule);
    }

    /// A rule is taken out; what goes out because of that.
    pub(in crate::net) fn disarm(&mut self, id: u32) -> Vec<Released> {
        self.gate.disarm(id)
    }
}

/// Is it what an ensemble at work says all the time?
fn is_calm(seen: &Sighting) -> bool {
    seen.name().is_some_and(Name::is_of_broadcast)
}

fn read(shared: &Shared, mut sink: impl FnMut(&[Sighting])) {
    let mut batch = Queue::default();
    let mut pace = BATCH;
    loop {
        let mut queue = shared.queue();
        while queue.is_empty() && !queue.stop {
            queue.idle = true;
            queue = shared
                .filled
                .wait(queue)
                .expect("nobody panics while holding the queue");
        }
        let stop = queue.stop;
        drop(queue);
        if !stop {
            shared.nap(pace);
        }
        let mut decoder = shared.decoder();
        std::mem::swap(&mut *shared.queue(), &mut batch);
        batch.drain(&mut decoder);
        (batch.decoded, batch.hurry) = (false, false);
        let seen = decoder.take_seen();
        drop(decoder);
        pace = if seen.iter().all(is_calm) {
            (pace * 2).min(BATCH_MAX)
        } else {
            BATCH
        };
        sink(&seen);
        if stop || std::mem::take(&mut batch.stop) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use zkd::ids::Zxid;
    use zkd::jute::Record;
    use zkd::record::quorum::{QuorumPacket, packet};

    use super::super::What;
    use super::super::segment::tests::frame;
    use super::super::segment::{ACK, FIN, RST, SYN};
    use super::*;
    use crate::net::{ELECTION_PORT, QUORUM_PORT};

    /// Longer than any of this takes.
    const LONG: Duration = Duration::from_secs(60);

    fn arrival(port: u16, flags: u8) -> Arrival {
        let segment = frame((40_000, port), 1, flags, &[]);
        let segment = Segment::read(&segment).unwrap();
        Arrival {
            at_us: 1,
            key: Key::of(0, 1, &segment),
            seq: 1,
            flags,
        }
    }

    #[test]
    fn votes_and_connections_hurry_and_so_does_a_queue_that_fills() {
        let hurries = |port, flags| {
            let mut queue = Queue::default();
            queue.push(arrival(port, flags), &[7; 20]);
            queue.hurry
        };
        assert!(!hurries(QUORUM_PORT, ACK));
        assert!(hurries(ELECTION_PORT, ACK));
        for flags in [SYN, SYN | ACK, FIN | ACK, RST] {
            assert!(hurries(QUORUM_PORT, flags));
        }
        let pushes_until_hurry = |payload: &[u8]| {
            let mut queue = Queue::default();
            let mut count = 0;
            while !queue.hurry {
                queue.push(arrival(QUORUM_PORT, ACK), payload);
                count += 1;
            }
            assert!(
                queue.missed.is_empty(),
                "it hurries before anything is lost"
            );
            count
        };
        assert_eq!(pushes_until_hurry(&[7; 1 << 20]), 4);
        assert_eq!(pushes_until_hurry(&[7]), QUEUE_SEGMENTS_MAX / 4);
    }

    #[test]
    fn a_hurry_and_the_end_wake_the_reader_from_a_long_nap_and_writes_do_not() {
        let wakes = |end: &dyn Fn(&mut Queue)| {
            let shared = Arc::new(Shared::default());
            let (woken, waking) = channel();
            let reader = Arc::clone(&shared);
            let thread = std::thread::spawn(move || {
                reader.nap(2 * LONG);
                woken.send(()).unwrap();
            });
            while !shared.queue().naps {
                std::thread::yield_now();
            }
            let mut queue = shared.queue();
            queue.push(arrival(QUORUM_PORT, ACK), &[7; 20]);
            shared.wake(queue);
            assert!(shared.queue().naps, "a write has woken it");
            let mut queue = shared.queue();
            end(&mut queue);
            shared.wake(queue);
            assert_ne!(waking.recv_timeout(LONG), Err(RecvTimeoutError::Timeout));
            thread.join().unwrap();
            assert!(!shared.queue().naps);
        };
        wakes(&|queue| queue.push(arrival(ELECTION_PORT, ACK), &[7; 20]));
        wakes(&|queue| queue.stop = true);
    }

    #[test]
    fn everything_is_told_once_and_in_order_whatever_the_batches() {
        let (tell, told) = channel();
        let (mut tap, listening) =
            Tap::start(move |seen| tell.send(seen.to_vec()).unwrap()).unwrap();
        let mut seq = 1;
        tap.see(0, 1, &frame((40_000, QUORUM_PORT), 0, SYN, &[]));
        let all: Vec<i64> = (1..=5_000).collect();
        for zxid in &all {
            let message = QuorumPacket::bare(packet::ACK, Zxid(*zxid)).to_vec();
            tap.see(0, 1, &frame((40_000, QUORUM_PORT), seq, ACK, &message));
            seq += message.len() as u32;
            if zxid % 1_000 == 0 {
                // The reader comes by, so there are several batches.
                tap.see(0, 1, &frame((40_001, ELECTION_PORT), 0, SYN, &[]));
                while !tap.shared.queue().is_empty() {
                    std::thread::yield_now();
                }
            }
        }
        drop(listening);
        let seen: Vec<Vec<Sighting>> = told.iter().collect();
        assert!(seen.iter().filter(|batch| !batch.is_empty()).count() > 1);
        let zxids = seen.iter().flatten().filter_map(|seen| match seen.what {
            What::Packet { zxid, .. } => Some(zxid),
            _ => None,
        });
        assert!(zxids.eq(all));
    }
}
