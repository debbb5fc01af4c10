//! The standard analyses of prompts.

use ironlens_lens::attribution::attribution_patch;
use ironlens_lens::heads::{HeadKind, head_scores};
use ironlens_lens::logits::{Units, direct_logit_attribution, logit_lens};
use ironlens_lens::patching::{PatchOptions, Patching};
use ironlens_lens::{CacheExt, StackOptions, test_prompt};
use ironlens_report::grouped;
use ironlens_tensor::{IndexTensor, Tensor};

use super::Prompts;
use super::over::{Over, mean, spread};
use crate::analyser::{Analyser, Failure, Found};
use crate::error::StudyError;
use crate::findings::{DIFFERENCE, LIKELIEST};
use crate::picture::Picture;
use crate::sections::{in_words, last_predictions};

/// The standard analyses of prompts, in the order of a report.
pub const ANALYSERS: &[Analyser<Prompts>] = &[
    Analyser { title: "What follows", run: continuation },
    Analyser { title: "When the answer appears: logit lens", run: lens },
    Analyser { title: "What makes the answer: direct logit attribution", run: direct },
    Analyser { title: "Where the answer is: activation patching", run: patching },
    Analyser { title: "What the answer depends on: attribution patching", run: attribution },
    Analyser { title: "What each head attends to", run: heads },
];

/// Parts shown in a picture of the largest ones.
const SHOWN: usize = 20;

/// Metrics nearer to each other than this are taken for the same.
const SAME: f64 = 1e-6;

impl Prompts {
    /// The metric in words: by its tokens if there is one prompt.
    fn what(&self) -> Result<String, StudyError> {
        Ok(match (self.cases.as_slice(), self.cases.iter().any(|c| c.wrong.is_some())) {
            ([one], _) => one.what(&self.model)?,
            (_, false) => "the logit of the answer".into(),
            (_, true) => "the logit of the answer less that of the wrong one".into(),
        })
    }

    /// Every prompt.
    fn all(&self) -> Vec<usize> {
        (0..self.cases.len()).collect()
    }

    /// The prompts that have a corrupted one.
    fn corrupted(&self) -> Result<Vec<(usize, &IndexTensor)>, Failure> {
        let all = self.cases.iter().enumerate();
        let found: Vec<_> = all.filter_map(|(i, c)| c.corrupted.as_ref().ok().map(|other| (i, other))).collect();
        match (found.is_empty(), &self.cases[0].corrupted) {
            (true, Err(why)) => Err(why.clone().into()),
            _ => Ok(found),
        }
    }
}

fn continuation(prompts: &Prompts) -> Result<Found, Failure> {
    let (model, cases) = (&prompts.model, &prompts.cases);
    let first = &cases[0];
    let answer = model.to_single_str_token(first.answer)?;
    let test = test_prompt(model, &first.question.prompt, &answer, false)?;
    let step = test.steps.first().ok_or("the answer has no tokens")?;
    let mut values = Vec::new();
    let mut right = 0;
    for (i, case) in cases.iter().enumerate() {
        let logits = if i == 0 { prompts.logits.clone() } else { model.forward(&case.tokens)? };
        values.push(vec![case.metric()?.of(&logits)]);
        right += usize::from(last_predictions(&logits).as_slice()[0] == case.answer);
    }
    let mut prose = format!(
        "After {:?} the answer {answer:?} is {} of {} tokens by its probability, {:.2}%; {} is {:.3}.",
        first.question.prompt,
        if step.rank == 0 { "the first".into() } else { format!("number {}", grouped(step.rank + 1)) },
        grouped(model.config().d_vocab_out),
        100.0 * step.answer.probability,
        first.what(model)?,
        first.metric()?.of(&prompts.logits),
    );
    if cases.len() > 1 {
        prose += &format!(
            " Over all {} prompts {} is {:.3} on average, with a standard deviation of {:.3}, and the answer is first in \
             {right}.",
            cases.len(),
            prompts.what()?,
            mean(&values)[0],
            spread(&values)[0]
        );
    }
    let (labels, values) = step.top.iter().map(|c| (format!("{:?}", c.text), c.probability)).unzip();
    let of = if cases.len() == 1 { "" } else { " of the first prompt" };
    Ok((prose, vec![Picture::bars(format!("{LIKELIEST}{of}"), "probability", labels, values)]))
}

