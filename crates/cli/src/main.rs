//! The `ironlens` command.

use std::any::Any;
use std::process::ExitCode;

use clap::Parser;
use ironlens_cli::{Cli, Interrupted, tell};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !cli.outlives_its_reader() {
        // When the reader of a pipe goes away, end quietly, as other commands do.
        sigpipe::reset();
    }
    // A GPU that fails in the middle of its work can only be told by a panic; it is no bug of ours.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if gpu_failure(info.payload()).is_none() {
            usual(info);
        }
    }));
    let outcome =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cli.run())).unwrap_or_else(
            |payload| match gpu_failure(&*payload) {
                Some(text) => Err(anyhow::anyhow!("{text}")),
                None => std::panic::resume_unwind(payload),
            },
        );
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<Interrupted>() => {
            ExitCode::from(error.downcast_ref().map_or(1, |i: &Interrupted| i.exit_status()))
        }
        Err(error) => {
            eprintln!("{}", tell(&error));
            ExitCode::FAILURE
        }
    }
}

/// What a failed GPU said, if that is what a panic is about.
fn gpu_failure(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<String>().map(String::as_str).filter(|text| text.starts_with("the GPU "))
}
