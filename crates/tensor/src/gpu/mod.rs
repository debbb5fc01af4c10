//! GPUs, through wgpu: Metal on a Mac, Vulkan elsewhere.

mod attention;
mod backend;
mod context;
mod kernels;
mod matmul;
mod memory;
mod source;
mod tune;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use crate::{IndexTensor, Tensor};

pub(crate) use backend::Ops;
pub use context::{Counts, MATRICES_VARIABLE};
pub(crate) use memory::Memory;
pub use memory::MemoryUse;
pub use tune::{TUNE_VARIABLE, TileChoice};

/// An opened GPU. Clones are the same device.
#[derive(Clone)]
pub struct Gpu {
    pub(crate) ops: Ops,
}

/// A GPU that could be opened.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// As the driver calls it.
    pub name: String,
    /// `DiscreteGpu`, `IntegratedGpu`, `Cpu` for a software one, ..
    pub kind: String,
    /// `Metal`, `Vulkan`, ..
    pub api: String,
    /// Driver and version, as far as known.
    pub driver: String,
    /// Largest tensor, bytes.
    pub max_tensor_bytes: u64,
    /// Memory that the threads of a workgroup share, bytes, and how many threads those are at most.
    pub workgroup: (u32, u32),
    /// What it can, of what kernels use or may use one day.
    pub features: Vec<&'static str>,
    /// Why it cannot be used, if it cannot.
    pub unusable: Option<String>,
    /// Whether it computes on the processor; such are taken by name only.
    pub software: bool,
}

/// The variable that names an adapter, by a part of its name.
pub const ADAPTER_VARIABLE: &str = "IRONLENS_ADAPTER";
/// The variable that switches bounds checks in shaders on.
pub const CHECKS_VARIABLE: &str = "IRONLENS_SHADER_CHECKS";

/// Every adapter of this machine.
fn adapters() -> Vec<wgpu::Adapter> {
    without_device_selection();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
}

/// Switches off Mesa's Vulkan layer that asks the desktop which GPU it uses, to list that one first: we
/// choose by kind or name, and where there is no desktop its library complains on standard error.
///
/// Only while this is the process's only thread, for others may be reading its variables.
#[cfg(target_os = "linux")]
fn without_device_selection() {
    const OFF: &str = "NODEVICE_SELECT";
    let alone = || std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() && std::env::var_os(OFF).is_none() && alone() {
        // SAFETY: nobody else reads or writes variables, since there is no other thread, and none can
        // begin while this one, which alone could begin it, is here.
        unsafe { std::env::set_var(OFF, "1") };
    }
}

#[cfg(not(target_os = "linux"))]
fn without_device_selection() {}

fn describe(adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let missing = !adapter.features().contains(wgpu::Features::IMMEDIATES);
    AdapterInfo {
        name: info.name,
        kind: format!("{:?}", info.device_type),
        api: format!("{:?}", info.backend),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        max_tensor_bytes: memory::largest_tensor(&limits),
        workgroup: (limits.max_compute_workgroup_storage_size, limits.max_compute_invocations_per_workgroup),
        features: features(adapter),
        unusable: missing.then(|| "it has no immediates, by which kernels get their parameters".into()),
        software: info.device_type == wgpu::DeviceType::Cpu,
    }
}

fn features(adapter: &wgpu::Adapter) -> Vec<&'static str> {
    let named = [
        (wgpu::Features::IMMEDIATES, "immediates"),
        (wgpu::Features::SUBGROUP, "subgroups"),
        (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "matrix instructions"),
        (wgpu::Features::SHADER_F16, "f16"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
    ];
    named.into_iter().filter(|(f, _)| adapter.features().contains(*f)).map(|(_, name)| name).collect()
}

/// Every adapter of this machine, in the order of preference.
pub fn list() -> Vec<AdapterInfo> {
    adapters().iter().map(describe).collect()
}

