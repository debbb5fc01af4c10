//! The GPU against the CPU, op by op. Run with an adapter: `IRONLENS_ADAPTER=llvmpipe cargo test -p
//! ironlens-tensor --test gpu -- --ignored`; without one these tests fail.

#![cfg(feature = "gpu")]

use ironlens_tensor::einops::einsum;
use ironlens_tensor::{
    AdamWStep, Alibi, AttentionSpec, BinaryOp, DType, Device, IndexTensor, Rng, RotarySpec, Tensor, UnaryOp,
};

fn gpu() -> Device {
    Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one")
}

fn random(shape: &[usize], stream: u64) -> Tensor {
    Rng::new(5, stream).normal(shape, 0.0, 1.0, &Device::Cpu)
}

/// Runs `op` on both devices; the GPU's results must be the CPU's (in f64) within `tolerance` of the
/// largest.
#[track_caller]
fn compare(what: &str, tolerance: f64, inputs: &[&Tensor], op: impl Fn(&[Tensor]) -> Vec<Tensor>) {
    let exact: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F64)).collect();
    let on_gpu: Vec<Tensor> = inputs.iter().map(|t| t.to_device(&gpu())).collect();
    for (i, (right, found)) in op(&exact).iter().zip(op(&on_gpu)).enumerate() {
        assert_eq!(right.shape(), found.shape(), "{what}: result {i}");
        let (difference, alike) = found.to_device(&Device::Cpu).to_dtype(DType::F64).max_abs_diff(right);
        let size = right.to_vec_f64().into_iter().filter(|v| v.is_finite()).fold(1e-30, |m: f64, v| m.max(v.abs()));
        assert!(alike && difference <= tolerance * size, "{what}: result {i} is off by {difference:e} of {size:e}");
    }
}

#[test]
#[ignore = "needs an adapter"]
fn elementwise_and_reductions() {
    let (x, y) = (random(&[3, 5, 7], 0), random(&[3, 5, 7], 1));
    let positive = x.abs().affine(1.0, 0.1);
    for op in UnaryOp::ALL {
        let x = if matches!(op, UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Pow(_)) { &positive } else { &x };
        compare(op.name(), 2e-6, &[x, &y], |t| vec![t[0].unary(op), t[0].unary_grad(op, t[1].clone())]);
    }
    let either = Tensor::from([-2.0, -1.5, 0.0, 0.5, 3.0]);
    for p in [-2.0, 0.0, 0.5, 1.0, 2.0, 3.0] {
        compare(&format!("pow {p}"), 2e-6, &[&either], |t| {
            vec![t[0].pow(p), t[0].unary_grad(UnaryOp::Pow(p), t[0].affine(0.0, 1.0))]
        });
    }
    compare("limits in the wrong order", 0.0, &[&either], |t| vec![t[0].clamp(2.0, 1.0)]);
    let row = random(&[7], 2);
    for op in BinaryOp::ALL {
        compare(op.name(), 2e-6, &[&x, &positive, &row], |t| {
            vec![t[0].binary(op, &t[1]), t[0].binary(op, &t[2]), t[2].binary(op, &t[0].transpose(0, 1))]
        });
    }
    let long = random(&[3000, 2], 3);
    compare("reductions", 2e-6, &[&x, &long], |t| {
        vec![
            t[0].sum(&[1]),
            t[0].sum(&[0]),
            t[0].max(&[0, 2]),
            t[0].transpose(0, 2).sum(&[0, 1]),
            t[1].sum_all(),
            t[1].sum(&[0]),
            t[0].mean_all(),
        ]
    });
    assert_eq!(x.to_device(&gpu()).argmax(-1), x.argmax(-1));
    assert!((x.to_device(&gpu()).sum_squares() / x.sum_squares() - 1.0).abs() < 1e-6);
    assert!(x.to_device(&gpu()).all_finite());
    assert!(!Tensor::from_vec(vec![1.0, f32::NAN], &[2], &gpu()).all_finite());
    assert!(!Tensor::from_vec(vec![f32::INFINITY], &[1], &gpu()).all_finite());
}

