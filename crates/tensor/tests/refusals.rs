//! Every public method refuses every wrong operand, at the caller's line, and takes tensors without elements.

#[path = "refusals/harness.rs"]
mod harness;

use harness::{
    Method, Operands, all_are_tried, method, methods_over_axes, of_both, try_all, try_devices, try_nothing, try_storage,
};
use ironlens_tensor::{
    AdamWStep, Alibi, AttentionSpec, BinaryOp, DType, Device, IndexTensor, Layout, ReduceOp, RotarySpec, Tensor,
    UnaryOp,
};

/// Methods that take whatever they are given: of one tensor of any shape, or that only tell.
const OTHERS: &[&str] = &[
    // ops.rs
    "unary",
    "into_unary",
    "sum_all",
    "mean_all",
    "sum_squares",
    "sum_squares_on_device",
    "norm",
    "all_finite",
    // ops/both.rs, ops/create.rs
    "pow",
    "affine",
    "clamp",
    "number",
    "ones",
    "ones_like",
    "arange",
    "linspace",
    "eye",
    "tri",
    // tensor.rs
    "scalar",
    "full",
    "zeros",
    "zeros_like",
    "shape",
    "ndim",
    "numel",
    "dtype",
    "device",
    "layout",
    "is_contiguous",
    "shares_memory",
    "contiguous",
    "to_device",
    "to_vec",
    "to_vec_f64",
    "to_ndarray",
    // index.rs
    "as_slice",
    "to_tensor",
];

fn spec(o: &Operands, alibi: usize, mask: usize) -> AttentionSpec {
    let alibi = Some(Alibi { slopes: o.numbers(alibi), bf16: false });
    AttentionSpec { alibi, key_mask: Some(o.ids(mask).clone()), ..AttentionSpec::causal(2.0) }
}

/// Queries that end one past the last key.
fn late(o: &Operands) -> AttentionSpec {
    AttentionSpec { query_start: 2, ..AttentionSpec::causal(o.t(0).dim(0) as f64) }
}

const LATE: &[&str] = &["2..6", "5 keys", "[2, 4, 4, 6]", "[2, 5, 1, 6]"];

fn pair((a, b): (Tensor, Tensor)) -> Vec<Tensor> {
    vec![a, b]
}

/// Indices of the shape of the first operand.
/// The first operand after a write.
#[track_caller]
fn written(o: &Operands, write: impl FnOnce(&mut Tensor)) -> Vec<Tensor> {
    let mut x = o.t(0).clone();
    write(&mut x);
    vec![x]
}

fn indices(o: &Operands) -> IndexTensor {
    IndexTensor::new(vec![0; o.t(0).numel()], o.t(0).shape())
}

fn as_tensor(ids: &IndexTensor) -> Vec<Tensor> {
    vec![Tensor::from_vec(ids.as_slice().iter().map(|i| *i as f32).collect(), ids.shape(), &Device::Cpu)]
}

