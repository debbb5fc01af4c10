//! The `ironlens` command.

use std::process::ExitCode;

use clap::Parser;
use ironlens_cli::Cli;

fn main() -> ExitCode {
    // When the reader of a pipe goes away, end quietly, as other commands do.
    sigpipe::reset();
    match Cli::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}
