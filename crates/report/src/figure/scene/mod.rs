//! What is drawn, with every choice made: both writers read this, so that the
//! page and the picture show the same numbers on the same axes.

mod chart;
mod heatmap;
mod statistics;

use serde_json::{Map, Value};

pub(crate) use chart::{Axis, Chart, Corner, Mark, MarkKind, Panel, Scale};
pub(crate) use heatmap::{Heatmap, Matrix};

use super::options::{self, shape_error};
use super::text::{clean, visible};
use super::{Figure, Kind};
use crate::ReportError;

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
    Chart(Chart),
    /// Scenes side by side, so many in a row.
    Panels(usize, Vec<Scene>),
    /// Scenes with the same parts, one at a time, and their names.
    Frames(Vec<String>, Vec<Scene>),
    /// Traces and layout for `plotly.js`.
    Own(Vec<Value>, Map<String, Value>),
}

pub(crate) fn prepare(figure: &Figure) -> Result<Scene, ReportError> {
    options::check(figure)?;
    let mut notes = Vec::new();
    let body = match &figure.kind {
        Kind::Heatmap(array) => Body::Heatmap(heatmap::prepare(figure, array, &mut notes)?),
        Kind::Lines(_) => Body::Chart(chart::lines(figure, &mut notes)?),
        Kind::Scatter(clouds) => Body::Chart(chart::scatter(figure, clouds, &mut notes)?),
        Kind::Histogram(samples) => Body::Chart(chart::histogram(figure, samples, &mut notes)?),
        Kind::Boxes(samples) => Body::Chart(chart::boxes(figure, samples, &mut notes)?),
        Kind::Bars { labels, series } => Body::Chart(chart::bars(figure, labels, series, &mut notes)?),
        Kind::Panels(figures) => side_by_side(figure, figures, &mut notes)?,
        Kind::Frames(frames) => in_turn(figure, frames, &mut notes)?,
        Kind::Own { traces, layout } => own(figure, traces, layout)?,
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

fn default_size(body: &Body) -> (u32, u32) {
    match body {
        Body::Heatmap(h) => h.default_size(),
        Body::Chart(c) => {
            let n = c.panels.len().max(1) as u32;
            // A few boxes or bars do not need the width of a curve.
            let width = match &c.x.scale {
                Scale::Names(names) if names.len() <= 6 && c.fixed_places => 560,
                _ => 860,
            };
            (width, 120 + 230 * n + if n == 1 { 50 } else { 0 })
        }
        Body::Panels(columns, scenes) => {
            // Panels of one row are as high as the highest of them.
            let rows = scenes.chunks((*columns).max(1));
            let height = |row: &[Scene]| row.iter().map(|s| s.size.1).max().unwrap_or(0) + 30;
            let widest = scenes.iter().map(|s| s.size.0).max().unwrap_or(0);
            let across = (*columns).min(scenes.len()).max(1) as u32;
            ((widest.min(620) * across).min(1240), rows.map(height).map(|h| h.min(440)).sum::<u32>() + 20)
        }
        Body::Frames(_, scenes) => scenes.first().map_or((860, 400), |s| s.size),
        Body::Own(_, layout) => {
            let side =
                |name, otherwise| layout.get(name).and_then(Value::as_u64).map_or(otherwise, |v| v.min(8000) as u32);
            (side("width", 860), side("height", 450))
        }
    }
}

/// What a part of a figure cannot have of its own.
fn check_part(figure: &Figure, part: &Figure, whole: &str, titles: bool) -> Result<(), ReportError> {
    let own = [
        ("title", !titles && !part.title.is_empty()),
        ("caption", !part.caption.is_empty()),
        ("size", part.size.is_some()),
    ];
    match own.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            Err(options::error(figure, option, format!("it belongs to the {whole}, not to a part of it")))
        }
        None => Ok(()),
    }
}

fn side_by_side(figure: &Figure, figures: &[Figure], notes: &mut Vec<String>) -> Result<Body, ReportError> {
    if figures.is_empty() {
        return Err(shape_error(figure, "at least one panel", "none".into()));
    }
    let mut scenes = Vec::with_capacity(figures.len());
    for part in figures {
        check_part(figure, part, "figure of several panels", true)?;
        if matches!(part.kind, Kind::Panels(_) | Kind::Frames(_) | Kind::Own { .. }) {
            let got = "panels, frames or own traces within panels".into();
            return Err(shape_error(figure, "heatmaps, lines, points, histograms, boxes or bars as panels", got));
        }
        let scene = prepare(part)?;
        notes.extend(
            scene
                .notes
                .iter()
                .map(|n| if scene.title.is_empty() { n.clone() } else { format!("{}: {n}", scene.title) }),
        );
        scenes.push(Scene { notes: Vec::new(), ..scene });
    }
    Ok(Body::Panels(figure.columns.unwrap_or(2).min(scenes.len()), scenes))
}

