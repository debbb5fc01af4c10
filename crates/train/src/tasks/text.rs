//! The bytes of a text.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ironlens_tensor::{IndexTensor, Rng};
use ironlens_transformer::Config;
use sha2::{Digest, Sha256};

use super::drawn::{Drawn, Source};
use super::{Labelled, mean_loss, setting};
use crate::data::Reference;
use crate::error::TrainError;

/// Windows of `n_ctx` bytes, each with the byte after it to predict. The last tenth of the text is held out.
pub type Text = Drawn<Windows>;

/// The sequences of [`Text`].
#[derive(Clone, Debug)]
pub struct Windows {
    bytes: Arc<[u8]>,
    name: String,
    n_ctx: usize,
}

impl Text {
    /// The bytes of a file, for a model of this configuration.
    ///
    /// # Errors
    /// If the file cannot be read or is too short, or the model does not have 256 tokens.
    pub fn read(path: &Path, cfg: &Config, seed: u64) -> Result<Text, TrainError> {
        let bytes = ironlens_files::open_ordinary(path)
            .and_then(|_| fs::read(path))
            .map_err(TrainError::io(path, "reading the text"))?;
        let name = path.file_name().map_or_else(|| "text".into(), |n| n.to_string_lossy().into_owned());
        Text::new(bytes, name, cfg, seed)
    }

    /// Bytes that are called `name`.
    ///
    /// # Errors
    /// If there are too few, or the model does not have 256 tokens.
    pub fn new(
        bytes: impl Into<Arc<[u8]>>,
        name: impl Into<String>,
        cfg: &Config,
        seed: u64,
    ) -> Result<Text, TrainError> {
        let bytes = bytes.into();
        setting(cfg.d_vocab == 256, "d_vocab", cfg.d_vocab, "256, one token for each byte")?;
        setting(cfg.n_ctx >= 2, "n_ctx", cfg.n_ctx, "at least 2 bytes")?;
        let least = 20 * (cfg.n_ctx + 1);
        if bytes.len() < least {
            return Err(TrainError::Setting {
                name: "text",
                given: format!("{} bytes", bytes.len()),
                expected: format!("at least {least}, so that a tenth holds windows of n_ctx = {}", cfg.n_ctx),
            });
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(TrainError::Setting {
                name: "text",
                given: format!("{} bytes", bytes.len()),
                expected: format!("at most {}", u32::MAX),
            });
        }
        Ok(Drawn::of(Windows { bytes, name: name.into(), n_ctx: cfg.n_ctx }, seed))
    }
}

/// How windows of `n_ctx` bytes are described, whatever text they are of.
pub(super) fn beginning(n_ctx: usize) -> String {
    format!("windows of {n_ctx} bytes of ")
}

impl Windows {
    /// Where the held-out part begins.
    fn end(&self) -> usize {
        self.bytes.len() * 9 / 10
    }
}

impl Source for Windows {
    fn bytes_of_one(&self) -> usize {
        16 * self.n_ctx
    }

    fn draw(&self, mut rng: Rng, size: usize, held_out: bool) -> Labelled {
        let n = self.n_ctx;
        let (from, to) = if held_out { (self.end(), self.bytes.len()) } else { (0, self.end()) };
        let last = u32::try_from(to - n).unwrap_or(u32::MAX);
        let starts = rng.integers(&[size], from as u32, last);
        let window = |s: &u32, offset: usize| {
            self.bytes[*s as usize + offset..][..n].iter().map(|b| u32::from(*b)).collect::<Vec<_>>()
        };
        let ids = |offset| starts.as_slice().iter().flat_map(|s| window(s, offset)).collect::<Vec<u32>>();
        let shape = [size, n];
        Labelled { tokens: IndexTensor::new(ids(0), &shape), first: 0, labels: IndexTensor::new(ids(1), &shape) }
    }

    fn describe(&self) -> String {
        // Which text it was: a resumed run is not given another of the same name.
        let digest = Sha256::digest(&self.bytes);
        let hash = digest.iter().take(6).fold(String::new(), |mut text, byte| {
            // Writing to a text does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        let (beginning, bytes) = (beginning(self.n_ctx), self.bytes.len());
        format!("{beginning}{} ({bytes} bytes, SHA-256 {hash}..), the last tenth held out", self.name)
    }

    /// What those lose who know only how often bytes, and pairs of bytes, are in the part that is trained on. The
    /// best possible loss of a text is not known.
    fn references(&self, held_out: &Labelled) -> Vec<Reference> {
        let shown = &self.bytes[..self.end()];
        let (mut single, mut pairs) = (vec![1.0; 256], vec![1.0; 256 * 256]);
        for (i, &b) in shown.iter().enumerate() {
            single[usize::from(b)] += 1.0;
            if i > 0 {
                pairs[usize::from(shown[i - 1]) * 256 + usize::from(b)] += 1.0;
            }
        }
        let total: f64 = single.iter().sum();
        let rows: Vec<f64> = pairs.chunks(256).map(|row| row.iter().sum()).collect();
        let sees = |now: &mut usize, token| *now = token as usize;
        let by_byte = |_: &usize, next: u32| single[next as usize] / total;
        let by_pair = |now: &usize, next: u32| pairs[now * 256 + next as usize] / rows[*now];
        vec![
            Reference::new(Reference::EVENLY, 256f64.ln()),
            Reference::new("bytes by how often they are", mean_loss(held_out, sees, by_byte)),
            Reference::new("bytes by the one before", mean_loss(held_out, sees, by_pair)),
        ]
    }
}
