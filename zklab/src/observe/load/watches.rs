//! The watches that a client has, as it has to know them to leave them again over another connection.

use std::collections::BTreeSet;

use zkd::ids::Zxid;

use super::ask::{Ask, AskPart};
use crate::observe::history::{Happened, Kind};

/// Watches by what left them, and their znodes.
#[derive(Debug, Default)]
pub(super) struct Watches {
    left: BTreeSet<(Left, String)>,
}

/// What left a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Data,
    Exist,
    Child,
    Persistent,
    Recursive,
}

impl Left {
    fn kind(self) -> Kind {
        match self {
            Self::Data => Kind::Get,
            Self::Exist => Kind::Exists,
            Self::Child => Kind::Children,
            Self::Persistent => Kind::Persistent,
            Self::Recursive => Kind::Recursive,
        }
    }
}

impl Watches {
    /// A request was answered; `found` says whether the znode was there.
    pub(super) fn answered(&mut self, ask: &Ask, found: bool) {
        let left = match (ask.kind, found) {
            (Kind::Get | Kind::Exists, true) if ask.watch => Left::Data,
            (Kind::Exists, false) if ask.watch => Left::Exist,
            (Kind::Children, true) if ask.watch => Left::Child,
            (Kind::Persistent, true) => Left::Persistent,
            (Kind::Recursive, true) => Left::Recursive,
            _ => return,
        };
        self.left.insert((left, ask.path.clone()));
    }

    /// An event came: the watches that it was for are gone, but for those that stay.
    pub(super) fn fired(&mut self, what: Happened, path: &str) {
        let gone: &[Left] = match what {
            Happened::Created | Happened::Changed => &[Left::Data, Left::Exist],
            Happened::Children => &[Left::Child],
            Happened::Deleted => &[Left::Data, Left::Exist, Left::Child],
        };
        for left in gone {
            self.left.remove(&(*left, path.to_owned()));
        }
    }

    /// The session is over, and all watches with it.
    pub(super) fn clear(&mut self) {
        self.left.clear();
    }

    /// The request that leaves them again; none if there is none.
    pub(super) fn again(&self, seen: Zxid) -> Option<Ask> {
        let parts = self.left.iter().map(|(left, path)| AskPart {
            kind: left.kind(),
            path: path.clone(),
            expected: -1,
            version: -1,
        });
        let mut ask = Ask::new(Kind::Rewatch, "");
        ask.parts = parts.collect();
        ask.rel = seen;
        (!ask.parts.is_empty()).then_some(ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(watches: &Watches) -> Vec<(Kind, String)> {
        let again = watches.again(Zxid(5));
        let parts = again.into_iter().flat_map(|ask| ask.parts);
        parts.map(|part| (part.kind, part.path)).collect()
    }

    #[test]
    fn what_fired_is_gone_and_what_stays_is_left_again() {
        let mut watches = Watches::default();
        let asked = |kind, path: &str| {
            let mut ask = Ask::new(kind, path);
            ask.watch = true;
            ask
        };
        watches.answered(&asked(Kind::Get, "/a"), true);
        watches.answered(&asked(Kind::Get, "/b"), false);
        watches.answered(&asked(Kind::Exists, "/b"), false);
        watches.answered(&asked(Kind::Children, "/c"), true);
        watches.answered(&asked(Kind::Recursive, "/c"), true);
        watches.answered(&Ask::new(Kind::Get, "/d"), true);
        let all = [
            (Kind::Get, "/a"),
            (Kind::Exists, "/b"),
            (Kind::Children, "/c"),
            (Kind::Recursive, "/c"),
        ];
        let owned = |some: &[(Kind, &str)]| -> Vec<(Kind, String)> {
            some.iter()
                .map(|(kind, path)| (*kind, (*path).to_owned()))
                .collect()
        };
        assert_eq!(left(&watches), owned(&all));
        watches.fired(Happened::Changed, "/a");
        watches.fired(Happened::Created, "/b");
        watches.fired(Happened::Changed, "/c");
        assert_eq!(left(&watches), owned(&all[2..]));
        watches.fired(Happened::Deleted, "/c");
        assert_eq!(left(&watches), owned(&all[3..]));
        watches.clear();
        assert!(watches.again(Zxid(5)).is_none());
    }
}
