//! The Attribution Patching demo: gradients of a metric by every activation, by hand and built in, beside what
//! patching gives.

use ironlens::demo::{Question, question, trained_tiny_for};
use ironlens::prelude::*;

#[test]
fn attribution_by_hand_is_attribution() -> ironlens::Result<()> {
    let (model, mut data) = trained_tiny_for(60, &Device::Cpu)?;
    let Question { clean, corrupted, metric } = question(&model, &mut data)?;
    let (_, cache) = model.run_with_cache(&clean)?;
    let heads = |name: &str| name.ends_with("attn.hook_z");
    let (value, of_corrupted) =
        model.call(&corrupted).names(heads).cached_gradients(|out| metric.apply(out.logits()))?;
    assert!((value - metric.of(&model.forward(&corrupted)?)).abs() < 1e-5);

    let built_in = attribution_patch(&model, &clean, &corrupted, &metric, heads, 1)?;
    let session = Patching::new(&model, &corrupted, &cache, &metric)?;
    let exact = session.attn_head_out_all_pos(PatchOptions::default())?;
    let (mut estimates, mut patched) = (Vec::new(), Vec::new());
    for layer in 0..model.config().n_layers {
        let change = &cache[("z", layer)] - &of_corrupted[("z", layer)];
        let by_hand = einsum("b p h d, b p h d -> h", &[&change, of_corrupted.grad(("z", layer))?]);
        let found = built_in.get(&act("z", layer)).ok_or("no scores")?.sum(&[0, 1, 3]);
        assert!((&by_hand - found).abs().max(0).item() < 1e-5);
        estimates.extend(by_hand.to_vec_f64());
        patched.extend((exact.values.select(0, layer) - exact.corrupted).to_vec_f64());
    }
    // A first-order estimate: it agrees about which head moves the answer most, and which way.
    let most = |of: &[f64]| (0..of.len()).max_by(|a, b| of[*a].abs().total_cmp(&of[*b].abs())).unwrap_or(0);
    let (a, b) = (most(&estimates), most(&patched));
    assert!(estimates[b] * patched[b] > 0.0, "head {b}: {} against {}", estimates[b], patched[b]);
    assert!(patched[a].abs() > 0.2 * patched[b].abs(), "{estimates:?} against {patched:?}");
    Ok(())
}
