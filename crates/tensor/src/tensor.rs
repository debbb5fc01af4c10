//! [`Tensor`]: construction, views, conversion.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};
use ndarray::{ArrayD, ArrayViewD, IxDyn, ShapeBuilder};

use crate::check;
use crate::cpu::storage::Buffer;
use crate::cpu::stored::Stored;
use crate::profile::Op;
use crate::storage::Storage;
use crate::{Axes, Axis, DType, Device, Layout, Operand};

/// An immutable n-dimensional array on a [`Device`].
///
/// Cloning and taking views shares memory; writing (`*_assign`, [`Tensor::assign`]) copies first
/// if the memory is shared, be it with another tensor or, after [`Tensor::expand`], among elements. Ops take `&self` and panic at the caller's line, naming both shapes,
/// when shapes do not fit.
///
/// ```
/// use ironlens_tensor::{Device, Tensor};
/// let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], &Device::Cpu);
/// let y = x.matmul(&x.t()) + 1.0;
/// assert_eq!(y.to_vec(), [15.0, 33.0, 33.0, 78.0]);
/// ```
#[derive(Clone)]
pub struct Tensor {
    pub(crate) storage: Storage,
    pub(crate) layout: Layout,
}

impl Tensor {
    // ---- construction -------------------------------------------------------------------

    /// From values in row-major order.
    ///
    /// # Panics
    /// If the number of values is not the product of `shape`.
    #[track_caller]
    pub fn from_vec(values: Vec<f32>, shape: &[usize], device: &Device) -> Tensor {
        check::element_count(values.len(), shape);
        device.backend().from_host(values, shape)
    }

    /// As [`Tensor::from_vec`], in double precision (CPU).
    #[track_caller]
    pub fn from_vec_f64(values: Vec<f64>, shape: &[usize]) -> Tensor {
        check::element_count(values.len(), shape);
        Tensor::from_buffer(Buffer::from(values), shape)
    }

    /// From values of 16 bits each, as they are stored, in row-major order (CPU): `dtype` is `Bf16` or `F16`. The
    /// values are not copied.
    ///
    /// # Panics
    /// If the number of values is not the product of `shape`, or the type has not 16 bits.
    #[track_caller]
    pub fn from_bits(bits: Vec<u16>, dtype: DType, shape: &[usize]) -> Tensor {
        check::element_count(bits.len(), shape);
        match dtype {
            DType::Bf16 => Tensor::from_buffer(Buffer::from(bits.reinterpret_into::<bf16>()), shape),
            DType::F16 => Tensor::from_buffer(Buffer::from(bits.reinterpret_into::<f16>()), shape),
            DType::F32 | DType::F64 => check::sixteen_bits("from_bits", dtype),
        }
    }

    /// One value, shape `[]`.
    #[track_caller]
    pub fn scalar(value: f64, dtype: DType, device: &Device) -> Tensor {
        Tensor::full(&[], value, dtype, device)
    }

    /// All elements `value`.
    ///
    /// # Panics
    /// If there is not so much memory, or the device holds no such elements: a GPU's are `f32`.
    #[track_caller]
    pub fn full(shape: &[usize], value: f64, dtype: DType, device: &Device) -> Tensor {
        check::numel(shape);
        check::holds(device, dtype);
        Op::new("full", []).on(device, |b| b.full(shape, value, dtype))
    }

    /// All elements 0.
    #[track_caller]
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Tensor {
        Tensor::full(shape, 0.0, dtype, device)
    }

    /// 0s of this tensor's dtype, device and shape.
    pub fn zeros_like(&self) -> Tensor {
        Tensor::zeros(self.shape(), self.dtype(), &self.device())
    }

    pub(crate) fn from_buffer<E: Stored>(buffer: Buffer<E>, shape: &[usize]) -> Tensor {
        debug_assert_eq!(buffer.len(), check::numel(shape));
        Tensor { storage: Storage::Cpu(E::wrap(buffer)), layout: Layout::contiguous(shape) }
    }

    // ---- what it is ---------------------------------------------------------------------

    /// Length of every axis.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Length of axis `axis`.
    #[track_caller]
    pub fn dim(&self, axis: impl Axis) -> usize {
        self.shape()[axis.of(self.shape())]
    }

