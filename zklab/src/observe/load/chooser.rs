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

/// Chooses for one client.
#[derive(Debug)]
pub(super) struct Chooser {
    pub(super) prng: Prng,
    root: String,
    /// The versions it saw last, for compare-and-set.
    versions: HashMap<String, i32>,
}

impl Chooser {
    pub(super) fn new(prng: Prng, root: String) -> Self {
        Self {
            prng,
            root,
            versions: HashMap::new(),
        }
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
            Work::Watch => {
                let kind = *self.prng.pick(&[Kind::Get, Kind::Exists]);
                let mut ask = Ask::new(kind, self.anything());
                ask.watch = true;
                ask
            }
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
