//! Patching: what is run again gives the numbers of a whole pass; paths and estimates do what they say.

mod common;

use common::{base, model, tokens};
use ironlens_autograd::Var;
use ironlens_lens::ablation::ablate_neurons;
use ironlens_lens::attribution::{attribution_patch, edge_attribution};
use ironlens_lens::patching::path::{Receiver, Sender, direct_path_patch};
use ironlens_lens::patching::{
    self, Axis, Cells, Method, PatchOptions, PatchResult, Patching, generic_activation_patch,
};
use ironlens_lens::steering::dose_response;
use ironlens_lens::{LensError, Metric, SteeringVector};
use ironlens_tensor::{DType, IndexTensor, Tensor, profile};
use ironlens_transformer::config::{QkNormType, RopeScaling};
use ironlens_transformer::{
    ActFn, ActivationCache, AttentionDir, AttnType, Config, HookedTransformer, Hooks, NormalizationType,
    PositionalEmbeddingType,
};

type Sweep = fn(
    &HookedTransformer,
    &IndexTensor,
    &ActivationCache,
    &Metric<'_>,
    PatchOptions<'_>,
) -> Result<PatchResult, LensError>;

const SWEEPS: [(&str, Sweep); 15] = [
    ("resid_pre", patching::get_act_patch_resid_pre),
    ("resid_mid", patching::get_act_patch_resid_mid),
    ("attn_out", patching::get_act_patch_attn_out),
    ("mlp_out", patching::get_act_patch_mlp_out),
    ("out_by_pos", patching::get_act_patch_attn_head_out_by_pos),
    ("q_by_pos", patching::get_act_patch_attn_head_q_by_pos),
    ("k_by_pos", patching::get_act_patch_attn_head_k_by_pos),
    ("v_by_pos", patching::get_act_patch_attn_head_v_by_pos),
    ("pattern_by_pos", patching::get_act_patch_attn_head_pattern_by_pos),
    ("pattern_dest_src", patching::get_act_patch_attn_head_pattern_dest_src_pos),
    ("out_all_pos", patching::get_act_patch_attn_head_out_all_pos),
    ("q_all_pos", patching::get_act_patch_attn_head_q_all_pos),
    ("k_all_pos", patching::get_act_patch_attn_head_k_all_pos),
    ("v_all_pos", patching::get_act_patch_attn_head_v_all_pos),
    ("pattern_all_pos", patching::get_act_patch_attn_head_pattern_all_pos),
];

