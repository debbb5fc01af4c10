//! Attribution patching: all patches at once, estimated from gradients, beside what patching gives.
//!
//! `cargo run --release --example attribution_patching`. Figures go to `attribution-patching-figures`.

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let figures = std::path::Path::new("attribution-patching-figures");
    std::fs::create_dir_all(figures)?;

    let (model, mut data) = ironlens::demo::trained_tiny()?;

    let ironlens::demo::Question { clean, corrupted, metric } = ironlens::demo::question(&model, &mut data)?;

    // Heads: the estimate of each, from one gradient and from 16 along the way (EAP-IG).
    let (_, cache) = model.run_with_cache(&clean)?;
    let exact =
        patching::get_act_patch_attn_head_out_all_pos(&model, &corrupted, &cache, &metric, PatchOptions::default())?;
    let heads = |n: &str| n.ends_with("attn.hook_z");
    println!("{:>6} {:>9} {:>9} {:>9}", "head", "patched", "1 step", "16 steps");
    let estimates = [1, 16].map(|steps| attribution_patch(&model, &clean, &corrupted, &metric, heads, steps));
    let [one, many] = estimates;
    let (one, many) = (one?, many?);
    let per_head = |scores: &Tensor, h: usize| scores.select(2, h).sum_all().item();
    for l in 0..model.config().n_layers {
        for h in 0..exact.values.dim(1) {
            let patched = exact.values.select(0, l).select(0, h).item() - exact.corrupted;
            let [a, b] = [&one, &many].map(|e| per_head(&e.scores[l].1, h));
            println!("{:>6} {patched:>9.3} {a:>9.3} {b:>9.3}", format!("L{l}H{h}"));
        }
    }

    // Edges of the residual stream.
    let edges = edge_attribution(&model, &clean, &corrupted, &metric, 16)?;
    println!("strongest edges of {}:", edges.scores.numel());
    for (sender, receiver, score) in edges.top(8) {
        println!("  {sender:>6} -> {receiver:<8} {score:>8.3}");
    }
    imshow(&edges.scores)
        .title("Edges, by integrated gradients")
        .midpoint(0.0)
        .y("writes")
        .x("reads")
        .y_labels(edges.senders.clone())
        .x_labels(edges.receivers.clone())
        .save(figures.join("edges.html"))?;
    Ok(())
}
