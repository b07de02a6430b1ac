//! The narrow disk: all that storage asks of an operating system, and the real one.
//!
//! Twelve blocking calls over two flat directories. The log and snapshot code above it is written
//! for the weakest disk that still keeps its word about `sync`:
//!
//! - what was written and not yet synced may be lost after a crash, wholly or in part, in units of
//!   512-byte aligned sectors and in any order; a sector that is lost shows what it held before
//!   (zeros, where the file did not reach that far);
//! - a write that fails may have been done in part;
//! - a name that was created, renamed or removed is durable only after [`Disk::sync_dir`];
//! - a `sync` that failed says nothing about any page, then or later: the caller must stop.
//!
//! It leaves formats and names to the modules beside it. The simulator has a second implementation
//! that breaks exactly these promises and no others.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StorageError;

/// The two `version-2` directories. They may be one and the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// `dataDir/version-2`: snapshots and epochs.
    Snap,
    /// `dataLogDir/version-2`: txn logs.
    Log,
}

/// A disk with the two directories on it. Clones are handles to the same disk.
pub trait Disk: Clone + fmt::Debug + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of the files in `dir`, in any order.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self, dir: Dir) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the operating system says; `NotFound` if there is no such file.
    fn open(&self, dir: Dir, name: &str) -> io::Result<Self::File>;

    /// Creates a file, or empties the one of that name.
    ///
    /// # Errors
    /// What the operating system says.
    fn create(&self, dir: Dir, name: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing one of the new name.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, dir: Dir, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, dir: Dir, name: &str) -> io::Result<()>;

    /// Makes names created, renamed and removed in `dir` durable.
    ///
    /// # Errors
    /// What the operating system says; nothing is known about the names then.
    fn sync_dir(&self, dir: Dir) -> io::Result<()>;

    /// Where a file is, for messages.
    fn path(&self, dir: Dir, name: &str) -> PathBuf;
}

/// An open file of a [`Disk`].
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads at `offset` into `into`; fewer bytes than asked for mean only that at least one was
    /// read, 0 means the end of the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, making the file longer if need be.
    ///
    /// # Errors
    /// What the operating system says; any part may have been written then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros that need no space yet.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes contents and length durable (`fdatasync`), the file's name not.
    ///
    /// # Errors
    /// What the operating system says; nothing is known about the contents then.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until `into` is full or the file ends; gives the count.
///
/// # Errors
/// As [`DiskFile::read_at`].
pub(super) fn read_full(
    file: &impl DiskFile,
    mut offset: u64,
    into: &mut [u8],
) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset, &mut into[done..])? {
            0 => break,
            count => {
                done += count;
                offset += count as u64;
            }
        }
    }
    Ok(done)
}

/// The disk of this machine.
///
/// Holds an advisory lock on both directories, so that two servers cannot write the same files;
/// the operating system drops it with the process.
#[derive(Clone, Debug)]
pub struct RealDisk {
    dirs: Arc<RealDirs>,
}

#[derive(Debug)]
struct RealDirs {
    snap: OpenDir,
    /// `None` if it is the same as `snap`.
    log: Option<OpenDir>,
}

#[derive(Debug)]
struct OpenDir {
    path: PathBuf,
    /// Locked, and what `sync_dir` syncs.
    handle: File,
}

/// The subdirectory of `dataDir` and `dataLogDir` that holds the data.
const VERSION_DIR: &str = "version-2";
/// A file beside [`VERSION_DIR`] that says an empty database is meant to be empty.
const INITIALIZE: &str = "initialize";

impl RealDisk {
    /// Opens `data_dir/version-2` and `data_log_dir/version-2`, making them if `autocreate`.
    ///
    /// # Errors
    /// If a directory is missing, cannot be made or written, or belongs to a running server; and if
    /// the two differ and hold each other's files (a changed `dataLogDir` would otherwise start
    /// from half the history).
    pub fn open(
        data_dir: &Path,
        data_log_dir: &Path,
        autocreate: bool,
    ) -> Result<Self, StorageError> {
        let snap = OpenDir::open(&data_dir.join(VERSION_DIR), autocreate)?;
        let log_path = data_log_dir.join(VERSION_DIR);
        if autocreate {
            make_dir(&log_path)?;
        }
        let same = match (snap.path.canonicalize(), log_path.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => snap.path == log_path,
        };
        let log = if same {
            None
        } else {
            Some(OpenDir::open(&log_path, autocreate)?)
        };
        let disk = Self {
            dirs: Arc::new(RealDirs { snap, log }),
        };
        disk.refuse_mixed()?;
        Ok(disk)
    }

