//! The event feed: every [`PeerEvent`] as a JSON line, and as a log line.
//!
//! The feed is for programs (a lab waits on it for readiness), the log is for people. A feed that can no
//! longer be written to (its reader is gone) is closed with one warning; the server serves on.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use crate::event::{FeedLine, FeedTarget, PeerEvent, ServerState, SyncMode};
use crate::metrics::{EventMeter, Metrics};

use super::clock::monotonic_us;

/// Writes events as they happen.
#[derive(Debug)]
pub(super) struct Feed {
    sid: i64,
    out: Option<File>,
    meter: EventMeter,
    metrics: Arc<Metrics>,
}

impl Feed {
    /// Opens the feed; `None` only logs.
    ///
    /// # Errors
    /// If the file cannot be opened or the descriptor is not open.
    pub(super) fn open(
        sid: i64,
        target: Option<&FeedTarget>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let out = match target {
            None => None,
            Some(FeedTarget::Path(path)) => {
                Some(File::options().create(true).append(true).open(path)?)
            }
            Some(FeedTarget::Fd(fd)) => Some(inherited(*fd)?),
        };
        Ok(Self {
            sid,
            out,
            meter: EventMeter::new(sid),
            metrics,
        })
    }

    /// Tells one event.
    pub(super) fn tell(&mut self, event: PeerEvent) {
        let t_us = monotonic_us();
        log(&event);
        self.meter.see(&event, t_us, &self.metrics);
        let Some(out) = &mut self.out else { return };
        let line = FeedLine {
            v: 1,
            t_us,
            sid: self.sid,
            event,
        };
        let mut text = serde_json::to_string(&line).expect("an event is plain data");
        text.push('\n');
        if let Err(error) = out.write_all(text.as_bytes()) {
            warn!(%error, "the event feed can no longer be written to; it is closed");
            self.out = None;
        }
    }
}

/// Takes over a descriptor that the parent process left open for the feed.
#[expect(
    unsafe_code,
    reason = "a number given on the command line is the only handle on an inherited descriptor"
)]
fn inherited(fd: RawFd) -> std::io::Result<File> {
    let usable = fd > 2 && nix::fcntl::fcntl(borrow(fd), nix::fcntl::FcntlArg::F_GETFD).is_ok();
    if !usable {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!("descriptor {fd} is not an open one above 2"),
        ));
    }
    // SAFETY: the descriptor is open (just checked), above the standard three, and given to this process for
    // this use alone by whoever started it; nothing else here was opened yet.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[expect(
    unsafe_code,
    reason = "fcntl wants a borrowed descriptor; this one is only asked whether it is open"
)]
fn borrow(fd: RawFd) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: the borrow lives for one F_GETFD call, which is defined for closed descriptors too (EBADF).
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

/// Shows a zxid as ZooKeeper's own logs do.
struct Hex(i64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// Says an event to people.
fn log(event: &PeerEvent) {
    match event {
        PeerEvent::Starting { version, pid } => info!(version, pid, "zkd is starting"),
        PeerEvent::Listening { port, address } => info!(address, "the {port} port is open"),
        PeerEvent::Recovered {
            zxid,
            znodes,
            took_us,
        } => {
            let took_ms = took_us / 1000;
            info!(zxid = %Hex(*zxid), znodes, took_ms, "the database is loaded");
        }
        PeerEvent::Serving { state, epoch, zxid } => {
            info!(epoch, zxid = %Hex(*zxid), "{}: clients are served", word(*state));
        }
        PeerEvent::NotServing { reason } => warn!(reason, "clients are no longer served"),
        PeerEvent::Stopping { reason, code: 0 } => info!(reason, "the server has ended"),
        PeerEvent::Stopping { reason, code } => error!(code, reason, "the server has ended"),
        event => log_reign(event),
    }
}

/// Says what belongs to an election and to the reign that follows it.
fn log_reign(event: &PeerEvent) {
    match event {
        PeerEvent::State { state, reason } => info!(reason, "now {}", word(*state)),
        PeerEvent::Vote {
            round,
            leader,
            zxid,
            epoch,
        } => debug!(round, epoch, zxid = %Hex(*zxid), "votes for server {leader}"),
        PeerEvent::Elected {
            round,
            leader,
            votes,
            early,
        } => info!(round, votes, early, "server {leader} is elected"),
        PeerEvent::EpochProposed { epoch } => info!("epoch {epoch} is proposed"),
        PeerEvent::EpochEstablished { epoch } => info!("epoch {epoch} is accepted"),
        PeerEvent::Sync {
            learner,
            mode,
            from,
            to,
        } => {
            let mode = match mode {
                SyncMode::Diff => "the txns it lacks (DIFF)",
                SyncMode::Trunc => "a cut of its log (TRUNC)",
                SyncMode::Snap => "a snapshot (SNAP)",
            };
            info!(from = %Hex(*from), to = %Hex(*to), "server {learner} is brought up to date by {mode}");
        }
        PeerEvent::Established { epoch } => info!("a quorum follows in epoch {epoch}"),
        PeerEvent::FirstCommit { zxid } => debug!(zxid = %Hex(*zxid), "the first txn is committed"),
        PeerEvent::SteppedDown { state, reason } => {
            warn!(reason, "no longer {}", word(*state));
        }
        // Said by `log`.
        _ => {}
    }
}

fn word(state: ServerState) -> &'static str {
    match state {
        ServerState::Looking => "looking",
        ServerState::Following => "following",
        ServerState::Leading => "leading",
        ServerState::Observing => "observing",
        ServerState::Standalone => "standalone",
    }
}
