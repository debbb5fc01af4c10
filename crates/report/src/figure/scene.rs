//! What is drawn, with every choice made: both writers read this, so that the
//! page and the picture show the same numbers on the same axes.

use std::borrow::Cow;

use super::{Figure, Kind, Series};
use crate::array::finite_range;
use crate::{Array, Colorscale, ReportError};

/// A checked figure.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub title: String,
    pub caption: String,
    /// What the reader must know about values that could not be shown.
    pub notes: Vec<String>,
    pub size: (u32, u32),
    pub body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Heatmap(Heatmap),
    Lines(Lines),
    Bars(Bars),
}

#[derive(Debug, Clone)]
pub(crate) struct Heatmap {
    pub rows: usize,
    pub cols: usize,
    pub panels: Vec<(String, Vec<f32>)>,
    pub columns: usize,
    pub range: (f64, f64),
    pub colors: Colorscale,
    pub x: String,
    pub y: String,
    pub value: String,
    pub x_labels: Vec<String>,
    pub y_labels: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub x: String,
    /// Names of the positions 0, 1, 2, …; numbers if empty.
    pub x_labels: Vec<String>,
    pub x_range: (f64, f64),
    pub panels: Vec<Panel>,
}

/// One set of axes; `range` is in powers of ten if `log`.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    pub y: String,
    pub log: bool,
    pub range: (f64, f64),
    /// Name, positions, values; a value that cannot be shown is NaN.
    pub series: Vec<Series>,
    pub rules: Vec<(f64, String)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Bars {
    pub labels: Vec<String>,
    pub x: String,
    pub panel: Panel,
}

pub(crate) fn prepare(figure: &Figure) -> Result<Scene, ReportError> {
    stacked(figure).into_iter().try_for_each(check_options)?;
    let mut notes = Vec::new();
    let body = match &figure.kind {
        Kind::Heatmap(array) => Body::Heatmap(heatmap(figure, array, &mut notes)?),
        Kind::Lines(_) => Body::Lines(lines(figure, &mut notes)?),
        Kind::Bars { labels, series } => Body::Bars(bars(figure, labels, series, &mut notes)?),
    };
    let size = figure.size.unwrap_or_else(|| default_size(&body));
    Ok(Scene {
        title: clean(&figure.title),
        caption: visible(&figure.caption),
        notes,
        size: (size.0.clamp(160, 8000), size.1.clamp(120, 8000)),
        body,
    })
}

/// Refuses what the kind of figure would ignore, and values that cannot be.
fn check_options(figure: &Figure) -> Result<(), ReportError> {
    let (kind, heatmap, lines) = match &figure.kind {
        Kind::Heatmap(_) => ("a heatmap", true, false),
        Kind::Lines(_) => ("a line figure", false, true),
        Kind::Bars { .. } => ("a bar figure", false, false),
    };
    let options = [
        ("value", figure.value.is_some(), heatmap, "name the vertical axis with `y`"),
        ("midpoint", figure.midpoint.is_some(), heatmap, "it has no colours; `range` sets the ends of its axis"),
        ("colorscale", figure.colorscale.is_some(), heatmap, "it has no colour map"),
        ("y_labels", !figure.y_labels.is_empty(), heatmap, "its vertical axis has numbers"),
        ("facets", !figure.facets.is_empty(), heatmap, "give each `Series` a name"),
        ("columns", figure.columns.is_some(), heatmap, "it has no small matrices"),
        ("x_labels", !figure.x_labels.is_empty(), heatmap || lines, "its labels are the first argument of `bar`"),
        ("log_y", figure.log_y, !heatmap, "take the logarithm of its values"),
        ("rule", !figure.rules.is_empty(), !heatmap, "it has no axis of values"),
        ("below", !figure.below.is_empty(), lines, "write each figure by itself, or put them into a `Report`"),
    ];
    if let Some((option, _, _, instead)) = options.into_iter().find(|(_, given, shown, _)| *given && !shown) {
        return Err(option_error(figure, option, format!("it means nothing for {kind}; {instead}")));
    }
    if let Some((a, b)) = figure.range {
        if !(a.is_finite() && b.is_finite() && a != b) {
            return Err(option_error(
                figure,
                "range",
                format!("got {a} to {b}, expected two finite, different numbers"),
            ));
        }
        if figure.log_y && a.min(b) <= 0.0 {
            let reason = format!("got {a} to {b}, expected numbers above 0, because the axis is logarithmic");
            return Err(option_error(figure, "range", reason));
        }
    }
    if let Some(m) = figure.midpoint.filter(|m| !m.is_finite()) {
        return Err(option_error(figure, "midpoint", format!("got {m}, expected a finite number")));
    }
    if figure.columns == Some(0) {
        return Err(option_error(figure, "columns", "got 0, expected 1 or more".into()));
    }
    Ok(())
}

