//! Tries each public method with each operand wrong in each way, from one line per method that says how
//! the shapes of its operands depend on one another.
//!
//! Shapes are letters: `"self: r w; w: w"` is a tensor of some `[r, w]` beside one of `[w]`. A letter that
//! stands twice ties two axes together: either alone may not change. Before the letters,
//!
//! - `*` says that there may be more axes before the first, or fewer;
//! - `#` makes it an [`IndexTensor`], `%` one of flags, `~` a list of numbers; else it is a `Tensor`.

#![allow(dead_code, reason = "two tests share this, and each asks for a part")]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use ironlens_tensor::{DType, Device, IndexTensor, Tensor};

/// Lengths of axes: different, but where one must divide another.
const LENGTHS: [(char, usize); 15] = [
    ('b', 2),
    ('d', 6),
    ('e', 3),
    ('g', 1),
    ('h', 4),
    ('i', 10),
    ('k', 5),
    ('m', 9),
    ('n', 11),
    ('p', 5),
    ('q', 4),
    ('r', 3),
    ('v', 8),
    ('w', 7),
    ('x', 2),
];

/// The reductions of a type over axes, and its methods along one axis.
macro_rules! methods_over_axes {
    ($T:ty) => {{
        type Reduction = fn(&$T, &[usize]) -> $T;
        type Along = fn(&$T, i32) -> $T;
        let reductions: [(&str, Reduction); 12] = [
            ("sum", |x, axes| x.sum(axes)),
            ("sum_keepdim", |x, axes| x.sum_keepdim(axes)),
            ("mean", |x, axes| x.mean(axes)),
            ("mean_keepdim", |x, axes| x.mean_keepdim(axes)),
            ("max", |x, axes| x.max(axes)),
            ("max_keepdim", |x, axes| x.max_keepdim(axes)),
            ("min", |x, axes| x.min(axes)),
            ("min_keepdim", |x, axes| x.min_keepdim(axes)),
            ("var", |x, axes| x.var(axes)),
            ("std", |x, axes| x.std(axes)),
            ("vector_norm", |x, axes| x.vector_norm(axes)),
            ("logsumexp", |x, axes| x.logsumexp(axes)),
        ];
        let along: [(&str, Along); 7] = [
            ("flip", |x, axis| x.flip(axis)),
            ("sort", |x, axis| x.sort(axis, true).0),
            ("topk", |x, axis| x.topk(1, axis).0),
            ("argsort", |x, axis| x + x.argsort(axis, false).numel()),
            ("argmax", |x, axis| x + x.argmax(axis).numel()),
            ("argmin", |x, axis| x + x.argmin(axis).numel()),
            ("cumsum", |x, axis| x.cumsum(axis)),
        ];
        (reductions, along)
    }};
}
pub(crate) use methods_over_axes;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tensor,
    Ids,
    Flags,
    Numbers,
}

/// An operand: the parameter that takes it, and its axes.
struct Operand {
    parameter: &'static str,
    kind: Kind,
    /// Axes may come before the first, or the first go.
    open: bool,
    /// A letter, or a length that is always the same.
    axes: Vec<Result<char, usize>>,
}

enum Value {
    Tensor(Tensor),
    Ids(IndexTensor),
    Numbers(Vec<f64>),
}

/// The operands of one call.
pub struct Operands(Vec<Value>);

impl Operands {
    /// Operand `i`, a tensor.
    pub fn t(&self, i: usize) -> &Tensor {
        let Value::Tensor(t) = &self.0[i] else { panic!("operand {i} is no tensor") };
        t
    }

    /// Operand `i`, indices or flags.
    pub fn ids(&self, i: usize) -> &IndexTensor {
        let Value::Ids(ids) = &self.0[i] else { panic!("operand {i} is no index tensor") };
        ids
    }

