//! Multilayer perceptrons: plain, gated, and with a norm after the activation.

use ironlens_autograd::Var;
use ironlens_tensor::UnaryOp;

use crate::ctx::Ctx;
use crate::error::HookError;
use crate::norm::{Norm, NormAxes, NormKind};
use crate::registry::{HookPoint, Init, Param, Scope};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// Applied to each element.
    Elementwise(UnaryOp),
    /// `x * softmax(x)` (Elhage et al. 2022).
    Solu,
    /// `max(x, 0)^2` (Nemotron).
    SquaredRelu,
    /// xIELU (Huang and Schlag 2024), with parameters of its own for each layer (Apertus).
    Xielu,
    /// A function of your own.
    Own(OwnActivation),
}

/// An activation function of your own, with a name; two are equal if their names are.
#[derive(Clone, Copy)]
pub struct OwnActivation {
    name: &'static str,
    function: fn(&Var) -> Var,
}

impl OwnActivation {
    /// `function`, called `name`. It gives a value of the shape that it is given.
    pub fn new(name: &'static str, function: fn(&Var) -> Var) -> OwnActivation {
        OwnActivation { name, function }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its value at `x`.
    ///
    /// # Panics
    /// If that has another shape.
    #[track_caller]
    pub fn apply(&self, x: &Var) -> Var {
        let y = (self.function)(x);
        let (name, given, wanted) = (self.name, y.shape(), x.shape());
        assert!(given == wanted, "the activation function {name} made {given:?} of {wanted:?}; the shape must stay");
        y
    }
}

impl PartialEq for OwnActivation {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for OwnActivation {}

impl std::hash::Hash for OwnActivation {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl std::fmt::Debug for OwnActivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnActivation({})", self.name)
    }
}

/// An activation function with its parameters.
#[derive(Debug)]
pub(crate) struct ActFn {
    kind: Activation,
    /// `alpha_p`, `alpha_n` and `beta`, of xIELU.
    xielu: Option<[Param; 3]>,
}

impl ActFn {
    /// In `scope`; parameters are of its child `act_fn`.
    pub fn new(scope: &mut Scope<'_>, kind: Activation) -> ActFn {
        let xielu = (kind == Activation::Xielu).then(|| {
            let mut s = scope.child("act_fn", "XIELU");
            // softplus(0.5) and so on are learned from here; beta is a constant of the paper's.
            ["alpha_p", "alpha_n", "beta"].map(|name| s.param(name, &[], Init::Constant(0.5)))
        });
        ActFn { kind, xielu }
    }

    /// Elementwise, but for SoLU, whose softmax is over the last axis. In place where nobody else needs `x`.
    pub fn apply(&self, ctx: &Ctx<'_, '_>, x: Var) -> Var {
        match (self.kind, self.xielu) {
            (Activation::Elementwise(op), _) => x.into_unary(op),
            (Activation::Solu, _) => &x * &x.softmax(),
            (Activation::SquaredRelu, _) => x.unary(UnaryOp::Relu).into_unary(UnaryOp::Square),
            (Activation::Xielu, Some(params)) => xielu(&x, params.map(|p| ctx.param(p))),
            (Activation::Own(own), _) => own.apply(&x),
            (Activation::Xielu, None) => unreachable!("xIELU is made with its parameters"),
        }
    }
}

/// `a_p x^2 + beta x` above 0 and `(e^min(x, -1e-6) - 1 - x) a_n + beta x` below, with
/// `a_p = softplus(alpha_p)` and `a_n = beta + softplus(alpha_n)`.
fn xielu(x: &Var, [alpha_p, alpha_n, beta]: [&Var; 3]) -> Var {
    let softplus = |a: &Var| a.unary(UnaryOp::Exp).affine(1.0, 1.0).into_unary(UnaryOp::Log);
    let above = x.unary(UnaryOp::Square) * &softplus(alpha_p);
    let exp_minus_1 = x.minimum(-1e-6).into_unary(UnaryOp::Exp).affine(1.0, -1.0);
    let below = (exp_minus_1 - x) * &(beta + &softplus(alpha_n));
    Var::where_(x.gt(0.0), &above, &below) + &(x * beta)
}

/// The sizes and kind of an [`Mlp`].
#[derive(Clone, Copy, Debug)]
pub struct MlpConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of neurons.
    pub d_mlp: usize,
    /// The nonlinearity.
    pub activation: Activation,
    /// `act(x @ W_gate) * (x @ W_in) + b_in` instead of `act(x @ W_in + b_in)`.
    pub gated: bool,
    /// `act(x @ W_gate + b_gate) * (x @ W_in + b_in)`: biases of a gated MLP are added before the
    /// product, and there is one of the gate.
    pub gate_bias: bool,
    /// A norm between activation and output (`solu_ln`), with this epsilon.
    pub norm: Option<(NormKind, f64)>,
}

