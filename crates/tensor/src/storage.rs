//! The memory of a tensor, by device.

use crate::cpu::storage::CpuStorage;
use crate::cpu::stored::Stored;
use crate::{DType, Device};

/// The memory of a tensor, by device.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Cpu(CpuStorage),
    #[cfg(feature = "gpu")]
    Gpu(std::sync::Arc<crate::gpu::Memory>),
}

/// CPU kernels are given tensors on the CPU: public methods check the place of their operands.
#[cfg(feature = "gpu")]
const NOT_ON_THE_CPU: &str = "a CPU kernel was given a tensor on the GPU";

impl Storage {
    pub fn dtype(&self) -> DType {
        match self {
            Storage::Cpu(s) => s.dtype(),
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => DType::F32,
        }
    }

    pub fn device(&self) -> Device {
        match self {
            Storage::Cpu(_) => Device::Cpu,
            #[cfg(feature = "gpu")]
            Storage::Gpu(m) => Device::Gpu(crate::gpu::Gpu::of(m.context())),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Storage::Cpu(s) => s.len(),
            #[cfg(feature = "gpu")]
            Storage::Gpu(m) => m.len(),
        }
    }

    /// Whether both are the same memory.
    pub fn same(&self, other: &Storage) -> bool {
        match (self, other) {
            (Storage::Cpu(a), Storage::Cpu(b)) => a.same(b),
            #[cfg(feature = "gpu")]
            (Storage::Gpu(a), Storage::Gpu(b)) => std::sync::Arc::ptr_eq(a, b),
            #[cfg(feature = "gpu")]
            (Storage::Cpu(_), Storage::Gpu(_)) | (Storage::Gpu(_), Storage::Cpu(_)) => false,
        }
    }

    /// Whether nobody else holds this memory.
    pub fn is_unique(&mut self) -> bool {
        match self {
            Storage::Cpu(s) => s.is_unique(),
            #[cfg(feature = "gpu")]
            Storage::Gpu(m) => std::sync::Arc::get_mut(m).is_some(),
        }
    }

    pub fn is_on_cpu(&self) -> bool {
        match self {
            Storage::Cpu(_) => true,
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => false,
        }
    }

    /// The elements of memory on the CPU.
    pub fn elements<E: Stored>(&self) -> &[E] {
        match self {
            Storage::Cpu(s) => E::buffer(s),
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => unreachable!("{NOT_ON_THE_CPU}"),
        }
    }

    /// The elements of memory on the CPU for writing; copied first if others hold it.
    pub fn elements_mut<E: Stored>(&mut self) -> &mut [E] {
        match self {
            Storage::Cpu(s) => E::buffer_mut(s),
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => unreachable!("{NOT_ON_THE_CPU}"),
        }
    }
}
