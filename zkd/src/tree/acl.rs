//! The ACLs of a tree, each kept once.
//!
//! Counterpart: `ReferenceCountedACLCache`. A znode names its ACL by slot; a snapshot names it by key.
//! Keys are never reused in the life of a database, slots are.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::record::data::{Acl, perms};

/// Where an ACL stands in the table of a tree. Equal ids of one tree mean equal ACLs; `0` is
/// the open ACL.
pub type AclId = u32;

/// The slot of the open ACL (`world:anyone`, everything).
pub(super) const OPEN: AclId = 0;
/// The key that stands for the open ACL in snapshots, which their map leaves out.
pub(super) const OPEN_KEY: i64 = -1;

#[derive(Clone, Debug)]
struct Entry {
    key: i64,
    acl: Arc<[Acl]>,
    /// How many znodes name it.
    uses: u32,
    /// False for a key that a fuzzy snapshot used without defining it. Such an ACL admits nobody,
    /// until the replayed txn points the znode to the right one.
    known: bool,
}

/// All ACLs in use.
#[derive(Clone, Debug)]
pub(super) struct AclTable {
    entries: Vec<Option<Entry>>,
    free: Vec<AclId>,
    by_key: BTreeMap<i64, AclId>,
    by_acl: HashMap<Arc<[Acl]>, AclId>,
    next_key: i64,
}

impl AclTable {
    pub(super) fn new() -> Self {
        Self {
            entries: vec![Some(Entry {
                key: OPEN_KEY,
                acl: Acl::open().into(),
                uses: 0,
                known: true,
            })],
            free: Vec::new(),
            by_key: BTreeMap::new(),
            by_acl: HashMap::new(),
            next_key: 1,
        }
    }

    /// The slot of `acl` for one more znode. A missing ACL is the open one, as in Apache.
    pub(super) fn acquire(&mut self, acl: Option<&[Acl]>) -> AclId {
        let Some(acl) = acl.filter(|acl| !is_open(acl)) else {
            return OPEN;
        };
        if let Some(&slot) = self.by_acl.get(acl) {
            self.entry_mut(slot).uses += 1;
            return slot;
        }
        let key = self.next_key;
        let slot = self.define(key, acl.into());
        self.entry_mut(slot).uses = 1;
        slot
    }

    /// One znode less names `slot`; an ACL without users is forgotten.
    pub(super) fn release(&mut self, slot: AclId) {
        if slot == OPEN {
            return;
        }
        let entry = self.entry_mut(slot);
        entry.uses -= 1;
        if entry.uses == 0 {
            self.forget(slot);
        }
    }

    /// Enters an ACL a snapshot lists under `key`; it has no users yet.
    pub(super) fn define(&mut self, key: i64, acl: Arc<[Acl]>) -> AclId {
        if let Some(&slot) = self.by_key.get(&key) {
            // The later definition of a key wins, as in a map.
            let old = std::mem::replace(&mut self.entry_mut(slot).acl, acl.clone());
            self.by_acl.remove(&old);
            self.by_acl.insert(acl, slot);
            return slot;
        }
        let slot = self.insert(key, acl.clone(), true);
        self.by_acl.insert(acl, slot);
        slot
    }

    /// The slot for one more znode that names `key` in a snapshot.
    pub(super) fn acquire_key(&mut self, key: i64) -> AclId {
        if key == OPEN_KEY {
            return OPEN;
        }
        let slot = match self.by_key.get(&key) {
            Some(&slot) => slot,
            None => self.insert(key, Arc::from([]), false),
        };
        self.entry_mut(slot).uses += 1;
        slot
    }

    /// Forgets what a snapshot listed and no znode used.
    pub(super) fn purge_unused(&mut self) {
        let unused: Vec<AclId> = self
            .by_key
            .values()
            .copied()
            .filter(|&slot| self.entry(slot).uses == 0)
            .collect();
        for slot in unused {
            self.forget(slot);
        }
    }

    pub(super) fn get(&self, slot: AclId) -> &Arc<[Acl]> {
        &self.entry(slot).acl
    }

    pub(super) fn key(&self, slot: AclId) -> i64 {
        self.entry(slot).key
    }

    /// What a snapshot lists: keys and ACLs in the order of the keys.
    pub(super) fn listed(&self) -> impl Iterator<Item = (i64, &[Acl])> {
        self.by_key
            .iter()
            .map(|(&key, &slot)| (key, self.entry(slot)))
            .filter(|(_, entry)| entry.known)
            .map(|(key, entry)| (key, &entry.acl[..]))
    }

    fn insert(&mut self, key: i64, acl: Arc<[Acl]>, known: bool) -> AclId {
        let entry = Some(Entry {
            key,
            acl,
            uses: 0,
            known,
        });
        let slot = if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = entry;
            slot
        } else {
            self.entries.push(entry);
            AclId::try_from(self.entries.len() - 1).expect("fewer ACLs than znodes, which are u32")
        };
        self.by_key.insert(key, slot);
        self.next_key = self.next_key.max(key.saturating_add(1));
        slot
    }

    fn forget(&mut self, slot: AclId) {
        let Some(entry) = self.entries[slot as usize].take() else {
            return;
        };
        self.by_key.remove(&entry.key);
        if self.by_acl.get(&entry.acl) == Some(&slot) {
            self.by_acl.remove(&entry.acl);
        }
        self.free.push(slot);
    }

    fn entry(&self, slot: AclId) -> &Entry {
        self.entries[slot as usize]
            .as_ref()
            .expect("a slot that a znode or the key map names is filled")
    }

    fn entry_mut(&mut self, slot: AclId) -> &mut Entry {
        self.entries[slot as usize]
            .as_mut()
            .expect("a slot that a znode or the key map names is filled")
    }
}

fn is_open(acl: &[Acl]) -> bool {
    matches!(acl, [only] if only.perms == perms::ALL
        && only.id.scheme.as_deref() == Some("world")
        && only.id.id.as_deref() == Some("anyone"))
}
