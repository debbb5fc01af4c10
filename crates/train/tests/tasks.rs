//! Tasks whose best possible loss is known.

use ironlens_tensor::{Device, IndexTensor};
use ironlens_train::{
    Data, Experiment, Induction, Labelled, LanguageModel, Markov, ModularAddition, Preset, Reference, Text,
    TrainConfig, Trainer, labelled_loss,
};
use ironlens_transformer::{Config, HookedTransformer, PositionalEmbeddingType};

fn sizes(d_vocab: usize, n_ctx: usize) -> Config {
    Config { d_vocab, n_ctx, d_vocab_out: d_vocab, ..Config::default() }
}

fn loss(references: &[Reference], name: &str) -> f64 {
    references.iter().find(|r| r.name == name).unwrap_or_else(|| panic!("{name}: {references:?}")).loss
}

/// Entropies and divergences of chains of 100 states that were computed on their own (arXiv 2402.11004's setting).
#[test]
fn chains_have_the_floors_that_others_computed() {
    for (states, by_states, by_transitions) in [(2u32, 0.5806, 0.5122), (3, 1.0041, 0.8844)] {
        let data = Markov::new(&sizes(states as usize, 100), 7).unwrap();
        let references = data.references(&data.held_out(3000).unwrap());
        assert!((loss(&references, "guessing evenly") - f64::from(states).ln()).abs() < 1e-12);
        assert!((loss(&references, "counting states") - by_states).abs() < 0.01, "{references:?}");
        let best = references.iter().find(|r| r.best).unwrap();
        assert_eq!(best.name, "counting transitions");
        assert!((best.loss - by_transitions).abs() < 0.01, "{references:?}");
    }
}

#[test]
fn sequences_repeat_and_what_cannot_be_foreseen_is_counted() {
    let mut data = Induction::new(&sizes(33, 33), 3).unwrap();
    let batch = data.batch(500).unwrap();
    let mut lengths = [0; 17];
    for row in batch.tokens.as_slice().chunks(33) {
        assert_eq!(row[0], 0);
        let length = (1..33).find(|m| row[1 + m] == row[1]).unwrap();
        assert!((8..=16).contains(&length));
        assert!((1..33 - length).all(|i| row[i + length] == row[i]));
        lengths[length] += 1;
    }
    assert!(lengths[8..].iter().all(|n| *n > 20), "{lengths:?}");
    // Who knows how they are drawn: nothing is certain in the first 8, everything after the first comes again.
    let held_out = data.held_out(2000).unwrap();
    let best = loss(&data.references(&held_out), "all that can be foreseen");
    // A sequence of `length` tokens has a chance of 1 in 9 times 1 / (32 * 31 * ..), one factor for each of them, and
    // the rest of its 32 is certain: its loss is minus the logarithm of that, however it is foreseen token by token.
    let of_length = |length: u32| (0..length).map(|i| f64::from(32 - i).ln()).sum::<f64>();
    let expected = (9f64.ln() + (8..=16).map(of_length).sum::<f64>() / 9.0) / 32.0;
    assert!((expected - 1.28926).abs() < 1e-5 && (best - expected).abs() < 0.03, "{best} {expected}");
}

#[test]
fn sums_are_all_there_once() {
    let cfg = Config { d_vocab: 114, d_vocab_out: 113, n_ctx: 3, ..Config::default() };
    let mut data = ModularAddition::new(&cfg, 137).unwrap();
    assert_eq!(data.sizes(), (3830, 8939));
    let (shown, rest) = (data.batch(10_000).unwrap(), data.held_out(10_000).unwrap());
    let pairs = |b: &Labelled| -> Vec<(u32, u32)> { b.tokens.as_slice().chunks(3).map(|t| (t[0], t[1])).collect() };
    let mut all = [pairs(&shown), pairs(&rest)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 113 * 113);
    for (t, sum) in shown.tokens.as_slice().chunks(3).zip(shown.labels.as_slice()) {
        assert!(t[2] == 113 && (t[0] + t[1]) % 113 == *sum);
    }
    // Batches go round.
    data.seek(0);
    let first = data.batch(3000).unwrap();
    data.batch(3000).unwrap();
    data.seek(0);
    assert_eq!(data.batch(3000).unwrap(), first);
    assert!(ModularAddition::new(&sizes(114, 4), 0).is_err());
}

