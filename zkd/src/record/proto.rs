//! Module `proto` of `zookeeper.jute`: requests and answers of the client port.

use bytes::Bytes;

use super::data::{Acl, Stat};
use super::record;
use crate::ids::{SessionId, Xid, Zxid};
use crate::jute::{DecodeError, Reader, Record, Writer};

/// Xids with a meaning of their own.
pub mod xid {
    use crate::ids::Xid;

    /// A watch event.
    pub const NOTIFICATION: Xid = Xid(-1);
    /// A ping and its answer.
    pub const PING: Xid = Xid(-2);
    /// An auth packet (answered with whatever xid it had).
    pub const AUTH: Xid = Xid(-4);
    /// setWatches (answered with whatever xid it had).
    pub const SET_WATCHES: Xid = Xid(-8);
}

/// First frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// 0; nobody looks at it.
    pub protocol_version: i32,
    /// The newest state the client has seen.
    pub last_zxid_seen: Zxid,
    /// The timeout it would like.
    pub timeout_ms: i32,
    /// 0, or the session to re-attach.
    pub session_id: SessionId,
    /// The session's password.
    pub passwd: Option<Bytes>,
    /// Content with a read-only server? `None` from clients that do not send the byte; they do not
    /// expect it in the answer either.
    pub read_only: Option<bool>,
}

impl Record for ConnectRequest {
    fn encode(&self, out: &mut Writer<'_>) {
        out.int(self.protocol_version);
        out.long(self.last_zxid_seen.0);
        out.int(self.timeout_ms);
        out.long(self.session_id.0);
        out.buffer(self.passwd.as_deref());
        if let Some(read_only) = self.read_only {
            out.bool(read_only);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol_version: from.int("protocolVersion")?,
            last_zxid_seen: Zxid(from.long("lastZxidSeen")?),
            timeout_ms: from.int("timeOut")?,
            session_id: SessionId(from.long("sessionId")?),
            passwd: from.buffer("passwd")?,
            read_only: if from.is_empty() {
                None
            } else {
                Some(from.bool("readOnly")?)
            },
        })
    }
}

/// Answer to the first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// 0.
    pub protocol_version: i32,
    /// The negotiated timeout; 0 says the session is gone.
    pub timeout_ms: i32,
    /// The session; 0 says it is gone.
    pub session_id: SessionId,
    /// 16 bytes, always.
    pub passwd: Option<Bytes>,
    /// Is the server in read-only mode? Absent for clients that did not send theirs.
    pub read_only: Option<bool>,
}

impl Record for ConnectResponse {
    fn encode(&self, out: &mut Writer<'_>) {
        out.int(self.protocol_version);
        out.int(self.timeout_ms);
        out.long(self.session_id.0);
        out.buffer(self.passwd.as_deref());
        if let Some(read_only) = self.read_only {
            out.bool(read_only);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol_version: from.int("protocolVersion")?,
            timeout_ms: from.int("timeOut")?,
            session_id: SessionId(from.long("sessionId")?),
            passwd: from.buffer("passwd")?,
            read_only: if from.is_empty() {
                None
            } else {
                Some(from.bool("readOnly")?)
            },
        })
    }
}

record! {
    /// In front of every request after the first.
    #[derive(Copy)]
    pub struct RequestHeader {
        /// The client's number.
        pub xid: Xid,
        /// An [`super::opcode::OpCode`] number.
        pub kind: i32,
    }

    /// In front of every answer after the first, and of watch events.
    #[derive(Copy)]
    pub struct ReplyHeader {
        /// The request's xid, or one of [`xid`].
        pub xid: Xid,
        /// See section 11 of the client-protocol facts.
        pub zxid: Zxid,
        /// An [`crate::error::ErrorCode`] number.
        pub err: i32,
    }

    /// In front of every operation and result of a multi; `{-1, true, -1}` ends it.
    #[derive(Copy)]
    pub struct MultiHeader {
        /// Opcode, or -1 for an error.
        pub kind: i32,
        /// True only on the terminator.
        pub done: bool,
        /// Error number, -1 in requests.
        pub err: i32,
    }

    /// create, create2, createContainer.
    pub struct CreateRequest {
        /// Path; with a sequential mode the suffix is appended.
        pub path: String,
        /// Data.
        pub data: Option<Bytes>,
        /// ACL.
        pub acl: Option<Vec<Acl>>,
        /// Create mode.
        pub flags: i32,
    }

    /// createTTL.
    pub struct CreateTtlRequest {
        /// Path; with a sequential mode the suffix is appended.
        pub path: String,
        /// Data.
        pub data: Option<Bytes>,
        /// ACL.
        pub acl: Option<Vec<Acl>>,
        /// Create mode, 5 or 6.
        pub flags: i32,
        /// Time to live in ms.
        pub ttl: i64,
    }

