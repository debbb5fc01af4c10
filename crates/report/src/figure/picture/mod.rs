//! A scene as a picture, drawn by `plotters`, without a browser.
//!
//! The text of PNG pictures is set in DejaVu Sans, which the `dejavu` crate
//! carries (Bitstream Vera licence: free to use, copy and embed), so pictures do
//! not depend on the fonts of a machine. SVG files name the same font and fall
//! back to the viewer's.

mod chart;
mod heatmap;
mod indexed;

use std::sync::OnceLock;

use base64::Engine as _;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, register_font};

pub(crate) use indexed::png_indexed;

use super::scene::{Body, Scene};
use crate::ReportError;
use crate::color::{LINES, parse_hex};

const FONT: &str = "DejaVu Sans, sans-serif";
const INK: RGBColor = RGBColor(36, 41, 47);
const SOFT: RGBColor = RGBColor(87, 96, 106);
const GRID: RGBColor = RGBColor(225, 229, 234);

/// Cells of a heatmap, already at their size in pixels, and what is written on them.
struct Image {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
    rgb: Vec<u8>,
    texts: Vec<CellText>,
}

/// A value in a cell: its middle and size at scale 1.
struct CellText {
    text: String,
    at: (f64, f64),
    size: f64,
    color: RGBColor,
}

/// The texts of images, on top of them.
fn write_texts<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, images: &[Image], k: f64) -> Result<(), String> {
    let page = Page { root, k };
    for t in images.iter().flat_map(|i| &i.texts) {
        page.text(&t.text, t.at, t.size, t.color, (HPos::Center, VPos::Center), false, 200.0)?;
    }
    root.present().map_err(|e| e.to_string())
}

type Drawn = Result<Vec<Image>, String>;

/// The picture as the bytes of a PNG file.
pub(crate) fn png(scene: &Scene, scale: u32) -> Result<Vec<u8>, ReportError> {
    let (w, h) = (scene.size.0 * scale, scene.size.1 * scale);
    encode(&pixels(scene, scale)?, w, h).map_err(|reason| failed(scene, reason))
}

/// The picture in red, green and blue, row by row.
fn pixels(scene: &Scene, scale: u32) -> Result<Vec<u8>, ReportError> {
    let (w, h) = (scene.size.0 * scale, scene.size.1 * scale);
    let mut buffer = vec![255u8; w as usize * h as usize * 3];
    let images = {
        let root = BitMapBackend::with_buffer(&mut buffer, (w, h)).into_drawing_area();
        draw(&root, scene, f64::from(scale)).map_err(|reason| failed(scene, reason))?
    };
    for image in &images {
        for row in 0..image.h.min(h.saturating_sub(image.y)) {
            let n = image.w.min(w.saturating_sub(image.x)) as usize * 3;
            let to = ((image.y + row) * w + image.x) as usize * 3;
            let from = (row * image.w) as usize * 3;
            buffer[to..to + n].copy_from_slice(&image.rgb[from..from + n]);
        }
    }
    {
        let root = BitMapBackend::with_buffer(&mut buffer, (w, h)).into_drawing_area();
        write_texts(&root, &images, f64::from(scale)).map_err(|reason| failed(scene, reason))?;
    }
    Ok(buffer)
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
    for i in &images {
        let png = encode(&i.rgb, i.w, i.h).map_err(|reason| failed(scene, reason))?;
        let png = base64::engine::general_purpose::STANDARD.encode(png);
        cells.push_str(&format!(
            "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{png}\"/>\n",
            i.x, i.y, i.w, i.h
        ));
    }
    if images.iter().any(|i| !i.texts.is_empty()) {
        let mut over = String::new();
        let root = SVGBackend::with_string(&mut over, scene.size).into_drawing_area();
        write_texts(&root, &images, 1.0).map_err(|reason| failed(scene, reason))?;
        drop(root);
        // What is inside of the second picture goes on top of the first.
        let inside = over.find('>').map_or(0, |i| i + 1)..over.rfind("</svg>").unwrap_or(over.len());
        cells.push_str(over.get(inside).unwrap_or(""));
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
    written(rgb, (w, h), |encoder| encoder.set_color(png::ColorType::Rgb))
}

/// A PNG file of pixels of eight bits, of the kind that `setup` says.
fn written(
    pixels: &[u8],
    (w, h): (u32, u32),
    setup: impl FnOnce(&mut png::Encoder<&mut Vec<u8>>),
) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, w, h);
    encoder.set_compression(png::Compression::High);
    setup(&mut encoder);
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(pixels).map_err(|e| e.to_string())?;
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
    let images = page.body(&scene.body, inside)?;
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

    fn body(&self, body: &Body, inside: Rect) -> Drawn {
        match body {
            Body::Heatmap(heatmap) => self.heatmap(heatmap, inside),
            Body::Chart(chart) => self.chart(chart, inside),
            Body::Panels(columns, scenes) => {
                let parts = scenes.iter().map(|s| (s.title.as_str(), &s.body)).collect();
                self.side_by_side(*columns, parts, inside)
            }
            Body::Frames(names, scenes) => {
                let shown = evenly(scenes.len(), MOST_FRAMES);
                let columns = if shown.len() <= 3 { shown.len() } else { 3 };
                let parts = shown.into_iter().map(|i| (names[i].as_str(), &scenes[i].body)).collect();
                self.side_by_side(columns, parts, inside)
            }
            Body::Own(..) => {
                Err("own traces are drawn by a browser only: save it as .html, whose page has PNG and SVG".into())
            }
        }
    }

    /// Parts with a title above each.
    fn side_by_side(&self, columns: usize, parts: Vec<(&str, &Body)>, inside: Rect) -> Drawn {
        let across = columns.clamp(1, parts.len().max(1));
        let down = parts.len().div_ceil(across);
        let (w, h) = (inside.w / across as f64, inside.h / down as f64);
        let mut images = Vec::new();
        for (i, (title, body)) in parts.into_iter().enumerate() {
            let (x, y) = (inside.x + (i % across) as f64 * w, inside.y + (i / across) as f64 * h);
            self.text(title, (x + w / 2.0, y + 4.0), 12.5, INK, (HPos::Center, VPos::Top), false, w - 12.0)?;
            let at = Rect { x: x + 4.0, y: y + 24.0, w: (w - 8.0).max(40.0), h: (h - 32.0).max(40.0) };
            images.extend(self.body(body, at)?);
        }
        Ok(images)
    }

    fn width(&self, text: &str, size: f64) -> f64 {
        let style = (FONT, size * self.k).into_text_style(self.root);
        self.root.estimate_text_size(text, &style).map_or(0.0, |s| f64::from(s.0)) / self.k
    }
}

/// The most frames that a picture shows.
const MOST_FRAMES: usize = 6;

/// At most `most` of `0..n`, with the first and the last.
pub(super) fn evenly(n: usize, most: usize) -> Vec<usize> {
    if n <= most { (0..n).collect() } else { (0..most).map(|i| i * (n - 1) / (most - 1)).collect() }
}

/// A colour for the `tone`-th series.
fn tone_color(tone: usize) -> RGBColor {
    let [r, g, b] = parse_hex(LINES[tone % LINES.len()]);
    RGBColor(r, g, b)
}
