//! A `config.json` as Hugging Face writes it.

use serde_json::{Map, Value};

use crate::error::PretrainedError;

/// Values by name, and errors that say what a name should have had.
#[derive(Clone, Debug)]
pub struct HfConfig(Map<String, Value>);

impl HfConfig {
    /// Of the text of a `config.json`.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn from_json(text: &str) -> Result<HfConfig, PretrainedError> {
        let map =
            serde_json::from_str(text).map_err(|e| PretrainedError::Config(format!("it is no JSON object: {e}")))?;
        Ok(HfConfig(map))
    }

    /// Of values.
    pub fn from_map(map: Map<String, Value>) -> HfConfig {
        HfConfig(map)
    }

    /// The part `name`, an object of its own, with what is beside it for what it lacks.
    pub fn part(&self, name: &str) -> Option<HfConfig> {
        let part = self.0.get(name)?.as_object()?;
        let mut all = self.0.clone();
        all.extend(part.clone());
        Some(HfConfig(all))
    }

    /// The same with values under the names that families use, of pairs `(other, name)`, and with `defaults`, a JSON
    /// object, for what is absent: files leave out what is as in their class.
    pub(crate) fn completed(&self, names: &[(&str, &str)], defaults: &str) -> HfConfig {
        let mut all: Map<String, Value> = serde_json::from_str(defaults).unwrap_or_default();
        let renamed = names.iter().filter_map(|(other, name)| Some((name.to_string(), self.get(other)?.clone())));
        all.extend(renamed);
        all.extend(self.0.clone());
        HfConfig(all)
    }

    /// The classes that the checkpoint was made for.
    pub fn architectures(&self) -> Vec<&str> {
        self.get("architectures").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The value of `name`, unless it is absent or null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    /// What `read` makes of the value of `name`; `None` where there is none.
    fn optional<'v, T>(
        &'v self,
        name: &str,
        expected: &str,
        read: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, PretrainedError> {
        self.get(name).map(|v| read(v).ok_or_else(|| mistaken(name, &v.to_string(), expected))).transpose()
    }

    /// A whole number, if it is given.
    ///
    /// # Errors
    /// If it is something else.
    pub fn size_if_given(&self, name: &str) -> Result<Option<usize>, PretrainedError> {
        self.optional(name, "a whole number", |v| usize::try_from(v.as_u64()?).ok())
    }

    /// A whole number.
    ///
    /// # Errors
    /// If it is not given, or something else.
    pub fn size(&self, name: &str) -> Result<usize, PretrainedError> {
        self.size_if_given(name)?.ok_or_else(|| mistaken(name, "not given", "a whole number"))
    }

    /// A number of layers or heads, if it is given: lists are made of them before memory is asked for as a whole.
    ///
    /// # Errors
    /// If it is something else, or beyond 2^16.
    pub fn count_if_given(&self, name: &str) -> Result<Option<usize>, PretrainedError> {
        match self.size_if_given(name)? {
            Some(count) if count > 1 << 16 => {
                Err(mistaken(name, &count.to_string(), "at most 2^16; check the number of zeros"))
            }
            count => Ok(count),
        }
    }

    /// A number of layers or heads.
    ///
    /// # Errors
    /// If it is not given, something else, or beyond 2^16.
    pub fn count(&self, name: &str) -> Result<usize, PretrainedError> {
        self.count_if_given(name)?.ok_or_else(|| mistaken(name, "not given", "a whole number"))
    }

    /// A number, if it is given.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number_if_given(&self, name: &str) -> Result<Option<f64>, PretrainedError> {
        self.optional(name, "a number", Value::as_f64)
    }

    /// A number.
    ///
    /// # Errors
    /// If it is not given, or something else.
    pub fn number(&self, name: &str) -> Result<f64, PretrainedError> {
        self.number_if_given(name)?.ok_or_else(|| mistaken(name, "not given", "a number"))
    }

    /// True or false, or `default` where it is not given.
    ///
    /// # Errors
    /// If it is something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, PretrainedError> {
        Ok(self.optional(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// Text, if it is given.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text_if_given(&self, name: &str) -> Result<Option<&str>, PretrainedError> {
        self.optional(name, "text", Value::as_str)
    }

    /// A list, if it is given.
    ///
    /// # Errors
    /// If it is something else, or has an entry that is no number or name as asked for.
    pub fn list_if_given<'v, T>(
        &'v self,
        name: &str,
        entry: impl Fn(&'v Value) -> Option<T> + Copy,
    ) -> Result<Option<Vec<T>>, PretrainedError> {
        self.optional(name, "a list of such values as other models have there", move |v| {
            v.as_array()?.iter().map(entry).collect()
        })
    }
}

/// The error of a value that is not what it should be.
pub(crate) fn mistaken(name: &str, given: &str, expected: &str) -> PretrainedError {
    let given = if given.len() > 80 { "another value" } else { given };
    PretrainedError::Config(format!("`{name}` is {given}, expected {expected}"))
}
