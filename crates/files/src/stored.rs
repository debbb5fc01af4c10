//! Tensors as files hold them, and the one place where their elements become `f32`.

use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;

use crate::blocks::{BlockType, Decode};
use crate::error::FileError;
use crate::safetensors::TensorInfo;

/// Bytes that are read at once on their way to `f32`.
pub(crate) const CHUNK: usize = 1 << 18;

/// How the elements of a tensor lie in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// One after the other.
    Plain(Dtype),
    /// Quantised together, in blocks along the last axis.
    Blocks(BlockType),
}

/// A tensor in a file of any format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// How its elements lie.
    pub stored: Stored,
    /// Length of every axis; elements are in row-major order.
    pub shape: Vec<usize>,
}

impl StoredTensor {
    /// Its number of elements; `None` if that is beyond what can be counted.
    pub fn numel(&self) -> Option<usize> {
        count(&self.shape)
    }

    /// Its size in bytes; `None` if that is beyond what can be counted, or its last axis is not made of
    /// whole blocks.
    pub fn bytes(&self) -> Option<usize> {
        let numel = self.numel()?;
        match self.stored {
            Stored::Plain(dtype) => numel.checked_mul(dtype.bitsize()).map(|bits| bits / 8),
            Stored::Blocks(kind) => {
                let last = self.shape.last().copied().unwrap_or(1);
                (last % kind.elements() == 0).then_some(numel / kind.elements())?.checked_mul(kind.bytes())
            }
        }
    }
}

/// The number of elements of a shape, if it and that of any part of the axes can be counted.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    let whole = shape.iter().try_fold(1usize, |n, &length| n.checked_mul(length.max(1)))?;
    Some(if shape.contains(&0) { 0 } else { whole })
}

impl From<&TensorInfo> for StoredTensor {
    fn from(info: &TensorInfo) -> StoredTensor {
        StoredTensor { name: info.name.clone(), stored: Stored::Plain(info.dtype), shape: info.shape.clone() }
    }
}

impl std::fmt::Display for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stored::Plain(dtype) => write!(f, "{dtype:?}"),
            Stored::Blocks(kind) => f.write_str(kind.name()),
        }
    }
}

/// What a kind of file does for [`TensorFile`]. Tensors are named by their place in
/// [`tensors`](TensorFile::tensors).
pub trait TensorBytes {
    /// The place of a tensor's name.
    fn position(&self, name: &str) -> Option<usize>;

    /// Fills `out` with bytes of a tensor, from its byte `start` on. Both are whole elements or blocks, inside it.
    fn read_at(&self, position: usize, start: u64, out: &mut [u8]) -> Result<(), FileError>;

    /// How many bytes of a tensor are best read at once. (One whose elements lie apart is collected from
    /// much of the file each time.)
    fn chunk(&self, _position: usize) -> usize {
        CHUNK
    }
}

/// What files of tensors have in common: a header that was read and checked, and tensors that are read
/// when they are asked for.
///
/// Whatever a file holds is given as `f32` too: `F64` is rounded, `F16`, `BF16` and quantised blocks are
/// exact, whole numbers and truth values become numbers.
///
/// The kinds of files are those of this crate.
pub trait TensorFile: TensorBytes {
    /// The file's or folder's path, as it was given.
    fn path(&self) -> &Path;

    /// All tensors. Their sizes were checked against that of the file.
    fn tensors(&self) -> &[StoredTensor];