impl Gpu {
    /// Opens the preferred hardware adapter, or that which [`ADAPTER_VARIABLE`] names; the same one
    /// for every caller. A device that computes wrongly is refused.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open() -> Result<Gpu, String> {
        static OPENED: Mutex<Option<Gpu>> = Mutex::new(None);
        let opened = || OPENED.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(gpu) = &*opened() {
            return Ok(gpu.clone());
        }
        // Without the lock: the checks compute on the CPU too, on rayon's threads, and these may wait here themselves.
        let gpu = Gpu::choose()?;
        gpu.self_check()?;
        gpu.check_matrices(&[matmul::COOPERATIVE]);
        tune::tune_if_asked(&gpu)?;
        // Another thread may have opened it meanwhile.
        Ok(opened().get_or_insert(gpu).clone())
    }

    fn choose() -> Result<Gpu, String> {
        let all = adapters();
        let names: Vec<String> = all.iter().map(|a| a.get_info().name).collect();
        let listed = if names.is_empty() { "none".into() } else { names.join(", ") };
        let wanted = std::env::var(ADAPTER_VARIABLE).ok().filter(|w| !w.is_empty());
        let rank = |a: &wgpu::Adapter| match a.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Cpu | wgpu::DeviceType::Other => 2,
        };
        let chosen = match &wanted {
            Some(part) => {
                let part = part.to_lowercase();
                all.iter().find(|a| a.get_info().name.to_lowercase().contains(&part))
            }
            None => all.iter().filter(|a| !describe(a).software).min_by_key(|a| rank(a)),
        };
        let adapter = chosen.ok_or_else(|| match &wanted {
            Some(part) => format!("{ADAPTER_VARIABLE} asks for `{part}`, the adapters are: {listed}"),
            None => format!(
                "no hardware adapter was found (adapters: {listed}; one that computes on the processor is only taken \
                 when {ADAPTER_VARIABLE} names it)"
            ),
        })?;
        let checks = context::choice(CHECKS_VARIABLE, &["0", "1"])? == Some("1");
        let context =
            context::Context::open(adapter, checks).map_err(|e| format!("{}: {e}", describe(adapter).name))?;
        Ok(Gpu::of(&context))
    }

    pub(crate) fn of(context: &Arc<context::Context>) -> Gpu {
        Gpu { ops: Ops(context.clone()) }
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.ops.0.name
    }

    /// Which tile products take, by kind and size.
    pub fn tiles(&self) -> Vec<TileChoice> {
        tune::choices(&self.ops.0.tiles)
    }

    /// Hands over what was recorded, without waiting for it.
    pub fn flush(&self) {
        self.ops.0.flush();
    }

    /// The most bytes that a tensor may have.
    pub fn max_tensor_bytes(&self) -> u64 {
        memory::largest_tensor(&self.ops.0.limits)
    }

    /// Whether its memory is the machine's, as on Apple's chips.
    pub fn shares_memory(&self) -> bool {
        self.ops.0.unified
    }

    /// What was recorded so far.
    pub fn counts(&self) -> Counts {
        self.ops.0.counts()
    }

    /// What its memory is used for.
    pub fn memory(&self) -> MemoryUse {
        self.ops.0.memory()
    }

    /// A product, a softmax and a layer norm against the CPU: wrong results of a driver are silent
    /// otherwise.
    fn self_check(&self) -> Result<(), String> {
        let cpu = crate::Device::Cpu;
        let gpu = crate::Device::Gpu(self.clone());
        let mut rng = crate::Rng::new(1, 0);
        let (a, b) = (rng.normal(&[65, 33], 0.0, 1.0, &cpu), rng.normal(&[33, 70], 0.0, 1.0, &cpu));
        let ids = IndexTensor::new((0..65u32).collect::<Vec<_>>(), &[65]);
        type Check = (&'static str, fn(&Tensor, &Tensor, &IndexTensor) -> Tensor);
        let checks: [Check; 4] = [
            ("a matrix product", |a, b, _| a.matmul(b)),
            ("a softmax", |a, b, _| a.matmul(b).softmax()),
            ("a layer norm", |a, _, _| a.layer_norm(1e-5, None, None).0),
            ("a cross-entropy", |a, b, ids| a.matmul(b).cross_entropy(ids)),
        ];
        for (what, op) in checks {
            let right = op(&a, &b, &ids);
            let here = || op(&a.to_device(&gpu), &b.to_device(&gpu), &ids).to_device(&cpu);
            let found = catch_unwind(AssertUnwindSafe(here)).map_err(|payload| {
                match payload.downcast::<crate::GpuFailure>() {
                    Ok(failure) => failure.to_string(),
                    Err(other) => resume_unwind(other),
                }
            })?;
            let (difference, alike) = right.max_abs_diff(&found);
            if !alike || difference > 1e-4 {
                return Err(format!(
                    "{} computes {what} wrongly (off by {difference:e}); its driver may need an update",
                    self.name()
                ));
            }
        }
        Ok(())
    }

    /// Lets products use those of the tiles that need matrix instructions and, on this very device, make
    /// what plain kernels make; such instructions are young, and few drivers have them.
    fn check_matrices(&self, tiles: &[matmul::Tile]) {
        let context = &self.ops.0;
        if !context.cooperative {
            return;
        }
        let device = crate::Device::Gpu(self.clone());
        for tile in tiles.iter().copied().filter(|tile| !context.tiles.may_take(*tile)) {
            let made =
                matmul::sums_by(tile).into_iter().all(|v| context.try_pipeline(v.to_string(), || v.source()).is_ok());
            if made && matmul::largest_difference(&self.ops, &device, tile) <= 1e-4 {
                context.tiles.trust(tile);
            }
        }
    }

    /// Whether products use the device's matrix instructions.
    pub fn uses_matrices(&self) -> Matrices {
        let trusted = self.ops.0.tiles.trusts_any();
        match (self.ops.0.cooperative, trusted) {
            (false, _) => Matrices::None,
            (true, false) => Matrices::Wrong,
            (true, true) => Matrices::Used,
        }
    }
}

/// What a device's matrix instructions (`simdgroup_matrix`, cooperative matrices) are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// It has none for f32, or [`MATRICES_VARIABLE`] is 0.
    None,
    /// They fail or differ from plain kernels: they are not used.
    Wrong,
    /// They agree with plain kernels, and products use them.
    Used,
}

impl std::fmt::Display for Matrices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Matrices::None => "none for f32",
            Matrices::Wrong => "not used: they fail here, or differ from plain kernels",
            Matrices::Used => "used: they agree with plain kernels",
        })
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.ops.0, &other.ops.0)
    }
}

impl Eq for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.name())
    }
}
