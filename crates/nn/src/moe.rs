//! Mixtures of experts: a router sends each token to a few of many MLPs.

use ironlens_autograd::Var;
use ironlens_tensor::{IndexTensor, Layout, UnaryOp};

use crate::ctx::Ctx;
use crate::error::HookError;
use crate::mlp::{ActFn, Activation};
use crate::registry::{HookPoint, Init, Param, Scope};

/// What an expert does between its matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExpertKind {
    /// `act(x @ W_gate^T) * (x @ W_in^T)`, as Mixtral's and Qwen's.
    Gated(Activation),
    /// gpt-oss's: `g = min(gate, 7)`, `u` cut off at plus and minus 7, `(u + 1) * g * sigmoid(1.702 g)`.
    ClampedSwiglu,
}

/// The sizes and kind of a [`Moe`].
#[derive(Clone, Copy, Debug)]
pub struct MoeConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of neurons of an expert.
    pub d_mlp: usize,
    /// Number of experts.
    pub n_experts: usize,
    /// How many of them each token goes to.
    pub per_token: usize,
    /// The experts' nonlinearity.
    pub kind: ExpertKind,
    /// Divide the weights of the chosen experts by their sum.
    pub renormalize: bool,
    /// Whether router and experts have biases (gpt-oss).
    pub biases: bool,
    /// Number of neurons of an expert that every token goes to, weighed by a gate of its own (Qwen 2).
    pub shared: Option<usize>,
}

/// A linear map with its weight as PyTorch stores it, `[out, in]`.
#[derive(Debug)]
struct Linear {
    w: Param,
    b: Option<Param>,
}

impl Linear {
    /// Parameters `name.weight` and, with `bias`, `name.bias`.
    fn new(
        s: &mut Scope<'_>,
        name: &str,
        [inner, outer]: [usize; 2],
        bias: bool,
        init: &dyn Fn(&[usize]) -> Init,
    ) -> Linear {
        let mut s = s.child(name, "Linear");
        // Stored as the product wants it, shown transposed.
        let shown = Layout::strided(vec![outer, inner], vec![1, outer], 0);
        Linear {
            w: s.packed(&[inner, outer], &[("weight", shown, init(&[inner, outer]))]),
            b: bias.then(|| s.param("bias", &[outer], Init::Zeros)),
        }
    }

    fn forward(&self, ctx: &Ctx<'_, '_>, x: &Var) -> Var {
        x.linear(ctx.param(self.w), self.b.map(|b| ctx.param(b)), None)
    }
}

/// One expert: `hook_gate` and `hook_pre` before its product, `hook_post` after it.
#[derive(Debug)]
struct Expert {
    kind: ExpertKind,
    act_fn: Option<ActFn>,
    w_in: Linear,
    w_gate: Linear,
    w_out: Linear,
    hook_gate: HookPoint,
    hook_pre: HookPoint,
    hook_post: HookPoint,
}

impl Expert {
    fn new(
        mut s: Scope<'_>,
        cfg: &MoeConfig,
        d_mlp: usize,
        axes: &'static str,
        init: &dyn Fn(&[usize]) -> Init,
    ) -> Expert {
        let (up, down) = ([cfg.d_model, d_mlp], [d_mlp, cfg.d_model]);
        Expert {
            kind: cfg.kind,
            act_fn: match cfg.kind {
                ExpertKind::Gated(activation) => Some(ActFn::new(&mut s, activation)),
                ExpertKind::ClampedSwiglu => None,
            },
            w_in: Linear::new(&mut s, "W_in", up, cfg.biases, init),
            w_gate: Linear::new(&mut s, "W_gate", up, cfg.biases, init),
            w_out: Linear::new(&mut s, "W_out", down, cfg.biases, init),
            hook_gate: s.hook("hook_gate", axes),
            hook_pre: s.hook("hook_pre", axes),
            hook_post: s.hook("hook_post", axes),
        }
    }

