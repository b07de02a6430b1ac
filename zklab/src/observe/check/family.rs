//! Who is whose parent, and when a directory got or lost a child.

use std::collections::{HashMap, HashSet};

use zkd::ids::Zxid;

use super::timeline::{Change, Mutation};
use crate::observe::history::{History, Kind, OpIndex, PathId};

/// What is known of all directories; empty where nobody asks.
#[derive(Debug, Default)]
pub(super) struct Family {
    parents: Vec<Option<PathId>>,
    /// The children of a directory that any operation names.
    kids: HashMap<PathId, Vec<PathId>>,
    /// When a directory is known to have got or lost a child, and by what; in the order of zxids.
    changes: HashMap<PathId, Vec<(Zxid, OpIndex)>>,
    /// Directories that may have got or lost a child without anybody knowing.
    unsure: HashSet<PathId>,
}

/// Does this operation ask for children, or for events of other znodes than the one it names?
fn looks_around(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Children | Kind::Persistent | Kind::Recursive | Kind::Rewatch
    )
}

impl Family {
    /// `doubtful` are the znodes of which something is not known.
    pub(super) fn of(
        history: &History,
        mutations: &[Mutation],
        doubtful: impl Iterator<Item = PathId>,
    ) -> Self {
        if !history.ops.iter().any(|op| looks_around(op.kind)) {
            return Self::default();
        }
        let parent = |path: &str| {
            // The root is nobody's child.
            let (parent, _) = path.rsplit_once('/').filter(|_| path != "/")?;
            history.path_id(if parent.is_empty() { "/" } else { parent })
        };
        let mut family = Self {
            parents: history.paths.iter().map(|path| parent(path)).collect(),
            ..Self::default()
        };
        for (index, parent) in family.parents.iter().enumerate() {
            if let Some(parent) = parent {
                let kid = PathId(super::op_index(index).0);
                family.kids.entry(*parent).or_default().push(kid);
            }
        }
        for mutation in mutations
            .iter()
            .filter(|m| !matches!(m.change, Change::Set(_)))
        {
            let Some(parent) = family.parent(mutation.path) else {
                continue;
            };
            let changes = family.changes.entry(parent).or_default();
            changes.push((mutation.zxid, mutation.op));
            // Nobody may have been told when it went.
            if history.ops[mutation.op.at()].ephemeral {
                family.unsure.insert(parent);
            }
        }
        for changes in family.changes.values_mut() {
            changes.sort_unstable();
        }
        for path in doubtful {
            family.unsure.extend(family.parent(path));
        }
        family
    }

    pub(super) fn parent(&self, path: PathId) -> Option<PathId> {
        self.parents.get(path.0 as usize).copied().flatten()
    }

    pub(super) fn kids(&self, dir: PathId) -> &[PathId] {
        self.kids.get(&dir).map_or(&[], Vec::as_slice)
    }

    /// Is it this znode, or below it?
    pub(super) fn is_within(&self, path: PathId, top: PathId) -> bool {
        let mut at = Some(path);
        while let Some(path) = at {
            if path == top {
                return true;
            }
            at = self.parent(path);
        }
        false
    }

    /// Is every change of its children known?
    pub(super) fn is_sure(&self, dir: PathId) -> bool {
        !self.unsure.contains(&dir)
    }

    /// The first known change of its children after this state.
    pub(super) fn after(&self, dir: PathId, state: Zxid) -> Option<(Zxid, OpIndex)> {
        let changes = self.changes.get(&dir)?;
        let next = changes.partition_point(|(zxid, _)| *zxid <= state);
        changes.get(next).copied()
    }
}
