//! What `torch.save` writes: a pickle that says what there is, and the bytes of storages.

mod legacy;
mod zip;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::FileError;
use crate::pickle::{Storage, TorchTensor, TorchValue};
use crate::safetensors::TensorInfo;
use crate::source::Source;
use crate::stored::{CHUNK, StoredTensor, TensorBytes, TensorFile};

/// Keys under which checkpoints keep the weights beside other things (nanoGPT's is `model`).
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model_state", "model", "module"];

/// Bytes of the longest name of a tensor.
const MAX_NAME: usize = 512;

/// A file of `torch.save` (`.pt`, `.pth`, `.bin`; the zip format, or that of torch before 1.6) whose pickle was
/// read; tensors are read when asked for, as [`TensorFile`] says.
///
/// The file's [`tensors`](TensorFile::tensors) are those of its [state dict](TorchFile::state_dict), nested
/// ones with dots between the names (or places in a list) that lead to them. A tensor that was saved alone has
/// an empty name.
///
/// Reading runs nothing of the file: it may name tensors, containers and numbers only, and is refused, with the
/// name, when it asks for anything else. Checksums of the zip format are not compared: torch can leave them out.
///
/// ```no_run
/// use ironlens_files::{TensorFile, TorchFile, TorchValue};
///
/// // Of nanoGPT: the weights under `model`, and its sizes beside them.
/// let file = TorchFile::open("ckpt.pt")?;
/// let sizes = file.value().get("model_args");
/// let n_layer = sizes.and_then(|args| args.get("n_layer")).and_then(TorchValue::as_int);
/// let embedding = file.read_f32("transformer.wte.weight")?;
/// # Ok::<(), ironlens_files::FileError>(())
/// ```
#[derive(Debug)]
pub struct TorchFile {
    source: Source,
    value: TorchValue,
    /// Where the bytes of each storage begin and how many there are.
    storages: HashMap<Arc<str>, (u64, u64)>,
    /// The tensors of the state dict: names and types, and views of storages.
    tensors: Vec<StoredTensor>,
    views: Vec<Arc<TorchTensor>>,
    /// Places in `tensors`.
    index: HashMap<String, usize>,
}

/// What a file of either format holds.
struct Contents {
    value: TorchValue,
    storages: HashMap<Arc<str>, (u64, u64)>,
}

impl TorchFile {
    /// Opens a file, reads its pickle and checks where its storages are.
    ///
    /// # Errors
    /// If the file cannot be read, is not one of `torch.save`, is cut short or big-endian, or wants to run
    /// something other than what makes tensors and containers.
    pub fn open(path: impl AsRef<Path>) -> Result<TorchFile, FileError> {
        let source = Source::open(path.as_ref(), "torch")?;
        let mut start = vec![0; source.length().min(512) as usize];
        source.read_at(0, &mut start)?;
        let contents = if start.starts_with(zip::MAGIC) {
            zip::read(&source)?
        } else if start.starts_with(legacy::MAGIC) {
            legacy::read(&source)?
        } else if start.get(257..262) == Some(b"ustar") {
            return Err(source.damaged("it is a tar archive, as torch 0.1 wrote; save it again with a newer torch"));
        } else {
            return Err(source.damaged("it begins neither as a zip archive nor as the older format does"));
        };
        TorchFile::new(source, contents)
    }

    fn new(source: Source, Contents { value, storages }: Contents) -> Result<TorchFile, FileError> {
        let mut named = Vec::new();
        collect(state_dict(&value), &mut String::new(), &mut named).map_err(|reason| source.damaged(reason))?;
        let mut file = TorchFile { source, storages, tensors: vec![], views: vec![], index: HashMap::new(), value };
        for (name, tensor) in named {
            file.start(&tensor)?;
            if file.index.insert(name.clone(), file.tensors.len()).is_some() {
                return Err(file.source.damaged(format!("two tensors are named `{name}`")));
            }
            let info = TensorInfo { name, dtype: tensor.dtype, shape: tensor.shape.clone() };
            file.tensors.push(StoredTensor::from(&info));
            file.views.push(tensor);
        }
        Ok(file)
    }

    /// All that was saved.
    pub fn value(&self) -> &TorchValue {
        &self.value
    }

    /// The part of [`value`](TorchFile::value) that holds the weights: the dictionary under the first of
    /// `state_dict`, `model_state_dict`, `model_state`, `model` and `module` that has one, or else all of it.
    pub fn state_dict(&self) -> &TorchValue {
        state_dict(&self.value)
    }

