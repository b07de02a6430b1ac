//! The four-letter words: which there are, and which may be answered.
//!
//! Law kept here: a word is only a name. What it says is written by `status`, which sees the whole server.

use std::collections::BTreeSet;
use std::fmt;

macro_rules! words {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A question that fits into four bytes, asked on the client port instead of a connect request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FourLetterWord {
            $($(#[doc = $doc])+ $name,)+
        }

        impl FourLetterWord {
            /// Every word.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word as it is sent.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

words! {
    /// The configuration in effect.
    Conf = "conf",
    /// Every client connection, in full.
    Cons = "cons",
    /// Forget the statistics of the connections.
    Crst = "crst",
    /// Sizes of the data directories.
    Dirs = "dirs",
    /// Sessions and their ephemerals.
    Dump = "dump",
    /// The environment.
    Envi = "envi",
    /// The trace mask.
    Gtmk = "gtmk",
    /// The digests of the tree.
    Hash = "hash",
    /// Read-only or not?
    Isro = "isro",
    /// Every metric.
    Mntr = "mntr",
    /// Does the process answer?
    Ruok = "ruok",
    /// Forget the statistics of the server.
    Srst = "srst",
    /// The server in a few lines.
    Srvr = "srvr",
    /// The server and its connections.
    Stat = "stat",
    /// Set the trace mask.
    Stmk = "stmk",
    /// Watches by session.
    Wchc = "wchc",
    /// Watches by path.
    Wchp = "wchp",
    /// How many watches.
    Wchs = "wchs",
}

impl FourLetterWord {
    /// The word that the first four bytes of a connection are, if they are one.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|word| word.text().as_bytes() == bytes).copied()
    }
}

impl fmt::Display for FourLetterWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The four-letter words that are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whitelist {
    /// `*`.
    All,
    /// These.
    Words(BTreeSet<FourLetterWord>),
}

impl Whitelist {
    /// Whether `word` may be answered.
    #[must_use]
    pub fn allows(&self, word: FourLetterWord) -> bool {
        match self {
            Self::All => true,
            Self::Words(words) => words.contains(&word),
        }
    }

    /// Reads the value of `4lw.commands.whitelist`; the second part are the names in it that are no words.
    #[must_use]
    pub fn parse(value: &str) -> (Self, Vec<String>) {
        let names: Vec<&str> = value.split(',').map(str::trim).collect();
        if names.contains(&"*") {
            return (Self::All, Vec::new());
        }
        let mut words = BTreeSet::new();
        let mut strange = Vec::new();
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let mut all = FourLetterWord::ALL.iter();
            match all.find(|word| word.text() == name) {
                Some(word) => drop(words.insert(*word)),
                None => strange.push(name.to_owned()),
            }
        }
        (Self::Words(words), strange)
    }
}

impl fmt::Display for Whitelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Words(words) => {
                let words: Vec<&str> = words.iter().map(|word| word.text()).collect();
                f.write_str(&words.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_whitelists() {
        assert_eq!(
            FourLetterWord::from_bytes(*b"mntr"),
            Some(FourLetterWord::Mntr)
        );
        assert_eq!(FourLetterWord::from_bytes(*b"MNTR"), None);
        assert_eq!(FourLetterWord::from_bytes([0, 0, 0, 45]), None);
        let (list, strange) = Whitelist::parse(" srvr,ruok , mtnr,");
        assert!(list.allows(FourLetterWord::Ruok) && !list.allows(FourLetterWord::Mntr));
        assert_eq!(strange, ["mtnr"]);
        assert_eq!(list.to_string(), "ruok, srvr");
        assert_eq!(Whitelist::parse("srvr, *"), (Whitelist::All, vec![]));
        assert!(!Whitelist::parse("").0.allows(FourLetterWord::Srvr));
    }
}
