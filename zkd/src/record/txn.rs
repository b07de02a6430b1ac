//! Module `txn` of `zookeeper.jute`: what is proposed, logged and applied.
//!
//! A txn on the wire and on disk is [`TxnHeader`], the record its type says, and optionally a
//! [`TxnDigest`]. Txns carry absolute results (versions, times, generated names), so that applying
//! one twice gives the same tree.

use bytes::Bytes;

use super::data::Acl;
use super::opcode::OpCode;
use super::record;
use crate::ids::{SessionId, Xid, Zxid};
use crate::jute::{DecodeError, Reader, Record, Writer};

record! {
    /// Who asked, and which txn it became (32 bytes).
    #[derive(Copy)]
    pub struct TxnHeader {
        /// The session that asked; 0 for the reaper.
        pub client_id: SessionId,
        /// The client's number of the request; 0 when the server asked.
        pub cxid: Xid,
        /// The txn's place in the order of everything.
        pub zxid: Zxid,
        /// The leader's wall clock, ms.
        pub time: i64,
        /// An [`OpCode`] number.
        pub kind: i32,
    }

    /// Body of [`OpCode::CreateTtl`].
    pub struct CreateTtlTxn {
        /// Path with the sequence suffix in it.
        pub path: String,
        /// The data.
        pub data: Option<Bytes>,
        /// The resolved ACL.
        pub acl: Option<Vec<Acl>>,
        /// The parent's stored cversion after this create.
        pub parent_cversion: i32,
        /// Time to live in ms.
        pub ttl: i64,
    }

    /// Body of [`OpCode::CreateContainer`].
    pub struct CreateContainerTxn {
        /// Path with the sequence suffix in it.
        pub path: String,
        /// The data.
        pub data: Option<Bytes>,
        /// The resolved ACL.
        pub acl: Option<Vec<Acl>>,
        /// The parent's stored cversion after this create.
        pub parent_cversion: i32,
    }

    /// Body of [`OpCode::Delete`] and [`OpCode::DeleteContainer`].
    pub struct DeleteTxn {
        /// Path.
        pub path: String,
    }

    /// Body of [`OpCode::SetData`] and [`OpCode::Reconfig`].
    pub struct SetDataTxn {
        /// Path.
        pub path: String,
        /// The data.
        pub data: Option<Bytes>,
        /// The version after it (-1 for a reconfiguration).
        pub version: i32,
    }

    /// Body of [`OpCode::SetAcl`].
    pub struct SetAclTxn {
        /// Path.
        pub path: String,
        /// The resolved ACL.
        pub acl: Option<Vec<Acl>>,
        /// The aversion after it.
        pub version: i32,
    }

    /// Body of [`OpCode::Check`], inside multis.
    pub struct CheckVersionTxn {
        /// Path.
        pub path: String,
        /// The checked version plus one.
        pub version: i32,
    }

    /// Body of [`OpCode::CreateSession`].
    #[derive(Copy)]
    pub struct CreateSessionTxn {
        /// The negotiated timeout in ms.
        pub timeout_ms: i32,
    }

    /// Body of [`OpCode::Error`].
    #[derive(Copy)]
    pub struct ErrorTxn {
        /// An [`crate::error::ErrorCode`] number.
        pub code: i32,
    }

    /// One operation of a multi.
    pub struct MultiOp {
        /// Its [`OpCode`] number, or -1 in a failed multi.
        pub kind: i32,
        /// Its body. With type -1 only the first 4 bytes (the code) mean anything.
        pub data: Option<Bytes>,
    }

    /// Body of [`OpCode::Multi`].
    pub struct MultiTxn {
        /// The operations in order.
        pub ops: Vec<MultiOp>,
    }

    /// The tree's digest after the txn.
    #[derive(Copy)]
    pub struct TxnDigest {
        /// Version of the digest's formula, 2.
        pub version: i32,
        /// The sum over all znodes.
        pub tree_digest: i64,
    }
}

/// Body of [`OpCode::Create`] and [`OpCode::Create2`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTxn {
    /// Path with the sequence suffix in it.
    pub path: String,
    /// The data.
    pub data: Option<Bytes>,
    /// The resolved ACL.
    pub acl: Option<Vec<Acl>>,
    /// Owned by the header's session?
    pub ephemeral: bool,
    /// The parent's stored cversion after this create; -1 in the form that logs before 3.4 used,
    /// which lacks the field.
    pub parent_cversion: i32,
}

impl Record for CreateTxn {
    fn encode(&self, out: &mut Writer<'_>) {
        out.string(&self.path);
        out.buffer(self.data.as_deref());
        out.vector(self.acl.as_deref());
        out.bool(self.ephemeral);
        out.int(self.parent_cversion);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            path: from.string("path")?,
            data: from.buffer("data")?,
            acl: from.vector("acl")?,
            ephemeral: from.bool("ephemeral")?,
            parent_cversion: if from.is_empty() {
                -1
            } else {
                from.int("parent_cversion")?
            },
        })
    }
}

/// Body of [`OpCode::CloseSession`]: absent (`None`) where the leader runs with
/// `closeSessionTxn.enabled=false` or is older than 3.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseSessionTxn {
    /// The ephemerals that go with the session.
    pub paths: Option<Vec<String>>,
}

