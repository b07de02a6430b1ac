//! A power cut: a data directory becomes what its ledger says is durable.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zkd::prng::Prng;

use super::ledger::{Durable, Ledger, contents_end, is_log, names, read_from};

/// Checksum and length before a record of a txn log, and the byte behind it.
const RECORD_FRAME: usize = 8 + 4 + 1;
/// Magic, version and database id at the beginning of a log.
const LOG_HEADER: u64 = 16;

/// What was left alone for so long has been written by the kernel without anybody asking.
const WRITTEN_BACK: Duration = Duration::from_secs(5);

/// What a power cut took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutReport {
    /// Records of txn logs that are gone, the torn one included.
    pub records: u64,
    /// Bytes that are gone.
    pub bytes: u64,
    /// The log that ends in the middle of a record, how many of its bytes are there, and how many it had.
    pub torn: Option<(String, u64, u64)>,
    /// Files that are gone because they were never synced.
    pub vanished: Vec<String>,
    /// Files that are there again, or as they were, because it was never synced that they changed.
    pub undone: Vec<String>,
}

impl fmt::Display for CutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.records {
            0 if self.bytes == 0 => write!(f, "no un-synced bytes to drop")?,
            0 => write!(f, "{} un-synced bytes dropped", self.bytes)?,
            1 => write!(f, "1 un-synced record dropped")?,
            count => write!(f, "{count} un-synced records dropped")?,
        }
        if let Some((name, at, of)) = &self.torn {
            write!(f, ", {name} torn at byte {at} of {of}")?;
        }
        if !self.vanished.is_empty() {
            write!(f, ", {} never synced and gone", self.vanished.join(" "))?;
        }
        if !self.undone.is_empty() {
            write!(f, ", {} as before", self.undone.join(" "))?;
        }
        Ok(())
    }
}

/// Makes the directory of `ledger` what is durable. No process may have it open.
pub(super) fn carry_out(ledger: &Ledger, torn: bool, prng: &mut Prng) -> io::Result<CutReport> {
    let mut report = CutReport::default();
    let now = names(&ledger.root)?;
    for name in now.keys().filter(|name| !ledger.names.contains_key(*name)) {
        let path = ledger.root.join(name);
        if is_written_back(&path)? {
            continue;
        }
        if is_log(name) {
            let file = File::open(&path)?;
            let end = contents_end(&file, 0, file.metadata()?.len())?;
            report.bytes += end;
            report.records += records(&tail(&file, LOG_HEADER, end)?).len() as u64;
        } else {
            report.bytes += fs::metadata(&path)?.len();
        }
        fs::remove_file(&path)?;
        report.vanished.push(short(name));
    }
    for (name, inode) in &ledger.names {
        let Some(durable) = ledger.files.get(inode) else {
            continue;
        };
        let path = ledger.root.join(name);
        if now.get(name) != Some(inode) {
            restore(durable, &path)?;
            report.undone.push(short(name));
        } else if is_written_back(&path)? {
            continue;
        } else if is_log(name) {
            cut_log(durable, &path, torn.then_some(&mut *prng), &mut report)?;
        } else {
            cut_other(durable, &path, &mut report)?;
        }
    }
    Ok(report)
}

/// Whether nobody has written the file for so long that the kernel has.
fn is_written_back(path: &Path) -> io::Result<bool> {
    let changed = fs::metadata(path)?.modified()?;
    // A clock that was set back says nothing.
    let age = SystemTime::now().duration_since(changed);
    Ok(age.is_ok_and(|age| age >= WRITTEN_BACK))
}

