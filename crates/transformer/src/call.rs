//! Running a model: what goes in, which part runs, what listens, what comes out.

use std::sync::Arc;

use ironlens_autograd::{Tape, Var};
use ironlens_nn::optim::grad_norm;
use ironlens_nn::{Ctx, Hooks, Leaves, Padding, Params, Registry, Target};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_tokenizer::{PaddingSide, TokenOptions};

use crate::cache::{ActivationCache, Keep, PosSlice, Recorder};
use crate::config::PositionalEmbeddingType;
use crate::error::ModelError;
use crate::fit;
use crate::loss::{next_token_loss, next_token_losses};
use crate::model::HookedTransformer;
use crate::names::{LayerIndex, resolve_layer};

/// What a model reads.
#[derive(Clone, Debug)]
pub enum Input {
    /// Tokens `[batch, pos]`.
    Tokens(IndexTensor),
    /// Texts, which the model's tokenizer turns into tokens; shorter ones are padded, and the padding is hidden.
    Texts(Vec<String>),
    /// The residual stream `[batch, pos, d_model]`, for [`Call::start_at_layer`].
    Residual(Tensor),
}

impl From<&str> for Input {
    fn from(text: &str) -> Input {
        Input::Texts(vec![text.into()])
    }
}

impl From<&String> for Input {
    fn from(text: &String) -> Input {
        text.as_str().into()
    }
}

impl<S: AsRef<str>> From<&[S]> for Input {
    fn from(texts: &[S]) -> Input {
        Input::Texts(texts.iter().map(|t| t.as_ref().to_string()).collect())
    }
}

impl<S: AsRef<str>> From<&Vec<S>> for Input {
    fn from(texts: &Vec<S>) -> Input {
        texts.as_slice().into()
    }
}

impl<S: AsRef<str>, const N: usize> From<&[S; N]> for Input {
    fn from(texts: &[S; N]) -> Input {
        texts.as_slice().into()
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Input {
    fn from(texts: [S; N]) -> Input {
        texts.as_slice().into()
    }
}

impl From<&IndexTensor> for Input {
    /// Tokens `[batch, pos]`, or `[pos]` for a batch of one.
    fn from(tokens: &IndexTensor) -> Input {
        match tokens.shape() {
            &[pos] => Input::Tokens(IndexTensor::new(tokens.as_slice(), &[1, pos])),
            _ => Input::Tokens(tokens.clone()),
        }
    }
}

impl From<&Tensor> for Input {
    fn from(residual: &Tensor) -> Input {
        Input::Residual(residual.clone())
    }
}

/// What a call returns (TransformerLens's `return_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReturnType {
    /// Logits `[batch, pos, d_vocab_out]`.
    #[default]
    Logits,
    /// The next-token loss.
    Loss,
    /// Both.
    Both,
    /// Neither: the unembedding is not run.
    None,
}

/// What a call gave. On a recorded call ([`Call::gradients`]) the values are on the tape.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// `[batch, pos, d_vocab_out]`, if asked for.
    pub logits: Option<Var>,
    /// The next-token loss, `[]` or per token `[batch, pos - 1]`, if asked for.
    pub loss: Option<Var>,
    /// The residual stream `[batch, pos, d_model]`, if the call stopped at a layer.
    pub residual: Option<Var>,
}

impl Output {
    /// The logits.
    ///
    /// # Panics
    /// If the call did not return them.
    #[track_caller]
    pub fn logits(&self) -> &Var {
        self.logits.as_ref().expect("the call was not asked for logits: its return type or stop_at_layer excludes them")
    }

    /// The loss.
    ///
    /// # Panics
    /// If the call did not return it.
    #[track_caller]
    pub fn loss(&self) -> &Var {
        self.loss.as_ref().expect("the call was not asked for a loss: set return_type(ReturnType::Loss)")
    }

    /// The residual stream where the call stopped.
    ///
    /// # Panics
    /// If the call did not stop at a layer.
    #[track_caller]
    pub fn residual(&self) -> &Var {
        self.residual.as_ref().expect("the call ran to the end: set stop_at_layer for the residual stream")
    }
}

/// Gradients by the parameters of a model. They hold none of its weights: an optimiser that is handed
/// [`Gradients::slots`] updates in place.
pub struct Gradients {
    registry: Arc<Registry>,
    dtype: DType,
    device: Device,
    slots: Vec<Option<Tensor>>,
}