fn methods() -> Vec<Method> {
    let step = AdamWStep { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 3 };
    let mut all = vec![
        // ---- tensor.rs: construction and views
        method("from_vec", "values: r", |o| vec![Tensor::from_vec(o.t(0).to_vec(), o.t(0).shape(), &o.t(0).device())])
            .refuses("shape", |o| vec![Tensor::from_vec(o.t(0).to_vec(), &[4], &o.t(0).device())], &["3", "[4]"]),
        method("from_vec_f64", "values: r", |o| vec![Tensor::from_vec_f64(o.t(0).to_vec_f64(), o.t(0).shape())])
            .refuses("shape", |o| vec![Tensor::from_vec_f64(o.t(0).to_vec_f64(), &[4])], &["3", "[4]"]),
        method("from_bits", "values: r", |o| {
            vec![Tensor::from_bits(o.t(0).to_dtype(DType::F16).to_bits(), DType::F16, o.t(0).shape())]
        })
        .refuses("shape", |_| vec![Tensor::from_bits(vec![0; 3], DType::F16, &[4])], &["3", "[4]"])
        .refuses("dtype", |_| vec![Tensor::from_bits(vec![0; 3], DType::F32, &[3])], &["f32", "16 bits"]),
        method("to_bits", "self: r w", |o| {
            vec![Tensor::from_bits(o.t(0).to_dtype(DType::Bf16).to_bits(), DType::Bf16, o.t(0).shape())]
        })
        .refuses(
            "self",
            |o| {
                o.t(0).to_bits();
                Vec::new()
            },
            &["f32", "16 bits"],
        ),
        method("dim", "self: r w", |o| vec![o.t(0) + o.t(0).dim(1) as f64]).refuses(
            "axis",
            |o| vec![o.t(0) + o.t(0).dim(2) as f64],
            &["axis 2", "[3, 7]"],
        ),
        method("with_layout", "self: r w", |o| vec![o.t(0).with_layout(Layout::contiguous(&[7]))]).refuses(
            "layout",
            |o| vec![o.t(0).with_layout(Layout::contiguous(&[22]))],
            &["[22]", "21 elements"],
        ),
        method("reshape", "self: r w", |o| vec![o.t(0).reshape(&[o.t(0).dim(1), o.t(0).dim(0)])]).refuses(
            "shape",
            |o| vec![o.t(0).reshape(&[5, 4])],
            &["[5, 4]", "[3, 7]"],
        ),
        method("permute", "self: r w", |o| vec![o.t(0).permute(&[1, 0])])
            .refuses("axes", |o| vec![o.t(0).permute(&[1, 1])], &["[1, 1]", "[3, 7]"])
            .refuses("axes", |o| vec![o.t(0).permute(&[0])], &["[0]", "[3, 7]"]),
        method("transpose", "self: r w", |o| vec![o.t(0).transpose(0, 1)])
            .refuses("a", |o| vec![o.t(0).transpose(2, 1)], &["axis 2", "[3, 7]"])
            .refuses("b", |o| vec![o.t(0).transpose(1, 2)], &["axis 2", "[3, 7]"]),
        method("t", "self: r w", |o| vec![o.t(0).t()]).refuses("self", |o| vec![o.t(0).select(0, 0).t()], &["[7]"]),
        method("narrow", "self: r w", |o| vec![o.t(0).narrow(1, 0, 0)])
            .refuses("axis", |o| vec![o.t(0).narrow(2, 0, 1)], &["axis 2", "[3, 7]"])
            .refuses("start", |o| vec![o.t(0).narrow(1, 7, 1)], &["7..8", "[3, 7]"])
            .refuses("len", |o| vec![o.t(0).narrow(1, 2, usize::MAX)], &["2..", "[3, 7]"]),
        method("select", "self: r w", |o| vec![o.t(0).select(0, 2)])
            .refuses("axis", |o| vec![o.t(0).select(2, 0)], &["axis 2", "[3, 7]"])
            .refuses("index", |o| vec![o.t(0).select(0, 3)], &["3..4", "[3, 7]"]),
        method("unsqueeze", "self: r w", |o| vec![o.t(0).unsqueeze(2)]).refuses(
            "axis",
            |o| vec![o.t(0).unsqueeze(3)],
            &["3", "[3, 7]"],
        ),
        method("squeeze", "self: 1 w", |o| vec![o.t(0).squeeze(0)])
            .refuses("axis", |o| vec![o.t(0).squeeze(1)], &["axis 1", "[1, 7]"])
            .refuses("axis", |o| vec![o.t(0).squeeze(2)], &["axis 2", "[1, 7]"]),
        method("expand", "self: 1 w", |o| vec![o.t(0).expand(&[5, o.t(0).dim(1)])])
            .refuses("shape", |o| vec![o.t(0).expand(&[5, 8])], &["[5, 8]", "[1, 7]"])
            .refuses("shape", |o| vec![o.t(0).expand(&[7])], &["[7]", "[1, 7]"]),
        method("to_dtype", "self: r w", |o| vec![o.t(0).to_dtype(DType::F64)]),
        method("item", "self: 1", |o| vec![o.t(0) + o.t(0).item()]),
        method("view", "self: r w", |o| vec![Tensor::from(o.t(0).view().to_owned())]).refuses(
            "self",
            |o| vec![Tensor::from(o.t(0).to_dtype(DType::F64).view().to_owned())],
            &["f64 on cpu", "to_ndarray"],
        ),
        method("assign", "self: r w; src: r w", |o| {
            let mut x = o.t(0).clone();
            x.assign(|x| x.clone(), o.t(1));
            vec![x]
        })
        .fits("self", &[2, 3, 7])
        .fits("src", &[7])
        .refuses(
            "region",
            |o| {
                let mut x = o.t(0).clone();
                let other = o.t(1).clone();
                x.assign(|_| other.clone(), &other);
                vec![x]
            },
            &["view"],
        ),
        method("set_at", "self: r w; value: w", |o| {
            let mut x = o.t(0).clone();
            x.set_at(0, 1, o.t(1));
            vec![x]
        })
        .fits("self", &[4, 7])
        .fits("self", &[2, 3, 7])
        .fits("value", &[])
        .fits("value", &[1])
        .refuses("axis", |o| written(o, |x| x.set_at(2, 0, 1.0)), &["axis 2", "[3, 7]"])
        .refuses("index", |o| written(o, |x| x.set_at(0, 3, 1.0)), &["3..4", "[3, 7]"]),
        method("zero_at", "self: r w", |o| written(o, |x| x.zero_at(-1, 6)))
            .refuses("axis", |o| written(o, |x| x.zero_at(2, 0)), &["axis 2", "[3, 7]"])
            .refuses("index", |o| written(o, |x| x.zero_at(0, 3)), &["3..4", "[3, 7]"]),
        // ---- ops.rs: elementwise and reductions
        method("unary_grad", "self: r w; dy: r w", |o| vec![o.t(0).unary_grad(UnaryOp::Gelu, o.t(1).clone())]),
        method("binary", "self: r w; other: r w", |o| vec![o.t(0).binary(BinaryOp::Sub, o.t(1))])
            .fits("self", &[7])
            .fits("self", &[2, 3, 7])
            .fits("other", &[7])
            .fits("other", &[2, 3, 7]),
        method("add_assign", "self: r w; other: r w", |o| {
            let mut x = o.t(0).clone();
            x.add_assign(o.t(1));
            vec![x]
        }),
        method("into_sum", "self: r w; other: r w", |o| vec![o.t(0).clone().into_sum(o.t(1).clone())]),
        method("sum_to", "self: r w", |o| vec![o.t(0).sum_to(&[1, 1])])
            .refuses("shape", |o| vec![o.t(0).sum_to(&[2, 7])], &["[2, 7]", "[3, 7]"])
            .refuses("shape", |o| vec![o.t(0).sum_to(&[1, 3, 7])], &["[1, 3, 7]", "[3, 7]"]),
        method("max_abs_diff", "self: r w; other: r w", |o| vec![o.t(0) + o.t(0).max_abs_diff(o.t(1)).0])
            .any_dtype("self")
            .any_dtype("other")
            .any_device("self")
            .any_device("other"),
        // ---- products
        method("matmul", "self: b m i; other: b i n", |o| vec![o.t(0).matmul(o.t(1))])
            .fits("self", &[9, 10])
            .fits("self", &[2, 2, 9, 10])
            .fits("self", &[10])
            .fits("other", &[10, 11])
            .fits("other", &[10])
            .fits("other", &[2, 2, 10, 11]),
        method("matmul", "self: i; other: b i n", |o| vec![o.t(0).matmul(o.t(1))])
            .fits("self", &[9, 10])
            .fits("self", &[2, 10])
            .fits("self", &[2, 9, 10])
            .fits("other", &[10, 11])
            .fits("other", &[10])
            .fits("other", &[2, 2, 10, 11]),
        method("linear", "self: *r i; w: i n; bias: n; residual: *r n", |o| {
            vec![o.t(0).linear(o.t(1), Some(o.t(2)), Some(o.t(3)))]
        }),
        method("linear", "self: *r i; w: i n; residual: *r n", |o| vec![o.t(0).linear(o.t(1), None, Some(o.t(2)))]),
        method("linear", "self: *r i; w: i n", |o| vec![o.t(0).linear(o.t(1), None, None)]),
        // ---- rows
        method("softmax", "self: *r w", |o| vec![o.t(0).softmax()]),
        method("softmax_grad", "self: *r w; dy: *r w", |o| vec![o.t(0).softmax_grad(o.t(1))]),
        method("log_softmax", "self: *r w", |o| vec![o.t(0).log_softmax()]),
        method("log_softmax_grad", "self: *r w; dy: *r w", |o| vec![o.t(0).log_softmax_grad(o.t(1))]),
        method("center", "self: *r w", |o| vec![o.t(0).center()]),
        method("rms", "self: *r w", |o| vec![o.t(0).rms(1e-5)]),
        method("rms_grad", "self: *r w; scale: *r 1; dscale: *r 1", |o| vec![o.t(0).rms_grad(o.t(1), o.t(2))]),
        method("scale_and_shift", "self: *r w; scale: *r 1; w: w; b: w", |o| {
            vec![o.t(0).scale_and_shift(o.t(1), Some(o.t(2)), Some(o.t(3)))]
        }),
        method("scale_and_shift", "self: *r w; scale: *r 1; b: w", |o| {
            vec![o.t(0).scale_and_shift(o.t(1), None, Some(o.t(2)))]
        }),
        method("layer_norm", "self: *r w; w: w; b: w", |o| pair(o.t(0).layer_norm(1e-5, Some(o.t(1)), Some(o.t(2))))),
        method("layer_norm", "self: *r w; b: w", |o| pair(o.t(0).layer_norm(1e-5, None, Some(o.t(1))))),
        method("rms_norm", "self: *r w; w: w", |o| pair(o.t(0).rms_norm(1e-5, Some(o.t(1))))),
        method("layer_norm_grad", "self: *r w; scale: *r 1; w: w; dy: *r w", |o| {
            let (dx, affine) = o.t(0).layer_norm_grad(o.t(1), Some(o.t(2)), o.t(3), true);
            let (dw, db) = affine.expect("asked for");
            vec![dx, dw, db]
        }),
        method("rms_norm_grad", "self: *r w; scale: *r 1; w: w; dy: *r w", |o| {
            let (dx, dw) = o.t(0).rms_norm_grad(o.t(1), Some(o.t(2)), o.t(3), true);
            vec![dx, dw.expect("asked for")]
        }),
        method("rms_norm_grad", "self: *r w; scale: *r 1; dy: *r w", |o| {
            vec![o.t(0).rms_norm_grad(o.t(1), None, o.t(2), false).0]
        }),
        // ---- attention
        method("attention_scores", "self: b q h d; keys: b k g d; spec.alibi: ~h; spec.key_mask: %b k", |o| {
            vec![o.t(0).attention_scores(o.t(1), &spec(o, 2, 3))]
        })
        .refuses("spec", |o| vec![o.t(0).attention_scores(o.t(1), &late(o))], LATE),
        method(
            "attention_scores_grad",
            "self: b q h d; keys: b k g d; spec.alibi: ~h; spec.key_mask: %b k; dscores: b h q k",
            |o| pair(o.t(0).attention_scores_grad(o.t(1), &spec(o, 2, 3), o.t(4))),
        )
        .refuses("spec", |o| pair(o.t(0).attention_scores_grad(o.t(1), &late(o), o.t(4))), LATE),
        method("attention_values", "self: b h q k; values: b k g d", |o| vec![o.t(0).attention_values(o.t(1))]),
        method("attention_values_grad", "self: b h q k; values: b k g d; dz: b q h d", |o| {
            pair(o.t(0).attention_values_grad(o.t(1), o.t(2)))
        }),
        method(
            "attention",
            "self: b q h d; keys: b k g d; values: b k g d; spec.alibi: ~h; spec.key_mask: %b k",
            |o| vec![o.t(0).attention(o.t(1), o.t(2), &spec(o, 3, 4))],
        )
        .refuses("spec", |o| vec![o.t(0).attention(o.t(1), o.t(2), &late(o))], LATE),
        method(
            "attention_with_pattern",
            "self: b q h d; keys: b k g d; values: b k g d; spec.alibi: ~h; spec.key_mask: %b k",
            |o| pair(o.t(0).attention_with_pattern(o.t(1), o.t(2), &spec(o, 3, 4))),
        )
        .refuses("spec", |o| pair(o.t(0).attention_with_pattern(o.t(1), o.t(2), &late(o))), LATE),
        method(
            "attention_grad",
            "self: b q h d; keys: b k g d; values: b k g d; spec.alibi: ~h; spec.key_mask: %b k; pattern: b h q k; \
             dz: b q h d",
            |o| {
                let (dq, dk, dv) = o.t(0).attention_grad(o.t(1), o.t(2), &spec(o, 3, 4), o.t(5), o.t(6));
                vec![dq, dk, dv]
            },
        )
        .refuses("spec", |o| vec![o.t(0).attention_grad(o.t(1), o.t(2), &late(o), o.t(5), o.t(6)).0], LATE),
        method("rotary", "self: b p h d; spec.cos: 1 p e; spec.sin: 1 p e", |o| {
            vec![o.t(0).rotary(&RotarySpec { cos: o.t(1).clone(), sin: o.t(2).clone(), interleaved: false }, false)]
        }),
        method("rotary", "self: b p h d; spec.cos: b p e; spec.sin: b p e", |o| {
            vec![o.t(0).rotary(&RotarySpec { cos: o.t(1).clone(), sin: o.t(2).clone(), interleaved: true }, true)]
        }),
        // ---- indices
        method("embed", "self: v w; ids: #*i", |o| vec![o.t(0).embed(o.ids(1))]),
        method("embed_grad", "self: *i w; ids: #*i", |o| vec![o.t(0).embed_grad(o.ids(1), 8)]).refuses(
            "rows",
            |o| vec![o.t(0).embed_grad(o.ids(1), 0)],
            &["index 0", "[10]", "[10, 7]"],
        ),
        method("cross_entropy", "self: *r v; targets: #*r", |o| vec![o.t(0).cross_entropy(o.ids(1))]),
        method("cross_entropy_grad", "self: *r v; targets: #*r; drow: *r", |o| {
            vec![o.t(0).cross_entropy_grad(o.ids(1), o.t(2))]
        }),
        // ---- joining and training
        method("cat", "parts: r x w; parts: r q w", |o| vec![Tensor::cat(&[o.t(0).clone(), o.t(1).clone()], 1)])
            .refuses("axis", |o| vec![Tensor::cat(&[o.t(0).clone()], 3)], &["axis 3", "[3, 2, 7]"])
            .refuses("parts", |_| vec![Tensor::cat(&[], 0)], &["at least one"]),
        method("stack", "parts: r w; parts: r w", |o| vec![Tensor::stack(&[o.t(0).clone(), o.t(1).clone()], 2)])
            .refuses("axis", |o| vec![Tensor::stack(&[o.t(0).clone()], 3)], &["3", "[3, 7]"])
            .refuses("parts", |_| vec![Tensor::stack(&[], 0)], &["at least one"]),
        method("adamw", "self: r w; grad: r w; grad_scale:; m: r w; v: r w", move |o| {
            let (mut p, mut m, mut v) = (o.t(0).clone(), o.t(3).clone(), o.t(4).clone());
            p.adamw(o.t(1), o.t(2), &mut m, &mut v, &step);
            vec![p, m, v]
        })
        .any_dtype("grad_scale"),
        // ---- ops/: choices, elements by index, order, decompositions
        method("where_", "cond: r w; a: r w; b: r w", |o| vec![Tensor::where_(o.t(0), o.t(1), o.t(2))])
            .fits("cond", &[7])
            .fits("cond", &[2, 3, 7])
            .fits("a", &[7])
            .fits("a", &[2, 3, 7])
            .fits("b", &[7])
            .fits("b", &[2, 3, 7])
            .refuses("cond", |o| vec![Tensor::where_(1.0, o.t(1), o.t(2))], &["condition"]),
        method("gather", "self: r w; ids: #r x", |o| vec![o.t(0).gather(-1, o.ids(1))]).fits("self", &[4, 7]).refuses(
            "axis",
            |o| vec![o.t(0).gather(2, o.ids(1))],
            &["axis 2", "[3, 7]"],
        ),
        method("index_select", "self: r w; ids: #*i", |o| vec![o.t(0).index_select(0, o.ids(1))])
            .fits("self", &[7])
            .fits("self", &[2, 3, 7])
            .refuses("axis", |o| vec![o.t(0).index_select(2, o.ids(1))], &["axis 2", "[3, 7]"]),
        method("one_hot", "ids: #*i", |o| vec![Tensor::one_hot(o.ids(0), 4, DType::F32, &Device::Cpu)]).refuses(
            "n",
            |o| vec![Tensor::one_hot(o.ids(0), 0, DType::F32, &Device::Cpu)],
            &["index 0", "[10]"],
        ),
        method("order", "self: r w", |o| as_tensor(&o.t(0).order(1, true, Some(2))))
            .refuses("axis", |o| as_tensor(&o.t(0).order(2, true, None)), &["axis 2", "[3, 7]"])
            .refuses("k", |o| as_tensor(&o.t(0).order(1, true, Some(8))), &["0..8", "[3, 7]"]),
        method("topk", "self: r w", |o| vec![o.t(0).topk(2, 1).0]).refuses(
            "k",
            |o| vec![o.t(0).topk(8, 1).0],
            &["0..8", "[3, 7]"],
        ),
        method("largest", "self: r w", |o| as_tensor(&o.t(0).largest("argmax", 1))).refuses(
            "axis",
            |o| as_tensor(&o.t(0).largest("argmax", 2)),
            &["axis 2", "[3, 7]"],
        ),
        method("lstsq", "self: m i; b: m n", |o| vec![o.t(0).lstsq(o.t(1))]),
        method("max_all", "self: r w", |o| vec![o.t(0).max_all()]),
        method("min_all", "self: r w", |o| vec![o.t(0).min_all()]),
        // ---- index.rs
        method("select", "self: r w", |o| as_tensor(&indices(o).select(0, 2)))
            .refuses("axis", |o| as_tensor(&indices(o).select(2, 0)), &["axis 2", "[3, 7]"])
            .refuses("index", |o| as_tensor(&indices(o).select(0, 3)), &["3..4", "[3, 7]"]),
        method("narrow", "self: r w", |o| as_tensor(&indices(o).narrow(-1, 0, 2)))
            .refuses("axis", |o| as_tensor(&indices(o).narrow(-3, 0, 1)), &["axis -3", "[3, 7]"])
            .refuses("len", |o| as_tensor(&indices(o).narrow(1, 2, usize::MAX)), &["2..", "[3, 7]"]),
        method("index_select", "self: r w", |o| as_tensor(&indices(o).index_select(1, &IndexTensor::from([0]))))
            .refuses("axis", |o| as_tensor(&indices(o).index_select(2, &IndexTensor::from([0]))), &["axis 2", "[3, 7]"])
            .refuses(
                "ids",
                |o| as_tensor(&indices(o).index_select(1, &IndexTensor::from([7]))),
                &["index 7", "[3, 7]"],
            ),
        method("reshape", "self: r w", |o| as_tensor(&indices(o).reshape(&[o.t(0).numel()]))).refuses(
            "shape",
            |o| as_tensor(&indices(o).reshape(&[5, 4])),
            &["[5, 4]", "[3, 7]"],
        ),
        method("permute", "self: r w", |o| as_tensor(&indices(o).permute(&[1, 0]))).refuses(
            "axes",
            |o| as_tensor(&indices(o).permute(&[0])),
            &["[0]", "[3, 7]"],
        ),
        method("cat", "self: r w", |o| as_tensor(&IndexTensor::cat(&[indices(o), indices(o)], -1)))
            .refuses("axis", |o| as_tensor(&IndexTensor::cat(&[indices(o)], 2)), &["axis 2", "[3, 7]"])
            .refuses(
                "parts",
                |o| as_tensor(&IndexTensor::cat(&[indices(o), indices(o).permute(&[1, 0])], 0)),
                &["[3, 7]", "[7, 3]"],
            )
            .refuses("parts", |_| as_tensor(&IndexTensor::cat(&[], 0)), &["at least one"]),
        method("stack", "self: r w", |o| as_tensor(&IndexTensor::stack(&[indices(o), indices(o)], 1)))
            .refuses("axis", |o| as_tensor(&IndexTensor::stack(&[indices(o)], 3)), &["3", "[3, 7]"])
            .refuses(
                "parts",
                |o| as_tensor(&IndexTensor::stack(&[indices(o), indices(o).permute(&[1, 0])], 0)),
                &["[3, 7]", "[7, 3]"],
            )
            .refuses("parts", |_| as_tensor(&IndexTensor::stack(&[], 0)), &["at least one"]),
        method("dim", "self: r w", |o| vec![o.t(0) + indices(o).dim(1)]).refuses(
            "axis",
            |o| vec![o.t(0) + indices(o).dim(2)],
            &["axis 2", "[3, 7]"],
        ),
        method("item", "self: 1", |o| vec![o.t(0) + indices(o).item()]).refuses(
            "self",
            |_| vec![Tensor::from([1.0]) + IndexTensor::from([0, 1]).item()],
            &["[2]"],
        ),
        method("unsqueeze", "self: r w", |o| as_tensor(&indices(o).unsqueeze(2))).refuses(
            "axis",
            |o| as_tensor(&indices(o).unsqueeze(3)),
            &["3", "[3, 7]"],
        ),
        method("new", "data: r", |o| as_tensor(&indices(o))).refuses(
            "shape",
            |_| as_tensor(&IndexTensor::new(vec![0; 3], &[4])),
            &["3", "[4]"],
        ),
        method("rows", "self: r w", |o| as_tensor(&indices(o).rows(&[2, 0])))
            .refuses("rows", |o| as_tensor(&indices(o).rows(&[3])), &["3..4", "[3, 7]"])
            .refuses("rows", |_| as_tensor(&IndexTensor::new(vec![0], &[]).rows(&[0])), &["axis 0", "[]"]),
    ];
    let (reductions, along) = methods_over_axes!(Tensor);
    for (name, reduce) in reductions {
        all.push(
            method(name, "self: r w", move |o| vec![reduce(o.t(0), &[0])])
                .refuses("axes", move |o| vec![reduce(o.t(0), &[2])], &["axis 2", "[3, 7]"])
                .refuses("axes", move |o| vec![reduce(o.t(0), &[1, 1])], &["twice", "[1, 1]", "[3, 7]"]),
        );
    }
    for (name, op) in along {
        all.push(
            method(name, "self: r w", move |o| vec![op(o.t(0), -2)])
                .refuses("axis", move |o| vec![op(o.t(0), 2)], &["axis 2", "[3, 7]"])
                .refuses("axis", move |o| vec![op(o.t(0), -3)], &["axis -3", "[3, 7]"]),
        );
    }
    type Pair = fn(&Tensor, &Tensor) -> Tensor;
    let pairs: [(&str, &str, Pair); 8] = [
        ("maximum", "other", |x, y| x.maximum(y)),
        ("minimum", "other", |x, y| x.minimum(y)),
        ("gt", "other", |x, y| x.gt(y)),
        ("ge", "other", |x, y| x.ge(y)),
        ("lt", "other", |x, y| x.lt(y)),
        ("le", "other", |x, y| x.le(y)),
        ("eq", "other", |x, y| x.eq(y)),
        ("masked_fill", "mask", |x, y| x.masked_fill(y, 2.0)),
    ];
    for (name, other, op) in pairs {
        let operands = if other == "mask" { "self: r w; mask: r w" } else { "self: r w; other: r w" };
        all.push(
            method(name, operands, move |o| vec![op(o.t(0), o.t(1))])
                .fits("self", &[7])
                .fits("self", &[2, 3, 7])
                .fits(other, &[7])
                .fits(other, &[2, 3, 7]),
        );
    }
    type Matrix = fn(&Tensor) -> Tensor;
    let matrices: [(&str, Matrix); 5] = [
        ("diagonal", |x| x.diagonal(1)),
        ("tril", |x| x.tril(1)),
        ("triu", |x| x.triu(1)),
        ("triangle", |x| x.triangle("tril", 1)),
        ("svd", |x| x.svd().1),
    ];
    for (name, op) in matrices {
        all.push(method(name, "self: r w", move |o| vec![op(o.t(0))]).refuses(
            "self",
            move |o| vec![op(&o.t(0).select(0, 0))],
            &["[7]"],
        ));
    }
    all
}

