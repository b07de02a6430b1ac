//! The packets of the quorum port: where one ends, and what stands in its payload.
//!
//! Packets follow one another without framing, so their length has to be found in their bytes;
//! [`packet_len`] does that without allocating and checks every length against its limit before it waits
//! for the bytes. The payloads are small records that exist nowhere else. Counterpart: the hand-written
//! stream code of `Learner`, `LearnerHandler` and `Leader`.

use bytes::Bytes;

use crate::ids::{Epoch, ServerId, SessionId, Xid, Zxid};
use crate::jute::{DecodeError, Reader, Record, Writer};
use crate::record::data::Id;
use crate::record::quorum::{LearnerInfo, PROTOCOL_VERSION, QuorumPacket, packet};

/// The longest payload read by default: Apache's `jute.maxbuffer` (0xfffff) and as much again.
pub const DATA_MAX: usize = 2 * 0xf_ffff;

/// Length of the first whole packet in `bytes`, `None` if more bytes are needed, with [`DATA_MAX`].
///
/// # Errors
/// On a length that is negative or over the limit: the stream cannot be read any further.
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    packet_len_within(bytes, DATA_MAX)
}

/// As [`packet_len`], for payloads of up to `data_max` bytes.
///
/// # Errors
/// As [`packet_len`].
pub fn packet_len_within(bytes: &[u8], data_max: usize) -> Result<Option<usize>, DecodeError> {
    let mut scan = Scan {
        bytes,
        at: 12, // type and zxid
        data_max,
    };
    if scan.buffer("packet data")?.is_none() {
        return Ok(None);
    }
    let Some(count) = scan.int() else {
        return Ok(None);
    };
    // An identity takes 8 bytes at least; what a count promises beyond the limit is refused at once.
    if usize::try_from(count).is_ok_and(|count| count > data_max / 8) {
        return Err(DecodeError::Length {
            what: "packet authinfo",
            length: count,
        });
    }
    for _ in 0..count.max(0) {
        for what in ["identity scheme", "identity id"] {
            if scan.buffer(what)?.is_none() {
                return Ok(None);
            }
        }
    }
    Ok((scan.at <= bytes.len()).then_some(scan.at))
}

/// Walks over lengths without looking at what they measure.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    data_max: usize,
}

impl Scan<'_> {
    fn int(&mut self) -> Option<i32> {
        let bytes = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        Some(i32::from_be_bytes(
            bytes
                .try_into()
                .expect("a slice of four bytes is four bytes"),
        ))
    }

    /// Steps over a buffer or string; `None` if its bytes are not all there.
    fn buffer(&mut self, what: &'static str) -> Result<Option<()>, DecodeError> {
        let Some(length) = self.int() else {
            return Ok(None);
        };
        if length == -1 {
            return Ok(Some(()));
        }
        match usize::try_from(length) {
            Ok(count) if count <= self.data_max => {
                self.at += count;
                Ok((self.at <= self.bytes.len()).then_some(()))
            }
            _ => Err(DecodeError::Length { what, length }),
        }
    }
}

/// A payload reader over a packet's data; null reads as empty and then fails for want of bytes.
fn payload(packet: &QuorumPacket) -> Reader<'_> {
    packet
        .data
        .as_ref()
        .map_or_else(|| Reader::new(&[]), Reader::shared)
}

fn built(kind: i32, zxid: Zxid, fill: impl FnOnce(&mut Writer<'_>)) -> QuorumPacket {
    let mut data = Vec::new();
    fill(&mut Writer::new(&mut data));
    QuorumPacket::with(kind, zxid, data)
}

/// FOLLOWERINFO or OBSERVERINFO: who a learner is and which epoch it has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The learner's id; `None` if it sent no payload at all.
    pub sid: Option<ServerId>,
    /// Its protocol version, 0 if it did not say.
    pub protocol_version: i32,
    /// Version of its configuration, 0 if it did not say.
    pub config_version: i64,
    /// `acceptedEpoch`.
    pub accepted_epoch: Epoch,
}

