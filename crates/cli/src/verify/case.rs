//! One reference case, loaded.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_transformer::{Config, HookedTransformer, read_tensors};
use safetensors::{Dtype, SafeTensors};

/// A model with its weights, the tokens it reads, and what it should give.
pub struct Case {
    pub model: HookedTransformer,
    pub tokens: IndexTensor,
    pub expected: BTreeMap<String, Tensor>,
}

impl Case {
    pub fn load(dir: &Path, device: &Device, dtype: DType) -> Result<Case> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let cfg = Config::from_json(&text).with_context(|| path.display().to_string())?;
        let mut model = HookedTransformer::new(Config { init_weights: false, ..cfg }, &Device::Cpu, 0)?;
        model.load_weights(dir.join("weights.safetensors"))?;
        let model = model.to_device(device).to_dtype(dtype);
        let tokens = read_tokens(&dir.join("inputs.safetensors"))?;
        let expected = read_tensors(&dir.join("expected.safetensors"))?;
        Ok(Case { model, tokens, expected })
    }

    /// Whether the gradient of key biases is zero: softmax does not see a shift of all scores of a
    /// query, unless keys are rotated, normalised, or scores are squashed.
    pub fn key_bias_is_idle(&self) -> bool {
        let cfg = self.model.config();
        cfg.rotary_dim() == 0 && !cfg.use_qk_norm && cfg.attn_scores_soft_cap <= 0.0
    }

    /// How much of a key is rotated, if that alone decides which part of its bias has a gradient.
    pub fn rotated_key_width(&self) -> Option<usize> {
        let cfg = self.model.config();
        let partly = (1..cfg.d_head).contains(&cfg.rotary_dim());
        (partly && !cfg.use_qk_norm && cfg.attn_scores_soft_cap <= 0.0).then(|| cfg.rotary_dim())
    }
}

fn read_tokens(path: &Path) -> Result<IndexTensor> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).with_context(|| path.display().to_string())?;
    let view = file.tensor("tokens").with_context(|| format!("{} has no `tokens`", path.display()))?;
    let bad = |id: i64| anyhow::anyhow!("{}: token {id} is not an id", path.display());
    let ids: Result<Vec<u32>> = match view.dtype() {
        Dtype::I64 => view
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| u32::try_from(i64::from_le_bytes(*b)).map_err(|_| bad(i64::from_le_bytes(*b))))
            .collect(),
        Dtype::I32 => view
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| u32::try_from(i32::from_le_bytes(*b)).map_err(|_| bad(i32::from_le_bytes(*b).into())))
            .collect(),
        other => bail!("{}: `tokens` is of type {other:?}, expected int64", path.display()),
    };
    Ok(IndexTensor::new(ids?, view.shape()))
}
