//! The leader's judgement of who is alive.
//!
//! Deadlines are rounded up to whole ticks so that sessions expire in batches: a session silent since
//! `t` expires at the first tick boundary after `t + timeout`, so between `timeout` and
//! `timeout + tickTime` later (`ExpiryQueue`).
//!
//! Law kept here: a session stands in exactly one bucket. A touch only notes the new deadline; when the
//! bucket comes due, a session whose deadline has moved is put on. So a touch is one lookup, and expiry
//! costs what expires plus one move per session and timeout.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::error::ErrorCode;
use crate::ids::{LinkId, SessionId};
use crate::planted::{self, Planted};
use crate::time::Instant;

/// Through whom a session talks. Writes from anyone else are refused: the session has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A connection to this very server.
    Local,
    /// A learner's connection.
    Link(LinkId),
}

#[derive(Debug)]
struct Tracked {
    timeout_ms: i32,
    deadline: u64,
    /// The bucket it stands in; `bucket <= deadline`.
    bucket: u64,
    /// Expired or told to close: nothing of it is accepted any more.
    closing: bool,
    /// `None` until the first request after a change of leader.
    owner: Option<Owner>,
}

/// Sessions with their deadlines, for a leader or a standalone server.
#[derive(Debug)]
pub struct SessionTracker {
    tick_ms: u64,
    sessions: HashMap<SessionId, Tracked>,
    buckets: BTreeMap<u64, Vec<SessionId>>,
}

impl SessionTracker {
    /// No sessions yet; expiry works in steps of `tick_ms` (at least 1).
    #[must_use]
    pub fn new(tick_ms: u64) -> Self {
        Self {
            tick_ms: tick_ms.max(1),
            sessions: HashMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// The tracker of a new leader: every session of the database has its whole timeout before it.
    #[must_use]
    pub fn with_sessions(
        tick_ms: u64,
        sessions: impl IntoIterator<Item = (SessionId, i32)>,
        now: Instant,
    ) -> Self {
        let mut tracker = Self::new(tick_ms);
        for (session, timeout_ms) in sessions {
            tracker.track(session, timeout_ms, now);
        }
        tracker
    }

    /// Starts to watch a session, or touches it if it is known. Says whether it is new.
    pub fn track(&mut self, session: SessionId, timeout_ms: i32, now: Instant) -> bool {
        let deadline = self.deadline(timeout_ms, now);
        if self.sessions.contains_key(&session) {
            self.touch(session, timeout_ms, now);
            return false;
        }
        self.sessions.insert(
            session,
            Tracked {
                timeout_ms,
                deadline,
                bucket: deadline,
                closing: false,
                owner: None,
            },
        );
        self.buckets.entry(deadline).or_default().push(session);
        true
    }

    /// Notes a sign of life at `at`; false if the session is unknown or closing. A touch older than one
    /// already known changes nothing.
    pub fn touch(&mut self, session: SessionId, timeout_ms: i32, at: Instant) -> bool {
        let deadline = self.deadline(timeout_ms, at);
        let Some(tracked) = self.sessions.get_mut(&session) else {
            return false;
        };
        if tracked.closing {
            return false;
        }
        if timeout_ms == tracked.timeout_ms {
            tracked.deadline = tracked.deadline.max(deadline);
        } else {
            tracked.timeout_ms = timeout_ms;
            tracked.deadline = deadline;
        }
        if tracked.deadline < tracked.bucket {
            // A shorter timeout was negotiated; the entry in the old bucket becomes stale.
            tracked.bucket = tracked.deadline;
            self.buckets
                .entry(tracked.bucket)
                .or_default()
                .push(session);
        }
        true
    }

    /// A client came back with the session through `owner`: touches it and notes the owner. False if the
    /// session is unknown or closing.
    pub fn reattach(
        &mut self,
        session: SessionId,
        timeout_ms: i32,
        owner: Owner,
        now: Instant,
    ) -> bool {
        let alive = self.touch(session, timeout_ms, now);
        if alive {
            self.set_owner(session, owner);
        }
        alive
    }

    /// Notes through whom the session talks.
    pub fn set_owner(&mut self, session: SessionId, owner: Owner) {
        if let Some(tracked) = self.sessions.get_mut(&session) {
            tracked.owner = Some(owner);
        }
    }

    /// Whether a write of `session` that came through `owner` is in order. Who comes first after a
    /// change of leader becomes the owner.
    ///
    /// # Errors
    /// [`ErrorCode::SessionExpired`] if the session is unknown or closing, [`ErrorCode::SessionMoved`]
    /// if it talks through another server now.
    pub fn check(&mut self, session: SessionId, owner: Owner) -> Result<(), ErrorCode> {
        let tracked = self
            .sessions
            .get_mut(&session)
            .filter(|tracked| !tracked.closing)
            .ok_or(ErrorCode::SessionExpired)?;
        let same = *tracked.owner.get_or_insert(owner) == owner;
        if same || planted::is(Planted::SessionMovedUnnoticed) {
            Ok(())
        } else {
            Err(ErrorCode::SessionMoved)
        }
    }

    /// From now on nothing of the session is accepted; its closeSession txn is on its way.
    pub fn set_closing(&mut self, session: SessionId) {
        if let Some(tracked) = self.sessions.get_mut(&session) {
            tracked.closing = true;
        }
    }

    /// Forgets a session: its closeSession txn was applied.
    pub fn remove(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Takes the sessions whose time is over, in the order of their ids, and marks them closing. The
    /// caller submits their closeSession requests.
    pub fn expired(&mut self, now: Instant) -> Vec<SessionId> {
        let mut expired = Vec::new();
        while let Some(first) = self.buckets.first_entry() {
            let bucket = *first.key();
            if bucket > now.0 {
                break;
            }
            for session in first.remove() {
                let Some(tracked) = self.sessions.get_mut(&session) else {
                    continue;
                };
                if tracked.closing || tracked.bucket != bucket {
                    continue;
                }
                if tracked.deadline > now.0 {
                    tracked.bucket = tracked.deadline;
                    self.buckets
                        .entry(tracked.bucket)
                        .or_default()
                        .push(session);
                } else {
                    tracked.closing = true;
                    expired.push(session);
                }
            }
        }
        expired.sort_unstable();
        expired
    }

    /// When [`Self::expired`] has to be asked next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.buckets.keys().next().map(|at| Instant(*at))
    }

    /// Whether the session is known and not closing.
    #[must_use]
    pub fn is_alive(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|tracked| !tracked.closing)
    }

    /// Whether the session is on its way out.
    #[must_use]
    pub fn is_closing(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|tracked| tracked.closing)
    }

