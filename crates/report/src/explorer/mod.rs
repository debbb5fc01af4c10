//! The attention explorer: every head of every layer at every snapshot.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped, html};
use serde_json::json;

use crate::codec::{self, Codec, Encoded};
use crate::document::json_in_script;
use crate::{Array, Detector, Example, Figure, HeadFact, HeadPair, ReportError, Snapshot, imshow};

/// What one explorer shows.
#[derive(Default)]
pub(crate) struct Explorer<'a> {
    /// Begins the names of its elements, so that a page may hold several.
    pub id: &'a str,
    pub snapshots: &'a [Snapshot],
    /// Whether they are of several runs, each after its training.
    pub runs: bool,
    /// One for each position, or none.
    pub tokens: &'a [String],
    /// Where the values are from, in words.
    pub source: &'a str,
    pub detectors: &'a [Detector],
    /// What else is known of every head.
    pub facts: &'a [HeadFact],
    /// Which heads build on which.
    pub pairs: &'a [HeadPair],
    /// The role of each head that has one: layer, head and what it is.
    pub roles: &'a [(usize, usize, String)],
    /// Single sequences, of which those with attention can be chosen.
    pub examples: &'a [Example],
    /// Names of the heads `[layer][head]`; L0H0 and so on if empty.
    pub names: &'a [Vec<String>],
    /// Whether the address holds its state: for one explorer of a page.
    pub linked: bool,
}

impl Explorer<'_> {
    /// The explorer and the data it reads; nothing if there are no snapshots.
    pub(crate) fn markup(&self) -> Result<Option<Markup>, ReportError> {
        let Some(shape) = self.snapshots.first().and_then(|s| s.layers.first()).map(|l| l.shape().to_vec()) else {
            return Ok(None);
        };
        let count = |s: &Snapshot| s.layers.iter().map(codec::stored_len).sum::<usize>();
        let whole: usize = self.snapshots.iter().map(count).sum();
        let last = self.snapshots.len() - 1;
        let (mut blocks, mut arrays): (Vec<(String, Encoded)>, Vec<_>) = (Vec::new(), Vec::new());
        // Bits and largest error of the first and the last snapshot, and of all else.
        let mut exact = [(32, 0.0f64); 2];
        // The first and the last are looked at most: they are as exact as if they were alone.
        let ends = self.snapshots.len().min(2);
        let budget = |s: usize| if s == 0 || s == last { count(&self.snapshots[s]) * ends } else { whole };
        let chosen: Vec<(usize, &Example)> =
            self.examples.iter().enumerate().filter(|(_, e)| !e.layers.is_empty()).collect();
        let of_examples = chosen.iter().flat_map(|(_, e)| &e.layers).map(codec::stored_len).sum();
        // Snapshots, then examples, each with all its layers.
        let groups = (0..self.snapshots.len()).map(|s| (&self.snapshots[s].layers, budget(s)));
        let groups = groups.chain(chosen.iter().map(|(_, e)| (&e.layers, of_examples)));
        for (s, (layers, budget)) in groups.enumerate() {
            let codec = Codec::for_budget(budget);
            for (l, layer) in layers.iter().enumerate() {
                let encoded = codec::encode(layer, codec);
                let id = format!("{}-{s}-{l}", self.id);
                arrays.push(json!({
                    "id": id, "codec": codec.name(), "shape": layer.shape(), "causal": encoded.causal,
                    "lo": encoded.lo, "hi": encoded.hi, "error": encoded.error,
                }));
                let worst = &mut exact[usize::from(s != 0 && s != last)];
                *worst = (worst.0.min(codec.bits()), worst.1.max(encoded.error));
                blocks.push((id, encoded));
            }
        }
        // Text or nothing: labels that do not fit the pattern would be wrong labels.
        let tokens = Some(self.tokens).filter(|t| t.len() == shape[1] && t.len() == shape[2]);
        let meta = json!({
            "layers": self.snapshots[0].layers.len(),
            "tokens": tokens,
            "names": self.names,
            "runs": self.runs,
            "snapshots": self.snapshots.iter().map(|s| json!({ "label": s.label, "step": s.step })).collect::<Vec<_>>(),
            "arrays": arrays,
            "source": self.source,
            "detectors": self.detectors.iter().map(|d| json!({
                "name": d.name, "formula": d.formula, "before": d.before, "after": d.after, "uniform": d.uniform,
                "spread": d.spread,
            })).collect::<Vec<_>>(),
            "facts": self.facts.iter().map(|f| json!({ "name": f.name, "values": f.values, "noise": f.noise })).collect::<Vec<_>>(),
            "pairs": self.pairs.iter().map(|p| json!({
                "writer": p.writer, "reader": p.reader, "by": p.by, "score": p.score, "others": p.others,
            })).collect::<Vec<_>>(),
            "roles": self.roles,
            "examples": chosen.iter().map(|(i, e)| json!({ "of": i, "label": e.name, "tokens": e.tokens })).collect::<Vec<_>>(),
        });
        let in_words = |(bits, error): (u32, f64)| match bits {
            32 => "stored exactly".to_string(),
            bits => format!("stored in {bits} bits, so a value may be off by {error:.1e}"),
        };
        let [ends, rest] = exact.map(in_words);
        let precision = match self.snapshots.len() {
            1 if chosen.is_empty() => ends,
            _ if ends == rest => ends,
            1 => format!("{ends}; of single sequences {rest}"),
            _ => format!("before and after {ends}; in between and of single sequences {rest}"),
        };
        let pictures = self.pictures()?;
        Ok(Some(html! {
            @for png in &pictures {
                img.static alt=(format!("Attention of every head{}", self.when())) src={ "data:image/png;base64," (STANDARD.encode(png)) };
            }
            div.explorer.needs-js id=(self.id) data-linked[self.linked] { p.hint { "Loading the attention patterns …" } }
            p.hint {
                "Rows are destinations (the token that looks), columns are sources (what it looks at). "
                @if !self.source.is_empty() { "Shown: " (self.source) "; " } @else { "Values are " }
                (precision) "."
            }
            script type="application/json" id={ (self.id) "-meta" } { (PreEscaped(json_in_script(&meta.to_string()))) }
            @for (id, encoded) in &blocks {
                script type="application/octet-stream" id=(id) { (PreEscaped(&encoded.base64)) }
            }
        }))
    }

    fn when(&self) -> String {
        match self.snapshots {
            [.., last] if self.snapshots.len() > 1 => format!(", {}", last.label),
            _ => String::new(),
        }
    }

    /// For paper, and where scripts do not run: the heads of each layer at the last snapshot, small.
    fn pictures(&self) -> Result<Vec<Vec<u8>>, ReportError> {
        let Some(last) = self.snapshots.last() else { return Ok(Vec::new()) };
        let name = |l: usize, h: usize| head_name(self.names, l, h);
        let mut out = Vec::new();
        for (l, layer) in last.layers.iter().enumerate() {
            out.extend(
                heads_figure(layer, (0..layer.shape()[0]).map(|h| name(l, h)), self.tokens, true).to_png_small()?,
            );
        }
        Ok(out)
    }
}

