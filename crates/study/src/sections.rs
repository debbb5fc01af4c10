//! The standard set of analyses.

use ironlens_lens::ablation::{Ablation, Parts, ablate};
use ironlens_lens::heads::{HeadKind, head_scores};
use ironlens_lens::logits::{Units, direct_logit_attribution};
use ironlens_lens::patching::{PatchOptions, PatchResult, Patching};
use ironlens_lens::patterns::{attention_distance, attention_entropy};
use ironlens_lens::{Composition, FactoredMatrix, Metric, WeightsExt};
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::HookedTransformer;

use crate::analyser::{Analyser, Failure, Found};
use crate::picture::Picture;
use crate::subject::Subject;

/// Positions shown of matrices over pairs of positions.
const SHOWN_POSITIONS: usize = 32;

/// The standard analyses, in the order of a report.
pub const ANALYSERS: &[Analyser] = &[
    Analyser { title: "What each head attends to", run: heads },
    Analyser { title: "What makes the prediction", run: attribution },
    Analyser { title: "Where the answer is: patching", run: patches },
    Analyser { title: "What is needed: ablation", run: ablations },
    Analyser { title: "QK and OV circuits", run: circuits },
    Analyser { title: "Which heads build on which", run: composition },
];

/// `layer 0` and so on.
pub fn layer_labels(model: &HookedTransformer) -> Vec<String> {
    (0..model.config().n_layers).map(|l| format!("layer {l}")).collect()
}

/// A picture of values `[layer, head]`.
pub fn by_head(model: &HookedTransformer, title: impl Into<String>, values: &Tensor) -> Picture {
    let heads = (0..model.config().n_heads()).map(|h| h.to_string()).collect();
    Picture::heatmap(title, ["", "head"], values).labels(layer_labels(model), heads)
}

/// What the model predicts at the last position of each sequence, `[batch]`, of logits `[batch, pos, d_vocab]`.
pub fn last_predictions(logits: &Tensor) -> IndexTensor {
    logits.select(1, logits.dim(1) - 1).argmax(-1)
}

fn heads(subject: &Subject) -> Result<Found, Failure> {
    let (model, tokens) = (&subject.model, &subject.tokens);
    let (_, cache) = model.run_with_cache(tokens)?;
    let mut pictures = Vec::new();
    if let Ok(scores) = head_scores(model, tokens, &HeadKind::ALL) {
        let rows: Vec<Tensor> = scores.iter().map(|s| s.reshape(&[1, s.numel()])).collect();
        let kinds = HeadKind::ALL.iter().map(|k| k.label().to_string()).collect();
        let grid = Picture::heatmap("Head detectors", ["", "head"], &Tensor::cat(&rows, 0));
        pictures.push(grid.labels(kinds, model.all_head_labels()).unsigned());
    }
    pictures.push(by_head(&subject.model, "Entropy of attention, nats", &attention_entropy(&cache)?).unsigned());
    pictures.push(
        by_head(&subject.model, "Mean distance of attention, positions", &attention_distance(&cache)?).unsigned(),
    );
    let prose = format!(
        "Means over {} sequences. A detector's score is the share of a head's attention that lies where such a head \
         would look. Entropy is 0 for a head that looks at one position, ln n for one that looks at n alike.",
        tokens.shape()[0]
    );
    Ok((prose, pictures))
}

fn attribution(subject: &Subject) -> Result<Found, Failure> {
    let predicted = subject.predictions(&subject.tokens)?;
    let (_, cache) = subject.model.run_with_cache(&subject.tokens)?;
    let found = direct_logit_attribution(&cache, &predicted, None, -1, Units::Heads)?;
    let prose = format!(
        "The logit of the predicted token at the last position, {:.3} on average over {} sequences, as the sum of what \
         each part of the model writes in its direction. The final norm's scale is held fixed; its bias and b_U are \
         parts of their own, and the remainder is what rounding leaves.",
        found.total,
        subject.tokens.shape()[0]
    );
    let bars = Picture::bars("Direct logit attribution", "logit", found.labels, found.values);
    Ok((prose, vec![bars]))
}

