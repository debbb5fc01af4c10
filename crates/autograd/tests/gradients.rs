//! Every op against central differences in f64.

use ironlens_autograd::check::gradient_error;
use ironlens_autograd::{Tape, Var};
use ironlens_tensor::einops::{Reduction, einsum, rearrange, reduce, repeat};
use ironlens_tensor::{Alibi, AttentionSpec, BinaryOp, DType, Device, IndexTensor, Rng, RotarySpec, Tensor, UnaryOp};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    Rng::new(seed, 0).normal(shape, 0.0, 1.0, &Device::Cpu).to_dtype(DType::F64)
}

fn positive(seed: u64, shape: &[usize]) -> Tensor {
    random(seed, shape).abs() + 0.3
}

#[track_caller]
fn check(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) {
    let error = gradient_error(f, inputs);
    assert!(error < 2e-7, "relative error of the gradient: {error:.2e}");
}

#[test]
fn unary() {
    for op in UnaryOp::ALL {
        // Away from 0, where some are not smooth; above 0 where some are not defined below.
        let x = match op {
            UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Pow(_) | UnaryOp::Recip => positive(1, &[3, 5]),
            _ => random(1, &[3, 5]),
        };
        let error = gradient_error(|v| v[0].unary(op), &[x]);
        assert!(error < 2e-7, "{op:?}: {error:.2e}");
    }
}

#[test]
fn binary_with_every_broadcast() {
    for op in BinaryOp::ALL {
        for (a, b) in [
            (&[2, 3, 4][..], &[2, 3, 4][..]),
            (&[2, 3, 4], &[4]),
            (&[2, 3, 4], &[2, 3, 1]),
            (&[2, 3, 4], &[2, 1, 4]),
            (&[3, 1], &[2, 1, 4]),
            (&[], &[2, 2]),
            (&[1], &[3]),
        ] {
            check(|v| v[0].binary(op, &v[1]), &[positive(2, a), positive(3, b)]);
            check(|v| v[1].binary(op, &v[0]), &[positive(2, a), positive(3, b)]);
        }
        // The same value twice.
        check(|v| v[0].binary(op, &v[0]), &[positive(4, &[3])]);
    }
}

#[test]
fn views_and_writes() {
    let x = random(5, &[2, 3, 4]);
    check(|v| v[0].permute(&[2, 0, 1]).reshape(&[4, 6]).t().square(), std::slice::from_ref(&x));
    check(|v| v[0].narrow(1, 1, 2).select(2, 3).square(), std::slice::from_ref(&x));
    check(|v| (v[0].narrow(2, 0, 2).square() + &v[0].narrow(2, 1, 2)).unsqueeze(0), std::slice::from_ref(&x));
    // Pieces that do not cover their parent, pieces that overlap, a piece beside a whole.
    check(|v| v[0].narrow(1, 2, 1) * &v[0].narrow(1, 0, 1), std::slice::from_ref(&x));
    check(|v| v[0].square() * &v[0].narrow(1, 0, 1), std::slice::from_ref(&x));
    check(|v| v[0].narrow(0, 0, 1).sum_all() * &v[0].narrow(1, 0, 1).square(), std::slice::from_ref(&x));
    check(|v| v[0].expand(&[3, 2, 4]).square(), &[random(6, &[1, 4])]);
    check(|v| Var::cat(&[v[0].clone(), v[1].square()], 1).square(), &[random(7, &[2, 1]), random(8, &[2, 3])]);
    check(|v| Var::stack(&[v[0].clone(), v[0].square()], 1), &[random(9, &[2, 2])]);
    let write = |v: &[Var]| {
        let mut y = v[0].square();
        y.assign(|t| t.select(1, 1), &v[1]);
        y.assign(|t| t.narrow(0, 0, 1).select(2, 0), 3.0);
        y.square()
    };
    check(write, &[x, random(10, &[4])]);
}

#[test]
fn reductions() {
    for axes in [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
        check(|v| v[0].square().sum(axes), &[random(11, &[2, 3, 4])]);
        check(|v| v[0].square().mean(axes), &[random(11, &[2, 3, 4])]);
    }
}