/// What takes tensors of 16 bits: views, moves, and what widens them.
const STORES: &[&str] = &[
    "from_vec",
    "from_vec_f64",
    "from_bits",
    "to_bits",
    "with_layout",
    "reshape",
    "permute",
    "transpose",
    "t",
    "narrow",
    "select",
    "unsqueeze",
    "squeeze",
    "expand",
    "to_dtype",
    "assign",
    "set_at",
    "zero_at",
    "embed",
    "gather",
    "index_select",
    "cat",
    "stack",
    "diagonal",
    "flip",
    // Of these the shape alone matters.
    "triangle",
    "new",
    "rows",
];

#[test]
fn storage_types_are_widened_or_refused() {
    try_storage(&methods(), STORES, file!());
}

#[test]
fn products_and_tables_widen_what_is_stored() {
    let x = Tensor::from([[0.5, -1.0, 2.0], [1.0, 3.0, -0.25]]);
    let w = Tensor::from([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]);
    for dtype in [DType::Bf16, DType::F16] {
        let stored = w.to_dtype(dtype);
        let wide = stored.to_dtype(DType::F32);
        assert!(wide.max_abs_diff(&w).0 > 0.0, "0.1 has no exact form of 16 bits");
        assert_eq!((stored.dtype(), stored.to_vec()), (dtype, wide.to_vec()));
        let ids = IndexTensor::from([2, 0, 2]);
        let (bias, residual) = (Tensor::from([1.0, 2.0]), Tensor::from([[3.0, 4.0], [5.0, 6.0]]));
        for (got, want) in [
            (x.matmul(&stored), x.matmul(&wide)),
            (x.linear(&stored, Some(&bias), Some(&residual)), x.linear(&wide, Some(&bias), Some(&residual))),
            (stored.embed(&ids), wide.embed(&ids)),
            (stored.embed(&IndexTensor::new(vec![], &[0])), wide.embed(&IndexTensor::new(vec![], &[0]))),
        ] {
            assert_eq!((got.dtype(), got.to_vec()), (DType::F32, want.to_vec()));
        }
        // Moves keep the bits.
        let bits = stored.to_bits();
        let again = Tensor::from_bits(bits.clone(), dtype, &[3, 2]);
        let halves = [again.narrow(1, 1, 1), again.narrow(1, 0, 1)];
        let turned = Tensor::cat(&[halves[1].clone(), halves[0].clone()], 1).t().contiguous().t();
        assert_eq!((turned.dtype(), turned.to_bits()), (dtype, bits));
        let mut written = Tensor::zeros(&[3, 2], dtype, &Device::Cpu);
        written.assign(|w| w.clone(), &stored);
        assert_eq!(written.to_bits(), stored.to_bits());
    }
}

