//! What a model of bytes writes.

use ironlens_report::Section;
use ironlens_tensor::{Device, IndexTensor, Rng};
use ironlens_train::RunDir;
use ironlens_transformer::HookedTransformer;

use crate::error::StudyError;

/// How many bytes a sample goes on for.
const SAMPLE: usize = 120;

/// What the model writes after beginnings from the held-out part.
pub fn continuations(run: &RunDir, model: &HookedTransformer) -> Result<Section, StudyError> {
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
            let mut left = rng.uniform(&[1], 0.0, 1.0, &Device::Cpu).item();
            let next = chances.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            ids.push(next.unwrap_or(chances.len() - 1) as u32);
        }
        let bytes =
            |part: &[u32]| String::from_utf8_lossy(&part.iter().map(|b| *b as u8).collect::<Vec<_>>()).into_owned();
        texts.push(format!("“{}” goes on with “{}”", line(&bytes(&ids[..start])), line(&bytes(&ids[start..]))));
    }
    Ok(Section {
        title: "What it writes".into(),
        prose: format!(
            "Beginnings from the held-out part, continued by {SAMPLE} bytes drawn at a temperature of 0.8 (⏎ is the end of a \
             line).\n\n{}",
            texts.join("\n\n")
        ),
        figures: Vec::new(),
    })
}

/// A text on one line.
fn line(text: &str) -> String {
    text.replace('\n', "⏎")
}
