//! What a device must be able to compute: every op is a required method.

use half::bf16;

use crate::{DType, IndexTensor, Tensor};

/// An elementwise function of one operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryOp {
    /// -x
    Neg,
    /// |x|
    Abs,
    /// -1, 0 or 1; its derivative is 0
    Sign,
    /// e^x
    Exp,
    /// ln x
    Log,
    /// sqrt x
    Sqrt,
    /// 1 / x
    Recip,
    /// x^2
    Square,
    /// x^p
    Pow(f64),
    /// `scale * x + shift`
    Affine {
        /// Factor.
        scale: f64,
        /// Addend.
        shift: f64,
    },
    /// x cut off at both ends; the ends themselves let the gradient through
    Clamp {
        /// Smallest result.
        min: f64,
        /// Largest result.
        max: f64,
    },
    /// sin x
    Sin,
    /// cos x
    Cos,
    /// tanh x
    Tanh,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// max(x, 0)
    Relu,
    /// x Phi(x), with the error function: PyTorch's `gelu`
    Gelu,
    /// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): TransformerLens's `gelu_new`, its
    /// `gelu_fast` and PyTorch's `gelu(approximate="tanh")` are this function too
    GeluNew,
    /// x sigmoid(x)
    Silu,
    /// c tanh(x / c)
    SoftCap(f64),
}

impl UnaryOp {
    /// One of each, for tests and benchmarks that must cover all.
    pub const ALL: [UnaryOp; 20] = [
        UnaryOp::Neg,
        UnaryOp::Abs,
        UnaryOp::Sign,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Sqrt,
        UnaryOp::Recip,
        UnaryOp::Square,
        UnaryOp::Pow(1.5),
        UnaryOp::Affine { scale: -0.7, shift: 0.3 },
        UnaryOp::Clamp { min: -0.6, max: 0.4 },
        UnaryOp::Sin,
        UnaryOp::Cos,
        UnaryOp::Tanh,
        UnaryOp::Sigmoid,
        UnaryOp::Relu,
        UnaryOp::Gelu,
        UnaryOp::GeluNew,
        UnaryOp::Silu,
        UnaryOp::SoftCap(1.3),
    ];

    /// Name of the function, such as `gelu`.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// Name of its gradient, such as `gelu_grad`.
    pub fn grad_name(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            UnaryOp::Neg => ("neg", "neg_grad"),
            UnaryOp::Abs => ("abs", "abs_grad"),
            UnaryOp::Sign => ("sign", "sign_grad"),
            UnaryOp::Exp => ("exp", "exp_grad"),
            UnaryOp::Log => ("log", "log_grad"),
            UnaryOp::Sqrt => ("sqrt", "sqrt_grad"),
            UnaryOp::Recip => ("recip", "recip_grad"),
            UnaryOp::Square => ("square", "square_grad"),
            UnaryOp::Pow(_) => ("pow", "pow_grad"),
            UnaryOp::Affine { .. } => ("affine", "affine_grad"),
            UnaryOp::Clamp { .. } => ("clamp", "clamp_grad"),
            UnaryOp::Sin => ("sin", "sin_grad"),
            UnaryOp::Cos => ("cos", "cos_grad"),
            UnaryOp::Tanh => ("tanh", "tanh_grad"),
            UnaryOp::Sigmoid => ("sigmoid", "sigmoid_grad"),
            UnaryOp::Relu => ("relu", "relu_grad"),
            UnaryOp::Gelu => ("gelu", "gelu_grad"),
            UnaryOp::GeluNew => ("gelu_new", "gelu_new_grad"),
            UnaryOp::Silu => ("silu", "silu_grad"),
            UnaryOp::SoftCap(_) => ("soft_cap", "soft_cap_grad"),
        }
    }
}

/// An elementwise function of two operands, which broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// The larger; NaN stays
    Maximum,
    /// The smaller; NaN stays
    Minimum,
    /// 1 if a > b, else 0
    Gt,
    /// 1 if a >= b, else 0
    Ge,
    /// 1 if a = b, else 0
    Eq,
    /// a if b is not 0, else 0: `b` is a mask
    Keep,
}

impl BinaryOp {
    /// All of them.
    pub const ALL: [BinaryOp; 10] = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Maximum,
        BinaryOp::Minimum,
        BinaryOp::Gt,
        BinaryOp::Ge,
        BinaryOp::Eq,
        BinaryOp::Keep,
    ];

    /// Name of the function, such as `add`.
    pub fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Maximum => "maximum",
            BinaryOp::Minimum => "minimum",
            BinaryOp::Gt => "gt",
            BinaryOp::Ge => "ge",
            BinaryOp::Eq => "eq",
            BinaryOp::Keep => "keep",
        }
    }
}

/// A function that shrinks axes to length 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Sum of the elements.
    Sum,
    /// Largest element; NaN if there is one.
    Max,
}

