//! The links between the nodes, and how to change them. All packets pass through one thread (`forwarder`).
//!
//! Packets stay as the sender's kernel made them, with their virtio header: on a clean link a segment of
//! 64 KiB crosses in one piece and its checksum is never computed. As soon as a fault acts on single
//! packets, the sender's kernel is told, on the live device, to cut its segments itself.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::capture::{self, Capture, Captured};
use super::device::Device;
use super::forwarder::Forwarder;
use super::matrix::Matrix;
use super::wire::{Listening, Rule, Sighting, Tap};
use crate::failure::{Context, Failure};

/// What a link has carried since the lab was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets delivered.
    pub sent: u64,
    /// Packets lost, by whatever fault.
    pub dropped: u64,
    /// Packets that a jam holds now.
    pub held: u64,
    /// When the first packet after the last heal of this link was delivered, by the system's clock; 0 if
    /// there was none yet.
    pub first_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) first_us: AtomicU64,
}

/// What the thread and everybody else share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) order: Mutex<Orders>,
    pub(super) has_order: AtomicBool,
    pub(super) wake: EventFd,
    /// By the numbers of the links; more when there are more nodes.
    pub(super) counters: Mutex<Vec<Arc<Counter>>>,
}

#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Replaces the matrix that is in force.
    pub(super) matrix: Option<Arc<Matrix>>,
    /// Those who want to know when it was.
    pub(super) waiting: Vec<oneshot::Sender<u64>>,
    /// From now on what is delivered is shown to this.
    pub(super) tap: Option<Tap>,
    /// Messages to be withheld from now on, and those no longer.
    pub(super) rules: Vec<RuleOrder>,
    /// Those who want copies of what passes, from now on.
    pub(super) captures: Vec<Capture>,
    /// Nodes that come and go, before the matrix is changed.
    pub(super) nodes: Vec<NodeOrder>,
    pub(super) stop: bool,
}

#[derive(Debug)]
pub(super) enum RuleOrder {
    Arm(Rule),
    Disarm(u32),
}

/// A node comes or goes.
#[derive(Debug)]
pub(super) enum NodeOrder {
    /// It is at this place from now on.
    Join {
        place: usize,
        device: Device,
        address: Ipv4Addr,
        counters: Vec<Arc<Counter>>,
    },
    /// Nothing is at this place any more.
    Leave(usize),
}

impl Counter {
    fn reset(&self) {
        for count in [&self.sent, &self.dropped, &self.held, &self.first_us] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn counters(&self) -> MutexGuard<'_, Vec<Arc<Counter>>> {
        self.counters
            .lock()
            .expect("nobody panics while holding the counters")
    }

    pub(super) fn order(&self) -> MutexGuard<'_, Orders> {
        self.order
            .lock()
            .expect("nobody panics while holding the orders")
    }

    fn wake(&self) {
        self.has_order.store(true, Ordering::Release);
        // It can only fail when the counter is full, and then the thread wakes anyway.
        let _ = self.wake.write(1);
    }
}

/// The links of a lab: their thread, and how to change them.
pub struct Emulator {
    shared: Arc<Shared>,
    /// What was ordered last.
    matrix: Mutex<Arc<Matrix>>,
    thread: Option<JoinHandle<()>>,
    /// The reader of what the servers say to each other.
    listening: Mutex<Option<Listening>>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.matrix().node_count();
        write!(f, "emulator of {nodes} nodes")
    }
}

