//! A scene as `plotly.js` takes it.
//!
//! Colours are set by the page, because they follow its light or dark theme: `ironlens.paint` says for each
//! trace what it is (`tone`: a line colour, `band`, `mask`, `quiet`), `ironlens.maps` the colour map of each
//! colour axis. Matrices that are large are packed (`cells.rs`), and unpacked by the page.

mod cells;
mod chart;
mod heatmap;

pub(crate) use cells::precision;
use serde_json::{Map, Value, json};

use super::scene::{Body, Scene};

/// The figure as JSON text.
pub(crate) fn json(scene: &Scene) -> String {
    let mut spec = Spec::of(scene);
    let frames: Vec<Value> = match &scene.body {
        Body::Frames(names, scenes) => {
            let all = names.iter().zip(scenes);
            // Names, rules and what marks a trace may differ from frame to frame.
            let frame = |(name, s): (&String, &Scene)| {
                let mut spec = Spec::of(&Scene { size: scene.size, ..s.clone() });
                spec.layout.insert("annotations".into(), spec.annotations.into());
                spec.layout.insert("shapes".into(), spec.shapes.into());
                json!({ "name": name, "data": spec.data, "layout": spec.layout, "paint": spec.paint, "maps": spec.maps })
            };
            all.map(frame).collect()
        }
        _ => Vec::new(),
    };
    spec.layout.insert("annotations".into(), spec.annotations.into());
    spec.layout.insert("shapes".into(), spec.shapes.into());
    let name = crate::document::slug(&scene.title, "figure");
    let mut out = json!({
        "data": spec.data,
        "layout": spec.layout,
        "config": {
            "responsive": true, "displaylogo": false, "scrollZoom": false, "displayModeBar": "hover",
            "modeBarButtonsToRemove": ["select2d", "lasso2d", "toImage"],
        },
        "ironlens": {
            "paint": spec.paint, "maps": spec.maps, "name": name, "width": scene.size.0,
            "minWidth": spec.min_width, "square": spec.square, "stretched": spec.stretched,
        },
    });
    if !frames.is_empty() {
        out["frames"] = frames.into();
    }
    out.to_string()
}

/// What is drawn first.
fn drawn(scene: &Scene) -> &Body {
    match &scene.body {
        Body::Frames(_, scenes) => scenes.first().map_or(&scene.body, |s| &s.body),
        body => body,
    }
}

/// How high the chart is on a wide page, in pixels: above a heatmap stand the names of its parts.
pub(crate) fn height(scene: &Scene) -> u32 {
    let names = match drawn(scene) {
        Body::Heatmap(h) => 20 * h.panels.len().div_ceil(h.columns.max(1)) as u32,
        _ => 0,
    };
    scene.size.1 + names
}

/// What is put together while parts are placed.
struct Spec {
    data: Vec<Value>,
    layout: Map<String, Value>,
    annotations: Vec<Value>,
    shapes: Vec<Value>,
    paint: Vec<Value>,
    maps: Map<String, Value>,
    /// How many pairs of axes, and legends, there are.
    axes: usize,
    legends: usize,
    min_width: u32,
    /// Whether it is one row of square cells, which needs less height on a narrow page.
    square: bool,
    /// Whether it takes any width that it is given.
    stretched: bool,
}

/// A part of the paper in fractions, from left to right and from bottom to top, and its size in pixels.
#[derive(Clone, Copy)]
struct Area {
    x: [f64; 2],
    y: [f64; 2],
    px: (f64, f64),
    /// Whether it is all of the paper, so that the page makes room for labels.
    whole: bool,
}

impl Area {
    /// The `i`-th of `n` parts along one axis with gaps in pixels, in fractions of the paper.
    fn part([from, to]: [f64; 2], px: f64, i: usize, n: usize, gap: f64) -> [f64; 2] {
        let gap = (gap / px.max(1.0)).min(0.5 / n.max(2) as f64) * (to - from);
        let size = ((to - from) - gap * (n - 1) as f64) / n as f64;
        let start = from + i as f64 * (size + gap);
        [start.max(0.0), (start + size).min(1.0)]
    }
}

