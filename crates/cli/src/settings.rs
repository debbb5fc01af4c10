//! What to train: a preset, a TOML file over it, flags over both.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ironlens::nn::nearest;
use ironlens::tensor::Device;
use ironlens::train::{Experiment, OptimizerName, Preset, Schedule, Task, TrainConfig};
use ironlens::transformer::Config;
use serde::Deserialize;

use crate::input::{above_zero, from_one, from_zero, read_text};

/// Flags that say what to train.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Settings {
    /// The model and training to start from
    #[arg(long, value_parser = presets(), default_value = "notebook")]
    pub preset: Preset,
    /// The text that the preset text learns
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// TOML file with tables [model] (TransformerLens's config fields) and [train]; wins over the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Number of training steps
    #[arg(long, value_name = "N", value_parser = from_one::<u64>, allow_negative_numbers = true)]
    pub steps: Option<u64>,
    /// Sequences per step
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, allow_negative_numbers = true)]
    pub batch_size: Option<usize>,
    /// Learning rate before the schedule
    #[arg(long, value_name = "RATE", value_parser = above_zero, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// Learning rate over time: constant, warmup = lr * min(step/WARMUP_STEPS, 1), cosine = warmup,
    /// then down to 0, notebook = lr * max(step/100, 1)
    #[arg(long, value_parser = schedules())]
    pub schedule: Option<Schedule>,
    /// Steps over which the schedules warmup and cosine warm up
    #[arg(long, value_name = "N", value_parser = from_zero::<u64>, allow_negative_numbers = true)]
    pub warmup_steps: Option<u64>,
    /// Seed of the starting weights
    #[arg(long, value_name = "N", value_parser = from_zero::<u64>, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Steps between two checkpoints; 0 for one at the end only
    #[arg(long, value_name = "N", value_parser = from_zero::<u64>, allow_negative_numbers = true)]
    pub checkpoint_every: Option<u64>,
    /// Steps between two lines of output and two held-out losses
    #[arg(long, value_name = "N", value_parser = from_one::<u64>, allow_negative_numbers = true)]
    pub log_every: Option<u64>,
}

/// A training, resolved.
#[derive(Debug)]
pub struct Recipe {
    /// The model.
    pub model: Config,
    /// How it is trained.
    pub train: TrainConfig,
    /// What it learns, of random tokens.
    pub task: Task,
    /// What it learns instead.
    pub experiment: Option<Experiment>,
    /// The text that it learns.
    pub text: Option<PathBuf>,
    /// Seed of the starting weights.
    pub seed: u64,
    /// Seed of the tokens.
    pub data_seed: u64,
}

/// Seed of the starting weights unless told otherwise.
const SEED: u64 = 42;
/// Seed of the tokens unless told otherwise.
pub const DATA_SEED: u64 = 137;

/// Fields of [train] that are not the trainer's.
const OF_RECIPE: [&str; 3] = ["task", "seed", "data_seed"];

/// The file that `--config` names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Option<toml::Table>,
    train: Option<toml::Table>,
}

