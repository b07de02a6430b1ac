//! The emulator's thread: reads from the device of the sender, asks the link what becomes of a packet, and
//! writes to the device of the receiver, now or later.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::capture::{Capture, Passed};
use super::checksum::{self, VIRTIO_HEADER};
use super::device::Device;
use super::emulator::{Counter, NodeOrder, RuleOrder, Shared};
use super::flows::{Flows, is_between_servers};
use super::link::{Fate, Link, LinkFaults};
use super::matrix::Matrix;
use super::wire::{Pass, Released, Tap};
use crate::clock::now_us;

/// The longest frame: a segment of 64 KiB with its headers.
const FRAME_MAX: usize = 66 << 10;
/// So many packets of one node are forwarded before the next one has its turn.
const TURN: usize = 64;
/// A jammed link holds so many bytes; what comes on top is lost.
const JAM_BYTES_MAX: usize = 16 << 20;
/// So many buffers are kept for the next packets.
const SPARE_MAX: usize = 1024;
/// Sleeping for less takes longer than asked, so the thread stays awake.
const AWAKE_NS: u64 = 50_000;

/// A packet that arrives later.
#[derive(Debug)]
struct OnItsWay {
    at_ns: u64,
    /// Packets of the same time keep their order.
    seq: u64,
    link: usize,
    to: usize,
    frame: Vec<u8>,
}

impl PartialEq for OnItsWay {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for OnItsWay {}

impl PartialOrd for OnItsWay {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for OnItsWay {
    fn cmp(&self, other: &Self) -> Order {
        (self.at_ns, self.seq).cmp(&(other.at_ns, other.seq))
    }
}

/// What a jam holds on one link.
#[derive(Debug, Default)]
struct Jam {
    frames: VecDeque<(usize, Vec<u8>)>,
    bytes: usize,
}

/// The thread's own state.
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    seed: u64,
    /// By the numbers of the links, as everything of links.
    counters: Vec<Arc<Counter>>,
    /// By place; a place without a node has none.
    devices: Vec<Option<Arc<Device>>>,
    /// There are others than those that are polled.
    has_other_devices: bool,
    /// The place of the node of the last number of an address.
    nodes: [Option<usize>; 256],
    /// What all addresses begin with.
    prefix: [u8; 3],
    matrix: Arc<Matrix>,
    /// Links without any fault, by number: the fast way.
    clean: Vec<bool>,
    /// Links that opened again and have not delivered since.
    opened: Vec<bool>,
    links: Vec<Link>,
    /// The connections that each link carries.
    flows: Vec<Flows>,
    /// The nodes' addresses, by place.
    addresses: Vec<Ipv4Addr>,
    jams: Vec<Jam>,
    on_their_way: BinaryHeap<Reverse<OnItsWay>>,
    seq: u64,
    spare: Vec<Vec<u8>>,
    tap: Option<Tap>,
    captures: Vec<Capture>,
    begin: Instant,
}

impl Forwarder {
    /// Without any nodes.
    pub(super) fn new(seed: u64, matrix: Arc<Matrix>, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            seed,
            counters: Vec::new(),
            devices: Vec::new(),
            has_other_devices: true,
            nodes: [None; 256],
            prefix: [0; 3],
            matrix,
            clean: Vec::new(),
            opened: Vec::new(),
            links: Vec::new(),
            flows: Vec::new(),
            addresses: Vec::new(),
            jams: Vec::new(),
            on_their_way: BinaryHeap::new(),
            seq: 0,
            spare: Vec::new(),
            tap: None,
            captures: Vec::new(),
            begin: Instant::now(),
        }
    }

    /// A node is at this place from now on. `counters` are those of all links.
    pub(super) fn join(
        &mut self,
        place: usize,
        device: Device,
        address: Ipv4Addr,
        counters: Vec<Arc<Counter>>,
    ) {
        let [a, b, c, last] = address.octets();
        self.prefix = [a, b, c];
        self.nodes[usize::from(last)] = Some(place);
        let count = counters.len();
        self.counters = counters;
        self.clean.resize(count, true);
        self.opened.resize(count, false);
        self.flows.resize(count, Flows::default());
        self.jams.resize_with(count, Jam::default);
        for number in self.links.len()..count {
            self.links.push(Link::new(self.seed, number as u64));
        }
        if self.devices.len() <= place {
            self.devices.resize_with(place + 1, || None);
            self.addresses.resize(place + 1, Ipv4Addr::UNSPECIFIED);
        }
        self.devices[place] = Some(Arc::new(device));
        self.addresses[place] = address;
        self.has_other_devices = true;
    }

