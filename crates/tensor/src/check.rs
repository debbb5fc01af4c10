//! Every shape check, so that all messages read alike and name both shapes.
//!
//! A shape mismatch is a programming error: it panics at the caller's line. What depends on a
//! user's data (devices, files, names) returns a `Result` instead.

#[track_caller]
pub(crate) fn element_count(count: usize, shape: &[usize]) {
    let want: usize = shape.iter().product();
    assert!(count == want, "{count} values do not fill the shape {shape:?}, which holds {want}");
}

#[track_caller]
pub(crate) fn axis(shape: &[usize], axis: usize) {
    assert!(axis < shape.len(), "axis {axis} does not exist in a tensor of shape {shape:?}");
}

#[track_caller]
pub(crate) fn range(shape: &[usize], ax: usize, start: usize, len: usize) {
    axis(shape, ax);
    let n = shape[ax];
    assert!(
        start.checked_add(len).is_some_and(|end| end <= n),
        "elements {start}..{} do not exist on axis {ax} (length {n}) of a tensor of shape {shape:?}",
        start.saturating_add(len)
    );
}

#[track_caller]
pub(crate) fn permutation(shape: &[usize], axes: &[usize]) {
    let mut seen = vec![false; shape.len()];
    let valid =
        axes.len() == shape.len() && axes.iter().all(|&a| a < seen.len() && !std::mem::replace(&mut seen[a], true));
    assert!(valid, "{axes:?} is not an order of the axes of a tensor of shape {shape:?}");
}

#[track_caller]
pub(crate) fn broadcast(op: &str, a: &[usize], b: &[usize]) -> Vec<usize> {
    match crate::layout::broadcast_shape(a, b) {
        Some(shape) => shape,
        None => panic!("{op}: shapes {a:?} and {b:?} do not broadcast"),
    }
}

#[track_caller]
pub(crate) fn same_shape(op: &str, a: &[usize], b: &[usize]) {
    assert!(a == b, "{op}: shapes {a:?} and {b:?} must be equal");
}

#[track_caller]
pub(crate) fn requires(holds: bool, op: &str, a: &[usize], b: &[usize], rule: &str) {
    assert!(holds, "{op}: shapes {a:?} and {b:?} do not fit: {rule}");
}

#[track_caller]
pub(crate) fn same_place(op: &str, a: &crate::Tensor, b: &crate::Tensor) {
    assert!(
        a.dtype() == b.dtype() && a.device() == b.device(),
        "{op}: operands are {} on {} and {} on {}; convert one of them first",
        a.dtype(),
        a.device(),
        b.dtype(),
        b.device()
    );
}
