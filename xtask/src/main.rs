//! `cargo xtask COMMAND ..`: builds the `ironlens` command in release and runs it with the same
//! arguments; `cargo xtask ci` runs the project's checks, `documents` and `notebook` make documents.

mod documents;
mod notebook;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask COMMAND [OPTIONS]

  train      train a model            (--help lists the options of each)
  report     write the report of a run
  pipeline   train, then report
  analyze    analyse a trained model, or a pretrained one on a text
  prompt     show how a pretrained model continues a text
  generate   let a pretrained model write on, or answer in a chat
  steer      make a steering vector from two files of prompts
  eval       measure how well a model predicts
  inspect    show what a pretrained model is
  models     list the families and names of pretrained models
  download   fetch a pretrained model
  verify     compare with reference cases
  devices    list the devices of this machine
  bench      measure speed
  completions print what a shell needs to complete the command's words
  man        write the command's manual pages
  ci         run all checks of .ci/run
  documents  make the crates' READMEs and the guide of their sources (--check: are they in step?)
  notebook   make docs/notebook.ipynb of the example, with what its cells print (-- small: of a small model)";

/// The project's: the manifest of this crate lies one folder below.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let root = root();
    let mut chosen = match args.first().map(|arg| arg.to_string_lossy()).as_deref() {
        _ if is_help(&args) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("documents") if args.iter().any(|arg| arg == "--check") => return told(documents::check(&root)),
        Some("documents") => return told(documents::write(&root)),
        Some("notebook") => return told(notebook::write(&root, args.iter().any(|arg| arg == "small"))),
        Some("ci") => {
            let mut c = command("bash");
            c.arg(root.join(".ci/run")).args(&args[1..]).current_dir(&root);
            c
        }
        _ => {
            let mut c = cargo();
            c.args(["run", "--quiet", "--release", "--manifest-path"]).arg(root.join("Cargo.toml"));
            c.args(["--package", "ironlens-cli", "--bin", "ironlens", "--"]).args(&args);
            c.env("IRONLENS_COMMAND", "cargo xtask");
            c
        }
    };
    run(&mut chosen)
}

/// Whether these words ask for the list of commands: `help train` asks the command, which is built for it.
fn is_help(words: &[OsString]) -> bool {
    let help = ["help", "--help", "-h"];
    words.first().is_none_or(|word| words.len() == 1 && help.iter().any(|known| word == known))
}

/// A command that is not told of this program's own package, as Cargo told this program. Build scripts that ask for these
/// variables (ring's) would run again, and all that is built on them, whenever `cargo xtask` follows a `cargo build`.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// The Cargo that runs this.
fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or("cargo".into()))
}

fn told(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes the command, so that Ctrl-C reaches it alone.
#[cfg(unix)]
fn run(command: &mut Command) -> ExitCode {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    eprintln!("error: cannot run {:?}: {error}", command.get_program());
    ExitCode::FAILURE
}

#[cfg(not(unix))]
fn run(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) => ExitCode::from(status.code().unwrap_or(1) as u8),
        Err(error) => {
            eprintln!("error: cannot run {:?}: {error}", command.get_program());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_commands_needs_no_build() {
        let is_help = |words: &[&str]| is_help(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(is_help(&[]) && is_help(&["help"]) && is_help(&["--help"]) && is_help(&["-h"]));
        assert!(!is_help(&["help", "train"]) && !is_help(&["train", "--help"]));
    }

    #[test]
    fn commands_are_not_told_of_this_package() {
        // Cargo tells tests, too.
        let command = command("cargo");
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(env::var_os(name).is_some(), "{name}");
            assert!(command.get_envs().any(|(own, value)| own == name && value.is_none()), "{name}");
        }
    }
}
