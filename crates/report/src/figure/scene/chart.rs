//! Marks on a pair of axes: curves, points, bars and boxes.

use super::super::options::{self, error, shape_error};
use super::super::text::{clean, token_text};
use super::heatmap::{about, asked_range};
use super::statistics::{BoxStats, bins, box_stats};
use crate::array::finite_range;
use crate::figure::{Kind, Points, Series};
use crate::{Colorscale, Figure, ReportError};

/// One or more panels below each other, on one horizontal axis.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub x: Axis,
    pub panels: Vec<Panel>,
    /// What the colours of points mean.
    pub colors: Option<ColorBar>,
    /// Whether places have names that belong to the data, as with bars: then nothing lies between them.
    pub fixed_places: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct ColorBar {
    pub map: Colorscale,
    pub range: (f64, f64),
    pub name: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Panel {
    pub y: Axis,
    pub marks: Vec<Mark>,
    /// Horizontal and vertical rules with their names.
    pub rules: Vec<(f64, String)>,
    pub upright_rules: Vec<(f64, String)>,
    /// The line x = y.
    pub diagonal: bool,
}

/// Where the name of a horizontal rule stands: at the left or right end, below or above its line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Corner {
    pub left: bool,
    pub below: bool,
}

impl Panel {
    /// A place for the name of each horizontal rule, on a panel of this width and height in pixels: the first of four
    /// that lies over no other name, rule or curve, or the one that lies over least. `wide` is how wide a name is.
    pub fn corners(&self, x: &Axis, (width, height): (f64, f64), wide: impl Fn(&str) -> f64) -> Vec<Corner> {
        const LINE: f64 = 15.0;
        let down = |y: f64| height * (1.0 - self.y.at(y));
        // Points of curves, and the middles between them.
        let mut drawn: Vec<(f64, f64)> = Vec::new();
        for mark in self.marks.iter().filter(|m| matches!(m.kind, MarkKind::Curve { .. })) {
            let points: Vec<_> = mark.x.iter().zip(&mark.y).map(|(a, b)| (width * x.at(*a), down(*b))).collect();
            drawn.extend(points.windows(2).map(|p| ((p[0].0 + p[1].0) / 2.0, (p[0].1 + p[1].1) / 2.0)));
            drawn.extend(points);
        }
        let mut taken: Vec<[f64; 4]> = Vec::new();
        let mut place = |(i, (value, name)): (usize, &(f64, String))| {
            let (line, long) = (down(*value), wide(name));
            let frame = |c: &Corner| {
                let from = if c.left { 0.0 } else { width - long };
                let top = if c.below { line + 1.0 } else { line - LINE };
                [from, from + long, top, top + LINE - 1.0]
            };
            let costs = |c: &Corner| {
                let own = frame(c);
                let within = |v: f64, from: f64, to: f64| v > from && v < to;
                let meets = |o: &&[f64; 4]| own[0] < o[1] && o[0] < own[1] && own[2] < o[3] && o[2] < own[3];
                let others =
                    self.rules.iter().enumerate().filter(|(k, r)| *k != i && within(down(r.0), own[2], own[3]));
                let over = drawn.iter().filter(|p| within(p.0, own[0], own[1]) && within(p.1, own[2], own[3])).count();
                let outside = own[2] < -LINE || own[3] > height;
                over + 100 * others.count()
                    + 10_000 * taken.iter().filter(meets).count()
                    + 10_000 * usize::from(outside)
            };
            let all = [(false, false), (false, true), (true, false), (true, true)];
            let best = all.map(|(left, below)| Corner { left, below }).into_iter().min_by_key(costs);
            let best = best.unwrap_or(Corner { left: false, below: false });
            taken.push(frame(&best));
            best
        };
        self.rules.iter().enumerate().map(&mut place).collect()
    }
}

/// `range` is in powers of ten if the scale is logarithmic.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub name: String,
    pub scale: Scale,
    pub range: (f64, f64),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scale {
    Linear,
    Log,
    /// Names of the places 0, 1, 2, …
    Names(Vec<String>),
}

impl Axis {
    /// Where a value lies, 0 to 1 inside the range.
    pub fn at(&self, v: f64) -> f64 {
        let v = if self.scale == Scale::Log { v.log10() } else { v };
        (v - self.range.0) / (self.range.1 - self.range.0)
    }
}

