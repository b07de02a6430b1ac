//! Packets as a pcapng file, which Wireshark, tshark and tcpdump open: one interface for each directed link, and
//! raw IPv4 packets. The format is <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/>.
//!
//! Every block is whole when it is written, so a file that ends behind a block is whole too.

use std::collections::BTreeMap;

use super::capture::{Batch, Packet, Passed};
use super::checksum::{self, VIRTIO_HEADER};

/// Raw IPv4 packets. The more common number for raw IP, 101, has another value inside libpcap, which then takes a second
/// interface of the file for one of another kind and refuses it (tcpdump 4.99 with libpcap 1.10).
const LINKTYPE_IPV4: u16 = 228;
/// The words at the beginning of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// It tells the order of bytes.
const MAGIC: u32 = 0x1a2b_3c4d;
/// Options of every block, of a section, of an interface, of statistics.
const COMMENT: u16 = 1;
const PROGRAM: u16 = 4;
const NAME: u16 = 2;
const DROPPED: u16 = 5;

impl Passed {
    /// What the reader of a file is told of a packet that did not simply arrive.
    fn comment(self) -> Option<&'static str> {
        match self {
            Self::Delivered => None,
            Self::Made => Some("made by zklab, not by the sender"),
            Self::Lost => Some("lost on the link; the receiver did not get it"),
            Self::Held => Some("held by a jam; it comes again when that ends"),
            Self::Withheld => Some("withheld from the receiver"),
        }
    }
}

/// Writes one file.
#[derive(Debug)]
pub struct Writer {
    /// From the system's clock to microseconds since 1970.
    since_1970_us: u64,
    /// The interface of each link, in the order in which they were first needed.
    interfaces: BTreeMap<(usize, usize), u32>,
    /// Packets written.
    pub packets: u64,
    /// Of those, packets that did not arrive when they were written.
    pub marked: u64,
    /// Packets left out because nobody wrote fast enough.
    pub left_out: BTreeMap<(usize, usize), u64>,
}

