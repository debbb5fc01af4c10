//! Multi-head attention with a hook point at every step.

use std::sync::Arc;

use ironlens_autograd::Var;
use ironlens_tensor::{AttentionSpec, IndexTensor, Layout, RotarySpec, Tensor};

use crate::ctx::Ctx;
use crate::error::HookError;
use crate::hooks::HookPoint;
use crate::registry::{Init, Param, Scope};
use crate::rotary::RotaryTable;

mod qk_norm;

pub use qk_norm::QkNorm;
use qk_norm::VectorNorm;

/// How attention knows positions.
#[derive(Clone, Debug)]
pub enum Positions {
    /// From its input alone.
    None,
    /// Queries and keys are rotated, by a table that layers share.
    Rotary(Arc<RotaryTable>),
    /// Scores get `slope * (key - query)`, one slope per head.
    Alibi(Vec<f64>),
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
    pub positions: Positions,
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

/// Which tokens of a batch are padding, and what that means for attention.
#[derive(Clone, Debug)]
pub struct Padding {
    mask: IndexTensor,
    positions: IndexTensor,
    seen_if_bidirectional: bool,
}

impl Padding {
    /// Of `mask` `[batch, pos]`, 0 at padding. No query attends to padding, and positions count from
    /// the first token that is none.
    pub fn new(mask: &IndexTensor) -> Padding {
        Padding { mask: mask.clone(), positions: positions_of(mask), seen_if_bidirectional: false }
    }

    /// As TransformerLens 2.18, where the code of the causal mask hides padding: bidirectional
    /// attention sees it. Positions count as ever.
    pub fn as_transformer_lens(self) -> Padding {
        Padding { seen_if_bidirectional: true, ..self }
    }

    /// `[batch, pos]`, 0 at padding.
    pub fn mask(&self) -> &IndexTensor {
        &self.mask
    }

    /// The position of every token, counted over those that are not padding:
    /// `max(cumsum(mask) - 1, 0)`, `[batch, pos]`.
    pub fn positions(&self) -> &IndexTensor {
        &self.positions
    }

    /// Length of the longest sequence, padding aside.
    fn longest(&self) -> usize {
        self.positions.as_slice().iter().max().map_or(0, |&last| last as usize + 1)
    }
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
        let hook_rot = matches!(cfg.positions, Positions::Rotary(_))
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

    /// The values that each query attends to, mixed: z, `[batch, pos, head, d_head]`.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn mix(
        &self,
        ctx: &mut Ctx<'_, '_>,
        input: &AttentionInput,
        padding: Option<&Padding>,
    ) -> Result<Var, HookError> {
        let [q, k, v] = self.project(ctx, input);
        let mut q = self.hook_q.apply(ctx, q)?;
        let mut k = self.hook_k.apply(ctx, k)?;
        let v = self.hook_v.apply(ctx, v)?;
        if let Some([q_norm, k_norm]) = &self.norms {
            q = q_norm.forward(ctx, &q)?;
            k = k_norm.forward(ctx, &k)?;
        }
        if let (Positions::Rotary(table), Some([hook_rot_k, hook_rot_q])) = (&self.cfg.positions, &self.hook_rot) {
            let len = padding.map_or(q.dim(1), Padding::longest);
            let spec = rotary_spec(ctx, table, len, padding.map(Padding::positions));
            q = hook_rot_q.apply(ctx, q.rotary(&spec))?;
            k = hook_rot_k.apply(ctx, k.rotary(&spec))?;
        }
        let spec = self.spec(padding);
        let z = if self.hook_attn_scores.is_live(ctx) || self.hook_pattern.is_live(ctx) {
            let scores = self.hook_attn_scores.apply(ctx, q.attention_scores(&k, &spec))?;
            let pattern = softmax_beside(&scores, self.sinks.map(|s| ctx.param(s)));
            self.hook_pattern.apply(ctx, pattern)?.attention_mix(&v)
        } else {
            attend(&q, &k, &v, &spec, self.sinks.map(|s| ctx.param(s)))
        };
        self.hook_z.apply(ctx, z)
    }

