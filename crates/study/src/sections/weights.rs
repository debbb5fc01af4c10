//! What weights say by themselves: the circuits of heads, and which heads build on which.

use ironlens_lens::{Composition, FactoredMatrix, WeightsExt};
use ironlens_report::HeadPair;
use ironlens_tensor::Tensor;
use ironlens_transformer::config::AttentionDir;

use crate::analyser::{Failure, Found};
use crate::pairs::{COMPOSITION, READ_BY};
use crate::picture::Picture;
use crate::subject::Subject;

/// Positions shown of matrices over pairs of positions.
const SHOWN_POSITIONS: usize = 32;

pub(super) fn circuits(subject: &Subject) -> Result<Found, Failure> {
    let (model, cfg) = (&subject.model, subject.model.config());
    let (qk, ov) = (model.qk()?, model.ov()?);
    let mut pictures = Vec::new();
    let mut prose =
        "QK says what a head attends from and to, OV what it then moves; both without biases and norms. The effective rank \
         says in how many directions: the square of the sum of the squared singular values over the sum of their squares."
            .to_string();

    // Does a head raise the tokens that it attends to?
    if cfg.d_vocab == cfg.d_vocab_out {
        let tokens_to_logits = ov.left_matmul(&model.w_e()?).matmul(&model.w_u()?);
        let (re, im) = tokens_to_logits.eigenvalues();
        let size = (re.square() + im.square()).sqrt();
        let score = re.sum(&[2]) / size.sum(&[2]);
        pictures.push(Picture::heads("Copying score", &score).range(-1.0, 1.0).value("score"));
        prose += " The copying score is the sum of the eigenvalues of W_E W_V W_O W_U over the sum of their sizes: 1 for a \
                  head that raises the very tokens it attends to, -1 for one that lowers them.";
    }
    for (name, circuit) in [("QK", &qk), ("OV", &ov)] {
        let ranks = Picture::heads(format!("Effective rank of {name}"), &effective_rank(circuit));
        pictures.push(ranks.unsigned().value("directions"));
    }
    if let Ok(w_pos) = model.w_pos() {
        let n = cfg.n_ctx.min(SHOWN_POSITIONS);
        let shown = w_pos.narrow(0, 0, n);
        let by_positions = qk.at(0).left_matmul(&shown).matmul(&shown.t()).ab();
        let scores = &by_positions * (1.0 / cfg.attn_scale(0));
        let facets = (0..cfg.n_heads()).map(|h| format!("L0H{h}")).collect();
        let title = "Attention scores of the first layer from positions alone (W_pos QK W_pos)";
        let picture = Picture::heatmap(title, ["from", "to"], &scores).facets(facets).value("score");
        pictures.push(if cfg.attention_dir == AttentionDir::Causal { picture.causal() } else { picture });
        if n < cfg.n_ctx {
            prose += &format!(" Of positions, the first {n} of {} are shown.", cfg.n_ctx);
        }
    }
    Ok((prose, pictures))
}

/// In how many directions a circuit acts, `[layer, head]`: 1 for one, all of them for equal singular values.
fn effective_rank(circuit: &FactoredMatrix) -> Tensor {
    let s = circuit.singular_values();
    let (layers, heads, rank) = (s.dim(0), s.dim(1), s.dim(2));
    let of = |values: &[f64]| {
        let squares = values.iter().map(|v| v * v);
        let (sum, fourth) = squares.fold((0.0, 0.0), |(sum, fourth), s| (sum + s, fourth + s * s));
        if fourth > 0.0 { sum * sum / fourth } else { 0.0 }
    };
    Tensor::from_vec_f64(s.to_vec_f64().chunks(rank.max(1)).map(of).collect(), &[layers, heads])
}

pub(super) fn composition(subject: &Subject) -> Result<Found, Failure> {
    let model = &subject.model;
    let labels = model.all_head_labels();
    let (n, heads) = (labels.len(), model.config().n_heads());
    if model.config().n_layers < 2 {
        return Ok(("A model of one layer has no head that could build on another.".into(), vec![]));
    }
    let (writers, readers) = (&labels[..n - heads], &labels[heads..]);
    let chance = 1.0 / (model.config().d_model as f64).sqrt();
    let (mut names, mut maps) = (Vec::new(), Vec::new());
    for (mode, what) in [(Composition::Q, "queries"), (Composition::K, "keys"), (Composition::V, "values")] {
        let scores = model.all_composition_scores(mode)?.reshape(&[n, n]);
        // The last layer writes for nobody, the first reads from nobody.
        let scores = scores.narrow(0, 0, n - heads).narrow(1, heads, n - heads);
        // Layers that lie before the writer read nothing of it: those pairs are 0, not far below chance.
        let above = |(i, v): (usize, f64)| {
            let (writer, reader) = (i / (n - heads) / heads, i % (n - heads) / heads + 1);
            if writer < reader { v - chance } else { 0.0 }
        };
        let values: Vec<f64> = scores.to_vec_f64().into_iter().enumerate().map(above).collect();
        names.push(format!("{READ_BY}{what}"));
        maps.push(Tensor::from_vec_f64(values, &[n - heads, n - heads]));
    }
    let maps = Tensor::stack(&maps, 0);
    // What lies as near to chance as random matrices do is faint.
    let reach = maps.to_vec_f64().into_iter().fold(0.1, |most: f64, v| most.max(v.abs()));
    let picture = Picture::heatmap(COMPOSITION, ["writes", "reads"], &maps).range(-reach, reach);
    let picture = picture.labels(writers.to_vec(), readers.to_vec()).facets(names).value("above chance");
    let told = match picture.head_pairs().as_slice() {
        [] => "No pair stands out of the others.".to_string(),
        some => format!("What stands out: {}.", some.iter().take(6).map(in_words).collect::<Vec<_>>().join("; ")),
    };
    let prose = format!(
        "How much of what an earlier head can write lies where a later one reads: the norm of the product of the two circuits \
         over the product of their norms, less what random matrices give, 1/sqrt(d_model) = {chance:.3}. {told}"
    );
    Ok((prose, vec![picture]))
}

/// A pair with its score and what all pairs have.
fn in_words(pair: &HeadPair) -> String {
    let (HeadPair { writer, reader, by, score, .. }, (mean, deviation)) = (pair, pair.others);
    let [writer, reader] = [writer, reader].map(|(layer, head)| format!("L{layer}H{head}"));
    format!("{reader} reads {writer} by its {by} ({score:.3} above chance; all pairs {mean:.3} ± {deviation:.3})")
}
