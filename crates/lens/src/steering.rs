//! Directions in the residual stream that change what a model writes: found from pairs of prompts, added, or taken out.
//!
//! ```
//! use ironlens_lens::SteeringVector;
//! use ironlens_lens::steering::{Reading, dose_response};
//! use ironlens_lens::Metric;
//! use ironlens_tensor::{Device, IndexTensor};
//! use ironlens_transformer::{ActFn, Config, GenerateOptions, HookedTransformer};
//!
//! let cfg = Config { d_model: 16, d_head: 4, n_layers: 3, n_ctx: 8, d_vocab: 10, act_fn: ActFn::Gelu, ..Config::default() };
//! let model = HookedTransformer::new(cfg, &Device::Cpu, 42)?;
//! // Texts for a model with a tokenizer; here, tokens.
//! let (joy, gloom) = (IndexTensor::from([[0, 3, 1], [0, 2, 1]]), IndexTensor::from([[0, 3, 7], [0, 2, 7]]));
//! let vector = SteeringVector::contrastive(&model, &joy, &gloom, Reading::Last)?.of_layers(&[1])?;
//!
//! let tokens = IndexTensor::from([[0, 4, 5]]);
//! let options = GenerateOptions { max_new_tokens: 3, stop_at_eos: false, ..GenerateOptions::greedy() };
//! let mut hooks = vector.added(4.0);
//! let steered = model.generation(&tokens).options(options).hooks(&mut hooks).run()?;
//! assert_eq!(steered.new_tokens[0].len(), 3);
//!
//! let curve = dose_response(&model, &tokens, &vector, &[0.0, 2.0, 4.0], &Metric::logit_diff(&[1], &[7])?)?;
//! assert_eq!(curve[0].kl, 0.0);
//! assert!(curve[2].kl > curve[1].kl);
//! # Ok::<(), ironlens_lens::LensError>(())
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use ironlens_autograd::Var;
use ironlens_files::{Checkpoint, Dtype, GgufValue, Stored, StoredTensor, TensorFile, write_gguf};
use ironlens_nn::{Hooks, write_tensors, write_values};
use ironlens_tensor::{DType, Device, Tensor};
use ironlens_transformer::{HookedTransformer, Input, LogitsAt, ModelError, Sequences, TokenOptions};

use crate::error::LensError;
use crate::metric::Metric;

/// How an activation of several positions is read as one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// At the last token of each prompt.
    Last,
    /// Averaged over the tokens of each prompt but the first, at which most models keep what is of no text.
    Mean,
    /// At this position, counted over tokens that are no padding.
    At(usize),
}

/// A direction `[d_model]` for some of the layers, which is added to, or taken out of, the residual stream after the
/// layer's block (`blocks.{layer}.hook_resid_post`), as llama.cpp's control vectors are.
#[derive(Clone, Debug)]
pub struct SteeringVector {
    directions: BTreeMap<usize, Tensor>,
}

/// The architecture that GGUF files of control vectors name (llama.cpp, `convert_hf_to_gguf` and `cvector-generator`).
const ARCHITECTURE: &str = "controlvector";

/// Layers are below this: a control vector has their number in 32 bits.
const MOST_LAYERS: usize = u32::MAX as usize;

impl SteeringVector {
    /// Any directions, by layer.
    ///
    /// # Errors
    /// If there is none, they are not vectors of one length, or a layer is none that a file could name.
    pub fn new(directions: impl IntoIterator<Item = (usize, Tensor)>) -> Result<SteeringVector, LensError> {
        let directions: BTreeMap<usize, Tensor> = directions.into_iter().collect();
        if let Some(layer) = directions.keys().next_back().filter(|last| **last >= MOST_LAYERS) {
            return Err(LensError::argument(
                "the layer of a direction",
                layer.to_string(),
                format!("a number below {MOST_LAYERS}"),
            ));
        }
        let width = directions.values().next().map(Tensor::numel);
        match directions.iter().find(|(_, d)| Some(d.numel()) != width || d.ndim() != 1 || d.numel() == 0) {
            Some((layer, d)) => Err(LensError::argument(
                "the direction of a layer",
                format!("of shape {:?} (layer {layer})", d.shape()),
                "a vector [d_model], of one length in all layers",
            )),
            None if directions.is_empty() => {
                Err(LensError::argument("a steering vector", "empty", "a direction for at least one layer"))
            }
            None => Ok(SteeringVector { directions }),
        }
    }

