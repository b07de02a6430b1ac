//! zklab: a local cluster lab for ZooKeeper ensembles.
//!
//! It spawns and supervises ensembles of real server processes on one machine, breaks things on
//! purpose, and watches elections to the millisecond. The modules form floors; a module imports only
//! from floors below its own (ARCHITECTURE.md explains them).

// Floor 0: words.
pub mod clock;
pub mod event;
pub mod failure;
pub mod id;

// Floor 2: one node.
pub mod disk;
pub mod net;
pub mod node;
pub mod probe;

// Floor 3: an ensemble of them.
pub mod ensemble;

// Floor 4: what can be seen of it.
pub mod observe;

// Floor 4: what can be done to it.
pub mod fault;

// Floor 4: how fast it is.
pub mod bench;

// Floor 5: the process that owns an ensemble.
pub mod supervisor;
pub mod wall;

// Floor 5, above it: what is done with many of them, and the verdict.
pub mod scenario;

// Floor 6: what people and scripts read.
pub mod report;

// Floor 7: the command line.
pub mod cli;
pub mod command;
