//! Parameters beside the model's, which live in hooks: their gradients against central differences in f64,
//! and training of them alone and together with the model.

use std::cell::RefCell;
use std::rc::Rc;

use ironlens_autograd::{Tape, Var};
use ironlens_nn::optim::Optimizer;
use ironlens_nn::{Ctx, Hooks, Init, Leaves, Params, Registry};
use ironlens_tensor::{DType, Device, IndexTensor, Rng, Tensor};
use ironlens_transformer::{ActFn, Config, HookedTransformer, ModelError, ReturnType};

fn model() -> HookedTransformer {
    let cfg = Config {
        d_model: 8,
        d_head: 4,
        n_heads: 2,
        n_layers: 2,
        n_ctx: 6,
        d_vocab: 7,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap().to_dtype(DType::F64)
}

fn tokens() -> IndexTensor {
    Rng::new(5, 0).integers(&[3, 6], 0, 7)
}

fn draw(shape: &[usize], stream: u64) -> Tensor {
    Rng::new(7, stream).normal(shape, 0.0, 0.5, &Device::Cpu).to_dtype(DType::F64)
}

/// Compares the gradients of the loss by `own`, whose hooks `hooks` makes, with central differences.
fn check(own: &[Tensor], hooks: impl Fn(&[Var]) -> Hooks<'static>) {
    let model = model();
    let run = |own: &[Tensor], leaves: Leaves<'static>| -> Result<_, ModelError> {
        let tape = Tape::new();
        let leaf: Vec<Var> = own.iter().map(|x| tape.leaf(x.clone())).collect();
        let mut hooks = hooks(&leaf);
        let tokens = tokens();
        let call = model.call(&tokens).return_type(ReturnType::Loss).hooks(&mut hooks).leaves(leaves);
        call.gradients_with(&tape, &leaf.iter().collect::<Vec<_>>(), |out| out.loss().clone())
    };
    let (_, none, alone) = run(own, Leaves::None).unwrap();
    let (_, all, together) = run(own, Leaves::All).unwrap();
    assert!(none.slots().iter().all(Option::is_none) && all.slots().iter().all(Option::is_some));
    for (i, value) in own.iter().enumerate() {
        let [alone, together] =
            [&alone, &together].map(|g| g[i].as_ref().expect("the loss depends on it").to_vec_f64());
        assert_eq!(alone, together);
        assert!(alone.iter().any(|g| g.abs() > 1e-6), "{alone:?}");
        for (at, grad) in alone.into_iter().enumerate() {
            let shifted = |by: f64| {
                let (mut moved, mut values) = (own.to_vec(), value.to_vec_f64());
                values[at] += by;
                moved[i] = Tensor::from_vec_f64(values, value.shape());
                run(&moved, Leaves::None).unwrap().0
            };
            let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            assert!((numeric - grad).abs() < 1e-8, "{grad} is not {numeric}");
        }
    }
}

#[test]
fn a_steering_vector() {
    check(&[draw(&[8], 0)], |own| {
        let vector = own[0].clone();
        Hooks::new().fwd("blocks.1.hook_resid_pre", move |x, _| *x += &vector)
    });
}

#[test]
fn a_mask_of_heads() {
    check(&[draw(&[2, 2], 1)], |own| {
        let mask = own[0].sigmoid();
        Hooks::new().fwd_where(
            |name| name.ends_with("attn.hook_z"),
            move |z, info| {
                let layer = info.layer().ok_or("not in a block")?;
                *z *= mask.select(0, layer).unsqueeze(-1);
                Ok(())
            },
        )
    });
}

#[test]
fn a_low_rank_update() {
    check(&[draw(&[8, 2], 2), draw(&[2, 8], 3)], |own| {
        let (a, b) = (own[0].clone(), own[1].clone());
        // What the MLP reads, times A B, is added to what it writes.
        let read = Rc::new(RefCell::new(None));
        let write = read.clone();
        Hooks::new().fwd("blocks.0.ln2.hook_normalized", move |x, _| *read.borrow_mut() = Some(x.clone())).fwd(
            "blocks.0.hook_mlp_out",
            move |y, _| {
                let x: Var = write.borrow_mut().take().expect("the norm comes before the MLP");
                *y += x.matmul(&a).matmul(&b);
            },
        )
    });
}

#[test]
fn a_soft_prompt() {
    check(&[draw(&[2, 8], 4)], |own| {
        let prompt = own[0].clone();
        Hooks::new().fwd("hook_embed", move |x, _| x.assign(|x| x.narrow(1, 0, 2), &prompt))
    });
}

#[test]
fn an_interchange_in_a_subspace() {
    // Distributed alignment search: what lies in the span of the columns comes from another run.
    let source = draw(&[3, 6, 8], 5);
    check(&[draw(&[8, 2], 6)], move |own| {
        let (directions, source) = (own[0].clone(), source.clone());
        Hooks::new().fwd("blocks.0.hook_resid_post", move |x, _| {
            let difference = Var::from(source.clone()) - &*x;
            *x += difference.matmul(&directions).matmul(&directions.t());
        })
    });
}

#[test]
fn own_parameters_learn_alone_and_together_with_the_model() {
    let mut registry = Registry::new("Steering");
    let vector = registry.root().param("vector", &[8], Init::Zeros);
    for together in [false, true] {
        let mut model = model();
        let start = model.param("blocks.1.mlp.W_in").unwrap().to_vec_f64();
        let mut own = Params::zeros(registry.clone(), &Device::Cpu).to_dtype(DType::F64);
        let mut optimizers = [(); 2].map(|()| Optimizer::adamw((0.9, 0.999), 1e-8, 0.0));
        let mut losses = Vec::new();
        for _ in 0..30 {
            let (tape, mut none) = (Tape::new(), Hooks::new());
            let ctx = Ctx::record(&own, &tape, &mut none).unwrap();
            let steering = ctx.param(vector).clone();
            let mut hooks = Hooks::new().fwd("blocks.1.hook_resid_pre", |x, _| *x += &steering);
            let tokens = tokens();
            let leaves = if together { Leaves::All } else { Leaves::None };
            let call = model.call(&tokens).return_type(ReturnType::Loss).hooks(&mut hooks).leaves(leaves);
            let (loss, of_model, of_own) = call.gradients_with(&tape, &[&steering], |out| out.loss().clone()).unwrap();
            drop(hooks);
            drop((ctx, steering));
            let [first, second] = &mut optimizers;
            first.step(&mut own, &of_own, 0.05, None);
            second.step(model.params_mut(), of_model.slots(), 0.005, None);
            losses.push(loss);
        }
        assert!(losses[29] < losses[0] - 0.05, "{losses:?}");
        assert!(own.get("vector").unwrap().to_vec_f64().iter().all(|v| *v != 0.0));
        assert_eq!(model.param("blocks.1.mlp.W_in").unwrap().to_vec_f64() == start, !together);
    }
}
