//! What analyses found, in sentences: read from the results that a run keeps.

use ironlens_report::{Finding, two_digits, with_error};

use crate::picture::{Analysis, Part, Picture};

/// What stands out of each analysis; parts without a number that does are silent.
pub(crate) fn of(analysis: &Analysis) -> Vec<Finding> {
    analysis.sections.iter().flat_map(of_part).collect()
}

fn of_part(part: &Part) -> Vec<Finding> {
    let finding = |text: String| Finding { text, evidence: part.title.clone(), since: None };
    part.pictures.iter().filter_map(|picture| sentence(picture).map(finding)).collect()
}

fn sentence(picture: &Picture) -> Option<String> {
    match picture {
        Picture::Bars { title, value, labels, values, errors } if value == "rise of the loss" => {
            ablated(title, &Measured { labels, values, errors })
        }
        Picture::Bars { title, labels, values, errors, .. } if title == "Direct logit attribution" => {
            attributed(&Measured { labels, values, errors })
        }
        Picture::Bars { title, value, labels, values, errors } if title.ends_with("parts that add most") => {
            added(value, &Measured { labels, values, errors })
        }
        Picture::Bars { title, labels, values, errors, .. } if title.starts_with(LIKELIEST) => {
            likeliest(&title[LIKELIEST.len()..], &Measured { labels, values, errors })
        }
        Picture::Heatmap { title, shape, values, noise, .. } => {
            let heads = *shape.get(1)?;
            let labels: Vec<String> = (0..values.len()).map(|i| format!("L{}H{}", i / heads, i % heads)).collect();
            let wide = |of: &[f32]| of.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let (values, errors) = (wide(values), wide(noise));
            let all = Measured { labels: &labels, values: &values, errors: &errors };
            match title.strip_suffix(", mean").unwrap_or(title) {
                "Head output" => patched(&all),
                "Attention pattern of a head" => patterns(&all),
                _ => None,
            }
        }
        Picture::Bars { .. } | Picture::Lines { .. } => None,
    }
}

/// What the title of the picture of the tokens that follow a prompt begins with.
pub(crate) const LIKELIEST: &str = "The likeliest next tokens";

/// What the bars of parts measure where a wrong answer's logit is subtracted.
pub(crate) const DIFFERENCE: &str = "logit difference";

/// Numbers with names, and their standard errors if they are known.
struct Measured<'a> {
    labels: &'a [String],
    values: &'a [f64],
    errors: &'a [f64],
}

impl Measured<'_> {
    fn name(&self, i: usize) -> &str {
        self.labels.get(i).map_or("?", String::as_str)
    }

    /// A number with its error.
    fn number(&self, i: usize) -> String {
        with_error(self.values[i], self.errors.get(i).copied())
    }

    /// Whether it lies two errors away from 0.
    fn is_clear(&self, i: usize) -> bool {
        self.errors.get(i).is_none_or(|e| self.values[i].abs() >= 2.0 * e)
    }

    /// The clear ones of at least a share of the largest, the largest first, four at most.
    fn foremost(&self, share: f64, told: impl Fn(&str, String) -> String) -> Option<(String, f64)> {
        let (order, most) = largest(self.values)?;
        let shown: Vec<String> = order
            .into_iter()
            .take_while(|&i| self.values[i] >= share * most)
            .filter(|&i| self.is_clear(i))
            .take(4)
            .map(|i| told(self.name(i), self.number(i)))
            .collect();
        Some((shown.join(", "), most))
    }
}

/// The parts without which most is lost: those of at least a tenth of the largest.
fn ablated(title: &str, all: &Measured<'_>) -> Option<String> {
    let (shown, most) = all.foremost(0.1, |name, rise| format!("{name} by {rise}"))?;
    if most < 0.01 || shown.is_empty() {
        return Some(format!("{title}: no part matters alone, none clearly raises the loss by 0.01."));
    }
    Some(format!(
        "{title}, the loss of the model's own predictions rises most without {shown}; the median part: {}.",
        two_digits(median(all.values))
    ))
}

/// What writes most of the logit of the prediction.
fn attributed(all: &Measured<'_>) -> Option<String> {
    let total: f64 = all.values.iter().sum();
    let (shown, most) = all.foremost(0.1, |name, logit| format!("{name} writes {logit}"))?;
    if !total.is_finite() || most <= 0.0 {
        return None;
    }
    Some(format!("Of the predicted token's logit, {total:.2} at the last position, {shown}."))
}

/// What adds most to the logit of an answer, of which the largest parts are known.
fn added(value: &str, all: &Measured<'_>) -> Option<String> {
    let (shown, most) = all.foremost(0.1, |name, logit| format!("{name} adds {logit}"))?;
    let less = if value == DIFFERENCE { " less the wrong one's" } else { "" };
    (most > 0.0).then(|| format!("To the answer's logit{less}, at the last position, {shown}."))
}

/// What the model goes on with.
fn likeliest(of: &str, all: &Measured<'_>) -> Option<String> {
    let (order, _) = largest(all.values)?;
    let told: Vec<String> =
        order.iter().take(2).map(|&i| format!("{} ({})", all.name(i), two_digits(all.values[i]))).collect();
    Some(format!("{LIKELIEST}{of}, with their probabilities: {}.", told.join(", ")))
}

