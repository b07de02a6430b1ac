//! Snapshots: the tree at about one zxid, so that the log before it can go.
//!
//! A file `snapshot.<hex zxid>[.gz|.snappy]` is, uncompressed,
//!
//! ```text
//! 16 bytes   "ZKSN", i32 version 2, i64 dbid -1
//! body       sessions, ACLs, nodes, the terminator "/"      (crate::tree writes and reads it)
//! seal       i64 Adler-32 of every byte so far, str "/"
//! optional   i64 zxid, i32 2, i64 digest of the tree at that zxid; seal      (3.6 and later)
//! optional   i64 last zxid; seal                                            (3.9 and later)
//! ```
//!
//! The name is where replay starts. The tree may hold effects of later txns, because it is walked
//! while it changes; replaying them again gives the same tree.
//!
//! A snapshot is written to `<name>.tmp`, synced and renamed, always: Apache writes periodic ones in
//! place and lets a crash leave a short one. So a file without `.tmp` is whole here, and purging may
//! trust it. Counterpart: `FileSnap`, `SnapStream`.

mod read;

use std::io::{self, Write};
use std::path::PathBuf;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use simd_adler32::Adler32;

use super::disk::{Dir, Disk, DiskFile, read_full};
use super::epoch::TMP;
use super::txn_log::parse_hex;
use super::{StorageError, StorageOptions};
use crate::ids::Zxid;
use crate::jute::{Record, Writer};
use crate::record::persistence::FileHeader;
use crate::tree::{DataTree, SnapshotCursor};

pub(super) use read::{Loaded, load};

/// How much is read, and at least how much is written, at once.
const CHUNK: usize = 512 * 1024;
/// Nodes walked between two writes.
const WALK_STEP: usize = 4096;
/// What a snapshot ends with, compressed ones aside: the string of the last seal.
const TAIL: [u8; 5] = [0, 0, 0, 1, b'/'];
/// The shortest file that could be a snapshot, as Apache has it.
const SIZE_MIN: u64 = 10;
/// Version of the digest formula there is.
const DIGEST_VERSION: i32 = 2;

/// The start of every gzip file.
const GZ_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The start of every file of Java's `SnappyOutputStream`; two i32 with versions (1, 1) follow.
const SNAPPY_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Length of the snappy header.
const SNAPPY_HEADER: usize = 16;
/// How much goes into one snappy block, as in Java.
const SNAPPY_BLOCK: usize = 32 * 1024;
/// A longer block, in or out, is refused.
const SNAPPY_BLOCK_MAX: usize = 64 * 1024 * 1024;

/// How snapshots are written (`snapshot.compression.method`). Reading goes by the file's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip; `.gz`.
    Gzip,
    /// Snappy in Java's framing; `.snappy`.
    Snappy,
}

impl Compression {
    fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Snappy => ".snappy",
        }
    }
}

/// Bytes of a snapshot that may wait for their sync while clients are served. What a file system has to write for one
/// file holds up the sync of another, so a snapshot that is synced as a whole stops the log for as long as that takes.
const SYNC_STEP: u64 = 512 << 10;

/// The name of the snapshot at `zxid`.
fn file_name(zxid: Zxid, compression: Compression) -> String {
    format!("snapshot.{:x}{}", zxid.0, compression.suffix())
}

/// The zxid and compression of a snapshot, by its name.
fn parse_name(name: &str) -> Option<(Zxid, Compression)> {
    let rest = name.strip_prefix("snapshot.")?;
    let (hex, suffix) = rest.find('.').map_or((rest, ""), |dot| rest.split_at(dot));
    let compression = [Compression::None, Compression::Gzip, Compression::Snappy]
        .into_iter()
        .find(|c| c.suffix() == suffix)?;
    Some((parse_hex(hex)?, compression))
}

/// A snapshot in the directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SnapshotFile {
    /// Where replay starts.
    pub zxid: Zxid,
    pub name: String,
}

/// All snapshots, newest first; unfinished ones are not among them.
pub(super) fn list<D: Disk>(disk: &D) -> Result<Vec<SnapshotFile>, StorageError> {
    let names = disk
        .list(Dir::Snap)
        .map_err(|e| StorageError::io("list", &disk.path(Dir::Snap, ""), e))?;
    let mut files: Vec<_> = names
        .into_iter()
        .filter_map(|name| parse_name(&name).map(|(zxid, _)| SnapshotFile { zxid, name }))
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    Ok(files)
}

