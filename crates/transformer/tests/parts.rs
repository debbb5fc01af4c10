//! Parts that TransformerLens does not have: their gradients, their hooks, and what padding does to them.

mod common;

use std::collections::BTreeMap;

use common::{architectures, base, experts, gpt_oss, llama, model, model_f64, tokens};
use ironlens_autograd::Var;
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::config::QkNormType;
use ironlens_transformer::{Config, HookedTransformer, Hooks, Leaves, Output, ReturnType, Slice};

/// A number that depends on every logit.
fn loss(out: &Output) -> Var {
    let logits = out.logits().log_softmax();
    let n = logits.value().numel();
    let weights = (0..n).map(|i| ((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0).collect();
    let weights = Tensor::from_vec_f64(weights, logits.shape()).to_dtype(logits.value().dtype());
    (logits * &Var::from(weights)).mean_all()
}

#[test]
fn gradients_are_those_of_central_differences() {
    let x = tokens(2, 7);
    for (what, cfg, own) in architectures() {
        let mut model = model_f64(cfg);
        let (_, grads) = model.call(&x).gradients(loss).unwrap();
        let names: Vec<String> = model.registry().params().map(|(n, _)| n.to_string()).collect();
        let mut largest = BTreeMap::new();
        for name in &names {
            let value = model.param(name).unwrap();
            // An expert that nothing was sent to has no gradient.
            let grad = grads.get(name).map_or(vec![0.0; value.numel()], |g| g.to_vec_f64());
            let at_most = (0..grad.len()).max_by(|a, b| grad[*a].abs().total_cmp(&grad[*b].abs())).unwrap();
            largest.insert(name.clone(), grad[at_most].abs());
            for at in [at_most, 0, grad.len() / 2] {
                let mut shifted = |by: f64| {
                    let mut values = value.to_vec_f64();
                    values[at] += by;
                    model.params_mut().set(name, &Tensor::from_vec_f64(values, value.shape())).unwrap();
                    model.call(&x).leaves(Leaves::None).gradients(loss).unwrap().0
                };
                let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                let difference = (numeric - grad[at]).abs();
                assert!(difference < 1e-8, "{what}: {name}[{at}] has {}, numerically {numeric}", grad[at]);
            }
            model.params_mut().set(name, &value).unwrap();
        }
        for part in own {
            let of_part: Vec<_> = largest.iter().filter(|(name, _)| name.contains(part)).collect();
            assert!(!of_part.is_empty(), "{what}: no parameter has {part} in its name");
            assert!(of_part.iter().any(|(_, g)| **g > 1e-5), "{what}: {of_part:?} do nothing");
        }
    }
}

#[test]
fn clamped_experts_have_the_gradient_of_their_clamps() {
    // Large enough that gates and inputs are cut off at 7.
    let mut model = model_f64(gpt_oss());
    let names: Vec<String> = model.registry().params().map(|(n, _)| n.to_string()).collect();
    for name in names.iter().filter(|n| n.contains("experts") && n.ends_with(".weight") && !n.contains("W_out")) {
        let large = model.param(name).unwrap() * 12.0;
        model.params_mut().set(name, &large).unwrap();
    }
    let x = tokens(2, 7);
    let (_, cache) = model.run_with_cache(&x).unwrap();
    for hook in ["hook_gate", "hook_pre"] {
        let values: Vec<f64> = (0..4)
            .flat_map(|e| cache.get(format!("blocks.1.mlp.experts.{e}.{hook}").as_str()).unwrap().to_vec_f64())
            .collect();
        assert!(values.iter().any(|v| *v > 7.0) && values.iter().any(|v| v.abs() < 7.0), "{hook}: {values:?}");
    }
    // Of the formula, for one expert's row.
    let post = cache.get("blocks.1.mlp.experts.0.hook_post").unwrap().to_vec_f64();
    let [gate, pre] =
        ["gate", "pre"].map(|h| cache.get(format!("blocks.1.mlp.experts.0.hook_{h}").as_str()).unwrap().to_vec_f64());
    assert!(!post.is_empty());
    for (i, post) in post.iter().enumerate() {
        let (g, u) = (gate[i].min(7.0), pre[i].clamp(-7.0, 7.0));
        let expected = (u + 1.0) * g / (1.0 + (-1.702 * g).exp());
        assert!((post - expected).abs() < 1e-12, "{post}, expected {expected}");
    }
    let (_, grads) = model.call(&x).gradients(loss).unwrap();
    for name in names.iter().filter(|n| n.contains("experts") && n.starts_with("blocks.1")) {
        let value = model.param(name).unwrap();
        let grad = grads.get(name).map_or(vec![0.0; value.numel()], |g| g.to_vec_f64());
        for at in [0, grad.len() / 3, grad.len() - 1] {
            let mut shifted = |by: f64| {
                let mut values = value.to_vec_f64();
                values[at] += by;
                model.params_mut().set(name, &Tensor::from_vec_f64(values, value.shape())).unwrap();
                model.call(&x).leaves(Leaves::None).gradients(loss).unwrap().0
            };
            let numeric = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
            assert!((numeric - grad[at]).abs() < 1e-6, "{name}[{at}] has {}, numerically {numeric}", grad[at]);
        }
        model.params_mut().set(name, &value).unwrap();
    }
}

/// Logits, loss and all gradients.
fn bits(model: &HookedTransformer, x: &IndexTensor, hooks: &mut Hooks<'_>) -> Vec<Vec<f32>> {
    let mut all = vec![model.run_with_hooks(x, hooks).unwrap().to_vec()];
    let (value, grads) = model.call(x).hooks(hooks).gradients(loss).unwrap();
    all.push(vec![value as f32]);
    let names = model.registry().params().map(|(n, s)| (n.to_string(), s.iter().product::<usize>()));
    all.extend(names.map(|(n, size)| grads.get(&n).map_or(vec![0.0; size], |g| g.to_vec())));
    all
}

#[test]
fn every_hook_fires_and_idle_ones_change_no_bit() {
    for (what, cfg, _) in architectures() {
        let switched = Config { use_hook_mlp_in: true, use_attn_result: true, ..cfg.clone() };
        for cfg in [cfg, switched] {
            let model = model(cfg);
            let x = tokens(2, 7);
            let plain = bits(&model, &x, &mut Hooks::new());
            let mut fired = BTreeMap::new();
            let mut hooks = Hooks::new().fwd(
                |_: &str| true,
                |_, info| {
                    *fired.entry(info.name.to_string()).or_insert(0) += 1;
                    Ok(())
                },
            );
            let all = bits(&model, &x, &mut hooks);
            drop(hooks);
            assert_same(&plain, &all, &format!("{what}: everywhere"));
            let firing: Vec<String> = model.registry().hooks().filter(|h| h.2).map(|h| h.0.to_string()).collect();
            for name in firing {
                assert!(fired.contains_key(&name), "{what}: {name} never fired");
                let hooked = bits(&model, &x, &mut Hooks::new().fwd(name.as_str(), |_, _| Ok(())));
                assert_same(&plain, &hooked, &format!("{what}: {name}"));
            }
        }
    }
}

/// Values bit for bit; gradients to rounding, since by parts their sums run in another order.
fn assert_same(plain: &[Vec<f32>], hooked: &[Vec<f32>], at: &str) {
    assert!(plain[..2] == hooked[..2], "an idle hook changed logits or loss; {at}");
    for (a, b) in plain.iter().zip(hooked) {
        let scale = a.iter().fold(1e-2f32, |m, v| m.max(v.abs()));
        let worst = a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs()));
        assert!(worst <= 3e-6 * scale, "an idle hook changed a gradient by {worst} of {scale}; {at}");
    }
}

