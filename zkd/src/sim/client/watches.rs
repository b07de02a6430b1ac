//! The watches of one client, and what they promise: an event comes before any answer that shows the
//! change, once for each one-shot watch, once for each change for a persistent one, and to nobody who did
//! not ask. The promise holds over reconnects, because the client registers its watches again.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Zxid;
use crate::record::proto::SetWatches2;

/// Kinds of events, as the wire has them.
const CREATED: i32 = 1;
const DELETED: i32 = 2;
const DATA_CHANGED: i32 = 3;
const CHILDREN_CHANGED: i32 = 4;

/// What a client watches.
#[derive(Debug, Default)]
pub(super) struct WatchBook {
    /// One-shot watches on existing nodes, with the mzxid that the arming read showed.
    data: BTreeMap<String, Zxid>,
    /// One-shot watches on missing nodes.
    exist: BTreeSet<String>,
    /// One-shot watches on children, with the pzxid that the arming read showed.
    child: BTreeMap<String, Zxid>,
    persistent: BTreeMap<String, Lasting>,
    recursive: BTreeMap<String, Lasting>,
}

/// A persistent watch.
#[derive(Debug, Default)]
struct Lasting {
    /// Every change behind this zxid must be told; `None` until the registration was answered.
    since: Option<Zxid>,
    /// The newest event of each path, by zxid and kind.
    newest: BTreeMap<String, (Zxid, i32)>,
}

impl Lasting {
    /// Notes an event. False if it was told before.
    fn is_new(&mut self, path: &str, kind: i32, zxid: Zxid) -> bool {
        if zxid == Zxid::NONE {
            // What setWatches catches up with has no zxid.
            return true;
        }
        let before = self.newest.insert(path.to_owned(), (zxid, kind));
        before.is_none_or(|(at, of)| zxid > at || (zxid == at && kind != of))
    }

    fn missed(&self, path: &str, mzxid: Zxid) -> bool {
        let told = self.newest.get(path).map_or(Zxid::ZERO, |(zxid, _)| *zxid);
        self.since.is_some_and(|since| mzxid > since) && told < mzxid
    }
}

impl WatchBook {
    /// A read with a data watch found the node.
    pub(super) fn arm_data(&mut self, path: &str, mzxid: Zxid) {
        self.data.entry(path.to_owned()).or_insert(mzxid);
    }

    /// An exists with a watch found nothing.
    pub(super) fn arm_exist(&mut self, path: &str) {
        self.exist.insert(path.to_owned());
    }

    /// A list with a watch was answered.
    pub(super) fn arm_child(&mut self, path: &str, pzxid: Zxid) {
        self.child.entry(path.to_owned()).or_insert(pzxid);
    }

    /// addWatch was answered: from `since` on every change is told.
    pub(super) fn arm_lasting(&mut self, path: &str, recursive: bool, since: Zxid) {
        let watch = self.lasting_mut(recursive).entry(path.to_owned());
        watch.or_default().since.get_or_insert(since);
    }

    fn lasting_mut(&mut self, recursive: bool) -> &mut BTreeMap<String, Lasting> {
        if recursive {
            &mut self.recursive
        } else {
            &mut self.persistent
        }
    }

    /// The connection ended: persistent watches miss what happens until they are registered again.
    pub(super) fn disconnected(&mut self) {
        let lasting = self
            .persistent
            .values_mut()
            .chain(self.recursive.values_mut());
        for watch in lasting {
            watch.since = None;
        }
    }

    /// The registration of everything after a reconnect was answered.
    pub(super) fn registered(&mut self, zxid: Zxid) {
        let lasting = self
            .persistent
            .values_mut()
            .chain(self.recursive.values_mut());
        for watch in lasting {
            watch.since.get_or_insert(zxid);
        }
    }

    /// What to register after a reconnect, if anything.
    pub(super) fn registration(&self, relative_zxid: Zxid) -> Option<SetWatches2> {
        let request = SetWatches2 {
            relative_zxid,
            data: self.data.keys().cloned().collect(),
            exist: self.exist.iter().cloned().collect(),
            child: self.child.keys().cloned().collect(),
            persistent: self.persistent.keys().cloned().collect(),
            recursive: self.recursive.keys().cloned().collect(),
        };
        let lists = [
            &request.data,
            &request.exist,
            &request.child,
            &request.persistent,
            &request.recursive,
        ];
        let any = lists.iter().any(|list| !list.is_empty());
        any.then_some(request)
    }

