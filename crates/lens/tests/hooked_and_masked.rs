//! Analyses of padded sequences give what the sequences give alone; those of a model with permanent hooks give
//! what a model gives whose weights do the same.

mod common;

use common::{base, model, tokens};
use ironlens_lens::ablation::{Ablation, Parts, ablate, ablate_neurons};
use ironlens_lens::attribution::{attribution_patch, edge_attribution};
use ironlens_lens::heads::{
    DetectOptions, Detection, ErrorMeasure, HeadKind, detect_head, head_scores, head_scores_by_position,
};
use ironlens_lens::patching::path::{Receiver, Sender, direct_path_patch};
use ironlens_lens::patching::{Method, PatchOptions, PatchResult, Patching};
use ironlens_lens::patterns::{attention_distance, attention_entropy};
use ironlens_lens::steering::dose_response;
use ironlens_lens::{Metric, SteeringVector};
use ironlens_tensor::{Device, IndexTensor, Tensor};
use ironlens_transformer::{AttentionDir, Config, HookedTransformer, PositionalEmbeddingType, Sequences};

const POS: usize = 7;

/// One sequence of `tokens` (the clean or the corrupted one) with `before` paddings before and `after` after.
fn padded(which: usize, before: usize, after: usize) -> Sequences {
    let real = tokens(POS)[which].rows(&[0]);
    let mut ids = vec![11; before];
    ids.extend(real.as_slice());
    ids.extend(vec![11; after]);
    let mut mask = vec![0; before];
    mask.extend([1; POS]);
    mask.extend(vec![0; after]);
    let shape = [1, before + POS + after];
    Sequences { tokens: IndexTensor::new(ids, &shape), mask: Some(IndexTensor::new(mask, &shape)) }
}

fn alone(which: usize) -> Sequences {
    tokens(POS)[which].rows(&[0]).into()
}

fn architectures() -> Vec<Config> {
    vec![
        base(),
        Config { positional_embedding_type: PositionalEmbeddingType::Rotary, ..base() },
        Config { attention_dir: AttentionDir::Bidirectional, ..base() },
    ]
}

/// Paddings before and after, of which one is none.
const SIDES: [(usize, usize); 2] = [(0, 3), (2, 0)];

fn options() -> PatchOptions<'static> {
    PatchOptions::default()
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.to_vec(), b.to_vec());
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() < 1e-4 + 1e-4 * b.abs(), "{a} is not {b}");
    }
}

fn all_kinds() -> Vec<Detection> {
    let mut all: Vec<Detection> = HeadKind::ALL.into_iter().map(Detection::from).collect();
    let own = Tensor::ones(&[POS, POS], ironlens_tensor::DType::F32, &Device::Cpu).tril(0);
    all.push(Detection::Pattern(own));
    all
}

#[test]
fn detectors_do_not_count_padding() {
    for (cfg, (before, after)) in architectures().into_iter().flat_map(|cfg| SIDES.map(|s| (cfg.clone(), s))) {
        let model = model(cfg);
        let padded = padded(0, before, after);
        for detection in all_kinds() {
            let with_padding = match &detection {
                Detection::Kind(kind) => Detection::Kind(*kind),
                Detection::Pattern(_) => {
                    let n = padded.tokens.shape()[1];
                    Detection::Pattern(Tensor::ones(&[n, n], ironlens_tensor::DType::F32, &Device::Cpu).tril(0))
                }
            };
            for error_measure in [ErrorMeasure::Mul, ErrorMeasure::Abs] {
                let options = DetectOptions { error_measure, exclude_bos: true, ..Default::default() };
                let wanted = detect_head(&model, alone(0), &detection, &options).unwrap();
                close(&detect_head(&model, &padded, &with_padding, &options).unwrap(), &wanted);
            }
        }
        let counted = Sequences { mask: None, ..padded.clone() };
        // Positions that are padding count for nothing, those of tokens for what they are alone.
        let real = padded.real(0);
        let [here, there] = [&padded, &alone(0)].map(|s| head_scores_by_position(&model, s, &HeadKind::ALL).unwrap());
        for (here, there) in here.iter().zip(&there) {
            for (i, &p) in real.iter().enumerate() {
                close(&here.select(2, p), &there.select(2, i));
            }
        }
        let [of_tokens, of_all] = [&padded, &counted].map(|s| head_scores(&model, s, &HeadKind::ALL).unwrap());
        assert!(of_tokens.iter().zip(&of_all).any(|(a, b)| a.to_vec() != b.to_vec()), "padding can be counted");
        for f in [attention_entropy, attention_distance] {
            let of = |s: &Sequences| f(&s.call(&model).cached().unwrap().1).unwrap();
            close(&of(&padded), &of(&alone(0)));
        }
    }
    let one = Sequences::from((&IndexTensor::from([[1, 2, 3]]), &IndexTensor::from([[0, 0, 1]])));
    let error = head_scores(&model(base()), &one, &HeadKind::ALL).unwrap_err().to_string();
    assert!(error.contains("1 in sequence 0"), "{error}");
}

