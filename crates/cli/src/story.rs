//! What a report tells of a run on a task of its own.

use anyhow::Result;
use ironlens_report::{Section, bar, imshow, line};
use ironlens_tensor::{IndexTensor, Rng, Tensor};
use ironlens_train::{Experiment, RunDir};
use ironlens_transformer::HookedTransformer;

/// The sections on a task.
///
/// # Errors
/// If the run cannot be read, or a picture not be made.
pub fn of(experiment: Experiment, run: &RunDir, model: &HookedTransformer) -> Result<Vec<Section>> {
    Ok(match experiment {
        Experiment::Induction => vec![by_position(run, model, "What was said before can be foreseen")?],
        Experiment::Markov => vec![by_position(run, model, "The more transitions were seen, the better the guess")?],
        Experiment::ModularAddition => vec![frequencies(model)?],
        Experiment::Text => vec![continuations(run, model)?],
    })
}

/// The loss of each next token on the run's held-out sequences.
fn by_position(run: &RunDir, model: &HookedTransformer, title: &str) -> Result<Section> {
    let tokens = run.sequences()?.tokens;
    let logits = model.forward(&tokens)?;
    let n = tokens.shape()[1] - 1;
    let losses = logits.narrow(1, 0, n).cross_entropy(&tokens.narrow(1, 1, n)).mean(0).to_vec_f64();
    let half = n / 2;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let prose = format!(
        "Mean over {} held-out sequences: {:.3} over the first {half} predictions, {:.3} over the others.",
        tokens.shape()[0],
        mean(&losses[..half]),
        mean(&losses[half..])
    );
    let figure = line(&losses).title("Loss by position").x("position").y("loss");
    Ok(Section { title: title.into(), prose, figures: vec![figure] })
}

/// Which frequencies the embeddings of the numbers are made of.
fn frequencies(model: &HookedTransformer) -> Result<Section> {
    let cfg = model.config();
    let p = cfg.d_vocab - 1;
    let w = model.param("embed.W_E")?.narrow(0, 0, p);
    // Rows: cos and sin of 2 pi k a / p over numbers a, for k from 1 to (p - 1) / 2, of length 1.
    let half = p.saturating_sub(1) / 2;
    let norm = (2.0 / p as f64).sqrt();
    let waves: Vec<f64> = (1..=half)
        .flat_map(|k| [f64::cos as fn(f64) -> f64, f64::sin].map(|f| (k, f)))
        .flat_map(|(k, f)| (0..p).map(move |a| norm * f(2.0 * std::f64::consts::PI * (k * a % p) as f64 / p as f64)))
        .collect();
    let waves = Tensor::from_vec_f64(waves, &[2 * half, p]).to_dtype(w.dtype()).to_device(&w.device());
    let power = waves.matmul(&w).square().sum(1).reshape(&[half, 2]).sum(1).to_vec_f64();
    let total: f64 = power.iter().sum();
    let mut order: Vec<usize> = (0..half).collect();
    order.sort_by(|a, b| power[*b].total_cmp(&power[*a]));
    // Key frequencies stand out: more than five times their even share.
    let key: Vec<usize> = order.into_iter().filter(|k| power[*k] > 5.0 * total / half.max(1) as f64).collect();
    let share: f64 = key.iter().map(|k| power[*k]).sum::<f64>() / total.max(f64::MIN_POSITIVE);
    let pairs: Vec<u32> = (0..(p * p) as u32).collect();
    let ids: Vec<u32> = pairs.iter().flat_map(|i| [i / p as u32, i % p as u32, p as u32]).collect();
    let logits = model.forward(&IndexTensor::new(ids, &[p * p, 3]))?.select(1, 2);
    let said = logits.argmax(-1);
    let right =
        pairs.iter().zip(said.as_slice()).filter(|(i, s)| (*i / p as u32 + *i % p as u32) % p as u32 == **s).count();
    let found = match key.is_empty() {
        true => "No frequency stands out: the embeddings are not periodic.".into(),
        false => {
            let names: Vec<String> = key.iter().map(|k| (k + 1).to_string()).collect();
            format!("{} frequencies ({}) hold {:.1}% of the power.", key.len(), names.join(", "), 100.0 * share)
        }
    };
    let prose = format!(
        "Of all {} sums, shown and held out, {right} are right. The embeddings of the numbers 0 to {} as waves over the \
         numbers: {found}",
        p * p,
        p - 1
    );
    let labels: Vec<String> = (1..=half).map(|k| k.to_string()).collect();
    let shares: Vec<f64> = power.iter().map(|v| v / total.max(f64::MIN_POSITIVE)).collect();
    let by_pair = logits.gather(1, &said.reshape(&[p * p, 1])).reshape(&[p, p]);
    let grid = crate::report::array(&by_pair)?;
    Ok(Section {
        title: "The rule: waves over the numbers".into(),
        prose,
        figures: vec![
            bar(labels, &shares).title("Share of the embedding's power by frequency").y("share"),
            imshow(grid).title("The largest logit of each sum").x("b").y("a"),
        ],
    })
}

/// How many bytes a sample goes on for.
const SAMPLE: usize = 120;

/// What the model writes after beginnings from the held-out part.
fn continuations(run: &RunDir, model: &HookedTransformer) -> Result<Section> {
    let sequences = run.sequences()?.tokens;
    let n_ctx = model.config().n_ctx;
    let width = sequences.shape()[1];
    let start = width.min(n_ctx / 2).max(1);
    let mut rng = Rng::new(0, 0);
    let mut texts = Vec::new();
    for row in sequences.as_slice().chunks(width).take(3) {
        let mut ids = row[..start].to_vec();
        for _ in 0..SAMPLE {
            let seen = &ids[ids.len().saturating_sub(n_ctx)..];
            let logits = model.forward(&IndexTensor::new(seen, &[1, seen.len()]))?;
            let chances = (logits.select(0, 0).select(0, seen.len() - 1) * (1.0 / 0.8)).softmax().to_vec_f64();
            let mut left = rng.uniform(&[1], 0.0, 1.0, &ironlens_tensor::Device::Cpu).item();
            let next = chances.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            ids.push(next.unwrap_or(chances.len() - 1) as u32);
        }
        let bytes =
            |part: &[u32]| String::from_utf8_lossy(&part.iter().map(|b| *b as u8).collect::<Vec<_>>()).into_owned();
        texts.push(format!("{:?} goes on {:?}", bytes(&ids[..start]), bytes(&ids[start..])));
    }
    Ok(Section {
        title: "What it writes".into(),
        prose: format!(
            "Beginnings from the held-out part, continued by {SAMPLE} bytes drawn at a temperature of 0.8. {}.",
            texts.join("; ")
        ),
        figures: Vec::new(),
    })
}
