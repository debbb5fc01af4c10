//! CPU memory: reference-counted buffers that go back to a pool, so that a training step
//! allocates nothing of tensor size after the first.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use super::elem::Elem;
use crate::DType;
use crate::check;

/// Buffers shorter than this are cheaper to allocate than to look up.
const MIN_POOLED: usize = 1024;
/// The pool keeps at most this many bytes per element type.
const MAX_POOLED_BYTES: usize = 512 << 20;

/// The memory of a CPU tensor, by element type.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub enum CpuStorage {
    F32(Arc<Buffer<f32>>),
    F64(Arc<Buffer<f64>>),
}

impl CpuStorage {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            CpuStorage::F32(_) => DType::F32,
            CpuStorage::F64(_) => DType::F64,
        }
    }

    /// Whether both are the same memory.
    pub(crate) fn same(&self, other: &CpuStorage) -> bool {
        match (self, other) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => Arc::ptr_eq(a, b),
            (CpuStorage::F64(a), CpuStorage::F64(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Whether nobody else holds this memory.
    pub(crate) fn is_unique(&mut self) -> bool {
        match self {
            CpuStorage::F32(a) => Arc::get_mut(a).is_some(),
            CpuStorage::F64(a) => Arc::get_mut(a).is_some(),
        }
    }
}

/// A vector that returns to the [`Pool`] when dropped.
#[derive(Debug)]
#[doc(hidden)]
pub struct Buffer<E: Elem>(Vec<E>);

impl<E: Elem> Buffer<E> {
    /// A buffer for the elements of `shape` with unspecified (but initialised) contents.
    pub(crate) fn scratch(shape: &[usize]) -> Self {
        let len = check::numel(shape);
        Buffer(E::pool().take(len).unwrap_or_else(|| allocate(len, E::ZERO, shape)))
    }

    /// A buffer for the elements of `shape`, all `value`.
    pub(crate) fn full(shape: &[usize], value: E) -> Self {
        let len = check::numel(shape);
        match E::pool().take(len) {
            Some(mut v) => {
                v.fill(value);
                Buffer(v)
            }
            None => Buffer(allocate(len, value, shape)),
        }
    }
}

/// `len` copies of `value`. `vec!` makes zeros without touching them, but ends the process where
/// the system has no such memory: large sizes are asked for first.
fn allocate<E: Elem>(len: usize, value: E, shape: &[usize]) -> Vec<E> {
    let mut asked = Vec::<E>::new();
    if len >= MIN_POOLED && asked.try_reserve_exact(len).is_err() {
        let bytes = len as u128 * size_of::<E>() as u128;
        panic!(
            "a tensor of shape {shape:?} needs {bytes} bytes, and there is not so much memory; make the batch or the \
             model smaller"
        );
    }
    // Else the compiler may see that nobody uses the memory, and not ask.
    drop(std::hint::black_box(asked));
    vec![value; len]
}

impl<E: Elem> From<Vec<E>> for Buffer<E> {
    fn from(v: Vec<E>) -> Self {
        Buffer(v)
    }
}

impl<E: Elem> Clone for Buffer<E> {
    fn clone(&self) -> Self {
        let mut copy = Buffer::scratch(&[self.len()]);
        copy.copy_from_slice(self);
        copy
    }
}

impl<E: Elem> Deref for Buffer<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        &self.0
    }
}

impl<E: Elem> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.0
    }
}

impl<E: Elem> Drop for Buffer<E> {
    fn drop(&mut self) {
        E::pool().give(std::mem::take(&mut self.0));
    }
}

/// Freed buffers by length. Lengths repeat from step to step, so a free list per exact length
/// finds one every time.
#[doc(hidden)]
pub struct Pool<E>(Mutex<PoolState<E>>);

struct PoolState<E> {
    free: BTreeMap<usize, Vec<Vec<E>>>,
    bytes: usize,
    /// Fresh allocations of pooled size since the program started.
    allocations: usize,
}

impl<E: Elem> Pool<E> {
    pub(crate) const fn new() -> Self {
        Pool(Mutex::new(PoolState { free: BTreeMap::new(), bytes: 0, allocations: 0 }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PoolState<E>> {
        // The state is valid between any two statements, so a poisoned lock is still usable.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn take(&self, len: usize) -> Option<Vec<E>> {
        if len < MIN_POOLED {
            return None;
        }
        let mut state = self.lock();
        let found = state.free.get_mut(&len).and_then(Vec::pop);
        match found {
            Some(v) => {
                state.bytes -= len * size_of::<E>();
                Some(v)
            }
            None => {
                state.allocations += 1;
                None
            }
        }
    }

    fn give(&self, v: Vec<E>) {
        let bytes = v.len() * size_of::<E>();
        if v.len() < MIN_POOLED {
            return;
        }
        let mut state = self.lock();
        if state.bytes + bytes <= MAX_POOLED_BYTES {
            state.bytes += bytes;
            state.free.entry(v.len()).or_default().push(v);
        }
    }

    pub(crate) fn allocations(&self) -> usize {
        self.lock().allocations
    }

    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.free.clear();
        state.bytes = 0;
    }
}

/// How many buffers of tensor size the CPU has allocated afresh since the program started:
/// constant from one training step to the next once the pool is warm.
pub fn fresh_allocations() -> usize {
    f32::pool().allocations() + f64::pool().allocations()
}

/// Gives the memory that freed tensors left in the pool back to the system.
pub fn release_pooled_memory() {
    f32::pool().clear();
    f64::pool().clear();
}