impl Gradients {
    pub(crate) fn new(params: &Params, slots: Vec<Option<Tensor>>) -> Gradients {
        let (dtype, device) = (params.dtype(), params.device().clone());
        Gradients { registry: params.registry().clone(), dtype, device, slots }
    }

    /// The gradient by parameter `name`, in its shape; `None` if the loss does not depend on it, or
    /// [`Call::leaves`] leaves it out.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let (slot, _) = self.registry.param_place(name)?;
        let grad = self.slots[slot].as_ref()?;
        self.registry.split_slot(slot, grad).into_iter().find(|(n, _)| *n == name).map(|(_, g)| g)
    }

    /// Gradients by stored tensor, for an optimiser.
    pub fn into_slots(self) -> Vec<Option<Tensor>> {
        self.slots
    }

    /// Gradients by stored tensor, for an optimiser.
    pub fn slots(&self) -> &[Option<Tensor>] {
        &self.slots
    }

    /// Euclidean norm over all parameters.
    pub fn norm(&self) -> f64 {
        self.norm_on_device().item()
    }

    /// Euclidean norm over all parameters, one number that stays on the device.
    pub fn norm_on_device(&self) -> Tensor {
        grad_norm(&self.slots, self.dtype, &self.device)
    }
}

/// A call of a model, with everything that TransformerLens's `forward`, `run_with_hooks` and
/// `run_with_cache` take.
///
/// ```
/// # use ironlens_tensor::{Device, IndexTensor};
/// # use ironlens_transformer::{ActFn, Config, HookedTransformer, PosSlice, ReturnType};
/// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 4, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
/// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
/// # let tokens = IndexTensor::from([[0, 1, 2]]);
/// let (out, cache) = model
///     .call(&tokens)
///     .return_type(ReturnType::Both)
///     .names(|name: &str| name.ends_with("resid_post"))
///     .pos_slice(PosSlice::At(-1))
///     .cached()?;
/// assert_eq!(cache.len(), 2);
/// assert_eq!(cache.get(("resid_post", -1))?.shape(), [1, 1, 8]);
/// assert!(out.loss().value().item() > 0.0);
/// # Ok::<(), ironlens_transformer::ModelError>(())
/// ```
#[must_use = "a call runs when it is asked for its output"]
pub struct Call<'a, 'h> {
    model: &'a HookedTransformer,
    input: Input,
    return_type: ReturnType,
    loss_per_token: bool,
    start_at_layer: Option<isize>,
    stop_at_layer: Option<isize>,
    tokens: Option<IndexTensor>,
    attention_mask: Option<IndexTensor>,
    padding_as_transformer_lens: bool,
    text: TokenOptions,
    hooks: Hooks<'h>,
    leaves: Leaves<'h>,
    names: Target<'h>,
    keep: Keep,
}

impl<'a, 'h> Call<'a, 'h> {
    pub(crate) fn new(model: &'a HookedTransformer, input: Input) -> Self {
        Call {
            model,
            input,
            return_type: ReturnType::Logits,
            loss_per_token: false,
            start_at_layer: None,
            stop_at_layer: None,
            tokens: None,
            attention_mask: None,
            padding_as_transformer_lens: false,
            text: TokenOptions::default(),
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

    /// The loss of every prediction, `[batch, pos - 1]`, rather than their mean.
    pub fn loss_per_token(mut self) -> Self {
        self.loss_per_token = true;
        self
    }

    /// Start at the input of this block, with a residual stream as input; negative counts from the
    /// end.
    pub fn start_at_layer(mut self, layer: impl Into<LayerIndex>) -> Self {
        self.start_at_layer = Some(layer.into().0);
        self
    }

    /// Stop before this block and return the residual stream; negative counts from the end, 0
    /// gives the embeddings.
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
    pub fn pos_slice(mut self, slice: PosSlice) -> Self {
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
    /// For input that does not fit the model, options that do not go together, and hooks that
    /// fail.
    pub fn output(self) -> Result<Output, ModelError> {
        let params = &self.model.params;
        let plan = Plan::new(&self)?;
        let mut hooks = self.hooks;
        plan.run(self.model, &mut Ctx::evaluate(params, &mut hooks)?)
    }

    /// Runs and keeps activations, after the hooks of the call.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn cached(self) -> Result<(Output, ActivationCache), ModelError> {
        let params = &self.model.params;
        let plan = Plan::new(&self)?;
        let recorder = Recorder::new(self.model, &self.keep, (plan.batch, plan.pos))?;
        let output = {
            let mut hooks = self.hooks.fwd(self.names, |value, info| recorder.keep(info, value.value()));
            plan.run(self.model, &mut Ctx::evaluate(params, &mut hooks)?)?
        };
        Ok((output, recorder.finish()))
    }

    /// Runs, and differentiates what `loss` makes of the output by every parameter, or by those that
    /// [`Call::leaves`] names. Backward hooks run on the way.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn gradients(self, loss: impl FnOnce(&Output) -> Var) -> Result<(f64, Gradients), ModelError> {
        let (value, gradients) = self.gradients_on_device(loss)?;
        Ok((value.item(), gradients))
    }

    /// As [`Call::gradients`]; the loss is one number that stays on the device, so that nobody waits
    /// for it.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn gradients_on_device(self, loss: impl FnOnce(&Output) -> Var) -> Result<(Tensor, Gradients), ModelError> {
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
    ) -> Result<(f64, Gradients, Vec<Option<Tensor>>), ModelError> {
        let (value, gradients, own) = self.differentiated(tape, own, loss)?;
        Ok((value.item(), gradients, own))
    }

