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
        Picture::Bars { title, value, labels, values } if value == "rise of the loss" => ablated(title, labels, values),
        Picture::Bars { title, labels, values, .. } if title == "Direct logit attribution" => {
            attributed(labels, values)
        }
        Picture::Heatmap { title, shape, values, .. } if title == "Head output" => patched(shape, values),
        Picture::Heatmap { title, shape, values, .. } if title == "Attention pattern of a head" => {
            patterns(shape, values)
        }
        _ => None,
    }
}

/// The parts without which most is lost: those of at least a tenth of the largest.
fn ablated(title: &str, labels: &[String], values: &[f64]) -> Option<String> {
    let (order, most) = largest(values)?;
    if most < 0.01 {
        return Some(format!("{title}: no part matters alone, none raises the loss by 0.01."));
    }
    let shown: Vec<String> = order
        .iter()
        .take_while(|i| values[**i] >= 0.1 * most)
        .take(4)
        .map(|&i| format!("{} by {:.2}", labels.get(i).map_or("?", String::as_str), values[i]))
        .collect();
    let rest = median(values);
    Some(format!("{title}, the loss rises most without {}; the median part: {rest:.2}.", shown.join(", ")))
}

/// What writes most of the logit of the prediction.
fn attributed(labels: &[String], values: &[f64]) -> Option<String> {
    let total: f64 = values.iter().sum();
    let (order, most) = largest(values)?;
    if !total.is_finite() || most <= 0.0 {
        return None;
    }
    let shown: Vec<String> = order
        .iter()
        .take(3)
        .filter(|i| values[**i] > 0.1 * most)
        .map(|&i| format!("{} writes {:.2}", labels.get(i).map_or("?", String::as_str), values[i]))
        .collect();
    Some(format!("Of the predicted token's logit, {total:.2} at the last position, {}.", shown.join(", ")))
}

/// The heads whose output brings most of the answer back.
fn patched(shape: &[usize], values: &[f32]) -> Option<String> {
    let heads = *shape.get(1)?;
    let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let (order, most) = largest(&values)?;
    if most < 0.1 {
        return Some(format!(
            "No head alone brings a tenth of the answer back when it is patched: at most {most:.2}, at the last position."
        ));
    }
    let shown: Vec<String> = order
        .iter()
        .take_while(|i| values[**i] >= 0.3 * most)
        .take(4)
        .map(|&i| format!("L{}H{} ({:.2})", i / heads, i % heads, values[i]))
        .collect();
    let rest = median(&values);
    Some(format!(
        "Patching its output alone brings back, of the answer at the last position (1 is all): {}; the median head: {rest:.2}.",
        shown.join(", ")
    ))
}

/// Whether where heads look depends on the tokens.
fn patterns(shape: &[usize], values: &[f32]) -> Option<String> {
    let heads = *shape.get(1)?;
    let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let (order, most) = largest(&values)?;
    Some(match most < 0.05 {
        true => format!(
            "Patching the attention patterns alone brings nothing back (at most {most:.3}): where heads look does not depend on the replaced token."
        ),
        false => {
            let i = order[0];
            format!(
                "Patching the pattern of L{}H{} alone brings {most:.2} of the answer back: where it looks depends on the replaced token.",
                i / heads,
                i % heads
            )
        }
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
        let labels = ["L0H0", "MLP 0", "L0H1"].map(String::from);
        let text = ablated("Each part set to zero", &labels, &[0.02, 3.0, 0.5]).unwrap();
        assert!(text.contains("without MLP 0 by 3.00, L0H1 by 0.50; the median part: 0.50"), "{text}");
        assert!(ablated("Each part set to zero", &labels, &[0.0, 1e-3, f64::NAN]).unwrap().contains("no part matters"));
        assert!(patched(&[1, 3], &[0.01, 0.02, 0.0]).unwrap().contains("No head alone"));
        assert!(patched(&[2, 2], &[0.0, 0.1, 0.0, 0.8]).unwrap().contains("L1H1 (0.80)"));
        assert!(patterns(&[1, 2], &[0.002, 0.0]).unwrap().contains("does not depend"));
        assert!(
            attributed(&labels, &[1.0, 5.0, -1.0]).unwrap().contains("5.00 at the last position, MLP 0 writes 5.00")
        );
    }
}
