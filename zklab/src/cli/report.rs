//! Arguments of `report` and `watch`: what people look at.

use std::path::PathBuf;

use clap::Args;

/// `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of runs, or folders that hold such folders
    #[arg(value_name = "RUN", required_unless_present = "compare")]
    pub runs: Vec<PathBuf>,
    /// Write the page of the run, or of the comparison, here (default: report.html in its folder)
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write JUnit XML of all of them, for CI
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Print Markdown, for the summary of a CI job
    #[arg(long)]
    pub md: bool,
    /// Lay two or three runs side by side: zkd and Apache, before and after
    #[arg(long, value_name = "RUN", num_args = 2..=3, conflicts_with_all = ["runs", "junit"])]
    pub compare: Vec<PathBuf>,
}

/// `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The lab's name (default: that of --lab)
    pub name: Option<String>,
    /// Do not write now and then to see how long that takes
    #[arg(long)]
    pub no_probe: bool,
}
