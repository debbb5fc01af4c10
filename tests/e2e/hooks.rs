//! Hooks: what they see, what they may do, and what they are told when they may not.

use ironlens::prelude::*;
use ironlens_tests::{case_model, reference, small_model, tokens};

fn loss(out: &ironlens::transformer::Output, tokens: &IndexTensor) -> Var {
    previous_token_loss(out.logits(), tokens)
}

/// Logits and all gradients.
fn bits(model: &HookedTransformer, tokens: &IndexTensor, hooks: &mut Hooks<'_>) -> Vec<Vec<f32>> {
    let mut all = vec![model.run_with_hooks(tokens, hooks).unwrap().to_vec()];
    let (value, grads) = model.call(tokens).hooks(hooks).gradients(|out| loss(out, tokens)).unwrap();
    all.push(vec![value as f32]);
    all.extend(grads.slots().iter().flatten().map(Tensor::to_vec));
    all
}

#[test]
fn identity_hooks_change_no_bit() {
    for case in ["gpt2_ln", "attn_only", "llama", "neox", "softcap", "solu_ln", "alibi"] {
        let model = case_model(&reference().join(case));
        let x = tokens(2, 9);
        let plain = bits(&model, &x, &mut Hooks::new());
        let all = bits(&model, &x, &mut Hooks::new().fwd(|_: &str| true, |_, _| Ok(())));
        assert_same(&plain, &all, &format!("{case}: everywhere"));
        let firing: Vec<String> = model.registry().hooks().filter(|h| h.2).map(|h| h.0.to_string()).collect();
        for name in firing {
            let mut calls = 0;
            let mut hooks = Hooks::new().fwd(name.as_str(), |_, _| {
                calls += 1;
                Ok(())
            });
            let hooked = bits(&model, &x, &mut hooks);
            drop(hooks);
            assert!(calls > 0, "{case}: {name} never fired");
            assert_same(&plain, &hooked, &format!("{case}: {name}"));
        }
    }
}

/// Values bit for bit; gradients to rounding, since by parts their sums run in another order.
fn assert_same(plain: &[Vec<f32>], hooked: &[Vec<f32>], at: &str) {
    assert!(plain[..2] == hooked[..2], "an idle hook changed logits or loss; {at}");
    for (a, b) in plain.iter().zip(hooked) {
        let scale = a.iter().fold(1e-2f32, |m, v| m.max(v.abs()));
        let worst = a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs()));
        assert!(worst <= 3e-6 * scale, "an idle hook changed a gradient by {worst} of {scale}; {at}");
    }
}

#[test]
fn hooks_read_replace_and_edit_in_order() {
    let model = small_model();
    let x = tokens(1, 6);
    let mut seen = Vec::new();
    let mut hooks = Hooks::new()
        .fwd("hook_embed", |e, _| {
            *e = &*e * 2.0;
            Ok(())
        })
        .fwd(["hook_embed", "blocks.0.hook_resid_pre"], |e, info| {
            seen.push((info.name.to_string(), info.layer(), e.value().norm()));
            Ok(())
        });
    let doubled = model.run_with_hooks(&x, &mut hooks).unwrap();
    drop(hooks);
    assert_eq!(seen[0].1, None);
    assert_eq!(seen[1].1, Some(0));
    let (_, cache) = model.run_with_cache(&x).unwrap();
    let plain = cache.get("hook_embed").unwrap().norm();
    assert!((seen[0].2 / plain - 2.0).abs() < 1e-6, "the second hook sees what the first left");
    assert_ne!(doubled.to_vec(), model.forward(&x).unwrap().to_vec());
}

#[test]
fn replaced_values_stay_differentiable() {
    let model = small_model();
    let x = tokens(1, 6);
    // A hook that halves a stream halves the gradient of what lies before.
    let norm = |factor: f64| {
        let mut hooks = Hooks::new().fwd("blocks.1.mlp.hook_post", move |v, _| {
            *v = &*v * factor;
            Ok(())
        });
        let (_, grads) = model.call(&x).hooks(&mut hooks).gradients(|out| out.logits().sum_all()).unwrap();
        grads.get("blocks.1.mlp.W_in").unwrap().norm()
    };
    assert_eq!(norm(0.0), 0.0);
    assert!(norm(1.0) > 0.0);
}

