//! The modules of an encoder, by TransformerLens's names: `BertEmbed`, `BertBlock` and the heads.

use ironlens_autograd::Var;
use ironlens_nn::{
    Attention, AttentionInput, Ctx, Embed, HookError, HookPoint, Init, Linear, Mlp, MlpConfig, Norm, NormAxes,
    NormKind, Padding, PosEmbed, PositionScheme, Scope, TokenTypeEmbed, Unembed,
};
use ironlens_tensor::{IndexTensor, UnaryOp};

use super::Heads;
use crate::config::{ActFn, Config};
use crate::parts::{activation, attention, init_of};

/// The modules of a model, by TransformerLens's names.
pub(crate) struct EncoderNet {
    embed: BertEmbed,
    blocks: Vec<BertBlock>,
    pub mlm_head: Option<MlmHead>,
    pub nsp_head: Option<NspHead>,
    pub pooler: Option<Pooler>,
    hook_full_embed: HookPoint,
}

/// How a matrix starts, by its shape.
type Start<'i> = &'i dyn Fn(&[usize]) -> Init;

impl EncoderNet {
    /// Builds the modules of a resolved configuration in `s`.
    pub fn new(s: &mut Scope<'_>, cfg: &Config, heads: Heads) -> EncoderNet {
        let init = |shape: &[usize]| init_of(cfg, false, shape);
        let init_embed = |shape: &[usize]| init_of(cfg, true, shape);
        let embed = BertEmbed::new(&mut s.child("embed", "BertEmbed"), cfg, &init_embed);
        let blocks = {
            let mut s = s.child("blocks", "ModuleList");
            (0..cfg.n_layers)
                .map(|l| BertBlock::new(&mut s.child(&l.to_string(), "BertBlock"), cfg, l, &init))
                .collect()
        };
        EncoderNet {
            embed,
            blocks,
            mlm_head: heads.masked_language.then(|| MlmHead::new(s, cfg, &init, &init_embed)),
            nsp_head: heads.next_sentence.then(|| NspHead::new(&mut s.child("nsp_head", "BertNSPHead"), cfg, &init)),
            pooler: heads.pooler.then(|| Pooler::new(&mut s.child("pooler", "BertPooler"), cfg, &init)),
            hook_full_embed: s.hook("hook_full_embed", RESIDUAL),
        }
    }

    /// The stream after the last block, `[batch, pos, d_model]`, of tokens and their types `[batch, pos]`.
    pub fn forward(
        &self,
        ctx: &mut Ctx<'_, '_>,
        tokens: &IndexTensor,
        types: &IndexTensor,
        padding: Option<&Padding>,
    ) -> Result<Var, HookError> {
        let embed = self.embed.forward(ctx, tokens, types)?;
        let mut residual = self.hook_full_embed.apply(ctx, embed)?;
        for block in &self.blocks {
            residual = block.forward(ctx, residual, padding)?;
        }
        Ok(residual)
    }
}

const RESIDUAL: &str = "batch pos d_model";

fn layer_norm(s: &mut Scope<'_>, name: &str, cfg: &Config) -> Norm {
    Norm::new(s, name, NormKind::LayerNorm, cfg.d_model, cfg.eps, NormAxes::RESIDUAL)
}

/// `ln(W_E[token] + W_pos[pos] + W_token_type[type])`
struct BertEmbed {
    embed: Embed,
    pos_embed: PosEmbed,
    token_type_embed: TokenTypeEmbed,
    ln: Norm,
    hook_embed: HookPoint,
    hook_pos_embed: HookPoint,
    hook_token_type_embed: HookPoint,
}

impl BertEmbed {
    fn new(s: &mut Scope<'_>, cfg: &Config, init: Start<'_>) -> BertEmbed {
        let d = cfg.d_model;
        let [of_tokens, of_positions, of_types] =
            [cfg.d_vocab, cfg.n_ctx, TokenTypeEmbed::TYPES].map(|n| init(&[n, d]));
        BertEmbed {
            embed: Embed::new(&mut s.child("embed", "Embed"), cfg.d_vocab, d, of_tokens),
            pos_embed: PosEmbed::new(&mut s.child("pos_embed", "PosEmbed"), cfg.n_ctx, d, of_positions),
            token_type_embed: TokenTypeEmbed::new(&mut s.child("token_type_embed", "TokenTypeEmbed"), d, of_types),
            ln: layer_norm(s, "ln", cfg),
            hook_embed: s.hook("hook_embed", RESIDUAL),
            hook_pos_embed: s.hook("hook_pos_embed", RESIDUAL),
            hook_token_type_embed: s.hook("hook_token_type_embed", RESIDUAL),
        }
    }

