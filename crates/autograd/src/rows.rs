//! Functions of the last axis: softmax and the norms, whole and in parts.

use crate::Var;

impl Var {
    /// Softmax over the last axis.
    #[track_caller]
    pub fn softmax(&self) -> Var {
        let y = self.value().softmax();
        Var::record(y.clone(), &[self], move |dy, sink| sink.add(0, y.softmax_grad(&dy)))
    }

    /// Logarithm of the softmax over the last axis.
    #[track_caller]
    pub fn log_softmax(&self) -> Var {
        let y = self.value().log_softmax();
        Var::record(y.clone(), &[self], move |dy, sink| sink.add(0, y.log_softmax_grad(&dy)))
    }

    /// Minus the mean over the last axis.
    #[track_caller]
    pub fn center(&self) -> Var {
        Var::record(self.value().center(), &[self], |dy, sink| sink.add(0, dy.center()))
    }

    /// `sqrt(mean(x^2) + eps)` over the last axis, which stays with length 1.
    #[track_caller]
    pub fn rms(&self, eps: f64) -> Var {
        let x = self.value().clone();
        let scale = x.rms(eps);
        Var::record(scale.clone(), &[self], move |dy, sink| sink.add(0, x.rms_grad(&scale, &dy)))
    }

    /// `self / scale * w + b`; see [`ironlens_tensor::Tensor::scale_and_shift`].
    #[track_caller]
    pub fn scale_and_shift(&self, scale: &Var, w: Option<&Var>, b: Option<&Var>) -> Var {
        let (x, s, weight) = (self.value().clone(), scale.value().clone(), w.map(|w| w.value().clone()));
        let y = x.scale_and_shift(&s, weight.as_ref(), b.map(Var::value));
        let mut parents = vec![self, scale];
        parents.extend(w);
        parents.extend(b);
        let has_w = w.is_some();
        Var::record(y, &parents, move |dy, sink| {
            let last = x.ndim() - 1;
            let leading: Vec<usize> = (0..last).collect();
            if has_w {
                sink.add_with(2, || (&dy * &x.scale_and_shift(&s, None, None)).sum(&leading));
            }
            let b_at = 2 + usize::from(has_w);
            // `b` is the parent after `w`, if it is there at all.
            if sink.len() > b_at {
                sink.add_with(b_at, || dy.sum(&leading));
            }
            let g = weight.as_ref().map_or(dy.clone(), |w| &dy * w);
            sink.add_with(0, || g.scale_and_shift(&s, None, None));
            sink.add_with(1, || -&(&(&g * &x).sum_keepdim(&[last]) / &s.square()));
        })
    }

    /// Layer norm over the last axis in one kernel, bit for bit what [`Var::center`], [`Var::rms`] and
    /// [`Var::scale_and_shift`] give one after the other.
    #[track_caller]
    pub fn layer_norm(&self, eps: f64, w: Option<&Var>, b: Option<&Var>) -> Var {
        let (x, weight) = (self.value().clone(), w.map(|w| w.value().clone()));
        let (y, scale) = x.layer_norm(eps, weight.as_ref(), b.map(Var::value));
        let mut parents = vec![self];
        parents.extend(w);
        parents.extend(b);
        let has_w = w.is_some();
        Var::record(y, &parents, move |dy, sink| {
            let b_at = 1 + usize::from(has_w);
            let wants_w = has_w && sink.wants(1);
            let wants_b = sink.len() > b_at && sink.wants(b_at);
            let (dx, affine) = x.layer_norm_grad(&scale, weight.as_ref(), &dy, wants_w || wants_b);
            sink.add(0, dx);
            if let Some((dw, db)) = affine {
                if wants_w {
                    sink.add(1, dw);
                }
                if wants_b {
                    sink.add(b_at, db);
                }
            }
        })
    }

    /// RMS norm over the last axis in one kernel: [`Var::layer_norm`] without its centring.
    #[track_caller]
    pub fn rms_norm(&self, eps: f64, w: Option<&Var>) -> Var {
        let (x, weight) = (self.value().clone(), w.map(|w| w.value().clone()));
        let (y, scale) = x.rms_norm(eps, weight.as_ref());
        let mut parents = vec![self];
        parents.extend(w);
        let has_w = w.is_some();
        Var::record(y, &parents, move |dy, sink| {
            let (dx, dw) = x.rms_norm_grad(&scale, weight.as_ref(), &dy, has_w && sink.wants(1));
            sink.add(0, dx);
            if let Some(dw) = dw {
                sink.add(1, dw);
            }
        })
    }
}
