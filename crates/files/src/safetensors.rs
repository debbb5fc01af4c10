//! The safetensors format: a header of names, types, shapes and places in JSON, then the bytes.
//!
//! Tensors are read by position, one at a time, rather than through a memory map: a file that
//! somebody cuts short meanwhile is an error here, and would be a bus error there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

pub use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo as Place};

use crate::atomic::write_atomically_with;
use crate::counted::Counted;
use crate::error::FileError;
use crate::source::Source;

/// Longest header: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Length of every axis; elements are in row-major order.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Its size in the file; `None` if that is beyond what can be counted.
    pub fn bytes(&self) -> Option<usize> {
        let numel = self.shape.iter().copied().try_fold(1usize, usize::checked_mul)?;
        numel.checked_mul(self.dtype.bitsize()).map(|bits| bits / 8)
    }
}

/// A safetensors file whose header was read; tensors are read when asked for.
#[derive(Debug)]
pub struct SafeTensorsFile {
    source: Source,
    tensors: Vec<TensorInfo>,
    /// Where each tensor's bytes begin.
    starts: Vec<u64>,
    /// Places in `tensors`.
    index: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

impl SafeTensorsFile {
    /// Opens a file and checks its header, against its length too.
    ///
    /// # Errors
    /// If the file cannot be read, is no safetensors file, or is cut short.
    pub fn open(path: impl AsRef<Path>) -> Result<SafeTensorsFile, FileError> {
        let path = path.as_ref();
        let source = Source::open(path, "safetensors")?;
        let length = source.length();
        if length < 8 {
            return Err(FileError::format(path, format!("it has {length} bytes, fewer than any header")));
        }
        let mut size = [0; 8];
        source.read_at(0, &mut size)?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER.min(length - 8) {
            let reason = format!("its header should have {size} bytes, the file has {length}");
            return Err(FileError::format(path, reason));
        }
        let mut header = vec![0; size as usize];
        source.read_at(8, &mut header)?;
        let Header { tensors, starts, metadata } =
            parse(&header, length - 8 - size).map_err(|reason| FileError::format(path, reason))?;
        Ok(SafeTensorsFile {
            source,
            index: tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect(),
            tensors,
            starts: starts.into_iter().map(|s| 8 + size + s).collect(),
            metadata,
        })
    }

