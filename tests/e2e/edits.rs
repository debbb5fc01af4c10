//! Edits in place at every hook point of every architecture: each has the bits of a value that was
//! replaced by one computed apart, forward and backward.

use ironlens::nn::HookInfo;
use ironlens::prelude::*;
use ironlens::tensor::Rng;
use ironlens_tests::{case_model, cases, small_model, tokens};
use rayon::prelude::*;

/// Sets the elements at one index of an axis, of values of any shape: some hook points are run more
/// than once, for queries and for fewer keys.
#[derive(Clone, Copy)]
struct Edit {
    axis: usize,
    index: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Number(f32),
    /// Numbers of a seed.
    Values(u64),
    /// Ids of tokens.
    Ids,
}

impl Edit {
    /// What is written to values of `shape`: one number, or values of the shape without the axis.
    fn values(&self, shape: &[usize]) -> Tensor {
        let mut rest = shape.to_vec();
        rest.remove(self.axis);
        match self.what {
            What::Number(number) => Tensor::scalar(f64::from(number), DType::F32, &Device::Cpu),
            What::Values(seed) => Rng::new(seed, 1).normal(&rest, 0.0, 1.0, &Device::Cpu),
            What::Ids => {
                Tensor::from_vec((0..rest.iter().product()).map(|i: usize| i as f32).collect(), &rest, &Device::Cpu)
            }
        }
    }

    /// As hooks say it.
    fn region(self) -> impl Fn(&Tensor) -> Tensor {
        move |x: &Tensor| x.select(self.axis, self.index % x.dim(self.axis))
    }

    /// A tensor of its own with the edit, by plain loops.
    fn whole(&self, x: &Tensor) -> Tensor {
        let (shape, mut elements, values) = (x.shape(), x.to_vec(), self.values(x.shape()).to_vec());
        let inner: usize = shape[self.axis + 1..].iter().product();
        for (at, element) in elements.iter_mut().enumerate() {
            let (outer, along, rest) = (at / inner / shape[self.axis], at / inner % shape[self.axis], at % inner);
            if along == self.index % shape[self.axis] {
                *element = if values.len() == 1 { values[0] } else { values[outer * inner + rest] };
            }
        }
        Tensor::from_vec(elements, shape, &Device::Cpu)
    }

    fn write(self, x: &mut Var) {
        match self.what {
            What::Number(number) => x.assign(self.region(), f64::from(number)),
            What::Values(_) | What::Ids => x.assign(self.region(), Var::from(self.values(x.shape()))),
        }
    }

    /// What [`Edit::write`] should be, as an op of its own.
    fn replace(self, x: &mut Var) {
        let nothing = Edit { what: What::Number(0.0), ..self };
        *x = Var::record(self.whole(x.value()), &[&*x], move |dy, sink| sink.add(0, nothing.whole(&dy)));
    }
}

/// Bits of the logits and of all gradients of a run whose hooks at `name` edit the value and its
/// gradient, in place or by replacing them.
fn bits(model: &HookedTransformer, name: &str, value: Edit, grad: Edit, in_place: bool) -> Vec<Vec<u32>> {
    let mut logits = Vec::new();
    let mut hooks = Hooks::new()
        .fwd(name, |x: &mut Var, _: &HookInfo<'_>| {
            if in_place {
                value.write(x)
            } else {
                value.replace(x)
            }
            Ok(())
        })
        .bwd(name, |g: &mut Tensor, _: &HookInfo<'_>| {
            if in_place {
                g.assign(grad.region(), grad.values(g.shape()))
            } else {
                *g = grad.whole(g)
            }
            Ok(())
        });
    let (_, grads) = model
        .call(&tokens(2, 3))
        .hooks(&mut hooks)
        .gradients(|out| {
            logits = out.logits().value().to_vec();
            out.logits().square().mean_all()
        })
        .unwrap();
    let mut all = vec![logits];
    all.extend(grads.slots().iter().flatten().map(Tensor::to_vec));
    all.into_iter().map(|t| t.into_iter().map(f32::to_bits).collect()).collect()
}

