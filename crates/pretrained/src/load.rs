//! From a name, a folder or a file to a model.

use std::fs;
use std::path::{Path, PathBuf};

use ironlens_files::{Checkpoint, FileError};
use ironlens_lens::{Processing, ProcessingByParts, process_weights_of};
use ironlens_tensor::{DType, Device};
use ironlens_transformer::{Config, HookedTransformer, PaddingSide};
use serde_json::Value;

use crate::arriving::Arrived;
use crate::check::checked;
use crate::conversion::{Conversion, Source};
use crate::error::PretrainedError;
use crate::families::{self, Family, family_of};
use crate::hf::HfConfig;
use crate::{encoder, gguf, like_transformerlens, names, state_dict, text};

/// How a model is loaded; names and defaults are those of TransformerLens's `from_pretrained`.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Fold the norms' weights into what reads them.
    pub fold_ln: bool,
    /// Centre what is written to the stream, in models with layer norms.
    pub center_writing_weights: bool,
    /// Centre the unembedding over the vocabulary, unless logits are capped.
    pub center_unembed: bool,
    /// Move `b_V` into `b_O`.
    pub fold_value_biases: bool,
    /// Refactor QK and OV with orthogonal columns.
    pub refactor_factored_attn_matrices: bool,
    /// Take only so many layers.
    pub first_n_layers: Option<usize>,
    /// Take another longest sequence; a learned table of positions is cut.
    pub n_ctx: Option<usize>,
    /// Whether text is given a beginning-of-sequence token; the family's habit if `None`.
    pub default_prepend_bos: Option<bool>,
    /// Where shorter texts of a batch are padded; on the right if `None`. (Texts to go on from are padded on the left
    /// whatever this says.)
    pub default_padding_side: Option<PaddingSide>,
    /// Type of weights and activations.
    pub dtype: DType,
    /// Type that matrices are stored in, `F32`, `Bf16` or `F16`; all else, and what is computed, is `f32`. For models
    /// on the CPU with `dtype` `F32`. Without processing each tensor is rounded as it is read (one of that type keeps
    /// its bits), and no more than one is held in `f32` at a time; processing takes place in `f32`, before rounding,
    /// and holds no more than a layer.
    pub storage: DType,
    /// Where the model lives.
    pub device: Device,
    /// A branch, tag or commit at the hub.
    pub revision: Option<String>,
    /// Which of the checkpoints that were taken in training, counted from 0.
    pub checkpoint_index: Option<usize>,
    /// The same, by its step or number of tokens.
    pub checkpoint_value: Option<u64>,
    /// Where TransformerLens 2.18 computes something else than Hugging Face, do as it does.
    pub like_transformerlens: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            fold_ln: true,
            center_writing_weights: true,
            center_unembed: true,
            fold_value_biases: true,
            refactor_factored_attn_matrices: false,
            first_n_layers: None,
            n_ctx: None,
            default_prepend_bos: None,
            default_padding_side: None,
            dtype: DType::F32,
            storage: DType::F32,
            device: Device::Cpu,
            revision: None,
            checkpoint_index: None,
            checkpoint_value: None,
            like_transformerlens: false,
        }
    }
}

impl LoadOptions {
    /// Weights as they are stored, as of TransformerLens's `from_pretrained_no_processing`.
    pub fn no_processing() -> LoadOptions {
        LoadOptions {
            fold_ln: false,
            center_writing_weights: false,
            center_unembed: false,
            fold_value_biases: false,
            ..LoadOptions::default()
        }
    }

    /// The same of a model that [`locate`](crate::locate) found: which revision or checkpoint it is has been settled.
    #[must_use]
    pub fn of_path(self) -> LoadOptions {
        LoadOptions { revision: None, checkpoint_index: None, checkpoint_value: None, ..self }
    }

    pub(crate) fn asks_for_checkpoint(&self) -> bool {
        self.checkpoint_index.is_some() || self.checkpoint_value.is_some()
    }

    /// Refuses types that a model on this device cannot have, or cannot be stored in.
    pub(crate) fn check_types(&self) -> Result<(), PretrainedError> {
        let (dtype, device) = (self.dtype, &self.device);
        if dtype == DType::F64 && *device != Device::Cpu {
            let text = format!("the model is to be f64 on {device}: double precision is computed on the CPU");
            return Err(PretrainedError::Options(text));
        }
        let fits = match self.storage {
            DType::F32 => true,
            DType::Bf16 | DType::F16 => dtype == DType::F32 && *device == Device::Cpu,
            DType::F64 => false,
        };
        if fits && !dtype.is_storage() {
            return Ok(());
        }
        let storage = self.storage;
        Err(PretrainedError::Options(format!(
            "the model is to be {dtype} on {device} with matrices stored as {storage}: bf16 and f16 are storage of f32 \
             models on the CPU (`storage` bf16, `dtype` f32); elsewhere leave `storage` at f32"
        )))
    }

