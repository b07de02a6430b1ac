//! Reading the body of a snapshot, in whatever pieces it comes.
//!
//! Law kept here: any input gives a tree or an error; at most one record (a session, an ACL, a znode)
//! is held back until the rest of it comes, nothing beyond the body's end is touched, and siblings keep
//! the order of the file. Counterpart: `DataTree.deserialize`.

use std::borrow::Cow;
use std::sync::Arc;

use super::acl::AclTable;
use super::arena::{NodeId, Waiting};
use super::{DataTree, byte_count};
use crate::ids::SessionId;
use crate::jute::{DecodeError, Reader};
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
    pub(super) phase: Phase,
    pub(super) held: Held,
    /// Sessions and ACLs come before there is a root to make a tree with.
    sessions: Vec<(SessionId, i32)>,
    acls: AclTable,
    pub(super) tree: Option<DataTree>,
    /// Parent of the znode read last: most often that of the next one, too.
    parent: (String, NodeId),
    /// Only where [`Self::split`] was called.
    pub(super) waiting: Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    SessionCount,
    Sessions(i32),
    AclCount,
    Acls(i32),
    Nodes,
    Done,
}

/// The beginning of a record whose rest has not come yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// Length `bytes` must reach before it is worth another look.
    wanted: usize,
}

impl Held {
    /// Gives `read` one record after the other, until it says, with the length of the record, that the body is `done`.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        mut done: bool,
        mut read: impl FnMut(&[u8]) -> Result<(usize, bool), Failure>,
    ) -> Result<Progress, DecodeError> {
        let mut rest = input;
        while !done {
            if self.bytes.is_empty() {
                match read(rest) {
                    Ok((used, last)) => {
                        rest = &rest[used..];
                        done = last;
                    }
                    Err(Short(missing)) => {
                        self.wanted = checked_len(rest.len(), missing)?;
                        self.bytes = rest.to_vec();
                        rest = &[];
                        break;
                    }
                    Err(Bad(error)) => return Err(error),
                }
                continue;
            }
            // Only what the held record is known to need is taken, so nothing is taken too much.
            let missing = self.wanted.saturating_sub(self.bytes.len());
            let (more, after) = rest.split_at(missing.min(rest.len()));
            self.bytes.extend_from_slice(more);
            rest = after;
            if self.bytes.len() < self.wanted {
                break;
            }
            let held = std::mem::take(&mut self.bytes);
            match read(&held) {
                Ok((_all, last)) => done = last,
                Err(Short(missing)) => {
                    self.wanted = checked_len(held.len(), missing)?;
                    self.bytes = held;
                }
                Err(Bad(error)) => return Err(error),
            }
        }
        Ok(Progress {
            consumed: input.len() - rest.len(),
            done,
        })
    }
}

/// What a znode is in a snapshot.
pub(super) struct StoredNode<'a> {
    pub(super) path: Cow<'a, str>,
    pub(super) data: Option<&'a [u8]>,
    pub(super) acl_key: i64,
    pub(super) stat: StatPersisted,
}

impl<'a> StoredNode<'a> {
    /// Reads a znode, or the `/` behind the last one.
    #[inline]
    pub(super) fn decode(from: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        let path = from.str("path")?;
        if path == "/" {
            return Ok(None);
        }
        Ok(Some(Self {
            path,
            data: read_buffer(from)?,
            acl_key: from.long("ACL key")?,
            stat: StatPersisted::from_array(from.array("Stat")?),
        }))
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
            held: Held::default(),
            sessions: Vec::new(),
            acls: AclTable::new(),
            tree: None,
            parent: (String::new(), super::ROOT),
            waiting: Waiting::default(),
        }
    }

    /// Takes the next piece of input.
    ///
    /// # Errors
    /// When the bytes are no snapshot body: negative counts, unreasonable lengths, a znode before
    /// its parent. The loader is of no more use then.
    pub fn feed(&mut self, input: &[u8]) -> Result<Progress, DecodeError> {
        let mut held = std::mem::take(&mut self.held);
        let progress = held.feed(input, self.phase == Phase::Done, |record| {
            let used = self.read_record(record)?;
            Ok((used, self.phase == Phase::Done))
        });
        self.held = held;
        progress
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

    /// The tree, with its quotas measured and its unused ACLs forgotten. Which zxid it stands at is
    /// not in the body: the caller sets it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if the body is not complete.
    pub fn finish(self) -> Result<DataTree, DecodeError> {
        let incomplete = DecodeError::Truncated {
            what: "snapshot",
            needed: self.held.wanted.max(1),
            left: self.held.bytes.len(),
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
                if let Some(node) = StoredNode::decode(&mut from)? {
                    self.add_node(&node)?;
                } else if self.tree.is_none() {
                    return Err(Bad(DecodeError::Invalid {
                        what: "a snapshot without a root znode",
                    }));
                } else {
                    self.phase = Phase::Done;
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
            self.attach(parent, name, &node.path, node.data, node.stat, acl);
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
            slot.crc = super::digest::path_data_crc(&node.path, node.data);
        }
        slot.set_stat(&node.stat);
        if counted {
            self.digest = self.digest.wrapping_add(slot.digest());
        }
    }
}

/// Why a record could not be read.
pub(super) enum Failure {
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
