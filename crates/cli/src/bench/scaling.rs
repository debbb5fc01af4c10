//! How the time of a training step grows with the sizes of the model.

use anyhow::Result;
use ironlens::tensor::{Device, release_pooled_memory};
use ironlens::train::Preset;
use ironlens::transformer::Config;

use super::model::{Trained, step_flops};
use super::peak::Peak;
use super::table::Table;
use super::timing::median;

/// One size at a time away from the notebook's model.
pub fn scaling(device: &Device, repeats: usize, peak: &Peak) -> Result<Table> {
    let base = || Preset::Notebook.model();
    let mut cases: Vec<(&str, usize, usize, Config)> = Vec::new();
    for batch in [1, 2, 4, 8, 16, 32] {
        cases.push(("batch", batch, batch, base()));
    }
    for n_ctx in [64, 128, 256, 512, 1024] {
        cases.push(("n_ctx", n_ctx, 4, Config { n_ctx, ..base() }));
    }
    for d_model in [128, 256, 512, 768, 1024] {
        cases.push(("d_model", d_model, 8, Config { d_model, d_mlp: 4 * d_model, ..base() }));
    }
    for n_layers in [1, 2, 4, 8] {
        cases.push(("n_layers", n_layers, 4, Config { n_layers, ..base() }));
    }
    let mut table = Table::new(["varied", "value", "batch", "ms per step", "us per token", "GFLOP/s", "of peak"]);
    for (varied, value, batch, config) in cases {
        let config = config.resolved()?;
        let mut trained = Trained::new(config.clone(), batch, device)?;
        trained.step()?;
        let mut failure = None;
        let seconds = median(repeats, || {
            if let Err(e) = trained.step() {
                failure = Some(e);
            }
        });
        if let Some(e) = failure {
            return Err(e);
        }
        drop(trained);
        release_pooled_memory();
        let gflops = step_flops(&config, batch) / seconds / 1e9;
        table.row([
            varied.to_string(),
            value.to_string(),
            batch.to_string(),
            format!("{:.1}", seconds * 1e3),
            format!("{:.1}", seconds * 1e6 / (batch * config.n_ctx) as f64),
            format!("{gflops:.0}"),
            format!("{:.0} %", 100.0 * gflops / peak.gflops),
        ]);
    }
    Ok(table)
}