    fn differentiated(
        self,
        tape: &Tape,
        own: &[&Var],
        loss: impl FnOnce(&Output) -> Var,
    ) -> Result<(Tensor, Gradients, Vec<Option<Tensor>>), ModelError> {
        let params = &self.model.params;
        let plan = Plan::new(&self)?;
        let mut hooks = self.hooks;
        let mut ctx = Ctx::record_by(params, tape, &self.leaves, &mut hooks)?;
        let loss = {
            let output = plan.run(self.model, &mut ctx)?;
            scalar(loss(&output))?
        };
        let (slots, own) = ctx.backward_with(&loss, own)?;
        Ok((loss.into_value(), Gradients::new(params, slots), own))
    }

    /// As [`Call::cached`], with the gradients of what `loss` makes of the output: activations under
    /// their names, and their gradients under `name_grad` (TransformerLens's `incl_bwd`). No gradient by
    /// a weight is computed; [`Call::gradients`] gives those.
    ///
    /// # Errors
    /// As [`Call::output`].
    pub fn cached_gradients(self, loss: impl FnOnce(&Output) -> Var) -> Result<(f64, ActivationCache), ModelError> {
        let params = &self.model.params;
        let plan = Plan::new(&self)?;
        let recorder = Recorder::new(self.model, &self.keep, (plan.batch, plan.pos))?;
        let value = {
            let selected = self.names.names(params.registry())?;
            let mut hooks = self
                .hooks
                .fwd(Target::Names(selected.clone()), |value, info| recorder.keep(info, value.value()))
                .bwd(Target::Names(selected), |grad, info| recorder.keep_gradient(info, grad));
            let tape = Tape::new();
            let mut ctx = Ctx::record_by(params, &tape, &Leaves::None, &mut hooks)?;
            let loss = {
                let output = plan.run(self.model, &mut ctx)?;
                scalar(loss(&output))?
            };
            ctx.backward(&loss)?;
            loss.value().item()
        };
        Ok((value, recorder.finish()))
    }
}

pub(crate) fn scalar(loss: Var) -> Result<Var, ModelError> {
    if loss.value().numel() == 1 {
        return Ok(loss);
    }
    Err(ModelError::Options(format!(
        "gradients need a loss of one number, this one has shape {:?}; take its mean or sum",
        loss.shape()
    )))
}

/// A checked call.
struct Plan {
    input: Input,
    tokens: Option<IndexTensor>,
    padding: Option<Padding>,
    batch: usize,
    pos: usize,
    start: usize,
    stop: Option<usize>,
    return_type: ReturnType,
    loss_per_token: bool,
}

