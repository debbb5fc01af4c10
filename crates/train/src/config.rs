//! How to train.

use std::str::FromStr;

use ironlens_nn::optim::{Optimizer, Rule};
use ironlens_transformer::{ActFn, Config, NormalizationType, PositionalEmbeddingType};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::memory;
use crate::tasks::Experiment;

/// The learning rate as a multiple of `lr`, by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// 1.
    #[default]
    Constant,
    /// From 0 up to 1 over `warmup_steps`, then 1.
    Warmup,
    /// [`Schedule::Warmup`], then half a cosine, which would be down to 0 at the step after the last.
    Cosine,
    /// `max(step / 100, 1)`: what the notebook runs. It never warms up, and grows from step 100 on.
    Notebook,
}

/// One of `all` by its name.
fn by_name<T: Copy>(all: &[T], of: fn(T) -> &'static str, setting: &'static str, name: &str) -> Result<T, TrainError> {
    all.iter().copied().find(|one| of(*one) == name).ok_or_else(|| TrainError::Setting {
        name: setting,
        given: name.into(),
        expected: format!("one of {}", all.iter().map(|one| of(*one)).collect::<Vec<_>>().join(", ")),
    })
}

impl FromStr for Schedule {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Schedule, TrainError> {
        by_name(&Schedule::ALL, Schedule::name, "schedule", name)
    }
}

impl Schedule {
    /// All of them.
    pub const ALL: [Schedule; 4] = [Schedule::Notebook, Schedule::Warmup, Schedule::Cosine, Schedule::Constant];

    /// Its name, which configurations have.
    pub fn name(self) -> &'static str {
        match self {
            Schedule::Notebook => "notebook",
            Schedule::Warmup => "warmup",
            Schedule::Cosine => "cosine",
            Schedule::Constant => "constant",
        }
    }

    /// Whether it reads the `warmup_steps`.
    pub fn warms_up(self) -> bool {
        match self {
            Schedule::Warmup | Schedule::Cosine => true,
            Schedule::Constant | Schedule::Notebook => false,
        }
    }

    /// The multiple at `step` (from 0) of `steps`, of which `warmup_steps` warm up.
    pub fn factor(self, step: u64, steps: u64, warmup_steps: u64) -> f64 {
        let (at, warm) = (step as f64, warmup_steps as f64);
        let ramp = if step < warmup_steps { at / warm } else { 1.0 };
        match self {
            Schedule::Constant => 1.0,
            Schedule::Warmup => ramp,
            Schedule::Cosine => {
                let progress = (at - warm).max(0.0) / (steps as f64 - warm).max(1.0);
                ramp * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
            }
            Schedule::Notebook => (at / 100.0).max(1.0),
        }
    }
}

/// Which of PyTorch's optimisers trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Adam with decoupled weight decay.
    #[default]
    AdamW,
    /// Adam, with weight decay added to the gradient.
    Adam,
    /// Gradient descent with momentum, with weight decay added to the gradient.
    Sgd,
}

/// Most steps: far beyond any training, and far from where counting them would fail.
const MOST_STEPS: u64 = 1_000_000_000_000;
/// Most batches per step, likewise: all of a run's batches can be counted.
const MOST_BATCHES: u64 = 1_000_000;

/// The settings of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Number of steps.
    pub steps: u64,
    /// Examples (sequences, rows) per batch.
    pub batch_size: usize,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Schedule of the learning rate.
    pub schedule: Schedule,
    /// Steps over which [`Schedule::Warmup`] and [`Schedule::Cosine`] warm up.
    pub warmup_steps: u64,
    /// Which optimiser.
    #[serde(default)]
    pub optimizer: OptimizerName,
    /// Adam's decay of the first and second moment.
    pub betas: (f64, f64),
    /// Adam's epsilon.
    pub eps: f64,
    /// SGD's momentum.
    #[serde(default)]
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Batches per step, whose gradients are averaged; one at a time is in memory.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// Clip gradients to this norm; 0 for no clipping.
    pub max_grad_norm: f64,
    /// Steps between two checkpoints; 0 for one at the end only.
    pub checkpoint_every: u64,
    /// Steps between two lines of output and two held-out losses.
    pub log_every: u64,
    /// Examples of the data's held-out part that held-out losses are measured on.
    pub eval_batch_size: usize,
}

fn one() -> u64 {
    1
}

