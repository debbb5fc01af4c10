//! Values of views, copies, sums and products against ndarray, at sizes that take every path.

use ironlens_tensor::{BinaryOp, DType, Device, IndexTensor, Rng, Tensor};
use ndarray::{ArrayD, Axis, Ix2};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    Rng::new(seed, 1).normal(shape, 0.0, 1.0, &Device::Cpu)
}

#[track_caller]
fn close(ours: &Tensor, theirs: &ArrayD<f32>, tolerance: f64) {
    let theirs = Tensor::from(theirs.clone());
    let largest = theirs.to_vec().iter().fold(1f32, |m, v| m.max(v.abs()));
    let (difference, alike) = ours.max_abs_diff(&theirs);
    assert!(alike && difference <= tolerance * f64::from(largest), "differs by {difference:.2e}");
}

#[test]
fn strided_copies() {
    for shape in [[2, 3, 5], [3, 40, 64], [7, 130, 33]] {
        let x = random(1, &shape);
        for axes in [[1, 0, 2], [2, 1, 0], [0, 2, 1], [2, 0, 1]] {
            let y = x.permute(&axes).contiguous();
            let want = x.view().permuted_axes(ndarray::IxDyn(&axes)).as_standard_layout().to_owned();
            assert_eq!(y.to_ndarray(), want, "{shape:?} {axes:?}");
        }
        let cut = x.narrow(1, 1, 2).narrow(2, 1, shape[2] - 2).contiguous();
        assert_eq!(cut.to_ndarray(), x.view().slice(ndarray::s![.., 1..3, 1..shape[2] - 1]).to_owned().into_dyn());
    }
}

#[test]
fn broadcasts() {
    let a = random(2, &[6, 50, 64]);
    for shape in [&[6, 50, 64][..], &[64], &[50, 64], &[6, 50, 1], &[6, 1, 64], &[1, 50, 1], &[]] {
        let b = random(3, shape);
        for (op, f) in [
            (BinaryOp::Add, (|x, y| x + y) as fn(f32, f32) -> f32),
            (BinaryOp::Sub, |x, y| x - y),
            (BinaryOp::Mul, |x, y| x * y),
            (BinaryOp::Div, |x, y| x / y),
        ] {
            let wide = b.view().broadcast(a.shape()).unwrap().to_owned();
            let mut want = a.to_ndarray();
            want.zip_mut_with(&wide, |x, y| *x = f(*x, *y));
            assert_eq!(a.binary(op, &b).to_ndarray(), want, "{op:?} {shape:?}");
            let mut swapped = wide;
            swapped.zip_mut_with(&a.view(), |x, y| *x = f(*x, *y));
            assert_eq!(b.binary(op, &a).to_ndarray(), swapped, "{op:?} {shape:?} swapped");
        }
        let expanded = b.expand(a.shape());
        assert_eq!((&a + &expanded).to_vec(), (&a + &b).to_vec());
    }
}

/// Shapes drawn at random, in memory in any order; either operand has axes of 1 and lacks leading ones.
#[test]
fn any_two_shapes_that_broadcast() {
    let mut rng = Rng::new(7, 0);
    let mut below = move |n: usize| rng.integers(&[], 0, n as u32).as_slice()[0] as usize;
    for round in 0..400 {
        let whole: Vec<usize> = (0..below(5)).map(|_| below(5)).collect();
        let mut operand = |stream: u64| {
            let lacking = if below(3) == 0 { below(whole.len() + 1) } else { 0 };
            let shape: Vec<usize> = whole[lacking..].iter().map(|&n| if below(3) == 0 { 1 } else { n }).collect();
            let mut order: Vec<usize> = (0..shape.len()).collect();
            order.rotate_left(below(shape.len() + 1).min(shape.len()));
            let stored: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
            let mut back = vec![0; order.len()];
            order.iter().enumerate().for_each(|(at, &axis)| back[axis] = at);
            random(1000 * stream + round, &stored).permute(&back)
        };
        let (a, b) = (operand(1), operand(2));
        let of = |x: &Tensor, back: usize| x.ndim().checked_sub(back).map_or(1, |axis| x.dim(axis));
        let ndim = a.ndim().max(b.ndim());
        let joint: Vec<usize> =
            (1..=ndim).rev().map(|back| if of(&a, back) == 1 { of(&b, back) } else { of(&a, back) }).collect();
        let mut want = a.to_ndarray().broadcast(joint.as_slice()).expect("it fits").to_owned();
        want.zip_mut_with(&b.to_ndarray().broadcast(joint.as_slice()).expect("it fits"), |x, y| *x -= y);
        assert_eq!((&a - &b).to_ndarray(), want, "{:?} and {:?}", a.shape(), b.shape());
    }
}

