//! Views and writes in place: random programs against a plain evaluation, and what is refused.

mod common;

use common::panic_of;
use ironlens_tensor::{AdamWStep, DType, Device, Layout, Rng, Tensor, UnaryOp};

/// Random choices of a seed.
struct Dice(Rng);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(Rng::new(seed, 0))
    }

    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        self.0.integers(&[], 0, u32::try_from(n).expect("a small choice")).as_slice()[0] as usize
    }

    /// `0..n` in some order.
    fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// An array without strides: a shape, and elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
struct Plain<T> {
    shape: Vec<usize>,
    elements: Vec<T>,
}

impl<T: Copy> Plain<T> {
    /// The array of `shape` of which element `i` is this one's `source(i)`.
    fn rearranged(&self, shape: Vec<usize>, source: impl Fn(&[usize]) -> Vec<usize>) -> Plain<T> {
        let count: usize = shape.iter().product();
        let mut elements = Vec::with_capacity(count);
        for number in 0..count {
            let (mut left, mut index) = (number, vec![0; shape.len()]);
            for axis in (0..shape.len()).rev() {
                index[axis] = left % shape[axis];
                left /= shape[axis];
            }
            let at = source(&index).iter().zip(&self.shape).fold(0, |at, (i, n)| at * n + i);
            elements.push(self.elements[at]);
        }
        Plain { shape, elements }
    }
}

/// A view of an array.
#[derive(Clone, Debug)]
enum View {
    Narrow(usize, usize, usize),
    Select(usize, usize),
    Permute(Vec<usize>),
    Unsqueeze(usize),
    Reshape(Vec<usize>),
    Expand(Vec<usize>),
}

impl View {
    fn of(&self, x: &Tensor) -> Tensor {
        match self {
            View::Narrow(axis, start, len) => x.narrow(*axis, *start, *len),
            View::Select(axis, index) => x.select(*axis, *index),
            View::Permute(axes) => x.permute(axes),
            View::Unsqueeze(axis) => x.unsqueeze(*axis),
            View::Reshape(shape) => x.reshape(shape),
            View::Expand(shape) => x.expand(shape),
        }
    }

    fn of_plain<T: Copy>(&self, x: &Plain<T>) -> Plain<T> {
        let mut shape = x.shape.clone();
        match self {
            View::Narrow(axis, start, len) => {
                shape[*axis] = *len;
                x.rearranged(shape, |i| {
                    let mut i = i.to_vec();
                    i[*axis] += start;
                    i
                })
            }
            View::Select(axis, index) => {
                shape.remove(*axis);
                x.rearranged(shape, |i| {
                    let mut i = i.to_vec();
                    i.insert(*axis, *index);
                    i
                })
            }
            View::Permute(axes) => x.rearranged(axes.iter().map(|&a| shape[a]).collect(), |i| {
                let mut from = vec![0; i.len()];
                axes.iter().zip(i).for_each(|(&a, &i)| from[a] = i);
                from
            }),
            View::Unsqueeze(axis) => {
                shape.insert(*axis, 1);
                Plain { shape, elements: x.elements.clone() }
            }
            View::Reshape(shape) => Plain { shape: shape.clone(), elements: x.elements.clone() },
            View::Expand(to) => {
                let extra = to.len() - shape.len();
                x.rearranged(to.clone(), |i| i[extra..].iter().zip(&shape).map(|(&i, &n)| i.min(n - 1)).collect())
            }
        }
    }

    /// A random view of an array of `shape`.
    fn random(dice: &mut Dice, shape: &[usize], may_expand: bool) -> View {
        let axis = dice.below(shape.len().max(1));
        match dice.below(if may_expand { 7 } else { 5 }) {
            0 | 1 if !shape.is_empty() => {
                let start = dice.below(shape[axis] + 1);
                let most = shape[axis] - start;
                // Mostly some elements, seldom none.
                let len = if dice.below(12) == 0 { 0 } else { most.min(1 + dice.below(3)) };
                View::Narrow(axis, start, len)
            }
            2 if !shape.is_empty() && shape[axis] > 0 => View::Select(axis, dice.below(shape[axis])),
            3 => View::Permute(dice.order(shape.len())),
            4 => {
                // A factor of the first axis goes to an axis of its own, or two axes become one.
                let mut to = shape.to_vec();
                match shape {
                    [first, second, ..] if dice.below(2) == 0 => {
                        to.splice(0..2, [first * second]);
                    }
                    [first, ..] if *first > 0 => {
                        let factor = (1..=*first).filter(|f| first % f == 0).nth(dice.below(2)).unwrap_or(*first);
                        to.splice(0..1, [factor, first / factor]);
                    }
                    _ => to.push(1),
                }
                View::Reshape(to)
            }
            5 | 6 if shape.len() < 4 => {
                let mut to: Vec<usize> = shape.iter().map(|&n| if n == 1 { 1 + dice.below(3) } else { n }).collect();
                if dice.below(2) == 0 {
                    to.insert(0, 1 + dice.below(3));
                }
                View::Expand(to)
            }
            _ => View::Unsqueeze(dice.below(shape.len() + 1)),
        }
    }
}