fn default_size(body: &Body) -> (u32, u32) {
    match body {
        Body::Heatmap(h) => {
            let across = h.columns.min(h.panels.len()).max(1) as u32;
            let down = (h.panels.len().max(1) as u32).div_ceil(across);
            let side = match across {
                1 => 400.0,
                2 => 330.0,
                3 => 250.0,
                _ => 190.0,
            };
            // Square cells: the shorter side of a panel follows from the longer one.
            let cell = side / h.rows.max(h.cols).max(1) as f64;
            let (w, v) = (cell * h.cols as f64, cell * h.rows as f64);
            let panel = (w.max(60.0) as u32 + 46, v.max(24.0) as u32 + 46);
            (across * panel.0 + 140, down * panel.1 + 84)
        }
        Body::Lines(l) => (860, 120 + 230 * l.panels.len().max(1) as u32 + if l.panels.len() == 1 { 110 } else { 0 }),
        Body::Bars(_) => (860, 400),
    }
}

fn heatmap(figure: &Figure, array: &Array, notes: &mut Vec<String>) -> Result<Heatmap, ReportError> {
    let (count, rows, cols) = match *array.shape() {
        [rows, cols] => (1, rows, cols),
        [count, rows, cols] => (count, rows, cols),
        _ => {
            return Err(shape_error(
                figure,
                "a matrix [rows, columns], or [n, rows, columns] for small multiples; take a mean or an index over the other dimensions",
                format!("shape {:?}", array.shape()),
            ));
        }
    };
    if count * rows * cols == 0 {
        return Err(shape_error(figure, "at least one cell", format!("shape {:?}", array.shape())));
    }
    for (axis, labels, n) in
        [("columns", &figure.x_labels, cols), ("rows", &figure.y_labels, rows), ("matrices", &figure.facets, count)]
    {
        if !labels.is_empty() && labels.len() != n {
            return Err(shape_error(
                figure,
                &format!("{n} labels, one for each of the {axis}"),
                format!("{} labels", labels.len()),
            ));
        }
    }
    let bad = array.data().iter().filter(|v| !v.is_finite()).count();
    if bad > 0 {
        notes.push(format!("{} not finite (NaN or infinite) and marked in magenta", cells(bad)));
    }
    let panels = (0..count)
        .map(|i| {
            let name = figure
                .facets
                .get(i)
                .map(|s| clean(s))
                .unwrap_or_else(|| if count > 1 { i.to_string() } else { String::new() });
            (name, array.data()[i * rows * cols..(i + 1) * rows * cols].to_vec())
        })
        .collect();
    let default = if figure.midpoint.is_some() { Colorscale::RdBu } else { Colorscale::Blues };
    Ok(Heatmap {
        rows,
        cols,
        panels,
        columns: figure.columns.unwrap_or(4).min(count),
        range: color_range(figure, array.finite_range()),
        colors: figure.colorscale.unwrap_or(default),
        x: clean(&figure.x),
        y: clean(&figure.y),
        value: clean(figure.value.as_deref().unwrap_or("value")),
        x_labels: figure.x_labels.iter().map(|s| token_text(s)).collect(),
        y_labels: figure.y_labels.iter().map(|s| token_text(s)).collect(),
    })
}

fn color_range(figure: &Figure, data: Option<(f64, f64)>) -> (f64, f64) {
    let (lo, hi) = data.unwrap_or((0.0, 1.0));
    let (lo, hi) = match (asked_range(figure), figure.midpoint) {
        (Some(range), None) => range,
        (Some((lo, hi)), Some(m)) => about(m, lo, hi),
        (None, Some(m)) => about(m, lo, hi),
        (None, None) => (lo.min(0.0), hi),
    };
    if hi > lo { (lo, hi) } else { (lo, lo + 1.0) }
}

fn about(m: f64, lo: f64, hi: f64) -> (f64, f64) {
    let reach = (hi - m).abs().max((m - lo).abs());
    let reach = if reach > 0.0 { reach } else { 1.0 };
    (m - reach, m + reach)
}

/// The range asked for, smaller end first.
fn asked_range(figure: &Figure) -> Option<(f64, f64)> {
    figure.range.map(|(a, b)| (a.min(b), a.max(b)))
}