impl Spec {
    fn of(scene: &Scene) -> Spec {
        let mut spec = Spec {
            data: Vec::new(),
            layout: Map::new(),
            annotations: Vec::new(),
            shapes: Vec::new(),
            paint: Vec::new(),
            maps: Map::new(),
            axes: 0,
            legends: 0,
            min_width: 0,
            square: false,
            stretched: false,
        };
        let height = f64::from(height(scene));
        let (mut top, mut bottom, mut right) = (16.0, 46.0, 24.0);
        let drawn = drawn(scene);
        match drawn {
            Body::Heatmap(h) => {
                top = if h.panels.len() > 1 { 30.0 } else { 14.0 };
                right = 16.0;
                let across = h.columns.min(h.panels.len()) as u32;
                let longest = h.panels.iter().map(|p| p.name.chars().count().min(24)).max().unwrap_or(0) as u32;
                let each = if h.own_scales { 230 } else { (7 * longest + 20).max(120) };
                // Names of rows beside many small cells would lie over each other: those keep a width.
                let named = if h.y_labels.is_empty() || h.cols <= 12 || h.stretched { 0 } else { 640 };
                spec.min_width = if across > 1 { (each * across + 120).max(named) } else { 0 };
                spec.square = !h.stretched && h.panels.len() <= h.columns;
                spec.stretched = h.stretched;
            }
            Body::Chart(c) if c.panels.iter().any(|p| p.marks.iter().filter(|m| !m.name.is_empty()).count() > 1) => {
                top = 32.0
            }
            Body::Panels(columns, scenes) => {
                top = 40.0;
                bottom = 44.0;
                spec.min_width = 300 * (*columns).min(scenes.len()) as u32;
            }
            _ => {}
        }
        spec.set("autosize", true);
        spec.set("font", json!({ "size": 13 }));
        spec.set("margin", json!({ "l": 64, "r": right, "t": top, "b": bottom }));
        spec.set("height", height as u64);
        spec.set("barmode", "overlay");
        let px = (f64::from(scene.size.0) - 64.0 - right, height - top - bottom);
        let area = Area { x: [0.0, 1.0], y: [0.0, 1.0], px, whole: true };
        match drawn {
            Body::Heatmap(h) => spec.heatmap(h, area),
            Body::Chart(c) => spec.chart(c, area),
            Body::Panels(columns, scenes) => spec.panels(*columns, scenes, area),
            Body::Frames(..) => {}
            Body::Own(traces, layout) => {
                spec.data = traces.clone();
                spec.paint = vec![Value::Null; traces.len()];
                let own = layout.iter().filter(|(key, _)| *key != "width");
                spec.layout.extend(own.map(|(key, value)| (key.clone(), value.clone())));
                for (key, list) in [("annotations", &mut spec.annotations), ("shapes", &mut spec.shapes)] {
                    if let Some(Value::Array(own)) = layout.get(key) {
                        list.extend(own.iter().cloned());
                    }
                }
                if let Some(Value::String(title)) = layout.get("title").and_then(|t| t.get("text")) {
                    spec.layout.insert("title".into(), json!({ "text": title }));
                }
            }
        }
        spec
    }

