//! Curves, points, bars and boxes.

use serde_json::{Map, Value, json};

use super::super::scene::{Axis, Chart, Corner, Mark, MarkKind, Panel, Scale};
use super::super::ticks;
use super::{Area, Spec, escape, finite, name_ticks, object, or};

const DASHES: [&str; 4] = ["solid", "dash", "dot", "dashdot"];
/// Shapes of points, so that clouds are not told by colour alone.
const SYMBOLS: [&str; 6] = ["circle", "diamond", "square", "cross", "triangle-up", "x"];

impl Spec {
    pub(super) fn chart(&mut self, c: &Chart, area: Area) {
        let count = c.panels.len().max(1);
        let named = |p: &Panel| p.marks.iter().filter(|m| !m.name.is_empty()).count() > 1 && !c.is_boxes();
        let legend = c.panels.iter().any(named);
        let inner = match c.colors {
            Some(_) if !area.whole => [area.x[0], area.x[1] - 0.12 * (area.x[1] - area.x[0])],
            _ => area.x,
        };
        let colors = c.colors.as_ref().map(|b| self.color_axis(b.map, b.range, &b.name, Area { x: inner, ..area }));
        let mut x_ids: Option<(String, String)> = None;
        let mut last_y = String::new();
        for (i, panel) in c.panels.iter().enumerate() {
            let [(x_name, x_id), (y_name, y_id)] = self.next_axes();
            let x_id = x_ids.get_or_insert((x_name, x_id)).1.clone();
            if panel.diagonal {
                self.diagonal(panel, &c.x, [&x_id, &y_id]);
            }
            // Each panel has a legend of its own above it: a colour means another thing in each.
            let slot = slot(area, i, count);
            let legend = named(panel).then(|| self.legend([inner[0], slot[1]]));
            for mark in &panel.marks {
                self.mark(mark, c, panel, [&x_id, &y_id], colors.as_deref(), legend.as_ref());
            }
            let mut axis = value_axis(&panel.y, (slot[1] - slot[0]) * area.px.1);
            // The first of several, such as a loss over what goes with it, gets half of the height.
            axis.insert("domain".into(), json!(slot));
            axis.insert("anchor".into(), x_id.as_str().into());
            if i > 0 {
                axis.insert("nticks".into(), 4.into());
                axis["title"]["font"] = json!({ "size": 12 });
            }
            self.set(&y_name, axis);
            let px = ((inner[1] - inner[0]) * area.px.0, (slot[1] - slot[0]) * area.px.1);
            self.rules(panel, c, [&x_id, &y_id], px);
            last_y = y_id;
        }
        let Some((x_name, _)) = x_ids else { return };
        let mut x_axis = value_axis(&c.x, area.px.0 * (inner[1] - inner[0]));
        x_axis.insert("anchor".into(), last_y.into());
        x_axis.insert("domain".into(), json!(inner));
        if let Scale::Names(names) = &c.x.scale {
            name_ticks(&mut x_axis, names, (area.px.0 / 16.0).clamp(8.0, 64.0) as usize);
        }
        if c.fixed_places {
            x_axis.insert("showgrid".into(), false.into());
        } else if c.panels.iter().all(|p| p.marks.iter().all(|m| matches!(m.kind, MarkKind::Curve { .. }))) {
            x_axis.insert("showspikes".into(), true.into());
            x_axis.insert("spikemode".into(), "across".into());
            x_axis.insert("spikethickness".into(), 1.into());
            x_axis.insert("spikedash".into(), "solid".into());
        }
        self.set(&x_name, x_axis);
        if area.whole {
            let points = c
                .panels
                .iter()
                .flat_map(|p| &p.marks)
                .any(|m| matches!(m.kind, MarkKind::Points { .. } | MarkKind::Box(_)));
            self.set("hovermode", if points { "closest" } else { "x unified" });
            if count > 1 {
                self.set("hoversubplots", "axis");
            }
            self.set("showlegend", legend);
        }
        if legend {
            self.set("showlegend", true);
        }
    }

    /// A legend that begins at a point of the paper and lies above it; its name.
    fn legend(&mut self, [x, y]: [f64; 2]) -> String {
        self.legends += 1;
        let name = if self.legends == 1 { "legend".to_string() } else { format!("legend{}", self.legends) };
        self.set(
            &name,
            json!({ "orientation": "h", "x": x, "y": y + 0.005, "yanchor": "bottom", "xanchor": "left", "bgcolor": "rgba(0,0,0,0)" }),
        );
        name
    }