/// FOLLOWERINFO or OBSERVERINFO (`kind`).
#[must_use]
pub fn learner_info(
    kind: i32,
    accepted_epoch: Epoch,
    sid: ServerId,
    config_version: i64,
) -> QuorumPacket {
    let info = LearnerInfo {
        sid: sid.0,
        protocol_version: PROTOCOL_VERSION,
        config_version,
    };
    QuorumPacket::with(kind, Zxid::new(accepted_epoch, 0), info.to_vec())
}

/// Reads FOLLOWERINFO or OBSERVERINFO: 20 bytes, or the 12 or 8 of older learners, or none.
///
/// # Errors
/// If the payload has another length.
pub fn read_learner_info(packet: &QuorumPacket) -> Result<Introduction, DecodeError> {
    let mut from = payload(packet);
    let mut out = Introduction {
        sid: None,
        protocol_version: 0,
        config_version: 0,
        accepted_epoch: packet.zxid.epoch(),
    };
    if packet.data.is_some() {
        out.sid = Some(ServerId(from.long("learner sid")?));
    }
    if !from.is_empty() {
        out.protocol_version = from.int("protocol version")?;
    }
    if !from.is_empty() {
        out.config_version = from.long("configuration version")?;
    }
    Ok(out)
}

/// LEADERINFO.
#[must_use]
pub fn leader_info(epoch: Epoch) -> QuorumPacket {
    built(packet::LEADERINFO, Zxid::new(epoch, 0), |out| {
        out.int(PROTOCOL_VERSION);
    })
}

/// The leader's protocol version in LEADERINFO.
///
/// # Errors
/// If the payload is too short.
pub fn read_leader_info(packet: &QuorumPacket) -> Result<i32, DecodeError> {
    payload(packet).int("protocol version")
}

/// ACKEPOCH; [`Epoch::NONE`] if the epoch had been promised before.
#[must_use]
pub fn ack_epoch(last_zxid: Zxid, current_epoch: Epoch) -> QuorumPacket {
    built(packet::ACKEPOCH, last_zxid, |out| {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an epoch is the high half of a zxid: 32 bits"
        )]
        out.int(current_epoch.0 as i32);
    })
}

/// The current epoch in ACKEPOCH.
///
/// # Errors
/// If the payload is too short.
pub fn read_ack_epoch(packet: &QuorumPacket) -> Result<Epoch, DecodeError> {
    Ok(Epoch(i64::from(payload(packet).int("current epoch")?)))
}

/// A REQUEST's payload, without the identities (they travel in the packet's `authinfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The session.
    pub session: SessionId,
    /// The client's number of the request.
    pub cxid: Xid,
    /// An opcode number.
    pub op: i32,
    /// The request record.
    pub payload: Bytes,
}

/// REQUEST. Sessions are opened and closed without identities, and then `authinfo` is null.
#[must_use]
pub fn request(request: &Forwarded, ids: &[Id]) -> QuorumPacket {
    let mut data = Vec::with_capacity(16 + request.payload.len());
    let mut out = Writer::new(&mut data);
    out.long(request.session.0);
    out.int(request.cxid.0);
    out.int(request.op);
    out.raw(&request.payload);
    QuorumPacket {
        authinfo: (!ids.is_empty()).then(|| ids.to_vec()),
        ..QuorumPacket::with(packet::REQUEST, Zxid::NONE, data)
    }
}

/// Reads a REQUEST; the payload is a slice of the packet's.
///
/// # Errors
/// If it is too short.
pub fn read_request(packet: &QuorumPacket) -> Result<Forwarded, DecodeError> {
    let mut from = payload(packet);
    Ok(Forwarded {
        session: SessionId(from.long("request session")?),
        cxid: Xid(from.int("request cxid")?),
        op: from.int("request type")?,
        payload: from.rest_bytes(),
    })
}

