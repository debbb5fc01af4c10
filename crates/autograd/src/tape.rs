//! The tape: what was computed, in order, and how to go back.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use ironlens_tensor::{Axis, DType, Device, Tensor};

/// Records a computation. Cloning gives another handle to the same tape.
///
/// [`Var::backward`] uses up what was recorded. The tape may go on, with new leaves: values from
/// before belong to the record that is gone, and computing with them panics.
#[derive(Clone, Default)]
pub struct Tape(Rc<RefCell<Record>>);

/// What a tape holds between one `backward` and the next.
struct Record {
    /// No other record of this program has it.
    number: u64,
    nodes: Vec<Node>,
}

impl Default for Record {
    fn default() -> Record {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Record { number: NEXT.fetch_add(1, Ordering::Relaxed), nodes: Vec::new() }
    }
}

/// A tensor, and its place on a tape if it depends on one of the tape's leaves.
#[derive(Clone)]
pub struct Var {
    value: Tensor,
    place: Option<Place>,
}

#[derive(Clone)]
struct Place {
    tape: Tape,
    /// Number of the record that it is in.
    record: u64,
    /// Which node of that record.
    id: usize,
}

impl Place {
    /// The tape, if it still holds the record.
    #[track_caller]
    fn tape(&self) -> &Tape {
        assert!(
            self.record == self.tape.0.borrow().number,
            "this value was recorded before a `backward` that used its tape up; make new leaves (`Tape::leaf`) and \
             compute it again, or `detach` it"
        );
        &self.tape
    }
}

struct Node {
    shape: Vec<usize>,
    dtype: DType,
    device: Device,
    kind: Kind,
}

impl Node {
    fn new(value: &Tensor, kind: Kind) -> Node {
        Node { shape: value.shape().to_vec(), dtype: value.dtype().computed(), device: value.device(), kind }
    }

    /// Checks that a gradient is like the value that it is of.
    #[track_caller]
    fn check_gradient(&self, grad: &Tensor) {
        let Node { shape, dtype, device, .. } = self;
        assert!(
            grad.shape() == shape && grad.dtype() == *dtype && grad.device() == *device,
            "the gradient of a value of shape {shape:?} in {dtype} on {device} is of shape {:?} in {} on {}; it must be \
             like the value",
            grad.shape(),
            grad.dtype(),
            grad.device()
        );
    }
}

enum Kind {
    Leaf,
    Op { parents: Vec<Option<usize>>, backward: Backward },
    Tap { parent: usize, tag: usize },
}