    /// How many sessions are known, closing ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn deadline(&self, timeout_ms: i32, now: Instant) -> u64 {
        let end = now.0 + u64::try_from(timeout_ms).unwrap_or(0);
        (end / self.tick_ms + 1) * self.tick_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    const S: SessionId = SessionId(7);

    #[test]
    fn expires_between_timeout_and_a_tick_later() {
        let mut tracker = SessionTracker::new(500);
        assert!(tracker.track(S, 1000, Instant(400)));
        assert_eq!(tracker.poll_timeout(), Some(Instant(1500)));
        assert_eq!(tracker.expired(Instant(1499)), []);
        assert_eq!(tracker.expired(Instant(1500)), [S]);
        assert!(tracker.is_closing(S));
        assert!(!tracker.touch(S, 1000, Instant(1500)), "too late");
        assert_eq!(
            tracker.check(S, Owner::Local),
            Err(ErrorCode::SessionExpired)
        );
        assert_eq!(tracker.expired(Instant(9000)), [], "only once");
        tracker.remove(S);
        assert!(tracker.is_empty());
    }

    #[test]
    fn touches_move_the_deadline_and_a_shorter_timeout_moves_it_back() {
        let mut tracker = SessionTracker::new(100);
        tracker.track(S, 1000, Instant(0));
        assert!(tracker.touch(S, 1000, Instant(900)));
        assert_eq!(tracker.expired(Instant(1100)), []);
        assert!(tracker.reattach(S, 200, Owner::Local, Instant(1100)));
        assert_eq!(tracker.expired(Instant(1399)), []);
        assert_eq!(tracker.expired(Instant(1400)), [S]);
        assert_eq!(tracker.expired(Instant(5000)), []);
    }

    #[test]
    fn the_first_speaker_owns_and_others_are_told_it_moved() {
        let mut tracker = SessionTracker::with_sessions(100, [(S, 1000)], Instant(0));
        let link = Owner::Link(LinkId(3));
        assert_eq!(tracker.check(S, link), Ok(()));
        assert_eq!(tracker.check(S, Owner::Local), Err(ErrorCode::SessionMoved));
        assert!(tracker.reattach(S, 1000, Owner::Local, Instant(1)));
        assert_eq!(tracker.check(S, link), Err(ErrorCode::SessionMoved));
        assert_eq!(
            tracker.check(SessionId(1), link),
            Err(ErrorCode::SessionExpired)
        );
        assert!(!tracker.reattach(SessionId(1), 1000, link, Instant(1)));
    }

    /// Against a table of deadlines that is searched as a whole.
    #[test]
    fn agrees_with_the_naive_twin() {
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let tick = prng.between(1, 50);
            let mut tracker = SessionTracker::new(tick);
            let mut naive: BTreeMap<SessionId, u64> = BTreeMap::new();
            let mut now = 0;
            for _ in 0..400 {
                now += prng.below(40);
                let session = SessionId(prng.below(12).cast_signed());
                // One timeout per session: what a connection negotiated does not change by itself.
                let timeout = 20 + i32::try_from(session.0).unwrap() * 13;
                match prng.below(4) {
                    0 => {
                        if naive.contains_key(&session) || !tracker.is_closing(session) {
                            tracker.track(session, timeout, Instant(now));
                            naive.insert(session, tracker.deadline(timeout, Instant(now)));
                        }
                    }
                    1 | 2 => {
                        let alive = tracker.touch(session, timeout, Instant(now));
                        assert_eq!(alive, naive.contains_key(&session), "seed {seed}");
                        if let Some(deadline) = naive.get_mut(&session) {
                            *deadline = tracker.deadline(timeout, Instant(now));
                        }
                    }
                    _ => {
                        let due: Vec<_> = naive
                            .iter()
                            .filter(|(_, deadline)| **deadline <= now)
                            .map(|(session, _)| *session)
                            .collect();
                        assert_eq!(tracker.expired(Instant(now)), due, "seed {seed}");
                        for session in due {
                            naive.remove(&session);
                            tracker.remove(session);
                        }
                    }
                }
            }
        }
    }
}
