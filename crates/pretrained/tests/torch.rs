//! Models in files of `torch.save`: Hugging Face's older checkpoints, and nanoGPT's.

mod common;

use std::fs;
use std::path::Path;

use common::{HfCheckpoint, assert_same_bits, case, encoded, load, load_with, tokens};
use ironlens_files::Dtype;
use ironlens_pretrained::LoadOptions;
use ironlens_tensor::{Device, IndexTensor, Tensor};
use ironlens_transformer::{ActFn, Config, HookedTransformer};

/// Opcodes of a pickle (protocol 2).
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Pickle {
        Pickle(b"\x80\x02".to_vec())
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Pickle {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Pickle {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    fn int(&mut self, n: usize) -> &mut Pickle {
        self.raw(b"J").raw(&(n as i32).to_le_bytes())
    }

    fn ints(&mut self, all: &[usize]) -> &mut Pickle {
        self.raw(b"(");
        all.iter().for_each(|n| {
            self.int(*n);
        });
        self.raw(b"t")
    }

    /// A tensor in row-major order that is all of storage `key`.
    fn tensor(&mut self, key: &str, shape: &[usize]) -> &mut Pickle {
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i];
        }
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n((").text("storage").raw(b"ctorch\nFloatStorage\n");
        self.text(key).text("cpu").int(shape.iter().product()).raw(b"tQ").int(0).ints(shape).ints(&strides);
        self.raw(b"\x89}tR")
    }
}

/// What `torch.save` writes: a dictionary of `beside` (as opcodes, each with its key) and of the tensors, under
/// `model` if there is something beside them.
fn write_torch(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)], beside: &[(&str, Vec<u8>)]) {
    let mut pickle = Pickle::new();
    if !beside.is_empty() {
        pickle.raw(b"}(");
        for (key, value) in beside {
            pickle.text(key).raw(value);
        }
        pickle.text("model");
    }
    pickle.raw(b"}(");
    for (i, (name, shape, _)) in tensors.iter().enumerate() {
        pickle.text(name).tensor(&i.to_string(), shape);
    }
    pickle.raw(if beside.is_empty() { b"u." } else { b"uu." });
    let mut entries = vec![("a/data.pkl".to_string(), pickle.0)];
    for (i, (_, _, values)) in tensors.iter().enumerate() {
        entries.push((format!("a/data/{i}"), encoded(values, Dtype::F32)));
    }
    fs::write(path, zip(&entries)).unwrap();
}

/// A zip archive of stored entries.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = out.len() as u32;
        // Version, flags, method, time and checksum are 0; sizes, lengths of name and of extra bytes.
        let mut header = vec![0; 14];
        header.extend((bytes.len() as u32).to_le_bytes().repeat(2));
        header.extend((name.len() as u32).to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&header);
        out.extend(name.as_bytes());
        out.extend(bytes);
        list.extend(b"PK\x01\x02\0\0");
        list.extend(&header);
        list.extend([0; 10]);
        list.extend(start.to_le_bytes());
        list.extend(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend(&list);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes().repeat(2));
    out.extend((list.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn listed(checkpoint: &HfCheckpoint) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    checkpoint.tensors.iter().map(|(n, (shape, values))| (n.clone(), shape.clone(), values.clone())).collect()
}

#[test]
fn checkpoints_of_torch_are_those_of_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt2_sharded", "mixtral", "stablelm"] {
        let checkpoint = HfCheckpoint::of(name);
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        checkpoint.write_config(&path);
        write_torch(&path.join("pytorch_model.bin"), &listed(&checkpoint), &[]);
        let whole = load(&case(name).join("hf")).unwrap();
        assert_same_bits(&load(&path).unwrap(), &whole, &tokens(name));
        // The file itself may be named.
        assert_same_bits(&load(&path.join("pytorch_model.bin")).unwrap(), &whole, &tokens(name));
        // Two files and an index, as large checkpoints are kept.
        fs::remove_file(path.join("pytorch_model.bin")).unwrap();
        let all = listed(&checkpoint);
        let (first, second) = all.split_at(all.len() / 2);
        let mut map = serde_json::Map::new();
        for (i, part) in [first, second].into_iter().enumerate() {
            let file = format!("pytorch_model-0000{}-of-00002.bin", i + 1);
            write_torch(&path.join(&file), part, &[]);
            map.extend(part.iter().map(|(n, ..)| (n.clone(), file.clone().into())));
        }
        let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
        fs::write(path.join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
        assert_same_bits(&load(&path).unwrap(), &whole, &tokens(name));
    }
}

