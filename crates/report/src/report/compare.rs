//! Several runs on one page: what differs, in what was asked and in what came of it.

use std::path::Path;

use maud::{Markup, html};

use super::html::{framed, masthead, section, skip};
use super::verdict::{argmax, number};
use super::{Report, Snapshot, figures, findings};
use crate::document::{Document, chart};
use crate::explorer::Explorer;
use crate::{Array, Figure, ReportError, Series, files, imshow, line};

/// Two or more runs beside each other: their losses in one chart, the settings that differ, which heads have which
/// role in each, and, where they have as many heads, the attention of all in one explorer.
///
/// ```
/// use ironlens_report::{Comparison, Report, StepRow};
/// let run = |title: &str, loss| Report {
///     title: title.into(),
///     metrics: vec![StepRow { step: 0, loss, ..StepRow::default() }],
///     config: vec![("train.lr".into(), format!("{}", loss / 100.0))],
///     ..Report::default()
/// };
/// let page = Comparison::new([run("slow", 5.0), run("fast", 1.0)]).to_html()?;
/// assert!(page.contains("slow") && page.contains("train.lr"));
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// The runs, in the order in which they are shown.
    pub reports: Vec<Report>,
}

impl Comparison {
    /// Reports side by side. Those with equal titles are numbered, so that they can be told apart.
    pub fn new(reports: impl IntoIterator<Item = Report>) -> Comparison {
        let mut reports: Vec<Report> = reports.into_iter().collect();
        for i in 0..reports.len() {
            let title = reports[i].title.clone();
            let mut n = 1;
            while reports[..i].iter().any(|r| r.title == reports[i].title) {
                n += 1;
                reports[i].title = format!("{title} ({n})");
            }
        }
        Comparison { reports }
    }

    /// The page: no network, same bytes for the same data.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if data of a report do not fit together.
    pub fn to_html(&self) -> Result<String, ReportError> {
        for report in &self.reports {
            report.check()?;
        }
        self.page()
    }

