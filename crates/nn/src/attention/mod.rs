//! Multi-head attention with a hook point at every step.

use std::sync::Arc;

use ironlens_autograd::Var;
use ironlens_tensor::{Alibi, AttentionSpec, Layout, RotarySpec, Tensor};

use crate::ctx::Ctx;
use crate::error::HookError;
use crate::registry::{HookPoint, Init, Param, Scope};
use crate::rotary::RotaryTable;

mod incremental;
mod padding;
mod past;
mod project;
mod qk_norm;

pub use padding::Padding;
pub use past::{Past, Rows};
pub use qk_norm::QkNorm;
use qk_norm::VectorNorm;

/// How attention knows positions.
#[derive(Clone, Debug)]
pub enum PositionScheme {
    /// From its input alone.
    None,
    /// Queries and keys are rotated, by a table that layers share.
    Rotary(Arc<RotaryTable>),
    /// Scores have a bias, by a slope for each head.
    Alibi(Alibi),
}

/// The sizes and kind of an [`Attention`].
#[derive(Clone, Debug)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of heads.
    pub n_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Longest sequence.
    pub n_ctx: usize,
    /// Number of key and value heads if grouped: heads share them by neighbouring groups.
    pub n_key_value_heads: Option<usize>,
    /// Give every head its own copy of its group's keys and values, for hooks.
    pub ungroup: bool,
    /// Scores are divided by this.
    pub scale: f64,
    /// Squash scores to this if set.
    pub soft_cap: Option<f64>,
    /// Hide keys after the query.
    pub causal: bool,
    /// Hide keys this far before the query.
    pub window: Option<usize>,
    /// How positions are known.
    pub positions: PositionScheme,
    /// Normalise queries and keys, with this epsilon.
    pub qk_norm: Option<(QkNorm, f64)>,
    /// Cut queries, keys and values off at plus and minus this, as they are projected (OLMo).
    pub clip_qkv: Option<f64>,
    /// One more score per head, which no value belongs to: attention may look at nothing (gpt-oss).
    pub sinks: bool,
    /// Compute each head's output by itself, for `hook_result`.
    pub use_result: bool,
}

/// What queries, keys and values are made from. Each is `[batch, pos, d_model]`, or
/// `[batch, pos, head, d_model]` with an input of its own for every head.
#[derive(Debug)]
pub enum AttentionInput {
    /// The same for all three.
    Shared(Var),
    /// One for each, in the order query, key, value.
    Split([Var; 3]),
}

/// Multi-head attention: `W_Q`, `W_K`, `W_V` `[head, d_model, d_head]`, `W_O`
/// `[head, d_head, d_model]`; with grouped queries `_W_K` and `_W_V` have one entry per group. With sinks,
/// `sinks` `[head]`.
///
/// The three input matrices are stored side by side as one, so that a shared input is read once.
#[derive(Debug)]
pub struct Attention {
    cfg: AttentionConfig,
    w_qkv: Param,
    b_qkv: Param,
    w_o: Param,
    b_o: Param,
    norms: Option<[VectorNorm; 2]>,
    sinks: Option<Param>,
    hook_k: HookPoint,
    hook_q: HookPoint,
    hook_v: HookPoint,
    hook_z: HookPoint,
    hook_attn_scores: HookPoint,
    hook_pattern: HookPoint,
    hook_result: HookPoint,
    hook_rot: Option<[HookPoint; 2]>,
}