fn lines(figure: &Figure, notes: &mut Vec<String>) -> Result<Lines, ReportError> {
    let parts = stacked(figure);
    let mut panels = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let Kind::Lines(series) = &part.kind else {
            return Err(shape_error(figure, "only line figures one below the other", "another kind of figure".into()));
        };
        let of_the_first =
            [("title", !part.title.is_empty()), ("caption", !part.caption.is_empty()), ("size", part.size.is_some())];
        if let Some((option, _)) = of_the_first.into_iter().find(|(_, given)| *given && i > 0) {
            let reason = "it belongs to the first of several figures one below the other".into();
            return Err(option_error(figure, option, reason));
        }
        panels.push(panel(part, series, notes)?);
    }
    let x = shared(figure, "x", parts.iter().map(|f| &f.x).filter(|x| !x.is_empty()))?;
    let x_labels = shared(figure, "x_labels", parts.iter().map(|f| &f.x_labels).filter(|l| !l.is_empty()))?;
    if let Some(labels) = x_labels {
        let series = || panels.iter().flat_map(|p| &p.series);
        let placed = parts.iter().any(|f| matches!(&f.kind, Kind::Lines(s) if s.iter().any(|s| !s.x.is_empty())));
        if placed {
            let reason = "the positions have numbers from `Series::x`; take one or the other".into();
            return Err(option_error(figure, "x_labels", reason));
        }
        let longest = series().map(|s| s.y.len()).max().unwrap_or(0);
        if labels.len() != longest {
            let expected = format!("{longest} labels, one for each value of the longest curve");
            return Err(shape_error(figure, &expected, format!("{} labels", labels.len())));
        }
    }
    let x_range = panels
        .iter()
        .flat_map(|p| &p.series)
        .filter_map(|s| finite_range(s.x.iter().copied()))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let x_range = match x_range {
        Some((lo, hi)) if hi > lo => {
            // A few points are drawn as dots, which the frame should not cut.
            let few = panels.iter().flat_map(|p| &p.series).all(|s| s.x.len() <= 40);
            let air = if few { (hi - lo) * 0.015 } else { 0.0 };
            (lo - air, hi + air)
        }
        Some((x, _)) => (x - 0.5, x + 0.5),
        None => (0.0, 1.0),
    };
    Ok(Lines {
        x: x.map_or_else(String::new, |x| clean(x)),
        x_labels: x_labels.into_iter().flatten().map(|s| token_text(s)).collect(),
        x_range,
        panels,
    })
}

/// A figure and all below it, from the top.
fn stacked(figure: &Figure) -> Vec<&Figure> {
    std::iter::once(figure).chain(figure.below.iter().flat_map(stacked)).collect()
}

/// What figures with one horizontal axis say of it: those that say something agree.
fn shared<'a, T: PartialEq>(
    figure: &Figure,
    option: &'static str,
    mut said: impl Iterator<Item = &'a T>,
) -> Result<Option<&'a T>, ReportError> {
    let first = said.next();
    match said.all(|other| Some(other) == first) {
        true => Ok(first),
        false => {
            let reason = "figures one below the other share it, and two of them differ".into();
            Err(option_error(figure, option, reason))
        }
    }
}

fn bars(figure: &Figure, labels: &[String], series: &[Series], notes: &mut Vec<String>) -> Result<Bars, ReportError> {
    if let Some(s) = series.iter().find(|s| s.y.len() != labels.len()) {
        return Err(shape_error(
            figure,
            &format!("{} values, one for each label", labels.len()),
            format!("{} values in series `{}`", s.y.len(), clean(&s.name)),
        ));
    }
    if labels.is_empty() {
        return Err(shape_error(figure, "at least one bar", "no labels".into()));
    }
    if let Some(s) = series.iter().find(|s| !s.x.is_empty()) {
        let got = format!("positions in series `{}`", clean(&s.name));
        return Err(shape_error(figure, "series without positions: bars stand at their labels", got));
    }
    let mut panel = panel(figure, series, notes)?;
    if !panel.log && figure.range.is_none() {
        // Bars grow from zero, or their lengths would lie.
        let (lo, hi) = panel.range;
        let data = finite_range(panel.series.iter().flat_map(|s| s.y.iter().copied()));
        let positive = data.is_none_or(|d| d.0 >= 0.0);
        let negative = data.is_some_and(|d| d.1 <= 0.0);
        panel.range = (if positive { 0.0 } else { lo.min(0.0) }, if negative && !positive { 0.0 } else { hi.max(0.0) });
    }
    Ok(Bars { labels: labels.iter().map(|s| token_text(s)).collect(), x: clean(&figure.x), panel })
}