impl Plan {
    fn new(call: &Call<'_, '_>) -> Result<Plan, ModelError> {
        let cfg = call.model.config();
        let mut attention_mask = call.attention_mask.clone();
        let input = match &call.input {
            Input::Texts(texts) => {
                let read = call.model.to_tokens_with(texts, &call.text)?;
                attention_mask = attention_mask.or(read.attention_mask);
                Input::Tokens(read.tokens)
            }
            Input::Tokens(_) | Input::Residual(_) => call.input.clone(),
        };
        let (shape, tokens) = match &input {
            Input::Tokens(t) => (t.shape().to_vec(), Some(t.clone())),
            Input::Residual(r) => (r.shape().to_vec(), call.tokens.clone()),
            Input::Texts(_) => unreachable!("texts were turned into tokens"),
        };
        let residual = matches!(input, Input::Residual(_));
        if residual != call.start_at_layer.is_some() {
            return Err(ModelError::Options(match residual {
                true => "a residual stream as input needs start_at_layer to say where it enters".into(),
                false => "start_at_layer needs a residual stream [batch, pos, d_model] as input, not tokens; \
                          give the loss's tokens with .tokens()"
                    .into(),
            }));
        }
        let fits = match (residual, &shape[..]) {
            (false, [_, _]) => true,
            (true, [_, _, d]) => *d == cfg.d_model,
            _ => false,
        };
        let expected = match residual {
            false => "[batch, pos], with at least one of each".to_string(),
            true => format!("[batch, pos, {}], with at least one of each", cfg.d_model),
        };
        if !fits || shape.contains(&0) {
            return Err(ModelError::Shape { what: "the input", given: shape, expected });
        }
        let (batch, pos) = (shape[0], shape[1]);
        if pos > cfg.n_ctx {
            return Err(ModelError::TooLong { pos, n_ctx: cfg.n_ctx });
        }
        for (what, given) in [("the tokens", &tokens), ("the attention mask", &attention_mask)] {
            if let Some(t) = given.as_ref().filter(|t| t.shape() != [batch, pos]) {
                return Err(ModelError::Shape {
                    what,
                    given: t.shape().to_vec(),
                    expected: format!("[{batch}, {pos}], as the input"),
                });
            }
        }
        if let Some(t) = &tokens
            && let Some(i) = t.as_slice().iter().position(|&t| t as usize >= cfg.d_vocab)
        {
            return Err(ModelError::Token {
                token: t.as_slice()[i],
                batch: i / pos,
                pos: i % pos,
                d_vocab: cfg.d_vocab,
            });
        }
        let layers = cfg.n_layers;
        let start = call.start_at_layer.map_or(Ok(0), |l| resolve_layer(l, layers))?;
        // One more than the last block is a place to stop, too.
        let stop = match call.stop_at_layer {
            Some(l) if l == layers as isize => Some(layers),
            Some(l) => Some(resolve_layer(l, layers)?),
            None => None,
        };
        let wants_loss = stop.is_none() && matches!(call.return_type, ReturnType::Loss | ReturnType::Both);
        if wants_loss {
            if tokens.is_none() {
                return Err(ModelError::Options(
                    "the loss of a residual stream needs its tokens: give .tokens()".into(),
                ));
            }
            if pos < 2 {
                return Err(ModelError::Options("the next-token loss needs at least two positions".into()));
            }
            if let Some(&t) = tokens.iter().flat_map(|t| t.as_slice()).find(|t| **t as usize >= cfg.d_vocab_out) {
                return Err(ModelError::Options(format!(
                    "the next-token loss needs every token among the predictions: token {t} is not below d_vocab_out = {}",
                    cfg.d_vocab_out
                )));
            }
        }
        let (blocks, logits) = (stop.unwrap_or(layers) > start, stop.is_none() && call.return_type != ReturnType::None);
        fit::activations(cfg, call.model.device(), [batch, pos], blocks, logits)?;
        Ok(Plan {
            input,
            tokens,
            padding: attention_mask.as_ref().map(|mask| match call.padding_as_transformer_lens {
                false => Padding::new(mask),
                true => Padding::new(mask).as_transformer_lens(),
            }),
            batch,
            pos,
            start,
            stop,
            return_type: call.return_type,
            loss_per_token: call.loss_per_token,
        })
    }

