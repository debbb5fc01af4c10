//! `ironlens completions`: what a shell needs to complete the command's words.

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::Cli;

/// Arguments of `ironlens completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Where shells look for it:
  bash        ironlens completions bash > ~/.local/share/bash-completion/completions/ironlens
  zsh         ironlens completions zsh > FOLDER/_ironlens, with FOLDER in $fpath
  fish        ironlens completions fish > ~/.config/fish/completions/ironlens.fish
  powershell  ironlens completions powershell >> $PROFILE
  elvish      ironlens completions elvish >> ~/.config/elvish/rc.elv")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// If nobody reads it.
pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "ironlens", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
