//! Circuits: the QK and OV matrices of every head, their spectra, and what their directions say.
//!
//! `cargo run --release --example svd`. Figures go to `svd-figures`.

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let figures = std::path::Path::new("svd-figures");
    std::fs::create_dir_all(figures)?;

    let (model, _) = ironlens::demo::trained_tiny()?;

    // Fold the norms into the weights that read them: the same function, weights that mean what they say.
    let model = process_weights(&model, Processing::default())?;

    // OV of each head as a factored matrix [layer, head, d_model, d_model] that is never multiplied out.
    let ov = model.ov()?;
    println!("{ov}");
    let spectrum = ov.singular_values();
    for l in 0..model.config().n_layers {
        println!("layer {l}: Frobenius norms of OV {:.2}", ov.at(l).norm().to_ndarray());
    }
    let curves: Vec<Series> = (0..model.config().n_heads())
        .map(|h| Series::new(format!("L0H{h}"), &spectrum.select(0, 0).select(0, h).to_vec()))
        .collect();
    line(curves).title("Singular values of OV, layer 0").x("rank").y("singular value").save(figures.join("ov.html"))?;

    // Does a head raise the tokens that it attends to? Eigenvalues of W_E W_V W_O W_U.
    let (real, imaginary) = ov.left_matmul(&model.w_e()?).matmul(&model.w_u()?).eigenvalues();
    let size = (real.square() + imaginary.square()).sqrt();
    println!("copying score [layer, head]:\n{:.2}", (real.sum(&[2]) / size.sum(&[2])).to_ndarray());

    // What the main directions of a layer's MLP output say, in tokens.
    let directions = singular_vectors(&model, svd::Matrix::WOut(0), 3)?;
    for i in 0..3 {
        let value = directions.values.select(0, i).item();
        let token = directions.logits.select(1, i).argmax(0);
        println!(
            "direction {i} of W_out of layer 0: singular value {value:.2}, raises token {:?} most",
            token.as_slice()
        );
    }

    let composition = model.all_composition_scores(Composition::V)?;
    let between = composition.select(0, 0).select(1, 1);
    println!("V-composition of layer 0's heads with layer 1's:\n{:.3}", between.to_ndarray());
    Ok(())
}
