//! End-to-end tests: what crosses crates.

mod bad_input;
mod determinism;
mod documents;
mod durability;
mod edits;
mod hooks;
mod learning;
mod reference;
mod steps;
mod training;
mod trees;
mod weights;