/// What compilers with fast math may take to be nowhere is where it is on the CPU.
#[test]
#[ignore = "needs an adapter"]
fn numbers_that_are_not_finite() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let (no_number, one) = (Tensor::from([nan, 0.5]), Tensor::from([1.0, 1.0]));
    for op in UnaryOp::ALL {
        compare(op.name(), 2e-6, &[&no_number, &one], |t| vec![t[0].unary(op), t[0].unary_grad(op, t[1].clone())]);
    }
    let odd = Tensor::from([nan, inf, -inf, 0.0, -0.0, -1.5, 0.2]);
    let clamp = UnaryOp::Clamp { min: -0.6, max: 0.4 };
    for op in [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Exp, UnaryOp::Log, UnaryOp::Sqrt, UnaryOp::Recip, clamp]
        .into_iter()
        .chain([UnaryOp::Sin, UnaryOp::Cos, UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::Relu])
    {
        compare(op.name(), 2e-6, &[&odd], |t| vec![t[0].unary(op)]);
    }
    for x in [1e-40f32, 3e-45, 1.2e-38, 3.4e38, -1e-40] {
        compare(&format!("log of {x:e}"), 2e-6, &[&Tensor::from([x])], |t| vec![t[0].log()]);
    }
    let a = Tensor::from([nan, 1.0, nan, inf, -inf, 0.0, 2.0, 0.0]);
    let b = Tensor::from([1.0, nan, nan, 1.0, -inf, -0.0, nan, -inf]);
    for op in BinaryOp::ALL {
        compare(op.name(), 2e-6, &[&a, &b], |t| vec![t[0].binary(op, &t[1]), t[1].binary(op, &t[0])]);
    }
    let hidden = -inf;
    let rows = Tensor::from([[1.0, nan, 3.0], [hidden, 2.0, hidden], [hidden, hidden, hidden], [hidden, nan, 0.0]]);
    compare("rows with NaN", 2e-6, &[&rows], |t| {
        vec![t[0].max(&[1]), t[0].max(&[0]), t[0].sum(&[1]), t[0].softmax(), t[0].narrow(0, 0, 2).log_softmax()]
    });
    // A loss of 1e-6 beside logits of 100.
    let logits = Tensor::from([[100.0, 86.0, 50.0], [86.0, 100.0, 86.5]]);
    let (ids, drow) = (IndexTensor::new(vec![0, 1], &[2]), Tensor::from([1.0, 1.0]));
    compare("small losses", 0.1, &[&logits, &drow], |t| {
        let y = t[0].log_softmax();
        vec![t[0].cross_entropy(&ids), t[0].cross_entropy_grad(&ids, &t[1]), y.select(0, 0).narrow(0, 0, 1)]
    });
}

#[test]
#[ignore = "needs an adapter"]
fn views_copies_and_writes() {
    let x = random(&[4, 6, 5], 0);
    compare("views", 0.0, &[&x], |t| {
        let mut y = t[0].clone();
        let two = &t[0].narrow(1, 2, 2) * 2.0;
        y.assign(|y| y.narrow(1, 1, 2), &two);
        vec![
            t[0].permute(&[2, 0, 1]).contiguous(),
            t[0].narrow(1, 1, 3).reshape(&[12, 5]),
            Tensor::cat(&[t[0].select(1, 0), t[0].select(1, 3)], 1),
            t[0].narrow(0, 0, 1).expand(&[4, 6, 5]).contiguous(),
            y,
            t[0].clone(),
        ]
    });
}

#[test]
#[ignore = "needs an adapter"]
fn products_of_every_layout() {
    for (m, k, n) in [(1, 1, 1), (17, 33, 29), (64, 64, 64), (65, 130, 77), (3, 300, 128), (128, 1, 5)] {
        let (a, b) = (random(&[m, k], 0), random(&[k, n], 1));
        let (at, bt) = (a.t().contiguous(), b.t().contiguous());
        compare("matmul", 4e-6, &[&a, &b, &at, &bt], |t| {
            vec![t[0].matmul(&t[1]), t[2].t().matmul(&t[1]), t[0].matmul(&t[3].t()), t[2].t().matmul(&t[3].t())]
        });
        let (bias, residual) = (random(&[n], 2), random(&[m, n], 3));
        compare("linear", 4e-6, &[&a, &b, &bias, &residual], |t| {
            vec![t[0].linear(&t[1], Some(&t[2]), Some(&t[3])), t[0].linear(&t[1], None, None)]
        });
    }
    let (a, b) = (random(&[2, 3, 4, 5], 0), random(&[3, 5, 6], 1));
    compare("batched", 4e-6, &[&a, &b], |t| vec![t[0].matmul(&t[1]), t[0].transpose(0, 1).matmul(&t[1].unsqueeze(1))]);
}

