//! The data tree: znodes, their Stats and ACLs, sessions, quotas, digest.
//!
//! Law kept here: [`DataTree::apply`] is the only way in for txns, it is total and deterministic, and
//! the digest is always the sum over the znodes as they are. Deliberately left to others: permission
//! and version checks (the pipeline decides before there is a txn), watches, the clock.
//! Counterpart: `DataTree`, `DataNode`, and the sessions of `ZKDatabase`.

mod acl;
mod apply;
mod arena;
mod bulk;
pub mod digest;
mod ephemeral;
mod loader;
mod payload;
mod quota;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

pub use acl::AclId;
pub use apply::{Applied, AppliedBody, TriggerSink};
pub use bulk::{Unpacked, Unpacker};
pub use ephemeral::{CONTAINER_OWNER, EphemeralKind, TTL_MS_MAX};
pub use loader::{Progress, SnapshotLoader};
pub use quota::{LIMITS, Quota, QuotaFigures, STATS};
pub use snapshot::SnapshotCursor;

pub use crate::watch::EventKind;

use self::acl::AclTable;
use self::arena::{Arena, NONE, NodeId, ROOT};
use crate::ids::{SessionId, Zxid};
use crate::path;
use crate::record::data::{Acl, Stat, StatPersisted, perms};

/// The whole state of a ZooKeeper database at some zxid.
#[derive(Debug)]
pub struct DataTree {
    arena: Arena,
    acls: AclTable,
    /// Timeouts in ms of all global sessions.
    sessions: BTreeMap<SessionId, i32>,
    /// Never holds an empty set.
    ephemerals: BTreeMap<SessionId, BTreeSet<NodeId>>,
    ephemerals_count: usize,
    containers: BTreeSet<NodeId>,
    ttls: BTreeSet<NodeId>,
    quotas: quota::QuotaPaths,
    digest: i64,
    /// Bytes of all paths and data.
    data_size: i64,
    last_processed_zxid: Zxid,
}

impl Default for DataTree {
    fn default() -> Self {
        Self::new()
    }
}

impl DataTree {
    /// An empty database: `/`, `/zookeeper`, `/zookeeper/quota`, and `/zookeeper/config`, which
    /// everybody may read and nobody write.
    #[must_use]
    pub fn new() -> Self {
        let mut tree = Self::with_root(StatPersisted::default(), Some(b""), acl::OPEN);
        for path in [path::ZOOKEEPER, path::QUOTA] {
            let open = acl::OPEN;
            tree.put_node(path, Some(b""), StatPersisted::default(), open)
                .expect("its parent is there");
        }
        tree.add_config_node();
        tree
    }

    fn with_root(stat: StatPersisted, data: Option<&[u8]>, acl: AclId) -> Self {
        let mut tree = Self {
            arena: Arena::new(&stat, data, acl),
            acls: AclTable::new(),
            sessions: BTreeMap::new(),
            ephemerals: BTreeMap::new(),
            ephemerals_count: 0,
            containers: BTreeSet::new(),
            ttls: BTreeSet::new(),
            quotas: quota::QuotaPaths::new(),
            digest: 0,
            data_size: 1 + byte_count(data),
            last_processed_zxid: Zxid::ZERO,
        };
        tree.digest = tree.arena.get(ROOT).digest();
        tree
    }