    /// Positions are places in the row, whatever is padding.
    fn forward(&self, ctx: &mut Ctx<'_, '_>, tokens: &IndexTensor, types: &IndexTensor) -> Result<Var, HookError> {
        let [batch, pos] = *tokens.shape() else { unreachable!("tokens are [batch, pos]") };
        let of_tokens = self.hook_embed.apply(ctx, self.embed.forward(ctx, tokens))?;
        let of_positions = self.hook_pos_embed.apply(ctx, self.pos_embed.forward(ctx, batch, 0..pos))?;
        let of_types = self.hook_token_type_embed.apply(ctx, self.token_type_embed.forward(ctx, types))?;
        self.ln.forward(ctx, &(of_tokens + &of_positions + &of_types))
    }
}

/// `resid_mid = resid_pre + attn(resid_pre)`, `resid_post = ln1(resid_mid) + mlp(ln1(resid_mid))`, and the next block
/// reads `ln2(resid_post)`: norms come after what they normalise is added.
struct BertBlock {
    n_heads: usize,
    attn: Attention,
    ln1: Norm,
    mlp: Mlp,
    ln2: Norm,
    /// Set if `use_split_qkv_input`.
    hook_qkv_input: Option<[HookPoint; 3]>,
    hook_attn_out: HookPoint,
    /// Set if `use_hook_mlp_in`.
    hook_mlp_in: Option<HookPoint>,
    hook_mlp_out: HookPoint,
    hook_resid_pre: HookPoint,
    hook_resid_mid: HookPoint,
    hook_resid_post: HookPoint,
    hook_normalized_resid_post: HookPoint,
}

impl BertBlock {
    fn new(s: &mut Scope<'_>, cfg: &Config, layer: usize, init: Start<'_>) -> BertBlock {
        let attn = attention(s, cfg, layer, PositionScheme::None, init);
        let ln1 = layer_norm(s, "ln1", cfg);
        let mlp = MlpConfig {
            d_model: cfg.d_model,
            d_mlp: cfg.d_mlp(),
            activation: activation(cfg),
            gated: false,
            gate_bias: false,
            norm: None,
        };
        let mlp = Mlp::new(s, &mlp, init);
        let ln2 = layer_norm(s, "ln2", cfg);
        let split_off = "the model does not split this input by head; switch on `use_split_qkv_input`";
        let hook_qkv_input = ["hook_q_input", "hook_k_input", "hook_v_input"]
            .map(|name| s.hook_if(name, "batch pos head d_model", cfg.use_split_qkv_input, split_off));
        let hook_attn_out = s.hook("hook_attn_out", RESIDUAL);
        let mlp_in_off = "the model does not copy the MLP's input; switch on `use_hook_mlp_in`";
        let hook_mlp_in = s.hook_if("hook_mlp_in", RESIDUAL, cfg.use_hook_mlp_in, mlp_in_off);
        BertBlock {
            n_heads: cfg.n_heads,
            attn,
            ln1,
            mlp,
            ln2,
            hook_qkv_input: cfg.use_split_qkv_input.then_some(hook_qkv_input),
            hook_attn_out,
            hook_mlp_in: cfg.use_hook_mlp_in.then_some(hook_mlp_in),
            hook_mlp_out: s.hook("hook_mlp_out", RESIDUAL),
            hook_resid_pre: s.hook("hook_resid_pre", RESIDUAL),
            hook_resid_mid: s.hook("hook_resid_mid", RESIDUAL),
            hook_resid_post: s.hook("hook_resid_post", RESIDUAL),
            hook_normalized_resid_post: s.hook("hook_normalized_resid_post", RESIDUAL),
        }
    }

    fn forward(&self, ctx: &mut Ctx<'_, '_>, residual: Var, padding: Option<&Padding>) -> Result<Var, HookError> {
        let resid_pre = self.hook_resid_pre.apply(ctx, residual)?;
        let input = self.attention_input(ctx, &resid_pre)?;
        let z = self.attn.mix(ctx, &input, padding)?;
        // Unless somebody looks at what attention and MLP write, it is added at once.
        let resid_mid = match self.hook_attn_out.is_live(ctx) {
            false => self.attn.output(ctx, &z, Some(&resid_pre))?,
            true => {
                let out = self.attn.output(ctx, &z, None)?;
                &resid_pre + &self.hook_attn_out.apply(ctx, out)?
            }
        };
        let mut mlp_in = self.hook_resid_mid.apply(ctx, resid_mid)?;
        if let Some(hook) = &self.hook_mlp_in {
            mlp_in = hook.apply(ctx, mlp_in)?;
        }
        let normalized = self.ln1.forward(ctx, &mlp_in)?;
        let resid_post = match self.hook_mlp_out.is_live(ctx) {
            false => self.mlp.forward(ctx, &normalized, Some(&normalized))?,
            true => {
                let out = self.mlp.forward(ctx, &normalized, None)?;
                &normalized + &self.hook_mlp_out.apply(ctx, out)?
            }
        };
        let resid_post = self.hook_resid_post.apply(ctx, resid_post)?;
        let normalized = self.ln2.forward(ctx, &resid_post)?;
        self.hook_normalized_resid_post.apply(ctx, normalized)
    }

