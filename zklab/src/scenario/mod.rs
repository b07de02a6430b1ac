//! Scenarios: a file says what shall happen to an ensemble, a seed makes a plan of it, the plan is carried out on real
//! processes, and a verdict comes of it that can be trusted.
//!
//! ```text
//! file ──seed──▶ plan ──▶ stage: lab, load, steps ──▶ finale: heal, converge ──▶ judge ──▶ run folder
//! ```
//!
//! A lab is driven only by the requests that the commands use, one lab and one supervisor for every case. What is
//! judged as a bug is only what the checkers prove with operations, trees or logs; everything that depends on time is
//! an expectation, and an expectation missed on a machine that stalled is not held against anybody.

mod ailments;
pub mod amount;
mod case;
pub mod chaos;
pub mod condition;
mod differences;
mod evidence;
pub mod expect;
pub mod file;
mod finale;
pub mod folder;
pub mod host;
mod judge;
mod lab;
mod message;
pub mod plan;
pub mod record;
mod render;
pub mod schema;
pub mod shrink;
mod stage;
mod swarm;
mod text;
mod utc;
pub mod words;

pub use self::case::{Case, Servers, run};
pub use self::expect::Expected;
pub use self::file::Scenario;
pub use self::folder::Folder;
pub use self::host::HostMeter;
pub use self::judge::rank;
pub use self::plan::Plan;
pub use self::record::{Check, LoadRecord, RunRecord, Verdict};
pub use self::utc::stamp;
