//! Pretrained models by name or path: the flags that say which, and the bar while one is fetched.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use ironlens::pretrained::hub::Progress;
use ironlens::pretrained::{LoadOptions, Pretrained, PretrainedError, is_encoder, locate};
use ironlens::tensor::{DType, Device};
use ironlens::transformer::{HookedEncoder, HookedTransformer};

use crate::device::DeviceArg;
use crate::input::{from_one, from_zero};
use crate::say::say_aside;
use crate::threads;

/// Flags that say which of a model's versions at the hub is meant.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Version {
    /// A branch, tag or commit at the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Take the checkpoint of this step (or number of tokens) of training
    #[arg(
        long, value_name = "N", conflicts_with = "revision",
        value_parser = from_zero::<u64>, allow_negative_numbers = true
    )]
    pub checkpoint: Option<u64>,
}

/// Flags that name a model and how it is loaded.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct ModelArgs {
    /// A name (gpt2, pythia-70m, EleutherAI/pythia-70m), a folder as Hugging Face writes it, or a .gguf, .pt or
    /// .safetensors file
    pub model: String,
    #[command(flatten)]
    loading: Loading,
}

/// Flags that say how a model is loaded.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Loading {
    #[command(flatten)]
    version: Version,
    /// Take the first N layers only
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, allow_negative_numbers = true)]
    first_n_layers: Option<usize>,
    /// Longest sequence, if not the model's own
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, allow_negative_numbers = true)]
    n_ctx: Option<usize>,
    /// Weights as they are stored: norms are not folded, nothing is centred
    #[arg(long)]
    no_processing: bool,
    /// Where TransformerLens 2.18 computes something else than Hugging Face, do as it does
    #[arg(long)]
    like_transformerlens: bool,
    /// Whether text begins with a beginning-of-sequence token [default: the family's habit]
    #[arg(long, value_name = "true|false")]
    prepend_bos: Option<bool>,
    #[command(flatten)]
    pub device: DeviceArg,
    /// f64 computes in double precision on the CPU
    #[arg(long, value_name = "f32|f64", default_value = "f32", value_parser = ["f32", "f64"])]
    dtype: String,
    /// Keep matrices in 16 bits (on the CPU; what is computed is f32): half of the memory, and text is written faster
    #[arg(long, value_name = "f32|bf16|f16", default_value = "f32", value_parser = ["f32", "bf16", "f16"])]
    storage: String,
}

impl Loading {
    /// The flags that were given and mean something for pretrained models only.
    pub fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--revision", self.version.revision.is_some()),
            ("--checkpoint", self.version.checkpoint.is_some()),
            ("--first-n-layers", self.first_n_layers.is_some()),
            ("--n-ctx", self.n_ctx.is_some()),
            ("--no-processing", self.no_processing),
            ("--like-transformerlens", self.like_transformerlens),
            ("--prepend-bos", self.prepend_bos.is_some()),
            ("--dtype", self.dtype != "f32"),
            ("--storage", self.storage != "f32"),
        ];
        all.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect()
    }

    /// What they say of loading.
    ///
    /// # Errors
    /// If the device cannot be had.
    pub fn options(&self) -> Result<LoadOptions> {
        let device = self.device.open()?;
        let dtype = if self.dtype == "f64" { DType::F64 } else { DType::F32 };
        if dtype == DType::F64 && device != Device::Cpu {
            bail!("--dtype f64 computes on the CPU only; add --device cpu");
        }
        let storage = match self.storage.as_str() {
            "bf16" => DType::Bf16,
            "f16" => DType::F16,
            _ => DType::F32,
        };
        let base = if self.no_processing { LoadOptions::no_processing() } else { LoadOptions::default() };
        Ok(LoadOptions {
            first_n_layers: self.first_n_layers,
            n_ctx: self.n_ctx,
            default_prepend_bos: self.prepend_bos,
            dtype,
            storage,
            device,
            revision: self.version.revision.clone(),
            checkpoint_value: self.version.checkpoint,
            like_transformerlens: self.like_transformerlens,
            ..base
        })
    }
}