impl Default for TrainConfig {
    /// PyTorch's AdamW (betas 0.9 and 0.999, decay 0.01) at a constant rate of 1e-3, clipped to norm 1:
    /// 1000 steps of batch 16.
    fn default() -> Self {
        TrainConfig {
            steps: 1000,
            batch_size: 16,
            lr: 1e-3,
            schedule: Schedule::Constant,
            warmup_steps: 100,
            optimizer: OptimizerName::AdamW,
            betas: (0.9, 0.999),
            eps: 1e-8,
            momentum: 0.0,
            weight_decay: 0.01,
            accumulate: 1,
            max_grad_norm: 1.0,
            checkpoint_every: 500,
            log_every: 100,
            eval_batch_size: 10,
        }
    }
}

impl TrainConfig {
    /// The notebook's: 3000 steps of batch 8, AdamW with learning rate 1e-4 on the notebook's schedule,
    /// betas 0.9 and 0.95 and decay 0.1, clipped to norm 1.
    pub fn notebook() -> TrainConfig {
        TrainConfig {
            steps: 3000,
            batch_size: 8,
            lr: 1e-4,
            schedule: Schedule::Notebook,
            betas: (0.9, 0.95),
            weight_decay: 0.1,
            ..TrainConfig::default()
        }
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// Names the setting, its value and what is expected.
    pub fn check(&self) -> Result<(), TrainError> {
        let setting = |ok: bool, name, given: String, expected| match ok {
            true => Ok(()),
            false => Err(TrainError::Setting { name, given, expected: String::from(expected) }),
        };
        let at_least_one = "a whole number from 1";
        setting(self.steps > 0, "steps", self.steps.to_string(), at_least_one)?;
        setting(
            self.steps <= MOST_STEPS,
            "steps",
            self.steps.to_string(),
            "at most 1000000000000, which no machine lives to see",
        )?;
        setting(self.batch_size > 0, "batch_size", self.batch_size.to_string(), at_least_one)?;
        setting(self.eval_batch_size > 0, "eval_batch_size", self.eval_batch_size.to_string(), at_least_one)?;
        setting(self.log_every > 0, "log_every", self.log_every.to_string(), at_least_one)?;
        setting(self.accumulate > 0, "accumulate", self.accumulate.to_string(), at_least_one)?;
        setting(self.accumulate <= MOST_BATCHES, "accumulate", self.accumulate.to_string(), "at most 1000000")?;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        setting(positive(self.lr), "lr", self.lr.to_string(), "a finite number above 0")?;
        setting(positive(self.eps), "eps", self.eps.to_string(), "a finite number above 0")?;
        setting(
            not_negative(self.weight_decay),
            "weight_decay",
            self.weight_decay.to_string(),
            "a finite number from 0",
        )?;
        setting(
            not_negative(self.max_grad_norm),
            "max_grad_norm",
            self.max_grad_norm.to_string(),
            "a finite number from 0; 0 turns clipping off",
        )?;
        setting(
            (0.0..1.0).contains(&self.momentum),
            "momentum",
            self.momentum.to_string(),
            "a number from 0 to below 1",
        )?;
        let beta = |b: f64| (0.0..1.0).contains(&b);
        setting(
            beta(self.betas.0) && beta(self.betas.1),
            "betas",
            format!("{:?}", self.betas),
            "two numbers from 0 to below 1",
        )
    }

    /// Refuses batches of `pos` positions whose activations are beyond this machine's memory.
    ///
    /// # Errors
    /// Names the setting, its value and how much it asks for.
    pub fn check_memory(&self, model: &Config, pos: usize) -> Result<(), TrainError> {
        memory::check("batch_size", self.batch_size, model.step_bytes(self.batch_size, pos))?;
        memory::check("eval_batch_size", self.eval_batch_size, model.pass_bytes(self.eval_batch_size, pos))
    }

    /// The optimiser, with no steps taken.
    pub fn optimizer(&self) -> Optimizer {
        let (betas, eps) = (self.betas, self.eps);
        let rule = match self.optimizer {
            OptimizerName::AdamW => Rule::AdamW { betas, eps },
            OptimizerName::Adam => Rule::Adam { betas, eps },
            OptimizerName::Sgd => Rule::Sgd { momentum: self.momentum },
        };
        Optimizer::new(rule, self.weight_decay)
    }

    /// The norm that gradients are clipped to, if they are.
    pub fn clip(&self) -> Option<f64> {
        (self.max_grad_norm > 0.0).then_some(self.max_grad_norm)
    }

    /// The learning rate of `step`.
    pub fn lr_at(&self, step: u64) -> f64 {
        self.lr * self.schedule.factor(step, self.steps, self.warmup_steps)
    }

    /// Steps before which the attention patterns are kept: the first, then 1, 2, 5, 10, 20, 50, ..,
    /// and after the last.
    pub fn snapshot_steps(&self) -> Vec<u64> {
        let decades = std::iter::successors(Some(10u64), |decade| decade.checked_mul(10));
        let marks = decades.flat_map(|decade| [1, 2, 5].into_iter().filter_map(move |d| decade.checked_mul(d)));
        let between = marks.take_while(|step| *step < self.steps);
        std::iter::once(0).chain(between).chain([self.steps]).collect()
    }
}

/// A model and the way to train it, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The notebook's two-layer model and its 3000 steps.
    Notebook,
    /// A smaller model on the same task, done in under a minute.
    Tiny,
    /// Attention alone, in two layers, on random tokens that are said again and again.
    Induction,
    /// Two small layers of attention on Markov chains.
    Markov,
    /// One layer without norms on sums modulo 113, of which most are held out.
    Grokking,
    /// Four layers on the bytes of a text.
    Text,
}

