//! Weights files: safetensors under TransformerLens's state-dict names and shapes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

pub use ironlens_files::write_atomically;
use ironlens_files::{Dtype, TensorInfo, write_safetensors};
use ironlens_nn::{Params, RotaryTable, read_tensors_where, tensor_info, write_values};
pub use ironlens_nn::{WeightsError, write_tensors};
use ironlens_tensor::{DType, Device, Tensor};

use crate::config::{AttnType, Config};
use crate::encoder::HookedEncoder;
use crate::error::ModelError;
use crate::model::HookedTransformer;
use crate::parts::rotary;

/// The tensors of a safetensors file by name: `f64` where the file has `f64`, else `f32`. Masks (tensors
/// of truth values that a state dict has beside the weights) are skipped.
///
/// # Errors
/// If the file cannot be read, is cut short, or holds a type that is no floating-point number.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    read_tensors_where(path, |t| !(is_buffer(&t.name) && t.dtype == Dtype::BOOL))
}

/// Whether a tensor of this name is none of the parameters that state dicts and checkpoints hold, but a mask or table
/// beside them, which this library computes: of TransformerLens's names, Hugging Face's, or llama.cpp's.
pub fn is_buffer(name: &str) -> bool {
    const ENDS: [&str; 14] = [
        ".attn.mask",
        ".attn.IGNORE",
        ".attn.rotary_sin",
        ".attn.rotary_cos",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        "rotary_emb.inv_freq",
        "rotary_emb.cos_cached",
        "rotary_emb.sin_cached",
        "rope_freqs.weight",
        "position_ids",
        "act_fn.eps",
    ];
    ENDS.iter().any(|end| name.ends_with(end))
}

/// A tensor to write. Its bytes are made when they are written.
enum Entry {
    Floats(Tensor),
    /// `[n, n]`, whether each query may look at each key: not after it, and less than `window` before.
    CausalMask {
        n: usize,
        window: usize,
    },
    /// The cosines or sines of a layer's rotation, `[n_ctx, rotary_dim]`.
    Rotation {
        table: Arc<RotaryTable>,
        n_ctx: usize,
        dtype: DType,
        sin: bool,
    },
}

impl Entry {
    fn info(&self, name: &str) -> TensorInfo {
        match self {
            Entry::Floats(t) => tensor_info(name, t.dtype(), t.shape()),
            Entry::CausalMask { n, .. } => TensorInfo { name: name.into(), dtype: Dtype::BOOL, shape: vec![*n, *n] },
            Entry::Rotation { table, n_ctx, dtype, .. } => tensor_info(name, *dtype, &[*n_ctx, table.config().dim]),
        }
    }

    fn write(&self, file: &mut dyn Write) -> io::Result<()> {
        match self {
            Entry::Floats(t) => write_values(t, file),
            Entry::CausalMask { n, window } => {
                let mut row = vec![0u8; *n];
                (0..*n).try_for_each(|query| {
                    row.iter_mut().enumerate().for_each(|(key, visible)| {
                        *visible = u8::from(key <= query && query - key < *window);
                    });
                    file.write_all(&row)
                })
            }
            Entry::Rotation { table, n_ctx, dtype, sin } => {
                let (cosines, sines) = table.state_dict_tables(*n_ctx, *dtype);
                write_values(if *sin { &sines } else { &cosines }, file)
            }
        }
    }
}

fn write_entries(path: &Path, entries: Vec<(String, Entry)>) -> Result<(), WeightsError> {
    let infos: Vec<TensorInfo> = entries.iter().map(|(name, entry)| entry.info(name)).collect();
    Ok(write_safetensors(path, &infos, |i, file| entries[i].1.write(file))?)
}

