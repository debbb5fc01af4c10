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
use std::convert::Infallible;
use std::ops::Range;

use ironlens_tensor::{Tensor, release_if_large};
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
/// stored in 16 bits are widened, processed and rounded again, a layer at a time.
///
/// # Errors
/// As [`process_weights`].
pub fn process_weights_of(model: HookedTransformer, steps: Processing) -> Result<HookedTransformer, LensError> {
    model.rebuilt(|cfg, all| {
        let parts = ProcessingByParts::of_whole(cfg, steps, all)?;
        for layer in 0..parts.cfg.n_layers {
            parts.layer(layer, all);
        }
        for name in ["embed.W_E", "pos_embed.W_pos"] {
            if parts.centers(name) {
                edit(all, name, |rows, _| rows.center());
            }
        }
        if parts.steps.fold_ln || parts.steps.center_unembed {
            // Taken out, so that it is edited in place.
            let mut w = all.remove("unembed.W_U").expect("a transformer has an unembedding").contiguous();
            let norm = ["ln_final.w", "ln_final.b"].map(|name| all.get(name).cloned());
            let bias = parts.unembedding(&mut w, norm, &all["unembed.b_U"]).unwrap_or_else(|never| match never {});
            release_if_large(w.numel());
            all.extend([("unembed.W_U".to_string(), w), ("unembed.b_U".to_string(), bias)]);
        }
        parts.finish(cfg, all);
        Ok(())
    })
}

/// Elements of a weight that are changed at once.
const PIECE: usize = 1 << 19;

/// An unembedding `[d_model, d_vocab]` that is read and written some tokens at a time.
pub trait Columns {
    /// Why they cannot be.
    type Error;
    /// How many tokens there are, `d_vocab`.
    fn tokens(&self) -> usize;
    /// The columns of some tokens as they are, `[d_model, tokens]`, as `f32` (or `f64` in a model of that).
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&mut self, tokens: Range<usize>) -> Result<Tensor, Self::Error>;
    /// Puts others in their place; they are read no more.
    ///
    /// # Errors
    /// If they cannot be written.
    fn write(&mut self, tokens: Range<usize>, columns: &Tensor) -> Result<(), Self::Error>;
}

impl Columns for Tensor {
    type Error = Infallible;

    fn tokens(&self) -> usize {
        self.dim(1)
    }

    fn read(&mut self, tokens: Range<usize>) -> Result<Tensor, Infallible> {
        Ok(widened(&self.narrow(1, tokens.start, tokens.len())))
    }

    fn write(&mut self, tokens: Range<usize>, columns: &Tensor) -> Result<(), Infallible> {
        let columns = columns.to_dtype(self.dtype());
        self.assign(|w| w.narrow(1, tokens.start, tokens.len()), &columns);
        Ok(())
    }
}

fn is_zero(b: &Tensor) -> bool {
    b.to_vec_f64().iter().all(|v| *v == 0.0)
}

/// A weight in the type that it is computed in.
fn widened(w: &Tensor) -> Tensor {
    w.to_dtype(w.dtype().computed())
}

/// Processing of a model of which no more than a part need be there at a time, as while it is read: of each layer, of
/// the embeddings some rows at a time, and of the unembedding some tokens at a time.
#[derive(Clone, Debug)]
pub struct ProcessingByParts {
    /// Of the model as it was.
    cfg: Config,
    /// Those of the steps that this model takes.
    steps: Processing,
}

impl ProcessingByParts {
    /// For a model of `cfg`, resolved; `None` if what is done depends on the weights of all layers: norms with biases are
    /// folded into gated MLPs if none of these has a bias, and `mlp_biases` says that there may be some.
    ///
    /// # Errors
    /// As [`process_weights`].
    pub fn new(cfg: &Config, steps: Processing, mlp_biases: bool) -> Result<Option<ProcessingByParts>, LensError> {
        let parts = ProcessingByParts::all_steps(cfg, steps)?;
        let dependent = mlp_biases && parts.steps.fold_ln && parts.makes_room();
        Ok((!dependent).then_some(parts))
    }

    /// For a model with all of its weights.
    fn of_whole(
        cfg: &Config,
        steps: Processing,
        all: &BTreeMap<String, Tensor>,
    ) -> Result<ProcessingByParts, LensError> {
        let mut parts = ProcessingByParts::all_steps(cfg, steps)?;
        let zero = |name: &str| {
            let of_layer = |l| all.get(&format!("blocks.{l}.{name}"));
            (0..cfg.n_layers).filter_map(of_layer).all(is_zero)
        };
        parts.steps.fold_ln &= !parts.makes_room() || zero("ln2.b") || zero("mlp.b_in");
        Ok(parts)
    }

