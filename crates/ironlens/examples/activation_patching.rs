//! Activation patching: which activations carry the answer from one sequence into another.
//!
//! `cargo run --release --example activation_patching`. Figures go to `activation-patching-figures`.

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let figures = std::path::Path::new("activation-patching-figures");
    std::fs::create_dir_all(figures)?;

    let (model, mut data) = ironlens::demo::trained_tiny()?;

    // The same sequence twice, but for the token that the answer at the end depends on.
    let ironlens::demo::Question { clean, corrupted, metric } = ironlens::demo::question(&model, &mut data)?;
    let end = clean.shape()[1] - 1;
    let (logits, cache) = model.run_with_cache(&clean)?;
    let m_clean = metric.of(&logits);
    println!("logit difference: {m_clean:.2} clean, {:.2} corrupted", metric.of(&model.forward(&corrupted)?));

    // Every position of the residual stream before every layer: 1 brings the clean answer back.
    let session = Patching::new(&model, &corrupted, &cache, &metric)?;
    let by_position = session.resid_pre(PatchOptions::default())?;
    let share = by_position.normalized(m_clean);
    imshow(&share)
        .title("Residual stream")
        .x("position")
        .y("layer")
        .midpoint(0.0)
        .save(figures.join("resid_pre.html"))?;
    println!(
        "residual stream at the last two positions [layer, pos]:\n{:.2}",
        share.narrow(1, end - 1, 2).to_ndarray()
    );

    // Every head, all positions at once.
    let by_head = session.attn_head_out_all_pos(PatchOptions::default())?;
    let share = by_head.normalized(m_clean);
    imshow(&share).title("Heads").x("head").y("layer").midpoint(0.0).save(figures.join("heads.html"))?;
    println!("heads [layer, head]:\n{:.2}", share.to_ndarray());
    println!("statistics {:.2?}", by_head.statistics());

    // One path: from the best head of layer 0 straight to the MLP of its layer, and to the logits.
    let best = (0..share.dim(1))
        .max_by(|a, b| share.select(0, 0).select(0, *a).item().total_cmp(&share.select(0, 0).select(0, *b).item()));
    let sender = path::Sender::Head(0, best.unwrap_or(0));
    let receivers = [path::Receiver::Mlp(0), path::Receiver::Mlp(1), path::Receiver::Logits];
    let paths = direct_path_patch(&model, &clean, &corrupted, &metric, sender, &receivers, PatchOptions::default())?;
    for (receiver, value) in receivers.iter().zip(paths) {
        println!("{sender:?} -> {receiver:?}: {:.2}", (value - by_head.corrupted) / (m_clean - by_head.corrupted));
    }
    Ok(())
}