/// A flag's preset, listed with what it is.
fn presets() -> impl TypedValueParser<Value = Preset> {
    let names = Preset::ALL.map(|preset| PossibleValue::new(preset.name()).help(preset.describe()));
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

/// A flag's schedule.
fn schedules() -> impl TypedValueParser<Value = Schedule> {
    PossibleValuesParser::new(Schedule::ALL.map(Schedule::name)).try_map(|name| name.parse())
}

impl Settings {
    /// The model and the training that the flags ask for, checked.
    ///
    /// # Errors
    /// If the file cannot be read or has an unknown field, or a setting cannot be.
    pub fn resolve(&self) -> Result<Recipe> {
        let mut recipe = Recipe::new(self.preset);
        match (&self.text, recipe.experiment) {
            (Some(path), Some(Experiment::Text)) => recipe.text = Some(path.clone()),
            (None, Some(Experiment::Text)) => bail!("--preset text needs a text; name a file with --text FILE"),
            (Some(_), _) => bail!("--text goes with --preset text"),
            (None, _) => {}
        }
        let file = match &self.config {
            Some(path) => {
                let name = path.display().to_string();
                let given = recipe.put(&name, &read_text(path, "the configuration")?)?;
                Some((name, given))
            }
            None => None,
        };
        recipe.seed = self.seed.unwrap_or(recipe.seed);
        let train = &mut recipe.train;
        train.steps = self.steps.unwrap_or(train.steps);
        train.batch_size = self.batch_size.unwrap_or(train.batch_size);
        train.lr = self.lr.unwrap_or(train.lr);
        train.schedule = self.schedule.unwrap_or(train.schedule);
        train.warmup_steps = self.warmup_steps.unwrap_or(train.warmup_steps);
        train.checkpoint_every = self.checkpoint_every.unwrap_or(train.checkpoint_every);
        train.log_every = self.log_every.unwrap_or(train.log_every);
        if self.warmup_steps.is_some() && !recipe.train.schedule.warms_up() {
            bail!("--warmup-steps goes with --schedule warmup or cosine; the others do not warm up");
        }
        // The flags decide what is read of the file, too.
        if let Some((name, given)) = file {
            recipe.check_read(&name, &given)?;
        }
        recipe.check()
    }
}

impl Recipe {
    /// That of a preset.
    pub fn new(preset: Preset) -> Recipe {
        Recipe {
            model: preset.model(),
            train: preset.train(),
            task: Task::default(),
            experiment: preset.experiment(),
            text: None,
            seed: SEED,
            data_seed: DATA_SEED,
        }
    }

    /// Puts the fields of TOML text in their place, as `--config` does. `name` is what errors call the text.
    ///
    /// # Errors
    /// If it is no such text, or has a field that is unknown, of another type, or that nothing reads.
    pub fn overlay(&mut self, name: &str, text: &str) -> Result<()> {
        let given = self.put(name, text)?;
        self.check_read(name, &given)
    }

    /// The same; gives the fields of [train] that there are, which [`Recipe::check_read`] is to be asked about.
    fn put(&mut self, name: &str, text: &str) -> Result<Vec<String>> {
        let bad = || format!("{name} is not a configuration; expected TOML tables [model] and [train]");
        let file: File = toml::from_str(text).with_context(bad)?;
        for (table_name, table) in [("model", &file.model), ("train", &file.train)] {
            let not_finite = table.iter().flatten().find_map(|(field, value)| not_finite(field, value));
            if let Some((field, number)) = not_finite {
                bail!("{name}: [{table_name}] {field} = {number} cannot be: expected a finite value");
            }
        }
        if let Some(table) = file.model {
            if table.contains_key("device") {
                bail!("{name}: [model] has a device; say with --device where to compute: auto, cpu or gpu");
            }
            // A given size replaces what was derived from the preset's.
            let mut fields = serde_json::to_value(&self.model)?;
            let given = serde_json::to_value(&table)?;
            let (Some(fields), Some(given)) = (fields.as_object_mut(), given.as_object()) else { bail!(bad()) };
            for (key, value) in given {
                fields.insert(key.clone(), value.clone());
            }
            self.model = serde_json::from_value(fields.clone().into()).with_context(|| format!("{name}: [model]"))?;
        }
        // That of the model, unless [train] has one.
        self.seed = self.model.seed.unwrap_or(self.seed);
        let mut given = Vec::new();
        if let Some(table) = file.train {
            let mut fields = toml::Table::try_from(&self.train)?;
            let known: Vec<String> = fields.keys().cloned().chain(OF_RECIPE.map(String::from)).collect();
            for (key, value) in table {
                if !known.contains(&key) {
                    let near = nearest(&key, known.iter().map(String::as_str)).swap_remove(0);
                    bail!(
                        "{name}: [train] has an unknown field `{key}`, expected one of {}; the nearest is {near}",
                        known.join(", ")
                    );
                }
                given.push(key.clone());
                // One by one, so that the error names the one that cannot be.
                let cannot = |e: toml::de::Error| {
                    anyhow!("{name}: [train] {key} = {value} cannot be: {}", in_words(e.message()))
                };
                match key.as_str() {
                    "task" if self.experiment.is_some() => {
                        bail!("{name}: [train] task goes with random tokens; this preset has a task of its own")
                    }
                    "task" => self.task = value.clone().try_into().map_err(cannot)?,
                    "seed" => self.seed = value.clone().try_into().map_err(cannot)?,
                    "data_seed" => self.data_seed = value.clone().try_into().map_err(cannot)?,
                    _ => {
                        fields.insert(key.clone(), value.clone());
                        self.train = fields.clone().try_into().map_err(cannot)?;
                    }
                }
            }
        }
        Ok(given)
    }

    /// Refuses fields of [train] that are given and that nothing reads, as a flag would be.
    fn check_read(&self, name: &str, given: &[String]) -> Result<()> {
        let (optimizer, schedule) = (self.train.optimizer, self.train.schedule);
        for field in given {
            let (read, by) = match field.as_str() {
                "momentum" => (optimizer == OptimizerName::Sgd, "optimizer = \"sgd\""),
                "betas" | "eps" => (optimizer != OptimizerName::Sgd, "optimizer = \"adamw\" or \"adam\""),
                "warmup_steps" => (schedule.warms_up(), "schedule = \"warmup\" or \"cosine\""),
                _ => continue,
            };
            if !read {
                bail!("{name}: [train] {field} goes with {by}; nothing reads it here, so leave it out");
            }
        }
        Ok(())
    }

    /// With what follows from its sizes; refuses what cannot be.
    ///
    /// # Errors
    /// Names the setting, its value and what is expected.
    pub fn check(mut self) -> Result<Recipe> {
        self.train.check()?;
        self.model.check_memory(&Device::Cpu)?;
        // What is kept says what was drawn.
        self.model.seed = self.model.seed.and(Some(self.seed));
        let model = self.model.resolved()?;
        self.train.check_memory(&model, model.n_ctx)?;
        if model.n_ctx < 2 {
            bail!("n_ctx = {} cannot be: the task needs at least two positions", model.n_ctx);
        }
        if self.experiment.is_none() && model.d_vocab_out < model.d_vocab {
            bail!(
                "d_vocab_out = {} cannot be: the task predicts any of the d_vocab = {} tokens",
                model.d_vocab_out,
                model.d_vocab
            );
        }
        Ok(Recipe { model, ..self })
    }
}

/// What a field expects, in words of no programming language.
fn in_words(expected: &str) -> String {
    let words = [
        ("expected u64", "expected a whole number from 0"),
        ("expected usize", "expected a whole number from 0"),
        ("expected f64", "expected a number"),
        ("invalid type: ", "got "),
        ("invalid value: ", "got "),
        ("invalid length ", "got a list of length "),
        ("a tuple of size 2", "a list of two numbers"),
    ];
    words.iter().fold(expected.trim_end().to_string(), |text, (from, to)| text.replace(from, to))
}

/// A number in a setting that is none, such as `nan`, with where it is. JSON, through which settings pass,
/// would make it null, which means a default.
fn not_finite(field: &str, value: &toml::Value) -> Option<(String, f64)> {
    match value {
        toml::Value::Float(number) if !number.is_finite() => Some((field.into(), *number)),
        toml::Value::Array(all) => all.iter().find_map(|value| not_finite(field, value)),
        toml::Value::Table(table) => {
            table.iter().find_map(|(inner, value)| not_finite(&format!("{field}.{inner}"), value))
        }
        _ => None,
    }
}
