//! Running an encoder: what goes in, which head runs, what listens, what comes out.

use std::fmt;

use ironlens_autograd::{Tape, Var};
use ironlens_nn::{Ctx, Hooks, Leaves, Padding, Target, TokenTypeEmbed};
use ironlens_tensor::{Device, IndexTensor, Tensor};

use super::HookedEncoder;
use super::sentences::{Pooling, Sentences, pool};
use crate::cache::{ActivationCache, Keep, Recorder};
use crate::error::ModelError;
use crate::fit;
use crate::input::{Input, check_beside, check_tokens};
use crate::output::ParamGradients;
use crate::passes;
use crate::slice::Slice;

/// What runs after the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Head {
    /// `mlm_head` and `unembed`: the logits of masked words.
    #[default]
    MaskedLanguage,
    /// `pooler`: a vector for each text.
    Pooler,
    /// `pooler` and `nsp_head`: whether the second text of a pair follows the first.
    NextSentence,
    /// Nothing.
    None,
}

/// What a call gave. On a recorded call ([`EncoderCall::gradients`]) the values are on the tape.
#[derive(Clone, Debug)]
pub struct EncoderOutput {
    /// The stream after the last block, `[batch, pos, d_model]`.
    pub residual: Var,
    /// Of [`Head::MaskedLanguage`], `[batch, pos, d_vocab_out]`.
    pub logits: Option<Var>,
    /// Of [`Head::Pooler`] and [`Head::NextSentence`], `[batch, d_model]`.
    pub pooled: Option<Var>,
    /// Of [`Head::NextSentence`], `[batch, 2]`: the logits of "it follows" and "it does not".
    pub next_sentence: Option<Var>,
}

impl EncoderOutput {
    /// The logits of masked words.
    ///
    /// # Panics
    /// If the call ran another head.
    #[track_caller]
    pub fn logits(&self) -> &Var {
        self.logits.as_ref().expect("the call was not asked for logits: its head is not Head::MaskedLanguage")
    }

    /// The pooler's vector.
    ///
    /// # Panics
    /// If the call did not run the pooler.
    #[track_caller]
    pub fn pooled(&self) -> &Var {
        self.pooled.as_ref().expect("the call did not run the pooler: set head(Head::Pooler)")
    }

    /// The logits of whether the second text follows the first.
    ///
    /// # Panics
    /// If the call did not run that head.
    #[track_caller]
    pub fn next_sentence(&self) -> &Var {
        self.next_sentence.as_ref().expect("the call did not run this head: set head(Head::NextSentence)")
    }
}

/// What an encoder reads.
#[derive(Debug)]
pub(super) enum Read {
    One(Input),
    Pairs(Vec<(String, String)>),
}

/// A call of an encoder, with everything that TransformerLens's `forward`, `run_with_hooks` and `run_with_cache` take.
#[must_use = "a call runs when it is asked for its output"]
pub struct EncoderCall<'a, 'h> {
    model: &'a HookedEncoder,
    input: Read,
    head: Head,
    token_types: Option<IndexTensor>,
    attention_mask: Option<IndexTensor>,
    hooks: Hooks<'h>,
    leaves: Leaves<'h>,
    names: Target<'h>,
    keep: Keep,
}

