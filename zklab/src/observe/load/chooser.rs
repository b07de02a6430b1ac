//! What a client asks next: from its own chance, and from the versions that it has seen.

use std::collections::HashMap;

use zkd::prng::Prng;

use super::ask::{Ask, AskPart};
use super::mix::Work;
use crate::observe::history::Kind;

/// Registers; they are made at the beginning and never deleted.
pub(super) const REGISTERS: u64 = 16;
/// Pairs that are only ever set together.
pub(super) const PAIRS: u64 = 4;
/// Places for znodes that come and go, and for ephemerals.
const PLACES: u64 = 8;

/// So many registers have only watches that stay.
const LASTING: u64 = 4;

/// The directory on which this client has no watch but one that stays.
fn dir_of(number: u32) -> &'static str {
    ["r", "e", "s", "n"][number as usize % 4]
}

/// Chooses for one client.
#[derive(Debug)]
pub(super) struct Chooser {
    pub(super) prng: Prng,
    root: String,
    /// The versions it saw last, for compare-and-set.
    versions: HashMap<String, i32>,
    /// The number of a client that can have watches that stay.
    stays: Option<u32>,
}

impl Chooser {
    pub(super) fn new(prng: Prng, root: String) -> Self {
        Self {
            prng,
            root,
            versions: HashMap::new(),
            stays: None,
        }
    }

    /// Watches that stay, too, for a client of this number.
    pub(super) fn with_lasting_watches(mut self, number: u32) -> Self {
        self.stays = Some(number);
        self
    }

    /// An answer showed this version.
    pub(super) fn saw(&mut self, path: String, version: i32) {
        self.versions.insert(path, version);
    }

    fn place(&mut self, dir: &str, count: u64) -> String {
        format!("{}/{dir}/{}", self.root, self.prng.below(count))
    }

    pub(super) fn register(&mut self) -> String {
        self.place("r", REGISTERS)
    }

    /// Any znode that is read.
    fn anything(&mut self) -> String {
        match self.prng.below(8) {
            0 => self.place("n", PLACES),
            1 => self.place("e", PLACES),
            2 => {
                let half = *self.prng.pick(&["a", "b"]);
                format!("{}-{half}", self.place("m", PAIRS))
            }
            _ => self.register(),
        }
    }

    pub(super) fn choose(&mut self, work: Work) -> Ask {
        match work {
            Work::Set if self.prng.one_in(4) => Ask::new(Kind::Set, self.place("n", PLACES)),
            Work::Set => Ask::new(Kind::Set, self.register()),
            Work::Cas => {
                let mut ask = Ask::new(Kind::Set, self.register());
                ask.expected = self.versions.get(&ask.path).copied().unwrap_or(0);
                ask
            }
            Work::Get => Ask::new(Kind::Get, self.anything()),
            Work::Watch => self.watch(),
            Work::Create => Ask::new(Kind::Create, self.place("n", PLACES)),
            Work::Delete => {
                let dir = if self.prng.one_in(4) { "e" } else { "n" };
                Ask::new(Kind::Delete, self.place(dir, PLACES))
            }
            // What a sequential create did can be told at the end, whatever became of its answer.
            Work::Seq | Work::Move => {
                let mut ask = Ask::new(Kind::Create, format!("{}/s/q-", self.root));
                ask.sequential = true;
                ask
            }
            Work::Ephemeral => {
                let mut ask = Ask::new(Kind::Create, self.place("e", PLACES));
                ask.ephemeral = true;
                ask
            }
            Work::Multi => self.multi(),
            Work::Sync => Ask::new(Kind::Sync, self.root.clone()),
        }
    }

    /// Any kind of watch.
    ///
    /// Apache ZooKeeper before 3.9 keeps one kind of watch for a znode and a connection, so that one that fires once ends
    /// one that stays (ZOOKEEPER-4466). The two are kept apart: the last registers have only watches that stay, and so
    /// has one of the directories; it is another for another client.
    fn watch(&mut self) -> Ask {
        let own = self.stays.map(dir_of);
        let kind = match (self.prng.below(9), own) {
            (0, Some(_)) => Kind::Persistent,
            (1, Some(_)) => Kind::Recursive,
            (0..4, _) => Kind::Children,
            (4..6, _) => Kind::Exists,
            _ => Kind::Get,
        };
        let path = match kind {
            Kind::Persistent => {
                let lasting = REGISTERS - self.prng.below(LASTING) - 1;
                format!("{}/r/{lasting}", self.root)
            }
            Kind::Recursive => format!("{}/{}", self.root, own.unwrap_or("r")),
            Kind::Children => {
                let dir = *self.prng.pick(&["n", "e"]);
                format!("{}/{dir}", self.root)
            }
            Kind::Exists => {
                let dir = *self.prng.pick(&["n", "e"]);
                self.place(dir, PLACES)
            }
            _ => self.anything(),
        };
        let mut ask = Ask::new(kind, path);
        ask.watch = !self.is_for_lasting(&ask) && kind.is_read();
        ask
    }

    /// Is this read of a znode that has only watches that stay?
    fn is_for_lasting(&self, ask: &Ask) -> bool {
        let Some(number) = self.stays else {
            return false;
        };
        let inside = ask.path.strip_prefix(&self.root).unwrap_or_default();
        match ask.kind {
            Kind::Children => inside.strip_prefix('/') == Some(dir_of(number)),
            _ => inside
                .strip_prefix("/r/")
                .and_then(|place| place.parse::<u64>().ok())
                .is_some_and(|place| place >= REGISTERS - LASTING),
        }
    }

    fn multi(&mut self) -> Ask {
        let pair = self.place("m", PAIRS);
        let part = |kind, path: String, expected| AskPart {
            kind,
            path,
            expected,
            version: -1,
        };
        let mut ask = Ask::new(Kind::Multi, "");
        ask.parts = vec![
            part(Kind::Set, format!("{pair}-a"), -1),
            part(Kind::Set, format!("{pair}-b"), -1),
        ];
        if self.prng.one_in(4) {
            // No register ever has this version: nothing of the multi may happen.
            ask.parts.push(part(Kind::Check, self.register(), i32::MAX));
        }
        ask
    }
}
