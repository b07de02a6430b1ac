//! Values on the command line: durations, `n3=PATH`, directories.

use std::path::PathBuf;
use std::time::Duration;

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

/// Reads `250ms`, `1.5s`, `2m`; a bare number is refused, for nobody knows its unit.
///
/// # Errors
/// If it is none of these.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .ok_or_else(|| format!("{text:?} needs a unit: 250ms, 2s, 1m"))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 250ms, 2s, 1m"))?;
    let seconds = match unit.trim() {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        other => return Err(format!("unknown unit {other:?}; use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is too long"))
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
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["5", "ms", "-1s", "1 parsec", "", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
