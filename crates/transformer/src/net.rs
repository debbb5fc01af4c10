//! The network: its modules, and the pass through them.

use std::ops::Range;
use std::sync::Arc;

use ironlens_autograd::Var;
use ironlens_nn::{
    Ctx, Embed, HookError, HookPoint, Norm, NormAxes, NormKind, Padding, Past, PosEmbed, RotaryTable, Rows, Scope,
    Unembed,
};
use ironlens_tensor::{DType, IndexTensor, Tensor, UnaryOp};

use crate::block::TransformerBlock;
use crate::config::{Config, PositionalEmbeddingType};
use crate::error::ModelError;
use crate::input::check_tokens;
use crate::parts;

/// Where a pass begins.
#[derive(Clone, Copy)]
pub(crate) enum Entry<'p> {
    /// With tokens `[batch, pos]`.
    Tokens(&'p IndexTensor),
    /// With the residual stream `[batch, pos, d_model]` before its first block.
    Residual(&'p Tensor),
}

impl Entry<'_> {
    /// `(batch, pos)`
    fn sizes(self) -> (usize, usize) {
        match self {
            Entry::Tokens(t) => (t.shape()[0], t.shape()[1]),
            Entry::Residual(r) => (r.dim(0), r.dim(1)),
        }
    }
}

/// What a pass runs through.
pub(crate) struct Pass<'p> {
    pub layers: Range<usize>,
    /// Of the rows of the pass, and of those of its past.
    pub padding: Option<&'p Padding>,
    /// Place of the first row in its sequence.
    pub pos_offset: usize,
    /// Rows that came before, by layer; those of the pass are appended.
    pub past: Option<&'p mut [Past]>,
}

/// The modules of a model, by TransformerLens's names.
pub(crate) struct Net {
    positional: PositionalEmbeddingType,
    d_vocab: usize,
    logit_cap: Option<f64>,
    pub hook_tokens: Option<HookPoint>,
    pub embed: Embed,
    pub embed_ln: Option<Norm>,
    pub hook_embed: HookPoint,
    pub pos_embed: Option<(PosEmbed, HookPoint)>,
    /// One for each kind of rotation; layers share them.
    pub rotary_tables: Vec<Arc<RotaryTable>>,
    pub blocks: Vec<TransformerBlock>,
    pub ln_final: Option<Norm>,
    pub unembed: Unembed,
}

impl Net {
    /// Builds the modules of a resolved configuration in `s`.
    pub fn new(s: &mut Scope<'_>, cfg: &Config) -> Net {
        let init = |shape: &[usize]| parts::init_of(cfg, false, shape);
        let init_embed = |shape: &[usize]| parts::init_of(cfg, true, shape);
        let (embed, embed_ln) = {
            let mut s = s.child("embed", "Embed");
            let ln = cfg
                .post_embedding_ln
                .then(|| Norm::new(&mut s, "ln", NormKind::LayerNorm, cfg.d_model, cfg.eps, NormAxes::RESIDUAL));
            (Embed::new(&mut s, cfg.d_vocab, cfg.d_model, init_embed(&[cfg.d_vocab, cfg.d_model])), ln)
        };
        let hook_embed = s.hook("hook_embed", "batch pos d_model");
        let pos_embed = cfg.has_pos_embed().then(|| {
            let w = {
                let mut s = s.child("pos_embed", "PosEmbed");
                PosEmbed::new(&mut s, cfg.n_ctx, cfg.d_model, init_embed(&[cfg.n_ctx, cfg.d_model]))
            };
            let fires = cfg.positional_embedding_type != PositionalEmbeddingType::Alibi;
            (w, s.hook_if("hook_pos_embed", "batch pos d_model", fires, "ALiBi models do not read `W_pos`"))
        });
        let hook_tokens = cfg.use_hook_tokens.then(|| s.hook("hook_tokens", "batch pos"));
        let mut rotary_tables = Vec::new();
        let blocks = {
            let mut s = s.child("blocks", "ModuleList");
            (0..cfg.n_layers)
                .map(|i| {
                    let positions = parts::positions(cfg, i, &mut rotary_tables);
                    TransformerBlock::new(&mut s.child(&i.to_string(), "TransformerBlock"), cfg, i, positions, &init)
                })
                .collect()
        };
        let ln_final =
            parts::final_norm(cfg).map(|kind| Norm::new(s, "ln_final", kind, cfg.d_model, cfg.eps, NormAxes::RESIDUAL));
        let unembed = {
            let mut s = s.child("unembed", "Unembed");
            Unembed::new(&mut s, cfg.d_model, cfg.d_vocab_out, init_embed(&[cfg.d_model, cfg.d_vocab_out]))
        };
        Net {
            positional: cfg.positional_embedding_type,
            d_vocab: cfg.d_vocab,
            logit_cap: Some(cfg.output_logits_soft_cap).filter(|cap| *cap > 0.0),
            hook_tokens,
            embed,
            embed_ln,
            hook_embed,
            pos_embed,
            rotary_tables,
            blocks,
            ln_final,
            unembed,
        }
    }