fn architectures() -> Vec<(&'static str, Config)> {
    let rotary = Config { positional_embedding_type: PositionalEmbeddingType::Rotary, ..base() };
    vec![
        ("gpt2", base()),
        ("attention only", Config { attn_only: true, ..base() }),
        ("rotary, partly, parallel", Config { rotary_dim: 4, parallel_attn_mlp: true, ..rotary.clone() }),
        (
            "grouped, gated, RMS",
            Config {
                n_key_value_heads: 2,
                gated_mlp: true,
                normalization_type: NormalizationType::RMS,
                ..rotary.clone()
            },
        ),
        ("ungrouped", Config { n_key_value_heads: 2, ungroup_grouped_query_attention: true, ..base() }),
        (
            "query and key norms",
            Config { use_qk_norm: true, normalization_type: NormalizationType::RMS, ..rotary.clone() },
        ),
        ("ALiBi", Config { positional_embedding_type: PositionalEmbeddingType::Alibi, ..base() }),
        (
            "ALiBi in bf16",
            Config { positional_embedding_type: PositionalEmbeddingType::Alibi, alibi_bf16: true, ..base() },
        ),
        ("shortformer", Config { positional_embedding_type: PositionalEmbeddingType::Shortformer, ..base() }),
        (
            "windows",
            Config {
                use_local_attn: true,
                window_size: 3,
                attn_types: vec![AttnType::Local, AttnType::Global, AttnType::Local],
                ..base()
            },
        ),
        ("both directions", Config { attention_dir: AttentionDir::Bidirectional, ..base() }),
        (
            "norms after",
            Config { use_normalization_before_and_after: true, normalization_type: NormalizationType::RMS, ..base() },
        ),
        (
            "soft caps, no norm",
            Config {
                attn_scores_soft_cap: 3.0,
                output_logits_soft_cap: 4.0,
                normalization_type: NormalizationType::None,
                ..base()
            },
        ),
        ("inputs split", Config { use_split_qkv_input: true, use_attn_result: true, use_hook_mlp_in: true, ..base() }),
        (
            "gpt-oss",
            Config {
                num_experts: 4,
                experts_per_token: 2,
                gpt_oss_experts: true,
                gated_mlp: true,
                d_mlp: 10,
                n_key_value_heads: 2,
                attn_sinks: true,
                use_local_attn: true,
                window_size: 3,
                attn_types: vec![AttnType::Local, AttnType::Global, AttnType::Local],
                normalization_type: NormalizationType::RMS,
                ..rotary.clone()
            },
        ),
        (
            "a shared expert, a layer without",
            Config {
                num_experts: 4,
                experts_per_token: 2,
                norm_topk_prob: false,
                d_shared_expert: 7,
                dense_layers: vec![1],
                gated_mlp: true,
                d_mlp: 10,
                ..base()
            },
        ),
        ("sinks", Config { attn_sinks: true, ..base() }),
        (
            "norms of all heads, after only",
            Config {
                use_qk_norm: true,
                qk_norm_type: QkNormType::RmsOfAllHeads,
                n_key_value_heads: 2,
                use_normalization_after_only: true,
                normalization_type: NormalizationType::RMS,
                ..rotary.clone()
            },
        ),
        (
            "norms per head, clipped, xIELU",
            Config {
                use_qk_norm: true,
                qk_norm_type: QkNormType::LayerNormPerHead,
                clip_qkv: Some(0.4),
                act_fn: ActFn::Xielu,
                ..base()
            },
        ),
        (
            "LongRoPE of long texts, not in every layer, a bias of the gate",
            Config {
                rope_scaling: Some(RopeScaling::LongRope {
                    short: vec![1.0; 3],
                    long: vec![2.0, 3.0, 9.0],
                    context: 5,
                    attention_factor: 1.2,
                }),
                no_rope_layers: vec![1],
                gated_mlp: true,
                gate_bias: true,
                ..rotary
            },
        ),
    ]
}

/// Running again adds in another order than a whole pass: they agree to rounding, in double precision
/// too.
const ROUNDING: [(DType, f64); 2] = [(DType::F64, 4e-15), (DType::F32, 2e-6)];

#[test]
fn running_again_agrees_with_running_whole() {
    let [clean, corrupted] = tokens(7);
    let cases = architectures().into_iter().flat_map(|(what, cfg)| ROUNDING.map(|r| (what, cfg.clone(), r)));
    for (what, cfg, (dtype, rounding)) in cases {
        let (no_mid, no_mlp) = (cfg.attn_only || cfg.parallel_attn_mlp, cfg.attn_only);
        let model = model(cfg).to_dtype(dtype);
        let (logits, cache) = model.run_with_cache(&clean).unwrap();
        // A small difference of large logits is rounded as they are.
        let largest = |t: &Tensor| t.abs().max(&(0..t.ndim()).collect::<Vec<_>>()).item();
        let last = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
        let all = Metric::all(|logits| logits.square().mean_all());
        for (name, sweep) in SWEEPS {
            for metric in [&last, &all] {
                let run = |plain| {
                    sweep(
                        &model,
                        &corrupted,
                        &cache,
                        metric,
                        PatchOptions { plain, max_rows: 60, ..Default::default() },
                    )
                };
                if (name == "resid_mid" && no_mid) || (name == "mlp_out" && no_mlp) {
                    assert!(matches!(run(false), Err(LensError::Cache(_))), "{what}: {name}");
                    continue;
                }
                let (fast, slow) = (run(false).unwrap(), run(true).unwrap());
                assert_eq!((&fast.method, fast.values.shape()), (&Method::Rerun, slow.values.shape()));
                let (difference, _) = fast.values.max_abs_diff(&slow.values);
                let size = largest(&slow.values).max(largest(&logits));
                assert!(difference <= rounding * size, "{what}, {dtype:?}: {name} differs by {difference} of {size}");
            }
        }
    }
}

