//! The txn log: what is promised, in the order it was promised.
//!
//! A file `log.<hex zxid of its first txn>` is
//!
//! ```text
//! 16 bytes   "ZKLG", i32 version 2, i64 dbid 0              (only the magic is checked)
//! then, for each txn
//!  8 bytes   i64 Adler-32 of the txn's bytes                (high half 0)
//!  4 bytes   i32 length
//!  n bytes   TxnHeader, body, optional TxnDigest
//!  1 byte    'B'
//! then       zeros: a length of 0 ends the file, as its end does
//! ```
//!
//! The writer starts a new file at the first txn after opening, a roll or a truncation, never
//! appends to a file it did not start, and makes header and name durable before the first txn, so
//! that a file with a torn header never held one. Files grow as Apache's do: by `preAllocSize`, 16
//! bytes more than a multiple of it, padded with zeros for ever. The next 256 KiB of those zeros
//! are really written, the rest is a hole: `fdatasync` then has no block to allocate (135 µs
//! against 200 µs for a file that grows, measured on ext4), and an idle server keeps its disk.
//! They are written page by page: a page cache that keeps large folios would make one of all 256 KiB,
//! and account all of it as written at every sync of one page.
//!
//! The reader stops a file at its end as Apache does, and then looks at what is there instead:
//! [`super::damage`] tells a torn tail from corruption. Counterpart: `FileTxnLog`, `FilePadding`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::StorageError;
use super::damage::{self, Verdict};
use super::disk::{Dir, Disk, DiskFile, read_full};
use crate::ids::Zxid;
use crate::jute::Record;
use crate::record::persistence::FileHeader;

/// Bytes of a record that are not the txn: checksum, length, end mark.
pub(super) const FRAME_LEN: usize = 8 + 4 + 1;
/// The byte behind every record.
pub(super) const END_OF_RECORD: u8 = b'B';
/// The shortest txn: a header.
pub(super) const TXN_MIN: usize = 32;
/// How far ahead of the last record zeros are really written.
const FILL_STEP: u64 = 256 * 1024;
/// A page of zeros; pages of this size are what the kernel keeps of them.
static PAGE: [u8; 4096] = [0; 4096];
/// Apache extends a file when less than this is left of it.
const PADDING_MARGIN: u64 = 4096;
/// How much of a file is read at once.
const CHUNK: usize = 1024 * 1024;
/// A batch buffer that grew beyond this is given back.
const BATCH_KEPT: usize = 4 * 1024 * 1024;

/// The name of the log that begins with `first`.
pub(super) fn file_name(first: Zxid) -> String {
    format!("log.{:x}", first.0)
}

/// The first zxid of a log, by its name.
pub(super) fn first_zxid(name: &str) -> Option<Zxid> {
    parse_hex(name.strip_prefix("log.")?)
}

/// A zxid as file names spell it.
pub(super) fn parse_hex(text: &str) -> Option<Zxid> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(text, 16).ok().map(Zxid)
}

/// All logs in ascending order.
pub(super) fn list<D: Disk>(disk: &D) -> Result<Vec<(Zxid, String)>, StorageError> {
    let names = disk
        .list(Dir::Log)
        .map_err(|e| StorageError::io("list", &disk.path(Dir::Log, ""), e))?;
    let mut logs: Vec<_> = names
        .into_iter()
        .filter_map(|name| first_zxid(&name).map(|zxid| (zxid, name)))
        .collect();
    logs.sort();
    Ok(logs)
}

/// The writing end: collects txns and puts each batch on disk with one write and one sync.
#[derive(Debug)]
pub(super) struct LogWriter<D: Disk> {
    disk: D,
    /// `preAllocSize`; 0 lets files grow with their records.
    prealloc_bytes: u64,
    force_sync: bool,
    /// The file being written; `None` until the next append starts one.
    file: Option<OpenLog<D::File>>,
    /// The next append starts a new file.
    roll: bool,
    /// Records not written yet; they go to `file` at its `position`.
    batch: Vec<u8>,
}

#[derive(Debug)]
struct OpenLog<F> {
    file: F,
    path: PathBuf,
    /// End of what has been written.
    position: u64,
    /// Up to here the file's blocks exist; `position <= filled`.
    filled: u64,
    /// The file's length; `filled <= length` unless padding is off.
    length: u64,
}

