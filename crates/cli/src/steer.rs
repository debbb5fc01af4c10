//! `ironlens steer`: a steering vector from two files of prompts; and how such a vector is named on the command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use ironlens::lens::steering::{Dose, Reading, dose_response};
use ironlens::lens::{Metric, SteeringVector};
use ironlens::nn::Hooks;
use ironlens::report::{Figure, Series, line, panels};
use ironlens::transformer::HookedTransformer;

use crate::input::{finite, read_text};
use crate::pretrained::ModelArgs;

/// Flags of `steer`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Prompts with what is wanted, one a line
    #[arg(long, value_name = "FILE")]
    positive: PathBuf,
    /// Prompts with its opposite, one a line
    #[arg(long, value_name = "FILE")]
    negative: PathBuf,
    /// Where the prompts are read: at their last token, or as the mean over all but the first
    #[arg(long, value_name = "last|mean", default_value = "last", value_parser = ["last", "mean"])]
    at: String,
    /// The layers to keep, such as 5 or 4-9; all but layer 0 unless told otherwise
    #[arg(long, value_name = "LAYERS")]
    layers: Option<Layers>,
    /// Give each direction length 1
    #[arg(long)]
    normalise: bool,
    /// The file to write: .safetensors, or .gguf for llama.cpp too
    #[arg(long, value_name = "FILE", default_value = "steering.safetensors")]
    out: PathBuf,
    /// Try the vector on this prompt: how the logit of --answer less that of --wrong, and the distance from the
    /// model's own predictions, go with the coefficient
    #[arg(long, value_name = "PROMPT", requires = "answer", requires = "wrong")]
    dose: Option<String>,
    /// The answer that the vector should make likelier, such as " good"
    #[arg(long, value_name = "TEXT", requires = "dose")]
    answer: Option<String>,
    /// The answer that it should make less likely
    #[arg(long, value_name = "TEXT", requires = "dose")]
    wrong: Option<String>,
    /// The coefficients that are tried
    #[arg(
        long,
        value_name = "X,..",
        value_delimiter = ',',
        value_parser = finite,
        allow_hyphen_values = true,
        requires = "dose",
        default_value = "-4,-3,-2,-1,0,1,2,3,4"
    )]
    coefficients: Vec<f64>,
    /// Draw the two curves, to a .html, .png or .svg file
    #[arg(long, value_name = "FILE", requires = "dose")]
    figure: Option<PathBuf>,
}

/// Makes the vector.
///
/// # Errors
/// If the model cannot be loaded, the prompts do not fit it, or the file cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let [positive, negative] = [prompts(&args.positive)?, prompts(&args.negative)?];
    let known = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    ensure!(
        matches!(known.as_str(), "safetensors" | "gguf"),
        "--out {}: expected a name that ends with .safetensors or .gguf",
        args.out.display()
    );
    args.figure.as_deref().map(Figure::check_name).transpose()?;
    let model = args.model.load()?;
    let answers = match (&args.answer, &args.wrong) {
        (Some(answer), Some(wrong)) => Some([model.to_single_token(answer)?, model.to_single_token(wrong)?]),
        _ => None,
    };
    if let Some([right, wrong]) = answers {
        let text = model.to_single_str_token(right)?;
        ensure!(right != wrong, "--answer and --wrong are the same token, {text:?}; give others");
    }
    let n_layers = model.config().n_layers;
    let layers = match args.layers {
        Some(layers) => layers.within(n_layers)?,
        None if n_layers == 1 => vec![0],
        None => (1..n_layers).collect(),
    };
    let reading = if args.at == "mean" { Reading::Mean } else { Reading::Last };
    let all = SteeringVector::contrastive(&model, positive.as_slice(), negative.as_slice(), reading)?;
    let mut vector = all.of_layers(&layers)?;
    println!("{} prompts less {}, read at {}", positive.len(), negative.len(), args.at);
    for (layer, direction) in vector.directions() {
        println!("layer {layer:>3}  length {:.3}", direction.vector_norm(0).item());
    }
    if args.normalise {
        vector = vector.normalised();
    }
    let hint = &model.config().original_architecture;
    vector.save(&args.out, hint.as_deref().unwrap_or("unknown"))?;
    println!("wrote {}", args.out.display());
    match (&args.dose, answers) {
        (Some(prompt), Some(answers)) => try_doses(args, &model, &vector, prompt, answers),
        _ => Ok(()),
    }
}

