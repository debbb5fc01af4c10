//! The `ironlens` command.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use clap::Parser;
use ironlens::tensor::GpuFailure;
use ironlens_cli::{Cli, Interrupted};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !cli.outlives_its_reader() {
        // When the reader of a pipe goes away, end quietly, as other commands do.
        sigpipe::reset();
    }
    // A GPU that fails in the middle of its work can only tell so by a panic; it is no bug of ours.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !GpuFailure::is_raised() {
            usual(info);
        }
    }));
    let outcome = catch_unwind(AssertUnwindSafe(|| cli.run())).unwrap_or_else(|payload| {
        let failure = payload.downcast::<GpuFailure>().unwrap_or_else(|other| resume_unwind(other));
        Err((*failure).into())
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<Interrupted>() => {
            ExitCode::from(error.downcast_ref().map_or(1, |i: &Interrupted| i.exit_status()))
        }
        Err(error) => {
            eprintln!("{}", cli.tell(&error));
            ExitCode::FAILURE
        }
    }
}
