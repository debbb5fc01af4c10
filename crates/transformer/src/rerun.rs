//! Running only what a change of an activation can reach.
//!
//! A [`Rerun`] remembers one run of a model. Given changed rows of an activation (a row belongs to
//! one position of one sequence), it computes the logits anew from there: nothing before the
//! changed layer, no position that cannot see a changed one, and in the last layer only positions
//! whose logits are asked for. Many changes run together: their rows are packed side by side, so
//! that every product with a weight is one large product.

use std::fmt;

use ironlens_autograd::Var;
use ironlens_nn::{Ctx, attend};
use ironlens_tensor::{Device, IndexTensor, Tensor};
use rayon::prelude::*;

use crate::cache::ActivationCache;
use crate::config::PositionalEmbeddingType;
use crate::error::ModelError;
use crate::model::HookedTransformer;
use crate::output::LogitsAt;

/// An activation whose change a [`Rerun`] can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// `hook_resid_pre`, rows `[d_model]`.
    ResidPre,
    /// `attn.hook_q`, rows `[head, d_head]`.
    Q,
    /// `attn.hook_k`, rows `[kv_head, d_head]`.
    K,
    /// `attn.hook_v`, rows `[kv_head, d_head]`.
    V,
    /// `attn.hook_pattern`, rows (of queries) `[head, key_pos]`.
    Pattern,
    /// `attn.hook_z`, rows `[head, d_head]`.
    Z,
    /// `hook_attn_out`, rows `[d_model]`.
    AttnOut,
    /// `hook_resid_mid`, rows `[d_model]`.
    ResidMid,
    /// `hook_mlp_out`, rows `[d_model]`.
    MlpOut,
    /// `hook_resid_post`, rows `[d_model]`.
    ResidPost,
}

impl Site {
    /// Every one.
    pub const ALL: [Site; 10] = [
        Site::ResidPre,
        Site::Q,
        Site::K,
        Site::V,
        Site::Pattern,
        Site::Z,
        Site::AttnOut,
        Site::ResidMid,
        Site::MlpOut,
        Site::ResidPost,
    ];

    /// The short name, as [`crate::names::get_act_name`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Site::ResidPre => "resid_pre",
            Site::Q => "q",
            Site::K => "k",
            Site::V => "v",
            Site::Pattern => "pattern",
            Site::Z => "z",
            Site::AttnOut => "attn_out",
            Site::ResidMid => "resid_mid",
            Site::MlpOut => "mlp_out",
            Site::ResidPost => "resid_post",
        }
    }

    /// The axis of positions in the activation.
    pub fn row_axis(self) -> usize {
        if self == Site::Pattern { 2 } else { 1 }
    }
}

/// Changed rows of an activation of one sequence.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which sequence of the batch.
    pub item: usize,
    /// Position of the first changed row.
    pub start: usize,
    /// New values `[pos, ..]` of the rows from there on.
    pub rows: Tensor,
}

/// Logits that a change reached: `[pos, d_vocab_out]` from position `start` on; all others are as in
/// the remembered run.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Position of the first.
    pub start: usize,
    /// The logits.
    pub logits: Tensor,
}

/// Consecutive positions of one sequence.
#[derive(Clone, Copy, Debug)]
struct Span {
    item: usize,
    start: usize,
    len: usize,
}

impl Span {
    fn end(self) -> usize {
        self.start + self.len
    }

    fn within(self, start: usize, end: usize) -> Span {
        let from = self.start.clamp(start, end);
        Span { item: self.item, start: from, len: self.end().clamp(from, end) - from }
    }
}

/// Rows of many sequences, packed: `values` `[row, ..]` holds those of the first span, then those of
/// the second, and so on.
struct Rows {
    spans: Vec<Span>,
    values: Tensor,
}

impl Rows {
    fn new(changes: &[Change]) -> Rows {
        let spans = changes.iter().map(|c| Span { item: c.item, start: c.start, len: c.rows.dim(0) }).collect();
        Rows { spans, values: Tensor::cat(&changes.iter().map(|c| c.rows.clone()).collect::<Vec<_>>(), 0) }
    }