/// The dose-response curve of a vector, as a table and a figure.
fn try_doses(
    args: &Args,
    model: &HookedTransformer,
    vector: &SteeringVector,
    prompt: &str,
    [right, other]: [u32; 2],
) -> Result<()> {
    let metric = Metric::logit_diff(&[right], &[other])?;
    let doses = dose_response(model, prompt, vector, &args.coefficients, &metric)?;
    let [answer, wrong] = [model.to_single_str_token(right)?, model.to_single_str_token(other)?];
    let difference = format!("logit of {answer:?} less {wrong:?}");
    println!("\ncoefficient  {difference}  nats from the model's own predictions");
    for dose in &doses {
        println!("{:>11}  {:>2$.3}  {3:.3}", dose.coefficient, dose.metric, difference.chars().count(), dose.kl);
    }
    if let Some(path) = &args.figure {
        let curve = |name: &str, of: &dyn Fn(&Dose) -> f64| {
            let values: Vec<f64> = doses.iter().map(of).collect();
            let series = Series::new(name, &values).x(&args.coefficients);
            line(series).title(name).x("coefficient").vrule(0.0, "as it is")
        };
        let curves =
            [curve(&difference, &|dose| dose.metric), curve("nats from the model's own predictions", &|dose| dose.kl)];
        panels(curves).title("Dose and response").caption(prompt).save(path)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// The lines of a file that are not empty.
fn prompts(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path, "the prompts")?;
    let prompts: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(String::from).collect();
    if prompts.is_empty() {
        bail!("{} has no prompts: one a line", path.display());
    }
    Ok(prompts)
}

/// Layers from the first to the last, both included.
#[derive(Clone, Copy, Debug)]
pub struct Layers(usize, usize);

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Layers, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Layers(first, last)),
            _ => Err(format!("expected a layer such as 5, or a range such as 4-9, not {text:?}")),
        }
    }
}

impl Layers {
    fn within(self, n_layers: usize) -> Result<Vec<usize>> {
        ensure!(self.1 < n_layers, "there is no layer {}: the model has layers 0 to {}", self.1, n_layers - 1);
        Ok((self.0..=self.1).collect())
    }
}

/// A vector on the command line: `FILE:COEFFICIENT`, `FILE:COEFFICIENT@LAYERS`.
#[derive(Clone, Debug)]
pub struct Steer {
    file: PathBuf,
    coefficient: f64,
    layers: Option<Layers>,
}

impl FromStr for Steer {
    type Err = String;

    fn from_str(text: &str) -> Result<Steer, String> {
        let expected = || format!("expected FILE:COEFFICIENT or FILE:COEFFICIENT@LAYER, not {text:?}");
        // From the right, since a path may have a colon.
        let (file, dose) = text.rsplit_once(':').ok_or_else(expected)?;
        let (coefficient, layers) = match dose.split_once('@') {
            Some((coefficient, layers)) => (coefficient, Some(layers.parse()?)),
            None => (dose, None),
        };
        let coefficient = coefficient.parse().ok().filter(|c: &f64| c.is_finite()).ok_or_else(expected)?;
        if file.is_empty() {
            return Err(expected());
        }
        Ok(Steer { file: file.into(), coefficient, layers })
    }
}

impl Steer {
    /// Adds to `hooks` those that steer.
    ///
    /// # Errors
    /// If the vector cannot be read, or is not of this model.
    pub fn add_to(&self, model: &HookedTransformer, hooks: &mut Vec<Hooks<'static>>) -> Result<()> {
        let of = || format!("--steer {}", self.file.display());
        let mut vector = SteeringVector::load(&self.file).with_context(of)?;
        if let Some(layers) = self.layers {
            vector = vector.of_layers(&layers.within(model.config().n_layers)?).with_context(of)?;
        }
        vector.check(model).with_context(of)?;
        hooks.push(vector.added(self.coefficient));
        Ok(())
    }
}
