//! The pickles that `torch.save` writes, read without running anything: a file can only name what the
//! [allow-list](globals) has, and everything else is refused by its name.
//!
//! Opcodes and their meanings are those of Python's `pickletools.py`, protocols 2 to 5; what tensors are made of
//! is in `torch/serialization.py` and `torch/_utils.py`.

mod globals;
mod machine;
mod tree;

use std::sync::Arc;

use safetensors::Dtype;

use crate::error::FileError;
use crate::source::Input;

/// A value that was saved with `torch.save`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TorchValue {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// A text, or the name of a device or of a type such as `torch.float32`.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list, a tuple, a set or a `torch.Size`.
    List(Vec<TorchValue>),
    /// A dictionary of any kind, in its order.
    Dict(Vec<(TorchValue, TorchValue)>),
    /// A tensor or a parameter.
    Tensor(Arc<TorchTensor>),
}

impl TorchValue {
    /// The value of a key, if this is a dictionary that has it.
    ///
    /// ```
    /// use ironlens_files::TorchValue;
    ///
    /// let args = TorchValue::Dict(vec![(TorchValue::Text("n_layer".into()), TorchValue::Int(2))]);
    /// assert_eq!(args.get("n_layer").and_then(TorchValue::as_int), Some(2));
    /// assert_eq!(args.get("n_head"), None);
    /// ```
    pub fn get(&self, key: &str) -> Option<&TorchValue> {
        let TorchValue::Dict(pairs) = self else { return None };
        pairs.iter().find(|(k, _)| k.as_text() == Some(key)).map(|(_, value)| value)
    }

    /// The whole number, if this is one that `i64` holds.
    pub fn as_int(&self) -> Option<i64> {
        if let TorchValue::Int(x) = self { (*x).try_into().ok() } else { None }
    }

    /// The number, if this is one, with a fraction or without.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            TorchValue::Float(x) => Some(*x),
            TorchValue::Int(x) => Some(*x as f64),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let TorchValue::Bool(x) = self { Some(*x) } else { None }
    }

    /// The text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        if let TorchValue::Text(x) = self { Some(x) } else { None }
    }
}

/// A view of a storage: what torch's files say of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchTensor {
    /// Storages have a name in the file; several tensors may share one.
    pub(crate) storage: Storage,
    pub(crate) dtype: Dtype,
    /// Elements of the storage before the first of the tensor.
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    /// Elements of the storage from one place on an axis to the next; those of all places were checked to lie
    /// in the storage.
    pub(crate) strides: Vec<usize>,
}

impl TorchTensor {
    /// Type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its number of elements: not more than its storage has.
    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether its elements lie in the storage as in row-major order.
    pub(crate) fn contiguous(&self) -> bool {
        let mut expected = 1;
        let axes = self.shape.iter().zip(&self.strides).rev();
        let ordered = axes.filter(|(length, _)| **length != 1).all(|(length, stride)| {
            let side_by_side = *stride == expected;
            expected *= length;
            side_by_side
        });
        ordered || self.numel() == 0
    }
}

/// Elements in a file, that tensors are views of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) key: Arc<str>,
    pub(crate) dtype: Dtype,
    pub(crate) numel: usize,
}

impl Storage {
    /// Its size; `None` if that is beyond what can be counted.
    pub(crate) fn bytes(&self) -> Option<usize> {
        self.numel.checked_mul(self.dtype.bitsize() / 8)
    }
}

/// What one pickle holds.
pub(crate) struct Pickle {
    pub(crate) value: TorchValue,
    /// All storages that are named, some more than once.
    pub(crate) storages: Vec<Storage>,
}

impl Pickle {
    /// Reads a pickle up to its end, where `input` then stands.
    pub(crate) fn read(input: &mut Input<'_>) -> Result<Pickle, FileError> {
        let (nodes, root, most) = machine::run(input)?;
        let value =
            tree::grow(&nodes, root, most).map_err(|reason| FileError::refused(input.source().path(), reason))?;
        let storages = nodes.into_iter().filter_map(|node| match node {
            machine::Node::Storage(storage) => Some(storage),
            _ => None,
        });
        Ok(Pickle { value, storages: storages.collect() })
    }
}
