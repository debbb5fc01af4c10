//! Activations by name, in the order in which they came.

use ironlens_nn::Activations;
use ironlens_tensor::{DType, Device, Tensor};

/// Of `len` elements, all `value`.
fn of(value: f64, len: usize) -> Tensor {
    Tensor::full(&[len], value, DType::F32, &Device::Cpu)
}

/// "first" with 2 elements, "second" with 3, "third" with 5, of 1, 2 and 3.
fn three() -> Activations {
    let mut all = Activations::default();
    assert!(all.is_empty());
    for (name, value, len) in [("first", 1.0, 2), ("second", 2.0, 3), ("third", 3.0, 5)] {
        assert!(all.insert(name, of(value, len)).is_none());
    }
    all
}

#[test]
fn they_are_counted_and_listed_in_order() {
    let mut all = three();
    assert_eq!((all.len(), all.is_empty(), all.bytes()), (3, false, 4 * 10));
    let listed: Vec<_> = all.iter().map(|(name, t)| (name.to_owned(), t.numel())).collect();
    assert_eq!(listed, [("first".to_owned(), 2), ("second".to_owned(), 3), ("third".to_owned(), 5)]);
    // One that is there keeps its place, and gives what it stood for.
    assert_eq!(all.insert("first", of(7.0, 1)).unwrap().to_vec(), [1.0, 1.0]);
    assert_eq!(all.names().collect::<Vec<_>>(), ["first", "second", "third"]);
    assert_eq!(all["first"].to_vec(), [7.0]);
    all.values_mut().for_each(|t| *t = &*t * 2.0);
    assert_eq!(all["second"].to_vec(), [4.0; 3]);
    let moved = all.to_device(&Device::Cpu);
    assert_eq!((moved.len(), moved["third"].to_vec()), (3, vec![6.0; 5]));
}

#[test]
fn what_is_taken_out_leaves_the_others_where_they_are_found() {
    let mut all = three();
    assert_eq!(all.remove("second").unwrap().to_vec(), [2.0; 3]);
    assert!(all.remove("second").is_none() && all.get("second").is_none());
    assert_eq!(all.names().collect::<Vec<_>>(), ["first", "third"]);
    assert_eq!((all["first"].to_vec(), all["third"].to_vec()), (vec![1.0; 2], vec![3.0; 5]));
    all.insert("fourth", of(4.0, 1));
    assert_eq!(all.remove("first").unwrap().to_vec(), [1.0; 2]);
    assert_eq!((all["third"].to_vec(), all["fourth"].to_vec()), (vec![3.0; 5], vec![4.0]));
}