    /// Operand `i`, numbers.
    pub fn numbers(&self, i: usize) -> Vec<f64> {
        let Value::Numbers(numbers) = &self.0[i] else { panic!("operand {i} is no list of numbers") };
        numbers.clone()
    }

    /// All tensors.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.0.iter().filter_map(|v| if let Value::Tensor(t) = v { Some(t.clone()) } else { None }).collect()
    }
}

type Run = Box<dyn Fn(&Operands) -> Vec<Tensor>>;

/// A value of a parameter that must be refused.
struct Refusal {
    parameter: &'static str,
    run: Run,
    words: &'static [&'static str],
}

/// A method, good operands of it, and what else fits.
pub struct Method {
    name: &'static str,
    operands: Vec<Operand>,
    run: Run,
    fits: Vec<(&'static str, &'static [usize])>,
    any_dtype: Vec<&'static str>,
    any_device: Vec<&'static str>,
    refusals: Vec<Refusal>,
}

/// `run` calls `name` with the operands that `operands` describes.
pub fn method(name: &'static str, operands: &'static str, run: impl Fn(&Operands) -> Vec<Tensor> + 'static) -> Method {
    let operands = operands.split(';').map(|text| {
        let (parameter, axes) = text.split_once(':').expect("an operand is `parameter: axes`");
        let marks = axes.trim_start();
        let kind = match marks.chars().next() {
            Some('#') => Kind::Ids,
            Some('%') => Kind::Flags,
            Some('~') => Kind::Numbers,
            _ => Kind::Tensor,
        };
        let letters = axes.replace(['#', '%', '~', '*'], " ");
        let axis = |a: &str| a.parse().map_or_else(|_| Ok(a.chars().next().expect("a letter")), Err);
        let axes_ = letters.split_whitespace().map(axis).collect();
        Operand { parameter: parameter.trim(), kind, open: axes.contains('*'), axes: axes_ }
    });
    let (fits, any_dtype, any_device, refusals) = Default::default();
    Method { name, operands: operands.collect(), run: Box::new(run), fits, any_dtype, any_device, refusals }
}

impl Method {
    /// A shape that `parameter` may have beside the others' own.
    pub fn fits(mut self, parameter: &'static str, shape: &'static [usize]) -> Method {
        self.fits.push((parameter, shape));
        self
    }

    /// `parameter` may be of another type than the rest.
    pub fn any_dtype(mut self, parameter: &'static str) -> Method {
        self.any_dtype.push(parameter);
        self
    }

    /// `parameter` may be on another device than the rest.
    pub fn any_device(mut self, parameter: &'static str) -> Method {
        self.any_device.push(parameter);
        self
    }

