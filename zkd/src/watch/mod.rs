//! Watches: which connection waits for what to happen at which path.
//!
//! Law kept here: each trigger names a connection at most once and uses up its one-shot watches at that
//! exact path; persistent ones stay; the order is that of connection numbers, so that a run can be
//! repeated. ACLs, sockets and the catch-up of a reconnect are for others. Counterpart:
//! `WatchManager`, `WatcherModeManager`, `PathParentIterator`; Apache's two tables, *data* and *child*,
//! are one here, with bits that say in which of them a watch stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::ids::ConnId;
use crate::path;

/// What happened, with the number a `WatcherEvent` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum EventKind {
    /// A znode came to be.
    Created = 1,
    /// A znode is gone.
    Deleted = 2,
    /// Its data were set.
    DataChanged = 3,
    /// A child was created or deleted.
    ChildrenChanged = 4,
}

/// What a watch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchMode {
    /// One-shot, by `exists` and `getData`: creation, deletion, data.
    Data,
    /// One-shot, by `getChildren`: children, deletion.
    Child,
    /// Until removed: everything at the path.
    Persistent,
    /// Until removed: everything but `ChildrenChanged`, at the path and all below it.
    PersistentRecursive,
}

/// Which watches `checkWatches` and `removeWatches` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum WatcherType {
    /// The child one-shot.
    Children = 1,
    /// The data one-shot.
    Data = 2,
    /// All of them.
    Any = 3,
    /// The persistent one.
    Persistent = 4,
    /// The persistent recursive one.
    PersistentRecursive = 5,
}

impl WatcherType {
    /// The type of a number on the wire.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        [
            Self::Children,
            Self::Data,
            Self::Any,
            Self::Persistent,
            Self::PersistentRecursive,
        ]
        .into_iter()
        .find(|kind| *kind as i32 == code)
    }

    fn bits(self) -> u8 {
        match self {
            Self::Children => CHILD,
            Self::Data => DATA,
            Self::Any => ALL,
            Self::Persistent => PERSISTENT,
            Self::PersistentRecursive => RECURSIVE,
        }
    }
}

const DATA: u8 = 1;
const CHILD: u8 = 2;
const PERSISTENT: u8 = 4;
const RECURSIVE: u8 = 8;
const ALL: u8 = 15;
/// Watches that stand in Apache's data table, and in its child table.
const DATA_TABLE: u8 = DATA | PERSISTENT | RECURSIVE;
const CHILD_TABLE: u8 = CHILD | PERSISTENT;

/// Sizes, as `mntr` and `wchs` show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Connections with a watch.
    pub connections: usize,
    /// Paths with a watch.
    pub paths: usize,
    /// Pairs of connection and path in the data table.
    pub data_watches: usize,
    /// Pairs of connection and path in the child table.
    pub child_watches: usize,
}

impl WatchCounts {
    /// The `zk_watch_count` of `mntr`.
    #[must_use]
    pub fn total(&self) -> usize {
        self.data_watches + self.child_watches
    }
}

/// Who watches a path. One watcher is by far the most common case.
#[derive(Debug)]
enum Watchers {
    One(ConnId, u8),
    Many(BTreeMap<ConnId, u8>),
}

/// All watches of a server.
#[derive(Debug, Default)]
pub struct WatchManager {
    by_path: HashMap<Arc<str>, Watchers>,
    /// Exactly the paths a connection has bits at.
    by_conn: HashMap<ConnId, HashSet<Arc<str>>>,
    data_watches: usize,
    child_watches: usize,
    /// Pairs with a recursive watch; ancestors are looked at only if there are any.
    recursive: usize,
}

impl WatchManager {
    /// Nobody watches anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a watch; a second one of the same mode changes nothing.
    pub fn add(&mut self, path: &str, conn: ConnId, mode: WatchMode) {
        let bit = match mode {
            WatchMode::Data => DATA,
            WatchMode::Child => CHILD,
            WatchMode::Persistent => PERSISTENT,
            WatchMode::PersistentRecursive => RECURSIVE,
        };
        let before = self.bits(path, conn);
        if before & bit == 0 {
            self.set_bits(path, conn, before, before | bit);
        }
    }

    /// Removes watches and says whether there were any.
    pub fn remove(&mut self, path: &str, conn: ConnId, kind: WatcherType) -> bool {
        let before = self.bits(path, conn);
        let after = before & !kind.bits();
        if after != before {
            self.set_bits(path, conn, before, after);
        }
        after != before
    }

