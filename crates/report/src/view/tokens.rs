//! Tokens with numbers: coloured text, tables of the largest.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{Kind, View};
use crate::color::{Colorscale, ink_on, to_hex};
use crate::document::held;
use crate::figure::{Number, token_text};
use crate::{Array, Example};

/// Texts, each token of which has a number for every choice that the reader makes.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenView {
    /// What can be chosen, such as a layer and a neuron: names and labels.
    choices: Vec<(String, Vec<String>)>,
    /// For each combination of choices (the last varies fastest) the texts that it shows.
    groups: Vec<Vec<Text>>,
    /// Whether one scale holds for all choices.
    shared: bool,
    /// From the smallest value up, instead of about zero.
    sequential: bool,
    /// Tables instead of texts.
    tables: bool,
    /// Whether NaN means that nothing is asked there; otherwise it is marked.
    blanks: bool,
    /// Whether choosing a text or a token chooses it on the whole page.
    linked: bool,
}

/// One text: tokens, a number for each, and what else is known of each in rows.
#[derive(Debug, Clone, Default)]
struct Text {
    name: String,
    tokens: Vec<String>,
    values: Vec<f32>,
    /// For each token a table: what it is called when it is pointed at.
    details: Vec<Vec<[String; 4]>>,
}

/// Tokens and the activation of a neuron on each: what [`topk_samples`] shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The text.
    pub tokens: Vec<String>,
    /// One for each token.
    pub values: Vec<f32>,
}

fn texts<S: Into<String>>(tokens: impl IntoIterator<Item = S>) -> Vec<String> {
    tokens.into_iter().map(Into::into).collect()
}

fn single(text: Text, sequential: bool) -> TokenView {
    TokenView { groups: vec![vec![text]], shared: true, sequential, ..TokenView::default() }
}

/// Tokens coloured by a value each: blue above zero, red below, white at zero.
///
/// ```
/// use ironlens_report::colored_tokens;
/// let html = colored_tokens(["I", " am", "\n"], &[0.1, -0.5, 2.0]).to_html()?;
/// assert!(html.contains("·am") && html.contains("⏎"));
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
pub fn colored_tokens<S: Into<String>>(tokens: impl IntoIterator<Item = S>, values: &[f32]) -> View {
    let (tokens, name) = (texts(tokens), "Coloured tokens");
    if tokens.len() != values.len() {
        return View::wrong(
            name,
            format!("{} values, one for each token", tokens.len()),
            format!("{} values", values.len()),
        );
    }
    let text = Text { tokens, values: values.to_vec(), ..Text::default() };
    View::new(name, Kind::Tokens(single(text, false)))
}

/// [`colored_tokens`] with several values `[token, value]` for each token, one of which is chosen by its label.
pub fn colored_tokens_multi<S: Into<String>, L: Into<String>>(
    tokens: impl IntoIterator<Item = S>,
    values: impl Into<Array>,
    labels: impl IntoIterator<Item = L>,
) -> View {
    let (tokens, labels, values, name) = (texts(tokens), texts(labels), values.into(), "Coloured tokens");
    if values.shape() != [tokens.len(), labels.len()] || values.data().is_empty() {
        let expected = format!("values [{}, {}], one for each token and label", tokens.len(), labels.len());
        return View::wrong(name, expected, format!("shape {:?}", values.shape()));
    }
    let k = labels.len();
    let row = |t: usize| {
        (0..k).map(|i| [labels[i].clone(), number(values.data()[t * k + i]), String::new(), String::new()]).collect()
    };
    let details: Vec<Vec<_>> = (0..tokens.len()).map(row).collect();
    let groups = (0..k)
        .map(|i| {
            let values = values.data().iter().skip(i).step_by(k).copied().collect();
            vec![Text { tokens: tokens.clone(), values, details: details.clone(), name: String::new() }]
        })
        .collect();
    let view = TokenView { choices: vec![("Value".into(), labels)], groups, ..TokenView::default() };
    View::new(name, Kind::Tokens(view))
}