impl<D: Disk> LogWriter<D> {
    pub(super) fn new(disk: D, prealloc_bytes: u64, force_sync: bool) -> Self {
        Self {
            disk,
            prealloc_bytes,
            force_sync,
            file: None,
            roll: false,
            batch: Vec::new(),
        }
    }

    /// Adds a txn to the batch. Touches the disk only to start a new file.
    pub(super) fn append(&mut self, zxid: Zxid, txn: &[u8]) -> Result<(), StorageError> {
        if self.roll || self.file.is_none() {
            self.sync()?;
            self.file = None;
            self.roll = false;
            self.file = Some(self.start(zxid)?);
        }
        let length = i32::try_from(txn.len())
            .expect("a txn is far below 2 GiB: it came through a jute length limit");
        self.batch
            .extend_from_slice(&i64::from(simd_adler32::adler32(&txn)).to_be_bytes());
        self.batch.extend_from_slice(&length.to_be_bytes());
        self.batch.extend_from_slice(txn);
        self.batch.push(END_OF_RECORD);
        Ok(())
    }

    /// Makes every appended txn durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let log = self
            .file
            .as_mut()
            .expect("append starts a file before it adds to the batch");
        log.write(&self.batch, self.prealloc_bytes)?;
        self.batch.clear();
        self.batch.shrink_to(BATCH_KEPT);
        if self.force_sync {
            log.file
                .sync()
                .map_err(|e| StorageError::io("sync", &log.path, e))?;
        }
        Ok(())
    }

    /// Starts a new file with the next append.
    pub(super) fn roll(&mut self) {
        self.roll = true;
    }

    /// Whether nothing waits for a sync.
    pub(super) fn is_synced(&self) -> bool {
        self.batch.is_empty()
    }

    /// Starts the file of `first`: header and name are durable when this returns.
    fn start(&self, first: Zxid) -> Result<OpenLog<D::File>, StorageError> {
        let name = file_name(first);
        let path = self.disk.path(Dir::Log, &name);
        self.refuse_to_overwrite(&name, &path)?;
        let file = self
            .disk
            .create(Dir::Log, &name)
            .map_err(|e| StorageError::io("create", &path, e))?;
        let mut log = OpenLog {
            file,
            path,
            position: 0,
            filled: 0,
            length: FileHeader::LEN as u64,
        };
        log.write(&FileHeader::log().to_vec(), self.prealloc_bytes)?;
        if self.force_sync {
            log.file
                .sync()
                .map_err(|e| StorageError::io("sync", &log.path, e))?;
            self.disk
                .sync_dir(Dir::Log)
                .map_err(|e| StorageError::io("sync the directory of", &log.path, e))?;
        }
        Ok(log)
    }

    /// A file of the same name can only be one that never got its first record, or lost it to a
    /// truncation. Anything else is history, and is not written over.
    fn refuse_to_overwrite(&self, name: &str, path: &Path) -> Result<(), StorageError> {
        let file = match self.disk.open(Dir::Log, name) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(StorageError::io("open", path, e)),
        };
        let mut reader = FileReader::new(file, path.to_owned())?;
        let holds_records =
            reader.header()? == Header::Good && matches!(reader.next(), Ok(Step::Record(_)));
        if holds_records {
            return Err(StorageError::Layout {
                path: path.to_owned(),
                what: "the log that would be started here exists and holds txns".to_owned(),
            });
        }
        Ok(())
    }
}

impl<F: DiskFile> OpenLog<F> {
    /// Writes `batch` at the end, and zeros ahead of it where they are due.
    fn write(&mut self, batch: &[u8], prealloc_bytes: u64) -> Result<(), StorageError> {
        let end = self.position + batch.len() as u64;
        if prealloc_bytes > 0 {
            // Apache looks before each record where we look once per batch; the sizes are the same
            // multiples.
            let mut length = self.length;
            while end + PADDING_MARGIN >= length {
                length += prealloc_bytes;
            }
            if length != self.length {
                self.file
                    .set_len(length)
                    .map_err(|e| StorageError::io("extend", &self.path, e))?;
                self.length = length;
            }
        }
        self.write_at(self.position, batch)?;
        self.position = end;
        let is_new = end > self.filled;
        self.filled = self.filled.max(end);
        if prealloc_bytes > 0 && is_new && (batch.len() as u64) < FILL_STEP {
            self.fill()?;
        }
        Ok(())
    }

