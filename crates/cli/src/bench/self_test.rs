//! Every kernel of a device against the CPU in double precision, with its speed: what a user of new
//! hardware sends when something is wrong, or slow.

use ironlens::tensor::profile::{self, Kernel};
use ironlens::tensor::{
    AdamWStep, Alibi, AttentionSpec, BinaryOp, DType, Device, IndexTensor, ReduceOp, Rng, RotarySpec, Tensor, UnaryOp,
};

use super::table::Table;

type Op = Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

/// A kernel at one size: the shapes of its operands, how they are made of normal numbers, what it does with them, and
/// the largest error over the largest value that it may have.
struct Check {
    name: &'static str,
    shapes: Vec<Vec<usize>>,
    operands: fn(Tensor) -> Tensor,
    op: Op,
    tolerance: f64,
}

fn check(name: &'static str, shapes: &[&[usize]], op: impl Fn(&[Tensor]) -> Vec<Tensor> + 'static) -> Check {
    let shapes = shapes.iter().map(|s| s.to_vec()).collect();
    Check { name, shapes, operands: |x| x, op: Box::new(op), tolerance: TOLERANCE }
}

/// Numbers above 0, for functions that have values only there.
fn positive(x: Tensor) -> Tensor {
    x.abs().affine(1.0, 0.1)
}

/// That of most kernels.
const TOLERANCE: f64 = 3e-5;

/// Runs all of them; the table, and whether all agree.
pub fn run(device: &Device, repeats: usize) -> (Table, bool) {
    let mut table = Table::new(["kernel", "operands", "error", "ms", "GB/s", "GFLOP/s", "verdict"]);
    let mut all_agree = true;
    for Check { name, shapes, operands, op, tolerance } in checks() {
        let normal = |(i, shape): (usize, &Vec<usize>)| Rng::new(3, i as u64).normal(shape, 0.0, 1.0, &Device::Cpu);
        let inputs: Vec<Tensor> = shapes.iter().enumerate().map(normal).map(operands).collect();
        let exact = op(&inputs.iter().map(|t| t.to_dtype(DType::F64)).collect::<Vec<_>>());
        let here: Vec<Tensor> = inputs.iter().map(|t| t.to_device(device)).collect();
        let error = op(&here).iter().zip(&exact).map(|(found, right)| error_of(found, right)).fold(0.0, f64::max);
        let mut runs: Vec<Vec<Kernel>> = (0..repeats).map(|_| profile::record(|| op(&here)).1).collect();
        let seconds = |kernels: &[Kernel]| kernels.iter().map(|k| k.time.as_secs_f64()).sum::<f64>();
        runs.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let median = &runs[runs.len() / 2];
        let time = seconds(median);
        let rate = |total: f64| if total > 0.0 { format!("{:.1}", total / time / 1e9) } else { String::new() };
        let agrees = error <= tolerance;
        all_agree &= agrees;
        table.row([
            name.to_string(),
            shapes.iter().map(|s| format!("{s:?}")).collect::<String>(),
            format!("{error:.1e}"),
            format!("{:.3}", time * 1e3),
            rate(median.iter().map(|k| k.bytes).sum()),
            rate(median.iter().map(|k| k.flops).sum()),
            if agrees { "ok" } else { "WRONG" }.to_string(),
        ]);
    }
    (table, all_agree)
}

/// The tiles that products take on a GPU.
pub fn tiles(device: &Device) -> Option<Table> {
    #[cfg(feature = "gpu")]
    if let Device::Gpu(gpu) = device {
        let mut table = Table::new(["product", "64x64 pieces", "tile", "chosen"]);
        for choice in gpu.tiles() {
            let how = if choice.measured { "measured" } else { "usual" };
            table.row([choice.order.to_string(), choice.from.to_string(), choice.tile, how.to_string()]);
        }
        table.row(["matrix instructions".to_string(), String::new(), String::new(), gpu.uses_matrices().to_string()]);
        return Some(table);
    }
    let _ = device;
    None
}

/// Largest difference over the largest exact value; infinite where values are not finite alike.
fn error_of(found: &Tensor, right: &Tensor) -> f64 {
    let (difference, alike) = found.to_device(&Device::Cpu).to_dtype(DType::F64).max_abs_diff(right);
    let size = right.to_vec_f64().into_iter().filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    if alike { difference / size } else { f64::INFINITY }
}

