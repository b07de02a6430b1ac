//! Arguments of the commands that carry out scenarios: `run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::duration;
use crate::net::NetKind;
use crate::supervisor::protocol::HexSeed;

/// `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: zklab run configs/scenarios --count 20 --jobs 2 --junit junit.xml\n\
    The last line says it all: 58 passed, 1 failed, 1 skipped"
)]
pub struct RunArgs {
    /// Scenario files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The first seed, 8f21c0, or `random`
    #[arg(long, default_value = "random", value_name = "SEED", value_parser = first_seed)]
    pub seed: FirstSeed,
    /// So many seeds, one after the other (default: what the scenario says, or 1)
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// So many labs at a time
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
    /// Only scenarios with this in the name of their file
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// What the nodes run: zkd, apache, mixed, or a path; several are compared side by side
    #[arg(long, value_name = "SERVER")]
    pub server: Vec<String>,
    /// The network: tun, packet, loopback, or auto, what the scenario says or the best that works
    #[arg(long, default_value = "auto", value_name = "NET")]
    pub net: NetKind,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write a report of every case into this directory
    #[arg(long, value_name = "DIR")]
    pub html: Option<PathBuf>,
    /// Where the folders of the cases go
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub runs: PathBuf,
    /// Which folders stay (default: on-fail, of a single case always)
    #[arg(long, value_name = "WHEN")]
    pub keep: Option<Keep>,
    /// Stop at the first case that fails
    #[arg(long)]
    pub fail_fast: bool,
    /// What a case counts as of which the machine allows no verdict
    #[arg(long, value_name = "VERDICT")]
    pub inconclusive_as: Option<InconclusiveAs>,
    /// A longer stall of the machine excuses a missed expectation
    #[arg(long, default_value = "100ms", value_parser = duration, value_name = "DURATION")]
    pub stall_limit: Duration,
    /// Print what each seed makes of each scenario, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Where seeds begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSeed {
    /// Somewhere new.
    Random,
    /// Here.
    Given(HexSeed),
}

pub(super) fn first_seed(text: &str) -> Result<FirstSeed, String> {
    if text == "random" {
        return Ok(FirstSeed::Random);
    }
    text.parse().map(FirstSeed::Given)
}

/// Which folders stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// Every one.
    All,
    /// Those of cases that did not pass.
    OnFail,
    /// None.
    Never,
}

/// What a case counts as of which the machine allows no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InconclusiveAs {
    /// As one that passed.
    Pass,
    /// As one that failed.
    Fail,
}
