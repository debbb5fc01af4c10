//! GPT-2 small's shape with random weights: what an analysis of a real model waits for.

use std::collections::BTreeMap;

use anyhow::Result;
use ironlens::lens::Metric;
use ironlens::lens::patching::{self, PatchOptions};
use ironlens::tensor::{Device, Rng, release_pooled_memory};
use ironlens::train::next_token_loss;
use ironlens::transformer::{ActFn, Config, HookedTransformer};

use super::peak::Peak;
use super::table::Table;
use super::timing::{Case, Seconds, in_turn};

fn shape() -> Config {
    Config {
        d_model: 768,
        d_head: 64,
        n_heads: 12,
        n_layers: 12,
        n_ctx: 1024,
        d_mlp: 3072,
        d_vocab: 50257,
        act_fn: ActFn::GeluNew,
        ..Config::default()
    }
}

/// Positions of a patching sweep.
const SWEEP: usize = 16;

/// `gpt2_forward_16`, `gpt2_forward_128`, `gpt2_forward_1024`, `gpt2_run_with_cache_128`, `gpt2_gradients_128` (of the
/// loss by every weight), and of 16 tokens `gpt2_patch_heads` and `gpt2_patch_resid_pre`.
pub fn work(device: &Device, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    // Every turn starts with the memory of a new process.
    release_pooled_memory();
    let model = HookedTransformer::new(shape(), device, 0)?;
    let tokens = |pos: usize, stream| Rng::new(1, stream).integers(&[1, pos], 0, model.config().d_vocab as u32);
    let (short, long) = (tokens(128, 0), tokens(1024, 1));
    let (clean, corrupted) = (tokens(SWEEP, 2), tokens(SWEEP, 3));
    let (_, cache) = model.run_with_cache(&clean)?;
    let metric = Metric::logit_diff(&[3], &[4])?;
    let forward = |tokens| -> Result<()> {
        model.forward(tokens)?;
        model.device().synchronize();
        Ok(())
    };
    // In the order of `bench/torch_gpt2.py`, whose peak of memory is compared, too.
    let cases = vec![
        Case::new("gpt2_gradients_128", || {
            model.call(&short).gradients(|out| next_token_loss(out.logits(), &short))?;
            Ok(())
        }),
        Case::new("gpt2_forward_16", || forward(&clean)),
        Case::new("gpt2_forward_128", || forward(&short)),
        Case::new("gpt2_forward_1024", || forward(&long)),
        Case::new("gpt2_run_with_cache_128", || {
            model.run_with_cache(&short)?;
            model.device().synchronize();
            Ok(())
        }),
        Case::new("gpt2_patch_heads", || {
            let options = PatchOptions::default();
            patching::get_act_patch_attn_head_out_all_pos(&model, &corrupted, &cache, &metric, options)?;
            Ok(())
        }),
        Case::new("gpt2_patch_resid_pre", || {
            patching::get_act_patch_resid_pre(&model, &corrupted, &cache, &metric, PatchOptions::default())?;
            Ok(())
        }),
    ];
    in_turn(cases, repeats)
}

/// What part of the peak the products of passes reach.
pub fn rates(timings: &BTreeMap<String, Seconds>, peak: &Peak) -> Result<Table> {
    let cfg = shape().resolved()?;
    let d = cfg.d_model;
    let weights = cfg.n_layers * (4 * d * d + 2 * d * cfg.d_mlp) + d * cfg.d_vocab;
    let mut table = Table::new(["pass", "GFLOP/s of products", "of the peak"]);
    for (name, pos, times) in
        [("gpt2_forward_128", 128, 1), ("gpt2_forward_1024", 1024, 1), ("gpt2_gradients_128", 128, 3)]
    {
        let Some(seconds) = timings.get(name) else { continue };
        // Attention counted whole: scores and values of every query and key.
        let attention = cfg.n_layers * 2 * cfg.n_heads * pos * cfg.d_head;
        let gflops = (times * 2 * pos * (weights + attention)) as f64 / seconds.median / 1e9;
        table.row([name.into(), format!("{gflops:.0}"), format!("{:.0} %", 100.0 * gflops / peak.gflops)]);
    }
    Ok(table)
}