#[test]
fn patching_and_ablation_of_padded_sequences_are_those_of_the_sequences() {
    for (cfg, (before, after)) in architectures().into_iter().flat_map(|cfg| SIDES.map(|s| (cfg.clone(), s))) {
        let model = model(cfg);
        let metric = Metric::logit_diff(&[3], &[5]).unwrap();
        let (clean, corrupted) = (padded(0, before, after), padded(1, before, after));
        let cache = clean.call(&model).cached().unwrap().1;
        let cache_alone = alone(0).call(&model).cached().unwrap().1;
        let session = Patching::new(&model, &corrupted, &cache, &metric).unwrap();
        let wanted = Patching::new(&model, alone(1), &cache_alone, &metric).unwrap();
        assert!((session.corrupted() - wanted.corrupted()).abs() < 1e-4);
        let (heads, heads_alone) =
            (session.attn_head_out_all_pos(options()).unwrap(), wanted.attn_head_out_all_pos(options()).unwrap());
        close(&heads.values, &heads_alone.values);
        assert_eq!(heads.method, Method::Plain("the sequences are padded".into()));
        let of_tokens = |result: PatchResult| result.values.narrow(1, before, POS).contiguous();
        close(&of_tokens(session.resid_pre(options()).unwrap()), &wanted.resid_pre(options()).unwrap().values);

        for (parts, by) in [Parts::Heads, Parts::Mlps, Parts::Attns].into_iter().flat_map(|p| {
            let resample = [Ablation::Resample(clean.clone()), Ablation::Resample(alone(0))];
            let mean = [Ablation::Mean(clean.clone()), Ablation::Mean(alone(0))];
            [[Ablation::Zero, Ablation::Zero], resample, mean].map(|by| (p, by))
        }) {
            let wanted = ablate(&model, alone(1), &metric, parts, &by[1], options()).unwrap();
            close(&ablate(&model, &corrupted, &metric, parts, &by[0], options()).unwrap().values, &wanted.values);
        }
        let wanted = ablate_neurons(&model, alone(1), &metric, 1, options()).unwrap();
        close(&ablate_neurons(&model, &corrupted, &metric, 1, options()).unwrap(), &wanted);
    }
}