    /// Where the rows of each span begin.
    fn offsets(&self) -> Vec<usize> {
        offsets(&self.spans)
    }

    /// The rows of `wanted` spans (one for each of ours): ours where we have them, else `base`'s
    /// `[batch, pos, ..]`.
    fn over(&self, base: &Tensor, wanted: &[Span]) -> Tensor {
        let mut parts = Vec::new();
        for ((own, want), at) in self.spans.iter().zip(wanted).zip(self.offsets()) {
            let of_base = |from: usize, to: usize| base.select(0, want.item).narrow(0, from, to - from);
            let shared = own.within(want.start, want.end());
            if shared.len == 0 {
                parts.push(of_base(want.start, want.end()));
                continue;
            }
            if want.start < shared.start {
                parts.push(of_base(want.start, shared.start));
            }
            parts.push(self.values.narrow(0, at + shared.start - own.start, shared.len));
            if shared.end() < want.end() {
                parts.push(of_base(shared.end(), want.end()));
            }
        }
        parts.retain(|p| p.dim(0) > 0);
        match parts.is_empty() {
            true => self.values.narrow(0, 0, 0),
            false => Tensor::cat(&parts, 0),
        }
    }

    /// `[1, pos, ..]` of positions `0..to` of the sequence of span `i`, whose rows begin at `at`:
    /// ours where we have them, else `base`'s.
    fn with_base(&self, base: &Tensor, i: usize, at: usize, to: usize) -> Tensor {
        let base = base.narrow(0, self.spans[i].item, 1);
        let own = self.spans[i].within(0, to);
        let new = self.values.narrow(0, at, own.len).unsqueeze(0);
        let parts = [base.narrow(1, 0, own.start), new, base.narrow(1, own.end(), to - own.end())];
        Tensor::cat(&parts.into_iter().filter(|p| p.dim(1) > 0).collect::<Vec<_>>(), 1)
    }
}

fn offsets(spans: &[Span]) -> Vec<usize> {
    let mut at = 0;
    spans
        .iter()
        .map(|s| {
            let here = at;
            at += s.len;
            here
        })
        .collect()
}

/// A run of a model, remembered so that parts of it can be run again. Memory: the activations of
/// one run, without MLP activations.
pub struct Rerun<'m> {
    model: &'m HookedTransformer,
    cache: ActivationCache,
    /// Queries and keys as attention reads them, after norms and rotation, `[batch, pos, head, d_head]`.
    ready: Vec<[Tensor; 2]>,
    /// What shortformer adds to the inputs of queries and keys, `[batch, pos, d_model]`.
    pos_embed: Option<Tensor>,
    logits: Tensor,
    batch: usize,
    pos: usize,
}

impl fmt::Debug for Rerun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rerun of {} sequences of {} tokens, of {:?}", self.batch, self.pos, self.model)
    }
}