    /// The residual stream `[batch, pos, d_model]` after the blocks of a pass.
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, entry: Entry<'_>, mut pass: Pass<'_>) -> Result<Var, ModelError> {
        let pos_embed = |ctx: &mut Ctx<'_, '_>| self.pos_embed(ctx, entry.sizes(), &pass);
        // Shortformer adds positions to what queries and keys read, and not to the stream.
        let shortformer = self.positional == PositionalEmbeddingType::Shortformer;
        let (mut residual, beside) = match entry {
            Entry::Tokens(tokens) => {
                let embed = self.embed(ctx, tokens)?;
                match pos_embed(ctx)? {
                    Some(pos_embed) if !shortformer => (&embed + &pos_embed, None),
                    beside => (embed, beside),
                }
            }
            Entry::Residual(residual) => {
                let residual = Var::from(residual.to_dtype(ctx.dtype()).to_device(ctx.device()));
                let beside = if shortformer { pos_embed(ctx)? } else { None };
                (residual, beside)
            }
        };
        for layer in pass.layers.clone() {
            let past = pass.past.as_deref_mut().map(|past| &mut past[layer]);
            let rows = Rows { padding: pass.padding, past };
            residual = self.blocks[layer].forward(ctx, residual, beside.as_ref(), rows)?;
        }
        Ok(residual)
    }

    /// Whether positions of sequences that grow from `before` to `after` are rotated by other angles then, so that
    /// rows of before cannot be gone on from.
    pub fn turns_otherwise(&self, before: usize, after: usize) -> bool {
        before > 0 && self.rotary_tables.iter().any(|table| table.is_long(before) != table.is_long(after))
    }

    /// Logits `[.., d_vocab_out]` of a normalised residual stream `[.., d_model]`.
    pub fn logits(&self, ctx: &Ctx<'_, '_>, normalized: &Var) -> Var {
        let logits = self.unembed.forward(ctx, normalized);
        match self.logit_cap {
            Some(cap) => logits.unary(UnaryOp::SoftCap(cap)),
            None => logits,
        }
    }

    /// Embeddings `[batch, pos, d_model]` of tokens, without positions.
    fn embed(&self, ctx: &mut Ctx<'_, '_>, tokens: &IndexTensor) -> Result<Var, ModelError> {
        let hooked = match &self.hook_tokens {
            Some(hook) if hook.is_live(ctx) => Some(self.hooked_tokens(ctx, hook, tokens)?),
            Some(_) | None => None,
        };
        let mut embed = self.embed.forward(ctx, hooked.as_ref().unwrap_or(tokens));
        if let Some(ln) = &self.embed_ln {
            embed = ln.forward(ctx, &embed)?;
        }
        Ok(self.hook_embed.apply(ctx, embed)?)
    }

    /// Position embeddings `[batch, pos, d_model]`, where the model reads them.
    fn pos_embed(
        &self,
        ctx: &mut Ctx<'_, '_>,
        (batch, pos): (usize, usize),
        pass: &Pass<'_>,
    ) -> Result<Option<Var>, ModelError> {
        let Some((w, hook)) = &self.pos_embed else { return Ok(None) };
        if self.positional == PositionalEmbeddingType::Alibi {
            return Ok(None);
        }
        let start = pass.pos_offset;
        let value = match pass.padding {
            None => w.forward(ctx, batch, start..start + pos),
            Some(padding) => {
                let mask = padding.mask().narrow(1, start, pos);
                let ones = mask.as_slice().iter().map(|&m| f32::from(m != 0)).collect();
                let ones = Tensor::from_vec(ones, mask.shape(), ctx.device()).to_dtype(ctx.dtype());
                w.forward_at(ctx, &padding.positions().narrow(1, start, pos), &Var::from(ones))
            }
        };
        Ok(Some(hook.apply(ctx, value)?))
    }

    /// Hooks see tokens as numbers; what they leave is rounded back to ids.
    fn hooked_tokens(
        &self,
        ctx: &mut Ctx<'_, '_>,
        hook: &HookPoint,
        tokens: &IndexTensor,
    ) -> Result<IndexTensor, ModelError> {
        let ids = tokens.as_slice().iter().map(|&t| f64::from(t)).collect();
        let shown = Var::from(Tensor::from_vec_f64(ids, tokens.shape()).to_dtype(ctx.dtype()));
        let left = hook.apply(ctx, shown)?;
        let id = |v: f64| {
            let known = v.round() >= 0.0 && v.round() < self.d_vocab as f64;
            known.then_some(v.round() as u32).ok_or_else(|| HookError::Failed {
                name: hook.name(ctx).to_string(),
                source: format!("it left {v} in the place of a token: the model knows 0 to {}", self.d_vocab - 1)
                    .into(),
            })
        };
        let left: Vec<f64> = left.value().to_dtype(DType::F64).to_vec_f64();
        let ids = left.into_iter().map(id).collect::<Result<Vec<u32>, HookError>>()?;
        let left = IndexTensor::new(ids, tokens.shape());
        check_tokens(&left, self.d_vocab)?;
        Ok(left)
    }
}
