//! Attention between tokens, head by head.

use maud::{Markup, html};

use super::{Kind, View};
use crate::explorer::{Explorer, head_name, heads_figure};
use crate::{Array, Figure, ReportError, Snapshot, panels};

fn texts<S: Into<String>>(tokens: impl IntoIterator<Item = S>) -> Vec<String> {
    tokens.into_iter().map(Into::into).collect()
}

/// The pattern `[dest, src]` of one head over its tokens, with a strip of tokens that shows a row or a column.
///
/// ```
/// use ironlens_report::{Array, attention_pattern};
/// let view = attention_pattern(["The", " cat"], Array::new([2, 2], &[1.0, 0.0, 0.6, 0.4])?);
/// assert!(view.to_html()?.contains("cat"));
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
pub fn attention_pattern<S: Into<String>>(tokens: impl IntoIterator<Item = S>, pattern: impl Into<Array>) -> View {
    let pattern = pattern.into();
    let [dest, src] = *pattern.shape() else {
        return View::wrong("Attention pattern", "a pattern [dest, src]", format!("shape {:?}", pattern.shape()));
    };
    let one = Array::new([1, dest, src], pattern.data());
    let names = vec![vec!["head".to_string()]];
    let layers = one.map(|a| vec![a]).unwrap_or_default();
    View::new("Attention pattern", Kind::Attention { tokens: texts(tokens), layers, names })
}

/// The patterns `[head, dest, src]` of the heads of a layer, with a strip of tokens that shows what the chosen
/// token looks at, or who looks at it. Point at a head to preview it, click to keep it.
pub fn attention_patterns<S: Into<String>>(tokens: impl IntoIterator<Item = S>, patterns: impl Into<Array>) -> View {
    attention_heads(tokens, patterns, Vec::<String>::new()).title("Attention patterns")
}

/// [`attention_patterns`] with names of the heads; "Head 0" and so on if there are none.
pub fn attention_heads<S: Into<String>, N: Into<String>>(
    tokens: impl IntoIterator<Item = S>,
    patterns: impl Into<Array>,
    names: impl IntoIterator<Item = N>,
) -> View {
    let patterns = patterns.into();
    let mut names = texts(names);
    if names.is_empty() {
        names = (0..patterns.shape().first().copied().unwrap_or(0)).map(|h| format!("Head {h}")).collect();
    }
    View::new("Attention heads", Kind::Attention { tokens: texts(tokens), layers: vec![patterns], names: vec![names] })
}

/// The heads of all layers of a model: one array `[head, dest, src]` for each layer. They are called L0H0 and so
/// on.
pub fn attention_layers<S: Into<String>>(
    tokens: impl IntoIterator<Item = S>,
    layers: impl IntoIterator<Item = Array>,
) -> View {
    let layers = layers.into_iter().collect();
    View::new("Attention", Kind::Attention { tokens: texts(tokens), layers, names: Vec::new() })
}

/// What does not fit: what was expected, and what was given.
pub(super) fn problem(tokens: &[String], layers: &[Array], names: &[Vec<String>]) -> Option<(String, String)> {
    let Some(first) = layers.first() else { return Some(("at least one layer".into(), "none".into())) };
    for (l, layer) in layers.iter().enumerate() {
        let got = || format!("shape {:?} in layer {l}", layer.shape());
        let [heads, dest, src] = *layer.shape() else { return Some(("patterns [head, dest, src]".into(), got())) };
        if layer.data().is_empty() || layer.shape()[1..] != first.shape()[1..] {
            return Some(("patterns of one size, none empty".into(), got()));
        }
        if let Some(row) = names.get(l).filter(|row| row.len() != heads) {
            return Some((format!("{heads} names of heads"), format!("{} names", row.len())));
        }
        if !tokens.is_empty() && (tokens.len() != dest || tokens.len() != src) {
            return Some((
                format!("as many tokens as positions, {dest} and {src}"),
                format!("{} tokens", tokens.len()),
            ));
        }
    }
    None
}

pub(super) fn markup(
    id: &str,
    tokens: &[String],
    layers: &[Array],
    names: &[Vec<String>],
    linked: bool,
) -> Result<Markup, ReportError> {
    let snapshots = [Snapshot { step: 0, label: String::new(), layers: layers.to_vec() }];
    let id = format!("{id}-explorer");
    let explorer = Explorer { id: &id, snapshots: &snapshots, tokens, names, linked, ..Explorer::default() };
    Ok(explorer.markup()?.unwrap_or_else(|| html! {}))
}

/// Every head beside the others.
pub(super) fn figure(
    title: &str,
    tokens: &[String],
    layers: &[Array],
    names: &[Vec<String>],
) -> Result<Figure, ReportError> {
    let layer = |l: usize, a: &Array| {
        let heads = (0..a.shape()[0]).map(|h| head_name(names, l, h)).collect::<Vec<_>>();
        heads_figure(a, heads, tokens, false)
    };
    Ok(match layers {
        [only] => layer(0, only).title(title),
        _ => panels(layers.iter().enumerate().map(|(l, a)| layer(l, a).title(format!("layer {l}"))))
            .columns(1)
            .title(title),
    })
}