#[test]
fn tokens_may_be_sent_to_any_expert_there_is() {
    for cfg in [experts(), Config { norm_topk_prob: false, d_shared_expert: 5, ..experts() }, gpt_oss()] {
        let model = model_f64(cfg.clone());
        let x = tokens(2, 5);
        let name = "blocks.1.mlp.hook_expert_indices";
        let run = |expert: f64| {
            let mut hooks = Hooks::new().fwd(name, move |chosen, _| {
                assert_eq!(chosen.shape(), [10, 2]);
                chosen.assign(|c| c.clone(), expert);
                Ok(())
            });
            model.run_with_hooks(&x, &mut hooks)
        };
        let plain = model.forward(&x).unwrap();
        let [first, last] = [0.0, 3.0].map(|e| run(e).unwrap());
        assert!(first.max_abs_diff(&plain).0 > 1e-4 && first.max_abs_diff(&last).0 > 1e-4);
        // Both choices are the first expert: its output, times the sum of the weights.
        let mut hooks = Hooks::new().fwd(name, |chosen, _| {
            chosen.assign(|c| c.clone(), 0.0);
            Ok(())
        });
        let (_, cache) = model.call(&x).hooks(&mut hooks).cached().unwrap();
        let post = cache.get("blocks.1.mlp.experts.0.hook_post").unwrap();
        assert_eq!(post.shape(), [20, 6]);
        assert_eq!(post.narrow(0, 0, 10).to_vec_f64(), post.narrow(0, 10, 10).to_vec_f64());
        assert_eq!(cache.get("blocks.1.mlp.experts.3.hook_post").unwrap().shape(), [0, 6]);
        let weights = cache.get("blocks.1.mlp.hook_expert_weights").unwrap().topk(2, 1).0.sum(&[1]).unsqueeze(1);
        let weights = if cfg.norm_topk_prob { weights.affine(0.0, 1.0) } else { weights };
        let w_out = model.param("blocks.1.mlp.experts.0.W_out.weight").unwrap();
        let mut expected = post.narrow(0, 0, 10).matmul(&w_out.t());
        if cfg.gpt_oss_experts {
            expected += model.param("blocks.1.mlp.experts.0.W_out.bias").unwrap();
        }
        expected = &expected * &weights;
        if cfg.d_shared_expert > 0 {
            let post = cache.get("blocks.1.mlp.shared_expert.hook_post").unwrap();
            let w_out = model.param("blocks.1.mlp.shared_expert.W_out.weight").unwrap();
            let shared = post.reshape(&[10, 5]).matmul(&w_out.t());
            let weight = cache.get("blocks.1.mlp.hook_shared_expert_weight").unwrap().reshape(&[10, 1]);
            expected += &shared * &weight;
        }
        let out = cache.get(("mlp_out", 1)).unwrap().reshape(&[10, 8]);
        assert!(out.max_abs_diff(&expected).0 < 1e-12, "{}", out.max_abs_diff(&expected).0);

        for beyond in [4.0, -1.0, 0.5, f64::NAN, f64::INFINITY] {
            let text = run(beyond).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains("there are 4, from 0 to 3"), "{text}");
        }
    }
}

