//! [`ActivationCache`]: the activations of a call, by name.

use std::cell::RefCell;

use ironlens_nn::{Activations, HookError, HookInfo, Target};
use ironlens_tensor::{Device, IndexTensor, Tensor};

use crate::error::ModelError;
use crate::hooked::HookedModel;
use crate::model::HookedTransformer;
use crate::names::{ActKey, resolve_act_name};
use crate::slice::Slice;

/// An activation that a cache does not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Nothing is cached under this name.
    #[error("the cache has no `{name}`{}{}; the nearest of its {count} names are {}", short(asked, name), why.as_ref().map(|why| format!(": {why}")).unwrap_or_default(), nearest.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))]
    Missing {
        /// What was asked for.
        asked: String,
        /// The full name that it stands for.
        name: String,
        /// Why, if the model has such an activation: its hook point is off, or it was not kept.
        why: Option<String>,
        /// How many activations there are.
        count: usize,
        /// Names that look like it.
        nearest: Vec<String>,
    },
    /// A layer that the model does not have.
    #[error(transparent)]
    Layer(#[from] crate::names::LayerOutOfRange),
    /// Removing a batch axis that has more than one item.
    #[error("the batch axis can only be removed from a batch of one, this one has {batch} items")]
    Batch {
        /// Its length.
        batch: usize,
    },
}

fn short(asked: &str, name: &str) -> String {
    if asked == name { String::new() } else { format!(" (for `{asked}`)") }
}

/// The activations of a call, in the order in which they were computed, or any that are put in.
///
/// Look them up by full name, or by short name, layer and layer type as TransformerLens does:
///
/// ```
/// # use ironlens_tensor::{Device, IndexTensor};
/// # use ironlens_transformer::{ActFn, ActivationCache, Config, HookedTransformer};
/// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 4, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
/// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
/// # let tokens = IndexTensor::from([[0, 1, 2]]);
/// let (_, cache) = model.run_with_cache(&tokens)?;
/// assert_eq!(cache["hook_embed"].shape(), [1, 3, 8]);
/// for layer in 0..model.config().n_layers {
///     assert_eq!(cache[("attn", layer)].shape(), [1, 2, 3, 3]);
/// }
/// assert_eq!(cache[("normalized", -1, "ln2")].shape(), [1, 3, 8]);
/// assert!(cache.get(("atn", 0)).is_err());
///
/// let mut own = ActivationCache::new(&model);
/// own.insert("hook_probe", cache[("resid_post", -1)].mean(1));
/// assert_eq!(own["probe"].shape(), [1, 8]);
/// # Ok::<(), ironlens_transformer::ModelError>(())
/// ```
///
/// Indexing panics with the error of [`ActivationCache::get`]. `M` is what was run: a [`HookedTransformer`] or a
/// [`HookedEncoder`](crate::HookedEncoder).
#[derive(Clone)]
pub struct ActivationCache<M = HookedTransformer> {
    kept: Activations,
    model: M,
    has_batch_dim: bool,
    /// `[batch, pos]` of the positions that were kept, 0 at padding.
    attention_mask: Option<IndexTensor>,
}

impl<M: HookedModel> ActivationCache<M> {
    /// One of `model` without activations, to be filled by hand.
    pub fn new(model: &M) -> ActivationCache<M> {
        ActivationCache {
            kept: Activations::default(),
            model: model.clone(),
            has_batch_dim: true,
            attention_mask: None,
        }
    }

    /// Puts `value` in under a full name, of the model or not: one with a dot in it, or that begins with `hook_`.
    /// Gives what it stood for.
    pub fn insert(&mut self, name: impl Into<String>, value: Tensor) -> Option<Tensor> {
        self.kept.insert(name, value)
    }

