//! Through which client protocol implementation the clients of a load speak.

use std::fmt;

use clap::ValueEnum;

use crate::failure::{Failure, nearest};

/// Through which implementation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// All through the lab's own, which tells the most.
    Own,
    /// All through the zookeeper-client crate.
    Crate,
    /// One in four through the crate, so that a bug that the lab's own client and zkd have in common is seen, too.
    #[default]
    Both,
}

impl Via {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Own, Self::Crate, Self::Both];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Crate => "crate",
            Self::Both => "both",
        }
    }

    /// All words.
    #[must_use]
    pub fn words() -> [&'static str; 3] {
        Self::ALL.map(Self::word)
    }

    /// Reads a word.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let found = Self::ALL.into_iter().find(|via| via.word() == text);
        found.ok_or_else(|| {
            let guess = nearest(text, Self::words())
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            let cause = format!("clients do not speak through {text:?}{guess}");
            Failure::usage(cause).hint(format!("one of {}", Self::words().join(", ")))
        })
    }

    /// So many of `clients` go through the crate.
    #[must_use]
    pub fn foreign(self, clients: u32) -> u32 {
        match self {
            Self::Own => 0,
            Self::Crate => clients,
            // A single client is the one that sees most.
            Self::Both if clients < 2 => 0,
            Self::Both => (clients / 4).max(1),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_told_and_slips_are_named() {
        let shares = |via: Via| [1, 2, 3, 8, 17].map(|clients| via.foreign(clients));
        assert_eq!(shares(Via::Own), [0; 5]);
        assert_eq!(shares(Via::Crate), [1, 2, 3, 8, 17]);
        assert_eq!(shares(Via::Both), [0, 1, 1, 2, 4]);
        for via in Via::ALL {
            assert_eq!(Via::parse(via.word()).unwrap(), via);
        }
        let wrong = Via::parse("crates").unwrap_err();
        assert!(wrong.cause.contains("did you mean crate?"), "{wrong}");
    }
}
