//! Ten programs of interpretability, as users write them, on small models: what public notebooks do, in the
//! facade's words. Each asserts what it found.

mod attribution_patching;
mod brackets;
mod byte_text;
mod exploratory;
mod grokking;
mod induction_heads;
mod sae;
mod steering;
#[path = "../../examples/superposition.rs"]
#[allow(dead_code, reason = "the example's own main is not run here")]
mod superposition;
mod weights_by_hand;

/// The toy of the example: a few steps reduce its error, and its hook point and cache are a transformer's.
#[test]
fn superposition_in_a_toy() -> ironlens::Result<()> {
    use ironlens::prelude::*;
    let mut toy = superposition::Toy::new(1);
    let mut optimizer = Optimizer::adam((0.9, 0.999), 1e-8, 0.0);
    let x = Rng::new(0, 0).uniform(&[4, 64, 5], 0.0, 1.0, &Device::Cpu);
    let mut losses = Vec::new();
    for _ in 0..60 {
        let (loss, gradients) = toy.gradients(&x, &mut Hooks::new(), |out| (out - &x).square().mean_all())?;
        optimizer.step(&mut toy.params, &gradients, 2e-2, None);
        losses.push(loss.item());
    }
    assert!(losses[59] < 0.7 * losses[0], "{losses:?}");
    let (_, cache) = toy.run_with_cache(&x)?;
    assert_eq!(cache["hook_hidden"].shape(), [4, 64, 2]);
    let ablated = toy.run_with_hooks(&x, &mut Hooks::new().fwd("hook_hidden", |h, _| *h = &*h * 0.0))?;
    let bias = toy.params().get("b")?.relu().expand(&[4, 64, 5]);
    assert_eq!(ablated.to_vec(), bias.to_vec());
    Ok(())
}
