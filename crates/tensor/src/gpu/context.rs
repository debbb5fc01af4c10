//! An opened GPU: its queue, its compiled kernels, and the commands that wait to be handed over.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::kernels::{self, Kernel};
use super::memory::{Memory, MemoryUse, Pool};
use super::source::Source;
use super::tune::Tiles;
use super::words::{Args, WORDS, Words};
use crate::GpuFailure;

/// The variable that switches matrix instructions off (`0`), or tries them also where the driver does not
/// list them for f32 (`try`); they have to pass the self-check in any case.
pub const MATRICES_VARIABLE: &str = "IRONLENS_MATRICES";
/// Dispatches per submission at most.
const MAX_DISPATCHES: u64 = 4096;
/// Floating-point operations of a pass, but that one kernel may have more. wgpu makes a command buffer of each pass,
/// and macOS stops those that take some seconds: this is a tenth of a second or two of a small GPU.
pub(super) const MAX_WORK: f64 = 1e11;
/// Operations in whose time a GPU reads or writes an element.
const WORK_OF_ELEMENT: f64 = 64.0;
/// Passes of a submission at most: what a device takes of command buffers that wait for theirs has limits.
const MAX_PASSES: u64 = 64;
/// Where the number of passes begins again at 0: up to here `f32` counts.
const PASSES_COUNTED: usize = 1 << 24;
/// Submissions that may run or wait at one time.
const MAX_IN_FLIGHT: usize = 3;
/// Bind groups that are kept; all are dropped when there are more.
const MAX_BIND_GROUPS: usize = 8192;
/// Workgroups along an axis of a grid.
pub(super) const MAX_GROUPS: usize = 65535;
/// Groups along the first axis of a grid that is folded in two.
const GRID: u32 = 32768;

/// What was recorded since the device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernels started, but for those that count passes.
    pub dispatches: u64,
    /// Passes that kernels were recorded in, each a command buffer of its own.
    pub passes: u64,
    /// Times that commands were handed to the device.
    pub submits: u64,
    /// Times that the host waited for results.
    pub reads: u64,
    /// Bytes written by the host.
    pub uploaded: u64,
}

/// What went wrong with a device; it stays wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    OutOfMemory,
    Other(String),
}

impl From<wgpu::Error> for Fault {
    fn from(e: wgpu::Error) -> Fault {
        match e {
            wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory,
            wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => Fault::Other(e.to_string()),
        }
    }
}

/// An opened GPU.
pub(crate) struct Context {
    pub(super) device: wgpu::Device,
    queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    pub(super) name: String,
    pub(super) pool: Pool,
    /// Whether its memory is the machine's.
    pub(super) unified: bool,
    /// One number: the passes that the device has done.
    passes_done: wgpu::Buffer,
    recorder: Mutex<Recorder>,
    /// Number of submissions so far.
    epoch: AtomicU64,
    fault: Arc<Mutex<Option<Fault>>>,
    /// Whether shaders check their bounds.
    checks: bool,
    /// Tiles of products.
    pub(super) tiles: Tiles,
    /// Whether kernels may have matrix instructions.
    pub(super) cooperative: bool,
}

#[derive(Default)]
struct Recorder {
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    /// What the pass does so far, and may do, in floating-point operations.
    work: f64,
    most_work: f64,
    /// Passes that have ended and dispatches since the last submission.
    passes: u64,
    dispatches: u64,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    counts: Counts,
    pipelines: HashMap<String, Arc<Pipeline>>,
    layouts: HashMap<(usize, usize), (wgpu::BindGroupLayout, wgpu::PipelineLayout)>,
    groups: HashMap<Vec<u64>, wgpu::BindGroup>,
    /// What counts passes on the device, once it was needed.
    counter: Option<(Arc<Pipeline>, wgpu::BindGroup)>,
}

struct Pipeline {
    raw: wgpu::ComputePipeline,
    reads: usize,
    writes: usize,
}

/// The grid of workgroups of `per_group` threads for `n` threads.
pub(super) fn grid(n: usize, per_group: usize) -> [u32; 3] {
    let groups = u32::try_from(n.div_ceil(per_group)).expect("sizes of GPU tensors fit 32 bits");
    [groups.min(GRID), groups.div_ceil(GRID), 1]
}

