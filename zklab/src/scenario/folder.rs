//! The folder of a run: everything that is needed to look at it later.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::record::RunRecord;
use crate::failure::{Context, Failure};

/// A run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// Makes one.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn create(dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir).doing(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Opens one that is there.
    ///
    /// # Errors
    /// If there is no run in it.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let folder = Self {
            dir: dir.to_owned(),
        };
        if folder.file("run.json").is_file() {
            return Ok(folder);
        }
        Err(
            Failure::usage(format!("{} holds no run", dir.display())).hint(
                "the folder of one case, with a run.json in it: runs/TIME_SEED or runs/TIME/CASE",
            ),
        )
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The record of the run.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn record(&self) -> Result<RunRecord, Failure> {
        let file = self.file("run.json");
        let cannot = || format!("cannot read {}", file.display());
        let text = fs::read(&file).doing(cannot)?;
        serde_json::from_slice(&text).doing(cannot)
    }

    /// Writes a text.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let file = self.file(name);
        fs::write(&file, text).doing(|| format!("cannot write {}", file.display()))
    }

    /// Writes one value as JSON.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).doing(|| format!("cannot write {name}"))?;
        self.write(name, &format!("{text}\n"))
    }

    /// Writes values as JSON, one a line.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn lines<T: Serialize>(
        &self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Result<(), Failure> {
        let file = self.file(name);
        let cannot = || format!("cannot write {}", file.display());
        let mut out = std::io::BufWriter::new(fs::File::create(&file).doing(cannot)?);
        for value in values {
            serde_json::to_writer(&mut out, &value).doing(cannot)?;
            out.write_all(b"\n").doing(cannot)?;
        }
        out.flush().doing(cannot)
    }

    /// Removes it with everything in it.
    pub fn remove(&self) {
        // What cannot be removed is only in the way of nobody.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Copies a directory with everything in it. Txn logs go without the zeros that servers make room with: a record
/// never ends with one, and they would make a run hundreds of megabytes large.
///
/// # Errors
/// If something cannot be read or written.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    let cannot = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).doing(cannot)?;
    for entry in fs::read_dir(from).doing(cannot)? {
        let entry = entry.doing(cannot)?;
        let target = to.join(entry.file_name());
        if entry.file_type().doing(cannot)?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if entry.file_name().to_string_lossy().starts_with("log.") {
            let bytes = fs::read(entry.path()).doing(cannot)?;
            let end = bytes.iter().rposition(|byte| *byte != 0);
            fs::write(&target, &bytes[..end.map_or(0, |last| last + 1)]).doing(cannot)?;
        } else {
            fs::copy(entry.path(), &target).doing(cannot)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_copied_without_the_room_behind_them() {
        let from = tempfile::tempdir().unwrap();
        let inside = from.path().join("version-2");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("log.1"), b"ab\0c\0\0\0").unwrap();
        fs::write(inside.join("snapshot.0"), b"s\0").unwrap();
        let to = tempfile::tempdir().unwrap();
        copy_tree(from.path(), &to.path().join("data")).unwrap();
        let read = |name| fs::read(to.path().join("data/version-2").join(name)).unwrap();
        assert_eq!(read("log.1"), b"ab\0c");
        assert_eq!(read("snapshot.0"), b"s\0");
    }
}
