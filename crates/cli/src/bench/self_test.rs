//! Every kernel of a device against the CPU in double precision, with its speed: what a user of new
//! hardware sends when something is wrong, or slow.

use ironlens::tensor::profile::{self, Kernel};
use ironlens::tensor::{AttentionSpec, DType, Device, IndexTensor, Rng, RotarySpec, Tensor, UnaryOp};

use super::table::Table;

type Op = Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

/// A kernel at one size: the shapes of its operands, and what it does with them.
struct Check {
    name: &'static str,
    shapes: Vec<Vec<usize>>,
    op: Op,
}

fn check(name: &'static str, shapes: &[&[usize]], op: impl Fn(&[Tensor]) -> Vec<Tensor> + 'static) -> Check {
    Check { name, shapes: shapes.iter().map(|s| s.to_vec()).collect(), op: Box::new(op) }
}

/// Largest error over the largest value that a kernel may have.
const TOLERANCE: f64 = 3e-5;

/// Runs all of them; the table, and whether all agree.
pub fn run(device: &Device, repeats: usize) -> (Table, bool) {
    let mut table = Table::new(["kernel", "operands", "error", "ms", "GB/s", "GFLOP/s", "verdict"]);
    let mut all_agree = true;
    for Check { name, shapes, op } in checks() {
        let inputs: Vec<Tensor> =
            shapes.iter().enumerate().map(|(i, s)| Rng::new(3, i as u64).normal(s, 0.0, 1.0, &Device::Cpu)).collect();
        let exact = op(&inputs.iter().map(|t| t.to_dtype(DType::F64)).collect::<Vec<_>>());
        let here: Vec<Tensor> = inputs.iter().map(|t| t.to_device(device)).collect();
        let error = op(&here).iter().zip(&exact).map(|(found, right)| error_of(found, right)).fold(0.0, f64::max);
        let mut runs: Vec<Vec<Kernel>> = (0..repeats).map(|_| profile::record(|| op(&here)).1).collect();
        let seconds = |kernels: &[Kernel]| kernels.iter().map(|k| k.time.as_secs_f64()).sum::<f64>();
        runs.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let median = &runs[runs.len() / 2];
        let time = seconds(median);
        let rate = |total: f64| if total > 0.0 { format!("{:.1}", total / time / 1e9) } else { String::new() };
        let agrees = error <= TOLERANCE;
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
    for (m, k, n) in
        [(1024, 768, 2304), (1024, 768, 3072), (1024, 3072, 768), (128, 768, 300), (129, 65, 77), (1, 33, 5)]
    {
        all.push(check("product", &[&[m, k], &[k, n]], |t| vec![t[0].matmul(&t[1])]));
        all.push(check("product, right transposed", &[&[m, k], &[n, k]], |t| vec![t[0].matmul(&t[1].t())]));
        all.push(check("product, left transposed", &[&[k, m], &[k, n]], |t| vec![t[0].t().matmul(&t[1])]));
    }
    let hidden: &[usize] = &[1024, 3072];
    for op in [UnaryOp::Gelu, UnaryOp::GeluNew, UnaryOp::Silu, UnaryOp::Relu, UnaryOp::Tanh, UnaryOp::Exp] {
        all.push(check(op.name(), &[hidden], move |t| vec![t[0].unary(op)]));
        all.push(check(op.grad_name(), &[hidden, hidden], move |t| vec![t[0].unary_grad(op, t[1].clone())]));
    }
    let stream: &[usize] = &[1024, 768];
    let affine: &[usize] = &[768];
    all.push(check("add", &[stream, stream], |t| vec![&t[0] + &t[1]]));
    all.push(check("sum of rows", &[stream], |t| vec![t[0].sum(&[0])]));
    all.push(check("sum of all", &[stream], |t| vec![t[0].square().sum_all()]));
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
    all.push(check("softmax", &[&[96, 128, 128]], |t| vec![t[0].softmax()]));
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
    all.push(check("rotary", &[heads, &[1, 128, 32]], |t| {
        let spec = RotarySpec { cos: t[1].clone(), sin: t[1].clone(), interleaved: false };
        vec![t[0].rotary(&spec, false)]
    }));
    let ids = IndexTensor::new((0..1024u32).map(|i| i * 7 % 300).collect::<Vec<_>>(), &[1024]);
    let targets = ids.clone();
    all.push(check("cross-entropy", &[&[1024, 300], &[1024]], move |t| {
        vec![t[0].cross_entropy(&targets), t[0].cross_entropy_grad(&targets, &t[1])]
    }));
    all.push(check("embedding", &[&[300, 768], stream], move |t| vec![t[0].embed(&ids), t[1].embed_grad(&ids, 300)]));
    all
}
