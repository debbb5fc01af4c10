//! Steering and patching while a model writes. A small model learns to count, up or down, by its prompt; a direction
//! found from pairs of prompts turns it round, and so does one patched activation.
//!
//! `cargo run --release --example steering`. Figures go to `steering-figures`.

use ironlens::lens::steering::{Reading, dose_response};
use ironlens::prelude::*;
use ironlens::train::{Data, DataRecord, TrainError};
use ironlens::transformer::{GenerateOptions, HooksOn};

/// Numbers are counted up to here, and then from 1 again.
const TOP: u32 = 20;

/// Sequences of numbers that go up by one, or down, after a 0.
struct Counting(u64);

impl Counting {
    /// `[size, 12]`, every second one going down.
    fn sequences(size: usize, number: u64) -> IndexTensor {
        let starts = Rng::new(5, number).integers(&[size], 0, TOP);
        let rows = starts.as_slice().iter().enumerate().flat_map(|(i, &start)| sequence(start, i % 2 == 0, 12));
        IndexTensor::new(rows.collect::<Vec<_>>(), &[size, 12])
    }
}

/// A 0, and then `n - 1` numbers.
fn sequence(start: u32, up: bool, n: u32) -> Vec<u32> {
    let at = |i| if up { start + i } else { start + TOP - i };
    std::iter::once(0).chain((0..n - 1).map(|i| at(i) % TOP + 1)).collect()
}

impl Data for Counting {
    type Batch = IndexTensor;

    fn batch(&mut self, size: usize) -> Result<IndexTensor, TrainError> {
        self.0 += 1;
        Ok(Counting::sequences(size, self.0))
    }

    fn seek(&mut self, batch: u64) {
        self.0 = batch;
    }

    fn held_out(&self, size: usize) -> Result<IndexTensor, TrainError> {
        Ok(Counting::sequences(size, 0))
    }

    fn describe(&self) -> DataRecord {
        DataRecord { description: format!("counting up and down to {TOP}"), seed: Some(5) }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let figures = std::path::Path::new("steering-figures");
    std::fs::create_dir_all(figures)?;
    let cfg = Config {
        d_model: 64,
        d_head: 16,
        n_layers: 2,
        n_ctx: 24,
        d_vocab: TOP as usize + 1,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 1)?;
    let config = TrainConfig { steps: 400, batch_size: 32, lr: 3e-3, ..TrainConfig::default() };
    let run = Trainer::new(config).fit_model(&mut model, &mut Counting(0), next_token_loss)?;
    println!("loss {:.3} after {} steps", run.losses().last().copied().unwrap_or(f64::NAN), run.losses().len());

    // The direction: prompts that count up, less prompts that count down and end with the same numbers.
    let prompts = |up: bool| -> IndexTensor {
        let last = |end: u32| sequence(if up { end + TOP - 4 } else { end + 4 }, up, 6);
        IndexTensor::new((0..TOP).flat_map(last).collect::<Vec<_>>(), &[TOP as usize, 6])
    };
    let upward =
        SteeringVector::contrastive(&model, &prompts(true), &prompts(false), Reading::Last)?.of_layers(&[0])?;

    let prompt = IndexTensor::from([[0, 3, 4, 5, 6, 7]]);
    let options = GenerateOptions { max_new_tokens: 6, stop_at_eos: false, ..GenerateOptions::greedy() };
    let tell = |what: &str, out: &[u32]| println!("{what:<44} 3 4 5 6 7 -> {out:?}");
    tell("as it is", &model.generate(&prompt, &options)?.new_tokens[0]);
    for coefficient in [-1.0, -2.0] {
        let mut hooks = upward.added(coefficient);
        let out = model.generation(&prompt).options(options.clone()).hooks(&mut hooks).run()?;
        tell(&format!("with {coefficient} times the upward direction"), &out.new_tokens[0]);
    }

    // Dose and response: the logit of 8 less that of 6, and how far predictions are from the model's own.
    let doses: Vec<f64> = (-12..=4).map(|i| f64::from(i) / 4.0).collect();
    let curve = dose_response(&model, &prompt, &upward, &doses, &Metric::logit_diff(&[8], &[6])?)?;
    let values: Vec<f64> = curve.iter().map(|dose| dose.metric).collect();
    line(&values).title("Up less down, by the dose").x("dose, quarters from -3").y("logit of 8 less that of 6");
    line(&values).x("dose (0: -3, 16: 1)").y("logit of 8 less that of 6").save(figures.join("dose-response.html"))?;
    let first_down = curve.iter().rev().find(|dose| dose.metric < 0.0).map(|dose| dose.coefficient);
    println!("it counts down from a dose of {first_down:?}");

    // Patching while it writes: the last position of a prompt that goes down, in place of ours, at the prompt only.
    let (_, down) = model.run_with_cache(&IndexTensor::from([[0, 11, 10, 9, 8, 7]]))?;
    let other = down.get(("resid_post", 0))?.clone();
    let mut patch = Hooks::new().fwd("blocks.0.hook_resid_post", |x, info| {
        assert_eq!(info.pos_offset, 0, "the prompt is read from its first position");
        x.assign(|x| x.narrow(1, 5, 1), &other.narrow(1, 5, 1).into());
    });
    let run = model.generation(&prompt).options(options).hooks(&mut patch).hooks_on(HooksOn::Prompt).run()?;
    tell("with the 7 of 11 10 9 8 7 patched in", &run.new_tokens[0]);
    Ok(())
}