    /// Adds a znode whose parent is there and which is not; says its slot, or nothing if so.
    fn put_node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        stat: StatPersisted,
        acl: AclId,
    ) -> Option<NodeId> {
        let (_, parent, name) = self.split(path)?;
        Some(self.attach(parent, name, path, data, stat, acl))
    }

    /// The parent of a path, with its slot, and the name. As a parent the root is the empty path
    /// only, or else `//a` would be another name of `/a`.
    fn split<'a>(&self, path: &'a str) -> Option<(&'a str, NodeId, &'a str)> {
        let (parent, name) = path.rsplit_once('/')?;
        let id = self.arena.lookup(parent).filter(|_| parent != "/")?;
        Some((parent, id, name))
    }

    /// Adds a child that `parent` does not have yet, and everything that is kept about it.
    fn attach(
        &mut self,
        parent: NodeId,
        name: &str,
        path: &str,
        data: Option<&[u8]>,
        stat: StatPersisted,
        acl: AclId,
    ) -> NodeId {
        let id = self.arena.insert(parent, name, data, &stat, acl);
        if digest::is_counted(path) {
            let node = self.arena.get_mut(id);
            node.crc = digest::path_data_crc(path, data);
            self.digest = self.digest.wrapping_add(node.digest());
        }
        self.data_size += path.len() as i64 + byte_count(data);
        self.list_owned(id, stat.ephemeral_owner);
        id
    }

    /// Takes a leaf out, and everything that is kept about it. The ACL stays acquired.
    fn detach(&mut self, id: NodeId, path: &str) {
        let node = self.arena.get(id);
        if digest::is_counted(path) {
            self.digest = self.digest.wrapping_sub(node.digest());
        }
        let owner = node.ephemeral_owner();
        self.data_size -= path.len() as i64 + byte_count(self.arena.data(id));
        self.unlist_owned(id, owner);
        self.arena.remove(id);
    }

    /// Lists a znode with its session, the containers or the TTL nodes.
    fn list_owned(&mut self, id: NodeId, owner: i64) {
        match EphemeralKind::of(owner) {
            EphemeralKind::Persistent => {}
            EphemeralKind::Ephemeral(session) => {
                self.ephemerals.entry(session).or_default().insert(id);
                self.ephemerals_count += 1;
            }
            EphemeralKind::Container => {
                self.containers.insert(id);
            }
            EphemeralKind::Ttl(_) => {
                self.ttls.insert(id);
            }
        }
    }

    fn unlist_owned(&mut self, id: NodeId, owner: i64) {
        match EphemeralKind::of(owner) {
            EphemeralKind::Persistent => {}
            EphemeralKind::Ephemeral(session) => {
                if let Some(own) = self.ephemerals.get_mut(&session) {
                    self.ephemerals_count -= usize::from(own.remove(&id));
                    if own.is_empty() {
                        self.ephemerals.remove(&session);
                    }
                }
            }
            EphemeralKind::Container => {
                self.containers.remove(&id);
            }
            EphemeralKind::Ttl(_) => {
                self.ttls.remove(&id);
            }
        }
    }

    /// Changes the Stat of the znode at `path` and the digest with it.
    fn change_stat(&mut self, id: NodeId, path: &str, change: impl FnOnce(&mut StatPersisted)) {
        let node = self.arena.get_mut(id);
        let counted = digest::is_counted(path);
        let mut stat = node.stat();
        if counted {
            let before = digest::stat_digest(node.crc, &stat);
            self.digest = self.digest.wrapping_sub(before);
        }
        change(&mut stat);
        if counted {
            let after = digest::stat_digest(node.crc, &stat);
            self.digest = self.digest.wrapping_add(after);
        }
        node.set_stat(&stat);
    }

    fn add_config_node(&mut self) -> Option<NodeId> {
        let acl = self.acls.acquire(Some(&[Acl::world(perms::READ)]));
        let stat = StatPersisted {
            aversion: -1,
            ..StatPersisted::default()
        };
        self.put_node(path::CONFIG, Some(b""), stat, acl)
    }

    /// Puts the configuration of an ensemble into `/zookeeper/config`: at load, after a SNAP, and
    /// when a reconfiguration takes effect without a txn. `version` is the configuration's, which
    /// becomes the znode's mzxid; `wall_ms` its mtime. These numbers differ between servers and are
    /// outside the digest (quorum facts, trap 22).
    pub fn set_config_node(&mut self, text: &[u8], version: i64, wall_ms: i64) {
        let found = self.arena.lookup(path::CONFIG);
        let Some(id) = found.or_else(|| self.add_config_node()) else {
            return; // a database without even /zookeeper: nothing to show it under
        };
        let before = byte_count(self.arena.data(id));
        self.arena.set_data(id, Some(text));
        self.data_size += byte_count(Some(text)) - before;
        self.change_stat(id, path::CONFIG, |stat| {
            stat.version = -1;
            stat.mzxid = Zxid(version);
            stat.mtime = wall_ms;
        });
    }

    /// Sets the zxid the tree stands at, where a sync or a loaded snapshot says it.
    pub fn set_last_processed_zxid(&mut self, zxid: Zxid) {
        self.last_processed_zxid = zxid;
    }

    /// The last txn applied.
    #[must_use]
    pub fn last_processed_zxid(&self) -> Zxid {
        self.last_processed_zxid
    }

    /// The digest of the tree, formula [`digest::VERSION`].
    #[must_use]
    pub fn digest(&self) -> i64 {
        self.digest
    }

    /// Number of znodes as `srvr` and `mntr` show it: Apache counts the root twice.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.arena.len() + 1
    }

    /// Bytes of all paths and data, as `mntr` shows it.
    #[must_use]
    pub fn approximate_data_size(&self) -> i64 {
        self.data_size
    }

    /// Number of ephemerals of all sessions.
    #[must_use]
    pub fn ephemerals_count(&self) -> usize {
        self.ephemerals_count
    }

    /// Global sessions and their timeouts in ms.
    #[must_use]
    pub fn sessions(&self) -> &BTreeMap<SessionId, i32> {
        &self.sessions
    }

    /// Paths of the ephemerals of a session, in an order that depends on history only.
    pub fn ephemerals(&self, session: SessionId) -> impl Iterator<Item = String> {
        self.ephemerals
            .get(&session)
            .into_iter()
            .flatten()
            .map(|&id| self.path_of(id))
    }

    /// Sessions that own ephemerals.
    pub fn ephemeral_owners(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }

    /// The znode at `path`. The empty path is the root; a path that is not valid is nobody's.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<NodeRef<'_>> {
        let id = self.arena.lookup(path)?;
        Some(NodeRef { tree: self, id })
    }

    /// Number of all znodes below `path`.
    #[must_use]
    pub fn descendant_count(&self, path: &str) -> Option<i32> {
        let top = self.arena.lookup(path)?;
        let mut count = self.arena.len();
        if top != ROOT {
            count = 0;
            self.arena.for_each_in(top, |_, _| count += 1);
        }
        Some(i32::try_from(count - 1).unwrap_or(i32::MAX))
    }

    /// What the reaper should try to delete at `wall_ms`, at most `max` paths: empty containers that
    /// had a child once, empty containers unused for more than `never_used_ms` (0: never those), and
    /// TTL nodes without children whose time is over.
    #[must_use]
    pub fn reap_candidates(&self, wall_ms: i64, never_used_ms: i64, max: usize) -> Vec<String> {
        let due = |id: &NodeId| {
            let node = self.arena.get(*id);
            let stat = node.stat();
            let idle = wall_ms.saturating_sub(stat.mtime);
            let due = match EphemeralKind::of(stat.ephemeral_owner) {
                EphemeralKind::Container if stat.cversion > 0 => true,
                EphemeralKind::Container => never_used_ms != 0 && idle > never_used_ms,
                EphemeralKind::Ttl(ttl_ms) => ttl_ms != 0 && idle > ttl_ms,
                EphemeralKind::Persistent | EphemeralKind::Ephemeral(_) => false,
            };
            due && node.first_child == NONE
        };
        let all = self.containers.iter().chain(&self.ttls).copied();
        all.filter(due)
            .take(max)
            .map(|id| self.path_of(id))
            .collect()
    }

    fn path_of(&self, id: NodeId) -> String {
        let mut path = String::new();
        self.arena.push_path(id, &mut path);
        path
    }
}

