//! Every check of operands, so that all messages read alike and name both shapes.
//!
//! A shape mismatch is a programming error: it panics at the caller's line. What depends on a
//! user's data (devices, files, names) returns a `Result` instead.
//!
//! Kernels trust what is checked here: those of a GPU run without bounds checks. Text is only made
//! of what does not fit.

use crate::backend::{AttentionSpec, RotarySpec};
use crate::{Axis, DType, Device, IndexTensor, Layout, Tensor};

// ---- shapes alone -----------------------------------------------------------------------

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
pub(crate) fn reshape(from: &[usize], to: &[usize]) {
    let (have, want) = (numel(from), numel(to));
    assert!(
        have == want,
        "a tensor of shape {from:?} has {have} elements and does not reshape to {to:?}, which holds {want}"
    );
}

/// The axis that a number names, counted from the last if it is negative.
#[track_caller]
pub(crate) fn axis_number(shape: &[usize], axis: i128) -> usize {
    let n = shape.len() as i128;
    let at = if axis < 0 { axis + n } else { axis };
    assert!((0..n).contains(&at), "axis {axis} does not exist in a tensor of shape {shape:?}");
    at as usize
}

/// The place for a new axis that a number names, counted from the end if it is negative.
#[track_caller]
pub(crate) fn new_axis_number(shape: &[usize], axis: i128) -> usize {
    let n = shape.len() as i128 + 1;
    let at = if axis < 0 { axis + n } else { axis };
    assert!((0..n).contains(&at), "a tensor of shape {shape:?} has no place {axis} for a new axis");
    at as usize
}

#[track_caller]
pub(crate) fn axis(shape: &[usize], axis: usize) {
    assert!(axis < shape.len(), "axis {axis} does not exist in a tensor of shape {shape:?}");
}

