//! Weights on their way into a model. Those of one that is stored in 16 bits are processed and rounded as they come,
//! so that no more than a layer is there in 32.

use std::collections::BTreeMap;
use std::ops::Range;

use ironlens_lens::{Columns, ProcessingByParts};
use ironlens_tensor::{Tensor, release_if_large};
use ironlens_transformer::{HookedTransformer, ModelError, Params, layer_of};

use crate::error::PretrainedError;

/// The unembedding, `[d_model, d_vocab]`.
pub(crate) const UNEMBEDDING: &str = "unembed.W_U";

/// A model that is being filled. What is processed comes layer by layer, and the unembedding after its bias and the
/// final norm.
pub(crate) struct Arriving<'m> {
    params: &'m mut Params,
    /// How weights are processed as they come, if they are.
    parts: Option<ProcessingByParts>,
    /// The layer that comes now, and those of its weights that did.
    layer: Option<(usize, BTreeMap<String, Tensor>)>,
    /// Weights that processing made, which the model has no place for yet.
    added: BTreeMap<String, Tensor>,
}

impl<'m> Arriving<'m> {
    pub fn new(params: &'m mut Params, parts: Option<ProcessingByParts>) -> Arriving<'m> {
        Arriving { params, parts, layer: None, added: BTreeMap::new() }
    }

    /// Whether the model has weight `name`.
    pub fn has(&self, name: &str) -> bool {
        self.params.registry().param_place(name).is_some()
    }

    /// The names of its weights.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.params.registry().params().map(|(name, _)| name)
    }

    /// A weight of the model as it is now.
    pub fn get(&self, name: &str) -> Result<Tensor, PretrainedError> {
        match self.layer.as_ref().and_then(|(_, weights)| weights.get(name)) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.params.get(name).map_err(ModelError::from)?),
        }
    }

    /// Sets a weight.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<(), PretrainedError> {
        match (layer_of(name), &self.parts) {
            (_, None) => self.put(name, value),
            (Some(layer), Some(_)) => {
                if self.layer.as_ref().is_none_or(|(open, _)| *open != layer) {
                    self.close_layer()?;
                    self.layer = Some((layer, BTreeMap::new()));
                }
                if let Some((_, weights)) = &mut self.layer {
                    weights.insert(name.into(), value.contiguous());
                }
                Ok(())
            }
            (None, Some(_)) if name == UNEMBEDDING => self.set_unembedding(&mut Whole(value.clone())),
            (None, Some(parts)) if parts.centers(name) => self.put(name, &value.center()),
            (None, Some(_)) => self.put(name, value),
        }
    }

    /// Sets some rows, from `start` on, of an embedding, or columns, where they lie along axis 1.
    pub fn set_rows(&mut self, name: &str, axis: usize, start: usize, rows: &Tensor) -> Result<(), PretrainedError> {
        let count = rows.dim(axis);
        let centred = self.parts.as_ref().is_some_and(|parts| parts.centers(name)).then(|| rows.center());
        let region = |w: &Tensor| w.narrow(axis, start, count);
        Ok(self.params.assign(name, region, centred.as_ref().unwrap_or(rows)).map_err(ModelError::from)?)
    }

    /// Whether the unembedding is processed as it comes.
    pub fn processes(&self) -> bool {
        self.parts.is_some()
    }

    /// Processes the unembedding, which `columns` reads, into its place.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn set_unembedding<R: ReadColumns>(&mut self, columns: &mut R) -> Result<(), R::Error> {
        let Some(parts) = self.parts.clone() else { unreachable!("it is processed by parts") };
        let [w, b, bias] = ["ln_final.w", "ln_final.b", "unembed.b_U"].map(|name| self.params.get(name).ok());
        let bias = bias.unwrap_or_else(|| unreachable!("an unembedding has a bias"));
        let tokens = bias.dim(0);
        let bias = parts.unembedding(&mut Placed { columns, params: self.params, tokens }, [w, b], &bias)?;
        Ok(self.put("unembed.b_U", &bias)?)
    }

    fn put(&mut self, name: &str, value: &Tensor) -> Result<(), PretrainedError> {
        Ok(self.params.set(name, value).map_err(ModelError::from)?)
    }

    /// Processes the layer that came, whose other weights are what a model starts with, and rounds it.
    fn close_layer(&mut self) -> Result<(), PretrainedError> {
        let (Some(parts), Some((layer, mut weights))) = (&self.parts, self.layer.take()) else { return Ok(()) };
        for (name, value) in self.params.iter().filter(|(name, _)| layer_of(name) == Some(layer)) {
            weights.entry(name.into()).or_insert_with(|| value.to_dtype(value.dtype().computed()));
        }
        parts.layer(layer, &mut weights);
        let largest = weights.values().map(Tensor::numel).max().unwrap_or(0);
        while let Some((name, value)) = weights.pop_first() {
            match self.has(&name) {
                true => self.put(&name, &value)?,
                false => self.added.extend([(name, value)]),
            }
        }
        release_if_large(largest);
        Ok(())
    }

    /// Ends it: all of the weights came. Gives what is left to do for a model that was processed as it came.
    pub fn finish(mut self) -> Result<Option<Arrived>, PretrainedError> {
        self.close_layer()?;
        let added = self.added;
        Ok(self.parts.map(|parts| Arrived { parts, added }))
    }
}

/// How weights were processed that arrived.
pub(crate) struct Arrived {
    parts: ProcessingByParts,
    added: BTreeMap<String, Tensor>,
}

impl Arrived {
    /// The model of them, which is another than the one that they arrived in.
    pub fn finish(self, model: HookedTransformer) -> Result<HookedTransformer, PretrainedError> {
        model.rebuilt(|cfg, all| {
            all.extend(self.added);
            self.parts.finish(cfg, all);
            Ok(())
        })
    }
}

/// An unembedding that can be read some tokens at a time.
pub(crate) trait ReadColumns {
    type Error: From<PretrainedError>;
    /// `[d_model, tokens]`, in `f32`.
    fn read(&mut self, tokens: Range<usize>) -> Result<Tensor, Self::Error>;
}

/// One that is there as a whole.
struct Whole(Tensor);

impl ReadColumns for Whole {
    type Error = PretrainedError;

    fn read(&mut self, tokens: Range<usize>) -> Result<Tensor, PretrainedError> {
        Ok(self.0.narrow(1, tokens.start, tokens.len()))
    }
}

/// One that is read from a checkpoint and written to a model.
struct Placed<'a, R> {
    columns: &'a mut R,
    params: &'a mut Params,
    tokens: usize,
}

impl<R: ReadColumns> Columns for Placed<'_, R> {
    type Error = R::Error;

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn read(&mut self, tokens: Range<usize>) -> Result<Tensor, R::Error> {
        let columns = self.columns.read(tokens)?;
        // The next ones bring memory of their own.
        release_if_large(columns.numel());
        Ok(columns)
    }

    fn write(&mut self, tokens: Range<usize>, columns: &Tensor) -> Result<(), R::Error> {
        let region = |w: &Tensor| w.narrow(1, tokens.start, tokens.len());
        Ok(self.params.assign(UNEMBEDDING, region, columns).map_err(|e| PretrainedError::from(ModelError::from(e)))?)
    }
}
