//! Indexing, order, statistics, construction, named axes and biases of scores, against values by hand and against
//! plain loops.

use ironlens_tensor::einops::{Reduction, einsum, rearrange, reduce, repeat};
use ironlens_tensor::{Alibi, AttentionSpec, DType, Device, IndexTensor, Rng, Tensor};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    Rng::new(seed, 2).normal(shape, 0.0, 1.0, &Device::Cpu)
}

fn close(a: &Tensor, b: &Tensor) -> bool {
    let (difference, alike) = a.max_abs_diff(b);
    alike && difference < 1e-5
}

#[test]
fn operators_take_numbers_of_any_type_on_both_sides() {
    let x = Tensor::from([1.0, -2.0]);
    assert_eq!((2.0 * &x).to_vec(), [2.0, -4.0]);
    assert_eq!((1.0 - x.clone()).to_vec(), [0.0, 3.0]);
    assert_eq!((1.0 / &x).to_vec(), [1.0, -0.5]);
    assert_eq!((&x * 2).to_vec(), [2.0, -4.0]);
    assert_eq!((&x / 2.0f32 + 1usize).to_vec(), [1.5, 0.0]);
    assert_eq!((-x.clone()).to_vec(), [-1.0, 2.0]);
    // A number that is a literal still lets methods be called on the result.
    assert_eq!((&x * 2.0).abs().sum(0).item(), 6.0);
    let mut y = x.clone();
    y += &x;
    y *= 3.0;
    y -= 1;
    y /= x.clone();
    assert_eq!((y.to_vec(), x.to_vec()), (vec![5.0, 6.5], vec![1.0, -2.0]));
}