    /// Whether there is such a watch.
    #[must_use]
    pub fn contains(&self, path: &str, conn: ConnId, kind: WatcherType) -> bool {
        self.bits(path, conn) & kind.bits() != 0
    }

    /// Removes everything of a connection.
    pub fn remove_watcher(&mut self, conn: ConnId) {
        let Some(paths) = self.by_conn.remove(&conn) else {
            return;
        };
        for path in paths {
            let before = self.bits(&path, conn);
            self.count(before, 0);
            self.clear_at(&path, conn);
        }
    }

    /// Appends the connections to tell that `kind` happened at `path`, each once, and uses up their
    /// one-shots.
    pub fn trigger(&mut self, kind: EventKind, path: &str, out: &mut Vec<ConnId>) {
        let (told, used) = match kind {
            EventKind::Created | EventKind::DataChanged => (DATA_TABLE, DATA),
            EventKind::Deleted => (ALL, DATA | CHILD),
            EventKind::ChildrenChanged => (CHILD_TABLE, CHILD),
        };
        if self.by_path.is_empty() {
            return;
        }
        let first = out.len();
        self.trigger_at(path, told, used, out);
        if self.recursive > 0 && told & RECURSIVE != 0 {
            let mut at = path;
            while let Some(parent) = path::parent(at) {
                at = parent;
                match self.by_path.get(at) {
                    None => {}
                    Some(Watchers::One(conn, bits)) => {
                        out.extend((bits & RECURSIVE != 0).then_some(*conn));
                    }
                    Some(Watchers::Many(all)) => {
                        let recursive = all.iter().filter(|(_, bits)| **bits & RECURSIVE != 0);
                        out.extend(recursive.map(|(conn, _)| *conn));
                    }
                }
            }
            out[first..].sort_unstable_by_key(|conn| conn.0);
            dedup_from(out, first);
        }
    }

    /// Who watches each path, in the order of the paths: for people, and slow.
    #[must_use]
    pub fn by_path(&self) -> Vec<(String, Vec<ConnId>)> {
        let mut paths: Vec<_> = self
            .by_path
            .iter()
            .map(|(path, watchers)| {
                let conns = match watchers {
                    Watchers::One(conn, _) => vec![*conn],
                    Watchers::Many(all) => all.keys().copied().collect(),
                };
                (path.to_string(), conns)
            })
            .collect();
        paths.sort_unstable();
        paths
    }

    /// Sizes.
    #[must_use]
    pub fn counts(&self) -> WatchCounts {
        WatchCounts {
            connections: self.by_conn.len(),
            paths: self.by_path.len(),
            data_watches: self.data_watches,
            child_watches: self.child_watches,
        }
    }

    /// The part of a trigger that concerns the path itself: those with a bit of `told` are told and
    /// lose the bits of `used`.
    fn trigger_at(&mut self, path: &str, told: u8, used: u8, out: &mut Vec<ConnId>) {
        let first = out.len();
        let mut one_shots = false;
        match self.by_path.get(path) {
            None => return,
            Some(Watchers::One(conn, bits)) => {
                if bits & told != 0 {
                    out.push(*conn);
                    one_shots = bits & used != 0;
                }
            }
            Some(Watchers::Many(all)) => {
                for (conn, bits) in all {
                    if bits & told != 0 {
                        out.push(*conn);
                        one_shots |= bits & used != 0;
                    }
                }
            }
        }
        if !one_shots {
            return;
        }
        for &conn in &out[first..] {
            let before = self.bits(path, conn);
            if before & used != 0 {
                self.set_bits(path, conn, before, before & !used);
            }
        }
    }

