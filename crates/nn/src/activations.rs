//! [`Activations`]: the values at hook points, by name.

use std::collections::HashMap;
use std::fmt;

use ironlens_tensor::{Device, Tensor};

use crate::error::nearest;

/// Activations of a pass by the full names of their hook points, in the order in which they were computed.
///
/// ```
/// # use ironlens_nn::Activations;
/// # use ironlens_tensor::Tensor;
/// let mut activations = Activations::default();
/// activations.insert("hook_hidden", Tensor::from([1.0, 2.0]));
/// assert_eq!(activations["hook_hidden"].shape(), [2]);
/// assert!(activations.get("hook_out").is_none());
/// ```
///
/// Indexing panics where there is none, and tells the nearest names.
#[derive(Clone, Default)]
pub struct Activations {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
}

impl Activations {
    /// The activation `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.entries[i].1)
    }

    /// Puts `value` in. A name that is there keeps its place; gives what it stood for.
    pub fn insert(&mut self, name: impl Into<String>, value: Tensor) -> Option<Tensor> {
        let name = name.into();
        match self.index.get(&name) {
            Some(&i) => Some(std::mem::replace(&mut self.entries[i].1, value)),
            None => {
                self.index.insert(name.clone(), self.entries.len());
                self.entries.push((name, value));
                None
            }
        }
    }

    /// Takes the activation `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        let at = self.index.remove(name)?;
        self.index.values_mut().filter(|i| **i > at).for_each(|i| *i -= 1);
        Some(self.entries.remove(at).1)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// All activations, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// All activations, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Number of activations.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the activations would take in memory of their own.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|(_, t)| t.numel() * t.dtype().size()).sum()
    }

    /// The same on another device.
    #[must_use]
    pub fn to_device(mut self, device: &Device) -> Activations {
        self.values_mut().for_each(|value| *value = value.to_device(device));
        self
    }
}

impl std::ops::Index<&str> for Activations {
    type Output = Tensor;

    #[track_caller]
    fn index(&self, name: &str) -> &Tensor {
        self.get(name).unwrap_or_else(|| {
            panic!("no activation is called `{name}`; the nearest names are {:?}", nearest(name, self.names()))
        })
    }
}

impl<'a> IntoIterator for &'a Activations {
    type Item = (&'a str, &'a Tensor);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// Names and shapes.
impl fmt::Debug for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, value.shape()))).finish()
    }
}
