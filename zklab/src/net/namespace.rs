//! A network namespace for every node, one PID namespace for all their processes, and the thread that
//! works inside them.
//!
//! Nothing has a name in the file system: the namespaces are held by file descriptors and by the processes
//! in them, so they end with the supervisor, however that ends. The first process of the PID namespace
//! reads from a pipe whose other end only the supervisor has; when the supervisor is gone it ends, and the
//! kernel kills every other process of the namespace with it, `setsid` or not.
//!
//! A thread that enters a network namespace can, as an ordinary user, never come back. Hence one thread
//! lives in there ([`Keeper`]) and does what has to be done inside; the others only get descriptors.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getgid, getuid, pipe2};

use super::NetKind;
use super::device::{Device, PacketSocket};
use super::rtnetlink::{End, Routing};
use super::system;
use crate::failure::{Context, Failure};

/// The interface of a node, beside `lo`.
pub(super) const INTERFACE: &str = "zk0";
/// The number of the first interface of the hub; `lo` has number 1.
const FIRST_INDEX: i32 = 2;
/// Packets that may wait for the emulator on one node.
const QUEUE_PACKETS: i32 = 4000;
/// The hardware address of every node's interface. All have the same one: nobody asks for it, and what a node
/// sends arrives at the others as if it were meant for them.
const HARDWARE: [u8; 6] = [0x02, 0x7a, 0x6b, 0, 0, 1];
/// What a packet socket holds for the emulator, where we may choose: some dozens of the largest segments.
const RECEIVE_BYTES: usize = 8 << 20;
/// CAP_NET_ADMIN and CAP_SYS_ADMIN, as bits of `CapEff`.
const ADMIN: u64 = 1 << 12 | 1 << 21;

/// Makes this process able to make namespaces. Root is already; an ordinary user enters a user namespace
/// in which it keeps its own id, so that files and signals are as before. To be called while the process
/// has one thread.
///
/// # Errors
/// If user namespaces are barred here; says what would open them.
pub fn enter_user_namespace() -> Result<(), Failure> {
    if !needs_user_namespace() {
        return Ok(());
    }
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .doing(|| "user namespaces are barred here".to_owned())
        .map_err(|failure| failure.hint(opening_user_namespaces()))?;
    let map =
        |file: &str, text: String| fs::write(file, text).doing(|| format!("cannot write {file}"));
    // Where this file is missing (before Linux 3.19) nothing is to be denied.
    let _ = fs::write("/proc/self/setgroups", "deny");
    map("/proc/self/uid_map", format!("{uid} {uid} 1"))
        .map_err(|failure| failure.hint(opening_user_namespaces()))?;
    map("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    IN_OWN.store(true, Ordering::Relaxed);
    Ok(())
}

/// Has [`enter_user_namespace`] made one?
#[must_use]
pub fn is_in_own_user_namespace() -> bool {
    IN_OWN.load(Ordering::Relaxed)
}

/// A process is in one user namespace for good, so this may be global.
static IN_OWN: AtomicBool = AtomicBool::new(false);

/// Does this process lack the rights to make namespaces of other kinds?
#[must_use]
pub fn needs_user_namespace() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_none_or(|bits| bits & ADMIN != ADMIN)
}

/// The one command that lets ordinary users have user namespaces on this machine.
fn opening_user_namespaces() -> String {
    let is =
        |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0".to_owned()
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl kernel.unprivileged_userns_clone=1".to_owned()
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "sudo sysctl user.max_user_namespaces=10000".to_owned()
    } else {
        "use `--net loopback`, or run as root".to_owned()
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Holds the namespaces of a lab and works inside them.
pub(super) struct Keeper {
    jobs: mpsc::Sender<Job>,
    /// By place; one without a node has none.
    spaces: Mutex<Vec<Option<OwnedFd>>>,
    /// Where one end of every veth pair is, and the number of the next.
    hub: Option<(OwnedFd, AtomicI32)>,
    first_process: Pid,
    /// The first process lives as long as this is open.
    _life: OwnedFd,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} namespaces", self.spaces().len())
    }
}

/// What the keeper's thread has made.
struct Made {
    spaces: Vec<OwnedFd>,
    devices: Vec<Device>,
    hub: Option<OwnedFd>,
    first_process: Pid,
    life: OwnedFd,
}