/// Whether a file is unfinished: one that a crash has left.
pub(super) fn is_tmp(name: &str) -> bool {
    name.strip_suffix(TMP)
        .is_some_and(|name| parse_name(name).is_some())
}

/// A look at the ends of a file: `None` if it may be a snapshot, else what speaks against it.
pub(super) fn implausible<D: Disk>(disk: &D, name: &str) -> io::Result<Option<String>> {
    let file = disk.open(Dir::Snap, name)?;
    let compression = parse_name(name).map_or(Compression::None, |(_, c)| c);
    let size = file.size()?;
    let (at, expected): (u64, &[u8]) = match compression {
        Compression::None if size < SIZE_MIN => {
            return Ok(Some(format!("{size} bytes are too few")));
        }
        Compression::None => (size - TAIL.len() as u64, &TAIL),
        Compression::Gzip => (0, &GZ_MAGIC),
        Compression::Snappy => (0, &SNAPPY_MAGIC),
    };
    let mut found = [0; SNAPPY_MAGIC.len()];
    let found = &mut found[..expected.len()];
    let count = read_full(&file, at, found)?;
    Ok((found[..count] != *expected).then(|| match compression {
        Compression::None => "it does not end with a seal: it was cut short".to_owned(),
        _ => format!("it does not begin as a {} file does", compression.suffix()),
    }))
}

/// Writes one snapshot, in pieces, beside whatever else goes on.
///
/// Drop or [`Self::abandon`] an unfinished one and nothing but a `.tmp` file remains.
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    file: D::File,
    name: String,
    tmp_path: PathBuf,
    /// Sum of the uncompressed bytes.
    adler: Adler32,
    encoder: Encoder,
    /// Bytes for the file not written yet.
    out: Vec<u8>,
    position: u64,
    /// Up to here the file is synced.
    synced: u64,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins the snapshot at `zxid`: the tree's last processed zxid before the walk begins.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn begin(disk: D, zxid: Zxid, compression: Compression) -> Result<Self, StorageError> {
        let name = file_name(zxid, compression);
        let tmp = format!("{name}{TMP}");
        let tmp_path = disk.path(Dir::Snap, &tmp);
        let file = disk
            .create(Dir::Snap, &tmp)
            .map_err(|e| StorageError::io("create", &tmp_path, e))?;
        let mut out = Vec::new();
        let encoder = Encoder::new(compression, &mut out);
        let mut writer = Self {
            disk,
            file,
            name,
            tmp_path,
            adler: Adler32::new(),
            encoder,
            out,
            position: 0,
            synced: 0,
        };
        writer.write_chunk(&FileHeader::snapshot().to_vec())?;
        Ok(writer)
    }

    /// Adds a piece of the body, as the tree's walk gives it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_chunk(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.adler.write(bytes);
        self.encoder
            .write(bytes, &mut self.out)
            .map_err(|e| StorageError::io("compress", &self.tmp_path, e))?;
        if self.out.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    /// Syncs what was written, if that is enough to hold others up later. Says whether it did.
    ///
    /// # Errors
    /// If the file cannot be synced.
    pub fn sync_in_steps(&mut self) -> Result<bool, StorageError> {
        if self.position - self.synced < SYNC_STEP {
            return Ok(false);
        }
        self.file
            .sync()
            .map_err(|e| StorageError::io("sync", &self.tmp_path, e))?;
        self.synced = self.position;
        Ok(true)
    }

    /// Adds seal and trailers after the last piece and gives the file its name; returns the name.
    ///
    /// `digest` is the tree's digest and the zxid at which it was that, taken at the end of the
    /// walk, and `last` the tree's last zxid then (both `None` where digests are off: Apache reads
    /// the trailers in this order and expects none behind a missing one). With `sync` the snapshot
    /// is durable when this returns.
    ///
    /// # Errors
    /// If the file cannot be written, synced or renamed.
    pub fn finish(
        mut self,
        digest: Option<(Zxid, i64)>,
        last: Option<Zxid>,
        sync: bool,
    ) -> Result<String, StorageError> {
        self.seal()?;
        if let Some((zxid, digest)) = digest {
            let mut trailer = Vec::new();
            let mut out = Writer::new(&mut trailer);
            out.long(zxid.0);
            out.int(DIGEST_VERSION);
            out.long(digest);
            self.write_chunk(&trailer)?;
            self.seal()?;
            if let Some(last) = last {
                self.write_chunk(&last.0.to_be_bytes())?;
                self.seal()?;
            }
        }
        self.encoder
            .finish(&mut self.out)
            .map_err(|e| StorageError::io("compress", &self.tmp_path, e))?;
        self.flush()?;
        if sync {
            self.file
                .sync()
                .map_err(|e| StorageError::io("sync", &self.tmp_path, e))?;
        }
        let tmp = format!("{}{TMP}", self.name);
        self.disk
            .rename(Dir::Snap, &tmp, &self.name)
            .map_err(|e| StorageError::io("rename", &self.tmp_path, e))?;
        if sync {
            self.disk
                .sync_dir(Dir::Snap)
                .map_err(|e| StorageError::io("sync the directory of", &self.tmp_path, e))?;
        }
        Ok(self.name)
    }

    /// Gives up and removes what was written; the disk may be full.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn abandon(self) -> Result<(), StorageError> {
        self.disk
            .remove(Dir::Snap, &format!("{}{TMP}", self.name))
            .map_err(|e| StorageError::io("remove", &self.tmp_path, e))
    }

    fn seal(&mut self) -> Result<(), StorageError> {
        let seal = seal(&self.adler);
        self.write_chunk(&seal)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file
            .write_at(self.position, &self.out)
            .map_err(|e| StorageError::io("write", &self.tmp_path, e))?;
        self.position += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }
}