#[test]
fn sums_and_maxima() {
    let x = random(4, &[5, 70, 300]);
    for axes in [&[0][..], &[1], &[2], &[0, 1], &[1, 2], &[0, 2], &[0, 1, 2]] {
        let mut want = x.to_ndarray();
        let mut max = x.to_ndarray();
        for &a in axes.iter().rev() {
            want = want.sum_axis(Axis(a));
            max = max.map_axis(Axis(a), |lane| lane.fold(f32::NEG_INFINITY, |m, v| m.max(*v)));
        }
        close(&x.sum(axes), &want, 2e-5);
        close(&x.max(axes), &max, 0.0);
        close(&x.permute(&[2, 0, 1]).contiguous().permute(&[1, 2, 0]).sum(axes), &want, 2e-5);
    }
    let exact: f64 = x.to_vec().iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    assert!((x.sum_squares() / exact - 1.0).abs() < 1e-6);
    let picked = x.argmax(-1);
    for (row, &at) in x.to_vec().chunks(300).zip(picked.as_slice()) {
        assert!(row.iter().all(|v| *v <= row[at as usize]));
    }
}

#[test]
fn products_of_every_layout() {
    for (m, k, n) in [(1, 1, 1), (1, 33, 7), (5, 1, 9), (64, 64, 64), (130, 65, 77), (3, 768, 128), (200, 300, 1)] {
        let (a, b) = (random(5, &[m, k]), random(6, &[k, n]));
        let view = |t: &Tensor| t.to_ndarray().into_dimensionality::<Ix2>().unwrap().mapv(f64::from);
        let want = view(&a).dot(&view(&b)).mapv(|v| v as f32).into_dyn();
        close(&a.matmul(&b), &want, 1e-5);
        let (at, bt) = (a.t().contiguous(), b.t().contiguous());
        close(&at.t().matmul(&bt.t()), &want, 1e-5);
        close(&a.to_dtype(DType::F64).matmul(&b.to_dtype(DType::F64)), &want, 1e-6);
        let residual = random(7, &[m, n]);
        let bias = random(8, &[n]);
        let linear = a.linear(&b, Some(&bias), Some(&residual));
        assert_eq!(
            linear.to_vec(),
            (&residual + &(a.matmul(&b) + &bias)).to_vec(),
            "fused sums have the bits of their parts"
        );
    }
    let (a, b) = (random(9, &[2, 3, 4, 5]), random(10, &[3, 5, 6]));
    let y = a.matmul(&b);
    for i in 0..2 {
        for j in 0..3 {
            let one = a.select(0, i).select(0, j).matmul(&b.select(0, j));
            assert_eq!(y.select(0, i).select(0, j).to_vec(), one.to_vec());
        }
    }
}

#[test]
fn a_row_has_its_bits_alone_or_among_others() {
    let w = random(11, &[96, 80]);
    let x = random(12, &[50, 96]);
    let all = x.matmul(&w);
    for (start, len) in [(0, 1), (7, 1), (3, 2), (10, 33)] {
        let some = x.narrow(0, start, len).matmul(&w);
        assert_eq!(some.to_vec(), all.narrow(0, start, len).to_vec(), "rows {start}..{}", start + len);
    }
}

#[test]
fn softmax_of_hidden_rows_is_zero_not_nan() {
    let inf = f32::NEG_INFINITY;
    let x = Tensor::from_vec(vec![inf, inf, 0.0, inf], &[2, 2], &Device::Cpu);
    assert_eq!(x.softmax().to_vec(), [0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn embedding_rows_are_summed_by_id() {
    let ids = IndexTensor::from([[2, 0, 2]]);
    let dy = Tensor::from_vec(vec![1., 2., 3., 4., 5., 6.], &[1, 3, 2], &Device::Cpu);
    assert_eq!(dy.embed_grad(&ids, 4).to_vec(), [3., 4., 0., 0., 6., 8., 0., 0.]);
}