impl Writer {
    /// Begins a file. `comment` says what it is about; `since_1970_us` is what must be added to the system's clock
    /// to have the time of day.
    pub fn begin(since_1970_us: u64, comment: &str, out: &mut Vec<u8>) -> Self {
        let mut body = Vec::new();
        body.extend(MAGIC.to_le_bytes());
        body.extend(1_u16.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        // The length of the section is not known yet.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, COMMENT, comment.as_bytes());
        let program = concat!("zklab ", env!("CARGO_PKG_VERSION"));
        option(&mut body, PROGRAM, program.as_bytes());
        option(&mut body, 0, &[]);
        block(out, SECTION, &body);
        Self {
            since_1970_us,
            interfaces: BTreeMap::new(),
            packets: 0,
            marked: 0,
            left_out: BTreeMap::new(),
        }
    }

    /// Writes what has passed, up to `limit` packets in all.
    pub fn write(&mut self, batch: &mut Batch, limit: u64, out: &mut Vec<u8>) {
        for (link, count) in &batch.left_out {
            *self.left_out.entry(*link).or_default() += count;
        }
        for (packet, frame) in batch.frames() {
            if self.packets >= limit {
                return;
            }
            // Of one that is to be cut into several nobody knows the checksums yet.
            let _ = checksum::complete(frame);
            self.packet(packet, &frame[VIRTIO_HEADER..], out);
        }
    }

    fn packet(&mut self, packet: Packet, bytes: &[u8], out: &mut Vec<u8>) {
        let interface = self.interface((packet.from, packet.to), out);
        let at_us = packet.at_us + self.since_1970_us;
        let length = u32::try_from(bytes.len()).expect("a frame has 66 KiB at most");
        let mut body = Vec::with_capacity(bytes.len() + 64);
        body.extend(interface.to_le_bytes());
        body.extend(halves(at_us));
        body.extend(length.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(bytes);
        pad(&mut body);
        if let Some(comment) = packet.passed.comment() {
            option(&mut body, COMMENT, comment.as_bytes());
            option(&mut body, 0, &[]);
            self.marked += 1;
        }
        block(out, PACKET, &body);
        self.packets += 1;
    }

    /// The number of a link's interface; the first time it is described.
    fn interface(&mut self, link: (usize, usize), out: &mut Vec<u8>) -> u32 {
        if let Some(known) = self.interfaces.get(&link) {
            return *known;
        }
        let number = u32::try_from(self.interfaces.len()).expect("there are 62 500 links at most");
        self.interfaces.insert(link, number);
        let mut body = Vec::new();
        body.extend(LINKTYPE_IPV4.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        // Packets are never cut off.
        body.extend(0_u32.to_le_bytes());
        let name = format!("n{}>n{}", link.0 + 1, link.1 + 1);
        option(&mut body, NAME, name.as_bytes());
        option(&mut body, 0, &[]);
        block(out, INTERFACE, &body);
        number
    }

    /// Ends the file at this time of the system's clock: what was left out is said by link.
    pub fn end(&mut self, at_us: u64, out: &mut Vec<u8>) {
        for (link, count) in std::mem::take(&mut self.left_out) {
            let mut body = Vec::new();
            body.extend(self.interface(link, out).to_le_bytes());
            body.extend(halves(at_us + self.since_1970_us));
            option(&mut body, DROPPED, &count.to_le_bytes());
            option(&mut body, 0, &[]);
            block(out, STATISTICS, &body);
            self.left_out.insert(link, count);
        }
    }
}

/// A time, its upper half first, as packets have it.
fn halves(us: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    let little = us.to_le_bytes();
    bytes[..4].copy_from_slice(&little[4..]);
    bytes[4..].copy_from_slice(&little[..4]);
    bytes
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("our own words are short");
    body.extend(code.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = u32::try_from(body.len() + 12).expect("a block holds one packet");
    out.extend(kind.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(body);
    out.extend(length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::capture;

    /// Bytes as a hex dump, a block a line.
    fn dump(mut file: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while !file.is_empty() {
            let length = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
            let (block, rest) = file.split_at(length);
            lines.push(block.iter().map(|byte| format!("{byte:02x}")).collect());
            file = rest;
        }
        lines
    }

    /// A frame without virtio promises around these bytes.
    fn frame(packet: &[u8]) -> Vec<u8> {
        [&[0; VIRTIO_HEADER][..], packet].concat()
    }

    fn batch(frames: &[(usize, usize, Passed, Vec<u8>)]) -> Batch {
        let (emulators, captured) = capture::start(Vec::new());
        for (from, to, passed, frame) in frames {
            emulators.see(*from, *to, *passed, frame);
        }
        let mut batch = Batch::default();
        captured.take(&mut batch);
        for (number, packet) in batch.packets.iter_mut().enumerate() {
            packet.at_us = 0x1_0000_0000 + number as u64;
        }
        batch
    }

    #[test]
    fn the_bytes_are_those_of_the_draft() {
        let mut file = Vec::new();
        let mut writer = Writer::begin(1, "lab x", &mut file);
        let begin = file.len();
        let mut packets = batch(&[
            (0, 1, Passed::Delivered, frame(&[0x45, 1, 2, 3, 4])),
            (1, 0, Passed::Withheld, frame(&[0x45, 9, 9, 9])),
            (0, 1, Passed::Delivered, frame(&[0x45, 5])),
        ]);
        packets.left_out.insert((0, 2), 3);
        writer.write(&mut packets, u64::MAX, &mut file);
        writer.end(0x1_0000_0009, &mut file);
        let section = &file[..begin];
        assert_eq!(section[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
        assert_eq!(section[8..12], [0x4d, 0x3c, 0x2b, 0x1a]);
        assert_eq!(section[12..16], [1, 0, 0, 0]);
        assert_eq!(section[16..24], [0xff; 8]);
        assert_eq!(&section[24..36], b"\x01\x00\x05\x00lab x\0\0\0");
        assert_eq!(
            dump(&file[begin..]),
            [
                // n1>n2, then its packet of 5 bytes.
                "0100000024000000e400000000000000020005006e313e6e320000000000000024000000",
                "06000000280000000000000001000000010000000500000005000000450102030400000028000000",
                // n2>n1, then its packet of 4 bytes with a comment of 26.
                "0100000024000000e400000000000000020005006e323e6e310000000000000024000000",
                "060000004800000001000000010000000200000004000000040000004509090901001a00\
                 7769746868656c642066726f6d2074686520726563656976657200000000000048000000",
                "060000002400000000000000010000000300000002000000020000004505000024000000",
                // Three packets of n1>n3 were left out.
                "0100000024000000e400000000000000020005006e313e6e330000000000000024000000",
                "050000002800000002000000010000000a0000000500080003000000000000000000000028000000",
            ]
        );
        assert_eq!((writer.packets, writer.marked), (3, 1));
        assert_eq!(writer.left_out[&(0, 2)], 3);
    }

    #[test]
    fn a_limit_ends_it_and_checksums_left_to_the_receiver_are_filled_in() {
        let mut packet = frame(&[0x45, 0, 0, 0, 0x12, 0x34, 0, 0]);
        // The kernel left the checksum at 6, over what begins at 4, to whoever takes the packet.
        packet[0] = 1;
        packet[6] = 4;
        packet[8] = 2;
        let mut file = Vec::new();
        let mut writer = Writer::begin(0, "", &mut file);
        let begin = file.len();
        let one = (0, 1, Passed::Delivered, packet);
        let mut packets = batch(&[one.clone(), one.clone(), one]);
        writer.write(&mut packets, 2, &mut file);
        let blocks = dump(&file[begin..]);
        assert_eq!(blocks.len(), 3, "an interface and two packets");
        assert_eq!(&blocks[1][56..72], "450000001234edcb");
    }
}
