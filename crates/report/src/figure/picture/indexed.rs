//! A picture for a page, in at most 256 colours: half the bytes of one in true colour.

use std::collections::HashMap;

use super::{failed, pixels, written};
use crate::ReportError;
use crate::figure::scene::Scene;

const MOST: usize = 256;

/// The picture at its size, as the bytes of a PNG file.
pub(crate) fn png_indexed(scene: &Scene) -> Result<Vec<u8>, ReportError> {
    let (w, h) = scene.size;
    let rgb = pixels(scene, 1)?;
    let (palette, indices) = indexed(&rgb);
    written(&indices, (w, h), |encoder| {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette);
        // Neighbouring indices are not neighbouring colours, so their differences say nothing.
        encoder.set_filter(png::Filter::NoFilter);
    })
    .map_err(|reason| failed(scene, reason))
}

/// At most 256 colours and which of them each pixel has.
///
/// The commonest colours stay as they are. Where there are too many, the rarer of those that are close to each other
/// are left out, and no pixel is further from its own colour than they were.
fn indexed(rgb: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let pixels: Vec<[u8; 3]> = rgb.chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect();
    // Most pixels are as the one before.
    let runs = || pixels.chunk_by(|a, b| a == b);
    let mut counts: HashMap<[u8; 3], usize> = HashMap::new();
    for run in runs() {
        *counts.entry(run[0]).or_default() += run.len();
    }
    let mut colors: Vec<([u8; 3], usize)> = counts.into_iter().collect();
    colors.sort_unstable_by_key(|&(c, n)| (std::cmp::Reverse(n), c));
    let mut reach = 0;
    let kept = loop {
        let mut kept: Vec<[u8; 3]> = Vec::new();
        for &(c, _) in &colors {
            if kept.len() <= MOST && kept.iter().all(|k| apart(*k, c) > reach) {
                kept.push(c);
            }
        }
        if kept.len() <= MOST {
            break kept;
        }
        reach = if reach == 0 { 9 } else { reach * 2 };
    };
    let nearest = |c| (0..kept.len()).min_by_key(|&i| apart(kept[i], c)).unwrap_or(0) as u8;
    let index: HashMap<[u8; 3], u8> = colors.iter().map(|&(c, _)| (c, nearest(c))).collect();
    (kept.concat(), runs().flat_map(|run| std::iter::repeat_n(index[&run[0]], run.len())).collect())
}

/// The square of the distance of two colours.
fn apart(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The furthest that a pixel is from its colour.
    fn worst(rgb: &[u8]) -> u32 {
        let (palette, indices) = indexed(rgb);
        assert!(palette.len() <= 3 * MOST && indices.len() * 3 == rgb.len());
        let shown = indices.iter().map(|&i| &palette[3 * usize::from(i)..][..3]);
        rgb.chunks_exact(3).zip(shown).map(|(a, b)| apart([a[0], a[1], a[2]], [b[0], b[1], b[2]])).max().unwrap_or(0)
    }

    #[test]
    fn few_colours_stay_exact() {
        let rgb: Vec<u8> = (0..=255u8).flat_map(|i| [i, 255 - i, i / 2]).collect();
        assert_eq!(worst(&rgb), 0);
    }

    #[test]
    fn many_colours_stay_close_and_a_rare_one_far_from_all_is_kept() {
        // Greys with a tint, of which 1,000 differ, and one pixel of pink.
        let mut rgb: Vec<u8> =
            (0..1000u32).flat_map(|i| [(i / 4) as u8, (i / 4) as u8, (i / 4 + i % 4) as u8]).collect();
        rgb.extend([214, 0, 147]);
        let far = worst(&rgb);
        assert!(far > 0 && far <= 18, "{far}");
        assert!(indexed(&rgb).0.chunks(3).any(|c| c == [214, 0, 147]));
    }
}
