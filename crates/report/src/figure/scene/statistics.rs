//! What histograms and boxes show of samples, computed once for both writers.

/// Equal bins over `[lo, hi]`, and how many values lie in each; the last includes its upper end.
pub(super) fn bins(values: &[f64], (lo, hi): (f64, f64), count: usize) -> Vec<usize> {
    let mut out = vec![0; count];
    for v in values {
        let at = (v - lo) / (hi - lo) * count as f64;
        out[(at.max(0.0) as usize).min(count - 1)] += 1;
    }
    out
}

/// The five numbers of a box and what lies beyond its whiskers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BoxStats {
    /// The smallest value within 1.5 heights of the box below it.
    pub low: f64,
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
    /// The largest value within 1.5 heights of the box above it.
    pub high: f64,
    pub outliers: Vec<f64>,
}

/// Of finite values; none of none.
pub(super) fn box_stats(values: &[f64]) -> Option<BoxStats> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let (q1, median, q3) = (quantile(&sorted, 0.25), quantile(&sorted, 0.5), quantile(&sorted, 0.75));
    let reach = 1.5 * (q3 - q1);
    let inside = |v: &&f64| (q1 - reach..=q3 + reach).contains(*v);
    let low = sorted.iter().find(inside).copied().unwrap_or(first).min(q1);
    let high = sorted.iter().rev().find(inside).copied().unwrap_or(last).max(q3);
    let outliers = sorted.iter().filter(|v| **v < low || **v > high).copied().collect();
    Some(BoxStats { low, q1, median, q3, high, outliers })
}

/// Between the two nearest values in proportion, as numpy's default.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (i, f) = (at.floor() as usize, at.fract());
    let next = sorted[(i + 1).min(sorted.len() - 1)];
    sorted[i] + (next - sorted[i]) * f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_those_of_numpy() {
        // numpy.quantile([1, 2, 3, 4, 100], [.25, .5, .75]) = 2, 3, 4.
        let b = box_stats(&[3.0, 1.0, 100.0, 2.0, 4.0]).unwrap();
        assert_eq!((b.q1, b.median, b.q3), (2.0, 3.0, 4.0));
        assert_eq!((b.low, b.high, b.outliers), (1.0, 4.0, vec![100.0]));
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
        assert_eq!(box_stats(&[]), None);
        let one = box_stats(&[7.0]).unwrap();
        assert_eq!((one.low, one.median, one.high), (7.0, 7.0, 7.0));
    }

    #[test]
    fn every_value_is_in_one_bin() {
        assert_eq!(bins(&[0.0, 0.5, 1.0, 1.0], (0.0, 1.0), 2), [1, 3]);
        assert_eq!(bins(&[], (0.0, 1.0), 3), [0, 0, 0]);
    }
}
