//! From a run's folder to its report.

use std::collections::BTreeSet;

use ironlens_lens::heads::{HeadKind, head_scores};
use ironlens_report::{Detector, Evaluation, Hook, Parameter, Reference, Report, Snapshot, Stats, StepRow, grouped};
use ironlens_tensor::{Device, Tensor};
use ironlens_train::{Checkpoint, Experiment, RunDir, StepRecord, Task};
use ironlens_transformer::config::{AttentionDir, AttnType};
use ironlens_transformer::{ActivationCache, HookedTransformer, Sequences, read_tensors};
use serde::Serialize;

use crate::error::StudyError;
use crate::picture::Analysis;
use crate::{array, examples, findings, story};

/// The report of a run, with the analysis that it keeps.
///
/// # Errors
/// If the run or its analysis cannot be read.
pub fn report(run: &RunDir) -> Result<Report, StudyError> {
    report_with(run, Analysis::kept(run)?)
}

/// The report with another analysis: everything that the page shows, from the files of the run and, where a
/// transformer was trained, from it before and after.
///
/// # Errors
/// If the run cannot be read or is cut short, or the analysis is none.
pub fn report_with(run: &RunDir, analysis: Option<Analysis>) -> Result<Report, StudyError> {
    let config = run.config();
    let last = run.last_checkpoint()?;
    let metrics = run.metrics_of(last.step)?;
    // Those after the last checkpoint are of weights that were lost.
    let mut evals = run.evals()?;
    evals.retain(|eval| eval.step <= last.step);
    let mut warnings = Vec::new();
    if last.step < config.train.steps {
        warnings.push(format!(
            "Training stopped after {} of {} steps; what is shown is its state there.",
            last.step, config.train.steps
        ));
    }
    let task = Task::from_name(&config.learner.loss);
    let of_data = |e: &Experiment| config.model.as_ref().is_some_and(|model| e.is_of(model, &config.data));
    let experiment = Experiment::from_name(&config.learner.loss).filter(of_data);
    let title = run.path().file_name().map_or("run".into(), |n| n.to_string_lossy().into_owned());
    let mut report = Report {
        title,
        subtitle: format!("{}, trained on {}", config.learner.kind, config.data.description),
        facts: facts(run, last.step, &metrics),
        metrics: metrics
            .iter()
            .map(|m| StepRow { step: m.step as usize, loss: m.loss, lr: Some(m.lr), grad_norm: Some(m.grad_norm) })
            .collect(),
        evaluations: evals.iter().map(|e| Evaluation { step: e.step as usize, loss: e.loss }).collect(),
        config: settings(run),
        reproduce: config.command.clone().unwrap_or_default(),
        warnings,
        ..Report::default()
    };
    match &config.model {
        Some(model) => {
            let same = |r: &ironlens_train::Reference| Reference { name: r.name.clone(), loss: r.loss, best: r.best };
            report.references = config.references.iter().map(same).collect();
            // What guessing costs is known of losses that are a cross-entropy, and of data that tell it. One who learned
            // sums by heart loses more at others than by guessing, and is not at chance.
            report.chance_loss = match experiment {
                Some(Experiment::ModularAddition) => None,
                _ => task.map(|_| (model.d_vocab_out as f64).ln()).or_else(|| {
                    let at = report.references.iter().position(|r| r.name == ironlens_train::Reference::EVENLY)?;
                    Some(report.references.remove(at).loss)
                }),
            };
            add_transformer(&mut report, run, &last, analysis, experiment)?;
        }
        None => {
            let weights = read_tensors(&last.weights())?;
            report.parameters =
                weights.iter().map(|(name, t)| Parameter { name: name.clone(), shape: t.shape().to_vec() }).collect();
        }
    }
    report.subtitle += " — loss: ";
    report.subtitle +=
        task.map(Task::describe).or(experiment.map(Experiment::describe)).unwrap_or(&config.learner.loss);
    report.warnings.extend(run.notices());
    Ok(report)
}

