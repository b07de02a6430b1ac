//! TCP segments in the frames of the emulator: found, read, and cut short.
//!
//! A frame is a virtio header and an IPv4 packet. A super-packet of up to 64 KiB is one segment here. What
//! is built anew carries true checksums and an empty virtio header, which every receiver takes.

use super::stream::ahead;
use crate::net::checksum::{VIRTIO_HEADER, fold, sum};
use crate::net::{ELECTION_PORT, QUORUM_PORT};

/// The shortest IPv4 header.
const IP_HEADER: usize = 20;
/// The shortest TCP header.
const TCP_HEADER: usize = 20;
const TCP: u8 = 6;

/// The sender has nothing more to say.
pub(super) const FIN: u8 = 0x01;
/// The first segment of a direction.
pub(super) const SYN: u8 = 0x02;
/// The connection is broken off.
pub(super) const RST: u8 = 0x04;
/// Deliver at once.
const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub(super) const ACK: u8 = 0x10;

/// Where things are in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from_port: u16,
    pub(super) to_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// Where the TCP header begins.
    tcp: usize,
    /// Where the payload begins and ends.
    payload: usize,
    end: usize,
}

impl Segment {
    /// Reads the headers of a frame of the election or quorum port; `None` for everything else.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(VIRTIO_HEADER..)?;
        let first = *packet.first()?;
        // A fragment but the first has no ports; TCP sends none, so all fragments are passed over.
        let is_whole = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff == 0;
        if first >> 4 != 4 || *packet.get(9)? != TCP || !is_whole {
            return None;
        }
        let tcp = VIRTIO_HEADER + usize::from(first & 15) * 4;
        let header = frame.get(tcp..tcp + TCP_HEADER)?;
        let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (from_port, to_port) = (short(0), short(2));
        let is_ours = |port| port == QUORUM_PORT || port == ELECTION_PORT;
        if !is_ours(from_port) && !is_ours(to_port) {
            return None;
        }
        let long = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
        let payload = tcp + usize::from(header[12] >> 4) * 4;
        // The length in the IP header is 0 in packets that are too large for it.
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let end = match length {
            0 => frame.len(),
            length => frame.len().min(VIRTIO_HEADER + length),
        };
        (payload >= tcp + TCP_HEADER && payload <= end).then_some(Self {
            from_port,
            to_port,
            seq: long(4),
            ack: long(8),
            flags: header[13],
            tcp,
            payload,
            end,
        })
    }

    /// Bytes of payload.
    pub(super) fn len(&self) -> usize {
        self.end - self.payload
    }

    /// The sequence number behind its last byte.
    pub(super) fn after(&self) -> u32 {
        self.seq.wrapping_add(self.len() as u32)
    }

    /// It carries bytes from `seq` on, or the end of the direction behind it.
    pub(super) fn reaches_beyond(&self, seq: u32) -> bool {
        ahead(self.after(), seq) > 0 || self.has(FIN) || self.has(RST)
    }

    /// The payload.
    pub(super) fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.payload..self.end]
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// It carries something, or begins or ends a direction.
    pub(super) fn matters(&self) -> bool {
        self.len() > 0 || self.flags & (SYN | FIN | RST) != 0
    }

    /// Its bytes are as its sender sent them. Where the checksum was never computed they were not touched either.
    pub(super) fn is_intact(&self, frame: &[u8]) -> bool {
        if frame[0] != 0 || frame[1] != 0 {
            return true;
        }
        let packet = &frame[VIRTIO_HEADER..self.end];
        let tcp = &frame[self.tcp..self.end];
        let pseudo = sum(&packet[12..IP_HEADER]) + u64::from(TCP) + tcp.len() as u64;
        fold(pseudo + sum(tcp)) == 0xffff
    }

    /// The same frame with its payload only up to `seq`, and no end of the direction. Of a payload that
    /// lies behind `seq` altogether there remains the acknowledgement.
    pub(super) fn up_to(&self, frame: &[u8], seq: u32) -> Vec<u8> {
        let kept = usize::try_from(seq.wrapping_sub(self.seq).cast_signed()).unwrap_or(0);
        let kept = kept.min(self.len());
        // A segment without payload must be at the place where its receiver waits.
        let first = if kept == 0 { seq } else { self.seq };
        let flags = self.flags & !(FIN | RST | PSH) | ACK;
        let headers = &frame[VIRTIO_HEADER..self.payload];
        let payload = &frame[self.payload..self.payload + kept];
        built(headers, self.tcp - VIRTIO_HEADER, first, flags, payload)
    }

    /// The frame that breaks the connection off, made from one of its own: for the receiver of that one,
    /// as if its sender had done it, when it waits for `seq`.
    pub(super) fn reset(&self, frame: &[u8], seq: u32) -> Vec<u8> {
        let headers = &frame[VIRTIO_HEADER..self.payload];
        built(headers, self.tcp - VIRTIO_HEADER, seq, RST | ACK, &[])
    }

    /// The same for the sender of that frame, as if its receiver had done it.
    pub(super) fn reset_back(&self, frame: &[u8]) -> Vec<u8> {
        let tcp = self.tcp - VIRTIO_HEADER;
        let mut headers = frame[VIRTIO_HEADER..self.payload].to_vec();
        let (ip, rest) = headers.split_at_mut(tcp);
        for at in 12..16 {
            ip.swap(at, at + 4);
        }
        for at in 0..2 {
            rest.swap(at, at + 2);
        }
        // What the sender acknowledged last is what it waits for, and it takes a reset nowhere else.
        let acked = self.after();
        rest[8..12].copy_from_slice(&acked.to_be_bytes());
        built(&headers, tcp, self.ack, RST | ACK, &[])
    }
}

