//! Analyses of a pretrained model on a text: where an answer comes from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ironlens_lens::attribution::attribution_patch;
use ironlens_lens::heads::{HeadKind, head_scores};
use ironlens_lens::logits::{Units, direct_logit_attribution, logit_lens};
use ironlens_lens::patching::{PatchOptions, Patching};
use ironlens_lens::{CacheExt, Metric, StackOptions, WeightsExt, test_prompt};
use ironlens_report::{Report, Snapshot};
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{ActivationCache, HookedTransformer};

use super::picture::{Analysis, Picture};
use super::sections::{Found, by_head, last_predictions, layer_labels, part};
use crate::input::read_text;
use crate::prompt::{Question, questions};

/// Parts shown in a picture of the largest ones.
const SHOWN: usize = 20;

/// A prompt as tokens, what should follow it, and the same prompt with another answer.
struct Case {
    question: Question,
    tokens: IndexTensor,
    labels: Vec<String>,
    answer: u32,
    wrong: Option<u32>,
    corrupted: Result<IndexTensor, String>,
}

/// What is analysed: a model on prompts, the first of which was run.
struct Subject<'s> {
    model: &'s HookedTransformer,
    cases: &'s [Case],
    logits: Tensor,
    cache: ActivationCache,
}

/// What was asked for: a text, or a file with a question a line.
pub fn asked(text: &str, answer: Option<&str>, wrong: Option<&str>, corrupted: Option<&str>) -> Result<Vec<Question>> {
    let file = Path::new(text);
    if file.is_file() {
        if answer.is_some() || wrong.is_some() || corrupted.is_some() {
            bail!("{text} is a file, whose lines have their own answers; leave out --answer, --wrong and --corrupted");
        }
        return questions(&read_text(file, "the prompts")?);
    }
    let own = |t: Option<&str>| t.map(String::from);
    Ok(vec![Question { prompt: text.into(), answer: own(answer), wrong: own(wrong), corrupted: own(corrupted) }])
}

/// Analyses a model on questions, and gives the report with its figures.
///
/// # Errors
/// If the model has no tokenizer, or a text does not fit it.
pub fn analyse(model: &HookedTransformer, name: &str, questions: Vec<Question>) -> Result<(Report, Analysis)> {
    let cases: Vec<Case> = questions.into_iter().map(|q| Case::new(model, q)).collect::<Result<_>>()?;
    let first = cases.first().context("there is no prompt")?;
    let (logits, cache) = model.run_with_cache(&first.tokens)?;
    let subject = Subject { model, cases: &cases, logits, cache };
    type Analyser = fn(&Subject<'_>) -> Result<Found>;
    let all: [(&str, Analyser); 6] = [
        ("What follows", continuation),
        ("When the answer appears: logit lens", lens),
        ("What makes the answer: direct logit attribution", direct),
        ("Where the answer is: activation patching", patching),
        ("What the answer depends on: attribution patching", attribution),
        ("What each head attends to", heads),
    ];
    let parts = all.map(|(title, run)| part(title, "here", run(&subject)));
    let analysis = Analysis { step: None, sections: parts.into() };
    let pattern = |l| {
        // Of the only sequence, [head, query, key].
        let pattern = subject.cache.get(("pattern", l))?.select(0, 0).contiguous();
        crate::report::array(&pattern)
    };
    let layers = (0..model.config().n_layers).map(pattern).collect::<Result<_>>()?;
    let report = Report {
        title: name.into(),
        subtitle: match cases.len() {
            1 => first.question.prompt.clone(),
            n => format!("{n} prompts, the first of them: {}", first.question.prompt),
        },
        facts: vec![
            ("answer".into(), format!("{:?}", model.to_single_str_token(first.answer)?)),
            ("layers".into(), model.config().n_layers.to_string()),
            ("heads".into(), model.config().n_heads().to_string()),
        ],
        model_tree: format!("{model}"),
        tokens: first.labels.clone(),
        snapshots: vec![Snapshot { step: 0, label: "this prompt".into(), layers }],
        snapshot_source: "the first prompt".into(),
        sections: analysis.to_sections()?,
        ..Report::default()
    };
    Ok((report, analysis))
}

impl Case {
    fn new(model: &HookedTransformer, question: Question) -> Result<Case> {
        let tokens = model.to_tokens(&question.prompt)?;
        let one = |text: &str| -> Result<u32> {
            let whole = ironlens_transformer::TokenOptions::prepend_bos(false);
            let ids = model.to_tokens_with(text, &whole)?.tokens;
            ids.as_slice().first().copied().with_context(|| format!("{text:?} has no tokens"))
        };
        let answer = match &question.answer {
            Some(answer) => one(answer)?,
            // What the model itself says.
            None => last_predictions(&model.forward(&tokens)?).as_slice()[0],
        };
        let wrong = question.wrong.as_deref().map(one).transpose()?;
        if wrong == Some(answer) {
            let text = model.to_single_str_token(answer)?;
            bail!("the answer and the wrong one begin with the same token, {text:?}; give others");
        }
        let corrupted = corrupted(model, &question, &tokens);
        let labels = model.to_str_tokens(tokens.as_slice())?;
        Ok(Case { question, tokens, labels, answer, wrong, corrupted })
    }

    /// The logit of the answer at the last position, less that of the wrong one.
    fn metric(&self) -> Result<Metric<'static>> {
        let answer = IndexTensor::new(vec![self.answer], &[1]);
        Ok(match self.wrong {
            Some(wrong) => Metric::logit_diff(&[self.answer], &[wrong])?,
            None => Metric::last(move |logits| logits.gather(1, &answer.reshape(&[1, 1])).mean_all()),
        })
    }

    fn corrupted(&self) -> Result<&IndexTensor> {
        self.corrupted.as_ref().map_err(|why| anyhow::anyhow!("{why}"))
    }

    fn directions(&self, model: &HookedTransformer) -> Result<Tensor> {
        let right = model.tokens_to_residual_directions(self.answer)?;
        Ok(match self.wrong {
            Some(wrong) => &right - &model.tokens_to_residual_directions(wrong)?,
            None => right,
        })
    }

    /// What the metric is, in words.
    fn what(&self, model: &HookedTransformer) -> Result<String> {
        let text = |token| model.to_single_str_token(token).map(|t| format!("{t:?}"));
        Ok(match self.wrong {
            Some(wrong) => format!("the logit of {} less that of {}", text(self.answer)?, text(wrong)?),
            None => format!("the logit of {}", text(self.answer)?),
        })
    }
}

