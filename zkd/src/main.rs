//! The zkd binary.
fn main() {}
