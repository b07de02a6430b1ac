//! Power cuts and bad disks: what of a node's files would survive, and syncs that are slow or fail.
//!
//! A process that is killed loses nothing that it wrote: the kernel has it. Only a power cut shows whether a server
//! syncs before it promises. So in labs that ask for it, every `fsync` and `fdatasync` of a server is held up by the
//! kernel and handed to a thread of the supervisor, which makes the sync itself, notes what is durable from then on,
//! and answers the call. Nothing else is slowed down, and the server notices nothing. See `ledger` for what is durable,
//! `seccomp` for how.

mod cut;
mod flip;
mod ledger;
mod seccomp;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use zkd::prng::Prng;

pub use self::cut::CutReport;
pub use self::flip::{Flip, Flipped};
use self::ledger::Ledger;
use self::seccomp::{Call, Held, Write};
use crate::failure::Failure;

/// Whether this machine can watch disks.
///
/// # Errors
/// If its kernel does not hand system calls over.
pub fn check() -> Result<(), Failure> {
    if seccomp::is_supported() {
        return Ok(());
    }
    Err(Failure::environment(
        "this kernel does not hand system calls over, so disks cannot be watched",
    )
    .hint("seccomp's user_notif is in Linux since 5.0; containers may bar it"))
}

/// What of a server's disk is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Watch {
    /// Nothing.
    #[default]
    No,
    /// Its syncs.
    Syncs,
    /// And its writes.
    Writes,
}

/// How syncs and writes go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Each takes this much longer.
    pub slow: Duration,
    /// Every so many fails with EIO; 0 is none.
    pub fail_every: u64,
    /// Writes that need room fail with ENOSPC; what has room already can be written over.
    pub full: bool,
}

/// The disk of one node, over all lives of its process.
pub struct NodeDisk {
    watch: Watch,
    inner: Mutex<Inner>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    ledger: Ledger,
    orders: Orders,
    /// Syncs since the orders were given.
    count: u64,
    /// The process was told that a sync or a write failed, and may have to end.
    failed: bool,
    /// Why nothing can be said of what is durable.
    blind: Option<String>,
}

impl fmt::Debug for NodeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeDisk").finish_non_exhaustive()
    }
}

/// A command whose syncs will be handed over.
#[derive(Debug)]
pub struct Trap {
    socket: OwnedFd,
    disk: Arc<NodeDisk>,
}

