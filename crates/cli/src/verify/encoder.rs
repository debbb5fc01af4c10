//! Cases of encoders: a folder `hf` as Hugging Face writes it, and what its model computes with it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ironlens::files::{Checkpoint, SafeTensorsFile, StoredTensor, TensorFile};
use ironlens::pretrained::{LoadOptions, Pretrained, is_encoder};
use ironlens::tensor::{DType, Device, IndexTensor, Tensor};
use ironlens::transformer::{ActivationCache, EncoderCall, Head, HookedEncoder, ParamGradients, Pooling, Sentences};

use super::GroupResult;
use super::case::read_ids;
use super::groups::error_of;

/// Relative tolerances on the CPU; a GPU gets five times as much.
const VALUES: f64 = 1e-5;
const STATE: f64 = 1e-6;
const GRADIENTS: f64 = 2e-5;

/// Whether a folder is such a case.
pub fn is_case(dir: &Path) -> bool {
    let hf = dir.join("hf");
    dir.join("expected.safetensors").is_file()
        && hf.is_dir()
        && is_encoder(hf.to_string_lossy(), &LoadOptions::default()).unwrap_or(false)
}

/// A model, what it reads, and what was computed before.
struct Case {
    model: HookedEncoder,
    tokens: IndexTensor,
    types: Option<IndexTensor>,
    mask: Option<IndexTensor>,
    caches: BTreeMap<&'static str, ActivationCache<HookedEncoder>>,
    gradients: Option<(f64, ParamGradients)>,
}

/// Compares one case; gives its groups, and the expected tensors that no group knows.
pub fn compare(name: &str, dir: &Path, device: &Device, dtype: DType) -> Result<(Vec<GroupResult>, Vec<String>)> {
    let file = Checkpoint::open(dir.join("expected.safetensors"))?;
    let read = |t: &StoredTensor| -> Result<(String, Tensor)> {
        Ok((t.name.clone(), Tensor::from_vec(file.read_f32(&t.name)?, &t.shape, &Device::Cpu)))
    };
    let expected: BTreeMap<String, Tensor> = file.tensors().iter().map(read).collect::<Result<_>>()?;
    let options = LoadOptions { device: device.clone(), dtype, ..LoadOptions::default() };
    let path = dir.join("inputs.safetensors");
    let inputs = SafeTensorsFile::open(&path)?;
    let mut case = Case {
        model: HookedEncoder::from_pretrained_with(dir.join("hf").to_string_lossy(), &options)?,
        tokens: read_ids(&inputs, "tokens")?.with_context(|| format!("{} has no `tokens`", path.display()))?,
        types: read_ids(&inputs, "token_type_ids")?,
        mask: read_ids(&inputs, "attention_mask")?,
        caches: BTreeMap::new(),
        gradients: None,
    };
    let factor = if *device == Device::Cpu { 1.0 } else { 5.0 };
    let mut results: BTreeMap<String, GroupResult> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (key, value) in &expected {
        let parts: Vec<&str> = key.splitn(3, '/').collect();
        let tolerance = match parts[..] {
            ["hf", "last_hidden_state" | "logits" | "pooler_output" | "nsp"] => VALUES * factor,
            ["tl", "logits" | "nsp" | "grad_loss"] | ["tl" | "tl_nsp", "cache", _] | ["sentence", _] => VALUES * factor,
            ["tl", "state", _] => STATE,
            // What the keys' biases add to all scores of a query changes nothing.
            ["tl", "grad", weight] if weight.ends_with("b_K") => continue,
            ["tl", "grad", _] => GRADIENTS * factor,
            _ => {
                unknown.push(format!("{name}: {key}"));
                continue;
            }
        };
        let group = parts[..2].join("/");
        let result = results.entry(group.clone()).or_insert_with(|| GroupResult {
            case: name.into(),
            group,
            tensors: 0,
            error: 0.0,
            tolerance,
            place: key.clone(),
            problem: None,
        });
        result.tensors += 1;
        let error = match case.compute(&parts) {
            Ok(found) if found.shape() == value.shape() => error_of(&found, value),
            Ok(_) => f64::INFINITY,
            Err(error) => {
                result.problem = Some(format!("{error:#}"));
                f64::INFINITY
            }
        };
        if error > result.error {
            (result.error, result.place) = (error, key.clone());
        }
    }
    Ok((results.into_values().collect(), unknown))
}

impl Case {
    fn call(&self, head: Head) -> EncoderCall<'_, 'static> {
        let mut call = self.model.call(&self.tokens).head(head);
        if let Some(types) = &self.types {
            call = call.token_types(types);
        }
        if let Some(mask) = &self.mask {
            call = call.attention_mask(mask);
        }
        call
    }

    /// The tensor of this name.
    fn compute(&mut self, parts: &[&str]) -> Result<Tensor> {
        let output = |head| Ok::<_, anyhow::Error>(self.call(head).output()?);
        let value = match parts {
            ["hf", "last_hidden_state"] => output(Head::None)?.residual,
            [_, "logits"] => output(Head::MaskedLanguage)?.logits().clone(),
            ["hf", "pooler_output"] => output(Head::Pooler)?.pooled().clone(),
            [_, "nsp"] => output(Head::NextSentence)?.next_sentence().clone(),
            ["sentence", how] => return Ok(self.call(Head::None).sentence_embeddings(sentences(&self.model, how)?)?),
            ["tl", "state", weight] => return Ok(self.model.param(weight)?),
            ["tl", "cache", hook] => return Ok(self.cache("masked", Head::MaskedLanguage)?.get(*hook)?.clone()),
            ["tl_nsp", "cache", hook] => return Ok(self.cache("next", Head::NextSentence)?.get(*hook)?.clone()),
            ["tl", "grad", weight] => {
                let grad = self.gradients()?.1.get(weight);
                return grad.with_context(|| format!("the loss does not depend on {weight}"));
            }
            ["tl", "grad_loss"] => return Ok(Tensor::scalar(self.gradients()?.0, DType::F64, &Device::Cpu)),
            _ => bail!("nothing is known of it"),
        };
        Ok(value.value().clone())
    }

    fn cache(&mut self, name: &'static str, head: Head) -> Result<&ActivationCache<HookedEncoder>> {
        if !self.caches.contains_key(name) {
            let cache = self.call(head).cached()?.1;
            self.caches.insert(name, cache);
        }
        Ok(&self.caches[name])
    }

    /// Of the cross-entropy of each token's own prediction, their mean.
    fn gradients(&mut self) -> Result<&(f64, ParamGradients)> {
        if self.gradients.is_none() {
            let tokens = &self.tokens;
            let call = self.call(Head::MaskedLanguage);
            let gradients = call.gradients(|out| out.logits().cross_entropy(tokens).mean_all())?;
            self.gradients = Some(gradients);
        }
        self.gradients.as_ref().context("they were computed")
    }
}

fn sentences(model: &HookedEncoder, how: &str) -> Result<Sentences> {
    let pooling = match how {
        "default" => return Ok(model.sentences()),
        "mean" => Pooling::Mean,
        "cls" => Pooling::Cls,
        "max" => Pooling::Max,
        _ => bail!("{how:?} is no pooling that is known"),
    };
    Ok(Sentences { pooling, normalize: false })
}
