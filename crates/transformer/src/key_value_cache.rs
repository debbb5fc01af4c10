//! [`KeyValueCache`]: the rows that a model has read, so that those to come are computed alone.

use ironlens_nn::{Padding, Past};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};

use crate::error::ModelError;
use crate::model::HookedTransformer;
use crate::names::{LayerIndex, resolve_layer};

/// What attention of a model looks back on: the keys and values of every position so far, layer by layer
/// (TransformerLens's `HookedTransformerKeyValueCache`). A call with one ([`crate::Call::past_kv_cache`]) reads its
/// input as what follows, and appends it.
///
/// Clones share memory until one of them grows, so that several continuations may begin at one place. Where layers
/// see a window only, positions that nothing to come can see are given up. Edits by hooks are kept: keys and values
/// are what `hook_k` and `hook_v` left.
///
/// ```
/// # use ironlens_tensor::{Device, IndexTensor};
/// # use ironlens_transformer::{ActFn, Config, HookedTransformer, KeyValueCache};
/// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
/// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
/// let mut past = KeyValueCache::new(&model, 1);
/// model.call(&IndexTensor::from([[0, 1, 2]])).past_kv_cache(&mut past).output()?;
/// let mut other = past.clone();
/// let next = model.call(&IndexTensor::from([[3]])).past_kv_cache(&mut past).output()?;
/// model.call(&IndexTensor::from([[4, 4]])).past_kv_cache(&mut other).output()?;
/// assert_eq!((past.len(), other.len()), (4, 5));
///
/// let whole = model.forward(&IndexTensor::from([[0, 1, 2, 3]]))?;
/// assert_eq!(next.logits().value().to_vec(), whole.narrow(1, 3, 1).to_vec());       // to the bit
/// # Ok::<(), ironlens_transformer::ModelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyValueCache {
    of: Kind,
    batch: usize,
    len: usize,
    layers: Vec<Past>,
    windows: Vec<Option<usize>>,
    /// `[batch, len]`, 0 at padding; none if there is none.
    mask: Option<IndexTensor>,
    frozen: bool,
}

/// What a model must be alike in to go on from a cache.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    layers: usize,
    /// `(kv_heads, d_head)`
    heads: (usize, usize),
    dtype: DType,
    device: Device,
}

impl Kind {
    fn of(model: &HookedTransformer) -> Kind {
        let cfg = model.config();
        let heads = (cfg.n_hooked_key_value_heads(), cfg.d_head);
        Kind { layers: cfg.n_layers, heads, dtype: model.params().dtype(), device: model.device().clone() }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (heads, width) = self.heads;
        write!(f, "{} layers of {heads} key heads of width {width}, {} on {}", self.layers, self.dtype, self.device)
    }
}

impl KeyValueCache {
    /// Without positions yet, for `batch` sequences side by side.
    pub fn new(model: &HookedTransformer, batch: usize) -> KeyValueCache {
        let layers = model.config().n_layers;
        KeyValueCache {
            of: Kind::of(model),
            batch,
            len: 0,
            layers: vec![Past::default(); layers],
            windows: model.net.blocks.iter().map(|block| block.attn.spec(None).window).collect(),
            mask: None,
            frozen: false,
        }
    }

    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// How many positions each sequence has, padding counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many the longest sequence has, padding aside.
    pub(crate) fn longest(&self) -> usize {
        self.mask.as_ref().map_or(self.len, |mask| if self.len == 0 { 0 } else { Padding::new(mask).longest() })
    }

