//! What the stored `ephemeralOwner` of a znode says: one number means four kinds.
//!
//! Counterpart: `EphemeralType`. Unlike Apache this does not depend on `extendedTypesEnabled`: read
//! with that switch off, a TTL node would look like the ephemeral of a session nobody has, and a new
//! leader would delete it. Whether TTL nodes may be *created* is for the pipeline to say.

use crate::ids::SessionId;

/// The stored owner of every container.
pub const CONTAINER_OWNER: i64 = i64::MIN;
/// The longest time to live, 2^40 - 1 ms.
pub const TTL_MS_MAX: i64 = (1 << 40) - 1;

/// The high three bytes of the owner of a TTL node: the extended mark and feature number 0.
const TTL_MARK: i64 = 0xff_0000;

/// How long a znode lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EphemeralKind {
    /// Until it is deleted.
    Persistent,
    /// As long as the session.
    Ephemeral(SessionId),
    /// Until its last child is gone (then the reaper takes it).
    Container,
    /// Until it has neither children nor changes for this many ms.
    Ttl(i64),
}

impl EphemeralKind {
    /// The kind a stored owner says.
    #[must_use]
    pub fn of(owner: i64) -> Self {
        if owner == 0 {
            Self::Persistent
        } else if owner == CONTAINER_OWNER {
            Self::Container
        } else if (owner >> 40) & 0xff_ffff == TTL_MARK {
            Self::Ttl(owner & TTL_MS_MAX)
        } else {
            Self::Ephemeral(SessionId(owner))
        }
    }

    /// The owner to store. A time to live is cut to its 40 bits.
    #[must_use]
    pub fn owner(self) -> i64 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral(session) => session.0,
            Self::Container => CONTAINER_OWNER,
            Self::Ttl(ttl_ms) => (TTL_MARK << 40) | (ttl_ms & TTL_MS_MAX),
        }
    }

    /// What clients see as `ephemeralOwner`: the session of an ephemeral, 0 for all others.
    #[must_use]
    pub fn visible_owner(self) -> SessionId {
        match self {
            Self::Ephemeral(session) => session,
            _ => SessionId::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_kinds() {
        for (owner, kind) in [
            (0, EphemeralKind::Persistent),
            (i64::MIN, EphemeralKind::Container),
            (
                0xff00_0000_0000_03e8_u64.cast_signed(),
                EphemeralKind::Ttl(1000),
            ),
            (
                0xff00_00ff_ffff_ffff_u64.cast_signed(),
                EphemeralKind::Ttl(TTL_MS_MAX),
            ),
            (
                0x0100_0013_5726_0000,
                EphemeralKind::Ephemeral(SessionId(0x0100_0013_5726_0000)),
            ),
            // A session of server 255: its clock bits keep it apart from a TTL.
            (
                0xff01_0000_0000_0001_u64.cast_signed(),
                EphemeralKind::Ephemeral(SessionId(0xff01_0000_0000_0001_u64.cast_signed())),
            ),
        ] {
            assert_eq!(EphemeralKind::of(owner), kind, "{owner:x}");
            assert_eq!(kind.owner(), owner, "{kind:?}");
        }
        assert_eq!(EphemeralKind::Ttl(5).visible_owner(), SessionId::NONE);
    }
}
