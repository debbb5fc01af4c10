//! Calls: what padding does, by which weights is differentiated, what gradients hold on to.

use std::collections::HashMap;

use ironlens_autograd::Var;
use ironlens_tensor::{AdamWStep, DType, Device, IndexTensor, Rng, Tensor, profile};
use ironlens_transformer::{
    ActFn, AttentionDir, Config, GenerateOptions, HookedTransformer, Hooks, Leaves, ModelError, Output,
    PositionalEmbeddingType, ReturnType, Sequences, next_token_accuracies, next_token_accuracy,
};

/// A small model with biases and norm weights off 0 and 1.
fn model(cfg: Config) -> HookedTransformer {
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 5).unwrap();
    let shapes: Vec<(String, Vec<usize>)> =
        model.registry().params().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let value = model.param(name).unwrap();
        let noise = Rng::new(9, i as u64).normal(shape, 0.0, 0.3, &Device::Cpu);
        model.params_mut().set(name, &(value + noise)).unwrap();
    }
    model
}

fn config() -> Config {
    Config { d_model: 24, d_head: 8, n_layers: 2, n_ctx: 9, d_vocab: 17, act_fn: ActFn::Gelu, ..Config::default() }
}

/// Sequences of 6, 4 and 5 tokens.
fn texts() -> [Vec<u32>; 3] {
    [vec![3, 1, 4, 1, 5, 9], vec![2, 6, 5, 3], vec![5, 8, 9, 7, 9]]
}

/// Tokens and mask `[3, 7]` of the texts, and where each begins.
fn padded(left: bool) -> (IndexTensor, IndexTensor, [usize; 3]) {
    let (mut tokens, mut mask) = (Vec::new(), Vec::new());
    let starts = texts().map(|text| {
        let padding = 7 - text.len();
        let before = if left { padding } else { 0 };
        tokens.extend(std::iter::repeat_n(11, before).chain(text.iter().copied()));
        tokens.extend(std::iter::repeat_n(11, padding - before));
        mask.extend((0..7).map(|i| u32::from((before..before + text.len()).contains(&i))));
        before
    });
    (IndexTensor::new(tokens, &[3, 7]), IndexTensor::new(mask, &[3, 7]), starts)
}

#[test]
fn a_padded_batch_is_its_sequences_one_by_one() {
    for attention_dir in [AttentionDir::Bidirectional, AttentionDir::Causal] {
        for &positional_embedding_type in PositionalEmbeddingType::ALL {
            let model = model(Config { attention_dir, positional_embedding_type, ..config() });
            for left in [true, false] {
                let case = format!("{attention_dir}, {positional_embedding_type}, left {left}");
                let (tokens, mask, starts) = padded(left);
                let call = model.call(&tokens).attention_mask(&mask).return_type(ReturnType::Both).loss_per_token();
                let out = call.output().unwrap();
                // Tokens and mask in one, as analyses and losses take them.
                let both = model.forward(&Sequences::from((&tokens, &mask))).unwrap();
                assert_eq!(both.to_vec(), out.logits().value().to_vec(), "{case}");
                for (i, text) in texts().iter().enumerate() {
                    let alone = IndexTensor::new(text.clone(), &[1, text.len()]);
                    let alone = model.call(&alone).return_type(ReturnType::Both).loss_per_token().output().unwrap();
                    let (len, start) = (text.len(), starts[i]);
                    let logits = out.logits().value().select(0, i).narrow(0, start, len).unsqueeze(0);
                    let (difference, at) = logits.max_abs_diff(alone.logits().value());
                    assert!(difference < 2e-5, "{case}: sequence {i} differs by {difference} at {at:?}");
                    let loss = out.loss().value().select(0, i).narrow(0, start, len - 1).unsqueeze(0);
                    assert!(loss.max_abs_diff(alone.loss().value()).0 < 2e-5, "{case}: the loss of sequence {i}");
                }
            }
        }
    }
}

