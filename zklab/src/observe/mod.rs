//! What can be seen of an ensemble under stress: clients that never stop writing, the phases of a
//! re-election, how badly the machine itself was held up meanwhile, and what clients were told, recorded
//! and judged.

pub mod check;
pub mod clients;
pub mod flow;
pub mod history;
pub mod load;
pub mod logs;
pub mod stall;
pub mod trees;
pub mod waterfall;
pub mod wire;