    /// The steps that a configuration allows.
    fn all_steps(cfg: &Config, steps: Processing) -> Result<ProcessingByParts, LensError> {
        let as_it_does = steps.like_transformerlens;
        let kind = cfg.normalization_type;
        let shortformer = cfg.positional_embedding_type == PositionalEmbeddingType::Shortformer;
        if steps.refactor_factored_attn_matrices {
            refuse_to_refactor(cfg)?;
        }
        // With sinks attention does not sum to 1, and a clipped bias is not added in full.
        let movable = as_it_does || !(cfg.attn_sinks || cfg.clip_qkv.is_some());
        let steps = Processing {
            fold_ln: steps.fold_ln && kind.has_weights() && cfg.num_experts == 0 && (as_it_does || !shortformer),
            center_writing_weights: steps.center_writing_weights
                && kind.centers()
                && !cfg.final_rms
                && (as_it_does || !shortformer),
            center_unembed: steps.center_unembed && (as_it_does || cfg.output_logits_soft_cap <= 0.0),
            fold_value_biases: (steps.fold_value_biases && movable) || steps.refactor_factored_attn_matrices,
            ..steps
        };
        Ok(ProcessingByParts { cfg: cfg.clone(), steps })
    }

    /// Whether gated MLPs, which add their biases after the product, are made to add the norms' before it. Where they
    /// have biases already, these would be lost.
    fn makes_room(&self) -> bool {
        let cfg = &self.cfg;
        let late = cfg.gated_mlp && !cfg.gate_bias && !cfg.attn_only;
        late && self.layer_norm() && !self.steps.like_transformerlens
    }

    fn layer_norm(&self) -> bool {
        self.cfg.normalization_type.centers()
    }

    /// Processes layer `layer`, of whose weights `all` has all, by name. Norms that are folded are then gone; a gate may
    /// have got a bias.
    ///
    /// # Panics
    /// If one is not there.
    pub fn layer(&self, layer: usize, all: &mut BTreeMap<String, Tensor>) {
        let at = format!("blocks.{layer}.");
        let mut stored = Vec::new();
        for (name, value) in all.range_mut(at.clone()..).take_while(|(name, _)| name.starts_with(&at)) {
            if value.dtype().is_storage() {
                stored.push((name.clone(), value.dtype()));
                *value = widened(value);
            }
        }
        Layer { cfg: &self.cfg, at, makes_room: self.makes_room(), all }.process(layer, self.steps);
        for (name, dtype) in stored {
            if let Some(value) = all.get_mut(&name) {
                *value = value.to_dtype(dtype);
                release_if_large(value.numel());
            }
        }
    }

    /// Whether rows of embedding `name` (of tokens or positions) are centred.
    pub fn centers(&self, name: &str) -> bool {
        self.steps.center_writing_weights
            && match name {
                "embed.W_E" => true,
                "pos_embed.W_pos" => self.cfg.positional_embedding_type != PositionalEmbeddingType::Rotary,
                _ => false,
            }
    }

    /// Processes the unembedding, some tokens at a time (all of them are read twice to be centred). `norm` is the final
    /// norm's weight and bias, where it has them, and `bias` `b_U` `[d_vocab]`; gives what becomes of that.
    ///
    /// # Errors
    /// Those of reading and writing.
    ///
    /// # Panics
    /// If the norm is to be folded and is not given.
    pub fn unembedding<C: Columns>(
        &self,
        columns: &mut C,
        [w, b]: [Option<Tensor>; 2],
        bias: &Tensor,
    ) -> Result<Tensor, C::Error> {
        let fold = self.steps.fold_ln;
        let scale = fold.then(|| w.expect("a norm that is folded has a weight").unsqueeze(1));
        let through = b.filter(|_| fold && self.layer_norm() && !self.cfg.final_rms);
        // As TransformerLens does, also where the final norm does not centre.
        let center_rows = fold && self.layer_norm() && (self.steps.like_transformerlens || !self.cfg.final_rms);
        let folded = |mut columns: Tensor| {
            if let Some(scale) = &scale {
                columns = &columns * &scale.expand(columns.shape());
            }
            if center_rows {
                columns = &columns - &columns.mean(&[0]).unsqueeze(0).expand(columns.shape());
            }
            columns
        };
        let tokens = columns.tokens();
        let step = (PIECE / self.cfg.d_model.max(1)).max(1);
        let pieces = || (0..tokens).step_by(step).map(|start| start..tokens.min(start + step));
        let mut mean = None;
        if self.steps.center_unembed {
            for piece in pieces() {
                let sum = folded(columns.read(piece)?).sum(&[1]);
                mean = Some(mean.map_or(sum.clone(), |so_far: Tensor| &so_far + &sum));
            }
            mean = mean.map(|sum| sum.affine(1.0 / tokens as f64, 0.0).unsqueeze(1));
        }
        let mut added = Vec::new();
        for piece in pieces() {
            let old = columns.read(piece.clone())?;
            added.extend(through.as_ref().map(|b| b.unsqueeze(0).matmul(&old).squeeze(0)));
            // The old ones are gone before they are written to: of a tensor that others see all would be copied.
            let mut new = folded(old);
            if let Some(mean) = &mean {
                new = &new - &mean.expand(new.shape());
            }
            columns.write(piece, &new)?;
        }
        let bias = if added.is_empty() { bias.clone() } else { bias + &Tensor::cat(&added, 0) };
        Ok(if self.steps.center_unembed { bias.center() } else { bias })
    }

