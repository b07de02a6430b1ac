//! zkd: a complete ZooKeeper server as a library and a binary.
//!
//! The modules form floors; a module imports only from floors below its own
//! (`zkd/tests/tidy.rs` enforces it, ARCHITECTURE.md explains it).
