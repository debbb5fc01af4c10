//! GGUF files: those of another writer, those written here, and bad ones.

use std::fs;
use std::path::PathBuf;

use ironlens_files::{
    BlockType, Dtype, FileError, GgufArray, GgufFile, GgufValue, Stored, StoredTensor, TensorFile, write_gguf,
};

/// Of `golden/make_gguf.py`.
fn golden() -> GgufFile {
    GgufFile::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/types.gguf")).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn blocks_are_decoded_to_the_bits_of_others() {
    let file = golden();
    for kind in BlockType::ALL {
        let tensor = file.get(kind.name()).unwrap();
        assert_eq!((tensor.stored, &tensor.shape[..]), (Stored::Blocks(kind), &[3, 256][..]));
        let expected = file.read_f32(&format!("{}.expected", kind.name())).unwrap();
        assert!(expected.iter().any(|x| *x != 0.0));
        assert_eq!(bits(&file.read_f32(kind.name()).unwrap()), bits(&expected), "{}", kind.name());
        assert_eq!(file.read(kind.name()).unwrap().len(), 3 * 256 / kind.elements() * kind.bytes());
        let mut row = vec![0.0; 256];
        file.read_rows_into(kind.name(), 1..2, &mut row).unwrap();
        assert_eq!(bits(&row), bits(&expected[256..512]), "{}", kind.name());
    }
}

#[test]
fn plain_types_are_widened_and_axes_are_in_row_major_order() {
    let file = golden();
    for (name, dtype, factor) in [
        ("float32", Dtype::F32, 1.5),
        ("float16", Dtype::F16, 1.5),
        ("bfloat16", Dtype::BF16, 1.5),
        ("float64", Dtype::F64, 1.5),
        ("int8", Dtype::I8, 1.0),
        ("int16", Dtype::I16, 1.0),
        ("int32", Dtype::I32, 1.0),
        ("int64", Dtype::I64, 1.0),
    ] {
        let expected: Vec<f32> = (-6..6).map(|i| i as f32 * factor).collect();
        let tensor = file.get(name).unwrap();
        assert_eq!((tensor.stored, &tensor.shape[..]), (Stored::Plain(dtype), &[3, 4][..]));
        assert_eq!(file.read_f32(name).unwrap(), expected);
        let mut rows = [0.0; 8];
        file.read_rows_into(name, 1..3, &mut rows).unwrap();
        assert_eq!(rows, expected[4..]);
        for (range, length) in [(1..3, 7), (2..4, 8), (3..5, 8)] {
            let error = file.read_rows_into(name, range, &mut vec![0.0; length]).unwrap_err().to_string();
            assert!(error.contains("rows") && error.contains("[3, 4]"), "{error}");
        }
    }
    assert!(file.read("nix").unwrap_err().to_string().contains("no tensor `nix`"));
    assert!(file.read_into("int8", &mut [0.0; 3]).unwrap_err().to_string().contains("3 numbers"));
}