/// The body of a txn, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Txn {
    /// Types 1 and 15.
    Create(CreateTxn),
    /// Type 21.
    CreateTtl(CreateTtlTxn),
    /// Type 19.
    CreateContainer(CreateContainerTxn),
    /// Types 2 and 20.
    Delete(DeleteTxn),
    /// Types 5 and 16.
    SetData(SetDataTxn),
    /// Type 7.
    SetAcl(SetAclTxn),
    /// Type 13.
    Check(CheckVersionTxn),
    /// Type -10.
    CreateSession(CreateSessionTxn),
    /// Type -11.
    CloseSession(CloseSessionTxn),
    /// Type -1.
    Error(ErrorTxn),
    /// Type 14.
    Multi(MultiTxn),
}

impl Txn {
    /// Appends the body (nothing for a close without paths).
    pub fn encode(&self, out: &mut Writer<'_>) {
        match self {
            Self::Create(t) => t.encode(out),
            Self::CreateTtl(t) => t.encode(out),
            Self::CreateContainer(t) => t.encode(out),
            Self::Delete(t) => t.encode(out),
            Self::SetData(t) => t.encode(out),
            Self::SetAcl(t) => t.encode(out),
            Self::Check(t) => t.encode(out),
            Self::CreateSession(t) => t.encode(out),
            Self::CloseSession(t) => {
                if let Some(paths) = &t.paths {
                    out.vector(Some(paths));
                }
            }
            Self::Error(t) => t.encode(out),
            Self::Multi(t) => t.encode(out),
        }
    }

    /// Reads the body of a txn of type `kind`.
    ///
    /// # Errors
    /// On an unknown type or a body that is not one of that type.
    pub fn decode(kind: i32, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let unknown = DecodeError::Value {
            what: "txn type",
            value: i64::from(kind),
        };
        Ok(
            match OpCode::from_code(kind).ok_or_else(|| unknown.clone())? {
                OpCode::Create | OpCode::Create2 => Self::Create(CreateTxn::decode(from)?),
                OpCode::CreateTtl => Self::CreateTtl(CreateTtlTxn::decode(from)?),
                OpCode::CreateContainer => Self::CreateContainer(CreateContainerTxn::decode(from)?),
                OpCode::Delete | OpCode::DeleteContainer => Self::Delete(DeleteTxn::decode(from)?),
                OpCode::SetData | OpCode::Reconfig => Self::SetData(SetDataTxn::decode(from)?),
                OpCode::SetAcl => Self::SetAcl(SetAclTxn::decode(from)?),
                OpCode::Check => Self::Check(CheckVersionTxn::decode(from)?),
                OpCode::CreateSession => Self::CreateSession(CreateSessionTxn::decode(from)?),
                OpCode::CloseSession => Self::CloseSession(CloseSessionTxn {
                    paths: if Self::no_close_body(from.rest()) {
                        None
                    } else {
                        from.vector("paths2Delete")?
                    },
                }),
                OpCode::Error => Self::Error(ErrorTxn::decode(from)?),
                OpCode::Multi => Self::Multi(MultiTxn::decode(from)?),
                _ => return Err(unknown),
            },
        )
    }
}

impl Txn {
    /// A closeSession without body may still be followed by a digest (version 2). No list of two
    /// paths fits the 8 bytes after such a count, so the two cannot be confused.
    fn no_close_body(rest: &[u8]) -> bool {
        rest.is_empty() || (rest.len() == 12 && rest[..4] == [0, 0, 0, 2])
    }
}

/// A whole txn: header, body, digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnRecord {
    /// Who, when, which.
    pub header: TxnHeader,
    /// What.
    pub txn: Txn,
    /// The leader's digest after it, where it computes one.
    pub digest: Option<TxnDigest>,
}

impl Record for TxnRecord {
    fn encode(&self, out: &mut Writer<'_>) {
        self.header.encode(out);
        self.txn.encode(out);
        if let Some(digest) = &self.digest {
            digest.encode(out);
        }
    }

    /// Reads header and body to the end of the input; what follows the body is the digest if it is
    /// long enough and ignored otherwise, as in Apache.
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = TxnHeader::decode(from)?;
        let txn = Txn::decode(header.kind, from)?;
        let digest = if from.is_empty() {
            None
        } else {
            Some(TxnDigest::decode(from)?)
        };
        Ok(Self {
            header,
            txn,
            digest,
        })
    }
}

impl TxnRecord {
    /// Reads a txn out of a shared buffer without copying its data.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::shared(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first record of a log that Apache ZooKeeper 3.9.3 wrote: a createSession.
    #[test]
    fn create_session_as_apache_writes_it() {
        let mut raw = Vec::new();
        raw.extend(0x0100_0013_5726_0000_i64.to_be_bytes());
        raw.extend(0_i32.to_be_bytes());
        raw.extend(0x1_0000_0001_i64.to_be_bytes());
        raw.extend(0x0000_01a2_0113_cff4_i64.to_be_bytes());
        raw.extend((-10_i32).to_be_bytes());
        raw.extend(10_000_i32.to_be_bytes());
        raw.extend(2_i32.to_be_bytes());
        raw.extend(0x51c6_d660_i64.to_be_bytes());
        let record = TxnRecord::from_slice(&raw).unwrap();
        assert_eq!(
            record.txn,
            Txn::CreateSession(CreateSessionTxn { timeout_ms: 10_000 })
        );
        assert_eq!(
            record.digest,
            Some(TxnDigest {
                version: 2,
                tree_digest: 0x51c6_d660
            })
        );
        assert_eq!(record.to_vec(), raw);
    }
}
