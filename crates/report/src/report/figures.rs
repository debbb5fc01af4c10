//! The report's figures: the same ones for the page and for the folder of pictures.

use super::verdict::number;
use super::{Report, Snapshot, findings};
use crate::document::slug;
use crate::{Array, Figure, ReportError, Series, imshow, line};

pub(crate) fn all(report: &Report) -> Result<Vec<(String, Figure)>, ReportError> {
    let mut out = Vec::new();
    out.extend(mean_patterns(report)?);
    for (name, snapshot) in ends(report) {
        for (l, layer) in snapshot.layers.iter().enumerate() {
            out.push((format!("heads-layer-{l}-{name}"), heads(layer, l, snapshot, report)));
        }
    }
    out.extend(training(report).map(|f| ("training".into(), f)));
    out.extend(detectors(report)?.map(|f| ("head-detectors".into(), f)));
    for section in &report.sections {
        for (i, figure) in section.figures.iter().enumerate() {
            let name = slug(&format!("{} {}", section.title, figure.title), "section");
            out.push((name, figure.clone().or_title(&section.title, i)));
        }
    }
    unique(&mut out);
    Ok(out)
}

/// Equal names would overwrite each other's files.
pub(super) fn unique(figures: &mut [(String, Figure)]) {
    let mut seen = std::collections::HashSet::new();
    for (name, _) in figures {
        let base = name.clone();
        let mut n = 2;
        while !seen.insert(name.clone()) {
            *name = format!("{base}-{n}");
            n += 1;
        }
    }
}

impl Figure {
    fn or_title(self, section: &str, index: usize) -> Self {
        if self.title.is_empty() && !section.is_empty() {
            let number = if index == 0 { String::new() } else { format!(" ({})", index + 1) };
            self.title(format!("{section}{number}"))
        } else {
            self
        }
    }
}

/// The first and, if there are more, the last snapshot with names for files.
fn ends(report: &Report) -> Vec<(&'static str, &Snapshot)> {
    match report.snapshots.as_slice() {
        [] => Vec::new(),
        [only] => vec![("only", only)],
        [first, .., last] => vec![("before", first), ("after", last)],
    }
}

fn label(snapshot: &Snapshot) -> String {
    if snapshot.label.is_empty() { format!("step {}", snapshot.step) } else { snapshot.label.clone() }
}

/// One figure for each layer: its mean pattern before and after, on one scale.
pub(crate) fn mean_patterns(report: &Report) -> Result<Vec<(String, Figure)>, ReportError> {
    let ends = ends(report);
    let layers = ends.first().map_or(0, |e| e.1.layers.len());
    let mut out = Vec::new();
    for l in 0..layers {
        let mut data = Vec::new();
        let mut shape = vec![ends.len()];
        let mut largest = Vec::new();
        let mut brightest = 0.0f32;
        for (i, (_, snapshot)) in ends.iter().enumerate() {
            let mean = snapshot.layers[l].mean_first()?;
            largest.push(sharpest(&mean).map(|what| format!("{}: {what}", label(snapshot))));
            if i == 0 {
                shape.extend(mean.shape());
            }
            brightest = brightest.max(brightest_later(&mean));
            data.extend_from_slice(mean.data());
        }
        let source = &report.snapshot_source;
        let caption = format!(
            "Mean over the heads of layer {l}{}{source}. {}. The colours end at {brightest:.2}, the most that a position \
             after the first ones gives; the first have few to look at and reach 1.",
            if source.is_empty() { "" } else { ", " },
            largest.into_iter().flatten().collect::<Vec<_>>().join("; ")
        );
        let figure = attention(imshow(Array::from_vec(shape, data)?), report)
            .title(format!("Layer {l}: mean attention pattern"))
            .caption(caption)
            .facets(ends.iter().map(|e| label(e.1)))
            .columns(2)
            .range(0.0, f64::from(brightest));
        out.push((format!("attention-mean-layer-{l}"), figure));
    }
    Ok(out)
}

