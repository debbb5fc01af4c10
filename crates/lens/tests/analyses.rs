//! Analyses against what they must add up to.

mod common;

use common::{base, model, tokens};
use ironlens_lens::ablation::{Ablation, Parts, ablate, ablate_by_position, ablate_neurons};
use ironlens_lens::attribution::{attribution_patch, edge_attribution};
use ironlens_lens::heads::{HeadKind, head_scores, head_scores_by_position};
use ironlens_lens::logits::{
    Units, direct_logit_attribution, direct_logit_attribution_by_position, logit_lens, top_tokens,
};
use ironlens_lens::patching::PatchOptions;
use ironlens_lens::patterns::{attention_distance, attention_entropy};
use ironlens_lens::residual::stack_heads;
use ironlens_lens::svd::{Matrix, singular_vectors};
use ironlens_lens::{
    BatchItems, CacheExt, Composition, FactoredMatrix, Metric, Processing, StackOptions, Sublayers, WeightsExt,
    process_weights,
};
use ironlens_nn::Init;
use ironlens_tensor::{DType, Device, IndexTensor, Rng, Tensor};
use ironlens_transformer::config::QkNormType;
use ironlens_transformer::{
    ActFn, AttentionDir, Config, Head, HookedEncoder, HookedTransformer, Hooks, NormalizationType,
    PositionalEmbeddingType, Slice,
};

fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    let (difference, alike) = a.max_abs_diff(b);
    assert!(alike && difference <= tolerance, "differ by {difference}, shapes {:?} {:?}", a.shape(), b.shape());
}

