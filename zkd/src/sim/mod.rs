//! The simulator: an ensemble in one thread, in virtual time, fixed by one seed.
//!
//! It drives the very same `peer`, `election`, `zab`, `pipeline` and `storage` code as the runtime; only
//! what touches the outside is replaced: the clock jumps from event to event, the network delays, drops,
//! duplicates, reorders and partitions, the disks lose what was not synced, servers crash and come back, and
//! clients speak ZooKeeper's own bytes to them all the while. Checkers ([`check`]) look at every delivery and
//! every answer.
//!
//! One seed gives one run, event for event. A failing seed leaves the record of its events, and one command
//! line replays it.

pub mod check;
mod client;
mod coverage;
mod disk;
mod drive;
mod faults;
mod mutation;
mod network;
mod serve;
mod server;
mod stage;
mod world;

pub use check::{Checks, Violation};
pub use coverage::Coverage;
pub use disk::{FaultyDisk, FaultyFile};
pub use mutation::Mutation;
pub use stage::Stage;
pub use world::{Outcome, Plan, World};