impl Emulator {
    /// Starts to forward between these devices, with clean links. `nodes` are their addresses, in the same
    /// order; they differ in the last number only.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(
        devices: Vec<Device>,
        nodes: &[Ipv4Addr],
        seed: u64,
    ) -> Result<Self, Failure> {
        let cannot = || "cannot start the emulator".to_owned();
        let count = devices.len();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let shared = Arc::new(Shared {
            order: Mutex::default(),
            has_order: AtomicBool::new(false),
            wake: EventFd::from_value_and_flags(0, flags).doing(cannot)?,
            counters: Mutex::new(new_counters(count * count)),
        });
        let matrix = Arc::new(Matrix::clean(count));
        let mut forwarder = Forwarder::new(seed, Arc::clone(&matrix), Arc::clone(&shared));
        let counters = shared.counters().clone();
        for (place, (device, address)) in devices.into_iter().zip(nodes).enumerate() {
            forwarder.join(place, device, *address, counters.clone());
        }
        let thread = std::thread::Builder::new()
            .name("emulator".to_owned())
            .spawn(move || forwarder.run())
            .doing(cannot)?;
        Ok(Self {
            shared,
            matrix: Mutex::new(matrix),
            thread: Some(thread),
            listening: Mutex::default(),
        })
    }

    /// From now on `sink` hears, on a thread of its own, what the servers say to each other on their election
    /// and quorum ports: in batches, for a message of many is not worth waking a thread.
    ///
    /// # Errors
    /// If there can be no thread.
    ///
    /// # Panics
    /// Never: nobody panics while holding the listener.
    pub fn listen(&self, sink: impl FnMut(&[Sighting]) + Send + 'static) -> Result<(), Failure> {
        let (tap, listening) =
            Tap::start(sink).doing(|| "cannot start the reader of the wire".to_owned())?;
        *self
            .listening
            .lock()
            .expect("nobody panics while holding the listener") = Some(listening);
        self.shared.order().tap = Some(tap);
        self.shared.wake();
        Ok(())
    }

    /// Is there somebody who hears what the servers say? Only then messages can be withheld.
    ///
    /// # Panics
    /// Never: nobody panics while holding the listener.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.listening
            .lock()
            .expect("nobody panics while holding the listener")
            .is_some()
    }

    /// Withholds a message, and what follows it on its connection in its direction. The receiver gets the
    /// time since when the rule is in force, by the system's clock.
    pub fn withhold(&self, rule: Rule) -> oneshot::Receiver<u64> {
        self.order_rule(RuleOrder::Arm(rule))
    }

    /// Takes the rule of this number out: what it holds arrives, and what it dropped breaks its connection off.
    pub fn let_go(&self, rule: u32) -> oneshot::Receiver<u64> {
        self.order_rule(RuleOrder::Disarm(rule))
    }

    fn order_rule(&self, rule: RuleOrder) -> oneshot::Receiver<u64> {
        let (tell, told) = oneshot::channel();
        let mut order = self.shared.order();
        order.rules.push(rule);
        order.waiting.push(tell);
        drop(order);
        self.shared.wake();
        told
    }

    /// From now on copies of what passes are kept for the receiver: on the links from and to these places, or on all
    /// if there are none.
    pub fn capture(&self, places: Vec<usize>) -> Captured {
        let (capture, captured) = capture::start(places);
        self.shared.order().captures.push(capture);
        self.shared.wake();
        captured
    }

    /// A node comes to a place that is free, or to the first behind all others. Its links are as `matrix` says, by
    /// then the links as they were ordered last.
    pub(super) fn join(
        &self,
        place: usize,
        device: Device,
        address: Ipv4Addr,
    ) -> oneshot::Receiver<u64> {
        let counters = {
            let mut counters = self.shared.counters();
            let count = counters.len().max((place + 1) * (place + 1));
            let more = new_counters(count - counters.len());
            counters.extend(more);
            for (number, counter) in counters.iter().enumerate() {
                let (from, to) = Matrix::ends(number);
                if from == place || to == place {
                    counter.reset();
                }
            }
            counters.clone()
        };
        let join = NodeOrder::Join {
            place,
            device,
            address,
            counters,
        };
        self.change_with(Some(join), |matrix| matrix.grow(place + 1))
    }

    /// The node at this place goes, with whatever is wrong with its links and on its way to it.
    pub(super) fn leave(&self, place: usize) -> oneshot::Receiver<u64> {
        self.change_with(Some(NodeOrder::Leave(place)), |_| ())
    }

    /// The links as they were ordered last.
    ///
    /// # Panics
    /// Never: nobody panics while holding them.
    #[must_use]
    pub fn matrix(&self) -> Arc<Matrix> {
        Arc::clone(&self.locked_matrix())
    }

    /// Changes the links, all at once. The receiver gets the time since when the change is in force, by
    /// the system's clock.
    ///
    /// # Panics
    /// If `change` does.
    pub fn change(&self, change: impl FnOnce(&mut Matrix)) -> oneshot::Receiver<u64> {
        self.change_with(None, change)
    }

    /// As [`Self::change`], at once with a node that comes or goes.
    fn change_with(
        &self,
        node: Option<NodeOrder>,
        change: impl FnOnce(&mut Matrix),
    ) -> oneshot::Receiver<u64> {
        let (tell, told) = oneshot::channel();
        let mut current = self.locked_matrix();
        let mut matrix = Matrix::clone(&current);
        change(&mut matrix);
        *current = Arc::new(matrix);
        let mut order = self.shared.order();
        order.matrix = Some(Arc::clone(&current));
        order.nodes.extend(node);
        order.waiting.push(tell);
        drop(order);
        drop(current);
        self.shared.wake();
        told
    }

    /// What a link has carried.
    #[must_use]
    pub fn traffic(&self, from: usize, to: usize) -> Traffic {
        let number = self.matrix().number(from, to);
        let counter = Arc::clone(&self.shared.counters()[number]);
        Traffic {
            sent: counter.sent.load(Ordering::Relaxed),
            dropped: counter.dropped.load(Ordering::Relaxed),
            held: counter.held.load(Ordering::Relaxed),
            first_us: counter.first_us.load(Ordering::Relaxed),
        }
    }

    fn locked_matrix(&self) -> MutexGuard<'_, Arc<Matrix>> {
        self.matrix
            .lock()
            .expect("changes of links do not panic half way")
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.order().stop = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // If it panicked there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn new_counters(count: usize) -> Vec<Arc<Counter>> {
    (0..count).map(|_| Arc::default()).collect()
}

/// The errors of a change that can no longer be awaited.
impl From<oneshot::error::RecvError> for Failure {
    fn from(_: oneshot::error::RecvError) -> Self {
        Self::environment(format!(
            "the emulator has stopped: {}",
            io::Error::from(io::ErrorKind::BrokenPipe)
        ))
    }
}