impl ModelArgs {
    /// The model, a decoder or an encoder, fetched first if it is a name that is not on this machine.
    ///
    /// # Errors
    /// As [`Pretrained::from_pretrained`].
    pub fn load_any(&self) -> Result<Model> {
        // A device is looked for before there are threads: drivers are quieter then.
        let options = self.loading.options()?;
        threads::start()?;
        let path = path_of(&self.model, &options)?.to_string_lossy().into_owned();
        let options = options.of_path();
        Ok(match is_encoder(&path, &options)? {
            true => {
                if self.loading.no_processing {
                    say_aside("--no-processing changes nothing here: the weights of an encoder are never processed");
                }
                Model::Encoder(timed(|| HookedEncoder::from_pretrained_with(&path, &options))?)
            }
            false => Model::Decoder(timed(|| HookedTransformer::from_pretrained_with(&path, &options))?),
        })
    }

    /// The model, which must be one that writes.
    ///
    /// # Errors
    /// As [`ModelArgs::load_any`], and if it is an encoder.
    pub fn load(&self) -> Result<HookedTransformer> {
        match self.load_any()? {
            Model::Decoder(model) => Ok(model),
            Model::Encoder(_) => bail!(
                "{} is an encoder such as BERT: it predicts masked words (`prompt`), and does not write on",
                self.model
            ),
        }
    }
}

/// A pretrained model of either kind.
pub enum Model {
    Decoder(HookedTransformer),
    Encoder(HookedEncoder),
}

/// The model of a name or path, fetched first if it is not on this machine.
///
/// # Errors
/// As [`Pretrained::from_pretrained`].
pub fn load(model: &str, options: &LoadOptions) -> Result<HookedTransformer> {
    let path = path_of(model, options)?;
    timed(|| HookedTransformer::from_pretrained_with(path.to_string_lossy(), &options.clone().of_path()))
}

/// What `load` gives; says how long it took if that is long.
fn timed<M>(load: impl FnOnce() -> Result<M, PretrainedError>) -> Result<M> {
    let start = Instant::now();
    let model = load()?;
    if start.elapsed() > Duration::from_secs(1) {
        say_aside(format_args!("loaded in {:.1} s", start.elapsed().as_secs_f64()));
    }
    Ok(model)
}

fn path_of(model: &str, options: &LoadOptions) -> Result<PathBuf> {
    let mut bars = Bars::default();
    Ok(locate(model, options, &mut |progress| bars.show(progress))?)
}

/// A bar for the file that is being fetched.
#[derive(Default)]
pub struct Bars(HashMap<String, ProgressBar>);

impl Bars {
    /// Shows how far it is, on a terminal.
    pub fn show(&mut self, progress: Progress<'_>) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        match progress {
            Progress::Bytes { file, done, total } => {
                let bar = self.0.entry(file.to_string()).or_insert_with(|| {
                    let style = "{msg:28} {bar:30} {bytes:>10} of {total_bytes:10} {binary_bytes_per_sec:>12} {eta:>5}";
                    let bar = ProgressBar::new(total.unwrap_or(0));
                    if let Ok(style) = ProgressStyle::with_template(style) {
                        bar.set_style(style);
                    }
                    bar.set_message(file.to_string());
                    // What was there before is no part of the rate.
                    bar.set_position(done);
                    bar.reset_eta();
                    bar
                });
                bar.set_position(done);
                if total == Some(done) {
                    bar.finish();
                }
            }
            Progress::Again { why, wait } => {
                say_aside(format_args!("{why}; trying again in {:.0} s", wait.as_secs_f64()));
            }
            Progress::Locked { file } => say_aside(format_args!("waiting for another download of {file}")),
        }
    }
}