impl ReduceOp {
    /// All of them.
    pub const ALL: [ReduceOp; 2] = [ReduceOp::Sum, ReduceOp::Max];

    /// Name of the function, `sum` or `max`.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Max => "max",
        }
    }
}

/// How attention scores are made from queries and keys. Shared by the fused kernel and its parts,
/// so that both compute the same numbers.
///
/// `score[b, h, i, j] = softcap(q_i . k_j / scale)`, with ALiBi's bias if there is one, and negative infinity where
/// query `i` may not see key `j`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Scores are divided by this (`sqrt(d_head)` in TransformerLens's default).
    pub scale: f64,
    /// `c tanh(score / c)` if set.
    pub soft_cap: Option<f64>,
    /// Whether keys after the query are hidden.
    pub causal: bool,
    /// Whether keys that lie this many or more positions before the query are hidden.
    pub window: Option<usize>,
    /// What scores have for where a key lies, if anything.
    pub alibi: Option<Alibi>,
    /// Position of the first query among the keys: queries are `query_start..query_start + q`.
    pub query_start: usize,
    /// `[batch, key]`, 0 where a key is padding that nobody may see.
    pub key_mask: Option<IndexTensor>,
}

impl AttentionSpec {
    /// Causal attention with `scale` and nothing else.
    pub fn causal(scale: f64) -> AttentionSpec {
        AttentionSpec { scale, soft_cap: None, causal: true, window: None, alibi: None, query_start: 0, key_mask: None }
    }

    /// Whether query `i` (counted from the first query) may see key `j` of batch item `b`.
    #[inline]
    pub fn visible(&self, b: usize, i: usize, j: usize) -> bool {
        let i = i + self.query_start;
        let late = self.causal && j > i;
        let far = self.window.and_then(|w| i.checked_sub(w)).is_some_and(|last| j <= last);
        let padding = self.key_mask.as_ref().is_some_and(|m| m.as_slice()[b * m.shape()[1] + j] == 0);
        !(late || far || padding)
    }

    /// Whether a key's place counts from the first key, and not from the query.
    pub fn counts_keys(&self) -> bool {
        self.alibi.as_ref().is_some_and(|alibi| alibi.bf16)
    }
}

/// ALiBi (Press et al. 2021): scores have a bias by the places of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Alibi {
    /// One for each head. The bias is `slope * (key - query)`, at most 0.
    pub slopes: Vec<f64>,
    /// As Falcon's in Hugging Face (`build_alibi_tensor`), whose place of a key counts from the first that is not
    /// padding, the same for all queries: with slope, place and their product rounded to `bf16`, and the product
    /// divided by `scale` as scores are.
    pub bf16: bool,
}

impl Alibi {
    /// The slope of head `h`, as places are multiplied by it.
    pub(crate) fn slope(&self, h: usize) -> f64 {
        let slope = self.slopes[h];
        // Hugging Face has slopes in f32 before.
        if self.bf16 { rounded_to_bf16(slope as f32).into() } else { slope }
    }
}

/// The nearest `bf16`; of two, the even one.
#[inline(always)]
pub(crate) fn rounded_to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// The keys of one sequence of `key_mask` as they count: 1 for the first that is not padding, 2 for the next; 0 for
/// padding.
pub(crate) fn counted(mask: &[u32]) -> impl Iterator<Item = u32> {
    let mut count = 0;
    mask.iter().map(move |&m| {
        let seen = u32::from(m != 0);
        count += seen;
        count * seen
    })
}

/// Rotary position embedding of one tensor `[batch, pos, head, d_head]`.
#[derive(Clone, Debug)]
pub struct RotarySpec {
    /// cos of the angle, `[batch or 1, pos, rotary_dim / 2]`.
    pub cos: Tensor,
    /// sin of the angle, same shape.
    pub sin: Tensor,
    /// Pairs are (2i, 2i + 1) as in GPT-J; else (i, i + rotary_dim / 2) as in GPT-NeoX.
    pub interleaved: bool,
}

/// The numbers of one AdamW step (Loshchilov & Hutter 2019; PyTorch's `AdamW`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// 1 for the first step.
    pub step: u64,
}

impl AdamWStep {
    /// `1 - beta^step` of both moments: the share of its later size that each has at this step.
    pub(crate) fn corrections(&self) -> (f64, f64) {
        // Beyond that many steps the power has long been 0.
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        (1.0 - self.beta1.powi(step), 1.0 - self.beta2.powi(step))
    }
}

