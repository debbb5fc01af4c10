//! A scene as `plotly.js` takes it.
//!
//! Traces and axes are the `plotly` crate's types. What those cannot say (square
//! facets with a shared zoom) is set in the JSON. Colours are set by the page,
//! because they follow its light or dark theme: `ironlens.tones` gives each
//! trace's line colour, `ironlens.colors` the name of the colour map.

use plotly::common::{Anchor, ColorBar, DashType, ExponentFormat, Font, Label, Line, Marker, Mode, Title};
use plotly::layout::{Annotation, Axis, AxisType, ColorAxis, HoverMode, Legend, Margin};
use plotly::{Bar, HeatMap, Layout, Scatter, Trace};
use serde_json::{Map, Value, json};

use super::scene::{Bars, Body, Heatmap, Lines, Panel, Scene};
use super::ticks;
use crate::color::{NOT_FINITE, to_hex};

pub(crate) fn json(scene: &Scene) -> String {
    // Above a heatmap stand the names of its parts and the buttons.
    let height = match &scene.body {
        Body::Heatmap(h) => scene.size.1 + 20 * h.panels.len().div_ceil(h.columns.max(1)) as u32,
        _ => scene.size.1,
    };
    let (data, layout, extra) = match &scene.body {
        Body::Heatmap(h) => heatmap(h, height),
        Body::Lines(l) => lines(l),
        Body::Bars(b) => bars(b),
    };
    let mut layout = layout;
    layout.insert("height".into(), height.into());
    let (mut min_width, mut rows) = (0, 1);
    if let Body::Heatmap(h) = &scene.body {
        let across = h.columns.min(h.panels.len());
        rows = h.panels.len().div_ceil(across.max(1));
        min_width = if across > 1 { 120 * across as u32 + 120 } else { 0 };
    }
    let name = crate::page::slug(&scene.title, "figure");
    json!({
        "data": data,
        "layout": layout,
        "config": {
            "responsive": true, "displaylogo": false, "scrollZoom": false,
            "modeBarButtonsToRemove": ["select2d", "lasso2d"],
            "toImageButtonOptions": { "format": "png", "scale": 2, "filename": name },
        },
        "ironlens": { "extra": extra, "width": scene.size.0, "minWidth": min_width, "rows": rows },
    })
    .to_string()
}

type Parts = (Vec<Value>, Map<String, Value>, Value);

fn trace(trace: &dyn Trace) -> Value {
    serde_json::from_str(&trace.to_json()).unwrap_or(Value::Null)
}