    /// Number of axes.
    pub fn ndim(&self) -> usize {
        self.layout.ndim()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.layout.numel()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.storage.dtype()
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// Shape, strides and offset in the memory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Whether both are views of the same memory.
    pub fn shares_memory(&self, other: &Tensor) -> bool {
        self.storage.same(&other.storage)
    }

    // ---- views: no element moves --------------------------------------------------------

    /// Another layout of the same memory, as [`Layout`]'s methods derive it.
    ///
    /// # Panics
    /// If the layout reaches past the memory.
    #[track_caller]
    pub fn with_layout(&self, layout: Layout) -> Tensor {
        check::within(&layout, self.storage.len());
        self.viewed(layout)
    }

    fn viewed(&self, layout: Layout) -> Tensor {
        Tensor { storage: self.storage.clone(), layout }
    }

    /// The same elements in the same order under another shape; copies only where strides
    /// cannot express it.
    ///
    /// # Panics
    /// If the element counts differ.
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Tensor {
        check::reshape(self.shape(), shape);
        match self.layout.reshape(shape) {
            Some(layout) => self.viewed(layout),
            None => {
                let c = self.contiguous();
                let layout = c.layout.reshape(shape).expect("contiguous tensors take any shape");
                c.viewed(layout)
            }
        }
    }

    /// Axes in the order `axes`.
    #[track_caller]
    pub fn permute(&self, axes: impl Axes) -> Tensor {
        let axes = axes.of(self.shape());
        check::permutation(self.shape(), &axes);
        self.viewed(self.layout.permute(&axes))
    }

    /// Axes `a` and `b` swapped.
    #[track_caller]
    pub fn transpose(&self, a: impl Axis, b: impl Axis) -> Tensor {
        let mut axes: Vec<usize> = (0..self.ndim()).collect();
        axes.swap(a.of(self.shape()), b.of(self.shape()));
        self.permute(&axes)
    }

    /// The last two axes swapped.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        check::at_least_two_axes("t", self.shape());
        let n = self.ndim();
        self.transpose(n - 2, n - 1)
    }

    /// Elements `start..start + len` along `axis`.
    #[track_caller]
    pub fn narrow(&self, axis: impl Axis, start: usize, len: usize) -> Tensor {
        let axis = axis.of(self.shape());
        check::range(self.shape(), axis, start, len);
        self.viewed(self.layout.narrow(axis, start, len))
    }

    /// Element `index` along `axis`, without the axis.
    #[track_caller]
    pub fn select(&self, axis: impl Axis, index: usize) -> Tensor {
        let axis = axis.of(self.shape());
        check::range(self.shape(), axis, index, 1);
        self.viewed(self.layout.select(axis, index))
    }

    /// With an axis of length 1 before `axis`.
    #[track_caller]
    pub fn unsqueeze(&self, axis: impl Axis) -> Tensor {
        let axis = axis.new_in(self.shape());
        self.viewed(self.layout.unsqueeze(axis))
    }

    /// Without `axis`, which has length 1.
    #[track_caller]
    pub fn squeeze(&self, axis: impl Axis) -> Tensor {
        let axis = axis.of(self.shape());
        check::length_one(self.shape(), axis);
        self.select(axis, 0)
    }

    /// Repeated to `shape` without copying, by numpy's rules.
    #[track_caller]
    pub fn expand(&self, shape: &[usize]) -> Tensor {
        self.viewed(check::expands(self.shape(), shape, self.layout.expand(shape)))
    }

    // ---- copies and conversion ----------------------------------------------------------

    /// Itself if contiguous, else a row-major copy.
    pub fn contiguous(&self) -> Tensor {
        if self.is_contiguous() { self.clone() } else { self.row_major() }
    }

    /// A copy in row-major order.
    fn row_major(&self) -> Tensor {
        self.on("copy", [self], |b| b.contiguous(self))
    }

    /// On `device`; shares memory if it is there already. A GPU computes in `f32` and holds nothing else: what has
    /// another type is converted, which loses nothing of 16 bits.
    pub fn to_device(&self, device: &Device) -> Tensor {
        if self.device() == *device {
            return self.clone();
        }
        device.backend().from_host(self.to_vec(), self.shape())
    }