/// More tiles of rows, of columns and of matrices than a grid has groups along an axis, of the widest tile: each
/// product is a part, then another.
#[test]
#[ignore = "needs an adapter"]
fn products_of_more_tiles_than_a_grid_has() {
    let many = 65535 * 128 + 40;
    let of_rows = |n: usize| Tensor::from_vec((0..n).map(|i| (i % 1021) as f32).collect(), &[n, 1], &gpu());
    let one = Tensor::from_vec(vec![2.0], &[1, 1], &gpu());
    let is_doubled = |found: &Tensor| found.to_vec().iter().enumerate().all(|(i, &x)| x == (2 * (i % 1021)) as f32);
    let column = of_rows(many);
    assert!(is_doubled(&column.matmul(&one)), "rows");
    assert!(is_doubled(&one.matmul(&column.transpose(0, 1))), "columns");
    assert!(is_doubled(&of_rows(65535 + 40).unsqueeze(2).matmul(&one)), "matrices");
}

#[test]
#[ignore = "needs an adapter"]
fn rows() {
    for width in [1, 7, 64, 130] {
        let (x, dy) = (random(&[5, width], 0), random(&[5, width], 1));
        let (w, b) = (random(&[width], 2), random(&[width], 3));
        compare("rows", 1e-5, &[&x, &dy, &w, &b], |t| {
            let (x, dy) = (&t[0], &t[1]);
            let (w, b) = (Some(&t[2]), Some(&t[3]));
            let (y, l) = (x.softmax(), x.log_softmax());
            let scale = x.rms(0.1);
            let mut all = vec![y.softmax_grad(dy), l.log_softmax_grad(dy), x.center(), x.rms_grad(&scale, &scale)];
            all.extend([x.scale_and_shift(&scale, w, b), x.scale_and_shift(&scale, None, b), y, l]);
            let (y, scale) = x.layer_norm(0.1, w, b);
            let (dx, affine) = x.layer_norm_grad(&scale, w, dy, true);
            let (dw, db) = affine.expect("asked for");
            all.extend([y, scale, dx, dw, db, x.layer_norm(0.1, None, None).0]);
            let (y, scale) = x.rms_norm(0.1, w);
            let (dx, dw) = x.rms_norm_grad(&scale, w, dy, true);
            all.extend([y, scale, dx, dw.expect("asked for"), x.rms_norm(0.1, None).0]);
            all
        });
    }
    let logits = random(&[6, 11], 0);
    let ids = IndexTensor::new(vec![3, 0, 10, 5, 5, 1], &[6]);
    let drow = random(&[6], 1);
    compare("cross-entropy", 4e-6, &[&logits, &drow], |t| {
        vec![t[0].cross_entropy(&ids), t[0].cross_entropy_grad(&ids, &t[1])]
    });
    let table = random(&[11, 4], 2);
    let dy = random(&[6, 4], 3);
    compare("embedding", 2e-6, &[&table, &dy], |t| vec![t[0].embed(&ids), t[1].embed_grad(&ids, 11)]);
}