fn object(value: impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn base() -> Layout {
    Layout::new().auto_size(true).font(Font::new().size(13)).margin(Margin::new().left(64).right(24).top(36).bottom(52))
}

fn axis_key(letter: char, i: usize) -> (String, String) {
    let n = if i == 0 { String::new() } else { (i + 1).to_string() };
    (format!("{letter}axis{n}"), format!("{letter}{n}"))
}

/// Text inside a plotly figure is a little HTML, and `%{…}` a place holder.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace("%{", "% {")
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn heatmap(h: &Heatmap, height: u32) -> Parts {
    let (lo, hi) = h.range;
    let count = h.panels.len();
    let across = h.columns.clamp(1, count.max(1));
    let down = count.div_ceil(across);
    let hover = format!(
        "{} %{{y}}<br>{} %{{x}}<br>{}: %{{z:.4~g}}",
        escape(or(&h.y, "row")),
        escape(or(&h.x, "column")),
        escape(or(&h.value, "value")),
    );
    let mut data = Vec::new();
    let mut annotations = Vec::new();
    let mut axes = Map::new();
    for (i, (name, cells)) in h.panels.iter().enumerate() {
        let ((x_name, x), (y_name, y)) = (axis_key('x', i), axis_key('y', i));
        let rows = |f: &dyn Fn(f32) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
            cells.chunks(h.cols).map(|row| row.iter().map(|&v| f(v)).collect()).collect()
        };
        let extra = if name.is_empty() { "<extra></extra>".into() } else { format!("<extra>{}</extra>", escape(name)) };
        let z = rows(&|v| v.is_finite().then(|| short(v)));
        let mut main = object(trace(
            &*HeatMap::new_z(z).x_axis(&x).y_axis(&y).hover_on_gaps(false).hover_template(format!("{hover}{extra}")),
        ));
        main.insert("coloraxis".into(), "coloraxis".into());
        data.push(Value::Object(main));
        if cells.iter().any(|v| !v.is_finite()) {
            let color = to_hex(NOT_FINITE);
            let mut bad = object(trace(
                &*HeatMap::new_z(rows(&|v| (!v.is_finite()).then_some(1.0)))
                    .x_axis(&x)
                    .y_axis(&y)
                    .hover_on_gaps(false)
                    .show_scale(false)
                    .hover_template(format!("row %{{y}}<br>column %{{x}}<br>not finite{extra}")),
            ));
            bad.insert("colorscale".into(), json!([[0, color], [1, color]]));
            data.push(Value::Object(bad));
        }
        let (col, row) = (i % across, i / across);
        let domain = |k: usize, n: usize, gap: f64| {
            let size = (1.0 - gap * (n - 1) as f64) / n as f64;
            [k as f64 * (size + gap), k as f64 * (size + gap) + size]
        };
        // Room for the ticks above and the name below.
        let gap_y = if down > 1 { (48.0 / (f64::from(height) - 104.0)).min(0.5 / (down - 1) as f64) } else { 0.0 };
        let x_domain = domain(col, across, if across > 1 { 0.3 / (across * across) as f64 } else { 0.0 });
        let y_domain = domain(down - 1 - row, down, gap_y);
        let bottom = row + 1 == down || i + across >= count;
        let mut x_axis = object(
            Axis::new()
                .title(Title::with_text(if bottom { escape(&h.x) } else { String::new() }))
                .domain(&x_domain)
                .anchor(&y)
                .zero_line(false)
                .show_grid(false),
        );
        let mut y_axis = object(
            Axis::new()
                .title(Title::with_text(if col == 0 { escape(&h.y) } else { String::new() }))
                .domain(&y_domain)
                .anchor(&x)
                .zero_line(false)
                .show_grid(false),
        );
        for (axis, labels, n) in [(&mut x_axis, &h.x_labels, h.cols), (&mut y_axis, &h.y_labels, h.rows)] {
            axis.insert("constrain".into(), "domain".into());
            axis.insert("ticks".into(), "outside".into());
            axis.insert("ticklen".into(), 3.into());
            if !labels.is_empty() {
                let every = n.div_ceil(if across > 2 { 12 } else { 32 });
                let at: Vec<usize> = (0..n).step_by(every).collect();
                axis.insert("ticktext".into(), at.iter().map(|&k| escape(&labels[k])).collect());
                axis.insert("tickvals".into(), at.into());
            } else if n <= 16 {
                axis.insert("dtick".into(), 1.into());
            } else if across > 1 {
                axis.insert("nticks".into(), 6.into());
            }
        }
        y_axis.insert("autorange".into(), "reversed".into());
        if i > 0 {
            x_axis.insert("matches".into(), "x".into());
            y_axis.insert("matches".into(), "y".into());
        } else {
            y_axis.insert("scaleanchor".into(), "x".into());
        }
        axes.insert(x_name, x_axis.into());
        axes.insert(y_name, y_axis.into());
        if !name.is_empty() {
            annotations.push(
                Annotation::new()
                    .text(escape(name))
                    .show_arrow(false)
                    .x_ref("paper")
                    .y_ref("paper")
                    .x_anchor(Anchor::Center)
                    .y_anchor(Anchor::Bottom)
                    .x((x_domain[0] + x_domain[1]) / 2.0)
                    .y(y_domain[1])
                    .y_shift(2.0),
            );
        }
    }
    let bar = ColorBar::new().title(Title::with_text(escape(&h.value))).thickness(14).outline_width(0);
    let mut layout = object(
        base()
            .color_axis(ColorAxis::new().cmin(lo).cmax(hi).color_bar(bar))
            .annotations(annotations)
            .margin(Margin::new().left(64).right(16).top(if h.panels.len() > 1 { 52 } else { 34 }).bottom(52)),
    );
    layout.append(&mut axes);
    (data, layout, json!({ "colors": h.colors.name() }))
}

