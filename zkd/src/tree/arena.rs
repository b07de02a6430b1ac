//! Where znodes live: slots with small numbers, sibling lists, and one index over all names.
//!
//! Law kept here: siblings stand in the order they came (a snapshot written from a loaded one keeps
//! its order), every live znode is in the index under (parent, name), and while a [`Walk`] is held a
//! freed slot keeps its `next` and `parent` and is not reused, so that a walk that stands on a deleted
//! znode still finds its way. Nothing here knows of txns.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::acl::AclId;
use super::digest;
use crate::record::data::StatPersisted;

/// The slot of a znode.
pub(super) type NodeId = u32;

/// "No znode" in a link.
pub(super) const NONE: NodeId = NodeId::MAX;
/// The root's slot.
pub(super) const ROOT: NodeId = 0;

/// Znodes per chunk: growing never moves a znode.
const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Parts of the index; each grows alone, so that no single create pays for rehashing everything.
const SHARDS: usize = 64;

/// One znode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) stat: StatPersisted,
    pub(super) acl: AclId,
    /// CRC-32 of path and data, the part of the digest that a changed Stat leaves alone.
    pub(super) crc: u32,
    pub(super) parent: NodeId,
    pub(super) first_child: NodeId,
    pub(super) next: NodeId,
    /// The sibling before; of a first child the *last* sibling, which makes appending cheap.
    prev: NodeId,
    pub(super) child_count: u32,
    name_len: u32,
    has_data: bool,
    pub(super) alive: bool,
    /// Name, then data.
    payload: Box<[u8]>,
}

/// Proof that somebody walks the arena in steps; see the law above.
pub(super) type Walk = Arc<()>;

/// All znodes.
#[derive(Debug)]
pub(super) struct Arena {
    chunks: Vec<Vec<Node>>,
    free: Vec<NodeId>,
    /// Freed while a walk was held.
    quarantine: Vec<NodeId>,
    shards: Vec<HashTable<NodeId>>,
    hash: DefaultHashBuilder,
    walk: Walk,
    live: usize,
}

impl Arena {
    /// An arena with nothing but a root.
    pub(super) fn new(root_stat: StatPersisted, data: Option<&[u8]>, acl: AclId) -> Self {
        let mut arena = Self {
            chunks: Vec::new(),
            free: Vec::new(),
            quarantine: Vec::new(),
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hash: DefaultHashBuilder::default(),
            walk: Arc::new(()),
            live: 0,
        };
        let root = arena.put(Node::new("", data, NONE, root_stat, acl));
        arena.get_mut(root).crc = digest::path_data_crc("", data);
        arena.live = 1;
        arena
    }

    pub(super) fn get(&self, id: NodeId) -> &Node {
        &self.chunks[(id >> CHUNK_BITS) as usize][id as usize % CHUNK]
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.chunks[(id >> CHUNK_BITS) as usize][id as usize % CHUNK]
    }

    /// Number of znodes.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Keeps the ways of deleted znodes open until it is dropped.
    pub(super) fn walk(&self) -> Walk {
        Arc::clone(&self.walk)
    }

    pub(super) fn name(&self, id: NodeId) -> &str {
        std::str::from_utf8(self.get(id).name()).expect("names are copied from str")
    }

    pub(super) fn data(&self, id: NodeId) -> Option<&[u8]> {
        let node = self.get(id);
        node.has_data
            .then(|| &node.payload[node.name_len as usize..])
    }