#[test]
fn cells_of_ones_own() {
    let (model, [clean, corrupted]) = (model(base()).to_dtype(DType::F64), tokens(6));
    let (_, cache) = model.run_with_cache(&clean).unwrap();
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    // Doubles two positions, which no built-in sweep does.
    let setter = |index: &[usize], x: &mut Tensor, _: &Tensor| {
        let at = index[1];
        let doubled = &x.narrow(1, at, 2) * 2.0;
        x.assign(move |x: &Tensor| x.narrow(1, at, 2), &doubled);
    };
    let list = Cells::List(vec![vec![0, 1], vec![2, 3], vec![1, 0]]);
    let run = |name: &str, plain| {
        let options = PatchOptions { plain, ..Default::default() };
        generic_activation_patch(&model, &corrupted, &cache, &metric, name, &list, &setter, options).unwrap()
    };
    for name in ["resid_pre", "z", "v", "resid_post", "attn_out"] {
        let (difference, _) = run(name, false).values.max_abs_diff(&run(name, true).values);
        assert!(difference < 1e-14, "{name}: {difference}");
    }
    // Without the whole reach known, a whole pass; and the result says so.
    let result = run("post", false);
    assert!(matches!(&result.method, Method::Plain(why) if why.contains("`post`")), "{:?}", result.method);
    assert_eq!((result.values.shape(), result.axes.len()), (&[3][..], 0));
    let values = Tensor::from(vec![1.0, 2.0, 4.0, 9.0]).reshape(&[2, 2]);
    let of_four = PatchResult { values, ..result }.statistics();
    assert_eq!((of_four.mean, of_four.std, of_four.min, of_four.max), (4.0, 9.5f64.sqrt(), 1.0, 9.0));
}

#[test]
fn a_full_patch_brings_the_clean_answer_back() {
    let (model, [clean, corrupted]) = (model(base()), tokens(6));
    let (logits, cache) = model.run_with_cache(&clean).unwrap();
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let everything = |_: &[usize], x: &mut Tensor, clean: &Tensor| *x = clean.clone();
    let cells = Cells::Axes(vec![Axis::Layer]);
    let mut told = Vec::new();
    let mut progress = |done, total| told.push((done, total));
    let options = PatchOptions { progress: Some(&mut progress), ..Default::default() };
    let result =
        generic_activation_patch(&model, &corrupted, &cache, &metric, "resid_pre", &cells, &everything, options)
            .unwrap();
    for share in result.normalized(metric.of(&logits)).to_vec() {
        assert!((share - 1.0).abs() < 1e-4, "{share}");
    }
    assert_eq!(told.last(), Some(&(3, 3)));
}

#[test]
fn a_cache_of_other_sizes_is_refused() {
    let (model, [clean, corrupted]) = (model(base()), tokens(6));
    let (_, cache) = model.run_with_cache(&tokens(5)[0]).unwrap();
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let error = patching::get_act_patch_attn_out(&model, &corrupted, &cache, &metric, PatchOptions::default());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("[2, 5, 24]") && text.contains("[2, 6]"), "{text}");
    assert!(Metric::logit_diff(&[1], &[]).is_err());
    let error = direct_path_patch(
        &model,
        &clean,
        &corrupted,
        &metric,
        Sender::Head(9, 0),
        &[Receiver::Logits],
        PatchOptions::default(),
    );
    assert!(error.unwrap_err().to_string().contains("L9H0"));
}

