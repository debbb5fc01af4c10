//! The page, in the order of the notebook.

use maud::{Markup, html};

use super::verdict::{argmax, number};
use super::{Finding, Hook, Parameter, Report, Section, figures, findings};
use crate::document::{Document, chart, folded, slug};
use crate::explorer::Explorer;
use crate::view::tokens;
use crate::{Figure, ReportError};

/// One part of the page: address, heading, content.
type Part = (String, String, Markup);

pub(crate) fn page(report: &Report) -> Result<String, ReportError> {
    let roles: Vec<_> = match findings::at_chance(report) {
        true => Vec::new(),
        false => findings::roles(report).into_iter().map(|r| (r.layer, r.head, r.detector.name.clone())).collect(),
    };
    let explorer = Explorer {
        id: "explorer",
        snapshots: &report.snapshots,
        runs: false,
        tokens: &report.tokens,
        source: &report.snapshot_source,
        detectors: &report.detectors,
        facts: &report.head_facts,
        pairs: &report.head_pairs,
        roles: &roles,
        examples: &report.examples,
        names: &[],
        linked: true,
    };
    let explorer = explorer.markup()?;
    let mut charts = false;
    let mut draw = |id: &str, figure: &Figure| {
        charts = true;
        chart(id, figure, 3)
    };
    let mut parts: Vec<Part> = Vec::new();
    let mut add = |id: &str, title: &str, body: Markup| parts.push((id.into(), title.into(), body));

    // Did it learn?
    if !report.metrics.is_empty() || !report.evaluations.is_empty() {
        let figure = figures::training(report).map(|f| draw("training-chart", &f)).transpose()?;
        let body = html! { (held_out(report)) @if let Some(figure) = figure { div data-cursor { (figure) } } };
        add("training", "Did it learn?", body);
    }
    if !report.examples.is_empty() {
        add("sequences", "What it says, token by token", sequences(report));
    }
    // What do its heads do?
    let has_explorer = explorer.is_some();
    if let Some(explorer) = explorer {
        let means = figures::mean_patterns(report)?;
        let means = means.iter().map(|(name, f)| draw(name, f)).collect::<Result<Vec<_>, _>>()?;
        add(
            "heads",
            "The heads",
            html! {
                p { "Point at a head to preview it, click to keep it. Beside it is all that is known of it." }
                (explorer)
                details.more { summary { "Means over the heads of each layer" } div.figures { @for figure in &means { (figure) } } }
            },
        );
    }
    if !report.detectors.is_empty() {
        let figure = figures::detectors(report)?.map(|f| draw("detectors-chart", &f)).transpose()?;
        add("detectors", "Head detectors", detectors(report, figure));
    }
    // What depends on what, and what the weights say, in the caller's order.
    let mut places = Vec::new();
    for (i, section) in report.sections.iter().enumerate() {
        let id = format!("s{i}-{}", slug(&section.title, "section"));
        let mut body = Vec::new();
        for (k, figure) in section.figures.iter().enumerate() {
            body.push(draw(&format!("{id}-{k}"), figure)?);
        }
        add(&id, &section.title, further(section, &body));
        places.push((section.title.as_str(), id));
    }
    // Appendix.
    if !report.model_tree.is_empty() || !report.parameters.is_empty() {
        add("model", "Appendix: the model", model(report));
    }
    if !report.hooks.is_empty() {
        add("activations", "Appendix: activations", activations(&report.hooks));
    }
    if !report.config.is_empty() || !report.reproduce.is_empty() {
        add("reproduce", "Appendix: configuration and how to reproduce", reproduce(report));
    }
    let found = found(report, &places);
    let body = html! {
        (skip())
        main id="content" {
            (header(report, &parts, &found))
            @for (id, title, content) in &parts { (section(id, title, content)) }
        }
    };
    let title = if report.title.is_empty() { "Report" } else { &report.title };
    let tokens = !report.examples.is_empty();
    Ok(Document { title, body, charts, explorer: has_explorer, tokens }.render())
}

/// The first stop of the keyboard.
pub(super) fn skip() -> Markup {
    html! { a.skip href="#content" { "Skip to the content" } }
}

/// The title, beside what changes the theme.
pub(super) fn masthead(title: &str) -> Markup {
    html! {
        div.masthead {
            h1 { (title) }
            button type="button" id="theme" aria-pressed="false" title="Switch between light and dark" { "Dark" }
        }
    }
}

pub(super) fn section(id: &str, title: &str, body: &Markup) -> Markup {
    html! { section aria-labelledby={ (id) "-heading" } { h2 id=(id) { span id={ (id) "-heading" } { (title) } } (body) } }
}

/// A table that is scrolled by itself where it is wider than the page.
pub(super) fn framed(label: &str, table: Markup) -> Markup {
    html! { div.table-wrap tabindex="0" role="region" aria-label=(label) { (table) } }
}