/// Patching from a sequence to the same with the last token but one replaced.
fn patches(subject: &Subject) -> Result<Found, Failure> {
    let (model, cfg) = (&subject.model, subject.model.config());
    let pos = subject.tokens.shape()[1];
    let clean = subject.tokens.rows(&[0]);
    let mut ids = clean.as_slice().to_vec();
    let replaced = pos - 2;
    let other = (ids[replaced] as usize + cfg.d_vocab / 2).max(1) % cfg.d_vocab;
    ids[replaced] = other as u32;
    let corrupted = IndexTensor::new(ids, clean.shape());
    let right = subject.predictions(&clean)?.as_slice()[0];
    let mut wrong = subject.predictions(&corrupted)?.as_slice()[0];
    if wrong == right {
        wrong = (right + 1) % cfg.d_vocab_out as u32;
    }
    let metric = Metric::logit_diff(&[right], &[wrong])?;
    let (logits, cache) = model.run_with_cache(&clean)?;
    let m_clean = metric.of(&logits);

    let shown = |result: PatchResult| {
        // A difference too small to divide by is shown as it is.
        let values = match (m_clean - result.corrupted).abs() > 1e-6 {
            true => result.normalized(m_clean),
            false => result.values,
        };
        // Nothing before the replaced token differs.
        let from = if values.ndim() == 2 && values.dim(1) == pos { replaced.saturating_sub(6) } else { 0 };
        (values.narrow(1, from, values.dim(1) - from), from)
    };
    let mut pictures = Vec::new();
    let mut by_position = |title: &str, result| {
        let (values, from) = shown(result);
        let columns = (from..pos).map(|p| p.to_string()).collect();
        pictures.push(Picture::heatmap(title, ["", "position"], &values).labels(layer_labels(model), columns));
    };
    let options = PatchOptions::default;
    let patching = Patching::new(model, &corrupted, &cache, &metric)?;
    by_position("Residual stream before each layer", patching.resid_pre(options())?);
    by_position("Attention output", patching.attn_out(options())?);
    if !cfg.attn_only {
        by_position("MLP output", patching.mlp_out(options())?);
    }
    let output = patching.attn_head_out_all_pos(options())?;
    pictures.push(by_head(&subject.model, "Head output", &shown(output).0));
    let pattern = patching.attn_head_pattern_all_pos(options())?;
    pictures.push(by_head(&subject.model, "Attention pattern of a head", &shown(pattern).0));
    let prose = format!(
        "One sequence, and the same with token {replaced} replaced. Each cell runs the replaced sequence with one \
         activation of the original in its place. 1 brings the original answer (token {right} over {wrong} at the last \
         position, a logit difference of {m_clean:.3}) back in full, 0 does nothing. Positions well before the replaced \
         token are left out: nothing differs there."
    );
    Ok((prose, pictures))
}

fn ablations(subject: &Subject) -> Result<Found, Failure> {
    let (model, tokens) = (&subject.model, &subject.tokens);
    let predicted = subject.predictions(tokens)?;
    let metric = Metric::last(move |logits| logits.cross_entropy(&predicted).mean_all());
    let mut pictures = Vec::new();
    let heads_and_mlps = [(Parts::Heads, model.all_head_labels()), (Parts::Mlps, mlp_labels(model))];
    for (by, how) in [(Ablation::Zero, "set to zero"), (Ablation::Mean(tokens.clone().into()), "set to its mean")] {
        let (mut labels, mut values) = (Vec::new(), Vec::new());
        for (parts, names) in heads_and_mlps.iter().filter(|(_, names)| !names.is_empty()) {
            let result = ablate(model, tokens, &metric, *parts, &by, PatchOptions::default())?;
            labels.extend(names.iter().cloned());
            values.extend(result.values.to_vec_f64().iter().map(|v| v - result.corrupted));
        }
        pictures.push(Picture::bars(format!("Each part {how}"), "rise of the loss", labels, values));
    }
    let prose = "How much the loss of the model's own predictions at the last position rises when the output of one part is \
                 replaced everywhere: by zero, or by its mean over the sequences at each position, which keeps what does not \
                 depend on the tokens."
        .to_string();
    Ok((prose, pictures))
}

