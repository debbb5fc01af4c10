//! CPU memory: reference-counted buffers that go back to a pool, so that a training step
//! allocates nothing of tensor size after the first.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use half::{bf16, f16};

use super::stored::Stored;
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
    Bf16(Arc<Buffer<bf16>>),
    F16(Arc<Buffer<f16>>),
}

/// Evaluates an expression with `$b` bound to the memory, of whatever type.
macro_rules! with_buffer {
    ($storage:expr, $b:ident => $body:expr) => {
        match $storage {
            CpuStorage::F32($b) => $body,
            CpuStorage::F64($b) => $body,
            CpuStorage::Bf16($b) => $body,
            CpuStorage::F16($b) => $body,
        }
    };
}

impl CpuStorage {
    pub(crate) fn dtype(&self) -> DType {
        match self {
            CpuStorage::F32(_) => DType::F32,
            CpuStorage::F64(_) => DType::F64,
            CpuStorage::Bf16(_) => DType::Bf16,
            CpuStorage::F16(_) => DType::F16,
        }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        with_buffer!(self, b => b.len())
    }

    /// Whether both are the same memory.
    pub(crate) fn same(&self, other: &CpuStorage) -> bool {
        let place = |s: &CpuStorage| with_buffer!(s, b => Arc::as_ptr(b).addr());
        self.dtype() == other.dtype() && place(self) == place(other)
    }

    /// Whether nobody else holds this memory.
    pub(crate) fn is_unique(&mut self) -> bool {
        with_buffer!(self, b => Arc::get_mut(b).is_some())
    }
}

/// A vector that returns to the [`Pool`] when dropped.
#[derive(Debug)]
#[doc(hidden)]
pub struct Buffer<E: Stored>(Vec<E>);

impl<E: Stored> Buffer<E> {
    /// A buffer for the elements of `shape` with unspecified (but initialised) contents.
    pub(crate) fn scratch(shape: &[usize]) -> Self {
        let len = check::numel(shape);
        Buffer(E::pool().take(len).unwrap_or_else(|| allocate(len, E::default(), shape)))
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
fn allocate<E: Stored>(len: usize, value: E, shape: &[usize]) -> Vec<E> {
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

impl<E: Stored> From<Vec<E>> for Buffer<E> {
    fn from(v: Vec<E>) -> Self {
        Buffer(v)
    }
}

impl<E: Stored> Clone for Buffer<E> {
    fn clone(&self) -> Self {
        let mut copy = Buffer::scratch(&[self.len()]);
        copy.copy_from_slice(self);
        copy
    }
}

impl<E: Stored> Deref for Buffer<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        &self.0
    }
}

impl<E: Stored> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.0
    }
}

impl<E: Stored> Drop for Buffer<E> {
    fn drop(&mut self) {
        E::pool().give(std::mem::take(&mut self.0));
    }
}

/// Freed buffers by length. Lengths repeat from step to step, so a free list per exact length finds one every time.
/// Where they do not (texts of every length), the pool fills up: then the lengths that were used longest ago give way.
#[doc(hidden)]
pub struct Pool<E>(Mutex<PoolState<E>>);

struct PoolState<E> {
    free: BTreeMap<usize, Free<E>>,
    bytes: usize,
    /// Buffers that were asked for or given back so far.
    uses: u64,
    /// Fresh allocations of pooled size since the program started.
    allocations: usize,
}

/// The free buffers of one length.
struct Free<E> {
    buffers: Vec<Vec<E>>,
    /// When the length was last used, by [`PoolState::uses`].
    used: u64,
}

impl<E> PoolState<E> {
    /// The free buffers of a length that is used now.
    fn of(&mut self, len: usize) -> &mut Free<E> {
        self.uses += 1;
        let free = self.free.entry(len).or_insert(Free { buffers: Vec::new(), used: 0 });
        free.used = self.uses;
        free
    }

    /// Takes the buffers of other lengths than `len` out of a full pool, those used longest ago first, until one of
    /// `len` has room and an eighth of the pool is free: so that the lengths are looked through once for many buffers.
    fn make_room(&mut self, len: usize) -> Vec<Vec<E>> {
        let most = (MAX_POOLED_BYTES / 8 * 7).min(MAX_POOLED_BYTES - len * size_of::<E>());
        let mut others: Vec<(u64, usize)> =
            self.free.iter().filter(|(other, _)| **other != len).map(|(other, free)| (free.used, *other)).collect();
        others.sort_unstable();
        let mut dropped = Vec::new();
        for (_, other) in others {
            if self.bytes <= most {
                break;
            }
            let free = self.free.remove(&other).map_or_else(Vec::new, |free| free.buffers);
            self.bytes -= free.len() * other * size_of::<E>();
            dropped.extend(free);
        }
        dropped
    }
}

impl<E: Stored> Pool<E> {
    pub(crate) const fn new() -> Self {
        Pool(Mutex::new(PoolState { free: BTreeMap::new(), bytes: 0, uses: 0, allocations: 0 }))
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
        let found = state.of(len).buffers.pop();
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
        if v.len() < MIN_POOLED || bytes > MAX_POOLED_BYTES {
            return;
        }
        let mut state = self.lock();
        let full = state.bytes + bytes > MAX_POOLED_BYTES;
        let dropped = if full { state.make_room(v.len()) } else { Vec::new() };
        let len = v.len();
        let mut left = Some(v);
        if state.bytes + bytes <= MAX_POOLED_BYTES {
            state.bytes += bytes;
            state.of(len).buffers.extend(left.take());
        }
        // The system takes memory back after the lock is free.
        drop(state);
        drop((dropped, left));
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
    let wide = f32::pool().allocations() + f64::pool().allocations();
    wide + bf16::pool().allocations() + f16::pool().allocations()
}

/// Gives the memory that freed tensors left in the pool back to the system.
pub fn release_pooled_memory() {
    f32::pool().clear();
    f64::pool().clear();
    bf16::pool().clear();
    f16::pool().clear();
}

/// Memory from this many elements on is worth giving back at once.
const LARGE: usize = 1 << 18;

/// [`release_pooled_memory`], where memory of so many elements was freed that nothing of its size asks for again, if it
/// is large: so that a model is never there twice while it is read, processed or made of others.
pub fn release_if_large(elements: usize) {
    if elements >= LARGE {
        release_pooled_memory();
    }
}