    /// Takes the activation `key` out.
    ///
    /// # Errors
    /// If it is not cached.
    pub fn remove<'k>(&mut self, key: impl Into<ActKey<'k>>) -> Result<Tensor, CacheError> {
        let key = key.into();
        self.get(key)?;
        let name = resolve_act_name(key, self.model.config().n_layers)?;
        Ok(self.kept.remove(&name).expect("it was found"))
    }

    /// The same activations on another device. The model stays where it is.
    pub fn to_device(mut self, device: &Device) -> ActivationCache<M> {
        self.kept = self.kept.to_device(device);
        self
    }

    /// Some items of the batch, negative counting from the end; [`Slice::At`] keeps the axis. Activations that mix the
    /// items in one axis are left out: the rows that came to an expert, and the norms of single queries and keys.
    ///
    /// # Errors
    /// If there is no batch axis, or an item does not exist.
    pub fn apply_slice_to_batch_dim(mut self, items: &Slice) -> Result<ActivationCache<M>, ModelError> {
        if !self.has_batch_dim {
            return Err(ModelError::Options("this cache has no batch axis any more: slice before removing it".into()));
        }
        let mut sliced = Activations::default();
        for (name, whole) in self.iter().filter(|(name, _)| self.is_by_item(name)) {
            sliced.insert(name, items.apply(whole, 0)?);
        }
        self.kept = sliced;
        if let Some(mask) = &mut self.attention_mask {
            *mask = mask.rows(&items.indices(mask.shape()[0])?);
        }
        Ok(self)
    }

    /// The activation `key`.
    ///
    /// # Errors
    /// If it is not cached.
    pub fn get<'k>(&self, key: impl Into<ActKey<'k>>) -> Result<&Tensor, CacheError> {
        let key = key.into();
        let asked = key.name.to_string();
        let name = resolve_act_name(key, self.model.config().n_layers)?;
        match self.kept.get(&name) {
            Some(value) => Ok(value),
            None => Err(CacheError::Missing {
                why: self.why_missing(&name),
                nearest: ironlens_nn::nearest(&name, self.names()),
                count: self.len(),
                asked,
                name,
            }),
        }
    }

    /// Whether the first axis of `name` is the batch, as that of what was put in by hand is.
    fn is_by_item(&self, name: &str) -> bool {
        let hook = name.strip_suffix("_grad").unwrap_or(name);
        self.model.params().registry().hook_axes(hook).is_none_or(|axes| axes.split(' ').next() == Some("batch"))
    }

    /// Why `name` is not here, if the model has a hook point of this name.
    fn why_missing(&self, name: &str) -> Option<String> {
        match Target::from(name).names(self.model.params().registry()) {
            Ok(_) => Some("the call kept others or ended before it, or it has no batch axis and one was sliced".into()),
            Err(HookError::Off { why, .. }) => Some(why),
            Err(_) => None,
        }
    }

    /// The gradient of the activation `key`.
    ///
    /// # Errors
    /// If it is not cached; see [`crate::Call::cached_gradients`].
    pub fn grad<'k>(&self, key: impl Into<ActKey<'k>>) -> Result<&Tensor, CacheError> {
        let name = resolve_act_name(key, self.model.config().n_layers)?;
        self.get(format!("{name}_grad").as_str())
    }

    /// Activation `name` (such as `attn_out`) of layers `0..layer`, of all unless given, along a new first axis. A name
    /// that several parts of a block have needs the part's, such as `ln1` for `scale`.
    ///
    /// # Errors
    /// If one is not cached, or there is no such layer.
    pub fn stack_activation(
        &self,
        name: &str,
        layer: Option<usize>,
        layer_type: Option<&str>,
    ) -> Result<Tensor, ModelError> {
        let n = self.model.config().n_layers;
        let layer = layer.unwrap_or(n);
        if layer == 0 || layer > n {
            return Err(ModelError::Options(format!(
                "activations of the layers before layer {layer} were asked for: give a layer from 1 to {n}"
            )));
        }
        let at = |l: usize| match layer_type {
            Some(of) => self.get((name, l, of)).cloned(),
            None => self.get((name, l)).cloned(),
        };
        let parts: Vec<Tensor> = (0..layer).map(at).collect::<Result<_, _>>()?;
        Ok(Tensor::stack(&parts, 0))
    }

    /// Whether `key` is cached.
    pub fn contains<'k>(&self, key: impl Into<ActKey<'k>>) -> bool {
        self.get(key).is_ok()
    }

    /// All full names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kept.names()
    }

    /// All activations, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.kept.iter()
    }

    /// Number of activations.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The model that was run, with the weights it had.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The mask of the call, `[batch, pos]` of the positions that were kept, 0 at padding.
    pub fn attention_mask(&self) -> Option<&IndexTensor> {
        self.attention_mask.as_ref()
    }

    /// Whether activations have their batch axis.
    pub fn has_batch_dim(&self) -> bool {
        self.has_batch_dim
    }

    /// Bytes that the activations would take in memory of their own.
    pub fn bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// The first activation that has elements which are infinite or no number. Hidden attention scores are
    /// negative infinity by nature.
    pub fn first_not_finite(&self) -> Option<&str> {
        let bad = |(name, value): &(&str, &Tensor)| match name.ends_with("hook_attn_scores") {
            true => value.to_vec().iter().any(|v| v.is_nan() || *v == f32::INFINITY),
            false => !value.all_finite(),
        };
        self.iter().find(bad).map(|(name, _)| name)
    }

    /// The same activations without the batch axis.
    ///
    /// # Errors
    /// If the batch has more than one item.
    pub fn remove_batch_dim(mut self) -> Result<ActivationCache<M>, CacheError> {
        if self.has_batch_dim {
            let mut alone = Activations::default();
            for (name, value) in self.iter() {
                let by_item = self.is_by_item(name);
                if by_item && value.dim(0) != 1 {
                    return Err(CacheError::Batch { batch: value.dim(0) });
                }
                alone.insert(name, if by_item { value.squeeze(0) } else { value.clone() });
            }
            self.kept = alone;
            self.has_batch_dim = false;
        }
        Ok(self)
    }
}

