//! What options change, and those that a model cannot have.

mod common;

use common::{HfCheckpoint, case, load, load_with, tokens};
use ironlens_files::Dtype;
use ironlens_pretrained::{LoadOptions, Pretrained};
use ironlens_tensor::{DType, IndexTensor};
use ironlens_transformer::{NormalizationType, PaddingSide};

#[test]
fn the_first_layers_are_those_of_the_whole_model() {
    // Layers of many kinds: windows, experts, layers without rotation, norms after only, shards.
    for name in ["gpt2_sharded", "mixtral", "gemma3", "gpt_oss", "smollm3", "qwen2_moe", "olmo2", "gpt_neo"] {
        let hf = case(name).join("hf");
        let whole = load(&hf).unwrap();
        let layers = whole.config().n_layers;
        for n in 1..=layers {
            let some =
                load_with(&hf, &LoadOptions { first_n_layers: Some(n), ..LoadOptions::no_processing() }).unwrap();
            assert_eq!(some.config().n_layers, n, "{name}");
            let stream = |model: &ironlens_transformer::HookedTransformer| {
                let (_, cache) = model.run_with_cache(&tokens(name)).unwrap();
                cache.get(("resid_post", n as isize - 1)).unwrap().to_vec()
            };
            assert!(stream(&some) == stream(&whole), "{name}: {n} of {layers} layers");
        }
        for n in [0, layers + 1, usize::MAX] {
            let options = LoadOptions { first_n_layers: Some(n), ..LoadOptions::default() };
            let text = load_with(&hf, &options).map(|_| ()).unwrap_err().to_string();
            assert!(
                text.contains(&format!("first_n_layers is {n}")) && text.contains(&format!("1 to {layers}")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_table_of_positions_is_cut_and_rotations_go_on() {
    let (learned, x) = (case("gpt2_sharded").join("hf"), tokens("gpt2_sharded"));
    let whole = load(&learned).unwrap();
    let n_ctx = whole.config().n_ctx;
    let of = |n| LoadOptions { n_ctx: Some(n), ..LoadOptions::no_processing() };
    let cut = load_with(&learned, &of(x.shape()[1])).unwrap();
    let w_pos = cut.param("pos_embed.W_pos").unwrap();
    assert_eq!((cut.config().n_ctx, w_pos.dim(0)), (14, 14));
    // Saved, it is cut in the same way.
    let folder = tempfile::tempdir().unwrap();
    whole.save_pretrained(folder.path()).unwrap();
    assert_eq!(load_with(folder.path(), &of(14)).unwrap().param("pos_embed.W_pos").unwrap().to_vec(), w_pos.to_vec());
    assert!(cut.forward(&x).unwrap().to_vec() == whole.forward(&x).unwrap().to_vec());
    assert!(cut.forward(&IndexTensor::new(vec![1; 15], &[1, 15])).is_err(), "longer than its table");
    for n in [0, n_ctx + 1] {
        let text = load_with(&learned, &of(n)).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(&format!("n_ctx is {n}")) && text.contains(&format!("1 to {n_ctx}")), "{text}");
    }
    for name in ["mixtral", "bloom"] {
        let long = load_with(&case(name).join("hf"), &of(500)).unwrap();
        assert_eq!(long.config().n_ctx, 500);
        let whole = load(&case(name).join("hf")).unwrap();
        assert!(long.forward(&tokens(name)).unwrap().to_vec() == whole.forward(&tokens(name)).unwrap().to_vec());
        assert!(long.forward(&IndexTensor::new(vec![1; 400], &[1, 400])).is_ok(), "{name}");
    }
}

#[test]
fn processing_is_done_in_the_steps_that_are_asked_for() {
    let hf = case("gpt2_sharded").join("hf");
    let raw = load(&hf).unwrap();
    let all = load_with(&hf, &LoadOptions::default()).unwrap();
    assert_eq!(raw.config().normalization_type, NormalizationType::LN);
    assert_eq!(all.config().normalization_type, NormalizationType::LNPre);
    let centred = |model: &ironlens_transformer::HookedTransformer, name: &str| {
        let w = model.param(name).unwrap();
        let means = w.mean(&[w.ndim() - 1]).abs();
        means.to_vec_f64().into_iter().fold(0.0, f64::max) < 1e-6
    };
    let only = |change: fn(&mut LoadOptions)| {
        let mut options = LoadOptions::no_processing();
        change(&mut options);
        load_with(&hf, &options).unwrap()
    };
    let folded = only(|o| o.fold_ln = true);
    assert_eq!(folded.config().normalization_type, NormalizationType::LNPre);
    assert!(!centred(&folded, "embed.W_E") && !centred(&folded, "unembed.W_U"));
    let writing = only(|o| o.center_writing_weights = true);
    assert!(
        centred(&writing, "embed.W_E") && centred(&writing, "blocks.1.mlp.W_out") && !centred(&writing, "unembed.W_U")
    );
    let unembed = only(|o| o.center_unembed = true);
    assert!(centred(&unembed, "unembed.W_U") && !centred(&unembed, "embed.W_E"));
    let biases = only(|o| o.fold_value_biases = true);
    assert_eq!(biases.param("blocks.0.attn.b_V").unwrap().norm(), 0.0);
    assert!(raw.param("blocks.0.attn.b_V").unwrap().norm() > 0.0);
    // Rotated queries and keys are not refactored.
    let refactor = LoadOptions { refactor_factored_attn_matrices: true, ..LoadOptions::default() };
    assert!(load_with(&hf, &refactor).is_ok());
    let text = load_with(&case("lma31").join("hf"), &refactor).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("rotary"), "{text}");
}

#[test]
fn the_other_options_reach_the_model() {
    let hf = case("mixtral").join("hf");
    let options = LoadOptions { dtype: DType::F64, default_prepend_bos: Some(false), ..LoadOptions::default() };
    let model = load_with(&hf, &options).unwrap();
    assert_eq!((model.params().dtype(), model.config().default_prepend_bos), (DType::F64, false));
    assert!(load(&hf).unwrap().config().default_prepend_bos);
    // There is no tokenizer in this folder whose texts could be padded.
    let padded = LoadOptions { default_padding_side: Some(PaddingSide::Left), ..LoadOptions::default() };
    let text = load_with(&hf, &padded).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("no tokenizer"), "{text}");
    // Families have habits of their own.
    assert!(!load(&case("qwen2_moe").join("hf")).unwrap().config().default_prepend_bos);
    assert_eq!(model.config().original_architecture.as_deref(), Some("MixtralForCausalLM"));
}

/// Capped logits and experts are left alone where processing would change them.
#[test]
fn a_capped_unembedding_is_not_centred() {
    let folder = tempfile::tempdir().unwrap();
    let mut capped = HfCheckpoint::of("gemma3");
    capped.set("final_logit_softcapping", 2.0);
    capped.write(folder.path(), Dtype::F32);
    let [raw, processed] =
        [LoadOptions::no_processing(), LoadOptions::default()].map(|o| load_with(folder.path(), &o).unwrap());
    assert_eq!(raw.config().output_logits_soft_cap, 2.0);
    let [a, b] = [&raw, &processed].map(|m| m.forward(&tokens("gemma3")).unwrap());
    assert!(common::error_of(&b, &a) < 1e-5);
    let experts = load_with(&case("mixtral").join("hf"), &LoadOptions::default()).unwrap();
    assert_eq!(experts.config().normalization_type, NormalizationType::RMS);
}