/// In TransformerLens 2.18 the code of the causal mask is the only one that reads the attention mask: with
/// bidirectional attention padding loses its position embedding and is seen by all.
#[test]
fn padding_as_transformer_lens_is_hidden_by_the_causal_mask_only() {
    let (tokens, mask, starts) = padded(true);
    let pattern = |model: &HookedTransformer, as_transformer_lens: bool| {
        let call = model.call(&tokens).attention_mask(&mask).names("blocks.1.attn.hook_pattern");
        let call = if as_transformer_lens { call.padding_as_transformer_lens() } else { call };
        let (out, cache) = call.cached().unwrap();
        (out.logits().value().clone(), cache.get(("pattern", 1)).unwrap().clone())
    };
    // Of the second sequence, from its last token to its first three places, which are padding.
    let seen = |pattern: &Tensor| pattern.select(0, 1).select(1, 6).narrow(1, 0, starts[1]).sum_all().item();

    let causal = model(config());
    let ((ours, p), (theirs, q)) = (pattern(&causal, false), pattern(&causal, true));
    assert_eq!(ours.to_vec(), theirs.to_vec());
    assert_eq!((seen(&p), seen(&q)), (0.0, 0.0));

    let both_ways = model(Config { attention_dir: AttentionDir::Bidirectional, ..config() });
    let ((ours, p), (theirs, q)) = (pattern(&both_ways, false), pattern(&both_ways, true));
    assert_eq!(seen(&p), 0.0);
    assert!(seen(&q) > 0.1, "{}", seen(&q));
    assert!(ours.max_abs_diff(&theirs).0 > 1e-2);
    // The same by hand: no mask, but position embeddings as TransformerLens computes them.
    let w_pos = both_ways.param("pos_embed.W_pos").unwrap();
    let mut rows = Vec::new();
    for start in starts {
        let text = 7 - start;
        rows.push(Tensor::cat(&[w_pos.narrow(0, 0, start).affine(0.0, 0.0), w_pos.narrow(0, 0, text)], 0));
    }
    let rows = Tensor::stack(&rows, 0);
    let mut hooks = Hooks::new().fwd("hook_pos_embed", |x, _| {
        *x = Var::from(rows.clone());
        Ok(())
    });
    let by_hand = both_ways.run_with_hooks(&tokens, &mut hooks).unwrap();
    assert!(theirs.max_abs_diff(&by_hand).0 < 1e-6, "{}", theirs.max_abs_diff(&by_hand).0);
}

fn loss(out: &Output) -> Var {
    out.logits().log_softmax().select(2, 3).mean_all()
}

/// Matrix products of `f`: of a forward pass (`linear`) and of a backward pass (`matmul`).
fn products<R>(f: impl FnOnce() -> R) -> (R, [u64; 2]) {
    let (result, kernels) = profile::record(f);
    let count = |name| kernels.iter().filter(|k| k.name == name).map(|k| k.calls).sum();
    (result, ["linear", "matmul"].map(count))
}

/// A model of fewer predictions than tokens: the first token, and what pairs with padding have, is not asked for.
#[test]
fn only_tokens_that_are_predicted_need_a_logit() {
    let model = model(Config { d_vocab_out: 12, ..config() });
    let loss_of = |tokens: &IndexTensor, mask: &IndexTensor| {
        let call = model.call(tokens).attention_mask(mask).return_type(ReturnType::Loss).loss_per_token();
        call.output().map(|out| out.loss().value().to_vec())
    };
    let mask = IndexTensor::from([[1, 1, 1, 1], [1, 1, 1, 0]]);
    let plain = loss_of(&IndexTensor::from([[16, 2, 3, 4], [15, 6, 7, 0]]), &mask).unwrap();
    let padded = loss_of(&IndexTensor::from([[16, 2, 3, 4], [15, 6, 7, 14]]), &mask).unwrap();
    assert_eq!((plain.len(), &plain), (6, &padded));
    assert!(plain[..5].iter().all(|loss| *loss > 0.0) && plain[5] == 0.0);
    let refused = loss_of(&IndexTensor::from([[1, 2, 3, 4], [5, 13, 7, 0]]), &mask).unwrap_err().to_string();
    assert!(refused.contains("token 13") && refused.contains("d_vocab_out = 12"), "{refused}");
    let alone = model.call(&IndexTensor::from([[16, 2, 3]])).return_type(ReturnType::Loss).output();
    assert!(alone.unwrap().loss().value().item() > 0.0);
}

#[test]
fn accuracy_is_of_the_likeliest_next_token() {
    // The likeliest are 2, 0, 1 and 1, 1, 0.
    let rows = vec![0., 1., 2., 3., 0., 0., 0., 9., 1., 0., 2., 1., -1., 0., -2., 5., 4., 4.5];
    let logits = Tensor::from(rows).reshape(&[2, 3, 3]);
    let tokens = IndexTensor::from([[1, 2, 2], [0, 1, 1]]);
    assert_eq!(next_token_accuracies(&logits, &tokens, None).to_vec(), [1.0, 0.0, 1.0, 1.0]);
    assert_eq!(next_token_accuracy(&logits, &tokens, None), 0.75);
    let mask = IndexTensor::from([[1, 1, 1], [0, 1, 1]]);
    assert_eq!(next_token_accuracies(&logits, &tokens, Some(&mask)).to_vec(), [1.0, 0.0, 0.0, 1.0]);
    assert!((next_token_accuracy(&logits, &tokens, Some(&mask)) - 2.0 / 3.0).abs() < 1e-6);
}

