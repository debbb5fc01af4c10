//! Toy models of superposition (Elhage et al. 2022): five features share two dimensions, the more so the sparser they
//! are. No transformer: parameters, a hook point and a forward pass are enough.
//!
//! `cargo run --release --example superposition`, or `-- small` for a rough one. Figures: `superposition-figures`.

use ironlens::prelude::*;

/// How likely a feature is there, in each of several models side by side.
const PROBABILITIES: [f32; 4] = [1.0, 0.4, 0.15, 0.05];
const FEATURES: usize = 5;
const HIDDEN: usize = 2;

/// `x' = ReLU(x W^T W + b)` with `W` [model, hidden, feature].
pub(crate) struct Toy {
    pub(crate) params: Params,
    w: Param,
    b: Param,
    hook_hidden: HookPoint,
}

impl Toy {
    pub(crate) fn new(seed: u64) -> Toy {
        let mut registry = Registry::new("Toy");
        let mut scope = registry.root();
        let n = PROBABILITIES.len();
        let w = scope.param("W", &[n, HIDDEN, FEATURES], Init::xavier_normal(HIDDEN, FEATURES, 1.0));
        let b = scope.param("b", &[n, 1, FEATURES], Init::Zeros);
        let hook_hidden = scope.hook("hook_hidden", "model batch hidden");
        Toy { params: Params::initialised(registry, seed, &Device::Cpu), w, b, hook_hidden }
    }
}

impl HookedRootModule for Toy {
    type Input = Tensor; // [model, batch, feature]

    fn params(&self) -> &Params {
        &self.params
    }

    fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Tensor) -> Result<Var, HookError> {
        let w = ctx.param(self.w).clone();
        let hidden = self.hook_hidden.apply(ctx, Var::from(x.clone()).matmul(&w.transpose(1, 2)))?;
        Ok((hidden.matmul(&w) + ctx.param(self.b)).relu())
    }
}

fn main() -> ironlens::Result<()> {
    let steps = if std::env::args().any(|a| a == "small") { 1500 } else { 10_000 };
    std::fs::create_dir_all("superposition-figures")?;
    let probability = Tensor::from(PROBABILITIES).reshape(&[PROBABILITIES.len(), 1, 1]);
    let importance = Tensor::from([1.0, 0.9, 0.81, 0.729, 0.656]);

    let (mut toy, mut rng) = (Toy::new(1), Rng::new(0, 0));
    let mut optimizer = Optimizer::adam((0.9, 0.999), 1e-8, 0.0);
    for step in 0..steps {
        let shape = [PROBABILITIES.len(), 1024, FEATURES];
        let [value, draw] = [(); 2].map(|()| rng.uniform(&shape, 0.0, 1.0, &Device::Cpu));
        let x = value * draw.lt(&probability);
        let error = |out: &Var| ((out - &x).square() * &importance).mean(&[1, 2]).sum_all();
        let (loss, gradients) = toy.gradients(&x, &mut Hooks::new(), error)?;
        optimizer.step(&mut toy.params, &gradients, 3e-3, None);
        if step % (steps / 5) == 0 {
            println!("step {step:>5}: loss {:.4}", loss.item());
        }
    }

    // Each column of W is the direction of a feature: rays from the middle, and how much they overlap.
    let w = toy.params.get("W")?;
    for (i, p) in PROBABILITIES.into_iter().enumerate() {
        let [x, y] = [0, 1].map(|axis| w.select(0, i).select(0, axis).to_vec());
        let rays = (0..FEATURES).map(|f| Series::new(format!("feature {f}"), &[0.0, y[f]]).x(&[0.0, x[f]]));
        let figure = line(rays.collect::<Vec<_>>()).title(format!("Features that are there with probability {p}"));
        figure.save(format!("superposition-figures/directions-{i}.html"))?;
        let lengths = w.select(0, i).vector_norm(&[0]).to_vec();
        println!("p = {p:<4}: {} features, lengths {lengths:.2?}", lengths.iter().filter(|l| **l > 0.5).count());
    }
    let overlap = imshow(&w.transpose(1, 2).matmul(&w)).facets(PROBABILITIES.map(|p| format!("p = {p}")));
    Ok(overlap.title("Overlap of features").midpoint(0.0).save("superposition-figures/overlap.html")?)
}
