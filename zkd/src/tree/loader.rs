//! Reading the body of a snapshot, in whatever pieces it comes.
//!
//! Law kept here: any input gives a tree or an error; at most one record (a session, an ACL, a znode)
//! is held back until the rest of it comes, nothing beyond the body's end is touched, and siblings keep
//! the order of the file. Counterpart: `DataTree.deserialize`.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::acl::AclTable;
use super::arena::NodeId;
use super::{DataTree, byte_count};
use crate::ids::SessionId;
use crate::jute::{DecodeError, Reader, Record};
use crate::record::data::{Acl, StatPersisted};

/// The largest path, data or ACL list that is believed. No server accepts a request this size.
const RECORD_LEN_MAX: usize = 1 << 28;

/// How far a piece of input went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the piece that belong to the body: all of them unless it ended inside.
    pub consumed: usize,
    /// Whether the body is complete.
    pub done: bool,
}

/// Builds a tree from the bytes of a snapshot body.
#[derive(Debug)]
pub struct SnapshotLoader {
    phase: Phase,
    /// The beginning of a record whose rest has not come yet.
    held: Vec<u8>,
    /// Length `held` must reach before it is worth another look.
    wanted: usize,
    /// Sessions and ACLs come before there is a root to make a tree with.
    sessions: Vec<(SessionId, i32)>,
    acls: AclTable,
    tree: Option<DataTree>,
    /// Parent of the znode read last: most often that of the next one, too.
    parent: (String, NodeId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    SessionCount,
    Sessions(i32),
    AclCount,
    Acls(i32),
    Nodes,
    Done,
}

/// What a znode is in a snapshot.
struct StoredNode<'a> {
    path: Cow<'a, str>,
    data: Option<&'a [u8]>,
    acl_key: i64,
    stat: StatPersisted,
    /// Of path and data.
    crc: u32,
}

impl<'a> StoredNode<'a> {
    /// What stands behind the path.
    fn decode(path: Cow<'a, str>, from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let data = read_buffer(from)?;
        Ok(Self {
            acl_key: from.long("ACL key")?,
            stat: StatPersisted::decode(from)?,
            crc: super::digest::path_data_crc(&path, data),
            path,
            data,
        })
    }
}

