//! Reading the znodes of a long snapshot with two hands: one unpacks them, the other one makes the tree.
//!
//! What a znode is, its place among names and data, its sums and the number of its slot follow from the bytes alone, if
//! the file is as every server writes it: each znode once, and behind its parent with nothing between but descendants
//! of that. [`Unpacker`] finds them out, and [`SnapshotLoader::add`] enters what it found into slots and index. Any other
//! file is an error here, and for [`SnapshotLoader::feed`] to judge from its beginning. Nothing here knows of threads.

use super::acl::AclTable;
use super::arena::{NONE, Namer, Node, NodeId, ROOT, put_payload};
use super::loader::{Failure, Held, Phase, Progress, SnapshotLoader, StoredNode};
use super::payload::Payloads;
use super::{byte_count, digest};
use crate::jute::{DecodeError, Reader};

/// So many pairs of znodes may look alike until their names are compared. Among a hundred million znodes about a million
/// have the hash of another one, and hardly any its parent, too.
const TWINS_MAX: usize = 1 << 16;

/// Understands the znodes of a snapshot body without a tree.
#[derive(Debug)]
pub struct Unpacker {
    held: Held,
    unpacking: Unpacking,
    done: bool,
}

#[derive(Debug)]
struct Unpacking {
    ancestors: Ancestors,
    /// The slot of the next znode.
    next: NodeId,
    namer: Namer,
    payloads: Payloads,
    acls: AclTable,
    /// What the digest and the size of the data of the tree are to be changed by.
    digest: i64,
    data_size: i64,
}

/// Znodes that wait to be put into the tree. It can be used again for the next ones.
#[derive(Debug, Default)]
pub struct Unpacked {
    nodes: Vec<Node>,
    hashes: Vec<u32>,
}

/// The way from the root to the znode read last.
#[derive(Debug)]
struct Ancestors {
    path: String,
    /// Where in `path` the path of each ends, and its slot; the root first.
    levels: Vec<(usize, NodeId)>,
}

impl Unpacker {
    /// Takes the next piece of input and puts the znodes in it into `out`.
    ///
    /// # Errors
    /// As [`SnapshotLoader::feed`], and whenever anything is unusual.
    pub fn unpack(&mut self, input: &[u8], out: &mut Unpacked) -> Result<Progress, DecodeError> {
        out.nodes.clear();
        out.hashes.clear();
        let progress = self.held.feed(input, self.done, |record| {
            let mut from = Reader::new(record);
            let node = StoredNode::decode(&mut from)?;
            let done = node.is_none();
            if let Some(node) = node {
                let unpacked = self.unpacking.node(&node, out);
                unpacked.ok_or(Failure::Bad(UNUSUAL))?;
            }
            Ok((record.len() - from.rest().len(), done))
        })?;
        self.done = progress.done;
        Ok(progress)
    }
}

const UNUSUAL: DecodeError = DecodeError::Invalid {
    what: "a znode before its parent, or one twice",
};

impl Unpacking {
    fn node(&mut self, node: &StoredNode<'_>, out: &mut Unpacked) -> Option<()> {
        let id = self.next;
        self.next = id.checked_add(1).filter(|&next| next != NONE)?;
        let (parent, name) = self.ancestors.enter(&node.path, id)?;
        let mut crc = 0;
        if digest::is_counted(&node.path) {
            crc = digest::path_data_crc(&node.path, node.data);
        } else {
            // Whoever puts it in adds all of them.
            let digest = digest::stat_digest(crc, &node.stat);
            self.digest = self.digest.wrapping_sub(digest);
        }
        self.data_size += node.path.len() as i64 + byte_count(node.data);
        let payload = put_payload(&mut self.payloads, name, node.data);
        let acl = self.acls.acquire_key(node.acl_key);
        let is_null = node.data.is_none();
        let unpacked = Node::new(parent, is_null, payload, &node.stat, acl, crc);
        out.nodes.push(unpacked);
        out.hashes.push(self.namer.hash(parent, name));
        Some(())
    }
}

