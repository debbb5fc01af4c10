//! Where the time goes: every op that a device computes, timed one by one.
//!
//! ```
//! use ironlens_tensor::{Device, Tensor, profile};
//! let x = Tensor::from_vec(vec![1.0; 64 * 64], &[64, 64], &Device::Cpu);
//! let (_, kernels) = profile::record(|| x.matmul(&x).softmax());
//! let names: Vec<&str> = kernels.iter().map(|k| k.name).collect();
//! assert_eq!(names, ["matmul", "softmax"]);
//! assert_eq!(kernels[0].flops, 2.0 * 64.0 * 64.0 * 64.0);
//! ```

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::{Device, IndexTensor, Tensor};

/// All calls of one op on operands of the same shapes.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The op.
    pub name: &'static str,
    /// Shapes of its operands.
    pub shapes: String,
    /// How often it ran.
    pub calls: u64,
    /// Time in it, without ops that it called.
    pub time: Duration,
    /// Floating-point operations of its matrix products (a multiply-add counts two), all calls.
    pub flops: f64,
    /// Bytes of its operands and results, all calls.
    pub bytes: f64,
}

/// Threads that record: ops look here first, so that nobody pays while nobody records.
static RECORDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Record {
    kernels: Vec<Kernel>,
    /// Time spent in ops that the running ones called, innermost last.
    inner: Vec<Duration>,
}

/// Runs `f` and gives, with its result, the ops that this thread asked for meanwhile, longest
/// first. A GPU is waited for after each op, which it is not otherwise.
///
/// # Panics
/// If this thread records already.
pub fn record<R>(f: impl FnOnce() -> R) -> (R, Vec<Kernel>) {
    /// Ends the recording also if `f` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            RECORDING.fetch_sub(1, Ordering::Relaxed);
            RECORD.take();
        }
    }
    let before = RECORD.replace(Some(Record::default()));
    assert!(before.is_none(), "profile::record within profile::record");
    RECORDING.fetch_add(1, Ordering::Relaxed);
    let end = End;
    let result = f();
    let mut kernels = RECORD.take().map(|r| r.kernels).unwrap_or_default();
    drop(end);
    kernels.sort_by_key(|k| std::cmp::Reverse(k.time));
    (result, kernels)
}

/// An op that is about to be asked for: the one door from `Tensor` to its device. It is empty unless
/// this thread records, and is made before the op, which may take its operands or write over them.
pub(crate) struct Op(Option<Box<Entry>>);

/// What one call of an op adds to the record.
struct Entry {
    name: &'static str,
    shapes: String,
    flops: f64,
    bytes: f64,
}

impl Op {
    #[inline]
    pub fn new<'a>(name: &'static str, operands: impl IntoIterator<Item = &'a Tensor>) -> Op {
        if RECORDING.load(Ordering::Relaxed) == 0 {
            return Op(None);
        }
        Op::recorded(name, operands)
    }

    #[cold]
    fn recorded<'a>(name: &'static str, operands: impl IntoIterator<Item = &'a Tensor>) -> Op {
        if RECORD.with_borrow(Option::is_none) {
            return Op(None);
        }
        let mut entry = Entry { name, shapes: String::new(), flops: 0.0, bytes: 0.0 };
        for x in operands {
            entry.shapes.push_str(&format!("{:?}", x.shape()));
            entry.bytes += x.bytes();
        }
        Op(Some(Box::new(entry)))
    }

    /// With the floating-point operations of its products.
    pub fn flops(mut self, flops: f64) -> Op {
        if let Some(entry) = &mut self.0 {
            entry.flops += flops;
        }
        self
    }

    /// With more that it reads or writes than its operands and its result.
    pub fn moves(mut self, more: &dyn Bytes) -> Op {
        if let Some(entry) = &mut self.0 {
            entry.bytes += more.bytes();
        }
        self
    }

    /// Asks the device.
    #[inline]
    pub fn on<R: Bytes>(self, device: &Device, ask: impl FnOnce(&dyn Backend) -> R) -> R {
        let backend = device.backend();
        match self.0 {
            None => ask(backend),
            Some(entry) => entry.timed(backend, ask),
        }
    }
}

impl Entry {
    /// Runs the op to its end and adds it to the record.
    #[cold]
    fn timed<R: Bytes>(self, backend: &dyn Backend, ask: impl FnOnce(&dyn Backend) -> R) -> R {
        let with = |f: &mut dyn FnMut(&mut Record)| RECORD.with_borrow_mut(|r| r.as_mut().map(f));
        backend.finish();
        with(&mut |r| r.inner.push(Duration::ZERO));
        let start = Instant::now();
        let result = ask(backend);
        backend.finish();
        let whole = start.elapsed();
        with(&mut |r| {
            let inner = r.inner.pop().unwrap_or_default();
            if let Some(outer) = r.inner.last_mut() {
                *outer += whole;
            }
            let kernel = r.kernel(self.name, &self.shapes);
            kernel.calls += 1;
            kernel.time += whole.saturating_sub(inner);
            kernel.flops += self.flops;
            kernel.bytes += self.bytes + result.bytes();
        });
        result
    }
}

impl Record {
    fn kernel(&mut self, name: &'static str, shapes: &str) -> &mut Kernel {
        let at = self.kernels.iter().position(|k| k.name == name && k.shapes == shapes).unwrap_or_else(|| {
            let (shapes, time) = (shapes.to_string(), Duration::ZERO);
            self.kernels.push(Kernel { name, shapes, calls: 0, time, flops: 0.0, bytes: 0.0 });
            self.kernels.len() - 1
        });
        &mut self.kernels[at]
    }
}

/// How much memory something takes; elements that are repeated count once.
pub(crate) trait Bytes {
    fn bytes(&self) -> f64;
}

impl Bytes for Tensor {
    fn bytes(&self) -> f64 {
        let repeats = |a: usize| self.layout().strides()[a] == 0;
        let stored: usize = (0..self.ndim()).filter(|&a| !repeats(a)).map(|a| self.shape()[a]).product();
        (stored * self.dtype().size()) as f64
    }
}

impl Bytes for IndexTensor {
    fn bytes(&self) -> f64 {
        (self.numel() * size_of::<u32>()) as f64
    }
}

impl<T: Bytes> Bytes for Option<T> {
    fn bytes(&self) -> f64 {
        self.as_ref().map_or(0.0, Bytes::bytes)
    }
}

impl<A: Bytes, B: Bytes> Bytes for (A, B) {
    fn bytes(&self) -> f64 {
        self.0.bytes() + self.1.bytes()
    }
}

impl<A: Bytes, B: Bytes, C: Bytes> Bytes for (A, B, C) {
    fn bytes(&self) -> f64 {
        self.0.bytes() + self.1.bytes() + self.2.bytes()
    }
}

impl<T: Bytes, const N: usize> Bytes for [&T; N] {
    fn bytes(&self) -> f64 {
        self.iter().map(|x| x.bytes()).sum()
    }
}

/// What is written in place, and what is told, stay where they are.
macro_rules! no_bytes {
    ($($kind:ty),*) => {$(
        impl Bytes for $kind {
            fn bytes(&self) -> f64 {
                0.0
            }
        }
    )*};
}

no_bytes!((), bool);