/// A tensor and what it should be.
type Slot = (Tensor, Plain<f64>);

fn fresh(dice: &mut Dice, shape: &[usize]) -> Slot {
    let count = shape.iter().product();
    let elements: Vec<f64> = (0..count).map(|_| dice.below(100) as f64).collect();
    (Tensor::from_vec_f64(elements.clone(), shape), Plain { shape: shape.to_vec(), elements })
}

fn broadcasts(from: &[usize], to: &[usize]) -> bool {
    from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(f, t)| f == t || *f == 1)
}

/// Something that broadcasts to `shape`: one of the slots (maybe of the very memory that is written),
/// or new.
fn source(dice: &mut Dice, slots: &[Slot], shape: &[usize]) -> Slot {
    if dice.below(2) == 0 {
        let (x, plain) = &slots[dice.below(slots.len())];
        let view = View::random(dice, &plain.shape, true);
        for (x, plain) in [(view.of(x), view.of_plain(plain)), (x.clone(), plain.clone())] {
            if broadcasts(&plain.shape, shape) {
                return (x, plain);
            }
        }
    }
    let shape: Vec<usize> = shape.iter().map(|&n| if dice.below(4) == 0 { 1 } else { n }).collect();
    let skipped = dice.below(2).min(shape.len());
    fresh(dice, &shape[skipped..])
}

/// A random region of `x`, its view and the view of an array of places.
fn assign(dice: &mut Dice, slots: &mut [Slot], i: usize) {
    let shape = slots[i].1.shape.clone();
    let mut places = Plain { elements: (0..shape.iter().product()).collect(), shape };
    let mut views = Vec::new();
    for _ in 0..dice.below(4) {
        let view = View::random(dice, &places.shape, false);
        // A region is a view: a reshape must not copy. Whether it does depends on strides, and those
        // of a tensor that is made whole are not known here; such are tried by the gradients' tests.
        if !matches!(view, View::Reshape(_)) {
            places = view.of_plain(&places);
            views.push(view);
        }
    }
    let (src, src_plain) = source(dice, slots, &places.shape);
    let values = View::Expand(places.shape.clone()).of_plain(&src_plain);
    let (x, plain) = &mut slots[i];
    x.assign(|x| views.iter().fold(x.clone(), |x, view| view.of(&x)), &src);
    for (&at, &value) in places.elements.iter().zip(&values.elements) {
        plain.elements[at] = value;
    }
}

#[test]
fn random_programs_of_views_and_writes() {
    for seed in 0..4000 {
        let mut dice = Dice::new(seed);
        let mut slots: Vec<Slot> = Vec::new();
        let mut program = Vec::new();
        for _ in 0..14 {
            let what = if slots.is_empty() { 0 } else { dice.below(16) };
            program.push(what);
            let i = dice.below(slots.len().max(1));
            match what {
                0 => {
                    let shape: Vec<usize> = (0..dice.below(4)).map(|_| 1 + dice.below(4)).collect();
                    slots.push(fresh(&mut dice, &shape));
                }
                1..=4 => {
                    let view = View::random(&mut dice, &slots[i].1.shape, true);
                    let (x, plain) = &slots[i];
                    slots.push((view.of(x), view.of_plain(plain)));
                }
                // Windows that overlap, over the elements in one row.
                5 => {
                    let (x, plain) = &slots[i];
                    let row = x.contiguous();
                    let (n, width) = (plain.elements.len(), 1 + dice.below(3));
                    if n >= width {
                        let step = 1 + dice.below(3);
                        let count = 1 + (n - width) / step;
                        let place = Layout::strided(vec![count, width], vec![step, 1], row.layout().offset());
                        let elements =
                            (0..count * width).map(|k| plain.elements[k / width * step + k % width]).collect();
                        slots.push((row.with_layout(place), Plain { shape: vec![count, width], elements }));
                    }
                }
                6..=9 => assign(&mut dice, &mut slots, i),
                10 | 11 => {
                    let shape = slots[i].1.shape.clone();
                    let (y, y_plain) = source(&mut dice, &slots, &shape);
                    let whole = View::Expand(shape.clone());
                    let (y, y_plain) = (whole.of(&y), whole.of_plain(&y_plain));
                    let (x, plain) = &mut slots[i];
                    plain.elements.iter_mut().zip(&y_plain.elements).for_each(|(x, y)| *x += y);
                    if what == 10 {
                        x.add_assign(&y);
                    } else {
                        let (x, mut plain) = slots.swap_remove(i);
                        plain.shape = shape;
                        slots.push((x.into_sum(y), plain));
                    }
                }
                12 => {
                    let (x, mut plain) = slots.swap_remove(i);
                    plain.elements.iter_mut().for_each(|x| *x = 3.0 - *x);
                    slots.push((x.into_unary(UnaryOp::Affine { scale: -1.0, shift: 3.0 }), plain));
                }
                13 => {
                    let (dy, mut plain) = slots.swap_remove(i);
                    let x = dy.zeros_like();
                    plain.elements.iter_mut().for_each(|x| *x = -*x);
                    slots.push((x.unary_grad(UnaryOp::Neg, dy), plain));
                }
                14 => slots.push(slots[i].clone()),
                _ => {
                    slots.swap_remove(i);
                }
            }
            for (x, plain) in &slots {
                assert_eq!(x.shape(), plain.shape, "seed {seed}, program {program:?}");
                assert_eq!(x.to_vec_f64(), plain.elements, "seed {seed}, program {program:?}");
            }
        }
    }
}