/// nanoGPT's matrices are GPT-2's transposed; the names are the same.
#[test]
fn checkpoints_of_nanogpt_say_themselves_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut gpt2 = HfCheckpoint::of("gpt2_sharded");
    // nanoGPT computes the exact GELU.
    gpt2.set("activation_function", "gelu");
    let reference = folder.path().join("gpt2");
    gpt2.write(&reference, Dtype::F32);
    let reference = load(&reference).unwrap();
    let mut tensors = Vec::new();
    for (name, shape, mut values) in listed(&gpt2) {
        let mut shape = shape;
        if name.contains(".c_") && name.ends_with("weight") {
            let (rows, columns) = (shape[0], shape[1]);
            values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
            shape = vec![columns, rows];
        }
        // As torch.compile leaves names.
        tensors.push((format!("_orig_mod.{name}"), shape, values));
    }
    let embedding = tensors.iter().find(|t| t.0.ends_with("wte.weight")).unwrap().clone();
    tensors.push(("_orig_mod.lm_head.weight".into(), embedding.1, embedding.2));
    let cfg = reference.config();
    let args = |sizes: &[(&str, usize)]| {
        let mut args = Pickle(Vec::new());
        args.raw(b"}(");
        sizes.iter().for_each(|(key, n)| {
            args.text(key).int(*n);
        });
        args.text("dropout").raw(b"G\0\0\0\0\0\0\0\0").text("bias").raw(b"\x88u");
        args.0
    };
    let sizes = [
        ("n_layer", cfg.n_layers),
        ("n_head", cfg.n_heads),
        ("n_embd", cfg.d_model),
        ("block_size", cfg.n_ctx),
        ("vocab_size", cfg.d_vocab),
    ];
    let path = folder.path().join("ckpt.pt");
    write_torch(&path, &tensors, &[("model_args", args(&sizes)), ("iter_num", b"K\x05".to_vec())]);
    let x = tokens("gpt2_sharded");
    assert_same_bits(&load(&path).unwrap(), &reference, &x);
    let one = LoadOptions { first_n_layers: Some(1), ..LoadOptions::no_processing() };
    assert_eq!(load_with(&path, &one).unwrap().config().n_layers, 1);

    // Without biases they are 0.
    let without: Vec<_> = tensors.iter().filter(|t| !t.0.ends_with("bias")).cloned().collect();
    write_torch(&path, &without, &[("model_args", args(&sizes))]);
    let model = load(&path).unwrap();
    assert!(model.param("blocks.0.mlp.b_in").unwrap().to_vec().iter().all(|b| *b == 0.0));
    // Sizes that are not given, or are not those of the weights.
    write_torch(&path, &tensors, &[("model_args", args(&sizes[1..]))]);
    let text = load(&path).unwrap_err().to_string();
    assert!(text.contains("n_layer") && text.contains("not given"), "{text}");
    let wrong: Vec<_> = sizes.iter().map(|(k, n)| (*k, if *k == "vocab_size" { n + 1 } else { *n })).collect();
    write_torch(&path, &tensors, &[("model_args", args(&wrong))]);
    let text = load(&path).unwrap_err().to_string();
    assert!(text.contains("wte.weight") && text.contains("expected"), "{text}");
    // Weights alone.
    write_torch(&path, &tensors, &[]);
    let text = load(&path).unwrap_err().to_string();
    assert!(text.contains("does not say of which model"), "{text}");
}

/// Of one of TransformerLens's own models: the configuration lies above the folder of its checkpoints.
#[test]
fn a_checkpoint_of_training_has_its_configuration_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let cfg =
        Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 6, d_vocab: 9, act_fn: ActFn::Gelu, ..Config::default() };
    let model = HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap();
    fs::write(folder.path().join("config.json"), model.config().to_json()).unwrap();
    fs::create_dir(folder.path().join("checkpoints")).unwrap();
    let tensors: Vec<_> = model.params().iter().map(|(n, t)| (n.to_string(), t.shape().to_vec(), t.to_vec())).collect();
    let path = folder.path().join("checkpoints/m_10.pth");
    write_torch(&path, &tensors, &[]);
    let x = IndexTensor::from([[1, 2, 3]]);
    assert_same_bits(&load_with(&path, &LoadOptions::no_processing()).unwrap(), &model, &x);
}

/// Names of norms are the only sign of the first SoLU models, and small ones have their matrices transposed: also
/// where some of the layers are read.
#[test]
fn the_first_solu_models_are_known_by_their_norms() {
    let folder = tempfile::tempdir().unwrap();
    let cfg = Config {
        d_model: 8,
        d_head: 4,
        n_layers: 7,
        n_ctx: 6,
        d_vocab: 9,
        act_fn: ActFn::Gelu,
        final_rms: true,
        ..Config::default()
    };
    let model = HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap();
    fs::write(folder.path().join("config.json"), model.config().to_json()).unwrap();
    let old = |name: &str| name.replace("ln_final", "norm").replace(".ln", ".norm");
    let of = |name: &str, t: &Tensor| {
        // Seven layers: positions are transposed, and nothing else.
        let t = if name.ends_with("W_pos") { t.t().contiguous() } else { t.clone() };
        (old(name), t.shape().to_vec(), t.to_vec())
    };
    let tensors: Vec<_> = model.params().iter().map(|(name, t)| of(name, &t)).collect();
    write_torch(&folder.path().join("m_final.pth"), &tensors, &[]);
    let x = IndexTensor::from([[1, 2, 3]]);
    assert_same_bits(&load_with(folder.path(), &LoadOptions::no_processing()).unwrap(), &model, &x);
    let some = LoadOptions { first_n_layers: Some(2), ..LoadOptions::no_processing() };
    let name = "blocks.1.attn.W_Q";
    let read = load_with(folder.path(), &some).unwrap();
    assert_eq!(read.param(name).unwrap().to_vec(), model.param(name).unwrap().to_vec());
}
