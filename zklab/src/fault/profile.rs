//! Link profiles: how all links of a lab are, in a few lines of TOML.
//!
//! The nodes are dealt out in turn to `sites` sites. `within` says how links inside a site are, `between` those
//! between sites, and `pair` what is different between two of them. The words are those of `link set`:
//!
//! ```toml
//! sites = 2
//! within = { delay = "250us" }
//! between = { delay = "20ms", jitter = "1ms", loss = "0.01%" }
//! pair = [{ sites = [1, 2], link = { rate = "10mbit", queue = "64k" } }]
//! ```

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::change::{self, LinkChange};
use crate::clock::duration;
use crate::failure::{Failure, nearest};
use crate::net::matrix::Matrix;

/// The profiles that need no file, with their text.
const KNOWN: [(&str, &str); 3] = [
    ("lan", include_str!("profiles/lan.toml")),
    ("wan3", include_str!("profiles/wan3.toml")),
    ("lossy", include_str!("profiles/lossy.toml")),
];

/// Every key that a profile may have somewhere.
const KEYS: [&str; 14] = [
    "sites", "within", "between", "pair", "link", "delay", "jitter", "loss", "burst", "dup",
    "reorder", "corrupt", "rate", "queue",
];

/// How all links of a lab are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name, or its file's.
    pub name: String,
    sites: usize,
    within: LinkChange,
    between: LinkChange,
    /// Between these two sites, counted from 0.
    pairs: Vec<(usize, usize, LinkChange)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sites: Option<Spanned<usize>>,
    #[serde(default)]
    within: Words,
    #[serde(default)]
    between: Words,
    #[serde(default)]
    pair: Vec<PairWords>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PairWords {
    sites: Spanned<[usize; 2]>,
    link: Words,
}

type Word = Option<Spanned<String>>;

/// A link as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Words {
    delay: Word,
    jitter: Word,
    loss: Word,
    burst: Word,
    dup: Word,
    reorder: Word,
    corrupt: Word,
    rate: Word,
    queue: Word,
}

/// What is wrong, and at which byte.
type Wrong = (usize, String);

fn read<T, E: Display>(
    word: &Word,
    reader: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Wrong> {
    let Some(word) = word else {
        return Ok(None);
    };
    match reader(word.get_ref()) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err((word.span().start, error.to_string())),
    }
}

impl Words {
    fn change(&self) -> Result<LinkChange, Wrong> {
        let us = |text: &str| {
            duration(text).map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        };
        Ok(LinkChange {
            delay_us: read(&self.delay, us)?,
            jitter_us: read(&self.jitter, us)?,
            loss: read(&self.loss, change::chance)?,
            burst: read(&self.burst, change::burst)?,
            duplicate: read(&self.dup, change::chance)?,
            reorder: read(&self.reorder, change::chance)?,
            corrupt: read(&self.corrupt, change::chance)?,
            rate_bps: read(&self.rate, change::rate)?,
            queue_bytes: read(&self.queue, change::size)?,
        })
    }
}

