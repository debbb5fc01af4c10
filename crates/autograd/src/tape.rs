//! The tape: what was computed, in order, and how to go back.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use ironlens_tensor::Tensor;

/// A record of a computation. Cloning gives another handle to the same record.
#[derive(Clone, Default)]
pub struct Tape(Rc<RefCell<Vec<Node>>>);

/// A tensor, and its place on a tape if it depends on one of the tape's leaves.
#[derive(Clone)]
pub struct Var {
    value: Tensor,
    place: Option<Place>,
}

#[derive(Clone)]
struct Place {
    tape: Tape,
    id: usize,
}

struct Node {
    shape: Vec<usize>,
    kind: Kind,
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
    pub fn leaf(&self, value: Tensor) -> Var {
        self.push(value, Kind::Leaf)
    }

    /// Number of recorded steps.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&self, value: Tensor, kind: Kind) -> Var {
        let mut nodes = self.0.borrow_mut();
        nodes.push(Node { shape: value.shape().to_vec(), kind });
        let id = nodes.len() - 1;
        drop(nodes);
        Var { value, place: Some(Place { tape: self.clone(), id }) }
    }
}

impl Var {
    /// The result of an op on `parents`. `backward` is given the gradient of the result and hands
    /// gradients of the parents (by their index here) to the [`Sink`]; it is dropped unused if no
    /// parent is on a tape. It should hold on to what it reads and no more.
    ///
    /// # Panics
    /// If parents are on different tapes.
    #[track_caller]
    pub fn record(value: Tensor, parents: &[&Var], backward: impl FnOnce(Tensor, &mut Sink<'_>) + 'static) -> Var {
        let Some(tape) = parents.iter().find_map(|p| p.place.as_ref()).map(|p| p.tape.clone()) else {
            return Var { value, place: None };
        };
        let parents = parents
            .iter()
            .map(|p| {
                let place = p.place.as_ref()?;
                assert!(Rc::ptr_eq(&place.tape.0, &tape.0), "operands are on two different tapes");
                Some(place.id)
            })
            .collect();
        tape.push(value, Kind::Op { parents, backward: Box::new(backward) })
    }

    /// The same value, at a point where [`Var::backward_with`] shows its gradient under `tag`.
    /// A value that is on no tape has no gradient and stays as it is.
    pub fn tap(self, tag: usize) -> Var {
        match self.place {
            None => self,
            Some(place) => place.tape.push(self.value, Kind::Tap { parent: place.id, tag }),
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
    pub fn dim(&self, axis: usize) -> usize {
        self.value.dim(axis)
    }

    /// Gradients of this value, which has one element, by every leaf. Uses up the tape.
    ///
    /// # Panics
    /// If it has more than one element, or its tape has been used up.
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
    #[track_caller]
    pub fn backward_with<E>(
        &self,
        mut observe: impl FnMut(usize, &mut Tensor) -> Result<(), E>,
    ) -> Result<Gradients, E> {
        assert!(self.value.numel() == 1, "backward starts from one number, not from shape {:?}", self.shape());
        let Some(Place { tape, id }) = &self.place else { return Ok(Gradients(Vec::new())) };
        let mut nodes = std::mem::take(&mut *tape.0.borrow_mut());
        assert!(*id < nodes.len(), "this tape has been used up by an earlier backward");
        nodes.truncate(id + 1);
        let mut pending: Vec<Pending> = Vec::new();
        pending.resize_with(id + 1, Pending::default);
        pending[*id] = Pending::Whole(Tensor::full(self.shape(), 1.0, self.value.dtype(), &self.value.device()));
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
                        backward(grad, &mut Sink { pending: &mut pending, parents: &parents });
                    }
                }
                Kind::Tap { parent, tag } => {
                    if let Some(mut grad) = std::mem::take(slot).finish(&node.shape) {
                        observe(tag, &mut grad)?;
                        assert!(
                            grad.shape() == node.shape,
                            "a gradient of shape {:?} was replaced by one of shape {:?}",
                            node.shape,
                            grad.shape()
                        );
                        pending[parent].add(grad);
                    }
                }
            }
        }
        Ok(Gradients(pending))
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
    pending: &'a mut [Pending],
    parents: &'a [Option<usize>],
}

impl Sink<'_> {
    /// Number of parents.
    pub(crate) fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether anybody needs the gradient of parent `i`.
    pub fn wants(&self, i: usize) -> bool {
        self.parents[i].is_some()
    }

    /// Adds to the gradient of parent `i`.
    pub fn add(&mut self, i: usize, grad: Tensor) {
        if let Some(id) = self.parents[i] {
            self.pending[id].add(grad);
        }
    }

    /// Adds the gradient that `grad` computes, if anybody needs it.
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
            _ => {
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
                pieces.sort_by_key(|(start, _)| *start);
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
pub struct Gradients(Vec<Pending>);

impl Gradients {
    /// The gradient of a leaf; `None` if the result did not depend on it, or it was taken before.
    pub fn take(&mut self, leaf: &Var) -> Option<Tensor> {
        let id = leaf.place.as_ref()?.id;
        std::mem::take(self.0.get_mut(id)?).finish(leaf.shape())
    }
}

/// The derivative of a view: used by `views.rs`.
pub(crate) fn narrow(x: &Var, axis: usize, start: usize, len: usize) -> Var {
    let shape = x.shape().to_vec();
    Var::record(x.value().narrow(axis, start, len), &[x], move |dy, sink| {
        sink.add_narrow(0, &shape, axis, start, dy);
    })
}
