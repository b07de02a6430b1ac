//! The system calls of the watch over syncs that are unsafe to say: a filter that a child installs between fork and
//! exec, and the conversation with the kernel about the calls that it holds up.
//!
//! Every function here is a thin, safe wrapper; none of them decides anything. It works for every program, also a
//! static one and a JVM, and needs no rights. The kernel holds a trapped call up until it is answered, and answers it
//! itself with an error once nobody listens.

#![expect(
    unsafe_code,
    reason = "seccomp has no safe form, and nix has none for it either"
)]

use std::io::{self, IoSliceMut};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use tokio::process::Command;

/// The machine whose system calls are meant; calls of another word size are let through.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_003e
};

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Names it in the answer.
    pub(super) id: u64,
    /// The thread that made it.
    pub(super) thread: u32,
    /// Its first argument.
    pub(super) fd: RawFd,
    /// Which call it is.
    pub(super) call: Call,
}

/// What a held call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `fsync`.
    Sync,
    /// `fdatasync`: it may leave the file's times alone.
    DataSync,
    /// One of the calls that write to files.
    Write(Write),
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Where in the file, if the call says it.
    pub(super) at: Option<u64>,
    /// How many bytes; 1 of a call that gathers them from several places.
    pub(super) length: u64,
}

impl Call {
    fn of(data: &libc::seccomp_data) -> Self {
        let [_, _, third, fourth, ..] = data.args;
        let write = |at, length| Self::Write(Write { at, length });
        match libc::c_long::from(data.nr) {
            libc::SYS_fsync => Self::Sync,
            libc::SYS_fdatasync => Self::DataSync,
            libc::SYS_pwrite64 => write(Some(fourth), third),
            libc::SYS_pwritev | libc::SYS_pwritev2 => write(Some(fourth), 1),
            libc::SYS_writev => write(None, 1),
            libc::SYS_fallocate => write(Some(third), fourth),
            _ => write(None, third),
        }
    }
}

/// Lets `command` hand over its syncs, and its writes if that is wanted; the listener comes out of what is returned once the child runs.
pub(super) fn trap(command: &mut Command, writes: bool) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::Datagram,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    // SAFETY: the closure makes system calls on numbers and on its own stack; it neither allocates nor takes a
    // lock, so it may run in the child of a fork.
    unsafe { command.pre_exec(move || install(theirs.as_raw_fd(), writes)) };
    Ok(ours)
}

/// Installs the filter in this process and sends its listener through `socket`.
fn install(socket: RawFd, writes: bool) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let say = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let call = |number: libc::c_long| number as u32;
    // Little-endian: the lower half comes first.
    let third_argument = offset_of!(libc::seccomp_data, args) as u32 + 16;
    // From the first of these calls on to where they are handed over, or let through.
    let placed = if writes { 9 } else { 5 };
    let mut filter = [
        say(LOAD, 0, 0, offset_of!(libc::seccomp_data, arch) as u32),
        say(IS, 0, 10, MACHINE),
        say(LOAD, 0, 0, offset_of!(libc::seccomp_data, nr) as u32),
        say(IS, 12, 0, call(libc::SYS_fsync)),
        say(IS, 11, 0, call(libc::SYS_fdatasync)),
        // What goes through a ring is not seen: whoever asks for one is told that there is none.
        say(IS, 11, 0, call(libc::SYS_io_uring_setup)),
        say(IS, placed, 0, call(libc::SYS_pwrite64)),
        say(IS, placed - 1, 0, call(libc::SYS_writev)),
        say(IS, placed - 2, 0, call(libc::SYS_pwritev)),
        say(IS, placed - 3, 0, call(libc::SYS_pwritev2)),
        say(IS, placed - 4, 0, call(libc::SYS_fallocate)),
        say(IS, u8::from(writes), 0, call(libc::SYS_write)),
        say(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        // A child whose exec fails writes 8 bytes about it to its parent, which does not answer calls before that.
        say(LOAD, 0, 0, third_argument),
        say(IS, 0, 1, 8),
        say(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        say(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        say(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // A signal that does not kill must not break a sync off: the kernel would make it twice.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let patient = flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let set = |flags: libc::c_ulong| {
        // SAFETY: `program` and the instructions that it points to live until the call returns.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        Errno::result(fd)
    };
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let listener = match set(patient) {
        Err(Errno::EINVAL) => set(flags)?,
        other => other?,
    };
    send(socket, listener as RawFd)
}

/// Sends a descriptor, without allocating.
fn send(socket: RawFd, fd: RawFd) -> io::Result<()> {
    let mut byte = 0_u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // Room for one header with one descriptor, aligned as headers have to be.
    let mut control = [0_u64; 4];
    // SAFETY: a message is plain numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: sizes are computed from a number; CMSG_FIRSTHDR and CMSG_DATA give places inside `control`, which is
    // larger than CMSG_SPACE of one descriptor and lives until the call returns.
    unsafe {
        let size = size_of::<RawFd>() as u32;
        message.msg_controllen = libc::CMSG_SPACE(size) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        Errno::result(libc::sendmsg(socket, &raw const message, 0))?;
    }
    Ok(())
}

/// The listener that the child has sent before it became the server.
pub(super) fn listener(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0_u8];
    let mut part = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut part, Some(&mut room), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let [fd] = fds[..]
        {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Err(io::Error::other("the child sent no listener"))
}

/// The next call that waits; `NotFound` if it was given up meanwhile.
pub(super) fn next(listener: impl AsFd) -> io::Result<Held> {
    // SAFETY: a notification is plain numbers; the kernel wants it zeroed.
    let mut held: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    ioctl(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_RECV,
        (&raw mut held).cast(),
    )?;
    Ok(Held {
        id: held.id,
        thread: held.pid,
        fd: held.data.args[0] as RawFd,
        call: Call::of(&held.data),
    })
}

/// Whether the call still waits. What was read of its process is only good if it does.
pub(super) fn still_waits(listener: impl AsFd, held: Held) -> bool {
    let mut id = held.id;
    ioctl(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
        (&raw mut id).cast(),
    )
    .is_ok()
}

/// Lets the call return success, or this error number.
pub(super) fn answer(listener: impl AsFd, held: Held, result: Result<(), i32>) -> io::Result<()> {
    respond(listener, held, -result.err().unwrap_or(0), 0)
}

/// Lets the kernel carry the call out.
pub(super) fn go_on(listener: impl AsFd, held: Held) -> io::Result<()> {
    respond(
        listener,
        held,
        0,
        libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    )
}

fn respond(listener: impl AsFd, held: Held, error: i32, flags: u32) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id: held.id,
        val: 0,
        error,
        flags,
    };
    ioctl(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_SEND,
        (&raw mut answer).cast(),
    )
}

fn ioctl(listener: impl AsFd, request: libc::Ioctl, value: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: every caller passes a live value of the type that the request is made for.
    let done = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), request, value) };
    Errno::result(done).map(drop).map_err(Into::into)
}

/// Whether this kernel hands calls over.
pub(super) fn is_supported() -> bool {
    let action = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the kernel reads one number, which lives until the call returns.
    let found = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    found == 0
}