    /// Queries as attention reads them, of queries `[batch, pos, head, d_head]` as projected:
    /// normalised and rotated to `positions` `[batch, pos]` of sequences that are `len` long, where the
    /// model does so.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn ready_queries(
        &self,
        ctx: &mut Ctx<'_, '_>,
        q: &Var,
        positions: &IndexTensor,
        len: usize,
    ) -> Result<Var, HookError> {
        self.ready(ctx, self.norms.as_ref().map(|[q_norm, _]| q_norm), q, positions, len)
    }

    /// As [`Attention::ready_queries`], for keys `[batch, pos, kv_head, d_head]`.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn ready_keys(
        &self,
        ctx: &mut Ctx<'_, '_>,
        k: &Var,
        positions: &IndexTensor,
        len: usize,
    ) -> Result<Var, HookError> {
        self.ready(ctx, self.norms.as_ref().map(|[_, k_norm]| k_norm), k, positions, len)
    }

    fn ready(
        &self,
        ctx: &mut Ctx<'_, '_>,
        norm: Option<&VectorNorm>,
        x: &Var,
        positions: &IndexTensor,
        len: usize,
    ) -> Result<Var, HookError> {
        let x = norm.map_or(Ok(x.clone()), |norm| norm.forward(ctx, x))?;
        Ok(match &self.cfg.positions {
            Positions::Rotary(table) => x.rotary(&rotary_spec(ctx, table, len, Some(positions))),
            Positions::None | Positions::Alibi(_) => x,
        })
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
                Positions::Alibi(slopes) => Some(slopes.clone()),
                Positions::None | Positions::Rotary(_) => None,
            },
            query_start: 0,
            key_mask: padding.filter(|p| cfg.causal || !p.seen_if_bidirectional).map(|p| p.mask.clone()),
        }
    }

    /// Heads of queries, keys and values: how many, and where they start in the packed matrix.
    fn parts(&self) -> [(usize, usize); 3] {
        let h = self.cfg.n_heads;
        let kv = self.cfg.n_key_value_heads.unwrap_or(h);
        [(h, 0), (kv, h), (kv, h + kv)]
    }

    /// Queries, keys and values, `[batch, pos, head, d_head]`.
    pub fn project(&self, ctx: &Ctx<'_, '_>, input: &AttentionInput) -> [Var; 3] {
        let e = self.cfg.d_head;
        let (w, b) = (ctx.param(self.w_qkv), ctx.param(self.b_qkv));
        let heads = |x: &Var, n: usize| x.reshape(&[x.dim(0), x.dim(1), n, e]);
        let projected = match input {
            AttentionInput::Shared(x) if x.shape().len() == 3 => {
                let packed = x.linear(w, Some(b), None);
                self.parts().map(|(n, first)| heads(&packed.narrow(2, first * e, n * e), n))
            }
            AttentionInput::Shared(x) => self.parts().map(|part| self.per_head(w, b, x, part)),
            AttentionInput::Split(inputs) => {
                let parts = self.parts();
                std::array::from_fn(|i| self.project_part(ctx, &inputs[i], parts[i]))
            }
        };
        let [q, k, v] = match self.cfg.clip_qkv {
            Some(at) => projected.map(|x| x.clamp(-at, at)),
            None => projected,
        };
        if !self.cfg.ungroup {
            return [q, k, v];
        }
        let repeat = |x: Var| match self.cfg.n_heads / x.dim(2) {
            1 => x,
            times => repeat_heads(&x, times),
        };
        [q, repeat(k), repeat(v)]
    }

    /// Queries, keys or values of an input of their own.
    fn project_part(&self, ctx: &Ctx<'_, '_>, x: &Var, (n, first): (usize, usize)) -> Var {
        let e = self.cfg.d_head;
        let (w, b) = (ctx.param(self.w_qkv), ctx.param(self.b_qkv));
        if x.shape().len() == 4 {
            return self.per_head(w, b, x, (n, first));
        }
        let columns = w.narrow(1, first * e, n * e);
        x.linear(&columns, Some(&b.narrow(0, first * e, n * e)), None).reshape(&[x.dim(0), x.dim(1), n, e])
    }

    /// A product of each head's own input `[batch, pos, head, d_model]` with its own matrix.
    fn per_head(&self, w: &Var, b: &Var, x: &Var, (n, first): (usize, usize)) -> Var {
        let (e, heads) = (self.cfg.d_head, x.dim(2));
        let b = b.narrow(0, first * e, n * e).reshape(&[n, e]);
        let b = match heads / n {
            1 => b,
            times => b.unsqueeze(1).expand(&[n, times, e]).reshape(&[heads, e]),
        };
        head_products(x, &self.matrices(w, (n, first), heads)) + &b
    }

    /// The matrices `[head, d_model, d_head]` of `heads` heads, which may share `n`.
    fn matrices(&self, w: &Var, (n, first): (usize, usize), heads: usize) -> Var {
        let (d, e) = (self.cfg.d_model, self.cfg.d_head);
        let w = w.narrow(1, first * e, n * e).reshape(&[d, n, e]).permute(&[1, 0, 2]);
        match heads / n {
            1 => w,
            times => w.unsqueeze(1).expand(&[n, times, d, e]).reshape(&[heads, d, e]),
        }
    }

    /// Whether scores are products of queries with a linear map of the input, and nothing after,
    /// as [`Attention::queries_of_inputs`] needs.
    pub fn is_linear_in_keys(&self) -> bool {
        let cfg = &self.cfg;
        let plain_scores = cfg.soft_cap.is_none() && cfg.clip_qkv.is_none() && self.sinks.is_none();
        plain_scores && self.norms.is_none() && self.hook_rot.is_none()
    }

    /// Queries `[batch, pos, head, d_model]` that read the inputs of keys where others read keys,
    /// from the inputs `[batch, pos, d_model]` of queries: `W_K (W_Q^T x + b_Q)`. (What `b_K` adds to
    /// all scores of a query changes no pattern.)
    pub fn queries_of_inputs(&self, ctx: &Ctx<'_, '_>, x: &Var) -> Var {
        let [queries, keys, _] = self.parts();
        let q = self.project_part(ctx, x, queries);
        let w = self.matrices(ctx.param(self.w_qkv), keys, self.cfg.n_heads);
        head_products(&q, &w.permute(&[0, 2, 1]))
    }

    /// z `[batch, pos, head, d_head]` from what each head reads of the inputs, mixed by its pattern,
    /// `[batch, pos, head, d_model]`: values are linear in inputs, so mixing may come first.
    pub fn values_of_mixed(&self, ctx: &Ctx<'_, '_>, mixed: &Var) -> Var {
        self.project_part(ctx, mixed, self.parts()[2])
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

/// `[batch, pos, head, inner]` times `[head, inner, outer]`, head by head.
fn head_products(x: &Var, w: &Var) -> Var {
    let [batch, pos, heads, inner] = *x.shape() else { unreachable!("heads are [batch, pos, head, width]") };
    let x = x.permute(&[2, 0, 1, 3]).reshape(&[heads, batch * pos, inner]);
    x.matmul(w).reshape(&[heads, batch, pos, w.dim(2)]).permute(&[1, 2, 0, 3])
}

/// `[batch, pos, head, d_head]` with every head `times` in a row.
fn repeat_heads(x: &Var, times: usize) -> Var {
    let [batch, pos, n, e] = *x.shape() else { unreachable!("heads are [batch, pos, head, d_head]") };
    x.unsqueeze(3).expand(&[batch, pos, n, times, e]).reshape(&[batch, pos, n * times, e])
}

/// The values `[batch, key, kv_head, d_head]` mixed by attention of queries to keys, with `sinks` `[head]` if
/// given: `[batch, query, head, d_head]`.
pub fn attend(q: &Var, k: &Var, v: &Var, spec: &AttentionSpec, sinks: Option<&Var>) -> Var {
    match sinks {
        None => q.attention(k, v, spec),
        Some(_) => softmax_beside(&q.attention_scores(k, spec), sinks).attention_mix(v),
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

/// Rotation of sequences that are `len` long: to `positions` `[batch, pos]`, or to `0..len`.
fn rotary_spec(ctx: &Ctx<'_, '_>, table: &RotaryTable, len: usize, positions: Option<&IndexTensor>) -> RotarySpec {
    let (cos, sin) = table.tables(len, ctx.dtype(), ctx.device());
    let at = |t: &Tensor| match positions {
        None => t.unsqueeze(0),
        Some(positions) => t.embed(positions),
    };
    RotarySpec { cos: at(&cos), sin: at(&sin), adjacent: table.config().adjacent }
}

/// Positions counted over the tokens that are not padding: `max(cumsum(mask) - 1, 0)`.
fn positions_of(mask: &IndexTensor) -> IndexTensor {
    let width = mask.shape().last().copied().unwrap_or(1).max(1);
    let mut positions = Vec::with_capacity(mask.numel());
    for row in mask.as_slice().chunks(width) {
        let mut count = 0u32;
        for &m in row {
            count += u32::from(m != 0);
            positions.push(count.saturating_sub(1));
        }
    }
    IndexTensor::new(positions, mask.shape())
}
