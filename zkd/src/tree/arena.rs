//! Where znodes live: slots with small numbers, sibling lists, and one index over all names.
//!
//! Law kept here: siblings stand in the order they came (a snapshot written from a loaded one keeps
//! its order), every live znode is in the index under (parent, name), and while a [`Walk`] is held a
//! freed slot keeps its `next` and `parent` and is not reused, so that a walk that stands on a deleted
//! znode still finds its way. Nothing here knows of txns.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use super::acl::AclId;
use super::digest;
use super::payload::{Payloads, Place};
use crate::ids::Zxid;
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

/// A znode in the index. The hash stands beside it, so that neither a part that grows nor a look at a neighbour has to
/// touch a znode for it: with a million of them that is memory which no cache holds.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    id: NodeId,
}

/// So many znodes wait for each part of the index until they are entered together. One by one each of them would be
/// entered somewhere in memory that no cache holds; a part that many are entered into is soon in a cache.
const WAITING_MAX: usize = 4096;

/// Znodes in slots that cannot be found yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// For each part of the index.
    parts: Vec<Vec<Entry>>,
    /// Pairs of znodes that have parent and hash in common. Whether the names are the same, too, is to be seen when all
    /// payloads are in the arena.
    pub(super) twins: Vec<(NodeId, NodeId)>,
}

/// One znode: 96 bytes. The fields of its Stat stand singly, since padding them to a whole would cost
/// every znode another eight.
#[derive(Clone, Debug)]
pub(super) struct Node {
    czxid: Zxid,
    mzxid: Zxid,
    pzxid: Zxid,
    ctime: i64,
    mtime: i64,
    ephemeral_owner: i64,
    version: i32,
    cversion: i32,
    aversion: i32,
    pub(super) acl: AclId,
    /// CRC-32 of path and data, the part of the digest that a changed Stat leaves alone.
    pub(super) crc: u32,
    pub(super) parent: NodeId,
    pub(super) first_child: NodeId,
    pub(super) next: NodeId,
    /// The sibling before; of a first child the *last* sibling, which makes appending cheap.
    prev: NodeId,
    /// Number of children, and [`DEAD`] and [`NULL_DATA`].
    children: u32,
    /// Length of the name, name, data.
    payload: Place,
}

/// In [`Node::children`]: the slot is free, or will be when the last walk ends.
const DEAD: u32 = 1 << 31;
/// In [`Node::children`]: the data are null, which is not empty.
const NULL_DATA: u32 = 1 << 30;
const CHILDREN_MAX: u32 = NULL_DATA - 1;
/// In the first byte of a payload: the length of the name has four bytes, not one.
const LONG_NAME: u32 = 1 << 31;

/// Proof that somebody walks the arena in steps; see the law above.
pub(super) type Walk = Arc<()>;

/// All znodes.
#[derive(Debug)]
pub(super) struct Arena {
    chunks: Vec<Vec<Node>>,
    free: Vec<NodeId>,
    /// Freed while a walk was held.
    quarantine: Vec<NodeId>,
    payloads: Payloads,
    shards: Vec<HashTable<Entry>>,
    hash: DefaultHashBuilder,
    walk: Walk,
    live: usize,
}

