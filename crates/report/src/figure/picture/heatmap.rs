//! Heatmaps: cells as pixels, labels, values, a colour bar.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::super::scene::{Heatmap, Matrix};
use super::super::ticks;
use super::{CellText, Drawn, GRID, INK, Image, Page, Rect, SOFT};
use crate::Colorscale;
use crate::color::{NOT_FINITE, QUIET, ink_on};

impl<DB: DrawingBackend> Page<'_, DB> {
    pub(super) fn heatmap(&self, h: &Heatmap, inside: Rect) -> Drawn {
        let across = h.columns.clamp(1, h.panels.len().max(1));
        let down = h.panels.len().div_ceil(across);
        let few = across <= 2;
        let widest = h.y_labels.iter().map(|s| self.width(s, 10.0)).fold(24.0, f64::max).min(150.0);
        let left = widest + if h.y.is_empty() { 12.0 } else { 34.0 };
        // One bar at the right of all, or one beside each matrix.
        let right = if h.own_scales { 8.0 } else { 96.0 };
        let beside = if h.own_scales { 58.0 } else { 0.0 };
        let tallest = h.x_labels.iter().map(|s| self.width(s, 10.0)).fold(24.0, f64::max).min(120.0);
        // Labels lie where they fit below their cell, and stand upright elsewhere.
        let wide = (inside.w - left - right) / (across * h.cols) as f64;
        let room = if h.stretched { wide } else { wide.min(inside.h / h.rows as f64) };
        let lying = across == 1 && tallest < room - 6.0;
        let foot = if h.x_labels.is_empty() || lying { 22.0 } else { tallest + 10.0 }
            + if h.x.is_empty() { 0.0 } else { 18.0 };
        let grid = Rect { x: inside.x + left, y: inside.y, w: inside.w - left - right, h: inside.h - foot };
        let named = h.panels.iter().any(|p| !p.name.is_empty());
        let (gap_x, head) = (if across > 1 { 22.0 } else { 0.0 } + beside, if named { 22.0 } else { 4.0 });
        let gap_y = head + if down > 1 { 14.0 } else { 0.0 };
        let room = (
            (grid.w - beside - gap_x * (across - 1) as f64) / across as f64,
            (grid.h - gap_y * down as f64) / down as f64,
        );
        let fits = [room.0 / h.cols as f64, room.1 / h.rows as f64];
        let square = fits[0].min(fits[1]).min(80.0);
        // Whole device pixels for each side of a cell where there is room for it.
        let cell = fits.map(|side| {
            let side = if h.stretched { side } else { square }.max(0.05);
            if side * self.k >= 1.0 { (side * self.k).floor() / self.k } else { side }
        });
        let (w, v) = ((cell[0] * h.cols as f64).max(2.0), (cell[1] * h.rows as f64).max(2.0));
        let used = w * across as f64 + gap_x * (across - 1) as f64 + beside;
        let start = grid.x + ((grid.w - used) / 2.0).max(0.0);
        let mut images = Vec::new();
        for (i, matrix) in h.panels.iter().enumerate() {
            let (row, col) = (i / across, i % across);
            let panel =
                Rect { x: start + col as f64 * (w + gap_x), y: grid.y + head + row as f64 * (v + gap_y), w, h: v };
            images.push(self.cells(h, matrix, panel));
            self.rect(Rect { x: panel.x - 1.0, y: panel.y - 1.0, w: w + 1.0, h: v + 1.0 }, GRID, false)?;
            self.text(
                &matrix.name,
                (panel.x + w / 2.0, panel.y - 5.0),
                if few { 12.0 } else { 10.5 },
                INK,
                (HPos::Center, VPos::Bottom),
                false,
                w + gap_x,
            )?;
            let last = row + 1 == down || i + across >= h.panels.len();
            self.cell_labels(h, panel, cell, col == 0, last, lying)?;
            if h.own_scales {
                let bar = Rect { x: panel.x + w + 6.0, y: panel.y, w: 9.0, h: v.clamp(30.0, 420.0) };
                images.push(self.color_bar(h.colors, matrix.range, bar, "")?);
            }
        }
        let grid_end = grid.y + head + (down - 1) as f64 * (v + gap_y) + v;
        let middle = start + used / 2.0;
        self.text(&h.x, (middle, grid_end + foot - 2.0), 12.0, INK, (HPos::Center, VPos::Bottom), false, used)?;
        let between = (grid.y + head + grid_end) / 2.0;
        self.text(&h.y, (start - left + 4.0, between), 12.0, INK, (HPos::Center, VPos::Top), true, grid.h)?;
        let bar = Rect {
            x: start + used + 18.0,
            y: grid.y + head,
            w: 13.0,
            h: (grid_end - grid.y - head).clamp(40.0, 420.0),
        };
        if !h.own_scales {
            images.push(self.color_bar(h.colors, h.panels.first().map_or((0.0, 1.0), |p| p.range), bar, &h.value)?);
        }
        Ok(images)
    }

    /// The cells as pixels: each pixel shows the cell at its middle, or the most
    /// extreme of the cells it covers that are not hidden.
    fn cells(&self, h: &Heatmap, matrix: &Matrix, at: Rect) -> Image {
        let (x, y) = self.at((at.x, at.y));
        let (w, v) = ((at.w * self.k).round().max(1.0) as u32, (at.h * self.k).round().max(1.0) as u32);
        let (lo, hi) = matrix.range;
        let middle = h.middle(matrix.range);
        let span = |p: u32, n: usize, size: u32| {
            let from = (p as usize * n / size as usize).min(n - 1);
            let to = ((p as usize + 1) * n).div_ceil(size as usize).clamp(from + 1, n);
            if n <= size as usize { from..from + 1 } else { from..to }
        };
        let mut rgb = Vec::with_capacity((w * v * 3) as usize);
        for py in 0..v {
            for px in 0..w {
                let mut shown = None;
                for r in span(py, h.rows, v) {
                    for c in span(px, h.cols, w).map(|c| r * h.cols + c).filter(|&c| !matrix.is_hidden(c)) {
                        let far = |c: usize| (f64::from(matrix.cells[c]) - middle).abs();
                        if shown.is_none_or(|s: usize| matrix.cells[s].is_nan() || far(c) > far(s)) {
                            shown = Some(c);
                        }
                    }
                }
                // Hatched, so that they are not read as a colour of the map.
                let stripe = ((px + py) / (2 * self.k as u32).max(1)).is_multiple_of(2);
                rgb.extend(match shown {
                    None if ((px + py) / self.k as u32).is_multiple_of(6) => [196, 202, 209],
                    None => [236, 239, 243],
                    Some(c) if !matrix.cells[c].is_finite() => {
                        if stripe {
                            NOT_FINITE
                        } else {
                            [255, 255, 255]
                        }
                    }
                    Some(c) if matrix.is_quiet(c) => QUIET,
                    Some(c) => h.colors.at((f64::from(matrix.cells[c]) - lo) / (hi - lo), false),
                });
            }
        }
        let texts = if h.text { self.cell_texts(h, matrix, at) } else { Vec::new() };
        Image { x: x.max(0) as u32, y: y.max(0) as u32, w, h: v, rgb, texts }
    }

    /// The values, as large as the longest of them allows.
    fn cell_texts(&self, h: &Heatmap, matrix: &Matrix, at: Rect) -> Vec<CellText> {
        let (lo, hi) = matrix.range;
        let (cell, high) = (at.w / h.cols as f64, at.h / h.rows as f64);
        let shown =
            |i: usize| (!matrix.is_hidden(i) && matrix.cells[i].is_finite()).then(|| three_digits(matrix.cells[i]));
        let texts: Vec<Option<String>> = (0..matrix.cells.len()).map(shown).collect();
        let widest = texts.iter().flatten().map(|t| self.width(t, 10.0)).fold(1.0, f64::max);
        let size = (10.0 * (cell - 4.0) / widest).min(high * 0.6).clamp(3.0, 12.0);
        let text = |(i, text): (usize, Option<String>)| {
            let rgb = match matrix.is_quiet(i) {
                true => QUIET,
                false => h.colors.at((f64::from(matrix.cells[i]) - lo) / (hi - lo), false),
            };
            let color = if ink_on(rgb) { RGBColor(0, 0, 0) } else { RGBColor(255, 255, 255) };
            let middle = ((i % h.cols) as f64 + 0.5, (i / h.cols) as f64 + 0.5);
            Some(CellText { text: text?, at: (at.x + middle.0 * cell, at.y + middle.1 * high), size, color })
        };
        texts.into_iter().enumerate().filter_map(text).collect()
    }

    /// Labels of the rows and columns of a matrix; `cell` is a cell's width and height.
    fn cell_labels(
        &self,
        h: &Heatmap,
        at: Rect,
        cell: [f64; 2],
        rows: bool,
        cols: bool,
        lying: bool,
    ) -> Result<(), String> {
        let size = if h.columns <= 2 { 10.0 } else { 9.0 };
        let texts = |labels: &[String], n: usize, cell: f64, room: f64| -> Vec<(usize, String)> {
            // Every so many cells, so that two texts have `room` between them.
            let every = ((room / cell).ceil() as usize).max(1);
            if !labels.is_empty() {
                return (0..n).step_by(every).map(|i| (i, labels[i].clone())).collect();
            }
            if every == 1 {
                return (0..n).map(|i| (i, i.to_string())).collect();
            }
            let marks = ticks::linear(0.0, (n - 1) as f64, (n / every).clamp(1, 6));
            let whole = marks.into_iter().filter(|v| v.fract() == 0.0);
            whole.map(|v| (v as usize, ticks::number(v))).collect()
        };
        if cols {
            for (i, text) in texts(&h.x_labels, h.cols, cell[0], if h.x_labels.is_empty() { 24.0 } else { 14.0 }) {
                let x = at.x + (i as f64 + 0.5) * cell[0];
                let y = at.y + at.h;
                self.path(&[(x, y + 1.0), (x, y + 4.0)], SOFT, 1.0)?;
                if h.x_labels.is_empty() || lying {
                    self.text(&text, (x, y + 6.0), size, SOFT, (HPos::Center, VPos::Top), false, 60.0)?;
                } else {
                    self.text(&text, (x, y + 6.0), size, SOFT, (HPos::Right, VPos::Center), true, 90.0)?;
                }
            }
        }
        if rows {
            for (i, text) in texts(&h.y_labels, h.rows, cell[1], 14.0) {
                let y = at.y + (i as f64 + 0.5) * cell[1];
                self.path(&[(at.x - 5.0, y), (at.x - 2.0, y)], SOFT, 1.0)?;
                self.text(&text, (at.x - 7.0, y), size, SOFT, (HPos::Right, VPos::Center), false, 90.0)?;
            }
        }
        Ok(())
    }

    pub(super) fn color_bar(
        &self,
        map: Colorscale,
        (lo, hi): (f64, f64),
        at: Rect,
        name: &str,
    ) -> Result<Image, String> {
        let (x, y) = self.at((at.x, at.y));
        let (w, v) = ((at.w * self.k) as u32, (at.h * self.k) as u32);
        let rgb = (0..v)
            .flat_map(|py| {
                let color = map.at(1.0 - (f64::from(py) + 0.5) / f64::from(v), false);
                std::iter::repeat_n(color, w as usize).flatten()
            })
            .collect();
        self.rect(Rect { x: at.x - 1.0, y: at.y - 1.0, w: at.w + 1.0, h: at.h + 1.0 }, GRID, false)?;
        for tick in ticks::linear(lo, hi, ((at.h / 36.0) as usize).max(2)) {
            let y = at.y + at.h * (1.0 - (tick - lo) / (hi - lo));
            self.path(&[(at.x + at.w + 1.0, y), (at.x + at.w + 4.0, y)], SOFT, 1.0)?;
            self.text(
                &ticks::number(tick),
                (at.x + at.w + 7.0, y),
                10.0,
                SOFT,
                (HPos::Left, VPos::Center),
                false,
                60.0,
            )?;
        }
        let middle = (at.x + at.w + 56.0, at.y + at.h / 2.0);
        self.text(name, middle, 11.0, SOFT, (HPos::Center, VPos::Top), true, at.h + 30.0)?;
        Ok(Image { x: x.max(0) as u32, y: y.max(0) as u32, w, h: v, rgb, texts: Vec::new() })
    }
}

/// A value as the page prints it into a cell: three digits.
fn three_digits(v: f32) -> String {
    let v = f64::from(v);
    let size = v.abs();
    if v == 0.0 || (1e-3..1e4).contains(&size) {
        let digits = if v == 0.0 { 0 } else { (2 - size.log10().floor() as i64).clamp(0, 5) as usize };
        let text = format!("{v:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text };
        if text == "-0" { "0".into() } else { text }
    } else {
        format!("{v:.1e}")
    }
}