#[test]
fn products() {
    check(|v| v[0].matmul(&v[1]), &[random(12, &[3, 4]), random(13, &[4, 2])]);
    check(|v| v[0].matmul(&v[1]), &[random(12, &[2, 3, 4]), random(13, &[4, 2])]);
    check(|v| v[0].matmul(&v[1]), &[random(12, &[2, 1, 3, 4]), random(13, &[5, 4, 2])]);
    check(|v| v[0].matmul(&v[1]), &[random(12, &[3, 4]), random(13, &[5, 4, 2])]);
    check(|v| v[0].t().matmul(&v[1].t()), &[random(12, &[4, 3]), random(13, &[2, 4])]);
    check(|v| v[0].matmul(&v[1]), &[random(12, &[1, 4]), random(13, &[4, 1])]);
    check(|v| v[0].matmul(&v[1]), &[random(12, &[4]), random(13, &[5, 4, 2])]);
    check(|v| v[0].matmul(&v[1]), &[random(12, &[3, 2, 4]), random(13, &[4])]);
    let inputs = [random(14, &[2, 3, 4]), random(15, &[4, 5]), random(16, &[5]), random(17, &[2, 3, 5])];
    check(|v| v[0].linear(&v[1], Some(&v[2]), Some(&v[3])).square(), &inputs);
    check(|v| v[0].linear(&v[1], None, None), &inputs[..2]);
    check(|v| v[0].linear(&v[1], None, Some(&v[2])), &[inputs[0].clone(), inputs[1].clone(), inputs[3].clone()]);
}

#[test]
fn rows() {
    let x = random(18, &[2, 3, 6]);
    check(|v| v[0].softmax(), std::slice::from_ref(&x));
    check(|v| v[0].log_softmax(), std::slice::from_ref(&x));
    check(|v| v[0].center().square(), std::slice::from_ref(&x));
    check(|v| v[0].rms(1e-5), std::slice::from_ref(&x));
    let (w, b) = (random(19, &[6]), random(20, &[6]));
    check(
        |v| v[0].scale_and_shift(&v[1], Some(&v[2]), Some(&v[3])),
        &[x.clone(), positive(21, &[2, 3, 1]), w.clone(), b.clone()],
    );
    check(|v| v[0].scale_and_shift(&v[1], None, None), &[x.clone(), positive(21, &[2, 3, 1])]);
    check(|v| v[0].layer_norm(1e-5, Some(&v[1]), Some(&v[2])), &[x.clone(), w.clone(), b.clone()]);
    check(|v| v[0].layer_norm(1e-5, Some(&v[1]), None), &[x.clone(), w.clone()]);
    check(|v| v[0].layer_norm(1e-5, None, Some(&v[1])), &[x.clone(), b.clone()]);
    check(|v| v[0].layer_norm(1e-5, None, None), std::slice::from_ref(&x));
    check(|v| v[0].rms_norm(1e-5, Some(&v[1])), &[x.clone(), w.clone()]);
    check(|v| v[0].rms_norm(1e-5, None), std::slice::from_ref(&x));
}

fn specs() -> Vec<AttentionSpec> {
    let plain = AttentionSpec::causal(1.7);
    let alibi = |bf16| Some(Alibi { slopes: vec![0.5, 0.3], bf16 });
    let mask = Some(IndexTensor::from([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]));
    vec![
        plain.clone(),
        AttentionSpec { causal: false, ..plain.clone() },
        AttentionSpec { window: Some(2), ..plain.clone() },
        AttentionSpec { soft_cap: Some(1.5), ..plain.clone() },
        AttentionSpec { alibi: alibi(false), soft_cap: Some(2.0), ..plain.clone() },
        AttentionSpec { alibi: alibi(true), soft_cap: Some(2.0), ..plain.clone() },
        AttentionSpec { alibi: alibi(true), key_mask: mask.clone(), ..plain.clone() },
        AttentionSpec { key_mask: mask, ..plain },
    ]
}

/// A differentiable function of scores that is blind to hidden ones.
fn finite(scores: &Var) -> Var {
    scores.softmax()
}

#[test]
fn attention_whole_and_in_parts() {
    for kv_heads in [1, 2] {
        let q = random(22, &[2, 5, 2, 3]);
        let (k, v) = (random(23, &[2, 5, kv_heads, 3]), random(24, &[2, 5, kv_heads, 3]));
        for spec in specs() {
            check(|x| finite(&x[0].attention_scores(&x[1], &spec)), &[q.clone(), k.clone()]);
            check(|x| x[0].attention(&x[1], &x[2], &spec), &[q.clone(), k.clone(), v.clone()]);
        }
        check(|x| x[0].attention_values(&x[1]), &[random(25, &[2, 2, 5, 5]), v.clone()]);
        // Fewer queries than keys, as with earlier keys kept.
        let spec = AttentionSpec { query_start: 3, ..AttentionSpec::causal(2.0) };
        let late = q.narrow(1, 3, 2);
        check(|x| x[0].attention(&x[1], &x[2], &spec), &[late, k.clone(), v.clone()]);
    }
}

