//! Encoders without a checkpoint: what they refuse, and how.

use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_transformer::{
    ActFn, AttentionDir, BertNextSentencePrediction, Config, Head, Heads, HookedEncoder, Hooks, ModelError, Pooling,
    PositionalEmbeddingType, Sentences, Slice,
};

fn small() -> Config {
    Config {
        d_model: 8,
        d_head: 4,
        n_layers: 2,
        n_ctx: 6,
        d_vocab: 11,
        act_fn: ActFn::Gelu,
        attention_dir: AttentionDir::Bidirectional,
        ..Config::default()
    }
}

fn model() -> HookedEncoder {
    HookedEncoder::new(small(), &Device::Cpu, 3).unwrap()
}

#[test]
fn configurations_of_decoders_are_refused_by_the_field() {
    let refused = |cfg: Config, words: &[&str]| {
        let text = HookedEncoder::new(cfg, &Device::Cpu, 0).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    };
    refused(Config { parallel_attn_mlp: true, ..small() }, &["parallel_attn_mlp", "an encoder"]);
    refused(Config { gated_mlp: true, ..small() }, &["gated_mlp"]);
    refused(Config { attn_only: true, ..small() }, &["attn_only"]);
    refused(Config { n_key_value_heads: 1, ..small() }, &["n_key_value_heads"]);
    refused(Config { use_attn_in: true, ..small() }, &["use_attn_in"]);
    let rotary = PositionalEmbeddingType::Rotary;
    refused(Config { positional_embedding_type: rotary, ..small() }, &["positional_embedding_type", "rotary"]);
    refused(Config { act_fn: ActFn::SoluLn, ..small() }, &["act_fn", "solu_ln", "gelu_new"]);
    refused(Config { d_model: 0, ..small() }, &["d_model"]);
    let alone = Heads { next_sentence: true, ..Heads::NONE };
    let text = HookedEncoder::with_heads(small(), alone, &Device::Cpu, 0).unwrap_err().to_string();
    assert!(text.contains("pooler"), "{text}");
}

#[test]
fn input_that_does_not_fit_is_refused() {
    let model = model();
    let tokens = IndexTensor::from([[1, 2, 3], [4, 5, 6]]);
    let short = IndexTensor::from([[1, 0]]);
    let text = |result: Result<_, ModelError>| result.map(|_: Tensor| ()).unwrap_err().to_string();
    let output =
        |call: ironlens_transformer::EncoderCall<'_, '_>| text(call.output().map(|out| out.residual.into_value()));
    assert!(text(model.forward(&IndexTensor::from([[11]]))).contains("token 11"));
    assert!(text(model.forward(&IndexTensor::new(vec![1; 7], &[1, 7]))).contains("7 positions"));
    assert!(text(model.forward(&IndexTensor::new(Vec::<u32>::new(), &[1, 0]))).contains("at least one of each"));
    assert!(text(model.forward(&IndexTensor::new(vec![1; 8], &[2, 2, 2]))).contains("[batch, pos]"));
    assert!(text(model.forward("text")).contains("no tokenizer"));
    let residual = Tensor::zeros(&[1, 2, 8], DType::F32, &Device::Cpu);
    assert!(text(model.forward(&residual)).contains("tokens or texts"));
    assert!(output(model.call(&tokens).token_types(&short)).contains("token types"));
    assert!(output(model.call(&tokens).attention_mask(&short)).contains("attention mask"));
    let types = IndexTensor::from([[0, 0, 0], [0, 2, 0]]);
    assert!(output(model.call(&tokens).token_types(&types)).contains("token type 2 at batch 1, position 1"));
    let mut hooks = Hooks::new().fwd("blocks.0.hook_q_input", |_, _| Ok(()));
    assert!(text(model.run_with_hooks(&tokens, &mut hooks)).contains("use_split_qkv_input"));
    let text = model.call(&tokens).remove_batch_dim().cached().map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("batch of one"), "{text}");
}