/// The prompt with another answer: as given, or with the wrong answer's last mention replaced by the right one.
fn corrupted(model: &HookedTransformer, q: &Question, tokens: &IndexTensor) -> Result<IndexTensor, String> {
    let text = match (&q.corrupted, q.answer.as_deref().map(str::trim), q.wrong.as_deref().map(str::trim)) {
        (Some(text), _, _) => text.clone(),
        (None, Some(answer), Some(wrong)) if !answer.is_empty() && !wrong.is_empty() && q.prompt.contains(wrong) => {
            let at = q.prompt.rfind(wrong).unwrap_or(0);
            format!("{}{answer}{}", &q.prompt[..at], &q.prompt[at + wrong.len()..])
        }
        _ => return Err("there is no corrupted prompt; give one with --corrupted".into()),
    };
    let other = model.to_tokens(&text).map_err(|e| e.to_string())?;
    if other.shape() != tokens.shape() {
        let (a, b) = (tokens.shape()[1], other.shape()[1]);
        return Err(format!("the prompt has {a} tokens and the corrupted one, {text:?}, {b}; give one of as many"));
    }
    if other.as_slice() == tokens.as_slice() {
        return Err("the corrupted prompt is the prompt itself; give another with --corrupted".into());
    }
    Ok(other)
}

/// Positions with their tokens, none of which is empty or like another.
fn positions(case: &Case) -> Vec<String> {
    case.labels.iter().enumerate().map(|(i, t)| format!("{i} {t}")).collect()
}

fn continuation(subject: &Subject<'_>) -> Result<Found> {
    let (model, cases) = (subject.model, subject.cases);
    let first = &cases[0];
    let answer = model.to_single_str_token(first.answer)?;
    let test = test_prompt(model, &first.question.prompt, &answer, false)?;
    let step = test.steps.first().context("the answer has no tokens")?;
    let mut sum = 0.0;
    let mut right = 0;
    for (i, case) in cases.iter().enumerate() {
        let logits = if i == 0 { subject.logits.clone() } else { model.forward(&case.tokens)? };
        sum += case.metric()?.of(&logits);
        right += usize::from(last_predictions(&logits).as_slice()[0] == case.answer);
    }
    let mean = sum / cases.len() as f64;
    let mut prose = format!(
        "After {:?} the model gives {answer:?} rank {} and a probability of {:.2}%; {} is {:.3}.",
        first.question.prompt,
        step.rank,
        100.0 * step.answer.probability,
        first.what(model)?,
        first.metric()?.of(&subject.logits),
    );
    if cases.len() > 1 {
        prose += &format!(
            " Over all {} prompts it is {mean:.3} on average, and the answer is first in {right}.",
            cases.len()
        );
    }
    let bars = Picture::Bars {
        title: "The likeliest next tokens".into(),
        value: "probability".into(),
        labels: step.top.iter().map(|c| format!("{:?}", c.text)).collect(),
        values: step.top.iter().map(|c| c.probability).collect(),
    };
    Ok((prose, vec![bars]))
}