/// What a variable is set to, of what it takes; `None` if it is not set.
///
/// # Errors
/// For any other value.
pub(super) fn choice(variable: &str, takes: &[&'static str]) -> Result<Option<&'static str>, String> {
    let set = std::env::var(variable).unwrap_or_default();
    match takes.iter().find(|t| **t == set) {
        Some(found) => Ok(Some(found)),
        None if set.is_empty() => Ok(None),
        None => Err(format!("{variable} is `{set}`; it takes {}", takes.join(", "))),
    }
}

/// The features of kernels with matrix instructions, if [`MATRICES_VARIABLE`] wants and the adapter has
/// such for 8 x 8 numbers in f32.
fn matrix_features(adapter: &wgpu::Adapter) -> Result<Option<wgpu::Features>, String> {
    use wgpu::CooperativeScalarType::F32;
    let listed = || {
        let all = adapter.cooperative_matrix_properties();
        all.iter().any(|p| (p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type) == (8, 8, 8, F32, F32))
    };
    let wanted = match choice(MATRICES_VARIABLE, &["0", "1", "try"])? {
        Some("0") => false,
        Some("try") => true,
        _ => listed(),
    };
    let features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SUBGROUP;
    Ok((wanted && adapter.features().contains(features)).then_some(features))
}

impl Context {
    /// Opens an adapter.
    pub fn open(adapter: &wgpu::Adapter, checks: bool) -> Result<Arc<Context>, String> {
        let limits = adapter.limits();
        let needed = wgpu::Features::IMMEDIATES;
        if !adapter.features().contains(needed) {
            return Err("it has no immediates, by which kernels get their parameters".into());
        }
        let request = |more, experimental_features| {
            pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
                label: Some("ironlens"),
                required_features: needed | more,
                required_limits: wgpu::Limits { max_immediate_size: 4 * WORDS as u32, ..limits.clone() },
                memory_hints: wgpu::MemoryHints::Performance,
                experimental_features,
                ..Default::default()
            }))
        };
        // SAFETY: what may be wrong with matrix instructions is found before they are used (`Gpu::open`).
        let experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        let with_matrices = matrix_features(adapter)?.and_then(|f| request(f, experimental).ok());
        let cooperative = with_matrices.is_some();
        let plain = || request(wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled());
        let (device, queue) = with_matrices.map_or_else(plain, Ok).map_err(|e| e.to_string())?;
        let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
        let told = fault.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            told.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e.into());
        }));
        let told = fault.clone();
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                let lost = Fault::Other(format!("it was lost: {text}"));
                told.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(lost);
            }
        });
        let info = adapter.get_info();
        let unified = match info.device_type {
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::Cpu => true,
            wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => false,
        };
        // It is 0 from the start: WebGPU's buffers are.
        let passes_done = storage_buffer(&device, 4);
        Ok(Arc::new(Context {
            name: info.name,
            device,
            queue,
            limits,
            pool: Pool::beside(unified.then(crate::machine::memory).flatten()),
            unified,
            passes_done,
            recorder: Mutex::new(Recorder { most_work: MAX_WORK, ..Recorder::default() }),
            epoch: AtomicU64::new(0),
            fault,
            checks,
            tiles: Tiles::default(),
            cooperative,
        }))
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What was recorded so far.
    pub fn counts(&self) -> Counts {
        self.recorder().counts
    }

    /// What the memory is used for.
    pub fn memory(&self) -> MemoryUse {
        self.pool.usage()
    }

    /// Makes a kernel that the device may not be able to make.
    ///
    /// # Errors
    /// What the device says of it; the device goes on.
    pub(super) fn try_pipeline(&self, key: String, make: impl FnOnce() -> Source) -> Result<(), String> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let mut recorder = self.recorder();
        let scopes = [Validation, OutOfMemory, Internal].map(|filter| self.device.push_error_scope(filter));
        self.pipeline(&mut recorder, key.clone(), make);
        // The innermost scope ends first.
        let mut errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
        let first = errors.next();
        errors.for_each(drop);
        first.map_or(Ok(()), |e| {
            recorder.pipelines.remove(&key);
            Err(e.to_string())
        })
    }

    /// What went wrong, if anything has.
    pub(super) fn failure(&self) -> Option<GpuFailure> {
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).clone().map(|fault| match fault {
            Fault::OutOfMemory => self.out_of_memory(),
            Fault::Other(what) => GpuFailure::Failed { adapter: self.name.clone(), what },
        })
    }

    /// # Panics
    /// With a [`GpuFailure`] if the device has failed: no result after that can be trusted.
    pub(super) fn check(&self) {
        if let Some(failure) = self.failure() {
            failure.raise();
        }
    }

    /// Records a kernel (with `op` in it), reading and writing these buffers.
    pub(super) fn dispatch<W: Words>(
        &self,
        kernel: &Kernel<W>,
        op: &str,
        reads: &[&Memory],
        writes: &[&Memory],
        words: &W,
        groups: [u32; 3],
    ) {
        let key = if op.is_empty() { kernel.name.to_string() } else { format!("{} {op}", kernel.name) };
        let elements: usize = reads.iter().chain(writes).map(|m| m.len()).sum();
        let work = WORK_OF_ELEMENT * elements as f64;
        self.dispatch_made(key, || kernel.source(op), reads, writes, &Args::of(words), groups, work);
    }

    /// Records the kernel that `make` gives when it is called `key` for the first time, of `work` floating-point
    /// operations.
    #[expect(clippy::too_many_arguments, reason = "a kernel and all that it is given")]
    pub(super) fn dispatch_made(
        &self,
        key: String,
        make: impl FnOnce() -> Source,
        reads: &[&Memory],
        writes: &[&Memory],
        args: &Args,
        groups: [u32; 3],
        work: f64,
    ) {
        if groups.contains(&0) {
            return;
        }
        let mut recorder = self.recorder();
        let recorder = &mut *recorder;
        if recorder.work + work > recorder.most_work {
            self.end_pass(recorder);
        }
        let pipeline = self.pipeline(recorder, key, make);
        debug_assert_eq!((pipeline.reads, pipeline.writes), (reads.len(), writes.len()));
        let group = self.bind_group(recorder, reads, writes);
        if recorder.pass.is_none() {
            let encoder = recorder.encoder.get_or_insert_with(|| self.new_encoder());
            let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime();
            recorder.pass = Some(pass);
        }
        let pass = recorder.pass.as_mut().expect("the pass was opened above");
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, &group, &[]);
        pass.set_immediates(0, args.as_bytes());
        pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        recorder.work += work;
        recorder.dispatches += 1;
        recorder.counts.dispatches += 1;
        if recorder.dispatches >= MAX_DISPATCHES || recorder.passes >= MAX_PASSES {
            self.submit(recorder);
        }
    }

    /// Ends the pass that is being recorded, if one is. Its last kernel counts it on the device: Metal reports a
    /// command buffer that failed as finished, and one that is not read itself would go unnoticed.
    fn end_pass(&self, recorder: &mut Recorder) {
        if recorder.pass.is_none() {
            return;
        }
        let (pipeline, group) = match recorder.counter.clone() {
            Some(counter) => counter,
            None => {
                let pipeline = self.pipeline(recorder, kernels::END_PASS.name.into(), || kernels::END_PASS.source(""));
                let (layout, _) = self.layout(recorder, 0, 1);
                let entry = wgpu::BindGroupEntry { binding: 0, resource: self.passes_done.as_entire_binding() };
                let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &layout,
                    entries: &[entry],
                });
                recorder.counter.insert((pipeline, group)).clone()
            }
        };
        let Some(mut pass) = recorder.pass.take() else { return };
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, &group, &[]);
        let args = Args::of(&kernels::EndPass { starts_again: PASSES_COUNTED });
        pass.set_immediates(0, args.as_bytes());
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        recorder.work = 0.0;
        recorder.passes += 1;
        recorder.counts.passes += 1;
    }

    fn new_encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    fn layout(
        &self,
        recorder: &mut Recorder,
        reads: usize,
        writes: usize,
    ) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
        let make = || {
            let entry = |binding: usize| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: binding < reads },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            };
            let entries: Vec<_> = (0..reads + writes).map(entry).collect();
            let group = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
            let pipeline = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&group)],
                immediate_size: 4 * WORDS as u32,
            });
            (group, pipeline)
        };
        recorder.layouts.entry((reads, writes)).or_insert_with(make).clone()
    }

    fn pipeline(&self, recorder: &mut Recorder, key: String, make: impl FnOnce() -> Source) -> Arc<Pipeline> {
        if let Some(found) = recorder.pipelines.get(&key) {
            return found.clone();
        }
        let Source { text, reads, writes } = make();
        let (_, layout) = self.layout(recorder, reads, writes);
        let checks = match self.checks {
            true => wgpu::ShaderRuntimeChecks::checked(),
            false => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        let shader = wgpu::ShaderModuleDescriptor { label: Some(&key), source: wgpu::ShaderSource::Wgsl(text.into()) };
        // SAFETY: kernels keep their indices within the shapes that they are given, and that buffers
        // have these shapes is proved in `ops.rs`: each method checks every operand before it asks a
        // device, and `tests/refusals.rs` tries each with each operand wrong. Indices fit their 32 bits, since no
        // buffer has more elements (`memory::largest_tensor`).
        let module = unsafe { self.device.create_shader_module_trusted(shader, checks) };
        let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&key),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        self.check();
        let pipeline = Arc::new(Pipeline { raw, reads, writes });
        recorder.pipelines.insert(key, pipeline.clone());
        pipeline
    }

    fn bind_group(&self, recorder: &mut Recorder, reads: &[&Memory], writes: &[&Memory]) -> wgpu::BindGroup {
        let mut key: Vec<u64> = reads.iter().map(|m| m.id).collect();
        key.push(0);
        key.extend(writes.iter().map(|m| m.id));
        if let Some(found) = recorder.groups.get(&key) {
            return found.clone();
        }
        if recorder.groups.len() >= MAX_BIND_GROUPS {
            recorder.groups.clear();
        }
        let (layout, _) = self.layout(recorder, reads.len(), writes.len());
        let entries: Vec<_> = reads
            .iter()
            .chain(writes)
            .enumerate()
            .map(|(i, m)| wgpu::BindGroupEntry { binding: i as u32, resource: m.raw.as_entire_binding() })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        recorder.groups.insert(key, group.clone());
        group
    }

    /// Hands what was recorded to the device, and waits if too much is on its way.
    fn submit(&self, recorder: &mut Recorder) {
        self.end_pass(recorder);
        let Some(encoder) = recorder.encoder.take() else { return };
        let index = self.queue.submit([encoder.finish()]);
        recorder.in_flight.push_back(index);
        recorder.counts.submits += 1;
        (recorder.dispatches, recorder.passes) = (0, 0);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.forget_gone(recorder);
        while recorder.in_flight.len() > MAX_IN_FLIGHT {
            let oldest = recorder.in_flight.pop_front();
            self.wait(oldest);
        }
        self.check();
    }

    /// Drops what refers to buffers that the pool has given up.
    fn forget_gone(&self, recorder: &mut Recorder) {
        let gone = self.pool.take_gone();
        if !gone.is_empty() {
            recorder.groups.retain(|ids, _| !ids.iter().any(|id| gone.contains(id)));
        }
    }

    fn wait(&self, submission: Option<wgpu::SubmissionIndex>) {
        let wait = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        if let Err(e) = self.device.poll(wait) {
            self.fail(&format!("waiting for it failed: {e}"));
        }
    }

    fn fail(&self, what: &str) {
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(Fault::Other(what.into()));
    }

    /// Hands over what was recorded, and waits for all of it.
    pub fn finish(&self) {
        self.finish_recorded(&mut self.recorder());
        self.check();
    }

    fn finish_recorded(&self, recorder: &mut Recorder) {
        self.submit(recorder);
        let last = recorder.in_flight.pop_back();
        recorder.in_flight.clear();
        if last.is_some() {
            self.wait(last);
        }
    }

    /// A buffer for tensors; `None` if the device has no memory for it, of which it knows how to go on.
    fn try_buffer(&self, bytes: u64) -> Option<wgpu::Buffer> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = storage_buffer(&self.device, bytes);
        let error = pollster::block_on(scope.pop());
        self.check();
        error.is_none().then_some(buffer)
    }

    /// A buffer for tensors. If there is no memory for it, it is asked for again when all that waits for reuse was
    /// given back to the device; `None` if that does not help.
    pub(super) fn buffer(&self, bytes: u64) -> Option<wgpu::Buffer> {
        self.try_buffer(bytes).or_else(|| {
            self.give_back();
            self.try_buffer(bytes)
        })
    }

    /// Waits for all that was recorded, and gives the buffers that wait for reuse back to the device.
    fn give_back(&self) {
        let mut recorder = self.recorder();
        self.pool.drop_free();
        self.finish_recorded(&mut recorder);
        self.forget_gone(&mut recorder);
        // What was dropped now is gone when the device is asked once more.
        self.wait(None);
    }

    /// There is no memory left for what was asked for; the device goes on.
    pub(super) fn out_of_memory(&self) -> GpuFailure {
        GpuFailure::OutOfMemory { adapter: self.name.clone(), live_bytes: self.memory().live_bytes }
    }

    /// Hands over what was recorded, without waiting for it.
    pub fn flush(&self) {
        let mut recorder = self.recorder();
        self.submit(&mut recorder);
    }

    /// A buffer of `shape` with words from the host.
    pub(super) fn upload(self: &Arc<Self>, words: &[u32], shape: &[usize]) -> Memory {
        let memory = Memory::new(self, shape, true);
        if !words.is_empty() {
            self.queue.write_buffer(&memory.raw, 0, bytemuck::cast_slice(words));
            self.recorder().counts.uploaded += words.len() as u64 * 4;
        }
        memory
    }

    /// The first `len` words of a buffer, after all that was recorded before.
    pub(super) fn read(self: &Arc<Self>, memory: &Memory, len: usize) -> Vec<u32> {
        let bytes = len as u64 * 4;
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes + 4,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // One lock for all that follows: another thread's submission would split it.
        let mut recorder = self.recorder();
        self.end_pass(&mut recorder);
        let passes = recorder.counts.passes % PASSES_COUNTED as u64;
        let encoder = recorder.encoder.get_or_insert_with(|| self.new_encoder());
        if len > 0 {
            encoder.copy_buffer_to_buffer(&memory.raw, 0, &staging, 0, bytes);
        }
        encoder.copy_buffer_to_buffer(&self.passes_done, 0, &staging, bytes, 4);
        self.submit(&mut recorder);
        recorder.counts.reads += 1;
        let (tell, told) = std::sync::mpsc::channel();
        staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
            // The receiver is gone only if this function has panicked.
            let _ = tell.send(result);
        });
        let last = recorder.in_flight.pop_back();
        recorder.in_flight.clear();
        self.wait(last);
        drop(recorder);
        match told.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.fail(&format!("its results cannot be read: {e}")),
            Err(_) => self.fail("it never finished its work"),
        }
        self.check();
        let mut words: Vec<u32> = match staging.slice(..).get_mapped_range() {
            Ok(view) => bytemuck::pod_collect_to_vec(&view),
            Err(e) => {
                self.fail(&format!("its results cannot be read: {e}"));
                self.check();
                Vec::new()
            }
        };
        staging.unmap();
        if words.pop() != Some((passes as f32).to_bits()) {
            self.fail("it dropped a part of its work without an error (out of memory, or stopped for time)");
            self.check();
        }
        words
    }
}

