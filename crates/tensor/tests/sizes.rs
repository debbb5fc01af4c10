//! Sizes and strides that wrap, and sizes that no machine has.

mod common;

use common::panic_of;
use ironlens_tensor::{DType, Device, Layout, Tensor};

fn ones(shape: &[usize]) -> Tensor {
    Tensor::full(shape, 1.0, DType::F32, &Device::Cpu)
}

#[track_caller]
fn tells(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// 274177 x 67280421310721 is 2^64 + 1.
const WRAPS: [usize; 2] = [274_177, 67_280_421_310_721];

#[test]
fn products_whose_size_wraps() {
    let (a, b) = (ones(&[WRAPS[0], 1]), ones(&[1]).expand(&[1, WRAPS[1]]));
    let matmul = panic_of(|| a.matmul(&b));
    tells(&matmul, &["matmul", "[274177, 1]", "[1, 67280421310721]", "[274177, 67280421310721]"]);
    let linear = panic_of(|| a.linear(&b, None, None));
    tells(&linear, &["linear", "[274177, 1]", "[1, 67280421310721]", "[274177, 67280421310721]"]);
    let sum = panic_of(|| &a + &b);
    tells(&sum, &["[274177, 1]", "[1, 67280421310721]", "[274177, 67280421310721]"]);
}

#[test]
fn layouts_whose_reach_wraps() {
    let t = ones(&[2]);
    let wraps = panic_of(|| t.with_layout(Layout::strided(vec![17, 2], vec![1 << 60, 1], 0)).matmul(&ones(&[2, 1])));
    tells(&wraps, &["[17, 2]", "[1152921504606846976, 1]", "reaches further"]);
    let offset = panic_of(|| t.with_layout(Layout::strided(vec![1], vec![1], usize::MAX)));
    tells(&offset, &["[1]", "reaches further"]);
    let lengths = panic_of(|| Layout::strided(vec![2, 2], vec![1], 0));
    tells(&lengths, &["one stride per axis", "[2, 2]", "[1]"]);
}

/// What guards the memory behind every strided view.
#[test]
fn layouts_stay_within_their_memory() {
    let t = ones(&[2, 3]);
    for (shape, strides, offset) in
        [(vec![7], vec![1], 0), (vec![2, 3], vec![4, 1], 0), (vec![2, 3], vec![3, 1], 1), (vec![1], vec![0], 6)]
    {
        let layout = Layout::strided(shape.clone(), strides, offset);
        let message = panic_of(|| t.with_layout(layout));
        tells(&message, &[&format!("{shape:?}"), "reaches past a memory of 6 elements"]);
    }
    assert_eq!(t.with_layout(Layout::strided(vec![2, 2], vec![3, 2], 0)).to_vec(), [1.0; 4]);
    assert_eq!(t.with_layout(Layout::strided(vec![0, 4], vec![9, 9], 6)).numel(), 0);
}

#[test]
fn shapes_that_cannot_be() {
    let wide = [1 << 33, 1 << 33];
    for message in [
        panic_of(|| Tensor::zeros(&wide, DType::F32, &Device::Cpu)),
        panic_of(|| Tensor::from_vec(vec![], &wide, &Device::Cpu)),
        panic_of(|| ones(&[]).expand(&wide)),
        panic_of(|| ones(&[1]).reshape(&wide)),
        panic_of(|| Layout::contiguous(&wide)),
        panic_of(|| ironlens_tensor::IndexTensor::new(vec![], &wide)),
        panic_of(|| ironlens_tensor::Rng::new(0, 0).integers(&wide, 0, 2)),
        panic_of(|| ironlens_tensor::Rng::new(0, 0).normal(&wide, 0.0, 1.0, &Device::Cpu)),
        panic_of(|| ironlens_tensor::Rng::new(0, 0).uniform(&wide, 0.0, 1.0, &Device::Cpu)),
    ] {
        tells(&message, &["[8589934592, 8589934592]", "more elements than can be addressed"]);
    }
    // Axes that hold nothing hide no others.
    let empty = panic_of(|| Tensor::zeros(&[0, 1 << 33, 1 << 33], DType::F32, &Device::Cpu));
    tells(&empty, &["more elements than can be addressed"]);
}

#[test]
fn more_memory_than_there_is() {
    // 2^62 and 2^63 bytes: the system has no such memory; `isize` cannot count the second.
    for (shape, dtype, bytes) in
        [([1 << 30, 1 << 30], DType::F32, 1u128 << 62), ([1 << 30, 1 << 30], DType::F64, 1 << 63)]
    {
        for message in [
            panic_of(|| Tensor::zeros(&shape, dtype, &Device::Cpu)),
            panic_of(|| Tensor::full(&shape, 2.0, dtype, &Device::Cpu)),
            panic_of(|| Tensor::scalar(1.0, dtype, &Device::Cpu).expand(&shape).contiguous()),
        ] {
            tells(&message, &["[1073741824, 1073741824]", &bytes.to_string(), "not so much memory"]);
        }
    }
}