fn byte_count(data: Option<&[u8]>) -> i64 {
    data.map_or(0, |data| data.len() as i64)
}

/// A znode of a tree.
#[derive(Clone, Copy, Debug)]
pub struct NodeRef<'a> {
    tree: &'a DataTree,
    id: NodeId,
}

impl<'a> NodeRef<'a> {
    /// The data; null is not empty.
    #[must_use]
    pub fn data(self) -> Option<&'a [u8]> {
        self.tree.arena.data(self.id)
    }

    /// What a client sees.
    #[must_use]
    pub fn stat(self) -> Stat {
        self.tree.stat_of(self.id)
    }

    /// What a snapshot stores.
    #[must_use]
    pub fn stat_persisted(self) -> StatPersisted {
        self.tree.arena.get(self.id).stat()
    }

    /// The ACL; empty (nobody) where a fuzzy snapshot did not tell it.
    #[must_use]
    pub fn acl(self) -> &'a [Acl] {
        self.tree.acls.get(self.acl_id())
    }

    /// A number for the ACL: within one tree equal numbers mean equal ACLs, 0 the open one.
    #[must_use]
    pub fn acl_id(self) -> AclId {
        self.tree.arena.get(self.id).acl
    }

    /// Number of children.
    #[must_use]
    pub fn child_count(self) -> usize {
        self.tree.arena.get(self.id).child_count() as usize
    }

    /// Names of the children, in the order they were created or loaded.
    pub fn children(self) -> impl Iterator<Item = &'a str> {
        let arena = &self.tree.arena;
        let known = |id| (id != NONE).then_some(id);
        std::iter::successors(known(arena.get(self.id).first_child), move |&id| {
            known(arena.get(id).next)
        })
        .map(|id| arena.name(id))
    }

    /// The stored owner, see [`EphemeralKind::of`].
    #[must_use]
    pub fn ephemeral_owner(self) -> i64 {
        self.tree.arena.get(self.id).ephemeral_owner()
    }

    /// How long it lives.
    #[must_use]
    pub fn ephemeral_kind(self) -> EphemeralKind {
        EphemeralKind::of(self.ephemeral_owner())
    }

    /// The cached CRC of path and data, for [`digest::stat_digest`]. Only znodes that count in the
    /// digest keep one.
    #[must_use]
    pub fn path_data_crc(self) -> u32 {
        self.tree.arena.get(self.id).crc
    }
}

