//! Where the emulator's thread hands over what it forwards, and the thread that reads it.
//!
//! The emulator only looks at two ports and copies payloads into a queue of bounded size; decoding is done by
//! a second thread, in batches, so that a stream of small packets does not wake it for each. A full queue
//! loses copies, never packets, and the connections concerned are read again from the next message that is
//! recognized. While a rule is in force the emulator's thread decodes by itself, before it forwards.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use super::Sighting;
use super::decoder::{Arrival, Decoder, Key};
use super::gate::Gate;
pub(in crate::net) use super::gate::Released;
use super::rule::Rule;
use super::segment::Segment;
use crate::clock::now_us;

/// Payloads that wait to be read.
pub(super) const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Segments that wait to be read.
pub(super) const QUEUE_SEGMENTS_MAX: usize = 1 << 16;
/// How long the reader lets a batch grow.
const BATCH: Duration = Duration::from_millis(1);

/// Copies of segments.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    segments: Vec<(Arrival, usize)>,
    /// Directions of which copies were lost, at the end of the queue.
    missed: BTreeSet<Key>,
    /// Something was decoded already and waits to be told.
    decoded: bool,
    /// The reader sleeps.
    idle: bool,
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

    /// Wakes the reader if it sleeps.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let idle = std::mem::take(&mut queue.idle);
        drop(queue);
        if idle {
            self.filled.notify_one();
        }
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
    /// Starts a thread that tells `sink` what is seen.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(in crate::net) fn start(
        sink: impl FnMut(Sighting) + Send + 'static,
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
        queue.decoded = true;
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
            queue.decoded = true;
            self.shared.wake(queue);
        }
        self.gate.arm(rule);
    }

    /// A rule is taken out; what goes out because of that.
    pub(in crate::net) fn disarm(&mut self, id: u32) -> Vec<Released> {
        self.gate.disarm(id)
    }
}

fn read(shared: &Shared, mut sink: impl FnMut(Sighting)) {
    let mut batch = Queue::default();
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
            std::thread::sleep(BATCH);
        }
        let mut decoder = shared.decoder();
        std::mem::swap(&mut *shared.queue(), &mut batch);
        batch.drain(&mut decoder);
        batch.decoded = false;
        let seen = decoder.take_seen();
        drop(decoder);
        seen.into_iter().for_each(&mut sink);
        if stop || std::mem::take(&mut batch.stop) {
            return;
        }
    }
}
