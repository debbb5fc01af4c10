//! A sparse autoencoder by hand on an MLP's output: directions of length 1, dead features that start anew, and
//! the model with the autoencoder in its place.

use std::cell::RefCell;

use ironlens::demo::trained_tiny_for;
use ironlens::prelude::*;

struct Sae {
    params: Params,
    w_enc: Param,
    b_enc: Param,
    w_dec: Param,
    b_dec: Param,
    hook_features: HookPoint,
}

const FEATURES: usize = 96;

impl Sae {
    fn new(d_model: usize) -> Sae {
        let mut registry = Registry::new("SAE");
        let mut scope = registry.root();
        let w_enc = scope.param("W_enc", &[d_model, FEATURES], Init::kaiming_uniform(d_model, 1.0));
        let b_enc = scope.param("b_enc", &[FEATURES], Init::Zeros);
        let w_dec = scope.param("W_dec", &[FEATURES, d_model], Init::kaiming_uniform(d_model, 1.0));
        let b_dec = scope.param("b_dec", &[d_model], Init::Zeros);
        let hook_features = scope.hook("hook_features", "batch feature");
        let params = Params::initialised(registry, 3, &Device::Cpu);
        Sae { params, w_enc, b_enc, w_dec, b_dec, hook_features }
    }

    /// Directions of length 1.
    fn normalize(&mut self) -> ironlens::Result<()> {
        let w = self.params.get("W_dec")?;
        Ok(self.params.set("W_dec", &(&w / w.vector_norm(1).unsqueeze(1)))?)
    }
}

impl HookedRootModule for Sae {
    type Input = Var; // [batch, d_model]

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var) -> Result<Var, HookError> {
        let centred = x - ctx.param(self.b_dec);
        let features = (centred.matmul(ctx.param(self.w_enc)) + ctx.param(self.b_enc)).relu();
        let features = self.hook_features.apply(ctx, features)?;
        Ok(features.matmul(ctx.param(self.w_dec)) + ctx.param(self.b_dec))
    }
}

#[test]
fn a_sparse_autoencoder() -> ironlens::Result<()> {
    let (model, mut data) = trained_tiny_for(60, &Device::Cpu)?;
    let d_model = model.config().d_model;
    let hook = act("mlp_out", 0);
    let (_, cache) = model.call(&data.batch(32)?).names(hook.clone()).cached()?;
    let all = rearrange(&cache[("mlp_out", 0)], "b p d -> (b p) d", &[]);

    let mut sae = Sae::new(d_model);
    sae.params.set("b_dec", &all.mean(0))?;
    let mut optimizer = Optimizer::adam((0.9, 0.999), 1e-8, 0.0);
    let mut rng = Rng::new(0, 0);
    let mut losses = Vec::new();
    for step in 0..150 {
        sae.normalize()?;
        let x = Var::from(all.index_select(0, &rng.integers(&[128], 0, all.dim(0) as u32)));
        let gradients = {
            // The sparsity is of the features as they are on the way: a hook takes them along.
            let features = RefCell::new(None);
            let mut hooks = Hooks::new().fwd("hook_features", |f, _| *features.borrow_mut() = Some(f.clone()));
            let tape = Tape::new();
            let mut ctx = Ctx::record(&sae.params, &tape, &mut hooks)?;
            let error = (sae.forward(&mut ctx, &x)? - &x).square().sum(1).mean_all();
            losses.push(error.item());
            let features: Var = features.take().ok_or("the hook did not fire")?;
            ctx.backward(&(error + features.abs().sum(1).mean_all() * 1e-3))?
        };
        optimizer.step(&mut sae.params, &gradients, 3e-3, None);

        if step == 75 {
            let (_, seen) = sae.run_with_cache(&all.clone().into())?;
            let firing = seen["hook_features"].max(0).to_vec();
            let dead: Vec<usize> = (0..FEATURES).filter(|f| firing[*f] == 0.0).collect();
            for &feature in &dead {
                let start = Init::kaiming_uniform(d_model, 1.0).draw(&[d_model], &mut rng, &Device::Cpu);
                sae.params.assign("W_enc", |w| w.select(1, feature), &start)?;
            }
            optimizer.reset_at(&sae.params, "W_enc", 1, &dead)?;
            let state = optimizer.state(&sae.params);
            let (_, moment) = state.iter().find(|(name, _)| name == "m.W_enc").ok_or("no moment")?;
            assert!(dead.iter().all(|f| moment.select(1, *f).to_vec().iter().all(|m| *m == 0.0)));
        }
    }
    assert!(losses[149] < 0.5 * losses[0], "{} after {}", losses[149], losses[0]);

    // The model reads what the autoencoder makes of the MLP's output: better than without the MLP.
    let fresh = data.batch(8)?;
    let loss = |hooks: &mut Hooks<'_>| -> ironlens::Result<f64> {
        Ok(previous_token_loss(&model.run_with_hooks(&fresh, hooks)?, &fresh).item())
    };
    let whole = loss(&mut Hooks::new())?;
    let spliced = loss(&mut Hooks::new().fwd(hook.clone(), |x, _| {
        let [batch, pos, d] = *x.shape() else { return Err("three axes were expected".into()) };
        *x = sae.forward(&mut Ctx::plain(&sae.params), &x.reshape(&[batch * pos, d]))?.reshape(&[batch, pos, d]);
        Ok(())
    }))?;
    let mean = all.mean(0);
    let ablated = loss(&mut Hooks::new().fwd(hook, |x, _| *x = &*x * 0.0 + &mean))?;
    assert!((spliced - whole).abs() < (ablated - whole).abs(), "{whole} whole, {spliced} spliced, {ablated} ablated");
    Ok(())
}