    /// Makes the configuration that of a model all of whose parts were processed, and takes away the norms that are
    /// folded.
    pub fn finish(&self, cfg: &mut Config, all: &mut BTreeMap<String, Tensor>) {
        if !self.steps.fold_ln {
            return;
        }
        all.retain(|name, _| !self.folds(name));
        if self.makes_room() && all.keys().any(|name| name.ends_with(".mlp.b_gate")) {
            cfg.gate_bias = true;
            for l in 0..cfg.n_layers {
                let none = all[&format!("blocks.{l}.mlp.b_in")].zeros_like();
                all.entry(format!("blocks.{l}.mlp.b_gate")).or_insert(none);
            }
        }
        cfg.normalization_type = match self.layer_norm() {
            true => NormalizationType::LNPre,
            false => NormalizationType::RMSPre,
        };
    }

    /// Whether a weight is that of a norm that is folded. Norms of what is written stay.
    fn folds(&self, name: &str) -> bool {
        let Some((module, _)) = name.rsplit_once('.') else { return false };
        let of_layer = self.cfg.normalizes_inputs()
            && module.starts_with("blocks.")
            && (module.ends_with(".ln1")
                || module.ends_with(".ln2")
                || self.layer_norm() && module.ends_with(".mlp.ln"));
        module == "ln_final" || of_layer
    }
}

/// Refuses models whose QK has no such factors.
fn refuse_to_refactor(cfg: &Config) -> Result<(), LensError> {
    let refuse = |given: &str, why: &str| Err(LensError::argument("refactoring QK with", given, why));
    if cfg.positional_embedding_type == PositionalEmbeddingType::Rotary {
        return refuse("rotary positions", "positions that are not rotated: QK depends on the distance there");
    }
    if cfg.is_grouped_query() {
        return refuse("grouped queries", "keys of its own for every head");
    }
    if cfg.use_qk_norm || cfg.clip_qkv.is_some() {
        return refuse("norms or clipping of queries and keys", "scores that are their products");
    }
    if cfg.attn_sinks {
        return refuse("sinks", "attention that sums to 1, so that value biases can be moved");
    }
    Ok(())
}

/// Makes of weight `name`, `[rows, ..]`, what `change` makes of some of its rows, given with their places, in place: a
/// second copy of an embedding would be a good part of a small model. Weights that are stored together first get memory
/// of their own, and the last of them frees theirs, of a size that is not asked for again: it goes back to the system.
fn edit(all: &mut BTreeMap<String, Tensor>, name: &str, change: impl Fn(&Tensor, Range<usize>) -> Tensor) {
    let value = all.get_mut(name).unwrap_or_else(|| panic!("a model that is processed has `{name}`"));
    *value = value.contiguous();
    let rows = value.dim(0);
    let step = (PIECE * rows / value.numel().max(1)).max(1);
    for start in (0..rows).step_by(step) {
        let count = step.min(rows - start);
        let changed = change(&widened(&value.narrow(0, start, count)), start..start + count);
        let changed = changed.to_dtype(value.dtype());
        value.assign(|value| value.narrow(0, start, count), &changed);
    }
    release_if_large(value.numel());
}

/// The weights of a layer among others, by their full names.
struct Layer<'w> {
    cfg: &'w Config,
    /// What their names begin with.
    at: String,
    /// Whether a gate is given a bias where the norm before it has one.
    makes_room: bool,
    all: &'w mut BTreeMap<String, Tensor>,
}

