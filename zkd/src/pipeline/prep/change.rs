//! Outstanding changes: what the tree will be once every txn on its way has been applied.
//!
//! Law kept here: the state of a path is its newest outstanding change, or else what the tree has; a
//! change is forgotten exactly when its txn has been applied. A multi that fails puts back what it
//! replaced, also changes of earlier txns (ZOOKEEPER-1624). Counterpart: `ChangeRecord`,
//! `outstandingChanges`, `outstandingChangesForPath`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};

use hashbrown::HashMap;

use crate::ids::{SessionId, Zxid};
use crate::record::data::{Acl, StatPersisted};
use crate::tree::{DataTree, EphemeralKind, digest};

/// What will be of one znode.
#[derive(Clone, Debug)]
pub(super) struct NodeState {
    pub(super) stat: StatPersisted,
    pub(super) child_count: i32,
    /// Length of the data; 0 for null.
    pub(super) data_len: i64,
    /// CRC of path and data, the front of the digest.
    crc: u32,
    /// `None`: the ACL is the one in the tree.
    acl: Option<Arc<[Acl]>>,
}

impl NodeState {
    /// A znode about to be created.
    pub(super) fn new(path: &str, data: Option<&[u8]>, stat: StatPersisted, acl: &[Acl]) -> Self {
        Self {
            stat,
            child_count: 0,
            data_len: data_len(data),
            crc: digest::path_data_crc(path, data),
            acl: Some(shared(acl)),
        }
    }

    pub(super) fn set_data(&mut self, path: &str, data: Option<&[u8]>) {
        self.data_len = data_len(data);
        self.crc = digest::path_data_crc(path, data);
    }

    pub(super) fn set_acl(&mut self, acl: &[Acl]) {
        self.acl = Some(shared(acl));
    }

    /// Hands the ACL of the znode at `path` to `judge`.
    pub(super) fn with_acl<T>(
        &self,
        tree: &DataTree,
        path: &str,
        judge: impl FnOnce(&[Acl]) -> T,
    ) -> T {
        match &self.acl {
            Some(acl) => judge(acl),
            None => match tree.node(path) {
                Some(node) => judge(node.acl()),
                None => judge(&[]),
            },
        }
    }

    fn digest(&self, path: &str) -> i64 {
        if digest::is_counted(path) {
            digest::stat_digest(self.crc, &self.stat)
        } else {
            0
        }
    }
}

/// Nearly every znode has the open ACL: it is kept once.
fn shared(acl: &[Acl]) -> Arc<[Acl]> {
    static OPEN: LazyLock<Arc<[Acl]>> = LazyLock::new(|| Acl::open().into());
    if *acl == **OPEN {
        Arc::clone(&OPEN)
    } else {
        acl.into()
    }
}

fn data_len(data: Option<&[u8]>) -> i64 {
    data.map_or(0, |data| data.len().cast_signed() as i64)
}

#[derive(Clone, Debug)]
struct Change {
    zxid: Zxid,
    /// `None`: deleted.
    state: Option<NodeState>,
}

/// The changes of every txn that is prepared and not applied.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// The newest change of each path.
    by_path: HashMap<Arc<str>, Change>,
    /// Every change, oldest first.
    order: VecDeque<(Zxid, Arc<str>)>,
    /// The digest of the tree after all of them.
    digest: i64,
    /// While a multi is prepared.
    undo: Option<Undo>,
}

/// How to take back what a multi changed.
#[derive(Debug)]
struct Undo {
    /// What stood at each path before, oldest first.
    replaced: Vec<(Arc<str>, Option<Change>)>,
    digest: i64,
}

impl Outstanding {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn set_digest(&mut self, digest: i64) {
        self.digest = digest;
    }

    pub(super) fn digest(&self) -> i64 {
        self.digest
    }

    /// What will be at `path`.
    pub(super) fn state(&self, tree: &DataTree, path: &str) -> Option<NodeState> {
        if let Some(change) = self.by_path.get(path) {
            return change.state.clone();
        }
        // The tree knows the root by the empty path too; writes do not.
        let node = tree.node(path).filter(|_| !path.is_empty())?;
        let data = node.data();
        Some(NodeState {
            stat: node.stat_persisted(),
            child_count: i32::try_from(node.child_count()).unwrap_or(i32::MAX),
            data_len: data_len(data),
            crc: node.path_data_crc(),
            acl: None,
        })
    }

    /// Notes what the txn `zxid` makes of `path`.
    pub(super) fn set(
        &mut self,
        zxid: Zxid,
        tree: &DataTree,
        path: &str,
        state: Option<NodeState>,
    ) {
        let before = match self.by_path.get(path) {
            Some(change) => change.state.as_ref().map_or(0, |state| state.digest(path)),
            None => self.state(tree, path).map_or(0, |state| state.digest(path)),
        };
        let after = state.as_ref().map_or(0, |state| state.digest(path));
        self.digest = self.digest.wrapping_add(after.wrapping_sub(before));

        let key: Arc<str> = match self.by_path.get_key_value(path) {
            Some((key, _)) => Arc::clone(key),
            None => path.into(),
        };
        let replaced = self
            .by_path
            .insert(Arc::clone(&key), Change { zxid, state });
        if let Some(undo) = &mut self.undo {
            undo.replaced.push((Arc::clone(&key), replaced));
        }
        self.order.push_back((zxid, key));
    }

    /// The txns up to `zxid` have been applied.
    pub(super) fn forget(&mut self, zxid: Zxid) {
        while let Some((change_zxid, path)) = self.order.front() {
            if *change_zxid > zxid {
                break;
            }
            if self
                .by_path
                .get(path)
                .is_some_and(|change| change.zxid == *change_zxid)
            {
                self.by_path.remove(path);
            }
            self.order.pop_front();
        }
    }

    /// From here on changes can be taken back.
    pub(super) fn begin(&mut self) {
        self.undo = Some(Undo {
            replaced: Vec::new(),
            digest: self.digest,
        });
    }

    /// The changes since [`Self::begin`] stay.
    pub(super) fn keep(&mut self) {
        self.undo = None;
    }

    /// Takes back the changes since [`Self::begin`].
    pub(super) fn roll_back(&mut self) {
        let Some(undo) = self.undo.take() else {
            return;
        };
        self.digest = undo.digest;
        for (path, replaced) in undo.replaced.into_iter().rev() {
            self.order.pop_back();
            match replaced {
                Some(change) => self.by_path.insert(path, change),
                None => self.by_path.remove(&path),
            };
        }
    }

    /// Corrects the ephemerals a session has in the tree by what is on its way.
    pub(super) fn adjust_ephemerals(&self, session: SessionId, paths: &mut BTreeSet<String>) {
        for (zxid, path) in &self.order {
            let Some(change) = self.by_path.get(path).filter(|change| change.zxid == *zxid) else {
                continue;
            };
            let owned = change.state.as_ref().is_some_and(|state| {
                EphemeralKind::of(state.stat.ephemeral_owner) == EphemeralKind::Ephemeral(session)
            });
            if owned {
                paths.insert(path.to_string());
            } else {
                paths.remove(&**path);
            }
        }
    }
}