    /// Converted to `dtype`, rounded to the nearest, ties to even; shares memory if it is that already.
    ///
    /// # Panics
    /// If the device holds no such elements: a GPU's are `f32`.
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        check::holds(&self.device(), dtype);
        if self.dtype() == dtype { self.clone() } else { self.on("cast", [self], |b| b.cast(self, dtype)) }
    }

    /// Writes `src`, a number or what broadcasts, over the elements that the view `region` of this tensor names:
    ///
    /// ```
    /// # use ironlens_tensor::{DType, Device, Tensor};
    /// let mut x = Tensor::zeros(&[2, 3], DType::F32, &Device::Cpu);
    /// x.assign(|x| x.select(1, 1), &Tensor::from([7.0, 8.0]));
    /// x.assign(|x| x.select(0, 0).select(0, 2), 3.0);             // x[0, 2] = 3
    /// assert_eq!(x.to_vec(), [0., 7., 3., 0., 8., 0.]);
    /// ```
    ///
    /// The region is taken of the tensor as it is written to, after the copy if it needs one.
    ///
    /// # Panics
    /// If `src` does not broadcast to the region, or the region is not a view of the tensor that
    /// it is given, or one that repeats elements.
    #[track_caller]
    pub fn assign(&mut self, region: impl FnOnce(&Tensor) -> Tensor, src: impl Operand<Tensor>) {
        let src = &*self.array(src.operand());
        check::same_kind("assign", self, src);
        self.make_writable();
        let view = region(self);
        check::requires(
            view.shares_memory(self),
            "assign",
            self.shape(),
            view.shape(),
            "the region must be a view of the tensor that it is given, not a copy or another tensor",
        );
        let layout = view.layout.clone();
        drop(view);
        if !self.storage.is_unique() {
            // The closure kept the tensor that it was given. All places stay where they are.
            self.storage = self.with_layout(Layout::contiguous(&[self.storage.len()])).row_major().storage;
        }
        check::region("assign", &layout);
        check::requires(
            src.layout.expand(layout.shape()).is_some(),
            "assign",
            layout.shape(),
            src.shape(),
            "the source must broadcast to the region",
        );
        if layout.numel() > 0 {
            Op::new("assign", [src]).on(&self.device(), |b| b.assign(self, &layout, src));
        }
    }

    /// Values in row-major order, as `f32`.
    pub fn to_vec(&self) -> Vec<f32> {
        self.device().backend().to_host(&self.to_dtype(DType::F32))
    }

    /// Values in row-major order, as `f64`.
    pub fn to_vec_f64(&self) -> Vec<f64> {
        match self.dtype() {
            DType::F64 => self.contiguous().on_cpu().slice::<f64>().to_vec(),
            DType::F32 | DType::Bf16 | DType::F16 => self.to_vec().into_iter().map(f64::from).collect(),
        }
    }

    /// The 16 bits of each value of a `Bf16` or `F16` tensor, in row-major order.
    ///
    /// # Panics
    /// If it is of another type.
    #[track_caller]
    pub fn to_bits(&self) -> Vec<u16> {
        match self.dtype() {
            DType::Bf16 => self.contiguous().slice::<bf16>().reinterpret_cast().to_vec(),
            DType::F16 => self.contiguous().slice::<f16>().reinterpret_cast().to_vec(),
            dtype @ (DType::F32 | DType::F64) => check::sixteen_bits("to_bits", dtype),
        }
    }

    /// The only element.
    ///
    /// # Panics
    /// If there is not exactly one.
    #[track_caller]
    pub fn item(&self) -> f64 {
        check::one_element("item", self.shape());
        self.to_vec_f64()[0]
    }

    /// A view as an ndarray, without copying.
    ///
    /// # Panics
    /// If the tensor is not an `f32` tensor on the CPU (see [`Tensor::to_ndarray`]).
    #[track_caller]
    pub fn view(&self) -> ArrayViewD<'_, f32> {
        check::f32_on_cpu("view", self);
        self.array_view()
    }

    /// A copy as an ndarray, from any device and dtype.
    pub fn to_ndarray(&self) -> ArrayD<f32> {
        self.to_dtype(DType::F32).on_cpu().array_view().to_owned()
    }

    /// This tensor on the CPU.
    pub(crate) fn on_cpu(&self) -> Cow<'_, Tensor> {
        if self.storage.is_on_cpu() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Tensor::from_vec(self.device().backend().to_host(self), self.shape(), &Device::Cpu))
    }

    // ---- CPU kernels' access ------------------------------------------------------------

    /// All memory behind a CPU tensor.
    pub(crate) fn memory<E: Stored>(&self) -> &[E] {
        self.storage.elements()
    }

    /// The elements of a contiguous CPU tensor.
    pub(crate) fn slice<E: Stored>(&self) -> &[E] {
        debug_assert!(self.is_contiguous());
        &self.memory::<E>()[self.layout.offset()..self.layout.offset() + self.numel()]
    }

    /// The elements of a contiguous CPU tensor for writing; copies them first if shared.
    pub(crate) fn slice_mut<E: Stored>(&mut self) -> &mut [E] {
        debug_assert!(self.is_contiguous());
        let (start, len) = (self.layout.offset(), self.numel());
        &mut self.storage.elements_mut()[start..start + len]
    }

    /// All memory behind a CPU tensor for writing; copies it first if shared.
    pub(crate) fn memory_mut<E: Stored>(&mut self) -> &mut [E] {
        self.storage.elements_mut()
    }

    /// Whether a kernel may write its result over the elements: this tensor alone holds them, in
    /// order.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.is_contiguous() && self.storage.is_unique()
    }

    /// Where every write begins, on any device. If other tensors hold the memory, or several
    /// elements lie at one place in it, the tensor goes on with a copy of its elements in row-major
    /// order, so that a write changes this tensor alone, and the elements named alone.
    pub(crate) fn make_writable(&mut self) {
        if !self.storage.is_unique() || self.layout.repeats() {
            *self = self.row_major();
        }
    }

    pub(crate) fn array_view<E: Stored>(&self) -> ArrayViewD<'_, E> {
        let data = &self.memory::<E>()[self.layout.offset()..];
        if self.is_contiguous() {
            return ArrayViewD::from_shape(IxDyn(self.shape()), &data[..self.numel()])
                .expect("a contiguous layout fits its memory");
        }
        let shape = IxDyn(self.shape()).strides(IxDyn(self.layout.strides()));
        ArrayViewD::from_shape(shape, data).expect("a tensor's layout fits its memory")
    }
}