    fn panels(&mut self, columns: usize, scenes: &[Scene], area: Area) {
        let across = columns.clamp(1, scenes.len().max(1));
        let down = scenes.len().div_ceil(across);
        for (i, scene) in scenes.iter().enumerate() {
            let (row, col) = (i / across, i % across);
            // Between panels is room for the ticks, the names of axes and the title of the one below.
            let x = Area::part(area.x, area.px.0, col, across, 84.0);
            let y = Area::part(area.y, area.px.1, down - 1 - row, down, 104.0);
            let px = (area.px.0 * (x[1] - x[0]), area.px.1 * (y[1] - y[0]));
            let part = Area { x, y, px, whole: false };
            match &scene.body {
                Body::Heatmap(h) => self.heatmap(h, part),
                Body::Chart(c) => self.chart(c, part),
                Body::Panels(..) | Body::Frames(..) | Body::Own(..) => {}
            }
            if !scene.title.is_empty() {
                self.heading(&scene.title, x, y[1], 22.0, true);
            }
        }
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.layout.insert(key.into(), value.into());
    }

    fn add(&mut self, trace: Value, paint: Value) {
        self.data.push(trace);
        self.paint.push(paint);
    }

    /// The names of the next pair of axes: in the layout, and in traces.
    fn next_axes(&mut self) -> [(String, String); 2] {
        self.axes += 1;
        let n = if self.axes == 1 { String::new() } else { self.axes.to_string() };
        ["x", "y"].map(|letter| (format!("{letter}axis{n}"), format!("{letter}{n}")))
    }

    /// A text centred above a part of the paper.
    fn heading(&mut self, text: &str, x: [f64; 2], top: f64, shift: f64, strong: bool) {
        let text = if strong { format!("<b>{}</b>", escape(text)) } else { escape(text) };
        self.annotations.push(json!({
            "text": text, "showarrow": false, "xref": "paper", "yref": "paper", "xanchor": "center",
            "yanchor": "bottom", "x": (x[0] + x[1]) / 2.0, "y": top, "yshift": shift,
        }));
    }

    /// A new colour axis with its bar beside a part of the paper; its name.
    fn color_axis(&mut self, map: crate::Colorscale, range: (f64, f64), name: &str, area: Area) -> String {
        let n = self.maps.len() + 1;
        let key = if n == 1 { "coloraxis".to_string() } else { format!("coloraxis{n}") };
        let mut bar =
            json!({ "title": { "text": escape(name) }, "thickness": 14, "outlinewidth": 0, "exponentformat": "e" });
        if !area.whole {
            let length = (area.y[1] - area.y[0]).max(0.05);
            bar["x"] = (area.x[1] + 6.0 / self.paper_width()).min(1.5).into();
            bar["xanchor"] = "left".into();
            bar["y"] = ((area.y[0] + area.y[1]) / 2.0).into();
            bar["len"] = length.into();
            bar["thickness"] = 10.into();
            bar["tickfont"] = json!({ "size": 10 });
            bar["nticks"] = 5.into();
        }
        self.set(&key, json!({ "cmin": range.0, "cmax": range.1, "colorbar": bar }));
        self.maps.insert(key.clone(), map.name().into());
        key
    }

    fn paper_width(&self) -> f64 {
        700.0
    }
}

/// Text inside a plotly figure is a little HTML, and `%{…}` a place holder.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace("%{", "% {")
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// JSON has no NaN: what cannot be shown is null.
fn finite(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().map(|v| v.is_finite().then_some(*v)).collect()
}

/// Names instead of numbers at 0, 1, 2, …, so many that they can be told apart.
fn name_ticks(axis: &mut Map<String, Value>, labels: &[String], most: usize) {
    let shown: Vec<usize> = (0..labels.len()).step_by(labels.len().div_ceil(most).max(1)).collect();
    axis.insert("ticktext".into(), shown.iter().map(|&i| escape(&labels[i])).collect());
    if shown.len() < labels.len() {
        // Those without a tick have their names where the pointer, the keys and files tell them.
        let all: Vec<String> = labels.iter().map(|label| escape(label)).collect();
        let alias = all.iter().enumerate().map(|(i, label)| (i.to_string(), Value::from(label.as_str())));
        axis.insert("labelalias".into(), Value::Object(alias.collect()));
    }
    axis.insert("tickvals".into(), shown.into());
    axis.insert("automargin".into(), true.into());
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