    /// Writes the page; it appears whole or not at all.
    ///
    /// # Errors
    /// Those of [`Comparison::to_html`], and [`ReportError::File`] if the file cannot be written.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        files::write_atomic(path.as_ref(), self.to_html()?.as_bytes())
    }

    fn page(&self) -> Result<String, ReportError> {
        let title = self.titles().join(" and ");
        let losses = self.losses().map(|f| chart("losses", &f, 3)).transpose()?;
        let detectors = self.detectors()?.map(|f| chart("detectors-chart", &f, 3)).transpose()?;
        let snapshots = self.snapshots();
        let explorer = match &snapshots {
            Some(snapshots) => {
                Explorer { id: "explorer", snapshots, runs: true, linked: true, ..Explorer::default() }.markup()?
            }
            None => None,
        };
        let (charts, has_explorer) = (losses.is_some() || detectors.is_some(), explorer.is_some());
        let section = |id: &str, title: &str, body: Markup| section(id, title, &body);
        let body = html! {
            (skip())
            main id="content" {
                header {
                    (masthead(&title))
                    p.subtitle { (self.reports.len()) " runs beside each other." }
                }
                (section("outcome", "What came of them", self.outcome()))
                @if let Some(losses) = losses { (section("learning", "How they learned", losses)) }
                (section("settings", "What was asked of them", self.settings()))
                @if detectors.is_some() || self.reports.iter().any(|r| !r.detectors.is_empty()) {
                    (section("roles", "Which heads do what", html! { (self.roles()) @if let Some(chart) = &detectors { (chart) } }))
                }
                @if let Some(explorer) = explorer {
                    (section("heads", "The heads, run by run", html! {
                        p { "Each run after its training; the difference is the last run less the first." }
                        (explorer)
                    }))
                }
            }
        };
        Ok(Document { title: &title, body, charts, explorer: has_explorer, tokens: false }.render())
    }

    fn titles(&self) -> Vec<&str> {
        self.reports.iter().map(|r| r.title.as_str()).collect()
    }

    /// One row for each run: losses, and what guessing and others lose.
    fn outcome(&self) -> Markup {
        let or = |v: Option<f64>| v.map_or("–".to_string(), number);
        html! {
            (framed("What came of the runs", html! {
                table {
                    thead { tr {
                        th scope="col" { "Run" } th.num scope="col" { "Steps" } th.num scope="col" { "Loss" }
                        th.num scope="col" { "Held out" } th.num scope="col" { "Guessing" } th scope="col" { "Its model and data" }
                    } }
                    tbody {
                        @for r in &self.reports {
                            tr {
                                th scope="row" { (r.title) }
                                td.num { (r.metrics.last().map_or("–".into(), |m| (m.step + 1).to_string())) }
                                td.num { (or(r.metrics.last().map(|m| m.loss))) }
                                td.num { (or(r.evaluations.last().map(|e| e.loss))) }
                                td.num { (or(r.chance_loss)) }
                                td.wrap { (r.subtitle) @if findings::at_chance(r) { " " b { "At chance: it learned nothing." } } }
                            }
                        }
                    }
                }
            }))
        }
    }

    /// The losses of all in one chart.
    fn losses(&self) -> Option<Figure> {
        let mut curves = Vec::new();
        for r in &self.reports {
            let (x, y): (Vec<f64>, Vec<f64>) = r.metrics.iter().map(|m| (m.step as f64, m.loss)).unzip();
            if !y.is_empty() {
                curves.push(Series::new(&r.title, &y).x(&x));
            }
            let (x, y): (Vec<f64>, Vec<f64>) = r.evaluations.iter().map(|e| (e.step as f64, e.loss)).unzip();
            if !y.is_empty() {
                curves.push(Series::new(format!("{}, held out", r.title), &y).x(&x).markers(true));
            }
        }
        if curves.is_empty() {
            return None;
        }
        let mut figure = line(curves).title("Loss").x("step").y("loss").log_y().size(1060, 460);
        let chances: Vec<f64> = self.reports.iter().filter_map(|r| r.chance_loss).collect();
        // One rule, if guessing costs all of them the same.
        let all = chances.len() == self.reports.len();
        if let Some(first) = chances.first().filter(|c| all && **c > 0.0 && chances.iter().all(|other| other == *c)) {
            figure = figure.rule(*first, format!("guessing, {}", number(*first)));
        }
        Some(figure)
    }

    /// The settings in which they differ.
    fn settings(&self) -> Markup {
        let value = |r: &Report, key: &str| r.config.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let mut keys: Vec<&str> = Vec::new();
        for (key, _) in self.reports.iter().flat_map(|r| &r.config) {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        let differs = |key: &&str| self.reports.iter().any(|r| value(r, key) != value(&self.reports[0], key));
        let keys: Vec<&str> = keys.into_iter().filter(differs).collect();
        html! {
            @if keys.is_empty() { p { "Their settings are the same." } }
            @else {
                (framed("Settings that differ", html! {
                    table {
                        thead { tr { th scope="col" { "Setting" } @for r in &self.reports { th scope="col" { (r.title) } } } }
                        tbody {
                            @for key in &keys {
                                tr { th.mono scope="row" { (key) } @for r in &self.reports { td.mono.wrap { (value(r, key).unwrap_or("–".into())) } } }
                            }
                        }
                    }
                }))
            }
        }
    }

    /// The best head of each kind in each run, and how many have the role.
    fn roles(&self) -> Markup {
        let mut kinds: Vec<&str> = Vec::new();
        for d in self.reports.iter().flat_map(|r| &r.detectors) {
            if !kinds.contains(&d.name.as_str()) {
                kinds.push(&d.name);
            }
        }
        let cell = |r: &Report, kind: &str| -> String {
            let Some(d) = r.detectors.iter().find(|d| d.name == kind) else { return "–".into() };
            let Some((l, h, v)) = argmax(&d.after) else { return "–".into() };
            let count = match findings::at_chance(r) {
                true => 0,
                false => findings::roles(r).iter().filter(|role| std::ptr::eq(role.detector, d)).count(),
            };
            let has = match count {
                0 => "no head has the role".to_string(),
                1 => "1 head has the role".into(),
                n => format!("{n} heads have the role"),
            };
            format!("{v:.2} (L{l}H{h}); {has}")
        };
        html! {
            (framed("Heads with a role", html! {
                table {
                    thead { tr { th scope="col" { "Kind of head, highest score" } @for r in &self.reports { th scope="col" { (r.title) } } } }
                    tbody { @for kind in &kinds { tr { th scope="row" { (kind) } @for r in &self.reports { td { (cell(r, kind)) } } } } }
                }
            }))
        }
    }

    /// The scores of all heads, a row of small matrices for each run; nothing if they do not have as many heads.
    fn detectors(&self) -> Result<Option<Figure>, ReportError> {
        let shapes = |r: &Report| -> Vec<(String, Vec<usize>)> {
            r.detectors.iter().map(|d| (d.name.clone(), d.after.iter().map(Vec::len).collect())).collect()
        };
        let Some(first) = self.reports.first().map(shapes).filter(|s| !s.is_empty()) else { return Ok(None) };
        let (layers, heads) = (first[0].1.len(), first[0].1.first().copied().unwrap_or(0));
        let even = first.iter().all(|(_, rows)| rows.len() == layers && rows.iter().all(|n| *n == heads));
        if !even || layers * heads == 0 || self.reports.iter().any(|r| shapes(r) != first) {
            return Ok(None);
        }
        let all = || self.reports.iter().flat_map(|r| r.detectors.iter().map(move |d| (r, d)));
        let data = all().flat_map(|(_, d)| d.after.iter().flatten().copied()).collect();
        let array = Array::from_vec([all().count(), layers, heads], data)?;
        let high = (14 * layers).clamp(60, 300);
        let rows = self.reports.len() * first.len().div_ceil(5);
        Ok(Some(
            imshow(array)
                .title(format!("Every head after training, below each other: {}", self.titles().join(", ")))
                .x("head")
                .y("layer")
                .value("score")
                .range(0.0, 1.0)
                .facets(all().map(|(_, d)| d.name.clone()))
                .columns(first.len().min(5))
                .stretched()
                .size(1060, ((high + 46) * rows) as u32 + 50),
        ))
    }

    /// Each run after training, if all have as many heads and positions.
    fn snapshots(&self) -> Option<Vec<Snapshot>> {
        let last = |r: &Report| r.snapshots.last().map(|s| Snapshot { label: r.title.clone(), ..s.clone() });
        let all: Vec<Snapshot> = self.reports.iter().filter_map(last).collect();
        let shape = |s: &Snapshot| s.layers.iter().map(|a| a.shape().to_vec()).collect::<Vec<_>>();
        let alike = all.iter().all(|s| shape(s) == shape(&all[0]));
        (all.len() == self.reports.len() && !all.is_empty() && alike).then_some(all)
    }
}