    /// The bytes of any tensor of [`value`](TorchFile::value): its elements in row-major order, little-endian.
    ///
    /// # Errors
    /// If the file cannot be read, or `tensor` is of another file whose storages this one does not have.
    pub fn read_tensor(&self, tensor: &TorchTensor) -> Result<Vec<u8>, FileError> {
        let start = self.start(tensor)?;
        let mut bytes = vec![0; tensor.numel() * width(tensor)];
        self.read_view(tensor, start, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Where the storage of a tensor begins, if it is as long as it should be.
    fn start(&self, tensor: &TorchTensor) -> Result<u64, FileError> {
        let Storage { key, numel, .. } = &tensor.storage;
        let missing = || self.source.damaged(format!("storage `{key}` of a tensor is not in it"));
        let (start, bytes) = *self.storages.get(key).ok_or_else(missing)?;
        match tensor.storage.bytes() {
            Some(expected) if expected as u64 <= bytes => Ok(start),
            _ => {
                Err(self.source.damaged(format!("storage `{key}` should have {numel} elements, it has {bytes} bytes")))
            }
        }
    }

    /// Fills `out` with elements of a tensor, from its byte `from` on; its storage begins at `start`.
    fn read_view(&self, tensor: &TorchTensor, start: u64, from: u64, out: &mut [u8]) -> Result<(), FileError> {
        let width = width(tensor);
        if tensor.contiguous() {
            return self.source.read_at(start + (tensor.offset * width) as u64 + from, out);
        }
        // The part of the storage that has these elements is read whole.
        let count = out.len() / width;
        let places = || Places::new(tensor, from as usize / width).take(count);
        let Some(place) = places().next() else { return Ok(()) };
        let (first, last) = places().fold((place, place), |(first, last), at| (first.min(at), last.max(at)));
        let mut part = vec![0; (last - first + 1) * width];
        self.source.read_at(start + (first * width) as u64, &mut part)?;
        for (out, place) in out.chunks_exact_mut(width).zip(places()) {
            out.copy_from_slice(&part[(place - first) * width..][..width]);
        }
        Ok(())
    }
}

impl TensorFile for TorchFile {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }
}

impl TensorBytes for TorchFile {
    fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn read_at(&self, position: usize, start: u64, out: &mut [u8]) -> Result<(), FileError> {
        let view = &self.views[position];
        self.read_view(view, self.start(view)?, start, out)
    }

    fn chunk(&self, position: usize) -> usize {
        // Each reading of some elements that lie apart reads all that lies between them.
        if self.views[position].contiguous() { CHUNK } else { usize::MAX }
    }
}

/// Bytes of an element.
fn width(tensor: &TorchTensor) -> usize {
    tensor.dtype.bitsize() / 8
}

/// Places in the storage of a tensor's elements, in row-major order.
struct Places<'t> {
    tensor: &'t TorchTensor,
    /// Index of the next element on every axis, and where it is.
    index: Vec<usize>,
    place: usize,
}

impl Places<'_> {
    /// From this element on.
    fn new(tensor: &TorchTensor, element: usize) -> Places<'_> {
        let mut rest = element;
        let mut index = vec![0; tensor.shape.len()];
        for (index, length) in index.iter_mut().zip(&tensor.shape).rev() {
            (*index, rest) = (rest % length, rest / length);
        }
        let place = index.iter().zip(&tensor.strides).map(|(index, stride)| index * stride).sum::<usize>();
        Places { tensor, index, place: tensor.offset + place }
    }
}

impl Iterator for Places<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let here = self.place;
        // As an odometer counts: the last axis that is not at its end goes on, those after it begin again.
        for axis in (0..self.index.len()).rev() {
            let (length, stride) = (self.tensor.shape[axis], self.tensor.strides[axis]);
            if self.index[axis] + 1 < length {
                self.index[axis] += 1;
                self.place += stride;
                break;
            }
            self.place -= self.index[axis] * stride;
            self.index[axis] = 0;
        }
        Some(here)
    }
}

/// See [`TorchFile::state_dict`].
fn state_dict(value: &TorchValue) -> &TorchValue {
    let wrapped = WRAPPERS.iter().filter_map(|key| value.get(key)).find(|v| matches!(v, TorchValue::Dict(_)));
    wrapped.unwrap_or(value)
}

/// Collects the tensors in a value, with the names that lead to them after `prefix`.
fn collect(value: &TorchValue, prefix: &mut String, named: &mut Vec<(String, Arc<TorchTensor>)>) -> Result<(), String> {
    let mut below = |name: &str, value: &TorchValue| {
        let length = prefix.len();
        if length > 0 {
            prefix.push('.');
        }
        prefix.push_str(name);
        if prefix.len() > MAX_NAME {
            return Err(format!("a tensor's name is longer than {MAX_NAME} bytes"));
        }
        collect(value, prefix, named)?;
        prefix.truncate(length);
        Ok(())
    };
    match value {
        TorchValue::Dict(pairs) => pairs.iter().try_for_each(|(key, value)| match key {
            TorchValue::Text(key) => below(key, value),
            TorchValue::Int(key) => below(&key.to_string(), value),
            _ => Ok(()),
        }),
        TorchValue::List(values) => values.iter().enumerate().try_for_each(|(i, value)| below(&i.to_string(), value)),
        TorchValue::Tensor(tensor) => {
            named.push((prefix.clone(), tensor.clone()));
            Ok(())
        }
        _ => Ok(()),
    }
}
