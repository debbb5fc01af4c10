//! A byte-level model of a text: windows, a part that is held out, and what the model would write.

use ironlens::prelude::*;
use ironlens::train::{Text, labelled_loss};

#[test]
fn bytes_of_a_text() -> ironlens::Result<()> {
    let text = "the cat sat on the mat and the dog sat on the log. ".repeat(40);
    let cfg = Config {
        d_model: 32,
        d_head: 8,
        n_layers: 1,
        n_ctx: 16,
        d_vocab: 256,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
    let mut data = Text::new(text.as_bytes(), "cats and dogs", model.config(), 7)?;
    let config = TrainConfig { steps: 80, batch_size: 8, lr: 1e-2, log_every: 40, ..TrainConfig::default() };
    let run = Trainer::new(config).schedule(|step| 1e-2 * (step as f64 / 20.0).min(1.0)).fit_model(
        &mut model,
        &mut data,
        labelled_loss,
    )?;
    // The text repeats, so that what is held out is like what is shown.
    let held_out = run.held_out_loss().ok_or("no held-out loss")?;
    assert!(run.losses()[0] > 5.0 && held_out < 2.5, "{} to {held_out}", run.losses()[0]);
    assert!((held_out - run.final_loss().ok_or("no loss")?).abs() < 0.7);

    let begun = IndexTensor::from([[116, 104, 101, 32]]); // "the "
    let options = GenerateOptions { max_new_tokens: 12, stop_at_eos: false, ..GenerateOptions::greedy() };
    let bytes = model.generation(&begun).options(options).run()?.new_tokens.concat();
    let written: String = bytes.iter().map(|b| *b as u8 as char).collect();
    assert!(written.chars().all(|c| text.contains(c)), "{written:?} has letters that the text has not");
    Ok(())
}