/// The largest value of the rows after the first eighth: the first row always holds
/// a 1 in a causal pattern, and a map that ends there leaves all others pale.
fn brightest_later(pattern: &Array) -> f32 {
    let [dest, src] = *pattern.shape() else { return 1.0 };
    let from = dest.div_ceil(8).min(dest - 1);
    let later = pattern.data()[from * src..].iter().filter(|v| v.is_finite());
    let most = later.fold(0.0f32, |a, &v| a.max(v));
    if most > 0.0 { most } else { 1.0 }
}

/// Where a pattern looks most, by distance or by source position: whichever is sharper.
fn sharpest(pattern: &Array) -> Option<String> {
    let (k, by_offset) = brightest_offset(pattern)?;
    match brightest_source(pattern) {
        Some((s, by_source)) if by_source > by_offset => {
            Some(format!("most at position {s} ({by_source:.2} on average)"))
        }
        _ => Some(format!("largest on average at {k} back ({by_offset:.2})")),
    }
}

/// The source with the largest mean over the destinations that see it, of those that at least a quarter see.
fn brightest_source(pattern: &Array) -> Option<(usize, f64)> {
    let [dest, src] = *pattern.shape() else { return None };
    let mean = |s: usize| {
        let cells: Vec<f64> =
            (s + 1..dest).map(|d| f64::from(pattern.data()[d * src + s])).filter(|v| v.is_finite()).collect();
        (cells.len() * 4 >= dest).then(|| (s, cells.iter().sum::<f64>() / cells.len() as f64))
    };
    (0..src).filter_map(mean).reduce(|a, b| if b.1 > a.1 { b } else { a })
}

/// The offset k with the largest mean of A[i, i-k] over i ≥ k.
fn brightest_offset(pattern: &Array) -> Option<(usize, f64)> {
    let [dest, src] = *pattern.shape() else { return None };
    (0..dest.min(src))
        .filter_map(|k| {
            let cells: Vec<f64> = (k..dest)
                .filter(|i| i - k < src)
                .map(|i| f64::from(pattern.data()[i * src + i - k]))
                .filter(|v| v.is_finite())
                .collect();
            // A mean over a few cells at the far end says little of the head.
            let enough = cells.len() * 4 >= dest.min(src);
            enough.then(|| (k, cells.iter().sum::<f64>() / cells.len() as f64))
        })
        .filter(|(_, v)| v.is_finite())
        .reduce(|a, b| if b.1 > a.1 { b } else { a })
}

fn attention(figure: Figure, report: &Report) -> Figure {
    let fits = |n: usize| report.tokens.len() == n && n <= 64;
    let figure = figure.x("source position").y("destination position").value("attention");
    match report.snapshots.first().and_then(|s| s.layers.first()).map(Array::shape) {
        Some(&[_, dest, src]) if fits(dest) && fits(src) => {
            figure.x("source").y("destination").x_tokens(&report.tokens).y_tokens(&report.tokens)
        }
        _ => figure,
    }
}

fn heads(layer: &Array, l: usize, snapshot: &Snapshot, report: &Report) -> Figure {
    let count = layer.shape()[0];
    let figure = imshow(layer).x("source position").y("destination position").value("attention");
    figure
        .title(format!("Layer {l}, every head, {}", label(snapshot)))
        .caption(report.snapshot_source.clone())
        .facets((0..count).map(|h| format!("L{l}H{h}")))
        .columns(count.min(4))
        .range(0.0, 1.0)
}

