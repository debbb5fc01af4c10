//! Files of `torch.save`: those of torch, and bad ones.

use std::fs;
use std::path::Path;

use ironlens_files::{Dtype, Stored, TensorFile, TorchFile, TorchValue};

/// Of `golden/make_torch.py`.
fn golden(name: &str) -> TorchFile {
    TorchFile::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

const TYPES: [(&str, Dtype); 10] = [
    ("types.float32", Dtype::F32),
    ("types.float16", Dtype::F16),
    ("types.bfloat16", Dtype::BF16),
    ("types.float64", Dtype::F64),
    ("types.int64", Dtype::I64),
    ("types.int32", Dtype::I32),
    ("types.int16", Dtype::I16),
    ("types.int8", Dtype::I8),
    ("types.uint8", Dtype::U8),
    ("types.bool", Dtype::BOOL),
];

#[test]
fn every_type_and_view_of_either_format_is_read() {
    for name in ["plain.pt", "nested.pt", "legacy.pth"] {
        let file = golden(name);
        for (name, dtype) in TYPES {
            let tensor = file.get(name).unwrap();
            assert_eq!((tensor.stored, &tensor.shape[..]), (Stored::Plain(dtype), &[3, 4][..]));
            let expected = (0..12).map(|i| if dtype == Dtype::BOOL { i % 2 } else { i } as f32);
            assert_eq!(file.read_f32(name).unwrap(), expected.collect::<Vec<_>>(), "{name}");
        }
        let whole: Vec<f32> = (0..24).map(|i| i as f32).collect();
        assert_eq!(file.read_f32("whole").unwrap(), whole);
        assert_eq!(file.read_f32("part").unwrap(), whole[12..]);
        assert_eq!(file.read_f32("column").unwrap(), [2.0, 6.0, 10.0, 14.0, 18.0, 22.0]);
        assert_eq!(file.get("transposed").unwrap().shape, [4, 2, 3]);
        let transposed: Vec<f32> = (0..24).map(|i| (i / 6 + 4 * (i % 6)) as f32).collect();
        assert_eq!(file.read_f32("transposed").unwrap(), transposed);
        let mut rows = [0.0; 12];
        file.read_rows_into("transposed", 1..3, &mut rows).unwrap();
        assert_eq!(rows, transposed[6..18]);
        assert_eq!(file.read_f32("scalar").unwrap(), [1.5]);
        assert!(file.read_f32("empty").unwrap().is_empty());
        assert_eq!(file.read_f32("ones").unwrap(), [1.0; 5]);
        assert_eq!(file.read_f32("parameter").unwrap(), [1.0, 2.0]);
    }
    let file = golden("plain.pt");
    assert_eq!(file.get("types.uint16").unwrap().stored, Stored::Plain(Dtype::U16));
    assert_eq!(file.read("types.uint16").unwrap()[..6], [0, 0, 1, 0, 2, 0]);
    assert_eq!(file.read("types.float8_e4m3fn").unwrap()[..3], [0, 0x38, 0x40]);
    let error = file.read_f32("types.float8_e4m3fn").unwrap_err().to_string();
    assert!(error.contains("`types.float8_e4m3fn` of type F8_E4M3 cannot be read as f32"), "{error}");
}

#[test]
fn what_lies_beside_the_weights_is_a_value() {
    let file = golden("nested.pt");
    let value = |key: &str| file.value().get(key).unwrap();
    assert_eq!(value("model_args").get("n_layer").unwrap().as_int(), Some(2));
    assert_eq!(value("model_args").get("bias").unwrap().as_bool(), Some(false));
    assert_eq!(value("model_args").get("dropout").unwrap().as_float(), Some(0.0));
    assert_eq!(value("model_args").get("name").unwrap().as_text(), Some("größe"));
    assert_eq!(value("iter_num").as_int(), Some(-7));
    assert_eq!(*value("large"), TorchValue::Int(1 << 70));
    assert_eq!(value("large").as_int(), None);
    assert_eq!(value("dtype").as_text(), Some("torch.bfloat16"));
    assert_eq!(value("device").as_text(), Some("cuda:1"));
    assert_eq!(*value("size"), TorchValue::List(vec![TorchValue::Int(2), TorchValue::Int(3)]));
    assert_eq!(*value("nothing"), TorchValue::None);
    let TorchValue::Tensor(loss) = value("best_val_loss") else { panic!("a tensor") };
    assert_eq!((loss.dtype(), loss.shape()), (Dtype::F32, &[][..]));
    assert_eq!(file.read_tensor(loss).unwrap(), 1.25f32.to_le_bytes());
    let TorchValue::Tensor(state) = value("rng_state") else { panic!("a tensor") };
    assert_eq!(file.read_tensor(state).unwrap(), [0, 1, 2]);
    assert!(file.state_dict().get("whole").is_some());
    assert!(file.get("optimizer.state.0.exp_avg").is_none());
    assert_eq!(golden("legacy.pth").value().get("none"), Some(&TorchValue::Bytes([].into())));
    for name in ["nested.pt", "legacy.pth"] {
        let file = golden(name);
        assert_eq!(file.value().get("bytes"), Some(&TorchValue::Bytes([0, 0xff].into())));
        assert_eq!(file.value().get("set"), Some(&TorchValue::List(vec![TorchValue::Int(5)])));
    }
}

/// A zip archive of stored entries.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    archive(entries, false)
}

