//! Where an axis has its ticks, and what they say.

/// Round numbers (1, 2 or 5 times a power of ten) inside `[lo, hi]`, about `count` of them.
pub(crate) fn linear(lo: f64, hi: f64, count: usize) -> Vec<f64> {
    let span = hi - lo;
    if !span.is_finite() || span <= 0.0 {
        return vec![lo];
    }
    let rough = span / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(10.0 * power);
    let first = (lo / step - 1e-9).ceil() as i64;
    let last = (hi / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Exponents of the powers of ten inside `[10^lo, 10^hi]`, at most `count` of them.
pub(crate) fn decades(lo: f64, hi: f64, count: usize) -> Vec<f64> {
    let (first, last) = ((lo - 1e-9).ceil() as i64, (hi + 1e-9).floor() as i64);
    let every = ((last - first).max(0) as usize / count.max(1) + 1) as i64;
    (first..=last).filter(|e| e.rem_euclid(every) == 0).map(|e| e as f64).collect()
}

/// A short text for a tick on a linear axis.
pub(crate) fn number(v: f64) -> String {
    if v == 0.0 {
        return "0".into();
    }
    let size = v.abs();
    if !(1e-4..1e6).contains(&size) {
        let text = format!("{v:.2e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        return format!("{mantissa}e{exponent}");
    }
    let digits = (3 - size.log10().floor() as i64).clamp(0, 8) as usize;
    let text = format!("{v:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// `10⁻³`: the text of a tick on a logarithmic axis.
pub(crate) fn power_of_ten(exponent: f64) -> String {
    let digits = (exponent.round() as i64).to_string();
    let raised = digits.chars().map(|c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' => '⁰',
        c => char::from_u32(c as u32 - '4' as u32 + '⁴' as u32).unwrap_or(c),
    });
    "10".chars().chain(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_inside() {
        assert_eq!(linear(0.0, 3000.0, 6), [0., 500., 1000., 1500., 2000., 2500., 3000.]);
        assert_eq!(linear(-0.5, 0.5, 5).len(), 5);
        assert_eq!(linear(2.0, 2.0, 5), [2.0]);
        assert_eq!(linear(0.0, f64::INFINITY, 5), [0.0]);
    }

    #[test]
    fn decades_thin_out() {
        assert_eq!(decades(-2.5, 1.0, 10), [-2., -1., 0., 1.]);
        assert!(decades(-300.0, 300.0, 8).len() <= 9);
    }

    #[test]
    fn texts() {
        assert_eq!(number(0.25), "0.25");
        assert_eq!(number(1500.0), "1500");
        assert_eq!(number(0.000_03), "3e-5");
        assert_eq!(number(-2.0), "-2");
        assert_eq!(power_of_ten(-10.0), "10⁻¹⁰");
        assert_eq!(power_of_ten(9.0), "10⁹");
        assert_eq!(power_of_ten(4.0), "10⁴");
    }
}