/// Sequences with what the model says at each token.
fn sequences(report: &Report) -> Markup {
    html! {
        p { "At each token the model is asked for another one: the colour says how likely it found that, from log-probability \
             -5 up to 0, and where nothing is asked there is none. Point at a token to see what was asked and what else was \
             likely." }
        div.tokens-frame { (tokens::examples(&report.examples).markup("sequences")) }
    }
}

/// Text in which names of heads are links to their cards.
fn with_heads(report: &Report, text: &str) -> Markup {
    let layers: &[crate::Array] = report.snapshots.first().map_or(&[], |s| &s.layers);
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((at, len, layer, head)) = next_head(rest) {
        let known = layers.get(layer).is_some_and(|a| head < a.shape()[0]);
        out.push(html! { (&rest[..at]) });
        out.push(match known {
            true => html! { a.head href=(format!("#L={layer}&H={head}")) { (&rest[at..at + len]) } },
            false => html! { (&rest[at..at + len]) },
        });
        rest = &rest[at + len..];
    }
    html! { @for part in &out { (part) } (rest) }
}

/// The first name such as L3H11 in a text: where it begins, its length, layer and head.
fn next_head(text: &str) -> Option<(usize, usize, usize, usize)> {
    let digits = |t: &str| t.len() - t.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let starts = text.match_indices('L').map(|(at, _)| at);
    starts.filter(|at| !text[..*at].ends_with(|c: char| c.is_alphanumeric())).find_map(|at| {
        let after = &text[at + 1..];
        let (layer, n) = (after, digits(after));
        let head = after[n..].strip_prefix('H')?;
        let m = digits(head);
        let ends = !head[m..].starts_with(|c: char| c.is_alphanumeric());
        let numbers = (layer[..n].parse().ok()?, head[..m].parse().ok()?);
        ends.then_some((at, n + m + 2, numbers.0, numbers.1))
    })
}

fn header(report: &Report, parts: &[Part], found: &Markup) -> Markup {
    let (verdict, chance) = (report.verdict(), findings::chance_warning(report));
    html! {
        header {
            (masthead(if report.title.is_empty() { "Report" } else { &report.title }))
            @if !report.subtitle.is_empty() { p.subtitle { (report.subtitle) } }
            @if !report.warnings.is_empty() {
                ul.warnings role="alert" { @for warning in &report.warnings { li { (warning) } } }
            }
            @if let Some(warning) = &chance { p.warnings.chance role="alert" { b { (warning) } } }
            @if !verdict.is_empty() {
                ul.verdict aria-label="What the data say" { @for sentence in &verdict { li { (sentence) } } }
            }
            (found)
            @if !report.facts.is_empty() {
                ul.chips { @for (name, value) in &report.facts { li { b { (name) } (value) } } }
            }
            @if parts.len() > 2 {
                nav.toc aria-label="Contents" {
                    ol { @for (id, title, _) in parts { li { a href={ "#" (id) } { (title) } } } }
                }
            }
        }
    }
}

/// The findings, each with a link to its evidence.
fn found(report: &Report, places: &[(&str, String)]) -> Markup {
    let found = report.found();
    let link = |f: &Finding| match f.evidence.as_str() {
        own if own.starts_with('#') => Some(own.to_string()),
        title => places.iter().find(|(name, _)| *name == title).map(|(_, id)| format!("#{id}")),
    };
    html! {
        @if !found.is_empty() {
            section.findings aria-labelledby="findings" {
                h2 id="findings" { "What was found" }
                ul {
                    @for f in &found {
                        li {
                            (with_heads(report, &f.text))
                            @if let Some(step) = f.since { " Half of the first score was there at step " (step) "." }
                            @if let Some(link) = link(f) { " " a href=(link) { "Evidence" span.sr-only { ": " (f.text) } } }
                        }
                    }
                }
            }
        }
    }
}

fn shape(shape: &[usize]) -> String {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", lengths.join(", "))
}

/// A count as people read it: 1234567 as 1,234,567.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn size(shape: &[usize]) -> usize {
    shape.iter().fold(1, |n, &k| n.saturating_mul(k))
}