/// The masks and tables of TransformerLens's attention modules, without which its
/// `load_state_dict` refuses a file.
fn buffers(cfg: &Config, dtype: DType, tables: &[Arc<RotaryTable>], layer: usize) -> Vec<(String, Entry)> {
    let window = match cfg.attn_type(layer) {
        AttnType::Local => cfg.window_size,
        AttnType::Global => usize::MAX,
    };
    let named = |name: &str| format!("blocks.{layer}.attn.{name}");
    let ignore = Tensor::scalar(f64::NEG_INFINITY, dtype, &Device::Cpu);
    let mut all =
        vec![(named("mask"), Entry::CausalMask { n: cfg.n_ctx, window }), (named("IGNORE"), Entry::Floats(ignore))];
    // Models without rotation have no table.
    let rotary = rotary(cfg, layer);
    if let Some(table) = tables.iter().find(|t| *t.config() == rotary) {
        for (name, sin) in [("rotary_sin", true), ("rotary_cos", false)] {
            all.push((named(name), Entry::Rotation { table: table.clone(), n_ctx: cfg.n_ctx, dtype, sin }));
        }
    }
    all
}

impl HookedTransformer {
    /// Writes the parameters, under TransformerLens's names, in its shapes and in the model's own element
    /// type, one at a time. The file appears whole or not at all. [`HookedTransformer::load_weights`] reads
    /// the same bits; in Python, `model.load_state_dict(safetensors.torch.load_file(path), strict=False)`
    /// does (for `strict`, see [`HookedTransformer::save_state_dict`]).
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_weights(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        Ok(save_params(self.params(), path.as_ref())?)
    }

    /// As [`HookedTransformer::save_weights`], with the buffers of TransformerLens's state dict: for each
    /// layer a mask of `n_ctx * n_ctx` bytes and the tables of rotations. It is what
    /// `model.load_state_dict(safetensors.torch.load_file(path))` takes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_state_dict(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        Ok(save_all(self.config(), self.params(), &self.net.rotary_tables, path.as_ref())?)
    }

    /// Reads weights in TransformerLens's state-dict names and shapes (`f32`, `f64`, `f16` or
    /// `bf16`). Masks and other buffers in the file are skipped. Nothing changes on an error.
    ///
    /// # Errors
    /// If the file cannot be read, is not safetensors, or lacks a parameter, has one too many or
    /// one of another shape; all such are listed.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        Ok(load_params(self.params_mut(), path.as_ref())?)
    }
}

impl HookedEncoder {
    /// Writes the parameters; see [`HookedTransformer::save_weights`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_weights(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        Ok(save_params(self.params(), path.as_ref())?)
    }

    /// Writes TransformerLens's state dict; see [`HookedTransformer::save_state_dict`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_state_dict(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        Ok(save_all(self.config(), self.params(), &[], path.as_ref())?)
    }

    /// Reads weights; see [`HookedTransformer::load_weights`].
    ///
    /// # Errors
    /// As there.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        Ok(load_params(self.params_mut(), path.as_ref())?)
    }
}

/// The parameters, as views.
fn entries(params: &Params) -> impl Iterator<Item = (String, Entry)> {
    params.iter().map(|(name, value)| (name.to_string(), Entry::Floats(value)))
}

/// Parameters and buffers.
fn save_all(cfg: &Config, params: &Params, tables: &[Arc<RotaryTable>], path: &Path) -> Result<(), WeightsError> {
    let buffers = (0..cfg.n_layers).flat_map(|layer| buffers(cfg, params.dtype(), tables, layer));
    write_entries(path, entries(params).chain(buffers).collect())
}

/// Writes the parameters of any module to a safetensors file, by name and in their own type, one at a time.
/// [`load_params`] reads the same bits.
///
/// # Errors
/// If the file cannot be written.
pub fn save_params(params: &Params, path: &Path) -> Result<(), WeightsError> {
    write_entries(path, entries(params).collect())
}

/// Reads parameters from a safetensors file, by name, one at a time ([`Params::load`]). What a transformer's
/// state dict holds besides parameters is skipped.
///
/// # Errors
/// As [`Params::load`].
pub fn load_params(params: &mut Params, path: &Path) -> Result<(), WeightsError> {
    params.load_except(path, is_buffer)
}
