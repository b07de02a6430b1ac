//! The election port: the greeting of the one that connects, then framed notifications. Counterpart:
//! `QuorumCnxManager` and the messages of `FastLeaderElection`.

use super::scan::{Head, Item, Senseless, Step, int, long};
use super::{Ballot, Claim, Name, What};

/// The longest frame that Apache takes.
const FRAME_MAX: i32 = 524_288;
/// The longest address in a greeting.
const ADDRESS_MAX: i32 = 2048;
/// The part of a notification before its configuration.
const VOTE_BYTES: usize = 44;
/// The shortest notification there is, of version 3.4.
const VOTE_BYTES_MIN: i32 = 28;

/// Where the scanner stands, waiting for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Before the protocol's number.
    Greeting,
    /// Before the server id and the length of an address.
    Address,
    /// Behind the address.
    GreetingEnd,
    /// Before the length of a frame.
    Frame,
    /// Before a vote, in a frame of this length.
    Vote(u32),
    /// Behind the rest of the frame.
    FrameEnd(Option<Ballot>),
}

impl State {
    pub(super) fn first(dials: bool) -> Self {
        if dials { Self::Greeting } else { Self::Frame }
    }

    pub(super) fn want(self) -> usize {
        match self {
            Self::Greeting => 8,
            _ => 4,
        }
    }

    pub(super) fn names_come(self) -> bool {
        matches!(self, Self::Frame | Self::Vote(_))
    }

    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> Result<Step, Senseless> {
        match *self {
            Self::Greeting if long(bytes, 0) >= 0 => Ok(self.on_end(None)),
            Self::Greeting => {
                *self = Self::Address;
                Ok(Step::skip_and_want(0, 12))
            }
            Self::Address => match int(bytes, 8) {
                length @ 1..=ADDRESS_MAX => {
                    *self = Self::GreetingEnd;
                    Ok(Step::skip_and_want(length.unsigned_abs().into(), 0))
                }
                _ => Err("a greeting has an address of no reasonable length"),
            },
            Self::GreetingEnd => Ok(self.on_end(None)),
            Self::Frame => match int(bytes, 0) {
                length @ VOTE_BYTES_MIN..=FRAME_MAX => {
                    let length = length.unsigned_abs();
                    *self = Self::Vote(length);
                    Ok(Step::skip_and_want(0, (length as usize).min(VOTE_BYTES)))
                }
                _ => Err("a notification has no reasonable length"),
            },
            Self::Vote(length) => {
                let ballot = read(bytes)?;
                *self = Self::FrameEnd(Some(ballot));
                Ok(Step {
                    item: Item::Head(Head {
                        name: Name::Vote,
                        zxid: ballot.zxid,
                    }),
                    skip: u64::from(length) - bytes.len() as u64,
                    want: 0,
                })
            }
            Self::FrameEnd(ballot) => Ok(self.on_end(ballot)),
        }
    }

    fn on_end(&mut self, ballot: Option<Ballot>) -> Step {
        *self = Self::Frame;
        Step {
            item: Item::End(ballot.map(What::Vote)),
            skip: 0,
            want: 4,
        }
    }
}

/// Reads a notification up to its configuration. In the shortest form the epoch is that of the zxid.
fn read(bytes: &[u8]) -> Result<Ballot, Senseless> {
    let claim = match int(bytes, 0) {
        0 => Claim::Looking,
        1 => Claim::Following,
        2 => Claim::Leading,
        3 => Claim::Observing,
        _ => return Err("a notification claims a state that there is not"),
    };
    let zxid = long(bytes, 12);
    Ok(Ballot {
        claim,
        leader: long(bytes, 4),
        zxid,
        round: long(bytes, 20),
        epoch: if bytes.len() >= 36 {
            long(bytes, 28)
        } else {
            zxid >> 32
        },
    })
}