/// A zip archive of stored entries, with sizes and places as those beyond 32 bits are written if it is `large`.
fn archive(entries: &[(&str, &[u8])], large: bool) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    // Version, flags, method, time, checksum, sizes, lengths of name and extra bytes.
    let numbers = |out: &mut Vec<u8>, (name, bytes): &(&str, &[u8]), extra: u8| {
        out.extend([0; 14]);
        let size = if extra > 0 { u32::MAX } else { bytes.len() as u32 };
        out.extend(size.to_le_bytes().repeat(2));
        out.extend([name.len() as u8, 0, extra, 0]);
    };
    for entry in entries {
        let (name, bytes) = entry;
        let start = out.len();
        out.extend(b"PK\x03\x04");
        numbers(&mut out, entry, 0);
        out.extend(name.as_bytes());
        out.extend(*bytes);
        list.extend(b"PK\x01\x02\0\0");
        numbers(&mut list, entry, if large { 5 + 28 } else { 0 });
        list.extend([0; 10]);
        list.extend(if large { u32::MAX } else { start as u32 }.to_le_bytes());
        list.extend(name.as_bytes());
        if large {
            // Other extra bytes, then both sizes and the place.
            list.extend(b"UT\x01\0x\x01\0\x18\0");
            [bytes.len(), bytes.len(), start].iter().for_each(|n| list.extend((*n as u64).to_le_bytes()));
        }
    }
    let start = out.len();
    out.extend(&list);
    if large {
        let end = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend([0; 20]);
        [entries.len(), entries.len(), list.len(), start].iter().for_each(|n| out.extend((*n as u64).to_le_bytes()));
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(end.to_le_bytes());
        out.extend([1, 0, 0, 0]);
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(if large { u16::MAX } else { entries.len() as u16 }.to_le_bytes().repeat(2));
    out.extend(if large { u32::MAX } else { list.len() as u32 }.to_le_bytes());
    out.extend(if large { u32::MAX } else { start as u32 }.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// The error of a file of these bytes.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pt");
    fs::write(&path, bytes).unwrap();
    let error = TorchFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("w.pt"), "{error}");
    error
}

/// The error of a file with this pickle, and a storage `0` of 16 bytes.
fn refused(pickle: &[u8], words: &str) {
    let error = refusal(&zip(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])]));
    assert!(error.contains(words), "{words}: {error}");
}

/// A pickle of a tensor of storage `0` with `numel` numbers; offset, shape and strides are opcodes.
fn tensor(numel: u8, view: &[u8]) -> Vec<u8> {
    let start = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK";
    [start, &[numel][..], b"tQ", view, b"\x89)tR."].concat()
}

