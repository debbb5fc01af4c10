//! What the pool of the CPU's memory keeps. In a program of its own: all that computes shares the pool.

use ironlens_tensor::{DType, Device, Tensor, fresh_allocations};

#[test]
fn lengths_that_do_not_repeat_give_way_to_those_that_do() {
    let zeros = |len: usize| Tensor::zeros(&[len], DType::F32, &Device::Cpu);
    // 600 MiB of buffers that nobody asks for again, more than the pool holds.
    (0..600).for_each(|i| drop(zeros((1 << 18) + i)));
    let round = || drop([1 << 20, 1 << 20, 3 << 19].map(zeros));
    round();
    let warm = fresh_allocations();
    round();
    assert_eq!(fresh_allocations(), warm);
    // What is larger than the pool is not kept, and leaves it usable.
    drop(zeros(200 << 20));
    round();
    let warm = fresh_allocations();
    round();
    assert_eq!(fresh_allocations(), warm);
}