pub(crate) fn training(report: &Report) -> Option<Figure> {
    if report.metrics.is_empty() {
        return None;
    }
    let curve = |values: &dyn Fn(&super::StepRow) -> Option<f64>, name: &str| {
        let points: Vec<(f64, f64)> =
            report.metrics.iter().filter_map(|m| values(m).map(|v| (m.step as f64, v))).collect();
        let (x, y): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
        (!y.is_empty()).then(|| Series::new(name, &y).x(&x))
    };
    let mut losses = vec![curve(&|m| Some(m.loss), "loss")?];
    if !report.evaluations.is_empty() {
        let steps: Vec<usize> = report.evaluations.iter().map(|e| e.step).collect();
        let values: Vec<f64> = report.evaluations.iter().map(|e| e.loss).collect();
        losses.push(Series::new("held out", &values).x(&steps).markers(true));
    }
    let mut figure = line(losses).size(1060, 520).x("step").y("loss").log_y();
    if let Some(chance) = report.chance_loss {
        figure = figure.rule(chance, format!("guessing, {}", number(chance)));
    }
    // A rule at 0 has no place on a scale of logarithms.
    for reference in report.references.iter().filter(|r| r.loss > 0.0) {
        figure = figure.rule(reference.loss, &reference.name);
    }
    let roles = roles_over_training(report);
    let shown = if roles.is_some() { ", roles of heads" } else { "" };
    if let Some(roles) = roles {
        figure = figure.below(roles).size(1060, 640).caption(
            "The share of attention by which the clearest heads have their role, by the snapshots of the run. The upright \
             line is the snapshot that is shown below; a click chooses the nearest one.",
        );
    }
    if let Some(lr) = curve(&|m| m.lr, "learning rate") {
        figure = figure.below(line(lr).y("learning rate").x("step"));
    }
    if let Some(norm) = curve(&|m| m.grad_norm, "gradient norm") {
        figure = figure.below(line(norm).y("gradient norm").x("step").log_y());
    }
    let rest = if report.metrics.iter().any(|m| m.lr.is_some() || m.grad_norm.is_some()) {
        ", learning rate and gradient norm"
    } else {
        ""
    };
    Some(figure.title(format!("Loss{shown}{rest}")))
}

/// The most heads whose role is drawn over training.
const MOST_ROLES: usize = 8;

/// How the clearest heads came to their roles, by the snapshots; nothing without at least three of them.
fn roles_over_training(report: &Report) -> Option<Figure> {
    if report.snapshots.len() < 3 || findings::at_chance(report) {
        return None;
    }
    let mut curves = Vec::new();
    let roles = findings::roles(report);
    let of_kind = |kind: &str| roles.iter().take(MOST_ROLES).all(|r| r.detector.name == kind);
    let alike = roles.first().is_some_and(|r| of_kind(&r.detector.name));
    for role in roles.iter().take(MOST_ROLES) {
        let Some(offset) = findings::Offset::of(&role.detector.name) else { continue };
        // The axis tells the kind where all are of one.
        let kind = if alike { String::new() } else { format!(": {}", role.detector.name) };
        let points = findings::over_training(report, offset, role.layer, role.head);
        let (x, y): (Vec<f64>, Vec<f64>) = points.into_iter().map(|(step, v)| (step as f64, v)).unzip();
        curves.push(Series::new(format!("L{}H{}{kind}", role.layer, role.head), &y).x(&x).markers(true));
    }
    let kind = if alike { roles[0].detector.name.as_str() } else { "attention" };
    (!curves.is_empty()).then(|| line(curves).x("step").y(kind).range(0.0, 1.0))
}

/// Scores of all heads, one small matrix for each detector.
pub(crate) fn detectors(report: &Report) -> Result<Option<Figure>, ReportError> {
    let shape = |d: &super::Detector| (d.after.len(), d.after.first().map_or(0, Vec::len));
    let Some(first) = report.detectors.first().map(shape) else { return Ok(None) };
    let even = report.detectors.iter().all(|d| shape(d) == first && d.after.iter().all(|row| row.len() == first.1));
    if !even || first.0 * first.1 == 0 {
        // Layers with different numbers of heads make no matrix; the table shows them.
        return Ok(None);
    }
    let data = report.detectors.iter().flat_map(|d| d.after.iter().flatten()).copied().collect();
    let count = report.detectors.len();
    let array = Array::from_vec([count, first.0, first.1], data)?;
    // Up to five side by side.
    let high = (14 * first.0).clamp(70, 360);
    Ok(Some(
        imshow(array)
            .title("Every head after training")
            .x("head")
            .y("layer")
            .value("score")
            .range(0.0, 1.0)
            .facets(report.detectors.iter().map(|d| d.name.clone()))
            .columns(count.min(5))
            .stretched()
            .size(1060, ((high + 46) * count.div_ceil(5)) as u32 + 50),
    ))
}