    /// `run` gives `parameter` a value that is refused in a message with these words.
    pub fn refuses(
        mut self,
        parameter: &'static str,
        run: impl Fn(&Operands) -> Vec<Tensor> + 'static,
        words: &'static [&'static str],
    ) -> Method {
        self.refusals.push(Refusal { parameter, run: Box::new(run), words });
        self
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many of its operands are tensors.
    pub fn tensors(&self) -> usize {
        self.operands.iter().filter(|o| o.kind == Kind::Tensor).count()
    }

    /// Whether good operands are refused in `file`, in a message with `words`.
    pub fn refused(&self, file: &str, words: &[&str]) -> bool {
        match end_of(&self.run, &self.values(&self.shapes(None))) {
            End::Fine => false,
            End::Refused(text, at) => at == file && words.iter().all(|w| text.contains(w)),
        }
    }

    fn shapes(&self, nothing: Option<char>) -> Vec<Vec<usize>> {
        let length = |letter: char| match LENGTHS.iter().find(|(l, _)| *l == letter) {
            _ if nothing == Some(letter) => 0,
            Some((_, length)) => *length,
            None => panic!("{}: no axis is called {letter}", self.name),
        };
        let axis = |a: &Result<char, usize>| a.map_or_else(|n| n, length);
        self.operands.iter().map(|o| o.axes.iter().map(axis).collect()).collect()
    }

    fn values(&self, shapes: &[Vec<usize>]) -> Operands {
        let value = |(o, shape): (&Operand, &Vec<usize>)| {
            let n = shape.iter().product::<usize>();
            match o.kind {
                Kind::Tensor => {
                    let values = (0..n).map(|i| (i * 7 % 11) as f32 / 11.0 + 0.5).collect();
                    Value::Tensor(Tensor::from_vec(values, shape, &Device::Cpu))
                }
                Kind::Ids => Value::Ids(IndexTensor::new(vec![0; n], shape)),
                Kind::Flags => Value::Ids(IndexTensor::new(vec![1; n], shape)),
                Kind::Numbers => Value::Numbers(vec![0.5; n]),
            }
        };
        Operands(self.operands.iter().zip(shapes).map(value).collect())
    }

    /// Other shapes of operand `i`, each with whether it fits the rest.
    fn other_shapes(&self, i: usize) -> Vec<(Vec<usize>, bool)> {
        let (operand, shape) = (&self.operands[i], &self.shapes(None)[i]);
        let tied = |a: &Result<char, usize>| match a {
            Ok(_) => self.operands.iter().flat_map(|o| &o.axes).filter(|b| *b == a).count() > 1,
            Err(_) => true,
        };
        let mut all = Vec::new();
        for (at, axis) in operand.axes.iter().enumerate() {
            let mut longer = shape.clone();
            longer[at] += 1;
            all.push((longer, !tied(axis)));
        }
        let open = operand.open && operand.axes.first().is_some_and(|a| !tied(a));
        // A method of one tensor alone has what it needs of it in its own checks.
        if operand.kind != Kind::Numbers && (operand.open || self.operands.len() > 1) {
            all.push(([&[2], &shape[..]].concat(), open));
            if !shape.is_empty() {
                all.push((shape[1..].to_vec(), open));
            }
            if operand.open && operand.kind == Kind::Tensor {
                all.push((Vec::new(), false));
            }
        }
        for (shape, fits) in &mut all {
            *fits |= self.fits.iter().any(|(p, s)| *p == operand.parameter && s == shape);
        }
        all
    }
}

/// How a call ended.
#[derive(Debug)]
enum End {
    Fine,
    /// With a panic: its text, and the file that it was reported at.
    Refused(String, String),
}

thread_local! {
    static LAST: RefCell<Option<Option<(String, String)>>> = const { RefCell::new(None) };
}

/// Calls a method and reads its results to the end.
fn end_of(run: &Run, operands: &Operands) -> End {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let watched = LAST.with_borrow_mut(|last| {
                let payload = info.payload();
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default();
                let file = info.location().map(|l| l.file().to_string()).unwrap_or_default();
                last.as_mut().map(|last| *last = Some((text, file))).is_some()
            });
            if !watched {
                usual(info);
            }
        }));
    });
    LAST.set(Some(None));
    let done = catch_unwind(AssertUnwindSafe(|| run(operands).iter().for_each(|t| drop(t.to_vec_f64()))));
    let last = LAST.take().flatten();
    match (done, last) {
        (Ok(()), _) => End::Fine,
        (Err(_), Some((text, file))) => End::Refused(text, file),
        (Err(_), None) => End::Refused("a panic of another thread".into(), String::new()),
    }
}