#[test]
#[should_panic(expected = "operands are f64 on cpu and bf16 on cpu")]
fn stored_weights_are_for_f32() {
    let x = Tensor::ones(&[2, 3], DType::F64, &Device::Cpu);
    x.matmul(&Tensor::ones(&[3, 2], DType::Bf16, &Device::Cpu));
}

#[test]
fn every_wrong_operand_is_refused() {
    try_all(&methods(), file!());
}

#[test]
#[ignore = "needs an adapter"]
fn operands_on_two_devices_are_refused() {
    let gpu = Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one");
    try_devices(&methods(), &gpu, file!());
}

#[test]
fn tensors_without_elements_are_taken_or_refused() {
    try_nothing(&methods(), file!());
}

#[test]
fn no_method_escapes() {
    let both = of_both(include_str!("../src/ops/both.rs"));
    let sources = [
        &both,
        include_str!("../src/index.rs"),
        include_str!("../src/ops.rs"),
        include_str!("../src/ops/create.rs"),
        include_str!("../src/ops/index.rs"),
        include_str!("../src/ops/linalg.rs"),
        include_str!("../src/ops/order.rs"),
        include_str!("../src/tensor.rs"),
    ];
    all_are_tried(&sources, &methods(), OTHERS);
}

#[test]
fn all_ops_are_in_their_lists() {
    let source = include_str!("../src/backend.rs");
    let all = [
        ("UnaryOp", UnaryOp::ALL.iter().map(|op| format!("{op:?}")).collect::<Vec<_>>()),
        ("BinaryOp", BinaryOp::ALL.iter().map(|op| format!("{op:?}")).collect::<Vec<_>>()),
        ("ReduceOp", ReduceOp::ALL.iter().map(|op| format!("{op:?}")).collect::<Vec<_>>()),
    ];
    for (name, listed) in all {
        let (_, rest) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum is there");
        let (body, _) = rest.split_once("\n}").expect("it ends");
        let word =
            |text: &str| text.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string();
        let is_variant = |line: &&str| line.starts_with("    ") && line.as_bytes()[4].is_ascii_uppercase();
        let variants: Vec<String> = body.lines().filter(is_variant).map(word).collect();
        assert_eq!(listed.iter().map(|op| word(op)).collect::<Vec<_>>(), variants, "{name}::ALL");
    }
}

