//! The real binary as a process: on real sockets and files, under good and bad conditions.
//!
//! Every server gets a loopback address of its own, which a listener of the harness keeps reserved, so that
//! tests, and runs of tests, that go on at the same time never meet. Readiness is told by the event feed;
//! nothing sleeps. A wait that outlasts [`harness::PATIENCE`] fails the test with the server's log.

mod bad_input;
mod client;
mod crash;
mod ensemble;
mod harness;
mod log;
mod refusals;
mod settings;
mod standalone;
