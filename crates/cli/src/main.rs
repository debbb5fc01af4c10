//! The `ironlens` command.
fn main() {}