    fn attention_input(&self, ctx: &mut Ctx<'_, '_>, residual: &Var) -> Result<AttentionInput, HookError> {
        let Some([q, k, v]) = &self.hook_qkv_input else { return Ok(AttentionInput::Shared(residual.clone())) };
        let [batch, pos, d] = *residual.shape() else { unreachable!("the stream is [batch, pos, d_model]") };
        let per_head = || residual.unsqueeze(2).expand(&[batch, pos, self.n_heads, d]);
        Ok(AttentionInput::Split([q.apply(ctx, per_head())?, k.apply(ctx, per_head())?, v.apply(ctx, per_head())?]))
    }
}

/// What guesses masked words: `ln(act(x @ W + b)) @ W_U + b_U`.
pub(crate) struct MlmHead {
    dense: Linear,
    act: UnaryOp,
    ln: Norm,
    unembed: Unembed,
}

impl MlmHead {
    /// `mlm_head` and `unembed` of `scope`.
    fn new(scope: &mut Scope<'_>, cfg: &Config, init: Start<'_>, init_embed: Start<'_>) -> MlmHead {
        let (d, act) = (cfg.d_model, head_activation(cfg).expect("the configuration was checked"));
        let (dense, ln) = {
            let mut s = scope.child("mlm_head", "BertMLMHead");
            let dense = Linear::with_init(&mut s, d, d, init(&[d, d]));
            s.child("act_fn", act.1);
            (dense, layer_norm(&mut s, "ln", cfg))
        };
        let start = init_embed(&[d, cfg.d_vocab_out]);
        let unembed = Unembed::new(&mut scope.child("unembed", "Unembed"), d, cfg.d_vocab_out, start);
        MlmHead { dense, act: act.0, ln, unembed }
    }

    /// `[batch, pos, d_model] -> [batch, pos, d_vocab_out]`
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, residual: &Var) -> Result<Var, HookError> {
        let x = self.dense.forward(ctx, residual).into_unary(self.act);
        let x = self.ln.forward(ctx, &x)?;
        Ok(self.unembed.forward(ctx, &x))
    }
}

/// The activation function of an encoder, and what PyTorch calls it; `None` for those that only decoders have.
pub(crate) fn head_activation(cfg: &Config) -> Option<(UnaryOp, &'static str)> {
    match cfg.act_fn {
        ActFn::Gelu => Some((UnaryOp::Gelu, "GELU(approximate='none')")),
        ActFn::GeluNew | ActFn::GeluFast | ActFn::GeluPytorchTanh => {
            Some((UnaryOp::GeluNew, "GELU(approximate='tanh')"))
        }
        ActFn::Relu => Some((UnaryOp::Relu, "ReLU()")),
        ActFn::Silu => Some((UnaryOp::Silu, "SiLU()")),
        ActFn::Unset | ActFn::Relu2 | ActFn::Xielu | ActFn::Solu | ActFn::SoluLn | ActFn::Own(_) => None,
    }
}

/// What sums a text up: `tanh(x[0] @ W + b)` of the first token.
pub(crate) struct Pooler {
    dense: Linear,
    hook_pooler_out: HookPoint,
}

impl Pooler {
    fn new(s: &mut Scope<'_>, cfg: &Config, init: Start<'_>) -> Pooler {
        let d = cfg.d_model;
        let dense = Linear::with_init(s, d, d, init(&[d, d]));
        s.child("activation", "Tanh()");
        Pooler { dense, hook_pooler_out: s.hook("hook_pooler_out", "batch d_model") }
    }

    /// `[batch, pos, d_model] -> [batch, d_model]`
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, residual: &Var) -> Result<Var, HookError> {
        let first = residual.select(1, 0);
        let pooled = self.dense.forward(ctx, &first).into_unary(UnaryOp::Tanh);
        self.hook_pooler_out.apply(ctx, pooled)
    }
}

/// Whether the second text follows the first: logits of yes and no.
pub(crate) struct NspHead {
    dense: Linear,
    hook_nsp_out: HookPoint,
}

impl NspHead {
    fn new(s: &mut Scope<'_>, cfg: &Config, init: Start<'_>) -> NspHead {
        let dense = Linear::with_init(s, cfg.d_model, 2, init(&[cfg.d_model, 2]));
        NspHead { dense, hook_nsp_out: s.hook("hook_nsp_out", "batch answer") }
    }

    /// `[batch, d_model]` of the pooler to `[batch, 2]`
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, pooled: &Var) -> Result<Var, HookError> {
        let logits = self.dense.forward(ctx, pooled);
        self.hook_nsp_out.apply(ctx, logits)
    }
}