fn in_turn(figure: &Figure, frames: &[(String, Figure)], notes: &mut Vec<String>) -> Result<Body, ReportError> {
    if frames.is_empty() {
        return Err(shape_error(figure, "at least one frame", "none".into()));
    }
    let mut scenes: Vec<Scene> = Vec::with_capacity(frames.len());
    for (name, part) in frames {
        check_part(figure, part, "whole of the frames", false)?;
        if matches!(part.kind, Kind::Panels(_) | Kind::Frames(_) | Kind::Own { .. }) {
            let got = "panels, frames or own traces within frames".into();
            return Err(shape_error(figure, "heatmaps, lines, points, histograms, boxes or bars as frames", got));
        }
        let scene = prepare(part)?;
        if scenes.first().is_some_and(|first| parts(&first.body) != parts(&scene.body)) {
            let got = format!("another kind or number of parts in `{}`", clean(name));
            return Err(shape_error(figure, "frames that differ in their numbers only", got));
        }
        notes.extend(scene.notes.iter().map(|n| format!("{}: {n}", clean(name))));
        scenes.push(Scene { notes: Vec::new(), ..scene });
    }
    let ranged = frames.iter().any(|f| f.1.range.is_some());
    share_axes(&mut scenes, ranged);
    Ok(Body::Frames(frames.iter().map(|f| clean(&f.0)).collect(), scenes))
}

/// What must be equal in frames: the kind, and the number of everything that is not a number itself.
fn parts(body: &Body) -> Vec<usize> {
    match body {
        Body::Heatmap(h) => vec![0, h.rows, h.cols, h.panels.len()],
        Body::Chart(c) => {
            let scale = |a: &Axis| match &a.scale {
                Scale::Linear => 0,
                Scale::Log => 1,
                Scale::Names(names) => 2 + names.len(),
            };
            let panel = |p: &Panel| [scale(&p.y), p.marks.len()];
            [1, scale(&c.x)].into_iter().chain(c.panels.iter().flat_map(panel)).collect()
        }
        Body::Panels(..) | Body::Frames(..) | Body::Own(..) => vec![2],
    }
}

/// Frames have the axes and colours of all: what moves is the data.
fn share_axes(scenes: &mut [Scene], ranged: bool) {
    let union = |a: (f64, f64), b: (f64, f64)| (a.0.min(b.0), a.1.max(b.1));
    let Some((first, others)) = scenes.split_first_mut() else { return };
    let mut whole = first.body.clone();
    for scene in others.iter() {
        match (&mut whole, &scene.body) {
            (Body::Heatmap(a), Body::Heatmap(b)) if !ranged => {
                a.panels.iter_mut().zip(&b.panels).for_each(|(x, y)| x.range = union(x.range, y.range));
            }
            (Body::Chart(a), Body::Chart(b)) => {
                a.x.range = union(a.x.range, b.x.range);
                a.panels.iter_mut().zip(&b.panels).for_each(|(x, y)| x.y.range = union(x.y.range, y.y.range));
                if let (Some(x), Some(y)) = (&mut a.colors, &b.colors) {
                    x.range = union(x.range, y.range);
                }
            }
            _ => {}
        }
    }
    for scene in scenes {
        match (&mut scene.body, &whole) {
            (Body::Heatmap(a), Body::Heatmap(b)) if !ranged => {
                a.panels.iter_mut().zip(&b.panels).for_each(|(x, y)| x.range = y.range);
            }
            (Body::Chart(a), Body::Chart(b)) => {
                a.x.range = b.x.range;
                if !ranged {
                    a.panels.iter_mut().zip(&b.panels).for_each(|(x, y)| x.y.range = y.y.range);
                }
                if let (Some(x), Some(y)) = (&mut a.colors, &b.colors) {
                    x.range = y.range;
                }
            }
            _ => {}
        }
    }
}

fn own(figure: &Figure, traces: &str, layout: &str) -> Result<Body, ReportError> {
    let traces = match serde_json::from_str(traces) {
        Ok(Value::Array(traces)) if traces.iter().all(Value::is_object) => traces,
        Ok(_) => return Err(shape_error(figure, "a JSON array of objects as traces", "other JSON".into())),
        Err(e) => return Err(shape_error(figure, "a JSON array of objects as traces", e.to_string())),
    };
    if let Some(kind) = traces.iter().filter_map(|t| t.get("type")).find(|k| !KNOWN_TRACES.iter().any(|n| *k == n)) {
        return Err(shape_error(figure, &format!("traces of the types {}", KNOWN_TRACES.join(", ")), kind.to_string()));
    }
    let layout = match layout.trim() {
        "" => Map::new(),
        text => match serde_json::from_str(text) {
            Ok(Value::Object(layout)) => layout,
            Ok(_) => return Err(shape_error(figure, "a JSON object as layout", "other JSON".into())),
            Err(e) => return Err(shape_error(figure, "a JSON object as layout", e.to_string())),
        },
    };
    Ok(Body::Own(traces, layout))
}

/// The traces of the embedded bundle of `plotly.js`.
const KNOWN_TRACES: [&str; 12] = [
    "scatter",
    "bar",
    "box",
    "heatmap",
    "histogram",
    "histogram2d",
    "histogram2dcontour",
    "contour",
    "violin",
    "image",
    "pie",
    "scatterternary",
];
