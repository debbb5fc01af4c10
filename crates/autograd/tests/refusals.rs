//! Every public method of [`Var`] refuses every wrong operand, at the caller's line, and has values and
//! gradients for tensors without elements. The table is read as that of `ironlens-tensor`'s methods.

#[path = "../../tensor/tests/refusals/harness.rs"]
mod harness;

use std::cell::Cell;

use harness::{Method, Operands, all_are_tried, method, methods_over_axes, of_both, try_all, try_nothing};
use ironlens_autograd::{Sink, Tape, Var};
use ironlens_tensor::{Alibi, AttentionSpec, BinaryOp, DType, Device, RotarySpec, Tensor};

/// A variable after a write.
#[track_caller]
fn written(x: &Var, write: impl FnOnce(&mut Var)) -> Var {
    let mut x = x.clone();
    write(&mut x);
    x
}

/// Methods that take whatever they are given: of one value of any shape, or that only tell.
const OTHERS: &[&str] = &[
    // elementwise.rs, reduce.rs
    "unary",
    "into_unary",
    "sum_all",
    "mean_all",
    // ops/both.rs of ironlens-tensor
    "pow",
    "affine",
    "clamp",
    "number",
    // views.rs: a number is broadcast to any region
    // tape.rs
    "new",
    "leaf",
    "len",
    "is_empty",
    "record",
    "tap",
    "value",
    "into_value",
    "detach",
    "requires_grad",
    "shape",
    "take",
];

