//! A disk that breaks every promise it may break, and no other.
//!
//! The fault model, which the storage code above it has to survive:
//!
//! - **Lost writes.** What was not synced when the server crashes survives sector by sector (512 bytes),
//!   each by the toss of a coin; so a record is torn, a later one survives an earlier one, and a length
//!   may have reached the disk without the bytes.
//! - **Lost names.** Of the creates, renames and removes since the last sync of a directory, a prefix
//!   survives.
//! - **Failed syncs and a full disk.** A sync may report an error; the server must then stop, and what it
//!   had not synced before is treated as lost or not, as in a crash. A full disk refuses writes half way.
//!
//! What it keeps: a sync that said yes is for ever, and bytes do not rot (damage to synced bytes is tested
//! by the storage module itself, since no single server can be asked to survive it without telling).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::prng::Prng;
use crate::storage::{Dir, Disk, DiskFile};

const SECTOR: usize = 512;

/// A simulated disk; clones are handles on the same one.
#[derive(Clone, Debug, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<(Dir, String), u64>,
    durable_names: BTreeMap<(Dir, String), u64>,
    journal: Vec<NameChange>,
    /// Syncs to go until one fails.
    fail_sync_in: Option<u64>,
    /// Bytes that may still be written before the disk is full.
    room: Option<usize>,
    syncs: u64,
    /// Syncs of directories do nothing (a planted bug).
    forgets_names: bool,
}

#[derive(Debug, Default)]
struct Inode {
    /// What a read sees.
    seen: Vec<u8>,
    /// What a crash leaves for sure.
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
enum NameChange {
    Link(Dir, String, u64),
    Unlink(Dir, String),
}

impl NameChange {
    fn dir(&self) -> Dir {
        match self {
            Self::Link(dir, ..) | Self::Unlink(dir, _) => *dir,
        }
    }

    fn apply(self, names: &mut BTreeMap<(Dir, String), u64>) {
        match self {
            Self::Link(dir, name, inode) => {
                names.insert((dir, name), inode);
            }
            Self::Unlink(dir, name) => {
                names.remove(&(dir, name));
            }
        }
    }
}

/// An open file of a [`FaultyDisk`].
#[derive(Debug)]
pub struct FaultyFile {
    disk: FaultyDisk,
    inode: u64,
}

impl FaultyDisk {
    /// The power fails: what was not synced survives as `prng` has it.
    pub fn crash(&self, prng: &mut Prng) {
        let mut state = self.state.lock();
        // Half of the crashes are clean-cut, the other half tear.
        let keep_all = prng.one_in(4);
        let lose_all = prng.one_in(3);
        for inode in state.inodes.values_mut() {
            inode.crash(prng, keep_all, lose_all);
        }
        let journal = std::mem::take(&mut state.journal);
        let mut names = std::mem::take(&mut state.durable_names);
        let kept = if keep_all {
            journal.len()
        } else {
            prng.below(journal.len() as u64 + 1) as usize
        };
        for change in journal.into_iter().take(kept) {
            change.apply(&mut names);
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        state.fail_sync_in = None;
        state.room = None;
    }

    /// The process dies and the machine lives on: everything written is there.
    pub fn process_died(&self) {
        let mut state = self.state.lock();
        state.fail_sync_in = None;
        state.room = None;
    }

    /// The `n`-th sync from now on fails.
    pub fn fail_sync_in(&self, n: u64) {
        self.state.lock().fail_sync_in = Some(n);
    }

    /// Plants a bug: from now on nobody syncs a directory.
    pub(super) fn forget_directory_syncs(&self) {
        self.state.lock().forgets_names = true;
    }

    /// Only `bytes` more can be written.
    pub fn fill_up_after(&self, bytes: usize) {
        self.state.lock().room = Some(bytes);
    }

    /// How many syncs of files were done.
    #[must_use]
    pub fn sync_count(&self) -> u64 {
        self.state.lock().syncs
    }
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.keep(sector);
        }
        self.durable.resize(self.seen.len(), 0);
    }

    fn keep(&mut self, sector: usize) {
        let from = sector * SECTOR;
        let to = self.seen.len().min(from + SECTOR);
        if from < to {
            if self.durable.len() < to {
                self.durable.resize(to, 0);
            }
            self.durable[from..to].copy_from_slice(&self.seen[from..to]);
        }
    }

    fn crash(&mut self, prng: &mut Prng, keep_all: bool, lose_all: bool) {
        let dirty = std::mem::take(&mut self.dirty);
        let length = self.seen.len();
        if length != self.durable.len() && (keep_all || (!lose_all && prng.one_in(2))) {
            self.durable.resize(length, 0);
        }
        for sector in dirty {
            if keep_all || (!lose_all && prng.one_in(2)) {
                self.keep(sector);
            }
        }
        self.seen.clone_from(&self.durable);
    }
}

impl State {
    fn link(&mut self, dir: Dir, name: &str, inode: u64) {
        self.names.insert((dir, name.to_owned()), inode);
        self.journal
            .push(NameChange::Link(dir, name.to_owned(), inode));
    }

