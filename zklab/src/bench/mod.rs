//! `bench`: how fast servers are, measured by a load generator that is never the bottleneck.

mod bystanders;
mod engine;
mod pressure;
mod recorder;
mod run;
mod sessions;
#[cfg(test)]
mod tests;
pub mod usage;
mod work;

pub use self::bystanders::{Bystanders, Seen};
pub use self::pressure::Pressure;
pub use self::recorder::{Latency, Percentile, Slice};
pub use self::run::{Edge, Outcome, Plan, fill, first_read, overwrite, run};
pub use self::sessions::{Part, churn, idle, idle_part, watchers};
pub use self::usage::{Syncs, Usage};
pub use self::work::Work;
