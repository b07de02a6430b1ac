//! Where the emulator reads what a node sends and writes what it receives: a TUN device in the node's
//! namespace, or a packet socket on the other end of a veth pair.
//!
//! To the emulator both look the same: a frame is a virtio header and an IP packet. A packet socket has an
//! Ethernet header between the two, which is taken out and put in here.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{read, write};

use super::checksum::VIRTIO_HEADER;
use super::system;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;
/// Where the virtio header counts from the start of the packet: the length of all headers, and the place
/// where the checksum begins.
const COUNTED: [usize; 2] = [2, 6];
/// `flags` of the virtio header: the checksum is still to be computed.
const NEEDS_CHECKSUM: u8 = 1;

/// One node's end.
#[derive(Debug)]
pub(super) enum Device {
    /// A TUN device.
    Tun(OwnedFd),
    /// A packet socket.
    Packet(PacketSocket),
}

/// A packet socket on one end of a veth pair.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: File,
    /// A socket in the namespace of the node, to speak with its end of the pair.
    control: OwnedFd,
    /// The name of that end.
    interface: &'static str,
    /// The header that the node's end takes.
    ethernet: [u8; ETHERNET_HEADER],
}

impl PacketSocket {
    /// `hardware` is the address of the node's end, which is also the sender of everything.
    pub(super) fn new(
        socket: OwnedFd,
        control: OwnedFd,
        interface: &'static str,
        hardware: [u8; 6],
    ) -> Self {
        let [a, b, c, d, e, f] = hardware;
        Self {
            socket: File::from(socket),
            control,
            interface,
            // To, from, and the type of IPv4.
            ethernet: [a, b, c, d, e, f, a, b, c, d, e, f, 8, 0],
        }
    }

    fn read(&self, frame: &mut [u8]) -> io::Result<usize> {
        let mut head = [0; VIRTIO_HEADER + ETHERNET_HEADER];
        let (virtio, packet) = frame.split_at_mut(VIRTIO_HEADER);
        let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(packet)];
        let count = (&self.socket).read_vectored(&mut parts)?;
        virtio.copy_from_slice(&head[..VIRTIO_HEADER]);
        shift(virtio, |place| place.saturating_sub(ETHERNET_HEADER as u16));
        Ok(count.saturating_sub(ETHERNET_HEADER))
    }

    fn write(&self, frame: &[u8]) -> io::Result<()> {
        let (virtio, packet) = frame.split_at(VIRTIO_HEADER);
        let mut head = [0; VIRTIO_HEADER + ETHERNET_HEADER];
        head[..VIRTIO_HEADER].copy_from_slice(virtio);
        shift(&mut head[..VIRTIO_HEADER], |place| {
            place.saturating_add(ETHERNET_HEADER as u16)
        });
        head[VIRTIO_HEADER..].copy_from_slice(&self.ethernet);
        let parts = [IoSlice::new(&head), IoSlice::new(packet)];
        (&self.socket).write_vectored(&parts).map(drop)
    }
}

/// Moves what a virtio header counts from the start of the packet, if it counts anything.
fn shift(virtio: &mut [u8], moved: impl Fn(u16) -> u16) {
    let is_used = virtio[0] & NEEDS_CHECKSUM != 0 || virtio[1] != 0;
    for at in COUNTED {
        if is_used {
            let place = u16::from_ne_bytes([virtio[at], virtio[at + 1]]);
            virtio[at..at + 2].copy_from_slice(&moved(place).to_ne_bytes());
        }
    }
}

impl Device {
    /// Reads a frame; its length.
    pub(super) fn read(&self, frame: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tun(device) => Ok(read(device, frame)?),
            Self::Packet(socket) => socket.read(frame),
        }
    }

    /// Writes a frame.
    pub(super) fn write(&self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Tun(device) => Ok(write(device, frame).map(drop)?),
            Self::Packet(socket) => socket.write(frame),
        }
    }

    /// Whether the node's kernel may leave it to the reader to cut big segments into packets.
    pub(super) fn set_offload(&self, large: bool) -> io::Result<()> {
        match self {
            Self::Tun(device) => system::set_tun_offload(device, large),
            Self::Packet(socket) => {
                system::set_segmentation_offload(&socket.control, socket.interface, large)
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(device) => device.as_fd(),
            Self::Packet(socket) => socket.socket.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_with_the_ethernet_header_and_only_where_they_count() {
        let mut virtio = [NEEDS_CHECKSUM, 1, 54, 0, 0, 0, 34, 0, 16, 0];
        shift(&mut virtio, |place| place - 14);
        assert_eq!(virtio, [NEEDS_CHECKSUM, 1, 40, 0, 0, 0, 20, 0, 16, 0]);
        let mut plain = [0; VIRTIO_HEADER];
        shift(&mut plain, |place| place + 14);
        assert_eq!(plain, [0; VIRTIO_HEADER]);
    }
}
