//! Numbers in JSON, which has none that are not finite: those are `"NaN"`, `"inf"` and `"-inf"`.
//! `null`, which stood for all of them once, is read as NaN.

use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub trait Float: Copy + Into<f64> + std::fmt::Display + FromStr + Serialize {
    const NAN: Self;
}

impl Float for f32 {
    const NAN: f32 = f32::NAN;
}

impl Float for f64 {
    const NAN: f64 = f64::NAN;
}

struct Number<T>(T);

impl<T: Float> Serialize for Number<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.into().is_finite() {
            true => self.0.serialize(s),
            false => s.collect_str(&self.0),
        }
    }
}

impl<'de, T: Float + Deserialize<'de>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Number<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written<T> {
            Finite(T),
            Word(String),
            Null(()),
        }
        match Written::deserialize(d)? {
            Written::Finite(x) => Ok(Number(x)),
            Written::Word(word) => {
                let number = word.parse().map_err(|_| Error::custom(format!("`{word}` is not a number")));
                number.map(Number)
            }
            Written::Null(()) => Ok(Number(T::NAN)),
        }
    }
}

pub fn serialize<T: Float, S: Serializer>(values: &[T], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(values.iter().map(|&v| Number(v)))
}

pub fn deserialize<'de, T: Float + Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(plain(Vec::deserialize(d)?))
}

fn plain<T>(numbers: Vec<Number<T>>) -> Vec<T> {
    numbers.into_iter().map(|n| n.0).collect()
}

/// Lists of numbers with names.
pub mod by_name {
    use super::*;

    pub fn serialize<S: Serializer>(curves: &[(String, Vec<f64>)], s: S) -> Result<S::Ok, S::Error> {
        let numbers = |values: &[f64]| values.iter().map(|&v| Number(v)).collect::<Vec<_>>();
        s.collect_seq(curves.iter().map(|(name, values)| (name, numbers(values))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<(String, Vec<f64>)>, D::Error> {
        let curves: Vec<(String, Vec<Number<f64>>)> = Vec::deserialize(d)?;
        Ok(curves.into_iter().map(|(name, values)| (name, plain(values))).collect())
    }
}