fn checks() -> Vec<Check> {
    let mut all = Vec::new();
    for (m, k, n) in [
        (1024, 768, 2304),
        (1024, 768, 3072),
        (1024, 3072, 768),
        (128, 768, 300),
        (129, 65, 77),
        (4, 768, 3072),
        (1, 768, 10001),
    ] {
        all.push(check("product", &[&[m, k], &[k, n]], |t| vec![t[0].matmul(&t[1])]));
        all.push(check("product, right transposed", &[&[m, k], &[n, k]], |t| vec![t[0].matmul(&t[1].t())]));
        all.push(check("product, left transposed", &[&[k, m], &[k, n]], |t| vec![t[0].t().matmul(&t[1])]));
    }
    for rows in [1024, 4] {
        let shapes: [&[usize]; 4] = [&[rows, 768], &[768, 768], &[768], &[rows, 768]];
        all.push(check("linear", &shapes, |t| {
            let (bias, residual) = (Some(&t[2]), Some(&t[3]));
            [(None, None), (bias, None), (None, residual), (bias, residual)]
                .map(|(bias, residual)| t[0].linear(&t[1], bias, residual))
                .to_vec()
        }));
    }
    let hidden: &[usize] = &[1024, 3072];
    for op in UnaryOp::ALL {
        let operands = match op {
            UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Pow(_) => positive,
            _ => |x| x,
        };
        let value = check(op.name(), &[hidden], move |t| vec![t[0].unary(op)]);
        let slope = check(op.grad_name(), &[hidden, hidden], move |t| vec![t[0].unary_grad(op, t[1].clone())]);
        all.extend([value, slope].map(|check| Check { operands, ..check }));
    }
    let turns = check("sin and cos, many turns", &[hidden], |t| vec![t[0].sin(), t[0].cos()]);
    all.push(Check { operands: |x| x * 200.0, ..turns });
    let stream: &[usize] = &[1024, 768];
    let affine: &[usize] = &[768];
    for op in BinaryOp::ALL {
        // Also of equal numbers, of a row for all, and of what lies crosswise.
        all.push(check(op.name(), &[stream, stream, affine, &[768, 1024]], move |t| {
            vec![t[0].binary(op, &t[1]), t[0].binary(op, &t[0]), t[0].binary(op, &t[2]), t[0].binary(op, &t[3].t())]
        }));
    }
    for op in ReduceOp::ALL {
        let along = move |x: &Tensor, axes: &[usize]| match op {
            ReduceOp::Sum => x.sum(axes),
            ReduceOp::Max => x.max(axes),
        };
        all.push(check(op.name(), &[stream], move |t| {
            vec![along(&t[0], &[0]), along(&t[0], &[1]), along(&t[0].square(), &[0, 1])]
        }));
    }
    all.push(check("argmax", &[stream, &[2, 50257]], |t| {
        let numbers = |ids: IndexTensor| {
            let values: Vec<f64> = ids.as_slice().iter().map(|&id| f64::from(id)).collect();
            Tensor::from_vec_f64(values, ids.shape())
        };
        t.iter().map(|x| numbers(x.argmax(-1))).collect()
    }));
    all.push(check("views", &[&[8, 128, 12, 64]], |t| {
        let mut written = &t[0] * 1.0;
        written.assign(|x| x.narrow(1, 3, 100).transpose(2, 3), t[0].narrow(1, 0, 100).transpose(2, 3));
        let parts = [t[0].narrow(3, 0, 32), t[0].narrow(3, 32, 32)];
        vec![t[0].permute(&[0, 2, 3, 1]).contiguous(), Tensor::cat(&parts, 0), written]
    }));
    all.push(check("fill", &[&[1]], |t| vec![Tensor::full(&[1000, 77], 0.1, t[0].dtype(), &t[0].device())]));
    all.push(check("all finite", &[stream], |t| {
        let finite = [&t[0], &(&t[0] / 0.0)].map(|x| f64::from(u8::from(x.all_finite())));
        vec![Tensor::from_vec_f64(finite.to_vec(), &[2])]
    }));
    all.push(check("layer norm", &[stream, affine, affine], |t| {
        let (y, scale) = t[0].layer_norm(1e-5, Some(&t[1]), Some(&t[2]));
        vec![y, scale]
    }));
    all.push(check("layer norm, gradient", &[stream, affine, stream], |t| {
        let scale = t[0].center().rms(1e-5);
        let (dx, affine) = t[0].layer_norm_grad(&scale, Some(&t[1]), &t[2], true);
        let (dw, db) = affine.expect("asked for");
        vec![dx, dw, db]
    }));
    all.push(check("RMS norm", &[stream, affine], |t| {
        let (y, scale) = t[0].rms_norm(1e-5, Some(&t[1]));
        vec![y, scale]
    }));
    all.push(check("RMS norm, gradient", &[stream, affine, stream], |t| {
        let (dx, dw) = t[0].rms_norm_grad(&t[0].rms(1e-5), Some(&t[1]), &t[2], true);
        vec![dx, dw.expect("asked for")]
    }));
    all.push(check("parts of norms", &[stream, affine, affine, &[1024, 1]], |t| {
        let (x, scale) = (&t[0], t[0].rms(1e-5));
        vec![x.center(), x.rms_grad(&scale, &t[3]), x.scale_and_shift(&scale, Some(&t[1]), Some(&t[2])), scale]
    }));
    let pattern: &[usize] = &[96, 128, 128];
    all.push(check("softmax", &[pattern], |t| vec![t[0].softmax()]));
    all.push(check("softmax, gradient", &[pattern, pattern], |t| vec![t[0].softmax_grad(&t[1])]));
    all.push(check("log-softmax", &[pattern], |t| vec![t[0].log_softmax()]));
    all.push(check("log-softmax, gradient", &[pattern, pattern], |t| vec![t[0].log_softmax_grad(&t[1])]));
    let heads: &[usize] = &[8, 128, 12, 64];
    all.push(check("attention", &[heads, heads, heads], |t| {
        let (z, pattern) = t[0].attention_with_pattern(&t[1], &t[2], &AttentionSpec::causal(8.0));
        vec![z, pattern]
    }));
    all.push(check("attention, gradient", &[heads, heads, heads, heads], |t| {
        let spec = AttentionSpec::causal(8.0);
        let (_, pattern) = t[0].attention_with_pattern(&t[1], &t[2], &spec);
        let (dq, dk, dv) = t[0].attention_grad(&t[1], &t[2], &spec, &pattern, &t[3]);
        vec![dq, dk, dv]
    }));
    all.push(check("attention, other scores", &[heads, heads, heads, &[8, 12, 128, 128]], |t| {
        let mask = IndexTensor::new((0..8 * 128).map(|i| u32::from(i % 128 > i / 128)).collect::<Vec<_>>(), &[8, 128]);
        let capped = AttentionSpec { window: Some(50), soft_cap: Some(2.0), ..AttentionSpec::causal(8.0) };
        let masked = |bf16| {
            let alibi = Some(Alibi { slopes: (1..=12).map(|head| 0.6f64.powi(head)).collect(), bf16 });
            AttentionSpec { alibi, key_mask: Some(mask.clone()), ..AttentionSpec::causal(8.0) }
        };
        let (dq, dk) = t[0].attention_scores_grad(&t[1], &capped, &t[3]);
        let specs = [capped, masked(false), masked(true)];
        specs.iter().map(|spec| t[0].attention_scores(&t[1], spec)).chain([dq, dk]).collect()
    }));
    all.push(check("rotary", &[heads, &[1, 128, 32]], |t| {
        let spec = |interleaved| RotarySpec { cos: t[1].clone(), sin: t[1].clone(), interleaved };
        vec![t[0].rotary(&spec(false), false), t[0].rotary(&spec(true), true)]
    }));
    let ids = IndexTensor::new((0..1024u32).map(|i| i * 7 % 300).collect::<Vec<_>>(), &[1024]);
    let targets = ids.clone();
    all.push(check("cross-entropy", &[&[1024, 300], &[1024]], move |t| {
        vec![t[0].cross_entropy(&targets), t[0].cross_entropy_grad(&targets, &t[1])]
    }));
    // Losses of 1e-4 beside logits of 100: what compilers with fast math regroup is seen here.
    let (rows, sure) = (Rng::new(3, 9).normal(&[1024, 300], 0.0, 1.0, &Device::Cpu), ids.clone());
    let logits = rows + Tensor::one_hot(&sure, 300, DType::F32, &Device::Cpu) * 15.0 + 100.0;
    let small = check("cross-entropy, small losses", &[&[1024]], move |t| {
        let logits = logits.to_dtype(t[0].dtype()).to_device(&t[0].device());
        vec![logits.cross_entropy(&sure), logits.log_softmax().max(&[1]), logits.cross_entropy_grad(&sure, &t[0])]
    });
    all.push(Check { tolerance: 4e-3, ..small });
    all.push(check("AdamW", &[stream, stream, stream, stream], |t| {
        let step = AdamWStep { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 3 };
        let (mut p, mut m, mut v) = (t[0].clone(), t[2].clone(), t[3].square());
        p.adamw(&t[1], &Tensor::scalar(0.3, p.dtype(), &p.device()), &mut m, &mut v, &step);
        vec![p, m, v]
    }));
    all.push(check("embedding", &[&[300, 768], stream], move |t| vec![t[0].embed(&ids), t[1].embed_grad(&ids, 300)]));
    all
}