impl<'m> Rerun<'m> {
    /// Runs `model` on `tokens` `[batch, pos]` and remembers.
    ///
    /// # Errors
    /// As [`HookedTransformer::forward`]; and for a model with permanent hooks, which may look at anything.
    pub fn new(model: &'m HookedTransformer, tokens: &IndexTensor) -> Result<Rerun<'m>, ModelError> {
        let cfg = model.config();
        if let Some(name) = model.params().perma_hooks().next() {
            return Err(ModelError::Options(format!(
                "a model with permanent hooks (here at `{name}`) cannot be run in part: run the whole of it"
            )));
        }
        let wanted = |name: &str| {
            Site::ALL
                .iter()
                .any(|s| name.strip_prefix("blocks.").is_some_and(|n| n.ends_with(&format!("hook_{}", s.name()))))
                || name == "hook_pos_embed"
        };
        let (out, cache) = model.call(tokens).names(wanted).cached()?;
        let logits = out.logits().value().clone();
        let (batch, pos) = (logits.dim(0), logits.dim(1));
        let every = IndexTensor::new((0..batch * pos).map(|i| (i % pos) as u32).collect::<Vec<_>>(), &[batch, pos]);
        let mut ctx = Ctx::plain(model.params());
        let mut ready = Vec::new();
        for (l, block) in model.net.blocks.iter().enumerate() {
            let raw = |name| cache.get((name, l)).cloned();
            let (q, k) = (Var::from(raw("q")?), Var::from(raw("k")?));
            let (q, k) = (
                block.attn.rotated_queries(&mut ctx, &q, &every, pos)?,
                block.attn.rotated_keys(&mut ctx, &k, &every, pos)?,
            );
            ready.push([q.into_value(), k.into_value()]);
        }
        let shortformer = cfg.positional_embedding_type == PositionalEmbeddingType::Shortformer;
        let pos_embed = if shortformer { Some(cache.get("pos_embed")?.clone()) } else { None };
        Ok(Rerun { model, cache, ready, pos_embed, logits, batch, pos })
    }

    /// The remembered activation, `[batch, ..]`.
    ///
    /// # Errors
    /// If the model has none (`resid_mid` with parallel blocks, `mlp_out` without MLPs).
    pub fn activation(&self, site: Site, layer: usize) -> Result<&Tensor, ModelError> {
        Ok(self.cache.get((site.name(), layer))?)
    }

    /// The remembered logits, `[batch, pos, d_vocab_out]`.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// `(batch, pos)` of the run.
    pub fn sizes(&self) -> (usize, usize) {
        (self.batch, self.pos)
    }

    /// The logits after each change of the activation `site` of `layer`, by itself.
    ///
    /// # Errors
    /// If the model has no such activation.
    ///
    /// # Panics
    /// If rows are not of the activation's shape, or reach past its positions.
    pub fn run(
        &self,
        site: Site,
        layer: usize,
        changes: &[Change],
        wanted: LogitsAt,
    ) -> Result<Vec<Reached>, ModelError> {
        self.activation(site, layer)?;
        let mut pass = Pass { run: self, ctx: Ctx::plain(self.model.params()), wanted };
        let rows = pass.enter(site, layer, Rows::new(changes))?;
        pass.finish(layer + 1, rows)
    }
}

/// Which of queries, keys and values changed.
#[derive(Default)]
struct Changed {
    queries: Option<Rows>,
    keys: Option<Rows>,
    values: Option<Rows>,
}

/// One rerun on its way.
struct Pass<'a, 'h> {
    run: &'a Rerun<'a>,
    ctx: Ctx<'a, 'h>,
    wanted: LogitsAt,
}

impl Pass<'_, '_> {
    fn base(&self, site: Site, layer: usize) -> Result<&Tensor, ModelError> {
        self.run.activation(site, layer)
    }

