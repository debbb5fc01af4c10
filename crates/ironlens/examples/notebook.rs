//! The notebook, cell by cell: a two-layer HookedTransformer learns to predict the previous token.
//!
//! `cargo run --release --example notebook` takes the time of 3000 steps of the full model;
//! `-- small` does the same with a small one in seconds. Figures are written to the folder
//! `notebook-figures`.

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let preset = if std::env::args().any(|a| a == "small") { Preset::Tiny } else { Preset::Notebook };
    let figures = std::path::Path::new("notebook-figures");
    std::fs::create_dir_all(figures)?;

    // The model, and its module tree with every hook point.
    let mut model = HookedTransformer::new(preset.model(), &Device::best(), 42)?;
    println!("{model}");

    // Random tokens; position 0 is the beginning-of-sequence token 0.
    let mut data = RandomTokens::new(model.config(), 137)?;

    // Cache every activation and list them.
    let (_logits, cache) = model.run_with_cache(&data.batch(1)?)?;
    for (name, act) in &cache {
        println!("{name} {:?}", act.shape());
    }

    // The mean attention pattern of each layer, before training.
    show_patterns(&cache, &figures.join("before"))?;

    // Train to predict the previous token.
    let config = preset.train();
    let run = Trainer::new(config).fit_model(&mut model, &mut data, previous_token_loss)?;
    for m in run.metrics.iter().step_by(100) {
        println!("Epoch: {}: {}", m.step, m.loss);
    }
    line(&run.losses()).title("Training loss").x("step").y("loss").log_y().save(figures.join("loss.html"))?;

    // A fresh batch: its loss, and the patterns again.
    let fresh = data.batch(10)?;
    let (logits, cache) = model.run_with_cache(&fresh)?;
    println!("loss on a fresh batch: {}", previous_token_loss(&logits, &fresh).item());
    show_patterns(&cache, &figures.join("after"))
}

fn show_patterns(cache: &ActivationCache, path: &std::path::Path) -> ironlens::Result<()> {
    for layer in 0..cache.model().config().n_layers {
        let pattern = cache.get(("attn", layer))?.mean(&[0, 1]);
        let file = format!("{}-layer-{layer}.html", path.display());
        imshow(&pattern).title(format!("Layer {layer} attention pattern")).x("source").y("destination").save(&file)?;
        println!("{file}");
    }
    Ok(())
}
