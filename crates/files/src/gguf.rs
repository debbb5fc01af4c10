//! The GGUF format of llama.cpp: metadata, tensors' names, shapes, types and places, then the bytes.
//!
//! Facts are of the format's description (`docs/gguf.md` in ggml) and of `gguf.cpp` and `ggml.h` there.

mod value;
mod write;

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;

pub use value::{FromGguf, GgufArray, GgufMetadata, GgufValue};
pub use write::write_gguf;

use crate::blocks::BlockType;
use crate::error::FileError;
use crate::source::{Input, Source};
use crate::stored::{Stored, StoredTensor, TensorBytes, TensorFile};
use value::read_text;

const MAGIC: [u8; 4] = *b"GGUF";

/// What the bytes of tensors are aligned to when the metadata does not say.
const ALIGNMENT: u64 = 32;

/// Metadata that says what the bytes of tensors are aligned to.
const ALIGNMENT_KEY: &str = "general.alignment";

/// Most axes of a tensor.
const MAX_AXES: usize = 4;

/// ggml's numbers of the types that are read.
const TYPES: [(u32, Stored); 20] = [
    (0, Stored::Plain(Dtype::F32)),
    (1, Stored::Plain(Dtype::F16)),
    (2, Stored::Blocks(BlockType::Q4_0)),
    (3, Stored::Blocks(BlockType::Q4_1)),
    (6, Stored::Blocks(BlockType::Q5_0)),
    (7, Stored::Blocks(BlockType::Q5_1)),
    (8, Stored::Blocks(BlockType::Q8_0)),
    (10, Stored::Blocks(BlockType::Q2_K)),
    (11, Stored::Blocks(BlockType::Q3_K)),
    (12, Stored::Blocks(BlockType::Q4_K)),
    (13, Stored::Blocks(BlockType::Q5_K)),
    (14, Stored::Blocks(BlockType::Q6_K)),
    (20, Stored::Blocks(BlockType::IQ4_NL)),
    (23, Stored::Blocks(BlockType::IQ4_XS)),
    (24, Stored::Plain(Dtype::I8)),
    (25, Stored::Plain(Dtype::I16)),
    (26, Stored::Plain(Dtype::I32)),
    (27, Stored::Plain(Dtype::I64)),
    (28, Stored::Plain(Dtype::F64)),
    (30, Stored::Plain(Dtype::BF16)),
];

/// ggml's other types, to name them.
const OTHERS: [(u32, &str); 15] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// A GGUF file (version 2 or 3, little-endian) whose header was read; tensors are read when asked for,
/// as [`TensorFile`] says.
///
/// ```
/// use ironlens_files::{Dtype, GgufFile, GgufValue, Stored, StoredTensor, TensorFile, write_gguf};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("m.gguf");
/// let metadata = [("general.architecture".into(), GgufValue::String("llama".into()))];
/// let tensors = [StoredTensor { name: "w".into(), stored: Stored::Plain(Dtype::BF16), shape: vec![2, 1] }];
/// write_gguf(&path, &metadata, &tensors, |_, file| file.write_all(&[0x80, 0x3f, 0, 0x40]))?;
///
/// let file = GgufFile::open(&path)?;
/// assert_eq!(file.metadata().required::<&str>("general.architecture")?, "llama");
/// assert_eq!(file.metadata().optional::<u64>("llama.block_count")?, None);
/// assert_eq!(file.read_f32("w")?, [1.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct GgufFile {
    source: Source,
    version: u32,
    metadata: GgufMetadata,
    tensors: Vec<StoredTensor>,
    /// Where each tensor's bytes begin.
    starts: Vec<u64>,
    /// Places in `tensors`.
    index: HashMap<String, usize>,
}