#[test]
fn metadata_is_read_by_type() {
    let file = golden();
    let metadata = file.metadata();
    assert_eq!(file.version(), 3);
    for (key, value) in [("a.u8", 255), ("a.i8", -128), ("a.u16", 65535), ("a.i16", -32768), ("a.i64", i64::MIN)] {
        assert_eq!(metadata.required::<i64>(key).unwrap(), value);
    }
    assert_eq!(metadata.required::<u64>("a.u32").unwrap(), (1 << 32) - 1);
    assert_eq!(metadata.required::<u64>("a.u64").unwrap(), u64::MAX);
    assert_eq!(metadata.required::<f64>("a.f32").unwrap(), f64::from(0.1f32));
    assert_eq!(metadata.required::<f64>("a.f64").unwrap(), 0.1);
    assert!(metadata.required::<bool>("a.bool").unwrap());
    assert_eq!(metadata.required::<&str>("a.text").unwrap(), "Grüße");
    assert_eq!(metadata.required::<&[String]>("a.texts").unwrap(), ["", "Ġthe", "<s>"]);
    assert_eq!(metadata.required::<Vec<f64>>("a.numbers").unwrap(), [-1.5, 2.5]);
    assert_eq!(metadata.required::<Vec<i64>>("a.whole").unwrap(), [-1, 2, 3]);
    assert_eq!(metadata.optional::<u64>("b").unwrap(), None);

    let says = |error: FileError, words: &[&str]| {
        let error = error.to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    says(metadata.required::<u64>("b").unwrap_err(), &["types.gguf", "lacks `b`", "whole number"]);
    says(metadata.required::<u64>("a.i8").unwrap_err(), &["`a.i8`", "not negative"]);
    says(metadata.required::<i64>("a.u64").unwrap_err(), &["`a.u64`", "below 2^63"]);
    says(metadata.optional::<i64>("a.texts").unwrap_err(), &["an array of 3 texts for `a.texts`", "a whole number"]);
    says(metadata.required::<&str>("a.f32").unwrap_err(), &["a number for `a.f32`", "a text"]);
}

#[test]
fn what_was_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let metadata: Vec<(String, GgufValue)> = vec![
        ("general.alignment".into(), GgufValue::U32(64)),
        ("scores".into(), GgufValue::Array(GgufArray::F32(vec![0.5, -1.0]))),
        ("flags".into(), GgufValue::Array(GgufArray::Bool(vec![true, false]))),
        ("words".into(), GgufValue::Array(GgufArray::String(vec!["a".into(), "".into()]))),
        ("none".into(), GgufValue::Array(GgufArray::U8(vec![]))),
        ("name".into(), GgufValue::String("x".into())),
    ];
    let tensor =
        |name: &str, stored, shape: &[usize]| StoredTensor { name: name.into(), stored, shape: shape.to_vec() };
    let tensors = [
        tensor("scalar", Stored::Plain(Dtype::F32), &[]),
        tensor("empty", Stored::Plain(Dtype::F16), &[3, 0]),
        tensor("q", Stored::Blocks(BlockType::Q8_0), &[2, 32]),
    ];
    let block: Vec<u8> = [0x00, 0x3c].into_iter().chain(0..32).collect();
    let bytes = [2f32.to_le_bytes().to_vec(), vec![], block.repeat(2)];
    write_gguf(&path, &metadata, &tensors, |i, file| file.write_all(&bytes[i])).unwrap();

    let file = GgufFile::open(&path).unwrap();
    assert_eq!((file.metadata().pairs(), file.tensors()), (&metadata[..], &tensors[..]));
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        assert_eq!(&file.read(&tensor.name).unwrap(), bytes);
    }
    assert_eq!(file.read_f32("scalar").unwrap(), [2.0]);
    let mut one = [0.0];
    file.read_rows_into("scalar", 0..1, &mut one).unwrap();
    assert_eq!(one, [2.0]);
    assert!(file.read_f32("empty").unwrap().is_empty());
    assert_eq!(file.read_f32("q").unwrap()[30..34], [30.0, 31.0, 0.0, 1.0]);

    let refused = |metadata: &[(String, GgufValue)], tensors: &[StoredTensor], word: &str| {
        let error = write_gguf(folder.path().join("no"), metadata, tensors, |_, file| file.write_all(&[0]));
        assert!(error.as_ref().unwrap_err().to_string().contains(word), "{error:?}");
    };
    refused(&[metadata[5].clone(), metadata[5].clone()], &[], "`name` twice");
    refused(&[("general.alignment".into(), GgufValue::U32(3))], &[], "power of two");
    refused(&[], &[tensors[0].clone(), tensors[0].clone()], "two tensors are named `scalar`");
    refused(&[], &tensors[..1], "1 bytes were given for tensor `scalar`");
    refused(&[], &[tensor("u", Stored::Plain(Dtype::U8), &[1])], "no type U8");
    refused(&[], &[tensor("q", Stored::Blocks(BlockType::Q4_K), &[8, 32])], "cannot have shape [8, 32]");
    refused(&[], &[tensor("d", Stored::Plain(Dtype::F32), &[1; 5])], "4 axes");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A header with one pair (if `pair` has bytes) and these tensors: name, axes (fastest first), type, start.