    fn mark(
        &mut self,
        mark: &Mark,
        c: &Chart,
        panel: &Panel,
        [x, y]: [&str; 2],
        colors: Option<&str>,
        legend: Option<&String>,
    ) {
        let name = escape(or(&mark.name, or(&panel.y.name, "value")));
        let mut trace = json!({
            "type": "scatter", "x": finite(&mark.x), "y": finite(&mark.y), "xaxis": x, "yaxis": y, "name": name,
            "hovertemplate": "%{y:.4~g}", "showlegend": legend.is_some(),
        });
        if let Some(legend) = legend {
            trace["legend"] = legend.as_str().into();
            trace["legendgroup"] = format!("{y}-{}", mark.tone).into();
        }
        let (x_title, y_title) = (escape(or(&c.x.name, "x")), escape(or(&panel.y.name, "y")));
        match &mark.kind {
            MarkKind::Curve { markers, band } => {
                if let Some((low, high)) = band {
                    self.band(mark, low, high, [x, y], legend);
                }
                let mode = match (mark.x.len(), markers) {
                    (1, _) => "markers",
                    (_, true) => "lines+markers",
                    (_, false) => "lines",
                };
                trace["mode"] = mode.into();
                let width = if c.panels.len() > 1 { 1.5 } else { 2.0 };
                trace["line"] = json!({ "width": width, "dash": DASHES[(mark.tone / 6) % DASHES.len()] });
            }
            MarkKind::Points { color, size, names } => {
                trace["mode"] = "markers".into();
                trace["marker"] = json!({ "symbol": SYMBOLS[mark.tone % SYMBOLS.len()], "size": 9, "opacity": 0.9 });
                if !size.is_empty() {
                    trace["marker"]["size"] = size.as_slice().into();
                }
                let mut hover = format!("{x_title}: %{{x:.4~g}}<br>{y_title}: %{{y:.4~g}}");
                if let Some(colors) = colors.filter(|_| !color.is_empty()) {
                    trace["marker"]["color"] = finite(color).into();
                    trace["marker"]["coloraxis"] = colors.into();
                    let name = c.colors.as_ref().map_or("value", |b| or(&b.name, "value"));
                    hover.push_str(&format!("<br>{}: %{{marker.color:.4~g}}", escape(name)));
                }
                if !names.is_empty() {
                    trace["text"] = names.iter().map(|s| escape(s)).collect();
                    hover.insert_str(0, "<b>%{text}</b><br>");
                }
                trace["hovertemplate"] = (hover + if mark.name.is_empty() { "<extra></extra>" } else { "" }).into();
            }
            MarkKind::Bars { width, overlaid, band, texts } => {
                trace["type"] = "bar".into();
                trace["width"] = (*width).into();
                trace["text"] = texts.iter().map(|s| escape(s)).collect();
                trace["textposition"] = "none".into();
                trace["hovertemplate"] = if c.fixed_places { "%{y:.4~g}" } else { "%{text}: %{y:.4~g}" }.into();
                if let Some((low, high)) = band {
                    let away =
                        |end: &[f64]| finite(&end.iter().zip(&mark.y).map(|(e, y)| (e - y).abs()).collect::<Vec<_>>());
                    trace["error_y"] = json!({
                        "type": "data", "symmetric": false, "array": away(high), "arrayminus": away(low), "thickness": 1.2, "width": 3,
                    });
                }
                if *overlaid {
                    trace["opacity"] = 0.6.into();
                }
            }
            MarkKind::Box(b) => {
                trace = json!({
                    "type": "box", "x": [mark.x[0]], "q1": [b.q1], "median": [b.median], "q3": [b.q3],
                    "lowerfence": [b.low], "upperfence": [b.high], "xaxis": x, "yaxis": y, "name": name,
                    "showlegend": false, "width": 0.5,
                });
                if !b.outliers.is_empty() {
                    trace["y"] = json!([b.outliers]);
                    trace["boxpoints"] = "all".into();
                    trace["jitter"] = 0.into();
                    trace["pointpos"] = 0.into();
                } else {
                    trace["boxpoints"] = false.into();
                }
            }
        }
        let colored = trace["marker"]["coloraxis"].is_string();
        self.add(trace, if colored { Value::Null } else { json!({ "tone": mark.tone }) });
    }

    fn band(&mut self, mark: &Mark, low: &[f64], high: &[f64], [x, y]: [&str; 2], legend: Option<&String>) {
        // Each stretch without a gap is a shape of its own.
        let whole = |i: &usize| [mark.x[*i], mark.y[*i], low[*i], high[*i]].iter().all(|v| v.is_finite());
        let at: Vec<usize> = (0..mark.x.len()).collect();
        let (mut xs, mut ys): (Vec<Option<f64>>, Vec<Option<f64>>) = (Vec::new(), Vec::new());
        for run in at.chunk_by(|a, b| whole(a) == whole(b)).filter(|run| whole(&run[0])) {
            let around = run.iter().map(|&i| (i, high[i])).chain(run.iter().rev().map(|&i| (i, low[i])));
            around.for_each(|(i, v)| {
                xs.push(Some(mark.x[i]));
                ys.push(Some(v));
            });
            xs.push(None);
            ys.push(None);
        }
        let mut trace = json!({
            "type": "scatter", "mode": "lines", "x": xs, "y": ys, "xaxis": x, "yaxis": y, "fill": "toself",
            "line": { "width": 0 }, "hoverinfo": "skip", "showlegend": false,
        });
        if legend.is_some() {
            trace["legendgroup"] = format!("{y}-{}", mark.tone).into();
        }
        self.add(trace, json!({ "band": mark.tone }));
    }

