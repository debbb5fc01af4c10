//! `ironlens download`: fetches a model into the Hugging Face cache.

use anyhow::{Result, bail};
use clap::Args as ClapArgs;

use crate::pretrained::ModelArgs;

/// Flags of `download`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
}

/// Fetches what is missing and prints the folder.
///
/// # Errors
/// If the name is not known, or the hub does not give the model.
pub fn run(args: &Args) -> Result<()> {
    if std::path::Path::new(&args.model.model).exists() {
        bail!("{} is on this machine already; give the name of a model", args.model.model);
    }
    let path = args.model.path()?;
    println!("{}", path.display());
    Ok(())
}
