//! One model in many forms: without its head's names, in other types, saved and read again.

mod common;

use common::{HfCheckpoint, assert_same_bits, case, cases, error_of, expected, f64_options, load, load_with, tokens};
use ironlens_files::Dtype;
use ironlens_pretrained::{LoadOptions, Pretrained};
use ironlens_tensor::{DType, Device, Rng, Tensor};
use ironlens_transformer::{ActFn, Config, HookedTransformer, write_tensors};

#[test]
fn base_models_are_read_without_their_prefix() {
    let folder = tempfile::tempdir().unwrap();
    for name in cases() {
        let whole = HfCheckpoint::of(&name);
        let tied = !whole.tensors.keys().any(|n| n.starts_with("lm_head"));
        let base = whole.renamed(|n| {
            if n.starts_with("lm_head") {
                return Some(n.into());
            }
            let stripped = n.strip_prefix("transformer.").or(n.strip_prefix("model."));
            stripped.map(String::from)
        });
        assert_eq!(base.tensors.len(), whole.tensors.len(), "{name}: every other tensor has a prefix");
        let path = folder.path().join(&name);
        base.write(&path, Dtype::F32);
        let found = load(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_same_bits(&found, &load(&case(&name).join("hf")).unwrap(), &tokens(&name));
        if !tied {
            // A base model has no unembedding of its own: it is the embedding's.
            let headless = base.renamed(|n| (!n.starts_with("lm_head")).then(|| n.into()));
            headless.write(&path, Dtype::F32);
            let found = load(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            let unembed = found.param("unembed.W_U").unwrap().t().to_vec();
            let names = ["embed_tokens", "word_embeddings.", "embed_in", "wte."];
            let embed = headless.tensors.iter().find(|(n, _)| names.iter().any(|part| n.contains(part))).unwrap().1;
            assert!(unembed == embed.1, "{name}: the unembedding is not the embedding");
        }
    }
}

#[test]
fn half_precision_is_read_as_the_numbers_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt2_sharded", "mixtral", "gemma3", "gpt_oss"] {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let (half, whole) = (folder.path().join("half"), folder.path().join("whole"));
            let checkpoint = HfCheckpoint::of(name);
            checkpoint.write(&half, dtype);
            checkpoint.rounded(dtype).write(&whole, Dtype::F32);
            let [half, whole] = [half, whole].map(|path| load(&path).unwrap());
            assert_same_bits(&half, &whole, &tokens(name));
            let error = error_of(&half.forward(&tokens(name)).unwrap(), &expected(name)["hf/logits"]);
            let bound = if dtype == Dtype::F16 { 0.05 } else { 0.3 };
            assert!(error > 1e-5 && error < bound, "{name}, {dtype:?}: {error}");
        }
    }
}

#[test]
fn saved_models_are_read_back_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for name in cases() {
        for options in [LoadOptions::no_processing(), LoadOptions::default()] {
            let model = load_with(&case(&name).join("hf"), &options).unwrap();
            let path = folder.path().join(&name);
            model.save_pretrained(&path).unwrap();
            let again = HookedTransformer::from_pretrained_no_processing(path.to_str().unwrap()).unwrap();
            assert_eq!(again.config().to_json(), model.config().to_json(), "{name}");
            assert_same_bits(&model, &again, &tokens(&name));
            // Processing what is processed leaves it as it is, to rounding.
            if options.fold_ln {
                let twice = load_with(&path, &LoadOptions::default()).unwrap();
                let [a, b] = [&model, &twice].map(|m| m.forward(&tokens(&name)).unwrap());
                assert!(error_of(&a, &b) < 1e-5, "{name}");
            }
        }
    }
}

#[test]
fn a_saved_model_may_be_in_double_precision() {
    let folder = tempfile::tempdir().unwrap();
    let double = load(&case("mixtral").join("hf")).unwrap().to_dtype(DType::F64);
    double.save_pretrained(folder.path()).unwrap();
    let again = load_with(folder.path(), &f64_options()).unwrap();
    assert_same_bits(&double, &again, &tokens("mixtral"));
}