    /// Replaces the data; the caller renews the CRC.
    pub(super) fn set_data(&mut self, id: NodeId, data: Option<&[u8]>) {
        let node = self.get_mut(id);
        let len = data.unwrap_or_default().len();
        node.has_data = data.is_some();
        if node.payload.len() == node.name_len as usize + len {
            let at = node.name_len as usize;
            node.payload[at..].copy_from_slice(data.unwrap_or_default());
        } else {
            node.payload = payload(node.name(), data.unwrap_or_default());
        }
    }

    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = self.hash_of(parent, name);
        self.shards[shard(hash)]
            .find(hash, |&id| {
                let node = self.get(id);
                node.parent == parent && node.name() == name
            })
            .copied()
    }

    /// The znode at `path`; the empty path is the root, a path that is not valid is nobody's.
    pub(super) fn lookup(&self, path: &str) -> Option<NodeId> {
        let rest = match path.as_bytes() {
            [] | [b'/'] => return Some(ROOT),
            [b'/', rest @ ..] => rest,
            _ => return None,
        };
        rest.split(|&byte| byte == b'/')
            .try_fold(ROOT, |parent, name| self.child(parent, name))
    }

    /// Adds a last child that `parent` does not have yet.
    pub(super) fn insert(
        &mut self,
        parent: NodeId,
        name: &str,
        data: Option<&[u8]>,
        stat: StatPersisted,
        acl: AclId,
    ) -> NodeId {
        let id = self.put(Node::new(name, data, parent, stat, acl));
        let first = self.get(parent).first_child;
        if first == NONE {
            self.get_mut(parent).first_child = id;
            self.get_mut(id).prev = id;
        } else {
            let last = std::mem::replace(&mut self.get_mut(first).prev, id);
            self.get_mut(last).next = id;
            self.get_mut(id).prev = last;
        }
        self.get_mut(parent).child_count += 1;
        let hash = self.hash_of(parent, name.as_bytes());
        let (chunks, hasher) = (&self.chunks, &self.hash);
        self.shards[shard(hash)].insert_unique(hash, id, |&other| {
            let node = &chunks[(other >> CHUNK_BITS) as usize][other as usize % CHUNK];
            hash_with(hasher, node.parent, node.name())
        });
        self.live += 1;
        id
    }

    /// Takes a childless znode (never the root) out.
    pub(super) fn remove(&mut self, id: NodeId) {
        let node = self.get(id);
        assert!(
            id != ROOT && node.alive && node.child_count == 0,
            "only a live leaf is removed"
        );
        let (parent, next, prev) = (node.parent, node.next, node.prev);
        let hash = self.hash_of(parent, node.name());
        let entry = self.shards[shard(hash)].find_entry(hash, |&other| other == id);
        entry.expect("every live znode is in the index").remove();
        let first = self.get(parent).first_child;
        if first == id {
            self.get_mut(parent).first_child = next;
        } else {
            self.get_mut(prev).next = next;
        }
        if next != NONE {
            self.get_mut(next).prev = prev;
        } else if first != id {
            self.get_mut(first).prev = prev;
        }
        self.get_mut(parent).child_count -= 1;
        let node = self.get_mut(id);
        node.alive = false;
        node.payload = Box::default();
        node.name_len = 0;
        self.live -= 1;
        if Arc::strong_count(&self.walk) > 1 {
            self.quarantine.push(id);
        } else {
            self.free.append(&mut self.quarantine);
            self.free.push(id);
        }
    }

    /// Appends the path of a live znode to `out` (nothing for the root).
    pub(super) fn push_path(&self, id: NodeId, out: &mut String) {
        if id != ROOT {
            self.push_path_of_ancestors(id, out);
        }
    }

    fn push_path_of_ancestors(&self, id: NodeId, out: &mut String) {
        let mut chain = Vec::new();
        let mut at = id;
        while at != ROOT {
            chain.push(at);
            at = self.get(at).parent;
        }
        for &id in chain.iter().rev() {
            out.push('/');
            out.push_str(self.name(id));
        }
    }

    /// The live sibling after `id`, which may be deleted itself if a walk has been held since.
    pub(super) fn next_live(&self, id: NodeId) -> NodeId {
        let mut next = self.get(id).next;
        while next != NONE && !self.get(next).alive {
            next = self.get(next).next;
        }
        next
    }

    /// Calls `visit` for `top` and all below it, parents first.
    pub(super) fn for_each_in(&self, top: NodeId, mut visit: impl FnMut(&Self, NodeId)) {
        let mut at = top;
        loop {
            visit(self, at);
            let node = self.get(at);
            if node.first_child != NONE {
                at = node.first_child;
                continue;
            }
            while at != top && self.get(at).next == NONE {
                at = self.get(at).parent;
            }
            if at == top {
                return;
            }
            at = self.get(at).next;
        }
    }

    fn put(&mut self, node: Node) -> NodeId {
        if self.free.is_empty() && Arc::strong_count(&self.walk) == 1 {
            self.free.append(&mut self.quarantine);
        }
        if let Some(id) = self.free.pop() {
            *self.get_mut(id) = node;
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("pushed just above if none");
        chunk.push(node);
        let id = NodeId::try_from(full + chunk.len() - 1).ok();
        id.filter(|&id| id != NONE)
            .expect("fewer than four thousand million znodes")
    }

    fn hash_of(&self, parent: NodeId, name: &[u8]) -> u64 {
        hash_with(&self.hash, parent, name)
    }
}

impl Node {
    fn new(
        name: &str,
        data: Option<&[u8]>,
        parent: NodeId,
        stat: StatPersisted,
        acl: AclId,
    ) -> Self {
        Self {
            stat,
            acl,
            crc: 0,
            parent,
            first_child: NONE,
            next: NONE,
            prev: NONE,
            child_count: 0,
            name_len: u32::try_from(name.len()).expect("a name is shorter than its frame"),
            has_data: data.is_some(),
            alive: true,
            payload: payload(name.as_bytes(), data.unwrap_or_default()),
        }
    }

    fn name(&self) -> &[u8] {
        &self.payload[..self.name_len as usize]
    }

    /// What this znode adds to the digest if it counts.
    pub(super) fn digest(&self) -> i64 {
        digest::stat_digest(self.crc, &self.stat)
    }
}

fn payload(name: &[u8], data: &[u8]) -> Box<[u8]> {
    [name, data].concat().into()
}

fn hash_with(hasher: &DefaultHashBuilder, parent: NodeId, name: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u32(parent);
    state.write(name);
    state.finish()
}

/// Bits that the table itself uses neither for its buckets nor for its tags.
fn shard(hash: u64) -> usize {
    (hash >> 48) as usize % SHARDS
}