/// Something drawn in one colour.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub name: String,
    /// The number of its colour.
    pub tone: usize,
    /// Values that cannot be shown are NaN.
    pub x: Vec<f64>,
    pub y: Vec<f64>,
    pub kind: MarkKind,
}

/// The lower and the upper end at each value.
pub(crate) type Ends = (Vec<f64>, Vec<f64>);

#[derive(Debug, Clone)]
pub(crate) enum MarkKind {
    Curve {
        markers: bool,
        band: Option<Ends>,
    },
    Points {
        color: Vec<f64>,
        size: Vec<f64>,
        names: Vec<String>,
    },
    /// Bars from zero (or the axis's end) of this width; overlaid ones are seen through. A thin line between the two
    /// ends of `band` says how exact each is.
    Bars {
        width: f64,
        overlaid: bool,
        band: Option<Ends>,
        texts: Vec<String>,
    },
    /// One box at `x[0]`.
    Box(BoxStats),
}

impl Mark {
    /// Every value that must lie inside the vertical axis.
    fn heights(&self) -> impl Iterator<Item = f64> + '_ {
        let band = match &self.kind {
            MarkKind::Curve { band: Some((low, high)), .. } | MarkKind::Bars { band: Some((low, high)), .. } => {
                Some(low.iter().chain(high))
            }
            _ => None,
        };
        self.y.iter().chain(band.into_iter().flatten()).copied()
    }
}

/// What could not be shown, counted for the notes.
#[derive(Default)]
struct Lost {
    /// Not positive on a logarithmic axis.
    logs: usize,
    /// Not finite.
    gaps: usize,
}

impl Lost {
    fn keep(&mut self, v: f64, log: bool) -> f64 {
        if !v.is_finite() {
            self.gaps += 1;
            f64::NAN
        } else if log && v <= 0.0 {
            self.logs += 1;
            f64::NAN
        } else {
            v
        }
    }

    fn note(&self, name: &str, notes: &mut Vec<String>) {
        let of = if name.is_empty() { String::new() } else { format!(" of {}", clean(name)) };
        let values = |n: usize| if n == 1 { "1 value".to_string() } else { format!("{n} values") };
        let is = |n: usize| if n == 1 { "is" } else { "are" };
        if self.logs > 0 {
            let (n, is) = (values(self.logs), is(self.logs));
            notes.push(format!("{n}{of} {is} zero or negative and left out of the logarithmic axis"));
        }
        if self.gaps > 0 {
            let (n, is) = (values(self.gaps), is(self.gaps));
            notes.push(format!("{n}{of} {is} not finite (NaN or infinite) and left out"));
        }
    }
}

pub(super) fn lines(figure: &Figure, notes: &mut Vec<String>) -> Result<Chart, ReportError> {
    let parts = stacked(figure);
    let log_x = parts.iter().any(|f| f.log_x);
    let mut panels = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let Kind::Lines(series) = &part.kind else {
            return Err(shape_error(figure, "only line figures one below the other", "another kind of figure".into()));
        };
        if i > 0 {
            options::check(part)?;
        }
        let of_the_first =
            [("title", !part.title.is_empty()), ("caption", !part.caption.is_empty()), ("size", part.size.is_some())];
        if let Some((option, _)) = of_the_first.into_iter().find(|(_, given)| *given && i > 0) {
            let reason = "it belongs to the first of several figures one below the other".into();
            return Err(error(figure, option, reason));
        }
        let mut lost = Lost::default();
        let alone = series.len() == 1 && parts.len() > 1;
        let marks = series.iter().enumerate().map(|(k, s)| curve(part, s, if alone { i } else { k }, log_x, &mut lost));
        let marks = marks.collect::<Result<Vec<_>, _>>()?;
        lost.note(&part.y, notes);
        panels.push(panel(part, marks, log_x, notes));
    }
    let names: Vec<_> = parts.iter().map(|f| &f.x).filter(|x| !x.is_empty()).collect();
    let name = shared(figure, "x", &names)?.map_or_else(String::new, |x| clean(x));
    let labels: Vec<_> = parts.iter().map(|f| &f.x_labels).filter(|l| !l.is_empty()).collect();
    let tokens: Vec<_> = parts.iter().map(|f| &f.x_tokens).filter(|l| !l.is_empty()).collect();
    let texts = match (shared(figure, "x_labels", &labels)?, shared(figure, "x_tokens", &tokens)?) {
        (Some(_), Some(_)) => {
            return Err(error(figure, "x_tokens", "the same places have labels; take one or the other".into()));
        }
        (Some(labels), None) => Some(("x_labels", labels.iter().map(|s| clean(s)).collect::<Vec<_>>())),
        (None, tokens) => tokens.map(|t| ("x_tokens", t.iter().map(|s| token_text(s)).collect())),
    };
    let mut scale = if log_x { Scale::Log } else { Scale::Linear };
    if let Some((option, texts)) = texts {
        let placed = parts.iter().any(|f| matches!(&f.kind, Kind::Lines(s) if s.iter().any(|s| !s.x.is_empty())));
        if placed || log_x {
            let reason = "the positions have numbers from `Series::x` or `log_x`; take one or the other".into();
            return Err(error(figure, option, reason));
        }
        let longest = panels.iter().flat_map(|p| &p.marks).map(|s| s.y.len()).max().unwrap_or(0);
        if texts.len() != longest {
            let expected = format!("{longest} labels, one for each value of the longest curve");
            return Err(shape_error(figure, &expected, format!("{} labels", texts.len())));
        }
        scale = Scale::Names(texts);
    }
    let marks = || panels.iter().flat_map(|p| &p.marks);
    // A few points are drawn as dots, which the frame should not cut.
    let air = if marks().all(|s| s.x.len() <= 40) { 0.015 } else { 0.0 };
    let rules = panels.iter().flat_map(|p| p.upright_rules.iter().map(|r| r.0));
    let range = spread(marks().flat_map(|m| m.x.iter().copied()).chain(rules), scale == Scale::Log, air, 0.5);
    Ok(Chart { x: Axis { name, scale, range }, panels, colors: None, fixed_places: false })
}

