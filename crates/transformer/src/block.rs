//! One block: attention and MLP around the residual stream.

use ironlens_autograd::Var;
use ironlens_nn::{
    Attention, AttentionInput, Ctx, HookError, HookPoint, Init, Mlp, Moe, Norm, NormAxes, NormKind, PositionScheme,
    Rows, Scope,
};

use crate::config::Config;
use crate::parts;

/// `resid_mid = resid_pre + attn(ln1(resid_pre))`, `resid_post = resid_mid + mlp(ln2(resid_mid))`,
/// or both from `resid_pre` (parallel), or attention alone.
pub(crate) struct TransformerBlock {
    n_heads: usize,
    n_kv_heads: usize,
    use_attn_in: bool,
    use_split_qkv_input: bool,
    parallel: bool,
    pub ln1: Option<Norm>,
    ln1_post: Option<Norm>,
    pub attn: Attention,
    pub mlp: Option<BlockMlp>,
    hook_attn_in: HookPoint,
    hook_qkv_input: [HookPoint; 3],
    hook_attn_out: HookPoint,
    hook_resid_pre: HookPoint,
    hook_resid_mid: Option<HookPoint>,
    hook_resid_post: HookPoint,
}

/// What a block does to each position by itself.
pub(crate) enum FeedForward {
    Mlp(Mlp),
    Experts(Moe),
}

impl FeedForward {
    /// `[batch, pos, d_model] -> [batch, pos, d_model]`, added to `residual` if given.
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var, residual: Option<&Var>) -> Result<Var, HookError> {
        match self {
            FeedForward::Mlp(mlp) => mlp.forward(ctx, x, residual),
            FeedForward::Experts(experts) => experts.forward(ctx, x, residual),
        }
    }
}

pub(crate) struct BlockMlp {
    pub ln2: Option<Norm>,
    ln2_post: Option<Norm>,
    pub mlp: FeedForward,
    /// Set if `use_hook_mlp_in`.
    hook_mlp_in: Option<HookPoint>,
    hook_mlp_out: HookPoint,
}