impl Profile {
    /// The profile of this name, or in this file.
    ///
    /// # Errors
    /// If there is neither, or the file makes no sense; names file and line.
    pub fn open(word: &str) -> Result<Self, Failure> {
        if let Some((name, text)) = KNOWN.iter().find(|(name, _)| *name == word) {
            return Self::parse(name, text);
        }
        match std::fs::read_to_string(word) {
            Ok(text) => Self::parse(word, &text),
            Err(error) => {
                let names = KNOWN.map(|(name, _)| name);
                let guess = nearest(word, names)
                    .map(|name| format!("; did you mean {name}?"))
                    .unwrap_or_default();
                Err(Failure::usage(format!(
                    "there is no link profile {word:?} ({error}){guess}"
                ))
                .hint(format!("{}, or a TOML file", names.join(", "))))
            }
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        Self::of_text(name, text).map_err(|(at, cause)| {
            let before = text.as_bytes().get(..at).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            Failure::usage(format!("{name}:{line}: {cause}"))
                .hint("keys: sites, within, between, pair; links have the words of `link set`")
        })
    }

    fn of_text(name: &str, text: &str) -> Result<Self, Wrong> {
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (at, with_guess(error.message()))
        })?;
        let sites = file.sites.as_ref().map_or(1, |sites| *sites.get_ref());
        if !(1..=250).contains(&sites) {
            let at = file.sites.map_or(0, |sites| sites.span().start);
            return Err((at, format!("{sites} is not a number of sites, from 1 on")));
        }
        let mut pairs = Vec::new();
        for pair in &file.pair {
            let [a, b] = *pair.sites.get_ref();
            let is_site = |site: usize| (1..=sites).contains(&site);
            if a == b || !is_site(a) || !is_site(b) {
                let cause = format!("{a} and {b} are not two of the sites 1 to {sites}");
                return Err((pair.sites.span().start, cause));
            }
            pairs.push((a - 1, b - 1, pair.link.change()?));
        }
        Ok(Self {
            name: name.to_owned(),
            sites,
            within: file.within.change()?,
            between: file.between.change()?,
            pairs,
        })
    }

    /// What it makes of the link between two nodes, by number.
    #[must_use]
    pub fn change(&self, from: usize, to: usize) -> LinkChange {
        let (a, b) = (from % self.sites, to % self.sites);
        if a == b {
            return self.within;
        }
        let is_this =
            |(x, y, _): &&(usize, usize, LinkChange)| (*x, *y) == (a, b) || (*x, *y) == (b, a);
        match self.pairs.iter().find(is_this) {
            Some((_, _, own)) => own.over(&self.between),
            None => self.between,
        }
    }

    /// All links of so many nodes.
    #[must_use]
    pub fn matrix(&self, count: usize) -> Matrix {
        let mut matrix = Matrix::clean(count);
        for (from, to) in matrix.pairs() {
            self.change(from, to).apply(matrix.link_mut(from, to));
        }
        matrix
    }
}

/// The nearest right key, where an unknown one is named.
fn with_guess(message: &str) -> String {
    let wrong = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next());
    match wrong.and_then(|word| nearest(word, KEYS)) {
        Some(near) => format!("{message}; did you mean {near}?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Profile::parse("p.toml", text).unwrap_err().cause
    }

    #[test]
    fn the_known_profiles_make_sense() {
        for (name, _) in KNOWN {
            let profile = Profile::open(name).unwrap();
            let matrix = profile.matrix(6);
            assert!(matrix.pairs().all(|(a, b)| !matrix.link(a, b).is_clean()));
        }
        let wan = Profile::open("wan3").unwrap().matrix(4);
        assert_eq!(wan.link(0, 3).delay_us, 250, "n4 is in the region of n1");
        assert_eq!(wan.link(2, 1).delay_us, 40_000);
        assert_eq!(wan.link(1, 2).rate_bps, 200_000_000);
    }

    #[test]
    fn slips_are_told_with_their_line() {
        assert!(wrong("sites = 2\nbetwen = {}").starts_with("p.toml:2: unknown field `betwen`"));
        assert!(wrong("sites = 2\nbetwen = {}").ends_with("did you mean between?"));
        let slow = "sites = 2\n[within]\n\ndelay = \"20\"";
        assert_eq!(wrong(slow), "p.toml:4: \"20\" needs a unit: 250ms, 2s, 1m");
        assert_eq!(
            wrong("sites = 0"),
            "p.toml:1: 0 is not a number of sites, from 1 on"
        );
        let pair = "sites = 2\npair = [{ sites = [1, 3], link = {} }]";
        assert_eq!(
            wrong(pair),
            "p.toml:2: 1 and 3 are not two of the sites 1 to 2"
        );
        let failure = Profile::open("wan4").unwrap_err();
        assert!(failure.cause.ends_with("did you mean wan3?"), "{failure}");
    }
}