impl Layer<'_> {
    fn process(&mut self, layer: usize, steps: Processing) {
        if steps.fold_ln && self.cfg.normalizes_inputs() {
            self.fold_layer_norm();
        }
        if steps.center_writing_weights {
            self.center_writing_weights(self.cfg.has_experts(layer));
        }
        if steps.fold_value_biases {
            self.fold_value_biases();
        }
        if steps.refactor_factored_attn_matrices {
            self.refactor_factored_attn_matrices();
        }
    }

    /// The full name of a weight.
    fn at(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.all[&self.at(name)]
    }

    fn set(&mut self, name: &str, value: Tensor) {
        self.all.insert(self.at(name), value);
    }

    fn edit(&mut self, name: &str, change: impl Fn(&Tensor, Range<usize>) -> Tensor) {
        edit(self.all, &format!("{}{name}", self.at), change);
    }

    /// A norm's weight or bias, which is then gone.
    fn take(&mut self, name: &str) -> Tensor {
        let name = self.at(name);
        self.all.remove(&name).unwrap_or_else(|| panic!("a model with folded norms has `{name}`"))
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

    fn fold_layer_norm(&mut self) {
        let layer_norm = self.cfg.normalization_type.centers();
        let kv = if self.cfg.is_grouped_query() { "_" } else { "" };
        let b = layer_norm.then(|| self.take("ln1.b"));
        let w = self.take("ln1.w");
        for (u, x) in [("", "Q"), (kv, "K"), (kv, "V")] {
            let (matrix, bias) = (format!("attn.{u}W_{x}"), format!("attn.{u}b_{x}"));
            if let Some(b) = &b {
                self.add_through(&bias, &matrix, b);
            }
            self.scale_rows(&matrix, &w);
            if layer_norm {
                self.center_rows(&matrix);
            }
        }
        if self.cfg.attn_only {
            return;
        }
        if layer_norm {
            let b = self.take("ln2.b");
            self.add_through("mlp.b_in", "mlp.W_in", &b);
            let room = self.makes_room && !is_zero(&b);
            if room {
                self.set("mlp.b_gate", self.get("mlp.b_in").zeros_like());
            }
            if room || self.cfg.gate_bias {
                self.add_through("mlp.b_gate", "mlp.W_gate", &b);
            }
        }
        let w = self.take("ln2.w");
        self.scale_rows("mlp.W_in", &w);
        if self.cfg.gated_mlp {
            self.scale_rows("mlp.W_gate", &w);
        }
        if layer_norm {
            self.center_rows("mlp.W_in");
        }
        // The norm after the activation, of SoLU models.
        if layer_norm && self.all.contains_key(&self.at("mlp.ln.w")) {
            let b = self.take("mlp.ln.b");
            self.add_through("mlp.b_out", "mlp.W_out", &b);
            let w = self.take("mlp.ln.w");
            self.scale_rows("mlp.W_out", &w);
            self.center_rows("mlp.W_out");
        }
    }

    fn center_writing_weights(&mut self, experts: bool) {
        self.center_last("attn.W_O");
        self.center_last("attn.b_O");
        if experts {
            self.center_experts();
        } else if !self.cfg.attn_only {
            self.center_last("mlp.W_out");
            self.center_last("mlp.b_out");
        }
    }

    /// What each expert writes: matrices are `[d_model, d_mlp]` there.
    fn center_experts(&mut self) {
        let mlp = self.at("mlp.");
        let names = self.all.keys().filter_map(|name| name.strip_prefix(&self.at).filter(|_| name.starts_with(&mlp)));
        for name in names.map(String::from).collect::<Vec<_>>() {
            if name.ends_with(".W_out.weight") {
                self.center_rows(&name);
            } else if name.ends_with(".W_out.bias") {
                self.center_last(&name);
            }
        }
    }

    fn fold_value_biases(&mut self) {
        let name = if self.cfg.is_grouped_query() { "attn._b_V" } else { "attn.b_V" };
        let (b_v, w_o) = (self.get(name).clone(), self.get("attn.W_O").clone());
        let (heads, kv, e) = (w_o.dim(0), b_v.dim(0), b_v.dim(1));
        let all = b_v.unsqueeze(1).expand(&[kv, heads / kv, e]).reshape(&[heads, e]);
        let moved = (&all.unsqueeze(2) * &w_o).sum(&[0, 1]);
        let b_o = self.get("attn.b_O") + &moved;
        self.set("attn.b_O", b_o);
        self.set(name, b_v.zeros_like());
    }

    fn refactor_factored_attn_matrices(&mut self) {
        let with_bias = |w: &str, b: &str| Tensor::cat(&[self.get(w).clone(), self.get(b).unsqueeze(1)], 1);
        let (q, k) = (with_bias("attn.W_Q", "attn.b_Q"), with_bias("attn.W_K", "attn.b_K"));
        let even = FactoredMatrix::new(q, k.t()).make_even();
        let (q, k) = (even.a().clone(), even.b().t());
        let d = self.cfg.d_model;
        for (w, b, x) in [("attn.W_Q", "attn.b_Q", q), ("attn.W_K", "attn.b_K", k)] {
            self.set(w, x.narrow(1, 0, d).contiguous());
            self.set(b, x.select(1, d).contiguous());
        }
        let (w_v, w_o) = (self.get("attn.W_V").clone(), self.get("attn.W_O").clone());
        let Svd { u, s, v } = FactoredMatrix::new(w_v, w_o).svd();
        self.set("attn.W_V", &u * &s.unsqueeze(1));
        self.set("attn.W_O", v.t().contiguous());
    }
}
