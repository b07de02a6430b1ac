//! Module `data` of `zookeeper.jute`: identities, ACLs and Stat.

use super::record;
use crate::ids::{SessionId, Zxid};

record! {
    /// An identity: scheme and id.
    #[derive(Hash)]
    pub struct Id {
        /// `world`, `ip`, `digest` …; null only in bad input.
        pub scheme: Option<String>,
        /// What the scheme says; null where a client sent null.
        pub id: Option<String>,
    }

    /// One entry of an ACL.
    #[derive(Hash)]
    pub struct Acl {
        /// Bits of [`perms`]; not range-checked, as in Apache.
        pub perms: i32,
        /// Whom it is for.
        pub id: Id,
    }

    /// What a client sees of a znode (68 bytes).
    #[derive(Default, Copy)]
    pub struct Stat {
        /// Txn that created it.
        pub czxid: Zxid,
        /// Txn that last set its data.
        pub mzxid: Zxid,
        /// When it was created, ms since 1970 by the leader's clock.
        pub ctime: i64,
        /// When its data were last set.
        pub mtime: i64,
        /// Number of `setData`.
        pub version: i32,
        /// Changes of its children: creates and deletes.
        pub cversion: i32,
        /// Number of `setACL`.
        pub aversion: i32,
        /// Owning session of an ephemeral, 0 for every other kind.
        pub ephemeral_owner: SessionId,
        /// Length of the data; 0 for null.
        pub data_length: i32,
        /// Number of direct children.
        pub num_children: i32,
        /// Txn that last created or deleted a child.
        pub pzxid: Zxid,
    }

    /// What a snapshot stores of a znode (60 bytes). Its `cversion` counts creates only, and its
    /// `ephemeral_owner` also says container and TTL.
    #[derive(Default, Copy)]
    pub struct StatPersisted {
        /// Txn that created it.
        pub czxid: Zxid,
        /// Txn that last set its data.
        pub mzxid: Zxid,
        /// Creation time.
        pub ctime: i64,
        /// Modification time.
        pub mtime: i64,
        /// Number of `setData`.
        pub version: i32,
        /// Children ever created.
        pub cversion: i32,
        /// Number of `setACL`.
        pub aversion: i32,
        /// Session, container mark or TTL mark; see `EphemeralType`.
        pub ephemeral_owner: i64,
        /// Txn that last created or deleted a child.
        pub pzxid: Zxid,
    }
}

impl StatPersisted {
    /// Length of its jute form.
    pub const LEN: usize = 60;

    /// What [`Record::decode`](crate::jute::Record::decode) makes of these bytes, for those who read a million of them.
    #[must_use]
    pub fn from_array(bytes: &[u8; Self::LEN]) -> Self {
        let int = |at: usize| {
            let mut int = [0; 4];
            int.copy_from_slice(&bytes[at..at + 4]);
            i32::from_be_bytes(int)
        };
        let long = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            i64::from_be_bytes(long)
        };
        Self {
            czxid: Zxid(long(0)),
            mzxid: Zxid(long(8)),
            ctime: long(16),
            mtime: long(24),
            version: int(32),
            cversion: int(36),
            aversion: int(40),
            ephemeral_owner: long(44),
            pzxid: Zxid(long(52)),
        }
    }
}

impl Id {
    /// An identity with both parts.
    #[must_use]
    pub fn new(scheme: &str, id: &str) -> Self {
        Self {
            scheme: Some(scheme.to_owned()),
            id: Some(id.to_owned()),
        }
    }
}

impl Acl {
    /// `world:anyone` with `perms`.
    #[must_use]
    pub fn world(perms: i32) -> Self {
        Self {
            perms,
            id: Id::new("world", "anyone"),
        }
    }

    /// The open ACL, `world:anyone` with everything.
    #[must_use]
    pub fn open() -> Vec<Self> {
        vec![Self::world(perms::ALL)]
    }
}

/// Permission bits.
pub mod perms {
    /// Read data, children and ACL.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

impl crate::jute::Field for Id {
    fn put(&self, out: &mut crate::jute::Writer<'_>) {
        crate::jute::Record::encode(self, out);
    }

    fn get(
        from: &mut crate::jute::Reader<'_>,
        _what: &'static str,
    ) -> Result<Self, crate::jute::DecodeError> {
        crate::jute::Record::decode(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::Record;
    use crate::prng::Prng;

    #[test]
    fn a_stat_from_an_array_is_the_decoded_one() {
        let mut prng = Prng::new(1);
        for _ in 0..10 {
            let bytes = [(); StatPersisted::LEN].map(|()| prng.below(256) as u8);
            let decoded = StatPersisted::from_slice(&bytes).unwrap();
            assert_eq!(StatPersisted::from_array(&bytes), decoded);
        }
    }
}
