//! The quorum port: packets without framing, each found at the end of the one before, and the raw snapshot
//! behind a SNAP. Payloads are passed over but for the few bytes that say who somebody is and in which epoch.

use zkd::record::quorum::packet;
use zkd::zab::wire::DATA_MAX;

use super::scan::{Head, Item, Senseless, Step, int, long};
use super::snapshot;
use super::{Name, What};

/// Type, zxid and the length of the payload.
pub(super) const HEAD_BYTES: usize = 16;
/// More identities than any client has.
const IDS_MAX: i32 = 256;

/// Where in a packet the scanner stands, waiting for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Before type, zxid and length.
    Head,
    /// Before the first bytes of the payload, of which so many follow in all.
    Payload(Seen, u32),
    /// Before the number of identities.
    Ids(Seen),
    /// Before the length of one of so many strings.
    Strings(Seen, i32),
    /// Behind everything.
    End(Seen),
    /// In the snapshot behind a SNAP.
    Snapshot(snapshot::State),
}

/// What is known of the present packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    kind: i32,
    zxid: i64,
    number: Option<i64>,
}

impl State {
    pub(super) const HEAD: Self = Self::Head;

    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> Result<Step, Senseless> {
        match *self {
            Self::Head => self.on_head(bytes),
            Self::Payload(mut seen, length) => {
                seen.number = Some(match bytes.len() {
                    4 => i64::from(int(bytes, 0)),
                    _ => long(bytes, 0),
                });
                *self = Self::Ids(seen);
                let rest = u64::from(length) - bytes.len() as u64;
                Ok(Step::skip_and_want(rest, 4))
            }
            Self::Ids(seen) => {
                let count = int(bytes, 0);
                if count > IDS_MAX {
                    return Err("a packet has more identities than a client can");
                }
                Ok(self.next_string(seen, count.max(0) * 2, 0))
            }
            Self::Strings(seen, left) => {
                let length = checked(int(bytes, 0), "the length of an identity is not one")?;
                Ok(self.next_string(seen, left - 1, length))
            }
            Self::End(seen) => Ok(self.on_end(seen)),
            Self::Snapshot(mut inside) => {
                let step = inside.on_bytes(bytes)?;
                *self = Self::Snapshot(inside);
                let Some((skip, want)) = step else {
                    *self = Self::Head;
                    return Ok(Step {
                        item: Item::End(Some(What::SnapshotEnd)),
                        skip: 0,
                        want: HEAD_BYTES,
                    });
                };
                Ok(Step::skip_and_want(skip, want))
            }
        }
    }

    fn on_head(&mut self, bytes: &[u8]) -> Result<Step, Senseless> {
        let (kind, zxid, length) = (int(bytes, 0), long(bytes, 4), int(bytes, 12));
        if !(packet::REQUEST..=packet::INFORMANDACTIVATE).contains(&kind) {
            return Err("there is no packet of this type");
        }
        let length = checked(length, "the length of a payload is not one")?;
        let seen = Seen {
            kind,
            zxid,
            number: None,
        };
        let kept = match kind {
            packet::ACKEPOCH if length >= 4 => 4,
            packet::FOLLOWERINFO | packet::OBSERVERINFO if length >= 8 => 8,
            _ => 0,
        };
        let (skip, want) = if kept > 0 {
            *self = Self::Payload(seen, length);
            (0, kept)
        } else {
            *self = Self::Ids(seen);
            (u64::from(length), 4)
        };
        let name = Name::Packet(kind);
        Ok(Step {
            item: Item::Head(Head { name, zxid }),
            skip,
            want,
        })
    }

    /// Passes over a string of `skip` bytes; `left` more follow.
    fn next_string(&mut self, seen: Seen, left: i32, skip: u32) -> Step {
        if left > 0 {
            *self = Self::Strings(seen, left);
            return Step::skip_and_want(skip.into(), 4);
        }
        if skip == 0 {
            return self.on_end(seen);
        }
        *self = Self::End(seen);
        Step::skip_and_want(skip.into(), 0)
    }

    fn on_end(&mut self, seen: Seen) -> Step {
        let want = if seen.kind == packet::SNAP {
            *self = Self::Snapshot(snapshot::State::FIRST);
            snapshot::FIRST_BYTES
        } else {
            *self = Self::Head;
            HEAD_BYTES
        };
        let Seen { kind, zxid, number } = seen;
        Step {
            item: Item::End(Some(What::Packet { kind, zxid, number })),
            skip: 0,
            want,
        }
    }
}

/// The length of a buffer or string; null counts as empty.
pub(super) fn checked(length: i32, wrong: Senseless) -> Result<u32, Senseless> {
    match u32::try_from(length) {
        Ok(length) if length as usize <= DATA_MAX => Ok(length),
        Err(_) if length == -1 => Ok(0),
        _ => Err(wrong),
    }
}
