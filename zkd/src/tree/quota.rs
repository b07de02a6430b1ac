//! Quotas: limits on the count and bytes of a subtree, and the statistics kept of it.
//!
//! The quota of `P` is two znodes below `/zookeeper/quota` + `P`: `zookeeper_limits`, which clients
//! write, and `zookeeper_stats`, whose data the tree itself keeps up to date, without txns, versions
//! or watches. Whether a limit stops a write is the pipeline's to say. Counterpart: `Quotas`,
//! `StatsTrack`, `PathTrie`.

use std::fmt::Write;

use hashbrown::HashSet;

use super::DataTree;
use super::arena::{NONE, NodeId};
use crate::path;

/// Name of the znode with the limits.
pub const LIMITS: &str = "zookeeper_limits";
/// Name of the znode with the statistics.
pub const STATS: &str = "zookeeper_stats";

/// The numbers of a limits or stats znode; -1 is "not set", which as a limit means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaFigures {
    /// Znodes, the top of the subtree included.
    pub count: i64,
    /// Bytes of data.
    pub bytes: i64,
    /// Znodes, as a limit that refuses.
    pub count_hard: i64,
    /// Bytes, as a limit that refuses.
    pub bytes_hard: i64,
}

impl QuotaFigures {
    /// Nothing set.
    pub const NONE: Self = Self {
        count: -1,
        bytes: -1,
        count_hard: -1,
        bytes_hard: -1,
    };

    /// Reads `count=1,bytes=2=;byteHardLimit=3;countHardLimit=4`. What cannot be read is not set:
    /// clients may write anything there (in Apache such text stops the server's pipeline).
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut figures = Self::NONE;
        for pair in text.split(|byte| matches!(byte, b',' | b';')) {
            let mut parts = pair.split(|&byte| byte == b'=');
            let (key, value) = (parts.next(), parts.next());
            let figure = match key {
                Some(b"count") => &mut figures.count,
                Some(b"bytes") => &mut figures.bytes,
                Some(b"countHardLimit") => &mut figures.count_hard,
                Some(b"byteHardLimit") => &mut figures.bytes_hard,
                _ => continue,
            };
            *figure = value
                .and_then(|value| std::str::from_utf8(value).ok())
                .and_then(|value| value.parse().ok())
                .unwrap_or(-1);
        }
        figures
    }

    /// The text Apache writes. The `=` before the hard limits makes parsers that do not know them
    /// stop there.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("count={},bytes={}", self.count, self.bytes);
        if self.bytes_hard != -1 || self.count_hard != -1 {
            text.push('=');
        }
        for (key, value) in [
            ("byteHardLimit", self.bytes_hard),
            ("countHardLimit", self.count_hard),
        ] {
            if value != -1 {
                write!(text, ";{key}={value}").expect("writing to a String cannot fail");
            }
        }
        text
    }
}

/// The quota a path falls under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The top of the subtree.
    pub path: String,
    /// What is allowed.
    pub limits: QuotaFigures,
    /// What is used, by the stats znode ([`QuotaFigures::NONE`] if that is missing).
    pub used: QuotaFigures,
}

/// The paths with a `zookeeper_limits` znode.
pub(super) type QuotaPaths = HashSet<Box<str>>;

/// The subtree that a quota znode called `name` below `parent` is about. The quota directory itself
/// names none (a limit there stops Apache's pipeline; here it is just a znode).
fn quota_target<'a>(parent: &'a str, name: &str, wanted: &str) -> Option<&'a str> {
    let target = parent.strip_prefix(path::QUOTA)?;
    (name == wanted && target.starts_with('/')).then_some(target)
}

impl DataTree {
    /// The quota that `path` falls under: that of the deepest ancestor, or of the path itself.
    #[must_use]
    pub fn quota(&self, path: &str) -> Option<Quota> {
        let top = self.quota_top(path)?;
        let figures = |name| {
            self.arena
                .lookup(&format!("{}{top}/{name}", path::QUOTA))
                .and_then(|id| self.arena.data(id))
                .map_or(QuotaFigures::NONE, QuotaFigures::parse)
        };
        Some(Quota {
            path: top.to_owned(),
            limits: figures(LIMITS),
            used: figures(STATS),
        })
    }

