//! `ironlens man`: manual pages, from the same words as `--help`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;
use ironlens::files::write_atomically;

use crate::Cli;

/// Arguments of `ironlens man`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to write the pages of the command and of all its subcommands, such as ~/.local/share/man/man1; without
    /// it, the command's own is printed
    folder: Option<PathBuf>,
}

/// Prints or writes the pages.
///
/// # Errors
/// If the folder cannot be made or written to.
pub fn run(args: &Args) -> Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let page = |command: clap::Command| {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map(|()| page)
    };
    let Some(folder) = &args.folder else {
        return Ok(std::io::stdout().write_all(&page(command)?)?);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let subcommands: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    for command in std::iter::once(command).chain(subcommands) {
        // `ironlens-train`, of a subcommand.
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = folder.join(format!("{name}.1"));
        write_atomically(&path, &page(command)?)?;
        println!("{}", path.display());
    }
    Ok(())
}