/// Also with experts, whose tokens lie together with others' in a batch.
#[test]
fn a_sequence_alone_has_the_bits_that_it_has_in_a_batch() {
    for (what, cfg, _) in architectures() {
        let model = model(cfg);
        let x = tokens(5, 9);
        let logits = model.forward(&x).unwrap();
        for row in [0, 3] {
            let alone = model.forward(&x.rows(&[row])).unwrap();
            assert!(alone.to_vec() == logits.narrow(0, row, 1).to_vec(), "{what}: sequence {row}");
        }
        let short = model.forward(&x.narrow(1, 0, 4)).unwrap();
        assert!(short.to_vec() == logits.narrow(1, 0, 4).to_vec(), "{what}: earlier positions see later ones");
    }
}

#[test]
fn a_router_that_is_not_finite_is_seen_in_the_logits() {
    let model = model(experts());
    let mut hooks = Hooks::new().fwd("blocks.0.mlp.hook_expert_weights", |weights, _| {
        weights.assign(|w| w.narrow(0, 0, 1), f64::NAN);
        Ok(())
    });
    let logits = model.run_with_hooks(&tokens(1, 5), &mut hooks).unwrap().to_vec();
    assert!(logits.iter().all(|v| v.is_nan()), "the first token is seen by all");
}

