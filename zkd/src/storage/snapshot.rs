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

use std::io::{self, Read, Write};
use std::path::PathBuf;

use flate2::Compression as Level;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use simd_adler32::Adler32;

use super::disk::{Dir, Disk, DiskFile, read_full};
use super::epoch::TMP;
use super::txn_log::parse_hex;
use super::{StorageError, StorageOptions};
use crate::ids::Zxid;
use crate::jute::{DecodeError, Reader, Record, Writer};
use crate::record::persistence::FileHeader;
use crate::tree::{DataTree, SnapshotCursor, SnapshotLoader};

/// How much is read, and at least how much is written, at once.
const CHUNK: usize = 512 * 1024;
/// So many nodes say how large the others will be.
const SAMPLE: usize = 1000;
/// Nodes walked between two writes.
const WALK_STEP: usize = 4096;
/// What a snapshot ends with, compressed ones aside: the string of the last seal.
const TAIL: [u8; 5] = [0, 0, 0, 1, b'/'];
/// The shortest file that could be a snapshot, as Apache has it.
const SIZE_MIN: u64 = 10;
/// Version of the digest formula there is.
const DIGEST_VERSION: i32 = 2;
/// The trailers are tens of bytes; more than this is not read.
const TRAILERS_MAX: usize = 4096;

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

/// The digest of a tree and the zxid at which it was that.
type DigestAt = (Zxid, i64);

/// A snapshot read back.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Its last processed zxid is the snapshot's name.
    pub tree: DataTree,
    /// The digest trailer, if there is one of the known formula.
    pub digest: Option<DigestAt>,
}

/// Reads and checks a whole snapshot.
pub(super) fn load<D: Disk>(disk: &D, found: &SnapshotFile) -> Result<Loaded, StorageError> {
    let path = disk.path(Dir::Snap, &found.name);
    let file = disk
        .open(Dir::Snap, &found.name)
        .map_err(|e| StorageError::io("open", &path, e))?;
    let compression = parse_name(&found.name).map_or(Compression::None, |(_, c)| c);
    let size = match compression {
        Compression::None => file.size().ok(),
        Compression::Gzip | Compression::Snappy => None,
    };
    let mut input = Input {
        size,
        source: Source::new(file, compression),
        path,
        chunk: vec![0; CHUNK],
        filled: 0,
        taken: 0,
        offset: 0,
        adler: Adler32::new(),
    };
    input.header()?;
    let mut tree = input.body()?;
    input.seal()?;
    let digest = input.trailers()?;
    tree.set_last_processed_zxid(found.zxid);
    Ok(Loaded { tree, digest })
}

/// The uncompressed bytes of a snapshot, summed as they are used.
struct Input<F> {
    source: Source<F>,
    /// How many there are, where that is known before.
    size: Option<u64>,
    path: PathBuf,
    chunk: Vec<u8>,
    /// `chunk[taken..filled]` is still to be used.
    filled: usize,
    taken: usize,
    /// How much has been used, of the uncompressed bytes.
    offset: u64,
    adler: Adler32,
}

impl<F: DiskFile> Input<F> {
    /// What is there, at least one byte unless the file is over.
    fn more(&mut self) -> Result<&[u8], StorageError> {
        if self.taken == self.filled {
            self.taken = 0;
            self.filled = self.source.read(&mut self.chunk).map_err(|e| {
                // A decompressor says of bad input what an operating system says of a bad disk.
                StorageError::io("read", &self.path, e)
            })?;
        }
        Ok(&self.chunk[self.taken..self.filled])
    }

    fn used(&mut self, count: usize) {
        self.adler
            .write(&self.chunk[self.taken..self.taken + count]);
        self.taken += count;
        self.offset += count as u64;
    }

    fn corrupt(&self, what: impl Into<String>) -> StorageError {
        StorageError::corrupt(&self.path, self.offset, what.into())
    }

