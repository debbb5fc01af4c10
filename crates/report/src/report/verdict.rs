//! Sentences computed from the data. Nothing here knows what a run should find.

use super::{Detector, Report};

pub(crate) fn sentences(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    out.extend(losses(report));
    out.extend(held_out(report));
    out.extend(compared(report));
    // Where it is known what equal attention gives, the findings say which heads stand out.
    out.extend(report.detectors.iter().filter(|d| d.uniform.is_none()).filter_map(best_head));
    out
}

fn losses(report: &Report) -> Option<String> {
    let first = report.metrics.first()?;
    let last = report.metrics.last()?;
    if first.step == last.step {
        return Some(format!("Loss {} at step {}.", number(first.loss), first.step));
    }
    let mut text =
        format!("Loss {} at step {} → {} at step {}", number(first.loss), first.step, number(last.loss), last.step);
    if let Some(chance) = report.chance_loss {
        text.push_str(&format!("; guessing gives {}", number(chance)));
    }
    let bad = report.metrics.iter().find(|m| !m.loss.is_finite());
    match bad {
        Some(bad) => text.push_str(&format!(". The loss stopped being finite at step {}.", bad.step)),
        None => {
            let best = report.metrics.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))?;
            if best.loss < last.loss * 0.5 {
                text.push_str(&format!("; the lowest was {} at step {}", number(best.loss), best.step));
            }
            text.push('.');
        }
    }
    Some(text)
}

fn held_out(report: &Report) -> Option<String> {
    let last = report.evaluations.last()?;
    Some(format!("Held-out loss {} after {} steps.", number(last.loss), last.step))
}

/// The held-out loss beside what others lose there: the best that can be, and the nearest rule that is beaten.
fn compared(report: &Report) -> Option<String> {
    let loss = report.evaluations.last()?.loss;
    if report.references.is_empty() || !loss.is_finite() {
        return None;
    }
    let best = report.references.iter().find(|r| r.best).map(|r| {
        format!("The best possible is {} ({}): the gap is {}.", number(r.loss), r.name, number(loss - r.loss))
    });
    let simpler = || report.references.iter().filter(|r| !r.best);
    let nearest = simpler().filter(|r| r.loss > loss).min_by(|a, b| a.loss.total_cmp(&b.loss));
    let rule = match nearest {
        Some(r) => Some(format!("It is below the loss of the rule “{}” ({}).", r.name, number(r.loss))),
        None => simpler().min_by(|a, b| (a.loss - loss).abs().total_cmp(&(b.loss - loss).abs())).map(|next| {
            format!("It beats none of the simpler rules; the nearest is “{}” ({}).", next.name, number(next.loss))
        }),
    };
    Some(best.into_iter().chain(rule).collect::<Vec<_>>().join(" ")).filter(|told| !told.is_empty())
}

/// The head with the highest score, what it had before, and how far ahead it is.
fn best_head(detector: &Detector) -> Option<String> {
    let (l, h, score) = argmax(&detector.after)?;
    let before = detector.before.get(l).and_then(|row| row.get(h));
    let was = before.filter(|v| v.is_finite()).map_or(String::new(), |v| format!(", was {v:.2}"));
    let name = &detector.name;
    let capital = name.chars().next().map_or(String::new(), |c| c.to_uppercase().chain(name.chars().skip(1)).collect());
    Some(format!("{capital}: highest at L{l}H{h}, {score:.2}{was}."))
}

/// Layer, head and value of the largest finite score; the first one if several are equal.
pub(crate) fn argmax(scores: &[Vec<f32>]) -> Option<(usize, usize, f32)> {
    let mut best: Option<(usize, usize, f32)> = None;
    for (l, row) in scores.iter().enumerate() {
        for (h, &v) in row.iter().enumerate() {
            if v.is_finite() && best.is_none_or(|b| v > b.2) {
                best = Some((l, h, v));
            }
        }
    }
    best
}

/// A loss or rate: three digits, and a power of ten where it is small or large.
pub(crate) fn number(v: f64) -> String {
    if !v.is_finite() {
        return v.to_string();
    }
    let size = v.abs();
    if v == 0.0 || (0.001..1e5).contains(&size) {
        let digits = if size >= 100.0 {
            1
        } else if size >= 1.0 {
            2
        } else {
            4
        };
        format!("{v:.digits$}")
    } else {
        format!("{v:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Evaluation, StepRow};

    fn detector(after: Vec<Vec<f32>>) -> Detector {
        Detector { name: "previous token".into(), after, ..Detector::default() }
    }

    #[test]
    fn the_verdict_follows_the_data() {
        let at = |step, loss| StepRow { step, loss, ..StepRow::default() };
        let mut report = Report {
            metrics: vec![at(0, 5.99), at(10, 1e-8)],
            evaluations: vec![Evaluation { step: 10, loss: 5.2e-8 }],
            detectors: vec![detector(vec![vec![0.1, 0.2], vec![0.9, 0.3]])],
            ..Report::default()
        };
        let text = sentences(&report).join(" ");
        assert!(text.contains("5.99 at step 0 → 1.0e-8 at step 10"), "{text}");
        assert!(text.contains("L1H0, 0.90") && text.contains("5.2e-8"), "{text}");

        report.detectors[0].after = vec![vec![f32::NAN, 0.2], vec![0.1, 0.3]];
        report.metrics.push(at(20, f64::NAN));
        let text = sentences(&report).join(" ");
        assert!(text.contains("L1H1, 0.30"), "{text}");
        assert!(text.contains("stopped being finite at step 20"), "{text}");
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert!(sentences(&Report::default()).is_empty());
        assert_eq!(argmax(&[vec![f32::NAN]]), None);
    }
}