    /// The file's path, as it was given.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// What the writer said of the file, by keys such as `format`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// The bytes of the tensor of this name: its elements in row-major order, little-endian.
    ///
    /// # Errors
    /// If there is none, or the file cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, FileError> {
        let missing = || FileError::format(self.path(), format!("it has no tensor `{name}`"));
        let at = *self.index.get(name).ok_or_else(missing)?;
        let mut bytes = vec![0; self.tensors[at].bytes().expect("sizes were checked with the header")];
        self.read_at(at, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `out` with the bytes of a tensor, given by its place in [`tensors`](SafeTensorsFile::tensors), from
    /// its byte `start` on.
    pub(crate) fn read_at(&self, position: usize, start: u64, out: &mut [u8]) -> Result<(), FileError> {
        self.source.read_at(self.starts[position] + start, out)
    }
}

/// What a header says.
struct Header {
    tensors: Vec<TensorInfo>,
    /// Where each tensor's bytes begin after the header.
    starts: Vec<u64>,
    metadata: BTreeMap<String, String>,
}

/// Reads a header that is followed by `length` bytes.
fn parse(header: &[u8], length: u64) -> Result<Header, String> {
    // Checks that the places lie side by side and are as long as type and shape say.
    let header: Metadata = serde_json::from_slice(header).map_err(|e| format!("its header is not one ({e})"))?;
    if header.data_len() as u64 != length {
        return Err(format!("its tensors have {} bytes, of which the file holds {length}", header.data_len()));
    }
    let mut all: Vec<(String, &Place)> = header.tensors().into_iter().collect();
    // By name too: tensors without elements share their places.
    all.sort_by(|(a, x), (b, y)| x.data_offsets.cmp(&y.data_offsets).then_with(|| a.cmp(b)));
    let starts = all.iter().map(|(_, place)| place.data_offsets.0 as u64).collect();
    let info = |(name, place): (String, &Place)| TensorInfo { name, dtype: place.dtype, shape: place.shape.clone() };
    let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Header { tensors: all.into_iter().map(info).collect(), starts, metadata })
}

/// Writes a safetensors file whole or not at all (see [`write_atomically_with`]). `write` is called once
/// for each tensor, in the order of the file, with its index in `tensors`, and writes its bytes:
/// elements in row-major order, little-endian. Nothing but a buffer is held in memory.
///
/// # Errors
/// If the file cannot be written, two tensors have one name, or `write` fails or writes another number
/// of bytes than type and shape say.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[TensorInfo],
    mut write: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    // As every writer of the format: wide types first, so that each begins at a multiple of its size.
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&tensors[*a], &tensors[*b]);
        b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name))
    });
    let mut places = Vec::with_capacity(tensors.len());
    let mut names = HashSet::new();
    let mut end = 0usize;
    for &i in &order {
        let TensorInfo { name, dtype, shape } = &tensors[i];
        let start = end;
        let too_large = || FileError::format(path, format!("tensor `{name}` of shape {shape:?} is too large"));
        end = tensors[i].bytes().and_then(|bytes| end.checked_add(bytes)).ok_or_else(too_large)?;
        if !names.insert(name) {
            return Err(FileError::format(path, format!("two tensors are named `{name}`")));
        }
        places.push((name.clone(), Place { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) }));
    }
    let header = Metadata::new(None, places).map_err(|e| FileError::format(path, e))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| FileError::format(path, e))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomically_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for &i in &order {
            let mut counted = Counted::new(&mut *file);
            write(i, &mut counted)?;
            if tensors[i].bytes().is_none_or(|bytes| bytes as u64 != counted.bytes()) {
                let TensorInfo { name, shape, .. } = &tensors[i];
                let text = format!("{} bytes were given for tensor `{name}` of shape {shape:?}", counted.bytes());
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn info(name: &str, dtype: Dtype, shape: &[usize]) -> TensorInfo {
        TensorInfo { name: name.into(), dtype, shape: shape.to_vec() }
    }

    /// Three tensors whose bytes are 1, 2 and 3.
    fn example(path: &Path) -> [TensorInfo; 3] {
        let all = [info("b", Dtype::F32, &[2, 1]), info("mask", Dtype::BOOL, &[3]), info("a", Dtype::F64, &[])];
        write_safetensors(path, &all, |i, file| file.write_all(&vec![i as u8 + 1; all[i].bytes().unwrap()])).unwrap();
        all
    }

    #[test]
    fn what_was_written_is_read_and_is_the_format_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let all = example(&path);
        let file = SafeTensorsFile::open(&path).unwrap();
        assert_eq!(file.tensors(), [all[2].clone(), all[0].clone(), all[1].clone()]);
        for (i, t) in all.iter().enumerate() {
            assert_eq!(file.read(&t.name).unwrap(), vec![i as u8 + 1; t.bytes().unwrap()], "{}", t.name);
        }
        let bytes = fs::read(&path).unwrap();
        let other = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(other.tensor("b").unwrap().data(), [1; 8]);
        let views: Vec<(String, _)> = other.tensors();
        assert_eq!(safetensors::serialize(views.clone(), None).unwrap(), bytes);
        assert!(file.metadata().is_empty());
        let metadata = HashMap::from([("format".into(), "pt".into())]);
        fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
        assert_eq!(SafeTensorsFile::open(&path).unwrap().metadata()["format"], "pt");
    }

    #[test]
    fn a_file_cut_anywhere_or_with_bytes_too_many_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        example(&path);
        let whole = fs::read(&path).unwrap();
        let longer = [&whole[..], b"x"].concat();
        for bytes in (0..whole.len()).map(|n| &whole[..n]).chain([&longer[..]]) {
            fs::write(&path, bytes).unwrap();
            let error = SafeTensorsFile::open(&path).unwrap_err();
            assert!(matches!(error, FileError::Format { .. }), "{} bytes: {error}", bytes.len());
        }
        // A length that would take all memory.
        fs::write(&path, [0xff; 64]).unwrap();
        assert!(SafeTensorsFile::open(&path).unwrap_err().to_string().contains("header"));
        assert!(SafeTensorsFile::open(folder.path()).unwrap_err().to_string().contains("not an ordinary file"));
    }

    #[test]
    fn bytes_that_do_not_fit_and_names_twice_write_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let one = [info("w", Dtype::F32, &[2])];
        let error = write_safetensors(&path, &one, |_, file| file.write_all(&[0; 7])).unwrap_err().to_string();
        assert!(error.contains("7 bytes") && error.contains("`w`"), "{error}");
        let two = [info("w", Dtype::F32, &[2]), info("v", Dtype::F32, &[2]), info("w", Dtype::F64, &[1])];
        let error = write_safetensors(&path, &two, |_, file| file.write_all(&[0; 8])).unwrap_err().to_string();
        assert!(error.contains("two tensors are named `w`"), "{error}");
        let huge = [info("w", Dtype::F32, &[usize::MAX, 2])];
        assert!(write_safetensors(&path, &huge, |_, _| Ok(())).unwrap_err().to_string().contains("too large"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