    /// Writes zeros ahead of the last record.
    fn fill(&mut self) -> Result<(), StorageError> {
        let page = PAGE.len() as u64;
        let to = self.length.min(self.filled + FILL_STEP);
        while self.filled < to {
            let rest = (page - self.filled % page).min(to - self.filled);
            let zeros = usize::try_from(rest).map_or(&PAGE[..], |rest| &PAGE[..rest]);
            self.write_at(self.filled, zeros)?;
            self.filled += rest;
        }
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.file
            .write_at(at, bytes)
            .map_err(|e| StorageError::io("write", &self.path, e))
    }
}

/// What the first 16 bytes of a log are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// A header.
    Good,
    /// The beginning of one and nothing else: the file was being started when the server died.
    Torn,
}

/// One txn of the log.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Its zxid, from the txn's header.
    pub zxid: Zxid,
    /// `TxnHeader`, body, optional `TxnDigest`: a slice of the chunk it was read with. Copy it to
    /// keep it.
    pub txn: Bytes,
    /// Where the record begins in its file.
    pub offset: u64,
}

/// What reading on in one file gave.
#[derive(Debug)]
pub(super) enum Step {
    Record(LogRecord),
    /// The file's records end here; `torn` if something unfinished stood behind them.
    End {
        offset: u64,
        torn: bool,
    },
}

/// Reads the records of one file in chunks.
#[derive(Debug)]
pub(super) struct FileReader<F> {
    file: F,
    path: PathBuf,
    size: u64,
    /// A piece of the file, of which the first `taken` bytes have been used.
    chunk: Bytes,
    taken: usize,
    /// Where in the file `chunk` ends.
    chunk_end: u64,
}

impl<F: DiskFile> FileReader<F> {
    pub(super) fn new(file: F, path: PathBuf) -> Result<Self, StorageError> {
        let size = file
            .size()
            .map_err(|e| StorageError::io("measure", &path, e))?;
        Ok(Self {
            file,
            path,
            size,
            chunk: Bytes::new(),
            taken: 0,
            chunk_end: 0,
        })
    }

    /// Where the next record begins.
    fn offset(&self) -> u64 {
        self.chunk_end - (self.chunk.len() - self.taken) as u64
    }

    /// Makes `count` bytes available if the file has them; gives how many are.
    fn want(&mut self, count: usize) -> Result<usize, StorageError> {
        let have = self.chunk.len() - self.taken;
        if have >= count || self.chunk_end >= self.size {
            return Ok(have);
        }
        let left = usize::try_from(self.size - self.chunk_end).unwrap_or(usize::MAX);
        let mut next = vec![0; have + left.min(CHUNK.max(count - have))];
        next[..have].copy_from_slice(&self.chunk[self.taken..]);
        let read = read_full(&self.file, self.chunk_end, &mut next[have..])
            .map_err(|e| StorageError::io("read", &self.path, e))?;
        next.truncate(have + read);
        self.chunk_end += read as u64;
        if next.len() < count {
            // The file became shorter than it said; its end is where reading stopped.
            self.size = self.size.min(self.chunk_end);
        }
        self.chunk = Bytes::from(next);
        self.taken = 0;
        Ok(self.chunk.len())
    }

    fn available(&self) -> &[u8] {
        &self.chunk[self.taken..]
    }

    /// Reads the header.
    pub(super) fn header(&mut self) -> Result<Header, StorageError> {
        self.want(FileHeader::LEN)?;
        let expected = FileHeader::log().to_vec();
        let found = self.available();
        if found.len() >= FileHeader::LEN && found[..4] == expected[..4] {
            self.taken += FileHeader::LEN;
            return Ok(Header::Good);
        }
        let found = &found[..found.len().min(FileHeader::LEN)];
        let same = found
            .iter()
            .zip(&expected)
            .take_while(|(a, b)| a == b)
            .count();
        let torn = found[same..].iter().all(|b| *b == 0)
            && damage::is_zero(&self.file, found.len() as u64, self.size)
                .map_err(|e| StorageError::io("read", &self.path, e))?;
        if torn {
            return Ok(Header::Torn);
        }
        Err(StorageError::corrupt(
            &self.path,
            0,
            "the magic ZKLG is expected at the start of a txn log".to_owned(),
        ))
    }

