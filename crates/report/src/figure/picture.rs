//! A scene as a picture, drawn by `plotters`, without a browser.
//!
//! The text of PNG pictures is set in DejaVu Sans, which the `dejavu` crate
//! carries (Bitstream Vera licence: free to use, copy and embed), so pictures do
//! not depend on the fonts of a machine. SVG files name the same font and fall
//! back to the viewer's.

use std::sync::OnceLock;

use base64::Engine as _;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, register_font};

use super::scene::{Bars, Body, Heatmap, Lines, Panel, Scene};
use super::ticks;
use crate::ReportError;
use crate::color::{LINES, NOT_FINITE, parse_hex};

const FONT: &str = "DejaVu Sans, sans-serif";
const INK: RGBColor = RGBColor(36, 41, 47);
const SOFT: RGBColor = RGBColor(87, 96, 106);
const GRID: RGBColor = RGBColor(225, 229, 234);

/// Cells of a heatmap, already at their size in pixels.
struct Image {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
    rgb: Vec<u8>,
}

type Drawn = Result<Vec<Image>, String>;

pub(crate) fn png(scene: &Scene, scale: u32) -> Result<Vec<u8>, ReportError> {
    let (w, h) = (scene.size.0 * scale, scene.size.1 * scale);
    let mut buffer = vec![255u8; w as usize * h as usize * 3];
    let images = {
        let root = BitMapBackend::with_buffer(&mut buffer, (w, h)).into_drawing_area();
        draw(&root, scene, f64::from(scale)).map_err(|reason| failed(scene, reason))?
    };
    for image in images {
        for row in 0..image.h.min(h.saturating_sub(image.y)) {
            let n = image.w.min(w.saturating_sub(image.x)) as usize * 3;
            let to = ((image.y + row) * w + image.x) as usize * 3;
            let from = (row * image.w) as usize * 3;
            buffer[to..to + n].copy_from_slice(&image.rgb[from..from + n]);
        }
    }
    encode(&buffer, w, h).map_err(|reason| failed(scene, reason))
}

pub(crate) fn svg(scene: &Scene) -> Result<String, ReportError> {
    let mut text = String::new();
    let images = {
        let root = SVGBackend::with_string(&mut text, scene.size).into_drawing_area();
        draw(&root, scene, 1.0).map_err(|reason| failed(scene, reason))?
    };
    // Cells go in as one embedded picture each: thousands of rectangles would
    // make a file that editors choke on.
    let mut cells = String::new();
    for i in images {
        let png = encode(&i.rgb, i.w, i.h).map_err(|reason| failed(scene, reason))?;
        let png = base64::engine::general_purpose::STANDARD.encode(png);
        cells.push_str(&format!(
            "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{png}\"/>\n",
            i.x, i.y, i.w, i.h
        ));
    }
    if let Some(end) = text.rfind("</svg>") {
        text.insert_str(end, &cells);
    }
    Ok(text)
}

fn failed(scene: &Scene, reason: String) -> ReportError {
    ReportError::Draw { figure: scene.title.clone(), reason }
}

fn encode(rgb: &[u8], w: u32, h: u32) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, w, h);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(rgb).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(out)
}

fn font() -> Result<(), String> {
    static FONT_KNOWN: OnceLock<bool> = OnceLock::new();
    let known = FONT_KNOWN.get_or_init(|| register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok());
    if *known { Ok(()) } else { Err("the embedded font cannot be read".into()) }
}

fn draw<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, scene: &Scene, k: f64) -> Drawn {
    font()?;
    let page = Page { root, k };
    root.fill(&WHITE).map_err(|e| e.to_string())?;
    let (w, h) = (f64::from(scene.size.0), f64::from(scene.size.1));
    let mut top = 10.0;
    if !scene.title.is_empty() {
        page.text(&scene.title, (w / 2.0, 12.0), 16.0, INK, (HPos::Center, VPos::Top), false, w - 20.0)?;
        top = 38.0;
    }
    let mut bottom = h - 8.0;
    for note in scene.notes.iter().rev() {
        page.text(note, (w / 2.0, bottom), 10.5, SOFT, (HPos::Center, VPos::Bottom), false, w - 20.0)?;
        bottom -= 15.0;
    }
    let inside = Rect { x: 0.0, y: top, w, h: bottom - top };
    let images = match &scene.body {
        Body::Heatmap(heatmap) => page.heatmap(heatmap, inside)?,
        Body::Lines(lines) => page.lines(lines, inside)?,
        Body::Bars(bars) => page.bars(bars, inside)?,
    };
    root.present().map_err(|e| e.to_string())?;
    Ok(images)
}

