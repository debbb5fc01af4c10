//! From nodes that refer to each other to a value that owns its parts.

use super::TorchValue;
use super::globals::Global;
use super::machine::{Id, Node};

/// How deep values may be nested.
const MAX_DEPTH: usize = 64;

/// The value at `root`, if it is made of at most `most` values: one that is named twice counts twice.
pub(super) fn grow(nodes: &[Node], root: Id, most: u64) -> Result<TorchValue, String> {
    Grower { nodes, left: most }.value(root, 0)
}

struct Grower<'n> {
    nodes: &'n [Node],
    /// How many values more may be made.
    left: u64,
}

impl Grower<'_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<TorchValue, String> {
        if depth > MAX_DEPTH {
            return Err(format!("its values are nested deeper than {MAX_DEPTH}, or hold themselves"));
        }
        self.left = self.left.checked_sub(1).ok_or("its pickle names the same values over and over")?;
        Ok(match &self.nodes[id] {
            Node::None => TorchValue::None,
            Node::Bool(x) => TorchValue::Bool(*x),
            Node::Int(x) => TorchValue::Int(*x),
            Node::Float(x) => TorchValue::Float(*x),
            Node::Text(x) => TorchValue::Text(x.clone()),
            Node::Bytes(x) => TorchValue::Bytes(x.clone()),
            Node::Tensor(x) => TorchValue::Tensor(x.clone()),
            Node::Global(Global::Type(name, _)) => TorchValue::Text((*name).into()),
            Node::List(values) => {
                let values = values.iter().map(|&value| self.value(value, depth + 1));
                TorchValue::List(values.collect::<Result<_, _>>()?)
            }
            Node::Dict(pairs) => {
                let pairs = pairs.iter().map(|&(k, v)| Ok((self.value(k, depth + 1)?, self.value(v, depth + 1)?)));
                TorchValue::Dict(pairs.collect::<Result<_, String>>()?)
            }
            Node::Global(_) => return Err("it holds a type or function; only tensors and containers are read".into()),
            Node::Storage(_) => return Err("it holds a storage without a tensor; save the tensor".into()),
        })
    }
}
