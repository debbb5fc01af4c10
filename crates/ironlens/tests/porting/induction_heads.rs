//! ARENA's induction heads: repeated random tokens, detectors, ablation of every head by a hook, and which heads
//! read which.

use ironlens::prelude::*;

/// A beginning, then tokens that are said twice.
struct Repeated {
    half: usize,
    vocabulary: u32,
    next: u64,
}

impl Repeated {
    fn draw(&self, size: usize, number: u64) -> IndexTensor {
        let tokens = Rng::new(4, number).integers(&[size, self.half], 1, self.vocabulary);
        let begin = IndexTensor::new(vec![0; size], &[size, 1]);
        IndexTensor::cat(&[begin, tokens.clone(), tokens], 1)
    }
}

impl Data for Repeated {
    type Batch = IndexTensor;

    fn batch(&mut self, size: usize) -> Result<IndexTensor, TrainError> {
        self.next += 1;
        Ok(self.draw(size, self.next))
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }

    fn held_out(&self, size: usize) -> Result<IndexTensor, TrainError> {
        Ok(self.draw(size, 0))
    }

    fn describe(&self) -> DataRecord {
        DataRecord { description: "tokens said twice".into(), seed: Some(4) }
    }
}

#[test]
fn induction_heads() -> ironlens::Result<()> {
    let cfg =
        Config { d_model: 32, d_head: 8, n_layers: 2, n_ctx: 13, d_vocab: 12, attn_only: true, ..Config::default() };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 1)?;
    let mut data = Repeated { half: 6, vocabulary: 12, next: 0 };
    let config = TrainConfig { steps: 60, batch_size: 16, lr: 5e-3, ..TrainConfig::default() };
    let run = Trainer::new(config).fit_model(&mut model, &mut data, next_token_loss)?;
    // Held out of the same kind: it falls as the loss does.
    let held_out = run.held_out_loss().ok_or("no held-out loss")?;
    assert!(held_out < run.losses()[0] - 0.1, "{held_out} after {}", run.losses()[0]);

    let tokens = data.held_out(8)?;
    let scores = head_scores(&model, &tokens, &HeadKind::ALL)?;
    let (_, cache) = model.run_with_cache(&tokens)?;
    let previous = cache[("attn", 0)].diagonal(-1).mean(&[0, 2]);
    let share = previous * 12.0 / 13.0;
    let detected = scores[0].select(0, 0);
    assert!((share - detected).abs().max(0).item() < 1e-5, "the detector sums the same diagonal");

    // The loss on the second half without each head, in the commonest loop there is.
    let second_half = |logits: &Tensor| {
        let targets = tokens.narrow(1, 8, 5);
        Var::from(logits.narrow(1, 7, 5)).cross_entropy(&targets).mean_all().item()
    };
    let whole = second_half(&model.forward(&tokens)?);
    let mut losses = Vec::new();
    for layer in 0..2 {
        for head in 0..4 {
            let mut hooks = Hooks::new().fwd(act("z", layer), |z, _| z.zero_at(2, head));
            losses.push(second_half(&model.run_with_hooks(&tokens, &mut hooks)?));
        }
    }
    let metric = Metric::all(|logits| logits.narrow(1, 7, 5).cross_entropy(&tokens.narrow(1, 8, 5)).mean_all());
    let parts = ablation::Parts::Heads;
    let swept = ablate(&model, &tokens, &metric, parts, &Ablation::Zero, PatchOptions::default())?;
    for (by_hand, by_sweep) in losses.iter().zip(swept.values.to_vec_f64()) {
        assert!((by_hand - by_sweep).abs() < 1e-5, "{by_hand} is not {by_sweep}");
    }
    assert!(losses.iter().any(|loss| (loss - whole).abs() > 1e-3), "no head matters");

    // K-composition of the first layer's heads with the second's, above that of random matrices or not.
    let k = model.all_composition_scores(Composition::K)?;
    assert_eq!(k.shape(), [2, 4, 2, 4]);
    assert!(k.select(0, 0).select(1, 1).min(&[0, 1]).item() > 0.0 && k.select(0, 1).max(&[0, 1, 2]).item() == 0.0);

    // The full OV circuit of a head, never multiplied out but to check it.
    let (w_e, w_u) = (model.w_e()?, model.w_u()?);
    let ov = model.ov()?.at(1).at(0).left_matmul(&w_e).matmul(&w_u);

    let sum: f64 = ov.eigenvalues().0.sum_all().item();
    let trace = ov.ab().diagonal(0).sum_all().item();
    assert!((sum - trace).abs() < 1e-3 * trace.abs().max(1.0), "eigenvalues sum to the trace");
    Ok(())
}