/// The input and what was asked for; not the model.
impl fmt::Debug for EncoderCall<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncoderCall")
            .field("input", &self.input)
            .field("head", &self.head)
            .field("token_types", &self.token_types)
            .field("attention_mask", &self.attention_mask)
            .field("hooks", &self.hooks)
            .field("leaves", &self.leaves)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl<'a, 'h> EncoderCall<'a, 'h> {
    pub(super) fn new(model: &'a HookedEncoder, input: Read) -> Self {
        EncoderCall {
            model,
            input,
            head: Head::default(),
            token_types: None,
            attention_mask: None,
            hooks: Hooks::new(),
            leaves: Leaves::All,
            names: Target::all(),
            keep: Keep::default(),
        }
    }

    /// What runs after the blocks; the masked-language head unless told otherwise.
    pub fn head(mut self, head: Head) -> Self {
        self.head = head;
        self
    }

    /// `[batch, pos]`, 1 at tokens of the second text of a pair, else 0 (TransformerLens's `token_type_ids`). Texts
    /// bring their own; tokens are of one text unless told.
    pub fn token_types(mut self, types: &IndexTensor) -> Self {
        self.token_types = Some(types.clone());
        self
    }

    /// `[batch, pos]`, 0 at padding, which attention then does not see (TransformerLens's `one_zero_attention_mask`).
    /// Texts bring their own.
    pub fn attention_mask(mut self, mask: &IndexTensor) -> Self {
        self.attention_mask = Some(mask.clone());
        self
    }

    /// Hooks that run with the call.
    pub fn hooks(mut self, hooks: &'h mut Hooks<'_>) -> Self {
        self.hooks = hooks.nested();
        self
    }

    /// By which weights [`EncoderCall::gradients`] differentiates: [`Leaves`], or a predicate on names. All unless
    /// told otherwise; what is left out costs nothing.
    pub fn leaves(mut self, leaves: impl Into<Leaves<'h>>) -> Self {
        self.leaves = leaves.into();
        self
    }

    /// Which activations [`EncoderCall::cached`] keeps: a name, several, or a predicate. All unless told otherwise.
    pub fn names(mut self, names: impl Into<Target<'h>>) -> Self {
        self.names = names.into();
        self
    }

    /// Which positions [`EncoderCall::cached`] keeps.
    pub fn pos_slice(mut self, slice: Slice) -> Self {
        self.keep.positions = slice;
        self
    }

    /// Where [`EncoderCall::cached`] keeps activations, if not where the model is.
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
    /// For input that does not fit the model, a head that it has not, hooks that fail, and backward hooks, which
    /// [`EncoderCall::gradients`] runs.
    pub fn output(self) -> Result<EncoderOutput, ModelError> {
        Ok(self.ran()?.1)
    }

    /// The checked call, and what it gave.
    fn ran(self) -> Result<(Plan, EncoderOutput), ModelError> {
        let plan = Plan::new(&self)?;
        let mut hooks = self.hooks;
        let output = plan.run(self.model, &mut Ctx::evaluate(&self.model.params, &mut hooks)?)?;
        Ok((plan, output))
    }

    /// Runs and keeps activations, after the hooks of the call.
    ///
    /// # Errors
    /// As [`EncoderCall::output`].
    pub fn cached(self) -> Result<(EncoderOutput, ActivationCache<HookedEncoder>), ModelError> {
        let plan = Plan::new(&self)?;
        let recorder = Recorder::new(self.model, &self.keep, plan.shape(), plan.mask())?;
        passes::cached(&self.model.params, recorder, self.hooks, self.names, |mut ctx| plan.run(self.model, &mut ctx))
    }

    /// Runs, and differentiates what `loss` makes of the output by every parameter, or by those that
    /// [`EncoderCall::leaves`] names. Backward hooks run on the way.
    ///
    /// # Errors
    /// As [`EncoderCall::output`].
    pub fn gradients(self, loss: impl FnOnce(&EncoderOutput) -> Var) -> Result<(f64, ParamGradients), ModelError> {
        let plan = Plan::new(&self)?;
        let pass = |ctx: &mut Ctx<'_, '_>| plan.run(self.model, ctx);
        let by = (&Tape::new(), &[][..], &self.leaves);
        let (value, gradients, _) = passes::differentiated(&self.model.params, by, self.hooks, pass, loss)?;
        Ok((value.item(), gradients))
    }

    /// As [`EncoderCall::cached`], with the gradients of what `loss` makes of the output: activations under their
    /// names, and their gradients under `name_grad` (TransformerLens's `incl_bwd`).
    ///
    /// # Errors
    /// As [`EncoderCall::output`].
    pub fn cached_gradients(
        self,
        loss: impl FnOnce(&EncoderOutput) -> Var,
    ) -> Result<(f64, ActivationCache<HookedEncoder>), ModelError> {
        let plan = Plan::new(&self)?;
        let recorder = Recorder::new(self.model, &self.keep, plan.shape(), plan.mask())?;
        let pass = |ctx: &mut Ctx<'_, '_>| plan.run(self.model, ctx);
        passes::cached_gradients(&self.model.params, recorder, self.hooks, &self.names, pass, loss)
    }

    /// Runs, and makes one vector of each text, `[batch, d_model]`.
    ///
    /// # Errors
    /// As [`EncoderCall::output`], and for [`Pooling::Pooler`] if the model has no pooler.
    pub fn sentence_embeddings(mut self, how: Sentences) -> Result<Tensor, ModelError> {
        self.head = if how.pooling == Pooling::Pooler { Head::Pooler } else { Head::None };
        let (plan, output) = self.ran()?;
        Ok(pool(&output, plan.padding.as_ref().map(Padding::mask), how))
    }

    /// The tokens of the call, and the logits of masked words.
    pub(super) fn tokens_and_logits(self) -> Result<(IndexTensor, Tensor), ModelError> {
        let (plan, output) = self.ran()?;
        Ok((plan.tokens, output.logits().value().clone()))
    }
}

/// A checked call.
struct Plan {
    /// `[batch, pos]`
    tokens: IndexTensor,
    /// `[batch, pos]`
    types: IndexTensor,
    padding: Option<Padding>,
    head: Head,
}