    /// Nothing is at this place any more, nor on its way to it.
    fn leave(&mut self, place: usize) {
        self.devices[place] = None;
        self.has_other_devices = true;
        let [.., last] = self.addresses[place].octets();
        self.nodes[usize::from(last)] = None;
        for number in 0..self.links.len() {
            let (from, to) = Matrix::ends(number);
            if from == place || to == place {
                self.jams[number] = Jam::default();
                self.flows[number] = Flows::default();
                self.opened[number] = false;
            }
        }
        let is_other = |Reverse(packet): &Reverse<OnItsWay>| {
            let (from, to) = Matrix::ends(packet.link);
            from != place && to != place
        };
        self.on_their_way.retain(is_other);
    }

    pub(super) fn run(mut self) {
        // Without it the kernel wakes sleepers up to 50 µs late to save power.
        let _ = nix::sys::prctl::set_timerslack(1);
        let shared = Arc::clone(&self.shared);
        let mut buffer = vec![0; FRAME_MAX];
        while std::mem::take(&mut self.has_other_devices) {
            // Those that are polled stay open for a round, even if one of them is given up in it.
            let devices: Vec<(usize, Arc<Device>)> = self
                .devices
                .iter()
                .enumerate()
                .filter_map(|(place, device)| Some((place, Arc::clone(device.as_ref()?))))
                .collect();
            let mut polled: Vec<PollFd<'_>> = std::iter::once(shared.wake.as_fd())
                .chain(devices.iter().map(|(_, device)| device.as_fd()))
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            while !self.has_other_devices {
                if shared.has_order.swap(false, Ordering::AcqRel) && self.obey() {
                    return;
                }
                let now_ns = self.now_ns();
                self.deliver_due(now_ns);
                let patience = self.patience(now_ns);
                if ppoll(&mut polled, patience, None).is_err() {
                    // A signal; nothing was lost.
                    continue;
                }
                if polled[0].any() == Some(true) {
                    // Whether it was read or not, `has_order` decides.
                    let _ = shared.wake.read();
                }
                for ((from, device), fd) in devices.iter().zip(&polled[1..]) {
                    if fd.any() == Some(true) {
                        self.take_turn(*from, device, &mut buffer);
                    }
                }
            }
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long to sleep if nothing comes; `None` is until something does.
    fn patience(&self, now_ns: u64) -> Option<TimeSpec> {
        let Reverse(next) = self.on_their_way.peek()?;
        let wait_ns = next.at_ns.saturating_sub(now_ns);
        let sleep_ns = wait_ns.saturating_sub(AWAKE_NS);
        Some(TimeSpec::from_duration(Duration::from_nanos(sleep_ns)))
    }

    /// Carries out what was ordered; true if it is to stop.
    fn obey(&mut self) -> bool {
        let order = std::mem::take(&mut *self.shared.order());
        if order.stop {
            return true;
        }
        for node in order.nodes {
            match node {
                NodeOrder::Join {
                    place,
                    device,
                    address,
                    counters,
                } => self.join(place, device, address, counters),
                NodeOrder::Leave(place) => self.leave(place),
            }
        }
        if let Some(matrix) = order.matrix {
            self.put_in_force(matrix);
        }
        self.captures.extend(order.captures);
        self.captures.retain(|capture| !capture.is_over());
        if order.tap.is_some() {
            self.tap = order.tap;
        }
        for rule in order.rules {
            self.rule(rule);
        }
        let at_us = now_us();
        for waiting in order.waiting {
            // Not everybody waits.
            let _ = waiting.send(at_us);
        }
        false
    }

    fn rule(&mut self, order: RuleOrder) {
        let Some(tap) = &mut self.tap else {
            return;
        };
        let id = match order {
            RuleOrder::Arm(rule) => return tap.arm(rule),
            RuleOrder::Disarm(id) => id,
        };
        for released in tap.disarm(id) {
            let Released {
                from,
                to,
                frame,
                made,
            } = released;
            let number = self.matrix.number(from, to);
            if made && self.is_cut(number, &frame) {
                self.lose(number, &frame);
            } else if made {
                self.write(number, to, &frame, Passed::Made);
            } else {
                self.deliver(number, to, &frame);
            }
        }
    }

    fn put_in_force(&mut self, matrix: Arc<Matrix>) {
        let old = std::mem::replace(&mut self.matrix, Arc::clone(&matrix));
        for (from, device) in self.devices.iter().enumerate() {
            let Some(device) = device else {
                continue;
            };
            let real = matrix.needs_real_packets(from);
            let was_real = from < old.node_count() && old.needs_real_packets(from);
            if real != was_real
                && let Err(error) = device.set_offload(!real)
            {
                tracing::error!(%error, "the offload of a device cannot be changed");
            }
        }
        for (from, to) in matrix.pairs() {
            let is_new = from.max(to) >= old.node_count();
            let clean = LinkFaults::default();
            let before = if is_new { &clean } else { old.link(from, to) };
            let now = matrix.link(from, to);
            if before == now {
                continue;
            }
            let number = matrix.number(from, to);
            self.clean[number] = now.is_clean();
            self.links[number].forget();
            if before.is_blocked() && !now.is_blocked() {
                self.opened[number] = true;
                self.counters[number].first_us.store(0, Ordering::Relaxed);
            }
            if before.jam && !now.jam || before.jam_servers && !now.jam_servers {
                self.release(number);
            }
            if now.reset && !before.reset {
                self.break_off(from, to, !now.cut);
            }
        }
    }

    /// Breaks off the connections of a link, at both ends.
    fn break_off(&mut self, from: usize, to: usize, only_servers: bool) {
        let number = self.matrix.number(from, to);
        let (a, b) = (self.addresses[from], self.addresses[to]);
        for (forth, back) in self.flows[number].break_off(a, b, only_servers) {
            for (from, to, frame) in [(from, to, forth), (to, from, back)] {
                // A device that takes nothing now loses it, as it would lose any packet.
                if let Some(device) = &self.devices[to] {
                    let _ = device.write(&frame);
                }
                self.show(from, to, Passed::Made, &frame);
            }
        }
    }

    /// A jam ended: what it held arrives, in order (or is lost, if the link is cut now).
    fn release(&mut self, number: usize) {
        let jam = std::mem::take(&mut self.jams[number]);
        self.counters[number].held.store(0, Ordering::Relaxed);
        for (to, frame) in jam.frames {
            self.deliver(number, to, &frame);
            self.give_back(frame);
        }
    }

    fn deliver_due(&mut self, now_ns: u64) {
        while let Some(Reverse(next)) = self.on_their_way.peek()
            && next.at_ns <= now_ns
        {
            let Some(Reverse(due)) = self.on_their_way.pop() else {
                return;
            };
            // What is on its way when a link breaks does not arrive either.
            if self.is_jammed(due.link, &due.frame) {
                self.hold(due.link, due.to, due.frame);
            } else {
                self.deliver(due.link, due.to, &due.frame);
                self.give_back(due.frame);
            }
        }
    }

    /// Forwards what a node has sent, up to a limit.
    fn take_turn(&mut self, from: usize, device: &Device, buffer: &mut [u8]) {
        for _ in 0..TURN {
            match device.read(buffer) {
                Ok(length) if length > VIRTIO_HEADER => {
                    self.forward(from, &mut buffer[..length]);
                }
                // Nothing more; or the device is down, and then nothing comes either.
                Ok(_) | Err(_) => return,
            }
        }
        let now_ns = self.now_ns();
        self.deliver_due(now_ns);
    }

    fn forward(&mut self, from: usize, frame: &mut [u8]) {
        let Some(to) = self.receiver(frame).filter(|to| *to != from) else {
            return;
        };
        let number = self.matrix.number(from, to);
        if self.clean[number] {
            return self.deliver(number, to, frame);
        }
        let now_ns = self.now_ns();
        let faults = self.matrix.link(from, to);
        let faults = faults.seen_by(is_between_servers(frame));
        let size = frame.len() - VIRTIO_HEADER;
        match self.links[number].admit(&faults, now_ns, size) {
            Fate::Lost => self.lose(number, frame),
            Fate::Held => {
                let copy = self.copy_of(frame);
                self.hold(number, to, copy);
            }
            Fate::Arrives(arrival) => {
                if let Some(bit) = arrival.flip
                    && checksum::complete(frame)
                {
                    checksum::flip_bit(frame, bit);
                }
                for _ in 0..1 + usize::from(arrival.twice) {
                    if arrival.at_ns <= now_ns {
                        self.deliver(number, to, frame);
                    } else {
                        self.send_later(arrival.at_ns, number, to, frame);
                    }
                }
            }
        }
    }

    /// The node a frame is for, if it is for one.
    fn receiver(&self, frame: &[u8]) -> Option<usize> {
        let packet = frame.get(VIRTIO_HEADER..)?;
        let is_v4 = packet.first()? >> 4 == 4;
        let [a, b, c, last] = *packet.get(16..20)?.first_chunk()?;
        (is_v4 && [a, b, c] == self.prefix)
            .then(|| self.nodes[usize::from(last)])
            .flatten()
    }

    fn send_later(&mut self, at_ns: u64, link: usize, to: usize, frame: &[u8]) {
        self.seq += 1;
        let frame = self.copy_of(frame);
        self.on_their_way.push(Reverse(OnItsWay {
            at_ns,
            seq: self.seq,
            link,
            to,
            frame,
        }));
    }

    fn is_jammed(&self, number: usize, frame: &[u8]) -> bool {
        let faults = self.faults(number).seen_by(is_between_servers(frame));
        faults.jam && !faults.cut
    }

    fn is_cut(&self, number: usize, frame: &[u8]) -> bool {
        self.faults(number).seen_by(is_between_servers(frame)).cut
    }

    fn faults(&self, number: usize) -> &LinkFaults {
        let (from, to) = Matrix::ends(number);
        self.matrix.link(from, to)
    }

    fn hold(&mut self, number: usize, to: usize, frame: Vec<u8>) {
        if self.jams[number].bytes + frame.len() > JAM_BYTES_MAX {
            return self.lose(number, &frame);
        }
        self.show_on(number, Passed::Held, &frame);
        let jam = &mut self.jams[number];
        jam.bytes += frame.len();
        jam.frames.push_back((to, frame));
        self.counters[number]
            .held
            .store(jam.frames.len() as u64, Ordering::Relaxed);
    }

    fn deliver(&mut self, number: usize, to: usize, frame: &[u8]) {
        if !self.clean[number] && self.is_cut(number, frame) {
            return self.lose(number, frame);
        }
        if let Some(tap) = &mut self.tap {
            let (from, _) = Matrix::ends(number);
            if let Pass::Instead(frames) = tap.see(from, to, frame) {
                if !frames.iter().any(|passed| passed == frame) {
                    self.show(from, to, Passed::Withheld, frame);
                }
                for passed in frames {
                    let made = if passed == frame {
                        Passed::Delivered
                    } else {
                        Passed::Made
                    };
                    self.write(number, to, &passed, made);
                }
                return;
            }
        }
        self.write(number, to, frame, Passed::Delivered);
    }

    /// Hands a frame to its receiver's kernel.
    fn write(&mut self, number: usize, to: usize, frame: &[u8], passed: Passed) {
        let is_written = match &self.devices[to] {
            Some(device) => device.write(frame).is_ok(),
            None => false,
        };
        if !is_written {
            return self.lose(number, frame);
        }
        self.show_on(number, passed, frame);
        self.flows[number].note(frame);
        let counter = &self.counters[number];
        counter.sent.fetch_add(1, Ordering::Relaxed);
        if std::mem::take(&mut self.opened[number]) {
            counter.first_us.store(now_us(), Ordering::Relaxed);
        }
    }

    /// A frame does not arrive.
    fn lose(&self, number: usize, frame: &[u8]) {
        self.counters[number]
            .dropped
            .fetch_add(1, Ordering::Relaxed);
        self.show_on(number, Passed::Lost, frame);
    }

    /// Gives copies to those who want them.
    #[inline]
    fn show_on(&self, number: usize, passed: Passed, frame: &[u8]) {
        if !self.captures.is_empty() {
            let (from, to) = Matrix::ends(number);
            self.show(from, to, passed, frame);
        }
    }

    fn show(&self, from: usize, to: usize, passed: Passed, frame: &[u8]) {
        for capture in &self.captures {
            capture.see(from, to, passed, frame);
        }
    }

    fn copy_of(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(frame);
        copy
    }

    fn give_back(&mut self, frame: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(frame);
        }
    }
}