#[test]
fn backward_hooks_see_and_replace_gradients() {
    let model = small_model();
    let x = tokens(1, 6);
    let mut order = Vec::new();
    let mut hooks = Hooks::new().bwd(["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"], |g, info| {
        order.push(info.name.to_string());
        if info.layer() == Some(0) {
            *g = &*g * 0.0;
        }
        Ok(())
    });
    let (_, grads) = model.call(&x).hooks(&mut hooks).gradients(|out| loss(out, &x)).unwrap();
    drop(hooks);
    assert_eq!(order, ["blocks.1.hook_resid_post", "blocks.0.hook_resid_post"]);
    assert_eq!(grads.get("blocks.0.mlp.W_in").unwrap().norm(), 0.0);
    assert!(grads.get("blocks.1.mlp.W_in").unwrap().norm() > 0.0);
}

#[test]
fn nested_hooks_go_with_their_scope() {
    let model = small_model();
    let x = tokens(1, 6);
    let mut outer_calls = 0;
    let mut outer = Hooks::new().fwd("hook_embed", |_, _| {
        outer_calls += 1;
        Ok(())
    });
    {
        let mut inner_calls = 0;
        let mut inner = outer.nested().fwd("hook_embed", |_, _| {
            inner_calls += 1;
            Ok(())
        });
        model.run_with_hooks(&x, &mut inner).unwrap();
        drop(inner);
        assert_eq!(inner_calls, 1);
    }
    model.run_with_hooks(&x, &mut outer).unwrap();
    drop(outer);
    assert_eq!(outer_calls, 2);
}

#[test]
fn gated_hooks_name_their_switch() {
    let mut model = small_model();
    let x = tokens(1, 6);
    for (hook, switch) in [
        ("blocks.0.attn.hook_result", "use_attn_result"),
        ("blocks.0.hook_attn_in", "use_attn_in"),
        ("blocks.1.hook_q_input", "use_split_qkv_input"),
        ("blocks.0.hook_mlp_in", "use_hook_mlp_in"),
    ] {
        let error = model.run_with_hooks(&x, &mut Hooks::new().fwd(hook, |_, _| Ok(()))).unwrap_err().to_string();
        assert!(error.contains(hook) && error.contains(switch), "{error}");
    }
    let plain = model.forward(&x).unwrap();
    model.set_use_attn_result(true).unwrap();
    model.set_use_split_qkv_input(true).unwrap();
    model.set_use_hook_mlp_in(true).unwrap();
    let (logits, cache) = model.run_with_cache(&x).unwrap();
    assert!(logits.max_abs_diff(&plain).0 < 1e-5);
    assert_eq!(cache.get(("result", 0)).unwrap().shape(), [1, 6, 3, 24]);
    assert_eq!(cache.get("blocks.1.hook_k_input").unwrap().shape(), [1, 6, 3, 24]);
    let sum = cache.get(("result", 1)).unwrap().sum(&[2]) + &model.param("blocks.1.attn.b_O").unwrap();
    assert!(sum.max_abs_diff(cache.get(("attn_out", 1)).unwrap()).0 < 1e-5);
}

