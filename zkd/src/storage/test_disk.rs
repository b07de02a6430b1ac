//! A disk in memory that dies at a chosen call and then shows what such a disk may show.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Dir, Disk, DiskFile};
use crate::prng::Prng;

const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    now: Vec<u8>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct Names {
    durable: BTreeMap<String, usize>,
    now: BTreeMap<String, usize>,
    pending: Vec<NameOp>,
}

impl Names {
    fn run(map: &mut BTreeMap<String, usize>, op: &NameOp) {
        match op {
            NameOp::Link(name, inode) => {
                map.insert(name.clone(), *inode);
            }
            NameOp::Rename(from, to) => {
                if let Some(inode) = map.remove(from) {
                    map.insert(to.clone(), inode);
                }
            }
            NameOp::Remove(name) => {
                map.remove(name);
            }
        }
    }

    fn push(&mut self, op: NameOp) {
        Self::run(&mut self.now, &op);
        self.pending.push(op);
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    dirs: BTreeMap<Dir, Names>,
    /// Changing calls so far.
    calls: u64,
    /// The changing call at which the disk dies.
    dies_at: Option<u64>,
    /// Bytes of the longest write so far.
    longest_write: usize,
    /// Bytes that may still be written.
    room: Option<usize>,
    prng: Option<Prng>,
}

impl State {
    /// Counts a changing call; an error from the one on at which the disk dies.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.dies_at {
            Some(at) if self.calls >= at => Err(io::Error::other("the test disk has died")),
            _ => Ok(()),
        }
    }

    fn dir(&mut self, dir: Dir) -> &mut Names {
        self.dirs.entry(dir).or_default()
    }
}

#[derive(Clone, Debug)]
pub(super) struct TestDisk(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct TestFile {
    disk: TestDisk,
    inode: usize,
}

impl TestDisk {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes the `at`-th changing call from now on and all later ones fail, the first half-done.
    pub(super) fn die_at(&self, at: u64, seed: u64) {
        let mut state = self.state();
        state.dies_at = Some(state.calls + at);
        state.prng = Some(Prng::new(seed));
    }

    /// Bytes of the longest write so far.
    pub(super) fn longest_write(&self) -> usize {
        self.state().longest_write
    }

    /// Lets `room` more bytes be written.
    pub(super) fn fill_up(&self, room: usize) {
        self.state().room = Some(room);
    }

    /// What is found after power came back.
    pub(super) fn after_crash(&self, seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let mut state = self.state().clone();
        for names in state.dirs.values_mut() {
            let mut map = names.durable.clone();
            for op in &names.pending {
                if prng.one_in(2) {
                    Names::run(&mut map, op);
                }
            }
            *names = Names {
                durable: map.clone(),
                now: map,
                pending: Vec::new(),
            };
        }
        for inode in &mut state.inodes {
            let mut after = inode.durable.clone();
            let lengths = (inode.durable.len() as u64, inode.now.len() as u64);
            let length = prng.between(lengths.0.min(lengths.1), lengths.0.max(lengths.1));
            let keep = prng.below(4);
            after.resize(usize::try_from(length).unwrap(), 0);
            for start in (0..after.len()).step_by(SECTOR) {
                if keep == 0 || prng.below(4) < keep {
                    let end = after.len().min(inode.now.len()).min(start + SECTOR);
                    if start < end {
                        after[start..end].copy_from_slice(&inode.now[start..end]);
                    }
                }
            }
            *inode = Inode {
                durable: after.clone(),
                now: after,
            };
        }
        state.calls = 0;
        state.dies_at = None;
        state.room = None;
        Self(Arc::new(Mutex::new(state)))
    }

    /// Puts a file there, durably.
    pub(super) fn put(&self, dir: Dir, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode {
            durable: bytes.to_vec(),
            now: bytes.to_vec(),
        });
        let names = state.dir(dir);
        names.durable.insert(name.to_owned(), inode);
        names.now.insert(name.to_owned(), inode);
    }

    /// The bytes of a file.
    pub(super) fn get(&self, dir: Dir, name: &str) -> Vec<u8> {
        let mut state = self.state();
        let inode = state.dir(dir).now[name];
        state.inodes[inode].now.clone()
    }

    /// Changes a file behind everybody's back.
    pub(super) fn edit(&self, dir: Dir, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.get(dir, name);
        edit(&mut bytes);
        self.put(dir, name, &bytes);
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, dir: Dir) -> Vec<String> {
        self.state().dir(dir).now.keys().cloned().collect()
    }
}

impl Disk for TestDisk {
    type File = TestFile;

    fn list(&self, dir: Dir) -> io::Result<Vec<String>> {
        Ok(self.names(dir))
    }

    fn open(&self, dir: Dir, name: &str) -> io::Result<TestFile> {
        let inode = self.state().dir(dir).now.get(name).copied();
        inode
            .map(|inode| TestFile {
                disk: self.clone(),
                inode,
            })
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, dir: Dir, name: &str) -> io::Result<TestFile> {
        let mut state = self.state();
        state.call()?;
        let existing = state.dir(dir).now.get(name).copied();
        let inode = if let Some(inode) = existing {
            state.inodes[inode].now.clear();
            inode
        } else {
            let inode = state.inodes.len();
            state.inodes.push(Inode::default());
            state.dir(dir).push(NameOp::Link(name.to_owned(), inode));
            inode
        };
        drop(state);
        Ok(TestFile {
            disk: self.clone(),
            inode,
        })
    }

    fn rename(&self, dir: Dir, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        if !state.dir(dir).now.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state
            .dir(dir)
            .push(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        if !state.dir(dir).now.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.dir(dir).push(NameOp::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let names = state.dir(dir);
        names.durable = names.now.clone();
        names.pending.clear();
        Ok(())
    }

    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        PathBuf::from(match dir {
            Dir::Snap => "snap",
            Dir::Log => "log",
        })
        .join(name)
    }
}

impl DiskFile for TestFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let bytes = &state.inodes[self.inode].now;
        let from = usize::try_from(offset).unwrap().min(bytes.len());
        let count = into.len().min(bytes.len() - from);
        into[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut result = state.call();
        let mut count = bytes.len();
        state.longest_write = state.longest_write.max(count);
        if result.is_err() && state.dies_at == Some(state.calls) {
            let prng = state.prng.as_mut().unwrap();
            count = usize::try_from(prng.between(0, count as u64)).unwrap();
        } else if result.is_err() {
            count = 0;
        }
        if let Some(room) = &mut state.room {
            if count > *room {
                count = *room;
                result = Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
        }
        let offset = usize::try_from(offset).unwrap();
        let file = &mut state.inodes[self.inode].now;
        if count > 0 && file.len() < offset + count {
            file.resize(offset + count, 0);
        }
        file.get_mut(offset..offset + count)
            .unwrap_or_default()
            .copy_from_slice(&bytes[..count]);
        result
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call()?;
        state.inodes[self.inode]
            .now
            .resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call()?;
        let inode = &mut state.inodes[self.inode];
        inode.durable = inode.now.clone();
        Ok(())
    }
}