impl Plan {
    fn new(call: &EncoderCall<'_, '_>) -> Result<Plan, ModelError> {
        let model = call.model;
        has_head(model, call.head)?;
        let (tokens, own_types, own_mask) = match &call.input {
            Read::One(Input::Sequences(s)) => (s.tokens.clone(), None, s.mask.clone()),
            Read::One(Input::Texts(texts)) => model.to_tokens(texts)?.into_parts(),
            Read::Pairs(pairs) => model.pairs_to_tokens(pairs)?.into_parts(),
            Read::One(Input::Residual(_)) => {
                let text = "an encoder reads tokens or texts; hooks at hook_full_embed or blocks.N.hook_resid_pre put \
                            a stream in";
                return Err(ModelError::Options(text.into()));
            }
        };
        let types = call.token_types.clone().or(own_types);
        if call.head == Head::NextSentence && types.is_none() {
            let text =
                "next-sentence prediction needs to know which tokens are of the second text: give .token_types()";
            return Err(ModelError::Options(text.into()));
        }
        let types = types.unwrap_or_else(|| IndexTensor::new(vec![0; tokens.numel()], tokens.shape()));
        let mask = call.attention_mask.clone().or(own_mask);
        check(model, &tokens, &types, mask.as_ref())?;
        let (batch, pos) = (tokens.shape()[0], tokens.shape()[1]);
        let logits = call.head == Head::MaskedLanguage;
        fit::activations(model.config(), model.device(), [batch, pos], pos, true, logits)?;
        Ok(Plan { tokens, types, padding: mask.as_ref().map(Padding::new), head: call.head })
    }

    /// Where padding is.
    fn mask(&self) -> Option<&IndexTensor> {
        self.padding.as_ref().map(Padding::mask)
    }

    fn shape(&self) -> (usize, usize) {
        (self.tokens.shape()[0], self.tokens.shape()[1])
    }

    fn run(&self, model: &HookedEncoder, ctx: &mut Ctx<'_, '_>) -> Result<EncoderOutput, ModelError> {
        let net = &model.net;
        let residual = net.forward(ctx, &self.tokens, &self.types, self.padding.as_ref())?;
        let mut output = EncoderOutput { residual, logits: None, pooled: None, next_sentence: None };
        match (self.head, &net.mlm_head, &net.pooler) {
            (Head::MaskedLanguage, Some(head), _) => output.logits = Some(head.forward(ctx, &output.residual)?),
            (Head::Pooler | Head::NextSentence, _, Some(pooler)) => {
                let pooled = pooler.forward(ctx, &output.residual)?;
                if let (Head::NextSentence, Some(head)) = (self.head, &net.nsp_head) {
                    output.next_sentence = Some(head.forward(ctx, &pooled)?);
                }
                output.pooled = Some(pooled);
            }
            (Head::MaskedLanguage, None, _) | (Head::Pooler | Head::NextSentence, _, None) | (Head::None, _, _) => {}
        }
        Ok(output)
    }
}

/// Refuses a head that the model does not have.
fn has_head(model: &HookedEncoder, head: Head) -> Result<(), ModelError> {
    let heads = model.heads();
    let (there, what) = match head {
        Head::MaskedLanguage => (heads.masked_language, "masked-language head (mlm_head)"),
        Head::Pooler => (heads.pooler, "pooler"),
        Head::NextSentence => (heads.next_sentence, "next-sentence head (nsp_head)"),
        Head::None => (true, ""),
    };
    match there {
        true => Ok(()),
        false => Err(ModelError::Options(format!(
            "the model has no {what}: its checkpoint was made without one; call(..).head(Head::None) runs the blocks alone"
        ))),
    }
}

/// Refuses what does not fit the model.
fn check(
    model: &HookedEncoder,
    tokens: &IndexTensor,
    types: &IndexTensor,
    mask: Option<&IndexTensor>,
) -> Result<(), ModelError> {
    let cfg = model.config();
    let &[batch, pos] = tokens.shape() else {
        let expected = "[batch, pos], with at least one of each".into();
        return Err(ModelError::Shape { what: "the input", given: tokens.shape().to_vec(), expected });
    };
    if batch == 0 || pos == 0 {
        let expected = "[batch, pos], with at least one of each".into();
        return Err(ModelError::Shape { what: "the input", given: vec![batch, pos], expected });
    }
    if pos > cfg.n_ctx {
        return Err(ModelError::TooLong { pos, n_ctx: cfg.n_ctx });
    }
    for (what, given) in [("the token types", Some(types)), ("the attention mask", mask)] {
        check_beside(what, given, [batch, pos])?;
    }
    check_tokens(tokens, cfg.d_vocab)?;
    if let Some(i) = types.as_slice().iter().position(|&t| t as usize >= TokenTypeEmbed::TYPES) {
        return Err(ModelError::Options(format!(
            "token type {} at batch {}, position {}: a type is 0 for the first text, 1 for the second",
            types.as_slice()[i],
            i / pos,
            i % pos
        )));
    }
    Ok(())
}