/// A figure and all below it, from the top.
fn stacked(figure: &Figure) -> Vec<&Figure> {
    std::iter::once(figure).chain(figure.below.iter().flat_map(stacked)).collect()
}

/// What figures with one horizontal axis say of it: those that say something agree.
fn shared<'a, T: PartialEq>(
    figure: &Figure,
    option: &'static str,
    said: &[&'a T],
) -> Result<Option<&'a T>, ReportError> {
    match said.iter().all(|other| Some(other) == said.first()) {
        true => Ok(said.first().copied()),
        false => {
            let reason = "figures one below the other share it, and two of them differ".into();
            Err(error(figure, option, reason))
        }
    }
}

fn curve(figure: &Figure, s: &Series, tone: usize, log_x: bool, lost: &mut Lost) -> Result<Mark, ReportError> {
    let n = s.y.len();
    let what = || clean(&s.name);
    if !s.x.is_empty() && s.x.len() != n {
        let expected = format!("{n} positions, one for each value of `{}`", what());
        return Err(shape_error(figure, &expected, format!("{} positions", s.x.len())));
    }
    let band = band(figure, s)?;
    let x: Vec<f64> = if s.x.is_empty() { (0..n).map(|i| i as f64).collect() } else { s.x.clone() };
    let x: Vec<f64> = x.into_iter().map(|v| lost.keep(v, log_x)).collect();
    let y = s.y.iter().map(|&v| lost.keep(v, figure.log_y)).collect();
    let markers = s.markers.unwrap_or(n <= 40);
    Ok(Mark { name: clean(&s.name), tone, x, y, kind: MarkKind::Curve { markers, band } })
}

/// The lower and upper ends around the values of a series, if it has them.
fn band(figure: &Figure, s: &Series) -> Result<Option<Ends>, ReportError> {
    let ((low, high), n) = (&s.band, s.y.len());
    let banded = !low.is_empty() || !high.is_empty();
    if banded && (low.len() != n || high.len() != n) {
        let expected = format!("{n} lower and upper ends, one for each value of `{}`", clean(&s.name));
        return Err(shape_error(figure, &expected, format!("{} and {}", low.len(), high.len())));
    }
    // On a logarithmic axis a band may reach below what can be shown: it then ends at its value.
    let end = |values: &[f64]| -> Vec<f64> {
        let shown = |(v, y): (&f64, &f64)| if !v.is_finite() || (figure.log_y && *v <= 0.0) { *y } else { *v };
        values.iter().zip(&s.y).map(shown).collect()
    };
    Ok(banded.then(|| (end(low), end(high))))
}