pub(crate) fn head_name(names: &[Vec<String>], l: usize, h: usize) -> String {
    names.get(l).and_then(|row| row.get(h)).cloned().unwrap_or_else(|| format!("L{l}H{h}"))
}

/// The heads of a layer `[head, dest, src]` side by side; `small` ones have no labels.
pub(crate) fn heads_figure(
    layer: &Array,
    names: impl IntoIterator<Item = String>,
    tokens: &[String],
    small: bool,
) -> Figure {
    let (heads, dest, src) = (layer.shape()[0], layer.shape()[1], layer.shape()[2]);
    let most = layer.finite_range().map_or(1.0, |r| r.1.max(1.0));
    let mut figure = imshow(layer).value("attention").range(layer.finite_range().map_or(0.0, |r| r.0.min(0.0)), most);
    if layer.finite_range().is_some_and(|r| r.0 < 0.0) {
        figure = figure.midpoint(0.0);
    }
    figure = figure.facets(names);
    if codec::is_causal(layer) {
        figure = figure.causal();
    }
    if small {
        let across = heads.min(12);
        let down = heads.div_ceil(across);
        let side = if heads <= 4 { 150 } else { 64 };
        return figure.columns(across).size((across * (side + 24) + 140) as u32, (down * (side + 40) + 50) as u32);
    }
    figure = figure.x("source").y("destination").columns(heads.min(4));
    match tokens.len() == dest && tokens.len() == src && tokens.len() <= 64 {
        true => figure.x_tokens(tokens).y_tokens(tokens),
        false => figure,
    }
}