    /// Takes up to `count` bytes, fewer only at the end of the file.
    fn take(&mut self, count: usize) -> Result<Vec<u8>, StorageError> {
        let mut out = Vec::with_capacity(count);
        while out.len() < count {
            let have = self.more()?;
            if have.is_empty() {
                break;
            }
            let part = &have[..have.len().min(count - out.len())];
            out.extend_from_slice(part);
            let part = part.len();
            self.used(part);
        }
        Ok(out)
    }

    fn header(&mut self) -> Result<(), StorageError> {
        let found = self.take(FileHeader::LEN)?;
        let good = FileHeader::from_slice(&found)
            .is_ok_and(|header| header.magic == FileHeader::SNAPSHOT_MAGIC);
        if good {
            Ok(())
        } else {
            Err(self.corrupt("the magic ZKSN is expected at the start of a snapshot"))
        }
    }

    fn body(&mut self) -> Result<DataTree, StorageError> {
        let mut loader = SnapshotLoader::new();
        let mut reserved = false;
        loop {
            let piece = self.more()?;
            if piece.is_empty() {
                return Err(self.corrupt("the snapshot ends inside the tree"));
            }
            let progress = match loader.feed(piece) {
                Ok(progress) => progress,
                Err(e) => return Err(self.corrupt(e.to_string())),
            };
            self.used(progress.consumed);
            if progress.done {
                break;
            }
            if !reserved && loader.node_count() >= SAMPLE {
                let left = self.size.unwrap_or(0).saturating_sub(self.offset);
                let count = left * loader.node_count() as u64 / self.offset;
                loader.reserve(usize::try_from(count).unwrap_or(0));
                reserved = true;
            }
        }
        loader.finish().map_err(|e| self.corrupt(e.to_string()))
    }

    fn seal(&mut self) -> Result<(), StorageError> {
        let expected = seal(&self.adler);
        let found = self.take(expected.len())?;
        if found == expected {
            Ok(())
        } else {
            Err(self.corrupt("the seal before here does not hold: the tree or the seal is damaged"))
        }
    }

    /// Reads the trailers there are; gives the digest. What follows them was written by something
    /// newer and is ignored.
    fn trailers(&mut self) -> Result<Option<DigestAt>, StorageError> {
        let sum = self.adler.clone();
        let bytes = self.take(TRAILERS_MAX)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        // A writer without digests may still have put its last zxid there.
        if last_zxid_trailer(&bytes, &mut sum.clone()).is_ok() {
            return Ok(None);
        }
        let mut sum = sum;
        digest_trailer(&bytes, &mut sum)
            .and_then(|(digest, rest)| {
                if !rest.is_empty() {
                    last_zxid_trailer(rest, &mut sum)?;
                }
                Ok(digest)
            })
            .map_err(|what| self.corrupt(what))
    }
}

/// Reads the trailer with the digest; gives it if its formula is known, and what follows.
fn digest_trailer<'a>(
    bytes: &'a [u8],
    sum: &mut Adler32,
) -> Result<(Option<DigestAt>, &'a [u8]), String> {
    let mut reader = Reader::new(bytes);
    let mut read = || -> Result<_, DecodeError> {
        let zxid = Zxid(reader.long("digest zxid")?);
        let version = reader.int("digest version")?;
        if version < DIGEST_VERSION {
            // A hex string of an older formula.
            reader.string("digest")?;
            return Ok(None);
        }
        let digest = reader.long("digest")?;
        Ok((version == DIGEST_VERSION).then_some((zxid, digest)))
    };
    let digest = read().map_err(|e| format!("in the digest after the tree: {e}"))?;
    let rest = check_seal(bytes, reader.rest(), sum)?;
    Ok((digest, rest))
}

