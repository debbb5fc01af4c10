//! One door to weights, whatever files they are in.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::FileError;
use crate::gguf::GgufFile;
use crate::ordinary::open_ordinary;
use crate::safetensors::SafeTensorsFile;
use crate::stored::{CHUNK, StoredTensor, TensorBytes, TensorFile};
use crate::torch::TorchFile;

/// Names of weights in a folder. The first that is there is read.
const NAMES: [&str; 9] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "consolidated.safetensors",
    "consolidated.safetensors.index.json",
    "consolidated.pth",
    "consolidated.00.pth",
    "final.pth",
];

/// What the names of files with weights end in.
const ENDINGS: [&str; 5] = ["safetensors", "gguf", "pt", "pth", "bin"];

/// What the names of lists of shards end in.
const INDEX: &str = ".index.json";

/// Bytes of the longest list of shards that is read.
const MAX_INDEX: u64 = 100_000_000;

/// A file of a checkpoint.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckpointFile {
    /// A safetensors file.
    SafeTensors(SafeTensorsFile),
    /// A GGUF file.
    Gguf(GgufFile),
    /// A file of `torch.save`.
    Torch(TorchFile),
}

use CheckpointFile::{Gguf, SafeTensors, Torch};

/// The weights of a model: of one file or of many, read through [`TensorFile`].
///
/// ```
/// use ironlens_files::{Checkpoint, Dtype, TensorFile, TensorInfo, write_safetensors};
///
/// let folder = tempfile::tempdir()?;
/// let tensors = [TensorInfo { name: "w".into(), dtype: Dtype::F16, shape: vec![3, 1] }];
/// let path = folder.path().join("model.safetensors");
/// write_safetensors(path, &tensors, |_, file| file.write_all(&[0, 0x3c, 0, 0x40, 0, 0x42]))?;
///
/// let weights = Checkpoint::open(folder.path())?;
/// assert_eq!(weights.tensors()[0].shape, [3, 1]);
/// assert_eq!(weights.read_f32("w")?, [1.0, 2.0, 3.0]);
/// let mut rows = [0.0; 2];
/// weights.read_rows_into("w", 1..3, &mut rows)?;
/// assert_eq!(rows, [2.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<CheckpointFile>,
    tensors: Vec<StoredTensor>,
    /// Of each tensor, its file and its place there.
    places: Vec<(usize, usize)>,
    /// Places in `tensors`.
    index: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens a file (`.safetensors`, `.gguf`, `.pt`, `.pth`, `.bin`), a list of shards (`.index.json`) with the
    /// shards beside it, or a folder. In a folder it takes the first of `model.safetensors`, `pytorch_model.bin`,
    /// `consolidated.safetensors` (or their lists of shards) and `consolidated.pth`; else the only file of weights,
    /// or the only one whose name ends in `final.pth`.
    ///
    /// Every file is opened once, and its header is read and checked.
    ///
    /// # Errors
    /// If there are no weights or it is not clear which are meant, a file cannot be read or is damaged, a list
    /// names a shard that is not beside it or a tensor that its shard does not have, or two files have a tensor
    /// of one name.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, FileError> {
        let path = path.as_ref();
        let is_dir = fs::metadata(path).map_err(FileError::io(path, "reading"))?.is_dir();
        let weights = if is_dir { find(path)? } else { path.into() };
        let mut checkpoint =
            Checkpoint { path: path.into(), files: vec![], tensors: vec![], places: vec![], index: HashMap::new() };
        match weights.to_string_lossy().ends_with(INDEX) {
            true => checkpoint.add_shards(&weights)?,
            false => checkpoint.add(&weights)?,
        }
        Ok(checkpoint)
    }

    /// Its files, for what they hold beside tensors.
    pub fn files(&self) -> &[CheckpointFile] {
        &self.files
    }

    /// The GGUF file, if it is one: its metadata says what the model is.
    pub fn gguf(&self) -> Option<&GgufFile> {
        if let [Gguf(file)] = &self.files[..] { Some(file) } else { None }
    }

    /// The file of `torch.save`, if it is a single one: it may hold other values beside the weights.
    pub fn torch(&self) -> Option<&TorchFile> {
        if let [Torch(file)] = &self.files[..] { Some(file) } else { None }
    }

    /// Adds the tensors of a file.
    fn add(&mut self, path: &Path) -> Result<(), FileError> {
        let file = CheckpointFile::open(path)?;
        for (place, tensor) in file.tensors().into_iter().enumerate() {
            if let Some(other) = self.index.insert(tensor.name.clone(), self.tensors.len()) {
                let other = self.files[self.places[other].0].path().display();
                let text = format!("it has tensor `{}`, which {other} has too", tensor.name);
                return Err(FileError::refused(path, text));
            }
            if tensor.numel().is_none() {
                let text = format!("tensor `{}` has shape {:?}, which cannot be counted", tensor.name, tensor.shape);
                return Err(FileError::refused(path, text));
            }
            self.tensors.push(tensor);
            self.places.push((self.files.len(), place));
        }
        self.files.push(file);
        Ok(())
    }

    /// Adds the tensors of all shards of a list, and checks that those which it names are there.
    fn add_shards(&mut self, index: &Path) -> Result<(), FileError> {
        let map = weight_map(index)?;
        let shards: BTreeSet<&str> = map.iter().map(|(_, shard)| &shard[..]).collect();
        let refused = |text: String| FileError::refused(index, text);
        let mut numbers = HashMap::new();
        for shard in shards {
            let mut parts = Path::new(shard).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
                || shard.contains(['/', '\\'])
            {
                return Err(refused(format!("it names the shard `{shard}`, which is not a file beside it")));
            }
            let path = index.with_file_name(shard);
            if !path.exists() {
                return Err(refused(format!("it names the shard `{shard}`, which is not there; download it too")));
            }
            numbers.insert(shard, self.files.len());
            self.add(&path)?;
        }
        for (name, shard) in &map {
            let file = self.index.get(name).map(|&at| self.places[at].0);
            if file != Some(numbers[&shard[..]]) {
                return Err(refused(format!("it says that tensor `{name}` is in `{shard}`, where it is not")));
            }
        }
        Ok(())
    }
}

