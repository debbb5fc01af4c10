//! What can go wrong with names: of hooks and of parameters.

use ironlens_tensor::DType;

/// What a hook returns when it cannot go on.
pub type HookFailure = Box<dyn std::error::Error + Send + Sync>;

/// A hook that cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// No hook point has this name.
    #[error("there is no hook point `{name}`; the nearest names are {}", list(nearest))]
    Unknown {
        /// The name given.
        name: String,
        /// Names that look like it, best first.
        nearest: Vec<String>,
    },
    /// A predicate that is true of no hook point.
    #[error("a hook's predicate matches none of the {count} hook points that can fire, such as {}", list(examples))]
    NoMatch {
        /// How many there are.
        count: usize,
        /// Some of them.
        examples: Vec<String>,
    },
    /// The hook point exists but never fires in this model as it is.
    #[error("hook point `{name}` does not fire here: {why}")]
    Off {
        /// Its name.
        name: String,
        /// The switch that is off, and how to turn it on.
        why: String,
    },
    /// A pass is to be differentiated by weights of 16 bits.
    #[error(
        "`{name}` is stored as {storage}, which has no gradient: store the weights as f32 (`store_as(DType::F32)`, or \
         `storage` when they are loaded), or freeze it"
    )]
    NoGradient {
        /// One of the weights.
        name: String,
        /// The type that it is stored in.
        storage: DType,
    },
    /// A backward hook in a pass that has no gradients.
    #[error(
        "a backward hook listens at {at}, and this pass goes forward only, so that it would never run: run it with \
         `gradients` (or `cached_gradients`), which take a loss"
    )]
    ForwardOnly {
        /// Where it listens.
        at: String,
    },
    /// A hook left a value or gradient of another shape, type or device.
    #[error(
        "a hook at `{name}` turned a {what} of {expected} into one of {given}; shape, type and device must stay (see \
         `to_dtype` and `to_device`)"
    )]
    Changed {
        /// The hook point.
        name: String,
        /// `value` in a forward hook, `gradient` in a backward hook.
        what: &'static str,
        /// Shape, type and device that it had.
        expected: String,
        /// Those that it was left with.
        given: String,
    },
    /// A hook returned an error.
    #[error("the hook at `{name}` failed: {source}")]
    Failed {
        /// The hook point.
        name: String,
        /// What it returned.
        source: HookFailure,
    },
}

/// A parameter that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// No parameter has this name.
    #[error("there is no parameter `{name}`; the nearest names are {}", list(nearest))]
    Unknown {
        /// The name given.
        name: String,
        /// Names that look like it, best first.
        nearest: Vec<String>,
    },
    /// A value that has to be given and was not.
    #[error("`{name}` is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A value of the wrong shape.
    #[error("parameter `{name}` has shape {expected:?}, the value given has shape {given:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The value's shape.
        given: Vec<usize>,
    },
}

fn list(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// The names most like `name`: fewest edits first.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut ranked: Vec<(usize, &str)> = names.map(|n| (edits(name, n), n)).collect();
    ranked.sort();
    ranked.into_iter().take(3).map(|(_, n)| n.to_string()).collect()
}

/// How many letters must be changed, added or left out to turn `a` into `b` (Levenshtein's distance).
pub fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let best = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}
