//! State dicts that are named as TransformerLens, ARENA, nanoGPT or minGPT name them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use ironlens_files::{Checkpoint, FileError, TensorFile, TorchValue};
use ironlens_lens::ProcessingByParts;
use ironlens_tensor::{Device, Tensor};
use ironlens_transformer::config::{ActFn, NormalizationType, PositionalEmbeddingType};
use ironlens_transformer::{Config, HookedModel, HookedTransformer, is_buffer, layer_of};
use serde_json::{Value, json};

use crate::arriving::{Arrived, Arriving, UNEMBEDDING};
use crate::conversion::{Conversion, Source, heads_in};
use crate::error::PretrainedError;
use crate::families::nano_gpt;
use crate::hf::HfConfig;
use crate::load::{LoadOptions, apply, process, text_of};

/// Reads a configuration in TransformerLens's names: as its `to_dict` writes it, or as the `config.json` of
/// the models that it was made with (NeelNanda's) have it.
pub(crate) fn config(text: &str, path: &Path) -> Result<Config, PretrainedError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|e| PretrainedError::NotAModel { path: path.into(), reason: format!("it is no JSON: {e}") })?;
    let older = ["normalization", "shortformer_pos", "architecture"].iter().any(|key| value.get(key).is_some());
    if !older {
        return Ok(Config::from_json(text)?);
    }
    let hf = HfConfig::from_json(text)?;
    let act_fn = text_of(&value, "act_fn").unwrap_or_default();
    let norm = text_of(&value, "normalization").or(text_of(&value, "normalization_type"));
    let mut cfg = Config {
        d_model: hf.size("d_model")?,
        n_layers: hf.size("n_layers")?,
        n_heads: hf.size("n_heads")?,
        d_head: hf.size("d_head")?,
        d_mlp: hf.size_if_given("d_mlp")?.unwrap_or(0),
        n_ctx: hf.size("n_ctx")?,
        d_vocab: hf.size("d_vocab")?,
        d_vocab_out: hf.size_if_given("d_vocab_out")?.unwrap_or(0),
        attn_only: hf.flag("attn_only", false)?,
        final_rms: hf.flag("final_rms", false)?,
        eps: hf.number_if_given("eps")?.unwrap_or(1e-5),
        tokenizer_name: hf.text_if_given("tokenizer_name")?.map(String::from),
        original_architecture: hf.text_if_given("architecture")?.map(String::from),
        init_weights: false,
        ..Config::default()
    };
    if !cfg.attn_only {
        cfg.act_fn = act_fn.parse::<ActFn>()?;
    }
    cfg.normalization_type = match norm {
        None => NormalizationType::None,
        Some(name) => name.parse::<NormalizationType>()?,
    };
    if hf.flag("shortformer_pos", false)? {
        cfg.positional_embedding_type = PositionalEmbeddingType::Shortformer;
    }
    Ok(cfg)
}