impl<'k, K: Into<ActKey<'k>>, M: HookedModel> std::ops::Index<K> for ActivationCache<M> {
    type Output = Tensor;

    #[track_caller]
    fn index(&self, key: K) -> &Tensor {
        self.get(key).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<'a, M: HookedModel> IntoIterator for &'a ActivationCache<M> {
    type Item = (&'a str, &'a Tensor);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl<M: HookedModel> std::fmt::Debug for ActivationCache<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ActivationCache with keys {:?}", self.names().collect::<Vec<_>>())
    }
}

/// What a recorder keeps of activations, and where.
#[derive(Clone, Default)]
pub(crate) struct Keep {
    pub positions: Slice,
    pub remove_batch_dim: bool,
    /// Where, if not where they are.
    pub device: Option<Device>,
}

/// Fills a cache while a call runs.
pub(crate) struct Recorder<'a, M> {
    model: &'a M,
    keep: &'a Keep,
    attention_mask: Option<IndexTensor>,
    kept: RefCell<Activations>,
}

impl<'a, M: HookedModel> Recorder<'a, M> {
    pub fn new(
        model: &'a M,
        keep: &'a Keep,
        (batch, pos): (usize, usize),
        attention_mask: Option<&IndexTensor>,
    ) -> Result<Self, ModelError> {
        if keep.remove_batch_dim && batch != 1 {
            return Err(CacheError::Batch { batch }.into());
        }
        let positions = keep.positions.indices(pos)?;
        let of_kept = |mask: &IndexTensor| {
            let ids: Vec<u32> = positions.iter().map(|p| *p as u32).collect();
            mask.index_select(1, &IndexTensor::new(ids, &[positions.len()]))
        };
        let attention_mask = attention_mask.map(of_kept);
        Ok(Recorder { model, keep, attention_mask, kept: RefCell::default() })
    }

    pub fn keep(&self, info: &HookInfo<'_>, value: &Tensor) {
        self.insert(info.name.to_string(), info, value);
    }

    pub fn keep_gradient(&self, info: &HookInfo<'_>, grad: &Tensor) {
        self.insert(format!("{}_grad", info.name), info, grad);
    }

    /// A hook point that fires more than once keeps its place and its last value.
    fn insert(&self, name: String, info: &HookInfo<'_>, value: &Tensor) {
        let mut value = value.clone();
        if let Some(axis) = info.pos_axis() {
            value = self.keep.positions.apply(&value, axis).expect("positions were checked before the call");
        }
        if self.keep.remove_batch_dim && info.axis("batch") == Some(0) {
            value = value.squeeze(0);
        }
        if let Some(device) = &self.keep.device {
            value = value.to_device(device);
        }
        self.kept.borrow_mut().insert(name, value);
    }

    pub fn finish(self) -> ActivationCache<M> {
        let has_batch_dim = !self.keep.remove_batch_dim;
        ActivationCache {
            kept: self.kept.into_inner(),
            model: self.model.clone(),
            has_batch_dim,
            attention_mask: self.attention_mask,
        }
    }
}
