//! transformer

pub mod config;
pub mod names;