#[test]
fn state_dicts_in_transformerlens_names_are_read_into_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = load(&case("mixtral").join("hf")).unwrap();
    let saved = folder.path().join("weights.safetensors");
    model.save_weights(&saved).unwrap();
    let x = tokens("mixtral");
    let before = model.clone();
    let name = "blocks.1.mlp.experts.2.W_out.weight";
    let other = model.param(name).unwrap() * 2.0;
    model.params_mut().set(name, &other).unwrap();
    assert!(model.forward(&x).unwrap().max_abs_diff(&before.forward(&x).unwrap()).0 > 0.0);
    let loaded = model.load_state_dict(&saved).unwrap();
    assert_eq!((loaded.missing.len(), loaded.unexpected.len()), (0, 0), "{loaded:?}");
    assert_same_bits(&model, &before, &x);
    // Of another model nothing fits, and nothing changes.
    let other = load(&case("gpt_oss").join("hf")).unwrap();
    let wrong = folder.path().join("other.safetensors");
    other.save_weights(&wrong).unwrap();
    let result = model.load_state_dict(&wrong);
    if let Ok(loaded) = &result {
        assert!(loaded.unexpected.iter().any(|n| n.ends_with("attn.sinks")), "{loaded:?}");
    }
}

/// A folder with `config.json` and these tensors.
fn written(cfg: &str, tensors: Vec<(String, Tensor)>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), cfg).unwrap();
    let tensors = tensors.iter().map(|(name, t)| (name.as_str(), t.contiguous()));
    write_tensors(&folder.path().join("model.safetensors"), tensors).unwrap();
    folder
}

/// A small model with every weight random, also those that start at 0 or 1.
fn random(cfg: Config) -> HookedTransformer {
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 4).unwrap();
    let names: Vec<String> = model.params().iter().map(|(name, _)| name.to_string()).collect();
    for (i, name) in names.iter().enumerate() {
        let shape = model.param(name).unwrap().shape().to_vec();
        model.params_mut().set(name, &Rng::new(8, i as u64).normal(&shape, 0.1, 0.4, &Device::Cpu)).unwrap();
    }
    model
}

fn small() -> Config {
    Config {
        d_model: 12,
        d_head: 4,
        n_heads: 3,
        n_layers: 2,
        n_ctx: 10,
        d_mlp: 20,
        d_vocab: 15,
        act_fn: ActFn::Gelu,
        ..Config::default()
    }
}

/// Othello-GPT's first weights: another's names, heads in one matrix, matrices transposed.
#[test]
fn weights_in_mingpts_names_are_turned() {
    let model = random(small());
    let mut tensors = Vec::new();
    for (name, w) in model.params().iter() {
        let rows = |n: usize| w.shape().iter().product::<usize>() / n;
        let name = name.replace("ln_final.w", "ln_f.weight").replace("ln_final.b", "ln_f.bias");
        let (layer, last) = name.rsplit_once('.').unwrap();
        let layer = layer.strip_suffix(".attn").or(layer.strip_suffix(".mlp")).unwrap_or(layer);
        let (to, value) = match last {
            "W_E" => ("tok_emb.weight".into(), w),
            "W_pos" => ("pos_emb".into(), w.unsqueeze(0)),
            "W_U" => ("head.weight".into(), w.t()),
            "b_U" => ("head.bias".into(), w),
            "W_Q" | "W_K" | "W_V" => {
                let part = [("W_Q", "query"), ("W_K", "key"), ("W_V", "value")].iter().find(|p| p.0 == last).unwrap().1;
                (format!("{layer}.attn.{part}.weight"), w.permute(&[0, 2, 1]).reshape(&[12, 12]))
            }
            "b_Q" | "b_K" | "b_V" => {
                let part = [("b_Q", "query"), ("b_K", "key"), ("b_V", "value")].iter().find(|p| p.0 == last).unwrap().1;
                (format!("{layer}.attn.{part}.bias"), w.reshape(&[rows(1)]))
            }
            "W_O" => (format!("{layer}.attn.proj.weight"), w.permute(&[2, 0, 1]).reshape(&[12, 12])),
            "b_O" => (format!("{layer}.attn.proj.bias"), w),
            "W_in" => (format!("{layer}.mlp.0.weight"), w.t()),
            "b_in" => (format!("{layer}.mlp.0.bias"), w),
            "W_out" => (format!("{layer}.mlp.2.weight"), w.t()),
            "b_out" => (format!("{layer}.mlp.2.bias"), w),
            "w" => (format!("{layer}.weight"), w),
            "b" => (format!("{layer}.bias"), w),
            _ => (name.clone(), w),
        };
        tensors.push((to, value));
    }
    // Masks are computed here.
    tensors.push(("blocks.0.attn.mask".into(), Tensor::ones(&[1, 1, 10, 10], DType::F32, &Device::Cpu)));
    let folder = written(&model.config().to_json(), tensors);
    assert_same_bits(&load(folder.path()).unwrap(), &model, &Rng::new(1, 0).integers(&[2, 9], 0, 15));
}

