//! What can be seen of an ensemble under stress: clients that never stop writing, the phases of a
//! re-election, and how badly the machine itself was held up meanwhile.

pub mod clients;
pub mod stall;
pub mod waterfall;
