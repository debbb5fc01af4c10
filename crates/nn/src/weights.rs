//! Weights files: the parameters of any module as safetensors, by name.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ironlens_files::{Dtype, FileError, SafeTensorsFile, TensorInfo, write_safetensors};
use ironlens_tensor::{DType, Device, Tensor};

use crate::params::Params;

/// A weights file that cannot be read, written, or does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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

impl Params {
    /// Writes the parameters to a safetensors file, under their names, in the shapes that users know and in
    /// their own element type, one at a time. The file appears whole or not at all; [`Params::load`] reads the
    /// same bits.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        write_tensors(path.as_ref(), self.iter())
    }

    /// Reads what [`Params::save`] wrote (`f32`, `f64`, `f16` or `bf16`), one tensor at a time. Nothing changes on
    /// an error.
    ///
    /// # Errors
    /// If the file cannot be read, is not safetensors, or lacks a parameter, has one too many or one of another
    /// shape; all such are listed.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        self.load_except(path, |_| false)
    }

    /// As [`Params::load`]; tensors of the file of whose name `skipped` is true are not looked at.
    ///
    /// # Errors
    /// As [`Params::load`].
    pub fn load_except(&mut self, path: impl AsRef<Path>, skipped: impl Fn(&str) -> bool) -> Result<(), WeightsError> {
        let path = path.as_ref();
        let file = SafeTensorsFile::open(path)?;
        let mut problems = Vec::new();
        for (name, shape) in self.registry().params() {
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
        let known = |name: &str| self.registry().param_place(name).is_some();
        let unknown = file.tensors().iter().map(|t| t.name.as_str()).filter(|name| !known(name) && !skipped(name));
        problems.extend(unknown.map(|name| format!("`{name}` is not a parameter of the model")));
        if !problems.is_empty() {
            return Err(WeightsError::Mismatch { path: path.into(), problems });
        }
        // Into new memory, which takes the place of the old when all of it was read.
        let mut slots: Vec<Tensor> = self.slots().iter().map(Tensor::zeros_like).collect();
        for t in file.tensors().iter().filter(|t| known(&t.name)) {
            let value = read(&file, t)?;
            self.set_in_slots(&mut slots, &t.name, &value).expect("names and shapes were checked with the header");
        }
        self.slots_mut().clone_from_slice(&slots);
        Ok(())
    }
}

/// The tensors of a safetensors file by name: `f64` where the file has `f64`, else `f32`.
///
/// # Errors
/// If the file cannot be read, is cut short, or holds a type that is no floating-point number.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    read_tensors_where(path, |_| true)
}

/// As [`read_tensors`], of those that `wanted` is true of.
///
/// # Errors
/// As [`read_tensors`].
pub fn read_tensors_where(
    path: &Path,
    wanted: impl Fn(&TensorInfo) -> bool,
) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let file = SafeTensorsFile::open(path)?;
    let wanted = file.tensors().iter().filter(|t| wanted(t));
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
    let all: Vec<(&str, Tensor)> = tensors.into_iter().collect();
    let infos: Vec<TensorInfo> = all.iter().map(|(name, t)| tensor_info(name, t.dtype(), t.shape())).collect();
    Ok(write_safetensors(path, &infos, |i, file| write_values(&all[i].1, file))?)
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

/// What a safetensors file says of a tensor of this type.
pub fn tensor_info(name: &str, dtype: DType, shape: &[usize]) -> TensorInfo {
    let dtype = match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
    };
    TensorInfo { name: name.into(), dtype, shape: shape.to_vec() }
}

/// Writes the elements in row-major order, little-endian.
///
/// # Errors
/// If `file` takes no more.
pub fn write_values(t: &Tensor, file: &mut dyn Write) -> io::Result<()> {
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