impl Keeper {
    /// Makes a namespace for each address, with a device that has it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn start(
        kind: NetKind,
        addresses: Vec<Ipv4Addr>,
    ) -> Result<(Self, Vec<Device>), Failure> {
        let (jobs, work) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn(move || {
                let made = make(kind, &addresses);
                let is_made = made.is_ok();
                if tell.send(made).is_ok() && is_made {
                    work.into_iter().for_each(|job| job());
                }
            })
            .doing(|| "cannot start a thread".to_owned())?;
        let made = told
            .recv()
            .doing(|| "the thread of the namespaces died".to_owned())??;
        let next = FIRST_INDEX + i32::try_from(made.spaces.len()).unwrap_or(i32::MAX);
        let keeper = Self {
            jobs,
            hub: made.hub.map(|hub| (hub, AtomicI32::new(next))),
            spaces: Mutex::new(made.spaces.into_iter().map(Some).collect()),
            first_process: made.first_process,
            _life: made.life,
        };
        Ok((keeper, made.devices))
    }

    /// Does something inside the namespace of node number `index` and waits for the result.
    ///
    /// # Errors
    /// What `work` says, or that the namespace cannot be entered.
    pub(super) fn within<T: Send + 'static>(
        &self,
        index: usize,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let space = self
            .space(index)
            .ok_or_else(|| io::Error::other("that node is gone"))?;
        // The keeper outlives this call, and whoever takes a node away waits until nothing works inside it.
        self.work(move || enter(space).and_then(|()| work()))?
    }

    /// Does something on the thread of the namespaces and waits for the result.
    fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (tell, told) = mpsc::sync_channel(1);
        let job = move || {
            // Nobody waits if the caller panicked.
            let _ = tell.send(work());
        };
        let gone = || io::Error::other("the thread of the namespaces has ended");
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())
    }

    /// Makes one more namespace, for the node at this place; the emulator's end of its interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn join(&self, place: usize, address: Ipv4Addr) -> Result<Device, Failure> {
        let hub = self.hub.as_ref().map(|(hub, next)| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            (hub.as_raw_fd(), index)
        });
        let (space, device) = self
            .work(move || one_more(hub, address))
            .doing(|| "cannot make a namespace".to_owned())??;
        let mut spaces = self.spaces();
        if spaces.len() <= place {
            spaces.resize_with(place + 1, || None);
        }
        spaces[place] = Some(space);
        Ok(device)
    }

    /// Lets go of the namespace at this place. The kernel removes it with the last process and socket in it.
    pub(super) fn leave(&self, place: usize) {
        let space = self.spaces()[place].take();
        // Nothing that still waits for its turn finds another file under this number.
        drop(self.work(move || drop(space)));
    }

    fn spaces(&self) -> MutexGuard<'_, Vec<Option<OwnedFd>>> {
        self.spaces
            .lock()
            .expect("nobody panics while holding the namespaces")
    }

    /// The descriptor of a node's network namespace, in this process; none if the node is gone.
    pub(super) fn space(&self, place: usize) -> Option<RawFd> {
        let spaces = self.spaces();
        let space = spaces.get(place)?.as_ref()?;
        Some(space.as_raw_fd())
    }

    /// The first process of the PID namespace, as this process sees it.
    pub(super) fn first_process(&self) -> Pid {
        self.first_process
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It ends when `_life` is closed; what is still in its namespace ends with it. Waiting here could
        // wait for children that only the caller can reap.
        let _ = waitpid(self.first_process, Some(WaitPidFlag::WNOHANG));
    }
}

fn make(kind: NetKind, addresses: &[Ipv4Addr]) -> Result<Made, Failure> {
    let cannot = || "cannot make namespaces".to_owned();
    unshare(CloneFlags::CLONE_NEWPID).doing(cannot)?;
    let (end, life) = pipe2(OFlag::O_CLOEXEC).doing(cannot)?;
    let first_process = {
        // In the child this end must not stay open, or it would wait for itself: it closes everything
        // but the end it reads from.
        system::fork_first_process(&end).doing(cannot)?
    };
    drop(end);
    match spaces(kind, addresses) {
        Ok((spaces, devices, hub)) => Ok(Made {
            spaces,
            devices,
            hub,
            first_process,
            life,
        }),
        Err(failure) => {
            drop(life);
            // It ends at once, now that nobody holds the other end of its pipe.
            let _ = waitpid(first_process, None);
            Err(failure)
        }
    }
}

/// Enters the namespace behind a descriptor of this process.
fn enter(space: RawFd) -> io::Result<()> {
    let space = File::open(format!("/proc/self/fd/{space}"))?;
    Ok(setns(space, CloneFlags::CLONE_NEWNET)?)
}

/// The network namespace of the calling thread.
fn own_space() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// One more namespace with this address. With `hub`, the namespace of the other ends and the number of the next one.
fn one_more(hub: Option<(RawFd, i32)>, address: Ipv4Addr) -> Result<(OwnedFd, Device), Failure> {
    let cannot = || "cannot make a namespace".to_owned();
    let mut hub = match hub {
        Some((hub, index)) => {
            enter(hub).doing(cannot)?;
            Some(Hub::open(1, index)?)
        }
        None => None,
    };
    unshare(CloneFlags::CLONE_NEWNET).doing(cannot)?;
    let space = own_space().doing(cannot)?;
    let device = furnish(address, &space, hub.as_mut())?;
    Ok((space, device))
}