    fn unlink(&mut self, dir: Dir, name: &str) -> io::Result<u64> {
        let inode = self
            .names
            .remove(&(dir, name.to_owned()))
            .ok_or(io::ErrorKind::NotFound)?;
        self.journal.push(NameChange::Unlink(dir, name.to_owned()));
        Ok(inode)
    }

    fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        match &mut self.fail_sync_in {
            Some(0) => true,
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        Ok(state
            .names
            .keys()
            .filter(|(d, _)| *d == dir)
            .map(|(_, name)| name.clone())
            .collect())
    }

    fn open(&self, dir: Dir, name: &str) -> io::Result<FaultyFile> {
        let state = self.state.lock();
        let inode = *state
            .names
            .get(&(dir, name.to_owned()))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultyFile {
            disk: self.clone(),
            inode,
        })
    }

    fn create(&self, dir: Dir, name: &str) -> io::Result<FaultyFile> {
        let mut state = self.state.lock();
        let existing = state.names.get(&(dir, name.to_owned())).copied();
        let inode = if let Some(inode) = existing {
            if let Some(file) = state.inodes.get_mut(&inode) {
                let length = file.seen.len();
                file.touch(0, length);
                file.seen.clear();
            }
            inode
        } else {
            let inode = state.next_inode;
            state.next_inode += 1;
            state.inodes.insert(inode, Inode::default());
            state.link(dir, name, inode);
            inode
        };
        Ok(FaultyFile {
            disk: self.clone(),
            inode,
        })
    }

    fn rename(&self, dir: Dir, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = *state
            .names
            .get(&(dir, from.to_owned()))
            .ok_or(io::ErrorKind::NotFound)?;
        // The new name first: a crash between the two leaves both, never neither.
        state.link(dir, to, inode);
        state.unlink(dir, from)?;
        Ok(())
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.state.lock().unlink(dir, name).map(drop)
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.forgets_names {
            return Ok(());
        }
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.journal)
            .into_iter()
            .partition(|change| change.dir() == dir);
        state.journal = rest;
        for change in done {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        PathBuf::from(format!("sim:{dir:?}/{name}"))
    }
}

impl FaultyFile {
    fn with<T>(&self, f: impl FnOnce(&mut Inode) -> T) -> T {
        let mut state = self.disk.state.lock();
        f(state
            .inodes
            .get_mut(&self.inode)
            .expect("inodes live as long as the disk"))
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.with(|inode| inode.seen.len() as u64))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.with(|inode| {
            let from = usize::try_from(offset)
                .map_err(io::Error::other)?
                .min(inode.seen.len());
            let count = into.len().min(inode.seen.len() - from);
            into[..count].copy_from_slice(&inode.seen[from..from + count]);
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let mut bytes = bytes;
        let mut full = false;
        if let Some(room) = &mut self.disk.state.lock().room {
            full = bytes.len() > *room;
            bytes = &bytes[..bytes.len().min(*room)];
            *room -= bytes.len();
        }
        self.with(|inode| {
            let to = from + bytes.len();
            if inode.seen.len() < to {
                inode.seen.resize(to, 0);
            }
            inode.seen[from..to].copy_from_slice(bytes);
            inode.touch(from, to);
        });
        if full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.with(|inode| {
            let before = inode.seen.len();
            inode.seen.resize(length, 0);
            inode.touch(before.min(length), before.max(length));
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.disk.state.lock().sync_fails() {
            return Err(io::Error::other("the simulated sync failed"));
        }
        self.with(Inode::sync);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_survive_every_crash_and_unsynced_ones_some() {
        let mut survived = [0, 0];
        for seed in 0..200 {
            let disk = FaultyDisk::default();
            let file = disk.create(Dir::Log, "a").unwrap();
            file.write_at(0, b"synced").unwrap();
            file.sync().unwrap();
            disk.sync_dir(Dir::Log).unwrap();
            file.write_at(6, b" and not").unwrap();
            disk.crash(&mut Prng::new(seed));
            let mut bytes = [0; 32];
            let count = disk
                .open(Dir::Log, "a")
                .unwrap()
                .read_at(0, &mut bytes)
                .unwrap();
            assert_eq!(&bytes[..6], b"synced");
            survived[usize::from(&bytes[6..count] == b" and not")] += 1;
        }
        assert!(survived.iter().all(|count| *count > 20), "{survived:?}");
    }

    #[test]
    fn a_name_is_durable_only_after_the_directory_was_synced() {
        let mut found = [0, 0];
        for seed in 0..200 {
            let disk = FaultyDisk::default();
            disk.create(Dir::Snap, "tmp").unwrap().sync().unwrap();
            disk.rename(Dir::Snap, "tmp", "final").unwrap();
            disk.crash(&mut Prng::new(seed));
            found[usize::from(disk.open(Dir::Snap, "final").is_ok())] += 1;
        }
        assert!(found.iter().all(|count| *count > 20), "{found:?}");
    }
}
