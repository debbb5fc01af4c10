//! Weights files: safetensors under TransformerLens's state-dict names and shapes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use ironlens_files::write_atomically;
use ironlens_files::{Dtype, FileError, SafeTensorsFile, TensorInfo, write_safetensors};
use ironlens_nn::{Params, RotaryTable};
use ironlens_tensor::{DType, Device, Tensor};

use crate::build::rotary;
use crate::config::AttnType;
use crate::error::ModelError;
use crate::model::HookedTransformer;

/// A weights file that cannot be read, written, or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written, or is no safetensors file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Names or shapes that are not the model's.
    #[error("{path} does not hold this model's weights:\n  {}\ncheck that the configuration is the one that the weights were made with", problems.join("\n  "))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// One line for each tensor that is missing, unknown, or of another shape or type.
        problems: Vec<String>,
    },
}

/// The tensors of a safetensors file by name: `f64` where the file has `f64`, else `f32`. Masks (tensors
/// of truth values that a state dict has beside the weights) are skipped.
///
/// # Errors
/// If the file cannot be read, is cut short, or holds a type that is no floating-point number.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let file = SafeTensorsFile::open(path)?;
    let wanted = file.tensors().iter().filter(|t| !(is_buffer(&t.name) && t.dtype == Dtype::BOOL));
    wanted.map(|t| Ok((t.name.clone(), read(&file, t)?))).collect()
}

/// Writes tensors to a safetensors file in their own types, whole or not at all, one at a time.
///
/// # Errors
/// If the file cannot be written.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, Tensor)>,
) -> Result<(), WeightsError> {
    write_entries(path, tensors.into_iter().map(|(name, t)| (name.to_string(), Entry::Floats(t))).collect())
}

/// A tensor of `file`, on the CPU.
fn read(file: &SafeTensorsFile, info: &TensorInfo) -> Result<Tensor, WeightsError> {
    let TensorInfo { name, dtype, shape } = info;
    if !is_float(*dtype) {
        let reason = format!("tensor `{name}` is of type {dtype}, expected a floating-point type");
        return Err(FileError::Format { path: file.path().into(), reason }.into());
    }
    let bytes = file.read(name)?;
    Ok(match dtype {
        Dtype::F64 => {
            let values = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
            Tensor::from_vec_f64(values, shape)
        }
        dtype => {
            let values = match dtype {
                Dtype::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
                Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
                _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            };
            Tensor::from_vec(values, shape, &Device::Cpu)
        }
    })
}

/// Whether [`read`] knows the type.
fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

/// What a state dict holds besides parameters: masks and tables, which this library computes.
fn is_buffer(name: &str) -> bool {
    ["attn.mask", "attn.IGNORE", "attn.rotary_sin", "attn.rotary_cos"].iter().any(|b| name.ends_with(b))
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
        let floats = |dtype| match dtype {
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::Bf16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
        };
        let (dtype, shape) = match self {
            Entry::Floats(t) => (floats(t.dtype()), t.shape().to_vec()),
            Entry::CausalMask { n, .. } => (Dtype::BOOL, vec![*n, *n]),
            Entry::Rotation { table, n_ctx, dtype, .. } => (floats(*dtype), vec![*n_ctx, table.config().dim]),
        };
        TensorInfo { name: name.into(), dtype, shape }
    }

    fn write(&self, file: &mut dyn Write) -> io::Result<()> {
        match self {
            Entry::Floats(t) => write_floats(t, file),
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
                write_floats(if *sin { &sines } else { &cosines }, file)
            }
        }
    }
}

/// The elements in row-major order, little-endian.
fn write_floats(t: &Tensor, file: &mut dyn Write) -> io::Result<()> {
    fn write<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N], file: &mut dyn Write) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(N * 4096);
        values.chunks(4096).try_for_each(|chunk| {
            buffer.clear();
            buffer.extend(chunk.iter().flat_map(|v| bytes(*v)));
            file.write_all(&buffer)
        })
    }
    match t.dtype() {
        DType::F32 => write(&t.to_vec(), f32::to_le_bytes, file),
        DType::F64 => write(&t.to_vec_f64(), f64::to_le_bytes, file),
        DType::Bf16 | DType::F16 => write(&t.to_bits(), u16::to_le_bytes, file),
    }
}

fn write_entries(path: &Path, entries: Vec<(String, Entry)>) -> Result<(), WeightsError> {
    let infos: Vec<TensorInfo> = entries.iter().map(|(name, entry)| entry.info(name)).collect();
    Ok(write_safetensors(path, &infos, |i, file| entries[i].1.write(file))?)
}

/// The masks and tables of TransformerLens's attention modules, without which its
/// `load_state_dict` refuses a file.
fn buffers(model: &HookedTransformer, layer: usize) -> Vec<(String, Entry)> {
    let (cfg, dtype) = (model.config(), model.params().dtype());
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
    if let Some(table) = model.net.rotary_tables.iter().find(|t| *t.config() == rotary) {
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
        Ok(write_entries(path.as_ref(), self.parameters().collect())?)
    }

    /// As [`HookedTransformer::save_weights`], with the buffers of TransformerLens's state dict: for each
    /// layer a mask of `n_ctx * n_ctx` bytes and the tables of rotations. It is what
    /// `model.load_state_dict(safetensors.torch.load_file(path))` takes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_state_dict(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        let buffers = (0..self.config().n_layers).flat_map(|layer| buffers(self, layer));
        Ok(write_entries(path.as_ref(), self.parameters().chain(buffers).collect())?)
    }

    /// The parameters, as views.
    fn parameters(&self) -> impl Iterator<Item = (String, Entry)> {
        self.params().iter().map(|(name, value)| (name.to_string(), Entry::Floats(value)))
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

/// Reads the parameters of any module from a safetensors file, by name, one at a time. What a
/// transformer's state dict holds besides parameters is skipped. Nothing changes on an error.
///
/// # Errors
/// If the file cannot be read, is not safetensors, or lacks a parameter, has one too many or one of
/// another shape; all such are listed.
pub fn load_params(params: &mut Params, path: &Path) -> Result<(), WeightsError> {
    let file = SafeTensorsFile::open(path)?;
    let mut problems = Vec::new();
    for (name, shape) in params.registry().params() {
        match file.get(name) {
            Some(t) if t.shape != shape => {
                problems.push(format!("`{name}` has shape {:?}, the model's has {shape:?}", t.shape));
            }
            Some(t) if !is_float(t.dtype) => {
                problems.push(format!("`{name}` is of type {}, expected a floating-point type", t.dtype));
            }
            Some(_) => {}
            None => problems.push(format!("`{name}` {shape:?} is missing")),
        }
    }
    let known = |name: &str| params.registry().param_place(name).is_some();
    let unknown = file.tensors().iter().map(|t| t.name.as_str()).filter(|name| !known(name) && !is_buffer(name));
    problems.extend(unknown.map(|name| format!("`{name}` is not a parameter of the model")));
    if !problems.is_empty() {
        return Err(WeightsError::Mismatch { path: path.into(), problems });
    }
    // Into new memory, which takes the place of the old when all of it was read.
    let mut slots: Vec<Tensor> = params.slots().iter().map(Tensor::zeros_like).collect();
    for t in file.tensors().iter().filter(|t| known(&t.name)) {
        let value = read(&file, t)?;
        params.set_in_slots(&mut slots, &t.name, &value).expect("names and shapes were checked with the header");
    }
    params.slots_mut().clone_from_slice(&slots);
    Ok(())
}
