//! The stack machine that a pickle is a program for. It makes nodes that refer to each other, since containers
//! are filled after they were named; [`tree`](super::tree) then makes values of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::globals::Global;
use super::{Storage, TorchTensor};
use crate::error::FileError;
use crate::source::Input;

/// The newest protocol that Python has.
const NEWEST: u8 = 5;

/// Bytes of the longest name that is asked for.
const MAX_NAME: usize = 1 << 10;

/// Most opcodes of a pickle, each of which makes one value at most: some twenty times what a model with its
/// optimiser has.
const MAX_STEPS: u64 = 1 << 21;

/// How many values the copies that calls make, and values named more than once, may add up to for each byte of
/// the pickle. A few bytes could otherwise ask for more than any memory holds.
const COPIES: u64 = 4;

/// A place among the nodes.
pub(super) type Id = usize;

/// A value in the making.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Arc<TorchTensor>),
}

/// Runs a pickle to its end. Gives its nodes, the one that it is, and how many values may be made of them.
pub(super) fn run(input: &mut Input<'_>) -> Result<(Vec<Node>, Id, u64), FileError> {
    let start = input.position();
    let nodes = Vec::new();
    let mut machine =
        Machine { input, start, nodes, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), spent: 0 };
    for _ in 0..MAX_STEPS {
        let [opcode] = machine.input.array()?;
        if opcode == b'.' {
            let root = machine.pop().map_err(|reason| machine.refused(reason))?;
            let most = COPIES * (machine.input.position() - start);
            return Ok((machine.nodes, root, most.min(MAX_STEPS)));
        }
        machine.step(opcode)?.map_err(|reason| machine.refused(reason))?;
    }
    Err(machine.refused(format!("its pickle has more than {MAX_STEPS} opcodes")))
}

pub(super) struct Machine<'i, 's> {
    input: &'i mut Input<'s>,
    /// Where the pickle begins.
    start: u64,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack that were marked.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    /// Elements that calls have copied.
    spent: u64,
}

/// What an opcode gives: the file may be cut short (an error of its own), or the pickle be wrong.
type Step = Result<Result<(), String>, FileError>;