#[test]
fn comparisons_are_0_and_1() {
    let x = Tensor::from([1.0, 2.0, f32::NAN]);
    let y = Tensor::from([[1.5], [2.0]]);
    assert_eq!(x.gt(&y).to_vec(), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(x.ge(&y).to_vec(), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(x.lt(&y).to_vec(), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(x.le(2).to_vec(), [1.0, 1.0, 0.0]);
    assert_eq!(x.eq(2.0).to_vec(), [0.0, 1.0, 0.0]);
    assert_eq!(x.maximum(1.5).to_vec()[..2], [1.5, 2.0]);
    assert!(x.minimum(&y).to_vec()[2].is_nan() && y.maximum(&x).to_vec()[2].is_nan());
    assert_eq!(Tensor::from([-3.0, 0.0, 2.0]).sign().to_vec(), [-1.0, 0.0, 1.0]);
    assert_eq!(Tensor::from([-3.0, 0.2, 2.0]).clamp(-1.0, 1.0).to_vec(), [-1.0, 0.2, 1.0]);
    assert!(x.clamp(0.0, 1.0).to_vec()[2].is_nan());
    // Nothing of what is not chosen gets through.
    let hidden = Tensor::zeros(&[2, 3], DType::F32, &Device::Cpu).masked_fill(x.eq(2.0), f64::NEG_INFINITY);
    assert_eq!(hidden.softmax().to_vec(), [0.5, 0.0, 0.5, 0.5, 0.0, 0.5]);
    assert_eq!(Tensor::where_(x.gt(0.0), &x, 0.0).to_vec(), [1.0, 2.0, 0.0]);
    assert_eq!(Tensor::where_(Tensor::from([1.0, 0.0]), 3, 4).to_vec(), [3.0, 4.0]);
}

#[test]
fn indices() {
    let x = random(1, &[3, 4, 5]);
    let at = |i: usize, j: usize, k: usize| x.select(0, i).select(0, j).select(0, k).item() as f32;
    let ids = IndexTensor::new(vec![4, 0, 2, 2, 1, 3], &[3, 2, 1]);
    let y = x.gather(2, &ids);
    let want: Vec<f32> = (0..6).map(|n| at(n / 2, n % 2, ids.as_slice()[n] as usize)).collect();
    assert_eq!((y.shape(), y.to_vec()), (&[3, 2, 1][..], want));
    let y = x.permute(&[2, 0, 1]).gather(0, &IndexTensor::new(vec![4, 2], &[2, 1, 1]));
    assert_eq!(y.to_vec(), [at(0, 0, 4), at(0, 0, 2)]);

    let y = x.index_select(1, &IndexTensor::from([[3, 0], [0, 1]]));
    assert_eq!(y.shape(), [3, 2, 2, 5]);
    assert_eq!(y.select(1, 0).select(1, 0).to_vec(), x.select(1, 3).to_vec());
    let w_u = random(2, &[8, 20]).t().contiguous().t();
    let tokens = IndexTensor::from([7, 7, 19]);
    assert_eq!(w_u.index_select(-1, &tokens).select(1, 2).to_vec(), w_u.select(1, 19).to_vec());
    assert_eq!(x.flip(-1).select(2, 0).to_vec(), x.select(2, 4).to_vec());

    let y = x.diagonal(-1);
    assert_eq!(y.shape(), [3, 3]);
    assert_eq!(y.to_vec()[..2], [at(0, 1, 0), at(0, 2, 1)]);
    assert_eq!(x.diagonal(4).shape(), [3, 1]);
    assert_eq!(x.diagonal(5).shape(), [3, 0]);
    assert_eq!(x.diagonal(isize::MIN).shape(), [3, 0]);
    let square = Tensor::ones(&[3, 3], DType::F32, &Device::Cpu);
    assert_eq!(square.tril(0).to_vec(), [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(square.triu(1).to_vec(), [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(square.tril(-1).to_vec(), square.triu(1).t().to_vec());
}

#[test]
fn order() {
    let x = Tensor::from([[3.0, f32::NAN, 1.0, 3.0], [0.0, -1.0, f32::NEG_INFINITY, 2.0]]);
    assert_eq!(x.argsort(1, false).as_slice(), [2, 0, 3, 1, 2, 1, 0, 3]);
    assert_eq!(x.argsort(1, true).as_slice(), [1, 0, 3, 2, 3, 0, 1, 2]);
    assert_eq!(x.argmax(1).as_slice(), [1, 3]);
    assert_eq!(x.argmin(-1).as_slice(), [1, 2]);
    assert_eq!(x.argmax(0).as_slice(), [0, 0, 0, 0]);
    let (values, ids) = x.narrow(0, 1, 1).topk(2, -1);
    assert_eq!((values.to_vec(), ids.as_slice()), (vec![2.0, 0.0], &[3, 0][..]));
    assert_eq!(Tensor::from([1.0, 1.0, 1.0]).topk(2, 0).1.as_slice(), [0, 1]);
    // Every way agrees with a plain sort, along every axis.
    let x = random(3, &[5, 7, 6]);
    for axis in 0..3 {
        let (sorted, ids) = x.sort(axis, false);
        assert_eq!(x.gather(axis, &ids).to_vec(), sorted.to_vec());
        let lanes = |t: &Tensor| {
            let n = t.dim(axis);
            let order: Vec<usize> = (0..3).filter(|&a| a != axis).chain([axis]).collect();
            t.permute(&order).to_vec().chunks(n).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        for (mut lane, found) in lanes(&x).into_iter().zip(lanes(&sorted)) {
            lane.sort_by(f32::total_cmp);
            assert_eq!(lane, found);
        }
        assert_eq!(x.topk(3, axis).0.to_vec(), x.sort(axis, true).0.narrow(axis, 0, 3).to_vec());
        assert_eq!(x.argmax(axis), x.topk(1, axis).1.reshape(x.argmax(axis).shape()));
        assert_eq!(x.min(axis).to_vec(), sorted.select(axis, 0).to_vec());
    }
}

#[test]
fn statistics() {
    let x = Tensor::from([[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0]]);
    assert!(close(&x.var(1), &Tensor::from([5.0 / 3.0, 0.0])));
    assert_eq!(x.std(&[1]).to_vec()[1], 0.0);
    assert!((x.std(1).to_vec()[0] - (5f32 / 3.0).sqrt()).abs() < 1e-6);
    assert_eq!(x.vector_norm(1).to_vec(), [30f32.sqrt(), 4.0]);
    assert_eq!((x.max_all().item(), x.min_all().item(), x.max_all().ndim()), (4.0, 1.0, 0));
    assert!(Tensor::from([[1.0, f32::NAN]]).max_all().item().is_nan());
    assert_eq!(x.cumsum(-1).to_vec(), [1.0, 3.0, 6.0, 10.0, 2.0, 4.0, 6.0, 8.0]);
    assert_eq!(x.cumsum(0).select(0, 1).to_vec(), [3.0, 4.0, 5.0, 6.0]);
    assert_eq!(x.mean_keepdim(0).shape(), [1, 4]);
    let large = Tensor::from([1000.0, 1000.0, f32::NEG_INFINITY]);
    assert!((large.logsumexp(0).item() - 1000.0 - 2f64.ln()).abs() < 1e-3);
    assert_eq!((large - f64::INFINITY).logsumexp(0).item(), f64::NEG_INFINITY);
    assert!(close(&Tensor::from([0.3, 20.0, -7.0]).sin(), &Tensor::from([0.29552022, 0.9129453, -0.6569866])));
    assert!(close(&Tensor::from([0.3, 20.0, -7.0]).cos(), &Tensor::from([0.9553365, 0.40808207, 0.7539023])));
}

#[test]
fn construction() {
    let (f32s, cpu) = (DType::F32, Device::Cpu);
    assert_eq!((Tensor::arange(4, f32s, &cpu) * 2 + 1).to_vec(), [1.0, 3.0, 5.0, 7.0]);
    assert_eq!(Tensor::linspace(-1.0, 1.0, 1, f32s, &cpu).to_vec(), [-1.0]);
    assert_eq!(Tensor::linspace(0.1, 0.7, 7, DType::F64, &cpu).to_vec_f64()[6], 0.7);
    assert_eq!(Tensor::from(vec![vec![1.0, 2.0], vec![3.0, 4.0]]).t().to_vec(), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(Tensor::from([[[1.0], [2.0]]]).shape(), [1, 2, 1]);
    let tokens = IndexTensor::from(vec![vec![1, 2, 3], vec![4, 5, 6]]);
    assert_eq!(Tensor::one_hot(&tokens, 7, f32s, &cpu).argmax(-1), tokens);
    assert_eq!(IndexTensor::cat(&[tokens.clone(), tokens.select(0, 0).reshape(&[1, 3])], 0).shape(), [3, 3]);
    assert_eq!(tokens.select(-1, 2).as_slice(), [3, 6]);
    assert_eq!(tokens.permute(&[1, 0]).as_slice(), [1, 4, 2, 5, 3, 6]);
    assert_eq!(tokens.index_select(0, &IndexTensor::from([1, 1])).as_slice(), [4, 5, 6, 4, 5, 6]);
    let twice = IndexTensor::stack(&[tokens.clone(), tokens.clone()], 1);
    assert_eq!(twice, IndexTensor::from([[1, 2, 3, 1, 2, 3], [4, 5, 6, 4, 5, 6]]).reshape(&[2, 2, 3]));
    assert_eq!((tokens.dim(-1), tokens.select(0, 0).unsqueeze(1).shape()), (3, &[3, 1][..]));
    assert_eq!(tokens.narrow(0, 1, 1).narrow(1, 2, 1).item(), 6);
    assert_eq!(tokens.to_tensor(DType::F64, &cpu).sum_all().item(), 21.0);
}

#[test]
fn sums_of_products_by_name() {
    let (a, b) = (random(4, &[2, 3, 4, 5]), random(5, &[2, 6, 4, 5]));
    let scores = einsum("b q h e, b k h e -> b h q k", &[&a, &b]);
    let by_hand = a.permute(&[0, 2, 1, 3]).matmul(&b.permute(&[0, 2, 3, 1]));
    assert_eq!(scores.to_vec(), by_hand.to_vec());
    assert_eq!(einsum("bqhe,bkhe->bhqk", &[&a, &b]).to_vec(), scores.to_vec());
    // Against loops over every index, in double precision.
    let sizes = [("i", 2), ("j", 3), ("k", 4), ("l", 5)];
    for (left, right, result) in [
        ("ijk", "kjl", "il"),
        ("ijk", "kjl", "lji"),
        ("ij", "ij", "ij"),
        ("ij", "ij", "i"),
        ("ij", "ij", ""),
        ("ij", "kl", "ljki"),
        ("ijk", "l", "jl"),
        ("", "ij", "ji"),
        ("kij", "jk", "ki"),
    ] {
        let shape = |names: &str| -> Vec<usize> {
            names.chars().map(|c| sizes.iter().find(|(n, _)| n.starts_with(c)).unwrap().1).collect()
        };
        let [x, y] = [(6, left), (7, right)].map(|(seed, names)| random(seed, &shape(names)));
        let found = einsum(&format!("{left},{right}->{result}"), &[&x, &y]);
        let mut want = vec![0.0; shape(result).iter().product()];
        for at in 0..2 * 3 * 4 * 5 {
            let index = [at / 60, at / 20 % 3, at / 5 % 4, at % 5];
            let place = |names: &str| {
                names.chars().fold(0, |p, c| {
                    let i = sizes.iter().position(|(n, _)| n.starts_with(c)).unwrap();
                    p * sizes[i].1 + index[i]
                })
            };
            // Each term of the sum once: indices that nobody names stay at 0.
            let unused = (0..4).any(|i| index[i] > 0 && !format!("{left}{right}").contains(sizes[i].0));
            if !unused {
                let [x, y] = [&x, &y].map(|t| t.to_vec_f64());
                want[place(result)] += x[place(left)] * y[place(right)];
            }
        }
        let want = Tensor::from_vec_f64(want, &shape(result)).to_dtype(DType::F32);
        assert!(close(&found, &want), "{left},{right}->{result}");
    }
    let square = random(8, &[3, 4, 4]);
    assert!(close(&einsum("b i i -> b", &[&square]), &square.diagonal(0).sum(-1)));
    // A name that comes three times, and what stands beside it.
    let cube = Tensor::arange(27, DType::F32, &Device::Cpu).reshape(&[3, 3, 3]);
    assert_eq!(einsum("i i i -> i", &[&cube]).to_vec(), [0.0, 13.0, 26.0]);
    assert_eq!(einsum("i i i ->", &[&cube]).item(), 39.0);
    let beside = Tensor::arange(54, DType::F32, &Device::Cpu).reshape(&[3, 2, 3, 3]);
    assert_eq!(einsum("i j i i -> j i", &[&beside]).to_vec(), [0.0, 22.0, 44.0, 9.0, 31.0, 53.0]);
    assert_eq!(einsum("ij...->...ji", &[&a]).to_vec(), a.permute(&[2, 3, 1, 0]).to_vec());
    assert!(close(&einsum("... i, i -> ...", &[&a, &Tensor::from([1.0; 5])]), &a.sum(-1)));

    // Three terms: a two-dimensional transform, and a name that the middle one does not have.
    let (basis, x) = (random(9, &[4, 4]), random(10, &[4, 4, 3]));
    let by_hand = basis.matmul(&basis.matmul(&x.permute(&[2, 0, 1])).t()).t();
    let found = einsum("i x, j y, x y d -> d i j", &[&basis, &basis, &x]);
    assert!(close(&found, &by_hand));
    let (u, w) = (random(11, &[4]), random(12, &[5, 6]));
    let found = einsum("h, b i j h, h k -> b k", &[&u, &random(13, &[2, 3, 2, 4]), &random(14, &[4, 7])]);
    let by_hand = (random(13, &[2, 3, 2, 4]).sum(&[1, 2]) * &u).matmul(&random(14, &[4, 7]));
    assert!(close(&found, &by_hand));
    // A vector is a row on the left, a column on the right.
    assert!(close(&a.matmul(&Tensor::from([1.0; 5])), &a.sum(-1)));
    assert!(close(&Tensor::from([1.0; 5]).matmul(&w), &w.sum(0)));
    assert!(close(&u.matmul(&x), &(x * u.unsqueeze(1)).sum(1)));
    assert!(close(&u.matmul(&u), &u.square().sum_all()));
}

#[test]
fn einops() {
    let x = random(9, &[2, 3, 8]);
    let heads = rearrange(&x, "b n (h e) -> b h n e", &[("h", 2)]);
    assert_eq!(heads.to_vec(), x.reshape(&[2, 3, 2, 4]).permute(&[0, 2, 1, 3]).to_vec());
    assert_eq!(rearrange(&heads, "b h n e -> b n (h e)", &[]).to_vec(), x.to_vec());
    assert_eq!(rearrange(&x, "... d -> d 1 (...)", &[]).shape(), [8, 1, 6]);
    assert_eq!(rearrange(&x.narrow(0, 0, 1), "1 n d -> d n", &[]).to_vec(), x.select(0, 0).t().to_vec());
    let largest = reduce(&x, "b n (k two) -> b n k", Reduction::Max, &[("two", 2)]);
    assert_eq!(largest.to_vec(), x.reshape(&[2, 3, 4, 2]).max(3).to_vec());
    assert_eq!(reduce(&x, "... d -> d", Reduction::Sum, &[]).to_vec(), x.sum(&[0, 1]).to_vec());
    let again = repeat(&x, "b n d -> b (n copy) d", &[("copy", 3)]);
    assert_eq!(again.to_vec(), x.unsqueeze(2).expand(&[2, 3, 3, 8]).reshape(&[2, 9, 8]).to_vec());
}

#[test]
fn decompositions() {
    let x = random(10, &[2, 5, 3]);
    let (u, s, vh) = x.svd();
    assert!(close(&(&u * s.unsqueeze(1)).matmul(&vh), &x));
    assert!(close(&u.t().matmul(&u), &Tensor::eye(3, DType::F32, &Device::Cpu).expand(&[2, 3, 3])));
    assert!(s.narrow(1, 0, 2).ge(s.narrow(1, 1, 2)).to_vec().iter().all(|v| *v == 1.0));
    let want = random(11, &[2, 3, 2]);
    assert!(close(&x.lstsq(&x.matmul(&want)), &want));
    // Of many solutions the shortest, of none the nearest.
    let flat = Tensor::from([[1.0, 1.0], [1.0, 1.0]]);
    assert!(close(&flat.lstsq(&Tensor::from([[1.0], [3.0]])), &Tensor::from([[1.0], [1.0]])));
    let broken = Tensor::from([[1.0, f32::NAN], [0.0, 1.0]]);
    assert!(broken.svd().1.to_vec().iter().all(|v| v.is_nan()));
}

/// The message of the panic of `f`.
fn panic_of<R>(f: impl FnOnce() -> R + std::panic::UnwindSafe) -> String {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(f);
    std::panic::set_hook(hook);
    let Err(panic) = result else { panic!("it did not panic") };
    panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap()
}

#[test]
fn mistakes_are_told_with_pattern_and_shapes() {
    let x = || Tensor::zeros(&[2, 3], DType::F32, &Device::Cpu);
    let says = |message: String, parts: &[&str]| {
        assert!(parts.iter().all(|p| message.contains(p)), "{message}");
    };
    says(
        panic_of(|| einsum("i j, j k -> i k", &[&x(), &x()])),
        &["i j, j k", "[2, 3] and [2, 3]", "`j` is 3 in term 1 and 2 in term 2"],
    );
    says(panic_of(|| einsum("ij,jk", &[&x(), &x()])), &["->"]);
    says(panic_of(|| einsum("ij->ik", &[&x()])), &["`k`", "[2, 3]"]);
    says(panic_of(|| einsum("ijk->ik", &[&x()])), &["does not name the 2 axes"]);
    says(panic_of(|| einsum("ij->ij", &[&x(), &x()])), &["1 terms for 2 arrays"]);
    says(panic_of(|| rearrange(&x(), "a (b c) -> a b c", &[("b", 2)])), &["[2, 3]", "3 elements do not divide by 2"]);
    says(panic_of(|| rearrange(&x(), "a b -> a", &[])), &["`b`", "reduce"]);
    says(panic_of(|| rearrange(&x(), "a b -> (a b", &[])), &["parentheses"]);
    says(panic_of(|| rearrange(&x(), "a b -> b a", &[("c", 2)])), &["`c`"]);
    says(panic_of(|| repeat(&x(), "a b -> a b c", &[])), &["new axis `c`"]);
    says(panic_of(|| x().sum(-3)), &["axis -3", "[2, 3]"]);
    says(panic_of(|| x().sum(&[1, -1])), &["twice"]);
    says(panic_of(|| x().gather(1, &IndexTensor::from([[3]]))), &["index 3", "[1, 1] choose among 3", "[2, 3]"]);
    says(panic_of(|| x().gather(1, &IndexTensor::from([0]))), &["[2, 3]", "[1]"]);
    says(panic_of(|| x().index_select(0, &IndexTensor::from([2]))), &["index 2", "choose among 2"]);
    says(panic_of(|| x().topk(4, 1)), &["0..4", "axis 1 (length 3)"]);
    says(panic_of(|| x().lstsq(&Tensor::from([[1.0]]))), &["lstsq", "[2, 3]", "[1, 1]"]);
    says(panic_of(|| x().maximum(Tensor::from([1.0, 2.0]))), &["[2, 3]", "[2]"]);
    says(panic_of(|| Tensor::from(vec![vec![1.0], vec![]])), &["row 1 has 0"]);
    says(panic_of(|| Tensor::one_hot(&IndexTensor::from([5]), 5, DType::F32, &Device::Cpu)), &["index 5"]);
    says(panic_of(|| Tensor::from([1.0]).tril(0)), &["tril", "[1]"]);
}

#[test]
fn of_nothing_there_is_no_variance_and_no_score() {
    let none = Tensor::zeros(&[0, 3], DType::F32, &Device::Cpu);
    assert!(none.var(0).to_vec().iter().chain(&none.std(0).to_vec()).all(|v| v.is_nan()));
    let no_heads = Tensor::zeros(&[2, 5, 0, 4], DType::F32, &Device::Cpu);
    assert_eq!(no_heads.attention_scores(&no_heads, &AttentionSpec::causal(2.0)).shape(), [2, 0, 5, 5]);
}

/// The nearest number with 8 bits, of two the even one.
fn with_8_bits(x: f64) -> f64 {
    let unit = if x == 0.0 { 1.0 } else { (x.abs().log2().floor() - 7.0).exp2() };
    (x / unit).round_ties_even() * unit
}

#[test]
fn falcons_bias_is_of_the_key_alone() {
    let (scale, slopes, start, keys) = (3.0, [0.5f64.sqrt(), 0.3, 0.25, 1.0 / 256.0], 690, 700);
    let alibi = Some(Alibi { slopes: slopes.to_vec(), bf16: true });
    let spec = AttentionSpec { alibi, query_start: start, ..AttentionSpec::causal(scale) };
    // Padding before, and between.
    let mask: Vec<u32> = (0..2 * keys).map(|at| u32::from(at > 8 && at % 700 != 350)).collect();
    let masked = AttentionSpec { key_mask: Some(IndexTensor::new(mask, &[2, keys])), ..spec.clone() };
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
        let [q, k, v] = [(&[2, 10, 4, 3], 0), (&[2, keys, 2, 3], 1), (&[2, keys, 2, 3], 2)]
            .map(|(shape, seed)| random(seed, shape).to_dtype(dtype));
        let products = q.attention_scores(&k, &AttentionSpec { query_start: start, ..AttentionSpec::causal(scale) });
        for spec in [&spec, &masked] {
            let (products, scores) = (products.to_vec_f64(), q.attention_scores(&k, spec));
            let pattern = q.attention_with_pattern(&k, &v, spec).1;
            assert_eq!(pattern.to_vec_f64(), scores.softmax().to_vec_f64());
            for (at, score) in scores.to_vec_f64().into_iter().enumerate() {
                let (key, query, head, item) = (at % keys, at / keys % 10, at / keys / 10 % 4, at / keys / 40);
                if !spec.visible(item, query, key) {
                    assert_eq!(score, f64::NEG_INFINITY);
                    continue;
                }
                let before =
                    |mask: &IndexTensor| mask.as_slice()[item * keys..][..key].iter().filter(|m| **m != 0).count();
                let place = spec.key_mask.as_ref().map_or(key, before);
                let bias = with_8_bits(with_8_bits(slopes[head]) * with_8_bits(place as f64)) / scale;
                let error = (score - products[at] - bias).abs() / bias.max(1.0);
                assert!(error < tolerance, "{dtype}: key {key} of head {head} is off by {error:e}");
            }
        }
    }
}

#[test]
fn a_tensor_kept_by_the_one_who_names_the_region_is_not_written_to() {
    let mut kept = None;
    let mut x = Tensor::from([[1.0, 2.0], [3.0, 4.0]]).t();
    x.assign(
        |x| {
            kept = Some(x.clone());
            x.select(0, 0)
        },
        0.0,
    );
    assert_eq!((x.to_vec(), kept.unwrap().to_vec()), (vec![0.0, 0.0, 2.0, 4.0], vec![1.0, 3.0, 2.0, 4.0]));
}

/// Equal addends, whose sum drifts where it is taken as one chain.
#[test]
fn sums_of_many_rows_are_not_one_chain() {
    let many = Tensor::full(&[1_000_000, 2], 0.1, DType::F32, &Device::Cpu);
    let exact = f64::from(0.1f32) * 1e6;
    for sum in many.sum(0).to_vec_f64() {
        assert!((sum / exact - 1.0).abs() < 1e-6, "{sum} is not {exact}");
    }
}