impl Default for SnapshotLoader {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotLoader {
    /// A loader that waits for the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::SessionCount,
            held: Vec::new(),
            wanted: 0,
            sessions: Vec::new(),
            acls: AclTable::new(),
            tree: None,
            parent: (String::new(), super::ROOT),
        }
    }

    /// Takes the next piece of input.
    ///
    /// # Errors
    /// When the bytes are no snapshot body: negative counts, unreasonable lengths, a znode before
    /// its parent. The loader is of no more use then.
    pub fn feed(&mut self, input: &[u8]) -> Result<Progress, DecodeError> {
        let mut rest = input;
        while self.phase != Phase::Done {
            if self.held.is_empty() {
                match self.read_record(rest) {
                    Ok(used) => rest = &rest[used..],
                    Err(Short(missing)) => {
                        self.wanted = checked_len(rest.len(), missing)?;
                        self.held = rest.to_vec();
                        rest = &[];
                        break;
                    }
                    Err(Bad(error)) => return Err(error),
                }
                continue;
            }
            // Only what the held record is known to need is taken, so nothing is taken too much.
            let missing = self.wanted.saturating_sub(self.held.len());
            let (more, after) = rest.split_at(missing.min(rest.len()));
            self.held.extend_from_slice(more);
            rest = after;
            if self.held.len() < self.wanted {
                break;
            }
            let held = std::mem::take(&mut self.held);
            match self.read_record(&held) {
                Ok(_all) => {}
                Err(Short(missing)) => {
                    self.wanted = checked_len(held.len(), missing)?;
                    self.held = held;
                }
                Err(Bad(error)) => return Err(error),
            }
        }
        Ok(Progress {
            consumed: input.len() - rest.len(),
            done: self.phase == Phase::Done,
        })
    }

    /// How many znodes have been read.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.tree.as_ref().map_or(0, DataTree::node_count)
    }

    /// Makes room for about `count` znodes more; nothing happens before the first.
    pub fn reserve(&mut self, count: usize) {
        if let Some(tree) = &mut self.tree {
            tree.arena.reserve(count);
        }
    }

    /// Splits the work from here on: the parser does what can be done without the tree, on another thread if the
    /// caller likes, and [`Self::add`] puts in what it understood. Nothing until the root has been read, or after the
    /// end.
    pub fn split(&mut self) -> Option<SnapshotParser> {
        let in_the_middle = self.phase == Phase::Nodes && self.tree.is_some();
        in_the_middle.then(|| SnapshotParser {
            held: std::mem::take(&mut self.held),
            wanted: self.wanted,
        })
    }

    /// Puts in what the parser understood, piece by piece in order.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn add(&mut self, piece: &ParsedPiece) -> Result<(), DecodeError> {
        let mut path_start = 0;
        for node in &piece.nodes {
            let path = Cow::Borrowed(&piece.paths[path_start..node.path_end]);
            path_start = node.path_end;
            self.add_node(&StoredNode {
                path,
                data: node.data.clone().map(|range| &piece.bytes[range]),
                acl_key: node.acl_key,
                stat: node.stat,
                crc: node.crc,
            })?;
        }
        if piece.done {
            self.phase = Phase::Done;
        }
        Ok(())
    }

    /// The tree, with its quotas measured and its unused ACLs forgotten. Which zxid it stands at is
    /// not in the body: the caller sets it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if the body is not complete.
    pub fn finish(self) -> Result<DataTree, DecodeError> {
        let incomplete = DecodeError::Truncated {
            what: "snapshot",
            needed: self.wanted.max(1),
            left: self.held.len(),
        };
        if self.phase != Phase::Done {
            return Err(incomplete);
        }
        let mut tree = self.tree.ok_or(incomplete)?;
        tree.acls.purge_unused();
        tree.setup_quotas();
        Ok(tree)
    }

    /// Reads one record off the front of `input` and says its length.
    fn read_record(&mut self, input: &[u8]) -> Result<usize, Failure> {
        let mut from = Reader::new(input);
        match self.phase {
            Phase::SessionCount => self.phase = Phase::Sessions(read_count(&mut from)?),
            Phase::AclCount => self.phase = Phase::Acls(read_count(&mut from)?),
            Phase::Sessions(0) => self.phase = Phase::AclCount,
            Phase::Acls(0) => self.phase = Phase::Nodes,
            Phase::Sessions(left) => {
                let session = SessionId(from.long("session id")?);
                self.sessions.push((session, from.int("session timeout")?));
                self.phase = Phase::Sessions(left - 1);
            }
            Phase::Acls(left) => {
                let key = from.long("ACL key")?;
                let acl: Vec<Acl> = from.vector("ACL")?.unwrap_or_default();
                // -1 means the open ACL whatever a file says.
                if key != super::acl::OPEN_KEY {
                    self.acls.define(key, Arc::from(acl));
                }
                self.phase = Phase::Acls(left - 1);
            }
            Phase::Nodes => {
                let path = from.str("path")?;
                if path == "/" {
                    if self.tree.is_none() {
                        return Err(Bad(DecodeError::Invalid {
                            what: "a snapshot without a root znode",
                        }));
                    }
                    self.phase = Phase::Done;
                } else {
                    self.add_node(&StoredNode::decode(path, &mut from)?)?;
                }
            }
            Phase::Done => {}
        }
        Ok(input.len() - from.rest().len())
    }

    fn add_node(&mut self, node: &StoredNode<'_>) -> Result<(), DecodeError> {
        let Some(tree) = &mut self.tree else {
            if !node.path.is_empty() {
                return Err(DecodeError::Invalid {
                    what: "a snapshot that does not begin with the root znode",
                });
            }
            let acls = std::mem::replace(&mut self.acls, AclTable::new());
            self.tree = Some(DataTree::restored_root(
                acls,
                node,
                std::mem::take(&mut self.sessions),
            ));
            return Ok(());
        };
        // The parent found last is remembered: most often the next znode is its child, too.
        let near = node
            .path
            .rsplit_once('/')
            .filter(|(parent, _)| *parent == self.parent.0);
        let name = if let Some((_, name)) = near {
            name
        } else {
            let Some((parent, id, name)) = tree.split(&node.path) else {
                return Err(DecodeError::Invalid {
                    what: "a znode before its parent",
                });
            };
            parent.clone_into(&mut self.parent.0);
            self.parent.1 = id;
            name
        };
        if name.is_empty() {
            return Err(DecodeError::Invalid {
                what: "a znode without a name",
            });
        }
        tree.restore_node(self.parent.1, name, node);
        Ok(())
    }
}

