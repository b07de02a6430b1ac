//! The zklab binary.
fn main() {}
