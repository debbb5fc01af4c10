//! `ironlens generate`: a pretrained model writes.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use ironlens::lens::steering::kl_divergence;
use ironlens::nn::Hooks;
use ironlens::report::{Figure, bar};
use ironlens::tensor::IndexTensor;
use ironlens::transformer::{
    Finish, GenerateOptions, Generated, HookedTransformer, HooksOn, Input, KeyValueCache, TokenOptions,
};
use serde_json::json;

use crate::input::{finite, from_one, from_zero};
use crate::pretrained::ModelArgs;
use crate::say::say_aside;
use crate::signals::Stop;
use crate::steer::Steer;

/// Flags of `generate`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The prompt
    #[arg(value_name = "PROMPT", required_unless_present = "chat")]
    prompt: Option<String>,
    /// How many tokens at most are written (in a chat, in each answer)
    #[arg(
        long, value_name = "N", default_value_t = 100,
        value_parser = from_zero::<usize>, allow_negative_numbers = true
    )]
    max_new_tokens: usize,
    /// Take the likeliest token every time, instead of drawing (after --repetition-penalty, if it is given)
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "freq_penalty", "seed"])]
    greedy: bool,
    /// Below 1 likely tokens become likelier, above 1 less likely; 0 is --greedy
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = finite, allow_negative_numbers = true)]
    temperature: f64,
    /// Draw among the K likeliest tokens only (of these, with --top-p, from the part that it says)
    #[arg(long, value_name = "K", value_parser = from_one::<usize>, allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Draw among the likeliest tokens only that together have this probability
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Draw only from tokens with this part of the likeliest one's probability
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Logits lose this much for every time that their token was used (in a chat: since the last answer)
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    freq_penalty: Option<f64>,
    /// Logits of used tokens are divided by this if above 0, multiplied if below (in a chat: since the last answer)
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = finite, allow_negative_numbers = true)]
    repetition_penalty: f64,
    /// Of what is drawn: the same seed writes the same text [default: 0]
    #[arg(long, value_name = "N", value_parser = from_zero::<u64>, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Stop before this text (may be given several times)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on where the model would end
    #[arg(long)]
    ignore_eos: bool,
    /// Answer by the model's chat template: the prompt, and then what is typed, turn by turn
    #[arg(long)]
    chat: bool,
    /// What a chat begins with: how the model shall behave
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Add a steering vector, so many times: FILE:COEFFICIENT, or FILE:COEFFICIENT@LAYER (several times: several)
    #[arg(long, value_name = "FILE:COEF[@LAYER]")]
    steer: Vec<Steer>,
    /// Steer new tokens only, and read the prompt as it is
    #[arg(long, requires = "steer")]
    steer_new_tokens: bool,
    /// Show the text without steering, too, and how far each prediction was moved
    #[arg(long, requires = "steer", conflicts_with_all = ["chat", "json"])]
    compare: bool,
    /// Draw how far each prediction was moved, to a .html, .png or .svg file
    #[arg(long, value_name = "FILE", requires = "compare")]
    figure: Option<PathBuf>,
    /// Print JSON, an object a token
    #[arg(long, conflicts_with = "chat")]
    json: bool,
}