/// Understands the znodes of a snapshot body without a tree.
#[derive(Debug)]
pub struct SnapshotParser {
    /// The beginning of a record whose rest has not come yet.
    held: Vec<u8>,
    /// Length `held` must reach before it is worth another look.
    wanted: usize,
}

/// Some znodes of a snapshot body, understood but not yet in a tree.
#[derive(Debug)]
pub struct ParsedPiece {
    bytes: Vec<u8>,
    /// The paths, one after the other.
    paths: String,
    nodes: Vec<ParsedNode>,
    done: bool,
}

#[derive(Debug)]
struct ParsedNode {
    path_end: usize,
    data: Option<Range<usize>>,
    acl_key: i64,
    stat: StatPersisted,
    crc: u32,
}

impl SnapshotParser {
    /// Takes the next piece of input; what it says about it, and the znodes for [`SnapshotLoader::add`]. What follows
    /// the body's end is not touched.
    ///
    /// # Errors
    /// As [`SnapshotLoader::feed`].
    pub fn feed(&mut self, input: &[u8]) -> Result<(Progress, ParsedPiece), DecodeError> {
        let held = self.held.len();
        let mut piece = ParsedPiece {
            bytes: std::mem::take(&mut self.held),
            paths: String::new(),
            nodes: Vec::new(),
            done: false,
        };
        piece.bytes.extend_from_slice(input);
        let mut at = 0;
        if piece.bytes.len() >= self.wanted {
            self.wanted = 0;
            while !piece.done {
                match piece.parse_record(at) {
                    Ok(after) => at = after,
                    Err(Short(missing)) => {
                        self.wanted = checked_len(piece.bytes.len() - at, missing)?;
                        break;
                    }
                    Err(Bad(error)) => return Err(error),
                }
            }
        }
        let consumed = if piece.done {
            at - held
        } else {
            self.held = piece.bytes.split_off(at);
            input.len()
        };
        let done = piece.done;
        Ok((Progress { consumed, done }, piece))
    }
}

impl ParsedPiece {
    /// Understands the record that begins at `start`; where the next one does.
    fn parse_record(&mut self, start: usize) -> Result<usize, Failure> {
        let mut from = Reader::new(&self.bytes[start..]);
        let path = from.str("path")?;
        if path == "/" {
            self.done = true;
        } else {
            let node = StoredNode::decode(path, &mut from)?;
            self.paths.push_str(&node.path);
            let begin = self.bytes.as_ptr().addr();
            let data = node.data.map(|data| {
                let at = data.as_ptr().addr() - begin;
                at..at + data.len()
            });
            self.nodes.push(ParsedNode {
                path_end: self.paths.len(),
                data,
                acl_key: node.acl_key,
                stat: node.stat,
                crc: node.crc,
            });
        }
        Ok(self.bytes.len() - from.rest().len())
    }
}

impl DataTree {
    fn restored_root(
        mut acls: AclTable,
        root: &StoredNode<'_>,
        sessions: Vec<(SessionId, i32)>,
    ) -> Self {
        let acl = acls.acquire_key(root.acl_key);
        let mut tree = Self::with_root(root.stat, root.data, acl);
        tree.acls = acls;
        tree.sessions = sessions.into_iter().collect();
        tree
    }

    fn restore_node(&mut self, parent: NodeId, name: &str, node: &StoredNode<'_>) {
        let acl = self.acls.acquire_key(node.acl_key);
        if let Some(id) = self.arena.child(parent, name.as_bytes()) {
            self.replace_restored(id, node, acl);
        } else {
            let id = (self.arena).insert(parent, name, node.data, &node.stat, acl);
            self.account(id, &node.path, node.data, || node.crc);
        }
    }

    /// A file that has a path twice: the later one wins and keeps the children.
    fn replace_restored(&mut self, id: NodeId, node: &StoredNode<'_>, acl: super::AclId) {
        let old = std::mem::replace(&mut self.arena.get_mut(id).acl, acl);
        self.acls.release(old);
        self.unlist_owned(id, self.arena.get(id).ephemeral_owner());
        self.list_owned(id, node.stat.ephemeral_owner);
        self.data_size += byte_count(node.data) - byte_count(self.arena.data(id));
        self.arena.set_data(id, node.data);
        let counted = super::digest::is_counted(&node.path);
        let slot = self.arena.get_mut(id);
        if counted {
            self.digest = self.digest.wrapping_sub(slot.digest());
            slot.crc = node.crc;
        }
        slot.set_stat(&node.stat);
        if counted {
            self.digest = self.digest.wrapping_add(slot.digest());
        }
    }
}

