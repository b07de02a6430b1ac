//! The error numbers a client sees.
//!
//! Counterpart: `KeeperException.Code`. Decode errors live with [`crate::jute`], storage errors with
//! storage: each boundary has its own enum, split by who can act on it.

use std::fmt;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// An error as a client sees it, with ZooKeeper's own number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $name = $code,)+
        }

        impl ErrorCode {
            /// The error of a number, if ZooKeeper has one of that number.
            #[must_use]
            pub fn from_code(code: i32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str(stringify!($name)),)+
                }
            }
        }
    };
}

error_codes! {
    /// No error.
    Ok = 0,
    /// Inside a failed multi: an operation after the failing one.
    RuntimeInconsistency = -2,
    /// The request could not be decoded.
    MarshallingError = -5,
    /// The operation is unknown or switched off.
    Unimplemented = -6,
    /// A path, flag or number is not acceptable.
    BadArguments = -8,
    /// The session is not known (internal; a client sees its connection closed).
    UnknownSession = -12,
    /// A quorum of the proposed configuration is not synced.
    NewConfigNoQuorum = -13,
    /// Another reconfiguration is under way.
    ReconfigInProgress = -14,
    /// The znode or its parent does not exist.
    NoNode = -101,
    /// The ACL does not permit it.
    NoAuth = -102,
    /// The given version is not the current one.
    BadVersion = -103,
    /// The parent is ephemeral.
    NoChildrenForEphemerals = -108,
    /// The znode exists already.
    NodeExists = -110,
    /// The znode has children.
    NotEmpty = -111,
    /// The session is over.
    SessionExpired = -112,
    /// The ACL is empty or has an entry that cannot be used.
    InvalidAcl = -114,
    /// The credentials were refused.
    AuthFailed = -115,
    /// The session lives on another server now (never sent: the connection is closed).
    SessionMoved = -118,
    /// The server serves reads only.
    NotReadOnly = -119,
    /// A local session cannot own an ephemeral.
    EphemeralOnLocalSession = -120,
    /// There is no such watch.
    NoWatcher = -121,
    /// Reconfiguration is switched off.
    ReconfigDisabled = -123,
    /// The connection has to authenticate first.
    SessionClosedRequireAuth = -124,
    /// A hard quota would be exceeded.
    QuotaExceeded = -125,
    /// The request waited too long and was not run.
    ThrottledOp = -127,
}

impl ErrorCode {
    /// ZooKeeper's number.
    #[must_use]
    pub fn code(self) -> i32 {
        self as i32
    }
}
