//! Sessions: who is alive, until when, and through which server it talks.
//!
//! [`SessionTracker`] is the leader's (or a standalone server's) judgement: it alone lets a session
//! expire. [`TouchTable`] is how connections report life without a lock per request. Both only know ids
//! and times; which txns open and close sessions is `pipeline`'s business. Counterpart:
//! `SessionTrackerImpl`, `ExpiryQueue`, `LearnerSessionTracker`.

mod touch;
mod tracker;

use crate::ids::{ServerId, SessionId};
use crate::time::Instant;

pub use touch::{TouchCell, TouchTable};
pub use tracker::{Owner, SessionTracker};

/// The first session id a server hands out after its start at `start` (client-protocol facts, section
/// 2): the server in the high byte, then 40 bits of the clock, then 16 bits to count in. Two starts of
/// a server thus give different ids. The id Java uses to mark containers is left out.
#[must_use]
pub fn session_id_start(server: ServerId, start: Instant) -> SessionId {
    let clock = ((start.0 << 24) >> 8).cast_signed();
    let id = (server.0 << 56) | clock;
    SessionId(if id == i64::MIN { id + 1 } else { id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_name_server_and_start() {
        assert_eq!(
            session_id_start(ServerId(1), Instant(0x11_9138)),
            SessionId(0x0100_0011_9138_0000)
        );
        assert_eq!(
            session_id_start(ServerId(2), Instant(0x12_3456_789a_bcde)),
            SessionId(0x0256_789a_bcde_0000),
            "of a long clock the low 40 bits count"
        );
        assert_eq!(
            session_id_start(ServerId(128), Instant(0)),
            SessionId(i64::MIN + 1),
            "the container mark is skipped"
        );
    }
}