#[test]
fn experts_get_the_best_of_their_router() {
    let model = model_f64(experts());
    let x = tokens(2, 6);
    let (_, cache) = model.run_with_cache(&x).unwrap();
    let probabilities = cache.get("blocks.0.mlp.hook_expert_weights").unwrap();
    let chosen = cache.get("blocks.0.mlp.hook_expert_indices").unwrap();
    assert_eq!((probabilities.shape(), chosen.shape()), (&[12, 4][..], &[12, 2][..]));
    let mut counts = [0; 4];
    for (p, chosen) in probabilities.to_vec_f64().chunks(4).zip(chosen.to_vec_f64().chunks(2)) {
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
        assert_eq!(chosen, [order[0] as f64, order[1] as f64]);
        chosen.iter().for_each(|e| counts[*e as usize] += 1);
    }
    for (e, count) in counts.iter().enumerate() {
        let post = cache.get(format!("blocks.0.mlp.experts.{e}.hook_post").as_str()).unwrap();
        assert_eq!(post.shape(), [*count, 6], "expert {e} sees the tokens that chose it, and no others");
    }
}

#[test]
fn sinks_take_their_share_of_attention() {
    let with = model_f64(Config { attn_sinks: true, ..base() });
    let x = tokens(1, 6);
    let (_, cache) = with.run_with_cache(&x).unwrap();
    let (scores, pattern) = (cache.get(("attn_scores", 0)).unwrap(), cache.get(("pattern", 0)).unwrap());
    let sinks = with.param("blocks.0.attn.sinks").unwrap().to_vec_f64();
    let rows = scores.to_vec_f64().into_iter().collect::<Vec<_>>();
    for (i, (scores, pattern)) in rows.chunks(6).zip(pattern.to_vec_f64().chunks(6)).enumerate() {
        let sink = sinks[i / 6];
        let total: f64 = scores.iter().map(|s| s.exp()).sum::<f64>() + sink.exp();
        for (s, p) in scores.iter().zip(pattern) {
            assert!((p - s.exp() / total).abs() < 1e-12);
        }
        assert!(pattern.iter().sum::<f64>() < 0.999);
    }
    // Sinks that weigh nothing are none.
    let (mut far, mut without) = (with.clone(), model_f64(base()));
    for (name, value) in with.params().iter().map(|(n, v)| (n.to_string(), v)).collect::<Vec<_>>() {
        match name.ends_with("sinks") {
            true => far.params_mut().set(&name, &value.affine(0.0, -1e4)).unwrap(),
            false => without.params_mut().set(&name, &value).unwrap(),
        }
    }
    let [far, without] = [far, without].map(|m| m.forward(&x).unwrap());
    assert!(far.max_abs_diff(&without).0 < 1e-12);
}

