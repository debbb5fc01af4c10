//! Figures and the report of a training run, from plain numbers.
//!
//! ```
//! use ironlens_report::{imshow, line, Array};
//!
//! # let dir = tempfile::tempdir()?;
//! # let at = |name: &str| dir.path().join(name);
//! // A heatmap as plotly.express.imshow draws it: row 0 at the top, square cells.
//! let pattern = Array::new([2, 2], &[1.0, 0.0, 0.25, 0.75])?;
//! let figure = imshow(pattern).title("Layer 0").x("source").y("destination").range(0.0, 1.0);
//! figure.save(at("pattern.html"))?; // interactive, opens without a network
//! figure.save(at("pattern.svg"))?; // the same numbers for a paper
//!
//! let losses = [5.99_f32, 0.51, 1.3e-4, 1.1e-8];
//! line(&losses).title("Loss").x("step").y("loss").log_y().save(at("loss.png"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate knows slices and shapes and nothing of tensors, models or runs. Data
//! go one way: numbers → [`Figure`] → a writer. The writers are interactive HTML
//! (`plotly`), PNG and SVG (`plotters`, with its own font, so that pictures are
//! the same on every machine).
//!
//! A [`Report`] holds what is known of a run as plain data and becomes one page:
//! the model, its activations, every head's attention before, during and after
//! training in an explorer, losses, head detectors, and how to make it again. The
//! page holds all it needs, forbids itself the network by a content security
//! policy, and has the same bytes for the same data.

mod array;
mod codec;
mod color;
mod deflate;
mod document;
mod error;
mod explorer;
mod figure;
mod files;
mod page;
mod report;
mod view;

pub use array::Array;
pub use color::Colorscale;
pub use error::ReportError;
pub use figure::{
    Figure, Number, Points, Series, ToPoints, ToSeries, bar, boxes, frames, histogram, imshow, line, panels, plotly,
    scatter,
};
pub use page::{Item, Page};
pub use report::{
    Comparison, Detector, Evaluation, Example, Finding, HeadFact, HeadPair, Hook, Parameter, Reference, Report,
    Section, Snapshot, Stats, StepRow, grouped, two_digits, with_error,
};
pub use view::{
    Sample, View, attention_heads, attention_layers, attention_pattern, attention_patterns, colored_tokens,
    colored_tokens_multi, text_neuron_activations, token_log_probs, topk_samples, topk_tokens,
};
