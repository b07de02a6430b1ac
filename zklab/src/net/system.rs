//! The system calls of the network that are unsafe to say: ioctls on sockets and TUN devices, packet
//! sockets, and a fork that never executes another program. Everything else goes through `nix`.
//!
//! Every function here is a thin, safe wrapper; none of them decides anything.

#![expect(
    unsafe_code,
    reason = "ioctl and fork have no safe form, and nix has none for these either"
)]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{ForkResult, Pid, fork};

/// Bytes of an interface name, with the final zero.
const NAME_SIZE: usize = 16;

/// `struct ifreq` of Linux: a name and 24 bytes whose meaning depends on the request.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; NAME_SIZE],
    value: [u8; 24],
}

impl InterfaceRequest {
    fn new(name: &str) -> Self {
        assert!(name.len() < NAME_SIZE, "interface names are the lab's own");
        let mut request = Self {
            name: [0; NAME_SIZE],
            value: [0; 24],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }

    fn flags(name: &str, flags: i32) -> Self {
        let mut request = Self::new(name);
        let flags = i16::try_from(flags).expect("interface flags fit in 16 bits");
        request.value[..2].copy_from_slice(&flags.to_ne_bytes());
        request
    }

    fn number(name: &str, number: i32) -> Self {
        let mut request = Self::new(name);
        request.value[..4].copy_from_slice(&number.to_ne_bytes());
        request
    }

    /// `struct sockaddr_in` without a port.
    fn address(name: &str, address: Ipv4Addr) -> Self {
        let mut request = Self::new(name);
        let family = u16::try_from(libc::AF_INET).expect("address families are small");
        request.value[..2].copy_from_slice(&family.to_ne_bytes());
        request.value[4..8].copy_from_slice(&address.octets());
        request
    }

    fn send(&mut self, fd: impl AsFd, request: libc::Ioctl) -> io::Result<()> {
        // SAFETY: `self` is a live `struct ifreq` (40 bytes, checked below), which is what every request
        // of this module takes; the kernel neither reads nor writes beyond it and keeps no reference.
        let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &raw mut *self) };
        nix::errno::Errno::result(done)
            .map(drop)
            .map_err(Into::into)
    }
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Makes a TUN device in the network namespace of the calling thread. Packets are read and written with
/// a virtio header of 10 bytes before them.
///
/// # Errors
/// If `/dev/net/tun` cannot be opened or the namespace is not ours.
pub(super) fn open_tun(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let device = nix::fcntl::open("/dev/net/tun", flags, nix::sys::stat::Mode::empty())?;
    let kind = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    InterfaceRequest::flags(name, kind).send(&device, libc::TUNSETIFF)?;
    Ok(device)
}

/// What the kernel may leave to whoever reads the TUN device: checksums always; with `large` also the
/// cutting of a big segment into packets.
///
/// # Errors
/// If the kernel is older than the flags.
pub(super) fn set_tun_offload(device: &OwnedFd, large: bool) -> io::Result<()> {
    let checksum = libc::TUN_F_CSUM;
    let flags = if large {
        checksum | libc::TUN_F_TSO4 | libc::TUN_F_TSO6
    } else {
        checksum
    };
    let flags = libc::c_ulong::from(flags);
    // SAFETY: TUNSETOFFLOAD takes its flags by value; no memory is involved.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
    nix::errno::Errno::result(done)
        .map(drop)
        .map_err(Into::into)
}

/// Gives an interface an IPv4 address in a network of 24 bits; `control` is any socket of its namespace.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn set_address(control: &OwnedFd, name: &str, address: Ipv4Addr) -> io::Result<()> {
    InterfaceRequest::address(name, address).send(control, libc::SIOCSIFADDR)?;
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    InterfaceRequest::address(name, mask).send(control, libc::SIOCSIFNETMASK)
}

