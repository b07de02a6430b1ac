//! zkd: a complete ZooKeeper server as a library and a binary.
//!
//! The modules form floors; a module imports only from floors below its own
//! (`zkd/tests/tidy.rs` enforces it, ARCHITECTURE.md explains it).

// Floor 0: words.
pub mod error;
pub mod event;
pub mod ids;
pub mod path;
pub mod planted;
pub mod prng;
pub mod time;

// Floor 1: bytes.
pub mod jute;

// Floor 2: records and configuration.
pub mod config;
pub mod record;

// Floor 3: state.
pub mod auth;
pub mod metrics;
pub mod quorum;
pub mod session;
pub mod tree;
pub mod watch;

// Floor 4: machines.
pub mod election;
pub mod pipeline;
pub mod storage;
pub mod zab;

// Floor 5: the server.
pub mod peer;
pub mod status;

// Floor 6: drivers.
pub mod runtime;
pub mod sim;