    /// An empty model for weights to be read into, and how they are processed as they are read, if they are: in a model
    /// that is stored in 16 bits, so that it is never there in 32. `mlp_biases`: there may be biases of MLPs.
    pub(crate) fn empty_model(
        &self,
        cfg: Config,
        mlp_biases: bool,
    ) -> Result<(HookedTransformer, Option<ProcessingByParts>), PretrainedError> {
        if !self.storage.is_storage() {
            return Ok((HookedTransformer::new(cfg, &self.device, 0)?, None));
        }
        let cfg = cfg.resolved()?;
        let steps = self.processing(&cfg);
        let parts = match steps == none_of(steps) {
            true => None,
            false => match ProcessingByParts::new(&cfg, steps, mlp_biases)? {
                Some(parts) => Some(parts),
                // Processed as a whole, before it is rounded.
                None => return Ok((HookedTransformer::new(cfg, &self.device, 0)?, None)),
            },
        };
        Ok((HookedTransformer::new_stored_as(cfg, self.storage, 0)?, parts))
    }

    /// The steps that a model of this configuration takes.
    fn processing(&self, cfg: &Config) -> Processing {
        use ironlens_transformer::PositionalEmbeddingType::Shortformer;
        // Positions of shortformer models are not normalised; a folded norm would not reach them.
        let foldable = cfg.positional_embedding_type != Shortformer;
        Processing {
            // As in TransformerLens: experts read a norm that is not folded.
            fold_ln: self.fold_ln && foldable && cfg.num_experts == 0,
            center_writing_weights: self.center_writing_weights && foldable,
            center_unembed: self.center_unembed && foldable && cfg.output_logits_soft_cap <= 0.0,
            fold_value_biases: self.fold_value_biases,
            refactor_factored_attn_matrices: self.refactor_factored_attn_matrices,
            like_transformerlens: self.like_transformerlens,
        }
    }
}

/// What a path holds: where its weights are, and what says what model it is.
pub(crate) enum Found {
    /// A folder as Hugging Face writes it.
    HuggingFace { hf: HfConfig, weights: PathBuf },
    /// A folder that [`save_pretrained`](crate::Pretrained::save_pretrained) wrote, or weights under
    /// TransformerLens's names with its configuration beside them.
    Own { cfg: Box<Config>, weights: PathBuf },
    /// The same, of an encoder: the text of its `config.json`.
    OwnEncoder { text: String, weights: PathBuf },
    /// A file that says itself what it is.
    Single(PathBuf),
}

/// Loads the model that `source` is: a folder, a `.gguf`, `.safetensors`, `.pt` or `.pth` file, or a name.
///
/// # Errors
/// See [`Pretrained::from_pretrained`](crate::Pretrained::from_pretrained).
pub(crate) fn load(source: &str, options: &LoadOptions) -> Result<HookedTransformer, PretrainedError> {
    options.check_types()?;
    let folder = fetched(source, options)?;
    let beside = beside(&folder);
    let mut model = match find(&folder)? {
        Found::HuggingFace { hf, weights } => {
            let checkpoint = Checkpoint::open(&weights)?;
            let mut model = convert(&hf, &checkpoint, &weights, options, false)?;
            text::of_folder(&mut model, beside)?;
            model
        }
        Found::Own { cfg, weights } => {
            let tokenizer = cfg.tokenizer_name.clone();
            let mut model = state_dict::read(*cfg, &Checkpoint::open(&weights)?, options)?;
            text::of_folder(&mut model, beside)?;
            // TransformerLens's own models name another's tokenizer. One that is not here, or cannot be read, is none.
            if let (None, Some(folder)) = (model.tokenizer(), tokenizer.as_deref().and_then(names::cached_tokenizer)) {
                let _ = text::of_folder(&mut model, &folder);
            }
            model
        }
        Found::OwnEncoder { .. } => {
            let hint = "it is an encoder, which HookedEncoder::from_pretrained reads".into();
            return Err(PretrainedError::Family { architecture: "HookedEncoder".into(), hint });
        }
        Found::Single(file) => {
            let checkpoint = Checkpoint::open(&file)?;
            match checkpoint.gguf() {
                Some(gguf) => {
                    let (hf, source) = gguf::open(gguf)?;
                    let mut model = convert(&hf, &source, &file, options, true)?;
                    text::of_gguf(&mut model, gguf, beside)?;
                    model
                }
                None => state_dict::read_alone(&checkpoint, options)?,
            }
        }
    };
    if let Some(side) = options.default_padding_side {
        model.set_default_padding_side(side)?;
    }
    if options.storage.is_storage() {
        model.params_mut().store_as(options.storage);
    }
    let model = if options.dtype == model.params().dtype() { model } else { model.to_dtype(options.dtype) };
    checked(model)
}

