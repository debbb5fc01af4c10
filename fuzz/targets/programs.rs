//! Programs of views, writes and arithmetic, drawn by the input: values of all tensors against those of a
//! program that copies at every view, and gradients against central differences.

#![no_main]

use ironlens_autograd::Var;
use ironlens_autograd::check::gradient_error;
use ironlens_tensor::{Tensor, UnaryOp};
use libfuzzer_sys::fuzz_target;

/// Choices from bytes; 0 when they are used up.
#[derive(Clone, Copy)]
struct Choices<'b>(&'b [u8]);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % n
    }
}

/// One step of views from what a tensor's shape allows; the same for tensors, variables and copies.
#[derive(Clone)]
enum Step {
    Narrow(usize, usize, usize),
    Select(usize, usize),
    Permute(Vec<usize>),
    Unsqueeze(usize),
    Expand(Vec<usize>),
    Reshape(Vec<usize>),
}

/// A step of a tensor or of a variable, whose views have the same names.
macro_rules! stepped {
    ($step:expr, $x:expr) => {
        match $step {
            Step::Narrow(axis, start, len) => $x.narrow(*axis, *start, *len),
            Step::Select(axis, at) => $x.select(*axis, *at),
            Step::Permute(axes) => $x.permute(axes),
            Step::Unsqueeze(axis) => $x.unsqueeze(*axis),
            Step::Expand(to) => $x.expand(to),
            Step::Reshape(to) => $x.reshape(to),
        }
    };
}

impl Step {
    /// For reading: any step. For writing, views that name memory of the whole: no reshape.
    fn draw(c: &mut Choices<'_>, shape: &[usize], reading: bool) -> Step {
        let axis = c.below(shape.len().max(1));
        match c.below(if reading { 6 } else { 4 }) {
            0 if !shape.is_empty() => {
                let start = c.below(shape[axis]);
                Step::Narrow(axis, start, 1 + c.below(shape[axis] - start))
            }
            1 if !shape.is_empty() => Step::Select(axis, c.below(shape[axis])),
            2 if shape.len() < 5 => Step::Unsqueeze(c.below(shape.len() + 1)),
            4 if shape.len() < 5 && shape.iter().product::<usize>() < 40 => {
                let mut to: Vec<usize> = shape.iter().map(|&n| if n == 1 { 1 + c.below(3) } else { n }).collect();
                to.insert(0, 1 + c.below(2));
                Step::Expand(to)
            }
            5 => {
                let n = shape.iter().product::<usize>();
                let first = 1 + c.below(n);
                Step::Reshape(if n % first == 0 { vec![first, n / first] } else { vec![n] })
            }
            _ => {
                let mut axes: Vec<usize> = (0..shape.len()).collect();
                axes.rotate_left(c.below(shape.len().max(1)));
                if c.below(2) == 1 {
                    axes.reverse();
                }
                Step::Permute(axes)
            }
        }
    }

    fn of_tensor(&self, x: &Tensor) -> Tensor {
        stepped!(self, x)
    }

    fn of_var(&self, x: &Var) -> Var {
        stepped!(self, x)
    }
}

/// A value, and the same numbers in memory of their own.
struct Pair {
    var: Var,
    copy: Plain,
}

/// Numbers in row-major order.
#[derive(Clone)]
struct Plain {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Plain {
    fn of(x: &Tensor) -> Plain {
        Plain { shape: x.shape().to_vec(), data: x.to_vec_f64() }
    }

    /// Where each element of a view lies in the whole: a view of the places tells.
    fn places(&self, steps: &[Step]) -> Tensor {
        let places = Tensor::from_vec_f64((0..self.data.len()).map(|i| i as f64).collect(), &self.shape);
        steps.iter().fold(places, |x, step| step.of_tensor(&x))
    }

    fn viewed(&self, step: &Step) -> Plain {
        let places = self.places(std::slice::from_ref(step));
        Plain {
            shape: places.shape().to_vec(),
            data: places.to_vec_f64().iter().map(|&i| self.data[i as usize]).collect(),
        }
    }

    fn write(&mut self, steps: &[Step], values: &[f64]) {
        for (&place, value) in self.places(steps).to_vec_f64().iter().zip(values.iter().cycle()) {
            self.data[place as usize] = *value;
        }
    }

    fn mean(&self) -> f64 {
        self.data.iter().sum::<f64>() / self.data.len() as f64
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Plain {
        Plain { shape: self.shape.clone(), data: self.data.iter().map(|&v| f(v)).collect() }
    }
}

/// Runs the program; every value agrees with its copy.
fn run(input: &[u8], inputs: &[Var]) -> Var {
    let mut c = Choices(input);
    let mut all: Vec<Pair> = inputs.iter().map(|x| Pair { var: x.clone(), copy: Plain::of(x.value()) }).collect();
    for _ in 0..12 {
        let i = c.below(all.len());
        let shape = all[i].var.shape().to_vec();
        match c.below(6) {
            0 | 1 => {
                let step = Step::draw(&mut c, &shape, true);
                let pair = Pair { var: step.of_var(&all[i].var), copy: all[i].copy.viewed(&step) };
                all.push(pair);
            }
            2 => {
                all[i].var = all[i].var.unary(UnaryOp::Tanh);
                all[i].copy = all[i].copy.map(f64::tanh);
            }
            3 => {
                all[i].var = all[i].var.affine(0.5, 1.0);
                all[i].copy = all[i].copy.map(|v| 0.5 * v + 1.0);
            }
            kind => {
                let mut steps: Vec<Step> = Vec::new();
                let mut target = shape;
                for _ in 0..c.below(3) {
                    let step = Step::draw(&mut c, &target, false);
                    target = step
                        .of_tensor(&Tensor::from_vec_f64(vec![0.0; target.iter().product()], &target))
                        .shape()
                        .to_vec();
                    steps.push(step);
                }
                let region = {
                    let steps = steps.clone();
                    move |x: &Tensor| steps.iter().fold(x.clone(), |x, step| step.of_tensor(&x))
                };
                if kind == 4 {
                    all[i].var.assign(region, 0.25);
                    all[i].copy.write(&steps, &[0.25]);
                    continue;
                }
                // Of one shape, or one number for all: a mean, for of large sums differences round off.
                let j = c.below(all.len());
                let source = all[j].var.clone();
                let (source, values) = match source.shape() == target {
                    true => (source, all[j].copy.data.clone()),
                    false => (source.mean_all(), vec![all[j].copy.mean()]),
                };
                all[i].var.assign(region, &source);
                all[i].copy.write(&steps, &values);
            }
        }
    }
    for Pair { var, copy } in &all {
        assert_eq!(var.shape(), copy.shape);
        for (a, b) in var.value().to_vec_f64().iter().zip(&copy.data) {
            assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} is not {b}");
        }
    }
    Var::cat(&all.iter().map(|p| p.var.reshape(&[p.var.value().numel()])).collect::<Vec<_>>(), 0)
}

fuzz_target!(|input: &[u8]| {
    let mut c = Choices(input);
    let shapes: Vec<Vec<usize>> = (0..2).map(|_| (0..c.below(4)).map(|_| 1 + c.below(3)).collect()).collect();
    let inputs: Vec<Tensor> = shapes
        .iter()
        .map(|shape| {
            let n = shape.iter().product::<usize>();
            Tensor::from_vec_f64((0..n).map(|i| ((i * 37 + 11) % 29) as f64 / 15.0 - 1.0).collect(), shape)
        })
        .collect();
    let error = gradient_error(|v| run(c.0, v), &inputs);
    assert!(error < 1e-5, "relative error of a gradient {error:.2e}");
});