#[test]
fn fused_attention_has_the_bits_of_its_parts() {
    let rng = |seed, shape: &[usize]| Rng::new(seed, 0).normal(shape, 0.0, 1.0, &Device::Cpu);
    for (pos, kv_heads) in [(5, 2), (130, 1), (130, 2)] {
        let q = rng(26, &[2, pos, 2, 16]);
        let (k, v) = (rng(27, &[2, pos, kv_heads, 16]), rng(28, &[2, pos, kv_heads, 16]));
        for mut spec in specs() {
            if pos != 5 {
                spec.key_mask = None;
            }
            let run = |fused: bool| {
                let tape = Tape::new();
                let [q, k, v] = [&q, &k, &v].map(|t| tape.leaf(t.clone()));
                let z = if fused {
                    q.attention(&k, &v, &spec)
                } else {
                    q.attention_scores(&k, &spec).softmax().attention_values(&v)
                };
                let mut grads = z.square().sum_all().backward();
                let mut all = vec![z.into_value()];
                all.extend([q, k, v].map(|x| grads.take(&x).unwrap()));
                all
            };
            for (a, b) in run(true).iter().zip(run(false)) {
                assert_eq!(a.to_vec(), b.to_vec(), "{spec:?}");
            }
        }
    }
}

#[test]
fn fused_norm_has_the_bits_of_its_parts() {
    let rng = |seed, shape: &[usize]| Rng::new(seed, 0).normal(shape, 0.3, 2.0, &Device::Cpu);
    let (x, w, b) = (rng(30, &[7, 77]), rng(31, &[77]), rng(32, &[77]));
    let (y, scale) = x.layer_norm(1e-5, Some(&w), Some(&b));
    let centered = x.center();
    assert_eq!(scale.to_vec(), centered.rms(1e-5).to_vec());
    assert_eq!(y.to_vec(), centered.scale_and_shift(&scale, Some(&w), Some(&b)).to_vec());
}

#[test]
fn rotary() {
    for interleaved in [false, true] {
        for batch in [1, 2] {
            let angle = random(29, &[batch, 4, 3]);
            let spec = RotarySpec {
                cos: Tensor::from_vec_f64(angle.to_vec_f64().iter().map(|a| a.cos()).collect(), angle.shape()),
                sin: Tensor::from_vec_f64(angle.to_vec_f64().iter().map(|a| a.sin()).collect(), angle.shape()),
                interleaved,
            };
            check(|x| x[0].rotary(&spec).square(), &[random(30, &[2, 4, 2, 7])]);
        }
    }
}

#[test]
fn embedding_and_cross_entropy() {
    let ids = IndexTensor::from([[1, 0, 3], [3, 3, 1]]);
    check(|x| x[0].embed(&ids).square(), &[random(31, &[5, 2])]);
    check(|x| x[0].cross_entropy(&ids), &[random(32, &[2, 3, 4])]);
}

#[test]
fn taps_show_and_replace_gradients() {
    let tape = Tape::new();
    let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0], &[2], &Device::Cpu));
    let y = x.square().tap(7);
    let mut seen = Vec::new();
    let mut grads = y
        .sum_all()
        .backward_with(|tag, grad| {
            seen.push((tag, grad.to_vec()));
            *grad = &*grad * 10.0;
            Ok::<(), ()>(())
        })
        .unwrap();
    assert_eq!(seen, [(7, vec![1.0, 1.0])]);
    assert_eq!(grads.take(&x).unwrap().to_vec(), [20.0, 40.0]);
}

#[test]
fn constants_record_nothing() {
    let tape = Tape::new();
    let _leaf = tape.leaf(random(33, &[2]));
    let x = Var::from(random(34, &[2]));
    assert!(!x.square().exp().requires_grad());
    assert_eq!(tape.len(), 1);
}

/// What a closure panics with.
fn panic_of(f: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(f).expect_err("it should panic");
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast::<&str>().expect("a panic has a message").to_string(),
    }
}

fn number(value: f64) -> Tensor {
    Tensor::from_vec_f64(vec![value], &[])
}

