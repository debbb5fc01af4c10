//! `ironlens download`: fetches a model into the Hugging Face cache.

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use ironlens::pretrained::{LoadOptions, download};

use crate::pretrained::{Bars, Version};

/// Flags of `download`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// A name (gpt2, pythia-70m, EleutherAI/pythia-70m)
    model: String,
    #[command(flatten)]
    version: Version,
}

/// Fetches what is missing of the newest commit and prints the folder.
///
/// # Errors
/// If the name is not known, or the hub does not give the model.
pub fn run(args: &Args) -> Result<()> {
    if std::path::Path::new(&args.model).exists() {
        bail!("{} is on this machine already; give the name of a model", args.model);
    }
    let options = LoadOptions {
        revision: args.version.revision.clone(),
        checkpoint_value: args.version.checkpoint,
        ..LoadOptions::default()
    };
    let mut bars = Bars::default();
    println!("{}", download(&args.model, &options, &mut |progress| bars.show(progress))?.display());
    Ok(())
}
