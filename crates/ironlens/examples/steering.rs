//! Steering and patching while a model writes. A small model learns to count in English and in French; a direction
//! found from pairs of prompts changes its language, and so does one patched activation.
//!
//! `cargo run --release --example steering`. Figures go to `steering-figures`.

use ironlens::prelude::*;

const ENGLISH: [&str; 12] =
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
const FRENCH: [&str; 12] =
    ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze"];
/// Token 0 begins; then come the words of each language.
const WORDS: u32 = 12;

/// A 0, and `n` numbers from `start` on, in one language; after the last comes the first.
fn count(start: u32, french: bool, n: u32) -> Vec<u32> {
    let word = |i| 1 + (start + i) % WORDS + if french { WORDS } else { 0 };
    std::iter::once(0).chain((0..n).map(word)).collect()
}

/// What a model wrote, in words.
fn words(tokens: &[u32]) -> String {
    let word = |&id: &u32| ENGLISH.iter().chain(&FRENCH).nth(id as usize - 1).copied().unwrap_or("?");
    tokens.iter().map(|id| if *id == 0 { "." } else { word(id) }).collect::<Vec<_>>().join(" ")
}

/// Sequences of eight numbers, each second one in French.
struct Counting(u64);

impl Counting {
    fn sequences(size: usize, number: u64) -> IndexTensor {
        let starts = Rng::new(5, number).integers(&[size], 0, WORDS);
        let rows = starts.as_slice().iter().enumerate().flat_map(|(i, &start)| count(start, i % 2 == 1, 8));
        IndexTensor::new(rows.collect::<Vec<_>>(), &[size, 9])
    }
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
        DataRecord { description: "counting in English and in French".into(), seed: Some(5) }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let figures = std::path::Path::new("steering-figures");
    std::fs::create_dir_all(figures)?;
    let cfg = Config {
        d_model: 48,
        d_head: 12,
        n_layers: 2,
        n_ctx: 16,
        d_vocab: 2 * WORDS as usize + 1,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 1)?;
    let config = TrainConfig { steps: 300, batch_size: 32, lr: 3e-3, ..TrainConfig::default() };
    let run = Trainer::new(config).fit_model(&mut model, &mut Counting(0), next_token_loss)?;
    println!("loss {:.3} after {} steps", run.losses().last().copied().unwrap_or(f64::NAN), run.losses().len());

    // The same numbers in French, less in English, after every number once.
    let prompts = |french: bool| -> IndexTensor {
        let rows = (0..WORDS).flat_map(|start| count(start, french, 3));
        IndexTensor::new(rows.collect::<Vec<_>>(), &[WORDS as usize, 4])
    };
    let french =
        SteeringVector::contrastive(&model, &prompts(true), &prompts(false), Reading::Last)?.of_layers(&[0])?;

    let prompt = IndexTensor::new(count(1, false, 3), &[1, 4]);
    let options = GenerateOptions { max_new_tokens: 5, stop_at_eos: false, ..GenerateOptions::greedy() };
    let tell = |what: &str, out: &[u32]| println!("{what:<28} two three four -> {}", words(out));
    tell("as it is", &model.generate(&prompt, &options)?.new_tokens[0]);
    // Enough of it, and it speaks French, but forgets where it was.
    for coefficient in [4.0, 10.0] {
        let mut hooks = french.added(coefficient);
        let out = model.generation(&prompt).options(options.clone()).hooks(&mut hooks).run()?;
        tell(&format!("{coefficient} times French"), &out.new_tokens[0]);
    }
    // Of a prompt in French, what its stream has along this direction is taken out.
    let prompt_in_french = IndexTensor::new(count(1, true, 3), &[1, 4]);
    let mut hooks = french.projected_out();
    let out = model.generation(&prompt_in_french).options(options.clone()).hooks(&mut hooks).run()?;
    println!("{:<28} deux trois quatre -> {}", "French taken out", words(&out.new_tokens[0]));

    // Dose and response: the logit of the French five less that of the English one.
    let doses: Vec<f64> = (-2..=10).map(f64::from).collect();
    let metric = Metric::logit_diff(&[WORDS + 5], &[5])?;
    let curve = dose_response(&model, &prompt, &french, &doses, &metric)?;
    let values: Vec<f64> = curve.iter().map(|dose| dose.metric).collect();
    line(&values).x("dose, from -2").y("five in French less in English").save(figures.join("dose.html"))?;
    let divergence: Vec<f64> = curve.iter().map(|dose| dose.kl).collect();
    line(&divergence).x("dose, from -2").y("nats from the model's own").save(figures.join("kl.html"))?;
    let first = curve.iter().find(|dose| dose.metric > 0.0).ok_or("no dose makes it speak French")?;
    println!("French is likelier from a dose of {} on, {:.2} nats from its own words", first.coefficient, first.kl);

    // Patching while it writes: the last position of a French prompt in place of ours, at the prompt only.
    let (_, cache) = model.run_with_cache(&prompt_in_french)?;
    let other = cache.get(("resid_post", 0))?.narrow(1, 3, 1);
    let mut patch = Hooks::new().fwd("blocks.0.hook_resid_post", |x, _| x.assign(|x| x.narrow(1, 3, 1), &other));
    let out = model.generation(&prompt).options(options).hooks(&mut patch).hooks_on(HooksOn::Prompt).run()?;
    tell("quatre in place of four", &out.new_tokens[0]);
    Ok(())
}
