//! The Grokking demo: sums modulo a prime on the last position, the loss in double precision, weight decay 1,
//! and a look at the embedding in the basis of sines and cosines.

use ironlens::prelude::*;
use ironlens::train::{ModularAddition, labelled_loss};

const P: usize = 11;

/// Constant, cosines and sines of all frequencies, as rows of length 1.
fn fourier_basis() -> Tensor {
    let at = Tensor::arange(P, DType::F32, &Device::Cpu);
    let mut rows = vec![Tensor::ones(&[P], DType::F32, &Device::Cpu)];
    for k in 1..=P / 2 {
        let angle = &at * (std::f64::consts::TAU * k as f64 / P as f64);
        rows.extend([angle.cos(), angle.sin()]);
    }
    let rows = Tensor::stack(&rows, 0);
    &rows / rows.vector_norm(1).unsqueeze(1)
}

#[test]
fn grokking() -> ironlens::Result<()> {
    let cfg = Config {
        d_model: 32,
        d_head: 8,
        n_layers: 1,
        n_ctx: 3,
        d_mlp: 64,
        d_vocab: P + 1,
        d_vocab_out: P,
        act_fn: ActFn::Relu,
        normalization_type: NormalizationType::None,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 999)?;
    let mut data = ModularAddition::new(model.config(), 598)?;
    let all = data.sizes().0;
    let mut optimizer = Optimizer::adamw((0.9, 0.98), 1e-8, 1.0);
    let mut checkpoints = vec![model.clone()];
    let mut losses = Vec::new();
    for _ in 0..150 {
        let batch = data.batch(all)?;
        let mut learner = LanguageModel::new(&mut model, labelled_loss);
        losses.push(train_step(&mut learner, &mut optimizer, &batch, 1e-2, None)?.loss.item());
    }
    checkpoints.push(model.clone());
    assert!(losses[149] < 0.3 && losses[0] > 2.0, "by heart: {} to {}", losses[0], losses[149]);

    // Which frequencies the embedding uses; their parts add up to the whole of it.
    let basis = fourier_basis();
    let eye = basis.matmul(&basis.t());
    assert!((eye - Tensor::eye(P, DType::F32, &Device::Cpu)).abs().max(&[0, 1]).item() < 1e-5);
    let [before, after] = [0, 1].map(|i| {
        let w_e = checkpoints[i].param("embed.W_E").expect("it is there").narrow(0, 0, P);
        let parts = basis.matmul(&w_e).square().sum(1);
        let (sum, norm) = (parts.sum_all().item(), w_e.square().sum_all().item());
        assert!((sum - norm).abs() < 1e-4 * norm, "{sum} is not {norm}");
        parts
    });
    assert_ne!(before.to_vec(), after.to_vec());

    // Neurons as functions of both numbers, transformed in both at once.
    let pairs: Vec<[u32; 3]> = (0..P * P).map(|i| [(i / P) as u32, (i % P) as u32, P as u32]).collect();
    let tokens = IndexTensor::new(pairs.concat(), &[P * P, 3]);
    let (_, cache) = model.call(&tokens).names(act("post", 0)).pos_slice(Slice::At(-1)).cached()?;
    let neurons = rearrange(&cache[("post", 0)].squeeze(1), "(a b) n -> n a b", &[("a", P)]);
    let spectrum = basis.matmul(&neurons).matmul(&basis.t());
    let back = basis.t().matmul(&spectrum).matmul(&basis);
    assert!((back - &neurons).abs().max(&[0, 1, 2]).item() < 1e-4 * neurons.abs().max(&[0, 1, 2]).item().max(1.0));
    Ok(())
}
