//! A module that is no transformer: hooks, caches, files, permanent hooks, plain passes.

use ironlens_autograd::{Tape, Var};
use ironlens_nn::optim::Optimizer;
use ironlens_nn::{Ctx, HookError, HookPoint, HookedRootModule, Hooks, Init, Linear, Params, Registry};
use ironlens_tensor::{DType, Device, Rng, Tensor};

/// Codes of 2 numbers for points of 5.
struct Autoencoder {
    params: Params,
    encoder: Linear,
    decoder: Linear,
    hook_code: HookPoint,
    hook_out: HookPoint,
}

impl Autoencoder {
    fn new(seed: u64) -> Autoencoder {
        let mut registry = Registry::new("Autoencoder");
        let mut scope = registry.root();
        let encoder = Linear::new(&mut scope.child("encoder", "Linear"), 5, 2, 0.5);
        let decoder = Linear::new(&mut scope.child("decoder", "Linear"), 2, 5, 0.5);
        let (hook_code, hook_out) = (scope.hook("hook_code", "batch code"), scope.hook("hook_out", "batch unit"));
        Autoencoder { params: Params::initialised(registry, seed, &Device::Cpu), encoder, decoder, hook_code, hook_out }
    }
}

impl HookedRootModule for Autoencoder {
    type Input = Tensor;

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, ctx: &mut Ctx<'_, '_>, points: &Tensor) -> Result<Var, HookError> {
        let code = self.encoder.forward(ctx, &Var::from(points.clone()));
        let code = self.hook_code.apply(ctx, code)?;
        let out = self.decoder.forward(ctx, &code);
        self.hook_out.apply(ctx, out)
    }
}

fn points() -> Tensor {
    Rng::new(1, 0).normal(&[4, 5], 0.0, 1.0, &Device::Cpu)
}

#[test]
fn any_module_has_a_cache_that_hooks_come_before() {
    let module = Autoencoder::new(0);
    let (out, cache) = module.run_with_cache(&points()).unwrap();
    assert_eq!(cache.names().collect::<Vec<_>>(), ["hook_code", "hook_out"]);
    assert_eq!(cache["hook_out"].to_vec(), out.to_vec());
    assert_eq!(out.to_vec(), module.run(&points()).unwrap().to_vec());

    let mut ablate = Hooks::new().fwd("hook_code", |code, _| code.zero_at(1, 0));
    let (ablated, cache) = module.run_with_cache_of(&points(), "hook_code", &mut ablate).unwrap();
    assert_eq!((cache.len(), ablated.to_vec() == out.to_vec()), (1, false));
    assert!(cache["hook_code"].select(1, 0).to_vec().iter().all(|c| *c == 0.0));
    let error = module.run_with_cache_of(&points(), "hook_cod", &mut Hooks::new()).unwrap_err();
    assert!(error.to_string().contains("hook_code"), "{error}");
    let unwind = std::panic::AssertUnwindSafe(|| cache["hook_cde"].clone());
    let message = std::panic::catch_unwind(unwind).unwrap_err();
    assert!(message.downcast_ref::<String>().unwrap().contains("hook_code"));
}

#[test]
fn any_module_learns_and_is_kept_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("autoencoder.safetensors");
    let mut module = Autoencoder::new(0);
    let mut optimizer = Optimizer::adam((0.9, 0.999), 1e-8, 0.0);
    let mut losses = Vec::new();
    for _ in 0..100 {
        let points = points();
        let loss = |out: &Var| (out - &points).square().mean_all();
        let (loss, gradients) = module.gradients(&points, &mut Hooks::new(), loss).unwrap();
        optimizer.step(&mut module.params, &gradients, 0.05, None);
        losses.push(loss.item());
    }
    assert!(losses[99] < losses[0] / 2.0, "{} is not half of {}", losses[99], losses[0]);
    module.params.save(&path).unwrap();
    let mut other = Autoencoder::new(1);
    assert_ne!(other.run(&points()).unwrap().to_vec(), module.run(&points()).unwrap().to_vec());
    other.params.load(&path).unwrap();
    assert_eq!(other.run(&points()).unwrap().to_vec(), module.run(&points()).unwrap().to_vec());

    // A file of another module changes nothing, and all that is wrong is told.
    let mut registry = Registry::new("Other");
    let mut scope = registry.root();
    Linear::new(&mut scope.child("encoder", "Linear"), 5, 3, 0.5);
    scope.param("more", &[2], Init::Ones);
    let mut wrong = Params::initialised(registry, 0, &Device::Cpu);
    let before = wrong.get("encoder.W").unwrap().to_vec();
    let error = wrong.load(&path).unwrap_err().to_string();
    for part in ["`encoder.W` has shape [5, 2]", "`more` [2] is missing", "`decoder.W` is not a parameter"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(wrong.get("encoder.W").unwrap().to_vec(), before);
}

