//! Reading a snapshot back, and checking all of it.

mod divided;

use std::io::{self, Read};
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use simd_adler32::Adler32;

use super::super::StorageError;
use super::super::disk::{Dir, Disk, DiskFile, read_full};
use super::{
    CHUNK, Compression, DIGEST_VERSION, SNAPPY_BLOCK_MAX, SNAPPY_HEADER, SNAPPY_MAGIC,
    SnapshotFile, parse_name, seal,
};
use crate::ids::Zxid;
use crate::jute::{DecodeError, Reader, Record};
use crate::record::persistence::FileHeader;
use crate::tree::{DataTree, SnapshotLoader};

/// So many nodes say how large the others will be.
const SAMPLE: usize = 1000;
/// The trailers are tens of bytes; more than this is not read.
const TRAILERS_MAX: usize = 4096;

/// The digest of a tree and the zxid at which it was that.
type DigestAt = (Zxid, i64);

/// A snapshot read back.
#[derive(Debug)]
pub(in crate::storage) struct Loaded {
    /// Its last processed zxid is the snapshot's name.
    pub tree: DataTree,
    /// The digest trailer, if there is one of the known formula.
    pub digest: Option<DigestAt>,
}

/// Reads and checks a whole snapshot.
pub(in crate::storage) fn load<D: Disk>(
    disk: &D,
    found: &SnapshotFile,
) -> Result<Loaded, StorageError> {
    let mut input = Input::open(disk, found, true)?;
    let mut loaded = input.load(found.zxid);
    if loaded.is_err() && input.was_divided {
        // What is unusual about a file, or wrong, one thread alone finds out, from the beginning.
        loaded = Input::open(disk, found, false)?.load(found.zxid);
    }
    loaded
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
    /// Whether a second thread may help with a long one.
    may_divide: bool,
    was_divided: bool,
}

impl<F: DiskFile> Input<F> {
    fn open<D: Disk<File = F>>(
        disk: &D,
        found: &SnapshotFile,
        may_divide: bool,
    ) -> Result<Self, StorageError> {
        let path = disk.path(Dir::Snap, &found.name);
        let file = disk
            .open(Dir::Snap, &found.name)
            .map_err(|e| StorageError::io("open", &path, e))?;
        let compression = parse_name(&found.name).map_or(Compression::None, |(_, c)| c);
        let size = match compression {
            Compression::None => file.size().ok(),
            Compression::Gzip | Compression::Snappy => None,
        };
        Ok(Self {
            size,
            source: Source::new(file, compression),
            path,
            chunk: vec![0; CHUNK],
            filled: 0,
            taken: 0,
            offset: 0,
            adler: Adler32::new(),
            may_divide,
            was_divided: false,
        })
    }

    fn load(&mut self, zxid: Zxid) -> Result<Loaded, StorageError> {
        self.header()?;
        let mut tree = self.body()?;
        self.seal()?;
        let digest = self.trailers()?;
        tree.set_last_processed_zxid(zxid);
        Ok(Loaded { tree, digest })
    }

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
                if self.may_divide
                    && let Some(unpacker) = loader.split()
                {
                    self.was_divided = true;
                    divided::rest_of_body(self, unpacker, &mut loader)?;
                    break;
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StorageOptions;
    use crate::storage::snapshot::{list, write_tree};
    use crate::storage::test_disk::TestDisk;
    use crate::storage::tests::long_snapshots::written;

    #[test]
    fn the_work_on_a_long_snapshot_is_divided_if_it_may_be() {
        let disk = TestDisk::new();
        let file = written(&disk, Compression::None);
        let digests = [false, true].map(|may_divide| {
            let mut input = Input::open(&disk, &file, may_divide).unwrap();
            let loaded = input.load(file.zxid).unwrap();
            assert_eq!(input.was_divided, may_divide);
            (loaded.tree.digest(), loaded.digest)
        });
        assert_eq!(digests[0], digests[1]);
    }

    #[test]
    fn a_short_snapshot_is_not_worth_a_thread() {
        let disk = TestDisk::new();
        write_tree(&disk, &DataTree::new(), Zxid(3), &StorageOptions::default()).unwrap();
        let file = list(&disk).unwrap().remove(0);
        let mut input = Input::open(&disk, &file, true).unwrap();
        input.load(file.zxid).unwrap();
        assert!(!input.was_divided);
    }
}