#[test]
fn text_is_cut_in_two_and_described_by_its_bytes() {
    let cfg = sizes(256, 8);
    let bytes: Vec<u8> = (0..1000).map(|i| b"abab abba "[i % 10]).collect();
    let mut data = Text::new(bytes.clone(), "t.txt", &cfg, 1).unwrap();
    let batch = data.batch(50).unwrap();
    for (tokens, labels) in batch.tokens.as_slice().chunks(8).zip(batch.labels.as_slice().chunks(8)) {
        assert_eq!(tokens[1..], labels[..7]);
    }
    let references = data.references(&data.held_out(50).unwrap());
    let [even, bytes_alone, pairs] = ["guessing evenly", "bytes by how often they are", "bytes by the one before"]
        .map(|name| loss(&references, name));
    assert!(even > bytes_alone && bytes_alone > pairs && references.iter().all(|r| !r.best), "{references:?}");
    let other = Text::new([bytes, b"x".repeat(10)].concat(), "t.txt", &cfg, 1).unwrap();
    assert_ne!(data.describe(), other.describe());
    assert!(Text::new(*b"too short", "t", &cfg, 1).unwrap_err().to_string().contains("at least 180"));
    assert!(Experiment::Text.data(&cfg, 0, None).is_err());
    assert!(
        Experiment::Text.is_of(&cfg, &data.describe()) && !Experiment::Text.is_of(&sizes(257, 8), &data.describe())
    );
}

#[test]
fn every_preset_has_data_for_its_model() {
    for preset in [Preset::Induction, Preset::Markov, Preset::Grokking] {
        let cfg = preset.model().resolved().unwrap();
        let experiment = preset.experiment().unwrap();
        let mut data = experiment.data(&cfg, 0, None).unwrap();
        let batch = data.batch(4).unwrap();
        assert_eq!(batch.tokens.shape()[1], cfg.n_ctx);
        assert!(batch.labels.as_slice().iter().all(|l| (*l as usize) < cfg.d_vocab_out));
        assert_eq!(Experiment::from_name(experiment.name()), Some(experiment));
        assert!(experiment.is_of(&cfg, &data.describe()));
        assert!(Experiment::ALL.into_iter().all(|e| e == experiment || !e.is_of(&cfg, &data.describe())));
        assert!(preset.train().check().is_ok());
        // Of whatever task: batches by their numbers, and losses to compare with.
        let second = data.batch(4).unwrap();
        data.seek(0);
        assert_eq!((data.batch(4).unwrap(), data.batch(4).unwrap()), (batch, second));
        assert!(!data.references(&data.held_out(4).unwrap()).is_empty(), "{}", preset.name());
    }
}

#[test]
fn a_run_tells_the_loss_of_every_step() {
    let cfg = Config { d_model: 16, d_head: 16, n_layers: 1, attn_only: true, ..sizes(2, 8) };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap();
    let mut data = Markov::new(model.config(), 5).unwrap();
    let first = data.batch(4).unwrap();
    let before = labelled_loss(&ironlens_autograd::Var::from(model.forward(&first.tokens).unwrap()), &first).item();
    data.seek(0);
    let config = TrainConfig { steps: 3, batch_size: 4, ..TrainConfig::default() };
    let mut learner = LanguageModel::new(&mut model, labelled_loss).named("markov");
    let run = Trainer::new(config).fit(&mut learner, &mut data).unwrap();
    assert!(!run.stopped, "nobody asked for that");
    let losses: Vec<f64> = run.metrics.iter().map(|m| m.loss).collect();
    assert_eq!((run.losses().len(), run.losses(), run.final_loss()), (3, losses.clone(), losses.last().copied()));
    assert!((losses[0] - before).abs() < 1e-6, "{losses:?} {before}");
}

/// Two layers of attention count transitions in context; the loss of one that only counts states is passed.
#[test]
fn chains_are_learned_past_the_plateau_of_counting_states() {
    let cfg = Config {
        d_model: 16,
        d_head: 16,
        n_layers: 2,
        attn_only: true,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        ..sizes(2, 40)
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap();
    let mut data = Markov::new(model.config(), 5).unwrap();
    let config = TrainConfig { steps: 700, batch_size: 32, lr: 1e-2, eval_batch_size: 200, ..Preset::Markov.train() };
    let mut learner = LanguageModel::new(&mut model, labelled_loss).named("markov");
    let run = Trainer::new(config).fit(&mut learner, &mut data).unwrap();
    let references = data.references(&data.held_out(200).unwrap());
    let (states, best) = (loss(&references, "counting states"), loss(&references, "counting transitions"));
    let reached = run.held_out_loss().unwrap();
    assert!(reached < states - 0.5 * (states - best), "{reached}, {references:?}");
    assert!(reached > best - 0.01, "{reached} is below what can be: {references:?}");
}

/// The loss is of the labels alone, in double precision where the device has it.
#[test]
fn the_loss_is_of_the_labels() {
    let logits = ironlens_tensor::Tensor::from_vec(vec![9.0, 0.0, 0.0, 0.0, 20.0, 0.0], &[1, 2, 3], &Device::Cpu);
    let batch = Labelled {
        tokens: IndexTensor::new(vec![0, 1], &[1, 2]),
        first: 1,
        labels: IndexTensor::new(vec![1], &[1, 1]),
    };
    let loss = labelled_loss(&ironlens_autograd::Var::from(logits), &batch).value().item();
    let expected = (1.0 + 2.0 * (-20f64).exp()).ln();
    assert!((loss / expected - 1.0).abs() < 1e-6, "{loss} {expected}");
}