#[test]
fn one_path_is_patched_and_no_other() {
    let (model, [clean, corrupted]) = (model(base()), tokens(6));
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let receivers =
        [Receiver::Value(1, 2), Receiver::Mlp(0), Receiver::Mlp(2), Receiver::Query(0, 1), Receiver::Logits];
    let values =
        direct_path_patch(&model, &clean, &corrupted, &metric, Sender::Head(0, 1), &receivers, PatchOptions::default())
            .unwrap();

    // By hand: the head's two outputs, and one reader that sees their difference.
    let mut split = model.clone();
    split.set_use_split_qkv_input(true).unwrap();
    split.set_use_hook_mlp_in(true).unwrap();
    split.set_use_attn_result(true).unwrap();
    let result = |tokens| split.run_with_cache(tokens).unwrap().1.get(("result", 0)).unwrap().select(2, 1);
    let difference = result(&clean) - result(&corrupted);
    let with = |hook: &str, head: Option<usize>| {
        let mut hooks = Hooks::new().fwd(hook, |x, _| {
            let mut value = x.value().contiguous();
            let part = |t: &Tensor| head.map_or(t.clone(), |h| t.select(2, h));
            let new = &part(&value) + &difference;
            value.assign(part, &new);
            *x = Var::from(value);
            Ok(())
        });
        metric.of(&split.run_with_hooks(&corrupted, &mut hooks).unwrap())
    };
    let untouched = metric.of(&model.forward(&corrupted).unwrap());
    let expected = [
        with("blocks.1.hook_v_input", Some(2)),
        with("blocks.0.hook_mlp_in", None),
        with("blocks.2.hook_mlp_in", None),
        untouched,
        with("blocks.2.hook_resid_post", None),
    ];
    for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
        assert!((value - expected).abs() < 2e-6, "{:?}: {value}, expected {expected}", receivers[i]);
    }
    assert!((values[0] - untouched).abs() > 1e-5 && values[0] != values[1]);
}

#[test]
fn estimates_are_exact_where_the_model_is_linear() {
    let cfg = Config { normalization_type: NormalizationType::None, ..base() };
    let (model, [clean, corrupted]) = (model(cfg), tokens(6));
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let [m_clean, m_corrupted] = [&clean, &corrupted].map(|t| metric.of(&model.forward(t).unwrap()));
    // After the last block only the unembedding follows.
    let last = "blocks.2.hook_resid_post";
    let nodes = attribution_patch(&model, &clean, &corrupted, &metric, last, 1).unwrap();
    assert!((nodes.totals()[0].1 - (m_clean - m_corrupted)).abs() < 1e-5);
    assert_eq!(nodes.get(last).unwrap().shape(), [2, 6, 24]);

    let edges = edge_attribution(&model, &clean, &corrupted, &metric, 1).unwrap();
    let to_logits = edges.receivers.iter().position(|r| r == "logits").unwrap();
    let heads = [Sender::Head(0, 1), Sender::Mlp(1), Sender::Embed];
    for (sender, label) in heads.into_iter().zip(["L0H1", "mlp1", "embed"]) {
        let exact = direct_path_patch(
            &model,
            &clean,
            &corrupted,
            &metric,
            sender,
            &[Receiver::Logits],
            PatchOptions::default(),
        )
        .unwrap()[0]
            - m_corrupted;
        let row = edges.senders.iter().position(|s| s == label).unwrap();
        let estimate = edges.scores.select(0, row).select(0, to_logits).item();
        assert!((estimate - exact).abs() < 1e-5, "{label}: {estimate}, exactly {exact}");
    }
    let backwards = edges.senders.iter().position(|s| s == "mlp2").unwrap();
    assert_eq!(
        edges.scores.select(0, backwards).select(0, 0).item(),
        0.0,
        "a later part does not reach an earlier one"
    );
    let mut largest = edges.scores.to_vec_f64();
    largest.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
    let top = edges.top(3);
    assert_eq!(top.iter().map(|(_, _, score)| *score).collect::<Vec<_>>(), largest[..3]);
    let place = |names: &[String], name: &str| names.iter().position(|n| n == name).unwrap();
    for (sender, receiver, score) in top {
        let row = edges.scores.select(0, place(&edges.senders, sender));
        assert_eq!(row.select(0, place(&edges.receivers, receiver)).item(), score);
    }
}

