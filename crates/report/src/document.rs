//! A page that needs nothing but itself.
//!
//! Scripts are in the page, and the content security policy names each by its hash:
//! nothing else runs, and nothing is loaded. They and `plotly.js` (`vendor/plotly`) are
//! stored deflated, and inflated by the page.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::color::{Colorscale, LINES, LINES_DARK, to_hex};
use crate::deflate::pack;
use crate::figure::{chart_height, precision};
use crate::{Figure, ReportError};

const STYLE: &str = include_str!("../js/page.css");
const PLOTLY_JS: &str = include_str!("../vendor/plotly/plotly-cartesian.min.js");
/// Tells the style sheet that scripts run, and of a dark system, before anything is drawn. Without scripts, or in a
/// browser that cannot inflate them, a page is light, as its pictures are, and its folded parts (`folded`) are there.
const START_JS: &str = "if(window.DecompressionStream){document.documentElement.className='js';\
    if(matchMedia('(prefers-color-scheme: dark)').matches)document.documentElement.dataset.theme='dark'}\
    else addEventListener('DOMContentLoaded',()=>{for(const text of document.querySelectorAll('noscript'))\
    text.replaceWith(...new DOMParser().parseFromString(text.textContent,'text/html').body.childNodes)})";
/// Inflates the page's own scripts and runs them; the policy names their hash, too. `__report.ready` is there from the
/// start, for those who drive the page.
const LOAD_JS: &str = "window.__report={ready:(async()=>{\
    const packed=Uint8Array.from(atob(document.getElementById('page-js').textContent),(c)=>c.charCodeAt(0));\
    const text=await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate-raw'))).text();\
    document.head.append(Object.assign(document.createElement('script'),{textContent:text}));\
    return window.__report.started})()}";
const PAGE_JS: &str = include_str!("../js/page.js");
const CORE_JS: &str = include_str!("../js/core.js");
const CHARTS_JS: &str = include_str!("../js/charts.js");
const TOKENS_STYLE: &str = include_str!("../js/tokens.css");
const TOKENS_JS: &str = include_str!("../js/tokens.js");
const EXPLORER_JS: &str = include_str!("../js/explorer.js");

fn hash(script: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(script)))
}

/// `plotly.js` deflated and in base64, and the hash of its plain text.
fn plotly_js() -> &'static (String, String) {
    static PACKED: OnceLock<(String, String)> = OnceLock::new();
    PACKED.get_or_init(|| (pack(PLOTLY_JS.as_bytes()), hash(PLOTLY_JS)))
}

/// A script or style sheet without indentation and comment lines, which are a fifth of it. Text over several
/// lines is not allowed in them (`tests/page.rs`).
fn compact(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut comment = false;
    for line in source.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//")) {
        comment |= line.starts_with("/*");
        if !comment {
            out.push_str(line);
            out.push('\n');
        }
        comment &= !line.ends_with("*/");
    }
    out
}

/// A style sheet without the blanks that mean nothing in it.
fn style(source: &str) -> String {
    let blanks = [("; ", ";"), (": ", ":"), (", ", ","), (" {", "{"), ("{ ", "{"), (" }", "}")];
    blanks.iter().fold(compact(source), |text, (from, to)| text.replace(from, to))
}

/// What goes into a page.
pub(crate) struct Document<'a> {
    pub title: &'a str,
    pub body: Markup,
    pub charts: bool,
    pub explorer: bool,
    /// Whether there are texts with numbers.
    pub tokens: bool,
}

impl Document<'_> {
    pub(crate) fn render(self) -> String {
        let mut scripts: Vec<&str> = Vec::new();
        if self.explorer || self.charts || self.tokens {
            scripts.push(CORE_JS);
        }
        if self.explorer {
            scripts.push(EXPLORER_JS);
        }
        if self.tokens {
            scripts.push(TOKENS_JS);
        }
        if self.charts {
            scripts.push(CHARTS_JS);
        }
        // Last, because it tells the others that the page is ready.
        scripts.push(PAGE_JS);
        let scripts: String = scripts.into_iter().map(compact).collect();
        let mut hashes: Vec<String> = [START_JS, LOAD_JS, &scripts].map(hash).into();
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
                    link rel="icon" href="data:,";
                    title { (self.title) }
                    style { (PreEscaped(style(STYLE))) @if self.tokens { (PreEscaped(style(TOKENS_STYLE))) } }
                    script { (PreEscaped(START_JS)) }
                }
                body {
                    (self.body)
                    @if self.charts {
                        script type="application/octet-stream" id="plotly-js" { (PreEscaped(&plotly_js().0)) }
                    }
                    script type="application/json" id="palette" { (PreEscaped(palette())) }
                    script type="application/octet-stream" id="page-js" { (PreEscaped(pack(scripts.as_bytes()))) }
                    script { (PreEscaped(LOAD_JS)) }
                }
            }
        }
        .into_string()
    }
}

