//! torch's zip archives: `NAME/data.pkl`, `NAME/data/KEY` for every storage, `NAME/byteorder`.
//!
//! Entries are stored, not compressed, so that storages can be read in place. For this the list of entries is
//! enough, which is read here (numbers are of PKWARE's `APPNOTE.TXT`): it takes no more memory than the list
//! has bytes, and nothing that the file says is believed before it was compared with its length.

use std::collections::HashMap;

use super::Contents;
use crate::error::FileError;
use crate::pickle::Pickle;
use crate::source::{Input, Source};

pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// Bytes of the record at the end of an archive without comment, of the one before it that says where the
/// record for large archives is, of that record, and of what stands before an entry's name in the list and
/// at the entry.
const END: u64 = 22;
const LOCATOR: u64 = 20;
const LARGE_END: usize = 56;
const LISTED: usize = 46;
const LOCAL: usize = 30;

/// Where an entry's bytes begin and end.
type Place = (u64, u64);

pub(super) fn read(source: &Source) -> Result<Contents, FileError> {
    let entries = entries(source)?;
    let mut pickles = entries.keys().filter(|name| name.ends_with("/data.pkl") && name.matches('/').count() == 1);
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(source.damaged("it is a zip archive without a `data.pkl` in its folder, or with several"));
    };
    let folder = pickle.trim_end_matches("data.pkl");
    if entries.contains_key(&format!("{folder}constants.pkl")) {
        return Err(source.damaged("it is a program (of `torch.jit.save`); save its `state_dict()` with `torch.save`"));
    }
    if let Some(&(start, end)) = entries.get(&format!("{folder}byteorder")) {
        let mut input = source.input(start, end);
        if input.bytes(input.left().min(16))? != b"little" {
            return Err(source.damaged("it is big-endian; little-endian is read"));
        }
    }
    let (start, end) = entries[pickle];
    let Pickle { value, .. } = Pickle::read(&mut source.input(start, end))?;
    let data = format!("{folder}data/");
    let storages = entries.iter().filter_map(|(name, &(start, end))| {
        let key = name.strip_prefix(&data)?;
        Some((key.into(), (start, end - start)))
    });
    Ok(Contents { value, storages: storages.collect() })
}

/// The entries of an archive.
fn entries(source: &Source) -> Result<HashMap<String, Place>, FileError> {
    let (count, start, end) = list(source)?;
    let mut input = source.input(start, end);
    let mut entries = HashMap::new();
    for _ in 0..count {
        let (name, place) = entry(&mut input)?;
        if entries.insert(name.clone(), place).is_some() {
            return Err(source.damaged(format!("two entries are named `{name}`")));
        }
    }
    Ok(entries)
}

/// How many entries the list has, and where it begins and ends.
fn list(source: &Source) -> Result<(u64, u64, u64), FileError> {
    let cut = || source.damaged("the list at its end is missing: it was cut short, or is no zip archive of torch's");
    let at = source.length().checked_sub(END).ok_or_else(cut)?;
    let end: [u8; END as usize] = source.array(at)?;
    if !end.starts_with(b"PK\x05\x06") {
        return Err(cut());
    }
    let (mut count, mut size, mut start) = (u16_at(&end, 10).into(), u32_at(&end, 12).into(), u32_at(&end, 16).into());
    if count == u64::from(u16::MAX) || size == u64::from(u32::MAX) || start == u64::from(u32::MAX) {
        // The numbers do not fit here and are in a record of their own.
        let at = at.checked_sub(LOCATOR).ok_or_else(cut)?;
        let locator: [u8; LOCATOR as usize] = source.array(at)?;
        if !locator.starts_with(b"PK\x06\x07") {
            return Err(cut());
        }
        let large: [u8; LARGE_END] = source.array(u64_at(&locator, 8))?;
        if !large.starts_with(b"PK\x06\x06") {
            return Err(cut());
        }
        (count, size, start) = (u64_at(&large, 32), u64_at(&large, 40), u64_at(&large, 48));
    }
    let end = start.checked_add(size).filter(|&end| end <= at).ok_or_else(cut)?;
    Ok((count, start, end))
}

/// The next entry of the list: its name and place.
fn entry(input: &mut Input<'_>) -> Result<(String, Place), FileError> {
    let head: [u8; LISTED] = input.array()?;
    if !head.starts_with(b"PK\x01\x02") {
        return Err(input.source().damaged("its list of entries is broken"));
    }
    let name = input.bytes(u16_at(&head, 28).into())?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let extra = input.bytes(u16_at(&head, 30).into())?;
    input.bytes(u16_at(&head, 32).into())?;
    let source = input.source();
    let wrong = |what: &str| source.damaged(format!("entry `{name}` {what}"));

    let mut sizes = [24, 20, 42].map(|at| u64::from(u32_at(&head, at)));
    let mut large = large_sizes(&extra).chunks_exact(8);
    for size in sizes.iter_mut().filter(|size| **size == u64::from(u32::MAX)) {
        *size = u64_at(large.next().ok_or_else(|| wrong("lacks its size"))?, 0);
    }
    let [size, packed, local] = sizes;
    if u16_at(&head, 8) & 1 != 0 {
        return Err(wrong("is encrypted"));
    }
    if u16_at(&head, 10) != 0 || size != packed {
        return Err(wrong("is compressed, which torch does not do; pack the archive without compression"));
    }
    // Before its bytes an entry repeats its name, with extra bytes of its own that align it.
    let head: [u8; LOCAL] = source.array(local)?;
    if !head.starts_with(MAGIC) {
        return Err(wrong("is not where the list says"));
    }
    let start = local + LOCAL as u64 + u64::from(u16_at(&head, 26)) + u64::from(u16_at(&head, 28));
    match start.checked_add(size) {
        Some(end) if end <= source.length() => Ok((name, (start, end))),
        _ => Err(wrong("ends beyond the file")),
    }
}

/// The part of an entry's extra bytes that has sizes beyond 32 bits.
fn large_sizes(mut extra: &[u8]) -> &[u8] {
    while let [a, b, c, d, rest @ ..] = extra {
        let (kind, length) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]).into());
        let Some((part, others)) = rest.split_at_checked(length) else { break };
        if kind == 1 {
            return part;
        }
        extra = others;
    }
    &[]
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