/// Tries all of `methods`; `file` is the one whose lines call them.
pub fn try_all(methods: &[Method], file: &str) {
    let mut faults = Vec::new();
    for m in methods {
        let mut expect = |what: String, end: End, refusal: Option<Vec<String>>| match (&refusal, &end) {
            (None, End::Fine) => {}
            (Some(words), End::Refused(text, at)) if at == file && words.iter().all(|w| text.contains(w)) => {}
            _ => faults.push(format!("{} {what}: {end:?}, expected {refusal:?}", m.name)),
        };
        let good = m.shapes(None);
        expect("as it should be".into(), end_of(&m.run, &m.values(&good)), None);
        let tensors = m.operands.iter().filter(|o| o.kind != Kind::Numbers).count();
        for (i, o) in m.operands.iter().enumerate() {
            for (shape, fits) in m.other_shapes(i) {
                let mut shapes = good.clone();
                shapes[i] = shape.clone();
                let end = end_of(&m.run, &m.values(&shapes));
                let what = format!("with {} of {shape:?}", o.parameter);
                // The shape that is wrong, and that of another operand.
                let mut words = vec![format!("{shape:?}")];
                if let End::Refused(text, _) = &end
                    && tensors > 1
                    && !shape.is_empty()
                    && !shapes.iter().enumerate().any(|(j, s)| j != i && text.contains(&format!("{s:?}")))
                {
                    words.push("the shape of another operand".into());
                }
                expect(what, end, (!fits).then_some(words));
            }
            if o.kind == Kind::Tensor && m.tensors() > 1 {
                let mut operands = m.values(&good);
                operands.0[i] = Value::Tensor(operands.t(i).to_dtype(DType::F64));
                let fits = m.any_dtype.contains(&o.parameter);
                let words = || vec!["f32 on cpu".to_string(), "f64 on cpu".to_string()];
                expect(format!("with {} in f64", o.parameter), end_of(&m.run, &operands), (!fits).then(words));
            }
            if o.kind == Kind::Ids {
                let mut operands = m.values(&good);
                let mut ids = operands.ids(i).as_slice().to_vec();
                *ids.last_mut().expect("not empty") = u32::MAX;
                operands.0[i] = Value::Ids(IndexTensor::new(ids, &good[i]));
                let words = vec![u32::MAX.to_string(), format!("{:?}", good[i]), format!("{:?}", good[0])];
                expect(
                    format!("with an index in {} that does not exist", o.parameter),
                    end_of(&m.run, &operands),
                    Some(words),
                );
            }
        }
        for r in &m.refusals {
            let words = r.words.iter().map(|w| w.to_string()).collect();
            expect(format!("with another {}", r.parameter), end_of(&r.run, &m.values(&good)), Some(words));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Tries all of `methods` with each axis of length 0 in turn: a result, or a refusal at the caller's line.
pub fn try_nothing(methods: &[Method], file: &str) {
    for m in methods {
        let mut letters: Vec<char> = m.operands.iter().flat_map(|o| &o.axes).filter_map(|a| a.ok()).collect();
        letters.sort_unstable();
        letters.dedup();
        for letter in letters {
            let shapes = m.shapes(Some(letter));
            match end_of(&m.run, &m.values(&shapes)) {
                End::Fine => {}
                End::Refused(text, at) if at == file && text.contains('[') => {}
                end => panic!("{} of {shapes:?}: {end:?}", m.name),
            }
        }
    }
}

/// Tries all of `methods` with tensors of types that are only stored: those in `take` go on, the others refuse them.
pub fn try_storage(methods: &[Method], take: &[&str], file: &str) {
    let mut faults = Vec::new();
    for dtype in DType::ALL.into_iter().filter(|d| d.is_storage()) {
        for m in methods.iter().filter(|m| m.tensors() > 0) {
            let mut operands = m.values(&m.shapes(None));
            for value in &mut operands.0 {
                if let Value::Tensor(t) = value {
                    *t = t.to_dtype(dtype);
                }
            }
            match end_of(&m.run, &operands) {
                End::Fine if take.contains(&m.name) => {}
                End::Refused(text, at)
                    if !take.contains(&m.name)
                        && at == file
                        && text.contains(&format!("{dtype} "))
                        && text.contains("to_") => {}
                end => faults.push(format!("{} of {dtype}: {end:?}", m.name)),
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Tries all of `methods` with each operand on `device` alone.
pub fn try_devices(methods: &[Method], device: &Device, file: &str) {
    for m in methods {
        let tensors: Vec<usize> = (0..m.operands.len()).filter(|i| m.operands[*i].kind == Kind::Tensor).collect();
        for &i in tensors.iter().filter(|_| tensors.len() > 1) {
            let (mut operands, o) = (m.values(&m.shapes(None)), &m.operands[i]);
            operands.0[i] = Value::Tensor(operands.t(i).to_device(device));
            match end_of(&m.run, &operands) {
                End::Fine if m.any_device.contains(&o.parameter) => {}
                End::Refused(text, at) if at == file && text.contains("cpu") && text.contains("gpu") => {}
                end => panic!("{} with {} on another device: {end:?}", m.name, o.parameter),
            }
        }
    }
}

/// Each public method in `sources` is one of `methods`, with a way to be wrong for each parameter that can be,
/// or one of `others`, which take whatever they are given.
pub fn all_are_tried(sources: &[&str], methods: &[Method], others: &[&str]) {
    let mut found = Vec::new();
    for (name, parameters) in sources.iter().flat_map(|s| public_methods(s)) {
        let rows: Vec<&Method> = methods.iter().filter(|m| m.name == name).collect();
        assert!(
            rows.is_empty() == others.contains(&name.as_str()),
            "`{name}` must have a line in the table of this test, with each operand that can be wrong, or be one of \
             the methods that take whatever they are given"
        );
        let tried = |parameter: &str| {
            rows.iter().any(|m| {
                let wrong = |i: usize| m.other_shapes(i).iter().any(|(_, fits)| !fits);
                let operand = |(i, o): (usize, &Operand)| {
                    o.parameter.split('.').next() == Some(parameter) && (o.kind == Kind::Ids || wrong(i))
                };
                m.operands.iter().enumerate().any(operand) || m.refusals.iter().any(|r| r.parameter == parameter)
            })
        };
        for (parameter, ty) in parameters {
            let can_be_wrong =
                ["Tensor", "Var", "Spec", "usize", "Layout", "Axis", "Axes", "Operand"].iter().any(|t| ty.contains(t));
            assert!(
                rows.is_empty() || !can_be_wrong || tried(&parameter),
                "the line of `{name}` in the table of this test does not try a wrong `{parameter}`"
            );
        }
        found.push(name);
    }
    for name in methods.iter().map(|m| m.name).chain(others.iter().copied()) {
        assert!(found.iter().any(|f| f == name), "there is no public method `{name}`");
    }
}

/// `ops/both.rs`, whose methods stand in a macro, with these where those of other files stand.
pub fn of_both(source: &str) -> String {
    source.replace("\n            pub fn ", "\n    pub fn ")
}

/// Names of the public methods of a file, with their parameters and the types of these.
fn public_methods(source: &str) -> Vec<(String, Vec<(String, String)>)> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let method = |text: &str| {
        let name = text.split(['(', '<']).next().unwrap_or_default().to_string();
        // Parameters to the bracket that closes them, cut at the commas that are in no bracket of their own.
        let (mut depth, mut parameters) = (0, vec![String::new()]);
        for c in text[text.find('(').expect("a method has parameters")..].replace("->", "").chars() {
            depth += i32::from("([{<".contains(c)) - i32::from(")]}>".contains(c));
            match (c, depth) {
                (_, 0) => break,
                (',', 1) => parameters.push(String::new()),
                _ => parameters.last_mut().expect("there is one").push(c),
            }
        }
        let parameter = |p: &String| {
            let (name, ty) = p.trim_start_matches('(').split_once(':')?;
            Some((name.trim().trim_start_matches("mut ").to_string(), ty.trim().to_string()))
        };
        (name, parameters.iter().filter_map(parameter).collect())
    };
    source.split("\n    pub fn ").skip(1).map(method).collect()
}