/// The first SoLU models': norms and configurations under other names, matrices transposed where there are few layers.
#[test]
fn weights_in_the_names_of_old_solu_models_are_turned() {
    let model = random(Config { act_fn: ActFn::SoluLn, ..small() });
    let tensors = model.params().iter().map(|(name, w)| {
        let matrix = name.rsplit('.').next().unwrap().starts_with("W_");
        let renamed = name.replace("ln_final.", "norm.").replace("ln", "norm");
        (renamed, if matrix { w.transpose(w.ndim() - 2, w.ndim() - 1) } else { w })
    });
    let cfg = serde_json::json!({
        "architecture": "neel-solu-old", "d_model": 12, "d_head": 4, "n_heads": 3, "n_layers": 2, "n_ctx": 10,
        "d_mlp": 20, "d_vocab": 15, "act_fn": "solu_ln", "normalization": "LN",
    });
    let folder = written(&cfg.to_string(), tensors.collect());
    assert_same_bits(&load(folder.path()).unwrap(), &model, &Rng::new(1, 0).integers(&[2, 9], 0, 15));
}

#[test]
fn a_state_dict_that_lacks_weights_is_no_model() {
    let model = random(small());
    let tensors = || model.params().iter().map(|(name, w)| (name.to_string(), w)).collect::<Vec<_>>();
    let refused = |tensors, words: &[&str]| {
        let text = load(written(&model.config().to_json(), tensors).path()).map(|_| ()).unwrap_err().to_string();
        words.iter().for_each(|w| assert!(text.contains(w), "{w}: {text}"));
    };
    let mut without = tensors();
    without.retain(|(name, _)| name != "blocks.1.mlp.W_in" && name != "unembed.b_U");
    refused(without, &["`blocks.1.mlp.W_in` is missing", "`unembed.b_U` is missing"]);
    let mut more = tensors();
    more.push(("blocks.2.ln1.w".into(), more[0].1.clone()));
    refused(more, &["`blocks.2.ln1.w` is not a weight of this model"]);
    let mut turned = tensors();
    turned.iter_mut().filter(|t| t.0 == "blocks.0.mlp.W_in").for_each(|t| t.1 = t.1.t());
    refused(turned, &["`blocks.0.mlp.W_in` has shape [20, 12], expected [12, 20]"]);
    let mut nan = tensors();
    nan[3].1 = nan[3].1.affine(0.0, f64::NAN);
    refused(nan, &[model.params().iter().nth(3).unwrap().0, "NaN at element 0"]);
    // Of fewer layers those of the others are not asked for.
    let folder = written(&model.config().to_json(), tensors());
    let options = LoadOptions { first_n_layers: Some(1), ..LoadOptions::no_processing() };
    assert_eq!(load_with(folder.path(), &options).unwrap().config().n_layers, 1);
}