/// A learner's answer to PING, with the sessions it heard of and their timeouts in ms. The payload is
/// never null: Apache's leader does not survive that.
#[must_use]
pub fn ping_reply(zxid: Zxid, touched: &[(SessionId, i32)]) -> QuorumPacket {
    built(packet::PING, zxid, |out| {
        for (session, timeout_ms) in touched {
            out.long(session.0);
            out.int(*timeout_ms);
        }
    })
}

/// The sessions in a learner's PING.
///
/// # Errors
/// If the payload is no whole number of entries.
pub fn read_ping_reply(packet: &QuorumPacket) -> Result<Vec<(SessionId, i32)>, DecodeError> {
    let mut from = payload(packet);
    let mut touched = Vec::with_capacity(from.rest().len() / 12);
    while !from.is_empty() {
        let session = SessionId(from.long("touched session")?);
        touched.push((session, from.int("touched timeout")?));
    }
    Ok(touched)
}

/// A learner's REVALIDATE.
#[must_use]
pub fn revalidate(session: SessionId, timeout_ms: i32) -> QuorumPacket {
    built(packet::REVALIDATE, Zxid::NONE, |out| {
        out.long(session.0);
        out.int(timeout_ms);
    })
}

/// Session and timeout (ms) of a learner's REVALIDATE.
///
/// # Errors
/// If the payload is too short.
pub fn read_revalidate(packet: &QuorumPacket) -> Result<(SessionId, i32), DecodeError> {
    let mut from = payload(packet);
    Ok((
        SessionId(from.long("revalidated session")?),
        from.int("revalidated timeout")?,
    ))
}

/// The leader's answer to REVALIDATE.
#[must_use]
pub fn revalidated(session: SessionId, valid: bool) -> QuorumPacket {
    built(packet::REVALIDATE, Zxid::NONE, |out| {
        out.long(session.0);
        out.bool(valid);
    })
}

/// Session and verdict of the leader's REVALIDATE.
///
/// # Errors
/// If the payload is too short.
pub fn read_revalidated(packet: &QuorumPacket) -> Result<(SessionId, bool), DecodeError> {
    let mut from = payload(packet);
    Ok((
        SessionId(from.long("revalidated session")?),
        from.bool("session validity")?,
    ))
}