/// Where nothing goes backward they would never run.
#[test]
fn backward_hooks_of_a_forward_call_are_refused() {
    let mut model = model(config());
    let tokens = IndexTensor::from([[1, 2, 3, 4]]);
    let name = "blocks.0.hook_resid_post";
    let refused = |result: Result<(), ModelError>| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(name) && text.contains("`gradients`"), "{text}");
    };
    let hooks = || Hooks::new().bwd(name, |_, _| ());
    refused(model.run_with_hooks(&tokens, &mut hooks()).map(|_| ()));
    refused(model.call(&tokens).hooks(&mut hooks()).output().map(|_| ()));
    refused(model.call(&tokens).hooks(&mut hooks()).cached().map(|_| ()));
    let options = GenerateOptions { stop_at_eos: false, ..GenerateOptions::greedy() };
    refused(model.generation(&tokens).options(options).hooks(&mut hooks()).run().map(|_| ()));
    assert!(model.call(&tokens).hooks(&mut hooks()).gradients(loss).is_ok());
    assert!(model.call(&tokens).hooks(&mut hooks()).cached_gradients(loss).is_ok());
    // Permanent ones wait.
    model.add_perma_bwd_hook(name, |_, _| ()).unwrap();
    assert!(model.forward(&tokens).is_ok());
}

#[test]
fn a_frozen_weight_has_no_gradient_and_costs_none() {
    let model = model(config());
    let tokens = IndexTensor::from([[1, 2, 3, 4], [5, 6, 7, 8]]);
    let run = |leaves: Leaves<'_>| {
        let ((_, grads), counts) = products(|| model.call(&tokens).leaves(leaves).gradients(loss).unwrap());
        (grads, counts)
    };
    // Four products with weights in each of two blocks, and the unembedding; each has two gradients.
    let (all, counts) = run(Leaves::All);
    assert_eq!(counts, [9, 18]);
    assert!(model.params().iter().all(|(name, _)| all.get(name).is_some()));

    let (none, counts) = run(Leaves::None);
    assert_eq!(counts, [9, 0]);
    assert!(model.params().iter().all(|(name, _)| none.get(name).is_none()));

    // Only the gradient by the one weight: nothing before it is on the tape.
    let (one, counts) = run((|name: &str| name == "unembed.W_U").into());
    assert_eq!(counts, [9, 1]);
    let has: Vec<&str> = model.params().iter().map(|(n, _)| n).filter(|n| one.get(n).is_some()).collect();
    assert_eq!(has, ["unembed.W_U"]);
    assert_eq!(one.get("unembed.W_U").unwrap().to_vec(), all.get("unembed.W_U").unwrap().to_vec());

    // On the way to an early weight, later ones pass gradients on and have none.
    let (early, counts) = run((|name: &str| name == "blocks.0.mlp.W_in").into());
    assert_eq!(counts, [9, 7], "dx of 6 products after it, and its own dW");
    let name = "blocks.0.mlp.W_in";
    assert_eq!(early.get(name).unwrap().to_vec(), all.get(name).unwrap().to_vec());
    assert!(early.get("blocks.1.mlp.W_in").is_none());
}

#[test]
fn gradients_of_activations_are_the_same_bits_without_those_of_weights() {
    let rotary = Config { positional_embedding_type: PositionalEmbeddingType::Rotary, gated_mlp: true, ..config() };
    for cfg in [config(), Config { use_split_qkv_input: true, use_attn_result: true, ..config() }, rotary] {
        let model = model(cfg);
        let tokens = IndexTensor::from([[1, 2, 3, 4], [5, 6, 7, 8]]);
        let ((value, cache), counts) = products(|| model.call(&tokens).cached_gradients(loss).unwrap());
        // Of a hook point that fires more than once, the last gradient.
        let mut seen = HashMap::new();
        let mut hooks = Hooks::new().bwd(
            |_: &str| true,
            |grad, info| {
                seen.insert(info.name.to_string(), grad.to_vec());
                Ok(())
            },
        );
        let ((whole, _), with_weights) = products(|| model.call(&tokens).hooks(&mut hooks).gradients(loss).unwrap());
        drop(hooks);
        assert_eq!(value, whole);
        assert!(seen.len() > 20);
        for (name, grad) in &seen {
            assert!(*grad == cache.grad(name.as_str()).unwrap().to_vec(), "{name}");
        }
        assert!(counts[1] < with_weights[1], "{counts:?} {with_weights:?}");
    }
}

