//! `ironlens eval`: how well a pretrained model predicts.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use ironlens::lens::evaluation::ioi::{IoiOptions, ioi_dataset, ioi_eval};
use ironlens::lens::{evaluate_text, induction_loss};
use ironlens::tokenizer::Tokenize;
use serde_json::{Value, json};

use crate::input::{from_one, from_zero, read_text};
use crate::pretrained::ModelArgs;
use crate::say::say_aside;

/// Flags of `eval`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A text: its loss, perplexity and accuracy
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Print the loss of every token of the text, too
    #[arg(long, requires = "text")]
    tokens: bool,
    /// The loss on random tokens when they are said a second time, of sequences of N [without N: 384, or half of the
    /// context if that is less]
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, allow_negative_numbers = true)]
    induction: Option<Option<usize>>,
    /// The logit difference and accuracy on N prompts with an indirect object
    #[arg(
        long, value_name = "N", num_args = 0..=1, default_missing_value = "200",
        value_parser = from_one::<usize>, allow_negative_numbers = true
    )]
    ioi: Option<usize>,
    /// Of what is drawn for --induction and --ioi [default: 0]
    #[arg(long, value_name = "N", value_parser = from_zero::<u64>, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
///
/// # Errors
/// If the model cannot be loaded, or a text does not fit it.
pub fn run(args: &Args) -> Result<()> {
    if args.text.is_none() && args.induction.is_none() && args.ioi.is_none() {
        bail!("nothing to measure: give --text FILE, --induction or --ioi");
    }
    if args.seed.is_some() && args.induction.is_none() && args.ioi.is_none() {
        bail!("--seed is of what is drawn, and nothing is; leave it out, or add --induction or --ioi");
    }
    let seed = args.seed.unwrap_or(0);
    let text = args.text.as_ref().map(|path| read_text(path, "the text")).transpose()?;
    let model = args.model.load()?;
    if let Some(text) = &text {
        let bar = Bar::new("tokens");
        let found = evaluate_text(&model, text, |done, all| bar.show(done, all))?;
        drop(bar);
        if args.tokens {
            let lines = found.tokens.iter().zip(&found.losses).zip(&found.right);
            for ((&id, loss), right) in lines {
                let token = model.to_single_str_token(id)?;
                match (args.json, loss) {
                    (true, loss) => println!("{}", json!({ "token": token, "id": id, "loss": loss, "right": right })),
                    (false, Some(loss)) => println!("{loss:>8.3}  {token:?}"),
                    (false, None) => println!("{:>8}  {token:?}", ""),
                }
            }
        }
        let (loss, perplexity, accuracy) = (found.loss(), found.perplexity(), found.accuracy());
        let n = found.predicted();
        tell(
            args.json,
            json!({ "tokens": n, "loss": loss, "perplexity": perplexity, "accuracy": accuracy }),
            format!("{n} tokens: loss {loss:.4}, perplexity {perplexity:.3}, accuracy {:.2} %", 100.0 * accuracy),
        );
    }
    if let Some(n) = args.induction {
        let (n_ctx, most) = (model.config().n_ctx, model.config().n_ctx / 2);
        if let Some(n) = n.filter(|n| *n > most) {
            say_aside(format_args!(
                "--induction {n}: {most} tokens are taken, the most that a context of {n_ctx} has twice"
            ));
        }
        let n = n.unwrap_or(384).min(most);
        let bos = model.tokenizer().filter(|t| t.default_prepend_bos());
        let bos = bos.and_then(|t| t.special_tokens().bos.as_ref()?.id);
        let loss = induction_loss(&model, 4, n, bos, seed)?;
        tell(
            args.json,
            json!({ "induction_loss": loss, "subseq_len": n }),
            format!("{n} random tokens, said again: loss {loss:.4}"),
        );
    }
    if let Some(n) = args.ioi {
        let samples = ioi_dataset(&IoiOptions { num_samples: n, seed, ..IoiOptions::default() })?;
        let bar = Bar::new("prompts");
        let score = ioi_eval(&model, &samples, 8, |done, all| bar.show(done, all))?;
        drop(bar);
        tell(
            args.json,
            json!({ "ioi_logit_difference": score.logit_difference, "ioi_accuracy": score.accuracy, "prompts": n }),
            format!(
                "{n} indirect objects: logit difference {:.3}, accuracy {:.1} %",
                score.logit_difference,
                100.0 * score.accuracy
            ),
        );
    }
    Ok(())
}

fn tell(as_json: bool, value: Value, line: String) {
    if as_json { println!("{value}") } else { println!("{line}") }
}

/// A bar on a terminal, with rate and time left.
struct Bar(ProgressBar);

impl Bar {
    fn new(what: &str) -> Bar {
        let bar = ProgressBar::new(0);
        let style = format!("{{bar:30}} {{pos}} of {{len}} {what}, {{per_sec}}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&style) {
            bar.set_style(style);
        }
        Bar(bar)
    }

    fn show(&self, done: usize, all: usize) {
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