fn model(report: &Report) -> Markup {
    let total: usize = report.parameters.iter().map(|p| size(&p.shape)).sum();
    html! {
        @if !report.model_tree.is_empty() {
            details { summary { "The model as printed" }
            div.bar { button type="button" data-copy="model-tree" { "Copy" } }
            pre id="model-tree" tabindex="0" aria-label="The model as printed" { (report.model_tree) }
            }
        }
        @if !report.parameters.is_empty() {
            p { b { (grouped(total)) } " parameters in " (report.parameters.len()) " arrays. By part of the model:" }
            dl.grid {
                @for (part, count) in by_part(&report.parameters) {
                    div { dt.mono { (part) } dd { (grouped(count)) " (" (format!("{:.1}", count as f64 * 100.0 / total.max(1) as f64)) "%)" } }
                }
            }
            (folded("All parameters", &html! {
                (filter("parameters-table"))
                (framed("Parameters", html! {
                    table.sortable id="parameters-table" {
                        thead { tr { th scope="col" { "Name" } th scope="col" { "Shape" } th.num scope="col" { "Numbers" } } }
                        tbody {
                            @for p in &report.parameters {
                                tr {
                                    td.mono { (p.name) }
                                    td.mono { (shape(&p.shape)) }
                                    td.num data-key=(size(&p.shape)) { (grouped(size(&p.shape))) }
                                }
                            }
                        }
                    }
                }))
            }))
        }
    }
}

/// Counts by block ("blocks.0") or first name ("embed"), in the order of the model.
fn by_part(parameters: &[Parameter]) -> Vec<(String, usize)> {
    let mut out: Vec<(String, usize)> = Vec::new();
    for p in parameters {
        let mut names = p.name.split('.');
        let first = names.next().unwrap_or("");
        let part = match names.next() {
            Some(n) if !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()) => format!("{first}.{n}"),
            _ => first.to_string(),
        };
        match out.iter_mut().find(|(name, _)| *name == part) {
            Some((_, count)) => *count += size(&p.shape),
            None => out.push((part, size(&p.shape))),
        }
    }
    out
}

fn filter(table: &str) -> Markup {
    html! {
        div.bar {
            label { "Filter " input type="search" data-filter=(table) placeholder="words to look for" autocomplete="off"; }
            output {}
        }
    }
}

fn activations(hooks: &[Hook]) -> Markup {
    let stats = hooks.iter().any(|h| h.stats.is_some());
    let total: usize = hooks.iter().map(|h| size(&h.shape)).sum();
    let value = |v: f64| html! { td.num.bad[!v.is_finite()] data-key=(v) { (stat(v)) } };
    html! {
        p { "Every activation of one forward pass, in the order in which the hooks fire: "
            (hooks.len()) " hooks, " (grouped(total)) " numbers." }
        (folded("Every activation", &html! {
        (filter("hooks-table"))
        (framed("Activations", html! {
            table.sortable id="hooks-table" {
                thead { tr {
                    th scope="col" { "Hook" } th scope="col" { "Axes" } th scope="col" { "Shape" } th.num scope="col" { "Numbers" }
                    @if stats { @for name in ["Mean", "Std", "Min", "Max"] { th.num scope="col" { (name) } } }
                } }
                tbody {
                    @for hook in hooks {
                        tr {
                            td.mono { (hook.name) }
                            td { (hook.axes.join(", ")) }
                            td.mono { (shape(&hook.shape)) }
                            td.num data-key=(size(&hook.shape)) { (grouped(size(&hook.shape))) }
                            @if stats {
                                @match hook.stats {
                                    Some(s) => { (value(s.mean)) (value(s.std)) (value(s.min)) (value(s.max)) }
                                    None => { td.num { "–" } td.num { "–" } td.num { "–" } td.num { "–" } }
                                }
                            }
                        }
                    }
                }
            }
        }))
        }))
    }
}

fn stat(v: f64) -> String {
    if !v.is_finite() || v == 0.0 {
        return v.to_string();
    }
    if (0.001..10_000.0).contains(&v.abs()) { format!("{v:.3}") } else { format!("{v:.1e}") }
}

fn held_out(report: &Report) -> Markup {
    html! {
        @if let Some(last) = report.evaluations.last() {
            p { "On data that was not trained on, the loss after " (last.step) " steps is " b { (number(last.loss)) }
                @if let Some(chance) = report.chance_loss { "; guessing gives " (number(chance)) }
                "." }
        }
    }
}