#[test]
fn permanent_hooks_run_in_every_pass_before_those_of_the_call() {
    let mut module = Autoencoder::new(0);
    let plain = module.run(&points()).unwrap();
    module.params.add_perma_hook("hook_code", |code, _| code.zero_at(1, 0)).unwrap();
    assert_eq!(module.params.perma_hooks().collect::<Vec<_>>(), ["hook_code"]);
    let (ablated, cache) = module.run_with_cache(&points()).unwrap();
    assert_ne!(ablated.to_vec(), plain.to_vec());
    assert!(cache["hook_code"].select(1, 0).to_vec().iter().all(|c| *c == 0.0));

    let mut seen = Vec::new();
    let mut look = Hooks::new().fwd("hook_code", |code, _| seen.extend(code.value().select(1, 0).to_vec()));
    module.run_with_hooks(&points(), &mut look).unwrap();
    drop(look);
    assert_eq!(seen, [0.0; 4]);

    // What it cuts off has no gradient; copies of the parameters keep it.
    let loss = |out: &Var| out.square().mean_all();
    let (_, gradients) = module.gradients(&points(), &mut Hooks::new(), loss).unwrap();
    let by_encoder = gradients[0].as_ref().unwrap();
    assert!(by_encoder.select(1, 0).to_vec().iter().all(|g| *g == 0.0));
    assert!(by_encoder.select(1, 1).to_vec().iter().any(|g| *g != 0.0));
    assert_eq!(module.params.to_dtype(DType::F64).perma_hooks().count(), 1);

    // A pass without hooks has none of them.
    let mut ctx = Ctx::plain(&module.params);
    assert_eq!(module.forward(&mut ctx, &points()).unwrap().value().to_vec(), plain.to_vec());
    assert!(module.params.add_perma_hook("hook_cod", |_, _| ()).unwrap_err().to_string().contains("hook_code"));
    module.params.remove_perma_hooks();
    assert_eq!(module.run(&points()).unwrap().to_vec(), plain.to_vec());
}

#[test]
fn permanent_hooks_see_gradients_and_may_fail() {
    let mut module = Autoencoder::new(0);
    module.params.add_perma_bwd_hook("hook_code", |grad, _| *grad = grad.zeros_like()).unwrap();
    let loss = |out: &Var| out.square().mean_all();
    let (_, gradients) = module.gradients(&points(), &mut Hooks::new(), loss).unwrap();
    assert!(gradients[0].as_ref().unwrap().to_vec().iter().all(|g| *g == 0.0));
    module.params.add_perma_hook("hook_out", |_, _| Err("no".into())).unwrap();
    let error = module.run(&points()).unwrap_err().to_string();
    assert!(error.contains("hook_out") && error.contains("no"), "{error}");
}

#[test]
fn a_plain_pass_on_a_tape_has_the_weights_as_leaves() {
    let mut module = Autoencoder::new(0);
    module.params.freeze(|name| name.starts_with("encoder."));
    let tape = Tape::new();
    let mut ctx = Ctx::plain_on(&module.params, &tape);
    let loss = module.forward(&mut ctx, &points()).unwrap().square().mean_all();
    let by = ctx.backward(&loss).unwrap();
    assert_eq!(by.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, true]);
}

#[test]
fn weights_start_anew() {
    let mut module = Autoencoder::new(3);
    let first = module.params.get("encoder.W").unwrap().to_vec();
    module.params.set("encoder.b", &Tensor::from([1.0, 2.0])).unwrap();
    module.params.init_weights(4);
    assert_ne!(module.params.get("encoder.W").unwrap().to_vec(), first);
    module.params.init_weights(3);
    assert_eq!(module.params.get("encoder.W").unwrap().to_vec(), first);
    assert_eq!(module.params.get("encoder.b").unwrap().to_vec(), [0.0, 0.0], "biases start at 0 again");
    let bound = Init::xavier_uniform(5, 2, 1.0);
    assert_eq!(module.params.init_where(|name| name.ends_with(".W"), bound, 0), 2);
    let largest = module.params.get("encoder.W").unwrap().abs().max(&[0, 1]).item();
    assert!(largest < (6.0f64 / 7.0).sqrt() && largest > 0.5, "{largest}");
}