    /// Reads the next record.
    pub(super) fn next(&mut self) -> Result<Step, StorageError> {
        let offset = self.offset();
        if self.want(FRAME_LEN)? < FRAME_LEN {
            return self.end(offset, None);
        }
        let head = self.available();
        let checksum = i64::from_be_bytes(head[..8].try_into().expect("8 bytes of a slice"));
        let length = i32::from_be_bytes(head[8..12].try_into().expect("4 bytes of a slice"));
        if length == 0 {
            return self.end(offset, Some(length));
        }
        let Ok(count) = usize::try_from(length) else {
            return self.end(offset, Some(length));
        };
        let total = count + FRAME_LEN;
        if offset + total as u64 > self.size || self.want(total)? < total {
            return self.end(offset, Some(length));
        }
        let start = self.taken + 12;
        let payload = &self.chunk[start..start + count];
        if self.chunk[start + count] != END_OF_RECORD
            || i64::from(simd_adler32::adler32(&payload)) != checksum
        {
            return self.end(offset, Some(length));
        }
        if count < TXN_MIN {
            return Err(StorageError::corrupt(
                &self.path,
                offset,
                format!("a txn of {count} bytes, too short for its header"),
            ));
        }
        let zxid = i64::from_be_bytes(payload[12..20].try_into().expect("8 bytes of a slice"));
        let txn = self.chunk.slice(start..start + count);
        self.taken += total;
        Ok(Step::Record(LogRecord {
            zxid: Zxid(zxid),
            txn,
            offset,
        }))
    }

    /// What it means that no record stands at `offset`, where `length` was read for its length.
    #[cold]
    fn end(&mut self, offset: u64, length: Option<i32>) -> Result<Step, StorageError> {
        let verdict = damage::judge(&self.file, self.size, offset, length)
            .map_err(|e| StorageError::io("read", &self.path, e))?;
        match verdict {
            Verdict::End => Ok(Step::End {
                offset,
                torn: false,
            }),
            Verdict::Torn => Ok(Step::End { offset, torn: true }),
            Verdict::Corrupt(what) => Err(StorageError::corrupt(&self.path, offset, what)),
        }
    }
}

/// A place where a file's records end in an unfinished one, or a file whose header is unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TornTail {
    pub name: String,
    /// Where the good part ends; 0 for a file without header.
    pub offset: u64,
}

/// Reads records across files, from the first file that can hold `from`.
#[derive(Debug)]
pub struct LogReader<D: Disk> {
    disk: D,
    from: Zxid,
    /// Files not opened yet.
    files: VecDeque<(Zxid, String)>,
    current: Option<(String, FileReader<D::File>)>,
    torn: Vec<TornTail>,
}

impl<D: Disk> LogReader<D> {
    /// A reader of all records with a zxid of at least `from`.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn new(disk: &D, from: Zxid) -> Result<Self, StorageError> {
        let mut files: VecDeque<_> = list(disk)?.into();
        while files.get(1).is_some_and(|(first, _)| *first <= from) {
            files.pop_front();
        }
        Ok(Self {
            disk: disk.clone(),
            from,
            files,
            current: None,
            torn: Vec::new(),
        })
    }

    /// The next record, or `None` after the last.
    ///
    /// # Errors
    /// If a file cannot be read or is corrupt.
    pub fn next_record(&mut self) -> Result<Option<LogRecord>, StorageError> {
        loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some((name, reader)) = &mut self.current else {
                continue;
            };
            match reader.next()? {
                Step::Record(record) => {
                    if record.zxid >= self.from {
                        return Ok(Some(record));
                    }
                }
                Step::End { offset, torn } => {
                    if torn {
                        self.torn.push(TornTail {
                            name: name.clone(),
                            offset,
                        });
                    }
                    self.current = None;
                }
            }
        }
    }

    /// The file the last record came from.
    pub(super) fn file(&self) -> &str {
        self.current.as_ref().map_or("", |(name, _)| name)
    }

    /// The unfinished ends that were passed.
    pub(super) fn torn(&self) -> &[TornTail] {
        &self.torn
    }

    /// Opens the next file with a header; `false` if there is none left.
    fn open_next(&mut self) -> Result<bool, StorageError> {
        let Some((_, name)) = self.files.pop_front() else {
            return Ok(false);
        };
        let path = self.disk.path(Dir::Log, &name);
        let file = self
            .disk
            .open(Dir::Log, &name)
            .map_err(|e| StorageError::io("open", &path, e))?;
        let mut reader = FileReader::new(file, path)?;
        match reader.header()? {
            Header::Good => self.current = Some((name, reader)),
            Header::Torn => self.torn.push(TornTail { name, offset: 0 }),
        }
        Ok(true)
    }
}
