//! One error for all parts of the library.

use std::fmt;

use ironlens_files::FileError;
use ironlens_lens::LensError;
use ironlens_nn::{HookError, ParamError};
use ironlens_pretrained::PretrainedError;
use ironlens_report::ReportError;
use ironlens_study::StudyError;
use ironlens_tensor::DeviceError;
use ironlens_tokenizer::TokenizerError;
use ironlens_train::TrainError;
use ironlens_transformer::names::LayerOutOfRange;
use ironlens_transformer::{CacheError, ConfigError, ModelError, WeightsError};

/// Whatever a part of the library refuses, so that `?` takes all of it:
///
/// ```
/// use ironlens::prelude::*;
///
/// fn pattern(tokens: &IndexTensor) -> ironlens::Result<Tensor> {
///     let config = Config::from_json(r#"{"d_model": 8, "d_head": 4, "n_layers": 1, "n_ctx": 4, "d_vocab": 5,
///         "act_fn": "relu"}"#)?;                                             // a ConfigError
///     let model = HookedTransformer::new(config, &Device::Cpu, 0)?;           // a ModelError
///     let (_, cache) = model.run_with_cache(tokens)?;
///     imshow(&cache.get(("attn", 0))?.mean(&[0, 1])).to_svg()?;               // a CacheError, a ReportError
///     let wanted = std::env::var("HEAD").unwrap_or("0".into());
///     let head = wanted.parse().map_err(|_| format!("HEAD={wanted} is no number"))?;      // your own words
///     Ok(cache[("attn", 0)].select(1, head))
/// }
/// assert_eq!(pattern(&IndexTensor::from([[0, 1, 2]]))?.shape(), [1, 3, 3]);
/// # Ok::<(), ironlens::Error>(())
/// ```
///
/// It tells what the part tells, also where Rust prints an error that `main` returns. A hook may return it with
/// `?`, too.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device that cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Text that is no tokens, or tokens that are no text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A hook that cannot run.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A parameter that cannot be read or written.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// A weights file that does not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A configuration that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A layer that the model does not have.
    #[error(transparent)]
    Layer(#[from] LayerOutOfRange),
    /// A report or an analysis that cannot be made.
    #[error(transparent)]
    Study(Box<StudyError>),
    /// An activation that is not there.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A model that cannot be built or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An analysis that cannot be made.
    #[error(transparent)]
    Lens(#[from] LensError),
    /// A checkpoint that is not read.
    #[error(transparent)]
    Pretrained(Box<PretrainedError>),
    /// Training that cannot go on.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A figure or page that cannot be made.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The file system's own.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Yours.
    #[error(transparent)]
    Own(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// The same words as `Display`: they are what a program ends with whose `main` returns the error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// The two largest are boxed, so that what may fail with an error is not slower where it does not.

impl From<StudyError> for Error {
    fn from(error: StudyError) -> Error {
        Error::Study(error.into())
    }
}

impl From<PretrainedError> for Error {
    fn from(error: PretrainedError) -> Error {
        Error::Pretrained(error.into())
    }
}

impl From<&str> for Error {
    fn from(words: &str) -> Error {
        Error::Own(words.into())
    }
}

impl From<String> for Error {
    fn from(words: String) -> Error {
        Error::Own(words.into())
    }
}

/// What may fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    /// `Error: ` and what `Debug` says is what a program prints whose `main` fails.
    #[test]
    fn a_failing_main_prints_words() {
        let error = Error::from(LayerOutOfRange { layer: 7, n_layers: 2 });
        assert_eq!(format!("{error:?}"), error.to_string());
        assert!(!format!("{error:?}").contains("LayerOutOfRange"), "{error:?}");
    }
}