/// The heads whose output brings most of the answer back.
fn patched(all: &Measured<'_>) -> Option<String> {
    let (shown, most) = all.foremost(0.3, |name, share| format!("{name} ({share})"))?;
    if most < 0.1 {
        return Some(format!("No head alone brings a tenth of the answer back when it is patched: at most {most:.2}."));
    }
    if shown.is_empty() {
        let first = largest(all.values)?.0[0];
        return Some(format!(
            "No head alone clearly brings the answer back when it is patched: at most {}, of {}.",
            all.number(first),
            all.name(first)
        ));
    }
    let rest = median(all.values);
    Some(format!(
        "The output of one head, patched alone, brings back of the answer (1 is all): {shown}; the median head: {}.",
        two_digits(rest)
    ))
}

/// Whether where heads look depends on the tokens.
fn patterns(all: &Measured<'_>) -> Option<String> {
    let sizes: Vec<f64> = all.values.iter().map(|v| v.abs()).collect();
    let (order, most) = largest(&sizes)?;
    let first = order[0];
    Some(match (most < 0.05, all.is_clear(first)) {
        (true, _) => format!(
            "Patching the attention pattern of one head alone brings nothing back (at most {most:.3}): where it looks does not depend on what was replaced."
        ),
        (_, true) if all.values[first] < 0.0 => format!(
            "Patching the pattern of {} alone takes the answer further away, by {}: where it looks depends on what was replaced.",
            all.name(first),
            with_error(-all.values[first], all.errors.get(first).copied())
        ),
        (_, false) => format!(
            "Patching the attention pattern of one head alone brings nothing clearly back: at most {}, of {}.",
            all.number(first),
            all.name(first)
        ),
        (_, true) => format!(
            "Patching the pattern of {} alone brings {} of the answer back: where it looks depends on what was replaced.",
            all.name(first),
            all.number(first)
        ),
    })
}

/// Indices from the largest finite value down, and that value.
fn largest(values: &[f64]) -> Option<(Vec<usize>, f64)> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| values[i].is_finite()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    let most = values[*order.first()?];
    Some((order, most))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_follow_the_numbers() {
        let labels = ["L0H0", "MLP 0", "L0H1", "L0H2"].map(String::from);
        fn of<'a>(labels: &'a [String], values: &'a [f64], errors: &'a [f64]) -> Measured<'a> {
            Measured { labels, values, errors }
        }
        let zero = "Each part set to zero";
        let text = ablated(zero, &of(&labels, &[0.02, 3.0, 0.5], &[])).unwrap();
        assert!(text.contains("without MLP 0 by 3.00, L0H1 by 0.50; the median part: 0.50"), "{text}");
        let text = ablated(zero, &of(&labels, &[0.02, 3.0, 0.5], &[0.0, 0.25, 0.3])).unwrap();
        assert!(text.contains("without MLP 0 by 3.00 ± 0.25; "), "what may be noise is not told: {text}");
        assert!(ablated(zero, &of(&labels, &[0.0, 1e-3, f64::NAN], &[])).unwrap().contains("no part matters"));
        assert!(patched(&of(&labels, &[0.01, 0.02, 0.0], &[])).unwrap().contains("No head alone"));
        assert!(patched(&of(&labels, &[0.0, 0.1, 0.0, 0.8], &[])).unwrap().contains("L0H2 (0.80)"));
        assert!(patterns(&of(&labels, &[0.002, 0.0], &[])).unwrap().contains("does not depend"));
        let text = patched(&of(&labels, &[0.6, 0.0], &[0.4, 0.0])).unwrap();
        assert!(
            text.ends_with("clearly brings the answer back when it is patched: at most 0.60 ± 0.40, of L0H0."),
            "{text}"
        );
        let text = patterns(&of(&labels, &[-0.5, 0.02], &[0.1, 0.0])).unwrap();
        assert!(text.contains("L0H0 alone takes the answer further away, by 0.50 ± 0.10"), "{text}");
        let text = patterns(&of(&labels, &[0.2, 0.0], &[0.2, 0.0])).unwrap();
        assert!(text.ends_with("brings nothing clearly back: at most 0.20 ± 0.20, of L0H0."), "noise: {text}");
        assert_eq!((median(&[3.0, 1.0]), median(&[3.0, 1.0, 7.0])), (2.0, 3.0));
        let text = attributed(&of(&labels, &[1.0, 5.0, -1.0], &[])).unwrap();
        assert!(text.contains("5.00 at the last position, MLP 0 writes 5.00"), "{text}");
        let text = added(DIFFERENCE, &of(&labels, &[2.0, 1.0, -3.0], &[])).unwrap();
        assert_eq!(
            text,
            "To the answer's logit less the wrong one's, at the last position, L0H0 adds 2.00, MLP 0 adds 1.00."
        );
        assert!(added("logit", &of(&labels, &[2.0], &[])).unwrap().starts_with("To the answer's logit, at"));
        let tokens = ["\" the\"", "\" Mary\""].map(String::from);
        let text = likeliest("", &of(&tokens, &[0.04, 0.84], &[])).unwrap();
        assert_eq!(text, "The likeliest next tokens, with their probabilities: \" Mary\" (0.84), \" the\" (0.04).");
        assert_eq!((two_digits(-0.001), two_digits(-0.01)), ("0.00".into(), "-0.01".into()));
        assert_eq!(of(&labels, &[0.1], &[0.001]).number(0), "0.10 ± <0.01");
    }
}