fn lens(subject: &Subject<'_>) -> Result<Found> {
    let (model, cases) = (subject.model, subject.cases);
    let case = &cases[0];
    let stack = subject.cache.accumulated_resid(&StackOptions::default(), false)?;
    // [layer, pos, d_model] of the only sequence.
    let streams = stack.values.select(1, 0);
    let normalized = model.ln_final(&streams);
    let by_position = (&normalized * &case.directions(model)?).sum(&[2]);
    let last = streams.dim(1) - 1;
    let chances = logit_lens(model, &streams.select(1, last), 0)?.softmax();
    let (best_chance, best) = chances.topk(1, 1);
    let values = chances.to_vec_f64();
    let vocab = chances.dim(1);
    let answers = (0..chances.dim(0)).map(|l| values[l * vocab + case.answer as usize]).collect();
    let mut says = Vec::new();
    for (label, &token) in stack.labels.iter().zip(best.as_slice()) {
        says.push(format!("{label}: {:?}", model.to_single_str_token(token)?));
    }
    let prose = format!(
        "The stream before each layer, read out as if it were the last: {} at every position, and the probability of the \
         answer at the last one. There the likeliest tokens are, layer by layer, {}.",
        case.what(model)?,
        says.join(", ")
    );
    let curves = vec![("answer".to_string(), answers), ("likeliest".to_string(), best_chance.to_vec_f64())];
    Ok((
        prose,
        vec![
            Picture::heatmap(format!("Logit lens: {}", case.what(model)?), ["", "position"], &by_position)
                .labels(stack.labels.clone(), positions(case)),
            Picture::Lines {
                title: "Probability at the last position".into(),
                x: "layer".into(),
                y: "probability".into(),
                curves,
            },
        ],
    ))
}

fn direct(subject: &Subject<'_>) -> Result<Found> {
    let (model, cases) = (subject.model, subject.cases);
    let (layers, heads) = (model.config().n_layers, model.config().n_heads());
    let mut labels: Vec<String> = Vec::new();
    let mut sums: Vec<f64> = Vec::new();
    let mut by_heads = true;
    for (i, case) in cases.iter().enumerate() {
        let other = if i == 0 { None } else { Some(model.run_with_cache(&case.tokens)?.1) };
        let cache = other.as_ref().unwrap_or(&subject.cache);
        let (right, wrong) =
            (IndexTensor::new(vec![case.answer], &[1]), case.wrong.map(|w| IndexTensor::new(vec![w], &[1])));
        let found = match direct_logit_attribution(cache, &right, wrong.as_ref(), -1, Units::Heads) {
            Ok(found) => found,
            // Norms after attention leave no parts of single heads.
            Err(_) => {
                by_heads = false;
                direct_logit_attribution(cache, &right, wrong.as_ref(), -1, Units::Sublayers)?
            }
        };
        sums.resize(found.values.len(), 0.0);
        sums.iter_mut().zip(&found.values).for_each(|(sum, v)| *sum += v / cases.len() as f64);
        labels = found.labels;
    }
    let total: f64 = sums.iter().sum();
    let mut order: Vec<usize> = (0..sums.len()).collect();
    order.sort_by(|a, b| sums[*b].abs().total_cmp(&sums[*a].abs()));
    let shown: Vec<usize> = order.into_iter().take(SHOWN).collect();
    let mut pictures = vec![Picture::Bars {
        title: format!("The {} parts that add most", shown.len()),
        value: "logit".into(),
        labels: shown.iter().map(|i| labels[*i].clone()).collect(),
        values: shown.iter().map(|i| sums[*i]).collect(),
    }];
    if by_heads {
        let value = |label: String| labels.iter().position(|l| *l == label).map_or(0.0, |i| sums[i]);
        let values = (0..layers * heads).map(|i| value(format!("L{}H{}", i / heads, i % heads))).collect();
        let grid = Tensor::from_vec_f64(values, &[layers, heads]);
        pictures.push(by_head(model, "What each head adds", &grid));
    }
    let prose = format!(
        "At the last position {} is {total:.3}{}: the sum of what each part of the model writes in that direction, with \
         the final norm's scale held fixed.{}",
        cases[0].what(model)?,
        if cases.len() > 1 { " on average" } else { "" },
        if by_heads {
            ""
        } else {
            " What single heads write is normalised together in this model, and is not told apart."
        }
    );
    Ok((prose, pictures))
}

