//! Results depend on neither the number of threads nor what else is in the batch.

use ironlens::prelude::*;
use ironlens_tests::{case_model, reference, small_model};

fn wide_model() -> HookedTransformer {
    let cfg = Config {
        d_model: 192,
        d_head: 32,
        n_layers: 2,
        n_ctx: 72,
        d_vocab: 50,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap()
}

/// A seed gives the same weights in every version and on every machine: runs are started from seeds again.
#[test]
fn the_weights_of_a_seed_are_pinned() {
    let first = |name: &str| -> Vec<u32> {
        let weights = wide_model().param(name).unwrap().to_vec();
        weights.into_iter().take(4).map(f32::to_bits).collect()
    };
    assert_eq!(first("embed.W_E"), [3160286759, 3181826341, 1016955601, 3179625208]);
    assert_eq!(first("blocks.1.attn.W_K"), [1016487447, 983015700, 1029258679, 3147021661]);
}

/// The losses and final weights of a few steps.
fn train(model: &HookedTransformer) -> Vec<Vec<f32>> {
    let mut model = model.clone();
    let mut data = RandomTokens::new(model.config(), 1).unwrap();
    let config = TrainConfig { steps: 3, batch_size: 4, lr: 1e-3, log_every: 1, ..TrainConfig::notebook() };
    let run = Trainer::new(config).fit_model(&mut model, &mut data, previous_token_loss).unwrap();
    let mut all = vec![run.losses().iter().map(|l| *l as f32).collect()];
    all.extend(model.params().slots().iter().map(Tensor::to_vec));
    all
}

/// Sweeps, Python and callers' own threads rely on this; it is checked when it is compiled.
#[test]
fn what_a_model_is_made_of_may_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<HookedTransformer>();
    shared::<ActivationCache>();
    shared::<ironlens::nn::Params>();
    shared::<Tensor>();
    shared::<IndexTensor>();
    shared::<Device>();
    shared::<ironlens::train::RunDir>();
    shared::<ironlens::transformer::ModelError>();
    shared::<ironlens::train::TrainError>();
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for model in [wide_model(), small_model()] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(&model))
        };
        let one = run(1);
        assert!(one == run(2), "two threads");
        assert!(one == run(3), "three threads");
    }
}

/// Outside of rayon's threads a token's products are done by a team of threads of their own.
#[test]
fn what_is_written_has_the_same_bits_on_every_kind_of_thread() {
    let model = wide_model();
    let prompt = ironlens::tensor::Rng::new(4, 1).integers(&[1, 5], 0, 50);
    let options = GenerateOptions { max_new_tokens: 40, stop_at_eos: false, ..GenerateOptions::greedy() };
    let write = || {
        let written = model.generate(&prompt, &options).unwrap();
        let bits = |row: &Vec<f32>| row.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
        (written.new_tokens, written.log_probs.iter().map(bits).collect::<Vec<_>>())
    };
    let outside = write();
    assert_eq!(outside.0[0].len(), 40);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(write) == outside, "{threads} threads");
    }
}

#[test]
fn a_sequence_alone_has_the_bits_it_has_in_a_batch() {
    let mut models = vec![wide_model(), small_model()];
    models.extend(["llama", "gptj", "local_attention", "softcap"].map(|c| case_model(&reference().join(c))));
    for model in models {
        let cfg = model.config();
        let x = ironlens::tensor::Rng::new(4, 0).integers(&[5, cfg.n_ctx], 0, cfg.d_vocab as u32);
        let (logits, cache) = model.run_with_cache(&x).unwrap();
        for row in [0, 3] {
            let (alone, alone_cache) = model.run_with_cache(&x.rows(&[row])).unwrap();
            assert_eq!(alone.to_vec(), logits.narrow(0, row, 1).to_vec());
            for (name, value) in &alone_cache {
                assert_eq!(value.to_vec(), cache.get(name).unwrap().narrow(0, row, 1).to_vec(), "{name}");
            }
        }
        // Earlier positions do not see later ones.
        let short = model.forward(&x.narrow(1, 0, 5)).unwrap();
        assert_eq!(short.to_vec(), logits.narrow(1, 0, 5).to_vec());
    }
}
