//! What a run or a model becomes: analyses of what was learned, and one page that shows it.
//!
//! ```
//! use ironlens_study as study;
//! use ironlens_tensor::Device;
//! use ironlens_train::{Preset, RandomTokens, RunDir, TrainConfig, Trainer, previous_token_loss};
//! use ironlens_transformer::HookedTransformer;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("run");
//! let mut model = HookedTransformer::new(Preset::Tiny.model(), &Device::Cpu, 42)?;
//! let mut data = RandomTokens::new(model.config(), 137)?;
//! let train = TrainConfig { steps: 3, ..Preset::Tiny.train() };
//! Trainer::new(train).keep(&path).fit_model(&mut model, &mut data, previous_token_loss)?;
//!
//! let run = RunDir::open(&path)?;
//! study::report(&run)?.write_html(path.join("report.html"))?;
//!
//! // The standard analyses of the trained model, and one of your own; kept in the run, whose report has them then.
//! let mut analysers = study::ANALYSERS.to_vec();
//! analysers.push(study::Analyser {
//!     title: "How large the embeddings are",
//!     run: |subject| {
//!         let norms = subject.model.param("embed.W_E")?.vector_norm(&[1]).to_vec_f64();
//!         let picture = study::Picture::lines("Norm of W_E", ["token", "norm"], vec![("norm".into(), norms)]);
//!         Ok(("The length of each token's vector.".into(), vec![picture]))
//!     },
//! });
//! let subject = study::Subject::of_run(&run, &Device::Cpu)?;
//! let analysis = study::analyse(&subject, &analysers);
//! analysis.keep(&run)?;
//! assert_eq!(study::report(&run)?.sections.len(), analysis.sections.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`report`] reads a run's folder. [`ANALYSERS`] are the analyses of a trained model on sequences ([`Subject`]),
//! [`prompts`] those of a model on texts with answers. An [`Analysis`] is plain data, that JSON holds; each of its
//! parts becomes a section of a report. A run on a task whose rule is known gets [sections of its own](story).

mod analyser;
mod error;
mod examples;
mod findings;
mod kept;
mod of_run;
mod pairs;
mod picture;
pub mod prompts;
mod sections;
pub mod story;
mod subject;

pub use analyser::{Analyser, Failure, Found, analyse, analyse_with};
pub use error::StudyError;
pub use of_run::{report, report_with};
pub use picture::{Analysis, Part, Picture};
pub use sections::ANALYSERS;
pub use subject::{Subject, without_padding};

use ironlens_report::Array;
use ironlens_tensor::Tensor;

/// A tensor as figures take it.
pub(crate) fn array(x: &Tensor) -> Array {
    Array::from_vec(x.shape(), x.to_vec()).expect("a tensor's values fill its shape")
}