fn lens(prompts: &Prompts) -> Result<Found, Failure> {
    let model = &prompts.model;
    let mut by_position = Over::default();
    let (mut answers, mut likeliest) = (Vec::new(), Vec::new());
    let (mut layers, mut says) = (Vec::new(), Vec::new());
    for (i, case) in prompts.cases.iter().enumerate() {
        let mut other = None;
        let (_, cache) = prompts.cache_of(i, &mut other)?;
        let stack = cache.accumulated_resid(&StackOptions::default(), false)?;
        // [layer, pos, d_model] of the only sequence.
        let streams = stack.values.select(1, 0);
        if prompts.is_aligned(case) {
            let normalized = model.ln_final(&streams);
            by_position.push(case.read(model, &normalized)?);
        }
        let last = streams.dim(1) - 1;
        let chances = logit_lens(model, &streams.select(1, last), 0)?.softmax();
        let (best_chance, best) = chances.topk(1, 1);
        let (values, vocab) = (chances.to_vec_f64(), chances.dim(1));
        answers.push((0..chances.dim(0)).map(|l| values[l * vocab + case.answer as usize]).collect::<Vec<f64>>());
        likeliest.push(best_chance.to_vec_f64());
        if i == 0 {
            for (label, &token) in stack.labels.iter().zip(best.as_slice()) {
                let name = label.strip_suffix("_pre").unwrap_or("end");
                layers.push(name.to_string());
                says.push((name.to_string(), format!("{:?}", model.to_single_str_token(token)?)));
            }
        }
    }
    let one = prompts.cases.len() == 1;
    let prose = format!(
        "The stream before each layer, and at the end, read out as if it were the last: {} at every position, and the \
         probability of the answer at the last one. There the likeliest token is{}, before layer {}. Colours reach as far \
         as the values of later layers than the first, before which the stream is the embedding alone.{}",
        prompts.what()?,
        if one { "" } else { " in the first prompt" },
        in_runs(&says),
        prompts.told(&prompts.all())
    );
    let mut pictures = by_position.pictures(&format!("Logit lens: {}", prompts.what()?), |title, values| {
        let later = values.narrow(0, 1, values.dim(0) - 1).to_vec_f64();
        let reach = later.into_iter().fold(1e-3, |most: f64, v| most.max(v.abs()));
        let picture = Picture::heatmap(title, ["before layer", "position"], values).range(-reach, reach).value("logit");
        picture.labels(layers.clone(), prompts.positions(&prompts.all()))
    });
    let mut curves = vec![("answer".to_string(), mean(&answers)), ("likeliest token".to_string(), mean(&likeliest))];
    if !one {
        let (middle, wide) = (mean(&answers), spread(&answers));
        let moved = |by: f64| middle.iter().zip(&wide).map(|(m, w)| m + by * w).collect();
        curves.push(("answer, one standard deviation below".into(), moved(-1.0)));
        curves.push(("answer, one standard deviation above".into(), moved(1.0)));
    }
    let chances = Picture::lines("Probability at the last position", ["before layer", "probability"], curves);
    // A standard deviation below a mean may be below 0.
    pictures.push(if one { chances.logarithmic() } else { chances });
    Ok((prose, pictures))
}

/// Names with what each says, those that follow each other and say the same told once: `0 "a", 1 to 3 "b"`.
fn in_runs(says: &[(String, String)]) -> String {
    let run = |of: &[(String, String)]| match of {
        [(name, text)] => format!("{name} {text}"),
        [(first, text), .., (last, _)] => format!("{first} to {last} {text}"),
        [] => String::new(),
    };
    says.chunk_by(|a, b| a.1 == b.1).map(run).collect::<Vec<_>>().join(", ")
}