/// The senders that come before a receiver are all that differs in what it reads.
#[test]
fn edges_into_a_receiver_add_up_to_the_node() {
    for cfg in [base(), Config { n_key_value_heads: 2, parallel_attn_mlp: true, ..base() }] {
        let (model, [clean, corrupted]) = (model(cfg), tokens(6));
        let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
        let mut split = model.clone();
        split.set_use_split_qkv_input(true).unwrap();
        split.set_use_hook_mlp_in(true).unwrap();
        let mut names = Vec::new();
        for layer in 0..3 {
            names.extend(["q_input", "k_input", "v_input", "mlp_in"].map(|x| format!("blocks.{layer}.hook_{x}")));
        }
        names.push("blocks.2.hook_resid_post".into());
        let nodes = attribution_patch(&split, &clean, &corrupted, &metric, names.clone(), 2).unwrap();
        let mut wanted = Vec::new();
        for name in &names {
            let scores = nodes.get(name).unwrap();
            match scores.ndim() {
                4 => wanted.extend(scores.sum(&[0, 1, 3]).to_vec_f64()),
                _ => wanted.push(scores.sum_all().item()),
            }
        }
        let edges = edge_attribution(&model, &clean, &corrupted, &metric, 2).unwrap();
        assert_eq!(edges.receivers.len(), wanted.len());
        for (i, sum) in edges.scores.sum(&[0]).to_vec_f64().into_iter().enumerate() {
            assert!((sum - wanted[i]).abs() < 1e-5, "{}: {sum}, not {}", edges.receivers[i], wanted[i]);
        }
        assert!(wanted.iter().all(|w| w.abs() > 1e-7), "{wanted:?}");
    }
}

#[test]
fn one_clean_sequence_is_for_all_corrupted_ones() {
    let (model, [clean, corrupted]) = (model(base()), tokens(6));
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let cache_of = |rows: &[usize]| model.run_with_cache(&clean.rows(rows)).unwrap().1;
    let (one, twice) = (cache_of(&[0]), cache_of(&[0, 0]));
    for (name, sweep) in SWEEPS {
        for plain in [false, true] {
            let of = |cache: &ActivationCache| {
                sweep(&model, &corrupted, cache, &metric, PatchOptions { plain, ..Default::default() }).unwrap().values
            };
            let (off, alike) = of(&one).max_abs_diff(&of(&twice));
            assert!(alike && off < 1e-6, "{name}: {off}");
        }
    }
}

#[test]
fn metrics_of_other_items_or_tokens_are_refused() {
    let (model, [clean, corrupted]) = (model(base()), tokens(6));
    let (_, cache) = model.run_with_cache(&clean).unwrap();
    let texts = |metric: &Metric<'_>| {
        let receivers = [Receiver::Logits];
        let options = PatchOptions::default;
        [
            Patching::new(&model, &corrupted, &cache, metric).map(|_| ()),
            direct_path_patch(&model, &clean, &corrupted, metric, Sender::Embed, &receivers, options()).map(|_| ()),
            attribution_patch(&model, &clean, &corrupted, metric, "hook_embed", 1).map(|_| ()),
            edge_attribution(&model, &clean, &corrupted, metric, 1).map(|_| ()),
            ablate_neurons(&model, &clean, metric, 0, options()).map(|_| ()),
            dose_response(&model, &clean, &vector(), &[1.0], metric).map(|_| ()),
        ]
        .map(|refused| refused.unwrap_err().to_string())
    };
    for text in texts(&Metric::logit_diff(&[3], &[4]).unwrap()) {
        assert!(text.contains("answers cannot be 1: expected 2"), "{text}");
    }
    for text in texts(&Metric::logit_diff(&[3, 17], &[4, 6]).unwrap()) {
        assert!(text.contains("17") && text.contains("d_vocab_out = 17"), "{text}");
    }
    for text in texts(&Metric::loss(IndexTensor::from([[1, 2]]))) {
        assert!(text.contains("[1, 2]") && text.contains("[2, 6]"), "{text}");
    }
}

fn vector() -> SteeringVector {
    SteeringVector::new([(0, Tensor::from(vec![1.0; 24]))]).unwrap()
}

