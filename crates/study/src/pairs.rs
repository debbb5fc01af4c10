//! Which heads build on which: read from the picture of composition that a run keeps.

use ironlens_report::HeadPair;

use crate::picture::{Analysis, Picture};

/// The title of the picture.
pub(crate) const COMPOSITION: &str = "Composition above chance";

/// What the names of its matrices begin with, before "queries", "keys" and "values".
pub(crate) const READ_BY: &str = "read by ";

/// How many standard deviations over all pairs a pair must lie above their mean to be named.
const STANDS_OUT: f64 = 4.0;

impl Analysis {
    /// Which heads build on which, for their cards.
    pub(crate) fn head_pairs(&self) -> Vec<HeadPair> {
        self.sections.iter().flat_map(|part| part.pictures.iter().flat_map(Picture::head_pairs)).collect()
    }
}

impl Picture {
    /// The pairs of heads that stand out, the clearest first; of the picture of composition.
    pub(crate) fn head_pairs(&self) -> Vec<HeadPair> {
        let Picture::Heatmap { title, rows, columns, facets, values, .. } = self else { return Vec::new() };
        let size = rows.len() * columns.len();
        if title != COMPOSITION || size == 0 || values.len() != size * facets.len() {
            return Vec::new();
        }
        let mut out = Vec::new();
        for (facet, scores) in facets.iter().zip(values.chunks(size)) {
            let Some(by) = facet.strip_prefix(READ_BY) else { continue };
            let (found, others) = outstanding(scores);
            out.extend(found.into_iter().filter_map(|i| {
                let (writer, reader) = (head(&rows[i / columns.len()])?, head(&columns[i % columns.len()])?);
                Some(HeadPair { writer, reader, by: by.into(), score: scores[i], others })
            }));
        }
        let clear = |p: &HeadPair| (p.score - p.others.0) / p.others.1;
        out.sort_by(|a, b| clear(b).total_cmp(&clear(a)));
        out
    }
}

/// Layer and head of a label such as `L0H3`.
fn head(label: &str) -> Option<(usize, usize)> {
    let (layer, head) = label.strip_prefix('L')?.split_once('H')?;
    Some((layer.parse().ok()?, head.parse().ok()?))
}

/// The cells that lie far above the mean of those that are not 0; that mean, and their deviation.
/// Pairs of which the reader does not lie above the writer are 0.
fn outstanding(scores: &[f32]) -> (Vec<usize>, (f32, f32)) {
    let real: Vec<f64> = scores.iter().filter(|v| **v != 0.0 && v.is_finite()).map(|v| f64::from(*v)).collect();
    let n = real.len().max(1) as f64;
    let mean = real.iter().sum::<f64>() / n;
    let deviation = (real.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let clear = |v: f64| v - mean > STANDS_OUT * deviation && v > 0.0;
    let found = (0..scores.len()).filter(|&i| clear(f64::from(scores[i]))).collect();
    (found, (mean as f32, deviation as f32))
}

#[cfg(test)]
mod tests {
    use ironlens_tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn pairs_that_stand_out_are_named_with_what_the_others_have() {
        let labels = |layer: usize| (0..6).map(|h| format!("L{layer}H{h}")).collect::<Vec<_>>();
        // Keys: alike but for one pair; values: all alike.
        let mut scores: Vec<f32> = (0..72).map(|i| 0.001 * (i % 5) as f32 - 0.002).collect();
        scores[2 * 6 + 4] = 0.3;
        let picture = |title: &str| {
            let values = Tensor::from_vec(scores.clone(), &[2, 6, 6], &Device::Cpu);
            let facets = ["read by keys", "read by values"].map(String::from).into();
            Picture::heatmap(title, ["writes", "reads"], &values).labels(labels(0), labels(1)).facets(facets)
        };
        let found = picture(COMPOSITION).head_pairs();
        let [pair] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((pair.writer, pair.reader, pair.by.as_str(), pair.score), ((0, 2), (1, 4), "keys", 0.3));
        let mean = scores[..36].iter().filter(|v| **v != 0.0).sum::<f32>() / 29.0;
        assert!((pair.others.0 - mean).abs() < 1e-6 && pair.others.1 < 0.1, "{:?}", pair.others);
        assert_eq!(picture("Another").head_pairs(), []);
    }
}
