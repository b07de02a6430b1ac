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