impl Attention {
    /// In `scope`. `init` says how a matrix `[head, rows, columns]` starts; `shortformer` only adds
    /// the hook point that TransformerLens has there.
    pub fn new(
        s: &mut Scope<'_>,
        cfg: AttentionConfig,
        shortformer: bool,
        init: &dyn Fn(&[usize]) -> Init,
    ) -> Attention {
        let (d, e, h) = (cfg.d_model, cfg.d_head, cfg.n_heads);
        let kv = cfg.n_key_value_heads.unwrap_or(h);
        let names = if cfg.n_key_value_heads.is_some() {
            ["W_Q", "_W_K", "_W_V", "b_Q", "_b_K", "_b_V"]
        } else {
            ["W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V"]
        };
        let width = (h + 2 * kv) * e;
        let columns = |heads, first| Layout::strided(vec![heads, d, e], vec![e, width, 1], first * e);
        let biases = |heads, first| Layout::strided(vec![heads, e], vec![e, 1], first * e);
        let input = |heads| init(&[heads, d, e]);
        let w_qkv = s.packed(
            &[d, width],
            &[
                (names[0], columns(h, 0), input(h)),
                (names[1], columns(kv, h), input(kv)),
                (names[2], columns(kv, h + kv), input(kv)),
            ],
        );
        let b_qkv = s.packed(
            &[width],
            &[
                (names[3], biases(h, 0), Init::Zeros),
                (names[4], biases(kv, h), Init::Zeros),
                (names[5], biases(kv, h + kv), Init::Zeros),
            ],
        );
        let w_o_layout = Layout::contiguous(&[h, e, d]);
        let w_o = s.packed(&[h * e, d], &[("W_O", w_o_layout, init(&[h, e, d]))]);
        let b_o = s.param("b_O", &[d], Init::Zeros);
        let norms = cfg.qk_norm.map(|(kind, eps)| {
            [("q_norm", h), ("k_norm", kv)].map(|(name, heads)| VectorNorm::new(s, name, kind, heads, e, eps))
        });
        let sinks = cfg.sinks.then(|| s.param("sinks", &[h], Init::Zeros));
        let result_off = "the model does not compute each head's output by itself; switch on `use_attn_result`";
        let [hook_k, hook_q, hook_v, hook_z] =
            ["hook_k", "hook_q", "hook_v", "hook_z"].map(|name| s.hook(name, "batch pos head d_head"));
        let hook_attn_scores = s.hook("hook_attn_scores", "batch head query_pos key_pos");
        let hook_pattern = s.hook("hook_pattern", "batch head query_pos key_pos");
        let hook_result = s.hook_if("hook_result", "batch pos head d_model", cfg.use_result, result_off);
        if shortformer {
            s.hook_if(
                "hook_attn_input",
                "batch pos d_model",
                false,
                "TransformerLens has this hook point but never runs it",
            );
        }
        let hook_rot = matches!(cfg.positions, PositionScheme::Rotary(_))
            .then(|| ["hook_rot_k", "hook_rot_q"].map(|name| s.hook(name, "batch pos head d_head")));
        Attention {
            cfg,
            w_qkv,
            b_qkv,
            w_o,
            b_o,
            norms,
            sinks,
            hook_k,
            hook_q,
            hook_v,
            hook_z,
            hook_attn_scores,
            hook_pattern,
            hook_result,
            hook_rot,
        }
    }

    /// `[batch, pos, d_model]`, added to `residual` if given.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn forward(
        &self,
        ctx: &mut Ctx<'_, '_>,
        input: &AttentionInput,
        residual: Option<&Var>,
        padding: Option<&Padding>,
    ) -> Result<Var, HookError> {
        let z = self.mix(ctx, input, padding)?;
        self.output(ctx, &z, residual)
    }

    /// The values that each query attends to, mixed: z, `[batch, pos, head, d_head]`. `rows` says which rows of
    /// their sequences these are: whole sequences, or what follows rows of an earlier pass.
    ///
    /// # Errors
    /// If a hook fails.
    ///
    /// # Panics
    /// If there is a past, and the pass is recorded or attention is not causal.
    pub fn mix<'r>(
        &self,
        ctx: &mut Ctx<'_, '_>,
        input: &AttentionInput,
        rows: impl Into<Rows<'r>>,
    ) -> Result<Var, HookError> {
        let mut rows = rows.into();
        let (start, padding) = (rows.start(), rows.padding);
        let [q, k, v] = self.project(ctx, input);
        let q = self.hook_q.apply(ctx, q)?;
        let k = self.hook_k.apply(ctx, k)?;
        let v = self.hook_v.apply(ctx, v)?;
        let (mut rotated_q, mut rotated_k) = (q, k.clone());
        if let Some([q_norm, k_norm]) = &self.norms {
            rotated_q = q_norm.forward(ctx, &rotated_q)?;
            rotated_k = k_norm.forward(ctx, &rotated_k)?;
        }
        if let (PositionScheme::Rotary(table), Some([hook_rot_k, hook_rot_q])) = (&self.cfg.positions, &self.hook_rot) {
            let new = start..start + rotated_q.dim(1);
            let len = padding.map_or(new.end, Padding::longest);
            let spec = match padding {
                None => rotary_spec(ctx, table, len, |t| t.narrow(0, new.start, new.len()).unsqueeze(0)),
                Some(padding) => {
                    let positions = padding.positions().narrow(1, new.start, new.len());
                    rotary_spec(ctx, table, len, |t| t.embed(&positions))
                }
            };
            rotated_q = hook_rot_q.apply(ctx, rotated_q.rotary(&spec))?;
            rotated_k = hook_rot_k.apply(ctx, rotated_k.rotary(&spec))?;
        }
        let mut spec = self.spec(padding);
        let z = match rows.past.take() {
            None => self.look(ctx, &rotated_q, &rotated_k, &v, &spec, 0)?,
            Some(past) => {
                assert!(self.cfg.causal, "what follows was seen by what came before: attention is not causal");
                assert!(!(k.requires_grad() || v.requires_grad()), "keys and values that are kept have no gradients");
                // Where places count from the first key, all keys stay.
                let window = spec.window.filter(|_| !spec.counts_keys());
                let (keys, values) = past.append(k.value(), rotated_k.value(), v.value(), window);
                let dropped = past.dropped();
                spec.query_start = start - dropped;
                spec.key_mask = spec.key_mask.map(|mask| mask.narrow(1, dropped, keys.dim(1)));
                self.look(ctx, &rotated_q, &Var::from(keys), &Var::from(values), &spec, dropped)?
            }
        };
        self.hook_z.apply(ctx, z)
    }

    /// z `[batch, query, head, d_head]` of what queries see. Before the keys there were `dropped` more that no
    /// query sees; hooks see scores and patterns of all.
    fn look(
        &self,
        ctx: &mut Ctx<'_, '_>,
        q: &Var,
        k: &Var,
        v: &Var,
        spec: &AttentionSpec,
        dropped: usize,
    ) -> Result<Var, HookError> {
        if !(self.hook_attn_scores.is_live(ctx) || self.hook_pattern.is_live(ctx)) {
            return Ok(attend(q, k, v, spec, self.sinks.map(|s| ctx.param(s))));
        }
        let mut scores = q.attention_scores(k, spec);
        if dropped > 0 {
            let [batch, heads, queries, _] = *scores.shape() else { unreachable!("scores have four axes") };
            let shape = [batch, heads, queries, dropped];
            let hidden = Tensor::full(&shape, f64::NEG_INFINITY, scores.value().dtype(), &scores.value().device());
            scores = Var::cat(&[Var::from(hidden), scores], 3);
        }
        let scores = self.hook_attn_scores.apply(ctx, scores)?;
        let pattern = softmax_beside(&scores, self.sinks.map(|s| ctx.param(s)));
        let pattern = self.hook_pattern.apply(ctx, pattern)?;
        let seen = if dropped > 0 { pattern.narrow(3, dropped, k.dim(1)) } else { pattern };
        Ok(seen.attention_values(v))
    }

    /// The score per head `[head]` that belongs to no key, where there is one.
    pub fn sinks(&self, ctx: &Ctx<'_, '_>) -> Option<Tensor> {
        self.sinks.map(|s| ctx.param(s).value().clone())
    }

    /// How scores are made.
    pub fn spec(&self, padding: Option<&Padding>) -> AttentionSpec {
        let cfg = &self.cfg;
        AttentionSpec {
            scale: cfg.scale,
            soft_cap: cfg.soft_cap,
            causal: cfg.causal,
            window: cfg.window,
            alibi: match &cfg.positions {
                PositionScheme::Alibi(alibi) => Some(alibi.clone()),
                PositionScheme::None | PositionScheme::Rotary(_) => None,
            },
            query_start: 0,
            key_mask: padding.filter(|p| cfg.causal || !p.seen_if_bidirectional).map(|p| p.mask.clone()),
        }
    }

    /// The sum of all heads' outputs of `z` `[batch, pos, head, d_head]`, and `b_O`; added to
    /// `residual` if given.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn output(&self, ctx: &mut Ctx<'_, '_>, z: &Var, residual: Option<&Var>) -> Result<Var, HookError> {
        let [batch, pos, h, e] = *z.shape() else { unreachable!("z is [batch, pos, head, d_head]") };
        let (w, b) = (ctx.param(self.w_o).clone(), ctx.param(self.b_o).clone());
        if !self.cfg.use_result {
            return Ok(z.reshape(&[batch, pos, h * e]).linear(&w, Some(&b), residual));
        }
        let d = self.cfg.d_model;
        let per_head = z.permute(&[2, 0, 1, 3]).reshape(&[h, batch * pos, e]).matmul(&w.reshape(&[h, e, d]));
        let result = per_head.reshape(&[h, batch, pos, d]).permute(&[1, 2, 0, 3]);
        let result = self.hook_result.apply(ctx, result)?;
        let out = result.sum(&[2]) + &b;
        Ok(match residual {
            Some(r) => r + &out,
            None => out,
        })
    }
}