fn panel(figure: &Figure, series: &[Series], notes: &mut Vec<String>) -> Result<Panel, ReportError> {
    let (mut dropped, mut gaps) = (0, 0);
    let mut shown = Vec::with_capacity(series.len());
    for s in series {
        if !s.x.is_empty() && s.x.len() != s.y.len() {
            return Err(shape_error(
                figure,
                &format!("{} positions, one for each value of `{}`", s.y.len(), clean(&s.name)),
                format!("{} positions", s.x.len()),
            ));
        }
        let x = if s.x.is_empty() { (0..s.y.len()).map(|i| i as f64).collect() } else { s.x.clone() };
        let y = s.y.iter().map(|&v| {
            if !v.is_finite() {
                gaps += 1;
                f64::NAN
            } else if figure.log_y && v <= 0.0 {
                dropped += 1;
                f64::NAN
            } else {
                v
            }
        });
        let y = y.collect();
        shown.push(Series { name: clean(&s.name), x, y });
    }
    let of = if figure.y.is_empty() { String::new() } else { format!(" of {}", clean(&figure.y)) };
    if dropped > 0 {
        notes.push(format!("{}{of} zero or negative and left out of the logarithmic axis", values(dropped)));
    }
    if gaps > 0 {
        notes.push(format!("{}{of} not finite (NaN or infinite) and left out", values(gaps)));
    }
    let rules: Vec<(f64, String)> = figure
        .rules
        .iter()
        .filter(|(y, _)| y.is_finite() && (!figure.log_y || *y > 0.0))
        .map(|(y, name)| (*y, clean(name)))
        .collect();
    let lost = figure.rules.len() - rules.len();
    if lost > 0 {
        let why = if figure.log_y { "not finite, zero or negative" } else { "not finite" };
        notes.push(format!("{} rule{}{of} {why} and left out", lost, if lost == 1 { " is" } else { "s are" }));
    }
    let asked = asked_range(figure);
    let data = asked.or_else(|| {
        let all = shown.iter().flat_map(|s| s.y.iter().copied());
        finite_range(all.chain(rules.iter().map(|r| r.0)))
    });
    let scale = |v: f64| if figure.log_y { v.log10() } else { v };
    let (lo, hi) = data.map_or((0.0, 1.0), |(lo, hi)| (scale(lo), scale(hi)));
    let range = if asked.is_some() {
        (lo, hi)
    } else if hi > lo {
        let air = (hi - lo) * 0.05;
        (lo - air, hi + air)
    } else {
        let air = if figure.log_y || lo == 0.0 { 1.0 } else { lo.abs() * 0.1 };
        (lo - air, hi + air)
    };
    Ok(Panel { y: clean(&figure.y), log: figure.log_y, range, series: shown, rules })
}

fn called(figure: &Figure) -> String {
    if figure.title.is_empty() { "a figure".into() } else { format!("the figure `{}`", clean(&figure.title)) }
}

fn shape_error(figure: &Figure, expected: &str, got: String) -> ReportError {
    ReportError::Shape { what: called(figure), expected: expected.into(), got }
}

fn option_error(figure: &Figure, option: &'static str, reason: String) -> ReportError {
    ReportError::Option { what: called(figure), option, reason }
}

fn cells(n: usize) -> String {
    if n == 1 { "1 cell is".into() } else { format!("{n} cells are") }
}

fn values(n: usize) -> String {
    if n == 1 { "1 value is".into() } else { format!("{n} values are") }
}

/// The most characters of a title, name or label: more could not be read, and measuring them
/// would take longer than drawing the figure.
const LONGEST_TEXT: usize = 200;

/// The text, or its beginning and an ellipsis.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_TEXT) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// Text without control characters, which XML and titles cannot hold.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect()
}

/// A title or name: visible, and short enough to be drawn.
pub(crate) fn clean(text: &str) -> String {
    visible(&shortened(text))
}

/// A token so that it can be seen: blanks, line ends and unprintable characters are drawn.
pub(crate) fn token_text(text: &str) -> String {
    let mut out = String::new();
    for c in shortened(text).chars() {
        match c {
            ' ' => out.push('·'),
            '\n' => out.push('⏎'),
            '\t' => out.push('→'),
            c if c.is_control() || is_invisible(c) => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    if out.is_empty() { "∅".into() } else { out }
}

/// Characters that would reorder or hide their neighbours.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}