/// Reads the trailer with the last zxid, which nothing here needs, for the sake of its seal.
fn last_zxid_trailer(bytes: &[u8], sum: &mut Adler32) -> Result<(), String> {
    let mut reader = Reader::new(bytes);
    reader
        .long("last zxid")
        .map_err(|e| format!("after the tree and its digest: {e}"))?;
    check_seal(bytes, reader.rest(), sum).map(|_| ())
}

/// Checks the seal at the start of `rest`, the end of `bytes`, of which `sum` has seen nothing yet;
/// gives what follows it.
fn check_seal<'a>(bytes: &[u8], rest: &'a [u8], sum: &mut Adler32) -> Result<&'a [u8], String> {
    sum.write(&bytes[..bytes.len() - rest.len()]);
    let expected = seal(sum);
    let Some(after) = rest.strip_prefix(expected.as_slice()) else {
        return Err("a seal after the tree does not hold".to_owned());
    };
    sum.write(&expected);
    Ok(after)
}

/// The seal behind bytes of that sum.
fn seal(sum: &Adler32) -> [u8; 8 + TAIL.len()] {
    let mut seal = [0; 8 + TAIL.len()];
    seal[..8].copy_from_slice(&i64::from(sum.finish()).to_be_bytes());
    seal[8..].copy_from_slice(&TAIL);
    seal
}

/// The uncompressed bytes of a file.
enum Source<F> {
    None(FileSource<F>),
    Gzip(Box<MultiGzDecoder<FileSource<F>>>),
    Snappy(SnappySource<F>),
}

impl<F: DiskFile> Source<F> {
    fn new(file: F, compression: Compression) -> Self {
        let source = FileSource { file, offset: 0 };
        match compression {
            Compression::None => Self::None(source),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Snappy => Self::Snappy(SnappySource {
                source,
                block: Vec::new(),
                taken: 0,
                started: false,
            }),
        }
    }
}

impl<F: DiskFile> Read for Source<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(source) => source.read(into),
            Self::Gzip(source) => source.read(into),
            Self::Snappy(source) => source.read(into),
        }
    }
}

/// A file read from front to back.
struct FileSource<F> {
    file: F,
    offset: u64,
}

impl<F: DiskFile> Read for FileSource<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(self.offset, into)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Java's snappy framing: a header, then blocks with their packed length in front.
struct SnappySource<F> {
    source: FileSource<F>,
    /// `block[taken..]` is unpacked and still to be given out.
    block: Vec<u8>,
    taken: usize,
    started: bool,
}

impl<F: DiskFile> SnappySource<F> {
    /// Reads as much of `into` as the file has left.
    fn fill(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = read_full(&self.source.file, self.source.offset, into)?;
        self.source.offset += count as u64;
        Ok(count)
    }

    /// Unpacks the next block; `false` at the end of the file.
    fn next_block(&mut self) -> io::Result<bool> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if !self.started {
            let mut header = [0; SNAPPY_HEADER];
            if self.fill(&mut header)? < SNAPPY_HEADER || !header.starts_with(&SNAPPY_MAGIC) {
                return Err(bad("not a snappy file of Java's framing"));
            }
            self.started = true;
        }
        let mut length = [0; 4];
        match self.fill(&mut length)? {
            0 => return Ok(false),
            4 => {}
            _ => return Err(bad("the file ends inside the length of a snappy block")),
        }
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > SNAPPY_BLOCK_MAX {
            return Err(bad("a snappy block has an unreasonable length"));
        }
        let mut packed = vec![0; length];
        if self.fill(&mut packed)? < length {
            return Err(bad("the file ends inside a snappy block"));
        }
        if snap::raw::decompress_len(&packed)? > SNAPPY_BLOCK_MAX {
            return Err(bad("a snappy block unpacks to an unreasonable length"));
        }
        self.block = snap::raw::Decoder::new().decompress_vec(&packed)?;
        self.taken = 0;
        Ok(true)
    }
}

impl<F: DiskFile> Read for SnappySource<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = into.len().min(self.block.len() - self.taken);
        into[..count].copy_from_slice(&self.block[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
