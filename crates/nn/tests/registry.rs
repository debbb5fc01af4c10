//! Modules alone, without a transformer: names, parameters that are stored together, hook points.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ironlens_autograd::{Tape, Var};
use ironlens_nn::{
    Ctx, HookError, HookPoint, Hooks, Init, Leaves, Linear, ParamError, Params, Registry, Scope, Target, edits, nearest,
};
use ironlens_tensor::{DType, Device, Layout, Tensor};

/// Two matrices `[3, 2]` side by side in one of `[3, 4]`, and a bias.
fn packed() -> Registry {
    let mut registry = Registry::new("Toy");
    let mut scope = registry.root();
    let columns = |first| Layout::strided(vec![3, 2], vec![4, 1], first);
    scope.packed(&[3, 4], &[("W_Q", columns(0), Init::Zeros), ("W_K", columns(2), Init::Ones)]);
    scope.param("b", &[2], Init::Constant(0.5));
    registry
}

fn numbers(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::from_vec((1..=n).map(|i| i as f32).collect(), shape, &Device::Cpu)
}

fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it should be refused");
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

/// A change to a tree.
type Change = fn(&mut Scope<'_>);

#[test]
fn a_name_is_given_once() {
    let twice: [(Change, &str); 4] = [
        (|s| _ = s.param("b", &[2], Init::Zeros), "two parameters are named b"),
        (|s| _ = s.child("a", "A").param("w", &[2], Init::Zeros), "two parameters are named a.w"),
        (|s| _ = s.hook("hook_x", "batch"), "two hook points are named hook_x"),
        (|s| _ = s.child("a", "A").hook_if("hook_x", "batch", false, "off"), "two hook points are named a.hook_x"),
    ];
    for (add, told) in twice {
        let mut registry = Registry::new("Toy");
        add(&mut registry.root());
        let message = panic_of(|| add(&mut registry.root()));
        assert!(message.contains(told), "{message}");
    }
    let part = || ("w", Layout::contiguous(&[2]), Init::Zeros);
    let message = panic_of(|| _ = Registry::new("Toy").root().packed(&[2], &[part(), part()]));
    assert!(message.contains("two parameters are named w"), "{message}");
}

#[test]
fn a_packed_layout_stays_within_what_is_stored() {
    let columns = Layout::strided(vec![3, 2], vec![4, 1], 3);
    let message = panic_of(|| _ = Registry::new("Toy").root().packed(&[3, 4], &[("W_Q", columns, Init::Zeros)]));
    assert!(["W_Q", "[3, 2]", "[3, 4]"].iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn parameters_that_are_stored_together_are_known_apart() {
    let mut params = Params::initialised(packed(), 0, &Device::Cpu);
    let names: Vec<_> = params.registry().stored().map(|(names, shape)| (names.join(" "), shape.to_vec())).collect();
    assert_eq!(names, [("W_Q W_K".to_string(), vec![3, 4]), ("b".to_string(), vec![2])]);
    assert_eq!(params.count(), 14);
    assert_eq!(params.slots()[0].to_vec(), [0., 0., 1., 1.].repeat(3));

    params.set("W_Q", &numbers(&[3, 2])).unwrap();
    assert_eq!(params.slots()[0].to_vec(), [1., 2., 1., 1., 3., 4., 1., 1., 5., 6., 1., 1.]);
    assert_eq!(params.get("W_K").unwrap().to_vec(), [1.0; 6]);
    params.assign("W_K", |w| w.select(0, 1), 0.5).unwrap();
    assert_eq!(params.get("W_K").unwrap().to_vec(), [1.0, 1.0, 0.5, 0.5, 1.0, 1.0]);
    params.assign("W_K", |w| w.clone(), 1.0).unwrap();
    let all: Vec<(&str, Vec<usize>)> = params.iter().map(|(name, value)| (name, value.shape().to_vec())).collect();
    assert_eq!(all, [("W_Q", vec![3, 2]), ("W_K", vec![3, 2]), ("b", vec![2])]);

    // A gradient or moment laid out as what is stored, by names, and back; also one that is a view of more.
    let moment = numbers(&[2, 3, 4]).select(0, 1);
    let parts = params.split_slot(0, &moment);
    assert_eq!((parts[0].0, parts[0].1.to_vec()), ("W_Q", vec![13., 14., 17., 18., 21., 22.]));
    assert_eq!((parts[1].0, parts[1].1.to_vec()), ("W_K", vec![15., 16., 19., 20., 23., 24.]));
    let mut slots = vec![Tensor::zeros(&[3, 4], DType::F32, &Device::Cpu), numbers(&[2])];
    for (name, part) in parts {
        params.set_in_slots(&mut slots, name, &part).unwrap();
    }
    assert_eq!(slots[0].to_vec(), moment.to_vec());

    for refused in [
        params.set("W_Q", &numbers(&[2, 3])).unwrap_err(),
        params.set_in_slots(&mut slots, "W_Q", &numbers(&[6])).unwrap_err(),
        params.assign("W_Q", |w| w.select(0, 0), numbers(&[3])).unwrap_err(),
    ] {
        assert!(matches!(&refused, ParamError::Shape { name, .. } if name == "W_Q"), "{refused}");
    }
    let unknown = params.get("W_V").unwrap_err();
    assert!(matches!(&unknown, ParamError::Unknown { nearest, .. } if nearest.contains(&"W_Q".into())), "{unknown}");
}

#[test]
fn the_smallest_number_of_leaves_is_recorded() {
    let mut params = Params::zeros(packed(), &Device::Cpu);
    let leaves = |params: &Params, leaves: Leaves<'_>| {
        let mut hooks = Hooks::new();
        let ctx = Ctx::record_by(params, &Tape::new(), &leaves, &mut hooks).unwrap();
        ctx.weights().iter().map(Var::requires_grad).collect::<Vec<_>>()
    };
    assert_eq!(leaves(&params, Leaves::All), [true, true]);
    assert_eq!(leaves(&params, Leaves::None), [false, false]);
    assert_eq!(leaves(&params, (|name: &str| name == "W_K").into()), [true, false]);
    assert_eq!(params.freeze(|name| name.starts_with('W')), 2);
    assert_eq!(params.frozen().collect::<Vec<_>>(), ["W_K", "W_Q"]);
    assert_eq!(leaves(&params, Leaves::All), [false, true]);
    assert_eq!(leaves(&params, (|_: &str| true).into()), [false, true]);
    params.unfreeze(|name| name == "W_Q");
    assert_eq!(leaves(&params, Leaves::All), [true, true], "a part of what is stored is trained");
}

/// A tree of one parameter with a hook point that fires or does not.
fn switched(on: bool) -> (Registry, HookPoint) {
    let mut registry = Registry::new("Toy");
    let mut scope = registry.root();
    scope.param("W", &[2], Init::Ones);
    let hook = scope.hook_if("hook_x", "batch", on, "switch it on");
    (registry, hook)
}

#[test]
fn a_hook_is_switched_on_and_weights_stay() {
    let (registry, _) = switched(false);
    let mut params = Params::initialised(registry, 0, &Device::Cpu);
    params.set("W", &numbers(&[2])).unwrap();
    params.freeze(|_| true);
    let mut hooks = Hooks::new().fwd("hook_x", |_, _| ());
    let off = Ctx::evaluate(&params, &mut hooks).expect_err("it does not fire");
    assert!(matches!(&off, HookError::Off { why, .. } if why == "switch it on"), "{off}");

    let (registry, hook) = switched(true);
    let params = params.with_registry(registry);
    assert_eq!(params.get("W").unwrap().to_vec(), [1.0, 2.0]);
    assert!(params.is_frozen("W"));
    let mut seen = 0;
    let mut hooks = Hooks::new().fwd("hook_x", |_, _| seen += 1);
    let mut ctx = Ctx::evaluate(&params, &mut hooks).unwrap();
    let x = hook.apply(&mut ctx, numbers(&[3]).into()).unwrap();
    assert_eq!((hook.name(&ctx), hook.is_live(&ctx), x.value().to_vec()), ("hook_x", true, vec![1.0, 2.0, 3.0]));
    drop(hooks);
    assert_eq!(seen, 1);

    let message = panic_of(|| _ = params.with_registry(packed()));
    assert!(message.contains("W_Q") && message.contains("other parameters"), "{message}");
}

/// A model of one layer: `x @ W + b`, and a hook point after it.
fn layer() -> (Params, Linear, HookPoint) {
    let mut registry = Registry::new("Toy");
    let mut scope = registry.root();
    let linear = Linear::new(&mut scope.child("layer", "Linear"), 2, 3, 0.1);
    let hook = scope.hook("hook_out", "batch unit");
    (Params::initialised(registry, 1, &Device::Cpu), linear, hook)
}

#[test]
fn backward_hooks_see_and_replace_gradients_and_their_errors_are_told() {
    let (params, linear, hook) = layer();
    let gradients = |hooks: &mut Hooks<'_>| {
        let tape = Tape::new();
        let mut ctx = Ctx::record(&params, &tape, hooks)?;
        let y = linear.forward(&ctx, &numbers(&[1, 2]).into());
        let y = hook.apply(&mut ctx, y)?;
        let found = ctx.backward(&y.sum_all())?;
        Ok::<_, HookError>(found.iter().map(|grad| grad.as_ref().unwrap().to_vec()).collect::<Vec<_>>())
    };
    assert_eq!(gradients(&mut Hooks::new()).unwrap()[1], [1.0, 1.0, 1.0]);
    // Where nothing goes backward, it is told that they would not run.
    let mut unheard = Hooks::new().fwd("hook_out", |_, _| ()).bwd(["hook_out"], |_, _| ());
    let refused = Ctx::evaluate(&params, &mut unheard).unwrap_err().to_string();
    assert!(refused.contains(r#"["hook_out"]"#) && refused.contains("`gradients`"), "{refused}");
    let mut doubled = Hooks::new().bwd("hook_out", |grad, _| *grad = grad.affine(2.0, 0.0));
    assert_eq!(gradients(&mut doubled).unwrap()[1], [2.0, 2.0, 2.0]);

    let mut failing = Hooks::new().bwd("hook_out", |_, _| Err("no".into()));
    let failed = gradients(&mut failing).unwrap_err();
    assert!(matches!(&failed, HookError::Failed { name, .. } if name == "hook_out"), "{failed}");
    for (direction, mut changing) in [
        ("gradient", Hooks::new().bwd("hook_out", |grad, _| *grad = grad.unsqueeze(0))),
        ("gradient", Hooks::new().bwd("hook_out", |grad, _| *grad = grad.to_dtype(DType::F64))),
        ("value", Hooks::new().fwd("hook_out", |x, _| *x = x.unsqueeze(0))),
        ("value", Hooks::new().fwd("hook_out", |x, _| *x = x.to_dtype(DType::F64))),
    ] {
        let changed = gradients(&mut changing).unwrap_err();
        assert!(matches!(&changed, HookError::Changed { what, .. } if *what == direction), "{changed}");
    }
}

#[test]
fn a_hook_is_told_where_it_is() {
    let mut registry = Registry::new("Toy");
    let mut scope = registry.root();
    let points = {
        let mut blocks = scope.child("blocks", "ModuleList");
        let mut block = blocks.child("3", "Block");
        [block.hook("hook_z", "batch pos head d_head"), block.hook("hook_pattern", "batch head query_pos key_pos")]
    };
    let points = [points[0], points[1], scope.hook("hook_embed", "batch d_model")];
    let params = Params::zeros(registry, &Device::Cpu);
    let mut told = Vec::new();
    let mut hooks = Hooks::new().fwd_where(
        |_| true,
        |_, info| {
            told.push((info.name.to_string(), info.layer(), info.axis("head"), info.pos_axis()));
        },
    );
    assert!(!hooks.has_backward() && !hooks.is_empty() && Hooks::new().is_empty());
    let mut ctx = Ctx::evaluate(&params, &mut hooks).unwrap();
    for point in points {
        point.apply(&mut ctx, numbers(&[2]).into()).unwrap();
    }
    drop(hooks);
    let name = String::from;
    let right = [
        (name("blocks.3.hook_z"), Some(3), Some(2), Some(1)),
        (name("blocks.3.hook_pattern"), Some(3), Some(1), Some(2)),
        (name("hook_embed"), None, None, None),
    ];
    assert_eq!(told, right);
    assert!(Hooks::new().bwd("hook_embed", |_, _| ()).has_backward());
}

#[test]
fn the_nearest_names_are_those_of_fewest_edits() {
    for (a, b, count) in
        [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("ab", "ba", 2), ("hook_q", "hook_q", 0)]
    {
        assert_eq!(edits(a, b), count, "{a} {b}");
    }
    assert_eq!(
        nearest("hook_r", ["xxxxxxxx", "hook_kk", "hook_q", "hook_result"].into_iter()),
        ["hook_q", "hook_kk", "hook_result"]
    );
}

#[test]
fn what_things_are_is_shown_without_their_numbers() {
    let (params, ..) = layer();
    let hooks = Hooks::new().fwd("hook_out", |_, _| ()).bwd_where(|_| true, |_, _| ());
    assert_eq!(format!("{hooks:?}"), r#"Hooks { forward: "hook_out", backward: where(..) }"#);
    assert_eq!(format!("{params:?}"), "Params: 9 numbers in 2 stored tensors, f32 on cpu");
    assert_eq!(format!("{:?}", Target::from(["a", "b"])), r#"["a", "b"]"#);
    let mut none = Hooks::new();
    let ctx = Ctx::record_by(&params, &Tape::new(), &Leaves::None, &mut none).unwrap();
    assert_eq!(format!("{ctx:?}"), "Ctx of 2 stored weights, 0 of them leaves, in f32 on cpu");
}

#[test]
fn starts_spread_as_their_formulas_say() {
    let spread = |init| match init {
        Init::Uniform(bound) => bound,
        Init::Normal(std) => std,
        _ => panic!("{init:?} draws nothing"),
    };
    let close = |init, expected: f64| assert!((spread(init) - expected).abs() < 1e-12, "{} {expected}", spread(init));
    close(Init::xavier_uniform(3, 21, 2.0), 1.0);
    close(Init::xavier_normal(3, 5, 2.0), 1.0);
    close(Init::kaiming_uniform(6, 3.0), 3.0);
    close(Init::kaiming_normal(8, 3.0), 1.5);
}
