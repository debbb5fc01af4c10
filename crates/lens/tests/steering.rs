//! Steering vectors: found, added, taken out, kept; and evaluations.

use std::path::Path;

use ironlens_lens::evaluation::ioi::{IoiOptions, Order, ioi_dataset};
use ironlens_lens::steering::{Reading, dose_response, kl_divergence};
use ironlens_lens::{Metric, SteeringVector, induction_loss};
use ironlens_tensor::{DType, Device, IndexTensor, Rng, Tensor};
use ironlens_transformer::{ActFn, Config, HookedTransformer, Sequences, write_tensors};

fn model() -> HookedTransformer {
    let cfg = Config {
        d_model: 16,
        d_head: 4,
        n_layers: 3,
        n_ctx: 64,
        d_vocab: 30,
        act_fn: ActFn::Gelu,
        initializer_range: 0.3,
        ..Config::default()
    };
    HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap()
}

fn tokens(batch: usize, pos: usize, seed: u64) -> IndexTensor {
    Rng::new(seed, 0).integers(&[batch, pos], 0, 30)
}

fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape());
    let off = a.to_vec_f64().iter().zip(b.to_vec_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-5, "{off}");
}

#[test]
fn contrastive_directions_are_differences_of_means() {
    let (model, a, b) = (model(), tokens(3, 5, 1), tokens(2, 7, 2));
    let stream =
        |x: &IndexTensor, layer: usize| model.run_with_cache(x).unwrap().1.get(("resid_post", layer)).unwrap().clone();
    for layer in 0..3 {
        let (p, n) = (stream(&a, layer), stream(&b, layer));
        for (reading, expected) in [
            (Reading::Last, p.select(1, 4).mean(&[0]) - n.select(1, 6).mean(&[0])),
            (Reading::Mean, p.narrow(1, 1, 4).mean(&[0, 1]) - n.narrow(1, 1, 6).mean(&[0, 1])),
            (Reading::At(2), p.select(1, 2).mean(&[0]) - n.select(1, 2).mean(&[0])),
        ] {
            let vector = SteeringVector::contrastive(&model, &a, &b, reading).unwrap();
            close(vector.get(layer).unwrap(), &expected);
        }
    }
    let error = SteeringVector::contrastive(&model, &a, &b, Reading::At(5)).unwrap_err().to_string();
    assert!(error.contains("number 0, with 5 tokens"), "{error}");
}

#[test]
fn directions_are_added_and_taken_out() {
    let (model, x) = (model(), tokens(2, 6, 3));
    let direction = Rng::new(8, 0).normal(&[16], 0.0, 1.0, &Device::Cpu);
    let vector = SteeringVector::new([(1, direction.clone())]).unwrap();
    let (_, clean) = model.run_with_cache(&x).unwrap();
    let clean = clean.get(("resid_post", 1)).unwrap();
    let unit = vector.normalised().get(1).unwrap().clone();
    assert!((unit.vector_norm(0).item() - 1.0).abs() < 1e-6);

    let (_, added) = model.call(&x).hooks(&mut vector.added(-2.5)).cached().unwrap();
    close(added.get(("resid_post", 1)).unwrap(), &(clean + &(&direction * -2.5)));
    let (_, without) = model.call(&x).hooks(&mut vector.projected_out()).cached().unwrap();
    let without = without.get(("resid_post", 1)).unwrap();
    assert!((without * &unit).sum(&[2]).abs().max(&[0, 1]).item() < 1e-5);
    // Nothing else is taken out.
    let along = (clean * &unit).sum(&[2]).unsqueeze(2);
    close(&(without + &(&along * &unit)), clean);
    // In double precision, too.
    model.to_dtype(DType::F64).run_with_hooks(&x, &mut vector.added(1.0)).unwrap();
}

#[test]
fn hooks_that_steer_stay_differentiable() {
    let (model, x) = (model(), tokens(1, 5, 4));
    let vector = SteeringVector::new([(1, Rng::new(8, 0).normal(&[16], 0.0, 1.0, &Device::Cpu))]).unwrap();
    for mut hooks in [vector.added(1.0), vector.projected_out()] {
        let (_, gradients) = model.call(&x).hooks(&mut hooks).gradients(|out| out.logits().sum_all()).unwrap();
        assert!(gradients.get("blocks.0.attn.W_Q").unwrap().abs().max(&[0, 1, 2]).item() > 0.0);
    }
}

