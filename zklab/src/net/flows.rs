//! Which TCP connections a link carries and how far they are, so that they can be broken off.
//!
//! A kernel believes a reset only at exactly the place in the stream where it waits. So the last segment
//! of every connection is remembered as it was delivered: it says where its receiver waits now (behind its
//! payload) and where its sender does (at what it acknowledged).

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::checksum::{VIRTIO_HEADER, fold, sum};
use super::{ELECTION_PORT, QUORUM_PORT};

const TCP: u8 = 6;
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const FIN: u8 = 1;
const RST: u8 = 4;
const ACK: u8 = 16;
/// So many connections of a link are remembered; of others nothing is known and they are only cut.
const FLOWS_MAX: usize = 4096;

/// The ports of a connection, the sender's first.
type Ports = (u16, u16);

/// The connections of one directed link.
#[derive(Clone, Debug, Default)]
pub(super) struct Flows {
    last: HashMap<Ports, Last>,
}

/// The last segment of a connection in this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    /// Behind its payload: there its receiver waits.
    next: u32,
    /// What it acknowledged: there its sender waits.
    acked: u32,
}

/// Where the TCP header of a frame begins, and its header; `None` for everything else.
fn tcp(frame: &[u8]) -> Option<(usize, &[u8])> {
    let packet = frame.get(VIRTIO_HEADER..)?;
    if packet.first()? >> 4 != 4 || *packet.get(9)? != TCP {
        return None;
    }
    let begin = usize::from(packet[0] & 15) * 4;
    Some((begin, packet.get(begin..begin + TCP_HEADER)?))
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(short(bytes, at)) << 16 | u32::from(short(bytes, at + 2))
}

/// Does it belong to what the servers say to each other: votes, and the quorum's own traffic?
pub(super) fn is_between_servers(frame: &[u8]) -> bool {
    let is_ours = |port| port == QUORUM_PORT || port == ELECTION_PORT;
    tcp(frame).is_some_and(|(_, tcp)| is_ours(short(tcp, 0)) || is_ours(short(tcp, 2)))
}

impl Flows {
    /// This frame was delivered.
    pub(super) fn note(&mut self, frame: &[u8]) {
        let Some((begin, tcp)) = tcp(frame) else {
            return;
        };
        let ports = (short(tcp, 0), short(tcp, 2));
        let flags = tcp[13];
        if flags & RST != 0 {
            self.last.remove(&ports);
            return;
        }
        let headers = VIRTIO_HEADER + begin + usize::from(tcp[12] >> 4) * 4;
        // The length in the IP header is 0 in packets that are too large for it.
        let length = match short(&frame[VIRTIO_HEADER..], 2) {
            0 => frame.len(),
            length => frame.len().min(VIRTIO_HEADER + usize::from(length)),
        };
        // SYN and FIN count as a byte each.
        let flagged = u32::from(flags & 2 != 0) + u32::from(flags & FIN != 0);
        let payload = u32::try_from(length.saturating_sub(headers)).unwrap_or(0);
        let last = Last {
            next: long(tcp, 4).wrapping_add(payload).wrapping_add(flagged),
            acked: long(tcp, 8),
        };
        if self.last.len() < FLOWS_MAX || self.last.contains_key(&ports) {
            self.last.insert(ports, last);
        }
    }

    /// Forgets all connections and gives the frames that break them off: for the receiving node of this
    /// link, and for the sending one. Only those between servers if `only_servers`.
    pub(super) fn break_off(
        &mut self,
        from: Ipv4Addr,
        to: Ipv4Addr,
        only_servers: bool,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let is_server = |port| port == QUORUM_PORT || port == ELECTION_PORT;
        let is_meant = |(a, b): &Ports| !only_servers || is_server(*a) || is_server(*b);
        let mut frames = Vec::new();
        self.last.retain(|ports, last| {
            if is_meant(ports) {
                let forth = reset((from, ports.0), (to, ports.1), last.next, last.acked);
                let back = reset((to, ports.1), (from, ports.0), last.acked, last.next);
                frames.push((forth, back));
            }
            !is_meant(ports)
        });
        frames.sort();
        frames
    }
}