#[test]
fn nothing_but_tensors_and_containers_is_run() {
    refused(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", "the file wants to run `os.system`; only tensors");
    refused(b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "`posix.system`");
    refused(b"\x80\x02ctorch\nload\n.", "`torch.load`");
    refused(b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "`torch.storage._load_from_bytes`");
    refused(b"\x80\x02cargparse\nNamespace\n)\x81.", "`argparse.Namespace`");
    refused(b"\x80\x02cbuiltins\neval\n.", "`builtins.eval`");
    refused(b"\x80\x02ctorch.nn\nFloatStorage\n.", "`torch.nn.FloatStorage`");
    // Names that are allowed do only what they are for.
    refused(b"\x80\x02ctorch\nFloatStorage\n)R.", "a type is called");
    refused(b"\x80\x02K\x01)R.", "no function");
    refused(b"\x80\x02]}b.", "attributes to something other");
    refused(b"\x80\x02ccollections\nOrderedDict\n.", "holds a type or function");
    refused(b"\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.", "list or tuple");
    refused(b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0utf-8\x86R.", "latin-1");
    refused(b"\x80\x02ctorch._utils\n_rebuild_parameter\n(NNNtR.", "no tensor");
    refused(b"\x80\x02X\x01\0\0\0aQ.", "list or tuple");
    refused(b"\x80\x02(NNNNNtQ.", "something other than a storage");
}

#[test]
fn bad_pickles_are_refused_with_a_reason() {
    refused(b"\x80\x02", "1 bytes should follow");
    refused(b"\x80\x01.", "protocol 1");
    refused(b"\x80\x02.", "more values than there are");
    refused(b"\x80\x02N(0.", "more values than there are");
    refused(b"\x80\x02Nt.", "a mark where there is none");
    refused(b"\x80\x02h\x01.", "remembered nothing as 1");
    refused(b"\x80\x02I5\n.", "opcode 0x49");
    refused(b"\x80\x02X\xff\xff\xff\xffa.", "4294967295 bytes should follow");
    refused(b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\xffa.", "should follow");
    refused(b"\x80\x02X\x01\0\0\0\xff.", "not UTF-8");
    refused(&[b"\x80\x02\x8a\x11".as_slice(), &[0; 17], b"."].concat(), "17 bytes; 16");
    refused(b"\x80\x02}K\x01a.", "other than a list");
    refused(b"\x80\x02](K\x01K\x02u.", "other than a dictionary");
    refused(b"\x80\x02}(K\x01u.", "key without value");
    refused(&[b"\x80\x02c".as_slice(), &[b'a'; 2000], b"\n\n."].concat(), "has no end");
    refused(&[[b']'; 100], [b'a'; 100]].concat(), "more values");
    refused(&[&[b']'; 100][..], &[b'a'; 99], b"."].concat(), "deeper than 64, or hold themselves");
    let itself = [b"\x80\x02]q\x00h\x00a\x8c\x64".as_slice(), &[b'x'; 100], b"0."].concat();
    refused(&itself, "hold themselves");
    refused(&[b"\x80\x02".as_slice(), &b"N0".repeat(1 << 20), b"N."].concat(), "more than 2097152 opcodes");
    // 2^40 values of 160 bytes: each list holds the one before twice.
    let mut doubling = b"\x80\x02]q\x00".to_vec();
    (0..40u8).for_each(|i| doubling.extend([b']', b'q', i + 1, b'h', i, b'a', b'h', i, b'a']));
    doubling.push(b'.');
    refused(&doubling, "over and over");
    // A text that is made bytes again and again.
    let text =
        [b"\x80\x02(c_codecs\nencode\nq\x00X\0\x10\0\0".as_slice(), &[b'a'; 4096], b"q\x01X\x06\0\0\0latin1\x86q\x02"]
            .concat();
    refused(&[&text[..], &b"h\x00h\x02R".repeat(100), b"t."].concat(), "copies values over and over");
}

#[test]
fn tensors_lie_in_their_storages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pt");
    let numbers: Vec<u8> = (0..4u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    for large in [false, true] {
        let pickle = tensor(4, b"K\x01K\x02\x85K\x02\x85");
        fs::write(&path, archive(&[("a/data.pkl", &pickle), ("a/data/0", &numbers)], large)).unwrap();
        assert_eq!(TorchFile::open(&path).unwrap().read_f32("").unwrap(), [1.0, 3.0]);
    }

    refused(&tensor(4, b"K\x01K\x04\x85K\x01\x85"), "is not in storage `0` of 4 elements");
    refused(&tensor(4, b"K\x05K\x00\x85K\x01\x85"), "is not in storage");
    refused(&tensor(4, b"K\x00K\x05\x85K\x00\x85"), "repeats some");
    refused(&tensor(4, b"K\x00K\x01\x85K\x01K\x01\x86"), "strides [1, 1]");
    refused(&tensor(4, b"J\xff\xff\xff\xffK\x01\x85K\x01\x85"), "has -1 for a length");
    refused(&tensor(4, b"NK\x01\x85K\x01\x85"), "something other than a whole number");
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    refused(&tensor(4, &[b"K\x00", &huge[..], b"K\x02\x86K\x01K\x01\x86"].concat()), "is not in storage");
    refused(
        &tensor(4, &[b"K\x00K\x00", &huge[..], &huge[..], b"\x87K\x01K\x01K\x01\x87"].concat()),
        "is not in storage",
    );
    refused(&tensor(4, &[b"K\x00K\x02\x85", &huge[..], b"\x85"].concat()), "is not in storage");
    refused(&tensor(5, b"K\x00K\x01\x85K\x01\x85"), "should have 5 elements, it has 16 bytes");
    let axes = [b"K\x00(".as_slice(), &b"K\x01".repeat(65), b"t)"].concat();
    refused(&tensor(4, &axes), "65 axes");
    let missing = refusal(&zip(&[("a/data.pkl", &tensor(4, b"K\x00))"))]));
    assert!(missing.contains("storage `0` of a tensor is not in it"), "{missing}");
}

#[test]
fn bad_archives_are_refused_with_a_reason() {
    let whole = zip(&[("a/data.pkl", b"\x80\x02}."), ("a/byteorder", b"little")]);
    let says = |bytes: &[u8], words: &str| {
        let error = refusal(bytes);
        assert!(error.contains(words), "{words}: {error}");
    };
    let list = whole.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let changed = |at: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[at] = to;
        bytes
    };
    says(b"", "neither as a zip archive");
    says(&[&[0; 257][..], b"ustar", &[0; 300]].concat(), "tar archive");
    says(&whole[..whole.len() - 1], "cut short");
    says(&changed(list + 8, 1), "entry `a/data.pkl` is encrypted");
    says(&changed(list + 10, 8), "entry `a/data.pkl` is compressed");
    says(&changed(list + 20, 1), "compressed");
    says(&changed(list, b'X'), "list of entries is broken");
    says(&changed(list + 42, 1), "not where the list says");
    says(&changed(list + 45, 1), "should follow");
    says(&changed(whole.len() - 12, 3), "should follow");
    says(&zip(&[("a/data.pkl", b"."), ("a/data.pkl", b".")]), "two entries are named `a/data.pkl`");
    says(&zip(&[("a/data.pkl", b"."), ("b/data.pkl", b".")]), "or with several");
    says(&zip(&[("data.pkl", b".")]), "without a `data.pkl`");
    says(&zip(&[("a/data.pkl", b"."), ("a/constants.pkl", b".")]), "torch.jit.save");
    says(&zip(&[("a/data.pkl", b"."), ("a/byteorder", b"big")]), "big-endian");

    let large = archive(&[("a/data.pkl", b"\x80\x02}.")], true);
    let at = |magic: &[u8]| large.windows(4).position(|w| w == magic).unwrap();
    for (place, words) in [
        (at(b"PK\x06\x07"), "cut short"),
        (at(b"PK\x06\x06"), "cut short"),
        (at(b"PK\x06\x07") + 15, "should follow"),
        (at(b"PK\x06\x06") + 39, "should follow"),
        (at(b"PK\x06\x06") + 55, "cut short"),
        (at(b"PK\x01\x02") + 46 + 10 + 5, "lacks its size"),
        (at(b"PK\x01\x02") + 46 + 10 + 5 + 4 + 23, "should follow"),
    ] {
        let mut bytes = large.clone();
        bytes[place] ^= 0x80;
        says(&bytes, words);
    }
}

#[test]
fn bad_files_of_the_older_format_are_refused_with_a_reason() {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let version = b"\x80\x02M\xe9\x03.";
    let machine = b"\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    let saved = tensor(4, b"K\x00K\x04\x85K\x01\x85");
    let keys = b"\x80\x02]X\x01\0\0\x000a.";
    let says = |parts: &[&[u8]], words: &str| {
        let error = refusal(&parts.concat());
        assert!(error.contains(words), "{words}: {error}");
    };
    says(&[magic, b"\x80\x02M\xea\x03."], "not 1001");
    says(&[magic, version, b"\x80\x02}X\x0d\0\0\0little_endian\x89s."], "big-endian");
    says(&[magic, version, machine, b"\x80\x02cos\nsystem\n."], "`os.system`");
    says(&[magic, version, machine, &saved, b"\x80\x02N."], "no list of storages");
    says(&[magic, version, machine, &saved, b"\x80\x02]X\x01\0\0\x001a."], "no tensor is of");
    says(&[magic, version, machine, &saved, b"\x80\x02]."], "storage `0` of a tensor is not in it");
    says(&[magic, version, machine, &saved, keys, &[4, 0, 0, 0, 0, 0, 0, 0], &[0; 15]], "ends beyond the file");
    says(&[magic, version, machine, &saved, keys, &[0xff; 8], &[0; 16]], "ends beyond the file");
    says(&[magic, version, machine, &saved, keys, &[3, 0, 0, 0, 0, 0, 0, 0], &[0; 16]], "should have 4 elements");
}

#[test]
fn a_file_cut_or_changed_anywhere_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pt");
    for name in ["plain.pt", "legacy.pth"] {
        let whole = fs::read(golden(name).path()).unwrap();
        for n in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..n]).unwrap();
            assert!(TorchFile::open(&path).is_err(), "{name}: {n} bytes");
            let mut changed = whole.clone();
            changed[n] ^= 1 << (n / 7 % 8);
            fs::write(&path, &changed).unwrap();
            if let Ok(file) = TorchFile::open(&path) {
                for tensor in file.tensors() {
                    assert_eq!(Some(file.read(&tensor.name).unwrap().len()), tensor.bytes());
                }
            }
        }
    }
}
