//! The `ironlens` command, one module per subcommand.
//!
//! ```text
//! cargo install --path crates/cli             # of a clone; once published: cargo install ironlens-cli
//! ironlens pipeline --preset tiny             # train a small model, and write a page about it
//! ironlens analyze gpt2 --text "The capital of France is" --answer " Paris"
//! ```
//!
//! As a library it is the same command, for programs that run it and for its tests:
//!
//! ```
//! use clap::Parser;
//! use ironlens_cli::Cli;
//! assert!(Cli::try_parse_from(["ironlens", "train", "--preset", "tiny"]).is_ok());
//! assert!(Cli::try_parse_from(["ironlens", "train", "--steps", "many"]).is_err());
//! ```

mod analyze;
pub mod bench;
mod completions;
mod device;
mod devices;
mod download;
mod eval;
mod fill_mask;
mod generate;
mod hint;
mod input;
mod inspect;
mod man;
mod models;
mod pipeline;
mod pretrained;
mod prompt;
mod report;
mod say;
mod settings;
mod signals;
mod steer;
mod tell;
mod threads;
mod train;
pub mod verify;

use std::path::Path;

use anyhow::Result;
use clap::{Parser, Subcommand};
use hint::Asked;
pub use settings::Recipe;
pub use signals::Interrupted;

/// What `--help` says of the environment.
const ENVIRONMENT: &str = "\
Environment:
  IRONLENS_ADAPTER        take the GPU whose name holds this text; the only way to a software driver
  IRONLENS_MATRICES       0: do without the GPU's matrix instructions; try: also where its driver lists none for f32
  IRONLENS_AUTOTUNE       1: measure once on this GPU which tiles suit which products; again: anew
  IRONLENS_SHADER_CHECKS  1: check bounds in every kernel
  IRONLENS_ACCELERATE     0: on macOS, do without Apple's products; release: in debug builds only
  RAYON_NUM_THREADS       threads that compute on the CPU; results have the same bits for any number
                          (of Apple's library: VECLIB_MAXIMUM_THREADS)
  HF_HOME, HF_HUB_CACHE   where pretrained models are kept
  HF_HUB_OFFLINE          1: download nothing
  HF_TOKEN                the token for models that ask for one";

/// Train small transformers, look inside, and report what they learned.
#[derive(Parser, Debug)]
#[command(name = "ironlens", version, max_term_width = 100, after_help = ENVIRONMENT)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Train a model and keep the run: checkpoints, metrics, attention snapshots
    Train(train::Args),
    /// Write the report of a run: one HTML page that needs no network
    Report(report::Args),
    /// Train, then report
    Pipeline(pipeline::Args),
    /// Analyse a trained model: heads, attribution, patching, ablation, circuits; into its report
    Analyze(analyze::Args),
    /// Show how a pretrained model continues a text, and what it gives an answer
    Prompt(prompt::Args),
    /// Let a pretrained model write on from a prompt, or answer in a chat; steered if asked to
    Generate(generate::Args),
    /// Make a steering vector from two files of prompts
    Steer(steer::Args),
    /// Measure how well a model predicts: a text, repeated random tokens, indirect objects
    Eval(eval::Args),
    /// Show what a pretrained model is: configuration, modules, weights, memory, checks
    Inspect(inspect::Args),
    /// List the families and names of pretrained models
    Models(models::Args),
    /// Fetch a pretrained model into the Hugging Face cache
    Download(download::Args),
    /// Compare with reference cases made by TransformerLens and Hugging Face
    Verify(verify::Args),
    /// List the devices of this machine, and which one `auto` takes
    Devices,
    /// Measure speed: training step, forward pass, cache, products, kernels, growth
    Bench(bench::Args),
    /// Print what a shell needs to complete this command's words
    Completions(completions::Args),
    /// Print the manual page, or write those of all subcommands into a folder
    Man(man::Args),
}

impl Command {
    /// What of it decides how an error is told.
    fn asked(&self) -> Asked<'_> {
        let trains = matches!(self, Command::Train(_) | Command::Pipeline(_));
        let model = match self {
            Command::Analyze(args) => Some(args.target.as_path()),
            Command::Prompt(args) => Some(Path::new(&args.model.model)),
            Command::Generate(args) => Some(Path::new(&args.model.model)),
            Command::Steer(args) => Some(Path::new(&args.model.model)),
            Command::Eval(args) => Some(Path::new(&args.model.model)),
            Command::Inspect(args) => Some(Path::new(&args.model.model)),
            Command::Train(_)
            | Command::Report(_)
            | Command::Pipeline(_)
            | Command::Models(_)
            | Command::Download(_)
            | Command::Verify(_)
            | Command::Devices
            | Command::Bench(_)
            | Command::Completions(_)
            | Command::Man(_) => None,
        };
        Asked { trains, model }
    }
}

impl Cli {
    /// Whether the command goes on when nobody reads its output any more: a training is too dear to lose.
    pub fn outlives_its_reader(&self) -> bool {
        self.command.asked().trains
    }

    /// How an error of this command is told on the terminal: what went wrong, its causes, and what to try.
    pub fn tell(&self, error: &anyhow::Error) -> String {
        tell::tell(error, self.command.asked())
    }

    /// Runs the command; false if it ran but found something wrong.
    ///
    /// # Errors
    /// What the command could not do; [`Interrupted`] if a signal ended a training, which is kept.
    pub fn run(&self) -> Result<bool> {
        match &self.command {
            Command::Train(args) => train::run(args).map(|_| true),
            Command::Report(args) => report::run(args).map(|()| true),
            Command::Pipeline(args) => pipeline::run(args).map(|()| true),
            Command::Analyze(args) => analyze::run(args).map(|()| true),
            Command::Prompt(args) => prompt::run(args).map(|()| true),
            Command::Generate(args) => generate::run(args).map(|()| true),
            Command::Steer(args) => steer::run(args).map(|()| true),
            Command::Eval(args) => eval::run(args).map(|()| true),
            Command::Inspect(args) => inspect::run(args),
            Command::Models(args) => models::run(args).map(|()| true),
            Command::Download(args) => download::run(args).map(|()| true),
            Command::Verify(args) => verify::run(args),
            Command::Devices => devices::run().map(|()| true),
            Command::Bench(args) => bench::run(args),
            Command::Completions(args) => completions::run(args).map(|()| true),
            Command::Man(args) => man::run(args).map(|()| true),
        }
    }
}

/// How the user calls this program: `cargo xtask` says so in a variable.
fn command_name() -> String {
    std::env::var("IRONLENS_COMMAND").unwrap_or_else(|_| "ironlens".into())
}

/// A word of a command, as a shell takes it whole.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-+=:,./@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_word_with_spaces_stays_one_word() {
        assert_eq!(super::quoted("--out"), "--out");
        assert_eq!(super::quoted("my run"), "'my run'");
        assert_eq!(super::quoted("it's"), r"'it'\''s'");
        assert_eq!(super::quoted(""), "''");
    }
}
