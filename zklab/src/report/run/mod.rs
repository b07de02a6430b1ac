//! Reports of runs: the page that explains one, the comparison of several, JUnit XML, Markdown.
//!
//! All of it is read from a run's folder and from nothing else, so that it can be made again at any time, on any
//! machine, from an artifact of CI. The law: whatever is missing in the folder is missing in the report, and said.

mod elections;
mod fate;
mod folder;
mod html;
mod junit;
mod load;
mod markdown;

pub(in crate::report) mod sheet;
mod story;
#[cfg(test)]
mod tests;
mod witness;
mod words;

use std::path::{Path, PathBuf};

pub use self::elections::{Election, End, Row, Tone};
pub use self::folder::{Deed, Event, Folder, Outcome, RunJson, Sample, find, read_run};
pub use self::html::{compare, page};
pub use self::junit::{Case, junit};
pub use self::load::{Column, Gap, Load};
pub use self::markdown::{compared, comparison, markdown};
pub use self::story::{Epoch, Fault, Lag, Lane, LaneState, Span, Stall, Story};
pub use self::witness::Proof;
use crate::failure::{Context, Failure};

/// Writes `report.html` into a run's folder, and says where it is.
///
/// # Errors
/// If the folder has no `run.json`, or nothing can be written there.
pub fn write_html(dir: &Path) -> Result<PathBuf, Failure> {
    let folder = Folder::read(dir)?;
    let name = dir.join("report.html");
    write(&name, &page(&folder))?;
    Ok(name)
}

/// Why the run in a folder failed, in a sentence, as far as what was kept there shows it.
#[must_use]
pub fn cause(dir: &Path) -> Option<String> {
    let folder = Folder::read(dir).ok()?;
    let fate = fate::Fate::of(&folder, &Story::of(&folder));
    fate.cause().map(ToOwned::to_owned)
}

/// Writes a file.
///
/// # Errors
/// If that is impossible.
pub fn write(name: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(name, text).doing(|| format!("cannot write {}", name.display()))
}