/// A frame with a reset at this place of the stream.
fn reset(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), seq: u32, ack: u32) -> Vec<u8> {
    let mut packet = [0; IP_HEADER + TCP_HEADER];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = TCP;
    packet[12..16].copy_from_slice(&from.0.octets());
    packet[16..20].copy_from_slice(&to.0.octets());
    let ip = !fold(sum(&packet[..IP_HEADER]));
    packet[10..12].copy_from_slice(&ip.to_be_bytes());
    packet[20..22].copy_from_slice(&from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet[24..28].copy_from_slice(&seq.to_be_bytes());
    packet[28..32].copy_from_slice(&ack.to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = RST | ACK;
    let pseudo = sum(&packet[12..IP_HEADER]) + u64::from(TCP) + TCP_HEADER as u64;
    let tcp = !fold(pseudo + sum(&packet[IP_HEADER..]));
    packet[36..38].copy_from_slice(&tcp.to_be_bytes());
    [&[0; VIRTIO_HEADER][..], &packet].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    /// A segment with this payload; the checksums do not matter.
    fn segment(ports: Ports, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = reset((A, ports.0), (B, ports.1), seq, ack);
        frame[VIRTIO_HEADER + 33] = flags;
        frame[VIRTIO_HEADER + 3] += u8::try_from(payload.len()).unwrap();
        frame.extend(payload);
        frame
    }

    #[test]
    fn both_ends_get_a_reset_where_they_wait() {
        let mut flows = Flows::default();
        flows.note(&segment((40_000, 2888), 100, 7, ACK, b""));
        flows.note(&segment((40_000, 2888), 100, 9, ACK, b"hello"));
        let frames = flows.break_off(A, B, false);
        let [(forth, back)] = &frames[..] else {
            panic!("{frames:?}");
        };
        let (_, forth_tcp) = tcp(forth).unwrap();
        assert_eq!((long(forth_tcp, 4), short(forth_tcp, 0)), (105, 40_000));
        let (_, back_tcp) = tcp(back).unwrap();
        assert_eq!((long(back_tcp, 4), short(back_tcp, 0)), (9, 2888));
        assert_eq!(back[VIRTIO_HEADER + 12..VIRTIO_HEADER + 16], B.octets());
        for frame in [forth, back] {
            let packet = &frame[VIRTIO_HEADER..];
            assert_eq!(fold(sum(&packet[..20])), 0xffff);
            let pseudo = sum(&packet[12..20]) + u64::from(TCP) + 20;
            assert_eq!(fold(pseudo + sum(&packet[20..])), 0xffff);
        }
        assert!(flows.break_off(A, B, false).is_empty(), "they are broken");
    }

    #[test]
    fn a_fin_counts_and_a_reset_ends_it() {
        let mut flows = Flows::default();
        flows.note(&segment((1, 2181), 100, 7, ACK | FIN, b"x"));
        flows.note(&segment((2, 2181), 100, 7, ACK, b"x"));
        flows.note(&segment((2, 2181), 101, 7, RST, b""));
        flows.note(&segment((3, 3888), 1, 2, ACK, b""));
        let servers = flows.break_off(A, B, true);
        assert_eq!(servers.len(), 1);
        let frames = flows.break_off(A, B, false);
        assert_eq!(frames.len(), 1);
        assert_eq!(long(tcp(&frames[0].0).unwrap().1, 4), 102);
    }

    #[test]
    fn only_the_servers_ports_are_between_servers() {
        assert!(is_between_servers(&segment((5, 2888), 1, 1, ACK, b"")));
        assert!(is_between_servers(&segment((3888, 5), 1, 1, ACK, b"")));
        assert!(!is_between_servers(&segment((5, 2181), 1, 1, ACK, b"")));
        assert!(!is_between_servers(&[0; 24]) && !is_between_servers(&[]));
    }
}
