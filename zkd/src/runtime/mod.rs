//! The runtime: sockets, threads, clocks and signals around the peer. The only place that knows tokio.

pub mod election_port;
