//! Writing: a token at a time, on the shape of SmolLM2-135M with random weights.

use std::collections::BTreeMap;

use anyhow::Result;
use ironlens::tensor::{Device, Rng};
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

/// `token_b1_after_64`, `token_b1_after_1024`, `token_b8_after_64`, and `prompt_512`.
pub fn steps(device: &Device, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    let model = HookedTransformer::new(shape(), device, 0)?;
    let d_vocab = model.config().d_vocab as u32;
    let tokens = |batch: usize, pos: usize| Rng::new(1, 0).integers(&[batch, pos], 0, d_vocab);
    let prompt = tokens(1, 512);
    let mut cases = Vec::new();
    for (batch, len) in STEPS {
        let mut past = KeyValueCache::new(&model, batch);
        model.call(&tokens(batch, len)).past_kv_cache(&mut past).logits_at(LogitsAt::Last).output()?;
        // Every run reads the same token after the same ones.
        past.freeze();
        let (model, token) = (&model, tokens(batch, 1));
        cases.push(Case::new(name(batch, len), move || {
            let out = model.call(&token).past_kv_cache(&mut past).logits_at(LogitsAt::Last).output()?;
            out.logits().value().argmax(2);
            Ok(())
        }));
    }
    cases.push(Case::new("prompt_512", || {
        let mut past = KeyValueCache::new(&model, 1);
        let out = model.call(&prompt).past_kv_cache(&mut past).logits_at(LogitsAt::Last).output()?;
        out.logits().value().argmax(2);
        Ok(())
    }));
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
    let bytes = 4.0 * (cfg.n_layers * layer + d * cfg.d_vocab) as f64;
    for (batch, len) in STEPS {
        let Some(seconds) = timings.get(&name(batch, len)) else { continue };
        let gbytes = bytes / seconds.median / 1e9;
        table.row([
            name(batch, len),
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
