//! Weights rewritten so that they are easier to read: TransformerLens's `process_weights_`.
//!
//! The norms' weights move into the matrices that read them, directions that no norm sees go, and
//! constants are gathered, so that a weight is what it does. The function of the model stays, but
//! for these cases, in which TransformerLens changes it too (numbers are kept equal to its own, unless
//! [`Processing::like_transformerlens`] is off):
//! `final_rms` with layer norms, whose unembedding is centred though the final norm does not centre;
//! gated MLPs with `ln2.b` other than 0, whose `b_in` is added after the product; shortformer models,
//! whose positions are not normalised; soft-capped logits, which centring shifts; and value biases where
//! attention does not sum to 1. Norms that experts read are not folded, as in TransformerLens.

use std::collections::BTreeMap;
use std::ops::Range;

use ironlens_tensor::{DType, Tensor, release_if_large};
use ironlens_transformer::{Config, HookedTransformer, NormalizationType, PositionalEmbeddingType};

use crate::error::LensError;
use crate::factored::{FactoredMatrix, Svd};

/// Which steps to take; all but the last by default, as TransformerLens does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processing {
    /// Norm weights and biases go into the matrices that read them; the norms become `*Pre`.
    pub fold_ln: bool,
    /// What is written to the stream is centred (layer norms remove the mean anyway).
    pub center_writing_weights: bool,
    /// Each direction of `W_U` is centred over the vocabulary (softmax does not see a shift).
    pub center_unembed: bool,
    /// `b_V` moves into `b_O` (attention sums to 1; without `like_transformerlens`, only where it does).
    pub fold_value_biases: bool,
    /// QK and OV are refactored with even, orthogonal columns.
    pub refactor_factored_attn_matrices: bool,
    /// Also where TransformerLens changes the function of the model; without it, what would change it is not
    /// done, or done so that it does not.
    pub like_transformerlens: bool,
}

impl Default for Processing {
    fn default() -> Self {
        Processing {
            fold_ln: true,
            center_writing_weights: true,
            center_unembed: true,
            fold_value_biases: true,
            refactor_factored_attn_matrices: false,
            like_transformerlens: true,
        }
    }
}

/// The same model with processed weights; see the module. Its norms are `LNPre` or `RMSPre` after
/// folding, and all its hooks fire.
///
/// # Errors
/// If QK is to be refactored where positions are rotated, heads share keys, or attention is no function of QK.
pub fn process_weights(model: &HookedTransformer, steps: Processing) -> Result<HookedTransformer, LensError> {
    process_weights_of(model.clone(), steps)
}

/// As [`process_weights`], of a model that is no longer needed: there are never two of a large one. Weights that are
/// stored in 16 bits are widened, processed and rounded again.
///
/// # Errors
/// As [`process_weights`].
pub fn process_weights_of(mut model: HookedTransformer, steps: Processing) -> Result<HookedTransformer, LensError> {
    let storage = model.params().storage();
    if storage.is_storage() {
        model.params_mut().store_as(DType::F32);
    }
    let mut processed = model.rebuilt(|cfg, all| Weights { cfg, all }.process(steps))?;
    if storage.is_storage() {
        processed.params_mut().store_as(storage);
    }
    Ok(processed)
}

/// Elements of a weight that are changed at once.
const PIECE: usize = 1 << 20;

/// Weights by name, on the way.
struct Weights<'w> {
    cfg: &'w mut Config,
    all: &'w mut BTreeMap<String, Tensor>,
}

