//! The Internet checksum (RFC 1071), where the kernel left it to us, and flipped bits.
//!
//! A packet read from a device may come without its checksum: the kernel trusts whoever takes it over
//! to fill it in, or to pass the promise on. Passing it on is right while nothing touches the packet. One
//! that is to be corrupted must get its true checksum *first*, or else its receiver would never notice.

/// `flags` of the virtio header: the checksum is still to be computed.
const NEEDS_CHECKSUM: u8 = 1;
/// Bytes of the virtio header.
pub(super) const VIRTIO_HEADER: usize = 10;

/// Fills in the checksum of a frame that starts with a virtio header, if that is still to be done, and
/// takes back every promise of the header about checksums. False if the header makes no sense.
///
/// For a super-packet (one that is to be cut into several) there is no checksum to fill in yet; it is
/// left alone and the answer is false.
pub(super) fn complete(frame: &mut [u8]) -> bool {
    if frame.len() < VIRTIO_HEADER {
        return false;
    }
    let (header, packet) = frame.split_at_mut(VIRTIO_HEADER);
    let is_large = header[1] != 0;
    if is_large {
        return false;
    }
    if header[0] & NEEDS_CHECKSUM != 0 {
        let start = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        let place = start + usize::from(u16::from_ne_bytes([header[8], header[9]]));
        if place + 2 > packet.len() {
            return false;
        }
        // The place holds the sum over the pseudo header, as the sender left it.
        let sum = match !fold(sum(&packet[start..])) {
            // UDP: zero would mean "none".
            0 => 0xffff,
            sum => sum,
        };
        packet[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    }
    header.fill(0);
    true
}

/// Flips one bit of the packet in the frame: number `bit`, counted from the start of the packet and taken
/// modulo its size.
pub(super) fn flip_bit(frame: &mut [u8], bit: u64) {
    let Some(packet) = frame.get_mut(VIRTIO_HEADER..) else {
        return;
    };
    if packet.is_empty() {
        return;
    }
    let bit = usize::try_from(bit % (packet.len() as u64 * 8)).expect("below the packet's length");
    packet[bit / 8] ^= 1 << (bit % 8);
}

pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let even: u64 = pairs
        .iter()
        .map(|pair| u64::from(u16::from_be_bytes(*pair)))
        .sum();
    even + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A virtio header that asks for the checksum, and a "packet" whose bytes from 4 on are covered by
    /// the sum at 6.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; VIRTIO_HEADER];
        frame[0] = NEEDS_CHECKSUM;
        frame[6..8].copy_from_slice(&4_u16.to_ne_bytes());
        frame[8..10].copy_from_slice(&2_u16.to_ne_bytes());
        frame.extend([9, 9, 9, 9]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_completed_packet_sums_to_all_ones_and_any_flipped_bit_shows() {
        let mut frame = frame(&[0x12, 0x34, 0, 0, 0xff, 0xff, 0xab]);
        assert!(complete(&mut frame));
        assert_eq!(frame[0], 0);
        assert_eq!(fold(sum(&frame[VIRTIO_HEADER + 4..])), 0xffff);
        for bit in 32..88 {
            let mut bad = frame.clone();
            flip_bit(&mut bad, bit);
            assert_ne!(fold(sum(&bad[VIRTIO_HEADER + 4..])), 0xffff, "bit {bit}");
        }
    }

    #[test]
    fn what_cannot_be_completed_is_left_alone() {
        let mut large = frame(&[1, 2, 3, 4]);
        large[1] = 1;
        let before = large.clone();
        assert!(!complete(&mut large));
        assert_eq!(large, before);
        let mut short = frame(&[1, 2, 3]);
        assert!(!complete(&mut short), "the sum would lie behind the end");
        assert!(!complete(&mut [0; 4]));
        flip_bit(&mut [0; VIRTIO_HEADER], 5);
    }
}