impl FromStr for Preset {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Preset, TrainError> {
        by_name(&Preset::ALL, Preset::name, "preset", name)
    }
}

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 6] =
        [Preset::Notebook, Preset::Tiny, Preset::Induction, Preset::Markov, Preset::Grokking, Preset::Text];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Notebook => "notebook",
            Preset::Tiny => "tiny",
            Preset::Induction => "induction",
            Preset::Markov => "markov",
            Preset::Grokking => "grokking",
            Preset::Text => "text",
        }
    }

    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Preset::Notebook => "The notebook's two-layer model (d_model 768) and its 3000 steps",
            Preset::Tiny => "A small model on the same task, trained in seconds",
            Preset::Induction => "Random tokens said again and again: two layers foresee them once they repeat",
            Preset::Markov => "Markov chains whose transitions have to be found in context",
            Preset::Grokking => "Sums modulo 113, most of them held out: learned by heart, and much later understood",
            Preset::Text => "The bytes of a text",
        }
    }

    /// The model.
    pub fn model(self) -> Config {
        let gelu = Config { act_fn: ActFn::Gelu, ..Config::default() };
        match self {
            Preset::Notebook => {
                Config { d_model: 768, d_head: 64, n_layers: 2, n_ctx: 128, d_mlp: 3072, d_vocab: 300, ..gelu }
            }
            Preset::Tiny => Config { d_model: 64, d_head: 16, n_layers: 2, n_ctx: 32, d_mlp: 256, d_vocab: 50, ..gelu },
            Preset::Induction => Config {
                d_model: 64,
                d_head: 16,
                n_layers: 2,
                n_ctx: 33,
                d_vocab: 33,
                attn_only: true,
                ..Config::default()
            },
            Preset::Markov => Config {
                d_model: 32,
                d_head: 32,
                n_layers: 2,
                n_ctx: 100,
                d_vocab: 3,
                attn_only: true,
                positional_embedding_type: PositionalEmbeddingType::Rotary,
                ..Config::default()
            },
            Preset::Grokking => Config {
                d_model: 128,
                d_head: 32,
                n_layers: 1,
                n_ctx: 3,
                d_mlp: 512,
                d_vocab: 114,
                d_vocab_out: 113,
                act_fn: ActFn::Relu,
                normalization_type: NormalizationType::None,
                initializer_range: 1.0 / 128f64.sqrt(),
                ..Config::default()
            },
            Preset::Text => {
                Config { d_model: 128, d_head: 32, n_layers: 4, n_ctx: 128, d_mlp: 512, d_vocab: 256, ..gelu }
            }
        }
    }

    /// The task, if it is one of its own.
    pub fn experiment(self) -> Option<Experiment> {
        match self {
            Preset::Notebook | Preset::Tiny => None,
            Preset::Induction => Some(Experiment::Induction),
            Preset::Markov => Some(Experiment::Markov),
            Preset::Grokking => Some(Experiment::ModularAddition),
            Preset::Text => Some(Experiment::Text),
        }
    }

    /// The training.
    pub fn train(self) -> TrainConfig {
        match self {
            Preset::Notebook => TrainConfig::notebook(),
            Preset::Tiny => TrainConfig {
                steps: 1000,
                batch_size: 16,
                lr: 2e-3,
                schedule: Schedule::Warmup,
                checkpoint_every: 250,
                ..TrainConfig::notebook()
            },
            Preset::Induction => TrainConfig {
                steps: 2000,
                batch_size: 64,
                lr: 3e-3,
                schedule: Schedule::Cosine,
                eval_batch_size: 64,
                ..TrainConfig::default()
            },
            Preset::Markov => TrainConfig {
                steps: 2000,
                batch_size: 64,
                lr: 3e-3,
                schedule: Schedule::Cosine,
                eval_batch_size: 256,
                ..TrainConfig::default()
            },
            // Every pair that is shown, in each step.
            Preset::Grokking => TrainConfig {
                steps: 15_000,
                batch_size: 3830,
                lr: 1e-3,
                schedule: Schedule::Warmup,
                warmup_steps: 10,
                betas: (0.9, 0.98),
                weight_decay: 1.0,
                max_grad_norm: 0.0,
                // The report tells the phases of the checkpoints.
                checkpoint_every: 250,
                eval_batch_size: 8939,
                ..TrainConfig::default()
            },
            Preset::Text => TrainConfig {
                steps: 3000,
                batch_size: 16,
                lr: 1e-3,
                schedule: Schedule::Cosine,
                weight_decay: 0.1,
                eval_batch_size: 32,
                ..TrainConfig::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_that_warm_up_read_the_warmup_steps() {
        for schedule in Schedule::ALL {
            let reads = schedule.factor(1, 100, 10) != schedule.factor(1, 100, 0);
            assert_eq!(schedule.warms_up(), reads, "{schedule:?}");
        }
    }

    #[test]
    fn schedules_are_what_they_say() {
        let at = |s: Schedule| [0, 50, 100, 200, 1000].map(|i| s.factor(i, 1000, 100));
        assert_eq!(at(Schedule::Notebook), [1.0, 1.0, 1.0, 2.0, 10.0]);
        assert_eq!(at(Schedule::Warmup), [0.0, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!(at(Schedule::Constant), [1.0; 5]);
        let cosine = at(Schedule::Cosine);
        assert!(cosine[2] == 1.0 && cosine[3] < 1.0 && cosine[4].abs() < 1e-12);
        let half = [50, 550].map(|step| Schedule::Cosine.factor(step, 1000, 100));
        assert!(half.iter().all(|factor| (factor - 0.5).abs() < 1e-12), "{half:?}");
        assert_eq!([0, 4, 8].map(|i| Schedule::Warmup.factor(i, 1000, 8)), [0.0, 0.5, 1.0]);
        assert_eq!(Schedule::Warmup.factor(0, 1000, 0), 1.0);
        assert_eq!(TrainConfig::default().lr_at(700), 1e-3, "the default does not change");
        let warm = TrainConfig { schedule: Schedule::Warmup, ..TrainConfig::default() };
        assert_eq!(warm.lr_at(50), 0.5e-3);
    }

    #[test]
    fn names_are_read_back() {
        assert!(Preset::ALL.iter().all(|preset| preset.name().parse().is_ok_and(|p: Preset| p == *preset)));
        assert!(Schedule::ALL.iter().all(|schedule| schedule.name().parse().is_ok_and(|s: Schedule| s == *schedule)));
        let json = |schedule: &Schedule| serde_json::to_string(schedule).unwrap();
        assert!(Schedule::ALL.iter().all(|schedule| json(schedule) == format!("\"{}\"", schedule.name())));
        let error = "small".parse::<Preset>().unwrap_err().to_string();
        assert_eq!(
            error,
            "preset = small cannot be: expected one of notebook, tiny, induction, markov, grokking, text"
        );
    }

    /// The numbers of the notebook, which its loss is compared by.
    #[test]
    fn the_notebook_s_settings_are_pinned() {
        let config = TrainConfig::notebook();
        assert_eq!((config.steps, config.batch_size, config.accumulate), (3000, 8, 1));
        assert_eq!((config.lr, config.betas, config.weight_decay, config.max_grad_norm), (1e-4, (0.9, 0.95), 0.1, 1.0));
        assert_eq!(config.schedule, Schedule::Notebook);
        // And PyTorch's, of `torch.optim.AdamW`.
        let default = TrainConfig::default();
        assert_eq!((default.lr, default.betas, default.eps, default.weight_decay), (1e-3, (0.9, 0.999), 1e-8, 0.01));
        assert_eq!((default.schedule, default.optimizer), (Schedule::Constant, OptimizerName::AdamW));
    }

    #[test]
    fn runs_from_before_accumulation_took_one_batch_a_step() {
        let mut json = serde_json::to_value(TrainConfig { accumulate: 4, ..TrainConfig::default() }).unwrap();
        assert!(json.as_object_mut().unwrap().remove("accumulate").is_some());
        assert_eq!(serde_json::from_value::<TrainConfig>(json).unwrap().accumulate, 1);
    }

    #[test]
    fn snapshots_are_log_spaced() {
        let steps = TrainConfig { steps: 300, ..TrainConfig::notebook() }.snapshot_steps();
        assert_eq!(steps, [0, 10, 20, 50, 100, 200, 300]);
        assert_eq!(TrainConfig { steps: 1, ..TrainConfig::notebook() }.snapshot_steps(), [0, 1]);
        let once = TrainConfig { steps: 100, ..TrainConfig::notebook() }.snapshot_steps();
        assert_eq!(once, [0, 10, 20, 50, 100]);
        let most = TrainConfig { steps: u64::MAX, ..TrainConfig::notebook() };
        assert_eq!(most.snapshot_steps().last(), Some(&u64::MAX));
        assert!(most.check().unwrap_err().to_string().contains("at most 1000000000000"));
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let bad = TrainConfig { lr: -1.0, ..TrainConfig::notebook() };
        assert_eq!(bad.check().unwrap_err().to_string(), "lr = -1 cannot be: expected a finite number above 0");
        assert!(TrainConfig::notebook().check().is_ok());
        assert!(TrainConfig::default().check().is_ok());
        let check = |change: &dyn Fn(&mut TrainConfig)| {
            let mut config = TrainConfig::default();
            change(&mut config);
            config.check()
        };
        type Set<T> = fn(&mut TrainConfig, T);
        let counts: [(&str, Set<u64>); 5] = [
            ("steps", |c, n| c.steps = n),
            ("batch_size", |c, n| c.batch_size = n as usize),
            ("eval_batch_size", |c, n| c.eval_batch_size = n as usize),
            ("log_every", |c, n| c.log_every = n),
            ("accumulate", |c, n| c.accumulate = n),
        ];
        for (name, set) in counts {
            assert!(check(&|c| set(c, 1)).is_ok(), "{name}");
            let refused = check(&|c| set(c, 0)).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{name} = 0 cannot be")), "{refused}");
        }
        assert!(check(&|c| c.steps = MOST_STEPS).is_ok() && check(&|c| c.steps = MOST_STEPS + 1).is_err());
        assert!(
            check(&|c| c.accumulate = MOST_BATCHES).is_ok() && check(&|c| c.accumulate = MOST_BATCHES + 1).is_err()
        );
        // Whether 0 and 1 are taken, too; nothing below 0 is, nor what is no number.
        let numbers: [(&str, bool, bool, Set<f64>); 7] = [
            ("lr", false, true, |c, x| c.lr = x),
            ("eps", false, true, |c, x| c.eps = x),
            ("weight_decay", true, true, |c, x| c.weight_decay = x),
            ("max_grad_norm", true, true, |c, x| c.max_grad_norm = x),
            ("momentum", true, false, |c, x| c.momentum = x),
            ("betas", true, false, |c, x| c.betas.0 = x),
            ("betas", true, false, |c, x| c.betas.1 = x),
        ];
        for (name, zero, one, set) in numbers {
            for (x, taken) in
                [(0.0, zero), (0.5, true), (1.0, one), (-1.0, false), (f64::INFINITY, false), (f64::NAN, false)]
            {
                match check(&|c| set(c, x)) {
                    Ok(()) => assert!(taken, "{name} = {x}"),
                    Err(e) => assert!(!taken && e.to_string().starts_with(&format!("{name} = ")), "{e}"),
                }
            }
        }
    }

    #[test]
    fn a_norm_of_0_turns_clipping_off() {
        let clip = |max_grad_norm| TrainConfig { max_grad_norm, ..TrainConfig::default() }.clip();
        assert_eq!([clip(0.0), clip(0.5)], [None, Some(0.5)]);
    }

    #[test]
    fn batches_beyond_memory_are_named() {
        let model = Preset::Tiny.model().resolved().unwrap();
        let check = |batch_size, eval_batch_size| {
            TrainConfig { batch_size, eval_batch_size, ..TrainConfig::default() }.check_memory(&model, model.n_ctx)
        };
        assert!(check(16, 10).is_ok());
        for size in [1 << 40, 1 << 63, usize::MAX] {
            let error = check(size, 10).unwrap_err().to_string();
            assert!(error.starts_with(&format!("batch_size = {size} cannot be")), "{error}");
            let error = check(16, size).unwrap_err().to_string();
            assert!(error.starts_with(&format!("eval_batch_size = {size} cannot be")), "{error}");
        }
    }
}
