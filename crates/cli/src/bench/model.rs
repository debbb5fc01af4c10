//! The work of a user: training steps, forward passes, caches.

use std::collections::BTreeMap;

use anyhow::Result;
use ironlens::nn::Hooks;
use ironlens::tensor::profile::{self, Kernel};
use ironlens::tensor::{Device, IndexTensor};
use ironlens::train::{Data, LanguageModel, Optimizer, RandomTokens, TrainConfig, previous_token_loss, train_step};
use ironlens::transformer::{Config, HookedTransformer};

use super::timing::{Case, Seconds, interleaved};
use crate::settings::DATA_SEED;

/// A model in training.
pub struct Trained {
    model: HookedTransformer,
    optimizer: Optimizer,
    data: RandomTokens,
    batch: usize,
    train: TrainConfig,
}

impl Trained {
    pub fn new(config: Config, batch: usize, device: &Device) -> Result<Trained> {
        let train = TrainConfig::notebook();
        let model = HookedTransformer::new(config, device, 0)?;
        let data = RandomTokens::new(model.config(), DATA_SEED)?;
        let optimizer = Optimizer::adamw(train.betas, train.eps, train.weight_decay);
        Ok(Trained { model, optimizer, data, batch, train })
    }

    /// One step of the notebook's loop, to its end.
    pub fn step(&mut self) -> Result<()> {
        let tokens = self.data.batch(self.batch)?;
        let mut learner = LanguageModel::new(&mut self.model, previous_token_loss);
        train_step(&mut learner, &mut self.optimizer, &tokens, self.train.lr, self.train.clip())?;
        self.model.device().synchronize();
        Ok(())
    }

    /// Where the time of a warm step goes, and its seconds.
    pub fn profile(&mut self) -> Result<(f64, Vec<Kernel>)> {
        (0..3).try_for_each(|_| self.step())?;
        let start = std::time::Instant::now();
        let (result, kernels) = profile::record(|| self.step());
        result?;
        Ok((start.elapsed().as_secs_f64(), kernels))
    }
}

/// Floating-point operations of the matrix products of one training step, attention counted
/// whole (as PyTorch computes it): three times a forward pass.
pub fn step_flops(cfg: &Config, batch: usize) -> f64 {
    let (d, e, h) = (cfg.d_model, cfg.d_head, cfg.n_heads);
    let kv = cfg.n_key_value_heads();
    let mlp = if cfg.attn_only { 0 } else { d * cfg.d_mlp * if cfg.gated_mlp { 3 } else { 2 } };
    let weights = cfg.n_layers * (d * e * (2 * h + 2 * kv) + mlp) + d * cfg.d_vocab_out;
    let attention = cfg.n_layers * 2 * h * cfg.n_ctx * e;
    3.0 * 2.0 * (batch * cfg.n_ctx) as f64 * (weights + attention) as f64
}

/// What one warm training step asks of a GPU; nothing on the CPU.
pub fn gpu_cost(config: &Config, device: &Device) -> Result<Vec<(&'static str, f64)>> {
    #[cfg(feature = "gpu")]
    if let Device::Gpu(gpu) = device {
        let mut trained = Trained::new(config.clone(), 8, device)?;
        (0..2).try_for_each(|_| trained.step())?;
        let before = gpu.counts();
        trained.step()?;
        let after = gpu.counts();
        let per_step = |a: u64, b: u64| (a - b) as f64;
        return Ok(vec![
            ("gpu_dispatches_per_step", per_step(after.dispatches, before.dispatches)),
            ("gpu_submits_per_step", per_step(after.submits, before.submits)),
            ("gpu_reads_per_step", per_step(after.reads, before.reads)),
            ("gpu_uploaded_bytes_per_step", per_step(after.uploaded, before.uploaded)),
            ("gpu_peak_memory_mib", (gpu.memory().peak_bytes >> 20) as f64),
        ]);
    }
    let _ = (config, device);
    Ok(Vec::new())
}

/// `train_step`, batch 8.
pub fn step(config: &Config, device: &Device, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    let mut trained = Trained::new(config.clone(), 8, device)?;
    interleaved(vec![Case::new("train_step", || trained.step())], repeats)
}

/// `forward_b1` and `forward_b8`; and the same with a hook that does nothing at one hook point,
/// which shows what the idle ones cost.
pub fn forward(config: &Config, device: &Device, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    let (model, batches) = model_and_batches(config, device)?;
    let mut cases = Vec::new();
    for (size, tokens) in &batches {
        let model = &model;
        cases.push(Case::new(format!("forward_b{size}"), move || {
            model.forward(tokens)?;
            model.device().synchronize();
            Ok(())
        }));
        cases.push(Case::new(format!("forward_one_hook_b{size}"), move || {
            model.run_with_hooks(tokens, &mut Hooks::new().fwd("hook_embed", |_, _| Ok(())))?;
            model.device().synchronize();
            Ok(())
        }));
    }
    interleaved(cases, repeats)
}

/// `run_with_cache_b1` and `run_with_cache_b8`, everything cached, in turns with plain passes.
pub fn cache(config: &Config, device: &Device, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    let (model, batches) = model_and_batches(config, device)?;
    let mut cases = Vec::new();
    for (size, tokens) in &batches {
        let model = &model;
        cases.push(Case::new(format!("run_with_cache_b{size}"), move || {
            model.run_with_cache(tokens)?;
            model.device().synchronize();
            Ok(())
        }));
        cases.push(Case::new(format!("forward_b{size}"), move || {
            model.forward(tokens)?;
            model.device().synchronize();
            Ok(())
        }));
    }
    interleaved(cases, repeats)
}

fn model_and_batches(config: &Config, device: &Device) -> Result<(HookedTransformer, Vec<(usize, IndexTensor)>)> {
    let model = HookedTransformer::new(config.clone(), device, 0)?;
    let mut data = RandomTokens::new(model.config(), DATA_SEED)?;
    let mut batches = Vec::new();
    for size in [1, 8] {
        batches.push((size, data.batch(size)?));
    }
    Ok((model, batches))
}