    fn is_live(&self, ctx: &Ctx<'_, '_>) -> bool {
        [self.hook_gate, self.hook_pre, self.hook_post].iter().any(|hook| hook.is_live(ctx))
    }

    fn is_trained(&self, ctx: &Ctx<'_, '_>) -> bool {
        [&self.w_gate, &self.w_in, &self.w_out].iter().any(|linear| ctx.param(linear.w).requires_grad())
    }

    /// `[.., d_model] -> [.., d_model]`
    fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var) -> Result<Var, HookError> {
        let gate = self.w_gate.forward(ctx, x);
        let gate = self.hook_gate.apply(ctx, gate)?;
        let pre = self.w_in.forward(ctx, x);
        let pre = self.hook_pre.apply(ctx, pre)?;
        let post = match (self.kind, &self.act_fn) {
            (_, Some(act_fn)) => act_fn.apply(ctx, gate) * &pre,
            (ExpertKind::Gated(_) | ExpertKind::ClampedSwiglu, None) => {
                let g = gate.minimum(CLAMP);
                let swish = &g * &g.affine(1.702, 0.0).into_unary(UnaryOp::Sigmoid);
                swish * &pre.clamp(-CLAMP, CLAMP).affine(1.0, 1.0)
            }
        };
        let post = self.hook_post.apply(ctx, post)?;
        Ok(self.w_out.forward(ctx, &post))
    }
}

/// Where gpt-oss cuts off the values of its experts.
const CLAMP: f64 = 7.0;

/// A mixture of experts with TransformerLens's names: the router `W_gate.weight` `[expert, d_model]` and
/// `experts.0` on, each with `W_in.weight` and `W_gate.weight` `[d_mlp, d_model]` and `W_out.weight`
/// `[d_model, d_mlp]`.
///
/// Hooks see the router's probabilities `[batch * pos, expert]` (`hook_expert_weights`), the experts that each
/// token goes to, best first, as numbers `[batch * pos, per_token]` (`hook_expert_indices`), and what the tokens
/// of an expert make in it, those that chose it first before those that chose it second.
#[derive(Debug)]
pub struct Moe {
    n_experts: usize,
    per_token: usize,
    renormalize: bool,
    router: Linear,
    experts: Vec<Expert>,
    shared: Option<(Expert, Linear, HookPoint)>,
    hook_expert_weights: HookPoint,
    hook_expert_indices: HookPoint,
}

impl Moe {
    /// As child `mlp` of `scope`; `init` says how a matrix `[rows, columns]` starts.
    pub fn new(scope: &mut Scope<'_>, cfg: &MoeConfig, init: &dyn Fn(&[usize]) -> Init) -> Moe {
        let mut s = scope.child("mlp", "MoE");
        let router = Linear::new(&mut s, "W_gate", [cfg.d_model, cfg.n_experts], cfg.biases, init);
        let experts = {
            let mut s = s.child("experts", "ModuleList");
            let expert =
                |i: usize| Expert::new(s.child(&i.to_string(), "MoEGatedMLP"), cfg, cfg.d_mlp, "token d_mlp", init);
            (0..cfg.n_experts).map(expert).collect()
        };
        let shared = cfg.shared.map(|d_mlp| {
            let expert = Expert::new(s.child("shared_expert", "MoEGatedMLP"), cfg, d_mlp, "batch pos d_mlp", init);
            let gate = Linear::new(&mut s, "shared_expert_gate", [cfg.d_model, 1], false, init);
            (expert, gate, s.hook("hook_shared_expert_weight", "batch pos 1"))
        });
        Moe {
            n_experts: cfg.n_experts,
            per_token: cfg.per_token,
            renormalize: cfg.renormalize,
            router,
            experts,
            shared,
            hook_expert_weights: s.hook("hook_expert_weights", "token expert"),
            hook_expert_indices: s.hook("hook_expert_indices", "token choice"),
        }
    }