impl Arena {
    /// An arena with nothing but a root.
    pub(super) fn new(root_stat: &StatPersisted, data: Option<&[u8]>, acl: AclId) -> Self {
        let mut arena = Self {
            chunks: Vec::new(),
            free: Vec::new(),
            quarantine: Vec::new(),
            payloads: Payloads::default(),
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hash: DefaultHashBuilder::default(),
            walk: Arc::new(()),
            live: 0,
        };
        let root = arena.put("", data, NONE, root_stat, acl);
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

    pub(super) fn is_of(&self, walk: &Walk) -> bool {
        Arc::ptr_eq(&self.walk, walk)
    }

    pub(super) fn name(&self, id: NodeId) -> &str {
        std::str::from_utf8(self.name_and_data(id).0).expect("names are copied from str")
    }

    pub(super) fn data(&self, id: NodeId) -> Option<&[u8]> {
        let has_data = self.get(id).children & NULL_DATA == 0;
        has_data.then(|| self.name_and_data(id).1)
    }

    /// Replaces the data; the caller renews the CRC.
    pub(super) fn set_data(&mut self, id: NodeId, data: Option<&[u8]>) {
        let place = self.get(id).payload;
        let bytes = data.unwrap_or_default();
        let head = Payloads::len(place) - self.name_and_data(id).1.len();
        if Payloads::len(place) == head + bytes.len() {
            self.payloads.get_mut(place)[head..].copy_from_slice(bytes);
        } else {
            let name = self.payloads.get(place)[..head].to_vec();
            self.payloads.remove(place);
            self.get_mut(id).payload = self.payloads.insert([&name, &[], bytes]);
        }
        let node = self.get_mut(id);
        node.children &= !NULL_DATA;
        node.children |= null_flag(data);
    }

    pub(super) fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let hash = hash_of(&self.hash, parent, name);
        self.shards[shard(hash)]
            .find(spread(hash), |entry| {
                entry.hash == hash
                    && self.get(entry.id).parent == parent
                    && self.name_and_data(entry.id).0 == name
            })
            .map(|entry| entry.id)
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
        stat: &StatPersisted,
        acl: AclId,
    ) -> NodeId {
        let id = self.put(name, data, parent, stat, acl);
        self.link_last(parent, id);
        let hash = hash_of(&self.hash, parent, name.as_bytes());
        self.shards[shard(hash)].insert_unique(spread(hash), Entry { hash, id }, rehash);
        self.live += 1;
        id
    }

    /// Makes a new znode the last child.
    #[inline]
    fn link_last(&mut self, parent: NodeId, id: NodeId) {
        let first = self.get(parent).first_child;
        if first == NONE {
            self.get_mut(parent).first_child = id;
            self.get_mut(id).prev = id;
        } else {
            let last = std::mem::replace(&mut self.get_mut(first).prev, id);
            self.get_mut(last).next = id;
            self.get_mut(id).prev = last;
        }
        let count = self.get(parent).child_count() + 1;
        assert!(
            count <= CHILDREN_MAX,
            "a thousand million children of one znode"
        );
        self.get_mut(parent).children += 1;
    }

    /// The slot that [`Self::append`] fills next.
    pub(super) fn next_new(&self) -> NodeId {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        let last = self.chunks.last().map_or(0, Vec::len);
        NodeId::try_from(full + last).unwrap_or(NONE)
    }

    /// What hashes names, for [`Namer`].
    pub(super) fn namer(&self) -> Namer {
        Namer(self.hash.clone())
    }

    /// The names and data of all znodes, which may be elsewhere while znodes are [appended](Self::append).
    pub(super) fn payloads_mut(&mut self) -> &mut Payloads {
        &mut self.payloads
    }

    /// Adds a znode as the last child of its parent, in a new slot; its payload may be elsewhere. It is found only
    /// after [`Self::index`].
    pub(super) fn append(&mut self, node: Node) -> NodeId {
        let parent = node.parent;
        let id = self.push(node);
        self.link_last(parent, id);
        self.live += 1;
        id
    }

    /// Lets znodes be found that were appended one after the other, `first` the first of them: some now, some not
    /// before [`Self::index_rest`].
    pub(super) fn index(&mut self, first: NodeId, hashes: &[u32], waiting: &mut Waiting) {
        waiting.parts.resize_with(SHARDS, Vec::new);
        for (&hash, id) in hashes.iter().zip(first..) {
            let part = shard(hash);
            waiting.parts[part].push(Entry { hash, id });
            if waiting.parts[part].len() == WAITING_MAX {
                self.index_part(part, waiting);
            }
        }
    }

    /// Lets all znodes be found that still wait for it.
    pub(super) fn index_rest(&mut self, waiting: &mut Waiting) {
        for part in 0..waiting.parts.len() {
            self.index_part(part, waiting);
        }
    }