#[test]
fn names_that_are_none_are_told_with_the_nearest() {
    let model = small_model();
    let x = tokens(1, 6);
    let run = |mut hooks: Hooks<'_>| model.run_with_hooks(&x, &mut hooks).unwrap_err().to_string();
    let typo = run(Hooks::new().fwd("blocks.0.attn.hook_zz", |_, _| Ok(())));
    assert!(typo.contains("`blocks.0.attn.hook_zz`") && typo.contains("`blocks.0.attn.hook_z`"), "{typo}");
    let nothing = run(Hooks::new().fwd(|n: &str| n.contains("hook_expert"), |_, _| Ok(())));
    assert!(nothing.contains("matches none"), "{nothing}");
    let shape = run(Hooks::new().fwd("hook_embed", |e, _| {
        *e = e.narrow(1, 0, 3);
        Ok(())
    }));
    assert!(shape.contains("[1, 6, 24]") && shape.contains("[1, 3, 24]"), "{shape}");
    let failed = run(Hooks::new().fwd("hook_embed", |_, _| Err("no luck".into())));
    assert!(failed.contains("hook_embed") && failed.contains("no luck"), "{failed}");
    let (_, cache) = model.run_with_cache(&x).unwrap();
    let missing = cache.get(("rezid_pre", 0)).unwrap_err().to_string();
    assert!(missing.contains("blocks.0.hook_resid_pre"), "{missing}");
    let off = cache.get(("result", 0)).unwrap_err().to_string();
    assert!(off.contains("use_attn_result"), "{off}");
    let (_, few) = model.call(&x).names("hook_embed").cached().unwrap();
    let left_out = few.get(("resid_pre", 0)).unwrap_err().to_string();
    assert!(left_out.contains("kept others"), "{left_out}");
}

/// Forward and backward: a hook that fails, or leaves another shape or type, ends the pass with an
/// error that names it, and changes nothing of the model.
#[test]
fn hooks_that_may_not_go_on_are_told() {
    let model = small_model();
    let x = tokens(1, 6);
    let name = "blocks.0.hook_resid_post";
    let forward = |hook: fn(&mut Var) -> Result<(), &'static str>| {
        let mut hooks = Hooks::new().fwd(name, move |v, _| Ok(hook(v)?));
        model.run_with_hooks(&x, &mut hooks).unwrap_err().to_string()
    };
    let backward = |hook: fn(&mut Tensor) -> Result<(), &'static str>| {
        let mut hooks = Hooks::new().bwd(name, move |g, _| Ok(hook(g)?));
        model.call(&x).hooks(&mut hooks).gradients(|out| loss(out, &x)).map(|_| ()).unwrap_err().to_string()
    };
    for (error, parts) in [
        (forward(|_| Err("no luck")), [name, "no luck", "failed"]),
        (backward(|_| Err("no luck")), [name, "no luck", "failed"]),
        (
            forward(|v| {
                *v = v.narrow(1, 0, 3);
                Ok(())
            }),
            [name, "a value of shape [1, 6, 24] in f32", "one of shape [1, 3, 24] in f32"],
        ),
        (
            backward(|g| {
                *g = g.narrow(1, 0, 3);
                Ok(())
            }),
            [name, "a gradient of shape [1, 6, 24] in f32", "one of shape [1, 3, 24] in f32"],
        ),
        (
            forward(|v| {
                *v = Var::from(v.value().to_dtype(DType::F64));
                Ok(())
            }),
            [name, "a value of shape [1, 6, 24] in f32", "one of shape [1, 6, 24] in f64"],
        ),
        (
            backward(|g| {
                *g = g.to_dtype(DType::F64);
                Ok(())
            }),
            [name, "a gradient of shape [1, 6, 24] in f32", "one of shape [1, 6, 24] in f64"],
        ),
    ] {
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
    assert_eq!(model.forward(&x).unwrap().to_vec(), small_model().forward(&x).unwrap().to_vec());
}