#[test]
#[ignore = "needs an adapter"]
fn attention_of_every_kind() {
    let causal = AttentionSpec::causal(2.0);
    let mask = IndexTensor::new(vec![0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[2, 6]);
    let alibi = |bf16| Some(Alibi { slopes: vec![0.5, 0.25, 0.1, 0.05], bf16 });
    let specs = [
        causal.clone(),
        AttentionSpec { window: Some(3), soft_cap: Some(1.5), ..causal.clone() },
        AttentionSpec { alibi: alibi(false), key_mask: Some(mask.clone()), ..causal.clone() },
        AttentionSpec { alibi: alibi(true), key_mask: Some(mask), ..causal.clone() },
        AttentionSpec { alibi: alibi(true), ..causal.clone() },
        AttentionSpec { causal: false, ..causal.clone() },
    ];
    for kv in [4, 2] {
        let (q, k, v) = (random(&[2, 6, 4, 5], 0), random(&[2, 6, kv, 5], 1), random(&[2, 6, kv, 5], 2));
        let dz = random(&[2, 6, 4, 5], 3);
        for spec in &specs {
            compare("attention", 1e-5, &[&q, &k, &v, &dz], |t| {
                let (z, pattern) = t[0].attention_with_pattern(&t[1], &t[2], spec);
                let scores = t[0].attention_scores(&t[1], spec);
                let (dq, dk, dv) = t[0].attention_grad(&t[1], &t[2], spec, &pattern, &t[3]);
                vec![z, pattern.clone(), scores, dq, dk, dv, pattern.attention_values(&t[2])]
            });
        }
    }
    // Places that bf16 does not hold.
    let (q, k) = (random(&[2, 5, 4, 3], 0), random(&[2, 600, 2, 3], 1));
    let padded = IndexTensor::new((0..1200).map(|at| u32::from(at > 7)).collect::<Vec<_>>(), &[2, 600]);
    for key_mask in [None, Some(padded)] {
        let spec = AttentionSpec { alibi: alibi(true), query_start: 595, key_mask, ..causal.clone() };
        compare("scores of late keys", 1e-6, &[&q, &k], |t| vec![t[0].attention_scores(&t[1], &spec)]);
    }
    let (x, angles) = (random(&[2, 6, 3, 8], 0), random(&[1, 6, 3], 1));
    for interleaved in [true, false] {
        compare("rotary", 2e-6, &[&x, &angles], |t| {
            let spec = RotarySpec { cos: t[1].clone(), sin: &t[1] * 0.5, interleaved };
            vec![t[0].rotary(&spec, false), t[0].rotary(&spec, true)]
        });
    }
}

#[test]
#[ignore = "needs an adapter"]
fn a_step_of_adamw() {
    let step = AdamWStep { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 3 };
    let [p, g, m] = [0, 1, 2].map(|i| random(&[33], i));
    let v = random(&[33], 3).square();
    compare("adamw", 2e-6, &[&p, &g, &m, &v], |t| {
        let (mut p, mut m, mut v) = (t[0].clone(), t[2].clone(), t[3].clone());
        let clip = Tensor::scalar(0.3, p.dtype(), &p.device());
        p.adamw(&t[1], &clip, &mut m, &mut v, &step);
        // The operands are as they were.
        vec![p, m, v, t[0].clone(), t[2].clone()]
    });
    for factor in [f64::NAN, f64::INFINITY] {
        compare("adamw by a factor that is not finite", 0.0, &[&p, &g, &m, &v], |t| {
            let (mut p, mut m, mut v) = (t[0].clone(), t[2].clone(), t[3].clone());
            p.adamw(&t[1], &Tensor::scalar(factor, p.dtype(), &p.device()), &mut m, &mut v, &step);
            vec![p, m, v]
        });
    }
}

#[test]
#[ignore = "needs an adapter"]
fn memory_is_used_again() {
    // Alone, since other tests share the pool: run with --test-threads 1.
    let Device::Gpu(gpu) = gpu() else { panic!("a GPU") };
    let device = Device::Gpu(gpu.clone());
    // That of a software driver is the machine's.
    let machine = Device::Cpu.memory_bytes();
    assert_eq!(device.memory_bytes(), machine.filter(|_| gpu.shares_memory()));
    let x = random(&[64, 64], 0).to_device(&device);
    let work = |x: &Tensor| x.matmul(x).softmax().sum_all().item();
    work(&x);
    let before = gpu.memory();
    for _ in 0..20 {
        work(&x);
    }
    let after = gpu.memory();
    assert_eq!((before.created, before.live_buffers), (after.created, after.live_buffers));
}

/// Several elements of an expanded tensor are one place in memory, where threads would race.
#[test]
#[ignore = "needs an adapter"]
fn writes_to_expanded_tensors() {
    let (row, values) = (random(&[1, 5], 30), random(&[4, 5], 31));
    compare("assign to an expanded tensor", 0.0, &[&row, &values], |t| {
        let mut x = t[0].expand(&[4, 5]);
        x.assign(|x| x.clone(), &t[1]);
        let mut y = t[0].expand(&[4, 5]);
        y.assign(|y| y.select(0, 2), t[1].select(0, 0));
        vec![x, y, t[0].clone()]
    });
    compare("add_assign to an expanded tensor", 2e-7, &[&row, &values], |t| {
        let mut x = t[0].expand(&[4, 5]);
        x.add_assign(&t[1]);
        vec![x, t[0].clone()]
    });
    // Written by its only holder, and by one of two.
    compare("assign to a view", 0.0, &[&values], |t| {
        let mut x = (&t[0] * 1.0).t();
        x.assign(|x| x.select(0, 1), t[0].select(1, 0));
        let mut y = t[0].narrow(0, 1, 2);
        y.assign(|y| y.narrow(1, 0, 2), t[0].select(0, 0).narrow(0, 0, 2));
        vec![x, y, t[0].clone()]
    });
    let step = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step: 1 };
    compare("adamw of expanded moments", 2e-6, &[&row, &values, &Tensor::scalar(1.0, DType::F32, &Device::Cpu)], |t| {
        let (mut p, mut m, mut v) = (t[1].t(), t[0].expand(&[4, 5]).t(), (t[0].square()).expand(&[4, 5]).t());
        p.adamw(&t[1].t(), &t[2], &mut m, &mut v, &step);
        vec![p, m, v, t[0].clone(), t[1].clone()]
    });
}

