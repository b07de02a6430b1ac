//! What the clients do, and how often: `cas=3,set=3,get=3,watch=1,create`.

use zkd::prng::Prng;

use crate::failure::{Failure, nearest};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Set a register if it has the version last seen.
    Cas,
    /// Set a register.
    Set,
    /// Read anything.
    Get,
    /// Read and leave a watch.
    Watch,
    /// Make one of a few znodes that come and go.
    Create,
    /// Delete one of them.
    Delete,
    /// Make a sequential znode.
    Seq,
    /// Make an ephemeral.
    Ephemeral,
    /// Set two znodes at once; sometimes with a check that fails.
    Multi,
    /// Sync and read.
    Sync,
    /// Write, and go on at another server without waiting for the answer.
    Move,
}

const WORDS: [(&str, Work); 11] = [
    ("cas", Work::Cas),
    ("set", Work::Set),
    ("get", Work::Get),
    ("watch", Work::Watch),
    ("create", Work::Create),
    ("delete", Work::Delete),
    ("seq", Work::Seq),
    ("ephemeral", Work::Ephemeral),
    ("multi", Work::Multi),
    ("sync", Work::Sync),
    ("move", Work::Move),
];

/// Kinds of work with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    parts: Vec<(Work, u64)>,
    sum: u64,
}

impl Mix {
    /// Reads `cas=3,set,watch=1`; without a number the weight is 1.
    ///
    /// # Errors
    /// If a word or number is not understood, or nothing is left.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (word, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight: u32 = weight
                .parse()
                .map_err(|_| Failure::usage(format!("{weight:?} is not a weight of {word:?}")))?;
            let found = WORDS.iter().find(|(known, _)| *known == word);
            let Some((_, work)) = found else {
                let known = WORDS.map(|(known, _)| known);
                let guess = nearest(word, known)
                    .map(|known| format!("; did you mean {known}?"))
                    .unwrap_or_default();
                let failure = Failure::usage(format!("{word:?} is no kind of work{guess}"));
                return Err(failure.hint(format!("a mix is made of {}", known.join(" "))));
            };
            parts.push((*work, u64::from(weight)));
        }
        let sum = parts.iter().map(|(_, weight)| weight).sum();
        if sum == 0 {
            return Err(Failure::usage(format!("the mix {text:?} is empty")));
        }
        Ok(Self { parts, sum })
    }

    /// The words that a mix is made of.
    #[must_use]
    pub fn words() -> [&'static str; 11] {
        WORDS.map(|(word, _)| word)
    }

    /// One kind of work, as likely as its weight says.
    pub fn pick(&self, prng: &mut Prng) -> Work {
        let mut at = prng.below(self.sum);
        for (work, weight) in &self.parts {
            if at < *weight {
                return *work;
            }
            at -= weight;
        }
        self.parts[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_and_slips_are_named() {
        let mix = Mix::parse("set=3, get").unwrap();
        let mut prng = Prng::new(1);
        let sets = (0..4000)
            .filter(|_| mix.pick(&mut prng) == Work::Set)
            .count();
        assert!((2800..3200).contains(&sets), "{sets}");
        assert!(
            Mix::parse("sett")
                .unwrap_err()
                .cause
                .contains("did you mean set")
        );
        for wrong in ["", "set=0", "set=x", "set=-1"] {
            assert!(Mix::parse(wrong).is_err(), "{wrong}");
        }
    }
}
