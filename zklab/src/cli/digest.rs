//! Arguments of `digest`.

use std::time::Duration;

use clap::Args;

use super::value::duration;

/// `digest`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 equal, 1 diverged, 4 they never stood at one zxid (somebody writes)."
)]
pub struct DigestArgs {
    /// Only when all nodes stand at this zxid
    #[arg(long, value_name = "ZXID", value_parser = zxid)]
    pub at: Option<i64>,
    /// Read the trees through the client protocol, and tell the first path that differs
    #[arg(long, conflicts_with = "at")]
    pub diff: bool,
    /// How long the nodes may take to stand at one zxid
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub timeout: Duration,
}

fn zxid(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    i64::from_str_radix(digits, 16)
        .map_err(|_| format!("{text:?} is not a zxid such as 0x200000733 (hexadecimal)"))
}
