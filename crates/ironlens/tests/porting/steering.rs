//! A steering vector, trained through a frozen model and then left in it.

use ironlens::demo::trained_tiny_for;
use ironlens::prelude::*;

#[test]
fn a_steering_vector_is_trained_and_stays() -> ironlens::Result<()> {
    let (model, mut data) = trained_tiny_for(60, &Device::Cpu)?;
    let tokens = data.batch(4)?;
    let wanted = 7;
    let before = model.params().iter().map(|(_, w)| w.sum_all().item()).sum::<f64>();

    // One vector, added to the stream at every position, that makes the model say token 7.
    let place = "blocks.1.hook_resid_pre";
    let mut registry = Registry::new("Steering");
    let param = registry.root().param("vector", &[model.config().d_model], Init::Zeros);
    let mut steering = Params::zeros(registry, &Device::Cpu);
    let mut optimizer = Optimizer::adam((0.9, 0.999), 1e-8, 0.0);
    let targets = IndexTensor::new(vec![wanted; tokens.numel()], tokens.shape());
    let mut losses = Vec::new();
    for _ in 0..40 {
        let tape = Tape::new();
        let (loss, gradients) = {
            let own = Ctx::plain_on(&steering, &tape);
            let vector = own.param(param).clone();
            let mut hooks = Hooks::new().fwd(place, |x, _| *x += &vector);
            let call = model.call(&tokens).hooks(&mut hooks).leaves(Leaves::None);
            let loss = |out: &ironlens::transformer::Output| out.logits().cross_entropy(&targets).mean_all();
            let (loss, _, gradients) = call.gradients_with(&tape, &[&vector], loss)?;
            (loss, gradients)
        };
        optimizer.step(&mut steering, &gradients, 0.3, None);
        losses.push(loss);
    }
    assert!(losses[39] < 0.5 * losses[0], "{losses:?}");
    let after = model.params().iter().map(|(_, w)| w.sum_all().item()).sum::<f64>();
    assert_eq!(before, after, "the model is as it was");

    // The steered model, for whatever comes: generation, detectors, patching.
    let vector = steering.get("vector")?;
    let mut steered = model.clone();
    let added = vector.clone();
    steered.add_perma_hook(place, move |x, _| *x += &added)?;
    let mut hooks = Hooks::new().fwd(place, |x, _| *x += &vector);
    assert_eq!(steered.forward(&tokens)?.to_vec(), model.run_with_hooks(&tokens, &mut hooks)?.to_vec());
    let share = |model: &HookedTransformer| -> ironlens::Result<usize> {
        let said = model.forward(&tokens)?.argmax(2);
        Ok(said.as_slice().iter().filter(|id| **id == wanted).count())
    };
    assert!(share(&steered)? > share(&model)? + tokens.numel() / 4, "{} and {}", share(&steered)?, share(&model)?);
    Ok(())
}
