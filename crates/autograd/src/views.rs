//! Views, joins and writes.

use ironlens_tensor::{Axes, Axis, Operand, Tensor};

use crate::Var;

impl Var {
    /// See [`Tensor::reshape`].
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Var {
        let from = self.shape().to_vec();
        Var::record(self.value().reshape(shape), &[self], move |dy, sink| sink.add(0, dy.reshape(&from)))
    }

    /// See [`Tensor::permute`].
    #[track_caller]
    pub fn permute(&self, axes: impl Axes) -> Var {
        let axes = axes.of(self.shape());
        let mut back = vec![0; axes.len()];
        let value = self.value().permute(&axes);
        axes.iter().enumerate().for_each(|(i, &a)| back[a] = i);
        Var::record(value, &[self], move |dy, sink| sink.add(0, dy.permute(&back)))
    }

    /// See [`Tensor::transpose`].
    #[track_caller]
    pub fn transpose(&self, a: impl Axis, b: impl Axis) -> Var {
        let (a, b) = (a.of(self.shape()), b.of(self.shape()));
        Var::record(self.value().transpose(a, b), &[self], move |dy, sink| sink.add(0, dy.transpose(a, b)))
    }

    /// The last two axes swapped.
    #[track_caller]
    pub fn t(&self) -> Var {
        Var::record(self.value().t(), &[self], |dy, sink| sink.add(0, dy.t()))
    }

    /// See [`Tensor::narrow`].
    #[track_caller]
    pub fn narrow(&self, axis: impl Axis, start: usize, len: usize) -> Var {
        crate::tape::narrow(self, axis.of(self.shape()), start, len)
    }

    /// See [`Tensor::select`].
    #[track_caller]
    pub fn select(&self, axis: impl Axis, index: usize) -> Var {
        let axis = axis.of(self.shape());
        self.narrow(axis, index, 1).squeeze(axis)
    }

    /// See [`Tensor::squeeze`].
    #[track_caller]
    pub fn squeeze(&self, axis: impl Axis) -> Var {
        let axis = axis.of(self.shape());
        Var::record(self.value().squeeze(axis), &[self], move |dy, sink| sink.add(0, dy.unsqueeze(axis)))
    }

    /// See [`Tensor::unsqueeze`].
    #[track_caller]
    pub fn unsqueeze(&self, axis: impl Axis) -> Var {
        let axis = axis.new_in(self.shape());
        Var::record(self.value().unsqueeze(axis), &[self], move |dy, sink| sink.add(0, dy.squeeze(axis)))
    }

    /// See [`Tensor::expand`].
    #[track_caller]
    pub fn expand(&self, shape: &[usize]) -> Var {
        let from = self.shape().to_vec();
        Var::record(self.value().expand(shape), &[self], move |dy, sink| sink.add(0, dy.sum_to(&from)))
    }

    /// See [`Tensor::diagonal`].
    #[track_caller]
    pub fn diagonal(&self, offset: isize) -> Var {
        let shape = self.shape().to_vec();
        Var::record(self.value().diagonal(offset), &[self], move |dy, sink| {
            let mut dx = Tensor::zeros(&shape, dy.dtype(), &dy.device());
            dx.assign(|dx| dx.diagonal(offset), &dy);
            sink.add(0, dx);
        })
    }

    /// See [`Tensor::cat`].
    #[track_caller]
    pub fn cat(parts: &[Var], axis: impl Axis) -> Var {
        let values: Vec<Tensor> = parts.iter().map(|p| p.value().clone()).collect();
        let value = Tensor::cat(&values, axis);
        let axis = axis.of(value.shape());
        let lengths: Vec<usize> = values.iter().map(|p| p.shape()[axis]).collect();
        let parents: Vec<&Var> = parts.iter().collect();
        Var::record(value, &parents, move |dy, sink| {
            let mut start = 0;
            for (i, &len) in lengths.iter().enumerate() {
                sink.add_with(i, || dy.narrow(axis, start, len));
                start += len;
            }
        })
    }

    /// See [`Tensor::stack`].
    #[track_caller]
    pub fn stack(parts: &[Var], axis: impl Axis) -> Var {
        let values: Vec<Tensor> = parts.iter().map(|p| p.value().clone()).collect();
        let value = Tensor::stack(&values, axis);
        let axis = axis.new_in(values[0].shape());
        let (parents, count): (Vec<&Var>, _) = (parts.iter().collect(), parts.len());
        Var::record(value, &parents, move |dy, sink| {
            for i in 0..count {
                sink.add_with(i, || dy.select(axis, i));
            }
        })
    }

    /// Writes `src`, a number or what broadcasts, over the view `region` of this value; see [`Tensor::assign`].
    /// Differentiable: gradients go to `src` where it was written and to the old value elsewhere.
    ///
    /// ```
    /// # use ironlens_autograd::Var;
    /// # use ironlens_tensor::{DType, Device, Tensor};
    /// let mut z = Var::from(Tensor::full(&[1, 2, 3], 1.0, DType::F32, &Device::Cpu));
    /// z.assign(|z| z.select(1, 0), 0.0);
    /// assert_eq!(z.value().to_vec(), [0., 0., 0., 1., 1., 1.]);
    /// ```
    #[track_caller]
    pub fn assign(&mut self, region: impl FnOnce(&Tensor) -> Tensor, src: impl Operand<Var>) {
        let src = &*self.array(src.operand());
        // In row-major order from the start of a memory of its own, so that the region's layout says
        // where the same elements of any row-major tensor of this shape lie.
        let mut value = self.value().contiguous();
        let mut written = None;
        let region = |v: &Tensor| {
            let view = region(v);
            written = Some(view.layout().clone());
            view
        };
        value.assign(region, src.value());
        let written = written.expect("a region was asked for");
        let src_shape = src.shape().to_vec();
        *self = Var::record(value, &[self, src], move |mut dy, sink| {
            // Gradients of sums are expanded, those of products may be transposed.
            dy = dy.contiguous();
            let view = |dy: &Tensor| dy.with_layout(written.starting_at(dy.layout().offset() + written.offset()));
            sink.add_with(1, || view(&dy).sum_to(&src_shape));
            if sink.wants(0) {
                dy.assign(view, 0.0);
                sink.add(0, dy);
            }
        });
    }
}