fn direct(prompts: &Prompts) -> Result<Found, Failure> {
    let model = &prompts.model;
    let (layers, heads) = (model.config().n_layers, model.config().n_heads());
    let mut labels: Vec<String> = Vec::new();
    let mut values: Vec<Vec<f64>> = Vec::new();
    let mut by_heads = true;
    for (i, case) in prompts.cases.iter().enumerate() {
        let mut other = None;
        let (_, cache) = prompts.cache_of(i, &mut other)?;
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
        values.push(found.values);
        labels = found.labels;
    }
    let (means, spreads) = (mean(&values), spread(&values));
    let several = values.len() > 1;
    let total: f64 = means.iter().sum();
    let mut order: Vec<usize> = (0..means.len()).collect();
    order.sort_by(|a, b| means[*b].abs().total_cmp(&means[*a].abs()));
    let shown: Vec<usize> = order.into_iter().take(SHOWN).collect();
    let value = if prompts.cases.iter().any(|c| c.wrong.is_some()) { DIFFERENCE } else { "logit" };
    let bars = |title: String, values: &[f64]| {
        let (labels, values) = shown.iter().map(|i| (in_words(&labels[*i]), values[*i])).unzip();
        Picture::bars(title, value, labels, values)
    };
    let mut pictures = vec![bars(format!("The {} parts that add most", shown.len()), &means)];
    if several {
        pictures.push(bars("The standard deviation of what they add".into(), &spreads));
    }
    if by_heads {
        let grid = |values: &[f64]| {
            let value = |label: String| labels.iter().position(|l| *l == label).map_or(0.0, |i| values[i]);
            let values = (0..layers * heads).map(|i| value(format!("L{}H{}", i / heads, i % heads))).collect();
            Tensor::from_vec_f64(values, &[layers, heads])
        };
        pictures.push(Picture::heads("What each head adds", &grid(&means)).value("logit"));
        if several {
            pictures.push(
                Picture::heads("What each head adds, standard deviation", &grid(&spreads)).unsigned().value("logit"),
            );
        }
    }
    let prose = format!(
        "At the last position {} is {total:.3}{}: the sum of what each part of the model writes in that direction, with \
         the final norm's scale held fixed.{}",
        prompts.what()?,
        if several { format!(" on average over {} prompts", values.len()) } else { String::new() },
        if by_heads {
            ""
        } else {
            " What single heads write is normalised together in this model, and is not told apart."
        }
    );
    Ok((prose, pictures))
}

fn patching(prompts: &Prompts) -> Result<Found, Failure> {
    let model = &prompts.model;
    let by_position_titles = ["Residual stream before each layer", "Attention output", "MLP output"];
    let by_head_titles = ["Head output", "Attention pattern of a head"];
    let mut by_position: Vec<Over> = by_position_titles.iter().map(|_| Over::default()).collect();
    let mut heads: Vec<Over> = by_head_titles.iter().map(|_| Over::default()).collect();
    let mut used = Vec::new();
    let mut levels = Vec::new();
    let mut same = None;
    for (i, corrupted) in prompts.corrupted()? {
        let case = &prompts.cases[i];
        let metric = case.metric()?;
        let mut other = None;
        let (logits, cache) = prompts.cache_of(i, &mut other)?;
        let clean = metric.of(logits);
        let session = Patching::new(model, corrupted, cache, &metric)?;
        let worse = session.corrupted();
        if (clean - worse).abs() < SAME {
            same = Some(clean);
            continue;
        }
        used.push(i);
        levels.push(vec![clean, worse]);
        let options = PatchOptions::default;
        if prompts.is_aligned(case) {
            by_position[0].push(session.resid_pre(options())?.normalized(clean));
            by_position[1].push(session.attn_out(options())?.normalized(clean));
            if !model.config().attn_only {
                by_position[2].push(session.mlp_out(options())?.normalized(clean));
            }
        }
        heads[0].push(session.attn_head_out_all_pos(options())?.normalized(clean));
        heads[1].push(session.attn_head_pattern_all_pos(options())?.normalized(clean));
    }
    if used.is_empty() {
        let clean = same.unwrap_or_default();
        let both = format!("{} is {clean:.3} for both prompts", prompts.what()?);
        return Err(format!("{both}, so nothing can bring it back").into());
    }
    let mut pictures = Vec::new();
    for (over, title) in by_position.iter().zip(by_position_titles).filter(|(over, _)| !over.is_empty()) {
        pictures.extend(over.pictures(title, |title, values| {
            let picture =
                Picture::heatmap(title, ["layer", "position"], values).range(-1.0, 1.0).value("share restored");
            picture.labels(vec![], prompts.positions(&used))
        }));
    }
    for (over, title) in heads.iter().zip(by_head_titles) {
        let draw = |title, values: &Tensor| Picture::heads(title, values).range(-1.0, 1.0).value("share restored");
        pictures.extend(over.pictures(title, draw));
    }
    let (what, level) = (prompts.what()?, mean(&levels));
    let prose = match prompts.cases.as_slice() {
        [case] => format!(
            "In the corrupted prompt {}. Each cell runs it with one activation of the original in its place. 1 brings {what} \
             back to {:.3}, 0 leaves it at {:.3}.",
            case.changes(model, prompts.corrupted()?[0].1),
            level[0],
            level[1]
        ),
        _ => format!(
            "Each corrupted prompt has another answer. Each cell runs it with one activation of its original in its place. 1 \
             brings {what} back to the original's, {:.3} on average, 0 leaves it at the corrupted one's, {:.3}.{}",
            level[0],
            level[1],
            prompts.told(&used)
        ),
    };
    Ok((prose, pictures))
}