#[test]
#[ignore = "needs an adapter"]
fn the_vocabulary() {
    let (x, y) = (random(&[4, 5, 6], 0), random(&[6, 3], 1));
    let ids = IndexTensor::new(vec![4, 0, 3, 3, 1, 2, 0, 2], &[4, 2, 1]);
    compare("indices", 0.0, &[&x], |t| {
        let x = &t[0];
        let (sorted, _) = x.sort(1, false);
        vec![
            x.gather(1, &ids),
            x.index_select(-1, &IndexTensor::from([[5, 5], [0, 2]])),
            x.transpose(0, 2).index_select(1, &IndexTensor::from([1])),
            x.flip(1),
            x.diagonal(1),
            x.tril(-1),
            x.triu(2),
            sorted,
            x.topk(3, 0).0,
            x.min(&[0, 2]),
            x.masked_fill(x.gt(0.5), f64::NEG_INFINITY),
            Tensor::where_(x.le(0.0), x, 7.0),
            x.maximum(x.select(0, 0)),
        ]
    });
    compare("statistics", 1e-5, &[&x, &y], |t| {
        let x = &t[0];
        vec![
            x.var(&[1]),
            x.std(&[0, 2]),
            x.vector_norm(2),
            x.logsumexp(&[1, 2]),
            x.cumsum(1),
            2.0 / (x + 10.0) - 1.0,
            einsum("i j k, k l -> l i j", &[x, &t[1]]),
            einsum("ijk,ijk->j", &[x, x]),
            t[1].lstsq(&t[1].square()),
        ]
    });
    // Far from 0 and at the corners of quarter turns.
    let angles = Tensor::linspace(-300.0, 300.0, 4001, DType::F32, &Device::Cpu);
    compare("angles", 1e-6, &[&angles], |t| vec![t[0].sin(), t[0].cos()]);
    let broken = Tensor::from([[1.0, f32::NAN, 3.0], [2.0, 2.0, 1.0]]);
    let on_gpu = broken.to_device(&gpu());
    assert_eq!(on_gpu.argmax(1), broken.argmax(1));
    assert_eq!(on_gpu.argmin(0), broken.argmin(0));
    assert_eq!(on_gpu.argsort(1, true), broken.argsort(1, true));
    assert_eq!(on_gpu.gt(2.0).to_vec(), broken.gt(2.0).to_vec());
    assert!(on_gpu.maximum(5.0).to_vec()[1].is_nan() && on_gpu.sign().to_vec()[1].is_nan());
}