    /// `[batch, pos, d_model] -> [batch, pos, d_model]`, added to `residual` if given.
    ///
    /// The choice of experts is made on the host, and has no gradient; their weights have.
    ///
    /// # Errors
    /// If a hook fails, or sends a token to an expert that does not exist.
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var, residual: Option<&Var>) -> Result<Var, HookError> {
        let [batch, pos, d_model] = *x.shape() else { unreachable!("the stream is [batch, pos, d_model]") };
        let tokens = batch * pos;
        let rows = x.reshape(&[tokens, d_model]);
        let probabilities = self.router.forward(ctx, &rows).softmax();
        let probabilities = self.hook_expert_weights.apply(ctx, probabilities)?;
        let (mut weights, chosen) = probabilities.topk(self.per_token, 1);
        if self.renormalize {
            weights = &weights / &weights.sum_keepdim(1);
        }
        let chosen = self.choices(ctx, chosen)?;

        // The rows of each expert, one expert after the other: `outputs` [per_token * token, d_model], and where
        // in it the output of each choice of each token is.
        let mut outputs = Vec::new();
        let mut places = vec![vec![0u32; tokens]; self.per_token];
        let mut next = 0;
        for (e, expert) in self.experts.iter().enumerate() {
            let mut own = Vec::new();
            for (choice, places) in places.iter_mut().enumerate() {
                for (token, place) in places.iter_mut().enumerate() {
                    if chosen[token * self.per_token + choice] as usize == e {
                        own.push(token as u32);
                        *place = next;
                        next += 1;
                    }
                }
            }
            // While it is trained, an expert that no token comes to has gradients of 0, as in TransformerLens.
            if own.is_empty() && !expert.is_live(ctx) && !expert.is_trained(ctx) {
                continue;
            }
            let count = own.len();
            let input = rows.index_select(0, &IndexTensor::new(own, &[count]));
            outputs.push(expert.forward(ctx, &input)?);
        }
        let outputs = Var::cat(&outputs, 0);
        let mut out = None;
        for (choice, places) in places.into_iter().enumerate() {
            let part = outputs.index_select(0, &IndexTensor::new(places, &[tokens]));
            let part = part * &weights.narrow(1, choice, 1);
            out = Some(match out {
                None => part,
                Some(sum) => sum + &part,
            });
        }
        let out = out.unwrap_or_else(|| rows.affine(0.0, 0.0)).reshape(&[batch, pos, d_model]);
        let out = match &self.shared {
            None => out,
            Some((expert, gate, hook)) => {
                let weight = gate.forward(ctx, x).into_unary(UnaryOp::Sigmoid);
                let weight = hook.apply(ctx, weight)?;
                out + &(expert.forward(ctx, x)? * &weight)
            }
        };
        Ok(match residual {
            Some(r) => r + &out,
            None => out,
        })
    }

    /// The experts of each token `[token, per_token]`, as hooks left them.
    fn choices(&self, ctx: &mut Ctx<'_, '_>, chosen: IndexTensor) -> Result<Vec<u32>, HookError> {
        if !self.hook_expert_indices.is_live(ctx) {
            return Ok(chosen.as_slice().to_vec());
        }
        let numbers = ironlens_tensor::Tensor::from_vec_f64(
            chosen.as_slice().iter().map(|&e| f64::from(e)).collect(),
            chosen.shape(),
        );
        let numbers = Var::from(numbers.to_dtype(ctx.dtype()).to_device(ctx.device()));
        let numbers = self.hook_expert_indices.apply(ctx, numbers)?;
        let expert = |number: f64| {
            let known = number >= 0.0 && number < self.n_experts as f64 && number.fract() == 0.0;
            known.then_some(number as u32).ok_or_else(|| HookError::Failed {
                name: self.hook_expert_indices.name(ctx).to_string(),
                source: format!(
                    "it sends a token to expert {number}; there are {}, from 0 to {}",
                    self.n_experts,
                    self.n_experts - 1
                )
                .into(),
            })
        };
        numbers.value().to_vec_f64().into_iter().map(expert).collect()
    }
}