/// The values `[batch, key, kv_head, d_head]` mixed by attention of queries to keys, with `sinks` `[head]` if
/// given: `[batch, query, head, d_head]`.
pub fn attend(q: &Var, k: &Var, v: &Var, spec: &AttentionSpec, sinks: Option<&Var>) -> Var {
    match sinks {
        None => q.attention(k, v, spec),
        Some(_) => softmax_beside(&q.attention_scores(k, spec), sinks).attention_values(v),
    }
}

/// Softmax of scores `[batch, head, query, key]`, beside one more score per head in the sum. It comes first, so that
/// keys after a query, which weigh nothing, do not change in which order the others are added.
fn softmax_beside(scores: &Var, sinks: Option<&Var>) -> Var {
    let Some(sinks) = sinks else { return scores.softmax() };
    let [batch, heads, queries, keys] = *scores.shape() else { unreachable!("scores are [batch, head, query, key]") };
    let sinks = sinks.reshape(&[1, heads, 1, 1]).expand(&[batch, heads, queries, 1]);
    Var::cat(&[sinks, scores.clone()], 3).softmax().narrow(3, 1, keys)
}

/// Rotation of sequences that are `len` long; `at` takes the rows of their positions from tables
/// `[len, rotary_dim / 2]`, `[batch or 1, pos, rotary_dim / 2]`.
fn rotary_spec(ctx: &Ctx<'_, '_>, table: &RotaryTable, len: usize, at: impl Fn(&Tensor) -> Tensor) -> RotarySpec {
    let (cos, sin) = table.tables(len, ctx.dtype(), ctx.device());
    RotarySpec { cos: at(&cos), sin: at(&sin), interleaved: table.config().interleaved }
}