    /// From changed rows of `site` to changed rows of `resid_post` of the same layer.
    fn enter(&mut self, site: Site, layer: usize, rows: Rows) -> Result<Rows, ModelError> {
        let spans: Vec<Span> = rows.spans.iter().map(|s| self.of_interest(layer, *s)).collect();
        match site {
            Site::ResidPre => self.block(layer, rows),
            Site::Q => {
                let values = self.queries(layer, &rows)?;
                let queries = Some(Rows { values, spans: rows.spans });
                self.attend(layer, spans, Changed { queries, ..Changed::default() }, None)
            }
            Site::K => {
                let values = self.keys(layer, &rows)?;
                let reached = rows.spans.iter().map(|s| self.reached(layer, *s)).collect();
                let keys = Some(Rows { values, spans: rows.spans });
                self.attend(layer, reached, Changed { keys, ..Changed::default() }, None)
            }
            Site::V => {
                let reached = rows.spans.iter().map(|s| self.reached(layer, *s)).collect();
                self.attend(layer, reached, Changed { values: Some(rows), ..Changed::default() }, None)
            }
            Site::Pattern => {
                let v = self.base(Site::V, layer)?;
                let mut parts = Vec::new();
                for (span, at) in rows.spans.iter().zip(rows.offsets()) {
                    let pattern = rows.values.narrow(0, at, span.len).permute(&[1, 0, 2]).unsqueeze(0);
                    parts.push(pattern.attention_values(&v.narrow(0, span.item, 1)).squeeze(0));
                }
                let z = Rows { values: Tensor::cat(&parts, 0), spans: rows.spans };
                self.enter(Site::Z, layer, z)
            }
            Site::Z => {
                let z = rows.over(self.base(Site::Z, layer)?, &spans);
                self.write_changed_heads(layer, spans, z)
            }
            Site::AttnOut => {
                let out = rows.over(self.base(Site::AttnOut, layer)?, &spans);
                let resid = untouched(self.base(Site::ResidPre, layer)?, &spans);
                let mid = &resid + &out;
                self.mlp(layer, spans, resid, mid)
            }
            Site::ResidMid => {
                let mid = rows.over(self.base(Site::ResidMid, layer)?, &spans);
                let resid = untouched(self.base(Site::ResidPre, layer)?, &spans);
                self.mlp(layer, spans, resid, mid)
            }
            Site::MlpOut => {
                let out = rows.over(self.base(Site::MlpOut, layer)?, &spans);
                let resid = untouched(self.base(Site::ResidPre, layer)?, &spans);
                let mid = &resid + &untouched(self.base(Site::AttnOut, layer)?, &spans);
                Ok(Rows { values: &mid + &out, spans })
            }
            Site::ResidPost => {
                let values = rows.over(self.base(Site::ResidPost, layer)?, &spans);
                Ok(Rows { values, spans })
            }
        }
    }

    /// The blocks from `layer` on, and the logits.
    fn finish(mut self, layer: usize, mut rows: Rows) -> Result<Vec<Reached>, ModelError> {
        let model = self.run.model;
        for l in layer..model.config().n_layers {
            rows = self.block(l, rows)?;
        }
        let logits = match rows.values.dim(0) {
            0 => Tensor::zeros(&[0, model.config().d_vocab_out], rows.values.dtype(), &rows.values.device()),
            _ => model.unembed(&model.ln_final(&rows.values)),
        };
        let reached =
            |(span, at): (&Span, usize)| Reached { start: span.start, logits: logits.narrow(0, at, span.len) };
        Ok(rows.spans.iter().zip(rows.offsets()).map(reached).collect())
    }

    /// Changed rows of the stream through a whole block.
    fn block(&mut self, layer: usize, rows: Rows) -> Result<Rows, ModelError> {
        if rows.values.dim(0) == 0 {
            return Ok(rows);
        }
        let reached: Vec<Span> = rows.spans.iter().map(|s| self.reached(layer, *s)).collect();
        if self.should_absorb(layer, &rows, &reached) {
            return self.block_absorbed(layer, rows, reached);
        }
        // Of queries, only those that somebody asks for.
        let asked: Vec<Span> = rows.spans.iter().zip(&reached).map(|(s, r)| s.within(r.start, r.end())).collect();
        let all = asked.iter().map(|s| s.len).sum::<usize>() == rows.values.dim(0);
        let input = |values: &Tensor, spans: &[Span]| {
            let pos_embed = self.run.pos_embed.as_ref().map(|p| Var::from(untouched(p, spans).unsqueeze(0)));
            (Var::from(values.unsqueeze(0)), pos_embed)
        };
        let shared = input(&rows.values, &rows.spans);
        let base = self.base(Site::ResidPre, layer)?;
        let own = (!all).then(|| input(&rows.over(base, &asked), &asked));
        let block = &self.run.model.net.blocks[layer];
        let [q, k, v] = block.project_rows(&mut self.ctx, &shared, own.as_ref())?.map(|x| x.into_value().squeeze(0));
        let part = |values| Rows { values, spans: rows.spans.clone() };
        let queries = Rows { values: q, spans: asked };
        let queries = Rows { values: self.queries(layer, &queries)?, spans: queries.spans };
        let keys = self.keys(layer, &part(k))?;
        let changed = Changed { queries: Some(queries), keys: Some(part(keys)), values: Some(part(v)) };
        self.attend(layer, reached, changed, Some(rows))
    }