fn detectors(report: &Report, figure: Option<Markup>) -> Markup {
    let uniform = report.detectors.iter().any(|d| d.uniform.is_some());
    let drawn = figure.is_some();
    let best = |scores: &[Vec<f32>]| argmax(scores).map_or("–".into(), |(l, h, v)| format!("{v:.2} (L{l}H{h})"));
    let mean = |scores: &[Vec<f32>]| {
        let all: Vec<f32> = scores.iter().flatten().copied().filter(|v| v.is_finite()).collect();
        if all.is_empty() { "–".into() } else { format!("{:.2}", all.iter().sum::<f32>() / all.len() as f32) }
    };
    html! {
        p { "How much each head behaves as a known kind of head. A score says what its formula says and no more: look at the pattern before naming a head." }
        @if let Some(figure) = figure { (figure) }
        details open[!drawn] { summary { "What the scores are, and the highest of each" }
        (framed("Highest head of each detector", html! {
            table {
                thead { tr {
                    th scope="col" { "Kind of head" } th scope="col" { "Highest before" } th scope="col" { "Highest after" }
                    @if uniform { th.num scope="col" { "Equal attention" } }
                    th.num scope="col" { "Mean before" } th.num scope="col" { "Mean after" } th scope="col" { "Score" }
                } }
                tbody {
                    @for d in &report.detectors {
                        tr { td { b { (d.name) } } td { (best(&d.before)) } td { (best(&d.after)) }
                            @if uniform { td.num { (d.uniform.map_or("–".into(), |u| format!("{u:.2}"))) } }
                            td.num { (mean(&d.before)) } td.num { (mean(&d.after)) } td.wrap { (d.formula) } }
                    }
                }
            }
        })) }
        (folded("Scores of every head", &html! {
            (framed("Scores of every head", html! {
                table.sortable {
                    thead { tr { th scope="col" { "Head" } @for d in &report.detectors { th.num scope="col" { (d.name) } } } }
                    tbody {
                        @for (l, h) in heads(report) {
                            tr {
                                td data-key=(l * 10_000 + h) { "L" (l) "H" (h) }
                                @for d in &report.detectors {
                                    @let v = d.after.get(l).and_then(|row| row.get(h));
                                    td.num { (v.map_or("–".into(), |v| format!("{v:.3}"))) }
                                }
                            }
                        }
                    }
                }
            }))
        }))
    }
}

/// Every head that some detector scored.
fn heads(report: &Report) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = report
        .detectors
        .iter()
        .flat_map(|d| d.after.iter().enumerate().flat_map(|(l, row)| (0..row.len()).map(move |h| (l, h))))
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn further(section: &Section, figures: &[Markup]) -> Markup {
    html! {
        @for paragraph in section.prose.split("\n\n").filter(|p| !p.trim().is_empty()) { p { (paragraph) } }
        div.figures {
            @for (figure, sixths) in figures.iter().zip(sixths(&section.figures)) {
                div style=(format!("--sixths:{sixths}")) { (figure) }
            }
        }
    }
}

/// How many sixths of the page's width each figure takes: narrow ones stand side by side, and no row has a gap.
fn sixths(figures: &[Figure]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in figures.chunk_by(|a, b| a.is_narrow() && b.is_narrow()) {
        // Rows of three, and rows of two for what is left over.
        let n = run.len();
        let paired = [0, 4, 2][n % 3];
        out.extend((0..n).map(|i| match i + paired < n {
            _ if n == 1 => 6,
            true => 2,
            false => 3,
        }));
    }
    out
}

fn reproduce(report: &Report) -> Markup {
    html! {
        @if !report.reproduce.is_empty() {
            p { "This makes it again:" }
            div.bar { button type="button" data-copy="command" { "Copy" } }
            pre id="command" tabindex="0" aria-label="Command" { (report.reproduce) }
        }
        @if !report.config.is_empty() {
            (folded("All settings", &html! { dl.grid { @for (key, value) in &report.config { div { dt.mono { (key) } dd { (value) } } } } }))
        }
        p.hint { "Charts: plotly.js, MIT licence, embedded. This page loads nothing from the network." }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_figures_have_no_gap() {
        let narrow = |n| (0..n).map(|_| crate::bar(["a"], &[1.0]).size(350, 200)).collect::<Vec<_>>();
        let wide = || vec![crate::bar(["a"], &[1.0]).size(1060, 200)];
        assert_eq!(sixths(&narrow(1)), [6]);
        assert_eq!(sixths(&narrow(2)), [3, 3]);
        assert_eq!(sixths(&narrow(4)), [3, 3, 3, 3]);
        assert_eq!(sixths(&narrow(5)), [2, 2, 2, 3, 3]);
        assert_eq!(sixths(&[narrow(3), wide(), wide(), narrow(2)].concat()), [2, 2, 2, 6, 6, 3, 3]);
    }

    #[test]
    fn heads_in_a_text_are_found() {
        assert_eq!(next_head("see L0H1, L11H3"), Some((4, 4, 0, 1)));
        assert_eq!(next_head("(L11H3)"), Some((1, 5, 11, 3)));
        for none in ["", "L", "LH", "L1", "L1H", "XL1H2", "L1H2x", "L1H99999999999999999999"] {
            assert_eq!(next_head(none), None, "{none}");
        }
        let report = Report {
            snapshots: vec![crate::Snapshot {
                layers: vec![crate::Array::new([2, 1, 1], &[1.0, 1.0]).unwrap()],
                ..crate::Snapshot::default()
            }],
            ..Report::default()
        };
        let text = with_heads(&report, "L0H1 & L0H2 <b>").into_string();
        assert_eq!(text, "<a class=\"head\" href=\"#L=0&amp;H=1\">L0H1</a> &amp; L0H2 &lt;b&gt;");
    }
}