    /// The mean of the residual stream after each block over `positive` prompts, less that over `negative` ones
    /// (contrastive activation addition; Turner et al. 2023, Rimsky et al. 2023).
    ///
    /// # Errors
    /// If prompts do not fit the model, or have no token where it is to be read.
    pub fn contrastive(
        model: &HookedTransformer,
        positive: impl Into<Input>,
        negative: impl Into<Input>,
        reading: Reading,
    ) -> Result<SteeringVector, LensError> {
        let [positive, negative] = [means(model, positive.into(), reading)?, means(model, negative.into(), reading)?];
        let pairs = positive.iter().zip(&negative).enumerate();
        SteeringVector::new(pairs.map(|(layer, (p, n))| (layer, (p - n).to_device(&Device::Cpu))))
    }

    /// The directions by layer.
    pub fn directions(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.directions.iter().map(|(layer, direction)| (*layer, direction))
    }

    /// The direction of a layer.
    pub fn get(&self, layer: usize) -> Option<&Tensor> {
        self.directions.get(&layer)
    }

    /// d_model.
    pub fn width(&self) -> usize {
        self.directions.values().next().map_or(0, Tensor::numel)
    }

    /// Those of some layers alone.
    ///
    /// # Errors
    /// If there is none of a layer.
    pub fn of_layers(&self, layers: &[usize]) -> Result<SteeringVector, LensError> {
        let of = |layer: &usize| match self.directions.get(layer) {
            Some(direction) => Ok((*layer, direction.clone())),
            None => Err(LensError::argument(
                "a layer of the steering vector",
                layer.to_string(),
                format!("one of {:?}", self.directions.keys().collect::<Vec<_>>()),
            )),
        };
        SteeringVector::new(layers.iter().map(of).collect::<Result<Vec<_>, _>>()?)
    }

    /// Each direction with length 1.
    pub fn normalised(&self) -> SteeringVector {
        let unit = |d: &Tensor| d * (1.0 / d.vector_norm(0).item().max(f64::MIN_POSITIVE));
        SteeringVector { directions: self.directions.iter().map(|(layer, d)| (*layer, unit(d))).collect() }
    }

    /// Refuses a vector that is not of this model.
    ///
    /// # Errors
    /// If widths differ, or there are more layers.
    pub fn check(&self, model: &HookedTransformer) -> Result<(), LensError> {
        let cfg = model.config();
        let last = self.directions.keys().next_back().copied().unwrap_or(0);
        if self.width() == cfg.d_model && last < cfg.n_layers {
            return Ok(());
        }
        Err(LensError::argument(
            "the steering vector of a model",
            format!("of width {} with layers up to {last}", self.width()),
            format!("of width {} with layers up to {}, as the model", cfg.d_model, cfg.n_layers - 1),
        ))
    }

