//! Weights by kind, over all layers: stacked, multiplied into circuits, compared.
//!
//! Methods of [`HookedTransformer`], through [`WeightsExt`]; TransformerLens's properties and methods
//! of the same names, in lower case.

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::HookedTransformer;

use crate::error::LensError;
use crate::factored::FactoredMatrix;
use crate::residual::residual_directions;

/// How one head can build on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Composition {
    /// Its queries read what the earlier head writes.
    Q,
    /// Its keys do.
    K,
    /// Its values do.
    V,
}

macro_rules! stacked {
    ($($(#[$doc:meta])* $method:ident: $name:literal;)*) => {
        /// Weights over all layers, and what follows from them.
        pub trait WeightsExt {
            /// Parameter `name` of every block, such as `attn.W_O`, `[layer, ..]`.
            ///
            /// # Errors
            /// If the model has none of that name, or experts where it has an MLP's.
            fn stack_param(&self, name: &str) -> Result<Tensor, LensError>;

            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// If the model has none.
                fn $method(&self) -> Result<Tensor, LensError> {
                    self.stack_param($name)
                }
            )*

            /// `W_E` `[d_vocab, d_model]`.
            ///
            /// # Errors
            /// Never, for a model.
            fn w_e(&self) -> Result<Tensor, LensError>;

            /// `W_pos` `[n_ctx, d_model]`.
            ///
            /// # Errors
            /// If the model has no position embedding.
            fn w_pos(&self) -> Result<Tensor, LensError>;

            /// `W_E` and `W_pos`, one over the other, `[d_vocab + n_ctx, d_model]`.
            ///
            /// # Errors
            /// As [`WeightsExt::w_pos`].
            fn w_e_pos(&self) -> Result<Tensor, LensError> {
                Ok(Tensor::cat(&[self.w_e()?, self.w_pos()?], 0))
            }

            /// `W_U` `[d_model, d_vocab_out]`.
            ///
            /// # Errors
            /// Never, for a model.
            fn w_u(&self) -> Result<Tensor, LensError>;

            /// `b_U` `[d_vocab_out]`.
            ///
            /// # Errors
            /// Never, for a model.
            fn b_u(&self) -> Result<Tensor, LensError>;

            /// `W_Q W_K^T` of every head, `[layer, head, d_model, d_model]`: what it attends from and
            /// to (without positions, biases and scale).
            ///
            /// # Errors
            /// Never, for a model.
            fn qk(&self) -> Result<FactoredMatrix, LensError> {
                Ok(FactoredMatrix::new(self.w_q()?, self.w_k()?.t()))
            }

            /// `W_V W_O` of every head, `[layer, head, d_model, d_model]`: what it moves.
            ///
            /// # Errors
            /// Never, for a model.
            fn ov(&self) -> Result<FactoredMatrix, LensError> {
                Ok(FactoredMatrix::new(self.w_v()?, self.w_o()?))
            }

            /// How much each head builds on each head of an earlier layer, `[layer, head, layer,
            /// head]` with the earlier first, 0 elsewhere: `|L R| / (|L| |R|)` in Frobenius norms
            /// (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
            ///
            /// # Errors
            /// Never, for a model.
            fn all_composition_scores(&self, mode: Composition) -> Result<Tensor, LensError>;

            /// Sum of the biases `b_O` and (with `mlp_biases`) `b_out` of all layers before `layer`,
            /// with `mlp_input` also `b_O` of that layer, `[d_model]`.
            ///
            /// # Errors
            /// If the layer does not exist, or biases of MLPs are asked for where there are experts.
            fn accumulated_bias(&self, layer: usize, mlp_input: bool, mlp_biases: bool) -> Result<Tensor, LensError>;

            /// `L0H0`, `L0H1`, ..
            fn all_head_labels(&self) -> Vec<String>;

            /// The direction of the residual stream that is the logit of each token: columns of `W_U`,
            /// `[tokens.., d_model]`. Tokens are given as ids, or as texts that are one token each.
            ///
            /// # Errors
            /// If a token does not exist, a text is none or several, or the model has no tokenizer for it.
            fn tokens_to_residual_directions(&self, tokens: impl Into<TokenNames>) -> Result<Tensor, LensError>;
        }
    };
}

stacked! {
    /// `[layer, head, d_model, d_head]`
    w_q: "attn.W_Q";
    /// `[layer, head, d_model, d_head]`, one for each head also where heads share them
    w_k: "attn.W_K";
    /// `[layer, head, d_model, d_head]`, one for each head also where heads share them
    w_v: "attn.W_V";
    /// `[layer, head, d_head, d_model]`
    w_o: "attn.W_O";
    /// `[layer, head, d_head]`
    b_q: "attn.b_Q";
    /// `[layer, head, d_head]`
    b_k: "attn.b_K";
    /// `[layer, head, d_head]`
    b_v: "attn.b_V";
    /// `[layer, d_model]`
    b_o: "attn.b_O";
    /// `[layer, d_model, d_mlp]`
    w_in: "mlp.W_in";
    /// `[layer, d_model, d_mlp]`
    w_gate: "mlp.W_gate";
    /// `[layer, d_mlp, d_model]`
    w_out: "mlp.W_out";
    /// `[layer, d_mlp]`
    b_in: "mlp.b_in";
    /// `[layer, d_model]`
    b_out: "mlp.b_out";
}

/// A weight to be computed with by itself: in `f32` where it is stored in 16 bits.
pub(crate) fn widened(weight: Tensor) -> Tensor {
    weight.to_dtype(weight.dtype().computed())
}

impl WeightsExt for HookedTransformer {
    fn stack_param(&self, name: &str) -> Result<Tensor, LensError> {
        let cfg = self.config();
        let shared = ["attn.W_K", "attn.W_V", "attn.b_K", "attn.b_V"].contains(&name) && cfg.is_grouped_query();
        let stored = if shared { name.replacen("attn.", "attn._", 1) } else { name.to_string() };
        if name.starts_with("mlp.") {
            (0..cfg.n_layers).try_for_each(|l| LensError::unless_mlp(cfg, l, name))?;
        }
        let parts: Vec<Tensor> =
            (0..cfg.n_layers).map(|l| self.param(&format!("blocks.{l}.{stored}"))).collect::<Result<_, _>>()?;
        let stack = Tensor::stack(&parts, 0);
        if !shared {
            return Ok(stack);
        }
        // Every head with the entry of its group.
        let times = cfg.n_heads() / cfg.n_key_value_heads();
        let mut shape = stack.shape().to_vec();
        shape.insert(2, times);
        let repeated = stack.unsqueeze(2).expand(&shape);
        shape.remove(2);
        shape[1] *= times;
        Ok(repeated.reshape(&shape))
    }

    fn w_e(&self) -> Result<Tensor, LensError> {
        Ok(self.param("embed.W_E")?)
    }

    fn w_pos(&self) -> Result<Tensor, LensError> {
        Ok(self.param("pos_embed.W_pos")?)
    }

    fn w_u(&self) -> Result<Tensor, LensError> {
        Ok(self.param("unembed.W_U")?)
    }

    fn b_u(&self) -> Result<Tensor, LensError> {
        Ok(self.param("unembed.b_U")?)
    }

    fn all_composition_scores(&self, mode: Composition) -> Result<Tensor, LensError> {
        let left = self.ov()?;
        let right = match mode {
            Composition::Q => self.qk()?,
            Composition::K => self.qk()?.t(),
            Composition::V => self.ov()?,
        };
        let scores = composition_scores(&left, &right);
        let (layers, heads) = (self.config().n_layers, self.config().n_heads());
        let mut masked = scores.to_vec_f64();
        for (i, v) in masked.iter_mut().enumerate() {
            let (from, to) = (i / (heads * layers * heads), i / heads % layers);
            if from >= to {
                *v = 0.0;
            }
        }
        Ok(Tensor::from_vec_f64(masked, scores.shape()).to_dtype(self.params().dtype()).to_device(self.device()))
    }

    fn accumulated_bias(&self, layer: usize, mlp_input: bool, mlp_biases: bool) -> Result<Tensor, LensError> {
        let cfg = self.config();
        let attn_to = layer + usize::from(mlp_input);
        if attn_to > cfg.n_layers {
            return Err(LensError::argument("layer", layer.to_string(), format!("at most {}", cfg.n_layers)));
        }
        let mut sum = Tensor::zeros(&[cfg.d_model], self.params().dtype(), self.device());
        for l in 0..attn_to {
            sum += self.param(&format!("blocks.{l}.attn.b_O"))?;
            if mlp_biases && !cfg.attn_only && l < layer {
                LensError::unless_mlp(cfg, l, "its bias")?;
                sum += self.param(&format!("blocks.{l}.mlp.b_out"))?;
            }
        }
        Ok(sum)
    }

    fn all_head_labels(&self) -> Vec<String> {
        self.config().head_labels()
    }

    fn tokens_to_residual_directions(&self, tokens: impl Into<TokenNames>) -> Result<Tensor, LensError> {
        residual_directions(self, &tokens.into().ids(self)?)
    }
}

/// Tokens, by their ids or as texts.
#[derive(Clone, Debug)]
pub enum TokenNames {
    /// Ids of any shape.
    Ids(IndexTensor),
    /// One text, which is one token.
    Text(String),
    /// Texts, each of which is one token.
    Texts(Vec<String>),
}

impl TokenNames {
    /// Ids: `[]` of one text, `[text]` of several.
    pub(crate) fn ids(self, model: &HookedTransformer) -> Result<IndexTensor, LensError> {
        Ok(match self {
            TokenNames::Ids(ids) => ids,
            TokenNames::Text(text) => IndexTensor::new(vec![model.to_single_token(&text)?], &[]),
            TokenNames::Texts(texts) => {
                let ids = texts.iter().map(|t| model.to_single_token(t)).collect::<Result<Vec<u32>, _>>()?;
                let count = ids.len();
                IndexTensor::new(ids, &[count])
            }
        })
    }
}

impl From<&IndexTensor> for TokenNames {
    fn from(ids: &IndexTensor) -> TokenNames {
        TokenNames::Ids(ids.clone())
    }
}

impl From<u32> for TokenNames {
    fn from(id: u32) -> TokenNames {
        TokenNames::Ids(IndexTensor::new(vec![id], &[]))
    }
}

impl From<&str> for TokenNames {
    fn from(text: &str) -> TokenNames {
        TokenNames::Text(text.into())
    }
}

impl<S: AsRef<str>> From<&[S]> for TokenNames {
    fn from(texts: &[S]) -> TokenNames {
        TokenNames::Texts(texts.iter().map(|t| t.as_ref().to_string()).collect())
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for TokenNames {
    fn from(texts: [S; N]) -> TokenNames {
        texts.as_slice().into()
    }
}

/// `|left right| / (|left| |right|)` for every matrix of `left` and every one of `right`, in
/// Frobenius norms: `[left.., right..]`.
///
/// # Panics
/// If the inner sizes differ.
#[track_caller]
pub fn composition_scores(left: &FactoredMatrix, right: &FactoredMatrix) -> Tensor {
    assert!(left.rdim() == right.ldim(), "composition of {:?} and {:?}", left.shape(), right.shape());
    // |A B| is that of B's rows in A's singular basis, so small factors do.
    let (l, r) = (left.collapse_l(), right.collapse_r());
    let flat = |t: &Tensor| {
        let n = t.ndim();
        t.reshape(&[t.shape()[..n - 2].iter().product(), t.dim(n - 2), t.dim(n - 1)])
    };
    let (fl, fr) = (flat(&l), flat(&r));
    let norms = |t: &Tensor| t.square().sum(&[1, 2]).sqrt().to_vec_f64();
    let (ln, rn) = (norms(&fl), norms(&fr));
    let mut scores = Vec::with_capacity(ln.len() * rn.len());
    for (i, ln) in ln.iter().enumerate() {
        let products = norms(&fl.narrow(0, i, 1).matmul(&fr));
        scores.extend(products.iter().zip(&rn).map(|(p, rn)| p / rn / ln));
    }
    let mut shape = l.shape()[..l.ndim() - 2].to_vec();
    shape.extend(&r.shape()[..r.ndim() - 2]);
    Tensor::from_vec_f64(scores, &shape).to_dtype(l.dtype()).to_device(&l.device())
}