#[test]
fn position_slices_are_on_every_hook_s_own_axis() {
    for case in ["gpt2_ln_results", "llama", "rms_rotary_gqa_split_result"] {
        let model = case_model(&reference().join(case));
        let x = tokens(2, 7);
        let (_, whole) = model.run_with_cache(&x).unwrap();
        for (slice, from, len) in [(Slice::At(-2), 5, 1), (Slice::Range(1, 4), 1, 3), (Slice::Range(-3, 7), 4, 3)] {
            let (_, cut) = model.call(&x).pos_slice(slice).cached().unwrap();
            assert_eq!(cut.len(), whole.len());
            for (name, value) in &cut {
                let axis = if name.ends_with("hook_attn_scores") || name.ends_with("hook_pattern") { 2 } else { 1 };
                let want = whole.get(name).unwrap().narrow(axis, from, len);
                assert_eq!(value.to_vec(), want.to_vec(), "{case} {name}");
            }
        }
        let picked = model.call(&x).pos_slice(Slice::Indices(vec![6, 0])).cached().unwrap().1;
        let all = whole.get("blocks.0.hook_resid_pre").unwrap();
        let want = Tensor::cat(&[all.narrow(1, 6, 1), all.narrow(1, 0, 1)], 1);
        assert_eq!(picked.get("blocks.0.hook_resid_pre").unwrap().to_vec(), want.to_vec());
        assert!(model.call(&x).pos_slice(Slice::At(7)).cached().is_err());
    }
}

#[test]
fn calls_start_stop_filter_and_return_as_asked() {
    let model = small_model();
    let x = tokens(2, 8);
    let logits = model.forward(&x).unwrap();
    for stop in [0isize, 1, -1, 2] {
        let middle = model.call(&x).stop_at_layer(stop).output().unwrap().residual().value().clone();
        let rest = model.call(&middle).start_at_layer(stop).output().unwrap();
        assert_eq!(rest.logits().value().to_vec(), logits.to_vec(), "from layer {stop}");
    }
    let both = model.call(&x).return_type(ReturnType::Both).output().unwrap();
    let per_token = model.call(&x).return_type(ReturnType::Loss).loss_per_token().output().unwrap();
    assert_eq!(per_token.loss().shape(), [2, 7]);
    let mean = per_token.loss().value().mean_all().item();
    assert!((mean - both.loss().value().item()).abs() < 1e-6);
    assert!(model.call(&x).return_type(ReturnType::None).output().unwrap().logits.is_none());

    let one = tokens(1, 8);
    let (_, flat) = model.call(&one).remove_batch_dim().cached().unwrap();
    assert_eq!(flat.get(("z", 1)).unwrap().shape(), [8, 3, 8]);
    assert!(model.call(&x).remove_batch_dim().cached().unwrap_err().to_string().contains("2 items"));
    let (_, some) = model.call(&x).names(["hook_embed", "ln_final.hook_scale"]).cached().unwrap();
    assert_eq!(some.names().collect::<Vec<_>>(), ["hook_embed", "ln_final.hook_scale"]);
    assert_eq!(some.get("scale").unwrap().shape(), [2, 8, 1]);

    let (_, cache) = model.call(&x).names("blocks.0.attn.hook_z").cached_gradients(|out| loss(out, &x)).unwrap();
    assert_eq!(cache.names().collect::<Vec<_>>(), ["blocks.0.attn.hook_z", "blocks.0.attn.hook_z_grad"]);
    assert!(cache.grad(("z", 0)).unwrap().norm() > 0.0);
}

#[test]
fn left_padding_changes_nothing_for_the_text() {
    for case in ["gpt2_ln", "llama", "neox", "attn_only_shortformer"] {
        let model = case_model(&reference().join(case));
        let text = tokens(1, 6);
        let mut padded = vec![2, 2, 2];
        padded.extend_from_slice(text.as_slice());
        let padded = IndexTensor::new(padded, &[1, 9]);
        let mask = IndexTensor::new(vec![0, 0, 0, 1, 1, 1, 1, 1, 1], &[1, 9]);
        let plain = model.call(&text).return_type(ReturnType::Both).output().unwrap();
        let masked = model.call(&padded).attention_mask(&mask).return_type(ReturnType::Both).output().unwrap();
        let tail = masked.logits().value().narrow(1, 3, 6);
        assert!(tail.max_abs_diff(plain.logits().value()).0 < 1e-5, "{case}");
        let (a, b) = (plain.loss().value().item(), masked.loss().value().item());
        assert!((a - b).abs() < 1e-5, "{case}: loss {a} and {b}");
    }
}