    /// An event came. Gives what is wrong with it, if anything.
    pub(super) fn on_event(&mut self, kind: i32, path: &str, zxid: Zxid) -> Option<String> {
        let mut asked = false;
        if matches!(kind, CREATED | DELETED | DATA_CHANGED) {
            asked |= self.data.remove(path).is_some();
            asked |= self.exist.remove(path);
        }
        if matches!(kind, DELETED | CHILDREN_CHANGED) {
            asked |= self.child.remove(path).is_some();
        }
        let recursive = self
            .recursive
            .iter_mut()
            .filter(|(root, _)| kind != CHILDREN_CHANGED && is_below(path, root))
            .map(|(_, watch)| watch);
        let lasting = self.persistent.get_mut(path).into_iter().chain(recursive);
        let (mut watched, mut repeated) = (false, false);
        for watch in lasting {
            watched = true;
            repeated |= !watch.is_new(path, kind, zxid);
        }
        if repeated {
            return Some(format!("event {kind} of {path} at {zxid} came twice"));
        }
        (!asked && !watched)
            .then(|| format!("event {kind} of {path} at {zxid}, which is not watched"))
    }

    /// A read shows a node that was last changed at `mzxid`. Gives what a watch should have told.
    pub(super) fn on_found(&self, path: &str, mzxid: Zxid) -> Option<String> {
        if let Some(armed) = self.data.get(path).filter(|armed| mzxid > **armed) {
            return Some(format!(
                "{path} at {mzxid}, its watch from {armed} did not fire"
            ));
        }
        if self.exist.contains(path) {
            return Some(format!("{path} is there and the watch for it did not fire"));
        }
        let recursive = self
            .recursive
            .iter()
            .filter(|(root, _)| is_below(path, root));
        let persistent = self.persistent.get(path).into_iter();
        persistent
            .chain(recursive.map(|(_, watch)| watch))
            .any(|watch| watch.missed(path, mzxid))
            .then(|| format!("{path} at {mzxid}, its persistent watch said nothing"))
    }

    /// A read shows that there is no such node.
    pub(super) fn on_missing(&self, path: &str) -> Option<String> {
        (self.data.contains_key(path) || self.child.contains_key(path))
            .then(|| format!("{path} is gone and its watch did not fire"))
    }

    /// A list shows children that last changed at `pzxid`.
    pub(super) fn on_listed(&self, path: &str, pzxid: Zxid) -> Option<String> {
        let armed = self.child.get(path).filter(|armed| pzxid > **armed)?;
        Some(format!(
            "the children of {path} at {pzxid}, their watch from {armed} did not fire"
        ))
    }
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_shot_watch_fires_once() {
        let mut book = WatchBook::default();
        book.arm_data("/a", Zxid(5));
        assert_eq!(book.on_found("/a", Zxid(5)), None);
        assert!(book.on_found("/a", Zxid(6)).is_some());
        assert!(book.on_missing("/a").is_some());
        assert_eq!(book.on_event(DATA_CHANGED, "/a", Zxid(6)), None);
        assert_eq!(book.on_found("/a", Zxid(6)), None);
        assert!(book.on_event(DATA_CHANGED, "/a", Zxid(7)).is_some());
    }

    #[test]
    fn a_persistent_watch_tells_every_change_but_what_happened_while_away() {
        let mut book = WatchBook::default();
        book.arm_lasting("/a", true, Zxid(5));
        assert!(book.on_found("/a/b", Zxid(6)).is_some());
        assert_eq!(book.on_event(CREATED, "/a/b", Zxid(6)), None);
        assert!(book.on_event(CREATED, "/a/b", Zxid(6)).is_some());
        assert!(book.on_event(CREATED, "/ab", Zxid(7)).is_some());
        assert_eq!(book.on_found("/a/b", Zxid(6)), None);
        book.disconnected();
        assert_eq!(book.on_found("/a/b", Zxid(9)), None);
        book.registered(Zxid(9));
        assert!(book.on_found("/a/b", Zxid(10)).is_some());
    }
}
