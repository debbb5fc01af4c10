//! What training allocates. In a program of its own: all that computes shares the pool of memory and its counter.

use ironlens_nn::optim::Optimizer;
use ironlens_tensor::{Device, fresh_allocations};
use ironlens_train::{Data, LanguageModel, RandomTokens, previous_token_loss, train_step};
use ironlens_transformer::{ActFn, Config, HookedTransformer};

#[test]
fn training_allocates_nothing_of_tensor_size_once_warm() {
    let cfg = Config {
        d_model: 192,
        d_head: 32,
        n_layers: 2,
        n_ctx: 72,
        d_vocab: 50,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap();
    let mut data = RandomTokens::new(model.config(), 1).unwrap();
    let mut optimizer = Optimizer::adamw((0.9, 0.95), 1e-8, 0.1);
    let mut learner = LanguageModel::new(&mut model, previous_token_loss);
    let mut step = || {
        let x = data.batch(4).unwrap();
        train_step(&mut learner, &mut optimizer, &x, 1e-3, Some(1.0)).unwrap();
        fresh_allocations()
    };
    // How many buffers are in use at once depends on which thread is how far: after some steps there are enough.
    let counts: Vec<usize> = (0..24).map(|_| step()).collect();
    assert!(counts[16..].iter().all(|count| *count == counts[15]), "{counts:?}");
}
