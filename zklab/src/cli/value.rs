//! Values on the command line: `n3=PATH`, directories; durations are read by the clock.

use std::path::PathBuf;

pub use crate::clock::duration;
use crate::id::NodeId;

/// Reads `n3=PATH`.
///
/// # Errors
/// If it is not of this form.
pub fn version_of(text: &str) -> Result<(NodeId, String), String> {
    let (node, server) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not of the form n3=PATH"))?;
    Ok((node.parse()?, server.to_owned()))
}

/// Where the data go, as typed.
#[must_use]
pub fn data_dir(text: &str) -> PathBuf {
    std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text))
}
