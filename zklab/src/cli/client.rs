//! Arguments of `cli`, which speaks with the ensemble as a client.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::value::duration;

/// `cli`.
#[derive(Debug, Args)]
#[command(
    after_help = "Commands: ls PATH · get PATH · set PATH DATA [--version N] · create PATH \
    [DATA] [--sequential] [--container] [--ttl DURATION] · delete PATH [--version N] · stat PATH\n\
    Examples: zklab cli ls / · zklab cli n2 get /a · zklab cli leader set /a hello"
)]
pub struct CliArgs {
    /// NODE, if given, then COMMAND …: through this node, or through any
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,
}

/// What follows `cli [NODE]`.
#[derive(Debug, Parser)]
#[command(name = "zklab cli", no_binary_name = true)]
pub struct ClientCli {
    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// What a client can do.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Names of the children
    Ls {
        /// Of this znode
        #[arg(default_value = "/")]
        path: String,
    },
    /// The data
    Get {
        /// Of this znode
        path: String,
    },
    /// Replace the data
    Set {
        /// Of this znode
        path: String,
        /// With this
        data: String,
        /// Only if the version is this
        #[arg(long)]
        version: Option<i32>,
    },
    /// Make a znode
    Create {
        /// Here
        path: String,
        /// With this in it
        #[arg(default_value = "")]
        data: String,
        /// Append a rising number to the name
        #[arg(short, long)]
        sequential: bool,
        /// Gone when its last child is gone
        #[arg(short, long, conflicts_with_all = ["sequential", "ttl"])]
        container: bool,
        /// Gone when not changed for this long
        #[arg(short, long, value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Delete a znode
    #[command(visible_alias = "rm")]
    Delete {
        /// This
        path: String,
        /// Only if the version is this
        #[arg(long)]
        version: Option<i32>,
    },
    /// Everything known of a znode but its data
    Stat {
        /// This
        path: String,
    },
}
