//! The two things the lab asks of the kernel's routing socket: a veth pair, and the answer.
//!
//! A message is a header, a `struct ifinfomsg` and attributes: length, type, value, padded to four bytes;
//! values may be attributes again (see rtnetlink(7), and `include/uapi/linux/if_link.h` for the numbers).
//! One kind of message does not pay for a crate that knows all of them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, sendto, socket};

/// `VETH_INFO_PEER`, which the kernel's headers keep apart from all others.
const VETH_INFO_PEER: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its number; 0 lets the kernel choose.
    pub(super) index: i32,
    /// Its hardware address; none lets the kernel choose.
    pub(super) hardware: Option<[u8; 6]>,
    /// `IFF_…`, in force as soon as it exists.
    pub(super) flags: i32,
    /// The network namespace it is born in; none is that of the socket.
    pub(super) space: Option<&'a OwnedFd>,
}

/// A routing socket of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Routing {
    socket: OwnedFd,
    seq: u32,
}

impl Routing {
    /// Opens one in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket, seq: 0 })
    }

    /// Makes a veth pair.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn make_veth(&mut self, near: End<'_>, far: End<'_>) -> io::Result<()> {
        self.seq += 1;
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let message = veth_message(self.seq, flags, near, far);
        sendto(
            self.socket.as_raw_fd(),
            &message,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        self.acknowledged()
    }

    /// Waits for the kernel's answer to the last message.
    fn acknowledged(&self) -> io::Result<()> {
        let mut answer = [0; 4096];
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            if let Some(result) = verdict(&answer[..count], self.seq) {
                return result;
            }
        }
    }
}

/// What the kernel says to message number `seq`, if this is its answer.
fn verdict(answer: &[u8], seq: u32) -> Option<io::Result<()>> {
    let word = |at: usize| Some(u32::from_ne_bytes(*answer.get(at..at + 4)?.first_chunk()?));
    let kind = u16::from_ne_bytes(*answer.get(4..6)?.first_chunk()?);
    if i32::from(kind) != libc::NLMSG_ERROR || word(8)? != seq {
        return None;
    }
    // A negative error number; zero is success.
    Some(match word(HEADER)?.cast_signed() {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    })
}

fn veth_message(seq: u32, flags: i32, near: End<'_>, far: End<'_>) -> Vec<u8> {
    let mut message = vec![0; HEADER];
    interface(&mut message, near);
    nested(&mut message, libc::IFLA_LINKINFO, |info| {
        attribute(info, libc::IFLA_INFO_KIND, b"veth");
        nested(info, libc::IFLA_INFO_DATA, |data| {
            nested(data, VETH_INFO_PEER, |peer| interface(peer, far));
        });
    });
    let length = u32::try_from(message.len()).expect("a message of a few hundred bytes");
    let flags = u16::try_from(flags).expect("flags of 16 bits");
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[8..12].copy_from_slice(&seq.to_ne_bytes());
    message
}

/// A `struct ifinfomsg` and what belongs to an end.
fn interface(message: &mut Vec<u8>, end: End<'_>) {
    // Family, padding and type are left to the kernel.
    message.extend([0; 4]);
    message.extend(end.index.to_ne_bytes());
    message.extend(end.flags.to_ne_bytes());
    // Every flag given is meant.
    message.extend(end.flags.to_ne_bytes());
    let name = [end.name.as_bytes(), &[0]].concat();
    attribute(message, libc::IFLA_IFNAME, &name);
    if let Some(hardware) = end.hardware {
        attribute(message, libc::IFLA_ADDRESS, &hardware);
    }
    if let Some(space) = end.space {
        attribute(
            message,
            libc::IFLA_NET_NS_FD,
            &space.as_raw_fd().to_ne_bytes(),
        );
    }
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("values are short");
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn nested(message: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    fill(&mut value);
    attribute(message, kind, &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_its_bytes_and_pads_them() {
        let near = End {
            name: "v1",
            index: 101,
            hardware: None,
            flags: libc::IFF_UP,
            space: None,
        };
        let far = End {
            name: "zk0",
            index: 0,
            hardware: Some([2, 0, 0, 0, 0, 1]),
            flags: libc::IFF_UP | libc::IFF_NOARP,
            space: None,
        };
        let message = veth_message(7, libc::NLM_F_REQUEST, near, far);
        assert_eq!(message.len() % 4, 0);
        assert_eq!(
            message[0..4],
            u32::try_from(message.len()).unwrap().to_ne_bytes()
        );
        assert_eq!(message[8..12], 7_u32.to_ne_bytes());
        assert_eq!(message[20..24], 101_i32.to_ne_bytes());
        // The name is the first attribute: 4 bytes of head, `v1` and a zero, padded.
        assert_eq!(message[32..40], [7, 0, 3, 0, b'v', b'1', 0, 0]);
        let holds = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
        assert!(holds(b"veth") && holds(b"zk0\0") && holds(&[2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn the_answer_to_another_message_is_passed_over() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&u16::try_from(libc::NLMSG_ERROR).unwrap().to_ne_bytes());
        answer[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        assert!(verdict(&answer, 8).is_none());
        assert!(verdict(&answer, 7).unwrap().is_ok());
        answer[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        let error = verdict(&answer, 7).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(verdict(&answer[..10], 7).is_none());
    }
}