/// Why a record could not be read.
enum Failure {
    /// It lacks at least so many bytes.
    Short(usize),
    Bad(DecodeError),
}

use Failure::{Bad, Short};

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Truncated { needed, left, .. } => Short(needed.saturating_sub(left)),
            other => Bad(other),
        }
    }
}

fn checked_len(have: usize, missing: usize) -> Result<usize, DecodeError> {
    let wanted = have.saturating_add(missing.max(1));
    if wanted > RECORD_LEN_MAX {
        return Err(DecodeError::Length {
            what: "snapshot record",
            length: i32::try_from(wanted).unwrap_or(i32::MAX),
        });
    }
    Ok(wanted)
}

fn read_count(from: &mut Reader<'_>) -> Result<i32, DecodeError> {
    let count = from.int("count")?;
    if count < 0 {
        return Err(DecodeError::Length {
            what: "count",
            length: count,
        });
    }
    Ok(count)
}

/// A buffer without a copy.
fn read_buffer<'a>(from: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match from.int("data")? {
        -1 => Ok(None),
        length => {
            let len = usize::try_from(length).map_err(|_| DecodeError::Length {
                what: "data",
                length,
            })?;
            from.take(len, "data").map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SnapshotCursor;
    use super::super::tests::create;
    use super::*;
    use crate::prng::Prng;

    /// The body of a tree with long and short data, and the tree.
    fn body() -> (Vec<u8>, DataTree) {
        let mut tree = DataTree::new();
        for parent in 0..40 {
            create(&mut tree, &format!("/p{parent}"), b"");
            for child in 0..parent {
                let data = vec![7; child * 13];
                create(&mut tree, &format!("/p{parent}/c{child}"), &data);
            }
        }
        let mut body = Vec::new();
        assert!(SnapshotCursor::new().next_chunk(&tree, &mut body, usize::MAX));
        (body, tree)
    }

    /// Loads in pieces, split after the first piece in which that is possible.
    fn load_split(
        mut pieces: impl FnMut() -> Option<Vec<u8>>,
    ) -> Result<(DataTree, usize), DecodeError> {
        let mut loader = SnapshotLoader::new();
        let mut used = 0;
        let mut parser = None;
        while let Some(piece) = pieces() {
            if parser.is_none() {
                parser = loader.split();
            }
            let progress = match &mut parser {
                None => loader.feed(&piece)?,
                Some(parser) => {
                    let (progress, parsed) = parser.feed(&piece)?;
                    loader.add(&parsed)?;
                    progress
                }
            };
            used += progress.consumed;
            if progress.done {
                break;
            }
        }
        loader.finish().map(|tree| (tree, used))
    }

    #[test]
    fn the_split_way_gives_the_same_tree() {
        let (body, tree) = body();
        let mut prng = Prng::new(3);
        for longest in [1, 7, 50, 900, 20_000] {
            let mut rest = [&body[..], b"what follows"].concat();
            let (mut loaded, used) = load_split(|| {
                let length = usize::try_from(prng.between(1, longest)).unwrap();
                let after = rest.split_off(length.min(rest.len()));
                Some(std::mem::replace(&mut rest, after))
            })
            .unwrap();
            assert_eq!(used, body.len(), "{longest}");
            assert_eq!(loaded.digest(), tree.digest(), "{longest}");
            assert_eq!(loaded.data_size, tree.data_size, "{longest}");
            loaded.last_processed_zxid = tree.last_processed_zxid;
            let mut again = Vec::new();
            assert!(SnapshotCursor::new().next_chunk(&loaded, &mut again, usize::MAX));
            assert!(again == body, "{longest}");
        }
    }

    #[test]
    fn the_split_way_refuses_what_the_other_refuses() {
        let (body, _) = body();
        let halves = |body: &[u8]| {
            let half = body.len() / 2;
            let mut pieces = [body[half..].to_vec(), body[..half].to_vec()].to_vec();
            load_split(|| pieces.pop()).map(drop)
        };
        assert_eq!(halves(&body), Ok(()));
        assert!(halves(&body[..body.len() - 1]).is_err());
        // A parent that never was, and a length that cannot be.
        let late = body.windows(5).rposition(|word| word == b"/p39/").unwrap();
        let mut orphan = body.clone();
        orphan[late + 1] = b'x';
        assert!(halves(&orphan).is_err());
        let mut endless = body;
        endless[late - 4] = 0x7f;
        assert!(halves(&endless).is_err());
    }
}