/// Sequences of 6, 4 and 5 tokens, padded to 7; where each begins.
fn padded(texts: &[Vec<u32>; 3], left: bool) -> (IndexTensor, IndexTensor, Vec<usize>) {
    let (mut tokens, mut mask, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for text in texts {
        let padding = 7 - text.len();
        let before = if left { padding } else { 0 };
        tokens.extend(std::iter::repeat_n(10, before).chain(text.iter().copied()));
        tokens.extend(std::iter::repeat_n(10, padding - before));
        mask.extend((0..7).map(|i| u32::from((before..before + text.len()).contains(&i))));
        starts.push(before);
    }
    (IndexTensor::new(tokens, &[3, 7]), IndexTensor::new(mask, &[3, 7]), starts)
}

#[test]
fn a_padded_batch_is_its_sequences_one_by_one() {
    let texts = [vec![3, 1, 4, 1, 5, 9], vec![2, 6, 5, 3], vec![5, 8, 9, 7, 9]];
    for (what, cfg, _) in architectures() {
        let model = model(cfg);
        for left in [true, false] {
            let (tokens, mask, starts) = padded(&texts, left);
            let call = model.call(&tokens).attention_mask(&mask).return_type(ReturnType::Both).loss_per_token();
            let out = call.output().unwrap();
            for (i, text) in texts.iter().enumerate() {
                let alone = IndexTensor::new(text.clone(), &[1, text.len()]);
                let alone = model.call(&alone).return_type(ReturnType::Both).loss_per_token().output().unwrap();
                let (len, start) = (text.len(), starts[i]);
                let logits = out.logits().value().select(0, i).narrow(0, start, len).unsqueeze(0);
                let difference = logits.max_abs_diff(alone.logits().value()).0;
                assert!(difference < 2e-5, "{what}, left {left}: sequence {i} differs by {difference}");
                let loss = out.loss().value().select(0, i).narrow(0, start, len - 1).unsqueeze(0);
                assert!(loss.max_abs_diff(alone.loss().value()).0 < 2e-5, "{what}: the loss of sequence {i}");
            }
        }
    }
}

#[test]
fn caches_of_experts_are_cut_by_item_where_there_are_items() {
    let (model, x) = (model(experts()), tokens(2, 5));
    let (_, cache) = model.run_with_cache(&x).unwrap();
    let (router, stream) = ("blocks.0.mlp.hook_expert_weights", "blocks.0.hook_resid_post");
    assert_eq!(cache[router].shape(), [10, 4], "rows of both items in one axis");
    let second = cache.clone().apply_slice_to_batch_dim(&Slice::At(1)).unwrap();
    assert_eq!(second[stream].to_vec(), cache[stream].narrow(0, 1, 1).to_vec());
    let missing = second.get(router).unwrap_err().to_string();
    assert!(missing.contains("no batch axis"), "{missing}");

    let (_, one) = model.run_with_cache(&x.narrow(0, 0, 1)).unwrap();
    let bare = one.clone().remove_batch_dim().unwrap();
    assert_eq!((bare[stream].shape(), bare[router].shape()), (&[5, 8][..], &[5, 4][..]));
    let wanted = model.call(&x.narrow(0, 0, 1)).remove_batch_dim().cached().unwrap().1;
    for (name, value) in &wanted {
        assert_eq!(bare[name].shape(), value.shape(), "{name}");
    }
    assert!(cache.remove_batch_dim().unwrap_err().to_string().contains("2 items"));
}

#[test]
fn ungrouped_heads_have_the_norms_of_their_group() {
    let x = tokens(2, 6);
    for kind in [QkNormType::Rms, QkNormType::RmsOfAllHeads, QkNormType::LayerNormPerHead] {
        let cfg = Config { use_qk_norm: true, qk_norm_type: kind, n_heads: 4, n_key_value_heads: 2, ..llama() };
        let mut model = model_f64(cfg);
        let grouped = model.forward(&x).unwrap();
        model.set_ungroup_grouped_query_attention(true).unwrap();
        let (ungrouped, cache) = model.run_with_cache(&x).unwrap();
        assert_eq!(cache[("k", 0)].shape(), [2, 6, 4, 4]);
        let (off, alike) = grouped.max_abs_diff(&ungrouped);
        assert!(alike && off < 1e-12, "{kind:?}: off by {off}");
    }
}

/// As a hook that does nothing makes them, and as TransformerLens has them.
#[test]
fn experts_that_nothing_comes_to_have_gradients_of_zero() {
    let mut model = model(experts());
    // One token goes to two of four experts.
    let x = tokens(1, 1);
    let (_, idle) = model.call(&x).gradients(loss).unwrap();
    model.add_perma_hook(|name: &str| name.contains("experts."), |_, _| {}).unwrap();
    let (_, hooked) = model.call(&x).gradients(loss).unwrap();
    let mut zeros = 0;
    for (name, _) in model.registry().params() {
        let [a, b] = [&idle, &hooked].map(|grads| grads.get(name).map(|g| g.to_vec()));
        assert_eq!(a, b, "{name}");
        zeros += usize::from(name.contains("experts.") && a.is_some_and(|g| g.iter().all(|v| *v == 0.0)));
    }
    assert_eq!(zeros, 2 * 2 * 3, "two experts of two layers, with three matrices each");
}