    fn diagonal(&mut self, panel: &Panel, x_axis: &Axis, [x, y]: [&str; 2]) {
        let at = panel.diagonal_points(x_axis);
        let trace = json!({
            "type": "scatter", "mode": "lines", "x": at, "y": at, "xaxis": x, "yaxis": y, "hoverinfo": "skip",
            "showlegend": false, "line": { "width": 1, "dash": "dot" },
        });
        self.add(trace, json!({ "rule": true }));
    }

    /// Rules with their names; `px` is the panel's size in pixels.
    fn rules(&mut self, panel: &Panel, c: &Chart, [x, y]: [&str; 2], px: (f64, f64)) {
        let line = json!({ "width": 1.5, "dash": "dash", "color": "#8a929a" });
        let corners = panel.corners(&c.x, px, |name| 6.5 * name.chars().count() as f64);
        for ((at, name), Corner { left, below }) in panel.rules.iter().zip(corners) {
            let end = if left { "left" } else { "right" };
            self.shapes.push(json!({ "type": "line", "xref": format!("{x} domain"), "x0": 0, "x1": 1, "yref": y,
                "y0": at, "y1": at, "line": line }));
            let shown = if panel.y.scale == Scale::Log { at.log10() } else { *at };
            self.annotations
                .push(json!({ "text": escape(name), "showarrow": false, "xref": format!("{x} domain"), "x": u8::from(!left),
                "xanchor": end, "yref": y, "y": shown, "yanchor": if below { "top" } else { "bottom" }, "font": { "size": 12 } }));
        }
        for (at, name) in &panel.upright_rules {
            self.shapes.push(json!({ "type": "line", "yref": format!("{y} domain"), "y0": 0, "y1": 1, "xref": x,
                "x0": at, "x1": at, "line": line }));
            let shown = if c.x.scale == Scale::Log { at.log10() } else { *at };
            self.annotations
                .push(json!({ "text": escape(name), "showarrow": false, "yref": format!("{y} domain"), "y": 1,
                "yanchor": "top", "xref": x, "x": shown, "xanchor": "left", "xshift": 2, "font": { "size": 12 } }));
        }
    }
}

/// The vertical place of a panel: of several the first has twice the height of the others.
fn slot(area: Area, i: usize, count: usize) -> [f64; 2] {
    if count == 1 {
        return area.y;
    }
    let gap = 0.06 * (area.y[1] - area.y[0]);
    let unit = ((area.y[1] - area.y[0]) - gap * (count - 1) as f64) / (count + 1) as f64;
    let (before, own) = if i == 0 { (0.0, 2.0) } else { (i as f64 + 1.0, 1.0) };
    let top = area.y[1] - before * unit - i as f64 * gap;
    [(top - own * unit).max(0.0), top]
}

/// An axis of a length in pixels, which says how many decades can be told apart.
fn value_axis(axis: &Axis, length: f64) -> Map<String, Value> {
    let mut out = object(json!({
        "title": { "text": escape(&axis.name), "standoff": 6 }, "zeroline": false, "range": [axis.range.0, axis.range.1],
        "automargin": true,
    }));
    if axis.scale == Scale::Log {
        out.insert("type".into(), "log".into());
        out.insert("exponentformat".into(), "power".into());
        let at = ticks::decades(axis.range.0, axis.range.1, (length / 15.0).clamp(2.0, 12.0) as usize);
        out.insert("tickfont".into(), json!({ "size": 11 }));
        if at.len() > 1 {
            out.insert("dtick".into(), (at[1] - at[0]).max(1.0).into());
            out.insert("tick0".into(), at[0].into());
        } else {
            out.insert("exponentformat".into(), "e".into());
            // Every digit of a decade is too much for a low panel; 1, 2 and 5 are enough if two of them are there.
            let round = |v: &f64| (axis.range.0..=axis.range.1).contains(v);
            let few = at
                .iter()
                .flat_map(|e| [-1.0, 0.0].map(|by| e + by))
                .flat_map(|e| [1.0, 2.0, 5.0].map(|m: f64| e + m.log10()));
            if length < 120.0 && few.filter(round).count() > 1 {
                out.insert("dtick".into(), "D2".into());
            }
        }
    } else {
        out.insert("type".into(), "linear".into());
        out.insert("exponentformat".into(), "e".into());
    }
    out
}