#[test]
fn vectors_are_kept_in_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    let direction = |seed| Rng::new(seed, 0).normal(&[16], 0.0, 1.0, &Device::Cpu);
    let vector = SteeringVector::new([(1, direction(1)), (2, direction(2))]).unwrap();
    for name in ["v.safetensors", "v.gguf"] {
        let path = folder.path().join(name);
        vector.save(&path, "llama").unwrap();
        let read = SteeringVector::load(&path).unwrap();
        for layer in [1, 2] {
            assert_eq!(read.get(layer).unwrap().to_vec(), vector.get(layer).unwrap().to_vec());
        }
        assert_eq!(read.directions().count(), 2);
    }
    let with_first = SteeringVector::new([(0, direction(1))]).unwrap();
    let error = with_first.save(folder.path().join("w.gguf"), "llama").unwrap_err().to_string();
    assert!(error.contains("llama.cpp") && !folder.path().join("w.gguf").exists(), "{error}");
    with_first.save(folder.path().join("w.safetensors"), "llama").unwrap();
    model().save_weights(folder.path().join("other.safetensors")).unwrap();
    let error = SteeringVector::load(folder.path().join("other.safetensors")).unwrap_err().to_string();
    assert!(error.contains("direction.1"), "{error}");
    assert!(SteeringVector::load(Path::new("nowhere.gguf")).is_err());
    // A layer that no file could count up to.
    let path = folder.path().join("far.safetensors");
    let far = format!("direction.{}", u64::MAX);
    write_tensors(&path, [(far.as_str(), direction(1))]).unwrap();
    let error = SteeringVector::load(&path).unwrap_err().to_string();
    assert!(error.contains("18446744073709551615") && error.contains("layer"), "{error}");
}

#[test]
fn vectors_of_other_models_are_refused() {
    let vector = |layer, width| SteeringVector::new([(layer, Tensor::from(vec![1.0; width]))]).unwrap();
    assert!(vector(2, 16).check(&model()).is_ok());
    for other in [vector(3, 16), vector(0, 8)] {
        let metric = Metric::logit_diff(&[1], &[2]).unwrap();
        let error = dose_response(&model(), &tokens(1, 3, 0), &other, &[1.0], &metric).unwrap_err().to_string();
        assert!(error.contains("as the model"), "{error}");
    }
    assert!(SteeringVector::new([]).is_err());
    assert!(SteeringVector::new([(0, Tensor::from(vec![1.0; 4])), (1, Tensor::from(vec![1.0; 5]))]).is_err());
    assert!(vector(1, 4).of_layers(&[2]).unwrap_err().to_string().contains("[1]"));
}

#[test]
fn divergence_is_that_of_the_distributions() {
    let (a, b) = (vec![0.0f32, 1.0, 2.0], vec![1.0f32, 1.0, -1.0]);
    let chances = |x: &[f32]| {
        let sum: f64 = x.iter().map(|v| f64::from(*v).exp()).sum();
        x.iter().map(|v| f64::from(*v).exp() / sum).collect::<Vec<_>>()
    };
    let expected: f64 = chances(&a).iter().zip(chances(&b)).map(|(p, q)| p * (p / q).ln()).sum();
    let logits = |x: &[f32]| Tensor::from(x.to_vec()).reshape(&[1, 1, 3]);
    assert!((kl_divergence(&logits(&a), &logits(&b)).item() - expected).abs() < 1e-6);
    assert_eq!(kl_divergence(&logits(&a), &logits(&a)).item(), 0.0);
}