fn attribution(prompts: &Prompts) -> Result<Found, Failure> {
    let model = &prompts.model;
    let (layers, heads) = (model.config().n_layers, model.config().n_heads());
    let (mut of_heads, mut by_position) = (Over::default(), Over::default());
    let mut used = Vec::new();
    for (i, corrupted) in prompts.corrupted()? {
        let case = &prompts.cases[i];
        let names = |n: &str| n.ends_with("attn.hook_z") || n.ends_with("hook_resid_pre");
        let found = attribution_patch(model, &case.tokens, corrupted, &case.metric()?, names, 1)?;
        let of_layers = |name: &str, axes: &[usize]| {
            let of_layer = |l: usize| {
                let name = format!("blocks.{l}.{name}");
                found.get(&name).map(|v| v.sum(axes)).ok_or_else(|| format!("there is no {name}"))
            };
            Ok::<_, String>(Tensor::stack(&(0..layers).map(of_layer).collect::<Result<Vec<_>, _>>()?, 0))
        };
        used.push(i);
        of_heads.push(of_layers("attn.hook_z", &[0, 1, 3])?.reshape(&[layers, heads]));
        if prompts.is_aligned(case) {
            by_position.push(of_layers("hook_resid_pre", &[0, 2])?);
        }
    }
    let prose = format!(
        "The estimate of patching from one pass back: the difference of each activation between the two prompts, times \
         the gradient of {} in the corrupted one. It is in logits, and right as far as the model is linear between the \
         two.{}",
        prompts.what()?,
        prompts.told(&used)
    );
    let draw = |title, values: &Tensor| Picture::heads(title, values).value("logits");
    let mut pictures = of_heads.pictures("Head output, estimated", draw);
    if !by_position.is_empty() {
        pictures.extend(by_position.pictures("Residual stream before each layer, estimated", |title, values| {
            let picture = Picture::heatmap(title, ["layer", "position"], values).value("logits");
            picture.labels(vec![], prompts.positions(&used))
        }));
    }
    Ok((prose, pictures))
}

fn heads(prompts: &Prompts) -> Result<Found, Failure> {
    let model = &prompts.model;
    let mut of_kinds: Vec<Over> = HeadKind::ALL.iter().map(|_| Over::default()).collect();
    for case in &prompts.cases {
        for (over, scores) in of_kinds.iter_mut().zip(head_scores(model, &case.tokens, &HeadKind::ALL)?) {
            over.push(scores);
        }
    }
    let mut pictures = Vec::new();
    for (kind, over) in HeadKind::ALL.iter().zip(&of_kinds) {
        pictures.extend(over.pictures(kind.label(), |title, values| {
            Picture::heads(title, values).unsigned().range(0.0, 1.0).value("share")
        }));
    }
    let where_ = if prompts.cases.len() == 1 { "in the first prompt" } else { "in each prompt" };
    let prose = format!(
        "The share of each head's attention {where_} that lies where a head of this kind would look.{}",
        prompts.told(&prompts.all())
    );
    Ok((prose, pictures))
}