/// Turns the gradient of a result into gradients of its parents.
type Backward = Box<dyn FnOnce(Tensor, &mut Sink<'_>)>;

/// The gradient of a node so far.
#[derive(Default)]
enum Pending {
    #[default]
    Nothing,
    Whole(Tensor),
    /// Gradients of `start..` along one axis, none overlapping.
    Pieces {
        axis: usize,
        pieces: Vec<(usize, Tensor)>,
    },
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Tape {
        Tape::default()
    }

    /// A value to differentiate by.
    ///
    /// # Panics
    /// If it is of a type for storage alone ([`DType`](ironlens_tensor::DType)): gradients are computed in `f32`.
    /// As a constant (`Var::from`) it may be the weight of a product or a table.
    #[track_caller]
    pub fn leaf(&self, value: Tensor) -> Var {
        assert!(
            !value.dtype().is_storage(),
            "a leaf of shape {:?} is {}, a storage type, which has no gradient: `.to_dtype(DType::F32)` first, or keep it \
             a constant (freeze the weight)",
            value.shape(),
            value.dtype()
        );
        self.push(value, Kind::Leaf)
    }

    /// Number of recorded steps.
    pub fn len(&self) -> usize {
        self.0.borrow().nodes.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&self, value: Tensor, kind: Kind) -> Var {
        let mut record = self.0.borrow_mut();
        record.nodes.push(Node::new(&value, kind));
        let (number, id) = (record.number, record.nodes.len() - 1);
        drop(record);
        Var { value, place: Some(Place { tape: self.clone(), record: number, id }) }
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape of {} steps", self.len())
    }
}

impl Var {
    /// The result of an op on `parents`. `backward` is given the gradient of the result and hands
    /// gradients of the parents (by their index here) to the [`Sink`]; it is dropped unused if no
    /// parent is on a tape. It should hold on to what it reads and no more.
    ///
    /// # Panics
    /// If parents are on different tapes, or were recorded before a [`Var::backward`] of theirs.
    #[track_caller]
    pub fn record(value: Tensor, parents: &[&Var], backward: impl FnOnce(Tensor, &mut Sink<'_>) + 'static) -> Var {
        let Some(place) = parents.iter().find_map(|p| p.place.as_ref()) else {
            return Var { value, place: None };
        };
        let tape = place.tape().clone();
        // A loop, for a closure would be blamed where the caller should be.
        for other in parents.iter().filter_map(|p| p.place.as_ref()) {
            assert!(
                Rc::ptr_eq(&other.tape().0, &tape.0),
                "operands are on two different tapes, and gradients flow along one: make the leaves of both on one \
                 tape, or cut one operand off its tape with `detach`"
            );
        }
        let parents = parents.iter().map(|p| Some(p.place.as_ref()?.id)).collect();
        tape.push(value, Kind::Op { parents, backward: Box::new(backward) })
    }

    /// The same value, at a point where [`Var::backward_with`] shows its gradient under `tag`.
    /// A value that is on no tape has no gradient and stays as it is.
    #[track_caller]
    pub fn tap(self, tag: usize) -> Var {
        match self.place {
            None => self,
            Some(place) => place.tape().push(self.value, Kind::Tap { parent: place.id, tag }),
        }
    }

    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The tensor, without the record.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// The number of a value that has one element.
    ///
    /// # Panics
    /// If it has more, or none.
    #[track_caller]
    pub fn item(&self) -> f64 {
        self.value.item()
    }

    /// The same value as a constant: gradients stop here.
    pub fn detach(&self) -> Var {
        Var { value: self.value.clone(), place: None }
    }

    /// Whether gradients flow to this value.
    pub fn requires_grad(&self) -> bool {
        self.place.is_some()
    }

    /// Length of every axis.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// Length of axis `axis`.
    #[track_caller]
    pub fn dim(&self, axis: impl Axis) -> usize {
        self.value.dim(axis)
    }

    /// Gradients of this value, which has one element, by every leaf. Uses up what the tape has
    /// recorded.
    ///
    /// # Panics
    /// If it has more than one element, or was recorded before an earlier `backward`.
    #[track_caller]
    pub fn backward(&self) -> Gradients {
        match self.backward_with(|_, _| Ok::<(), Infallible>(())) {
            Ok(grads) => grads,
            Err(never) => match never {},
        }
    }

    /// As [`Var::backward`]; `observe` is shown the gradient at every [`Var::tap`] on the way and
    /// may replace it.
    ///
    /// # Errors
    /// The first error of `observe`, which ends the walk.
    ///
    /// # Panics
    /// As [`Var::backward`], and if `observe` leaves a gradient of another shape, type or device.
    #[track_caller]
    pub fn backward_with<E>(
        &self,
        mut observe: impl FnMut(usize, &mut Tensor) -> Result<(), E>,
    ) -> Result<Gradients, E> {
        assert!(self.value.numel() == 1, "backward starts from one number, not from shape {:?}", self.shape());
        let Some(place) = &self.place else { return Ok(Gradients { record: None, found: Vec::new() }) };
        let (id, tape) = (place.id, place.tape());
        let mut nodes = std::mem::take(&mut *tape.0.borrow_mut()).nodes;
        nodes.truncate(id + 1);
        let mut pending: Vec<Pending> = Vec::new();
        pending.resize_with(id + 1, Pending::default);
        pending[id] = Pending::Whole(Tensor::full(self.shape(), 1.0, self.value.dtype(), &self.value.device()));
        while let Some(node) = nodes.pop() {
            let slot = &mut pending[nodes.len()];
            match node.kind {
                Kind::Leaf => {
                    if let Some(grad) = std::mem::take(slot).finish(&node.shape) {
                        *slot = Pending::Whole(grad);
                    }
                }
                Kind::Op { parents, backward } => {
                    if let Some(grad) = std::mem::take(slot).finish(&node.shape) {
                        backward(grad, &mut Sink { nodes: &nodes, pending: &mut pending, parents: &parents });
                    }
                }
                Kind::Tap { parent, tag } => {
                    if let Some(mut grad) = std::mem::take(slot).finish(&node.shape) {
                        observe(tag, &mut grad)?;
                        nodes[parent].check_gradient(&grad);
                        pending[parent].add(grad);
                    }
                }
            }
        }
        Ok(Gradients { record: Some(place.record), found: pending })
    }
}

impl From<Tensor> for Var {
    /// A constant.
    fn from(value: Tensor) -> Var {
        Var { value, place: None }
    }
}

impl std::fmt::Debug for Var {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}{}", self.value, if self.place.is_some() { " (on a tape)" } else { "" })
    }
}

/// Where the derivative of an op puts the gradients of its parents.
pub struct Sink<'a> {
    /// What was recorded before the op, its parents among it.
    nodes: &'a [Node],
    pending: &'a mut [Pending],
    parents: &'a [Option<usize>],
}

