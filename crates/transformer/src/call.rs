//! A call of a model: which part runs, what listens, what is kept.

use std::fmt;

use ironlens_autograd::{Tape, Var};
use ironlens_nn::{Ctx, Hooks, Leaves, Target};
use ironlens_tensor::{Device, IndexTensor, Tensor};
use ironlens_tokenizer::{PaddingSide, TokenOptions};

use crate::cache::{ActivationCache, Keep, Recorder};
use crate::checked::Checked;
use crate::error::ModelError;
use crate::input::Input;
use crate::key_value_cache::KeyValueCache;
use crate::model::HookedTransformer;
use crate::names::LayerIndex;
use crate::output::{LogitsAt, Output, ParamGradients, ReturnType};
use crate::passes;
use crate::slice::Slice;

/// A call of a model, with everything that TransformerLens's `forward`, `run_with_hooks` and
/// `run_with_cache` take.
///
/// ```
/// # use ironlens_tensor::{Device, IndexTensor};
/// # use ironlens_transformer::{ActFn, Config, HookedTransformer, Slice, ReturnType};
/// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 4, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
/// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
/// # let tokens = IndexTensor::from([[0, 1, 2]]);
/// let (out, cache) = model
///     .call(&tokens)
///     .return_type(ReturnType::Both)
///     .names(|name: &str| name.ends_with("resid_post"))
///     .pos_slice(Slice::At(-1))
///     .cached()?;
/// assert_eq!(cache.len(), 2);
/// assert_eq!(cache.get(("resid_post", -1))?.shape(), [1, 1, 8]);
/// assert!(out.loss().value().item() > 0.0);
/// # Ok::<(), ironlens_transformer::ModelError>(())
/// ```
#[must_use = "a call runs when it is asked for its output"]
pub struct Call<'a, 'h> {
    pub(crate) model: &'a HookedTransformer,
    pub(crate) input: Input,
    pub(crate) return_type: ReturnType,
    pub(crate) logits_at: LogitsAt,
    pub(crate) loss_per_token: bool,
    pub(crate) start_at_layer: Option<isize>,
    pub(crate) stop_at_layer: Option<isize>,
    pub(crate) tokens: Option<IndexTensor>,
    pub(crate) attention_mask: Option<IndexTensor>,
    pub(crate) padding_as_transformer_lens: bool,
    pub(crate) text: TokenOptions,
    pub(crate) past: Option<&'h mut KeyValueCache>,
    hooks: Hooks<'h>,
    leaves: Leaves<'h>,
    names: Target<'h>,
    keep: Keep,
}

