//! `ironlens analyze`: the standard set of analyses on a trained model, kept with its run.

mod picture;
mod sections;
mod text;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use ironlens_pretrained::LoadOptions;
use ironlens_report::Report;
use ironlens_tensor::Device;
use ironlens_train::{Data, DataRecord, RandomTokens, RunDir};
use ironlens_transformer::{Config, HookedTransformer, write_atomically};

use crate::input::read_text;
use crate::say::say_aside;
use crate::threads;
pub use picture::{Analysis, Part, Picture};
use sections::{ALL, Subject};

/// Where a run keeps its analysis.
const FILE: &str = "analysis.json";

/// Flags of `analyze`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// A run, a weights file in TransformerLens's names, or, with --text, a pretrained model by name or path
    target: PathBuf,
    /// Analyse a pretrained model on this text, or on those of a file with a JSON object {"prompt": .., "answer": ..,
    /// "wrong": .., "corrupted": ..} a line
    #[arg(long, value_name = "TEXT|FILE")]
    text: Option<String>,
    /// What should follow the text, such as " Mary" [default: what the model says]
    #[arg(long, value_name = "TEXT", requires = "text")]
    answer: Option<String>,
    /// What should not; its logit is subtracted
    #[arg(long, value_name = "TEXT", requires = "answer")]
    wrong: Option<String>,
    /// The text with another answer, of as many tokens [default: the wrong answer's last mention replaced]
    #[arg(long, value_name = "TEXT", requires = "text")]
    corrupted: Option<String>,
    /// Configuration of the weights file (JSON, TransformerLens's fields) [default: config.json beside it]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the results as JSON to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The page to write [default: report.html in the run, analysis.html beside the weights]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write every figure as PNG and SVG to this folder, too
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_name = "auto|cpu|gpu", default_value = "auto")]
    device: String,
}

/// Analyses and writes the report.
///
/// # Errors
/// If the target is neither a run nor a weights file that fits its configuration, or a file cannot
/// be written.
pub fn run(args: &Args) -> Result<()> {
    let device = Device::from_name(&args.device)?;
    threads::start()?;
    if let Some(text) = &args.text {
        return on_text(args, text, device);
    }
    if args.target.is_dir() {
        if args.config.is_some() {
            bail!("--config goes with a weights file; a run has its own configuration");
        }
        let run = RunDir::open(&args.target)?;
        let last = run.last_checkpoint()?;
        let (model, sequences) = (run.model_at(&last, &device)?, run.sequences()?);
        let masked = if sequences.mask.is_some() { "; the analyses count their padding as tokens" } else { "" };
        println!("sequences          held-out, of {}{masked}", run.config().data);
        let subject = Subject { model, tokens: sequences.tokens };
        subject.check()?;
        let analysis = analyse(&subject, Some(last.step));
        if let Some(path) = &args.json {
            write_json(path, &analysis)?;
        }
        let kept = run.path().join(FILE);
        match write_json(&kept, &analysis) {
            Ok(()) => println!("analysis           {}", kept.display()),
            // A run that cannot be written to is still good to be read.
            Err(error) if args.out.is_some() => {
                say_aside(format_args!("warning: the analysis is not kept in the run, only in the page: {error:#}"));
            }
            Err(error) => return Err(error.context("the run cannot keep its analysis; name a page with --out")),
        }
        return crate::report::write_with(&run, Some(analysis), args.out.as_deref(), args.figures.as_deref());
    }
    let (subject, data) = load(&args.target, args.config.as_deref(), &device)?;
    subject.check()?;
    println!("sequences          {data}, as a weights file brings none");
    let analysis = analyse(&subject, None);
    let page = args.out.clone().unwrap_or_else(|| args.target.with_file_name("analysis.html"));
    let name = args.target.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let report = Report {
        title: format!("Analysis of {name}"),
        subtitle: format!("on {data}"),
        model_tree: format!("{}", subject.model),
        sections: analysis.to_sections()?,
        ..Report::default()
    };
    if let Some(path) = &args.json {
        write_json(path, &analysis)?;
    }
    crate::report::write_page(&report, &page, args.figures.as_deref())
}

/// A pretrained model on a text.
fn on_text(args: &Args, text: &str, device: Device) -> Result<()> {
    if args.config.is_some() {
        bail!("--config goes with a weights file; a pretrained model has its own configuration");
    }
    let questions = text::asked(text, args.answer.as_deref(), args.wrong.as_deref(), args.corrupted.as_deref())?;
    let name = args.target.to_string_lossy().into_owned();
    let model = crate::pretrained::load(&name, LoadOptions { device, ..LoadOptions::default() })?;
    let (report, analysis) = text::analyse(&model, &name, questions)?;
    for part in &analysis.sections {
        println!("{}\n  {}", part.title, part.prose);
    }
    if let Some(path) = &args.json {
        write_json(path, &analysis)?;
    }
    let page = args.out.clone().unwrap_or_else(|| text::page_of(&name));
    crate::report::write_page(&report, &page, args.figures.as_deref())
}

/// The analysis that a run keeps, if it was made.
///
/// # Errors
/// If the file cannot be read.
pub fn kept(run: &RunDir) -> Result<Option<Analysis>> {
    let path = run.path().join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(&path, "the analysis")?;
    let bad =
        || format!("{} is not an analysis; make it anew with `{} analyze`", path.display(), crate::command_name());
    serde_json::from_str(&text).map(Some).with_context(bad)
}

/// Every analysis, with a word on each while it runs.
fn analyse(subject: &Subject, step: Option<u64>) -> Analysis {
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(ALL.len() as u64));
    let sections = ALL
        .iter()
        .map(|analyser| {
            if let Some(bar) = &bar {
                bar.set_message(analyser.title);
                bar.tick();
            }
            let part = analyser.part(subject);
            if let Some(bar) = &bar {
                bar.inc(1);
            }
            part
        })
        .collect();
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    Analysis { step, sections }
}

/// A model from a weights file and its configuration, and random tokens for it, described.
fn load(weights: &Path, config: Option<&Path>, device: &Device) -> Result<(Subject, DataRecord)> {
    if !weights.is_file() {
        let what = if weights.exists() { "is not an ordinary file" } else { "does not exist" };
        bail!("{} {what}; give a run's folder or a .safetensors file", weights.display());
    }
    let path = config.map_or_else(|| weights.with_file_name("config.json"), Path::to_path_buf);
    let text = read_text(&path, "the configuration").map_err(|e| match config {
        Some(_) => e,
        None => e.context("weights need a configuration; name it with --config"),
    })?;
    let config = Config::from_json(&text).with_context(|| path.display().to_string())?;
    let mut model = HookedTransformer::new(Config { init_weights: false, ..config }, device, 0)?;
    model.load_weights(weights)?;
    if model.config().n_ctx < 3 {
        bail!("the analyses need a context of at least 3 positions, this model has {}", model.config().n_ctx);
    }
    let mut data = RandomTokens::new(model.config(), 0)?;
    let tokens = data.batch(8)?;
    Ok((Subject { model, tokens }, data.describe()))
}

fn write_json(path: &Path, analysis: &Analysis) -> Result<()> {
    let text = serde_json::to_string(analysis).context("the results are not JSON")?;
    Ok(write_atomically(path, text.as_bytes())?)
}
