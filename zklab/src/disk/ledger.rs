//! What of a data directory would survive a power cut.
//!
//! Laws. What a server was told is synced is never given up: a file's durable part is noted as it was when its sync
//! *began*, after that sync has succeeded. Everything else may be given up. Names go with the order of the file
//! system's journal: those that were made, changed or removed are durable with the next sync of anything, except that
//! a file whose contents were never synced is as if it had never been made. What was left alone for five seconds counts
//! as written back by the kernel (Apache ZooKeeper relies on that for the snapshot of its start).
//!
//! A txn log is preallocated with zeros, so its durable part ends behind its last byte that is not zero (every record
//! ends with such a byte), and only what was added is looked at. Small files are kept whole, for they may be written
//! over. Every durable file is held open, so that its contents stay when its name goes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use zkd::prng::Prng;

use super::cut::CutReport;

/// Files up to this size are kept as they were at their sync.
const WHOLE_MAX: u64 = 64 << 10;
/// How much of a file is looked at at a time.
const CHUNK: usize = 64 << 10;

/// A file by its inode; one that is held open keeps its number.
type Inode = u64;

/// The durable part of a file.
#[derive(Debug)]
pub(super) struct Durable {
    /// Open for reading.
    pub(super) file: File,
    /// Its length, with the zeros of preallocation.
    pub(super) size: u64,
    /// The end of its contents.
    pub(super) end: u64,
    /// The contents, if the file is small and no log.
    pub(super) whole: Option<Vec<u8>>,
}

/// What was found when a sync began; becomes durable when it succeeds.
#[derive(Debug)]
pub(super) struct Measured {
    names: BTreeMap<PathBuf, Inode>,
    file: Option<(Inode, Durable)>,
}

/// The durable state of one directory and what is below it.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) root: PathBuf,
    pub(super) names: BTreeMap<PathBuf, Inode>,
    pub(super) files: BTreeMap<Inode, Durable>,
}

/// Whether this is a txn log.
pub(super) fn is_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b"log.")
}

impl Ledger {
    /// Everything that is there now is durable.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let mut ledger = Self {
            root: root.to_owned(),
            names: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        ledger.take_stock()?;
        Ok(ledger)
    }

    /// As [`Self::new`].
    pub(super) fn take_stock(&mut self) -> io::Result<()> {
        self.files.clear();
        self.names = names(&self.root)?;
        for (name, inode) in &self.names {
            let file = File::open(self.root.join(name))?;
            let durable = measure(file, is_log(name), 0)?;
            self.files.insert(*inode, durable);
        }
        Ok(())
    }

    /// Looks at a file, open as `file`, whose sync begins; a directory has only names.
    pub(super) fn measure(&self, file: &File, path: &Path) -> io::Result<Measured> {
        let names = names(&self.root)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Ok(Measured { names, file: None });
        }
        let inode = about.ino();
        let known = self.files.get(&inode).map_or(0, |known| known.end);
        // A log that was cut back and goes on ends somewhere before.
        let goes_on = last_byte(file, known.saturating_sub(1), known.min(about.len()))?;
        let from = goes_on.map_or(0, |last| last + 1);
        let durable = measure(file.try_clone()?, is_log(path), from)?;
        Ok(Measured {
            names,
            file: Some((inode, durable)),
        })
    }

    /// The sync that began then has succeeded.
    pub(super) fn synced(&mut self, measured: Measured) {
        if let Some((inode, durable)) = measured.file {
            match self.files.get_mut(&inode) {
                // The descriptor that is open already serves.
                Some(known) => {
                    (known.size, known.end) = (durable.size, durable.end);
                    known.whole = durable.whole;
                }
                None => drop(self.files.insert(inode, durable)),
            }
        }
        let known = &self.files;
        let mut names = measured.names;
        names.retain(|_, inode| known.contains_key(inode));
        if names != self.names {
            let named: Vec<Inode> = names.values().copied().collect();
            let just_synced = |inode: &Inode| named.contains(inode);
            self.files.retain(|inode, _| just_synced(inode));
            self.names = names;
        }
    }

    /// Cuts the power: everything becomes what is durable; with `torn` the logs keep a part of what is not.
    pub(super) fn cut(&mut self, torn: bool, prng: &mut Prng) -> io::Result<CutReport> {
        let report = super::cut::carry_out(self, torn, prng)?;
        self.take_stock()?;
        Ok(report)
    }
}

/// The files below a directory.
pub(super) fn names(root: &Path) -> io::Result<BTreeMap<PathBuf, Inode>> {
    fn below(root: &Path, within: &Path, found: &mut BTreeMap<PathBuf, Inode>) -> io::Result<()> {
        for entry in fs::read_dir(root.join(within))? {
            let entry = entry?;
            let name = within.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                below(root, &name, found)?;
            } else if kind.is_file() {
                found.insert(name, entry.ino());
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    below(root, Path::new(""), &mut found)?;
    Ok(found)
}

fn measure(file: File, is_log: bool, from: u64) -> io::Result<Durable> {
    let size = file.metadata()?.len();
    if is_log {
        let end = contents_end(&file, from, size)?;
        return Ok(Durable {
            file,
            size,
            end,
            whole: None,
        });
    }
    let whole = if size <= WHOLE_MAX {
        let mut bytes = Vec::new();
        read_from(&file, 0, size, &mut bytes)?;
        Some(bytes)
    } else {
        None
    };
    let end = whole.as_ref().map_or(size, |bytes| bytes.len() as u64);
    Ok(Durable {
        file,
        size,
        end,
        whole,
    })
}

/// Reads up to `end`, or to the end of the file if that comes first.
pub(super) fn read_from(file: &File, from: u64, end: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let mut at = from;
    let mut chunk = vec![0; CHUNK];
    while at < end {
        let want = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        let count = file.read_at(&mut chunk[..want], at)?;
        if count == 0 {
            break;
        }
        into.extend_from_slice(&chunk[..count]);
        at += count as u64;
    }
    Ok(())
}

/// Where the last byte ends that is not zero; `from` if there is none behind it. Holes are not read.
pub(super) fn contents_end(file: &File, from: u64, size: u64) -> io::Result<u64> {
    let seek = |at: u64, whence: Whence| -> io::Result<Option<u64>> {
        match lseek(file, at.cast_signed(), whence) {
            Ok(found) => Ok(Some(found.cast_unsigned())),
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let (mut at, mut end) = (from, from);
    while at < size {
        let Some(data) = seek(at, Whence::SeekData)? else {
            break;
        };
        let hole = seek(data, Whence::SeekHole)?.unwrap_or(size);
        if let Some(last) = last_byte(file, data.max(from), hole)? {
            end = end.max(last + 1);
        }
        at = hole.max(at + 1);
    }
    Ok(end)
}

/// The last byte between these places that is not zero.
fn last_byte(file: &File, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK];
    let mut end = to;
    while end > from {
        let begin = end.saturating_sub(CHUNK as u64).max(from);
        let length = usize::try_from(end - begin).expect("a chunk fits in memory");
        file.read_exact_at(&mut chunk[..length], begin)?;
        if let Some(place) = chunk[..length].iter().rposition(|byte| *byte != 0) {
            return Ok(Some(begin + place as u64));
        }
        end = begin;
    }
    Ok(None)
}
