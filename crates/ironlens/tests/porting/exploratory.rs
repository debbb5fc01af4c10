//! The Exploratory Analysis demo: logit difference, where in the stream and in which head it arises, and patching
//! by hooks of one's own beside the sweeps.

use ironlens::demo::{Question, question, trained_tiny_for};
use ironlens::prelude::*;

#[test]
fn exploratory_analysis() -> ironlens::Result<()> {
    let (model, mut data) = trained_tiny_for(60, &Device::Cpu)?;
    let model = process_weights(&model, Processing::default())?;
    let Question { clean, corrupted, metric } = question(&model, &mut data)?;
    let (logits, cache) = model.run_with_cache(&clean)?;
    let difference = metric.of(&logits);

    // Layer by layer: what the stream has come to, and what each sublayer adds to it.
    let options = StackOptions { apply_ln: true, pos_slice: Slice::At(-1), ..Default::default() };
    let (right, wrong) = (clean.as_slice()[30], corrupted.as_slice()[30]);
    let w_u = model.w_u()?;
    let direction = w_u.select(1, right as usize) - w_u.select(1, wrong as usize);
    let b_u = model.param("unembed.b_U")?.to_vec();
    let bias = f64::from(b_u[right as usize] - b_u[wrong as usize]);
    let along = |stack: &Tensor| stack.squeeze(2).squeeze(1).matmul(&direction.unsqueeze(1)).squeeze(1).to_vec_f64();
    let accumulated = cache.accumulated_resid(&options, true)?;
    let last = along(&accumulated.values).pop().ok_or("no layers")? + bias;
    assert!((last - difference).abs() < 1e-3, "{last} is not {difference}");
    let parts = along(&cache.decompose_resid(&options, Sublayers::All, true)?.values);
    let sum: f64 = parts.iter().sum::<f64>() + bias;
    assert!((sum - difference).abs() < 1e-3, "{sum} is not {difference}");

    // Patching every head by a hook, as the demo does, and by the sweep.
    let session = Patching::new(&model, &corrupted, &cache, &metric)?;
    let swept = session.attn_head_out_all_pos(PatchOptions::default())?;
    for layer in 0..model.config().n_layers {
        for head in 0..model.config().n_heads() {
            let of_clean = cache[("z", layer)].select(2, head);
            let mut hooks = Hooks::new().fwd(act("z", layer), |z, _| z.set_at(2, head, &of_clean));
            let by_hand = metric.of(&model.run_with_hooks(&corrupted, &mut hooks)?);
            let by_sweep = swept.values.select(0, layer).select(0, head).item();
            assert!((by_hand - by_sweep).abs() < 1e-4, "L{layer}H{head}: {by_hand} is not {by_sweep}");
        }
    }

    // Ablating and caching in one call; norms held as they were.
    let mut hooks = Hooks::new().fwd("blocks.0.attn.hook_z", |z, _| z.zero_at(2, 0));
    let (_, ablated) = model.call(&clean).hooks(&mut hooks).names_where(|n| n.ends_with("ln2.hook_scale")).cached()?;
    let ratio = &ablated[("scale", 0, "ln2")] / &cache[("scale", 0, "ln2")];
    assert!((ratio - 1.0).abs().max(&[0, 1, 2]).item() > 1e-4, "a head moves the norm after it");
    Ok(())
}