impl Sink<'_> {
    /// Number of parents.
    pub(crate) fn len(&self) -> usize {
        self.parents.len()
    }

    /// The node that parent `i` is, if it is on the tape.
    #[track_caller]
    fn parent(&self, i: usize) -> Option<usize> {
        assert!(i < self.len(), "the op has {} parents, from 0; it has no parent {i}", self.len());
        self.parents[i]
    }

    /// Whether anybody needs the gradient of parent `i`.
    ///
    /// # Panics
    /// If there is no such parent.
    #[track_caller]
    pub fn wants(&self, i: usize) -> bool {
        self.parent(i).is_some()
    }

    /// Adds to the gradient of parent `i`.
    ///
    /// # Panics
    /// If there is no such parent, or it has another shape, type or device.
    #[track_caller]
    pub fn add(&mut self, i: usize, grad: Tensor) {
        if let Some(id) = self.parent(i) {
            self.nodes[id].check_gradient(&grad);
            self.pending[id].add(grad);
        }
    }

    /// Adds the gradient that `grad` computes, if anybody needs it.
    ///
    /// # Panics
    /// As [`Sink::add`].
    #[track_caller]
    pub fn add_with(&mut self, i: usize, grad: impl FnOnce() -> Tensor) {
        if self.wants(i) {
            self.add(i, grad());
        }
    }

    /// Adds to the gradient of the elements from `start` along `axis` of parent `i`, of shape
    /// `shape`.
    fn add_narrow(&mut self, i: usize, shape: &[usize], axis: usize, start: usize, grad: Tensor) {
        if let Some(id) = self.parents[i] {
            self.pending[id].add_piece(shape, axis, start, grad);
        }
    }
}

impl std::fmt::Debug for Sink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wanted: Vec<usize> = (0..self.len()).filter(|&i| self.wants(i)).collect();
        write!(f, "Sink for {} parents, which wants gradients of {wanted:?}", self.len())
    }
}

impl Pending {
    fn add(&mut self, grad: Tensor) {
        *self = match std::mem::take(self) {
            Pending::Nothing => Pending::Whole(grad),
            Pending::Whole(sum) => Pending::Whole(sum.into_sum(grad)),
            pieces @ Pending::Pieces { .. } => {
                let sum = pieces.finish(grad.shape()).expect("pieces are something");
                Pending::Whole(sum.into_sum(grad))
            }
        };
    }

    fn add_piece(&mut self, shape: &[usize], axis: usize, start: usize, grad: Tensor) {
        let end = start + grad.dim(axis);
        match self {
            Pending::Nothing => *self = Pending::Pieces { axis, pieces: vec![(start, grad)] },
            Pending::Pieces { axis: a, pieces }
                if *a == axis && pieces.iter().all(|(s, p)| *s >= end || s + p.dim(axis) <= start) =>
            {
                pieces.push((start, grad));
            }
            Pending::Whole(_) | Pending::Pieces { .. } => {
                let mut whole = grad.zeros_like_shape(shape);
                whole.assign(|w| w.narrow(axis, start, end - start), &grad);
                self.add(whole);
            }
        }
    }

    fn finish(self, shape: &[usize]) -> Option<Tensor> {
        match self {
            Pending::Nothing => None,
            Pending::Whole(grad) => Some(grad),
            Pending::Pieces { axis, mut pieces } => {
                // A piece without elements goes before the one that starts where it lies.
                pieces.sort_by_key(|(start, piece)| (*start, piece.dim(axis)));
                let mut parts = Vec::new();
                let mut at = 0;
                let gap = |len: usize, like: &Tensor| {
                    let mut s = shape.to_vec();
                    s[axis] = len;
                    like.zeros_like_shape(&s)
                };
                for (start, grad) in pieces {
                    if start > at {
                        parts.push(gap(start - at, &grad));
                    }
                    at = start + grad.dim(axis);
                    parts.push(grad);
                }
                if at < shape[axis] {
                    parts.push(gap(shape[axis] - at, &parts[0]));
                }
                Some(Tensor::cat(&parts, axis))
            }
        }
    }
}

trait ZerosLikeShape {
    fn zeros_like_shape(&self, shape: &[usize]) -> Tensor;
}

impl ZerosLikeShape for Tensor {
    fn zeros_like_shape(&self, shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, self.dtype(), &self.device())
    }
}

/// What [`Var::backward`] found.
pub struct Gradients {
    /// Number of the record that was used up; `None` if the result was on no tape.
    record: Option<u64>,
    found: Vec<Pending>,
}

impl Gradients {
    /// The gradient of a leaf; `None` if the result did not depend on it, or it was taken before.
    ///
    /// # Panics
    /// If the leaf is of another tape than the result, or of the same before or after another
    /// `backward`.
    #[track_caller]
    pub fn take(&mut self, leaf: &Var) -> Option<Tensor> {
        let (place, record) = (leaf.place.as_ref()?, self.record?);
        assert!(
            place.record == record,
            "these gradients are not of this leaf's record: it is on another tape, or was made before or after \
             another `backward`; take gradients by the leaves that the result was computed from"
        );
        std::mem::take(self.found.get_mut(place.id)?).finish(leaf.shape())
    }
}

impl std::fmt::Debug for Gradients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = self.found.iter().filter(|g| !matches!(g, Pending::Nothing)).count();
        write!(f, "Gradients of {left} leaves")
    }
}

/// The derivative of a view: used by `views.rs`.
#[track_caller]
pub(crate) fn narrow(x: &Var, axis: usize, start: usize, len: usize) -> Var {
    let shape = x.shape().to_vec();
    Var::record(x.value().narrow(axis, start, len), &[x], move |dy, sink| {
        sink.add_narrow(0, &shape, axis, start, dy);
    })
}