impl TransformerBlock {
    pub fn new(
        s: &mut Scope<'_>,
        cfg: &Config,
        layer: usize,
        positions: PositionScheme,
        init: &dyn Fn(&[usize]) -> Init,
    ) -> Self {
        let kind = parts::inner_norm(cfg);
        let per_head = cfg.use_attn_in || cfg.use_split_qkv_input;
        let ln1_axes = if per_head { NormAxes::PER_HEAD } else { NormAxes::RESIDUAL };
        let norm = |s: &mut Scope<'_>, name, axes| match kind {
            Some(kind) if cfg.normalizes_inputs() => Some(Norm::new(s, name, kind, cfg.d_model, cfg.eps, axes)),
            Some(_) | None => {
                s.child(name, "Identity");
                None
            }
        };
        // The norm after keeps its weights when those before are folded away.
        let post = |s: &mut Scope<'_>, name| {
            if !cfg.normalizes_outputs() {
                return None;
            }
            if kind.is_none() {
                s.child(name, "Identity");
                return None;
            }
            Some(Norm::new(s, name, NormKind::RmsNorm, cfg.d_model, cfg.eps, NormAxes::RESIDUAL))
        };
        let ln1 = norm(s, "ln1", ln1_axes);
        let ln1_post = post(s, "ln1_post");
        let norms2 = (!cfg.attn_only).then(|| (norm(s, "ln2", NormAxes::RESIDUAL), post(s, "ln2_post")));
        let attn = parts::attention(s, cfg, layer, positions, init);
        let mlp = norms2.map(|norms| (norms, parts::feed_forward(s, cfg, layer, init)));

        let per_head_axes = "batch pos head d_model";
        let off = |flag| format!("the model does not split this input by head; switch on `{flag}`");
        let hook_attn_in = s.hook_if("hook_attn_in", per_head_axes, cfg.use_attn_in, &off("use_attn_in"));
        let hook_qkv_input = ["hook_q_input", "hook_k_input", "hook_v_input"]
            .map(|name| s.hook_if(name, per_head_axes, cfg.use_split_qkv_input, &off("use_split_qkv_input")));
        let residual = "batch pos d_model";
        let no_mlp = "an `attn_only` model has no MLP";
        let mlp_in_off =
            if cfg.attn_only { no_mlp } else { "the model does not copy the MLP's input; switch on `use_hook_mlp_in`" };
        let hook_mlp_in = s.hook_if("hook_mlp_in", residual, cfg.use_hook_mlp_in && !cfg.attn_only, mlp_in_off);
        let hook_attn_out = s.hook("hook_attn_out", residual);
        let hook_mlp_out = s.hook_if("hook_mlp_out", residual, !cfg.attn_only, no_mlp);
        TransformerBlock {
            n_heads: cfg.n_heads,
            n_kv_heads: cfg.n_hooked_key_value_heads(),
            use_attn_in: cfg.use_attn_in,
            use_split_qkv_input: cfg.use_split_qkv_input,
            parallel: cfg.parallel_attn_mlp,
            ln1,
            ln1_post,
            attn,
            mlp: mlp.map(|((ln2, ln2_post), mlp)| BlockMlp {
                ln2,
                ln2_post,
                mlp,
                hook_mlp_in: cfg.use_hook_mlp_in.then_some(hook_mlp_in),
                hook_mlp_out,
            }),
            hook_attn_in,
            hook_qkv_input,
            hook_attn_out,
            hook_resid_pre: s.hook("hook_resid_pre", residual),
            hook_resid_mid: cfg.has_resid_mid().then(|| s.hook("hook_resid_mid", residual)),
            hook_resid_post: s.hook("hook_resid_post", residual),
        }
    }

    /// `[batch, pos, d_model]`; `pos_embed` is added to the inputs of queries and keys (shortformer).
    pub fn forward(
        &self,
        ctx: &mut Ctx<'_, '_>,
        resid_pre: Var,
        pos_embed: Option<&Var>,
        rows: Rows<'_>,
    ) -> Result<Var, HookError> {
        let resid_pre = self.hook_resid_pre.apply(ctx, resid_pre)?;
        let input = self.attention_input(ctx, &resid_pre, pos_embed)?;
        let z = self.attn.mix(ctx, &input, rows)?;
        drop(input);
        let mid = self.write_attention(ctx, &z, &resid_pre)?;
        drop(z);
        let mid = match &self.hook_resid_mid {
            Some(hook) => hook.apply(ctx, mid)?,
            None => mid,
        };
        let post = self.write_mlp(ctx, &resid_pre, mid)?;
        self.hook_resid_post.apply(ctx, post)
    }

    /// Queries, keys and values `[1, row, head, d_head]` of rows of the stream `[1, row, d_model]`, each
    /// with the position embeddings that shortformer adds; queries of rows of their own if given. No
    /// hook point inside is run.
    pub fn project_rows(
        &self,
        ctx: &mut Ctx<'_, '_>,
        shared: &(Var, Option<Var>),
        queries: Option<&(Var, Option<Var>)>,
    ) -> Result<[Var; 3], HookError> {
        let values = self.normalize(ctx, &shared.0)?;
        let with_positions = |x: &Var, p: &Option<Var>| p.as_ref().map_or(x.clone(), |p| x + p);
        let keys = with_positions(&values, &shared.1);
        let input = match queries {
            None if shared.1.is_none() => AttentionInput::Shared(values),
            None => AttentionInput::Split([keys.clone(), keys, values]),
            Some((x, p)) => AttentionInput::Split([with_positions(&self.normalize(ctx, x)?, p), keys, values]),
        };
        Ok(self.attn.project(ctx, &input))
    }

    /// The stream `[batch, pos, d_model]` after attention, from `z` `[batch, pos, head, d_head]` and
    /// the stream before. Unless somebody looks at what attention writes, it is added at once.
    pub fn write_attention(&self, ctx: &mut Ctx<'_, '_>, z: &Var, resid_pre: &Var) -> Result<Var, HookError> {
        if self.ln1_post.is_none() && !self.hook_attn_out.is_live(ctx) {
            return self.attn.output(ctx, z, Some(resid_pre));
        }
        let mut out = self.attn.output(ctx, z, None)?;
        if let Some(ln) = &self.ln1_post {
            out = ln.forward(ctx, &out)?;
        }
        Ok(resid_pre + &self.hook_attn_out.apply(ctx, out)?)
    }

    /// The stream after the MLP (if there is one), from the stream before the block and after
    /// attention.
    pub fn write_mlp(&self, ctx: &mut Ctx<'_, '_>, resid_pre: &Var, mid: Var) -> Result<Var, HookError> {
        match &self.mlp {
            None => Ok(mid),
            Some(m) if self.parallel => m.forward(ctx, resid_pre, &mid),
            Some(m) => m.forward(ctx, &mid, &mid),
        }
    }

    fn attention_input(
        &self,
        ctx: &mut Ctx<'_, '_>,
        resid: &Var,
        pos_embed: Option<&Var>,
    ) -> Result<AttentionInput, HookError> {
        let per_head = |heads: usize| {
            let [batch, pos, d] = *resid.shape() else { unreachable!("the stream is [batch, pos, d_model]") };
            resid.unsqueeze(2).expand(&[batch, pos, heads, d])
        };
        let mut shared = resid.clone();
        if self.use_attn_in {
            shared = self.hook_attn_in.apply(ctx, per_head(self.n_heads))?;
        }
        let pos_embed = match (pos_embed, self.use_attn_in || self.use_split_qkv_input) {
            (Some(p), true) => Some(p.unsqueeze(2)),
            (p, _) => p.cloned(),
        };
        if self.use_split_qkv_input {
            let heads = [self.n_heads, self.n_kv_heads, self.n_kv_heads];
            let mut inputs = Vec::with_capacity(3);
            for (hook, heads) in self.hook_qkv_input.iter().zip(heads) {
                inputs.push(hook.apply(ctx, per_head(heads))?);
            }
            for (i, x) in inputs.iter_mut().enumerate() {
                *x = self.normalize(ctx, x)?;
                if let (Some(p), 0 | 1) = (&pos_embed, i) {
                    *x = &*x + p;
                }
            }
            let [q, k, v] = inputs.try_into().expect("three inputs were made");
            return Ok(AttentionInput::Split([q, k, v]));
        }
        let normalized = self.normalize(ctx, &shared)?;
        Ok(match pos_embed {
            None => AttentionInput::Shared(normalized),
            Some(p) => {
                let qk = &normalized + &p;
                AttentionInput::Split([qk.clone(), qk, normalized])
            }
        })
    }

    /// Whether what attention writes is normalised before it is added to the stream.
    pub fn normalizes_output(&self) -> bool {
        self.ln1_post.is_some()
    }

    /// What attention reads of the stream.
    pub fn normalize(&self, ctx: &mut Ctx<'_, '_>, x: &Var) -> Result<Var, HookError> {
        match &self.ln1 {
            Some(ln) => ln.forward(ctx, x),
            None => Ok(x.clone()),
        }
    }
}

impl BlockMlp {
    /// The MLP of `input`, added to `stream`.
    fn forward(&self, ctx: &mut Ctx<'_, '_>, input: &Var, stream: &Var) -> Result<Var, HookError> {
        let mut x = input.clone();
        if let Some(hook) = &self.hook_mlp_in {
            x = hook.apply(ctx, x)?;
        }
        if let Some(ln) = &self.ln2 {
            x = ln.forward(ctx, &x)?;
        }
        if self.ln2_post.is_none() && !self.hook_mlp_out.is_live(ctx) {
            return self.mlp.forward(ctx, &x, Some(stream));
        }
        let mut out = self.mlp.forward(ctx, &x, None)?;
        if let Some(ln) = &self.ln2_post {
            out = ln.forward(ctx, &out)?;
        }
        Ok(stream + &self.hook_mlp_out.apply(ctx, out)?)
    }
}
