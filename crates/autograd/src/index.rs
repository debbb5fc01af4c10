//! Embedding and cross-entropy.

use ironlens_tensor::IndexTensor;

use crate::Var;

impl Var {
    /// Rows `ids` of the table `self`; see [`ironlens_tensor::Tensor::embed`].
    #[track_caller]
    pub fn embed(&self, ids: &IndexTensor) -> Var {
        let (rows, ids_) = (self.dim(0), ids.clone());
        Var::record(self.value().embed(ids), &[self], move |dy, sink| sink.add(0, dy.embed_grad(&ids_, rows)))
    }

    /// Minus the log-probability of `targets [..]` under logits `self` `[.., vocab]`: `[..]`.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &IndexTensor) -> Var {
        let (logits, targets) = (self.value().clone(), targets.clone());
        Var::record(logits.cross_entropy(&targets), &[self], move |dy, sink| {
            sink.add(0, logits.cross_entropy_grad(&targets, &dy));
        })
    }
}