/// The parts of the report that look into a transformer.
fn add_transformer(
    report: &mut Report,
    run: &RunDir,
    last: &Checkpoint,
    analysis: Option<Analysis>,
    experiment: Option<Experiment>,
) -> Result<(), StudyError> {
    let (config, device) = (run.config(), Device::Cpu);
    let before = run.initial_model(&device)?;
    let after = run.model_at(last, &device)?;
    if let Some(a) = analysis.as_ref().filter(|a| a.step != Some(last.step)) {
        report.warnings.push(format!(
            "The analyses are of step {}, the rest is of step {}; analyse the run again.",
            a.step.map_or("unknown".into(), |s| s.to_string()),
            last.step,
        ));
    }
    report.subtitle = format!("{}, trained on {}", describe(&after), config.data.description);
    report.facts.push(("weights".into(), grouped(after.params().count())));
    report.facts.push(("precision".into(), after.params().dtype().to_string()));
    report.model_tree = format!("{after}");
    report.parameters = after
        .params()
        .iter()
        .map(|(name, value)| Parameter { name: name.into(), shape: value.shape().to_vec() })
        .collect();
    report.snapshots = snapshots(run, last.step)?;
    report.snapshot_source = format!("mean over held-out sequences of the data ({})", config.data.description);
    match run.sequences() {
        Ok(sequences) => {
            let (logits, cache) = sequences.call(&after).cached()?;
            if let Some(hook) = cache.first_not_finite() {
                let warning = format!("The activation {hook} is not finite: what is computed from it means nothing.");
                report.warnings.push(warning);
            }
            report.hooks = hooks(&after, &cache);
            report.examples = examples::of_run(run, &sequences, logits.logits().value(), &cache)?;
            match detectors(&before, &after, &sequences) {
                Ok(scored) => report.detectors = scored,
                Err(e) => report.warnings.push(format!("Head detectors are left out: {e}.")),
            }
            if let Err(e) = baselines(&mut report.detectors, &cache, &sequences) {
                report.warnings.push(format!("What equal attention scores is not known: {e}."));
            }
        }
        Err(e) => report.warnings.push(format!("Activations and head detectors are left out: {e}.")),
    }
    if let Some(experiment) = experiment {
        match story::sections(experiment, run, &after) {
            Ok(sections) => report.sections = sections,
            Err(e) => report.warnings.push(format!("What is told of the task is left out: {e}.")),
        }
    }
    report.findings = analysis.as_ref().map_or_else(Vec::new, findings::of);
    report.head_facts = analysis.as_ref().map_or_else(Vec::new, Analysis::head_facts);
    report.head_pairs = analysis.as_ref().map_or_else(Vec::new, Analysis::head_pairs);
    report.sections.extend(analysis.map_or(Ok(Vec::new()), |a| a.to_sections())?);
    Ok(())
}

fn describe(model: &HookedTransformer) -> String {
    let cfg = model.config();
    format!(
        "a {}-layer HookedTransformer, {} head{} a layer, d_model {}, {} weights",
        cfg.n_layers,
        cfg.n_heads,
        if cfg.n_heads == 1 { "" } else { "s" },
        cfg.d_model,
        grouped(model.params().count())
    )
}

fn facts(run: &RunDir, steps: u64, metrics: &[StepRecord]) -> Vec<(String, String)> {
    let config = run.config();
    let mut facts = vec![
        ("steps".to_string(), steps.to_string()),
        ("batch".into(), config.train.batch_size.to_string()),
        ("loss".into(), config.learner.loss.clone()),
        ("device".into(), config.device.clone()),
        ("ironlens".into(), config.version.clone()),
    ];
    facts.extend(config.seed.map(|seed| ("seed of the weights".into(), seed.to_string())));
    facts.extend(config.data.seed.map(|seed| ("seed of the data".into(), seed.to_string())));
    if let Some(last) = metrics.last().filter(|m| m.seconds > 0.0) {
        facts.push(("steps per second".into(), format!("{:.2}", (last.step + 1) as f64 / last.seconds)));
    }
    facts
}

