//! Weights files: safetensors under TransformerLens's state-dict names and shapes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ironlens_tensor::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView, View};

use crate::config::{AttnType, Config, PositionalEmbeddingType};
use crate::error::ModelError;
use crate::model::HookedTransformer;

/// A weights file that cannot be read, written, or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system said no.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Not a safetensors file, or cut short.
    #[error("{path} is not a whole safetensors file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Names or shapes that are not the model's.
    #[error("{path} does not hold this model's weights:\n  {}\ncheck that the configuration is the one that the weights were made with", problems.join("\n  "))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// One line for each tensor that is missing, unknown, or of another shape or type.
        problems: Vec<String>,
    },
}

/// The tensors of a safetensors file as `f32`, by name.
///
/// # Errors
/// If the file cannot be read, is cut short, or holds a type that is no floating-point number.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| io(path, "reading", source))?;
    let format = |reason: String| WeightsError::Format { path: path.into(), reason };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
    file.iter()
        .filter(|(name, view)| !(is_buffer(name) && view.dtype() == Dtype::BOOL))
        .map(|(name, view)| {
            let values = to_f32(&view).ok_or_else(|| {
                format(format!("tensor `{name}` is of type {:?}, expected a floating-point type", view.dtype()))
            })?;
            Ok((name.to_string(), Tensor::from_vec(values, view.shape(), &Device::Cpu)))
        })
        .collect()
}

/// Writes tensors to a safetensors file, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, Tensor)>,
) -> Result<(), WeightsError> {
    let entries = tensors.into_iter().map(|(name, t)| (name.to_string(), Entry::Floats(t))).collect();
    write_entries(path, entries)
}

/// Writes a file whole or not at all.
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    written_beside(path, |beside| std::fs::write(beside, bytes).map_err(|source| io(path, "writing", source)))
}

/// Lets `write` make a file beside its place, then moves it there.
fn written_beside(path: &Path, write: impl FnOnce(&Path) -> Result<(), WeightsError>) -> Result<(), WeightsError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let moved = write(&beside).and_then(|()| {
        let on_disk = std::fs::File::open(&beside).and_then(|f| f.sync_all());
        on_disk.and_then(|()| std::fs::rename(&beside, path)).map_err(|source| io(path, "writing", source))
    });
    moved.inspect_err(|_| {
        // The error of the write is the one to tell; a leftover is best-effort work.
        let _ = std::fs::remove_file(&beside);
    })
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> WeightsError {
    WeightsError::Io { path: path.into(), action, source }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}

/// What a state dict holds besides parameters: masks and tables, which this library computes.
fn is_buffer(name: &str) -> bool {
    ["attn.mask", "attn.IGNORE", "attn.rotary_sin", "attn.rotary_cos"].iter().any(|b| name.ends_with(b))
}

/// A tensor to write. Bytes are made when they are written, one tensor at a time.
enum Entry {
    Floats(Tensor),
    /// `true` and `false` as 1 and 0.
    Bools {
        shape: Vec<usize>,
        bytes: Vec<u8>,
    },
}

impl View for Entry {
    fn dtype(&self) -> Dtype {
        match self {
            Entry::Floats(_) => Dtype::F32,
            Entry::Bools { .. } => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Entry::Floats(t) => t.shape(),
            Entry::Bools { shape, .. } => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Entry::Floats(t) => t.to_vec().iter().flat_map(|v| v.to_le_bytes()).collect(),
            Entry::Bools { bytes, .. } => bytes.into(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Entry::Floats(t) => t.numel() * size_of::<f32>(),
            Entry::Bools { bytes, .. } => bytes.len(),
        }
    }
}

fn write_entries(path: &Path, entries: Vec<(String, Entry)>) -> Result<(), WeightsError> {
    written_beside(path, |beside| {
        safetensors::serialize_to_file(entries, None, beside).map_err(|e| match e {
            SafeTensorError::IoError(source) => io(path, "writing", source),
            e => WeightsError::Format { path: path.into(), reason: e.to_string() },
        })
    })
}

/// The masks and tables of TransformerLens's attention modules, without which its
/// `load_state_dict` refuses a file.
fn buffers(cfg: &Config, layer: usize) -> Vec<(String, Entry)> {
    let n = cfg.n_ctx;
    let window = match cfg.attn_type(layer) {
        AttnType::Local => cfg.window_size,
        AttnType::Global => usize::MAX,
    };
    let visible = (0..n * n).map(|i| u8::from(i % n <= i / n && i / n - i % n < window)).collect();
    let named = |name: &str| format!("blocks.{layer}.attn.{name}");
    let ignore = Tensor::scalar(f64::NEG_INFINITY, ironlens_tensor::DType::F32, &Device::Cpu);
    let mut all = vec![
        (named("mask"), Entry::Bools { shape: vec![n, n], bytes: visible }),
        (named("IGNORE"), Entry::Floats(ignore)),
    ];
    if cfg.positional_embedding_type == PositionalEmbeddingType::Rotary {
        let (cos, sin) = crate::build::rotary_table(cfg, layer).state_dict_tables();
        all.push((named("rotary_sin"), Entry::Floats(sin)));
        all.push((named("rotary_cos"), Entry::Floats(cos)));
    }
    all
}

impl HookedTransformer {
    /// Writes the weights as TransformerLens's state dict, which
    /// `model.load_state_dict(safetensors.torch.load_file(path))` reads. The file appears whole or
    /// not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_weights(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        let mut entries: Vec<(String, Entry)> =
            self.params().iter().map(|(name, value)| (name.to_string(), Entry::Floats(value))).collect();
        entries.extend((0..self.config().n_layers).flat_map(|layer| buffers(self.config(), layer)));
        Ok(write_entries(path.as_ref(), entries)?)
    }

    /// Reads weights in TransformerLens's state-dict names and shapes (`f32`, `f64`, `f16` or
    /// `bf16`). Masks and other buffers in the file are skipped. Nothing changes on an error.
    ///
    /// # Errors
    /// If the file cannot be read, is not safetensors, or lacks a parameter, has one too many or
    /// one of another shape; all such are listed.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        let path = path.as_ref();
        let mut file = read_tensors(path)?;
        let mut problems = Vec::new();
        let mut found = Vec::new();
        for (name, shape) in self.registry().params() {
            match file.remove(name) {
                Some(value) if value.shape() == shape => found.push((name.to_string(), value)),
                Some(value) => {
                    problems.push(format!("`{name}` has shape {:?}, the model's has {shape:?}", value.shape()));
                }
                None => problems.push(format!("`{name}` {shape:?} is missing")),
            }
        }
        let unknown = file.into_keys().filter(|name| !is_buffer(name));
        problems.extend(unknown.map(|name| format!("`{name}` is not a parameter of the model")));
        if !problems.is_empty() {
            return Err(WeightsError::Mismatch { path: path.into(), problems }.into());
        }
        for (name, value) in found {
            self.params_mut().set(&name, &value)?;
        }
        Ok(())
    }
}