#[test]
fn every_decomposition_adds_up_to_the_stream() {
    for cfg in
        [base(), Config { attn_only: true, ..base() }, Config { parallel_attn_mlp: true, gated_mlp: true, ..base() }]
    {
        let model = model(cfg);
        let (_, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
        let all = StackOptions::default();
        let stream = cache.get(("resid_post", -1)).unwrap();
        let sum = |t: &Tensor| t.sum(&[0]);
        assert_close(&sum(&cache.decompose_resid(&all, Sublayers::All, true).unwrap().values), stream, 2e-5);
        assert_close(&sum(&cache.stack_head_results(&all, true).unwrap().values), stream, 2e-5);
        for expand in [false, true] {
            let stack = cache.get_full_resid_decomposition(&all, expand).unwrap();
            assert_eq!(stack.values.dim(0), stack.labels.len());
            assert_close(&sum(&stack.values), stream, 5e-5);
        }
        // What layer 1's attention reads, at two positions, scaled as its norm did.
        let options = StackOptions {
            layer: Some(1),
            apply_ln: true,
            pos_slice: Slice::Indices(vec![-1, 2]),
            ..Default::default()
        };
        let scaled = cache.decompose_resid(&options, Sublayers::All, true).unwrap();
        assert_eq!(scaled.values.shape()[2], 2);
        let resid = cache.get(("resid_pre", 1)).unwrap();
        let scale = cache.get(("scale", 1, "ln1")).unwrap();
        let expected = options.pos_slice.apply(&(&resid.center() / scale), 1).unwrap();
        assert_close(&sum(&scaled.values), &expected, 2e-5);
    }
}

/// With all axes and without some, of all items and of some.
#[test]
fn stacks_are_scaled_in_the_axes_that_they_have() {
    let none = Config { normalization_type: NormalizationType::None, ..base() };
    for cfg in [base(), none, Config { normalization_type: NormalizationType::RMS, ..base() }] {
        let model = model(cfg);
        let (_, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
        let all = StackOptions::default();
        let last = StackOptions { pos_slice: Slice::At(-1), ..all.clone() };
        let stack = cache.decompose_resid(&all, Sublayers::All, true).unwrap().values;
        let (everything, second) = (&Slice::All, &Slice::At(1));
        let whole = cache.apply_ln_to_stack(&stack, &all, everything).unwrap();
        let sliced = BatchItems::of_sliced_stack(second);
        let of_second = stack.narrow(1, 1, 1);
        let apply =
            |stack: &Tensor, options, items: BatchItems| cache.apply_ln_to_stack(stack, options, items).unwrap();
        for (found, wanted) in [
            (apply(&stack, &all, second.into()), whole.narrow(1, 1, 1)),
            (apply(&of_second, &all, sliced.clone()), whole.narrow(1, 1, 1)),
            (apply(&of_second.squeeze(1), &all, sliced.clone()), whole.select(1, 1)),
            (apply(&stack.select(2, 5), &last, everything.into()), whole.select(2, 5)),
            (apply(&stack.select(2, 5), &last, second.into()), whole.select(2, 5).narrow(1, 1, 1)),
            (apply(&stack.select(0, 3), &all, everything.into()), whole.select(0, 3)),
            (apply(&stack.select(0, 3).select(1, 5), &last, everything.into()), whole.select(0, 3).select(1, 5)),
            (apply(&of_second.squeeze(1).select(1, 5), &last, sliced.clone()), whole.select(1, 1).select(1, 5)),
        ] {
            assert_close(&found, &wanted, 1e-6);
        }
        let text = cache.apply_ln_to_stack(&of_second, &all, second).unwrap_err().to_string();
        assert!(text.contains("batch = 2, pos = 6") && text.contains("of_sliced_stack"), "{text}");

        let ids = |ids: &[u32]| IndexTensor::new(ids.to_vec(), &[ids.len()]);
        let attrs = |stack: &Tensor, answers: &[u32], pos: &Slice, items: BatchItems| {
            cache.logit_attrs(stack, &ids(answers), None, pos, items).unwrap()
        };
        let found = attrs(&stack, &[3, 5], everything, everything.into());
        let by_hand = (&whole * &model.tokens_to_residual_directions(&ids(&[3, 5])).unwrap().unsqueeze(1)).sum(&[3]);
        assert_close(&found, &by_hand, 1e-6);
        for (other, wanted) in [
            (attrs(&stack, &[5], everything, second.into()), found.narrow(1, 1, 1)),
            (attrs(&of_second.squeeze(1), &[5], everything, sliced.clone()), found.select(1, 1)),
            (attrs(&stack.select(2, 5), &[3, 5], &Slice::At(-1), everything.into()), found.select(2, 5)),
            (attrs(&stack.select(0, 3), &[3, 5], everything, everything.into()), found.select(0, 3)),
        ] {
            assert_close(&other, &wanted, 1e-6);
        }
    }
}

#[test]
fn results_of_heads_are_put_into_the_cache() {
    let mut split = model(base());
    let (_, mut cache) = split.run_with_cache(&tokens(6)[0]).unwrap();
    split.set_use_attn_result(true).unwrap();
    let (_, own) = split.run_with_cache(&tokens(6)[0]).unwrap();
    let options = StackOptions { layer: Some(2), apply_ln: true, ..Default::default() };
    let before = cache.stack_head_results(&options, true).unwrap();
    assert!(cache.get(("result", 1)).is_err());
    cache.compute_head_results().unwrap();
    assert_close(&cache[("result", 1)], &own[("result", 1)], 1e-5);
    assert_close(&cache.stack_activation("result", None, None).unwrap().select(0, 2), &own[("result", 2)], 1e-5);
    assert_close(&cache.stack_head_results(&options, true).unwrap().values, &before.values, 1e-5);
    // The input of an MLP is not a sum of heads of earlier layers: nothing reads the field.
    let at_mlp = StackOptions { mlp_input: true, ..options };
    assert_close(&cache.stack_head_results(&at_mlp, true).unwrap().values, &before.values, 1e-5);
    let neurons = |options: &StackOptions| cache.stack_neuron_results(options, &Slice::Range(0, 2), true).unwrap();
    assert_close(&neurons(&at_mlp).values, &neurons(&options_of(&at_mlp)).values, 0.0);
    let text = cache.stack_activation("z", Some(4), None).unwrap_err().to_string();
    assert!(text.contains("layer 4") && text.contains("1 to 3"), "{text}");
}

#[test]
fn heads_of_an_encoder_are_what_its_attention_writes() {
    let cfg = Config { attention_dir: AttentionDir::Bidirectional, ..base() };
    let encoder = HookedEncoder::new(cfg, &Device::Cpu, 3).unwrap();
    let (_, cache) = encoder.call(&tokens(6)[0]).head(Head::None).cached().unwrap();
    let heads = stack_heads(&cache, None, &Slice::At(2)).unwrap();
    assert_eq!((heads.values.shape(), heads.labels.len()), (&[12, 2, 1, 24][..], 12));
    assert_eq!(heads.labels[5], "L1H1");
    let b_o = encoder.param("blocks.1.attn.b_O").unwrap();
    let written = heads.values.narrow(0, 4, 4).sum(&[0]) + &b_o;
    assert_close(&written, &cache[("attn_out", 1)].narrow(1, 2, 1), 1e-6);
    assert!(stack_heads(&cache, Some(4), &Slice::All).unwrap_err().to_string().contains("1 to 3"));
}

/// The same before attention.
fn options_of(at_mlp: &StackOptions) -> StackOptions {
    StackOptions { mlp_input: false, ..at_mlp.clone() }
}

#[test]
fn stacks_refuse_what_does_not_exist() {
    let model = model(base());
    let (_, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
    let beyond = StackOptions { layer: Some(4), ..Default::default() };
    let text = cache.decompose_resid(&beyond, Sublayers::All, true).unwrap_err().to_string();
    assert!(text.contains("layer cannot be 4") && text.contains("at most 3"), "{text}");
    let end = StackOptions { mlp_input: true, ..Default::default() };
    assert!(cache.accumulated_resid(&end, false).is_err());
    let stack = cache.decompose_resid(&StackOptions::default(), Sublayers::All, true).unwrap().values;
    let one = StackOptions { pos_slice: Slice::At(0), ..Default::default() };
    assert!(cache.apply_ln_to_stack(&stack, &one, &Slice::All).is_err(), "positions of stack and scale differ");
    let wrong = IndexTensor::from([[99, 1]]);
    assert!(cache.logit_attrs(&stack, &wrong, None, &Slice::All, &Slice::All).is_err());
}

#[test]
fn the_last_logit_lens_is_the_output() {
    let model = model(base());
    let (logits, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
    let stack = cache.accumulated_resid(&StackOptions::default(), true).unwrap();
    assert_eq!(stack.labels[..3], ["0_pre", "0_mid", "1_pre"]);
    let whole = logit_lens(&model, &stack.values, 0).unwrap();
    assert_close(&whole.select(0, 6), &logits, 0.0);
    assert_close(&logit_lens(&model, &stack.values, 5).unwrap(), &whole, 2e-6);
    let rows = Tensor::from(vec![0.5, 3.0, -1.0, 2.0, -7.0, -5.0, -6.0, -8.0]).reshape(&[1, 2, 4]);
    assert_eq!(top_tokens(&rows, 2), [vec![(1, 3.0), (3, 2.0)], vec![(1, -5.0), (2, -6.0)]]);
    // Capped logits come in pieces, too.
    let capped = common::model(Config { output_logits_soft_cap: 4.0, ..base() });
    let whole = logit_lens(&capped, &stack.values, 0).unwrap();
    assert!(whole.abs().max(&[0, 1, 2, 3]).item() < 4.0);
    assert_close(&logit_lens(&capped, &stack.values, 5).unwrap(), &whole, 2e-6);
}

#[test]
fn the_bars_of_a_logit_add_up_to_it() {
    let none = Config { normalization_type: NormalizationType::None, ..base() };
    let rms = Config { normalization_type: NormalizationType::RMS, final_rms: true, ..base() };
    for cfg in [base(), none, rms, Config { final_rms: true, ..base() }] {
        let model = model(cfg);
        let (logits, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
        let (right, wrong) = (IndexTensor::new(vec![3, 5], &[2]), IndexTensor::new(vec![4, 6], &[2]));
        let expected = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap().of(&logits);
        for units in [Units::Sublayers, Units::Heads] {
            let found = direct_logit_attribution(&cache, &right, Some(&wrong), -1, units).unwrap();
            assert!((found.total - expected).abs() < 1e-5, "{} and {expected}", found.total);
            assert!((found.values.iter().sum::<f64>() - expected).abs() < 1e-5);
            assert!(found.values.last().unwrap().abs() < 1e-4, "the remainder is rounding: {:?}", found.values);
            assert_eq!(found.top(2).len(), 2);

            // Of every position at once, they are those of each.
            let everywhere = |ids: &IndexTensor| IndexTensor::new(ids.as_slice().repeat(6), &[6, 2]).permute(&[1, 0]);
            let (rights, wrongs) = (everywhere(&right), everywhere(&wrong));
            let all = direct_logit_attribution_by_position(&cache, &rights, Some(&wrongs), units).unwrap();
            assert_eq!(all.values.shape(), [found.values.len() - 1, 2, 6]);
            for pos in 0..6 {
                let one = direct_logit_attribution(&cache, &right, Some(&wrong), pos as isize, units).unwrap();
                assert_eq!(one.labels[..all.labels.len()], all.labels);
                for (a, b) in all.values.select(2, pos).mean(&[1]).to_vec_f64().iter().zip(&one.values) {
                    assert!((a - b).abs() < 1e-6, "position {pos}: {a} and {b}");
                }
            }
            assert!(direct_logit_attribution_by_position(&cache, &right, None, units).is_err(), "one per position");
        }
    }
}

#[test]
fn effects_at_every_position_are_those_of_whole_passes() {
    let (model, [tokens, other]) = (model(base()), tokens(6));
    let loss = |logits: &Tensor| logits.cross_entropy(&tokens);
    for (parts, names) in
        [(Parts::Heads, "z"), (Parts::Mlps, "mlp_out"), (Parts::Attns, "attn_out"), (Parts::Patterns, "pattern")]
    {
        for by in [Ablation::Zero, Ablation::Mean(other.clone().into()), Ablation::Resample(other.clone().into())] {
            let all = ablate_by_position(&model, &tokens, &loss, parts, &by).unwrap();
            let metric = Metric::loss(tokens.clone());
            let mean = ablate(&model, &tokens, &metric, parts, &by, PatchOptions { plain: true, ..Default::default() });
            let wanted = mean.unwrap().values;
            let axes = [all.ndim() - 2, all.ndim() - 1];
            for (a, b) in all.mean(&axes).to_vec_f64().iter().zip(wanted.to_vec_f64()) {
                assert!((a - b).abs() < 1e-5, "{names}: {a} and {b}");
            }
        }
    }
    let one = ablate_by_position(&model, &tokens, &loss, Parts::Heads, &Ablation::Zero).unwrap();
    let mut hooks = Hooks::new().fwd("blocks.1.attn.hook_z", |z, _| {
        z.assign(|z| z.select(2, 3), 0.0);
        Ok(())
    });
    let by_hand = loss(&model.run_with_hooks(&tokens, &mut hooks).unwrap());
    for (a, b) in one.select(0, 1).select(0, 3).to_vec_f64().iter().zip(by_hand.to_vec_f64()) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn shares_by_position_add_up_to_the_scores() {
    let (model, [tokens, _]) = (model(base()), tokens(6));
    let kinds = HeadKind::ALL;
    let scores = head_scores(&model, &tokens, &kinds).unwrap();
    for (score, by_position) in scores.iter().zip(head_scores_by_position(&model, &tokens, &kinds).unwrap()) {
        assert_eq!(by_position.shape()[2], 6);
        for (a, b) in by_position.mean(&[2]).to_vec_f64().iter().zip(score.to_vec_f64()) {
            assert!((a - b).abs() < 1e-6, "{a} and {b}");
        }
    }
    let previous = &head_scores_by_position(&model, &tokens, &kinds[..1]).unwrap()[0];
    assert_eq!(previous.select(2, 0).to_vec_f64().iter().sum::<f64>(), 0.0, "nothing is before the first");
}

#[test]
fn ablations_do_what_hooks_do() {
    let (model, [tokens, other]) = (model(base()), tokens(6));
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let zero = ablate(&model, &tokens, &metric, Parts::Heads, &Ablation::Zero, PatchOptions::default()).unwrap();
    let mut hooks = Hooks::new().fwd("blocks.1.attn.hook_z", |z, _| {
        z.assign(|z| z.select(2, 3), 0.0);
        Ok(())
    });
    let by_hand = metric.of(&model.run_with_hooks(&tokens, &mut hooks).unwrap());
    assert!((zero.values.select(0, 1).select(0, 3).item() - by_hand).abs() < 1e-6);

    // The mean of one sequence twice is that sequence: nothing changes.
    let twice = IndexTensor::new([&tokens.as_slice()[..6], &tokens.as_slice()[..6]].concat(), &[2, 6]);
    let same =
        ablate(&model, &twice, &metric, Parts::Mlps, &Ablation::Mean(twice.clone().into()), PatchOptions::default())
            .unwrap();
    for value in same.values.to_vec_f64() {
        assert!((value - same.corrupted).abs() < 1e-6);
    }
    let resampled =
        ablate(&model, &tokens, &metric, Parts::Attns, &Ablation::Resample(other.into()), PatchOptions::default())
            .unwrap();
    assert!(resampled.values.to_vec_f64().iter().any(|v| (v - resampled.corrupted).abs() > 1e-4));
    let short = IndexTensor::from([[1, 2]]);
    assert!(
        ablate(&model, &tokens, &metric, Parts::Heads, &Ablation::Resample(short.into()), PatchOptions::default())
            .is_err()
    );

    let neurons =
        ablate_neurons(&model, &tokens, &metric, 1, PatchOptions { max_rows: 100, ..Default::default() }).unwrap();
    let mut hooks = Hooks::new().fwd("blocks.1.mlp.hook_post", |x, _| {
        x.assign(|x| x.select(2, 7), 0.0);
        Ok(())
    });
    let by_hand = metric.of(&model.run_with_hooks(&tokens, &mut hooks).unwrap());
    assert_eq!(neurons.shape(), [96]);
    assert!((neurons.select(0, 7).item() - by_hand).abs() < 2e-6);
}

#[test]
fn a_head_that_looks_everywhere_alike() {
    let mut model = model(Config { positional_embedding_type: PositionalEmbeddingType::Rotary, ..base() });
    for l in 0..3 {
        for name in ["W_Q", "b_Q"] {
            let name = format!("blocks.{l}.attn.{name}");
            let zero = model.param(&name).unwrap().zeros_like();
            model.params_mut().set(&name, &zero).unwrap();
        }
    }
    let (_, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
    let entropy = (1..=6).map(|n| f64::from(n).ln()).sum::<f64>() / 6.0;
    // A query at i looks back i/2 on average.
    let distance = (0..6).map(|i| f64::from(i) / 2.0).sum::<f64>() / 6.0;
    for (found, expected) in [(attention_entropy(&cache), entropy), (attention_distance(&cache), distance)] {
        let found = found.unwrap();
        assert_eq!(found.shape(), [3, 4]);
        found.to_vec_f64().iter().for_each(|v| assert!((v - expected).abs() < 1e-5, "{v}, expected {expected}"));
    }
}

#[test]
fn factored_matrices_are_what_they_multiply_to() {
    let mut rng = Rng::new(1, 1);
    let mut random = |shape: &[usize]| rng.normal(shape, 0.0, 1.0, &Device::Cpu);
    let m = FactoredMatrix::new(random(&[3, 7, 2]), random(&[1, 2, 7]));
    assert_eq!((m.shape(), m.mdim()), (vec![3, 7, 7], 2));
    let dense = m.ab();
    let svd = m.svd();
    assert_close(&(&svd.u * &svd.s.unsqueeze(1)).matmul(&svd.v.t()), &dense, 1e-5);
    assert_close(&svd.u.t().matmul(&svd.u), &Tensor::eye(2, dense.dtype(), &Device::Cpu).expand(&[3, 2, 2]), 1e-5);
    assert_close(&m.norm(), &dense.square().sum(&[1, 2]).sqrt(), 1e-5);
    assert_close(&m.make_even().ab(), &dense, 1e-5);
    assert_close(&m.t().ab(), &dense.t(), 1e-6);
    assert_close(&m.compose(&m).ab(), &dense.matmul(&dense), 1e-4);
    let wide = random(&[7, 9]);
    assert_close(&m.matmul(&wide).ab(), &dense.matmul(&wide), 1e-5);
    assert_close(&m.left_matmul(&wide.t()).ab(), &wide.t().matmul(&dense), 1e-5);
    assert_close(&m.apply(&wide.select(1, 0)), &dense.matmul(&wide.narrow(1, 0, 1)).squeeze(2), 1e-5);
    assert_close(&m.at(1).block((2, 3), (0, 7)).ab(), &dense.select(0, 1).narrow(0, 2, 3), 1e-6);
    assert_close(&m.get_corner(2), &dense.narrow(0, 0, 2).narrow(1, 0, 2).narrow(2, 0, 2), 1e-6);
    assert_close(&m.get_corner(5), &dense.narrow(1, 0, 5).narrow(2, 0, 5), 1e-6);
    let two = FactoredMatrix::new(random(&[3, 4, 5, 2]), random(&[3, 4, 2, 6]));
    assert_close(&two.select(1, -1).select(0, 2).ab(), &two.ab().select(0, 2).select(0, 3), 1e-6);
    assert_close(&two.select(1, 3).ab(), &two.ab().select(1, 3), 1e-6);
    assert_close(&two.at(1).at(0).ab(), &two.ab().select(0, 1).select(0, 0), 1e-6);
    assert_close(&m.unsqueeze(0).scale(2.0).ab(), &(&dense * 2.0).unsqueeze(0), 1e-5);
    // The trace is the sum of the eigenvalues.
    let (re, im) = m.eigenvalues();
    let trace = (&dense * &Tensor::eye(7, dense.dtype(), &Device::Cpu)).sum(&[1, 2]);
    assert_close(&re.sum(&[1]), &trace, 1e-4);
    assert_close(&im.sum(&[1]), &im.sum(&[1]).zeros_like(), 1e-5);
    // Collapsed factors have the product's norm.
    for collapsed in [m.collapse_l(), m.collapse_r()] {
        assert_close(&collapsed.square().sum(&[1, 2]).sqrt(), &m.norm(), 1e-5);
    }
}

#[test]
fn processing_keeps_the_function() {
    let solu = Config { act_fn: ActFn::SoluLn, ..base() };
    let rms = Config { normalization_type: NormalizationType::RMS, gated_mlp: true, n_key_value_heads: 2, ..base() };
    let none = Config { normalization_type: NormalizationType::None, ..base() };
    for (cfg, refactor) in
        [(base(), true), (solu, false), (rms, false), (none, true), (Config { attn_only: true, ..base() }, true)]
    {
        let model = model(cfg);
        let steps = Processing { refactor_factored_attn_matrices: refactor, ..Default::default() };
        let processed = process_weights(&model, steps).unwrap();
        let [before, after] = [&model, &processed].map(|m| m.forward(&tokens(6)[0]).unwrap().log_softmax());
        assert_close(&before, &after, 2e-5);
        // Norms are still there to look at, and centred weights are centred.
        let (_, cache) = processed.run_with_cache(&tokens(6)[0]).unwrap();
        let layer_norm = processed.config().normalization_type == NormalizationType::LNPre;
        assert_eq!(
            cache.contains(("normalized", 0, "ln1")),
            processed.config().normalization_type != NormalizationType::None
        );
        if layer_norm {
            let means = processed.w_o().unwrap().mean(&[3]);
            assert_close(&means, &means.zeros_like(), 1e-6);
        }
        assert_eq!(processed.b_v().unwrap().to_vec().iter().filter(|v| **v != 0.0).count(), 0);
        // Nothing is left to fold.
        assert!(process_weights(&processed, Processing::default()).is_ok());
    }
    let grouped = model(Config { n_key_value_heads: 2, ..base() });
    let steps = Processing { refactor_factored_attn_matrices: true, ..Default::default() };
    assert!(process_weights(&grouped, steps).unwrap_err().to_string().contains("grouped queries"));
}

/// With `like_transformerlens` off nothing changes what the model says, also where TransformerLens changes it.
#[test]
fn processing_of_ones_own_keeps_every_function() {
    let rms = Config { normalization_type: NormalizationType::RMS, ..base() };
    let rotary = Config { positional_embedding_type: PositionalEmbeddingType::Rotary, ..rms.clone() };
    let gated = Config { gated_mlp: true, ..base() };
    let experts = Config { num_experts: 4, experts_per_token: 2, gated_mlp: true, d_mlp: 10, ..rms.clone() };
    let qk_norm = |kind| Config { use_qk_norm: true, qk_norm_type: kind, ..base() };
    let cases = [
        // Whether norms can be folded.
        ("a gated MLP with biases", gated.clone(), false),
        ("biases before the product", Config { gate_bias: true, ..gated.clone() }, true),
        ("a final RMS norm", Config { final_rms: true, ..base() }, true),
        ("soft-capped logits", Config { output_logits_soft_cap: 4.0, ..base() }, true),
        ("shortformer", Config { positional_embedding_type: PositionalEmbeddingType::Shortformer, ..base() }, false),
        ("sinks", Config { attn_sinks: true, n_key_value_heads: 2, ..base() }, true),
        ("clipped", Config { clip_qkv: Some(0.3), ..base() }, true),
        ("experts", experts.clone(), false),
        ("experts after layer norms", Config { normalization_type: NormalizationType::LN, ..experts.clone() }, false),
        (
            "gpt-oss",
            Config {
                gpt_oss_experts: true,
                attn_sinks: true,
                dense_layers: vec![1],
                d_mlp_dense: 7,
                ..experts.clone()
            },
            false,
        ),
        ("a shared expert", Config { d_shared_expert: 5, norm_topk_prob: false, ..experts }, false),
        ("norms per head", qk_norm(QkNormType::LayerNormPerHead), true),
        ("norms of all heads", Config { n_key_value_heads: 2, ..qk_norm(QkNormType::RmsOfAllHeads) }, true),
        ("norms after only", Config { use_normalization_after_only: true, ..rotary.clone() }, true),
        ("xIELU", Config { act_fn: ActFn::Xielu, ..rotary.clone() }, true),
        ("squared ReLU", Config { act_fn: ActFn::Relu2, no_rope_layers: vec![0], ..rotary }, true),
        (
            "ALiBi's slopes",
            Config {
                positional_embedding_type: PositionalEmbeddingType::Alibi,
                alibi_slopes: vec![0.5, 0.1, 0.3, 0.2],
                ..base()
            },
            true,
        ),
    ];
    let x = &tokens(6)[0];
    for (what, cfg, foldable) in cases {
        let model = model(cfg).to_dtype(DType::F64);
        let kind = model.config().normalization_type;
        for fold_ln in [true, false] {
            let steps = Processing { like_transformerlens: false, fold_ln, ..Processing::default() };
            let processed = process_weights(&model, steps).unwrap();
            let [before, after] = [&model, &processed].map(|m| m.forward(x).unwrap().log_softmax());
            let (difference, _) = before.max_abs_diff(&after);
            assert!(difference < 1e-12, "{what}, fold_ln {fold_ln}: log-probabilities differ by {difference}");
            let folded = processed.config().normalization_type != kind;
            assert_eq!(folded, fold_ln && foldable, "{what}: from {kind}");
            // Nothing is left to do.
            let again = process_weights(&processed, steps).unwrap();
            assert!(again.forward(x).unwrap().log_softmax().max_abs_diff(&after).0 < 1e-12, "{what}: again");
        }
        // What TransformerLens does to it is another matter, but no panic.
        process_weights(&model, Processing::default()).unwrap();
    }
    // Biases of norms find a place in gated MLPs whose own are 0, as all published ones are.
    let mut model = model(gated);
    for l in 0..3 {
        let name = format!("blocks.{l}.mlp.b_in");
        let zero = model.param(&name).unwrap().zeros_like();
        model.params_mut().set(&name, &zero).unwrap();
    }
    let steps = Processing { like_transformerlens: false, ..Processing::default() };
    let processed = process_weights(&model, steps).unwrap();
    assert!(processed.config().gate_bias && processed.config().normalization_type == NormalizationType::LNPre);
    let [before, after] = [&model, &processed].map(|m| m.forward(x).unwrap().log_softmax());
    assert_close(&before, &after, 2e-5);
    let like = process_weights(&model, Processing::default()).unwrap();
    assert!(before.max_abs_diff(&like.forward(x).unwrap().log_softmax()).0 > 1e-3, "TransformerLens changes it");
}

#[test]
fn attention_that_is_no_function_of_qk_is_not_refactored() {
    for (cfg, why) in [
        (Config { use_qk_norm: true, ..base() }, "queries and keys"),
        (Config { clip_qkv: Some(1.0), ..base() }, "queries and keys"),
        (Config { attn_sinks: true, ..base() }, "sinks"),
    ] {
        let steps = Processing { refactor_factored_attn_matrices: true, ..Default::default() };
        let text = process_weights(&model(cfg), steps).unwrap_err().to_string();
        assert!(text.contains("refactoring QK") && text.contains(why), "{text}");
    }
}

/// Layer 1 has an MLP of its own width, the others have experts.
#[test]
fn what_is_asked_of_an_mlp_is_refused_by_layers_with_experts() {
    let cfg = Config {
        num_experts: 4,
        experts_per_token: 2,
        gated_mlp: true,
        d_mlp: 10,
        dense_layers: vec![1],
        d_mlp_dense: 14,
        ..base()
    };
    let model = model(cfg.clone());
    let x = &tokens(6)[0];
    let (logits, cache) = model.run_with_cache(x).unwrap();
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let (all, some) = (StackOptions::default(), Slice::Range(0, 3));
    let mut errors = vec![
        model.w_in().unwrap_err().to_string(),
        model.w_gate().unwrap_err().to_string(),
        model.w_out().unwrap_err().to_string(),
        model.b_in().unwrap_err().to_string(),
        model.b_out().unwrap_err().to_string(),
        model.accumulated_bias(3, false, true).unwrap_err().to_string(),
        cache.stack_neuron_results(&all, &some, true).unwrap_err().to_string(),
        cache.get_neuron_results(0, &some, &Slice::All).unwrap_err().to_string(),
        cache.get_full_resid_decomposition(&all, true).unwrap_err().to_string(),
        ablate_neurons(&model, x, &metric, 0, PatchOptions::default()).unwrap_err().to_string(),
    ];
    for matrix in [Matrix::WIn(0), Matrix::WOut(0)] {
        errors.push(singular_vectors(&model, matrix, 2).unwrap_err().to_string());
    }
    for text in &errors {
        assert!(text.contains("layer 0 has 4") && text.contains("expert"), "{text}");
        assert!(text.contains("blocks.0.mlp.experts.0.W_in.weight"), "{text}");
        assert!(model.param("blocks.0.mlp.experts.0.W_in.weight").is_ok());
    }
    // The layer without experts answers, and so does what is about whole sublayers.
    assert_eq!(cache.get_neuron_results(1, &Slice::All, &Slice::All).unwrap().shape(), [2, 6, 14, 24]);
    assert_eq!(ablate_neurons(&model, x, &metric, 1, PatchOptions::default()).unwrap().shape(), [14]);
    assert!(
        singular_vectors(&model, Matrix::WOut(1), 2).is_ok() && singular_vectors(&model, Matrix::WIn(1), 2).is_ok()
    );
    assert!(model.w_q().is_ok() && model.accumulated_bias(3, false, false).is_ok());
    let stream = cache.get(("resid_post", -1)).unwrap();
    let parts = cache.get_full_resid_decomposition(&all, false).unwrap();
    assert_close(&parts.values.sum(&[0]), stream, 5e-5);
    let mlps = ablate(&model, x, &metric, Parts::Mlps, &Ablation::Zero, PatchOptions::default()).unwrap();
    assert_eq!(mlps.values.shape(), [3]);
    let (right, wrong) = (IndexTensor::new(vec![3, 5], &[2]), IndexTensor::new(vec![4, 6], &[2]));
    for units in [Units::Sublayers, Units::Heads] {
        let found = direct_logit_attribution(&cache, &right, Some(&wrong), -1, units).unwrap();
        assert!((found.values.iter().sum::<f64>() - metric.of(&logits)).abs() < 1e-5);
    }

    // Widths may differ from layer to layer only where there are experts; labels follow the layer's own.
    let first = common::model(Config { dense_layers: vec![0], ..cfg });
    let (_, cache) = first.run_with_cache(x).unwrap();
    let options = StackOptions { layer: Some(1), ..Default::default() };
    let stack = cache.stack_neuron_results(&options, &Slice::All, true).unwrap();
    assert_eq!((stack.values.dim(0), stack.labels.len(), stack.labels[13].as_str()), (15, 15, "L0N13"));
    assert_close(&stack.values.sum(&[0]), cache.get(("resid_pre", 1)).unwrap(), 2e-5);
}

#[test]
fn norms_after_sublayers_are_refused_where_parts_must_add_up() {
    let rms = NormalizationType::RMS;
    for cfg in [
        Config { use_normalization_after_only: true, normalization_type: rms, ..base() },
        Config { use_normalization_before_and_after: true, normalization_type: rms, ..base() },
    ] {
        let model = model(cfg);
        let [clean, corrupted] = tokens(6);
        let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
        let texts = [
            ablate_neurons(&model, &clean, &metric, 0, PatchOptions::default()).unwrap_err().to_string(),
            edge_attribution(&model, &clean, &corrupted, &metric, 1).map(|_| ()).unwrap_err().to_string(),
        ];
        for text in texts {
            assert!(text.contains("use_normalization_after_only") && text.contains("add up"), "{text}");
        }
    }
}

#[test]
fn singular_directions_are_those_of_the_matrix() {
    let model = model(base());
    let found = singular_vectors(&model, Matrix::WOut(1), 3).unwrap();
    assert_eq!((found.values.shape(), found.logits.shape()), (&[3][..], &[17, 3][..]));
    // W_out V has columns as long as the singular values.
    let w = model.param("blocks.1.mlp.W_out").unwrap();
    let all = FactoredMatrix::new(w.clone(), Tensor::eye(24, w.dtype(), &Device::Cpu)).svd();
    assert_close(&found.values, &all.s.narrow(0, 0, 3), 1e-5);
    assert_close(&w.matmul(&all.v).square().sum(&[0]).sqrt(), &all.s, 1e-5);
    assert!(singular_vectors(&model, Matrix::Ov(0, 1), 7).is_err(), "a head has d_head directions");
    assert!(singular_vectors(&model, Matrix::Ov(0, 9), 1).is_err());
    assert_eq!(singular_vectors(&model, Matrix::WIn(0), 2).unwrap().logits.shape(), [17, 2]);
}

#[test]
fn composition_looks_back_only() {
    let model = model(base());
    let scores = model.all_composition_scores(Composition::V).unwrap();
    assert_eq!(scores.shape(), [3, 4, 3, 4]);
    let between = |a: usize, b: usize| scores.select(0, a).select(1, b).to_vec();
    assert!(between(1, 0).iter().chain(&between(1, 1)).all(|v| *v == 0.0));
    assert!(between(0, 2).iter().all(|v| *v > 0.0 && *v <= 1.0));
    // By definition, for one pair.
    let (l, r) = (model.ov().unwrap().at(0).at(1).ab(), model.ov().unwrap().at(2).at(3).ab());
    let norm = |t: &Tensor| t.norm();
    let expected = norm(&l.matmul(&r)) / norm(&l) / norm(&r);
    assert!((scores.select(0, 0).select(0, 1).select(0, 2).select(0, 3).item() - expected).abs() < 1e-5);
}

#[test]
fn attribution_of_what_is_hidden_or_comes_and_goes() {
    let [clean, corrupted] = tokens(6);
    let metric = Metric::logit_diff(&[3], &[5]).unwrap();
    let model_of = |cfg| model(cfg);
    let scores = |cfg: Config, name: &str| {
        attribution_patch(&model_of(cfg), clean.rows(&[0]), corrupted.rows(&[0]), &metric, name, 1)
    };
    // Hidden attention scores are negative infinity in both runs.
    let hidden = scores(base(), "blocks.1.attn.hook_attn_scores").unwrap();
    assert!(hidden.scores[0].1.all_finite() && hidden.scores[0].1.to_vec().iter().any(|v| *v != 0.0));
    // Other tokens come to an expert in each run.
    let experts = Config { num_experts: 4, experts_per_token: 1, gated_mlp: true, act_fn: ActFn::Silu, ..base() };
    let refused = (0..4).filter_map(|e| scores(experts.clone(), &format!("blocks.0.mlp.experts.{e}.hook_post")).err());
    let texts: Vec<String> = refused.map(|error| error.to_string()).collect();
    assert!(!texts.is_empty() && texts.iter().all(|t| t.contains("hook_post") && t.contains("clean run")), "{texts:?}");
}

#[test]
fn distances_need_the_queries_of_all_positions() {
    let model = model(base());
    let (_, cache) = model.call(&tokens(6)[0]).pos_slice(Slice::At(-1)).cached().unwrap();
    let text = attention_distance(&cache).unwrap_err().to_string();
    assert!(text.contains("1 queries of 6 positions"), "{text}");
    assert!(attention_entropy(&cache).is_ok());
}

#[test]
#[should_panic(expected = "token 4000; there are")]
fn a_metric_of_a_token_that_has_no_logit_is_refused() {
    let model = model(base());
    Metric::logit_diff(&[4000, 1], &[0, 0]).unwrap().of(&model.forward(&tokens(6)[0]).unwrap());
}

#[test]
fn answers_of_another_shape_are_refused() {
    let model = model(base());
    let (_, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
    let stack = cache.decompose_resid(&StackOptions::default(), Sublayers::All, true).unwrap().values;
    let batch = tokens(6)[0].shape()[0];
    let too_many = IndexTensor::new(vec![1; batch + 1], &[batch + 1]);
    let text = cache.logit_attrs(&stack, &too_many, None, &Slice::All, &Slice::All).unwrap_err().to_string();
    assert!(text.contains(&format!("[{}]", batch + 1)), "{text}");
    let right = IndexTensor::new(vec![1; batch], &[batch]);
    let one = IndexTensor::new(vec![2], &[1]);
    let text = direct_logit_attribution(&cache, &right, Some(&one), -1, Units::Heads).unwrap_err().to_string();
    assert!(text.contains("incorrect tokens") && text.contains(&batch.to_string()), "{text}");
}

/// A model whose matrices are stored in 16 bits, and the same in `f32`.
#[test]
fn analyses_of_weights_in_16_bits_are_those_of_the_widened_ones() {
    let mut stored = model(base());
    stored.params_mut().store_as(DType::Bf16);
    let mut wide = stored.clone();
    wide.params_mut().store_as(DType::F32);
    let x = &tokens(6)[0];
    let both = |f: &dyn Fn(&HookedTransformer) -> Tensor| {
        let [a, b] = [&stored, &wide].map(f);
        assert_eq!((a.dtype(), a.to_vec()), (DType::F32, b.to_vec()));
    };
    let options = StackOptions::default();
    both(&|m| m.run_with_cache(x).unwrap().1.get_full_resid_decomposition(&options, true).unwrap().values);
    both(&|m| m.run_with_cache(x).unwrap().1.get_neuron_results(0, &Slice::All, &Slice::All).unwrap());
    both(&|m| {
        let metric = Metric::logit_diff(&vec![3; x.shape()[0]], &vec![5; x.shape()[0]]).unwrap();
        ablate_neurons(m, x, &metric, 1, PatchOptions::default()).unwrap()
    });
    for matrix in [Matrix::Ov(0, 1), Matrix::WIn(1), Matrix::WOut(0)] {
        both(&|m| singular_vectors(m, matrix, 2).unwrap().logits);
        both(&|m| singular_vectors(m, matrix, 2).unwrap().values);
    }
    both(&|m| m.ov().unwrap().singular_values());
    both(&|m| m.qk().unwrap().ab());
    both(&|m| m.all_composition_scores(Composition::Q).unwrap());
    // And they can be drawn anew.
    stored.params_mut().init_where(|name| name.contains("W_in"), Init::Constant(0.5), 0);
    assert_eq!(stored.param("blocks.0.mlp.W_in").unwrap().dtype(), DType::Bf16);
}
