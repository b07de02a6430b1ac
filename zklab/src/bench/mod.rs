//! `bench`: how fast servers are, measured by a load generator that is never the bottleneck.

mod engine;
mod recorder;
mod run;
mod sessions;
#[cfg(test)]
mod tests;
pub mod usage;
mod work;

pub use self::recorder::{Latency, Slice};
pub use self::run::{Edge, Outcome, Plan, run};
pub use self::sessions::{churn, idle, watchers};
pub use self::usage::Usage;
pub use self::work::Work;
