//! Exploratory analysis: which parts of a trained model make its answer, layer by layer and head by
//! head, and what is lost without them.
//!
//! `cargo run --release --example exploratory_analysis`. Figures go to `exploratory-analysis-figures`.

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let figures = std::path::Path::new("exploratory-analysis-figures");
    std::fs::create_dir_all(figures)?;

    // A model that has learned to say the previous token.
    let (model, mut data) = ironlens::demo::trained_tiny()?;

    let tokens = data.batch(4)?;
    let (logits, cache) = model.run_with_cache(&tokens)?;
    let last = logits.dim(1) - 1;
    let answers = logits.select(1, last).argmax(-1);
    println!("answers at the last position: {:?}", answers.as_slice());

    // The logit lens: what the model would say after each layer.
    let options = StackOptions { pos_slice: Slice::At(-1), ..Default::default() };
    let stream = cache.accumulated_resid(&options, true)?;
    let by_layer = logit_lens(&model, &stream.values, 0)?;
    let first_sequence = by_layer.select(1, 0).select(1, 0);
    for (label, top) in stream.labels.iter().zip(top_tokens(&first_sequence, 3)) {
        println!("{label:>10}: {top:.2?}");
    }

    // Direct logit attribution: bars that add up to the logit.
    let parts = direct_logit_attribution(&cache, &answers, None, -1, logits::Units::Heads)?;
    println!(
        "logit of the answer {:.3} = sum of {} parts; most: {:.2?}",
        parts.total,
        parts.values.len(),
        parts.top(3)
    );
    bar(parts.labels.clone(), &parts.values)
        .title("Direct logit attribution")
        .y("logit")
        .save(figures.join("attribution.html"))?;

    // Ablation: the loss without each head.
    let targets = answers.clone();
    let loss = Metric::last(move |logits| logits.cross_entropy(&targets).mean_all());
    let without = ablate(
        &model,
        &tokens,
        &loss,
        ablation::Parts::Heads,
        &Ablation::Mean(tokens.clone().into()),
        PatchOptions::default(),
    )?;
    println!("loss {:.2e}; without each head [layer, head]:\n{:.2e}", without.corrupted, without.values.to_ndarray());
    imshow(&without.values).title("Loss without each head").x("head").y("layer").save(figures.join("ablation.html"))?;
    Ok(())
}
