//! Write requests as values: one operation, alone or inside a multi.

use bytes::Bytes;

use crate::jute::{DecodeError, Reader, Record};
use crate::record::data::Acl;
use crate::record::opcode::OpCode;
use crate::record::proto::{
    CreateRequest, CreateTtlRequest, PathVersionRequest, SetAclRequest, SetDataRequest,
};

/// One write of one znode.
#[derive(Debug)]
pub(super) enum Operation {
    Create(Create),
    Delete {
        path: String,
        version: i32,
    },
    DeleteContainer {
        path: String,
    },
    SetData(VersionedData),
    SetAcl {
        path: String,
        acl: Option<Vec<Acl>>,
        version: i32,
    },
    Check {
        path: String,
        version: i32,
    },
}

/// Any member of the create family.
#[derive(Debug)]
pub(super) struct Create {
    /// Which member: it decides the kind of the txn and of the answer.
    pub(super) op: OpCode,
    pub(super) path: String,
    pub(super) data: Option<Bytes>,
    pub(super) acl: Option<Vec<Acl>>,
    pub(super) flags: i32,
    /// Only createTTL has one.
    pub(super) ttl: Option<i64>,
}

#[derive(Debug)]
pub(super) struct VersionedData {
    pub(super) path: String,
    pub(super) data: Option<Bytes>,
    pub(super) version: i32,
}

/// What the flags of a create say. That a node is a container is said by the operation alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) ephemeral: bool,
    pub(super) sequential: bool,
    pub(super) ttl: bool,
}

/// The flags of a container.
const FLAGS_CONTAINER: i32 = 4;

impl Mode {
    pub(super) fn from_flags(flags: i32) -> Option<Self> {
        let (ephemeral, sequential, ttl) = match flags {
            0 | FLAGS_CONTAINER => (false, false, false),
            1 => (true, false, false),
            2 => (false, true, false),
            3 => (true, true, false),
            5 => (false, false, true),
            6 => (false, true, true),
            _ => return None,
        };
        Some(Self {
            ephemeral,
            sequential,
            ttl,
        })
    }
}

impl Operation {
    /// Reads the record of a request of kind `op`; what follows it is ignored, as in Apache.
    pub(super) fn decode(op: OpCode, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => {
                Self::Create(Create::decode(op, from)?)
            }
            OpCode::CreateTtl => Self::Create(Create::decode_ttl(from)?),
            OpCode::Delete => {
                let PathVersionRequest { path, version } = PathVersionRequest::decode(from)?;
                Self::Delete { path, version }
            }
            OpCode::DeleteContainer => Self::DeleteContainer {
                path: from.string("path")?,
            },
            OpCode::SetData => {
                let SetDataRequest {
                    path,
                    data,
                    version,
                } = SetDataRequest::decode(from)?;
                Self::SetData(VersionedData {
                    path,
                    data,
                    version,
                })
            }
            OpCode::SetAcl => {
                let SetAclRequest { path, acl, version } = SetAclRequest::decode(from)?;
                Self::SetAcl { path, acl, version }
            }
            OpCode::Check => {
                let PathVersionRequest { path, version } = PathVersionRequest::decode(from)?;
                Self::Check { path, version }
            }
            other => return Err(unknown(other.code())),
        })
    }

    /// Reads an operation of a multi. Its kind follows the flags: a create with the container flag is a
    /// createContainer, a createTTL without TTL flags is a plain create; a TTL flag anywhere else cannot
    /// be read.
    pub(super) fn decode_in_multi(kind: i32, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let op = OpCode::from_code(kind).ok_or_else(|| unknown(kind))?;
        match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => {
                let mut create = Create::decode(op, from)?;
                if Mode::from_flags(create.flags).is_some_and(|mode| mode.ttl) {
                    return Err(unknown(create.flags));
                }
                if create.flags == FLAGS_CONTAINER {
                    create.op = OpCode::CreateContainer;
                }
                Ok(Self::Create(create))
            }
            OpCode::CreateTtl => {
                let mut create = Create::decode_ttl(from)?;
                if !Mode::from_flags(create.flags).is_some_and(|mode| mode.ttl) {
                    create.ttl = None;
                    create.op = if create.flags == FLAGS_CONTAINER {
                        OpCode::CreateContainer
                    } else {
                        OpCode::Create
                    };
                }
                Ok(Self::Create(create))
            }
            OpCode::Delete | OpCode::SetData | OpCode::Check => Self::decode(op, from),
            _ => Err(unknown(kind)),
        }
    }
}

impl Create {
    fn decode(op: OpCode, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let CreateRequest {
            path,
            data,
            acl,
            flags,
        } = CreateRequest::decode(from)?;
        Ok(Self {
            op,
            path,
            data,
            acl,
            flags,
            ttl: None,
        })
    }

    fn decode_ttl(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let CreateTtlRequest {
            path,
            data,
            acl,
            flags,
            ttl,
        } = CreateTtlRequest::decode(from)?;
        Ok(Self {
            op: OpCode::CreateTtl,
            path,
            data,
            acl,
            flags,
            ttl: Some(ttl),
        })
    }
}

fn unknown(kind: i32) -> DecodeError {
    DecodeError::Value {
        what: "operation",
        value: i64::from(kind),
    }
}