#[test]
fn heads_that_are_not_there_are_told() {
    let model = HookedEncoder::with_heads(small(), Heads::NONE, &Device::Cpu, 0).unwrap();
    let tokens = IndexTensor::from([[1, 2, 3]]);
    for (head, name) in [(Head::MaskedLanguage, "mlm_head"), (Head::Pooler, "pooler"), (Head::NextSentence, "nsp_head")]
    {
        let text = model.call(&tokens).head(head).output().unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
    }
    assert!(BertNextSentencePrediction::new(&model).is_err());
    assert!(model.clone().set_sentences(Sentences { pooling: Pooling::Pooler, normalize: true }).is_err());
    assert!(!format!("{model}").contains("mlm_head") && model.param("unembed.W_U").is_err());
    assert_eq!(model.encoder_output(&tokens).unwrap().shape(), [1, 3, 8]);
    assert_eq!(model.stack_param("attn.W_Q").unwrap().shape(), [2, 2, 8, 4]);
    assert!(model.stack_param("attn.W_X").is_err());
}

#[test]
fn a_cache_keeps_what_is_asked_for() {
    let model = model();
    let tokens = IndexTensor::from([[1, 2, 3, 4]]);
    let (_, cache) = model
        .call(&tokens)
        .head(Head::None)
        .names(|name: &str| name.ends_with("normalized_resid_post"))
        .pos_slice(Slice::At(-1))
        .remove_batch_dim()
        .cached()
        .unwrap();
    assert_eq!(
        cache.names().collect::<Vec<_>>(),
        ["blocks.0.hook_normalized_resid_post", "blocks.1.hook_normalized_resid_post"]
    );
    assert_eq!(cache[("normalized_resid_post", -1)].shape(), [1, 8]);
    assert_eq!(cache.model().config().n_layers, 2);
}

#[test]
fn a_row_without_any_token_has_finite_values() {
    let model = model();
    let tokens = IndexTensor::from([[1, 2, 3], [4, 5, 6]]);
    let mask = IndexTensor::from([[1, 1, 0], [0, 0, 0]]);
    let (output, _) = model.call(&tokens).attention_mask(&mask).cached().unwrap();
    assert!(output.logits().value().all_finite());
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Pooler] {
        let how = Sentences { pooling, normalize: true };
        let vectors = model.call(&tokens).attention_mask(&mask).sentence_embeddings(how).unwrap();
        assert!(vectors.all_finite(), "{pooling:?}");
    }
}

#[test]
fn precision_and_switches_keep_the_weights() {
    let mut encoder = model();
    let tokens = IndexTensor::from([[1, 2, 3]]);
    let plain = encoder.forward(&tokens).unwrap();
    let double = encoder.to_dtype(DType::F64).forward(&tokens).unwrap().to_dtype(DType::F32);
    assert!(plain.max_abs_diff(&double).0 < 1e-5);
    encoder.set_use_split_qkv_input(true).unwrap();
    assert!(encoder.forward(&tokens).unwrap().max_abs_diff(&plain).0 < 1e-6);
    encoder.set_use_split_qkv_input(false).unwrap();
    assert_eq!(encoder.forward(&tokens).unwrap().to_vec(), plain.to_vec());
}

#[test]
fn activations_of_all_layers_are_stacked() {
    let model = model();
    let (_, cache) = model.call(&IndexTensor::from([[1, 2, 3]])).head(Head::None).cached().unwrap();
    let stack = cache.stack_activation("z", None, None).unwrap();
    assert_eq!(stack.shape(), [2, 1, 3, 2, 4]);
    assert_eq!(stack.select(0, 1).to_vec(), cache[("z", 1)].to_vec());
    assert_eq!(cache.stack_activation("scale", Some(1), Some("ln1")).unwrap().shape(), [1, 1, 3, 1]);
}
