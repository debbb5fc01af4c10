//! A page that needs nothing but itself.
//!
//! Scripts are inline, and the content security policy names each by its hash:
//! nothing else runs, and nothing is loaded. `plotly.js` comes from the `plotly`
//! crate; it is stored deflated, and inflated by the page.

use std::io::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, write::DeflateEncoder};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::color::{Colorscale, LINES, LINES_DARK, to_hex};
use crate::{Figure, ReportError};

const STYLE: &str = include_str!("../js/page.css");
const PAGE_JS: &str = include_str!("../js/page.js");
const CORE_JS: &str = include_str!("../js/core.js");
const EXPLORER_JS: &str = include_str!("../js/explorer.js");

/// Raw deflate, then base64: how the page carries anything large.
pub(crate) fn pack(bytes: &[u8]) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    // Writing to a vector cannot fail.
    let packed = encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default();
    STANDARD.encode(packed)
}

fn hash(script: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(script)))
}

/// `plotly.js` deflated and in base64, and the hash of its plain text.
fn plotly_js() -> &'static (String, String) {
    static PACKED: OnceLock<(String, String)> = OnceLock::new();
    PACKED.get_or_init(|| {
        // The crate offers its copy only together with MathJax, as script elements.
        let both = plotly::Plot::offline_js_sources();
        let start = both.find("/**\n* plotly.js").unwrap_or(0);
        let end = both[start..].find("</script>").map_or(both.len(), |i| start + i);
        let script = &both[start..end];
        (pack(script.as_bytes()), hash(script))
    })
}

/// What goes into a page.
pub(crate) struct Page<'a> {
    pub title: &'a str,
    pub body: Markup,
    pub charts: bool,
    pub explorer: bool,
}

impl Page<'_> {
    pub(crate) fn render(self) -> String {
        let mut scripts: Vec<&str> = Vec::new();
        if self.explorer {
            scripts.extend([CORE_JS, EXPLORER_JS]);
        } else if self.charts {
            scripts.push(CORE_JS);
        }
        scripts.push(PAGE_JS);
        let mut hashes: Vec<String> = scripts.iter().map(|s| hash(s)).collect();
        if self.charts {
            hashes.push(plotly_js().1.clone());
        }
        let policy = format!(
            "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {}; base-uri 'none'; form-action 'none'",
            hashes.join(" ")
        );
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href="data:,";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                    noscript { style { ".plot-scroll, #theme, .bar { display: none }" } }
                }
                body {
                    (self.body)
                    @if self.charts {
                        script type="application/octet-stream" id="plotly-js" { (PreEscaped(&plotly_js().0)) }
                    }
                    script type="application/json" id="palette" { (PreEscaped(palette())) }
                    @for script in scripts {
                        script { (PreEscaped(script)) }
                    }
                }
            }
        }
        .into_string()
    }
}

/// The colour maps and line colours of both themes, for the scripts.
fn palette() -> String {
    let maps: serde_json::Map<String, serde_json::Value> = Colorscale::ALL
        .iter()
        .map(|map| {
            let stops = |dark| map.stops(dark).iter().map(|c| to_hex(*c)).collect::<Vec<_>>();
            let value = serde_json::json!({ "light": stops(false), "dark": stops(true) });
            (map.name().to_string(), value)
        })
        .collect();
    serde_json::json!({ "maps": maps, "lines": { "light": LINES, "dark": LINES_DARK } }).to_string()
}

/// JSON for inside a script element: no `<`, so nothing can end the element.
pub(crate) fn json_in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A name fit for a file and for an address: lower case, digits, hyphens.
pub(crate) fn slug(text: &str, default: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() >= 60 {
            break;
        }
    }
    let out = out.trim_end_matches('-');
    if out.is_empty() { default.into() } else { out.into() }
}

/// A figure in a page: the interactive chart, its caption, and without scripts the picture.
pub(crate) fn chart(id: &str, figure: &Figure) -> Result<Markup, ReportError> {
    let scene = figure.scene()?;
    let json = figure.to_plotly_json()?;
    let png = STANDARD.encode(figure.to_png_small()?);
    let caption = scene.caption.as_str();
    Ok(html! {
        figure.chart id=(id) aria-labelledby={ (id) "-title" } {
            @if !scene.title.is_empty() { h3.chart-title id={ (id) "-title" } { (scene.title) } }
            @else { span.sr-only id={ (id) "-title" } { "Figure" } }
            div.plot-scroll {
                div.plot role="group" aria-label=(if scene.title.is_empty() { "chart" } else { &scene.title })
                    data-plot={ (id) "-data" } style={ "min-height:" (scene.size.1) "px" } {}
            }
            noscript { img alt=(scene.title) src={ "data:image/png;base64," (png) }; }
            @if !caption.is_empty() || !scene.notes.is_empty() {
                figcaption {
                    (caption)
                    @for note in &scene.notes { " " span.note { (note) "." } }
                }
            }
            script type="application/json" id={ (id) "-data" } { (PreEscaped(json_in_script(&json))) }
        }
    })
}
