//! Arguments of `chaos`, `replay`, `shrink` and `scenario`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::run::FirstSeed;
use super::value::duration;
use crate::net::NetKind;

/// `chaos`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every round has a lab and a seed of its own, so that a failure is small and can be \
    replayed.\nExample: zklab chaos --for 10m --faults net,proc --intensity 0.7"
)]
pub struct ChaosArgs {
    /// For how long
    #[arg(long = "for", default_value = "1m", value_parser = duration, value_name = "DURATION")]
    pub for_: Duration,
    /// Kinds of faults: net, proc, disk, clock
    #[arg(
        long,
        default_value = "net,proc",
        value_delimiter = ',',
        value_name = "KIND"
    )]
    pub faults: Vec<String>,
    /// From 0, a fault now and then, to 1, one upon the other
    #[arg(long, default_value_t = 0.5, value_parser = zero_to_one, value_name = "N")]
    pub intensity: f64,
    /// The first seed, or `random`
    #[arg(long, default_value = "random", value_name = "SEED", value_parser = super::run::first_seed)]
    pub seed: FirstSeed,
    /// Voting servers
    #[arg(short, long, default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=25))]
    pub nodes: u8,
    /// How long the faults of one round go on
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "DURATION")]
    pub round: Duration,
    /// What the nodes run: zkd, apache, mixed, or a path
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// The network
    #[arg(long, default_value = "auto")]
    pub net: NetKind,
    /// Where the folders of rounds go that did not pass
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub runs: PathBuf,
}

fn zero_to_one(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| format!("{text:?} is not a number from 0 to 1"))
}

/// `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The folder of a case: runs/TIME_SEED, runs/TIME/CASE, runs/last
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Do what was really done then, at the times at which it was, to the nodes that it hit
    #[arg(long)]
    pub as_it_happened: bool,
    /// So often
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
    /// What the nodes run (default: as then)
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// The network
    #[arg(long, default_value = "auto")]
    pub net: NetKind,
    /// Where the folders go
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub runs: PathBuf,
}

/// `shrink`.
#[derive(Debug, Args)]
pub struct ShrinkArgs {
    /// The folder of a case that failed
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// A smaller plan may try so often to fail in the same way
    #[arg(long, default_value_t = 3, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
    /// The whole of it may take so long
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "DURATION")]
    pub budget: Duration,
    /// What the nodes run (default: as then)
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
}

/// `scenario`.
#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Write a scenario to begin with
    New {
        /// The file, which must not be there
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Read scenarios and tell what is wrong with them; nothing is started
    Check {
        /// Files, or directories of them
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List scenarios
    Ls {
        /// Files, or directories of them
        #[arg(default_value = "configs/scenarios", value_name = "DIR")]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of scenario files, for editors
    Schema,
}