/// Writes a whole tree that does not change meanwhile as the snapshot at `zxid`.
pub(super) fn write_tree<D: Disk>(
    disk: &D,
    tree: &DataTree,
    zxid: Zxid,
    options: &StorageOptions,
) -> Result<String, StorageError> {
    let mut writer = SnapshotWriter::begin(disk.clone(), zxid, options.compression)?;
    let mut cursor = SnapshotCursor::new();
    let mut chunk = Vec::new();
    loop {
        let done = cursor.next_chunk(tree, &mut chunk, WALK_STEP);
        writer.write_chunk(&chunk)?;
        chunk.clear();
        if done {
            break;
        }
    }
    // The very first snapshot says "no digest", as Apache's does.
    let digest = if zxid == Zxid::ZERO { 0 } else { tree.digest() };
    let digest = options.digest_enabled.then_some((zxid, digest));
    writer.finish(digest, Some(zxid), options.force_sync)
}

/// Turns uncompressed bytes into the file's.
#[derive(Debug)]
enum Encoder {
    None,
    Gzip(GzEncoder<Vec<u8>>),
    /// The block being filled.
    Snappy(Vec<u8>),
}

impl Encoder {
    fn new(compression: Compression, out: &mut Vec<u8>) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Level::default())),
            Compression::Snappy => {
                out.extend_from_slice(&SNAPPY_MAGIC);
                out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                Self::Snappy(Vec::with_capacity(SNAPPY_BLOCK))
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::None => out.extend_from_slice(bytes),
            Self::Gzip(gz) => {
                gz.write_all(bytes)?;
                out.append(gz.get_mut());
            }
            Self::Snappy(block) => {
                while !bytes.is_empty() {
                    let count = bytes.len().min(SNAPPY_BLOCK - block.len());
                    block.extend_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    if block.len() == SNAPPY_BLOCK {
                        Self::put_block(block, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn put_block(block: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        let packed = snap::raw::Encoder::new()
            .compress_vec(block)
            .map_err(io::Error::other)?;
        let length = i32::try_from(packed.len()).expect("a packed 32 KiB block is not 2 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&packed);
        block.clear();
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Gzip(gz) => {
                gz.try_finish()?;
                out.append(gz.get_mut());
                Ok(())
            }
            Self::Snappy(block) if block.is_empty() => Ok(()),
            Self::Snappy(block) => Self::put_block(block, out),
        }
    }
}

/// The seal behind bytes of that sum.
fn seal(sum: &Adler32) -> [u8; 8 + TAIL.len()] {
    let mut seal = [0; 8 + TAIL.len()];
    seal[..8].copy_from_slice(&i64::from(sum.finish()).to_be_bytes());
    seal[8..].copy_from_slice(&TAIL);
    seal
}