fn counting(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_vec((0..n).map(|i| i as f32).collect(), shape, &Device::Cpu)
}

#[test]
fn a_write_to_an_expanded_tensor_changes_the_elements_named_alone() {
    let nine = Tensor::scalar(9.0, DType::F32, &Device::Cpu);
    let row = counting(&[2]);
    let mut x = row.expand(&[3, 2]);
    x.assign(|x| x.select(0, 1), &nine);
    assert_eq!(x.to_vec(), [0., 1., 9., 9., 0., 1.]);
    assert_eq!(row.to_vec(), [0., 1.]);

    // Also where nobody else holds the memory.
    let mut x = counting(&[2, 1]).expand(&[2, 3]);
    x.assign(|x| x.narrow(1, 0, 1), &nine);
    assert_eq!(x.to_vec(), [9., 0., 0., 9., 1., 1.]);
    let mut x = counting(&[2, 1]).expand(&[2, 3]);
    x.add_assign(&counting(&[2, 3]));
    assert_eq!(x.to_vec(), [0., 1., 2., 4., 5., 6.]);

    // Windows of two, one apart.
    let mut x = counting(&[4]).with_layout(Layout::strided(vec![3, 2], vec![1, 1], 0));
    x.assign(|x| x.select(1, 1), &nine);
    assert_eq!(x.to_vec(), [0., 9., 1., 9., 2., 9.]);
}

#[test]
fn adamw_takes_parameters_and_moments_of_any_layout() {
    let step = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step: 1 };
    let grad = counting(&[3, 2]) - 2.5;
    let one = Tensor::scalar(1.0, DType::F32, &Device::Cpu);
    let run = |mut p: Tensor, mut m: Tensor, mut v: Tensor| {
        p.adamw(&grad, &one, &mut m, &mut v, &step);
        [p, m, v].map(|t| t.to_vec())
    };
    let (p, m) = (counting(&[2, 3]).t(), counting(&[2]).expand(&[3, 2]));
    let want = run(p.contiguous(), m.contiguous(), m.contiguous());
    assert_eq!(run(p, m.clone(), m), want);
}

#[test]
fn regions_that_are_no_region_are_told() {
    let zero = Tensor::scalar(0.0, DType::F32, &Device::Cpu);
    let refused = |region: fn(&Tensor) -> Tensor| {
        let zero = zero.clone();
        panic_of(move || counting(&[2, 3]).assign(region, &zero))
    };
    let repeats = refused(|x| x.select(0, 1).expand(&[4, 3]));
    assert!(repeats.contains("[4, 3]") && repeats.contains("[0, 1]") && repeats.contains("expand"), "{repeats}");
    let windows = refused(|x| x.with_layout(Layout::strided(vec![3, 2], vec![1, 1], 0)));
    assert!(windows.contains("more than once"), "{windows}");
    for region in [|x: &Tensor| x + 1.0, |x: &Tensor| x.t().reshape(&[6]), |_: &Tensor| counting(&[2, 3])] {
        let copy = refused(region);
        assert!(copy.contains("must be a view of the tensor that it is given"), "{copy}");
    }
    let past = refused(|x| x.with_layout(Layout::strided(vec![3, 2], vec![3, 1], 0)));
    assert!(past.contains("reaches past a memory of 6 elements"), "{past}");
}
