//! Frames to the client, encoded straight into a connection's outgoing buffer.
//!
//! A frame is opened with its header, its body is appended, and closing it fills in the length; a failed
//! body is cut off again and leaves the error in the header. Nothing is allocated but the buffer itself.

use crate::error::ErrorCode;
use crate::ids::{SessionId, Xid, Zxid};
use crate::jute::{Record, Writer};
use crate::record::data::Stat;
use crate::record::opcode::OpCode;
use crate::record::proto::{MultiHeader, ReplyHeader, xid};
use crate::record::txn::{Txn, TxnRecord};
use crate::tree::{Applied, AppliedBody, EventKind};

/// Length word and reply header.
const HEAD: usize = 4 + 16;
/// The state in a watch event: connected. The server never says another.
const STATE_CONNECTED: i32 = 3;

/// A frame being written at the end of a buffer.
#[derive(Debug)]
pub(super) struct Frame {
    start: usize,
}

impl Frame {
    /// Opens a frame with a successful reply header.
    pub(super) fn open(out: &mut Vec<u8>, xid: Xid, zxid: Zxid) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let header = ReplyHeader { xid, zxid, err: 0 };
        header.encode(&mut Writer::new(out));
        Self { start }
    }

    /// Closes the frame.
    pub(super) fn close(self, out: &mut [u8]) {
        let length = out.len() - self.start - 4;
        let length = u32::try_from(length).expect("a reply is below the 4 GiB a frame can say");
        out[self.start..self.start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Closes the frame as an error: without body.
    pub(super) fn fail(self, out: &mut Vec<u8>, err: ErrorCode) {
        out.truncate(self.start + HEAD);
        out[self.start + HEAD - 4..].copy_from_slice(&err.code().to_be_bytes());
        self.close(out);
    }

    /// Bytes of the body so far.
    pub(super) fn body_len(&self, out: &[u8]) -> usize {
        out.len() - self.start - HEAD
    }
}

/// A reply that is only a header.
pub(super) fn header_only(out: &mut Vec<u8>, xid: Xid, zxid: Zxid, err: ErrorCode) {
    Frame::open(out, xid, zxid).fail(out, err);
}

/// The answer to a write whose txn was applied.
pub(super) fn write_reply(out: &mut Vec<u8>, xid: Xid, zxid: Zxid, op: OpCode, applied: &Applied) {
    let frame = Frame::open(out, xid, zxid);
    if op != OpCode::Multi && applied.err != ErrorCode::Ok {
        return frame.fail(out, applied.err);
    }
    body(&mut Writer::new(out), &applied.body);
    if op == OpCode::Multi && !matches!(applied.body, AppliedBody::Multi(_)) {
        // The whole multi was refused, not one of its operations.
        return frame.fail(out, applied.err);
    }
    frame.close(out);
}

/// The answer to a reconfiguration: the new configuration and the Stat of its znode.
pub(super) fn reconfig_reply(out: &mut Vec<u8>, xid: Xid, record: &TxnRecord, applied: &Applied) {
    let frame = Frame::open(out, xid, record.header.zxid);
    match (&record.txn, &applied.body) {
        (Txn::SetData(set), AppliedBody::Stat(stat)) if applied.err == ErrorCode::Ok => {
            let mut out_body = Writer::new(out);
            out_body.buffer(set.data.as_deref());
            stat.encode(&mut out_body);
            frame.close(out);
        }
        _ => frame.fail(out, applied.err),
    }
}

fn body(out: &mut Writer<'_>, body: &AppliedBody) {
    match body {
        AppliedBody::None => {}
        AppliedBody::Path(path) => out.string(path),
        AppliedBody::PathStat(path, stat) => {
            out.string(path);
            stat.encode(out);
        }
        AppliedBody::Stat(stat) => stat.encode(out),
        AppliedBody::Multi(results) => {
            for (op, err, result) in results {
                multi_result(out, *op, *err, result);
            }
            MultiHeader::END.encode(out);
        }
    }
}

/// In a failed multi every result is an error: 0 before the failing operation, its code, then -2.
fn multi_result(out: &mut Writer<'_>, op: OpCode, err: ErrorCode, result: &AppliedBody) {
    if op == OpCode::Error {
        return multi_error(out, err);
    }
    let kind = match result {
        AppliedBody::PathStat(..) => OpCode::Create2,
        _ => op,
    };
    multi_header(out, kind);
    body(out, result);
}

/// In front of a successful result of a multi or multiRead.
pub(super) fn multi_header(out: &mut Writer<'_>, kind: OpCode) {
    let header = MultiHeader {
        kind: kind.code(),
        done: false,
        err: 0,
    };
    header.encode(out);
}

/// A failed result of a multi or multiRead.
pub(super) fn multi_error(out: &mut Writer<'_>, err: ErrorCode) {
    let header = MultiHeader {
        kind: OpCode::Error.code(),
        done: false,
        err: err.code(),
    };
    header.encode(out);
    out.int(err.code());
}

/// A watch event. Its zxid is that of the txn (3.9; -1 before, and for what setWatches catches up).
pub(super) fn event(out: &mut Vec<u8>, kind: EventKind, path: &str, zxid: Zxid) {
    let frame = Frame::open(out, xid::NOTIFICATION, zxid);
    let mut body = Writer::new(out);
    body.int(kind as i32);
    body.int(STATE_CONNECTED);
    body.string(path);
    frame.close(out);
}

/// The answer to the first frame of a client. `session` 0 with timeout 0 says that the session is gone.
/// `read_only` is sent only to clients that said theirs.
pub(super) fn connect_response(
    out: &mut Vec<u8>,
    session: SessionId,
    timeout_ms: i32,
    password: &[u8; 16],
    read_only: Option<bool>,
) {
    let start = out.len();
    let mut body = Writer::new(out);
    body.int(if read_only.is_some() { 37 } else { 36 });
    body.int(0);
    body.int(timeout_ms);
    body.long(session.0);
    body.buffer(Some(password));
    if let Some(read_only) = read_only {
        body.bool(read_only);
    }
    debug_assert!(out.len() - start >= 40);
}

/// Appends a Stat.
pub(super) fn stat(out: &mut Writer<'_>, stat: &Stat) {
    stat.encode(out);
}