impl NodeDisk {
    /// The disk below `root`, which is made if it is missing; what is there is durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(root: &Path, watch: Watch) -> io::Result<Arc<Self>> {
        fs::create_dir_all(root)?;
        Ok(Arc::new(Self {
            watch,
            inner: Mutex::new(Inner {
                ledger: Ledger::new(root)?,
                orders: Orders::default(),
                count: 0,
                failed: false,
                blind: None,
            }),
            keeper: Mutex::new(None),
        }))
    }

    /// Lets `command` hand its syncs (and writes) over, once [`Trap::keep`] was called after its start.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn trap(self: &Arc<Self>, command: &mut Command) -> io::Result<Trap> {
        self.join();
        self.inner().failed = false;
        Ok(Trap {
            socket: seccomp::trap(command, self.watch == Watch::Writes)?,
            disk: Arc::clone(self),
        })
    }

    /// How syncs go from now on.
    pub fn order(&self, orders: Orders) {
        let mut inner = self.inner();
        (inner.orders, inner.count) = (orders, 0);
    }

    /// Whether the process was told that a sync or a write failed: a server may have to end then.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.inner().failed
    }

    /// Somebody else changed files while the process was down: they are durable as they are.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn take_stock(&self) -> io::Result<()> {
        self.join();
        self.inner().ledger.take_stock()
    }

    /// Cuts the power. The process must be gone. Takes some ms.
    ///
    /// # Errors
    /// If the files cannot be changed, or it is not known what is durable.
    pub fn cut(&self, torn: bool, seed: u64) -> Result<CutReport, Failure> {
        self.join();
        let mut inner = self.inner();
        if let Some(why) = &inner.blind {
            return Err(Failure::environment(format!(
                "what was synced is not known: {why}"
            )));
        }
        inner
            .ledger
            .cut(torn, &mut Prng::new(seed))
            .map_err(|error| Failure::environment(format!("the power cut failed: {error}")))
    }

    /// Waits until every sync of a process that is gone has been seen to its end.
    fn join(&self) {
        let keeper = self.keeper.lock().expect("nobody panics with it").take();
        if let Some(keeper) = keeper {
            // A thread that panicked has said why.
            let _ = keeper.join();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nobody panics while holding the ledger")
    }

    /// Answers calls until nobody can make one any more. A sync that is slow must not hold up the writes of other
    /// threads, which may be to sockets: where writes are watched, syncs are answered beside them.
    fn serve(&self, listener: &OwnedFd) {
        if self.watch != Watch::Writes {
            return self.take_calls(listener, |held| self.sync(listener, held));
        }
        let (pass, syncs) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for held in syncs {
                    self.sync(listener, held);
                }
            });
            self.take_calls(listener, |held| match held.call {
                Call::Sync | Call::DataSync => {
                    // The other thread ends when this one does.
                    let _ = pass.send(held);
                }
                Call::Write(write) => self.write(listener, held, write),
            });
            drop(pass);
        });
    }

    fn take_calls(&self, listener: &OwnedFd, mut answer: impl FnMut(Held)) {
        loop {
            match wait(listener, PollFlags::POLLIN, None) {
                Ok(Woken::Called) => {}
                Ok(Woken::Over | Woken::TimedOut) => return,
                Err(error) => return tracing::error!(%error, "syncs are no longer watched"),
            }
            match seccomp::next(listener) {
                Ok(held) => answer(held),
                // It was killed in the middle of its call.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return tracing::error!(%error, "syncs are no longer watched"),
            }
        }
    }

    /// Lets the kernel carry a write out, unless the disk is full.
    fn write(&self, listener: &OwnedFd, held: Held, write: Write) {
        // One that could not be understood is not refused.
        let refused = self.inner().orders.full && self.lacks_room(held, write).unwrap_or(false);
        let done = if refused {
            self.inner().failed = true;
            seccomp::answer(listener, held, Err(libc::ENOSPC))
        } else {
            seccomp::go_on(listener, held)
        };
        // Whoever was killed while it waited needs no answer.
        let _ = done;
    }

    /// Whether a write to a file below the root needs room that the file does not have yet.
    fn lacks_room(&self, held: Held, write: Write) -> io::Result<bool> {
        let link = format!("/proc/{}/fd/{}", held.thread, held.fd);
        let path = fs::read_link(&link)?;
        if !path.starts_with(&self.inner().ledger.root) {
            return Ok(false);
        }
        let file = File::open(&link)?;
        let begin = match write.at {
            Some(at) => at,
            None => place_in(&file, held)?,
        };
        let end = begin + write.length.max(1);
        // From the first hole on there is no room; behind the last byte there is always one.
        let hole = lseek(
            &file,
            i64::try_from(begin).unwrap_or(i64::MAX),
            Whence::SeekHole,
        );
        Ok(hole.map_or(true, |hole| u64::try_from(hole).unwrap_or(0) < end))
    }

    fn sync(&self, listener: &OwnedFd, held: Held) {
        let done = match self.carry_out(listener, held) {
            Ok(result) => seccomp::answer(listener, held, result),
            Err(error) if seccomp::still_waits(listener, held) => {
                let why = format!("a sync could not be followed: {error}");
                self.inner().blind = Some(why);
                seccomp::go_on(listener, held)
            }
            Err(_) => return,
        };
        // Whoever was killed while it waited needs no answer.
        let _ = done;
    }

    /// Makes the sync in the place of the caller. The inner error is for the caller, the outer one says that the
    /// call could not be understood.
    fn carry_out(&self, listener: &OwnedFd, held: Held) -> io::Result<Result<(), i32>> {
        let link = format!("/proc/{}/fd/{}", held.thread, held.fd);
        let path = fs::read_link(&link)?;
        let file = File::open(&link)?;
        // The number may name another process by now.
        if !seccomp::still_waits(listener, held) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (orders, fails, measured) = {
            let mut inner = self.inner();
            inner.count += 1;
            let orders = inner.orders;
            let fails = orders.fail_every > 0 && inner.count.is_multiple_of(orders.fail_every);
            let ours = path.starts_with(&inner.ledger.root);
            let measured = ours
                .then(|| inner.ledger.measure(&file, &path))
                .transpose()?;
            (orders, fails, measured)
        };
        if !orders.slow.is_zero()
            && matches!(
                wait(listener, PollFlags::empty(), Some(orders.slow))?,
                Woken::Over
            )
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        if fails {
            self.inner().failed = true;
            return Ok(Err(libc::EIO));
        }
        let done = if held.call == Call::DataSync {
            file.sync_data()
        } else {
            file.sync_all()
        };
        if let Err(error) = done {
            return Ok(Err(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        if let Some(measured) = measured {
            self.inner().ledger.synced(measured);
        }
        Ok(Ok(()))
    }
}

/// Where in a file the next write without a place of its own goes.
fn place_in(file: &File, held: Held) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{}", held.thread, held.fd))?;
    let number = |key: &str, radix| {
        let text = info.lines().find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(text.trim(), radix).ok()
    };
    let appends = number("flags:", 8).is_some_and(|flags| flags & libc::O_APPEND as u64 != 0);
    if appends {
        return Ok(file.metadata()?.len());
    }
    number("pos:", 10).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Trap {
    /// The command runs: answers its syncs (and writes) from now on, on a thread of its own.
    ///
    /// # Errors
    /// If the child did not hand anything over, or there can be no more threads.
    pub fn keep(self) -> io::Result<()> {
        let listener = seccomp::listener(&self.socket)?;
        let disk = Arc::clone(&self.disk);
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || disk.serve(&listener))?;
        *self.disk.keeper.lock().expect("nobody panics with it") = Some(thread);
        Ok(())
    }
}

/// What ended a wait.
enum Woken {
    /// Somebody waits for an answer.
    Called,
    /// All who could are gone.
    Over,
    /// Time.
    TimedOut,
}

fn wait(listener: &OwnedFd, wanted: PollFlags, patience: Option<Duration>) -> io::Result<Woken> {
    let until = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up: a wait must not be shorter than asked.
            PollTimeout::try_from(left.as_millis() + u128::from(!left.is_zero()))
                .unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(listener.as_fd(), wanted)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(Woken::TimedOut),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let woken = fds[0].revents().unwrap_or(PollFlags::POLLERR);
        return Ok(if woken.contains(PollFlags::POLLIN) {
            Woken::Called
        } else {
            Woken::Over
        });
    }
}
