//! Seeds, as people copy them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A seed, as people copy it: in hexadecimal, without `0x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HexSeed(pub u64);

impl fmt::Display for HexSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

impl FromStr for HexSeed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|_| format!("{text:?} is not a seed such as 8f21c0 (hexadecimal)"))
    }
}

impl TryFrom<String> for HexSeed {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HexSeed> for String {
    fn from(seed: HexSeed) -> Self {
        seed.to_string()
    }
}
