//! The small process that takes away what a supervisor leaves when it is killed.
//!
//! The kernel ends a dead supervisor's servers and namespaces, but not its files: its home with the socket in it, and
//! the nodes' data. So a supervisor has a guard, started before it does anything else: in a session of its own, outside
//! the lab's namespaces, deaf to signals, and with nothing open but a descriptor of the supervisor's process. When that
//! has ended the guard does what the next zklab command would do, and ends. A lab that ends in order sends it home.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, getppid, setsid};

use super::home::Root;
use crate::failure::{Context, Failure};

/// The hidden subcommand that is the guard; the process to be guarded follows.
pub const GUARD: &str = "__guard";

/// The supervisor's end of it.
#[derive(Debug)]
pub struct Guard {
    process: Mutex<Option<Child>>,
}

impl Guard {
    /// Starts the guard of this process, which has to be as it was born: one thread, no descriptors of others, no
    /// namespaces of its own.
    ///
    /// # Errors
    /// If there can be no more processes.
    pub fn start() -> Result<Self, Failure> {
        let cannot = || "cannot start the lab's guard".to_owned();
        let program = std::env::current_exe().doing(cannot)?;
        let process = Command::new(program)
            .arg0("zklab")
            .arg(GUARD)
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing(cannot)?;
        Ok(Self {
            process: Mutex::new(Some(process)),
        })
    }

    /// Ends it: nothing is left to be taken away.
    pub fn dismiss(&self) {
        let process = self.process.lock().map(|mut process| process.take());
        if let Ok(Some(mut process)) = process {
            // Neither can fail for a child that was not waited for.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The guard, from its first instruction to its last; `word` is the process it guards.
pub fn run(word: &str) {
    let Ok(number) = word.parse() else { return };
    let supervisor = Pid::from_raw(number);
    // It fails only for the first process of a group, which is in no terminal's session then.
    let _ = setsid();
    // Signals that nobody lets through are as good as ignored.
    let _ = SigSet::all().thread_block();
    match process_descriptor(supervisor) {
        // Whoever has this number now is the supervisor only as long as it is this process's parent.
        Ok(process) if getppid() == supervisor => wait_for_end(&process),
        Ok(_) | Err(Errno::ESRCH) => {}
        // Before Linux 5.3 there are no such descriptors; the next command cleans up.
        Err(_) => return,
    }
    // Nobody would read why not.
    let _ = Root::sweep_after(supervisor);
}

fn wait_for_end(process: &OwnedFd) {
    let mut ends = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    while poll(&mut ends, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

/// A descriptor that becomes readable when the process has ended, all its threads included.
#[expect(
    unsafe_code,
    reason = "there is no safe word for this system call in the crates at hand"
)]
fn process_descriptor(process: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: a system call on two plain numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_noticed() {
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
        let descriptor = process_descriptor(pid).unwrap();
        let ends = |timeout| {
            let mut ends = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
            poll(&mut ends, timeout).unwrap()
        };
        assert_eq!(ends(PollTimeout::ZERO), 0);
        process.kill().unwrap();
        wait_for_end(&descriptor);
        assert_eq!(ends(PollTimeout::ZERO), 1);
        process.wait().unwrap();
        assert_eq!(process_descriptor(pid).unwrap_err(), Errno::ESRCH);
    }
}
