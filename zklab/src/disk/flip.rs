//! A bit that turned over on the disk while nobody looked.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zkd::prng::Prng;

/// In which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flip {
    /// The newest txn log with something in it.
    Log,
    /// The newest snapshot.
    Snapshot,
}

impl Flip {
    /// As people type them.
    pub const WORDS: [&str; 2] = ["log", "snapshot"];

    fn is_name(self, name: &str) -> bool {
        name.starts_with(match self {
            Self::Log => "log.",
            Self::Snapshot => "snapshot.",
        })
    }
}

impl FromStr for Flip {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "log" => Ok(Self::Log),
            "snapshot" => Ok(Self::Snapshot),
            _ => Err(()),
        }
    }
}

/// The bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flipped {
    /// The file.
    pub file: PathBuf,
    /// Which of its bytes, from 0.
    pub byte: u64,
    /// How many bytes of it are in use.
    pub of: u64,
    /// Which bit of that, from 0 for the lowest.
    pub bit: u8,
}

impl fmt::Display for Flipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        write!(
            f,
            "bit {} of byte {} of {} in {name} turned over",
            self.bit, self.byte, self.of
        )
    }
}

impl Flip {
    /// Turns over one bit of what is in use of such a file anywhere below `root`; `None` if there is none. The zeros
    /// that a log has in store at its end are not in use.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn one(self, root: &Path, prng: &mut Prng) -> io::Result<Option<Flipped>> {
        let mut files = Vec::new();
        self.find(root, &mut files)?;
        // The newest has the greatest zxid, in hexadecimal behind the dot.
        files.sort_by_key(|(zxid, _)| *zxid);
        for (_, path) in files.into_iter().rev() {
            let contents = fs::read(&path)?;
            let Some(last) = contents.iter().rposition(|byte| *byte != 0) else {
                continue;
            };
            let of = last as u64 + 1;
            let (byte, bit) = (prng.below(of), prng.below(8) as u8);
            let turned = contents[byte as usize] ^ 1 << bit;
            let file = File::options().write(true).open(&path)?;
            file.write_all_at(&[turned], byte)?;
            file.sync_all()?;
            return Ok(Some(Flipped {
                file: path,
                byte,
                of,
                bit,
            }));
        }
        Ok(None)
    }

    fn find(self, dir: &Path, into: &mut Vec<(u64, PathBuf)>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                self.find(&path, into)?;
            } else if self.is_name(&name) {
                let zxid = name
                    .split('.')
                    .nth(1)
                    .and_then(|hex| u64::from_str_radix(hex, 16).ok());
                into.extend(zxid.map(|zxid| (zxid, path.clone())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_the_newest_file_with_something_in_it_is_turned_over() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("version-2");
        fs::create_dir(&below).unwrap();
        let contents = [vec![7; 50], vec![0; 1000]].concat();
        for (name, contents) in [
            ("log.9", &contents[..]),
            ("log.1f", &contents[..]),
            // Made, and nothing written to it yet.
            ("log.20", &contents[50..]),
            ("snapshot.ff", &contents[..]),
            ("log.txt", &contents[..]),
        ] {
            fs::write(below.join(name), contents).unwrap();
        }
        for seed in 0..50 {
            let flipped = Flip::Log
                .one(dir.path(), &mut Prng::new(seed))
                .unwrap()
                .unwrap();
            assert_eq!(flipped.file, below.join("log.1f"));
            assert!(flipped.byte < 50 && flipped.of == 50, "{flipped}");
            let mut now = fs::read(&flipped.file).unwrap();
            now[flipped.byte as usize] ^= 1 << flipped.bit;
            assert!(now == contents, "{flipped}: nothing else has changed");
            fs::write(&flipped.file, &contents).unwrap();
        }
        for name in ["log.9", "log.20", "snapshot.ff", "log.txt"] {
            let now = fs::read(below.join(name)).unwrap();
            assert!(now == contents || now == contents[50..], "{name}");
        }
    }

    #[test]
    fn where_there_is_no_such_file_nothing_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let done = Flip::Snapshot.one(dir.path(), &mut Prng::new(1)).unwrap();
        assert_eq!(done, None);
    }
}