#[test]
fn a_used_tape_goes_on_with_new_leaves() {
    let tape = Tape::new();
    let x = tape.leaf(number(3.0));
    let mut grads = (&x.square() * &x).backward();
    // New leaves of the used tape have the numbers of old ones.
    let (a, b) = (tape.leaf(number(2.0)), tape.leaf(number(7.0)));
    let mut new_grads = (&a * &b).backward();
    assert_eq!(new_grads.take(&a).unwrap().item(), 7.0);
    assert_eq!(new_grads.take(&b).unwrap().item(), 2.0);
    assert_eq!(grads.take(&x).unwrap().item(), 27.0);
    assert!(grads.take(&x).is_none(), "a gradient is taken once");
}

#[test]
fn values_of_a_used_tape_are_told_from_new_ones() {
    let used_up = "recorded before a `backward` that used its tape up";
    let old = || {
        let tape = Tape::new();
        let x = tape.leaf(number(3.0));
        let y = x.square();
        y.backward();
        (tape, x, y)
    };
    let backward_twice = panic_of(|| {
        old().2.backward();
    });
    let alone = panic_of(|| {
        old().1.square();
    });
    let with_a_new_leaf = panic_of(|| {
        let (tape, x, _) = old();
        let new = tape.leaf(number(1.0));
        let _ = &new * &x;
    });
    let tapped = panic_of(|| {
        old().2.tap(1);
    });
    for message in [backward_twice, alone, with_a_new_leaf, tapped] {
        assert!(message.contains(used_up), "{message}");
    }
    let (_, x, _) = old();
    assert_eq!((&x.detach() * 2.0).into_value().item(), 6.0);
}

#[test]
fn two_tapes_are_told_apart() {
    let two = panic_of(|| {
        let (a, b) = (Tape::new().leaf(number(2.0)), Tape::new().leaf(number(3.0)));
        let _ = &a * &b;
    });
    assert!(two.contains("two different tapes"), "{two}");
    let other_leaf = panic_of(|| {
        let (a, b) = (Tape::new().leaf(number(2.0)), Tape::new().leaf(number(3.0)));
        a.square().backward().take(&b);
    });
    assert!(other_leaf.contains("not of this leaf's record"), "{other_leaf}");
    let old_leaf = panic_of(|| {
        let tape = Tape::new();
        let old = tape.leaf(number(2.0));
        old.square().backward();
        tape.leaf(number(5.0)).square().backward().take(&old);
    });
    assert!(old_leaf.contains("not of this leaf's record"), "{old_leaf}");
    // A result that is on no tape has no gradients, whatever one asks for.
    assert!(Var::from(number(1.0)).backward().take(&Tape::new().leaf(number(2.0))).is_none());
}

/// A wrong use of a tape is blamed on the line that is wrong, by every op that records.
#[test]
fn tapes_blame_the_caller() {
    use std::sync::{Arc, Mutex};
    let blamed = Arc::new(Mutex::new(Vec::new()));
    let old = || {
        let tape = Tape::new();
        let x = tape.leaf(Tensor::from_vec_f64(vec![1.0, 2.0], &[1, 2]));
        x.sum_all().backward();
        x
    };
    let ops: &[fn(&Var) -> Var] = &[
        |x| x.exp(),
        |x| x.log(),
        |x| x.sqrt(),
        |x| x.square(),
        |x| x.affine(1.0, 2.0),
        |x| -x,
        |x| x + 1.0,
        |x| x.clone() * 2.0,
        |x| x + x,
        |x| x.clone() / x.clone(),
        |x| x.reshape(&[2]),
        |x| x.permute(&[1, 0]),
        |x| x.t(),
        |x| x.narrow(1, 0, 1),
        |x| x.select(1, 0),
        |x| x.squeeze(0),
        |x| x.unsqueeze(0),
        |x| x.expand(&[3, 2]),
        |x| Var::cat(&[x.clone(), x.clone()], 0),
        |x| Var::stack(&[x.clone(), x.clone()], 0),
        |x| x.sum(&[0]),
        |x| x.mean(&[1]),
        |x| x.sum_all(),
        |x| x.mean_all(),
        |x| x.softmax(),
        |x| x.log_softmax(),
        |x| x.center(),
        |x| x.rms(1e-5),
        |x| x.layer_norm(1e-5, None, None),
        |x| x.matmul(&x.value().t().into()),
        |x| x.linear(&x.value().t().into(), None, None),
        |x| {
            let mut y = x.clone();
            y.assign(|y| y.select(1, 0), 0.0);
            y
        },
        |x| -x.clone(),
        |x| 1.0 - x,
        |x| x.value() * x,
        |x| x.clamp(0.0, 1.0),
        |x| x.to_dtype(DType::F32),
        |x| x.maximum(0.5),
        |x| Var::where_(x.value(), x, 0.0),
        |x| x.masked_fill(x.value(), 0.0),
        |x| x.tril(0),
        |x| x.min(-1),
        |x| x.std(1),
        |x| x.logsumexp(1),
        |x| x.cumsum(1),
        |x| x.flip(1),
        |x| x.topk(1, 1).0,
        |x| x.gather(1, &IndexTensor::from([[0]])),
        |x| x.diagonal(0),
        |x| x.clone().tap(3),
        |x| x.embed(&IndexTensor::from([[0]])),
        |x| x.cross_entropy(&IndexTensor::new(vec![0], &[1])),
    ];
    let seen = blamed.clone();
    let before = std::panic::take_hook();
    let this_thread = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == this_thread {
            let file = info.location().map(|l| l.file().to_string()).unwrap_or_default();
            seen.lock().unwrap().push(file);
        }
    }));
    for op in ops {
        assert!(std::panic::catch_unwind(|| op(&old())).is_err());
    }
    std::panic::set_hook(before);
    let blamed = blamed.lock().unwrap();
    assert_eq!(blamed.len(), ops.len());
    for (i, file) in blamed.iter().enumerate() {
        assert!(file.ends_with("tests/gradients.rs"), "op {i} of the list blames {file}");
    }
}