    /// The tensor of this name.
    fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.position(name).map(|i| &self.tensors()[i])
    }

    /// The bytes of a tensor as they are stored: elements (or blocks) in row-major order, little-endian.
    ///
    /// # Errors
    /// If there is none of this name, or the file cannot be read.
    fn read(&self, name: &str) -> Result<Vec<u8>, FileError> {
        let at = find(self, name)?;
        let mut bytes = vec![0; self.tensors()[at].bytes().expect("sizes were checked with the header")];
        self.read_at(at, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The elements of a tensor, in row-major order.
    ///
    /// # Errors
    /// As [`read`](TensorFile::read), and if its type is not one that becomes `f32`.
    fn read_f32(&self, name: &str) -> Result<Vec<f32>, FileError> {
        let at = find(self, name)?;
        let mut out = vec![0.0; self.tensors()[at].numel().expect("sizes were checked with the header")];
        read_elements(self, at, 0, &mut out)?;
        Ok(out)
    }

    /// The elements of a tensor into a slice of as many.
    ///
    /// # Errors
    /// As [`read_f32`](TensorFile::read_f32), and if `out` has another length.
    fn read_into(&self, name: &str, out: &mut [f32]) -> Result<(), FileError> {
        let at = find(self, name)?;
        let tensor = &self.tensors()[at];
        if tensor.numel() != Some(out.len()) {
            let text = format!("tensor `{name}` of shape {:?} was to fill {} numbers", tensor.shape, out.len());
            return Err(FileError::refused(self.path(), text));
        }
        read_elements(self, at, 0, out)
    }

    /// Some rows of a tensor, which are its slices along the first axis (a tensor without axes has one), so
    /// that a large one need not be in memory twice. Besides `out`, a buffer of a fixed size is taken; for a
    /// tensor of `torch.save` whose elements lie apart, one that holds the part of the file where they lie.
    ///
    /// # Errors
    /// As [`read_into`](TensorFile::read_into), and if there are no such rows.
    fn read_rows_into(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<(), FileError> {
        let at = find(self, name)?;
        let shape = &self.tensors()[at].shape;
        let length: usize = shape.iter().skip(1).product();
        let fits = rows.start <= rows.end && rows.end <= shape.first().copied().unwrap_or(1);
        if !fits || (rows.end - rows.start).checked_mul(length) != Some(out.len()) {
            let text =
                format!("rows {rows:?} of tensor `{name}` of shape {shape:?} were to fill {} numbers", out.len());
            return Err(FileError::refused(self.path(), text));
        }
        read_elements(self, at, rows.start * length, out)
    }
}

fn find<F: TensorFile + ?Sized>(file: &F, name: &str) -> Result<usize, FileError> {
    let missing = || FileError::refused(file.path(), format!("it has no tensor `{name}`"));
    file.position(name).ok_or_else(missing)
}

/// Reads elements from `start` on, in chunks of whole blocks.
fn read_elements<F: TensorFile + ?Sized>(
    file: &F,
    at: usize,
    start: usize,
    mut out: &mut [f32],
) -> Result<(), FileError> {
    let StoredTensor { name, stored, .. } = &file.tensors()[at];
    let refused = || FileError::refused(file.path(), format!("tensor `{name}` of type {stored} cannot be read as f32"));
    let Widener { elements, bytes, widen } = Widener::of(*stored).ok_or_else(refused)?;
    let most = (file.chunk(at) / bytes).max(1);
    let (mut block, mut skip) = (start / elements, start % elements);
    let (mut raw, mut values) = (Vec::new(), Vec::new());
    while !out.is_empty() {
        let blocks = (skip + out.len()).div_ceil(elements).min(most);
        raw.resize(blocks * bytes, 0);
        file.read_at(at, block as u64 * bytes as u64, &mut raw)?;
        let given = out.len().min(blocks * elements - skip);
        let (now, later) = out.split_at_mut(given);
        if given == blocks * elements {
            widen(&raw, now);
        } else {
            // The range begins or ends within a block.
            values.resize(blocks * elements, 0.0);
            widen(&raw, &mut values);
            now.copy_from_slice(&values[skip..skip + given]);
        }
        out = later;
        (block, skip) = (block + blocks, 0);
    }
    Ok(())
}

/// Makes `elements` numbers of each `bytes` bytes.
struct Widener {
    elements: usize,
    bytes: usize,
    widen: Decode,
}

impl Widener {
    fn of(stored: Stored) -> Option<Widener> {
        let (bytes, widen): (usize, Decode) = match stored {
            Stored::Blocks(kind) => {
                return Some(Widener { elements: kind.elements(), bytes: kind.bytes(), widen: kind.decoder() });
            }
            Stored::Plain(dtype) => match dtype {
                Dtype::F32 => (4, |b, out| each(b, out, f32::from_le_bytes)),
                Dtype::F16 => (2, |b, out| each(b, out, |x| f16::from_le_bytes(x).to_f32())),
                Dtype::BF16 => (2, |b, out| each(b, out, |x| bf16::from_le_bytes(x).to_f32())),
                Dtype::F64 => (8, |b, out| each(b, out, |x| f64::from_le_bytes(x) as f32)),
                Dtype::I64 => (8, |b, out| each(b, out, |x| i64::from_le_bytes(x) as f32)),
                Dtype::I32 => (4, |b, out| each(b, out, |x| i32::from_le_bytes(x) as f32)),
                Dtype::I16 => (2, |b, out| each(b, out, |x| i16::from_le_bytes(x).into())),
                Dtype::I8 => (1, |b, out| each(b, out, |x| i8::from_le_bytes(x).into())),
                Dtype::U8 => (1, |b, out| each(b, out, |[x]| x.into())),
                Dtype::BOOL => (1, |b, out| each(b, out, |[x]| if x == 0 { 0.0 } else { 1.0 })),
                _ => return None,
            },
        };
        Some(Widener { elements: 1, bytes, widen })
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], widen: impl Fn([u8; N]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = widen(*bytes);
    }
}