/// How many packets wait for the reader of an interface before the kernel drops some.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn set_queue_length(control: &OwnedFd, name: &str, packets: i32) -> io::Result<()> {
    InterfaceRequest::number(name, packets).send(control, libc::SIOCSIFTXQLEN)
}

/// Switches an interface on.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn set_up(control: &OwnedFd, name: &str) -> io::Result<()> {
    InterfaceRequest::flags(name, libc::IFF_UP | libc::IFF_RUNNING)
        .send(control, libc::SIOCSIFFLAGS)
}

/// Switches an interface on that sends to everybody without asking for hardware addresses.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn set_up_without_arp(control: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_NOARP;
    InterfaceRequest::flags(name, flags).send(control, libc::SIOCSIFFLAGS)
}

/// Whether an interface takes segments that are still to be cut into packets (`ETHTOOL_STSO`).
///
/// # Errors
/// If the kernel refuses.
pub(super) fn set_segmentation_offload(
    control: &OwnedFd,
    name: &str,
    large: bool,
) -> io::Result<()> {
    const ETHTOOL_STSO: u32 = 0x1f;
    // `struct ethtool_value`: the command and its number.
    let mut value = [ETHTOOL_STSO, u32::from(large)];
    let place = (&raw mut value).expose_provenance().to_ne_bytes();
    let mut request = InterfaceRequest::new(name);
    request.value[..place.len()].copy_from_slice(&place);
    // What `send` promises of the request holds for `value` too: it outlives the call, and it is all that
    // this command reads.
    request.send(control, libc::SIOCETHTOOL)
}

/// A packet socket in the network namespace of the calling thread, which hears nothing before it is bound.
/// Packets are read and written with a virtio header of 10 bytes before them.
///
/// # Errors
/// If the namespace is not ours.
pub(super) fn open_packet_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    let yes: libc::c_int = 1;
    // SAFETY: the option takes an `int`, which lives until the call returns; its size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_VNET_HDR,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(done)?;
    Ok(socket)
}

/// `PACKET_VNET_HDR` of `linux/if_packet.h`.
const PACKET_VNET_HDR: libc::c_int = 15;

/// From now on the packet socket hears the IPv4 packets that arrive at interface number `index`, and sends
/// over it.
///
/// # Errors
/// If there is no such interface.
pub(super) fn bind_packet_socket(socket: &OwnedFd, index: i32) -> io::Result<()> {
    let family = u16::try_from(libc::AF_PACKET).expect("address families are small");
    let protocol = u16::try_from(libc::ETH_P_IP).expect("ether types have 16 bits");
    let address = libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole `struct sockaddr_ll`, whose size is given; the kernel copies it.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(done)
        .map(drop)
        .map_err(Into::into)
}

/// Forks a process that does nothing but wait until every other holder of `life`'s write end is gone, and
/// ends then. Forked by a thread that has just unshared its PID namespace, it is the first process of the
/// new one: the kernel kills all others in it when it ends, whatever sessions or groups they made.
///
/// # Errors
/// If there can be no more processes.
pub(super) fn fork_first_process(life: &OwnedFd) -> io::Result<Pid> {
    let life = life.as_raw_fd();
    // SAFETY: the child of a fork in a process with threads may only make system calls. `first_process`
    // makes nothing else: it allocates nothing, takes no lock and never returns.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => first_process(life),
    }
}

fn first_process(life: libc::c_int) -> ! {
    // SAFETY: system calls on plain numbers and on live local buffers only. Closing every descriptor is
    // right because this process uses none but `life`, moved to 0 first; nothing here owns another.
    unsafe {
        // Orphans of the namespace become this process's children and need not be waited for.
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::dup2(life, 0);
        libc::close_range(1, libc::c_uint::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"zklab-init".as_ptr());
        let mut byte = 0_u8;
        loop {
            let count = libc::read(0, (&raw mut byte).cast(), 1);
            let interrupted = count < 0 && *libc::__errno_location() == libc::EINTR;
            if !interrupted {
                libc::_exit(0);
            }
        }
    }
}