pub(super) fn scatter(figure: &Figure, clouds: &[Points], notes: &mut Vec<String>) -> Result<Chart, ReportError> {
    let mut lost = Lost::default();
    let mut marks = Vec::new();
    for (tone, c) in clouds.iter().enumerate() {
        let n = c.x.len();
        let lengths = [
            ("vertical positions", c.y.len(), true),
            ("colours", c.color.len(), false),
            ("sizes", c.size.len(), false),
            ("names", c.names.len(), false),
        ];
        if let Some((what, got, _)) = lengths.into_iter().find(|(_, len, always)| *len != n && (*always || *len > 0)) {
            let expected = format!("{n} {what}, one for each point of `{}`", clean(&c.name));
            return Err(shape_error(figure, &expected, format!("{got} {what}")));
        }
        if let Some(bad) = c.size.iter().find(|v| v.is_nan() || **v < 0.0) {
            return Err(shape_error(figure, "sizes of 0 or more", bad.to_string()));
        }
        let x = c.x.iter().map(|&v| lost.keep(v, figure.log_x)).collect();
        let y = c.y.iter().map(|&v| lost.keep(v, figure.log_y)).collect();
        let names = c.names.iter().map(|s| clean(s)).collect();
        let kind = MarkKind::Points { color: c.color.clone(), size: c.size.clone(), names };
        marks.push(Mark { name: clean(&c.name), tone, x, y, kind });
    }
    lost.note(&figure.y, notes);
    let colored = finite_range(clouds.iter().flat_map(|c| c.color.iter().copied()));
    let colors = clouds.iter().any(|c| !c.color.is_empty()).then(|| {
        let (lo, hi) = colored.unwrap_or((0.0, 1.0));
        let (lo, hi) = figure.midpoint.map_or((lo, hi), |m| about(m, lo, hi));
        // White points would not be seen, so values of one sign have a map without white.
        let map = if figure.midpoint.is_some() { Colorscale::RdBu } else { Colorscale::Viridis };
        ColorBar {
            map: figure.colorscale.unwrap_or(map),
            range: if hi > lo { (lo, hi) } else { (lo, lo + 1.0) },
            name: clean(figure.value.as_deref().unwrap_or("value")),
        }
    });
    // Each mark has the largest size of all clouds as its measure.
    let largest = clouds.iter().flat_map(|c| c.size.iter().copied()).fold(0.0, f64::max);
    for mark in &mut marks {
        if let MarkKind::Points { size, .. } = &mut mark.kind {
            size.iter_mut().for_each(|v| *v = 4.0 + 18.0 * (*v / largest.max(f64::MIN_POSITIVE)).sqrt());
        }
    }
    let scale = if figure.log_x { Scale::Log } else { Scale::Linear };
    let panel = panel(figure, marks, figure.log_x, notes);
    let rules = panel.upright_rules.iter().map(|r| r.0);
    let all = panel.marks.iter().flat_map(|m| m.x.iter().copied()).chain(rules);
    let range = spread(all, figure.log_x, 0.05, 0.5);
    Ok(Chart { x: Axis { name: clean(&figure.x), scale, range }, panels: vec![panel], colors, fixed_places: false })
}

pub(super) fn histogram(figure: &Figure, samples: &[Series], notes: &mut Vec<String>) -> Result<Chart, ReportError> {
    samples_only(figure, samples)?;
    let mut lost = Lost::default();
    let kept: Vec<Vec<f64>> =
        samples.iter().map(|s| s.y.iter().map(|&v| lost.keep(v, false)).filter(|v| v.is_finite()).collect()).collect();
    lost.note("", notes);
    let (lo, hi) = finite_range(kept.iter().flatten().copied()).unwrap_or((0.0, 1.0));
    let (lo, hi) = if hi > lo { (lo, hi) } else { (lo - 0.5, lo + 0.5) };
    let longest = kept.iter().map(Vec::len).max().unwrap_or(0);
    let count = figure.bins.unwrap_or_else(|| ((longest as f64).sqrt().ceil() as usize).clamp(5, 100));
    let width = (hi - lo) / count as f64;
    let edge = |i: usize| lo + width * i as f64;
    let marks = kept.iter().zip(samples).enumerate().map(|(tone, (values, s))| {
        let counts = bins(values, (lo, hi), count);
        let whole = if figure.density { values.len().max(1) as f64 * width } else { 1.0 };
        let y = counts.iter().map(|&n| n as f64 / whole).map(|v| if figure.log_y && v == 0.0 { f64::NAN } else { v });
        let number = super::super::ticks::number;
        let texts = (0..count).map(|i| format!("{} to {}", number(edge(i)), number(edge(i + 1)))).collect();
        Mark {
            name: clean(&s.name),
            tone,
            x: (0..count).map(|i| (edge(i) + edge(i + 1)) / 2.0).collect(),
            y: y.collect(),
            kind: MarkKind::Bars { width, overlaid: samples.len() > 1, band: None, texts },
        }
    });
    let mut panel = panel(figure, marks.collect(), false, notes);
    from_zero(figure, &mut panel);
    if panel.y.name.is_empty() {
        panel.y.name = if figure.density { "density" } else { "count" }.into();
    }
    let rules = panel.upright_rules.iter().map(|r| r.0);
    let range = spread([lo, hi].into_iter().chain(rules), false, 0.02, 0.5);
    let x = Axis { name: clean(&figure.x), scale: Scale::Linear, range };
    Ok(Chart { x, panels: vec![panel], colors: None, fixed_places: false })
}