    /// Attention of the queries `spans` with what changed, and the rest of the block.
    fn attend(
        &mut self,
        layer: usize,
        spans: Vec<Span>,
        changed: Changed,
        stream: Option<Rows>,
    ) -> Result<Rows, ModelError> {
        let [base_q, base_k] = &self.run.ready[layer];
        let base_v = self.base(Site::V, layer)?;
        let base_resid = self.base(Site::ResidPre, layer)?;
        let q = match &changed.queries {
            Some(rows) => rows.over(base_q, &spans),
            None => untouched(base_q, &spans),
        };
        let attn = &self.run.model.net.blocks[layer].attn;
        let (spec, sinks) = (attn.spec(None), attn.sinks(&self.ctx));
        let starts = offsets(&spans);
        let (key_starts, value_starts) =
            (changed.keys.as_ref().map(Rows::offsets), changed.values.as_ref().map(Rows::offsets));
        let one = |i: usize| {
            let span = spans[i];
            // No query sees past its own position under a causal mask.
            let to = if spec.causal { span.end() } else { self.run.pos };
            let with = |base: &Tensor, rows: &Option<Rows>, starts: &Option<Vec<usize>>| {
                let (Some(rows), Some(starts)) = (rows, starts) else {
                    return base.narrow(0, span.item, 1).narrow(1, 0, to);
                };
                rows.with_base(base, i, starts[i], to)
            };
            let (k, v) = (with(base_k, &changed.keys, &key_starts), with(base_v, &changed.values, &value_starts));
            let spec = ironlens_tensor::AttentionSpec { query_start: span.start, ..spec.clone() };
            let q = q.narrow(0, starts[i], span.len).unsqueeze(0);
            if sinks.is_none() {
                return q.attention(&k, &v, &spec).squeeze(0);
            }
            let sinks = sinks.as_ref().map(|s| Var::from(s.clone()));
            attend(&Var::from(q), &Var::from(k), &Var::from(v), &spec, sinks.as_ref()).into_value().squeeze(0)
        };
        let parts = self.each(&spans, one);
        let resid = stream.map(|rows| rows.over(base_resid, &spans));
        match resid {
            _ if parts.is_empty() => Ok(Rows { values: untouched(base_resid, &[]), spans }),
            Some(resid) => self.write(layer, spans, Tensor::cat(&parts, 0), resid),
            None => self.write_changed_heads(layer, spans, Tensor::cat(&parts, 0)),
        }
    }

    /// Whether [`Pass::block_absorbed`] multiplies less than keys and values of all rows would.
    fn should_absorb(&self, layer: usize, rows: &Rows, reached: &[Span]) -> bool {
        let (cfg, attn) = (self.run.model.config(), &self.run.model.net.blocks[layer].attn);
        let heads = self.run.ready[layer].each_ref().map(|x| x.dim(2));
        let queries: usize = reached.iter().map(|s| s.len).sum();
        let few = heads[0] * (cfg.d_head + self.run.pos) * queries < heads[1] * cfg.d_head * rows.values.dim(0);
        few && attn.is_linear_in_keys() && self.run.pos_embed.is_none()
    }