/// A buffer that kernels read and write, and that is copied from and to.
fn storage_buffer(device: &wgpu::Device, bytes: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::gpu::Gpu;
    use crate::{DType, Device, Tensor};

    #[test]
    #[ignore = "needs an adapter"]
    fn a_kernel_that_does_not_compile_is_no_fault_when_it_is_tried() {
        let device = Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let Device::Gpu(gpu) = &device else { unreachable!("a GPU was asked for") };
        let context = &gpu.ops.0;
        let wrong = || Source { text: "fn main() { nonsense }".into(), reads: 1, writes: 1 };
        let told = context.try_pipeline("nonsense".into(), wrong).unwrap_err();
        assert!(told.contains("nonsense"), "{told}");
        assert_eq!(context.try_pipeline("fill".into(), || kernels::FILL.source("")), Ok(()));
        assert_eq!(context.failure(), None);
        assert_eq!(Tensor::full(&[3], 1.0, DType::F32, &device).sum_all().item(), 3.0);
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn a_pass_that_was_dropped_is_noticed_by_the_next_read() {
        // A device of its own, since it ends here.
        let gpu = Gpu::choose().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let device = Device::Gpu(gpu.clone());
        let full = || Tensor::full(&[3], 1.0, DType::F32, &device);
        // As if it had counted very long.
        let context = &gpu.ops.0;
        context.finish();
        let near_the_end = PASSES_COUNTED as u32 - 3;
        context.queue.write_buffer(&context.passes_done, 0, bytemuck::bytes_of(&(near_the_end as f32)));
        context.recorder().counts.passes = u64::from(near_the_end);
        for _ in 0..5 {
            let (kept, before) = (full(), context.counts());
            context.flush();
            assert_eq!(kept.sum_all().item(), 3.0);
            let after = context.counts();
            assert_eq!((after.passes - before.passes, after.submits - before.submits), (2, 2));
        }
        context.recorder().counts.passes += 1;
        let payload = catch_unwind(AssertUnwindSafe(|| full().sum_all().item())).unwrap_err();
        let failure = payload.downcast::<GpuFailure>().expect("a failure, not a text").to_string();
        assert!(failure.contains("dropped a part of its work"), "{failure}");
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn long_work_is_cut_into_passes_of_one_submission() {
        let gpu = Gpu::choose().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let device = Device::Gpu(gpu.clone());
        let context = &gpu.ops.0;
        let x = Tensor::full(&[64, 64], 1.0, DType::F32, &device);
        let passes_of = |products: usize, most_work: f64| {
            context.finish();
            context.recorder().most_work = most_work;
            let before = context.counts();
            let y = (0..products).fold(x.clone(), |y, _| y.matmul(&x).affine(1.0 / 64.0, 0.0));
            assert_eq!(y.max_all().item(), 1.0);
            let after = context.counts();
            (after.passes - before.passes, after.submits - before.submits)
        };
        assert_eq!(passes_of(10, MAX_WORK), (1, 1));
        // A product is 2^19 operations, a function of 4096 elements 2^19, too.
        let (passes, submits) = passes_of(10, f64::from(1 << 20));
        assert!((10..=12).contains(&passes) && submits == 1, "{passes} passes in {submits} submissions");
        let (passes, submits) = passes_of(100, 1.0);
        assert!(passes >= 200 && submits as usize == passes as usize / MAX_PASSES as usize + 1, "{passes} {submits}");
        context.recorder().most_work = MAX_WORK;
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn memory_that_waits_for_reuse_is_given_back_when_there_is_no_other() {
        let gpu = Gpu::choose().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let device = Device::Gpu(gpu.clone());
        let work = |x: &Tensor| x.matmul(x).sum_all().item();
        let x = Tensor::full(&[64, 64], 1.0, DType::F32, &device);
        assert_eq!(work(&x), 262_144.0);
        assert!(gpu.memory().free_bytes > 0);
        gpu.ops.0.give_back();
        let (memory, groups) = (gpu.memory(), gpu.ops.0.recorder().groups.len());
        // What is left is what made `x`.
        assert_eq!((memory.free_bytes, memory.live_bytes, groups), (0, 16384, 1));
        assert_eq!(work(&x), 262_144.0);
    }

    #[test]
    #[ignore = "needs an adapter"]
    fn failures_are_told_by_their_type() {
        // A device of its own, since it ends here.
        let gpu = Gpu::choose().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let device = Device::Gpu(gpu.clone());
        let sum = |shape: &[usize]| Tensor::full(shape, 1.0, DType::F32, &device).sum_all().item();
        let fails = |shape: &[usize]| {
            let payload = catch_unwind(AssertUnwindSafe(|| sum(shape))).unwrap_err();
            *payload.downcast::<GpuFailure>().expect("a failure, not a text")
        };
        let (adapter, limit) = (gpu.name().to_string(), gpu.max_tensor_bytes());
        let shape = vec![(limit / 4096) as usize + 1, 1024];
        let (before, bytes) = (gpu.memory(), 4096 * shape[0] as u64);
        let too_large = GpuFailure::TooLarge { adapter: adapter.clone(), shape: shape.clone(), bytes, limit };
        assert_eq!(fails(&shape), too_large);
        assert_eq!(gpu.memory(), before, "what was refused is not counted");
        assert_eq!(sum(&[3]), 3.0, "the device goes on");

        *gpu.ops.0.fault.lock().unwrap() = Some(Fault::OutOfMemory);
        let live_bytes = gpu.memory().live_bytes;
        assert!(matches!(fails(&[3]), GpuFailure::OutOfMemory { live_bytes: l, .. } if l >= live_bytes));
        *gpu.ops.0.fault.lock().unwrap() = None;
        gpu.ops.0.fail("its cable was pulled");
        assert_eq!(fails(&[3]), GpuFailure::Failed { adapter, what: "its cable was pulled".into() });
    }
}
