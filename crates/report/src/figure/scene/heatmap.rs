//! Matrices as coloured cells.

use super::super::options::{error, shape_error};
use super::super::text::{clean, token_text};
use crate::array::finite_range;
use crate::{Array, Colorscale, Figure, ReportError};

#[derive(Debug, Clone)]
pub(crate) struct Heatmap {
    pub rows: usize,
    pub cols: usize,
    pub panels: Vec<Matrix>,
    /// How many stand side by side.
    pub columns: usize,
    pub colors: Colorscale,
    /// Whether each matrix has a range of its own.
    pub own_scales: bool,
    /// Whether cells fill the area; else they are square.
    pub stretched: bool,
    /// Whether the values are printed into the cells.
    pub text: bool,
    pub x: String,
    pub y: String,
    pub value: String,
    pub x_labels: Vec<String>,
    pub y_labels: Vec<String>,
}

/// One matrix: a value for each cell in row-major order.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    pub name: String,
    pub cells: Vec<f32>,
    /// Which cells are hidden; empty for none.
    pub hidden: Vec<bool>,
    /// Which cells may be noise; empty for none.
    pub quiet: Vec<bool>,
    pub range: (f64, f64),
}

impl Matrix {
    pub fn is_hidden(&self, cell: usize) -> bool {
        self.hidden.get(cell).copied().unwrap_or(false)
    }

    pub fn is_quiet(&self, cell: usize) -> bool {
        self.quiet.get(cell).copied().unwrap_or(false)
    }
}

/// The most cells that can have their values printed.
const MOST_TEXTS: usize = 2500;

impl Heatmap {
    pub fn default_size(&self) -> (u32, u32) {
        let across = self.columns.min(self.panels.len()).max(1) as u32;
        let down = (self.panels.len().max(1) as u32).div_ceil(across);
        let mut side = match across {
            1 => 400.0,
            2 => 330.0,
            3 => 250.0,
            _ => 190.0f64,
        };
        if self.text {
            // A value of five characters fits into 34 pixels.
            side = side.max(34.0 * self.rows.max(self.cols) as f64);
        }
        // Square cells: the shorter side of a panel follows from the longer one.
        let cell = (side / self.rows.max(self.cols).max(1) as f64).min(64.0);
        let (w, v) = (cell * self.cols as f64, cell * self.rows as f64);
        let panel = (w.max(60.0) as u32 + if self.own_scales { 110 } else { 46 }, v.max(24.0) as u32 + 46);
        let longest = self.y_labels.iter().map(|s| s.chars().count().min(24)).max().unwrap_or(0) as u32 * 6;
        let feet = self.x_labels.iter().map(|s| s.chars().count().min(24)).max().unwrap_or(0) as u32 * 5;
        (across * panel.0 + if self.own_scales { 60 } else { 140 } + longest, down * panel.1 + 84 + feet)
    }

    /// The value where the colours are that of the page.
    pub fn middle(&self, range: (f64, f64)) -> f64 {
        if self.colors == Colorscale::RdBu { (range.0 + range.1) / 2.0 } else { range.0 }
    }
}