#[test]
fn operators_in_all_combinations() {
    let (x, c) = (positive(35, &[2, 3]), positive(36, &[3]));
    let constant = c.clone();
    check(move |v| &v[0] + &constant - 1.0 + 2.0 * &v[0] / constant.clone(), std::slice::from_ref(&x));
    let constant = c.clone();
    check(move |v| &constant / &v[0] - constant.clone() * v[0].clone(), std::slice::from_ref(&x));
    check(|v| 1.0 - v[0].clone() * 3 + 2.0 / &v[0] / 4.0f32 - -(-&v[0]), std::slice::from_ref(&x));
    let assigning = |v: &[Var]| {
        let mut y = v[0].clone();
        y += &v[1];
        y *= 3.0;
        y -= v[0].square();
        y /= &v[1];
        y
    };
    check(assigning, &[x, c]);
}

#[test]
fn comparisons_and_choices() {
    let (x, y) = (random(37, &[4, 5]), random(38, &[5]));
    check(|v| v[0].maximum(&v[1]) + v[0].minimum(0.2) * v[1].maximum(0), &[x.clone(), y.clone()]);
    check(|v| Var::where_(v[0].gt(&v[1]), v[0].square(), &v[1]), &[x.clone(), y.clone()]);
    check(|v| v[0].masked_fill(x.lt(0.0), 7.0).square(), std::slice::from_ref(&x));
    check(|v| v[0].tril(1).square() + v[0].triu(-1), std::slice::from_ref(&x));
    check(|v| v[0].clamp(-0.5, f64::INFINITY).square(), std::slice::from_ref(&x));
    // Equal operands share the gradient.
    let tape = Tape::new();
    let a = tape.leaf(Tensor::from([1.0, 2.0]));
    let mut grads = a.maximum(Tensor::from([1.0, 1.0])).sum_all().backward();
    assert_eq!(grads.take(&a).unwrap().to_vec(), [0.5, 1.0]);
    // What is not chosen leaves no trace.
    let a = Tape::new().leaf(Tensor::from([4.0, -1.0]));
    let mut grads = Var::where_(a.ge(0.0), a.sqrt(), 0.0).sum_all().backward();
    let grad = grads.take(&a).unwrap().to_vec();
    assert!(grad[0] == 0.25 && grad[1].is_nan(), "as in PyTorch, a slope that does not exist stays NaN: {grad:?}");
    assert!(!a.gt(0.0).requires_grad());
}

