//! One reference case, loaded.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use ironlens::files::{Dtype, SafeTensorsFile};
use ironlens::tensor::{DType, Device, IndexTensor, Tensor};
use ironlens::transformer::{Config, HookedTransformer, read_tensors};

use crate::input::read_text;

/// A model with its weights, the tokens it reads, and what it should give.
pub struct Case {
    pub model: HookedTransformer,
    pub tokens: IndexTensor,
    pub expected: BTreeMap<String, Tensor>,
}

impl Case {
    pub fn load(dir: &Path, device: &Device, dtype: DType) -> Result<Case> {
        let path = dir.join("config.json");
        let text = read_text(&path, "the configuration")?;
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

/// Token ids `[batch, pos]`.
pub fn read_tokens(path: &Path) -> Result<IndexTensor> {
    let file = SafeTensorsFile::open(path)?;
    read_ids(&file, "tokens")?.with_context(|| format!("{} has no `tokens`", path.display()))
}

/// Ids or masks `[batch, pos]` by name, if they are there.
pub fn read_ids(file: &SafeTensorsFile, name: &str) -> Result<Option<IndexTensor>> {
    let (Some(info), path) = (file.get(name), file.path().display()) else { return Ok(None) };
    if info.shape.len() != 2 || info.shape.contains(&0) {
        bail!("{path}: `{name}` has shape {:?}, expected [batch, pos], neither of them 0", info.shape);
    }
    let bytes = file.read(name)?;
    let ids: Vec<i64> = match info.dtype {
        Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        Dtype::I32 => bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
        other => bail!("{path}: `{name}` is of type {other:?}, expected int64"),
    };
    let id = |id: i64| u32::try_from(id).map_err(|_| anyhow!("{path}: {id} in `{name}` is not an id"));
    Ok(Some(IndexTensor::new(ids.into_iter().map(id).collect::<Result<Vec<_>>>()?, &info.shape)))
}

/// Token ids that a case keeps as numbers, `[.., pos]`.
pub fn ids_of(name: &str, given: &Tensor) -> Result<IndexTensor> {
    let id = |v: f32| match v.fract() == 0.0 && (0.0..16_777_216.0).contains(&v) {
        true => Ok(v as u32),
        false => bail!("{name}: {v} is not a token id"),
    };
    Ok(IndexTensor::new(given.to_vec().into_iter().map(id).collect::<Result<Vec<_>>>()?, given.shape()))
}
