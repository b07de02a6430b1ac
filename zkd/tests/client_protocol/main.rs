//! The client protocol, driven byte by byte through connections, preparation and apply, without I/O.
//! What is expected was observed on Apache ZooKeeper or read in its code.

mod auth;
mod digests;
mod golden;
mod handshake;
mod harness;
mod order;
mod reads;
mod refusals;
mod sessions;
mod threads;
mod twin;
mod watches;
mod writes;
