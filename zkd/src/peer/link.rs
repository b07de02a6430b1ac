//! The byte stream of a quorum link, taken apart.
//!
//! Quorum packets follow one another without framing, and a SNAP packet is followed by a raw snapshot and
//! a signature. The decoder takes bytes in any cut, holds at most one packet or one znode back, and loads a
//! snapshot as it arrives. Counterpart: `Learner.syncWithLeader`'s reading of `leaderIs`.

use bytes::{Buf, BytesMut};

use crate::ids::Zxid;
use crate::jute::{DecodeError, Reader, Record};
use crate::record::quorum::{QuorumPacket, packet};
use crate::tree::{DataTree, SnapshotLoader};
use crate::zab::wire;

/// What a leader writes behind a snapshot, as a jute string.
pub const SNAPSHOT_SIGNATURE: &str = "BenWasHere";

/// What came on a link.
#[derive(Debug)]
pub enum LinkItem {
    /// A packet.
    Packet(QuorumPacket),
    /// A SNAP packet's zxid and the tree that followed it.
    Snapshot(Zxid, Box<DataTree>),
}

/// Takes the bytes of one link apart.
pub struct LinkDecoder {
    buffer: BytesMut,
    /// Largest payload of a packet, in bytes.
    payload_max: usize,
    snapshot: Option<Loading>,
}

struct Loading {
    zxid: Zxid,
    loader: SnapshotLoader,
    /// The body is complete; the signature is awaited.
    tree: Option<Box<DataTree>>,
}

impl LinkDecoder {
    /// Payloads of packets may have up to `payload_max` bytes.
    #[must_use]
    pub fn new(payload_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            payload_max,
            snapshot: None,
        }
    }

    /// The buffer to read into; call [`Self::next_item`] until it says `None` after each read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole item, `None` if more bytes are needed.
    ///
    /// # Errors
    /// If the bytes are no packet or no snapshot; the link must then be closed.
    pub fn next_item(&mut self) -> Result<Option<LinkItem>, DecodeError> {
        if self.snapshot.is_some() {
            return self.next_of_snapshot();
        }
        let Some(length) = wire::packet_len_within(&self.buffer, self.payload_max)? else {
            return Ok(None);
        };
        let frame = self.buffer.split_to(length).freeze();
        let packet = QuorumPacket::decode(&mut Reader::shared(&frame))?;
        if packet.kind == packet::SNAP {
            self.snapshot = Some(Loading {
                zxid: packet.zxid,
                loader: SnapshotLoader::new(),
                tree: None,
            });
            return self.next_of_snapshot();
        }
        Ok(Some(LinkItem::Packet(packet)))
    }

    /// Whether the bytes that come next belong to a snapshot.
    #[must_use]
    pub fn in_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    fn next_of_snapshot(&mut self) -> Result<Option<LinkItem>, DecodeError> {
        let Some(loading) = &mut self.snapshot else {
            return Ok(None);
        };
        if loading.tree.is_none() {
            let progress = loading.loader.feed(&self.buffer)?;
            self.buffer.advance(progress.consumed);
            if !progress.done {
                return Ok(None);
            }
            let loader = std::mem::take(&mut loading.loader);
            loading.tree = Some(Box::new(loader.finish()?));
        }
        let length = 4 + SNAPSHOT_SIGNATURE.len();
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut reader = Reader::new(&self.buffer[..length]);
        if reader.string("snapshot signature")? != SNAPSHOT_SIGNATURE {
            return Err(DecodeError::Value {
                what: "snapshot signature",
                value: 0,
            });
        }
        self.buffer.advance(length);
        let Loading { zxid, tree, .. } = self.snapshot.take().expect("a snapshot is being read");
        let tree = tree.expect("the body was complete before the signature was read");
        Ok(Some(LinkItem::Snapshot(zxid, tree)))
    }
}