/// The ops of a device. Operands are on this device, of one dtype, and of shapes that
/// [`Tensor`]'s methods have checked; any of them may be strided. What is written in place was made
/// writable ([`Tensor::make_writable`]): it alone holds its memory, and every element once.
/// Reductions, norms, products, attention and indices are asked for only where operands have elements.
pub(crate) trait Backend {
    // Memory
    /// A tensor of values in row-major order, which are as many as `shape` has.
    #[expect(clippy::wrong_self_convention, reason = "a device is asked for it")]
    fn from_host(&self, values: Vec<f32>, shape: &[usize]) -> Tensor;
    /// The values of an `f32` tensor in row-major order.
    fn to_host(&self, x: &Tensor) -> Vec<f32>;
    fn full(&self, shape: &[usize], value: f64, dtype: DType) -> Tensor;
    fn contiguous(&self, x: &Tensor) -> Tensor;
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor;
    /// Writes `src`, broadcast, over the elements of `dst` that `region` (a layout within the
    /// memory of `dst` that repeats none) names.
    fn assign(&self, dst: &mut Tensor, region: &crate::Layout, src: &Tensor);
    fn cat(&self, parts: &[Tensor], axis: usize) -> Tensor;

    // Elementwise
    fn unary(&self, op: UnaryOp, x: Tensor) -> Tensor;
    /// `dy * op'(x)`
    fn unary_grad(&self, op: UnaryOp, x: &Tensor, dy: Tensor) -> Tensor;
    fn binary(&self, op: BinaryOp, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor;
    /// `a += b`, same shape.
    fn add_assign(&self, a: &mut Tensor, b: &Tensor);

    // Reductions
    fn reduce(&self, op: ReduceOp, x: &Tensor, axes: &[usize]) -> Tensor;
    fn argmax(&self, x: &Tensor) -> IndexTensor;
    /// One number, which stays on the device.
    fn sum_squares(&self, x: &Tensor) -> Tensor;
    fn all_finite(&self, x: &Tensor) -> bool;

    // Products
    fn matmul(&self, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor;
    /// `x @ w + bias + residual` of `x [rows, in]`, `w [in, out]`.
    fn linear(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor;

    // Rows
    fn softmax(&self, x: &Tensor) -> Tensor;
    fn softmax_grad(&self, y: &Tensor, dy: &Tensor) -> Tensor;
    fn log_softmax(&self, x: &Tensor) -> Tensor;
    fn log_softmax_grad(&self, y: &Tensor, dy: &Tensor) -> Tensor;
    fn center(&self, x: &Tensor) -> Tensor;
    fn rms(&self, x: &Tensor, eps: f64) -> Tensor;
    fn rms_grad(&self, x: &Tensor, scale: &Tensor, dscale: &Tensor) -> Tensor;
    fn scale_and_shift(&self, x: &Tensor, scale: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Tensor;
    fn norm(&self, x: &Tensor, center: bool, eps: f64, w: Option<&Tensor>, b: Option<&Tensor>) -> (Tensor, Tensor);
    /// Gradients of [`Backend::norm`] at `x`: of `x`, and of `w` and `b` where wanted.
    fn norm_grad(
        &self,
        x: &Tensor,
        center: bool,
        scale: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
        want_affine: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>);

    // Attention
    fn attention_scores(&self, q: &Tensor, k: &Tensor, spec: &AttentionSpec) -> Tensor;
    /// Gradients of [`Backend::attention_scores`] for `q` and `k`; nothing flows through hidden keys.
    fn attention_scores_grad(&self, q: &Tensor, k: &Tensor, spec: &AttentionSpec, dscores: &Tensor)
    -> (Tensor, Tensor);
    fn attention_values(&self, pattern: &Tensor, v: &Tensor) -> Tensor;
    fn attention_values_grad(&self, pattern: &Tensor, v: &Tensor, dz: &Tensor) -> (Tensor, Tensor);
    /// z, the same bits as scores, softmax and mix one after the other, and the pattern if it is asked for.
    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        spec: &AttentionSpec,
        with_pattern: bool,
    ) -> (Tensor, Option<Tensor>);
    fn attention_grad(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        spec: &AttentionSpec,
        pattern: &Tensor,
        dz: &Tensor,
    ) -> (Tensor, Tensor, Tensor);
    /// Rotates; `inverse` rotates back, which is also the gradient.
    fn rotary(&self, x: &Tensor, spec: &RotarySpec, inverse: bool) -> Tensor;

    // Indices
    fn embed(&self, table: &Tensor, ids: &IndexTensor) -> Tensor;
    fn embed_grad(&self, dy: &Tensor, ids: &IndexTensor, rows: usize) -> Tensor;
    /// Minus the log-probability of `targets`, per row of `logits [row, vocab]`.
    fn cross_entropy(&self, logits: &Tensor, targets: &IndexTensor) -> Tensor;
    fn cross_entropy_grad(&self, logits: &Tensor, targets: &IndexTensor, drow: &Tensor) -> Tensor;

    // Training
    /// `grad` is multiplied by the one number of `grad_scale` first (clipping); if that is not finite, nothing changes.
    fn adamw(
        &self,
        param: &mut Tensor,
        grad: &Tensor,
        grad_scale: &Tensor,
        m: &mut Tensor,
        v: &mut Tensor,
        step: &AdamWStep,
    );

    /// Waits until all that was asked for is done.
    fn finish(&self);
}