impl GgufFile {
    /// Opens a file and checks its header, against its length too.
    ///
    /// # Errors
    /// If the file cannot be read, is no GGUF file of version 2 or 3, is cut short, or has a tensor of a type
    /// that is not read.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufFile, FileError> {
        let source = Source::open(path.as_ref(), "GGUF")?;
        let mut input = source.input(0, source.length());
        if input.array()? != MAGIC {
            return Err(source.damaged("it does not begin with `GGUF`"));
        }
        let version = u32::from_le_bytes(input.array()?);
        match version {
            2 | 3 => {}
            _ if version & 0xffff == 0 => return Err(source.damaged("it is big-endian; little-endian is read")),
            _ => return Err(source.damaged(format!("it is of version {version}; 2 and 3 are read"))),
        }
        let count = u64::from_le_bytes(input.array()?);
        let pairs = u64::from_le_bytes(input.array()?);
        let metadata = GgufMetadata::read(&mut input, pairs)?;
        let mut index = HashMap::new();
        let mut tensors = Vec::new();
        let mut starts = Vec::new();
        for at in 0..count {
            let (tensor, start) = read_tensor(&mut input)?;
            if index.insert(tensor.name.clone(), at as usize).is_some() {
                return Err(source.damaged(format!("two tensors are named `{}`", tensor.name)));
            }
            tensors.push(tensor);
            starts.push(start);
        }
        let alignment = alignment(&source, metadata.optional(ALIGNMENT_KEY)?)?;
        let data = input.position().checked_next_multiple_of(alignment);
        let data = data.ok_or_else(|| source.damaged("its header has no end"))?;
        for start in &mut starts {
            if !start.is_multiple_of(alignment) {
                return Err(source.damaged(format!("a tensor begins at {start}, not aligned to {alignment} bytes")));
            }
            *start = start.checked_add(data).ok_or_else(|| source.damaged("a tensor begins beyond the file"))?;
        }
        check_places(&source, &tensors, &starts)?;
        Ok(GgufFile { version, metadata, tensors, starts, index, source })
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What the file says of itself: the model's sizes, its tokenizer.
    pub fn metadata(&self) -> &GgufMetadata {
        &self.metadata
    }
}

impl TensorFile for GgufFile {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }
}

impl TensorBytes for GgufFile {
    fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn read_at(&self, position: usize, start: u64, out: &mut [u8]) -> Result<(), FileError> {
        self.source.read_at(self.starts[position] + start, out)
    }
}

/// A tensor, and where its bytes begin after the header.
fn read_tensor(input: &mut Input<'_>) -> Result<(StoredTensor, u64), FileError> {
    let name = read_text(input)?;
    let axes = u32::from_le_bytes(input.array()?) as usize;
    if axes > MAX_AXES {
        return Err(input.source().damaged(format!("tensor `{name}` has {axes} axes; {MAX_AXES} is most")));
    }
    let mut shape = Vec::with_capacity(axes);
    for _ in 0..axes {
        let length = u64::from_le_bytes(input.array()?);
        shape.push(length.try_into().map_err(|e| input.source().damaged(e))?);
    }
    // The file has the axis whose elements lie side by side first.
    shape.reverse();
    let number = u32::from_le_bytes(input.array()?);
    let stored = TYPES.iter().find(|(n, _)| *n == number).map(|(_, stored)| *stored).ok_or_else(|| {
        let named = OTHERS.iter().find(|(n, _)| *n == number).map_or("unknown", |(_, name)| name);
        let known: Vec<String> = TYPES.iter().map(|(_, stored)| stored.to_string()).collect();
        let known = known.join(", ");
        let text = format!("tensor `{name}` is of type {number} ({named}); those that are read are {known}");
        FileError::refused(input.source().path(), text)
    })?;
    let start = u64::from_le_bytes(input.array()?);
    Ok((StoredTensor { name, stored, shape }, start))
}

/// The alignment that the metadata gives, if it is one.
fn alignment(source: &Source, given: Option<u64>) -> Result<u64, FileError> {
    let alignment = given.unwrap_or(ALIGNMENT);
    match alignment.is_power_of_two() {
        true => Ok(alignment),
        false => Err(source.damaged(format!("`{ALIGNMENT_KEY}` is {alignment}, not a power of two"))),
    }
}

/// Checks that every tensor lies inside the file and no two share bytes.
fn check_places(source: &Source, tensors: &[StoredTensor], starts: &[u64]) -> Result<(), FileError> {
    let mut places = Vec::with_capacity(tensors.len());
    for (tensor, &start) in tensors.iter().zip(starts) {
        let StoredTensor { name, stored, shape } = tensor;
        let size = || source.damaged(format!("tensor `{name}` cannot have shape {shape:?} with type {stored}"));
        let end = start.checked_add(tensor.bytes().ok_or_else(size)? as u64);
        let inside = end.filter(|&end| end <= source.length());
        let end = inside.ok_or_else(|| {
            let length = source.length();
            source.damaged(format!("tensor `{name}` of shape {shape:?} ends beyond the file's {length} bytes"))
        })?;
        places.push((start, end, name));
    }
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(source.damaged(format!("tensors `{}` and `{}` share bytes", pair[0].2, pair[1].2))),
        None => Ok(()),
    }
}
