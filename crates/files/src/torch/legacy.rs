//! The format of torch before 1.6, which old checkpoints have: five pickles (a magic number, the version, facts
//! about the machine, what was saved, keys of storages), then every storage in the order of its key: eight
//! bytes of how many elements, then the elements (`_legacy_save` in `torch/serialization.py`).

use std::collections::HashMap;
use std::sync::Arc;

use super::Contents;
use crate::error::FileError;
use crate::pickle::{Pickle, TorchValue};
use crate::source::Source;

/// The pickle of the number 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The version that has this format.
const VERSION: i64 = 1001;

pub(super) fn read(source: &Source) -> Result<Contents, FileError> {
    let mut input = source.input(MAGIC.len() as u64, source.length());
    let version = Pickle::read(&mut input)?.value;
    if version.as_int() != Some(VERSION) {
        return Err(source.damaged(format!("its version is not {VERSION}")));
    }
    let machine = Pickle::read(&mut input)?.value;
    if machine.get("little_endian").and_then(TorchValue::as_bool) != Some(true) {
        return Err(source.damaged("it is big-endian, or does not say; little-endian is read"));
    }
    let saved = Pickle::read(&mut input)?;
    let TorchValue::List(keys) = Pickle::read(&mut input)?.value else {
        return Err(source.damaged("it has no list of storages"));
    };
    let widths: HashMap<&Arc<str>, u64> =
        saved.storages.iter().map(|storage| (&storage.key, storage.dtype.bitsize() as u64 / 8)).collect();
    let mut storages = HashMap::new();
    let mut at = input.position();
    for key in &keys {
        let known = if let TorchValue::Text(key) = key { widths.get_key_value(key) } else { None };
        let (&key, width) = known.ok_or_else(|| source.damaged("it lists a storage that no tensor is of"))?;
        let numel = u64::from_le_bytes(source.array(at)?);
        let start = at + 8;
        let end = numel.checked_mul(*width).and_then(|bytes| start.checked_add(bytes));
        let end = end.filter(|&end| end <= source.length());
        at = end.ok_or_else(|| source.damaged(format!("storage `{key}` of {numel} elements ends beyond the file")))?;
        if storages.insert(key.clone(), (start, at - start)).is_some() {
            return Err(source.damaged(format!("two storages are named `{key}`")));
        }
    }
    Ok(Contents { value: saved.value, storages })
}