#[test]
fn ops_of_nothing_have_the_values_of_ndarray() {
    nothing_is_as_in_ndarray(&Device::Cpu);
}

#[test]
#[ignore = "needs an adapter"]
fn ops_of_nothing_have_the_values_of_ndarray_on_a_gpu() {
    nothing_is_as_in_ndarray(&Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one"));
}

fn nothing_is_as_in_ndarray(device: &Device) {
    let empty = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device);
    let full = |value: f64, shape: &[usize]| Tensor::full(shape, value, DType::F32, device);
    let same = |what: &str, ours: &Tensor, theirs: ndarray::ArrayD<f32>| {
        assert_eq!(ours.shape(), theirs.shape(), "{what}");
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(ours.to_vec()), bits(theirs.iter().copied().collect()), "{what}");
    };
    for shape in [[0, 3], [2, 0], [0, 0]] {
        let x = empty(&shape);
        let a = x.to_ndarray();
        for axis in [0, 1] {
            same("sum", &x.sum(&[axis]), a.sum_axis(ndarray::Axis(axis)));
            let mean = x.mean(&[axis]);
            assert!(mean.to_vec().iter().all(|v| v.is_nan()), "the mean of nothing is NaN, as in numpy and PyTorch");
        }
        assert_eq!((x.sum_all().item(), x.sum_squares(), x.all_finite()), (0.0, 0.0, true));
        assert!(x.mean_all().item().is_nan());
        same("a sum of two", &(&x + &empty(&[shape[0], 1])), &a + &ndarray::ArrayD::<f32>::zeros(vec![shape[0], 1]));
        same("exp", &x.exp(), a.mapv(f32::exp));
        same("turned", &x.t().contiguous(), a.t().to_owned());
        same("the end", &x.narrow(1, shape[1], 0), a.slice(ndarray::s![.., shape[1]..]).to_owned().into_dyn());
        for rows in [x.softmax(), x.log_softmax(), x.center(), x.layer_norm(1e-5, None, None).0] {
            same("rows", &rows, a.clone());
        }
    }
    // What is left of a tensor behind its last element.
    let end = full(1.0, &[2, 3]).narrow(0, 1, 1).narrow(1, 3, 0).narrow(0, 1, 0);
    same("behind the end", &end.contiguous(), ndarray::ArrayD::zeros(vec![0, 0]));
    // The largest of nothing, where nobody asks for one.
    same("max", &empty(&[0, 3]).max(&[1]), ndarray::ArrayD::zeros(vec![0]));
    assert_eq!(empty(&[0, 3]).argmax(-1).shape(), [0]);
    // Products over nothing add nothing.
    let zeros = |shape: &[usize]| ndarray::ArrayD::zeros(shape);
    same("matmul", &empty(&[2, 0]).matmul(&empty(&[0, 3])), zeros(&[2, 3]));
    same("matmul", &empty(&[4, 2, 0]).matmul(&empty(&[4, 0, 3])), zeros(&[4, 2, 3]));
    let (bias, residual) = (full(2.0, &[3]), full(0.5, &[2, 3]));
    let linear = |b, r| empty(&[2, 0]).linear(&empty(&[0, 3]), b, r);
    same("linear", &linear(None, None), zeros(&[2, 3]));
    same("linear", &linear(Some(&bias), None), zeros(&[2, 3]) + 2.0);
    same("linear", &linear(Some(&bias), Some(&residual)), zeros(&[2, 3]) + 2.5);
    // Queries that see no key, and keys that no query sees.
    let spec = AttentionSpec { causal: false, ..AttentionSpec::causal(1.0) };
    let (q, k) = (full(1.0, &[1, 2, 2, 3]), empty(&[1, 0, 1, 3]));
    let (z, pattern) = q.attention_with_pattern(&k, &k, &spec);
    same("attention", &z, zeros(&[1, 2, 2, 3]));
    same("pattern", &pattern, zeros(&[1, 2, 2, 0]));
    same("queries", &q.attention_grad(&k, &k, &spec, &pattern, &z).0, zeros(&[1, 2, 2, 3]));
    let (dp, dv) = empty(&[1, 2, 0, 2]).attention_values_grad(&full(1.0, &[1, 2, 1, 3]), &empty(&[1, 0, 2, 3]));
    same("pattern's gradient", &dp, zeros(&[1, 2, 0, 2]));
    same("values' gradient", &dv, zeros(&[1, 2, 1, 3]));
    // No row, and the weights' gradients are 0.
    let x = empty(&[0, 3]);
    let (y, scale) = x.layer_norm(1e-5, Some(&bias), None);
    let (_, affine) = x.layer_norm_grad(&scale, Some(&bias), &y, true);
    let (dw, db) = affine.expect("asked for");
    same("the weight's gradient", &dw, zeros(&[3]));
    same("the bias's gradient", &db, zeros(&[3]));
    let none = IndexTensor::new(Vec::new(), &[0]);
    same("embed", &full(1.0, &[4, 3]).embed(&none), zeros(&[0, 3]));
    same("embed_grad", &x.embed_grad(&none, 4), zeros(&[4, 3]));
    same("cross_entropy", &x.cross_entropy(&none), zeros(&[0]));
}
