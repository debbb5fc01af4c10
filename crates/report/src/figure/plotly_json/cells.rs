//! The values of cells: as numbers where they are few, packed where JSON would be many times as long.

use serde_json::{Value, json};

use super::super::scene::{Body, Heatmap, Matrix};
use crate::codec::{self, Codec};
use crate::figure::Number;

/// How the cells of a heatmap are written; `None` for JSON.
fn codec(heatmap: &Heatmap) -> Option<Codec> {
    match heatmap.panels.len() * heatmap.rows * heatmap.cols {
        0..=1024 => None,
        1025..=4096 => Some(Codec::F32),
        4097..=65_536 => Some(Codec::U16),
        _ => Some(Codec::U8),
    }
}

/// The largest error that packing gives a value of the page, if it packs them other than exactly.
pub(crate) fn precision(body: &Body) -> Option<(u32, f64)> {
    match body {
        Body::Heatmap(h) => {
            let codec = codec(h).filter(|codec| *codec != Codec::F32)?;
            let error = |m: &Matrix| codec::pack_matrix(&shown(m), [h.rows, h.cols], codec).error;
            Some((codec.bits(), h.panels.iter().map(error).fold(0.0, f64::max)))
        }
        Body::Frames(_, scenes) | Body::Panels(_, scenes) => {
            scenes.iter().filter_map(|s| precision(&s.body)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        }
        Body::Chart(_) | Body::Own(..) => None,
    }
}

/// What can be shown of the cells: others are not finite.
fn shown(matrix: &Matrix) -> Vec<f32> {
    let value = |(i, v): (usize, &f32)| if matrix.is_hidden(i) { f32::NAN } else { *v };
    matrix.cells.iter().enumerate().map(value).collect()
}

/// The cells of one matrix.
pub(super) fn values(heatmap: &Heatmap, matrix: &Matrix) -> Value {
    write(heatmap, &shown(matrix))
}

/// 1 where `marked` is true, nothing elsewhere.
pub(super) fn marks(heatmap: &Heatmap, marked: impl Fn(usize) -> bool) -> Value {
    let cells: Vec<f32> = (0..heatmap.rows * heatmap.cols).map(|i| if marked(i) { 1.0 } else { f32::NAN }).collect();
    write(heatmap, &cells)
}

fn write(heatmap: &Heatmap, cells: &[f32]) -> Value {
    match codec(heatmap) {
        None => {
            let row = |row: &[f32]| row.iter().map(|&v| v.is_finite().then(|| short(v))).collect::<Vec<_>>();
            cells.chunks(heatmap.cols).map(row).collect::<Vec<_>>().into()
        }
        Some(codec) => {
            let packed = codec::pack_matrix(cells, [heatmap.rows, heatmap.cols], codec);
            json!({ "packed": packed.base64, "codec": codec.name(), "shape": [1, heatmap.rows, heatmap.cols],
                "lo": packed.lo, "hi": packed.hi, "error": packed.error, "causal": false })
        }
    }
}

/// The digits that the number has, and no more.
fn short(v: f32) -> f64 {
    let rounded = (v * 1e6).round() / 1e6;
    Number::to_f64(if v.abs() >= 1e-4 && rounded.is_finite() { rounded } else { v })
}