/// `act(x @ W_in + b_in) @ W_out + b_out`, with `hook_pre` and `hook_post` around the activation.
#[derive(Debug)]
pub struct Mlp {
    act_fn: ActFn,
    w_in: Param,
    b_in: Param,
    w_gate: Option<Param>,
    b_gate: Option<Param>,
    w_out: Param,
    b_out: Param,
    hook_pre: HookPoint,
    hook_pre_linear: Option<HookPoint>,
    hook_post: HookPoint,
    mid: Option<(HookPoint, Norm)>,
}

impl Mlp {
    /// As child `mlp` of `scope`; `init` says how a matrix `[rows, columns]` starts.
    pub fn new(scope: &mut Scope<'_>, cfg: &MlpConfig, init: &dyn Fn(&[usize]) -> Init) -> Mlp {
        let mut s = scope.child("mlp", if cfg.gated { "GatedMLP" } else { "MLP" });
        let mid = cfg.norm.map(|(kind, eps)| {
            let hook = s.hook("hook_mid", "batch pos d_mlp");
            (hook, Norm::new(&mut s, "ln", kind, cfg.d_mlp, eps, NormAxes::MLP))
        });
        let (d, m) = (cfg.d_model, cfg.d_mlp);
        let pre_linear_off = "with a norm after the activation, TransformerLens's gated MLP does not read `W_in`";
        Mlp {
            act_fn: ActFn::new(&mut s, cfg.activation),
            w_in: s.param("W_in", &[d, m], init(&[d, m])),
            w_out: s.param("W_out", &[m, d], init(&[m, d])),
            w_gate: cfg.gated.then(|| s.param("W_gate", &[d, m], init(&[d, m]))),
            b_in: s.param("b_in", &[m], Init::Zeros),
            b_gate: (cfg.gated && cfg.gate_bias).then(|| s.param("b_gate", &[m], Init::Zeros)),
            b_out: s.param("b_out", &[d], Init::Zeros),
            hook_pre: s.hook("hook_pre", "batch pos d_mlp"),
            hook_pre_linear: cfg
                .gated
                .then(|| s.hook_if("hook_pre_linear", "batch pos d_mlp", cfg.norm.is_none(), pre_linear_off)),
            hook_post: s.hook("hook_post", "batch pos d_mlp"),
            mid,
        }
    }

    /// `[batch, pos, d_model] -> [batch, pos, d_model]`, added to `residual` if given.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var, residual: Option<&Var>) -> Result<Var, HookError> {
        let pre = match self.w_gate {
            Some(w) => x.linear(ctx.param(w), self.b_gate.map(|b| ctx.param(b)), None),
            None => x.linear(ctx.param(self.w_in), Some(ctx.param(self.b_in)), None),
        };
        let pre = self.hook_pre.apply(ctx, pre)?;
        let act = self.act_fn.apply(ctx, pre);
        let post = match (&self.mid, self.hook_pre_linear) {
            (Some((hook_mid, ln)), _) => {
                let mid = hook_mid.apply(ctx, act)?;
                ln.forward(ctx, &mid)?
            }
            (None, Some(hook)) => {
                let inside = self.b_gate.is_some().then(|| ctx.param(self.b_in));
                let linear = x.linear(ctx.param(self.w_in), inside, None);
                let product = act * &hook.apply(ctx, linear)?;
                if self.b_gate.is_some() { product } else { product + ctx.param(self.b_in) }
            }
            (None, None) => act,
        };
        let post = self.hook_post.apply(ctx, post)?;
        Ok(post.linear(ctx.param(self.w_out), Some(ctx.param(self.b_out)), residual))
    }
}
