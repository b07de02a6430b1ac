//! The raw snapshot behind a SNAP packet, passed over to its end: sessions, ACLs, znodes up to the one that
//! is called `/`, and a signature. Nothing of it is kept, however large it is.

use super::quorum::checked;
use super::scan::{Senseless, int};

/// The first thing is the number of sessions.
pub(super) const FIRST_BYTES: usize = 4;
/// A session id and its timeout.
const SESSION_BYTES: u64 = 12;
/// The index of an ACL and its stat.
const ACL_AND_STAT_BYTES: u64 = 8 + 60;
/// What stands behind the last znode, as a jute string.
const SIGNATURE: &[u8; 14] = b"\0\0\0\x0aBenWasHere";

/// Where in the snapshot the scanner stands, waiting for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Before the number of sessions.
    Sessions,
    /// Before the number of ACLs.
    Acls,
    /// Before an ACL's index and the number of its entries; so many ACLs follow.
    Acl(i32),
    /// Before permissions and the length of the scheme; so many entries and ACLs follow.
    Scheme(i32, i32),
    /// Before the length of the id of that entry.
    Id(i32, i32),
    /// Before the length of a path.
    Path,
    /// Before a path of one byte.
    ShortPath,
    /// Before the length of a znode's data.
    Data,
    /// Before the signature.
    Signature,
}

impl State {
    pub(super) const FIRST: Self = Self::Sessions;

    /// What to pass over and to gather next; `None` at the end.
    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> Result<Option<(u64, usize)>, Senseless> {
        let count = |wrong: Senseless| match int(bytes, 0) {
            count if count >= 0 => Ok(count),
            _ => Err(wrong),
        };
        let next = match *self {
            Self::Sessions => {
                let sessions = count("a snapshot has a number of sessions that is none")?;
                *self = Self::Acls;
                (u64::from(sessions.unsigned_abs()) * SESSION_BYTES, 4)
            }
            Self::Acls => {
                let acls = count("a snapshot has a number of ACLs that is none")?;
                self.before_acl(acls, 0)
            }
            Self::Acl(left) => {
                let entries = int(bytes, 8);
                if entries < 0 {
                    return Err("an ACL has a number of entries that is none");
                }
                self.before_entry(entries, left - 1, 0)
            }
            Self::Scheme(entries, acls) => {
                let length = checked(int(bytes, 4), "a scheme has a length that is none")?;
                *self = Self::Id(entries, acls);
                (length.into(), 4)
            }
            Self::Id(entries, acls) => {
                let length = checked(int(bytes, 0), "an id has a length that is none")?;
                self.before_entry(entries - 1, acls, length)
            }
            Self::Path => {
                let length = checked(int(bytes, 0), "a path has a length that is none")?;
                if length == 1 {
                    *self = Self::ShortPath;
                    (0, 1)
                } else {
                    *self = Self::Data;
                    (length.into(), 4)
                }
            }
            Self::ShortPath if bytes == b"/" => {
                *self = Self::Signature;
                (0, SIGNATURE.len())
            }
            Self::ShortPath => return Err("a path does not begin with a slash"),
            Self::Data => {
                let length = checked(int(bytes, 0), "a znode has a length that is none")?;
                *self = Self::Path;
                (u64::from(length) + ACL_AND_STAT_BYTES, 4)
            }
            Self::Signature if bytes == SIGNATURE => return Ok(None),
            Self::Signature => return Err("a snapshot has no signature"),
        };
        Ok(Some(next))
    }

    fn before_acl(&mut self, left: i32, skip: u32) -> (u64, usize) {
        if left > 0 {
            *self = Self::Acl(left);
            (skip.into(), 12)
        } else {
            *self = Self::Path;
            (skip.into(), 4)
        }
    }

    fn before_entry(&mut self, entries: i32, acls: i32, skip: u32) -> (u64, usize) {
        if entries > 0 {
            *self = Self::Scheme(entries, acls);
            (skip.into(), 8)
        } else {
            self.before_acl(acls, skip)
        }
    }
}