type Spaces = (Vec<OwnedFd>, Vec<Device>, Option<OwnedFd>);

/// A namespace for each address, and the emulator's end of its interface; the hub, if there is one.
fn spaces(kind: NetKind, addresses: &[Ipv4Addr]) -> Result<Spaces, Failure> {
    let cannot = || "cannot make namespaces".to_owned();
    let mut hub = match kind {
        NetKind::Packet => {
            unshare(CloneFlags::CLONE_NEWNET).doing(cannot)?;
            let space = own_space().doing(cannot)?;
            Some((Hub::open(addresses.len(), FIRST_INDEX)?, space))
        }
        _ => None,
    };
    let mut spaces = Vec::new();
    let mut devices = Vec::new();
    for address in addresses {
        unshare(CloneFlags::CLONE_NEWNET).doing(cannot)?;
        let space = own_space().doing(cannot)?;
        let open = hub.as_mut().map(|(hub, _)| hub);
        devices.push(furnish(*address, &space, open)?);
        spaces.push(space);
    }
    Ok((spaces, devices, hub.map(|(_, space)| space)))
}

/// The namespace in which one end of every veth pair is, while pairs are made.
struct Hub {
    routing: Routing,
    /// Not bound yet, the next one last.
    sockets: Vec<OwnedFd>,
    /// The number of the next end.
    index: i32,
}

impl Hub {
    /// Opens so many sockets in the namespace of the calling thread, which is the hub; `index` is the number of the
    /// next end in it.
    fn open(count: usize, index: i32) -> Result<Self, Failure> {
        let cannot = || "cannot open packet sockets".to_owned();
        let sockets = (0..count).map(|_| {
            let socket = system::open_packet_socket()?;
            // Only root of the machine may have more than the machine's limit.
            let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES);
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES);
            Ok(socket)
        });
        Ok(Self {
            routing: Routing::open().doing(cannot)?,
            sockets: sockets.collect::<io::Result<_>>().doing(cannot)?,
            index,
        })
    }

    /// A veth pair from here into `space`; the socket at this end.
    fn connect(&mut self, space: &OwnedFd) -> io::Result<OwnedFd> {
        let near = End {
            name: &format!("v{}", self.index),
            index: self.index,
            hardware: None,
            flags: nix::libc::IFF_UP,
            space: None,
        };
        let far = End {
            name: INTERFACE,
            index: 0,
            hardware: Some(HARDWARE),
            flags: 0,
            space: Some(space),
        };
        self.routing.make_veth(near, far)?;
        let socket = self.sockets.pop().expect("one was opened for each node");
        system::bind_packet_socket(&socket, self.index)?;
        self.index += 1;
        Ok(socket)
    }
}

/// Gives the namespace of the calling thread its interfaces.
fn furnish(address: Ipv4Addr, space: &OwnedFd, hub: Option<&mut Hub>) -> Result<Device, Failure> {
    let cannot = || format!("cannot set up the interface of {address}");
    let control = control_socket().doing(cannot)?;
    system::set_up(&control, "lo").doing(cannot)?;
    let device = match hub {
        Some(hub) => {
            let socket = hub
                .connect(space)
                .doing(|| "cannot make a veth pair".to_owned())?;
            system::set_address(&control, INTERFACE, address).doing(cannot)?;
            system::set_up_without_arp(&control, INTERFACE).doing(cannot)?;
            Device::Packet(PacketSocket::new(socket, control, INTERFACE, HARDWARE))
        }
        None => {
            let device = system::open_tun(INTERFACE)
                .doing(|| "cannot make a TUN device".to_owned())
                .map_err(|failure| failure.hint(opening_tun()))?;
            system::set_tun_offload(&device, true).doing(cannot)?;
            system::set_address(&control, INTERFACE, address).doing(cannot)?;
            // Only root of the machine may; an ordinary user has to do with the kernel's 500.
            let _ = system::set_queue_length(&control, INTERFACE, QUEUE_PACKETS);
            system::set_up(&control, INTERFACE).doing(cannot)?;
            Device::Tun(device)
        }
    };
    let gid = getgid();
    // So that `ping` needs no rights; where the kernel has no such switch, it does.
    let _ = fs::write(
        "/proc/sys/net/ipv4/ping_group_range",
        format!("{gid} {gid}"),
    );
    Ok(device)
}

/// The one command that lets this user make TUN devices.
fn opening_tun() -> String {
    if fs::exists("/dev/net/tun").unwrap_or(false) {
        "sudo chmod 666 /dev/net/tun, or use `--net packet`".to_owned()
    } else {
        "sudo modprobe tun, or use `--net packet`".to_owned()
    }
}

fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}