fn header(pair: &[u8], tensors: &[(&str, &[u64], u32, u64)]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(u64::from(!pair.is_empty()).to_le_bytes());
    out.extend(pair);
    for (name, axes, kind, start) in tensors {
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((axes.len() as u32).to_le_bytes());
        axes.iter().for_each(|n| out.extend(n.to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend(start.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out
}

/// The key `k`, and the bytes of its value.
fn pair(value: &[u8]) -> Vec<u8> {
    [&[1, 0, 0, 0, 0, 0, 0, 0, b'k'], value].concat()
}

#[test]
fn bad_headers_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("m.gguf");
    let refused = |bytes: &[u8], word: &str| {
        fs::write(&path, bytes).unwrap();
        let error = GgufFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("m.gguf") && error.contains(word), "{word}: {error}");
    };
    let with_data = |tensors: &[(&str, &[u64], u32, u64)]| [header(&[], tensors), vec![0; 96]].concat();
    fs::write(&path, with_data(&[("a", &[8], 0, 0), ("b", &[8], 0, 32)])).unwrap();
    assert_eq!(GgufFile::open(&path).unwrap().read_f32("b").unwrap(), [0.0; 8]);

    refused(b"", "4 bytes should follow");
    refused(b"PK\x03\x04", "begin with `GGUF`");
    refused(b"GGUF\x01\0\0\0", "version 1");
    refused(b"GGUF\0\0\0\x03", "big-endian");
    refused(&[&b"GGUF\x03\0\0\0"[..], &[0xff; 16]].concat(), "should follow");
    refused(&with_data(&[("a", &[8], 0, 0), ("a", &[8], 0, 32)]), "two tensors are named `a`");
    refused(&with_data(&[("a", &[9], 0, 0), ("b", &[8], 0, 32)]), "`a` and `b` share bytes");
    refused(&with_data(&[("a", &[8], 0, 4)]), "aligned");
    refused(&with_data(&[("a", &[8], 0, 96)]), "ends beyond");
    refused(&with_data(&[("a", &[8], 0, u64::MAX - 31)]), "beyond");
    refused(&with_data(&[("a", &[1 << 62], 0, 0)]), "cannot have shape");
    refused(&with_data(&[("a", &[1 << 40, 1 << 40], 0, 0)]), "cannot have shape");
    refused(&with_data(&[("a", &[16, 2], 8, 0)]), "cannot have shape");
    refused(&with_data(&[("a", &[1; 5], 0, 0)]), "5 axes");
    refused(&with_data(&[("a", &[256], 21, 0)]), "type 21 (IQ3_S); those that are read are F32, F16, Q4_0");
    refused(&with_data(&[("a", &[32], 99, 0)]), "type 99 (unknown)");
    refused(&header(&pair(&[13, 0, 0, 0]), &[]), "type 13");
    refused(&header(&pair(&[7, 0, 0, 0, 2]), &[]), "truth value is 2");
    refused(&header(&pair(&[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff]), &[]), "UTF-8");
    refused(&header(&pair(&[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80]), &[]), "should follow");
    refused(&header(&pair(&[9, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), &[]), "array of arrays");
    refused(&header(&pair(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), &[]), "should have 4294967296 elements");
    let mut twice = header(&[pair(&[0, 0, 0, 0, 1]), pair(&[0, 0, 0, 0, 2])].concat(), &[]);
    twice[16] = 2;
    refused(&twice, "key `k` twice");
}

#[test]
fn a_file_cut_or_changed_anywhere_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let whole = fs::read(golden().path()).unwrap();
    // Where the header ends: all that follows is elements.
    let last = b"IQ4_XS.expected";
    let header = whole.windows(last.len()).rposition(|w| w == last).unwrap() + last.len() + 32;
    for n in 0..header {
        fs::write(&path, &whole[..n]).unwrap();
        assert!(GgufFile::open(&path).is_err(), "{n} bytes");
        let mut changed = whole.clone();
        changed[n] ^= 1 << (n % 8);
        fs::write(&path, &changed).unwrap();
        if let Ok(file) = GgufFile::open(&path) {
            for tensor in file.tensors() {
                assert_eq!(file.read_f32(&tensor.name).unwrap().len(), tensor.numel().unwrap());
            }
        }
    }
}
