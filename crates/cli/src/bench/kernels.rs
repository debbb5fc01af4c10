//! One kernel at a time, beside what the machine could do.

use ironlens::tensor::profile::{self, Kernel};
use ironlens::tensor::{AdamWStep, AttentionSpec, DType, Device, IndexTensor, Rng, RotarySpec, Tensor, UnaryOp};

use super::peak::Peak;
use super::table::Table;
use super::timing::median;

const TOKENS: usize = 1024;
const D_MODEL: usize = 768;
const D_MLP: usize = 3072;
const HEADS: usize = 12;
const VOCAB: usize = 300;

/// Products of the notebook's training step: forward, gradient of the input, gradient of the
/// weights.
pub fn matmul(device: &Device, repeats: usize, peak: &Peak) -> Table {
    let mut rng = Rng::new(0, 0);
    let mut table = Table::new(["product", "m", "k", "n", "ms", "GFLOP/s", "of peak"]);
    for (what, k, n) in [
        ("qkv", D_MODEL, 3 * D_MODEL),
        ("attention out", D_MODEL, D_MODEL),
        ("mlp in", D_MODEL, D_MLP),
        ("mlp out", D_MLP, D_MODEL),
        ("unembed", D_MODEL, VOCAB),
    ] {
        let mut matrix = |rows, cols| rng.normal(&[rows, cols], 0.0, 1.0, device);
        let (x, w, dy) = (matrix(TOKENS, k), matrix(k, n), matrix(TOKENS, n));
        let products: [(&str, &dyn Fn() -> Tensor); 3] =
            [("forward", &|| x.matmul(&w)), ("dx", &|| dy.matmul(&w.t())), ("dw", &|| x.t().matmul(&dy))];
        for (which, product) in products {
            let (m, k, n) = match which {
                "forward" => (TOKENS, k, n),
                "dx" => (TOKENS, n, k),
                _ => (k, TOKENS, n),
            };
            let seconds = median(repeats, || {
                drop(product());
                device.synchronize();
            });
            let gflops = 2e-9 * (m * k * n) as f64 / seconds;
            table.row([
                format!("{what} {which}"),
                m.to_string(),
                k.to_string(),
                n.to_string(),
                format!("{:.2}", seconds * 1e3),
                format!("{gflops:.0}"),
                format!("{:.0} %", 100.0 * gflops / peak.gflops),
            ]);
        }
    }
    table
}

/// Memory of the weights that products of a few rows read: more than caches hold.
const WEIGHTS: usize = 256 << 20;

/// Products of one and of eight rows, as text is written with: SmolLM2's and GPT-2 small's shapes, with weights of 32
/// and of 16 bits.
pub fn few_rows(device: &Device, repeats: usize, peak: &Peak) -> Table {
    let mut table = Table::new(["model", "k", "n", "weights", "rows", "ms", "GB/s", "of memory", "rows/ms"]);
    let shapes = [
        ("SmolLM2", 576, 1536),
        ("SmolLM2", 576, 576),
        ("SmolLM2", 576, 49152),
        ("GPT-2", 768, 2304),
        ("GPT-2", 768, 3072),
    ];
    for (model, k, n) in shapes.into_iter().chain([("GPT-2", 3072, 768), ("GPT-2", 768, 50257)]) {
        let count = (WEIGHTS / 4 / (k * n)).max(1);
        let ones = Tensor::full(&[count * k, n], 1.0, DType::F32, device);
        let mut weights = vec![ones];
        if *device == Device::Cpu {
            weights.push(weights[0].to_dtype(DType::Bf16));
            weights.push(weights[0].to_dtype(DType::F16));
        }
        for weights in weights {
            for rows in [1, 8] {
                let x = Tensor::full(&[rows, k], 0.5, DType::F32, device);
                let seconds = median(repeats, || {
                    (0..count).for_each(|i| drop(x.linear(&weights.narrow(0, i * k, k), None, None)));
                    device.synchronize();
                });
                let gbytes = (weights.numel() * weights.dtype().size()) as f64 / seconds / 1e9;
                let each = seconds / count as f64;
                table.row([
                    model.to_string(),
                    k.to_string(),
                    n.to_string(),
                    weights.dtype().to_string(),
                    rows.to_string(),
                    format!("{:.3}", each * 1e3),
                    format!("{gbytes:.1}"),
                    format!("{:.0} %", 100.0 * gbytes / peak.gbytes),
                    format!("{:.1}", rows as f64 / each / 1e3),
                ]);
            }
        }
    }
    table
}

