//! Random graphs of views, writes and arithmetic against central differences in f64.

use ironlens_autograd::check::gradient_error;
use ironlens_autograd::{Tape, Var};
use ironlens_tensor::{DType, Device, Layout, Rng, Tensor, UnaryOp};

/// Random choices of a seed.
struct Dice(Rng);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(Rng::new(seed, 1))
    }

    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        self.0.integers(&[], 0, u32::try_from(n).expect("a small choice")).as_slice()[0] as usize
    }

    fn shape(&mut self) -> Vec<usize> {
        (0..self.below(4)).map(|_| 1 + self.below(3)).collect()
    }
}

/// A value before or after a view, to which the same steps apply.
trait Viewed: Sized {
    fn lengths(&self) -> Vec<usize>;
    fn narrowed(&self, axis: usize, start: usize, len: usize) -> Self;
    fn selected(&self, axis: usize, index: usize) -> Self;
    fn turned(&self) -> Self;
    fn lifted(&self) -> Self;
}

macro_rules! viewed {
    ($type:ty) => {
        impl Viewed for $type {
            fn lengths(&self) -> Vec<usize> {
                self.shape().to_vec()
            }
            fn narrowed(&self, axis: usize, start: usize, len: usize) -> Self {
                self.narrow(axis, start, len)
            }
            fn selected(&self, axis: usize, index: usize) -> Self {
                self.select(axis, index)
            }
            fn turned(&self) -> Self {
                self.permute(&(0..self.shape().len()).rev().collect::<Vec<_>>())
            }
            fn lifted(&self) -> Self {
                self.unsqueeze(0)
            }
        }
    };
}
viewed!(Var);
viewed!(Tensor);

/// A random view that no tensor's strides forbid.
fn view<T: Viewed>(dice: &mut Dice, x: &T) -> T {
    let shape = x.lengths();
    let axis = dice.below(shape.len().max(1));
    match dice.below(4) {
        0 if !shape.is_empty() => {
            let start = dice.below(shape[axis]);
            x.narrowed(axis, start, 1 + dice.below(shape[axis] - start))
        }
        1 if !shape.is_empty() => x.selected(axis, dice.below(shape[axis])),
        2 => x.turned(),
        _ if shape.len() < 4 => x.lifted(),
        _ => x.turned(),
    }
}

/// Something that broadcasts to `shape`, from one of `values`.
fn broadcast_to(dice: &mut Dice, values: &[Var], shape: &[usize]) -> Var {
    let x = &values[dice.below(values.len())];
    let (have, n) = (x.shape(), x.shape().len());
    if n <= shape.len() && have.iter().rev().zip(shape.iter().rev()).all(|(a, b)| a == b || *a == 1) {
        return x.clone();
    }
    match dice.below(2) {
        0 => x.sum_all(),
        _ => x.mean_all().expand(shape),
    }
}

/// A graph that depends on the seed and on shapes alone.
fn graph(seed: u64, inputs: &[Var]) -> Var {
    let mut dice = Dice::new(seed);
    let mut values = inputs.to_vec();
    for _ in 0..9 {
        let i = dice.below(values.len());
        let x = values[i].clone();
        let shape = x.shape().to_vec();
        match dice.below(11) {
            0 | 1 => values.push(view(&mut dice, &x)),
            2 if shape.len() < 4 => {
                let mut to: Vec<usize> = shape.iter().map(|&n| if n == 1 { 1 + dice.below(3) } else { n }).collect();
                to.insert(0, 1 + dice.below(2));
                values.push(x.expand(&to));
            }
            3 => values.push(x.reshape(&[x.value().numel()])),
            4 if !shape.is_empty() => values.push(x.sum(&[dice.below(shape.len())])),
            5 => values[i] = x.unary(UnaryOp::Tanh),
            6 => {
                let y = broadcast_to(&mut dice, &values, &shape);
                values.push((&x * &y).unary(UnaryOp::Tanh));
            }
            7..=9 => {
                // The region's own dice, so that it is the same whatever it is asked for.
                let at = dice.below(1 << 20) as u64;
                let steps = dice.below(3);
                let region = move |x: &Tensor| {
                    let mut dice = Dice::new(at);
                    (0..steps).fold(x.clone(), |x, _| view(&mut dice, &x))
                };
                if dice.below(3) == 0 {
                    values[i].assign(region, 0.5);
                } else {
                    let target = region(x.value()).shape().to_vec();
                    let y = broadcast_to(&mut dice, &values, &target);
                    values[i].assign(region, &y);
                }
            }
            _ => {
                let y = broadcast_to(&mut dice, &values, &shape);
                values[i] = &x + &y;
            }
        }
    }
    // All of the values, or the sum of one, whose gradient is one number expanded.
    match dice.below(3) {
        0 => values[dice.below(values.len())].sum_all(),
        _ => Var::cat(&values.iter().map(|x| x.reshape(&[x.value().numel()])).collect::<Vec<_>>(), 0),
    }
}

#[test]
fn random_graphs_of_views_and_writes() {
    for seed in 0..1500 {
        let mut dice = Dice::new(1 << 40 | seed);
        let inputs: Vec<Tensor> = (0..2)
            .map(|i| {
                let shape = dice.shape();
                Rng::new(seed, 2 + i).normal(&shape, 0.0, 1.0, &Device::Cpu).to_dtype(DType::F64)
            })
            .collect();
        let error = gradient_error(|v| graph(seed, v), &inputs);
        assert!(error < 1e-6, "seed {seed}: relative error of a gradient {error:.2e}");
    }
}

/// The gradient that comes from a sum is one number, expanded.
#[test]
fn writes_before_a_sum() {
    let tape = Tape::new();
    let leaf = tape.leaf(Tensor::from_vec_f64((0..6).map(f64::from).collect(), &[2, 3]));
    let src = tape.leaf(Tensor::from_vec_f64(vec![7.0, 8.0], &[2]));
    let mut x = leaf.square();
    x.assign(|x| x.select(1, 0), 1.0);
    x.assign(|x| x.select(1, 2), &src);
    let sum = x.sum_all();
    assert_eq!(sum.value().item(), 1.0 + 1.0 + 7.0 + 1.0 + 16.0 + 8.0);
    let mut grads = sum.backward();
    assert_eq!(grads.take(&leaf).unwrap().to_vec_f64(), [0., 2., 0., 0., 8., 0.]);
    assert_eq!(grads.take(&src).unwrap().to_vec_f64(), [1., 1.]);
}

/// Regions that are views of the value's layout alone, whatever the gradient's is.
#[test]
fn regions_by_reshape_and_by_layout() {
    let x = Rng::new(5, 0).normal(&[3, 4], 0.0, 1.0, &Device::Cpu).to_dtype(DType::F64);
    let src = Tensor::from_vec_f64(vec![2.0], &[1]);
    for turned in [false, true] {
        let error = gradient_error(
            |v| {
                let mut y = if turned { v[0].t() } else { v[0].square() };
                y.assign(|y| y.reshape(&[12]).narrow(0, 2, 5), &v[1]);
                y.assign(|y| y.with_layout(Layout::strided(vec![2, 2], vec![5, 1], y.layout().offset() + 5)), 3.0);
                // Turned again, the gradient lies column by column.
                (&y.t() * 2.0).sum_all()
            },
            &[x.clone(), src.clone()],
        );
        assert!(error < 1e-7, "{error:.2e}");
    }
}