thread_local! {
    /// The operand that is on another tape than the rest.
    static ELSEWHERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A method of `Var`: `f` is given leaves of one tape, and the gradients of the sum of its squares are results, too.
fn var(name: &'static str, operands: &'static str, f: impl Fn(&[Var], &Operands) -> Var + Copy + 'static) -> Method {
    method(name, operands, move |o| with_gradients(o, f))
}

fn with_gradients(o: &Operands, f: impl Fn(&[Var], &Operands) -> Var) -> Vec<Tensor> {
    let tape = Tape::new();
    let on_tape = |(i, t)| if ELSEWHERE.get() == Some(i) { Tape::new().leaf(t) } else { tape.leaf(t) };
    let leaves: Vec<Var> = o.tensors().into_iter().enumerate().map(on_tape).collect();
    let y = f(&leaves, o);
    let mut grads = y.square().sum_all().backward();
    let mut all = vec![y.value().clone()];
    for leaf in &leaves {
        let grad = grads.take(leaf).expect("every operand counts");
        assert_eq!(grad.shape(), leaf.shape());
        all.push(grad);
    }
    all
}

/// What a value `[3, 7]` has for a gradient when `by` replaces it on the way.
fn replaced(_: &Operands, by: impl Fn(&Tensor) -> Tensor) -> Vec<Tensor> {
    let x = Tape::new().leaf(Tensor::zeros(&[3, 7], DType::F32, &Device::Cpu));
    let y = x.square().tap(7).sum_all();
    let replace = |_: usize, grad: &mut Tensor| {
        *grad = by(grad);
        Ok::<(), ()>(())
    };
    y.backward_with(replace).expect("nothing fails").take(&x).into_iter().collect()
}

/// The gradient of a number when the derivative of an op of one's own is `derivative`.
fn recorded(o: &Operands, derivative: impl Fn(Tensor, &mut Sink<'_>) + 'static) -> Vec<Tensor> {
    let x = Tape::new().leaf(o.t(0).clone());
    let y = Var::record(x.value().clone(), &[&x], derivative);
    y.backward().take(&x).into_iter().collect()
}

fn spec(o: &Operands, alibi: usize, mask: usize) -> AttentionSpec {
    let alibi = Some(Alibi { slopes: o.numbers(alibi), bf16: false });
    AttentionSpec { alibi, key_mask: Some(o.ids(mask).clone()), ..AttentionSpec::causal(2.0) }
}

fn late() -> AttentionSpec {
    AttentionSpec { query_start: 2, ..AttentionSpec::causal(2.0) }
}

const LATE: &[&str] = &["2..6", "5 keys", "[2, 4, 4, 6]", "[2, 5, 1, 6]"];

fn methods() -> Vec<Method> {
    let mut all = vec![
        // ---- elementwise.rs, reduce.rs
        var("binary", "self: r w; other: r w", |v, _| v[0].binary(BinaryOp::Div, &v[1]))
            .fits("self", &[7])
            .fits("self", &[2, 3, 7])
            .fits("other", &[7])
            .fits("other", &[2, 3, 7]),
        var("to_dtype", "self: r w", |v, _| v[0].to_dtype(DType::F64)),
        // ---- ops/both.rs of ironlens-tensor; masks and comparisons have no gradient, so they are added
        var("where_", "cond: r w; a: r w; b: r w", |v, _| Var::where_(&v[0], &v[1], &v[2]) + &v[0])
            .fits("cond", &[7])
            .fits("cond", &[2, 3, 7])
            .fits("a", &[7])
            .fits("a", &[2, 3, 7])
            .fits("b", &[7])
            .fits("b", &[2, 3, 7]),
        var("gather", "self: r w; ids: #r x", |v, o| v[0].gather(-1, o.ids(1))).fits("self", &[4, 7]).refuses(
            "axis",
            |o| with_gradients(o, |v, o| v[0].gather(2, o.ids(1))),
            &["axis 2", "[3, 7]"],
        ),
        var("index_select", "self: r w; ids: #*i", |v, o| v[0].index_select(0, o.ids(1)))
            .fits("self", &[7])
            .fits("self", &[2, 3, 7])
            .refuses("axis", |o| with_gradients(o, |v, o| v[0].index_select(2, o.ids(1))), &["axis 2", "[3, 7]"]),
        var("topk", "self: r w", |v, _| v[0].topk(2, 1).0).refuses(
            "k",
            |o| with_gradients(o, |v, _| v[0].topk(8, 1).0),
            &["0..8", "[3, 7]"],
        ),
        // ---- matmul.rs
        var("matmul", "self: b m i; other: b i n", |v, _| v[0].matmul(&v[1]))
            .fits("self", &[9, 10])
            .fits("self", &[2, 2, 9, 10])
            .fits("self", &[10])
            .fits("other", &[10, 11])
            .fits("other", &[10])
            .fits("other", &[2, 2, 10, 11]),
        var("matmul", "self: *b m i; other: i n", |v, _| v[0].matmul(&v[1]))
            .fits("self", &[10])
            .fits("other", &[10])
            .fits("other", &[2, 10, 11]),
        var("linear", "self: *r i; w: i n; bias: n; residual: *r n", |v, _| {
            v[0].linear(&v[1], Some(&v[2]), Some(&v[3]))
        }),
        var("linear", "self: *r i; w: i n; residual: *r n", |v, _| v[0].linear(&v[1], None, Some(&v[2]))),
        // ---- rows.rs
        var("softmax", "self: *r w", |v, _| v[0].softmax()),
        var("log_softmax", "self: *r w", |v, _| v[0].log_softmax()),
        var("center", "self: *r w", |v, _| v[0].center()),
        var("rms", "self: *r w", |v, _| v[0].rms(1e-5)),
        var("scale_and_shift", "self: *r w; scale: *r 1; w: w; b: w", |v, _| {
            v[0].scale_and_shift(&v[1], Some(&v[2]), Some(&v[3]))
        }),
        var("scale_and_shift", "self: *r w; scale: *r 1; b: w", |v, _| v[0].scale_and_shift(&v[1], None, Some(&v[2]))),
        var("layer_norm", "self: *r w; w: w; b: w", |v, _| v[0].layer_norm(1e-5, Some(&v[1]), Some(&v[2]))),
        var("layer_norm", "self: *r w; b: w", |v, _| v[0].layer_norm(1e-5, None, Some(&v[1]))),
        var("rms_norm", "self: *r w; w: w", |v, _| v[0].rms_norm(1e-5, Some(&v[1]))),
        // ---- attention.rs
        var("attention_scores", "self: b q h d; keys: b k g d; spec.alibi: ~h; spec.key_mask: %b k", |v, o| {
            v[0].attention_scores(&v[1], &spec(o, 2, 3)).softmax()
        })
        .refuses("spec", |o| with_gradients(o, |v, _| v[0].attention_scores(&v[1], &late())), LATE),
        var("attention_values", "self: b h q k; values: b k g d", |v, _| v[0].attention_values(&v[1])),
        var(
            "attention",
            "self: b q h d; keys: b k g d; values: b k g d; spec.alibi: ~h; spec.key_mask: %b k",
            |v, o| v[0].attention(&v[1], &v[2], &spec(o, 3, 4)),
        )
        .refuses("spec", |o| with_gradients(o, |v, _| v[0].attention(&v[1], &v[2], &late())), LATE),
        method("rotary", "self: b p h d; spec.cos: 1 p e; spec.sin: 1 p e", |o| {
            let (cos, sin) = (o.t(1).clone(), o.t(2).clone());
            let x = Tape::new().leaf(o.t(0).clone());
            vec![
                x.rotary(&RotarySpec { cos, sin, interleaved: false })
                    .square()
                    .sum_all()
                    .backward()
                    .take(&x)
                    .expect("used"),
            ]
        }),
        // ---- index.rs
        var("embed", "self: v w; ids: #*i", |v, o| v[0].embed(o.ids(1))),
        var("cross_entropy", "self: *r v; targets: #*r", |v, o| v[0].cross_entropy(o.ids(1))),
        // ---- views.rs
        var("dim", "self: r w", |v, _| &v[0] + v[0].dim(1) as f64).refuses(
            "axis",
            |o| with_gradients(o, |v, _| &v[0] + v[0].dim(2) as f64),
            &["axis 2", "[3, 7]"],
        ),
        var("reshape", "self: r w", |v, _| v[0].reshape(&[v[0].dim(1), v[0].dim(0)])).refuses(
            "shape",
            |o| with_gradients(o, |v, _| v[0].reshape(&[5, 4])),
            &["[5, 4]", "[3, 7]"],
        ),
        var("permute", "self: r w", |v, _| v[0].permute(&[1, 0])).refuses(
            "axes",
            |o| with_gradients(o, |v, _| v[0].permute(&[1, 1])),
            &["[1, 1]", "[3, 7]"],
        ),
        var("transpose", "self: r w", |v, _| v[0].transpose(0, 1))
            .refuses("a", |o| with_gradients(o, |v, _| v[0].transpose(2, 1)), &["axis 2", "[3, 7]"])
            .refuses("b", |o| with_gradients(o, |v, _| v[0].transpose(1, 2)), &["axis 2", "[3, 7]"]),
        var("t", "self: r w", |v, _| v[0].t()).refuses(
            "self",
            |o| with_gradients(o, |v, _| v[0].select(0, 0).t()),
            &["[7]"],
        ),
        var("narrow", "self: r w", |v, _| v[0].narrow(1, v[0].dim(1), 0))
            .refuses("axis", |o| with_gradients(o, |v, _| v[0].narrow(2, 0, 1)), &["axis 2", "[3, 7]"])
            .refuses("start", |o| with_gradients(o, |v, _| v[0].narrow(1, 7, 1)), &["7..8", "[3, 7]"])
            .refuses("len", |o| with_gradients(o, |v, _| v[0].narrow(1, 2, 6)), &["2..8", "[3, 7]"]),
        var("select", "self: r w", |v, _| v[0].select(0, 2))
            .refuses("axis", |o| with_gradients(o, |v, _| v[0].select(2, 0)), &["axis 2", "[3, 7]"])
            .refuses("index", |o| with_gradients(o, |v, _| v[0].select(0, 3)), &["3..4", "[3, 7]"]),
        var("squeeze", "self: 1 w", |v, _| v[0].squeeze(0)).refuses(
            "axis",
            |o| with_gradients(o, |v, _| v[0].squeeze(1)),
            &["axis 1", "[1, 7]"],
        ),
        var("unsqueeze", "self: r w", |v, _| v[0].unsqueeze(2)).refuses(
            "axis",
            |o| with_gradients(o, |v, _| v[0].unsqueeze(3)),
            &["3", "[3, 7]"],
        ),
        var("expand", "self: 1 w", |v, _| v[0].expand(&[5, v[0].dim(1)])).refuses(
            "shape",
            |o| with_gradients(o, |v, _| v[0].expand(&[5, 8])),
            &["[5, 8]", "[1, 7]"],
        ),
        var("cat", "parts: r x w; parts: r q w", |v, _| Var::cat(v, 1))
            .refuses("axis", |o| with_gradients(o, |v, _| Var::cat(&v[..1], 3)), &["axis 3", "[3, 2, 7]"])
            .refuses("parts", |_| vec![Var::cat(&[], 0).into_value()], &["at least one"]),
        var("stack", "parts: r w; parts: r w", |v, _| Var::stack(v, 2))
            .refuses("axis", |o| with_gradients(o, |v, _| Var::stack(&v[..1], 3)), &["3", "[3, 7]"])
            .refuses("parts", |_| vec![Var::stack(&[], 0).into_value()], &["at least one"]),
        var("assign", "self: r w; src: r w", |v, _| {
            let mut x = v[0].clone();
            x.assign(|x| x.clone(), &v[1]);
            x
        })
        .fits("self", &[2, 3, 7])
        .fits("src", &[7])
        .refuses(
            "region",
            |o| {
                with_gradients(o, |v, o| {
                    let (mut x, other) = (v[0].clone(), o.t(1).clone());
                    x.assign(move |_| other.clone(), &v[1]);
                    x
                })
            },
            &["view"],
        ),
        var("set_at", "self: r w; value: w", |v, _| {
            let mut x = v[0].clone();
            x.set_at(0, 1, &v[1]);
            x
        })
        .fits("self", &[4, 7])
        .fits("self", &[2, 3, 7])
        .fits("value", &[])
        .fits("value", &[1])
        .refuses("axis", |o| with_gradients(o, |v, _| written(&v[0], |x| x.set_at(2, 0, 1.0))), &["axis 2", "[3, 7]"])
        .refuses(
            "index",
            |o| with_gradients(o, |v, _| written(&v[0], |x| x.set_at(0, 3, 1.0))),
            &["3..4", "[3, 7]"],
        ),
        var("zero_at", "self: r w", |v, _| written(&v[0], |x| x.zero_at(1, 6)))
            .refuses("axis", |o| with_gradients(o, |v, _| written(&v[0], |x| x.zero_at(2, 0))), &["axis 2", "[3, 7]"])
            .refuses("index", |o| with_gradients(o, |v, _| written(&v[0], |x| x.zero_at(0, 3))), &["3..4", "[3, 7]"]),
        // ---- tape.rs
        method("item", "self: 1", |o| vec![o.t(0) + Var::from(o.t(0).clone()).item()]),
        method("backward", "self: 1", |o| {
            let x = Tape::new().leaf(o.t(0).clone());
            vec![x.backward().take(&x).expect("used")]
        }),
        method("backward_with", "self: 1", |o| {
            let x = Tape::new().leaf(o.t(0).clone()).tap(7);
            drop(x.backward_with(|_, _| Err(())));
            Vec::new()
        })
        .refuses("observe", |o| replaced(o, |grad| grad.unsqueeze(0)), &["[1, 3, 7]", "[3, 7]"])
        .refuses("observe", |o| replaced(o, |grad| grad.to_dtype(DType::F64)), &["f32 on cpu", "f64 on cpu"]),
        method("wants", "self: 1", |o| recorded(o, |dy, sink| assert!(sink.wants(0) && dy.numel() == 1))).refuses(
            "i",
            |o| recorded(o, |_, sink| _ = sink.wants(1)),
            &["1 parents", "no parent 1"],
        ),
        method("add", "self: 1", |o| recorded(o, |dy, sink| sink.add(0, dy)))
            .refuses("i", |o| recorded(o, |dy, sink| sink.add(1, dy)), &["1 parents", "no parent 1"])
            .refuses("grad", |o| recorded(o, |dy, sink| sink.add(0, dy.unsqueeze(0))), &["[1]", "[1, 1]"])
            .refuses("grad", |o| recorded(o, |dy, sink| sink.add(0, dy.to_dtype(DType::F64))), &["in f32", "in f64"]),
        method("add_with", "self: 1", |o| recorded(o, |dy, sink| sink.add_with(0, || dy)))
            .refuses("i", |o| recorded(o, |dy, sink| sink.add_with(1, || dy)), &["1 parents", "no parent 1"])
            .refuses("grad", |o| recorded(o, |dy, sink| sink.add_with(0, || dy.unsqueeze(0))), &["[1]", "[1, 1]"]),
    ];
    all.push(var("max_all", "self: r w", |v, _| v[0].max_all()));
    all.push(var("min_all", "self: r w", |v, _| v[0].min_all()));
    let (reductions, along) = methods_over_axes!(Var);
    for (name, reduce) in reductions {
        all.push(
            var(name, "self: r w", move |v, _| reduce(&v[0], &[0]))
                .refuses("axes", move |o| with_gradients(o, |v, _| reduce(&v[0], &[2])), &["axis 2", "[3, 7]"])
                .refuses("axes", move |o| with_gradients(o, |v, _| reduce(&v[0], &[1, 1])), &["twice", "[3, 7]"]),
        );
    }
    for (name, op) in along {
        all.push(
            var(name, "self: r w", move |v, _| op(&v[0], -2))
                .refuses("axis", move |o| with_gradients(o, |v, _| op(&v[0], 2)), &["axis 2", "[3, 7]"])
                .refuses("axis", move |o| with_gradients(o, |v, _| op(&v[0], -3)), &["axis -3", "[3, 7]"]),
        );
    }
    type Pair = fn(&Var, &Var) -> Var;
    let pairs: [(&str, &str, Pair); 8] = [
        ("maximum", "other", |x, y| x.maximum(y)),
        ("minimum", "other", |x, y| x.minimum(y)),
        ("gt", "other", |x, y| x.gt(y) + (x + y)),
        ("ge", "other", |x, y| x.ge(y) + (x + y)),
        ("lt", "other", |x, y| x.lt(y) + (x + y)),
        ("le", "other", |x, y| x.le(y) + (x + y)),
        ("eq", "other", |x, y| x.eq(y) + (x + y)),
        ("masked_fill", "mask", |x, y| x.masked_fill(y, 2.0) + y),
    ];
    for (name, other, op) in pairs {
        let operands = if other == "mask" { "self: r w; mask: r w" } else { "self: r w; other: r w" };
        all.push(
            var(name, operands, move |v, _| op(&v[0], &v[1]))
                .fits("self", &[7])
                .fits("self", &[2, 3, 7])
                .fits(other, &[7])
                .fits(other, &[2, 3, 7]),
        );
    }
    type Matrix = fn(&Var) -> Var;
    let matrices: [(&str, Matrix); 3] =
        [("diagonal", |x| x.diagonal(1)), ("tril", |x| x.tril(1)), ("triu", |x| x.triu(1))];
    for (name, op) in matrices {
        all.push(var(name, "self: r w", move |v, _| op(&v[0])).refuses(
            "self",
            move |o| with_gradients(o, |v, _| op(&v[0].select(0, 0))),
            &["[7]"],
        ));
    }
    all
}

#[test]
fn every_wrong_operand_is_refused() {
    try_all(&methods(), file!());
}

/// A weight of 16 bits has no gradient, and lets that of the input through.
#[test]
fn stored_weights_are_constants() {
    let [x, w] = [Tensor::from([[0.5, -1.0], [2.0, 0.1]]), Tensor::from([[0.1, 0.2], [0.3, 0.4]])];
    let stored = w.to_dtype(DType::Bf16);
    let gradient = |w: Tensor| {
        let (x, w) = (Tape::new().leaf(x.clone()), Var::from(w));
        (x.linear(&w, None, None).square().sum_all() + x.matmul(&w).sum_all())
            .backward()
            .take(&x)
            .expect("used")
            .to_vec()
    };
    assert_eq!(gradient(stored.clone()), gradient(stored.to_dtype(DType::F32)));
    let leaf = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(Tape::new().leaf(stored))));
    let text = *leaf.expect_err("it has no gradient").downcast::<String>().expect("a formatted message");
    assert!(text.contains("bf16") && text.contains("storage type") && text.contains("[2, 2]"), "{text}");
}

