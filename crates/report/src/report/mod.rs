//! The report: plain data in, one page and a folder of pictures out.

mod compare;
mod figures;
mod findings;
mod html;
mod verdict;

use std::path::{Path, PathBuf};

pub use compare::Comparison;
pub use findings::{two_digits, with_error};
pub use html::grouped;

use crate::{Array, Figure, ReportError, files};

/// Everything the report shows, as plain data.
///
/// Every field may stay empty: its section is then left out. Fill what there is,
/// then call [`Report::write_html`] and, for pictures, [`Report::write_figures`].
///
/// ```
/// use ironlens_report::{StepRow, Report};
/// let report = Report {
///     title: "previous token, 2 layers".into(),
///     metrics: vec![StepRow { step: 0, loss: 5.99, ..StepRow::default() }],
///     ..Report::default()
/// };
/// assert!(report.to_html()?.starts_with("<!DOCTYPE html>"));
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The name of the run.
    pub title: String,
    /// One line below the title: which model learned what.
    pub subtitle: String,
    /// Short facts shown as chips: seed, device, number of parameters, …
    pub facts: Vec<(String, String)>,
    /// The model exactly as printing it gives it.
    pub model_tree: String,
    /// One row for each parameter.
    pub parameters: Vec<Parameter>,
    /// One row for each hook point, in the order in which they fire.
    pub hooks: Vec<Hook>,
    /// The tokens that the snapshots' positions stand for; empty if the snapshots
    /// are means over different texts, whose positions are then numbered.
    pub tokens: Vec<String>,
    /// Attention patterns before, during and after training, in this order.
    pub snapshots: Vec<Snapshot>,
    /// Which data the snapshots show: "mean over one fixed batch of 10 sequences".
    pub snapshot_source: String,
    /// What was logged while training.
    pub metrics: Vec<StepRow>,
    /// Losses on data that was not trained on.
    pub evaluations: Vec<Evaluation>,
    /// The loss of guessing, drawn as a rule: `ln(d_vocab)`.
    pub chance_loss: Option<f64>,
    /// What others lose on the same held-out data, drawn as rules: simpler rules, and the best that can be.
    pub references: Vec<Reference>,
    /// Scores of every head for each kind of head.
    pub detectors: Vec<Detector>,
    /// What else is known of every head: shown on its card.
    pub head_facts: Vec<HeadFact>,
    /// Which heads build on which: shown on the cards of both.
    pub head_pairs: Vec<HeadPair>,
    /// Sequences with what the model makes of each token.
    pub examples: Vec<Example>,
    /// The configuration, one row each.
    pub config: Vec<(String, String)>,
    /// The command line that makes this run again.
    pub reproduce: String,
    /// What the reader should be wary of.
    pub warnings: Vec<String>,
    /// Further analyses, shown after the detectors.
    pub sections: Vec<Section>,
    /// What these analyses found, shown at the top below the roles of heads.
    pub findings: Vec<Finding>,
}

/// One thing that was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Finding {
    /// A sentence with its number and what chance gives.
    pub text: String,
    /// Where the evidence is: the title of a [`Section`], or an address in the page (`#L=0&H=1`).
    pub evidence: String,
    /// The first step at which half of it was there, if that is known.
    pub since: Option<usize>,
}

/// A parameter of the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameter {
    /// Its full name: `blocks.0.attn.W_Q`.
    pub name: String,
    /// The length of each dimension.
    pub shape: Vec<usize>,
}

/// A hook point and what passed through it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hook {
    /// Its full name: `blocks.0.attn.hook_pattern`.
    pub name: String,
    /// The names of its dimensions: `batch head dest src`; may be empty.
    pub axes: Vec<String>,
    /// The length of each dimension.
    pub shape: Vec<usize>,
    /// Statistics of the activation, if it was looked at.
    pub stats: Option<Stats>,
}

