//! What it means when no whole record stands where one could: the end, a torn tail, or corruption.
//!
//! The law: what was synced is never taken for unfinished, and what a crash left unfinished never
//! stops a server. A crash loses unsynced writes in 512-byte sectors, in any order, and leaves zeros
//! (the writer only ever writes over zeros), so a tear shows one of two faces:
//!
//! - nothing intelligible follows, and the record's end is missing (Apache's rule as well);
//! - a whole sector of the record, or the rest of the one that holds its length, is zero. Records
//!   behind it may be whole: they belong to the same unsynced batch.
//!
//! Everything else is corruption: a checksum that fails on a record that is all there, a negative
//! length, a record without end mark and whole records after it. Apache 3.9 agrees except for that
//! last one, where it drops the rest of the file without a word.

use std::io;

use super::disk::{DiskFile, read_full};
use super::txn_log::{END_OF_RECORD, FRAME_LEN, TXN_MIN};

/// What a crash loses at a time.
const SECTOR: u64 = 512;
/// How far behind a clean end leftovers are looked for; a batch is never torn further out without
/// being torn nearer too.
const LOOK_AHEAD: u64 = 4 * 1024 * 1024;
/// How much is read at once.
const CHUNK: usize = 64 * 1024;
/// A record found behind damage must not claim to be longer than this.
const RECORD_MAX: usize = 64 * 1024 * 1024;

/// What stands at the place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: zeros or the end of the file.
    End,
    /// The unfinished write of a crash.
    Torn,
    /// Damage to what had been written; says what is wrong.
    Corrupt(String),
}

/// Judges `offset` of a file of `size` bytes, where no whole record stands; `length` is what stands
/// for its length, if the file reaches that far.
pub(super) fn judge(
    file: &impl DiskFile,
    size: u64,
    offset: u64,
    length: Option<i32>,
) -> io::Result<Verdict> {
    let Some(length) = length else {
        // Too short for an empty record.
        let zero = is_zero(file, offset, size)?;
        return Ok(if zero { Verdict::End } else { Verdict::Torn });
    };
    let Ok(count) = u64::try_from(length) else {
        return Ok(Verdict::Corrupt(format!(
            "a record length of {length}; expected 1 or more, or 0 at the end"
        )));
    };
    if count == 0 {
        return judge_zero_length(file, size, offset);
    }
    let end = offset + count + FRAME_LEN as u64;
    let next = find_record(file, offset + 1, size)?;
    // No record lies inside another: then it is the length that is wrong, and too large. A tear
    // only ever makes it smaller.
    let overlaps = next.is_some_and(|next| next < end);
    if !overlaps && lost_sector(file, size, offset, end)? {
        return Ok(Verdict::Torn);
    }
    if let Some(next) = next {
        let what = if end > size {
            format!("a record of {count} bytes, which would reach past the end of the file")
        } else {
            "a record whose checksum or end mark is wrong".to_owned()
        };
        return Ok(Verdict::Corrupt(format!(
            "{what}, followed by whole records from offset {next} on"
        )));
    }
    if end <= size && byte_at(file, end - 1)? == END_OF_RECORD {
        return Ok(Verdict::Corrupt(
            "a record whose checksum is wrong though it is all there".to_owned(),
        ));
    }
    Ok(Verdict::Torn)
}

/// A length of zero ends the file if zeros follow, or if it stands in a sector that was lost.
fn judge_zero_length(file: &impl DiskFile, size: u64, offset: u64) -> io::Result<Verdict> {
    if is_zero(file, offset, size.min(offset + LOOK_AHEAD))? {
        return Ok(Verdict::End);
    }
    // The length is at offset + 8; it may lie across two sectors.
    for byte in [offset + 8, offset + 11] {
        let sector = byte - byte % SECTOR;
        if is_zero(file, sector.max(offset), size.min(sector + SECTOR))? {
            return Ok(Verdict::Torn);
        }
    }
    Ok(match find_record(file, offset + 1, size)? {
        Some(next) => Verdict::Corrupt(format!(
            "a record length of 0, followed by whole records from offset {next} on"
        )),
        None => Verdict::Torn,
    })
}

/// Whether a sector that lies wholly or partly in `offset..end` is all zeros. What stands before
/// `offset` in its sector was synced earlier and does not count.
fn lost_sector(file: &impl DiskFile, size: u64, offset: u64, end: u64) -> io::Result<bool> {
    let mut sector = offset - offset % SECTOR;
    while sector < end.min(size) {
        let from = sector.max(offset);
        let to = sector + SECTOR;
        // The first 4 bytes of a record are zeros by themselves.
        if to - from > 4 && is_zero(file, from, size.min(to))? {
            return Ok(true);
        }
        sector = to;
    }
    Ok(false)
}

/// Whether `from..to` holds nothing but zeros.
pub(super) fn is_zero(file: &impl DiskFile, mut from: u64, to: u64) -> io::Result<bool> {
    let mut chunk = [0; CHUNK];
    while from < to {
        let want = usize::try_from(to - from).map_or(CHUNK, |left| left.min(CHUNK));
        let count = read_full(file, from, &mut chunk[..want])?;
        if chunk[..count].iter().any(|b| *b != 0) {
            return Ok(false);
        }
        if count < want {
            break;
        }
        from += count as u64;
    }
    Ok(true)
}

fn byte_at(file: &impl DiskFile, offset: u64) -> io::Result<u8> {
    let mut byte = [0];
    read_full(file, offset, &mut byte)?;
    Ok(byte[0])
}

/// Where the first whole record at or after `from` begins.
fn find_record(file: &impl DiskFile, from: u64, size: u64) -> io::Result<Option<u64>> {
    let mut window = vec![0; CHUNK];
    let mut start = from;
    while start < size {
        let count = read_full(file, start, &mut window)?;
        let Some(last) = count.checked_sub(FRAME_LEN) else {
            return Ok(None);
        };
        let mut at = 0;
        while at <= last {
            // A record has something in its length; behind a tear there are mostly zeros.
            let Some(zeros) = window[at..count].iter().position(|byte| *byte != 0) else {
                break;
            };
            at = at.max((at + zeros).saturating_sub(11));
            if at > last {
                break;
            }
            let head = &window[at..at + 12];
            let length = i32::from_be_bytes(head[8..12].try_into().expect("4 bytes of a slice"));
            let plausible = head[..4] == [0; 4]
                && usize::try_from(length).is_ok_and(|n| (TXN_MIN..RECORD_MAX).contains(&n));
            if plausible && is_record(file, size, start + at as u64, length)? {
                return Ok(Some(start + at as u64));
            }
            at += 1;
        }
        start += last as u64 + 1;
    }
    Ok(None)
}

fn is_record(file: &impl DiskFile, size: u64, offset: u64, length: i32) -> io::Result<bool> {
    let count = usize::try_from(length).expect("the caller has looked at the sign");
    if offset + (count + FRAME_LEN) as u64 > size
        || byte_at(file, offset + 12 + count as u64)? != END_OF_RECORD
    {
        return Ok(false);
    }
    let mut record = vec![0; count + 12];
    read_full(file, offset, &mut record)?;
    let checksum = i64::from(simd_adler32::adler32(&&record[12..]));
    Ok(record[..8] == checksum.to_be_bytes())
}
