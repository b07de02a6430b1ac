//! Operation codes (`ZooDefs.OpCode`): client requests and txn types share one number space.

macro_rules! opcodes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// What a request asks for, or what a txn does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum OpCode {
            $($(#[doc = $doc])+ $name = $code,)+
        }

        impl OpCode {
            /// The operation of a number, if there is one.
            #[must_use]
            pub fn from_code(code: i32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    /// Create a znode; answers its path.
    Create = 1,
    /// Delete a znode.
    Delete = 2,
    /// Stat of a znode, or a watch for its creation.
    Exists = 3,
    /// Data and Stat.
    GetData = 4,
    /// Replace the data.
    SetData = 5,
    /// ACL and Stat.
    GetAcl = 6,
    /// Replace the ACL.
    SetAcl = 7,
    /// Names of the children.
    GetChildren = 8,
    /// Wait until this server has caught up with the leader.
    Sync = 9,
    /// Heartbeat.
    Ping = 11,
    /// Names of the children and Stat.
    GetChildren2 = 12,
    /// Check a version; only inside a multi.
    Check = 13,
    /// Several writes, all or none.
    Multi = 14,
    /// Create a znode; answers path and Stat.
    Create2 = 15,
    /// Change the ensemble.
    Reconfig = 16,
    /// Whether a watch is set.
    CheckWatches = 17,
    /// Remove a watch.
    RemoveWatches = 18,
    /// Create a container.
    CreateContainer = 19,
    /// Delete an empty container or expired TTL node; the leader's reaper only.
    DeleteContainer = 20,
    /// Create a TTL node.
    CreateTtl = 21,
    /// Several reads.
    MultiRead = 22,
    /// Add an identity to the connection.
    Auth = 100,
    /// Re-register watches after a reconnect.
    SetWatches = 101,
    /// A SASL token.
    Sasl = 102,
    /// Ephemerals of the session.
    GetEphemerals = 103,
    /// Number of all descendants.
    GetAllChildrenNumber = 104,
    /// As `SetWatches`, with persistent watches.
    SetWatches2 = 105,
    /// Add a persistent watch.
    AddWatch = 106,
    /// The identities of the connection.
    WhoAmI = 107,
    /// Open a session (internal).
    CreateSession = -10,
    /// End the session.
    CloseSession = -11,
    /// A failed request, as a txn.
    Error = -1,
}

impl OpCode {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Whether the leader has to order it: everything that becomes a txn.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Create2
                | Self::CreateTtl
                | Self::CreateContainer
                | Self::Delete
                | Self::DeleteContainer
                | Self::SetData
                | Self::SetAcl
                | Self::Check
                | Self::Multi
                | Self::Reconfig
                | Self::CreateSession
                | Self::CloseSession
        )
    }
}