    fn bits(&self, path: &str, conn: ConnId) -> u8 {
        match self.by_path.get(path) {
            Some(Watchers::One(one, bits)) if *one == conn => *bits,
            Some(Watchers::Many(all)) => all.get(&conn).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Replaces the bits of a pair, which were `before`, in both indexes and the counts.
    fn set_bits(&mut self, path: &str, conn: ConnId, before: u8, after: u8) {
        self.count(before, after);
        if after == 0 {
            self.clear_at(path, conn);
            if let Some(paths) = self.by_conn.get_mut(&conn) {
                paths.remove(path);
                if paths.is_empty() {
                    self.by_conn.remove(&conn);
                }
            }
            return;
        }
        if before == 0 {
            let shared = self.shared(path);
            self.by_conn
                .entry(conn)
                .or_default()
                .insert(Arc::clone(&shared));
            match self.by_path.get_mut(path) {
                None => {
                    self.by_path.insert(shared, Watchers::One(conn, after));
                }
                Some(watchers) => watchers.make_many().extend([(conn, after)]),
            }
            return;
        }
        match self.by_path.get_mut(path) {
            Some(Watchers::One(_, bits)) => *bits = after,
            Some(Watchers::Many(all)) => {
                all.insert(conn, after);
            }
            None => {}
        }
    }

    /// The one copy of a path that all its watches share.
    fn shared(&self, path: &str) -> Arc<str> {
        self.by_path
            .get_key_value(path)
            .map_or_else(|| Arc::from(path), |(key, _)| Arc::clone(key))
    }

    fn clear_at(&mut self, path: &str, conn: ConnId) {
        let empty = match self.by_path.get_mut(path) {
            None => return,
            Some(Watchers::One(one, _)) => *one == conn,
            Some(Watchers::Many(all)) => {
                all.remove(&conn);
                all.is_empty()
            }
        };
        if empty {
            self.by_path.remove(path);
        }
    }

    fn count(&mut self, before: u8, after: u8) {
        let step = |total: &mut usize, table: u8| {
            *total -= usize::from(before & table != 0);
            *total += usize::from(after & table != 0);
        };
        step(&mut self.data_watches, DATA_TABLE);
        step(&mut self.child_watches, CHILD_TABLE);
        step(&mut self.recursive, RECURSIVE);
    }
}

impl Watchers {
    fn make_many(&mut self) -> &mut BTreeMap<ConnId, u8> {
        if let Self::One(conn, bits) = self {
            *self = Self::Many(BTreeMap::from([(*conn, *bits)]));
        }
        match self {
            Self::Many(all) => all,
            Self::One(..) => unreachable!("made many just above"),
        }
    }
}

/// Removes repeated neighbours behind `first`.
fn dedup_from(out: &mut Vec<ConnId>, first: usize) {
    let mut kept = first;
    for at in first..out.len() {
        if kept == first || out[kept - 1] != out[at] {
            out[kept] = out[at];
            kept += 1;
        }
    }
    out.truncate(kept);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::prng::Prng;

    const MODES: [WatchMode; 4] = [
        WatchMode::Data,
        WatchMode::Child,
        WatchMode::Persistent,
        WatchMode::PersistentRecursive,
    ];

    /// Apache's two tables as plain sets of (path, connection, mode).
    #[derive(Default)]
    struct Twin {
        data: BTreeSet<(String, u64, u8)>,
        child: BTreeSet<(String, u64, u8)>,
    }

    const STANDARD: u8 = 0;
    const STAYS: u8 = 1;
    const BELOW: u8 = 2;

    impl Twin {
        fn add(&mut self, path: &str, conn: u64, mode: WatchMode) {
            let entry = |mode| (path.to_owned(), conn, mode);
            match mode {
                WatchMode::Data => self.data.insert(entry(STANDARD)),
                WatchMode::Child => self.child.insert(entry(STANDARD)),
                WatchMode::Persistent => {
                    self.child.insert(entry(STAYS));
                    self.data.insert(entry(STAYS))
                }
                WatchMode::PersistentRecursive => self.data.insert(entry(BELOW)),
            };
        }

        fn remove(&mut self, path: &str, conn: u64, kind: WatcherType) -> bool {
            let before = self.data.len() + self.child.len();
            let hit = |mode: u8, only: Option<u8>| only.is_none_or(|only| only == mode);
            let (data, child) = match kind {
                WatcherType::Children => (Some(99), Some(STANDARD)),
                WatcherType::Data => (Some(STANDARD), Some(99)),
                WatcherType::Any => (None, None),
                WatcherType::Persistent => (Some(STAYS), Some(STAYS)),
                WatcherType::PersistentRecursive => (Some(BELOW), Some(BELOW)),
            };
            self.data
                .retain(|(p, c, m)| p != path || *c != conn || !hit(*m, data));
            self.child
                .retain(|(p, c, m)| p != path || *c != conn || !hit(*m, child));
            self.data.len() + self.child.len() < before
        }

        fn table(set: &mut BTreeSet<(String, u64, u8)>, path: &str, told: &mut BTreeSet<u64>) {
            set.retain(|(p, conn, mode)| {
                let above = p == "/" || path.starts_with(&format!("{p}/"));
                if p == path || (above && *mode == BELOW) {
                    told.insert(*conn);
                }
                !(p == path && *mode == STANDARD)
            });
        }

        fn trigger(&mut self, kind: EventKind, path: &str) -> Vec<ConnId> {
            let mut told = BTreeSet::new();
            if kind != EventKind::ChildrenChanged {
                Self::table(&mut self.data, path, &mut told);
            }
            if matches!(kind, EventKind::ChildrenChanged | EventKind::Deleted) {
                Self::table(&mut self.child, path, &mut told);
            }
            told.into_iter().map(ConnId).collect()
        }

        fn counts(&self) -> WatchCounts {
            let pairs = |set: &BTreeSet<(String, u64, u8)>| -> BTreeSet<(String, u64)> {
                set.iter().map(|(p, c, _)| (p.clone(), *c)).collect()
            };
            let (data, child) = (pairs(&self.data), pairs(&self.child));
            let all: BTreeSet<_> = data.union(&child).cloned().collect();
            let paths: BTreeSet<_> = all.iter().map(|(path, _)| path).collect();
            let conns: BTreeSet<_> = all.iter().map(|(_, conn)| conn).collect();
            WatchCounts {
                connections: conns.len(),
                paths: paths.len(),
                data_watches: data.len(),
                child_watches: child.len(),
            }
        }
    }

    #[test]
    fn like_apaches_two_tables() {
        let paths = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/a/bb"];
        let kinds = [
            EventKind::Created,
            EventKind::Deleted,
            EventKind::DataChanged,
            EventKind::ChildrenChanged,
        ];
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let (mut watches, mut twin) = (WatchManager::new(), Twin::default());
            for step in 0..500 {
                let path = *prng.pick(&paths);
                let conn = prng.below(5);
                let kind = WatcherType::from_code(prng.between(1, 5) as i32).unwrap();
                match prng.below(8) {
                    0..=3 => {
                        let mode = *prng.pick(&MODES);
                        watches.add(path, ConnId(conn), mode);
                        twin.add(path, conn, mode);
                    }
                    4 => {
                        let removed = watches.remove(path, ConnId(conn), kind);
                        assert_eq!(removed, twin.remove(path, conn, kind), "seed {seed}.{step}");
                    }
                    5 if prng.one_in(4) => {
                        watches.remove_watcher(ConnId(conn));
                        twin.data.retain(|(_, c, _)| *c != conn);
                        twin.child.retain(|(_, c, _)| *c != conn);
                    }
                    _ => {
                        let event = *prng.pick(&kinds);
                        let mut told = vec![ConnId(77)];
                        watches.trigger(event, path, &mut told);
                        assert_eq!(told[0], ConnId(77), "what was there stays");
                        let expected = twin.trigger(event, path);
                        assert_eq!(told[1..], expected, "seed {seed}.{step} {event:?} {path}");
                    }
                }
                assert_eq!(watches.counts(), twin.counts(), "seed {seed}.{step}");
            }
        }
    }

    #[test]
    fn one_event_for_a_deleted_znode_with_both_one_shots() {
        let mut watches = WatchManager::new();
        for mode in MODES {
            watches.add("/a", ConnId(1), mode);
        }
        watches.add("/", ConnId(1), WatchMode::PersistentRecursive);
        watches.add("/", ConnId(2), WatchMode::Child);
        let mut told = vec![];
        watches.trigger(EventKind::Deleted, "/a", &mut told);
        assert_eq!(told, [ConnId(1)]);
        assert!(!watches.contains("/a", ConnId(1), WatcherType::Data));
        assert!(!watches.contains("/a", ConnId(1), WatcherType::Children));
        assert!(watches.contains("/a", ConnId(1), WatcherType::Persistent));
        told.clear();
        watches.trigger(EventKind::ChildrenChanged, "/", &mut told);
        assert_eq!(told, [ConnId(2)], "a recursive watch hears no child events");
    }

    #[test]
    fn many_watchers_of_one_path_are_told_once_and_leave_nothing() {
        let mut watches = WatchManager::new();
        for conn in (0..1000).rev() {
            watches.add("/lock", ConnId(conn), WatchMode::Data);
        }
        let mut told = vec![];
        watches.trigger(EventKind::DataChanged, "/lock", &mut told);
        assert_eq!(told, (0..1000).map(ConnId).collect::<Vec<_>>());
        assert_eq!(watches.counts(), WatchCounts::default());
        assert!(watches.by_path.is_empty() && watches.by_conn.is_empty());
    }

    #[test]
    fn numbers_of_watcher_types() {
        for code in [-1, 0, 6] {
            assert_eq!(WatcherType::from_code(code), None);
        }
        assert_eq!(WatcherType::from_code(3), Some(WatcherType::Any));
    }
}
