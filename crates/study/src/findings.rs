//! What analyses found, in sentences: read from the results that a run keeps.

use ironlens_report::Finding;

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
        Picture::Bars { title, labels, values, errors, .. }
            if title == "Direct logit attribution" || title.ends_with("parts that add most") =>
        {
            attributed(title, &Measured { labels, values, errors })
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
        match self.errors.get(i) {
            Some(e) if *e > 0.0 => format!("{:.2} ± {e:.2}", self.values[i]),
            _ => format!("{:.2}", self.values[i]),
        }
    }

    /// Whether it lies two errors above 0.
    fn is_clear(&self, i: usize) -> bool {
        self.errors.get(i).is_none_or(|e| self.values[i] >= 2.0 * e)
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
    Some(format!("{title}, the loss rises most without {shown}; the median part: {:.2}.", median(all.values)))
}

/// What writes most of the logit of the prediction.
fn attributed(title: &str, all: &Measured<'_>) -> Option<String> {
    let total: f64 = all.values.iter().sum();
    let (shown, most) = all.foremost(0.1, |name, logit| format!("{name} writes {logit}"))?;
    if !total.is_finite() || most <= 0.0 {
        return None;
    }
    match title {
        "Direct logit attribution" => {
            Some(format!("Of the predicted token's logit, {total:.2} at the last position, {shown}."))
        }
        _ => Some(format!("Of the answer's logit at the last position, {shown}.")),
    }
}

/// The heads whose output brings most of the answer back.
fn patched(all: &Measured<'_>) -> Option<String> {
    let (shown, most) = all.foremost(0.3, |name, share| format!("{name} ({share})"))?;
    if most < 0.1 || shown.is_empty() {
        return Some(format!("No head alone brings a tenth of the answer back when it is patched: at most {most:.2}."));
    }
    let rest = median(all.values);
    Some(format!(
        "Patching its output alone brings back, of the answer (1 is all): {shown}; the median head: {rest:.2}."
    ))
}

/// Whether where heads look depends on the tokens.
fn patterns(all: &Measured<'_>) -> Option<String> {
    let (order, most) = largest(all.values)?;
    let first = order[0];
    Some(match most < 0.05 || !all.is_clear(first) {
        true => format!(
            "Patching the attention patterns alone brings nothing back (at most {most:.3}): where heads look does not depend on what was replaced."
        ),
        false => format!(
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
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
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
        assert!(patterns(&of(&labels, &[0.2, 0.0], &[0.2, 0.0])).unwrap().contains("does not depend"), "noise");
        let text = attributed("Direct logit attribution", &of(&labels, &[1.0, 5.0, -1.0], &[])).unwrap();
        assert!(text.contains("5.00 at the last position, MLP 0 writes 5.00"), "{text}");
    }
}
