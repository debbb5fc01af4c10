//! What can be wrong with a configuration.

/// A configuration that cannot be read, or that describes no model this crate can build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or not a JSON object.
    #[error("the configuration is not a JSON object of fields: {0}")]
    Json(String),

    /// A field of a name that neither TransformerLens nor this crate has.
    #[error("unknown configuration field `{field}`{}", match .nearest { Some(n) => format!(": did you mean `{n}`?"), None => String::new() })]
    UnknownField {
        /// The name as given.
        field: String,
        /// The known name most like it, if one is like it at all.
        nearest: Option<String>,
    },

    /// A field whose value cannot be.
    #[error("`{field}` is {value}, expected {expected}: {hint}")]
    Invalid {
        /// The field's name.
        field: String,
        /// The value it was given.
        value: String,
        /// What it must be.
        expected: String,
        /// The way out.
        hint: String,
    },

    /// A model that this machine has no room for.
    #[error(
        "`{field}` is {value}: the model's weights would take {needed} of memory, there are {available}; check the number of zeros"
    )]
    Memory {
        /// The field that is farthest beyond what models have.
        field: String,
        /// The value it was given.
        value: usize,
        /// What the weights take.
        needed: String,
        /// What there is.
        available: String,
    },

    /// A field of TransformerLens's whose effect is not implemented here.
    #[error("`{field}` is {value}, which is not supported: {hint}")]
    Unsupported {
        /// The field's name.
        field: String,
        /// The value it was given.
        value: String,
        /// The way out.
        hint: String,
    },
}

/// An [`Invalid`](ConfigError::Invalid) error.
pub(super) fn invalid(
    field: &str,
    value: impl ToString,
    expected: impl Into<String>,
    hint: impl Into<String>,
) -> ConfigError {
    let (value, expected, hint) = (value.to_string(), expected.into(), hint.into());
    ConfigError::Invalid { field: field.into(), value, expected, hint }
}

impl ConfigError {
    /// The field at fault, where there is one.
    pub fn field(&self) -> Option<&str> {
        match self {
            ConfigError::Json(_) => None,
            ConfigError::UnknownField { field, .. }
            | ConfigError::Invalid { field, .. }
            | ConfigError::Memory { field, .. }
            | ConfigError::Unsupported { field, .. } => Some(field),
        }
    }
}

/// The candidate nearest to `text` by edit distance, unless even that one differs in more than half its letters.
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A pasted paragraph is no misspelt field, and comparing it would cost its length times every candidate's.
    if text.len() > 100 {
        return None;
    }
    let best = candidates.into_iter().min_by_key(|c| edit_distance(text, c))?;
    (2 * edit_distance(text, best) <= best.chars().count()).then_some(best)
}

/// The edits from one to the other, ignoring case.
fn edit_distance(a: &str, b: &str) -> usize {
    ironlens_nn::edits(&a.to_lowercase(), &b.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("n_head", "n_heads"), 1);
        assert_eq!(edit_distance("D_MODEL", "d_model"), 0);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn nearest_only_if_near() {
        assert_eq!(nearest("n_layer", ["n_layers", "d_model"]), Some("n_layers"));
        assert_eq!(nearest("zzzzzzz", ["n_layers", "d_model"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