    /// A block of which few rows are asked for: no keys and values are made. Queries read the
    /// normalised stream itself, through `W_K`, and of what they mix of it each makes values.
    fn block_absorbed(&mut self, layer: usize, rows: Rows, spans: Vec<Span>) -> Result<Rows, ModelError> {
        let block = &self.run.model.net.blocks[layer];
        let base_resid = self.run.activation(Site::ResidPre, layer)?;
        let resid = rows.over(base_resid, &spans);
        let read = |ctx: &mut Ctx<'_, '_>, x: Tensor| block.normalize(ctx, &Var::from(x)).map(Var::into_value);
        let own = read(&mut self.ctx, resid.unsqueeze(0))?;
        let q = block.attn.queries_of_inputs(&self.ctx, &Var::from(own)).into_value().squeeze(0);
        let base = read(&mut self.ctx, base_resid.clone())?;
        let inputs = Rows { values: read(&mut self.ctx, rows.values.unsqueeze(0))?.squeeze(0), spans: rows.spans };
        let spec = block.attn.spec(None);
        let (starts, input_starts) = (offsets(&spans), inputs.offsets());
        let mixed = self.each(&spans, |i| {
            let span = spans[i];
            let to = if spec.causal { span.end() } else { self.run.pos };
            let x = inputs.with_base(&base, i, input_starts[i], to).unsqueeze(2);
            let spec = ironlens_tensor::AttentionSpec { query_start: span.start, ..spec.clone() };
            q.narrow(0, starts[i], span.len).unsqueeze(0).attention(&x, &x, &spec).squeeze(0)
        });
        if mixed.is_empty() {
            return Ok(Rows { values: resid, spans });
        }
        let mixed = Var::from(Tensor::cat(&mixed, 0).unsqueeze(0));
        let z = block.attn.values_of_mixed(&self.ctx, &mixed).into_value().squeeze(0);
        self.write(layer, spans, z, resid)
    }

    /// `one` of each span that is not empty: side by side on the CPU.
    fn each(&self, spans: &[Span], one: impl Fn(usize) -> Tensor + Send + Sync) -> Vec<Tensor> {
        let live: Vec<usize> = (0..spans.len()).filter(|&i| spans[i].len > 0).collect();
        if *self.run.model.device() == Device::Cpu {
            live.into_par_iter().map(one).collect()
        } else {
            live.into_iter().map(one).collect()
        }
    }

    /// As [`Pass::write`], where the stream before the block is untouched: of few changed heads,
    /// only what they write differently is computed.
    fn write_changed_heads(&mut self, layer: usize, spans: Vec<Span>, z: Tensor) -> Result<Rows, ModelError> {
        let resid = untouched(self.base(Site::ResidPre, layer)?, &spans);
        // Fewer rows than this are not worth looking at.
        const MANY: usize = 32;
        if z.dim(0) < MANY || self.run.model.net.blocks[layer].normalizes_output() {
            return self.write(layer, spans, z, resid);
        }
        let (n_heads, d_head) = (z.dim(1), z.dim(2));
        let change = &z - &untouched(self.base(Site::Z, layer)?, &spans);
        let differs = change.abs().max(&[2]).to_vec_f64();
        let starts = offsets(&spans);
        let changed: Vec<(usize, usize)> = spans
            .iter()
            .zip(&starts)
            .map(|(span, at)| {
                let any = |h: &usize| {
                    differs[at * n_heads..(at + span.len) * n_heads].iter().skip(*h).step_by(n_heads).any(|d| *d != 0.0)
                };
                let first = (0..n_heads).find(any).unwrap_or(0);
                (first, (0..n_heads).rfind(any).map_or(1, |last| last + 1 - first))
            })
            .collect();
        let heads: usize = spans.iter().zip(&changed).map(|(s, (_, n))| s.len * n).sum();
        if 2 * heads > z.dim(0) * n_heads {
            return self.write(layer, spans, z, resid);
        }
        let mid = &resid + &untouched(self.base(Site::AttnOut, layer)?, &spans);
        let w_o = self.run.model.param(&format!("blocks.{layer}.attn.W_O"))?;
        let d_model = w_o.dim(2);
        let parts = self.each(&spans, |i| {
            let ((first, n), len) = (changed[i], spans[i].len);
            let change = change.narrow(0, starts[i], len).narrow(1, first, n).reshape(&[len, n * d_head]);
            let w = w_o.narrow(0, first, n).reshape(&[n * d_head, d_model]);
            change.linear(&w, None, Some(&mid.narrow(0, starts[i], len)))
        });
        self.mlp(layer, spans, resid, Tensor::cat(&parts, 0))
    }

