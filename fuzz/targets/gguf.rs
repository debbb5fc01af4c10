//! GGUF files: read or refused, and what is listed can be read; what was read is written to the same.

#![no_main]

use ironlens_files::{GgufFile, TensorFile, write_gguf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, bytes).expect("a temporary file");
    let Ok(file) = GgufFile::open(&path) else { return };
    for tensor in file.tensors() {
        let numbers = file.read_f32(&tensor.name).expect("its place was checked with the header");
        assert_eq!(Some(numbers.len()), tensor.numel());
    }
    let again = folder.path().join("again.gguf");
    let read = |i: usize| file.read(&file.tensors()[i].name).expect("it was read before");
    write_gguf(&again, file.metadata().pairs(), file.tensors(), |i, out| out.write_all(&read(i)))
        .expect("it was a file");
    let again = GgufFile::open(again).expect("it was written here");
    assert_eq!(again.tensors(), file.tensors());
    for (i, tensor) in file.tensors().iter().enumerate() {
        assert_eq!(again.read(&tensor.name).expect("it was written here"), read(i));
    }
});
