//! Indirect object identification in a pretrained model, and how long each step takes:
//! `cargo run --release --package ironlens --example real_model -- MODEL`, where MODEL is a name in the Hugging Face
//! cache, a folder or a `.gguf` file.

use std::time::Instant;

use ironlens::prelude::*;

fn main() -> ironlens::Result<()> {
    let name = std::env::args().nth(1).ok_or("name a model: gpt2, a folder, or a .gguf file")?;
    let started = Instant::now();
    let model = HookedTransformer::from_pretrained(&name)?;
    println!("load                     {:8.1} ms", ms(started));

    let clean = "When Mary and John went to the store, John gave a drink to";
    let corrupted = model.to_tokens("When Mary and John went to the store, Mary gave a drink to")?;
    let (mary, john) = (model.to_single_token(" Mary")?, model.to_single_token(" John")?);
    let metric = Metric::logit_diff(&[mary], &[john])?;
    let (logits, cache) = model.run_with_cache(clean)?;
    println!("\" Mary\" less \" John\"      {:8.3}", metric.of(&logits));

    for pos in [64, 512] {
        if pos <= model.config().n_ctx {
            let ids = (0..pos).map(|i| (i * 7919 % model.config().d_vocab) as u32).collect::<Vec<_>>();
            let tokens = IndexTensor::new(ids, &[1, pos]);
            best_of_3(&format!("forward, {pos} tokens"), || model.forward(&tokens).map(drop))?;
            best_of_3(&format!("run_with_cache, {pos} tokens"), || model.run_with_cache(&tokens).map(drop))?;
        }
    }
    best_of_3("patch every head", || -> ironlens::Result<()> {
        let session = Patching::new(&model, &corrupted, &cache, &metric)?;
        session.attn_head_out_all_pos(PatchOptions::default())?;
        Ok(())
    })?;
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Prints the shortest of three times, after one to warm up.
fn best_of_3<E>(what: &str, mut run: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    run()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        run()?;
        best = best.min(ms(started));
    }
    println!("{what:24} {best:8.1} ms");
    Ok(())
}