    fn quota_top<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.quotas.is_empty() {
            return None;
        }
        let mut at = path;
        while at.len() > 1 {
            if self.quotas.contains(at) {
                return Some(at);
            }
            at = path::parent(at)?;
        }
        None
    }

    /// A znode was created: registers or measures if it is a quota's, and counts it.
    pub(super) fn quota_created(&mut self, parent: &str, name: &str, path: &str, bytes: i64) {
        if let Some(target) = quota_target(parent, name, LIMITS) {
            self.quotas.insert(target.into());
        }
        if let Some(target) = quota_target(parent, name, STATS) {
            self.measure_quota(target);
        }
        self.quota_changed(path, 1, bytes);
    }

    /// A znode was deleted.
    pub(super) fn quota_deleted(&mut self, parent: &str, name: &str, path: &str, bytes: i64) {
        if let Some(target) = quota_target(parent, name, LIMITS) {
            self.quotas.remove(target);
        }
        self.quota_changed(path, -1, -bytes);
    }

    /// Adds to the statistics that `path` falls under.
    pub(super) fn quota_changed(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(top) = self.quota_top(path) else {
            return;
        };
        let Some(stats) = self.arena.lookup(&format!("{}{top}/{STATS}", path::QUOTA)) else {
            return;
        };
        let mut figures = QuotaFigures::parse(self.arena.data(stats).unwrap_or_default());
        figures.count = figures.count.wrapping_add(count);
        figures.bytes = figures.bytes.wrapping_add(bytes);
        self.write_stats(stats, &figures);
    }

    /// Counts a subtree afresh and writes that to its stats znode, if there is one.
    fn measure_quota(&mut self, target: &str) {
        let Some(stats) = self
            .arena
            .lookup(&format!("{}{target}/{STATS}", path::QUOTA))
        else {
            return;
        };
        let (mut count, mut bytes) = (0, 0);
        if let Some(top) = self.arena.lookup(target) {
            self.arena.for_each_in(top, |arena, id| {
                count += 1;
                bytes += arena.data(id).map_or(0, |data| data.len() as i64);
            });
        }
        let figures = QuotaFigures {
            count,
            bytes,
            ..QuotaFigures::NONE
        };
        self.write_stats(stats, &figures);
    }

    /// Stats znodes are outside the digest, so nothing else is to be kept up.
    fn write_stats(&mut self, stats: NodeId, figures: &QuotaFigures) {
        self.arena
            .set_data(stats, Some(figures.to_text().as_bytes()));
    }

    /// After loading: finds all limits, and measures all their subtrees, since a fuzzy snapshot may
    /// hold statistics of another moment than the znodes.
    pub(super) fn setup_quotas(&mut self) {
        self.quotas.clear();
        let Some(top) = self.arena.lookup(path::QUOTA) else {
            return;
        };
        let mut targets = Vec::new();
        self.arena.for_each_in(top, |arena, id| {
            if arena.get(id).first_child == NONE && arena.name(id) == LIMITS {
                let mut path = String::new();
                arena.push_path(id, &mut path);
                let parent = path::parent(&path).unwrap_or_default();
                targets.extend(quota_target(parent, LIMITS, LIMITS).map(str::to_owned));
            }
        });
        for target in targets {
            self.measure_quota(&target);
            self.quotas.insert(target.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{create, delete, set_data};
    use super::*;
    use crate::tree::{SnapshotCursor, SnapshotLoader};

    #[test]
    fn texts_as_apache_writes_and_reads_them() {
        for (text, figures) in [
            ("count=1,bytes=2", [1, 2, -1, -1]),
            ("count=-1,bytes=2=;byteHardLimit=3", [-1, 2, -1, 3]),
            (
                "count=1,bytes=2=;byteHardLimit=3;countHardLimit=4",
                [1, 2, 4, 3],
            ),
        ] {
            let [count, bytes, count_hard, bytes_hard] = figures;
            let figures = QuotaFigures {
                count,
                bytes,
                count_hard,
                bytes_hard,
            };
            assert_eq!(QuotaFigures::parse(text.as_bytes()), figures, "{text}");
            assert_eq!(figures.to_text(), text);
        }
        for text in ["", "count", "count=,,;;bytes=x", "\u{ff}=;=;", "count="] {
            assert_eq!(
                QuotaFigures::parse(text.as_bytes()),
                QuotaFigures::NONE,
                "{text}"
            );
        }
    }

    fn tree_with_quota() -> DataTree {
        let mut tree = DataTree::new();
        for path in ["/q", "/q/a", "/other", "/zookeeper/quota/q"] {
            create(&mut tree, path, b"12345");
        }
        create(
            &mut tree,
            "/zookeeper/quota/q/zookeeper_limits",
            b"count=9,bytes=90",
        );
        create(
            &mut tree,
            "/zookeeper/quota/q/zookeeper_stats",
            b"count=0,bytes=0",
        );
        tree
    }

    fn used(tree: &DataTree) -> &[u8] {
        let stats = tree.node("/zookeeper/quota/q/zookeeper_stats").unwrap();
        let stat = stats.stat();
        assert_eq!((stat.version, stat.mzxid), (0, stat.czxid), "silently");
        stats.data().unwrap()
    }

    #[test]
    fn statistics_follow_the_subtree() {
        let mut tree = tree_with_quota();
        assert_eq!(used(&tree), b"count=2,bytes=10");
        create(&mut tree, "/q/a/b", b"123");
        create(&mut tree, "/qq", b"not below");
        assert_eq!(used(&tree), b"count=3,bytes=13");
        set_data(&mut tree, "/q", b"");
        set_data(&mut tree, "/other", b"");
        assert_eq!(used(&tree), b"count=3,bytes=8");
        delete(&mut tree, "/q/a/b");
        assert_eq!(used(&tree), b"count=2,bytes=5");
        let quota = tree.quota("/q/a/anything").unwrap();
        assert_eq!(
            (&*quota.path, quota.limits.count, quota.used.bytes),
            ("/q", 9, 5)
        );
        assert_eq!(tree.quota("/qq"), None);
        delete(&mut tree, "/zookeeper/quota/q/zookeeper_limits");
        assert_eq!(tree.quota("/q"), None);
        create(&mut tree, "/q/c", b"123");
        assert_eq!(used(&tree), b"count=2,bytes=5");
    }

    #[test]
    fn the_deepest_quota_counts() {
        let mut tree = tree_with_quota();
        create(&mut tree, "/zookeeper/quota/q/a", b"");
        create(
            &mut tree,
            "/zookeeper/quota/q/a/zookeeper_limits",
            b"count=1",
        );
        create(&mut tree, "/q/a/b", b"123");
        assert_eq!(
            used(&tree),
            b"count=2,bytes=10",
            "it went to the quota of /q/a"
        );
        let quota = tree.quota("/q/a/b").unwrap();
        assert_eq!((&*quota.path, quota.used), ("/q/a", QuotaFigures::NONE));
    }

    #[test]
    fn loading_finds_and_measures_quotas() {
        let mut tree = tree_with_quota();
        // As a fuzzy snapshot would show it: statistics of another moment.
        let stats = tree.arena.lookup("/zookeeper/quota/q/zookeeper_stats");
        tree.arena
            .set_data(stats.unwrap(), Some(b"count=77,bytes=7"));
        let mut body = vec![];
        assert!(SnapshotCursor::new().next_chunk(&tree, &mut body, usize::MAX));
        let mut loader = SnapshotLoader::new();
        assert!(loader.feed(&body).unwrap().done);
        let mut tree = loader.finish().unwrap();
        assert_eq!(used(&tree), b"count=2,bytes=10");
        create(&mut tree, "/q/z", b"1");
        assert_eq!(used(&tree), b"count=3,bytes=11");
    }

    /// Each of these stops Apache's pipeline; the pipeline refuses them, a log may still hold them.
    #[test]
    fn poisonous_quota_znodes_are_just_znodes() {
        let mut tree = DataTree::new();
        create(&mut tree, "/zookeeper/quota/zookeeper_limits", b"count=1");
        create(&mut tree, "/zookeeper/quota/zookeeper_stats", b"");
        create(&mut tree, "/zookeeper/zookeeper_limits", b"");
        create(&mut tree, "/zookeeper/quotax", b"");
        create(&mut tree, "/zookeeper/quotax/zookeeper_limits", b"");
        create(&mut tree, "/a", b"1");
        assert_eq!(tree.quota("/a"), None);
        delete(&mut tree, "/zookeeper/quota/zookeeper_limits");
        delete(&mut tree, "/zookeeper/zookeeper_limits");
        delete(&mut tree, "/zookeeper/quotax/zookeeper_limits");
        delete(&mut tree, "/zookeeper/quota");
        create(&mut tree, "/b", b"1");
    }

    /// Text that is no quota, and statistics that are missing.
    #[test]
    fn limits_without_statistics_or_sense() {
        let mut tree = DataTree::new();
        create(&mut tree, "/zookeeper/quota/a", b"");
        create(
            &mut tree,
            "/zookeeper/quota/a/zookeeper_limits",
            b"\xff\xfe=count",
        );
        create(&mut tree, "/a", b"123");
        let quota = tree.quota("/a").unwrap();
        assert_eq!(
            (quota.limits, quota.used),
            (QuotaFigures::NONE, QuotaFigures::NONE)
        );
        create(&mut tree, "/zookeeper/quota/a/zookeeper_stats", b"nonsense");
        assert_eq!(tree.quota("/a").unwrap().used.count, 1);
        set_data(&mut tree, "/zookeeper/quota/a/zookeeper_stats", b"nonsense");
        create(&mut tree, "/a/b", b"123");
        assert_eq!(tree.quota("/a").unwrap().used.count, 0);
    }
}