/// A case's model with its gates as they are, with all that can be open together, and with one input
/// per head for queries, keys and values together.
fn gated(model: HookedTransformer) -> Vec<HookedTransformer> {
    let plain = model.clone();
    let mut model = model;
    model.set_use_attn_result(true).unwrap();
    if !model.config().attn_only {
        model.set_use_hook_mlp_in(true).unwrap();
    }
    let mut shared = model.clone();
    model.set_use_split_qkv_input(true).unwrap();
    model.set_ungroup_grouped_query_attention(true).unwrap();
    let mut all = vec![plain, model];
    // Grouped queries have no input of their own for every head of keys.
    if !shared.config().is_grouped_query() {
        shared.set_use_split_qkv_input(false).unwrap();
        shared.set_use_attn_in(true).unwrap();
        all.push(shared);
    }
    all
}

/// Edits at every hook point along every axis: how many, and where bits differ.
fn edits(case: &str, model: &HookedTransformer) -> (usize, Vec<String>) {
    let (_, cache) = model.run_with_cache(&tokens(2, 3)).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (name, value) in &cache {
        for axis in 0..value.ndim() {
            let edit = |what| Edit { axis, index: 1 + name.len() % 3, what };
            let values = if name == "hook_tokens" { What::Ids } else { What::Values(axis as u64) };
            for (fwd, bwd) in [(What::Number(2.0), values), (values, What::Number(0.5))] {
                count += 2;
                let run = |in_place| bits(model, name, edit(fwd), edit(bwd), in_place);
                if run(true) != run(false) {
                    wrong.push(format!("{case}: {name} {:?}, axis {axis}", value.shape()));
                }
            }
        }
    }
    (count, wrong)
}

#[test]
fn an_edit_in_place_has_the_bits_of_a_replaced_value() {
    let all: Vec<(usize, Vec<String>)> = cases()
        .par_iter()
        .flat_map(|dir| gated(case_model(dir)).into_iter().map(|m| (dir.clone(), m)).collect::<Vec<_>>())
        .map(|(dir, model)| edits(&dir.file_name().unwrap_or_default().to_string_lossy(), &model))
        .collect();
    let (count, wrong) = all.into_iter().fold((0, Vec::new()), |(n, mut wrong), (more, others)| {
        wrong.extend(others);
        (n + more, wrong)
    });
    assert!(wrong.is_empty(), "{} of {count} edits:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 5000, "only {count} edits were made");
}

/// The README's recipe, at inputs that all heads share until one is written to.
#[test]
fn one_head_s_input_is_ablated_alone() {
    let mut model = small_model();
    model.set_use_split_qkv_input(true).unwrap();
    let x = tokens(2, 6);
    let mask = Tensor::from_vec(vec![1.0, 0.0, 1.0], &[3, 1], &Device::Cpu);
    for input in ["q", "k", "v"] {
        let name = format!("blocks.1.hook_{input}_input");
        let filled = model
            .run_with_hooks(
                &x,
                &mut Hooks::new().fwd(name.as_str(), |x, _| {
                    x.assign(|x| x.select(2, 1), 0.0);
                    Ok(())
                }),
            )
            .unwrap();
        let masked = model
            .run_with_hooks(
                &x,
                &mut Hooks::new().fwd(name.as_str(), |x, _| {
                    *x = &*x * &Var::from(mask.clone());
                    Ok(())
                }),
            )
            .unwrap();
        assert_eq!(filled.to_vec(), masked.to_vec(), "{name}");
        assert_ne!(filled.to_vec(), model.forward(&x).unwrap().to_vec(), "{name}");
    }
}

/// Hooks that write nothing copy nothing: the shared memory of expanded values stays shared.
#[test]
fn hooks_that_only_read_copy_nothing() {
    let mut model = small_model();
    model.set_use_split_qkv_input(true).unwrap();
    let mut seen = 0;
    let shared = ["blocks.0.hook_q_input", "blocks.0.hook_v_input", "hook_pos_embed"];
    let mut hooks = Hooks::new().fwd(shared, |x, info| {
        let axis = if info.name == "hook_pos_embed" { 0 } else { 2 };
        assert_eq!(x.value().layout().strides()[axis], 0, "{}", info.name);
        seen += 1;
        Ok(())
    });
    model.run_with_hooks(&tokens(2, 6), &mut hooks).unwrap();
    drop(hooks);
    assert_eq!(seen, 3);
}
