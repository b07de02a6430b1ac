//! The simulator: 200 seeds in the normal run, any number with `ZKD_SEEDS=FROM..TO`, one with `ZKD_SEED=N`.
//!
//! A failing seed leaves the record of its events in `target/sim/<seed>.events` and prints the line that
//! replays it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use zkd::sim::{Coverage, Mutation, Outcome, Plan, World};

/// Seeds of the normal run.
const SEEDS: std::ops::Range<u64> = 0..200;

fn seeds() -> std::ops::Range<u64> {
    let number = |text: &str| {
        text.parse::<u64>()
            .expect("ZKD_SEED is a number, ZKD_SEEDS is FROM..TO")
    };
    if let Ok(seed) = std::env::var("ZKD_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    match std::env::var("ZKD_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("ZKD_SEEDS is FROM..TO");
            number(from)..number(to)
        }
        Err(_) => SEEDS,
    }
}

fn record_path(seed: u64) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sim");
    std::fs::create_dir_all(&dir).expect("the target directory can be written");
    dir.join(format!("{seed}.events"))
}

fn failure(outcome: &Outcome) -> Option<String> {
    if outcome.checks.violations().is_empty() {
        return None;
    }
    let path = record_path(outcome.seed);
    std::fs::write(&path, &outcome.record).expect("the target directory can be written");
    let mut text = format!("seed {} breaks", outcome.seed);
    for violation in outcome.checks.violations() {
        text.push_str(&format!("\n  {violation}"));
    }
    text.push_str(&format!(
        "\n  events: {}\n  again:  ZKD_SEED={} cargo test -p zkd --test simulation -- --nocapture no_seed",
        path.display(),
        outcome.seed
    ));
    Some(text)
}

/// Runs the seeds on all cores, and adds up what they went through.
fn run_all(range: std::ops::Range<u64>) -> (Vec<String>, Coverage) {
    let next = AtomicU64::new(range.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<(Vec<String>, Coverage)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let (mut failures, mut coverage) = (Vec::new(), Coverage::default());
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= range.end {
                            return (failures, coverage);
                        }
                        let outcome = World::new(Plan::new(seed)).run();
                        failures.extend(failure(&outcome));
                        coverage.add(&outcome.coverage);
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a run does not panic"))
            .collect()
    });
    let mut coverage = Coverage::default();
    parts.iter().for_each(|(_, part)| coverage.add(part));
    (
        parts.into_iter().flat_map(|part| part.0).collect(),
        coverage,
    )
}

#[test]
fn no_seed_breaks_a_promise() {
    let range = seeds();
    let count = range.end - range.start;
    let started = std::time::Instant::now();
    let (failures, coverage) = run_all(range);
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("{count} seeds, {rate:.1} a second: {coverage}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if count < 200 {
        return;
    }
    let rare: Vec<_> = coverage
        .counts()
        .into_iter()
        .filter(|(_, met)| *met * 50 < count)
        .collect();
    assert!(
        rare.is_empty(),
        "the runs hardly meet {rare:?}: they prove nothing about it"
    );
}

/// Each planted bug is found, and soon.
#[test]
fn planted_bugs_are_found() {
    let missed: Vec<_> = Mutation::ALL
        .into_iter()
        .filter(|&mutation| {
            let found = (0..300).find_map(|seed| {
                let plan = Plan::new(seed).with_bug(mutation);
                let outcome = World::new(plan).run();
                let violation = outcome.checks.violations().first()?;
                Some((seed, violation.to_string()))
            });
            match &found {
                Some((seed, violation)) => {
                    println!("{mutation:?}: found at seed {seed}: {violation:.200}")
                }
                None => println!("{mutation:?}: not found within 300 seeds"),
            }
            found.is_none()
        })
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// One seed is one run, event for event.
#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 77] {
        let first = World::new(Plan::new(seed)).run();
        let again = World::new(Plan::new(seed)).run();
        assert!(
            first.record == again.record,
            "seed {seed} went another way the second time"
        );
    }
}
