//! The one door: files by their endings, folders by what lies in them, shards by their list.

use std::fs;
use std::path::Path;

use ironlens_files::{
    Checkpoint, CheckpointFile, Dtype, GgufArray, GgufValue, Stored, StoredTensor, TensorFile, TensorInfo, TorchValue,
    write_gguf, write_safetensors,
};

/// Writes a safetensors file of tensors of shape [2] in `F32`, all with these numbers.
fn shard(path: impl AsRef<Path>, names: &[&str], numbers: [f32; 2]) {
    let info = |name: &&str| TensorInfo { name: name.to_string(), dtype: Dtype::F32, shape: vec![2] };
    let tensors: Vec<TensorInfo> = names.iter().map(info).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    write_safetensors(path, &tensors, |_, file| file.write_all(&bytes)).unwrap();
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn error(path: impl AsRef<Path>, words: &str) {
    let error = Checkpoint::open(path).unwrap_err().to_string();
    assert!(error.contains(words), "{words}: {error}");
}

#[test]
fn files_are_opened_by_their_endings() {
    let folder = tempfile::tempdir().unwrap();
    shard(folder.path().join("W.SafeTensors"), &["w"], [1.0, -2.0]);
    let file = Checkpoint::open(folder.path().join("W.SafeTensors")).unwrap();
    assert_eq!(file.read_f32("w").unwrap(), [1.0, -2.0]);
    assert_eq!(file.read("w").unwrap().len(), 8);
    assert!(matches!(file.files(), [CheckpointFile::SafeTensors(_)]));
    assert!(file.gguf().is_none() && file.torch().is_none());

    let file = Checkpoint::open(golden("types.gguf")).unwrap();
    assert_eq!(file.gguf().unwrap().metadata().required::<&str>("general.architecture").unwrap(), "test");
    let (mut rows, all) = ([0.0; 512], file.read_f32("Q4_K").unwrap());
    file.read_rows_into("Q4_K", 1..3, &mut rows).unwrap();
    assert_eq!(rows, all[256..]);

    let file = Checkpoint::open(golden("nested.pt")).unwrap();
    let sizes = file.torch().unwrap().value().get("model_args").unwrap();
    assert_eq!(sizes.get("n_layer").and_then(TorchValue::as_int), Some(2));
    let mut rows = [0.0; 6];
    file.read_rows_into("transposed", 3..4, &mut rows).unwrap();
    assert_eq!(rows, [3.0, 7.0, 11.0, 15.0, 19.0, 23.0]);
    assert!(file.read("nix").unwrap_err().to_string().contains("no tensor `nix`"));

    error(golden("make_torch.py"), "end in one of: safetensors, gguf, pt, pth, bin");
    error(folder.path().join("nix.gguf"), "nix.gguf: reading failed");
}

#[test]
fn large_tensors_are_read_in_chunks_from_any_row() {
    // 3 rows of 70,000 numbers: more than a chunk, and no multiple of it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let tensor = [TensorInfo { name: "w".into(), dtype: Dtype::F32, shape: vec![3, 70_000] }];
    let numbers: Vec<f32> = (0..210_000).map(|i| i as f32).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    write_safetensors(&path, &tensor, |_, file| file.write_all(&bytes)).unwrap();
    let file = Checkpoint::open(&path).unwrap();
    assert_eq!(file.read_f32("w").unwrap(), numbers);
    for rows in [0..1, 1..3, 2..2, 0..3] {
        let mut out = vec![0.0; rows.len() * 70_000];
        file.read_rows_into("w", rows.clone(), &mut out).unwrap();
        assert_eq!(out, numbers[rows.start * 70_000..rows.end * 70_000]);
    }
    // Quantised, and not from the beginning of a block: numbers 0 to 31 over and over.
    let path = folder.path().join("w.gguf");
    let tensor = [StoredTensor {
        name: "q".into(),
        stored: Stored::Blocks(ironlens_files::BlockType::Q8_0),
        shape: vec![320_000],
    }];
    let block: Vec<u8> = [0x00, 0x3c].into_iter().chain(0..32).collect();
    write_gguf(&path, &[], &tensor, |_, file| file.write_all(&block.repeat(10_000))).unwrap();
    let mut out = vec![0.0; 300_007];
    Checkpoint::open(&path).unwrap().read_rows_into("q", 11..300_018, &mut out).unwrap();
    assert!(out.iter().enumerate().all(|(i, x)| *x == ((i + 11) % 32) as f32));
}

#[test]
fn a_folder_s_weights_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    error(folder.path(), "it has no weights");
    fs::write(at("config.json"), "{}").unwrap();
    shard(at("other.safetensors"), &["other"], [0.0; 2]);
    assert!(Checkpoint::open(folder.path()).unwrap().get("other").is_some());
    shard(at("another.safetensors"), &["another"], [0.0; 2]);
    error(folder.path(), "name one of another.safetensors, other.safetensors");
    // Each of these comes before those above.
    fs::copy(golden("legacy.pth"), at("solu_final.pth")).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap().get("whole").is_some());
    shard(at("consolidated.safetensors"), &["consolidated"], [0.0; 2]);
    assert!(Checkpoint::open(folder.path()).unwrap().get("consolidated").is_some());
    fs::copy(golden("plain.pt"), at("shard.bin")).unwrap();
    fs::write(at("pytorch_model.bin.index.json"), r#"{"weight_map": {"whole": "shard.bin"}}"#).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap().get("types.uint16").is_some());
    fs::copy(golden("nested.pt"), at("pytorch_model.bin")).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap().torch().unwrap().value().get("model_args").is_some());
    shard(at("model.safetensors"), &["model"], [0.0; 2]);
    assert!(Checkpoint::open(folder.path()).unwrap().get("model").is_some());

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::copy(golden("plain.pt"), at("consolidated.00.pth")).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap().get("whole").is_some());
    fs::write(at("consolidated.01.pth"), "").unwrap();
    error(folder.path(), "parts of matrices");
    shard(at("model.safetensors"), &["model"], [0.0; 2]);
    assert!(Checkpoint::open(folder.path()).unwrap().get("model").is_some());
}