#[test]
fn the_loss_of_repeated_tokens_is_of_their_second_time() {
    let model = model();
    let found = induction_loss(&model, 3, 10, Some(0), 5).unwrap();
    let half = Rng::new(5, 0).integers(&[3, 10], 3, 30);
    let twice = IndexTensor::cat(&[half.clone(), half], 1);
    let tokens = IndexTensor::cat(&[IndexTensor::new(vec![0; 3], &[3, 1]), twice.narrow(1, 1, 19)], 1);
    let log_probs = model.forward(&tokens).unwrap().log_softmax();
    let mut sum = 0.0;
    for item in 0..3 {
        // Predictions of the tokens at places 12 to 19.
        for at in 11..19 {
            let next = tokens.as_slice()[item * 20 + at + 1] as usize;
            sum -= log_probs.select(0, item).select(0, at).select(0, next).item();
        }
    }
    assert!((found - sum / 24.0).abs() < 1e-5, "{found} {}", sum / 24.0);
    assert!(induction_loss(&model, 0, 10, None, 0).is_err());
    assert!(induction_loss(&model, 1, 2, None, 0).unwrap_err().to_string().contains("at least three"));
    assert!(induction_loss(&model, 1, 3, None, 0).unwrap().is_finite());
    assert!(induction_loss(&model, 1, 60, None, 0).is_err());
}

#[test]
fn prompts_of_indirect_objects_are_drawn() {
    let of = |order, symmetric| {
        ioi_dataset(&IoiOptions { num_samples: 100, order, symmetric, seed: 3, ..IoiOptions::default() }).unwrap()
    };
    for (order, first) in [(Order::Abba, "io"), (Order::Baba, "s")] {
        for sample in of(order, false) {
            assert!(!sample.text.contains('['), "{}", sample.text);
            assert!(sample.text.ends_with(&sample.io));
            let place = |name: &str| sample.text.find(name.trim()).unwrap();
            assert_eq!(place(&sample.io) < place(&sample.s), first == "io", "{}", sample.text);
            assert_eq!(sample.text.matches(sample.s.trim()).count(), 2);
        }
    }
    let both = of(Order::Both, false);
    let abba = both.iter().filter(|s| s.text.find(s.io.trim()) < s.text.find(s.s.trim())).count();
    assert_eq!(abba, 50);
    for pair in of(Order::Abba, true).chunks(2) {
        assert_eq!((&pair[0].io, &pair[0].s), (&pair[1].s, &pair[1].io));
    }
    assert_eq!(of(Order::Both, false), both, "the same by the same seed");
    // As they are written, the second template begins with the subject.
    for sample in of(Order::AsWritten, false) {
        let (io, s) = (sample.io.trim(), sample.s.trim());
        let begins = |start: String| sample.text.starts_with(&start);
        assert!(begins(format!("{io} and {s} went")) || begins(format!("Then, {s} and {io} went")), "{}", sample.text);
        assert!(["milk", "eggs", "bread"].iter().any(|noun| sample.text.contains(noun)), "{}", sample.text);
    }
    assert_eq!(ioi_dataset(&IoiOptions::default()).unwrap().len(), 1000);
    let huge = IoiOptions { num_samples: usize::MAX, ..IoiOptions::default() };
    assert!(ioi_dataset(&huge).unwrap_err().to_string().contains("at most 10000000"));
    let bad = IoiOptions { templates: vec!["[A] and [B]".into()], ..IoiOptions::default() };
    assert!(ioi_dataset(&bad).unwrap_err().to_string().contains("ends with [A]"));
    let unordered = IoiOptions { templates: vec!["[B] gave to [A]".into()], ..IoiOptions::default() };
    assert!(ioi_dataset(&unordered).is_ok());
    let ordered = IoiOptions { order: Order::Abba, ..unordered };
    assert!(ioi_dataset(&ordered).unwrap_err().to_string().contains("AsWritten"));
    let bad = IoiOptions { names: vec!["Ann".into()], ..IoiOptions::default() };
    assert!(ioi_dataset(&bad).is_err());
}

#[test]
fn prompts_and_masks_of_another_shape_are_refused() {
    let (model, x) = (model(), tokens(2, 5, 1));
    let refused = |sequences: Sequences, words: &[&str]| {
        let text = SteeringVector::contrastive(&model, &sequences, &x, Reading::Last).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(x.reshape(&[10]).into(), &["[10]", "[batch, pos]"]);
    refused(Sequences::from((&x, &x.narrow(1, 0, 4))), &["[2, 4]", "[2, 5]"]);
}
