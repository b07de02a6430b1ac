//! The simulator: 200 seeds in the normal run, any number with `ZKD_SEEDS=FROM..TO`, one with `ZKD_SEED=N`.
//!
//! A failing seed leaves the record of its events in `target/sim/<seed>.events` and prints the line that
//! replays it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use zkd::sim::{Mutation, Outcome, Plan, World};

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

#[test]
fn no_seed_breaks_a_promise() {
    let range = seeds();
    let next = AtomicU64::new(range.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let totals: Vec<(Vec<String>, u64, u64, u64, u64)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut sums = (Vec::new(), 0, 0, 0, 0);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= range.end {
                            return sums;
                        }
                        let outcome = World::new(Plan::new(seed)).run();
                        sums.0.extend(failure(&outcome));
                        sums.1 += outcome.checks.committed_count() as u64;
                        sums.2 += outcome.checks.acked_count() as u64;
                        sums.3 += outcome.checks.epoch_count() as u64;
                        sums.4 += outcome.faults as u64;
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a run does not panic"))
            .collect()
    });
    let failures: Vec<_> = totals.iter().flat_map(|sums| sums.0.clone()).collect();
    let sum =
        |of: fn(&(Vec<String>, u64, u64, u64, u64)) -> u64| totals.iter().map(of).sum::<u64>();
    println!(
        "{} seeds: {} txns committed, {} writes acknowledged, {} epochs, {} faults",
        range.end - range.start,
        sum(|s| s.1),
        sum(|s| s.2),
        sum(|s| s.3),
        sum(|s| s.4)
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        sum(|s| s.2) > (range.end - range.start) * 20,
        "the runs hardly wrote anything: they prove nothing"
    );
}

/// The seeds at which each planted bug is found, at the latest.
#[test]
fn planted_bugs_are_found() {
    for mutation in [
        Mutation::AckBeforeSync,
        Mutation::NoSync,
        Mutation::QuorumTooSmall,
        Mutation::ForgetAcceptedEpoch,
    ] {
        let found = (0..300).find_map(|seed| {
            let outcome = World::new(Plan {
                mutation,
                ..Plan::new(seed)
            })
            .run();
            outcome
                .checks
                .violations()
                .first()
                .cloned()
                .map(|violation| (seed, violation))
        });
        let (seed, violation) =
            found.unwrap_or_else(|| panic!("{mutation:?} was not found within 300 seeds"));
        println!("{mutation:?} found at seed {seed}: {violation}");
    }
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