/// Every activation of the trained model on the run's sequences.
fn hooks(model: &HookedTransformer, cache: &ActivationCache) -> Vec<Hook> {
    let hook = |(name, value): (&str, &Tensor)| {
        let axes = model.registry().hook_axes(name).unwrap_or_default();
        Hook {
            name: name.into(),
            axes: axes.split(' ').map(String::from).collect(),
            shape: value.shape().to_vec(),
            stats: Some(stats(value)),
        }
    };
    cache.iter().map(hook).collect()
}

/// Of the finite elements: hidden attention scores are negative infinity by nature.
fn stats(x: &Tensor) -> Stats {
    let (mut n, mut sum, mut squares) = (0f64, 0f64, 0f64);
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for v in x.to_vec().into_iter().filter(|v| v.is_finite()).map(f64::from) {
        n += 1.0;
        sum += v;
        squares += v * v;
        min = min.min(v);
        max = max.max(v);
    }
    let mean = sum / n;
    Stats { mean, std: (squares / n - mean * mean).max(0.0).sqrt(), min, max }
}

fn snapshots(run: &RunDir, last: u64) -> Result<Vec<Snapshot>, StudyError> {
    let all = run.snapshots()?;
    let shown = all
        .iter()
        .filter(|s| s.step <= last)
        .map(|s| {
            let label = match s.step {
                0 => "before".to_string(),
                step if step == last => "after".into(),
                step => format!("step {step}"),
            };
            Snapshot { step: s.step as usize, label, layers: s.patterns.iter().map(array).collect() }
        })
        .collect();
    Ok(shown)
}