pub(super) fn boxes(figure: &Figure, samples: &[Series], notes: &mut Vec<String>) -> Result<Chart, ReportError> {
    samples_only(figure, samples)?;
    if samples.is_empty() {
        return Err(shape_error(figure, "at least one box", "no series".into()));
    }
    let mut lost = Lost::default();
    let mut marks = Vec::new();
    let mut names = Vec::new();
    for (i, s) in samples.iter().enumerate() {
        let kept: Vec<f64> = s.y.iter().map(|&v| lost.keep(v, figure.log_y)).filter(|v| v.is_finite()).collect();
        names.push(if s.name.is_empty() && samples.len() == 1 { String::new() } else { clean(&s.name) });
        let Some(stats) = box_stats(&kept) else {
            notes.push(format!("`{}` has no value that can be shown", clean(&s.name)));
            continue;
        };
        let y = [stats.low, stats.high].into_iter().chain(stats.outliers.iter().copied()).collect();
        marks.push(Mark { name: clean(&s.name), tone: 0, x: vec![i as f64], y, kind: MarkKind::Box(stats) });
    }
    lost.note(&figure.y, notes);
    let range = (-0.5, samples.len() as f64 - 0.5);
    let x = Axis { name: clean(&figure.x), scale: Scale::Names(names), range };
    let panel = panel(figure, marks, false, notes);
    Ok(Chart { x, panels: vec![panel], colors: None, fixed_places: true })
}

fn samples_only(figure: &Figure, samples: &[Series]) -> Result<(), ReportError> {
    match samples.iter().find(|s| !s.x.is_empty() || !s.band.0.is_empty() || s.markers.is_some()) {
        Some(s) => {
            let got = format!("positions, a band or markers in series `{}`", clean(&s.name));
            Err(shape_error(figure, "series of samples alone", got))
        }
        None => Ok(()),
    }
}

pub(super) fn bars(
    figure: &Figure,
    labels: &[String],
    series: &[Series],
    notes: &mut Vec<String>,
) -> Result<Chart, ReportError> {
    if let Some(s) = series.iter().find(|s| s.y.len() != labels.len()) {
        let expected = format!("{} values, one for each label", labels.len());
        return Err(shape_error(figure, &expected, format!("{} values in series `{}`", s.y.len(), clean(&s.name))));
    }
    if labels.is_empty() {
        return Err(shape_error(figure, "at least one bar", "no labels".into()));
    }
    if let Some(s) = series.iter().find(|s| !s.x.is_empty() || s.markers.is_some()) {
        let got = format!("positions or markers in series `{}`", clean(&s.name));
        return Err(shape_error(figure, "series of values alone, or with a band", got));
    }
    let texts: Vec<String> = labels.iter().map(|s| clean(s)).collect();
    let mut lost = Lost::default();
    let width = 0.76 / series.len().max(1) as f64;
    // Bars stand at their index and carry their label as a tick: equal labels stay apart.
    let mut marks = Vec::new();
    for (k, s) in series.iter().enumerate() {
        let band = band(figure, s)?;
        marks.push(Mark {
            name: clean(&s.name),
            tone: k,
            x: (0..labels.len()).map(|i| i as f64 - 0.38 + width * (k as f64 + 0.5)).collect(),
            y: s.y.iter().map(|&v| lost.keep(v, figure.log_y)).collect(),
            kind: MarkKind::Bars { width, overlaid: false, band, texts: texts.clone() },
        });
    }
    lost.note(&figure.y, notes);
    let mut panel = panel(figure, marks, false, notes);
    from_zero(figure, &mut panel);
    let range = (-0.5, labels.len() as f64 - 0.5);
    let x = Axis { name: clean(&figure.x), scale: Scale::Names(texts), range };
    Ok(Chart { x, panels: vec![panel], colors: None, fixed_places: true })
}