impl Machine<'_, '_> {
    /// Does one opcode. They are in the order of `pickletools.py`.
    fn step(&mut self, opcode: u8) -> Step {
        let done = match opcode {
            // Numbers.
            b'J' => i32::from_le_bytes(self.input.array()?).into_node(self),
            b'K' => self.input.array::<1>()?[0].into_node(self),
            b'M' => u16::from_le_bytes(self.input.array()?).into_node(self),
            0x8a => {
                let length = self.input.array::<1>()?[0].into();
                self.long(length)?
            }
            0x8b => {
                let length = u32::from_le_bytes(self.input.array()?).into();
                self.long(length)?
            }
            b'G' => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.push(Node::Float(value))
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            // Texts and bytes, by the width of their length.
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.input.array()?).into();
                self.text(length, opcode == b'X')?
            }
            0x8c | b'U' => {
                let length = self.input.array::<1>()?[0].into();
                self.text(length, opcode == 0x8c)?
            }
            0x8d => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.text(length, true)?
            }
            b'C' => {
                let length = self.input.array::<1>()?[0].into();
                self.bytes(length)?
            }
            b'B' => {
                let length = u32::from_le_bytes(self.input.array()?).into();
                self.bytes(length)?
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.bytes(length)?
            }
            // Lists, tuples and sets.
            b']' | b')' | 0x8f => self.push(Node::List(Vec::new())),
            b'a' => self.pop().and_then(|value| self.extend(&[value])),
            b'e' | 0x90 => self.pop_mark().and_then(|values| self.extend(&values)),
            b't' | 0x91 => self.pop_mark().and_then(|values| self.push(Node::List(values))),
            0x85..=0x87 => self.pop_many(usize::from(opcode - 0x84)).and_then(|values| self.push(Node::List(values))),
            // Dictionaries.
            b'}' => self.push(Node::Dict(Vec::new())),
            b's' => self.pop_many(2).and_then(|pair| self.set(&pair)),
            b'u' => self.pop_mark().and_then(|pairs| self.set(&pairs)),
            // The stack.
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_mark().map(|_| ()),
            // The memo.
            b'q' => {
                let at = self.input.array::<1>()?[0].into();
                self.remember(at)
            }
            b'r' => {
                let at = u32::from_le_bytes(self.input.array()?) as usize;
                self.remember(at)
            }
            0x94 => self.remember(self.memo.len()),
            b'h' => {
                let at = self.input.array::<1>()?[0].into();
                self.recall(at)
            }
            b'j' => {
                let at = u32::from_le_bytes(self.input.array()?) as usize;
                self.recall(at)
            }
            // What is named and called.
            b'c' => {
                let name = [self.input.line(MAX_NAME)?, self.input.line(MAX_NAME)?].join(&b'.');
                self.global(&String::from_utf8_lossy(&name))
            }
            0x93 => self.pop_many(2).and_then(|parts| match (self.node(parts[0]), self.node(parts[1])) {
                (Node::Text(module), Node::Text(name)) if module.len().max(name.len()) <= MAX_NAME => {
                    let name = format!("{module}.{name}");
                    self.global(&name)
                }
                _ => Err("a name is no text, or too long".into()),
            }),
            b'R' | 0x81 => self.pop_many(2).and_then(|parts| self.reduce(parts[0], parts[1])),
            b'b' => self.pop_many(2).and_then(|parts| self.build(parts[0])),
            b'Q' => {
                self.pop().and_then(|name| self.storage(name)).and_then(|storage| self.push(Node::Storage(storage)))
            }
            // The pickle itself.
            0x80 => match self.input.array::<1>()?[0] {
                2..=NEWEST => Ok(()),
                other => Err(format!("its pickle is of protocol {other}; 2 to {NEWEST} are read")),
            },
            0x95 => {
                // A hint of how much to read at once.
                self.input.array::<8>()?;
                Ok(())
            }
            other => Err(format!("its pickle has the opcode {other:#04x}, which torch does not write")),
        };
        Ok(done)
    }

    fn refused(&self, reason: String) -> FileError {
        FileError::refused(self.input.source().path(), reason)
    }

    pub(super) fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn list(&self, id: Id) -> Result<&[Id], String> {
        match self.node(id) {
            Node::List(values) => Ok(values),
            _ => Err("its pickle takes something else for a list or tuple".into()),
        }
    }

    /// Counts elements that are copied.
    pub(super) fn spend(&mut self, elements: usize) -> Result<(), String> {
        self.spent += elements as u64;
        match self.spent <= COPIES * (self.input.position() - self.start) {
            true => Ok(()),
            false => Err("its pickle copies values over and over".into()),
        }
    }

    fn push(&mut self, node: Node) -> Result<(), String> {
        let id = self.add(node);
        self.stack.push(id);
        Ok(())
    }

    /// The topmost value, if it is above the last mark.
    fn pop(&mut self) -> Result<Id, String> {
        self.pop_many(1).map(|one| one[0])
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(rest) if rest >= floor => Ok(self.stack.split_off(rest)),
            _ => Err("its pickle takes more values than there are".into()),
        }
    }

    /// All values above the last mark, which goes too.
    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("its pickle takes a mark where there is none")?;
        Ok(self.stack.split_off(mark))
    }

    /// The topmost value, which stays.
    fn top(&mut self) -> Result<Id, String> {
        let top = self.pop()?;
        self.stack.push(top);
        Ok(top)
    }

    fn extend(&mut self, values: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(list) => list.extend_from_slice(values),
            _ => return Err("its pickle adds to something other than a list or set".into()),
        }
        Ok(())
    }

    fn set(&mut self, pairs: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        match (&mut self.nodes[top], pairs.as_chunks::<2>()) {
            (Node::Dict(dict), (pairs, [])) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err("its pickle sets keys of something other than a dictionary, or a key without value".into()),
        }
        Ok(())
    }

    fn remember(&mut self, at: usize) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, at: usize) -> Result<(), String> {
        let id = self.memo.get(&at).ok_or_else(|| format!("its pickle has remembered nothing as {at}"))?;
        self.stack.push(*id);
        Ok(())
    }

    fn global(&mut self, name: &str) -> Result<(), String> {
        let refused = || format!("the file wants to run `{name}`; only tensors and containers are read");
        self.push(Node::Global(Global::named(name).ok_or_else(refused)?))
    }

    fn reduce(&mut self, callee: Id, arguments: Id) -> Result<(), String> {
        let Node::Global(global) = *self.node(callee) else {
            return Err("its pickle calls something that is no function".into());
        };
        let arguments = self.list(arguments)?.to_vec();
        self.spend(arguments.len())?;
        let made = self.call(global, &arguments)?;
        self.stack.push(made);
        Ok(())
    }

    /// Attributes of an object. Dictionaries of weights have some, of versions of modules: they are not kept.
    fn build(&mut self, object: Id) -> Result<(), String> {
        match self.node(object) {
            Node::Dict(_) => {
                self.stack.push(object);
                Ok(())
            }
            _ => Err("its pickle gives attributes to something other than a dictionary".into()),
        }
    }

    fn long(&mut self, length: u64) -> Step {
        if length > 16 {
            return Ok(Err(format!("its pickle has a whole number of {length} bytes; 16 is most")));
        }
        let bytes = self.input.bytes(length)?;
        // The sign is that of the last byte.
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [fill; 16];
        whole[..bytes.len()].copy_from_slice(&bytes);
        Ok(self.push(Node::Int(i128::from_le_bytes(whole))))
    }

    /// A text, or one of Python 2, which may be bytes (`utf8` is false).
    fn text(&mut self, length: u64, utf8: bool) -> Step {
        let bytes = self.input.bytes(length)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => self.push(Node::Text(text.into())),
            Err(e) if utf8 => Err(format!("its pickle has a text that is not UTF-8 ({})", e.utf8_error())),
            Err(e) => self.push(Node::Bytes(e.into_bytes().into())),
        })
    }

    fn bytes(&mut self, length: u64) -> Step {
        let bytes = self.input.bytes(length)?;
        Ok(self.push(Node::Bytes(bytes.into())))
    }
}

/// Whole numbers of any width.
trait IntoNode: Into<i128> {
    fn into_node(self, machine: &mut Machine<'_, '_>) -> Result<(), String> {
        machine.push(Node::Int(self.into()))
    }
}

impl<T: Into<i128>> IntoNode for T {}