/// The digits that the number has, and no more.
fn short(v: f32) -> f64 {
    super::Number::to_f64(if v.abs() >= 1e-4 { (v * 1e6).round() / 1e6 } else { v })
}

fn finite(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().map(|v| v.is_finite().then_some(*v)).collect()
}

fn value_axis(panel: &Panel) -> Map<String, Value> {
    let mut axis = object(Axis::new().title(Title::with_text(escape(&panel.y))).zero_line(false));
    axis.insert("range".into(), json!([panel.range.0, panel.range.1]));
    axis.insert("automargin".into(), true.into());
    if panel.log {
        let mut log = object(Axis::new().type_(AxisType::Log).exponent_format(ExponentFormat::Power));
        axis.append(&mut log);
        let at = ticks::decades(panel.range.0, panel.range.1, 12);
        axis.insert("tickfont".into(), json!({ "size": 11 }));
        axis.insert("dtick".into(), if at.len() > 1 { (at[1] - at[0]).max(1.0) } else { 1.0 }.into());
        axis.insert("tick0".into(), at.first().copied().unwrap_or(0.0).into());
        if at.len() < 2 {
            axis.remove("dtick");
            axis.insert("exponentformat".into(), "e".into());
        }
    } else {
        axis.insert("exponentformat".into(), "e".into());
    }
    axis
}

fn rules(panel: &Panel, y: &str, shapes: &mut Vec<Value>, annotations: &mut Vec<Annotation>) {
    for (at, name) in &panel.rules {
        shapes.push(json!({ "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": y, "y0": at, "y1": at,
            "line": { "width": 1.5, "dash": "dash", "color": "#8a929a" } }));
        let shown = if panel.log { at.log10() } else { *at };
        annotations.push(
            Annotation::new()
                .text(escape(name))
                .show_arrow(false)
                .x_ref("paper")
                .x(1.0)
                .x_anchor(Anchor::Right)
                .y_ref(y)
                .y(shown)
                .y_anchor(Anchor::Bottom),
        );
    }
}

const DASHES: [DashType; 4] = [DashType::Solid, DashType::Dash, DashType::Dot, DashType::DashDot];

