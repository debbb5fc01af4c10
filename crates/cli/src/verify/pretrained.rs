//! Cases of pretrained models: a folder `hf` as Hugging Face writes it, and what its model computes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ironlens::files::{Checkpoint, StoredTensor, TensorFile};
use ironlens::pretrained::{LoadOptions, Pretrained};
use ironlens::tensor::{DType, Device, IndexTensor, Tensor};
use ironlens::transformer::{GenerateOptions, HookedTransformer, PositionalEmbeddingType};

use super::GroupResult;
use super::case::{ids_of, read_tokens};
use super::groups::error_of;

/// Relative tolerances on the CPU; a GPU gets five times as much.
const LOGITS: f64 = 1e-5;
const STATE: f64 = 1e-6;
const PROCESSED_STATE: f64 = 2e-5;

/// Whether a folder is such a case.
pub fn is_case(dir: &Path) -> bool {
    dir.join("hf").is_dir() && dir.join("expected.safetensors").is_file()
}

/// Compares one case; gives its groups, and the expected tensors that no group knows.
pub fn compare(name: &str, dir: &Path, device: &Device, dtype: DType) -> Result<(Vec<GroupResult>, Vec<String>)> {
    let file = Checkpoint::open(dir.join("expected.safetensors"))?;
    let read = |t: &StoredTensor| -> Result<(String, Tensor)> {
        Ok((t.name.clone(), Tensor::from_vec(file.read_f32(&t.name)?, &t.shape, &Device::Cpu)))
    };
    let expected: BTreeMap<String, Tensor> = file.tensors().iter().map(read).collect::<Result<_>>()?;
    let tokens = read_tokens(&dir.join("inputs.safetensors"))?;
    let options = |o: LoadOptions| LoadOptions { device: device.clone(), dtype, ..o };
    let source = dir.join("hf").to_string_lossy().into_owned();
    let raw = HookedTransformer::from_pretrained_with(&source, &options(LoadOptions::no_processing()))?;
    let processed = HookedTransformer::from_pretrained_with(&source, &options(LoadOptions::default()))?;

    let mut results = Vec::new();
    let mut unknown = Vec::new();
    let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for key in expected.keys() {
        // Nothing reads it in ALiBi models, and TransformerLens leaves in it what was in memory.
        if raw.config().positional_embedding_type == PositionalEmbeddingType::Alibi && key.ends_with("pos_embed.W_pos")
        {
            continue;
        }
        let group = key.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
        groups.entry(group).or_default().push(key);
    }
    let factor = if *device == Device::Cpu { 1.0 } else { 5.0 };
    for (group, keys) in &groups {
        let (model, tolerance) = match group.as_str() {
            "hf/logits" | "tl/logits" | "tl/cache" => (&raw, LOGITS * factor),
            "hf/greedy" => (&raw, 0.0),
            "tl/state" => (&raw, STATE),
            "tl_processed/logits" => (&processed, LOGITS * factor),
            "tl_processed/state" => (&processed, PROCESSED_STATE),
            _ => {
                unknown.extend(keys.iter().map(|key| format!("{name}: {key}")));
                continue;
            }
        };
        let mut result = GroupResult {
            case: name.into(),
            group: group.clone(),
            tensors: keys.len(),
            error: 0.0,
            tolerance,
            place: String::new(),
            problem: None,
        };
        let mut cache = None;
        for key in keys {
            let error = match compute(model, group, key, &expected[*key], &tokens, &mut cache) {
                Ok(value) if value.shape() == expected[*key].shape() => error_of(&value, &expected[*key]),
                Ok(_) => f64::INFINITY,
                Err(error) => {
                    result.problem = Some(format!("{error:#}"));
                    f64::INFINITY
                }
            };
            if error > result.error || result.place.is_empty() {
                (result.error, result.place) = (error, key.to_string());
            }
        }
        results.push(result);
    }
    // Processing must not change what the model says.
    let mut result = GroupResult {
        case: name.into(),
        group: "processed/logprobs".into(),
        tensors: 1,
        error: 0.0,
        tolerance: LOGITS * factor,
        place: "hf/logits".into(),
        problem: None,
    };
    match processed.forward(&tokens) {
        Ok(logits) => result.error = error_of(&logits.log_softmax(), &expected["hf/logits"].log_softmax()),
        Err(error) => result.problem = Some(format!("{error:#}")),
    }
    results.push(result);
    Ok((results, unknown))
}

fn compute(
    model: &HookedTransformer,
    group: &str,
    key: &str,
    expected: &Tensor,
    tokens: &IndexTensor,
    cache: &mut Option<ironlens::transformer::ActivationCache>,
) -> Result<Tensor> {
    let name = key.strip_prefix(group).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    Ok(match group {
        "hf/greedy" => greedy(model, tokens, &ids_of(key, expected)?)?,
        "tl/state" | "tl_processed/state" => model.param(name)?,
        "tl/cache" => {
            if cache.is_none() {
                *cache = Some(model.run_with_cache(tokens)?.1);
            }
            cache.as_ref().context("the cache was made")?.get(name)?.clone()
        }
        _ => model.forward(tokens)?,
    })
}

/// The tokens, and as many of the likeliest ones after them as `expected` has: with a cache of keys and values, which
/// must agree with whole passes.
fn greedy(model: &HookedTransformer, tokens: &IndexTensor, expected: &IndexTensor) -> Result<Tensor> {
    let options = GenerateOptions {
        max_new_tokens: expected.shape()[1].saturating_sub(tokens.shape()[1]),
        stop_at_eos: false,
        ..GenerateOptions::greedy()
    };
    let cached = model.generate(tokens, &options)?.tokens;
    let whole = model.generate(tokens, &GenerateOptions { use_past_kv_cache: false, ..options })?.tokens;
    ensure!(cached == whole, "with a cache the tokens are {:?}, without {:?}", cached.as_slice(), whole.as_slice());
    Ok(cached.to_tensor(DType::F64, &Device::Cpu))
}