impl Comparison {
    /// Every figure of the page with a name fit for a file.
    ///
    /// # Errors
    /// As [`Comparison::to_html`].
    pub fn figures(&self) -> Result<Vec<(String, Figure)>, ReportError> {
        let mut out: Vec<(String, Figure)> = self.losses().map(|f| ("losses".to_string(), f)).into_iter().collect();
        out.extend(self.detectors()?.map(|f| ("head-detectors".to_string(), f)));
        for report in &self.reports {
            for (name, figure) in figures::mean_patterns(report)? {
                out.push((format!("{}-{name}", crate::document::slug(&report.title, "run")), figure));
            }
        }
        figures::unique(&mut out);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Detector, StepRow};

    fn run(loss: f64, lr: &str) -> Report {
        Report {
            title: "run".into(),
            metrics: vec![
                StepRow { step: 0, loss: 4.0, ..StepRow::default() },
                StepRow { step: 9, loss, ..StepRow::default() },
            ],
            chance_loss: Some(4.0),
            config: vec![("lr".into(), lr.into()), ("steps".into(), "10".into())],
            detectors: vec![Detector {
                name: "previous token".into(),
                after: vec![vec![0.9, 0.1]],
                uniform: Some(0.1),
                ..Detector::default()
            }],
            snapshots: vec![Snapshot {
                layers: vec![Array::new([2, 1, 1], &[1.0, 1.0]).unwrap()],
                ..Snapshot::default()
            }],
            ..Report::default()
        }
    }

    #[test]
    fn what_differs_is_shown_and_what_does_not_is_left_out() {
        let both = Comparison::new([run(0.1, "1e-3"), run(3.99, "1e-5")]);
        assert_eq!(both.reports[1].title, "run (2)");
        let html = both.to_html().unwrap();
        assert!(html.contains("1e-3") && html.contains("1e-5") && !html.contains(">steps<"));
        assert!(html.contains("1 head has the role") && html.contains("no head has the role"), "one is at chance");
        assert!(html.contains("At chance") && html.contains("id=\"explorer\""));
        assert_eq!(html, both.to_html().unwrap());
        let mut other = run(0.1, "1e-3");
        other.snapshots[0].layers.clear();
        assert!(Comparison::new([run(0.1, "1e-3"), other]).to_html().is_err(), "a snapshot without layers is refused");
        assert!(Comparison::new([run(0.1, "a"), run(0.1, "a")]).to_html().unwrap().contains("settings are the same"));
    }
}