    /// Hooks that add each direction, `coefficient` times, to the stream after its block, at all positions.
    pub fn added(&self, coefficient: f64) -> Hooks<'static> {
        self.hooks(move |x, direction| x + direction * coefficient)
    }

    /// Hooks that take each direction out of the stream after its block: `x - (x . d) d`, with `d` of length 1.
    pub fn projected_out(&self) -> Hooks<'static> {
        self.normalised().hooks(|x, direction| {
            let along = (x * direction).sum(&[2]).unsqueeze(2);
            x - &along * direction
        })
    }

    fn hooks(&self, change: impl Fn(&Var, &Var) -> Var + Copy + 'static) -> Hooks<'static> {
        self.directions.iter().fold(Hooks::new(), |hooks, (layer, direction)| {
            let direction = direction.clone();
            hooks.fwd(format!("blocks.{layer}.hook_resid_post"), move |x, _| {
                let direction = direction.to_dtype(x.value().dtype()).to_device(&x.value().device());
                *x = change(x, &Var::from(direction));
            })
        })
    }

    /// Writes the directions as `direction.{layer}`: to a safetensors file, or, if the name ends with `.gguf`, to a
    /// control vector as llama.cpp reads it, for a model of the architecture `model_hint` (`llama`, for instance).
    ///
    /// # Errors
    /// If the file cannot be written, or it is for llama.cpp and has a direction of layer 0, for which that has no
    /// place.
    pub fn save(&self, path: impl AsRef<Path>, model_hint: &str) -> Result<(), LensError> {
        let path = path.as_ref();
        let all = || self.directions.iter().map(|(layer, d)| (format!("direction.{layer}"), d.to_dtype(DType::F32)));
        if !is_gguf(path) {
            let all: Vec<(String, Tensor)> = all().collect();
            let named = all.iter().map(|(name, direction)| (name.as_str(), direction.clone()));
            return Ok(write_tensors(path, named).map_err(ModelError::from)?);
        }
        if self.directions.contains_key(&0) {
            return Err(LensError::argument(
                "a layer of a control vector of llama.cpp",
                "0",
                "1 or more; leave layer 0 out with of_layers, or keep the vector as .safetensors",
            ));
        }
        let count = self.directions.keys().next_back().map_or(0, |last| last + 1);
        let metadata = [
            ("general.architecture".into(), GgufValue::String(ARCHITECTURE.into())),
            ("controlvector.model_hint".into(), GgufValue::String(model_hint.into())),
            (
                "controlvector.layer_count".into(),
                GgufValue::U32(u32::try_from(count).expect("new refuses such layers")),
            ),
        ];
        let (infos, values): (Vec<StoredTensor>, Vec<Tensor>) = all()
            .map(|(name, d)| (StoredTensor { name, stored: Stored::Plain(Dtype::F32), shape: d.shape().to_vec() }, d))
            .unzip();
        Ok(write_gguf(path, &metadata, &infos, |i, file| write_values(&values[i], file))?)
    }

    /// Reads what [`SteeringVector::save`] wrote, or any other control vector of llama.cpp.
    ///
    /// # Errors
    /// If the file cannot be read, or has other tensors than directions by layer.
    pub fn load(path: impl AsRef<Path>) -> Result<SteeringVector, LensError> {
        let file = Checkpoint::open(path.as_ref())?;
        let mut directions = Vec::new();
        for tensor in file.tensors() {
            let layer = tensor.name.strip_prefix("direction.").and_then(|layer| layer.parse::<usize>().ok());
            let Some(layer) = layer else {
                return Err(LensError::argument(
                    "a tensor of a steering vector",
                    format!("`{}`", tensor.name),
                    "`direction.1`, `direction.2` and so on, by layer",
                ));
            };
            let values = file.read_f32(&tensor.name)?;
            if values.iter().any(|v| !v.is_finite()) {
                return Err(LensError::argument("a direction", format!("`{}` with NaN", tensor.name), "numbers"));
            }
            directions.push((layer, Tensor::from_vec(values, &tensor.shape, &Device::Cpu)));
        }
        SteeringVector::new(directions)
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Texts and tokens as `[batch, pos]`, with a mask of as many where some are padding.
fn sequences_of(model: &HookedTransformer, input: Input) -> Result<Sequences, LensError> {
    let sequences: Sequences = match input {
        // A text that is too long is refused by the model, and not cut in silence.
        Input::Texts(texts) => model.to_tokens_with(texts.as_slice(), &TokenOptions::whole())?.into(),
        Input::Sequences(sequences) => sequences,
        Input::Residual(_) => {
            return Err(LensError::argument("prompts", "a residual stream", "texts, or tokens [batch, pos]"));
        }
    };
    let shape = sequences.tokens.shape();
    if shape.len() != 2 {
        return Err(LensError::argument("prompts", format!("tokens of shape {shape:?}"), "[batch, pos]"));
    }
    match &sequences.mask {
        Some(mask) if mask.shape() != shape => Err(LensError::argument(
            "the mask of prompts",
            format!("one of shape {:?}", mask.shape()),
            format!("{shape:?}, as the tokens"),
        )),
        Some(_) | None => Ok(sequences),
    }
}

/// The stream after each block, `[d_model]`, averaged over prompts as `reading` says.
fn means(model: &HookedTransformer, input: Input, reading: Reading) -> Result<Vec<Tensor>, LensError> {
    let sequences = sequences_of(model, input)?;
    let Sequences { tokens, mask } = &sequences;
    let (batch, pos) = (tokens.shape()[0], tokens.shape()[1]);
    // Weights [batch, pos] of each position in the mean.
    let mut weights = Vec::with_capacity(batch * pos);
    for item in 0..batch {
        let seen = |at: &usize| mask.as_ref().is_none_or(|m| m.as_slice()[item * pos + at] != 0);
        let places: Vec<usize> = (0..pos).filter(seen).collect();
        let read: &[usize] = match (reading, places.as_slice()) {
            (Reading::Last, [.., last]) => std::slice::from_ref(last),
            (Reading::Mean, [only]) => std::slice::from_ref(only),
            (Reading::Mean, [_, rest @ ..]) => rest,
            (Reading::At(at), all) => all.get(at..=at).unwrap_or_default(),
            (Reading::Last | Reading::Mean, []) => &[],
        };
        if read.is_empty() {
            return Err(LensError::argument(
                "a prompt",
                format!("number {item}, with {} tokens", places.len()),
                format!("one with a token where it is read ({reading:?})"),
            ));
        }
        let weight = 1.0 / (read.len() * batch) as f64;
        weights.extend((0..pos).map(|at| if read.contains(&at) { weight } else { 0.0 }));
    }
    let weights = Tensor::from_vec_f64(weights, &[batch, pos, 1]);
    let call = sequences.call(model).logits_at(LogitsAt::Last);
    let (_, cache) =
        call.names_where(|name| name.starts_with("blocks.") && name.ends_with("hook_resid_post")).cached()?;
    (0..model.config().n_layers)
        .map(|layer| {
            let stream = cache.get(("resid_post", layer))?;
            let weights = weights.to_dtype(stream.dtype()).to_device(&stream.device());
            Ok((stream * &weights).sum(&[0, 1]))
        })
        .collect()
}

/// Kullback-Leibler divergence of `other` from `clean` at each position, in nats: `[batch, pos]` from logits
/// `[batch, pos, d_vocab_out]`.
///
/// # Panics
/// If their shapes differ.
#[track_caller]
pub fn kl_divergence(clean: &Tensor, other: &Tensor) -> Tensor {
    assert!(
        clean.shape() == other.shape() && clean.ndim() == 3,
        "kl_divergence: expected logits [batch, pos, d_vocab_out] of one shape, given {:?} and {:?}",
        clean.shape(),
        other.shape()
    );
    let [p, q] = [clean, other].map(Tensor::log_softmax);
    (p.softmax() * (&p - &q)).sum(&[2])
}

/// What a dose does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dose {
    /// How often the vector was added.
    pub coefficient: f64,
    /// The metric of the steered logits.
    pub metric: f64,
    /// How far the predictions are from the unsteered ones: the divergence of [`kl_divergence`], averaged over all
    /// positions that are no padding.
    pub kl: f64,
}

/// A metric, and the distance from the unsteered model, by how much of the vector is added to texts or tokens. Of
/// padded sequences both are as of the sequences alone.
///
/// # Errors
/// If the input or the vector does not fit the model, or the metric does not fit the input.
pub fn dose_response(
    model: &HookedTransformer,
    input: impl Into<Input>,
    vector: &SteeringVector,
    coefficients: &[f64],
    metric: &Metric<'_>,
) -> Result<Vec<Dose>, LensError> {
    vector.check(model)?;
    let sequences = sequences_of(model, input.into())?;
    metric.check(model, &sequences)?;
    let clean = model.forward(&sequences)?;
    let counted: Vec<bool> = match &sequences.mask {
        Some(mask) => mask.as_slice().iter().map(|&seen| seen != 0).collect(),
        None => vec![true; sequences.tokens.as_slice().len()],
    };
    coefficients
        .iter()
        .map(|&coefficient| {
            let logits = model.run_with_hooks(&sequences, &mut vector.added(coefficient))?;
            let of_each = kl_divergence(&clean, &logits).to_vec_f64();
            let of_tokens: Vec<f64> =
                of_each.into_iter().zip(&counted).filter(|(_, c)| **c).map(|(kl, _)| kl).collect();
            let kl = of_tokens.iter().sum::<f64>() / of_tokens.len() as f64;
            Ok(Dose { coefficient, metric: metric.of_sequences(&logits, &sequences), kl })
        })
        .collect()
}
