//! The event feed: every [`PeerEvent`] as a JSON line, and as a log line.
//!
//! The feed is for programs (a lab waits on it for readiness), the log is for people. A feed that can no
//! longer be written to (its reader is gone) is closed with one warning; the server serves on.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::Arc;

use crate::event::{FeedLine, FeedTarget, PeerEvent};

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
        log(self.sid, &event);
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
            tracing::warn!(%error, "the event feed can no longer be written to; it is closed");
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

fn log(sid: i64, event: &PeerEvent) {
    match event {
        PeerEvent::SteppedDown { state, reason } => {
            tracing::warn!(sid, ?state, reason, "stepped down");
        }
        PeerEvent::NotServing { reason } => {
            tracing::warn!(sid, reason, "clients are no longer served")
        }
        PeerEvent::Serving { state, epoch, zxid } => {
            tracing::info!(
                sid,
                ?state,
                epoch,
                zxid = format_args!("0x{zxid:x}"),
                "serving"
            );
        }
        PeerEvent::State { state, reason } => tracing::info!(sid, ?state, reason, "state"),
        PeerEvent::Vote {
            round,
            leader,
            zxid,
            epoch,
        } => {
            tracing::debug!(
                sid,
                round,
                leader,
                zxid = format_args!("0x{zxid:x}"),
                epoch,
                "votes"
            );
        }
        other => tracing::info!(sid, event = ?other, "event"),
    }
}