    /// delete, and check inside a multi.
    pub struct PathVersionRequest {
        /// Path.
        pub path: String,
        /// Expected version, -1 for any.
        pub version: i32,
    }

    /// exists, getData, getChildren, getChildren2.
    pub struct PathWatchRequest {
        /// Path.
        pub path: String,
        /// Leave a watch?
        pub watch: bool,
    }

    /// getACL, getAllChildrenNumber.
    pub struct PathRequest {
        /// Path.
        pub path: String,
    }

    /// sync, getEphemerals: a path that may be null.
    pub struct OptPathRequest {
        /// Path or prefix.
        pub path: Option<String>,
    }

    /// setData.
    pub struct SetDataRequest {
        /// Path.
        pub path: String,
        /// Data.
        pub data: Option<Bytes>,
        /// Expected version, -1 for any.
        pub version: i32,
    }

    /// setACL.
    pub struct SetAclRequest {
        /// Path.
        pub path: String,
        /// ACL.
        pub acl: Option<Vec<Acl>>,
        /// Expected aversion, -1 for any.
        pub version: i32,
    }

    /// reconfig.
    pub struct ReconfigRequest {
        /// Servers to add or change.
        pub joining: Option<String>,
        /// Ids to remove.
        pub leaving: Option<String>,
        /// The whole new membership, instead of the two above.
        pub new_members: Option<String>,
        /// Expected version of the configuration, -1 for any.
        pub config_id: i64,
    }

    /// checkWatches, removeWatches.
    pub struct WatchesRequest {
        /// Path.
        pub path: String,
        /// Watcher type.
        pub kind: i32,
    }

    /// addWatch.
    pub struct AddWatchRequest {
        /// Path.
        pub path: String,
        /// 0 persistent, 1 persistent recursive.
        pub mode: i32,
    }

    /// setWatches.
    pub struct SetWatches {
        /// Newest state the client has seen.
        pub relative_zxid: Zxid,
        /// Data watches.
        pub data: Vec<String>,
        /// Watches on missing nodes.
        pub exist: Vec<String>,
        /// Child watches.
        pub child: Vec<String>,
    }

    /// setWatches2.
    pub struct SetWatches2 {
        /// Newest state the client has seen.
        pub relative_zxid: Zxid,
        /// Data watches.
        pub data: Vec<String>,
        /// Watches on missing nodes.
        pub exist: Vec<String>,
        /// Child watches.
        pub child: Vec<String>,
        /// Persistent watches.
        pub persistent: Vec<String>,
        /// Persistent recursive watches.
        pub recursive: Vec<String>,
    }

    /// auth.
    pub struct AuthPacket {
        /// 0.
        pub kind: i32,
        /// Scheme.
        pub scheme: Option<String>,
        /// Credentials.
        pub auth: Option<Bytes>,
    }

    /// A SASL token, request and answer.
    pub struct SaslToken {
        /// The token.
        pub token: Option<Bytes>,
    }

    /// Answer of create; sync's too.
    pub struct PathResponse {
        /// Path as created.
        pub path: Option<String>,
    }

    /// Answer of create2 and its kin.
    pub struct PathStatResponse {
        /// Path as created.
        pub path: String,
        /// Stat.
        pub stat: Stat,
    }

    /// Answer of getData.
    pub struct DataResponse {
        /// Data.
        pub data: Option<Bytes>,
        /// Stat.
        pub stat: Stat,
    }

    /// Answer of getACL.
    pub struct AclResponse {
        /// ACL.
        pub acl: Vec<Acl>,
        /// Stat.
        pub stat: Stat,
    }

    /// Answer of getChildren2.
    pub struct ChildrenStatResponse {
        /// Names.
        pub children: Vec<String>,
        /// Stat.
        pub stat: Stat,
    }

    /// One identity in the answer of whoAmI.
    pub struct ClientInfo {
        /// Scheme.
        pub scheme: String,
        /// Name.
        pub user: String,
    }

    /// A watch event.
    pub struct WatcherEvent {
        /// 1 created, 2 deleted, 3 data changed, 4 children changed.
        pub kind: i32,
        /// 3, connected.
        pub state: i32,
        /// Path.
        pub path: String,
    }
}

impl crate::jute::Field for Stat {
    fn put(&self, out: &mut Writer<'_>) {
        self.encode(out);
    }

    fn get(from: &mut Reader<'_>, _what: &'static str) -> Result<Self, DecodeError> {
        Self::decode(from)
    }
}

impl MultiHeader {
    /// Ends a multi.
    pub const END: Self = Self {
        kind: -1,
        done: true,
        err: -1,
    };
}