    fn run(&self, model: &HookedTransformer, ctx: &mut Ctx<'_, '_>) -> Result<Output, ModelError> {
        let cfg = model.config();
        let padding = self.padding.as_ref();
        let (mut residual, pos_embed) = match &self.input {
            Input::Tokens(tokens) => self.embed(model, ctx, tokens)?,
            Input::Texts(_) => unreachable!("texts were turned into tokens"),
            Input::Residual(r) => {
                let residual = Var::from(r.to_dtype(ctx.dtype()).to_device(ctx.device()));
                let shortformer = cfg.positional_embedding_type == PositionalEmbeddingType::Shortformer;
                (residual, if shortformer { self.pos_embed(model, ctx)? } else { None })
            }
        };
        let end = self.stop.unwrap_or(cfg.n_layers);
        for block in model.net.blocks.iter().take(end).skip(self.start) {
            residual = block.forward(ctx, residual, pos_embed.as_ref(), padding)?;
        }
        if self.stop.is_some() {
            return Ok(Output { residual: Some(residual), ..Output::default() });
        }
        if let Some(ln) = &model.net.ln_final {
            residual = ln.forward(ctx, &residual)?;
        }
        if self.return_type == ReturnType::None {
            return Ok(Output::default());
        }
        let logits = model.logits(ctx, &residual);
        let mask = padding.map(Padding::mask);
        let loss = match (self.return_type, &self.tokens) {
            (ReturnType::Loss | ReturnType::Both, Some(tokens)) => Some(match self.loss_per_token {
                true => next_token_losses(&logits, tokens, mask),
                false => next_token_loss(&logits, tokens, mask),
            }),
            _ => None,
        };
        Ok(Output { logits: (self.return_type != ReturnType::Loss).then_some(logits), loss, residual: None })
    }

    /// The residual stream at the first block, and what shortformer adds to queries and keys.
    fn embed(
        &self,
        model: &HookedTransformer,
        ctx: &mut Ctx<'_, '_>,
        tokens: &IndexTensor,
    ) -> Result<(Var, Option<Var>), ModelError> {
        let net = &model.net;
        let tokens = match &net.hook_tokens {
            Some(hook) if hook.is_live(ctx) => self.hook_tokens(model, ctx, hook, tokens)?,
            _ => tokens.clone(),
        };
        let mut embed = net.embed.forward(ctx, &tokens);
        if let Some(ln) = &net.embed_ln {
            embed = ln.forward(ctx, &embed)?;
        }
        let embed = net.hook_embed.apply(ctx, embed)?;
        let pos_embed = self.pos_embed(model, ctx)?;
        Ok(match (model.config().positional_embedding_type, pos_embed) {
            (PositionalEmbeddingType::Shortformer, p) => (embed, p),
            (_, Some(p)) => (&embed + &p, None),
            (_, None) => (embed, None),
        })
    }

    /// Position embeddings `[batch, pos, d_model]`, where the model reads them.
    fn pos_embed(&self, model: &HookedTransformer, ctx: &mut Ctx<'_, '_>) -> Result<Option<Var>, ModelError> {
        let Some((w, hook)) = &model.net.pos_embed else { return Ok(None) };
        if model.config().positional_embedding_type == PositionalEmbeddingType::Alibi {
            return Ok(None);
        }
        let value = match &self.padding {
            None => w.forward(ctx, self.batch, self.pos),
            Some(padding) => {
                let mask = padding.mask();
                let ones = mask.as_slice().iter().map(|&m| f32::from(m != 0)).collect();
                let ones = Tensor::from_vec(ones, mask.shape(), ctx.device()).to_dtype(ctx.dtype());
                w.forward_at(ctx, padding.positions(), &Var::from(ones))
            }
        };
        Ok(Some(hook.apply(ctx, value)?))
    }

    /// Hooks see tokens as numbers; what they leave is rounded back to ids.
    fn hook_tokens(
        &self,
        model: &HookedTransformer,
        ctx: &mut Ctx<'_, '_>,
        hook: &ironlens_nn::HookPoint,
        tokens: &IndexTensor,
    ) -> Result<IndexTensor, ModelError> {
        let ids = tokens.as_slice().iter().map(|&t| f64::from(t)).collect();
        let shown = Var::from(Tensor::from_vec_f64(ids, tokens.shape()).to_dtype(ctx.dtype()));
        let left = hook.apply(ctx, shown)?;
        let d_vocab = model.config().d_vocab;
        let ids: Vec<u32> = left.value().to_dtype(DType::F64).to_vec_f64().iter().map(|v| v.round() as u32).collect();
        if let Some(i) = ids.iter().position(|&t| t as usize >= d_vocab) {
            return Err(ModelError::Token { token: ids[i], batch: i / self.pos, pos: i % self.pos, d_vocab });
        }
        Ok(IndexTensor::new(ids, tokens.shape()))
    }
}
