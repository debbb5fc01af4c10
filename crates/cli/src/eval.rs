//! `ironlens eval`: how well a pretrained model predicts.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use ironlens::lens::evaluation::ioi::{IoiOptions, ioi_dataset, ioi_eval};
use ironlens::lens::{evaluate_text, induction_loss};
use ironlens::tokenizer::Tokenize;
use serde_json::{Value, json};

use crate::input::read_text;
use crate::pretrained::ModelArgs;

/// Flags of `eval`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A text: its loss, perplexity and accuracy
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Print the loss of every token of the text, too
    #[arg(long, requires = "text")]
    tokens: bool,
    /// The loss on random tokens when they are said a second time, of sequences of N
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "384")]
    induction: Option<usize>,
    /// The logit difference and accuracy on N prompts with an indirect object
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "200")]
    ioi: Option<usize>,
    /// Of what is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
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
        let n = n.min(model.config().n_ctx / 2);
        let bos = model.tokenizer().filter(|t| t.default_prepend_bos());
        let bos = bos.and_then(|t| t.special_tokens().bos.as_ref()?.id);
        let loss = induction_loss(&model, 4, n, bos, args.seed)?;
        tell(
            args.json,
            json!({ "induction_loss": loss, "subseq_len": n }),
            format!("{n} random tokens, said again: loss {loss:.4}"),
        );
    }
    if let Some(n) = args.ioi {
        let samples = ioi_dataset(&IoiOptions { num_samples: n, seed: args.seed, ..IoiOptions::default() })?;
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
