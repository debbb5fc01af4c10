//! What a run found, in sentences with a number, what chance gives, and a link to the evidence.
//!
//! Nothing here knows what a run should find: a head gets the name of a role only where its score stands out of
//! equal attention and of its own spread, and a model at chance gets none.

use super::{Detector, Finding, Report};
use crate::report::verdict::number;

/// How many standard deviations over sequences a score must lie above equal attention.
const SPREADS: f32 = 2.0;
/// How much of the way from equal attention to what an ideal head of the kind scores it must go.
const SHARE: f32 = 0.25;

/// A head and the role that its scores give it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Role<'a> {
    pub layer: usize,
    pub head: usize,
    pub detector: &'a Detector,
    pub score: f32,
}

/// Whether losses are what guessing gives: within a fiftieth of it, or above. A model that knows by heart what it was
/// trained on is not at chance, however much it loses on other data.
pub(crate) fn at_chance(report: &Report) -> bool {
    let Some(chance) = report.chance_loss else { return false };
    let losses = [report.evaluations.last().map(|e| e.loss), report.metrics.last().map(|m| m.loss)];
    let known: Vec<f64> = losses.into_iter().flatten().filter(|loss| loss.is_finite()).collect();
    !known.is_empty() && known.iter().all(|loss| *loss > 0.98 * chance)
}

/// The heads that have a role after training, the clearest first.
pub(crate) fn roles(report: &Report) -> Vec<Role<'_>> {
    let mut best: Vec<Role<'_>> = Vec::new();
    for detector in &report.detectors {
        let Some(uniform) = detector.uniform else { continue };
        for (layer, row) in detector.after.iter().enumerate() {
            for (head, &score) in row.iter().enumerate() {
                let spread = detector.spread.get(layer).and_then(|r| r.get(head)).copied().unwrap_or(0.0);
                let role = Role { layer, head, detector, score };
                let clear = score - uniform > SPREADS * spread && above(&role) > SHARE;
                if !clear || !score.is_finite() {
                    continue;
                }
                match best.iter_mut().find(|r| (r.layer, r.head) == (layer, head)) {
                    Some(other) if above(&role) > above(other) => *other = role,
                    Some(_) => {}
                    None => best.push(role),
                }
            }
        }
    }
    best.sort_by(|a, b| above(b).total_cmp(&above(a)).then((a.layer, a.head).cmp(&(b.layer, b.head))));
    best
}

/// How far a score lies above equal attention, 1 for all of the way to an ideal head's.
fn above(role: &Role<'_>) -> f32 {
    let uniform = role.detector.uniform.unwrap_or(0.0);
    let way = role.detector.ideal.unwrap_or(1.0) - uniform;
    // Where equal attention is all that can be had, nothing stands out of it.
    if way > 1e-3 { (role.score - uniform) / way } else { 0.0 }
}

/// Which heads do what; then what the caller found, such as by patching and ablation.
pub(crate) fn all(report: &Report) -> Vec<Finding> {
    if at_chance(report) {
        return Vec::new();
    }
    let roles = roles(report);
    let mut out = Vec::new();
    for detector in &report.detectors {
        let mine: Vec<&Role<'_>> = roles.iter().filter(|r| std::ptr::eq(r.detector, detector)).collect();
        let Some(first) = mine.first() else { continue };
        let shown: Vec<String> =
            mine.iter().take(6).map(|r| format!("L{}H{} ({})", r.layer, r.head, with_spread(r))).collect();
        let more = if mine.len() > 6 { format!(" and {} more", mine.len() - 6) } else { String::new() };
        let before = at(&detector.before, first)
            .map_or(String::new(), |v| format!(", and L{}H{} had {v:.2} before training", first.layer, first.head));
        let uniform = detector.uniform.map_or(String::new(), |u| format!(": equal attention would give {u:.2}"));
        out.push(Finding {
            text: format!("{}{more} {}{uniform}{before}.", shown.join(", "), does(&detector.name, mine.len())),
            evidence: format!("#L={}&H={}", first.layer, first.head),
            since: since(report, first),
        });
    }
    if out.is_empty() && report.detectors.iter().any(|d| d.uniform.is_some()) {
        out.push(Finding {
            text:
                "No head has a known role: no score goes a quarter of the way from equal attention to what such a head \
                   would have, clear of its spread over the sequences."
                    .into(),
            evidence: "#detectors".into(),
            since: None,
        });
    }
    out.extend(report.findings.iter().cloned());
    out
}

/// What heads of a kind do, in words.
fn does(kind: &str, heads: usize) -> String {
    let a = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    match (Offset::of(kind), heads) {
        (Some(_), 1) => format!("attends to the {kind}"),
        (Some(_), _) => format!("attend to the {kind}"),
        (None, 1) => format!("is {a} {kind} head"),
        (None, _) => format!("are {kind} heads"),
    }
}

/// A score, and how much it differs between sequences.
fn with_spread(role: &Role<'_>) -> String {
    with_error(f64::from(role.score), at(&role.detector.spread, role).map(f64::from))
}

/// A number as a sentence tells it, with two digits behind the point, never "-0.00".
pub fn two_digits(v: f64) -> String {
    let text = format!("{v:.2}");
    if text == "-0.00" { "0.00".into() } else { text }
}