#[test]
fn the_tape_begins_where_somebody_listens() {
    let model = model(config());
    let tokens = IndexTensor::from([[1, 2, 3, 4]]);
    let name = "blocks.1.hook_resid_mid";
    let ((_, late), counts) = products(|| model.call(&tokens).names(name).cached_gradients(loss).unwrap());
    assert_eq!(counts, [9, 3], "the gradient goes back through the unembedding and one MLP");
    let mut whole = Vec::new();
    let mut hooks = Hooks::new().bwd(name, |grad, _| {
        whole = grad.to_vec();
        Ok(())
    });
    model.call(&tokens).hooks(&mut hooks).gradients(loss).unwrap();
    drop(hooks);
    assert_eq!(late.grad(name).unwrap().to_vec(), whole);
    // A stream that is given has a gradient, too.
    let name = "blocks.1.hook_resid_pre";
    let (_, all) = model.call(&tokens).names(name).cached_gradients(loss).unwrap();
    let call = model.call(all.get(name).unwrap()).start_at_layer(1).names(name);
    let (_, given) = call.cached_gradients(loss).unwrap();
    assert_eq!(given.grad(name).unwrap().to_vec(), all.grad(name).unwrap().to_vec());
}

#[test]
fn a_step_by_borrowed_gradients_copies_no_weight() {
    let mut model = model(config());
    let tokens = IndexTensor::from([[1, 2, 3, 4], [5, 6, 7, 8]]);
    let places = |model: &HookedTransformer| -> Vec<*const f32> {
        model.params().slots().iter().map(|w| w.view().as_ptr()).collect()
    };
    let before = places(&model);
    let (_, grads) = model.call(&tokens).gradients(loss).unwrap();
    assert!(grads.norm() > 0.0);
    let step = AdamWStep { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 1 };
    let scale = Tensor::scalar(1.0, DType::F32, &Device::Cpu);
    let old = model.params().slots()[0].to_vec();
    for (w, grad) in model.params_mut().slots_mut().iter_mut().zip(grads.slots()) {
        let grad = grad.as_ref().unwrap();
        w.adamw(grad, &scale, &mut grad.zeros_like(), &mut grad.zeros_like(), &step);
    }
    assert_ne!(model.params().slots()[0].to_vec(), old);
    assert_eq!(places(&model), before);
    assert!(grads.get("embed.W_E").is_some());
}

#[test]
fn the_seed_is_the_caller_s_or_the_configuration_s() {
    let weights = |seed: Option<u64>, own: Option<u64>| {
        let cfg = Config { seed: own, ..config() };
        HookedTransformer::new(cfg, &Device::Cpu, seed).unwrap().param("embed.W_E").unwrap().to_vec()
    };
    assert_eq!(weights(None, Some(7)), weights(Some(7), None));
    assert_eq!(weights(Some(7), Some(8)), weights(Some(7), None));
    assert_eq!(weights(None, None), weights(Some(0), None));
    assert_ne!(weights(None, Some(7)), weights(None, None));
}

#[test]
fn a_model_beyond_memory_is_refused_before_it_is_built() {
    for (cfg, field) in [
        (Config { n_layers: 1_000_000_000, ..config() }, "`n_layers` is 1000000000"),
        (Config { d_model: 1_000_000_000, ..config() }, "`d_model` is 1000000000"),
        (Config { d_vocab: 1 << 50, ..config() }, "`d_vocab` is 1125899906842624"),
    ] {
        let error = HookedTransformer::new(cfg, &Device::Cpu, 0).unwrap_err().to_string();
        assert!(error.contains(field) && error.contains("memory"), "{error}");
    }
}

#[test]
fn a_frozen_part_of_a_stored_tensor_has_gradients_of_zero_that_no_norm_counts() {
    let (mut model, x) = (model(config()), IndexTensor::from([[1, 2, 3], [4, 5, 6]]));
    let (_, all) = model.call(&x).gradients(loss).unwrap();
    let frozen = "blocks.0.attn.W_Q";
    model.params_mut().freeze(|name| name == frozen);
    let (_, grads) = model.call(&x).gradients(loss).unwrap();
    assert!(grads.get(frozen).unwrap().to_vec().iter().all(|g| *g == 0.0));
    let beside = "blocks.0.attn.W_K";
    assert_eq!(grads.get(beside).unwrap().to_vec(), all.get(beside).unwrap().to_vec());
    let squares = |name: &str| all.get(name).unwrap().to_vec_f64().iter().map(|g| g * g).sum::<f64>();
    assert!(squares(frozen) > 0.0);
    let wanted = (all.norm().powi(2) - squares(frozen)).sqrt();
    assert!((grads.norm() - wanted).abs() < 1e-6 * wanted, "{} is not {wanted}", grads.norm());
}

#[test]
fn a_hook_that_leaves_no_token_is_refused() {
    let model = model(Config { use_hook_tokens: true, ..config() });
    for bad in [-1.0, f64::NAN, 1e9] {
        let mut hooks = Hooks::new().fwd("hook_tokens", move |ids, _| *ids = ids.affine(0.0, bad));
        let error = model.run_with_hooks(&IndexTensor::from([[1, 2]]), &mut hooks).unwrap_err().to_string();
        assert!(
            error.contains("hook_tokens") && error.contains(&bad.to_string()) && error.contains("knows 0 to"),
            "{error}"
        );
    }
}