#[test]
fn statistics() {
    let x = random(39, &[3, 4, 2]);
    for axes in [&[0][..], &[1], &[2, 0], &[0, 1, 2]] {
        check(|v| v[0].square().max(axes), std::slice::from_ref(&x));
        check(|v| v[0].min(axes) + v[0].mean_keepdim(axes).sum_all(), std::slice::from_ref(&x));
        check(|v| v[0].max_all() - v[0].min_all(), std::slice::from_ref(&x));
        check(|v| v[0].var(axes), std::slice::from_ref(&x));
        check(|v| v[0].std(axes), std::slice::from_ref(&x));
        check(|v| v[0].vector_norm(axes), std::slice::from_ref(&x));
        check(|v| v[0].logsumexp(axes), std::slice::from_ref(&x));
    }
    for axis in [0, 1, -1] {
        check(|v| v[0].square().cumsum(axis).square(), std::slice::from_ref(&x));
    }
    // Slopes of roots at 0.
    let a = Tape::new().leaf(Tensor::from([[0.0, 0.0], [3.0, 4.0]]));
    let mut grads = (a.vector_norm(1).sum_all() + a.square().std(1).narrow(0, 0, 1).sum_all()).backward();
    assert_eq!(grads.take(&a).unwrap().to_vec(), [0.0, 0.0, 0.6, 0.8]);
}

#[test]
fn elements_by_index_and_order() {
    let x = random(40, &[3, 4, 2]);
    let ids = IndexTensor::new(vec![3, 0, 0, 1], &[2, 2, 1]);
    check(|v| v[0].gather(1, &ids).square(), std::slice::from_ref(&x));
    check(|v| v[0].index_select(-1, &IndexTensor::from([[1, 1, 0]])).square(), std::slice::from_ref(&x));
    check(|v| v[0].index_select(0, &IndexTensor::from([2, 0])).square(), std::slice::from_ref(&x));
    check(|v| v[0].sort(1, true).0.square() + v[0].flip(0), std::slice::from_ref(&x));
    check(|v| v[0].topk(2, 1).0.square(), std::slice::from_ref(&x));
    for offset in [-2, 0, 1] {
        check(|v| v[0].square().diagonal(offset).square(), std::slice::from_ref(&x));
    }
    // Losses in double precision from a network in single precision.
    let a = Tape::new().leaf(Tensor::from([1.0, 2.0]));
    let mut grads = a.to_dtype(DType::F64).square().sum_all().backward();
    let grad = grads.take(&a).unwrap();
    assert_eq!((grad.dtype(), grad.to_vec()), (DType::F32, vec![2.0, 4.0]));
}

#[test]
fn axes_by_name() {
    let (a, b) = (random(41, &[2, 3, 4]), random(42, &[4, 2, 5]));
    let two = [a.clone(), b.clone()];
    for formula in ["b i k, k b j -> b i j", "bik,kbj->jb", "bik,kbj->ijk", "bik,kbj->", "bik,kbj->bk"] {
        check(|v| einsum(formula, &[&v[0], &v[1]]).square(), &two);
    }
    check(|v| einsum("b i j -> j", &[&v[0]]).square(), std::slice::from_ref(&a));
    check(|v| einsum("bik,kbj,bik->bj", &[&v[0], &v[1], &v[0]]), &two);
    check(|v| rearrange(&v[0], "b i (h e) -> h (b i) e", &[("h", 2)]).square(), std::slice::from_ref(&a));
    check(|v| repeat(&v[0].square(), "b i j -> b new (i j)", &[("new", 3)]), std::slice::from_ref(&a));
    for by in [Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::Min] {
        check(|v| reduce(&v[0].square(), "... (h e) -> e ...", by, &[("h", 2)]), std::slice::from_ref(&a));
    }
}

#[test]
fn gradients_where_a_slope_is_infinite_or_there_is_none() {
    let gradient = |values: &[f64], f: &dyn Fn(&Var) -> Var| {
        let x = Tape::new().leaf(Tensor::from_vec_f64(values.to_vec(), &[1, values.len()]));
        f(&x).sum_all().backward().take(&x).unwrap().to_vec_f64()
    };
    let nothing = [f64::NEG_INFINITY; 3];
    assert_eq!(gradient(&nothing, &|x| x.logsumexp(1)), [0.0; 3]);
    assert_eq!(gradient(&[0.0, -2.0], &|x| x.pow(0.0)), [0.0; 2]);
    assert_eq!(gradient(&[0.0, -2.0], &|x| x.pow(2.0)), [0.0, -4.0]);
}

#[test]
fn a_value_that_is_stored_in_16_bits_has_a_gradient_in_f32() {
    let x = Tensor::from([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    let w = Tape::new().leaf(Tensor::from([[0.5], [0.25]]));
    let stored = w.to_dtype(DType::Bf16);
    let y = Var::from(x.clone()).matmul(&stored) + Var::from(x).linear(&stored, None, None);
    let grad = y.sum_all().backward().take(&w).unwrap();
    assert_eq!((grad.dtype(), grad.to_vec()), (DType::F32, vec![18.0, 24.0]));
}