#[test]
fn a_mean_over_padded_sequences_is_over_tokens() {
    let model = model(base());
    let metric = Metric::all(|logits| logits.square().mean_all());
    let two = |mask: [[u32; 3]; 2]| Sequences::from((&IndexTensor::from([[1, 2, 3], [4, 5, 6]]), &mask.into()));
    let of = |by: Sequences| {
        let tokens = IndexTensor::from([[7, 8, 9]]);
        ablate(&model, &tokens, &metric, Parts::Mlps, &Ablation::Mean(by), options()).unwrap().values.to_vec()
    };
    // Where the second sequence has no token, the first alone is the mean.
    let cache = two([[1, 1, 1], [1, 1, 0]]).call(&model).cached().unwrap().1;
    let by_hand = |layer: usize| {
        let out = &cache[("mlp_out", layer)];
        let mean = out.mean(&[0]);
        let last = out.select(0, 0).narrow(0, 2, 1);
        let mean = Tensor::cat(&[mean.narrow(0, 0, 2), last], 0).unsqueeze(0);
        let mut hooks = ironlens_transformer::Hooks::new()
            .fwd(format!("blocks.{layer}.hook_mlp_out"), move |x, _| *x = mean.clone().into());
        metric.of(&model.run_with_hooks(&IndexTensor::from([[7, 8, 9]]), &mut hooks).unwrap()) as f32
    };
    let found = of(two([[1, 1, 1], [1, 1, 0]]));
    for (layer, value) in found.iter().enumerate() {
        assert!((value - by_hand(layer)).abs() < 1e-4, "{value} is not {}", by_hand(layer));
    }
    assert_ne!(found, of(two([[1, 1, 1], [1, 1, 1]])));
}

#[test]
fn attribution_and_paths_of_padded_sequences_are_those_of_the_sequences() {
    for (cfg, (before, after)) in architectures().into_iter().flat_map(|cfg| SIDES.map(|s| (cfg.clone(), s))) {
        let model = model(cfg);
        let metric = Metric::logit_diff(&[3], &[5]).unwrap();
        let (clean, corrupted) = (padded(0, before, after), padded(1, before, after));
        let z = "blocks.1.attn.hook_z";
        let of = |a: &Sequences, b: &Sequences| attribution_patch(&model, a, b, &metric, z, 2).unwrap();
        let (found, wanted) = (of(&clean, &corrupted), of(&alone(0), &alone(1)));
        let found = found.get(z).unwrap();
        close(&found.narrow(1, before, POS).contiguous(), wanted.get(z).unwrap());
        close(&found.sum_all(), &wanted.get(z).unwrap().sum_all());
        let of = |a: &Sequences, b: &Sequences| edge_attribution(&model, a, b, &metric, 1).unwrap().scores;
        close(&of(&clean, &corrupted), &of(&alone(0), &alone(1)));
        let receivers = [Receiver::Query(1, 2), Receiver::Value(2, 0), Receiver::Mlp(1), Receiver::Logits];
        let of = |a: &Sequences, b: &Sequences| {
            direct_path_patch(&model, a, b, &metric, Sender::Head(0, 1), &receivers, options()).unwrap()
        };
        for (found, wanted) in of(&clean, &corrupted).into_iter().zip(of(&alone(0), &alone(1))) {
            assert!((found - wanted).abs() < 1e-4, "{found} is not {wanted}");
        }
    }
}

/// A model whose head 1 of layer 0 is ablated by a permanent hook, and one in which its weights are 0.
fn ablated() -> [HookedTransformer; 2] {
    let mut hooked = model(base());
    let mut edited = hooked.clone();
    hooked.add_perma_hook("blocks.0.attn.hook_z", |z, _| z.zero_at(2, 1)).unwrap();
    let d = (base().d_head, base().d_model);
    let nothing = Tensor::zeros(&[d.0, d.1], ironlens_tensor::DType::F32, &Device::Cpu);
    edited.params_mut().assign("blocks.0.attn.W_O", |w| w.select(0, 1), &nothing).unwrap();
    [hooked, edited]
}

