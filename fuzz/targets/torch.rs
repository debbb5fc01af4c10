//! Files of `torch.save`: read or refused, and what is listed can be read.
//!
//! The first byte says what the others are: a file, or the pickle of one of the older format and what follows it.

#![no_main]

use ironlens_files::{TensorFile, TorchFile};
use libfuzzer_sys::fuzz_target;

/// Magic number, version, and facts about the machine.
const OLDER: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
    \x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let head = if first % 2 == 0 { OLDER } else { &[] };
    std::fs::write(file.path(), [head, bytes].concat()).expect("a temporary file");
    let Ok(file) = TorchFile::open(file.path()) else { return };
    for tensor in file.tensors() {
        let read = file.read(&tensor.name).expect("its place was checked with the pickle");
        assert_eq!(Some(read.len()), tensor.bytes());
        // Its last rows are the same when they are read alone.
        let Ok(whole) = file.read_f32(&tensor.name) else { continue };
        let rows = tensor.shape.first().copied().unwrap_or(1);
        let mut last = vec![0.0; whole.len().checked_div(rows).unwrap_or(0) * (rows - rows / 2)];
        file.read_rows_into(&tensor.name, rows / 2..rows, &mut last).expect("there are such rows");
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&last), bits(&whole[whole.len() - last.len()..]));
    }
});