/// Writes.
///
/// # Errors
/// If the model cannot be loaded, has no tokenizer, or an option cannot be; [`crate::Interrupted`] after Ctrl-C.
pub fn run(args: &Args) -> Result<()> {
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        stop_at_eos: !args.ignore_eos,
        stop_strings: args.stop.clone(),
        do_sample: !args.greedy,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        top_k_then_top_p: true,
        temperature: args.temperature,
        freq_penalty: args.freq_penalty.unwrap_or(0.0),
        repetition_penalty: args.repetition_penalty,
        seed: args.seed.unwrap_or(0),
        ..GenerateOptions::default()
    };
    // Before the model is read, which takes longer.
    options.sampling()?;
    if args.temperature == 0.0 {
        let all = [
            ("--top-k", args.top_k.is_some()),
            ("--top-p", args.top_p.is_some()),
            ("--min-p", args.min_p.is_some()),
            ("--freq-penalty", args.freq_penalty.is_some()),
            ("--seed", args.seed.is_some()),
        ];
        if let Some((flag, _)) = all.iter().find(|(_, given)| *given) {
            bail!("{flag} is of what is drawn, and --temperature 0 takes the likeliest token; leave one of them out");
        }
    }
    args.figure.as_deref().map(Figure::check_name).transpose()?;
    let model = args.model.load()?;
    let mut steering = Vec::new();
    args.steer.iter().try_for_each(|steer| steer.add_to(&model, &mut steering))?;
    let mut writer = Writer {
        model: &model,
        options,
        steering,
        on: if args.steer_new_tokens { HooksOn::NewTokens } else { HooksOn::All },
        json: args.json,
    };
    if args.chat {
        return chat(args, &mut writer);
    }
    let Some(prompt) = args.prompt.as_deref() else { bail!("give a prompt") };
    if args.compare {
        return compare(&mut writer, prompt, args.figure.as_deref());
    }
    writer.write(if args.json { "" } else { prompt }, prompt.into(), None)?;
    Ok(())
}

struct Writer<'m> {
    model: &'m HookedTransformer,
    options: GenerateOptions,
    steering: Vec<Hooks<'static>>,
    on: HooksOn,
    json: bool,
}

impl Writer<'_> {
    /// Prints `before` and what the model writes, as it does, and then how fast it did. A first Ctrl-C ends the text
    /// there.
    fn write(&mut self, before: &str, input: Input, past: Option<&mut KeyValueCache>) -> Result<Generated> {
        // While it writes: at a chat's prompt, Ctrl-C ends the program.
        let stop = Stop::answering("")?;
        let mut hooks = all_of(&mut self.steering);
        let mut generation = self.model.generation(input).options(self.options.clone()).hooks(&mut hooks);
        generation = generation.hooks_on(self.on);
        if let Some(past) = past {
            generation = generation.past_kv_cache(past);
        }
        let mut stream = generation.stream()?;
        let mut out = std::io::stdout().lock();
        write!(out, "{before}")?;
        let (start, mut first, mut n) = (Instant::now(), Duration::ZERO, 0usize);
        for step in stream.by_ref() {
            let step = step?;
            n += 1;
            if n == 1 {
                first = start.elapsed();
            }
            if let Some(token) = step.token() {
                match self.json {
                    true => writeln!(
                        out,
                        "{}",
                        json!({ "id": token.id, "text": token.text, "log_prob": token.log_prob, "pos": step.pos })
                    )?,
                    false => write!(out, "{}", token.text)?,
                }
                out.flush()?;
            }
            if stop.asked().is_some() {
                break;
            }
        }
        if !self.json {
            writeln!(out)?;
        }
        drop(out);
        let written = stream.finish()?;
        let after = start.elapsed() - first;
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        let mut told = format!("prompt: {} tokens", written.prompt_len);
        if n > 0 {
            told += &format!(", {:.1} a second", rate(written.prompt_len, first));
        }
        if n > 1 {
            told += &format!("; continuation: {n} tokens, {:.1} a second", rate(n - 1, after));
        }
        match (stop.asked(), written.finish.first()) {
            (None, Some(Finish::ContextFull)) => {
                told += &format!("; the context of {} is full", self.model.config().n_ctx);
            }
            (None, Some(Finish::Length)) if n > 0 => told += "; stopped by --max-new-tokens",
            _ => {}
        }
        say_aside(told);
        match stop.asked() {
            Some(interrupted) => Err(interrupted.into()),
            None => Ok(written),
        }
    }
}

