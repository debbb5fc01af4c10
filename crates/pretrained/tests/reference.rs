//! Agreement with Hugging Face and TransformerLens on every committed case.

mod common;

use common::{case, cases, error_of, expected, load, load_with, tokens};
use ironlens_pretrained::LoadOptions;
use ironlens_tensor::IndexTensor;
use ironlens_transformer::{GenerateOptions, HookedTransformer, PositionalEmbeddingType};
use serde_json::Value;

/// The tokens `[batch, pos]`, and the likeliest ones after them, up to `total`.
fn greedy(model: &HookedTransformer, tokens: &IndexTensor, total: usize, use_past_kv_cache: bool) -> IndexTensor {
    let max_new_tokens = total - tokens.shape()[1];
    let options =
        GenerateOptions { max_new_tokens, use_past_kv_cache, stop_at_eos: false, ..GenerateOptions::greedy() };
    model.generate(tokens, &options).unwrap().tokens
}

#[test]
fn logits_tokens_and_weights_are_those_of_others() {
    let mut compared = 0;
    for name in cases() {
        let (expected, x) = (expected(&name), tokens(&name));
        let raw = load(&case(&name).join("hf")).unwrap();
        let processed = load_with(&case(&name).join("hf"), &LoadOptions::default()).unwrap();
        let logits = &expected["hf/logits"];
        let error = error_of(&raw.forward(&x).unwrap(), logits);
        assert!(error < 1e-5, "{name}: logits differ from Hugging Face's by {error}");
        // Processing changes no probability.
        let error = error_of(&processed.forward(&x).unwrap().log_softmax(), &logits.log_softmax());
        assert!(error < 1e-5, "{name}: processing changes log-probabilities by {error}");
        let ids = &expected["hf/greedy"];
        for cached in [true, false] {
            let written = greedy(&raw, &x, ids.dim(1), cached);
            let written: Vec<f64> = written.as_slice().iter().map(|&id| id.into()).collect();
            assert_eq!(written, ids.to_vec_f64(), "{name}: tokens after the text, with a cache: {cached}");
        }

        let alibi = raw.config().positional_embedding_type == PositionalEmbeddingType::Alibi;
        for (key, value) in &expected {
            let (model, part) = match key.split_once('/') {
                Some(("tl", part)) => (&raw, part),
                Some(("tl_processed", part)) => (&processed, part),
                _ => continue,
            };
            let (found, tolerance) = match part.split_once('/') {
                // Nothing reads it in ALiBi models, and TransformerLens leaves in it what was in memory.
                Some(("state", "pos_embed.W_pos")) if alibi => continue,
                Some(("state", weight)) => {
                    (model.param(weight).unwrap(), if key.starts_with("tl/") { 1e-6 } else { 2e-5 })
                }
                None => (model.forward(&x).unwrap(), 1e-5),
                // Activations, which `ironlens verify` compares.
                Some(_) => continue,
            };
            let error = error_of(&found, value);
            assert!(error <= tolerance, "{name}: {key} differs by {error}");
            compared += 1;
        }
    }
    assert!(compared > 300, "only {compared} weights and logits of TransformerLens's were compared");
}

/// Positions count from the first token that is not padding, as in Hugging Face: its logits there are those of the
/// sequence alone.
#[test]
fn padding_before_a_sequence_changes_nothing() {
    for name in cases() {
        let (model, x, logits) = (load(&case(&name).join("hf")).unwrap(), tokens(&name), &expected(&name)["hf/logits"]);
        let [batch, pos] = *x.shape() else { panic!("tokens are [batch, pos]") };
        let (padding, kept) = (IndexTensor::new(vec![0; 3 * batch], &[batch, 3]), pos - 3);
        let padded = IndexTensor::cat(&[padding.clone(), x.narrow(1, 0, kept)], 1);
        let mask = IndexTensor::cat(&[padding, IndexTensor::new(vec![1; kept * batch], &[batch, kept])], 1);
        let out = model.call(&padded).attention_mask(&mask).output().unwrap();
        let error = error_of(&out.logits().value().narrow(1, 3, kept), &logits.narrow(1, 0, kept));
        assert!(error < 1e-5, "{name}: logits after padding differ from Hugging Face's by {error}");
    }
}

/// `notes.json` says by how much TransformerLens 2.18 differs from Hugging Face, as a part of the largest logit; with
/// `like_transformerlens` we differ by as much.
#[test]
fn like_transformerlens_differs_as_transformerlens_does() {
    let mut checked = 0;
    for name in cases() {
        let notes = std::fs::read_to_string(case(&name).join("notes.json")).unwrap();
        let notes: Value = serde_json::from_str(&notes).unwrap();
        let Some(known) = notes["tl_against_hf"].as_f64().filter(|d| *d > 1e-3) else { continue };
        let like = LoadOptions { like_transformerlens: true, ..LoadOptions::no_processing() };
        let [ours, theirs] = [LoadOptions::no_processing(), like]
            .map(|options| load_with(&case(&name).join("hf"), &options).unwrap().forward(&tokens(&name)).unwrap());
        let difference = error_of(&theirs, &ours);
        assert!((difference - known).abs() < 1e-5, "{name}: {difference}, TransformerLens {known}");
        checked += 1;
    }
    assert!(checked >= 3, "only {checked} cases differ");
}
