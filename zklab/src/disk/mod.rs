//! Power cuts and bad disks: what of a node's files would survive, and syncs that are slow or fail.
//!
//! A process that is killed loses nothing that it wrote: the kernel has it. Only a power cut shows whether a server
//! syncs before it promises. So in labs that ask for it, every `fsync` and `fdatasync` of a server is held up by the
//! kernel and handed to a thread of the supervisor, which makes the sync itself, notes what is durable from then on,
//! and answers the call. Nothing else is slowed down, and the server notices nothing. See `ledger` for what is durable,
//! `seccomp` for how.

mod cut;
mod ledger;
mod seccomp;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::process::Command;
use zkd::prng::Prng;

pub use self::cut::CutReport;
use self::ledger::Ledger;
use self::seccomp::Held;
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

/// How syncs go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Each takes this much longer.
    pub slow: Duration,
    /// Every so many fails with EIO; 0 is none.
    pub fail_every: u64,
}

/// The disk of one node, over all lives of its process.
pub struct NodeDisk {
    inner: Mutex<Inner>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    ledger: Ledger,
    orders: Orders,
    /// Syncs since the orders were given.
    count: u64,
    /// The process was told that a sync failed, and has to end.
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
    pub fn new(root: &Path) -> io::Result<Arc<Self>> {
        fs::create_dir_all(root)?;
        Ok(Arc::new(Self {
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

    /// Lets `command` hand its syncs over, once [`Trap::keep`] was called after its start.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn trap(self: &Arc<Self>, command: &mut Command) -> io::Result<Trap> {
        self.join();
        self.inner().failed = false;
        Ok(Trap {
            socket: seccomp::trap(command)?,
            disk: Arc::clone(self),
        })
    }

    /// How syncs go from now on.
    pub fn order(&self, orders: Orders) {
        let mut inner = self.inner();
        (inner.orders, inner.count) = (orders, 0);
    }

    /// Whether the process was told that a sync failed: a server has to end then.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.inner().failed
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

    /// Answers calls until nobody can make one any more.
    fn serve(&self, listener: &OwnedFd) {
        loop {
            match wait(listener, PollFlags::POLLIN, None) {
                Ok(Woken::Called) => {}
                Ok(Woken::Over | Woken::TimedOut) => return,
                Err(error) => return tracing::error!(%error, "syncs are no longer watched"),
            }
            match seccomp::next(listener) {
                Ok(held) => self.sync(listener, held),
                // It was killed in the middle of its call.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return tracing::error!(%error, "syncs are no longer watched"),
            }
        }
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
        let done = if held.data_only {
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

impl Trap {
    /// The command runs: answers its syncs from now on, on a thread of its own.
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
