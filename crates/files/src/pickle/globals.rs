//! The allow-list: what a pickle may name, and what is made of its arguments.

use std::sync::Arc;

use safetensors::Dtype;

use super::machine::{Id, Machine, Node};
use super::{Storage, TorchTensor};
use crate::stored::count;

/// Most axes of a tensor: torch's own limit.
const MAX_AXES: usize = 64;

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict` and `dict`.
    Dict,
    /// Types that only hold what they are given: lists, tuples, sets, `torch.Size`.
    Holder,
    /// `_codecs.encode`, and `bytes` for none: how protocol 2 writes bytes.
    Encode,
    /// `torch.device`.
    Device,
    /// A type of elements, such as `torch.float32`.
    Type(&'static str, Dtype),
    /// A storage of elements of this type.
    Storage(Dtype),
    /// `torch._utils._rebuild_tensor` and its later versions.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
}

const TYPES: [(&str, Dtype); 15] = [
    ("torch.float32", Dtype::F32),
    ("torch.float16", Dtype::F16),
    ("torch.bfloat16", Dtype::BF16),
    ("torch.float64", Dtype::F64),
    ("torch.int64", Dtype::I64),
    ("torch.int32", Dtype::I32),
    ("torch.int16", Dtype::I16),
    ("torch.int8", Dtype::I8),
    ("torch.uint8", Dtype::U8),
    ("torch.uint16", Dtype::U16),
    ("torch.uint32", Dtype::U32),
    ("torch.uint64", Dtype::U64),
    ("torch.bool", Dtype::BOOL),
    ("torch.float8_e4m3fn", Dtype::F8_E4M3),
    ("torch.float8_e5m2", Dtype::F8_E5M2),
];

impl Global {
    /// What a name stands for, if it is allowed.
    pub(super) fn named(name: &str) -> Option<Global> {
        if let Some((name, dtype)) = TYPES.iter().find(|(known, _)| *known == name) {
            return Some(Global::Type(name, *dtype));
        }
        let holders = ["list", "tuple", "set", "frozenset"];
        match name {
            "collections.OrderedDict" | "builtins.dict" | "__builtin__.dict" => Some(Global::Dict),
            "torch.Size" => Some(Global::Holder),
            "_codecs.encode" | "builtins.bytes" | "__builtin__.bytes" => Some(Global::Encode),
            "torch.device" => Some(Global::Device),
            "torch._utils._rebuild_parameter" => Some(Global::Parameter),
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor_v3" => {
                Some(Global::Tensor)
            }
            "torch.storage.UntypedStorage" => Some(Global::Storage(Dtype::U8)),
            _ => match name.rsplit_once('.')? {
                ("builtins" | "__builtin__", kind) if holders.contains(&kind) => Some(Global::Holder),
                // Old files name the storages of a GPU apart.
                ("torch" | "torch.cuda", storage) => storage_type(storage).map(Global::Storage),
                _ => None,
            },
        }
    }
}

fn storage_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "DoubleStorage" => Dtype::F64,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

impl Machine<'_, '_> {
    /// What calling `global` with `arguments` gives.
    pub(super) fn call(&mut self, global: Global, arguments: &[Id]) -> Result<Id, String> {
        let node = match global {
            Global::Holder => match arguments {
                [] => Node::List(Vec::new()),
                // The list itself: nothing is copied, however often it is asked for.
                &[list] => return self.list(list).map(|_| list),
                _ => return Err("a list is made of more than one value".into()),
            },
            Global::Dict => match arguments {
                [] => Node::Dict(Vec::new()),
                &[pairs] => Node::Dict(self.pairs(pairs)?),
                _ => return Err("a dictionary is made of more than one value".into()),
            },
            Global::Encode => match arguments.iter().map(|&id| self.node(id)).collect::<Vec<_>>()[..] {
                [] => Node::Bytes([].into()),
                [Node::Text(text), Node::Text(codec)] if matches!(&**codec, "latin1" | "latin-1") => {
                    let bytes = text.chars().map(|c| u8::try_from(c).map_err(|_| "a text is no bytes".to_owned()));
                    let bytes: Arc<[u8]> = bytes.collect::<Result<_, _>>()?;
                    self.spend(bytes.len())?;
                    Node::Bytes(bytes)
                }
                _ => return Err("bytes are made of something other than latin-1 text".into()),
            },
            Global::Device => match arguments.iter().map(|&id| self.node(id)).collect::<Vec<_>>()[..] {
                [Node::Text(kind)] => Node::Text(kind.clone()),
                [Node::Text(kind), Node::Int(index)] if kind.len() < 32 => Node::Text(format!("{kind}:{index}").into()),
                _ => return Err("a device has no name".into()),
            },
            Global::Tensor => Node::Tensor(Arc::new(self.tensor(arguments)?)),
            Global::Parameter => match arguments {
                // The tensor, whether it needs a gradient, hooks.
                &[tensor, _, _] if matches!(self.node(tensor), Node::Tensor(_)) => return Ok(tensor),
                _ => return Err("a parameter is made of no tensor".into()),
            },
            Global::Type(..) | Global::Storage(_) => return Err("a type is called".into()),
        };
        Ok(self.add(node))
    }

    /// The pairs of a list of pairs.
    fn pairs(&mut self, list: Id) -> Result<Vec<(Id, Id)>, String> {
        let pairs = self.list(list)?.iter().map(|&pair| match *self.list(pair)? {
            [key, value] => Ok((key, value)),
            _ => Err("a dictionary is made of something other than pairs".to_owned()),
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        self.spend(pairs.len())?;
        Ok(pairs)
    }

    /// The storage that a persistent name stands for: the word `storage`, its type, its key in the file, the
    /// device it was on, its number of elements; in the older format, also of which storage it is a view.
    pub(super) fn storage(&self, id: Id) -> Result<Storage, String> {
        let wrong = || "it names something other than a storage".to_owned();
        let parts: Vec<&Node> = self.list(id)?.iter().map(|&part| self.node(part)).collect();
        let [
            Node::Text(word),
            Node::Global(Global::Storage(dtype)),
            Node::Text(key),
            Node::Text(_),
            Node::Int(numel),
            rest @ ..,
        ] = &parts[..]
        else {
            return Err(wrong());
        };
        match rest {
            [] | [Node::None] if &**word == "storage" => {
                let numel = usize::try_from(*numel).map_err(|_| format!("a storage has {numel} elements"))?;
                Ok(Storage { key: key.clone(), dtype: *dtype, numel })
            }
            [_] => Err("a storage is a view of another, as torch 0.3 wrote it; save it again".into()),
            _ => Err(wrong()),
        }
    }

    /// A tensor of a storage, the offset in it, shape and strides; then whether it needs a gradient and hooks;
    /// in version 3 its type, which its storage then does not have.
    fn tensor(&mut self, arguments: &[Id]) -> Result<TorchTensor, String> {
        let &[storage, offset, shape, strides, ref rest @ ..] = arguments else {
            return Err(format!("a tensor is made of {} values", arguments.len()));
        };
        let Node::Storage(storage) = self.node(storage) else {
            return Err("a tensor is made of no storage".into());
        };
        let dtype = match rest.get(2).map(|&id| self.node(id)) {
            Some(Node::Global(Global::Type(_, dtype))) => *dtype,
            _ => storage.dtype,
        };
        let number = |id: Id| match self.node(id) {
            Node::Int(x) => usize::try_from(*x).map_err(|_| format!("a tensor has {x} for a length or stride")),
            _ => Err("a tensor has something other than a whole number for a length or stride".to_owned()),
        };
        let axes = |id: Id| match self.list(id)? {
            axes if axes.len() > MAX_AXES => Err(format!("a tensor has {} axes; {MAX_AXES} is most", axes.len())),
            axes => axes.iter().map(|&n| number(n)).collect::<Result<Vec<usize>, String>>(),
        };
        let storage = storage.clone();
        let tensor =
            TorchTensor { dtype, offset: number(offset)?, shape: axes(shape)?, strides: axes(strides)?, storage };
        check(&tensor)?;
        Ok(tensor)
    }
}

/// Checks that a tensor lies in its storage, and has no more elements than that.
fn check(tensor: &TorchTensor) -> Result<(), String> {
    let TorchTensor { storage, dtype, offset, shape, strides } = tensor;
    if shape.len() != strides.len() {
        return Err(format!("a tensor of shape {shape:?} has strides {strides:?}"));
    }
    let outside = || {
        let (key, numel) = (&storage.key, storage.numel);
        format!(
            "a tensor of shape {shape:?}, strides {strides:?} and offset {offset} is not in storage `{key}` of \
             {numel} elements, or repeats some (`x.contiguous()` before saving makes it a plain one)"
        )
    };
    let held = storage.bytes().map(|bytes| bytes / (dtype.bitsize() / 8)).ok_or_else(outside)?;
    let numel = count(shape).ok_or_else(outside)?;
    let last = shape.iter().zip(strides).filter(|_| numel > 0).try_fold(*offset, |at, (length, stride)| {
        (length - 1).checked_mul(*stride).and_then(|further| at.checked_add(further))
    });
    let end = last.and_then(|last| last.checked_add(usize::from(numel > 0)));
    if numel <= held && end.is_some_and(|end| end <= held) { Ok(()) } else { Err(outside()) }
}
