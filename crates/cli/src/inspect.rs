//! `ironlens inspect`: what a pretrained model is, and whether it works.

use std::fmt::Display;

use anyhow::Result;
use clap::Args as ClapArgs;
use ironlens::pretrained::{Check, check, check_encoder};
use ironlens::transformer::{HookedModel, layer_of};
use serde_json::{Value, json};

use crate::pretrained::{Model, ModelArgs};

/// Flags of `inspect`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints configuration, tree, parameters, memory and checks; false if a check fails.
///
/// # Errors
/// If the model cannot be loaded.
pub fn run(args: &Args) -> Result<bool> {
    match args.model.load_any()? {
        Model::Decoder(model) => show(&model, &check(&model)?, model.tokenizer().is_some(), args.json),
        Model::Encoder(model) => show(&model, &check_encoder(&model)?, model.tokenizer().is_some(), args.json),
    }
}

fn show<M: HookedModel + Display>(model: &M, checks: &[Check], has_tokenizer: bool, as_json: bool) -> Result<bool> {
    let cfg = model.config();
    let config: Value = serde_json::from_str(&cfg.to_json())?;
    let counts: Vec<(&str, &[usize])> = model.params().registry().params().collect();
    let total: usize = counts.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let bytes = model.params().bytes();
    let (dtype, storage) = (model.params().dtype(), model.params().storage());
    let passed = checks.iter().all(|c| c.passed);
    if as_json {
        let checks: Vec<Value> =
            checks.iter().map(|c| json!({ "what": c.what, "found": c.found, "passed": c.passed })).collect();
        let params: Vec<Value> = counts.iter().map(|(n, s)| json!({ "name": n, "shape": s })).collect();
        let all = json!({
            "config": config, "parameters": params, "count": total, "bytes": bytes, "checks": checks,
            "dtype": dtype.to_string(), "storage": storage.to_string(), "tokenizer": has_tokenizer,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(passed);
    }
    println!("{model}\n");
    let default: Value = serde_json::from_str(&ironlens::transformer::Config::default().to_json())?;
    for (name, value) in config.as_object().into_iter().flatten() {
        if default.get(name) != Some(value) {
            println!("{name:34} {value}");
        }
    }
    println!("\nparameters");
    // Layers alike are told once.
    for (name, shape) in counts.iter().filter(|(name, _)| layer_of(name).is_none_or(|l| l == 0)) {
        println!("  {name:34} {shape:?}");
    }
    if cfg.n_layers > 1 {
        println!("  and so on for {} layers", cfg.n_layers);
    }
    let stored = if storage == dtype { dtype.to_string() } else { format!("{storage}, vectors as {dtype}") };
    println!("{total} numbers, {:.1} MB as {stored}", bytes as f64 / 1e6);
    println!();
    for c in checks {
        println!("{} {:18} {}", if c.passed { "ok  " } else { "FAIL" }, c.what, c.found);
    }
    if !has_tokenizer {
        println!("     tokenizer          none came with it: it reads tokens, not text");
    }
    Ok(passed)
}