/// Tokens coloured by how likely the model found them, with the likeliest tokens at each place.
///
/// `log_probs` is `[token, d_vocab]`: row `i` are the log-probabilities of token `i`, so shift them by one from
/// what a model gives at each position. `to_string` names an id; `top_k` tokens are listed for each.
pub fn token_log_probs(
    tokens: &[usize],
    log_probs: impl Into<Array>,
    to_string: impl Fn(usize) -> String,
    top_k: usize,
) -> View {
    let (log_probs, name) = (log_probs.into(), "Log-probabilities of tokens");
    let [n, vocab] = *log_probs.shape() else {
        return View::wrong(name, "log-probabilities [token, d_vocab]", format!("shape {:?}", log_probs.shape()));
    };
    if n != tokens.len() {
        return View::wrong(name, format!("{} rows, one for each token", tokens.len()), format!("{n} rows"));
    }
    if let Some(id) = tokens.iter().find(|id| **id >= vocab) {
        return View::wrong(name, format!("ids below {vocab}"), id.to_string());
    }
    let mut text = Text::default();
    for (row, &id) in log_probs.data().chunks(vocab.max(1)).zip(tokens) {
        let mut order: Vec<usize> = (0..vocab).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        let line = |rank: usize| {
            let id = order[rank];
            [(rank + 1).to_string(), token_text(&to_string(id)), percent(row[id]), number(row[id])]
        };
        let rank = order.iter().position(|i| *i == id).unwrap_or(0);
        text.details.push([rank].into_iter().chain(0..top_k.min(vocab)).map(line).collect());
        text.tokens.push(to_string(id));
        // Below -5 all are as unlikely: the colours say what is left.
        text.values.push(row[id]);
    }
    View::new(name, Kind::Tokens(single(text, true)))
}

/// Sequences of a report: tokens coloured by how likely the model found what should be said at each, with the
/// likeliest at hand. Choosing a sequence or a token chooses it on the whole page.
pub(crate) fn examples(examples: &[Example]) -> TokenView {
    let text = |e: &Example| {
        let details = (0..e.tokens.len()).map(|i| {
            let asked = (!e.targets[i].is_empty()).then(|| {
                ["asked".to_string(), token_text(&e.targets[i]), percent(e.log_probs[i]), number(e.log_probs[i])]
            });
            let top = e.top[i]
                .iter()
                .enumerate()
                .map(|(rank, (token, p))| [(rank + 1).to_string(), token_text(token), percent(*p), number(*p)]);
            asked.into_iter().chain(top).collect()
        });
        vec![Text {
            name: e.name.clone(),
            tokens: e.tokens.clone(),
            values: e.log_probs.clone(),
            details: details.collect(),
        }]
    };
    TokenView {
        choices: vec![("Sequence".into(), examples.iter().map(|e| e.name.clone()).collect())],
        groups: examples.iter().map(text).collect(),
        shared: true,
        sequential: true,
        blanks: true,
        linked: true,
        ..TokenView::default()
    }
}

fn percent(log_prob: f32) -> String {
    format!("{:.2}%", 100.0 * f64::from(log_prob).exp())
}

fn number(v: f32) -> String {
    if v.is_finite() && (v == 0.0 || (1e-4..1e5).contains(&v.abs())) { format!("{v:.4}") } else { format!("{v:.3e}") }
}

/// Activations `[token, layer, neuron]` on texts, or `None` of the shape if they do not fit.
fn sizes(texts: &[Vec<String>], acts: &[Array]) -> Result<(usize, usize), (String, String)> {
    if texts.is_empty() || texts.len() != acts.len() {
        return Err((
            "as many texts as activations, at least one".into(),
            format!("{} and {}", texts.len(), acts.len()),
        ));
    }
    let [_, layers, neurons] = *acts[0].shape() else {
        return Err(("activations [token, layer, neuron]".into(), format!("shape {:?}", acts[0].shape())));
    };
    for (text, act) in texts.iter().zip(acts) {
        if act.shape() != [text.len(), layers, neurons] || act.data().is_empty() {
            let expected = format!("activations [{}, {layers}, {neurons}]", text.len());
            return Err((expected, format!("shape {:?}", act.shape())));
        }
    }
    Ok((layers, neurons))
}

fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|i| i.to_string()).collect()
}

/// Activations of neurons on texts: the reader chooses a layer and a neuron. `activations` has an array
/// `[token, layer, neuron]` for each text; one scale holds for all.
pub fn text_neuron_activations(tokens: Vec<Vec<String>>, activations: Vec<Array>) -> View {
    let name = "Activations of neurons";
    let (layers, neurons) = match sizes(&tokens, &activations) {
        Ok(sizes) => sizes,
        Err((expected, got)) => return View::wrong(name, expected, got),
    };
    let text = |i: usize, at: usize| {
        let values = activations[i].data().iter().skip(at).step_by(layers * neurons).copied().collect();
        Text { tokens: tokens[i].clone(), values, name: String::new(), details: Vec::new() }
    };
    let groups = (0..layers * neurons).map(|at| (0..tokens.len()).map(|i| text(i, at)).collect()).collect();
    let choices = vec![("Layer".into(), numbered(layers)), ("Neuron".into(), numbered(neurons))];
    View::new(name, Kind::Tokens(TokenView { choices, groups, shared: true, ..TokenView::default() }))
}

