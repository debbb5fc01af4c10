//! What the main directions of a matrix say in tokens (Millidge & Black 2022, "The Singular Value
//! Decompositions of Transformer Weight Matrices are Highly Interpretable").

use ironlens_tensor::Tensor;
use ironlens_transformer::HookedTransformer;

use crate::error::LensError;
use crate::factored::FactoredMatrix;
use crate::weights::{WeightsExt, widened};

/// A matrix whose directions can be read in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// `W_V W_O` of a head: layer and number.
    Ov(usize, usize),
    /// `W_in` of a layer, with the weights of `ln2` if they are not folded.
    WIn(usize),
    /// `W_out` of a layer.
    WOut(usize),
}

/// Singular values of a matrix, and its right singular vectors (directions of the residual stream)
/// unembedded.
#[derive(Clone, Debug)]
pub struct SingularVectors {
    /// `[n]`, falling.
    pub values: Tensor,
    /// `[d_vocab_out, n]`: how much each direction raises each token's logit. TransformerLens's
    /// `get_singular_vectors` without its axis of length 1; a sign is arbitrary, as in every SVD.
    pub logits: Tensor,
}

/// The first `n` singular directions of a matrix.
///
/// # Errors
/// If the model has no such matrix, or it has fewer directions.
pub fn singular_vectors(model: &HookedTransformer, matrix: Matrix, n: usize) -> Result<SingularVectors, LensError> {
    let cfg = model.config();
    let (values, v) = match matrix {
        Matrix::Ov(layer, head) => {
            if layer >= cfg.n_layers || head >= cfg.n_heads() {
                let expected = format!("a layer below {} and a head below {}", cfg.n_layers, cfg.n_heads());
                return Err(LensError::argument("the matrix", format!("{matrix:?}"), expected));
            }
            let svd = FactoredMatrix::new(model.w_v()?, model.w_o()?).at(layer).at(head).svd();
            (svd.s, svd.v)
        }
        Matrix::WIn(layer) => {
            LensError::unless_mlp(cfg, layer, "the directions of W_in")?;
            let w = widened(model.param(&format!("blocks.{layer}.mlp.W_in"))?).t();
            let w = model.param(&format!("blocks.{layer}.ln2.w")).map_or(w.clone(), |ln| &w * &ln);
            right_vectors(&w)
        }
        Matrix::WOut(layer) => {
            LensError::unless_mlp(cfg, layer, "the directions of W_out")?;
            right_vectors(&widened(model.param(&format!("blocks.{layer}.mlp.W_out"))?))
        }
    };
    if n > values.dim(0) {
        return Err(LensError::argument(
            "the number of directions",
            n.to_string(),
            format!("at most {}", values.dim(0)),
        ));
    }
    let v = v.narrow(1, 0, n);
    Ok(SingularVectors { values: values.narrow(0, 0, n), logits: widened(model.w_u()?).t().matmul(&v) })
}

/// Singular values, and right singular vectors `[columns, rank]`, of `[rows, columns]`; NaN where that
/// is not finite.
fn right_vectors(w: &Tensor) -> (Tensor, Tensor) {
    let (_, s, vh) = w.svd();
    (s, vh.t())
}