    /// Whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held, room for growth included.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(Past::bytes).sum()
    }

    /// `[batch, len]`, 0 at padding; `None` if there is none.
    pub fn attention_mask(&self) -> Option<&IndexTensor> {
        self.mask.as_ref()
    }

    /// Keys of a layer as `hook_k` left them, before norms and rotation, `[batch, pos, kv_head, d_head]`; in a layer
    /// that sees a window, those of the last positions only. `None` if nothing was read yet.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn keys(&self, layer: impl Into<LayerIndex>) -> Result<Option<Tensor>, ModelError> {
        Ok(self.layers[resolve_layer(layer.into().0, self.layers.len())?].keys())
    }

    /// Values of a layer as `hook_v` left them; else as [`KeyValueCache::keys`].
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn values(&self, layer: impl Into<LayerIndex>) -> Result<Option<Tensor>, ModelError> {
        Ok(self.layers[resolve_layer(layer.into().0, self.layers.len())?].values())
    }

    /// From now on, calls read the cache and leave it as it is.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// From now on, calls append to the cache.
    pub fn unfreeze(&mut self) {
        self.frozen = false;
    }

    /// Forgets all positions from `len` on; with more than there are, nothing.
    ///
    /// # Errors
    /// If a layer that sees a window has given up positions that the one at `len` would see.
    pub fn truncate(&mut self, len: usize) -> Result<(), ModelError> {
        let mut layers = self.layers.clone();
        for (layer, (past, window)) in layers.iter_mut().zip(&self.windows).enumerate() {
            if !past.truncate(len, *window) {
                return Err(ModelError::Options(format!(
                    "the cache cannot go back to {len} positions: layer {layer} sees a window of {} and has given up \
                     the first {}; keep a clone from then",
                    window.unwrap_or(0),
                    past.dropped()
                )));
            }
        }
        self.layers = layers;
        self.len = self.len.min(len);
        self.mask = self.mask.take().map(|mask| mask.narrow(1, 0, self.len));
        Ok(())
    }

    /// The sequences `items`, each as often as it is named: `&[0; 4]` makes four continuations of one prompt.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn select(&self, items: &[usize]) -> Result<KeyValueCache, ModelError> {
        if let Some(item) = items.iter().find(|item| **item >= self.batch) {
            return Err(ModelError::Options(format!(
                "the cache has {} sequences, none has the number {item}",
                self.batch
            )));
        }
        let ids = IndexTensor::new(items.iter().map(|&i| i as u32).collect::<Vec<_>>(), &[items.len()]);
        Ok(KeyValueCache {
            of: self.of.clone(),
            batch: items.len(),
            len: self.len,
            layers: self.layers.iter().map(|past| past.select(&ids)).collect(),
            windows: self.windows.clone(),
            mask: self.mask.as_ref().map(|mask| mask.rows(items)),
            frozen: self.frozen,
        })
    }

    /// Refuses input of `[batch, pos]` that does not follow what was read.
    pub(crate) fn check(&self, model: &HookedTransformer, [batch, pos]: [usize; 2]) -> Result<(), ModelError> {
        let of = Kind::of(model);
        if of != self.of {
            return Err(ModelError::Options(format!(
                "the cache of keys and values is of another model: it holds {}, the model has {of}",
                self.of
            )));
        }
        if batch != self.batch {
            return Err(ModelError::Options(format!(
                "the cache of keys and values is of {} sequences, the input of {batch}; KeyValueCache::select makes \
                 one of others",
                self.batch
            )));
        }
        let (total, n_ctx) = (self.len + pos, model.config().n_ctx);
        if total > n_ctx {
            return Err(ModelError::TooLong { pos: total, n_ctx });
        }
        Ok(())
    }

    /// The mask of all positions once `[batch, pos]` more are read, of which `new` are padding.
    pub(crate) fn mask_with(&self, new: Option<&IndexTensor>, pos: usize) -> Option<IndexTensor> {
        if self.mask.is_none() && new.is_none() {
            return None;
        }
        let ones = |n: usize| IndexTensor::new(vec![1; self.batch * n], &[self.batch, n]);
        let before = self.mask.clone().unwrap_or_else(|| ones(self.len));
        let new = new.cloned().unwrap_or_else(|| ones(pos));
        Some(IndexTensor::cat(&[before, new], 1))
    }

    /// The rows by layer, for a pass.
    pub(crate) fn layers_mut(&mut self) -> &mut [Past] {
        &mut self.layers
    }

    /// After a pass of `pos` positions that went well, or did not.
    pub(crate) fn finish(&mut self, pos: usize, padding: Option<&Padding>, went_well: bool) {
        if went_well && !self.frozen {
            self.len += pos;
            self.mask = padding.map(|padding| padding.mask().clone());
            return;
        }
        for (past, window) in self.layers.iter_mut().zip(&self.windows) {
            // What is given up before rows are appended is what the first of them does not see.
            assert!(past.truncate(self.len, *window), "rows that the next one sees are never given up");
        }
    }
}