/// A frame from IP and TCP headers, of which the TCP one begins at `tcp`, and a payload.
fn built(headers: &[u8], tcp: usize, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = [headers, payload].concat();
    let length = u16::try_from(packet.len()).unwrap_or(0);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let ip = !fold(sum(&packet[..tcp]));
    packet[10..12].copy_from_slice(&ip.to_be_bytes());
    packet[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
    packet[tcp + 13] = flags;
    packet[tcp + 16..tcp + 18].fill(0);
    let covered = (packet.len() - tcp) as u64;
    let pseudo = sum(&packet[12..IP_HEADER]) + u64::from(TCP) + covered;
    let check = !fold(pseudo + sum(&packet[tcp..]));
    packet[tcp + 16..tcp + 18].copy_from_slice(&check.to_be_bytes());
    [&[0; VIRTIO_HEADER][..], &packet].concat()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A frame from 10.77.0.1 to 10.77.0.2.
    pub(in super::super) fn frame(
        ports: (u16, u16),
        seq: u32,
        flags: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut headers = vec![0; 40];
        headers[0] = 0x45;
        headers[8] = 64;
        headers[9] = TCP;
        headers[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
        headers[20..22].copy_from_slice(&ports.0.to_be_bytes());
        headers[22..24].copy_from_slice(&ports.1.to_be_bytes());
        headers[28..32].copy_from_slice(&77_u32.to_be_bytes());
        headers[32] = 5 << 4;
        built(&headers, 20, seq, flags, payload)
    }

    /// The checksums of the IP header and of TCP, zero when they are right.
    fn sums(frame: &[u8]) -> (u16, u16) {
        let packet = &frame[VIRTIO_HEADER..];
        let covered = packet.len() as u64 - 20;
        let pseudo = sum(&packet[12..20]) + u64::from(TCP) + covered;
        (
            !fold(sum(&packet[..20])),
            !fold(pseudo + sum(&packet[20..])),
        )
    }

    #[test]
    fn a_segment_is_read_and_only_of_our_ports() {
        let bytes = frame((2888, 40_000), 5, ACK | PSH, b"hello");
        let segment = Segment::read(&bytes).unwrap();
        assert_eq!((segment.from_port, segment.to_port), (2888, 40_000));
        assert_eq!((segment.seq, segment.ack, segment.len()), (5, 77, 5));
        assert_eq!(segment.payload(&bytes), b"hello");
        assert!(segment.matters() && segment.has(ACK) && !segment.has(SYN));
        assert_eq!(
            Segment::read(&frame((2181, 40_000), 5, ACK, b"hello")),
            None
        );
        let quiet = frame((40_000, 3888), 5, ACK, b"");
        assert!(!Segment::read(&quiet).unwrap().matters());
        for length in 0..bytes.len() {
            // Never beyond the end, whatever is missing.
            if let Some(short) = Segment::read(&bytes[..length]) {
                assert!(short.payload(&bytes[..length]).len() < 5);
            }
        }
        let mut udp = bytes.clone();
        udp[VIRTIO_HEADER + 9] = 17;
        assert_eq!(Segment::read(&udp), None);
        let mut fragment = bytes;
        fragment[VIRTIO_HEADER + 7] = 9;
        assert_eq!(Segment::read(&fragment), None);
    }

    #[test]
    fn what_is_cut_short_has_true_lengths_and_checksums() {
        let bytes = frame((40_000, 2888), u32::MAX - 1, ACK | PSH | FIN, b"hello");
        assert_eq!(sums(&bytes), (0, 0));
        let segment = Segment::read(&bytes).unwrap();
        assert!(segment.is_intact(&bytes));
        let mut bad = bytes.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert!(!segment.is_intact(&bad));
        bad[0] = 1;
        assert!(segment.is_intact(&bad), "nobody has computed its checksum");
        let part = segment.up_to(&bytes, 1);
        let read = Segment::read(&part).unwrap();
        assert_eq!(read.payload(&part), b"hel");
        assert_eq!((read.seq, read.flags), (u32::MAX - 1, ACK));
        assert_eq!(sums(&part), (0, 0));
        let nothing = segment.up_to(&bytes, u32::MAX - 10);
        let read = Segment::read(&nothing).unwrap();
        assert_eq!((read.seq, read.len(), read.ack), (u32::MAX - 10, 0, 77));
        assert_eq!(sums(&nothing), (0, 0));
    }

    #[test]
    fn a_reset_is_what_each_end_waits_for() {
        let bytes = frame((40_000, 2888), 100, ACK, b"hello");
        let segment = Segment::read(&bytes).unwrap();
        let reset = segment.reset(&bytes, 102);
        let read = Segment::read(&reset).unwrap();
        assert_eq!((read.seq, read.flags, read.to_port), (102, RST | ACK, 2888));
        assert_eq!(sums(&reset), (0, 0));
        let back = segment.reset_back(&bytes);
        let read = Segment::read(&back).unwrap();
        assert_eq!((read.seq, read.ack), (77, 105));
        assert_eq!((read.from_port, read.to_port), (2888, 40_000));
        assert_eq!(sums(&back), (0, 0));
        let packet = &back[VIRTIO_HEADER..];
        assert_eq!(packet[12..20], [10, 77, 0, 2, 10, 77, 0, 1]);
    }
}