fn lines(l: &Lines) -> Parts {
    let count = l.panels.len().max(1);
    let legend = l.panels.iter().any(|p| p.series.len() > 1);
    let (mut data, mut tones) = (Vec::new(), Vec::new());
    let (mut shapes, mut annotations, mut axes) = (Vec::new(), Vec::new(), Map::new());
    let gap = if count > 1 { 0.08 } else { 0.0 };
    let size = (1.0 - gap * (count - 1) as f64) / count as f64;
    for (i, panel) in l.panels.iter().enumerate() {
        let (y_name, y) = axis_key('y', i);
        for (k, s) in panel.series.iter().enumerate() {
            let name = or(&s.name, or(&panel.y, "value"));
            let mode = if s.x.len() == 1 {
                Mode::Markers
            } else if s.x.len() <= 40 {
                Mode::LinesMarkers
            } else {
                Mode::Lines
            };
            let dash = DASHES[(k / 6) % DASHES.len()].clone();
            let t = Scatter::new(s.x.clone(), finite(&s.y))
                .name(escape(name))
                .mode(mode)
                .line(Line::new().width(if count > 1 { 1.5 } else { 2.0 }).dash(dash))
                .hover_template("%{y:.4~g}")
                .x_axis("x")
                .y_axis(&y)
                .show_legend(legend && panel.series.len() > 1);
            data.push(trace(&*t));
            tones.push(if count > 1 && panel.series.len() == 1 { i } else { k });
        }
        let mut axis = value_axis(panel);
        let top = 1.0 - i as f64 * (size + gap);
        axis.insert("domain".into(), json!([(top - size).max(0.0), top]));
        axis.insert("anchor".into(), "x".into());
        axes.insert(y_name, axis.into());
        rules(panel, &y, &mut shapes, &mut annotations);
    }
    let mut x_axis = object(Axis::new().title(Title::with_text(escape(&l.x))).zero_line(false));
    x_axis.insert("anchor".into(), axis_key('y', count - 1).1.into());
    x_axis.insert("range".into(), json!([l.x_range.0, l.x_range.1]));
    if !l.x_labels.is_empty() {
        name_ticks(&mut x_axis, &l.x_labels);
    }
    x_axis.insert("showspikes".into(), true.into());
    x_axis.insert("spikemode".into(), "across".into());
    x_axis.insert("spikethickness".into(), 1.into());
    x_axis.insert("spikedash".into(), "solid".into());
    axes.insert("xaxis".into(), x_axis.into());
    let mut layout = object(
        base()
            .hover_mode(HoverMode::XUnified)
            .annotations(annotations)
            .show_legend(legend)
            .legend(Legend::new().x(0.0).y(1.02).y_anchor(Anchor::Bottom)),
    );
    layout.insert("hoversubplots".into(), "axis".into());
    layout.insert("shapes".into(), shapes.into());
    if legend {
        layout.insert("legend".into(), json!({ "orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom" }));
        layout.insert("margin".into(), json!({ "l": 64, "r": 24, "t": 40, "b": 52 }));
    }
    layout.append(&mut axes);
    (data, layout, json!({ "tones": tones }))
}

/// Names instead of numbers at 0, 1, 2, .. of a horizontal axis, so many that they can be told apart.
fn name_ticks(axis: &mut Map<String, Value>, labels: &[String]) {
    let shown: Vec<usize> = (0..labels.len()).step_by(labels.len().div_ceil(48)).collect();
    axis.insert("ticktext".into(), shown.iter().map(|&i| escape(&labels[i])).collect());
    axis.insert("tickvals".into(), shown.into());
    axis.insert("automargin".into(), true.into());
}

fn bars(b: &Bars) -> Parts {
    let (mut data, mut tones) = (Vec::new(), Vec::new());
    let (mut shapes, mut annotations) = (Vec::new(), Vec::new());
    // Bars stand at their index and carry their label as a tick: equal labels stay apart.
    let at: Vec<usize> = (0..b.labels.len()).collect();
    for (k, s) in b.panel.series.iter().enumerate() {
        let name = or(&s.name, or(&b.panel.y, "value"));
        let t = Bar::new(at.clone(), finite(&s.y))
            .name(escape(name))
            .marker(Marker::new())
            .hover_template("%{y:.4~g}")
            .hover_label(Label::new());
        data.push(trace(&*t));
        tones.push(k);
    }
    rules(&b.panel, "y", &mut shapes, &mut annotations);
    let mut x_axis = object(Axis::new().title(Title::with_text(escape(&b.x))).show_grid(false));
    name_ticks(&mut x_axis, &b.labels);
    let legend = b.panel.series.len() > 1;
    let mut layout = object(base().hover_mode(HoverMode::XUnified).show_legend(legend).annotations(annotations));
    layout.insert("xaxis".into(), x_axis.into());
    layout.insert("yaxis".into(), value_axis(&b.panel).into());
    layout.insert("shapes".into(), shapes.into());
    layout.insert("barmode".into(), "group".into());
    layout.insert("legend".into(), json!({ "orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom" }));
    (data, layout, json!({ "tones": tones }))
}
