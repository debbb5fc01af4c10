//! Writing: a token at a time, on the shape of SmolLM2-135M with random weights.

use std::collections::BTreeMap;

use anyhow::Result;
use ironlens::tensor::profile::{self, Kernel};
use ironlens::tensor::{DType, Device, IndexTensor, Rng};
use ironlens::transformer::{
    ActFn, Config, HookedTransformer, KeyValueCache, LogitsAt, NormalizationType, PositionalEmbeddingType,
};

use super::peak::Peak;
use super::table::Table;
use super::timing::{Case, Seconds, interleaved};

/// A Llama of 30 layers with grouped queries: 163 million weights, of which a token reads 134 million and one row.
pub fn shape() -> Config {
    Config {
        d_model: 576,
        d_head: 64,
        n_heads: 9,
        n_key_value_heads: 3,
        n_layers: 30,
        n_ctx: 2048,
        d_mlp: 1536,
        d_vocab: 49152,
        act_fn: ActFn::Silu,
        normalization_type: NormalizationType::RMS,
        final_rms: true,
        gated_mlp: true,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        ..Config::default()
    }
}

/// Seconds of a step of `batch` sequences that are `len` long: of one token of each.
fn name(batch: usize, len: usize) -> String {
    format!("token_b{batch}_after_{len}")
}

const STEPS: [(usize, usize); 3] = [(1, 64), (1, 1024), (8, 64)];
/// A token of one sequence after 64, by matrices in 16 bits.
const STORED: &str = "token_b1_after_64_bf16";

/// Where the time of a token after 64 goes, and that of a prompt of 512: seconds, and kernel by kernel.
pub fn profiles(device: &Device) -> Result<[(&'static str, f64, Vec<Kernel>); 2]> {
    let model = HookedTransformer::new(shape(), device, 0)?;
    let mut past = having_read(&model, 1, 64)?;
    let (token, prompt) = (tokens(1, 1), tokens(1, 512));
    let (seconds, kernels) = recorded(|| read(&model, &token, &mut past))?;
    let (prompt_seconds, prompt_kernels) = recorded(|| read(&model, &prompt, &mut KeyValueCache::new(&model, 1)))?;
    Ok([("profile_token", seconds, kernels), ("profile_prompt", prompt_seconds, prompt_kernels)])
}

fn tokens(batch: usize, pos: usize) -> IndexTensor {
    Rng::new(1, 0).integers(&[batch, pos], 0, shape().d_vocab as u32)
}

/// What follows is read after the same tokens every time.
fn having_read(model: &HookedTransformer, batch: usize, len: usize) -> Result<KeyValueCache> {
    let mut past = KeyValueCache::new(model, batch);
    read(model, &tokens(batch, len), &mut past)?;
    past.freeze();
    Ok(past)
}

/// Reads tokens and chooses the next.
fn read(model: &HookedTransformer, tokens: &IndexTensor, past: &mut KeyValueCache) -> Result<()> {
    let out = model.call(tokens).past_kv_cache(past).logits_at(LogitsAt::Last).output()?;
    out.logits().value().argmax(2);
    Ok(())
}

/// Seconds and kernels of a warm run.
fn recorded(mut run: impl FnMut() -> Result<()>) -> Result<(f64, Vec<Kernel>)> {
    (0..3).try_for_each(|_| run())?;
    let start = std::time::Instant::now();
    let (result, kernels) = profile::record(run);
    result?;
    Ok((start.elapsed().as_secs_f64(), kernels))
}

/// `token_b1_after_64`, `token_b1_after_1024`, `token_b8_after_64`, `prompt_512`, and on the CPU
/// `token_b1_after_64_bf16`.
pub fn steps(device: &Device, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    let model = HookedTransformer::new(shape(), device, 0)?;
    let stored = (*device == Device::Cpu).then(|| {
        let mut stored = model.clone();
        stored.params_mut().store_as(DType::Bf16);
        stored
    });
    let prompt = tokens(1, 512);
    let mut cases = Vec::new();
    let all = STEPS.map(|(batch, len)| (name(batch, len), &model, batch, len));
    for (name, model, batch, len) in
        all.into_iter().chain(stored.iter().map(|stored| (STORED.to_string(), stored, 1, 64)))
    {
        let (mut past, token) = (having_read(model, batch, len)?, tokens(batch, 1));
        cases.push(Case::new(name, move || read(model, &token, &mut past)));
    }
    cases.push(Case::new("prompt_512", || read(&model, &prompt, &mut KeyValueCache::new(&model, 1))));
    interleaved(cases, repeats)
}

/// Tokens a second, and how far reading the weights once a step is from what memory gives.
pub fn rates(timings: &BTreeMap<String, Seconds>) -> Table {
    let reading = Peak::reading();
    let mut table = Table::new(["step", "tokens a second", "GB/s of weights", "of what memory gives"]);
    // All matrices but the embedding, of which a token reads one row.
    let cfg = shape();
    let (d, e) = (cfg.d_model, cfg.d_head);
    let layer = d * e * (2 * cfg.n_heads + 2 * cfg.n_key_value_heads) + 3 * d * cfg.d_mlp;
    let weights = (cfg.n_layers * layer + d * cfg.d_vocab) as f64;
    let all = STEPS.map(|(batch, len)| (name(batch, len), batch, 4.0));
    for (name, batch, bytes) in all.into_iter().chain([(STORED.to_string(), 1, 2.0)]) {
        let Some(seconds) = timings.get(&name) else { continue };
        let gbytes = bytes * weights / seconds.median / 1e9;
        table.row([
            name,
            format!("{:.1}", batch as f64 / seconds.median),
            format!("{gbytes:.1}"),
            format!("{:.0} %", 100.0 * gbytes / reading),
        ]);
    }
    if let Some(seconds) = timings.get("prompt_512") {
        table.row(["prompt_512".into(), format!("{:.1}", 512.0 / seconds.median), String::new(), String::new()]);
    }
    table.row(["reading memory".into(), String::new(), format!("{reading:.1}"), String::new()]);
    table
}