impl Ancestors {
    /// Goes on to the next znode of the file; gives its parent's slot and its name.
    fn enter<'a>(&mut self, path: &'a str, id: NodeId) -> Option<(NodeId, &'a str)> {
        let slash = path.bytes().rposition(|byte| byte == b'/')?;
        while self.levels.last()?.0 > slash {
            self.levels.pop();
        }
        let (end, parent) = *self.levels.last()?;
        let name = &path[slash + 1..];
        if end != slash || self.path[..end] != path[..end] || name.is_empty() {
            return None;
        }
        self.path.truncate(end);
        self.path.push_str(&path[end..]);
        self.levels.push((path.len(), id));
        Some((parent, name))
    }
}

impl SnapshotLoader {
    /// Divides the work from here on: the unpacker does what can be done without the tree, and [`Self::add`] puts in
    /// what it understood. Nothing until the root has been read, and after the end.
    pub fn split(&mut self) -> Option<Unpacker> {
        let tree = self.tree.as_mut().filter(|_| self.phase == Phase::Nodes)?;
        let next = tree.arena.next_new();
        let mut chain = Vec::new();
        let mut at = next.checked_sub(1)?;
        while at != ROOT {
            chain.push(at);
            at = tree.arena.get(at).parent;
        }
        let mut ancestors = Ancestors {
            path: String::new(),
            levels: vec![(0, ROOT)],
        };
        for &id in chain.iter().rev() {
            ancestors.path.push('/');
            ancestors.path.push_str(tree.arena.name(id));
            ancestors.levels.push((ancestors.path.len(), id));
        }
        Some(Unpacker {
            held: std::mem::take(&mut self.held),
            unpacking: Unpacking {
                ancestors,
                next,
                namer: tree.arena.namer(),
                payloads: std::mem::take(tree.arena.payloads_mut()),
                acls: std::mem::replace(&mut tree.acls, AclTable::new()),
                digest: 0,
                data_size: 0,
            },
            done: false,
        })
    }

    /// Puts in what the unpacker understood, piece by piece in order.
    ///
    /// # Errors
    /// If there are too many znodes that may be twice in the file.
    pub fn add(&mut self, unpacked: &Unpacked) -> Result<(), DecodeError> {
        let tree = self.tree.as_mut().ok_or(UNUSUAL)?;
        let first = tree.arena.next_new();
        for node in &unpacked.nodes {
            tree.digest = tree.digest.wrapping_add(node.digest());
            let id = tree.arena.append(node.clone());
            tree.list_owned(id, node.ephemeral_owner());
        }
        let waiting = &mut self.waiting;
        tree.arena.index(first, &unpacked.hashes, waiting);
        if waiting.twins.len() > TWINS_MAX {
            return Err(UNUSUAL);
        }
        Ok(())
    }