fn patching(subject: &Subject<'_>) -> Result<Found> {
    let (model, cases) = (subject.model, subject.cases);
    let case = &cases[0];
    let corrupted = case.corrupted()?;
    let metric = case.metric()?;
    let clean = metric.of(&subject.logits);
    let session = Patching::new(model, corrupted, &subject.cache, &metric)?;
    let worse = session.corrupted();
    if (clean - worse).abs() < 1e-6 {
        bail!("{} is {clean:.3} for both prompts, so nothing can bring it back", case.what(model)?);
    }
    let mut pictures = Vec::new();
    let mut by_position = |title: &str, values: Tensor| {
        pictures.push(Picture::heatmap(title, ["", "position"], &values).labels(layer_labels(model), positions(case)));
    };
    let options = PatchOptions::default;
    by_position("Residual stream before each layer", session.resid_pre(options())?.normalized(clean));
    by_position("Attention output", session.attn_out(options())?.normalized(clean));
    if !model.config().attn_only {
        by_position("MLP output", session.mlp_out(options())?.normalized(clean));
    }
    for (title, result) in [
        ("Head output", session.attn_head_out_all_pos(options())?),
        ("Attention pattern of a head", session.attn_head_pattern_all_pos(options())?),
    ] {
        pictures.push(by_head(model, title, &result.normalized(clean)));
    }
    let changed: Vec<String> = (0..case.labels.len())
        .filter(|&i| case.tokens.as_slice()[i] != corrupted.as_slice()[i])
        .map(|i| {
            let other = model.to_single_str_token(corrupted.as_slice()[i]).unwrap_or_default();
            format!("{:?} at position {i} becomes {other:?}", case.labels[i])
        })
        .collect();
    let prose = format!(
        "In the corrupted prompt {}. Each cell runs it with one activation of the original in its place. 1 brings {} back \
         to {clean:.3}, 0 leaves it at {worse:.3}.",
        changed.join(" and "),
        case.what(model)?
    );
    Ok((prose, pictures))
}

fn attribution(subject: &Subject<'_>) -> Result<Found> {
    let (model, cases) = (subject.model, subject.cases);
    let case = &cases[0];
    let corrupted = case.corrupted()?;
    let (layers, heads) = (model.config().n_layers, model.config().n_heads());
    let names = |n: &str| n.ends_with("attn.hook_z") || n.ends_with("hook_resid_pre");
    let found = attribution_patch(model, &case.tokens, corrupted, &case.metric()?, names, 1)?;
    let mut of_heads = Vec::new();
    let mut by_position = Vec::new();
    for l in 0..layers {
        let get = |name: &str| found.get(name).with_context(|| format!("there is no {name}"));
        of_heads.push(get(&format!("blocks.{l}.attn.hook_z"))?.sum(&[0, 1, 3]));
        by_position.push(get(&format!("blocks.{l}.hook_resid_pre"))?.sum(&[0, 2]));
    }
    let grid = Tensor::stack(&of_heads, 0).reshape(&[layers, heads]);
    let prose = format!(
        "The estimate of patching from one pass back: the difference of each activation between the two prompts, times \
         the gradient of {} in the corrupted one. It is in logits, and right as far as the model is linear between the two.",
        case.what(model)?
    );
    Ok((
        prose,
        vec![
            by_head(model, "Heads", &grid),
            Picture::heatmap("Residual stream before each layer", ["", "position"], &Tensor::stack(&by_position, 0))
                .labels(layer_labels(model), positions(case)),
        ],
    ))
}

fn heads(subject: &Subject<'_>) -> Result<Found> {
    let (model, cases) = (subject.model, subject.cases);
    let scores = head_scores(model, &cases[0].tokens, &HeadKind::ALL)?;
    let pictures =
        HeadKind::ALL.iter().zip(&scores).map(|(kind, score)| by_head(model, kind.label(), score).unsigned()).collect();
    let prose =
        "The share of each head's attention in the first prompt that lies where a head of this kind would look."
            .to_string();
    Ok((prose, pictures))
}

/// The page that is written where no name is given.
pub fn page_of(name: &str) -> PathBuf {
    let stem = Path::new(name).file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned());
    PathBuf::from(format!("{stem}.analysis.html"))
}
