//! The notebook, cell by cell: a two-layer HookedTransformer learns to predict the previous token.
//!
//! `cargo run --release --example notebook` takes the time of 3000 steps of the full model;
//! `-- small` does the same with a small one in seconds. Figures are written to the folder
//! `notebook-figures`. `docs/notebook.ipynb` is this for Jupyter: each paragraph of `main` that
//! begins with a comment is a cell there, and shows the figures that are saved here.

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let preset = if std::env::args().any(|a| a == "small") { Preset::Tiny } else { Preset::Notebook };
    let figures = std::path::Path::new("notebook-figures");
    std::fs::create_dir_all(figures)?;

    // The model: two layers, with every activation named. Printing it shows the module tree with every hook point.
    let mut model = HookedTransformer::new(preset.model(), &Device::best(), 42)?;
    println!("{model}");

    // Random tokens to learn from; position 0 is the beginning-of-sequence token 0.
    let mut data = RandomTokens::new(model.config(), 137)?;
    let tokens = data.batch(1)?;
    println!("{:?} of {:?}", &tokens.as_slice()[..12], tokens.shape());

    // Run it once, cache every activation and list them.
    let (logits, cache) = model.run_with_cache(&tokens)?;
    println!("logits {:?}", logits.shape());
    for (name, act) in &cache {
        println!("{name} {:?}", act.shape());
    }

    // The mean attention pattern of each layer before training: nothing to see yet.
    for layer in 0..model.config().n_layers {
        let pattern = imshow(&cache[("attn", layer)].mean(&[0, 1])).title(format!("Layer {layer} before training"));
        pattern.x("source").y("destination").save(figures.join(format!("before-layer-{layer}.html")))?;
    }

    // Train it to say the previous token.
    let run = Trainer::new(preset.train()).fit_model(&mut model, &mut data, previous_token_loss)?;
    for m in run.metrics.iter().step_by(100) {
        println!("Epoch: {}: {}", m.step, m.loss);
    }

    // The loss falls to nothing: each step of it, on a logarithmic axis.
    line(&run.losses()).title("Training loss").x("step").y("loss").log_y().save(figures.join("loss.html"))?;

    // On a batch that it has not seen.
    let fresh = data.batch(10)?;
    let (logits, cache) = model.run_with_cache(&fresh)?;
    println!("loss on a fresh batch: {}", previous_token_loss(&logits, &fresh).item());

    // The patterns again: heads look one position back.
    for layer in 0..model.config().n_layers {
        let pattern = imshow(&cache[("attn", layer)].mean(&[0, 1])).title(format!("Layer {layer} after training"));
        pattern.x("source").y("destination").save(figures.join(format!("after-layer-{layer}.html")))?;
    }
    Ok(())
}