fn short(name: &Path) -> String {
    let name = name.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The name is gone or means another file: puts the durable contents back.
fn restore(durable: &Durable, path: &Path) -> io::Result<()> {
    let mut contents = Vec::new();
    let contents = match &durable.whole {
        Some(whole) => whole,
        None => {
            read_from(&durable.file, 0, durable.end, &mut contents)?;
            &contents
        }
    };
    let beside = path.with_extension("restored");
    fs::write(&beside, contents)?;
    File::options()
        .write(true)
        .open(&beside)?
        .set_len(durable.size.max(contents.len() as u64))?;
    fs::rename(&beside, path)
}

fn cut_log(
    durable: &Durable,
    path: &Path,
    torn: Option<&mut Prng>,
    report: &mut CutReport,
) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let from = durable.end.min(size);
    let end = contents_end(&file, from, size)?;
    if end > from {
        let lost = tail(&file, from, end)?;
        let kept = torn.map_or(0, |prng| prng.below(lost.len() as u64 + 1));
        report.bytes += lost.len() as u64 - kept;
        for (begin, length) in records(&lost) {
            if kept < begin + length {
                report.records += 1;
            }
            if kept > begin && kept < begin + length {
                report.torn = Some((short(path), kept - begin, length));
            }
        }
        file.set_len(from + kept)?;
    }
    file.set_len(durable.size.max(file.metadata()?.len()))
}

fn cut_other(durable: &Durable, path: &Path, report: &mut CutReport) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let Some(whole) = &durable.whole else {
        if size > durable.size {
            report.bytes += size - durable.size;
            file.set_len(durable.size)?;
        }
        return Ok(());
    };
    let mut found = Vec::new();
    read_from(&file, 0, size, &mut found)?;
    if found != *whole {
        file.set_len(0)?;
        file.write_all_at(whole, 0)?;
        report.undone.push(short(path));
    }
    Ok(())
}

fn tail(file: &File, from: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_from(file, from, end, &mut bytes)?;
    Ok(bytes)
}

