//! Every shape check, so that all messages read alike and name both shapes.
//!
//! A shape mismatch is a programming error: it panics at the caller's line. What depends on a
//! user's data (devices, files, names) returns a `Result` instead.

/// Number of elements of a shape that a tensor can have: one whose product does not wrap.
#[track_caller]
pub(crate) fn numel(shape: &[usize]) -> usize {
    match crate::layout::numel(shape) {
        Some(n) => n,
        None => panic!("a tensor of shape {shape:?} would have more elements than can be addressed"),
    }
}

/// Number of elements of what an op makes of two operands: small ones can make a large result.
#[track_caller]
pub(crate) fn result(op: &str, a: &[usize], b: &[usize], shape: &[usize]) -> usize {
    match crate::layout::numel(shape) {
        Some(n) => n,
        None => panic!(
            "{op}: shapes {a:?} and {b:?} make a result of shape {shape:?}, which would have more elements than can be \
             addressed"
        ),
    }
}

/// The parts of a layout.
#[track_caller]
pub(crate) fn strides(shape: &[usize], strides: &[usize], offset: usize) {
    assert!(
        shape.len() == strides.len(),
        "a layout needs one stride per axis, not strides {strides:?} for shape {shape:?}"
    );
    numel(shape);
    let reach =
        shape.iter().zip(strides).try_fold(offset, |end, (n, s)| end.checked_add((n.max(&1) - 1).checked_mul(*s)?));
    assert!(
        reach.is_some_and(|last| last < isize::MAX as usize),
        "a layout of shape {shape:?} with strides {strides:?} from {offset} reaches further than can be addressed"
    );
}

#[track_caller]
pub(crate) fn element_count(count: usize, shape: &[usize]) {
    let want = numel(shape);
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
        Some(shape) => {
            result(op, a, b, &shape);
            shape
        }
        None => panic!("{op}: shapes {a:?} and {b:?} do not broadcast"),
    }
}

#[track_caller]
pub(crate) fn same_shape(op: &str, a: &[usize], b: &[usize]) {
    assert!(a == b, "{op}: shapes {a:?} and {b:?} must be equal");
}

/// What is written to holds every element once: else one write would change many, and which of
/// several values stays would be chance.
#[track_caller]
pub(crate) fn region(op: &str, region: &crate::Layout) {
    assert!(
        !region.repeats(),
        "{op}: the region of shape {:?} with strides {:?} holds elements of the tensor more than once; write to a view \
         without `expand`",
        region.shape(),
        region.strides()
    );
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