pub(super) fn prepare(figure: &Figure, array: &Array, notes: &mut Vec<String>) -> Result<Heatmap, ReportError> {
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
    for (axis, labels, n) in [
        ("columns", &figure.x_labels, cols),
        ("columns", &figure.x_tokens, cols),
        ("rows", &figure.y_labels, rows),
        ("rows", &figure.y_tokens, rows),
        ("matrices", &figure.facets, count),
    ] {
        if !labels.is_empty() && labels.len() != n {
            let expected = format!("{n} labels, one for each of the {axis}");
            return Err(shape_error(figure, &expected, format!("{} labels", labels.len())));
        }
    }
    if figure.text_auto && count * rows * cols > MOST_TEXTS {
        let reason = format!(
            "{} cells are too many to print their values, at most {MOST_TEXTS} can be read",
            count * rows * cols
        );
        return Err(error(figure, "text_auto", reason));
    }
    let hidden = hidden(figure, count, rows, cols)?;
    let is_hidden = |i: usize| hidden.get(i).copied().unwrap_or(false);
    let quiet = quiet(figure, array)?;
    let bad = array.data().iter().enumerate().filter(|(i, v)| !v.is_finite() && !is_hidden(*i)).count();
    if bad > 0 {
        let cells = if bad == 1 { "1 cell is".into() } else { format!("{bad} cells are") };
        notes.push(format!("{cells} not finite (NaN or infinite) and marked in magenta"));
    }
    let faint = (0..quiet.len()).filter(|&i| quiet[i] && !is_hidden(i)).count();
    if faint > 0 {
        let cells = if faint == 1 { "1 cell is".into() } else { format!("{faint} cells are") };
        notes.push(format!("{cells} grey: less than two standard errors from {}", figure.midpoint.unwrap_or(0.0)));
    }
    let size = rows * cols;
    let seen = |from: usize, to: usize| {
        finite_range((from..to).filter(|i| !is_hidden(*i)).map(|i| f64::from(array.data()[i])))
    };
    let shared = color_range(figure, seen(0, array.data().len()));
    let part = |all: &[bool], i: usize| all.get(i * size..(i + 1) * size).unwrap_or(&[]).to_vec();
    let panels = (0..count)
        .map(|i| Matrix {
            name: match figure.facets.get(i) {
                Some(name) => clean(name),
                None if count > 1 => i.to_string(),
                None => String::new(),
            },
            cells: array.data()[i * size..(i + 1) * size].to_vec(),
            hidden: part(&hidden, i),
            quiet: part(&quiet, i),
            range: if figure.own_scales { color_range(figure, seen(i * size, (i + 1) * size)) } else { shared },
        })
        .collect();
    let default = if figure.midpoint.is_some() { Colorscale::RdBu } else { Colorscale::Blues };
    let names = |labels: &[String], tokens: &[String]| match labels.is_empty() {
        true => tokens.iter().map(|s| token_text(s)).collect(),
        false => labels.iter().map(|s| clean(s)).collect::<Vec<String>>(),
    };
    Ok(Heatmap {
        rows,
        cols,
        panels,
        columns: figure.columns.unwrap_or(4).min(count),
        colors: figure.colorscale.unwrap_or(default),
        own_scales: figure.own_scales,
        stretched: figure.stretched,
        text: figure.text_auto,
        x: clean(&figure.x),
        y: clean(&figure.y),
        value: clean(figure.value.as_deref().unwrap_or("value")),
        x_labels: names(&figure.x_labels, &figure.x_tokens),
        y_labels: names(&figure.y_labels, &figure.y_tokens),
    })
}

/// One for each cell of all matrices, or none.
fn hidden(figure: &Figure, count: usize, rows: usize, cols: usize) -> Result<Vec<bool>, ReportError> {
    let size = rows * cols;
    let mut hidden = match &figure.mask {
        None if !figure.causal => return Ok(Vec::new()),
        None => vec![false; count * size],
        Some(mask) if mask.len() == count * size => mask.clone(),
        Some(mask) if mask.len() == size => mask.repeat(count),
        Some(mask) => {
            let expected = format!("a mask of {size} cells, or of {} for all matrices", count * size);
            return Err(shape_error(figure, &expected, format!("{} cells", mask.len())));
        }
    };
    if figure.causal {
        hidden.iter_mut().enumerate().for_each(|(i, h)| *h |= i % cols > i / cols % rows);
    }
    Ok(hidden)
}

fn quiet(figure: &Figure, array: &Array) -> Result<Vec<bool>, ReportError> {
    let Some(noise) = &figure.noise else { return Ok(Vec::new()) };
    if noise.shape() != array.shape() {
        let expected = format!("standard errors of shape {:?}, as the values", array.shape());
        return Err(shape_error(figure, &expected, format!("shape {:?}", noise.shape())));
    }
    let middle = figure.midpoint.unwrap_or(0.0);
    let far = |(v, e): (&f32, &f32)| (f64::from(*v) - middle).abs() < 2.0 * f64::from(*e);
    Ok(array.data().iter().zip(noise.data()).map(far).collect())
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

pub(super) fn about(m: f64, lo: f64, hi: f64) -> (f64, f64) {
    let reach = (hi - m).abs().max((m - lo).abs());
    let reach = if reach > 0.0 { reach } else { 1.0 };
    (m - reach, m + reach)
}

/// The range asked for, smaller end first.
pub(super) fn asked_range(figure: &Figure) -> Option<(f64, f64)> {
    figure.range.map(|(a, b)| (a.min(b), a.max(b)))
}