impl DataTree {
    fn stat_of(&self, id: NodeId) -> Stat {
        let node = self.arena.get(id);
        let (stat, children) = (node.stat(), node.child_count().cast_signed());
        Stat {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            version: stat.version,
            // Stored are the creates; deletes are the creates whose child is not there any more.
            cversion: stat.cversion.wrapping_mul(2).wrapping_sub(children),
            aversion: stat.aversion,
            ephemeral_owner: EphemeralKind::of(stat.ephemeral_owner).visible_owner(),
            data_length: self
                .arena
                .data(id)
                .map_or(0, |data| i32::try_from(data.len()).unwrap_or(i32::MAX)),
            num_children: children,
            pzxid: stat.pzxid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::ids::Xid;
    use crate::record::opcode::OpCode;
    use crate::record::txn::{
        CloseSessionTxn, CreateContainerTxn, CreateTtlTxn, CreateTxn, DeleteTxn, MultiOp, MultiTxn,
        SetAclTxn, SetDataTxn, Txn, TxnHeader, TxnRecord,
    };

    pub(super) fn apply(tree: &mut DataTree, kind: OpCode, txn: Txn) -> Applied {
        let zxid = Zxid(tree.last_processed_zxid().0 + 1);
        let header = TxnHeader {
            client_id: SessionId(0x1_0000),
            cxid: Xid(1),
            zxid,
            time: 1000,
            kind: kind.code(),
        };
        let record = TxnRecord {
            header,
            txn,
            digest: None,
        };
        tree.apply(&record, &mut ())
    }

    fn create_txn(path: &str, data: &[u8], ephemeral: bool) -> Txn {
        Txn::Create(CreateTxn {
            path: path.to_owned(),
            data: Some(data.to_vec().into()),
            acl: Some(Acl::open()),
            ephemeral,
            parent_cversion: -1,
        })
    }

    pub(super) fn create(tree: &mut DataTree, path: &str, data: &[u8]) {
        let applied = apply(tree, OpCode::Create, create_txn(path, data, false));
        assert_eq!(applied.err, ErrorCode::Ok, "create {path}");
    }

    pub(super) fn delete(tree: &mut DataTree, path: &str) {
        let path = path.to_owned();
        let applied = apply(tree, OpCode::Delete, Txn::Delete(DeleteTxn { path }));
        assert_eq!(applied.err, ErrorCode::Ok);
    }

    pub(super) fn set_data(tree: &mut DataTree, path: &str, data: &[u8]) {
        let before = tree.node(path).unwrap().stat().version;
        let txn = SetDataTxn {
            path: path.to_owned(),
            data: Some(data.to_vec().into()),
            version: before,
        };
        let applied = apply(tree, OpCode::SetData, Txn::SetData(txn));
        assert_eq!(applied.err, ErrorCode::Ok);
    }

    #[test]
    fn an_empty_database_is_apaches() {
        let tree = DataTree::new();
        assert_eq!(tree.digest(), 0x51c6_d660);
        assert_eq!((tree.node_count(), tree.approximate_data_size()), (5, 44));
        assert_eq!(tree.descendant_count("/"), Some(3));
        let root = tree.node("").unwrap();
        assert_eq!((root.stat().cversion, root.stat().num_children), (-1, 1));
        let config = tree.node("/zookeeper/config").unwrap();
        assert_eq!(config.acl(), [Acl::world(perms::READ)]);
        assert_eq!(config.stat().aversion, -1);
        assert_eq!(config.data(), Some(&b""[..]));
    }

    #[test]
    fn the_configuration_changes_no_digest() {
        let mut tree = DataTree::new();
        tree.set_config_node(b"server.1=a:1:2\nversion=100000005", 0x1_0000_0005, 77);
        let config = tree.node("/zookeeper/config").unwrap();
        let stat = config.stat();
        assert_eq!(
            (stat.version, stat.mzxid.0, stat.mtime),
            (-1, 0x1_0000_0005, 77)
        );
        assert_eq!((stat.aversion, stat.ctime, stat.data_length), (-1, 0, 32));
        assert_eq!(tree.digest(), 0x51c6_d660);
        delete(&mut tree, "/zookeeper/config");
        tree.set_config_node(b"again", 9, 78);
        let config = tree.node("/zookeeper/config").unwrap();
        assert_eq!(config.acl(), [Acl::world(perms::READ)]);
        delete(&mut tree, "/zookeeper");
        tree.set_config_node(b"nowhere", 9, 78);
        assert!(tree.node("/zookeeper/config").is_none());
    }

    /// Lookups of text that is no path, and txns that no leader lets through.
    #[test]
    fn paths_that_are_none() {
        let mut tree = DataTree::new();
        create(&mut tree, "/a", b"");
        for path in [
            "a", "/a/", "//", "//a", "/a//", "a/", " ", "/a/../a", "\u{0}",
        ] {
            assert!(tree.node(path).is_none(), "{path:?}");
            let path = path.to_owned();
            let delete = Txn::Delete(DeleteTxn { path: path.clone() });
            assert_ne!(
                apply(&mut tree, OpCode::Delete, delete).err,
                ErrorCode::Ok,
                "{path:?}"
            );
        }
        for path in ["", "a", "/", "/a/", "//", "b/c"] {
            let applied = apply(&mut tree, OpCode::Create, create_txn(path, b"", false));
            assert_ne!(applied.err, ErrorCode::Ok, "{path:?}");
            let path = path.to_owned();
            let applied = apply(&mut tree, OpCode::Delete, Txn::Delete(DeleteTxn { path }));
            assert_ne!(applied.err, ErrorCode::Ok);
        }
        assert_eq!(tree.node_count(), 6);
        assert_eq!(
            tree.node("").unwrap().stat(),
            tree.node("/").unwrap().stat()
        );
    }

    #[test]
    fn replies_hold_what_the_operation_answers() {
        let mut tree = DataTree::new();
        let applied = apply(&mut tree, OpCode::Create, create_txn("/a", b"xy", false));
        assert_eq!(applied.body, AppliedBody::Path("/a".into()));
        let applied = apply(&mut tree, OpCode::Create2, create_txn("/a/e", b"xy", true));
        let stat = tree.node("/a/e").unwrap().stat();
        assert_eq!((stat.data_length, stat.ephemeral_owner.0), (2, 0x1_0000));
        assert_eq!(applied.body, AppliedBody::PathStat("/a/e".into(), stat));
        let txn = SetAclTxn {
            path: "/a".into(),
            acl: None,
            version: 1,
        };
        let applied = apply(&mut tree, OpCode::SetAcl, Txn::SetAcl(txn));
        let stat = tree.node("/a").unwrap().stat();
        assert_eq!((stat.aversion, stat.cversion, stat.num_children), (1, 1, 1));
        assert_eq!(applied.body, AppliedBody::Stat(stat));
        let paths = None;
        let txn = Txn::CloseSession(CloseSessionTxn { paths });
        assert_eq!(
            apply(&mut tree, OpCode::CloseSession, txn).body,
            AppliedBody::None
        );
        let stat = tree.node("/a").unwrap().stat();
        assert_eq!((stat.cversion, stat.num_children, stat.pzxid.0), (2, 0, 4));
        assert_eq!(tree.ephemerals_count(), 0);
    }

    /// A failed multi as a server sends it again: type -1, and the bytes of the first operations are
    /// what they were before it failed (trap 1).
    #[test]
    fn failed_and_broken_multis_change_nothing() {
        let mut tree = DataTree::new();
        let op = |kind, data: &[u8]| MultiOp {
            kind,
            data: Some(data.to_vec().into()),
        };
        let null = MultiOp {
            kind: -1,
            data: None,
        };
        let ops = vec![
            op(-1, &[0, 0, 0, 0]),
            op(-1, &[0xff, 0xff, 0xff, 0x99, 1, 2, 3]),
            op(1, &[0, 0, 0, 2, b'/', b'a']),
            op(-1, &[0, 0]),
            null,
        ];
        let applied = apply(&mut tree, OpCode::Multi, Txn::Multi(MultiTxn { ops }));
        assert_eq!(applied.err, ErrorCode::BadVersion);
        let AppliedBody::Multi(results) = applied.body else {
            panic!("a multi has results");
        };
        let errors: Vec<i32> = results.iter().map(|result| result.1.code()).collect();
        assert_eq!(errors, [0, -103, -2, -2, -2]);
        for broken in [op(1, &[0, 0]), op(99, &[]), op(14, &[0, 0, 0])] {
            let ops = vec![broken];
            let applied = apply(&mut tree, OpCode::Multi, Txn::Multi(MultiTxn { ops }));
            assert_eq!(applied.err, ErrorCode::MarshallingError);
        }
        assert_eq!((tree.node_count(), tree.last_processed_zxid().0), (5, 4));
    }

    #[test]
    fn what_the_reaper_may_take() {
        let mut tree = DataTree::new();
        for path in ["/used", "/fresh", "/full"] {
            let txn = CreateContainerTxn {
                path: path.to_owned(),
                data: None,
                acl: None,
                parent_cversion: -1,
            };
            let applied = apply(
                &mut tree,
                OpCode::CreateContainer,
                Txn::CreateContainer(txn),
            );
            assert_eq!(applied.err, ErrorCode::Ok);
        }
        for (path, ttl) in [("/ttl", 50), ("/ttl-full", 50), ("/ttl-long", 5000)] {
            let txn = CreateTtlTxn {
                path: path.to_owned(),
                data: None,
                acl: None,
                parent_cversion: -1,
                ttl,
            };
            apply(&mut tree, OpCode::CreateTtl, Txn::CreateTtl(txn));
            assert_eq!(
                tree.node(path).unwrap().ephemeral_kind(),
                EphemeralKind::Ttl(ttl)
            );
            assert_eq!(tree.node(path).unwrap().stat().ephemeral_owner.0, 0);
        }
        for path in ["/used/x", "/full/x", "/ttl-full/x"] {
            create(&mut tree, path, b"");
        }
        delete(&mut tree, "/used/x");
        assert_eq!(tree.reap_candidates(1050, 0, 10), ["/used"]);
        assert_eq!(tree.reap_candidates(1051, 0, 10), ["/used", "/ttl"]);
        assert_eq!(
            tree.reap_candidates(1051, 50, 10),
            ["/used", "/fresh", "/ttl"]
        );
        assert_eq!(tree.reap_candidates(1051, 50, 2), ["/used", "/fresh"]);
        assert!(
            tree.reap_candidates(i64::MIN, 1, 9)
                .contains(&"/used".to_owned())
        );
    }

    #[test]
    fn acls_are_shared_and_forgotten() {
        let mut tree = DataTree::new();
        let read = vec![Acl::world(perms::READ)];
        let set = |acl: &[Acl]| {
            Txn::SetAcl(SetAclTxn {
                path: "/a".into(),
                acl: Some(acl.to_vec()),
                version: 1,
            })
        };
        create(&mut tree, "/a", b"");
        assert_eq!(tree.node("/a").unwrap().acl_id(), 0);
        apply(&mut tree, OpCode::SetAcl, set(&read));
        let config = tree.node("/zookeeper/config").unwrap().acl_id();
        assert_eq!(tree.node("/a").unwrap().acl_id(), config);
        for perms in 0..31 {
            apply(&mut tree, OpCode::SetAcl, set(&[Acl::world(perms)]));
        }
        let listed = |tree: &DataTree| tree.acls.listed().count();
        assert_eq!(listed(&tree), 2, "that of /a and that of the configuration");
        delete(&mut tree, "/a");
        assert_eq!(listed(&tree), 1);
    }
}