/// The same with its error, if that is known and more than 0.
pub fn with_error(v: f64, error: Option<f64>) -> String {
    match error {
        Some(error) if error >= 0.005 => format!("{} ± {error:.2}", two_digits(v)),
        // What would be 0.00 is not: it is only less than two digits tell.
        Some(error) if error > 0.0 => format!("{} ± <0.01", two_digits(v)),
        _ => two_digits(v),
    }
}

fn at(scores: &[Vec<f32>], role: &Role<'_>) -> Option<f32> {
    scores.get(role.layer)?.get(role.head).copied().filter(|v| v.is_finite())
}

/// The first snapshot at which a head had half of its last score, where the mean pattern tells the score.
fn since(report: &Report, role: &Role<'_>) -> Option<usize> {
    let offset = Offset::of(&role.detector.name)?;
    let series = over_training(report, offset, role.layer, role.head);
    let (_, last) = *series.last()?;
    series.into_iter().find(|(_, v)| *v >= 0.5 * last).map(|(step, _)| step)
}

/// Scores that a mean pattern tells exactly, because they ask for the same cells in every sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Offset {
    Back(usize),
    First,
}

impl Offset {
    pub(crate) fn of(detector: &str) -> Option<Offset> {
        match detector {
            "previous token" => Some(Offset::Back(1)),
            "current token" => Some(Offset::Back(0)),
            "first token" => Some(Offset::First),
            _ => None,
        }
    }
}

/// Step and share of attention at an offset, for each snapshot.
pub(crate) fn over_training(report: &Report, offset: Offset, layer: usize, head: usize) -> Vec<(usize, f64)> {
    let score = |pattern: &crate::Array| -> Option<f64> {
        let [heads, dest, src] = *pattern.shape() else { return None };
        let cell = |d: usize, s: usize| f64::from(pattern.data()[(head * dest + d) * src + s]);
        if head >= heads {
            return None;
        }
        let sum: f64 = match offset {
            Offset::First => (0..dest).map(|d| cell(d, 0)).sum(),
            Offset::Back(k) => (k..dest).filter(|d| d - k < src).map(|d| cell(d, d - k)).sum(),
        };
        Some(sum / dest as f64)
    };
    let of = |s: &super::Snapshot| s.layers.get(layer).and_then(score).map(|v| (s.step, v));
    report.snapshots.iter().filter_map(of).collect()
}

/// The sentence on top of a page whose model learned nothing.
pub(crate) fn chance_warning(report: &Report) -> Option<String> {
    let loss = report.evaluations.last().map(|e| e.loss).or(report.metrics.last().map(|m| m.loss))?;
    let chance = report.chance_loss.filter(|_| at_chance(report))?;
    Some(format!(
        "The model is at chance: its loss is {}, guessing gives {}. What follows describes noise, and no head is given a role.",
        number(loss),
        number(chance)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Evaluation, StepRow};

    fn detector(name: &str, after: Vec<f32>, uniform: f32, spread: f32) -> Detector {
        let spread = vec![vec![spread; after.len()]];
        Detector { name: name.into(), after: vec![after], uniform: Some(uniform), spread, ..Detector::default() }
    }

    fn learned(detectors: Vec<Detector>) -> Report {
        Report {
            metrics: vec![StepRow { step: 9, loss: 0.1, ..StepRow::default() }],
            chance_loss: Some(4.0),
            detectors,
            ..Report::default()
        }
    }

    #[test]
    fn heads_get_the_role_that_stands_out_most() {
        let previous = detector("previous token", vec![0.9, 0.1, 0.5, 0.2], 0.1, 0.01);
        let first = detector("first token", vec![0.05, 0.12, 0.8, 0.2], 0.1, 0.01);
        let report = learned(vec![previous, first]);
        let found: Vec<_> = roles(&report).into_iter().map(|r| (r.head, r.detector.name.as_str())).collect();
        assert_eq!(found, [(0, "previous token"), (2, "first token")], "head 1 looks alike everywhere, head 3 hardly");
        let text = all(&report)[0].text.clone();
        assert!(
            text.starts_with("L0H0 (0.90 ± 0.01) attends to the previous token: equal attention would give 0.10"),
            "{text}"
        );
    }

    /// On sequences that say everything twice an induction head has something to look at in half of the rows.
    #[test]
    fn roles_are_measured_by_what_can_be_had() {
        let mut induction = detector("induction", vec![0.3], 0.05, 0.02);
        induction.ideal = Some(0.5);
        assert_eq!(roles(&learned(vec![induction.clone()])).len(), 1);
        induction.after = vec![vec![0.15]];
        assert!(roles(&learned(vec![induction.clone()])).is_empty());
        induction.ideal = induction.uniform;
        induction.after = vec![vec![0.9]];
        assert!(roles(&learned(vec![induction])).is_empty(), "nothing can be had");
    }

    #[test]
    fn spread_and_chance_silence() {
        let noisy = learned(vec![detector("previous token", vec![0.5], 0.1, 0.3)]);
        assert!(roles(&noisy).is_empty());
        assert!(all(&noisy)[0].text.starts_with("No head has a known role"));
        let mut chance = learned(vec![detector("previous token", vec![0.9], 0.1, 0.01)]);
        chance.evaluations = vec![Evaluation { step: 9, loss: 4.01 }];
        assert_eq!(chance_warning(&chance), None, "it knows by heart what it was trained on");
        chance.metrics[0].loss = 3.99;
        assert!(all(&chance).is_empty());
        assert!(chance_warning(&chance).unwrap().contains("at chance"));
        assert_eq!(chance_warning(&noisy), None);
    }
}
