//! The attention explorer: every head of every layer at every snapshot.

use maud::{Markup, PreEscaped, html};
use serde_json::json;

use crate::Report;
use crate::codec::{self, Codec, Encoded};
use crate::document::json_in_script;

/// The explorer and the data it reads; nothing if there are no snapshots.
pub(crate) fn section(report: &Report) -> Option<Markup> {
    let shape = report.snapshots.first()?.layers.first()?.shape().to_vec();
    let count: usize = report.snapshots.iter().flat_map(|s| &s.layers).map(codec::stored_len).sum();
    let codec = Codec::for_budget(count);
    let mut blocks: Vec<(String, Encoded)> = Vec::new();
    let mut arrays = Vec::new();
    for (s, snapshot) in report.snapshots.iter().enumerate() {
        for (l, layer) in snapshot.layers.iter().enumerate() {
            let encoded = codec::encode(layer, codec);
            let id = format!("d-{s}-{l}");
            arrays.push(json!({
                "id": id, "codec": codec.name(), "shape": layer.shape(), "causal": encoded.causal,
                "lo": encoded.lo, "hi": encoded.hi, "error": encoded.error,
            }));
            blocks.push((id, encoded));
        }
    }
    let error = blocks.iter().map(|b| b.1.error).fold(0.0, f64::max);
    let layers = report.snapshots[0].layers.len();
    // Text or nothing: labels that do not fit the pattern would be wrong labels.
    let tokens = Some(&report.tokens).filter(|t| t.len() == shape[1] && t.len() == shape[2]);
    let meta = json!({
        "layers": layers,
        "tokens": tokens,
        "snapshots": report.snapshots.iter().map(|s| json!({ "label": s.label, "step": s.step })).collect::<Vec<_>>(),
        "arrays": arrays,
        "source": report.snapshot_source,
        "detectors": report.detectors.iter().map(|d| json!({
            "name": d.name, "formula": d.formula, "before": d.before, "after": d.after,
        })).collect::<Vec<_>>(),
    });
    let precision = match codec {
        Codec::F32 => "stored exactly".to_string(),
        _ => format!("stored in {} bits, so a value may be off by {:.1e}", codec.bits(), error),
    };
    Some(html! {
        div.explorer id="explorer" {
            p.hint { "Loading the attention patterns …" }
            noscript { p { "The explorer needs JavaScript; the mean patterns above are pictures." } }
        }
        p.hint {
            "Rows are destinations (the token that looks), columns are sources (what it looks at). "
            @if !report.snapshot_source.is_empty() { "Shown: " (report.snapshot_source) "; " } @else { "Values are " }
            (precision) "."
        }
        script type="application/json" id="explorer-meta" { (PreEscaped(json_in_script(&meta.to_string()))) }
        @for (id, encoded) in &blocks {
            script type="application/octet-stream" id=(id) { (PreEscaped(&encoded.base64)) }
        }
    })
}