/// Statistics of an activation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// The attention patterns of all layers at one step of training.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The step at which it was taken.
    pub step: usize,
    /// Its name: "before", "step 100", "after".
    pub label: String,
    /// One array `[head, dest, src]` for each layer.
    pub layers: Vec<Array>,
}

/// One logged step of training.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepRow {
    /// The step.
    pub step: usize,
    /// The loss.
    pub loss: f64,
    /// The learning rate used at this step.
    pub lr: Option<f64>,
    /// The norm of the gradient, before clipping.
    pub grad_norm: Option<f64>,
}

/// A loss on data that was not trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evaluation {
    /// After how many steps.
    pub step: usize,
    /// The loss.
    pub loss: f64,
}

/// A loss to compare with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reference {
    /// Whose it is: "counting states".
    pub name: String,
    /// The loss.
    pub loss: f64,
    /// Whether nobody can do better on average.
    pub best: bool,
}

/// How much every head behaves as one kind of head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detector {
    /// The kind of head: "previous token".
    pub name: String,
    /// What the score is, in a sentence or formula: "mean of A\[i, i-1\] over i ≥ 1".
    pub formula: String,
    /// Scores `[layer][head]` before training; may be empty.
    pub before: Vec<Vec<f32>>,
    /// Scores `[layer][head]` after training.
    pub after: Vec<Vec<f32>>,
    /// The score of a head that attends alike to all it can see, on the same sequences. Only with it a head is said
    /// to have a role.
    pub uniform: Option<f32>,
    /// The score of a head that attends to nothing else than its kind does, wherever there is something to attend to;
    /// 1 if it is not known.
    pub ideal: Option<f32>,
    /// Standard deviations `[layer][head]` over the sequences of the scores after training; may be empty.
    pub spread: Vec<Vec<f32>>,
}

/// A number for every head, such as how much the loss rises without it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadFact {
    /// What it is: "Rise of the loss, head set to zero".
    pub name: String,
    /// Values `[layer][head]`.
    pub values: Vec<Vec<f32>>,
    /// Standard errors `[layer][head]`; empty if they are not known.
    pub noise: Vec<Vec<f32>>,
}

/// A head that reads what an earlier one writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadPair {
    /// Layer and head of the earlier one.
    pub writer: (usize, usize),
    /// Layer and head of the later one.
    pub reader: (usize, usize),
    /// By what it reads: "queries", "keys" or "values".
    pub by: String,
    /// How much of what is written lies where is read, less what chance gives.
    pub score: f32,
    /// Mean of the scores of all pairs that read so, and their standard deviation.
    pub others: (f32, f32),
}

/// A sequence, and what the model says at each of its tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Example {
    /// What it is called: "held-out sequence 1".
    pub name: String,
    /// Its tokens.
    pub tokens: Vec<String>,
    /// What should be said at each token; empty text where nothing is asked.
    pub targets: Vec<String>,
    /// The log-probability of what should be said at each token; NaN where nothing is asked.
    pub log_probs: Vec<f32>,
    /// The likeliest tokens at each token with their log-probabilities, the likeliest first.
    pub top: Vec<Vec<(String, f32)>>,
    /// Attention patterns `[head, dest, src]` of each layer after training, as many heads as in the snapshots; or
    /// none.
    pub layers: Vec<Array>,
}

/// A further part of the report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Plain text; blank lines part paragraphs.
    pub prose: String,
    /// Its figures.
    pub figures: Vec<Figure>,
}

impl Report {
    /// The sentences at the top of the page, computed from the data: nothing in
    /// them is known beforehand.
    pub fn verdict(&self) -> Vec<String> {
        verdict::sentences(self)
    }

    /// What was found: which heads have which role, then [`Report::findings`]; nothing of a model at chance.
    pub fn found(&self) -> Vec<Finding> {
        findings::all(self)
    }

    /// Every figure of the report with a name fit for a file.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if snapshots or detectors do not fit together.
    pub fn figures(&self) -> Result<Vec<(String, Figure)>, ReportError> {
        self.check()?;
        figures::all(self)
    }

