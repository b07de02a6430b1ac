//! How long the disk takes to sync what is written to a file that has its bytes already, as a txn log has: the floor below
//! every write of an ensemble. For `scripts/bench`.
//!
//! ```text
//! disk_bench DIR [WRITERS [SECONDS]]     one line of JSON: p50, p99, p999 and max in µs, and in which share of the time
//!                                        every writer waited for more than 10 ms at once
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// What one sync writes; and the size of a file, written over and over.
const BLOCK: usize = 4096;
const BLOCKS: u64 = 16_384;
/// Who waits longer is stuck, not busy.
const LONG: Duration = Duration::from_millis(10);

/// When a sync began, since the common start, and how long it took.
type Sync = (Duration, Duration);

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: u64| {
        words
            .get(at)
            .map_or(Some(otherwise), |word| word.parse().ok())
    };
    let (Some(dir), Some(writers), Some(seconds)) = (words.first(), number(1, 1), number(2, 5))
    else {
        writeln!(io::stderr(), "usage: disk_bench DIR [WRITERS [SECONDS]]")?;
        std::process::exit(2);
    };
    let dir = PathBuf::from(dir);
    let files: Vec<File> = (0..writers)
        .map(|writer| filled(&dir, writer))
        .collect::<io::Result<_>>()?;
    let begin = Instant::now();
    let threads: Vec<_> = files
        .into_iter()
        .map(|file| thread::spawn(move || sync_all(&file, begin, Duration::from_secs(seconds))))
        .collect();
    let mut all: Vec<Vec<Sync>> = Vec::new();
    for thread in threads {
        all.push(thread.join().expect("a writer ends with a result")?);
    }
    let mut took: Vec<Duration> = all.iter().flatten().map(|(_, took)| *took).collect();
    took.sort_unstable();
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_micros();
    writeln!(
        io::stdout(),
        "{{\"syncs\":{},\"p50\":{},\"p99\":{},\"p999\":{},\"max\":{},\"all_stuck_percent\":{:.1}}}",
        took.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        took[took.len() - 1].as_micros(),
        100.0 * all_stuck(&all).as_secs_f64() / begin.elapsed().as_secs_f64()
    )
}

/// A file with all its bytes on the disk. It is nobody's any more when it is closed.
fn filled(dir: &Path, writer: u64) -> io::Result<File> {
    let path = dir.join(format!("disk-bench-{}-{writer}", std::process::id()));
    let file = File::options().write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    for block in 0..BLOCKS {
        file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn sync_all(file: &File, begin: Instant, length: Duration) -> io::Result<Vec<Sync>> {
    let mut syncs = Vec::new();
    let mut block = 0;
    while begin.elapsed() < length {
        let from = Instant::now();
        file.write_all_at(&[7; BLOCK], block % BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        syncs.push((from - begin, from.elapsed()));
        block += 1;
    }
    Ok(syncs)
}

/// For how long all of them were stuck at the same time.
fn all_stuck(all: &[Vec<Sync>]) -> Duration {
    let stuck = |syncs: &[Sync]| -> Vec<(Duration, Duration)> {
        let long = syncs.iter().filter(|(_, took)| *took > LONG);
        long.map(|(from, took)| (*from, *from + *took)).collect()
    };
    let mut common = all.first().map_or_else(Vec::new, |syncs| stuck(syncs));
    for syncs in all.iter().skip(1) {
        let others = stuck(syncs);
        common = common
            .iter()
            .flat_map(|(from, to)| {
                others
                    .iter()
                    .map(move |(a, b)| ((*from).max(*a), (*to).min(*b)))
            })
            .filter(|(from, to)| from < to)
            .collect();
    }
    common.iter().map(|(from, to)| *to - *from).sum()
}