/// Axes to reduce: all there, none twice.
#[track_caller]
pub(crate) fn axes(shape: &[usize], axes: &[usize]) {
    for (i, &a) in axes.iter().enumerate() {
        axis(shape, a);
        assert!(!axes[..i].contains(&a), "axis {a} stands twice in the axes {axes:?} of a tensor of shape {shape:?}");
    }
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
pub(crate) fn rows(shape: &[usize], rows: &[usize]) {
    axis(shape, 0);
    for &row in rows {
        range(shape, 0, row, 1);
    }
}

#[track_caller]
pub(crate) fn permutation(shape: &[usize], axes: &[usize]) {
    let valid = axes.len() == shape.len() && (0..shape.len()).all(|a| axes.contains(&a));
    assert!(valid, "{axes:?} is not an order of the axes of a tensor of shape {shape:?}");
}

#[track_caller]
pub(crate) fn at_least_two_axes(op: &str, shape: &[usize]) {
    assert!(shape.len() >= 2, "{op}: two axes are needed, the shape is {shape:?}");
}

#[track_caller]
pub(crate) fn length_one(shape: &[usize], ax: usize) {
    axis(shape, ax);
    assert!(shape[ax] == 1, "axis {ax} of a tensor of shape {shape:?} has not length 1");
}

#[track_caller]
pub(crate) fn one_element(op: &str, shape: &[usize]) {
    assert!(shape.iter().all(|n| *n == 1), "{op}: exactly one element is needed, the shape is {shape:?}");
}

#[track_caller]
pub(crate) fn expands(from: &[usize], to: &[usize], expanded: Option<Layout>) -> Layout {
    match expanded {
        Some(layout) => layout,
        None => panic!("a tensor of shape {from:?} does not expand to {to:?}"),
    }
}

#[track_caller]
pub(crate) fn within(layout: &Layout, memory: usize) {
    assert!(layout.end() <= memory, "{layout:?} reaches past a memory of {memory} elements");
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

/// The shape of a matrix product.
#[track_caller]
pub(crate) fn product(op: &str, a: &[usize], b: &[usize]) -> Vec<usize> {
    let (m, n) = (a.len(), b.len());
    let fits = m >= 2 && n >= 2 && a[m - 1] == b[n - 2];
    requires(fits, op, a, b, "the left's last axis must equal the right's last but one");
    let leading = crate::layout::broadcast_shape(&a[..m - 2], &b[..n - 2]);
    requires(leading.is_some(), op, a, b, "the axes before the last two must broadcast");
    let mut shape = leading.unwrap_or_default();
    shape.extend([a[m - 2], b[n - 1]]);
    result(op, a, b, &shape);
    shape
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

/// The largest of nothing does not exist, unless nobody asks for one.
#[track_caller]
pub(crate) fn not_of_nothing(op: &str, shape: &[usize], result: &[usize]) {
    let holds = !shape.contains(&0) || result.contains(&0);
    requires(holds, op, shape, result, "each element of the result needs one to be the largest of");
}

/// An op over the last axis, which must be there.
#[track_caller]
pub(crate) fn row(op: &str, x: &Tensor) {
    computes(op, x);
    assert!(x.ndim() > 0, "{op}: rows lie along the last axis, and a tensor of shape [] has none");
}

/// A tensor that is computed with.
#[track_caller]
pub(crate) fn computes(op: &str, x: &Tensor) {
    let dtype = x.dtype();
    assert!(
        !dtype.is_storage(),
        "{op}: {dtype} is a storage type, for the weights of products and the rows of tables: \
         `.to_dtype(DType::F32)` first (shape {:?})",
        x.shape()
    );
}

/// Refuses a type that has not 16 bits.
#[track_caller]
pub(crate) fn sixteen_bits(op: &str, dtype: DType) -> ! {
    panic!("{op}: the values of {dtype} have not 16 bits: DType::Bf16 and DType::F16 have")
}

// ---- tensors beside one another ---------------------------------------------------------

/// Operands that are computed with together.
#[track_caller]
pub(crate) fn same_place(op: &str, a: &Tensor, b: &Tensor) {
    same_kind(op, a, b);
    computes(op, a);
}

/// Factors of a product, of which the right one may be stored in 16 bits.
#[track_caller]
pub(crate) fn factors(op: &str, a: &Tensor, b: &Tensor) {
    computes(op, a);
    if !(b.dtype().is_storage() && a.dtype() == DType::F32 && a.device() == b.device()) {
        same_kind(op, a, b);
    }
}

/// Tensors of one type on one device, whatever the type.
#[track_caller]
pub(crate) fn same_kind(op: &str, a: &Tensor, b: &Tensor) {
    assert!(
        a.dtype() == b.dtype() && a.device() == b.device(),
        "{op}: operands are {} on {} and {} on {}; convert one of them first",
        a.dtype(),
        a.device(),
        b.dtype(),
        b.device()
    );
}

#[track_caller]
pub(crate) fn same_device(op: &str, a: &Tensor, b: &Tensor) {
    assert!(
        a.device() == b.device(),
        "{op}: operands are on {} and on {}; move one of them first",
        a.device(),
        b.device()
    );
}

#[track_caller]
pub(crate) fn f32_on_cpu(op: &str, x: &Tensor) {
    assert!(
        x.dtype() == DType::F32 && x.device() == Device::Cpu,
        "{op}: an f32 tensor on the CPU is needed, this is {} on {}; use to_ndarray()",
        x.dtype(),
        x.device()
    );
}

/// What a device can hold.
#[track_caller]
pub(crate) fn holds(device: &Device, dtype: DType) {
    assert!(
        *device == Device::Cpu || dtype == DType::F32,
        "tensors on {device} are f32, not {dtype}; use the CPU for {dtype}"
    );
}

/// A shape that follows from those of the operands `beside` it.
#[track_caller]
pub(crate) fn shape(op: &str, beside: &[&Tensor], name: &str, given: &[usize], want: &[usize]) {
    if given != want {
        let beside: Vec<String> = beside.iter().map(|x| format!("{:?}", x.shape())).collect();
        panic!("{op}: {name} must have shape {want:?} beside {}, not {given:?}", beside.join(" and "));
    }
}

/// A tensor whose shape follows from those of the operands `beside` it, where they are.
#[track_caller]
pub(crate) fn operand(op: &str, beside: &[&Tensor], name: &str, given: &Tensor, want: &[usize]) {
    same_place(op, beside[0], given);
    shape(op, beside, name, given.shape(), want);
}

/// A tensor like `x`.
#[track_caller]
pub(crate) fn alike(op: &str, x: &Tensor, name: &str, given: &Tensor) {
    operand(op, &[x], name, given, x.shape());
}

/// One number for each element of a row of `x`, which has rows.
#[track_caller]
pub(crate) fn vector(op: &str, x: &Tensor, name: &str, given: &Tensor) {
    operand(op, &[x], name, given, &x.shape()[x.ndim() - 1..]);
}

/// One number for each row of `x`, which has rows: `[.., 1]`.
#[track_caller]
pub(crate) fn per_row(op: &str, x: &Tensor, name: &str, given: &Tensor) {
    same_place(op, x, given);
    let (rows, n) = (x.shape(), x.ndim());
    let s = given.shape();
    if s.len() != n || s[..n - 1] != rows[..n - 1] || s[n - 1] != 1 {
        let want = [&rows[..n - 1], &[1]].concat();
        shape(op, &[x], name, s, &want);
    }
}

/// The axis along which arrays of these shapes can be joined.
#[track_caller]
pub(crate) fn shapes_join(op: &str, shapes: &[&[usize]], axis: impl Axis) -> usize {
    let Some(first) = shapes.first() else { panic!("{op}: at least one tensor is needed") };
    let axis = axis.of(first);
    for shape in &shapes[1..] {
        let fits = shape.len() == first.len() && (0..first.len()).all(|a| a == axis || shape[a] == first[a]);
        requires(fits, op, first, shape, "all other axes must be equal");
    }
    axis
}

/// Tensors to join along `axis`: the first of them, and the axis.
#[track_caller]
pub(crate) fn joinable(parts: &[Tensor], axis: impl Axis) -> (&Tensor, usize) {
    for pair in parts.windows(2) {
        same_kind("cat", &pair[0], &pair[1]);
    }
    let shapes: Vec<&[usize]> = parts.iter().map(Tensor::shape).collect();
    let axis = shapes_join("cat", &shapes, axis);
    (&parts[0], axis)
}

/// The length of every row.
#[track_caller]
pub(crate) fn even_rows<T>(rows: &[Vec<T>]) -> usize {
    let width = rows.first().map_or(0, Vec::len);
    for (i, row) in rows.iter().enumerate() {
        assert!(row.len() == width, "row 0 has {width} elements and row {i} has {}: they need one length", row.len());
    }
    width
}

/// Tensors to join along a new axis.
#[track_caller]
pub(crate) fn stackable(parts: &[Tensor], axis: impl Axis) -> usize {
    for pair in parts.windows(2) {
        same_kind("stack", &pair[0], &pair[1]);
    }
    let shapes: Vec<&[usize]> = parts.iter().map(Tensor::shape).collect();
    shapes_stack(&shapes, axis)
}

/// Shapes to join along a new axis.
#[track_caller]
pub(crate) fn shapes_stack(shapes: &[&[usize]], axis: impl Axis) -> usize {
    let Some(first) = shapes.first() else { panic!("stack: at least one tensor is needed") };
    for shape in &shapes[1..] {
        same_shape("stack", first, shape);
    }
    axis.new_in(first)
}

/// The shape that `x` was broadcast from.
#[track_caller]
pub(crate) fn sum_to(x: &[usize], from: &[usize]) {
    let fits = x.len() >= from.len() && from.iter().zip(&x[x.len() - from.len()..]).all(|(f, n)| *f == 1 || f == n);
    requires(fits, "sum_to", x, from, "the second must broadcast to the first");
}

// ---- attention --------------------------------------------------------------------------

/// Queries and keys, and what says how their scores are made.
#[track_caller]
pub(crate) fn attention(op: &str, q: &Tensor, k: &Tensor, spec: &AttentionSpec) {
    same_place(op, q, k);
    let (a, b) = (q.shape(), k.shape());
    let fits = a.len() == 4 && b.len() == 4 && a[0] == b[0] && a[3] == b[3] && a[2].is_multiple_of(b[2]);
    requires(fits, op, a, b, "[batch, query, head, d_head] and [batch, key, kv_head, d_head]");
    let [queries, heads, keys] = [a[1], a[2], b[1]];
    result(op, a, b, &[a[0], heads, queries, keys]);
    if let Some(alibi) = &spec.alibi {
        shape(op, &[q, k], "alibi", &[alibi.slopes.len()], &[heads]);
    }
    if let Some(mask) = &spec.key_mask {
        shape(op, &[q, k], "key_mask", mask.shape(), &[a[0], keys]);
    }
    // Where a query stands matters only to what compares its place with a key's.
    let placed = spec.causal || spec.window.is_some() || spec.alibi.is_some();
    let end = spec.query_start.saturating_add(queries);
    assert!(
        !placed || end <= keys,
        "{op}: query_start places the queries at {}..{end}, and there are {keys} keys: shapes {a:?} and {b:?}",
        spec.query_start
    );
}

/// What belongs to each query and key: `[batch, head, query, key]`.
#[track_caller]
pub(crate) fn pattern(op: &str, q: &Tensor, k: &Tensor, name: &str, given: &Tensor) {
    let (a, b) = (q.shape(), k.shape());
    operand(op, &[q, k], name, given, &[a[0], a[2], a[1], b[1]]);
}

/// A pattern and the values that it mixes.
#[track_caller]
pub(crate) fn mix(op: &str, pattern: &Tensor, values: &Tensor) {
    same_place(op, pattern, values);
    let (p, v) = (pattern.shape(), values.shape());
    let fits = p.len() == 4 && v.len() == 4 && p[0] == v[0] && p[3] == v[1] && p[1].is_multiple_of(v[2]);
    requires(fits, op, p, v, "[batch, head, query, key] and [batch, key, kv_head, d_head]");
    result(op, p, v, &[p[0], p[2], p[1], v[3]]);
}

#[track_caller]
pub(crate) fn rotary(x: &Tensor, spec: &RotarySpec) {
    same_place("rotary", x, &spec.cos);
    let (a, c) = (x.shape(), spec.cos.shape());
    let fits =
        a.len() == 4 && c.len() == 3 && (c[0] == 1 || c[0] == a[0]) && c[1] == a[1] && c[2].saturating_mul(2) <= a[3];
    requires(fits, "rotary", a, c, "[batch, pos, head, d_head] and [batch or 1, pos, rotary_dim / 2]");
    alike("rotary", &spec.cos, "sin", &spec.sin);
}

// ---- indices ----------------------------------------------------------------------------

/// Indices that choose among `rows` of a tensor of shape `of`.
#[track_caller]
pub(crate) fn ids(op: &str, ids: &IndexTensor, rows: usize, of: &[usize]) {
    // The largest stands for all: a loop that the compiler vectorises.
    let largest = ids.as_slice().iter().fold(0, |m, &i| m.max(i));
    assert!(
        (largest as usize) < rows || ids.numel() == 0,
        "{op}: index {largest} does not exist: indices {:?} choose among {rows}, beside {of:?}",
        ids.shape()
    );
}

/// One index for each row of `x`, by which it chooses an element of the row.
#[track_caller]
pub(crate) fn id_per_row(op: &str, x: &Tensor, given: &IndexTensor) {
    row(op, x);
    let (a, n) = (x.shape(), x.ndim());
    requires(a[..n - 1] == *given.shape(), op, a, given.shape(), "one index per row");
    ids(op, given, a[n - 1], a);
}

/// A table `[row, width]`, and indices of its rows.
#[track_caller]
pub(crate) fn table(op: &str, x: &Tensor, given: &IndexTensor) {
    requires(x.ndim() == 2, op, x.shape(), given.shape(), "the table must be [row, width]");
    ids(op, given, x.shape()[0], x.shape());
}

/// A row `[width]` for each index.
#[track_caller]
pub(crate) fn row_per_id(op: &str, x: &Tensor, given: &IndexTensor, rows: usize) {
    row(op, x);
    let a = x.shape();
    requires(a[..a.len() - 1] == *given.shape(), op, a, given.shape(), "one row per index");
    ids(op, given, rows, a);
    result(op, a, given.shape(), &[rows, a[a.len() - 1]]);
}