/// Where the model is: a path, or what is fetched by its name.
pub(crate) fn fetched(source: &str, options: &LoadOptions) -> Result<PathBuf, PretrainedError> {
    names::locate(source, options, &mut |_| {})
}

/// The folder with the tokenizer and the configuration of a model: the model's, or that of its file. Checkpoints of
/// training lie in a folder `checkpoints` within it.
pub(crate) fn beside(path: &Path) -> &Path {
    if !path.is_file() {
        return path;
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    match (folder.file_name().is_some_and(|name| name == "checkpoints"), folder.parent()) {
        (true, Some(above)) if above.join("config.json").is_file() => above,
        _ => folder,
    }
}

/// The model with processed weights, if these were not as they `arrived`.
pub(crate) fn process(
    model: HookedTransformer,
    arrived: Option<Arrived>,
    options: &LoadOptions,
) -> Result<HookedTransformer, PretrainedError> {
    let steps = options.processing(model.config());
    match arrived {
        Some(arrived) => arrived.finish(model),
        None if steps == none_of(steps) => Ok(model),
        None => Ok(process_weights_of(model, steps)?),
    }
}

/// The same with no step taken.
fn none_of(steps: Processing) -> Processing {
    Processing {
        fold_ln: false,
        center_writing_weights: false,
        center_unembed: false,
        fold_value_biases: false,
        refactor_factored_attn_matrices: false,
        ..steps
    }
}

pub(crate) fn find(path: &Path) -> Result<Found, PretrainedError> {
    if path.is_file() {
        let beside = beside(path).join("config.json");
        let gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if gguf || !beside.is_file() {
            return Ok(Found::Single(path.into()));
        }
        return of_config(&beside, path);
    }
    let config = path.join("config.json");
    let files: Vec<PathBuf> = fs::read_dir(path)
        .map_err(FileError::io(path, "reading"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let ends = |file: &PathBuf, endings: &[&str]| {
        file.extension().is_some_and(|e| endings.iter().any(|ending| e.eq_ignore_ascii_case(ending)))
    };
    let mut ggufs = files.iter().filter(|file| ends(file, &["gguf"]));
    let first = ggufs.next();
    let weights = || files.iter().filter(|file| ends(file, &["safetensors", "bin", "pt", "pth"]));
    let adapter = path.join("adapter_config.json");
    let of_adapter = |file: &PathBuf| file.file_stem().is_some_and(|stem| stem == "adapter_model");
    if adapter.is_file() && first.is_none() && weights().all(of_adapter) {
        return Err(is_adapter(path, &adapter));
    }
    // A GGUF file says itself what it is: a configuration is of other weights, where there are some.
    if config.is_file() && (first.is_none() || weights().next().is_some()) {
        return of_config(&config, path);
    }
    match (first, ggufs.next()) {
        // As downloads leave it.
        (Some(file), None) => Ok(Found::Single(file.clone())),
        (Some(_), Some(_)) => {
            let reason = "it holds several GGUF files; name the one that is meant".into();
            Err(PretrainedError::NotAModel { path: path.into(), reason })
        }
        (None, _) => {
            let reason = "it has no config.json and no GGUF file; give the folder of a model as Hugging Face writes \
                          it, a .gguf, .pt or .safetensors file, or a name"
                .into();
            Err(PretrainedError::NotAModel { path: path.into(), reason })
        }
    }
}

/// What is wrong with a folder that holds a change to another model's weights, such as LoRA's.
fn is_adapter(folder: &Path, config: &Path) -> PretrainedError {
    let hf = read_text(config).and_then(|text| HfConfig::from_json(&text)).ok();
    let named = |key: &str| hf.as_ref().and_then(|hf| hf.get(key)?.as_str());
    let reason = format!(
        "it is an adapter ({}) for {}, and no model: merge it into that (`merge_and_unload` of peft, then \
         `save_pretrained`) and give the folder that this makes",
        named("peft_type").unwrap_or("of a kind that it does not name"),
        named("base_model_name_or_path").unwrap_or("a model that it does not name"),
    );
    PretrainedError::NotAModel { path: folder.into(), reason }
}

/// Longest `config.json` that is read.
const MAX_CONFIG: u64 = 16 << 20;

/// The text of a small file.
pub(crate) fn read_text(path: &Path) -> Result<String, PretrainedError> {
    let read = || {
        let size = fs::metadata(path)?.len();
        if size > MAX_CONFIG {
            return Err(std::io::Error::other(format!("it has {size} bytes, more than any such file needs")));
        }
        fs::read_to_string(path)
    };
    Ok(read().map_err(FileError::io(path, "reading"))?)
}

fn of_config(config: &Path, weights: &Path) -> Result<Found, PretrainedError> {
    let text = read_text(config)?;
    let hf = HfConfig::from_json(&text)?;
    // MPT and others have such names in files of Hugging Face's, which name a class.
    let own = hf.get("d_model").is_some() && hf.get("n_layers").is_some() && hf.architectures().is_empty();
    if own && hf.get(encoder::HEADS).is_some() {
        return Ok(Found::OwnEncoder { text, weights: weights.into() });
    }
    if own {
        let cfg = state_dict::config(&text, config)?;
        return Ok(Found::Own { cfg: Box::new(cfg), weights: weights.into() });
    }
    Ok(Found::HuggingFace { hf, weights: weights.into() })
}

/// The model of a checkpoint of Hugging Face's; `offset_inside` is whether Gemma's norms have their 1 already.
fn convert(
    hf: &HfConfig,
    source: &dyn Source,
    path: &Path,
    options: &LoadOptions,
    offset_inside: bool,
) -> Result<HookedTransformer, PretrainedError> {
    let family = family_of(hf)?;
    let hf = &hf.completed(family.names, family.defaults);
    refuse_quantised(hf)?;
    let cfg = configuration(family, hf, options)?;
    let is_mlp_bias = |name: &String| name.contains("mlp") && name.ends_with("bias");
    let (mut model, parts) = options.empty_model(cfg, source.shapes().keys().any(is_mlp_bias))?;
    let mut conversion = Conversion::new(hf, source, family.prefix, &mut model, parts);
    conversion.offset_inside = offset_inside;
    (family.tensors)(&mut conversion)?;
    let arrived = conversion.finish(path, options)?;
    process(model, arrived, options)
}

/// The resolved configuration, as options change it.
pub(crate) fn configuration(family: &Family, hf: &HfConfig, options: &LoadOptions) -> Result<Config, PretrainedError> {
    let mut cfg = (family.config)(hf)?;
    if options.like_transformerlens {
        like_transformerlens::change(family.name, &mut cfg);
    }
    cfg.original_architecture = hf.architectures().first().map(|c| c.to_string());
    refuse_dynamic(hf, options, cfg.n_ctx)?;
    apply(options, &mut cfg)?;
    Ok(cfg.resolved()?)
}

/// Refuses weights that tools other than llama.cpp packed into few bits: they are other tensors.
fn refuse_quantised(hf: &HfConfig) -> Result<(), PretrainedError> {
    let Some(how) = hf.get("quantization_config") else { return Ok(()) };
    let method = text_of(how, "quant_method").unwrap_or("a method that it does not name");
    Err(PretrainedError::Family {
        architecture: format!("a checkpoint that was quantised by {method}"),
        hint: match hf.architectures().contains(&"GptOssForCausalLM") {
            // There is no GGUF of experts that is read.
            true => "take one in 16 bits, as `model.dequantize()` of transformers gives it".into(),
            false => "take the one in 16 or 32 bits that it was made from, or a GGUF file".to_string(),
        },
    })
}

/// Refuses sequences that "dynamic" rotation would stretch, by a factor of its own for each length.
fn refuse_dynamic(hf: &HfConfig, options: &LoadOptions, n_ctx: usize) -> Result<(), PretrainedError> {
    match options.n_ctx {
        Some(n) if n > n_ctx && families::is_dynamic(hf)? => Err(PretrainedError::Options(format!(
            "n_ctx is {n}; rotation of the type \"dynamic\" is read for sequences of up to {n_ctx}, which it leaves as \
             they are"
        ))),
        _ => Ok(()),
    }
}

/// What options say of a configuration.
pub(crate) fn apply(options: &LoadOptions, cfg: &mut Config) -> Result<(), PretrainedError> {
    if let Some(n) = options.first_n_layers {
        if n == 0 || n > cfg.n_layers {
            let text = format!("first_n_layers is {n}, the model has {} layers; give 1 to {0}", cfg.n_layers);
            return Err(PretrainedError::Options(text));
        }
        cfg.n_layers = n;
        cfg.attn_types.truncate(n);
        cfg.dense_layers.retain(|l| *l < n);
        cfg.no_rope_layers.retain(|l| *l < n);
    }
    if let Some(n) = options.n_ctx {
        let learned = cfg.has_pos_embed() && cfg.alibi_slopes.is_empty();
        if n == 0 || (learned && n > cfg.n_ctx) {
            let text = match learned {
                true => format!("n_ctx is {n}; the model's positions are learned, for 1 to {} of them", cfg.n_ctx),
                false => format!("n_ctx is {n}; give at least 1"),
            };
            return Err(PretrainedError::Options(text));
        }
        cfg.n_ctx = n;
    }
    if let Some(prepend) = options.default_prepend_bos {
        cfg.default_prepend_bos = prepend;
    }
    Ok(())
}

/// The value of `name` in a JSON object, if it is text.
pub(crate) fn text_of<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str()
}
