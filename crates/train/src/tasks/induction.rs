//! Random tokens, said again and again: what came after a token before comes after it again, which a model of two
//! layers finds (Olsson et al. 2022, arXiv 2209.11895), and one of one layer cannot.

use ironlens_tensor::{IndexTensor, Rng};
use ironlens_transformer::Config;

use super::drawn::{Drawn, Source};
use super::{Labelled, mean_loss, setting};
use crate::data::Reference;
use crate::error::TrainError;

/// Sequences `[0, s, s, ..]` of `n_ctx` tokens: `s` are different tokens drawn evenly from the ids `1..d_vocab`, as
/// many as are drawn evenly from a quarter of the context to a half of it. (Of one fixed length, the second time could
/// be foreseen by position alone.)
pub type Induction = Drawn<Repeated>;

/// The sequences of [`Induction`].
#[derive(Clone, Debug)]
pub struct Repeated {
    d_vocab: u32,
    n_ctx: usize,
}

impl Induction {
    /// For a model of this configuration.
    ///
    /// # Errors
    /// If it has fewer than nine positions, or too few tokens to draw different ones.
    pub fn new(cfg: &Config, seed: u64) -> Result<Induction, TrainError> {
        setting(
            (9..=1 << 16).contains(&cfg.n_ctx),
            "n_ctx",
            cfg.n_ctx,
            "from 9 to 65536: one to begin with, and tokens twice",
        )?;
        let least = format!("more than {}, the most tokens before they repeat, and at most 65536", (cfg.n_ctx - 1) / 2);
        setting((cfg.n_ctx / 2 + 1..=1 << 16).contains(&cfg.d_vocab), "d_vocab", cfg.d_vocab, &least)?;
        Ok(Drawn::of(Repeated { d_vocab: cfg.d_vocab as u32, n_ctx: cfg.n_ctx }, seed))
    }
}

impl Repeated {
    /// How many tokens there may be before they repeat.
    fn lengths(&self) -> (usize, usize) {
        ((self.n_ctx - 1) / 4, (self.n_ctx - 1) / 2)
    }
}

/// What was said of a sequence after its 0.
#[derive(Clone, Copy, Default)]
struct Said {
    first: Option<u32>,
    count: usize,
    /// Whether the first token came again.
    again: bool,
}

impl Source for Repeated {
    fn bytes_of_one(&self) -> usize {
        16 * self.n_ctx
    }

    fn draw(&self, mut rng: Rng, size: usize, _: bool) -> Labelled {
        let (least, most) = self.lengths();
        let lengths = rng.integers(&[size], least as u32, most as u32 + 1);
        let mut all: Vec<u32> = (1..self.d_vocab).collect();
        let mut ids = Vec::with_capacity(size * self.n_ctx);
        for &length in lengths.as_slice() {
            rng.shuffle(&mut all);
            ids.push(0);
            ids.extend((0..self.n_ctx - 1).map(|i| all[i % length as usize]));
        }
        Labelled::next_tokens(IndexTensor::new(ids, &[size, self.n_ctx]))
    }

    fn describe(&self) -> String {
        let (least, most) = self.lengths();
        format!(
            "{least} to {most} different tokens from 1 to {}, said again and again after a 0, {} positions in all",
            self.d_vocab - 1,
            self.n_ctx
        )
    }

    /// Of the very sequences: the best guesser knows how they are drawn (Bayes' rule). Before the first token comes
    /// again, it may come now or any other may that was not seen; from then on everything is certain.
    fn references(&self, held_out: &Labelled) -> Vec<Reference> {
        let (least, most) = self.lengths();
        let tokens = f64::from(self.d_vocab - 1);
        let sees = |seen: &mut Option<Said>, token: u32| match seen {
            None => *seen = Some(Said::default()),
            Some(said) => {
                said.again |= said.first == Some(token);
                said.first.get_or_insert(token);
                said.count += 1;
            }
        };
        let foreseen = |seen: &Option<Said>, next: u32| {
            let Said { first, count, again } = seen.unwrap_or_default();
            if again {
                return 1.0;
            }
            // The chance that there are no more tokens than these.
            let again = if count < least { 0.0 } else { 1.0 / (most - count + 1) as f64 };
            match first == Some(next) {
                true => again,
                false => (1.0 - again) / (tokens - count as f64),
            }
        };
        vec![
            Reference::new(Reference::EVENLY, tokens.ln()),
            Reference::best("all that can be foreseen", mean_loss(held_out, sees, foreseen)),
        ]
    }
}