fn detectors(
    before: &HookedTransformer,
    after: &HookedTransformer,
    sequences: &Sequences,
) -> Result<Vec<Detector>, StudyError> {
    let scores = |model: &HookedTransformer| head_scores(model, sequences, &HeadKind::ALL);
    let (before, after) = (scores(before)?, scores(after)?);
    let rows = |scores: &Tensor| {
        let heads = scores.dim(1);
        scores.to_vec().chunks(heads).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    Ok(HeadKind::ALL
        .iter()
        .zip(before.iter().zip(&after))
        .map(|(kind, (before, after))| Detector {
            name: kind.label().into(),
            formula: kind.formula().into(),
            before: rows(before),
            after: rows(after),
            ..Detector::default()
        })
        .collect())
}

/// What heads that attend alike to all they can see, and heads that attend to nothing else than their kind asks for,
/// would score on the same sequences, and how much the scores of the heads differ between sequences. Padding counts for
/// nothing, as in the scores.
fn baselines(detectors: &mut [Detector], cache: &ActivationCache, sequences: &Sequences) -> Result<(), StudyError> {
    let (batch, pos) = (sequences.tokens.shape()[0], sequences.tokens.shape()[1]);
    let layers: Vec<(usize, Vec<f32>)> = (0..cache.model().config().n_layers)
        .map(|l| cache.get(("attn", l)).map(|p| (p.dim(1), p.to_vec())))
        .collect::<Result<_, _>>()?;
    let real: Vec<Vec<usize>> = (0..batch).map(|b| sequences.real(b)).collect();
    let cfg = cache.model().config();
    let causal = cfg.attention_dir == AttentionDir::Causal;
    // Where only some layers have a window, heads of the others see all that is before.
    let windows = (0..cfg.n_layers).all(|l| cfg.use_local_attn && cfg.attn_type(l) == AttnType::Local);
    let window = if windows { cfg.window_size } else { usize::MAX };
    for (detector, kind) in detectors.iter_mut().zip(HeadKind::ALL) {
        // The cells (dest, src) that the kind asks for among the tokens of each sequence, as places in its pattern
        // [pos, pos]; and how much of the attention of a head that looks at all alike lies in them.
        let (mut asked, mut alike, mut ideal_score) = (Vec::new(), 0.0, 0.0);
        for (b, real) in real.iter().enumerate() {
            let n = real.len();
            let ids: Vec<u32> = real.iter().map(|p| sequences.tokens.as_slice()[b * pos + p]).collect();
            let ideal = kind.pattern(&ids).to_vec();
            let cells: Vec<(usize, usize)> =
                (0..n * n).filter(|at| ideal[*at] > 0.0).map(|at| (at / n, at % n)).collect();
            let sees = |(i, j): (usize, usize)| !causal || (j <= i && i - j < window);
            let seen_by = |i: usize| if causal { (i + 1).min(window) } else { n };
            let visible: Vec<(usize, usize)> = cells.iter().copied().filter(|cell| sees(*cell)).collect();
            alike += visible.iter().map(|(i, _)| 1.0 / seen_by(*i) as f32).sum::<f32>() / n as f32;
            let rows: BTreeSet<usize> = visible.iter().map(|(i, _)| *i).collect();
            ideal_score += rows.len() as f32 / n as f32;
            asked.push(cells.iter().map(|(i, j)| real[*i] * pos + real[*j]).collect::<Vec<usize>>());
        }
        detector.uniform = Some(alike / batch as f32);
        detector.ideal = Some(ideal_score / batch as f32);
        let spread = |(heads, pattern): &(usize, Vec<f32>)| -> Vec<f32> {
            let score = |b: usize, h: usize| -> f32 {
                let cells = &pattern[(b * heads + h) * pos * pos..][..pos * pos];
                asked[b].iter().map(|at| cells[*at]).sum::<f32>() / real[b].len() as f32
            };
            let of_head = |h| deviation(&(0..batch).map(|b| score(b, h)).collect::<Vec<f32>>());
            (0..*heads).map(of_head).collect()
        };
        detector.spread = layers.iter().map(spread).collect();
    }
    Ok(())
}

fn deviation(values: &[f32]) -> f32 {
    let n = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt()
}

/// The configuration in rows, model first.
fn settings(run: &RunDir) -> Vec<(String, String)> {
    fn rows(prefix: &str, of: &impl Serialize) -> Vec<(String, String)> {
        let value = serde_json::to_value(of).expect("plain data is always JSON");
        let row = |(key, value): (&String, &serde_json::Value)| {
            (format!("{prefix}.{key}"), value.to_string().trim_matches('"').to_string())
        };
        value.as_object().into_iter().flatten().map(row).collect()
    }
    let config = run.config();
    let mut all = rows("model", &config.model);
    all.extend(rows("learner", &config.learner));
    all.extend(rows("data", &config.data));
    all.extend(rows("train", &config.train));
    all.push(("seed".into(), config.seed.map_or("not known".into(), |seed| seed.to_string())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironlens_report::Finding;
    use ironlens_tensor::IndexTensor;
    use ironlens_transformer::{ActFn, Config};

    /// What heads do that are made to be of one kind, and one that attends to all it sees alike.
    const KINDS: [Option<HeadKind>; 6] = [
        Some(HeadKind::PreviousToken),
        Some(HeadKind::CurrentToken),
        Some(HeadKind::FirstToken),
        Some(HeadKind::Induction),
        Some(HeadKind::DuplicateToken),
        None,
    ];

    /// A model of one layer whose heads look where `KINDS` say on these tokens; where there is no such place, and in
    /// the last head, at all they see alike.
    fn made(tokens: &IndexTensor) -> HookedTransformer {
        let cfg = Config {
            d_model: 24,
            d_head: 4,
            n_heads: KINDS.len(),
            n_layers: 1,
            n_ctx: 64,
            d_vocab: 50,
            act_fn: ActFn::Gelu,
            ..Config::default()
        };
        let mut model = HookedTransformer::new(cfg, &Device::Cpu, 5).unwrap();
        let (batch, n) = (tokens.shape()[0], tokens.shape()[1]);
        let mut cells = Vec::new();
        for ids in tokens.as_slice().chunks(n) {
            for kind in KINDS {
                let asked = kind.map_or(vec![0.0; n * n], |k| k.pattern(ids).to_vec());
                for (i, row) in asked.chunks(n).enumerate() {
                    let found: f32 = row.iter().sum();
                    let alike = |j: usize| if j <= i { 1.0 / (i + 1) as f32 } else { 0.0 };
                    cells.extend((0..n).map(|j| if found > 0.0 { row[j] / found } else { alike(j) }));
                }
            }
        }
        let pattern = Tensor::from_vec(cells, &[batch, KINDS.len(), n, n], &Device::Cpu);
        model
            .add_perma_hook("blocks.0.attn.hook_pattern", move |x, _| {
                *x = pattern.clone().into();
            })
            .unwrap();
        model
    }

    fn found(loss: f64) -> Vec<Finding> {
        // Random tokens said twice, so that there is something to induce.
        let rows: Vec<u32> = (0..4u32)
            .flat_map(|b| {
                let half = (0..15).map(move |i: u32| 1 + (i * i * 7 + i * 13 + b * 29) % 49);
                std::iter::once(0).chain(half.clone()).chain(half)
            })
            .collect();
        let tokens = IndexTensor::new(rows, &[4, 31]);
        let model = made(&tokens);
        let (_, cache) = model.run_with_cache(&tokens).unwrap();
        let mut all = detectors(&model, &model, &tokens.clone().into()).unwrap();
        baselines(&mut all, &cache, &tokens.into()).unwrap();
        let metrics = vec![StepRow { step: 1, loss, ..StepRow::default() }];
        Report { metrics, chance_loss: Some(4.0), detectors: all, ..Report::default() }.found()
    }

    #[test]
    fn made_heads_get_the_name_of_their_kind() {
        let found = found(0.5);
        for (head, kind) in KINDS.iter().enumerate() {
            let own: Vec<&Finding> = found.iter().filter(|f| f.text.contains(&format!("L0H{head} "))).collect();
            match kind {
                Some(kind) => {
                    let expected = match kind {
                        HeadKind::Induction | HeadKind::DuplicateToken => format!(" {} head", kind.label()),
                        _ => format!("attends to the {}", kind.label()),
                    };
                    assert!(own.len() == 1 && own[0].text.contains(&expected), "head {head}, {expected}: {found:#?}");
                }
                None => assert!(own.is_empty(), "a head that attends alike has no role: {own:#?}"),
            }
        }
    }

    #[test]
    fn padding_counts_for_nothing() {
        let cfg = Config {
            d_model: 12,
            d_head: 4,
            n_heads: 3,
            n_layers: 1,
            n_ctx: 8,
            d_vocab: 20,
            act_fn: ActFn::Gelu,
            ..Config::default()
        };
        let model = HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap();
        let told = |sequences: Sequences| {
            let (_, cache) = sequences.call(&model).cached().unwrap();
            let mut all = detectors(&model, &model, &sequences).unwrap();
            baselines(&mut all, &cache, &sequences).unwrap();
            all.into_iter().flat_map(|d| d.after.concat().into_iter().chain(d.uniform)).collect::<Vec<f32>>()
        };
        let alone = told(IndexTensor::from([[3, 9, 3, 9, 4]]).into());
        let (tokens, mask) = (
            IndexTensor::from([[0, 0, 3, 9, 3, 9, 4], [3, 9, 3, 9, 4, 0, 0]]),
            IndexTensor::from([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]),
        );
        for (padded, alone) in told((&tokens, &mask).into()).into_iter().zip(alone) {
            assert!((padded - alone).abs() < 1e-5, "{padded} with padding, {alone} without");
        }
    }

    #[test]
    fn a_model_at_chance_gets_no_names() {
        assert_eq!(found(3.99), []);
    }
}
