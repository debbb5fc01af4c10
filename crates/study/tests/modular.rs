//! The parts of logits that are waves over a sum, and the phases that they tell.

use std::f64::consts::PI;

use ironlens_study::story::modular::{Frequencies, Moment, Phases, moment};
use ironlens_tensor::{Device, IndexTensor, Tensor};
use ironlens_train::Preset;
use ironlens_transformer::{Config, HookedTransformer};

const P: usize = 7;

fn model() -> HookedTransformer {
    let cfg = Config { d_model: 16, d_head: 8, d_mlp: 32, d_vocab: P + 1, d_vocab_out: P, ..Preset::Grokking.model() };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap();
    // Logits that are far from even.
    let w = model.param("unembed.W_U").unwrap();
    model.params_mut().set("unembed.W_U", &(w * 8.0)).unwrap();
    model
}

fn loss(logits: &[f64], label: usize) -> f64 {
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    most + logits.iter().map(|v| (v - most).exp()).sum::<f64>().ln() - logits[label]
}

/// By the formula of the paper: waves over pairs, one by one.
#[test]
fn restricted_and_excluded_losses_are_those_of_waves_over_pairs() {
    let (model, key) = (model(), [2usize, 3]);
    let shown: Vec<(u32, u32)> = (0..P as u32).flat_map(|a| [(a, (a + 1) % 7), (a, a)]).collect();
    let found = moment(&model, 5, &key, &shown).unwrap();

    let pairs: Vec<(usize, usize)> = (0..P * P).map(|i| (i / P, i % P)).collect();
    let ids: Vec<u32> = pairs.iter().flat_map(|(a, b)| [*a as u32, *b as u32, P as u32]).collect();
    let logits = model.forward(&IndexTensor::new(ids, &[P * P, 3])).unwrap().select(1, 2).to_vec_f64();
    let of_pair = |i: usize| &logits[i * P..(i + 1) * P];
    let mut part = vec![0.0; P * P * P];
    for k in key {
        for wave in [f64::cos as fn(f64) -> f64, f64::sin] {
            let at = |(a, b): (usize, usize)| wave(2.0 * PI * (k * (a + b)) as f64 / P as f64);
            for c in 0..P {
                let along: f64 = pairs.iter().enumerate().map(|(i, pair)| of_pair(i)[c] * at(*pair)).sum();
                for (i, pair) in pairs.iter().enumerate() {
                    part[i * P + c] += along * at(*pair) * 2.0 / (P * P) as f64;
                }
            }
        }
    }
    let mean: Vec<f64> = (0..P).map(|c| (0..P * P).map(|i| of_pair(i)[c]).sum::<f64>() / (P * P) as f64).collect();
    let over = |of: &[(usize, usize)], logit: &dyn Fn(usize, usize) -> f64| {
        let one = |&(a, b): &(usize, usize)| {
            let row: Vec<f64> = (0..P).map(|c| logit(a * P + b, c)).collect();
            loss(&row, (a + b) % P)
        };
        of.iter().map(one).sum::<f64>() / of.len() as f64
    };
    let shown: Vec<(usize, usize)> = shown.iter().map(|(a, b)| (*a as usize, *b as usize)).collect();
    let others: Vec<(usize, usize)> = pairs.iter().copied().filter(|pair| !shown.contains(pair)).collect();
    let expected = Moment {
        step: 5,
        shown: over(&shown, &|i, c| of_pair(i)[c]),
        held_out: over(&others, &|i, c| of_pair(i)[c]),
        restricted: over(&pairs, &|i, c| mean[c] + part[i * P + c]),
        excluded: over(&shown, &|i, c| of_pair(i)[c] - part[i * P + c]),
        weights: model
            .params()
            .iter()
            .map(|(_, w)| w.to_vec_f64().iter().map(|v| v * v).sum::<f64>())
            .sum::<f64>()
            .sqrt(),
    };
    for (name, a, b) in [
        ("shown", found.shown, expected.shown),
        ("held out", found.held_out, expected.held_out),
        ("restricted", found.restricted, expected.restricted),
        ("excluded", found.excluded, expected.excluded),
        ("weights", found.weights, expected.weights),
    ] {
        assert!((a - b).abs() < 1e-6 * b.abs(), "{name}: {a} {b}");
    }
    assert!((found.excluded - found.shown).abs() > 1e-3, "the waves are a part of these logits: {found:?}");
}

#[test]
fn embeddings_of_a_wave_have_a_key_frequency() {
    let mut model = model();
    let wave = |a: usize, k: usize| 2.0 * PI * (k * a) as f64 / P as f64;
    let row = |a: usize| {
        let mut row = vec![0.0; 16];
        (row[0], row[1]) = (2.0 * wave(a, 3).cos(), 2.0 * wave(a, 3).sin());
        row
    };
    let values: Vec<f64> = (0..=P).flat_map(row).collect();
    model
        .params_mut()
        .set("embed.W_E", &Tensor::from_vec_f64(values, &[P + 1, 16]).to_dtype(ironlens_tensor::DType::F32))
        .unwrap();
    let found = Frequencies::of(&model).unwrap();
    assert!((found.shares[2] - 1.0).abs() < 1e-6, "{found:?}");
    assert_eq!(found.key, [3]);
    assert!((found.key_share() - 1.0).abs() < 1e-6);
    // Random embeddings are not periodic.
    let cfg = Config { d_vocab: 60, d_vocab_out: 59, ..Preset::Grokking.model() };
    let found = Frequencies::of(&HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap()).unwrap();
    assert!(found.key.is_empty(), "{found:?}");
}

#[test]
fn phases_are_read_off_the_losses() {
    let at = |step, shown, held_out, restricted, excluded| Moment {
        step,
        shown,
        held_out,
        restricted,
        excluded,
        weights: 1.0,
    };
    let paper = [
        at(0, 4.8, 4.8, 4.7, 4.9),
        at(1, 0.1, 9.0, 4.6, 0.1),
        at(2, 1e-3, 8.0, 2.0, 1.0),
        at(3, 1e-3, 3.0, 0.3, 6.0),
        at(4, 1e-4, 1e-4, 1e-6, 15.0),
    ];
    let found = Phases::of(&paper, 113);
    assert_eq!(found, Phases { by_heart: Some(1), formed: Some(3), needed: Some(3), known: Some(4) });
    assert!(found.in_order());
    // Everything shown is everything: both are known at one time.
    let at_once = [at(0, 4.8, 4.8, 4.7, 4.9), at(1, 1e-3, 1e-3, 1e-3, 9.0)];
    assert!(!Phases::of(&at_once, 113).in_order());
    // Never understood.
    let found = Phases::of(&paper[..3], 113);
    assert_eq!((found.by_heart, found.known, found.in_order()), (Some(1), None, false));
}