#[test]
fn operands_on_two_tapes_are_refused() {
    // The tensors of a rotation are no operands that have gradients.
    for m in methods().iter().filter(|m| m.name() != "rotary" && m.tensors() > 1) {
        for i in 0..m.tensors() {
            ELSEWHERE.set(Some(i));
            let refused = m.refused(file!(), &["two different tapes", "detach"]);
            ELSEWHERE.set(None);
            assert!(refused, "{} with operand {i} on another tape", m.name());
        }
    }
}

#[test]
fn values_and_gradients_of_tensors_without_elements() {
    try_nothing(&methods(), file!());
}

#[test]
fn no_method_escapes() {
    let both = of_both(include_str!("../../tensor/src/ops/both.rs"));
    let sources = [
        &both,
        include_str!("../src/attention.rs"),
        include_str!("../src/elementwise.rs"),
        include_str!("../src/index.rs"),
        include_str!("../src/matmul.rs"),
        include_str!("../src/reduce.rs"),
        include_str!("../src/rows.rs"),
        include_str!("../src/tape.rs"),
        include_str!("../src/views.rs"),
    ];
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).expect("the crate has a src").count();
    assert_eq!(files, sources.len() - 1 + ["check.rs", "lib.rs"].len(), "a file of src/ is not looked at here");
    all_are_tried(&sources, &methods(), OTHERS);
}