/// What charts are drawn with; the style sheet has the same (`tests/page.rs` compares them).
const UI_LIGHT: [(&str, &str); 10] = [
    ("page", "#ffffff"),
    ("panel", "#f7f9fb"),
    ("raised", "#ffffff"),
    ("ink", "#1f252c"),
    ("soft", "#57606a"),
    ("line", "#767e87"),
    ("grid", "#e3e7ec"),
    ("accent", "#0b65a8"),
    ("mask", "#eceff3"),
    ("quiet", "#e2e5e9"),
];
const UI_DARK: [(&str, &str); 10] = [
    ("page", "#12171f"),
    ("panel", "#171d27"),
    ("raised", "#1d2531"),
    ("ink", "#e6eaef"),
    ("soft", "#a3adb8"),
    ("line", "#6d7884"),
    ("grid", "#2a3340"),
    ("accent", "#6bb8f0"),
    ("mask", "#1b222c"),
    ("quiet", "#2b333e"),
];

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
    let ui: serde_json::Map<String, serde_json::Value> = [("light", UI_LIGHT), ("dark", UI_DARK)]
        .into_iter()
        .map(|(mode, colors)| (mode.to_string(), colors.into_iter().collect()))
        .collect();
    serde_json::json!({ "maps": maps, "lines": { "light": LINES, "dark": LINES_DARK }, "ui": ui }).to_string()
}

/// JSON for inside a script element: no `<`, so nothing can end the element.
pub(crate) fn json_in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// JSON that a script reads by its id (`Core.json`), deflated where there is much of it.
pub(crate) fn held(id: &str, json: &str) -> Markup {
    const MOST_PLAIN: usize = 2048;
    let (kind, text) = match json.len() {
        0..=MOST_PLAIN => ("application/json", json_in_script(json)),
        _ => ("application/octet-stream", pack(json.as_bytes())),
    };
    html! { script type=(kind) id=(id) { (PreEscaped(text)) } }
}

/// A part that is closed at first. Where scripts run its content is made when it is opened (`js/page.js`), so that a
/// long page stays light; without them it is there.
pub(crate) fn folded(summary: &str, content: &Markup) -> Markup {
    html! { details { summary { (summary) } noscript { (content) } } }
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

/// A figure in a page: the interactive chart, its caption, and for paper and without scripts the picture.
///
/// `level` is that of its heading, 1 to 6.
pub(crate) fn chart(id: &str, figure: &Figure, level: u8) -> Result<Markup, ReportError> {
    let scene = figure.scene()?;
    let json = figure.to_plotly_json()?;
    let picture = figure.to_png_small()?.map(|png| STANDARD.encode(png));
    let caption = scene.caption.as_str();
    let title = if scene.title.is_empty() { "Figure" } else { &scene.title };
    let class = if scene.title.is_empty() { "sr-only" } else { "chart-title" };
    let packed = precision(&scene.body)
        .map(|(bits, error)| format!("Cells are stored in {bits} bits here: a value may be off by {error:.1e}."));
    Ok(html! {
        figure.chart id=(id) aria-labelledby={ (id) "-title" } {
            (heading(level, &format!("{id}-title"), class, title))
            @match &picture {
                Some(png) => img.static alt=(title) width=(scene.size.0) height=(scene.size.1)
                    src={ "data:image/png;base64," (png) };,
                None => p.static { "This chart is drawn by a browser that runs scripts." },
            }
            div.plot-scroll {
                div.plot data-plot={ (id) "-data" } style={ "min-height:" (chart_height(&scene)) "px" } {}
            }
            @if !caption.is_empty() || !scene.notes.is_empty() || packed.is_some() {
                figcaption {
                    (caption)
                    @for note in &scene.notes { " " span.note { (note) "." } }
                    @if let Some(packed) = &packed { " " span.note { (packed) } }
                }
            }
            (held(&format!("{id}-data"), &json))
        }
    })
}

/// A heading of a level.
pub(crate) fn heading(level: u8, id: &str, class: &str, text: &str) -> Markup {
    match level {
        1 => html! { h1 id=(id) class=(class) { (text) } },
        2 => html! { h2 id=(id) class=(class) { (text) } },
        3 => html! { h3 id=(id) class=(class) { (text) } },
        _ => html! { h4 id=(id) class=(class) { (text) } },
    }
}