impl From<ArrayD<f32>> for Tensor {
    fn from(a: ArrayD<f32>) -> Tensor {
        let shape = a.shape().to_vec();
        let values = if a.is_standard_layout() {
            let (mut v, offset) = a.into_raw_vec_and_offset();
            v.drain(..offset.unwrap_or(0));
            v.truncate(shape.iter().product());
            v
        } else {
            a.iter().copied().collect()
        };
        Tensor::from_vec(values, &shape, &Device::Cpu)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {:?} {} on {}\n{:?}", self.shape(), self.dtype(), self.device(), self.to_ndarray())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_vec((0..n).map(|i| i as f32).collect(), shape, &Device::Cpu)
    }

    #[test]
    fn views_share_memory_and_agree_with_ndarray() {
        let x = counting(&[2, 3, 4]);
        let v = x.permute(&[2, 0, 1]).narrow(0, 1, 2).select(2, 1);
        assert!(v.shares_memory(&x));
        let a = x.view();
        let want = a.slice(ndarray::s![.., 1, 1..3]).t().to_owned().into_dyn();
        assert_eq!(v.to_ndarray(), want);
        assert_eq!(v.view(), want.view());
        assert_eq!(x.select(0, 0).expand(&[5, 3, 4]).to_ndarray().shape(), [5, 3, 4]);
    }

    #[test]
    fn writing_copies_shared_memory_first() {
        let x = counting(&[2, 2]);
        let mut y = x.clone();
        y.assign(|v| v.select(0, 1), Tensor::scalar(9.0, DType::F32, &Device::Cpu));
        assert_eq!(x.to_vec(), [0., 1., 2., 3.]);
        assert_eq!(y.to_vec(), [0., 1., 9., 9.]);
    }

    #[test]
    fn ndarray_round_trip() {
        let a = ArrayD::from_shape_fn(IxDyn(&[3, 2]), |i| (i[0] * 10 + i[1]) as f32);
        assert_eq!(Tensor::from(a.clone()).to_ndarray(), a);
        let t = a.clone().reversed_axes();
        assert_eq!(Tensor::from(t.clone()).to_ndarray(), t);
    }

    #[test]
    #[should_panic(expected = "5 values do not fill the shape [2, 3], which holds 6")]
    fn wrong_counts_are_told() {
        Tensor::from_vec(vec![0.0; 5], &[2, 3], &Device::Cpu);
    }

    #[test]
    #[should_panic(expected = "matmul: shapes [2, 3] and [2, 3]")]
    fn wrong_products_are_told() {
        let x = counting(&[2, 3]);
        x.matmul(&x);
    }
}