/// A model of `cfg` with the weights of a checkpoint.
pub(crate) fn read(
    mut cfg: Config,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<HookedTransformer, PretrainedError> {
    apply(options, &mut cfg)?;
    let (mut model, parts) = options.empty_model(Config { init_weights: false, ..cfg }, true)?;
    let arrived = fill(&mut model, parts, checkpoint, options)?;
    process(model, arrived, options)
}

/// Gives a model the weights of a checkpoint, which must have all of them and no others; processed by `parts`; what
/// is left of that to do is given back.
pub(crate) fn fill(
    model: &mut impl HookedModel,
    parts: Option<ProcessingByParts>,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Option<Arrived>, PretrainedError> {
    let layers = model.config().n_layers;
    let weights = Weights::new(checkpoint, model.config())?;
    let (loaded, arrived) = weights.write(model, parts, options.n_ctx.is_some())?;
    let beyond = |name: &String| options.first_n_layers.is_some() && layer_of(name).is_some_and(|l| l >= layers);
    let unexpected: Vec<String> = loaded.unexpected.into_iter().filter(|name| !beyond(name)).collect();
    let missing = loaded.missing.into_iter().map(|name| format!("`{name}` is missing"));
    let problems: Vec<String> =
        missing.chain(unexpected.iter().map(|name| format!("`{name}` is not a weight of this model"))).collect();
    match problems.is_empty() {
        true => Ok(arrived),
        false => Err(PretrainedError::Mismatch { path: checkpoint.path().into(), problems }),
    }
}

/// A model that is a file alone: nanoGPT's, which says what it is.
pub(crate) fn read_alone(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<HookedTransformer, PretrainedError> {
    let args = checkpoint.torch().and_then(|torch| torch.value().get("model_args"));
    let Some(args @ TorchValue::Dict(_)) = args else {
        let reason = "it holds weights and does not say of which model; put the model's config.json beside it \
                      (TransformerLens's fields, as `model.config().to_json()` writes them, or Hugging Face's)";
        return Err(PretrainedError::NotAModel { path: checkpoint.path().into(), reason: reason.into() });
    };
    let hf = HfConfig::from_map(
        ["n_layer", "n_head", "n_embd", "block_size", "vocab_size"]
            .into_iter()
            .filter_map(|name| Some((name.to_string(), json!(args.get(name)?.as_int()?))))
            .collect(),
    );
    let mut cfg = nano_gpt::config(&hf)?;
    apply(options, &mut cfg)?;
    let (mut model, parts) = options.empty_model(cfg, true)?;
    let source = Renamed::new(checkpoint, |name| Some(name.trim_start_matches("_orig_mod.").to_string()));
    let mut conversion = Conversion::new(&hf, &source, "transformer.", &mut model, parts);
    nano_gpt::tensors(&mut conversion)?;
    let arrived = conversion.finish(checkpoint.path(), options)?;
    process(model, arrived, options)
}

/// A checkpoint under other names.
pub(crate) struct Renamed<'s> {
    source: &'s dyn Source,
    /// From new names to old ones.
    names: BTreeMap<String, String>,
}

impl<'s> Renamed<'s> {
    pub fn new(source: &'s dyn Source, rename: impl Fn(&str) -> Option<String>) -> Renamed<'s> {
        let names = source.shapes().into_keys().filter_map(|old| Some((rename(&old)?, old))).collect();
        Renamed { source, names }
    }
}

impl Source for Renamed<'_> {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let shapes = self.source.shapes();
        self.names.iter().map(|(new, old)| (new.clone(), shapes[old].clone())).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, FileError> {
        self.source.read(&self.names[name])
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, width: usize) -> Result<Vec<f32>, FileError> {
        self.source.read_rows(&self.names[name], rows, width)
    }
}

/// Which parameters a state dict did not have, and which of its tensors are of none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Parameters of the model that were left as they were.
    pub missing: Vec<String>,
    /// Tensors of the file that nothing was made of; buffers are not among them.
    pub unexpected: Vec<String>,
}

/// How the weights of older models are turned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    TransformerLens,
    /// The first SoLU models': other names of norms, and matrices transposed in small ones.
    OldSolu,
    /// minGPT's names, of Othello-GPT.
    MinGpt,
}

/// A state dict on its way into a model.
pub(crate) struct Weights<'c> {
    checkpoint: &'c Checkpoint,
    dialect: Dialect,
    n_layers: usize,
    n_heads: usize,
}