/// One set of hooks that runs them all.
fn all_of<'h>(parts: &'h mut [Hooks<'static>]) -> Hooks<'h> {
    parts.iter_mut().fold(Hooks::new(), |all, part| all.and(part.nested()))
}

/// Turn by turn: the prompt, and then lines of standard input.
fn chat(args: &Args, writer: &mut Writer<'_>) -> Result<()> {
    let model = writer.model;
    let typed = std::io::stdin().is_terminal();
    let mut messages: Vec<(&str, String)> = args.system.iter().map(|text| ("system", text.clone())).collect();
    // What the cache has read, so that each turn reads only what is new in it.
    let (mut past, mut read) = (KeyValueCache::new(model, 1), Vec::<u32>::new());
    let mut next = args.prompt.clone();
    loop {
        let Some(turn) = next.take().map_or_else(|| ask(typed), |turn| Ok(Some(turn)))? else { return Ok(()) };
        messages.push(("user", turn));
        let turns: Vec<(&str, &str)> = messages.iter().map(|(role, text)| (*role, text.as_str())).collect();
        let tokens = model.chat_tokens(&turns)?.as_slice().to_vec();
        ensure!(
            tokens.len() < model.config().n_ctx,
            "the chat is {} tokens long by now, and the model's context {}; begin a new one",
            tokens.len(),
            model.config().n_ctx
        );
        // At least one token is read, for its logits.
        let known = read.iter().zip(&tokens).take_while(|(a, b)| a == b).count().min(tokens.len() - 1);
        if past.truncate(known).is_err() {
            past = KeyValueCache::new(model, 1);
        }
        let new = &tokens[past.len()..];
        let input = IndexTensor::new(new.to_vec(), &[1, new.len()]);
        let written = writer.write("", Input::from(&input), Some(&mut past))?;
        read = [&tokens[..], &written.new_tokens[0]].concat();
        read.truncate(past.len());
        messages.push(("assistant", written.new_text().to_string()));
        if args.prompt.is_some() && !typed {
            return Ok(());
        }
    }
}

/// The next line that is not empty; none at the end of the input.
fn ask(typed: bool) -> Result<Option<String>> {
    loop {
        if typed {
            eprint!("> ");
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).context("cannot read the next turn")? == 0 {
            return Ok(None);
        }
        if !line.trim().is_empty() {
            return Ok(Some(line.trim_end_matches(['\r', '\n']).to_string()));
        }
    }
}

/// The text without steering, and the steered one with how far each prediction was moved.
fn compare(writer: &mut Writer<'_>, prompt: &str, figure: Option<&Path>) -> Result<()> {
    let model = writer.model;
    let steering = std::mem::take(&mut writer.steering);
    writer.write(&format!("without steering:\n{prompt}"), prompt.into(), None)?;
    writer.steering = steering;
    let steered = writer.write(&format!("\nsteered:\n{prompt}"), prompt.into(), None)?;
    if steered.new_tokens[0].is_empty() {
        return Ok(());
    }

    // On the steered text, what both would have said next.
    let tokens = model.to_tokens_with(prompt, &TokenOptions::whole())?.tokens;
    let start = tokens.shape()[1];
    let clean = model.forward(&steered.tokens)?;
    let moved = {
        let mut hooks = all_of(&mut writer.steering);
        let mut of_prompt = if writer.on == HooksOn::NewTokens { Hooks::new() } else { hooks.nested() };
        let mut past = KeyValueCache::new(model, 1);
        let prompt_logits = model.call(&tokens).past_kv_cache(&mut past).hooks(&mut of_prompt).output()?;
        drop(of_prompt);
        let rest = steered.tokens.narrow(1, start, steered.tokens.shape()[1] - start);
        let rest = model.call(&rest).past_kv_cache(&mut past).hooks(&mut hooks).output()?;
        ironlens::tensor::Tensor::cat(&[prompt_logits.logits().value().clone(), rest.logits().value().clone()], 1)
    };
    let kl = kl_divergence(&clean, &moved).to_vec();
    println!("\nnats between the two predictions of each steered token:");
    let words = steered.new_tokens[0].iter().map(|&id| model.to_single_str_token(id)).collect::<Result<Vec<_>, _>>()?;
    let moved = &kl[start - 1..][..words.len()];
    for (word, nats) in words.iter().zip(moved) {
        println!("{nats:>8.3}  {word:?}");
    }
    if let Some(path) = figure {
        let labels =
            words.iter().enumerate().map(|(i, word)| format!("{} {}", i + 1, word.trim().replace('\n', "\\n")));
        let caption = format!("{prompt}{}", words.concat());
        bar(labels, moved).title("How far steering moved each prediction").y("nats").caption(caption).save(path)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
