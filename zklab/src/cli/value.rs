//! Values on the command line: `n3=PATH`, zxids, directories; durations are read by the clock.

use std::path::PathBuf;

pub use crate::clock::duration;
use crate::event::HexZxid;
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

/// Reads `0x100000003`.
///
/// # Errors
/// If it is no zxid.
pub fn zxid(text: &str) -> Result<HexZxid, String> {
    HexZxid::parse(text).ok_or_else(|| format!("{text:?} is not a zxid such as 0x100000003"))
}

/// Reads `9:1`.
///
/// # Errors
/// If it is not of this form, or both are 0.
pub fn ratio(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("{text:?} is not a ratio such as 9:1");
    let (reads, writes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    let (reads, writes) = (number(reads)?, number(writes)?);
    match reads.checked_add(writes) {
        Some(1..) => Ok((reads, writes)),
        _ => Err(wrong()),
    }
}

/// Where the data go, as typed.
#[must_use]
pub fn data_dir(text: &str) -> PathBuf {
    std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxids_are_hexadecimal() {
        assert_eq!(zxid("0x100000003"), Ok(HexZxid(0x1_0000_0003)));
        let error = zxid("12").unwrap_err();
        assert_eq!(error, "\"12\" is not a zxid such as 0x100000003");
    }
}