    /// The whole page: no network, same bytes for the same data.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if data of the report do not fit together.
    pub fn to_html(&self) -> Result<String, ReportError> {
        self.check()?;
        html::page(self)
    }

    /// Writes the page; it appears whole or not at all.
    ///
    /// # Errors
    /// Those of [`Report::to_html`], and [`ReportError::File`] if the file cannot be
    /// written.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        files::write_atomic(path.as_ref(), self.to_html()?.as_bytes())
    }

    /// Writes each figure as `.png` and `.svg` into a folder, which is created if
    /// missing, and returns the paths.
    ///
    /// # Errors
    /// Those of [`Report::figures`], [`ReportError::Draw`] and [`ReportError::File`].
    pub fn write_figures(&self, dir: impl AsRef<Path>) -> Result<Vec<PathBuf>, ReportError> {
        let mut paths = Vec::new();
        for (name, figure) in self.figures()? {
            for extension in ["png", "svg"] {
                let path = dir.as_ref().join(format!("{name}.{extension}"));
                figure.save(&path)?;
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// Do the parts fit together?
    fn check(&self) -> Result<(), ReportError> {
        let wrong = |what: String, expected: String, got: String| Err(ReportError::Shape { what, expected, got });
        let first = self.snapshots.first();
        for snapshot in &self.snapshots {
            for (l, layer) in snapshot.layers.iter().enumerate() {
                let what = || format!("attention of layer {l} in the snapshot `{}`", snapshot.label);
                if layer.shape().len() != 3 || layer.data().is_empty() {
                    let expected = "a shape [head, dest, src] with no zero".to_string();
                    return wrong(what(), expected, format!("{:?}", layer.shape()));
                }
                let like = first.and_then(|f| f.layers.get(l)).map(Array::shape);
                if like.is_some_and(|s| s != layer.shape()) {
                    let expected = format!("{:?}, as in the first snapshot", like.unwrap_or(&[]));
                    return wrong(what(), expected, format!("{:?}", layer.shape()));
                }
            }
            let layers = first.map_or(0, |f| f.layers.len());
            if snapshot.layers.len() != layers || layers == 0 {
                return wrong(
                    format!("the snapshot `{}`", snapshot.label),
                    format!("{} layers, as in the first snapshot, and at least one", layers.max(1)),
                    format!("{} layers", snapshot.layers.len()),
                );
            }
        }
        for example in &self.examples {
            let n = example.tokens.len();
            let lengths = [example.targets.len(), example.log_probs.len(), example.top.len()];
            if lengths.iter().any(|len| *len != n) {
                let expected = format!("{n} targets, log-probabilities and lists, one for each token");
                return wrong(format!("the example `{}`", example.name), expected, format!("{lengths:?}"));
            }
            let heads = |layers: &[Array]| layers.iter().map(|a| a.shape()[0]).collect::<Vec<_>>();
            let square = example.layers.iter().all(|a| a.shape().len() == 3 && a.shape()[1..] == [n, n]);
            let like = first.map_or(Vec::new(), |f| heads(&f.layers));
            if !example.layers.is_empty() && (!square || heads(&example.layers) != like) {
                let shapes: Vec<_> = example.layers.iter().map(Array::shape).collect();
                let expected = format!("[head, {n}, {n}] for each layer, of {like:?} heads as in the snapshots");
                return wrong(format!("attention of the example `{}`", example.name), expected, format!("{shapes:?}"));
            }
        }
        for detector in &self.detectors {
            let shape = |s: &[Vec<f32>]| s.iter().map(Vec::len).collect::<Vec<_>>();
            let (before, after) = (shape(&detector.before), shape(&detector.after));
            if !before.is_empty() && before != after {
                return wrong(
                    format!("scores of the detector `{}` before training", detector.name),
                    format!("{after:?} heads in its layers, as after training"),
                    format!("{before:?}"),
                );
            }
        }
        Ok(())
    }
}
