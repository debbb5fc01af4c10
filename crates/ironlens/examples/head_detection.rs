//! Head detection: which heads attend by a rule, with the built-in rules and one of our own.
//!
//! `cargo run --release --example head_detection`. Figures go to `head-detection-figures`.

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let figures = std::path::Path::new("head-detection-figures");
    std::fs::create_dir_all(figures)?;

    let mut model = HookedTransformer::new(Preset::Tiny.model(), &Device::best(), 42)?;
    let mut data = RandomTokens::new(model.config(), 137)?;
    let tokens = data.batch(8)?;
    let before = head_scores(&model, &tokens, &HeadKind::ALL)?;
    Trainer::new(Preset::Tiny.train()).fit_model(&mut model, &mut data, previous_token_loss)?;
    let after = head_scores(&model, &tokens, &HeadKind::ALL)?;

    for ((kind, before), after) in HeadKind::ALL.iter().zip(&before).zip(&after) {
        println!("{:>15}: at most {:.2} before training, {:.2} after", kind.label(), max(before), max(after));
    }
    imshow(&after[0]).title("Previous-token heads").x("head").y("layer").save(figures.join("previous-token.html"))?;

    // A pattern of our own: two positions back. Element [i, j] is how much query i should look at key j.
    let n = tokens.shape()[1];
    let mut two_back = vec![0.0; n * n];
    (0..n).for_each(|i| two_back[i * n + i.saturating_sub(2)] = 1.0);
    let two_back = Detection::Pattern(Tensor::from_vec(two_back, &[n, n], model.device()));
    for error_measure in [ErrorMeasure::Mul, ErrorMeasure::Abs] {
        let options = DetectOptions { error_measure, ..Default::default() };
        println!(
            "two back, {error_measure:?}: at most {:.2}",
            max(&detect_head(&model, &tokens, &two_back, &options)?)
        );
    }

    let (_, cache) = model.run_with_cache(&tokens)?;
    println!("entropy of attention [layer, head]:\n{:.2}", attention_entropy(&cache)?.to_ndarray());
    println!("mean distance [layer, head]:\n{:.2}", attention_distance(&cache)?.to_ndarray());
    Ok(())
}

fn max(scores: &Tensor) -> f32 {
    scores.to_vec().into_iter().fold(f32::NEG_INFINITY, f32::max)
}