fn mlp_labels(model: &HookedTransformer) -> Vec<String> {
    match model.config().attn_only {
        true => vec![],
        false => (0..model.config().n_layers).map(|l| format!("MLP {l}")).collect(),
    }
}

fn circuits(subject: &Subject) -> Result<Found, Failure> {
    let (model, cfg) = (&subject.model, subject.model.config());
    let (qk, ov) = (model.qk()?, model.ov()?);
    let mut pictures = vec![spectra("Singular values of QK", &qk), spectra("Singular values of OV", &ov)];

    // Does a head raise the tokens that it attends to?
    let tokens_to_logits = ov.left_matmul(&model.w_e()?).matmul(&model.w_u()?);
    let mut prose =
        "QK says what a head attends from and to, OV what it then moves; both without biases and norms.".to_string();
    if cfg.d_vocab == cfg.d_vocab_out {
        let (re, im) = tokens_to_logits.eigenvalues();
        let size = (re.square() + im.square()).sqrt();
        let score = re.sum(&[2]) / size.sum(&[2]);
        pictures.push(by_head(&subject.model, "Copying score", &score));
        prose += " The copying score is the sum of the eigenvalues of W_E W_V W_O W_U over the sum of their sizes: 1 for a \
                  head that raises the very tokens it attends to, -1 for one that lowers them.";
    }
    if let Ok(w_pos) = model.w_pos() {
        let shown = w_pos.narrow(0, 0, cfg.n_ctx.min(SHOWN_POSITIONS));
        for l in 0..cfg.n_layers {
            let by_positions = qk.at(l).left_matmul(&shown).matmul(&shown.t()).ab();
            let scores = &by_positions * (1.0 / (cfg.d_head as f64).sqrt());
            let facets = (0..cfg.n_heads()).map(|h| format!("L{l}H{h}")).collect();
            let title = format!("Layer {l}: attention scores from positions alone (W_pos QK W_pos)");
            pictures.push(Picture::heatmap(title, ["from", "to"], &scores).facets(facets));
        }
    }
    Ok((prose, pictures))
}

/// Singular values of every head, one curve for each.
fn spectra(title: &str, circuit: &FactoredMatrix) -> Picture {
    let s = circuit.singular_values();
    let (layers, heads, rank) = (s.dim(0), s.dim(1), s.dim(2));
    let values = s.to_vec_f64();
    let curve = |i: usize| (format!("L{}H{}", i / heads, i % heads), values[i * rank..(i + 1) * rank].to_vec());
    Picture::lines(title, ["rank", "singular value"], (0..layers * heads).map(curve).collect())
}

fn composition(subject: &Subject) -> Result<Found, Failure> {
    let model = &subject.model;
    let n = model.all_head_labels().len();
    let heads = model.config().n_heads();
    if model.config().n_layers < 2 {
        return Ok(("A model of one layer has no head that could build on another.".into(), vec![]));
    }
    let mut pictures = Vec::new();
    for (mode, what) in [(Composition::Q, "queries"), (Composition::K, "keys"), (Composition::V, "values")] {
        let scores = model.all_composition_scores(mode)?.reshape(&[n, n]);
        // The last layer writes for nobody, the first reads from nobody.
        let scores = scores.narrow(0, 0, n - heads).narrow(1, heads, n - heads);
        let labels = model.all_head_labels();
        let picture = Picture::heatmap(format!("Read by {what}"), ["writes", "reads"], &scores);
        pictures.push(picture.labels(labels[..n - heads].to_vec(), labels[heads..].to_vec()).unsigned());
    }
    let prose =
        "How much of what an earlier head can write lies where a later one reads: the norm of the product of the two \
                 circuits over the product of their norms. Random matrices give about 1/sqrt(d_model)."
            .to_string();
    Ok((prose, pictures))
}
