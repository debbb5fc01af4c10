//! Writing GGUF files.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use super::value::write_text;
use super::{ALIGNMENT, ALIGNMENT_KEY, FromGguf, GgufValue, MAGIC, MAX_AXES, TYPES};
use crate::atomic::write_atomically_with;
use crate::counted::Counted;
use crate::error::FileError;
use crate::stored::StoredTensor;

/// Writes a GGUF file of version 3 whole or not at all (see [`write_atomically_with`]). `write` is called once
/// for each tensor, in their order, with its index in `tensors`, and writes its bytes as its type says.
///
/// # Errors
/// If the file cannot be written, two tensors or keys have one name, a tensor's type or shape is none that the
/// format has, or `write` fails or writes another number of bytes than type and shape say.
pub fn write_gguf(
    path: impl AsRef<Path>,
    metadata: &[(String, GgufValue)],
    tensors: &[StoredTensor],
    mut write: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    let refused = |text: String| FileError::refused(path, text);
    let mut header = Vec::from(MAGIC);
    header.extend_from_slice(&3u32.to_le_bytes());
    header.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    header.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    let mut alignment = ALIGNMENT;
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        if !keys.insert(key) {
            return Err(refused(format!("the metadata has the key `{key}` twice")));
        }
        if key == ALIGNMENT_KEY {
            let power = u64::from_gguf(value).filter(|n| n.is_power_of_two());
            alignment = power.ok_or_else(|| refused(format!("`{key}` must be a power of two")))?;
        }
        write_text(key, &mut header);
        value.write(&mut header);
    }
    let mut names = HashSet::new();
    let mut start = 0u64;
    for tensor in tensors {
        let StoredTensor { name, stored, shape } = tensor;
        if !names.insert(name) {
            return Err(refused(format!("two tensors are named `{name}`")));
        }
        let number = TYPES.iter().find(|(_, known)| known == stored).map(|(number, _)| *number);
        let number = number.ok_or_else(|| refused(format!("the format has no type {stored} (tensor `{name}`)")))?;
        if shape.len() > MAX_AXES {
            return Err(refused(format!("tensor `{name}` of shape {shape:?} has more than {MAX_AXES} axes")));
        }
        write_text(name, &mut header);
        header.extend_from_slice(&(shape.len() as u32).to_le_bytes());
        for &length in shape.iter().rev() {
            header.extend_from_slice(&(length as u64).to_le_bytes());
        }
        header.extend_from_slice(&number.to_le_bytes());
        header.extend_from_slice(&start.to_le_bytes());
        let next = tensor.bytes().and_then(|bytes| start.checked_add(bytes as u64));
        let next = next.and_then(|next| next.checked_next_multiple_of(alignment));
        start =
            next.ok_or_else(|| refused(format!("tensor `{name}` cannot have shape {shape:?} with type {stored}")))?;
    }
    write_atomically_with(path, |file| {
        let mut file = Counted::new(file);
        file.write_all(&header)?;
        pad(&mut file, alignment)?;
        for (i, tensor) in tensors.iter().enumerate() {
            let before = file.bytes();
            write(i, &mut file)?;
            let given = file.bytes() - before;
            if tensor.bytes().is_none_or(|bytes| bytes as u64 != given) {
                let StoredTensor { name, shape, .. } = tensor;
                let text = format!("{given} bytes were given for tensor `{name}` of shape {shape:?}");
                return Err(io::Error::other(text));
            }
            pad(&mut file, alignment)?;
        }
        Ok(())
    })
}

/// Zeros up to the next aligned byte.
fn pad(file: &mut Counted<'_>, alignment: u64) -> io::Result<()> {
    let zeros = file.bytes().next_multiple_of(alignment) - file.bytes();
    io::copy(&mut io::Read::take(io::repeat(0), zeros), file).map(|_| ())
}