#[test]
fn integrated_gradients_are_complete() {
    let (model, [clean, corrupted]) = (model(base()), tokens(6));
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let [m_clean, m_corrupted] = [&clean, &corrupted].map(|t| metric.of(&model.forward(t).unwrap()));
    let miss = |steps| {
        let nodes = attribution_patch(&model, &clean, &corrupted, &metric, "hook_embed", steps).unwrap();
        (nodes.totals()[0].1 - (m_clean - m_corrupted)).abs()
    };
    let (few, many) = (miss(2), miss(48));
    assert!(many < 1e-3 * (m_clean - m_corrupted).abs() && many < few, "{few}, {many}");
    assert!(attribution_patch(&model, &clean, &corrupted, &metric, "hook_embed", 0).is_err());
}

#[test]
fn every_sweep_at_once() {
    let (model, [clean, corrupted]) = (model(Config { n_key_value_heads: 2, ..base() }), tokens(5));
    let (_, cache) = model.run_with_cache(&clean).unwrap();
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let options = PatchOptions::default;
    let all = patching::get_act_patch_attn_head_all_pos_every(&model, &corrupted, &cache, &metric, options()).unwrap();
    assert_eq!(all.values.shape(), [5, 3, 4]);
    let keys = patching::get_act_patch_attn_head_k_all_pos(&model, &corrupted, &cache, &metric, options()).unwrap();
    assert_eq!(all.values.select(0, 2).narrow(1, 0, 2).contiguous().to_vec(), keys.values.to_vec());
    assert!(all.values.select(0, 2).narrow(1, 2, 2).to_vec().iter().all(|v| *v == 0.0));
    let by_pos =
        patching::get_act_patch_attn_head_by_pos_every(&model, &corrupted, &cache, &metric, options()).unwrap();
    let pattern =
        patching::get_act_patch_attn_head_pattern_by_pos(&model, &corrupted, &cache, &metric, options()).unwrap();
    assert_eq!(by_pos.values.shape(), [5, 3, 5, 4]);
    assert_eq!(by_pos.values.select(0, 4).to_vec(), pattern.values.transpose(1, 2).to_vec());
    let blocks = patching::get_act_patch_block_every(&model, &corrupted, &cache, &metric, options()).unwrap();
    assert_eq!((blocks.values.shape(), blocks.activations[2]), (&[3, 3, 5][..], "mlp_out"));
}

#[test]
fn a_session_runs_the_corrupted_pass_once() {
    let (model, [clean, corrupted]) = (model(base()), tokens(6));
    let (_, cache) = model.run_with_cache(&clean).unwrap();
    let metric = Metric::logit_diff(&[3, 5], &[4, 6]).unwrap();
    let options = PatchOptions::default;
    // Only a whole pass embeds tokens.
    fn passes(sweeps: impl FnOnce() -> [PatchResult; 3]) -> ([Vec<f32>; 3], u64) {
        let (results, kernels) = profile::record(sweeps);
        let embeddings = kernels.iter().filter(|k| k.name == "embed").map(|k| k.calls).sum();
        (results.map(|r| r.values.to_vec()), embeddings)
    }
    let (alone, many) = passes(|| {
        [
            patching::get_act_patch_resid_pre(&model, &corrupted, &cache, &metric, options()).unwrap(),
            patching::get_act_patch_attn_head_out_all_pos(&model, &corrupted, &cache, &metric, options()).unwrap(),
            patching::get_act_patch_attn_head_pattern_by_pos(&model, &corrupted, &cache, &metric, options()).unwrap(),
        ]
    });
    let (together, one) = passes(|| {
        let patching = Patching::new(&model, &corrupted, &cache, &metric).unwrap();
        [
            patching.resid_pre(options()).unwrap(),
            patching.attn_head_out_all_pos(options()).unwrap(),
            patching.attn_head_pattern_by_pos(options()).unwrap(),
        ]
    });
    assert_eq!(alone, together);
    assert_eq!((many, one), (3, 1));
    let ((), kernels) = profile::record(|| {
        patching::get_act_patch_attn_head_by_pos_every(&model, &corrupted, &cache, &metric, options()).unwrap();
    });
    assert_eq!(kernels.iter().filter(|k| k.name == "embed").map(|k| k.calls).sum::<u64>(), 1);
}