    fn index_part(&mut self, part: usize, waiting: &mut Waiting) {
        let (chunks, shard) = (&self.chunks, &mut self.shards[part]);
        let parent = |id: NodeId| chunks[(id >> CHUNK_BITS) as usize][id as usize % CHUNK].parent;
        for new in waiting.parts[part].drain(..) {
            let hash = spread(new.hash);
            let is_twin = |old: &Entry| old.hash == new.hash && parent(old.id) == parent(new.id);
            match shard.entry(hash, is_twin, rehash) {
                hash_table::Entry::Vacant(place) => {
                    place.insert(new);
                }
                hash_table::Entry::Occupied(old) => {
                    waiting.twins.push((old.get().id, new.id));
                    shard.insert_unique(hash, new, rehash);
                }
            }
        }
    }

    /// Takes a childless znode (never the root) out.
    pub(super) fn remove(&mut self, id: NodeId) {
        let node = self.get(id);
        assert!(
            id != ROOT && node.is_alive() && node.child_count() == 0,
            "only a live leaf is removed"
        );
        let (parent, next, prev) = (node.parent, node.next, node.prev);
        let hash = hash_of(&self.hash, parent, self.name_and_data(id).0);
        let entry = self.shards[shard(hash)].find_entry(spread(hash), |entry| entry.id == id);
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
        self.get_mut(parent).children -= 1;
        let node = self.get_mut(id);
        node.children |= DEAD;
        let place = std::mem::take(&mut node.payload);
        self.payloads.remove(place);
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
        while next != NONE && !self.get(next).is_alive() {
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

    /// Makes room in the index for about `count` znodes more, so that it need not grow step by
    /// step.
    pub(super) fn reserve(&mut self, count: usize) {
        for shard in &mut self.shards {
            shard.reserve(count / SHARDS, rehash);
        }
    }

    fn put(
        &mut self,
        name: &str,
        data: Option<&[u8]>,
        parent: NodeId,
        stat: &StatPersisted,
        acl: AclId,
    ) -> NodeId {
        let payload = put_payload(&mut self.payloads, name, data);
        let node = Node::new(parent, data.is_none(), payload, stat, acl, 0);
        if self.free.is_empty() && Arc::strong_count(&self.walk) == 1 {
            self.free.append(&mut self.quarantine);
        }
        if let Some(id) = self.free.pop() {
            *self.get_mut(id) = node;
            return id;
        }
        self.push(node)
    }

    /// Puts a znode into a new slot.
    #[inline]
    fn push(&mut self, node: Node) -> NodeId {
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

    fn name_and_data(&self, id: NodeId) -> (&[u8], &[u8]) {
        split_payload(self.payloads.get(self.get(id).payload))
    }
}

/// Says where in an arena's index a znode belongs.
#[derive(Clone, Debug)]
pub(super) struct Namer(DefaultHashBuilder);

impl Namer {
    pub(super) fn hash(&self, parent: NodeId, name: &str) -> u32 {
        hash_of(&self.0, parent, name.as_bytes())
    }
}

/// Stores name and data.
#[inline]
pub(super) fn put_payload(payloads: &mut Payloads, name: &str, data: Option<&[u8]>) -> Place {
    let mut len = [0; 4];
    let len = name_len_bytes(name.len(), &mut len);
    payloads.insert([len, name.as_bytes(), data.unwrap_or_default()])
}

impl Node {
    /// A znode without relatives but its parent.
    #[inline]
    pub(super) fn new(
        parent: NodeId,
        data_is_null: bool,
        payload: Place,
        stat: &StatPersisted,
        acl: AclId,
        crc: u32,
    ) -> Self {
        Self {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            ephemeral_owner: stat.ephemeral_owner,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            acl,
            crc,
            parent,
            first_child: NONE,
            next: NONE,
            prev: NONE,
            children: if data_is_null { NULL_DATA } else { 0 },
            payload,
        }
    }

    pub(super) fn stat(&self) -> StatPersisted {
        StatPersisted {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion,
            aversion: self.aversion,
            ephemeral_owner: self.ephemeral_owner,
            pzxid: self.pzxid,
        }
    }

    pub(super) fn set_stat(&mut self, stat: &StatPersisted) {
        self.czxid = stat.czxid;
        self.mzxid = stat.mzxid;
        self.ctime = stat.ctime;
        self.mtime = stat.mtime;
        self.version = stat.version;
        self.cversion = stat.cversion;
        self.aversion = stat.aversion;
        self.ephemeral_owner = stat.ephemeral_owner;
        self.pzxid = stat.pzxid;
    }

    pub(super) fn czxid(&self) -> Zxid {
        self.czxid
    }

    pub(super) fn pzxid(&self) -> Zxid {
        self.pzxid
    }

    pub(super) fn cversion(&self) -> i32 {
        self.cversion
    }

    pub(super) fn ephemeral_owner(&self) -> i64 {
        self.ephemeral_owner
    }

    pub(super) fn child_count(&self) -> u32 {
        self.children & CHILDREN_MAX
    }

    pub(super) fn is_alive(&self) -> bool {
        self.children & DEAD == 0
    }

    /// What this znode adds to the digest if it counts.
    pub(super) fn digest(&self) -> i64 {
        digest::stat_digest(self.crc, &self.stat())
    }
}

fn null_flag(data: Option<&[u8]>) -> u32 {
    if data.is_none() { NULL_DATA } else { 0 }
}

/// The bytes that say the length of a name: one for the usual ones.
fn name_len_bytes(len: usize, room: &mut [u8; 4]) -> &[u8] {
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => {
            room[0] = short;
            &room[..1]
        }
        _ => {
            let long = u32::try_from(len).ok().filter(|len| len & LONG_NAME == 0);
            *room = (long.expect("a name is shorter than its frame") | LONG_NAME).to_be_bytes();
            room
        }
    }
}

/// Name and data out of a payload.
fn split_payload(payload: &[u8]) -> (&[u8], &[u8]) {
    match payload {
        [len, rest @ ..] if *len < 0x80 => rest.split_at(usize::from(*len)),
        [a, b, c, d, rest @ ..] => {
            rest.split_at((u32::from_be_bytes([*a, *b, *c, *d]) & !LONG_NAME) as usize)
        }
        _ => (&[], &[]), // a freed slot
    }
}

fn hash_of(hasher: &DefaultHashBuilder, parent: NodeId, name: &[u8]) -> u32 {
    let mut state = hasher.build_hasher();
    state.write_u32(parent);
    state.write(name);
    // Half of it says enough: of a hundred million znodes 98 in 100 have a hash of their own.
    (state.finish() >> 32) as u32
}

/// The bits of a hash over all 64 that the table wants.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn rehash(entry: &Entry) -> u64 {
    spread(entry.hash)
}

/// The part of the index that a hash belongs to.
fn shard(hash: u32) -> usize {
    // Bits that the table itself uses neither for its buckets nor for its tags.
    (spread(hash) >> 48) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_znode_is_96_bytes() {
        assert_eq!(size_of::<Node>(), 96);
    }

    #[test]
    fn names_of_any_length() {
        let mut arena = Arena::new(&StatPersisted::default(), None, 0);
        for len in [1, 127, 128, 255, 300, 5000, 70_000] {
            let name = "n".repeat(len);
            let stat = StatPersisted::default();
            let id = arena.insert(ROOT, &name, Some(b"data"), &stat, 0);
            assert_eq!(arena.name(id), name);
            assert_eq!(arena.data(id), Some(&b"data"[..]));
            for data in [
                None,
                Some(&b""[..]),
                Some(b"longer data"),
                Some(b"other  data"),
            ] {
                arena.set_data(id, data);
                assert_eq!((arena.name(id), arena.data(id)), (&*name, data));
            }
            assert_eq!(arena.lookup(&format!("/{name}")), Some(id));
        }
        assert_eq!(arena.get(ROOT).child_count(), 7);
    }
}
