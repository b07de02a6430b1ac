//! The vDSO as this process sees it: where its functions are, and where there is room.
//!
//! All processes of one word size have the same image, each at a place of its own. It is an ELF file in memory, with
//! its table of sections.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::code::{CLOCK_GETTIME, GETTIMEOFDAY, JUMP, PIECE, TIME};
use crate::failure::{Context, Failure};

/// `SHT_DYNSYM`.
const DYNAMIC_SYMBOLS: u32 = 11;
/// Bytes of a symbol.
const SYMBOL: usize = 24;
/// The functions that tell the wall clock's time, and what takes their place.
const TOLD_BY: [(&str, usize); 3] = [
    ("__vdso_clock_gettime", CLOCK_GETTIME),
    ("__vdso_gettimeofday", GETTIMEOFDAY),
    ("__vdso_time", TIME),
];

/// What has to be known of the vDSO.
#[derive(Debug)]
pub(super) struct Image {
    /// All of its bytes.
    bytes: Vec<u8>,
    /// Where functions begin, and where in the piece of code what takes their place does.
    functions: Vec<(usize, usize)>,
    /// Where the piece of code fits.
    pub(super) room: usize,
}

impl Image {
    /// That of this process.
    ///
    /// # Errors
    /// If this machine is not known, or its vDSO is not as expected.
    pub(super) fn own() -> Result<Self, Failure> {
        let cannot = |why: &str| {
            Failure::environment(format!("the clock of a server cannot be set here: {why}"))
        };
        if !cfg!(target_arch = "x86_64") {
            return Err(cannot(
                "it is done by instructions, and only those of x86-64 are written",
            ));
        }
        let (begin, end) = place("self")?.ok_or_else(|| {
            cannot("the kernel maps no functions for the time into processes")
                .hint("vdso=1 on the kernel's command line is the default")
        })?;
        let mut bytes = vec![0; end - begin];
        let reading = || "cannot read /proc/self/mem".to_owned();
        let memory = File::open("/proc/self/mem").doing(reading)?;
        memory
            .read_exact_at(&mut bytes, begin as u64)
            .doing(reading)?;
        Self::of(bytes).ok_or_else(|| cannot("its vDSO is not built as it is elsewhere"))
    }

    fn of(bytes: Vec<u8>) -> Option<Self> {
        let functions: Option<Vec<_>> = TOLD_BY
            .iter()
            .map(|(name, to)| Some((function(&bytes, name)?, *to)))
            .collect();
        // What the file does not reach of its last page is zeros that nobody uses. Some are left as they are, in case
        // the last things of the file are zeros, too.
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 64;
        let room = used.next_multiple_of(16);
        (room + PIECE <= bytes.len()).then_some(Self {
            functions: functions?,
            bytes,
            room,
        })
    }

    /// The functions: where each begins, its first bytes as the kernel made them, and where in the piece what takes
    /// its place begins.
    pub(super) fn functions(&self) -> impl Iterator<Item = (usize, &[u8], usize)> {
        let first = |at: usize| &self.bytes[at..at + JUMP];
        self.functions
            .iter()
            .map(move |(at, to)| (*at, first(*at), *to))
    }
}

/// From where to where the vDSO lies in a process, if it has one.
///
/// # Errors
/// If the process is gone.
pub(super) fn place(process: &str) -> Result<Option<(usize, usize)>, Failure> {
    let file = format!("/proc/{process}/maps");
    let maps = fs::read_to_string(&file).doing(|| format!("cannot read {file}"))?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    Ok(line.and_then(|line| {
        let (begin, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        Some((number(begin)?, number(end)?))
    }))
}

/// Where a function begins, counted from the beginning of the image.
fn function(elf: &[u8], name: &str) -> Option<usize> {
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let sections = word(elf, 0x28)?;
    let (size, count) = (half(elf, 0x3a)?, half(elf, 0x3c)?);
    let section = |index: usize| elf.get(sections.checked_add(index * size)?..)?.get(..size);
    let symbols = (0..count)
        .filter_map(section)
        .find(|section| section.get(4..8) == Some(&DYNAMIC_SYMBOLS.to_le_bytes()))?;
    let contents = |section: &[u8]| {
        let (begin, length) = (word(section, 0x18)?, word(section, 0x20)?);
        elf.get(begin..begin.checked_add(length)?)
    };
    let names = section(quarter(symbols, 0x28)?).and_then(contents)?;
    let found = contents(symbols)?.chunks_exact(SYMBOL).find(|symbol| {
        let own = quarter(symbol, 0).and_then(|at| names.get(at..));
        own.is_some_and(|own| {
            own.strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    })?;
    word(found, 8).filter(|at| at + JUMP <= elf.len())
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

fn quarter(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(usize::from(u16::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_image_has_the_functions_and_room() {
        let image = Image::own().unwrap();
        let mut places: Vec<_> = image.functions().map(|(at, _, _)| at).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 3);
        assert!(places.iter().all(|at| *at > 0 && at + JUMP < image.room));
        assert!(image.bytes[image.room..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let whole = Image::own().unwrap().bytes;
        for length in (0..whole.len()).step_by(7) {
            // Never a panic; and never room that is not there.
            if let Some(image) = Image::of(whole[..length].to_vec()) {
                assert!(image.room + PIECE <= length);
            }
        }
        let mut nameless = whole.clone();
        let at = nameless
            .windows(12)
            .position(|w| w == b"__vdso_time\0")
            .unwrap();
        nameless[at] = b'x';
        assert!(Image::of(nameless).is_none());
        // No slack at its end.
        let mut full = whole;
        let last = full.len() - 1;
        full[last] = 1;
        assert!(Image::of(full).is_none());
    }
}
