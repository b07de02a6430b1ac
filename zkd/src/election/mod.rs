//! FastLeaderElection: notifications in, votes out, in the end a leader.

mod notification;

pub use notification::{Notification, Vote};