/// Every kernel of a training step that is not a product, and attention, at the notebook's sizes.
pub fn kernels(device: &Device, repeats: usize, peak: &Peak) -> Table {
    let mut rng = Rng::new(0, 0);
    let mut random = |shape: &[usize]| rng.normal(shape, 0.0, 1.0, device);
    let hidden = random(&[TOKENS, D_MLP]);
    let stream = random(&[TOKENS, D_MODEL]);
    let (w, b) = (random(&[D_MODEL]), random(&[D_MODEL]));
    let scale = stream.center().rms(1e-5);
    let heads: [Tensor; 4] = std::array::from_fn(|_| random(&[8, 128, HEADS, 64]));
    let [q, k, v, dz] = &heads;
    let spec = AttentionSpec::causal(8.0);
    let (_, pattern) = q.attention_with_pattern(k, v, &spec);
    let angles = random(&[1, 128, 32]);
    let rotary = RotarySpec { cos: angles.clone(), sin: angles, interleaved: false };
    let logits = random(&[TOKENS, VOCAB]);
    let ids = IndexTensor::new((0..TOKENS as u32).map(|i| i * 7 % VOCAB as u32).collect::<Vec<_>>(), &[TOKENS]);
    let per_row = random(&[TOKENS]);
    let table_of_rows = random(&[VOCAB, D_MODEL]);
    let (param, grad) = (random(&[D_MODEL, D_MLP]), random(&[D_MODEL, D_MLP]));
    let step = AdamWStep { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 10 };
    let one = Tensor::scalar(1.0, grad.dtype(), device);
    let mut moments = [param.clone(), param.zeros_like(), param.zeros_like()];

    let mut cases: Vec<Box<dyn FnMut() + '_>> = Vec::new();
    for op in [UnaryOp::Relu, UnaryOp::Gelu, UnaryOp::GeluNew, UnaryOp::Silu, UnaryOp::Tanh, UnaryOp::Exp] {
        let hidden = &hidden;
        cases.push(Box::new(move || drop(hidden.unary(op))));
        cases.push(Box::new(move || drop(hidden.unary_grad(op, hidden.clone()))));
    }
    cases.push(Box::new(|| drop(&stream + &stream)));
    cases.push(Box::new(|| drop(stream.layer_norm(1e-5, Some(&w), Some(&b)))));
    cases.push(Box::new(|| drop(stream.layer_norm_grad(&scale, Some(&w), &stream, true))));
    cases.push(Box::new(|| drop(pattern.softmax())));
    cases.push(Box::new(|| drop(pattern.softmax_grad(&pattern))));
    cases.push(Box::new(|| drop(q.attention(k, v, &spec))));
    cases.push(Box::new(|| drop(q.attention_grad(k, v, &spec, &pattern, dz))));
    cases.push(Box::new(|| drop(q.rotary(&rotary, false))));
    cases.push(Box::new(|| drop(table_of_rows.embed(&ids))));
    cases.push(Box::new(|| drop(stream.embed_grad(&ids, VOCAB))));
    cases.push(Box::new(|| drop(logits.cross_entropy(&ids))));
    cases.push(Box::new(|| drop(logits.cross_entropy_grad(&ids, &per_row))));
    cases.push(Box::new(|| drop(grad.sum(&[0]))));
    cases.push(Box::new(|| {
        std::hint::black_box(grad.sum_squares());
    }));
    cases.push(Box::new(|| {
        let [p, m, v] = &mut moments;
        p.adamw(&grad, &one, m, v, &step);
    }));

    let mut table = Table::new(["kernel", "operands", "ms", "GB/s", "of memory", "GFLOP/s", "of FMA"]);
    for mut case in cases {
        case();
        let runs: Vec<Kernel> = (0..repeats).filter_map(|_| profile::record(&mut case).1.into_iter().next()).collect();
        let mut times: Vec<f64> = runs.iter().map(|k| k.time.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let (kernel, seconds) = (&runs[0], times[times.len() / 2]);
        let (gbytes, gflops) = (kernel.bytes / seconds / 1e9, kernel.flops / seconds / 1e9);
        let share = |x: f64, of: f64| if x > 0.0 { format!("{:.0} %", 100.0 * x / of) } else { String::new() };
        table.row([
            kernel.name.to_string(),
            kernel.shapes.clone(),
            format!("{:.3}", seconds * 1e3),
            format!("{gbytes:.1}"),
            share(gbytes, peak.gbytes),
            if gflops > 0.0 { format!("{gflops:.0}") } else { String::new() },
            share(gflops, peak.gflops),
        ]);
    }
    table
}
