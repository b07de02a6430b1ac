//! Writing the body of a snapshot in steps while the tree goes on changing.
//!
//! The body is what a SNAP sync sends and what stands between header and seal of a snapshot file:
//! sessions, ACLs, znodes with parents first, and `/` as the end. It is *fuzzy*: each znode is shown
//! as of the moment its chunk was written, and replaying the txns from the zxid it started at makes it
//! whole. Znodes created after the start are left out altogether: the replayed create makes them with
//! their right ACL, where Apache before 3.9.4 would keep one that the file does not define
//! (ZOOKEEPER-4846). Counterpart: `DataTree.serialize`, `ReferenceCountedACLCache.serialize`.

use super::DataTree;
use super::arena::{NONE, NodeId, ROOT, Walk};
use crate::ids::Zxid;
use crate::jute::{Record, Writer};

/// A walk over a tree that can be continued after the tree has changed.
#[derive(Debug, Default)]
pub struct SnapshotCursor {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    NotStarted,
    Walking(Walking),
    Done,
}

#[derive(Debug)]
struct Walking {
    /// Keeps the slot of `at` and the way on from it, should the znode be deleted.
    walk: Walk,
    /// Nothing that was created later is shown.
    start: Zxid,
    /// The znode looked at last.
    at: NodeId,
    /// Path of `at`; empty for the root.
    path: String,
}

impl SnapshotCursor {
    /// A walk that starts with the first chunk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the walk has begun, or may begin, in this very tree. It cannot go on in another one,
    /// as when a sync has replaced the tree meanwhile.
    #[must_use]
    pub fn is_of(&self, tree: &DataTree) -> bool {
        match &self.state {
            State::Walking(walking) => tree.arena.is_of(&walking.walk),
            State::NotStarted | State::Done => true,
        }
    }

    /// Appends the next part of the body, at most `max_nodes` znodes (the first chunk also has all
    /// sessions and ACLs), and says whether that was all.
    ///
    /// # Panics
    /// If the walk is not [of this tree](Self::is_of).
    pub fn next_chunk(&mut self, tree: &DataTree, out: &mut Vec<u8>, max_nodes: usize) -> bool {
        assert!(self.is_of(tree), "a walk goes on in the tree it began in");
        let mut left = max_nodes.max(1);
        let mut walking = match std::mem::take(&mut self.state) {
            State::Done => {
                self.state = State::Done;
                return true;
            }
            State::Walking(walking) => walking,
            State::NotStarted => {
                write_head(tree, out);
                write_node(tree, ROOT, "", out);
                left -= 1;
                Walking {
                    walk: tree.arena.walk(),
                    start: tree.last_processed_zxid,
                    at: ROOT,
                    path: String::new(),
                }
            }
        };
        while left > 0 {
            if !walking.advance(tree) {
                Writer::new(out).string("/");
                self.state = State::Done;
                return true;
            }
            write_node(tree, walking.at, &walking.path, out);
            left -= 1;
        }
        self.state = State::Walking(walking);
        false
    }
}

impl Walking {
    /// Goes to the next znode that is to be shown, children before siblings; false at the end.
    fn advance(&mut self, tree: &DataTree) -> bool {
        let arena = &tree.arena;
        let shown = |mut id: NodeId| {
            while id != NONE && arena.get(id).czxid() > self.start {
                id = arena.next_live(id);
            }
            id
        };
        let here = arena.get(self.at);
        if here.is_alive() {
            let child = shown(here.first_child);
            if child != NONE {
                self.at = child;
                self.path.push('/');
                self.path.push_str(arena.name(child));
                return true;
            }
        }
        while self.at != ROOT {
            let sibling = shown(arena.next_live(self.at));
            // A deleted znode has lost its name, the path still ends in it.
            self.path.truncate(self.path.rfind('/').unwrap_or_default());
            if sibling != NONE {
                self.at = sibling;
                self.path.push('/');
                self.path.push_str(arena.name(sibling));
                return true;
            }
            self.at = arena.get(self.at).parent;
        }
        false
    }
}

fn write_head(tree: &DataTree, out: &mut Vec<u8>) {
    let mut out = Writer::new(out);
    out.int(count(tree.sessions.len()));
    for (session, timeout_ms) in &tree.sessions {
        out.long(session.0);
        out.int(*timeout_ms);
    }
    out.int(count(tree.acls.listed().count()));
    for (key, acl) in tree.acls.listed() {
        out.long(key);
        out.vector(Some(acl));
    }
}

fn write_node(tree: &DataTree, id: NodeId, path: &str, out: &mut Vec<u8>) {
    let node = tree.arena.get(id);
    let mut out = Writer::new(out);
    out.string(path);
    out.buffer(tree.arena.data(id));
    out.long(tree.acls.key(node.acl));
    node.stat().encode(&mut out);
}

fn count(len: usize) -> i32 {
    i32::try_from(len).expect("fewer sessions and ACLs than a jute count can say")
}
