//! The process of a node: started so that it cannot outlive the supervisor, waited for without polling.
//!
//! The one place of this crate with `unsafe`: between fork and exec the child asks the kernel to be
//! killed when its parent dies. The kernel ties that to the parent's *thread*, so processes are only
//! started from the supervisor's main thread, which lives as long as the supervisor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, OFlag};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::NodeSpec;
use crate::clock::now_us;
use crate::disk::NodeDisk;
use crate::failure::{Context, Failure};
use crate::net::Network;

/// A process that was just started.
#[derive(Debug)]
pub struct Spawned {
    /// To wait for it.
    pub child: Child,
    /// To signal it.
    pub handle: Handle,
    /// Its event feed, if it writes one.
    pub feed: Option<pipe::Receiver>,
}

/// Names a running process; good until it has been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pid: Pid,
    /// When it was started, by the lab's clock.
    pub started_us: u64,
}

impl Handle {
    /// The process id.
    #[must_use]
    pub fn pid(self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn signal(self, signal: Signal) -> Result<(), Failure> {
        kill(self.pid, signal).doing(|| format!("cannot send {signal} to process {}", self.pid))
    }

    /// Is it stopped by SIGSTOP? As the kernel sees it now.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state is the word after the command, which is in parentheses and may hold anything.
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    /// Its resident memory in bytes; 0 once it is gone.
    #[must_use]
    pub fn resident_bytes(self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map_or(0, |kilobytes| kilobytes * 1024)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        Self {
            code: status.code(),
            signal: status.signal(),
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(number)) => match Signal::try_from(number) {
                Ok(signal) => f.write_str(signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
            (None, None) => f.write_str("an unknown end"),
        }
    }
}

/// Starts the server of `node`, its syncs handed over to `disk` if there is one. To be called on the supervisor's
/// main thread only.
///
/// # Errors
/// If the program cannot be started or the log cannot be written.
pub fn spawn(
    node: &NodeSpec,
    net: &dyn Network,
    disk: Option<&Arc<NodeDisk>>,
) -> Result<Spawned, Failure> {
    let log_file = node.log_file();
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log_file)
        .doing(|| format!("cannot write {}", log_file.display()))?;
    let errors = log
        .try_clone()
        .doing(|| "cannot share the log".to_owned())?;
    let (feed, theirs) = if node.server.has_feed() {
        let (read, write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).doing(|| "cannot make a pipe".to_owned())?;
        let feed = pipe::Receiver::from_owned_fd(read).doing(|| "cannot use a pipe".to_owned())?;
        (Some(feed), Some(write))
    } else {
        (None, None)
    };
    let (program, arguments) = node
        .server
        .command(&node.config_file(), theirs.as_ref().map(AsRawFd::as_raw_fd));
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .current_dir(&node.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(errors));
    prepare(&mut command, theirs, !net.ends_processes());
    let watching = || format!("cannot watch the disk of {}", node.id);
    let trap = disk
        .map(|disk| disk.trap(&mut command))
        .transpose()
        .doing(watching)?;
    let started_us = now_us();
    let child = net
        .spawn(node.id, command)
        .doing(|| format!("cannot start {}", program.display()))?;
    if let Some(trap) = trap {
        trap.keep().doing(watching)?;
    }
    let pid = child
        .id()
        .expect("a child that was not waited for has an id");
    let pid = Pid::from_raw(i32::try_from(pid).expect("process ids fit in 31 bits"));
    Ok(Spawned {
        child,
        handle: Handle { pid, started_us },
        feed,
    })
}

/// Hands the child the write end of its feed, and makes it die with this process if `bind` says so.
#[expect(
    unsafe_code,
    reason = "what a child does between fork and exec is unsafe to say"
)]
fn prepare(command: &mut Command, feed: Option<OwnedFd>, bind: bool) {
    let parent = nix::unistd::getpid();
    let prepare = move || -> io::Result<()> {
        if bind {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above: then nobody would send the signal any more.
            if getppid() != parent {
                return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
            }
        }
        if let Some(fd) = &feed {
            nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: the closure makes three system calls (prctl, getppid, fcntl) and neither allocates nor
    // takes a lock, so it may run in the child of a fork.
    unsafe { command.pre_exec(prepare) };
}
