//! Heatmaps: a trace for each matrix, and one over it for each kind of cell that has no colour of the map.

use serde_json::{Map, Value, json};

use super::super::scene::{Heatmap, Matrix};
use super::super::ticks;
use super::{Area, Spec, cells, escape, name_ticks, object, or};
use crate::color::{NOT_FINITE, to_hex};

impl Spec {
    pub(super) fn heatmap(&mut self, h: &Heatmap, area: Area) {
        let count = h.panels.len();
        let across = h.columns.clamp(1, count.max(1));
        let down = count.div_ceil(across);
        let row_gap = if h.panels.iter().any(|p| !p.name.is_empty()) { 46.0 } else { 26.0 };
        // In a part of the paper the bar needs room of its own.
        let inner = if area.whole { area.x } else { [area.x[0], area.x[1] - 0.1 * (area.x[1] - area.x[0])] };
        let shared = (!h.own_scales).then(|| {
            let beside = Area { x: inner, ..area };
            self.color_axis(h.colors, h.panels.first().map_or((0.0, 1.0), |p| p.range), &h.value, beside)
        });
        let mut first: Option<(String, String)> = None;
        for (i, matrix) in h.panels.iter().enumerate() {
            let (row, col) = (i / across, i % across);
            let x = Area::part(inner, area.px.0, col, across, if h.own_scales { 84.0 } else { 22.0 });
            let y = Area::part(area.y, area.px.1, down - 1 - row, down, row_gap);
            let colors = shared.clone().unwrap_or_else(|| {
                self.color_axis(h.colors, matrix.range, "", Area { x, y, px: area.px, whole: false })
            });
            let [(x_name, x_id), (y_name, y_id)] = self.next_axes();
            self.matrix(h, matrix, [&x_id, &y_id], &colors);
            let bottom = row + 1 == down || i + across >= count;
            let mut x_axis = axis(x, &y_id, if bottom { &h.x } else { "" });
            let mut y_axis = axis(y, &x_id, if col == 0 { &h.y } else { "" });
            // A cell's width and height.
            let sides = [(x, area.px.0, h.cols), (y, area.px.1, h.rows)]
                .map(|(part, px, cells)| (part[1] - part[0]) * px / cells.max(1) as f64);
            let sides = if h.stretched { sides } else { [sides[0].min(sides[1]); 2] };
            for (axis, labels, n, outer, side) in [
                (&mut x_axis, &h.x_labels, h.cols, bottom, sides[0]),
                (&mut y_axis, &h.y_labels, h.rows, col == 0, sides[1]),
            ] {
                axis.insert("showticklabels".into(), outer.into());
                if !labels.is_empty() {
                    // A line of text for each label.
                    name_ticks(axis, labels, ((side * n as f64 / 13.0) as usize).clamp(2, 40));
                } else if n <= 8 || n <= 16 && across <= 2 {
                    axis.insert("dtick".into(), 1.into());
                } else if across > 1 {
                    axis.insert("nticks".into(), 6.into());
                }
            }
            y_axis.insert("autorange".into(), "reversed".into());
            match &first {
                // Zoomed in step.
                Some((x, y)) => {
                    x_axis.insert("matches".into(), x.as_str().into());
                    y_axis.insert("matches".into(), y.as_str().into());
                }
                None => {
                    if !h.stretched {
                        y_axis.insert("scaleanchor".into(), x_id.as_str().into());
                    }
                    first = Some((x_id, y_id));
                }
            }
            self.set(&x_name, x_axis);
            self.set(&y_name, y_axis);
            if !matrix.name.is_empty() {
                self.heading(&matrix.name, x, y[1], 2.0, false);
            }
        }
    }

    fn matrix(&mut self, h: &Heatmap, matrix: &Matrix, [x, y]: [&str; 2], colors: &str) {
        let extra = match matrix.name.as_str() {
            "" => "<extra></extra>".to_string(),
            name => format!("<extra>{}</extra>", escape(name)),
        };
        let at = format!("{} %{{y}}<br>{} %{{x}}", escape(or(&h.y, "row")), escape(or(&h.x, "column")));
        let value = escape(or(&h.value, "value"));
        // Indices stay numbers; tokens may repeat, so labels of cells are given apart.
        let base = |z: Value, hover: String| json!({ "type": "heatmap", "z": z, "xaxis": x, "yaxis": y, "hoverongaps": false, "hovertemplate": hover + &extra });
        let mut main = base(cells::values(h, matrix), format!("{at}<br>{value}: %{{z:.4~g}}"));
        main["coloraxis"] = colors.into();
        if h.text {
            main["texttemplate"] = "%{z:.3~g}".into();
            main["textfont"] = json!({ "size": 11 });
        }
        self.add(main, json!({ "cells": true }));
        let n = matrix.cells.len();
        let odd = |i: usize| !matrix.cells[i].is_finite() && !matrix.is_hidden(i);
        let quiet = |i: usize| matrix.is_quiet(i) && !matrix.is_hidden(i) && matrix.cells[i].is_finite();
        let row = |row: &[f32]| row.iter().map(|v| ticks::number(f64::from(*v))).collect::<Vec<_>>();
        let printed: Option<Vec<_>> = h.text.then(|| matrix.cells.chunks(h.cols).map(row).collect());
        let mut over = |marked: &dyn Fn(usize) -> bool, says: &str, color: Option<String>, paint: Value| {
            if (0..n).any(marked) {
                let mut trace = base(cells::marks(h, marked), format!("{at}<br>{says}"));
                trace["showscale"] = false.into();
                if let Some(color) = color {
                    trace["colorscale"] = json!([[0, color], [1, color]]);
                }
                if says.is_empty() {
                    // The values below are read through it.
                    trace["hoverinfo"] = "skip".into();
                    trace.as_object_mut().map(|t| t.remove("hovertemplate"));
                    if let Some(printed) = &printed {
                        trace["text"] = printed.clone().into();
                        trace["texttemplate"] = "%{text}".into();
                        trace["textfont"] = json!({ "size": 11 });
                    }
                }
                self.add(trace, paint);
            }
        };
        over(&odd, "not finite", Some(to_hex(NOT_FINITE)), Value::Null);
        over(&quiet, "", None, json!({ "quiet": true }));
        over(&|i| matrix.is_hidden(i), "hidden", None, json!({ "mask": true }));
    }
}

fn axis(domain: [f64; 2], anchor: &str, title: &str) -> Map<String, Value> {
    object(json!({
        "title": { "text": escape(title), "standoff": 6 }, "domain": domain, "anchor": anchor, "zeroline": false, "showgrid": false,
        "constrain": "domain", "ticks": "outside", "ticklen": 3, "automargin": true,
    }))
}