/// Where records begin, and how long each was meant to be; the last one may be cut off.
fn records(bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes
            .get(at + 8..at + 12)
            .and_then(|word| word.try_into().ok())
            .and_then(|word| usize::try_from(i32::from_be_bytes(word)).ok());
        let length = length.map_or(bytes.len() - at, |length| length + RECORD_FRAME);
        found.push((at as u64, length as u64));
        at += length;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log record as long as `txn` and its frame.
    fn record(txn: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1; 8];
        bytes.extend_from_slice(&i32::try_from(txn.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(txn);
        bytes.push(0x42);
        bytes
    }

    struct Disk {
        dir: tempfile::TempDir,
        ledger: Ledger,
    }

    impl Disk {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("version-2")).unwrap();
            let ledger = Ledger::new(dir.path()).unwrap();
            Self { dir, ledger }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join("version-2").join(name)
        }

        fn write(&self, name: &str, at: u64, bytes: &[u8]) {
            let mut options = File::options();
            let options = options.create(true).truncate(false).write(true);
            let file = options.open(self.path(name)).unwrap();
            file.write_all_at(bytes, at).unwrap();
        }

        fn sync(&mut self, name: &str) {
            let path = self.path(name);
            let file = File::open(&path).unwrap();
            let measured = self.ledger.measure(&file, &path).unwrap();
            self.ledger.synced(measured);
        }

        fn cut(&mut self, torn: bool, seed: u64) -> CutReport {
            self.ledger.cut(torn, &mut Prng::new(seed)).unwrap()
        }

        fn log(&self, name: &str) -> Vec<u8> {
            let bytes = fs::read(self.path(name)).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0);
            bytes[..end.map_or(0, |last| last + 1)].to_vec()
        }
    }

    #[test]
    fn a_log_keeps_what_was_synced_and_its_zeros() {
        let mut disk = Disk::new();
        disk.write("log.1", 0, &[7; 16]);
        File::options()
            .write(true)
            .open(disk.path("log.1"))
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        disk.write("log.1", 16, &record(b"one"));
        disk.sync("log.1");
        let durable = disk.log("log.1");
        let end = durable.len() as u64;
        disk.write("log.1", end, &[record(b"two"), record(b"three")].concat());
        let report = disk.cut(false, 1);
        assert_eq!(disk.log("log.1"), durable);
        assert_eq!(fs::metadata(disk.path("log.1")).unwrap().len(), 1 << 20);
        assert_eq!(report.to_string(), "2 un-synced records dropped");
        assert_eq!(disk.cut(false, 1).to_string(), "no un-synced bytes to drop");
    }

    #[test]
    fn a_torn_log_is_a_prefix_of_what_was_written() {
        let mut torn = 0;
        for seed in 0..200 {
            let mut disk = Disk::new();
            disk.write("log.1", 0, &[7; 16]);
            disk.sync("log.1");
            let (two, three) = (record(b"two"), record(b"three"));
            let all = [vec![7; 16], two.clone(), three].concat();
            disk.write("log.1", 0, &all);
            let report = disk.cut(true, seed);
            let left = disk.log("log.1");
            assert!(all.starts_with(&left) && left.len() >= 16, "seed {seed}");
            let whole = u64::from(left.len() >= 16 + two.len()) + u64::from(left == all);
            assert_eq!(report.records, 2 - whole, "seed {seed}");
            torn += u32::from(report.torn.is_some());
        }
        assert!((100..200).contains(&torn), "{torn} torn of 200");
    }

    #[test]
    fn names_come_and_go_with_the_next_sync() {
        let mut disk = Disk::new();
        disk.write("currentEpoch", 0, b"1");
        disk.sync("currentEpoch");
        // Renamed over it, and nothing synced since: the old one is back.
        disk.write("currentEpoch.tmp", 0, b"2");
        disk.sync("currentEpoch.tmp");
        fs::rename(disk.path("currentEpoch.tmp"), disk.path("currentEpoch")).unwrap();
        disk.write("log.5", 0, b"never synced");
        let report = disk.cut(false, 1);
        assert_eq!(fs::read(disk.path("currentEpoch")).unwrap(), b"1");
        assert!(!disk.path("log.5").exists());
        assert_eq!(report.vanished, ["log.5"]);
        assert_eq!(report.undone, ["currentEpoch", "currentEpoch.tmp"]);

        fs::rename(disk.path("currentEpoch.tmp"), disk.path("currentEpoch")).unwrap();
        disk.sync("");
        disk.cut(false, 1);
        assert_eq!(fs::read(disk.path("currentEpoch")).unwrap(), b"2");
        assert!(!disk.path("currentEpoch.tmp").exists());
    }

    #[test]
    fn what_was_removed_is_back_and_what_was_written_over_is_as_before() {
        let mut disk = Disk::new();
        disk.write("snapshot.1", 0, &vec![9; 100_000]);
        disk.write("log.1", 0, &record(b"one"));
        disk.write("acceptedEpoch", 0, b"41");
        for name in ["snapshot.1", "log.1", "acceptedEpoch"] {
            disk.sync(name);
        }
        fs::remove_file(disk.path("log.1")).unwrap();
        disk.write("acceptedEpoch", 0, b"9");
        disk.write("snapshot.1", 100_000, b"more");
        let report = disk.cut(true, 3);
        assert_eq!(disk.log("log.1"), record(b"one"));
        assert_eq!(fs::read(disk.path("acceptedEpoch")).unwrap(), b"41");
        assert_eq!(
            fs::metadata(disk.path("snapshot.1")).unwrap().len(),
            100_000
        );
        assert_eq!(report.undone, ["acceptedEpoch", "log.1"]);
        assert_eq!(report.bytes, 4);
    }

    #[test]
    fn what_was_left_alone_for_long_is_written_back() {
        let mut disk = Disk::new();
        for name in ["snapshot.0", "log.1"] {
            disk.write(name, 0, b"never synced");
            let file = File::options().write(true).open(disk.path(name)).unwrap();
            let long_ago = SystemTime::now() - 2 * WRITTEN_BACK;
            file.set_modified(long_ago).unwrap();
        }
        disk.write("snapshot.1", 0, b"never synced");
        let report = disk.cut(true, 1);
        assert_eq!(report.vanished, ["snapshot.1"]);
        assert!(disk.path("snapshot.0").exists() && disk.path("log.1").exists());
    }
}