    /// From rows of `z` and of the stream before the block to rows of the stream after it.
    fn write(&mut self, layer: usize, spans: Vec<Span>, z: Tensor, resid: Tensor) -> Result<Rows, ModelError> {
        if resid.dim(0) == 0 {
            return Ok(Rows { values: resid, spans });
        }
        let block = &self.run.model.net.blocks[layer];
        let (z, stream) = (Var::from(z.unsqueeze(0)), Var::from(resid.unsqueeze(0)));
        let mid = block.write_attention(&mut self.ctx, &z, &stream)?;
        self.mlp(layer, spans, resid, mid.into_value().squeeze(0))
    }

    fn mlp(&mut self, layer: usize, spans: Vec<Span>, resid: Tensor, mid: Tensor) -> Result<Rows, ModelError> {
        if mid.dim(0) == 0 {
            return Ok(Rows { values: mid, spans });
        }
        let block = &self.run.model.net.blocks[layer];
        let (resid, mid) = (Var::from(resid.unsqueeze(0)), Var::from(mid.unsqueeze(0)));
        let post = block.write_mlp(&mut self.ctx, &resid, mid)?;
        Ok(Rows { values: post.into_value().squeeze(0), spans })
    }

    fn queries(&mut self, layer: usize, rows: &Rows) -> Result<Tensor, ModelError> {
        let block = &self.run.model.net.blocks[layer];
        let x = Var::from(rows.values.unsqueeze(0));
        let at = positions(&rows.spans);
        Ok(block.attn.rotated_queries(&mut self.ctx, &x, &at, self.run.pos)?.into_value().squeeze(0))
    }

    fn keys(&mut self, layer: usize, rows: &Rows) -> Result<Tensor, ModelError> {
        let block = &self.run.model.net.blocks[layer];
        let x = Var::from(rows.values.unsqueeze(0));
        let at = positions(&rows.spans);
        Ok(block.attn.rotated_keys(&mut self.ctx, &x, &at, self.run.pos)?.into_value().squeeze(0))
    }

    /// The queries of a layer that see a position of `span`, or are of one.
    fn reached(&self, layer: usize, span: Span) -> Span {
        if span.len == 0 {
            return span;
        }
        let spec = self.run.model.net.blocks[layer].attn.spec(None);
        let n = self.run.pos;
        let (from, to) = match (spec.causal, spec.window) {
            (true, Some(w)) => (span.start, (span.end() - 1).saturating_add(w).min(n)),
            (true, None) => (span.start, n),
            (false, _) => (0, n),
        };
        self.of_interest(layer, Span { item: span.item, start: from, len: to.max(span.end()) - from })
    }

    /// What of `span` is still of interest after the attention of `layer`.
    fn of_interest(&self, layer: usize, span: Span) -> Span {
        let last = layer + 1 == self.run.model.config().n_layers;
        match self.wanted {
            LogitsAt::Last if last => span.within(self.run.pos - 1, self.run.pos),
            LogitsAt::All | LogitsAt::Last => span,
        }
    }
}

/// Rows of `base` `[batch, pos, ..]`.
fn untouched(base: &Tensor, spans: &[Span]) -> Tensor {
    let parts: Vec<Tensor> =
        spans.iter().filter(|s| s.len > 0).map(|s| base.select(0, s.item).narrow(0, s.start, s.len)).collect();
    match parts.is_empty() {
        true => base.select(0, 0).narrow(0, 0, 0),
        false => Tensor::cat(&parts, 0),
    }
}

/// The positions of packed rows, `[1, row]`.
fn positions(spans: &[Span]) -> IndexTensor {
    let all: Vec<u32> = spans.iter().flat_map(|s| s.start..s.end()).map(|p| p as u32).collect();
    let n = all.len();
    IndexTensor::new(all, &[1, n])
}