/// The input and what was asked for; not the model.
impl fmt::Debug for Call<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("input", &self.input)
            .field("return_type", &self.return_type)
            .field("start_at_layer", &self.start_at_layer)
            .field("stop_at_layer", &self.stop_at_layer)
            .field("attention_mask", &self.attention_mask)
            .field("hooks", &self.hooks)
            .field("leaves", &self.leaves)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl<'a, 'h> Call<'a, 'h> {
    pub(crate) fn new(model: &'a HookedTransformer, input: Input) -> Self {
        Call {
            model,
            input,
            return_type: ReturnType::Logits,
            logits_at: LogitsAt::All,
            loss_per_token: false,
            start_at_layer: None,
            stop_at_layer: None,
            tokens: None,
            attention_mask: None,
            padding_as_transformer_lens: false,
            text: TokenOptions::default(),
            past: None,
            hooks: Hooks::new(),
            leaves: Leaves::All,
            names: Target::all(),
            keep: Keep::default(),
        }
    }

    /// What to return; logits unless told otherwise.
    pub fn return_type(mut self, return_type: ReturnType) -> Self {
        self.return_type = return_type;
        self
    }

    /// Whose logits to compute; everybody's unless told otherwise. Those of the last position alone save most of
    /// the unembedding.
    pub fn logits_at(mut self, at: LogitsAt) -> Self {
        self.logits_at = at;
        self
    }

    /// The loss of every prediction, `[batch, pos - 1]`, rather than their mean.
    pub fn loss_per_token(mut self) -> Self {
        self.loss_per_token = true;
        self
    }

    /// Start at the input of this block, with a residual stream as input; negative counts from the
    /// end, and `n_layers` starts before the final norm.
    pub fn start_at_layer(mut self, layer: impl Into<LayerIndex>) -> Self {
        self.start_at_layer = Some(layer.into().0);
        self
    }

    /// Stop before this block and return the residual stream; negative counts from the end, 0
    /// gives the embeddings, `n_layers` the stream before the final norm.
    pub fn stop_at_layer(mut self, layer: impl Into<LayerIndex>) -> Self {
        self.stop_at_layer = Some(layer.into().0);
        self
    }

    /// The tokens behind a residual stream, for the loss.
    pub fn tokens(mut self, tokens: &IndexTensor) -> Self {
        self.tokens = Some(tokens.clone());
        self
    }

    /// `[batch, pos]`, 0 at padding: hidden from attention, not counted as positions, and left out
    /// of the loss. A padded sequence gives at its tokens what it gives alone, also in bidirectional
    /// models, where TransformerLens differs: see [`Call::padding_as_transformer_lens`].
    pub fn attention_mask(mut self, mask: &IndexTensor) -> Self {
        self.attention_mask = Some(mask.clone());
        self
    }

    /// Takes the attention mask as TransformerLens 2.18 does. Causal models are the same; in
    /// bidirectional ones padding is *not* hidden from attention there: it loses its position
    /// embedding, and every token attends to it.
    pub fn padding_as_transformer_lens(mut self) -> Self {
        self.padding_as_transformer_lens = true;
        self
    }

    /// The input follows what `past` has read, and is appended to it (unless it is frozen, or the call fails). An
    /// attention mask is of the input alone.
    pub fn past_kv_cache(mut self, past: &'h mut KeyValueCache) -> Self {
        self.past = Some(past);
        self
    }

    /// Whether texts get a beginning-of-sequence token; the model's habit unless told otherwise.
    pub fn prepend_bos(mut self, prepend: bool) -> Self {
        self.text.prepend_bos = Some(prepend);
        self
    }

    /// On which side shorter texts are padded; on the right unless told otherwise.
    pub fn padding_side(mut self, side: PaddingSide) -> Self {
        self.text.padding_side = Some(side);
        self
    }

    /// Hooks that run with the call.
    pub fn hooks(mut self, hooks: &'h mut Hooks<'_>) -> Self {
        self.hooks = hooks.nested();
        self
    }

    /// By which weights [`Call::gradients`] differentiates: [`Leaves`], or a predicate on names. All unless
    /// told otherwise; what is left out costs nothing.
    pub fn leaves(mut self, leaves: impl Into<Leaves<'h>>) -> Self {
        self.leaves = leaves.into();
        self
    }

    /// Which activations [`Call::cached`] keeps: a name, several, or a predicate. All unless told
    /// otherwise.
    pub fn names(mut self, names: impl Into<Target<'h>>) -> Self {
        self.names = names.into();
        self
    }

    /// Which positions [`Call::cached`] keeps.
    pub fn pos_slice(mut self, slice: Slice) -> Self {
        self.keep.positions = slice;
        self
    }

    /// As [`Call::names`] with a predicate, whose argument needs no type.
    pub fn names_where(self, names: impl Fn(&str) -> bool + 'h) -> Self {
        self.names(names)
    }

    /// Where [`Call::cached`] keeps activations, if not where the model is: on the host, those of a model on
    /// a GPU take none of its memory once they are made.
    pub fn cache_on(mut self, device: &Device) -> Self {
        self.keep.device = Some(device.clone());
        self
    }

    /// Cache without the batch axis; the batch must be of one.
    pub fn remove_batch_dim(mut self) -> Self {
        self.keep.remove_batch_dim = true;
        self
    }

    /// Runs.
    ///
    /// # Errors
    /// For input that does not fit the model, options that do not go together, hooks that
    /// fail, and backward hooks, which [`Call::gradients`] runs.
    pub fn output(self) -> Result<Output, ModelError> {
        let params = &self.model.params;
        let checked = Checked::new(&self)?;
        let mut hooks = self.hooks;
        let mut ctx = Ctx::evaluate(params, &mut hooks)?.after(checked.pos_offset);
        checked.run(self.model, &mut ctx, self.past)
    }

    /// Runs and keeps activations, after the hooks of the call.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn cached(self) -> Result<(Output, ActivationCache), ModelError> {
        let params = &self.model.params;
        let checked = Checked::new(&self)?;
        let recorder = Recorder::new(self.model, &self.keep, (checked.batch, checked.pos), checked.mask().as_ref())?;
        passes::cached(params, recorder, self.hooks, self.names, |ctx| {
            checked.run(self.model, &mut ctx.after(checked.pos_offset), self.past)
        })
    }

    /// Runs, and differentiates what `loss` makes of the output by every parameter, or by those that
    /// [`Call::leaves`] names. Backward hooks run on the way.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn gradients(self, loss: impl FnOnce(&Output) -> Var) -> Result<(f64, ParamGradients), ModelError> {
        let (value, gradients) = self.gradients_on_device(loss)?;
        Ok((value.item(), gradients))
    }

    /// As [`Call::gradients`]; the loss is one number that stays on the device, so that nobody waits
    /// for it.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn gradients_on_device(
        self,
        loss: impl FnOnce(&Output) -> Var,
    ) -> Result<(Tensor, ParamGradients), ModelError> {
        let (value, gradients, _) = self.differentiated(&Tape::new(), &[], loss)?;
        Ok((value, gradients))
    }

    /// As [`Call::gradients`], also by leaves of the caller's own that hooks bring in: steering vectors, masks,
    /// low-rank updates. They are made on `tape` before the call ([`Tape::leaf`], or a [`Ctx::record`] of
    /// parameters with names); their gradients come in the order of `own`, `None` where the loss does not
    /// depend on one. With `.leaves(Leaves::None)` they are trained alone, and the model's weights cost nothing.
    ///
    /// ```
    /// # use ironlens_autograd::Tape;
    /// # use ironlens_nn::{Hooks, Leaves};
    /// # use ironlens_tensor::{Device, IndexTensor, Rng};
    /// # use ironlens_transformer::{ActFn, Config, HookedTransformer, ReturnType};
    /// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 4, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
    /// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
    /// # let tokens = IndexTensor::from([[0, 1, 2]]);
    /// let mut vector = Rng::new(0, 0).normal(&[8], 0.0, 0.1, &Device::Cpu);
    /// let tape = Tape::new();
    /// let steering = tape.leaf(vector.clone());
    /// let mut hooks = Hooks::new().fwd("blocks.1.hook_resid_pre", |x, _| *x += &steering);
    /// let call = model.call(&tokens).return_type(ReturnType::Loss).hooks(&mut hooks).leaves(Leaves::None);
    /// let (loss, _, own) = call.gradients_with(&tape, &[&steering], |out| out.loss().clone())?;
    /// vector -= own[0].as_ref().unwrap() * 0.1;
    /// # assert!(loss > 0.0);
    /// # Ok::<(), ironlens_transformer::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Call::output`].
    ///
    /// # Panics
    /// If a leaf of `own` is of another tape, or the tape was used up by an earlier call.
    pub fn gradients_with(
        self,
        tape: &Tape,
        own: &[&Var],
        loss: impl FnOnce(&Output) -> Var,
    ) -> Result<(f64, ParamGradients, Vec<Option<Tensor>>), ModelError> {
        let (value, gradients, own) = self.differentiated(tape, own, loss)?;
        Ok((value.item(), gradients, own))
    }

    fn refuse_past(&self) -> Result<(), ModelError> {
        match self.past {
            None => Ok(()),
            Some(_) => Err(ModelError::Options(
                "there are no gradients through a cache of keys and values; run the whole sequence".into(),
            )),
        }
    }

    fn differentiated(
        self,
        tape: &Tape,
        own: &[&Var],
        loss: impl FnOnce(&Output) -> Var,
    ) -> Result<(Tensor, ParamGradients, Vec<Option<Tensor>>), ModelError> {
        let params = &self.model.params;
        self.refuse_past()?;
        let checked = Checked::new(&self)?;
        let pass = |ctx: &mut Ctx<'_, '_>| checked.run(self.model, ctx, None);
        passes::differentiated(params, (tape, own, &self.leaves), self.hooks, pass, loss)
    }

    /// As [`Call::cached`], with the gradients of what `loss` makes of the output: activations under
    /// their names, and their gradients under `name_grad` (TransformerLens's `incl_bwd`). No gradient by
    /// a weight is computed; [`Call::gradients`] gives those.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn cached_gradients(self, loss: impl FnOnce(&Output) -> Var) -> Result<(f64, ActivationCache), ModelError> {
        let params = &self.model.params;
        self.refuse_past()?;
        let checked = Checked::new(&self)?;
        let recorder = Recorder::new(self.model, &self.keep, (checked.batch, checked.pos), checked.mask().as_ref())?;
        let pass = |ctx: &mut Ctx<'_, '_>| checked.run(self.model, ctx, None);
        passes::cached_gradients(params, recorder, self.hooks, &self.names, pass, loss)
    }
}