impl Weights<'_> {
    fn process(&mut self, steps: Processing) -> Result<(), LensError> {
        let kind = self.cfg.normalization_type;
        let as_it_does = steps.like_transformerlens;
        let shortformer = self.cfg.positional_embedding_type == PositionalEmbeddingType::Shortformer;
        let foldable = kind.has_weights() && self.cfg.num_experts == 0;
        if steps.fold_ln && foldable && (as_it_does || !shortformer && self.has_room_for_norms()) {
            self.fold_layer_norm(as_it_does);
        }
        if steps.center_writing_weights && kind.centers() && !self.cfg.final_rms && (as_it_does || !shortformer) {
            self.center_writing_weights();
        }
        if steps.center_unembed && (as_it_does || self.cfg.output_logits_soft_cap <= 0.0) {
            self.center_last("unembed.W_U");
            self.center_last("unembed.b_U");
        }
        // With sinks attention does not sum to 1, and a clipped bias is not added in full.
        let movable = as_it_does || !(self.cfg.attn_sinks || self.cfg.clip_qkv.is_some());
        if (steps.fold_value_biases && movable) || steps.refactor_factored_attn_matrices {
            self.fold_value_biases();
        }
        if steps.refactor_factored_attn_matrices {
            self.refactor_factored_attn_matrices()?;
        }
        Ok(())
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.all[name]
    }

    fn set(&mut self, name: &str, value: Tensor) {
        self.all.insert(name.into(), value);
    }

    /// Makes of a weight `[rows, ..]` what `edit` makes of some of its rows, given with their places, in place: a second
    /// copy of an embedding would be a good part of a small model. Weights that are stored together first get memory of
    /// their own, and the last of them frees theirs, of a size that is not asked for again: it goes back to the system.
    fn edit(&mut self, name: &str, edit: impl Fn(&Tensor, Range<usize>) -> Tensor) {
        let value = self.all.get_mut(name).unwrap_or_else(|| panic!("a model with norms to fold has `{name}`"));
        *value = value.contiguous();
        let rows = value.dim(0);
        let step = (PIECE * rows / value.numel().max(1)).max(1);
        for start in (0..rows).step_by(step) {
            let count = step.min(rows - start);
            let edited = edit(&value.narrow(0, start, count), start..start + count);
            value.assign(|value| value.narrow(0, start, count), &edited);
        }
        release_if_large(value.numel());
    }

    /// A norm's weight or bias, which is then gone.
    fn take(&mut self, name: &str) -> Tensor {
        self.all.remove(name).unwrap_or_else(|| panic!("a model with folded norms has `{name}`"))
    }

    /// Minus the mean along the last axis.
    fn center_last(&mut self, name: &str) {
        match self.get(name).ndim() {
            1 => self.set(name, self.get(name).center()),
            _ => self.edit(name, |w, _| w.center()),
        }
    }

    /// Minus the mean along the last axis but one.
    fn center_rows(&mut self, name: &str) {
        let w = self.get(name);
        let mean = w.mean(&[-2]).unsqueeze(-2).expand(w.shape());
        self.edit(name, |w, at| w - &mean.narrow(0, at.start, at.len()));
    }

    /// `bias += sum over rows of matrix * b`, with rows the last axis but one of `matrix`.
    fn add_through(&mut self, bias: &str, matrix: &str, b: &Tensor) {
        let w = self.get(matrix);
        let sum = b.unsqueeze(0).matmul(w).squeeze(-2);
        let new = self.get(bias) + &sum;
        self.set(bias, new);
    }

    /// `matrix *= w` along the last axis but one.
    fn scale_rows(&mut self, matrix: &str, w: &Tensor) {
        let scale = w.unsqueeze(1).expand(self.get(matrix).shape());
        self.edit(matrix, |matrix, at| matrix * &scale.narrow(0, at.start, at.len()));
    }

    /// `as_it_does`: also where the final norm does not centre, `W_U` is centred as if it did.
    fn fold_layer_norm(&mut self, as_it_does: bool) {
        let layer_norm = self.cfg.normalization_type.centers();
        let kv = if self.cfg.is_grouped_query() { "_" } else { "" };
        let attn = [
            ("W_Q".to_string(), "b_Q".to_string()),
            (format!("{kv}W_K"), format!("{kv}b_K")),
            (format!("{kv}W_V"), format!("{kv}b_V")),
        ];
        for l in 0..self.cfg.n_layers {
            let at = |name: &str| format!("blocks.{l}.{name}");
            // Norms of what is written stay.
            if !self.cfg.normalizes_inputs() {
                continue;
            }
            let b = layer_norm.then(|| self.take(&at("ln1.b")));
            let w = self.take(&at("ln1.w"));
            for (matrix, bias) in &attn {
                let (matrix, bias) = (at(&format!("attn.{matrix}")), at(&format!("attn.{bias}")));
                if let Some(b) = &b {
                    self.add_through(&bias, &matrix, b);
                }
                self.scale_rows(&matrix, &w);
                if layer_norm {
                    self.center_rows(&matrix);
                }
            }
            if self.cfg.attn_only {
                continue;
            }
            if layer_norm {
                let b = self.take(&at("ln2.b"));
                self.add_through(&at("mlp.b_in"), &at("mlp.W_in"), &b);
                if self.cfg.gate_bias {
                    self.add_through(&at("mlp.b_gate"), &at("mlp.W_gate"), &b);
                }
            }
            let w = self.take(&at("ln2.w"));
            self.scale_rows(&at("mlp.W_in"), &w);
            if self.cfg.gated_mlp {
                self.scale_rows(&at("mlp.W_gate"), &w);
            }
            if layer_norm {
                self.center_rows(&at("mlp.W_in"));
            }
            // The norm after the activation, of SoLU models.
            if layer_norm && self.all.contains_key(&at("mlp.ln.w")) {
                let b = self.take(&at("mlp.ln.b"));
                self.add_through(&at("mlp.b_out"), &at("mlp.W_out"), &b);
                let w = self.take(&at("mlp.ln.w"));
                self.scale_rows(&at("mlp.W_out"), &w);
                self.center_rows(&at("mlp.W_out"));
            }
        }
        if layer_norm && !self.cfg.final_rms {
            let b = self.take("ln_final.b");
            self.add_through("unembed.b_U", "unembed.W_U", &b);
        }
        let w = self.take("ln_final.w");
        self.scale_rows("unembed.W_U", &w);
        if layer_norm && (as_it_does || !self.cfg.final_rms) {
            self.center_rows("unembed.W_U");
        }
        self.cfg.normalization_type = if layer_norm { NormalizationType::LNPre } else { NormalizationType::RMSPre };
    }

    /// Whether there is a place for the norms' biases. Gated MLPs, which add theirs after the product, are made
    /// to add them before it; where they have some already, these would be lost.
    fn has_room_for_norms(&mut self) -> bool {
        let layers = || (0..self.cfg.n_layers).map(|l| format!("blocks.{l}."));
        let zero = |name: String| self.all.get(&name).is_none_or(|b| b.to_vec_f64().iter().all(|v| *v == 0.0));
        let gated = self.cfg.gated_mlp && !self.cfg.gate_bias && !self.cfg.attn_only;
        if !gated || layers().all(|at| zero(format!("{at}ln2.b"))) {
            return true;
        }
        if !layers().all(|at| zero(format!("{at}mlp.b_in"))) {
            return false;
        }
        for at in layers().collect::<Vec<_>>() {
            let b = self.get(&format!("{at}mlp.b_in")).clone();
            self.set(&format!("{at}mlp.b_gate"), b);
        }
        self.cfg.gate_bias = true;
        true
    }

    fn center_writing_weights(&mut self) {
        self.center_last("embed.W_E");
        if self.cfg.positional_embedding_type != PositionalEmbeddingType::Rotary {
            self.center_last("pos_embed.W_pos");
        }
        for l in 0..self.cfg.n_layers {
            let at = |name: &str| format!("blocks.{l}.{name}");
            self.center_last(&at("attn.W_O"));
            self.center_last(&at("attn.b_O"));
            if self.cfg.has_experts(l) {
                self.center_experts(&at("mlp."));
            } else if !self.cfg.attn_only {
                self.center_last(&at("mlp.W_out"));
                self.center_last(&at("mlp.b_out"));
            }
        }
    }

    /// What each expert writes: matrices are `[d_model, d_mlp]` there.
    fn center_experts(&mut self, mlp: &str) {
        let names: Vec<String> = self.all.keys().filter(|name| name.starts_with(mlp)).cloned().collect();
        for name in names {
            if name.ends_with(".W_out.weight") {
                self.center_rows(&name);
            } else if name.ends_with(".W_out.bias") {
                self.center_last(&name);
            }
        }
    }

    fn fold_value_biases(&mut self) {
        for l in 0..self.cfg.n_layers {
            let at = |name: &str| format!("blocks.{l}.attn.{name}");
            let name = at(if self.cfg.is_grouped_query() { "_b_V" } else { "b_V" });
            let (b_v, w_o) = (self.get(&name).clone(), self.get(&at("W_O")).clone());
            let (heads, kv, e) = (w_o.dim(0), b_v.dim(0), b_v.dim(1));
            let all = b_v.unsqueeze(1).expand(&[kv, heads / kv, e]).reshape(&[heads, e]);
            let moved = (&all.unsqueeze(2) * &w_o).sum(&[0, 1]);
            let b_o = self.get(&at("b_O")) + &moved;
            self.set(&at("b_O"), b_o);
            self.set(&name, b_v.zeros_like());
        }
    }

    fn refactor_factored_attn_matrices(&mut self) -> Result<(), LensError> {
        let refuse = |given: &str, why: &str| Err(LensError::argument("refactoring QK with", given, why));
        if self.cfg.positional_embedding_type == PositionalEmbeddingType::Rotary {
            return refuse("rotary positions", "positions that are not rotated: QK depends on the distance there");
        }
        if self.cfg.is_grouped_query() {
            return refuse("grouped queries", "keys of its own for every head");
        }
        if self.cfg.use_qk_norm || self.cfg.clip_qkv.is_some() {
            return refuse("norms or clipping of queries and keys", "scores that are their products");
        }
        if self.cfg.attn_sinks {
            return refuse("sinks", "attention that sums to 1, so that value biases can be moved");
        }
        for l in 0..self.cfg.n_layers {
            let at = |name: &str| format!("blocks.{l}.attn.{name}");
            let with_bias =
                |w: &str, b: &str| Tensor::cat(&[self.get(&at(w)).clone(), self.get(&at(b)).unsqueeze(1)], 1);
            let (q, k) = (with_bias("W_Q", "b_Q"), with_bias("W_K", "b_K"));
            let even = FactoredMatrix::new(q, k.t()).make_even();
            let (q, k) = (even.a().clone(), even.b().t());
            let d = self.cfg.d_model;
            for (w, b, x) in [("W_Q", "b_Q", q), ("W_K", "b_K", k)] {
                self.set(&at(w), x.narrow(1, 0, d).contiguous());
                self.set(&at(b), x.select(1, d).contiguous());
            }
            let Svd { u, s, v } = FactoredMatrix::new(self.get(&at("W_V")).clone(), self.get(&at("W_O")).clone()).svd();
            self.set(&at("W_V"), &u * &s.unsqueeze(1));
            self.set(&at("W_O"), v.t().contiguous());
        }
        Ok(())
    }
}
