//! Patching sweeps: the notebook's model, and how the gain grows with depth.

use std::collections::BTreeMap;

use anyhow::Result;
use ironlens::lens::Metric;
use ironlens::lens::patching::{self, PatchOptions};
use ironlens::tensor::{Device, IndexTensor};
use ironlens::train::{Data, Preset, RandomTokens};
use ironlens::transformer::{ActivationCache, Config, HookedTransformer};

use super::table::Table;
use super::timing::{Case, Seconds, interleaved};
use crate::settings::DATA_SEED;

/// A clean run, and tokens with one other.
struct Pair {
    model: HookedTransformer,
    clean: ActivationCache,
    corrupted: IndexTensor,
    metric: Metric<'static>,
}

impl Pair {
    fn new(config: &Config, device: &Device) -> Result<Pair> {
        let model = HookedTransformer::new(config.clone(), device, 0)?;
        let tokens = RandomTokens::new(model.config(), DATA_SEED)?.batch(1)?;
        let mut corrupted = tokens.as_slice().to_vec();
        corrupted[5] = 7;
        let (_, clean) = model.run_with_cache(&tokens)?;
        let corrupted = IndexTensor::new(corrupted, tokens.shape());
        Ok(Pair { model, clean, corrupted, metric: Metric::logit_diff(&[3], &[4])? })
    }

    fn heads(&self, plain: bool) -> Result<()> {
        let options = PatchOptions { plain, ..Default::default() };
        let p = self;
        patching::get_act_patch_attn_head_out_all_pos(&p.model, &p.corrupted, &p.clean, &p.metric, options)?;
        Ok(())
    }

    fn residuals(&self, plain: bool) -> Result<()> {
        let options = PatchOptions { plain, ..Default::default() };
        let p = self;
        patching::get_act_patch_resid_pre(&p.model, &p.corrupted, &p.clean, &p.metric, options)?;
        Ok(())
    }
}

/// `patch_head_out_all_pos` and `patch_resid_pre` on the notebook's model, batch 1.
pub fn sweeps(config: &Config, device: &Device, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    let pair = Pair::new(config, device)?;
    let cases = vec![
        Case::new("patch_head_out_all_pos", || pair.heads(false)),
        Case::new("patch_resid_pre", || pair.residuals(false)),
    ];
    interleaved(cases, repeats)
}

/// The head sweep against one whole forward pass per cell, by number of layers.
pub fn by_depth(device: &Device, repeats: usize) -> Result<Table> {
    let mut table = Table::new(["layers", "cells", "rerun, ms", "plain, ms", "plain / rerun"]);
    for n_layers in [1, 2, 4, 8, 12] {
        let config = Config { n_layers, d_model: 256, d_mlp: 1024, ..Preset::Notebook.model() }.resolved()?;
        let pair = Pair::new(&config, device)?;
        let cases = vec![Case::new("rerun", || pair.heads(false)), Case::new("plain", || pair.heads(true))];
        let times = interleaved(cases, repeats)?;
        let (rerun, plain) = (times["rerun"].median, times["plain"].median);
        table.row([
            n_layers.to_string(),
            (n_layers * config.n_heads).to_string(),
            format!("{:.1}", rerun * 1e3),
            format!("{:.1}", plain * 1e3),
            format!("{:.1}x", plain / rerun),
        ]);
    }
    Ok(table)
}
