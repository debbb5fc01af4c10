//! GPU memory: buffers by size class that go back to a pool when their last tensor is dropped, so
//! that a training step allocates nothing after the first.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::context::Context;
use crate::GpuFailure;

/// Smallest buffer, and the multiple of all sizes.
const SMALLEST: u64 = 256;
/// The pool keeps at most this many free bytes, and at most this share of a memory that is the machine's.
const MAX_FREE_BYTES: u64 = 4 << 30;
const MAX_FREE_SHARE: u64 = 8;

/// The memory of a GPU tensor: `len` four-byte elements.
pub(crate) struct Memory {
    pub(super) raw: wgpu::Buffer,
    /// Names the buffer for as long as the device lives, also while it waits in the pool.
    pub(super) id: u64,
    bytes: u64,
    len: usize,
    context: Arc<Context>,
}

impl Memory {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// A buffer for a tensor of `shape`, with unspecified contents; `for_host` if the host will write to
    /// it.
    ///
    /// # Panics
    /// With a [`GpuFailure`] if it is larger than the device allows, or there is no memory left.
    pub(super) fn new(context: &Arc<Context>, shape: &[usize], for_host: bool) -> Memory {
        let len = crate::check::numel(shape);
        let (needed, limit) = ((len as u64).saturating_mul(4), largest_tensor(&context.limits));
        if needed > limit {
            let (adapter, shape) = (context.name.clone(), shape.to_vec());
            GpuFailure::TooLarge { adapter, shape, bytes: needed, limit }.raise();
        }
        let bytes = size_class(needed).min(limit);
        let (raw, id) = context.pool.take(bytes, for_host.then(|| context.epoch())).unwrap_or_else(|id| {
            let raw = context.buffer(bytes).unwrap_or_else(|| {
                context.pool.take_back(bytes);
                context.out_of_memory().raise()
            });
            (raw, id)
        });
        Memory { raw, id, bytes, len, context: context.clone() }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GPU buffer {} of {} elements", self.id, self.len)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let epoch = self.context.epoch();
        self.context.pool.give(Free { raw: self.raw.clone(), id: self.id, epoch }, self.bytes);
    }
}

struct Free {
    raw: wgpu::Buffer,
    id: u64,
    /// The submission that was being recorded when it was freed. Commands run in the order of
    /// recording, so a later command may use the buffer at once; a write from the host, which runs
    /// ahead of what is being recorded, may not before that submission is made.
    epoch: u64,
}

/// What a GPU's memory is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Buffers that tensors hold.
    pub live_buffers: usize,
    /// Bytes of these.
    pub live_bytes: u64,
    /// The most bytes that tensors held at one time.
    pub peak_bytes: u64,
    /// Bytes of buffers that wait for reuse.
    pub free_bytes: u64,
    /// Buffers made since the start.
    pub created: u64,
}

/// Free buffers by size.
pub(super) struct Pool {
    state: Mutex<State>,
    /// Bytes that may be free.
    most_free: u64,
}

#[derive(Default)]
struct State {
    free: HashMap<u64, Vec<Free>>,
    /// Numbers of buffers that were not kept, until they are asked for.
    gone: HashSet<u64>,
    usage: MemoryUse,
}

impl Pool {
    /// A pool in a memory that it shares with the machine's programs, of so many bytes, or in one of its own.
    pub fn beside(shared: Option<u64>) -> Pool {
        let most_free = shared.map_or(MAX_FREE_BYTES, |bytes| MAX_FREE_BYTES.min(bytes / MAX_FREE_SHARE));
        Pool { state: Mutex::default(), most_free }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is valid between any two statements, so a poisoned lock is still usable.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn usage(&self) -> MemoryUse {
        self.lock().usage
    }

    fn give(&self, free: Free, bytes: u64) {
        let mut state = self.lock();
        state.usage.live_buffers -= 1;
        state.usage.live_bytes -= bytes;
        if state.usage.free_bytes + bytes <= self.most_free {
            state.usage.free_bytes += bytes;
            state.free.entry(bytes).or_default().push(free);
        } else {
            state.gone.insert(free.id);
        }
    }

    /// Gives up all buffers that are free.
    pub fn drop_free(&self) {
        let mut state = self.lock();
        state.usage.free_bytes = 0;
        let freed: Vec<Free> = state.free.drain().flat_map(|(_, list)| list).collect();
        state.gone.extend(freed.iter().map(|free| free.id));
    }

    /// Counts a buffer that was taken and could not be made as one that nobody holds.
    fn take_back(&self, bytes: u64) {
        let mut state = self.lock();
        state.usage.live_buffers -= 1;
        state.usage.live_bytes -= bytes;
    }

    /// Numbers of the buffers that were given up since this was last asked. What still refers to one keeps its memory
    /// on the device.
    pub fn take_gone(&self) -> HashSet<u64> {
        std::mem::take(&mut self.lock().gone)
    }

    /// A free buffer of `bytes`; for the host, one that was freed before submission `epoch`. If there
    /// is none, the number of the buffer to make.
    fn take(&self, bytes: u64, epoch: Option<u64>) -> Result<(wgpu::Buffer, u64), u64> {
        let mut state = self.lock();
        let list = state.free.entry(bytes).or_default();
        let found = match epoch {
            Some(epoch) => list.iter().position(|f| f.epoch < epoch).map(|i| list.remove(i)),
            None => list.pop(),
        };
        state.usage.live_buffers += 1;
        state.usage.live_bytes += bytes;
        state.usage.peak_bytes = state.usage.peak_bytes.max(state.usage.live_bytes);
        match found {
            Some(f) => {
                state.usage.free_bytes -= bytes;
                Ok((f.raw, f.id))
            }
            None => {
                state.usage.created += 1;
                Err(state.usage.created)
            }
        }
    }
}

/// The most bytes of a tensor: one binding, a buffer that can be read back with a mark behind it, and
/// elements that can be counted in 32 bits, rounded up to a grid of threads.
pub(super) fn largest_tensor(limits: &wgpu::Limits) -> u64 {
    const COUNTABLE: u64 = (1 << 32) - (1 << 24);
    let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size - SMALLEST).min(4 * COUNTABLE);
    bytes / SMALLEST * SMALLEST
}

/// `bytes` rounded up to one of eight sizes per octave.
fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(1).next_multiple_of(SMALLEST);
    let step = (bytes.next_power_of_two() / 16).max(SMALLEST);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_in_the_machine_s_memory_keeps_a_share_of_it() {
        let most = |shared| Pool::beside(shared).most_free;
        assert_eq!([most(None), most(Some(8 << 30)), most(Some(64 << 30))], [4 << 30, 1 << 30, 4 << 30]);
    }

    #[test]
    fn size_classes_waste_little() {
        for bytes in [0u64, 1, 255, 256, 257, 4096, 5000, 1_000_000, 57_600_000] {
            let class = size_class(bytes);
            assert!(class >= bytes.max(1) && class.is_multiple_of(SMALLEST));
            assert!(class < bytes + bytes / 8 + 2 * SMALLEST, "{bytes} {class}");
            assert_eq!(size_class(class), class);
        }
    }
}