impl<'c> Weights<'c> {
    pub fn new(checkpoint: &'c Checkpoint, cfg: &Config) -> Result<Weights<'c>, PretrainedError> {
        let has = |name: &str| checkpoint.get(name).is_some();
        let dialect = match cfg.original_architecture.as_deref() {
            Some("mingpt") => Dialect::MinGpt,
            Some("neel-solu-old") => Dialect::OldSolu,
            _ if has("norm.w") || has("blocks.0.norm1.w") => Dialect::OldSolu,
            _ if has("tok_emb.weight") && has("head.weight") => Dialect::MinGpt,
            _ => Dialect::TransformerLens,
        };
        // As the checkpoint has them, whatever part of it is read.
        let n_layers = checkpoint.tensors().iter().filter_map(|t| layer_of(&t.name)).max().map_or(0, |last| last + 1);
        Ok(Weights { checkpoint, dialect, n_layers, n_heads: cfg.n_heads() })
    }

    /// TransformerLens's names of tensor `name`, what it becomes there by, and nothing for buffers.
    fn target(&self, name: &str) -> Option<(String, Turn)> {
        match self.dialect {
            Dialect::TransformerLens => Some((name.to_string(), Turn::None)),
            Dialect::OldSolu => {
                let renamed = name.replace("norm", "ln");
                let renamed = match renamed.strip_prefix("ln.") {
                    Some(rest) => format!("ln_final.{rest}"),
                    None => renamed,
                };
                let matrix = renamed.rsplit('.').next().is_some_and(|last| last.starts_with("W_"));
                let positions = renamed.ends_with("W_pos");
                let turned = matrix && if positions { self.n_layers <= 8 } else { self.n_layers <= 6 };
                Some((renamed, if turned { Turn::Transpose } else { Turn::None }))
            }
            Dialect::MinGpt => self.of_mingpt(name),
        }
    }

    fn of_mingpt(&self, name: &str) -> Option<(String, Turn)> {
        let plain = |to: &str| Some((to.to_string(), Turn::None));
        match name {
            "tok_emb.weight" => return plain("embed.W_E"),
            "pos_emb" => return Some(("pos_embed.W_pos".into(), Turn::Squeeze)),
            "ln_f.weight" => return plain("ln_final.w"),
            "ln_f.bias" => return plain("ln_final.b"),
            "head.weight" => return Some(("unembed.W_U".into(), Turn::Transpose)),
            "head.bias" => return plain("unembed.b_U"),
            _ => {}
        }
        let (layer, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
        let n = self.n_heads;
        let (to, turn) = match rest {
            "ln1.weight" => ("ln1.w", Turn::None),
            "ln1.bias" => ("ln1.b", Turn::None),
            "ln2.weight" => ("ln2.w", Turn::None),
            "ln2.bias" => ("ln2.b", Turn::None),
            "attn.query.weight" => ("attn.W_Q", Turn::HeadsIn(n)),
            "attn.key.weight" => ("attn.W_K", Turn::HeadsIn(n)),
            "attn.value.weight" => ("attn.W_V", Turn::HeadsIn(n)),
            "attn.query.bias" => ("attn.b_Q", Turn::Heads(n)),
            "attn.key.bias" => ("attn.b_K", Turn::Heads(n)),
            "attn.value.bias" => ("attn.b_V", Turn::Heads(n)),
            "attn.proj.weight" => ("attn.W_O", Turn::HeadsOut(n)),
            "attn.proj.bias" => ("attn.b_O", Turn::None),
            "mlp.0.weight" => ("mlp.W_in", Turn::Transpose),
            "mlp.0.bias" => ("mlp.b_in", Turn::None),
            "mlp.2.weight" => ("mlp.W_out", Turn::Transpose),
            "mlp.2.bias" => ("mlp.b_out", Turn::None),
            _ => return None,
        };
        Some((format!("blocks.{layer}.{to}"), turn))
    }

    /// Writes what there is into a model, processed by `parts`, of which what is left to do is given back; on an error
    /// some of it may be written. Of learned positions the model may have fewer, if they may be cut.
    pub fn write(
        &self,
        model: &mut impl HookedModel,
        parts: Option<ProcessingByParts>,
        cut_positions: bool,
    ) -> Result<(Loaded, Option<Arrived>), PretrainedError> {
        let shapes: BTreeMap<String, Vec<usize>> =
            model.params().registry().params().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
        let mut missing: BTreeSet<&str> = shapes.keys().map(String::as_str).collect();
        let (mut unexpected, mut problems, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for tensor in self.checkpoint.tensors() {
            let Some((to, turn)) = self.target(&tensor.name) else {
                if !is_buffer(&tensor.name) {
                    unexpected.push(tensor.name.clone());
                }
                continue;
            };
            match shapes.get(&to) {
                Some(shape) => {
                    missing.remove(to.as_str());
                    match turn.shape(&tensor.shape) {
                        Some(turned) if turned == *shape => found.push((tensor, to, turn)),
                        Some(turned) if cut_positions && to == POSITIONS && is_longer(&turned, shape) => {
                            found.push((tensor, to, turn));
                        }
                        Some(turned) => problems.push(format!("`{to}` has shape {turned:?}, expected {shape:?}")),
                        None => problems.push(format!("`{}` has shape {:?}", tensor.name, tensor.shape)),
                    }
                }
                None if is_buffer(&tensor.name) => {}
                None => unexpected.push(tensor.name.clone()),
            }
        }
        if !problems.is_empty() {
            return Err(PretrainedError::Mismatch { path: self.checkpoint.path().into(), problems });
        }
        // Layer by layer, and the unembedding after what it is processed with.
        found.sort_by_key(|(_, to, _)| (to == UNEMBEDDING, layer_of(to)));
        let mut weights = Arriving::new(model.params_mut(), parts);
        for (tensor, to, turn) in found {
            let values = self.checkpoint.read_f32(&tensor.name)?;
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let problems = vec![format!("`{}` has the value {} at element {at}", tensor.name, values[at])];
                return Err(PretrainedError::Mismatch { path: self.checkpoint.path().into(), problems });
            }
            let mut value = turn.apply(Tensor::from_vec(values, &tensor.shape, &Device::Cpu));
            if to == POSITIONS {
                value = value.narrow(0, 0, shapes[&to][0]);
            }
            weights.set(&to, &value)?;
        }
        let arrived = weights.finish()?;
        let missing = missing.into_iter().map(String::from).collect();
        Ok((Loaded { missing, unexpected }, arrived))
    }
}

/// Learned positions, `[n_ctx, d_model]`.
const POSITIONS: &str = "pos_embed.W_pos";

/// Whether a matrix has at least the rows of another, and its columns.
fn is_longer(shape: &[usize], other: &[usize]) -> bool {
    matches!((shape, other), ([rows, columns], [fewer, same]) if rows >= fewer && columns == same)
}

/// How a tensor of another dialect becomes TransformerLens's.
#[derive(Clone, Copy)]
enum Turn {
    None,
    /// Without its first axis, of one.
    Squeeze,
    /// The last two axes.
    Transpose,
    /// `[n * h, m]` to `[n, m, h]`.
    HeadsIn(usize),
    /// `[m, n * h]` to `[n, h, m]`.
    HeadsOut(usize),
    /// `[n * h]` to `[n, h]`.
    Heads(usize),
}

impl Turn {
    /// The shape after it; `None` where it cannot be applied.
    fn shape(self, shape: &[usize]) -> Option<Vec<usize>> {
        let by = |rows: usize, n: usize| (n > 0 && rows.is_multiple_of(n)).then(|| rows / n);
        Some(match (self, shape) {
            (Turn::None, shape) => shape.to_vec(),
            (Turn::Squeeze, [1, rest @ ..]) => rest.to_vec(),
            (Turn::Transpose, [first @ .., rows, columns]) => [first, &[*columns, *rows]].concat(),
            (Turn::HeadsIn(n), [rows, m]) => vec![n, *m, by(*rows, n)?],
            (Turn::HeadsOut(n), [m, rows]) => vec![n, by(*rows, n)?, *m],
            (Turn::Heads(n), [rows]) => vec![n, by(*rows, n)?],
            _ => return None,
        })
    }

    fn apply(self, t: Tensor) -> Tensor {
        match self {
            Turn::None => t,
            Turn::Squeeze => t.squeeze(0),
            Turn::Transpose => t.transpose(t.ndim() - 2, t.ndim() - 1),
            Turn::HeadsIn(n) => heads_in(&t, n),
            Turn::HeadsOut(n) => t.reshape(&[t.dim(0), n, t.dim(1) / n]).permute(&[1, 2, 0]),
            Turn::Heads(n) => t.reshape(&[n, t.dim(0) / n]),
        }
    }
}