#[test]
fn shards_are_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let index = |text: &str| fs::write(at("model.safetensors.index.json"), text).unwrap();
    shard(at("1.safetensors"), &["a", "b"], [1.0, 2.0]);
    shard(at("2.safetensors"), &["c"], [3.0, 4.0]);
    index(r#"{"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#);
    for path in [folder.path(), &at("model.safetensors.index.json")] {
        let weights = Checkpoint::open(path).unwrap();
        assert_eq!(weights.files().len(), 2);
        assert_eq!(weights.tensors().iter().map(|t| &t.name[..]).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(weights.read_f32("b").unwrap(), [1.0, 2.0]);
        assert_eq!(weights.read_f32("c").unwrap(), [3.0, 4.0]);
    }
    index(r#"{"weight_map": {"a": "1.safetensors", "d": "2.safetensors"}}"#);
    error(folder.path(), "says that tensor `d` is in `2.safetensors`, where it is not");
    index(r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#);
    error(folder.path(), "says that tensor `b` is in `2.safetensors`, where it is not");
    index(r#"{"weight_map": {"a": "1.safetensors", "c": "3.safetensors"}}"#);
    error(folder.path(), "names the shard `3.safetensors`, which is not there");
    for path in
        ["../1.safetensors", "/etc/passwd", "..", ".", "", "x/1.safetensors", "./1.safetensors", r"x\\1.safetensors"]
    {
        index(&format!(r#"{{"weight_map": {{"a": "{path}"}}}}"#));
        error(folder.path(), "which is not a file beside it");
    }
    shard(at("3.safetensors"), &["b"], [0.0; 2]);
    index(r#"{"weight_map": {"a": "1.safetensors", "b": "3.safetensors"}}"#);
    error(folder.path(), "3.safetensors: it has tensor `b`, which");
    for (text, words) in [("", "EOF"), ("[]", "no `weight_map`"), (r#"{"weight_map": {"a": 1}}"#, "for tensor `a`")] {
        index(text);
        error(folder.path(), words);
    }
}

#[test]
fn a_part_of_a_gguf_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m-00001-of-00003.gguf");
    write_gguf(&path, &[("split.count".into(), GgufValue::U16(3))], &[], |_, _| Ok(())).unwrap();
    error(&path, "one of 3 parts");
    write_gguf(&path, &[("split.count".into(), GgufValue::Array(GgufArray::U8(vec![])))], &[], |_, _| Ok(())).unwrap();
    error(&path, "an array of 0 whole numbers for `split.count`");
}

#[test]
fn shapes_that_cannot_be_counted_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[0,{0},{0}],"data_offsets":[0,0]}}}}"#, 1u64 << 40);
    fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    error(&path, "cannot be counted");
}

#[test]
fn pointers_of_git_lfs_are_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "model.gguf", "pytorch_model.bin"] {
        let path = folder.path().join(name);
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n").unwrap();
        let text = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(text.contains("git lfs pull"), "{text}");
    }
}
