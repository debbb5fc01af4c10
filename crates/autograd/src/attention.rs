//! Attention: fused, and in the parts that hooks look between.

use ironlens_tensor::{AttentionSpec, RotarySpec};

use crate::Var;

impl Var {
    /// See [`ironlens_tensor::Tensor::attention_scores`].
    #[track_caller]
    pub fn attention_scores(&self, keys: &Var, spec: &AttentionSpec) -> Var {
        let (q, k, spec) = (self.value().clone(), keys.value().clone(), spec.clone());
        Var::record(q.attention_scores(&k, &spec), &[self, keys], move |dy, sink| {
            let (dq, dk) = q.attention_scores_grad(&k, &spec, &dy);
            sink.add(0, dq);
            sink.add(1, dk);
        })
    }

    /// See [`ironlens_tensor::Tensor::attention_values`]; `self` is the pattern.
    #[track_caller]
    pub fn attention_values(&self, values: &Var) -> Var {
        let (p, v) = (self.value().clone(), values.value().clone());
        Var::record(p.attention_values(&v), &[self, values], move |dy, sink| {
            let (dp, dv) = p.attention_values_grad(&v, &dy);
            sink.add(0, dp);
            sink.add(1, dv);
        })
    }

    /// Scores, softmax and mix in one kernel, bit for bit; see
    /// [`ironlens_tensor::Tensor::attention`]. Gives z.
    #[track_caller]
    pub fn attention(&self, keys: &Var, values: &Var, spec: &AttentionSpec) -> Var {
        if ![self, keys, values].iter().any(|x| x.requires_grad()) {
            return Var::from(self.value().attention(keys.value(), values.value(), spec));
        }
        let (q, k, v) = (self.value().clone(), keys.value().clone(), values.value().clone());
        let spec = spec.clone();
        let (z, pattern) = q.attention_with_pattern(&k, &v, &spec);
        Var::record(z, &[self, keys, values], move |dz, sink| {
            let (dq, dk, dv) = q.attention_grad(&k, &v, &spec, &pattern, &dz);
            sink.add(0, dq);
            sink.add(1, dk);
            sink.add(2, dv);
        })
    }

    /// See [`ironlens_tensor::Tensor::rotary`].
    #[track_caller]
    pub fn rotary(&self, spec: &RotarySpec) -> Var {
        let value = self.value().rotary(spec, false);
        let spec = spec.clone();
        Var::record(value, &[self], move |dy, sink| sink.add(0, dy.rotary(&spec, true)))
    }
}
