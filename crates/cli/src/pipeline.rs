//! `ironlens pipeline`: trains, then reports.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::{report, train};

/// Flags of `pipeline`: those of `train`, and where pictures go.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    train: train::Args,
    /// Write every figure as PNG and SVG to this folder, too
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

/// Trains and reports.
///
/// # Errors
/// As the two commands.
pub fn run(args: &Args) -> Result<()> {
    let path = train::run(&args.train)?;
    report::run(&report::Args::new(path, args.figures.clone()))
}
