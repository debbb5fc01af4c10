//! Markov chains whose transitions are drawn anew for each sequence, so that they must be found in context (Edelman
//! et al. 2024, arXiv 2402.11004). Learning goes by plateaus: guessing evenly, counting states, counting transitions.

use std::collections::HashMap;

use ironlens_tensor::{Device, IndexTensor, Rng};
use ironlens_transformer::Config;

use super::drawn::{Drawn, Source};
use super::{Labelled, mean_loss, setting};
use crate::data::Reference;
use crate::error::TrainError;

/// Chains of `n_ctx` of `d_vocab` states: the rows of each sequence's transition matrix are drawn evenly from all
/// distributions (Dirichlet with parameters 1), its first state evenly from all states.
pub type Markov = Drawn<Chains>;

/// The sequences of [`Markov`].
#[derive(Clone, Debug)]
pub struct Chains {
    states: usize,
    n_ctx: usize,
}

impl Markov {
    /// For a model of this configuration.
    ///
    /// # Errors
    /// If it has fewer than two tokens or three positions, or more states than a matrix of transitions should have.
    pub fn new(cfg: &Config, seed: u64) -> Result<Markov, TrainError> {
        setting((2..=1024).contains(&cfg.d_vocab), "d_vocab", cfg.d_vocab, "from 2 to 1024 states")?;
        setting(cfg.n_ctx >= 3, "n_ctx", cfg.n_ctx, "at least 3 states in a row")?;
        Ok(Drawn::of(Chains { states: cfg.d_vocab, n_ctx: cfg.n_ctx }, seed))
    }
}

/// What was seen of a chain.
#[derive(Default)]
struct Seen {
    length: usize,
    now: Option<u32>,
    states: HashMap<u32, usize>,
    transitions: HashMap<(u32, u32), usize>,
}

impl Seen {
    fn see(&mut self, state: u32) {
        self.length += 1;
        *self.states.entry(state).or_default() += 1;
        if let Some(before) = self.now.replace(state) {
            *self.transitions.entry((before, state)).or_default() += 1;
        }
    }

    fn times(&self, state: u32) -> f64 {
        self.states.get(&state).copied().unwrap_or(0) as f64
    }
}

impl Source for Chains {
    fn bytes_of_one(&self) -> usize {
        4 * (self.states * self.states + 3 * self.n_ctx)
    }

    fn draw(&self, mut rng: Rng, size: usize, _: bool) -> Labelled {
        let (k, n) = (self.states, self.n_ctx);
        let mut ids = Vec::with_capacity(size * n);
        for _ in 0..size {
            // Exponential numbers over their sum are spread as Dirichlet with parameters 1.
            let drawn = rng.uniform(&[k, k], 0.0, 1.0, &Device::Cpu).to_vec();
            let weights: Vec<f64> = drawn.iter().map(|u| -(1.0 - f64::from(*u)).max(1e-12).ln()).collect();
            let drawn = rng.uniform(&[n], 0.0, 1.0, &Device::Cpu).to_vec();
            let mut state = (f64::from(drawn[0]) * k as f64) as usize % k;
            ids.push(state as u32);
            for u in &drawn[1..] {
                let row = &weights[state * k..(state + 1) * k];
                let mut left = f64::from(*u) * row.iter().sum::<f64>();
                state = row
                    .iter()
                    .position(|w| {
                        left -= w;
                        left < 0.0
                    })
                    .unwrap_or(k - 1);
                ids.push(state as u32);
            }
        }
        Labelled::next_tokens(IndexTensor::new(ids, &[size, n]))
    }

    fn describe(&self) -> String {
        format!("Markov chains of {} of {} states, the transitions of each drawn evenly", self.n_ctx, self.states)
    }

    /// Of the very sequences: nobody can do better on average than who counts transitions and adds 1 to each
    /// (Bayes' rule with the prior that they are drawn from).
    fn references(&self, held_out: &Labelled) -> Vec<Reference> {
        let k = self.states as f64;
        let by_states = |seen: &Seen, next: u32| (seen.times(next) + 1.0) / (seen.length as f64 + k);
        let by_transitions = |seen: &Seen, next: u32| {
            let Some(now) = seen.now else { return 1.0 / k };
            let to_next = seen.transitions.get(&(now, next)).copied().unwrap_or(0) as f64;
            // After all of its states but this one something came.
            (to_next + 1.0) / (seen.times(now) - 1.0 + k)
        };
        vec![
            Reference::new(Reference::EVENLY, k.ln()),
            Reference::new("counting states", mean_loss(held_out, Seen::see, by_states)),
            Reference::best("counting transitions", mean_loss(held_out, Seen::see, by_transitions)),
        ]
    }
}