#[derive(Clone, Copy)]
struct Rect {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

/// A drawing area, addressed in pixels at scale 1.
struct Page<'a, DB: DrawingBackend> {
    root: &'a DrawingArea<DB, Shift>,
    k: f64,
}

impl<DB: DrawingBackend> Page<'_, DB> {
    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.k).round() as i32, (y * self.k).round() as i32)
    }

    fn path(&self, points: &[(f64, f64)], color: RGBColor, width: f64) -> Result<(), String> {
        let points: Vec<_> = points.iter().map(|p| self.at(*p)).collect();
        let style = color.stroke_width((width * self.k).round().max(1.0) as u32);
        self.root.draw(&PathElement::new(points, style)).map_err(|e| e.to_string())
    }

    fn rect(&self, r: Rect, color: RGBColor, filled: bool) -> Result<(), String> {
        let corners = [self.at((r.x, r.y)), self.at((r.x + r.w, r.y + r.h))];
        let style = if filled { color.filled() } else { color.stroke_width(self.k as u32) };
        self.root.draw(&Rectangle::new(corners, style)).map_err(|e| e.to_string())
    }

    /// Text of at most `room` pixels: too long a text is cut with an ellipsis.
    #[allow(clippy::too_many_arguments)]
    fn text(
        &self,
        text: &str,
        at: (f64, f64),
        size: f64,
        color: RGBColor,
        anchor: (HPos, VPos),
        upright: bool,
        room: f64,
    ) -> Result<(), String> {
        if text.is_empty() {
            return Ok(());
        }
        let mut shown = text.to_string();
        let mut length = text.chars().count();
        while length > 1 && self.width(&shown, size) > room {
            length = (length * 9 / 10).min(length - 1);
            shown = text.chars().take(length).chain(['…']).collect();
        }
        let font = (FONT, size * self.k).into_font();
        let font = if upright { font.transform(FontTransform::Rotate270) } else { font };
        let style = font.color(&color).pos(Pos::new(anchor.0, anchor.1));
        self.root.draw_text(&shown, &style, self.at(at)).map_err(|e| e.to_string())
    }

    fn width(&self, text: &str, size: f64) -> f64 {
        let style = (FONT, size * self.k).into_text_style(self.root);
        self.root.estimate_text_size(text, &style).map_or(0.0, |s| f64::from(s.0)) / self.k
    }

    fn heatmap(&self, h: &Heatmap, inside: Rect) -> Drawn {
        let across = h.columns.clamp(1, h.panels.len().max(1));
        let down = h.panels.len().div_ceil(across);
        let few = across <= 2;
        let widest = h.y_labels.iter().map(|s| self.width(s, 10.0)).fold(24.0, f64::max).min(90.0);
        let (left, right) = (widest + if h.y.is_empty() { 12.0 } else { 32.0 }, 106.0);
        let tallest = h.x_labels.iter().map(|s| self.width(s, 10.0)).fold(24.0, f64::max).min(90.0);
        let foot = if h.x_labels.is_empty() { 22.0 } else { tallest + 10.0 } + if h.x.is_empty() { 0.0 } else { 18.0 };
        let grid = Rect { x: inside.x + left, y: inside.y, w: inside.w - left - right, h: inside.h - foot };
        let named = h.panels.iter().any(|p| !p.0.is_empty());
        let (gap_x, head) = (if across > 1 { 34.0 } else { 0.0 }, if named { 22.0 } else { 4.0 });
        let gap_y = head + if down > 1 { 14.0 } else { 0.0 };
        let room =
            ((grid.w - gap_x * (across - 1) as f64) / across as f64, (grid.h - gap_y * down as f64) / down as f64);
        let cell = (room.0 / h.cols as f64).min(room.1 / h.rows as f64).max(0.05);
        // Whole device pixels for each cell where there is room for it.
        let device = cell * self.k;
        let cell = if device >= 1.0 { device.floor() / self.k } else { cell };
        let (w, v) = ((cell * h.cols as f64).max(2.0), (cell * h.rows as f64).max(2.0));
        let used = w * across as f64 + gap_x * (across - 1) as f64;
        let start = grid.x + ((grid.w - used) / 2.0).max(0.0);
        let mut images = Vec::new();
        for (i, (name, cells)) in h.panels.iter().enumerate() {
            let (row, col) = (i / across, i % across);
            let panel =
                Rect { x: start + col as f64 * (w + gap_x), y: grid.y + head + row as f64 * (v + gap_y), w, h: v };
            images.push(self.cells(h, cells, panel));
            self.rect(Rect { x: panel.x - 1.0, y: panel.y - 1.0, w: w + 1.0, h: v + 1.0 }, GRID, false)?;
            self.text(
                name,
                (panel.x + w / 2.0, panel.y - 5.0),
                if few { 12.0 } else { 10.5 },
                INK,
                (HPos::Center, VPos::Bottom),
                false,
                w + gap_x,
            )?;
            let last = row + 1 == down || i + across >= h.panels.len();
            self.cell_labels(h, panel, cell, col == 0, last)?;
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
        images.push(self.color_bar(h, bar)?);
        Ok(images)
    }

    /// The cells as pixels: each pixel shows the cell at its middle, or the most
    /// extreme of the cells it covers.
    fn cells(&self, h: &Heatmap, cells: &[f32], at: Rect) -> Image {
        let (x, y) = self.at((at.x, at.y));
        let (w, v) = ((at.w * self.k).round().max(1.0) as u32, (at.h * self.k).round().max(1.0) as u32);
        let (lo, hi) = h.range;
        let middle = if lo < 0.0 { (lo + hi) / 2.0 } else { lo };
        let span = |p: u32, n: usize, size: u32| {
            let from = (p as usize * n / size as usize).min(n - 1);
            let to = ((p as usize + 1) * n).div_ceil(size as usize).clamp(from + 1, n);
            if n <= size as usize { from..from + 1 } else { from..to }
        };
        let mut rgb = Vec::with_capacity((w * v * 3) as usize);
        for py in 0..v {
            for px in 0..w {
                let mut shown = f32::NAN;
                for r in span(py, h.rows, v) {
                    for &c in &cells[r * h.cols..(r + 1) * h.cols][span(px, h.cols, w)] {
                        let far = |v: f32| (f64::from(v) - middle).abs();
                        if shown.is_nan() || far(c) > far(shown) {
                            shown = c;
                        }
                    }
                }
                rgb.extend(if shown.is_finite() {
                    h.colors.at((f64::from(shown) - lo) / (hi - lo), false)
                } else {
                    // Hatched, so that it is not read as a colour of the map.
                    let stripe = ((px + py) / (2 * self.k as u32).max(1)).is_multiple_of(2);
                    if stripe { NOT_FINITE } else { [255, 255, 255] }
                });
            }
        }
        Image { x: x.max(0) as u32, y: y.max(0) as u32, w, h: v, rgb }
    }

    fn cell_labels(&self, h: &Heatmap, at: Rect, cell: f64, rows: bool, cols: bool) -> Result<(), String> {
        let size = if h.columns <= 2 { 10.0 } else { 9.0 };
        let texts = |labels: &[String], n: usize, room: f64| -> Vec<(usize, String)> {
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
            for (i, text) in texts(&h.x_labels, h.cols, if h.x_labels.is_empty() { 24.0 } else { 14.0 }) {
                let x = at.x + (i as f64 + 0.5) * cell;
                let y = at.y + at.h;
                self.path(&[(x, y + 1.0), (x, y + 4.0)], SOFT, 1.0)?;
                if h.x_labels.is_empty() {
                    self.text(&text, (x, y + 6.0), size, SOFT, (HPos::Center, VPos::Top), false, 60.0)?;
                } else {
                    self.text(&text, (x, y + 6.0), size, SOFT, (HPos::Right, VPos::Center), true, 90.0)?;
                }
            }
        }
        if rows {
            for (i, text) in texts(&h.y_labels, h.rows, 14.0) {
                let y = at.y + (i as f64 + 0.5) * cell;
                self.path(&[(at.x - 5.0, y), (at.x - 2.0, y)], SOFT, 1.0)?;
                self.text(&text, (at.x - 7.0, y), size, SOFT, (HPos::Right, VPos::Center), false, 90.0)?;
            }
        }
        Ok(())
    }

    fn color_bar(&self, h: &Heatmap, at: Rect) -> Result<Image, String> {
        let (x, y) = self.at((at.x, at.y));
        let (w, v) = ((at.w * self.k) as u32, (at.h * self.k) as u32);
        let rgb = (0..v)
            .flat_map(|py| {
                let color = h.colors.at(1.0 - (f64::from(py) + 0.5) / f64::from(v), false);
                std::iter::repeat_n(color, w as usize).flatten()
            })
            .collect();
        self.rect(Rect { x: at.x - 1.0, y: at.y - 1.0, w: at.w + 1.0, h: at.h + 1.0 }, GRID, false)?;
        let (lo, hi) = h.range;
        for tick in ticks::linear(lo, hi, (at.h / 40.0) as usize) {
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
        self.text(&h.value, middle, 11.0, SOFT, (HPos::Center, VPos::Top), true, at.h + 30.0)?;
        Ok(Image { x: x.max(0) as u32, y: y.max(0) as u32, w, h: v, rgb })
    }

    fn lines(&self, l: &Lines, inside: Rect) -> Drawn {
        let count = l.panels.len().max(1) as f64;
        // The pixels from one position to the next, where positions have names.
        let slot = (inside.w - 82.0 - 24.0) / (l.x_range.1 - l.x_range.0);
        let names = Names { labels: &l.x_labels, slot, widest: self.widest(&l.x_labels) };
        let foot = if l.x_labels.is_empty() { 30.0 } else { names.height() } + if l.x.is_empty() { 0.0 } else { 18.0 };
        let legend = if l.panels.iter().any(|p| p.series.len() > 1) { 22.0 } else { 0.0 };
        let gap = 16.0;
        let height = (inside.h - foot - legend - gap * (count - 1.0)) / count;
        for (i, panel) in l.panels.iter().enumerate() {
            let top = inside.y + legend + i as f64 * (height + gap);
            let at = Rect { x: 82.0, y: top, w: inside.w - 82.0 - 24.0, h: height };
            let to_x = |x: f64| at.x + (x - l.x_range.0) / (l.x_range.1 - l.x_range.0) * at.w;
            self.axis(panel, at)?;
            let last = i + 1 == l.panels.len();
            let numbers = if l.x_labels.is_empty() { ticks::linear(l.x_range.0, l.x_range.1, 8) } else { vec![] };
            for place in names.shown() {
                let x = to_x(place as f64);
                self.path(&[(x, at.y), (x, at.y + at.h)], GRID, 1.0)?;
            }
            if last {
                self.names(&names, at.y + at.h, |place| to_x(place as f64))?;
            }
            for tick in numbers {
                let x = to_x(tick);
                self.path(&[(x, at.y), (x, at.y + at.h)], GRID, 1.0)?;
                if last {
                    self.text(
                        &ticks::number(tick),
                        (x, at.y + at.h + 7.0),
                        11.0,
                        SOFT,
                        (HPos::Center, VPos::Top),
                        false,
                        80.0,
                    )?;
                }
            }
            self.rules(panel, at)?;
            for (k, s) in panel.series.iter().enumerate() {
                let tone = if panel.series.len() == 1 { i } else { k };
                let points: Vec<_> = s.x.iter().zip(&s.y).map(|(&x, &y)| (to_x(x), to_y(panel, at, y))).collect();
                self.curve(&points, tone, at)?;
            }
            if panel.series.len() > 1 {
                self.legend(&panel.series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), (at.x, at.y - 12.0))?;
            }
        }
        let at = (82.0 + (inside.w - 106.0) / 2.0, inside.y + inside.h - 2.0);
        self.text(&l.x, at, 12.5, INK, (HPos::Center, VPos::Bottom), false, inside.w)?;
        Ok(Vec::new())
    }

    /// Frame, horizontal grid, tick texts and name of a vertical axis.
    fn axis(&self, panel: &Panel, at: Rect) -> Result<(), String> {
        let (lo, hi) = panel.range;
        let rows = (at.h / 28.0).max(2.0) as usize;
        let mut marks = if panel.log { ticks::decades(lo, hi, rows) } else { ticks::linear(lo, hi, rows.min(8)) };
        let decades = panel.log && marks.len() > 1;
        if panel.log && !decades {
            marks = ticks::linear(10f64.powf(lo), 10f64.powf(hi), 4)
                .into_iter()
                .filter(|v| *v > 0.0)
                .map(f64::log10)
                .collect();
        }
        for mark in marks {
            let y = at.y + at.h * (1.0 - (mark - lo) / (hi - lo));
            self.path(&[(at.x, y), (at.x + at.w, y)], GRID, 1.0)?;
            let text = match (panel.log, decades) {
                (true, true) => ticks::power_of_ten(mark),
                (true, false) => ticks::number(10f64.powf(mark)),
                _ => ticks::number(mark),
            };
            self.text(&text, (at.x - 7.0, y), 11.0, SOFT, (HPos::Right, VPos::Center), false, 56.0)?;
        }
        self.path(&[(at.x, at.y), (at.x, at.y + at.h), (at.x + at.w, at.y + at.h)], SOFT, 1.0)?;
        self.text(&panel.y, (6.0, at.y + at.h / 2.0), 12.5, INK, (HPos::Center, VPos::Top), true, at.h)
    }

    fn rules(&self, panel: &Panel, at: Rect) -> Result<(), String> {
        for (value, name) in &panel.rules {
            let y = to_y(panel, at, *value);
            if !(at.y..=at.y + at.h).contains(&y) {
                continue;
            }
            let mut x = at.x;
            while x < at.x + at.w {
                self.path(&[(x, y), ((x + 6.0).min(at.x + at.w), y)], SOFT, 1.0)?;
                x += 11.0;
            }
            self.text(name, (at.x + at.w - 2.0, y - 3.0), 10.5, SOFT, (HPos::Right, VPos::Bottom), false, at.w)?;
        }
        Ok(())
    }

    /// A curve, cut to its axes, with gaps where a value is missing.
    fn curve(&self, points: &[(f64, f64)], tone: usize, at: Rect) -> Result<(), String> {
        let [r, g, b] = parse_hex(LINES[tone % LINES.len()]);
        let color = RGBColor(r, g, b);
        let mut run: Vec<(f64, f64)> = Vec::new();
        for &(x, y) in points.iter().chain([&(f64::NAN, f64::NAN)]) {
            if x.is_finite() && y.is_finite() {
                run.push((x, y.clamp(at.y, at.y + at.h)));
                continue;
            }
            if run.len() > 1 {
                self.path(&run, color, 1.6)?;
            }
            if run.len() == 1 || (points.len() <= 40 && !run.is_empty()) {
                for p in &run {
                    let dot = Circle::new(self.at(*p), (2.6 * self.k) as i32, color.filled());
                    self.root.draw(&dot).map_err(|e| e.to_string())?;
                }
            }
            run.clear();
        }
        Ok(())
    }

    fn legend(&self, names: &[&str], (mut x, y): (f64, f64)) -> Result<(), String> {
        for (k, name) in names.iter().enumerate() {
            let [r, g, b] = parse_hex(LINES[k % LINES.len()]);
            self.rect(Rect { x, y: y - 3.0, w: 16.0, h: 4.0 }, RGBColor(r, g, b), true)?;
            self.text(name, (x + 21.0, y), 11.5, INK, (HPos::Left, VPos::Center), false, 200.0)?;
            x += 40.0 + self.width(name, 11.5).min(200.0);
        }
        Ok(())
    }

    fn widest(&self, labels: &[String]) -> f64 {
        labels.iter().map(|s| self.width(s, 11.0)).fold(0.0, f64::max)
    }

    /// Names below a horizontal axis at `y`.
    fn names(&self, names: &Names<'_>, y: f64, to_x: impl Fn(usize) -> f64) -> Result<(), String> {
        let upright = names.upright();
        let anchor = if upright { (HPos::Right, VPos::Center) } else { (HPos::Center, VPos::Top) };
        for place in names.shown() {
            self.text(&names.labels[place], (to_x(place), y + 7.0), 11.0, SOFT, anchor, upright, 150.0)?;
        }
        Ok(())
    }

    fn bars(&self, b: &Bars, inside: Rect) -> Drawn {
        let at_w = inside.w - 106.0;
        let slot = at_w / b.labels.len() as f64;
        let names = Names { labels: &b.labels, slot, widest: self.widest(&b.labels) };
        let foot = names.height() + if b.x.is_empty() { 0.0 } else { 20.0 };
        let legend = if b.panel.series.len() > 1 { 22.0 } else { 0.0 };
        let at = Rect { x: 82.0, y: inside.y + legend, w: at_w, h: inside.h - foot - legend };
        self.axis(&b.panel, at)?;
        let groups = b.panel.series.len().max(1) as f64;
        let base = if b.panel.log { at.y + at.h } else { to_y(&b.panel, at, 0.0).clamp(at.y, at.y + at.h) };
        for (k, s) in b.panel.series.iter().enumerate() {
            let [r, g, bl] = parse_hex(LINES[k % LINES.len()]);
            for (i, &value) in s.y.iter().enumerate().filter(|(_, v)| v.is_finite()) {
                let y = to_y(&b.panel, at, value).clamp(at.y, at.y + at.h);
                let x = at.x + (i as f64 + 0.12 + 0.76 * k as f64 / groups) * slot;
                let w = (0.76 * slot / groups - if slot > 12.0 { 1.0 } else { 0.0 }).max(0.5);
                self.rect(Rect { x, y: y.min(base), w, h: (y - base).abs() }, RGBColor(r, g, bl), true)?;
            }
        }
        self.names(&names, at.y + at.h, |i| at.x + (i as f64 + 0.5) * slot)?;
        self.rules(&b.panel, at)?;
        if b.panel.series.len() > 1 {
            self.legend(&b.panel.series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), (at.x, at.y - 12.0))?;
        }
        self.text(
            &b.x,
            (at.x + at.w / 2.0, inside.y + inside.h - 2.0),
            12.5,
            INK,
            (HPos::Center, VPos::Bottom),
            false,
            inside.w,
        )?;
        Ok(Vec::new())
    }
}

/// Names of places along a horizontal axis that are `slot` pixels apart; they stand upright where
/// the widest would not fit between two.
struct Names<'a> {
    labels: &'a [String],
    slot: f64,
    widest: f64,
}

impl Names<'_> {
    fn upright(&self) -> bool {
        self.widest > self.slot - 4.0
    }

    /// Pixels that they take below the axis.
    fn height(&self) -> f64 {
        if self.upright() { self.widest.min(150.0) + 14.0 } else { 26.0 }
    }

    /// The places whose names are drawn, so that none touches the next.
    fn shown(&self) -> impl Iterator<Item = usize> + use<> {
        let every = if self.upright() { (13.0 / self.slot).ceil().max(1.0) as usize } else { 1 };
        (0..self.labels.len()).step_by(every)
    }
}

fn to_y(panel: &Panel, at: Rect, value: f64) -> f64 {
    let v = if panel.log { value.log10() } else { value };
    at.y + at.h * (1.0 - (v - panel.range.0) / (panel.range.1 - panel.range.0))
}
