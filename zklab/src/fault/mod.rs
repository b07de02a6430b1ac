//! Faults of the network: bad links and partitions, and taking them out again.
//!
//! A lab has one [`Board`]. It knows what the user set on single links and which partitions stand on top of
//! that, and always puts the whole of it in force in one step. So faults can be put in and taken out in any
//! order, and each heal restores exactly what the others leave.

pub mod board;
pub mod change;
pub mod partition;
pub mod profile;
pub mod trace;
pub mod words;

pub use self::board::Board;
pub use self::change::LinkChange;
pub use self::partition::{Clients, Style};
pub use self::profile::Profile;
pub use self::trace::Trace;