    fn refuse_mixed(&self) -> Result<(), StorageError> {
        if self.dirs.log.is_none() {
            return Ok(());
        }
        for (dir, prefix, what, key) in [
            (Dir::Log, "snapshot.", "snapshot", "dataDir"),
            (Dir::Snap, "log.", "txn log", "dataLogDir"),
        ] {
            let names = self
                .list(dir)
                .map_err(|e| StorageError::io("list", self.dir(dir).path.as_path(), e))?;
            if let Some(name) = names.iter().find(|name| name.starts_with(prefix)) {
                return Err(StorageError::Layout {
                    path: self.path(dir, name),
                    what: format!(
                        "a {what} in the wrong directory: move the files to where {key} points, \
                         or correct dataDir and dataLogDir"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Whether the marker file `initialize` lies beside either `version-2` directory: the operator
    /// says that an empty database is meant.
    ///
    /// Apache looks only beside the log's directory but its script writes it into `dataDir`.
    #[must_use]
    pub fn has_initialize_marker(&self) -> bool {
        self.initialize_markers().any(|path| path.exists())
    }

    /// Removes the marker file `initialize`, after the database has been opened.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn remove_initialize_marker(&self) -> Result<(), StorageError> {
        for path in self.initialize_markers() {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StorageError::io("remove", &path, e)),
            }
        }
        Ok(())
    }

    fn initialize_markers(&self) -> impl Iterator<Item = PathBuf> {
        [Dir::Snap, Dir::Log]
            .into_iter()
            .map(|dir| self.dir(dir).path.with_file_name(INITIALIZE))
    }

    fn dir(&self, dir: Dir) -> &OpenDir {
        match (dir, &self.dirs.log) {
            (Dir::Log, Some(log)) => log,
            _ => &self.dirs.snap,
        }
    }
}

/// Makes a directory and what is above it; the new name is made durable.
fn make_dir(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|e| StorageError::io("create", path, e))?;
    if let Some(parent) = path.parent() {
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| StorageError::io("sync", parent, e))?;
    }
    Ok(())
}

impl OpenDir {
    fn open(path: &Path, autocreate: bool) -> Result<Self, StorageError> {
        if autocreate {
            make_dir(path)?;
        }
        let handle = File::open(path).map_err(|e| StorageError::io("open", path, e))?;
        if let Err(error) = handle.try_lock() {
            return Err(match error {
                std::fs::TryLockError::WouldBlock => StorageError::Layout {
                    path: path.to_owned(),
                    what: "another running server holds this directory".to_owned(),
                },
                std::fs::TryLockError::Error(e) => StorageError::io("lock", path, e),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            handle,
        })
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir(dir).path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, dir: Dir, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(dir, name))
    }

    fn create(&self, dir: Dir, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(dir, name))
    }

    fn rename(&self, dir: Dir, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(dir, from), self.path(dir, to))
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(dir, name))
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.dir(dir).handle.sync_all()
    }

    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        self.dir(dir).path.join(name)
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, into, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_per_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = RealDisk::open(dir.path(), dir.path(), true).unwrap();
        let error = RealDisk::open(dir.path(), dir.path(), true).unwrap_err();
        assert!(
            error.to_string().contains("another running server"),
            "{error}"
        );
        drop(first);
        RealDisk::open(dir.path(), dir.path(), true).unwrap();
    }

    #[test]
    fn missing_directories_are_made_only_if_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        let error = RealDisk::open(&data, &log, false).unwrap_err();
        assert!(matches!(error, StorageError::Io { .. }), "{error}");
        assert!(!data.exists());
        RealDisk::open(&data, &log, true).unwrap();
        RealDisk::open(&data, &log, false).unwrap();
    }

    #[test]
    fn mixed_up_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        drop(RealDisk::open(&data, &log, true).unwrap());
        std::fs::write(data.join("version-2/log.1"), b"").unwrap();
        let error = RealDisk::open(&data, &log, true).unwrap_err();
        assert!(error.to_string().contains("log.1"), "{error}");
        std::fs::remove_file(data.join("version-2/log.1")).unwrap();
        std::fs::write(log.join("version-2/snapshot.0"), b"").unwrap();
        assert!(RealDisk::open(&data, &log, true).is_err());
        // Both kinds in one directory are how it is by default.
        std::fs::write(log.join("version-2/log.1"), b"").unwrap();
        RealDisk::open(&log, &log, true).unwrap();
    }

    #[test]
    fn the_initialize_marker_is_found_in_either_place() {
        let dir = tempfile::tempdir().unwrap();
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        let disk = RealDisk::open(&data, &log, true).unwrap();
        assert!(!disk.has_initialize_marker());
        for place in [&data, &log] {
            std::fs::write(place.join("initialize"), b"").unwrap();
            assert!(disk.has_initialize_marker());
            disk.remove_initialize_marker().unwrap();
            assert!(!disk.has_initialize_marker());
        }
    }
}
