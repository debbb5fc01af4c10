//! Which options mean something for which kind of figure, and which values they can have.

use super::text::clean;
use super::{Figure, Kind};
use crate::ReportError;

const HEATMAP: u16 = 1;
const LINES: u16 = 2;
const SCATTER: u16 = 4;
const HISTOGRAM: u16 = 8;
const BOXES: u16 = 16;
const BARS: u16 = 32;
const PANELS: u16 = 64;
const FRAMES: u16 = 128;
const OWN: u16 = 256;
const AXES: u16 = LINES | SCATTER | HISTOGRAM | BOXES | BARS;

/// The kind as one bit, and in words.
fn kind(figure: &Figure) -> (u16, &'static str) {
    match figure.kind {
        Kind::Heatmap(_) => (HEATMAP, "a heatmap"),
        Kind::Lines(_) => (LINES, "a line figure"),
        Kind::Scatter(_) => (SCATTER, "a scatter figure"),
        Kind::Histogram(_) => (HISTOGRAM, "a histogram"),
        Kind::Boxes(_) => (BOXES, "a box figure"),
        Kind::Bars { .. } => (BARS, "a bar figure"),
        Kind::Panels(_) => (PANELS, "several panels"),
        Kind::Frames(_) => (FRAMES, "frames"),
        Kind::Own { .. } => (OWN, "own traces"),
    }
}

/// Refuses what the kind of figure would ignore, and values that cannot be.
pub(crate) fn check(figure: &Figure) -> Result<(), ReportError> {
    let (bit, kind) = kind(figure);
    let f = figure;
    let labels = |labels: &[String]| !labels.is_empty();
    // Option, whether it was given, the kinds that show it, and what to do instead.
    let options = [
        ("x", !f.x.is_empty(), AXES | HEATMAP, "name the axes of the figures or traces in it"),
        ("y", !f.y.is_empty(), AXES | HEATMAP, "name the axes of the figures or traces in it"),
        ("value", f.value.is_some(), HEATMAP | SCATTER, "name the vertical axis with `y`"),
        ("midpoint", f.midpoint.is_some(), HEATMAP | SCATTER, "it has no colours; `range` sets the ends of its axis"),
        ("colorscale", f.colorscale.is_some(), HEATMAP | SCATTER, "it has no colour map"),
        ("own_scales", f.own_scales, HEATMAP, "it has no small matrices"),
        ("stretched", f.stretched, HEATMAP, "it has no cells"),
        ("range", f.range.is_some(), AXES | HEATMAP, "set it for the figures or traces in it"),
        ("y_labels", labels(&f.y_labels), HEATMAP, "its vertical axis has numbers"),
        ("y_tokens", labels(&f.y_tokens), HEATMAP, "its vertical axis has numbers"),
        ("facets", labels(&f.facets), HEATMAP, "give each `Series` a name"),
        ("columns", f.columns.is_some(), HEATMAP | PANELS, "it has no small matrices"),
        ("x_labels", labels(&f.x_labels), HEATMAP | LINES, "labels of bars and boxes are given with their data"),
        ("x_tokens", labels(&f.x_tokens), HEATMAP | LINES, "labels of bars and boxes are given with their data"),
        ("text_auto", f.text_auto, HEATMAP, "it has no cells"),
        ("causal", f.causal, HEATMAP, "it has no cells"),
        ("mask", f.mask.is_some(), HEATMAP, "it has no cells"),
        ("noise", f.noise.is_some(), HEATMAP, "curves have `Series::spread`"),
        ("bins", f.bins.is_some(), HISTOGRAM, "only a histogram has bins"),
        ("density", f.density, HISTOGRAM, "only a histogram has bins"),
        ("log_x", f.log_x, LINES | SCATTER, "its horizontal axis is not one of free numbers"),
        ("log_y", f.log_y, AXES, "take the logarithm of its values"),
        ("diagonal", f.diagonal, LINES | SCATTER, "its axes are not of one kind"),
        ("rule", !f.rules.is_empty(), AXES, "it has no axis of values"),
        ("vrule", !f.upright_rules.is_empty(), LINES | SCATTER | HISTOGRAM, "its horizontal axis has no numbers"),
        ("below", !f.below.is_empty(), LINES, "write each figure by itself, or put them into `panels`"),
    ];
    if let Some((option, _, _, instead)) = options.into_iter().find(|(_, given, shown, _)| *given && shown & bit == 0) {
        return Err(error(figure, option, format!("it means nothing for {kind}; {instead}")));
    }
    values(figure)
}

fn values(figure: &Figure) -> Result<(), ReportError> {
    if let Some((a, b)) = figure.range {
        if !(a.is_finite() && b.is_finite() && a != b) {
            return Err(error(figure, "range", format!("got {a} to {b}, expected two finite, different numbers")));
        }
        if figure.log_y && a.min(b) <= 0.0 {
            let reason = format!("got {a} to {b}, expected numbers above 0, because the axis is logarithmic");
            return Err(error(figure, "range", reason));
        }
    }
    if let Some(m) = figure.midpoint.filter(|m| !m.is_finite()) {
        return Err(error(figure, "midpoint", format!("got {m}, expected a finite number")));
    }
    if figure.columns == Some(0) {
        return Err(error(figure, "columns", "got 0, expected 1 or more".into()));
    }
    if let Some(bins) = figure.bins.filter(|n| !(1..=1000).contains(n)) {
        return Err(error(figure, "bins", format!("got {bins}, expected 1 to 1000")));
    }
    if figure.range.is_some() && figure.own_scales {
        return Err(error(
            figure,
            "range",
            "own scales have the range of their own values; take one or the other".into(),
        ));
    }
    for (labels, tokens, option) in
        [(&figure.x_labels, &figure.x_tokens, "x_tokens"), (&figure.y_labels, &figure.y_tokens, "y_tokens")]
    {
        if !labels.is_empty() && !tokens.is_empty() {
            return Err(error(figure, option, "the same places have labels; take one or the other".into()));
        }
    }
    if let Kind::Scatter(clouds) = &figure.kind {
        let colored = clouds.iter().any(|c| !c.color.is_empty());
        let of_colors = [
            ("value", figure.value.is_some()),
            ("midpoint", figure.midpoint.is_some()),
            ("colorscale", figure.colorscale.is_some()),
        ];
        if let Some((option, _)) = of_colors.into_iter().find(|(_, given)| *given && !colored) {
            return Err(error(figure, option, "these points have no colours; give them with `Points::color`".into()));
        }
    }
    Ok(())
}

pub(crate) fn called(figure: &Figure) -> String {
    if figure.title.is_empty() { "a figure".into() } else { format!("the figure `{}`", clean(&figure.title)) }
}

pub(crate) fn shape_error(figure: &Figure, expected: &str, got: String) -> ReportError {
    ReportError::Shape { what: called(figure), expected: expected.into(), got }
}

pub(crate) fn error(figure: &Figure, option: &'static str, reason: String) -> ReportError {
    ReportError::Option { what: called(figure), option, reason }
}
