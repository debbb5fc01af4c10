//! Where tensors live.

use crate::backend::Backend;
use crate::cpu::Cpu;

/// A place that holds tensors and computes on them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The processor: ndarray layouts, rayon threads, faer products.
    #[default]
    Cpu,
    /// A GPU: kernels in WGSL through wgpu (Metal, Vulkan). Tensors there are `f32`.
    #[cfg(feature = "gpu")]
    Gpu(crate::gpu::Gpu),
}

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No usable GPU.
    #[error("no GPU can be used: {reason}")]
    NoGpu {
        /// What was tried and why it failed.
        reason: String,
    },
    /// A name that is none of `auto`, `cpu`, `gpu`.
    #[error("unknown device `{given}`: expected `auto`, `cpu` or `gpu`")]
    Unknown {
        /// The name given.
        given: String,
    },
}

impl Device {
    /// The fastest device at hand: a hardware GPU if there is one, else the CPU. Never a
    /// software adapter.
    pub fn best() -> Device {
        Device::best_with_reason().0
    }

    /// [`Device::best`], and why it is not a GPU: there is none, it was refused, or a variable that is
    /// to choose one has a value that it does not take.
    pub fn best_with_reason() -> (Device, Option<DeviceError>) {
        Device::gpu().map_or_else(|e| (Device::Cpu, Some(e)), |gpu| (gpu, None))
    }

    /// The GPU.
    ///
    /// # Errors
    /// [`DeviceError::NoGpu`] where there is none.
    pub fn gpu() -> Result<Device, DeviceError> {
        #[cfg(feature = "gpu")]
        return crate::gpu::Gpu::open().map(Device::Gpu).map_err(|reason| DeviceError::NoGpu { reason });
        #[cfg(not(feature = "gpu"))]
        Err(DeviceError::NoGpu { reason: "this build is without the feature `gpu`".into() })
    }

    /// `auto`, `cpu` or `gpu`, as command lines give it.
    ///
    /// # Errors
    /// Another name, or `gpu` where there is none.
    pub fn from_name(name: &str) -> Result<Device, DeviceError> {
        match name {
            "auto" => Ok(Device::best()),
            "cpu" => Ok(Device::Cpu),
            "gpu" => Device::gpu(),
            _ => Err(DeviceError::Unknown { given: name.into() }),
        }
    }

    /// The most bytes that one tensor may have here, if there is such a limit.
    pub fn max_tensor_bytes(&self) -> Option<u64> {
        match self {
            Device::Cpu => None,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => Some(gpu.max_tensor_bytes()),
        }
    }

    /// Bytes of the memory that tensors here are in, if that is known: the machine's, on the CPU and on a GPU that has
    /// no memory of its own.
    pub fn memory_bytes(&self) -> Option<u64> {
        match self {
            Device::Cpu => crate::machine::memory(),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.shares_memory().then(crate::machine::memory).flatten(),
        }
    }

    /// Hands over what a GPU has recorded so far, without waiting for it; does nothing on the CPU.
    pub fn flush(&self) {
        match self {
            Device::Cpu => {}
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => gpu.flush(),
        }
    }

    /// Waits until all that was asked of this device is done.
    pub fn synchronize(&self) {
        self.backend().finish();
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        match self {
            Device::Cpu => &Cpu,
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => &gpu.ops,
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => write!(f, "gpu ({})", gpu.name()),
        }
    }
}