    /// Ends what [`Self::split`] began, after everything unpacked has been added.
    ///
    /// # Errors
    /// If a path is twice in the file.
    pub fn join(&mut self, unpacker: Unpacker) -> Result<(), DecodeError> {
        let tree = self.tree.as_mut().ok_or(UNUSUAL)?;
        let Unpacking {
            next,
            payloads,
            acls,
            digest,
            data_size,
            ..
        } = unpacker.unpacking;
        *tree.arena.payloads_mut() = payloads;
        tree.acls = acls;
        tree.digest = tree.digest.wrapping_add(digest);
        tree.data_size += data_size;
        tree.arena.index_rest(&mut self.waiting);
        let same = |&(one, other)| tree.arena.name(one) == tree.arena.name(other);
        if tree.arena.next_new() != next || self.waiting.twins.iter().any(same) {
            return Err(UNUSUAL);
        }
        self.held = unpacker.held;
        if unpacker.done {
            self.phase = Phase::Done;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{apply, create, delete};
    use super::super::{DataTree, SnapshotCursor};
    use super::*;
    use crate::prng::Prng;
    use crate::record::data::{Acl, perms};
    use crate::record::opcode::OpCode;
    use crate::record::txn::{CreateSessionTxn, CreateTtlTxn, CreateTxn, Txn};

    fn body_of(tree: &DataTree) -> Vec<u8> {
        let mut body = Vec::new();
        assert!(SnapshotCursor::new().next_chunk(tree, &mut body, usize::MAX));
        body
    }

    /// A tree of everything: long and short data and none, deep paths, ACLs, ephemerals, TTLs, a quota.
    fn tree() -> DataTree {
        let mut tree = DataTree::new();
        let open = CreateSessionTxn { timeout_ms: 5000 };
        apply(&mut tree, OpCode::CreateSession, Txn::CreateSession(open));
        let mut deep = String::new();
        for parent in 0..40 {
            create(&mut tree, &format!("/p{parent}"), b"");
            for child in 0..parent as usize {
                let data = vec![7; child * 13];
                create(&mut tree, &format!("/p{parent}/c{child}"), &data);
            }
            deep += &format!("/ä{parent}");
            let txn = CreateTxn {
                path: deep.clone(),
                data: None,
                acl: Some(vec![Acl::world(
                    perms::READ | (perms::WRITE * (parent % 2)),
                )]),
                ephemeral: false,
                parent_cversion: -1,
            };
            apply(&mut tree, OpCode::Create, Txn::Create(txn));
            let txn = CreateTxn {
                path: format!("/p{parent}/e"),
                data: Some(b"mine".to_vec().into()),
                acl: None,
                ephemeral: true,
                parent_cversion: -1,
            };
            apply(&mut tree, OpCode::Create, Txn::Create(txn));
            let txn = CreateTtlTxn {
                path: format!("{deep}/ttl"),
                data: None,
                acl: None,
                parent_cversion: -1,
                ttl: 10,
            };
            apply(&mut tree, OpCode::CreateTtl, Txn::CreateTtl(txn));
        }
        for path in ["/zookeeper/quota/p7", "/zookeeper/quota/p7/zookeeper_stats"] {
            create(&mut tree, path, b"");
        }
        let limits = "/zookeeper/quota/p7/zookeeper_limits";
        create(&mut tree, limits, b"count=99,bytes=-1");
        tree
    }

    /// Loads in pieces, divided as soon as that is possible.
    fn load_divided(
        mut pieces: impl FnMut() -> Option<Vec<u8>>,
    ) -> Result<(DataTree, usize), DecodeError> {
        let mut loader = SnapshotLoader::new();
        let mut unpacked = Unpacked::default();
        let mut used = 0;
        let mut unpacker = None;
        while let Some(piece) = pieces() {
            if unpacker.is_none() {
                unpacker = loader.split();
            }
            let progress = match &mut unpacker {
                None => loader.feed(&piece)?,
                Some(unpacker) => {
                    let progress = unpacker.unpack(&piece, &mut unpacked)?;
                    loader.add(&unpacked)?;
                    progress
                }
            };
            used += progress.consumed;
            if progress.done {
                break;
            }
        }
        if let Some(unpacker) = unpacker {
            loader.join(unpacker)?;
        }
        loader.finish().map(|tree| (tree, used))
    }

    /// Divided after the first bytes, which must have the root.
    fn load_after(first: usize, body: &[u8]) -> Result<DataTree, DecodeError> {
        let mut pieces = [&body[first..], &body[..first]]
            .map(<[u8]>::to_vec)
            .to_vec();
        load_divided(|| pieces.pop()).map(|(tree, _)| tree)
    }

    #[test]
    fn the_divided_way_gives_the_same_tree() {
        let tree = tree();
        let body = body_of(&tree);
        let mut loader = SnapshotLoader::new();
        assert!(loader.feed(&body).unwrap().done);
        let whole = loader.finish().unwrap();
        let mut prng = Prng::new(3);
        for longest in [1, 7, 50, 900, 20_000] {
            let input = [&body[..], b"what follows"].concat();
            let mut at = 0;
            let (mut loaded, used) = load_divided(|| {
                let length = usize::try_from(prng.between(1, longest)).unwrap();
                let from = at;
                at = input.len().min(from + length);
                Some(input[from..at].to_vec())
            })
            .unwrap();
            assert_eq!(used, body.len(), "{longest}");
            assert_eq!(loaded.digest(), tree.digest(), "{longest}");
            assert_eq!(loaded.data_size, whole.data_size, "{longest}");
            assert_eq!(loaded.node_count(), tree.node_count(), "{longest}");
            assert_eq!(loaded.ephemerals, whole.ephemerals, "{longest}");
            assert_eq!(loaded.ephemerals_count, 40);
            assert_eq!(loaded.ttls, whole.ttls, "{longest}");
            assert_eq!(loaded.ttls.len(), 40);
            let quota = |tree: &DataTree| tree.quota("/p7/c1").unwrap();
            assert_eq!(quota(&loaded).used, quota(&whole).used);
            loaded.last_processed_zxid = tree.last_processed_zxid;
            assert!(body_of(&loaded) == body, "{longest}");
            // Every znode is found, and one that goes takes all that was kept about it along.
            for path in ["/p39/c38", "/p39/e", "/p3/c1"] {
                delete(&mut loaded, path);
                assert!(loaded.node(path).is_none());
            }
            assert_eq!(loaded.ephemerals_count, 39);
        }
    }

    #[test]
    fn what_is_unusual_is_refused() {
        let body = body_of(&tree());
        let half = body.len() / 2;
        assert!(load_after(half, &body).is_ok());
        assert!(load_after(half, &body[..body.len() - 1]).is_err(), "no end");
        // The last of them is /p39/e.
        let end = body.len() - 5;
        for (path, is_usual) in [
            ("/p39/new", true),
            ("/p39/e/new", true),
            ("/new", true),
            ("/p39/c38", false),
            ("/p39/e", false),
            ("/p39", false),
            ("/p38/new", false),
            ("/nobody/new", false),
            ("/p39/", false),
            ("/p39//", false),
            ("//new", false),
            ("p39/new", false),
            ("new", false),
            ("", false),
        ] {
            let length = u8::try_from(path.len()).unwrap();
            let data_and_key = [0xff; 4 + 8];
            let record = [&[0, 0, 0, length], path.as_bytes(), &data_and_key, &[0; 60]].concat();
            let body = [&body[..end], &record, &body[end..]].concat();
            assert_eq!(load_after(half, &body).is_ok(), is_usual, "{path}");
        }
        for (what, byte) in [("an endless path", 0x7f), ("a negative length", 0xff)] {
            let mut body = body.clone();
            let last = body.windows(6).rposition(|at| at == b"/p39/e").unwrap();
            body[last - 4] = byte;
            assert!(load_after(half, &body).is_err(), "{what}");
        }
    }

    #[test]
    fn znodes_that_only_look_alike_are_two() {
        let mut tree = DataTree::new();
        for path in ["/a", "/b", "/c"] {
            create(&mut tree, path, b"");
        }
        let body = body_of(&tree);
        // The root, without the znodes.
        let first = body.windows(10).position(|at| at == b"/zookeeper").unwrap() - 4;
        for alike in [false, true] {
            let mut loader = SnapshotLoader::new();
            assert!(!loader.feed(&body[..first]).unwrap().done);
            let mut unpacker = loader.split().unwrap();
            let mut unpacked = Unpacked::default();
            assert!(unpacker.unpack(&body[first..], &mut unpacked).unwrap().done);
            if alike {
                let count = unpacked.hashes.len();
                unpacked.hashes[count - 1] = unpacked.hashes[count - 2];
            }
            loader.add(&unpacked).unwrap();
            loader.join(unpacker).unwrap();
            assert_eq!(loader.waiting.twins.len(), usize::from(alike));
            let loaded = loader.finish().unwrap();
            assert_eq!(loaded.digest(), tree.digest());
            assert_eq!(loaded.node("/c").is_some(), !alike);
            assert!(loaded.node("/b").is_some());
        }
    }

    #[test]
    fn only_the_middle_of_a_body_is_divided() {
        let body = body_of(&DataTree::new());
        let mut loader = SnapshotLoader::new();
        assert!(loader.split().is_none());
        assert!(!loader.feed(&body[..6]).unwrap().done);
        assert!(loader.split().is_none(), "no root yet");
        assert!(loader.feed(&body[6..]).unwrap().done);
        assert!(loader.split().is_none(), "nothing left");
    }
}
