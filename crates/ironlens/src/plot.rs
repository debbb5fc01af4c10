//! Figures of tensors; everything else is [`ironlens_report`]'s.

use ironlens_report::{Array, Figure, ToSeries, View, attention_layers};
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{ActivationCache, CacheError};

/// A heatmap of a matrix `[row, column]`, row 0 at the top.
///
/// ```
/// use ironlens::plot::imshow;
/// use ironlens::tensor::{DType, Device, Tensor};
/// let svg = imshow(&Tensor::eye(3, DType::F32, &Device::Cpu)).title("identity").to_svg()?;
/// assert!(svg.contains("identity"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn imshow(matrix: &Tensor) -> Figure {
    ironlens_report::imshow(to_array(matrix))
}

/// A curve, or several.
pub fn line(values: impl ToSeries) -> Figure {
    ironlens_report::line(values)
}

/// The attention of every head in a cache over the first of the sequences `tokens` that were run: thumbnails of
/// all heads, the pattern of one, and its tokens, as text where the model has a tokenizer.
///
/// ```
/// use ironlens::plot::attention;
/// use ironlens::prelude::*;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = std::env::temp_dir().join(format!("ironlens-attention-{}", std::process::id()));
/// let cfg = Config { d_model: 16, d_head: 8, n_layers: 2, n_ctx: 8, d_vocab: 20, act_fn: ActFn::Relu, ..Config::default() };
/// let model = HookedTransformer::new(cfg, &Device::Cpu, 42)?;
/// let tokens = IndexTensor::new(vec![0, 7, 3, 7, 3], &[1, 5]);
/// let (_, cache) = model.run_with_cache(&tokens)?;
/// attention(&cache, &tokens)?.save(dir.join("a.html"))?;
/// # std::fs::remove_dir_all(dir)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the cache lacks a layer's patterns, such as one that was made of other names.
pub fn attention(cache: &ActivationCache, tokens: &IndexTensor) -> Result<View, CacheError> {
    let model = cache.model();
    let length = tokens.shape().last().copied().unwrap_or(0);
    let ids = &tokens.as_slice()[..length.min(tokens.as_slice().len())];
    let texts = model.to_str_tokens(ids).unwrap_or_else(|_| ids.iter().map(u32::to_string).collect());
    let mut layers = Vec::new();
    for layer in 0..model.config().n_layers {
        let pattern = cache.get(("attn", layer))?;
        // A cache may have lost its batch axis.
        let first = if pattern.ndim() == 4 { pattern.select(0, 0) } else { pattern.clone() };
        layers.push(to_array(&first));
    }
    let view = attention_layers(texts, layers);
    let rows = tokens.as_slice().len() / length.max(1);
    Ok(if rows > 1 { view.caption(format!("The first of {rows} sequences.")) } else { view })
}

/// A tensor as plain numbers, for figures.
pub fn to_array(x: &Tensor) -> Array {
    Array::from_vec(x.shape(), x.to_vec()).expect("a tensor's values fill its shape")
}