/// The tokens with the largest and the smallest activations of each neuron, in tables: the reader chooses a layer.
/// `activations` has an array `[token, layer, neuron]` for each text.
pub fn topk_tokens(tokens: Vec<Vec<String>>, activations: Vec<Array>, k: usize) -> View {
    let name = "Top tokens of neurons";
    let (layers, neurons) = match sizes(&tokens, &activations) {
        Ok(sizes) => sizes,
        Err((expected, got)) => return View::wrong(name, expected, got),
    };
    if k == 0 {
        return View::wrong(name, "at least 1 token for each neuron", "0");
    }
    let column = |layer: usize, neuron: usize, largest: bool| {
        let at = layer * neurons + neuron;
        let mut all: Vec<(f32, &String)> = Vec::new();
        for (text, act) in tokens.iter().zip(&activations) {
            all.extend(act.data().iter().skip(at).step_by(layers * neurons).copied().zip(text));
        }
        all.sort_by(|a, b| if largest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
        all.truncate(k);
        let (values, tokens) = all.into_iter().map(|(v, t)| (v, t.clone())).unzip();
        Text { name: format!("neuron {neuron}"), tokens, values, details: Vec::new() }
    };
    let group = |layer: usize, largest: bool| (0..neurons).map(|n| column(layer, n, largest)).collect::<Vec<_>>();
    let groups = (0..layers).flat_map(|l| [group(l, true), group(l, false)]).collect();
    let ends = vec!["largest".to_string(), "smallest".into()];
    let choices = vec![("Layer".into(), numbered(layers)), ("Which".into(), ends)];
    View::new(name, Kind::Tokens(TokenView { choices, groups, tables: true, ..TokenView::default() }))
}

/// The texts on which neurons are most active: `samples` is `[layer][neuron][sample]`. The reader chooses a layer
/// and a neuron, each with a scale of its own.
pub fn topk_samples(samples: Vec<Vec<Vec<Sample>>>) -> View {
    let name = "Top samples of neurons";
    let (layers, neurons) = (samples.len(), samples.first().map_or(0, Vec::len));
    if layers * neurons == 0 || samples.iter().any(|l| l.len() != neurons) {
        let got: Vec<usize> = samples.iter().map(Vec::len).collect();
        return View::wrong(name, "as many neurons in each layer, at least one", format!("{got:?}"));
    }
    if let Some(s) = samples.iter().flatten().flatten().find(|s| s.tokens.len() != s.values.len()) {
        let expected = format!("{} values, one for each token of a sample", s.tokens.len());
        return View::wrong(name, expected, format!("{} values", s.values.len()));
    }
    let text = |s: Sample| Text { tokens: s.tokens, values: s.values, ..Text::default() };
    let groups = samples.into_iter().flatten().map(|n| n.into_iter().map(text).collect()).collect();
    let choices = vec![("Layer".into(), numbered(layers)), ("Neuron".into(), numbered(neurons))];
    View::new(name, Kind::Tokens(TokenView { choices, groups, ..TokenView::default() }))
}

/// The most texts that are shown without scripts.
const MOST_STATIC: usize = 5;

impl TokenView {
    pub(crate) fn markup(&self, id: &str) -> Markup {
        let text = |t: &Text| -> Value {
            json!({
                "name": t.name, "tokens": t.tokens, "details": t.details,
                "values": t.values.iter().map(|v| v.is_finite().then(|| Number::to_f64(*v))).collect::<Vec<_>>(),
            })
        };
        let group = |g: &Vec<Text>| -> Value { g.iter().map(text).collect() };
        let data = json!({
            "choices": self.choices.iter().map(|(name, labels)| json!({ "name": name, "labels": labels })).collect::<Vec<_>>(),
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
            "shared": self.shared, "sequential": self.sequential, "tables": self.tables,
            "blanks": self.blanks, "linked": self.linked,
        });
        let first = self.groups.first().map_or(&[][..], Vec::as_slice);
        html! {
            div.static {
                @for t in first.iter().take(MOST_STATIC) { p.strip { (self.colored(t)) } }
                @if first.len() > MOST_STATIC || self.groups.len() > 1 { p.hint { "A browser that runs scripts shows the others." } }
            }
            div.tokens.needs-js data-tokens={ (id) "-tokens" } {}
            (held(&format!("{id}-tokens"), &data.to_string()))
        }
    }

    /// A text in the colours of a light page.
    fn colored(&self, t: &Text) -> Markup {
        let most = t.values.iter().filter(|v| v.is_finite()).fold(0.0f32, |a, v| a.max(v.abs()));
        let most = if most > 0.0 { most } else { 1.0 };
        let color = |v: f32| match (v.is_finite(), self.sequential) {
            (false, _) => [255, 255, 255],
            (_, true) => Colorscale::Blues.at(1.0 + f64::from(v) / 5.0, false),
            (_, false) => Colorscale::RdBu.at(0.5 + 0.5 * f64::from(v / most), false),
        };
        html! {
            @for (token, v) in t.tokens.iter().zip(&t.values) {
                @let rgb = color(*v);
                span title=(number(*v)) style={ "background:" (to_hex(rgb)) ";color:" (if ink_on(rgb) { "#000" } else { "#fff" }) } { (token_text(token)) }
            }
        }
    }
}
