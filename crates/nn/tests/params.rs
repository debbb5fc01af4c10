//! Parameters as a whole: how many bytes, in which types, frozen or not.

use ironlens_nn::optim::{clip_coefficient, grad_norm};
use ironlens_nn::{Hooks, Init, OwnActivation, Params, Registry};
use ironlens_tensor::{DType, Device, Tensor};

/// `W_in` `[2, 3]`, all 1; `W_pos` `[4]`, a vector; `b` `[3]`.
fn params() -> Params {
    let mut registry = Registry::new("Toy");
    let mut scope = registry.root();
    scope.param("W_in", &[2, 3], Init::Ones);
    scope.param("W_pos", &[4], Init::Ones);
    scope.param("b", &[3, 1], Init::Zeros);
    Params::initialised(registry, 0, &Device::Cpu)
}

fn types(params: &Params) -> Vec<DType> {
    params.iter().map(|(_, t)| t.dtype()).collect()
}

#[test]
fn types_and_bytes_go_together() {
    let mut params = params();
    assert_eq!((params.count(), params.bytes()), (13, 4 * 13));
    let double = params.to_dtype(DType::F64);
    assert_eq!((double.dtype(), double.storage(), double.bytes()), (DType::F64, DType::F64, 8 * 13));
    // Matrices of the name alone: no vector, and no other matrix.
    params.store_as(DType::Bf16);
    assert_eq!(types(&params), [DType::Bf16, DType::F32, DType::F32]);
    assert_eq!((params.dtype(), params.storage(), params.bytes()), (DType::F32, DType::Bf16, 2 * 6 + 4 * 7));
    let moved = params.to_device(&Device::Cpu);
    assert_eq!((types(&moved), moved.storage()), (types(&params), DType::Bf16));
    params.store_as(DType::F32);
    assert_eq!((types(&params), params.bytes()), (vec![DType::F32; 3], 4 * 13));
}

#[test]
fn what_is_frozen_is_named() {
    let mut params = params();
    assert_eq!(params.freeze(|name| name.starts_with('W')), 2);
    params.unfreeze(|name| name == "W_in");
    assert_eq!(params.frozen().collect::<Vec<_>>(), ["W_pos"]);
}

/// PyTorch's `clip_grad_norm_`.
#[test]
fn gradients_are_scaled_to_the_norm_that_is_allowed() {
    let grads = [
        Some(Tensor::full(&[3], 2.0, DType::F32, &Device::Cpu)),
        None,
        Some(Tensor::scalar(2.0, DType::F32, &Device::Cpu)),
    ];
    let norm = grad_norm(&grads, DType::F32, &Device::Cpu);
    assert_eq!(norm.item(), 4.0);
    for (max, expected) in [(0.5, 0.125), (3.0, 0.75), (4.5, 1.0)] {
        let found = clip_coefficient(&norm, max).item();
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }
    // The norm is taken as 1e-6 larger, so that one of 0 can be divided by.
    let tiny = clip_coefficient(&Tensor::scalar(1e-6, DType::F64, &Device::Cpu), 1e-6).item();
    assert!((tiny - 0.5).abs() < 1e-12, "{tiny}");
    assert_eq!(grad_norm(&[None], DType::F64, &Device::Cpu).item(), 0.0);
}

#[test]
fn activations_of_one_s_own_are_known_by_their_names() {
    let [double, same, other] = ["double", "double", "other"].map(|name| OwnActivation::new(name, |x| x + x));
    assert_eq!((double.name(), double == same, double == other), ("double", true, false));
    let distinct = std::collections::HashSet::from([double, same, other]);
    assert_eq!(distinct.len(), 2);
}

#[test]
fn hooks_are_counted_together() {
    let two = Hooks::new().fwd("a", |_, _| {}).fwd("b", |_, _| {});
    let all = two.and(Hooks::new().bwd("c", |_, _| {}));
    assert_eq!((all.len(), all.is_empty(), all.has_backward()), (3, false, true));
    assert!(Hooks::new().is_empty());
}
