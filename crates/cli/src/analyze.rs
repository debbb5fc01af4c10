//! `ironlens analyze`: the standard set of analyses on a trained model, kept with its run.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use ironlens::pretrained::LoadOptions;
use ironlens::report::Report;
use ironlens::study::prompts::{Prompts, Question};
use ironlens::study::{ANALYSERS, Analysis, Subject, analyse_with};
use ironlens::tensor::Device;
use ironlens::train::{Data, DataRecord, RandomTokens, RunDir};
use ironlens::transformer::{Config, HookedTransformer};

use crate::input::read_text;
use crate::pretrained::Loading;
use crate::say::say_aside;
use crate::threads;

/// Flags of `analyze`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// A run, a weights file in TransformerLens's names, or, with --text, a pretrained model by name or path
    pub(crate) target: PathBuf,
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
    #[command(flatten)]
    loading: Loading,
}

/// Analyses and writes the report.
///
/// # Errors
/// If the target is neither a run nor a weights file that fits its configuration, or a file cannot
/// be written.
pub fn run(args: &Args) -> Result<()> {
    // A device is looked for before there are threads: drivers are quieter then.
    if let Some(text) = &args.text {
        let options = args.loading.options()?;
        threads::start()?;
        return on_text(args, text, options);
    }
    if let [flag, ..] = args.loading.given()[..] {
        bail!("{flag} goes with --text and a pretrained model; a run or a weights file is taken as it is");
    }
    let device = args.loading.device.open()?;
    threads::start()?;
    match args.target.is_dir() {
        true => on_run(args, &device),
        false => on_weights(args, &device),
    }
}

/// Whether a folder is of a model as Hugging Face writes it.
fn is_pretrained(folder: &Path) -> bool {
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(&config).is_ok_and(|config| config.get("architectures").is_some())
}

/// A run, which keeps the analysis.
fn on_run(args: &Args, device: &Device) -> Result<()> {
    if args.config.is_some() {
        bail!("--config goes with a weights file; a run has its own configuration");
    }
    if is_pretrained(&args.target) {
        bail!("{} is a pretrained model, not a run; say on what text: --text \"..\"", args.target.display());
    }
    let run = RunDir::open(&args.target)?;
    let subject = Subject::of_run(&run, device)?;
    let sizes = subject.tokens.shape();
    println!("sequences          {} held-out ones of {} tokens, of {}", sizes[0], sizes[1], run.config().data);
    let analysis = analyse(&subject);
    if let Some(path) = &args.json {
        analysis.write(path)?;
    }
    match analysis.keep(&run) {
        Ok(kept) => println!("analysis           {}", kept.display()),
        // A run that cannot be written to is still good to be read.
        Err(error) if args.out.is_some() => {
            let error = anyhow::Error::from(error);
            say_aside(format_args!("warning: the analysis is not kept in the run, only in the page: {error:#}"));
        }
        Err(error) => {
            return Err(anyhow::Error::from(error).context("the run cannot keep its analysis; name a page with --out"));
        }
    }
    crate::report::write_with(&run, Some(analysis), args.out.as_deref(), args.figures.as_deref())
}

/// A weights file, on random tokens.
fn on_weights(args: &Args, device: &Device) -> Result<()> {
    let (subject, data) = load(&args.target, args.config.as_deref(), device)?;
    println!("sequences          {data}, as a weights file brings none");
    let analysis = analyse(&subject);
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
        analysis.write(path)?;
    }
    crate::report::write_page(&report, &page, args.figures.as_deref())
}

/// A pretrained model on a text.
fn on_text(args: &Args, text: &str, options: LoadOptions) -> Result<()> {
    if args.config.is_some() {
        bail!("--config goes with a weights file; a pretrained model has its own configuration");
    }
    if args.target.is_dir() && !is_pretrained(&args.target) && RunDir::open(&args.target).is_ok() {
        bail!(
            "{} is a run, which is analysed on what it kept of its own data; leave --text out",
            args.target.display()
        );
    }
    let questions = questions(args, text)?;
    let name = args.target.to_string_lossy().into_owned();
    let model = crate::pretrained::load(&name, &options)?;
    let prompts = Prompts::new(model, questions)?;
    let analysis = prompts.analyse();
    for part in &analysis.sections {
        println!("{}\n  {}", part.title, part.prose);
    }
    if let Some(path) = &args.json {
        analysis.write(path)?;
    }
    let page = args.out.clone().unwrap_or_else(|| page_of(&name));
    // Of a file, its name.
    let title = args.target.file_name().filter(|_| args.target.exists()).map(|n| n.to_string_lossy().into_owned());
    let report = prompts.report(&title.unwrap_or(name), &analysis)?;
    crate::report::write_page(&report, &page, args.figures.as_deref())
}

/// What was asked for: a text, or a file with a question a line.
fn questions(args: &Args, text: &str) -> Result<Vec<Question>> {
    let file = Path::new(text);
    if !file.is_file() {
        let (answer, wrong, corrupted) = (args.answer.clone(), args.wrong.clone(), args.corrupted.clone());
        return Ok(vec![Question { prompt: text.into(), answer, wrong, corrupted }]);
    }
    if args.answer.is_some() || args.wrong.is_some() || args.corrupted.is_some() {
        bail!("{text} is a file, whose lines have their own answers; leave out --answer, --wrong and --corrupted");
    }
    Ok(Question::read_lines(&read_text(file, "the prompts")?)?)
}

/// How files of models end.
const FILES: [&str; 5] = ["gguf", "pt", "pth", "bin", "safetensors"];

/// The page that is written where no name is given.
fn page_of(name: &str) -> PathBuf {
    let path = Path::new(name);
    // Names of models have dots in them, too.
    let is_file = path.extension().is_some_and(|e| FILES.iter().any(|known| e.eq_ignore_ascii_case(known)));
    let stem = if is_file { path.file_stem() } else { path.file_name() };
    let stem = stem.map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned());
    PathBuf::from(format!("{stem}.analysis.html"))
}

/// Every analysis, with a word on each while it runs.
fn analyse(subject: &Subject) -> Analysis {
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(ANALYSERS.len() as u64));
    let mut done = 0;
    let analysis = analyse_with(subject, ANALYSERS, |analyser| {
        if let Some(bar) = &bar {
            bar.set_position(done);
            bar.set_message(analyser.title);
            bar.tick();
        }
        done += 1;
    });
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    analysis
}

/// A model from a weights file and its configuration, and random tokens for it, described.
fn load(weights: &Path, config: Option<&Path>, device: &Device) -> Result<(Subject, DataRecord)> {
    if !weights.is_file() {
        let what = if weights.exists() { "is not an ordinary file" } else { "does not exist" };
        bail!(
            "{} {what}; give a run's folder or a .safetensors file, or add --text \"..\" for a pretrained model",
            weights.display()
        );
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
    Ok((Subject::new(model, tokens)?, data.describe()))
}
