//! The runtime: sockets, threads, clocks and signals around the peer. The only place that knows tokio.

mod client_port;
mod clock;
mod core;
pub mod election_port;
mod feed;
mod links;
mod meter;
mod net;
mod setup;
mod status;
mod storage_thread;

pub use setup::{ServeError, ServeOptions, serve};