#[test]
fn analyses_of_a_model_with_permanent_hooks_are_of_the_hooked_model() {
    let [clean, corrupted] = tokens(POS);
    let metric = Metric::logit_diff(&[3, 4], &[5, 6]).unwrap();
    let models = ablated();
    let both = |f: &dyn Fn(&HookedTransformer) -> Tensor| {
        let [hooked, edited] = models.each_ref().map(f);
        close(&hooked, &edited);
        let plain = f(&model(base()));
        assert!((&plain - &hooked).abs().max(&(0..plain.ndim()).collect::<Vec<_>>()).item() > 1e-4);
    };
    both(&|m| Tensor::stack(&head_scores(m, &clean, &HeadKind::ALL).unwrap(), 0));
    type Sweep = fn(&Patching<'_>) -> PatchResult;
    let sweeps: [Sweep; 5] = [
        |p| p.resid_pre(options()).unwrap(),
        |p| p.attn_head_v_all_pos(options()).unwrap(),
        |p| p.attn_head_pattern_all_pos(options()).unwrap(),
        |p| p.mlp_out(options()).unwrap(),
        |p| p.attn_head_out_by_pos(options()).unwrap(),
    ];
    for sweep in sweeps {
        both(&|m| {
            let (_, cache) = m.run_with_cache(&clean).unwrap();
            let result = sweep(&Patching::new(m, &corrupted, &cache, &metric).unwrap());
            assert_eq!(matches!(result.method, Method::Plain(_)), m.params().perma_hooks().next().is_some());
            result.values
        });
    }
    both(&|m| ablate(m, &clean, &metric, Parts::Heads, &Ablation::Zero, options()).unwrap().values);
    both(&|m| ablate_neurons(m, &clean, &metric, 1, options()).unwrap());
    both(&|m| edge_attribution(m, &clean, &corrupted, &metric, 2).unwrap().scores);
    both(&|m| {
        let scores = attribution_patch(m, &clean, &corrupted, &metric, "blocks.2.hook_resid_pre", 1).unwrap().scores;
        scores[0].1.clone()
    });
    both(&|m| {
        let receivers = [Receiver::Query(1, 2), Receiver::Key(1, 0), Receiver::Mlp(1), Receiver::Logits];
        let sender = Sender::Head(0, 2);
        let values = direct_path_patch(m, &clean, &corrupted, &metric, sender, &receivers, options()).unwrap();
        Tensor::from_vec_f64(values, &[4]).to_dtype(ironlens_tensor::DType::F32)
    });
}

#[test]
fn paths_of_a_steered_model_add_the_vector_once() {
    // A vector at the receiver's own hook point: twice would show.
    let mut steered = model(base());
    let vector = Tensor::full(&[base().d_model], 0.5, ironlens_tensor::DType::F32, &Device::Cpu);
    let [clean, corrupted] = tokens(POS);
    steered.add_perma_hook("blocks.1.hook_resid_pre", move |x, _| *x += &vector).unwrap();
    let metric = Metric::logit_diff(&[3, 4], &[5, 6]).unwrap();
    let path = |clean: &IndexTensor| {
        let receivers = [Receiver::Value(1, 2), Receiver::Mlp(1), Receiver::Logits];
        direct_path_patch(&steered, clean, &corrupted, &metric, Sender::Head(0, 2), &receivers, options()).unwrap()
    };
    let unchanged = metric.of(&steered.forward(&corrupted).unwrap());
    for value in path(&corrupted) {
        assert!((value - unchanged).abs() < 1e-5, "{value} is not {unchanged}");
    }
    assert!(path(&clean).iter().any(|value| (value - unchanged).abs() > 1e-3));
}

#[test]
fn doses_of_padded_sequences_are_those_of_the_sequences() {
    let model = model(base());
    let direction = Tensor::full(&[base().d_model], 0.7, ironlens_tensor::DType::F32, &Device::Cpu);
    let vector = SteeringVector::new([(0, direction)]).unwrap();
    let metric = Metric::logit_diff(&[3], &[5]).unwrap();
    let wanted = dose_response(&model, &alone(0), &vector, &[0.0, 2.0], &metric).unwrap();
    for (before, after) in SIDES {
        let found = dose_response(&model, &padded(0, before, after), &vector, &[0.0, 2.0], &metric).unwrap();
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!((found.metric - wanted.metric).abs() < 1e-4, "{found:?} {wanted:?}");
            assert!((found.kl - wanted.kl).abs() < 1e-5, "{found:?} {wanted:?}");
        }
    }
}