/// Bars grow from zero, or their lengths would lie.
fn from_zero(figure: &Figure, panel: &mut Panel) {
    if panel.y.scale != Scale::Log && figure.range.is_none() {
        let (lo, hi) = panel.y.range;
        let data = finite_range(panel.marks.iter().flat_map(Mark::heights));
        let positive = data.is_none_or(|d| d.0 >= 0.0);
        let negative = data.is_some_and(|d| d.1 <= 0.0);
        panel.y.range =
            (if positive { 0.0 } else { lo.min(0.0) }, if negative && !positive { 0.0 } else { hi.max(0.0) });
    }
}

/// A range around values, in powers of ten if `log`: with some air, or `alone` to both sides of a single value.
fn spread(values: impl Iterator<Item = f64>, log: bool, air: f64, alone: f64) -> (f64, f64) {
    match finite_range(values.map(|v| if log { v.log10() } else { v })) {
        Some((lo, hi)) if hi > lo => (lo - (hi - lo) * air, hi + (hi - lo) * air),
        Some((v, _)) => (v - alone, v + alone),
        None => (0.0, 1.0),
    }
}

fn panel(figure: &Figure, marks: Vec<Mark>, log_x: bool, notes: &mut Vec<String>) -> Panel {
    let of = if figure.y.is_empty() { String::new() } else { format!(" of {}", clean(&figure.y)) };
    let mut kept = |rules: &[(f64, String)], log: bool| -> Vec<(f64, String)> {
        let shown = |v: f64| v.is_finite() && (!log || v > 0.0);
        let kept: Vec<_> = rules.iter().filter(|r| shown(r.0)).map(|(v, name)| (*v, clean(name))).collect();
        let lost = rules.len() - kept.len();
        if lost > 0 {
            let why = if log { "not finite, zero or negative" } else { "not finite" };
            notes.push(format!("{} rule{}{of} {why} and left out", lost, if lost == 1 { " is" } else { "s are" }));
        }
        kept
    };
    let rules = kept(&figure.rules, figure.log_y);
    let upright_rules = kept(&figure.upright_rules, log_x);
    let scale = |v: f64| if figure.log_y { v.log10() } else { v };
    let range = match asked_range(figure) {
        Some((lo, hi)) => (scale(lo), scale(hi)),
        None => {
            let all = marks.iter().flat_map(Mark::heights).chain(rules.iter().map(|r| r.0));
            let data = finite_range(all.map(scale));
            let alone = match data {
                Some((v, _)) if !figure.log_y && v != 0.0 => v.abs() * 0.1,
                _ => 1.0,
            };
            spread(data.into_iter().flat_map(|(lo, hi)| [lo, hi]), false, 0.05, alone)
        }
    };
    let y = Axis { name: clean(&figure.y), scale: if figure.log_y { Scale::Log } else { Scale::Linear }, range };
    Panel { y, marks, rules, upright_rules, diagonal: figure.diagonal }
}

impl Chart {
    pub fn is_boxes(&self) -> bool {
        self.panels.iter().flat_map(|p| &p.marks).any(|m| matches!(m.kind, MarkKind::Box(_)))
    }
}

impl Panel {
    /// Values at which x = y is drawn, inside both axes; a straight line needs two, one logarithmic axis more.
    pub fn diagonal_points(&self, x: &Axis) -> Vec<f64> {
        let ends = |a: &Axis| match a.scale {
            Scale::Log => (10f64.powf(a.range.0), 10f64.powf(a.range.1)),
            _ => a.range,
        };
        let (a, b) = (ends(x), ends(&self.y));
        let (lo, hi) = (a.0.max(b.0), a.1.min(b.1));
        if lo >= hi {
            return Vec::new();
        }
        match (x.scale == Scale::Log, self.y.scale == Scale::Log) {
            (true, false) | (false, true) => (0..=64).map(|i| lo + (hi - lo) * f64::from(i) / 64.0).collect(),
            _ => vec![lo, hi],
        }
    }
}