/// Whether a file is what `git clone` leaves of a large one where Git LFS is not set up.
fn is_pointer(path: &Path) -> bool {
    const START: &[u8] = b"version https://git-lfs";
    let mut start = [0; START.len()];
    open_ordinary(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == *START
}

impl TensorFile for Checkpoint {
    fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }
}

impl TensorBytes for Checkpoint {
    fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn read_at(&self, position: usize, start: u64, out: &mut [u8]) -> Result<(), FileError> {
        let (file, place) = self.places[position];
        match &self.files[file] {
            SafeTensors(file) => file.read_at(place, start, out),
            Gguf(file) => file.read_at(place, start, out),
            Torch(file) => file.read_at(place, start, out),
        }
    }

    fn chunk(&self, position: usize) -> usize {
        let (file, place) = self.places[position];
        match &self.files[file] {
            Torch(file) => file.chunk(place),
            SafeTensors(_) | Gguf(_) => CHUNK,
        }
    }
}

impl CheckpointFile {
    /// Opens a file by the ending of its name.
    fn open(path: &Path) -> Result<CheckpointFile, FileError> {
        if is_pointer(path) {
            let text = "it is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`";
            return Err(FileError::refused(path, text));
        }
        match ending(path).as_deref() {
            Some("safetensors") => SafeTensorsFile::open(path).map(SafeTensors),
            Some("gguf") => {
                let file = GgufFile::open(path)?;
                // llama.cpp's own way to make shards.
                let parts = file.metadata().optional::<u64>("split.count")?.unwrap_or(1);
                match parts {
                    0 | 1 => Ok(Gguf(file)),
                    _ => {
                        let text = format!("it is one of {parts} parts; join them with `llama-gguf-split --merge`");
                        Err(FileError::refused(path, text))
                    }
                }
            }
            Some("pt" | "pth" | "bin") => TorchFile::open(path).map(Torch),
            _ => {
                let text = format!("weights are in files whose names end in one of: {}", ENDINGS.join(", "));
                Err(FileError::refused(path, text))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            SafeTensors(file) => file.path(),
            Gguf(file) => file.path(),
            Torch(file) => file.path(),
        }
    }

    fn tensors(&self) -> Vec<StoredTensor> {
        match self {
            SafeTensors(file) => file.tensors().iter().map(StoredTensor::from).collect(),
            Gguf(file) => file.tensors().to_vec(),
            Torch(file) => file.tensors().to_vec(),
        }
    }
}

/// What a file's name ends in, in small letters.
fn ending(path: &Path) -> Option<String> {
    path.extension().map(|e| e.to_string_lossy().to_lowercase())
}

/// The file of weights, or list of shards, of a folder.
fn find(folder: &Path) -> Result<PathBuf, FileError> {
    if let Some(path) = NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        if path.ends_with("consolidated.00.pth") && folder.join("consolidated.01.pth").exists() {
            let text = "its `consolidated.*.pth` hold parts of matrices, for several GPUs; take a converted checkpoint";
            return Err(FileError::refused(folder, text));
        }
        return Ok(path);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(FileError::io(folder, "reading"))? {
        let path = entry.map_err(FileError::io(folder, "reading"))?.path();
        if path.is_file() && ending(&path).is_some_and(|e| ENDINGS.contains(&&e[..])) {
            all.push(path);
        }
    }
    let last = all.iter().filter(|path| path.to_string_lossy().ends_with("final.pth"));
    match (&all[..], &last.collect::<Vec<_>>()[..]) {
        ([path], _) => Ok(path.clone()),
        (_, [path]) => Ok(path.to_path_buf()),
        ([], _) => {
            Err(FileError::refused(folder, format!("it has no weights (files ending in {})", ENDINGS.join(", "))))
        }
        _ => {
            all.sort();
            let names: Vec<_> = all.iter().filter_map(|path| path.file_name()).map(|n| n.to_string_lossy()).collect();
            Err(FileError::refused(
                folder,
                format!("it has several files of weights; name one of {}", names.join(", ")),
            ))
        }
    }
}

/// Tensors and their shards, of a list like `model.safetensors.index.json`.
fn weight_map(path: &Path) -> Result<Vec<(String, String)>, FileError> {
    let damaged = |reason: String| FileError::Damaged { path: path.into(), format: "index", reason };
    let read = || {
        let mut text = Vec::new();
        open_ordinary(path)?.take(MAX_INDEX + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(FileError::io(path, "reading"))?;
    if text.len() as u64 > MAX_INDEX {
        return Err(damaged(format!("it is longer than {MAX_INDEX} bytes")));
    }
    let json: Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| damaged("it has no `weight_map` from names of tensors to files".into()))?;
    let pairs = map.iter().map(|(name, shard)| match shard {
        Value::String(shard) => Ok((name.clone(), shard.clone())),
        _ => Err(damaged(format!("its `weight_map` has no file's name for tensor `{name}`"))),
    });
    pairs.collect()
}
