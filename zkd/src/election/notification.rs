//! The notification: what one server tells another on the election port, and its bytes.
//!
//! Law kept here: decoding never panics and refuses exactly what Apache skips; encoding writes the
//! current form. The frame length in front belongs to the port. Counterpart: the message part of
//! `FastLeaderElection.WorkerReceiver` and `buildMsg`.

use std::sync::Arc;

use crate::event::ServerState;
use crate::ids::{Epoch, ServerId, Zxid};
use crate::jute::{DecodeError, Reader, Writer};

/// A vote: whom, on the strength of which history, and in which round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The server voted for.
    pub leader: ServerId,
    /// The last zxid of that server.
    pub zxid: Zxid,
    /// The round (logical clock) of the election in which the vote was cast.
    pub election_epoch: i64,
    /// The current epoch of that server; once a leader is established, the epoch of its reign.
    pub peer_epoch: Epoch,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The sender's state; never [`ServerState::Standalone`].
    pub state: ServerState,
    /// The sender's vote.
    pub vote: Vote,
    /// Format: 2 is what is spoken since 3.5; 1 has no configuration; 0 stands for the 28- and
    /// 40-byte forms of 3.4 (whose votes compare more loosely).
    pub version: i32,
    /// Canonical text of the sender's committed configuration, in format 2.
    pub config: Option<Arc<str>>,
}

/// The format that is written.
const VERSION: i32 = 2;

impl Notification {
    /// A notification in the current format.
    #[must_use]
    pub fn new(state: ServerState, vote: Vote, config: Arc<str>) -> Self {
        Self {
            state,
            vote,
            version: VERSION,
            config: Some(config),
        }
    }

    /// The payload of an election frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let config = self.config.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(44 + config.len());
        let mut out = Writer::new(&mut bytes);
        out.int(match self.state {
            ServerState::Following => 1,
            ServerState::Leading => 2,
            ServerState::Observing => 3,
            ServerState::Looking | ServerState::Standalone => 0,
        });
        out.long(self.vote.leader.0);
        out.long(self.vote.zxid.0);
        out.long(self.vote.election_epoch);
        out.long(self.vote.peer_epoch.0);
        out.int(self.version);
        if self.version > 1 {
            out.string(config);
        }
        bytes
    }

    /// Reads the payload of an election frame: 28 bytes (peer epoch from the zxid), 40 bytes (its
    /// version field is not looked at), or 44 and more. The 36-byte form of some 3.4 releases ends in
    /// the middle of a field and is refused, as Apache drops it. Bytes behind the configuration are
    /// ignored.
    ///
    /// # Errors
    /// Names the field that is missing or bad; the message is then to be skipped, the connection kept.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(payload);
        let state = from.int("notification state")?;
        let leader = ServerId(from.long("vote leader")?);
        let zxid = Zxid(from.long("vote zxid")?);
        let election_epoch = from.long("vote election epoch")?;
        let (peer_epoch, version) = match payload.len() {
            28 => (zxid.epoch(), 0),
            40 => (Epoch(from.long("vote peer epoch")?), 0),
            _ => (
                Epoch(from.long("vote peer epoch")?),
                from.int("notification version")?,
            ),
        };
        let config = if version > 1 {
            Some(from.str("notification configuration")?.into())
        } else {
            None
        };
        let state = match state {
            0 => ServerState::Looking,
            1 => ServerState::Following,
            2 => ServerState::Leading,
            3 => ServerState::Observing,
            value => {
                return Err(DecodeError::Value {
                    what: "notification state",
                    value: value.into(),
                });
            }
        };
        Ok(Self {
            state,
            vote: Vote {
                leader,
                zxid,
                election_epoch,
                peer_epoch,
            },
            version,
            config,
        })
    }
}
