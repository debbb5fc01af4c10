//! `ironlens prompt`: how a pretrained model continues a text, or what an encoder guesses at its masks.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use ironlens::lens::{PromptTest, test_prompt};
use ironlens::study::prompts::Question;
use ironlens::transformer::{HookedTransformer, TokenOptions};
use serde_json::{Value, json};

use crate::fill_mask;
use crate::input::read_text;
use crate::pretrained::{Model, ModelArgs};
use crate::say::say_aside;

/// Flags of `prompt`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The prompt; for an encoder, with [MASK] where a word is to be guessed
    #[arg(value_name = "PROMPT", required_unless_present = "text")]
    prompt: Option<String>,
    /// The answer whose rank and probability are wanted, such as " Mary"
    #[arg(long, value_name = "TEXT")]
    answer: Option<String>,
    /// An answer to compare with: the difference of the two logits is told
    #[arg(long, value_name = "TEXT", requires = "answer")]
    wrong: Option<String>,
    /// Many prompts: a file with a JSON object {"prompt": .., "answer": .., "wrong": ..} a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "answer", "wrong"])]
    text: Option<PathBuf>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// Prints what follows.
///
/// # Errors
/// If the model cannot be loaded, has no tokenizer, or a text does not fit it.
pub fn run(args: &Args) -> Result<()> {
    let questions = match (&args.text, &args.prompt) {
        (Some(path), _) => Question::read_lines(&read_text(path, "the prompts")?)?,
        (None, Some(prompt)) => {
            let (answer, wrong) = (args.answer.clone(), args.wrong.clone());
            vec![Question { prompt: prompt.clone(), answer, wrong, corrupted: None }]
        }
        (None, None) => bail!("give a prompt, or a file of prompts with --text"),
    };
    if questions.iter().any(|question| question.corrupted.is_some()) {
        say_aside("\"corrupted\" is for `analyze`, which patches; nothing is done with it here");
    }
    let model = args.model.load_any()?;
    for (i, question) in questions.iter().enumerate() {
        if i > 0 && !args.json {
            println!();
        }
        let asked = match &model {
            Model::Decoder(model) => ask(model, question, args.json),
            Model::Encoder(model) => fill_mask::ask(model, question, args.json),
        };
        asked.with_context(|| format!("prompt {}: {:?}", i + 1, question.prompt))?;
    }
    Ok(())
}

fn ask(model: &HookedTransformer, question: &Question, as_json: bool) -> Result<()> {
    // Answers are taken as they are written: a space before a word is part of its token.
    let Some(answer) = &question.answer else {
        let whole = TokenOptions::whole();
        let logits = model.forward(&model.to_tokens_with(question.prompt.as_str(), &whole)?)?;
        let last = logits.select(0, 0).select(0, logits.dim(1) - 1);
        let (chances, best) = last.softmax().topk(10.min(last.numel()), 0);
        let top: Vec<(String, f64)> = best
            .as_slice()
            .iter()
            .zip(chances.to_vec_f64())
            .map(|(&token, chance)| Ok((model.to_single_str_token(token)?, chance)))
            .collect::<Result<_>>()?;
        if as_json {
            let top: Vec<Value> = top.iter().map(|(t, p)| json!({ "token": t, "probability": p })).collect();
            println!("{}", json!({ "prompt": question.prompt, "top": top }));
        } else {
            println!("{:?}", model.to_str_tokens(&question.prompt)?);
            top.iter().for_each(|(token, chance)| println!("{:>6.2}%  {token:?}", 100.0 * chance));
        }
        return Ok(());
    };
    let test = test_prompt(model, &question.prompt, answer, false)?;
    let difference = match &question.wrong {
        None => None,
        Some(wrong) => {
            ensure!(wrong != answer, "the answer and the wrong answer are the same, {answer:?}; give others");
            let wrong = test_prompt(model, &question.prompt, wrong, false)?;
            Some(first(&test)? - first(&wrong)?)
        }
    };
    if as_json {
        let steps: Vec<Value> = test
            .steps
            .iter()
            .map(|s| {
                let top: Vec<Value> = s
                    .top
                    .iter()
                    .map(|c| json!({ "token": c.text, "logit": c.logit, "probability": c.probability }))
                    .collect();
                json!({ "token": s.answer.text, "rank": s.rank, "logit": s.answer.logit,
                        "probability": s.answer.probability, "top": top })
            })
            .collect();
        println!("{}", json!({ "prompt": question.prompt, "answer": steps, "logit_difference": difference }));
        return Ok(());
    }
    println!("{test}");
    if let (Some(difference), Some(wrong)) = (difference, &question.wrong) {
        println!("Logit difference {answer:?} - {wrong:?}: {difference:.3}");
    }
    Ok(())
}

/// The logit of an answer's first token.
fn first(test: &PromptTest) -> Result<f64> {
    Ok(test.steps.first().context("the answer has no tokens")?.answer.logit)
}