/// The txn inside INFORMANDACTIVATE: it stands behind the designated leader's id.
///
/// # Errors
/// If the payload is too short.
pub fn read_inform_and_activate(packet: &QuorumPacket) -> Result<Bytes, DecodeError> {
    let mut from = payload(packet);
    from.long("designated leader")?;
    Ok(from.rest_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(u8::is_ascii_hexdigit)
            .map(|c| char::from(c).to_digit(16).unwrap() as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    /// Captured from a 3.9.3 ensemble.
    #[test]
    fn handshake_bytes() {
        for (packet, want) in [
            (
                learner_info(packet::FOLLOWERINFO, Epoch(0), ServerId(1), 0),
                "0000000b 0000000000000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff",
            ),
            (
                leader_info(Epoch(1)),
                "00000011 0000000100000000 00000004 00010000 ffffffff",
            ),
            (
                ack_epoch(Zxid::ZERO, Epoch(0)),
                "00000012 0000000000000000 00000004 00000000 ffffffff",
            ),
            (
                ping_reply(Zxid(0x1_0000_0000), &[]),
                "00000005 0000000100000000 00000000 ffffffff",
            ),
            (
                QuorumPacket::bare(packet::UPTODATE, Zxid::NONE),
                "0000000c ffffffffffffffff ffffffff ffffffff",
            ),
        ] {
            assert_eq!(packet.to_vec(), hex(want), "{packet:?}");
            assert_eq!(packet_len(&hex(want)), Ok(Some(hex(want).len())));
        }
    }

    #[test]
    fn payloads_read_what_they_wrote() {
        let info = learner_info(packet::OBSERVERINFO, Epoch(7), ServerId(3), 9);
        assert_eq!(
            read_learner_info(&info),
            Ok(Introduction {
                sid: Some(ServerId(3)),
                protocol_version: PROTOCOL_VERSION,
                config_version: 9,
                accepted_epoch: Epoch(7),
            })
        );
        let none = QuorumPacket::bare(packet::FOLLOWERINFO, Zxid::ZERO);
        assert_eq!(read_learner_info(&none).unwrap().sid, None);
        let short = QuorumPacket::with(packet::FOLLOWERINFO, Zxid::ZERO, vec![0; 8]);
        assert_eq!(read_learner_info(&short).unwrap().sid, Some(ServerId(0)));
        let bad = QuorumPacket::with(packet::FOLLOWERINFO, Zxid::ZERO, vec![0; 10]);
        assert!(read_learner_info(&bad).is_err());

        assert_eq!(
            read_ack_epoch(&ack_epoch(Zxid(5), Epoch::NONE)),
            Ok(Epoch::NONE)
        );
        let touched = [(SessionId(1), 10), (SessionId(-2), 20)];
        assert_eq!(
            read_ping_reply(&ping_reply(Zxid(1), &touched)),
            Ok(touched.to_vec())
        );
        assert!(read_ping_reply(&QuorumPacket::with(packet::PING, Zxid(1), vec![0; 13])).is_err());
        assert_eq!(
            read_revalidate(&revalidate(SessionId(8), 400)),
            Ok((SessionId(8), 400))
        );
        assert_eq!(
            read_revalidated(&revalidated(SessionId(8), true)),
            Ok((SessionId(8), true))
        );
        assert!(read_revalidated(&QuorumPacket::bare(packet::REVALIDATE, Zxid::NONE)).is_err());
        let forwarded = Forwarded {
            session: SessionId(4),
            cxid: Xid(-1),
            op: 99,
            payload: Bytes::from_static(b"xyz"),
        };
        let ids = [Id::new("ip", "127.0.0.1")];
        let packet = request(&forwarded, &ids);
        assert_eq!(packet.authinfo.as_deref(), Some(&ids[..]));
        assert_eq!(read_request(&packet), Ok(forwarded));
    }

    #[test]
    fn a_packet_is_whole_only_at_its_last_byte() {
        let packet = request(
            &Forwarded {
                session: SessionId(4),
                cxid: Xid(1),
                op: 1,
                payload: Bytes::from_static(b"payload"),
            },
            &[
                Id::new("digest", "a:b"),
                Id {
                    scheme: None,
                    id: None,
                },
            ],
        );
        let mut bytes = packet.to_vec();
        for cut in 0..bytes.len() {
            assert_eq!(packet_len(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let length = bytes.len();
        bytes.extend_from_slice(b"the next packet");
        assert_eq!(packet_len(&bytes), Ok(Some(length)));
    }

    #[test]
    fn limits_come_before_the_bytes() {
        let head = hex("00000002 0000000000000001");
        for length in ["7fffffff", "fffffffe", "00200000"] {
            let mut bytes = head.clone();
            bytes.extend(hex(length));
            assert!(packet_len(&bytes).is_err(), "data length {length}");
        }
        let mut bytes = head;
        bytes.extend(hex("ffffffff 7fffffff"));
        assert!(packet_len(&bytes).is_err(), "authinfo count");
    }

    #[test]
    fn garbage_never_panics() {
        let mut prng = Prng::new(7);
        for _ in 0..20_000 {
            let mut bytes = vec![0; prng.below(60) as usize];
            for byte in &mut bytes {
                *byte = if prng.one_in(3) {
                    prng.next_u64() as u8
                } else {
                    0
                };
            }
            if let Ok(Some(length)) = packet_len(&bytes) {
                let packet = QuorumPacket::from_slice(&bytes[..length]).unwrap();
                let _ = (
                    read_learner_info(&packet),
                    read_leader_info(&packet),
                    read_ack_epoch(&packet),
                    read_request(&packet),
                    read_ping_reply(&packet),
                    read_revalidate(&packet),
                    read_revalidated(&packet),
                    read_inform_and_activate(&packet),
                );
            }
        }
    }
}
